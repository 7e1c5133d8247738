//! Lives of an agent against a small world: one row, one scheduler, a manager that may be slow, unreachable, or apply an
//! attempt long after its client gave up. After each step the guarantees are checked, each in a function of its own; in
//! the end everything is quiet for a while, and then the row has to be right. Long lives are drawn here; all short ones
//! are tried in [`exhaustive`].

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use Guarantee::{G1, G2, G3, G4, G6};

use super::*;

mod exhaustive;

/// The scheduler's keep-alive interval.
const INTERVAL: Duration = Duration::from_secs(5);

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Act {
    Wait(u32),
    /// Time goes on to the next moment at which anything happens.
    Next,
    Sees(Fact),
    PreStop(u8),
    Terminate,
    Manager(Mood),
    RowBecomes(bool),
    /// Somebody deletes the row.
    RowIsDeleted,
    /// Another agent replays a sign-off of this key.
    Foreign,
    ManagerLost,
    /// The manager that the scheduler is connected to goes: its stream ends, and it comes back one interval later.
    Reconnects,
    HoldLost,
    Disk(bool),
    DropByHand,
    /// The scheduler's configuration names another key from now on, or the one that it always named again.
    NamesAnother,
    Kill,
    /// Killed once so many more effects were carried out.
    KillAfter(usize),
}

/// What the scheduler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fact {
    Serves,
    Down,
    Unclear,
}

/// How the manager is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mood {
    Well,
    Away,
    Slow,
    Odd,
}

/// What becomes of an attempt at an odd manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fate {
    Rejected,
    /// It dies between the two moments.
    Half,
    Acknowledged,
    Lost,
    /// Nobody answers, and it is applied all the same.
    Late,
}

/// What leaves things open: drawn, or the same at every time.
#[derive(Debug, Clone, Copy)]
enum Dice {
    Drawn(u64),
    Set { fate: Fate, slow: bool },
}

/// A guarantee, as documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Guarantee {
    G1,
    G2,
    G3,
    G4,
    G6,
}

/// A world that breaks a guarantee whatever the core does: whoever can't see that sees nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sabotage {
    /// The disk says yes and writes nothing.
    ForgetfulDisk,
    /// No hold ever opens.
    NoHold,
    /// No read is ever answered.
    NoRead,
    /// The process doesn't exit.
    NoExit,
    /// What was acknowledged is applied once more.
    AppliedTwice,
}

/// What is under way in the world.
#[derive(Debug, Clone)]
enum Due {
    Ends(AttemptId, Outcome),
    Applied(bool),
    Closed,
    /// The row as it was read, if it could be: active, inactive, or gone.
    Read {
        asked: Duration,
        row: Option<Option<bool>>,
    },
    /// A registration comes to the manager, and is answered or not.
    Registered {
        applied: bool,
        came: Option<Registration>,
    },
    Listed(bool),
    Identified {
        in_question: bool,
    },
    HoldOpens(Opens),
}

/// What becomes of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opens {
    Yes,
    Refused,
    /// Its first message is applied, and then it breaks.
    Breaks,
}

#[derive(Debug, Clone)]
struct World {
    core: Lifecycle,
    freshness: Freshness,
    at: Duration,
    due: Vec<(Duration, u64, Due)>,
    order: u64,
    dice: Dice,
    sabotage: Option<Sabotage>,
    /// What was broken first, and how.
    broken: Option<(Guarantee, String)>,
    fact: Fact,
    served: bool,
    /// The configuration names another key.
    names_another: bool,
    /// It is open which key the scheduler registers.
    in_question: bool,
    /// When this agent saw the scheduler serve again after it had been down.
    reappeared: Option<Duration>,
    mood: Mood,
    disk_works: bool,
    /// Since when the row was what, the latest last: active, inactive, or gone.
    row: Vec<(Duration, Option<bool>)>,
    changes: usize,
    /// Attempts that the core waits for, and what was asked when each began.
    open: BTreeMap<AttemptId, BTreeSet<RecordId>>,
    /// What was asked before an attempt began that was acknowledged.
    acknowledged: BTreeSet<RecordId>,
    /// Those that are a hold's half-close.
    releases: BTreeSet<AttemptId>,
    /// Attempts that may still be applied, whoever made them.
    not_applied: usize,
    hold: Option<bool>,
    asks: BTreeMap<RecordId, Record>,
    marks: Vec<Record>,
    /// All asks that were accepted and not settled or dropped since.
    owed: BTreeSet<RecordId>,
    offered: BTreeSet<RecordId>,
    hooks: BTreeSet<HookId>,
    last_hook: HookId,
    terminated: bool,
    exited: Option<Exit>,
    run: u32,
    /// The agent knows what is on disk.
    found: bool,
    /// The disk refused, or somebody dropped asks: what is on it does not tell all.
    records_lost: bool,
    /// The agent can't know of what may still be applied.
    amnesia: bool,
    /// It is killed after so many more effects.
    kill_after: Option<usize>,
}

