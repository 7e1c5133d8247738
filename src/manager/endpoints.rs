//! Where the managers are: the values of `--manager`, and the addresses behind them.
//!
//! A name may stand for several addresses; all are used. Names are resolved again before each new connection, at most
//! 1 s long; where DNS fails, the last good answer is used. An address that refused or was in trouble is tried last.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::time::sleep;

use super::Failure;
use crate::net::{self, ConnectError, Connection, NoHttp2, Peer, Tls};

/// How long one round trip may take while a connection is made: TCP's, each of TLS's two, and the first word over HTTP/2.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// How long a name's resolution may take.
const RESOLVE_LIMIT: Duration = Duration::from_secs(1);
/// How long it may take where an earlier answer is at hand.
const REFRESH_LIMIT: Duration = Duration::from_millis(200);
/// After this silence of one address the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(150);

/// Which of the manager's APIs an endpoint serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// `host:port`, `grpc://`, `grpcs://`.
    Grpc,
    /// `http://`, `https://`.
    Rest,
}

/// Why a value is no endpoint. Its message names the value and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The value, and what is wrong with it.
    #[error(
        "manager endpoint {0:?}: {1}; use host:port, grpc://host:port, grpcs://host:port, http://host:port or https://host:port"
    )]
    Value(String, &'static str),
    /// The value holds a user or password, and is therefore not shown.
    #[error(
        "manager endpoint: a user or password must not be in it (before an @); give the user with --username and the password with --password-file"
    )]
    Credentials,
}

/// One value of `--manager`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    api: Api,
    tls: bool,
    peer: Peer,
}

impl Endpoint {
    /// A gRPC endpoint, as scheduler.yaml's `manager.addr` names one.
    pub fn grpc(peer: Peer, tls: bool) -> Self {
        Self { api: Api::Grpc, tls, peer }
    }

    /// Which API it serves.
    pub fn api(&self) -> Api {
        self.api
    }

    /// Whether it is spoken to over TLS.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Host and port.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl fmt::Display for Endpoint {
    /// As a URL, with its port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.api, self.tls) {
            (Api::Grpc, false) => "grpc",
            (Api::Grpc, true) => "grpcs",
            (Api::Rest, false) => "http",
            (Api::Rest, true) => "https",
        };
        write!(f, "{scheme}://{}", self.peer)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.contains('@') {
            return Err(EndpointError::Credentials);
        }
        let wrong = |why| EndpointError::Value(text.to_owned(), why);
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (api, tls, usual_port) = match scheme.to_ascii_lowercase().as_str() {
            "" if text.contains("://") => return Err(wrong("its scheme is empty")),
            "" | "grpc" => (Api::Grpc, false, None),
            "grpcs" => (Api::Grpc, true, None),
            "http" => (Api::Rest, false, Some(80)),
            "https" => (Api::Rest, true, Some(443)),
            _ => return Err(wrong("its scheme is none of grpc, grpcs, http and https")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(wrong("it has a path or query, and an endpoint is an address only"));
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(inner) => {
                let (ip, after) = inner.split_once(']').ok_or_else(|| wrong("its [ is not closed by a ]"))?;
                if !ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
                    return Err(wrong("what stands in brackets is no IPv6 address"));
                }
                match after.strip_prefix(':') {
                    Some(port) => (ip, Some(port)),
                    None if after.is_empty() => (ip, None),
                    None => return Err(wrong("after the ] comes something else than :port")),
                }
            }
            None if rest.matches(':').count() > 1 => {
                return Err(wrong("an IPv6 address needs brackets, as in [fd00::1]:65003"));
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        check_host(host).map_err(wrong)?;
        let port = match (port, usual_port) {
            (Some(digits), _) => match digits.parse::<u16>() {
                Ok(port) if port > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => port,
                _ => return Err(wrong("its port is no number from 1 to 65535")),
            },
            (None, Some(usual)) => usual,
            (None, None) => return Err(wrong("its port is missing (a manager's gRPC is usually 65003)")),
        };
        Ok(Self { api, tls, peer: Peer::new(host, port) })
    }
}

