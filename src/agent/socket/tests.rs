use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};

use super::{status::*, *};
use crate::agent::http::connections::Limits;

/// No test waits this long unless it fails.
const BOUND: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(BOUND, future).await.expect("within the bound")
}

fn confirmed() -> PreStopAnswer {
    PreStopAnswer {
        result: PreStopResult::Confirmed,
        why: "the manager says inactive".to_owned(),
        watched_until: Some(7),
        durability: "lost with this pod".to_owned(),
        persisted: true,
    }
}

struct Agent {
    dir: TempDir,
    asked: Arc<Mutex<Vec<Request>>>,
    /// Lets pre-stops be answered.
    gate: Arc<Notify>,
    /// Pre-stops carried through.
    done: Arc<AtomicUsize>,
    began: Arc<Notify>,
    finished: Arc<Notify>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

/// An agent that answers a pre-stop with a deadline at once, and one without when the gate opens.
fn agent_with(limits: Limits) -> Agent {
    let dir = tempfile::tempdir().unwrap();
    let socket = bind(dir.path()).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (gate, began, finished) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let done = Arc::new(AtomicUsize::new(0));
    let (stop, stopped) = oneshot::channel::<()>();
    let shared = (asked.clone(), gate.clone(), done.clone(), began.clone(), finished.clone());
    let handler = move |request: Request| -> futures_util::future::BoxFuture<'static, Response> {
        let (asked, gate, done, began, finished) = shared.clone();
        asked.lock().unwrap().push(request);
        Box::pin(async move {
            match request {
                Request::PreStop { deadline } => {
                    began.notify_one();
                    if deadline.is_none() {
                        gate.notified().await;
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                    finished.notify_one();
                    Response::PreStop(confirmed())
                }
                Request::Status => Response::Status(Box::new(Status {
                    version: "9".to_owned(),
                    started: true,
                    ..Status::default()
                })),
                Request::Check => Response::Check(vec![Finding {
                    name: "spool".to_owned(),
                    verdict: Verdict::Warning,
                    found: "lives with the pod".to_owned(),
                    todo: Some("use a claim".to_owned()),
                }]),
            }
        })
    };
    let task = tokio::spawn(serve(socket, limits, handler, async {
        let _ = stopped.await;
    }));
    Agent { dir, asked, gate, done, began, finished, stop, task }
}

fn agent() -> Agent {
    agent_with(server::limits())
}

const PRE_STOP: Request = Request::PreStop { deadline: None };

impl Agent {
    async fn ask(&self, request: Request) -> Result<Response, AskError> {
        ask(self.dir.path(), &request, BOUND).await
    }

    async fn connect(&self) -> UnixStream {
        within(UnixStream::connect(path_in(self.dir.path()))).await.unwrap()
    }

    /// Sends bytes and reads to the end.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        let _ = stream.write_all(bytes).await;
        let mut answer = String::new();
        let _ = within(stream.read_to_string(&mut answer)).await;
        answer
    }
}

#[tokio::test]
async fn each_request_gets_its_answer() {
    let agent = agent();
    let deadline = Some(Duration::from_millis(5_000));
    assert_eq!(agent.ask(Request::PreStop { deadline }).await.unwrap(), Response::PreStop(confirmed()));
    let Response::Status(status) = agent.ask(Request::Status).await.unwrap() else { panic!("no status") };
    assert!(status.started && status.version == "9");
    let Response::Check(findings) = agent.ask(Request::Check).await.unwrap() else { panic!("no check") };
    assert_eq!(findings[0].verdict, Verdict::Warning);
    assert_eq!(
        *agent.asked.lock().unwrap(),
        [Request::PreStop { deadline }, Request::Status, Request::Check]
    );
}

