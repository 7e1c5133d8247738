//! Accepting connections: the one place for caps, time-outs and a listener's errors, whatever is spoken on it.
//!
//! A connection is *busy* while it waits for an answer of ours, and only then: not while its client has still to send a
//! request, or to read what it was sent. Promises:
//!
//! - At most [`Limits::connections`] are open. At the cap a new one takes the place of the one that was idle longest;
//!   if all are busy, the new one is closed at once. So a client that opens connections and says nothing shuts nobody out.
//! - One that wasn't busy for [`Limits::idle`] is closed, whatever its client trickles in or leaves unread.
//! - A listener's error (no file descriptor left, for one) is logged once, makes room, and is retried without spinning.
//! - What clients do writes at most a line a minute of each kind into the log.
//! - After the shutdown the port is closed at once, and what is under way has [`Limits::linger`] to end.
//! - Nothing outlives the future: dropping it closes the listener and every connection.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::io::Errno;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::logging::seldom::Seldom;

/// How long to wait after an error of the listener itself.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What a client may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, at least 1.
    pub connections: usize,
    /// How long a connection may be open without being busy.
    pub idle: Duration,
    /// How long what is under way at the shutdown may take.
    pub linger: Duration,
}

impl Default for Limits {
    /// 64 connections, 10 s, 500 ms.
    fn default() -> Self {
        Self { connections: 64, idle: Duration::from_secs(10), linger: Duration::from_millis(500) }
    }
}

/// Where connections come from.
pub trait Listener: Send + Sync {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Who is at its other end.
    type Peer: Send + 'static;
    /// The next connection. Cancel safe.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Peer)>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Peer = SocketAddr;
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self).await
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    type Peer = ();
    async fn accept(&self) -> io::Result<(UnixStream, ())> {
        UnixListener::accept(self).await.map(|(stream, _)| (stream, ()))
    }
}

#[derive(Debug, Clone, Copy)]
struct Load {
    /// Answers being waited for.
    busy: usize,
    /// When `busy` last changed.
    since: Instant,
}

/// A connection's side of the bargain: it says when it is busy, and hears when it should end.
#[derive(Debug, Clone)]
pub struct Handle {
    load: Arc<watch::Sender<Load>>,
    closing: watch::Receiver<bool>,
}

impl Handle {
    /// Busy until the guard is dropped.
    pub fn busy(&self) -> Busy {
        self.change(|busy| busy + 1);
        Busy(self.clone())
    }

    /// The server is shutting down: no further request is to be taken.
    pub fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Resolves when the server shuts down. Cancel safe.
    pub async fn closing(&self) {
        // The sender is dropped only with the server, which ends the connection too.
        let _ = self.closing.clone().wait_for(|closing| *closing).await;
    }

    fn change(&self, to: impl FnOnce(usize) -> usize) {
        self.load.send_modify(|load| *load = Load { busy: to(load.busy), since: Instant::now() });
    }
}

/// While it lives, its connection is busy.
#[derive(Debug)]
pub struct Busy(Handle);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|busy| busy.saturating_sub(1));
    }
}

/// The open connections, oldest first.
#[derive(Default)]
struct Open(Mutex<BTreeMap<u64, Slot>>);

struct Slot {
    load: Arc<watch::Sender<Load>>,
    /// Set once, to end the connection at once.
    cut: watch::Sender<bool>,
}

impl Open {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<u64, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection that was idle longest. False if all are busy.
    fn make_room(&self) -> bool {
        let mut slots = self.slots();
        let idlest = slots
            .iter()
            .map(|(id, slot)| (*slot.load.borrow(), *id))
            .filter(|(load, _)| load.busy == 0)
            .min_by_key(|(load, id)| (load.since, *id));
        let Some((_, id)) = idlest else { return false };
        if let Some(slot) = slots.remove(&id) {
            slot.cut.send_replace(true);
        }
        true
    }
}

/// Forgets its connection when that ends, however it ends.
struct Registered {
    open: Arc<Open>,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.open.slots().remove(&self.id);
    }
}

