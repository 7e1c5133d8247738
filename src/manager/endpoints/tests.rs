use super::*;
use crate::net::testing::{Answer, BlackHole, Server, refusing};

fn parsed(text: &str) -> String {
    text.parse::<Endpoint>().map_or_else(|e| e.to_string(), |e| e.to_string())
}

#[test]
fn every_way_to_write_an_endpoint_is_read() {
    for (text, url) in [
        ("manager:65003", "grpc://manager:65003"),
        ("10.0.0.1:65003", "grpc://10.0.0.1:65003"),
        ("[fd00::1]:65003", "grpc://[fd00::1]:65003"),
        ("grpc://m.dragonfly.svc.cluster.local:65003", "grpc://m.dragonfly.svc.cluster.local:65003"),
        ("GRPCS://m:1", "grpcs://m:1"),
        ("http://m", "http://m:80"),
        ("http://m:8080/", "http://m:8080"),
        ("https://[::1]", "https://[::1]:443"),
        ("m_1.local.:65003", "grpc://m_1.local.:65003"),
    ] {
        assert_eq!(parsed(text), url);
    }
}

#[test]
fn what_is_no_endpoint_is_refused_with_the_value_and_the_reason() {
    for (text, why) in [
        ("", "host is empty"),
        ("manager", "port is missing"),
        (":65003", "host is empty"),
        ("m:0", "port is no number"),
        ("m:+1", "port is no number"),
        ("m:65536", "port is no number"),
        ("m:x", "port is no number"),
        ("fd00::1:65003", "needs brackets"),
        ("[fd00::1:65003", "not closed"),
        ("[10.0.0.1]:1", "no IPv6 address"),
        ("[fd00::1]65003", "something else than :port"),
        ("ftp://m:1", "scheme is none of"),
        ("://m:1", "scheme is empty"),
        ("http://m:80/api", "path or query"),
        ("a b:1", "neither a DNS name"),
        ("a..b:1", "neither a DNS name"),
        ("10.0.0.256:1", "looks like an IPv4 address"),
    ] {
        let said = parsed(text);
        assert!(said.contains(why) && said.contains(&format!("{text:?}")), "{text:?}: {said}");
    }
}

#[test]
fn a_password_in_an_endpoint_is_refused_and_not_shown() {
    let said = parsed("http://root:dragonfly@manager:8080");
    assert!(said.contains("--password-file") && !said.contains("dragonfly"), "{said}");
}

fn dialer(endpoints: &[String]) -> Arc<Dialer> {
    let endpoints = endpoints.iter().map(|e| e.parse().unwrap()).collect();
    Arc::new(Dialer::new(endpoints, Arc::new(Tls::new(Default::default())), 0))
}

#[tokio::test]
async fn an_address_that_refuses_is_passed_over_at_once() {
    let server = Server::start(Answer::Ok).await;
    let addr = server.addr.to_string();
    let dialer = dialer(&[refusing().await.to_string(), refusing().await.to_string(), addr.clone()]);
    let begun = std::time::Instant::now();
    let connection = dialer.connect(false).await.unwrap();
    assert_eq!(connection.peer().to_string(), addr);
    assert!(begun.elapsed() < CONNECT_LIMIT, "{:?}", begun.elapsed());
    // And tried last from then on.
    assert_eq!(dialer.candidates(false).await.unwrap()[0].addr.to_string(), addr);
}

#[tokio::test]
async fn where_all_refuse_each_is_named() {
    let (a, b) = (refusing().await.to_string(), refusing().await.to_string());
    let said = dialer(&[a.clone(), b.clone()]).connect(false).await.unwrap_err().why;
    assert!(said.contains(&a) && said.contains(&b) && said.contains("refused"), "{said}");
}

#[tokio::test]
async fn a_hedge_goes_to_an_address_without_an_open_attempt() {
    let (a, b) = (Server::start(Answer::Ok).await, Server::start(Answer::Ok).await);
    let (first, second) = (a.addr.to_string(), b.addr.to_string());
    let dialer = dialer(&[first.clone(), second.clone()]);
    let open = dialer.open_on(first.parse().unwrap());
    assert_eq!(dialer.connect(true).await.unwrap().peer().to_string(), second);
    assert_eq!(dialer.connect(false).await.unwrap().peer().to_string(), first);
    drop(open);
    assert_eq!(dialer.connect(true).await.unwrap().peer().to_string(), first);
}

