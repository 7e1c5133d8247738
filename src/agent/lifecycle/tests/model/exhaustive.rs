//! All short lives: from each of some situations, every order of so many steps, explored by stateright. A step is one
//! act of the world around the agent, or time going on; what an attempt, a read and the jitter come to is set by an act,
//! not drawn. After each step the guarantees are checked, and each state is left alone, on a copy, to see whether it
//! converges. The bound is the number of steps: two in every test run, `SIGNOFF_MODEL` sets another.

use std::{
    env,
    hash::{DefaultHasher, Hash, Hasher},
};

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::*;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Act(Act),
    /// How the manager is from now on, what becomes of attempts, and whether all takes as long, is as old, and is tried
    /// again as late as it may be.
    Manager(Mood, Fate, bool),
}

/// What can happen, in any order.
const STEPS: &[Step] = &[
    Step::Act(Act::Next),
    Step::Act(Act::Wait(700)),
    Step::Act(Act::Wait(7_000)),
    Step::Act(Act::Wait(61_000)),
    SERVES,
    DOWN,
    Step::Act(Act::Sees(Fact::Unclear)),
    PRE_STOP,
    TERMINATE,
    Step::Act(Act::RowBecomes(true)),
    Step::Act(Act::RowBecomes(false)),
    DELETED,
    Step::Act(Act::Foreign),
    Step::Act(Act::Reconnects),
    Step::Act(Act::HoldLost),
    Step::Act(Act::Disk(true)),
    NO_DISK,
    Step::Act(Act::DropByHand),
    NAMES_ANOTHER,
    KILL,
    Step::Act(Act::KillAfter(1)),
    Step::Act(Act::KillAfter(2)),
    WELL,
    Step::Manager(Mood::Well, Fate::Acknowledged, true),
    AWAY,
    Step::Manager(Mood::Slow, Fate::Acknowledged, true),
    Step::Manager(Mood::Odd, Fate::Rejected, false),
    Step::Manager(Mood::Odd, Fate::Half, false),
    Step::Manager(Mood::Odd, Fate::Lost, true),
    Step::Manager(Mood::Odd, Fate::Late, false),
    LATE,
];

const WELL: Step = Step::Manager(Mood::Well, Fate::Acknowledged, false);
const AWAY: Step = Step::Manager(Mood::Away, Fate::Lost, false);
const LATE: Step = Step::Manager(Mood::Odd, Fate::Late, true);
const SERVES: Step = Step::Act(Act::Sees(Fact::Serves));
const DOWN: Step = Step::Act(Act::Sees(Fact::Down));
const PRE_STOP: Step = Step::Act(Act::PreStop(0));
const TERMINATE: Step = Step::Act(Act::Terminate);
const DELETED: Step = Step::Act(Act::RowIsDeleted);
const NAMES_ANOTHER: Step = Step::Act(Act::NamesAnother);
const NO_DISK: Step = Step::Act(Act::Disk(false));
const KILL: Step = Step::Act(Act::Kill);
const SHORT: Step = Step::Act(Act::Wait(1_000));
const LONG: Step = Step::Act(Act::Wait(100_000));

/// Where the lives begin, after what happened so far.
const SITUATIONS: &[(&str, &[Step])] = &[
    ("new", &[]),
    ("serving", &[SERVES, LONG]),
    ("draining", &[SERVES, LONG, PRE_STOP, SHORT]),
    ("signed off", &[SERVES, LONG, DOWN, LONG]),
    ("held", &[SERVES, LONG, Step::Act(Act::RowBecomes(false)), LONG, LONG, LONG, LONG]),
    ("restarted in place", &[SERVES, LONG, DOWN, LONG, SERVES, SHORT]),
    ("in question", &[SERVES, LONG, NAMES_ANOTHER, DOWN, LONG, SERVES, SHORT]),
    ("queued", &[SERVES, LONG, AWAY, DOWN, LONG]),
    ("stopping", &[SERVES, LONG, TERMINATE, SHORT]),
    ("left behind", &[SERVES, LONG, AWAY, DOWN, SHORT, KILL, WELL]),
    ("deleted", &[SERVES, LONG, LONG, LONG, LONG, DELETED, SHORT]),
    ("in flight", &[SERVES, LONG, LATE, DOWN, Step::Act(Act::Wait(200))]),
    ("without a disk", &[SERVES, LONG, NO_DISK, DOWN, SHORT]),
    ("left behind, unread", &[SERVES, LONG, LATE, DOWN, Step::Act(Act::Wait(200)), NO_DISK, KILL, WELL]),
];

/// A world after some steps. Two are the same if they say the same of themselves and may go on for as long.
#[derive(Debug, Clone)]
struct State {
    /// Where the life began.
    situation: &'static str,
    world: World,
    steps: usize,
    print: u64,
    /// What is broken here, or once this world is left alone.
    broken: Option<(Guarantee, String)>,
}

impl State {
    fn of(situation: &'static str, world: World, steps: usize) -> Self {
        let mut hasher = DefaultHasher::new();
        format!("{world:?}").hash(&mut hasher);
        let mut alone = world.clone();
        alone.check_it_converges();
        Self { situation, world, steps, print: hasher.finish(), broken: alone.broken }
    }

