//! Asks for keys other than the agent's own, left on this spool or made for a predecessor: looked at, then signed off, then
//! forgotten.
//!
//! The key is looked at before each attempt: if something answers at its ip:port and no other row has that ip:port, it lives
//! and the ask is superseded; if another row has it, the address was reused and the sign-off goes on. Where a connection tells
//! nothing, the keep-alive times do, if the manager shows them. An ask for a predecessor alone is tried at most once: see
//! [`once`]. One that was dropped by hand meanwhile is not signed off.
//!
//! `record not found` settles an ask only if its row was seen in this manager. One whose scheduler never served and whose row the
//! manager never had is settled as [`Verdict::NeverRegistered`] once the manager has said so twice, a minute apart, with nobody at
//! its address: whatever its scheduler may still have sent has been applied by then, and would have made an inactive row.
//!
//! What is not known to be for this manager ([`Origin::Stranger`]) was seen in it, and only a confirmation settles it: whatever
//! else becomes of it, it is let go of as it was.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tracing::{debug, info, warn};

use self::once::Before;
use super::{
    attempts::{ATTEMPT_LIMIT, AttemptId, Attempts, Ended, LINGER, Urgency},
    backlog::Backlog,
    clock::Clock,
    disk::Disk,
    hearing::Hearing,
    lifecycle::Verdict,
    look::{self, Look},
    metrics::Metrics,
    moment::Moment,
    say,
};
use crate::{
    key::SchedulerKey,
    manager::{AttemptOptions, Freshness, LIST_AGE, Manager, Outcome, RowState},
    net::Prober,
    spool::record::{Cause, Record, RecordId, What},
};

mod once;

/// How soon a read or a look that could not be made is made again.
const AGAIN: Duration = Duration::from_secs(5);

/// An attempt begins at most so long after the look that found nobody there; one that is silent for longer is hedged no more.
const LOOK_AGE: Duration = ATTEMPT_LIMIT;

/// How many keys are looked at and signed off at a time; the watch after it needs nothing. A look takes a file descriptor, and
/// one that there is none left for says nothing about the scheduler.
const AT_ONCE: usize = 32;

/// How many rows are read at a time after a watch, and their asks forgotten: those that were acknowledged at one time are due at one
/// time. Over gRPC each read is a list of all active rows; and whoever writes to the disk meanwhile waits for this many at most.
const READS_AT_ONCE: usize = 4;

/// How far apart the manager is asked twice for a row that it never had: nothing is applied later than this.
const NEVER_REGISTERED_AFTER: Duration = LINGER;

/// How long asks that were found are held while no look tells anything: their own agent may start meanwhile, and know.
const UNCLEAR_FOR: Duration = Duration::from_secs(60);

/// How long asks are worked on though others wait for their room.
const TURN: Duration = Duration::from_secs(600);

/// What a replay needs. Its clones share a bound on how many keys are worked on at a time.
#[derive(Clone)]
pub struct Replay {
    /// The manager.
    pub manager: Arc<dyn Manager>,
    /// Looks at addresses.
    pub prober: Arc<Prober>,
    /// The spool's thread.
    pub disk: Disk,
    /// Counters.
    pub metrics: Metrics,
    /// What is being replayed is counted here.
    pub backlog: Backlog,
    /// The time.
    pub clock: Clock,
    turns: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

/// Writes an ask of another key before anything is done for it. Answers whether it is on disk; where not, that is counted and said.
pub async fn write_ask(disk: &Disk, metrics: &Metrics, ask: &Record) -> bool {
    let written = disk.write_ask(ask.clone()).await;
    if let Err(error) = &written {
        metrics.spool_error();
        // There are few of these in an agent's life.
        say::not_persisted(&ask.key, error, &say::Said::default());
    }
    written.is_ok()
}

/// Who made the asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A process that is dead, and may have left attempts that are still applied.
    Spool {
        /// The scheduler was seen serving.
        served: bool,
    },
    /// The same, of a process that may have been another manager's: this one shows such a row.
    Stranger {
        /// It is held while the manager can't be reached, and so kept from its own manager's agent.
        patient: bool,
    },
    /// This process, just now.
    Own,
}

impl Origin {
    fn is_inherited(self) -> bool {
        self != Self::Own
    }

    fn is_stranger(self) -> bool {
        matches!(self, Self::Stranger { .. })
    }

    /// Held any longer it would be kept from its own manager's agent.
    fn gives_up(self) -> bool {
        self == Self::Stranger { patient: false }
    }
}

