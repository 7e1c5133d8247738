//! The manager's REST API: fresh reads, lists, deletion.
//!
//! Of several endpoints the one that answered last is asked first, and the next one beside it once it has been silent for a
//! second: an endpoint that hangs costs a read a second, not its whole time. A deletion is never repeated unseen.
//!
//! Reads are fresh because each asks with a `per_page` of its own: a manager keeps a query's answer for up to 30 s, and a
//! query that differs isn't answered from it. Redirects are not followed (they would carry the credentials away) and no
//! proxy of the environment is used. An answer is read chunk by chunk and given up on past 4 MiB.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use reqwest::{Method, header};
use tokio::time::sleep;

use self::{
    row::Rows,
    session::{Credentials, Session},
};
use super::{
    Failure, Filter, Freshness, Outcome, Registered, Row, RowRead, RowState, State,
    endpoints::{self, CONNECT_LIMIT, Endpoint, Reach},
    grpc::ANSWER_CAP,
    outcome::{self, Class},
    times::Stamp,
};
use crate::{
    files::{Reader, Troubles},
    key::SchedulerKey,
    net::{Lookups, Tls},
    secret::{FileError, Secret},
};

mod accounts;
mod clusters;
mod pages;
pub(crate) mod row;
mod session;

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;

pub(crate) use accounts::{Right, User};
pub use session::Credentials as RestCredentials;

/// How long a request may take, its answer included.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may take to be made: its name's resolution, TCP, and TLS, which may take two round trips.
const MADE_WITHIN: Duration = CONNECT_LIMIT.saturating_mul(4);
/// After this silence of one endpoint the next one is asked beside it: a manager that is far away, and connected to anew, has
/// mostly answered by then.
const STAGGER: Duration = Duration::from_secs(1);
/// More rows than this are not listed: the answer would not fit a sidecar's memory.
const ROWS_CAP: usize = 40_000;
const SCHEDULERS: &str = "/api/v1/schedulers";
/// What a manager says, beside a 401, to a user whose role is not enough.
const DENIED: &str = "permission deny";

/// The REST side of the manager's client.
pub struct Rest {
    endpoints: Vec<Endpoint>,
    /// The endpoint that answered last is asked first.
    preferred: AtomicUsize,
    tls: Arc<Tls>,
    http: Mutex<Option<(Arc<rustls::ClientConfig>, reqwest::Client)>>,
    credentials: Credentials,
    /// Instead of the file's.
    given_password: Option<Secret>,
    /// The address that is connected to, whatever others the endpoint's name has.
    only: Option<SocketAddr>,
    password: Reader<Result<Secret, FileError>>,
    troubles: Troubles,
    session: tokio::sync::Mutex<Session>,
}

/// An answer, whatever its status.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

/// What is said of an HTTPS endpoint that was given as http://.
pub(crate) const WANTS_TLS: &str = "it wants TLS: give it as https://";

impl Answer {
    /// The manager's own word in an error's body, if there is one.
    pub(crate) fn message(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Said {
            message: Option<String>,
            errors: Option<String>,
        }
        let said = serde_json::from_slice::<Said>(&self.body).ok();
        said.and_then(|s| s.message.or(s.errors)).unwrap_or_else(|| {
            // What Go's HTTPS servers, a manager's among them, and nginx say to plain text.
            let body = String::from_utf8_lossy(&self.body);
            let wants_tls = ["HTTP request to an HTTPS server", "HTTP request was sent to HTTPS port"];
            let wants_tls = self.status == 400 && wants_tls.iter().any(|words| body.contains(words));
            if wants_tls { WANTS_TLS.to_owned() } else { String::new() }
        })
    }

    /// The page of rows that it is.
    pub(crate) fn rows(&self, at: &str) -> Result<Vec<Row>, Failure> {
        self.page(at)
    }

