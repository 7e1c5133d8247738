//! `manager.v2.Manager` over gRPC.
//!
//! KeepAlive is the only call that writes a state: `active` at a stream's first message, `inactive` at its end, however it
//! ends. Its work is a task of its own, as the manager's is: a client that gave up doesn't stop it, only the end of the
//! process does.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderValue, Request as HttpRequest, Response as HttpResponse};
use hyper::body::Incoming;
use tokio::sync::{oneshot, watch};
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming};
use tower_service::Service;

use super::{
    connection::{Control, End},
    fault::{Fault, Kind, Scope},
    health::HealthService,
    limit::Limit,
    listener::{Body, Phase, boxed, reached},
    manager::Release,
    million,
    node::Node,
    table::{By, Registration, Selector, TableError, TableRow},
    validate,
};
use crate::{
    manager::State,
    proto::{
        health_v1::health_server::HealthServer,
        manager_v2::{
            Empty, KeepAliveRequest, ListSchedulersRequest, ListSchedulersResponse, Scheduler,
            UpdateSchedulerRequest,
            manager_server::{Manager, ManagerServer},
        },
    },
};

const DATABASE_GONE: &str = "dial tcp 127.0.0.1:3306: connect: connection refused";
const REDIS_DOWN: [Duration; 2] = [Duration::from_millis(3400), Duration::from_millis(2400)];
const REDIS_FROZEN: Duration = Duration::from_secs(2);

impl From<TableError> for Status {
    fn from(e: TableError) -> Self {
        Status::internal(e.to_string())
    }
}

fn message(row: TableRow) -> Scheduler {
    Scheduler {
        id: row.id,
        hostname: row.host_name,
        idc: row.idc,
        location: row.location,
        features: serde_json::json!(row.features).to_string().into_bytes(),
        ip: row.ip,
        port: row.port,
        state: match row.state {
            State::Active => "active".into(),
            State::Inactive => "inactive".into(),
        },
        scheduler_cluster_id: row.scheduler_cluster_id,
    }
}

/// The service of one life of a manager.
#[derive(Debug, Clone)]
pub(super) struct ManagerService {
    node: Arc<Node>,
    phase: watch::Receiver<Phase>,
}

/// Marks an answer that has to go out as trailers alone, as grpc-go sends OK where a handler sent nothing.
#[derive(Clone)]
struct TrailersOnly;

impl ManagerService {
    /// Faults that act before a call is taken up.
    async fn before(&self, call: &str, control: Option<&Control>) -> Result<(), Status> {
        let faults = &self.node.faults;
        let take = |kind| faults.take(kind, Scope::Grpc, call);
        if let Some(stall) = take(Kind::Stall) {
            tokio::time::sleep(stall.wait()).await;
        }
        if take(Kind::Garbage).is_some() {
            return cut(control, End::Garbage).await;
        }
        for (kind, code, text) in [
            (Kind::Unavailable, Code::Unavailable, "the manager is unavailable"),
            (Kind::ResourceExhausted, Code::ResourceExhausted, "too many requests"),
            (Kind::Internal, Code::Internal, DATABASE_GONE),
        ] {
            if let Some(fault) = take(kind) {
                return Err(Status::new(code, fault.message.unwrap_or_else(|| text.to_owned())));
            }
        }
        Ok(())
    }

    /// Runs until done or until the process is dead.
    fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        let mut phase = self.phase.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = reached(&mut phase, Phase::Dead) => {}
                done = work => drop(answer.send(done)),
            }
        });
        answered
    }
}

/// Ends the connection; there is no answer.
async fn cut<T>(control: Option<&Control>, end: End) -> Result<T, Status> {
    if let Some(control) = control {
        control.end(end);
    }
    std::future::pending().await
}

/// A KeepAlive stream's work.
struct KeepAlive {
    node: Arc<Node>,
    control: Option<Control>,
    /// Ends when the client has gone.
    client: Option<oneshot::Sender<()>>,
    /// Its Redis is down.
    redis_down: bool,
}

impl KeepAlive {
    fn take(&self, kind: Kind) -> Option<Fault> {
        self.node.faults.take(kind, Scope::Grpc, "keep-alive")
    }

    /// One of the two moments: the state, then the caches.
    async fn moment(&mut self, selector: &Selector, state: State, by: By) -> Result<(), Status> {
        let hears_errors = self.node.lookup(selector).await;
        let found = self.node.set_state(selector, state, by)?;
        if !found {
            return if hears_errors { Err(Status::internal("record not found")) } else { Ok(()) };
        }
        let first = by == By::FirstMessage;
        let still = |kind| !first && self.node.faults.is_on(kind, Scope::Grpc);
        let frozen = still(Kind::RedisFrozen) || first && self.take(Kind::RedisFrozen).is_some();
        self.redis_down |= still(Kind::RedisDown) || first && self.take(Kind::RedisDown).is_some();
        if frozen && let Some(mut client) = self.client.take() {
            client.closed().await;
            tokio::time::sleep(REDIS_FROZEN).await;
        } else if self.redis_down {
            tokio::time::sleep(REDIS_DOWN[usize::from(!first)]).await;
        }
        self.node.forget_cluster(selector.cluster_id)?;
        Ok(())
    }