/// One key's asks on their way to being settled.
struct Job {
    key: SchedulerKey,
    asks: Vec<Record>,
    origin: Origin,
    attempts: Attempts,
    listed: bool,
    /// When the manager first said that there is no such row, which it never showed.
    not_found: Option<Moment>,
    until: Option<Moment>,
    said_unknown: bool,
    said_failure: bool,
    /// An attempt was begun of which it isn't known that it was not applied: of a predecessor there is no other then.
    maybe_applied: bool,
    /// Nothing but its row's times says that it is gone: to be read right before an attempt.
    by_its_times: bool,
    /// What the manager's lists say of the key.
    hearing: Hearing,
    /// They show no times: none is asked for until then.
    untold_until: Option<Moment>,
    /// Since when no look told whether its scheduler lives.
    unclear_since: Option<Moment>,
    /// It was found, and gives way.
    in_turn: bool,
}

impl Job {
    /// The manager says that there is no such row, which it never showed. Answers when that is known for good: there never was
    /// one. A scheduler that was seen serving has registered somewhere; its key is wrong, then, and a person is needed.
    fn never_registered_at(&mut self, now: Moment) -> Option<Moment> {
        let first = *self.not_found.get_or_insert(now);
        (self.origin == Origin::Spool { served: false }).then(|| first + NEVER_REGISTERED_AFTER)
    }

    fn urgency(&self, now: Moment) -> Urgency {
        self.until.map_or(Urgency::Background, |until| Urgency::Urgent(until - now))
    }

    /// They are a predecessor's alone.
    fn once(&self) -> bool {
        let predecessor = |ask: &Record| matches!(ask.what, What::SignOff { cause: Cause::Predecessor, .. });
        self.asks.iter().all(predecessor)
    }
}

/// What came of attempts.
enum Step {
    /// The asks are settled so, or out of time.
    Settled(Verdict),
    /// To be watched, and settled so then.
    Acknowledged(Verdict),
    /// The last look is too old for another one.
    LookAgain,
}

/// A job, until it ends or is given up.
struct Held<'a> {
    replay: &'a Replay,
    job: Job,
    is_settled: bool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.replay.backlog.replayed(&self.job.asks);
        if !self.is_settled {
            // Whoever adopts next may have them.
            let ids = self.job.asks.iter().map(|ask| ask.id.clone()).collect();
            match self.job.origin {
                // Its marks were not taken.
                Origin::Stranger { .. } => self.replay.disk.release(ids),
                Origin::Spool { .. } | Origin::Own => {
                    self.replay.disk.release_with_marks(ids, self.job.key.clone());
                }
            }
        }
    }
}

impl Replay {
    /// A replay of nothing yet.
    pub fn new(
        manager: Arc<dyn Manager>,
        prober: Arc<Prober>,
        disk: Disk,
        metrics: Metrics,
        backlog: Backlog,
        clock: Clock,
    ) -> Self {
        let [turns, reads] = [AT_ONCE, READS_AT_ONCE].map(|at_once| Arc::new(Semaphore::new(at_once)));
        Self { manager, prober, disk, metrics, backlog, clock, turns, reads }
    }