impl World {
    fn new(freshness: Freshness, dice: Dice, sabotage: Option<Sabotage>) -> Self {
        let at = Duration::from_secs(1000);
        let mut world = Self {
            core: Lifecycle::new(config(freshness), Moment(at)),
            freshness,
            at,
            due: Vec::new(),
            order: 0,
            dice,
            sabotage,
            broken: None,
            fact: Fact::Serves,
            served: false,
            names_another: false,
            in_question: false,
            reappeared: None,
            mood: Mood::Well,
            disk_works: true,
            row: vec![(Duration::ZERO, Some(true))],
            changes: 0,
            open: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            releases: BTreeSet::new(),
            not_applied: 0,
            hold: None,
            asks: BTreeMap::new(),
            marks: Vec::new(),
            owed: BTreeSet::new(),
            offered: BTreeSet::new(),
            hooks: BTreeSet::new(),
            last_hook: 0,
            terminated: false,
            exited: None,
            run: 0,
            found: false,
            records_lost: false,
            amnesia: false,
            kill_after: None,
        };
        world.start();
        world
    }

    fn must(&mut self, guarantee: Guarantee, holds: bool, what: &str) {
        if !holds && self.broken.is_none() {
            let why = format!("{what}, at {:?}\n{:?}\nthe row: {:?}", self.at, self.core, self.row);
            self.broken = Some((guarantee, why));
        }
    }

    fn is_sabotaged(&self, by: Sabotage) -> bool {
        self.sabotage == Some(by)
    }

    fn roll(&mut self, below: u64) -> u64 {
        match &mut self.dice {
            Dice::Drawn(dice) => {
                *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (*dice >> 33) % below
            }
            Dice::Set { slow: true, .. } => below - 1,
            Dice::Set { slow: false, .. } => 0,
        }
    }

    fn fate(&mut self) -> Fate {
        match self.dice {
            Dice::Set { fate, .. } => fate,
            Dice::Drawn(_) => match self.roll(6) {
                0 => Fate::Rejected,
                1 => Fate::Half,
                2 => Fate::Acknowledged,
                3 => Fate::Lost,
                _ => Fate::Late,
            },
        }
    }

    fn now(&mut self) -> Now {
        let roll = match self.dice {
            Dice::Drawn(_) => u32::try_from(self.roll(1 << 31)).unwrap() * 2,
            Dice::Set { slow, .. } => {
                if slow {
                    u32::MAX
                } else {
                    u32::MAX / 2
                }
            }
        };
        let at = Moment(self.at);
        Now { at, came: at, wall: WALL + self.at.as_millis() as u64, roll }
    }

    fn is_active(&self) -> bool {
        self.row.last().unwrap().1 == Some(true)
    }

    fn is_gone(&self) -> bool {
        self.row.last().unwrap().1.is_none()
    }

    /// A KeepAlive changes no row that is gone.
    fn becomes(&mut self, active: bool) {
        if !self.is_gone() {
            self.row_is(Some(active));
        }
    }

    fn is_registered(&mut self) {
        if self.is_gone() {
            self.row_is(Some(false));
        }
    }

    fn row_is(&mut self, active: Option<bool>) {
        if self.row.last().unwrap().1 != active {
            // No read is older than 30 s.
            let old = self.at.saturating_sub(Duration::from_secs(31));
            let keep = self.row.iter().rposition(|(since, _)| *since <= old).unwrap_or(0);
            self.row.drain(..keep);
            self.row.push((self.at, active));
            self.changes += 1;
        }
    }

