use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tonic::Status;

use super::*;
use crate::net::testing::{Answer, Authority, BlackHole, Script, Server, refusing};

/// Generous: a bound for a test that is broken, no verdict.
const BOUND: Duration = Duration::from_secs(20);

/// Hands each connection to `serve`.
async fn serving<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    addr
}

#[tokio::test]
async fn a_scheduler_answers_and_what_refuses_is_nobody_and_what_is_mute_is_neither() {
    let server = Server::start(Answer::Ok).await;
    assert_eq!(probe(server.addr, BOUND).await, Probe::Scheduler);
    let addr = refusing().await;
    let nobody = probe(addr, BOUND).await;
    assert!(matches!(&nobody, Probe::Nobody(why) if why.contains(&addr.to_string())), "{nobody:?}");
    // A stopped process: its kernel accepts, and nobody says a word.
    let hole = BlackHole::start().await;
    let mute = probe(hole.addr, Duration::from_millis(200)).await;
    assert!(matches!(&mute, Probe::Mute(why) if why.contains("no answer")), "{mute:?}");
}

#[tokio::test]
async fn g7_only_what_a_scheduler_can_have_said_is_a_scheduler() {
    let script = Script::new(Answer::Ok);
    let server = Server::on("127.0.0.1:0".parse().unwrap(), script.clone(), None).await;
    for (health, alive) in [
        (Ok(1), true),
        (Ok(2), true),
        (Ok(0), false),
        (Err(Status::unavailable("upstream connect error or disconnect/reset before headers")), false),
        (Err(Status::permission_denied("RBAC: access denied")), false),
        (Err(Status::unimplemented("")), false),
        (Err(Status::unknown("")), false),
    ] {
        *script.health.lock().unwrap() = health.clone();
        let found = probe(server.addr, BOUND).await;
        assert_eq!(found == Probe::Scheduler, alive, "{health:?}: {found:?}");
        assert_eq!(matches!(&found, Probe::Foreign(why) if !why.is_empty()), !alive, "{health:?}: {found:?}");
    }
    *script.health_silent.lock().unwrap() = true;
    let found = probe(server.addr, Duration::from_millis(200)).await;
    assert!(matches!(&found, Probe::Foreign(why) if why.contains("no answer")), "{found:?}");
}

#[tokio::test]
async fn g7_what_takes_a_connection_and_closes_it_is_no_scheduler_and_not_nobody() {
    let at_once = serving(|tcp| async move { drop(tcp) }).await;
    let reset = serving(|tcp| async move {
        // Closed with bytes unread: a reset.
        let _ = tcp.readable().await;
    })
    .await;
    let after_a_moment = serving(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 256]).await;
    })
    .await;
    let http1 = serving(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 256]).await;
        let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
    })
    .await;
    for addr in [at_once, reset, after_a_moment, http1] {
        let found = probe(addr, BOUND).await;
        assert!(matches!(&found, Probe::Foreign(why) if why.contains(&addr.to_string())), "{found:?}");
    }
}

#[tokio::test]
async fn g7_a_scheduler_that_wants_tls_lives() {
    let alert = |version: u8| {
        move |mut tcp: TcpStream| async move {
            // A fatal TLS alert, unexpected_message: what a server says to one that doesn't speak TLS.
            let _ = tcp.write_all(&[21, 3, version, 0, 2, 2, 10]).await;
            let _ = tcp.read(&mut [0; 512]).await;
        }
    };
    assert_eq!(probe(serving(alert(1)).await, BOUND).await, Probe::Scheduler);
    // One that closes without a word what isn't TLS, as Go's does, and answers what is.
    let silent_on_plain = serving(|mut tcp| async move {
        let mut first = [0; 1];
        if tcp.read(&mut first).await.is_ok_and(|n| n == 1) && first[0] == 22 {
            let _ = tcp.write_all(&[21, 3, 3, 0, 2, 2, 40]).await;
            let _ = tcp.read(&mut [0; 512]).await;
        }
    })
    .await;
    assert_eq!(probe(silent_on_plain, BOUND).await, Probe::Scheduler);
    // One of a library that wants a client certificate.
    let authority = Authority::new();
    let server = Server::tls(Answer::Ok, authority.server(Some(&authority))).await;
    assert_eq!(probe(server.addr, BOUND).await, Probe::Scheduler);
}

