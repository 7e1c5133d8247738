//! The manager's gRPC API: sign-off and hold (`KeepAlive`), lists (`ListSchedulers`).
//!
//! One warm connection is kept once [`Grpc::watch`] was called, so that a sign-off at shutdown starts without a
//! handshake. It is replaced when it ends (a stopping manager's GOAWAY included) and when a call on it was cut or never
//! answered, not when it is needed. An answer, whatever it says, is no trouble with its connection; but one that something
//! before the manager gave (a proxy's 503) puts the address in doubt: the next call goes to another address, where there is
//! one. A request that surely was not seen is sent again at once on a new connection, within the same attempt.

use std::{
    mem::take,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::join_all, stream};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};
use tonic::Status;

use super::{
    AttemptOptions, Contact, Failure, Freshness, Outcome, Registered, Row, RowRead, RowState, State,
    endpoints::{Dialer, Endpoint, OpenOn, Reach},
    outcome,
};
use crate::{
    key::{ClusterId, SchedulerKey, Source},
    net::Connection,
    proto::manager_v2::{
        KeepAliveRequest, ListSchedulersRequest, Scheduler, SourceType, UpdateSchedulerRequest,
        manager_client::ManagerClient,
    },
};

mod hold;
pub(crate) mod warm;

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;

/// The largest answer that is taken; a larger one is refused before any of it is kept.
pub const ANSWER_CAP: usize = 4 * 1024 * 1024;
/// How long a list may take.
pub(super) const LIST_LIMIT: Duration = Duration::from_secs(5);
/// How many characters are kept of why a call failed: each of many addresses may have its own words.
const WORDS: usize = 300;
/// How many connections one attempt may use up without its request being seen.
const TURNS: usize = 4;

/// The gRPC side of the manager's client.
pub struct Grpc {
    shared: Arc<Shared>,
    keeper: Mutex<Option<AbortHandle>>,
}

pub(super) struct Shared {
    dialer: Arc<Dialer>,
    warm: Mutex<Option<Warm>>,
    /// Told when the warm connection was put aside, or is in doubt.
    changed: Notify,
    contact: watch::Sender<Contact>,
}

/// The warm connection.
struct Warm {
    connection: Connection,
    /// The last answer on it was not the manager's.
    in_doubt: bool,
}

impl Drop for Grpc {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.abort();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Warm>> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The warm connection, and whether it is in doubt.
    fn warm(&self) -> Option<(Connection, bool)> {
        let mut warm = self.lock();
        if warm.as_ref().is_some_and(|warm| warm.connection.is_ended()) {
            *warm = None;
        }
        warm.as_ref().map(|warm| (warm.connection.clone(), warm.in_doubt))
    }

    /// Keeps `connection` warm, unless there is one already that is not in doubt.
    fn keep(&self, connection: &Connection) {
        let mut warm = self.lock();
        if warm.as_ref().is_none_or(|warm| warm.in_doubt || warm.connection.is_ended()) {
            *warm = Some(Warm { connection: connection.clone(), in_doubt: false });
        }
    }

    /// Changes the warm connection, if it is this one.
    fn change(&self, connection: &Connection, change: impl FnOnce(&mut Option<Warm>)) {
        let mut warm = self.lock();
        if warm.as_ref().is_some_and(|warm| warm.connection.id() == connection.id()) {
            change(&mut warm);
        }
    }

    /// Puts a connection in trouble aside: it is not used again, and its address is tried last.
    fn put_aside(&self, connection: &Connection) {
        self.dialer.in_trouble(connection.peer());
        self.change(connection, |warm| {
            *warm = None;
            self.changed.notify_one();
        });
    }

    /// The manager answered on this connection.
    fn answered(&self, connection: &Connection) {
        self.dialer.answered(connection.peer());
        self.change(connection, |warm| {
            if let Some(warm) = warm {
                warm.in_doubt = false;
            }
        });
        self.note_answer();
    }

