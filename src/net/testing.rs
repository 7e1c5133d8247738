//! Small servers for the tests of the manager's client and the scheduler's watcher: a gRPC one with a scripted answer,
//! and raw sockets.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming, codegen::Service};

use crate::proto::{
    health_v1::{
        HealthCheckRequest, HealthCheckResponse,
        health_server::{Health, HealthServer},
    },
    manager_v2::{
        Empty, KeepAliveRequest, ListSchedulersRequest, ListSchedulersResponse, Scheduler,
        UpdateSchedulerRequest,
        manager_server::{Manager, ManagerServer},
    },
};

/// Polls `condition` until it holds; the bound is only there so that a broken test ends.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}

/// How the KeepAlive call is answered once the client has half-closed.
#[derive(Clone)]
pub(crate) enum Answer {
    /// OK without a message, after the headers.
    Ok,
    /// OK in the headers themselves (trailers only).
    OkAtOnce,
    /// One message, then OK.
    OkWithMessage,
    /// This status, after the half-close and the headers: at the end of the answer.
    StatusAtTheEnd(Code, &'static str),
    /// This status, without waiting for the half-close.
    Status(Code, &'static str),
    /// Nothing, ever.
    Silence,
    /// The connection is closed.
    Cut,
    /// OK in the middle of the client's stream.
    OkUnasked,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    GoingAway,
    Killed,
}

/// What a server does and saw.
pub(crate) struct Script {
    pub(crate) answer: Mutex<Answer>,
    pub(crate) rows: Mutex<Vec<Scheduler>>,
    pub(crate) health: Mutex<Result<i32, Status>>,
    pub(crate) health_silent: Mutex<bool>,
    pub(crate) list_silent: Mutex<bool>,
    pub(crate) seen: Mutex<Vec<String>>,
    pub(crate) callers: Mutex<Vec<ListSchedulersRequest>>,
    /// Something stands in the server's place: every request, health checks too, gets this HTTP status and no gRPC status.
    pub(crate) in_its_place: Mutex<Option<(u16, Option<&'static str>)>>,
    phase: watch::Sender<Phase>,
}

impl Script {
    pub(crate) fn new(answer: Answer) -> Arc<Self> {
        Arc::new(Self {
            answer: Mutex::new(answer),
            rows: Mutex::default(),
            health: Mutex::new(Ok(1)),
            health_silent: Mutex::new(false),
            list_silent: Mutex::new(false),
            seen: Mutex::default(),
            callers: Mutex::default(),
            in_its_place: Mutex::default(),
            phase: watch::Sender::new(Phase::Serving),
        })
    }

    fn saw(&self, what: impl Into<String>) {
        self.seen.lock().unwrap().push(what.into());
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|s| *s == what).count()
    }
}

type Replies<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Scripted(Arc<Script>);

#[tonic::async_trait]
impl Manager for Scripted {
    type KeepAliveStream = Replies<Empty>;

    async fn update_scheduler(
        &self,
        _: Request<UpdateSchedulerRequest>,
    ) -> Result<Response<Scheduler>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn list_schedulers(
        &self,
        request: Request<ListSchedulersRequest>,
    ) -> Result<Response<ListSchedulersResponse>, Status> {
        self.0.callers.lock().unwrap().push(request.into_inner());
        let silent = *self.0.list_silent.lock().unwrap();
        if silent {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(ListSchedulersResponse { schedulers: self.0.rows.lock().unwrap().clone() }))
    }

    async fn keep_alive(
        &self,
        request: Request<Streaming<KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let mut requests = request.into_inner();
        let answer = self.0.answer.lock().unwrap().clone();
        while let Some(request) = requests.message().await? {
            self.0.saw(format!("{}/{}/{}", request.hostname, request.ip, request.cluster_id));
            match answer {
                Answer::Status(code, message) => return Err(Status::new(code, message)),
                Answer::OkUnasked => return Ok(Response::new(Box::pin(tokio_stream::empty()))),
                _ => {}
            }
        }
        self.0.saw("half-close");
        match answer {
            Answer::OkAtOnce => Err(Status::new(Code::Ok, "")),
            Answer::OkWithMessage => Ok(Response::new(Box::pin(tokio_stream::once(Ok(Empty {}))))),
            Answer::StatusAtTheEnd(code, message) => {
                let end = tokio_stream::once(Err(Status::new(code, message)));
                Ok(Response::new(Box::pin(end)))
            }
            Answer::Silence => std::future::pending().await,
            Answer::Cut => {
                self.0.phase.send_replace(Phase::Killed);
                std::future::pending().await
            }
            _ => Ok(Response::new(Box::pin(tokio_stream::empty()))),
        }
    }
}

#[tonic::async_trait]
impl Health for Scripted {
    type WatchStream = Replies<HealthCheckResponse>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.saw("check");
        let silent = *self.0.health_silent.lock().unwrap();
        if silent {
            std::future::pending::<()>().await;
        }
        let status = self.0.health.lock().unwrap().clone()?;
        Ok(Response::new(HealthCheckResponse { status }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.0.saw("watch");
        Err(Status::unimplemented("a Watch keeps a scheduler from stopping"))
    }
}

/// A server on an ephemeral loopback port. Gone, with its connections, when dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) script: Arc<Script>,
    accepting: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.script.phase.send_replace(Phase::Killed);
        if let Some(task) = self.accepting.take() {
            task.abort();
        }
    }
}

impl Server {
    pub(crate) async fn start(answer: Answer) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), Script::new(answer), None).await
    }

    pub(crate) async fn tls(answer: Answer, config: rustls::ServerConfig) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), Script::new(answer), Some(config)).await
    }

    pub(crate) async fn on(addr: SocketAddr, script: Arc<Script>, tls: Option<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let tls = tls.map(|c| tokio_rustls::TlsAcceptor::from(Arc::new(c)));
        script.phase.send_replace(Phase::Serving);
        let shared = script.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                shared.saw("connection");
                let (script, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(tcp, script).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                serve(stream, script).await;
                            }
                        }
                    }
                });
            }
        });
        Self { addr, script, accepting: Some(accepting) }
    }

    /// As a stopping server does: the listener is closed first, then clients are told to go away.
    pub(crate) async fn stop(&mut self) {
        self.close_listener().await;
        self.script.phase.send_replace(Phase::GoingAway);
    }

    /// Tells clients to go away, and goes on listening (a proxy's connection that is too old).
    pub(crate) fn go_away(&self) {
        self.script.phase.send_replace(Phase::GoingAway);
    }

    /// As a killed process: everything is closed.
    pub(crate) async fn kill(&mut self) {
        self.close_listener().await;
        self.script.phase.send_replace(Phase::Killed);
    }

    async fn close_listener(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

async fn serve<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: I, script: Arc<Script>) {
    let mut phase = script.phase.subscribe();
    let (manager, health) =
        (ManagerServer::new(Scripted(script.clone())), HealthServer::new(Scripted(script.clone())));
    let proxied = script.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (mut manager, mut health) = (manager.clone(), health.clone());
        let in_its_place = *proxied.in_its_place.lock().unwrap();
        if in_its_place.is_some() {
            proxied.saw("proxied");
        }
        async move {
            if let Some((status, retry_after)) = in_its_place {
                let mut answer = hyper::Response::builder().status(status);
                if let Some(wish) = retry_after {
                    answer = answer.header("retry-after", wish);
                }
                return Ok(answer.body(tonic::body::Body::empty()).unwrap());
            }
            if request.uri().path().starts_with("/grpc.health") {
                health.call(request).await
            } else {
                manager.call(request).await
            }
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            _ = connection.as_mut() => return script.saw("end"),
            Ok(()) = phase.changed() => {
                let now = *phase.borrow_and_update();
                match now {
                    Phase::Serving => {}
                    Phase::GoingAway => connection.as_mut().graceful_shutdown(),
                    Phase::Killed => return,
                }
            }
        }
    }
}