/// Serves what connects, each connection in a task of its own, until the shutdown; resolves when the last one has ended.
/// `name` is the listener's name in the logs.
pub async fn serve<L, S, F>(
    name: &'static str,
    listener: L,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
    connection: S,
) where
    L: Listener,
    S: Fn(L::Stream, L::Peer, Handle) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let (close, closing) = watch::channel(false);
    let open = Arc::new(Open::default());
    let mut tasks = JoinSet::new();
    // Whoever connects again and again must not fill the log.
    let (mut failing, mut failed, mut full) = (false, Seldom::new(1), Seldom::new(1));
    let mut next = 0u64;
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                report(name, ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_connection(&error) => continue,
            Err(error) => {
                if !std::mem::replace(&mut failing, true)
                    && let Some(turn) = failed.turn(Instant::now())
                {
                    tracing::warn!(
                        listener = name,
                        error = %error,
                        log.held_back = turn.held_back,
                        "Connections can't be accepted; the longest idle one is closed and it is tried again."
                    );
                }
                open.make_room();
                tokio::select! {
                    () = &mut shutdown => break,
                    () = sleep(ACCEPT_PAUSE) => continue,
                }
            }
        };
        failing = false;
        while let Some(ended) = tasks.try_join_next() {
            report(name, ended);
        }
        if open.slots().len() >= limits.connections && !open.make_room() {
            if let Some(turn) = full.turn(Instant::now()) {
                tracing::warn!(
                    listener = name,
                    limit = limits.connections,
                    log.held_back = turn.held_back,
                    "All connections are busy; a new one was closed."
                );
            }
            continue;
        }
        // One that was made to go is gone at its task's next turn: in a burst there would be many.
        while tasks.len() >= limits.connections
            && let Some(ended) = tasks.join_next().await
        {
            report(name, ended);
        }
        let load = Arc::new(watch::Sender::new(Load { busy: 0, since: Instant::now() }));
        let (cut, cut_off) = watch::channel(false);
        open.slots().insert(next, Slot { load: load.clone(), cut });
        let registered = Registered { open: open.clone(), id: next };
        next += 1;
        let idle = limits.idle;
        let watched = load.subscribe();
        let served = connection(stream, peer, Handle { load, closing: closing.clone() });
        tasks.spawn(async move {
            let _registered = registered;
            tokio::select! {
                () = served => {}
                () = idle_for(idle, watched) => {}
                () = until_cut(cut_off) => {}
            }
        });
    }
    drop(listener);
    close.send_replace(true);
    let ended = timeout(limits.linger, async {
        while let Some(ended) = tasks.join_next().await {
            report(name, ended);
        }
    });
    if ended.await.is_err() {
        tracing::debug!(listener = name, connections = tasks.len(), "Connections were cut at the shutdown.");
    }
}

fn report(name: &'static str, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && !error.is_cancelled()
    {
        tracing::error!(listener = name, error = %error, "A connection's task failed.");
    }
}

/// Resolves when the connection hasn't been busy for `idle`.
async fn idle_for(idle: Duration, mut load: watch::Receiver<Load>) {
    loop {
        let now = *load.borrow_and_update();
        let changed = if now.busy > 0 {
            load.changed().await
        } else {
            tokio::select! {
                () = sleep_until(now.since + idle) => return,
                changed = load.changed() => changed,
            }
        };
        if changed.is_err() {
            // The connection let go of its handle: it is ending.
            return std::future::pending().await;
        }
    }
}

async fn until_cut(mut cut: watch::Receiver<bool>) {
    if cut.wait_for(|cut| *cut).await.is_err() {
        // The slot went without a cut, which only the connection's own end does.
        std::future::pending::<()>().await;
    }
}

/// Errors of one connection that `accept` passes on: accept(2) says to go on as if nothing had been there.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::NONET
                | Errno::OPNOTSUPP
                | Errno::PERM
        )
    )
}

#[cfg(test)]
mod tests;
