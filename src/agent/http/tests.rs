use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::timeout,
};

use super::*;

/// No test waits this long unless it fails.
const BOUND: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(BOUND, future).await.expect("within the bound")
}

struct Server {
    address: SocketAddr,
    ready: Readiness,
    metrics: Metrics,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn server_with(limits: Limits, http: HttpLimits) -> Server {
    let listener = listen("--listen", "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (metrics, ready) = (Metrics::new(), Readiness::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let served = Served { metrics: std::sync::Arc::new(metrics.clone()), ready: ready.clone(), limits, http };
    let task = tokio::spawn(run(listener, served, async {
        let _ = stopped.await;
    }));
    Server { address, ready, metrics, stop, task }
}

async fn server() -> Server {
    server_with(Limits::default(), HttpLimits::default()).await
}

impl Server {
    async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(self.address)).await.unwrap()
    }

    /// Sends `request` on a connection of its own and reads to the end.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        to_the_end(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await
    }
}

async fn to_the_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// One answer with a `Content-Length` of a connection that stays open.
async fn one_answer(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    within(async {
        loop {
            if let Some((head, body)) = answer.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if body.len() >= length.parse().unwrap() {
                    return;
                }
            }
            answer.push(stream.read_u8().await.unwrap().into());
        }
    })
    .await;
    answer
}

fn status(answer: &str) -> &str {
    answer.strip_prefix("HTTP/1.1 ").map_or("", |rest| &rest[..3])
}

#[tokio::test]
async fn it_is_alive_from_the_start_and_ready_when_it_is_told_so() {
    let server = server().await;
    assert_eq!(status(&server.get("/livez").await), "200");
    assert_eq!(status(&server.get("/readyz").await), "503");
    server.ready.set(true);
    assert_eq!(status(&server.get("/readyz").await), "200");
    server.ready.set(false);
    assert_eq!(status(&server.get("/readyz?verbose").await), "503");
}

#[tokio::test]
async fn a_scrape_gets_the_metrics_as_openmetrics() {
    let server = server().await;
    server.metrics.set_row_active(Some(true));
    let answer = server.get("/metrics").await;
    assert_eq!(status(&answer), "200");
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\nsignoff_row_active 1.0\n"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn scrapes_at_the_same_time_all_get_the_whole_text() {
    let server = server().await;
    let answers = futures_util::future::join_all((0..40).map(|_| server.get("/metrics"))).await;
    for answer in answers {
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }
}

#[tokio::test]
async fn everything_else_is_not_there() {
    let server = server().await;
    for path in ["/", "/healthz", "/metrics/", "/livez/x", "/pre-stop", "//metrics", "/%6detrics", "*"] {
        assert_eq!(status(&server.get(path).await), "404", "{path}");
    }
}

