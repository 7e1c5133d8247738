use std::{fs, path::PathBuf, time::Duration};

use tonic::Status;

use super::{
    testing::{Answer, Authority, BlackHole, FarAway, Server, eventually, refusing},
    *,
};
use crate::{
    files::{self, Troubles},
    proto::health_v1::{HealthCheckRequest, health_client::HealthClient},
};

const LIMIT: Duration = Duration::from_secs(5);

async fn dial(addr: std::net::SocketAddr, tls: Option<&Tls>) -> Result<Connection, ConnectError> {
    connect(&addr.into(), addr, tls, LIMIT).await
}

async fn check(connection: &Connection) -> Result<i32, Status> {
    let mut client = HealthClient::with_origin(connection.clone(), connection.origin());
    client.check(HealthCheckRequest::default()).await.map(|r| r.into_inner().status)
}

fn call_error(status: &Status) -> &CallError {
    std::error::Error::source(status).unwrap().downcast_ref().unwrap()
}

#[tokio::test]
async fn a_goaway_on_an_idle_connection_is_its_end() {
    let server = Server::start(Answer::Ok).await;
    let connection = dial(server.addr, None).await.unwrap();
    assert_eq!(check(&connection).await.unwrap(), 1);
    assert!(!connection.is_ended());
    server.go_away();
    connection.ended().await;
    assert!(connection.is_ended());
    let status = check(&connection).await.unwrap_err();
    assert!(matches!(call_error(&status), CallError::NotSent), "{status:?}");
}

#[tokio::test]
async fn a_killed_peer_is_the_end_of_its_connections() {
    let mut server = Server::start(Answer::Ok).await;
    let connection = dial(server.addr, None).await.unwrap();
    check(&connection).await.unwrap();
    server.kill().await;
    connection.ended().await;
    assert!(matches!(dial(server.addr, None).await.unwrap_err(), ConnectError::Refused(_)));
}

#[tokio::test]
async fn a_call_that_is_cut_may_have_been_seen() {
    let mut server = Server::start(Answer::Ok).await;
    *server.script.health_silent.lock().unwrap() = true;
    let connection = dial(server.addr, None).await.unwrap();
    let asked = tokio::spawn(async move { check(&connection).await });
    eventually("the call has arrived", || server.script.count("check") == 1).await;
    server.kill().await;
    let status = asked.await.unwrap().unwrap_err();
    assert!(!call_error(&status).surely_not_seen(), "{status:?}");
}

#[tokio::test]
async fn the_last_handle_dropped_closes_the_connection() {
    let server = Server::start(Answer::Ok).await;
    let connection = dial(server.addr, None).await.unwrap();
    let other = connection.clone();
    drop(connection);
    assert_eq!(check(&other).await.unwrap(), 1);
    drop(other);
    eventually("the server saw its end", || server.script.count("end") == 1).await;
}

#[tokio::test]
async fn a_peer_that_never_speaks_is_not_connected_to() {
    let hole = BlackHole::start().await;
    let short = Duration::from_millis(50);
    let error = connect(&hole.addr.into(), hole.addr, None, short).await.unwrap_err();
    assert!(matches!(error, ConnectError::Mute(_, l) if l == short), "{error}");
}

#[tokio::test]
async fn a_peer_that_hangs_up_without_a_word_is_not_connected_to() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { drop(listener.accept().await) });
    let error = dial(addr, None).await.unwrap_err();
    assert!(matches!(error, ConnectError::Http2(..)), "{error}");
    task.await.unwrap();
}

#[tokio::test]
async fn nobody_listening_is_refused_and_tls_silence_is_bounded() {
    let nobody = refusing().await;
    assert!(matches!(dial(nobody, None).await.unwrap_err(), ConnectError::Refused(a) if a == nobody));
    let hole = BlackHole::start().await;
    let tls = Tls::unverified(TlsFiles::default());
    let short = Duration::from_millis(50);
    let error = connect(&hole.addr.into(), hole.addr, Some(&tls), short).await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut(_, l) if l == short * 2), "{error}");
}

#[tokio::test]
async fn g3_a_manager_at_a_round_trip_of_600_ms_is_connected_to_each_step_within_its_own_limit() {
    const LIMIT: Duration = Duration::from_secs(1);
    let ca = Authority::new();
    let tls = Tls::unverified(TlsFiles::default());
    let plain = Server::start(Answer::Ok).await;
    let of_1_3 = Server::tls(Answer::Ok, ca.server(None)).await;
    let of_1_2 = Server::tls(Answer::Ok, ca.server_of_tls_1_2()).await;
    let one = async |server: &Server, tls: Option<&Tls>| {
        let way = FarAway::from(server.addr, Duration::from_millis(300)).await;
        let connection = connect(&way.addr.into(), way.addr, tls, LIMIT).await.map_err(|e| e.to_string())?;
        Ok::<_, String>(connection.tls().map(str::to_owned))
    };
    let all = tokio::join!(one(&plain, None), one(&of_1_3, Some(&tls)), one(&of_1_2, Some(&tls)));
    assert_eq!(all, (Ok(None), Ok(Some("TLSv1_3".to_owned())), Ok(Some("TLSv1_2".to_owned()))));
}

