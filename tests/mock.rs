//! `signoff mock-manager` and `signoff mock-scheduler` as processes.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, reason = "a test's helper that can't go on fails the test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// An outer bound, never a verdict.
const LONG: Duration = Duration::from_secs(120);
const ANY: &str = "127.0.0.1:0";

fn signoff(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signoff"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

/// A running mock. Killed when dropped.
struct Mock {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Mock {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// The next line, which begins with this; what follows there.
    fn says(&mut self, word: &str) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let rest = line.trim_end().strip_prefix(word).and_then(|rest| rest.strip_prefix(' '));
        rest.unwrap_or_else(|| panic!("no {word:?} but {line:?}")).to_owned()
    }

    /// Its end by this signal: the exit code, and what it printed after the lines that were read.
    fn ends_by(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A mock manager that listens where there is room.
struct Manager {
    mock: Mock,
    grpc: SocketAddr,
    rest: SocketAddr,
    admin: SocketAddr,
}

impl Manager {
    fn start(args: &[&str]) -> Self {
        let listen = ["mock-manager", "--grpc-listen", ANY, "--rest-listen", ANY, "--admin-listen", ANY];
        let mut mock = Mock::start(signoff(&[&listen[..], args].concat()));
        let grpc = mock.says("grpc").parse().unwrap();
        let rest = mock.says("rest").parse().unwrap();
        let admin = mock.says("admin");
        let admin = admin.strip_prefix("http://").and_then(|a| a.strip_suffix('/')).unwrap().parse().unwrap();
        Self { mock, grpc, rest, admin }
    }

    /// What the admin port shows.
    fn shown(&self) -> Value {
        let (status, body) = http(self.admin, "GET", "/state", None);
        assert_eq!(status, 200, "{body}");
        body
    }

    fn row(&self, hostname: &str) -> Option<Value> {
        let rows = self.shown()["rows"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["host_name"] == hostname)
    }

    fn state(&self, hostname: &str) -> Option<String> {
        self.row(hostname).map(|row| row["state"].as_str().unwrap().to_owned())
    }

    fn scheduler(&self, hostname: &str) -> Mock {
        let manager = self.grpc.to_string();
        Mock::start(signoff(&[
            "mock-scheduler",
            "--hostname",
            hostname,
            "--listen",
            ANY,
            "--manager",
            &manager,
            "--keep-alive-interval",
            "100ms",
        ]))
    }
}

/// One request: the status, and the body as JSON (null where there is none).
fn http(addr: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: mock\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LONG, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_free(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).is_err()
}

/// `signoff pre-stop` without an agent: one sign-off over gRPC, by the real client.
fn pre_stop(dir: &Path, manager: &Manager, hostname: &str, deadline: &str) -> Output {
    let mut command =
        signoff(&["pre-stop", "--hostname", hostname, "--ip", "127.0.0.1", "--cluster-id", "1"]);
    command.args(["--scheduler-addr", "127.0.0.1:1", "--deadline", deadline, "--manager"]);
    command.arg(manager.grpc.to_string()).arg("--spool").arg(dir.join("spool"));
    command.arg("--run-dir").arg(dir.join("run")).output().unwrap()
}

#[test]
fn a_manager_says_where_it_listens_and_ends_0_at_each_signal_with_its_ports_free() {
    for signal in [Signal::TERM, Signal::INT] {
        let manager = Manager::start(&[]);
        assert_eq!(http(manager.rest, "GET", "/healthy", None), (200, json!("OK")));
        assert_eq!(manager.shown()["rows"], json!([]));
        let ports = [manager.grpc, manager.rest, manager.admin];
        assert_eq!(manager.mock.ends_by(signal), (Some(0), String::new()), "three lines and no more");
        assert!(ports.into_iter().all(is_free));
    }
}

#[test]
fn a_scheduler_says_where_it_listens_is_active_one_interval_later_and_inactive_once_it_was_told_to_stop() {
    let manager = Manager::start(&[]);
    let mut scheduler = manager.scheduler("scheduler-0");
    let addr: SocketAddr = scheduler.says("scheduler").parse().unwrap();
    assert_eq!(manager.row("scheduler-0").unwrap()["port"], addr.port(), "registered before it says so");
    eventually("the row is active", || manager.state("scheduler-0").as_deref() == Some("active"));
    assert_eq!(scheduler.ends_by(Signal::TERM), (Some(0), String::new()));
    eventually("the row is inactive", || manager.state("scheduler-0").as_deref() == Some("inactive"));
    assert!(is_free(addr));
}

#[test]
fn two_managers_over_one_state_file_see_each_others_rows_and_a_third_finds_them_later() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state.json");
    let file = ["--state", state.to_str().unwrap()];
    let (one, two) = (Manager::start(&file), Manager::start(&file));
    let mut at_one = one.scheduler("scheduler-1");
    at_one.says("scheduler");
    let mut at_two = two.scheduler("scheduler-2");
    at_two.says("scheduler");
    for manager in [&one, &two] {
        for hostname in ["scheduler-1", "scheduler-2"] {
            eventually("each row is active at each", || manager.state(hostname).as_deref() == Some("active"));
        }
    }
    // What one wrote the other hands out over REST too.
    let user = json!({ "name": "root", "password": "dragonfly" });
    let (status, signed_in) = http(two.rest, "POST", "/api/v1/users/signin", Some(&user));
    assert_eq!(status, 200, "{signed_in}");

    assert_eq!(at_one.ends_by(Signal::TERM).0, Some(0));
    eventually("its end is seen at the other", || two.state("scheduler-1").as_deref() == Some("inactive"));
    drop((one, two));
    let three = Manager::start(&file);
    assert_eq!(three.state("scheduler-1").as_deref(), Some("inactive"));
    assert_eq!(
        three.state("scheduler-2").as_deref(),
        Some("active"),
        "nobody wrote its end: its managers were killed"
    );
}

#[test]
fn a_fault_given_by_a_flag_is_on_from_the_start_and_used_up_by_its_count() {
    let dir = tempfile::tempdir().unwrap();
    let manager =
        Manager::start(&["--fault", "unavailable,count=1,scope=grpc,call=keep-alive,message=as asked"]);
    let fault = json!([{ "kind": "unavailable", "count": 1, "scope": "grpc", "call": "keep-alive", "message": "as asked" }]);
    assert_eq!(http(manager.admin, "GET", "/faults", None), (200, fault));
    let mut scheduler = manager.scheduler("scheduler-0");
    scheduler.says("scheduler");
    eventually("its second stream works", || manager.state("scheduler-0").as_deref() == Some("active"));
    assert_eq!(manager.shown()["faults"], json!([]), "the first one used it up");
    drop(scheduler);
    let done = pre_stop(dir.path(), &manager, "scheduler-0", "20s");
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!((done.status.code(), said.starts_with("confirmed")), (Some(0), true), "{said}");
}

#[test]
fn a_fault_is_switched_on_and_off_at_the_admin_port_while_the_manager_runs() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(&[]);
    manager.scheduler("scheduler-0").says("scheduler");
    let fault = json!({ "kind": "internal", "scope": "both", "message": "invalid connection" });
    assert_eq!(http(manager.admin, "POST", "/faults", Some(&fault)).0, 201);
    assert_eq!(manager.shown()["faults"], json!([fault]));
    let user = json!({ "name": "root", "password": "dragonfly" });
    assert_eq!(http(manager.rest, "POST", "/api/v1/users/signin", Some(&user)).0, 500);
    let left = pre_stop(dir.path(), &manager, "scheduler-0", "2s");
    let said = String::from_utf8(left.stdout).unwrap();
    assert_eq!((left.status.code(), said.starts_with("queued")), (Some(75), true), "{said}");

    let wrong = json!({ "kind": "internal", "call": "frobnicate" });
    let (status, refused) = http(manager.admin, "POST", "/faults", Some(&wrong));
    assert_eq!(status, 422);
    assert!(
        refused["error"].as_str().unwrap().contains("keep-alive"),
        "it names the calls there are: {refused}"
    );

    assert_eq!(http(manager.admin, "DELETE", "/faults", None).0, 204);
    let other = tempfile::tempdir().unwrap();
    let settled = pre_stop(other.path(), &manager, "scheduler-0", "20s");
    let said = String::from_utf8(settled.stdout).unwrap();
    assert_eq!(settled.status.code(), Some(0), "{said}");
    assert_eq!(http(manager.rest, "POST", "/api/v1/users/signin", Some(&user)).0, 200);
}

#[test]
fn what_keeps_a_mock_from_starting_exits_64_and_is_named() {
    let manager = Manager::start(&[]);
    let taken = manager.grpc.to_string();
    let dir = tempfile::tempdir().unwrap();
    let damaged = dir.path().join("state.json");
    std::fs::write(&damaged, "no table").unwrap();
    let damaged = damaged.to_str().unwrap();
    let any = ["--rest-listen", ANY, "--admin-listen", ANY];
    for (args, said) in [
        (vec!["mock-manager", "--grpc-listen", &taken], format!("gRPC can't listen on {taken}: ")),
        (
            vec!["mock-manager", "--grpc-listen", ANY, "--state", damaged],
            format!("state file {damaged} is no table of schedulers"),
        ),
    ] {
        let got = signoff(&[&args[..], &any[..]].concat()).output().unwrap();
        let stderr = String::from_utf8(got.stderr).unwrap();
        assert_eq!(got.status.code(), Some(64), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(&said), "{stderr}");
    }
    let got = signoff(&["mock-scheduler", "--hostname", "a", "--listen", &taken, "--manager", &taken])
        .output()
        .unwrap();
    assert_eq!(got.status.code(), Some(64));
    assert!(String::from_utf8(got.stderr).unwrap().contains(&taken));
}
