//! Random lives of an agent against a small world: one row, one scheduler, a manager that may be slow, unreachable, or
//! apply an attempt long after its client gave up. After each step the guarantees are checked, each in a function of its
//! own; in the end everything is quiet for a while, and then the row has to be right.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What may happen next.
#[derive(Debug, Clone)]
enum Act {
    Wait(u32),
    Sees(Fact),
    PreStop(u8),
    Terminate,
    Manager(Mood),
    RowBecomes(bool),
    ManagerLost,
    HoldLost,
    Disk(bool),
    DropByHand,
    Kill,
}

/// What the scheduler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    Serves,
    Down,
    Unclear,
}

/// How the manager is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Away,
    Slow,
    Odd,
}

/// What is under way in the world.
#[derive(Debug, Clone)]
enum Due {
    Ends(AttemptId, Outcome),
    Applied(bool),
    Closed,
    Read { asked: Duration, row: Option<bool> },
    Listed(bool),
    HoldOpens(bool),
}

struct World {
    core: Lifecycle,
    freshness: Freshness,
    at: Duration,
    due: Vec<(Duration, u64, Due)>,
    order: u64,
    dice: u64,
    fact: Fact,
    served: bool,
    mood: Mood,
    disk_works: bool,
    /// Since when the row was what, the latest last.
    row: Vec<(Duration, bool)>,
    /// Attempts that the core waits for.
    open: BTreeSet<AttemptId>,
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
    /// The disk refused, or somebody dropped asks: what is on it does not tell all.
    records_lost: bool,
    /// The agent can't know of what may still be applied.
    amnesia: bool,
}

impl World {
    fn new(freshness: Freshness, dice: u64) -> Self {
        let at = Duration::from_secs(1000);
        let mut world = Self {
            core: Lifecycle::new(config(freshness), Moment(at)),
            freshness,
            at,
            due: Vec::new(),
            order: 0,
            dice,
            fact: Fact::Serves,
            served: false,
            mood: Mood::Well,
            disk_works: true,
            row: vec![(Duration::ZERO, true)],
            open: BTreeSet::new(),
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
            records_lost: false,
            amnesia: false,
        };
        world.start();
        world
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % below
    }

    fn now(&mut self) -> Now {
        let roll = u32::try_from(self.roll(1 << 31)).unwrap() * 2;
        let at = Moment(self.at);
        Now { at, came: at, wall: WALL + self.at.as_millis() as u64, roll }
    }

    fn is_active(&self) -> bool {
        self.row.last().unwrap().1
    }

    fn becomes(&mut self, active: bool) {
        if self.is_active() != active {
            self.row.push((self.at, active));
        }
    }

    fn later(&mut self, millis: u64, due: Due) {
        self.order += 1;
        self.due.push((self.at + Duration::from_millis(millis), self.order, due));
    }

