//! A plain gRPC client's connection: HTTP/2 over one TCP connection that is opened once and never again.
//!
//! Without any of what a production client does: what a test sees through it is what the server did.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, Uri};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tonic::body::Body;
use tower_service::Service;

/// One connection. Closed, open streams included, when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Channel {
    send: http2::SendRequest<Body>,
    origin: Uri,
    /// Drives the connection; ends it when dropped.
    driver: Arc<JoinSet<()>>,
}

impl Channel {
    /// Connects to a gRPC server without TLS. Fails as TCP or the HTTP/2 handshake does.
    pub async fn connect(addr: SocketAddr) -> std::io::Result<Self> {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        let origin = format!("http://{addr}").parse().map_err(std::io::Error::other)?;
        Self::over(tcp, origin).await
    }

    /// Speaks HTTP/2 over a connection that is there already, a TLS one for example. Fails as the HTTP/2 handshake does.
    pub async fn over(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        origin: Uri,
    ) -> std::io::Result<Self> {
        let (send, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.map_err(std::io::Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { send, origin, driver: Arc::new(driver) })
    }

    /// The URI for a generated client's `with_origin`.
    pub fn origin(&self) -> Uri {
        self.origin.clone()
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.send.is_closed() || self.driver.is_empty()
    }

    /// Ends the connection at once, open calls included.
    pub fn abort(self) {
        drop(self);
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.send.send_request(request);
        let driver = self.driver.clone();
        Box::pin(async move {
            let answer = answer.await;
            drop(driver);
            answer
        })
    }
}
