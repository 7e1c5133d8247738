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
    identity::CONFIGURATION,
    spool::record::WallMillis,
};

/// What is degraded without endangering a sign-off of the own row: `/metrics`, settings that only commands beside the agent read,
/// and looks at others.
const HARMLESS: [&str; 5] = ["listen", "settings", "environment", "manager", "probes"];

/// A row's state counts only if it was read so long after the last change: a list over gRPC may be that old, and a
/// scheduler's own first keep-alive comes an interval after its start.
const SETTLED: WallMillis = 31_000;

/// Beside a scheduler without a manager.
pub const WITHOUT_MANAGER: &str =
    "the scheduler's configuration names no manager: there is nothing to sign off";
/// A disk that was silent for less long is slow, and may be well: see `HANGS_AFTER` of the agent.
const HANGS_AFTER: WallMillis = 5_000;

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
    if status.manager.none {
        let mut findings = vec![started(status), ok("agent: manager", WITHOUT_MANAGER)];
        findings.extend(left_in_the_queue(status));
        findings.extend(status.degraded.iter().map(degraded));
        return findings;
    }
    let mut findings = vec![
        started(status),
        identity(status),
        scheduler(status),
        row(status),
        drain(status),
        succession(status),
        manager(status),
        queue(status),
        spool(status),
    ];
    findings.extend(hold(status));
    findings.extend(put_back(status));
    findings.extend(status.degraded.iter().map(degraded));
    findings
}

/// A hold is no fault, but the row depends on the agent for as long as there is one.
fn hold(status: &Status) -> Option<Finding> {
    let since = status.hold_since?;
    let why = status.hold_reason.as_deref().unwrap_or("the agent does not say why");
    Some(warning(
        "agent: hold",
        format!(
            "a stream of the agent's own has kept the row active for {} s: {why}; if the agent ends, the row is inactive until the \
             next agent has started",
            age(status, since)
        ),
        "nothing now; a restart of the scheduler's container ends it, since the scheduler then sets its row active itself",
    ))
}

fn put_back(status: &Status) -> Option<Finding> {
    let at = status.put_back_at?;
    Some(warning(
        "agent: put back",
        format!(
            "somebody deleted this scheduler's row while it served; the agent registered it again {} s ago",
            age(status, at)
        ),
        "find out who deletes rows: a manager whose own collection had not heard of the scheduler for half an hour, a script or a person, or \
         `signoff reconcile` for another Kubernetes cluster with the same names",
    ))
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
    let Some((state, at, how)) = known(status) else {
        let why = status.manager.last_error.as_ref().map(|why| format!("; the last call failed: {why}"));
        let todo = "wait a moment; if it stays so, see the manager's checks";
        return warning(NAME, format!("the agent has not read the row yet{}", why.unwrap_or_default()), todo);
    };
    let inactive = match state {
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
        _ if at < changed(status) + SETTLED => {}
        SchedulerState::Serving if inactive && !draining => {
            return warning(
                NAME,
                format!("not active though the scheduler serves ({how})"),
                "nothing where it was signed off just now: with --repair on the agent gives the row back within two \
                 keep-alive intervals of seeing it; if it stays so, see the agent's log",
            );
        }
        SchedulerState::Serving if !inactive && draining => return going(NAME, &how),
        SchedulerState::Down if !inactive => return going(NAME, &how),
        _ => {}
    }
    ok(NAME, format!("{} ({how})", if inactive { "not active" } else { "active" }))
}

/// What is known best of the row, since or at when, and how.
fn known(status: &Status) -> Option<(RowWord, WallMillis, String)> {
    if let Some(known) = &status.row_known {
        let ago = age(status, known.at);
        match known.by.as_str() {
            "hold" => return Some((known.state, known.at, format!("held by the agent for {ago} s"))),
            "sign-off" => return Some((known.state, known.at, format!("signed off {ago} s ago"))),
            _ => {}
        }
    }
    let row = status.row.as_ref()?;
    Some((row.state, row.at, format!("read {} s ago", age(status, row.at))))
}

