//! Puts an agent together: settings, listeners, the spool, the manager, the scheduler's watcher, the core.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::{
    alone,
    backlog::Backlog,
    clock::{Clock, wall_millis},
    command::{Command, Commands, Inbox},
    degraded::Degraded,
    disk::{Disk, Report},
    http::Readiness,
    last_words::{LastWords, TERMINATION_LOG},
    lifecycle::{Config, Event, Lifecycle},
    metrics::Metrics,
    open_files,
    scheduler::Watcher,
    shell::{Deadline, Shell},
    socket::{
        Status,
        status::{ManagerStatus, SchedulerStatus, SpoolStatus, SuccessionStatus},
    },
};
use crate::{
    exit::Exit,
    identity::{Problem, Resolved, Settings, UsageError},
    key::SchedulerKey,
    manager::{Freshness, Manager},
    spool::Limits,
};

mod serve;
#[cfg(test)]
pub(crate) mod simulated;
mod succeed;
mod tend;

pub use tend::{by_key, take_own};

/// How often something that could not be had at the start is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The reasons that [`Problem`]s have.
const PROBLEM_REASONS: [&str; 5] = ["scheduler-config", "hostname", "ip", "manager", "environment"];

/// Finds the settings out; may be called again and again until they are complete. Blocks.
pub type Resolve = Arc<dyn Fn() -> Result<Resolved, UsageError> + Send + Sync>;

/// What the parts of an agent share.
struct Agent {
    settings: Settings,
    metrics: Metrics,
    degraded: Degraded,
    ready: Readiness,
    clock: Clock,
    commands: Commands,
    /// The socket is bound, and the run directory with it.
    bound: watch::Sender<bool>,
}

/// Starts to watch the scheduler of these settings.
type StartToWatch = Box<dyn FnOnce(&Settings) -> Option<Watcher> + Send>;

/// What is around an agent: in tests all of it is made up.
struct Surroundings {
    manager: Arc<dyn Manager>,
    disk: Disk,
    reports: mpsc::UnboundedReceiver<Report>,
    look: StartToWatch,
    last_words: LastWords,
    deadline: Deadline,
}

/// Runs an agent until it was told to stop and has done what there was to do.
pub async fn run(resolve: Resolve) -> Exit {
    let metrics = Metrics::new();
    let degraded = Degraded::new(metrics.clone());
    let clock = Clock::start();
    let (commands, mut inbox) = Commands::new(clock);
    listen_for_signals(&commands);
    let Resolved { settings, problems } = match find_out(&resolve).await {
        Ok(resolved) => resolved,
        Err(exit) => return exit,
    };
    let mut agent = Agent {
        settings,
        metrics,
        degraded,
        ready: Readiness::default(),
        clock,
        commands,
        bound: watch::Sender::new(false),
    };
    agent.report(&problems);
    let listeners = agent.serve();
    let exit = match agent.complete(&resolve, &mut inbox).await {
        Ok(()) => {
            open_files::allow_all();
            agent.answer_for_its_scheduler(inbox).await
        }
        Err(exit) => exit,
    };
    listeners.end().await;
    exit
}

/// What the core has to know of the settings.
pub fn core_config(settings: &Settings, key: SchedulerKey, freshness: Freshness) -> Config {
    Config {
        key,
        advertised: settings.advertised(),
        grace: settings.grace,
        interval: settings.keep_alive_interval,
        repair: settings.repair,
        freshness,
        pod: settings.pod_name.clone(),
        run: fastrand::u32(..),
    }
}

async fn find_out(resolve: &Resolve) -> Result<Resolved, Exit> {
    let resolve = Arc::clone(resolve);
    match tokio::task::spawn_blocking(move || resolve()).await {
        Ok(Ok(resolved)) => Ok(resolved),
        Ok(Err(usage)) => {
            error!(reason = %usage, "The configuration is wrong.");
            Err(Exit::Usage)
        }
        Err(panicked) => {
            error!(error = %panicked, "The settings could not be found out.");
            Err(Exit::Internal)
        }
    }
}

fn listen_for_signals(commands: &Commands) {
    match signal_hook_tokio::Signals::new([SIGTERM, SIGINT]) {
        Ok(mut signals) => {
            let commands = commands.clone();
            tokio::spawn(async move {
                while signals.next().await.is_some() {
                    // The shell is gone only when the process ends.
                    let _ = commands.send(Command::Event(Event::Terminate));
                }
            });
        }
        Err(error) => error!(error = %error, "Signals can't be handled: SIGTERM will end the agent at once."),
    }
}

impl Agent {
    /// From the moment it is known whose row this is, to the end.
    async fn answer_for_its_scheduler(&self, inbox: Inbox) -> Exit {
        self.write_settings();
        let Some(key) = self.settings.key() else { return Exit::Internal };
        info!(
            scheduler.key = %key,
            scheduler.address = self.settings.scheduler_addr.as_ref().map(ToString::to_string),
            manager.endpoints = self.settings.managers.join(","),
            spool.dir = %self.settings.spool.display(),
            grace.seconds = self.settings.grace.as_secs(),
            "Answering for this scheduler."
        );
        let manager = match alone::client(&self.settings) {
            Ok(manager) => manager,
            Err(why) => {
                error!(reason = %why, "The manager's client can't be built.");
                return Exit::Usage;
            }
        };
        let (disk, reports) = Disk::start(&self.settings.spool, Limits::default());
        let around = Surroundings {
            manager,
            disk,
            reports,
            look: Box::new(tend::start_to_watch),
            last_words: LastWords::to(TERMINATION_LOG),
            deadline: Deadline::of_the_process(),
        };
        self.live(key, around, inbox).await
    }

