//! Learning from events, and what follows from what is known.

use std::time::Duration;

use super::{
    super::{
        attempts::{ATTEMPT_LIMIT, Ended},
        moment::{Moment, Now},
    },
    Answer, DRAIN_SLACK, Drain, Effect, Event, Hold, Hook, IDENTITY_GRACE, LIST_AGE, Lifecycle, Notice,
    Pending, Scheduler, SeenRow, Sight, Target, Verdict,
};
use crate::{
    exit::Exit,
    manager::{Freshness, Outcome, RowRead, RowState},
    spool::record::{Cause, Kind, Record, RecordId, What},
};

/// So many addresses of one scheduler are remembered, the latest ones.
const SERVED_AT: usize = 4;
/// How soon an ask that the disk refused is offered to it again.
const PERSIST_AGAIN: Duration = Duration::from_secs(5);
/// How often the row is read: over REST, and over gRPC alone.
const READ_EVERY: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(300)];
/// How soon after an attempt's end the row is read over REST.
const READ_SOON: Duration = Duration::from_secs(1);

impl Lifecycle {
    pub(super) fn learn(&mut self, event: Event, now: Now, out: &mut Vec<Effect>) {
        match event {
            Event::Found(left) => self.learn_found(left, now, out),
            Event::Scheduler(sight) => self.learn_sight(sight, now, out),
            Event::PreStop { hook, wait } => self.learn_pre_stop(hook, wait, now, out),
            Event::Terminate => self.learn_terminate(now, out),
            Event::Written { ask, on_disk } => {
                if let Some(pending) = self.pending.iter_mut().find(|pending| pending.record.id == ask) {
                    pending.on_disk = on_disk;
                }
                self.persist_again =
                    self.pending.iter().any(|pending| !pending.on_disk).then_some(now.at + PERSIST_AGAIN);
            }
            Event::Ended { attempt, outcome } => self.learn_ended(attempt, &outcome, now, out),
            Event::RowRead { asked, read } => {
                self.reading = false;
                match read {
                    Ok(read) => self.learn_row(asked, &read, now, out),
                    Err(_) => self.read_by(now.at + self.config.interval),
                }
            }
            Event::HoldOpened => {
                if self.hold == Hold::Opening {
                    self.hold = Hold::Open { since: now.at, seen_active: false };
                    self.hold_failures = 0;
                    self.read_after_change(now.at);
                }
            }
            Event::HoldFailed { absent } => {
                if self.hold == Hold::Opening {
                    self.hold = Hold::None;
                    self.hold_failures += 1;
                    let delay = if absent { self.config.interval } else { self.hold_delay() };
                    self.hold_not_before = now.at + delay;
                }
            }
            Event::HoldLost => {
                if matches!(self.hold, Hold::Open { .. }) {
                    self.hold = Hold::None;
                    self.hold_failures += 1;
                    self.hold_not_before = now.at + self.hold_delay();
                    self.attempts.linger(now.at);
                    self.ours = true;
                    self.row = None;
                    self.read_after_change(now.at);
                }
            }
            Event::Identity { listed } => self.learn_identity(listed, now, out),
            Event::ManagerLost => {
                if matches!(self.scheduler, Scheduler::Serving(_)) {
                    // The scheduler's own stream may be gone with it: it reconnects one interval later, and is active again.
                    let settled = now.at + self.config.interval.mul_f32(1.2) + Duration::from_secs(1);
                    self.inactive_proven = false;
                    self.read_by(self.provable_from(settled));
                    if self.drain.is_some() && self.freshness == Freshness::Within30s {
                        self.resign_at = Some(settled);
                    }
                }
            }
            Event::ManagerBack => self.attempts.manager_is_back(now),
            Event::Dropped(asks) => {
                self.finish(&asks, Verdict::Dropped, now, out);
                if self.pending.is_empty() {
                    self.attempts.forget_watch();
                    self.drop_drain(out);
                }
            }
            Event::Tick => {}
        }
    }

