use super::*;
use crate::net::testing::{Answer, Authority, BlackHole, Script, Server, eventually, free, refusing};

/// Generous: a bound for a test that is broken, no verdict.
const BOUND: Duration = Duration::from_secs(20);

fn watcher(addr: SocketAddr) -> Watcher {
    Watcher::start(Target::new(addr.into(), None))
}

async fn next(watcher: &mut Watcher) -> Observation {
    timeout(BOUND, watcher.next()).await.unwrap()
}

/// A later observation would be in the channel already: says that there is none.
async fn nothing_new(watcher: &mut Watcher) {
    assert!(timeout(Duration::from_millis(50), watcher.next()).await.is_err());
}

#[tokio::test]
async fn a_scheduler_that_closes_its_listener_is_seen_down_within_milliseconds() {
    let mut server = Server::start(Answer::Ok).await;
    let mut watcher = watcher(server.addr);
    assert_eq!(next(&mut watcher).await, Observation::Serving(server.addr));
    assert_eq!(server.script.count("connection"), 1);
    server.stop().await;
    let begun = std::time::Instant::now();
    assert_eq!(next(&mut watcher).await, Observation::Refused(vec![server.addr]));
    // Generous for a busy machine, yet less than any interval that something could be polled at.
    assert!(begun.elapsed() < REFUSED_EVERY.mul_f64(0.8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn while_it_serves_nothing_is_asked_and_no_call_is_open() {
    let server = Server::start(Answer::Ok).await;
    let mut watcher = watcher(server.addr);
    next(&mut watcher).await;
    nothing_new(&mut watcher).await;
    assert_eq!((server.script.count("check"), server.script.count("connection")), (1, 1));
    assert_eq!(server.script.count("watch"), 0);
}

#[tokio::test]
async fn a_connection_closed_for_idleness_is_opened_again_and_told_as_one_that_may_be_a_restart() {
    let server = Server::start(Answer::Ok).await;
    let mut watcher = watcher(server.addr);
    next(&mut watcher).await;
    server.go_away();
    eventually("it asked again", || server.script.count("check") >= 2).await;
    assert_eq!(next(&mut watcher).await, Observation::Reconnected(server.addr));
    nothing_new(&mut watcher).await;
}

#[tokio::test]
async fn one_that_comes_back_is_seen_serving() {
    let mut server = Server::start(Answer::Ok).await;
    let mut watcher = watcher(server.addr);
    next(&mut watcher).await;
    server.kill().await;
    assert_eq!(next(&mut watcher).await, Observation::Refused(vec![server.addr]));
    let again = Server::on(server.addr, Script::new(Answer::Ok), None).await;
    assert_eq!(next(&mut watcher).await, Observation::Serving(again.addr));
}

#[tokio::test]
async fn one_that_never_came_up_is_refused_until_it_does() {
    let addr = free().await;
    let mut watcher = watcher(addr);
    assert_eq!(next(&mut watcher).await, Observation::Refused(vec![addr]));
    let _server = Server::on(addr, Script::new(Answer::Ok), None).await;
    assert_eq!(next(&mut watcher).await, Observation::Serving(addr));
}

#[tokio::test]
async fn g2_silence_a_wrong_health_answer_and_a_missing_service_are_unclear() {
    let hole = BlackHole::start().await;
    let seen = Target::new(hole.addr.into(), None).observe().await;
    assert!(matches!(&seen, Observation::Unclear(why) if why.contains("no answer")), "{seen:?}");

    let server = Server::start(Answer::Ok).await;
    for (answer, words) in [
        (Ok(2), "NOT_SERVING"),
        (Ok(3), "SERVICE_UNKNOWN"),
        (Ok(99), "UNKNOWN"),
        (Err(tonic::Status::unimplemented("no health")), "no health"),
    ] {
        *server.script.health.lock().unwrap() = answer;
        let seen = Target::new(server.addr.into(), None).observe().await;
        assert!(matches!(&seen, Observation::Unclear(why) if why.contains(words)), "{seen:?}");
    }
    let unknown = Target::new(Peer::new("nowhere.invalid", 1), None).observe().await;
    assert!(matches!(&unknown, Observation::Unclear(why) if why.contains("nowhere.invalid")), "{unknown:?}");
}

#[tokio::test]
async fn g2_a_scheduler_that_wants_a_client_certificate_is_never_taken_for_down() {
    let (ca, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let server = Server::tls(Answer::Ok, ca.server(Some(&ca))).await;
    for files in [None, Some(TlsFiles::default())] {
        let seen = Target::new(server.addr.into(), files).observe().await;
        assert!(matches!(seen, Observation::Unclear(_)), "{seen:?}");
    }
    let (cert, key) = ca.leaf();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let files = TlsFiles { ca: None, cert: put("cert", &cert), key: put("key", &key) };
    let seen = Target::new(server.addr.into(), Some(files)).observe().await;
    assert_eq!(seen, Observation::Serving(server.addr));

    let gone = TlsFiles { cert: Some("/nonexistent/c".into()), key: Some("/nonexistent/k".into()), ca: None };
    let seen = Target::new(server.addr.into(), Some(gone.clone())).observe().await;
    assert!(matches!(&seen, Observation::Unclear(why) if why.contains("/nonexistent/c")), "{seen:?}");
    // Refused is refused all the same: TCP comes first.
    let addr = refusing().await;
    assert_eq!(Target::new(addr.into(), Some(gone)).observe().await, Observation::Refused(vec![addr]));
}

#[tokio::test]
async fn g2_a_scheduler_that_answers_tls_in_the_clear_is_never_taken_for_down() {
    let server = Server::start(Answer::Ok).await;
    let seen = Target::new(server.addr.into(), Some(TlsFiles::default())).observe().await;
    assert!(matches!(&seen, Observation::Unclear(why) if why.contains("TLS")), "{seen:?}");
}

/// A look that begins before the listener closes, and goes on after that: both in one thread, in this order.
async fn looked_at_as_it_closes(files: Option<TlsFiles>) -> (Observation, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let target = Target::new(addr.into(), files);
    let (seen, ()) = tokio::join!(biased; target.observe(), async { drop(listener) });
    (seen, addr)
}

#[tokio::test]
async fn a_connection_that_is_reset_as_it_is_made_is_looked_at_again_at_once() {
    let (seen, addr) = looked_at_as_it_closes(None).await;
    assert_eq!(seen, Observation::Refused(vec![addr]));
    let (seen, addr) = looked_at_as_it_closes(Some(TlsFiles::default())).await;
    assert_eq!(seen, Observation::Refused(vec![addr]));
}

#[tokio::test]
async fn a_connection_that_is_reset_within_its_tls_handshake_is_looked_at_again_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let target = Target::new(addr.into(), Some(TlsFiles::default()));
    let closing = async {
        let (tcp, _) = listener.accept().await.unwrap();
        // Its hello has come and stays unread: the close is a reset.
        tcp.readable().await.unwrap();
        drop((listener, tcp));
    };
    let (seen, ()) = tokio::join!(target.observe(), closing);
    assert_eq!(seen, Observation::Refused(vec![addr]));
}

#[tokio::test]
async fn g2_a_listener_that_accepts_and_closes_is_unclear_until_it_refuses() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            drop(tcp)
        }
    });
    let mut watcher = watcher(addr);
    let seen = next(&mut watcher).await;
    assert!(matches!(seen, Observation::Unclear(_)), "{seen:?}");
    accepting.abort();
    loop {
        if next(&mut watcher).await == Observation::Refused(vec![addr]) {
            break;
        }
    }
}