    /// Settles one key's asks, for as long as that takes, at most until `until`. Answers how they were settled; `Queued` if out
    /// of time. `progress` hears why it isn't done yet.
    pub async fn settle(
        &self,
        key: SchedulerKey,
        asks: Vec<Record>,
        origin: Origin,
        until: Option<Moment>,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Verdict {
        let no_end = None::<std::future::Pending<()>>;
        self.settle_until(key, asks, origin, until, progress, (std::future::ready(()), no_end)).await
    }

    /// Settles one key's asks that were found in the spool, so many that others may wait for their room. Nothing is done before `begins`.
    /// They give way to others that wait once they had [`TURN`]; an attempt that is under way then is one of those that whoever takes
    /// them reckons with.
    pub async fn settle_in_turn(
        &self,
        key: SchedulerKey,
        asks: Vec<Record>,
        origin: Origin,
        (begins, mut others_wait): (impl Future<Output = ()>, watch::Receiver<bool>),
    ) -> Verdict {
        let over = async {
            tokio::time::sleep(TURN).await;
            if others_wait.wait_for(|wait| *wait).await.is_err() {
                // Nobody will ever wait.
                std::future::pending().await
            }
        };
        self.settle_until(key, asks, origin, None, &|_| (), (begins, Some(over))).await
    }

    async fn settle_until(
        &self,
        key: SchedulerKey,
        asks: Vec<Record>,
        origin: Origin,
        until: Option<Moment>,
        progress: &(dyn Fn(&str) + Send + Sync),
        (begins, over): (impl Future<Output = ()>, Option<impl Future<Output = ()>>),
    ) -> Verdict {
        let mut attempts = Attempts::new(self.clock.now().at);
        if origin.is_inherited() {
            attempts.linger(self.clock.now().at);
        }
        let job = Job {
            listed: asks.iter().any(|ask| ask.listed),
            not_found: None,
            origin,
            attempts,
            key,
            asks,
            until,
            said_unknown: false,
            said_failure: false,
            maybe_applied: origin.is_inherited(),
            by_its_times: false,
            hearing: Hearing::default(),
            untold_until: None,
            unclear_since: None,
            in_turn: over.is_some(),
        };
        self.show(&job);
        let mut held = Held { replay: self, job, is_settled: false };
        let over = async {
            match over {
                Some(over) => over.await,
                None => std::future::pending().await,
            }
        };
        let settled = async {
            begins.await;
            self.settle_job(&mut held.job, progress).await
        };
        let verdict = tokio::select! {
            biased;
            verdict = settled => verdict,
            () = over => Verdict::Queued,
        };
        held.is_settled = verdict != Verdict::Queued;
        verdict
    }

    async fn settle_job(&self, job: &mut Job, progress: &(dyn Fn(&str) + Send + Sync)) -> Verdict {
        if job.was_left_behind() {
            self.date(job, progress).await;
        }
        loop {
            let now = self.clock.now().at;
            if job.until.is_some_and(|until| now >= until) {
                return Verdict::Queued;
            }
            if job.once() && job.maybe_applied {
                if let Some(verdict) = self.after_an_attempt(job, progress).await {
                    return verdict;
                }
                job.maybe_applied = false;
            }
            // The semaphore is never closed.
            let turn = tokio::select! {
                biased;
                turn = self.turns.acquire() => turn.ok(),
                () = self.pause(job, now + ATTEMPT_LIMIT) => continue,
            };
            // Both in boxes of their own: thousands wait, for their turn or in a watch, with neither.
            match Box::pin(self.look(job)).await {
                Look::Lives => {
                    progress("something answers at its address");
                    return self.forget(job, Verdict::Superseded).await;
                }
                Look::Unclear(why) => {
                    drop(turn);
                    progress(&why);
                    let since = *job.unclear_since.get_or_insert(now);
                    let is_for_long = job.in_turn && now >= since + UNCLEAR_FOR;
                    if job.origin.gives_up() || is_for_long {
                        return Verdict::Queued;
                    }
                    debug!(scheduler.key = %job.key, reason = why, "Can't tell yet whether a scheduler lives.");
                    self.pause(job, now + AGAIN).await;
                    continue;
                }
                Look::Silent(_) | Look::Reused(_) => job.unclear_since = None,
            }
            let settled = match Box::pin(self.sign_off(job, turn, progress)).await {
                Step::Settled(verdict) => Some(verdict),
                Step::Acknowledged(verdict) => self.watch(job, verdict, progress).await,
                Step::LookAgain => None,
            };
            if let Some(verdict) = settled {
                return verdict;
            }
        }
    }

    /// Attempts until one is acknowledged or a new look is due. Whoever only waits lets others have the turn.
    async fn sign_off(
        &self,
        job: &mut Job,
        turn: Option<SemaphorePermit<'_>>,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Step {
        let mut turn = turn;
        let looked = self.clock.now().at;
        let (done, mut ended) = mpsc::unbounded_channel::<(AttemptId, Outcome)>();
        let mut contact = self.manager.watch();
        let mut gains = contact.borrow_and_update().gains;
        loop {
            let now = self.clock.now().at;
            if job.until.is_some_and(|until| now >= until) {
                return Step::Settled(Verdict::Queued);
            }
            let stale = now - looked >= LOOK_AGE;
            if stale && !job.attempts.under_way() {
                return Step::LookAgain;
            }
            let hedge = job.attempts.may_hedge(now) && !job.once();
            if !stale && (hedge || job.attempts.may_begin(now)) {
                if self.were_dropped(job).await {
                    return Step::Settled(self.forget(job, Verdict::Dropped).await);
                }
                if job.once() {
                    match self.before_an_attempt(job).await {
                        Before::Go => {}
                        Before::Settled(verdict) => return Step::Settled(verdict),
                        Before::Wait => {
                            drop(turn);
                            self.pause(job, self.clock.now().at + AGAIN).await;
                            return Step::LookAgain;
                        }
                    }
                }
                // The disk may have taken its time.
                let now = self.clock.now().at;
                let covers: Vec<RecordId> = job.asks.iter().map(|ask| ask.id.clone()).collect();
                let id = job.attempts.begin(covers, now);
                let (this, key, done) = (self.clone(), job.key.clone(), done.clone());
                let limit = job.until.map_or(ATTEMPT_LIMIT, |until| ATTEMPT_LIMIT.min(until - now));
                tokio::spawn(async move {
                    let began = this.clock.now().at;
                    let outcome = this.manager.sign_off(&key, AttemptOptions { hedge, limit }).await;
                    this.metrics.attempt(&outcome, this.clock.now().at - began);
                    // The other end is gone only where the whole replay was given up.
                    let _ = done.send((id, outcome));
                });
                continue;
            }
            let is_waited_for = stale || (job.once() && job.attempts.under_way());
            let wake = job.attempts.wake_at(!is_waited_for, now).unwrap_or(now + AGAIN);
            let wake = job.until.map_or(wake, |until| wake.min(until));
            tokio::select! {
                biased;
                Ok(()) = contact.changed() => {
                    let known = std::mem::replace(&mut gains, contact.borrow_and_update().gains);
                    if gains > known {
                        let now = self.clock.now();
                        job.attempts.manager_is_back(job.urgency(now.at), now);
                    }
                }
                Some((id, outcome)) = ended.recv() => {
                    let now = self.clock.now();
                    let urgency = job.urgency(now.at);
                    match job.attempts.ended(id, &outcome, urgency, now) {
                        Ended::Settled { absent: true, .. } | Ended::Watched { absent: true, .. }
                            if !job.listed || job.origin.is_stranger() =>
                        {
                            let why = format!("the manager has no row {} and never showed one", job.key);
                            let settled_at = job.never_registered_at(now.at);
                            if settled_at.is_some_and(|at| now.at >= at) && !job.attempts.any_open(now.at) {
                                return Step::Settled(self.forget(job, Verdict::NeverRegistered).await);
                            }
                            turn = None;
                            job.attempts.unknown_key(&why, urgency, now);
                            progress(&why);
                            if job.origin.is_stranger() {
                                return Step::Settled(Verdict::Queued);
                            }
                            if let Some(at) = settled_at {
                                job.attempts.put_off(at);
                            } else if !std::mem::replace(&mut job.said_unknown, true) {
                                warn!(scheduler.key = %job.key, "A queued sign-off's row is unknown to the manager: it stays queued.");
                            }
                        }
                        Ended::Settled { absent, .. } => {
                            let verdict = if absent { Verdict::Absent } else { Verdict::Confirmed };
                            return Step::Settled(self.forget(job, verdict).await);
                        }
                        Ended::Watched { absent, until, .. } => {
                            drop(turn);
                            let verdict = if absent { Verdict::Absent } else { Verdict::Confirmed };
                            info!(
                                scheduler.key = %job.key,
                                watched.seconds = (until - now.at).as_secs(),
                                "Signed another key off: acknowledged, and watched until no earlier attempt can undo it."
                            );
                            // How the others end decides when the row can be read.
                            while job.attempts.under_way() {
                                let Some((id, outcome)) = ended.recv().await else { break };
                                job.attempts.ended(id, &outcome, urgency, self.clock.now());
                            }
                            return Step::Acknowledged(verdict);
                        }
                        Ended::Again => {
                            turn = None;
                            job.maybe_applied |= matches!(outcome, Outcome::Unknown(_));
                            let why = job.attempts.last_failure().unwrap_or("no answer").to_owned();
                            progress(&why);
                            self.show(job);
                            if job.origin.gives_up() && !job.attempts.under_way() {
                                return Step::Settled(Verdict::Queued);
                            }
                            if !std::mem::replace(&mut job.said_failure, true) {
                                warn!(scheduler.key = %job.key, reason = why, "Another key can't be signed off yet; its sign-off stays queued.");
                            }
                            if job.once() && job.maybe_applied {
                                return Step::LookAgain;
                            }
                        }
                    }
                }
                () = self.clock.sleep_until(wake) => {
                    if !job.attempts.under_way() && self.clock.now().at >= wake {
                        // A new attempt: the scheduler may have come back meanwhile.
                        return Step::LookAgain;
                    }
                }
            }
        }
    }

    /// Waits until nothing can undo the acknowledged sign-off any more, and reads the row. `None`: look again, and once more.
    async fn watch(
        &self,
        job: &mut Job,
        verdict: Verdict,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Option<Verdict> {
        loop {
            let closed = job.attempts.closed_at().unwrap_or_default();
            let from = closed + self.manager.freshness().age();
            let left = (from - self.clock.now().at).as_secs();
            progress(&format!("{}, watched for {left} s more", verdict.label()));
            self.backlog.watched(&job.asks, self.clock.now().wall + 1000 * left);
            self.pause(job, from).await;
            let turn = tokio::select! {
                biased;
                turn = self.reads.acquire() => turn.ok(),
                () = self.pause(job, self.clock.now().at + ATTEMPT_LIMIT) => continue,
            };
            let asked = self.clock.now().at;
            if job.until.is_some_and(|until| asked >= until) {
                // Acknowledged, but its record is kept: whoever opens the spool next watches on.
                return Some(Verdict::Queued);
            }
            match self.manager.read_row(&job.key).await {
                Ok(read) if read.freshness == Freshness::Within30s && asked < closed + LIST_AGE => {}
                Ok(read) => {
                    let inactive = read.state != RowState::Active;
                    job.attempts.row_was_read(inactive);
                    return match (inactive, job.once()) {
                        (true, _) => Some(self.forget(job, verdict).await),
                        (false, _) if job.origin.is_stranger() => Some(Verdict::Queued),
                        (false, true) => Some(self.forget(job, Verdict::Superseded).await),
                        (false, false) => {
                            self.show(job);
                            None
                        }
                    };
                }
                Err(failure) => {
                    drop(turn);
                    progress(&failure.why);
                    if job.origin.gives_up() {
                        return Some(Verdict::Queued);
                    }
                    self.pause(job, asked + AGAIN).await;
                }
            }
        }
    }

    /// Whether somebody dropped all that is asked by hand. What is left of it is still asked.
    async fn were_dropped(&self, job: &mut Job) -> bool {
        let ids = job.asks.iter().map(|ask| ask.id.clone()).collect();
        let gone = self.disk.vanished(ids).await;
        let left: Vec<Record> = job.asks.iter().filter(|ask| !gone.contains(&ask.id)).cloned().collect();
        if left.is_empty() {
            return true;
        }
        if left.len() < job.asks.len() {
            self.backlog.replayed(&job.asks);
            self.disk.settle_later(gone, false);
            job.asks = left;
            self.show(job);
        }
        false
    }

    async fn look(&self, job: &mut Job) -> Look {
        let Some(address) = job.asks.iter().rev().find_map(|ask| ask.address) else {
            return Look::Silent("nobody said where it served".to_owned());
        };
        job.by_its_times = false;
        match look::at(&self.prober, self.manager.as_ref(), &job.key, address).await {
            Look::Unclear(why) => self.hear(job, why).await,
            look => look,
        }
    }

    async fn forget(&self, job: &Job, verdict: Verdict) -> Verdict {
        if job.origin.is_stranger() && !matches!(verdict, Verdict::Confirmed | Verdict::Dropped) {
            return Verdict::Queued;
        }
        let ids: Vec<RecordId> = job.asks.iter().map(|ask| ask.id.clone()).collect();
        // One that may live was perhaps signed off for those asks: its own agent is to know, and takes over what says so.
        let may_live = matches!(
            verdict,
            Verdict::Superseded | Verdict::Dropped | Verdict::Contested | Verdict::NeverRegistered
        );
        // What the disk refuses it is offered again; until then it may be replayed again: harmless.
        let settled = self.disk.settle(ids.clone(), may_live).await.map(drop);
        let forgotten = if job.origin.is_stranger() {
            // Its marks were not taken.
            settled
        } else if may_live {
            self.disk.release_with_marks(ids, job.key.clone());
            settled
        } else {
            settled.and(self.disk.drop_all_marks(job.key.clone()).await)
        };
        if let Err(error) = forgotten {
            self.metrics.spool_error();
            warn!(scheduler.key = %job.key, reason = %error, "A settled sign-off could not be removed from the spool.");
        }
        for ask in &job.asks {
            let What::SignOff { cause, .. } = ask.what else { continue };
            self.metrics.settled(verdict, cause);
        }
        info!(
            scheduler.key = %job.key,
            signoff.result = verdict.label(),
            signoff.attempts = job.attempts.count(),
            signoff.inherited = job.origin.is_inherited(),
            "Settled a sign-off of another key."
        );
        verdict
    }

    fn show(&self, job: &Job) {
        self.backlog.replaying(&job.asks, &job.attempts, job.origin.is_inherited());
    }

    async fn pause(&self, job: &Job, at: Moment) {
        self.clock.sleep_until(job.until.map_or(at, |until| at.min(until))).await;
    }
}

#[cfg(test)]
mod tests;
