//! Whether the manager lists the scheduler's key, with which port, and who else is active under its name.
//!
//! **A row is said to be in the way, and to be deleted, only on proof**: scheduler.yaml itself names another port, the row is
//! inactive by a read that no cache can have answered, and a connection to the row's ip:port is refused. A row that is deleted
//! while its scheduler lives takes that scheduler from every peer, and nothing brings it back before it is restarted. Anything
//! less is reported, with what would prove it.

use std::{net::SocketAddr, time::Duration};

use crate::{
    agent::{
        check::{failed, ok, warning},
        shell::rows_like,
        socket::Finding,
        unique_key,
    },
    identity::Settings,
    key::SchedulerKey,
    manager::{Failure, Freshness, Manager, Row, State},
    net::{self, ConnectError, Peer},
};

const NAME: &str = "identity";
const OTHERS: &str = "other rows";
/// How long the look at a row's address may take.
const LIMIT: Duration = Duration::from_secs(1);

/// What is known beside the rows.
#[derive(Debug, Clone)]
pub(super) struct Evidence {
    /// The port with which scheduler.yaml has the scheduler register; `None` where no such file was read.
    pub port: Option<u16>,
    /// How old the rows may be.
    pub freshness: Freshness,
    /// Who is at the key's row's ip:port, where that was looked at.
    pub at: There,
}

/// What a look at a row's ip:port found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum There {
    /// A connection is refused: nobody listens.
    Nobody,
    /// A connection is taken.
    Somebody,
    /// Neither, in words.
    Unclear(String),
}

/// Asks the manager for the rows of this hostname and cluster.
pub(super) async fn check(manager: &dyn Manager, settings: &Settings) -> Vec<Finding> {
    let Some(key) = settings.key() else {
        let todo = "see `settings`";
        return vec![failed(NAME, "it is not known whose row this is", todo)];
    };
    let port = settings.registered_port;
    let rows = rows_like(manager, &key).await;
    let mut at = There::Unclear("it was not looked at".to_owned());
    if let Ok(rows) = &rows
        && let Some(row) = own(&key, rows)
        && port.is_some_and(|port| row.port != i32::from(port))
    {
        at = look(&key, row.port).await;
    }
    of_rows(&key, &Evidence { port, freshness: manager.freshness(), at }, rows)
}

async fn look(key: &SchedulerKey, port: i32) -> There {
    let Ok(port) = u16::try_from(port) else {
        return There::Unclear(format!("{port} is no port"));
    };
    let addr = SocketAddr::new(key.ip.get(), port);
    match net::connect(&Peer::from(addr), addr, None, LIMIT).await {
        // A scheduler that is stopped, or hangs, takes connections too.
        Ok(_) | Err(ConnectError::Http2(..) | ConnectError::Tls(..) | ConnectError::Mute(..)) => {
            There::Somebody
        }
        Err(ConnectError::Refused(_)) => There::Nobody,
        Err(why) => There::Unclear(why.to_string()),
    }
}

/// What these rows say of the key.
pub(super) fn of_rows(
    key: &SchedulerKey,
    evidence: &Evidence,
    rows: Result<Vec<Row>, Failure>,
) -> Vec<Finding> {
    match rows {
        Ok(rows) => vec![listed(key, evidence, &rows), others(key, &rows)],
        Err(failure) => vec![failed(
            NAME,
            format!("the manager could not be asked for {key}: {failure}"),
            "see the checks of the manager's endpoints",
        )],
    }
}

fn own<'a>(key: &SchedulerKey, rows: &'a [Row]) -> Option<&'a Row> {
    rows.iter().find(|row| row.is(key))
}

fn listed(key: &SchedulerKey, evidence: &Evidence, rows: &[Row]) -> Finding {
    let Some(row) = own(key, rows) else { return not_listed(key, rows) };
    let found = format!("{key} is listed with port {}, {}", row.port, row.state.word());
    match evidence.port {
        Some(port) if row.port != i32::from(port) => other_port(key, row, port, evidence),
        Some(_) => ok(NAME, found),
        None => ok(
            NAME,
            format!(
                "{found} (whether that is the port it registers with, only its scheduler.yaml could tell)"
            ),
        ),
    }
}

