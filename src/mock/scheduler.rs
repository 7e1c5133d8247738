//! [`MockScheduler`]: a scheduler as the manager, its peers and an agent beside it see it.
//!
//! It registers, sends its first KeepAlive message one interval after it started and then one each interval, notices a
//! broken stream at its next message and opens a new one, and serves grpc.health.v1. At its stop it closes its listener
//! and its KeepAlive stream at once, tells its clients to go, and waits for *every* open call, a health `Watch` among them,
//! for at most 10 min; an idle connection doesn't hold it.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    net::lookup_host,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, interval_at, sleep, timeout},
};
use tower_service::Service;

use super::{
    channel::Channel,
    fault::{Faults, Scope},
    health::HealthService,
    listener::{Body, Held, Phase, Port, bind, boxed},
};
use crate::{
    key::SchedulerKey,
    proto::{
        health_v1::health_server::HealthServer,
        manager_v2::{KeepAliveRequest, UpdateSchedulerRequest, manager_client::ManagerClient},
    },
};

const GRACEFUL_STOP: Duration = Duration::from_secs(600);

/// How a mock scheduler is set up.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Its row's identity.
    pub key: SchedulerKey,
    /// The manager's gRPC, `host:port`.
    pub manager: String,
    /// Where it serves; port 0 for any.
    pub listen: SocketAddr,
    /// The port it registers; none for the one it serves at (it must be one that a manager accepts: 1024 to 65534).
    pub register_port: Option<u16>,
    /// How often it sends a KeepAlive message; 5 s on the real one.
    pub keep_alive_interval: Duration,
}

