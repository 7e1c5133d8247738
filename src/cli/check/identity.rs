//! Whether the manager lists the scheduler's key, with which port, and who else is active under its name.

use crate::{
    agent::{
        check::{failed, ok, warning},
        shell::rows_like,
        socket::Finding,
    },
    identity::Settings,
    key::SchedulerKey,
    manager::{Failure, Manager, Row, State},
};

const NAME: &str = "identity";
const OTHERS: &str = "other rows";

/// Asks the manager for the rows of this hostname and cluster.
pub(super) async fn check(manager: &dyn Manager, settings: &Settings) -> Vec<Finding> {
    let Some(key) = settings.key() else {
        let todo = "see `settings`";
        return vec![failed(NAME, "it is not known whose row this is", todo)];
    };
    of_rows(&key, settings.advertise_port, rows_like(manager, &key).await)
}

/// What these rows say of the key, whose scheduler registers with `port`.
pub(super) fn of_rows(key: &SchedulerKey, port: u16, rows: Result<Vec<Row>, Failure>) -> Vec<Finding> {
    match rows {
        Ok(rows) => vec![listed(key, port, &rows), others(key, &rows)],
        Err(failure) => vec![failed(
            NAME,
            format!("the manager could not be asked for {key}: {failure}"),
            "see the checks of the manager's endpoints",
        )],
    }
}

fn listed(key: &SchedulerKey, port: u16, rows: &[Row]) -> Finding {
    let Some(row) = rows.iter().find(|row| row.is(key)) else {
        let mut keys: Vec<String> = same_name(key, rows).map(shown).collect();
        keys.sort();
        keys.dedup();
        let instead = match keys.as_slice() {
            [] => format!("it lists no scheduler named {}", key.hostname),
            keys => format!("under that hostname it lists {}", keys.join(", ")),
        };
        return failed(
            NAME,
            format!("the manager does not list {key}; {instead}"),
            "give --hostname, --ip and --cluster-id as the scheduler registers them (its scheduler.yaml: server.host, \
             server.advertiseIP, manager.schedulerClusterID); one that has not registered yet is listed once it serves, over gRPC some \
             minutes later at the worst",
        );
    };
    if row.port != i32::from(port) {
        return failed(
            NAME,
            format!(
                "{key} is listed with port {}, and the scheduler registers with port {port}: the manager answers such a \
                 registration with `Error 1062 Duplicate entry ... uk_scheduler`",
                row.port
            ),
            format!(
                "the old row must go before that scheduler can start: delete row {} (DELETE /api/v1/schedulers/{} with a \
                 user who may), or give the scheduler its old port back",
                row.id, row.id
            ),
        );
    }
    ok(NAME, format!("{key} is listed with port {}, {}", row.port, row.state.word()))
}

fn others(key: &SchedulerKey, rows: &[Row]) -> Finding {
    let mut others: Vec<String> = same_name(key, rows)
        .filter(|row| row.state == State::Active && row.cluster_id == key.cluster_id.get() && !row.is(key))
        .map(shown)
        .collect();
    others.sort();
    others.dedup();
    if others.is_empty() {
        return ok(OTHERS, "no other row of this hostname is active");
    }
    warning(
        OTHERS,
        format!("active under the same hostname too: {}", others.join(", ")),
        "look whether anything lives there: if not, peers are sent to a dead scheduler until that row is inactive or deleted; \
         if so, two schedulers share one hostname: give each its own (server.host)",
    )
}

fn same_name<'a>(key: &'a SchedulerKey, rows: &'a [Row]) -> impl Iterator<Item = &'a Row> {
    rows.iter().filter(|row| row.hostname.eq_ignore_ascii_case(key.hostname.as_str()))
}

fn shown(row: &Row) -> String {
    format!("{}/{}:{} in cluster {} ({})", row.hostname, row.ip, row.port, row.cluster_id, row.state.word())
}
