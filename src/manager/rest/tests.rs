use std::{net::SocketAddr, path::Path};

use axum::http::StatusCode;
use serde_json::json;

use self::fake::{Bench, Change, app, row, serve};
use super::*;
use crate::net::testing::{Authority, BlackHole, eventually, refusing};

mod fake;

fn rest(addresses: &[SocketAddr], dir: &Path) -> Rest {
    let endpoints = addresses.iter().map(|a| format!("http://{a}").parse().unwrap()).collect();
    let credentials =
        Credentials { username: Some("guest".into()), password_file: Some(dir.join("password")) };
    Rest::new(endpoints, Arc::new(Tls::new(Default::default())), credentials)
}

fn key() -> SchedulerKey {
    SchedulerKey::new(1.try_into().unwrap(), "sched-0".parse().unwrap(), "10.0.0.7".parse().unwrap())
}

/// Lets time pass that nothing waits in.
async fn later(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn g5_a_row_is_read_fresh_by_a_query_that_no_cache_holds() {
    let bench = Bench::start().await;
    *bench.fake.rows.lock().unwrap() =
        vec![row(1, "sched-0", "10.0.0.8", "active"), row(2, "sched-0", "10.0.0.7", "inactive")];
    let rest = bench.rest();
    let read = rest.read_row(&key()).await.unwrap();
    assert_eq!(
        (read.state, read.freshness, read.registered.map(|it| it.port)),
        (RowState::Inactive, Freshness::Fresh, Some(8002))
    );
    bench.fake.rows.lock().unwrap()[1]["state"] = json!("active");
    assert_eq!(rest.read_row(&key()).await.unwrap().state, RowState::Active);
    bench.fake.rows.lock().unwrap().clear();
    assert_eq!(rest.read_row(&key()).await.unwrap().state, RowState::Absent);
    assert_eq!(bench.fake.count("signin"), 1);
    let asked: HashSet<_> = bench.fake.seen.lock().unwrap().iter().cloned().collect();
    assert_eq!(asked.len(), 4, "no query was asked twice: {asked:?}");
}

/// The ids that one look hands over, in order.
async fn look(rest: &Rest, each: &mut (dyn FnMut(usize) + Send)) -> Result<Vec<u64>, Failure> {
    let mut ids = Vec::new();
    rest.each(None, &mut |row| {
        ids.push(row.id);
        each(ids.len());
    })
    .await?;
    Ok(ids)
}

#[tokio::test]
async fn a_look_hands_over_every_row_once_and_no_query_is_asked_twice_by_any_look() {
    let bench = Bench::start().await;
    *bench.fake.rows.lock().unwrap() = (0..3000).map(|id| row(id, "s", "10.0.0.7", "active")).collect();
    // Two clients are one process: neither asks what the other did.
    let clients = [bench.rest(), bench.rest()];
    bench.fake.seen.lock().unwrap().clear();
    for look_at in [0, 1, 0] {
        assert_eq!(look(&clients[look_at], &mut |_| {}).await.unwrap(), (0..3000).collect::<Vec<_>>());
        bench.fake.token.store(0, Ordering::Relaxed);
    }
    let seen = bench.fake.seen.lock().unwrap().clone();
    let mut answered: HashSet<_> = seen.iter().filter(|s| s.starts_with("/api/v1/schedulers?")).collect();
    let sizes: HashSet<_> = answered.iter().map(|q| q.rsplit("per_page=").next().unwrap()).collect();
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    answered.retain(|q| q.contains("?page=1&"));
    assert_eq!(answered.len(), 3, "{answered:?}");
}

#[tokio::test]
async fn a_row_that_moves_between_pages_is_handed_over_once() {
    let bench = Bench::start().await;
    *bench.fake.rows.lock().unwrap() = (0..3000).map(|id| row(id, "s", "10.0.0.7", "active")).collect();
    let rest = bench.rest();
    // At the first row of the first page, its first half moves behind all pages, as PostgreSQL moves what is written.
    let ids = look(&rest, &mut |n| {
        if n == 1 {
            bench.fake.rows.lock().unwrap().rotate_left(150);
        }
    })
    .await
    .unwrap();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    assert_eq!(ids.len(), 3000 - 150, "some moved into the page that was read: nobody can see those");
}

#[tokio::test]
async fn a_look_ends_in_an_error_where_every_page_is_the_first() {
    let bench = Bench::start().await;
    *bench.fake.rows.lock().unwrap() = (0..3000).map(|id| row(id, "s", "10.0.0.7", "active")).collect();
    bench.fake.ignores_page.store(true, Ordering::Relaxed);
    let why = look(&bench.rest(), &mut |_| {}).await.unwrap_err().why;
    assert!(why.contains("page 2") && why.contains(&bench.addr.to_string()), "{why}");
    // One short page is all there is.
    bench.fake.rows.lock().unwrap().truncate(200);
    assert_eq!(look(&bench.rest(), &mut |_| {}).await.unwrap().len(), 200);
}

#[tokio::test]
async fn a_page_that_fails_at_one_endpoint_goes_on_at_another() {
    let (one, two) = (Bench::start().await, Bench::start().await);
    for bench in [&one, &two] {
        *bench.fake.rows.lock().unwrap() = (0..3000).map(|id| row(id, "s", "10.0.0.7", "active")).collect();
    }
    // All managers share the key that tokens are signed with.
    two.fake.token.store(1, Ordering::Relaxed);
    let rest = rest(&[one.addr, two.addr], one.dir.path());
    let ids = look(&rest, &mut |n| {
        if n == 1 {
            *one.fake.broken.lock().unwrap() = Some((StatusCode::INTERNAL_SERVER_ERROR, json!({})));
        }
    })
    .await
    .unwrap();
    assert_eq!(ids, (0..3000).collect::<Vec<_>>());
}

#[tokio::test]
async fn rows_are_listed_page_by_page() {
    let bench = Bench::start().await;
    *bench.fake.rows.lock().unwrap() = (0..3000).map(|id| row(id, "sched-0", "10.0.0.7", "active")).collect();
    let rows = bench.rest().list(&Filter::Hostname("sched-0".parse().unwrap())).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.id).collect::<HashSet<_>>().len(), 3000);
    assert_eq!(rows.len(), 3000);
    assert!(bench.fake.count("/api/v1/schedulers?host_name=sched-0&page=3&") == 1);
}

