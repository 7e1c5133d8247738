//! Does what the core decides, in order: it persists before it attempts or answers.
//!
//! One task owns the core. Everything that takes time (attempts, holds, reads) runs in tasks of its own and comes back as an
//! event; only an ask's write is waited for, at most as long as the disk thread allows.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    attempts::AttemptId,
    backlog::Backlog,
    clock::Clock,
    command::{Command, Commands, Inbox, TakeUp},
    disk::Disk,
    last_words::LastWords,
    lifecycle::{Answer, Effect, Event, HookId, Lifecycle, Notice, Registration, Scheduler, Target},
    metrics::Metrics,
    moment::{Moment, Now},
    run::Others,
    say,
    socket::{PreStopAnswer, Status},
};
pub use crate::manager::client::READ_LIMIT;
use crate::{
    exit::Exit,
    key::SchedulerKey,
    manager::{AttemptOptions, Failure, Filter, HoldStart, Manager, Outcome, Registered, Row, RowState},
    spool::record::RecordId,
};

/// How often the asks are looked for that somebody dropped by hand.
const DROPPED_EVERY: Duration = Duration::from_secs(5);

/// How many there were.
static SHELLS: AtomicU64 = AtomicU64::new(0);

/// What the shell works with.
pub struct Shell {
    /// The manager.
    pub manager: Arc<dyn Manager>,
    /// The spool's thread.
    pub disk: Disk,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// The clocks.
    pub clock: Clock,
    /// Comes back to this shell.
    pub commands: Commands,
    /// The container's termination message.
    pub last_words: LastWords,
    words: say::Words,
    known: say::Known,
    said: say::Said,
    /// The asks of all keys.
    pub backlog: Backlog,
    /// Whether the scheduler serves, with no drain on and no SIGTERM.
    pub serves: watch::Sender<bool>,
    /// Whom to ask which key the scheduler registers; without anybody it is always this one.
    pub identify: Option<mpsc::UnboundedSender<Question>>,
    /// What the scheduler's configuration names by now, with its port; without anybody to say it, no row is put back.
    pub names: Option<Names>,
    /// Signs off what else the scheduler may be registered as.
    pub others: Option<Arc<Others>>,
    /// Fills in what the core doesn't know.
    pub base_status: Box<dyn Fn() -> Status + Send>,
    /// Ends the process at the deadline.
    pub deadline: Arc<Deadline>,
    hooks: HashMap<HookId, oneshot::Sender<PreStopAnswer>>,
    last_hook: HookId,
    hold: Option<HoldTask>,
    registering: Option<tokio::task::AbortHandle>,
    watchdog: Option<Arc<AtomicU8>>,
    /// What to go on with, once no ending is under way.
    take_up: Option<Box<TakeUp>>,
    /// There was a second signal.
    in_a_hurry: bool,
    /// No other shell of this process has it.
    number: u64,
}

/// The scheduler is back, and may register another key than before.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// It was seen to be away; else it may have been.
    pub was_away: bool,
    /// When it was seen again.
    pub appeared: Moment,
    /// By when no attempt on the old key can be applied any more.
    pub closed: Moment,
}

/// Says which key the scheduler's configuration names by now, and with which port, or why that is not known.
pub type Names = Arc<dyn Fn() -> BoxFuture<'static, Result<(SchedulerKey, u16), String>> + Send + Sync>;

/// Why a shell's run is over.
pub enum Ended {
    /// The core said exit.
    Exit(Exit),
    /// The scheduler registers another key, or is watched elsewhere.
    TakeUp(Box<TakeUp>),
}

/// The task that owns a hold's stream.
struct HoldTask {
    task: tokio::task::JoinHandle<()>,
    release: oneshot::Sender<(AttemptId, Duration)>,
}

/// Ends the process after so long, whatever blocks, with the exit code that is in the cell by then.
pub struct Deadline(pub Box<dyn Fn(Duration, Arc<AtomicU8>) + Send + Sync>);

impl Deadline {
    /// For a process that no signal is told to: it ends as signals end it.
    pub fn none() -> Self {
        Self(Box::new(|_, _| ()))
    }
}

