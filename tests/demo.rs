//! `signoff demo` as a process: how it ends, and that nothing outlives it.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, reason = "a test's helper that can't go on fails the test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// An outer bound, never a verdict.
const LONG: Duration = Duration::from_secs(120);
const SCENES: &[&str] = &["stop", "outage", "replay", "restart", "succession", "reconcile", "withdrawal"];

/// The demo's last line, with so many scenes as promised.
fn ended(as_promised: usize) -> String {
    format!("{as_promised} of {} scenes ended as promised", SCENES.len())
}

/// The demo, its directory in `tmp`, in an environment that would mislead its agents.
fn demo(tmp: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signoff"));
    command
        .arg("demo")
        .args(args)
        .env("TMPDIR", tmp)
        .env("SIGNOFF_HOSTNAME", "not.a.scheduler.of.the.demo")
        .env("SIGNOFF_CLUSTER_ID", "0")
        .env("SIGNOFF_MANAGER", "127.0.0.1:1")
        .env("SIGNOFF_CA_FILE", "/nowhere")
        .stdin(Stdio::null());
    command
}

/// The processes that have this directory in their environment: the demo, its janitor, its agents.
fn processes(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        // A process may end while it is looked at.
        let read = |name: &str| {
            std::fs::read(entry.path().join(name)).map(|b| String::from_utf8_lossy(&b).into_owned())
        };
        if read("environ").is_ok_and(|environ| environ.contains(dir)) {
            found.push(read("cmdline").unwrap_or_default().replace('\0', " "));
        }
    }
    found
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LONG, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn nothing_is_left(tmp: &Path) {
    eventually("its processes are gone", || processes(tmp).is_empty());
    eventually("its directory is gone", || entries(tmp) == 0);
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_owned).collect()
}

/// A line without what differs from run to run: numbers, and the hexadecimal ids of records.
fn normal(line: &str) -> String {
    let plain = |word: &str| {
        let id = word.contains(".ask.json");
        let plain: String = word.chars().map(|c| if c.is_ascii_digit() || id { '0' } else { c }).collect();
        if id { "ID".to_owned() } else { squeezed(&plain) }
    };
    line.split_whitespace().map(plain).collect::<Vec<_>>().join(" ")
}

fn squeezed(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if !(c == '0' && out.ends_with('0')) {
            out.push(c);
        }
    }
    out
}

#[test]
fn it_ends_0_with_every_scene_as_promised_as_the_readme_shows_it_and_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let output = demo(tmp.path(), &[]).output().unwrap();
    let took = began.elapsed();
    let said = lines(&output);
    assert_eq!(output.status.code(), Some(0), "{}", said.join("\n"));
    assert!(said.last().unwrap().starts_with(&ended(SCENES.len())), "{}", said.join("\n"));
    assert_eq!(said.iter().filter(|line| line.trim().starts_with("AS PROMISED: ")).count(), SCENES.len());
    assert!(!String::from_utf8_lossy(&output.stdout).contains('\x1b'), "plain where it is piped");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!((processes(tmp.path()), entries(tmp.path())), (Vec::new(), 0), "all is gone when it ends");
    assert!(took < Duration::from_secs(40), "{took:?}");

    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let transcript = readme.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(transcript.contains("AS PROMISED") && transcript.lines().count() <= 25, "{transcript}");
    let said: Vec<String> = said.iter().map(|line| normal(line)).collect();
    for line in transcript.lines().filter(|line| line.trim() != "[...]") {
        assert!(said.contains(&normal(line)), "README's demo says {line:?}, this one:\n{}", said.join("\n"));
    }
}

#[test]
fn a_sabotaged_scene_fails_and_no_other_and_the_demo_exits_1() {
    let runs: Vec<_> = SCENES
        .iter()
        .map(|name| {
            std::thread::spawn(move || {
                let tmp = tempfile::tempdir().unwrap();
                let output = demo(tmp.path(), &["--break", name]).output().unwrap();
                let said = lines(&output);
                let all = said.join("\n");
                assert_eq!(output.status.code(), Some(1), "{name}: {all}");
                let failed: Vec<&str> =
                    said.iter().filter_map(|line| line.trim().strip_prefix("NOT AS PROMISED: ")).collect();
                assert!(
                    matches!(failed[..], [one] if one.starts_with(&format!("{name} ("))),
                    "{name}: {all}"
                );
                assert!(said.last().unwrap().starts_with(&ended(SCENES.len() - 1)), "{name}: {all}");
                nothing_is_left(tmp.path());
            })
        })
        .collect();
    for run in runs {
        run.join().unwrap();
    }
}

#[test]
fn a_scene_that_is_none_exits_64_and_names_those_there_are() {
    let tmp = tempfile::tempdir().unwrap();
    let output = demo(tmp.path(), &["--break", "curtain"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, format!("error: --break: \"curtain\" is no scene; use one of {}\n", SCENES.join(", ")));
}

/// A demo that is running. Killed when dropped.
struct Running(Child, BufReader<ChildStdout>);

impl Running {
    fn start(tmp: &Path, args: &[&str]) -> Self {
        let mut child = demo(tmp, args).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self(child, stdout)
    }

    /// Reads on to the line with this.
    fn says(&mut self, text: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.1.read_line(&mut line).unwrap(), 0, "it ended without {text:?}:\n{all}");
            if line.contains(text) {
                return line;
            }
            all.push_str(&line);
        }
    }

    fn ends_by(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        let mut rest = String::new();
        self.1.read_to_string(&mut rest).unwrap();
        (self.0.wait().unwrap().code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn kept_it_shows_its_page_until_interrupted_and_then_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let mut demo = Running::start(tmp.path(), &["--keep"]);
    let line = demo.says("Still running: http://");
    let page = line.split("http://").nth(1).unwrap().split('/').next().unwrap();
    let mut stream = TcpStream::connect(page).unwrap();
    stream.write_all(b"GET /state HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"scheduler-9\""), "{answer}");
    assert!(processes(tmp.path()).iter().any(|line| line.ends_with("signoff agent ")), "its agent runs");
    assert_eq!(demo.ends_by(Signal::INT).0, Some(0));
    assert_eq!((processes(tmp.path()), entries(tmp.path())), (Vec::new(), 0), "all is gone when it ends");
}

#[test]
fn interrupted_in_a_scene_it_says_so_exits_1_and_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let mut demo = Running::start(tmp.path(), &[]);
    demo.says("  spool ");
    assert!(processes(tmp.path()).len() >= 3, "{:?}", processes(tmp.path()));
    let (code, said) = demo.ends_by(Signal::TERM);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.ends_with(&format!("\nInterrupted: 1 of {} scenes were played.\n", SCENES.len())), "{said}");
    assert_eq!((processes(tmp.path()), entries(tmp.path())), (Vec::new(), 0), "all is gone when it ends");
}

#[test]
fn killed_in_a_scene_it_leaves_nothing_behind_either() {
    let tmp = tempfile::tempdir().unwrap();
    let mut demo = Running::start(tmp.path(), &[]);
    demo.says("  spool ");
    assert!(processes(tmp.path()).len() >= 3, "{:?}", processes(tmp.path()));
    assert_eq!(demo.ends_by(Signal::KILL).0, None);
    nothing_is_left(tmp.path());
}