fn not_listed(key: &SchedulerKey, rows: &[Row]) -> Finding {
    let mut keys: Vec<String> = same_name(key, rows).map(shown).collect();
    keys.sort();
    keys.dedup();
    let instead = match keys.as_slice() {
        [] => format!("it lists no scheduler named {}", key.hostname),
        keys => format!("under that hostname it lists {}", keys.join(", ")),
    };
    let mut todo = "a scheduler that has not registered yet is listed once it serves (over gRPC some minutes later at the worst): \
                    see the check `scheduler`. If it serves, give --hostname, --ip and --cluster-id as it registers them (its \
                    scheduler.yaml: server.host, server.advertiseIP, manager.schedulerClusterID)"
        .to_owned();
    if let Some(old_key) = unique_key::old_key(key, rows) {
        todo += "; ";
        todo += &old_key;
    }
    failed(NAME, format!("the manager does not list {key}; {instead}"), todo)
}

/// The key is listed with another port than scheduler.yaml names: the manager refuses such a registration, with `Error 1062`.
fn other_port(key: &SchedulerKey, row: &Row, port: u16, evidence: &Evidence) -> Finding {
    let found = format!(
        "{key} is listed with port {}, {}, and scheduler.yaml names port {port}",
        row.port,
        row.state.word()
    );
    let there = SocketAddr::new(key.ip.get(), u16::try_from(row.port).unwrap_or_default());
    const REFUSAL: &str = "`Error 1062 Duplicate entry ... uk_scheduler`";
    match (row.state, &evidence.at, evidence.freshness) {
        (State::Active, ..) => warning(
            NAME,
            format!("{found}: a scheduler that registered with port {} keeps that row active", row.port),
            format!(
                "leave the row alone, it is a living scheduler's. Either signoff reads another scheduler.yaml than the scheduler \
                 (--scheduler-config), or the file has changed since the scheduler started: then the manager refuses its next \
                 start with {REFUSAL}, unless the file names port {} again",
                row.port
            ),
        ),
        (State::Inactive, There::Somebody, _) => warning(
            NAME,
            format!("{found}; something listens at {there}"),
            format!(
                "leave the row alone until it is known what listens there: it may be the row's scheduler. Once nobody does, the \
                 row is what makes the manager refuse port {port} with {REFUSAL}"
            ),
        ),
        (State::Inactive, There::Unclear(why), _) => warning(
            NAME,
            format!("{found}; whether anybody listens at {there} can't be told: {why}"),
            format!(
                "leave the row alone until it is known that nobody does (connection refused). Then it is what makes the manager \
                 refuse port {port} with {REFUSAL}"
            ),
        ),
        (State::Inactive, There::Nobody, Freshness::Within30s) => warning(
            NAME,
            format!("{found}; nobody listens at {there}; a list over gRPC may be minutes old"),
            format!(
                "if the manager refuses the scheduler's start with {REFUSAL}, see over REST whether row {} is inactive: give an \
                 http:// or https:// endpoint with --manager, --username and --password-file, and run this again",
                row.id
            ),
        ),
        (State::Inactive, There::Nobody, Freshness::Fresh) => failed(
            NAME,
            format!(
                "{found}; nobody listens at {there}: the manager refuses the scheduler's start with {REFUSAL}"
            ),
            format!(
                "the old row must go before that scheduler can start: delete row {} (DELETE /api/v1/schedulers/{} with a user who \
                 may), or give the scheduler its old port back",
                row.id, row.id
            ),
        ),
    }
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
        "an earlier incarnation's row is signed off by the agent (succession), or by signoff reconcile --apply, once it is known \
         that nobody lives there: signoff reconcile explain ID says what is known; until then peers may be sent there. If a second \
         scheduler lives there, give each a hostname (server.host) or a manager.schedulerClusterID of its own",
    )
}

fn same_name<'a>(key: &'a SchedulerKey, rows: &'a [Row]) -> impl Iterator<Item = &'a Row> {
    rows.iter().filter(|row| row.hostname.eq_ignore_ascii_case(key.hostname.as_str()))
}

fn shown(row: &Row) -> String {
    format!("{}/{}:{} in cluster {} ({})", row.hostname, row.ip, row.port, row.cluster_id, row.state.word())
}
