//! Faults on demand: what a manager, its database, its Redis or the network before it can do wrong.
//!
//! A [`Fault`] lasts for a time, for a number of requests (or connections), or until it is cleared. Faults of a connection
//! (refuse, black-hole, hang-up, garbage, slow) are real on the wire; the others act on the manager's calls, and only `proxied`
//! on its health service too.

use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

#[cfg(test)]
mod tests;
mod text;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The listener is closed: new connections are refused. Open ones live on. For a time only.
    Refuse,
    /// Connections are accepted and nothing is said on any, open ones included. With a count: that many new ones.
    BlackHole,
    /// A call is taken up only `after` seconds.
    Stall,
    /// KeepAlive: the connection is reset after the first message was applied (the end still is). REST: at the request.
    Reset,
    /// The call is applied in full, then the connection is reset instead of an answer.
    CutAfterApply,
    /// KeepAlive: both moments are applied `after` seconds, even when the client has gone.
    ApplyLate,
    /// KeepAlive: `active` is written, then the connection is reset, and `inactive` is never written.
    DieBetween,
    /// KeepAlive: `active` is written, the database is lost before `inactive`: the row stays active.
    DatabaseLost,
    /// gRPC Unavailable; REST 503.
    Unavailable,
    /// gRPC ResourceExhausted; REST 429, with `Retry-After: 1` if `after` isn't given.
    ResourceExhausted,
    /// gRPC Internal, by default with a lost database's message; REST 500.
    Internal,
    /// An HTTP answer with `status` (500 if not given), as from a proxy, to gRPC and REST alike.
    Http,
    /// The manager is away, and a proxy stands in its place: each request, health checks too, is answered with HTTP `status` (503
    /// if not given), or with a `message` as gRPC Unavailable. With `after`, `Retry-After` in whole seconds.
    Proxied,
    /// Connections are accepted, and closed without a byte.
    HangUp,
    /// Random bytes instead of an answer, then the end of the connection.
    Garbage,
    /// Everything is sent one byte at a time.
    Slow,
    /// The moments of KeepAlive wait for their cache: `inactive` after 3.4 s, the answer after 5.8 s.
    RedisDown,
    /// KeepAlive: `active` at once, no answer; `inactive` 2 s after the client gave up.
    RedisFrozen,
    /// Lists have a million rows more.
    MillionRow,
}

/// Every kind, for help texts and switches.
pub const KINDS: [Kind; 19] = [
    Kind::Refuse,
    Kind::BlackHole,
    Kind::Stall,
    Kind::Reset,
    Kind::CutAfterApply,
    Kind::ApplyLate,
    Kind::DieBetween,
    Kind::DatabaseLost,
    Kind::Unavailable,
    Kind::ResourceExhausted,
    Kind::Internal,
    Kind::Http,
    Kind::Proxied,
    Kind::HangUp,
    Kind::Garbage,
    Kind::Slow,
    Kind::RedisDown,
    Kind::RedisFrozen,
    Kind::MillionRow,
];

const CALLS: [&str; 11] = [
    "keep-alive",
    "list",
    "register",
    "signin",
    "signup",
    "refresh",
    "get",
    "patch",
    "delete",
    "users",
    "roles",
];
const CALL_NAMES: &str =
    "one of keep-alive, list, register, signin, signup, refresh, get, patch, delete, users, roles";

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl FromStr for Kind {
    type Err = FaultError;
    fn from_str(text: &str) -> Result<Self, FaultError> {
        KINDS.into_iter().find(|k| k.to_string() == text).ok_or_else(|| FaultError::Kind(text.to_owned()))
    }
}

/// Which API a fault concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// gRPC.
    Grpc,
    /// REST.
    Rest,
    /// Both.
    #[default]
    Both,
}

impl Scope {
    fn covers(self, api: Scope) -> bool {
        self == api || self == Scope::Both || api == Scope::Both
    }
}

/// Why a fault can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No such kind.
    #[error("there is no fault {0:?}; use one of {list}", list = kind_list())]
    Kind(String),
    /// No such parameter.
    #[error(
        "fault parameter {0:?} is unknown; use count=N, seconds=S, after=S, scope=grpc|rest|both, call=NAME, status=CODE or message=TEXT (last)"
    )]
    Parameter(String),
    /// A parameter's value is wrong.
    #[error("fault parameter {0}: {1:?} is not {2}")]
    Value(&'static str, String, &'static str),
}

fn kind_list() -> String {
    KINDS.map(|k| k.to_string()).join(", ")
}

