//! Writing what was judged, row by row. Each is looked at once more right before its write, and, where the source is fresh, once
//! after it: a row that came back is contested, and left alone.
//!
//! **What counts is what was begun.** An attempt that ended without an answer may still be applied, for a minute or so: no other is
//! begun then. All such rows are read once that is over: inactive, it was signed off; active and not written since, nothing was
//! applied; active otherwise, or where that can't be told, it is contested.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    judge::{Probed, Seen},
    memory::Begun,
    sighting::{Sighting, Stamp},
    sources::Source,
    survey::{Progress, Survey, probe_again},
};
use crate::{
    manager::{AttemptOptions, Failure, LIST_AGE, Outcome, Row, State, Withdraw, backoff::Backoff},
    net::{Found, Prober},
};

/// How many rows are written at a time.
const AT_ONCE: usize = 8;
/// How often one row's sign-off is tried, where it is known that nothing was applied.
const TRIES: u32 = 4;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const CAP: Duration = Duration::from_secs(2);
/// The longest an attempt may take: a manager without Redis takes 5 to 7 s.
const ATTEMPT: Duration = Duration::from_secs(30);
/// How long an attempt without an answer may still be applied.
const LINGER: Duration = Duration::from_secs(60);

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It is inactive: the manager acknowledged that, or a read after all attempts says so.
    SignedOff,
    /// It was inactive, or not there, when it was looked at once more.
    Gone,
    /// It shows life, seen right before the write: contested, and not written. In words.
    Lives(String),
    /// It was signed off, or may have been, and is active: contested. In words.
    CameBack(String),
    /// It could not be written. In words.
    Failed(String),
    /// An attempt ended without an answer, and it is not known yet whether it was applied. In words.
    Unanswered(String),
    /// It was taken out of the table.
    Withdrawn {
        /// Which managers give it to peers all the same, until their lists are old; and why one could not be asked. In words.
        still_given: Option<String>,
    },
    /// It could not be taken out. In words.
    NotWithdrawn(String),
}

/// What became of a row's sign-off, and the one that was begun, if it may have been applied.
pub(super) struct Became {
    pub(super) done: Done,
    pub(super) begun: Option<Begun>,
    /// The row was deleted, or may have been.
    pub(super) deleted: bool,
}

impl Became {
    fn untouched(done: Done) -> Self {
        Self { done, begun: None, deleted: false }
    }

    /// It ended; the row had been written before.
    fn ended(done: Done, written: Option<Stamp>) -> Self {
        Self { done, begun: Some(Begun { written, open_until: Instant::now() }), deleted: false }
    }
}

/// Who writes.
pub(super) struct Writer<'a> {
    pub(super) manager: Arc<dyn Withdraw>,
    pub(super) source: &'a dyn Source,
    pub(super) prober: &'a Prober,
    /// No write is begun after this.
    pub(super) until: Instant,
    pub(super) progress: &'a dyn Progress,
    /// The managers' addresses beside those of their endpoints, as Kubernetes' pods tell them.
    pub(super) managers: &'a [IpAddr],
}

