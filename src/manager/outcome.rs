//! What each answer of the manager means: the one table.
//!
//! The question is always the same: may something of this call still be applied? A status that the manager's own
//! handler returned ends the call, so nothing more of it is applied (`Failed`, or `Rejected` where the same request can
//! never succeed). A status that a proxy, a client library or a cut connection made up leaves it open (`Unknown`).
//! The manager reports every failure of its own as `Internal`, so there the message decides.

use std::time::Duration;

use tonic::{Code, Status};

use super::{Failure, Outcome};
use crate::net::{CallError, ConnectError, HTTP_STATUS};

/// What a gRPC status says about its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Done, acknowledged.
    Confirmed,
    /// There is no such row.
    Absent,
    /// The same request can't succeed: the request, the credentials or the endpoint is wrong.
    Rejected,
    /// Ended by the manager; nothing more of it is applied.
    Failed,
    /// Ended by the manager because it is overloaded.
    Exhausted,
    /// It may still be applied.
    Unknown,
}

/// What the manager says, as gorm's error, where no row matches.
const RECORD_NOT_FOUND: &str = "record not found";

/// How Go prints a gRPC status inside another one's message.
const NESTED: &str = "rpc error: code = ";

/// Messages of `Internal` that no handler of the manager wrote: tonic's own decoder, or a proxy whose connection to the
/// manager broke. They say nothing about what was applied.
const NOT_THE_MANAGERS: [&str; 6] = [
    "protocol error:",
    "failed to decode",
    "Unexpected EOF decoding stream",
    "decoded message length too large",
    "RST_STREAM",
    "h2 protocol error",
];

/// Words of an error of the manager's database or cache connection (Go's net package, go-sql-driver/mysql, pgx, redis).
const DATABASE: [&str; 16] = [
    "dial tcp",
    "dial unix",
    "lookup ",
    "connection refused",
    "connection reset",
    "broken pipe",
    "invalid connection",
    "bad connection",
    "unexpected EOF",
    "i/o timeout",
    "Too many connections",
    "Lock wait timeout",
    "Deadlock",
    "failed to connect to",
    "read-only",
    "context deadline exceeded",
];

/// The table: every gRPC code, and under `Internal` every message that is told apart.
pub fn classify(code: Code, message: &str) -> Class {
    let not_the_managers = NOT_THE_MANAGERS.iter().any(|words| message.contains(words));
    match code {
        Code::Ok => Class::Confirmed,
        // Also what a peer says while it stops, and what libraries say for a lost connection.
        Code::Cancelled | Code::Unknown | Code::DeadlineExceeded | Code::Unavailable => Class::Unknown,
        Code::ResourceExhausted => Class::Exhausted,
        Code::NotFound if message.trim() == RECORD_NOT_FOUND => Class::Absent,
        // tonic's own word for an answer over the cap.
        Code::OutOfRange if not_the_managers => Class::Unknown,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Class::Rejected,
        Code::Aborted | Code::DataLoss => Class::Failed,
        Code::Internal if message.trim() == RECORD_NOT_FOUND => Class::Absent,
        Code::Internal if not_the_managers => Class::Unknown,
        Code::Internal => match nested(message) {
            Some(
                "InvalidArgument" | "PermissionDenied" | "Unauthenticated" | "Unimplemented" | "OutOfRange",
            ) => Class::Rejected,
            Some("ResourceExhausted") => Class::Exhausted,
            // Whatever else the handler met, it has returned.
            Some(_) | None => Class::Failed,
        },
    }
}

fn nested(message: &str) -> Option<&str> {
    let name = message.trim_start().strip_prefix(NESTED)?;
    Some(name.split_once(" desc").map_or(name, |(name, _)| name).trim())
}

/// How a call ended whose status is `status`, made at `at` (an endpoint or address, for the message).
pub fn of_status(at: &str, status: &Status) -> Outcome {
    if let Some(error) = call_error(status) {
        return of_call_error(at, error);
    }
    let class = classify(status.code(), status.message());
    let why = format!("{at}: {}", words(class, status));
    let floor = floor_of(status);
    outcome(class, Failure { why, floor, exhausted: class == Class::Exhausted })
}

