//! Faults in a real process's system calls, by strace's injection.
//!
//! A fault goes to one thread of the agent: the one named `spool`, which alone touches the spool. (Filters by path would miss the
//! temporary files, whose names are random.) strace counts `when=N` for each thread and each system call by itself.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{LONG, Process, eventually};

/// Whether faults can be injected here. Where they can't, says so, and fails in CI.
pub(crate) fn can_inject() -> bool {
    let sleeper = || -> Option<()> {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().ok()?;
        let attached = Strace::try_attach(child.id(), &["-e", "trace=getpid"]);
        child.kill().ok()?;
        child.wait().ok()?;
        attached.ok().map(drop)
    };
    if sleeper().is_some() {
        return true;
    }
    skip("strace is missing, or may not attach to a process here (ptrace_scope, seccomp)");
    false
}

/// A visible skip; in CI a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "in CI this must run: {why}");
    eprintln!("skipped: {why}");
}

/// The agent's thread that writes the spool.
pub(crate) async fn spool_thread(agent: &Process) -> u32 {
    let tasks = format!("/proc/{}/task", agent.pid());
    eventually("the spool's thread", async || {
        let entries = std::fs::read_dir(&tasks).ok()?;
        let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let named = |id: &u32| {
            let comm = std::fs::read_to_string(format!("{tasks}/{id}/comm"));
            comm.is_ok_and(|name| name.trim() == "spool")
        };
        ids.into_iter().find(named)
    })
    .await
}

/// A strace at work. Dropped, it lets go of what it traces, and all is well again.
pub(crate) struct Strace {
    child: Child,
}

impl Strace {
    /// Attaches to one thread.
    pub(crate) fn attach(thread: u32, arguments: &[&str]) -> Self {
        Self::try_attach(thread, arguments).unwrap()
    }

    /// Injects `fault` into the agent's spool thread, as `SYSCALLS:WHAT`.
    pub(crate) async fn inject(agent: &Process, fault: &str) -> Self {
        let syscalls = fault.split(':').next().unwrap();
        let thread = spool_thread(agent).await;
        Self::attach(thread, &["-e", &format!("trace={syscalls}"), "-e", &format!("inject={fault}")])
    }

    /// Attaches to one thread, unless it ends first; what it does is written to `log`.
    pub(crate) async fn record(thread: u32, log: &Path, arguments: &[&str]) -> Self {
        let child = Command::new("strace")
            .args(arguments)
            .args(["-p", &thread.to_string(), "-o"])
            .arg(log)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // With a log it does not say that it has attached.
        let status = format!("/proc/{thread}/status");
        let tracer = format!("TracerPid:\t{}\n", child.id());
        let mut strace = Self { child };
        eventually("the tracer", async || {
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            let ended = status.is_empty() || status.contains("State:\tZ") || status.contains("State:\tX");
            (ended || status.contains(&tracer) || strace.child.try_wait().unwrap().is_some()).then_some(())
        })
        .await;
        strace
    }

    fn try_attach(thread: u32, arguments: &[&str]) -> Result<Self, String> {
        let mut command = Command::new("strace");
        command.args(arguments).args(["-p", &thread.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut strace = Self { child: child.map_err(|error| format!("strace: {error}"))? };
        let stderr = strace.child.stderr.take().ok_or("no stderr")?;
        let (said, hears) = mpsc::channel();
        // Read to its end, so that strace never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Only the first lines are listened to.
                let _ = said.send(line);
            }
        });
        let mut heard = String::new();
        while let Ok(line) = hears.recv_timeout(LONG) {
            if line.contains("attached") {
                return Ok(strace);
            }
            heard.push_str(&line);
        }
        Err(heard)
    }

    /// Waits until what it traces has ended.
    pub(crate) async fn ended(mut self) {
        eventually("the end of what is traced", async || self.child.try_wait().unwrap()).await;
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // By this signal it detaches first. It may have ended by itself this moment.
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// `command` under strace from its first instruction, its threads and children included. The process that is started is the
/// command itself: strace is its grandchild.
pub(crate) fn traced(command: &Command, log: &Path, arguments: &[&str]) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-D", "-f", "-o"]).arg(log).args(arguments);
    traced.arg(command.get_program()).args(command.get_args());
    traced.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced
}
