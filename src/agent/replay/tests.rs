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
    manager::{Contact, Failure, Filter, HoldStart, Listed, RowRead, times::Stamp},
    net::{Probe, Reach},
    spool::{Limits, Listing, Spool, drop_record, record::Kind, scan},
};

mod once;

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
    /// What a read shows of when the row was written: by the count of sign-offs, over REST; over gRPC nothing.
    written: Option<fn(usize) -> Stamp>,
    rest: bool,
}

impl Scripted {
    /// One whose scheduler is gone, and whose row stays active, over REST, without a time.
    fn answering(answers: Vec<Outcome>) -> Self {
        Self {
            answers: Mutex::new(answers),
            attempts: AtomicUsize::new(0),
            inactive_after: usize::MAX,
            takes: Duration::ZERO,
            back_after: usize::MAX,
            meanwhile: Box::new(|| ()),
            reads: Reads::default(),
            written: None,
            rest: true,
        }
    }
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
        let attempts = self.attempts.load(Ordering::SeqCst);
        let state = match (attempts >= self.inactive_after, self.rest) {
            (false, _) => RowState::Active,
            (true, true) => RowState::Inactive,
            (true, false) => RowState::NotActive,
        };
        let updated = self.written.filter(|_| self.rest).map(|written| written(attempts));
        Ok(RowRead { state, freshness: self.freshness(), registered: None, updated })
    }
    async fn list(&self, _: &Filter) -> Result<Listed, Failure> {
        Ok(Listed { rows: Vec::new(), freshness: Freshness::Fresh })
    }
    async fn register(&self, _: &SchedulerKey, _: &crate::manager::Registered) -> Result<(), Failure> {
        unreachable!("nobody registers here")
    }
    fn freshness(&self) -> Freshness {
        if self.rest { Freshness::Fresh } else { Freshness::Within30s }
    }
    fn watch(&self) -> watch::Receiver<Contact> {
        watch::channel(Contact::default()).1
    }
}

/// Its scheduler, as it is reached.
struct Scheduler(Arc<Scripted>);

#[async_trait]
impl Reach for Scheduler {
    async fn probe(&self, addr: SocketAddr, _: Duration) -> Probe {
        let is_back = self.0.attempts.load(Ordering::SeqCst) >= self.0.back_after;
        if is_back && addr.ip() == ask(1, Cause::Down).key.ip.get() {
            Probe::Scheduler
        } else {
            Probe::Nobody("connection refused".into())
        }
    }
}

fn prober(manager: &Arc<Scripted>) -> Arc<Prober> {
    Arc::new(Prober::new(Scheduler(Arc::clone(manager))))
}

/// As most are found: its scheduler had served.
const FOUND: Origin = Origin::Spool { served: true };

/// An outer bound, never a verdict.
const LONG: Duration = Duration::from_secs(3600);

