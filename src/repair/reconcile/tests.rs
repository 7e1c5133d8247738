//! The writes, on a list as the source and a mock manager that takes them.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Mutex,
};

use async_trait::async_trait;

use super::*;
use crate::{
    key::{ClusterId, SchedulerKey},
    manager::{
        AttemptOptions, Contact, Filter, Freshness, HoldStart, Listed, Manager, Outcome as Attempted, Row,
        RowRead,
    },
    net::{Probe, Reach},
    repair::{
        guard::MaxShare,
        judge::Reason,
        pods::{ListPods, Pods, Zone},
        sighting::{Sighting, Stamp},
        survey::tests::{List, Nobody, options, sighting, take_turn},
        withdraw::Wanted,
    },
};

const T0: &str = "2026-11-23 20:00:00";
const T1: &str = "2026-11-23 20:00:15";
const T2: &str = "2026-11-23 20:00:30";
const T3: &str = "2026-11-23 20:00:45";

/// Answers each sign-off and deletion in turn, and notes whose it was.
#[derive(Default)]
struct Scripted {
    answers: Mutex<Vec<Attempted>>,
    signed_off: Mutex<Vec<SchedulerKey>>,
    deleted: Mutex<Vec<u64>>,
    delete_fails: bool,
    /// Whether the user may not delete.
    refused: bool,
    /// The whole rows, as each look before a deletion sees them; the last one stays.
    whole: Mutex<Vec<Option<Row>>>,
    /// What each manager says to a sign-off at every one, and what it gives to peers.
    everywhere: Mutex<Vec<Attempted>>,
    signed_off_everywhere: Mutex<usize>,
    /// The managers beside the endpoints that each of these, and each look at what peers are given, was to reach.
    others: Mutex<Vec<Vec<IpAddr>>>,
    /// Whether such a look fails once a row was deleted.
    unread: bool,
    /// How long such a look takes.
    takes: Duration,
    /// Done once what may be withdrawn is known.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    given: Vec<Row>,
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
    async fn list(&self, _: &Filter) -> Result<Listed, Failure> {
        unreachable!("reconcile reads from its source")
    }
    async fn register(&self, _: &SchedulerKey, _: &crate::manager::Registered) -> Result<(), Failure> {
        unreachable!("reconcile registers nothing")
    }
    fn freshness(&self) -> Freshness {
        Freshness::Fresh
    }
    fn watch(&self) -> tokio::sync::watch::Receiver<Contact> {
        tokio::sync::watch::channel(Contact::default()).1
    }
}

#[async_trait]
impl Withdraw for Scripted {
    async fn may_delete(&self) -> Result<bool, Failure> {
        if let Some(act) = self.meanwhile.lock().unwrap().take() {
            act();
        }
        Ok(!self.refused)
    }
    async fn sign_off_everywhere(
        &self,
        _: &SchedulerKey,
        others: &[IpAddr],
        _: Duration,
    ) -> Result<Vec<(String, Attempted)>, Failure> {
        self.others.lock().unwrap().push(others.to_vec());
        *self.signed_off_everywhere.lock().unwrap() += 1;
        let said = self.everywhere.lock().unwrap();
        let said = if said.is_empty() { vec![Attempted::Confirmed] } else { said.clone() };
        Ok((1..).map(|n| format!("manager {n}")).zip(said).collect())
    }
    async fn whole(
        &self,
        id: u64,
        _: (u64, &str, Option<std::net::IpAddr>),
    ) -> Result<Option<(Row, String)>, Failure> {
        tokio::time::sleep(self.takes).await;
        if self.unread && !self.deleted.lock().unwrap().is_empty() {
            return Err(Failure::new("connection refused"));
        }
        let row = take_turn(&mut self.whole.lock().unwrap()).unwrap_or_else(|| Some(whole(id, T0)));
        Ok(row.map(|row| (row, "{}".to_owned())))
    }
    async fn delete(&self, id: u64) -> Result<(), Failure> {
        self.deleted.lock().unwrap().push(id);
        if self.delete_fails {
            Err(Failure::new("the manager said that row 1 was deleted, but it is there"))
        } else {
            Ok(())
        }
    }
    async fn given(
        &self,
        _: ClusterId,
        others: &[IpAddr],
    ) -> Result<Vec<(String, Result<Vec<Row>, Failure>)>, Failure> {
        self.others.lock().unwrap().push(others.to_vec());
        Ok(vec![("manager 1".to_owned(), Ok(self.given.clone()))])
    }
}

