//! The agent's unix socket, `agent.sock` in the run directory: pre-stop, status and check, for whoever may write the file.
//!
//! One exchange a connection: one line of JSON each way, then the agent closes.
//!
//! ```text
//! -> {"version":1,"request":"pre-stop","deadline_ms":5000}
//! <- {"version":1,"pre-stop":{"result":"confirmed","why":"...","watched_until":1790000000000,"durability":"...","persisted":true}}
//! -> {"version":1,"request":"status"}
//! <- {"version":1,"status":{...}}
//! -> {"version":2,"request":"dance"}
//! <- {"version":1,"refused":"..."}
//! ```
//!
//! Unknown fields are ignored on both sides. A version or a request that isn't known is refused with what is spoken. A
//! request is at most [`MAX_REQUEST`] bytes and has 5 s to arrive; a request that was taken is carried through even if its
//! client goes away.

use std::{fmt, path::Path, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    agent::{check::WITHOUT_MANAGER, lifecycle::Verdict as PreStopResult},
    spool::record::WallMillis,
};

pub mod client;
pub mod server;
pub mod status;

pub use self::{
    client::{AskError, ask},
    server::{AgentSocket, BindError, bind, serve},
    status::Status,
};

/// The version of the protocol spoken here.
pub const VERSION: u64 = 1;

/// The largest request, in bytes, its newline included.
pub const MAX_REQUEST: usize = 64 << 10;

/// The largest answer, in bytes, its newline included.
pub const MAX_ANSWER: usize = 4 << 20;

/// The requests of [`VERSION`], as they are written.
const REQUESTS: &str = "pre-stop, status, check";

/// Where the socket of a run directory is.
pub fn path_in(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.sock")
}

/// Whether an agent's socket is in this run directory. Waits for at most a second.
pub fn is_there(run_dir: &Path) -> bool {
    let path = path_in(run_dir);
    crate::files::within_blocking(crate::files::LIMIT, move || path.exists()).unwrap_or(false)
}

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Sign off, and answer once that is confirmed, or queued and the deadline has passed.
    PreStop {
        /// How long the answer may take; `None`: the agent's own default.
        deadline: Option<Duration>,
    },
    /// What the agent knows.
    Status,
    /// What of its surroundings is right and what isn't.
    Check,
}

/// A request as it is written. Read leniently, so that a refusal can say what was wrong.
#[derive(Debug, Serialize, Deserialize)]
struct RequestLine {
    version: u64,
    request: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
}

impl Request {
    fn name(&self) -> &'static str {
        match self {
            Request::PreStop { .. } => "pre-stop",
            Request::Status => "status",
            Request::Check => "check",
        }
    }

    fn to_line(self) -> Result<String, serde_json::Error> {
        let deadline_ms = match self {
            Request::PreStop { deadline } => {
                deadline.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
            }
            Request::Status | Request::Check => None,
        };
        line(&RequestLine { version: VERSION, request: self.name().to_owned(), deadline_ms })
    }

    /// The request in a line, or why it is refused.
    fn from_line(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let spoken =
            || format!("signoff {} speaks version {VERSION} here: {REQUESTS}", env!("CARGO_PKG_VERSION"));
        let no_request = |error: serde_json::Error| format!("this is no request ({error}); {}", spoken());
        // Another version may have other fields, so the version is read alone first.
        let Version { version } = serde_json::from_slice(text).map_err(no_request)?;
        if version != VERSION {
            return Err(format!("version {version} is not spoken; {}", spoken()));
        }
        let RequestLine { request, deadline_ms, .. } = serde_json::from_slice(text).map_err(no_request)?;
        match request.as_str() {
            "pre-stop" => Ok(Request::PreStop { deadline: deadline_ms.map(Duration::from_millis) }),
            "status" => Ok(Request::Status),
            "check" => Ok(Request::Check),
            _ => Err(format!("request {request:?} is not known; {}", spoken())),
        }
    }
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::PreStop`].
    PreStop(PreStopAnswer),
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Check`].
    Check(Vec<Finding>),
    /// To a request that isn't served, and why.
    Refused(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct ResponseLine {
    version: u64,
    #[serde(flatten)]
    response: Response,
}

/// The answer to a pre-stop. Displayed it is the one line that users read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreStopAnswer {
    /// How it ended.
    pub result: PreStopResult,
    /// The rest of the line: why, and what comes next.
    #[serde(default)]
    pub why: String,
    /// Until when the row is still watched, by the wall clock: earlier attempts may still be applied.
    #[serde(default)]
    pub watched_until: Option<WallMillis>,
    /// How long the spool's volume lives, in words.
    #[serde(default)]
    pub durability: String,
    /// The ask is on disk; where an agent doesn't say, it is.
    #[serde(default = "on_disk")]
    pub persisted: bool,
}

impl PreStopAnswer {
    /// Beside a scheduler without a manager: there is no row.
    pub fn without_manager() -> Self {
        Self {
            result: PreStopResult::Absent,
            why: WITHOUT_MANAGER.to_owned(),
            watched_until: None,
            durability: String::new(),
            persisted: true,
        }
    }
}

fn on_disk() -> bool {
    true
}

impl fmt::Display for PreStopAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.result == PreStopResult::Queued && !self.persisted {
            f.write_str("queued in memory only, the spool refused")?;
        } else if self.result == PreStopResult::Queued && !self.durability.is_empty() {
            f.write_str(&self.durability)?;
        } else {
            f.write_str(self.result.label())?;
        }
        if !self.why.is_empty() {
            // Text from a manager must not make two lines of it.
            write!(f, ": {}", status::one_line(&self.why))?;
        }
        Ok(())
    }
}

/// How one check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but not as well as it could.
    Warning,
    /// A sign-off would fail, or be lost.
    Failed,
}

/// One check's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was checked, a word or two.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it, where something is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

/// `value` as one line of JSON, newline included.
fn line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    Ok(line)
}

#[cfg(test)]
mod tests;