    fn learn_found(&mut self, left: Vec<(Kind, Record)>, now: Now, out: &mut Vec<Effect>) {
        // An agent that signed off or held may have left attempts that are still applied.
        if left.iter().any(|(_, record)| record.what != What::Seen) {
            self.attempts.linger(now.at);
        }
        let mut asks = 0;
        for (kind, record) in left {
            self.listed |= record.listed;
            if let What::SignOff { drain_until: Some(until), .. } = record.what {
                self.resume_drain(Duration::from_millis(until.saturating_sub(now.wall)), now.at);
            }
            match (kind, &record.what) {
                (Kind::Ask, _) => {
                    asks += 1;
                    self.pending.push(Pending {
                        record,
                        on_disk: true,
                        since: now.at,
                        acknowledged: None,
                        inherited: true,
                    });
                }
                (Kind::Mark, What::Seen) => self.served_at.extend(record.address),
                (Kind::Mark, What::SignOff { .. } | What::Held) => self.ours = true,
            }
        }
        if asks > 0 {
            out.push(Effect::Notice(Notice::Inherited(asks)));
        }
        // A slow disk may tell only now that it served where it refuses: nobody says again that it refuses.
        let refused_at = std::mem::take(&mut self.refused_at);
        if !refused_at.is_empty() {
            self.learn_sight(Sight::Refused(refused_at), now, out);
        }
    }

    /// A drain that a predecessor began: over where its end is further ahead than any drain's can be (the clock was set).
    fn resume_drain(&mut self, left: Duration, now: Moment) {
        if !left.is_zero() && left <= self.config.grace + DRAIN_SLACK {
            let until = now + left;
            let until = self.drain.map_or(until, |known| known.until.max(until));
            self.drain = Some(Drain { until, went_down: false });
        }
    }

    fn learn_sight(&mut self, sight: Sight, now: Now, out: &mut Vec<Effect>) {
        let before = self.scheduler;
        self.refused_at.clear();
        match sight {
            Sight::Serving(at) => {
                let known = self.served_at.last() == Some(&at);
                self.served_at.retain(|other| *other != at);
                self.served_at.push(at);
                if self.served_at.len() > SERVED_AT {
                    self.served_at.remove(0);
                }
                if !known {
                    out.push(Effect::Mark(self.record(What::Seen, now)));
                }
                if !matches!(before, Scheduler::Serving(_)) {
                    self.scheduler = Scheduler::Serving(now.at);
                    self.inactive_proven = false;
                    if self.terminated.is_none() {
                        if self.drain.is_some_and(|drain| drain.went_down) {
                            self.end_drain(out);
                        }
                        if self.drain.is_none() {
                            self.ending = None;
                        }
                    }
                    self.read_by(self.provable_from(now.at + self.config.interval * 2));
                    if !self.listed {
                        self.identity_due = Some(now.at);
                    }
                }
            }
            Sight::Refused(at) if at.iter().any(|at| self.served_at.contains(at)) => {
                if !matches!(before, Scheduler::Down(_)) {
                    self.scheduler = Scheduler::Down(now.at);
                    self.begin_ending(now.at);
                    if let Some(drain) = &mut self.drain {
                        drain.went_down = true;
                    }
                    if !self.inactive_proven || matches!(before, Scheduler::Serving(_)) {
                        self.ask(Cause::Down, None, now, out);
                    }
                    self.identity_due = None;
                }
            }
            Sight::Refused(at) => {
                self.scheduler = Scheduler::Unknown;
                self.refused_at = at;
            }
            Sight::Unclear => self.scheduler = Scheduler::Unknown,
        }
    }

    fn learn_pre_stop(&mut self, hook: u64, wait: Option<Duration>, now: Now, out: &mut Vec<Effect>) {
        self.begin_ending(now.at);
        let length = self.config.grace + DRAIN_SLACK;
        if self.drain.is_none() {
            out.push(Effect::Notice(Notice::Drain(true)));
        }
        self.drain =
            Some(Drain { until: now.at + length, went_down: matches!(self.scheduler, Scheduler::Down(_)) });
        let until = now.wall + u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let ask = self.ask(Cause::PreStop, Some(until), now, out);
        self.attempts.urge(now.at);
        let last = self.reserve_at().max(now.at);
        let answer_by = wait.map_or(last, |wait| last.min(now.at + wait));
        self.hooks.push((Hook { id: hook, answer_by }, ask));
    }

    fn learn_terminate(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.terminated.is_some() {
            return self.exit(now, out);
        }
        self.begin_ending(now.at);
        self.terminated = Some(now.at);
        if !self.inactive_proven {
            self.ask(Cause::Sigterm, None, now, out);
        }
        self.attempts.urge(now.at);
    }

