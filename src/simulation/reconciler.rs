//! `signoff reconcile --every`, as it is shipped, beside the agents.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::sleep;

use super::{
    fleet::Fleet,
    history::{Event, Pid},
    network::Network,
    repair::HOME_NODES,
    world::Shared,
};
use crate::{
    key::SchedulerKey,
    manager::{Failure, Freshness, State, Withdraw},
    net::Prober,
    repair::{
        guard::{Limits, MaxShare},
        reconcile::{Policy, Reconciler, Report},
        sighting::Sighting,
        sources::{Names, Scope, Source},
        survey::{Options, Progress},
        withdraw::Wanted,
    },
};

/// Rows that are inactive for longer are withdrawn: shorter than a scheduler may be cut off here.
const LEFT_FOR: Duration = Duration::from_secs(60);
/// Between two runs.
const EVERY: Duration = Duration::from_secs(60);
/// The same, where rows are withdrawn.
const OFTEN: Duration = Duration::from_secs(5);

/// The manager's table, over REST where the world has it, else over gRPC.
struct Table {
    network: Network,
    rest: bool,
}

impl Table {
    async fn rows(&self) -> Result<Vec<Sighting>, Failure> {
        let (rows, freshness) = self.network.rows(None).await?;
        if self.rest && freshness != Freshness::Fresh {
            return Err(Failure::new("REST does not answer"));
        }
        Ok(rows.iter().map(Sighting::from).collect())
    }
}

#[async_trait]
impl Source for Table {
    fn name(&self) -> String {
        "the world".to_owned()
    }
    fn names(&self) -> Names {
        Names::Exact
    }
    fn fresh(&self) -> bool {
        self.rest
    }
    fn shows_inactive(&self) -> bool {
        self.rest
    }
    async fn look(&self, _: &Scope, each: &mut (dyn FnMut(Sighting) + Send)) -> Result<(), Failure> {
        self.rows().await?.into_iter().for_each(each);
        Ok(())
    }
    async fn again(&self, row: &Sighting) -> Result<Option<Sighting>, Failure> {
        Ok(self.rows().await?.into_iter().find(|found| found.id == row.id))
    }
}

struct Quiet;

impl Progress for Quiet {
    fn read(&self, _: u8, _: usize) {}
    fn waiting(&self, _: Duration) {}
    fn probed(&self, _: usize, _: usize) {}
    fn written(&self, _: usize, _: usize) {}
}

/// Those that a run saw live, by active rows.
fn live(report: &Report) -> Vec<SchedulerKey> {
    let rows = report.survey.rows.iter().zip(&report.judged);
    let live = rows.filter(|(row, judged)| row.now.state == State::Active && judged.alive);
    live.filter_map(|(row, _)| row.now.key().ok()).collect()
}

impl Fleet {
    /// Reconciles for as long as it is polled, in the first fleet's network, if this world has that; where it `withdraws`, it has.
    pub(super) async fn reconcile(self, withdraws: bool) {
        let world = &self.world;
        let begins = {
            let world = world.lock();
            let begins = world.dice.below(3) == 0 || withdraws;
            begins.then(|| (world.dice.below(HOME_NODES) as usize, world.rest, world.dice.one_in(2)))
        };
        let Some((node, rest, without_times)) = begins else { return std::future::pending().await };
        // Nobody is at its address.
        let pod = self.add_pod("reconcile", node, "/none".to_owned());
        let pid = self.next_pid();
        {
            let mut world = world.lock();
            world.pods[pod].exists = false;
            world.history.tell(Event::Reconciles { pid });
        }
        let network = Network::new(world.clone(), pid, pod, 0, self.lie());
        reconcile(world.clone(), pid, network, (rest, withdraws), without_times).await
    }
}

async fn reconcile(
    world: Shared,
    pid: Pid,
    network: Network,
    (rest, withdraws): (bool, bool),
    without_times: bool,
) {
    let source = Box::new(Table { network: network.clone(), rest });
    let manager: Arc<dyn Withdraw> = Arc::new(network.clone());
    let left = withdraws.then_some(LEFT_FOR);
    let wanted = Wanted { replaced: withdraws && rest, left: left.filter(|_| rest) };
    let look = Options { scope: Scope::All, recheck_after: None, wanted, only: None };
    let limits = Limits { max_share: MaxShare::percent(100), without_times };
    let deadline = Duration::from_secs(240);
    let policy = Policy { look, pattern: None, limits, apply: true, deadline };
    let mut reconciler = Reconciler::new(source, Some(manager), Prober::new(network), policy);
    loop {
        if let Ok(report) = reconciler.run(&Quiet).await {
            let live = live(&report);
            world.lock().history.tell(Event::Reconciled { pid, live });
        }
        sleep(if withdraws { OFTEN } else { EVERY }).await;
    }
}
