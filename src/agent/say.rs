//! What the agent says, in logs, answers, status and the termination message: one place, so that the words stay the same.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tracing::{debug, error, info, warn};

use self::quiet::{Line, seldom};
pub use self::{quiet::Said, row::Known, words::Words};

use super::{
    attempts::AttemptId,
    disk::DiskError,
    lifecycle::{Answer, Event, Lifecycle, Notice, Scheduler, Sight, Verdict},
    moment::Now,
    socket::{
        PreStopAnswer, Status,
        status::{MarkStatus, PendingStatus, RowKnown, RowStatus, SchedulerState},
    },
    succession::core::Contested,
    unique_key,
};
use crate::{
    exit::Exit,
    key::SchedulerKey,
    manager::{AttemptOptions, Failure, Freshness, Outcome, Registered, Row, RowRead},
    spool::{
        Count, Problem,
        record::{Record, WallMillis, What},
        volume::Durability,
    },
};

mod quiet;
mod row;
mod words;

/// An event that a person may want to see.
pub fn event(core: &Lifecycle, event: &Event, said: &Said) {
    let key = core.key();
    match event {
        Event::Scheduler(Sight::Serving(_)) if !matches!(core.scheduler(), Scheduler::Serving(_)) => {
            seldom!(said, Line::Serves, info, scheduler.key = %key, "The scheduler serves.");
        }
        Event::Scheduler(Sight::Refused(_)) if !core.seen_serving() => {
            seldom!(said, Line::NothingServes, info, scheduler.key = %key,
                "Nothing serves at the scheduler's address yet: its row is left as it is.");
        }
        Event::Scheduler(Sight::Refused(_)) if !matches!(core.scheduler(), Scheduler::Down(_)) => {
            seldom!(said, Line::Down, info, scheduler.key = %key, "The scheduler is down.");
        }
        Event::Scheduler(Sight::Unclear) if core.scheduler() != Scheduler::Unknown => {
            seldom!(said, Line::Unclear, info, scheduler.key = %key,
                "The scheduler's state is unclear: its row is left as it is.");
        }
        Event::Terminate => info!(scheduler.key = %key, "Asked to stop."),
        Event::ManagerLost => debug!("A connection to a manager was lost."),
        _ => {}
    }
}