impl SchedulerConfig {
    /// A scheduler of this key at any loopback port, with an interval of 5 s.
    pub fn new(key: SchedulerKey, manager: impl ToString) -> Self {
        Self {
            key,
            manager: manager.to_string(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            register_port: None,
            keep_alive_interval: Duration::from_secs(5),
        }
    }

    /// With another interval.
    pub fn every(mut self, interval: Duration) -> Self {
        self.keep_alive_interval = interval;
        self
    }
}

/// Why a scheduler doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// Its port can't be had.
    #[error("the scheduler can't listen on {addr}: {source}")]
    Bind {
        /// Where.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The manager can't be reached.
    #[error("manager {manager}: {source}")]
    Manager {
        /// Its address.
        manager: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The manager refused the registration.
    #[error("manager {manager} refused the registration: {code:?}: {message}")]
    Refused {
        /// Its address.
        manager: String,
        /// The status.
        code: tonic::Code,
        /// Its words.
        message: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Run,
    Close,
    Vanish,
}

#[derive(Debug)]
struct Life {
    phase: watch::Sender<Phase>,
    order: watch::Sender<Order>,
    server: JoinSet<()>,
    keep_alive: JoinSet<()>,
    listening: oneshot::Receiver<()>,
}

/// A mock scheduler. Dropped, it dies like a killed process.
#[derive(Debug)]
pub struct MockScheduler {
    config: SchedulerConfig,
    held: Held,
    life: Option<Life>,
    /// Connections of a lost node, which nobody will ever close.
    vanished: Vec<JoinSet<()>>,
}

async fn connect(manager: &str) -> std::io::Result<ManagerClient<Channel>> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for addr in lookup_host(manager).await? {
        match timeout(Duration::from_secs(5), Channel::connect(addr)).await {
            Ok(Ok(channel)) => {
                let origin = channel.origin();
                return Ok(ManagerClient::with_origin(channel, origin));
            }
            Ok(Err(e)) => last = e,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

impl MockScheduler {
    /// Starts one: it serves and is registered when this returns; its row is active one interval later. Fails, as the real
    /// one does, where the manager can't be reached or refuses the registration.
    pub async fn start(config: SchedulerConfig) -> Result<Self, SchedulerError> {
        let addr = config.listen;
        let held = Held::new(addr).await.map_err(|source| SchedulerError::Bind { addr, source })?;
        let mut scheduler = Self { held, config, life: None, vanished: Vec::new() };
        scheduler.restart().await?;
        Ok(scheduler)
    }

    /// Starts it again at the same address. Does nothing while it runs.
    pub async fn restart(&mut self) -> Result<(), SchedulerError> {
        if self.life.is_some() {
            return Ok(());
        }
        let addr = self.held.addr;
        let listener = bind(addr).await.map_err(|source| SchedulerError::Bind { addr, source })?;
        self.register().await?;
        let (phase, serving) = watch::channel(Phase::Serving);
        let (closed, listening) = oneshot::channel();
        let health = HealthService::new(&["scheduler.v2.Scheduler"], watch::channel(true).1);
        let port = Port {
            service: HealthPort(Arc::new(health)),
            api: Scope::Grpc,
            http2: true,
            tls: None,
            faults: Arc::new(Faults::default()),
        };
        let mut server = JoinSet::new();
        server.spawn(port.run(listener, serving, closed));
        let (order, orders) = watch::channel(Order::Run);
        let mut keep_alive = JoinSet::new();
        keep_alive.spawn(keep_alive_loop(self.config.clone(), orders));
        self.life = Some(Life { phase, order, server, keep_alive, listening });
        Ok(())
    }

    async fn register(&self) -> Result<(), SchedulerError> {
        let SchedulerConfig { key, manager, register_port, keep_alive_interval, .. } = &self.config;
        let config =
            serde_json::json!({ "manager_keep_alive_interval": keep_alive_interval.as_nanos() as u64 });
        let request = UpdateSchedulerRequest {
            source_type: 0,
            hostname: key.hostname.to_string(),
            scheduler_cluster_id: key.cluster_id.get(),
            ip: key.ip.to_string(),
            port: register_port.unwrap_or(self.held.addr.port()).into(),
            config: config.to_string().into_bytes(),
            ..UpdateSchedulerRequest::default()
        };
        let mut client = connect(manager)
            .await
            .map_err(|source| SchedulerError::Manager { manager: manager.clone(), source })?;
        client.update_scheduler(request).await.map_err(|status| SchedulerError::Refused {
            manager: manager.clone(),
            code: status.code(),
            message: status.message().to_owned(),
        })?;
        Ok(())
    }

    /// Where it serves; kept over a restart.
    pub fn addr(&self) -> SocketAddr {
        self.held.addr
    }

    /// Its row's identity.
    pub fn key(&self) -> &SchedulerKey {
        &self.config.key
    }

    /// SIGTERM: the listener and the KeepAlive stream are closed when this returns, open calls live on.
    pub async fn begin_stop(&mut self) {
        if let Some(life) = &mut self.life
            && *life.phase.borrow() == Phase::Serving
        {
            life.order.send_replace(Order::Close);
            life.phase.send_replace(Phase::Stopping);
            let _ = (&mut life.listening).await;
        }
    }

    /// Resolves when the last open call has ended and the process would be gone, at the latest after 10 min.
    pub async fn stopped(&mut self) {
        if let Some(life) = &mut self.life {
            let all = async {
                while life.server.join_next().await.is_some() {}
                while life.keep_alive.join_next().await.is_some() {}
            };
            let _ = timeout(GRACEFUL_STOP, all).await;
        }
        self.kill().await;
    }

    /// SIGTERM, and waits for the process to be gone.
    pub async fn stop(&mut self) {
        self.begin_stop().await;
        self.stopped().await;
    }

    /// SIGKILL: the kernel closes all its sockets.
    pub async fn kill(&mut self) {
        if let Some(mut life) = self.life.take() {
            life.phase.send_replace(Phase::Dead);
            life.keep_alive.shutdown().await;
            while life.server.join_next().await.is_some() {}
        }
    }

    /// Its node is lost: nothing answers at its address any more, and the manager is never told (its stream stays open, in
    /// silence, until this value is dropped).
    pub async fn vanish(&mut self) {
        if let Some(mut life) = self.life.take() {
            life.order.send_replace(Order::Vanish);
            life.phase.send_replace(Phase::Dead);
            while life.server.join_next().await.is_some() {}
            self.vanished.push(life.keep_alive);
        }
    }

    /// Runs until `shutdown`, then stops gracefully.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        self.stop().await;
    }
}

impl Drop for MockScheduler {
    fn drop(&mut self) {
        if let Some(life) = &self.life {
            life.phase.send_replace(Phase::Dead);
        }
    }
}

async fn ordered(orders: &mut watch::Receiver<Order>) -> Order {
    // Without anyone left to order, it is killed.
    orders.wait_for(|o| *o != Order::Run).await.map_or(Order::Close, |o| *o)
}

async fn keep_alive_loop(config: SchedulerConfig, mut orders: watch::Receiver<Order>) {
    let every = config.keep_alive_interval;
    loop {
        let connected = tokio::select! {
            _ = ordered(&mut orders) => return,
            connected = connect(&config.manager) => connected,
        };
        let mut client = match connected {
            Ok(client) => client,
            Err(e) => {
                tracing::warn!(manager = %config.manager, error = %e, "The manager can't be reached.");
                tokio::select! {
                    _ = ordered(&mut orders) => return,
                    () = sleep(every) => continue,
                }
            }
        };
        let (send, messages) = mpsc::channel::<KeepAliveRequest>(1);
        let messages = futures_util::stream::unfold(messages, |mut messages| async move {
            messages.recv().await.map(|m| (m, messages))
        });
        // Resolves at the stream's end only: the manager answers nothing before.
        let mut call = std::pin::pin!(client.keep_alive(messages));
        let mut broken = false;
        let mut ticks = interval_at(Instant::now() + every, every);
        loop {
            let order = tokio::select! {
                order = ordered(&mut orders) => order,
                ended = call.as_mut(), if !broken => {
                    if let Err(status) = ended {
                        tracing::warn!(error = %status.message(), "The KeepAlive stream broke.");
                    }
                    broken = true;
                    continue;
                }
                _ = ticks.tick() => {
                    let message = KeepAliveRequest {
                        source_type: 0,
                        hostname: config.key.hostname.to_string(),
                        cluster_id: config.key.cluster_id.get(),
                        ip: config.key.ip.to_string(),
                    };
                    if broken || send.try_send(message).is_err() {
                        break;
                    }
                    continue;
                }
            };
            if order == Order::Vanish {
                // The stream and its connection stay as they are, never polled to an end.
                std::future::pending::<()>().await;
            }
            drop(send);
            if !broken {
                // Whether the manager has taken it or not, the process leaves.
                let _ = timeout(Duration::from_secs(1), call).await;
            }
            return;
        }
    }
}

/// The scheduler's gRPC server: its health service is all an agent needs.
#[derive(Debug, Clone)]
struct HealthPort(Arc<HealthService>);

impl Service<Request<Incoming>> for HealthPort {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let mut health = HealthServer::from_arc(self.0.clone());
        Box::pin(async move {
            if !request.uri().path().starts_with("/grpc.health.v1.Health/") {
                let status = tonic::Status::unimplemented("a mock scheduler serves its health only");
                return Ok(boxed(status.into_http::<tonic::body::Body>()));
            }
            Ok(boxed(health.call(request).await?))
        })
    }
}