#[tokio::test]
async fn one_line_each_way_is_all_it_takes() {
    let agent = agent();
    let answer = agent.raw(b"{\"version\":1,\"request\":\"pre-stop\",\"deadline_ms\":10}\n").await;
    assert_eq!(
        answer,
        "{\"version\":1,\"pre-stop\":{\"result\":\"confirmed\",\"why\":\"the manager says inactive\",\
         \"watched_until\":7,\"durability\":\"lost with this pod\",\"persisted\":true}}\n"
    );
}

#[tokio::test]
async fn fields_of_a_later_release_are_ignored() {
    let agent = agent();
    let answer = agent.raw(b"{\"version\":1,\"request\":\"status\",\"colour\":\"red\"}\n").await;
    assert!(answer.starts_with("{\"version\":1,\"status\":{"), "{answer}");
    let read: ResponseLine = serde_json::from_str(
        "{\"version\":1,\"mood\":\"good\",\"status\":{\"version\":\"9\",\"mood\":1,\"row\":{\"state\":\"purple\"},\
         \"scheduler\":{\"state\":\"asleep\"}}}",
    )
    .unwrap();
    let Response::Status(status) = read.response else { panic!("no status") };
    assert_eq!(status.row.unwrap().state, RowWord::Unknown);
    assert_eq!(status.scheduler.state, SchedulerState::Unknown);
}