    fn page<T>(&self, at: &str) -> Result<Vec<T>, Failure>
    where
        Rows<T>: serde::de::DeserializeOwned,
    {
        match self.class() {
            Class::Confirmed => parse::<Rows<T>>(at, &self.body).map(|rows| rows.0),
            _ => Err(self.failure(at)),
        }
    }

    fn class(&self) -> Class {
        outcome::classify_http(self.status, &self.message())
    }

    fn failure(&self, at: &str) -> Failure {
        match outcome::of_http(at, self.status, &self.message(), self.retry_after) {
            Outcome::Rejected(f) | Outcome::Failed(f) | Outcome::Unknown(f) => f,
            Outcome::Absent => Failure::new(format!("{at}: the manager has no such row")),
            Outcome::Confirmed => Failure::new(format!("{at}: HTTP {}", self.status)),
        }
    }
}

impl Rest {
    /// A client over `endpoints`. Nothing is connected or read before it is needed.
    pub fn new(endpoints: Vec<Endpoint>, tls: Arc<Tls>, credentials: Credentials) -> Self {
        // Without TLS no certificate file can be in the way, nor the compiled-in roots in memory.
        let secured = endpoints.iter().any(Endpoint::tls);
        Self {
            endpoints,
            preferred: AtomicUsize::new(0),
            tls: if secured { tls } else { Arc::new(Tls::nobody()) },
            http: Mutex::default(),
            credentials,
            given_password: None,
            only: None,
            password: Reader::default(),
            troubles: Troubles::default(),
            session: tokio::sync::Mutex::default(),
        }
    }

    /// Tells there whether the password's file can be used.
    #[must_use]
    pub fn telling(self, troubles: Troubles) -> Self {
        Self { troubles, ..self }
    }

    /// Signs in with this password, whatever file there is.
    #[must_use]
    pub(crate) fn with_password(self, password: Secret) -> Self {
        Self { given_password: Some(password), ..self }
    }

    /// Connects to this one address of its one endpoint.
    #[must_use]
    pub(crate) fn at(self, address: SocketAddr) -> Self {
        Self { only: Some(address), ..self }
    }

    /// Reads the row of `key` as it is in the database now.
    pub async fn read_row(&self, key: &SchedulerKey) -> Result<RowRead, Failure> {
        let (at, answer) = self
            .get_page(&[
                ("host_name", key.hostname.to_string()),
                ("ip", key.ip.to_string()),
                ("scheduler_cluster_id", key.cluster_id.to_string()),
                ("page", "1".to_owned()),
                // One row at most fits; the number is there to be another one each time.
                ("per_page", fastrand::u32(1_000..10_000_000).to_string()),
            ])
            .await?;
        let rows: Vec<(Row, Registered)> = answer.page(&at)?;
        // Where hostnames that differ in case alone are different rows, the exact one is meant.
        let exact = rows.iter().find(|(row, _)| row.is(key) && row.hostname == key.hostname.as_str());
        let row = exact.or_else(|| rows.iter().find(|(row, _)| row.is(key)));
        Ok(RowRead {
            state: match row.map(|(row, _)| row.state) {
                Some(State::Active) => RowState::Active,
                Some(State::Inactive) => RowState::Inactive,
                None => RowState::Absent,
            },
            freshness: Freshness::Fresh,
            registered: row.map(|(_, registered)| registered.clone()),
            updated: row.and_then(|(row, _)| row.updated_at.as_deref()).map(Stamp::of),
        })
    }

