use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, Semaphore, oneshot},
};

use super::*;

/// No test waits this long unless it fails.
const BOUND: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(BOUND, future).await.expect("within the bound")
}

/// Answers each byte with itself, when `permits` allows.
struct Echo {
    address: SocketAddr,
    /// Each answer takes one.
    permits: Arc<Semaphore>,
    /// Connections that have begun to wait for an answer.
    busy: Arc<AtomicUsize>,
    busier: Arc<Notify>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn echo(limits: Limits) -> Echo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let permits = Arc::new(Semaphore::new(0));
    let busy = Arc::new(AtomicUsize::new(0));
    let busier = Arc::new(Notify::new());
    let (stop, stopped) = oneshot::channel::<()>();
    let (allowed, began, told) = (permits.clone(), busy.clone(), busier.clone());
    let task = tokio::spawn(serve(
        "echo",
        listener,
        limits,
        async {
            let _ = stopped.await;
        },
        move |mut stream: TcpStream, _, handle: Handle| {
            let (allowed, began, told) = (allowed.clone(), began.clone(), told.clone());
            async move {
                while let Ok(byte) = stream.read_u8().await {
                    let guard = handle.busy();
                    began.fetch_add(1, Ordering::SeqCst);
                    told.notify_one();
                    allowed.acquire().await.unwrap().forget();
                    if stream.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    drop(guard);
                }
            }
        },
    ));
    Echo { address, permits, busy, busier, stop, task }
}

impl Echo {
    async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(self.address)).await.unwrap()
    }

    async fn until_busy(&self, count: usize) {
        within(async {
            while self.busy.load(Ordering::SeqCst) < count {
                self.busier.notified().await;
            }
        })
        .await;
    }

    async fn ask(&self, stream: &mut TcpStream) -> io::Result<u8> {
        self.permits.add_permits(1);
        stream.write_all(b"x").await?;
        within(stream.read_u8()).await
    }
}

/// Whether the server closed the connection (an end or a reset).
async fn is_closed(stream: &mut TcpStream) -> bool {
    within(stream.read_u8()).await.is_err()
}

fn limits(connections: usize, idle: Duration) -> Limits {
    Limits { connections, idle, linger: BOUND }
}

#[tokio::test]
async fn at_the_cap_the_connection_that_was_idle_longest_makes_room() {
    let server = echo(limits(2, BOUND * 2)).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    // Both are known to the server, and the first has been heard of last.
    server.ask(&mut second).await.unwrap();
    server.ask(&mut first).await.unwrap();
    let mut third = server.connect().await;
    assert_eq!(server.ask(&mut third).await.unwrap(), b'x');
    assert!(is_closed(&mut second).await);
    assert_eq!(server.ask(&mut first).await.unwrap(), b'x');
}

#[tokio::test]
async fn at_the_cap_a_busy_connection_is_not_closed_for_a_new_one() {
    let server = echo(limits(2, BOUND * 2)).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first.write_all(b"a").await.unwrap();
    second.write_all(b"b").await.unwrap();
    server.until_busy(2).await;
    let mut third = server.connect().await;
    assert!(is_closed(&mut third).await);
    server.permits.add_permits(2);
    assert_eq!(within(first.read_u8()).await.unwrap(), b'a');
    assert_eq!(within(second.read_u8()).await.unwrap(), b'b');
}

#[tokio::test]
async fn whoever_is_turned_away_again_and_again_takes_one_line() {
    let (log, _guard) = crate::logging::Log::capture();
    let echo = echo(limits(1, BOUND)).await;
    let mut busy = within(TcpStream::connect(echo.address)).await.unwrap();
    busy.write_u8(7).await.unwrap();
    echo.until_busy(1).await;
    for _ in 0..20 {
        let mut more = within(TcpStream::connect(echo.address)).await.unwrap();
        assert!(is_closed(&mut more).await);
    }
    assert_eq!(log.text().matches("All connections are busy").count(), 1, "{}", log.text());
}

#[tokio::test]
async fn many_silent_clients_shut_nobody_out() {
    let server = echo(limits(4, BOUND * 2)).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(server.connect().await);
    }
    let mut client = server.connect().await;
    assert_eq!(server.ask(&mut client).await.unwrap(), b'x');
    for stream in &mut silent[..36] {
        assert!(is_closed(stream).await);
    }
}