#[tokio::test]
async fn a_version_or_a_request_that_is_not_known_is_refused_with_what_is_spoken() {
    let agent = agent();
    for (line, named) in [
        ("{\"version\":2,\"request\":\"pre-stop\"}", "version 2"),
        ("{\"version\":2,\"dance\":true}", "version 2"),
        ("{\"version\":1,\"request\":\"dance\"}", "\"dance\""),
        ("{\"version\":1}", "request"),
        ("{\"request\":\"status\"}", "version"),
        ("{\"version\":1,\"request\":\"pre-stop\",\"deadline_ms\":-1}", "-1"),
        ("[]", "no request"),
        ("GET / HTTP/1.1", "no request"),
        ("", "no request"),
    ] {
        let answer = agent.raw(format!("{line}\n").as_bytes()).await;
        let read: ResponseLine = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
        let Response::Refused(why) = read.response else { panic!("{line} was not refused") };
        assert!(why.contains(named), "{line}: {why}");
        assert!(why.contains("version 1") && why.contains("pre-stop, status, check"), "{line}: {why}");
    }
    assert!(agent.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let agent = agent();
    let answer = agent.raw("x".repeat(MAX_REQUEST).as_bytes()).await;
    assert!(answer.contains("larger than 65536 bytes"), "{answer}");
    let padding = " ".repeat(MAX_REQUEST - 40);
    let answer = agent.raw(format!("{{\"version\":1,\"request\":\"status\"}}{padding}\n").as_bytes()).await;
    assert!(answer.contains("\"status\""), "{answer}");
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_request_is_cut() {
    let agent = agent_with(Limits { idle: Duration::from_millis(200), ..server::limits() });
    let began = Instant::now();
    assert_eq!(agent.raw(b"{\"version\":1,").await, "");
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_pre_stop_may_take_longer_than_a_request_may_take_to_arrive() {
    let idle = Duration::from_millis(100);
    let agent = agent_with(Limits { idle, ..server::limits() });
    let mut asking = std::pin::pin!(agent.ask(PRE_STOP));
    assert!(timeout(idle * 3, &mut asking).await.is_err());
    agent.gate.notify_one();
    assert_eq!(within(asking).await.unwrap(), Response::PreStop(confirmed()));
}

#[tokio::test]
async fn a_client_that_closes_its_side_still_gets_the_answer() {
    let agent = agent();
    let mut stream = agent.connect().await;
    stream.write_all(b"{\"version\":1,\"request\":\"pre-stop\"}").await.unwrap();
    stream.shutdown().await.unwrap();
    within(agent.began.notified()).await;
    agent.gate.notify_one();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains("confirmed"), "{answer}");
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_cancel_what_it_asked() {
    let agent = agent();
    let mut stream = agent.connect().await;
    stream.write_all(b"{\"version\":1,\"request\":\"pre-stop\"}\n").await.unwrap();
    within(agent.began.notified()).await;
    drop(stream);
    // The server too may end meanwhile.
    agent.task.abort();
    agent.gate.notify_one();
    within(agent.finished.notified()).await;
    assert_eq!(agent.done.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn at_the_shutdown_an_answer_under_way_is_still_written() {
    let agent = agent_with(Limits { linger: BOUND, ..server::limits() });
    let dir = agent.dir.path().to_owned();
    let asking = tokio::spawn(async move { ask(&dir, &PRE_STOP, BOUND).await });
    within(agent.began.notified()).await;
    agent.stop.send(()).unwrap();
    agent.gate.notify_one();
    assert_eq!(within(asking).await.unwrap().unwrap(), Response::PreStop(confirmed()));
    within(agent.task).await.unwrap();
    assert!(!path_in(agent.dir.path()).exists());
}

#[tokio::test]
async fn past_the_cap_a_client_is_told_that_it_got_no_answer() {
    let agent = agent_with(Limits { connections: 1, ..server::limits() });
    let mut stream = agent.connect().await;
    stream.write_all(b"{\"version\":1,\"request\":\"pre-stop\"}\n").await.unwrap();
    within(agent.began.notified()).await;
    let error = agent.ask(Request::Status).await.unwrap_err();
    assert!(matches!(error, AskError::Broken(_)), "{error}");
}

#[tokio::test]
async fn the_socket_is_for_its_user_and_group_alone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("run/signoff");
    let socket = bind(&dir).unwrap();
    assert_eq!(socket.path(), path_in(&dir));
    assert_eq!(fs::metadata(socket.path()).unwrap().mode() & 0o7777, 0o660);
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o770);
    assert!(!dir.join("agent.sock.new").exists());
    let path = socket.path().to_owned();
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn nobody_can_connect_before_the_socket_has_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock.new");
    let socket = server::with_its_mode(&path).unwrap();
    let refused = UnixStream::connect(&path).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
    drop(socket);
}

#[tokio::test]
async fn a_run_directory_that_was_there_keeps_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
    bind(dir.path()).unwrap();
    assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o750);
}

#[tokio::test]
async fn the_socket_of_a_dead_agent_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    // What kill -9 leaves: files, unlocked, and nobody listening.
    drop(UnixListener::bind(path_in(dir.path())).unwrap());
    fs::write(dir.path().join("agent.lock"), "").unwrap();
    drop(UnixListener::bind(dir.path().join("agent.sock.new")).unwrap());
    let error = ask(dir.path(), &Request::Status, BOUND).await.unwrap_err();
    assert!(matches!(error, AskError::NoAgent(_)), "{error}");
    let socket = bind(dir.path()).unwrap();
    within(UnixStream::connect(socket.path())).await.unwrap();
}

#[tokio::test]
async fn the_socket_of_a_living_agent_is_not_replaced() {
    let agent = agent();
    let error = bind(agent.dir.path()).unwrap_err();
    assert!(matches!(error, BindError::Living { .. }), "{error}");
    assert!(error.to_string().contains("agent.sock"), "{error}");
    // Even with its lock's file gone.
    fs::remove_file(agent.dir.path().join("agent.lock")).unwrap();
    assert!(matches!(bind(agent.dir.path()).unwrap_err(), BindError::Living { .. }));
    agent.ask(Request::Status).await.unwrap();
}

#[tokio::test]
async fn of_two_agents_that_start_at_once_one_gets_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    // The other has the lock, and no socket yet.
    let lock = fs::File::create(dir.path().join("agent.lock")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(bind(dir.path()).unwrap_err(), BindError::Living { .. }));
    drop(lock);
    bind(dir.path()).unwrap();
}