/// Whether this is a DNS name, underscores allowed, or an IP; else why not.
pub fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("its host is empty");
    }
    if host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if host.len() > 253
        || host.split('.').rev().skip(usize::from(host.ends_with('.'))).any(|l| l.is_empty() || l.len() > 63)
        || !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    {
        return Err("its host is neither a DNS name nor an IP address");
    }
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err("its host looks like an IPv4 address, but is none");
    }
    Ok(())
}

/// One address to connect to.
#[derive(Debug, Clone)]
struct Candidate {
    endpoint: Arc<Endpoint>,
    addr: SocketAddr,
}

/// What one look at one address of an endpoint found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The endpoint, as a URL.
    pub endpoint: String,
    /// The address; `None` where the name has none.
    pub address: Option<SocketAddr>,
    /// The version of TLS (`None`: plain text), or why no connection was made.
    pub result: Result<Option<String>, String>,
}

/// Looks at every address of `endpoint`, without sending anything over HTTP; at most 2 s long, with TLS 4 s.
pub async fn reach(endpoint: &Endpoint, tls: &Tls) -> Vec<Reach> {
    let found = |address, result| Reach { endpoint: endpoint.to_string(), address, result };
    let addresses = match net::resolve(endpoint.peer(), RESOLVE_LIMIT).await {
        Ok(addresses) => addresses,
        Err(e) => return vec![found(None, Err(format!("{}: {e}", endpoint.peer())))],
    };
    let (tls, http2) = (endpoint.tls().then_some(tls), endpoint.api() == Api::Grpc);
    join_all(addresses.into_iter().map(|addr| async move {
        let result = net::reach(endpoint.peer(), addr, tls, http2, CONNECT_LIMIT).await;
        found(Some(addr), result.map_err(|e| e.to_string()))
    }))
    .await
}

/// Why no connection to an address of `endpoint` was made, and what it may take, where TLS is the matter. `shows_none`: no client
/// certificate is shown.
fn words(endpoint: &Endpoint, error: &ConnectError, shows_none: bool) -> String {
    let text = error.to_string();
    let cure = match error {
        ConnectError::Http2(_, NoHttp2::SpeaksTls) => Some(format!("give it as grpcs://{}", endpoint.peer())),
        ConnectError::Http2(_, NoHttp2::SpeaksHttp1) => Some(
            "that is no gRPC port (a manager's is usually 65003); its REST API is given as http:// or https://"
                .to_owned(),
        ),
        ConnectError::Http2(_, NoHttp2::Ended(_)) if !endpoint.tls() => {
            Some(format!("if that manager wants TLS, give it as grpcs://{}", endpoint.peer()))
        }
        _ if !endpoint.tls() => None,
        _ if text.contains(net::NO_TLS) => {
            Some(format!("if that manager has no TLS, give it as grpc://{}", endpoint.peer()))
        }
        _ if text.contains("UnknownIssuer") => {
            Some("give the CA that signed its certificate with --ca-file".to_owned())
        }
        _ if ["CertificateRequired", "HandshakeFailure", "BadCertificate", "UnknownCA"]
            .iter()
            .any(|alert| text.contains(alert)) =>
        {
            Some("it wants a client certificate that it accepts: --cert-file and --key-file".to_owned())
        }
        // TLS 1.3 refuses a client after the client's last word: all that is seen may be the end.
        ConnectError::Http2(_, NoHttp2::Ended(_)) if shows_none => Some(
            "if that manager wants a client certificate, give --cert-file and --key-file".to_owned(),
        ),
        _ => None,
    };
    cure.map_or_else(|| text.clone(), |cure| format!("{text}: {cure}"))
}

