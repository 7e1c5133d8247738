//! The agent's read-only TCP server: `/livez`, `/readyz`, `/metrics`, and nothing else.
//!
//! GET and HEAD only, no body, no state: whoever reaches the port reads what a scrape reads. [`connections`] has the caps
//! and time-outs that keep a slow client from holding it; the hook listener and the unix socket use them too.
//!
//! `/livez` is 200 for as long as the process answers: it says nothing of the manager, since a restart of the agent would
//! cure nothing there. `/readyz` follows [`Readiness`].

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::{Body, Incoming};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};

use self::{
    connections::{Handle, Limits},
    http1::{Answer, HttpLimits},
};
use super::metrics::{self, Metrics};

pub mod connections;
pub mod http1;

/// Whether `/readyz` says 200. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Ready or not.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Ready or not.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What `/metrics` says.
pub trait Exposition: std::fmt::Debug + Send + Sync {
    /// All metrics as OpenMetrics text, to be sent as [`metrics::CONTENT_TYPE`].
    fn text(&self) -> Result<String, std::fmt::Error>;
}

impl Exposition for Metrics {
    fn text(&self) -> Result<String, std::fmt::Error> {
        Metrics::text(self)
    }
}

/// What is served, and within which limits.
#[derive(Debug, Clone)]
pub struct Served {
    /// For `/metrics`.
    pub metrics: Arc<dyn Exposition>,
    /// For `/readyz`.
    pub ready: Readiness,
    /// Of all connections.
    pub limits: Limits,
    /// Of each connection.
    pub http: HttpLimits,
}

impl Served {
    /// With the default limits.
    pub fn new(metrics: impl Exposition + 'static, ready: Readiness) -> Self {
        Self { metrics: Arc::new(metrics), ready, limits: Limits::default(), http: HttpLimits::default() }
    }

    pub(crate) fn answer<B: Body>(&self, request: &Request<B>) -> Answer {
        if let Some(refused) = http1::refuse(request, &[Method::GET, Method::HEAD], "GET, HEAD") {
            return refused;
        }
        match request.uri().path() {
            "/livez" => http1::text(StatusCode::OK, "ok"),
            "/readyz" if self.ready.get() => http1::text(StatusCode::OK, "ok"),
            "/readyz" => http1::text(StatusCode::SERVICE_UNAVAILABLE, "not ready"),
            "/metrics" => match self.metrics.text() {
                Ok(text) => http1::body(
                    StatusCode::OK,
                    HeaderValue::from_static(metrics::CONTENT_TYPE),
                    Bytes::from(text),
                ),
                Err(error) => {
                    tracing::error!(error = %error, "The metrics can't be written out.");
                    http1::text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written out")
                }
            },
            _ => http1::text(StatusCode::NOT_FOUND, "here are /livez, /readyz and /metrics"),
        }
    }
}

/// Serves until the shutdown; resolves when the last connection has ended.
pub async fn run(listener: TcpListener, served: Served, shutdown: impl Future<Output = ()>) {
    let Served { limits, http, .. } = served;
    let served = Arc::new(served);
    let connection = move |stream: TcpStream, _peer, handle: Handle| {
        let served = served.clone();
        async move {
            http1::connection(stream, handle, http, |request: Request<Incoming>| {
                std::future::ready(served.answer(&request))
            })
            .await;
        }
    };
    connections::serve("http", listener, limits, shutdown, connection).await;
}

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The text is no address and port.
    #[error(
        "{flag} {text:?} is not an address and a port: use IP:PORT, [IPv6]:PORT or :PORT, such as [::]:9802"
    )]
    Text {
        /// The flag.
        flag: &'static str,
        /// Its value.
        text: String,
    },
    /// Another process listens there.
    #[error(
        "{flag} {address} is taken by another process; under hostNetwork all pods of a node share its ports: give {flag} another one"
    )]
    Taken {
        /// The flag.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The scheduler needs that port: taken by us, it would keep the scheduler from starting.
    #[error("{flag} {address} is not listened on: the scheduler needs port {port} itself: give {flag} another one", port = address.port())]
    Schedulers {
        /// The flag.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// Anything else the system said.
    #[error("{flag} {address} can't be listened on: {source}")]
    System {
        /// The flag.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads `IP:PORT`, `[IPv6]:PORT` or `:PORT` (all addresses). `flag` is for the error.
pub fn parse_address(flag: &'static str, text: &str) -> Result<SocketAddr, ListenError> {
    let error = || ListenError::Text { flag, text: text.to_owned() };
    if let Some(port) = text.strip_prefix(':')
        && let Ok(port) = port.parse::<u16>()
    {
        return Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
    }
    text.parse().map_err(|_| error())
}

/// Listens on `address`. `[::]` takes IPv4 as well, and falls back to `0.0.0.0` where the system has no IPv6.
/// Must be called within a runtime; never blocks.
pub fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bound = bind(address).or_else(|error| match without_ipv6(address, &error) {
        Some(fallback) => {
            tracing::info!(listen = %fallback, "There is no IPv6 here; listening on IPv4 alone.");
            bind(fallback)
        }
        None => Err(error),
    });
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { flag, address },
        _ => ListenError::System { flag, address, source },
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // The system's default may be either (net.ipv6.bindv6only).
        socket.set_only_v6(false)?;
    }
    // Connections of the agent before this one that linger in TIME_WAIT are no reason to be refused the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

/// The IPv4 address to try instead, if it was for IPv6 that `address` failed.
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let no_ipv6 = matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PROTONOSUPPORT)
    );
    let all = address.is_ipv6() && address.ip().is_unspecified();
    (all && no_ipv6).then(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
}

#[cfg(test)]
mod tests;