#[tokio::test]
async fn g4_a_peer_that_stops_at_any_step_is_given_up_on_within_that_steps_limit() {
    let short = Duration::from_millis(100);
    let tls = Tls::unverified(TlsFiles::default());
    let hole = BlackHole::start().await;
    let begun = std::time::Instant::now();
    let error = connect(&hole.addr.into(), hole.addr, None, short).await.unwrap_err();
    assert!(matches!(error, ConnectError::Mute(_, l) if l == short), "{error}");
    let error = connect(&hole.addr.into(), hole.addr, Some(&tls), short).await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut(_, l) if l == short * 2), "{error}");
    assert!(begun.elapsed() >= short * 3, "{:?}", begun.elapsed());
}

struct Files {
    dir: tempfile::TempDir,
    version: u32,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), version: 0 }
    }

    /// Written as a Secret's update is: a new file that takes the old one's place.
    fn put(&mut self, name: &str, text: &str) -> PathBuf {
        self.version += 1;
        let path = self.dir.path().join(name);
        let new = self.dir.path().join(format!("{name}.{}", self.version));
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }
}

#[tokio::test]
async fn mutual_tls_verifies_both_sides() {
    let (ca, clients, mut files) = (Authority::new(), Authority::new(), Files::new());
    let server = Server::tls(Answer::Ok, ca.server(Some(&clients))).await;
    let (cert, key) = clients.leaf();
    let with = TlsFiles {
        ca: Some(files.put("ca.pem", &ca.pem())),
        cert: Some(files.put("cert.pem", &cert)),
        key: Some(files.put("key.pem", &key)),
    };
    let connection = dial(server.addr, Some(&Tls::new(with.clone()))).await.unwrap();
    assert_eq!(check(&connection).await.unwrap(), 1);
    assert_eq!(connection.tls(), Some("TLSv1_3"));

    // Without a certificate of our own the server ends it.
    let without = Tls::new(TlsFiles { ca: with.ca.clone(), ..Default::default() });
    let error = dial(server.addr, Some(&without)).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");

    // And a server of another authority is not believed.
    let error = dial(server.addr, Some(&Tls::new(TlsFiles::default()))).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls(..)) && error.to_string().contains("UnknownIssuer"), "{error}");
    assert!(dial(server.addr, Some(&Tls::unverified(with))).await.is_ok());
}

#[tokio::test]
async fn a_certificate_that_expires_while_its_server_runs_is_not_taken_at_the_next_connection() {
    let (ca, mut files) = (Authority::new(), Files::new());
    let tls = Tls::new(TlsFiles { ca: Some(files.put("ca.pem", &ca.pem())), ..Default::default() });
    // As short a life as this machine is fast enough for; in a certificate it is of whole seconds.
    let (server, connection, end) = 'found: {
        for seconds in [2, 4, 8, 16, 32] {
            let end = std::time::SystemTime::now() + Duration::from_secs(seconds);
            let server = Server::tls(Answer::Ok, ca.server_until(end)).await;
            if let Ok(connection) = dial(server.addr, Some(&tls)).await {
                break 'found (server, connection, end);
            }
        }
        panic!("no certificate lived for long enough");
    };
    assert_eq!(check(&connection).await.unwrap(), 1);
    let left = end.duration_since(std::time::SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left + Duration::from_secs(1)).await;
    let error = dial(server.addr, Some(&tls)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls(..)) && error.to_string().contains("expired"), "{error}");
}

#[tokio::test]
async fn a_rotated_ca_is_used_at_the_next_connection() {
    let (old, new, mut files) = (Authority::new(), Authority::new(), Files::new());
    let server = Server::tls(Answer::Ok, new.server(None)).await;
    let ca = files.put("ca.pem", &old.pem());
    let tls = Tls::new(TlsFiles { ca: Some(ca), ..Default::default() });
    assert!(matches!(dial(server.addr, Some(&tls)).await.unwrap_err(), ConnectError::Tls(..)));
    files.put("ca.pem", &new.pem());
    assert!(dial(server.addr, Some(&tls)).await.is_ok());
}

#[tokio::test]
async fn a_bad_new_file_leaves_the_old_settings_and_a_good_one_replaces_them() {
    let (ca, mut files) = (Authority::new(), Files::new());
    let path = files.put("ca.pem", &ca.pem());
    let tls = Tls::new(TlsFiles { ca: Some(path), ..Default::default() });
    let first = tls.http1().await.unwrap();
    assert!(
        std::sync::Arc::ptr_eq(&first, &tls.http1().await.unwrap()),
        "unchanged files are not read again"
    );
    files.put("ca.pem", "rubbish");
    assert!(std::sync::Arc::ptr_eq(&first, &tls.http1().await.unwrap()));
    fs::remove_file(files.dir.path().join("ca.pem")).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &tls.http1().await.unwrap()));
    files.put("ca.pem", &Authority::new().pem());
    assert!(!std::sync::Arc::ptr_eq(&first, &tls.http1().await.unwrap()));
}

