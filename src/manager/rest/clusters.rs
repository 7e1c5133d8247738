//! The manager's clusters of schedulers.

use super::{Rest, parse};
use crate::manager::{Failure, outcome::Class};

const CLUSTERS: &str = "/api/v1/scheduler-clusters";

#[derive(serde::Deserialize)]
struct Cluster {
    id: u64,
}

impl Rest {
    /// The ids of all clusters, those without a scheduler too. A user whose role lists schedulers alone may not read them.
    pub async fn clusters(&self) -> Result<Vec<u64>, Failure> {
        // As wide as it may be, and another width each time: a manager keeps a query's answer for 30 s.
        let path = format!("{CLUSTERS}?page=1&per_page={}", fastrand::u32(1_000_000..10_000_000));
        let (at, answer) = self.get(&path).await?;
        match answer.class() {
            Class::Confirmed => {
                let clusters: Option<Vec<Cluster>> = parse(&at, &answer.body)?;
                Ok(clusters.unwrap_or_default().iter().map(|cluster| cluster.id).collect())
            }
            _ => Err(answer.failure(&at)),
        }
    }
}
