//! One manager, and for each case a spool, rows and a run of its own; then the recovery.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use signoff::{
    agent::socket::{Request, Response, ask},
    key::SchedulerKey,
    manager::{
        self, AttemptOptions, Manager, State,
        client::{Client, ManagerSettings},
    },
    mock::{
        manager::{Config, MockManager, User},
        scheduler::{MockScheduler, SchedulerConfig},
        table::{By, Database},
    },
    spool::{
        self, Limits, Spool,
        record::{RecordId, What},
    },
};

use tokio::sync::oneshot;

use super::{
    judge::{Asked, End, Left, Recovered},
    point::{Case, Fault, Met, Operation, Place, Since, cases, met},
    registered::said_never,
    scene::{Scene, directory},
    subject::{Subject, Tracing},
};
use crate::{
    clock::FastClock,
    harness::{LONG, PASSWORD, active_row, eventually, key},
    record,
};

/// How much faster the clocks are of what has to wait a minute for its sign-off to be safe.
pub(super) const RATE: u32 = 20;
/// How long a replay with a fault has to get over it by itself. Not a verdict: after that the next agent does it.
const BY_ITSELF: Duration = Duration::from_secs(170);

/// How long a process with so fast a clock may take, in real time, on a machine that is too busy for it. Not a verdict either: then
/// it is killed, and what it left is judged; a recovery has another try, with a slower clock.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
pub(super) const SLOWER: u32 = 4;

/// A user's second sign-in within half a minute is refused: each process is another one's.
const USERS: usize = 2_000;

fn viewer(user: usize) -> String {
    format!("viewer-{user}")
}

pub(super) struct World {
    pub(super) table: Arc<Database>,
    pub(super) manager: SocketAddr,
    pub(super) rest: SocketAddr,
    /// One that serves.
    pub(super) scheduler: SocketAddr,
    pub(super) clock: FastClock,
    /// How many of the users have signed in.
    users: Cell<usize>,
    /// Dropped, it ends the thread of the two.
    _servers: oneshot::Sender<()>,
}

/// What was to be done after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Then {
    /// Nothing: it was over before anything was asked.
    NothingAsked,
    /// Nothing: it had settled all.
    Settled,
    /// The next process settled what was pending.
    Recovered,
}

/// How a case went.
pub(super) struct Outcome {
    /// Its fault was met.
    pub(super) met: Met,
    pub(super) then: Then,
    pub(super) verdict: Result<(), String>,
}

impl World {
    pub(super) async fn new(clock: FastClock) -> Self {
        let (ready, started) = oneshot::channel();
        let (servers, over) = oneshot::channel::<()>();
        // On a thread of their own: they answer at once, however busy the harness is.
        std::thread::spawn(move || {
            super::on_a_runtime(async {
                let users = (0..USERS).map(|user| User::guest(&viewer(user), PASSWORD)).collect();
                let manager = MockManager::start(Config { users, ..Config::default() }).await.unwrap();
                let config = SchedulerConfig::new(key("serves"), manager.grpc_addr());
                let scheduler = MockScheduler::start(config).await.unwrap();
                let addresses = (manager.grpc_addr(), manager.rest_addr(), scheduler.addr());
                let started = (Arc::clone(manager.table()), addresses);
                drop(ready.send(started));
                drop(over.await);
            });
        });
        let (table, (manager, rest, scheduler)) = started.await.unwrap();
        Self { table, manager, rest, scheduler, clock, users: Cell::new(0), _servers: servers }
    }

    /// A user who has not signed in yet.
    pub(super) fn viewer(&self) -> String {
        viewer(self.users.replace(self.users.get() + 1) % USERS)
    }

    /// An active row, of a scheduler that is gone.
    fn row(&self, hostname: &str) -> SchedulerKey {
        let key = key(hostname);
        active_row(&self.table, &key, 1);
        key
    }

