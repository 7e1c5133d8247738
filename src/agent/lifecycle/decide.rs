//! What follows from what is known.

use std::time::Duration;

use super::{
    super::{
        attempts::ATTEMPT_LIMIT,
        moment::{Moment, Now},
    },
    Answer, Effect, Hold, Hook, IDENTITY_GRACE, Lifecycle, Notice, Pending, Scheduler, Target, Verdict,
};
use crate::{
    exit::Exit,
    manager::{Freshness, LIST_AGE},
    spool::{
        Managers,
        record::{Cause, Record, RecordId, What},
    },
};

/// How soon an ask that the disk refused is offered to it again.
pub(super) const PERSIST_AGAIN: Duration = Duration::from_secs(5);
/// How often the row is read at least: over REST, and over gRPC alone. There one that is gone is back within 6 min: so long, a list's
/// age before and after it is registered again, and its stream.
pub(super) const READ_EVERY: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(290)];
/// How soon after an attempt's end the row is read over REST.
const READ_SOON: Duration = Duration::from_secs(1);

impl Lifecycle {
    /// What follows from what is known. Level-triggered: it may be called at any time.
    pub(super) fn decide(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.drain_may_end() && self.drain.is_some_and(|drain| now.at >= drain.until) {
            self.end_drain(out);
            self.endings.clear();
            self.inactive_proven = false;
        }
        if self.resign_at.is_some_and(|at| now.at >= at) {
            self.resign_at = None;
            if self.drain.is_some() {
                self.ask(Cause::Revived, None, now, out);
            }
        }
        if self.persist_again.is_some_and(|at| now.at >= at) {
            self.persist_again = None;
            out.extend(self.pending.iter().filter(|p| !p.on_disk).map(|p| Effect::Persist(p.record.clone())));
        }
        match self.target(now.at) {
            Target::Inactive => self.make_inactive(now, out),
            Target::Active => self.make_active(now, out),
            Target::Leave => {}
        }
        if self.identity_due.is_some_and(|at| now.at >= at) {
            self.identity_due = Some(now.at + IDENTITY_GRACE);
            out.push(Effect::CheckIdentity);
        }
        if !self.reading && self.read_due.is_some_and(|at| now.at >= at) {
            self.reading = true;
            self.read_due = None;
            out.push(Effect::ReadRow);
        }
        self.answer_late_hooks(now, out);
        self.leave_if_done(now, out);
    }

    pub(super) fn make_inactive(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.restoring = false;
        self.put_back.at = None;
        if self.put_back.under_way.take().is_some() {
            // Applied all the same, the row is there for the scheduler's own stream to set active.
            self.attempts.linger(now.at);
            out.push(Effect::DropRegistration);
        }
        if matches!(self.hold, Hold::Opening { .. }) {
            self.hold = Hold::None;
            self.attempts.linger(now.at);
            out.push(Effect::DropHold);
        }
        let asked = || self.pending.iter().map(|pending| pending.record.id.clone()).collect::<Vec<_>>();
        if matches!(self.hold, Hold::Open { .. }) {
            let covers = asked();
            let id = self.attempts.begin(covers, now.at);
            self.hold = Hold::None;
            self.releasing = Some(id);
            out.push(Effect::Release { id, limit: self.attempt_limit(now.at) });
            return;
        }
        if !self.unacknowledged() {
            return;
        }
        let hedge = self.attempts.may_hedge(now.at);
        if hedge || self.attempts.may_begin(now.at) {
            let covers = asked();
            let id = self.attempts.begin(covers, now.at);
            out.push(Effect::Attempt { id, hedge, limit: self.attempt_limit(now.at) });
        }
    }

    pub(super) fn attempt_limit(&self, now: Moment) -> Duration {
        match self.terminated {
            Some(_) => ATTEMPT_LIMIT.min(self.exit_at() - now).max(Duration::from_millis(50)),
            None => ATTEMPT_LIMIT,
        }
    }

