//! [`MockManager`]: a manager that is started, stopped, killed and started again, with its table and its faults at hand.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    admin::AdminPort,
    fault::{Fault, FaultError, Faults, Scope},
    grpc::GrpcPort,
    limit::{Call, Limit},
    listener::{Held, Phase, Port, bind, reached},
    node::Node,
    rest::RestPort,
    table::{Collation, Database, TableError},
    tls::{TlsError, TlsFiles},
};

/// What a REST user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Root,
    /// Read.
    Guest,
}

impl Role {
    /// The role's name in the manager.
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Root => "root",
            Role::Guest => "guest",
        }
    }
}

/// A REST user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// 3 to 10 characters.
    pub name: String,
    /// 8 to 20 characters.
    pub password: String,
    /// What they may do.
    pub role: Role,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

impl User {
    /// The manager's first user.
    pub fn root() -> Self {
        Self { name: "root".into(), password: "dragonfly".into(), role: Role::Root }
    }

    /// A user who may only read.
    pub fn guest(name: &str, password: &str) -> Self {
        Self { name: name.into(), password: password.into(), role: Role::Guest }
    }
}

/// A `--user` that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a user is NAME:PASSWORD:ROLE, with a name of 3 to 10 characters, a password of 8 to 20, and the role root or guest: {0}"
)]
pub struct UserError(&'static str);

impl FromStr for User {
    type Err = UserError;
    /// `NAME:PASSWORD:ROLE`; the password may hold colons.
    fn from_str(text: &str) -> Result<Self, UserError> {
        let (name, rest) = text.split_once(':').ok_or(UserError("there is no colon"))?;
        let (password, role) = rest.rsplit_once(':').ok_or(UserError("there is no role"))?;
        let role = match role {
            "root" => Role::Root,
            "guest" => Role::Guest,
            _ => return Err(UserError("the role is neither")),
        };
        if !(3..=10).contains(&name.chars().count()) {
            return Err(UserError("the name is too short or too long"));
        }
        if !(8..=20).contains(&password.chars().count()) {
            return Err(UserError("the password is too short or too long"));
        }
        Ok(Self { name: name.into(), password: password.into(), role })
    }
}

/// Which manager it is like, where releases differ in what they show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Release {
    /// v2.2: no `last_keep_alive_at` and no `config`, times in whole seconds, ListSchedulers knows no cluster id, and silent
    /// rows are never collected; a rule of a role that another manager wrote can't be written again.
    V2_2,
    /// v2.5.
    #[default]
    V2_5,
}

/// A `--release` that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no release {0:?} here; use 2.2 or 2.5")]
pub struct ReleaseError(String);

impl FromStr for Release {
    type Err = ReleaseError;
    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        match text.trim_start_matches('v') {
            "2.2" => Ok(Self::V2_2),
            "2.5" => Ok(Self::V2_5),
            _ => Err(ReleaseError(text.to_owned())),
        }
    }
}

/// How a mock manager is set up. The default: in memory, ephemeral loopback ports, no latency, `root` alone.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where gRPC listens.
    pub grpc: SocketAddr,
    /// Where REST listens.
    pub rest: SocketAddr,
    /// Where the admin page and its API listen; none if it isn't wanted.
    pub admin: Option<SocketAddr>,
    /// The table, where several managers of one process share one.
    pub database: Option<Arc<Database>>,
    /// The table's file, where several processes share one.
    pub state: Option<PathBuf>,
    /// How a table of its own compares hostnames.
    pub collation: Collation,
    /// What a call takes when all is well (2 to 3 ms on the real one).
    pub latency: Duration,
    /// Which manager it is like.
    pub release: Release,
    /// The zone of the process, in hours east of UTC: REST shows times with that offset. At most 25 either way; beyond, UTC.
    pub zone_hours: i8,
    /// The REST users it is set up with; others sign up.
    pub users: Vec<User>,
    /// How long a token lives.
    pub token_life: Duration,
    /// How often it collects silent rows (hourly on the real one, not at start); none for never.
    pub collect_every: Option<Duration>,
    /// TLS for gRPC and REST; a client's certificate is asked for at gRPC only.
    pub tls: Option<TlsFiles>,
    /// How many gRPC requests it takes in a second (4,000 on the real one); none for any number. With one, each call is
    /// kept: [`MockManager::calls`].
    pub limit: Option<u32>,
    /// What is wrong from the start.
    pub faults: Vec<Fault>,
}

