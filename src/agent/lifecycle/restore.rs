//! A scheduler that serves has an active row.
//!
//! The scheduler sets its row active itself, by the first message of its own stream, one keep-alive interval after it started. So
//! that message is waited for whenever the scheduler was seen to come back. The agent gives the row back by a stream of its own, a
//! *hold*, only where no such message will come: the row is inactive by a read that was begun after it was due. A hold is the last
//! resort: the end of either of two streams makes the row inactive, so that a hold which is not needed turns each crash of the agent
//! into an outage of its scheduler. Where the scheduler was never away and this agent was the cause, nothing is waited for.

use std::time::Duration;

use super::{
    super::{
        attempts::{ATTEMPT_LIMIT, LINGER},
        moment::{Moment, Now},
    },
    Effect, Hold, HoldReason, Lifecycle, Notice, Scheduler, Target, Verdict,
};
use crate::{
    identity::Repair,
    manager::{Freshness, LIST_AGE, RowState},
    spool::record::{RecordId, What},
};

/// An open hold that no read has seen active is renewed only after this: its first message may be slow.
const RENEW_AFTER: Duration = Duration::from_secs(30);

impl Lifecycle {
    pub(super) fn make_active(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.pending.is_empty() {
            let asks: Vec<RecordId> = self.pending.iter().map(|pending| pending.record.id.clone()).collect();
            out.push(Effect::Settle { asks: asks.clone(), mark: true });
            self.is_ours();
            self.attempts.forget_watch();
            self.finish(&asks, Verdict::Superseded, now, out);
        }
        self.put_back_what_is_gone(now, out);
        match self.hold {
            Hold::Opening { .. } => {}
            Hold::None => {
                if let Some(why) = self.wants_hold(now.at) {
                    if now.at >= self.hold_not_before {
                        self.open_hold(why, now, out);
                    }
                } else if self.ours
                    && self.freshness == Freshness::Fresh
                    && self.row_since(self.own_message_by().max(self.last_change())).is_none()
                {
                    // One under way may say it; if it can't, the next follows its end.
                    if !self.reading {
                        let itself = self.own_message_by().max(self.put_back_settled());
                        self.read_by(self.read_not_before.max(itself).max(now.at));
                    }
                } else {
                    self.say_what_would_be_restored(out);
                }
            }
            Hold::Open { since, seen_active, .. } => {
                // To renew a hold, close it first and wait for its end: the end of either of two streams ends the row.
                let again = self.renewable() || self.may_renew_unlisted(since);
                if self.row_wrong_since(since) && again && (seen_active || now.at >= since + RENEW_AFTER) {
                    let id = self.attempts.begin(Vec::new(), now.at);
                    self.hold = Hold::None;
                    self.releasing = Some(id);
                    let unlisted = !self.renewable();
                    self.is_ours();
                    self.renewed_unlisted = unlisted;
                    out.push(Effect::Release { id, limit: ATTEMPT_LIMIT });
                }
            }
        }
    }

    /// Why the row is to be held active now, if it is.
    pub(super) fn wants_hold(&self, now: Moment) -> Option<HoldReason> {
        let Scheduler::Serving(since) = self.scheduler else { return None };
        if self.target(now) != Target::Active || self.releasing.is_some() {
            return None;
        }
        // An attempt of our own that still runs may end the row under the hold, and over gRPC alone that is seen late.
        if self.freshness == Freshness::Within30s && self.attempts.under_way() {
            return None;
        }
        let why = |otherwise| if self.put_back.at.is_some() { HoldReason::Deleted } else { otherwise };
        if self.ours {
            return self.is_inactive_by_us().then(|| why(HoldReason::OwnSignOff));
        }
        let repair = self.config.repair == Repair::On && self.row_wrong_for_others(since);
        repair.then(|| why(HoldReason::OthersSignOff))
    }