    pub(super) fn scene(&self, name: &str, operation: Operation) -> Scene {
        // A scheduler that is there registers by itself.
        let own = format!("own-{name}");
        let own = if operation == Operation::TakeUp { key(&own) } else { self.row(&own) };
        let mut scene = Scene {
            dir: directory(),
            own,
            others: Vec::new(),
            before: Vec::new(),
            scheduler: RefCell::default(),
            environment: RefCell::default(),
        };
        if operation == Operation::NeverRegistered {
            self.write_what_never_was(&mut scene, name);
        }
        if matches!(operation, Operation::Replay | Operation::Flush) {
            let ours = format!("grpc://{}", self.manager);
            // The second's are of a release that did not say whose they are, in the directory that all used then.
            for (number, asks, spool, managers) in
                [(1, 1, scene.spool(), vec![ours.as_str()]), (2, 2, scene.older_spool(), vec![])]
            {
                drop(Spool::open(&spool, Limits::default()).unwrap());
                let key = self.row(&format!("other-{number}-{name}"));
                for _ in 0..asks {
                    // Not by the spool: a process that is started meanwhile would hold the record's lock too.
                    let id = u64::from_str_radix(&RecordId::random().0, 16).unwrap();
                    let address = Scene::silent();
                    record::write_ask(&spool, 1, &key, id, &address, 1_800_000_000_000, &managers).unwrap();
                    scene.before.push(key.clone());
                }
                scene.others.push(key);
            }
        }
        scene
    }

    /// What was done to rows by hand is in the manager's lists from now on, as it is where a manager did it: a sign-off of any row
    /// drops what it has cached.
    async fn shows_all(&self) {
        let any = key("serves-nobody");
        if self.table.find(&any).unwrap().is_none() {
            active_row(&self.table, &any, 1);
        }
        let grpc = vec![format!("grpc://{}", self.manager).parse().unwrap()];
        let client = Client::new(ManagerSettings { grpc, ..ManagerSettings::default() }).unwrap();
        let options = AttemptOptions { hedge: false, limit: LONG };
        eventually("a sign-off of any row", async || {
            (client.sign_off(&any, options).await == manager::Outcome::Confirmed).then_some(())
        })
        .await;
    }

    /// The rows of a scene are of no use to others.
    fn forget(&self, scene: &Scene) {
        for key in scene.others.iter().chain([&scene.own, &scene.moved()]) {
            if let Some(row) = self.table.find(key).unwrap() {
                self.table.delete(row.id, By::Hand).unwrap();
            }
        }
    }

    pub(super) fn environment(&self, scene: &Scene, scheduler: String) -> Vec<(&'static str, String)> {
        vec![
            ("SIGNOFF_SPOOL", scene.spool().display().to_string()),
            ("SIGNOFF_RUN_DIR", scene.path("run").display().to_string()),
            ("SIGNOFF_LOG_LEVEL", "debug".to_owned()),
            ("SIGNOFF_LISTEN", "127.0.0.1:0".to_owned()),
            ("SIGNOFF_MANAGER", self.manager.to_string()),
            ("SIGNOFF_HOSTNAME", scene.own.hostname.to_string()),
            ("SIGNOFF_IP", scene.own.ip.to_string()),
            ("SIGNOFF_CLUSTER_ID", "1".to_owned()),
            ("SIGNOFF_GRACE", "10s".to_owned()),
            ("SIGNOFF_SCHEDULER_ADDR", scheduler),
        ]
    }