    /// Lists rows, page by page.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Row>, Failure> {
        let (name, value) = match filter {
            Filter::Hostname(hostname) => ("host_name", hostname.to_string()),
            Filter::Cluster(id) => ("scheduler_cluster_id", id.to_string()),
            Filter::Ip(ip) => ("ip", ip.to_string()),
        };
        let per_page = pages::size();
        let mut rows: Vec<Row> = Vec::new();
        let mut ids = HashSet::new();
        for page in 1.. {
            let query =
                [(name, value.clone()), ("page", page.to_string()), ("per_page", per_page.to_string())];
            let found = self.page(&query).await?;
            let (full, before) = (found.len() >= per_page, rows.len());
            rows.extend(found.into_iter().filter(|row| ids.insert(row.id)));
            if rows.len() > ROWS_CAP {
                return Err(Failure::new(format!(
                    "listing schedulers with {name}={value}: more than {ROWS_CAP} rows; the list is cut off and not used"
                )));
            }
            if !full || rows.len() == before {
                break;
            }
        }
        Ok(rows)
    }

    /// Deletes a row, and sees that it is gone. Where an endpoint's answer is lost the row is looked at before the next is
    /// asked: it may be gone, and what has changed meanwhile may live, and stays.
    pub async fn delete(&self, id: u64) -> Result<(), Failure> {
        let path = format!("{SCHEDULERS}/{id}");
        let mut left = self.order().count();
        // Only with a second endpoint is there anything to be repeated.
        let before = if left > 1 { self.look(id).await? } else { None };
        if left > 1 && before.is_none() {
            return Ok(());
        }
        let mut failures: Vec<Failure> = Vec::new();
        for (index, endpoint) in self.order() {
            let lost = match self.authorized_at(endpoint, Method::DELETE, &path, None).await {
                Ok((at, answer)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return match answer.class() {
                        Class::Confirmed | Class::Absent => self.is_gone(id, &at).await,
                        _ => Err(answer.failure(&at)),
                    };
                }
                Err(lost) => lost,
            };
            left -= 1;
            tracing::info!(row.id = id, reason = %lost, "A deletion was not acknowledged: the row is looked at.");
            failures.push(lost);
            match self.look(id).await {
                Ok(None) => {
                    tracing::info!(
                        row.id = id,
                        "The row is gone: it was deleted, though its answer was lost."
                    );
                    return Ok(());
                }
                Ok(Some(row)) if left > 0 && Some(&row) == before.as_ref() => {
                    tracing::info!(
                        row.id = id,
                        "The row is there, and as it was: another endpoint is asked to delete it."
                    );
                }
                Ok(Some(row)) => {
                    let is = if before.is_some_and(|before| before != row) {
                        "is there, and has changed meanwhile: it is left alone"
                    } else {
                        "is there"
                    };
                    failures.push(Failure::new(format!("row {id} {is}")));
                    break;
                }
                Err(failure) => {
                    failures.push(Failure {
                        why: format!("whether row {id} is gone is not known: {}", failure.why),
                        ..failure
                    });
                    break;
                }
            }
        }
        Err(joined(failures))
    }

    async fn is_gone(&self, id: u64, at: &str) -> Result<(), Failure> {
        match self.look(id).await? {
            None => Ok(()),
            Some(_) => Err(Failure::new(format!(
                "{at}: the manager said that row {id} was deleted, but it is there"
            ))),
        }
    }

    /// The row with this id, as it is in the database now.
    async fn look(&self, id: u64) -> Result<Option<Row>, Failure> {
        let Some(row) = self.by_id(id).await? else { return Ok(None) };
        // A manager may answer that from its memory: ask again in a way that none has in memory.
        let query = [
            ("host_name", row.hostname),
            ("ip", row.ip),
            ("page", "1".to_owned()),
            ("per_page", fastrand::u32(1_000..10_000_000).to_string()),
        ];
        Ok(self.page(&query).await?.into_iter().find(|row| row.id == id))
    }

    /// The endpoints, in the order they were given.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The row with this id, which a manager may answer from its memory: at most 30 s old.
    async fn by_id(&self, id: u64) -> Result<Option<Row>, Failure> {
        let (at, answer) = self.get(&format!("{SCHEDULERS}/{id}")).await?;
        match answer.class() {
            Class::Absent => Ok(None),
            Class::Confirmed => parse::<row::One>(&at, &answer.body).map(|row| Some(row.0)),
            _ => Err(answer.failure(&at)),
        }
    }

    /// Looks at every address of every endpoint: for checks.
    pub async fn reach(&self) -> Vec<Reach> {
        let mut looks = Vec::new();
        for endpoint in &self.endpoints {
            looks.extend(endpoints::reach(endpoint, &self.tls).await);
        }
        looks
    }

    /// Signs in (or renews the token) where that is due: for checks.
    pub async fn signed_in(&self) -> Result<(), Failure> {
        self.token(None).await.map(|_| ())
    }

    /// Signs in early and renews the token in time, for as long as it is polled: a manager can refuse a right password
    /// for half a minute, so it must not be asked for at the last moment only.
    pub async fn keep_signed_in(&self) {
        if !self.credentials.complete() {
            return;
        }
        loop {
            let pause = match self.token(None).await {
                Ok(_) => self.session.lock().await.renewal_due_in().max(Duration::from_secs(60)),
                Err(_) => self.session.lock().await.retry_in().max(Duration::from_secs(5)),
            };
            tokio::time::sleep(pause.mul_f64(1.0 + 0.2 * fastrand::f64())).await;
        }
    }

    async fn page(&self, query: &[(&str, String)]) -> Result<Vec<Row>, Failure> {
        self.page_at(query).await.map(|(_, rows)| rows)
    }

    /// The rows, and the endpoint that gave them.
    async fn page_at(&self, query: &[(&str, String)]) -> Result<(String, Vec<Row>), Failure> {
        let (at, answer) = self.get_page(query).await?;
        answer.rows(&at).map(|rows| (at, rows))
    }

    async fn get_page(&self, query: &[(&str, String)]) -> Result<(String, Answer), Failure> {
        let mut path = reqwest::Url::parse("http://manager").map_err(|e| Failure::new(e.to_string()))?;
        path.set_path(SCHEDULERS);
        path.query_pairs_mut().extend_pairs(query);
        self.get(&format!("{SCHEDULERS}?{}", path.query().unwrap_or_default())).await
    }

    /// The endpoints, the one that answered last first.
    fn order(&self) -> impl ExactSizeIterator<Item = (usize, &Endpoint)> {
        let (n, first) = (self.endpoints.len(), self.preferred.load(Ordering::Relaxed));
        (0..n).map(move |i| (first + i) % n).map(|i| (i, &self.endpoints[i]))
    }

    /// Asks for `path` at the endpoints, with the token, until one answers with something definite: the endpoint and the answer.
    async fn get(&self, path: &str) -> Result<(String, Answer), Failure> {
        // Signed in once, not at each of them.
        self.token(None).await?;
        let ask = |endpoint| self.authorized_at(endpoint, Method::GET, path, None).boxed();
        let (index, answered) = self.first(ask).await.map_err(joined)?;
        self.preferred.store(index, Ordering::Relaxed);
        Ok(answered)
    }

    /// The first endpoint that `ask` succeeds at, and what it gave; or all errors. The next one is asked when one has failed,
    /// or was silent for [`STAGGER`]; those that are silent are not given up.
    async fn first<'a, T, E>(
        &'a self,
        ask: impl Fn(&'a Endpoint) -> BoxFuture<'a, Result<T, E>>,
    ) -> Result<(usize, T), Vec<E>> {
        let mut order = self.order();
        let mut next = order.next();
        let mut asked = FuturesUnordered::new();
        let mut errors = Vec::new();
        loop {
            if let Some((index, endpoint)) = next.take() {
                let answer = ask(endpoint);
                asked.push(async move { (index, answer.await) });
            }
            tokio::select! {
                answer = asked.next() => match answer {
                    Some((index, Ok(value))) => return Ok((index, value)),
                    Some((_, Err(error))) => {
                        errors.push(error);
                        next = order.next();
                    }
                    None => return Err(errors),
                },
                () = sleep(STAGGER), if order.len() > 0 => next = order.next(),
            }
        }
    }

    /// Asks one endpoint, with the token. What isn't definite is a failure.
    async fn authorized_at(
        &self,
        endpoint: &Endpoint,
        method: Method,
        path: &str,
        json: Option<&serde_json::Value>,
    ) -> Result<(String, Answer), Failure> {
        let at = endpoint.to_string();
        let mut token = self.token(None).await?;
        let mut answer = self.request(endpoint, method.clone(), path, Some(&token), json).await?;
        if answer.status == 401 && answer.message() != DENIED {
            // Expired, or the manager's key changed.
            token = self.token(Some(&token)).await?;
            answer = self.request(endpoint, method, path, Some(&token), json).await?;
        }
        match answer.class() {
            Class::Unknown | Class::Failed | Class::Exhausted => Err(answer.failure(&at)),
            Class::Confirmed | Class::Absent | Class::Rejected => Ok((at, answer)),
        }
    }

    /// One request to one endpoint.
    async fn request(
        &self,
        endpoint: &Endpoint,
        method: Method,
        path: &str,
        token: Option<&Secret>,
        json: Option<&serde_json::Value>,
    ) -> Result<Answer, Failure> {
        // The URL is left out of reqwest's words; the endpoint names the place.
        let wrong =
            |e: reqwest::Error| Failure::new(format!("{endpoint}: {}", crate::net::chain(&e.without_url())));
        let mut request = self.http().await?.request(method, format!("{endpoint}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(json) = json {
            request = request.json(json);
        }
        let mut response = request.send().await.map_err(wrong)?;
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|v| v.to_str().ok())
            .and_then(outcome::retry_after);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(wrong)? {
            if body.len() + chunk.len() > ANSWER_CAP {
                return Err(Failure::new(format!(
                    "{endpoint}: the answer is larger than {ANSWER_CAP} bytes; it is cut off and not used"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: response.status().as_u16(), retry_after, body })
    }

    /// The HTTP client with the TLS files as they are now.
    async fn http(&self) -> Result<reqwest::Client, Failure> {
        let config = self.tls.http1().await.map_err(|e| Failure::new(e.to_string()))?;
        let mut http = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((built_with, client)) = http.as_ref()
            && Arc::ptr_eq(built_with, &config)
        {
            return Ok(client.clone());
        }
        let mut builder = reqwest::Client::builder();
        if let (Some(only), Some(endpoint)) = (self.only, self.endpoints.first()) {
            builder = builder.resolve(&endpoint.peer().host, only);
        }
        let client = builder
            .tls_backend_preconfigured(rustls::ClientConfig::clone(&config))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(Lookups::within(CONNECT_LIMIT)))
            .connect_timeout(MADE_WITHIN)
            .timeout(REQUEST_LIMIT)
            .pool_max_idle_per_host(1)
            // A manager keeps it as long as it lives; to look whether it is old would wake an agent that sleeps.
            .pool_idle_timeout(None)
            .user_agent(concat!("signoff/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Failure::new(format!("REST: {}", crate::net::chain(&e))))?;
        *http = Some((config, client.clone()));
        Ok(client)
    }
}

fn parse<T: serde::de::DeserializeOwned>(at: &str, body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|e| Failure::new(format!("{at}: not the manager's answer: {e}")))
}

/// Several endpoints' failures as one: all the words, the longest wish.
fn joined(failures: Vec<Failure>) -> Failure {
    let words: Vec<_> = failures.iter().map(|f| f.why.as_str()).collect();
    let why = if words.is_empty() { "no REST endpoint is configured".to_owned() } else { words.join("; ") };
    Failure {
        why,
        floor: failures.iter().filter_map(|f| f.floor).max(),
        exhausted: failures.iter().any(|f| f.exhausted),
    }
}