    /// Something before the manager answered on this connection. The connection is fine, and its address is tried last.
    fn doubt(&self, connection: &Connection) {
        self.dialer.in_trouble(connection.peer());
        self.change(connection, |warm| {
            if let Some(warm) = warm
                && !std::mem::replace(&mut warm.in_doubt, true)
            {
                self.changed.notify_one();
            }
        });
    }

    fn note_answer(&self) {
        self.contact.send_if_modified(|c| {
            let answered = std::mem::replace(&mut c.answered, true);
            c.last_error.take().is_some() || !answered
        });
    }

    fn note_failure(&self, why: &str) {
        let why: String = why.chars().take(WORDS).collect();
        self.contact.send_if_modified(|c| c.last_error.replace(why.clone()).as_ref() != Some(&why));
    }

    /// The warm connection, or a new one, which is warm from now on. One in doubt only if there is no other address.
    async fn connection(&self, new: bool) -> Result<Connection, Failure> {
        match self.warm().filter(|_| !new) {
            Some((warm, false)) => return Ok(warm),
            Some((in_doubt, true)) => {
                let Some(other) = self.dialer.connect_elsewhere(in_doubt.peer()).await else {
                    return Ok(in_doubt);
                };
                self.keep(&other);
                return Ok(other);
            }
            None => {}
        }
        let connection = self.dialer.connect(new).await?;
        self.keep(&connection);
        Ok(connection)
    }
}

/// A call under way. Dropped before it was [`Call::answered`], it leaves a connection in trouble behind.
struct Call {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    _open: OpenOn,
}

impl Call {
    fn on(shared: &Arc<Shared>, connection: &Connection) -> Self {
        Self {
            shared: shared.clone(),
            connection: Some(connection.clone()),
            _open: shared.dialer.open_on(connection.peer()),
        }
    }

    /// The manager answered: the connection is fine.
    fn answered(mut self) {
        if let Some(connection) = self.connection.take() {
            self.shared.answered(&connection);
        }
    }

    /// The call ended with this status.
    fn ended(mut self, status: &Status) {
        if outcome::call_error(status).is_some() {
            // Dropped unanswered.
            return;
        }
        if let Some(connection) = self.connection.take() {
            if outcome::is_the_managers(status) {
                self.shared.answered(&connection);
            } else {
                self.shared.doubt(&connection);
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.shared.put_aside(&connection);
        }
    }
}

fn client(connection: &Connection) -> ManagerClient<Connection> {
    ManagerClient::with_origin(connection.clone(), connection.origin()).max_decoding_message_size(ANSWER_CAP)
}

fn keep_alive(key: &SchedulerKey) -> KeepAliveRequest {
    let source = match key.source {
        Source::Scheduler => SourceType::SchedulerSource,
    };
    KeepAliveRequest {
        source_type: source.into(),
        hostname: key.hostname.to_string(),
        cluster_id: key.cluster_id.get(),
        ip: key.ip.to_string(),
    }
}

impl Grpc {
    /// A client that connects when it is first used.
    pub fn new(dialer: Arc<Dialer>) -> Self {
        let shared = Shared {
            dialer,
            warm: Mutex::default(),
            changed: Notify::new(),
            contact: watch::Sender::new(Contact::default()),
        };
        Self { shared: Arc::new(shared), keeper: Mutex::default() }
    }

    /// Starts to keep a warm connection (once; until `self` is dropped), and tells what is known of the contact. Needs
    /// to be called within a tokio runtime.
    pub fn watch(&self) -> watch::Receiver<Contact> {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if keeper.is_none() {
            *keeper = Some(tokio::spawn(warm::keep_warm(self.shared.clone())).abort_handle());
        }
        self.shared.contact.subscribe()
    }

    /// The endpoints, in the order they were given.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.shared.dialer.endpoints()
    }

    /// Looks at every address of every endpoint: for checks.
    pub async fn reach(&self) -> Vec<Reach> {
        self.shared.dialer.reach().await
    }

    /// Notes an answer that came by another way (REST).
    pub(super) fn note_answer(&self) {
        self.shared.note_answer();
    }

