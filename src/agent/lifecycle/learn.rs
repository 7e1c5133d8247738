//! Learning from events.

use std::time::Duration;

use super::{
    super::{
        attempts::{Ended, LINGER},
        moment::{Moment, Now},
    },
    DRAIN_SLACK, Drain, Effect, Event, Hold, Hook, IDENTITY_GRACE, Lifecycle, Notice, Pending, Scheduler,
    SeenRow, Sight, Target, Verdict,
    decide::{PERSIST_AGAIN, READ_EVERY},
};
use crate::{
    manager::{Freshness, Outcome, Registered, RowRead, RowState},
    spool::record::{Cause, Kind, Record, RecordId, What},
};

/// A longer `config` is not kept: a mark has to stay small.
const LONGEST_CONFIG: usize = 4096;
/// So many addresses of one scheduler are remembered, the latest ones.
const SERVED_AT: usize = 4;

impl Lifecycle {
    pub(super) fn learn(&mut self, event: Event, now: Now, out: &mut Vec<Effect>) {
        match event {
            Event::Found { left, all } => self.learn_found(left, all, now, out),
            Event::Scheduler(sight) => self.learn_sight(sight, now, out),
            Event::PreStop { hook, wait } => self.learn_pre_stop(hook, wait, now, out),
            Event::Terminate => self.learn_terminate(now, out),
            Event::Written { ask, on_disk } => {
                if let Some(pending) = self.pending.iter_mut().find(|pending| pending.record.id == ask) {
                    if !pending.offered {
                        self.attempts.was_deaf(now.at - pending.since, now.at);
                    }
                    pending.on_disk = on_disk;
                    pending.offered = true;
                }
                self.persist_again =
                    self.pending.iter().any(|pending| !pending.on_disk).then_some(now.at + PERSIST_AGAIN);
            }
            Event::Ended { attempt, outcome } => self.learn_ended(attempt, &outcome, now, out),
            Event::RowRead { asked, read } => {
                self.reading = false;
                match read {
                    Ok(read) => self.learn_row(asked, &read, now, out),
                    Err(_) => {
                        self.read_not_before = now.at + self.config.interval;
                        self.read_by(self.read_not_before);
                    }
                }
            }
            Event::HoldOpened => {
                if let Hold::Opening { why } = self.hold {
                    self.hold = Hold::Open { why, since: now.at, seen_active: false };
                    self.hold_failures = 0;
                    self.read_after_change(now.at);
                }
            }
            Event::HoldFailed { absent } => {
                if matches!(self.hold, Hold::Opening { .. }) {
                    self.hold = Hold::None;
                    self.hold_failures += 1;
                    let delay = if absent { self.config.interval } else { self.hold_delay() };
                    self.hold_not_before = now.at + delay;
                    if absent {
                        self.learn_not_found(now);
                    } else {
                        // Its first message may have been sent.
                        self.hold_may_still_end(now.at);
                    }
                }
            }
            Event::HoldLost => {
                if matches!(self.hold, Hold::Open { .. }) {
                    self.hold = Hold::None;
                    self.hold_failures += 1;
                    self.hold_not_before = now.at + self.hold_delay();
                    self.row = None;
                    self.hold_may_still_end(now.at);
                }
            }
            Event::Registered(came) => self.learn_registered(came, now, out),
            Event::Identity { listed } => self.learn_identity(listed, now, out),
            Event::Identified { in_question } => self.in_question = in_question,
            Event::ManagerLost => {
                if matches!(self.scheduler, Scheduler::Serving(_)) {
                    // The scheduler's own stream may be gone with it: it reconnects one interval later, and is active again.
                    let settled = now.at + self.reconnects_within();
                    self.inactive_proven = false;
                    self.read_by(self.provable_from(settled));
                    if self.drain.is_some() && self.freshness == Freshness::Within30s {
                        self.resign_at = Some(settled);
                    }
                }
            }
            Event::ManagerBack => self.attempts.manager_is_back(self.urgency(now.at), now),
            Event::Dropped(asks) => {
                self.mark_what_may_be_applied(&asks, now, out);
                self.finish(&asks, Verdict::Dropped, now, out);
                if self.pending.is_empty() {
                    self.attempts.forget_watch();
                    self.drop_drain(out);
                }
            }
            Event::Tick => {}
        }
    }

    /// Within this time a stream of the scheduler's that broke is open again.
    pub(super) fn reconnects_within(&self) -> Duration {
        self.config.interval.mul_f32(1.2) + Duration::from_secs(1)
    }