/// An inactive row at the address of row 1, as the manager shows it.
fn whole(id: u64, heard: &str) -> Row {
    Row {
        id,
        hostname: format!("s-{id}"),
        ip: "127.0.0.1".to_owned(),
        port: 1,
        state: State::Inactive,
        cluster_id: 1,
        created_at: None,
        last_keep_alive_at: Some(heard.to_owned()),
        keep_alive_interval: None,
        updated_at: None,
    }
}

/// What is found at each port, where it isn't nobody.
#[derive(Clone, Default)]
struct Ports(Arc<Mutex<BTreeMap<u16, Probe>>>);

impl Ports {
    fn set(&self, port: u16, probe: Probe) {
        self.0.lock().unwrap().insert(port, probe);
    }
}

#[async_trait]
impl Reach for Ports {
    async fn probe(&self, addr: SocketAddr, _: Duration) -> Probe {
        let found = self.0.lock().unwrap().get(&addr.port()).cloned();
        // Nobody is where nobody can be, but the kernel's own.
        let found = found.filter(|_| NEW.iter().any(|ip| addr.ip().to_string() == *ip));
        found.unwrap_or_else(|| Probe::Nobody("connection refused".to_owned()))
    }
}

const WITNESS: u16 = 99;
const DEAD: u16 = 1;

/// Somebody who lives, and answers.
fn witness(time: &str) -> Sighting {
    Sighting { port: WITNESS, ..sighting(99, time) }
}

fn short(mut row: Sighting) -> Sighting {
    row.interval_ms = NonZeroU32::new(1);
    row
}

/// Repairs all, within four minutes.
fn policy(look: Options) -> Policy {
    Policy {
        look,
        pattern: None,
        limits: Limits { max_share: MaxShare::percent(100), without_times: false },
        apply: true,
        deadline: Duration::from_secs(240),
    }
}

/// A reconciler of this list, over a network in which only the witness answers.
fn reconciler(list: List, manager: &Arc<Scripted>, look: Options) -> (Reconciler, Ports) {
    let ports = Ports::default();
    ports.set(WITNESS, Probe::Scheduler);
    let prober = Prober::new(ports.clone());
    (Reconciler::new(Box::new(list), Some(manager.clone()), prober, policy(look)), ports)
}

fn quick() -> Options {
    Options { recheck_after: Some(Duration::from_millis(20)), ..options() }
}

/// A row that the manager has heard nothing of since T0.
fn dead() -> Sighting {
    Sighting { updated: Some(Stamp::of(T0)), ..short(sighting(1, T0)) }
}

/// A dead row 1 beside a witness, and how the run ended: what became of it, who was signed off.
async fn applied(source: impl FnOnce(&mut List, &Ports), manager: Scripted) -> (Report, Arc<Scripted>) {
    let list = List::of(vec![vec![dead(), witness(T0)], vec![dead(), witness(T1)]]);
    run(list, source, manager, quick()).await
}

async fn run(
    list: List,
    source: impl FnOnce(&mut List, &Ports),
    manager: Scripted,
    look: Options,
) -> (Report, Arc<Scripted>) {
    let manager = Arc::new(manager);
    (run_by(list, source, &manager, look).await, manager)
}

async fn run_by(
    mut list: List,
    source: impl FnOnce(&mut List, &Ports),
    manager: &Arc<Scripted>,
    look: Options,
) -> Report {
    let (_, ports) = reconciler(List::of(vec![]), manager, quick());
    source(&mut list, &ports);
    let mut reconciler =
        Reconciler::new(Box::new(list), Some(manager.clone()), Prober::new(ports), policy(look));
    reconciler.run(&Nobody).await.unwrap()
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
    let (report, manager) = applied(|list, _| list.again = Mutex::new(again), Scripted::default()).await;
    assert_eq!(report.done, BTreeMap::from([(0, Done::SignedOff)]));
    assert_eq!(manager.signed_off.lock().unwrap()[0].to_string(), "s-1/127.0.0.1 in cluster 1");
    assert_eq!((report.outcome(), report.exit()), (Outcome::Repaired, Exit::Done));
}

#[tokio::test]
async fn g7_a_row_that_shows_life_right_before_its_write_is_contested_and_not_written() {
    let anew = Sighting { port: 2, ..short(sighting(1, T0)) };
    for life in [short(sighting(1, T1)), anew] {
        let (report, manager) =
            applied(|list, _| list.again = Mutex::new(vec![Some(life)]), Scripted::default()).await;
        assert!(matches!(&report.done[&0], Done::Lives(_)), "{:?}", report.done);
        assert_eq!(signed_off(&manager), 0);
        assert_eq!((report.outcome(), report.exit()), (Outcome::Inconsistent, Exit::Done));
    }
}

