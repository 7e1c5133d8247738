//! What befalls the world: faults drawn from a seed, then quiet, then a last look.

use std::{collections::BTreeSet, time::Duration};

use tokio::{task::JoinSet, time::sleep};

use super::{
    disk::Health,
    dragonflies::{MANAGERS, REPLICAS, manager_of},
    fleet::{Fleet, GRACE},
    history::{Event, HAND},
    repair::{HOME_NODES, TWINS_NODE},
    world::{Fact, Link, Mood, Pace},
};
use crate::{
    agent::clock::set::set_wall,
    key::SchedulerKey,
    manager::RowState,
    spool::{
        Managers,
        record::{RecordId, What},
    },
};

/// Lets a pod alone while something that takes time happens to it.
pub(super) struct Story {
    pub(super) fleet: Fleet,
    busy: JoinSet<usize>,
    taken: Vec<usize>,
    pub(super) nodes: usize,
    shared: bool,
    /// Another Dragonfly's pods are there.
    another: bool,
    /// Somebody deletes rows.
    rows_vanish: bool,
    /// `reconcile` takes rows out of the table: pods come and go, and fleets are cut off, more often.
    withdraws: bool,
}

const WALL: u64 = 1_790_000_000_000;

impl Story {
    pub(super) fn new(fleet: Fleet, rows_vanish: bool, withdraws: bool) -> Self {
        let (nodes, shared, another) = {
            let world = fleet.world.lock();
            let another = world.dice.one_in(3);
            (world.disks.len(), another || world.dice.one_in(2), another)
        };
        set_wall(Some(WALL));
        Self {
            fleet,
            busy: JoinSet::new(),
            taken: Vec::new(),
            nodes,
            shared,
            another,
            rows_vanish,
            withdraws,
        }
    }

    pub(super) fn spool(&self, pod: usize) -> String {
        // A directory of the node's that all its pods use, or the pod's own.
        if self.shared { "/node/spool".to_owned() } else { format!("/pods/{pod}/spool") }
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.fleet.world.lock().dice.below(bound)
    }

    fn millis(&self, from: u64, to: u64) -> Duration {
        self.fleet.world.lock().dice.millis(from, to)
    }

    pub(super) fn fault(&self, what: String) {
        self.fleet.world.lock().history.tell(Event::Fault(what));
    }

    /// Some pods begin, each with an agent and a scheduler.
    pub(super) async fn begin(&mut self) {
        if self.another {
            self.begin_another().await;
        }
        let fleet = 1 + self.below(3);
        for n in 0..fleet {
            let node = self.below(HOME_NODES) as usize;
            let pod = self.fleet.world.lock().pods.len();
            let pod = self.fleet.add_pod(&format!("scheduler-{n}.scheduler.ns.svc.c"), node, self.spool(pod));
            self.fleet.start(pod);
            self.fleet.world.start_scheduler(pod);
        }
        self.twins_begin(fleet).await;
        sleep(self.millis(0, 90_000)).await;
    }

    /// So many faults, one after the other.
    pub(super) async fn faults(&mut self, count: u64) {
        for _ in 0..count {
            self.fault_now();
            // Many at once, or with time between.
            let gap = match self.below(4) {
                0 => self.millis(0, 20),
                1 => self.millis(0, 2_000),
                2 => self.millis(0, 15_000),
                _ => self.millis(0, 90_000),
            };
            sleep(gap).await;
            self.tidy();
        }
    }

    fn tidy(&mut self) {
        while let Some(Ok(pod)) = self.busy.try_join_next() {
            self.taken.retain(|taken| *taken != pod);
        }
    }

    /// A pod that is there and to which nothing else happens.
    pub(super) fn free_pod(&self) -> Option<usize> {
        let world = self.fleet.world.lock();
        let free: Vec<usize> = (0..world.pods.len())
            .filter(|pod| world.pods[*pod].exists && !self.taken.contains(pod))
            .collect();
        (!free.is_empty()).then(|| world.dice.of(&free))
    }