    /// Asks, unless an ask is pending that no attempt covers yet. Answers which ask it is.
    pub(super) fn ask(
        &mut self,
        cause: Cause,
        drain_until: Option<u64>,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> RecordId {
        self.inactive_proven = false;
        let same = self.pending.iter().find(|pending| {
            let What::SignOff { drain_until: until, .. } = pending.record.what else { return false };
            let uncovered = !self.attempts.covers(&pending.record.id) && pending.acknowledged.is_none();
            // A drain's end is kept in its ask.
            uncovered
                && (drain_until.is_none() || until.is_some_and(|until| Some(until + 1000) >= drain_until))
        });
        if let Some(same) = same {
            return same.record.id.clone();
        }
        let record = self.record(What::SignOff { cause, drain_until }, now);
        let id = record.id.clone();
        self.attempts.urge(self.urgency(now.at), now.at);
        self.pending.push(Pending {
            record: record.clone(),
            on_disk: false,
            offered: false,
            since: now.at,
            acknowledged: None,
            inherited: false,
        });
        out.push(Effect::Notice(Notice::Asked(cause)));
        out.push(Effect::Persist(record));
        id
    }

    /// These asks are settled: confirmed or absent.
    pub(super) fn settle(&mut self, covers: &[RecordId], verdict: Verdict, now: Now, out: &mut Vec<Effect>) {
        if covers.iter().any(|id| self.pending.iter().any(|pending| pending.record.id == *id)) {
            out.push(Effect::Settle { asks: covers.to_vec(), mark: true });
            self.is_ours();
        }
        self.finish(covers, verdict, now, out);
    }

    /// Forgets asks that are settled on disk, and tells who waits for them.
    pub(super) fn finish(&mut self, asks: &[RecordId], verdict: Verdict, now: Now, out: &mut Vec<Effect>) {
        for pending in self.pending.extract_if(.., |pending| asks.contains(&pending.record.id)) {
            if let Some(cause) = pending.cause() {
                out.push(Effect::Notice(Notice::Settled { verdict, cause, after: now.at - pending.since }));
            }
        }
        self.answer(asks, verdict, None, out);
    }

    pub(super) fn answer(
        &mut self,
        asks: &[RecordId],
        verdict: Verdict,
        watched_for: Option<Duration>,
        out: &mut Vec<Effect>,
    ) {
        for (hook, _) in self.hooks.extract_if(.., |(_, ask)| asks.contains(ask)) {
            out.push(Effect::Answer(hook.id, Answer { verdict, why: None, watched_for, on_disk: true }));
        }
    }

    pub(super) fn answer_late_hooks(&mut self, now: Now, out: &mut Vec<Effect>) {
        let offering = |ask: &RecordId| self.pending.iter().any(|p| p.record.id == *ask && !p.offered);
        let late = |hook: &Hook, ask: &RecordId| self.done || (now.at >= hook.answer_by && !offering(ask));
        let late: Vec<_> = self.hooks.extract_if(.., |(hook, ask)| late(hook, ask)).collect();
        for (hook, ask) in late {
            let on_disk = self.pending.iter().any(|pending| pending.record.id == ask && pending.on_disk);
            let why = self.attempts.last_failure().map(str::to_owned);
            out.push(Effect::Answer(
                hook.id,
                Answer { verdict: Verdict::Queued, why, watched_for: None, on_disk },
            ));
        }
    }

    pub(super) fn leave_if_done(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.terminated.is_none() || self.pending.iter().any(|pending| !pending.offered) {
            return;
        }
        let reserve = now.at >= self.reserve_at();
        let gone = matches!(self.scheduler, Scheduler::Down(_))
            || (!self.seen_serving() && self.scheduler != Scheduler::Unseen);
        let settled =
            self.target(now.at) == Target::Inactive && !self.unacknowledged() && !self.attempts.under_way();
        let acknowledged = settled || (self.attempts.watching() && !self.unacknowledged());
        let hopeless = self.key_unknown && !self.seen_serving();
        if ((gone || reserve) && acknowledged) || hopeless || now.at >= self.exit_at() {
            self.exit(now, out);
        }
    }

    pub(super) fn exit(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.done = true;
        self.answer_late_hooks(now, out);
        out.push(Effect::Exit(if self.unacknowledged() { Exit::Queued } else { Exit::Done }));
    }

    pub(super) fn begin_ending(&mut self, came: Moment) {
        // One that is older than the grace was another ending: a scheduler that crashed long ago.
        self.endings.retain(|began| *began + self.config.grace >= came);
        self.endings.push(came);
    }

    pub(super) fn end_drain(&mut self, out: &mut Vec<Effect>) {
        // From here on a living scheduler's row is made active.
        self.inactive_proven = false;
        self.resign_at = None;
        if self.drain.take().is_some() {
            out.push(Effect::Notice(Notice::Drain(false)));
        }
    }

    /// Whoever drops what a drain asked for wants no drain: with one on, the row would be signed off again at the next look.
    pub(super) fn drop_drain(&mut self, out: &mut Vec<Effect>) {
        if matches!(self.scheduler, Scheduler::Serving(_)) {
            self.end_drain(out);
        } else {
            self.drain = None;
        }
    }

    pub(super) fn record(&mut self, what: What, now: Now) -> Record {
        self.last_record += 1;
        Record {
            id: RecordId(format!("{:08x}{:08x}", self.config.run, self.last_record)),
            key: self.config.key.clone(),
            address: if what == What::Seen { self.served_at.last().copied() } else { self.config.advertised },
            registered: if what == What::Seen { self.registered.clone() } else { None },
            what,
            listed: self.listed,
            row_updated: None,
            at: now.wall,
            pod: self.config.pod.clone(),
            managers: Managers::default(),
        }
    }

    /// Since when nothing that was seen may have changed the row.
    pub(super) fn changed_at(&self) -> Moment {
        let scheduler = match self.scheduler {
            Scheduler::Serving(since) | Scheduler::Down(since) => since,
            Scheduler::Unseen | Scheduler::Unknown => Moment::default(),
        };
        let put_back = self.put_back.at.unwrap_or_default();
        scheduler.max(self.attempts.closed_at().unwrap_or_default()).max(put_back)
    }

    /// When a read proves what the row is, though it changed at `changed`.
    pub(super) fn provable_from(&self, changed: Moment) -> Moment {
        changed + self.freshness.age()
    }

    pub(super) fn read_by(&mut self, at: Moment) {
        self.read_due = Some(self.read_due.map_or(at, |known| known.min(at)));
    }

    /// The row may have changed just now, by our doing.
    pub(super) fn read_after_change(&mut self, now: Moment) {
        let closed = self.attempts.closed_at().unwrap_or(now);
        let at = match self.freshness {
            Freshness::Fresh if self.attempts.watching() => closed,
            Freshness::Fresh => now + READ_SOON,
            Freshness::Within30s => closed.max(now) + LIST_AGE,
        };
        self.read_by(at);
    }

    pub(super) fn read_period(&self, now: Now) -> Duration {
        let serving = matches!(self.scheduler, Scheduler::Serving(_));
        let uncertain = self.attempts.any_open(now.at) || (serving && (self.drain.is_some() || self.ours));
        let period = match self.freshness {
            Freshness::Fresh if uncertain => self.config.interval,
            Freshness::Fresh => READ_EVERY[0],
            Freshness::Within30s if self.attempts.any_open(now.at) => {
                return self.provable_from(self.attempts.closed_at().unwrap_or(now.at)) - now.at;
            }
            Freshness::Within30s => READ_EVERY[1],
        };
        period.mul_f64(1.0 - 0.1 * now.fraction())
    }
}