    /// Whether this step is one.
    fn allows(&self, step: Step) -> bool {
        let world = &self.world;
        match step {
            Step::Act(Act::Sees(fact)) => fact != world.fact,
            Step::Act(Act::RowBecomes(active)) => active != world.is_active() && !world.is_gone(),
            Step::Act(Act::RowIsDeleted) => !world.is_gone(),
            Step::Act(Act::HoldLost) => world.hold == Some(true),
            Step::Act(Act::Disk(works)) => works != world.disk_works,
            Step::Act(Act::DropByHand) => !world.asks.is_empty(),
            Step::Act(Act::Next) => world.next_at().is_some(),
            Step::Act(_) | Step::Manager(..) => true,
        }
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        (self.print, self.steps) == (other.print, other.steps)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.print, self.steps).hash(hasher);
    }
}

/// All lives of so many steps.
struct Lives {
    bound: usize,
    freshness: Freshness,
    sabotage: Option<Sabotage>,
}

impl Model for Lives {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let dice = Dice::Set { fate: Fate::Acknowledged, slow: false };
        let begin = |(situation, before): &(&'static str, &[Step])| {
            let mut world = World::new(self.freshness, dice, self.sabotage);
            before.iter().for_each(|step| step.taken_by(&mut world));
            State::of(situation, world, 0)
        };
        SITUATIONS.iter().map(begin).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        if state.steps < self.bound && state.broken.is_none() {
            actions.extend(STEPS.iter().filter(|step| state.allows(**step)));
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut world = state.world.clone();
        step.taken_by(&mut world);
        Some(State::of(state.situation, world, state.steps + 1))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn holds(state: &State, guarantee: Guarantee) -> bool {
            state.broken.as_ref().is_none_or(|(broken, _)| *broken != guarantee)
        }
        vec![
            Property::always("G1: nothing asked is lost", |_, state| holds(state, G1)),
            Property::always("G2: no live scheduler is left inactive", |_, state| holds(state, G2)),
            Property::always("G3: it converges", |_, state| holds(state, G3)),
            Property::always("G4: one deadline", |_, state| holds(state, G4)),
            Property::always("G6: repetition is harmless", |_, state| holds(state, G6)),
        ]
    }
}

impl Step {
    fn taken_by(self, world: &mut World) {
        match self {
            Step::Act(act) => world.take(act),
            Step::Manager(mood, fate, slow) => {
                world.dice = Dice::Set { fate, slow };
                world.take(Act::Manager(mood));
            }
        }
    }
}

/// Explores all lives until one is found that breaks a guarantee of `sought`; answers how many states there were, and what
/// breaks with the steps that lead to it.
fn explore(lives: Lives, sought: HasDiscoveries) -> (usize, Vec<(&'static str, String)>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = lives.checker().threads(threads).finish_when(sought).spawn_dfs().join();
    let told = checker.discoveries().into_iter().map(|(name, path)| {
        let (last, steps) = (path.last_state().clone(), path.into_actions());
        (name, format!("{steps:#?} from {:?}\n{:?}", last.situation, last.broken))
    });
    (checker.unique_state_count(), told.collect())
}

fn bound() -> usize {
    match env::var("SIGNOFF_MODEL") {
        Ok(steps) => steps.parse().expect("SIGNOFF_MODEL is a number of steps"),
        Err(_) => 2,
    }
}

fn no_short_life_breaks_a_guarantee(freshness: Freshness) {
    let bound = bound();
    let (states, broken) = explore(Lives { bound, freshness, sabotage: None }, HasDiscoveries::Any);
    println!("{freshness:?}: {states} states within {bound} steps of {} situations", SITUATIONS.len());
    for (guarantee, how) in &broken {
        eprintln!("{guarantee} is broken by {how}");
    }
    assert!(broken.is_empty());
    assert!(states > SITUATIONS.len() * STEPS.len() / 2, "only {states} states");
}

#[test]
fn no_short_life_breaks_a_guarantee_over_rest() {
    no_short_life_breaks_a_guarantee(Freshness::Fresh);
}

#[test]
fn no_short_life_breaks_a_guarantee_over_grpc_alone() {
    no_short_life_breaks_a_guarantee(Freshness::Within30s);
}

#[test]
fn each_property_can_be_broken() {
    let sabotaged = |sabotage| Lives { bound: 1, freshness: Freshness::Fresh, sabotage: Some(sabotage) };
    let by = [
        Sabotage::ForgetfulDisk,
        Sabotage::NoHold,
        Sabotage::NoRead,
        Sabotage::NoExit,
        Sabotage::AppliedTwice,
    ];
    for (sabotage, property) in by.into_iter().zip(sabotaged(by[0]).properties()) {
        let (_, broken) = explore(sabotaged(sabotage), HasDiscoveries::AnyOf([property.name].into()));
        let named: Vec<_> = broken.iter().map(|(name, _)| *name).collect();
        assert!(named.contains(&property.name), "{sabotage:?} breaks {named:?}, not {}", property.name);
    }
}