/// A way to a server that is far: whatever goes through it, either way, arrives so much later.
pub(crate) struct FarAway {
    pub(crate) addr: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl FarAway {
    /// The way to `server`. A round trip takes twice `one_way`; the kernel's own, of TCP's handshake, nothing.
    pub(crate) async fn from(server: SocketAddr, one_way: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(server).await else { return };
                    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                    tokio::join!(
                        Self::carry(from_near, to_far, one_way),
                        Self::carry(from_far, to_near, one_way)
                    );
                });
            }
        });
        Self { addr, task }
    }

    async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, time: Duration) {
        let (send, mut under_way) = tokio::sync::mpsc::unbounded_channel::<(tokio::time::Instant, Vec<u8>)>();
        let leave = async move {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(n @ 1..) = from.read(&mut bytes).await {
                let _ = send.send((tokio::time::Instant::now() + time, bytes[..n].to_vec()));
            }
        };
        let arrive = async move {
            while let Some((at, bytes)) = under_way.recv().await {
                tokio::time::sleep_until(at).await;
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(leave, arrive);
    }
}

impl Drop for FarAway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A listener that accepts and says nothing, ever; it counts what it accepted.
pub(crate) struct BlackHole {
    pub(crate) addr: SocketAddr,
    pub(crate) accepted: Arc<Mutex<Vec<TcpStream>>>,
    task: tokio::task::JoinHandle<()>,
}

impl BlackHole {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let kept = accepted.clone();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                kept.lock().unwrap().push(tcp);
            }
        });
        Self { addr, accepted, task }
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address at which nobody listens, nor will: it stays bound for as long as the tests run.
pub(crate) async fn refusing() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    std::mem::forget(socket);
    addr
}

