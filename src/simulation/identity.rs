//! Schedulers whose configuration names another key from some moment on: in place, with a restart or without, beside an agent that is
//! killed, and a manager that is away. In the end each scheduler's row is active under the key that it registers, and no other row of
//! its own is.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    Sabotage,
    dice::Dice,
    disk::Disk,
    fleet::Fleet,
    history::{Event, History},
    world::{Fact, Mood, Shared},
};
use crate::{agent::clock::set::set_wall, key::SchedulerKey};

const WALL: u64 = 1_790_000_000_000;

/// One run. Answers its history, and what was wrong in the end.
fn run(seed: u64, sabotage: Sabotage) -> (Vec<(Duration, Event)>, Vec<String>) {
    fastrand::seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let told = runtime.block_on(async {
        let (history, dice) = (History::new(), Dice::new(seed));
        set_wall(Some(WALL));
        let disks = vec![Disk::new(history.clone(), dice.clone(), sabotage.fsync_lies)];
        let world = Shared::new(history.clone(), dice.clone(), dice.one_in(2), disks);
        // What a stream's late end does to a row is the other stories' matter.
        world.lock().mood = Mood::Best;
        let fleet = Fleet::new(world.clone(), sabotage.lie, sabotage.deaf);
        let pod = fleet.add_pod("scheduler-0.scheduler.ns.svc", 0, "/pods/0/spool".to_owned());
        fleet.start(pod);
        world.start_scheduler(pod);
        sleep(dice.millis(20_000, 90_000)).await;
        for _ in 0..1 + dice.below(5) {
            happens(&fleet, pod, &dice).await;
            sleep(dice.millis(0, 60_000)).await;
        }
        for replica in 0..2 {
            world.set_replica(replica, true);
        }
        fleet.start(pod);
        if *world.lock().pods[pod].fact.borrow() == Fact::Down && dice.one_in(2) {
            world.start_scheduler(pod);
        }
        history.tell(Event::Quiet);
        let rest = world.lock().rest;
        sleep(Duration::from_secs(if rest { 300 } else { 1_100 })).await;
        let wrong = look(&fleet, pod);
        (history.events(), wrong)
    });
    drop(runtime);
    set_wall(None);
    told
}

async fn happens(fleet: &Fleet, pod: usize, dice: &Dice) {
    let world = &fleet.world;
    match dice.below(6) {
        0 | 1 => name_another(fleet, pod),
        2 | 3 => {
            world.stop_scheduler(pod, true);
            if dice.one_in(2) {
                name_another(fleet, pod);
            }
            sleep(dice.millis(5, 20_000)).await;
            world.start_scheduler(pod);
            // What is named as it starts is what it registers. Who changes that twice before the manager could show it can't be told.
            sleep(Duration::from_secs(45)).await;
        }
        4 => {
            fleet.kill_agent(pod);
            sleep(dice.millis(10, 10_000)).await;
            fleet.start(pod);
        }
        _ => {
            for replica in 0..2 {
                world.set_replica(replica, false);
            }
            sleep(dice.millis(50, 60_000)).await;
            for replica in 0..2 {
                world.set_replica(replica, true);
            }
        }
    }
}

/// The configuration names another cluster, or another hostname.
fn name_another(fleet: &Fleet, pod: usize) {
    let mut world = fleet.world.lock();
    let (cluster, host) = (1 + world.dice.below(2), world.dice.below(2));
    let named = SchedulerKey::new(
        cluster.try_into().unwrap(),
        format!("scheduler-{host}.scheduler.ns.svc").parse().unwrap(),
        world.pods[pod].key.ip,
    );
    world.history.tell(Event::Fault(format!("the configuration of pod {pod} names {named}")));
    world.pods[pod].named = named;
}

fn look(fleet: &Fleet, pod: usize) -> Vec<String> {
    let world = fleet.world.lock();
    let (key, serves) = {
        let pod = &world.pods[pod];
        (pod.key.clone(), *pod.fact.borrow() == Fact::Serves)
    };
    let mut wrong = Vec::new();
    for row in world.keys() {
        let active = world.row(&row) == Some(true);
        let wanted = serves && row == key;
        if active != wanted {
            wrong.push(format!("{row} is active: {active}; the scheduler of {key} serves: {serves}"));
        }
    }
    wrong
}

fn search(seeds: u64, sabotage: Sabotage) -> Option<(u64, Vec<String>)> {
    (0..seeds).find_map(|seed| {
        let (events, mut wrong) = run(seed, sabotage);
        wrong.extend(events.iter().filter_map(|(_, event)| match event {
            Event::Panicked { pid } => Some(format!("{pid} panicked")),
            _ => None,
        }));
        (!wrong.is_empty()).then_some((seed, wrong))
    })
}

#[test]
fn g2_g3_whichever_key_a_scheduler_registers_its_row_is_active_and_no_other_row_of_its_own_is() {
    if let Some(seed) = std::env::var("SIGNOFF_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let (events, wrong) = run(seed, Sabotage::default());
        for (at, event) in &events {
            println!("{:>12.6} {event:?}", at.as_secs_f64());
        }
        assert_eq!(wrong, Vec::<String>::new(), "seed {seed}");
        return;
    }
    let seeds = std::env::var("SIGNOFF_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(200);
    let found = search(seeds, Sabotage::default());
    assert_eq!(found, None);
}