    /// Runs the operation, traced; answers how it ended and what the hook heard.
    pub(super) async fn run(
        &self,
        scene: &Scene,
        operation: Operation,
        tracing: &Tracing<'_>,
    ) -> (End, String, Option<signoff::agent::socket::PreStopAnswer>) {
        // Only what has to wait a minute does so by a faster clock.
        let (arguments, scheduler, clock): (&[&str], _, _) = match operation {
            Operation::PreStop | Operation::Sigterm => (&["agent"], Scene::silent(), None),
            Operation::Replay => (&["agent"], self.scheduler.to_string(), Some(&self.clock)),
            Operation::Flush => (&["queue", "flush"], Scene::silent(), Some(&self.clock)),
            Operation::TakeUp => return self.take_up(scene, tracing).await,
            Operation::NeverRegistered => return self.finds_what_never_was(scene, tracing).await,
        };
        let mut environment = self.environment(scene, scheduler);
        if operation == Operation::Flush {
            environment.retain(|(name, _)| {
                ["SIGNOFF_SPOOL", "SIGNOFF_RUN_DIR", "SIGNOFF_LOG_LEVEL", "SIGNOFF_MANAGER"].contains(name)
                    || name.starts_with("FAST")
                    || name.starts_with("LD_")
            });
        }
        if matches!(operation, Operation::Replay | Operation::Flush) {
            self.shows_all().await;
        }
        let mut subject = Subject::start(arguments, &environment, scene.path("output"), clock, Some(tracing));
        match operation {
            Operation::PreStop | Operation::Sigterm => {
                self.sign_off(scene, subject, operation, tracing).await
            }
            Operation::Replay | Operation::Flush | Operation::TakeUp | Operation::NeverRegistered => {
                let held = match tracing.place.since {
                    Since::Birth => subject.attach_when_held(tracing).await,
                    Since::Start | Since::Idle => None,
                };
                let began = std::time::Instant::now();
                let end = subject
                    .runs_until(tracing, |subject| {
                        // Said when all of it is done: the asks are gone a moment sooner than their marks.
                        let said = || subject.output().matches("Settled a sign-off of another key.").count();
                        let settled = || scene.listing().asks.is_empty() && said() == scene.others.len();
                        began.elapsed() > PATIENCE
                            || operation == Operation::Replay
                                && (settled() || began.elapsed() > self.clock.real(BY_ITSELF))
                    })
                    .await;
                drop(held);
                (end, subject.output(), None)
            }
        }
    }

    async fn sign_off(
        &self,
        scene: &Scene,
        mut subject: Subject,
        operation: Operation,
        tracing: &Tracing<'_>,
    ) -> (End, String, Option<signoff::agent::socket::PreStopAnswer>) {
        subject.says(&["Read the row.", "Listening for hooks.", "Nothing serves at the scheduler"]).await;
        let strace = subject.attach(tracing).await;
        let mut answer = None;
        if operation == Operation::PreStop {
            let request = Request::PreStop { deadline: Some(Duration::from_secs(5)) };
            if let Ok(Response::PreStop(said)) = ask(&scene.path("run"), &request, LONG).await {
                answer = Some(said);
            }
        }
        subject.signal(rustix::process::Signal::TERM);
        let end = subject.runs_until(tracing, |_| false).await;
        drop(strace);
        (end, subject.output(), answer)
    }

    /// The cases of one place: a run without a fault is recorded.
    pub(super) async fn record(&self, operation: Operation, place: Place) -> Vec<Case> {
        let scene = self.scene(&format!("record-{operation}-{}", place.thread), operation);
        let log = scene.path("strace");
        let arguments = ["-yy", "-e", "trace=all"].map(str::to_owned).to_vec();
        let (end, output, answer) =
            self.run(&scene, operation, &Tracing { place, case: None, arguments, log: &log }).await;
        let left = self.left(&scene, operation, false, (end, output, answer)).await;
        let is_settled = |asked: &Asked| asked.inactive && (asked.asks == 0 || asked.before == 0);
        let settled = left.asked.iter().all(|asked| is_settled(asked) || asked.never_registered);
        assert!(left.judge().is_ok() && settled, "{operation} {place:?}: {left:?}");
        self.forget(&scene);
        cases(operation, place, &std::fs::read_to_string(log).unwrap_or_default())
    }

