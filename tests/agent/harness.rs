//! A small world for an agent process: a mock manager, a mock scheduler, a spool. Real processes, ephemeral ports.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use signoff::{
    key::SchedulerKey,
    manager::State,
    mock::{
        manager::{Config, MockManager, User},
        scheduler::{MockScheduler, SchedulerConfig},
        table::{Database, Registration},
    },
};

use crate::secret::{self, MARK};

/// The password of `viewer`, who may read over REST.
pub(crate) const PASSWORD: &str = "s3cr3t-password-1";
/// The scheduler's keep-alive interval in these tests.
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);
/// An outer bound, never a verdict: long beyond what anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// The binary under test.
pub(crate) fn signoff() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signoff"));
    command.env_clear();
    command
}

/// Waits until `condition` holds.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(began.elapsed() < LONG, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A key that a scheduler on loopback can have.
pub(crate) fn key(hostname: &str) -> SchedulerKey {
    SchedulerKey::new(1.try_into().unwrap(), hostname.parse().unwrap(), "127.0.0.1".parse().unwrap())
}

/// What a scheduler of this key and port registers with.
pub(crate) fn registration(key: &SchedulerKey, port: i32) -> Registration {
    Registration {
        hostname: key.hostname.to_string(),
        ip: key.ip.to_string(),
        port,
        cluster_id: key.cluster_id.get(),
        ..Registration::default()
    }
}

/// An active row, of a scheduler that nobody runs.
pub(crate) fn active_row(table: &Database, key: &SchedulerKey, port: i32) {
    table.register(registration(key, port)).unwrap();
    assert!(table.set_by_hand(key, State::Active).unwrap());
}

/// A manager, a scheduler that registered there, and a directory for its agents.
pub(crate) struct World {
    pub(crate) manager: MockManager,
    pub(crate) scheduler: MockScheduler,
    pub(crate) key: SchedulerKey,
    dir: tempfile::TempDir,
}

impl World {
    /// A healthy world: the scheduler's row is active.
    pub(crate) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    /// One with a manager of its own kind.
    pub(crate) async fn with(config: Config) -> Self {
        let users = [vec![User::guest("viewer", PASSWORD)], config.users.clone()].concat();
        let manager = MockManager::start(Config { users, ..config }).await.unwrap();
        let key = key("scheduler-0.scheduler.dragonfly.svc.cluster.local");
        let config = SchedulerConfig::new(key.clone(), manager.grpc_addr()).every(INTERVAL);
        let scheduler = MockScheduler::start(config).await.unwrap();
        let world = Self { manager, scheduler, key, dir: tempfile::tempdir().unwrap() };
        world.until(State::Active).await;
        world
    }

    /// A path in the world's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The row's state.
    pub(crate) fn state(&self) -> Option<State> {
        self.manager.table().state(&self.key).unwrap()
    }

    /// Waits for the row's state.
    pub(crate) async fn until(&self, state: State) {
        let reached = self.manager.table().eventually_state(&self.key, Some(state), LONG).await;
        assert!(reached, "the row never became {state:?}: {:?}", self.manager.table().history());
    }

