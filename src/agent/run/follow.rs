//! Follows the scheduler's identity: finds out anew which key it registers whenever it was away, or may have been, and once at the
//! start where the agent before this one answered for another key, or where the key is not certain.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Duration, sleep},
};
use tracing::{debug, info, warn};

use super::{
    super::{
        attempts::LINGER,
        command::{Command, Commands, TakeUp},
        degraded::Degraded,
        lifecycle::{Event, IDENTITY_GRACE},
        moment::Moment,
        registration::{Cause, Decision, Registration},
        shell::{Names, Question, READ_LIMIT, within},
    },
    Agent, Open, Resolve, Start, holder,
    others::{Named, Other},
};
use crate::{
    files::{self, Troubles},
    identity::Settings,
    key::SchedulerKey,
    manager::{Failure, Filter, Freshness, Listed, Manager, State, client::Client},
    spool::{Holder, Whose},
};

/// The reason under which it is shown that the scheduler may register another key than the one that the agent answers for.
pub(super) const REASON: &str = "identity";

/// How often the manager is asked at most, however short the keep-alive interval is.
const AT_MOST_EVERY: Duration = Duration::from_millis(500);

/// Where the row of a key is looked for.
type Source = Arc<dyn Manager>;

/// Makes the client of a manager that the configuration names by now.
pub(super) type Connect = Arc<dyn Fn(&Settings) -> Result<Source, Failure> + Send + Sync>;

/// Another key that the configuration names, and its settings.
struct Candidate {
    registration: Registration,
    settings: Settings,
    /// At the manager that the agent asks already.
    same_manager: bool,
}

/// What following needs.
pub(super) struct Follower {
    settings: Settings,
    key: SchedulerKey,
    manager: Source,
    connect: Connect,
    resolve: Resolve,
    commands: Commands,
    degraded: Degraded,
    clock: super::super::clock::Clock,
    named: Named,
    questions: mpsc::UnboundedReceiver<Question>,
    /// The keys that the scheduler may register besides the likeliest one, until the manager shows which one.
    doubted: Vec<SchedulerKey>,
}

impl Agent {
    /// Starts to follow. Answers whom to ask. What is open at the start is settled first.
    pub(super) fn follow(
        &self,
        tasks: &mut JoinSet<()>,
        manager: &Source,
        connect: Connect,
        start: &Start,
    ) -> mpsc::UnboundedSender<Question> {
        let (ask, questions) = mpsc::unbounded_channel();
        let follower = Follower {
            settings: self.settings.clone(),
            key: start.key.clone(),
            manager: Arc::clone(manager),
            connect,
            resolve: Arc::clone(&self.resolve),
            commands: self.commands.clone(),
            degraded: self.degraded.clone(),
            clock: self.clock,
            named: self.named.clone(),
            questions,
            doubted: Vec::new(),
        };
        tasks.spawn(follower.run(start.open.clone()));
        ask
    }
}

impl Agent {
    /// Says what the scheduler's configuration names by now; the port only as its own file has it.
    pub(super) fn names(&self) -> Names {
        let resolve = Arc::clone(&self.resolve);
        Arc::new(move || {
            let resolve = Arc::clone(&resolve);
            async move {
                let settings = named(&resolve).await?;
                let named = settings.key().zip(settings.registered_port);
                named.ok_or_else(|| {
                    "no scheduler.yaml was read, so that it is not known which port the scheduler registers".to_owned()
                })
            }
            .boxed()
        })
    }
}

async fn named(resolve: &Resolve) -> Result<Settings, String> {
    let resolved = resolve().await.map_err(|_| "the settings could not be found out".to_owned())?;
    if resolved.settings.is_complete() || resolved.settings.without_manager {
        return Ok(resolved.settings);
    }
    let problems: Vec<String> = resolved.problems.into_iter().map(|problem| problem.text).collect();
    Err(problems.join("; "))
}

impl Follower {
    async fn run(mut self, open: Open) {
        // What the agent before left under way counts as open for so long.
        let appeared = self.clock.now().at;
        let closed = appeared + LINGER;
        match open {
            Open::Nothing => {}
            Open::OtherThanBefore => {
                self.settle(Question { was_away: false, appeared, closed }).await;
            }
            Open::Doubt(keys) => {
                self.doubted = keys;
                self.settle(Question { was_away: false, appeared, closed }).await;
            }
        }
        while let Some(question) = self.questions.recv().await {
            self.settle(question).await;
        }
    }

