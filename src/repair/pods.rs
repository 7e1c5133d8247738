//! Kubernetes' pods as evidence: whether the pod that a row names is there, and has the row's IP.
//!
//! [`Kubernetes`] lists the pods of its own namespace, [`Pods`] is one such list and says of a row what it shows, [`Watched`] keeps
//! what this process saw over its lists. The last two are pure. [`Watch`] is all three, for the runs of one process.
//!
//! **What it promises.** A list is whole or it is an error: a page that is missing, a pod without a name, or an answer that is no list
//! never makes a pod look gone. It is no older than the question, since it asks without a `resourceVersion`, which Kubernetes answers
//! with the most recent state (<https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list>).
//!
//! **What it doesn't.** That a pod is gone from the API is not that its process has ended. A forced deletion
//! (`--force --grace-period=0`), or the deletion of a node that is cut off, takes the pod out of the API at once, while its containers
//! may run on
//! (<https://kubernetes.io/docs/tasks/run-application/force-delete-stateful-set-pod/>). So [`Says::Gone`] is one kind of evidence,
//! and needs another one beside it.
//!
//! **Which rows.** Those of pods of one namespace of one cluster: see [`Zone`]. Of any other row nothing is said. Two Kubernetes
//! clusters that have one namespace, one cluster domain and one Dragonfly in common can't be told apart by this: neither may be
//! judged by the other's pods.

use std::{collections::HashMap, fmt, net::IpAddr};

use tokio::time::Instant;

mod api;
mod list;
mod watch;
mod watched;

#[cfg(test)]
mod tests;

pub use api::{InCluster, Kubernetes, Unable};
pub use list::NoList;
pub use watch::{ListPods, Told, Watch};
pub use watched::Watched;

/// What the pods say of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Says {
    /// A pod of that name has that IP, and has not ended. It may be starting, or terminating: it lives until it is gone.
    Lives,
    /// The same, but it is not ready: it lives, and is no witness against another row of its name.
    Starts,
    /// Such a pod is there, but nobody hears of its node, or its phase or its IP can't be told: evidence for nothing.
    Unclear,
    /// No pod of that name has that IP, or the one that has it has ended. One kind of evidence that the row is dead.
    Gone,
    /// The same, and this process saw that pod with that IP before, and saw it go: the row is one of this cluster's own.
    Went,
    /// The row is not one of this namespace's pods, or of one with its node's network, or nobody asked: nothing can be said.
    #[default]
    NotOurs,
}

impl Says {
    /// Whether it speaks against the row.
    pub fn is_gone(self) -> bool {
        matches!(self, Self::Gone | Self::Went)
    }

    /// Whether it speaks for the row.
    pub fn lives(self) -> bool {
        matches!(self, Self::Lives | Self::Starts)
    }
}

/// What the names of this cluster's pods in one namespace end with: `NAMESPACE.svc.DOMAIN`.
///
/// The kubelet gives a pod with a `subdomain` (each pod of a StatefulSet with a `serviceName`) the name
/// `POD.SUBDOMAIN.NAMESPACE.svc.DOMAIN` in its `/etc/hosts`, and that is what its scheduler registers with. Case and a dot at the end
/// don't matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    namespace: String,
    domain: String,
}

impl Zone {
    /// The zone of a namespace in a cluster of this domain (`cluster.local`).
    pub fn new(namespace: &str, domain: &str) -> Self {
        Self { namespace: plain(namespace), domain: plain(domain) }
    }

    /// The same, with the cluster's domain as the kubelet writes it into a pod's resolv.conf: of the search list's entry
    /// `NAMESPACE.svc.DOMAIN`. `None` where there is none.
    pub fn of_resolv_conf(namespace: &str, resolv_conf: &str) -> Option<Self> {
        // See resolv.conf(5): the last `search` or `domain` line counts.
        let lines = resolv_conf.lines().map(str::split_ascii_whitespace);
        let mut searched = lines.filter_map(|mut words| match words.next()? {
            "search" | "domain" => Some(words),
            _ => None,
        });
        let before = format!("{}.svc.", plain(namespace));
        let domain = searched.next_back()?.map(plain).find_map(|entry| {
            entry.strip_prefix(&before).filter(|domain| !domain.is_empty()).map(str::to_owned)
        })?;
        Some(Self::new(namespace, &domain))
    }

