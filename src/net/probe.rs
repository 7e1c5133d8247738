//! What is at a scheduler's address: looked at before a sign-off that its own agent can't answer for.
//!
//! **Only what a scheduler itself can have said is life**: an answer of its health service, or TLS that wants a client certificate,
//! as a scheduler's own does. A service mesh's proxy takes every connection, whoever is behind it: closed without a byte, an HTTP/2
//! 503 or a gRPC UNAVAILABLE are its own words, and say nothing. It may end TLS as well, for a pod that has a dead scheduler's
//! address by now: its certificate says so. Whoever lets anybody in over TLS is asked for its health there, and one that speaks
//! HTTP/1 is no scheduler.
//!
//! What is not taken at all (refused, unreachable, no answer in time) was not taken by a proxy either. Whether a process that takes
//! connections and is silent hangs, or is a proxy, only [`super::Prober`] can tell.

use std::{io, net::SocketAddr, time::Duration};

use tokio::time::timeout;

use super::{ConnectError, Connection, NoHttp2, Peer, Tls, connect, tls::is_a_meshs};
use crate::proto::health_v1::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;

/// What one probe found at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A scheduler: its health service answered, or it wants a client certificate.
    Scheduler,
    /// A service mesh's proxy ends TLS there: whether a scheduler is behind it can't be told. In words.
    Proxy(String),
    /// Nobody took the connection, in words.
    Nobody(String),
    /// Something took it, and said nothing. In words.
    Mute(String),
    /// Something took it, and closed it or answered as no scheduler does. In words.
    Foreign(String),
    /// It is this machine that can't look: no network, no file descriptor left. In words.
    CantLook(String),
}

impl Probe {
    /// Whether something took the connection.
    pub fn is_taken(&self) -> bool {
        matches!(self, Probe::Scheduler | Probe::Proxy(_) | Probe::Mute(_) | Probe::Foreign(_))
    }
}

/// Looks what is at `addr`: at most `limit` for each step of a connection, and for an answer; and once more over TLS where that may
/// help.
pub async fn probe(addr: SocketAddr, limit: Duration) -> Probe {
    match connect(&Peer::from(addr), addr, None, limit).await {
        Ok(connection) => match check(&connection, limit).await {
            Checked::Scheduler => Probe::Scheduler,
            Checked::Foreign(why) => Probe::Foreign(format!("{addr}: {why}")),
            // What was heard may have been TLS.
            Checked::Cut(why) => over_tls(addr, format!("{addr}: {why}"), limit).await,
        },
        Err(why @ (ConnectError::Refused(_) | ConnectError::TimedOut(..))) => Probe::Nobody(why.to_string()),
        Err(why @ ConnectError::Mute(..)) => Probe::Mute(why.to_string()),
        // A scheduler that wants TLS closes what isn't TLS without a word.
        Err(why) if why.is_cut() => over_tls(addr, why.to_string(), limit).await,
        Err(ConnectError::Tcp(_, e)) if says_nobody_is_there(&e) => Probe::Nobody(format!("{addr}: {e}")),
        Err(why) => Probe::CantLook(format!("it can't be looked at: {why}")),
    }
}

/// What a health check says of who is there.
enum Checked {
    Scheduler,
    Foreign(String),
    /// The connection was lost before an answer.
    Cut(String),
}

async fn check(connection: &Connection, limit: Duration) -> Checked {
    let mut health = HealthClient::with_origin(connection.clone(), connection.origin());
    match timeout(limit, health.check(HealthCheckRequest::default())).await {
        Err(_) => Checked::Foreign(format!("no answer of a health service within {limit:?}")),
        Ok(Ok(answer)) => match answer.into_inner().status() {
            ServingStatus::Serving | ServingStatus::NotServing => Checked::Scheduler,
            other => Checked::Foreign(format!("its health service says {}", other.as_str_name())),
        },
        Ok(Err(status)) if connection.is_ended() => Checked::Cut(format!("it hung up: {}", status.message())),
        Ok(Err(status)) => {
            let said: String = status.message().chars().take(100).collect();
            Checked::Foreign(format!("no scheduler's answer: {:?}: {said}", status.code()))
        }
    }
}

/// Who ends TLS where a plain connection was closed, if anybody. `why` says how it closed the plain one.
async fn over_tls(addr: SocketAddr, why: String, limit: Duration) -> Probe {
    let tls = Tls::of_no_mesh();
    match connect(&Peer::from(addr), addr, Some(&tls), limit).await {
        // It lets anybody in: then it answers for itself.
        Ok(connection) => match check(&connection, limit).await {
            Checked::Scheduler => Probe::Scheduler,
            Checked::Foreign(why) | Checked::Cut(why) => Probe::Foreign(format!("{addr}: over TLS: {why}")),
        },
        Err(why @ ConnectError::Http2(_, NoHttp2::SpeaksHttp1)) => Probe::Foreign(format!("over TLS: {why}")),
        // A handshake was made, and that was all: a client certificate is wanted then.
        Err(ConnectError::Http2(..) | ConnectError::Mute(..)) => Probe::Scheduler,
        Err(ConnectError::Tls(_, e)) if is_a_meshs(&e) => {
            Probe::Proxy(format!("{addr}: a service mesh's proxy ends TLS there"))
        }
        Err(ConnectError::Tls(_, e)) if is_said_in_tls(&e) => Probe::Scheduler,
        Err(_) => Probe::Foreign(why),
    }
}

/// Whether a failed handshake failed over what the peer said in TLS.
fn is_said_in_tls(error: &io::Error) -> bool {
    use rustls::Error::{AlertReceived, InvalidCertificate, PeerIncompatible};
    let said = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(said, Some(AlertReceived(_) | InvalidCertificate(_) | PeerIncompatible(_)))
}

/// Whether an error is the far end's, or its network's: anything else is a fault of our own and proves nothing.
fn says_nobody_is_there(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, TimedOut};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | TimedOut)
}
