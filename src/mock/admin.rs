//! The admin port: the table as it changes, the fault switches, and a page that shows both.
//!
//! `GET /state`; `GET /faults`, `POST /faults` with a fault as JSON, `DELETE /faults`; the page at `/`. For tests and
//! demonstrations: whoever reaches the port may switch.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    extract::State as Shared,
    http::StatusCode,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    fault::{Fault, Faults, KINDS, Kind},
    table::{Change, Database, Millis, TableError, TableRow},
};
use crate::manager::State;

const PAGE: &str = include_str!("page.html");
const RECENT: usize = 20;

/// The admin port.
#[derive(Debug, Clone)]
pub(super) struct AdminPort {
    database: Arc<Database>,
    faults: Arc<Faults>,
}

/// A row as the page shows it.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    row: TableRow,
    /// Another row of the same hostname and cluster is active too.
    duplicated: bool,
}

/// All that the page shows.
#[derive(Debug, Serialize)]
struct Everything {
    now: Millis,
    rows: Vec<Shown>,
    changes: Vec<Change>,
    faults: Vec<Fault>,
    kinds: [Kind; KINDS.len()],
}

fn shown(rows: Vec<TableRow>) -> Vec<Shown> {
    let name = |row: &TableRow| (row.host_name.to_lowercase(), row.scheduler_cluster_id);
    let mut active = HashMap::<_, u32>::new();
    for row in rows.iter().filter(|r| r.state == State::Active) {
        *active.entry(name(row)).or_default() += 1;
    }
    rows.into_iter()
        .map(|row| Shown {
            duplicated: row.state == State::Active && active.get(&name(&row)).is_some_and(|n| *n > 1),
            row,
        })
        .collect()
}

fn refused(status: StatusCode, why: impl ToString) -> Response {
    (status, Json(json!({ "error": why.to_string() }))).into_response()
}

impl AdminPort {
    pub(super) fn new(database: Arc<Database>, faults: Arc<Faults>) -> Self {
        Self { database, faults }
    }

    /// Serves until dropped.
    pub(super) async fn run(self, listener: TcpListener) {
        let router = Router::new()
            .route("/", get(async || Html(PAGE)))
            .route("/state", get(state))
            .route("/faults", get(faults).post(switch_on).delete(switch_off))
            .with_state(self);
        if let Err(e) = axum::serve(listener, router).await {
            tracing::error!(error = %e, "The admin page is gone.");
        }
    }

    fn everything(&self) -> Result<Everything, TableError> {
        let mut changes = self.database.history();
        changes.drain(..changes.len().saturating_sub(RECENT));
        changes.reverse();
        Ok(Everything {
            now: self.database.now(),
            rows: shown(self.database.rows()?),
            changes,
            faults: self.faults.list(),
            kinds: KINDS,
        })
    }
}

async fn state(Shared(admin): Shared<AdminPort>) -> Response {
    match admin.everything() {
        Ok(everything) => Json(everything).into_response(),
        Err(e) => refused(StatusCode::INTERNAL_SERVER_ERROR, e),
    }
}

async fn faults(Shared(admin): Shared<AdminPort>) -> Json<Vec<Fault>> {
    Json(admin.faults.list())
}

async fn switch_on(Shared(admin): Shared<AdminPort>, body: axum::body::Bytes) -> Response {
    let added = serde_json::from_slice::<Fault>(&body)
        .map_err(|e| e.to_string())
        .and_then(|fault| admin.faults.add(fault).map_err(|e| e.to_string()));
    match added {
        Ok(()) => (StatusCode::CREATED, Json(admin.faults.list())).into_response(),
        Err(why) => refused(StatusCode::UNPROCESSABLE_ENTITY, why),
    }
}

async fn switch_off(Shared(admin): Shared<AdminPort>) -> StatusCode {
    admin.faults.clear();
    StatusCode::NO_CONTENT
}
