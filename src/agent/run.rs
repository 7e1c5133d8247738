//! Puts an agent together: settings, listeners, the spool, the manager, the scheduler's watcher, the core.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tracing::{error, info, warn};

use super::{
    alone, check,
    clock::{Clock, wall_millis},
    degraded::Degraded,
    disk::{Disk, DiskError, SpoolState},
    hook::{
        self, Hook, HookAnswer,
        allow::{AllowList, Network, RouteTables},
        token::TokenFile,
    },
    http::{self, Readiness, Served},
    last_words::{LastWords, TERMINATION_LOG},
    lifecycle::{Config, Event, Lifecycle, Sight},
    metrics::Metrics,
    replay::{Backlog, Replay},
    say,
    scheduler::{Observation, Target, Watcher},
    shell::{Command, Shell},
    socket::{
        self, Request, Response, Status,
        status::{ManagerStatus, SchedulerStatus, SpoolStatus},
    },
};
use crate::{
    exit::Exit,
    identity::{Problem, Resolved, Settings, UsageError},
    key::SchedulerKey,
    manager::{Freshness, Manager},
    net::{Peer, TlsFiles},
    spool::{
        Limits, Taken,
        record::{Kind, Record},
    },
};

/// How often something that could not be had at the start is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a port that is taken is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// The reasons that [`Problem`]s have.
const PROBLEM_REASONS: [&str; 5] = ["scheduler-config", "hostname", "ip", "manager", "environment"];
/// How long the answers under way have at the end to reach those who asked.
const LAST_ANSWERS: Duration = Duration::from_millis(100);
/// How often the spool is looked through for what dead agents left.
const ADOPT_EVERY: Duration = Duration::from_secs(60);

/// Finds the settings out; may be called again and again until they are complete. Blocks.
pub type Resolve = Arc<dyn Fn() -> Result<Resolved, UsageError> + Send + Sync>;

/// What the parts of an agent share.
struct Agent {
    settings: Settings,
    metrics: Metrics,
    degraded: Degraded,
    ready: Readiness,
    clock: Clock,
    commands: mpsc::UnboundedSender<Command>,
}

/// Runs an agent until it was told to stop and has done what there was to do.
pub async fn run(resolve: Resolve) -> Exit {
    let metrics = Metrics::new();
    let degraded = Degraded::new(metrics.clone());
    let (commands, mut inbox) = mpsc::unbounded_channel();
    listen_for_signals(&commands);
    let Resolved { settings, problems } = match find_out(&resolve).await {
        Ok(resolved) => resolved,
        Err(exit) => return exit,
    };
    let mut agent =
        Agent { settings, metrics, degraded, ready: Readiness::default(), clock: Clock::start(), commands };
    agent.report(&problems);
    let listeners = agent.serve();
    let exit = match agent.complete(&resolve, &mut inbox).await {
        Ok(()) => agent.answer_for_its_scheduler(inbox).await,
        Err(exit) => exit,
    };
    listeners.end().await;
    exit
}

