//! The REST API: sign-in, the scheduler rows, users and roles.
//!
//! Reads go through the query cache of the process; a PATCH knows no `state` and says 200 all the same; a user
//! may what the roles say that this process has in memory.

use std::{collections::BTreeSet, convert::Infallible, pin::Pin, sync::Arc};

use axum::{
    Router,
    extract::{Path, RawQuery, Request as AxumRequest, State as Shared},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response as AxumResponse},
    routing::{get, post, put},
};
use http::{Request, Response};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tower_service::Service;

use self::{
    query::Query,
    row::{RestRow, Shown},
};
use super::{
    connection::{Control, End},
    fault::{Kind, Scope},
    listener::{Body, boxed},
    million,
    node::Node,
    table::{Patch, TableError},
};

mod accounts;
mod query;
mod row;
mod token;

/// The REST API of one life of a manager.
#[derive(Debug, Clone)]
pub(super) struct RestPort {
    router: Router,
}

impl RestPort {
    pub(super) fn new(node: Arc<Node>) -> Self {
        let rows = Router::new()
            .route("/api/v1/schedulers", get(list))
            .route("/api/v1/schedulers/{id}", get(one).patch(patch).delete(delete))
            .route("/api/v1/scheduler-clusters", get(clusters))
            .route("/api/v1/users", get(accounts::users))
            .route("/api/v1/users/{id}", get(accounts::user))
            .route("/api/v1/users/{id}/roles", get(accounts::roles_of))
            .route("/api/v1/users/{id}/roles/{role}", put(accounts::give).delete(accounts::take))
            .route("/api/v1/roles", get(accounts::roles).post(accounts::make_role))
            .route("/api/v1/roles/{role}", get(accounts::role).delete(accounts::remove_role))
            .layer(from_fn_with_state(node.clone(), authorize));
        let router = Router::new()
            .route("/healthy", get(async || axum::Json("OK")))
            .route("/api/v1/users/signin", post(sign_in))
            .route("/api/v1/users/signup", post(accounts::sign_up))
            .route("/api/v1/users/refresh_token", post(refresh))
            .merge(rows)
            .layer(from_fn_with_state(node.clone(), faults))
            .with_state(node);
        Self { router }
    }
}

impl Service<Request<Incoming>> for RestPort {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let answer = self.router.call(request);
        Box::pin(async move { Ok(boxed(answer.await?)) })
    }
}

/// An answer that is none of success.
#[derive(Debug)]
enum Refusal {
    /// 401: no token, or none that counts.
    Unauthorized,
    /// 401: the role may not.
    Denied,
    /// 404.
    NotFound,
    /// 409: it is there already.
    Conflict,
    /// 422: the request is wrong, and how.
    Wrong(String),
    /// 500: the database.
    Database(String),
}

impl From<TableError> for Refusal {
    fn from(e: TableError) -> Self {
        Refusal::Database(e.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> AxumResponse {
        let (status, body) = match self {
            Refusal::Unauthorized => (StatusCode::UNAUTHORIZED, json!({ "message": "Unauthorized" })),
            Refusal::Denied => (StatusCode::UNAUTHORIZED, json!({ "message": "permission deny" })),
            Refusal::NotFound => (StatusCode::NOT_FOUND, json!({ "message": "record not found" })),
            Refusal::Conflict => (StatusCode::CONFLICT, json!({ "message": "Conflict" })),
            Refusal::Wrong(how) => (StatusCode::UNPROCESSABLE_ENTITY, json!({ "errors": how })),
            Refusal::Database(why) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "message": why })),
        };
        (status, axum::Json(body)).into_response()
    }
}

fn call_name(request: &AxumRequest) -> &'static str {
    match (request.method().as_str(), request.uri().path()) {
        (_, "/api/v1/users/signin") => "signin",
        (_, "/api/v1/users/refresh_token") => "refresh",
        (_, "/api/v1/users/signup") => "signup",
        (_, path) if path.starts_with("/api/v1/users") => "users",
        (_, path) if path.starts_with("/api/v1/roles") => "roles",
        ("GET", "/api/v1/schedulers") => "list",
        ("PATCH", _) => "patch",
        ("DELETE", _) => "delete",
        _ => "get",
    }
}