#[tokio::test]
async fn a_hostnames_rows_are_listed_in_pages_that_fit_by_queries_that_differ() {
    let bench = Bench::start().await;
    *bench.fake.rows.lock().unwrap() = (0..3500).map(|id| row(id, "sched-0", "10.0.0.7", "active")).collect();
    let (rest, filter) = (bench.rest(), Filter::Hostname("sched-0".parse().unwrap()));
    for _ in 0..20 {
        assert_eq!(rest.list(&filter).await.unwrap().len(), 3500);
    }
    let lists = |seen: &&String| seen.starts_with("/api/v1/schedulers?");
    let asked: Vec<_> = bench.fake.seen.lock().unwrap().iter().filter(lists).cloned().collect();
    assert!(asked.len() >= 40, "in pages: {asked:?}");
    assert_eq!(
        asked.iter().collect::<HashSet<_>>().len(),
        asked.len(),
        "no query was asked twice: {asked:?}"
    );
}

#[tokio::test]
async fn a_hundred_thousand_rows_are_cut_at_the_cap_and_said() {
    let bench = Bench::start().await;
    bench.fake.flood.store(100_000, Ordering::Relaxed);
    let why = bench.rest().read_row(&key()).await.unwrap_err().why;
    assert!(why.contains("larger than 4194304 bytes"), "{why}");
}

#[tokio::test]
async fn a_manager_that_ignores_pages_does_not_list_for_ever() {
    let bench = Bench::start().await;
    bench.fake.flood.store(700, Ordering::Relaxed);
    assert_eq!(bench.rest().list(&Filter::Cluster(1.try_into().unwrap())).await.unwrap().len(), 1);
}

