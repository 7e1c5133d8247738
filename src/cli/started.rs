//! `signoff status --started`, for a startup probe: exits 0 once the agent has started.
//!
//! An agent that answers on its socket has. One may run and be out of reach there: its run directory can't be made or
//! written, it was given another one than the probe, or a disk hangs. The agent says so elsewhere; a probe that failed would
//! keep the scheduler from starting. So a process of the agent that has run for [`PATIENCE`] has started too: PID 1, which is
//! the container's own, or any whose run directory is the one asked for.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use super::{args::Command, called, settings};
use crate::{
    agent::socket::{AskError, Request, Response, ask},
    exit::Exit,
    identity::settings::DEFAULT_RUN_DIR,
};

/// How long the socket may take to answer: less than a probe's usual time-out, 5 s, so that there is time for the rest.
const LIMIT: Duration = Duration::from_secs(2);
/// How long an agent has for its socket, which takes it some milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// The unit of a process's start time in `/proc/PID/stat`: Linux tells user space 100 a second, whatever the kernel's own.
const TICKS_PER_SECOND: u64 = 100;

/// Asks, and looks.
pub async fn run(run_dir: &Path) -> Exit {
    let asked = ask(run_dir, &Request::Status, LIMIT).await;
    if let Ok(Response::Status(status)) = &asked
        && status.started
    {
        return Exit::Done;
    }
    let run_dir = run_dir.to_owned();
    let runs = tokio::task::spawn_blocking(move || agent_runs(Path::new("/proc"), &run_dir, since_boot()));
    match (runs.await.unwrap_or(false), asked) {
        (true, _) => Exit::Done,
        // A probe comes before there is an agent: no news.
        (false, Ok(_) | Err(AskError::NoAgent(_))) => Exit::Unavailable,
        (false, Err(error)) => settings::unavailable(&error),
    }
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0))
}

/// Whether an agent that counts has run for long enough. `proc` is proc(5)'s directory, `now` the time since boot.
fn agent_runs(proc: &Path, run_dir: &Path, now: Duration) -> bool {
    let Ok(entries) = std::fs::read_dir(proc) else { return false };
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut pids = names.filter_map(|name| name.to_str()?.parse::<u32>().ok());
    pids.any(|pid| {
        let dir = proc.join(pid.to_string());
        let Some(theirs) = agents_run_dir(&dir) else { return false };
        let counts = pid == 1 || theirs == run_dir;
        counts && started_at(&dir).is_some_and(|at| now.saturating_sub(at) >= PATIENCE)
    })
}

/// The run directory of a process, if that is an agent's. Its environment may be another user's secret: then as if empty.
fn agents_run_dir(dir: &Path) -> Option<PathBuf> {
    let words = zero_ended(&std::fs::read(dir.join("cmdline")).ok()?);
    let variables = zero_ended(&std::fs::read(dir.join("environ")).unwrap_or_default());
    let env = |name: &str| {
        let value = |variable: &OsString| {
            let value = variable.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(OsStr::from_bytes(value).to_owned())
        };
        variables.iter().find_map(value)
    };
    let program = Path::new(words.first()?).file_name()?;
    match called(words.clone(), &env).ok()?.command {
        Command::Agent(args) if program == "signoff" => {
            Some(args.run_dir.run_dir.clone().unwrap_or_else(|| DEFAULT_RUN_DIR.into()))
        }
        _ => None,
    }
}

fn zero_ended(bytes: &[u8]) -> Vec<OsString> {
    let ended = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    ended.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// When a process started, since boot: field 22 of `/proc/PID/stat`, counted from behind the program's name in parentheses.
fn started_at(dir: &Path) -> Option<Duration> {
    let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    Some(Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(proc: &Path, pid: u32, cmdline: &str, environ: &str, started: u64) {
        let dir = proc.join(pid.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("cmdline"), cmdline.replace(' ', "\0") + "\0").unwrap();
        std::fs::write(dir.join("environ"), environ.replace(' ', "\0") + "\0").unwrap();
        let stat = format!("{pid} (a) b) S {} {} 0 0", "0 ".repeat(18).trim(), started * TICKS_PER_SECOND);
        std::fs::write(dir.join("stat"), stat).unwrap();
    }

    #[test]
    fn g8_an_agent_that_runs_has_started_though_its_socket_can_not_be_had() {
        let now = Duration::from_secs(1000);
        for (pid, cmdline, environ, started, expected) in [
            (1, "signoff agent", "", 997, true),
            (1, "/usr/local/bin/signoff agent --run-dir /else", "", 1, true),
            (1, "signoff agent --no-such-flag", "SIGNOFF_GRACE=abc", 1, true),
            (7, "signoff agent --run-dir /mine", "", 1, true),
            (7, "signoff agent", "A=b SIGNOFF_RUN_DIR=/mine", 1, true),
            // Too young to be told from one whose socket is about to be there.
            (1, "signoff agent", "", 998, false),
            (7, "signoff agent --run-dir /mine", "", 999, false),
            // Somebody else's.
            (7, "signoff agent --run-dir /else", "", 1, false),
            (7, "signoff agent", "", 1, false),
            (1, "signoff status --started", "", 1, false),
            (1, "scheduler agent", "", 1, false),
            (1, "", "", 1, false),
        ] {
            let proc = tempfile::tempdir().unwrap();
            std::fs::create_dir(proc.path().join("self")).unwrap();
            process(proc.path(), pid, cmdline, environ, started);
            assert_eq!(
                agent_runs(proc.path(), Path::new("/mine"), now),
                expected,
                "{pid} {cmdline} {environ}"
            );
        }
        assert!(!agent_runs(Path::new("/no/such"), Path::new("/mine"), now));
    }

    #[test]
    fn a_process_of_this_machine_is_read() {
        let now = since_boot();
        let started = started_at(Path::new("/proc/self")).unwrap();
        assert!(started <= now + Duration::from_secs(1) && !now.is_zero(), "{started:?} {now:?}");
    }
}
