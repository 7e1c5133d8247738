//! Making a connection: name resolution, TCP, TLS, the HTTP/2 preface.
//!
//! Each step has a limit of its own, so that a peer that is far away is told from one that is silent: at a round trip of 400 ms
//! TCP takes 0.4 s, TLS 0.4 s (1.3) or 0.8 s (1.2), the first word over HTTP/2 another 0.4 s at most. A name is resolved on a
//! thread of its own, one for each name.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Connection, NoHttp2, Tls, TlsError, lookup};

/// How long a peer may leave sent bytes unacknowledged before the kernel ends the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// A host and a port, as configured. IPv6 addresses are kept without brackets and shown with them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// A DNS name or an IP address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Peer {
    /// A peer by name or address.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Its address, if it was given as one.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr.ip().to_string(), addr.port())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why no connection was made. In no case was a request sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there.
    #[error("{0}: connection refused")]
    Refused(SocketAddr),
    /// No TCP connection within the limit, or none of TLS over it.
    #[error("{0}: no connection within {limit:?}", limit = .1)]
    TimedOut(SocketAddr, Duration),
    /// TCP failed in another way: no route, no permission, no free port; or the connection was reset before it was made.
    #[error("{0}: {1}")]
    Tcp(SocketAddr, io::Error),
    /// A file for TLS can't be used.
    #[error(transparent)]
    TlsFile(#[from] TlsError),
    /// The host can't be named in a request or in TLS.
    #[error("host {0:?} is neither a DNS name nor an IP address")]
    Name(String),
    /// The TLS handshake failed: something listens there, and it answered.
    #[error("{0}: TLS: {words}", words = super::chain(.1))]
    Tls(SocketAddr, io::Error),
    /// Connected, but the peer said no word of HTTP/2: it ended the connection, or speaks something else.
    #[error("{0}: HTTP/2: {1}")]
    Http2(SocketAddr, NoHttp2),
    /// Connected, but the peer said nothing over HTTP/2 within the limit: frozen, or no HTTP/2 server.
    #[error("{0}: connected, but no answer within {limit:?}", limit = .1)]
    Mute(SocketAddr, Duration),
}

impl ConnectError {
    /// Whether something took the connection and cut it, in whichever step: a listener that is just closing does that to
    /// those that it had not accepted yet.
    pub fn is_cut(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let by_the_peer = |e: &io::Error| {
            matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        };
        match self {
            ConnectError::Http2(..) => true,
            ConnectError::Tcp(_, e) | ConnectError::Tls(_, e) => by_the_peer(e),
            _ => false,
        }
    }
}

/// The addresses of `peer`, as the system's resolver gives them, at most `limit` long.
pub async fn resolve(peer: &Peer, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    match peer.literal() {
        Some(addr) => Ok(vec![addr]),
        None => lookup::addresses(&peer.host, peer.port, limit).await,
    }
}

/// A TCP connection, with TLS over it if asked for.
enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// TLS takes two round trips where the peer speaks 1.2 only, and every other step one.
const TLS_STEPS: u32 = 2;

/// Connects to `addr` (one of `peer`'s), with TLS if given, until the peer's first word over HTTP/2. `limit` is for one round
/// trip: TCP and the first word may take as long each, TLS twice that. So it takes two limits at most, with TLS four.
pub async fn connect(
    peer: &Peer,
    addr: SocketAddr,
    tls: Option<&Tls>,
    limit: Duration,
) -> Result<Connection, ConnectError> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let origin: http::Uri =
        format!("{scheme}://{peer}").parse().map_err(|_| ConnectError::Name(peer.host.clone()))?;
    let link = link(peer, addr, tls.map(|t| (t, true)), limit).await?;
    let spoken = async {
        match link {
            Link::Plain(tcp) => Connection::over(tcp, addr, origin, None).await,
            Link::Tls(stream) => {
                let version = version(&stream);
                Connection::over(stream, addr, origin, Some(version)).await
            }
        }
    };
    match timeout(limit, spoken).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(why)) => Err(ConnectError::Http2(addr, why)),
        Err(_) => Err(ConnectError::Mute(addr, limit)),
    }
}

/// Connects as [`connect`] does, without a word over HTTP, and hangs up: the version of TLS (`TLSv1_3`) that was agreed
/// on. `http2` is offered, or nothing is. It takes one limit at most, with TLS three.
pub async fn reach(
    peer: &Peer,
    addr: SocketAddr,
    tls: Option<&Tls>,
    http2: bool,
    limit: Duration,
) -> Result<Option<String>, ConnectError> {
    match link(peer, addr, tls.map(|t| (t, http2)), limit).await? {
        Link::Plain(_) => Ok(None),
        Link::Tls(stream) => Ok(Some(version(&stream))),
    }
}

fn version(stream: &TlsStream<TcpStream>) -> String {
    stream.get_ref().1.protocol_version().map(|v| format!("{v:?}")).unwrap_or_default()
}

async fn link(
    peer: &Peer,
    addr: SocketAddr,
    tls: Option<(&Tls, bool)>,
    limit: Duration,
) -> Result<Link, ConnectError> {
    let late = |limit| move |_| ConnectError::TimedOut(addr, limit);
    let tcp = match timeout(limit, TcpStream::connect(addr)).await.map_err(late(limit))? {
        Ok(tcp) => tcp,
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Err(ConnectError::Refused(addr)),
        Err(e) => return Err(ConnectError::Tcp(addr, e)),
    };
    tune(&tcp);
    // TLS files are looked at after TCP: a refused connection is refused, whatever the files are like.
    let Some((tls, http2)) = tls else { return Ok(Link::Plain(tcp)) };
    let config = if http2 { tls.http2().await? } else { tls.http1().await? };
    let name = ServerName::try_from(peer.host.clone()).map_err(|_| ConnectError::Name(peer.host.clone()))?;
    let limit = limit * TLS_STEPS;
    let stream = timeout(limit, TlsConnector::from(config).connect(name, tcp))
        .await
        .map_err(late(limit))?
        .map_err(|e| ConnectError::Tls(addr, e))?;
    Ok(Link::Tls(Box::new(stream)))
}

/// The kernel finds a lost peer: 10 s idle, then three probes 5 s apart. An option that a kernel lacks costs only that.
fn tune(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    for result in [
        tcp.set_nodelay(true),
        socket.set_tcp_keepalive(&keepalive),
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED)),
    ] {
        if let Err(e) = result {
            tracing::debug!(error = %e, "A socket option was not set.");
        }
    }
}
