//! A soak: a manager that goes and comes back, schedulers that restart, drains that no stop follows, another agent on the same
//! spool that is restarted and killed; and what an agent that lives through it all uses.
//!
//! `SIGNOFF_SOAK=fast` is an hour at 200 times the speed, `SIGNOFF_SOAK=3600` so many seconds in real time. `cargo test` has some
//! minutes, so that the soak itself stays sound. What happens follows from `SIGNOFF_SEED`, when exactly from the machine.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use signoff::{
    agent::socket::{Request, ask},
    key::SchedulerKey,
    manager::State,
    mock::fault::{Fault, Kind},
};

use self::{
    servers::{Order, Servers},
    usage::{Usage, grown, halves},
};
use crate::{
    clock::FastClock,
    harness::{LONG, PASSWORD, Process, eventually, key, signoff},
};

mod servers;
pub(crate) mod usage;

/// How much faster the agents' clocks are.
const RATE: u32 = 200;
/// How often something may happen, by the agents' clocks; and how often what they use is measured.
const TICK: Duration = Duration::from_secs(5);
const MEASURED: u64 = 6;
const INTERVAL: Duration = Duration::from_secs(5);

/// How long, and how fast.
#[derive(Debug, Clone, Copy)]
struct Length {
    duration: Duration,
    rate: u32,
}

impl Length {
    fn of_the_environment() -> Option<Self> {
        let seconds = Duration::from_secs;
        match std::env::var("SIGNOFF_SOAK") {
            Err(_) => None,
            Ok(fast) if fast == "fast" => Some(Self { duration: seconds(3_600), rate: RATE }),
            Ok(real) => {
                let duration = seconds(real.parse().expect("SIGNOFF_SOAK is fast or seconds"));
                Some(Self { duration, rate: 1 })
            }
        }
    }
}

struct Soak {
    clock: FastClock,
    dir: tempfile::TempDir,
    servers: Servers,
    keys: Vec<SchedulerKey>,
    began: Instant,
    rate: u32,
    random: fastrand::Rng,
    happened: BTreeMap<&'static str, usize>,
    manager_back: Option<Duration>,
    schedulers_back: [Option<Duration>; 2],
}

