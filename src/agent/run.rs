//! Puts an agent together: settings, listeners, the spool, the manager, the scheduler's watcher, the core.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tracing::{error, info, warn};

use super::{
    backlog::Backlog,
    clock::{Clock, wall_millis},
    command::{Command, Commands, Inbox, TakeUp},
    degraded::Degraded,
    disk::Disk,
    http::Readiness,
    last_words::{LastWords, TERMINATION_LOG},
    lifecycle::{Config, Event, Lifecycle},
    metrics::Metrics,
    open_files,
    replay::write_ask,
    say,
    scheduler::Watcher,
    shell::{Deadline, Ended, Shell},
    socket::{
        PreStopAnswer, Status,
        status::{ManagerStatus, SchedulerStatus, SpoolStatus, SuccessionStatus},
    },
    watchdog::Watchdog,
};
use crate::{
    exit::Exit,
    files::{self, Troubles},
    identity::{
        CONFIGURATION, HostPort, Problem, Resolved, Settings,
        settings::{DEFAULT_GRACE, FILE},
    },
    key::SchedulerKey,
    manager::{Freshness, Manager},
    net::Prober,
    spool::{
        Count, Holder, Limits, Managers, Spool,
        record::{Cause, Record, RecordId},
    },
};

mod follow;
mod others;
mod serve;
#[cfg(test)]
pub(crate) mod simulated;
mod succeed;
mod tend;

pub use others::Others;
pub use tend::{Left, by_key, take_own};

/// How often something that could not be had at the start is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a scheduler.yaml without a manager is read again.
const LOOK_FOR_A_MANAGER: Duration = Duration::from_secs(5);
/// The reasons that [`Problem`]s have.
const PROBLEM_REASONS: [&str; 6] =
    [CONFIGURATION, "scheduler-config", "hostname", "ip", "manager", "environment"];
/// Under this a grace leaves no room for a second attempt at a manager that is slow.
const SHORT_GRACE: Duration = Duration::from_secs(5);

/// Finds the settings out; may be called again at any time. Fails only where the process itself is in trouble.
pub type Resolve = Arc<dyn Fn() -> BoxFuture<'static, Result<Resolved, Exit>> + Send + Sync>;

