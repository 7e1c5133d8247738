use std::{net::SocketAddr, path::Path, sync::Mutex};

use async_trait::async_trait;

use super::*;
use crate::{
    agent::{
        arrivals::Arrivals, clock::Clock, command::Inbox, degraded::Degraded, http::Readiness,
        metrics::Metrics,
    },
    manager::{
        AttemptOptions, Contact, Failure, Filter, Freshness, HoldStart, Listed, Outcome, RowRead, RowState,
    },
    net::{Probe, Prober, Reach},
    spool::{
        Limits, Spool,
        record::{Cause, RecordId, What},
        scan,
    },
};

/// A manager that never acknowledges one key's sign-off, and every other one's at once.
struct Unwilling(SchedulerKey);

#[async_trait]
impl Manager for Unwilling {
    async fn sign_off(&self, key: &SchedulerKey, _: AttemptOptions) -> Outcome {
        if *key == self.0 { Outcome::Failed(Failure::new("never")) } else { Outcome::Confirmed }
    }
    async fn hold(&self, _: &SchedulerKey) -> Result<HoldStart, Failure> {
        Ok(HoldStart::Absent)
    }
    async fn read_row(&self, _: &SchedulerKey) -> Result<RowRead, Failure> {
        Ok(RowRead {
            state: RowState::Inactive,
            freshness: Freshness::Fresh,
            registered: None,
            updated: None,
        })
    }
    async fn list(&self, _: &Filter) -> Result<Listed, Failure> {
        Ok(Listed { rows: Vec::new(), freshness: Freshness::Fresh })
    }
    async fn register(&self, _: &SchedulerKey, _: &crate::manager::Registered) -> Result<(), Failure> {
        unreachable!("nobody registers here")
    }
    fn freshness(&self) -> Freshness {
        Freshness::Fresh
    }
    fn watch(&self) -> watch::Receiver<Contact> {
        watch::channel(Contact::default()).1
    }
}

struct NobodyIsThere;

#[async_trait]
impl Reach for NobodyIsThere {
    async fn probe(&self, _: SocketAddr, _: Duration) -> Probe {
        Probe::Nobody("connection refused".into())
    }
}

fn key(n: u64) -> SchedulerKey {
    let hostname = format!("scheduler-{n}").parse().unwrap();
    SchedulerKey::new(1.try_into().unwrap(), hostname, "10.0.0.1".parse().unwrap())
}

fn record(n: u64, what: What) -> Record {
    let id = RecordId(format!("{n:016x}"));
    Record {
        id,
        key: key(n),
        what,
        address: None,
        listed: true,
        row_updated: None,
        registered: None,
        at: n,
        pod: None,
        managers: Default::default(),
    }
}

fn ask(n: u64) -> Record {
    record(n, What::SignOff { cause: Cause::Sigterm, drain_until: None })
}

/// Tends a spool for `key(0)`, from now on. Answers when each operation of its disk began, and what is to be kept meanwhile.
fn tend(dir: &Path, limits: Limits, manager: Unwilling) -> (Arc<Mutex<Vec<Instant>>>, impl Sized) {
    let (operations, at) = (Arc::new(Mutex::new(Vec::new())), dir.to_owned());
    let turn = {
        let operations = Arc::clone(&operations);
        move || {
            operations.lock().unwrap().push(Instant::now());
            std::future::ready(())
        }
    };
    let open = move || Spool::open(&at, limits);
    let (disk, reports) = Disk::start_on_a_task(dir.to_owned(), Arrivals::of_the_kernel(), turn, || (), open);
    let (agent, inbox) = agent();
    let (heirlooms, _) = mpsc::unbounded_channel();
    let manager: Arc<dyn Manager> = Arc::new(manager);
    let mut tasks = JoinSet::new();
    agent.tend_spool(&mut tasks, &disk, &manager, &key(0), &Backlog::new(agent.metrics.clone()), heirlooms);
    (operations, (reports, inbox, tasks))
}

/// An agent of no scheduler, and what is asked of it.
fn agent() -> (Agent, Inbox) {
    let clock = Clock::start();
    let (commands, inbox) = Commands::new(clock);
    let metrics = Metrics::new();
    let agent = Agent {
        resolve: super::super::blocking(|| unreachable!("it is not asked for")),
        settings: Settings::default(),
        keys: Vec::new(),
        doubt: None,
        degraded: Degraded::new(metrics.clone()),
        metrics,
        prober: Arc::new(Prober::new(NobodyIsThere)),
        named: super::super::others::Named::default(),
        ready: Readiness::default(),
        clock,
        commands,
        bound: watch::Sender::new(true),
        remembered: watch::Sender::new(None),
    };
    (agent, inbox)
}