/// The faults of this API. `/healthy` has none.
async fn faults(Shared(node): Shared<Arc<Node>>, request: AxumRequest, next: Next) -> AxumResponse {
    if request.uri().path() == "/healthy" {
        return next.run(request).await;
    }
    let call = call_name(&request);
    let control = request.extensions().get::<Control>().cloned();
    let take = |kind| node.faults.take(kind, Scope::Rest, call);
    if let Some(stall) = take(Kind::Stall) {
        tokio::time::sleep(stall.wait()).await;
    }
    for (kind, end) in [(Kind::Garbage, End::Garbage), (Kind::Reset, End::Reset)] {
        if take(kind).is_some() {
            return cut(control, end).await;
        }
    }
    for (kind, status) in [
        (Kind::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        (Kind::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS),
        (Kind::Internal, StatusCode::INTERNAL_SERVER_ERROR),
        (Kind::Http, StatusCode::INTERNAL_SERVER_ERROR),
        (Kind::Proxied, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        if let Some(fault) = take(kind) {
            let status = fault.status.and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or(status);
            let text = fault.message.unwrap_or_else(|| status.canonical_reason().unwrap_or("").to_owned());
            let mut answer = (status, axum::Json(json!({ "message": text }))).into_response();
            let default = (status == StatusCode::TOO_MANY_REQUESTS).then_some(1.0);
            if let Some(seconds) = fault.after.or(default) {
                let seconds = HeaderValue::from(seconds.ceil() as u64);
                answer.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            return answer;
        }
    }
    node.database_time(1).await;
    let answer = next.run(request).await;
    if take(Kind::CutAfterApply).is_some() {
        return cut(control, End::Reset).await;
    }
    if call == "list" && answer.status() == StatusCode::OK && take(Kind::MillionRow).is_some() {
        let (mut parts, body) = answer.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        let own = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        return AxumResponse::from_parts(parts, axum::body::Body::new(million::json(&own, row::filler)));
    }
    answer
}

async fn cut(control: Option<Control>, end: End) -> AxumResponse {
    if let Some(control) = control {
        control.end(end);
    }
    std::future::pending().await
}

/// Who asks, and whether they may.
async fn authorize(Shared(node): Shared<Arc<Node>>, request: AxumRequest, next: Next) -> AxumResponse {
    let Some(claims) = token::of(request.headers(), node.database.now()) else {
        return Refusal::Unauthorized.into_response();
    };
    let object = request.uri().path().strip_prefix("/api/v1/").and_then(|path| path.split('/').next());
    let action = if request.method() == axum::http::Method::GET { "read" } else { "*" };
    if node.enforcer().allows(claims.user, object.unwrap_or_default(), action) {
        next.run(request).await
    } else {
        Refusal::Denied.into_response()
    }
}

#[derive(Deserialize)]
struct SignIn {
    name: String,
    password: String,
}

#[derive(Serialize)]
struct Granted {
    token: String,
    expire: String,
}

fn grant(node: &Node, name: &str, user: u64) -> axum::Json<Granted> {
    let now = node.database.now();
    let life = u64::try_from(node.token_life.as_millis()).unwrap_or(u64::MAX / 4);
    let claims = token::Claims { name: name.to_owned(), user, issued: now, expires: now + life };
    axum::Json(Granted { token: claims.to_string(), expire: row::rfc3339(claims.expires, 0) })
}

async fn sign_in(
    Shared(node): Shared<Arc<Node>>,
    body: axum::body::Bytes,
) -> Result<axum::Json<Granted>, Refusal> {
    let asked: SignIn = serde_json::from_slice(&body).map_err(|_| Refusal::Unauthorized)?;
    let in_bounds =
        (3..=10).contains(&asked.name.chars().count()) && (8..=20).contains(&asked.password.chars().count());
    if !in_bounds {
        return Err(Refusal::Unauthorized);
    }
    let user = node.sign_in(&asked.name, &asked.password)?.ok_or(Refusal::Unauthorized)?;
    Ok(grant(&node, &user.name, user.id))
}

/// Only in the first half of a token's life, and without a look at the user.
async fn refresh(
    Shared(node): Shared<Arc<Node>>,
    headers: HeaderMap,
) -> Result<axum::Json<Granted>, Refusal> {
    let now = node.database.now();
    let claims = token::of(&headers, now).ok_or(Refusal::Unauthorized)?;
    if now >= claims.issued + (claims.expires - claims.issued) / 2 {
        return Err(Refusal::Unauthorized);
    }
    Ok(grant(&node, &claims.name, claims.user))
}

/// The clusters, as far as they matter here: the first one, which a manager makes itself, and those that have rows.
async fn clusters(Shared(node): Shared<Arc<Node>>) -> Result<AxumResponse, Refusal> {
    let rows = node.database.rows()?;
    let ids: BTreeSet<u64> = rows.iter().map(|row| row.scheduler_cluster_id).chain([1]).collect();
    let clusters: Vec<_> = ids
        .iter()
        .map(|id| json!({ "id": id, "name": format!("cluster-{id}"), "is_default": *id == 1 }))
        .collect();
    Ok(axum::Json(clusters).into_response())
}

async fn list(Shared(node): Shared<Arc<Node>>, RawQuery(text): RawQuery) -> Result<AxumResponse, Refusal> {
    let asked = text.as_deref().unwrap_or("");
    let query = Query::parse(asked).map_err(Refusal::Wrong)?;
    let page = node.query(query.statement(), |rows| query.page(rows, node.database.collation()))?;
    let total =
        node.count(query.count_statement(), |rows| query.matching(rows, node.database.collation()).count())?;
    let shown = Shown::by(&node);
    let rows: Vec<_> = page.iter().map(|row| RestRow::new(row, shown)).collect();
    Ok(([(header::LINK, query.link(asked, total))], axum::Json(rows)).into_response())
}

fn id(text: &str) -> Result<u64, Refusal> {
    let id = text
        .parse::<u64>()
        .map_err(|_| Refusal::Wrong(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")))?;
    if id == 0 {
        let how = "Key: 'SchedulerParams.ID' Error:Field validation for 'ID' failed on the 'required' tag";
        return Err(Refusal::Wrong(how.to_owned()));
    }
    Ok(id)
}

async fn one(Shared(node): Shared<Arc<Node>>, Path(text): Path<String>) -> Result<AxumResponse, Refusal> {
    let id = id(&text)?;
    // An error isn't cached, so neither is an absence.
    let found = match node.database.row(id)? {
        None => Vec::new(),
        Some(_) => node.query(format!("SELECT * FROM scheduler WHERE id = {id}"), |rows| {
            rows.iter().filter(|r| r.id == id).cloned().collect()
        })?,
    };
    let row = found.first().ok_or(Refusal::NotFound)?;
    Ok(axum::Json(RestRow::new(row, Shown::by(&node))).into_response())
}

async fn patch(
    Shared(node): Shared<Arc<Node>>,
    Path(text): Path<String>,
    body: axum::body::Bytes,
) -> Result<AxumResponse, Refusal> {
    let id = id(&text)?;
    let patch: Patch = serde_json::from_slice(&body).map_err(|e| Refusal::Wrong(e.to_string()))?;
    let row = node.patch(id, patch)?.ok_or(Refusal::NotFound)?;
    Ok(axum::Json(RestRow::new(&row, Shown::by(&node))).into_response())
}

async fn delete(Shared(node): Shared<Arc<Node>>, Path(text): Path<String>) -> Result<StatusCode, Refusal> {
    if node.delete(id(&text)?)? { Ok(StatusCode::OK) } else { Err(Refusal::NotFound) }
}
