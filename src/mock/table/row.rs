//! A row, and what is said about rows.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Millis;
use crate::{key::SchedulerKey, manager::State};

/// One row, every column of the manager's `scheduler` table. Times are in milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableRow {
    /// Given in order of creation, from 1.
    pub id: u64,
    /// When it was created.
    pub created_at: Millis,
    /// When any column was last written.
    pub updated_at: Millis,
    /// Always 0.
    pub is_del: u8,
    /// What the scheduler reported, `manager_keep_alive_interval` in nanoseconds among it; null if it reported none.
    pub config: serde_json::Value,
    /// The hostname.
    pub host_name: String,
    /// The data centre.
    pub idc: String,
    /// The location.
    pub location: String,
    /// The IP, as the scheduler wrote it.
    pub ip: String,
    /// The port.
    pub port: i32,
    /// Active or inactive; inactive at creation.
    pub state: State,
    /// What the scheduler offers; `schedule` and `preheat` by default.
    pub features: Vec<String>,
    /// When it registered, or sent a KeepAlive message that was not its stream's first.
    pub last_keep_alive_at: Millis,
    /// Its cluster.
    pub scheduler_cluster_id: u64,
}

/// What a row has whose scheduler named no features (seen on v2.2.0 and v2.5.1).
pub(super) fn default_features() -> Vec<String> {
    ["schedule", "preheat"].map(str::to_owned).into()
}

impl TableRow {
    /// A row of a healthy scheduler at port 8002, to be put into a table ([`super::Database::put`]), all of its times `at`.
    pub fn sample(hostname: &str, ip: &str, cluster_id: u64, state: State, at: Millis) -> Self {
        Self {
            id: 0,
            created_at: at,
            updated_at: at,
            is_del: 0,
            config: serde_json::json!({ "manager_keep_alive_interval": 5_000_000_000_u64 }),
            host_name: hostname.to_owned(),
            idc: String::new(),
            location: String::new(),
            ip: ip.to_owned(),
            port: 8002,
            state,
            features: default_features(),
            last_keep_alive_at: at,
            scheduler_cluster_id: cluster_id,
        }
    }
}

/// What identifies rows in a `KeepAlive`: an absent ip matches any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    /// The hostname.
    pub hostname: String,
    /// The IP, compared as text; none matches the lowest id of that hostname.
    pub ip: Option<String>,
    /// The cluster.
    pub cluster_id: u64,
}

/// What a scheduler registers with.
#[derive(Debug, Clone, Default)]
pub struct Registration {
    /// The hostname.
    pub hostname: String,
    /// The IP.
    pub ip: String,
    /// The port.
    pub port: i32,
    /// The cluster.
    pub cluster_id: u64,
    /// The data centre.
    pub idc: String,
    /// The location.
    pub location: String,
    /// What it offers; empty means `schedule`.
    pub features: Vec<String>,
    /// Its configuration, null if none.
    pub config: serde_json::Value,
}

/// Columns that a REST PATCH may set.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Patch {
    /// The configuration.
    pub config: Option<serde_json::Value>,
    /// The data centre.
    pub idc: Option<String>,
    /// The location.
    pub location: Option<String>,
    /// The IP.
    pub ip: Option<String>,
    /// The port.
    pub port: Option<i32>,
    /// What it offers.
    pub features: Option<Vec<String>>,
    /// Its cluster.
    pub scheduler_cluster_id: Option<u64>,
}

/// Who wrote a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// UpdateScheduler created the row.
    Register,
    /// The first message of a KeepAlive stream.
    FirstMessage,
    /// The end of a KeepAlive stream.
    StreamEnd,
    /// A REST call (only a deletion).
    Rest,
    /// A manager's hourly collection.
    Collection,
    /// The test or the person who holds the database.
    Hand,
}

/// One write of a row's state, in order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// From 1, without a gap, in the order of the writes.
    pub seq: u64,
    /// When, by tokio's clock.
    #[serde(skip)]
    pub at: Instant,
    /// When, for people.
    pub at_millis: Millis,
    /// The row's id.
    pub id: u64,
    /// Its hostname.
    pub host_name: String,
    /// Its IP.
    pub ip: String,
    /// Its cluster.
    pub scheduler_cluster_id: u64,
    /// The state before; none if the row was created.
    pub from: Option<State>,
    /// The state after; none if the row was deleted.
    pub to: Option<State>,
    /// Who wrote it.
    pub by: By,
}

impl From<&SchedulerKey> for Selector {
    fn from(key: &SchedulerKey) -> Self {
        Self {
            hostname: key.hostname.to_string(),
            ip: Some(key.ip.to_string()),
            cluster_id: key.cluster_id.get(),
        }
    }
}