    /// Waits until the row is active and stays so for some seconds.
    pub(crate) async fn until_active_for_good(&self) {
        eventually("the row active for good", async || {
            if self.state() != Some(State::Active) {
                return None;
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            (self.state() == Some(State::Active)).then_some(())
        })
        .await;
    }

    /// The manager dies, the scheduler stops, and its agent is killed with the ask on disk; then the manager is back.
    pub(crate) async fn killed_with_an_ask_pending(&mut self) {
        let agent = Process::watching(self.agent()).await;
        self.manager.stop().await;
        self.scheduler.stop().await;
        agent.says("Signing off.").await;
        eventually("the ask on disk", async || (self.asks().len() == 1).then_some(())).await;
        agent.kill().await;
        self.manager.restart().await.unwrap();
    }

    /// The asks in the spool.
    pub(crate) fn asks(&self) -> Vec<PathBuf> {
        self.spool_files(".ask.json")
    }

    /// The spool's files with this ending.
    pub(crate) fn spool_files(&self, ending: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.path("spool")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
    }

    /// A signoff command with this world's identity and manager, in its environment.
    pub(crate) fn command(&self, subcommand: &[&str]) -> Command {
        let mut command = signoff();
        command
            .args(subcommand)
            .env("SIGNOFF_SPOOL", self.path("spool"))
            .env("SIGNOFF_RUN_DIR", self.path("run"))
            .env("SIGNOFF_LOG_LEVEL", "debug");
        command
    }

    /// An agent of this world's scheduler, gRPC alone, not yet started.
    pub(crate) fn agent(&self) -> Command {
        let config = format!(
            "server:\n  advertiseIP: 127.0.0.1\n  advertisePort: {port}\n  listenIP: 127.0.0.1\n  port: {port}\n  host: {host}\n\
             manager:\n  addr: {manager}\n  schedulerClusterID: 1\n  keepAlive:\n    interval: {interval}ms\n\
             seedPeer:\n  null\ndatabase:\n  redis:\n    password: {MARK}redis\n",
            port = self.scheduler.addr().port(),
            host = self.key.hostname,
            manager = self.manager.grpc_addr(),
            interval = INTERVAL.as_millis(),
        );
        std::fs::write(self.path("scheduler.yaml"), config).unwrap();
        let mut command = self.command(&["agent"]);
        command
            .env("SIGNOFF_SCHEDULER_CONFIG", self.path("scheduler.yaml"))
            .env("SIGNOFF_LISTEN", "127.0.0.1:0")
            .env("POD_NAME", "scheduler-0");
        command
    }

    /// One that reads over REST too.
    pub(crate) fn agent_with_rest(&self) -> Command {
        std::fs::write(self.path("password"), format!("{PASSWORD}\n")).unwrap();
        let mut command = self.agent();
        command
            .env(
                "SIGNOFF_MANAGER",
                format!("{},http://{}", self.manager.grpc_addr(), self.manager.rest_addr()),
            )
            .env("SIGNOFF_USERNAME", "viewer")
            .env("SIGNOFF_PASSWORD_FILE", self.path("password"));
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let dirs = ["spool", "run"].map(|name| std::fs::read_dir(self.path(name)));
        for entry in dirs.into_iter().flatten().flatten().flatten() {
            let file = std::fs::read(entry.path()).unwrap_or_default();
            if !std::thread::panicking() {
                secret::none_in(&String::from_utf8_lossy(&file), &entry.path().display().to_string());
            }
        }
    }
}

/// A running signoff process. Killed when dropped, and then looked through for secrets.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Process {
    /// Starts it; all it prints is kept.
    pub(crate) fn start(command: Command) -> Self {
        Self::start_saying_to(command, Stdio::piped(), Stdio::piped())
    }

    /// Starts it with this stdout and stderr; what it prints to those that are piped is kept.
    pub(crate) fn start_saying_to(mut command: Command, stdout: Stdio, stderr: Stdio) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut readers = Vec::new();
        let stdout = child.stdout.take().map(|stream| Box::new(stream) as Box<dyn std::io::Read + Send>);
        let stderr = child.stderr.take().map(|stream| Box::new(stream) as Box<dyn std::io::Read + Send>);
        for stream in stdout.into_iter().chain(stderr) {
            let log = Arc::clone(&log);
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut log = log.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                }
            }));
        }
        Self { child, log, readers }
    }

    /// An agent that has seen its scheduler serve.
    pub(crate) async fn watching(command: Command) -> Self {
        let agent = Self::start(command);
        agent.says("The scheduler serves.").await;
        agent
    }

    /// All it has printed.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has printed this.
    pub(crate) async fn says(&self, text: &str) {
        self.says_times(text, 1).await;
    }

    /// Waits until it has printed this so often.
    pub(crate) async fn says_times(&self, text: &str, times: usize) {
        let began = Instant::now();
        while self.log().matches(text).count() < times {
            assert!(began.elapsed() < LONG, "it never said {text:?} {times} times:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGTERM.
    pub(crate) fn term(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// SIGTERM, which it has heard before anything else happens.
    pub(crate) async fn hears_term(&self) {
        self.term();
        self.says("Asked to stop.").await;
    }

    /// SIGKILL, and waits for its end.
    pub(crate) async fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.wait().await;
        self.log()
    }

    async fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < LONG, "it never ended:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status
    }

    /// Waits for its end: the exit code, and all it printed.
    pub(crate) async fn ended(mut self) -> (i32, String) {
        self.end().await
    }

    /// The same, of one that is part of something.
    pub(crate) async fn end(&mut self) -> (i32, String) {
        let status = self.wait().await;
        (status.code().unwrap_or(-1), self.log())
    }
}

impl Process {
    /// Waits for its end, which is a good one: exit code 0, and the row inactive. Answers all it printed.
    pub(crate) async fn ends_signed_off(self, world: &World) -> String {
        let (code, log) = self.ended().await;
        assert_eq!((code, world.state()), (0, Some(State::Inactive)), "{log}");
        log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A test that has failed says why itself.
        if !std::thread::panicking() {
            self.readers.drain(..).for_each(|reader| reader.join().unwrap());
            secret::none_in(&self.log(), "a process' output");
        }
    }
}

/// Runs a command to its end: exit code, stdout, stderr.
pub(crate) async fn run(command: Command) -> (i32, String, String) {
    let mut command = tokio::process::Command::from(command);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(LONG, output).await.expect("it never ended").unwrap();
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        secret::none_in(&text, "a command's output");
        text
    };
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}