#[tokio::test]
async fn only_get_and_head_are_served() {
    let server = server().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let answer = server
            .exchange(&format!("{method} /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
            .await;
        assert_eq!(status(&answer), "405", "{method}");
        assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    }
    let head = server.exchange("HEAD /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&head), "200");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn a_body_over_one_kibibyte_or_of_unknown_length_is_refused() {
    let server = server().await;
    let answer = server.exchange("GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n").await;
    assert_eq!(status(&answer), "413");
    let answer =
        server.exchange("POST /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(status(&answer), "413");
    let body = "x".repeat(100_000);
    let answer = server
        .exchange(&format!("POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{body}"))
        .await;
    assert_eq!(status(&answer), "413");
    let answer = server.exchange("GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    assert_eq!(status(&answer), "200");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = server().await;
    let mut stream = server.connect().await;
    let head = format!("GET /livez HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    // The server may have closed before all of it was sent.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
}

#[tokio::test]
async fn a_client_that_trickles_its_head_is_cut() {
    let head = Duration::from_millis(300);
    // By the head's time-out, not the idle one.
    let limits = Limits { idle: BOUND * 2, ..Limits::default() };
    let server = server_with(limits, HttpLimits { head, ..HttpLimits::default() }).await;
    let mut stream = server.connect().await;
    let began = Instant::now();
    let (mut reading, mut writing) = stream.split();
    let trickle = async {
        writing.write_all(b"GET /livez HTTP/1.1\r\nX: ").await?;
        loop {
            writing.write_all(b"x").await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        #[allow(unreachable_code)]
        io::Result::Ok(())
    };
    let mut answer = Vec::new();
    within(async {
        tokio::select! {
            _ = trickle => {}
            _ = reading.read_to_end(&mut answer) => {}
        }
    })
    .await;
    assert!(began.elapsed() >= head, "cut after {:?}", began.elapsed());
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    assert_eq!(status(&server.get("/livez").await), "200");
}

#[tokio::test]
async fn a_connection_without_a_further_request_is_closed() {
    let http = HttpLimits { head: Duration::from_millis(200), ..HttpLimits::default() };
    let server = server_with(Limits { idle: BOUND * 2, ..Limits::default() }, http).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(status(&one_answer(&mut stream).await), "200");
    assert_eq!(to_the_end(&mut stream).await, "");
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut() {
    let limits = Limits { idle: Duration::from_millis(300), ..Limits::default() };
    let server = server_with(limits, HttpLimits { head: BOUND * 2, requests: u32::MAX }).await;
    let mut stream = server.connect().await;
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    within(async { while stream.write_all(&request).await.is_ok() {} }).await;
    assert_eq!(status(&server.get("/livez").await), "200");
}

#[tokio::test]
async fn a_connection_serves_a_bounded_number_of_requests() {
    let server = server_with(Limits::default(), HttpLimits { requests: 3, ..HttpLimits::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(&b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10)).await.unwrap();
    let mut answers = Vec::new();
    // Requests left unread may make the end a reset.
    let _ = within(stream.read_to_end(&mut answers)).await;
    assert_eq!(String::from_utf8(answers).unwrap().matches("200 OK").count(), 3);
}

#[tokio::test]
async fn idle_clients_do_not_keep_a_scrape_out() {
    let limits = Limits { connections: 4, idle: BOUND * 2, linger: BOUND };
    let server = server_with(limits, HttpLimits { head: BOUND * 2, ..HttpLimits::default() }).await;
    let mut holding = Vec::new();
    for _ in 0..20 {
        let mut stream = server.connect().await;
        // Those that were made to go already can't be written to.
        let _ = stream.write_all(b"GET /met").await;
        holding.push(stream);
    }
    assert_eq!(status(&server.get("/metrics").await), "200");
}

#[tokio::test]
async fn at_the_shutdown_the_port_is_closed_and_idle_connections_end() {
    let server = server_with(Limits { linger: BOUND, ..Limits::default() }, HttpLimits::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    one_answer(&mut stream).await;
    server.stop.send(()).unwrap();
    within(server.task).await.unwrap();
    assert_eq!(to_the_end(&mut stream).await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_with_its_flag_and_address() {
    let holder = listen("--listen", "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = holder.local_addr().unwrap();
    let error = listen("--listen", address).unwrap_err();
    assert!(matches!(error, ListenError::Taken { .. }));
    let said = error.to_string();
    assert!(said.contains("--listen") && said.contains(&address.to_string()), "{said}");
    drop(holder);
    listen("--listen", address).unwrap();
}

#[tokio::test]
async fn an_address_of_another_machine_is_said_with_the_systems_words() {
    let said = listen("--listen", "192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
    assert!(said.contains("--listen 192.0.2.1:0"), "{said}");
}

#[tokio::test]
async fn all_addresses_include_those_of_ipv4() {
    let listener = listen("--listen", "[::]:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (accepted, connected) =
        within(async { tokio::join!(listener.accept(), TcpStream::connect(("127.0.0.1", port))) }).await;
    accepted.unwrap();
    connected.unwrap();
}

#[test]
fn without_ipv6_all_addresses_are_those_of_ipv4() {
    let all = "[::]:9802".parse().unwrap();
    let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
    for errno in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
        assert_eq!(without_ipv6(all, &error(errno)), Some("0.0.0.0:9802".parse().unwrap()));
        assert_eq!(without_ipv6("[fd00::1]:9802".parse().unwrap(), &error(errno)), None);
    }
    assert_eq!(without_ipv6(all, &error(Errno::ADDRINUSE)), None);
}

#[test]
fn an_address_is_read_or_refused_with_what_would_be_right() {
    for (text, address) in
        [("[::]:9802", "[::]:9802"), (":9802", "[::]:9802"), ("127.0.0.1:0", "127.0.0.1:0")]
    {
        assert_eq!(parse_address("--listen", text).unwrap(), address.parse().unwrap());
    }
    for text in ["", "9802", ":", ":99999", "::1:9802x", "localhost:9802", "[::]"] {
        let said = parse_address("--listen", text).unwrap_err().to_string();
        assert!(said.contains("--listen") && said.contains(&format!("{text:?}")), "{said}");
    }
}
