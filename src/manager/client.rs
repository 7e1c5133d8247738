//! The [`Manager`] that users run: gRPC for writes, REST for fresh reads.
//!
//! Where REST is configured and works, it answers the reads; where it fails, gRPC's lists do (at most 30 s old), and the
//! reason is logged. Nothing is connected, resolved or read from a file before it is needed.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, task::AbortHandle, time::timeout};

use super::{
    AttemptOptions, Contact, Failure, Filter, Freshness, HoldStart, Listed, Manager, Outcome, Registered,
    Row, RowRead, Withdraw,
    endpoints::{Api, Dialer, Endpoint},
    grpc::{Grpc, LIST_LIMIT},
    rest::{Rest, RestCredentials, Right},
};
use crate::{
    files::Troubles,
    key::{ClusterId, SchedulerKey},
    net::{Tls, TlsFiles},
};

/// How long a read may take over REST; after that it is made over gRPC.
const REST_LIMIT: Duration = Duration::from_secs(5);
/// How long a read of a row, or a list, may take: over REST, then over gRPC, and a moment.
pub const READ_LIMIT: Duration =
    REST_LIMIT.saturating_add(LIST_LIMIT).saturating_add(Duration::from_millis(500));

/// Where the managers are and how they are spoken to.
#[derive(Debug, Clone, Default)]
pub struct ManagerSettings {
    /// gRPC endpoints; at least one is needed.
    pub grpc: Vec<Endpoint>,
    /// REST endpoints, for fresh reads and deletion.
    pub rest: Vec<Endpoint>,
    /// The user of REST; one with the role `guest` may read.
    pub username: Option<String>,
    /// The file with that user's password.
    pub password_file: Option<PathBuf>,
    /// PEM certificates that sign the managers' ones; the Mozilla roots if there is none.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate chain in PEM, for mTLS.
    pub cert_file: Option<PathBuf>,
    /// Its private key in PEM.
    pub key_file: Option<PathBuf>,
    /// The address that lists over gRPC are asked as (a manager wants one); loopback if there is none.
    pub caller_ip: Option<IpAddr>,
}

/// Why there can be no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// All writes go over gRPC.
    #[error("no gRPC endpoint of a manager: give one with --manager host:port (all writes go over gRPC)")]
    NoGrpc,
    /// An endpoint of one API was given for the other.
    #[error("manager endpoint {0} does not serve the API it is given for")]
    WrongApi(Endpoint),
}

/// The client of all managers.
pub struct Client {
    grpc: Arc<Grpc>,
    rest: Option<Arc<Rest>>,
    /// What REST did last: see the constants.
    rest_state: AtomicU8,
    caller_ip: IpAddr,
    signed_in: Mutex<Option<AbortHandle>>,
}

const UNTRIED: u8 = 0;
const WORKS: u8 = 1;
const FAILS: u8 = 2;

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(task) = self.signed_in.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Client {
    /// A client with these settings. Without a user, a REST endpoint is of no use: reads then say so and use gRPC.
    pub fn new(settings: ManagerSettings) -> Result<Self, SettingsError> {
        Self::telling(settings, &Troubles::default())
    }

    /// The same, which tells there which of its files can't be used.
    pub fn telling(settings: ManagerSettings, troubles: &Troubles) -> Result<Self, SettingsError> {
        if settings.grpc.is_empty() {
            return Err(SettingsError::NoGrpc);
        }
        let wrong = settings.grpc.iter().filter(|e| e.api() != Api::Grpc);
        if let Some(endpoint) = wrong.chain(settings.rest.iter().filter(|e| e.api() != Api::Rest)).next() {
            return Err(SettingsError::WrongApi(endpoint.clone()));
        }
        let tls =
            Tls::new(TlsFiles { ca: settings.ca_file, cert: settings.cert_file, key: settings.key_file });
        let tls = Arc::new(tls.telling_as("the manager's TLS", troubles.clone()));
        // Agents that start at different managers spread over them.
        let start = fastrand::usize(..settings.grpc.len());
        let dialer = Arc::new(Dialer::new(settings.grpc, tls.clone(), start));
        let credentials =
            RestCredentials { username: settings.username, password_file: settings.password_file };
        let rest = (!settings.rest.is_empty())
            .then(|| Arc::new(Rest::new(settings.rest, tls, credentials).telling(troubles.clone())));
        Ok(Self {
            grpc: Arc::new(Grpc::new(dialer)),
            rest,
            rest_state: AtomicU8::new(UNTRIED),
            caller_ip: settings.caller_ip.unwrap_or(Ipv4Addr::LOCALHOST.into()),
            signed_in: Mutex::default(),
        })
    }

    /// The gRPC side alone, for checks.
    pub fn grpc(&self) -> &Grpc {
        &self.grpc
    }

    /// The REST side alone, for checks, where it is configured.
    pub fn rest(&self) -> Option<&Rest> {
        self.rest.as_deref()
    }

    /// The gRPC side, to read rows from beside this client's own calls.
    pub fn shared_grpc(&self) -> Arc<Grpc> {
        self.grpc.clone()
    }

    /// The REST side, to read rows from beside this client's own calls, where it is configured.
    pub fn shared_rest(&self) -> Option<Arc<Rest>> {
        self.rest.clone()
    }

    /// The address that lists over gRPC are asked as.
    pub fn caller_ip(&self) -> IpAddr {
        self.caller_ip
    }

    fn rest_worked(&self) {
        self.grpc.note_answer();
        self.grpc.note_rest(None);
        if self.rest_state.swap(WORKS, Ordering::Relaxed) == FAILS {
            tracing::info!("REST works again: reads are fresh.");
        }
    }

    /// A success was noted where the answer came.
    fn noted<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &result {
            self.grpc.note_failure(failure);
        }
        result
    }

    /// Logged when it begins; a failure that goes on is no news.
    fn rest_failed(&self, failure: &Failure) {
        self.grpc.note_rest(Some(failure));
        if self.rest_state.swap(FAILS, Ordering::Relaxed) != FAILS {
            tracing::warn!(reason = %failure, "Rows can't be read over REST; they are read over gRPC, up to 30 s old.");
        }
    }
}