/// Connects to whichever address of several endpoints answers.
pub struct Dialer {
    endpoints: Vec<Arc<Endpoint>>,
    tls: Arc<Tls>,
    start: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Each name's last good answer.
    resolved: HashMap<Peer, Vec<SocketAddr>>,
    /// When an address was last in trouble, as a count: the latest is tried last.
    trouble: HashMap<SocketAddr, u64>,
    count: u64,
    /// How many attempts are open on an address: a hedge goes elsewhere.
    open: HashMap<SocketAddr, usize>,
}

/// That an attempt is open on an address, for as long as it lives.
pub(super) struct OpenOn {
    dialer: Arc<Dialer>,
    addr: SocketAddr,
}

impl OpenOn {
    /// Which address.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for OpenOn {
    fn drop(&mut self) {
        let mut state = self.dialer.state();
        if let Some(n) = state.open.get_mut(&self.addr) {
            *n -= 1;
            if *n == 0 {
                state.open.remove(&self.addr);
            }
        }
    }
}

impl Dialer {
    /// A dialer over `endpoints`. They are tried in the order given, starting with any of them (`start` is taken modulo
    /// their number: agents that start elsewhere spread over the managers).
    pub fn new(endpoints: Vec<Endpoint>, tls: Arc<Tls>, start: usize) -> Self {
        let endpoints = endpoints.into_iter().map(Arc::new).collect();
        Self { endpoints, tls, start, state: Mutex::default() }
    }