/// The error of our own connection, where a status was made up from one.
pub fn call_error(status: &Status) -> Option<&CallError> {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<CallError>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// Whether the manager itself gave this answer, and not something that stands before it: a mesh's proxy, an ingress, a balancer.
/// Only then does it say anything of the manager's health. `Unavailable`, `Cancelled` and `DeadlineExceeded` are no words of a
/// manager's handler (v2.1.34 to v2.5.1 report each failure of their own as `Internal`, and of a list as `Unknown`).
pub fn is_the_managers(status: &Status) -> bool {
    let by_a_proxy = matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded);
    !by_a_proxy && !status.metadata().contains_key(HTTP_STATUS) && call_error(status).is_none()
}

/// How a call ended that the connection failed.
pub fn of_call_error(at: &str, error: &CallError) -> Outcome {
    let failure = Failure::new(format!("{at}: {error}"));
    if error.surely_not_seen() { Outcome::Failed(failure) } else { Outcome::Unknown(failure) }
}

/// How an attempt ended for which no connection was made.
pub fn of_connect_error(error: &ConnectError) -> Outcome {
    Outcome::Failed(Failure::new(error.to_string()))
}

fn outcome(class: Class, failure: Failure) -> Outcome {
    match class {
        Class::Confirmed => Outcome::Confirmed,
        Class::Absent => Outcome::Absent,
        Class::Rejected => Outcome::Rejected(failure),
        Class::Failed | Class::Exhausted => Outcome::Failed(failure),
        Class::Unknown => Outcome::Unknown(failure),
    }
}

fn words(class: Class, status: &Status) -> String {
    let said = if status.message().is_empty() { status.code().description() } else { status.message() };
    let said: String = said.chars().take(300).collect();
    match class {
        Class::Absent => "the manager has no such row".to_owned(),
        Class::Exhausted => format!("the manager is overloaded ({said})"),
        Class::Rejected => format!("rejected with {:?}: {said}", status.code()),
        Class::Failed if DATABASE.iter().any(|words| said.contains(words)) => {
            format!("the manager can't reach its database ({said})")
        }
        Class::Confirmed | Class::Failed | Class::Unknown => format!("{:?}: {said}", status.code()),
    }
}

/// A wish to come again later than this counts as this, the longest delay between attempts in the background: one odd header of a
/// proxy must not keep a healthy manager from being asked.
pub const LONGEST_WISH: Duration = Duration::from_secs(30);

/// The peer's wish for when to come again: `grpc-retry-pushback-ms`, or `retry-after` as a proxy sets it.
fn floor_of(status: &Status) -> Option<Duration> {
    let text = |name| status.metadata().get(name).and_then(|v| v.to_str().ok());
    let pushback = text("grpc-retry-pushback-ms").and_then(|ms| ms.trim().parse().ok());
    let pushback = pushback.map(|ms| Duration::from_millis(ms).min(LONGEST_WISH));
    pushback.or_else(|| text("retry-after").and_then(retry_after))
}

/// `Retry-After` in seconds, at most [`LONGEST_WISH`]. Its other form, a date, is left out: no clocks are compared.
pub fn retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(|seconds| Duration::from_secs(seconds).min(LONGEST_WISH))
}

/// Every HTTP status: what the answer to a REST request, `message` being the manager's own word in it, says about it.
pub fn classify_http(status: u16, message: &str) -> Class {
    match status {
        200..=299 => Class::Confirmed,
        404 if message.trim() == RECORD_NOT_FOUND => Class::Absent,
        429 => Class::Exhausted,
        // The server gave up on reading the request, or is not ready for it: not processed.
        408 | 421 | 425 => Class::Failed,
        // Redirects are not followed (they would carry the credentials away); the rest of 4xx is the request's fault.
        300..=499 => Class::Rejected,
        // The manager's handler answers 500 where its database failed.
        500 => Class::Failed,
        501 | 505 => Class::Rejected,
        // 502, 503, 504 and their like come from what stands before the manager; below 200 is no final answer.
        _ => Class::Unknown,
    }
}

/// How a REST request ended that was answered with `status`.
pub fn of_http(at: &str, status: u16, message: &str, retry: Option<Duration>) -> Outcome {
    let class = classify_http(status, message);
    let said: String = message.chars().take(300).collect();
    let why = match class {
        Class::Absent => format!("{at}: the manager has no such row"),
        Class::Exhausted => format!("{at}: HTTP {status}: the manager is overloaded ({said})"),
        _ if said.is_empty() => format!("{at}: HTTP {status}"),
        _ => format!("{at}: HTTP {status}: {said}"),
    };
    outcome(class, Failure { why, floor: retry, exhausted: class == Class::Exhausted })
}

#[cfg(test)]
mod tests;