#[tokio::test]
async fn more_rows_than_fit_are_refused() {
    let bench = Bench::start().await;
    *bench.fake.rows.lock().unwrap() =
        (0..ROWS_CAP as u64 + 700).map(|id| row(id, "h", "10.0.0.7", "active")).collect();
    let why = bench.rest().list(&Filter::Ip("10.0.0.7".parse().unwrap())).await.unwrap_err().why;
    assert!(why.contains("more than 40000 rows") && why.contains("ip=10.0.0.7"), "{why}");
}

#[tokio::test]
async fn an_expired_token_is_replaced_within_the_read() {
    let bench = Bench::start().await;
    let rest = bench.rest();
    rest.read_row(&key()).await.unwrap();
    bench.fake.token.fetch_add(1, Ordering::Relaxed);
    rest.read_row(&key()).await.unwrap();
    assert_eq!(bench.fake.count("signin"), 2);
}

#[tokio::test]
async fn a_token_is_renewed_at_a_quarter_of_its_life_without_a_sign_in() {
    let bench = Bench::start().await;
    let day = 24 * 3600;
    let in_a_day = jiff::Timestamp::now().as_second() + day;
    *bench.fake.expire.lock().unwrap() = jiff::Timestamp::from_second(in_a_day).unwrap().to_string();
    let rest = bench.rest();
    rest.read_row(&key()).await.unwrap();
    later(day as u64 / 4 - 60).await;
    rest.read_row(&key()).await.unwrap();
    assert_eq!(bench.fake.count("refresh"), 0);
    later(120).await;
    rest.read_row(&key()).await.unwrap();
    assert_eq!((bench.fake.count("refresh"), bench.fake.count("signin")), (1, 1));
}

#[tokio::test]
async fn a_right_password_refused_for_30_s_is_waited_out() {
    let bench = Bench::start().await;
    bench.fake.refuses.store(true, Ordering::Relaxed);
    let rest = bench.rest();
    let why = rest.read_row(&key()).await.unwrap_err().why;
    assert!(why.contains("tried again"), "{why}");
    // No hammering: the next read at once doesn't ask again.
    rest.read_row(&key()).await.unwrap_err();
    assert_eq!(bench.fake.count("signin"), 1);
    later(30).await;
    bench.fake.refuses.store(false, Ordering::Relaxed);
    assert_eq!(rest.read_row(&key()).await.unwrap().state, RowState::Absent);
}

#[tokio::test]
async fn a_refusal_is_final_after_35_s_and_still_tried_again() {
    let bench = Bench::start().await;
    bench.password("wrong-horse");
    let rest = bench.rest();
    rest.read_row(&key()).await.unwrap_err();
    later(36).await;
    let why = rest.read_row(&key()).await.unwrap_err().why;
    assert!(why.contains("is wrong") && why.contains("\"guest\"") && !why.contains("wrong-horse"), "{why}");
    // The password is put right: tried at once.
    bench.password("correct-horse");
    rest.read_row(&key()).await.unwrap();
}

#[tokio::test]
async fn a_refusal_by_every_one_of_several_managers_is_final_at_once() {
    let (one, two) = (Bench::start().await, Bench::start().await);
    one.password("wrong-horse");
    let rest = rest(&[one.addr, two.addr], one.dir.path());
    let why = rest.read_row(&key()).await.unwrap_err().why;
    assert!(why.contains("is wrong"), "{why}");
}

#[tokio::test]
async fn a_dead_and_a_broken_endpoint_are_passed_over() {
    let (broken, works) = (Bench::start().await, Bench::start().await);
    *broken.fake.broken.lock().unwrap() =
        Some((StatusCode::INTERNAL_SERVER_ERROR, json!({ "message": "dial tcp: refused" })));
    // All managers share the key that tokens are signed with.
    works.fake.token.store(1, Ordering::Relaxed);
    let rest = rest(&[refusing().await, broken.addr, works.addr], broken.dir.path());
    assert_eq!(rest.read_row(&key()).await.unwrap().state, RowState::Absent);
    let before = broken.fake.seen.lock().unwrap().len();
    rest.read_row(&key()).await.unwrap();
    assert_eq!(broken.fake.seen.lock().unwrap().len(), before, "the one that answered is asked first");
}

