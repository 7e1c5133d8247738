//! The writes, on a list as the source and a mock manager that takes them.

use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::{
    key::SchedulerKey,
    manager::{AttemptOptions, Contact, Filter, Freshness, HoldStart, Outcome as Attempted, Row, RowRead},
    repair::{
        sighting::{Sighting, Stamp},
        survey::tests::{List, Nobody, options, sighting},
    },
};

const T0: &str = "2026-11-23 20:00:00";
const T1: &str = "2026-11-23 20:00:15";

/// Answers each sign-off and deletion in turn, and notes whose it was.
#[derive(Default)]
struct Scripted {
    answers: Mutex<Vec<Attempted>>,
    signed_off: Mutex<Vec<SchedulerKey>>,
    deleted: Mutex<Vec<u64>>,
    delete_fails: bool,
}

#[async_trait]
impl Manager for Scripted {
    async fn sign_off(&self, key: &SchedulerKey, _: AttemptOptions) -> Attempted {
        self.signed_off.lock().unwrap().push(key.clone());
        let mut answers = self.answers.lock().unwrap();
        if answers.is_empty() { Attempted::Confirmed } else { answers.remove(0) }
    }
    async fn hold(&self, _: &SchedulerKey) -> Result<HoldStart, Failure> {
        unreachable!("reconcile holds nothing")
    }
    async fn read_row(&self, _: &SchedulerKey) -> Result<RowRead, Failure> {
        unreachable!("reconcile reads from its source")
    }
    async fn list(&self, _: &Filter) -> Result<Vec<Row>, Failure> {
        unreachable!("reconcile reads from its source")
    }
    async fn delete(&self, id: u64) -> Result<(), Failure> {
        self.deleted.lock().unwrap().push(id);
        if self.delete_fails {
            Err(Failure::new("the manager said that row 1 was deleted, but it is there"))
        } else {
            Ok(())
        }
    }
    fn freshness(&self) -> Freshness {
        Freshness::Fresh
    }
    fn watch(&self) -> tokio::sync::watch::Receiver<Contact> {
        tokio::sync::watch::channel(Contact::default()).1
    }
}

/// Somebody who lives, and answers.
struct Witness {
    addr: std::net::SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Witness {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        Self { addr, task }
    }