    async fn run(mut self, mut messages: Streaming<KeepAliveRequest>) -> Result<(), Status> {
        let received = async |messages: &mut Streaming<KeepAliveRequest>| match messages.message().await {
            Ok(Some(m)) => match validate::keep_alive(&m) {
                Ok(()) => Ok(m),
                Err(why) => Err(Some(format!("rpc error: code = InvalidArgument desc = {why}"))),
            },
            Ok(None) => Err(None),
            Err(e) => Err(Some(format!("rpc error: code = {:?} desc = {}", e.code(), e.message()))),
        };
        let first = match received(&mut messages).await {
            Ok(first) => first,
            Err(why) => return Err(Status::internal(why.unwrap_or_else(|| "EOF".to_owned()))),
        };
        let selector = Selector {
            hostname: first.hostname,
            ip: Some(first.ip).filter(|ip| !ip.is_empty()),
            cluster_id: first.cluster_id,
        };
        // Peers and seed peers have no rows here.
        let is_scheduler = first.source_type == 0;
        if let Some(late) = self.take(Kind::ApplyLate) {
            tokio::time::sleep(late.wait()).await;
        }
        if is_scheduler {
            self.moment(&selector, State::Active, By::FirstMessage).await?;
        }
        if self.take(Kind::DieBetween).is_some() {
            return cut(self.control.as_ref(), End::Reset).await;
        }
        if self.take(Kind::Reset).is_some()
            && let Some(control) = &self.control
        {
            control.end(End::Reset);
        }
        let end = loop {
            match received(&mut messages).await {
                Ok(_) if is_scheduler => {
                    self.node.database_time(1).await;
                    self.node.touch(&selector)?;
                }
                Ok(_) => {}
                Err(end) => break end,
            }
        };
        if let Some(lost) = self.take(Kind::DatabaseLost) {
            return Err(Status::internal(lost.message.unwrap_or_else(|| "invalid connection".to_owned())));
        }
        if is_scheduler {
            self.moment(&selector, State::Inactive, By::StreamEnd).await?;
        }
        if self.take(Kind::CutAfterApply).is_some() {
            return cut(self.control.as_ref(), End::Reset).await;
        }
        end.map_or(Ok(()), |why| Err(Status::unknown(why)))
    }
}

#[tonic::async_trait]
impl Manager for ManagerService {
    async fn update_scheduler(
        &self,
        request: Request<UpdateSchedulerRequest>,
    ) -> Result<Response<Scheduler>, Status> {
        let control = request.extensions().get::<Control>().cloned();
        self.before("register", control.as_ref()).await?;
        let request = request.into_inner();
        validate::update_scheduler(&request).map_err(Status::invalid_argument)?;
        let config = if request.config.is_empty() {
            serde_json::Value::Null
        } else {
            serde_json::from_slice(&request.config).map_err(|e| Status::internal(e.to_string()))?
        };
        self.node.database_time(1).await;
        let row = self.node.register(Registration {
            hostname: request.hostname,
            ip: request.ip,
            port: request.port,
            cluster_id: request.scheduler_cluster_id,
            idc: request.idc,
            location: request.location,
            features: request.features,
            config,
        })?;
        if self.node.faults.take(Kind::CutAfterApply, Scope::Grpc, "register").is_some() {
            return cut(control.as_ref(), End::Reset).await;
        }
        Ok(Response::new(message(row)))
    }

    async fn list_schedulers(
        &self,
        request: Request<ListSchedulersRequest>,
    ) -> Result<Response<ListSchedulersResponse>, Status> {
        let control = request.extensions().get::<Control>().cloned();
        self.before("list", control.as_ref()).await?;
        let request = request.into_inner();
        validate::list_schedulers(&request).map_err(Status::invalid_argument)?;
        self.node.database_time(1).await;
        let cluster = match self.node.release {
            Release::V2_2 => 0,
            Release::V2_5 => request.scheduler_cluster_id,
        };
        let rows = if cluster != 0 {
            self.node.list(
                &Node::cluster_list_key(cluster),
                &format!("SELECT * FROM scheduler WHERE scheduler_cluster_id = {cluster}"),
                |row| row.scheduler_cluster_id == cluster,
            )
        } else {
            self.node
                .list(
                    &format!(
                        "manager:peers:{}-{}-{}:schedulers",
                        request.hostname, request.ip, request.version
                    ),
                    "SELECT * FROM scheduler WHERE state = 'active'",
                    |row| row.state == State::Active && row.features.iter().any(|f| f == "schedule"),
                )
                .map(|mut rows| {
                    let matches =
                        |ours: &str, theirs: &str| !ours.is_empty() && ours.eq_ignore_ascii_case(theirs);
                    rows.sort_by_key(|row| {
                        !(matches(&row.idc, &request.idc) || matches(&row.location, &request.location))
                    });
                    rows
                })
        };
        let rows = rows.map_err(|e| Status::unknown(e.to_string()))?;
        let mut response =
            Response::new(ListSchedulersResponse { schedulers: rows.into_iter().map(message).collect() });
        if self.node.faults.take(Kind::MillionRow, Scope::Grpc, "list").is_some() {
            response.extensions_mut().insert(million::Extra);
        }
        Ok(response)
    }