    fn take(&mut self, pod: usize, what: impl Future<Output = ()> + Send + 'static) {
        self.taken.push(pod);
        self.busy.spawn(async move {
            what.await;
            pod
        });
    }

    fn fault_now(&mut self) {
        let what = self.below(match (self.rows_vanish, self.withdraws) {
            (true, _) => 30,
            (false, true) => 34,
            (false, false) => 26,
        });
        match what {
            0 | 1 => self.scheduler_restarts(),
            2 => self.scheduler_hangs(),
            3 => self.pre_stop(),
            4 | 5 => self.agent_is_killed(),
            6 => self.agent_is_told_to_stop(),
            7..=9 => self.pod_is_deleted(),
            10 => self.power_is_lost(),
            11 | 12 => self.replicas_die(),
            13 | 14 => {
                let mood = self.fleet.world.lock().dice.of(&[
                    Mood::Well,
                    Mood::Slow,
                    Mood::Odd,
                    Mood::NoDatabase,
                    Mood::Lossy,
                    Mood::Proxied,
                ]);
                self.fault(format!("the managers are {mood:?}"));
                self.fleet.world.lock().mood = mood;
            }
            15 => self.link_is_cut(),
            16 | 17 => self.disk_is_ill(),
            18 => {
                let jump = self.below(7_200_000);
                let wall = if self.below(2) == 0 { WALL + jump } else { WALL - jump };
                self.fault(format!("the wall clock says {wall}"));
                set_wall(Some(wall));
            }
            19 => {
                let key = {
                    let world = self.fleet.world.lock();
                    let keys = world.keys();
                    if keys.is_empty() {
                        return;
                    }
                    keys[world.dice.below(keys.len() as u64) as usize].clone()
                };
                let active = self.below(2) == 0;
                self.fleet.world.apply(&key, active, "others");
            }
            20 => self.an_ask_is_dropped(),
            21 => self.connections_flap(),
            22 => self.a_volume_is_restored(),
            23 if self.another => self.a_manager_is_renamed(),
            24 => self.a_release_before_was_here(),
            26..=29 if self.withdraws => self.a_fleet_is_cut_off(),
            26.. if self.withdraws => self.pod_is_deleted(),
            26.. => {
                let mut world = self.fleet.world.lock();
                let keys = world.keys();
                if !keys.is_empty() {
                    let key = keys[world.dice.below(keys.len() as u64) as usize].clone();
                    world.delete(&key);
                }
            }
            _ => {
                let mut world = self.fleet.world.lock();
                world.rest_works = world.rest && world.dice.one_in(2);
                let works = world.rest_works;
                world.history.tell(Event::Fault(format!("REST works: {works}")));
            }
        }
    }

    /// A second fleet with the first one's names, that neither reaches.
    async fn twins_begin(&mut self, fleet: u64) {
        if self.below(3) != 0 {
            return;
        }
        sleep(self.millis(0, 30_000)).await;
        for n in 0..fleet {
            let pod = self.fleet.world.lock().pods.len();
            let hostname = format!("scheduler-{n}.scheduler.ns.svc.c");
            let pod = self.fleet.add_pod(&hostname, TWINS_NODE, self.spool(pod));
            self.fleet.start(pod);
            self.fleet.world.start_scheduler(pod);
        }
    }

    /// Where a pod's successor comes to: in the same network.
    fn node_for_the_next_of(&self, pod: usize) -> usize {
        let node = self.below(HOME_NODES) as usize;
        if self.fleet.world.lock().pods[pod].network() { TWINS_NODE } else { node }
    }

    fn scheduler_restarts(&mut self) {
        let Some(pod) = self.free_pod() else { return };
        let (fleet, down) = (self.fleet.clone(), self.millis(5, 20_000));
        self.take(pod, async move {
            fleet.world.stop_scheduler(pod, true);
            sleep(down).await;
            fleet.world.start_scheduler(pod);
        });
    }

    fn scheduler_hangs(&mut self) {
        let Some(pod) = self.free_pod() else { return };
        let (fleet, hung) = (self.fleet.clone(), self.millis(5, 40_000));
        self.take(pod, async move {
            fleet.world.hang_scheduler(pod, true);
            sleep(hung).await;
            fleet.world.hang_scheduler(pod, false);
        });
    }