impl Shell {
    /// A shell without any hook or hold yet.
    pub fn new(
        manager: Arc<dyn Manager>,
        disk: Disk,
        metrics: Metrics,
        clock: Clock,
        commands: Commands,
        base_status: Box<dyn Fn() -> Status + Send>,
    ) -> Self {
        Self {
            manager,
            disk,
            backlog: Backlog::new(metrics.clone()),
            identify: None,
            names: None,
            take_up: None,
            others: None,
            in_a_hurry: false,
            number: SHELLS.fetch_add(1, Ordering::Relaxed),
            last_words: LastWords::none(),
            words: say::Words::default(),
            known: say::Known::default(),
            said: say::Said::default(),
            serves: watch::Sender::new(false),
            metrics,
            clock,
            commands,
            base_status,
            deadline: Arc::new(Deadline::none()),
            hooks: HashMap::new(),
            last_hook: 0,
            hold: None,
            registering: None,
            watchdog: None,
        }
    }

    /// Runs until the core says exit, or the scheduler registers another key: while an ending of this one is under way, that waits.
    pub async fn run(&mut self, core: &mut Lifecycle, first: Vec<Effect>, commands: &mut Inbox) -> Ended {
        if let Some(exit) = self.act(core, first).await {
            return Ended::Exit(exit);
        }
        let mut look_for_dropped = self.clock.now().at + DROPPED_EVERY;
        loop {
            let now = self.clock.now().at;
            let asks = !core.pending().is_empty();
            let wake = core.wake_at(now).into_iter().chain(asks.then_some(look_for_dropped)).min();
            let effects = tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some((came, command)) => self.take(core, came, command),
                    None => return Ended::Exit(Exit::Internal),
                },
                () = sleep_until(self.clock, wake) => {
                    if asks && self.clock.now().at >= look_for_dropped {
                        look_for_dropped = self.clock.now().at + DROPPED_EVERY;
                        self.look_for_dropped(core);
                    }
                    core.step(Event::Tick, self.clock.now())
                }
            };
            if let Some(exit) = self.act(core, effects).await {
                return Ended::Exit(exit);
            }
            if core.drain_until().is_none()
                && !core.is_ending()
                && let Some(take_up) = self.take_up.take()
            {
                // Its stream would keep the old key's row active, and its end be told to the new one's core.
                if let Some(hold) = self.hold.take() {
                    hold.task.abort();
                }
                self.drop_registration();
                return Ended::TakeUp(take_up);
            }
        }
    }

    fn take(&mut self, core: &mut Lifecycle, came: Moment, command: Command) -> Vec<Effect> {
        let now = Now { came, ..self.clock.now() };
        match command {
            Command::EventOf { shell, .. } if shell != self.number => Vec::new(),
            Command::Event(event) | Command::EventOf { event, .. } => {
                let event = self.of_its_key(core, event);
                say::event(core, &event, &self.said);
                let terminated = matches!(event, Event::Terminate);
                let effects = core.step(event, now);
                self.in_a_hurry |= terminated && self.watchdog.is_some();
                if terminated && self.watchdog.is_none() {
                    let left = core.deadline().map_or(Duration::ZERO, |at| at - now.at);
                    // What the core says of the exit, if it does.
                    let code = Arc::new(AtomicU8::new(Exit::Queued.code()));
                    (self.deadline.0)(left.saturating_sub(Duration::from_millis(20)), Arc::clone(&code));
                    self.watchdog = Some(code);
                    if let Some(others) = self.others.clone() {
                        // They are looked at in the end; what a kill before that would lose is on disk by then.
                        tokio::spawn(async move { others.ask().await });
                    }
                }
                effects
            }
            Command::PreStop { wait, answer } => {
                self.last_hook += 1;
                self.hooks.insert(self.last_hook, answer);
                core.step(Event::PreStop { hook: self.last_hook, wait }, now)
            }
            Command::TakeUp(take_up) => {
                self.take_up = Some(take_up);
                Vec::new()
            }
            Command::Status(answer) => {
                let (mut status, disk) = (Box::new(self.status(core)), self.disk.clone());
                let (key, clock) = (core.key().clone(), self.clock);
                tokio::spawn(async move {
                    let survey = disk.survey(key).await;
                    say::spool(&mut status, &survey, disk.silent_for(), clock.now());
                    // Who asked may have gone.
                    let _ = answer.send(status);
                });
                Vec::new()
            }
        }
    }

    /// What was taken over for the key before this one is let go of.
    fn of_its_key(&self, core: &Lifecycle, event: Event) -> Event {
        let Event::Found { left, all } = event else { return event };
        let (left, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(_, record)| record.key == *core.key());
        if others.is_empty() {
            return Event::Found { left, all };
        }
        self.disk.release(others.into_iter().map(|(_, record)| record.id).collect());
        Event::Found { left, all: false }
    }

    /// At the end: whether all that the scheduler may be registered as is signed off. After a second signal nothing is.
    fn end_others(&self, core: &Lifecycle) -> impl Future<Output = bool> + Send + use<> {
        let serves = matches!(core.scheduler(), Scheduler::Serving(_));
        let (others, in_a_hurry) = (self.others.clone(), self.in_a_hurry);
        async move {
            match others {
                Some(others) if in_a_hurry => others.is_empty(),
                Some(others) => others.sign_off(serves).await,
                None => true,
            }
        }
    }

    async fn act(&mut self, core: &mut Lifecycle, effects: Vec<Effect>) -> Option<Exit> {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Persist(record) => {
                    let ask = record.id.clone();
                    let written = self.disk.write_ask(record).await;
                    if let Err(error) = &written {
                        self.metrics.spool_error();
                        say::not_persisted(core.key(), error, &self.said);
                    }
                    let now = self.clock.now();
                    queue.extend(core.step(Event::Written { ask, on_disk: written.is_ok() }, now));
                    self.say_last_words(core, false);
                }
                Effect::Mark(record) => self.disk.write_mark(record),
                Effect::DropMarks { signed_off } => self.disk.drop_marks(core.key().clone(), signed_off),
                Effect::Settle { asks, mark } => self.disk.settle_later(asks, mark),
                Effect::Attempt { id, hedge, limit } => {
                    self.attempt(core.key(), id, AttemptOptions { hedge, limit })
                }
                Effect::Hold => self.open_hold(core.key()),
                Effect::Release { id, limit } => self.release_hold(id, limit),
                Effect::DropHold => {
                    if let Some(hold) = self.hold.take() {
                        hold.task.abort();
                    }
                }
                Effect::Register(registered) => self.register(core.key(), registered),
                Effect::DropRegistration => self.drop_registration(),
                Effect::ReadRow => self.read_row(core.key()),
                Effect::CheckIdentity => self.check_identity(core.key()),
                Effect::Identify { was_away } => self.identify(core, was_away),
                Effect::Answer(hook, answer) => self.answer(core, hook, &answer),
                Effect::Notice(notice) => self.notice(core, &notice),
                Effect::Exit(exit) => {
                    let ends_well = matches!(exit, Exit::Done | Exit::Queued);
                    let exit = if !ends_well || self.end_others(core).await {
                        say::leaving(core, exit, self.disk.durability());
                        exit
                    } else {
                        say::leaving_others(core, self.disk.durability());
                        Exit::Queued
                    };
                    self.say_last_words(core, true);
                    if let Some(code) = &self.watchdog {
                        code.store(exit.code(), Ordering::SeqCst);
                    }
                    // What is queued for the disk is worth waiting for, but not beyond its own limit.
                    tokio::join!(self.disk.flush(), self.last_words.flush());
                    return Some(exit);
                }
            }
        }
        self.say_last_words(core, false);
        self.gauges(core);
        None
    }

    fn say_last_words(&mut self, core: &Lifecycle, leaving: bool) {
        if let Some(words) = self.words.news(core, self.disk.durability(), leaving) {
            self.last_words.say(words);
        }
    }

    /// What this shell began comes back to it alone: the next one answers for another key.
    fn send(&self) -> impl Fn(Event) + Send + 'static {
        let (commands, shell) = (self.commands.clone(), self.number);
        // The last shell is gone only when the process ends.
        move |event| drop(commands.send(Command::EventOf { shell, event }))
    }

    fn attempt(&self, key: &SchedulerKey, id: AttemptId, options: AttemptOptions) {
        let (manager, metrics, clock, key, send, said) = (
            Arc::clone(&self.manager),
            self.metrics.clone(),
            self.clock,
            key.clone(),
            self.send(),
            self.said.clone(),
        );
        tokio::spawn(async move {
            let began = clock.now().at;
            let outcome = manager.sign_off(&key, options).await;
            metrics.attempt(&outcome, clock.now().at - began);
            say::attempt(&key, id, options, &outcome, clock.now().at - began, &said);
            send(Event::Ended { attempt: id, outcome });
        });
    }

    fn open_hold(&mut self, key: &SchedulerKey) {
        let (manager, metrics, clock, key, send, said) = (
            Arc::clone(&self.manager),
            self.metrics.clone(),
            self.clock,
            key.clone(),
            self.send(),
            self.said.clone(),
        );
        let (release, released) = oneshot::channel::<(AttemptId, Duration)>();
        let task = tokio::spawn(async move {
            let mut held = match manager.hold(&key).await {
                Ok(HoldStart::Open(held)) => held,
                Ok(HoldStart::Absent) => return send(Event::HoldFailed { absent: true }),
                Err(failure) => {
                    say::hold_failed(&key, &failure, &said);
                    return send(Event::HoldFailed { absent: false });
                }
            };
            send(Event::HoldOpened);
            tokio::select! {
                biased;
                Ok((id, limit)) = released => {
                    let began = clock.now().at;
                    let outcome = held.release(limit).await;
                    metrics.attempt(&outcome, clock.now().at - began);
                    let options = AttemptOptions { hedge: false, limit };
                    say::attempt(&key, id, options, &outcome, clock.now().at - began, &said);
                    send(Event::Ended { attempt: id, outcome });
                }
                failure = held.lost() => {
                    say::hold_lost(&key, &failure, &said);
                    send(Event::HoldLost);
                }
            }
        });
        self.hold = Some(HoldTask { task, release });
    }

    fn release_hold(&mut self, id: AttemptId, limit: Duration) {
        let released = self.hold.take().is_some_and(|hold| hold.release.send((id, limit)).is_ok());
        if !released {
            // It was lost just now: its end may still be applied, and its event finds no hold any more.
            let outcome = Outcome::Unknown(Failure::new("the stream that held the row was lost"));
            self.send()(Event::Ended { attempt: id, outcome });
        }
    }

    fn drop_registration(&mut self) {
        if let Some(task) = self.registering.take() {
            task.abort();
        }
    }

    /// Whoever deleted the row to have its scheduler register another port wins.
    fn register(&mut self, key: &SchedulerKey, registered: Registered) {
        let (manager, names, key, send) =
            (Arc::clone(&self.manager), self.names.clone(), key.clone(), self.send());
        let said = self.said.clone();
        let task = tokio::spawn(async move {
            let may_be = within(READ_LIMIT, async {
                let may_be = may_be_put_back(names, &key, &registered).await;
                may_be.map_err(Failure::new)
            });
            let (done, came) = match may_be.await {
                Err(why) => (Err(why), Registration::Refused),
                Ok(()) => match within(READ_LIMIT, manager.register(&key, &registered)).await {
                    Ok(()) => (Ok(()), Registration::Done),
                    Err(why) => (Err(why), Registration::Unknown),
                },
            };
            say::registered(&key, &registered, &done, &said);
            send(Event::Registered(came));
        });
        self.registering = Some(task.abort_handle());
    }

    fn read_row(&self, key: &SchedulerKey) {
        let (manager, clock, key, send) = (Arc::clone(&self.manager), self.clock, key.clone(), self.send());
        tokio::spawn(async move {
            let asked = clock.now().at;
            let read = within(READ_LIMIT, manager.read_row(&key)).await;
            say::row_read(&key, &read);
            send(Event::RowRead { asked, read });
        });
    }

    fn check_identity(&self, key: &SchedulerKey) {
        let (manager, key, send) = (Arc::clone(&self.manager), key.clone(), self.send());
        tokio::spawn(async move {
            match rows_like(manager.as_ref(), &key).await {
                Ok(rows) => send(Event::Identity { listed: rows.iter().any(|row| row.is(&key)) }),
                // The core asks again by itself.
                Err(failure) => say::identity_not_checked(&key, &failure),
            }
        });
    }

    fn identify(&self, core: &Lifecycle, was_away: bool) {
        let appeared = self.clock.now().at;
        let closed = core.attempts().closed_at().unwrap_or_default();
        let asked = self
            .identify
            .as_ref()
            .is_some_and(|ask| ask.send(Question { was_away, appeared, closed }).is_ok());
        if !asked {
            self.send()(Event::Identified { in_question: false });
        }
    }

    fn answer(&mut self, core: &Lifecycle, hook: HookId, answer: &Answer) {
        let Some(sender) = self.hooks.remove(&hook) else { return };
        let answer = say::pre_stop_answer(answer, self.disk.durability(), self.clock.now().wall);
        let answer = if core.in_question() { say::in_question(answer) } else { answer };
        // A hook that went away needs no answer.
        let _ = sender.send(answer);
    }

    fn notice(&mut self, core: &Lifecycle, notice: &Notice) {
        say::notice(core, notice, self.disk.durability(), &self.said);
        self.words.learn(notice);
        self.known.learn(notice, self.clock.now().at);
        match notice {
            Notice::Settled { verdict, cause, .. } => self.metrics.settled(*verdict, *cause),
            Notice::Inherited(count) => self.metrics.inherited(*count as u64),
            Notice::Restored => self.metrics.restored(),
            Notice::PutBack => self.metrics.put_back(),
            Notice::IdentityUnknown => {
                let (manager, key) = (Arc::clone(&self.manager), core.key().clone());
                tokio::spawn(async move {
                    say::identity_unknown(&key, &rows_like(manager.as_ref(), &key).await);
                });
            }
            _ => {}
        }
    }

    fn look_for_dropped(&self, core: &Lifecycle) {
        let on_disk = core.pending().iter().filter(|ask| ask.on_disk);
        let ids: Vec<RecordId> = on_disk.map(|ask| ask.record.id.clone()).collect();
        let (disk, send) = (self.disk.clone(), self.send());
        tokio::spawn(async move {
            let gone = disk.vanished(ids).await;
            if !gone.is_empty() {
                send(Event::Dropped(gone));
            }
        });
    }

    fn gauges(&self, core: &Lifecycle) {
        let metrics = &self.metrics;
        metrics.set_identity_known(if core.listed() {
            Some(true)
        } else {
            core.key_unknown().then_some(false)
        });
        metrics.set_row_active(core.row().map(|row| row.state == RowState::Active));
        metrics.set_scheduler_up(match core.scheduler() {
            Scheduler::Serving(_) => Some(true),
            Scheduler::Down(_) => Some(false),
            Scheduler::Unseen | Scheduler::Unknown => None,
        });
        let serves = core.target(self.clock.now().at) == Target::Active;
        self.serves.send_if_modified(|known| std::mem::replace(known, serves) != serves);
        let oldest = core.pending().iter().map(|ask| ask.record.at).min();
        self.backlog.own(core.pending().len(), oldest);
    }

    fn status(&self, core: &Lifecycle) -> Status {
        let mut status = say::status((self.base_status)(), core, &self.known, self.clock.now());
        status.pending.extend(self.backlog.others());
        status
    }
}

