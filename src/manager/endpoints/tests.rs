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
