//! Two Dragonflies in one world: each with its manager and its table, and pods of both on one node's spool.
//!
//! An agent knows only its own manager, whose cluster 1 may have the very key that the other manager's cluster 1 has: under
//! hostNetwork a pod's hostname and IP are the node's. The world keeps both managers' rows in one table, and tells them apart by
//! the cluster id: what its agents call cluster 1 is cluster 1001 to the world, where it is the second manager's.

use std::net::SocketAddr;

use super::{fleet::Fleet, repair::HOME_NODES, story::Story, world::PORT};
use crate::key::{ClusterId, SchedulerKey};

/// How many replicas each manager has.
pub(super) const REPLICAS: usize = 2;
/// How many managers there are.
pub(super) const MANAGERS: usize = 2;

const APART: u64 = 1000;

fn in_cluster(key: &SchedulerKey, cluster: u64) -> SchedulerKey {
    SchedulerKey { cluster_id: ClusterId::try_from(cluster).unwrap(), ..key.clone() }
}

/// A key as the world knows it, from how an agent of a manager's knows it.
pub(super) fn in_the_world(manager: usize, key: &SchedulerKey) -> SchedulerKey {
    in_cluster(key, key.cluster_id.get() + APART * manager as u64)
}

/// A key as its own agent knows it.
pub(super) fn at_its_manager(key: &SchedulerKey) -> SchedulerKey {
    in_cluster(key, key.cluster_id.get() % APART)
}

/// Whose row it is.
pub(super) fn manager_of(key: &SchedulerKey) -> usize {
    (key.cluster_id.get() / APART) as usize
}

/// Where the scheduler of a pod that began with this key serves: two on one node have one address, and ports of their own.
pub(super) fn port_of(key: &SchedulerKey) -> u16 {
    PORT + manager_of(key) as u16
}

pub(super) fn address_of(key: &SchedulerKey) -> SocketAddr {
    SocketAddr::new(key.ip.get(), port_of(key))
}

/// What `--manager` is for an agent of a manager's that had so many names before.
pub(super) fn endpoint(manager: usize, renamed: u32) -> String {
    format!("grpc://manager-{manager}-{renamed}.ns:65003")
}

/// Which manager an endpoint, or one of several, is one of.
pub(super) fn manager_at(endpoints: &[String]) -> Option<usize> {
    let its = |endpoint: &String| endpoint.split_once("://manager-")?.1.split('-').next()?.parse().ok();
    endpoints.iter().find_map(its)
}

/// A manager's replicas, among all.
pub(super) fn replicas_of(manager: usize) -> std::ops::Range<usize> {
    manager * REPLICAS..(manager + 1) * REPLICAS
}

impl Fleet {
    /// Two pods of the node's own name and address, one for each manager.
    fn add_twins(&self, node: usize, spool: &str) -> [usize; MANAGERS] {
        [0, 1].map(|manager| {
            let host = SchedulerKey::new(
                1.try_into().unwrap(),
                format!("node{node}.example").parse().unwrap(),
                format!("192.168.0.{}", node + 1).parse().unwrap(),
            );
            self.add_pod_of(in_the_world(manager, &host), node, spool.to_owned())
        })
    }

    /// The pod that comes after another: under hostNetwork it has its node's name and address still.
    pub(super) fn add_successor(&self, of: usize, node: usize, spool: String) -> usize {
        let (key, its_node) = {
            let world = self.world.lock();
            (world.pods[of].key.clone(), world.pods[of].node)
        };
        if key.hostname.first_label().contains('-') {
            return self.add_pod_at(manager_of(&key), key.hostname.as_str(), node, spool);
        }
        self.add_pod_of(key, its_node, spool)
    }
}

impl Story {
    /// A manager goes by another name from now on: agents that start are configured with that.
    pub(super) fn a_manager_is_renamed(&mut self) {
        let manager = self.below(MANAGERS as u64) as usize;
        self.fault(format!("manager {manager} gets another name"));
        self.fleet.world.lock().renamed[manager] += 1;
    }

    /// What lies unheld on a spool is as a release before wrote it, which didn't say whose it is.
    pub(super) fn a_release_before_was_here(&mut self) {
        let Some(pod) = self.free_pod() else { return };
        self.fault(format!("what lies unheld on the spool of pod {pod} doesn't say whose it is"));
        let world = self.fleet.world.lock();
        let (disk, spool) = (&world.disks[world.pods[pod].node], world.pods[pod].spool.clone());
        disk.forget_managers(spool.as_ref());
    }

    /// Another Dragonfly's pods come onto the nodes, and use the directories that the first one's use.
    pub(super) async fn begin_another(&mut self) {
        let node = self.below(HOME_NODES) as usize;
        let spool = self.spool(0);
        let mut pods = Vec::new();
        if self.below(2) == 0 {
            pods.extend(self.fleet.add_twins(node, &spool));
        }
        for n in 0..u64::from(pods.is_empty()) + self.below(2) {
            let node = self.below(HOME_NODES) as usize;
            pods.push(self.fleet.add_pod_at(1, &format!("other-{n}.scheduler.ns2.svc"), node, spool.clone()));
        }
        for pod in pods {
            self.fleet.start(pod);
            self.fleet.world.start_scheduler(pod);
        }
    }
}
