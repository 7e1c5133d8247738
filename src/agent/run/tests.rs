//! What an agent says of itself: each field of its status, in the situations that it is for.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::{
    simulated::{self, Known},
    *,
};
use crate::{
    agent::{
        arrivals::Arrivals,
        scheduler::Observation,
        socket::status::{
            Degradation, MarkStatus, PendingStatus, RowKnown, RowStatus, RowWord, SchedulerState,
        },
        succession::standing::Mode,
    },
    manager::{
        AttemptOptions, Contact, Failure, Filter, Held, HoldStart, Listed, Outcome, Registered, Row, RowRead,
        RowState, State,
    },
    net::{Probe, Prober, Reach},
    spool::{
        Spool,
        record::{Cause, Record, RecordId, What},
    },
};

/// A manager that does as it is told.
struct Told {
    /// What comes of sign-offs, one after the other; the last one again and again.
    outcomes: Mutex<VecDeque<(Duration, Outcome)>>,
    row: Mutex<RowState>,
    rows: Vec<Row>,
    /// What it lists of an address; none while it is away.
    of_an_address: Mutex<Option<Vec<Row>>>,
    /// What it lists may be as old as over gRPC.
    is_old: AtomicBool,
    /// The keys that were signed off.
    signed_off: Mutex<Vec<SchedulerKey>>,
    contact: watch::Sender<Contact>,
}

/// A hold that is never lost.
struct Unbroken;

#[async_trait]
impl Held for Unbroken {
    async fn lost(&mut self) -> Failure {
        std::future::pending().await
    }
    async fn release(self: Box<Self>, _: Duration) -> Outcome {
        Outcome::Confirmed
    }
}

#[async_trait]
impl Manager for Told {
    async fn sign_off(&self, key: &SchedulerKey, options: AttemptOptions) -> Outcome {
        self.signed_off.lock().unwrap().push(key.clone());
        let (takes, outcome) = {
            let mut outcomes = self.outcomes.lock().unwrap();
            if outcomes.len() > 1 { outcomes.pop_front().unwrap() } else { outcomes[0].clone() }
        };
        tokio::time::sleep(takes.min(options.limit)).await;
        outcome
    }
    async fn hold(&self, _: &SchedulerKey) -> Result<HoldStart, Failure> {
        Ok(HoldStart::Open(Box::new(Unbroken)))
    }
    async fn read_row(&self, _: &SchedulerKey) -> Result<RowRead, Failure> {
        let state = *self.row.lock().unwrap();
        let registered =
            (state != RowState::Absent).then(|| Registered { port: 8002, ..Registered::default() });
        Ok(RowRead { state, freshness: Freshness::Fresh, registered, updated: None })
    }
    async fn list(&self, filter: &Filter) -> Result<Listed, Failure> {
        let of_an_address = self.of_an_address.lock().unwrap().clone();
        let Some(of_an_address) = of_an_address else { return Err(Failure::new("away")) };
        let rows = if matches!(filter, Filter::Ip(_)) { of_an_address } else { self.rows.clone() };
        let is_old = self.is_old.load(Ordering::SeqCst);
        Ok(Listed { rows, freshness: if is_old { Freshness::Within30s } else { Freshness::Fresh } })
    }
    async fn register(&self, _: &SchedulerKey, _: &Registered) -> Result<(), Failure> {
        *self.row.lock().unwrap() = RowState::Inactive;
        Ok(())
    }
    fn freshness(&self) -> Freshness {
        Freshness::Fresh
    }
    fn watch(&self) -> watch::Receiver<Contact> {
        self.contact.subscribe()
    }
}

/// Those of the two rows are a scheduler's each.
struct TheRowsAnswer;

#[async_trait]
impl Reach for TheRowsAnswer {
    async fn probe(&self, at: SocketAddr, _: Duration) -> Probe {
        let theirs = ["10.0.0.7", "10.0.0.8"].contains(&at.ip().to_string().as_str());
        if theirs { Probe::Scheduler } else { Probe::Nobody("connection refused".into()) }
    }
}

/// One agent, and what is around it.
struct Scene {
    dir: tempfile::TempDir,
    manager: Arc<Told>,
    see: mpsc::Sender<Observation>,
    hangs: Arc<AtomicBool>,
    commands: Commands,
    /// What the configuration says by now.
    named: Arc<Mutex<Settings>>,
    agent: tokio::task::JoinHandle<Exit>,
    set: BTreeSet<String>,
}