#[tokio::test]
async fn a_burst_does_not_exceed_the_cap() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut burst = Vec::new();
    for _ in 0..40 {
        burst.push(TcpStream::connect(address).await.unwrap());
    }
    // All wait to be accepted, which is done without a pause.
    let (place, most) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let server =
        serve("burst", listener, limits(4, BOUND * 2), std::future::pending(), move |stream, _, _| {
            let place = place.clone();
            // But for the one of this closure.
            seen.fetch_max(Arc::strong_count(&place) - 1, Ordering::SeqCst);
            async move {
                let _held = (stream, place);
                std::future::pending().await
            }
        });
    let ends = async {
        for stream in &mut burst[..36] {
            assert!(is_closed(stream).await);
        }
    };
    tokio::select! {
        () = server => unreachable!(),
        () = ends => {}
    }
    assert_eq!(most.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let idle = Duration::from_millis(100);
    let server = echo(limits(4, idle)).await;
    let mut busy = server.connect().await;
    busy.write_all(b"a").await.unwrap();
    server.until_busy(1).await;
    let began = Instant::now();
    let mut silent = server.connect().await;
    assert!(is_closed(&mut silent).await);
    assert!(began.elapsed() >= idle, "closed after {:?}", began.elapsed());
    // The busy one is older by more than the idle time, and still there.
    server.permits.add_permits(1);
    assert_eq!(within(busy.read_u8()).await.unwrap(), b'a');
    assert!(is_closed(&mut busy).await);
}

#[tokio::test]
async fn what_is_under_way_at_the_shutdown_is_ended_and_the_port_is_closed_at_once() {
    let server = echo(limits(4, BOUND * 2)).await;
    let mut busy = server.connect().await;
    busy.write_all(b"a").await.unwrap();
    server.until_busy(1).await;
    server.stop.send(()).unwrap();
    let address = server.address;
    within(async { while TcpStream::connect(address).await.is_ok() {} }).await;
    assert!(!server.task.is_finished());
    server.permits.add_permits(1);
    assert_eq!(within(busy.read_u8()).await.unwrap(), b'a');
    drop(busy);
    within(server.task).await.unwrap();
}

#[tokio::test]
async fn the_shutdown_does_not_wait_for_a_connection_longer_than_its_linger() {
    let server = echo(Limits { connections: 4, idle: BOUND * 2, linger: Duration::from_millis(50) }).await;
    let mut busy = server.connect().await;
    busy.write_all(b"a").await.unwrap();
    server.until_busy(1).await;
    server.stop.send(()).unwrap();
    within(server.task).await.unwrap();
    assert!(is_closed(&mut busy).await);
}

/// Fails as a process without file descriptors does, for as long as it is told to.
struct Failing {
    listener: TcpListener,
    failures: AtomicUsize,
    asked: Arc<AtomicUsize>,
    errno: Errno,
}

impl Listener for Failing {
    type Stream = TcpStream;
    type Peer = SocketAddr;
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_ok() {
            return Err(io::Error::from_raw_os_error(self.errno.raw_os_error()));
        }
        TcpListener::accept(&self.listener).await
    }
}

/// Serves through `failures` errors of `accept`; returns how often it was called until a connection was served, and the
/// (paused) time that took.
async fn through(failures: usize, errno: Errno) -> (usize, Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let failing = Failing { listener, failures: AtomicUsize::new(failures), asked: asked.clone(), errno };
    let began = Instant::now();
    let (served, was_served) = oneshot::channel();
    let served = Mutex::new(Some(served));
    let connecting = tokio::spawn(TcpStream::connect(address));
    serve(
        "failing",
        failing,
        Limits::default(),
        async {
            was_served.await.unwrap();
        },
        |_, _, _| {
            served.lock().unwrap().take().unwrap().send(()).unwrap();
            std::future::ready(())
        },
    )
    .await;
    connecting.await.unwrap().unwrap();
    (asked.load(Ordering::SeqCst), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn without_file_descriptors_it_tries_again_without_spinning() {
    let (_, took) = through(25, Errno::MFILE).await;
    assert!(took >= ACCEPT_PAUSE * 25, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_aborted_before_it_was_accepted_delays_nobody() {
    let (asked, took) = through(25, Errno::CONNABORTED).await;
    assert!(asked > 25);
    assert!(took < ACCEPT_PAUSE, "{took:?}");
}

#[tokio::test]
async fn an_error_of_the_listener_makes_room() {
    let open = Open::default();
    assert!(!open.make_room());
    let load = Arc::new(watch::Sender::new(Load { busy: 0, since: Instant::now() }));
    let (cut, cut_off) = watch::channel(false);
    open.slots().insert(7, Slot { load, cut });
    assert!(open.make_room());
    within(until_cut(cut_off)).await;
    assert!(!open.make_room());
}

#[tokio::test]
async fn dropping_the_server_closes_what_is_open() {
    let server = echo(limits(4, BOUND * 2)).await;
    let mut busy = server.connect().await;
    busy.write_all(b"a").await.unwrap();
    server.until_busy(1).await;
    server.task.abort();
    assert!(is_closed(&mut busy).await);
    assert!(TcpStream::connect(server.address).await.is_err());
}
