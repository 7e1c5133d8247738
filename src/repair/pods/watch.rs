//! The pods as evidence over the runs of one process.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::{Kubernetes, Pods, Says, Watched, Zone, plain};
use crate::{
    manager::Failure,
    repair::judge::{Probed, Seen, is_heard_of},
};

/// Who lists the pods of one namespace.
#[async_trait]
pub trait ListPods: Send + Sync {
    /// Whose pods they are.
    fn zone(&self) -> &Zone;
    /// The pods as they are now: all of them, or an error.
    async fn pods(&self) -> Result<Pods, Failure>;
}

#[async_trait]
impl ListPods for Kubernetes {
    fn zone(&self) -> &Zone {
        self.zone()
    }
    async fn pods(&self) -> Result<Pods, Failure> {
        self.pods().await
    }
}

/// What a list tells beside what it says of each row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// The IPs of the managers' pods.
    pub managers: Vec<IpAddr>,
    /// How many rows are of none of these pods.
    pub others: usize,
    /// Whose pods they are: `NAMESPACE.svc.DOMAIN`.
    pub zone: String,
}

/// Lists the pods once in a run, and remembers what it saw.
pub struct Watch {
    lists: Box<dyn ListPods>,
    watched: Watched,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("zone", self.lists.zone()).finish_non_exhaustive()
    }
}

impl Watch {
    /// Nothing was seen yet.
    pub fn new(lists: Box<dyn ListPods>) -> Self {
        Self { lists, watched: Watched::default() }
    }

    /// Puts into each row what the pods say of it now, asked for no longer than `until`, and tells of the managers' pods. Where they
    /// can't be listed, what they say is unclear for each row that is theirs.
    ///
    /// Where none of a hostname's rows has its pod's IP, the fleet may register others than its pods' (`server.advertiseIP`), or the
    /// pod has not registered yet: what it says of another IP is unclear then, unless this process saw the pod have it.
    pub async fn tell(&mut self, rows: &mut [Seen], until: Instant) -> Result<Told, Failure> {
        let listed = timeout_at(until, self.lists.pods()).await;
        let listed = listed.unwrap_or_else(|_| Err(Failure::new("they were not there within --deadline")));
        let pods = match listed {
            Ok(pods) => pods,
            Err(failure) => {
                for row in rows.iter_mut().filter(|row| self.lists.zone().pod(&row.now.hostname).is_some()) {
                    row.pod = Says::Unclear;
                }
                return Err(failure);
            }
        };
        // What moved between the looks of the run that first sees a pod gone may have moved before it went.
        for row in rows.iter().filter(|row| is_heard_of(row) || row.probe == Probed::Answers) {
            if let Some(ip) = row.now.ip {
                self.watched.hear_of(&row.now.hostname, ip);
            }
        }
        self.watched.saw(&pods);
        let mut registered: BTreeSet<String> = BTreeSet::new();
        let mut others = 0;
        for row in rows.iter_mut() {
            let (hostname, ip) = (&row.now.hostname, row.now.ip);
            row.pod = match ip.map_or(Says::NotOurs, |ip| pods.says(hostname, ip)) {
                Says::Lives if !ip.is_some_and(|ip| pods.is_ready(hostname, ip)) => Says::Starts,
                said => said,
            };
            if row.pod.lives() {
                registered.insert(plain(hostname));
            }
            others += usize::from(row.pod == Says::NotOurs);
        }
        for row in rows.iter_mut().filter(|row| row.pod == Says::Gone) {
            let (hostname, Some(ip)) = (&row.now.hostname, row.now.ip) else { continue };
            if self.watched.saw_it_go(hostname, ip) {
                row.pod = Says::Went;
            } else if pods.is_there(hostname) && !registered.contains(&plain(hostname)) {
                row.pod = Says::Unclear;
            }
        }
        Ok(Told { managers: pods.managers(), others, zone: pods.zone().to_string() })
    }
}
