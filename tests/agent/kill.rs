//! kill -9 at every system call of a sign-off, and then the replay.
//!
//! strace counts a system call's invocations for each thread and each call by itself. So one agent's sign-off is recorded first;
//! then, for each thread, each system call and each of its invocations, an agent of its own is killed as it enters that one. What
//! a kill leaves is judged at once; then one agent finds all their records in one spool, as a node's volume would have them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use signoff::{
    agent::socket::{Request, Response, ask},
    key::SchedulerKey,
    manager::State,
    mock::{
        manager::{Config, MockManager},
        table::{By, Database},
    },
};

use crate::{
    harness::{LONG, Process, active_row, eventually, key, signoff},
    strace::{Strace, can_inject, spool_thread},
};

/// How many agents run at a time.
const AT_ONCE: usize = 4;

/// Which thread is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thread {
    /// The runtime: sockets, decisions, the log.
    Main,
    /// The disk.
    Spool,
}

/// Where an agent is killed: as the thread enters the n-th of these calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    thread: Thread,
    call: String,
    nth: usize,
}

/// One manager, and a row and a directory for each of the agents to be killed.
struct Slaughter {
    manager: MockManager,
    dir: tempfile::TempDir,
}

/// What a kill left.
struct Left {
    point: Option<Point>,
    key: SchedulerKey,
    killed: bool,
    confirmed: bool,
    spool: PathBuf,
    log: String,
}

impl Left {
    /// The kinds of records in its spool.
    fn files(&self) -> BTreeSet<String> {
        let names = std::fs::read_dir(&self.spool).unwrap().map(|entry| entry.unwrap().file_name());
        let kind = |name: std::ffi::OsString| {
            let name = name.into_string().unwrap();
            name.split_once('.').filter(|_| !name.starts_with('.')).map_or_else(
                || "temporary".to_owned(),
                |(_, rest)| rest.split_once('.').map_or(rest, |(_, kind)| kind).to_owned(),
            )
        };
        names.map(kind).filter(|kind| kind != "lock").collect()
    }
}

fn touched(table: &Database, key: &SchedulerKey) -> bool {
    let ours = |by: By| matches!(by, By::FirstMessage | By::StreamEnd);
    table.history().iter().any(|change| change.host_name == key.hostname.as_str() && ours(change.by))
}

