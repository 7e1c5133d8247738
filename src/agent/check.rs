//! What the agent itself can say of its surroundings: for `signoff check`.
//!
//! Always the same findings by the same names, whatever they say, so that two answers can be compared; only what the agent
//! has to do without is one finding more for each reason. Nothing is looked at here: it is what the agent's status says.
//! Failed is what makes a sign-off fail, or may lose one; everything else that isn't as it should be is a warning.

use crate::{
    agent::{
        lifecycle::DRAIN_SLACK,
        socket::{
            Finding, Status, Verdict,
            status::{Degradation, RowWord, SchedulerState},
        },
        succession::standing::Mode,
    },
    spool::record::WallMillis,
};

/// What is degraded without endangering a sign-off: `/metrics`, and settings that only commands beside the agent read.
const HARMLESS: [&str; 4] = ["listen", "settings", "environment", "manager"];

/// A row's state counts only if it was read so long after the last change: a list over gRPC may be that old, and a
/// scheduler's own first keep-alive comes an interval after its start.
const SETTLED: WallMillis = 31_000;

/// A check that came out well.
pub fn ok(name: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding { name: name.into(), verdict: Verdict::Ok, found: found.into(), todo: None }
}

/// A check that found something that works, but not as well as it could.
pub fn warning(name: impl Into<String>, found: impl Into<String>, todo: impl Into<String>) -> Finding {
    let todo = Some(todo.into());
    Finding { name: name.into(), verdict: Verdict::Warning, found: found.into(), todo }
}

/// A check that found what makes a sign-off fail, or may lose one.
pub fn failed(name: impl Into<String>, found: impl Into<String>, todo: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Failed, ..warning(name, found, todo) }
}

/// The agent's own findings, each named `agent: …`.
pub fn of_status(status: &Status) -> Vec<Finding> {
    let mut findings = vec![
        started(status),
        identity(status),
        scheduler(status),
        row(status),
        drain(status),
        succession(status),
        queue(status),
        spool(status),
    ];
    findings.extend(status.degraded.iter().map(degraded));
    findings
}

fn started(status: &Status) -> Finding {
    const NAME: &str = "agent: started";
    if status.started {
        return ok(NAME, format!("signoff {}, up {} s", status.version, age(status, status.since)));
    }
    warning(
        NAME,
        "it is not ready yet",
        "wait; with --ready-after-manager the manager has to answer once: see the manager's checks",
    )
}

fn identity(status: &Status) -> Finding {
    const NAME: &str = "agent: identity";
    let Some(key) = &status.key else {
        let todo = "see what it has to do without, below; or give --hostname, --ip and --cluster-id";
        return failed(NAME, "the agent doesn't know yet whose row it answers for", todo);
    };
    match status.identity_known {
        Some(true) => ok(NAME, format!("{key} was listed by the manager")),
        Some(false) => failed(
            NAME,
            format!("{key} was not listed by the manager"),
            "give --hostname, --ip and --cluster-id as the scheduler registers them: see the check `identity`",
        ),
        None => warning(
            NAME,
            format!("{key} was not looked up yet"),
            "wait until the scheduler serves and the manager has answered: then it is looked up",
        ),
    }
}

fn scheduler(status: &Status) -> Finding {
    const NAME: &str = "agent: scheduler";
    let scheduler = &status.scheduler;
    let why = scheduler.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    match scheduler.state {
        SchedulerState::Serving => ok(NAME, format!("serving at {}", scheduler.address)),
        SchedulerState::Down => warning(
            NAME,
            format!("down at {}{why}", scheduler.address),
            "nothing, if it was stopped; else see why the scheduler doesn't run",
        ),
        SchedulerState::Unknown => warning(
            NAME,
            format!("the agent can't tell whether it serves at {}{why}", scheduler.address),
            "see the check `scheduler`",
        ),
    }
}

fn row(status: &Status) -> Finding {
    const NAME: &str = "agent: row";
    let Some(row) = &status.row else {
        let todo = "wait a moment; if it stays so, see the manager's checks";
        return warning(NAME, "the agent has not read the row yet", todo);
    };
    let read = format!("read {} s ago", age(status, row.at));
    let inactive = match row.state {
        RowWord::Active => false,
        RowWord::Inactive | RowWord::Absent | RowWord::NotActive => true,
        RowWord::Unknown => {
            return warning(
                NAME,
                "in a state that this version doesn't know",
                "use the same version of signoff for the check and the agent",
            );
        }
    };
    let draining = status.drain_until.is_some();
    match status.scheduler.state {
        // It says nothing of what came after it.
        _ if row.at < changed(status) + SETTLED => {}
        SchedulerState::Serving if inactive && !draining => {
            return warning(
                NAME,
                format!("not active though the scheduler serves ({read})"),
                "nothing where it was signed off just now: with --repair on the agent gives the row back within two \
                 keep-alive intervals of seeing it; if it stays so, see the agent's log",
            );
        }
        SchedulerState::Serving if !inactive && draining => return going(NAME, &read),
        SchedulerState::Down if !inactive => return going(NAME, &read),
        _ => {}
    }
    ok(NAME, format!("{} ({read})", if inactive { "not active" } else { "active" }))
}