fn address() -> SocketAddr {
    "10.0.0.7:8002".parse().unwrap()
}

fn settings(dir: &std::path::Path) -> Settings {
    Settings {
        hostname: Some("sched-0".parse().unwrap()),
        ip: Some("10.0.0.7".parse().unwrap()),
        cluster_id: Some(1.try_into().unwrap()),
        scheduler_addr: Some("10.0.0.7:8002".parse().unwrap()),
        managers: vec!["grpc://manager:65003".to_owned()],
        spool: dir.to_owned(),
        run_dir: dir.join("run"),
        pod_name: Some("sched-0".to_owned()),
        ..Settings::default()
    }
}

fn ask(cause: Cause) -> Record {
    Record {
        id: RecordId::random(),
        key: settings("/".as_ref()).key().unwrap(),
        what: What::SignOff { cause, drain_until: None },
        address: Some(address()),
        listed: true,
        row_updated: None,
        registered: None,
        at: wall_millis(),
        pod: None,
        managers: Default::default(),
    }
}

fn row(ip: &str) -> Row {
    Row {
        id: 1,
        hostname: "sched-0".to_owned(),
        ip: ip.to_owned(),
        port: 8002,
        state: State::Active,
        cluster_id: 1,
        last_keep_alive_at: None,
        keep_alive_interval: None,
        created_at: None,
        updated_at: None,
    }
}

impl Scene {
    /// On a spool with what `left` writes into it.
    fn begin(
        change: impl FnOnce(&mut Settings),
        outcomes: Vec<(Duration, Outcome)>,
        left: impl FnOnce(&std::path::Path),
    ) -> Self {
        Self::begin_with(Known::Certain, change, outcomes, left)
    }

    fn begin_with(
        known: Known,
        change: impl FnOnce(&mut Settings),
        outcomes: Vec<(Duration, Outcome)>,
        left: impl FnOnce(&std::path::Path),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        left(dir.path());
        let mut settings = settings(dir.path());
        change(&mut settings);
        let manager = Arc::new(Told {
            outcomes: Mutex::new(outcomes.into()),
            row: Mutex::new(RowState::Active),
            rows: vec![row("10.0.0.7"), row("10.0.0.8")],
            of_an_address: Mutex::new(Some(Vec::new())),
            is_old: AtomicBool::default(),
            signed_off: Mutex::default(),
            contact: watch::Sender::new(Contact { answered: true, ..Contact::default() }),
        });
        let hangs = Arc::new(AtomicBool::new(false));
        let (turn, at) = (Arc::clone(&hangs), dir.path().to_owned());
        let turn = move || {
            let hangs = turn.load(Ordering::SeqCst);
            async move {
                if hangs {
                    std::future::pending().await
                }
            }
        };
        let open = move || Spool::open(&at, Limits::default());
        let disk = Disk::start_on_a_task(dir.path().to_owned(), Arrivals::of_the_kernel(), turn, || (), open);
        let (see, seen) = mpsc::channel(16);
        let deadline = Deadline(Box::new(|_, _| ()));
        let seen = Mutex::new(Some(seen));
        let look = move || {
            let seen = seen.lock().unwrap().take().unwrap();
            Watcher::fed(seen, tokio::spawn(async {}).abort_handle())
        };
        let named = Arc::new(Mutex::new(settings));
        let says = Arc::clone(&named);
        let (settings, known) = (move || says.lock().unwrap().clone(), (known, |_: &Settings| ()));
        let around: (Arc<dyn Manager>, Prober) = (Arc::clone(&manager) as _, Prober::new(TheRowsAnswer));
        let (commands, run) = simulated::agent(settings, known, around, disk, look, deadline);
        let agent = tokio::spawn(run);
        Self { dir, manager, see, hangs, commands, named, agent, set: BTreeSet::new() }
    }

    async fn sees(&self, observation: Observation) {
        self.see.send(observation).await.unwrap();
    }

    /// So much later: what is set in its status then, too.
    async fn after(&mut self, time: Duration) -> Status {
        tokio::time::sleep(time).await;
        let (answer, status) = oneshot::channel();
        self.commands.send(Command::Status(answer)).unwrap();
        let status = status.await.unwrap();
        leaves(&serde_json::to_value(&status).unwrap(), "", &is_set, &mut self.set);
        *status
    }
}

