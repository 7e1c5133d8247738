//! Asks that others left on this spool: looked at, then signed off, then forgotten.
//!
//! Another pod's key is looked at before it is replayed: if something answers at its ip:port and no other row has that
//! ip:port, it lives and the ask is superseded; if another row has it, the address was reused and the sign-off goes on.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tracing::{debug, info, warn};

use super::{
    attempts::{ATTEMPT_LIMIT, AttemptId, Attempts, Ended, Urgency},
    clock::Clock,
    disk::Disk,
    lifecycle::Verdict,
    metrics::Metrics,
    moment::Moment,
    socket::status::PendingStatus,
};
use crate::{
    key::SchedulerKey,
    manager::{AttemptOptions, Filter, Freshness, Manager, Outcome, RowState, State},
    net::{self, Probe},
    spool::record::{Record, RecordId, What},
};

/// How long a look at a scheduler's address may take.
const LOOK: Duration = Duration::from_secs(1);
/// How soon a read or a look that could not be made is made again.
const AGAIN: Duration = Duration::from_secs(5);
/// A list over gRPC is at most this old.
const LIST_AGE: Duration = Duration::from_secs(31);

/// How many keys are looked at and signed off at a time; the watch after it needs nothing. A look takes a file descriptor, and
/// one that there is none left for says nothing about the scheduler.
const AT_ONCE: usize = 32;

/// What a replay needs. Its clones share a bound on how many keys are worked on at a time.
#[derive(Clone)]
pub struct Replay {
    /// The manager.
    pub manager: Arc<dyn Manager>,
    /// The spool's thread.
    pub disk: Disk,
    /// Counters.
    pub metrics: Metrics,
    /// What is being replayed is counted here.
    pub backlog: Backlog,
    /// The time.
    pub clock: Clock,
    turns: Arc<Semaphore>,
}

/// All asks that this process knows of, its own key's and the replayed ones: what the metrics and `signoff status` show.
#[derive(Clone)]
pub struct Backlog {
    metrics: Metrics,
    asks: Arc<Mutex<Asks>>,
}

#[derive(Default)]
struct Asks {
    /// How many the own key has, and when the oldest was asked (Unix time in milliseconds).
    own: (usize, Option<u64>),
    others: BTreeMap<RecordId, PendingStatus>,
}

impl Backlog {
    /// None yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, asks: Arc::default() }
    }

    /// How many asks of the own key are pending, and when the oldest was asked (Unix time in milliseconds).
    pub fn own(&self, count: usize, oldest: Option<u64>) {
        self.change(|asks| asks.own = (count, oldest));
    }

    /// The asks of other keys.
    pub fn others(&self) -> Vec<PendingStatus> {
        self.asks().others.values().cloned().collect()
    }

    /// How it stands with a key's asks.
    fn replaying(&self, job: &Job) {
        self.change(|asks| {
            for ask in &job.asks {
                let What::SignOff { cause, .. } = ask.what else { continue };
                let status = PendingStatus {
                    id: ask.id.to_string(),
                    key: ask.key.to_string(),
                    cause: cause.label().to_owned(),
                    at: ask.at,
                    attempts: u64::from(job.attempts.count()),
                    last_error: job.attempts.last_failure().map(str::to_owned),
                    watched_until: None,
                    inherited: true,
                };
                asks.others.insert(ask.id.clone(), status);
            }
        });
    }

    fn replayed(&self, job: &Job) {
        self.change(|asks| asks.others.retain(|id, _| job.asks.iter().all(|ask| ask.id != *id)));
    }

    fn change(&self, change: impl FnOnce(&mut Asks)) {
        let mut asks = self.asks();
        change(&mut asks);
        let (own, oldest) = asks.own;
        let oldest = oldest.into_iter().chain(asks.others.values().map(|ask| ask.at)).min();
        self.metrics.set_pending(own + asks.others.len(), oldest);
    }

    fn asks(&self) -> MutexGuard<'_, Asks> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is at a key's address.
enum Look {
    /// It lives: not to be signed off.
    Lives,
    /// Nothing answers, or another scheduler has the address now.
    Gone,
    /// It could not be found out.
    Unclear(String),
}

/// One key's asks on their way to being settled.
struct Job {
    key: SchedulerKey,
    asks: Vec<Record>,
    attempts: Attempts,
    listed: bool,
    until: Option<Moment>,
    said_unknown: bool,
    said_failure: bool,
}

