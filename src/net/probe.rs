//! Whether anything lives at an address: looked at before a sign-off that its own agent can't answer for.
//!
//! A gRPC server speaks first once a client has: so a process that was stopped, whose kernel still accepts, is told from one that
//! lives. Whatever says anything at all, a TLS alert or another protocol included, lives; its health service is not asked,
//! since any answer of it would mean the same.

use std::{io, net::SocketAddr, time::Duration};

use super::{ConnectError, Peer, connect};

/// What was found at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Something there said something, or hung up.
    Answers,
    /// Refused, unreachable, or without a word, in words.
    Silent(String),
    /// It is this machine that can't look: no network, no file descriptor left. In words.
    Unclear(String),
}

/// Looks whether anything lives at `addr`, at most `limit` long.
pub async fn probe(addr: SocketAddr, limit: Duration) -> Probe {
    match connect(&Peer::from(addr), addr, None, limit).await {
        Ok(_) | Err(ConnectError::Http2(..) | ConnectError::Tls(..)) => Probe::Answers,
        Err(why @ (ConnectError::Refused(_) | ConnectError::TimedOut(..) | ConnectError::Mute(..))) => {
            Probe::Silent(why.to_string())
        }
        Err(ConnectError::Tcp(_, e)) if says_nobody_is_there(&e) => Probe::Silent(format!("{addr}: {e}")),
        Err(why) => Probe::Unclear(format!("it can't be looked at: {why}")),
    }
}

/// Whether an error is the far end's, or its network's: anything else is a fault of our own and proves nothing.
fn says_nobody_is_there(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, TimedOut};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | TimedOut)
}

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests {
    use super::*;
    use crate::net::testing::{Answer, BlackHole, Server, refusing};

    /// Generous: a bound for a test that is broken, no verdict.
    const BOUND: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_speaks_lives_and_what_refuses_or_is_mute_does_not() {
        let server = Server::start(Answer::Ok).await;
        assert_eq!(probe(server.addr, BOUND).await, Probe::Answers);
        let addr = refusing().await;
        let silent = probe(addr, BOUND).await;
        assert!(matches!(&silent, Probe::Silent(why) if why.contains(&addr.to_string())), "{silent:?}");
        // A stopped process: its kernel accepts, and nobody says a word.
        let hole = BlackHole::start().await;
        let mute = probe(hole.addr, Duration::from_millis(200)).await;
        assert!(matches!(&mute, Probe::Silent(why) if why.contains("no answer")), "{mute:?}");
    }

    #[tokio::test]
    async fn g7_a_scheduler_behind_tls_or_something_that_hangs_up_lives() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let hanging_up = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                drop(tcp);
            }
        });
        assert_eq!(probe(addr, BOUND).await, Probe::Answers);
        hanging_up.abort();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let alerting = tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                // A fatal TLS alert, unexpected_message: what a server says to one that doesn't speak TLS.
                let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, &[21, 3, 1, 0, 2, 2, 10]).await;
            }
        });
        assert_eq!(probe(addr, BOUND).await, Probe::Answers);
        alerting.abort();
    }

    #[test]
    fn g7_a_fault_of_our_own_is_no_sign_that_a_scheduler_is_gone() {
        use std::io::{Error, ErrorKind};
        for kind in [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable, ErrorKind::TimedOut] {
            assert!(says_nobody_is_there(&Error::from(kind)), "{kind}");
        }
        // No route from here, no file descriptor left (EMFILE), not allowed to.
        let ours = [
            Error::from(ErrorKind::NetworkUnreachable),
            Error::from_raw_os_error(24),
            ErrorKind::PermissionDenied.into(),
        ];
        for error in ours {
            assert!(!says_nobody_is_there(&error), "{error}");
        }
    }

    #[tokio::test]
    async fn g7_an_address_that_this_machine_has_no_way_to_is_unclear() {
        // A link-local scope without an interface: the kernel refuses to try.
        let nowhere = "[fe80::1]:9".parse().unwrap();
        assert!(matches!(probe(nowhere, BOUND).await, Probe::Unclear(_)));
    }
}
