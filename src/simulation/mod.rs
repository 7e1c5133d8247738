//! Deterministic simulation: agents as they are shipped, in a world that is made up, by one seed.
//!
//! The shell, the core, the disk's queue, the spool, replay and succession are the shipped ones, put together by the shipped
//! code. Around them time (tokio's, paused), the wall clock, chance, the disk under the spool, the manager with its two replicas,
//! the other pods and the schedulers are simulated. Nothing else runs on the thread of a run, so that a seed decides all of it: the
//! same seed gives the same history. A history is judged by [`judge`] against the guarantees.
//!
//! ```text
//! SIGNOFF_SEED=123 cargo test --lib simulation::tests::no_seed -- --nocapture     one seed, with its history
//! SIGNOFF_SEEDS=100000 cargo test --profile proof --lib simulation::tests::no_seed -- --nocapture
//! ```

mod dice;
mod disk;
mod dragonflies;
mod fleet;
mod history;
mod identity;
mod judge;
mod network;
mod reconciler;
mod repair;
mod story;
mod tests;
mod world;

use std::time::Duration;

use dice::Dice;
use disk::Disk;
use fleet::Fleet;
use history::{Event, History};
use judge::{Broken, judge};
use network::Lie;
use story::Story;
use world::Shared;

/// What is changed: mostly to show that the judges see it.
#[derive(Debug, Clone, Copy, Default)]
struct Sabotage {
    /// Somebody deletes rows, too: no sabotage, but what the agents have to undo.
    rows_vanish: bool,
    /// `reconcile` takes rows out of the table, too, and in each run there is one: no sabotage either.
    withdraws: bool,
    /// Such a reconcile lists the pods of the first fleet's Kubernetes cluster, too: no sabotage either.
    pods: bool,
    lie: Lie,
    /// fsync does nothing.
    fsync_lies: bool,
    /// SIGTERM comes late.
    deaf: bool,
}

/// One run, from its seed to its history.
fn run(seed: u64, sabotage: Sabotage) -> Vec<(Duration, Event)> {
    fastrand::seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let events = runtime.block_on(async {
        let (history, dice) = (History::new(), Dice::new(seed));
        let disks =
            (0..3).map(|_| Disk::new(history.clone(), dice.clone(), sabotage.fsync_lies)).collect::<Vec<_>>();
        let rest = dice.one_in(2) || sabotage.withdraws;
        let world = Shared::new(history.clone(), dice.clone(), rest, disks);
        world.lock().draw_surroundings(&dice);
        let fleet = Fleet::new(world, sabotage.lie, sabotage.deaf);
        let mut story = Story::new(fleet, sabotage.rows_vanish, sabotage.withdraws);
        story.begin().await;
        let reconciling = story.fleet.clone().reconcile(sabotage.withdraws, sabotage.pods);
        let goes_on = async {
            story.faults(1 + dice.below(14)).await;
            story.quiet().await;
            story.last_look();
            story.flip().await;
            story.last_look();
        };
        tokio::select! {
            biased;
            () = reconciling => {}
            () = goes_on => {}
        }
        history.events()
    });
    drop(runtime);
    crate::agent::clock::set::set_wall(None);
    events
}

/// What a seed breaks.
fn broken(seed: u64, sabotage: Sabotage) -> Vec<Broken> {
    judge(&run(seed, sabotage))
}