impl Writer<'_> {
    /// Signs these rows off. Hands over what became of each as soon as that is known; of one without an answer twice.
    pub(super) async fn sign_off(
        &self,
        survey: &Survey,
        rows: &[usize],
        mut each: impl FnMut(usize, Became),
    ) {
        let mut written = stream::iter(rows)
            .map(|at| async move { (*at, self.sign_off_one(&survey.rows[*at]).await) })
            .buffer_unordered(AT_ONCE);
        let (mut done, mut unanswered) = (0, Vec::new());
        while let Some((at, became)) = written.next().await {
            done += 1;
            self.progress.written(done, rows.len());
            if let Became { done: Done::Unanswered(why), begun: Some(begun), .. } = &became {
                unanswered.push((at, why.clone(), *begun));
            }
            each(at, became);
        }
        if unanswered.is_empty() {
            return;
        }
        let age = if self.source.fresh() { Duration::ZERO } else { LIST_AGE };
        let closed = unanswered.iter().map(|(_, _, begun)| begun.open_until + age).max();
        let Some(closed) = closed.filter(|closed| *closed < self.until) else { return };
        tracing::info!(
            reconcile.unanswered = unanswered.len(),
            wait.seconds = (closed - Instant::now()).as_secs(),
            "Sign-offs ended without an answer: their rows are read once nothing can be applied any more."
        );
        sleep_until(closed).await;
        for (at, why, begun) in unanswered {
            each(at, self.read_unanswered(&survey.rows[at], why, begun).await);
        }
    }

    async fn sign_off_one(&self, row: &Seen) -> Became {
        let key = match row.now.key() {
            Ok(key) => key,
            Err(why) => {
                return Became::untouched(Done::Failed(format!(
                    "no KeepAlive finds it ({why}): delete row {} (DELETE /api/v1/schedulers/{} with a user who may)",
                    row.now.id, row.now.id
                )));
            }
        };
        let mut backoff = Backoff::new(FIRST_DELAY);
        let mut last = String::new();
        for attempt in 1..=TRIES {
            // Before each try: whatever kept the last one from succeeding may have brought its scheduler back.
            let again = match self.look_again(row).await {
                Ok(again) => again,
                Err(instead) => return Became::untouched(instead),
            };
            // After the look, which may have taken its time.
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last = or(&last, "not tried");
                return Became::untouched(Done::Failed(format!("out of time (--deadline): {last}")));
            }
            let options = AttemptOptions { hedge: false, limit: ATTEMPT.min(left) };
            let failure = match self.manager.sign_off(&key, options).await {
                Outcome::Confirmed => return Became::ended(self.look_after(row).await, again.updated),
                Outcome::Absent => return Became::untouched(Done::Gone),
                Outcome::Rejected(failure) => return Became::untouched(Done::Failed(failure.why)),
                Outcome::Unknown(failure) => {
                    let why = format!("no answer, and it may have been applied: {failure}");
                    let begun = Begun { written: again.updated, open_until: Instant::now() + LINGER };
                    return Became { done: Done::Unanswered(why), begun: Some(begun), deleted: false };
                }
                Outcome::Failed(failure) => failure,
            };
            let delay = backoff.next(CAP, fastrand::f64(), failure.floor, Some(left));
            last = failure.why;
            if attempt < TRIES {
                sleep(delay).await;
            }
        }
        Became::untouched(Done::Failed(last))
    }

    /// The row as it is right before the write; or what this, or a probe, says against it.
    async fn look_again(&self, row: &Seen) -> Result<Sighting, Done> {
        let again = match self.source.again(&row.now).await {
            Err(failure) => {
                return Err(Done::Failed(format!("it could not be looked at once more: {failure}")));
            }
            Ok(None) => return Err(Done::Gone),
            Ok(Some(again)) if again.state == State::Inactive => return Err(Done::Gone),
            Ok(Some(again)) => again,
        };
        if let Some(life) = sign_of_life(&row.now, &again) {
            return Err(Done::Lives(life.to_owned()));
        }
        match self.probe_again(&row.now, row.probe).await {
            None => Ok(again),
            Some(Against::Life(why)) => Err(Done::Lives(why)),
            Some(Against::Unclear(why)) => Err(Done::Failed(why)),
        }
    }

    /// What a last probe says against a write; nothing where the address is another's, where a probe tells nothing, or where there
    /// is no address.
    async fn probe_again(&self, row: &Sighting, before: Probed) -> Option<Against> {
        if before == Probed::Answers {
            return None;
        }
        match probe_again(self.prober, row).await? {
            Found::Scheduler => Some(Against::Life("it answers at its address now".to_owned())),
            // It was judged without a word of a probe, or by another than this.
            Found::Proxy(why) | Found::Something { why, .. } | Found::CantLook(why)
                if before == Probed::Silent =>
            {
                Some(Against::Unclear(why))
            }
            Found::Proxy(_) | Found::Something { .. } | Found::CantLook(_) | Found::Nobody(_) => None,
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

    /// What became of a row whose sign-off had no answer, now that nothing of it can be applied any more.
    async fn read_unanswered(&self, row: &Seen, why: String, begun: Begun) -> Became {
        let done = match self.source.again(&row.now).await {
            Ok(None) => Done::SignedOff,
            Ok(Some(again)) if again.state == State::Inactive => Done::SignedOff,
            Ok(Some(again)) => {
                let untouched =
                    begun.written.zip(again.updated).is_some_and(|(before, now)| !now.moved_since(before));
                if untouched {
                    return Became::untouched(Done::Failed(format!("{why}; it was not applied")));
                }
                Done::CameBack(
                    "its sign-off had no answer and may have been applied, and it is active".to_owned(),
                )
            }
            Err(failure) => Done::Unanswered(format!("{why}; and the row can't be read: {failure}")),
        };
        Became { done, begun: Some(begun), deleted: false }
    }

    /// Takes these rows out of the table, one after the other. Hands over what became of each as soon as that is known.
    pub(super) async fn withdraw(
        &self,
        survey: &Survey,
        rows: &[usize],
        mut each: impl FnMut(usize, Became),
    ) {
        for (done, at) in rows.iter().enumerate() {
            let became = self.withdraw_one(&survey.rows[*at]).await;
            self.progress.written(done + 1, rows.len());
            each(*at, became);
        }
    }

    async fn withdraw_one(&self, Seen { now: row, probe, pod, .. }: &Seen) -> Became {
        // The managers of every Dragonfly of the namespace may be among them. None of them hears of a pod that is gone.
        let others = if pod.is_gone() { self.managers } else { &[] };
        let before = match self.may_go(row, *probe).await {
            Ok(before) => before,
            Err(instead) => return Became::untouched(instead),
        };
        let (mut begun, mut missed) = (None, None);
        // A row that no KeepAlive finds goes all the same, and is looked for afterwards.
        if let Ok(key) = row.key() {
            let left = self.until.saturating_duration_since(Instant::now());
            let said = match self.manager.sign_off_everywhere(&key, others, ATTEMPT.min(left)).await {
                Ok(said) => said,
                Err(failure) => return Became::untouched(not_signed_off(&failure.why)),
            };
            begun = was_begun(&said, before.updated);
            missed = match what_was_missed(said) {
                Ok(missed) => missed,
                Err(done) => return Became { done, begun, deleted: false },
            };
        }
        match self.delete(row, others, missed).await {
            Ok(done) => Became { done, begun, deleted: true },
            Err(done) => Became { done, begun, deleted: false },
        }
    }

    /// The row as it is right before it goes; or what this, or a probe, says against it.
    async fn may_go(&self, row: &Sighting, probe: Probed) -> Result<Sighting, Done> {
        self.in_time()?;
        // The probe may take its time: what is read of the row is younger.
        match self.probe_again(row, probe).await {
            Some(Against::Life(why)) => return Err(Done::Lives(why)),
            Some(Against::Unclear(why)) => return Err(Done::NotWithdrawn(why)),
            None => {}
        }
        let (before, _) = self.is_as_judged(row).await?;
        self.in_time()?;
        Ok(before)
    }

    /// Right after its sign-off: a peer that asks in between has a list with the row made anew. Nothing here asks for one before
    /// the end. An error, where it was not deleted.
    async fn delete(&self, row: &Sighting, others: &[IpAddr], missed: Option<String>) -> Result<Done, Done> {
        let (_, whole) = self.is_as_judged(row).await?;
        self.in_time()?;
        tracing::info!(row.id = row.id, row.json = whole, "Deleting a row; this is all of it.");
        if let Err(failure) = self.manager.delete(row.id).await {
            // Its answer may have been lost.
            match self.whole(row).await {
                Ok(None) => {}
                Ok(Some(_)) => return Err(Done::NotWithdrawn(failure.why)),
                Err(unread) => {
                    let why = format!("{failure}; and whether it is gone is not known: {unread}");
                    return Ok(Done::NotWithdrawn(why));
                }
            }
        }
        let given = self.still_given(row, others).await;
        // Seen on v2.2.0: what this process is given tells nothing of what a peer is.
        let by_caller = row.keep_alive.is_none().then(|| {
            "a manager before v2.3.4 keeps a list for each peer that asked, so those may be given it for up to 8 min"
                .to_owned()
        });
        let still_given = [missed, given, by_caller].into_iter().flatten().collect::<Vec<_>>().join("; ");
        Ok(Done::Withdrawn { still_given: Some(still_given).filter(|words| !words.is_empty()) })
    }

    fn in_time(&self) -> Result<(), Done> {
        match Instant::now() < self.until {
            true => Ok(()),
            false => Err(Done::NotWithdrawn("out of time (--deadline)".to_owned())),
        }
    }

    async fn whole(&self, row: &Sighting) -> Result<Option<(Row, String)>, Failure> {
        self.manager.whole(row.id, (row.cluster_id, &*row.hostname, row.ip)).await
    }

    /// The row as it is in the database now, and whole. An error, if it isn't as it was judged, or active.
    async fn is_as_judged(&self, row: &Sighting) -> Result<(Sighting, String), Done> {
        let unseen = |failure| Done::NotWithdrawn(format!("it could not be looked at once more: {failure}"));
        let Some((now, whole)) = self.whole(row).await.map_err(unseen)? else {
            return Err(Done::Gone);
        };
        let now = Sighting::from(&now);
        if let Some(life) = sign_of_life(row, &now) {
            return Err(Done::Lives(life.to_owned()));
        }
        // Where neither shows one, it was allowed to go without.
        let shown = |row: &Sighting| row.keep_alive.is_some();
        if (shown(row) || shown(&now)) && now.times().heard_since(row.times()) != Some(false) {
            return Err(Done::NotWithdrawn("whether it was heard of meanwhile is not shown".to_owned()));
        }
        if now.state == State::Active {
            return Err(Done::Lives("it is active now".to_owned()));
        }
        Ok((now, whole))
    }

    /// Which managers give the row to peers that name its cluster, though it is gone.
    async fn still_given(&self, row: &Sighting, others: &[IpAddr]) -> Option<String> {
        let cluster = row.cluster_id.try_into().ok()?;
        let asked = match self.manager.given(cluster, others).await {
            Ok(asked) => asked,
            Err(failure) => return Some(format!("what peers are given could not be looked at: {failure}")),
        };
        let words = asked.into_iter().filter_map(|(at, rows)| match rows {
            Ok(rows) => rows.iter().any(|given| is_it(given, row)).then(|| {
                format!("{at} still gives it to peers: its list was made before, and is kept for up to 8 min")
            }),
            Err(failure) => Some(format!("what {at} gives to peers could not be looked at: {failure}")),
        });
        Some(words.collect::<Vec<_>>().join("; ")).filter(|words| !words.is_empty())
    }
}

/// By its key as well: an id is one database's.
fn is_it(given: &Row, row: &Sighting) -> bool {
    let given = Sighting::from(given);
    (given.id, &given.hostname, given.ip) == (row.id, &row.hostname, row.ip)
}

fn not_signed_off(why: &str) -> Done {
    Done::NotWithdrawn(format!("it could not be signed off before: {why}"))
}

/// The sign-off that was begun, if it was applied anywhere, or may still be. The row had been written before.
fn was_begun(said: &[(String, Outcome)], written: Option<Stamp>) -> Option<Begun> {
    let any = |wanted: fn(&Outcome) -> bool| said.iter().any(|(_, outcome)| wanted(outcome));
    let may_follow = any(|outcome| matches!(outcome, Outcome::Unknown(_)));
    let is_begun = may_follow || any(|outcome| matches!(outcome, Outcome::Confirmed));
    let open_until = Instant::now() + if may_follow { LINGER } else { Duration::ZERO };
    is_begun.then_some(Begun { written, open_until })
}

/// What to say of those managers that could not be told. An error, if none was.
fn what_was_missed(said: Vec<(String, Outcome)>) -> Result<Option<String>, Done> {
    let missed = |(at, outcome): &(String, Outcome)| {
        outcome.failure().map(|failure| format!("{at} may serve an old list for 3 min: {failure}"))
    };
    let missed: Vec<String> = said.iter().filter_map(missed).collect();
    if said.iter().any(|(_, outcome)| matches!(outcome, Outcome::Confirmed)) {
        Ok(Some(missed.join("; ")).filter(|words| !words.is_empty()))
    } else if missed.is_empty() {
        Err(Done::Gone)
    } else {
        Err(not_signed_off(&missed.join("; ")))
    }
}

/// What a probe right before a write found against it.
enum Against {
    Life(String),
    Unclear(String),
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

/// What says that a row's scheduler lives, between two looks.
fn sign_of_life(before: &Sighting, now: &Sighting) -> Option<&'static str> {
    if now.times().heard_since(before.times()) == Some(true) {
        return Some("the manager hears of it now");
    }
    if now.state == State::Active && now.times().written_since(before.times()) == Some(true) {
        return Some("it was written a moment ago: its scheduler may just have come back to the manager");
    }
    let identity = |row: &Sighting| (row.ip, row.port, row.cluster_id);
    (identity(before) != identity(now)).then_some("it registered anew")
}