    /// The pod that this hostname names, if it is one of the zone's.
    fn pod(&self, hostname: &str) -> Option<Name> {
        let hostname = plain(hostname);
        let rest = hostname.strip_suffix(&self.domain)?.strip_suffix(".svc.")?;
        let rest = rest.strip_suffix(&self.namespace)?.strip_suffix('.')?;
        // A subdomain is one label; a pod's name may have dots.
        let (host, subdomain) = rest.rsplit_once('.')?;
        let is_name = !host.is_empty() && !subdomain.is_empty();
        is_name.then(|| Name { host: host.to_owned(), subdomain: subdomain.to_owned() })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.svc.{}", self.namespace, self.domain)
    }
}

/// A name's spelling where case and a dot at the end don't matter.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// A pod as its hostname names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    host: String,
    subdomain: String,
}

/// `status.phase`, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Pending,
    Running,
    /// `Failed` or `Succeeded`: all its containers have ended, and none is started again.
    Ended,
    /// `Unknown`, none, or one that isn't known here.
    Unknown,
}

/// A pod as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    /// `metadata.name`, as [`plain`] spells it.
    name: String,
    /// The first part of its name in the network: `spec.hostname`, or else its name, as the kubelet cuts it.
    host: String,
    subdomain: Option<String>,
    uid: String,
    /// The label `component`.
    component: Option<String>,
    /// It has a `deletionTimestamp`.
    terminating: bool,
    host_network: bool,
    phase: Phase,
    /// Each one once; `status.podIP` first.
    ips: Vec<IpAddr>,
    /// One of its IPs can't be read.
    illegible: bool,
    cut_off: bool,
    /// Its condition `Ready` is `True`.
    ready: bool,
}

impl Pod {
    /// What this pod says of the IP.
    fn says(&self, ip: IpAddr) -> Says {
        let has_it = self.ips.contains(&ip);
        match self.phase {
            Phase::Ended => Says::Gone,
            Phase::Pending | Phase::Running if has_it && !self.cut_off => Says::Lives,
            _ if has_it || self.illegible => Says::Unclear,
            // It has not been given one yet. Whoever had the name before it is gone: a StatefulSet makes a pod only once the one before
            // it is deleted.
            Phase::Pending => Says::Gone,
            _ if self.ips.is_empty() => Says::Unclear,
            Phase::Running | Phase::Unknown => Says::Gone,
        }
    }

    fn full_name(&self) -> Option<Name> {
        let subdomain = self.subdomain.clone()?;
        Some(Name { host: self.host.clone(), subdomain })
    }
}

/// The pods of one namespace, as they were at one moment.
#[derive(Debug, Clone)]
pub struct Pods {
    zone: Zone,
    /// When the list was asked for: it is no older.
    taken: Instant,
    pods: Vec<Pod>,
    /// Where the pods of a name stand in `pods`.
    named: HashMap<String, Vec<usize>>,
}

impl Pods {
    /// The pods of a whole `v1` `PodList` in JSON, asked for at `taken`.
    pub fn of_json(zone: Zone, taken: Instant, json: &[u8]) -> Result<Self, NoList> {
        Ok(Self::of(zone, taken, list::page(json)?.pods))
    }

