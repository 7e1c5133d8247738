//! Which key the scheduler registers: the one that the agent answers for, or another one that its configuration names by now.
//!
//! The configuration's file may have changed long before the scheduler is restarted, and an agent that is restarted reads the new file
//! beside a scheduler that still runs with the old one. So a file proves nothing. What proves that a key is the scheduler's is its row
//! in the manager: the row became active, or its time moved, while the scheduler serves. Until one of the two keys is proven, the
//! agent neither signs the old row off nor gives it back.
//!
//! Pure: what was listed, and when, comes in as arguments.

use std::time::Duration;

use super::{lifecycle::IDENTITY_GRACE, moment::Moment};
use crate::{
    key::SchedulerKey,
    manager::{Freshness, Row, State},
};

#[cfg(test)]
mod tests;

/// Why it is asked which key the scheduler registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The scheduler was away and is back: it read its configuration anew.
    SchedulerCameBack,
    /// Nobody knows whether the scheduler was restarted, and it may run as before: the agent was restarted and found another key in the
    /// configuration than its predecessor had, or a connection to the scheduler ended.
    MayHaveRestarted,
    /// The surroundings don't say for certain which key the scheduler registers: the old one is only the likeliest.
    Doubt,
}

/// What is known by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Neither is proven: look again.
    Open,
    /// The scheduler registers the old key.
    Old,
    /// The scheduler registers the new key.
    New,
}

/// One key's row, as a look saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// Its state; `None` where it was not listed.
    state: Option<State>,
    /// Its `last_keep_alive_at`, where that is shown (REST of v2.3.1 and later).
    heard: Option<String>,
}

impl Seen {
    fn of(key: &SchedulerKey, rows: &[Row]) -> Self {
        let row = rows.iter().find(|row| row.is(key));
        Self { state: row.map(|row| row.state), heard: row.and_then(|row| row.last_keep_alive_at.clone()) }
    }

    fn is_active(&self) -> bool {
        self.state == Some(State::Active)
    }

    /// What later looks are compared with: where the first one showed no time, from the first that does.
    fn take_its_time(&mut self, later: &Self) {
        if self.heard.is_none() {
            self.heard.clone_from(&later.heard);
        }
    }

    /// Whether the scheduler itself wrote the row between two looks: its time moved, or it became active.
    fn was_written_since(&self, before: &Self) -> bool {
        let moved = self.heard.is_some() && before.heard.is_some() && self.heard != before.heard;
        let became_active = !before.is_active() && self.is_active();
        moved || became_active
    }
}

/// The question, from the scheduler's appearance to its answer.
#[derive(Debug, Clone)]
pub struct Registration {
    old: SchedulerKey,
    new: SchedulerKey,
    port: u16,
    cause: Cause,
    appeared: Moment,
    interval: Duration,
    /// Since when the manager answers.
    answers_since: Option<Moment>,
    /// The first look at the new key's row, and the first at the old one's that nothing of this agent's can have moved since.
    first: (Option<Seen>, Option<Seen>),
    old_is_inactive: bool,
    old_updated: Option<String>,
}

impl Registration {
    /// Whether the last look proves that the old key's row is inactive, and that nothing of this agent's will change that.
    pub fn old_is_inactive(&self) -> bool {
        self.old_is_inactive
    }

    /// When the old key's row was last written, as the last look shows it.
    pub fn old_updated(&self) -> Option<String> {
        self.old_updated.clone()
    }

    /// The key that the configuration names.
    pub fn named(&self) -> &SchedulerKey {
        &self.new
    }

    /// The scheduler, which registers the port `port`, appeared at `appeared`, sends a keep-alive every `interval`, and its configuration names `new`.
    pub fn new(
        old: SchedulerKey,
        new: SchedulerKey,
        port: u16,
        cause: Cause,
        appeared: Moment,
        interval: Duration,
    ) -> Self {
        Self {
            old,
            new,
            port,
            cause,
            appeared,
            interval,
            answers_since: None,
            first: (None, None),
            old_is_inactive: false,
            old_updated: None,
        }
    }

