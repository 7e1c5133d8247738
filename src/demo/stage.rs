//! The stage: one mock manager for all scenes, and in each a scheduler of its own with its agents.

use std::{
    net::IpAddr,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{
    parts::{Part, Workshop},
    view::View,
};
use crate::{
    key::{Hostname, SchedulerKey},
    manager::{
        State, Withdraw,
        client::{Client, ManagerSettings},
        endpoints::Endpoint,
    },
    mock::{
        manager::{Config, MockManager, User},
        scheduler::{MockScheduler, SchedulerConfig},
        table::By,
    },
};

/// The schedulers' keep-alive interval: a tenth of the real one, so that the demo is short.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a promise may take, all noise included; the timeline shows how long it took.
const PATIENCE: Duration = Duration::from_secs(8);

/// The address of a scheduler that has not been lost yet.
const IP: &str = "127.0.0.1";

/// An error as text.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The stage.
pub(super) struct Stage {
    /// The timeline.
    pub view: View,
    /// The one manager.
    pub manager: MockManager,
    workshop: Workshop,
    watcher: tokio::task::JoinHandle<()>,
    agents: Vec<Child>,
    scheduler: Option<MockScheduler>,
    /// Lost with their nodes: the manager still waits for their streams.
    lost: Vec<MockScheduler>,
}

impl Stage {
    /// Starts the manager.
    pub(super) async fn set(view: View) -> Result<Self, Failure> {
        let workshop = Workshop::open().await?;
        let manager =
            MockManager::start(Config { latency: Duration::from_millis(2), ..Config::default() }).await?;
        let (table, shown) = (manager.table().clone(), view.clone());
        let watcher = tokio::spawn(async move {
            let mut changes = table.changes();
            let mut said = 0;
            while changes.changed().await.is_ok() {
                for change in table.history().into_iter().skip(said) {
                    said += 1;
                    let by = match change.by {
                        By::Register => "registered",
                        By::FirstMessage => "a KeepAlive stream began",
                        By::StreamEnd => "a KeepAlive stream ended",
                        By::Rest => "a change over REST",
                        By::Collection => "the manager's own collection",
                        By::Hand => "by hand",
                    };
                    let to = change.to.map_or("deleted", State::word);
                    // The second incarnation is the one with another address.
                    let at = if change.ip == IP { String::new() } else { format!(" at {}", change.ip) };
                    shown.line("table", &format!("{}{at} is {to}: {by}", change.host_name));
                }
                shown.table(table.rows().unwrap_or_default());
            }
        });
        view.line(
            "manager",
            &format!("serves gRPC on {} and REST on {}", manager.grpc_addr(), manager.rest_addr()),
        );
        if let Some(page) = manager.admin_addr() {
            view.line("manager", &format!("its table, live: http://{page}/"));
        }
        Ok(Self { view, manager, workshop, watcher, agents: Vec::new(), scheduler: None, lost: Vec::new() })
    }

    /// A scheduler registers and becomes active.
    pub(super) async fn scheduler(&mut self, hostname: &str) -> Result<SchedulerKey, Failure> {
        self.scheduler_at(hostname, IP).await
    }

    /// One with this address.
    pub(super) async fn scheduler_at(&mut self, hostname: &str, ip: &str) -> Result<SchedulerKey, Failure> {
        let key = SchedulerKey::new(1.try_into()?, hostname.parse()?, ip.parse()?);
        let config = SchedulerConfig::new(key.clone(), self.manager.grpc_addr()).every(INTERVAL);
        let listen = (key.ip.get(), 0).into();
        let scheduler = MockScheduler::start(SchedulerConfig { listen, ..config }).await?;
        self.view.line("scheduler", &format!("{hostname} starts on {}", scheduler.addr()));
        self.scheduler = Some(scheduler);
        self.expect(&key, State::Active).await?;
        Ok(key)
    }

    /// The scheduler of this scene.
    pub(super) fn cast(&mut self) -> Result<&mut MockScheduler, Failure> {
        self.scheduler.as_mut().ok_or_else(|| "there is no scheduler on stage".into())
    }

    /// The scheduler's node is lost.
    pub(super) async fn lose_scheduler(&mut self) -> Result<(), Failure> {
        let mut scheduler = self.scheduler.take().ok_or("there is no scheduler on stage")?;
        scheduler.vanish().await;
        self.lost.push(scheduler);
        Ok(())
    }

    /// Where the agents of a key have their directories: each pod its own.
    fn home(&self, key: &SchedulerKey) -> PathBuf {
        self.workshop.dir.join(format!("{}-{}", key.hostname, key.ip))
    }

    /// A process with nothing in its environment but what the demo gives it.
    fn command(&self, part: Part, key: &SchedulerKey) -> Result<Command, Failure> {
        let home = self.home(key);
        std::fs::create_dir_all(&home)?;
        let mut command = part.command()?;
        command
            .env_clear()
            .env("SIGNOFF_RUN_DIR", home.join("run"))
            .env("SIGNOFF_SPOOL", home.join("spool"))
            .stdin(Stdio::null());
        Ok(command)
    }

    /// An agent process starts beside the scheduler, and has seen it when this returns.
    pub(super) async fn agent(&mut self, key: &SchedulerKey, sees: &str) -> Result<(), Failure> {
        self.agent_with(key, sees, &[]).await
    }

    /// One with these variables beside the usual ones.
    pub(super) async fn agent_with(
        &mut self,
        key: &SchedulerKey,
        sees: &str,
        variables: &[(&str, &str)],
    ) -> Result<(), Failure> {
        let scheduler = self.cast()?.addr();
        let mut command = self.command(Part::Agent, key)?;
        command
            .env("SIGNOFF_HOSTNAME", key.hostname.as_str())
            .env("SIGNOFF_IP", key.ip.to_string())
            .env("SIGNOFF_CLUSTER_ID", key.cluster_id.to_string())
            .env("SIGNOFF_SCHEDULER_ADDR", scheduler.to_string())
            .env("SIGNOFF_MANAGER", self.manager.grpc_addr().to_string())
            .env("SIGNOFF_LISTEN", "127.0.0.1:0")
            .env("SIGNOFF_LOG_FORMAT", "text")
            .env("POD_NAME", key.hostname.first_label())
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let id = child.id().unwrap_or_default();
        self.view.line("agent", &format!("process {id} starts"));
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await? {
            if line.contains(sees) {
                // What it says from here on is not needed, but its pipe must not fill.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                self.agents.push(child);
                return Ok(());
            }
        }
        Err(format!("the agent ended early: {}", child.wait().await?).into())
    }

    /// SIGTERM for the newest agent.
    pub(super) fn terminate_agent(&mut self) -> Result<(), Failure> {
        let id = self.agents.last().and_then(Child::id).ok_or("there is no agent on stage")?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(id)?).ok_or("no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.view.line("agent", &format!("process {id} gets SIGTERM"));
        Ok(())
    }

    /// SIGKILL for the newest agent.
    pub(super) async fn kill_agent(&mut self) -> Result<(), Failure> {
        let mut agent = self.agents.pop().ok_or("there is no agent on stage")?;
        let id = agent.id().unwrap_or_default();
        agent.kill().await?;
        self.view.line("agent", &format!("process {id} is killed with -9"));
        Ok(())
    }

    /// Waits for the newest agent's end.
    pub(super) async fn agent_exits(&mut self, code: i32) -> Result<(), Failure> {
        let mut agent = self.agents.pop().ok_or("there is no agent on stage")?;
        let id = agent.id().unwrap_or_default();
        let status = agent.wait().await?;
        self.view.line("agent", &format!("process {id} ends: {status}"));
        if status.code() == Some(code) {
            Ok(())
        } else {
            Err(format!("the agent ended with {status}").into())
        }
    }

    /// Runs `signoff pre-stop` beside the agent.
    pub(super) async fn pre_stop(&mut self, key: &SchedulerKey) -> Result<(), Failure> {
        let output = self.command(Part::PreStop, key)?.output().await?;
        let said = String::from_utf8_lossy(&output.stdout);
        self.view.line("pre-stop", said.trim());
        Ok(())
    }

    /// Runs `signoff reconcile` over the cluster; it writes only where `apply` is `true`.
    pub(super) async fn reconcile(&mut self, apply: &str) -> Result<(), Failure> {
        let home = &self.workshop.dir;
        let password = home.join("password");
        std::fs::write(&password, User::root().password)?;
        let mut command = Part::Reconcile.command()?;
        command
            .env_clear()
            .env("SIGNOFF_RUN_DIR", home.join("run"))
            .env(
                "SIGNOFF_MANAGER",
                format!("{},http://{}", self.manager.grpc_addr(), self.manager.rest_addr()),
            )
            .env("SIGNOFF_USERNAME", User::root().name)
            .env("SIGNOFF_PASSWORD_FILE", password)
            .env("SIGNOFF_CLUSTER_ID", "1")
            .env("SIGNOFF_APPLY", apply)
            // A sabotaged scene leaves a dead row too, and then these are most of the few that there are.
            .env("SIGNOFF_MAX_SHARE", "100%")
            // Four intervals: the living one sends a message in between, however busy the machine.
            .env("SIGNOFF_RECHECK_AFTER", "2s")
            .stdin(Stdio::null());
        let output = command.output().await?;
        let said = String::from_utf8_lossy(&output.stdout);
        for line in said.trim().lines() {
            self.view.line("reconcile", line);
        }
        Ok(())
    }

    /// The addresses of this hostname's rows that the manager gives to a peer which names cluster 1, as the official chart's do.
    pub(super) async fn given(&self, hostname: &Hostname) -> Result<Vec<IpAddr>, Failure> {
        let grpc = vec![Endpoint::grpc(self.manager.grpc_addr().into(), false)];
        let client = Client::new(ManagerSettings { grpc, ..ManagerSettings::default() })?;
        let mut given = Vec::new();
        for (_, rows) in client.given(1.try_into()?, &[]).await? {
            given.extend(rows?.into_iter().filter(|row| row.hostname == hostname.as_str()));
        }
        given.sort_by_key(|row| row.id);
        let shown: Vec<String> =
            given.iter().map(|row| format!("{} ({})", row.ip, row.state.word())).collect();
        self.view.line("peer", &format!("is given {hostname} at {}", shown.join(" and at ")));
        Ok(given.iter().map(|row| row.ip.parse()).collect::<Result<_, _>>()?)
    }

    /// Waits for an ask in the spool of this key's agent.
    pub(super) async fn ask_is_on_disk(&self, key: &SchedulerKey) -> Result<(), Failure> {
        let spool = self.home(key).join("spool");
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let asks = std::fs::read_dir(&spool)?.flatten();
            let ask = asks
                .map(|entry| entry.file_name())
                .find(|name| name.to_string_lossy().ends_with(".ask.json"));
            if let Some(ask) = ask {
                self.view.line("spool", &format!("holds {}", ask.to_string_lossy()));
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("no sign-off was written to the spool".into())
    }

    /// The row is, or becomes, what it should be.
    pub(super) async fn expect(&self, key: &SchedulerKey, state: State) -> Result<(), Failure> {
        if self.manager.table().eventually_state(key, Some(state), PATIENCE).await {
            return Ok(());
        }
        let is = self.manager.table().state(key)?.map_or("absent", State::word);
        Err(format!("the row of {key} is {is} after {} s, not {}", PATIENCE.as_secs(), state.word()).into())
    }

    /// Ends what a scene left running.
    pub(super) async fn clear(&mut self) {
        for mut agent in self.agents.drain(..) {
            // It may have ended by itself.
            let _ = agent.kill().await;
        }
        if let Some(mut scheduler) = self.scheduler.take() {
            scheduler.kill().await;
        }
        self.lost.clear();
        // A sabotaged scene may have left the manager down.
        let _ = self.manager.restart().await;
    }

    /// The row comes to this state and stays in it so long. (A sign-off of an inactive row passes through active.)
    pub(super) async fn comes_to_stay(
        &self,
        key: &SchedulerKey,
        state: State,
        long: Duration,
    ) -> Result<(), Failure> {
        let table = self.manager.table();
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            self.expect(key, state).await?;
            if !table.eventually(long, |_| table.state(key).ok() != Some(Some(state))).await {
                return Ok(());
            }
        }
        Err(format!("the row of {key} did not stay {}", state.word()).into())
    }

    /// Leaves it all running, with a scheduler and its agent, until this future is dropped.
    pub(super) async fn keep(&mut self) -> Result<(), Failure> {
        self.view.scene("a scheduler and its agent to look at");
        let key = self.scheduler("scheduler-9").await?;
        self.agent(&key, "The scheduler serves.").await?;
        let page = self.manager.admin_addr().map(|page| format!("http://{page}/")).unwrap_or_default();
        self.view.end(&format!("Still running: {page} shows the table. Ctrl-C ends it."));
        std::future::pending().await
    }

    /// Ends everything; nothing of the demo stays.
    pub(super) async fn strike(mut self) {
        self.clear().await;
        self.watcher.abort();
        self.manager.stop().await;
        self.workshop.close().await;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}