/// The paths of the leaves that satisfy `wanted`.
fn leaves(value: &Value, path: &str, wanted: &dyn Fn(&Value) -> bool, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| leaves(value, &format!("{path}.{name}"), wanted, found));
        }
        Value::Array(items) => {
            items.iter().for_each(|item| leaves(item, &format!("{path}[]"), wanted, found));
        }
        leaf if wanted(leaf) => drop(found.insert(path.to_owned())),
        _ => {}
    }
}

/// Whether it says more than a field that nobody ever touched.
fn is_set(leaf: &Value) -> bool {
    match leaf {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.as_str(), "" | "unknown" | "off"),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// A status in which every field is there. Whoever adds one adds it here, or this doesn't build.
fn everything() -> Status {
    let text = || "x".to_owned();
    Status {
        version: text(),
        pod: Some(text()),
        now: 1,
        since: 1,
        started: true,
        key: settings("/".as_ref()).key(),
        identity_known: Some(true),
        scheduler: SchedulerStatus {
            address: text(),
            state: SchedulerState::Down,
            since: Some(1),
            why: Some(text()),
        },
        row: Some(RowStatus { state: RowWord::Active, at: 1, source: text() }),
        row_known: Some(RowKnown { state: RowWord::Active, at: 1, by: text() }),
        drain_until: Some(1),
        deadline: Some(1),
        grace_ms: 1,
        pending: vec![PendingStatus {
            id: text(),
            key: text(),
            cause: text(),
            at: 1,
            attempts: 1,
            last_error: Some(text()),
            rejected: true,
            watched_until: Some(1),
            inherited: true,
        }],
        marks: vec![MarkStatus { id: text(), what: text(), at: 1 }],
        hold_since: Some(1),
        hold_reason: Some(text()),
        put_back_at: Some(1),
        succession: Some(SuccessionStatus { mode: Mode::On, why: Some(text()), contested: vec![text()] }),
        degraded: vec![Degradation { reason: text(), why: text() }],
        manager: ManagerStatus {
            // Beside a scheduler without a manager no agent of these lives.
            none: false,
            endpoints: vec![text()],
            answered: true,
            losses: 1,
            last_error: Some(text()),
            rest_error: Some(text()),
        },
        spool: SpoolStatus {
            dir: text(),
            durability: text(),
            asks: Some(1),
            for_another: Some(1),
            marks: Some(1),
            corrupt: Some(1),
            newer: Some(1),
            silent_since: Some(1),
            why: Some(text()),
        },
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn every_field_of_the_status_is_set_where_it_has_something_to_say() {
    let rejected = Outcome::Rejected(Failure::new("rejected with PermissionDenied: no"));
    let cut = Outcome::Unknown(Failure::new("cut"));
    let mut set = BTreeSet::new();

    // It drains, was rejected, and its spool has what an agent before it left, another manager's, damaged and newer files too.
    let left = |dir: &std::path::Path| {
        let mut spool = Spool::open(dir, Limits::default()).unwrap();
        spool.write_ask(&ask(Cause::Sigterm)).unwrap();
        let another = Managers::of(["grpc://another.ns:65003".to_owned()]);
        spool.write_ask(&Record { managers: another, ..ask(Cause::Sigterm) }).unwrap();
        drop(spool);
        let body = "\"version\":2,\"record\":\"in a way we don't know\"}\n";
        let newer = format!("{{\"crc32\":\"{:08x}\",{body}", crc32fast::hash(body.as_bytes()));
        std::fs::write(dir.join("00000000.00000000000000aa.ask.json"), newer).unwrap();
        std::fs::write(dir.join("00000000.00000000000000bb.ask.json.corrupt"), "").unwrap();
    };
    let mut scene = Scene::begin(|_| (), vec![(Duration::ZERO, rejected)], left);
    scene.manager.contact.send_modify(|contact| {
        contact.losses = 1;
        contact.last_error = Some("no".to_owned());
        contact.rest_error = Some("no".to_owned());
    });
    scene.sees(Observation::Refused(vec![address()])).await;
    scene.after(SECOND).await;
    scene.sees(Observation::Serving(address())).await;
    // Another one answers under its name.
    scene.after(SECOND * 90).await;
    let (answer, _answered) = oneshot::channel();
    scene.commands.send(Command::PreStop { wait: None, answer }).unwrap();
    scene.after(SECOND * 3).await;
    // The disk hangs.
    scene.hangs.store(true, Ordering::SeqCst);
    scene.after(SECOND).await;
    scene.after(SECOND * 10).await;
    set.append(&mut scene.set);

    // The first attempt is silent, the second is acknowledged: watched. Then it serves again, and is given its row back.
    let outcomes = vec![(SECOND * 20, cut), (Duration::ZERO, Outcome::Confirmed)];
    let no_pod = |settings: &mut Settings| {
        (settings.pod_name, settings.registered_port) = (None, Some(8002));
    };
    let mut scene = Scene::begin(no_pod, outcomes, |_| ());
    scene.sees(Observation::Serving(address())).await;
    scene.after(SECOND * 60).await;
    scene.sees(Observation::Refused(vec![address()])).await;
    scene.after(SECOND * 2).await;
    *scene.manager.row.lock().unwrap() = RowState::Inactive;
    scene.sees(Observation::Serving(address())).await;
    scene.after(SECOND * 120).await;
    // Somebody deletes it.
    *scene.manager.row.lock().unwrap() = RowState::Absent;
    scene.after(SECOND * 120).await;
    assert_eq!(*scene.manager.row.lock().unwrap(), RowState::Inactive, "registered again");
    set.append(&mut scene.set);

    let mut all = BTreeSet::new();
    leaves(&serde_json::to_value(everything()).unwrap(), "", &|_| true, &mut all);
    let never: Vec<&String> = all.difference(&set).collect();
    assert!(never.is_empty(), "never set: {never:?}");
}

#[tokio::test(start_paused = true)]
async fn why_the_scheduler_is_not_seen_serving_is_shown_until_it_is() {
    let mut scene = Scene::begin(|_| (), vec![(Duration::ZERO, Outcome::Confirmed)], |_| ());
    let why = |status: Status| (status.scheduler.state, status.scheduler.why);
    let tls = "10.0.0.7:8002: TLS: received fatal alert: CertificateRequired";
    scene.sees(Observation::Unclear(tls.to_owned())).await;
    assert_eq!(why(scene.after(SECOND).await), (SchedulerState::Unknown, Some(tls.to_owned())));
    scene.sees(Observation::Serving(address())).await;
    assert_eq!(why(scene.after(SECOND).await), (SchedulerState::Serving, None));
    scene.sees(Observation::Refused(vec![address()])).await;
    let refused = "10.0.0.7:8002: connection refused".to_owned();
    assert_eq!(why(scene.after(SECOND).await), (SchedulerState::Down, Some(refused)));
}

/// Its manager is away as the scheduler goes down, and its configuration names none as it comes back. Then the manager is back, and
/// shows the row active.
async fn back_without_a_manager() -> Scene {
    let failed = Outcome::Failed(Failure::new("away"));
    let mut scene = Scene::begin(|_| (), vec![(Duration::ZERO, failed)], |_| ());
    scene.sees(Observation::Serving(address())).await;
    scene.after(SECOND * 60).await;
    *scene.manager.of_an_address.lock().unwrap() = None;
    scene.sees(Observation::Refused(vec![address()])).await;
    assert_eq!(scene.after(SECOND * 5).await.pending.len(), 1);
    {
        let mut named = scene.named.lock().unwrap();
        (named.managers, named.without_manager) = (Vec::new(), true);
    }
    scene.sees(Observation::Serving(address())).await;
    let status = scene.after(SECOND * 120).await;
    assert_eq!((status.manager.none, status.pending.len()), (false, 1), "nobody knows what the row is");
    assert!(
        status.degraded.iter().any(|one| one.reason == "identity" && one.why.contains("away")),
        "{status:?}"
    );
    *scene.manager.of_an_address.lock().unwrap() = Some(vec![heard("2026-01-01T00:00:00.000Z")]);
    scene
}

/// The own row, active, with when the manager last heard of it.
fn heard(at: &str) -> Row {
    Row { last_keep_alive_at: Some(at.to_owned()), updated_at: Some(at.to_owned()), ..row("10.0.0.7") }
}

#[tokio::test(start_paused = true)]
async fn g1_what_the_manager_of_before_is_to_be_told_is_made_beside_a_scheduler_without_one() {
    let mut scene = back_without_a_manager().await;
    let status = scene.after(SECOND * 120).await;
    assert_eq!((status.manager.none, status.pending.len()), (true, 1), "{status:?}");
    assert!(!status.degraded.iter().any(|one| one.reason == "identity"), "{status:?}");
    *scene.manager.row.lock().unwrap() = RowState::Inactive;
    let status = scene.after(SECOND * 200).await;
    assert_eq!((status.manager.none, status.pending.len()), (true, 0), "{status:?}");
    scene.commands.send(Command::Event(Event::Terminate)).unwrap();
    assert_eq!(scene.agent.await.unwrap(), Exit::Done);
}

#[tokio::test(start_paused = true)]
async fn g1_an_end_beside_a_scheduler_without_a_manager_says_what_is_pending() {
    let mut scene = back_without_a_manager().await;
    assert!(scene.after(SECOND * 120).await.manager.none);
    scene.commands.send(Command::Event(Event::Terminate)).unwrap();
    assert_eq!(scene.agent.await.unwrap(), Exit::Queued);
}

#[tokio::test(start_paused = true)]
async fn g2_a_scheduler_that_read_its_manager_before_the_file_lost_it_keeps_its_row() {
    let mut scene = back_without_a_manager().await;
    scene.after(SECOND * 10).await;
    *scene.manager.of_an_address.lock().unwrap() = Some(vec![heard("2026-01-01T00:00:05.000Z")]);
    let status = scene.after(SECOND * 120).await;
    assert_eq!((status.manager.none, status.pending.len()), (false, 0), "{status:?}");
    assert!(status.degraded.is_empty(), "{status:?}");
}

/// The scheduler came back just now, its configuration names cluster 2, and the manager shows both rows as active.
async fn in_the_question(row_of_cluster_2: Row) -> (Scene, SchedulerKey) {
    let mut scene = Scene::begin(|_| (), vec![(Duration::ZERO, Outcome::Confirmed)], |_| ());
    scene.sees(Observation::Serving(address())).await;
    scene.after(SECOND * 60).await;
    scene.sees(Observation::Refused(vec![address()])).await;
    scene.after(SECOND * 5).await;
    let other = {
        let mut named = scene.named.lock().unwrap();
        named.cluster_id = Some(2.try_into().unwrap());
        named.key().unwrap()
    };
    *scene.manager.of_an_address.lock().unwrap() = Some(vec![row("10.0.0.7"), row_of_cluster_2]);
    scene.sees(Observation::Serving(address())).await;
    scene.after(SECOND).await;
    scene.manager.signed_off.lock().unwrap().clear();
    (scene, other)
}

fn of_cluster_2(heard: Option<&str>) -> Row {
    Row { id: 2, cluster_id: 2, last_keep_alive_at: heard.map(str::to_owned), ..row("10.0.0.7") }
}

impl Scene {
    async fn drains(&self) -> PreStopAnswer {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::PreStop { wait: None, answer }).unwrap();
        answered.await.unwrap()
    }

    fn signed_off(&self, key: &SchedulerKey) -> bool {
        self.manager.signed_off.lock().unwrap().contains(key)
    }

    fn asked_for(&self, key: &SchedulerKey) -> bool {
        let left = crate::spool::scan(self.dir.path()).unwrap();
        left.asks.iter().any(|entry| entry.record.key == *key)
    }

    /// SIGTERM, to the end.
    async fn ends(&mut self) -> Exit {
        self.commands.send(Command::Event(Event::Terminate)).unwrap();
        (&mut self.agent).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_drain_is_not_called_confirmed_while_it_is_open_which_key_the_scheduler_registers() {
    let (scene, other) = in_the_question(of_cluster_2(None)).await;
    let answer = scene.drains().await;
    assert_eq!(answer.result, crate::agent::lifecycle::Verdict::Queued, "{answer}");
    assert!(answer.to_string().starts_with("queued: it is open which key"), "{answer}");
    assert!(!scene.signed_off(&other), "it may live on under that one");
}

/// The agent ends though the scheduler is there still: the end of its grace.
#[tokio::test(start_paused = true)]
async fn g2_an_end_leaves_a_row_alone_of_which_nothing_would_show_that_its_scheduler_lives_on() {
    let (mut scene, other) = in_the_question(of_cluster_2(None)).await;
    let exit = scene.ends().await;
    assert!(!scene.signed_off(&other));
    assert_eq!((exit, scene.asked_for(&other)), (Exit::Queued, true));
    let (mut scene, other) = in_the_question(of_cluster_2(Some("2026-01-01T00:00:00.000Z"))).await;
    let exit = scene.ends().await;
    assert_eq!((exit, scene.signed_off(&other), scene.asked_for(&other)), (Exit::Done, true, false));
}

#[tokio::test(start_paused = true)]
async fn g3_an_end_is_of_each_key_that_the_scheduler_may_be_registered_under() {
    let (mut scene, other) = in_the_question(of_cluster_2(None)).await;
    scene.sees(Observation::Refused(vec![address()])).await;
    let exit = scene.ends().await;
    assert_eq!((exit, scene.signed_off(&other), scene.asked_for(&other)), (Exit::Done, true, false));
}

#[tokio::test(start_paused = true)]
async fn g5_a_list_that_may_be_older_than_a_row_does_not_end_its_ask() {
    for (fresh, expected) in [(true, (Exit::Done, false)), (false, (Exit::Queued, true))] {
        let (mut scene, other) = in_the_question(of_cluster_2(None)).await;
        *scene.manager.of_an_address.lock().unwrap() = Some(vec![row("10.0.0.7")]);
        scene.manager.is_old.store(!fresh, Ordering::SeqCst);
        scene.sees(Observation::Refused(vec![address()])).await;
        let exit = scene.ends().await;
        assert_eq!((exit, scene.asked_for(&other)), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn g1_at_sigterm_each_key_that_the_scheduler_may_be_registered_under_is_asked_for_on_disk() {
    let (mut scene, other) = in_the_question(of_cluster_2(None)).await;
    *scene.manager.of_an_address.lock().unwrap() = None;
    *scene.manager.outcomes.lock().unwrap() =
        [(Duration::ZERO, Outcome::Failed(Failure::new("away")))].into();
    scene.sees(Observation::Refused(vec![address()])).await;
    scene.commands.send(Command::Event(Event::Terminate)).unwrap();
    scene.after(Duration::from_millis(500)).await;
    assert!(!scene.agent.is_finished(), "its grace is not over");
    assert!(scene.asked_for(&other));
    assert_eq!((&mut scene.agent).await.unwrap(), Exit::Queued);
    assert!(scene.asked_for(&other));
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_signs_nothing_else_off() {
    let (mut scene, other) = in_the_question(of_cluster_2(None)).await;
    scene.commands.send(Command::Event(Event::Terminate)).unwrap();
    let exit = scene.ends().await;
    assert_eq!((exit, scene.signed_off(&other)), (Exit::Queued, false));
}

/// Another process left a sign-off of the key that the scheduler may register by now.
#[tokio::test(start_paused = true)]
async fn g2_an_ask_for_a_key_in_question_waits_until_it_is_known_which_one_the_scheduler_registers() {
    let newer = Row { created_at: Some("2026-01-01T00:00:00.000Z".to_owned()), ..row("10.0.0.7") };
    let (mut scene, other) = in_the_question(of_cluster_2(None)).await;
    *scene.manager.of_an_address.lock().unwrap() = Some(vec![newer, of_cluster_2(None)]);
    {
        let mut spool = Spool::open(scene.dir.path(), Limits::default()).unwrap();
        let managers = Managers::of(["grpc://manager:65003".to_owned()]);
        spool.write_ask(&Record { key: other.clone(), managers, ..ask(Cause::Sigterm) }).unwrap();
    }
    let status = scene.after(SECOND * 300).await;
    assert!(!scene.signed_off(&other), "{status:?}");
    assert!(status.pending.iter().any(|ask| ask.key.contains("cluster 2")), "it is shown: {status:?}");
}

/// Its scheduler is restarted before the manager shows which of two keys it registers.
#[tokio::test(start_paused = true)]
async fn g3_a_doubt_in_the_key_outlives_a_restart_of_the_scheduler() {
    let other = SchedulerKey {
        hostname: "sched-0.example".parse().unwrap(),
        ..settings("/".as_ref()).key().unwrap()
    };
    let known = Known::OrOneOf(vec![other.clone()]);
    let mut scene = Scene::begin_with(known, |_| (), vec![(Duration::ZERO, Outcome::Confirmed)], |_| ());
    for seen in [Observation::Serving(address()), Observation::Refused(vec![address()])] {
        scene.sees(seen).await;
        scene.after(SECOND * 2).await;
    }
    scene.sees(Observation::Serving(address())).await;
    assert_ne!(scene.after(SECOND * 30).await.key, Some(other.clone()), "neither is shown");
    let registered = Row { hostname: "sched-0.example".to_owned(), ..row("10.0.0.7") };
    *scene.manager.of_an_address.lock().unwrap() = Some(vec![registered]);
    assert_eq!(scene.after(SECOND * 120).await.key, Some(other));
}