/// By something that blocks, which runs beside the agent.
pub fn blocking(resolve: impl Fn() -> Resolved + Send + Sync + 'static) -> Resolve {
    let resolve = Arc::new(resolve);
    Arc::new(move || {
        let resolve = Arc::clone(&resolve);
        async move {
            loop {
                let resolve = Arc::clone(&resolve);
                match files::start(move || resolve()) {
                    // It waits no longer than a moment for whatever it reads.
                    Ok(found) => {
                        return found.await.map_err(|_| {
                            error!("The settings could not be found out.");
                            Exit::Internal
                        });
                    }
                    Err(why) => {
                        warn!(reason = %why, "The settings can't be found out yet; it is tried again.");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
        .boxed()
    })
}

/// What the parts of an agent share.
struct Agent {
    settings: Settings,
    resolve: Resolve,
    /// The keys that the scheduler may be registered with, the likeliest first.
    keys: Vec<SchedulerKey>,
    /// Why the first isn't certain.
    doubt: Option<String>,
    metrics: Metrics,
    degraded: Degraded,
    /// Looks at other schedulers' addresses.
    prober: Arc<Prober>,
    /// What else the scheduler may be registered as.
    named: others::Named,
    ready: Readiness,
    clock: Clock,
    commands: Commands,
    /// The socket is bound, and the run directory with it.
    bound: watch::Sender<bool>,
    /// What agent.json is to say.
    remembered: watch::Sender<Option<Settings>>,
}

/// Starts to watch the scheduler of these settings, at another address too where one is given.
type StartToWatch = Arc<dyn Fn(&Settings, Option<&HostPort>) -> Watcher + Send + Sync>;

/// What is around an agent: in tests all of it is made up.
struct Surroundings {
    connect: follow::Connect,
    disk: Disk,
    look: StartToWatch,
    /// Keeps the settings for hooks, and for the agent after this one.
    remember: Box<dyn Fn(&Agent) + Send + Sync>,
    last_words: LastWords,
    deadline: Arc<Deadline>,
}

/// What an agent leaves as it takes up another key.
struct LeftBehind {
    key: SchedulerKey,
    /// The manager that has its row.
    manager: Arc<dyn Manager>,
    /// The sign-off of that row, where it is owed.
    ask: Option<Record>,
}

/// What an agent goes on with beside a scheduler that has no manager any more: the sign-offs for the one that it had.
struct Former {
    backlog: Backlog,
    // They end with it.
    _tasks: JoinSet<()>,
}

impl Former {
    /// Those that the manager has not acknowledged.
    fn pending(&self) -> u64 {
        self.backlog.others().iter().filter(|ask| ask.watched_until.is_none()).count() as u64
    }
}

/// For which key an agent starts to answer.
struct Start {
    key: SchedulerKey,
    open: Open,
    /// What is left of the key before.
    left: Option<LeftBehind>,
}

/// What is open about the key at the start.
#[derive(Clone, PartialEq, Eq)]
enum Open {
    Nothing,
    /// The configuration may name another key than the one that is answered for at first: that the agent before this one answered for, or
    /// that a look showed.
    OtherThanBefore,
    /// It is the likeliest one; these are the others.
    Doubt(Vec<SchedulerKey>),
}

/// Runs an agent until it was told to stop and has done what there was to do.
pub async fn run(resolve: Resolve) -> Exit {
    let metrics = Metrics::new();
    let degraded = Degraded::new(metrics.clone());
    let clock = Clock::start();
    let (commands, mut inbox) = Commands::new(clock);
    let watchdog = listen_for_signals(&commands);
    let Resolved { settings, problems, keys, doubt } = match resolve().await {
        Ok(resolved) => resolved,
        Err(exit) => return exit,
    };
    if let Some(watchdog) = &watchdog {
        watchdog.grace(settings.grace);
    }
    let mut agent = Agent {
        settings,
        resolve,
        keys,
        doubt,
        metrics,
        degraded,
        prober: Arc::new(Prober::network()),
        named: others::Named::default(),
        ready: Readiness::default(),
        clock,
        commands,
        bound: watch::Sender::new(false),
        remembered: watch::Sender::new(None),
    };
    agent.report(&problems);
    let listeners = agent.serve();
    let exit = match agent.complete(None, &mut inbox).await {
        Ok(()) => {
            open_files::allow_all();
            let deadline = watchdog.map_or_else(Deadline::none, |watchdog| watchdog.deadline());
            agent.answer_for_its_scheduler(deadline, inbox).await
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
        follows: false,
        in_question: false,
        freshness,
        pod: settings.pod_name.clone(),
        run: fastrand::u32(..),
    }
}

/// On whose behalf these settings' process uses a spool.
pub fn holder(settings: &Settings) -> Holder {
    let watched = settings.scheduler_addr.as_ref().map(|addr| addr.port());
    Holder {
        managers: Managers::of(settings.manager().grpc.iter().map(ToString::to_string)),
        ports: watched.into_iter().chain([settings.advertise_port]).collect(),
    }
}

/// Answers with what the spool has by now, looked at in passing: nobody here works on it.
async fn with_the_spool(mut status: Status, answer: oneshot::Sender<Box<Status>>) {
    match in_the_spool(PathBuf::from(&status.spool.dir)).await {
        Ok(count) => say::count(&mut status, &count),
        Err(why) => status.spool.why = Some(why),
    }
    // Who asked may have gone.
    let _ = answer.send(Box::new(status));
}

/// What lies in a spool that this process doesn't work on.
async fn in_the_spool(dir: PathBuf) -> Result<Count, String> {
    let count = || {
        if !dir.exists() {
            return Ok(Count::default());
        }
        Spool::open_existing(dir, Limits::default())?.count()
    };
    let counted = files::within(files::LIMIT, count).await.map_err(|why| why.to_string())?;
    counted.map_err(|why| why.to_string())
}

/// Has the process ended by its deadline from the first signal on. The core hears of each.
fn listen_for_signals(commands: &Commands) -> Option<Watchdog> {
    let commands = commands.clone();
    // The shell is gone only when the process ends.
    let tell = move || drop(commands.send(Command::Event(Event::Terminate)));
    match Watchdog::start(DEFAULT_GRACE, tell) {
        Ok(watchdog) => Some(watchdog),
        Err(error) => {
            error!(error = %error, "Signals can't be handled: SIGTERM will end the agent at once.");
            None
        }
    }
}

impl Agent {
    /// From the moment it is known whose row this is, to the end.
    async fn answer_for_its_scheduler(&mut self, deadline: Deadline, inbox: Inbox) -> Exit {
        let mut open = Open::Nothing;
        if self.answer_as_before().await {
            open = Open::OtherThanBefore;
        } else if let Some(doubt) = &self.doubt {
            let others: Vec<SchedulerKey> = self.keys.iter().skip(1).cloned().collect();
            let names: Vec<String> = others.iter().map(ToString::to_string).collect();
            info!(reason = %doubt, scheduler.others = names.join(", "), "The scheduler's key is not certain.");
            if !others.is_empty() {
                open = Open::Doubt(others);
            }
        }
        if self.settings.grace < SHORT_GRACE {
            warn!(
                grace.seconds = self.settings.grace.as_secs(),
                "The grace is short: a sign-off that a slow manager has not confirmed by then is left queued."
            );
        }
        let (disk, reports) = Disk::start(&self.settings.spool, Limits::default());
        let troubles = Troubles::default();
        self.watch_files(&troubles);
        let around = Surroundings {
            connect: follow::connect(troubles.clone()),
            disk,
            look: Arc::new(move |settings, other| tend::start_to_watch(settings, other, troubles.clone())),
            remember: Box::new(Agent::write_settings),
            last_words: LastWords::to(TERMINATION_LOG),
            deadline: Arc::new(deadline),
        };
        self.watch_disk(&around.disk, reports);
        self.live(around, inbox, open).await
    }

    /// From the moment all it works with is there, to the end: for one key after the other, where the scheduler's changes.
    async fn live(&mut self, around: Surroundings, mut inbox: Inbox, mut open: Open) -> Exit {
        self.watch_what_probes_are_worth();
        let (mut left, mut former) = (None, None);
        loop {
            if let Err(exit) = self.complete(former.as_ref(), &mut inbox).await {
                return exit;
            }
            former = None;
            (around.remember)(self);
            let Some(key) = self.settings.key() else { return Exit::Internal };
            info!(
                scheduler.key = %key,
                scheduler.address = self.settings.scheduler_addr.as_ref().map(ToString::to_string),
                manager.endpoints = self.settings.managers.join(","),
                spool.dir = %self.settings.spool.display(),
                grace.seconds = self.settings.grace.as_secs(),
                "Answering for this scheduler."
            );
            match self.live_as(Start { key, open, left }, &around, &mut inbox).await {
                (Ended::Exit(exit), _) => return exit,
                (Ended::TakeUp(take_up), leaves) => {
                    // The scheduler may have been restarted once more since that was found out.
                    (self.settings, open, left) = (take_up.settings, Open::OtherThanBefore, leaves);
                    if self.settings.without_manager {
                        former = left.take().map(|left| self.finish(left, &around.disk));
                    }
                }
            }
        }
    }

    /// For one key. Answers how that ended, and what is still to be signed off then.
    async fn live_as(
        &self,
        mut start: Start,
        around: &Surroundings,
        inbox: &mut Inbox,
    ) -> (Ended, Option<LeftBehind>) {
        let key = start.key.clone();
        let manager = match (around.connect)(&self.settings) {
            Ok(manager) => manager,
            Err(why) => {
                // No reason to end: the scheduler waits for this container to start.
                self.degraded.set("manager", Some(format!("the manager's client can't be built: {why}")));
                let exit =
                    self.not_yet(std::future::pending(), None, inbox).await.err().unwrap_or(Exit::Internal);
                return (Ended::Exit(exit), None);
            }
        };
        let disk = around.disk.clone();
        disk.hold_for(holder(&self.settings));
        // They end with this key.
        let mut tasks = JoinSet::new();
        self.watch_manager(&mut tasks, manager.as_ref());
        // What a predecessor left comes to the core before anything else, if the disk is quick; else once it wakes.
        let taken = take_own(&disk, &key, &self.commands).await;
        if let Err(error) = &taken {
            self.metrics.spool_error();
            warn!(reason = %error, "The spool could not be read yet.");
        }
        let seen = self.watch_scheduler(&mut tasks, &around.look);
        let backlog = Backlog::new(self.metrics.clone());
        let (serves, serving) = watch::channel(false);
        let (heirlooms, succession) = self.succeed(&mut tasks, &disk, &manager, &key, &backlog, serving);
        if let Some(LeftBehind { ask: Some(ask), manager, .. }) = start.left.take() {
            let replay = self.replay(&disk, &manager, &backlog);
            self.sign_off_what_was_left(&mut tasks, ask, replay, heirlooms.clone());
        }
        self.named.open(start.open != Open::Nothing);
        self.tend_spool(&mut tasks, &disk, &manager, &key, &backlog, heirlooms);
        let questions = self.follow(&mut tasks, &manager, Arc::clone(&around.connect), &start);
        let config = Config {
            follows: true,
            in_question: start.open != Open::Nothing,
            ..core_config(&self.settings, key.clone(), manager.freshness())
        };
        let mut core = Lifecycle::new(config, self.clock.now().at);
        let status = self.base_status(&disk, manager.as_ref(), seen, succession);
        let (metrics, clock, commands) = (self.metrics.clone(), self.clock, self.commands.clone());
        if !self.settings.ready_after_manager {
            self.ready.set(true);
        }
        let there = Arc::clone(&manager);
        let pod = self.settings.pod_name.clone();
        let connect = Arc::clone(&around.connect);
        let others = Arc::new(Others::new(self.named.clone(), connect, disk.clone(), metrics.clone(), pod));
        let mut shell = Shell::new(manager, disk.clone(), metrics, clock, commands, status);
        shell.last_words = around.last_words.clone();
        shell.deadline = Arc::clone(&around.deadline);
        shell.backlog = backlog;
        shell.serves = serves;
        shell.others = Some(others);
        shell.identify = Some(questions);
        shell.names = Some(self.names());
        let ended = shell.run(&mut core, Vec::new(), inbox).await;
        match ended {
            Ended::Exit(exit) => (Ended::Exit(exit), None),
            Ended::TakeUp(take_up) => {
                self.named.set(Vec::new());
                let ask = self.leave_behind(&core, &take_up, &disk).await;
                (Ended::TakeUp(take_up), Some(LeftBehind { key, manager: there, ask }))
            }
        }
    }

    /// The scheduler's old row is nobody's any more: it is signed off as a predecessor's is. Answers the ask for that, which stands for
    /// all that was asked for the old key before.
    async fn leave_behind(&self, core: &Lifecycle, take_up: &TakeUp, disk: &Disk) -> Option<Record> {
        let key = core.key();
        let asks: Vec<RecordId> = core.pending().iter().map(|ask| ask.record.id.clone()).collect();
        let is_another = take_up.settings.without_manager || take_up.settings.key().as_ref() != Some(key);
        // Of a key that was never listed there is no row.
        let owed = is_another && !take_up.is_signed_off && core.listed();
        let left = owed.then(|| {
            let pod = self.settings.pod_name.clone();
            // The scheduler answers at its address, under its new key or none: nothing follows from that, and what was asked before
            // would be superseded by it.
            let ask = Record::sign_off(key.clone(), Cause::Predecessor, None, wall_millis(), pod);
            Record { row_updated: take_up.old_updated.clone(), ..ask }
        });
        let is_on_disk = match &left {
            Some(ask) => write_ask(disk, &self.metrics, ask).await,
            None => false,
        };
        if is_another && (take_up.is_signed_off || is_on_disk) {
            disk.settle_later(asks.clone(), take_up.is_signed_off);
        }
        // Whoever answers for the key from now on may have what there is of it.
        disk.release_with_marks(asks, key.clone());
        left
    }

    /// Goes on with what the manager of before is still to be told, though the scheduler has none any more.
    fn finish(&self, left: LeftBehind, disk: &Disk) -> Former {
        let LeftBehind { key, manager, ask } = left;
        let (mut tasks, backlog) = (JoinSet::new(), Backlog::new(self.metrics.clone()));
        // There is no row of its own, so there are no predecessors, and nobody listens.
        let (heirlooms, _) = mpsc::unbounded_channel();
        if let Some(ask) = ask {
            let replay = self.replay(disk, &manager, &backlog);
            self.sign_off_what_was_left(&mut tasks, ask, replay, heirlooms.clone());
        }
        self.tend_spool(&mut tasks, disk, &manager, &key, &backlog, heirlooms);
        Former { backlog, _tasks: tasks }
    }

    /// Where the agent before this one, in the same pod, answered for another key than the configuration names by now: answers for that
    /// key until the manager shows which one the scheduler registers. A file that changed is no restart of the scheduler.
    async fn answer_as_before(&mut self) -> bool {
        let run_dir = self.settings.run_dir.clone();
        // It has that limit itself.
        let before = files::within(files::LIMIT * 2, move || Settings::read(&run_dir)).await;
        let Ok(Ok(Some(before))) = before else { return false };
        self.answer_as(before).await
    }

    async fn answer_as(&mut self, before: Settings) -> bool {
        let is_whole = before.key().is_some() && before.has_grpc();
        if !is_whole || !before.is_of_the_same_pod(&self.settings) || before.key() == self.settings.key() {
            return false;
        }
        if !follow::name_one_manager(&before, &self.settings).await {
            // It is that one's row.
            self.settings = Settings {
                managers: before.managers,
                username: before.username,
                password_file: before.password_file,
                ca_file: before.ca_file,
                cert_file: before.cert_file,
                key_file: before.key_file,
                ..self.settings.clone()
            };
        }
        self.settings.hostname = before.hostname;
        self.settings.ip = before.ip;
        self.settings.cluster_id = before.cluster_id;
        self.settings.advertise_port = before.advertise_port;
        true
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

    /// Waits until the settings are complete; answers meanwhile that they are not. Without a manager there is nothing to wait
    /// for: the agent is content, and only looks whether one is named later.
    async fn complete(&mut self, former: Option<&Former>, inbox: &mut Inbox) -> Result<(), Exit> {
        let mut content = false;
        while !self.settings.is_complete() {
            let without_manager = self.settings.without_manager;
            if without_manager && !content {
                info!("The scheduler's configuration names no manager: there is nothing to keep true.");
                self.write_settings();
            }
            if without_manager != content {
                self.ready.set(without_manager);
                content = without_manager;
            }
            let again = if without_manager { LOOK_FOR_A_MANAGER } else { AGAIN };
            self.not_yet(tokio::time::sleep(again), former, inbox).await?;
            let Resolved { settings, problems, keys, doubt } = (self.resolve)().await?;
            (self.settings, self.keys, self.doubt) = (settings, keys, doubt);
            self.report(&problems);
        }
        if content {
            self.ready.set(false);
        }
        Ok(())
    }

    /// Until `again`: answers that it is not known yet whose row this is, or that there is nothing to do.
    async fn not_yet(
        &self,
        again: impl Future<Output = ()>,
        former: Option<&Former>,
        inbox: &mut Inbox,
    ) -> Result<(), Exit> {
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = &mut again => return Ok(()),
                Some((_, command)) = inbox.recv() => match command {
                    Command::Event(Event::Terminate) if self.settings.without_manager => {
                        let pending = match former {
                            Some(former) => former.pending(),
                            None => in_the_spool(self.settings.spool.clone()).await.map_or(0, |count| count.asks),
                        };
                        if pending > 0 {
                            warn!(
                                signoff.pending = pending, exit.code = Exit::Queued.code(),
                                "Stopping with sign-offs for a manager that the configuration does not name any more: they stay in the spool."
                            );
                            return Err(Exit::Queued);
                        }
                        info!("Stopping: there was nothing to sign off.");
                        return Err(Exit::Done);
                    }
                    Command::Event(Event::Terminate) => {
                        error!("Stopping before it was known whose row this agent answers for: nothing was signed off.");
                        // Not the usage: what was missing may be in the surroundings. And it is not done either.
                        return Err(Exit::Unavailable);
                    }
                    Command::Event(_) | Command::EventOf { .. } | Command::TakeUp(_) => {}
                    Command::Status(answer) => {
                        let pending = former.map(|former| former.backlog.others()).unwrap_or_default();
                        let status = Status { now: wall_millis(), pending, ..self.plain_status() };
                        tokio::spawn(with_the_spool(status, answer));
                    }
                    Command::PreStop { answer, .. } if self.settings.without_manager => {
                        let _ = answer.send(PreStopAnswer::without_manager());
                    }
                    // Dropped: the hook hears that it is not known yet whose row this is.
                    Command::PreStop { answer, .. } => drop(answer),
                },
            }
        }
    }

    /// Once the run directory is this agent's: another's settings are not replaced.
    fn write_settings(&self) {
        if self.remembered.send_replace(Some(self.settings.clone())).is_some() {
            return;
        }
        // One at a time, and the latest last: a write that hangs must not end after a later one.
        let (mut latest, degraded, mut bound) =
            (self.remembered.subscribe(), self.degraded.clone(), self.bound.subscribe());
        tokio::spawn(async move {
            if bound.wait_for(|bound| *bound).await.is_err() {
                return;
            }
            loop {
                let settings = latest.borrow_and_update().clone().unwrap_or_default();
                let file = settings.run_dir.join(FILE);
                serve::until_done("settings", &degraded, &file, move || settings.write()).await;
                if latest.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Which files of the manager's client, and of the scheduler's, can't be used.
    fn watch_files(&self, troubles: &Troubles) {
        let (degraded, mut troubles) = (self.degraded.clone(), troubles.watch());
        tokio::spawn(async move {
            loop {
                let words = troubles.borrow_and_update().values().cloned().collect::<Vec<_>>().join("; ");
                degraded.set("files", (!words.is_empty()).then_some(words));
                if troubles.changed().await.is_err() {
                    return;
                }
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
            manager: ManagerStatus {
                none: self.settings.without_manager,
                endpoints: self.settings.managers.clone(),
                ..ManagerStatus::default()
            },
            spool: SpoolStatus { dir: self.settings.spool.display().to_string(), ..SpoolStatus::default() },
            ..Status::default()
        }
    }

    fn base_status(
        &self,
        disk: &Disk,
        manager: &dyn Manager,
        seen: watch::Receiver<Option<String>>,
        succession: impl Fn() -> SuccessionStatus + Send + 'static,
    ) -> Box<dyn Fn() -> Status + Send> {
        let (plain, degraded, disk, contact) =
            (self.plain_status(), self.degraded.clone(), disk.clone(), manager.watch());
        Box::new(move || {
            let mut status = plain.clone();
            let contact = contact.borrow().clone();
            status.degraded = degraded.list();
            status.succession = Some(succession());
            status.scheduler.why = seen.borrow().clone();
            status.manager.answered = contact.answered;
            status.manager.losses = contact.losses;
            status.manager.last_error = contact.last_error;
            status.manager.rest_error = contact.rest_error;
            status.spool.durability = disk.durability().queued().to_owned();
            status
        })
    }
}

#[cfg(test)]
mod tests;
