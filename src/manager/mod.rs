//! The Dragonfly manager behind one trait, [`Manager`]: sign a key off, hold it, read its row, list rows, delete a row.
//!
//! Writes go over gRPC (`KeepAlive` is the only call that changes a row's state); fresh reads over REST where it is
//! configured, else over gRPC's cached lists. What each answer means is decided once, in [`outcome`].

use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::key::{ClusterId, Hostname, SchedulerKey};

pub mod backoff;
pub mod client;
pub(crate) mod date;
pub mod endpoints;
pub mod grpc;
pub mod outcome;
pub mod rest;
pub mod times;

/// How one attempt at a sign-off ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The manager ended the half-closed KeepAlive stream with OK: `inactive` is in its database.
    Confirmed,
    /// The manager answered `record not found`: there is no such row.
    Absent,
    /// The manager, or something before it, refused the request for good: retrying the same can't help.
    Rejected(Failure),
    /// Nothing of this attempt will still be applied (never sent, or the manager said how it ended).
    Failed(Failure),
    /// No answer, or none that says how it ended: it may still be applied, for a minute or so.
    Unknown(Failure),
}

impl Outcome {
    /// The label of `signoff_attempts_total{outcome}`.
    pub fn label(&self) -> &'static str {
        match self {
            Outcome::Confirmed => "confirmed",
            Outcome::Absent => "absent",
            Outcome::Rejected(_) => "rejected",
            Outcome::Failed(_) => "failed",
            Outcome::Unknown(_) => "unknown",
        }
    }

    /// What went wrong, where something did.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Outcome::Confirmed | Outcome::Absent => None,
            Outcome::Rejected(f) | Outcome::Failed(f) | Outcome::Unknown(f) => Some(f),
        }
    }
}

/// Why a call did not succeed, in one line a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Failure {
    /// One line: what failed, at which endpoint, and what that means. Never a secret.
    pub why: String,
    /// The manager's own wish, from `Retry-After`: no sooner than this.
    pub floor: Option<Duration>,
    /// The manager said that it is overloaded (ResourceExhausted, 429).
    pub exhausted: bool,
}

impl Failure {
    /// A failure without any word from the manager about when to come again.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), floor: None, exhausted: false }
    }
}

/// A row's `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Handed out to every peer.
    Active,
    /// Not handed out.
    Inactive,
}

impl State {
    /// As the manager writes it, and users read it.
    pub fn word(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Inactive => "inactive",
        }
    }
}

/// One row of the manager's scheduler table, as far as an API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The row's id.
    pub id: u64,
    /// `host_name`, as the manager has it (it may be no valid [`Hostname`]).
    pub hostname: String,
    /// `ip`, as the manager has it.
    pub ip: String,
    /// `port`.
    pub port: i32,
    /// `state`.
    pub state: State,
    /// `scheduler_cluster_id`.
    pub cluster_id: u64,
    /// `created_at`, verbatim, where the API shows it (REST).
    pub created_at: Option<String>,
    /// `last_keep_alive_at`, verbatim, where the API shows it (REST of v2.3.1 and later).
    pub last_keep_alive_at: Option<String>,
    /// `config.manager_keep_alive_interval`, where the API shows it.
    pub keep_alive_interval: Option<Duration>,
    /// `updated_at`, verbatim, where the API shows it (REST).
    pub updated_at: Option<String>,
}

impl Row {
    /// Whether this row is the one of `key`. MySQL and MariaDB match hostnames without regard to case, PostgreSQL
    /// doesn't; a row that differs in case alone is taken for the key's, since a sign-off may reach it.
    pub fn is(&self, key: &SchedulerKey) -> bool {
        self.cluster_id == key.cluster_id.get()
            && self.hostname.eq_ignore_ascii_case(key.hostname.as_str())
            && self.ip.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == key.ip.get())
    }
}

/// What a read of one row said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowState {
    /// The row is there and active.
    Active,
    /// The row is there and inactive.
    Inactive,
    /// There is no such row (only a source that shows inactive rows can say so).
    Absent,
    /// The row is not among the active ones: inactive, or absent (gRPC's list of the active rows).
    NotActive,
}

/// How fresh a read of a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Read from the database when it was asked (REST, with a query no cache holds).
    Fresh,
    /// At most 30 s old (gRPC's list of active rows under a caller's name made up for this read).
    Within30s,
}

/// A list over gRPC is at most this old.
pub const LIST_AGE: Duration = Duration::from_secs(31);

impl Freshness {
    /// How old such a read may be.
    pub fn age(self) -> Duration {
        match self {
            Freshness::Fresh => Duration::ZERO,
            Freshness::Within30s => LIST_AGE,
        }
    }
}

/// What a scheduler told the manager of itself beside its key when it registered (`UpdateScheduler`), as its row has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Registered {
    /// `port`.
    pub port: i32,
    /// `idc`; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub idc: String,
    /// `location`; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// `features`: what the row is given out for, `schedule` and `preheat` unless somebody chose. Empty: the manager's default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// `config`, the JSON that it reported; empty where no API shows it (gRPC, and REST before v2.3.1).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config: String,
}

/// A row as one read saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowRead {
    /// What it said.
    pub state: RowState,
    /// What it proves.
    pub freshness: Freshness,
    /// What its scheduler registered, where the row was seen.
    pub registered: Option<Registered>,
    /// When the row was last written, where that was seen (REST).
    pub updated: Option<times::Stamp>,
}

