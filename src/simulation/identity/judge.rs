//! Judges the history of a scheduler that changes its key, as far as it shows without a look at the world.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::{
        fleet::GRACE,
        history::{Call, Event, Pid},
    },
    IS_READ_WITHIN,
};
use crate::{
    agent::lifecycle::{DRAIN_SLACK, Verdict},
    key::SchedulerKey,
    manager::LIST_AGE,
};

type Events = [(Duration, Event)];

/// An attempt begins so much after what it follows from at the latest.
const MOMENT: Duration = Duration::from_millis(500);
/// What SIGTERM leaves to do is begun so long before the end of the grace.
const RESERVE: Duration = Duration::from_millis(1_500);

pub(super) fn judge(events: &Events) -> Vec<String> {
    let mut wrong = what_is_served_under_is_signed_off_in_a_drain_alone(events);
    wrong.extend(each_ends_in_its_grace(events));
    wrong.extend(a_drain_that_is_confirmed_is_one(events));
    wrong.extend(events.iter().filter_map(|(_, event)| match event {
        Event::Panicked { pid } => Some(format!("{pid} panicked")),
        _ => None,
    }));
    wrong
}

/// What an agent knows of its end, and of its scheduler's.
#[derive(Default)]
struct Agent {
    terminated: Option<Duration>,
    /// Each beginning of an ending.
    endings: Vec<Duration>,
    was_down: bool,
}

/// G2: nothing is signed off while the scheduler has its own stream open there, but in a drain, and at the end of an agent's grace.
fn what_is_served_under_is_signed_off_in_a_drain_alone(events: &Events) -> Vec<String> {
    let mut agents: BTreeMap<Pid, Agent> = BTreeMap::new();
    // Until when a drain is on: an agent knows it from the one before.
    let mut drain: Option<Duration> = None;
    let mut wrong = Vec::new();
    for (at, event) in events {
        match event {
            Event::PreStop { pid, .. } => {
                drain = Some(*at + GRACE + DRAIN_SLACK + MOMENT);
                let agent = agents.entry(*pid).or_default();
                agent.endings.push(*at);
                agent.was_down = false;
            }
            Event::Terminated { pid } => {
                let agent = agents.entry(*pid).or_default();
                agent.terminated.get_or_insert(*at);
                agent.endings.push(*at);
            }
            Event::Sight { pid, serves: Some(false) } => {
                let agent = agents.entry(*pid).or_default();
                agent.endings.push(*at);
                agent.was_down = true;
            }
            Event::Sight { pid, serves: Some(true) } => {
                let agent = agents.entry(*pid).or_default();
                if std::mem::take(&mut agent.was_down) && agent.terminated.is_none() {
                    // A restart in place ends it.
                    drain = drain.map(|until| until.min(*at + MOMENT));
                }
            }
            Event::Began { pid, call, key, what: Call::SignOff { .. }, target, .. } if target.streams => {
                let agent = agents.entry(*pid).or_default();
                let first = agent.endings.iter().find(|began| **began + GRACE >= *at);
                let is_over = agent.terminated.is_some()
                    && first.is_some_and(|began| *at >= *began + GRACE.saturating_sub(RESERVE));
                if drain.is_none_or(|until| *at > until) && !is_over {
                    wrong.push(format!(
                        "at {at:?} {pid} begins to sign {key} off (call {call}), under which its scheduler serves"
                    ));
                }
            }
            _ => {}
        }
    }
    wrong
}

/// Which key an agent answers for.
pub(super) fn answers_for(events: &Events, agent: Pid) -> Option<SchedulerKey> {
    events.iter().rev().find_map(|(_, event)| match event {
        Event::AnswersFor { pid, key } if *pid == agent => Some(key.clone()),
        _ => None,
    })
}

/// Whether that agent asked for this key last.
pub(super) fn asked_for(events: &Events, agent: Pid, key: &SchedulerKey) -> bool {
    let by = events.iter().rev().find_map(|(_, event)| match event {
        Event::Asked { pid, key: of, .. } if of == key => Some(*pid),
        _ => None,
    });
    by == Some(agent)
}

/// G2, G5: a drain that is said to be confirmed leaves no row active under which the scheduler was long shown to serve, if its agent can
/// have read that name.
fn a_drain_that_is_confirmed_is_one(events: &Events) -> Vec<String> {
    let mut served: Option<(SchedulerKey, Duration)> = None;
    let mut active: BTreeMap<&SchedulerKey, bool> = BTreeMap::new();
    let mut hooks: BTreeMap<u64, Duration> = BTreeMap::new();
    let mut agents: BTreeMap<Pid, Duration> = BTreeMap::new();
    // When the scheduler started, and when its configuration changed after that.
    let (mut started, mut renamed) = (Duration::ZERO, None);
    let mut wrong = Vec::new();
    for (at, event) in events {
        match event {
            Event::Row { key, active: is, by } => {
                active.insert(key, *is);
                if *is && by == "scheduler 0" {
                    served = Some((key.clone(), *at));
                }
            }
            Event::Started { pid, .. } => drop(agents.insert(*pid, *at)),
            Event::Fault(what) if what.starts_with("the configuration of pod 0 ") => {
                renamed = renamed.or(Some(*at))
            }
            Event::Fault(what) if what.starts_with("scheduler 0 ") => {
                (served, started, renamed) = (None, *at, None);
            }
            Event::PreStop { hook, .. } => drop(hooks.insert(*hook, *at)),
            Event::Answered { pid, hook, result: Verdict::Confirmed, .. } => {
                let (Some((key, since)), Some(asked)) = (&served, hooks.get(hook)) else { continue };
                let read_from = started.max(agents.get(pid).copied().unwrap_or_default());
                let is_read = read_from + IS_READ_WITHIN <= renamed.unwrap_or(*asked).min(*asked);
                if is_read && *since + LIST_AGE <= *asked && active.get(key) == Some(&true) {
                    wrong.push(format!("at {at:?} {pid} answers that it drains, and {key} is active"));
                }
            }
            _ => {}
        }
    }
    wrong
}

/// G4: an agent that was told to stop is over by the end of its grace.
fn each_ends_in_its_grace(events: &Events) -> Vec<String> {
    let mut told: BTreeMap<Pid, Duration> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (at, event) in events {
        match event {
            Event::Terminated { pid } => drop(told.entry(*pid).or_insert(*at)),
            Event::Exited { pid, .. } | Event::Killed { pid }
                if told.remove(pid).is_some_and(|told| *at > told + GRACE) =>
            {
                wrong.push(format!("{pid} runs after its grace"));
            }
            _ => {}
        }
    }
    wrong
}