    fn later(&mut self, millis: u64, due: Due) {
        self.order += 1;
        self.due.push((self.at + Duration::from_millis(millis), self.order, due));
    }

    /// An agent starts on what is on disk.
    fn start(&mut self) {
        self.run += 1;
        let in_question = self.names_another;
        let config = Config { run: self.run, in_question, ..config(self.freshness) };
        self.core = Lifecycle::new(config, Moment(self.at));
        self.in_question = in_question;
        if in_question {
            self.shows_its_key_later();
        }
        self.terminated = false;
        self.exited = None;
        self.hooks.clear();
        self.kill_after = None;
        self.releases.clear();
        // What only the dead agent's memory held was never promised.
        self.owed.clear();
        self.found = false;
        self.reappeared = None;
        if self.disk_works {
            self.find();
        }
        self.look();
    }

    /// The spool can be read.
    fn find(&mut self) {
        self.found = true;
        let known = !self.asks.is_empty() || self.marks.iter().any(|mark| mark.what != What::Seen);
        if self.not_applied > 0 && !known {
            self.must(G6, self.records_lost, "a record is kept until nothing can be applied any more");
            self.amnesia = true;
        }
        self.offered.extend(self.asks.keys().cloned());
        self.owed.extend(self.asks.keys().cloned());
        let asks = self.asks.values().map(|ask| (Kind::Ask, ask.clone()));
        let left = asks.chain(self.marks.iter().map(|mark| (Kind::Mark, mark.clone()))).collect();
        self.step(Event::Found { left, all: true });
    }

    /// kill -9: what it had under way may still be applied for a minute, and its hold's end as well.
    fn kill(&mut self) {
        self.due.retain(|(_, _, due)| matches!(due, Due::Applied(_) | Due::Closed));
        let last = self.at + Duration::from_secs(59);
        for (at, _, _) in &mut self.due {
            *at = last.min(*at);
        }
        for _ in std::mem::take(&mut self.open) {
            self.applied_late();
        }
        if self.hold.take().is_some() {
            self.hold_ends_late();
        }
        self.start();
    }

    fn look(&mut self) {
        let sight = match self.fact {
            Fact::Serves => serving(),
            Fact::Down => refused(),
            Fact::Unclear => Event::Scheduler(Sight::Unclear),
        };
        self.served |= self.fact == Fact::Serves;
        self.step(sight);
    }

    fn step(&mut self, event: Event) {
        if self.exited.is_some() {
            return;
        }
        if let Event::Dropped(asks) = &event {
            for ask in asks {
                self.owed.remove(ask);
            }
        }
        let now = self.now();
        let mut effects = std::collections::VecDeque::from(self.core.step(event, now));
        while let Some(effect) = effects.pop_front() {
            match &mut self.kill_after {
                Some(0) => return self.kill(),
                Some(left) => *left -= 1,
                None => {}
            }
            if let Some(more) = self.act(effect) {
                let now = self.now();
                effects.extend(self.core.step(more, now));
            }
        }
        self.check();
    }