    fn pre_stop(&mut self) {
        let Some(pod) = self.free_pod() else { return };
        drop(self.fleet.pre_stop(pod, (self.below(2) == 0).then_some(Duration::from_secs(5))));
    }

    fn agent_is_killed(&mut self) {
        let Some(pod) = self.free_pod() else { return };
        let (fleet, down) = (self.fleet.clone(), self.millis(10, 10_000));
        if self.below(2) == 0
            && let Some(pid) = fleet.agent_of(pod)
        {
            // In the midst of what it does to the disk.
            let world = fleet.world.lock();
            world.disks[world.pods[pod].node].kill_at_call(pid, 1 + world.dice.below(40));
        } else {
            fleet.kill_agent(pod);
        }
        self.take(pod, async move {
            sleep(down).await;
            fleet.start(pod);
        });
    }

    fn agent_is_told_to_stop(&mut self) {
        let Some(pod) = self.free_pod() else { return };
        let (fleet, again) = (self.fleet.clone(), self.millis(10, 5_000));
        self.take(pod, async move {
            fleet.terminate(pod);
            sleep(GRACE + Duration::from_secs(1)).await;
            fleet.kill_agent(pod);
            sleep(again).await;
            fleet.start(pod);
        });
    }

    fn pod_is_deleted(&mut self) {
        let Some(pod) = self.free_pod() else { return };
        self.is_deleted(pod);
    }

    /// All pods of one network are cut off, and those of the other, if there is one, are rolled meanwhile.
    fn a_fleet_is_cut_off(&mut self) {
        let twins = self.below(2) == 0;
        let (cut, rolled): (Vec<usize>, Vec<usize>) = {
            let world = self.fleet.world.lock();
            let there = (0..world.pods.len()).filter(|pod| world.pods[*pod].exists);
            there.partition(|pod| world.pods[*pod].network() == twins)
        };
        let (world, time) = (self.fleet.world.clone(), self.millis(1_000, 150_000));
        self.fault(format!("the pods {cut:?} are cut off"));
        self.take(usize::MAX, async move {
            cut.iter().for_each(|pod| world.set_link(*pod, Link::Silent));
            sleep(time).await;
            cut.iter().for_each(|pod| world.set_link(*pod, Link::Up));
        });
        if self.below(2) == 0 {
            for pod in rolled {
                if !self.taken.contains(&pod) {
                    self.is_deleted(pod);
                }
            }
        }
    }

    fn is_deleted(&mut self, pod: usize) {
        let hook = (self.below(2) == 0).then(|| (self.below(2) == 0).then_some(Duration::from_secs(5)));
        let (native, drains) = (self.below(2) == 0, self.millis(0, 4_000));
        let (fleet, gone) = (self.fleet.clone(), self.millis(500, 30_000));
        let comes_back = self.below(6) != 0;
        let node = self.node_for_the_next_of(pod);
        let next = self.fleet.world.lock().pods.len();
        // Its number is drawn when it is made: others may be made before.
        let spool = self.shared.then(|| self.spool(next));
        self.take(pod, async move {
            fleet.world.lock().history.tell(Event::Fault(format!("pod {pod} is deleted")));
            let begun = tokio::time::Instant::now();
            if let Some(wait) = hook {
                let answered = fleet.pre_stop(pod, wait);
                // Its end, or the grace's.
                let _ = tokio::time::timeout(GRACE, answered).await;
            }
            if !native {
                fleet.terminate(pod);
            }
            sleep(drains).await;
            fleet.world.stop_scheduler(pod, true);
            if native {
                fleet.terminate(pod);
            }
            let left = (begun + GRACE + Duration::from_secs(2))
                .saturating_duration_since(tokio::time::Instant::now());
            sleep(left.max(Duration::from_secs(2))).await;
            fleet.kill_agent(pod);
            fleet.world.lock().pods[pod].exists = false;
            if comes_back {
                sleep(gone).await;
                let n = fleet.world.lock().pods.len();
                let spool = spool.unwrap_or_else(|| format!("/pods/{n}/spool"));
                let new = fleet.add_successor(pod, node, spool);
                fleet.start(new);
                fleet.world.start_scheduler(new);
            }
        });
    }

