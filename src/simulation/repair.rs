//! What repairing has to reckon with: the table's times, a second fleet of the same names, a service mesh.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    dice::Dice,
    dragonflies::manager_of,
    history::{Call, CallId, End, Event, Pid},
    world::{Fact, Pod, World},
};
use crate::{key::SchedulerKey, manager::RowState};

/// The nodes of the first fleet.
pub(super) const HOME_NODES: u64 = 2;
/// Where the second fleet's pods are. Its network is its own: neither fleet reaches the other.
pub(super) const TWINS_NODE: usize = 2;

/// Which times a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    /// None: gRPC.
    Nothing,
    /// None of a keep-alive: REST of a manager before v2.3.1.
    Writes,
    /// All of them.
    All,
}

/// What stands between a pod and the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mesh {
    None,
    /// It takes every connection, and closes the one that leads to nobody.
    Closes,
    /// It takes every connection, and answers 503 for nobody.
    Answers503,
    /// Only the pods have one that get the address of a pod that is gone: it ends TLS there.
    OfTheHeirs,
}

/// When a row was made, last written, and last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) created: Duration,
    pub(super) updated: Duration,
    pub(super) keep_alive: Duration,
}

/// The table's clock at the beginning of a run (Unix time in milliseconds). It is nobody else's.
const BEGINNING: i64 = 1_700_000_000_000;

impl Times {
    pub(super) fn made(now: Duration) -> Self {
        Self { created: now, updated: now, keep_alive: now }
    }

    pub(super) fn written(&mut self, now: Duration) {
        self.updated = now;
    }

    pub(super) fn heard(&mut self, now: Duration) {
        self.keep_alive = now;
        self.updated = now;
    }

    /// `created_at`, `updated_at` and `last_keep_alive_at`.
    pub(super) fn shown(&self, shows: Shows) -> [Option<String>; 3] {
        let text = |at: Duration| {
            let millis = i64::try_from(at.as_millis()).unwrap();
            Timestamp::from_millisecond(BEGINNING + millis).unwrap().to_string()
        };
        let [writes, all] = [shows != Shows::Nothing, shows == Shows::All];
        [
            writes.then(|| text(self.created)),
            writes.then(|| text(self.updated)),
            all.then(|| text(self.keep_alive)),
        ]
    }
}

impl Pod {
    /// Which fleet's network it is in.
    pub(super) fn network(&self) -> bool {
        self.node == TWINS_NODE
    }

    pub(super) fn is_namesake(&self, other: &Pod) -> bool {
        self.key.hostname == other.key.hostname && self.key.cluster_id == other.key.cluster_id
    }
}

impl World {
    /// What the manager shows, and what stands between the pods.
    pub(super) fn draw_surroundings(&mut self, dice: &Dice) {
        self.shows = if dice.one_in(4) { Shows::Writes } else { Shows::All };
        self.mesh = match dice.below(6) {
            0 => Mesh::Closes,
            1 => Mesh::Answers503,
            2 => Mesh::OfTheHeirs,
            _ => Mesh::None,
        };
    }

    /// Nothing tells the dead from the living in the Dragonfly of `key`: neither a probe, nor a keep-alive time beside one that moves.
    pub(super) fn is_in_the_dark(&self, key: &SchedulerKey) -> bool {
        let times = self.rest && self.shows == Shows::All;
        let witness = self.pods.iter().any(|pod| {
            pod.exists && manager_of(&pod.key) == manager_of(key) && *pod.fact.borrow() == Fact::Serves
        });
        self.mesh != Mesh::None && !(times && witness)
    }

    /// Whether the evidence is such that the row of `gone` has to be signed off by the agent of its successor.
    pub(super) fn succession_is_owed(
        &self,
        gone: &Pod,
        successor: &Pod,
        events: &[(Duration, Event)],
    ) -> bool {
        // Two fleets share that name: the first one that comes back ends it.
        let has_twins = self.pods.iter().any(|pod| pod.is_namesake(gone) && pod.network() != gone.network());
        let written_since = match (self.times(&gone.key), self.times(&successor.key)) {
            (Some(gone), Some(successor)) if self.rest => gone.updated >= successor.created,
            _ => false,
        };
        // Or it was there beside another of its name.
        let times = |pod: &&Pod| self.times(&pod.key).map(|times| (times.created, times.keep_alive));
        let beside = self
            .pods
            .iter()
            .filter(|pod| pod.is_namesake(gone) && pod.key != gone.key)
            .filter(|pod| pod.key != successor.key);
        let was_beside = times(&gone).is_some_and(|(made, heard)| {
            beside
                .filter_map(|pod| times(&pod))
                .any(|(other_made, other_heard)| other_made <= heard && made <= other_heard)
        });
        !has_twins
            && !was_beside
            && !self.is_in_the_dark(&gone.key)
            && !written_since
            && !was_given_up(gone, events)
    }
}

impl World {
    /// Whether an agent can't tell that another fleet's ended the row under its hold: over gRPC alone, where the row was never in a
    /// list that the agent saw, it may be one without the `schedule` feature, which is in none. Its hold was renewed once.
    pub(super) fn may_have_no_feature(&self, pod: &Pod, agent: Pid, events: &[(Duration, Event)]) -> bool {
        let of_the_row =
            || events.iter().filter(|(_, event)| matches!(event, Event::Row { key, .. } if *key == pod.key));
        let Some((_, Event::Row { active: false, by, .. })) = of_the_row().next_back() else { return false };
        let by_another = events.iter().any(|(_, event)| {
            matches!(event, Event::Began { pid, call, .. } if *pid != agent && *by == format!("call {call}"))
        });
        let holds = events.iter().filter(|(_, event)| {
            matches!(event, Event::Began { pid, what: Call::Hold, key, .. } if *pid == agent && *key == pod.key)
        });
        let was_listed = events.iter().any(|(_, event)| {
            let active = Some(RowState::Active);
            matches!(event, Event::Read { pid, key, state, .. } if *pid == agent && *key == pod.key && *state == active)
        });
        !self.rest && by_another && holds.count() > 1 && !was_listed
    }
}

/// Whether somebody's attempt at that row ended without an answer: it may have been the one.
fn was_given_up(gone: &Pod, events: &[(Duration, Event)]) -> bool {
    let begun = events.iter().filter_map(|(_, event)| match event {
        Event::Began { call, key, .. } if *key == gone.key => Some(*call),
        _ => None,
    });
    let answered = |begun: CallId| {
        events.iter().any(|(_, event)| {
            matches!(event, Event::Ended { call, end, .. } if *call == begun && *end != End::Unknown)
        })
    };
    begun.into_iter().any(|call| !answered(call))
}