/// One fault. As text: `kind[,count=N][,seconds=S][,after=S][,scope=grpc][,call=keep-alive][,status=503][,message=...]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// For so many requests or connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// For so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How long `stall` and `apply-late` wait, in seconds; 7 if not given. In a REST error: `Retry-After`, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<f64>,
    /// At which API.
    #[serde(default)]
    pub scope: Scope,
    /// Only for calls of this name: `keep-alive`, `list`, `register`; `signin`, `signup`, `refresh`, `get`, `patch`, `delete`,
    /// `users`, `roles`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The status of `http`; 500 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The message of an error answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Fault {
    /// A fault at both APIs that lasts until it is cleared.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            count: None,
            seconds: None,
            after: None,
            scope: Scope::Both,
            call: None,
            status: None,
            message: None,
        }
    }

    /// For so many requests (or connections).
    pub fn count(mut self, count: u32) -> Self {
        self.count = Some(count);
        self
    }

    /// For so long.
    pub fn lasting(mut self, time: Duration) -> Self {
        self.seconds = Some(time.as_secs_f64());
        self
    }

    /// How long `stall` and `apply-late` wait.
    pub fn after(mut self, time: Duration) -> Self {
        self.after = Some(time.as_secs_f64());
        self
    }

    /// At one API only.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// For calls of one name only.
    pub fn call(mut self, call: &str) -> Self {
        self.call = Some(call.to_owned());
        self
    }

    /// With this message.
    pub fn message(mut self, message: &str) -> Self {
        self.message = Some(message.to_owned());
        self
    }

    /// How long to wait.
    pub(crate) fn wait(&self) -> Duration {
        Duration::from_secs_f64(self.after.unwrap_or(7.0))
    }

    /// Whether the values are possible.
    pub fn check(&self) -> Result<(), FaultError> {
        for (name, value) in [("seconds", self.seconds), ("after", self.after)] {
            if let Some(v) = value
                && !(0.0..=1e6).contains(&v)
            {
                return Err(FaultError::Value(name, v.to_string(), "a number of seconds from 0 to 1000000"));
            }
        }
        if let Some(call) = &self.call
            && !CALLS.contains(&call.as_str())
        {
            return Err(FaultError::Value("call", call.clone(), CALL_NAMES));
        }
        if self.count == Some(0) {
            return Err(FaultError::Value("count", "0".into(), "a number of at least 1"));
        }
        if self.count.is_some() && self.kind == Kind::Refuse {
            return Err(FaultError::Value(
                "count",
                self.count.unwrap_or(0).to_string(),
                "possible with refuse, whose connections never arrive: use seconds",
            ));
        }
        if let Some(s) = self.status
            && !(200..=599).contains(&s)
        {
            return Err(FaultError::Value("status", s.to_string(), "an HTTP status from 200 to 599"));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Switched {
    fault: Fault,
    until: Option<Instant>,
}

/// The faults that are on.
#[derive(Debug)]
pub struct Faults {
    on: Mutex<Vec<Switched>>,
    changes: watch::Sender<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { on: Mutex::default(), changes: watch::channel(0).0 }
    }
}

impl Faults {
    /// Switches a fault on. Refused if its values aren't possible.
    pub fn add(&self, fault: Fault) -> Result<(), FaultError> {
        fault.check()?;
        let until = fault.seconds.map(|s| Instant::now() + Duration::from_secs_f64(s));
        self.lock().push(Switched { fault, until });
        self.changes.send_modify(|n| *n += 1);
        Ok(())
    }

    /// Switches all faults off.
    pub fn clear(&self) {
        self.lock().clear();
        self.changes.send_modify(|n| *n += 1);
    }

    /// What is on, with what is left of it.
    pub fn list(&self) -> Vec<Fault> {
        self.lock()
            .iter()
            .map(|s| Fault {
                seconds: s.until.map(|u| u.saturating_duration_since(Instant::now()).as_secs_f64()),
                ..s.fault.clone()
            })
            .collect()
    }

    /// The next fault of this kind for this call, one of its count used up.
    pub(crate) fn take(&self, kind: Kind, api: Scope, call: &str) -> Option<Fault> {
        let mut on = self.lock();
        let i = on.iter().position(|s| {
            s.fault.kind == kind
                && s.fault.scope.covers(api)
                && s.fault.call.as_deref().is_none_or(|c| c == call)
        })?;
        let taken = on[i].fault.clone();
        if let Some(left) = &mut on[i].fault.count {
            *left -= 1;
            if *left == 0 {
                on.remove(i);
                drop(on);
                self.changes.send_modify(|n| *n += 1);
            }
        }
        Some(taken)
    }

    /// Takes one of a count for a new connection; a fault without a count is a matter of [`Faults::is_on`].
    pub(crate) fn take_counted(&self, kind: Kind, api: Scope) -> bool {
        let counted = self
            .lock()
            .iter()
            .any(|s| s.fault.kind == kind && s.fault.scope.covers(api) && s.fault.count.is_some());
        counted && self.take(kind, api, "").is_some()
    }

    /// Whether a fault without a count is on.
    pub(crate) fn is_on(&self, kind: Kind, api: Scope) -> bool {
        self.lock()
            .iter()
            .any(|s| s.fault.kind == kind && s.fault.scope.covers(api) && s.fault.count.is_none())
    }

    /// Resolves when [`Faults::is_on`] is, or isn't, so. Cancel safe.
    pub(crate) async fn until(&self, kind: Kind, api: Scope, wanted: bool) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if self.is_on(kind, api) == wanted {
                return;
            }
            let next_end = self.lock().iter().filter_map(|s| s.until).min();
            match next_end {
                Some(end) => {
                    let _ = tokio::time::timeout_at(end, changes.changed()).await;
                }
                None => {
                    let _ = changes.changed().await;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Switched>> {
        let mut on = self.on.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        on.retain(|s| s.until.is_none_or(|u| u > now));
        on
    }
}