    fn power_is_lost(&mut self) {
        let node = self.below(self.nodes as u64) as usize;
        let pods: Vec<usize> = {
            let world = self.fleet.world.lock();
            let here = |pod: &usize| world.pods[*pod].node == node && world.pods[*pod].exists;
            (0..world.pods.len()).filter(here).collect()
        };
        if pods.iter().any(|pod| self.taken.contains(pod)) {
            return;
        }
        self.fault(format!("node {node} loses its power"));
        let off = self.millis(5_000, 60_000);
        for pod in &pods {
            self.fleet.kill_agent(*pod);
            self.fleet.world.stop_scheduler(*pod, false);
            self.fleet.world.lock().pods[*pod].exists = false;
        }
        self.fleet.world.lock().disks[node].lose_power();
        for pod in pods {
            let (fleet, moved) = (self.fleet.clone(), self.below(2) == 0);
            self.take(pod, async move {
                sleep(off).await;
                let pod = if moved {
                    // Its sandbox is a new one; its volumes are the same.
                    let spool = fleet.world.lock().pods[pod].spool.clone();
                    fleet.add_successor(pod, node, spool)
                } else {
                    fleet.world.lock().pods[pod].exists = true;
                    pod
                };
                fleet.start(pod);
                fleet.world.start_scheduler(pod);
            });
        }
    }

    fn replicas_die(&mut self) {
        let which = self.below(3) as usize;
        let manager = if self.another { self.below(2) as usize } else { 0 };
        let (world, down) = (self.fleet.world.clone(), self.millis(50, 100_000));
        // No pod's.
        self.take(usize::MAX, async move {
            let dying = if which == REPLICAS { vec![0, 1] } else { vec![which] };
            let dying: Vec<usize> = dying.into_iter().map(|replica| manager * REPLICAS + replica).collect();
            for replica in &dying {
                world.set_replica(*replica, false);
            }
            sleep(down).await;
            for replica in &dying {
                world.set_replica(*replica, true);
            }
        });
    }

    fn link_is_cut(&mut self) {
        let Some(pod) = self.free_pod() else { return };
        let (world, cut) = (self.fleet.world.clone(), self.millis(50, 100_000));
        let how = if self.below(2) == 0 { Link::Refused } else { Link::Silent };
        self.take(usize::MAX, async move {
            world.set_link(pod, how);
            sleep(cut).await;
            world.set_link(pod, Link::Up);
        });
    }

    fn connections_flap(&mut self) {
        let Some(pod) = self.free_pod() else { return };
        let (world, time) = (self.fleet.world.clone(), self.millis(1_000, 60_000));
        self.take(usize::MAX, async move { world.flap(pod, time).await });
    }

    fn disk_is_ill(&mut self) {
        let node = self.below(self.nodes as u64) as usize;
        let (world, ill) = (self.fleet.world.clone(), self.millis(50, 60_000));
        let (health, pace) = match self.below(6) {
            0 => (Health::Errors(1), Pace::Well),
            1 => (Health::Errors(4), Pace::Well),
            2 => (Health::Full, Pace::Well),
            3 => (Health::ReadOnly, Pace::Well),
            4 => (Health::Well, Pace::Slow),
            _ => (Health::Well, Pace::Hangs),
        };
        self.take(usize::MAX, async move {
            let set = |health, pace, works| {
                let mut world = world.lock();
                world.history.tell(Event::Fault(format!("the disk of node {node} is {health:?}, {pace:?}")));
                world.history.tell(Event::Disk { node, works });
                world.disks[node].set(health);
                world.paces[node].tell(pace);
            };
            set(health, pace, false);
            sleep(ill).await;
            set(Health::Well, Pace::Well, true);
        });
    }