    /// Notes how the last read over REST failed, or that it didn't: gRPC may have answered it instead.
    pub(super) fn note_rest(&self, failure: Option<&Failure>) {
        let why = failure.map(|failure| failure.why.chars().take(WORDS).collect::<String>());
        self.shared.contact.send_if_modified(|c| std::mem::replace(&mut c.rest_error, why.clone()) != why);
    }

    /// Notes how a call failed, after all was tried that there was for it.
    pub(super) fn note_failure(&self, failure: &Failure) {
        self.shared.note_failure(&failure.why);
    }

    /// One attempt at a sign-off; see [`super::Manager::sign_off`].
    pub async fn sign_off(&self, key: &SchedulerKey, options: AttemptOptions) -> Outcome {
        let sent = AtomicBool::new(false);
        let attempt = self.attempt(key, options.hedge, &sent);
        match timeout(options.limit, attempt).await {
            Ok(outcome) => outcome,
            Err(_) if sent.load(Ordering::Relaxed) => Outcome::Unknown(Failure::new(format!(
                "no acknowledgement within {:?}; it may still come into effect",
                options.limit
            ))),
            Err(_) => Outcome::Failed(Failure::new(format!("no manager reached within {:?}", options.limit))),
        }
    }

    async fn attempt(&self, key: &SchedulerKey, hedge: bool, sent: &AtomicBool) -> Outcome {
        let mut unseen = Vec::new();
        for turn in 0..TURNS {
            let connection = match self.shared.connection(hedge || turn > 0).await {
                Ok(connection) => connection,
                Err(failure) => return Outcome::Failed(failure),
            };
            let call = Call::on(&self.shared, &connection);
            sent.store(true, Ordering::Relaxed);
            let requests = stream::iter([keep_alive(key)]);
            let status = match drain(&connection, requests).await {
                Ok(()) => {
                    call.answered();
                    return Outcome::Confirmed;
                }
                Err(status) => status,
            };
            let outcome = outcome::of_status(&at(&connection), &status);
            match outcome::call_error(&status) {
                Some(error) if error.surely_not_seen() => {
                    sent.store(false, Ordering::Relaxed);
                    unseen.push(error.to_string());
                    unseen.dedup();
                    continue;
                }
                _ => {}
            }
            call.ended(&status);
            return outcome;
        }
        Outcome::Failed(Failure::new(format!(
            "{TURNS} connections ended before the request was sent: {}",
            unseen.join("; ")
        )))
    }

    /// An attempt at a sign-off at each address of every endpoint; see [`super::Withdraw::sign_off_everywhere`].
    pub async fn sign_off_everywhere(
        &self,
        key: &SchedulerKey,
        others: &[IpAddr],
        limit: Duration,
    ) -> Result<Vec<(String, Outcome)>, Failure> {
        let one = |connected: Result<Connection, String>| async move {
            let connection = match connected {
                Ok(connection) => connection,
                Err(why) => return Outcome::Failed(Failure::new(why)),
            };
            match timeout(limit, drain(&connection, stream::iter([keep_alive(key)]))).await {
                Ok(Ok(())) => Outcome::Confirmed,
                Ok(Err(status)) => outcome::of_status(&at(&connection), &status),
                Err(_) => Outcome::Unknown(Failure::new(format!("no acknowledgement within {limit:?}"))),
            }
        };
        self.everywhere(others, one).await
    }

    /// What `one` makes of a new connection to each address of every endpoint, and to these `others`, side by side.
    async fn everywhere<F: Future>(
        &self,
        others: &[IpAddr],
        one: impl Fn(Result<Connection, String>) -> F,
    ) -> Result<Vec<(String, F::Output)>, Failure> {
        let connected = self.shared.dialer.connect_to_each(others).await?;
        let each = connected
            .into_iter()
            .map(|(addr, connected)| one(connected).map(move |said| (named(addr), said)));
        Ok(join_all(each).await)
    }

