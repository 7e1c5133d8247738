//! The pods as evidence over the runs of one process.

use std::{fmt, net::IpAddr};

use async_trait::async_trait;

use super::{Kubernetes, Pods, Says, Watched, Zone};
use crate::{manager::Failure, repair::judge::Seen};

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

    /// Puts into each row what the pods say of it now, and tells the addresses of the managers' pods. Where they can't be listed,
    /// what they say is unclear for each row that is theirs.
    pub async fn tell(&mut self, rows: &mut [Seen]) -> Result<Vec<IpAddr>, Failure> {
        let listed = self.lists.pods().await;
        if let Ok(pods) = &listed {
            self.watched.saw(pods);
        }
        for row in rows {
            let (hostname, Some(ip)) = (&row.now.hostname, row.now.ip) else { continue };
            row.pod = match &listed {
                Err(_) if self.lists.zone().pod(hostname).is_some() => Says::Unclear,
                Err(_) => Says::NotOurs,
                Ok(pods) => match pods.says(hostname, ip) {
                    Says::Gone if self.watched.saw_it_go(hostname, ip) => Says::Went,
                    said => said,
                },
            };
        }
        listed.map(|pods| pods.managers())
    }
}