    /// Whether the row, which we may have made inactive, is so still, and no message of the scheduler's own will change that.
    fn is_inactive_by_us(&self) -> bool {
        match (self.freshness, self.reappeared) {
            // A read tells at once: the row may be right already.
            (Freshness::Fresh, _) => {
                let since = self.own_message_by().max(self.last_change());
                self.row_since(since).is_some_and(|row| !matches!(row, RowState::Active | RowState::Absent))
            }
            (Freshness::Within30s, _) if self.is_gone() => false,
            (Freshness::Within30s, _) if self.put_back.at.is_some() => {
                self.row_wrong_since(Moment::default())
            }
            (Freshness::Within30s, Some(_)) => self.row_wrong_since(self.own_message_by()),
            // It was never away: no message of its own will come, and a list would tell half a minute late.
            (Freshness::Within30s, None) => {
                !self.row.is_some_and(|row| row.state == RowState::Active && self.proves(row.asked))
            }
        }
    }

    /// By when the first message of the scheduler's own stream has come, where the scheduler was seen to come back.
    fn own_message_by(&self) -> Moment {
        self.reappeared.map_or_else(Moment::default, |at| at + self.config.interval * 2)
    }

    fn row_wrong_for_others(&self, since: Moment) -> bool {
        self.listed && self.row_wrong_since(since + self.config.interval * 2)
    }

    /// The row as read since then.
    fn row_since(&self, since: Moment) -> Option<RowState> {
        self.row.filter(|row| row.asked >= since).map(|row| row.state)
    }

    fn last_change(&self) -> Moment {
        let Scheduler::Serving(since) = self.scheduler else { return Moment::default() };
        since.max(self.attempts.last_ended().unwrap_or_default()).max(self.put_back_settled())
    }

    fn proves(&self, asked: Moment) -> bool {
        asked >= self.provable_from(self.last_change())
    }

    fn row_wrong_since(&self, since: Moment) -> bool {
        self.row.is_some_and(|row| {
            matches!(row.state, RowState::Inactive | RowState::NotActive)
                && row.asked >= self.provable_from(since)
                && self.proves(row.asked)
        })
    }

    /// Whether that read may lead to a renewal, which makes the row inactive for a moment. gRPC's list has only the rows with the
    /// `schedule` feature: one that was never in it may be active all the same, and a renewal would end what is right. Where we
    /// made it inactive ourselves, that is the likelier cause.
    fn renewable(&self) -> bool {
        self.listed_active
            || (self.ours && !self.renewed_unlisted)
            || self.row.is_some_and(|row| row.state == RowState::Inactive)
    }

    /// The row is inactive by our doing, or may be.
    pub(super) fn is_ours(&mut self) {
        self.ours = true;
        self.renewed_unlisted = false;
    }

    /// A row that was never listed is renewed once all the same, for some milliseconds: an attempt that no record tells of any more (the disk
    /// refused, and the agent was killed) may have ended it under the hold. None is applied any more once this read was made.
    fn may_renew_unlisted(&self, since: Moment) -> bool {
        let closed = since + LINGER + LIST_AGE;
        !self.renewed_unlisted && self.row.is_some_and(|row| row.asked >= closed)
    }

    fn open_hold(&mut self, why: HoldReason, now: Now, out: &mut Vec<Effect>) {
        out.push(Effect::Mark(self.record(What::Held, now)));
        if !self.restoring {
            self.restoring = true;
            out.push(Effect::Notice(Notice::Restoring));
        }
        self.hold = Hold::Opening { why };
        out.push(Effect::Hold);
    }

    fn say_what_would_be_restored(&mut self, out: &mut Vec<Effect>) {
        let Scheduler::Serving(since) = self.scheduler else { return };
        let wrong = !self.ours && self.config.repair == Repair::Report && self.row_wrong_for_others(since);
        if wrong && !self.would_restore_said {
            out.push(Effect::Notice(Notice::WouldRestore));
        }
        self.would_restore_said = wrong;
    }

    /// A read that proves it saw the row active, as it should be.
    pub(super) fn row_is_right(&mut self, out: &mut Vec<Effect>) {
        self.put_back.at = None;
        if self.restoring {
            self.restoring = false;
            out.push(Effect::Notice(Notice::Restored));
        }
        if self.ours {
            self.ours = false;
            out.push(Effect::DropMarks { signed_off: true });
            if self.hold == Hold::None {
                out.push(Effect::DropMarks { signed_off: false });
            }
        }
    }

    pub(super) fn hold_delay(&self) -> Duration {
        // 200 ms, doubling to one interval.
        let doubled = Duration::from_millis(200) * 2u32.pow(self.hold_failures.min(8).saturating_sub(1));
        doubled.min(self.config.interval)
    }
}