#[tokio::test]
async fn what_the_manager_answers_is_told_with_its_wish() {
    let bench = Bench::start().await;
    let rest = bench.rest();
    for (status, body, words) in [
        (422, json!({ "errors": "Key: 'per_page'" }), "HTTP 422: Key: 'per_page'"),
        (302, json!({}), "HTTP 302"),
        (200, json!({ "a": 1 }), "not the manager's answer"),
        (200, json!([{ "id": 1 }]), "state: "),
        (429, json!({ "message": "slow" }), "overloaded"),
    ] {
        *bench.fake.broken.lock().unwrap() = Some((StatusCode::from_u16(status).unwrap(), body));
        let failure = rest.read_row(&key()).await.unwrap_err();
        assert!(failure.why.contains(words), "{failure}");
        assert!(failure.why.contains(&bench.addr.to_string()), "{failure}");
        if status == 429 {
            assert_eq!((failure.floor, failure.exhausted), (Some(Duration::from_secs(7)), true));
        }
    }
}

#[tokio::test]
async fn g5_a_deleted_row_is_seen_to_be_gone() {
    let bench = Bench::start().await;
    *bench.fake.rows.lock().unwrap() = vec![row(1, "h", "10.0.0.1", "inactive")];
    let rest = bench.rest();
    bench.fake.undeletable.store(true, Ordering::Relaxed);
    let why = rest.delete(1).await.unwrap_err().why;
    assert!(why.contains("row 1") && why.contains("it is there"), "{why}");
    bench.fake.undeletable.store(false, Ordering::Relaxed);
    rest.delete(1).await.unwrap();
    rest.delete(1).await.unwrap();
}

#[tokio::test]
async fn g7_a_deletion_whose_answer_is_lost_is_repeated_only_on_a_row_that_is_as_it_was() {
    for (change, deleted, asked, words) in [
        // It was applied.
        ((|rows| rows.clear()) as Change, true, 0, ""),
        // It was not.
        (|_| (), true, 1, ""),
        // It was not, and its scheduler came back meanwhile.
        (|rows| rows[0]["state"] = json!("active"), false, 0, "has changed meanwhile"),
        (|rows| rows[0]["updated_at"] = json!("2026-11-23T12:26:28.76Z"), false, 0, "has changed meanwhile"),
    ] {
        let one = Bench::start().await;
        *one.fake.rows.lock().unwrap() = vec![row(1, "h", "10.0.0.1", "inactive")];
        let two = one.another().await;
        *one.fake.loses.lock().unwrap() = Some(change);
        let said = rest(&[one.addr, two.addr], one.dir.path()).delete(1).await;
        assert_eq!(said.is_ok(), deleted, "{said:?}");
        assert_eq!(one.fake.rows.lock().unwrap().is_empty(), deleted, "{said:?}");
        assert_eq!((one.fake.count("delete 1"), two.fake.count("delete 1")), (1, asked), "{said:?}");
        assert!(said.map_or_else(|failure| failure.why, |()| String::new()).contains(words), "{words}");
    }
}

#[tokio::test]
async fn a_deletion_whose_answer_is_lost_at_the_only_endpoint_is_told_by_a_look() {
    let bench = Bench::start().await;
    *bench.fake.rows.lock().unwrap() = vec![row(1, "h", "10.0.0.1", "inactive")];
    *bench.fake.loses.lock().unwrap() = Some(|_| ());
    let why = bench.rest().delete(1).await.unwrap_err().why;
    assert!(why.contains("HTTP 502") && why.contains("row 1 is there"), "{why}");
    *bench.fake.loses.lock().unwrap() = Some(|rows| rows.clear());
    bench.rest().delete(1).await.unwrap();
}