#[tokio::test]
async fn a_row_that_another_settled_meanwhile_is_not_signed_off_again() {
    for gone in [inactive(), None] {
        let (report, manager) =
            applied(|list, _| list.again = Mutex::new(vec![gone]), Scripted::default()).await;
        assert_eq!(report.done, BTreeMap::from([(0, Done::Gone)]));
        assert_eq!(signed_off(&manager), 0);
    }
}

#[tokio::test]
async fn a_row_that_is_active_again_after_its_sign_off_came_back() {
    let (report, manager) = applied(|_, _| (), Scripted::default()).await;
    assert!(matches!(&report.done[&0], Done::CameBack(_)), "{:?}", report.done);
    assert_eq!((signed_off(&manager), report.counts().came_back), (1, 1));
    // A source that may be 30 s old can't tell.
    let (report, _) = applied(|list, _| list.fresh = false, Scripted::default()).await;
    assert_eq!(report.done, BTreeMap::from([(0, Done::SignedOff)]));
}

#[tokio::test]
async fn a_sign_off_that_fails_is_tried_again_and_one_that_is_rejected_is_not() {
    let failure = || Failure::new("the manager can't reach its database");
    let active = || Some(short(sighting(1, T0)));
    let again = || Mutex::new(vec![active(), active(), active(), inactive()]);
    let answers = vec![Attempted::Failed(failure()), Attempted::Failed(failure()), Attempted::Confirmed];
    let manager = Scripted { answers: Mutex::new(answers), ..Scripted::default() };
    let (report, manager) = applied(|list, _| list.again = again(), manager).await;
    assert_eq!((&report.done[&0], signed_off(&manager)), (&Done::SignedOff, 3));

    let manager =
        Scripted { answers: Mutex::new(vec![Attempted::Rejected(failure())]), ..Scripted::default() };
    let (report, manager) = applied(|list, _| list.again = again(), manager).await;
    assert_eq!((&report.done[&0], signed_off(&manager)), (&Done::Failed(failure().why), 1));
    assert_eq!((report.outcome(), report.exit()), (Outcome::Incomplete, Exit::CheckFailed));

    let manager =
        Scripted { answers: Mutex::new(vec![Attempted::Failed(failure()); 9]), ..Scripted::default() };
    let (report, manager) = applied(|list, _| list.again = Mutex::new(vec![active()]), manager).await;
    assert_eq!((&report.done[&0], signed_off(&manager)), (&Done::Failed(failure().why), 4));
}

#[tokio::test]
async fn g7_a_row_that_shows_life_between_two_tries_is_not_tried_again() {
    let written = Sighting { updated: Some(Stamp::of(T1)), ..short(sighting(1, T0)) };
    for life in [short(sighting(1, T1)), written] {
        let failed = Attempted::Failed(Failure::new("the manager can't reach its database"));
        let manager = Scripted { answers: Mutex::new(vec![failed]), ..Scripted::default() };
        let again = vec![Some(short(sighting(1, T0))), Some(life)];
        let (report, manager) = applied(|list, _| list.again = Mutex::new(again), manager).await;
        assert!(matches!(&report.done[&0], Done::Lives(_)), "{:?}", report.done);
        assert_eq!(signed_off(&manager), 1);
    }
}

