//! `signoff reconcile --every`, as it is shipped, beside the agents.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    dragonflies::manager_of,
    fleet::Fleet,
    history::{Event, Pid},
    network::Network,
    repair::HOME_NODES,
    world::{Pod, Shared},
};
use crate::{
    key::SchedulerKey,
    manager::{Failure, Freshness, State, Withdraw},
    net::Prober,
    repair::{
        guard::{Limits, MaxShare},
        pods::{ListPods, Pods, Watch, Zone},
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

/// The pods of the first fleet's Kubernetes cluster. The second fleet is another cluster's, with the same names.
struct OfTheCluster {
    zone: Zone,
    world: Shared,
    pid: Pid,
    /// Those whose deletion was forced, though they run on.
    forced: Mutex<BTreeSet<usize>>,
}

impl OfTheCluster {
    fn new(world: Shared, pid: Pid) -> Self {
        Self { zone: Zone::new("ns", "c"), world, pid, forced: Mutex::default() }
    }
}

#[async_trait]
impl ListPods for OfTheCluster {
    fn zone(&self) -> &Zone {
        &self.zone
    }
    async fn pods(&self) -> Result<Pods, Failure> {
        let world = self.world.lock();
        if world.dice.one_in(10) {
            return Err(Failure::new("the API server does not answer"));
        }
        let mut forced = self.forced.lock().unwrap();
        if world.dice.one_in(30) {
            forced.insert(world.dice.below(world.pods.len() as u64) as usize);
        }
        let is_listed = |n: &usize, pod: &Pod| {
            pod.exists && !pod.network() && manager_of(&pod.key) == 0 && !forced.contains(n)
        };
        let pods = world.pods.iter().enumerate().filter(|(n, pod)| is_listed(n, pod));
        let (mut ips, mut items) = (Vec::new(), Vec::new());
        for (n, pod) in pods {
            let ip = pod.key.ip.get();
            ips.push(ip);
            items.push(json!({
                "metadata": { "name": pod.name, "uid": n.to_string() },
                "spec": { "subdomain": "scheduler", "containers": [] },
                "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
                    "conditions": [{ "type": "Ready", "status": "True" }] },
            }));
        }
        world.history.tell(Event::Pods { pid: self.pid, ips });
        let list = json!({
            "kind": "PodList", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items,
        });
        Pods::of_json(self.zone.clone(), Instant::now(), list.to_string().as_bytes())
            .map_err(|why| Failure::new(why.to_string()))
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
    /// Reconciles for as long as it is polled, in the first fleet's network, if this world has that; where it `withdraws`, it has. It may
    /// list the `pods` of that fleet.
    pub(super) async fn reconcile(self, withdraws: bool, pods: bool) {
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
        reconcile(world.clone(), pid, network, (rest, withdraws, pods), without_times).await
    }
}

async fn reconcile(
    world: Shared,
    pid: Pid,
    network: Network,
    (rest, withdraws, pods): (bool, bool, bool),
    without_times: bool,
) {
    let source = Box::new(Table { network: network.clone(), rest });
    let manager: Arc<dyn Withdraw> = Arc::new(network.clone());
    let left = withdraws.then_some(LEFT_FOR);
    let wanted = Wanted { replaced: withdraws && rest, left: left.filter(|_| rest), without_times: false };
    let look = Options { scope: Scope::All, recheck_after: None, wanted, only: None };
    let limits = Limits { max_share: MaxShare::percent(100), without_times };
    let deadline = Duration::from_secs(240);
    let policy = Policy { look, pattern: None, limits, apply: true, deadline };
    let mut reconciler = Reconciler::new(source, Some(manager), Prober::new(network), policy);
    if pods {
        reconciler.policy.limits.max_share = MaxShare::default();
        reconciler.pods = Some(Watch::new(Box::new(OfTheCluster::new(world.clone(), pid))));
    }
    loop {
        if let Ok(report) = reconciler.run(&Quiet).await {
            let live = live(&report);
            world.lock().history.tell(Event::Reconciled { pid, live });
        }
        sleep(if withdraws { OFTEN } else { EVERY }).await;
    }
}