/// What listens for others. It ends with the agent: the answers under way are written, and the socket's file is removed.
struct Listeners {
    end: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Listeners {
    fn new() -> Self {
        Self { end: watch::Sender::new(false), tasks: JoinSet::new() }
    }

    /// Listens as soon as `bound` has something to listen on, and until the end.
    fn add<T, F>(
        &mut self,
        bound: impl Future<Output = T> + Send + 'static,
        serve: impl FnOnce(T, BoxFuture<'static, ()>) -> F + Send + 'static,
    ) where
        T: Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let mut end = self.end.subscribe();
        self.tasks.spawn(async move {
            let listener = tokio::select! {
                listener = bound => listener,
                _ = end.wait_for(|end| *end) => return,
            };
            // A sender that is gone is the end too.
            let end = async move { drop(end.wait_for(|end| *end).await) };
            serve(listener, end.boxed()).await;
        });
    }

    async fn end(mut self) {
        self.end.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // Who doesn't read its answer can't hold up the exit.
        let _ = tokio::time::timeout(LAST_ANSWERS, ended).await;
    }
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

fn listen_for_signals(commands: &mpsc::UnboundedSender<Command>) {
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
    async fn answer_for_its_scheduler(&self, inbox: mpsc::UnboundedReceiver<Command>) -> Exit {
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
        self.watch_disk(&disk, reports);
        self.watch_manager(manager.as_ref());
        // What a predecessor left comes to the core before anything else, if the disk is quick; else once it wakes.
        let taken = take_own(&disk, &key, &self.commands).await;
        if let Err(error) = &taken {
            self.metrics.spool_error();
            warn!(reason = %error, "The spool could not be read yet.");
        }
        self.watch_scheduler();
        let backlog = Backlog::new(self.metrics.clone());
        self.tend_spool(&disk, &manager, &key, &backlog);
        let config = core_config(&self.settings, key, manager.freshness());
        let mut core = Lifecycle::new(config, self.clock.now().at);
        let status = self.base_status(&disk, manager.as_ref());
        let (metrics, clock, commands) = (self.metrics.clone(), self.clock, self.commands.clone());
        if !self.settings.ready_after_manager {
            self.ready.set(true);
        }
        let mut shell = Shell::new(manager, disk, metrics, clock, commands, status);
        shell.last_words = LastWords::to(TERMINATION_LOG);
        shell.backlog = backlog;
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
    async fn complete(
        &mut self,
        resolve: &Resolve,
        inbox: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), Exit> {
        while !self.settings.is_complete() {
            let again = tokio::time::sleep(AGAIN);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = &mut again => break,
                    Some(command) = inbox.recv() => match command {
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

    fn write_settings(&self) {
        let written = self.settings.write();
        self.degraded.set("settings", written.err().map(|error| error.to_string()));
    }

    /// Everything that can be asked of the agent, from the start.
    fn serve(&self) -> Listeners {
        let settings = &self.settings;
        let mut listeners = Listeners::new();
        let served = Served::new(self.metrics.clone(), self.ready.clone());
        let address = settings.listen;
        listeners.add(
            bind("listen", self.degraded.clone(), move || http::listen("--listen", address)),
            move |listener, end| http::run(listener, served, end),
        );
        if let Some(address) = settings.hook_listen {
            match settings
                .hook_allow
                .iter()
                .map(|text| text.parse::<Network>())
                .collect::<Result<Vec<_>, _>>()
            {
                Ok(networks) => {
                    let allow = AllowList::new(settings.host_ips.clone(), networks, RouteTables::default());
                    let hook = Hook::new(allow, settings.hook_token_file.as_ref().map(TokenFile::new));
                    let pre_stop = self.pre_stop(None);
                    let answer = move || {
                        let answer = pre_stop();
                        async move {
                            HookAnswer(answer.await.map_or_else(|why| why, |answer| answer.to_string()))
                        }
                        .boxed()
                    };
                    listeners.add(
                        bind("hook-listen", self.degraded.clone(), move || {
                            http::listen("--hook-listen", address)
                        }),
                        move |listener, end| hook::run(listener, hook, answer, end),
                    );
                }
                Err(why) => self.degraded.set("hook-allow", Some(why.to_string())),
            }
        }
        let run_dir = settings.run_dir.clone();
        let (commands, ready) = (self.commands.clone(), self.ready.clone());
        listeners.add(
            bind("socket", self.degraded.clone(), move || socket::bind(&run_dir)),
            move |socket, end| {
                info!(socket.path = %socket.path().display(), "Listening for hooks.");
                let handler = move |request| answer(request, commands.clone(), ready.clone()).boxed();
                socket::serve(socket, socket::server::limits(), handler, end)
            },
        );
        listeners
    }

    /// What a pre-stop call does.
    fn pre_stop(
        &self,
        wait: Option<Duration>,
    ) -> impl Fn() -> BoxFuture<'static, Result<socket::PreStopAnswer, String>> + Send + Sync + Clone + 'static
    {
        let commands = self.commands.clone();
        move || pre_stop(commands.clone(), wait).boxed()
    }

    fn watch_disk(&self, disk: &Disk, mut reports: mpsc::UnboundedReceiver<super::disk::Report>) {
        let (degraded, metrics) = (self.degraded.clone(), self.metrics.clone());
        let mut state = disk.state();
        tokio::spawn(async move {
            loop {
                let why = match &*state.borrow_and_update() {
                    SpoolState::Refused(why) => Some(why.to_string()),
                    SpoolState::Opening | SpoolState::Open => None,
                };
                degraded.set("spool", why);
                if state.changed().await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            while let Some(report) = reports.recv().await {
                if let Err(error) = report.result {
                    metrics.spool_error();
                    warn!(spool.operation = report.operation, reason = %error, "The disk refused a write to the spool.");
                }
            }
        });
    }

    fn watch_manager(&self, manager: &dyn Manager) {
        let mut contact = manager.watch();
        let (commands, ready, degraded) = (self.commands.clone(), self.ready.clone(), self.degraded.clone());
        tokio::spawn(async move {
            let (mut losses, mut gains) = (0, 0);
            loop {
                let now = *contact.borrow_and_update();
                if now.answered {
                    ready.set(true);
                    degraded.set("manager", None);
                }
                if now.losses > losses {
                    losses = now.losses;
                    // The shell is gone only when the process ends.
                    let _ = commands.send(Command::Event(Event::ManagerLost));
                }
                if now.gains > gains {
                    gains = now.gains;
                    let _ = commands.send(Command::Event(Event::ManagerBack));
                }
                if contact.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    fn watch_scheduler(&self) {
        let Some(addr) = self.settings.scheduler_addr.clone() else { return };
        let peer = Peer::new(addr.host(), addr.port());
        let files = self.settings.scheduler_tls.clone().map(|tls| TlsFiles {
            ca: tls.ca_file,
            cert: tls.cert_file,
            key: tls.key_file,
        });
        let mut watcher = Watcher::start(Target::new(peer, files));
        let commands = self.commands.clone();
        tokio::spawn(async move {
            loop {
                let sight = match watcher.next().await {
                    Observation::Serving(at) => Sight::Serving(at),
                    Observation::Refused(at) => Sight::Refused(at),
                    Observation::Unclear(why) => {
                        info!(scheduler.address = %addr, reason = why, "Can't tell whether the scheduler serves.");
                        Sight::Unclear
                    }
                };
                if commands.send(Command::Event(Event::Scheduler(sight))).is_err() {
                    return;
                }
            }
        });
    }

    /// Takes over what dead processes leave on the spool, for as long as the agent lives: the own key's goes to the core (a
    /// pre-stop that found no agent leaves such), the others' are replayed.
    fn tend_spool(&self, disk: &Disk, manager: &Arc<dyn Manager>, key: &SchedulerKey, backlog: &Backlog) {
        let replay =
            Replay::new(Arc::clone(manager), disk.clone(), self.metrics.clone(), backlog.clone(), self.clock);
        let (disk, key, metrics) = (disk.clone(), key.clone(), self.metrics.clone());
        let commands = self.commands.clone();
        tokio::spawn(async move {
            let mut state = disk.state();
            let mut replays = JoinSet::new();
            let mut failed = false;
            loop {
                let adopted = disk.adopt_foreign(Some(key.clone())).await;
                let own = take_own(&disk, &key, &commands).await;
                let taken = match (adopted, own) {
                    (Ok(taken), Ok(())) => {
                        failed = false;
                        taken
                    }
                    (Err(error), _) | (_, Err(error)) => {
                        if !std::mem::replace(&mut failed, true) {
                            warn!(reason = %error, "The spool could not be looked through; it is tried again.");
                        }
                        None
                    }
                };
                let more = taken.as_ref().is_some_and(|taken| taken.more);
                if let Some(taken) = taken {
                    say::problems(&taken.problems);
                    for (key, asks) in by_key(taken.records) {
                        info!(scheduler.key = %key, signoff.pending = asks.len(), "Found sign-offs of another scheduler in the spool.");
                        metrics.inherited(asks.len() as u64);
                        let replay = replay.clone();
                        replays.spawn(async move { replay.settle(key, asks, None, &|_| ()).await });
                    }
                }
                let pause = tokio::time::sleep(ADOPT_EVERY.mul_f64(0.9 + 0.1 * fastrand::f64()));
                tokio::pin!(pause);
                loop {
                    tokio::select! {
                        () = &mut pause => break,
                        // It was opened, at last.
                        Ok(()) = state.changed() => {
                            if *state.borrow_and_update() == SpoolState::Open {
                                break;
                            }
                        }
                        Some(_) = replays.join_next(), if !replays.is_empty() => {
                            // There is room for some of those that were left.
                            if more {
                                break;
                            }
                        }
                    }
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
            manager: ManagerStatus { endpoints: self.settings.managers.clone(), ..ManagerStatus::default() },
            spool: SpoolStatus { dir: self.settings.spool.display().to_string(), ..SpoolStatus::default() },
            ..Status::default()
        }
    }

    fn base_status(&self, disk: &Disk, manager: &dyn Manager) -> Box<dyn Fn() -> Status + Send> {
        let (plain, degraded, disk, contact) =
            (self.plain_status(), self.degraded.clone(), disk.clone(), manager.watch());
        Box::new(move || {
            let mut status = plain.clone();
            let contact = *contact.borrow();
            status.degraded = degraded.list();
            status.manager.answered = contact.answered;
            status.manager.losses = contact.losses;
            status.spool.durability = disk.durability().queued().to_owned();
            // Read-only, and small; a spool that can't be read is told under `degraded`.
            if let Ok(listing) = crate::spool::scan(disk.dir()) {
                status.spool.asks = listing.asks.len() as u64;
                status.spool.marks = listing.marks.len() as u64;
                status.spool.corrupt = listing.corrupt.len() as u64;
                status.spool.newer = listing.newer.len() as u64;
            }
            status
        })
    }
}

/// Takes what dead processes left for this key and tells the core of it: now, or once a slow disk has it.
pub async fn take_own(
    disk: &Disk,
    key: &SchedulerKey,
    commands: &mpsc::UnboundedSender<Command>,
) -> Result<(), DiskError> {
    let tell = |commands: mpsc::UnboundedSender<Command>| {
        move |taken: Taken| {
            say::problems(&taken.problems);
            if !taken.records.is_empty() {
                // The shell is gone only when the process ends.
                let _ = commands.send(Command::Event(Event::Found(taken.records)));
            }
        }
    };
    let late = tell(commands.clone());
    // What fails late is tried again, and said then.
    disk.take_own(key.clone(), move |taken| drop(taken.map(late))).await.map(tell(commands.clone()))
}

/// Other keys' asks, by key; their marks stay held, and go with the asks.
pub fn by_key(records: Vec<(Kind, Record)>) -> BTreeMap<SchedulerKey, Vec<Record>> {
    let mut keys: BTreeMap<SchedulerKey, Vec<Record>> = BTreeMap::new();
    for (kind, record) in records {
        if kind == Kind::Ask {
            keys.entry(record.key.clone()).or_default().push(record);
        }
    }
    keys
}

/// Tries until it succeeds; what stands in the way is shown meanwhile.
async fn bind<T, E: std::fmt::Display>(
    reason: &'static str,
    degraded: Degraded,
    listen: impl Fn() -> Result<T, E>,
) -> T {
    loop {
        match listen() {
            Ok(listener) => {
                degraded.set(reason, None);
                return listener;
            }
            Err(why) => degraded.set(reason, Some(why.to_string())),
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

async fn pre_stop(
    commands: mpsc::UnboundedSender<Command>,
    wait: Option<Duration>,
) -> Result<socket::PreStopAnswer, String> {
    let (answer, answered) = oneshot::channel();
    let stopping = "the agent is stopping";
    commands.send(Command::PreStop { wait, answer }).map_err(|_| stopping.to_owned())?;
    answered.await.map_err(|_| {
        "the agent is stopping, or does not know yet whose row it answers for: see signoff status".to_owned()
    })
}

async fn answer(request: Request, commands: mpsc::UnboundedSender<Command>, ready: Readiness) -> Response {
    if let Request::PreStop { deadline } = request {
        return match pre_stop(commands, deadline).await {
            Ok(answer) => Response::PreStop(answer),
            Err(why) => Response::Refused(why),
        };
    }
    let (send, status) = oneshot::channel();
    let asked = commands.send(Command::Status(send)).is_ok();
    match status.await {
        Ok(mut status) if asked => {
            status.started = status.started || ready.get();
            if request == Request::Check {
                Response::Check(check::of_status(&status))
            } else {
                Response::Status(status)
            }
        }
        _ => Response::Refused("the agent is stopping".to_owned()),
    }
}
