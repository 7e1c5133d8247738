use std::{net::SocketAddr, path::Path, sync::atomic::AtomicBool};

use axum::{
    Json, Router,
    extract::{Query, Request, State as With},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::*;
use crate::net::testing::{Authority, refusing};

/// A manager's REST API as far as the client can tell.
#[derive(Default)]
struct Fake {
    rows: Mutex<Vec<Value>>,
    /// Sign-ins with any password get 401.
    refuses: AtomicBool,
    /// What every request for rows gets instead of an answer.
    broken: Mutex<Option<(StatusCode, Value)>>,
    /// A raw body of so many rows, however many were asked for.
    flood: AtomicUsize,
    undeletable: AtomicBool,
    /// The token that is valid; a number that goes up with each that is given.
    token: AtomicUsize,
    expire: Mutex<String>,
    seen: Mutex<Vec<String>>,
}

impl Fake {
    fn count(&self, what: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|s| s.starts_with(what)).count()
    }

    fn give(&self) -> Response {
        let n = self.token.fetch_add(1, Ordering::Relaxed) + 1;
        Json(json!({ "token": format!("token-{n}"), "expire": *self.expire.lock().unwrap() })).into_response()
    }

    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let right = format!("Bearer token-{}", self.token.load(Ordering::Relaxed));
        let given = headers.get("authorization").and_then(|v| v.to_str().ok());
        (given != Some(&right)).then(unauthorized)
    }
}

fn unauthorized() -> Response {
    (StatusCode::UNAUTHORIZED, Json(json!({ "message": "Unauthorized" }))).into_response()
}

type Shared = With<Arc<Fake>>;

async fn sign_in(With(fake): Shared, Json(body): Json<Value>) -> Response {
    fake.seen.lock().unwrap().push("signin".into());
    let right = body == json!({ "name": "guest", "password": "correct-horse" });
    if fake.refuses.load(Ordering::Relaxed) || !right { unauthorized() } else { fake.give() }
}

async fn refresh(With(fake): Shared, headers: HeaderMap) -> Response {
    fake.seen.lock().unwrap().push("refresh".into());
    fake.refusal(&headers).unwrap_or_else(|| fake.give())
}

async fn schedulers(
    With(fake): Shared,
    Query(query): Query<std::collections::HashMap<String, String>>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    fake.seen.lock().unwrap().push(uri.to_string());
    if let Some(refusal) = fake.refusal(&headers) {
        return refusal;
    }
    if let Some((status, body)) = fake.broken.lock().unwrap().clone() {
        return (status, [("location", "http://127.0.0.1:1/"), ("retry-after", "7")], Json(body))
            .into_response();
    }
    let flood = fake.flood.load(Ordering::Relaxed);
    if flood > 0 {
        let one = row(1, "h", "10.0.0.1", "active").to_string();
        return format!("[{}]", vec![one; flood].join(",")).into_response();
    }
    let number = |name: &str| query.get(name).map_or(0, |v| v.parse::<usize>().unwrap());
    let (page, per_page) = (number("page"), number("per_page"));
    let rows = fake.rows.lock().unwrap();
    let matching = rows.iter().filter(|row| {
        query.iter().all(|(name, value)| match row.get(name) {
            Some(Value::String(field)) => field.eq_ignore_ascii_case(value),
            Some(field) => field.to_string() == *value,
            None => true,
        })
    });
    let some: Vec<_> = matching.skip((page - 1) * per_page).take(per_page).cloned().collect();
    Json(some).into_response()
}

async fn one(With(fake): Shared, headers: HeaderMap, request: Request) -> Response {
    if let Some(refusal) = fake.refusal(&headers) {
        return refusal;
    }
    let id: u64 = request.uri().path().rsplit('/').next().unwrap().parse().unwrap();
    let mut rows = fake.rows.lock().unwrap();
    let Some(at) = rows.iter().position(|row| row["id"] == id) else {
        return (StatusCode::NOT_FOUND, Json(json!({ "message": "record not found" }))).into_response();
    };
    if request.method() == "DELETE" && !fake.undeletable.load(Ordering::Relaxed) {
        rows.remove(at);
        return StatusCode::OK.into_response();
    }
    Json(rows[at].clone()).into_response()
}

