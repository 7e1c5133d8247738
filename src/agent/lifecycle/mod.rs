//! The core: keeps one row equal to one fact. A synchronous state machine without I/O, clock or randomness.
//!
//! [`Lifecycle::step`] takes an event and what time it is, and answers with effects, which the shell runs in order: it persists
//! before it attempts or answers. What the row should be follows from what is known *now* ([`Lifecycle::target`]), so that a
//! lost or doubled event changes nothing for long:
//!
//! | scheduler | drain on | the row should be |
//! |---|---|---|
//! | serving | no | active; while it is open which key it registers: left as it is |
//! | serving | yes | inactive |
//! | down | – | inactive |
//! | unknown | – | left as it is; but with an ask pending, in a drain, or after SIGTERM: inactive |
//!
//! After SIGTERM a scheduler that serves is waited for, at most until the reserve before the deadline.

use std::{net::SocketAddr, time::Duration};

use super::{
    attempts::{AttemptId, Attempts, Urgency},
    moment::{Moment, Now},
};
use crate::{
    key::SchedulerKey,
    manager::{Freshness, Registered},
    spool::record::RecordId,
};

pub use effect::{Answer, Effect, HoldReason, Notice, Pending, Scheduler, SeenRow, Target, Verdict};
pub use event::{Config, Event, HookId, Registration, Sight};

mod decide;
mod effect;
mod event;
mod learn;
mod put_back;
mod restore;
#[cfg(test)]
mod tests;

/// Exit is called this long before the deadline.
const EXIT_MARGIN: Duration = Duration::from_millis(150);
/// How long a hook waits for the manager unless told otherwise: what is not confirmed by then is queued, and the rest of the
/// grace is the scheduler's.
pub const HOOK_WAIT: Duration = Duration::from_secs(5);
/// A drain that no stop follows is over this long after the grace.
pub const DRAIN_SLACK: Duration = Duration::from_secs(5);
/// What a kubelet gives after SIGTERM at the least.
pub const LEAST_AFTER_SIGTERM: Duration = Duration::from_secs(2);
/// The longest [`reserve`].
const LONGEST_RESERVE: Duration = Duration::from_secs(1);
/// How long a key may stay unlisted after its scheduler serves.
pub const IDENTITY_GRACE: Duration = Duration::from_secs(35);

/// The end of a grace that is kept for the disk and the log: its last second; of one under 5 s a fifth. A grace under 2 s
/// keeps as much as one of 2 s, which a kubelet gives in any case.
pub fn reserve(grace: Duration) -> Duration {
    (grace.max(LEAST_AFTER_SIGTERM) / 5).min(LONGEST_RESERVE)
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
    Opening { why: HoldReason },
    Open { why: HoldReason, since: Moment, seen_active: bool },
}

/// A row that was gone, and is registered again.
#[derive(Debug, Clone, Copy, Default)]
struct PutBack {
    /// A registration was begun then, and has not ended.
    under_way: Option<Moment>,
    not_before: Moment,
    /// The manager has it since then, or may have: inactive until it is given back.
    at: Option<Moment>,
    /// Nobody was told yet that it is there again.
    unsaid: bool,
}

/// The state machine. See the module.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    config: Config,
    scheduler: Scheduler,
    /// When this agent saw the scheduler serve again after it had been refused: the first message of the scheduler's own
    /// KeepAlive stream comes one interval after that.
    reappeared: Option<Moment>,
    /// A mark says that the scheduler was down when its row was signed off: seen serving, it has come back since.
    was_down: bool,
    /// Where this agent, or a `seen` mark for the same key, has seen it serve; the last is the latest.
    served_at: Vec<SocketAddr>,
    /// Where the last look was refused, as long as it is not known that it served there.
    refused_at: Vec<SocketAddr>,
    /// The row was seen in gRPC's list of the active ones: only then does its absence from that list mean anything.
    listed_active: bool,
    /// It is open whether the scheduler registers this key: it was away, and its configuration may name another one.
    in_question: bool,
    /// The key was seen in the manager.
    listed: bool,
    /// The manager said `record not found` of a key it never showed.
    key_unknown: bool,
    /// When the manager first said so.
    not_found_since: Option<Moment>,
    identity_due: Option<Moment>,
    drain: Option<Drain>,
    /// Each pre-stop, going down of the scheduler and SIGTERM that may have begun this ending, the first one first.
    endings: Vec<Moment>,
    terminated: Option<Moment>,
    pending: Vec<Pending>,
    hooks: Vec<(Hook, RecordId)>,
    attempts: Attempts,
    hold: Hold,
    /// The end of a hold that is being closed, to open a new one or for good.
    releasing: Option<AttemptId>,
    hold_not_before: Moment,
    hold_failures: u32,
    /// What the scheduler registered, as the row said it last: to this agent, or to one before it.
    registered: Option<Registered>,
    /// No mark says yet that the key is listed, or what the scheduler registered.
    mark_owed: bool,
    put_back: PutBack,
    /// Nobody is told twice that the row is gone.
    gone_said: bool,
    /// A hold was renewed though the row was never in gRPC's list: once is enough, until we may have ended the row again.
    renewed_unlisted: bool,
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
    /// A read failed: the next one waits, however much is wanted of it.
    read_not_before: Moment,
    persist_again: Option<Moment>,
    /// A reconnect may have revived the row in a drain, and no read can tell in time.
    resign_at: Option<Moment>,
    last_record: u32,
    done: bool,
}