/// A server of TLS alone, which says this to whoever is let in, and hangs up.
async fn says_in_tls(config: rustls::ServerConfig, what: &'static [u8]) -> SocketAddr {
    let tls = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    serving(move |tcp| {
        let tls = tls.clone();
        async move {
            if let Ok(mut stream) = tls.accept(tcp).await {
                let _ = stream.read(&mut [0; 256]).await;
                let _ = stream.write_all(what).await;
                let _ = stream.shutdown().await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn g7_over_tls_too_only_what_a_scheduler_can_have_said_is_a_scheduler() {
    let authority = Authority::new();
    // It wants no certificate, and is asked.
    let server = Server::tls(Answer::Ok, authority.server(None)).await;
    for (health, alive) in [
        (Ok(1), true),
        (Ok(2), true),
        (Ok(0), false),
        (Err(Status::unimplemented("")), false),
        (Err(Status::unavailable("no healthy upstream")), false),
    ] {
        *server.script.health.lock().unwrap() = health.clone();
        let found = probe(server.addr, BOUND).await;
        assert_eq!(found == Probe::Scheduler, alive, "{health:?}: {found:?}");
        assert_eq!(matches!(&found, Probe::Foreign(why) if why.contains("over TLS")), !alive, "{found:?}");
    }
    // A web server, with ALPN and without.
    for with_alpn in [true, false] {
        let mut config = authority.server(None);
        if !with_alpn {
            config.alpn_protocols.clear();
        }
        let web = says_in_tls(config, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
        let found = probe(web, BOUND).await;
        assert!(matches!(&found, Probe::Foreign(why) if why.contains("HTTP/1")), "{found:?}");
    }
    // What is closed after the handshake may have been for want of a certificate: its alert may be lost.
    let closes = says_in_tls(authority.server(None), b"").await;
    assert_eq!(probe(closes, BOUND).await, Probe::Scheduler);
}

#[tokio::test]
async fn g7_a_meshs_proxy_that_ends_tls_is_no_scheduler_and_not_nobody() {
    let authority = Authority::new();
    let of_a_mesh =
        ["spiffe://cluster.local/ns/shop/sa/cart", "cart.shop.serviceaccount.identity.linkerd.cluster.local"];
    let ordinary = ["https://cart.shop.example", "scheduler-0.scheduler.dragonfly.svc"];
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for clients in [None, Some(&authority)] {
            for (names, wanted) in [(of_a_mesh, false), (ordinary, true)] {
                for name in names {
                    let server =
                        Server::tls(Answer::Ok, authority.server_named(name, clients, version)).await;
                    let found = probe(server.addr, BOUND).await;
                    assert_eq!(found == Probe::Scheduler, wanted, "{name}, {version:?}: {found:?}");
                    let proxy = matches!(&found, Probe::Proxy(why) if why.contains(&server.addr.to_string()));
                    assert_eq!(proxy, !wanted, "{name}, {version:?}: {found:?}");
                    assert!(found.is_taken());
                }
            }
        }
    }
}

#[test]
fn g7_a_fault_of_our_own_is_no_sign_that_a_scheduler_is_gone() {
    use std::io::{Error, ErrorKind};
    for kind in [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable, ErrorKind::TimedOut] {
        assert!(says_nobody_is_there(&Error::from(kind)), "{kind}");
    }
    // No route from here, no file descriptor left (EMFILE), not allowed to; taken, and cut.
    let ours = [
        Error::from(ErrorKind::NetworkUnreachable),
        Error::from_raw_os_error(24),
        ErrorKind::PermissionDenied.into(),
        ErrorKind::ConnectionReset.into(),
    ];
    for error in ours {
        assert!(!says_nobody_is_there(&error), "{error}");
    }
}

#[tokio::test]
async fn g7_an_address_that_this_machine_has_no_way_to_is_unclear() {
    // A link-local scope without an interface: the kernel refuses to try.
    let nowhere = "[fe80::1]:9".parse().unwrap();
    assert!(matches!(probe(nowhere, BOUND).await, Probe::CantLook(_)));
}