    fn learn_ended(&mut self, attempt: u64, outcome: &Outcome, now: Now, out: &mut Vec<Effect>) {
        let ended = self.attempts.ended(attempt, outcome, self.urgency(now.at), now);
        self.releasing = self.releasing.filter(|id| *id != attempt);
        self.read_after_change(now.at);
        match ended {
            Ended::Settled { absent: true, .. } | Ended::Watched { absent: true, .. } if !self.listed => {
                let why = format!("the manager has no row {} and never showed one", self.config.key);
                self.attempts.unknown_key(&why, self.urgency(now.at), now);
                if !self.key_unknown {
                    self.key_unknown = true;
                    out.push(Effect::Notice(Notice::IdentityUnknown));
                }
            }
            Ended::Settled { covers, absent } => {
                self.inactive_proven = self.target(now.at) == Target::Inactive;
                if !absent {
                    self.is_listed(now, out);
                }
                self.settle(&covers, if absent { Verdict::Absent } else { Verdict::Confirmed }, now, out);
            }
            Ended::Watched { covers, absent, until } => {
                let verdict = if absent { Verdict::Absent } else { Verdict::Confirmed };
                for pending in self.pending.iter_mut().filter(|pending| covers.contains(&pending.record.id)) {
                    pending.acknowledged = Some(verdict);
                }
                out.push(Effect::Notice(Notice::Watched(until - now.at)));
                self.answer(&covers, verdict, Some(until - now.at), out);
            }
            Ended::Again => {}
        }
    }

    fn learn_row(&mut self, asked: Moment, read: &RowRead, now: Now, out: &mut Vec<Effect>) {
        let fresher = self.freshness != Freshness::Fresh && read.freshness == Freshness::Fresh;
        self.freshness = read.freshness;
        self.row = Some(SeenRow { state: read.state, asked, freshness: read.freshness });
        if matches!(read.state, RowState::Active | RowState::Inactive) {
            self.is_listed(now, out);
        }
        self.read_by(now.at + self.read_period(now));
        if fresher && let Scheduler::Serving(since) = self.scheduler {
            // The read that a list's age had put off need not wait so long.
            self.read_by(now.at.max(since + self.config.interval * 2));
        }
        let active = read.state == RowState::Active;
        if active && let Hold::Open { since, seen_active } = &mut self.hold {
            let age = if read.freshness == Freshness::Fresh { Duration::ZERO } else { LIST_AGE };
            *seen_active |= asked >= *since + age;
        }
        if active {
            self.inactive_proven = false;
        }
        if asked < self.provable_from(self.changed_at()) || self.attempts.any_open(asked) {
            return;
        }
        if let Some((covers, absent)) = self.attempts.row_was_read(!active) {
            self.inactive_proven = self.target(now.at) == Target::Inactive;
            self.settle(&covers, if absent { Verdict::Absent } else { Verdict::Confirmed }, now, out);
        } else if active {
            for pending in &mut self.pending {
                pending.acknowledged = None;
            }
        }
        match self.target(now.at) {
            Target::Inactive if active && self.pending.is_empty() => {
                out.push(Effect::Notice(Notice::Revived));
                self.ask(Cause::Revived, None, now, out);
            }
            Target::Active if active => self.row_is_right(out),
            _ => {}
        }
    }

    fn learn_identity(&mut self, listed: bool, now: Now, out: &mut Vec<Effect>) {
        let Scheduler::Serving(since) = self.scheduler else {
            self.identity_due = None;
            return;
        };
        if listed {
            return self.is_listed(now, out);
        }
        let late = now.at - since >= IDENTITY_GRACE;
        if late && !self.key_unknown {
            self.key_unknown = true;
            out.push(Effect::Notice(Notice::IdentityUnknown));
        }
        let again = if late { READ_EVERY[0] } else { self.config.interval };
        self.identity_due = Some(now.at + again);
    }

    /// The key was seen in the manager; a mark of that outlives this process.
    fn is_listed(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.identity_due = None;
        self.key_unknown = false;
        if !self.listed {
            self.listed = true;
            if self.seen_serving() {
                out.push(Effect::Mark(self.record(What::Seen, now)));
            }
        }
    }