fn row(id: u64, hostname: &str, ip: &str, state: &str) -> Value {
    json!({ "id": id, "host_name": hostname, "ip": ip, "port": 8002, "state": state, "scheduler_cluster_id": 1,
        "features": ["schedule"], "config": null, "scheduler_cluster": { "id": 0 } })
}

fn app(fake: Arc<Fake>) -> Router {
    Router::new()
        .route("/api/v1/users/signin", post(sign_in))
        .route("/api/v1/users/refresh_token", post(refresh))
        .route("/api/v1/schedulers", get(schedulers))
        .route("/api/v1/schedulers/{id}", get(one).delete(one))
        .with_state(fake)
}

struct Bench {
    fake: Arc<Fake>,
    addr: SocketAddr,
    dir: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bench {
    async fn start() -> Self {
        let fake = Arc::new(Fake::default());
        *fake.expire.lock().unwrap() = "2126-01-01T00:00:00+08:00".into();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let app = app(fake.clone());
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(tcp, app.clone()));
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let bench = Self { fake, addr, dir, task };
        bench.password("correct-horse");
        bench
    }

    fn password(&self, text: &str) {
        std::fs::write(self.dir.path().join("password"), format!("{text}\n")).unwrap();
    }

    fn rest(&self) -> Rest {
        rest(&[self.addr], self.dir.path())
    }
}

async fn serve<I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static>(io: I, app: Router) {
    let service = hyper::service::service_fn(move |request| {
        let mut app = app.clone();
        async move { tower_service::Service::call(&mut app, request).await }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(hyper_util::rt::TokioIo::new(io), service)
        .await;
}

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
async fn a_row_is_read_fresh_by_a_query_that_no_cache_holds() {
    let bench = Bench::start().await;
    *bench.fake.rows.lock().unwrap() =
        vec![row(1, "sched-0", "10.0.0.8", "active"), row(2, "sched-0", "10.0.0.7", "inactive")];
    let rest = bench.rest();
    let read = rest.read_row(&key()).await.unwrap();
    assert_eq!((read.state, read.freshness, read.port), (RowState::Inactive, Freshness::Fresh, Some(8002)));
    bench.fake.rows.lock().unwrap()[1]["state"] = json!("active");
    assert_eq!(rest.read_row(&key()).await.unwrap().state, RowState::Active);
    bench.fake.rows.lock().unwrap().clear();
    assert_eq!(rest.read_row(&key()).await.unwrap().state, RowState::Absent);
    assert_eq!(bench.fake.count("signin"), 1);
    let asked: HashSet<_> = bench.fake.seen.lock().unwrap().iter().cloned().collect();
    assert_eq!(asked.len(), 4, "no query was asked twice: {asked:?}");
}

#[tokio::test]
async fn rows_are_listed_page_by_page() {
    let bench = Bench::start().await;
    *bench.fake.rows.lock().unwrap() = (0..1500).map(|id| row(id, "sched-0", "10.0.0.7", "active")).collect();
    let rows = bench.rest().list(&Filter::Hostname("sched-0".parse().unwrap())).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.id).collect::<HashSet<_>>().len(), 1500);
    assert_eq!(rows.len(), 1500);
    assert!(bench.fake.count("/api/v1/schedulers?host_name=sched-0&page=3&") == 1);
}

#[tokio::test]
async fn a_million_rows_are_cut_at_the_cap_and_said() {
    let bench = Bench::start().await;
    bench.fake.flood.store(1_000_000, Ordering::Relaxed);
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
async fn a_deleted_row_is_seen_to_be_gone() {
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