#[tokio::test]
async fn a_name_that_no_longer_resolves_keeps_its_last_addresses() {
    let name = "gone.invalid:65003".to_owned();
    let dialer = dialer(std::slice::from_ref(&name));
    let said = dialer.connect(false).await.unwrap_err().why;
    assert!(said.contains("gone.invalid"), "{said}");
    let server = Server::start(Answer::Ok).await;
    let addr = server.addr.to_string();
    dialer.state().resolved.insert(Peer::new("gone.invalid", 65003), vec![addr.parse().unwrap()]);
    assert_eq!(dialer.connect(false).await.unwrap().peer().to_string(), addr);
}

#[tokio::test]
async fn all_addresses_of_a_name_are_used_in_turn() {
    let addr: Vec<SocketAddr> = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(|a| a.parse().unwrap()).into();
    let dialer = dialer(&["many.invalid:1".to_owned()]);
    dialer.state().resolved.insert(Peer::new("many.invalid", 1), addr.clone());
    dialer.in_trouble(addr[0]);
    let order: Vec<_> = dialer.candidates(false).await.unwrap().iter().map(|c| c.addr).collect();
    assert_eq!(order, [addr[1], addr[2], addr[0]]);
    dialer.in_trouble(addr[1]);
    let order: Vec<_> = dialer.candidates(false).await.unwrap().iter().map(|c| c.addr).collect();
    assert_eq!(order, [addr[2], addr[0], addr[1]]);
    dialer.answered(addr[0]);
    assert_eq!(dialer.candidates(false).await.unwrap()[0].addr, addr[0]);
}

#[tokio::test]
async fn the_next_address_is_tried_beside_a_silent_one() {
    let (hole, server) = (BlackHole::start().await, Server::start(Answer::Ok).await);
    let dialer = dialer(&[hole.addr.to_string(), server.addr.to_string()]);
    let begun = std::time::Instant::now();
    assert_eq!(dialer.connect(false).await.unwrap().peer(), server.addr);
    assert!(begun.elapsed() < CONNECT_LIMIT, "{:?}", begun.elapsed());
    assert_eq!(dialer.candidates(false).await.unwrap()[0].addr, server.addr, "and is first from then on");
}

/// A listener that answers whatever it hears with these bytes, and hangs up.
async fn answering(bytes: &'static [u8]) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut heard = [0; 1024];
                // All that the client says at first, so that nothing is reset.
                let _ = tcp.read(&mut heard).await;
                let _ = tcp.write_all(bytes).await;
                let _ = tcp.shutdown().await;
                while tcp.read(&mut heard).await.is_ok_and(|n| n > 0) {}
            });
        }
    });
    addr
}

/// The first bytes as they were seen on the wire: of a manager v2.5.1 (Go 1.2x) with and without TLS, and of a TLS server of
/// OpenSSL or rustls, which says an alert.
#[tokio::test]
async fn plain_text_to_tls_and_tls_to_plain_text_are_told_with_what_to_give_instead() {
    // SETTINGS, as a gRPC server of Go sends it before it has heard anything.
    const SETTINGS: &[u8] = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00";
    const ALERT: &[u8] = b"\x15\x03\x01\x00\x02\x02\x0a";
    const HTTP: &[u8] = b"HTTP/1.1 301 Moved Permanently\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    for (scheme, bytes, said, cure) in [
        (
            "grpc",
            b"".as_slice(),
            "ended before the peer said a word",
            "if that manager wants TLS, give it as grpcs://",
        ),
        ("grpc", ALERT, "what answers there speaks TLS, not plain text", "give it as grpcs://"),
        ("grpc", HTTP, "what answers there speaks HTTP/1, not HTTP/2", "no gRPC port"),
        (
            "grpcs",
            SETTINGS,
            "what answers there does not speak TLS",
            "if that manager has no TLS, give it as grpc://",
        ),
        (
            "grpcs",
            HTTP,
            "what answers there does not speak TLS",
            "if that manager has no TLS, give it as grpc://",
        ),
        ("grpcs", b"\x15\x03\x03\x00\x02\x02\x74", "CertificateRequired", "--cert-file and --key-file"),
    ] {
        let addr = answering(bytes).await;
        let why = dialer(&[format!("{scheme}://{addr}")]).connect(false).await.unwrap_err().why;
        assert!(why.contains(said) && why.contains(cure), "{scheme} {bytes:?}: {why}");
        if cure.ends_with("://") {
            assert!(why.ends_with(&format!("{cure}{addr}")), "{why}");
        }
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_ca_is_told_with_the_flag_for_it() {
    let server = Server::tls(Answer::Ok, crate::net::testing::Authority::new().server(None)).await;
    let why = dialer(&[format!("grpcs://{}", server.addr)]).connect(false).await.unwrap_err().why;
    assert!(why.contains("UnknownIssuer: give the CA that signed its certificate with --ca-file"), "{why}");
}
