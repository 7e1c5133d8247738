//! What the agent says, in logs, answers, status and the termination message: one place, so that the words stay the same.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tracing::{debug, error, info, warn};

use super::{
    attempts::AttemptId,
    lifecycle::{Answer, Event, Lifecycle, Notice, Scheduler, Sight, Verdict},
    moment::Now,
    socket::{
        PreStopAnswer, Status,
        status::{PendingStatus, RowStatus, SchedulerState},
    },
    succession::core::Contested,
};
use crate::{
    exit::Exit,
    key::SchedulerKey,
    manager::{AttemptOptions, Failure, Freshness, Outcome, Row, RowRead},
    spool::{Problem, record::WallMillis, volume::Durability},
};

/// An event that a person may want to see.
pub fn event(core: &Lifecycle, event: &Event) {
    let key = core.key();
    match event {
        Event::Scheduler(Sight::Serving(_)) if !matches!(core.scheduler(), Scheduler::Serving(_)) => {
            info!(scheduler.key = %key, "The scheduler serves.");
        }
        Event::Scheduler(Sight::Refused(_)) if !core.seen_serving() => {
            info!(scheduler.key = %key, "Nothing serves at the scheduler's address yet: its row is left as it is.");
        }
        Event::Scheduler(Sight::Refused(_)) if !matches!(core.scheduler(), Scheduler::Down(_)) => {
            info!(scheduler.key = %key, "The scheduler is down.");
        }
        Event::Scheduler(Sight::Unclear) if core.scheduler() != Scheduler::Unknown => {
            info!(scheduler.key = %key, "The scheduler's state is unclear: its row is left as it is.");
        }
        Event::Terminate => info!(scheduler.key = %key, "Asked to stop."),
        Event::ManagerLost => debug!("A connection to a manager was lost."),
        _ => {}
    }
}

/// The core's notices.
pub fn notice(core: &Lifecycle, notice: &Notice, durability: Durability) {
    let key = core.key();
    match notice {
        Notice::Asked(cause) => {
            info!(scheduler.key = %key, signoff.cause = cause.label(), spool.durability = durability.label(), "Signing off.");
        }
        Notice::Inherited(asks) => {
            info!(scheduler.key = %key, signoff.pending = asks, "Found sign-offs of this key in the spool.");
        }
        Notice::Settled { verdict, cause, after } => info!(
            scheduler.key = %key,
            signoff.result = verdict.label(),
            signoff.cause = cause.label(),
            signoff.milliseconds = u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
            "Settled a sign-off."
        ),
        Notice::Watched { verdict, left } => info!(
            scheduler.key = %key,
            signoff.result = verdict.label(),
            watched.seconds = left.as_secs(),
            "Signed off; the record is kept until no earlier attempt can undo it."
        ),
        Notice::Drain(true) => info!(scheduler.key = %key, "Draining."),
        Notice::Drain(false) => info!(scheduler.key = %key, "The drain is over: the scheduler serves."),
        Notice::Restoring => {
            warn!(scheduler.key = %key, "The row is not active though the scheduler serves: restoring it.")
        }
        Notice::WouldRestore => warn!(
            scheduler.key = %key,
            "The row is inactive though the scheduler serves; it is left alone, since repair is set to report."
        ),
        Notice::Restored => info!(scheduler.key = %key, "The row is active again."),
        Notice::Revived => {
            warn!(scheduler.key = %key, "The row is active again though it should not be: signing off.")
        }
        // Said with the keys that are listed, once they are known.
        Notice::IdentityUnknown => {}
    }
}

/// An attempt's end.
pub fn attempt(
    key: &SchedulerKey,
    id: AttemptId,
    options: AttemptOptions,
    outcome: &Outcome,
    took: Duration,
) {
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match outcome.failure() {
        None => info!(
            scheduler.key = %key, attempt = id, attempt.hedge = options.hedge, attempt.milliseconds = milliseconds,
            attempt.outcome = outcome.label(), "The manager answered."
        ),
        Some(failure) => warn!(
            scheduler.key = %key, attempt = id, attempt.hedge = options.hedge, attempt.milliseconds = milliseconds,
            attempt.outcome = outcome.label(), reason = %failure, "An attempt did not succeed."
        ),
    }
}

/// The disk refused an ask, or is too slow.
pub fn not_persisted(key: &SchedulerKey, error: &dyn std::error::Error) {
    error!(
        scheduler.key = %key, reason = %error,
        "A sign-off could not be written to the spool: it is tried all the same, and lost if this process is killed first."
    );
}

