//! The rows over the manager's REST API: fresh, with keep-alive times (v2.3.1 and later), all of them unless some are written
//! while several pages are read. A few hundred rows fit one page, and can't be missed.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Names, Scope, Source};
use crate::{
    manager::{Failure, rest::Rest},
    repair::sighting::Sighting,
};

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;

/// The rows over REST.
pub struct RestSource {
    rest: Arc<Rest>,
}

impl fmt::Debug for RestSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RestSource").field(&self.name()).finish()
    }
}

impl RestSource {
    /// Over the REST side of a client of the manager ([`crate::manager::client::Client::shared_rest`]).
    pub fn new(rest: Arc<Rest>) -> Self {
        Self { rest }
    }
}

#[async_trait]
impl Source for RestSource {
    fn name(&self) -> String {
        let endpoints: Vec<_> = self.rest.endpoints().iter().map(ToString::to_string).collect();
        format!("REST {}", endpoints.join(", "))
    }

    fn names(&self) -> Names {
        Names::Unknown
    }

    fn fresh(&self) -> bool {
        true
    }

    async fn clusters(&self) -> Option<Vec<u64>> {
        let listed = self.rest.clusters().await;
        listed.inspect_err(|why| tracing::debug!(reason = %why, "The clusters could not be listed.")).ok()
    }

    async fn look(&self, scope: &Scope, each: &mut (dyn FnMut(Sighting) + Send)) -> Result<(), Failure> {
        let clusters = match scope {
            Scope::All => None,
            Scope::Clusters(ids) => Some(ids.as_slice()),
        };
        self.rest.sign_in_patiently().await?;
        self.rest.each(clusters, &mut |row| each(Sighting::from(row))).await
    }

    /// By hostname, ip and cluster, in a query that no manager has in memory. A row whose ip is not spelled as Go prints it is
    /// looked for without it; one without a hostname by its id, at most 30 s old.
    async fn again(&self, row: &Sighting) -> Result<Option<Sighting>, Failure> {
        let found = self.rest.one(row.id, row.cluster_id, &row.hostname, row.ip).await?;
        Ok(found.as_ref().map(Sighting::from))
    }
}
