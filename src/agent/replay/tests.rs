use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::watch;

use super::*;
use crate::{
    agent::arrivals::Arrivals,
    manager::{Contact, Failure, Filter, HoldStart, Row, RowRead},
    net::Probe,
    spool::{Limits, Spool, drop_record, record::Kind, scan},
};

/// A manager whose answers to a sign-off are given, the last one again and again; reads find the row active, or, after so many
/// sign-offs, inactive.
struct Scripted {
    answers: Mutex<Vec<Outcome>>,
    attempts: AtomicUsize,
    inactive_after: usize,
    /// How long each takes.
    takes: Duration,
    /// The scheduler answers after so many sign-offs.
    back_after: usize,
    /// What happens with each sign-off.
    meanwhile: Box<dyn Fn() + Send + Sync>,
    reads: Reads,
}

/// Reads, each of which takes so long.
#[derive(Default)]
struct Reads {
    take: Duration,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Manager for Scripted {
    async fn sign_off(&self, _: &SchedulerKey, _: AttemptOptions) -> Outcome {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        (self.meanwhile)();
        tokio::time::sleep(self.takes).await;
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
    }
    async fn hold(&self, _: &SchedulerKey) -> Result<HoldStart, Failure> {
        Ok(HoldStart::Absent)
    }
    async fn read_row(&self, _: &SchedulerKey) -> Result<RowRead, Failure> {
        let now = self.reads.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.reads.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(self.reads.take).await;
        self.reads.under_way.fetch_sub(1, Ordering::SeqCst);
        let inactive = self.attempts.load(Ordering::SeqCst) >= self.inactive_after;
        let state = if inactive { RowState::Inactive } else { RowState::Active };
        Ok(RowRead { state, freshness: Freshness::Fresh, port: None })
    }
    async fn list(&self, _: &Filter) -> Result<Vec<Row>, Failure> {
        Ok(Vec::new())
    }
    async fn delete(&self, _: u64) -> Result<(), Failure> {
        Ok(())
    }
    async fn probe(&self, _: SocketAddr, _: Duration) -> Probe {
        let is_back = self.attempts.load(Ordering::SeqCst) >= self.back_after;
        if is_back { Probe::Answers } else { Probe::Silent("connection refused".into()) }
    }
    fn freshness(&self) -> Freshness {
        Freshness::Fresh
    }
    fn watch(&self) -> watch::Receiver<Contact> {
        watch::channel(Contact::default()).1
    }
}

/// An outer bound, never a verdict.
const LONG: Duration = Duration::from_secs(3600);

/// How one ask of this cause ended, how many attempts that took, and for how long.
async fn settled(
    cause: Cause,
    origin: Origin,
    answers: Vec<Outcome>,
    inactive_after: usize,
) -> (Verdict, usize, Duration) {
    let manager = Scripted {
        answers: Mutex::new(answers),
        attempts: AtomicUsize::new(0),
        inactive_after,
        takes: Duration::ZERO,
        back_after: usize::MAX,
        meanwhile: Box::new(|| ()),
        reads: Reads::default(),
    };
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let (verdict, attempts) = settled_in(dir.path(), manager, vec![ask(1, cause)], origin, clock).await;
    (verdict, attempts, clock.now().at - Moment::default())
}

fn ask(id: u64, cause: Cause) -> Record {
    Record {
        id: RecordId(format!("{id:016x}")),
        key: SchedulerKey::new(1.try_into().unwrap(), "s-0".parse().unwrap(), "127.0.0.1".parse().unwrap()),
        what: What::SignOff { cause, drain_until: None },
        // Nobody is there.
        address: Some(([127, 0, 0, 1], 1).into()),
        listed: true,
        at: 0,
        pod: None,
    }
}

/// How asks that are on a disk ended, and how many attempts that took.
async fn settled_in(
    dir: &std::path::Path,
    manager: Scripted,
    asks: Vec<Record>,
    origin: Origin,
    clock: Clock,
) -> (Verdict, usize) {
    let (manager, at) = (Arc::new(manager), dir.to_owned());
    let open = move || Spool::open(&at, Limits::default());
    let (disk, _reports) =
        Disk::start_on_a_task(dir.to_owned(), Arrivals::of_the_kernel(), || async {}, || (), open);
    for ask in &asks {
        disk.write_ask(ask.clone()).await.unwrap();
    }
    let metrics = Metrics::new();
    let backlog = Backlog::new(metrics.clone());
    let replay = Replay::new(manager.clone(), disk.clone(), metrics, backlog, clock);
    let verdict = replay.settle(asks[0].key.clone(), asks, origin, Some(Moment(LONG)), &|_| ()).await;
    assert_eq!(replay.backlog.others(), []);
    disk.flush().await;
    (verdict, manager.attempts.load(Ordering::SeqCst))
}

fn unknown() -> Outcome {
    Outcome::Unknown(Failure::new("cut"))
}

#[tokio::test(start_paused = true)]
async fn g6_an_ask_of_our_own_is_settled_by_its_acknowledgement_and_one_that_was_found_only_a_minute_later() {
    let (verdict, attempts, took) =
        settled(Cause::Predecessor, Origin::Own, vec![Outcome::Confirmed], 1).await;
    assert_eq!((verdict, attempts), (Verdict::Confirmed, 1));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (verdict, attempts, took) =
        settled(Cause::Predecessor, Origin::Spool, vec![Outcome::Confirmed], 1).await;
    assert_eq!((verdict, attempts), (Verdict::Confirmed, 1));
    assert!(took >= Duration::from_secs(60), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn g6_a_predecessor_that_is_active_again_after_an_acknowledged_sign_off_is_not_signed_off_once_more() {
    for (origin, answers, attempts) in [
        (Origin::Spool, vec![Outcome::Confirmed], 1),
        // The first may still be applied: the second's acknowledgement is watched.
        (Origin::Own, vec![unknown(), Outcome::Confirmed], 2),
    ] {
        let of_predecessor = settled(Cause::Predecessor, origin, answers.clone(), usize::MAX).await;
        assert_eq!((of_predecessor.0, of_predecessor.1), (Verdict::Superseded, attempts));
        // Whose own agent asked for it is signed off until it stays inactive.
        let of_itself = settled(Cause::Down, origin, answers, attempts + 1).await;
        assert_eq!((of_itself.0, of_itself.1), (Verdict::Confirmed, attempts + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn g1_nothing_is_signed_off_that_was_dropped_by_hand_meanwhile() {
    for (asks, verdict, attempts) in [(1, Verdict::Dropped, 1), (2, Verdict::Confirmed, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_owned();
        let manager = Scripted {
            answers: Mutex::new(vec![Outcome::Failed(Failure::new("refused")), Outcome::Confirmed]),
            attempts: AtomicUsize::new(0),
            inactive_after: 0,
            takes: Duration::ZERO,
            back_after: usize::MAX,
            meanwhile: Box::new(move || drop(drop_record(&at, &ask(1, Cause::Down).id.0))),
            reads: Reads::default(),
        };
        let asks = (1..=asks).map(|id| ask(id, Cause::Down)).collect();
        let settled = settled_in(dir.path(), manager, asks, Origin::Own, Clock::start()).await;
        assert_eq!(settled, (verdict, attempts));
        assert_eq!(scan(dir.path()).unwrap().entries().count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn g2_another_that_lives_is_left_a_mark_that_it_may_have_been_signed_off() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Scripted {
        answers: Mutex::new(vec![Outcome::Confirmed]),
        attempts: AtomicUsize::new(0),
        inactive_after: usize::MAX,
        takes: Duration::ZERO,
        back_after: usize::MAX,
        meanwhile: Box::new(|| ()),
        reads: Reads::default(),
    };
    let asks = vec![ask(1, Cause::Predecessor)];
    let (verdict, _) = settled_in(dir.path(), manager, asks.clone(), Origin::Spool, Clock::start()).await;
    assert_eq!(verdict, Verdict::Superseded);
    // Not held by the process that replayed it any more.
    let taken = Spool::open(dir.path(), Limits::default()).unwrap().take_own(&asks[0].key).unwrap();
    assert_eq!(taken.records, [(Kind::Mark, asks[0].clone())]);
}

#[tokio::test(start_paused = true)]
async fn g7_hedges_that_follow_each_other_need_a_look_as_a_first_attempt_does() {
    let manager = Scripted {
        answers: Mutex::new(vec![unknown()]),
        attempts: AtomicUsize::new(0),
        inactive_after: usize::MAX,
        takes: ATTEMPT_LIMIT,
        back_after: 1,
        meanwhile: Box::new(|| ()),
        reads: Reads::default(),
    };
    let dir = tempfile::tempdir().unwrap();
    let asks = vec![ask(1, Cause::Down)];
    let settled = settled_in(dir.path(), manager, asks, Origin::Own, Clock::start()).await;
    // One, its hedge, and the look that finds who came back with the first.
    assert_eq!(settled, (Verdict::Superseded, 2));
}

#[tokio::test(start_paused = true)]
async fn thousands_that_are_due_at_one_time_are_read_a_few_at_a_time() {
    let manager = Arc::new(Scripted {
        answers: Mutex::new(vec![Outcome::Confirmed]),
        attempts: AtomicUsize::new(0),
        inactive_after: 0,
        takes: Duration::ZERO,
        back_after: usize::MAX,
        meanwhile: Box::new(|| ()),
        reads: Reads { take: Duration::from_millis(10), ..Reads::default() },
    });
    let dir = tempfile::tempdir().unwrap();
    let (disk, _reports) = Disk::start(dir.path(), Limits::default());
    let (metrics, clock) = (Metrics::new(), Clock::start());
    let replay = Replay::new(manager.clone(), disk.clone(), metrics.clone(), Backlog::new(metrics), clock);
    let settled = (1..=u64::try_from(READS_AT_ONCE).unwrap() * 5).map(|n| {
        let mut ask = ask(n, Cause::Sigterm);
        ask.key.hostname = format!("s-{n}").parse().unwrap();
        let replay = replay.clone();
        async move { replay.settle(ask.key.clone(), vec![ask], Origin::Spool, None, &|_| ()).await }
    });
    let verdicts = futures_util::future::join_all(settled).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Confirmed), "{verdicts:?}");
    assert_eq!(manager.reads.most.load(Ordering::SeqCst), READS_AT_ONCE);
}
