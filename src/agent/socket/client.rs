//! The client's side: one question to the agent of a run directory.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, net::UnixStream, time::timeout};

use super::{MAX_ANSWER, Request, Response, ResponseLine, VERSION, path_in, server::read_line};
use crate::files;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no socket, or nobody listens on it.
    #[error("no agent runs here: nobody listens on {}", .0.display())]
    NoAgent(PathBuf),
    /// The socket may not be used by this user. Says nothing about the agent.
    #[error(
        "permission denied on {}: run this as the agent's user or in its group (runAsUser, fsGroup)", .0.display()
    )]
    Denied(PathBuf),
    /// The agent refused the request, with its words.
    #[error("the agent refused: {0}")]
    Refused(String),
    /// The agent is there, but its answer isn't.
    #[error("{0}")]
    Broken(String),
}

/// Asks the agent whose run directory this is; `wait` bounds the whole exchange.
pub async fn ask(run_dir: &Path, request: &Request, wait: Duration) -> Result<Response, AskError> {
    let path = path_in(run_dir);
    match timeout(wait, exchange(&path, request)).await {
        Ok(answered) => answered,
        Err(_) => Err(AskError::Broken(format!(
            "the agent at {} did not answer {} within {}",
            path.display(),
            request.name(),
            humantime::format_duration(wait),
        ))),
    }
}

/// Its path may lie on a disk that hangs: who has asked in vain for a moment has the rest of its time for something else.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    let path = path.to_owned();
    let connected = files::within(files::LIMIT, move || std::os::unix::net::UnixStream::connect(path));
    let stream = connected.await??;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

async fn exchange(path: &Path, request: &Request) -> Result<Response, AskError> {
    let broken = |what: &str, why: &dyn std::fmt::Display| {
        AskError::Broken(format!("the agent at {} {what}: {why}", path.display()))
    };
    let line = request.to_line().map_err(|error| broken("can't be asked", &error))?;
    let mut stream = connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NoAgent(path.to_owned()),
        io::ErrorKind::PermissionDenied => AskError::Denied(path.to_owned()),
        _ => broken("can't be reached", &error),
    })?;
    // A server that has no room closes without reading; what it said, if anything, counts more than that.
    let sent = stream.write_all(line.as_bytes()).await;
    let answer = match (read_line(&mut stream, MAX_ANSWER).await, sent) {
        (Ok(Some(answer)), _) => answer,
        (Ok(None), _) => return Err(broken("answered", &format_args!("more than {MAX_ANSWER} bytes"))),
        (Err(_), Err(error)) => return Err(broken("took no request", &error)),
        (Err(error), Ok(())) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(broken("closed", &"without an answer (too many clients, or it is stopping)"));
        }
        (Err(error), Ok(())) => return Err(broken("closed without an answer", &error)),
    };
    let ResponseLine { version, response } = serde_json::from_slice(&answer)
        .map_err(|error| broken("gave an answer that can't be read", &error))?;
    match response {
        // In any version: it is how another version says that it is one.
        Response::Refused(why) => Err(AskError::Refused(why)),
        _ if version != VERSION => Err(broken(
            "answered",
            &format_args!(
                "in version {version}; signoff {} speaks version {VERSION}",
                env!("CARGO_PKG_VERSION")
            ),
        )),
        answer => Ok(answer),
    }
}