/// A hold could not be opened.
pub fn hold_failed(key: &SchedulerKey, failure: &Failure) {
    warn!(scheduler.key = %key, reason = %failure, "The row could not be restored yet.");
}

/// A hold was lost.
pub fn hold_lost(key: &SchedulerKey, failure: &Failure) {
    warn!(scheduler.key = %key, reason = %failure, "The stream that held the row active was lost: it is opened again.");
}

/// A read's end.
pub fn row_read(key: &SchedulerKey, read: &Result<RowRead, Failure>) {
    match read {
        Ok(read) => debug!(scheduler.key = %key, row.state = ?read.state, "Read the row."),
        Err(failure) => debug!(scheduler.key = %key, reason = %failure, "The row could not be read."),
    }
}

/// The rows could not be listed.
pub fn identity_not_checked(key: &SchedulerKey, failure: &Failure) {
    debug!(scheduler.key = %key, reason = %failure, "Could not look for the key in the manager.");
}

/// The manager doesn't know the key.
pub fn identity_unknown(key: &SchedulerKey, rows: &[Row]) {
    let listed = if rows.is_empty() {
        "none".to_owned()
    } else {
        let keys = rows
            .iter()
            .map(|row| format!("{}/{}:{} in cluster {}", row.hostname, row.ip, row.port, row.cluster_id));
        keys.collect::<Vec<_>>().join(", ")
    };
    error!(
        scheduler.key = %key, manager.listed = listed,
        "The manager has no row with this scheduler's key: nothing can be signed off. Compare --hostname, --ip and \
         --cluster-id with what it lists."
    );
}

/// Whether succession is on, where it isn't.
pub fn no_succession(key: &SchedulerKey, why: &str) {
    info!(scheduler.key = %key, reason = why, "Predecessors are not looked for: succession is off.");
}

/// A dead incarnation's row is signed off.
pub fn predecessor(key: &SchedulerKey, predecessor: &SchedulerKey, why: &str) {
    warn!(
        scheduler.key = %key, predecessor.key = %predecessor, reason = why,
        "The row of an earlier incarnation is active though it is gone: signing it off."
    );
}

/// It would be, if that were not forbidden.
pub fn would_sign_off(key: &SchedulerKey, predecessor: &SchedulerKey, why: &str) {
    warn!(
        scheduler.key = %key, predecessor.key = %predecessor, reason = why,
        "The row of an earlier incarnation is active though it is gone; it is left alone, since repair is set to report."
    );
}

/// Something answers where an earlier incarnation was.
pub fn predecessor_answers(key: &SchedulerKey, predecessor: &SchedulerKey) {
    info!(
        scheduler.key = %key, predecessor.key = %predecessor,
        "Another row of this hostname is active and something answers there: it is looked at again."
    );
}

/// Whether an earlier incarnation lives can't be told.
pub fn predecessor_unclear(key: &SchedulerKey, predecessor: &SchedulerKey, why: &str) {
    warn!(
        scheduler.key = %key, predecessor.key = %predecessor, reason = why,
        "Another row of this hostname is active, and it can't be told whether anybody is there: it is left alone until it can."
    );
}

/// Another living scheduler has this hostname.
pub fn contested(key: &SchedulerKey, other: &SchedulerKey, why: &Contested) {
    error!(
        scheduler.key = %key, contested.key = %other, scheduler.ip = %key.ip, contested.ip = %other.ip, reason = %why,
        "Another scheduler seems to live under this one's hostname and cluster id: its row is contested and left alone. If it \
         is of another Kubernetes cluster, give each cluster a manager.schedulerClusterID of its own, or other hostnames; if \
         its pod was force-deleted, see that it ends."
    );
}

/// The process ends.
pub fn leaving(core: &Lifecycle, exit: Exit) {
    let key = core.key();
    if exit == Exit::Queued {
        let asks: Vec<String> = core.pending().iter().map(|ask| ask.record.id.to_string()).collect();
        warn!(
            scheduler.key = %key, signoff.pending = asks.join(","), exit.code = exit.code(),
            reason = core.attempts().last_failure().unwrap_or("the manager was not asked yet"),
            "Stopping with a sign-off queued: whoever opens this spool next replays it."
        );
    } else {
        info!(scheduler.key = %key, exit.code = exit.code(), "Stopping.");
    }
}

