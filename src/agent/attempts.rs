//! One key's attempts: which are open, when the next may begin, and whether a confirmation settles anything.
//!
//! Late application is why this exists: a manager may apply an attempt after its client gave up on it, both moments, `active`
//! first. So an acknowledgement proves that the row *stays* inactive only if no other attempt was open at any time since the
//! acknowledged one began. Else the row is watched: once all attempts are closed it is read, and only that read settles.

use std::time::Duration;

use super::moment::{Moment, Now};
use crate::{
    manager::{Failure, Outcome, backoff::Backoff},
    spool::record::RecordId,
};

/// How long an attempt of unknown outcome counts as open: a manager with a slow database applied one seconds after its client
/// had gone, and answers none later than this.
pub const LINGER: Duration = Duration::from_secs(60);
/// A silent attempt is hedged after this.
pub const HEDGE_AFTER: Duration = Duration::from_millis(500);
/// The longest an attempt may take.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);

const FIRST_DELAY: Duration = Duration::from_millis(200);
const URGENT_CAP: Duration = Duration::from_secs(1);
const EXHAUSTED_CAP: Duration = Duration::from_secs(5);
const BACKGROUND_CAP: Duration = Duration::from_secs(30);
/// However long a manager wishes to be left alone, an attempt is made so long before the deadline.
const LAST_CHANCE: Duration = Duration::from_secs(3);
/// An attempt is made within this once the manager answers again.
const SOON: Duration = Duration::from_secs(1);
/// The same in the background: ten thousand agents stay under the manager's limit by that (`herd`).
const BACKGROUND_SOON: Duration = Duration::from_secs(5);

/// Which attempt.
pub type AttemptId = u64;

/// An attempt under way.
#[derive(Debug, Clone)]
struct Open {
    id: AttemptId,
    /// When it began, and later by the time in which nothing could be heard of it.
    began: Moment,
    /// The asks that existed when it began: all that its confirmation can settle.
    covers: Vec<RecordId>,
    /// Another attempt was open at some time since this one began.
    overlapped: bool,
}

/// What an attempt's end means for the asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The row is inactive (or, `absent`, not there), and nothing of ours can change that: these asks are settled.
    Settled {
        /// The asks that existed before the attempt began.
        covers: Vec<RecordId>,
        /// There was no such row.
        absent: bool,
    },
    /// Acknowledged, while other attempts may still be applied: the row is watched, and read once all are closed.
    Watched {
        /// The asks that existed before the attempt began.
        covers: Vec<RecordId>,
        /// There was no such row.
        absent: bool,
        /// When all attempts will be closed.
        until: Moment,
    },
    /// Not acknowledged: to be tried again.
    Again,
}

/// A confirmation that waits for the other attempts to close.
#[derive(Debug, Clone)]
struct Watch {
    covers: Vec<RecordId>,
    absent: bool,
}

/// How soon the next attempt may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Within the grace of a SIGTERM, a drain or a going down; the time left in it.
    Urgent(Duration),
    /// Nobody waits.
    Background,
}

/// One key's attempts. Pure: time and chance are arguments.
#[derive(Debug, Clone)]
pub struct Attempts {
    last_id: AttemptId,
    open: Vec<Open>,
    /// Until when an attempt of unknown outcome (ours, or of the agent before us on this spool) may still be applied.
    lingers_until: Option<Moment>,
    /// Until when those of an agent before us may still be applied, as long as nobody knows whether there was one.
    before_us_until: Option<Moment>,
    watch: Option<Watch>,
    backoff: Backoff,
    urgent_cap: Duration,
    not_before: Moment,
    /// The manager's own wish.
    floor_until: Moment,
    /// The wait for the next attempt was cut short since the manager is back.
    cut_short: bool,
    last_ended: Option<Moment>,
    /// When the first attempt since the last settlement began, and how many there were.
    count: u32,
    last_failure: Option<String>,
    /// The last one that ended was rejected.
    rejected: bool,
}

impl Attempts {
    /// No attempts yet. Where an agent before us may have left some open, [`Attempts::linger`] says so.
    pub fn new(now: Moment) -> Self {
        Self {
            last_id: 0,
            open: Vec::new(),
            lingers_until: None,
            before_us_until: None,
            watch: None,
            backoff: Backoff::new(FIRST_DELAY),
            urgent_cap: URGENT_CAP,
            not_before: now,
            floor_until: now,
            cut_short: false,
            last_ended: None,
            count: 0,
            last_failure: None,
            rejected: false,
        }
    }

    /// Whether any attempt is under way or may still be applied.
    pub fn any_open(&self, now: Moment) -> bool {
        !self.open.is_empty() || self.lingering().is_some_and(|until| now < until)
    }