    /// Each file of a spool is replaced by a copy of itself, under the same name.
    fn a_volume_is_restored(&mut self) {
        let Some(pod) = self.free_pod() else { return };
        let stale = self.below(2) == 0;
        self.fault(format!(
            "the spool of pod {pod} is restored{}",
            if stale { ", its files stale" } else { "" }
        ));
        let world = self.fleet.world.lock();
        let (disk, spool) = (&world.disks[world.pods[pod].node], world.pods[pod].spool.clone());
        disk.replace_by_copies(spool.as_ref(), stale);
    }

    fn an_ask_is_dropped(&mut self) {
        let Some(pod) = self.free_pod() else { return };
        let world = self.fleet.world.lock();
        let (disk, spool) = (&world.disks[world.pods[pod].node], world.pods[pod].spool.clone());
        let asks = disk.records(spool.as_ref());
        if let Some((name, _)) = asks.iter().find(|(name, _)| name.ends_with(".ask.json")) {
            disk.drop_by_hand(spool.as_ref(), name);
        }
    }

    /// No fault any more; each scheduler serves or is down, beside a living agent.
    pub(super) async fn quiet(&mut self) {
        while let Some(pod) = self.busy.join_next().await {
            drop(pod);
        }
        self.taken.clear();
        let pods = self.fleet.world.lock().pods.len();
        for node in 0..self.nodes {
            let mut world = self.fleet.world.lock();
            world.disks[node].set(Health::Well);
            world.disks[node].spare_all();
            world.paces[node].tell(Pace::Well);
        }
        for replica in 0..REPLICAS * MANAGERS {
            self.fleet.world.set_replica(replica, true);
        }
        {
            let mut world = self.fleet.world.lock();
            world.mood = Mood::Best;
            world.rest_works = world.rest;
        }
        for pod in 0..pods {
            self.fleet.world.set_link(pod, Link::Up);
            self.fleet.world.hang_scheduler(pod, false);
            self.fleet.start(pod);
        }
        for pod in 0..pods {
            let (exists, down) = {
                let world = self.fleet.world.lock();
                (world.pods[pod].exists, *world.pods[pod].fact.borrow() == Fact::Down)
            };
            if exists && !down && self.below(4) == 0 {
                self.fleet.world.stop_scheduler(pod, true);
            }
        }
        self.fleet.world.lock().history.tell(Event::Quiet);
        // What may still be applied, the watch over it, a drain, and the longest period of a read, twice.
        let rest = self.fleet.world.lock().rest;
        sleep(Duration::from_secs(if rest { 300 } else { 1_100 })).await;
    }

    /// Somebody else changes each row that an agent answers for.
    pub(super) async fn flip(&self) {
        let answered_for: Vec<_> = {
            let world = self.fleet.world.lock();
            let there = world.pods.iter().filter(|pod| pod.exists && pod.agent.is_some());
            there.filter_map(|pod| Some((pod.key.clone(), world.row(&pod.key)?))).collect()
        };
        for (key, active) in answered_for {
            sleep(self.millis(0, 10_000)).await;
            self.fleet.world.apply(&key, !active, "others, at last");
        }
        // The bounds of G3.
        let rest = self.fleet.world.lock().rest;
        sleep(Duration::from_secs(if rest { 65 } else { 360 })).await;
    }