impl Replay {
    /// A replay of nothing yet.
    pub fn new(
        manager: Arc<dyn Manager>,
        disk: Disk,
        metrics: Metrics,
        backlog: Backlog,
        clock: Clock,
    ) -> Self {
        Self { manager, disk, metrics, backlog, clock, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Settles one key's asks, for as long as that takes, at most until `until`. Answers how they were settled; `Queued` if out
    /// of time. `progress` hears why it isn't done yet.
    pub async fn settle(
        &self,
        key: SchedulerKey,
        asks: Vec<Record>,
        until: Option<Moment>,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Verdict {
        let mut attempts = Attempts::new(self.clock.now().at);
        // Whoever left the asks may have left attempts too.
        attempts.linger(self.clock.now().at);
        let mut job = Job {
            listed: asks.iter().any(|ask| ask.listed),
            attempts,
            key,
            asks,
            until,
            said_unknown: false,
            said_failure: false,
        };
        self.backlog.replaying(&job);
        let verdict = self.settle_job(&mut job, progress).await;
        self.backlog.replayed(&job);
        if verdict == Verdict::Queued {
            // Whoever adopts next may have them.
            self.disk.release(job.asks.into_iter().map(|ask| ask.id).collect());
        }
        verdict
    }

    async fn settle_job(&self, job: &mut Job, progress: &(dyn Fn(&str) + Send + Sync)) -> Verdict {
        loop {
            let now = self.clock.now().at;
            if job.until.is_some_and(|until| now >= until) {
                return Verdict::Queued;
            }
            // The semaphore is never closed.
            let turn = tokio::select! {
                turn = self.turns.acquire() => turn.ok(),
                () = self.pause(job, now + ATTEMPT_LIMIT) => continue,
            };
            match self.look(job).await {
                Look::Lives => return self.forget(job, Verdict::Superseded).await,
                Look::Unclear(why) => {
                    drop(turn);
                    progress(&why);
                    debug!(scheduler.key = %job.key, reason = why, "Can't tell yet whether a scheduler lives.");
                    self.pause(job, now + AGAIN).await;
                    continue;
                }
                Look::Gone => {}
            }
            if let Some(verdict) = self.sign_off(job, turn, progress).await {
                return verdict;
            }
        }
    }

    /// One acknowledged sign-off, and the watch after it. `None`: look again, and once more.
    /// Whoever only waits lets others have the turn.
    async fn sign_off(
        &self,
        job: &mut Job,
        turn: Option<SemaphorePermit<'_>>,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Option<Verdict> {
        let mut turn = turn;
        let (done, mut ended) = mpsc::unbounded_channel::<(AttemptId, Outcome)>();
        let mut contact = self.manager.watch();
        let mut gains = contact.borrow_and_update().gains;
        loop {
            let now = self.clock.now().at;
            if job.until.is_some_and(|until| now >= until) {
                return Some(Verdict::Queued);
            }
            let hedge = job.attempts.may_hedge(now);
            if hedge || job.attempts.may_begin(now) {
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
            let wake = job.attempts.wake_at(true, now).unwrap_or(now + AGAIN);
            let wake = job.until.map_or(wake, |until| wake.min(until));
            tokio::select! {
                () = self.clock.sleep_until(wake) => {
                    if !job.attempts.under_way() && self.clock.now().at >= wake {
                        // A new attempt: the scheduler may have come back meanwhile.
                        return None;
                    }
                }
                Ok(()) = contact.changed() => {
                    let known = std::mem::replace(&mut gains, contact.borrow_and_update().gains);
                    if gains > known {
                        job.attempts.manager_is_back(self.clock.now());
                    }
                }
                Some((id, outcome)) = ended.recv() => {
                    let now = self.clock.now();
                    let urgency = job.until.map_or(Urgency::Background, |until| Urgency::Urgent(until - now.at));
                    match job.attempts.ended(id, &outcome, urgency, now) {
                        Ended::Settled { absent: true, .. } | Ended::Watched { absent: true, .. } if !job.listed => {
                            let why = format!("the manager has no row {} and never showed one", job.key);
                            turn = None;
                            job.attempts.unknown_key(&why, urgency, now);
                            progress(&why);
                            if !std::mem::replace(&mut job.said_unknown, true) {
                                warn!(scheduler.key = %job.key, "A queued sign-off's row is unknown to the manager: it stays queued.");
                            }
                        }
                        Ended::Settled { absent, .. } => {
                            let verdict = if absent { Verdict::Absent } else { Verdict::Confirmed };
                            return Some(self.forget(job, verdict).await);
                        }
                        Ended::Watched { absent, until, .. } => {
                            drop(turn);
                            let verdict = if absent { Verdict::Absent } else { Verdict::Confirmed };
                            info!(
                                scheduler.key = %job.key,
                                watched.seconds = (until - now.at).as_secs(),
                                "Replayed a sign-off: acknowledged, and watched until no earlier attempt can undo it."
                            );
                            // How the others end decides when the row can be read.
                            while job.attempts.under_way() {
                                let Some((id, outcome)) = ended.recv().await else { break };
                                job.attempts.ended(id, &outcome, urgency, self.clock.now());
                            }
                            return self.watch(job, verdict, progress).await;
                        }
                        Ended::Again => {
                            turn = None;
                            let why = job.attempts.last_failure().unwrap_or("no answer").to_owned();
                            progress(&why);
                            self.backlog.replaying(job);
                            if !std::mem::replace(&mut job.said_failure, true) {
                                warn!(scheduler.key = %job.key, reason = why, "Can't replay a sign-off yet; it stays queued.");
                            }
                        }
                    }
                }
            }
        }
    }

    /// Waits until nothing can undo the acknowledged sign-off any more, and reads the row.
    async fn watch(
        &self,
        job: &mut Job,
        verdict: Verdict,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Option<Verdict> {
        loop {
            let closed = job.attempts.closed_at().unwrap_or_default();
            let from = match self.manager.freshness() {
                Freshness::Fresh => closed,
                Freshness::Within30s => closed + LIST_AGE,
            };
            let left = (from - self.clock.now().at).as_secs();
            progress(&format!("{}, watched for {left} s more", verdict.label()));
            self.pause(job, from).await;
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
                    return if inactive { Some(self.forget(job, verdict).await) } else { None };
                }
                Err(failure) => {
                    progress(&failure.why);
                    self.pause(job, asked + AGAIN).await;
                }
            }
        }
    }

    async fn look(&self, job: &Job) -> Look {
        let Some(address) = job.asks.iter().rev().find_map(|ask| ask.address) else { return Look::Gone };
        match net::probe(address, LOOK).await {
            Probe::Silent(_) => return Look::Gone,
            Probe::Unclear(why) => return Look::Unclear(why),
            Probe::Answers => {}
        }
        match self.manager.list(&Filter::Ip(address.ip())).await {
            Err(failure) => Look::Unclear(failure.why),
            Ok(rows) => {
                let reused = rows.iter().any(|row| {
                    let here = row
                        .ip
                        .parse()
                        .is_ok_and(|ip| SocketAddr::new(ip, 0).ip().to_canonical() == address.ip());
                    here && row.port == i32::from(address.port())
                        && row.state == State::Active
                        && !row.is(&job.key)
                });
                if reused { Look::Gone } else { Look::Lives }
            }
        }
    }

    async fn forget(&self, job: &Job, verdict: Verdict) -> Verdict {
        let ids: Vec<RecordId> = job.asks.iter().map(|ask| ask.id.clone()).collect();
        // What the disk refuses stays queued, and is replayed again: harmless.
        let forgotten = self.disk.settle(ids, false).await.map(drop);
        if let Err(error) = forgotten.and(self.disk.drop_all_marks(job.key.clone()).await) {
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
            "Settled a sign-off that was left in the spool."
        );
        verdict
    }

    async fn pause(&self, job: &Job, at: Moment) {
        self.clock.sleep_until(job.until.map_or(at, |until| at.min(until))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::record::Cause;

    #[test]
    fn the_backlog_counts_the_asks_of_all_keys_and_knows_the_oldest() {
        let metrics = Metrics::new();
        let backlog = Backlog::new(metrics.clone());
        let key =
            SchedulerKey::new(1.try_into().unwrap(), "s-1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let ask = |at| Record {
            id: RecordId::random(),
            key: key.clone(),
            what: What::SignOff { cause: Cause::Down, drain_until: None },
            address: None,
            listed: true,
            at,
            pod: None,
        };
        let job = Job {
            asks: vec![ask(3000), ask(2000)],
            key: key.clone(),
            attempts: Attempts::new(Moment::default()),
            listed: true,
            until: None,
            said_unknown: false,
            said_failure: false,
        };
        let shown = |count: &str, oldest: &str| {
            let text = metrics.text().unwrap();
            assert!(text.contains(&format!("signoff_pending_signoffs {count}\n")), "{text}");
            let oldest = format!("signoff_oldest_pending_timestamp_seconds {oldest}\n");
            assert!(text.contains(&oldest), "{text}");
        };
        backlog.own(1, Some(5000));
        shown("1", "5.0");
        backlog.replaying(&job);
        backlog.replaying(&job);
        shown("3", "2.0");
        assert_eq!(backlog.others().len(), 2);
        backlog.own(0, None);
        shown("2", "2.0");
        backlog.replayed(&job);
        shown("0", "0.0");
    }
}
