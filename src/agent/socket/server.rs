//! The agent's side: the file, and who is answered on it.
//!
//! `agent.lock` beside the socket is locked for as long as the agent lives, so that a dead agent's socket is told from a
//! living one's even while two agents start at once. The socket has its mode (0660) before it listens, so that nobody else
//! can ever have connected, and appears under its name only then; it replaces a dead agent's by a rename. No symlink is
//! followed: whoever may write in the directory can't have the agent open, replace or talk to what is elsewhere.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    future::Future,
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use rustix::fs::OFlags;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::{MAX_REQUEST, Request, Response, ResponseLine, VERSION, line, path_in};
use crate::{
    agent::http::connections::{self, Handle, Limits, Listener},
    files,
};

/// Why the socket can't be served. Each names the path.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another agent lives in this run directory.
    #[error("{path} is served by another agent that lives; give each agent a --run-dir of its own")]
    Living {
        /// The socket's path.
        path: PathBuf,
    },
    /// Something else has the socket's name.
    #[error("{path} is there and is not a socket; remove it, or choose another --run-dir")]
    NotASocket {
        /// The socket's path.
        path: PathBuf,
    },
    /// A unix socket's path is 107 bytes at most.
    #[error("--run-dir {path} is too long for a socket's path: use one of at most {MAX_RUN_DIR} bytes")]
    TooLong {
        /// The run directory.
        path: PathBuf,
    },
    /// Anything else the system said.
    #[error("{path} can't be {what}: {source}")]
    System {
        /// The path.
        path: PathBuf,
        /// What failed, as a participle.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A symlink in a file's place is an error.
const NOFOLLOW: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// 107 bytes less `/agent.sock.new`.
const MAX_RUN_DIR: usize = 92;

/// How long the end waits for the socket's file to be removed: what is left is replaced by the next agent.
const REMOVED_WITHIN: Duration = Duration::from_millis(50);

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    listener: std::os::unix::net::UnixListener,
    place: Place,
}

/// A socket's file. Dropped, it is removed.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// Locked; unlocked only after the file was removed.
    lock: Option<File>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let (path, lock) = (self.path.clone(), self.lock.take());
        let removed = files::within_blocking(REMOVED_WITHIN, move || {
            let removed = fs::remove_file(path).map_err(|error| error.kind());
            drop(lock);
            removed
        });
        let why = match removed {
            Ok(Ok(()) | Err(io::ErrorKind::NotFound)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(why) => why.to_string(),
        };
        tracing::debug!(path = %self.path.display(), error = why, "The socket was not removed.");
    }
}

/// The agent's socket. Dropped, it is closed and its file removed; what hangs is waited for 50 ms.
#[derive(Debug)]
pub struct AgentSocket {
    listener: UnixListener,
    place: Place,
}

impl AgentSocket {
    /// A socket to be served. Must be called within a runtime.
    pub fn of(bound: Bound) -> Result<Self, BindError> {
        let Bound { listener, place } = bound;
        let listener = UnixListener::from_std(listener).map_err(system(&place.path, "listened on"))?;
        Ok(Self { listener, place })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.place.path
    }
}

impl Listener for AgentSocket {
    type Stream = UnixStream;
    type Peer = ();
    async fn accept(&self) -> io::Result<(UnixStream, ())> {
        Listener::accept(&self.listener).await
    }
}

/// [`make`], to be served. Must be called within a runtime, which it blocks.
pub fn bind(run_dir: &Path) -> Result<AgentSocket, BindError> {
    make(run_dir).and_then(AgentSocket::of)
}

/// Makes the run directory (0770) if it isn't there, and listens on its socket. Blocks, for as long as the disk hangs.
pub fn make(run_dir: &Path) -> Result<Bound, BindError> {
    if run_dir.as_os_str().len() > MAX_RUN_DIR {
        return Err(BindError::TooLong { path: run_dir.to_owned() });
    }
    let path = path_in(run_dir);
    make_dir(run_dir).map_err(system(run_dir, "made"))?;
    let lock = lock(&run_dir.join("agent.lock"), &path)?;
    match fs::symlink_metadata(&path) {
        Ok(file) if !file.file_type().is_socket() => return Err(BindError::NotASocket { path }),
        // Even with the lock free: someone may have removed the lock's file from under a living agent.
        Ok(_) if lives(&path) => return Err(BindError::Living { path }),
        _ => {}
    }
    let new = run_dir.join("agent.sock.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(system(&new, "removed")(error)),
        _ => {}
    }
    let socket = with_its_mode(&new)?;
    let listener = listening(socket).map_err(system(&new, "listened on"))?;
    fs::rename(&new, &path).map_err(system(&path, "put in place"))?;
    Ok(Bound { listener, place: Place { path, lock: Some(lock) } })
}

