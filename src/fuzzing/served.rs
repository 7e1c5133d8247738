//! What clients send: to the read-only server, to the hook listener, to the unix socket.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::{Mutex, oneshot},
};

use crate::agent::{
    hook::{
        self, Hook, HookAnswer,
        allow::{AllowList, RouteTables},
    },
    http::{
        Readiness, Served,
        connections::{self, Handle, Limits, Listener},
        http1,
    },
    metrics::Metrics,
    socket::{self, Response, server},
};

/// The largest answer to all that a connection may ask: 100 times the metrics, and then some.
const MOST: usize = 4 << 20;

/// One connection, and no other.
struct One(Mutex<Option<DuplexStream>>);

impl Listener for One {
    type Stream = DuplexStream;
    type Peer = ();
    async fn accept(&self) -> io::Result<(DuplexStream, ())> {
        match self.0.lock().await.take() {
            Some(stream) => Ok((stream, ())),
            None => std::future::pending().await,
        }
    }
}

/// Runs it: in tests on a clock that goes by itself where nothing else can happen.
pub(super) fn on_runtime<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all();
    #[cfg(test)]
    runtime.start_paused(true);
    runtime.build().unwrap().block_on(future)
}

/// Sends all the bytes on one connection, and answers with all that came back.
async fn exchange<S, F>(bytes: &[u8], connection: S) -> Vec<u8>
where
    S: Fn(DuplexStream, (), Handle) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(4096);
    let (stop, stopped) = oneshot::channel::<()>();
    let (mut from, mut to) = tokio::io::split(ours);
    let client = async {
        let send = async {
            // It may have hung up.
            let _ = to.write_all(bytes).await;
            let _ = to.shutdown().await;
        };
        let mut answer = Vec::new();
        let read = async {
            let _ = (&mut from).take(MOST as u64 + 1).read_to_end(&mut answer).await;
        };
        tokio::join!(send, read);
        let _ = stop.send(());
        answer
    };
    let shutdown = async {
        let _ = stopped.await;
    };
    let listener = One(Mutex::new(Some(theirs)));
    let server = connections::serve("fuzzed", listener, Limits::default(), shutdown, connection);
    let (answer, ()) = tokio::join!(client, server);
    assert!(answer.len() <= MOST, "more than is bounded");
    answer
}

/// The statuses of answers one after another, each with the body that its head announces.
fn statuses(mut answer: &[u8], to_head: bool) -> Vec<u16> {
    let mut found = Vec::new();
    while !answer.is_empty() {
        let text = String::from_utf8_lossy(answer).into_owned();
        let end = text.find("\r\n\r\n").unwrap_or_else(|| panic!("no whole head: {text:?}"));
        let head = &text[..end];
        let version = head.get(..9).unwrap_or_default();
        assert!(["HTTP/1.1 ", "HTTP/1.0 "].contains(&version), "{head:?}");
        let status = head[9..12].parse().unwrap();
        found.push(status);
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |text| text.parse().unwrap());
        let rest = &answer[end + 4..];
        // An answer to HEAD announces a body and has none.
        let bodiless = to_head && (rest.is_empty() || rest.starts_with(b"HTTP/1."));
        answer = if bodiless { rest } else { rest.get(length..).expect("a whole body") };
    }
    found
}

/// What any client sends to `/livez`, `/readyz`, `/metrics`: whatever it is, it reads and changes nothing. Bit 0 of the first
/// byte: ready.
pub fn http(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else { return };
    let (metrics, ready) = (Metrics::new(), Readiness::default());
    ready.set(how & 1 == 1);
    let before = metrics.text().unwrap();
    let served = Arc::new(Served::new(metrics.clone(), ready.clone()));
    let answer = on_runtime(exchange(bytes, |stream, (), handle| {
        let served = served.clone();
        async move {
            let limits = served.http;
            http1::connection(stream, handle, limits, |request: http::Request<Incoming>| {
                std::future::ready(served.answer(&request))
            })
            .await;
        }
    }));
    let head = bytes.windows(4).any(|four| four == b"HEAD");
    let statuses = statuses(&answer, head);
    assert!(statuses.len() <= 101, "{statuses:?}");
    for status in statuses {
        assert!([200, 400, 404, 405, 413, 414, 431, 503, 505].contains(&status), "{status}");
        assert!(status != 503 || how & 1 == 0, "not ready, while it is");
    }
    assert_eq!(ready.get(), how & 1 == 1, "its readiness was changed");
    assert_eq!(metrics.text().unwrap(), before, "its metrics were changed");
}

