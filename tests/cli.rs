//! The command line as a process: exit codes, what goes where, and closed pipes.

#![allow(clippy::unwrap_used, reason = "a test's helper that can't go on fails the test")]

use std::{
    os::unix::fs::PermissionsExt,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

#[cfg(feature = "mock")]
#[path = "cli/grant.rs"]
mod grant;
#[cfg(feature = "mock")]
#[path = "secret/mod.rs"]
mod secret;

/// `signoff`, with nothing in its environment.
fn signoff(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signoff"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    signoff(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn wrong_usage_exits_64_and_says_why_on_stderr() {
    for (args, said) in [
        (&[][..], "Usage: signoff"),
        (&["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (&["queue"], "Usage: signoff queue"),
        (&["check", "--frobnicate"], "unexpected argument '--frobnicate'"),
        (&["check", "extra"], "unexpected argument 'extra'"),
        (&["check", "--hostname", ""], "hostname \"\" is not a hostname: it is empty"),
        (&["check", "--cluster-id", "0"], "use a whole number of at least 1"),
        (&["check", "--grace", "soon"], "for '--grace <DURATION>'"),
        (&["check", "--manager", "m"], "it has no port"),
        (
            &["check", "--ip", "0.0.0.0"],
            "ip \"0.0.0.0\" is not an address that a scheduler can be reached at",
        ),
        (&["status", "-o", "yaml"], "invalid value 'yaml'"),
        (&["queue", "show"], "<ID>"),
        (&["completions", "tcsh"], "invalid value 'tcsh'"),
        (&["install"], "<DEST>"),
        (
            &["install", "/nowhere/to/be/had/signoff"],
            "/nowhere/to/be/had/signoff can't be written: No such file",
        ),
        (&["install", "/proc"], "/proc/signoff can't be written: "),
    ] {
        let got = run(args);
        let stderr = text(&got.stderr);
        assert_eq!(got.status.code(), Some(64), "{args:?}: {stderr}");
        assert!(stderr.contains(said), "{args:?}: {stderr}");
        assert!(got.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_wrong_variable_exits_64_and_is_named() {
    let got = signoff(&["check"]).env("SIGNOFF_CLUSTER_ID", "0").output().unwrap();
    assert_eq!(got.status.code(), Some(64));
    let stderr = text(&got.stderr);
    assert!(stderr.starts_with("error: invalid value '0' for 'SIGNOFF_CLUSTER_ID'"), "{stderr}");
}

#[test]
fn help_and_version_exit_0_on_stdout() {
    for args in
        [&["--help"][..], &["-h"], &["agent", "--help"], &["queue", "--help"], &["queue", "drop", "-h"]]
    {
        let got = run(args);
        assert_eq!(got.status.code(), Some(0), "{args:?}");
        assert!(text(&got.stdout).contains("Usage: signoff"), "{args:?}");
        assert!(got.stderr.is_empty());
    }
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(text(&version.stdout), format!("signoff {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_name_every_command_in_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let got = run(&["completions", shell]);
        assert_eq!(got.status.code(), Some(0), "{shell}");
        let script = text(&got.stdout);
        for word in ["agent", "pre-stop", "queue", "flush", "check", "scheduler-addr"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        for hidden in ["janitor", "abotage"] {
            assert!(!script.contains(hidden), "{shell}: {hidden}");
        }
        assert!(!cfg!(feature = "mock") || script.contains("keep"), "{shell}");
        assert!(!script.contains("--break") && !script.contains("-l break"), "{shell}");
    }
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    for args in [&["completions", "bash"][..], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let got = signoff(args).stdout(writer).output().unwrap();
        assert_eq!((got.status.code(), text(&got.stderr).as_str()), (Some(0), ""), "{args:?}");
    }
}

/// Generous: no verdict depends on it but that of a process that hangs.
const LONG: Duration = Duration::from_secs(60);
/// Set where a test runs itself again as the process to look at.
const ITSELF: &str = "SIGNOFF_TEST_ITSELF";

fn itself(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ITSELF, "1").stdin(Stdio::null());
    command
}

fn exited(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + LONG;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("the process hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_panic_on_any_thread_is_logged_and_exits_70() {
    if std::env::var_os(ITSELF).is_some() {
        signoff::logging::init(signoff::logging::Format::Json, signoff::logging::Level::Info);
        signoff::cli::exit_on_panic();
        let _ = std::thread::spawn(|| panic!("by design")).join();
        return;
    }
    let got = itself("a_panic_on_any_thread_is_logged_and_exits_70").output().unwrap();
    let stderr = text(&got.stderr);
    assert_eq!(got.status.code(), Some(70), "{stderr}");
    assert!(
        stderr.contains("\"level\":\"ERROR\"") && stderr.contains("\"panic.message\":\"by design\""),
        "{stderr}"
    );
    assert!(stderr.contains("tests/cli.rs:"), "{stderr}");
}

#[test]
fn a_stderr_that_nobody_reads_holds_no_process_up() {
    if std::env::var_os(ITSELF).is_some() {
        signoff::logging::init(signoff::logging::Format::Json, signoff::logging::Level::Info);
        for _ in 0..10_000 {
            tracing::error!(target: "signoff", padding = %"x".repeat(100), "A line.");
        }
        signoff::logging::flush();
        std::process::exit(42);
    }
    let mut child = itself("a_stderr_that_nobody_reads_holds_no_process_up")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(exited(&mut child).code(), Some(42));
}

#[test]
fn a_closed_stderr_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let got = signoff(&["completions", "tcsh"]).stderr(writer).output().unwrap();
    assert_eq!(got.status.code(), Some(64));
}

#[test]
fn install_puts_a_copy_that_runs_in_one_step_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("signoff");
    // What an install that was killed left behind, and an older program.
    std::fs::write(dir.path().join(".signoff.partial"), "half").unwrap();
    std::fs::write(&path, "an older one").unwrap();
    let old = std::fs::File::open(&path).unwrap();
    for dest in [dir.path(), path.as_path()] {
        let got = run(&["install", dest.to_str().unwrap()]);
        assert_eq!((got.status.code(), text(&got.stderr)), (Some(0), String::new()));
        assert_eq!(text(&got.stdout), format!("Installed {}.\n", path.display()));
    }
    let version = Command::new(&path).arg("--version").output().unwrap();
    assert_eq!(text(&version.stdout), format!("signoff {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["signoff"]);
    // Whoever had the older one open still reads that: it was replaced, not overwritten.
    assert_eq!(std::io::read_to_string(old).unwrap(), "an older one");
    // A copy replaces itself though it runs.
    let again = Command::new(&path).args(["install", path.to_str().unwrap()]).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
}
