//! A manager's REST API, in as many words as the client's tests need.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Query, Request, State as With},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{super::Rest, rest};

/// What becomes of the rows.
pub(super) type Change = fn(&mut Vec<Value>);

/// A manager's REST API as far as the client can tell.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) rows: Arc<Mutex<Vec<Value>>>,
    /// Sign-ins with any password get 401.
    pub(super) refuses: AtomicBool,
    /// What every request for rows gets instead of an answer.
    pub(super) broken: Mutex<Option<(StatusCode, Value)>>,
    /// A raw body of so many rows, however many were asked for.
    pub(super) flood: AtomicUsize,
    pub(super) undeletable: AtomicBool,
    /// The answer to a deletion is lost, once the row was changed like this.
    pub(super) loses: Mutex<Option<Change>>,
    /// Every page is the first.
    pub(super) ignores_page: AtomicBool,
    /// The token that is valid; a number that goes up with each that is given.
    pub(super) token: AtomicUsize,
    pub(super) expire: Mutex<String>,
    pub(super) seen: Mutex<Vec<String>>,
}

impl Fake {
    pub(super) fn count(&self, what: &str) -> usize {
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
    let (mut page, per_page) = (number("page"), number("per_page"));
    if fake.ignores_page.load(Ordering::Relaxed) {
        page = 1;
    }
    let rows = fake.rows.lock().unwrap();
    let matching = rows.iter().filter(|row| {
        query.iter().all(|(name, value)| match row.get(name) {
            Some(Value::String(field)) => field.eq_ignore_ascii_case(value),
            Some(field) => field.as_u64() == value.parse().ok(),
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
    if request.method() == "DELETE" {
        fake.seen.lock().unwrap().push(format!("delete {id}"));
        if let Some(change) = *fake.loses.lock().unwrap() {
            change(&mut rows);
            // As a proxy says it whose manager has gone.
            return StatusCode::BAD_GATEWAY.into_response();
        }
    }
    if request.method() == "DELETE" && !fake.undeletable.load(Ordering::Relaxed) {
        rows.remove(at);
        return StatusCode::OK.into_response();
    }
    Json(rows[at].clone()).into_response()
}

pub(super) fn row(id: u64, hostname: &str, ip: &str, state: &str) -> Value {
    json!({ "id": id, "host_name": hostname, "ip": ip, "port": 8002, "state": state, "scheduler_cluster_id": 1,
        "features": ["schedule"], "config": null, "scheduler_cluster": { "id": 0 } })
}

pub(super) fn app(fake: Arc<Fake>) -> Router {
    Router::new()
        .route("/api/v1/users/signin", post(sign_in))
        .route("/api/v1/users/refresh_token", post(refresh))
        .route("/api/v1/schedulers", get(schedulers))
        .route("/api/v1/schedulers/{id}", get(one).delete(one))
        .with_state(fake)
}

pub(super) struct Bench {
    pub(super) fake: Arc<Fake>,
    pub(super) addr: SocketAddr,
    pub(super) dir: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bench {
    pub(super) async fn start() -> Self {
        Self::start_with(Fake::default()).await
    }

    async fn start_with(fake: Fake) -> Self {
        let fake = Arc::new(fake);
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

    /// Another manager of the same table, and of the same key for tokens.
    pub(super) async fn another(&self) -> Self {
        let other = Self::start_with(Fake { rows: Arc::clone(&self.fake.rows), ..Fake::default() }).await;
        other.fake.token.store(1, Ordering::Relaxed);
        other
    }

    pub(super) fn password(&self, text: &str) {
        std::fs::write(self.dir.path().join("password"), format!("{text}\n")).unwrap();
    }

    pub(super) fn rest(&self) -> Rest {
        rest(&[self.addr], self.dir.path())
    }
}

pub(super) async fn serve<I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static>(
    io: I,
    app: Router,
) {
    let service = hyper::service::service_fn(move |request| {
        let mut app = app.clone();
        async move { tower_service::Service::call(&mut app, request).await }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(hyper_util::rt::TokioIo::new(io), service)
        .await;
}
