//! `signoff reconcile` as a process: what it finds, what it repairs, what holds it back. Each verdict is read from the table.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use signoff::{
    key::SchedulerKey,
    manager::State,
    mock::{
        manager::{Config, MockManager, Release, Role, User},
        scheduler::{MockScheduler, SchedulerConfig},
        table::{Change, TableRow},
    },
};

use crate::harness::{INTERVAL, LONG, PASSWORD, eventually, run, signoff};

mod look;
mod stay;
mod write;

/// Of `chief`, who may delete.
const ROOT_PASSWORD: &str = "s3cr3t-password-0";

/// A manager with some schedulers, each at an address of its own, and a directory.
pub(crate) struct Fleet {
    pub(crate) manager: MockManager,
    pub(crate) schedulers: Vec<MockScheduler>,
    dir: tempfile::TempDir,
}

/// A scheduler's key: the nth has the address 127.0.0.(n + 1).
pub(crate) fn nth(n: u8) -> SchedulerKey {
    named(&format!("scheduler-{n}"), 1, n + 1)
}

pub(crate) fn named(hostname: &str, cluster_id: u64, last: u8) -> SchedulerKey {
    let ip = Ipv4Addr::new(127, 0, 0, last);
    SchedulerKey::new(
        cluster_id.try_into().unwrap(),
        hostname.parse().unwrap(),
        ip.to_string().parse().unwrap(),
    )
}

impl Fleet {
    /// So many schedulers in cluster 1, all active.
    pub(crate) async fn of(schedulers: u8) -> Self {
        Self::with(Config::default(), schedulers).await
    }

    pub(crate) async fn with(config: Config, schedulers: u8) -> Self {
        let chief = User { name: "chief".to_owned(), password: ROOT_PASSWORD.to_owned(), role: Role::Root };
        let users = [vec![User::guest("viewer", PASSWORD), chief], config.users.clone()].concat();
        let manager = MockManager::start(Config { users, ..config }).await.unwrap();
        let mut fleet = Self { manager, schedulers: Vec::new(), dir: tempfile::tempdir().unwrap() };
        for n in 0..schedulers {
            fleet.add(nth(n)).await;
        }
        fleet
    }

    /// One more scheduler, at its key's address, until it is active.
    pub(crate) async fn add(&mut self, key: SchedulerKey) -> &mut MockScheduler {
        let listen = SocketAddr::new(key.ip.get(), 0);
        self.add_as(SchedulerConfig { listen, ..SchedulerConfig::new(key, self.manager.grpc_addr()) }).await
    }

    pub(crate) async fn add_as(&mut self, config: SchedulerConfig) -> &mut MockScheduler {
        let key = config.key.clone();
        self.schedulers.push(MockScheduler::start(config.every(INTERVAL)).await.unwrap());
        self.until(&key, State::Active).await;
        self.schedulers.last_mut().unwrap()
    }

    pub(crate) async fn until(&self, key: &SchedulerKey, state: State) {
        let reached = self.manager.table().eventually_state(key, Some(state), LONG).await;
        assert!(reached, "{key} never became {state:?}: {:?}", self.manager.table().history());
    }

    /// A scheduler that answers at this address, and of which this fleet's manager hears nothing.
    pub(crate) async fn stranger(&self, listen: SocketAddr) -> (MockManager, MockScheduler) {
        let elsewhere = MockManager::start(Config::default()).await.unwrap();
        let key = named("stranger-0", 1, 200);
        let config = SchedulerConfig { listen, ..SchedulerConfig::new(key, elsewhere.grpc_addr()) };
        let scheduler = MockScheduler::start(config).await.unwrap();
        (elsewhere, scheduler)
    }

    /// These schedulers are gone without a word.
    pub(crate) async fn lose(&mut self, which: &[usize]) {
        for n in which {
            self.schedulers[*n].vanish().await;
        }
    }

    pub(crate) fn state(&self, key: &SchedulerKey) -> Option<State> {
        self.manager.table().state(key).unwrap()
    }

    pub(crate) fn row(&self, key: &SchedulerKey) -> TableRow {
        self.manager.table().find(key).unwrap().unwrap()
    }

    /// A manager before v2.3.1 shows whole seconds: what is made from here on was made later than this row was written.
    pub(crate) async fn until_a_later_second(&self, key: &SchedulerKey) {
        eventually("the second is over", async || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let written = self.row(key).updated_at / 1000;
            (now > written).then_some(())
        })
        .await;
    }

    /// All writes of states until now.
    pub(crate) fn history(&self) -> Vec<Change> {
        self.manager.table().history()
    }

    /// `signoff reconcile`, over REST as a guest, with these arguments.
    pub(crate) fn reconcile(&self, args: &[&str]) -> Command {
        let mut command = self.over_grpc(args);
        command
            .env(
                "SIGNOFF_MANAGER",
                format!("{},http://{}", self.manager.grpc_addr(), self.manager.rest_addr()),
            )
            .env("SIGNOFF_USERNAME", "viewer")
            .env("SIGNOFF_PASSWORD_FILE", self.file("password", PASSWORD));
        command
    }

    /// As one who may delete.
    pub(crate) fn reconcile_as_root(&self, args: &[&str]) -> Command {
        let mut command = self.reconcile(args);
        command
            .env("SIGNOFF_USERNAME", "chief")
            .env("SIGNOFF_PASSWORD_FILE", self.file("root-password", ROOT_PASSWORD));
        command
    }

    /// Over gRPC alone.
    pub(crate) fn over_grpc(&self, args: &[&str]) -> Command {
        let mut command = signoff();
        command
            .arg("reconcile")
            .args(args)
            .env("SIGNOFF_MANAGER", self.manager.grpc_addr().to_string())
            // Six intervals: however busy the machine, each living scheduler sends a message in between.
            .env("SIGNOFF_RECHECK_AFTER", "3s")
            .env("SIGNOFF_RUN_DIR", self.dir.path().join("run"));
        command
    }

    fn file(&self, name: &str, content: &str) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// Runs it; its exit code, and all it printed.
pub(crate) async fn ended(command: Command) -> (i32, String) {
    let (code, out, err) = run(command).await;
    (code, format!("{out}\n{err}"))
}

/// What it prints as JSON.
pub(crate) async fn json(mut command: Command) -> (i32, serde_json::Value) {
    command.args(["-o", "json"]);
    let (code, out, err) = run(command).await;
    let value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    (code, value)
}

/// The verdict and the reason of the row of `key`, if it is among the findings.
pub(crate) fn finding<'a>(
    report: &'a serde_json::Value,
    fleet: &Fleet,
    key: &SchedulerKey,
) -> Option<&'a serde_json::Value> {
    let id = fleet.row(key).id;
    report["rows"].as_array().unwrap().iter().find(|row| row["id"] == id)
}

pub(crate) const ALL: [&str; 3] = ["--apply", "--cluster-id=1", "--max-share=100%"];