    /// Those of the keys in doubt, for a scheduler that appeared then.
    fn in_doubt(&self, appeared: Moment) -> Vec<Candidate> {
        let candidate = |key: &SchedulerKey| {
            self.candidate(self.settings.with_key(key.clone()), true, Cause::Doubt, appeared)
        };
        self.doubted.iter().map(candidate).collect()
    }

    /// Looks until it is known which key the scheduler registers, and tells.
    async fn settle(&mut self, mut question: Question) {
        let (mut alone, mut answers_since) = (None, None);
        let mut open = self.in_doubt(question.appeared);
        self.named.open(true);
        loop {
            while let Ok(newer) = self.questions.try_recv() {
                // It was away, or may have been, once more.
                if newer.was_away || open.is_empty() {
                    question = newer;
                    open = self.in_doubt(question.appeared);
                    (alone, answers_since) = (None, None);
                }
            }
            let named = match self.named().await {
                Ok(named) => named,
                Err(why) => {
                    if self.goes_on(&mut alone, question).await {
                        warn!(scheduler.key = %self.key, reason = why, "The scheduler's configuration can't be taken; the scheduler goes on under its old key.");
                        self.degraded.set(REASON, None);
                        self.doubted.clear();
                        return self.tell(Command::Event(Event::Identified { in_question: false }));
                    }
                    self.say_unreadable(question, &why);
                    sleep(self.settings.keep_alive_interval.max(AT_MOST_EVERY)).await;
                    continue;
                }
            };
            if named.without_manager {
                // A name that was there a moment ago may be the one that the scheduler read.
                if !open.is_empty()
                    && let Ok(Answer::New(take_up)) = self.look(&mut open, question).await
                {
                    self.degraded.set(REASON, None);
                    return self.tell(Command::TakeUp(take_up));
                }
                let why = match self.registers_nowhere(&mut alone, &mut answers_since, question, named).await
                {
                    Ok(Some(told)) => {
                        self.degraded.set(REASON, None);
                        return self.tell(told);
                    }
                    Ok(None) => "the manager does not show".to_owned(),
                    Err(failure) => format!("its manager can't be asked ({failure})"),
                };
                self.say_nowhere(question, &why);
                sleep(self.settings.keep_alive_interval.max(AT_MOST_EVERY)).await;
                continue;
            }
            let same_manager = name_one_manager(&self.settings, &named).await;
            let is_answered_for = same_manager && named.key().as_ref() == Some(&self.key);
            // A name that was there a moment ago may be the one that the scheduler read: it stays a candidate.
            if !is_answered_for && open.iter().all(|candidate| candidate.settings != named) {
                let cause =
                    if question.was_away { Cause::SchedulerCameBack } else { Cause::MayHaveRestarted };
                open.push(self.candidate(named, same_manager, cause, question.appeared));
            } else if open.is_empty() {
                return self.tell(self.as_before(named));
            }
            let other = |candidate: &Candidate| Other {
                settings: candidate.settings.clone(),
                manager: candidate.same_manager.then(|| Arc::clone(&self.manager)),
            };
            self.named.set(open.iter().map(other).collect());
            match self.look(&mut open, question).await {
                Ok(Answer::New(take_up)) => {
                    info!(
                        scheduler.key = take_up.settings.key().as_ref().map(tracing::field::display),
                        scheduler.before = %self.key,
                        "The scheduler registers another key now: the agent answers for that one."
                    );
                    self.degraded.set(REASON, None);
                    return self.tell(Command::TakeUp(take_up));
                }
                Ok(Answer::Old) => {
                    info!(
                        scheduler.key = %self.key, scheduler.named = named_by(&open),
                        "The scheduler goes on under its old key, whatever its configuration names by now."
                    );
                    self.degraded.set(REASON, None);
                    self.doubted.clear();
                    return self.tell(Command::Event(Event::Identified { in_question: false }));
                }
                Ok(Answer::Open) => self.say_open(&open, question, "the manager does not show"),
                Err(failure) => {
                    open.iter_mut().for_each(|candidate| candidate.registration.not_listed());
                    debug!(scheduler.key = %self.key, reason = %failure, "Could not look which key the scheduler registers.");
                    self.say_open(&open, question, &format!("the manager can't be asked ({failure})"));
                }
            }
            sleep(self.settings.keep_alive_interval.max(AT_MOST_EVERY)).await;
        }
    }

    /// Shows that it takes longer than a registration does. `what` is wrong with the manager.
    fn say_open(&self, open: &[Candidate], question: Question, what: &str) {
        if self.clock.now().at < question.appeared + IDENTITY_GRACE {
            return;
        }
        let why = format!(
            "the scheduler's configuration names {}, this agent answers for {}, and {what} which of them the scheduler registers: \
             their rows are left alone",
            named_by(open),
            at_its_manager(&self.key, &self.settings),
        );
        self.degraded.set(REASON, Some(why));
    }

