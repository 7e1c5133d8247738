//! The manager's REST API: fresh reads, lists, deletion.
//!
//! Reads are fresh because each asks with a `per_page` of its own: a manager keeps a query's answer for up to 30 s, and a
//! query that differs isn't answered from it. Redirects are not followed (they would carry the credentials away) and no
//! proxy of the environment is used. An answer is read chunk by chunk and given up on past 4 MiB.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Method, header};

use self::{
    row::Rows,
    session::{Credentials, Session},
};
use super::{
    Failure, Filter, Freshness, Outcome, Row, RowRead, RowState, State,
    endpoints::{self, Endpoint, Reach},
    grpc::ANSWER_CAP,
    outcome::{self, Class},
};
use crate::{key::SchedulerKey, net::Tls, secret::Secret};

mod pages;
pub(crate) mod row;
mod session;

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;

pub use session::Credentials as RestCredentials;

/// How long a request may take, its answer included.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// More rows than this are not listed: the answer would not fit a sidecar's memory.
const ROWS_CAP: usize = 40_000;
const SCHEDULERS: &str = "/api/v1/schedulers";

/// The REST side of the manager's client.
pub struct Rest {
    endpoints: Vec<Endpoint>,
    /// The endpoint that answered last is asked first.
    preferred: AtomicUsize,
    tls: Arc<Tls>,
    http: Mutex<Option<(Arc<rustls::ClientConfig>, reqwest::Client)>>,
    credentials: Credentials,
    session: tokio::sync::Mutex<Session>,
}

/// An answer, whatever its status.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The manager's own word in an error's body, if there is one.
    pub(crate) fn message(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Said {
            message: Option<String>,
            errors: Option<String>,
        }
        let said = serde_json::from_slice::<Said>(&self.body).ok();
        said.and_then(|s| s.message.or(s.errors)).unwrap_or_default()
    }

    /// The page of rows that it is.
    pub(crate) fn rows(&self, at: &str) -> Result<Vec<Row>, Failure> {
        match self.class() {
            Class::Confirmed => parse::<Rows>(at, &self.body).map(|rows| rows.0),
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
            session: tokio::sync::Mutex::default(),
        }
    }

    /// Reads the row of `key` as it is in the database now.
    pub async fn read_row(&self, key: &SchedulerKey) -> Result<RowRead, Failure> {
        let rows = self
            .page(&[
                ("host_name", key.hostname.to_string()),
                ("ip", key.ip.to_string()),
                ("scheduler_cluster_id", key.cluster_id.to_string()),
                ("page", "1".to_owned()),
                // One row at most fits; the number is there to be another one each time.
                ("per_page", fastrand::u32(1_000..10_000_000).to_string()),
            ])
            .await?;
        // Where hostnames that differ in case alone are different rows, the exact one is meant.
        let exact = rows.iter().find(|row| row.is(key) && row.hostname == key.hostname.as_str());
        let row = exact.or_else(|| rows.iter().find(|row| row.is(key)));
        Ok(RowRead {
            state: match row.map(|row| row.state) {
                Some(State::Active) => RowState::Active,
                Some(State::Inactive) => RowState::Inactive,
                None => RowState::Absent,
            },
            freshness: Freshness::Fresh,
            port: row.map(|row| row.port),
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

    /// Deletes a row, and sees that it is gone.
    pub async fn delete(&self, id: u64) -> Result<(), Failure> {
        let path = format!("{SCHEDULERS}/{id}");
        let (at, answer) = self.authorized(Method::DELETE, &path).await?;
        match answer.class() {
            Class::Confirmed | Class::Absent => {}
            _ => return Err(answer.failure(&at)),
        }
        let Some(row) = self.by_id(id).await? else { return Ok(()) };
        // Another manager may answer that from its memory: ask again in a way that none has in memory.
        let query = [
            ("host_name", row.hostname),
            ("ip", row.ip),
            ("page", "1".to_owned()),
            ("per_page", fastrand::u32(1_000..10_000_000).to_string()),
        ];
        if self.page(&query).await?.iter().any(|row| row.id == id) {
            return Err(Failure::new(format!(
                "{at}: the manager said that row {id} was deleted, but it is there"
            )));
        }
        Ok(())
    }

    /// The endpoints, in the order they were given.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The row with this id, which a manager may answer from its memory: at most 30 s old.
    async fn by_id(&self, id: u64) -> Result<Option<Row>, Failure> {
        let (at, answer) = self.authorized(Method::GET, &format!("{SCHEDULERS}/{id}")).await?;
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
        let mut path = reqwest::Url::parse("http://manager").map_err(|e| Failure::new(e.to_string()))?;
        path.set_path(SCHEDULERS);
        path.query_pairs_mut().extend_pairs(query);
        let path = format!("{SCHEDULERS}?{}", path.query().unwrap_or_default());
        let (at, answer) = self.authorized(Method::GET, &path).await?;
        answer.rows(&at).map(|rows| (at, rows))
    }

    /// The endpoints, the one that answered last first.
    fn order(&self) -> impl Iterator<Item = (usize, &Endpoint)> {
        let (n, first) = (self.endpoints.len(), self.preferred.load(Ordering::Relaxed));
        (0..n).map(move |i| (first + i) % n).map(|i| (i, &self.endpoints[i]))
    }

    /// Asks the endpoints in turn, with the token, until one answers with something definite. Only for requests that
    /// may be repeated.
    async fn authorized(&self, method: Method, path: &str) -> Result<(String, Answer), Failure> {
        let mut failures: Vec<Failure> = Vec::new();
        for (index, endpoint) in self.order() {
            let at = endpoint.to_string();
            let mut token = self.token(None).await?;
            let mut asked = self.request(endpoint, method.clone(), path, Some(&token), None).await;
            if asked.as_ref().is_ok_and(|a| a.status == 401) {
                // Expired, or the manager's key changed.
                token = self.token(Some(&token)).await?;
                asked = self.request(endpoint, method.clone(), path, Some(&token), None).await;
            }
            match asked {
                Ok(answer) => match answer.class() {
                    Class::Unknown | Class::Failed | Class::Exhausted => failures.push(answer.failure(&at)),
                    Class::Confirmed | Class::Absent | Class::Rejected => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok((at, answer));
                    }
                },
                Err(failure) => failures.push(failure),
            }
        }
        Err(joined(failures))
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
        let mut request = self.http()?.request(method, format!("{endpoint}{path}"));
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
    fn http(&self) -> Result<reqwest::Client, Failure> {
        let config = self.tls.http1().map_err(|e| Failure::new(e.to_string()))?;
        let mut http = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((built_with, client)) = http.as_ref()
            && Arc::ptr_eq(built_with, &config)
        {
            return Ok(client.clone());
        }
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(rustls::ClientConfig::clone(&config))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(super::endpoints::CONNECT_LIMIT)
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
