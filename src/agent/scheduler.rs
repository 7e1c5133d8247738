//! Watching the scheduler at no cost to it.
//!
//! While it serves there is one idle HTTP/2 connection without an open call, and nothing is polled: the connection's end
//! is the news, and one connect and health `Check` say at once what it means. **Never is a call left open:** a scheduler's
//! graceful stop waits for every one, and for no idle connection. A scheduler closes idle connections after a while
//! (10 min); that one is opened again without a word.
//!
//! Down means that the connection was refused, and nothing else. A time-out, a TLS error, a health service that says
//! otherwise or is missing: all of that is unclear.
//!
//! A connection that is lost while a new one is served at once is hardly a restart: an idle close looks the same, and a
//! scheduler that is told to stop closes its listener first, so that a restarted one refuses for a while. It is told as
//! [`Observation::Reconnected`]: the scheduler is taken for the same, a drain it was in ends by its time-out, but its identity
//! is found out anew.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{
    files::Troubles,
    manager::outcome,
    net::{self, ConnectError, Connection, Peer, Tls, TlsFiles},
    proto::health_v1::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
};

/// How long each step of a connection, and then a `Check`, may take.
const LIMIT: Duration = Duration::from_secs(1);
/// Between two looks at a scheduler that is down.
const REFUSED_EVERY: Duration = Duration::from_millis(250);
/// Between two looks where it is unclear: from the first to the second, half as much again each time.
const UNCLEAR_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// What is seen of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// Its health service says SERVING, at this address.
    Serving(SocketAddr),
    /// It serves at this address as before, on a new connection: the last one ended. An idle time-out, or a restart too quick to be
    /// refused.
    Reconnected(SocketAddr),
    /// The connection was refused at every address that it has.
    Refused(Vec<SocketAddr>),
    /// Anything else, in words.
    Unclear(String),
}

/// Where the scheduler's health service is.
#[derive(Debug)]
pub struct Target {
    peers: Vec<Peer>,
    tls: Option<Tls>,
}

impl Target {
    /// A scheduler at `peer`. With `server.tls` it wants a client certificate, for health checks too: `files` are then
    /// its own certificate and key. Its certificate isn't verified: nothing secret is sent, and it may be for any name.
    pub fn new(peer: Peer, files: Option<TlsFiles>) -> Self {
        Self { peers: vec![peer], tls: files.map(Tls::unverified) }
    }

    /// Or at this one: its configuration names another address by now.
    pub fn or_at(mut self, peer: Peer) -> Self {
        self.peers.push(peer);
        self
    }

    /// Tells there whether the files can be used.
    #[must_use]
    pub fn telling(self, troubles: Troubles) -> Self {
        Self { tls: self.tls.map(|tls| tls.telling_as("the scheduler's TLS", troubles)), ..self }
    }

    /// One look: connects to each address and asks the health service. One address takes 4 s at most, over TLS 6 s.
    pub async fn observe(&self) -> Observation {
        self.look().await.0
    }

    /// What is seen, and the connection it was seen on if it serves.
    async fn look(&self) -> (Observation, Option<Connection>) {
        match self.look_once().await {
            Look::Cut(_) => match self.look_once().await {
                // Accepted and cut again: something listens, and is no scheduler that serves.
                Look::Cut(why) => (Observation::Unclear(why), None),
                Look::Seen(observation, connection) => (observation, connection),
            },
            Look::Seen(observation, connection) => (observation, connection),
        }
    }

    async fn look_once(&self) -> Look {
        let unclear = |why: String| Look::Seen(Observation::Unclear(why), None);
        let connection = match self.connect().await {
            Ok(connection) => connection,
            Err(Unreached::Refused(addr)) => return Look::Seen(Observation::Refused(addr), None),
            Err(Unreached::Cut(why)) => return Look::Cut(why),
            Err(Unreached::Otherwise(why)) => return unclear(why),
        };
        let mut health = HealthClient::with_origin(connection.clone(), connection.origin());
        // The time-out drops the call, which resets it: nothing stays open.
        let answer = timeout(LIMIT, health.check(HealthCheckRequest::default())).await;
        let at = connection.peer();
        match answer {
            Err(_) => unclear(format!("{at}: health check: no answer within {LIMIT:?}")),
            Ok(Err(status)) if outcome::call_error(&status).is_some() => {
                Look::Cut(format!("{at}: health check: {}", status.message()))
            }
            Ok(Err(status)) => {
                unclear(format!("{at}: health check: {:?}: {}", status.code(), status.message()))
            }
            Ok(Ok(answer)) => match answer.into_inner().status() {
                ServingStatus::Serving => Look::Seen(Observation::Serving(at), Some(connection)),
                other => unclear(format!("{at}: health check: {}", other.as_str_name())),
            },
        }
    }

