//! The core: keeps one row equal to one fact. A synchronous state machine without I/O, clock or randomness.
//!
//! [`Lifecycle::step`] takes an event and what time it is, and answers with effects, which the shell runs in order: it persists
//! before it attempts or answers. What the row should be follows from what is known *now* ([`Lifecycle::target`]), so that a
//! lost or doubled event changes nothing for long:
//!
//! | scheduler | drain on | the row should be |
//! |---|---|---|
//! | serving | no | active |
//! | serving | yes | inactive |
//! | down | – | inactive |
//! | unknown | – | left as it is; but with an ask pending, in a drain, or after SIGTERM: inactive |
//!
//! After SIGTERM a scheduler that serves is waited for, at most until the reserve before the deadline.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    attempts::{AttemptId, Attempts, Urgency},
    moment::{Moment, Now},
};
use crate::{
    exit::Exit,
    identity::Repair,
    key::SchedulerKey,
    manager::{Failure, Freshness, Outcome, RowRead, RowState},
    spool::record::{Cause, Kind, Record, RecordId, What},
};

mod decide;
mod restore;
#[cfg(test)]
mod tests;

/// The part of the grace kept for the disk and the log.
pub const RESERVE: Duration = Duration::from_secs(1);
/// Exit is called this long before the deadline.
const EXIT_MARGIN: Duration = Duration::from_millis(150);
/// A drain that no stop follows is over this long after the grace.
pub const DRAIN_SLACK: Duration = Duration::from_secs(5);
/// What a kubelet gives after SIGTERM at the least.
const LEAST_AFTER_SIGTERM: Duration = Duration::from_secs(2);
/// A list over gRPC is at most this old.
const LIST_AGE: Duration = Duration::from_secs(31);
/// How long a key may stay unlisted after its scheduler serves.
pub const IDENTITY_GRACE: Duration = Duration::from_secs(35);

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
    /// The connection was refused at each of these addresses.
    Refused(Vec<SocketAddr>),
    /// Anything else: it may live.
    Unclear,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// What a predecessor on this spool left for the same key.
    Found(Vec<(Kind, Record)>),
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
    /// The key was looked for among all rows of its hostname and cluster.
    Identity {
        /// It was found.
        listed: bool,
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

/// How an ask was settled, or a hook answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The manager acknowledged it.
    Confirmed,
    /// There is no such row.
    Absent,
    /// The scheduler lives.
    Superseded,
    /// Dropped by hand.
    Dropped,
    /// Not settled yet; it stays in the spool.
    Queued,
}

impl Verdict {
    /// As users read it, and the label of `signoff_settled_total{result}`.
    pub fn label(self) -> &'static str {
        match self {
            Verdict::Confirmed => "confirmed",
            Verdict::Absent => "absent",
            Verdict::Superseded => "superseded",
            Verdict::Dropped => "dropped",
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
    /// Acknowledged, and watched for so long.
    Watched(Duration),
    /// A drain began, or is over.
    Drain(bool),
    /// The row is inactive though the scheduler serves: it is restored.
    Restoring,
    /// The row is inactive though the scheduler serves, and `--repair` forbids the restore.
    WouldRestore,
    /// The row was seen active again after a restore.
    Restored,
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
    /// Read the row; answer with [`Event::RowRead`].
    ReadRow,
    /// Look for the key among all rows of its hostname and cluster; answer with [`Event::Identity`].
    CheckIdentity,
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

#[derive(Debug, Clone, Copy)]
struct Hook {
    id: HookId,
    answer_by: Moment,
}

/// A drain: the row is inactive while the scheduler serves.
#[derive(Debug, Clone, Copy)]
struct Drain {
    until: Moment,
    went_down: bool,
}

/// The stream of our own that keeps the row active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    None,
    Opening,
    Open { since: Moment, seen_active: bool },
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

/// The state machine. See the module.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    config: Config,
    scheduler: Scheduler,
    /// Where this agent, or a `seen` mark for the same key, has seen it serve; the last is the latest.
    served_at: Vec<SocketAddr>,
    /// Where the last look was refused, as long as it is not known that it served there.
    refused_at: Vec<SocketAddr>,
    /// The key was seen in the manager.
    listed: bool,
    /// The manager said `record not found` of a key it never showed.
    key_unknown: bool,
    identity_due: Option<Moment>,
    drain: Option<Drain>,
    /// The first of pre-stop, the scheduler's going down and SIGTERM, of this ending.
    ending: Option<Moment>,
    terminated: Option<Moment>,
    pending: Vec<Pending>,
    hooks: Vec<(Hook, RecordId)>,
    attempts: Attempts,
    hold: Hold,
    /// The end of a hold that is being closed, to open a new one or for good.
    releasing: Option<AttemptId>,
    hold_not_before: Moment,
    hold_failures: u32,
    /// A mark says, or would say, that this agent made the row inactive, or may have.
    ours: bool,
    restoring: bool,
    would_restore_said: bool,
    /// The row is known to be inactive, as it should be, and nothing that was seen since may have changed that.
    inactive_proven: bool,
    row: Option<SeenRow>,
    freshness: Freshness,
    reading: bool,
    read_due: Option<Moment>,
    persist_again: Option<Moment>,
    /// A reconnect may have revived the row in a drain, and no read can tell in time.
    resign_at: Option<Moment>,
    last_record: u32,
    done: bool,
}

impl Lifecycle {
    /// Begins. What a predecessor on this spool left for the same key comes as [`Event::Found`].
    pub fn new(config: Config, now: Moment) -> Self {
        Self {
            scheduler: Scheduler::Unseen,
            served_at: Vec::new(),
            refused_at: Vec::new(),
            listed: false,
            key_unknown: false,
            identity_due: None,
            drain: None,
            ending: None,
            terminated: None,
            pending: Vec::new(),
            hooks: Vec::new(),
            attempts: Attempts::new(now),
            hold: Hold::None,
            releasing: None,
            hold_not_before: now,
            hold_failures: 0,
            ours: false,
            restoring: false,
            would_restore_said: false,
            inactive_proven: false,
            row: None,
            freshness: config.freshness,
            reading: false,
            read_due: Some(now),
            persist_again: None,
            resign_at: None,
            last_record: 0,
            done: false,
            config,
        }
    }