    /// From the moment all it works with is there, to the end.
    async fn live(&self, key: SchedulerKey, around: Surroundings, inbox: Inbox) -> Exit {
        let Surroundings { manager, disk, reports, look, last_words, deadline } = around;
        self.watch_disk(&disk, reports);
        self.watch_manager(manager.as_ref());
        // What a predecessor left comes to the core before anything else, if the disk is quick; else once it wakes.
        let taken = take_own(&disk, &key, &self.commands).await;
        if let Err(error) = &taken {
            self.metrics.spool_error();
            warn!(reason = %error, "The spool could not be read yet.");
        }
        self.watch_scheduler(look(&self.settings));
        let backlog = Backlog::new(self.metrics.clone());
        let (serves, serving) = watch::channel(false);
        let (heirlooms, succession) = self.succeed(&disk, &manager, &key, &backlog, serving);
        self.tend_spool(&disk, &manager, &key, &backlog, heirlooms);
        let config = core_config(&self.settings, key, manager.freshness());
        let mut core = Lifecycle::new(config, self.clock.now().at);
        let status = self.base_status(&disk, manager.as_ref(), succession);
        let (metrics, clock, commands) = (self.metrics.clone(), self.clock, self.commands.clone());
        if !self.settings.ready_after_manager {
            self.ready.set(true);
        }
        let mut shell = Shell::new(manager, disk, metrics, clock, commands, status);
        shell.last_words = last_words;
        shell.deadline = deadline;
        shell.backlog = backlog;
        shell.serves = serves;
        shell.run(&mut core, Vec::new(), inbox).await
    }

    fn report(&self, problems: &[Problem]) {
        for reason in PROBLEM_REASONS {
            let found: Vec<&str> = problems
                .iter()
                .filter(|problem| problem.reason == reason)
                .map(|problem| problem.text.as_str())
                .collect();
            self.degraded.set(reason, (!found.is_empty()).then(|| found.join("; ")));
        }
    }

    /// Waits until the settings are complete; answers meanwhile that they are not.
    async fn complete(&mut self, resolve: &Resolve, inbox: &mut Inbox) -> Result<(), Exit> {
        while !self.settings.is_complete() {
            let again = tokio::time::sleep(AGAIN);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = &mut again => break,
                    Some((_, command)) = inbox.recv() => match command {
                        Command::Event(Event::Terminate) => {
                            error!("Stopping before it was known whose row this agent answers for: nothing was signed off.");
                            // Not the usage: what was missing is in the surroundings. And it is not done either.
                            return Err(Exit::Unavailable);
                        }
                        Command::Event(_) => {}
                        Command::Status(answer) => {
                            let status = Box::new(Status { now: wall_millis(), ..self.plain_status() });
                            // Who asked may have gone.
                            let _ = answer.send(status);
                        }
                        // Dropped: the hook hears that it is not known yet whose row this is.
                        Command::PreStop { answer, .. } => drop(answer),
                    },
                }
            }
            let Resolved { settings, problems } = find_out(resolve).await?;
            self.settings = settings;
            self.report(&problems);
        }
        Ok(())
    }

    /// Once the run directory is this agent's: another's settings are not replaced.
    fn write_settings(&self) {
        let (settings, degraded, mut bound) =
            (self.settings.clone(), self.degraded.clone(), self.bound.subscribe());
        tokio::spawn(async move {
            if bound.wait_for(|bound| *bound).await.is_ok() {
                degraded.set("settings", settings.write().err().map(|error| error.to_string()));
            }
        });
    }

    fn plain_status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pod: self.settings.pod_name.clone(),
            since: wall_millis()
                .saturating_sub(u64::try_from(self.clock.now().at.0.as_millis()).unwrap_or(0)),
            started: true,
            scheduler: SchedulerStatus {
                address: self.settings.scheduler_addr.as_ref().map(ToString::to_string).unwrap_or_default(),
                ..SchedulerStatus::default()
            },
            grace_ms: u64::try_from(self.settings.grace.as_millis()).unwrap_or(u64::MAX),
            degraded: self.degraded.list(),
            manager: ManagerStatus { endpoints: self.settings.managers.clone(), ..ManagerStatus::default() },
            spool: SpoolStatus { dir: self.settings.spool.display().to_string(), ..SpoolStatus::default() },
            ..Status::default()
        }
    }

    fn base_status(
        &self,
        disk: &Disk,
        manager: &dyn Manager,
        succession: impl Fn() -> SuccessionStatus + Send + 'static,
    ) -> Box<dyn Fn() -> Status + Send> {
        let (plain, degraded, disk, contact) =
            (self.plain_status(), self.degraded.clone(), disk.clone(), manager.watch());
        Box::new(move || {
            let mut status = plain.clone();
            let contact = contact.borrow().clone();
            status.degraded = degraded.list();
            status.succession = Some(succession());
            status.manager.answered = contact.answered;
            status.manager.losses = contact.losses;
            status.manager.last_error = contact.last_error;
            status.spool.durability = disk.durability().queued().to_owned();
            status
        })
    }
}