    async fn connect(&self) -> Result<Connection, Unreached> {
        let mut refused = Vec::new();
        let (mut cut, mut otherwise) = (None, None);
        for peer in &self.peers {
            let addresses = match net::resolve(peer, LIMIT).await {
                Ok(addresses) if addresses.is_empty() => {
                    otherwise = Some(format!("{peer}: the name has no address"));
                    continue;
                }
                Ok(addresses) => addresses,
                Err(error) => {
                    otherwise = Some(format!("{peer}: {error}"));
                    continue;
                }
            };
            for addr in addresses {
                match net::connect(peer, addr, self.tls.as_ref(), LIMIT).await {
                    Ok(connection) => return Ok(connection),
                    Err(ConnectError::Refused(addr)) => refused.push(addr),
                    Err(error) if error.is_cut() => cut = Some(error.to_string()),
                    Err(error) => otherwise = Some(error.to_string()),
                }
            }
        }
        Err(match (cut, otherwise) {
            (Some(why), _) => Unreached::Cut(why),
            (None, Some(why)) => Unreached::Otherwise(why),
            (None, None) => Unreached::Refused(refused),
        })
    }
}

enum Unreached {
    Refused(Vec<SocketAddr>),
    Cut(String),
    Otherwise(String),
}

enum Look {
    Seen(Observation, Option<Connection>),
    /// Connected, or nearly, then cut: a listener that is just closing does that, so it is looked at again at once.
    Cut(String),
}

/// A running watch of one scheduler. It ends when this is dropped.
#[derive(Debug)]
pub struct Watcher {
    observations: mpsc::Receiver<Observation>,
    task: AbortHandle,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// Starts to watch. Needs to be called within a tokio runtime.
    pub fn start(target: Target) -> Self {
        let (tell, observations) = mpsc::channel(16);
        let task = tokio::spawn(watch(target, tell)).abort_handle();
        Self { observations, task }
    }

    /// One that sees what a test says.
    #[cfg(test)]
    pub(crate) fn fed(observations: mpsc::Receiver<Observation>, task: AbortHandle) -> Self {
        Self { observations, task }
    }

    /// The next change in what is seen; the first comes at once. Cancel safe.
    pub async fn next(&mut self) -> Observation {
        match self.observations.recv().await {
            Some(observation) => observation,
            // The watch never ends before this handle is dropped.
            None => std::future::pending().await,
        }
    }
}

async fn watch(target: Target, tell: mpsc::Sender<Observation>) {
    let mut told = None;
    let mut unclear_every = UNCLEAR_EVERY.0;
    loop {
        let (seen, connection) = target.look().await;
        let news = match &seen {
            Observation::Serving(at) if told.as_ref() == Some(&seen) => Some(Observation::Reconnected(*at)),
            _ if told.as_ref() == Some(&seen) => None,
            _ => Some(seen.clone()),
        };
        told = Some(seen.clone());
        if let Some(news) = news
            && tell.send(news).await.is_err()
        {
            return;
        }
        if !matches!(seen, Observation::Unclear(_)) {
            unclear_every = UNCLEAR_EVERY.0;
        }
        match (seen, connection) {
            (Observation::Serving(_), Some(connection)) => {
                let begun = tokio::time::Instant::now();
                let why = connection.ended().await;
                tracing::debug!(reason = why, "The scheduler's connection has ended.");
                // A peer that serves and cuts at once must not be asked in a tight loop.
                if begun.elapsed() < REFUSED_EVERY && accepts(&target).await {
                    sleep(REFUSED_EVERY).await;
                }
            }
            (Observation::Refused(_), _) => loop {
                sleep(REFUSED_EVERY.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
                if accepts(&target).await {
                    break;
                }
            },
            _ => {
                sleep(unclear_every).await;
                unclear_every = unclear_every.mul_f64(1.5).min(UNCLEAR_EVERY.1);
            }
        }
    }
}

/// Whether something but a refusal comes of a TCP connect (only a real look says what).
async fn accepts(target: &Target) -> bool {
    for peer in &target.peers {
        let Ok(addresses) = net::resolve(peer, LIMIT).await else { return true };
        for addr in addresses {
            match timeout(LIMIT, TcpStream::connect(addr)).await {
                Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                _ => return true,
            }
        }
    }
    false
}

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;
