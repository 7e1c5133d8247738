//! A predecessor's sign-off is made at most once, and what counts is what was *begun*.
//!
//! An attempt whose outcome is unknown may have been the one, also where it was an earlier process's: an ask that was found in the
//! spool counts as begun. So it isn't repeated: all that may still be applied is waited out, and the row is read. Inactive, it is
//! settled. Active and not written since the ask was made (`updated_at`, over REST), nothing was applied, and an attempt may be made. Active
//! otherwise, or where that can't be told, it is contested: whoever has that row took it back, or may have.
//!
//! A predecessor was judged before its sign-off was asked. Where a connection tells nothing since, its row does: what is not written
//! is not heard of, either.

use std::time::Duration;

use tracing::warn;

use super::{
    super::{
        attempts::ATTEMPT_LIMIT,
        hearing::Heard,
        lifecycle::{IDENTITY_GRACE, Verdict},
        look::Look,
        shell::{READ_LIMIT, within},
    },
    AGAIN, Job, Origin, Replay,
};
use crate::{
    manager::{
        Filter, Freshness, LIST_AGE, RowRead, RowState, State,
        times::{INTERVALS_APART, Stamp, USUAL_INTERVAL},
    },
    spool::record::Record,
};

/// How soon the cluster is listed again for a look, where its lists show no times.
const UNTOLD_FOR: Duration = Duration::from_secs(60);

/// What is to be done instead of an attempt, if anything.
pub(super) enum Before {
    /// The attempt.
    Go,
    /// It is settled so.
    Settled(Verdict),
    /// Nothing yet: to be looked at again.
    Wait,
}

impl Job {
    /// Its scheduler registers another key by now, and nobody could say then when this row was written.
    pub(super) fn was_left_behind(&self) -> bool {
        let is_undated = |ask: &Record| ask.address.is_none() && ask.row_updated.is_none();
        self.origin == Origin::Own && self.once() && self.asks.iter().all(is_undated)
    }

    /// Whether the row was written since each of the asks was made; none where that isn't known.
    fn was_written(&self, read: &RowRead) -> Option<bool> {
        let since = |ask: &Record| {
            let before = ask.row_updated.as_deref().map(Stamp::of);
            before.zip(read.updated).map(|(before, now)| now.moved_since(before))
        };
        let written: Option<Vec<bool>> = self.asks.iter().map(since).collect();
        Some(written?.contains(&true))
    }
}