#[tokio::test]
async fn an_agent_that_lives_but_does_not_accept_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let frozen = UnixListener::bind(path_in(dir.path())).unwrap();
    let mut waiting = Vec::new();
    // Until its queue is full.
    while let Ok(stream) = {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&socket2::SockAddr::unix(path_in(dir.path())).unwrap()).map(|()| socket)
    } {
        waiting.push(stream);
    }
    assert!(matches!(bind(dir.path()).unwrap_err(), BindError::Living { .. }));
    drop(frozen);
}

#[tokio::test]
async fn what_is_no_socket_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(path_in(dir.path()), "mine").unwrap();
    let error = bind(dir.path()).unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read(path_in(dir.path())).unwrap(), b"mine");
}

#[tokio::test]
async fn no_symlink_in_the_run_directory_is_followed() {
    use std::os::unix::fs::symlink;
    let elsewhere = tempfile::tempdir().unwrap();
    let path = |name: &str| elsewhere.path().join(name);
    fs::write(path("file"), "mine").unwrap();
    fs::set_permissions(path("file"), fs::Permissions::from_mode(0o600)).unwrap();
    drop(UnixListener::bind(path("dead.sock")).unwrap());
    let _living = UnixListener::bind(path("living.sock")).unwrap();
    for target in ["file", "dead.sock", "living.sock", "missing"] {
        let dir = tempfile::tempdir().unwrap();
        let link = |name: &str| symlink(path(target), dir.path().join(name)).unwrap();
        // In the socket's place it is refused, and left.
        link("agent.sock");
        let error = bind(dir.path()).unwrap_err();
        assert!(matches!(error, BindError::NotASocket { .. }), "{target}: {error}");
        fs::remove_file(path_in(dir.path())).unwrap();
        // In that of the socket's first name it is replaced.
        link("agent.sock.new");
        let socket = bind(dir.path()).unwrap();
        assert!(fs::symlink_metadata(socket.path()).unwrap().mode() & 0o777 == 0o660, "{target}");
        drop(socket);
        // In the lock's it is refused.
        fs::remove_file(dir.path().join("agent.lock")).unwrap();
        link("agent.lock");
        let error = bind(dir.path()).unwrap_err();
        assert!(error.to_string().contains("agent.lock can't be opened"), "{target}: {error}");
    }
    assert_eq!(fs::metadata(path("file")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read(path("file")).unwrap(), b"mine");
    assert!(!path("missing").exists());
}

#[tokio::test]
async fn a_run_directory_that_is_too_long_or_is_none_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("x".repeat(100));
    let error = bind(&long).unwrap_err();
    assert!(matches!(error, BindError::TooLong { .. }) && error.to_string().contains("--run-dir"), "{error}");
    // The longest that is allowed works.
    let fits = dir.path().join("x".repeat(92 - 1 - dir.path().as_os_str().len()));
    bind(&fits).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let said = bind(&file).unwrap_err().to_string();
    assert!(said.contains(file.to_str().unwrap()), "{said}");
}

#[tokio::test]
async fn without_a_socket_there_is_no_agent() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [dir.path().to_owned(), dir.path().join("missing")] {
        let error = ask(&dir, &Request::Status, BOUND).await.unwrap_err();
        assert!(matches!(error, AskError::NoAgent(_)), "{error}");
        assert!(error.to_string().contains(path_in(&dir).to_str().unwrap()), "{error}");
    }
}

/// Runs `ask` on a thread that has no right but what modes give to others.
fn ask_as_nobody(dir: &Path) -> AskError {
    let dir = dir.to_owned();
    let asking = std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (rustix::process::Uid::from_raw(65534), rustix::process::Gid::from_raw(65534));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask(&dir, &Request::Status, BOUND)).unwrap_err()
    });
    asking.join().unwrap()
}