    /// The scheduler registers the key that it always did; where it is to be watched, or its manager is reached, may have changed.
    fn as_before(&self, settings: Settings) -> Command {
        let at = |settings: &Settings| {
            (settings.scheduler_addr.clone(), settings.advertise_port, settings.managers.clone())
        };
        if at(&settings) == at(&self.settings) {
            return Command::Event(Event::Identified { in_question: false });
        }
        Command::TakeUp(Box::new(TakeUp { settings, is_signed_off: false, old_updated: None }))
    }

    fn candidate(&self, settings: Settings, same_manager: bool, cause: Cause, appeared: Moment) -> Candidate {
        self.tell(Command::Event(Event::Identified { in_question: true }));
        let new = settings.key().unwrap_or_else(|| self.key.clone());
        warn!(
            scheduler.key = %at_its_manager(&self.key, &self.settings), scheduler.named = %at_its_manager(&new, &settings),
            "The scheduler may register another key: the agent waits for the manager to show which one, and leaves both rows alone."
        );
        let (port, interval) = (self.settings.advertise_port, settings.keep_alive_interval);
        let registration = Registration::new(self.key.clone(), new, port, cause, appeared, interval);
        Candidate { registration, settings, same_manager }
    }

    /// The settings as the configuration gives them now, if they are complete, or there is no manager; else what is missing.
    async fn named(&self) -> Result<Settings, String> {
        named(&self.resolve).await
    }

    /// Whether the manager shows that the scheduler registers the old key, though nothing names any by now.
    async fn goes_on(&self, alone: &mut Option<Registration>, question: Question) -> bool {
        let asked = self.clock.now().at;
        let Ok(listed) = rows_of(&self.manager, &self.key).await else { return false };
        self.shows_the_old_key(alone, question, asked, &listed)
    }

    fn shows_the_old_key(
        &self,
        alone: &mut Option<Registration>,
        question: Question,
        asked: Moment,
        listed: &Listed,
    ) -> bool {
        let registration = alone.get_or_insert_with(|| {
            let cause = if question.was_away { Cause::SchedulerCameBack } else { Cause::MayHaveRestarted };
            let (port, interval) = (self.settings.advertise_port, self.settings.keep_alive_interval);
            Registration::new(self.key.clone(), self.key.clone(), port, cause, question.appeared, interval)
        });
        let quiet = asked >= question.closed + listed.freshness.age();
        registration.listed(asked, (Some(&listed.rows), &[]), listed.freshness, quiet) == Decision::Old
    }

    /// The configuration names no manager any more. What to tell: that the scheduler goes on under its old key, with what it read
    /// before, or that it registers nowhere; nothing as long as the manager doesn't show which.
    async fn registers_nowhere(
        &self,
        alone: &mut Option<Registration>,
        answers_since: &mut Option<Moment>,
        question: Question,
        named: Settings,
    ) -> Result<Option<Command>, Failure> {
        if !question.was_away {
            return Ok(Some(Command::Event(Event::Identified { in_question: false })));
        }
        let asked = self.clock.now().at;
        let listed = rows_of(&self.manager, &self.key).await.inspect_err(|_| *answers_since = None)?;
        if self.shows_the_old_key(alone, question, asked, &listed) {
            info!(scheduler.key = %self.key, "The scheduler goes on under its old key, though its configuration names no manager by now.");
            return Ok(Some(Command::Event(Event::Identified { in_question: false })));
        }
        // By then it has registered, if it does, after an outage of its manager too.
        let registered_by = (*answers_since.get_or_insert(asked)).max(question.appeared) + IDENTITY_GRACE;
        if asked < registered_by.max(question.closed) + listed.freshness.age() {
            return Ok(None);
        }
        let row = listed.rows.iter().find(|row| row.is(&self.key));
        let active = row.filter(|row| row.state == State::Active);
        if active.is_some_and(|row| row.last_keep_alive_at.is_none()) {
            // It may be the scheduler that keeps it so.
            return Ok(None);
        }
        Ok(Some(Command::TakeUp(Box::new(TakeUp {
            settings: named,
            is_signed_off: active.is_none(),
            old_updated: row.and_then(|row| row.updated_at.clone()),
        }))))
    }

    fn say_nowhere(&self, question: Question, what: &str) {
        if self.clock.now().at >= question.appeared + IDENTITY_GRACE {
            let why = format!(
                "the scheduler was restarted, and its configuration names no manager by now; {what} whether it still registers {}: \
                 that row is left alone",
                self.key
            );
            self.degraded.set(REASON, Some(why));
        }
    }