    fn act(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Persist(record) => {
                let ask = record.id.clone();
                self.owed.insert(ask.clone());
                self.offered.insert(ask.clone());
                if self.disk_works && !self.is_sabotaged(Sabotage::ForgetfulDisk) {
                    self.asks.insert(ask.clone(), super::on_disk(record));
                }
                return Some(Event::Written { ask, on_disk: self.disk_works });
            }
            Effect::Mark(record) => self.write_mark(record),
            Effect::DropMarks { signed_off } => {
                if signed_off {
                    self.check_marks_may_go();
                }
                self.marks.retain(|mark| match mark.what {
                    What::SignOff { .. } => !signed_off,
                    What::Held => signed_off,
                    What::Seen => true,
                });
            }
            Effect::Settle { asks, mark } => {
                self.check_all_acknowledged(&asks);
                let newest = asks.iter().rev().find_map(|ask| self.asks.get(ask).cloned());
                for ask in &asks {
                    self.owed.remove(ask);
                    self.asks.remove(ask);
                }
                if let (true, Some(record)) = (mark, newest) {
                    self.write_mark(record);
                }
            }
            Effect::Attempt { id, limit, .. } => {
                self.check_all_offered();
                self.check_it_is_not_left_alone();
                self.begin(id);
                self.try_it(id, limit);
            }
            Effect::Release { id, limit } => {
                self.check_all_offered();
                self.releases.insert(id);
                self.begin(id);
                match self.hold.take() {
                    Some(_) => self.try_it(id, limit),
                    None => self.later(0, Due::Ends(id, unknown())),
                }
            }
            Effect::Hold => {
                self.must(G6, self.hold.is_none(), "never two holds");
                self.check_it_is_not_left_alone();
                self.must(
                    G6,
                    !self.open.keys().any(|id| self.releases.contains(id)),
                    "the old hold's end is waited for",
                );
                let heard = self.reappeared.is_none_or(|at| self.at >= at + 2 * INTERVAL);
                self.must(G2, heard, "the scheduler's own first message is waited for before a hold");
                let marked = self.marks.iter().any(|mark| mark.what == What::Held);
                self.must(G2, marked, "a hold has its mark");
                self.hold = Some(false);
                if self.is_sabotaged(Sabotage::NoHold) {
                    return None;
                }
                let opens = match self.mood {
                    Mood::Well | Mood::Slow => Opens::Yes,
                    Mood::Away => Opens::Refused,
                    Mood::Odd => match self.fate() {
                        Fate::Acknowledged => Opens::Yes,
                        Fate::Rejected => Opens::Refused,
                        Fate::Half | Fate::Lost | Fate::Late => Opens::Breaks,
                    },
                };
                let delay = 250 + self.roll(500);
                self.later(delay, Due::HoldOpens(opens));
            }
            Effect::Register(registered) => {
                self.check_it_is_not_left_alone();
                let ends = self.core.drain_until().is_some() || self.terminated;
                let serves = self.fact == Fact::Serves && !ends;
                self.must(G2, serves, "only the row of a scheduler that serves is put back");
                self.must(G2, registered == told(), "a row is put back as it was");
                let (applied, came) = match self.mood {
                    Mood::Well | Mood::Slow => (true, Registration::Done),
                    Mood::Away => (false, Registration::Unknown),
                    Mood::Odd => match self.fate() {
                        Fate::Acknowledged => (true, Registration::Done),
                        Fate::Rejected => (false, Registration::Refused),
                        Fate::Half | Fate::Lost | Fate::Late => (true, Registration::Unknown),
                    },
                };
                let took = 1 + self.roll(if self.mood == Mood::Well { 20 } else { 5000 });
                self.later(took, Due::Registered { applied, came: Some(came) });
            }
            Effect::DropRegistration => {
                for (_, _, due) in &mut self.due {
                    if let Due::Registered { came, .. } = due {
                        *came = None;
                    }
                }
            }
            Effect::DropHold => {
                if self.hold.take().is_some() {
                    self.hold_ends_late();
                }
                self.due.retain(|(_, _, due)| !matches!(due, Due::HoldOpens(_)));
            }
            Effect::ReadRow if self.is_sabotaged(Sabotage::NoRead) => {}
            Effect::ReadRow => {
                let asked = self.at;
                let row = match self.mood {
                    Mood::Away => None,
                    _ => Some(self.read()),
                };
                let took = 1 + self.roll(if self.mood == Mood::Well { 20 } else { 9000 });
                self.later(took, Due::Read { asked, row });
            }
            Effect::CheckIdentity => {
                if self.mood != Mood::Away {
                    self.later(5, Due::Listed(!self.is_gone()));
                }
            }
            Effect::Identify { was_away } => {
                self.due.retain(|(_, _, due)| !matches!(due, Due::Identified { .. }));
                self.in_question |= was_away;
                self.later(5, Due::Identified { in_question: self.names_another });
            }
            Effect::Answer(hook, answer) => {
                let once = self.hooks.remove(&hook);
                self.must(G4, once, "a hook is answered once");
                let kept = answer.verdict != Verdict::Queued || !answer.on_disk || !self.asks.is_empty();
                self.must(G1, kept, "a hook that is told its ask is on disk has one there");
            }
            Effect::Notice(Notice::Settled { verdict: Verdict::Confirmed, .. }) => self.check_settled(),
            Effect::Notice(_) => {}
            Effect::Exit(exit) => {
                self.must(G4, self.terminated, "without SIGTERM the agent never exits by itself");
                self.must(G4, self.hooks.is_empty(), "every hook is answered before the exit");
                if !self.is_sabotaged(Sabotage::NoExit) {
                    self.exited = Some(exit);
                }
            }
        }
        None
    }

    fn write_mark(&mut self, record: Record) {
        self.marks.retain(|mark| std::mem::discriminant(&mark.what) != std::mem::discriminant(&record.what));
        self.marks.push(super::on_disk(record));
    }

    fn begin(&mut self, id: AttemptId) {
        self.open.insert(id, self.owed.clone());
        // A hold's half-close can't wait for them.
        let attempts = self.open.keys().filter(|id| !self.releases.contains(id)).count();
        self.must(G6, attempts <= 2, "at most two attempts are open");
    }

    /// One attempt's fate.
    fn try_it(&mut self, id: AttemptId, limit: Duration) {
        let limit = u64::try_from(limit.as_millis()).unwrap();
        match self.mood {
            Mood::Well => self.acknowledged(id, 3, limit),
            Mood::Away => {
                let took = 1 + self.roll(1000);
                self.later(took.min(limit), Due::Ends(id, failed()));
            }
            Mood::Slow => {
                let took = 5000 + self.roll(2000);
                self.acknowledged(id, took, limit);
            }
            Mood::Odd => match self.fate() {
                Fate::Rejected => self.later(1, Due::Ends(id, Outcome::Rejected(Failure::new("no")))),
                Fate::Half => {
                    self.later(2, Due::Applied(true));
                    self.later(5, Due::Ends(id, unknown()));
                }
                Fate::Acknowledged => self.acknowledged(id, 3, limit),
                fate @ (Fate::Lost | Fate::Late) => {
                    let took = 1 + self.roll(limit.max(2) - 1);
                    self.later(took, Due::Ends(id, unknown()));
                    if fate == Fate::Late {
                        let late = took + self.roll(59_000);
                        self.not_applied += 1;
                        self.later(late, Due::Applied(true));
                        let gap = self.roll(900);
                        self.later(late + gap, Due::Applied(false));
                        self.later(late + gap, Due::Closed);
                    }
                }
            },
        }
    }

    fn acknowledged(&mut self, id: AttemptId, took: u64, limit: u64) {
        if self.is_gone() {
            let outcome = if took <= limit { Outcome::Absent } else { unknown() };
            return self.later(took.min(limit), Due::Ends(id, outcome));
        }
        self.not_applied += 1;
        self.later(1.min(took / 2), Due::Applied(true));
        self.later(took - 1, Due::Applied(false));
        self.later(took - 1, Due::Closed);
        let outcome = if took <= limit { Outcome::Confirmed } else { unknown() };
        if self.is_sabotaged(Sabotage::AppliedTwice) {
            self.applied_late();
        }
        self.later(took.min(limit), Due::Ends(id, outcome));
    }

    fn applied_late(&mut self) {
        let late = self.roll(58_000);
        self.not_applied += 1;
        self.later(late, Due::Applied(true));
        self.later(late + 1, Due::Applied(false));
        self.later(late + 1, Due::Closed);
    }

    fn hold_ends_late(&mut self) {
        let late = self.roll(58_000);
        self.not_applied += 1;
        self.later(late, Due::Applied(false));
        self.later(late, Due::Closed);
    }

    /// The manager shows that the scheduler registers this key still: it sends a message in each interval, and is asked as often.
    fn shows_its_key_later(&mut self) {
        let later = 10_000 + self.roll(60_000);
        self.later(later, Due::Identified { in_question: false });
    }

    /// The row, or what it was up to 30 s ago where the source may be so old.
    fn read(&mut self) -> Option<bool> {
        let age = match self.freshness {
            Freshness::Fresh => 0,
            Freshness::Within30s => self.roll(30_001),
        };
        let then = self.at.saturating_sub(Duration::from_millis(age));
        self.row.iter().rev().find(|(since, _)| *since <= then).unwrap().1
    }

    fn happens(&mut self, due: Due) {
        match due {
            Due::Ends(id, outcome) => {
                if let Some(covered) = self.open.remove(&id) {
                    if matches!(outcome, Outcome::Confirmed | Outcome::Absent) {
                        self.acknowledged.extend(covered);
                    }
                    self.step(Event::Ended { attempt: id, outcome });
                }
            }
            Due::Applied(active) => self.becomes(active),
            Due::Closed => {
                self.not_applied -= 1;
                self.amnesia &= self.not_applied > 0;
            }
            Due::Read { asked, row } => {
                let (state, shown) = match (row.unwrap_or_default(), self.freshness) {
                    (Some(true), _) => (RowState::Active, true),
                    (Some(false), Freshness::Fresh) => (RowState::Inactive, true),
                    (None, Freshness::Fresh) => (RowState::Absent, false),
                    (_, Freshness::Within30s) => (RowState::NotActive, false),
                };
                let (freshness, registered) = (self.freshness, shown.then(told));
                let read = row
                    .map(|_| RowRead { state, freshness, registered, updated: None })
                    .ok_or_else(|| Failure::new("connection refused"));
                self.step(Event::RowRead { asked: Moment(asked), read });
            }
            Due::Registered { applied, came } => {
                if applied {
                    self.is_registered();
                }
                if let Some(came) = came {
                    self.step(Event::Registered(came));
                }
            }
            Due::Listed(listed) => self.step(Event::Identity { listed }),
            // What names another key leaves it to the manager to show which one it is.
            Due::Identified { in_question: false } if self.names_another && self.mood == Mood::Away => {
                self.later(5_000, due);
            }
            Due::Identified { in_question } => {
                self.in_question = in_question;
                if in_question {
                    self.shows_its_key_later();
                }
                self.step(Event::Identified { in_question });
            }
            Due::HoldOpens(opens)
                if self.hold == Some(false) && self.is_gone() && opens != Opens::Refused =>
            {
                self.hold = None;
                self.step(Event::HoldFailed { absent: true });
            }
            Due::HoldOpens(opens) if self.hold == Some(false) => {
                let is_open = opens == Opens::Yes;
                self.hold = is_open.then_some(true);
                if opens != Opens::Refused {
                    self.becomes(true);
                }
                if opens == Opens::Breaks {
                    self.hold_ends_late();
                }
                self.step(if is_open { Event::HoldOpened } else { Event::HoldFailed { absent: false } });
            }
            Due::HoldOpens(_) => {}
        }
    }

    /// When something is due next, in the core or in the world.
    fn next_at(&self) -> Option<Duration> {
        let wake = self.core.wake_at(Moment(self.at)).filter(|_| !self.core.done).map(|at| at.0.max(self.at));
        wake.into_iter().chain(self.due.iter().map(|(at, _, _)| *at)).min()
    }

    /// Lets time go on, the core woken when it wishes.
    fn wait(&mut self, time: Duration) {
        let until = self.at + time;
        let mut here = 0;
        while let Some(next) = self.next_at().filter(|next| *next <= until) {
            here = if next > self.at { 0 } else { here + 1 };
            self.must(G3, here < 50, "it spins");
            if self.broken.is_some() {
                return;
            }
            self.at = next;
            let first = self.due.iter().enumerate().min_by_key(|(_, (at, order, _))| (*at, *order));
            match first {
                Some((index, (at, _, _))) if *at <= next => {
                    let (_, _, due) = self.due.swap_remove(index);
                    self.happens(due);
                }
                _ => self.step(Event::Tick),
            }
        }
        self.at = until;
    }

    fn take(&mut self, act: Act) {
        if self.exited.is_some() {
            // The container is started again, now or later.
            self.kill();
        }
        match act {
            Act::Wait(millis) => self.wait(Duration::from_millis(millis.into())),
            Act::Next => {
                if let Some(next) = self.next_at() {
                    self.wait(next.saturating_sub(self.at));
                }
            }
            Act::Sees(fact) => {
                if self.mood != Mood::Away && fact != self.fact {
                    // Its own stream.
                    match fact {
                        Fact::Serves => self.later(5000, Due::Applied(true)),
                        Fact::Down => self.later(2, Due::Applied(false)),
                        Fact::Unclear => {}
                    }
                }
                if (self.fact, fact) == (Fact::Down, Fact::Serves) {
                    self.reappeared = Some(self.at);
                    if self.mood != Mood::Away {
                        self.is_registered();
                    }
                }
                self.fact = fact;
                self.look();
            }
            Act::PreStop(wait) => {
                self.last_hook += 1;
                self.hooks.insert(self.last_hook);
                let wait = (wait > 0).then(|| Duration::from_secs(wait.into()));
                self.ask(Event::PreStop { hook: self.last_hook, wait });
            }
            Act::Terminate => {
                self.terminated = true;
                self.ask(Event::Terminate);
            }
            Act::Manager(mood) => {
                let back = self.mood == Mood::Away && mood != Mood::Away;
                self.mood = mood;
                if back {
                    self.step(Event::ManagerBack);
                }
            }
            Act::RowBecomes(active) => self.becomes(active),
            Act::RowIsDeleted => self.row_is(None),
            Act::Foreign => {
                self.becomes(true);
                self.later(2000, Due::Applied(false));
            }
            Act::ManagerLost => self.step(Event::ManagerLost),
            Act::Reconnects => {
                if self.fact == Fact::Serves {
                    self.becomes(false);
                    self.later(5000, Due::Applied(true));
                }
                self.step(Event::ManagerLost);
            }
            Act::HoldLost => {
                if self.hold == Some(true) {
                    self.hold = None;
                    self.hold_ends_late();
                    self.step(Event::HoldLost);
                }
            }
            Act::Disk(works) => {
                self.records_lost |= !works;
                self.disk_works = works;
                if works && !self.found {
                    self.find();
                }
            }
            Act::DropByHand => {
                self.records_lost = true;
                let all: Vec<RecordId> = std::mem::take(&mut self.asks).into_keys().collect();
                self.step(Event::Dropped(all));
            }
            Act::NamesAnother => self.names_another = !self.names_another,
            Act::Kill => self.kill(),
            Act::KillAfter(effects) => self.kill_after = Some(effects),
        }
    }

    fn check(&mut self) {
        self.check_nothing_is_lost();
        self.check_the_deadline();
    }

    /// G1: what was asked is pending until it is settled or dropped; and settled is only what was.
    fn check_nothing_is_lost(&mut self) {
        let pending: BTreeSet<RecordId> =
            self.core.pending().iter().map(|pending| pending.record.id.clone()).collect();
        self.must(G1, pending == self.owed, "what was asked is pending, and nothing else");
        let on_disk = |pending: &Pending| self.asks.contains_key(&pending.record.id);
        let told = self.core.pending().iter().all(|pending| pending.on_disk == on_disk(pending));
        self.must(G1, told, "what is said of the disk is true");
    }

    /// G1: persisted before attempted.
    fn check_all_offered(&mut self) {
        let offered = self.core.pending().iter().all(|pending| self.offered.contains(&pending.record.id));
        self.must(G1, offered, "persisted before attempted");
    }

    /// G2: while it is open which key the scheduler registers, the row of one that serves is neither signed off nor given back, but
    /// in a drain, and after SIGTERM.
    fn check_it_is_not_left_alone(&mut self) {
        let ends = self.core.drain_until().is_some() || self.terminated;
        let is_left_alone = self.in_question && self.fact == Fact::Serves && !ends;
        self.must(G2, !is_left_alone, "a row in question is left alone");
    }

    /// G1: an attempt settles what was asked before it began, no more; unless the scheduler lives.
    fn check_all_acknowledged(&mut self, settled: &[RecordId]) {
        let acknowledged = settled.iter().all(|ask| self.acknowledged.contains(ask));
        let superseded = self.fact == Fact::Serves;
        self.must(G1, acknowledged || superseded, "settled by an attempt that began after it was asked");
    }

    /// G1: after pre-stop and SIGTERM there is an ask, or the row is inactive already and a drain's ask made it so; unless
    /// the agent was killed over it.
    fn ask(&mut self, event: Event) {
        let run = self.run;
        self.step(event);
        let gone = self.core.pending().is_empty() && self.exited.is_none() && self.run == run;
        self.must(
            G1,
            !gone || self.hold.is_none(),
            "no end without an ask while a hold keeps the row active",
        );
    }

    /// G4.
    fn check_the_deadline(&mut self) {
        if let Some(deadline) = self.core.deadline().filter(|_| self.terminated && self.exited.is_none()) {
            self.must(G4, self.at < deadline.0, "exit is called before the deadline");
        }
    }

    /// G6: nothing of ours can change the row after it is settled.
    fn check_settled(&mut self) {
        let closed = self.not_applied == 0 && self.open.is_empty();
        self.must(G6, closed || self.amnesia, "settled once nothing can be applied any more");
    }

    /// A mark is dropped only when the row was read active with no attempt open.
    fn check_marks_may_go(&mut self) {
        let closed = self.not_applied == 0 && self.open.is_empty();
        self.must(G2, closed || self.amnesia, "a mark stays until nothing can be applied any more");
    }

    /// G2, G3: with everything quiet the row is soon right, and stays so.
    fn check_it_converges(&mut self) {
        self.kill_after = None;
        self.mood = Mood::Well;
        self.take(Act::Disk(true));
        if self.exited.is_some() || self.terminated {
            self.wait(Duration::from_secs(60));
            self.must(G4, self.exited.is_some(), "exits");
            self.kill();
        }
        let (soon, while_) = match self.freshness {
            // A drain, an attempt that may still be applied, a read's period.
            Freshness::Fresh => (40 + 95 + 65, 120),
            Freshness::Within30s => (40 + 95 + 31 + 330, 700),
        };
        // A row that is gone is registered again, and then given back.
        let soon = soon + if self.is_gone() { 50 } else { 0 };
        // Until it is known which key the scheduler registers nothing is done.
        let soon = soon + if self.in_question { 75 } else { 0 };
        self.wait(Duration::from_secs(soon));
        let right = match self.fact {
            // Nobody knows what was never read.
            Fact::Serves if self.is_gone() && self.core.registered.is_none() => return,
            Fact::Serves => true,
            Fact::Down if self.served => false,
            Fact::Down | Fact::Unclear => return,
        };
        self.must(if right { G2 } else { G3 }, self.is_active() == right, "the row is right at last");
        // Of a key that was never shown to it the agent can't tell whose fault that is.
        let never_shown = self.is_gone() && !self.core.listed;
        self.must(G3, self.asks.is_empty() || never_shown, "all is settled at last");
        let changes = self.changes;
        self.wait(Duration::from_secs(while_));
        self.must(G3, self.changes == changes, "it rests at last");
        let caused = |mark: &Record| matches!(mark.what, What::SignOff { .. });
        let caused = self.marks.iter().any(caused);
        self.must(G2, !right || !caused, "no mark is left that nothing needs any more");
    }
}

