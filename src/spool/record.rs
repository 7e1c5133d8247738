//! What the spool keeps: asks and marks, as one JSON object a file.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::whose::Managers;
use crate::{key::SchedulerKey, manager::Registered};

/// Milliseconds since the Unix epoch, of the wall clock: for people, and for the end of a drain. Never for ordering.
pub type WallMillis = u64;

/// A record's id: 16 hexadecimal digits, unique within a spool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordId(pub String);

impl RecordId {
    /// A new id.
    pub fn random() -> Self {
        Self(format!("{:016x}", fastrand::u64(..)))
    }
}

impl std::fmt::Display for RecordId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a sign-off was asked: the label `cause` of `signoff_settled_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// `signoff pre-stop` or the hook listener.
    PreStop,
    /// SIGTERM or SIGINT of the agent.
    Sigterm,
    /// The scheduler was seen down.
    Down,
    /// A read found the row active though it should not be.
    Revived,
    /// A dead incarnation of the same hostname.
    Predecessor,
}

impl Cause {
    /// As written in records, logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Cause::PreStop => "pre-stop",
            Cause::Sigterm => "sigterm",
            Cause::Down => "down",
            Cause::Revived => "revived",
            Cause::Predecessor => "predecessor",
        }
    }
}

/// What a record records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// A sign-off: asked (in an ask's file), or made (in a mark's file, which an ask's is renamed to).
    SignOff {
        /// Why it was asked.
        cause: Cause,
        /// When the drain it belongs to is over (a pre-stop that no stop follows), by the wall clock.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drain_until: Option<WallMillis>,
    },
    /// This key's scheduler served at the record's address.
    Seen,
    /// The agent held the row active by a stream of its own.
    Held,
}

/// An ask or a mark. Immutable once written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id, also in the file's name.
    pub id: RecordId,
    /// Whose row.
    pub key: SchedulerKey,
    /// What is asked or was done.
    #[serde(flatten)]
    pub what: What,
    /// Where the scheduler's health service is reached, to look before a replay: in an ask, at the key's own IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Whether the key was seen in the manager before (only then is `record not found` a success).
    #[serde(default)]
    pub listed: bool,
    /// The row's `updated_at` as it was when a predecessor's sign-off was asked, verbatim, where it was shown (REST): a row that
    /// was written since may have been signed off for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_updated: Option<String>,
    /// What the scheduler registered, as its row said it last: in a `seen` mark, so that a row that is gone can be put back by the
    /// agent after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<Registered>,
    /// When it was written, by the wall clock.
    pub at: WallMillis,
    /// The pod that wrote it (POD_NAME), for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The manager whose row it is about, as whoever wrote it was configured to reach it. Empty before it is written (the spool
    /// fills it in), and in the records of releases that did not say it.
    #[serde(default, skip_serializing_if = "Managers::is_empty")]
    pub managers: Managers,
}

impl Record {
    /// A sign-off that is asked for a row which the manager was just seen to have: a new one, not written yet.
    pub fn sign_off(
        key: SchedulerKey,
        cause: Cause,
        address: Option<SocketAddr>,
        at: WallMillis,
        pod: Option<String>,
    ) -> Self {
        Self {
            id: RecordId::random(),
            key,
            what: What::SignOff { cause, drain_until: None },
            address,
            listed: true,
            row_updated: None,
            registered: None,
            at,
            pod,
            managers: Managers::default(),
        }
    }
}

/// Which kind of file a record is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `<hash>.<id>.ask.json`: a sign-off not yet settled.
    Ask,
    /// `<hash>.<id>.mark.json`.
    Mark,
}