impl Slaughter {
    async fn new() -> Self {
        Self {
            manager: MockManager::start(Config::default()).await.unwrap(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn table(&self) -> &Arc<Database> {
        self.manager.table()
    }

    /// An active row at an address where nothing answers.
    fn key(&self, number: usize) -> SchedulerKey {
        let key = key(&format!("killed-{number}"));
        active_row(self.table(), &key, 1);
        key
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn agent(&self, key: &SchedulerKey, spool: &Path, run: &Path) -> Process {
        let mut command = signoff();
        command
            .arg("agent")
            .env("SIGNOFF_SPOOL", spool)
            .env("SIGNOFF_RUN_DIR", run)
            .env("SIGNOFF_LOG_LEVEL", "debug")
            .env("SIGNOFF_LISTEN", "127.0.0.1:0")
            .env("SIGNOFF_MANAGER", self.manager.grpc_addr().to_string())
            .env("SIGNOFF_HOSTNAME", key.hostname.as_str())
            .env("SIGNOFF_IP", key.ip.to_string())
            .env("SIGNOFF_CLUSTER_ID", "1")
            .env("SIGNOFF_GRACE", "10s")
            // Nothing can listen on port 1 of loopback but a system's own service.
            .env("SIGNOFF_SCHEDULER_ADDR", "127.0.0.1:1");
        Process::start(command)
    }

    /// A pre-stop, its answer, a SIGTERM, the end; killed on the way, or recorded.
    async fn sign_off(&self, number: usize, end: End<'_>) -> Left {
        let key = self.key(number);
        let (spool, run) = (self.path(&format!("spool-{number}")), self.path(&format!("run-{number}")));
        let agent = self.agent(&key, &spool, &run);
        agent.says("Read the row.").await;
        agent.says("Listening for hooks.").await;
        agent.says("Nothing serves at the scheduler").await;
        let spool_tid = spool_thread(&agent).await;
        let mut recorders = Vec::new();
        let mut killer = None;
        let point = match end {
            End::Record(main, spool) => {
                recorders.push(Strace::record(agent.pid(), main, &["-e", "trace=all"]).await);
                recorders.push(Strace::record(spool_tid, spool, &["-e", "trace=all"]).await);
                None
            }
            End::Kill(point) => {
                let thread = if point.thread == Thread::Main { agent.pid() } else { spool_tid };
                let trace = format!("trace={}", point.call);
                let kill = format!("inject={}:signal=KILL:when={}", point.call, point.nth);
                killer = Some(Strace::attach(thread, &["-e", &trace, "-e", &kill]));
                Some(point)
            }
        };
        let request = Request::PreStop { deadline: Some(Duration::from_secs(5)) };
        let answer = ask(&run, &request, LONG).await;
        let confirmed =
            matches!(&answer, Ok(Response::PreStop(answer)) if answer.to_string().starts_with("confirmed"));
        agent.term();
        let (code, log) = agent.ended().await;
        for recorder in recorders {
            recorder.ended().await;
        }
        drop(killer);
        let killed = code == -1;
        assert!(killed || code == 0, "{point:?}: {code} {log}");
        Left { point, key, killed, confirmed, spool, log }
    }
}

impl Slaughter {
    /// The manager heard of it only after it was on disk, and who was told that it is done was told the truth.
    async fn judge(&self, left: &Left) {
        let (point, log) = (&left.point, &left.log);
        assert!(!log.contains("A bug"), "{point:?}: {log}");
        let files = left.files();
        assert!(!files.iter().any(|kind| kind.ends_with("corrupt")), "{point:?}: {files:?}");
        let recorded = files.contains("ask.json") || files.contains("mark.json");
        if touched(self.table(), &left.key) {
            // Its stream's end follows it.
            assert!(recorded, "{point:?}: the manager was asked, and nothing is on disk: {log}");
            let ends = self.table().eventually_state(&left.key, Some(State::Inactive), LONG).await;
            assert!(ends, "{point:?}");
        } else {
            assert!(!left.confirmed, "{point:?}: {log}");
            assert_eq!(self.table().state(&left.key).unwrap(), Some(State::Active), "{point:?}");
        }
    }

    fn sign_offs(&self, key: &SchedulerKey) -> usize {
        let history = self.table().history();
        let ends = history.iter().filter(|change| change.by == By::StreamEnd);
        ends.filter(|change| change.host_name == key.hostname.as_str()).count()
    }

    async fn one_agent_replays_them_all(&self, left: &[Left]) {
        let shared = self.path("shared");
        std::fs::create_dir(&shared).unwrap();
        for left in left {
            for entry in std::fs::read_dir(&left.spool).unwrap() {
                let entry = entry.unwrap();
                if entry.file_name() != "spool.lock" {
                    std::fs::copy(entry.path(), shared.join(entry.file_name())).unwrap();
                }
            }
        }
        let asked: Vec<_> = left.iter().filter(|left| left.files().contains("ask.json")).collect();
        // What was undone by a manager's crash, say: the replay must do it again.
        for left in &asked {
            self.table().set_by_hand(&left.key, State::Active).unwrap();
        }
        let before: Vec<usize> = asked.iter().map(|left| self.sign_offs(&left.key)).collect();
        assert!(!asked.is_empty());
        let agent = self.agent(&self.key(1_000_000), &shared, &self.path("run-shared"));
        for (left, before) in asked.iter().zip(before) {
            eventually("the replay", async || (self.sign_offs(&left.key) > before).then_some(())).await;
            let ended = self.table().eventually_state(&left.key, Some(State::Inactive), LONG).await;
            assert!(ended, "{:?}", left.point);
        }
        for left in left.iter().filter(|left| left.files().is_empty() && !left.confirmed) {
            let state = self.table().state(&left.key).unwrap();
            assert_eq!(state, Some(State::Active), "{:?}: nothing was asked", left.point);
        }
        let names = std::fs::read_dir(&shared).unwrap().map(|entry| entry.unwrap().file_name());
        let odd: Vec<_> = names
            .map(|name| name.into_string().unwrap())
            .filter(|name| name.ends_with(".corrupt") || name.ends_with(".tmp"))
            .collect();
        assert!(odd.is_empty(), "{odd:?}");
        agent.term();
        let log = agent.kill().await;
        assert!(!log.contains("A bug"), "{log}");
    }

    async fn each_kind_is_replayed_by_its_own_agent(&self, left: &[Left]) {
        let kinds: BTreeMap<BTreeSet<String>, &Left> = left.iter().map(|left| (left.files(), left)).collect();
        for (files, left) in kinds.into_iter().filter(|(files, _)| files.contains("ask.json")) {
            self.table().set_by_hand(&left.key, State::Active).unwrap();
            let agent = self.agent(&left.key, &left.spool, &self.path("run-again"));
            let ended = self.table().eventually_state(&left.key, Some(State::Inactive), LONG).await;
            let log = agent.kill().await;
            assert!(ended && !log.contains("A bug"), "{files:?}: {log}");
            assert!(!left.files().iter().any(|kind| kind.ends_with("corrupt") || kind == "temporary"));
        }
    }
}

enum End<'a> {
    /// What the two threads do goes to these files.
    Record(&'a Path, &'a Path),
    Kill(Point),
}

/// How often a thread made each call.
fn calls(log: &Path) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let Some((call, _)) = line.split_once('(') else { continue };
        let named = !call.is_empty() && call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        // Where it was attached to, a call was resumed.
        if named && call != "restart_syscall" {
            *calls.entry(call.to_owned()).or_default() += 1;
        }
    }
    calls
}

#[tokio::test]
async fn killed_at_any_system_call_of_a_sign_off_nothing_asked_is_lost() {
    if !can_inject() {
        return;
    }
    let world = Slaughter::new().await;
    let (main, spool) = (world.path("main"), world.path("spool"));
    let left = world.sign_off(0, End::Record(&main, &spool)).await;
    assert!(left.confirmed && !left.killed, "{}", left.log);
    let mut points = Vec::new();
    for (thread, log) in [(Thread::Main, &main), (Thread::Spool, &spool)] {
        for (call, count) in calls(log) {
            points.extend((1..=count).map(|nth| Point { thread, call: call.clone(), nth }));
        }
    }
    assert!(calls(&spool).get("fsync").is_some_and(|count| *count >= 3));
    let count = points.len();
    let world = &world;
    let ends = points.into_iter().enumerate().map(|(i, point)| world.sign_off(i + 1, End::Kill(point)));
    let left: Vec<Left> = stream::iter(ends).buffer_unordered(AT_ONCE).collect().await;
    let missed: Vec<&Point> =
        left.iter().filter(|left| !left.killed).filter_map(|left| left.point.as_ref()).collect();
    // Waits and wake-ups vary in number from run to run; what is written and sent does not.
    assert!(missed.len() * 3 <= count, "of {count} points these were never reached: {missed:?}");
    let durable = ["fsync", "rename", "unlink"];
    let odd: Vec<_> = missed.iter().filter(|point| durable.contains(&point.call.as_str())).collect();
    assert!(odd.is_empty(), "never reached: {odd:?}");
    for left in &left {
        world.judge(left).await;
    }
    world.one_agent_replays_them_all(&left).await;
    world.each_kind_is_replayed_by_its_own_agent(&left).await;
}