impl Soak {
    async fn new(length: Length, seed: u64) -> Option<Self> {
        let clock = FastClock::of(length.rate)?;
        let keys = vec![key("soak-0"), key("soak-1")];
        let servers = Servers::start(keys.clone(), clock.real(INTERVAL)).await;
        let soak = Self {
            clock,
            // In memory where that is possible: at this speed a disk would be taken for one that hangs.
            dir: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap(),
            servers,
            keys,
            began: Instant::now(),
            rate: length.rate,
            random: fastrand::Rng::with_seed(seed),
            happened: BTreeMap::new(),
            manager_back: None,
            schedulers_back: [None; 2],
        };
        std::fs::write(soak.path("password"), PASSWORD).unwrap();
        Some(soak)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// By the agents' clocks.
    fn now(&self) -> Duration {
        self.began.elapsed() * self.rate
    }

    fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    fn seconds(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_secs(self.random.u64(range))
    }

    fn run_dir(&self, n: usize) -> PathBuf {
        self.path(&format!("run-{n}"))
    }

    /// Of the first the manager's rows are read over REST too.
    fn agent(&self, n: usize) -> Process {
        let addr = self.servers.schedulers[n];
        let config = format!(
            "server:\n  advertiseIP: 127.0.0.1\n  advertisePort: {port}\n  listenIP: 127.0.0.1\n  port: {port}\n  host: {host}\n\
             manager:\n  addr: {manager}\n  schedulerClusterID: 1\n  keepAlive:\n    interval: {interval}s\n",
            port = addr.port(),
            host = self.keys[n].hostname,
            manager = self.servers.grpc,
            interval = INTERVAL.as_secs(),
        );
        let yaml = self.path(&format!("scheduler-{n}.yaml"));
        std::fs::write(&yaml, config).unwrap();
        let mut command: Command = signoff();
        command
            .arg("agent")
            .env("SIGNOFF_SCHEDULER_CONFIG", yaml)
            .env("SIGNOFF_SPOOL", self.path("spool"))
            .env("SIGNOFF_RUN_DIR", self.run_dir(n))
            .env("SIGNOFF_LISTEN", "127.0.0.1:0")
            .env("SIGNOFF_GRACE", "10s")
            .env("POD_NAME", self.keys[n].hostname.as_str())
            .envs(self.clock.environment());
        if n == 0 {
            let managers = format!("{},http://{}", self.servers.grpc, self.servers.rest);
            command
                .env("SIGNOFF_MANAGER", managers)
                .env("SIGNOFF_USERNAME", "viewer")
                .env("SIGNOFF_PASSWORD_FILE", self.path("password"));
        }
        Process::start(command)
    }

    async fn manager(&mut self) {
        let now = self.now();
        match self.manager_back {
            Some(back) if back <= now => {
                self.servers.tell(Order::ManagerUp).await;
                self.manager_back = None;
            }
            None if self.random.u8(..6) == 0 => {
                let lasts = self.seconds(2..60);
                let real = self.clock.real(lasts);
                let fault = |kind| Order::Fault(Fault::new(kind).lasting(real));
                let (what, order) = match self.random.u8(..8) {
                    0..3 => ("manager killed", Order::ManagerDown),
                    3 => ("manager stopped", Order::ManagerStops),
                    4 => ("manager silent", fault(Kind::BlackHole)),
                    5 => ("manager unavailable", fault(Kind::Unavailable)),
                    6 => {
                        let slow = Fault::new(Kind::Stall)
                            .lasting(real)
                            .after(self.clock.real(Duration::from_secs(3)));
                        ("manager slow", Order::Fault(slow))
                    }
                    _ => ("connections reset", fault(Kind::CutAfterApply)),
                };
                if matches!(order, Order::ManagerDown | Order::ManagerStops) {
                    self.manager_back = Some(now + lasts);
                }
                self.count(what);
                self.servers.tell(order).await;
            }
            _ => {}
        }
    }

    async fn scheduler(&mut self, n: usize) {
        let now = self.now();
        if let Some(back) = self.schedulers_back[n] {
            // Like the real one it doesn't start without a manager.
            if back <= now && self.servers.tell(Order::SchedulerUp(n)).await {
                self.schedulers_back[n] = None;
            }
        } else if self.random.u8(..10) == 0 {
            let gracefully = self.random.bool();
            self.count(if gracefully { "scheduler stopped" } else { "scheduler killed" });
            self.schedulers_back[n] = Some(now + self.seconds(2..20));
            let order = if gracefully { Order::SchedulerStops(n) } else { Order::SchedulerDown(n) };
            self.servers.tell(order).await;
        }
    }

    /// A hook, whose answer is nobody's business here; what the agent says of itself is looked at too.
    fn requests(&mut self) {
        let run = self.run_dir(0);
        if self.random.u8(..24) == 0 {
            self.count("pre-stop");
            let (run, deadline) = (run.clone(), self.seconds(1..20));
            tokio::spawn(
                async move { ask(&run, &Request::PreStop { deadline: Some(deadline) }, LONG).await },
            );
        }
        if self.random.u8(..6) == 0 {
            self.count("status");
            tokio::spawn(async move { ask(&run, &Request::Status, LONG).await });
        }
    }

    /// The second agent ends, and the next one starts.
    async fn restart(&mut self, agent: Process) -> Process {
        if self.random.u8(..24) != 0 {
            return agent;
        }
        if self.random.bool() {
            self.count("agent killed");
            let log = agent.kill().await;
            assert!(!log.contains("A bug"), "{log}");
        } else {
            self.count("agent stopped");
            agent.term();
            let (code, log) = agent.ended().await;
            // A signal that comes before the handler is there ends it at once.
            assert!([0, 69, 75, -1].contains(&code) && !log.contains("A bug"), "{code}: {log}");
        }
        self.agent(1)
    }

    async fn calm(&self, agents: [&Process; 2]) {
        self.servers.tell(Order::ManagerUp).await;
        self.servers.tell(Order::AllWell).await;
        for n in 0..2 {
            assert!(self.servers.tell(Order::SchedulerUp(n)).await);
        }
        let asks = |dir: &Path| {
            let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
            let odd = |name: &std::ffi::OsString| {
                let name = name.to_string_lossy();
                !name.ends_with(".mark.json") && !name.ends_with(".lock")
            };
            names.filter(odd).collect::<Vec<_>>()
        };
        eventually("no ask in the spool, and both rows active", async || {
            let active = |key| self.servers.table.state(key).unwrap() == Some(State::Active);
            (asks(&self.path("spool")).is_empty() && self.keys.iter().all(active)).then_some(())
        })
        .await;
        for agent in agents {
            assert!(!agent.log().contains("A bug"), "{}", agent.log());
        }
    }
}

#[tokio::test]
async fn an_agent_that_lives_through_outages_and_restarts_grows_in_nothing() {
    let Some(length) = Length::of_the_environment() else {
        eprintln!("skipped: SIGNOFF_SOAK=fast, or so many seconds");
        return;
    };
    let seed = std::env::var("SIGNOFF_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let Some(mut soak) = Soak::new(length, seed).await else { return };
    let agent = soak.agent(0);
    let mut other = soak.agent(1);
    agent.says("The scheduler serves.").await;
    let mut samples = Vec::new();
    for tick in 1.. {
        let until = TICK * u32::try_from(tick).unwrap();
        tokio::time::sleep(soak.clock.real(until.saturating_sub(soak.now()))).await;
        soak.manager().await;
        soak.scheduler(0).await;
        soak.scheduler(1).await;
        soak.requests();
        other = soak.restart(other).await;
        if tick % MEASURED == 0 {
            samples.push(Usage::of(agent.pid(), &soak.path("spool")));
        }
        if soak.now() >= length.duration && samples.len() >= usage::ENOUGH {
            break;
        }
    }
    let took = soak.began.elapsed();
    soak.calm([&agent, &other]).await;
    let after = Usage::of(agent.pid(), &soak.path("spool"));
    let (first, second) = halves(&samples);
    eprintln!(
        "{:?} at {} times the speed, in {took:?}, seed {seed}: {:?}\n{} samples; first half: {first}; second half: {second}; at the end, all calm: {after}",
        length.duration,
        length.rate,
        soak.happened,
        samples.len()
    );
    if std::env::var_os("SIGNOFF_SOAK_SERIES").is_some() {
        for sample in &samples {
            eprintln!("{sample}");
        }
    }
    assert_eq!(grown(&samples), [""; 0], "{first}; {second}");
}
