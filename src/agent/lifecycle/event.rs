//! What the core is told: its configuration, and what happened.

use std::{net::SocketAddr, time::Duration};

use super::super::{attempts::AttemptId, moment::Moment};
use crate::{
    identity::Repair,
    key::SchedulerKey,
    manager::{Failure, Freshness, Outcome, RowRead},
    spool::record::{Kind, Record, RecordId},
};

/// What the core has to know from the start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose row.
    pub key: SchedulerKey,
    /// The address at which others may look at the scheduler.
    pub advertised: Option<SocketAddr>,
    /// `--grace`.
    pub grace: Duration,
    /// The scheduler's keep-alive interval.
    pub interval: Duration,
    /// `--repair`.
    pub repair: Repair,
    /// Whether the key is one that the scheduler's configuration gives: then it is found out anew whenever the scheduler was away.
    pub follows: bool,
    /// It is open from the start which key the scheduler registers.
    pub in_question: bool,
    /// What a read of the row proves, until a read says otherwise.
    pub freshness: Freshness,
    /// The pod's name, for people.
    pub pod: Option<String>,
    /// Makes the ids of this process's records its own.
    pub run: u32,
}

/// Which hook waits for an answer.
pub type HookId = u64;

/// What the idle connection to the scheduler said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Its health service says that it serves, at this address.
    Serving(SocketAddr),
    /// It serves as before, on a new connection: it may have been restarted.
    Reconnected,
    /// The connection was refused at each of these addresses.
    Refused(Vec<SocketAddr>),
    /// Anything else: it may live.
    Unclear,
}

/// What came of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// The manager has the row.
    Done,
    /// It was not asked: the scheduler's configuration names another key or port, or can't be read.
    Refused,
    /// It may have been applied.
    Unknown,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// What a predecessor on this spool left for the same key; nothing, where the spool was read and there was none.
    Found {
        /// The records, this process's own from now on.
        left: Vec<(Kind, Record)>,
        /// There are no others: none that can't be read, and none that another process holds.
        all: bool,
    },
    /// The scheduler was seen.
    Scheduler(Sight),
    /// `signoff pre-stop`, or the hook listener.
    PreStop {
        /// Whom to answer.
        hook: HookId,
        /// How long the hook waits for the confirmation; without it, until the reserve before the deadline.
        wait: Option<Duration>,
    },
    /// SIGTERM or SIGINT.
    Terminate,
    /// An ask was written, or the disk refused.
    Written {
        /// The ask.
        ask: RecordId,
        /// Whether it is on disk.
        on_disk: bool,
    },
    /// An attempt, or the release of a hold, ended.
    Ended {
        /// Which.
        attempt: AttemptId,
        /// How.
        outcome: Outcome,
    },
    /// The row was read.
    RowRead {
        /// When the read was begun.
        asked: Moment,
        /// What it said.
        read: Result<RowRead, Failure>,
    },
    /// The hold's first message is on its way.
    HoldOpened,
    /// The hold could not be opened, or the manager has no such row (`absent`).
    HoldFailed {
        /// The manager has no such row.
        absent: bool,
    },
    /// The hold's stream ended without our asking.
    HoldLost,
    /// What [`super::Effect::Register`] asked for.
    Registered(Registration),
    /// The key was looked for among all rows of its hostname and cluster.
    Identity {
        /// It was found.
        listed: bool,
    },
    /// What [`super::Effect::Identify`] asked for: the scheduler registers this agent's key, or it is open which key it registers
    /// (`in_question`).
    Identified {
        /// Its configuration names another key, and the manager doesn't show yet which one it registers.
        in_question: bool,
    },
    /// A connection to a manager was lost: a stream of the scheduler's may have broken too.
    ManagerLost,
    /// A manager answers on a new connection.
    ManagerBack,
    /// These asks' files are gone: somebody dropped them by hand.
    Dropped(Vec<RecordId>),
    /// Time went on.
    Tick,
}