    fn row(&self, time: &str) -> Sighting {
        Sighting { port: self.addr.port(), ..sighting(99, time) }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn short(mut row: Sighting) -> Sighting {
    row.interval_ms = Some(1);
    row
}

/// Repairs all, within a minute.
fn policy(look: Options) -> Policy {
    Policy {
        look,
        pattern: None,
        max_share: MaxShare::percent(100),
        apply: true,
        deadline: Duration::from_secs(60),
    }
}

/// A dead row 1 beside a witness, and how the run ended: what became of it, who was signed off.
async fn applied(source: impl FnOnce(&mut List), manager: Scripted) -> (Report, Arc<Scripted>) {
    let witness = Witness::start().await;
    let dead = Sighting { updated: Some(Stamp::of(T0)), ..short(sighting(1, T0)) };
    let mut list = List::of(vec![vec![dead.clone(), witness.row(T0)], vec![dead.clone(), witness.row(T1)]]);
    source(&mut list);
    let manager = Arc::new(manager);
    let look = Options { recheck_after: Some(Duration::from_millis(20)), ..options() };
    let mut reconciler = Reconciler::new(Box::new(list), Some(manager.clone()), policy(look));
    let report = reconciler.run(&Nobody).await.unwrap();
    (report, manager)
}

fn signed_off(manager: &Scripted) -> usize {
    manager.signed_off.lock().unwrap().len()
}

fn inactive() -> Option<Sighting> {
    Some(Sighting { state: State::Inactive, ..short(sighting(1, T0)) })
}

#[tokio::test]
async fn a_dead_row_is_signed_off_by_its_own_key_and_looked_at_afterwards() {
    let again = vec![Some(short(sighting(1, T0))), inactive()];
    let (report, manager) = applied(|list| list.again = Mutex::new(again), Scripted::default()).await;
    assert_eq!(report.done, BTreeMap::from([(0, Done::SignedOff)]));
    assert_eq!(manager.signed_off.lock().unwrap()[0].to_string(), "s-1/127.0.0.1 in cluster 1");
    assert_eq!((report.outcome(), report.exit()), (Outcome::Repaired, Exit::Done));
}

#[tokio::test]
async fn g7_a_row_that_shows_life_right_before_its_write_is_contested_and_not_written() {
    let anew = Sighting { port: 2, ..short(sighting(1, T0)) };
    for life in [short(sighting(1, T1)), anew] {
        let (report, manager) =
            applied(|list| list.again = Mutex::new(vec![Some(life)]), Scripted::default()).await;
        assert!(matches!(&report.done[&0], Done::Lives(_)), "{:?}", report.done);
        assert_eq!(signed_off(&manager), 0);
        assert_eq!((report.outcome(), report.exit()), (Outcome::Inconsistent, Exit::Done));
    }
}

#[tokio::test]
async fn a_row_that_another_settled_meanwhile_is_not_signed_off_again() {
    for gone in [inactive(), None] {
        let (report, manager) =
            applied(|list| list.again = Mutex::new(vec![gone]), Scripted::default()).await;
        assert_eq!(report.done, BTreeMap::from([(0, Done::Gone)]));
        assert_eq!(signed_off(&manager), 0);
    }
}

#[tokio::test]
async fn a_row_that_is_active_again_after_its_sign_off_came_back() {
    let (report, manager) = applied(|_| (), Scripted::default()).await;
    assert!(matches!(&report.done[&0], Done::CameBack(_)), "{:?}", report.done);
    assert_eq!((signed_off(&manager), report.counts().came_back), (1, 1));
    // A source that may be 30 s old can't tell.
    let (report, _) = applied(|list| list.fresh = false, Scripted::default()).await;
    assert_eq!(report.done, BTreeMap::from([(0, Done::SignedOff)]));
}

#[tokio::test]
async fn a_sign_off_that_fails_is_tried_again_and_one_that_is_rejected_is_not() {
    let failure = || Failure::new("the manager can't reach its database");
    let active = || Some(short(sighting(1, T0)));
    let again = || Mutex::new(vec![active(), active(), active(), inactive()]);
    let answers = vec![Attempted::Failed(failure()), Attempted::Unknown(failure()), Attempted::Confirmed];
    let manager = Scripted { answers: Mutex::new(answers), ..Scripted::default() };
    let (report, manager) = applied(|list| list.again = again(), manager).await;
    assert_eq!((&report.done[&0], signed_off(&manager)), (&Done::SignedOff, 3));

    let manager =
        Scripted { answers: Mutex::new(vec![Attempted::Rejected(failure())]), ..Scripted::default() };
    let (report, manager) = applied(|list| list.again = again(), manager).await;
    assert_eq!((&report.done[&0], signed_off(&manager)), (&Done::Failed(failure().why), 1));
    assert_eq!((report.outcome(), report.exit()), (Outcome::Incomplete, Exit::CheckFailed));

    let manager =
        Scripted { answers: Mutex::new(vec![Attempted::Failed(failure()); 9]), ..Scripted::default() };
    let (report, manager) = applied(|list| list.again = Mutex::new(vec![active()]), manager).await;
    assert_eq!((&report.done[&0], signed_off(&manager)), (&Done::Failed(failure().why), 4));
}

#[tokio::test]
async fn g7_a_row_that_shows_life_between_two_tries_is_not_tried_again() {
    let written = Sighting { updated: Some(Stamp::of(T1)), ..short(sighting(1, T0)) };
    for life in [short(sighting(1, T1)), written] {
        let unknown = Attempted::Unknown(Failure::new("no acknowledgement"));
        let manager = Scripted { answers: Mutex::new(vec![unknown]), ..Scripted::default() };
        let again = vec![Some(short(sighting(1, T0))), Some(life)];
        let (report, manager) = applied(|list| list.again = Mutex::new(again), manager).await;
        assert!(matches!(&report.done[&0], Done::Lives(_)), "{:?}", report.done);
        assert_eq!(signed_off(&manager), 1);
    }
}

#[tokio::test]
async fn a_row_that_no_keep_alive_finds_is_named_and_not_written() {
    let odd = |time| Sighting { hostname: "under_score".into(), ..short(sighting(1, time)) };
    let witness = Witness::start().await;
    let list = List::of(vec![vec![odd(T0), witness.row(T0)], vec![odd(T0), witness.row(T1)]]);
    let manager = Arc::new(Scripted::default());
    let look = Options { recheck_after: Some(Duration::from_millis(20)), ..options() };
    let report =
        Reconciler::new(Box::new(list), Some(manager.clone()), policy(look)).run(&Nobody).await.unwrap();
    let Done::Failed(why) = &report.done[&0] else { panic!("{:?}", report.done) };
    assert!(why.contains("DELETE /api/v1/schedulers/1"), "{why}");
    assert_eq!(signed_off(&manager), 0);
}

/// A long inactive row 1 beside a witness, purged.
async fn purged(source: impl FnOnce(&mut List), manager: Scripted) -> (Report, Arc<Scripted>) {
    let witness = Witness::start().await;
    let old = Sighting {
        state: State::Inactive,
        updated: Some(Stamp::of("2026-11-20 00:00:00")),
        ..short(sighting(1, T0))
    };
    let mut list = List::of(vec![vec![old.clone(), witness.row(T0)], vec![old.clone(), witness.row(T1)]]);
    source(&mut list);
    let manager = Arc::new(manager);
    let look = Options {
        recheck_after: Some(Duration::from_millis(20)),
        purge_after: Some(Duration::from_secs(3600)),
        ..options()
    };
    let report =
        Reconciler::new(Box::new(list), Some(manager.clone()), policy(look)).run(&Nobody).await.unwrap();
    (report, manager)
}

#[tokio::test]
async fn g5_a_deletion_that_answers_200_and_leaves_the_row_is_a_failure() {
    let (report, manager) = purged(|_| (), Scripted { delete_fails: true, ..Scripted::default() }).await;
    assert!(
        matches!(&report.done[&0], Done::NotDeleted(why) if why.contains("but it is there")),
        "{:?}",
        report.done
    );
    assert_eq!((report.outcome(), signed_off(&manager)), (Outcome::Incomplete, 0));
    let (report, manager) = purged(|_| (), Scripted::default()).await;
    assert_eq!((&report.done[&0], manager.deleted.lock().unwrap().as_slice()), (&Done::Deleted, &[1][..]));
    assert_eq!(report.outcome(), Outcome::Repaired);
}

#[tokio::test]
async fn a_row_that_shows_life_right_before_its_deletion_is_not_deleted() {
    let active = short(sighting(1, T0));
    let heard = Sighting { state: State::Inactive, ..short(sighting(1, T1)) };
    for life in [active, heard] {
        let (report, manager) =
            purged(|list| list.again = Mutex::new(vec![Some(life)]), Scripted::default()).await;
        assert!(matches!(&report.done[&0], Done::Lives(_)), "{:?}", report.done);
        assert!(manager.deleted.lock().unwrap().is_empty());
    }
}

/// At the address of row 1, where nobody was when it was probed, somebody answers from the next look at it on.
fn comes_back(list: &mut List) {
    // A port of its own: other tests rely on nobody being at theirs.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    list.change(|row| {
        if row.id == 1 {
            row.port = port;
        }
    });
    *list.meanwhile.lock().unwrap() = Some(Box::new(move || {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        std::thread::spawn(move || {
            // Hanging up is an answer.
            listener.accept().map(drop).unwrap();
        });
    }));
}

