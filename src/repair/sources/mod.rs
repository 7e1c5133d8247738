//! Where the rows are read: the manager's REST API, its gRPC lists, or its own database. Nothing here writes.

use async_trait::async_trait;

use super::sighting::Sighting;
use crate::{key::ClusterId, manager::Failure};

/// Which clusters' rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// These.
    Clusters(Vec<ClusterId>),
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

/// What a source can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shows {
    /// `last_keep_alive_at`, of managers that have it (v2.3.1 and later).
    pub keep_alive: bool,
    /// Rows that are inactive.
    pub inactive: bool,
    /// How hostnames match.
    pub names: Names,
}

/// One place to read the rows from.
#[async_trait]
pub trait Source: Send + Sync {
    /// For people: `REST http://manager:8080`, `database manager on db:3306`. Never a secret.
    fn name(&self) -> String;
    /// What it can show.
    fn shows(&self) -> Shows;
    /// One look: hands each row of the scope over once, page by page. An error means that rows may be missing: the look is of
    /// no use then.
    async fn look(&self, scope: &Scope, each: &mut (dyn FnMut(Sighting) + Send)) -> Result<(), Failure>;
    /// This one row (by its id), as fresh as the source can; `None` if it is gone.
    async fn again(&self, row: &Sighting) -> Result<Option<Sighting>, Failure>;
}
