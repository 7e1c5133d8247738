//! The rows over the manager's gRPC lists, for where nothing else is at hand: the active rows alone, at most 30 s old, without
//! keep-alive times, and only as many as fit one answer of 4 MiB. Each look leaves an entry in the manager's
//! Redis for 5 min, under the caller's name that was made up for it.

use std::{collections::HashSet, fmt, net::IpAddr, sync::Arc};

use async_trait::async_trait;

use super::{Names, Scope, Source};
use crate::{
    manager::{Failure, grpc::Grpc},
    repair::sighting::Sighting,
};

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;

/// The rows over gRPC.
pub struct GrpcSource {
    grpc: Arc<Grpc>,
    caller_ip: IpAddr,
}

impl fmt::Debug for GrpcSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GrpcSource").field(&self.name()).finish()
    }
}

impl GrpcSource {
    /// Over the gRPC side of a client of the manager ([`crate::manager::client::Client::shared_grpc`] and `caller_ip`).
    pub fn new(grpc: Arc<Grpc>, caller_ip: IpAddr) -> Self {
        Self { grpc, caller_ip }
    }
}

#[async_trait]
impl Source for GrpcSource {
    fn name(&self) -> String {
        let endpoints: Vec<_> = self.grpc.endpoints().map(ToString::to_string).collect();
        format!("gRPC {}", endpoints.join(", "))
    }

    fn names(&self) -> Names {
        Names::Unknown
    }

    fn fresh(&self) -> bool {
        false
    }

    fn shows_inactive(&self) -> bool {
        false
    }

    async fn look(&self, scope: &Scope, each: &mut (dyn FnMut(Sighting) + Send)) -> Result<(), Failure> {
        let mut seen = HashSet::new();
        for row in &self.grpc.list_active(self.caller_ip).await? {
            if scope.holds(row.cluster_id) && seen.insert(row.id) {
                each(Sighting::from(row));
            }
        }
        Ok(())
    }

    async fn again(&self, row: &Sighting) -> Result<Option<Sighting>, Failure> {
        let rows = self.grpc.list_active(self.caller_ip).await?;
        Ok(rows.iter().find(|found| found.id == row.id).map(Sighting::from))
    }
}