    /// What each address of every endpoint gives a peer that names this cluster; see [`super::Withdraw::given`].
    pub async fn given(
        &self,
        cluster: ClusterId,
        others: &[IpAddr],
        ip: IpAddr,
    ) -> Result<Vec<(String, Result<Vec<Row>, Failure>)>, Failure> {
        let one = |connected: Result<Connection, String>| async move {
            let connection = connected.map_err(Failure::new)?;
            let request = ListSchedulersRequest { scheduler_cluster_id: cluster.get(), ..made_up_caller(ip) };
            let asked = timeout(LIST_LIMIT, client(&connection).list_schedulers(request)).await;
            let answer = asked.map_err(|_| Failure::new(format!("no answer within {LIST_LIMIT:?}")))?;
            let answer = answer.map_err(|status| failure_of(&at(&connection), &status))?;
            Ok(answer.into_inner().schedulers.into_iter().map(row).collect())
        };
        self.everywhere(others, one).await
    }

    /// Opens a hold; see [`super::Manager::hold`].
    pub async fn hold(&self, key: &SchedulerKey) -> Result<super::HoldStart, Failure> {
        hold::open(&self.shared, key).await
    }

    /// Reads the row of `key` from a list of the active rows, at most 30 s old: the caller's hostname is made up, so
    /// that no older answer is kept for it.
    pub async fn read_row(&self, key: &SchedulerKey) -> Result<RowRead, Failure> {
        let schedulers = self.schedulers(made_up_caller(key.ip.get())).await?;
        let registered = schedulers.into_iter().find_map(|mut scheduler| {
            let (idc, location) = (take(&mut scheduler.idc), take(&mut scheduler.location));
            let features = take(&mut scheduler.features);
            let row = row(scheduler);
            (row.is(key) && row.state == State::Active).then(|| Registered {
                port: row.port,
                idc,
                location,
                // What is no list of words is the manager's to choose.
                features: serde_json::from_slice(&features).unwrap_or_default(),
                config: String::new(),
            })
        });
        Ok(RowRead {
            state: if registered.is_some() { RowState::Active } else { RowState::NotActive },
            freshness: Freshness::Within30s,
            registered,
            updated: None,
        })
    }

    /// Registers a row; see [`super::Manager::register`].
    pub async fn register(&self, key: &SchedulerKey, registered: &Registered) -> Result<(), Failure> {
        let connection = self.shared.connection(false).await?;
        let call = Call::on(&self.shared, &connection);
        let mut request = tonic::Request::new(UpdateSchedulerRequest {
            source_type: SourceType::SchedulerSource.into(),
            hostname: key.hostname.to_string(),
            scheduler_cluster_id: key.cluster_id.get(),
            idc: registered.idc.clone(),
            location: registered.location.clone(),
            ip: key.ip.to_string(),
            port: registered.port,
            features: registered.features.clone(),
            config: registered.config.clone().into_bytes(),
        });
        request.set_timeout(LIST_LIMIT);
        let answer = tokio::time::timeout(LIST_LIMIT, client(&connection).update_scheduler(request)).await;
        match answer {
            Ok(Ok(_)) => {
                call.answered();
                Ok(())
            }
            Ok(Err(status)) => {
                call.ended(&status);
                let failure = failure_of(&at(&connection), &status);
                Err(Failure { why: format!("UpdateScheduler: {}", failure.why), ..failure })
            }
            Err(_) => Err(Failure::new(format!("UpdateScheduler: no answer within {LIST_LIMIT:?}"))),
        }
    }

    /// The active rows of every cluster, at most 30 s old, asked as a caller with the address `ip`.
    pub async fn list_active(&self, ip: IpAddr) -> Result<Vec<Row>, Failure> {
        self.list(made_up_caller(ip)).await
    }

    /// The rows of a cluster, inactive ones too (from v2.3.1; before, active ones only). May be minutes old.
    pub async fn list_cluster(&self, cluster: ClusterId, ip: IpAddr) -> Result<Vec<Row>, Failure> {
        let request = ListSchedulersRequest { scheduler_cluster_id: cluster.get(), ..made_up_caller(ip) };
        let rows = self.list(request).await?;
        // An old release doesn't know the field, and lists every cluster.
        Ok(rows.into_iter().filter(|row| row.cluster_id == cluster.get()).collect())
    }

