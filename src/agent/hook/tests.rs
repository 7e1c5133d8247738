use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    time::timeout,
};

use super::{allow::RouteTables, *};
use crate::{agent::http::listen, logging::Log};

/// No test waits this long unless it fails.
const BOUND: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(BOUND, future).await.expect("within the bound")
}

struct Server {
    address: SocketAddr,
    /// Hooks begun.
    began: Arc<AtomicUsize>,
    beginning: Arc<Notify>,
    /// Lets one hook be answered.
    gate: Arc<tokio::sync::Semaphore>,
    ended: Arc<AtomicUsize>,
    ending: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

fn allowing(networks: &[&str]) -> AllowList {
    let tables = RouteTables { ipv4: "/nowhere/route".into(), ipv6: "/nowhere/ipv6_route".into() };
    AllowList::new([], networks.iter().map(|network| network.parse().unwrap()), tables)
}

fn serve(hook: Hook) -> Server {
    let listener = listen("--hook-listen", "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (began, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (beginning, ending) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let shared = (began.clone(), beginning.clone(), gate.clone(), ended.clone(), ending.clone());
    let pre_stop = move || -> BoxFuture<'static, HookAnswer> {
        let (began, beginning, gate, ended, ending) = shared.clone();
        Box::pin(async move {
            began.fetch_add(1, Ordering::SeqCst);
            beginning.notify_one();
            gate.acquire().await.unwrap().forget();
            ended.fetch_add(1, Ordering::SeqCst);
            ending.notify_one();
            HookAnswer("confirmed: the manager says inactive".to_owned())
        })
    };
    let task = tokio::spawn(run(listener, hook, pre_stop, std::future::pending()));
    Server { address, began, beginning, gate, ended, ending, task }
}

/// A hook that any test may call, whose answers don't wait.
fn open() -> Server {
    let server = serve(Hook::new(allowing(&["127.0.0.0/8"]), None));
    server.gate.add_permits(100);
    server
}

impl Server {
    async fn exchange(&self, head: &str) -> String {
        let mut stream = within(TcpStream::connect(self.address)).await.unwrap();
        stream.write_all(format!("{head}\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    /// The status of a pre-stop with these headers.
    async fn status(&self, headers: &str) -> String {
        let answer = self.exchange(&format!("GET /pre-stop HTTP/1.1{headers}")).await;
        answer.strip_prefix("HTTP/1.1 ").map_or(answer.clone(), |rest| rest[..3].to_owned())
    }

    async fn until_begun(&self, count: usize) {
        within(async {
            while self.began.load(Ordering::SeqCst) < count {
                self.beginning.notified().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_hook_is_answered_with_one_line_when_the_pre_stop_is_done() {
    let server = open();
    let answer = server.exchange("GET /pre-stop HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nconfirmed: the manager says inactive\n"), "{answer}");
}

#[tokio::test]
async fn a_hook_that_comes_twice_blocks_both_until_done() {
    let server = serve(Hook::new(allowing(&["127.0.0.1"]), None));
    let (first, second) = (server.status(""), server.status(""));
    let released = async {
        server.until_begun(2).await;
        assert_eq!(server.ended.load(Ordering::SeqCst), 0);
        server.gate.add_permits(2);
    };
    let (first, second, ()) = tokio::join!(first, second, released);
    assert_eq!((first.as_str(), second.as_str()), ("200", "200"));
}

#[tokio::test]
async fn a_hook_may_take_longer_than_a_connection_may_be_idle() {
    let mut hook = Hook::new(allowing(&["127.0.0.1"]), None);
    let idle = Duration::from_millis(100);
    hook.limits.idle = idle;
    hook.http.head = idle;
    let server = serve(hook);
    let mut asking = std::pin::pin!(server.status(""));
    assert!(timeout(idle * 3, &mut asking).await.is_err());
    server.gate.add_permits(1);
    assert_eq!(asking.await, "200");
}

#[tokio::test]
async fn a_hook_that_kubelet_gave_up_on_is_carried_through() {
    let server = serve(Hook::new(allowing(&["127.0.0.1"]), None));
    let mut stream = within(TcpStream::connect(server.address)).await.unwrap();
    stream.write_all(b"GET /pre-stop HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    server.until_begun(1).await;
    drop(stream);
    server.task.abort();
    server.gate.add_permits(1);
    within(server.ending.notified()).await;
    assert_eq!(server.ended.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn only_a_get_of_pre_stop_is_a_hook() {
    let server = open();
    for (head, status) in [
        ("GET / HTTP/1.1", "404"),
        ("GET /metrics HTTP/1.1", "404"),
        ("GET /pre-stop/ HTTP/1.1", "404"),
        ("POST / HTTP/1.1", "404"),
        ("POST /pre-stop HTTP/1.1", "405"),
        ("HEAD /pre-stop HTTP/1.1", "405"),
        ("GET /pre-stop HTTP/1.1\r\nContent-Length: 2000", "413"),
    ] {
        let answer = server.exchange(head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
    }
    assert_eq!(server.began.load(Ordering::SeqCst), 0);
    assert_eq!(server.status("").await, "200");
}

#[tokio::test]
async fn an_address_that_is_not_allowed_is_turned_away_from_every_path() {
    let server = serve(Hook::new(allowing(&["127.0.0.2", "10.0.0.0/8", "::1"]), None));
    for head in ["GET /pre-stop HTTP/1.1", "GET / HTTP/1.1", "POST /pre-stop HTTP/1.1"] {
        let answer = server.exchange(head).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{head}: {answer}");
    }
    assert_eq!(server.began.load(Ordering::SeqCst), 0);
}

/// A hook that wants the token in `token` of the directory.
fn with_token(content: Option<&str>) -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    if let Some(content) = content {
        fs::write(&path, content).unwrap();
    }
    let server = serve(Hook::new(allowing(&["127.0.0.1"]), Some(TokenFile::new(path))));
    server.gate.add_permits(100);
    (server, dir)
}

#[tokio::test]
async fn with_a_tokens_file_only_a_request_with_the_token_is_a_hook() {
    let (server, _dir) = with_token(Some("s3cret-Token\n"));
    for headers in [
        "\r\nAuthorization: Bearer s3cret-Token",
        "\r\nauthorization: bearer s3cret-Token",
        "\r\nX-Signoff-Token: s3cret-Token",
        "\r\nX-Signoff-Token: wrong\r\nAuthorization: Bearer s3cret-Token",
    ] {
        assert_eq!(server.status(headers).await, "200", "{headers}");
    }
    assert_eq!(server.began.load(Ordering::SeqCst), 4);
    for headers in [
        "",
        "\r\nAuthorization: Bearer ",
        "\r\nAuthorization: s3cret-Token",
        "\r\nAuthorization: Basic s3cret-Token",
        "\r\nAuthorization: Bearer s3cret-token",
        "\r\nAuthorization: Bearer s3cret-Toke",
        "\r\nAuthorization: Bearer s3cret-Tokenn",
        "\r\nX-Signoff-Token: ",
        "\r\nX-Signoff-Token: Bearer s3cret-Token",
        "\r\nX-Signoff-Token: \u{fc}",
    ] {
        assert_eq!(server.status(headers).await, "401", "{headers}");
    }
    assert_eq!(server.began.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_rotated_token_counts_at_once() {
    let (server, dir) = with_token(Some("one"));
    assert_eq!(server.status("\r\nX-Signoff-Token: one").await, "200");
    // As a Secret's volume does it: another file under the same name.
    fs::write(dir.path().join("new"), "two").unwrap();
    fs::rename(dir.path().join("new"), dir.path().join("token")).unwrap();
    assert_eq!(server.status("\r\nX-Signoff-Token: one").await, "401");
    assert_eq!(server.status("\r\nX-Signoff-Token: two").await, "200");
}

#[tokio::test]
async fn without_a_readable_token_everything_is_refused_and_the_file_is_named() {
    let large = "x".repeat(5000);
    for content in [None, Some(""), Some(" \n"), Some("two words"), Some("two\nlines"), Some(large.as_str())]
    {
        let (server, dir) = with_token(content);
        for headers in ["", "\r\nX-Signoff-Token: ", "\r\nX-Signoff-Token: x", "\r\nAuthorization: Bearer "] {
            assert_eq!(server.status(headers).await, "503", "{content:?} {headers}");
        }
        assert_eq!(server.began.load(Ordering::SeqCst), 0);
        let path = dir.path().join("token");
        let said = TokenFile::new(&path).check().await.unwrap_err().to_string();
        assert!(said.contains("--hook-token-file") && said.contains(path.to_str().unwrap()), "{said}");
        if let Some(content) = content.map(str::trim).filter(|content| !content.is_empty()) {
            assert!(!said.contains(content), "{said}");
        }
    }
}

#[tokio::test]
async fn a_token_that_appears_later_counts() {
    let (server, dir) = with_token(None);
    assert_eq!(server.status("\r\nX-Signoff-Token: one").await, "503");
    fs::write(dir.path().join("token"), "one").unwrap();
    TokenFile::new(dir.path().join("token")).check().await.unwrap();
    assert_eq!(server.status("\r\nX-Signoff-Token: one").await, "200");
}

#[tokio::test]
async fn who_is_turned_away_is_logged_with_the_address() {
    let (log, _guard) = Log::capture();
    let server = serve(Hook::new(allowing(&["10.0.0.0/8"]), None));
    assert_eq!(server.status("").await, "403");
    let text = log.text();
    let line = text.lines().find(|line| line.contains("WARN")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("peer=127.0.0.1") && line.contains("--hook-allow"), "{line}");
}

#[tokio::test]
async fn a_token_is_never_logged() {
    let (log, _guard) = Log::capture();
    let (server, dir) = with_token(Some("s3cret-Token"));
    assert_eq!(server.status("\r\nAuthorization: Bearer s3cret-Token").await, "200");
    assert_eq!(server.status("\r\nAuthorization: Bearer gu3ssed").await, "401");
    fs::write(dir.path().join("token"), "s3cret-Token twice").unwrap();
    assert_eq!(server.status("\r\nAuthorization: Bearer gu3ssed").await, "503");
    let text = log.text();
    assert!(text.contains("WARN") && text.contains("ERROR") && text.contains("peer=127.0.0.1"), "{text}");
    assert!(!text.contains("s3cret") && !text.contains("gu3ssed"), "{text}");
}

#[tokio::test]
async fn who_guesses_at_the_token_can_not_fill_the_log() {
    let (log, _guard) = Log::capture();
    let (server, _dir) = with_token(Some("s3cret-Token"));
    for _ in 0..100 {
        assert_eq!(server.status("\r\nX-Signoff-Token: gu3ssed").await, "401");
    }
    let said = log.text().matches("it has not the token").count();
    // Once a minute.
    assert_eq!(said, 1);
}

#[test]
fn a_pre_stops_answer_is_the_hooks_line() {
    let answer: PreStopAnswer =
        serde_json::from_str("{\"result\":\"queued\",\"why\":\"on the node\"}").unwrap();
    assert_eq!(HookAnswer::from(&answer), HookAnswer("queued: on the node".to_owned()));
}