/// Rows as one list showed them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The rows.
    pub rows: Vec<Row>,
    /// How fresh these rows are; but a [`Filter::Cluster`] over gRPC may be minutes old.
    pub freshness: Freshness,
}

/// Which rows to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// All rows of a hostname, in any cluster.
    Hostname(Hostname),
    /// All rows of a cluster.
    Cluster(ClusterId),
    /// All rows with this ip, in any cluster.
    Ip(IpAddr),
}

/// How an attempt is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptOptions {
    /// A second attempt beside a silent first: on a new connection, to another address where there is one.
    pub hedge: bool,
    /// When it is given up on (`Unknown`, if anything was sent).
    pub limit: Duration,
}

/// A KeepAlive stream of our own that keeps a row active, on a connection of its own.
#[async_trait]
pub trait Held: Send {
    /// Resolves when the stream has ended without our asking, with the reason. Cancel safe. The row may be inactive now,
    /// or become so within a minute.
    async fn lost(&mut self) -> Failure;
    /// Half-closes: a sign-off. Resolves with how that ended, at the latest after `limit`.
    async fn release(self: Box<Self>, limit: Duration) -> Outcome;
}

/// How a hold began.
pub enum HoldStart {
    /// The first message was handed to the connection and the stream hasn't ended within a moment (it has no
    /// acknowledgement: only a read can tell that the row is active).
    Open(Box<dyn Held>),
    /// The manager has no such row.
    Absent,
}

/// The manager. All methods are cancel safe: an abandoned attempt is one whose outcome is unknown.
#[async_trait]
pub trait Manager: Send + Sync {
    /// One attempt to make `key`'s row inactive: opens a KeepAlive stream, sends one message, half-closes and waits for
    /// the acknowledgement. Endpoints that refuse the connection are passed over within the attempt.
    async fn sign_off(&self, key: &SchedulerKey, options: AttemptOptions) -> Outcome;
    /// Opens a KeepAlive stream that keeps `key`'s row active.
    async fn hold(&self, key: &SchedulerKey) -> Result<HoldStart, Failure>;
    /// Reads the row of `key`, from the freshest source there is.
    async fn read_row(&self, key: &SchedulerKey) -> Result<RowRead, Failure>;
    /// Lists rows, from the most complete source there is. Over gRPC `Hostname` and `Ip` show active rows only.
    async fn list(&self, filter: &Filter) -> Result<Listed, Failure>;
    /// Registers `key`'s row as its scheduler does, with what is given: where there is none it is made, inactive. Needs no
    /// credentials. An error says nothing of whether it was applied.
    async fn register(&self, key: &SchedulerKey, registered: &Registered) -> Result<(), Failure>;
    /// What [`Manager::read_row`] will prove: REST is configured and worked last, or not.
    fn freshness(&self) -> Freshness;
    /// Counts the losses of a warm connection to a manager and the manager's first answer: something may have changed a
    /// row. And says how the last call failed, until one succeeds. Runs for as long as it is polled, and keeps the warm connection.
    fn watch(&self) -> tokio::sync::watch::Receiver<Contact>;
}

/// What it takes to take a row out of the table, and out of what peers are given: REST, with a user who may delete.
///
/// A manager keeps the list of a cluster that it gives to peers: 5 min in Redis, then 3 min more in its memory. A KeepAlive's two moments
/// empty both (from v2.3.4; the memory only of the manager that took the call), a deletion neither; and once the row is gone a
/// KeepAlive fails before it empties anything. So: a sign-off at every manager, and the deletion right after that (ran: v2.5.1).
#[async_trait]
pub trait Withdraw: Manager {
    /// Whether rows may be deleted. An error where that isn't known: there is no REST endpoint with a user, or it doesn't answer.
    async fn may_delete(&self) -> Result<bool, Failure>;
    /// One attempt to make `key`'s row inactive at each address of every endpoint, and at these `others`, which are managers' too (at
    /// the first endpoint's port), at most `limit` long: what each said. An error where none was asked.
    async fn sign_off_everywhere(
        &self,
        key: &SchedulerKey,
        others: &[IpAddr],
        limit: Duration,
    ) -> Result<Vec<(String, Outcome)>, Failure>;
    /// The row with this id, of this cluster, hostname and ip (none: unknown), as it is in the database now; and whole, as the JSON
    /// that the manager shows. `None` if it is gone.
    async fn whole(&self, id: u64, of: (u64, &str, Option<IpAddr>))
    -> Result<Option<(Row, String)>, Failure>;
    /// Deletes a row by its id, and sees that it is gone.
    async fn delete(&self, id: u64) -> Result<(), Failure>;
    /// What each address of every endpoint, and these `others`, gives a peer that names this cluster. Whoever asks has that list kept
    /// for minutes.
    async fn given(
        &self,
        cluster: ClusterId,
        others: &[IpAddr],
    ) -> Result<Vec<(String, Result<Vec<Row>, Failure>)>, Failure>;
}

/// What is known about the contact with the manager.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contact {
    /// The manager has answered once.
    pub answered: bool,
    /// How often a connection to a manager was lost.
    pub losses: u64,
    /// How often a manager answered on a new connection that is kept.
    pub gains: u64,
    /// Why the last call failed, if the last call failed: shortened.
    pub last_error: Option<String>,
    /// Why the last read over REST failed, if it did, though gRPC may have answered it: shortened.
    pub rest_error: Option<String>,
}