/// The core's notices.
pub fn notice(core: &Lifecycle, notice: &Notice, durability: Durability, said: &Said) {
    let key = core.key();
    match notice {
        Notice::Asked(cause) => seldom!(
            said, Line::Asked, info, scheduler.key = %key, signoff.cause = cause.label(),
            spool.durability = durability.label(), "Signing off."
        ),
        Notice::Inherited(asks) => seldom!(
            said, Line::Inherited, info, scheduler.key = %key, signoff.pending = asks,
            "Found sign-offs of this key in the spool."
        ),
        Notice::Settled { verdict, cause, after } => seldom!(
            said, Line::Settled, info, scheduler.key = %key, signoff.result = verdict.label(),
            signoff.cause = cause.label(), signoff.milliseconds = milliseconds(*after), "Settled a sign-off."
        ),
        Notice::Watched { verdict, left } => seldom!(
            said, Line::Watched, info, scheduler.key = %key, signoff.result = verdict.label(),
            watched.seconds = left.as_secs(), "Signed off; the record is kept until no earlier attempt can undo it."
        ),
        Notice::Drain(true) => seldom!(
            said, Line::DrainOn, info, scheduler.key = %key,
            "Draining: the row is kept inactive while the scheduler still serves."
        ),
        Notice::Drain(false) => seldom!(
            said, Line::DrainOver, info, scheduler.key = %key, "The drain is over: the scheduler serves."
        ),
        Notice::Restoring => seldom!(
            said, Line::Restoring, warn, scheduler.key = %key,
            "The row is not active though the scheduler serves: restoring it."
        ),
        Notice::WouldRestore => seldom!(
            said, Line::WouldRestore, warn, scheduler.key = %key,
            "The row is inactive though the scheduler serves; it is left alone, since repair is set to report."
        ),
        Notice::Restored => {
            seldom!(said, Line::Restored, info, scheduler.key = %key, "The row is active again.")
        }
        Notice::RowGone { is_put_back: true } => seldom!(
            said, Line::RowGone, warn, scheduler.key = %key,
            "The manager's row of this scheduler is gone though the scheduler serves: trying to register it again."
        ),
        Notice::RowGone { is_put_back: false } => seldom!(
            said, Line::RowGone, warn, scheduler.key = %key,
            "The manager's row of this scheduler is gone though the scheduler serves; it is left so, since repair is not on, or since \
             no read ever showed what the scheduler registered. A restart of the scheduler registers it again."
        ),
        // Said with what was registered.
        Notice::PutBack => {}
        Notice::Revived => seldom!(
            said, Line::Revived, warn, scheduler.key = %key,
            "The row is active though its scheduler is gone or draining: signing it off again."
        ),
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
    said: &Said,
) {
    let (milliseconds, label) = (milliseconds(took), outcome.label());
    match outcome.failure() {
        None => seldom!(
            said, Line::Answered, info, scheduler.key = %key, attempt = id, attempt.hedge = options.hedge,
            attempt.milliseconds = milliseconds, attempt.outcome = label, "The manager answered."
        ),
        Some(failure) => seldom!(
            said, Line::NotAcknowledged(label), warn, scheduler.key = %key, attempt = id,
            attempt.hedge = options.hedge, attempt.milliseconds = milliseconds, attempt.outcome = label,
            reason = %failure, "An attempt did not succeed."
        ),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The disk refused an ask, or is too slow.
pub fn not_persisted(key: &SchedulerKey, error: &dyn std::error::Error, said: &Said) {
    seldom!(
        said, Line::NotWritten, error, scheduler.key = %key, reason = %error,
        "A sign-off could not be written to the spool: it is tried all the same, and lost if this process is killed first."
    );
}

/// An operation of the spool's disk failed that nobody waited for.
pub fn disk_refused(operation: &'static str, error: &dyn std::error::Error, said: &Said) {
    seldom!(
        said, Line::DiskRefused(operation), warn, spool.operation = operation, reason = %error,
        "The spool's disk refused an operation; it is tried again."
    );
}

/// A look at the scheduler said neither that it serves nor that it is down.
pub fn cant_tell(address: &dyn std::fmt::Display, why: &str, said: &Said) {
    seldom!(
        said, Line::CantTell, info, scheduler.address = %address, reason = why,
        "Can't tell whether the scheduler serves."
    );
}

/// A hold could not be opened.
pub fn hold_failed(key: &SchedulerKey, failure: &Failure, said: &Said) {
    seldom!(
        said, Line::HoldFailed, warn, scheduler.key = %key, reason = %failure,
        "The row could not be restored yet; it is tried again."
    );
}

/// A hold was lost.
pub fn hold_lost(key: &SchedulerKey, failure: &Failure, said: &Said) {
    seldom!(
        said, Line::HoldLost, warn, scheduler.key = %key, reason = %failure,
        "The stream that held the row active was lost: it is opened again."
    );
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

/// The manager doesn't know the key; these are the rows that may be meant, or why they are not known.
pub fn identity_unknown(key: &SchedulerKey, rows: &Result<Vec<Row>, Failure>) {
    let (listed, hint) = match rows {
        Err(failure) => (format!("not known: {failure}"), None),
        Ok(rows) if rows.is_empty() => ("none".to_owned(), None),
        Ok(rows) => {
            let shown =
                |row: &Row| format!("{}/{}:{} in cluster {}", row.hostname, row.ip, row.port, row.cluster_id);
            (rows.iter().map(shown).collect::<Vec<_>>().join(", "), unique_key::old_key(key, rows))
        }
    };
    error!(
        scheduler.key = %key, manager.listed = listed, hint,
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
pub fn leaving(core: &Lifecycle, exit: Exit, durability: Durability) {
    let key = core.key();
    if exit == Exit::Queued {
        let open = || core.pending().iter().filter(|ask| ask.acknowledged.is_none());
        let asks: Vec<String> = open().map(|ask| ask.record.id.to_string()).collect();
        let (asks, code) = (asks.join(","), exit.code());
        let reason = core.attempts().last_failure().unwrap_or("the manager was not asked yet");
        if open().all(|ask| ask.on_disk) {
            warn!(
                scheduler.key = %key, signoff.pending = asks, spool.durability = durability.label(), exit.code = code, reason,
                "Stopping with a sign-off queued: whoever opens this spool next replays it."
            );
        } else {
            error!(
                scheduler.key = %key, signoff.pending = asks, exit.code = code, reason,
                "Stopping with a sign-off that neither the manager acknowledged nor the spool took: it is lost, unless the disk \
                 still takes it. If the row stays active, signoff reconcile finds it."
            );
        }
    } else {
        info!(scheduler.key = %key, exit.code = exit.code(), "Stopping.");
    }
}

/// The own key's sign-off is done, or queued; another one, which the scheduler may be registered under, is queued.
pub fn leaving_others(core: &Lifecycle, durability: Durability) {
    warn!(
        scheduler.key = %core.key(), spool.durability = durability.label(), exit.code = Exit::Queued.code(),
        signoff.pending = core.pending().iter().filter(|ask| ask.acknowledged.is_none()).count(),
        "Stopping with a sign-off queued of a key that the scheduler may be registered under: whoever opens this spool next replays it."
    );
}

/// A hook's answer as it goes over the socket.
pub fn pre_stop_answer(answer: &Answer, durability: Durability, wall: WallMillis) -> PreStopAnswer {
    let durability = durability.queued().to_owned();
    PreStopAnswer {
        result: answer.verdict,
        why: match (answer.verdict, &answer.why) {
            (Verdict::Confirmed, _) => "the manager acknowledged that the row is inactive".to_owned(),
            (Verdict::Absent, _) => "the manager has no such row any more".to_owned(),
            (Verdict::NeverRegistered, _) => "the scheduler never registered with the manager".to_owned(),
            (Verdict::Superseded, _) => "the scheduler serves again".to_owned(),
            (Verdict::Dropped, _) => "dropped from the queue by hand".to_owned(),
            (Verdict::Contested, _) => "it may have been signed off, and its row is active".to_owned(),
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

/// The same answer, where it is open which key the scheduler registers: only the one that is answered for is drained.
pub fn in_question(own: PreStopAnswer) -> PreStopAnswer {
    let why = "it is open which key the scheduler registers: the end signs the other one off, too";
    PreStopAnswer {
        result: Verdict::Queued,
        why: format!("{why}; {}", own.why),
        durability: String::new(),
        ..own
    }
}

/// What came of a row that was to be registered again.
pub fn registered(key: &SchedulerKey, registered: &Registered, done: &Result<(), Failure>, said: &Said) {
    match done {
        Ok(()) => seldom!(
            said, Line::PutBack, warn, scheduler.key = %key, row.port = registered.port, row.idc = registered.idc,
            row.location = registered.location, row.features = registered.features.join(","), row.config = registered.config,
            "Registered the scheduler's row again, as it was last read: somebody had deleted it."
        ),
        Err(why) => seldom!(
            said, Line::NotPutBack, warn, scheduler.key = %key, reason = %why,
            "The scheduler's row could not be registered again."
        ),
    }
}

/// What the core knows, put into what is known besides.
pub fn status(mut status: Status, core: &Lifecycle, known: &Known, now: Now) -> Status {
    status.now = now.wall;
    status.key = Some(core.key().clone());
    status.identity_known = if core.listed() { Some(true) } else { core.key_unknown().then_some(false) };
    (status.scheduler.state, status.scheduler.since) = match core.scheduler() {
        Scheduler::Serving(since) => (SchedulerState::Serving, Some(wall_of(since, now))),
        Scheduler::Down(since) => (SchedulerState::Down, Some(wall_of(since, now))),
        Scheduler::Unseen | Scheduler::Unknown => (SchedulerState::Unknown, None),
    };
    if status.scheduler.state == SchedulerState::Serving {
        status.scheduler.why = None;
    }
    status.row = core.row().map(|row| RowStatus {
        state: row.state.into(),
        at: wall_of(row.asked, now),
        source: match row.freshness {
            Freshness::Fresh => "rest",
            Freshness::Within30s => "grpc",
        }
        .to_owned(),
    });
    status.row_known = known.best(core).map(|best| RowKnown {
        state: best.state.into(),
        at: wall_of(best.at, now),
        by: best.by.word().to_owned(),
    });
    status.drain_until = core.drain_until().map(|at| wall_of(at, now));
    status.deadline = core.deadline().filter(|at| *at > now.at).map(|at| wall_of(at, now));
    status.put_back_at = known.put_back_at().map(|at| wall_of(at, now));
    if let Some((since, why)) = core.held() {
        status.hold_since = Some(wall_of(since, now));
        status.hold_reason = Some(why.words().to_owned());
    }
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

/// What the disk said of the spool, or that it said nothing.
pub fn spool(
    status: &mut Status,
    survey: &Result<(Count, Vec<Record>), DiskError>,
    silent_for: Option<Duration>,
    now: Now,
) {
    status.now = now.wall;
    match survey {
        Ok((count, marks)) => {
            self::count(status, count);
            status.marks = marks.iter().map(mark).collect();
        }
        Err(error) => {
            status.spool.why = Some(error.to_string());
            status.spool.silent_since =
                silent_for.map(|silent| now.wall.saturating_sub(milliseconds(silent)));
        }
    }
}

/// How many files of each kind the spool has.
pub fn count(status: &mut Status, count: &Count) {
    status.spool.asks = Some(count.asks);
    status.spool.for_another = Some(count.for_another);
    status.spool.marks = Some(count.marks);
    status.spool.corrupt = Some(count.corrupt);
    status.spool.newer = Some(count.newer);
}

fn mark(record: &Record) -> MarkStatus {
    let what = match record.what {
        What::Seen => "seen",
        What::SignOff { .. } => "signed-off",
        What::Held => "held",
    };
    MarkStatus { id: record.id.to_string(), what: what.to_owned(), at: record.at }
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

#[cfg(test)]
mod tests;
