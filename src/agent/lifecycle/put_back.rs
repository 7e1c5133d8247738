//! A scheduler that serves has a row.
//!
//! Upstream leaves a living scheduler whose row somebody deleted out of the table until it restarts, and a manager's own collection
//! does that to whoever was cut off for half an hour. The agent registers the row again, as it was last read; then that is inactive,
//! and given back like any other (see [`restore`](super::restore)). It never makes a row that was not there: only where the key was
//! seen in the manager, and a read that no cache can have answered, or the manager's `record not found`, says that it is gone.

use super::{
    super::moment::{Moment, Now},
    Effect, Lifecycle, Notice, Registration, Scheduler, SeenRow, Target,
};
use crate::{
    identity::Repair,
    manager::{Registered, RowState},
};

impl Lifecycle {
    /// The row is gone though its scheduler serves and is to have one: it is registered again, or said to be gone.
    pub(super) fn put_back_what_is_gone(&mut self, now: Now, out: &mut Vec<Effect>) {
        let gone = self.is_gone();
        if gone && !self.gone_said {
            let is_put_back = self.config.repair == Repair::On && self.registered.is_some();
            out.push(Effect::Notice(Notice::RowGone { is_put_back }));
        }
        self.gone_said = gone;
        if now.at < self.put_back.not_before {
            return;
        }
        if let Some(registered) = self.wants_put_back(now.at) {
            out.push(Effect::Register(self.with_its_interval(registered.clone())));
            self.put_back.under_way = Some(now.at);
        }
    }

    /// What the row is to be registered with now, if it is.
    pub(super) fn wants_put_back(&self, now: Moment) -> Option<&Registered> {
        let wanted = self.target(now) == Target::Active && self.config.repair == Repair::On;
        let can_be =
            wanted && self.is_gone() && self.put_back.under_way.is_none() && self.releasing.is_none();
        self.registered.as_ref().filter(|_| can_be)
    }

    /// Whether the row was there, and is not any more, for certain. A scheduler that is just back registers its row itself.
    pub(super) fn is_gone(&self) -> bool {
        let Scheduler::Serving(since) = self.scheduler else { return false };
        let by_then = (since + self.config.interval * 2).max(self.put_back.at.unwrap_or_default());
        let absent = self.row.filter(|row| row.state == RowState::Absent);
        self.listed && absent.is_some_and(|row| row.asked >= by_then)
    }

    /// The manager was told, or may have been: what the row is by then only a later read says.
    pub(super) fn learn_registered(&mut self, came: Registration, now: Now, out: &mut Vec<Effect>) {
        // One that was given up is not waited for any more.
        let Some(began) = self.put_back.under_way.take() else { return };
        self.put_back.not_before = now.at + self.config.interval;
        if came == Registration::Refused {
            return;
        }
        self.row = None;
        // One that was restarted meanwhile registers its row itself.
        let is_restarted = self.reappeared.is_some_and(|at| at > began);
        self.put_back.at = (!is_restarted).then_some(now.at);
        self.put_back.unsaid = came == Registration::Unknown;
        if came == Registration::Done {
            out.push(Effect::Notice(Notice::PutBack));
            self.read_by(self.provable_from(self.put_back_settled().max(now.at)));
        } else {
            self.read_by(self.provable_from(self.put_back.not_before));
        }
    }

    /// The manager says `record not found` of a key that it showed before: no cache says that.
    pub(super) fn learn_not_found(&mut self, now: Now) {
        if self.listed {
            let (state, freshness) = (RowState::Absent, self.freshness);
            self.row = Some(SeenRow { state, asked: now.at, freshness });
        }
    }

    /// By when the row is active again by itself, where the scheduler's own stream was broken: it reconnects each interval.
    pub(super) fn put_back_settled(&self) -> Moment {
        self.put_back.at.map_or_else(Moment::default, |at| at + self.reconnects_within())
    }

    /// A row without the interval is never collected by the manager.
    fn with_its_interval(&self, registered: Registered) -> Registered {
        if registered.config.is_empty() {
            let config = format!("{{\"manager_keep_alive_interval\":{}}}", self.config.interval.as_nanos());
            return Registered { config, ..registered };
        }
        registered
    }
}