fn acts() -> impl Strategy<Value = Act> {
    let fact = prop_oneof![3 => Just(Fact::Serves), 3 => Just(Fact::Down), 1 => Just(Fact::Unclear)];
    let mood = prop_oneof![Just(Mood::Well), Just(Mood::Away), Just(Mood::Slow), Just(Mood::Odd)];
    prop_oneof![
        4 => (1..3000u32).prop_map(Act::Wait),
        4 => (1..90_000u32).prop_map(Act::Wait),
        5 => fact.prop_map(Act::Sees),
        2 => (0..6u8).prop_map(Act::PreStop),
        1 => Just(Act::Terminate),
        4 => mood.prop_map(Act::Manager),
        2 => any::<bool>().prop_map(Act::RowBecomes),
        1 => Just(Act::RowIsDeleted),
        1 => Just(Act::Foreign),
        1 => prop_oneof![Just(Act::ManagerLost), Just(Act::Reconnects)],
        1 => Just(Act::HoldLost),
        1 => any::<bool>().prop_map(Act::Disk),
        1 => Just(Act::DropByHand),
        1 => Just(Act::NamesAnother),
        1 => Just(Act::Kill),
        1 => (0..4usize).prop_map(Act::KillAfter),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_guarantee_is_broken(
        fresh in any::<bool>(),
        dice in any::<u64>(),
        acts in prop::collection::vec(acts(), 1..25),
    ) {
        let freshness = if fresh { Freshness::Fresh } else { Freshness::Within30s };
        let mut world = World::new(freshness, Dice::Drawn(dice), None);
        for act in acts {
            world.take(act);
        }
        world.check_it_converges();
        prop_assert_eq!(world.broken, None);
    }
}