    /// An agent starts on what is on disk.
    fn start(&mut self) {
        self.run += 1;
        self.core = Lifecycle::new(Config { run: self.run, ..config(self.freshness) }, Moment(self.at));
        self.terminated = false;
        self.exited = None;
        self.hooks.clear();
        self.releases.clear();
        self.offered.extend(self.asks.keys().cloned());
        // What only the dead agent's memory held was never promised.
        self.owed = self.asks.keys().cloned().collect();
        let asks = self.asks.values().map(|ask| (Kind::Ask, ask.clone()));
        let left = asks.chain(self.marks.iter().map(|mark| (Kind::Mark, mark.clone()))).collect();
        self.step(Event::Found { left, all: true });
        self.look();
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
        let known = !self.asks.is_empty() || self.marks.iter().any(|mark| mark.what != What::Seen);
        if self.not_applied > 0 && !known {
            assert!(self.records_lost, "a record is kept until nothing can be applied any more");
            self.amnesia = true;
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
                if self.disk_works {
                    self.asks.insert(ask.clone(), record);
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
                assert_eq!(self.hold, None, "never two holds");
                assert!(self.open.is_disjoint(&self.releases), "the old hold's end is waited for");
                assert!(self.marks.iter().any(|mark| mark.what == What::Held), "a hold has its mark");
                self.hold = Some(false);
                let opens = self.mood != Mood::Away;
                let delay = 250 + self.roll(500);
                self.later(delay, Due::HoldOpens(opens));
            }
            Effect::DropHold => {
                if self.hold.take().is_some() {
                    self.hold_ends_late();
                }
                self.due.retain(|(_, _, due)| !matches!(due, Due::HoldOpens(_)));
            }
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
                    self.later(5, Due::Listed(true));
                }
            }
            Effect::Answer(hook, _) => assert!(self.hooks.remove(&hook), "a hook is answered once"),
            Effect::Notice(Notice::Settled { verdict: Verdict::Confirmed, .. }) => self.check_settled(),
            Effect::Notice(_) => {}
            Effect::Exit(exit) => {
                self.exited = Some(exit);
                assert!(self.terminated, "without SIGTERM the agent never exits by itself");
                assert!(self.hooks.is_empty(), "every hook is answered before the exit");
            }
        }
        None
    }

    fn write_mark(&mut self, record: Record) {
        self.marks.retain(|mark| std::mem::discriminant(&mark.what) != std::mem::discriminant(&record.what));
        self.marks.push(record);
    }

    fn begin(&mut self, id: AttemptId) {
        self.open.insert(id);
        // A hold's half-close can't wait for them.
        let attempts = self.open.difference(&self.releases).count();
        assert!(attempts <= 2, "at most two attempts are open");
    }

    /// One attempt's fate.
    fn try_it(&mut self, id: AttemptId, limit: Duration) {
        let limit = u64::try_from(limit.as_millis()).unwrap();
        let chance = self.roll(6);
        match (self.mood, chance) {
            (Mood::Well, _) => self.acknowledged(id, 3, limit),
            (Mood::Away, _) => {
                let took = 1 + self.roll(1000);
                self.later(took.min(limit), Due::Ends(id, failed()));
            }
            (Mood::Slow, _) => {
                let took = 5000 + self.roll(2000);
                self.acknowledged(id, took, limit);
            }
            (Mood::Odd, 0) => self.later(1, Due::Ends(id, Outcome::Rejected(Failure::new("no")))),
            (Mood::Odd, 1) => {
                // Dies between the two moments.
                self.later(2, Due::Applied(true));
                self.later(5, Due::Ends(id, unknown()));
            }
            (Mood::Odd, 2) => self.acknowledged(id, 3, limit),
            (Mood::Odd, _) => {
                // Silent, or cut; applied later, or never.
                let took = 1 + self.roll(limit.max(2) - 1);
                self.later(took, Due::Ends(id, unknown()));
                if chance > 3 {
                    let late = took + self.roll(59_000);
                    self.not_applied += 1;
                    self.later(late, Due::Applied(true));
                    let gap = self.roll(900);
                    self.later(late + gap, Due::Applied(false));
                    self.later(late + gap, Due::Closed);
                }
            }
        }
    }

    fn acknowledged(&mut self, id: AttemptId, took: u64, limit: u64) {
        self.not_applied += 1;
        self.later(1.min(took / 2), Due::Applied(true));
        self.later(took - 1, Due::Applied(false));
        self.later(took - 1, Due::Closed);
        let outcome = if took <= limit { Outcome::Confirmed } else { unknown() };
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

    /// The row, or what it was up to 30 s ago where the source may be so old.
    fn read(&mut self) -> bool {
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
                if self.open.remove(&id) {
                    self.step(Event::Ended { attempt: id, outcome });
                }
            }
            Due::Applied(active) => self.becomes(active),
            Due::Closed => {
                self.not_applied -= 1;
                self.amnesia &= self.not_applied > 0;
            }
            Due::Read { asked, row } => {
                let state = |active| match (active, self.freshness) {
                    (true, _) => RowState::Active,
                    (false, Freshness::Fresh) => RowState::Inactive,
                    (false, Freshness::Within30s) => RowState::NotActive,
                };
                let read = row
                    .map(|row| RowRead { state: state(row), freshness: self.freshness, port: None })
                    .ok_or_else(|| Failure::new("connection refused"));
                self.step(Event::RowRead { asked: Moment(asked), read });
            }
            Due::Listed(listed) => self.step(Event::Identity { listed }),
            Due::HoldOpens(opens) => match self.hold {
                Some(false) if opens => {
                    self.hold = Some(true);
                    self.becomes(true);
                    self.step(Event::HoldOpened);
                }
                Some(false) => {
                    self.hold = None;
                    self.step(Event::HoldFailed { absent: false });
                }
                _ => {}
            },
        }
    }

    /// Lets time go on, the core woken when it wishes.
    fn wait(&mut self, time: Duration) {
        let until = self.at + time;
        let mut here = 0;
        loop {
            let wake = match self.exited {
                None => self.core.wake_at(Moment(self.at)).map(|at| at.0.max(self.at)),
                Some(_) => None,
            };
            let first = self.due.iter().enumerate().min_by_key(|(_, (at, order, _))| (*at, *order));
            let first = first.map(|(index, (at, _, _))| (index, *at));
            let next = wake.into_iter().chain(first.map(|(_, at)| at)).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            here = if next > self.at { 0 } else { here + 1 };
            assert!(here < 50, "it spins at {:?}: {:?}", self.at, self.core);
            self.at = next;
            match first {
                Some((index, at)) if at <= next => {
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
            Act::Sees(fact) => {
                if self.mood != Mood::Away && fact != self.fact {
                    // Its own stream.
                    match fact {
                        Fact::Serves => self.later(5000, Due::Applied(true)),
                        Fact::Down => self.later(2, Due::Applied(false)),
                        Fact::Unclear => {}
                    }
                }
                self.fact = fact;
                self.look();
            }
            Act::PreStop(wait) => {
                self.last_hook += 1;
                self.hooks.insert(self.last_hook);
                let wait = (wait > 0).then(|| Duration::from_secs(wait.into()));
                self.step(Event::PreStop { hook: self.last_hook, wait });
            }
            Act::Terminate => {
                self.terminated = true;
                self.step(Event::Terminate);
                self.check_asked();
            }
            Act::Manager(mood) => {
                let back = self.mood == Mood::Away && mood != Mood::Away;
                self.mood = mood;
                if back {
                    self.step(Event::ManagerBack);
                }
            }
            Act::RowBecomes(active) => self.becomes(active),
            Act::ManagerLost => self.step(Event::ManagerLost),
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
            }
            Act::DropByHand => {
                self.records_lost = true;
                let all: Vec<RecordId> = std::mem::take(&mut self.asks).into_keys().collect();
                self.step(Event::Dropped(all));
            }
            Act::Kill => self.kill(),
        }
    }

    fn check(&self) {
        self.check_nothing_is_lost();
        self.check_the_deadline();
    }

    /// G1: what was asked is pending until it is settled or dropped; and settled is only what was.
    fn check_nothing_is_lost(&self) {
        let pending: BTreeSet<RecordId> =
            self.core.pending().iter().map(|pending| pending.record.id.clone()).collect();
        assert_eq!(pending, self.owed, "{:?}", self.core);
        for pending in self.core.pending() {
            let id = &pending.record.id;
            assert_eq!(pending.on_disk, self.asks.contains_key(id), "what is said of the disk is true");
        }
    }

    /// G1: persisted before attempted.
    fn check_all_offered(&self) {
        for pending in self.core.pending() {
            assert!(self.offered.contains(&pending.record.id), "attempted before it was persisted");
        }
    }

    /// G1: after SIGTERM there is an ask, or the row is inactive already and a drain's ask made it so.
    fn check_asked(&self) {
        let gone = self.core.pending().is_empty() && self.exited.is_none();
        if gone && self.hold.is_some() {
            panic!("SIGTERM without an ask while a hold keeps the row active: {:?}", self.core);
        }
    }

    /// G4.
    fn check_the_deadline(&self) {
        if let Some(deadline) = self.core.deadline().filter(|_| self.terminated && self.exited.is_none()) {
            assert!(self.at < deadline.0, "past the deadline: {:?}", self.core);
        }
    }

    /// G6: nothing of ours can change the row after it is settled.
    fn check_settled(&self) {
        if self.amnesia {
            return;
        }
        assert_eq!((self.not_applied, self.open.len()), (0, 0), "settled too soon: {:?}", self.core);
    }

    /// A mark is dropped only when the row was read active with no attempt open.
    fn check_marks_may_go(&self) {
        if self.amnesia {
            return;
        }
        assert_eq!((self.not_applied, self.open.len()), (0, 0), "marks dropped too soon: {:?}", self.core);
    }

    /// G2, G3: with everything quiet the row is soon right, and stays so.
    fn check_it_converges(&mut self) {
        if self.exited.is_some() || self.terminated {
            self.wait(Duration::from_secs(60));
            assert!(self.exited.is_some(), "{:?}", self.core);
            self.kill();
        }
        self.mood = Mood::Well;
        self.disk_works = true;
        let (soon, while_) = match self.freshness {
            // A drain, an attempt that may still be applied, a read's period.
            Freshness::Fresh => (40 + 95 + 65, 120),
            Freshness::Within30s => (40 + 95 + 31 + 330, 700),
        };
        self.wait(Duration::from_secs(soon));
        let right = match self.fact {
            Fact::Serves => true,
            Fact::Down if self.served => false,
            Fact::Down | Fact::Unclear => return,
        };
        assert_eq!(self.is_active(), right, "wrong at last: {:?}\n{:?}", self.core, self.row);
        assert!(self.asks.is_empty(), "not settled at last: {:?}", self.core);
        let changes = self.row.len();
        self.wait(Duration::from_secs(while_));
        assert_eq!(self.row.len(), changes, "it doesn't rest: {:?}\n{:?}", self.core, self.row);
        if right {
            let caused = |mark: &&Record| matches!(mark.what, What::SignOff { .. });
            assert_eq!(self.marks.iter().find(caused), None, "a mark that nothing needs any more");
        }
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
        1 => Just(Act::ManagerLost),
        1 => Just(Act::HoldLost),
        1 => any::<bool>().prop_map(Act::Disk),
        1 => Just(Act::DropByHand),
        1 => Just(Act::Kill),
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
        let mut world = World::new(freshness, dice);
        for act in acts {
            world.take(act);
        }
        world.check_it_converges();
    }
}