    /// One step.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.done {
            self.learn(event, now, &mut effects);
            self.decide(now, &mut effects);
        }
        effects
    }

    /// When to step next though nothing happens.
    pub fn wake_at(&self, now: Moment) -> Option<Moment> {
        let wants = self.target(now) == Target::Inactive && self.unacknowledged();
        let ended = self.terminated.map(|_| self.reserve_at());
        let exit = self.terminated.map(|_| self.exit_at());
        [
            self.attempts.wake_at(wants, now),
            self.read_due.filter(|_| !self.reading),
            self.identity_due,
            self.persist_again,
            self.drain.filter(|_| self.drain_may_end()).map(|drain| drain.until),
            self.resign_at,
            self.hooks.iter().map(|(hook, _)| hook.answer_by).min(),
            (self.wants_hold(now) && self.hold == Hold::None).then_some(self.hold_not_before),
            ended.filter(|at| now < *at),
            exit,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What the row should be.
    pub fn target(&self, now: Moment) -> Target {
        let serving = match self.scheduler {
            Scheduler::Serving(_) => true,
            Scheduler::Down(_) => return Target::Inactive,
            Scheduler::Unseen | Scheduler::Unknown => false,
        };
        if self.drain.is_some() {
            return Target::Inactive;
        }
        if self.terminated.is_some() {
            let wait = self.scheduler == Scheduler::Unseen || serving || self.seen_serving();
            return if wait && now < self.reserve_at() { Target::Leave } else { Target::Inactive };
        }
        match self.scheduler {
            Scheduler::Serving(_) => Target::Active,
            Scheduler::Unknown if !self.pending.is_empty() => Target::Inactive,
            _ => Target::Leave,
        }
    }

    /// The one deadline: `--grace` after the first of pre-stop, the scheduler's going down, SIGTERM; and never sooner after
    /// SIGTERM than a kubelet kills.
    pub fn deadline(&self) -> Option<Moment> {
        let deadline = self.ending? + self.config.grace;
        Some(self.terminated.map_or(deadline, |at| deadline.max(at + LEAST_AFTER_SIGTERM)))
    }

    fn reserve_at(&self) -> Moment {
        let at = self.deadline().unwrap_or_default();
        Moment(at - Moment(RESERVE))
    }

    fn exit_at(&self) -> Moment {
        let at = self.deadline().unwrap_or_default();
        Moment(at - Moment(EXIT_MARGIN))
    }

    /// A drain that no stop follows ends by time, while the scheduler serves.
    fn drain_may_end(&self) -> bool {
        self.terminated.is_none() && matches!(self.scheduler, Scheduler::Serving(_))
    }

    fn urgency(&self, now: Moment) -> Urgency {
        match self.deadline() {
            Some(deadline) if now < deadline => Urgency::Urgent(deadline - now),
            _ => Urgency::Background,
        }
    }

    fn unacknowledged(&self) -> bool {
        self.pending.iter().any(|ask| ask.acknowledged.is_none())
    }

    /// The scheduler, as last seen.
    pub fn scheduler(&self) -> Scheduler {
        self.scheduler
    }

    /// Whether the scheduler was ever seen serving, by this agent or as a mark says.
    pub fn seen_serving(&self) -> bool {
        !self.served_at.is_empty()
    }

    /// The row, as last read.
    pub fn row(&self) -> Option<SeenRow> {
        self.row
    }

    /// The asks not yet settled.
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// The attempts on this key.
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// When the drain is over at the latest, if one is on.
    pub fn drain_until(&self) -> Option<Moment> {
        self.drain.map(|drain| drain.until)
    }

    /// Since when a stream of our own keeps the row active.
    pub fn held_since(&self) -> Option<Moment> {
        match self.hold {
            Hold::Open { since, .. } => Some(since),
            Hold::None | Hold::Opening => None,
        }
    }

    /// Whether the key was seen in the manager.
    pub fn listed(&self) -> bool {
        self.listed
    }

    /// Whether the manager said, or went on for too long to say, that there is no such key.
    pub fn key_unknown(&self) -> bool {
        self.key_unknown
    }

    /// Whether a mark says that this agent made the row inactive.
    pub fn signed_off(&self) -> bool {
        self.ours
    }

    /// Whose row.
    pub fn key(&self) -> &SchedulerKey {
        &self.config.key
    }
}