    fn of(zone: Zone, taken: Instant, pods: Vec<Pod>) -> Self {
        let mut named: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, pod) in pods.iter().enumerate() {
            named.entry(pod.host.clone()).or_default().push(at);
            if pod.name != pod.host {
                named.entry(pod.name.clone()).or_default().push(at);
            }
        }
        Self { zone, taken, pods, named }
    }

    /// Whose names it can tell.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// When the list was asked for: it is no older.
    pub fn taken(&self) -> Instant {
        self.taken
    }

    /// How many pods there are.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether there is no pod at all.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// What the pods say of a row with this hostname and this IP.
    ///
    /// - A pod without an IP, while `Pending`, has none of the IPs that a row may have: [`Says::Gone`]. A StatefulSet makes a pod only
    ///   once the one before it is deleted.
    /// - A pod that is being deleted lives until it is gone: it serves, or drains, for as long as its grace period lasts.
    /// - **Its node may be cut off.** A Role can't give the right to read nodes, so what the node controller writes into the pod tells.
    ///   When a node turns `NotReady` or `Unknown`, it sets `status` of the pod's `Ready` condition to `False` and leaves the
    ///   condition's `reason` as it is; `NodeNotReady` is only the event beside that
    ///   (kubernetes/kubernetes, `MarkPodsNotReady` in `pkg/controller/util/node/controller_utils.go`, called by
    ///   `monitorNodeHealth` in `pkg/controller/nodelifecycle/node_lifecycle_controller.go`). A `Ready` that was `True` has no reason,
    ///   and each `False` of a kubelet's has one (`GeneratePodReadyCondition` in `pkg/kubelet/status/generate.go`): so `False` without
    ///   a reason is a node that nobody hears of, until its kubelet writes the condition anew. `status.reason` `NodeLost` is from
    ///   evictions before they went by taints (`SetPodTerminationReason`, same file). Both are [`Says::Unclear`], and so are
    ///   `Ready` `Unknown` and the phase `Unknown`.
    /// - A pod that was not ready before its node was cut off shows nothing of it: [`Says::Lives`], until it is gone.
    pub fn says(&self, hostname: &str, ip: IpAddr) -> Says {
        let Some(name) = self.zone.pod(hostname) else { return Says::NotOurs };
        let ip = ip.to_canonical();
        let mut said = Says::Gone;
        for pod in self.named(&name.host) {
            if pod.host_network {
                return Says::NotOurs;
            }
            match pod.says(ip) {
                Says::Lives => said = Says::Lives,
                Says::Unclear if said == Says::Gone => said = Says::Unclear,
                _ => {}
            }
        }
        said
    }

    /// An IP of each pod with the label `component=manager`, as the official chart sets it, that is `Running`, not being deleted and
    /// not cut off: in order, each once. Those of every Dragonfly in the namespace.
    pub fn managers(&self) -> Vec<IpAddr> {
        let is_one = |pod: &&Pod| {
            pod.component.as_deref() == Some("manager")
                && pod.phase == Phase::Running
                && !pod.terminating
                && !pod.cut_off
        };
        let mut ips: Vec<IpAddr> =
            self.pods.iter().filter(is_one).filter_map(|pod| pod.ips.first()).copied().collect();
        ips.sort_unstable();
        ips.dedup();
        ips
    }

    /// Whether a pod with this row's hostname and this IP is ready.
    fn is_ready(&self, hostname: &str, ip: IpAddr) -> bool {
        let name = self.zone.pod(hostname);
        let mut pods = name.iter().flat_map(|name| self.named(&name.host));
        pods.any(|pod| pod.ready && pod.ips.contains(&ip.to_canonical()))
    }

    /// Whether a pod with this row's hostname is there, whatever its IP, and has not ended.
    fn is_there(&self, hostname: &str) -> bool {
        let name = self.zone.pod(hostname);
        name.is_some_and(|name| self.named(&name.host).any(|pod| pod.phase != Phase::Ended))
    }

    /// The pods of that name or that hostname.
    fn named(&self, host: &str) -> impl Iterator<Item = &Pod> {
        self.named.get(host).into_iter().flatten().map(|at| &self.pods[*at])
    }
}