/// What REST answers in its share of a read's time.
async fn in_time<T>(read: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = |_| Failure::new(format!("no answer within {REST_LIMIT:?}"));
    timeout(REST_LIMIT, read).await.map_err(late)?
}

fn both(rest: &Failure, grpc: Failure) -> Failure {
    Failure { why: format!("REST: {rest}; gRPC: {grpc}"), ..grpc }
}

#[async_trait]
impl Manager for Client {
    async fn sign_off(&self, key: &SchedulerKey, options: AttemptOptions) -> Outcome {
        let outcome = self.grpc.sign_off(key, options).await;
        if let Some(failure) = outcome.failure() {
            self.grpc.note_failure(failure);
        }
        outcome
    }

    async fn hold(&self, key: &SchedulerKey) -> Result<HoldStart, Failure> {
        self.noted(self.grpc.hold(key).await)
    }

    async fn read_row(&self, key: &SchedulerKey) -> Result<RowRead, Failure> {
        let Some(rest) = &self.rest else { return self.noted(self.grpc.read_row(key).await) };
        match in_time(rest.read_row(key)).await {
            Ok(read) => {
                self.rest_worked();
                Ok(read)
            }
            Err(failure) => {
                self.rest_failed(&failure);
                self.noted(self.grpc.read_row(key).await.map_err(|grpc| both(&failure, grpc)))
            }
        }
    }

    async fn list(&self, filter: &Filter) -> Result<Listed, Failure> {
        let over_grpc = async {
            let rows = match filter {
                Filter::Cluster(id) => self.grpc.list_cluster(*id, self.caller_ip).await?,
                Filter::Hostname(_) | Filter::Ip(_) => self.grpc.list_active(self.caller_ip).await?,
            };
            let rows = rows.into_iter().filter(|row| matches(filter, row)).collect();
            Ok(Listed { rows, freshness: Freshness::Within30s })
        };
        let Some(rest) = &self.rest else { return self.noted(over_grpc.await) };
        match in_time(rest.list(filter)).await {
            Ok(rows) => {
                self.rest_worked();
                Ok(Listed { rows, freshness: Freshness::Fresh })
            }
            Err(failure) => {
                self.rest_failed(&failure);
                self.noted(over_grpc.await.map_err(|grpc| both(&failure, grpc)))
            }
        }
    }

    async fn register(&self, key: &SchedulerKey, registered: &Registered) -> Result<(), Failure> {
        self.noted(self.grpc.register(key, registered).await)
    }

    fn freshness(&self) -> Freshness {
        match self.rest_state.load(Ordering::Relaxed) {
            WORKS => Freshness::Fresh,
            _ => Freshness::Within30s,
        }
    }

    fn watch(&self) -> watch::Receiver<Contact> {
        let mut signed_in = self.signed_in.lock().unwrap_or_else(PoisonError::into_inner);
        if let (None, Some(rest)) = (&*signed_in, &self.rest) {
            let rest = rest.clone();
            *signed_in = Some(tokio::spawn(async move { rest.keep_signed_in().await }).abort_handle());
        }
        self.grpc.watch()
    }
}

impl Client {
    fn deleting(&self) -> Result<&Rest, Failure> {
        self.rest.as_deref().ok_or_else(|| {
            Failure::new(
                "deleting a row needs REST: give an http:// or https:// endpoint with --manager, --username and --password-file",
            )
        })
    }
}

#[async_trait]
impl Withdraw for Client {
    async fn may_delete(&self) -> Result<bool, Failure> {
        self.deleting()?.may(Right::Delete).await
    }

    async fn sign_off_everywhere(
        &self,
        key: &SchedulerKey,
        others: &[IpAddr],
        limit: Duration,
    ) -> Result<Vec<(String, Outcome)>, Failure> {
        self.grpc.sign_off_everywhere(key, others, limit).await
    }

    async fn whole(
        &self,
        id: u64,
        of: (u64, &str, Option<IpAddr>),
    ) -> Result<Option<(Row, String)>, Failure> {
        self.deleting()?.whole(id, of).await
    }

    async fn delete(&self, id: u64) -> Result<(), Failure> {
        self.deleting()?.delete(id).await
    }

    async fn given(
        &self,
        cluster: ClusterId,
        others: &[IpAddr],
    ) -> Result<Vec<(String, Result<Vec<Row>, Failure>)>, Failure> {
        self.grpc.given(cluster, others, self.caller_ip).await
    }
}

fn matches(filter: &Filter, row: &Row) -> bool {
    match filter {
        Filter::Hostname(hostname) => row.hostname.eq_ignore_ascii_case(hostname.as_str()),
        Filter::Cluster(id) => row.cluster_id == id.get(),
        Filter::Ip(ip) => row.ip.parse::<IpAddr>().is_ok_and(|i| i.to_canonical() == ip.to_canonical()),
    }
}

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;
