//! Writing what was judged, row by row. Each is looked at once more right before its write, and, where the source is fresh, once
//! after it: a row that came back is contested, and left alone.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use super::{
    judge::{Probed, Seen},
    sighting::Sighting,
    sources::Source,
    survey::{Progress, Survey, probe_again},
};
use crate::{
    manager::{AttemptOptions, Manager, Outcome, State, backoff::Backoff},
    net::Probe,
};

/// How many rows are written at a time.
const AT_ONCE: usize = 8;
/// How often one row's sign-off is tried.
const TRIES: u32 = 4;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const CAP: Duration = Duration::from_secs(2);
/// The longest an attempt may take: a manager without Redis takes 5 to 7 s.
const ATTEMPT: Duration = Duration::from_secs(30);

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// The manager acknowledged that it is inactive.
    SignedOff,
    /// It was inactive, or not there, when it was looked at once more.
    Gone,
    /// It shows life, seen right before the write: contested, and not written. In words.
    Lives(String),
    /// It was signed off, and is active again: contested. In words.
    CameBack(String),
    /// It could not be written. In words.
    Failed(String),
    /// It was deleted.
    Deleted,
    /// It could not be deleted. In words.
    NotDeleted(String),
}

/// Who writes.
pub(super) struct Writer<'a> {
    pub(super) manager: Arc<dyn Manager>,
    pub(super) source: &'a dyn Source,
    /// No write is begun after this.
    pub(super) until: Instant,
    pub(super) progress: &'a dyn Progress,
}

impl Writer<'_> {
    /// Signs these rows off. Hands over what became of each as soon as that is known.
    pub(super) async fn sign_off(&self, survey: &Survey, rows: &[usize], mut each: impl FnMut(usize, Done)) {
        let mut written = stream::iter(rows)
            .map(|at| async move { (*at, self.sign_off_one(&survey.rows[*at]).await) })
            .buffer_unordered(AT_ONCE);
        let mut done = 0;
        while let Some((at, became)) = written.next().await {
            done += 1;
            self.progress.written(done, rows.len());
            each(at, became);
        }
    }

    async fn sign_off_one(&self, row: &Seen) -> Done {
        let key = match row.now.key() {
            Ok(key) => key,
            Err(why) => {
                return Done::Failed(format!(
                    "no KeepAlive finds it ({why}): delete row {} (DELETE /api/v1/schedulers/{} with a user who may)",
                    row.now.id, row.now.id
                ));
            }
        };
        let mut backoff = Backoff::new(FIRST_DELAY);
        let mut last = String::new();
        for attempt in 1..=TRIES {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Done::Failed(format!("out of time (--deadline): {}", or(&last, "not tried")));
            }
            // Before each try: whatever kept the last one from succeeding may have brought its scheduler back.
            if let Some(instead) = self.look_again(row).await {
                return instead;
            }
            let options = AttemptOptions { hedge: false, limit: ATTEMPT.min(left) };
            let failure = match self.manager.sign_off(&key, options).await {
                Outcome::Confirmed => return self.look_after(row).await,
                Outcome::Absent => return Done::Gone,
                Outcome::Rejected(failure) => return Done::Failed(failure.why),
                Outcome::Failed(failure) | Outcome::Unknown(failure) => failure,
            };
            let delay = backoff.next(CAP, fastrand::f64(), failure.floor, Some(left));
            last = failure.why;
            if attempt < TRIES {
                sleep(delay).await;
            }
        }
        Done::Failed(last)
    }

    /// What a last look, and a last probe, before the write say against it.
    async fn look_again(&self, row: &Seen) -> Option<Done> {
        match self.source.again(&row.now).await {
            Err(failure) => {
                return Some(Done::Failed(format!("it could not be looked at once more: {failure}")));
            }
            Ok(None) => return Some(Done::Gone),
            Ok(Some(again)) if again.state == State::Inactive => return Some(Done::Gone),
            Ok(Some(again)) => {
                if let Some(life) = sign_of_life(&row.now, &again) {
                    return Some(Done::Lives(life.to_owned()));
                }
            }
        }
        self.probe_again(row).await.map(|found| match found {
            Found::Life(why) => Done::Lives(why),
            Found::Unclear(why) => Done::Failed(why),
        })
    }

    /// What a last probe says against a write; nothing where the address is another's, or there is none.
    async fn probe_again(&self, row: &Seen) -> Option<Found> {
        if row.probe == Probed::Answers {
            return None;
        }
        match probe_again(&row.now).await {
            Some(Probe::Answers) => Some(Found::Life("it answers at its address now".to_owned())),
            Some(Probe::Unclear(why)) => Some(Found::Unclear(why)),
            Some(Probe::Silent(_)) | None => None,
        }
    }

    /// What the row is after the acknowledgement. A look that fails takes nothing back.
    async fn look_after(&self, row: &Seen) -> Done {
        if !self.source.fresh() {
            return Done::SignedOff;
        }
        match self.source.again(&row.now).await {
            Ok(Some(again)) if again.state == State::Active => {
                Done::CameBack("it was signed off, and is active again".to_owned())
            }
            Ok(_) => Done::SignedOff,
            Err(failure) => {
                tracing::debug!(row.id = row.now.id, reason = %failure, "A row was not looked at after its sign-off.");
                Done::SignedOff
            }
        }
    }

    /// Deletes these rows through REST, one after the other.
    pub(super) async fn delete(&self, survey: &Survey, rows: &[usize], mut each: impl FnMut(usize, Done)) {
        for (done, at) in rows.iter().enumerate() {
            let row = &survey.rows[*at];
            let became = if Instant::now() >= self.until {
                Done::NotDeleted("out of time (--deadline)".to_owned())
            } else {
                self.delete_one(row).await
            };
            self.progress.written(done + 1, rows.len());
            each(*at, became);
        }
    }

    async fn delete_one(&self, row: &Seen) -> Done {
        match self.source.again(&row.now).await {
            Err(failure) => {
                return Done::NotDeleted(format!("it could not be looked at once more: {failure}"));
            }
            Ok(None) => return Done::Gone,
            Ok(Some(again)) if again.state == State::Active => {
                return Done::Lives("it is active now".to_owned());
            }
            Ok(Some(again)) => {
                if let Some(life) = sign_of_life(&row.now, &again) {
                    return Done::Lives(life.to_owned());
                }
            }
        }
        match self.probe_again(row).await {
            Some(Found::Life(why)) => return Done::Lives(why),
            Some(Found::Unclear(why)) => return Done::NotDeleted(why),
            None => {}
        }
        match self.manager.delete(row.now.id).await {
            Ok(()) => Done::Deleted,
            Err(failure) => Done::NotDeleted(failure.why),
        }
    }
}

/// What a probe right before a write found against it.
enum Found {
    Life(String),
    Unclear(String),
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

/// What says that a row's scheduler lives, between two looks.
fn sign_of_life(before: &Sighting, now: &Sighting) -> Option<&'static str> {
    let times = before.keep_alive.zip(now.keep_alive);
    if times.is_some_and(|(before, now)| now.moved_since(before)) {
        return Some("the manager hears of it now");
    }
    let written = before.updated.zip(now.updated);
    if now.state == State::Active && written.is_some_and(|(before, now)| now.moved_since(before)) {
        return Some("it was written a moment ago: its scheduler may just have come back to the manager");
    }
    let identity = |row: &Sighting| (row.ip, row.port, row.cluster_id);
    (identity(before) != identity(now)).then_some("it registered anew")
}