/// What a client sends to the hook listener. Bit 0 of the first byte: from an address that may not call.
pub fn hook(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else { return };
    let stranger = how & 1 == 1;
    let nowhere = RouteTables { ipv4: "/nowhere/route".into(), ipv6: "/nowhere/ipv6_route".into() };
    let allow = AllowList::new([], ["10.0.0.0/8".parse().unwrap()], nowhere);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let pre_stop = move || -> BoxFuture<'static, HookAnswer> {
        counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(HookAnswer("confirmed".into())))
    };
    let peer: SocketAddr = if stranger { "192.0.2.1:1" } else { "10.1.2.3:1" }.parse().unwrap();
    let hook = Hook::new(allow, None);
    let limits = hook.http;
    let shared = Arc::new((hook, pre_stop));
    let answer = on_runtime(exchange(bytes, |stream, (), handle| {
        let shared = shared.clone();
        async move {
            http1::connection(stream, handle, limits, |request| hook::answer(shared.clone(), peer, request))
                .await;
        }
    }));
    let calls = calls.load(Ordering::SeqCst);
    let head = bytes.windows(4).any(|four| four == b"HEAD");
    let statuses = statuses(&answer, head);
    assert!(
        statuses.iter().all(|status| [200, 400, 403, 404, 405, 413, 414, 431, 505].contains(status)),
        "{statuses:?}"
    );
    assert!(calls == 0 || !stranger, "a stranger's call was taken");
    let asked = bytes.windows(9).filter(|nine| *nine == b"/pre-stop").count();
    let gets = bytes.windows(4).filter(|four| *four == b"GET ").count();
    assert!(calls <= asked.min(gets), "{calls} calls for {asked} paths and {gets} GETs");
    assert!(statuses.iter().filter(|status| **status == 200).count() <= calls, "said, and not done");
}

/// A request, whatever else is in it: a number that no type holds is nobody's business in a field that nobody reads.
#[derive(serde::Deserialize)]
struct Asked {
    version: Value,
    request: Value,
}

/// What a client writes to the unix socket: one line of JSON is answered, whatever it wrote.
pub fn socket(data: &[u8]) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    let handler = Arc::new(move |_request| -> BoxFuture<'static, Response> {
        counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Response::Check(Vec::new())))
    });
    let answer =
        on_runtime(exchange(data, |stream, (), handle| server::exchange(stream, handle, handler.clone())));
    let taken = taken.load(Ordering::SeqCst);
    if data.is_empty() {
        assert!(answer.is_empty() && taken == 0);
        return;
    }
    let line = answer.strip_suffix(b"\n").expect("a whole line");
    assert!(!line.contains(&b'\n') && line.len() < socket::MAX_ANSWER);
    let answer: Value = serde_json::from_slice(line).unwrap();
    assert_eq!(answer["version"], 1);
    assert_eq!(taken == 1, answer.get("check").is_some());
    assert_eq!(taken == 0, answer.get("refused").is_some_and(Value::is_string));
    // The same by a reader of its own.
    let asked = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let asked: Option<Asked> = serde_json::from_slice(asked).ok();
    let known = asked.is_some_and(|asked| {
        asked.version == 1 && ["pre-stop", "status", "check"].iter().any(|name| asked.request == *name)
    });
    assert!(taken == 0 || known || data.starts_with(b"["), "taken, and no request");
}