    async fn list(&self, request: ListSchedulersRequest) -> Result<Vec<Row>, Failure> {
        Ok(self.schedulers(request).await?.into_iter().map(row).collect())
    }

    async fn schedulers(&self, request: ListSchedulersRequest) -> Result<Vec<Scheduler>, Failure> {
        let deadline = Instant::now() + LIST_LIMIT;
        let asked = timeout_at(deadline, self.list_once(&request, false)).await;
        let late = || Failure::new(format!("ListSchedulers: no answer within {LIST_LIMIT:?}"));
        match asked.map_err(|_| late())? {
            Ok(rows) => Ok(rows),
            // A read can be repeated whatever happened to the first one.
            Err((_, true)) => timeout_at(deadline, self.list_once(&request, true))
                .await
                .map_err(|_| late())?
                .map_err(|(failure, _)| failure),
            Err((failure, false)) => Err(failure),
        }
    }

    /// The rows, or why not and whether it was the connection that failed.
    async fn list_once(
        &self,
        request: &ListSchedulersRequest,
        new: bool,
    ) -> Result<Vec<Scheduler>, (Failure, bool)> {
        let connection = self.shared.connection(new).await.map_err(|f| (f, false))?;
        let call = Call::on(&self.shared, &connection);
        let mut request = tonic::Request::new(request.clone());
        request.set_timeout(LIST_LIMIT);
        match client(&connection).list_schedulers(request).await {
            Ok(answer) => {
                call.answered();
                Ok(answer.into_inner().schedulers)
            }
            Err(status) => {
                let cut = outcome::call_error(&status).is_some();
                call.ended(&status);
                let failure = failure_of(&at(&connection), &status);
                // tonic's word for an answer over the cap.
                let hint = match status.code() {
                    tonic::Code::OutOfRange if status.message().contains("message length too large") => {
                        "; a list over 4 MiB is not taken: read the rows over REST, or from the manager's database"
                    }
                    _ => "",
                };
                Err((Failure { why: format!("ListSchedulers: {}{hint}", failure.why), ..failure }, cut))
            }
        }
    }
}

/// Sends `requests` and waits for the end of the answer: OK there is the acknowledgement, with or without a message.
pub(crate) async fn drain<S>(connection: &Connection, requests: S) -> Result<(), Status>
where
    S: futures_util::Stream<Item = KeepAliveRequest> + Send + 'static,
{
    let mut answer = client(connection).keep_alive(requests).await?.into_inner();
    while answer.message().await?.is_some() {}
    Ok(())
}

fn failure_of(at: &str, status: &Status) -> Failure {
    match outcome::of_status(at, status) {
        Outcome::Rejected(f) | Outcome::Failed(f) | Outcome::Unknown(f) => f,
        Outcome::Confirmed | Outcome::Absent => Failure::new(status.message()),
    }
}

fn at(connection: &Connection) -> String {
    named(connection.peer())
}

fn named(addr: SocketAddr) -> String {
    format!("manager {addr}")
}

/// A caller nobody was before. Never a version: the manager keeps one metric label for each, for good.
fn made_up_caller(ip: IpAddr) -> ListSchedulersRequest {
    ListSchedulersRequest {
        hostname: format!("signoff-{:016x}", fastrand::u64(..)),
        ip: ip.to_string(),
        ..Default::default()
    }
}

fn row(scheduler: Scheduler) -> Row {
    Row {
        id: scheduler.id,
        hostname: scheduler.hostname,
        ip: scheduler.ip,
        port: scheduler.port,
        state: if scheduler.state == "active" { State::Active } else { State::Inactive },
        cluster_id: scheduler.scheduler_cluster_id,
        created_at: None,
        last_keep_alive_at: None,
        keep_alive_interval: None,
        updated_at: None,
    }
}
