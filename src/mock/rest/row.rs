//! A row as JSON, fields in the manager's order.

use jiff::{Timestamp, tz::Offset};
use serde::Serialize;
use serde_json::Value;

use crate::{
    manager::State,
    mock::{
        manager::Release,
        node::Node,
        table::{Millis, TableRow},
    },
};

const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 in a zone, trailing zeros of the fraction left out, as Go writes it.
pub(super) fn rfc3339(at: Millis, zone_hours: i8) -> String {
    let Some(at) = i64::try_from(at).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()) else {
        return ZERO_TIME.to_owned();
    };
    match Offset::from_hours(zone_hours) {
        Ok(zone) if zone != Offset::UTC => at.display_with_offset(zone).to_string(),
        _ => at.to_string(),
    }
}

/// What a process shows of a row, and how.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shown {
    release: Release,
    zone_hours: i8,
}

impl Shown {
    pub(super) fn by(node: &Node) -> Self {
        Self { release: node.release, zone_hours: node.zone_hours }
    }

    pub(super) fn time(self, at: Millis) -> String {
        let at = match self.release {
            Release::V2_2 => at - at % 1000,
            Release::V2_5 => at,
        };
        rfc3339(at, self.zone_hours)
    }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a Value>,
    host_name: &'a str,
    idc: &'a str,
    location: &'a str,
    ip: &'a str,
    port: i32,
    state: State,
    features: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    last_keep_alive_at: Option<String>,
    scheduler_cluster_id: u64,
    scheduler_cluster: NoCluster,
}

impl<'a> RestRow<'a> {
    pub(super) fn new(row: &'a TableRow, shown: Shown) -> Self {
        let new = shown.release != Release::V2_2;
        Self {
            id: row.id,
            created_at: shown.time(row.created_at),
            updated_at: shown.time(row.updated_at),
            is_del: row.is_del,
            config: new.then_some(&row.config),
            host_name: &row.host_name,
            idc: &row.idc,
            location: &row.location,
            ip: &row.ip,
            port: row.port,
            state: row.state,
            features: &row.features,
            last_keep_alive_at: new.then(|| shown.time(row.last_keep_alive_at)),
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
    serde_json::to_vec(&RestRow::new(&row, Shown::default())).unwrap_or_default()
}