    /// A manager could not be asked: it may be away, for the scheduler too.
    pub fn not_listed(&mut self) {
        self.answers_since = None;
    }

    /// By when the first message of the scheduler's own stream has come: two intervals after it appeared; and where its manager was away
    /// then, it has to find out that the manager is back.
    fn own_message_by(&mut self, asked: Moment) -> Moment {
        let answers_since = *self.answers_since.get_or_insert(asked);
        let is_back = answers_since > self.appeared + self.interval;
        let by = self.appeared + self.interval * 2;
        if is_back { by.max(answers_since + IDENTITY_GRACE) } else { by }
    }

    /// The manager of the old key, and that of the new one, list these rows of the keys' addresses, asked for at `asked`; none where
    /// the old key's manager, another one, can't be asked. `quiet`: what is listed is later than any attempt of this agent's on the
    /// old key, which would look like the scheduler's own message.
    pub fn listed(
        &mut self,
        asked: Moment,
        (old, new): (Option<&[Row]>, &[Row]),
        freshness: Freshness,
        quiet: bool,
    ) -> Decision {
        let (is_known, old) = (old.is_some(), old.unwrap_or_default());
        let own_message_by = self.own_message_by(asked);
        let other_in_use = old.iter().any(|row| {
            let is_ours = row.is(&self.old) || row.is(&self.new);
            !is_ours && row.state == State::Active && row.port == i32::from(self.port)
        });
        self.old_updated = old.iter().find(|row| row.is(&self.old)).and_then(|row| row.updated_at.clone());
        let (old, new) = (Seen::of(&self.old, old), Seen::of(&self.new, new));
        self.old_is_inactive = quiet && freshness == Freshness::Fresh && old.state == Some(State::Inactive);
        let since_first = |first: &mut Option<Seen>, seen: &Seen| {
            let first = first.get_or_insert_with(|| seen.clone());
            first.take_its_time(seen);
            first.clone()
        };
        let new_before = since_first(&mut self.first.0, &new);
        let old_before = (quiet && is_known).then(|| since_first(&mut self.first.1, &old));
        if asked < self.appeared + freshness.age() {
            // A list may show what was before.
            return Decision::Open;
        }
        if new.was_written_since(&new_before) {
            return Decision::New;
        }
        if old_before.is_some_and(|before| old.was_written_since(&before)) {
            return Decision::Old;
        }
        // Each has had its first message by now, if it was to come.
        if asked < own_message_by + freshness.age() {
            return Decision::Open;
        }
        // The same row, or that of the same key elsewhere: both may be active.
        let is_moved = self.old == self.new && self.cause == Cause::SchedulerCameBack;
        // It may still run as before, beside a manager that is away: not for so long.
        let is_patient = !is_known && self.cause != Cause::SchedulerCameBack;
        if is_patient && asked < own_message_by + freshness.age() + IDENTITY_GRACE {
            return Decision::Open;
        }
        match self.cause {
            _ if new.is_active() && (is_moved || !old.is_active()) => Decision::New,
            _ if !is_known => Decision::Open,
            // One key at two managers, or at one of two names: where it was is where it goes on.
            Cause::MayHaveRestarted if self.old == self.new && old.is_active() => Decision::Old,
            // Nobody was seen to restart it, and no other row at its address is in use. Where times are shown, the old row's would have
            // moved by now.
            Cause::MayHaveRestarted if !new.is_active() && !other_in_use && old.heard.is_none() => {
                Decision::Old
            }
            Cause::Doubt if old.is_active() && !new.is_active() && !other_in_use => Decision::Old,
            Cause::SchedulerCameBack | Cause::MayHaveRestarted | Cause::Doubt => Decision::Open,
        }
    }
}