/// The longest and the shortest pause between operations.
fn pauses(operations: &[Instant]) -> (Duration, Duration) {
    let pauses = || operations.windows(2).map(|two| two[1] - two[0]);
    (pauses().max().unwrap(), pauses().min().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_spool_without_anybody_else_is_looked_through_rarely_and_one_with_each_minute() {
    const HOUR: Duration = Duration::from_secs(3600);
    let dir = tempfile::tempdir().unwrap();
    let (operations, _kept) = tend(dir.path(), Limits::default(), Unwilling(key(9)));
    let so_far = || std::mem::take(&mut *operations.lock().unwrap());
    // The opening and the first look are at the start.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(so_far().len(), 2);
    tokio::time::sleep(HOUR).await;
    let alone = so_far();
    assert!((6..=7).contains(&alone.len()), "{}", alone.len());
    assert!(pauses(&alone).0 <= LOOK_ALONE_EVERY, "{alone:?}");

    // Somebody comes, and is gone at once; the next one lives beside it for a while. Each dies with an ask.
    let mut other = Spool::open(dir.path(), Limits::default()).unwrap();
    other.write_ask(&ask(2)).unwrap();
    drop(other);
    tokio::time::sleep(LOOK_EVERY * 2 + Duration::from_secs(5)).await;
    assert_eq!(scan(dir.path()).unwrap().asks, []);
    tokio::time::sleep(LOOK_ALONE_EVERY).await;
    let mut other = Spool::open(dir.path(), Limits::default()).unwrap();
    other.write_mark(&record(1, What::Seen)).unwrap();
    tokio::time::sleep(LOOK_EVERY).await;
    so_far();
    tokio::time::sleep(HOUR).await;
    let beside = so_far();
    assert!((60..=67).contains(&beside.len()), "{}", beside.len());
    assert!(pauses(&beside).0 <= LOOK_EVERY, "{beside:?}");
    other.write_ask(&ask(1)).unwrap();
    drop(other);
    // Found within a minute, and watched for another.
    tokio::time::sleep(LOOK_EVERY * 2 + Duration::from_secs(5)).await;
    assert_eq!(scan(dir.path()).unwrap().asks, []);

    tokio::time::sleep(LOOK_ALONE_EVERY).await;
    so_far();
    tokio::time::sleep(HOUR).await;
    assert!((6..=7).contains(&so_far().len()), "it is alone again");
}

#[tokio::test(start_paused = true)]
async fn g3_an_ask_that_is_never_settled_keeps_no_other_from_its_turn() {
    for never in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let mut before = Spool::open(dir.path(), Limits::default()).unwrap();
        for n in [1, 2] {
            before.write_ask(&ask(n)).unwrap();
        }
        drop(before);
        let limits = Limits { foreign: 1, ..Limits::default() };
        let (operations, _kept) = tend(dir.path(), limits, Unwilling(key(never)));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let left: Vec<RecordId> =
            scan(dir.path()).unwrap().asks.into_iter().map(|entry| entry.record.id).collect();
        assert_eq!(left, [ask(never).id]);
        // Nor does it make the disk's thread busy.
        assert!(operations.lock().unwrap().len() < 3600, "{}", operations.lock().unwrap().len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_degraded_though_nobody_asks_and_one_that_is_slow_is_not() {
    for (takes, hangs) in [(Duration::from_secs(2), false), (Duration::from_secs(3600), true)] {
        let dir = tempfile::tempdir().unwrap();
        let (at, slow) = (dir.path().to_owned(), Arc::new(Mutex::new(Duration::ZERO)));
        let turn = {
            let slow = Arc::clone(&slow);
            move || tokio::time::sleep(*slow.lock().unwrap())
        };
        let open = move || Spool::open(&at, Limits::default());
        let (disk, reports) =
            Disk::start_on_a_task(dir.path().to_owned(), Arrivals::of_the_kernel(), turn, || (), open);
        let (agent, _inbox) = agent();
        agent.watch_disk(&disk, reports);
        disk.write_ask(ask(1)).await.unwrap();
        *slow.lock().unwrap() = takes;
        disk.write_mark(record(2, What::Seen));
        let mut degraded = false;
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            degraded |= agent.degraded.list().iter().any(|it| it.reason == "spool");
        }
        assert_eq!(degraded, hangs);
        assert_eq!(agent.metrics.text().unwrap().contains("signoff_degraded{reason=\"spool\"} 1"), hangs);
        *slow.lock().unwrap() = Duration::ZERO;
        tokio::time::sleep(takes).await;
        assert_eq!(agent.degraded.list(), []);
    }
}