impl Replay {
    /// An attempt at a predecessor may have been applied. Waits until none can be any more, reads the row, and answers what is
    /// settled by that; none if nothing was applied.
    pub(super) async fn after_an_attempt(
        &self,
        job: &mut Job,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Option<Verdict> {
        loop {
            let closed = job.attempts.closed_at().unwrap_or_default();
            let from = closed + self.manager.freshness().age();
            let left = (from - self.clock.now().at).as_secs();
            progress(&format!("an attempt may have been applied; its row is read in {left} s"));
            self.pause(job, from).await;
            let turn = tokio::select! {
                biased;
                turn = self.reads.acquire() => turn.ok(),
                () = self.pause(job, self.clock.now().at + ATTEMPT_LIMIT) => continue,
            };
            let asked = self.clock.now().at;
            if job.until.is_some_and(|until| asked >= until) {
                return Some(Verdict::Queued);
            }
            let read = within(READ_LIMIT, self.manager.read_row(&job.key)).await;
            drop(turn);
            let read = match read {
                Ok(read) if read.freshness == Freshness::Within30s && asked < closed + LIST_AGE => continue,
                Ok(read) => read,
                Err(failure) => {
                    progress(&failure.why);
                    if job.origin.gives_up() {
                        return Some(Verdict::Queued);
                    }
                    self.pause(job, asked + AGAIN).await;
                    continue;
                }
            };
            let verdict = match read.state {
                // It never showed such a row, or it isn't known to be the one: what it says to an attempt counts.
                RowState::Absent | RowState::NotActive if !job.listed => return None,
                RowState::Inactive | RowState::NotActive if job.origin.is_stranger() => return None,
                RowState::Inactive | RowState::NotActive => Verdict::Confirmed,
                RowState::Absent => Verdict::Absent,
                RowState::Active if job.was_written(&read) == Some(false) => return None,
                RowState::Active => return Some(self.contested(job).await),
            };
            return Some(self.forget(job, verdict).await);
        }
    }

    /// Right before an attempt at a predecessor: what its row is now may settle it. Read over REST alone: a list over gRPC may be
    /// older than what it was looked for. One that was asked without times, while REST was away, is watched first.
    pub(super) async fn before_an_attempt(&self, job: &mut Job) -> Before {
        let without_times = if job.by_its_times { Before::Wait } else { Before::Go };
        let Ok(read) = within(READ_LIMIT, self.manager.read_row(&job.key)).await else {
            return without_times;
        };
        match (read.state, job.was_written(&read)) {
            _ if read.freshness != Freshness::Fresh => without_times,
            (RowState::Inactive, _) if job.origin.is_stranger() => Before::Go,
            (RowState::Inactive, _) => Before::Settled(self.forget(job, Verdict::Confirmed).await),
            (RowState::Active, Some(true)) => Before::Settled(self.contested(job).await),
            (RowState::Active, None) if job.by_its_times => Before::Wait,
            (RowState::Active, None) if read.updated.is_some() => {
                match self.hear(job, "it was asked while no times were shown".to_owned()).await {
                    Look::Lives => Before::Settled(self.contested(job).await),
                    Look::Unclear(_) if job.untold_until.is_none() => Before::Wait,
                    Look::Unclear(_) | Look::Silent(_) | Look::Reused(_) => Before::Go,
                }
            }
            (RowState::Active | RowState::Absent | RowState::NotActive, _) => Before::Go,
        }
    }

    /// Finds out when the row was written last, and waits: whoever still had it would write it meanwhile. Where no times are shown
    /// nothing is waited for.
    pub(super) async fn date(&self, job: &mut Job, progress: &(dyn Fn(&str) + Send + Sync)) {
        loop {
            let asked = self.clock.now().at;
            if job.until.is_some_and(|until| asked >= until) {
                return;
            }
            match within(READ_LIMIT, self.manager.list(&Filter::Ip(job.key.ip.get()))).await {
                Ok(listed) => {
                    let row = listed.rows.into_iter().find(|row| row.is(&job.key));
                    let Some((row, updated)) = row.and_then(|row| Some((row.clone(), row.updated_at?)))
                    else {
                        return;
                    };
                    job.asks.iter_mut().for_each(|ask| ask.row_updated = Some(updated.clone()));
                    let interval = row.keep_alive_interval.unwrap_or(USUAL_INTERVAL);
                    return self.pause(job, asked + (interval * INTERVALS_APART).max(IDENTITY_GRACE)).await;
                }
                Err(failure) => {
                    progress(&failure.why);
                    self.pause(job, asked + AGAIN).await;
                }
            }
        }
    }

    async fn contested(&self, job: &Job) -> Verdict {
        warn!(
            scheduler.key = %job.key,
            "A predecessor's row is active, and was written since its sign-off was asked, or may have been: nothing more is written."
        );
        self.forget(job, Verdict::Contested).await
    }

    /// What a connection can't tell of a key the manager may: it is silent if nothing is heard of it for three of its intervals,
    /// while others of its cluster are heard of. `why` says what is not clear.
    pub(super) async fn hear(&self, job: &mut Job, why: String) -> Look {
        let asked = self.clock.now().at;
        if job.untold_until.is_some_and(|until| asked < until) {
            return Look::Unclear(why);
        }
        let cluster = Filter::Cluster(job.key.cluster_id);
        let listed = match within(READ_LIMIT, self.manager.list(&cluster)).await {
            Ok(listed) => listed,
            Err(failure) => return Look::Unclear(format!("{why}; {failure}")),
        };
        if listed.freshness != Freshness::Fresh {
            return self.untold(job, why);
        }
        let Some(row) = listed.rows.iter().find(|row| row.is(&job.key)) else {
            return Look::Silent(format!("{why}; the manager has no such row"));
        };
        if row.state == State::Inactive {
            return Look::Silent(format!("{why}; its row is inactive"));
        }
        // Where keep-alives are shown, each writes its row.
        if job.once()
            && row.last_keep_alive_at.is_some()
            && job.asks.iter().all(|ask| ask.row_updated.is_some())
        {
            job.by_its_times = true;
            return Look::Silent(format!("{why}; but its row was not written since it was judged"));
        }
        let interval = row.keep_alive_interval.unwrap_or(USUAL_INTERVAL);
        let witnesses = listed.rows.iter().filter(|row| row.state == State::Active);
        match job.hearing.listed((asked, self.clock.now().at), row, witnesses) {
            Heard::Moved => Look::Lives,
            Heard::Silent(time) if time >= interval * INTERVALS_APART => Look::Silent(format!(
                "{why}; but the manager heard nothing of it for {} s, while it heard of others",
                time.as_secs()
            )),
            Heard::Silent(_) | Heard::Unproven => Look::Unclear(why),
            Heard::Untold => self.untold(job, why),
        }
    }

    fn untold(&self, job: &mut Job, why: String) -> Look {
        job.untold_until = Some(self.clock.now().at + UNTOLD_FOR);
        Look::Unclear(format!(
            "{why}; and no keep-alive times are shown that could tell (REST of a manager from v2.3.1 on)"
        ))
    }
}