fn going(name: &str, how: &str) -> Finding {
    warning(
        name,
        format!("active though the scheduler is going or gone ({how})"),
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
            "signoff reconcile explain ID says what is known of that row. If a scheduler lives there, give each Kubernetes cluster \
             a manager.schedulerClusterID of its own, or other hostnames, or see that a force-deleted pod ends; if nobody does, \
             signoff reconcile --apply signs the row off",
        );
    }
    let why = succession.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    match succession.mode {
        Mode::On => ok(NAME, "on: signs off rows that earlier incarnations left active"),
        Mode::Report => ok(NAME, "reports rows that earlier incarnations left active, and leaves them"),
        Mode::Off => ok(NAME, format!("off{why}")),
    }
}

/// How the agent itself gets on with the manager; the endpoints are looked at from here too.
fn manager(status: &Status) -> Finding {
    const NAME: &str = "agent: manager";
    let manager = &status.manager;
    let last = manager.last_error.as_ref().map(|why| format!("; the last call failed: {why}"));
    let last = last.unwrap_or_default();
    if !manager.answered {
        return warning(NAME, format!("has not answered the agent yet{last}"), "see the manager's checks");
    }
    if let Some(why) = &manager.rest_error {
        return warning(
            NAME,
            format!(
                "rows can't be read over REST, and are read over gRPC, where they may be 30 s old: {why}{last}"
            ),
            "see the checks of the REST endpoints and `sign-in`",
        );
    }
    ok(NAME, format!("has answered the agent{last}"))
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

/// Beside a scheduler without a manager: what is for the one that it had.
fn left_in_the_queue(status: &Status) -> Option<Finding> {
    if !status.pending.is_empty() {
        return Some(queue(status));
    }
    let asks = status.spool.asks.filter(|asks| *asks > 0)?;
    Some(warning(
        "agent: queue",
        format!(
            "{asks} sign-off(s) in {} are for a manager that the configuration does not name",
            status.spool.dir
        ),
        "signoff queue list shows them; signoff queue flush --manager THAT-MANAGER makes them, signoff queue drop forgets them",
    ))
}

fn spool(status: &Status) -> Finding {
    const NAME: &str = "agent: spool";
    let spool = &status.spool;
    if let Some(unknown) = spool.unknown(status.now) {
        let found = format!("what is in {} is {unknown}", spool.dir);
        // One that is only slow says so by the next time.
        if spool.silent_since.is_some_and(|since| status.now.saturating_sub(since) < HANGS_AFTER) {
            return warning(NAME, found, "run this again; if the disk is often so slow, find a faster one");
        }
        return failed(
            NAME,
            found,
            "see what is wrong with that volume (its disk, its server, its node), and the check `spool`: while it doesn't \
             answer, a sign-off that the manager doesn't acknowledge is lost with the agent",
        );
    }
    if let Some(corrupt @ 1..) = spool.corrupt {
        return warning(
            NAME,
            format!("{corrupt} damaged file(s) were set aside in {}", spool.dir),
            "a pending sign-off may have been in one: signoff reconcile shows whether a row is wrong; once none is, the files \
             named .corrupt may be removed",
        );
    }
    if let Some(newer @ 1..) = spool.newer {
        return warning(
            NAME,
            format!("{newer} record(s) of a newer version are left alone in {}", spool.dir),
            "run the newer signoff, which settles them",
        );
    }
    let count = |number: Option<u64>| number.unwrap_or_default();
    ok(NAME, format!("{} ask(s) and {} mark(s) in {}", count(spool.asks), count(spool.marks), spool.dir))
}

fn degraded(degradation: &Degradation) -> Finding {
    let Degradation { reason, why } = degradation;
    if reason == CONFIGURATION {
        let todo = "mend the flags or variables that are named: the agent takes them at its next start";
        return failed("agent: configuration", why, todo);
    }
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