#[tokio::test]
async fn g3_an_endpoint_that_hangs_costs_a_read_a_moment_and_is_not_asked_first_again() {
    let (hole, bench) = (BlackHole::start().await, Bench::start().await);
    *bench.fake.rows.lock().unwrap() = vec![row(1, "sched-0", "10.0.0.7", "active")];
    let rest = rest(&[hole.addr, bench.addr], bench.dir.path());
    let begun = std::time::Instant::now();
    assert_eq!(rest.read_row(&key()).await.unwrap().state, RowState::Active);
    assert!(begun.elapsed() < REQUEST_LIMIT, "{:?}", begun.elapsed());
    let met = hole.accepted.lock().unwrap().len();
    assert_eq!(rest.read_row(&key()).await.unwrap().state, RowState::Active);
    assert_eq!(hole.accepted.lock().unwrap().len(), met);
}

#[tokio::test]
async fn g4_a_password_file_that_hangs_costs_a_moment_once_and_is_told() {
    let bench = Bench::start().await;
    let file = bench.dir.path().join("password");
    std::fs::remove_file(&file).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &file, fifo, 0o600.into(), 0).unwrap();
    let troubles = Troubles::default();
    let told = troubles.watch();
    let rest = bench.rest().telling(troubles);
    let begun = std::time::Instant::now();
    for _ in 0..20 {
        let why = rest.read_row(&key()).await.unwrap_err().why;
        assert!(why.contains("password: no answer within 1s"), "{why}");
    }
    assert!(begun.elapsed() < crate::files::LIMIT * 10, "each was waited for: {:?}", begun.elapsed());
    assert!(told.borrow()["the password"].contains("no answer"), "{:?}", *told.borrow());
    // It answers, at last.
    tokio::task::spawn_blocking(move || std::fs::write(file, "correct-horse\n")).await.unwrap().unwrap();
    let mut read = rest.read_row(&key()).await;
    while read.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        read = rest.read_row(&key()).await;
    }
    assert!(told.borrow().is_empty(), "{:?}", *told.borrow());
}

#[tokio::test]
async fn a_missing_user_password_or_file_is_named() {
    let bench = Bench::start().await;
    let file = bench.dir.path().join("password");
    let said = async |username: Option<&str>, password_file: Option<&Path>| {
        let credentials = Credentials {
            username: username.map(str::to_owned),
            password_file: password_file.map(Path::to_owned),
        };
        let endpoint = format!("http://{}", bench.addr).parse().unwrap();
        let rest = Rest::new(vec![endpoint], Arc::new(Tls::new(Default::default())), credentials);
        rest.read_row(&key()).await.unwrap_err().why
    };
    assert!(said(None, Some(&file)).await.contains("--username"));
    assert!(said(Some("guest"), None).await.contains("--password-file"));
    assert!(said(Some("guest"), Some(Path::new("/nonexistent/p"))).await.contains("/nonexistent/p"));
    bench.password("");
    assert!(said(Some("guest"), Some(&file)).await.contains("it is empty"));
}

#[tokio::test]
async fn rest_over_tls_verifies_the_manager_and_follows_a_rotated_ca() {
    let (ca, bench) = (Authority::new(), Bench::start().await);
    let mut config = ca.server(None);
    config.alpn_protocols.clear();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    let app = app(bench.fake.clone());
    let task = tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok(io) = acceptor.accept(tcp).await {
                tokio::spawn(serve(io, app.clone()));
            }
        }
    });
    let file = bench.dir.path().join("ca.pem");
    std::fs::write(&file, Authority::new().pem()).unwrap();
    let tls = Tls::new(crate::net::TlsFiles { ca: Some(file.clone()), ..Default::default() });
    let credentials = Credentials {
        username: Some("guest".into()),
        password_file: Some(bench.dir.path().join("password")),
    };
    let rest = Rest::new(vec![endpoint], Arc::new(tls), credentials);
    let why = rest.read_row(&key()).await.unwrap_err().why;
    assert!(why.contains("UnknownIssuer") || why.contains("BadSignature"), "{why}");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, ca.pem()).unwrap();
    rest.read_row(&key()).await.unwrap();
    task.abort();
}