    /// The endpoints, in the order they were given.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().map(Arc::as_ref)
    }

    /// Looks at every address of every endpoint: for checks.
    pub async fn reach(&self) -> Vec<Reach> {
        join_all(self.endpoints.iter().map(|e| reach(e, &self.tls))).await.into_iter().flatten().collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an attempt is open on `addr`.
    pub(super) fn open_on(self: &Arc<Self>, addr: SocketAddr) -> OpenOn {
        *self.state().open.entry(addr).or_default() += 1;
        OpenOn { dialer: self.clone(), addr }
    }

    /// Notes that `addr` was in trouble: others are tried first from now on.
    pub fn in_trouble(&self, addr: SocketAddr) {
        let mut state = self.state();
        state.count += 1;
        let count = state.count;
        // Addresses of pods long gone must not pile up.
        if state.trouble.len() > 256 {
            state.trouble.retain(|_, at| *at + 128 > count);
        }
        state.trouble.insert(addr, count);
    }

    /// Notes that `addr` answered.
    pub fn answered(&self, addr: SocketAddr) {
        self.state().trouble.remove(&addr);
    }

    /// A new connection. `elsewhere` prefers an address on which no attempt is open.
    pub async fn connect(&self, elsewhere: bool) -> Result<Connection, Failure> {
        self.connect_to(self.candidates(elsewhere).await?).await
    }

    async fn connect_to(&self, candidates: Vec<Candidate>) -> Result<Connection, Failure> {
        let mut rest = candidates.into_iter();
        let mut dialing = FuturesUnordered::new();
        // In the order they were begun.
        let mut begun: Vec<SocketAddr> = Vec::new();
        let mut errors: Vec<String> = Vec::new();
        loop {
            if !dialing.is_empty() {
                tokio::select! {
                    Some((addr, result)) = dialing.next() => match result {
                        Ok(connection) => {
                            // Those begun before the one that answered were silent for longer than it took.
                            begun.iter().take_while(|a| **a != addr).for_each(|a| self.in_trouble(*a));
                            return Ok(connection);
                        }
                        Err(words) => {
                            self.in_trouble(addr);
                            begun.retain(|a| *a != addr);
                            if errors.len() < 8 && !errors.contains(&words) {
                                errors.push(words);
                            }
                        }
                    },
                    () = sleep(STAGGER), if rest.len() > 0 => {}
                }
            }
            if let Some(candidate) = rest.next() {
                begun.push(candidate.addr);
                dialing.push(self.dial(candidate));
            } else if dialing.is_empty() {
                return Err(Failure::new(format!("no manager reached: {}", errors.join("; "))));
            }
        }
    }

    /// A new connection to another address than this one; `None` where there is no other, or none that answers.
    pub async fn connect_elsewhere(&self, than: SocketAddr) -> Option<Connection> {
        let mut candidates = self.candidates(false).await.ok()?;
        candidates.retain(|candidate| candidate.addr != than);
        self.connect_to(candidates).await.ok()
    }

    /// A new connection to each address of every endpoint, and to each of `others` as an address of the first one, or why there is
    /// none. An error, where no name has an address.
    pub async fn connect_to_each(
        &self,
        others: &[IpAddr],
    ) -> Result<Vec<(SocketAddr, Result<Connection, String>)>, Failure> {
        let mut candidates = self.candidates(false).await?;
        for ip in others {
            let Some(endpoint) = self.endpoints.first() else { break };
            let addr = SocketAddr::new(*ip, endpoint.peer().port);
            if !candidates.iter().any(|candidate| candidate.addr == addr) {
                candidates.push(Candidate { endpoint: endpoint.clone(), addr });
            }
        }
        Ok(join_all(candidates.into_iter().map(|candidate| self.dial(candidate))).await)
    }

    /// Connects; an error says what it may take to reach that endpoint.
    async fn dial(&self, candidate: Candidate) -> (SocketAddr, Result<Connection, String>) {
        let Candidate { endpoint, addr } = candidate;
        let tls = endpoint.tls().then_some(&*self.tls);
        let connected = net::connect(endpoint.peer(), addr, tls, CONNECT_LIMIT).await;
        let shows_none = self.tls.files().cert.is_none();
        (addr, connected.map_err(|error| words(&endpoint, &error, shows_none)))
    }

    /// Every address of every endpoint, the best first.
    async fn candidates(&self, elsewhere: bool) -> Result<Vec<Candidate>, Failure> {
        let turn = self.start % self.endpoints.len().max(1);
        let order = self.endpoints[turn..].iter().chain(&self.endpoints[..turn]);
        let found = join_all(order.map(|e| async { (e.clone(), self.addresses(e.peer()).await) })).await;
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut errors = Vec::new();
        for (endpoint, addresses) in found {
            match addresses {
                Err(e) => errors.push(format!("{endpoint}: {e}")),
                Ok(addresses) => {
                    for addr in addresses {
                        if !candidates.iter().any(|c| c.addr == addr) {
                            candidates.push(Candidate { endpoint: endpoint.clone(), addr });
                        }
                    }
                }
            }
        }
        if candidates.is_empty() {
            return Err(Failure::new(format!("no manager's name has an address: {}", errors.join("; "))));
        }
        let state = self.state();
        candidates.sort_by_key(|c| {
            let busy = elsewhere && state.open.contains_key(&c.addr);
            (busy, state.trouble.get(&c.addr).copied().unwrap_or(0))
        });
        Ok(candidates)
    }

    async fn addresses(&self, peer: &Peer) -> std::io::Result<Vec<SocketAddr>> {
        if let Some(addr) = peer.literal() {
            return Ok(vec![addr]);
        }
        let kept = self.state().resolved.get(peer).cloned();
        let limit = if kept.is_some() { REFRESH_LIMIT } else { RESOLVE_LIMIT };
        match (net::resolve(peer, limit).await, kept) {
            (Ok(mut found), _) => {
                let turn = self.start % found.len().max(1);
                found.rotate_left(turn);
                self.state().resolved.insert(peer.clone(), found.clone());
                Ok(found)
            }
            (Err(error), Some(kept)) => {
                tracing::debug!(dns.name = %peer.host, error = %error, "A name was not resolved; its last addresses are used.");
                Ok(kept)
            }
            (Err(error), None) => Err(error),
        }
    }
}

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;