    /// A hold broke: its end may still be applied, and would make the row inactive by our doing.
    fn hold_may_still_end(&mut self, now: Moment) {
        self.attempts.linger(now);
        self.is_ours();
        self.read_after_change(now);
    }

    /// With an ask its word that the row may be inactive by our doing would go, too: where it was acknowledged, or an attempt
    /// may still be applied, a mark takes its place.
    fn mark_what_may_be_applied(&mut self, asks: &[RecordId], now: Now, out: &mut Vec<Effect>) {
        let open = self.attempts.any_open(now.at);
        let dropped = self.pending.iter().filter(|pending| asks.contains(&pending.record.id));
        let applied = dropped.filter(|pending| open || pending.acknowledged.is_some());
        if let Some(cause) = applied.filter_map(Pending::cause).next_back() {
            self.is_ours();
            out.push(Effect::Mark(self.record(What::SignOff { cause, drain_until: None }, now)));
        }
    }

    pub(super) fn learn_found(
        &mut self,
        left: Vec<(Kind, Record)>,
        all: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if all {
            self.attempts.others_are_known();
        }
        // An agent that signed off or held may have left attempts that are still applied.
        if left.iter().any(|(_, record)| record.what != What::Seen) {
            self.attempts.linger(now.at);
        }
        // What this agent has read is later.
        if self.registered.is_none() {
            let marks = left.iter().filter(|(_, record)| !record.managers.is_empty());
            let told =
                marks.filter(|(_, record)| record.registered.is_some()).max_by_key(|(_, record)| record.at);
            self.registered = told.and_then(|(_, record)| record.registered.clone());
        }
        let mut asks = 0;
        let mut served_at = Vec::new();
        for (kind, record) in left {
            // A record that names no manager may tell of another one's table.
            self.listed |= record.listed && !record.managers.is_empty();
            if let What::SignOff { drain_until: Some(until), .. } = record.what {
                self.resume_drain(Duration::from_millis(until.saturating_sub(now.wall)), now.at);
            }
            match (kind, &record.what) {
                (Kind::Ask, _) => {
                    asks += 1;
                    self.pending.push(Pending {
                        record,
                        on_disk: true,
                        offered: true,
                        since: now.at,
                        acknowledged: None,
                        inherited: true,
                    });
                }
                (Kind::Mark, What::Seen) => served_at.extend(record.address),
                (Kind::Mark, What::SignOff { cause, .. }) => {
                    self.was_down |= matches!(cause, Cause::Down | Cause::Revived);
                    self.is_ours();
                }
                (Kind::Mark, What::Held) => self.is_ours(),
            }
        }
        // What was seen since is later than any mark that is told of only now.
        served_at.retain(|at| !self.served_at.contains(at));
        served_at.append(&mut self.served_at);
        served_at.drain(..served_at.len().saturating_sub(SERVED_AT));
        self.served_at = served_at;
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
    pub(super) fn resume_drain(&mut self, left: Duration, now: Moment) {
        if !left.is_zero() && left <= self.config.grace + DRAIN_SLACK {
            let until = now + left;
            let until = self.drain.map_or(until, |known| known.until.max(until));
            self.drain = Some(Drain { until, went_down: false });
        }
    }

    pub(super) fn learn_sight(&mut self, sight: Sight, now: Now, out: &mut Vec<Effect>) {
        if sight == Sight::Reconnected {
            if self.config.follows {
                out.push(Effect::Identify { was_away: false });
            }
            return;
        }
        let before = self.scheduler;
        let was_refused =
            matches!(before, Scheduler::Down(_)) || !self.refused_at.is_empty() || self.was_down;
        self.refused_at.clear();
        match sight {
            Sight::Serving(at) => {
                let known = self.served_at.last() == Some(&at);
                self.served_at.retain(|other| *other != at);
                self.served_at.push(at);
                if self.served_at.len() > SERVED_AT {
                    self.served_at.remove(0);
                }
                if std::mem::take(&mut self.mark_owed) || !known {
                    out.push(Effect::Mark(self.record(What::Seen, now)));
                }
                if !matches!(before, Scheduler::Serving(_)) {
                    self.scheduler = Scheduler::Serving(now.at);
                    if was_refused {
                        // It registers its row itself.
                        self.put_back.at = None;
                        self.reappeared = Some(now.at);
                        let marked = std::mem::take(&mut self.was_down) && before == Scheduler::Unseen;
                        if self.config.follows && !marked {
                            self.in_question = true;
                            out.push(Effect::Identify { was_away: true });
                        }
                    }
                    self.inactive_proven = false;
                    if self.terminated.is_none() {
                        if self.drain.is_some_and(|drain| drain.went_down) {
                            self.end_drain(out);
                        }
                        if self.drain.is_none() {
                            self.endings.clear();
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
                    self.begin_ending(now.came);
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
            Sight::Unclear | Sight::Reconnected => self.scheduler = Scheduler::Unknown,
        }
    }

    pub(super) fn learn_pre_stop(
        &mut self,
        hook: u64,
        wait: Option<Duration>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.begin_ending(now.came);
        let length = self.config.grace + DRAIN_SLACK;
        if self.drain.is_none() {
            out.push(Effect::Notice(Notice::Drain(true)));
        }
        self.drain =
            Some(Drain { until: now.at + length, went_down: matches!(self.scheduler, Scheduler::Down(_)) });
        let until = now.wall + u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let ask = self.ask(Cause::PreStop, Some(until), now, out);
        self.attempts.urge(self.urgency(now.at), now.at);
        let last = self.reserve_at().max(now.at);
        let answer_by = wait.map_or(last, |wait| last.min(now.came + wait));
        self.hooks.push((Hook { id: hook, answer_by }, ask));
    }

    pub(super) fn learn_terminate(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.terminated.is_some() {
            return self.exit(now, out);
        }
        self.begin_ending(now.came);
        self.terminated = Some(now.came);
        if !self.inactive_proven {
            self.ask(Cause::Sigterm, None, now, out);
        }
        self.attempts.urge(self.urgency(now.at), now.at);
    }

    pub(super) fn learn_ended(&mut self, attempt: u64, outcome: &Outcome, now: Now, out: &mut Vec<Effect>) {
        let ended = self.attempts.ended(attempt, outcome, self.urgency(now.at), now);
        self.releasing = self.releasing.filter(|id| *id != attempt);
        self.read_after_change(now.at);
        match ended {
            Ended::Settled { absent: true, .. } | Ended::Watched { absent: true, .. } if !self.listed => {
                self.not_found(now);
                if !self.key_unknown {
                    self.key_unknown = true;
                    out.push(Effect::Notice(Notice::IdentityUnknown));
                }
                self.settle_what_never_was(now, out);
            }
            Ended::Settled { covers, absent } => {
                self.inactive_proven = self.target(now.at) == Target::Inactive;
                if !absent {
                    self.is_listed(now, out);
                }
                self.settle_acknowledged(covers, absent, now, out);
            }
            Ended::Watched { covers, absent, until } => {
                let verdict = if absent { Verdict::Absent } else { Verdict::Confirmed };
                for pending in self.pending.iter_mut().filter(|pending| covers.contains(&pending.record.id)) {
                    pending.acknowledged = Some(verdict);
                }
                out.push(Effect::Notice(Notice::Watched { verdict, left: until - now.at }));
                self.answer(&covers, verdict, Some(until - now.at), out);
            }
            Ended::Again => {}
        }
    }

    /// These asks are acknowledged, with nothing open beside that: what `record not found` says nothing of stays.
    fn settle_acknowledged(&mut self, covers: Vec<RecordId>, absent: bool, now: Now, out: &mut Vec<Effect>) {
        if !absent {
            return self.settle(&covers, Verdict::Confirmed, now, out);
        }
        let (elsewhere, here): (Vec<_>, Vec<_>) =
            covers.into_iter().partition(|ask| self.may_be_anothers(ask));
        self.settle(&here, Verdict::Absent, now, out);
        if !elsewhere.is_empty() {
            for ask in self.pending.iter_mut().filter(|ask| elsewhere.contains(&ask.record.id)) {
                ask.acknowledged = None;
            }
            self.not_found(now);
        }
    }

    /// An ask that was found and names no manager may be about another one's row: that this one has none proves nothing.
    fn may_be_anothers(&self, ask: &RecordId) -> bool {
        let ask = self.pending.iter().find(|pending| pending.record.id == *ask);
        ask.is_some_and(|ask| ask.inherited && ask.record.managers.is_empty())
    }

    /// What an agent before this one asked for a scheduler that nobody ever saw serve, of this very manager, is settled once that
    /// has said twice, a minute apart, that it has no such row: whatever was sent is applied by then, and would have made one.
    fn settle_what_never_was(&mut self, now: Now, out: &mut Vec<Effect>) {
        let since = *self.not_found_since.get_or_insert(now.at);
        let served = !self.served_at.is_empty() || matches!(self.scheduler, Scheduler::Serving(_));
        if served || now.at < since + LINGER || self.attempts.any_open(now.at) {
            return;
        }
        let was_never = |ask: &&Pending| {
            let stops = matches!(ask.cause(), Some(Cause::PreStop | Cause::Sigterm));
            ask.inherited && stops && !ask.record.listed && !ask.record.managers.is_empty()
        };
        let asks: Vec<RecordId> =
            self.pending.iter().filter(was_never).map(|ask| ask.record.id.clone()).collect();
        if !asks.is_empty() {
            self.settle(&asks, Verdict::NeverRegistered, now, out);
        }
    }

    /// The manager says that there is no such row, and that settles nothing.
    fn not_found(&mut self, now: Now) {
        let why = format!("the manager has no row {} and never showed one", self.config.key);
        self.attempts.unknown_key(&why, self.urgency(now.at), now);
    }

    pub(super) fn learn_row(&mut self, asked: Moment, read: &RowRead, now: Now, out: &mut Vec<Effect>) {
        self.freshness = read.freshness;
        self.row = Some(SeenRow { state: read.state, asked, freshness: read.freshness });
        if let Some(told) = &read.registered {
            self.was_told(told);
        }
        self.listed_active |= read.state == RowState::Active && read.freshness == Freshness::Within30s;
        if matches!(read.state, RowState::Active | RowState::Inactive) {
            self.is_listed(now, out);
        }
        self.read_by(now.at + self.read_period(now));
        if let Scheduler::Serving(since) = self.scheduler {
            // The read that shows whether the scheduler set its row active itself is still to come.
            let itself = (since + self.config.interval * 2).max(self.put_back_settled());
            let proves_from = self.provable_from(itself);
            if asked < proves_from {
                self.read_by(now.at.max(proves_from));
            }
        }
        let active = read.state == RowState::Active;
        let is_there = active || read.state == RowState::Inactive;
        if is_there && self.put_back.unsaid && self.put_back.at.is_some_and(|at| asked >= at) {
            self.put_back.unsaid = false;
            out.push(Effect::Notice(Notice::PutBack));
        }
        if active && let Hold::Open { since, seen_active, .. } = &mut self.hold {
            *seen_active |= asked >= *since + read.freshness.age();
        }
        if active {
            self.inactive_proven = false;
        }
        if asked < self.provable_from(self.changed_at()) || self.attempts.any_open(asked) {
            return;
        }
        if let Some((covers, absent)) = self.attempts.row_was_read(!active) {
            self.inactive_proven = self.target(now.at) == Target::Inactive;
            self.settle_acknowledged(covers, absent, now, out);
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

    pub(super) fn learn_identity(&mut self, listed: bool, now: Now, out: &mut Vec<Effect>) {
        let Scheduler::Serving(since) = self.scheduler else {
            self.identity_due = None;
            return;
        };
        if listed {
            return self.is_listed(now, out);
        }
        if self.listed {
            // The look began before the key was seen.
            self.identity_due = None;
            return;
        }
        let late = now.at - since >= IDENTITY_GRACE;
        if late && !self.key_unknown {
            self.key_unknown = true;
            out.push(Effect::Notice(Notice::IdentityUnknown));
        }
        let again = if late { READ_EVERY[0] } else { self.config.interval };
        self.identity_due = Some(now.at + again);
    }

    /// The key was seen in the manager; a mark of that outlives this process, with what the scheduler registered.
    pub(super) fn is_listed(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.identity_due = None;
        self.key_unknown = false;
        self.mark_owed |= !std::mem::replace(&mut self.listed, true);
        if self.seen_serving() && std::mem::take(&mut self.mark_owed) {
            out.push(Effect::Mark(self.record(What::Seen, now)));
        }
    }

    /// What a row says that its scheduler registered. A source that shows less doesn't unsay it.
    fn was_told(&mut self, told: &Registered) {
        let mut told = told.clone();
        if told.config.len() > LONGEST_CONFIG {
            told.config.clear();
        }
        if let (true, Some(known)) = (told.config.is_empty(), &self.registered) {
            told.config.clone_from(&known.config);
        }
        self.mark_owed |= self.registered.as_ref() != Some(&told);
        self.registered = Some(told);
    }
}