/// A socket at this path that doesn't listen yet: until it has its mode, everybody is refused.
pub(super) fn with_its_mode(path: &Path) -> Result<Socket, BindError> {
    let bound = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        Ok(socket)
    };
    let socket = bound().map_err(system(path, "bound"))?;
    fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(system(path, "given its mode"))?;
    Ok(socket)
}

fn listening(socket: Socket) -> io::Result<std::os::unix::net::UnixListener> {
    socket.set_nonblocking(true)?;
    socket.listen(1024)?;
    Ok(OwnedFd::from(socket).into())
}

fn system(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> BindError {
    let path = path.to_owned();
    move |source| BindError::System { path, what, source }
}

/// A directory that was there keeps its mode: it is the volume's, or someone's choice.
fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o770).create(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o770))
}

fn lock(lock: &Path, socket: &Path) -> Result<File, BindError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o660)
        .custom_flags(NOFOLLOW)
        .open(lock)
        .map_err(system(lock, "opened"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BindError::Living { path: socket.to_owned() }),
        Err(TryLockError::Error(error)) => Err(system(lock, "locked")(error)),
    }
}

/// Whether anyone listens there. Only a refusal proves that nobody does; a living one's full queue doesn't block this.
fn lives(path: &Path) -> bool {
    let connected = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    });
    match connected {
        Ok(()) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
    }
}

/// 64 connections; 5 s for a request to arrive, or an answer to be read.
pub fn limits() -> Limits {
    Limits { idle: Duration::from_secs(5), ..Limits::default() }
}

/// Serves until the shutdown; resolves when the answers under way are written, or `limits.linger` is over. Each request is
/// handled in a task of its own, which runs to its end even if its client goes away or the server ends.
pub async fn serve<H>(socket: AgentSocket, limits: Limits, handler: H, shutdown: impl Future<Output = ()>)
where
    H: Fn(Request) -> BoxFuture<'static, Response> + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    let connection = move |stream: UnixStream, (), handle: Handle| exchange(stream, handle, handler.clone());
    connections::serve("socket", socket, limits, shutdown, connection).await;
}

pub(crate) async fn exchange<S, H>(mut stream: S, handle: Handle, handler: Arc<H>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request) -> BoxFuture<'static, Response> + Send + Sync + 'static,
{
    let request = match read_line(&mut stream, MAX_REQUEST).await {
        Ok(Some(line)) => Request::from_line(&line),
        Ok(None) => Err(format!("the request is larger than {MAX_REQUEST} bytes")),
        Err(error) => {
            tracing::debug!(error = %error, "A client of the socket went away before it asked.");
            return;
        }
    };
    let busy = handle.busy();
    let response = match request {
        Ok(request) => tokio::spawn(handler(request)).await.unwrap_or_else(|error| {
            tracing::error!(error = %error, "A request of the socket failed.");
            Response::Refused("the agent failed to answer; its log says why".to_owned())
        }),
        Err(refused) => {
            // Who asked hears it.
            tracing::debug!(reason = refused, "A request of the socket was refused.");
            Response::Refused(refused)
        }
    };
    drop(busy);
    let line = match line(&ResponseLine { version: VERSION, response }) {
        Ok(line) => line,
        Err(error) => {
            tracing::error!(error = %error, "An answer can't be written as JSON.");
            return;
        }
    };
    // A client that went away has no use for it.
    if let Err(error) = stream.write_all(line.as_bytes()).await {
        tracing::debug!(error = %error, "A client of the socket went away before its answer.");
        return;
    }
    let _ = stream.shutdown().await;
}

/// A line without its newline; also what came before the end of the stream, if that is something. `None`: it is larger
/// than `limit` bytes.
pub(super) async fn read_line(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut bytes = [0u8; 4096];
    loop {
        let read = stream.read(&mut bytes).await?;
        let read = &bytes[..read];
        if read.is_empty() && line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = read.iter().position(|&byte| byte == b'\n');
        line.extend_from_slice(&read[..end.unwrap_or(read.len())]);
        if line.len() >= limit {
            return Ok(None);
        }
        if end.is_some() || read.is_empty() {
            return Ok(Some(line));
        }
    }
}