#[tokio::test]
async fn slow_bytes_hold_a_read_no_longer_than_its_limit() {
    use tokio::io::AsyncWriteExt;
    let (bench, slow) = (Bench::start().await, BlackHole::start().await);
    let rest = rest(&[slow.addr], bench.dir.path());
    let read = tokio::spawn(async move { rest.read_row(&key()).await });
    eventually("it connected", || !slow.accepted.lock().unwrap().is_empty()).await;
    let mut tcp = slow.accepted.lock().unwrap().pop().unwrap();
    tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{").await.unwrap();
    later(REQUEST_LIMIT.as_secs() + 1).await;
    let why = read.await.unwrap().unwrap_err().why;
    assert!(why.contains("timed out") && why.contains(&slow.addr.to_string()), "{why}");
}

#[tokio::test]
async fn who_has_only_just_begun_waits_a_false_refusal_out_and_not_a_final_one() {
    let bench = Bench::start().await;
    bench.fake.refuses.store(true, Ordering::Relaxed);
    let rest = Arc::new(bench.rest());
    let patient = tokio::spawn({
        let rest = rest.clone();
        async move { rest.sign_in_patiently().await }
    });
    eventually("it was refused", || bench.fake.count("signin") == 1).await;
    eventually("it is known", || rest.session.try_lock().is_ok_and(|s| s.retry_in() > Duration::ZERO)).await;
    later(6).await;
    eventually("it was refused again", || bench.fake.count("signin") == 2).await;
    bench.fake.refuses.store(false, Ordering::Relaxed);
    eventually("it is known again", || {
        rest.session
            .try_lock()
            .is_ok_and(|s| s.retry_in() > Duration::ZERO || s.renewal_due_in() > Duration::ZERO)
    })
    .await;
    later(6).await;
    patient.await.unwrap().unwrap();

    bench.fake.refuses.store(true, Ordering::Relaxed);
    let rest = bench.rest();
    rest.signed_in().await.unwrap_err();
    later(36).await;
    let why = rest.sign_in_patiently().await.unwrap_err().why;
    assert!(why.contains("is wrong"), "{why}");
}

#[tokio::test]
async fn a_false_refusal_is_waited_out_in_the_background() {
    let bench = Bench::start().await;
    bench.fake.refuses.store(true, Ordering::Relaxed);
    let rest = Arc::new(bench.rest());
    let keeper = tokio::spawn({
        let rest = rest.clone();
        async move { rest.keep_signed_in().await }
    });
    eventually("it was refused", || bench.fake.count("signin") == 1).await;
    eventually("it is known", || rest.session.try_lock().is_ok_and(|s| s.retry_in() > Duration::ZERO)).await;
    bench.fake.refuses.store(false, Ordering::Relaxed);
    later(7).await;
    eventually("it signed in", || rest.session.try_lock().is_ok_and(|s| s.renewal_due_in() > Duration::ZERO))
        .await;
    assert_eq!(bench.fake.count("signin"), 2);
    keeper.abort();
}

#[test]
fn plain_text_to_an_https_port_is_told_with_what_to_give_instead() {
    // A manager v2.5.1 with server.rest.tls, to `http://`.
    let body = b"Client sent an HTTP request to an HTTPS server.\n".to_vec();
    let answer = Answer { status: 400, retry_after: None, body };
    assert_eq!(
        answer.failure("http://m:8080").why,
        "http://m:8080: HTTP 400: it wants TLS: give it as https://"
    );
    let other = Answer { status: 400, retry_after: None, body: b"Bad Request".to_vec() };
    assert_eq!(other.failure("http://m:8080").why, "http://m:8080: HTTP 400");
}

#[tokio::test]
async fn a_user_whose_role_is_not_enough_is_told_so_and_not_signed_in_again() {
    use crate::mock::{Config, MockManager, TableRow, User};
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), "s3cr3t-password").unwrap();
    let users = vec![User::root(), User::guest("guest", "s3cr3t-password")];
    let manager = MockManager::start(Config { users, ..Config::default() }).await.unwrap();
    manager.table().put([TableRow::sample("a", "192.0.2.1", 1, State::Inactive, 0)]).unwrap();
    // A second sign-in within 30 s would be refused, and hide why.
    let failure = rest(&[manager.rest_addr()], dir.path()).delete(1).await.unwrap_err();
    assert!(failure.why.ends_with("HTTP 401: permission deny"), "{failure}");
    assert!(manager.table().row(1).unwrap().is_some());
}
