//! What this process itself saw of pods, over its lists: which of them had which IP, and that they went.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::{Name, Pods, Says, Zone};

/// A pod's IP is forgotten once it was gone for so long: its row was withdrawn, or will be by what holds without this.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// More pods' IPs than this are not kept: about 1 MB. What is forgotten is never said to have gone.
const MOST: usize = 4096;

/// What the lists of this process showed, one after another. In memory alone: a process that has just begun saw nothing.
#[derive(Debug, Default)]
pub struct Watched {
    zone: Option<Zone>,
    seen: BTreeMap<(Name, IpAddr), One>,
}

/// One pod's IP.
#[derive(Debug)]
struct One {
    uid: String,
    /// When the first list was asked for that shows it gone. `None` while it is there.
    went: Option<Instant>,
}

impl Watched {
    /// Takes a list in. Each is to be newer than those before it.
    pub fn saw(&mut self, pods: &Pods) {
        if self.zone.as_ref() != Some(&pods.zone) {
            *self = Self { zone: Some(pods.zone.clone()), seen: BTreeMap::new() };
        }
        for ((name, ip), one) in &mut self.seen {
            one.went = went(pods, name, *ip, &one.uid).then(|| one.went.unwrap_or(pods.taken));
        }
        self.seen.retain(|_, one| one.went.is_none_or(|at| pods.taken.duration_since(at) < KEPT));
        for pod in pods.pods.iter().filter(|pod| !pod.host_network) {
            let Some(name) = pod.full_name() else { continue };
            let had = pod.ips.iter().filter(|ip| matches!(pod.says(**ip), Says::Lives | Says::Unclear));
            for ip in had {
                self.seen.insert((name.clone(), *ip), One { uid: pod.uid.clone(), went: None });
            }
        }
        self.forget();
    }

    /// Whether a list showed that very IP on the pod with that name, and the last list shows that pod gone, or with another IP: by
    /// its UID, so that a pod that has its IP back, or has none for a moment, did not go. Nor did one that is `Failed` or `Succeeded`
    /// and still there. As with [`Says::Gone`], a pod whose deletion was forced may run on.
    pub fn saw_it_go(&self, hostname: &str, ip: IpAddr) -> bool {
        let name = self.zone.as_ref().and_then(|zone| zone.pod(hostname));
        let one = name.and_then(|name| self.seen.get(&(name, ip.to_canonical())));
        one.is_some_and(|one| one.went.is_some())
    }

    /// That IP is heard of. If its pod went before, it is another's by now, or the pod runs on: nothing was seen to go, then.
    pub fn hear_of(&mut self, hostname: &str, ip: IpAddr) {
        if self.saw_it_go(hostname, ip)
            && let Some(name) = self.zone.as_ref().and_then(|zone| zone.pod(hostname))
        {
            self.seen.remove(&(name, ip.to_canonical()));
        }
    }

    /// Keeps the number down: what went first is forgotten first, then what is there, which is seen again.
    fn forget(&mut self) {
        let Some(excess @ 1..) = self.seen.len().checked_sub(MOST) else { return };
        let mut order: Vec<_> = self.seen.iter().map(|(key, one)| (one.went, key.clone())).collect();
        order.sort_by_key(|(went, _)| (went.is_none(), *went));
        for (_, key) in order.into_iter().take(excess) {
            self.seen.remove(&key);
        }
    }
}

/// Whether the pod with this UID had the IP and hasn't any more, nor has any other of its name.
fn went(pods: &Pods, name: &Name, ip: IpAddr, uid: &str) -> bool {
    let mut there = pods.named(&name.host);
    there.all(|pod| {
        let is_elsewhere = !pod.ips.is_empty() && !pod.ips.contains(&ip);
        !pod.host_network && pod.says(ip) == Says::Gone && (pod.uid != uid || is_elsewhere)
    })
}