impl Default for Config {
    fn default() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            grpc: any,
            rest: any,
            admin: Some(any),
            database: None,
            state: None,
            collation: Collation::default(),
            latency: Duration::ZERO,
            release: Release::default(),
            zone_hours: 0,
            users: vec![User::root()],
            token_life: Duration::from_secs(14 * 24 * 3600),
            collect_every: None,
            tls: None,
            limit: None,
            faults: Vec::new(),
        }
    }
}

/// Why a mock server doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum MockError {
    /// A port can't be had.
    #[error("{what} can't listen on {addr}: {source}")]
    Bind {
        /// Which listener.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The table can't be had.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A TLS file can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A fault can't be had.
    #[error(transparent)]
    Fault(#[from] FaultError),
}

async fn listen(what: &'static str, addr: SocketAddr) -> Result<TcpListener, MockError> {
    bind(addr).await.map_err(|source| MockError::Bind { what, addr, source })
}

async fn hold(what: &'static str, addr: SocketAddr) -> Result<Held, MockError> {
    Held::new(addr).await.map_err(|source| MockError::Bind { what, addr, source })
}

/// One life of the process: its servers, until they have ended.
#[derive(Debug)]
struct Life {
    phase: watch::Sender<Phase>,
    servers: JoinSet<()>,
    listeners: [oneshot::Receiver<()>; 2],
}

/// A mock manager. Dropped, it dies like a killed process.
#[derive(Debug)]
pub struct MockManager {
    config: Config,
    database: Arc<Database>,
    faults: Arc<Faults>,
    limit: Option<Arc<Limit>>,
    grpc: Held,
    rest: Held,
    admin: Option<SocketAddr>,
    life: Option<Life>,
    /// Lives that stop gracefully while the next one serves.
    stopping: Vec<Life>,
    page: JoinSet<()>,
}

impl MockManager {
    /// Starts one. Its ports are open when this returns. Fails where a port, the table, a TLS file or a fault can't be had.
    pub async fn start(config: Config) -> Result<Self, MockError> {
        let database = match (&config.database, &config.state) {
            (Some(database), _) => database.clone(),
            (None, Some(path)) => Database::open(path, config.collation)?,
            (None, None) => Database::in_memory(config.collation),
        };
        let faults = Arc::new(Faults::default());
        for fault in &config.faults {
            faults.add(fault.clone())?;
        }
        let mut manager = Self {
            grpc: hold("gRPC", config.grpc).await?,
            rest: hold("REST", config.rest).await?,
            admin: None,
            limit: config.limit.map(|per_second| Arc::new(Limit::new(per_second))),
            config,
            database,
            faults,
            life: None,
            stopping: Vec::new(),
            page: JoinSet::new(),
        };
        manager.restart().await?;
        if let Some(addr) = manager.config.admin {
            let listener = listen("the admin page", addr).await?;
            manager.admin = listener.local_addr().ok();
            let page = AdminPort::new(manager.database.clone(), manager.faults.clone());
            manager.page.spawn(page.run(listener));
        }
        Ok(manager)
    }

    /// Starts the process again, at the same ports: with the table and Redis as they are, and none of its own memory. Does
    /// nothing while it runs.
    pub async fn restart(&mut self) -> Result<(), MockError> {
        if self.life.is_some() {
            return Ok(());
        }
        let acceptor = |files: Option<TlsFiles>, alpn: &[u8]| -> Result<Option<TlsAcceptor>, MockError> {
            Ok(files.map(|files| files.load(alpn)).transpose()?.map(TlsAcceptor::from))
        };
        let tls = self.config.tls.clone();
        let grpc_tls = acceptor(tls.clone(), b"h2")?;
        // REST asks nobody for a certificate.
        let rest_tls = acceptor(tls.map(|files| TlsFiles { client_ca: None, ..files }), b"http/1.1")?;
        let grpc = listen("gRPC", self.grpc.addr).await?;
        let rest = listen("REST", self.rest.addr).await?;
        let node = Arc::new(Node::new(self.database.clone(), self.faults.clone(), &self.config)?);
        let (phase, serving) = watch::channel(Phase::Serving);
        let mut servers = JoinSet::new();
        let (grpc_closed, grpc_listens) = oneshot::channel();
        let (rest_closed, rest_listens) = oneshot::channel();
        let port = Port {
            service: GrpcPort::new(node.clone(), serving.clone(), self.limit.clone()),
            api: Scope::Grpc,
            http2: true,
            tls: grpc_tls,
            faults: self.faults.clone(),
        };
        servers.spawn(port.run(grpc, serving.clone(), grpc_closed));
        let port = Port {
            service: RestPort::new(node),
            api: Scope::Rest,
            http2: false,
            tls: rest_tls,
            faults: self.faults.clone(),
        };
        servers.spawn(port.run(rest, serving.clone(), rest_closed));
        if let Some(every) = self.config.collect_every.filter(|_| self.config.release != Release::V2_2) {
            servers.spawn(collect(self.database.clone(), every, serving));
        }
        self.life = Some(Life { phase, servers, listeners: [grpc_listens, rest_listens] });
        Ok(())
    }

    /// Where gRPC listens; kept over a restart.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.addr
    }

    /// Where REST listens; kept over a restart.
    pub fn rest_addr(&self) -> SocketAddr {
        self.rest.addr
    }

    /// Where the admin page listens; it outlives the process it shows.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The database.
    pub fn table(&self) -> &Arc<Database> {
        &self.database
    }

    /// The fault switches.
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// The gRPC calls that came, health checks included, in order; none are kept without a [`Config::limit`].
    pub fn calls(&self) -> Vec<Call> {
        self.limit.as_ref().map_or_else(Vec::new, |limit| limit.calls())
    }

    /// Whether a process serves.
    pub fn is_running(&self) -> bool {
        self.life.is_some()
    }

    /// Kills the process: sockets are closed, streams end *without* the write of `inactive`. Its ports are free when this
    /// returns.
    pub async fn stop(&mut self) {
        for mut life in self.life.take().into_iter().chain(self.stopping.drain(..)) {
            life.phase.send_replace(Phase::Dead);
            while life.servers.join_next().await.is_some() {}
        }
    }

    /// SIGTERM: the listeners are closed, clients are told to go, open calls live on, until [`MockManager::stop`] or their
    /// end. The ports are free when this returns.
    pub async fn stop_gracefully(&mut self) {
        let Some(mut life) = self.life.take() else { return };
        life.phase.send_replace(Phase::Stopping);
        for closed in &mut life.listeners {
            let _ = closed.await;
        }
        self.stopping.push(life);
    }

    /// Resolves when all that was stopped gracefully has ended. Cancel safe.
    pub async fn stopped(&mut self) {
        for life in &mut self.stopping {
            while life.servers.join_next().await.is_some() {}
        }
        self.stopping.clear();
    }

    /// Runs until `shutdown`, then stops gracefully, open calls kept for at most 10 min.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        self.stop_gracefully().await;
        let _ = tokio::time::timeout(Duration::from_secs(600), self.stopped()).await;
        self.stop().await;
    }
}

impl Drop for MockManager {
    fn drop(&mut self) {
        for life in self.life.iter().chain(&self.stopping) {
            life.phase.send_replace(Phase::Dead);
        }
    }
}

async fn collect(database: Arc<Database>, every: Duration, mut phase: watch::Receiver<Phase>) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    loop {
        tokio::select! {
            () = reached(&mut phase, Phase::Stopping) => return,
            _ = ticks.tick() => {}
        }
        if let Err(e) = database.collect() {
            tracing::warn!(error = %e, "The table can't be collected; the next turn tries again.");
        }
    }
}