impl Lifecycle {
    /// Begins. What a predecessor on this spool left for the same key comes as [`Event::Found`], though it be nothing; until then
    /// a predecessor may have left attempts that are still applied.
    pub fn new(config: Config, now: Moment) -> Self {
        let mut attempts = Attempts::new(now);
        attempts.presume_others(now);
        Self {
            scheduler: Scheduler::Unseen,
            reappeared: None,
            was_down: false,
            served_at: Vec::new(),
            refused_at: Vec::new(),
            listed_active: false,
            in_question: config.in_question,
            listed: false,
            key_unknown: false,
            not_found_since: None,
            identity_due: None,
            drain: None,
            endings: Vec::new(),
            terminated: None,
            pending: Vec::new(),
            hooks: Vec::new(),
            attempts,
            hold: Hold::None,
            releasing: None,
            hold_not_before: now,
            hold_failures: 0,
            registered: None,
            mark_owed: false,
            put_back: PutBack::default(),
            gone_said: false,
            renewed_unlisted: false,
            ours: false,
            restoring: false,
            would_restore_said: false,
            inactive_proven: false,
            row: None,
            freshness: config.freshness,
            reading: false,
            read_due: Some(now),
            read_not_before: now,
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
            (self.hold == Hold::None && self.wants_hold(now).is_some()).then_some(self.hold_not_before),
            self.wants_put_back(now).map(|_| self.put_back.not_before),
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
            Scheduler::Serving(_) if self.in_question => Target::Leave,
            Scheduler::Serving(_) => Target::Active,
            Scheduler::Unknown if self.pending.iter().any(|ask| self.pursues(ask)) => Target::Inactive,
            _ => Target::Leave,
        }
    }

    /// Whether an ask is worth an attempt though it is unknown whether the scheduler lives. One of our own was asked on evidence;
    /// one that was found needs a refusal, at the very address it was asked for: with another address configured, nobody has
    /// looked at the scheduler.
    fn pursues(&self, ask: &Pending) -> bool {
        let same = ask.record.address.is_none() || ask.record.address == self.config.advertised;
        !ask.inherited || (same && !self.refused_at.is_empty())
    }

    /// The one deadline: `--grace` after the first of pre-stop, the scheduler's going down, SIGTERM; and never sooner after
    /// SIGTERM than a kubelet kills.
    pub fn deadline(&self) -> Option<Moment> {
        let deadline = *self.endings.first()? + self.config.grace;
        Some(self.terminated.map_or(deadline, |at| deadline.max(at + LEAST_AFTER_SIGTERM)))
    }

    fn reserve_at(&self) -> Moment {
        let at = self.deadline().unwrap_or_default();
        Moment(at - Moment(reserve(self.config.grace)))
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
        let deadlines = self.endings.iter().map(|began| *began + self.config.grace);
        match self.deadline().into_iter().chain(deadlines).find(|deadline| now < *deadline) {
            Some(deadline) => Urgency::Urgent(deadline - now),
            None => Urgency::Background,
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

    /// Since when a stream of our own keeps the row active, and why one is needed.
    pub fn held(&self) -> Option<(Moment, HoldReason)> {
        match self.hold {
            Hold::Open { since, why, .. } => Some((since, why)),
            Hold::None | Hold::Opening { .. } => None,
        }
    }

    /// Whether it is open which key the scheduler registers.
    pub fn in_question(&self) -> bool {
        self.in_question
    }

    /// Whether the agent was told to stop.
    pub fn is_ending(&self) -> bool {
        self.terminated.is_some()
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
