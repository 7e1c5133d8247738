//! A listening port: an accept loop of our own before hyper, so that the faults of the wire are real.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use super::{
    connection::{self, Control, Socket, Wire},
    fault::{Faults, Kind, Scope},
};

pub(super) type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Boxes any server's answer.
pub(super) fn boxed<B>(response: Response<B>) -> Response<Body>
where
    B: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// How far a server's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It serves.
    Serving,
    /// Its listener is closed, its clients are told to go, open calls live on.
    Stopping,
    /// The process is gone, and its sockets with it.
    Dead,
}

/// Resolves once the phase has come that far.
pub(super) async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    if phase.wait_for(|p| *p >= wanted).await.is_err() {
        // Its owner is gone without a word: as dead as it gets.
    }
}

/// What is served at a port.
#[derive(Clone)]
pub(super) struct Port<S> {
    pub(super) service: S,
    pub(super) api: Scope,
    pub(super) http2: bool,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) faults: Arc<Faults>,
}

impl<S> Port<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Serves until the phase is Dead, or Stopping and every connection has ended. `closed` is dropped with the listener.
    pub(super) async fn run(
        self,
        listener: TcpListener,
        mut phase: watch::Receiver<Phase>,
        closed: oneshot::Sender<()>,
    ) {
        let Ok(addr) = listener.local_addr() else { return };
        let mut connections = JoinSet::new();
        let mut stopping = phase.clone();
        tokio::select! {
            () = reached(&mut stopping, Phase::Stopping) => {}
            () = self.accept(listener, addr, &phase, &mut connections) => {}
        }
        drop(closed);
        tokio::select! {
            () = reached(&mut phase, Phase::Dead) => {}
            () = ended(&mut connections) => {}
        }
        connections.shutdown().await;
    }

    async fn accept(
        &self,
        listener: TcpListener,
        addr: SocketAddr,
        phase: &watch::Receiver<Phase>,
        connections: &mut JoinSet<()>,
    ) {
        let mut listener = Some(listener);
        loop {
            let open = match listener.take() {
                Some(open) => open,
                None => match bind(addr).await {
                    Ok(open) => open,
                    Err(e) => {
                        tracing::warn!(server.addr = %addr, error = %e, "The port can't be bound again yet.");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            tokio::select! {
                biased;
                () = self.faults.until(Kind::Refuse, self.api, true) => {
                    drop(open);
                    self.faults.until(Kind::Refuse, self.api, false).await;
                    continue;
                }
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = open.accept() => match accepted {
                    Ok((tcp, _)) => {
                        connections.spawn(self.clone().connection(tcp, phase.clone()));
                    }
                    // Out of file descriptors, most likely: the next may go.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
            }
            listener = Some(open);
        }
    }

    async fn connection(self, tcp: TcpStream, mut phase: watch::Receiver<Phase>) {
        let mut dead = phase.clone();
        tokio::select! {
            biased;
            () = reached(&mut dead, Phase::Dead) => {}
            () = self.serve(tcp, &mut phase) => {}
        }
    }

    async fn serve(self, tcp: TcpStream, phase: &mut watch::Receiver<Phase>) {
        let _ = tcp.set_nodelay(true);
        if self.faults.take_counted(Kind::BlackHole, self.api) {
            return reached(phase, Phase::Stopping).await;
        }
        self.faults.until(Kind::BlackHole, self.api, false).await;
        if self.faults.take_counted(Kind::HangUp, self.api) || self.faults.is_on(Kind::HangUp, self.api) {
            return;
        }
        if self.faults.take_counted(Kind::Garbage, self.api) || self.faults.is_on(Kind::Garbage, self.api) {
            let _ = tcp.try_write(connection::NOISE);
            return;
        }
        let slow = self.faults.take_counted(Kind::Slow, self.api);
        let socket = match &self.tls {
            None => Socket::Plain(tcp),
            Some(tls) => match tls.accept(tcp).await {
                Ok(tls) => Socket::Tls(Box::new(tls)),
                Err(e) => {
                    tracing::debug!(error = %e, "A TLS handshake failed.");
                    return;
                }
            },
        };
        let control = Control::new();
        let wire = Wire::new(socket, control.clone(), self.faults.clone(), self.api, self.http2, slow);
        let io = TokioIo::new(wire);
        let of_call = control.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(of_call.clone());
            self.service.clone().call(request)
        });
        // Both kinds of connection have the same methods, but no trait in common.
        macro_rules! drive {
            ($connection:expr) => {{
                let mut connection = std::pin::pin!($connection);
                let ended = tokio::select! {
                    biased;
                    () = control.ended() => return,
                    () = reached(phase, Phase::Stopping) => None,
                    ended = connection.as_mut() => Some(ended),
                };
                match ended {
                    Some(ended) => ended,
                    None => {
                        connection.as_mut().graceful_shutdown();
                        tokio::select! {
                            biased;
                            () = control.ended() => return,
                            ended = connection => ended,
                        }
                    }
                }
            }};
        }
        let ended = if self.http2 {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drive!(builder.timer(TokioTimer::new()).serve_connection(io, service))
        } else {
            let mut builder = hyper::server::conn::http1::Builder::new();
            // As the real one's, idle connections live for as long as their clients want.
            builder.timer(TokioTimer::new()).header_read_timeout(None);
            drive!(builder.serve_connection(io, service))
        };
        if let Err(e) = ended {
            tracing::debug!(error = %e, "A connection ended.");
        }
    }
}

async fn ended(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// How long an address that is in use is tried for: a process that is just being started has every file of its parent open, the
/// former listener too, until it runs its own program.
const IN_USE_FOR: Duration = Duration::from_secs(1);
/// How many connections wait to be accepted, at most.
const BACKLOG: i32 = 1024;

async fn once_free<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + IN_USE_FOR;
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            done => return done,
        }
    }
}

/// With SO_REUSEADDR, so that a port can be had again at once: whoever listens there sets it too, and needs it on both.
fn bound(addr: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Listens there.
pub(super) async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = once_free(|| {
        let socket = bound(addr)?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    })
    .await?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener.into())
}

/// An address that stays this mock's own between two lives: bound and never listening, so that callers are refused while
/// the kernel gives the port to nobody who asks for any free one.
#[derive(Debug)]
pub(super) struct Held {
    _socket: socket2::Socket,
    pub(super) addr: SocketAddr,
}

impl Held {
    pub(super) async fn new(addr: SocketAddr) -> io::Result<Self> {
        let socket = once_free(|| bound(addr)).await?;
        let addr = socket.local_addr()?.as_socket().unwrap_or(addr);
        Ok(Self { _socket: socket, addr })
    }
}