    /// Runs one case, and judges it.
    pub(super) async fn try_case(&self, number: usize, case: &Case) -> Outcome {
        // Not each run makes the same calls.
        let mut outcome = self.try_once(number, 0, case).await;
        for again in 1..3 {
            if outcome.met == Met::Yes || outcome.verdict.is_err() {
                break;
            }
            outcome = self.try_once(number, again, case).await;
        }
        outcome
    }

    async fn try_once(&self, number: usize, again: usize, case: &Case) -> Outcome {
        let scene = self.scene(&format!("{number}-{again}"), case.operation);
        let log = scene.path("strace");
        let tracing = Tracing { place: case.place, case: Some(case), arguments: case.arguments(), log: &log };
        let run = self.run(&scene, case.operation, &tracing).await;
        let killed = case.fault == Fault::Kill;
        let record = std::fs::read_to_string(&log).unwrap_or_default();
        let met = met(case, run.0 == End::Killed, &record);
        if met == Met::Elsewhere {
            self.forget(&scene);
            return Outcome { met, then: Then::NothingAsked, verdict: Ok(()) };
        }
        let left = self.left(&scene, case.operation, killed, run).await;
        let mut verdict = left.judge().map_err(|why| format!("{case}: {why}\n{}", left.output));
        let asked = left.asked.iter().any(|asked| asked.before > 0 || asked.begun);
        let mut then = if asked { Then::Settled } else { Then::NothingAsked };
        if verdict.is_ok() {
            let pending: Vec<&SchedulerKey> = self.keys(&scene, case.operation);
            let asks = scene.listing().asks;
            let pending: Vec<SchedulerKey> = pending
                .into_iter()
                .filter(|key| asks.iter().any(|entry| entry.record.key == **key))
                .cloned()
                .collect();
            if !pending.is_empty() {
                then = Then::Recovered;
            }
            if case.operation == Operation::TakeUp {
                then = Then::Recovered;
                let after = self.comes_after_a_take_up(&scene).await;
                let output = &after.output;
                verdict = after
                    .judge()
                    .map_err(|why| format!("{case}: then: {why}\n{}\nthen:\n{output}", left.output));
            }
            // Other files are leftovers, which whoever opens the spool next removes.
            else if !scene.files().is_empty() {
                let by = if number.is_multiple_of(2) { Recovery::Agent } else { Recovery::Flush };
                let after = self.recover(&scene, &pending, by).await;
                verdict = after.judge().map_err(|why| {
                    format!(
                        "{case}: then, recovered by {by:?}: {why}\n{}\nthen:\n{}",
                        left.output, after.output
                    )
                });
            }
        }
        self.forget(&scene);
        Outcome { met, then, verdict }
    }