/// A hook's answer as it goes over the socket.
pub fn pre_stop_answer(answer: &Answer, durability: Durability, wall: WallMillis) -> PreStopAnswer {
    let durability = durability.queued().to_owned();
    PreStopAnswer {
        result: answer.verdict,
        why: match (answer.verdict, &answer.why) {
            (Verdict::Confirmed, _) => "the manager acknowledged that the row is inactive".to_owned(),
            (Verdict::Absent, _) => "the manager has no such row any more".to_owned(),
            (Verdict::Superseded, _) => "the scheduler serves again".to_owned(),
            (Verdict::Dropped, _) => "dropped from the queue by hand".to_owned(),
            (Verdict::Queued, Some(why)) => why.clone(),
            (Verdict::Queued, None) => "the manager has not answered yet".to_owned(),
        },
        watched_until: answer
            .watched_for
            .map(|left| wall + u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        durability,
        persisted: answer.on_disk,
    }
}

/// Last words while an ask is pending.
pub fn pending_words(core: &Lifecycle, on_disk: bool) -> String {
    let where_to = if on_disk { "queued in the spool" } else { "not on disk" };
    format!("sign-off of {} pending, {where_to}\n", core.key())
}

/// Last words at a piece of news, where they change: of those asks that still are not settled, if there are any.
pub fn last_words(core: &Lifecycle, notice: &Notice) -> Option<String> {
    let (Notice::Settled { verdict, .. } | Notice::Watched { verdict, .. }) = notice else { return None };
    let open: Vec<_> = core.pending().iter().filter(|ask| ask.acknowledged.is_none()).collect();
    Some(match (open.as_slice(), core.pending()) {
        ([], []) => format!("sign-off of {}: {}\n", core.key(), verdict.label()),
        ([], _) => format!(
            "sign-off of {}: {}, watched until no earlier attempt can undo it\n",
            core.key(),
            verdict.label()
        ),
        (open, _) => pending_words(core, open.iter().all(|ask| ask.on_disk)),
    })
}

/// What the core knows, put into what is known besides.
pub fn status(mut status: Status, core: &Lifecycle, now: Now) -> Status {
    status.now = now.wall;
    status.key = Some(core.key().clone());
    status.identity_known = if core.listed() { Some(true) } else { core.key_unknown().then_some(false) };
    (status.scheduler.state, status.scheduler.since) = match core.scheduler() {
        Scheduler::Serving(since) => (SchedulerState::Serving, Some(wall_of(since, now))),
        Scheduler::Down(since) => (SchedulerState::Down, Some(wall_of(since, now))),
        Scheduler::Unseen | Scheduler::Unknown => (SchedulerState::Unknown, None),
    };
    status.row = core.row().map(|row| RowStatus {
        state: row.state.into(),
        at: wall_of(row.asked, now),
        source: match row.freshness {
            Freshness::Fresh => "rest",
            Freshness::Within30s => "grpc",
        }
        .to_owned(),
    });
    status.drain_until = core.drain_until().map(|at| wall_of(at, now));
    status.deadline = core.deadline().filter(|at| *at > now.at).map(|at| wall_of(at, now));
    status.hold_since = core.held_since().map(|at| wall_of(at, now));
    status.pending.extend(core.pending().iter().map(|ask| PendingStatus {
        id: ask.record.id.to_string(),
        key: ask.record.key.to_string(),
        cause: ask.cause().map_or("", |cause| cause.label()).to_owned(),
        at: ask.record.at,
        attempts: u64::from(core.attempts().count()),
        last_error: core.attempts().last_failure().map(str::to_owned),
        rejected: core.attempts().rejected(),
        watched_until: ask.acknowledged.and_then(|_| core.attempts().closed_at()).map(|at| wall_of(at, now)),
        inherited: ask.inherited,
    }));
    status
}

/// What a moment is by the wall clock.
fn wall_of(moment: super::moment::Moment, now: Now) -> WallMillis {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    (now.wall + millis(moment - now.at)).saturating_sub(millis(now.at - moment))
}

/// What was found in the spool beside good records: each once in a process's life, however often the spool is looked through.
pub fn problems(problems: &[Problem]) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    for problem in problems {
        let text = problem.to_string();
        if !said.contains(&text) {
            warn!(spool.problem = text, "A file in the spool is not used.");
            said.insert(text);
        }
    }
}
