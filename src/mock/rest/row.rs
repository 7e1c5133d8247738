//! A row as JSON, fields in the manager's order.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{
    manager::State,
    mock::table::{Millis, TableRow},
};

const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 in UTC, trailing zeros of the fraction left out, as Go writes it.
pub(super) fn rfc3339(at: Millis) -> String {
    i64::try_from(at)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| ZERO_TIME.to_owned(), |t| t.to_string())
}

/// The cluster that a row's JSON holds, and that nothing ever fills.
#[derive(Debug, Serialize)]
struct NoCluster {
    id: u64,
    created_at: &'static str,
    updated_at: &'static str,
    is_del: u8,
    name: &'static str,
    bio: &'static str,
    config: Value,
    client_config: Value,
    scopes: Value,
    is_default: bool,
    seed_peer_clusters: Value,
    schedulers: Value,
    peers: Value,
    jobs: Value,
}

/// A row as REST shows it.
#[derive(Debug, Serialize)]
pub(super) struct RestRow<'a> {
    id: u64,
    created_at: String,
    updated_at: String,
    is_del: u8,
    config: &'a Value,
    host_name: &'a str,
    idc: &'a str,
    location: &'a str,
    ip: &'a str,
    port: i32,
    state: State,
    features: &'a [String],
    last_keep_alive_at: String,
    scheduler_cluster_id: u64,
    scheduler_cluster: NoCluster,
}

impl<'a> From<&'a TableRow> for RestRow<'a> {
    fn from(row: &'a TableRow) -> Self {
        Self {
            id: row.id,
            created_at: rfc3339(row.created_at),
            updated_at: rfc3339(row.updated_at),
            is_del: row.is_del,
            config: &row.config,
            host_name: &row.host_name,
            idc: &row.idc,
            location: &row.location,
            ip: &row.ip,
            port: row.port,
            state: row.state,
            features: &row.features,
            last_keep_alive_at: rfc3339(row.last_keep_alive_at),
            scheduler_cluster_id: row.scheduler_cluster_id,
            scheduler_cluster: NoCluster {
                id: 0,
                created_at: ZERO_TIME,
                updated_at: ZERO_TIME,
                is_del: 0,
                name: "",
                bio: "",
                config: Value::Null,
                client_config: Value::Null,
                scopes: Value::Null,
                is_default: false,
                seed_peer_clusters: Value::Null,
                schedulers: Value::Null,
                peers: Value::Null,
                jobs: Value::Null,
            },
        }
    }
}

/// One row of a million.
pub(super) fn filler(id: u64) -> Vec<u8> {
    let row = TableRow {
        id,
        created_at: 0,
        updated_at: 0,
        is_del: 0,
        config: Value::Null,
        host_name: format!("filler-{id}"),
        idc: String::new(),
        location: String::new(),
        ip: "192.0.2.1".to_owned(),
        port: 8002,
        state: State::Active,
        features: Vec::new(),
        last_keep_alive_at: 0,
        scheduler_cluster_id: 1,
    };
    serde_json::to_vec(&RestRow::from(&row)).unwrap_or_default()
}