#[tokio::test]
async fn a_wrong_file_is_named_with_what_is_wrong_and_never_quoted() {
    let (ca, mut files) = (Authority::new(), Files::new());
    let (cert, key) = ca.leaf();
    let (_, other_key) = ca.leaf();
    let cert = files.put("cert.pem", &cert);
    let missing = files.dir.path().join("missing.pem");
    let secret =
        files.put("secret.pem", "-----BEGIN PRIVATE KEY-----\nhunter2 hunter2\n-----END PRIVATE KEY-----\n");
    let said = async |ca: Option<&PathBuf>, cert: Option<&PathBuf>, key: Option<&PathBuf>| {
        let files = TlsFiles { ca: ca.cloned(), cert: cert.cloned(), key: key.cloned() };
        Tls::new(files).http2().await.unwrap_err().to_string()
    };
    let empty = files.put("empty.pem", "");
    let other_key = files.put("other.pem", &other_key);
    let key = files.put("key.pem", &key);
    for (text, file, words) in [
        (said(Some(&missing), None, None).await, "missing.pem", "No such file"),
        (said(Some(&empty), None, None).await, "empty.pem", "no certificate in PEM"),
        (said(Some(&key), None, None).await, "key.pem", "no certificate in PEM"),
        (said(None, Some(&cert), None).await, "cert.pem", "both a certificate file and a key file"),
        (said(None, Some(&cert), Some(&empty)).await, "empty.pem", "no private key"),
        (said(None, Some(&cert), Some(&secret)).await, "secret.pem", "not usable with"),
        (said(None, Some(&cert), Some(&other_key)).await, "other.pem", "not usable with"),
    ] {
        assert!(text.contains(file) && text.contains(words) && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_refused_stream_was_surely_not_seen_and_a_cancelled_one_may_have_been() {
    for (reason, unseen) in
        [(h2::Reason::REFUSED_STREAM, true), (h2::Reason::CANCEL, false), (h2::Reason::INTERNAL_ERROR, false)]
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut connection = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                respond.send_reset(reason);
            }
        });
        let connection = dial(addr, None).await.unwrap();
        let status = check(&connection).await.unwrap_err();
        assert_eq!(call_error(&status).surely_not_seen(), unseen, "{reason:?}: {status:?}");
        server.abort();
    }
}

/// A FIFO in a file's place: it answers once somebody has written it.
fn hang(path: &std::path::Path) {
    let _ = fs::remove_file(path);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path, fifo, 0o600.into(), 0).unwrap();
}

#[tokio::test]
async fn g4_tls_files_that_hang_cost_a_moment_once_and_those_loaded_before_stay() {
    let (ca, mut with) = (Authority::new(), Files::new());
    let path = with.put("ca.pem", &ca.pem());
    let troubles = Troubles::default();
    let told = troubles.watch();
    let tls = Tls::new(TlsFiles { ca: Some(path.clone()), ..Default::default() }).telling_as("TLS", troubles);
    let first = tls.http1().await.unwrap();
    hang(&path);
    assert!(std::sync::Arc::ptr_eq(&first, &tls.http1().await.unwrap()));
    assert!(told.borrow()["TLS"].contains("ca.pem: no answer within 1s"), "{:?}", *told.borrow());
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        assert!(std::sync::Arc::ptr_eq(&first, &tls.http1().await.unwrap()));
    }
    assert!(begun.elapsed() < files::LIMIT, "each was waited for: {:?}", begun.elapsed());
    // It answers, at last: with another one.
    tokio::task::spawn_blocking(move || fs::write(path, Authority::new().pem())).await.unwrap().unwrap();
    let mut next = tls.http1().await.unwrap();
    while std::sync::Arc::ptr_eq(&first, &next) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        next = tls.http1().await.unwrap();
    }
    assert!(told.borrow().is_empty(), "{:?}", *told.borrow());
}

#[tokio::test]
async fn tls_files_that_hang_from_the_start_are_named_and_looked_at_again() {
    let (ca, files) = (Authority::new(), Files::new());
    let path = files.dir.path().join("ca.pem");
    hang(&path);
    let tls = Tls::new(TlsFiles { ca: Some(path.clone()), ..Default::default() });
    for _ in 0..3 {
        let said = tls.http2().await.unwrap_err().to_string();
        assert!(said.contains("ca.pem: no answer within 1s"), "{said}");
    }
    tokio::task::spawn_blocking(move || fs::write(path, ca.pem())).await.unwrap().unwrap();
    while let Err(error) = tls.http2().await {
        assert!(matches!(error, TlsError::Unanswered { .. }), "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