    fn lingering(&self) -> Option<Moment> {
        self.lingers_until.max(self.before_us_until)
    }

    /// Whether any attempt is under way.
    pub fn under_way(&self) -> bool {
        !self.open.is_empty()
    }

    /// When the last attempt ended, those counted that may still be applied.
    pub fn closed_at(&self) -> Option<Moment> {
        self.last_ended.max(self.lingering())
    }

    /// When the last attempt that was seen to end did.
    pub fn last_ended(&self) -> Option<Moment> {
        self.last_ended
    }

    /// Whether a confirmation waits for the row to be read.
    pub fn watching(&self) -> bool {
        self.watch.is_some()
    }

    /// How many attempts were made since the last settlement.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Why the last one that failed did.
    pub fn last_failure(&self) -> Option<&str> {
        self.last_failure.as_deref()
    }

    /// Whether the last one that ended was rejected: the next one will be too, until a person mends something.
    pub fn rejected(&self) -> bool {
        self.rejected
    }

    /// Whether an attempt under way covers this ask already.
    pub fn covers(&self, ask: &RecordId) -> bool {
        self.open.iter().any(|open| open.covers.contains(ask))
    }

    /// Whether a first attempt may begin, for an ask that no confirmation covers: those that are covered only wait.
    pub fn may_begin(&self, now: Moment) -> bool {
        self.open.is_empty() && now >= self.not_before
    }

    /// Whether the one attempt under way has been silent for so long that a second is worth it. At most two are open; after a
    /// second that failed, another waits for the backoff's delay.
    pub fn may_hedge(&self, now: Moment) -> bool {
        self.hedge_at().is_some_and(|at| now >= at)
    }

    fn hedge_at(&self) -> Option<Moment> {
        match self.open.as_slice() {
            [one] => Some(self.not_before.max(one.began + HEDGE_AFTER)),
            _ => None,
        }
    }

    /// An attempt begins, for these asks.
    pub fn begin(&mut self, covers: Vec<RecordId>, now: Moment) -> AttemptId {
        let overlapped = self.any_open(now);
        for open in &mut self.open {
            open.overlapped = true;
        }
        self.last_id += 1;
        self.count += 1;
        self.open.push(Open { id: self.last_id, began: now, covers, overlapped });
        self.last_id
    }

    /// For this time, until now, the shell waited for the disk: it could neither begin an attempt nor hear of one. That is no
    /// silence of the manager's.
    pub fn was_deaf(&mut self, time: Duration, now: Moment) {
        for open in &mut self.open {
            open.began = (open.began + time).min(now);
        }
    }

    /// An attempt ended.
    pub fn ended(&mut self, id: AttemptId, outcome: &Outcome, urgency: Urgency, now: Now) -> Ended {
        let Some(at) = self.open.iter().position(|open| open.id == id) else { return Ended::Again };
        let ended = self.open.swap_remove(at);
        self.last_ended = Some(now.at);
        self.rejected = matches!(outcome, Outcome::Rejected(_));
        if let Some(failure) = outcome.failure() {
            self.last_failure = Some(failure.why.clone());
        }
        match outcome {
            Outcome::Confirmed | Outcome::Absent => {
                if *outcome == Outcome::Confirmed {
                    self.reset_backoff();
                }
                let absent = *outcome == Outcome::Absent;
                let covers = ended.covers;
                if !ended.overlapped {
                    self.count = 0;
                    return Ended::Settled { covers, absent };
                }
                let until = self.lingering().unwrap_or(now.at).max(now.at);
                let watch = self.watch.get_or_insert_with(|| Watch { covers: Vec::new(), absent });
                watch.covers.extend(covers.iter().cloned());
                watch.absent &= absent;
                Ended::Watched { covers, absent, until }
            }
            Outcome::Unknown(failure) => {
                self.linger(now.at);
                self.delay(failure, Duration::ZERO, urgency, now);
                Ended::Again
            }
            Outcome::Failed(failure) => {
                self.delay(failure, Duration::ZERO, urgency, now);
                Ended::Again
            }
            // Credentials get fixed, but not within milliseconds.
            Outcome::Rejected(failure) => {
                self.delay(failure, URGENT_CAP, urgency, now);
                Ended::Again
            }
        }
    }

    /// The manager said that there is no such row, of a key it never showed: nothing is settled, and the answer won't change
    /// soon.
    pub fn unknown_key(&mut self, why: &str, urgency: Urgency, now: Now) {
        self.watch = None;
        self.last_failure = Some(why.to_owned());
        self.delay(&Failure::new(why), URGENT_CAP, urgency, now);
    }