    type KeepAliveStream = Pin<Box<dyn Stream<Item = Result<Empty, Status>> + Send>>;

    async fn keep_alive(
        &self,
        request: Request<Streaming<KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let control = request.extensions().get::<Control>().cloned();
        self.before("keep-alive", control.as_ref()).await?;
        let (client, _here) = oneshot::channel();
        let work = KeepAlive { node: self.node.clone(), control, client: Some(client), redis_down: false };
        match self.detached(work.run(request.into_inner())).await {
            Ok(Ok(())) => {
                let nothing: Self::KeepAliveStream = Box::pin(futures_util::stream::empty());
                let mut response = Response::new(nothing);
                response.extensions_mut().insert(TrailersOnly);
                Ok(response)
            }
            Ok(Err(status)) => Err(status),
            // The process is dead: its sockets say so.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Both gRPC services of a manager, and the HTTP answers of what may stand before it.
#[derive(Clone)]
pub(super) struct GrpcPort {
    service: ManagerService,
    health: Arc<HealthService>,
    limit: Option<Arc<Limit>>,
}

impl GrpcPort {
    pub(super) fn new(node: Arc<Node>, phase: watch::Receiver<Phase>, limit: Option<Arc<Limit>>) -> Self {
        // It stays SERVING to its end, as grpc-go's does that nobody told otherwise.
        let health = HealthService::new(&["manager.v2.Manager"], watch::channel(true).1);
        Self { service: ManagerService { node, phase }, health: Arc::new(health), limit }
    }

    async fn answer(self, request: HttpRequest<Incoming>) -> HttpResponse<Body> {
        let path = request.uri().path();
        if self.limit.is_some_and(|limit| !limit.takes()) {
            let words = format!("{path} is rejected by grpc_ratelimit middleware, please retry later.");
            return boxed(Status::resource_exhausted(words).into_http::<tonic::body::Body>());
        }
        if let Some(fault) = self.service.node.faults.take(Kind::Proxied, Scope::Grpc, call_name(path)) {
            return boxed(proxied(&fault));
        }
        if path.starts_with("/grpc.health.v1.Health/") {
            return boxed(infallible(HealthServer::from_arc(self.health).call(request).await));
        }
        if !path.starts_with("/manager.v2.Manager/") {
            return boxed(
                Status::unimplemented(format!("unknown service {path}")).into_http::<tonic::body::Body>(),
            );
        }
        let call = call_name(path);
        if let Some(fault) = self.service.node.faults.take(Kind::Http, Scope::Grpc, call) {
            let mut response = HttpResponse::new(tonic::body::Body::empty());
            *response.status_mut() =
                http::StatusCode::from_u16(fault.status.unwrap_or(500)).unwrap_or_default();
            return boxed(response);
        }
        let mut response = infallible(ManagerServer::new(self.service).call(request).await);
        if response.extensions().get::<TrailersOnly>().is_some() {
            let mut alone = HttpResponse::new(tonic::body::Body::empty());
            alone
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            alone.headers_mut().insert("grpc-status", HeaderValue::from_static("0"));
            return boxed(alone);
        }
        if response.extensions_mut().remove::<million::Extra>().is_some() {
            return million::grpc(response).await;
        }
        boxed(response)
    }
}

fn call_name(path: &str) -> &'static str {
    match path {
        "/manager.v2.Manager/KeepAlive" => "keep-alive",
        "/manager.v2.Manager/ListSchedulers" => "list",
        "/manager.v2.Manager/UpdateScheduler" => "register",
        _ => "",
    }
}

/// What a proxy answers for a manager that is away.
fn proxied(fault: &Fault) -> HttpResponse<tonic::body::Body> {
    let mut response = match &fault.message {
        Some(message) => Status::unavailable(message).into_http(),
        None => {
            let mut response = HttpResponse::new(tonic::body::Body::empty());
            *response.status_mut() =
                http::StatusCode::from_u16(fault.status.unwrap_or(503)).unwrap_or_default();
            response
        }
    };
    if let Some(seconds) = fault.after {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds.ceil() as u64));
    }
    response
}

fn infallible<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(t) => t,
        Err(never) => match never {},
    }
}

impl Service<HttpRequest<Incoming>> for GrpcPort {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Incoming>) -> Self::Future {
        let port = self.clone();
        Box::pin(async move {
            let response = port.answer(request).await;
            Ok(response)
        })
    }
}