    fn keys<'a>(&self, scene: &'a Scene, operation: Operation) -> Vec<&'a SchedulerKey> {
        match operation {
            Operation::PreStop | Operation::Sigterm => vec![&scene.own],
            Operation::Replay | Operation::Flush | Operation::NeverRegistered => {
                scene.others.iter().collect()
            }
            // Its asks are the agent's own matter: what counts is what becomes of its rows.
            Operation::TakeUp => Vec::new(),
        }
    }

    /// What a run left.
    async fn left(
        &self,
        scene: &Scene,
        operation: Operation,
        to_be_killed: bool,
        (end, output, answer): (End, String, Option<signoff::agent::socket::PreStopAnswer>),
    ) -> Left {
        let listing = scene.listing();
        let mut asked = Vec::new();
        for key in self.keys(scene, operation) {
            let table = &self.table;
            let history = table.history();
            let begun = history.iter().any(|change| {
                change.host_name == key.hostname.as_str()
                    && matches!(change.by, By::FirstMessage | By::StreamEnd)
            });
            if begun {
                // A dead process's stream ends too.
                assert!(table.eventually_state(key, Some(State::Inactive), LONG).await, "{key}");
            }
            let of_key = |entry: &&spool::Entry| entry.record.key == *key;
            let before = scene.before.iter().filter(|asked| *asked == key).count();
            let sign_off = |entry: &spool::Entry| matches!(entry.record.what, What::SignOff { .. });
            // An ask becomes its mark, and then that is said.
            let mark = listing.marks.iter().filter(of_key).any(sign_off);
            asked.push(Asked {
                key: key.to_string(),
                before,
                asks: listing.asks.iter().filter(of_key).count(),
                mark,
                begun,
                inactive: table.state(key).unwrap() == Some(State::Inactive),
                never_registered: operation == Operation::NeverRegistered
                    && (mark || said_never(&output, key)),
            });
        }
        let problems = [&listing.newer, &listing.problems, &listing.unreadable].into_iter().flatten();
        let mut odd: Vec<String> = problems.map(ToString::to_string).collect();
        odd.extend(listing.corrupt.iter().map(|path| path.display().to_string()));
        Left { operation, to_be_killed, end, output, answer, asked, odd }
    }

    /// A new process on that spool, with all well.
    async fn recover(&self, scene: &Scene, pending: &[SchedulerKey], by: Recovery) -> Recovered {
        let table = &self.table;
        for key in pending {
            // As if a manager's crash had undone it: the recovery must do it again. Of some there is no row.
            if table.find(key).unwrap().is_some() {
                assert!(table.set_by_hand(key, State::Active).unwrap());
            }
        }
        self.shows_all().await;
        let mut environment = self.environment(scene, Scene::silent());
        if by == Recovery::Flush {
            environment.retain(|(name, _)| {
                ["SIGNOFF_SPOOL", "SIGNOFF_RUN_DIR", "SIGNOFF_LOG_LEVEL", "SIGNOFF_MANAGER"].contains(name)
            });
        }
        let arguments: &[&str] = if by == Recovery::Agent { &["agent"] } else { &["queue", "flush"] };
        let output = scene.path("output-of-recovery");
        let slower = FastClock::of(SLOWER);
        let clocks = [(Some(&self.clock), PATIENCE), (slower.as_ref(), 2 * PATIENCE)];
        let (mut code, mut said) = (None, String::new());
        for (clock, patience) in clocks {
            let mut subject = Subject::start(arguments, &environment, output.clone(), clock, None);
            let began = std::time::Instant::now();
            let end = eventually("a clean spool", async || {
                // An agent ends by itself for no reason.
                let ended = subject.ended();
                let clean = by == Recovery::Agent && scene.files().is_empty();
                ended.or((clean || began.elapsed() > patience).then_some(End::Stopped))
            })
            .await;
            said.push_str(&subject.output());
            match end {
                End::Code(ended) => code = Some(ended),
                End::Stopped => subject.stop().await,
                End::Killed => panic!("who killed it? {said}"),
            }
            if code.is_some() || scene.files().is_empty() {
                break;
            }
        }
        let is_wrong =
            |key: &&SchedulerKey| table.state(key).unwrap().is_some_and(|is| is != State::Inactive);
        Recovered {
            code,
            wrong: pending.iter().filter(is_wrong).map(ToString::to_string).collect(),
            files: scene.files(),
            output: said,
        }
    }
}

/// Who recovers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recovery {
    Agent,
    Flush,
}

#[tokio::test]
async fn an_ask_that_somebody_removes_is_judged_lost() {
    let Some(clock) = FastClock::of(RATE) else { return };
    let world = World::new(clock).await;
    let scene = world.scene("removed", Operation::Flush);
    let seen = || (End::Code(75), String::new(), None);
    let left = world.left(&scene, Operation::Flush, false, seen()).await;
    assert_eq!(left.judge(), Ok(()), "{left:?}");
    let removed = scene.listing().asks.pop().unwrap();
    std::fs::remove_file(&removed.path).unwrap();
    let left = world.left(&scene, Operation::Flush, false, seen()).await;
    assert_eq!(left.judge(), Err(format!("the ask of {} is lost", removed.record.key)));
}