    /// The next attempt is no use before this moment.
    pub fn put_off(&mut self, until: Moment) {
        self.not_before = self.not_before.max(until);
    }

    /// Something that may still be applied ended without an answer: a hold was lost.
    pub fn linger(&mut self, now: Moment) {
        self.lingers_until = Some(now + LINGER);
        for open in &mut self.open {
            open.overlapped = true;
        }
    }

    /// Nobody knows yet whether an agent before us left attempts that may still be applied: until told otherwise, one did.
    pub fn presume_others(&mut self, now: Moment) {
        self.before_us_until = Some(now + LINGER);
    }

    /// It is known now; what may still be applied is said by [`Attempts::linger`].
    pub fn others_are_known(&mut self) {
        self.before_us_until = None;
    }

    /// Somebody waits now: the next attempt needn't wait for a delay of the background, only for the manager's own wish, and not
    /// so long that none is made in the time that is left.
    pub fn urge(&mut self, urgency: Urgency, now: Moment) {
        self.reset_backoff();
        self.not_before = match urgency {
            Urgency::Urgent(left) => self.floor_until.min(now + last_chance(left)),
            Urgency::Background => self.floor_until,
        }
        .max(now);
    }

    /// The manager is healthy again: the next attempt needn't wait for a delay of the background, nor for a wish that was heard
    /// before. All agents hear of this at about the same time, so that attempt is drawn from the next seconds. The backoff goes on
    /// where it was, and one wait is cut short once: a manager that comes and goes is not asked at each coming.
    pub fn manager_is_back(&mut self, urgency: Urgency, now: Now) {
        self.floor_until = now.at;
        if std::mem::replace(&mut self.cut_short, true) {
            return;
        }
        let soon = match urgency {
            Urgency::Urgent(_) => SOON,
            Urgency::Background => BACKGROUND_SOON,
        };
        self.not_before = self.not_before.min(now.at + soon.mul_f64(now.fraction()));
    }

    /// All attempts are closed and a read that began after that has said what the row is. Answers what is settled by it, if a
    /// confirmation waited.
    pub fn row_was_read(&mut self, inactive: bool) -> Option<(Vec<RecordId>, bool)> {
        let watch = self.watch.take()?;
        if inactive {
            self.count = 0;
        }
        inactive.then_some((watch.covers, watch.absent))
    }

    /// The asks are gone (superseded, dropped): a confirmation no longer waits.
    pub fn forget_watch(&mut self) {
        self.watch = None;
        self.count = 0;
    }

    /// When something changes by time alone: the next attempt, a hedge, the closing of what may still be applied.
    pub fn wake_at(&self, wants: bool, now: Moment) -> Option<Moment> {
        let mut at: Option<Moment> = None;
        let mut sooner = |moment: Moment| at = Some(at.map_or(moment, |known: Moment| known.min(moment)));
        if let Some(until) = self.lingering().filter(|until| now < *until) {
            sooner(until);
        }
        if wants && self.open.is_empty() {
            sooner(self.not_before);
        }
        if let Some(hedge) = self.hedge_at().filter(|_| wants) {
            sooner(hedge);
        }
        at
    }

    fn reset_backoff(&mut self) {
        self.backoff.reset();
        self.urgent_cap = URGENT_CAP;
    }

    fn delay(&mut self, failure: &Failure, at_least: Duration, urgency: Urgency, now: Now) {
        if failure.exhausted {
            self.urgent_cap = (self.urgent_cap * 2).min(EXHAUSTED_CAP);
        }
        let (cap, left) = match urgency {
            Urgency::Urgent(left) => (self.urgent_cap, Some(left)),
            Urgency::Background => (BACKGROUND_CAP, None),
        };
        // While somebody waits, one more attempt is made however late the manager wishes it; after that its wish is done.
        let chance =
            left.map_or(BACKGROUND_CAP, |left| if left > LAST_CHANCE { left - LAST_CHANCE } else { left });
        let wished = failure.floor.map(|floor| floor.min(chance));
        let floor = wished.max((!at_least.is_zero()).then_some(at_least));
        let delay = self.backoff.next(cap, now.fraction(), floor, left);
        if let Some(floor) = wished {
            self.floor_until = now.at + floor;
        }
        self.cut_short = false;
        // A hedge's failure must not put off what its still open twin will lead to, nor the other way round.
        self.not_before = now.at + delay;
    }
}

/// How long a manager's wish may put off the first attempt where so much time is left until the deadline: some seconds remain for
/// the attempt itself, and for the disk and the log.
fn last_chance(left: Duration) -> Duration {
    if left > LAST_CHANCE * 2 { left - LAST_CHANCE } else { left / 2 }
}

#[cfg(test)]
mod herd;
#[cfg(test)]
mod tests;
