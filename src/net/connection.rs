//! A connection that has been made: calls on it, and its end.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};

use http_body_util::{BodyExt, combinators::MapErr};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{oneshot, watch},
};
use tonic::{Code, body::Body};

/// The body of a response, its errors told as [`CallError`]s.
pub type ResponseBody = MapErr<Incoming, fn(hyper::Error) -> CallError>;

/// Bytes that a peer may send ahead of what was read: bounds the memory that one answer can take.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Why a call on a connection has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection had ended before the request was written: nobody saw it.
    #[error("the connection had ended before the request was sent")]
    NotSent,
    /// The peer said that it did not process the request (`REFUSED_STREAM`, or a GOAWAY that leaves it out).
    #[error("the peer refused the request unprocessed: {0}")]
    Refused(String),
    /// The connection or the stream broke after the request was, or may have been, sent.
    #[error("the call was cut: {0}")]
    Cut(String),
}

impl CallError {
    /// Whether nothing of the request can be applied by the peer, now or later.
    pub fn surely_not_seen(&self) -> bool {
        !matches!(self, CallError::Cut(_))
    }

    fn of(error: hyper::Error) -> Self {
        let text = super::chain(&error);
        let h2 = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<h2::Error>());
        match h2 {
            Some(e) if e.is_remote() && e.reason() == Some(h2::Reason::REFUSED_STREAM) => {
                CallError::Refused(text)
            }
            // h2 gives a remote GOAWAY as the error of just those streams that the peer left out.
            Some(e) if e.is_remote() && e.is_go_away() => CallError::Refused(text),
            _ => CallError::Cut(text),
        }
    }
}

/// Why a connection that was made is no HTTP/2 connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoHttp2 {
    /// A TLS alert came, where no TLS was asked for: what a TLS server may say to plain text.
    #[error("what answers there speaks TLS, not plain text")]
    SpeaksTls,
    /// An HTTP/1 answer came: a REST port, for one.
    #[error("what answers there speaks HTTP/1, not HTTP/2")]
    SpeaksHttp1,
    /// It ended before the peer said a word; why. What Go's TLS servers do to plain text, and a balancer with nobody behind it.
    #[error("ended before the peer said a word: {0}")]
    Ended(String),
}

/// One HTTP/2 connection. A clone is another handle of the same connection, which closes when the last one is dropped
/// and no call is open. A tower `Service` for tonic's clients: `ManagerClient::with_origin(conn.clone(), conn.origin())`.
#[derive(Clone)]
pub struct Connection {
    id: u64,
    send: SendRequest<Body>,
    ended: watch::Receiver<Option<String>>,
    peer: SocketAddr,
    origin: http::Uri,
    tls: Option<String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id).field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection {
    /// Speaks HTTP/2 over `io`, and waits for the peer's first word: a server's preface comes at once, so a peer without
    /// one is a frozen process, or a balancer with nobody behind it, and must not be sent a request (gRPC's own clients
    /// wait likewise). `Err` says why there was none; a silent peer is for the caller to give up on.
    pub(crate) async fn over<I>(
        io: I,
        peer: SocketAddr,
        origin: http::Uri,
        tls: Option<String>,
    ) -> Result<Self, NoHttp2>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let (spoke, spoken) = oneshot::channel();
        let io = FirstWord { io, spoke: Some(spoke), heard: Vec::new() };
        let (send, driver) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake::<_, Body>(TokioIo::new(io))
            .await
            .map_err(|e| NoHttp2::Ended(super::chain(&e)))?;
        let (tell, ended) = watch::channel(None);
        tokio::spawn(async move {
            let why = match driver.await {
                Ok(()) => "the peer closed it".to_owned(),
                Err(e) => super::chain(&e),
            };
            let _ = tell.send(Some(why));
        });
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let connection = Self { id, send, ended, peer, origin, tls };
        tokio::select! {
            biased;
            Ok(word) = spoken => word.map(|()| connection),
            why = connection.ended() => Err(NoHttp2::Ended(why)),
        }
    }

    /// Tells one connection from another, within this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The address at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Scheme and authority of requests, for the generated clients' `with_origin`.
    pub fn origin(&self) -> http::Uri {
        self.origin.clone()
    }

    /// What was agreed on in TLS (`TLSv1_3`), or `None` without TLS.
    pub fn tls(&self) -> Option<&str> {
        self.tls.as_deref()
    }

    /// Whether no new call can be made: the peer closed it, or said that it will (GOAWAY).
    pub fn is_ended(&self) -> bool {
        self.send.is_closed() || self.ended.borrow().is_some()
    }

    /// Resolves when the connection has ended, with the reason. An idle one ends with the peer's GOAWAY. Cancel safe.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        let why = match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone(),
            Err(_) => None,
        };
        why.unwrap_or_else(|| "its task has ended".to_owned())
    }
}

