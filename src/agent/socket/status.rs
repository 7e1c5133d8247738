//! What `signoff status` shows: the agent's view of itself, as one JSON object.
//!
//! Both ways lenient: fields that aren't known are ignored, those that are missing have their defaults, and a word that
//! isn't known reads as `unknown`. Times are milliseconds since the Unix epoch, of the agent's wall clock.

use serde::{Deserialize, Serialize};

use crate::{
    agent::succession::standing::Mode, key::SchedulerKey, manager::RowState, spool::record::WallMillis,
};

/// The agent, at `now`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Its pod (POD_NAME).
    pub pod: Option<String>,
    /// When this was said.
    pub now: WallMillis,
    /// When the process started.
    pub since: WallMillis,
    /// It has started: it answers. Never waits for the manager, unlike `/readyz` with `--ready-after-manager`.
    pub started: bool,
    /// Whose row it answers for, once that is known.
    pub key: Option<SchedulerKey>,
    /// Whether the manager lists that key; `None` until that was asked.
    pub identity_known: Option<bool>,
    /// The scheduler beside it.
    pub scheduler: SchedulerStatus,
    /// The row as last read.
    pub row: Option<RowStatus>,
    /// The row as far as is known, by a read or by something newer than what that read can have seen.
    pub row_known: Option<RowKnown>,
    /// A drain is on, and ends at the latest then.
    pub drain_until: Option<WallMillis>,
    /// The one deadline, once there is one.
    pub deadline: Option<WallMillis>,
    /// `--grace`, in milliseconds.
    pub grace_ms: u64,
    /// Asks that aren't settled, of any key.
    pub pending: Vec<PendingStatus>,
    /// Marks of this agent's key.
    pub marks: Vec<MarkStatus>,
    /// Since when a stream of the agent's own keeps the row active.
    pub hold_since: Option<WallMillis>,
    /// Why that stream is needed, in words. The row becomes inactive when the stream ends, and the next agent gives it back.
    pub hold_reason: Option<String>,
    /// When this agent last registered the row again, which somebody had deleted while the scheduler served.
    pub put_back_at: Option<WallMillis>,
    /// Whether the agent looks for predecessors, and what it found; `None` from an agent that doesn't know yet, or how to.
    pub succession: Option<SuccessionStatus>,
    /// What it has to do without.
    pub degraded: Vec<Degradation>,
    /// The manager.
    pub manager: ManagerStatus,
    /// The spool.
    pub spool: SpoolStatus,
}

/// What the scheduler is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerState {
    /// Its health service says so.
    Serving,
    /// Connections are refused where it was seen to serve.
    Down,
    /// Anything else.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The scheduler, as last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulerStatus {
    /// Where its health service is asked.
    pub address: String,
    /// What it is doing.
    pub state: SchedulerState,
    /// Since when.
    pub since: Option<WallMillis>,
    /// Why, where it is down or unknown.
    pub why: Option<String>,
}

/// The words of a [`RowState`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowWord {
    /// Handed out to every peer.
    Active,
    /// Not handed out.
    Inactive,
    /// There is no row.
    Absent,
    /// Inactive or absent.
    NotActive,
    /// A word of another version.
    #[default]
    #[serde(other)]
    Unknown,
}

impl From<RowState> for RowWord {
    fn from(state: RowState) -> Self {
        match state {
            RowState::Active => Self::Active,
            RowState::Inactive => Self::Inactive,
            RowState::Absent => Self::Absent,
            RowState::NotActive => Self::NotActive,
        }
    }
}

/// The row, as last read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RowStatus {
    /// What it was.
    pub state: RowWord,
    /// When it was read.
    pub at: WallMillis,
    /// How: `rest`, or `grpc` (at most 30 s old then).
    pub source: String,
}

/// The row, as far as is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RowKnown {
    /// What it is.
    pub state: RowWord,
    /// When it was read, when the sign-off was acknowledged, or since when it is held.
    pub at: WallMillis,
    /// By what: `read`, `sign-off` (the manager acknowledged one) or `hold` (a stream of the agent's own is open).
    pub by: String,
}

/// An ask that isn't settled. Causes are words here, since another version may have others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PendingStatus {
    /// Its record's id.
    pub id: String,
    /// Whose row, as `hostname/ip in cluster N`.
    pub key: String,
    /// Why it was asked (`Cause::label`).
    pub cause: String,
    /// When it was asked.
    pub at: WallMillis,
    /// Attempts of this process.
    pub attempts: u64,
    /// Why the last one failed.
    pub last_error: Option<String>,
    /// The last one was rejected: trying again can't help until something is mended.
    pub rejected: bool,
    /// Confirmed, and kept until then, since earlier attempts may still be applied.
    pub watched_until: Option<WallMillis>,
    /// It was found on the spool.
    pub inherited: bool,
}

/// The looking for predecessors: rows of the same hostname with another IP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SuccessionStatus {
    /// What it may do.
    pub mode: Mode,
    /// Why it is off, where it is.
    pub why: Option<String>,
    /// The rows that are contested, as `hostname/ip in cluster N`: another scheduler seems to live there.
    pub contested: Vec<String>,
}

/// A mark.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MarkStatus {
    /// Its record's id.
    pub id: String,
    /// `seen`, `signed-off`, `held`.
    pub what: String,
    /// When it was written.
    pub at: WallMillis,
}

/// Something the agent has to do without.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Degradation {
    /// The label of `signoff_degraded{reason}`.
    pub reason: String,
    /// In words, with what to do.
    pub why: String,
}

/// The manager, as seen from here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManagerStatus {
    /// The scheduler is configured without a manager, and no flag names one: there is nothing to keep true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub none: bool,
    /// The endpoints, as configured.
    pub endpoints: Vec<String>,
    /// It has answered once.
    pub answered: bool,
    /// How often a connection was lost.
    pub losses: u64,
    /// Why the last call failed, if the last call failed.
    pub last_error: Option<String>,
    /// Why rows could not be read over REST the last time, if they could not: they are read over gRPC then.
    pub rest_error: Option<String>,
}

/// The spool. The numbers are `None` (null in JSON) where the disk did not say them: `why` tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpoolStatus {
    /// The directory.
    pub dir: String,
    /// How long its volume lives, in words.
    pub durability: String,
    /// Asks in it.
    pub asks: Option<u64>,
    /// Those of them that are for another manager, as far as they were read.
    pub for_another: Option<u64>,
    /// Marks in it.
    pub marks: Option<u64>,
    /// Damaged files set aside.
    pub corrupt: Option<u64>,
    /// Files of a newer version, left alone.
    pub newer: Option<u64>,
    /// Since when the disk has not answered, where it doesn't.
    pub silent_since: Option<WallMillis>,
    /// Why the numbers are not known, where they aren't.
    pub why: Option<String>,
}

impl SpoolStatus {
    /// Why the numbers are not known, as a person reads it; `None` where they are. `now` is the status's own.
    pub fn unknown(&self, now: WallMillis) -> Option<String> {
        if self.asks.is_some() {
            return None;
        }
        Some(match (self.silent_since, &self.why) {
            (Some(since), _) => {
                format!(
                    "unknown: the disk has not answered for {} s",
                    now.saturating_sub(since).div_ceil(1000)
                )
            }
            (None, Some(why)) => format!("unknown: {why}"),
            (None, None) => "unknown: the spool was not read yet".to_owned(),
        })
    }
}

/// `text` without line breaks and other control characters, so that what a manager said can't forge a line.
pub fn one_line(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