fn going(name: &str, read: &str) -> Finding {
    warning(
        name,
        format!("active though the scheduler is going or gone ({read})"),
        "nothing, the agent signs it off; if it stays so, see `agent: queue` and the manager's checks",
    )
}

/// When the scheduler, or the drain, last began to be as it is.
fn changed(status: &Status) -> WallMillis {
    let slack = u64::try_from(DRAIN_SLACK.as_millis()).unwrap_or(u64::MAX);
    let drain = status.drain_until.map(|until| until.saturating_sub(status.grace_ms + slack));
    drain.max(status.scheduler.since).unwrap_or(0)
}

fn drain(status: &Status) -> Finding {
    const NAME: &str = "agent: drain";
    match status.drain_until {
        None => ok(NAME, "off"),
        Some(until) => warning(
            NAME,
            format!(
                "on, for at most {} s more: the row stays inactive",
                until.saturating_sub(status.now) / 1000
            ),
            "nothing: it ends with the scheduler's restart, or by itself",
        ),
    }
}

fn succession(status: &Status) -> Finding {
    const NAME: &str = "agent: succession";
    let Some(succession) = &status.succession else { return ok(NAME, "the agent doesn't say") };
    if !succession.contested.is_empty() {
        return warning(
            NAME,
            format!(
                "another scheduler seems to live under this hostname: {}",
                succession.contested.join(", ")
            ),
            "give each Kubernetes cluster a manager.schedulerClusterID of its own, or other hostnames; see that a \
             force-deleted pod ends; if nobody is there, that row is still to be signed off",
        );
    }
    let why = succession.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    match succession.mode {
        Mode::On => ok(NAME, "on: signs off rows that earlier incarnations left active"),
        Mode::Report => ok(NAME, "reports rows that earlier incarnations left active, and leaves them"),
        Mode::Off => ok(NAME, format!("off{why}")),
    }
}

fn queue(status: &Status) -> Finding {
    const NAME: &str = "agent: queue";
    let waiting = || status.pending.iter().filter(|ask| ask.watched_until.is_none());
    let Some(oldest) = waiting().map(|ask| ask.at).min() else {
        let watched = status.pending.len();
        return ok(
            NAME,
            match watched {
                0 => "nothing is pending".to_owned(),
                n => format!("nothing is pending; {n} confirmed and still watched"),
            },
        );
    };
    let found =
        format!("{} sign-off(s) pending, the oldest asked {} s ago", waiting().count(), age(status, oldest));
    if let Some(ask) = waiting().find(|ask| ask.rejected) {
        return failed(
            NAME,
            format!("{found}; {}: {}", ask.key, ask.last_error.as_deref().unwrap_or("rejected")),
            "mend what it names: the certificates, the endpoint (a manager's gRPC, or what stands before it), the key; the \
             agent keeps trying",
        );
    }
    let error = waiting().find_map(|ask| ask.last_error.as_deref());
    let error = error.map(|error| format!("; last failure: {error}")).unwrap_or_default();
    warning(
        NAME,
        format!("{found}{error}"),
        "see the manager's checks; the agent keeps trying (signoff status shows each of them)",
    )
}

fn spool(status: &Status) -> Finding {
    const NAME: &str = "agent: spool";
    let spool = &status.spool;
    if spool.corrupt > 0 {
        return warning(
            NAME,
            format!("{} damaged file(s) were set aside in {}", spool.corrupt, spool.dir),
            "look at the files named .corrupt: a sign-off in them was lost; see that the manager's rows are right, and remove them",
        );
    }
    if spool.newer > 0 {
        return warning(
            NAME,
            format!("{} record(s) of a newer version are left alone in {}", spool.newer, spool.dir),
            "run the newer signoff, which settles them",
        );
    }
    ok(NAME, format!("{} ask(s) and {} mark(s) in {}", spool.asks, spool.marks, spool.dir))
}

fn degraded(degradation: &Degradation) -> Finding {
    let Degradation { reason, why } = degradation;
    let name = format!("agent: without {reason}");
    let todo =
        "mend that; the agent tries again by itself (scheduler.yaml, spool, ports) or at its next start";
    if HARMLESS.contains(&reason.as_str()) { warning(name, why, todo) } else { failed(name, why, todo) }
}

/// Seconds since then, by the agent's own clock.
fn age(status: &Status, at: WallMillis) -> u64 {
    status.now.saturating_sub(at) / 1000
}

#[cfg(test)]
mod tests;