/// How one ask of this cause ended, how many attempts that took, and for how long.
async fn settled(
    cause: Cause,
    origin: Origin,
    answers: Vec<Outcome>,
    inactive_after: usize,
) -> (Verdict, usize, Duration) {
    let manager = Scripted { inactive_after, ..Scripted::answering(answers) };
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
        row_updated: None,
        registered: None,
        at: 0,
        pod: None,
        managers: Default::default(),
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
    let replay = Replay::new(manager.clone(), prober(&manager), disk.clone(), metrics, backlog, clock);
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
    let (verdict, attempts, took) = settled(Cause::Down, FOUND, vec![Outcome::Confirmed], 1).await;
    assert_eq!((verdict, attempts), (Verdict::Confirmed, 1));
    assert!(took >= Duration::from_secs(60), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn g6_whose_own_agent_asked_for_it_is_signed_off_until_it_stays_inactive() {
    for (origin, answers, attempts) in [
        (FOUND, vec![Outcome::Confirmed], 1),
        // The first may still be applied: the second's acknowledgement is watched.
        (Origin::Own, vec![unknown(), Outcome::Confirmed], 2),
    ] {
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
            inactive_after: 0,
            meanwhile: Box::new(move || drop(drop_record(&at, &ask(1, Cause::Down).id.0))),
            ..Scripted::answering(vec![Outcome::Failed(Failure::new("refused")), Outcome::Confirmed])
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
    let manager = Scripted::answering(vec![Outcome::Confirmed]);
    let asks = vec![ask(1, Cause::Predecessor)];
    let (verdict, _) = settled_in(dir.path(), manager, asks.clone(), FOUND, Clock::start()).await;
    assert_eq!(verdict, Verdict::Contested);
    // Not held by the process that replayed it any more.
    let taken = Spool::open(dir.path(), Limits::default()).unwrap().take_own(&asks[0].key).unwrap();
    assert_eq!(taken.records, [(Kind::Mark, asks[0].clone())]);
}

#[tokio::test(start_paused = true)]
async fn g7_hedges_that_follow_each_other_need_a_look_as_a_first_attempt_does() {
    let manager = Scripted { takes: ATTEMPT_LIMIT, back_after: 1, ..Scripted::answering(vec![unknown()]) };
    let dir = tempfile::tempdir().unwrap();
    let asks = vec![ask(1, Cause::Down)];
    let settled = settled_in(dir.path(), manager, asks, Origin::Own, Clock::start()).await;
    // One, its hedge, and the look that finds who came back with the first.
    assert_eq!(settled, (Verdict::Superseded, 2));
}

#[tokio::test(start_paused = true)]
async fn thousands_that_are_due_at_one_time_are_read_a_few_at_a_time() {
    let manager = Arc::new(Scripted {
        inactive_after: 0,
        reads: Reads { take: Duration::from_millis(10), ..Reads::default() },
        ..Scripted::answering(vec![Outcome::Confirmed])
    });
    let dir = tempfile::tempdir().unwrap();
    let (disk, _reports) = Disk::start(dir.path(), Limits::default());
    let (metrics, clock) = (Metrics::new(), Clock::start());
    let replay = Replay::new(
        manager.clone(),
        prober(&manager),
        disk.clone(),
        metrics.clone(),
        Backlog::new(metrics),
        clock,
    );
    let settled = (1..=u64::try_from(READS_AT_ONCE).unwrap() * 5).map(|n| {
        let mut ask = ask(n, Cause::Sigterm);
        ask.key.hostname = format!("s-{n}").parse().unwrap();
        let replay = replay.clone();
        async move { replay.settle(ask.key.clone(), vec![ask], FOUND, None, &|_| ()).await }
    });
    let verdicts = futures_util::future::join_all(settled).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Confirmed), "{verdicts:?}");
    assert_eq!(manager.reads.most.load(Ordering::SeqCst), READS_AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn g2_what_is_given_up_half_way_is_there_for_the_next_one_to_take() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_owned();
    let open = move || Spool::open(&at, Limits::default());
    let (disk, _reports) =
        Disk::start_on_a_task(dir.path().to_owned(), Arrivals::of_the_kernel(), || async {}, || (), open);
    let asked = ask(1, Cause::Down);
    disk.write_ask(asked.clone()).await.unwrap();
    let manager = Arc::new(Scripted::answering(vec![Outcome::Failed(Failure::new("refused"))]));
    let (metrics, clock) = (Metrics::new(), Clock::start());
    let backlog = Backlog::new(metrics.clone());
    let replay = Replay::new(manager.clone(), prober(&manager), disk.clone(), metrics, backlog, clock);
    let settling = replay.settle(asked.key.clone(), vec![asked.clone()], Origin::Own, None, &|_| ());
    // The agent answers for another key from now on.
    assert!(tokio::time::timeout(Duration::from_secs(5), settling).await.is_err());
    assert_eq!(replay.backlog.others(), []);
    let another = SchedulerKey::new(1.try_into().unwrap(), "s-1".parse().unwrap(), asked.key.ip);
    let (adopted, _) = disk.adopt(another).await.unwrap();
    assert_eq!(adopted.others.unwrap().unwrap().records, [(Kind::Ask, asked)]);
}

/// How an ask of a key that was never listed ended, what is on the disk then, and for how long that took. The manager's answers,
/// the last one again and again.
async fn never_listed(origin: Origin, answers: Vec<Outcome>) -> (Verdict, Listing, Duration) {
    never_listed_watched(origin, answers, Arc::default()).await
}

/// As [`never_listed`]: `times` gets when each sign-off began.
async fn never_listed_watched(
    origin: Origin,
    answers: Vec<Outcome>,
    times: Arc<Mutex<Vec<tokio::time::Instant>>>,
) -> (Verdict, Listing, Duration) {
    let manager = Scripted {
        inactive_after: 0,
        meanwhile: Box::new(move || times.lock().unwrap().push(tokio::time::Instant::now())),
        ..Scripted::answering(answers)
    };
    let dir = tempfile::tempdir().unwrap();
    let asks = vec![Record { listed: false, ..ask(1, Cause::Sigterm) }];
    let clock = Clock::start();
    let (verdict, _) = settled_in(dir.path(), manager, asks, origin, clock).await;
    (verdict, scan(dir.path()).unwrap(), clock.now().at - Moment::default())
}

#[tokio::test(start_paused = true)]
async fn g5_a_row_that_never_was_is_settled_as_such_once_the_manager_has_said_so_twice_a_minute_apart() {
    let (verdict, left, took) = never_listed(Origin::Spool { served: false }, vec![Outcome::Absent]).await;
    assert_eq!(verdict, Verdict::NeverRegistered);
    assert!(took >= NEVER_REGISTERED_AFTER && took < NEVER_REGISTERED_AFTER * 2, "{took:?}");
    assert_eq!((left.asks.len(), left.marks.len()), (0, 1), "a mark of it stays, which nobody holds");
    assert!(!left.marks[0].locked);
    // Whatever came before the first time.
    let times = Arc::new(Mutex::new(Vec::new()));
    let failed = vec![Outcome::Failed(Failure::new("refused")); 40];
    let answers = [failed, vec![Outcome::Absent]].concat();
    let (verdict, _, _) =
        never_listed_watched(Origin::Spool { served: false }, answers, Arc::clone(&times)).await;
    let times = std::mem::take(&mut *times.lock().unwrap());
    assert_eq!((verdict, times.len()), (Verdict::NeverRegistered, 42));
    assert!(times[41] - times[40] >= NEVER_REGISTERED_AFTER);
    // What comes between changes nothing; a row that is there after all is signed off.
    for (last, verdict) in
        [(Outcome::Absent, Verdict::NeverRegistered), (Outcome::Confirmed, Verdict::Confirmed)]
    {
        let answers = vec![Outcome::Absent, unknown(), Outcome::Failed(Failure::new("refused")), last];
        let (settled, left, took) = never_listed(Origin::Spool { served: false }, answers).await;
        assert_eq!((settled, left.asks.len()), (verdict, 0));
        assert!(took >= NEVER_REGISTERED_AFTER, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_row_that_is_not_found_though_its_scheduler_served_is_never_settled_by_that() {
    for origin in [FOUND, Origin::Own] {
        let (verdict, left, took) = never_listed(origin, vec![Outcome::Absent]).await;
        assert_eq!((verdict, left.asks.len()), (Verdict::Queued, 1), "{origin:?}");
        assert!(took >= LONG, "{took:?}");
    }
    // Of another manager's it proves nothing, and it is let go of at once.
    let (verdict, left, took) = never_listed(Origin::Stranger { patient: true }, vec![Outcome::Absent]).await;
    assert_eq!((verdict, left.asks.len(), left.asks[0].locked), (Verdict::Queued, 1, false));
    assert!(took < Duration::from_secs(5), "{took:?}");
}
