//! HTTP/1.1 on one accepted connection: hyper with its time-outs armed, small requests only, plain answers.
//!
//! hyper's header time-out needs a timer to exist at all, and here it also bounds the wait for the next request. Bodies
//! are never read: no request served here has one that matters. One over [`MAX_BODY`] is refused, any other ends the
//! connection with its answer.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::connections::Handle;

/// The largest body a request may announce, in bytes.
pub const MAX_BODY: u64 = 1 << 10;

/// The largest head of a request, in bytes (also hyper's read buffer).
const MAX_HEAD: usize = 16 << 10;

/// How much of a refused body is read and thrown away at most, in bytes, and for how long.
const DISCARDED: usize = 256 << 10;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Header fields in a request at most.
const MAX_HEADERS: usize = 64;

/// What a client may take of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// How long a request's head may take to arrive, from the connection's start or the previous answer.
    pub head: Duration,
    /// Requests on one connection; the last one's answer closes it. With a head's size this bounds its bytes too.
    pub requests: u32,
}

impl Default for HttpLimits {
    /// 5 s, 100 requests.
    fn default() -> Self {
        Self { head: Duration::from_secs(5), requests: 100 }
    }
}

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// One line of text. The newline is added here.
pub fn text(status: StatusCode, line: &str) -> Answer {
    body(status, HeaderValue::from_static("text/plain; charset=utf-8"), Bytes::from(format!("{line}\n")))
}

/// An answer of the given content type.
pub fn body(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Refuses a request with a body that is too large, or with a method that isn't among `allowed` (as in `Allow`).
pub fn refuse<B: Body>(request: &Request<B>, methods: &[Method], allowed: &'static str) -> Option<Answer> {
    if request.body().size_hint().upper().is_none_or(|size| size > MAX_BODY) {
        return Some(text(StatusCode::PAYLOAD_TOO_LARGE, "no body of over 1024 bytes is accepted here"));
    }
    if !methods.contains(request.method()) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, &format!("use {allowed}"));
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        return Some(answer);
    }
    None
}

/// Serves one connection to its end. `respond` gets each request; the connection is busy until it has answered.
pub async fn connection<Io, S, F>(io: Io, handle: Handle, limits: HttpLimits, respond: S)
where
    Io: AsyncRead + AsyncWrite + Unpin,
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Answer>,
{
    let requests = AtomicU32::new(0);
    let unread = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        let busy = handle.busy();
        let number = requests.fetch_add(1, Ordering::Relaxed) + 1;
        let has_body = !request.body().is_end_stream();
        let answer = respond(request);
        let (handle, unread) = (&handle, &unread);
        Box::pin(async move {
            let mut answer = answer.await;
            if has_body {
                unread.store(true, Ordering::Relaxed);
            }
            if number >= limits.requests || has_body || handle.is_closing() {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            drop(busy);
            Ok::<_, Infallible>(answer)
        })
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        // A client that has sent its request and closed its side is still owed the answer.
        .half_close(true);
    let mut connection = builder.serve_connection(TokioIo::new(io), service);
    let mut closing = pin!(handle.closing());
    let mut told = false;
    let ended = poll_fn(|cx| {
        if !told && closing.as_mut().poll(cx).is_ready() {
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx)
    })
    .await;
    if let Err(error) = ended {
        // What a client does wrong on its own connection is nobody's trouble.
        tracing::debug!(error = %error, "A connection ended early.");
        return;
    }
    let mut io = connection.into_parts().io.into_inner();
    if io.shutdown().await.is_ok() && unread.load(Ordering::Relaxed) {
        discard(&mut io).await;
    }
}

/// Reads on for a moment before the connection is closed: closed with bytes unread, it would be reset, and the client
/// could lose the answer.
async fn discard(io: &mut (impl AsyncRead + Unpin)) {
    let mut bytes = [0u8; 4096];
    let mut left = DISCARDED;
    let read = async {
        while left > 0 {
            match io.read(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(n) => left = left.saturating_sub(n),
            }
        }
    };
    // Too slow is as good as done.
    let _ = timeout(DISCARD_TIME, read).await;
}
