//! What the core answers: effects, notices, and what it knows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    super::{attempts::AttemptId, moment::Moment},
    HookId,
};
use crate::{
    exit::Exit,
    manager::{Freshness, Registered, RowState},
    spool::record::{Cause, Record, RecordId, What},
};

/// How an ask was settled, or a hook answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The manager acknowledged it.
    Confirmed,
    /// There is no such row.
    Absent,
    /// There was never such a row: its scheduler never served, and never registered.
    #[serde(rename = "never-registered")]
    NeverRegistered,
    /// The scheduler lives.
    Superseded,
    /// Dropped by hand.
    Dropped,
    /// A predecessor's: it may have been signed off, and its row is active. Left alone.
    Contested,
    /// Not settled yet; it stays in the spool.
    Queued,
}

impl Verdict {
    /// As users read it, and the label of `signoff_settled_total{result}`.
    pub fn label(self) -> &'static str {
        match self {
            Verdict::Confirmed => "confirmed",
            Verdict::Absent => "absent",
            Verdict::NeverRegistered => "never-registered",
            Verdict::Superseded => "superseded",
            Verdict::Dropped => "dropped",
            Verdict::Contested => "contested",
            Verdict::Queued => "queued",
        }
    }
}

/// A hook's answer, before the shell adds how long the spool lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it stands.
    pub verdict: Verdict,
    /// The last failure, where there was one and it matters.
    pub why: Option<String>,
    /// Acknowledged, and watched for so long from now: another attempt may still be applied.
    pub watched_for: Option<Duration>,
    /// The ask is on disk.
    pub on_disk: bool,
}

/// Something worth a line in the log, or a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An ask was accepted.
    Asked(Cause),
    /// Asks of a predecessor on this spool were taken over.
    Inherited(usize),
    /// An ask is settled.
    Settled {
        /// How.
        verdict: Verdict,
        /// Why it was asked.
        cause: Cause,
        /// How long after it was asked (by this process).
        after: Duration,
    },
    /// Acknowledged, and watched.
    Watched {
        /// Confirmed or absent.
        verdict: Verdict,
        /// For so long.
        left: Duration,
    },
    /// A drain began, or is over.
    Drain(bool),
    /// The row is inactive though the scheduler serves: it is restored.
    Restoring,
    /// The row is inactive though the scheduler serves, and `--repair` forbids the restore.
    WouldRestore,
    /// The row was seen active again after a restore.
    Restored,
    /// The row was there and is gone, though the scheduler serves.
    RowGone {
        /// It is registered again; else `--repair` forbids that, or it is not known what the scheduler registered.
        is_put_back: bool,
    },
    /// The row was registered again.
    PutBack,
    /// The key isn't listed in the manager, long after its scheduler began to serve, or the manager has no such row.
    IdentityUnknown,
    /// The row is `active` though the scheduler is gone or draining: it is signed off again.
    Revived,
}

/// What the shell is to do. In order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write an ask; answer with [`Event::Written`].
    Persist(Record),
    /// Write a mark in place of the older ones of its kind.
    Mark(Record),
    /// Remove the marks of this key's sign-offs (`signed_off`) or holds.
    DropMarks {
        /// Those of sign-offs; else those of holds.
        signed_off: bool,
    },
    /// These asks are settled: to a mark, or gone.
    Settle {
        /// The asks.
        asks: Vec<RecordId>,
        /// Leave a mark that this row was signed off.
        mark: bool,
    },
    /// Make one attempt; answer with [`Event::Ended`].
    Attempt {
        /// Which.
        id: AttemptId,
        /// A second one, on a new connection.
        hedge: bool,
        /// When to give it up.
        limit: Duration,
    },
    /// Open a hold; answer with [`Event::HoldOpened`] or [`Event::HoldFailed`].
    Hold,
    /// Half-close the hold: an attempt like any other.
    Release {
        /// Which attempt that is.
        id: AttemptId,
        /// When to give it up.
        limit: Duration,
    },
    /// Drop the hold that is being opened.
    DropHold,
    /// Register the row again with that, if the scheduler's configuration still names this key and this port; answer with
    /// [`Event::Registered`](super::Event::Registered).
    Register(Registered),
    /// Give up a registration that is under way: it may be applied all the same.
    DropRegistration,
    /// Read the row; answer with [`Event::RowRead`].
    ReadRow,
    /// Look for the key among all rows of its hostname and cluster; answer with [`Event::Identity`].
    CheckIdentity,
    /// Find out which key the scheduler registers; answer with [`Event::Identified`].
    Identify {
        /// It was seen to be away; else it may have been.
        was_away: bool,
    },
    /// Answer a hook.
    Answer(HookId, Answer),
    /// Say it.
    Notice(Notice),
    /// End the process.
    Exit(Exit),
}

/// What is known of the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// Not looked at yet.
    Unseen,
    /// It may live: a time-out, a TLS error, never seen serving.
    Unknown,
    /// It serves, since then.
    Serving(Moment),
    /// It is down, since then.
    Down(Moment),
}

/// What the row should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Active.
    Active,
    /// Inactive.
    Inactive,
    /// Whatever it is.
    Leave,
}

/// An ask not yet settled.
#[derive(Debug, Clone)]
pub struct Pending {
    /// As it is, or should be, on disk.
    pub record: Record,
    /// It is on disk.
    pub on_disk: bool,
    /// The disk was offered it, and has taken or refused it. Nobody is told of it before.
    pub offered: bool,
    /// When this process learned of it.
    pub since: Moment,
    /// The manager acknowledged it; it is kept because another attempt may still be applied.
    pub acknowledged: Option<Verdict>,
    /// It was found in the spool.
    pub inherited: bool,
}

impl Pending {
    /// Why it was asked.
    pub fn cause(&self) -> Option<Cause> {
        match self.record.what {
            What::SignOff { cause, .. } => Some(cause),
            What::Seen | What::Held => None,
        }
    }
}

/// Why the agent keeps the row active by a KeepAlive stream of its own, though the end of that stream makes the row inactive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldReason {
    /// A sign-off of this agent's, or of the agent's before it, made the row inactive, or may have. The scheduler's own stream
    /// is open and sets the row active only at its beginning.
    OwnSignOff,
    /// Somebody else made the row inactive, and the scheduler did not set it active within two keep-alive intervals.
    OthersSignOff,
    /// Somebody deleted the row, this agent registered it again, and the scheduler did not set it active.
    Deleted,
}

impl HoldReason {
    /// As users read it: the subject is the row.
    pub fn words(self) -> &'static str {
        match self {
            HoldReason::OwnSignOff => {
                "the agent signed this row off while its scheduler served, and the scheduler's own stream sets it active only when it reopens"
            }
            HoldReason::OthersSignOff => {
                "somebody else made this row inactive while its scheduler served, and the scheduler's own stream sets it active only when it reopens"
            }
            HoldReason::Deleted => {
                "somebody deleted this row while its scheduler served; the agent registered it again, and the scheduler's own stream sets it active only when it reopens"
            }
        }
    }
}

/// The row as last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenRow {
    /// What it was.
    pub state: RowState,
    /// When the read was begun.
    pub asked: Moment,
    /// What the read proves.
    pub freshness: Freshness,
}