/// Its first sign-off has no answer; it is looked at before that, and once nothing can be applied any more.
async fn unanswered(then: Option<Sighting>, fresh: bool) -> (Done, usize, Outcome, Duration) {
    let unknown = Attempted::Unknown(Failure::new("cut"));
    let manager =
        Scripted { answers: Mutex::new(vec![unknown, Attempted::Confirmed]), ..Scripted::default() };
    let began = Instant::now();
    let (report, manager) = applied(
        |list, _| {
            list.again = Mutex::new(vec![Some(dead()), then]);
            list.fresh = fresh;
        },
        manager,
    )
    .await;
    (report.done[&0].clone(), signed_off(&manager), report.outcome(), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn g7_a_sign_off_without_an_answer_is_waited_out_and_never_begun_again() {
    let (done, begun, outcome, took) = unanswered(inactive(), true).await;
    assert_eq!((done, begun, outcome), (Done::SignedOff, 1, Outcome::Repaired));
    assert!(took >= Duration::from_secs(60), "{took:?}");
    let given_back = Sighting { updated: Some(Stamp::of(T1)), ..dead() };
    let (done, begun, outcome, took) = unanswered(Some(given_back), true).await;
    assert!(matches!(&done, Done::CameBack(why) if why.contains("no answer")), "{done:?}");
    assert_eq!((begun, outcome), (1, Outcome::Inconsistent));
    assert!(took >= Duration::from_secs(60), "{took:?}");
    let (done, begun, outcome, _) = unanswered(Some(dead()), true).await;
    assert!(matches!(&done, Done::Failed(why) if why.contains("it was not applied")), "{done:?}");
    assert_eq!((begun, outcome), (1, Outcome::Incomplete));
    // Nobody can tell, over gRPC, and its list is 30 s old.
    let untold = Sighting { updated: None, ..dead() };
    let (done, begun, _, took) = unanswered(Some(untold), false).await;
    assert!(matches!(&done, Done::CameBack(_)), "{done:?}");
    assert_eq!(begun, 1);
    assert!(took >= Duration::from_secs(91), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn g7_what_is_not_known_by_the_deadline_is_said_and_counts_as_begun() {
    let manager = Arc::new(Scripted {
        answers: Mutex::new(vec![Attempted::Unknown(Failure::new("cut"))]),
        ..Scripted::default()
    });
    // So soon after its last keep-alive that the times alone say nothing against it.
    let given_back = Sighting { updated: Some(Stamp::of("2026-11-23 20:00:05")), ..dead() };
    let mut list = List::of(vec![
        vec![dead(), witness(T0)],
        vec![dead(), witness(T1)],
        // It was applied, and undone, before the next run.
        vec![given_back.clone(), witness(T2)],
        vec![given_back.clone(), witness(T3)],
        vec![given_back.clone(), witness(T0)],
        vec![given_back, witness(T1)],
    ]);
    list.again = Mutex::new(vec![Some(dead())]);
    let (mut reconciler, _) = reconciler(list, &manager, quick());
    reconciler.policy.deadline = Duration::from_secs(30);
    let report = reconciler.run(&Nobody).await.unwrap();
    assert!(matches!(&report.done[&0], Done::Unanswered(_)), "{:?}", report.done);
    assert_eq!((report.outcome(), report.counts().failed), (Outcome::Incomplete, 1));
    for _ in 0..2 {
        let report = reconciler.run(&Nobody).await.unwrap();
        assert_eq!(report.judged[0].verdict, Verdict::Contested);
        assert_eq!(report.judged[0].reason, Reason::CameBack);
        assert_eq!(signed_off(&manager), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn g3_a_row_that_lived_through_a_later_run_is_signed_off_once_more() {
    let lives = |time| Sighting { updated: Some(Stamp::of(time)), ..short(sighting(1, time)) };
    let mut list = List::of(vec![
        vec![dead(), witness(T0)],
        vec![dead(), witness(T1)],
        // Somebody made it active, and nothing is heard of it: that is no life.
        vec![Sighting { updated: Some(Stamp::of(T1)), ..dead() }, witness(T0)],
        vec![Sighting { updated: Some(Stamp::of(T1)), ..dead() }, witness(T1)],
        vec![lives(T0), witness(T0)],
        vec![lives(T2), witness(T1)],
        vec![lives(T2), witness(T0)],
        vec![lives(T2), witness(T1)],
    ]);
    let again = vec![Some(dead()), inactive(), Some(lives(T2)), inactive()];
    list.again = Mutex::new(again);
    let manager = Arc::new(Scripted::default());
    let (mut reconciler, _) = reconciler(list, &manager, quick());
    for (verdict, so_far) in
        [(Verdict::Dead, 1), (Verdict::Contested, 1), (Verdict::Live, 1), (Verdict::Dead, 2)]
    {
        let report = reconciler.run(&Nobody).await.unwrap();
        assert_eq!((report.judged[0].verdict, signed_off(&manager)), (verdict, so_far));
    }
}

#[tokio::test(start_paused = true)]
async fn g7_no_write_begins_after_the_deadline_however_long_the_last_look_took() {
    let slow = |list: &mut List, _: &Ports| list.takes = Duration::from_secs(240);
    let (report, manager) = applied(slow, Scripted::default()).await;
    assert!(
        matches!(&report.done[&0], Done::Failed(why) if why.contains("out of time")),
        "{:?}",
        report.done
    );
    assert_eq!(signed_off(&manager), 0);
    let slow = Scripted { takes: Duration::from_secs(240), ..Scripted::default() };
    let (report, manager) = left(|_, _| (), slow).await;
    assert!(
        matches!(&report.done[&0], Done::NotWithdrawn(why) if why.contains("out of time")),
        "{:?}",
        report.done
    );
    assert!(manager.deleted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_row_that_is_dead_whatever_takes_connections_there_is_signed_off() {
    // Its hostname lives elsewhere, by a row that was made since; a mesh answers for it.
    let dead = Sighting { created: Some(Stamp::of("2026-11-20 00:00:00")), ..dead() };
    let successor = |time| Sighting {
        hostname: "s-1".into(),
        created: Some(Stamp::of("2026-11-23 20:00:10")),
        ..short(witness(time))
    };
    for takes in [Probe::Foreign("it hung up".to_owned()), Probe::Proxy("another pod's".to_owned())] {
        let list = List::of(vec![vec![dead.clone(), successor(T0)], vec![dead.clone(), successor(T1)]]);
        let taken = |_: &mut List, ports: &Ports| ports.set(DEAD, takes.clone());
        let (report, manager) = run(list, taken, Scripted::default(), quick()).await;
        assert_eq!((report.judged[0].verdict, signed_off(&manager)), (Verdict::Replaced, 1), "{takes:?}");
    }
}

#[tokio::test]
async fn a_cluster_that_the_manager_does_not_have_is_named() {
    let scope = Scope::Clusters(vec![1.try_into().unwrap(), 99.try_into().unwrap()]);
    for (clusters, said) in [
        (Some(vec![1, 2]), "the manager has no cluster 99; its clusters are 1, 2"),
        (Some(vec![1, 99]), "cluster 99 has no row"),
        (None, "cluster 99 has no row"),
    ] {
        let list = |list: &mut List, _: &Ports| list.clusters = clusters;
        let rows = List::of(vec![vec![witness(T0)], vec![witness(T1)]]);
        let look = Options { scope: scope.clone(), ..quick() };
        let (report, _) = run(rows, list, Scripted::default(), look).await;
        assert_eq!(report.empty.iter().map(ToString::to_string).collect::<Vec<_>>(), [said]);
        let code = if said.contains("no cluster") { Exit::Usage } else { Exit::Done };
        assert_eq!(report.exit(), code);
    }
}

#[tokio::test]
async fn a_row_that_no_keep_alive_finds_is_named_and_not_written() {
    let odd = |time| Sighting { hostname: "under_score".into(), ..short(sighting(1, time)) };
    let list = List::of(vec![vec![odd(T0), witness(T0)], vec![odd(T0), witness(T1)]]);
    let (report, manager) = run(list, |_, _| (), Scripted::default(), quick()).await;
    let Done::Failed(why) = &report.done[&0] else { panic!("{:?}", report.done) };
    assert!(why.contains("DELETE /api/v1/schedulers/1"), "{why}");
    assert_eq!(signed_off(&manager), 0);
}

const WITHDRAWN: Done = Done::Withdrawn { still_given: None };

/// A long inactive row 1 beside a witness, withdrawn.
async fn left(source: impl FnOnce(&mut List, &Ports), manager: Scripted) -> (Report, Arc<Scripted>) {
    let manager = Arc::new(manager);
    (left_by(source, &manager).await, manager)
}

async fn left_by(source: impl FnOnce(&mut List, &Ports), manager: &Arc<Scripted>) -> Report {
    let old = Sighting {
        state: State::Inactive,
        updated: Some(Stamp::of("2026-11-20 00:00:00")),
        ..short(sighting(1, T0))
    };
    let list = List::of(vec![vec![old.clone(), witness(T0)], vec![old, witness(T1)]]);
    let wanted = Wanted { left: Some(Duration::from_secs(3600)), ..Wanted::default() };
    run_by(list, source, manager, Options { wanted, ..quick() }).await
}

#[tokio::test]
async fn g5_a_deletion_that_answers_200_and_leaves_the_row_is_a_failure() {
    let (report, manager) = left(|_, _| (), Scripted { delete_fails: true, ..Scripted::default() }).await;
    assert!(
        matches!(&report.done[&0], Done::NotWithdrawn(why) if why.contains("but it is there")),
        "{:?}",
        report.done
    );
    assert_eq!((report.outcome(), signed_off(&manager)), (Outcome::Incomplete, 0));
    let (report, manager) = left(|_, _| (), Scripted::default()).await;
    assert_eq!((&report.done[&0], manager.deleted.lock().unwrap().as_slice()), (&WITHDRAWN, &[1][..]));
    assert_eq!(report.outcome(), Outcome::Repaired);
}

#[tokio::test]
async fn g7_a_row_that_is_not_as_it_was_judged_right_before_its_deletion_is_not_deleted() {
    let as_judged = || whole(1, T0);
    let active = Row { state: State::Active, ..as_judged() };
    let elsewhere = Row { port: 2, ..as_judged() };
    for life in [active, whole(1, T1), elsewhere] {
        // Before the sign-off, and after it.
        for (looks, signed_off) in [(vec![Some(life.clone())], 0), (vec![Some(as_judged()), Some(life)], 1)] {
            let manager = Scripted { whole: Mutex::new(looks), ..Scripted::default() };
            let (report, manager) = left(|_, _| (), manager).await;
            assert!(matches!(&report.done[&0], Done::Lives(_)), "{:?}", report.done);
            assert_eq!(*manager.signed_off_everywhere.lock().unwrap(), signed_off);
            assert!(manager.deleted.lock().unwrap().is_empty());
        }
    }
    let timeless = Row { last_keep_alive_at: None, ..as_judged() };
    let manager = Scripted { whole: Mutex::new(vec![Some(timeless)]), ..Scripted::default() };
    let (report, _) = left(|_, _| (), manager).await;
    assert!(matches!(&report.done[&0], Done::NotWithdrawn(_)), "{:?}", report.done);
}

#[tokio::test]
async fn a_row_is_signed_off_at_every_manager_before_it_is_deleted_and_looked_for_afterwards() {
    let failed = || Attempted::Failed(Failure::new("connection refused"));
    let unknown = || Attempted::Unknown(Failure::new("no acknowledgement"));
    let of = |everywhere: Vec<Attempted>, given: Vec<Row>| async {
        let manager = Scripted { everywhere: Mutex::new(everywhere), given, ..Scripted::default() };
        let (report, manager) = left(|_, _| (), manager).await;
        let deleted = manager.deleted.lock().unwrap().len();
        (report.done[&0].clone(), deleted)
    };
    assert_eq!(of(vec![Attempted::Confirmed; 3], vec![whole(2, T0)]).await, (WITHDRAWN, 1));
    for (said, given, words) in [
        (
            vec![Attempted::Confirmed, failed()],
            vec![],
            "manager 2 may serve an old list for 3 min: connection refused",
        ),
        (vec![Attempted::Confirmed], vec![whole(1, T0)], "manager 1 still gives it to peers"),
    ] {
        let (done, deleted) = of(said, given).await;
        assert!(
            matches!(&done, Done::Withdrawn { still_given: Some(why) } if why.contains(words)),
            "{done:?}"
        );
        assert_eq!(deleted, 1);
    }
    let (done, deleted) = of(vec![failed(), unknown()], vec![]).await;
    assert!(matches!(&done, Done::NotWithdrawn(why) if why.contains("no acknowledgement")), "{done:?}");
    assert_eq!(deleted, 0);
    assert_eq!(of(vec![Attempted::Absent], vec![]).await, (Done::Gone, 0));
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_is_seen_by_a_look() {
    let fails = |last: Option<Row>| {
        let whole = Mutex::new(vec![Some(whole(1, T0)), Some(whole(1, T0)), last]);
        left(|_, _| (), Scripted { delete_fails: true, whole, ..Scripted::default() })
    };
    let (report, _) = fails(None).await;
    assert_eq!((&report.done[&0], report.outcome()), (&WITHDRAWN, Outcome::Repaired));
    let (report, _) = fails(Some(whole(1, T0))).await;
    assert!(matches!(report.done[&0], Done::NotWithdrawn(_)), "{:?}", report.done);
}

#[tokio::test]
async fn g7_a_row_that_may_have_been_deleted_is_said_not_to_be_withdrawn_and_is_not_deleted_twice() {
    let created = Some(Stamp::of("2026-11-20 00:00:00"));
    let inactive = Sighting { state: State::Inactive, created, ..dead() };
    let manager = Scripted { delete_fails: true, unread: true, ..Scripted::default() };
    let manager = Arc::new(manager);
    let look = |time| vec![inactive.clone(), successor(time)];
    let list = List::of(vec![look(T1), look(T2), look(T2), look(T3)]);
    let (mut reconciler, _) = reconciler(list, &manager, Options { wanted: REPLACED, ..quick() });
    let report = reconciler.run(&Nobody).await.unwrap();
    assert!(
        matches!(&report.done[&0], Done::NotWithdrawn(why) if why.contains("whether it is gone is not known")),
        "{:?}",
        report.done
    );
    assert_eq!(report.outcome(), Outcome::Incomplete);
    // It is there again: put back, or never gone.
    let report = reconciler.run(&Nobody).await.unwrap();
    assert!(matches!(&report.done[&0], Done::CameBack(_)), "{:?}", report.done);
    assert_eq!(manager.deleted.lock().unwrap().len(), 1);
}

/// Whose row 99 is by now what row 1 was.
fn successor(time: &str) -> Sighting {
    let created = Some(Stamp::of("2026-11-23 20:00:01"));
    Sighting { hostname: "s-1".into(), created, ..short(witness(time)) }
}

/// Row 1 of a hostname that lives in row 99 by now, and how the run ended.
async fn replaced(now: Sighting, manager: Scripted) -> (Report, Arc<Scripted>) {
    let made = Some(Stamp::of("2026-11-20 00:00:00"));
    let now = Sighting { created: made, ..now };
    let list = List::of(vec![vec![now.clone(), successor(T1)], vec![now, successor(T2)]]);
    run(list, |_, _| (), manager, Options { wanted: REPLACED, ..quick() }).await
}

const REPLACED: Wanted = Wanted { replaced: true, left: None, without_times: false };

#[tokio::test]
async fn a_replaced_row_is_signed_off_and_withdrawn_in_the_run_that_sees_it() {
    let inactive = Sighting { state: State::Inactive, ..dead() };
    let (report, manager) = replaced(inactive, Scripted::default()).await;
    assert_eq!((&report.done[&0], signed_off(&manager)), (&WITHDRAWN, 0));
    assert_eq!((report.outcome(), report.counts().given), (Outcome::Repaired, 0));
    let (report, manager) = replaced(dead(), Scripted::default()).await;
    // The list shows it active after its sign-off.
    assert!(matches!(report.done[&0], Done::CameBack(_)), "{:?}", report.done);
    assert!(manager.deleted.lock().unwrap().is_empty());
}

/// Three schedulers' pods, listed with one address after the other; the last list stays. None: it fails.
struct Lists(Zone, Mutex<Vec<Option<[&'static str; 3]>>>);

#[async_trait]
impl ListPods for Lists {
    fn zone(&self) -> &Zone {
        &self.0
    }
    async fn pods(&self) -> Result<Pods, Failure> {
        let Some(ips) = take_turn(&mut self.1.lock().unwrap()).unwrap() else {
            return Err(Failure::new("the API server does not answer"));
        };
        let pods = ips.iter().enumerate().map(|(n, ip)| {
            serde_json::json!({
                "metadata": { "name": format!("s-{n}"), "uid": ip },
                "spec": { "subdomain": "sched", "containers": [] },
                "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] },
            })
        });
        let manager = serde_json::json!({
            "metadata": { "name": "manager-0", "uid": "m", "labels": { "component": "manager" } },
            "spec": { "containers": [] },
            "status": { "phase": "Running", "podIP": MANAGER, "podIPs": [{ "ip": MANAGER }] },
        });
        let items: Vec<_> = pods.chain([manager]).collect();
        let list =
            serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
        Ok(Pods::of_json(self.0.clone(), Instant::now(), list.to_string().as_bytes()).unwrap())
    }
}

const MANAGER: &str = "10.9.0.1";
const OLD: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
const NEW: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];

/// How each run ends over a rolling update of three pods: before it, and after it, with these lists of pods.
async fn rolled(lists: Vec<Option<[&'static str; 3]>>) -> ([Report; 2], Arc<Scripted>) {
    let name = |n: usize| format!("s-{n}.sched.ns.svc.cluster.local").into_boxed_str();
    let old = |time: &str, state| {
        let one = |(n, ip): (usize, &&str)| Sighting {
            hostname: name(n),
            ip: Some(ip.parse().unwrap()),
            state,
            created: Some(Stamp::of("2026-11-20 00:00:00")),
            ..short(sighting(n as u64 + 1, time))
        };
        OLD.iter().enumerate().map(one).collect::<Vec<_>>()
    };
    let new = |time: &str| {
        let one = |(n, ip): (usize, &&str)| Sighting {
            id: 11 + n as u64,
            hostname: name(n),
            ip: Some(ip.parse().unwrap()),
            created: Some(Stamp::of("2026-11-23 20:00:20")),
            ..short(witness(time))
        };
        NEW.iter().enumerate().map(one).collect::<Vec<_>>()
    };
    let (gone, active) = (old(T1, State::Inactive), State::Active);
    let after = |time| [gone.clone(), new(time)].concat();
    let looks = vec![old(T0, active), old(T1, active), after(T2), after(T3)];
    let manager = Scripted::default();
    *manager.whole.lock().unwrap() = OLD
        .iter()
        .flat_map(|ip| {
            let row = Row { ip: (*ip).to_owned(), port: 1, ..whole(1, T1) };
            [Some(row.clone()), Some(row)]
        })
        .collect();
    let manager = Arc::new(manager);
    let (mut reconciler, _) = reconciler(List::of(looks), &manager, Options { wanted: REPLACED, ..quick() });
    reconciler.policy.limits.max_share = MaxShare::Count(1);
    let zone = Zone::new("ns", "cluster.local");
    reconciler.pods = Some(Watch::new(Box::new(Lists(zone, Mutex::new(lists)))));
    let before = reconciler.run(&Nobody).await.unwrap();
    ([before, reconciler.run(&Nobody).await.unwrap()], manager)
}

#[tokio::test]
async fn g7_pods_that_this_process_saw_go_are_withdrawn_past_the_share_and_no_others() {
    let counted = |report: &Report| (report.counts().withdrawn, report.plan.held.len(), report.outcome());
    let (seen, manager) = rolled(vec![Some(OLD), Some(NEW)]).await;
    assert_eq!(counted(&seen[0]), (0, 0, Outcome::Consistent));
    assert_eq!(counted(&seen[1]), (3, 0, Outcome::Repaired), "{:?}", seen[1].done);
    let others = manager.others.lock().unwrap().clone();
    assert_eq!(
        others,
        vec![vec![MANAGER.parse::<IpAddr>().unwrap()]; 6],
        "each is signed off, and looked for, there too"
    );
    // It saw none of them there.
    let (unseen, _) = rolled(vec![Some(NEW)]).await;
    assert_eq!(counted(&unseen[1]), (0, 1, Outcome::HeldBack));
    // They are there.
    let (there, _) = rolled(vec![Some(OLD)]).await;
    assert_eq!(counted(&there[1]), (0, 0, Outcome::Consistent));
    // Nobody can tell.
    let (untold, _) = rolled(vec![Some(OLD), None]).await;
    assert_eq!(counted(&untold[1]), (0, 0, Outcome::Consistent));
    assert_eq!(untold[1].no_pods.as_deref(), Some("the API server does not answer"));
}

#[tokio::test]
async fn without_a_user_who_may_delete_a_row_stays_and_grant_is_named() {
    let inactive = Sighting { state: State::Inactive, ..dead() };
    let (report, manager) = replaced(inactive, Scripted { refused: true, ..Scripted::default() }).await;
    assert!(report.done.is_empty() && manager.deleted.lock().unwrap().is_empty());
    assert!(report.no_withdrawal.as_deref().is_some_and(|why| why.contains("signoff grant")));
    assert_eq!((report.outcome(), report.exit()), (Outcome::Inconsistent, Exit::Done));
    assert_eq!(report.counts().given, 1);
}

/// At the address of row 1, where nobody was when it was probed, a scheduler answers from the next look at it on.
fn comes_back(list: &mut List, ports: &Ports) {
    let ports = ports.clone();
    *list.meanwhile.lock().unwrap() = Some(Box::new(move || ports.set(DEAD, Probe::Scheduler)));
}

#[tokio::test]
async fn g7_one_that_answers_right_before_its_write_or_deletion_is_left_alone() {
    let (report, manager) = applied(comes_back, Scripted::default()).await;
    assert_eq!(report.done[&0], Done::Lives("it answers at its address now".to_owned()));
    assert_eq!(signed_off(&manager), 0);
    let manager = Arc::new(Scripted::default());
    let answers = |_: &mut List, ports: &Ports| {
        let ports = ports.clone();
        *manager.meanwhile.lock().unwrap() = Some(Box::new(move || ports.set(DEAD, Probe::Scheduler)));
    };
    let report = left_by(answers, &manager).await;
    assert_eq!(report.done[&0], Done::Lives("it answers at its address now".to_owned()));
    assert!(manager.deleted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn g7_what_was_judged_by_a_mute_address_is_left_alone_where_a_proxy_answers_right_before_its_write() {
    let taken = |list: &mut List, ports: &Ports| {
        let ports = ports.clone();
        let proxy = Probe::Proxy("a proxy ends TLS there".to_owned());
        *list.meanwhile.lock().unwrap() = Some(Box::new(move || ports.set(DEAD, proxy)));
    };
    let (report, manager) = applied(taken, Scripted::default()).await;
    assert_eq!(report.done[&0], Done::Failed("a proxy ends TLS there".to_owned()));
    assert_eq!(signed_off(&manager), 0);
}

#[tokio::test]
async fn a_source_that_fails_ends_the_run_and_writes_nothing() {
    let mut list = List::of(vec![]);
    list.fails = true;
    let policy = Policy {
        look: options(),
        pattern: None,
        limits: Limits::default(),
        apply: true,
        deadline: Duration::from_secs(60),
    };
    let manager = Arc::new(Scripted::default());
    let failure = Reconciler::new(Box::new(list), Some(manager), Prober::network(), policy)
        .run(&Nobody)
        .await
        .unwrap_err();
    assert_eq!(failure.why, "a list: nobody is there");
}

#[tokio::test(start_paused = true)]
async fn looks_that_are_not_done_by_the_deadline_end_the_run() {
    let policy = Policy {
        look: Options { recheck_after: Some(Duration::from_secs(600)), ..options() },
        pattern: None,
        limits: Limits::default(),
        apply: false,
        deadline: Duration::from_secs(60),
    };
    let failure = Reconciler::new(Box::new(List::of(vec![vec![]])), None, Prober::network(), policy)
        .run(&Nobody)
        .await
        .unwrap_err();
    assert_eq!(failure.why, "a list: the looks were not done within --deadline 1m");
}