async fn sleep_until(clock: Clock, wake: Option<Moment>) {
    match wake {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whether the scheduler's configuration still names what its row said, or why not.
async fn may_be_put_back(
    names: Option<Names>,
    key: &SchedulerKey,
    registered: &Registered,
) -> Result<(), String> {
    let names = names.ok_or("it is not known which port the scheduler registers")?;
    let (named, port) = names().await?;
    if named != *key {
        return Err(format!("the scheduler's configuration names another key by now: {named}"));
    }
    if i32::from(port) != registered.port {
        let before = registered.port;
        return Err(format!(
            "the scheduler's configuration names port {port} by now, and the row had {before}: the scheduler registers itself when it restarts"
        ));
    }
    Ok(())
}

/// `future`, or a failure that says that it took too long.
pub async fn within<T>(
    limit: Duration,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(format!("the manager did not answer within {} s", limit.as_secs()))),
    }
}

/// The rows that might be the key's, each once: of its hostname (REST), else of its cluster and of the active ones (gRPC).
pub async fn rows_like(manager: &dyn Manager, key: &SchedulerKey) -> Result<Vec<Row>, Failure> {
    let mut rows = within(READ_LIMIT, manager.list(&Filter::Hostname(key.hostname.clone()))).await?.rows;
    if !rows.iter().any(|row| row.is(key)) {
        let of_cluster = within(READ_LIMIT, manager.list(&Filter::Cluster(key.cluster_id))).await?.rows;
        let known: HashSet<u64> = rows.iter().map(|row| row.id).collect();
        rows.extend(of_cluster.into_iter().filter(|row| {
            let alike =
                row.hostname.eq_ignore_ascii_case(key.hostname.as_str()) || row.ip == key.ip.to_string();
            alike && !known.contains(&row.id)
        }));
    }
    Ok(rows)
}