    /// What follows from what is known. Level-triggered: it may be called at any time.
    pub(super) fn decide(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.drain_may_end() && self.drain.is_some_and(|drain| now.at >= drain.until) {
            self.end_drain(out);
            self.ending = None;
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

    fn make_inactive(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.restoring = false;
        if self.hold == Hold::Opening {
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

    fn attempt_limit(&self, now: Moment) -> Duration {
        match self.terminated {
            Some(_) => ATTEMPT_LIMIT.min(self.exit_at() - now).max(Duration::from_millis(50)),
            None => ATTEMPT_LIMIT,
        }
    }

    /// Asks, unless an ask is pending that no attempt covers yet. Answers which ask it is.
    fn ask(&mut self, cause: Cause, drain_until: Option<u64>, now: Now, out: &mut Vec<Effect>) -> RecordId {
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
        self.attempts.urge(now.at);
        self.pending.push(Pending {
            record: record.clone(),
            on_disk: false,
            since: now.at,
            acknowledged: None,
            inherited: false,
        });
        out.push(Effect::Notice(Notice::Asked(cause)));
        out.push(Effect::Persist(record));
        id
    }

    /// These asks are settled: confirmed or absent.
    fn settle(&mut self, covers: &[RecordId], verdict: Verdict, now: Now, out: &mut Vec<Effect>) {
        if covers.iter().any(|id| self.pending.iter().any(|pending| pending.record.id == *id)) {
            out.push(Effect::Settle { asks: covers.to_vec(), mark: true });
            self.ours = true;
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

    fn answer(
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

    fn answer_late_hooks(&mut self, now: Now, out: &mut Vec<Effect>) {
        let late: Vec<_> =
            self.hooks.extract_if(.., |(hook, _)| now.at >= hook.answer_by || self.done).collect();
        for (hook, ask) in late {
            let on_disk = self.pending.iter().any(|pending| pending.record.id == ask && pending.on_disk);
            let why = self.attempts.last_failure().map(str::to_owned);
            out.push(Effect::Answer(
                hook.id,
                Answer { verdict: Verdict::Queued, why, watched_for: None, on_disk },
            ));
        }
    }

    fn leave_if_done(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.terminated.is_none() {
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

    fn exit(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.done = true;
        self.answer_late_hooks(now, out);
        out.push(Effect::Exit(if self.unacknowledged() { Exit::Queued } else { Exit::Done }));
    }

    fn begin_ending(&mut self, now: Moment) {
        // One that is older than the grace was another ending: a scheduler that crashed long ago.
        self.ending = self.ending.filter(|began| *began + self.config.grace >= now).or(Some(now));
    }

    fn end_drain(&mut self, out: &mut Vec<Effect>) {
        // From here on a living scheduler's row is made active.
        self.inactive_proven = false;
        self.resign_at = None;
        if self.drain.take().is_some() {
            out.push(Effect::Notice(Notice::Drain(false)));
        }
    }

    /// Whoever drops what a drain asked for wants no drain: with one on, the row would be signed off again at the next look.
    fn drop_drain(&mut self, out: &mut Vec<Effect>) {
        if matches!(self.scheduler, Scheduler::Serving(_)) {
            self.end_drain(out);
            self.ending = self.ending.filter(|_| self.terminated.is_some());
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
            what,
            listed: self.listed,
            at: now.wall,
            pod: self.config.pod.clone(),
        }
    }

    /// Since when nothing that was seen may have changed the row.
    fn changed_at(&self) -> Moment {
        let scheduler = match self.scheduler {
            Scheduler::Serving(since) | Scheduler::Down(since) => since,
            Scheduler::Unseen | Scheduler::Unknown => Moment::default(),
        };
        scheduler.max(self.attempts.closed_at().unwrap_or_default())
    }

    /// When a read proves what the row is, though it changed at `changed`.
    pub(super) fn provable_from(&self, changed: Moment) -> Moment {
        match self.freshness {
            Freshness::Fresh => changed,
            Freshness::Within30s => changed + LIST_AGE,
        }
    }

    pub(super) fn read_by(&mut self, at: Moment) {
        self.read_due = Some(self.read_due.map_or(at, |known| known.min(at)));
    }

    /// The row may have changed just now, by our doing.
    fn read_after_change(&mut self, now: Moment) {
        let closed = self.attempts.closed_at().unwrap_or(now);
        let at = match self.freshness {
            Freshness::Fresh if self.attempts.watching() => closed,
            Freshness::Fresh => now + READ_SOON,
            Freshness::Within30s => closed.max(now) + LIST_AGE,
        };
        self.read_by(at);
    }

    fn read_period(&self, now: Now) -> Duration {
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