#[tokio::test]
async fn g7_one_that_answers_right_before_its_write_or_deletion_is_left_alone() {
    let (report, manager) = applied(comes_back, Scripted::default()).await;
    assert_eq!(report.done[&0], Done::Lives("it answers at its address now".to_owned()));
    assert_eq!(signed_off(&manager), 0);
    let (report, manager) = purged(comes_back, Scripted::default()).await;
    assert_eq!(report.done[&0], Done::Lives("it answers at its address now".to_owned()));
    assert!(manager.deleted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_source_that_fails_ends_the_run_and_writes_nothing() {
    let mut list = List::of(vec![]);
    list.fails = true;
    let policy = Policy {
        look: options(),
        pattern: None,
        max_share: MaxShare::default(),
        apply: true,
        deadline: Duration::from_secs(60),
    };
    let manager = Arc::new(Scripted::default());
    let failure = Reconciler::new(Box::new(list), Some(manager), policy).run(&Nobody).await.unwrap_err();
    assert_eq!(failure.why, "a list: nobody is there");
}

#[tokio::test(start_paused = true)]
async fn looks_that_are_not_done_by_the_deadline_end_the_run() {
    let policy = Policy {
        look: Options { recheck_after: Some(Duration::from_secs(600)), ..options() },
        pattern: None,
        max_share: MaxShare::default(),
        apply: false,
        deadline: Duration::from_secs(60),
    };
    let failure =
        Reconciler::new(Box::new(List::of(vec![vec![]])), None, policy).run(&Nobody).await.unwrap_err();
    assert_eq!(failure.why, "a list: the looks were not done within --deadline 1m");
}