    fn say_unreadable(&self, question: Question, why: &str) {
        if self.clock.now().at >= question.appeared + IDENTITY_GRACE {
            let why = format!(
                "the scheduler was restarted, or may have been; its configuration can't be taken ({why}), and the manager does not show \
                 that it still registers {}: its row is left alone",
                self.key
            );
            self.degraded.set(REASON, Some(why));
        }
    }

    async fn look(&self, open: &mut [Candidate], question: Question) -> Result<Answer, Failure> {
        let asked = self.clock.now().at;
        let old = rows_of(&self.manager, &self.key).await;
        let mut all_say_old = true;
        for Candidate { registration, settings, same_manager } in open {
            // Another manager says what it says, though this one may be gone for good.
            let (old, new) = if !*same_manager {
                let other = (self.connect)(settings)?;
                (old.as_ref().ok(), rows_of(&other, registration.named()).await?)
            } else {
                let old = old.as_ref().map_err(Clone::clone)?;
                let new = if registration.named().ip == self.key.ip {
                    old.clone()
                } else {
                    rows_of(&self.manager, registration.named()).await?
                };
                (Some(old), new)
            };
            // The older of the two decides what they prove.
            let are_fresh = *same_manager
                && [old, Some(&new)].iter().flatten().all(|read| read.freshness == Freshness::Fresh);
            let freshness = if are_fresh { Freshness::Fresh } else { Freshness::Within30s };
            let quiet = asked >= question.closed + freshness.age();
            match registration.listed(
                asked,
                (old.map(|old| old.rows.as_slice()), &new.rows),
                freshness,
                quiet,
            ) {
                Decision::New => {
                    return Ok(Answer::New(Box::new(TakeUp {
                        settings: settings.clone(),
                        is_signed_off: registration.old_is_inactive(),
                        old_updated: registration.old_updated(),
                    })));
                }
                Decision::Old => {}
                Decision::Open => all_say_old = false,
            }
        }
        Ok(if all_say_old { Answer::Old } else { Answer::Open })
    }

    fn tell(&self, command: Command) {
        match &command {
            Command::Event(Event::Identified { in_question: false }) => {
                self.named.set(Vec::new());
                self.named.open(false);
            }
            // An end may come before it is taken up.
            Command::TakeUp(take_up) => {
                let is_another = !take_up.settings.without_manager
                    && (take_up.settings.key().as_ref() != Some(&self.key)
                        || take_up.settings.managers != self.settings.managers);
                let other = || Other { settings: take_up.settings.clone(), manager: None };
                self.named.set(is_another.then(other).into_iter().collect());
            }
            _ => {}
        }
        // The shell is gone only when the process ends.
        let _ = self.commands.send(command);
    }
}

/// What came of a look at all candidates.
enum Answer {
    Open,
    Old,
    New(Box<TakeUp>),
}

fn named_by(open: &[Candidate]) -> String {
    let named = |candidate: &Candidate| at_its_manager(candidate.registration.named(), &candidate.settings);
    open.iter().map(named).collect::<Vec<_>>().join(", ")
}

/// A key, with where its manager is: two managers may have the same key.
fn at_its_manager(key: &SchedulerKey, settings: &Settings) -> String {
    format!("{key} at {}", holder(settings).managers)
}

async fn rows_of(manager: &Source, key: &SchedulerKey) -> Result<Listed, Failure> {
    within(READ_LIMIT, manager.list(&Filter::Ip(key.ip.get()))).await
}

/// Whether two configurations name the same manager: they share a gRPC endpoint, as the records on the spool are compared.
pub(super) async fn name_one_manager(one: &Settings, other: &Settings) -> bool {
    let (one, other) = (holder(one), holder(other));
    let is_one = |one: &Holder, other: &Holder| one.managers.seen_from(&other.managers) == Whose::Ours;
    if is_one(&one, &other) {
        return true;
    }
    let may_be_short =
        |holder: &Holder| holder.managers.endpoints().iter().any(|at| !at.contains(['.', '[']));
    if !may_be_short(&one) && !may_be_short(&other) {
        return false;
    }
    let complete = move || is_one(&one.completed_by_the_resolver(), &other.completed_by_the_resolver());
    files::within(files::LIMIT, complete).await.unwrap_or(false)
}

/// The client of the manager that these settings name, which tells there which of its files can't be used.
pub(super) fn connect(troubles: Troubles) -> Connect {
    Arc::new(move |settings| {
        Client::telling(settings.manager(), &troubles)
            .map(|client| Arc::new(client) as Source)
            .map_err(|why| Failure::new(why.to_string()))
    })
}