    /// What is, and what should be.
    pub(super) fn last_look(&self) {
        let world = self.fleet.world.lock();
        let events = world.history.events();
        let seen_by = |agent| {
            events
                .iter()
                .any(|(_, event)| matches!(event, Event::Sight { pid, serves: Some(true) } if *pid == agent))
        };
        let was_read_by = |agent, of: &SchedulerKey| {
            events.iter().any(|(_, event)| {
                let Event::Read { pid, key, state: Some(state), .. } = event else { return false };
                *pid == agent && key == of && matches!(state, RowState::Active | RowState::Inactive)
            })
        };
        let started = |agent| {
            events.iter().find_map(|(at, event)| match event {
                Event::Started { pid, .. } if *pid == agent => Some(*at),
                _ => None,
            })
        };
        // Whoever drops a sign-off by hand wants none.
        let dropped_since = |of: &SchedulerKey, since| {
            let asked = |dropped: &RecordId| {
                events.iter().any(
                    |(_, event)| matches!(event, Event::Asked { id, key, .. } if id == dropped && key == of),
                )
            };
            events.iter().any(|(at, event)| {
                matches!(event, Event::AskGone { pid: HAND, id, .. } if *at >= since && asked(id))
            })
        };
        for pod in &world.pods {
            let active = world.row(&pod.key);
            if active.is_none() && !world.was_deleted(&pod.key) {
                continue;
            }
            let (is_gone, active) = (active.is_none(), active.unwrap_or_default());
            let tell = |wanted, why| {
                world.history.tell(Event::Final { key: pod.key.clone(), wanted, active, why });
            };
            if let (true, Some(agent)) = (pod.exists, pod.agent) {
                let records = world.disks[pod.node].records(pod.spool.as_ref());
                // One that names another manager, though it be another name of this one, is not its own.
                let its_own = Managers::of([pod.endpoint.clone()]);
                let marked = records.iter().any(|(_, record)| {
                    let own = record.managers.is_empty() || record.managers == its_own;
                    record.key == pod.key && record.what == What::Seen && own
                });
                // Nobody puts back what was never read.
                let told = records.iter().any(|(_, record)| {
                    record.key == pod.key && record.registered.is_some() && record.managers == its_own
                });
                let was_read = told || was_read_by(agent, &pod.key);
                match *pod.fact.borrow() {
                    Fact::Serves if is_gone && !was_read => {}
                    Fact::Serves if world.may_have_no_feature(pod, agent, &events) => {}
                    Fact::Serves => tell(true, "it serves"),
                    Fact::Down if seen_by(agent) || marked => tell(false, "it is down"),
                    Fact::Down | Fact::Hangs => {}
                }
                continue;
            }
            if world.pods.iter().any(|other| other.exists && other.key == pod.key) {
                continue;
            }
            // Gone for good: its successor, of the same name, was there before its row could come back.
            let successor = world.pods.iter().find(|other| {
                let same = other.exists && other.is_namesake(pod) && other.network() == pod.network();
                same && *other.fact.borrow() == Fact::Serves
            });
            let since = successor.and_then(|pod| started(pod.agent?));
            if let (Some(successor), Some(since), Some(changed)) =
                (successor, since, world.became_active(&pod.key))
                && changed < since
                && world.succession_is_owed(pod, successor, &events)
                && !dropped_since(&pod.key, changed)
            {
                tell(false, "its successor serves");
            }
        }
        // One that a process settled and died before it was on disk is not there, and would be replayed once more after a power
        // loss.
        let settled_by_the_dead = |ask: &RecordId| {
            let by = events.iter().rev().find_map(|(_, event)| match event {
                Event::AskGone { pid, id, .. } if id == ask => Some(*pid),
                _ => None,
            });
            by.is_some_and(|by| world.pods.iter().all(|pod| pod.agent != Some(by)))
        };
        let mut left = BTreeSet::new();
        for pod in world.pods.iter().filter(|pod| pod.exists && pod.agent.is_some()) {
            let asks = world.disks[pod.node].durable_asks(pod.spool.as_ref());
            // One that the manager never knew stays, until it does or somebody drops it.
            let asks = asks.into_iter().filter(|ask| world.row(&ask.key).is_some());
            // Another Dragonfly's waits for its own agent.
            let asks = asks.filter(|ask| manager_of(&ask.key) == manager_of(&pod.key));
            // One that names no manager, or another name of this one, stays until its row is shown beside a silent address.
            let its_own = Managers::of([pod.endpoint.clone()]);
            let asks = asks.filter(|ask| ask.managers == its_own);
            let asks = asks.filter(|ask| ask.key == pod.key || !world.is_in_the_dark(&ask.key));
            left.extend(asks.map(|ask| ask.id).filter(|ask| !settled_by_the_dead(ask)));
        }
        for id in left {
            world.history.tell(Event::Left { id });
        }
    }
}