impl tower_service::Service<http::Request<Body>> for Connection {
    type Response = http::Response<ResponseBody>;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, CallError>> + Send>>;

    /// Always ready: a connection that has ended is told by the call itself, as [`CallError::NotSent`].
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.send.try_send_request(request);
        Box::pin(async move {
            match answer.await {
                Ok(mut response) => {
                    tell_http_status(&mut response);
                    // A status in the head is the end only where the head is (gRPC's `Trailers-Only`). tonic takes an OK there
                    // for the end whatever follows, a reset included; without it, it looks for the one at the end.
                    let ok = response.headers().get("grpc-status").is_some_and(|status| status == "0");
                    if ok && !response.body().is_end_stream() {
                        response.headers_mut().remove("grpc-status");
                    }
                    Ok(response.map(|b| b.map_err(CallError::of as fn(hyper::Error) -> CallError)))
                }
                // The request came back whole: it never left the queue.
                Err(e) if e.message().is_some() => Err(CallError::NotSent),
                Err(e) => Err(CallError::of(e.into_error())),
            }
        })
    }
}

/// Where an answer's HTTP status is found that was no 200, in a gRPC status' metadata.
pub const HTTP_STATUS: &str = "signoff-http-status";

/// An HTTP status other than 200 is not a gRPC server's: something before the server answered (a mesh's proxy, an ingress). It is
/// told as the gRPC status that it stands for (gRPC's `http-grpc-status-mapping.md`), with its own headers kept: tonic makes up
/// such a status too, but drops the headers, `Retry-After` among them.
fn tell_http_status<B>(response: &mut http::Response<B>) {
    let status = response.status();
    if status == http::StatusCode::OK || response.headers().contains_key("grpc-status") {
        return;
    }
    let code = match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    let message = format!("HTTP status {}, without a gRPC status", status.as_u16());
    let headers = response.headers_mut();
    headers.insert("grpc-status", http::HeaderValue::from(code as i32));
    // A digit and letters are a valid header value.
    if let Ok(message) = message.parse() {
        headers.insert("grpc-message", message);
    }
    headers.insert(HTTP_STATUS, http::HeaderValue::from(status.as_u16()));
}

/// Tells when the peer's first bytes have come, and whether they are plainly another protocol's.
struct FirstWord<I> {
    io: I,
    spoke: Option<oneshot::Sender<Result<(), NoHttp2>>>,
    heard: Vec<u8>,
}

/// What the peer's first bytes say; `None` where more are needed. A frame's header has nine.
fn first_word(heard: &[u8]) -> Option<Result<(), NoHttp2>> {
    Some(match heard.get(..4)? {
        // A record of TLS: an alert, or a handshake. As a frame's length it would be more than anybody may send yet.
        [0x15 | 0x16, 3, ..] => Err(NoHttp2::SpeaksTls),
        b"HTTP" => Err(NoHttp2::SpeaksHttp1),
        _ => Ok(()),
    })
}

impl<I: AsyncRead + Unpin> AsyncRead for FirstWord<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if self.spoke.is_some() {
            self.heard.extend(buf.filled()[before..].iter().take(4));
            if let Some(word) = first_word(&self.heard)
                && let Some(spoke) = self.spoke.take()
            {
                // Whoever waited for it may have given up.
                let _ = spoke.send(word);
            }
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for FirstWord<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