#[tokio::test]
async fn a_socket_that_may_not_be_used_is_never_taken_for_no_agent() {
    let agent = agent();
    // A user other than root is the owner here, so the owner's right goes too.
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let socket = path_in(agent.dir.path());
    mode(agent.dir.path(), 0o755);
    mode(&socket, 0o060);
    let by_socket = ask_as_nobody(agent.dir.path());
    mode(agent.dir.path(), 0o000);
    let by_directory = ask_as_nobody(agent.dir.path());
    mode(agent.dir.path(), 0o700);
    for error in [by_socket, by_directory] {
        assert!(matches!(error, AskError::Denied(_)), "{error}");
        assert!(error.to_string().contains(socket.to_str().unwrap()), "{error}");
    }
}

/// The answer of an agent that says `line` to anything.
async fn ask_one_that_says(line: &'static [u8], wait: Duration) -> AskError {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(path_in(dir.path())).unwrap();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        server::read_line(&mut stream, MAX_REQUEST).await.unwrap();
        stream.write_all(line).await.unwrap();
        // Held open until the client has gone.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let error = ask(dir.path(), &Request::Status, wait).await.unwrap_err();
    within(answering).await.unwrap();
    error
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_is_said_for_what_it_is() {
    let broken = ask_one_that_says(b"hello\n", BOUND).await;
    assert!(matches!(broken, AskError::Broken(_)), "{broken}");
    let newer = ask_one_that_says(b"{\"version\":2,\"status\":{}}\n", BOUND).await;
    assert!(matches!(&newer, AskError::Broken(why) if why.contains("version 2")), "{newer}");
    let refused = ask_one_that_says(b"{\"version\":2,\"refused\":\"speak 2\"}\n", BOUND).await;
    assert!(matches!(&refused, AskError::Refused(why) if why == "speak 2"), "{refused}");
    let silent = ask_one_that_says(b"{", Duration::from_millis(50)).await;
    assert!(matches!(&silent, AskError::Broken(why) if why.contains("50ms")), "{silent}");
}

#[test]
fn a_pre_stops_answer_is_one_line() {
    assert_eq!(confirmed().to_string(), "confirmed: the manager says inactive");
    let forged = PreStopAnswer { why: "x\nconfirmed: y\u{1b}[2J".to_owned(), ..confirmed() };
    assert_eq!(forged.to_string(), "confirmed: x confirmed: y [2J");
    let bare = PreStopAnswer { result: PreStopResult::Absent, why: String::new(), ..confirmed() };
    assert_eq!(bare.to_string(), "absent");
}

#[test]
fn every_request_and_answer_survives_the_wire() {
    let deadline = Some(Duration::from_millis(1_234));
    for request in [Request::PreStop { deadline }, PRE_STOP, Request::Status, Request::Check] {
        let line = request.to_line().unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(Request::from_line(line.trim_end().as_bytes()).unwrap(), request);
    }
    for response in [
        Response::PreStop(confirmed()),
        Response::Status(Box::default()),
        Response::Check(Vec::new()),
        Response::Refused("a\nb".to_owned()),
    ] {
        let line = line(&ResponseLine { version: VERSION, response: response.clone() }).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<ResponseLine>(&line).unwrap().response, response);
    }
}

#[tokio::test]
async fn g4_a_socket_that_takes_no_connection_costs_a_hook_a_moment_of_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let address = socket2::SockAddr::unix(path_in(dir.path())).unwrap();
    let socket = || socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let full = socket();
    full.bind(&address).unwrap();
    full.listen(0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let client = socket();
        client.set_nonblocking(true).unwrap();
        if client.connect(&address).is_err() {
            break;
        }
        waiting.push(client);
    }
    let begun = Instant::now();
    let said = ask(dir.path(), &PRE_STOP, BOUND).await.unwrap_err();
    assert!(matches!(&said, AskError::Broken(why) if why.contains("no answer within 1s")), "{said}");
    assert!(begun.elapsed() < BOUND / 2, "{:?}", begun.elapsed());
}
