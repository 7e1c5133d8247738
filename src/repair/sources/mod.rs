//! Where the rows are read: the manager's REST API, its gRPC lists, or its own database. Nothing here writes.

#[cfg(feature = "database")]
pub mod database;
pub mod grpc;
pub mod rest;

use async_trait::async_trait;

use super::sighting::Sighting;
use crate::{key::ClusterId, manager::Failure};

/// Which clusters' rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// These; at least one.
    Clusters(Vec<ClusterId>),
}

impl Scope {
    /// Whether rows of this cluster are in it.
    pub fn holds(&self, cluster_id: u64) -> bool {
        match self {
            Scope::All => true,
            Scope::Clusters(ids) => ids.iter().any(|id| id.get() == cluster_id),
        }
    }
}

/// How the database behind the manager matches hostnames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Without regard to case: MySQL, MariaDB.
    IgnoreCase,
    /// Exactly: PostgreSQL.
    Exact,
    /// The manager's APIs don't tell which database is behind them.
    Unknown,
}

/// One place to read the rows from.
#[async_trait]
pub trait Source: Send + Sync {
    /// For people: `REST http://manager:8080`, `database manager on db:3306`. Never a secret.
    fn name(&self) -> String;
    /// How hostnames match there.
    fn names(&self) -> Names;
    /// Whether what it shows is at most a moment old. gRPC's lists may be 30 s old: such a source can't confirm a write.
    fn fresh(&self) -> bool;
    /// Whether it shows inactive rows. gRPC's lists of every cluster don't.
    fn shows_inactive(&self) -> bool {
        true
    }
    /// The ids of the manager's clusters, where that is shown: one may have no row.
    async fn clusters(&self) -> Option<Vec<u64>> {
        None
    }
    /// One look: hands each row of the scope over once, page by page. An error means that rows may be missing: the look is of
    /// no use then. Where the manager pages without an order, a row that is written meanwhile may be missing all the same.
    async fn look(&self, scope: &Scope, each: &mut (dyn FnMut(Sighting) + Send)) -> Result<(), Failure>;
    /// This one row (by its id), as fresh as the source can; `None` if it is gone, or isn't shown (gRPC: inactive).
    async fn again(&self, row: &Sighting) -> Result<Option<Sighting>, Failure>;
}