/// An address at which nobody listens yet.
pub(crate) async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A certificate authority of the test's own.
pub(crate) struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self { issuer: rcgen::CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Certificate and key in PEM, for loopback.
    pub(crate) fn leaf(&self) -> (String, String) {
        self.leaf_of(rcgen::CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap())
    }

    fn leaf_of(&self, params: rcgen::CertificateParams) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A server's settings; `clients` asks for certificates that it signed.
    pub(crate) fn server(&self, clients: Option<&Authority>) -> rustls::ServerConfig {
        self.server_with(self.leaf(), clients)
    }

    /// One that speaks TLS 1.2 only: its handshake takes two round trips.
    pub(crate) fn server_of_tls_1_2(&self) -> rustls::ServerConfig {
        self.server_of(self.leaf(), None, &[&rustls::version::TLS12])
    }

    /// One with a certificate of this name, which is a URI where it has a scheme.
    pub(crate) fn server_named(
        &self,
        name: &str,
        clients: Option<&Authority>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> rustls::ServerConfig {
        let uri = name.contains("://").then(|| rcgen::SanType::URI(name.try_into().unwrap()));
        let names = if uri.is_some() { Vec::new() } else { vec![name.to_owned()] };
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.subject_alt_names.extend(uri);
        self.server_of(self.leaf_of(params), clients, &[version])
    }

    /// One whose certificate expires then.
    pub(crate) fn server_until(&self, then: std::time::SystemTime) -> rustls::ServerConfig {
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        params.not_after = then.into();
        self.server_with(self.leaf_of(params), None)
    }

    fn server_with(&self, leaf: (String, String), clients: Option<&Authority>) -> rustls::ServerConfig {
        self.server_of(leaf, clients, rustls::DEFAULT_VERSIONS)
    }

    fn server_of(
        &self,
        (cert, key): (String, String),
        clients: Option<&Authority>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ServerConfig {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}
