//! The process under test: what it prints goes to a file, and one of its threads may be traced.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    judge::End,
    point::{Case, Fault, MAIN, Met, Place, Since, met},
};
use crate::{
    clock::FastClock,
    harness::{eventually, signoff},
    strace::Strace,
};

/// What strace is to do, at one thread, and where it writes.
#[derive(Debug)]
pub(super) struct Tracing<'a> {
    pub(super) place: Place,
    pub(super) case: Option<&'a Case>,
    pub(super) arguments: Vec<String>,
    pub(super) log: &'a Path,
}

impl Tracing<'_> {
    /// The fault was met where it can't be: what comes of that (a wake-up that is lost, say) proves nothing.
    pub(super) fn strayed(&self) -> bool {
        self.failed(Met::Elsewhere)
    }

    /// A call was made to fail, as it may.
    pub(super) fn has_refused(&self) -> bool {
        self.failed(Met::Yes)
    }

    fn failed(&self, how: Met) -> bool {
        let Some(case) = self.case.filter(|case| case.fault != Fault::Kill) else { return false };
        std::fs::read_to_string(self.log).is_ok_and(|record| met(case, false, &record) == how)
    }
}

pub(super) struct Subject {
    child: Child,
    output: PathBuf,
}

impl Subject {
    /// Starts signoff with this environment, traced from the start or to be held for that, if that is wanted.
    pub(super) fn start(
        arguments: &[&str],
        environment: &[(&str, String)],
        output: PathBuf,
        clock: Option<&FastClock>,
        tracing: Option<&Tracing<'_>>,
    ) -> Self {
        let program = signoff();
        let mut environment = environment.to_vec();
        environment.extend(clock.map(FastClock::environment).into_iter().flatten());
        let mut command = Command::new(program.get_program());
        match tracing {
            Some(Tracing { place, arguments, log, .. }) if place.since == Since::Start => {
                // What is started becomes the program; strace is its grandchild. The environment is not strace's own.
                command = Command::new("strace");
                command.args(["-D", "-o"]).arg(log).args(arguments);
                command.args(environment.iter().map(|(name, value)| format!("--env={name}={value}")));
                command.arg(program.get_program()).env_clear();
            }
            tracing => {
                command.env_clear().envs(environment);
                if let Some(Tracing { place, .. }) = tracing
                    && place.since == Since::Birth
                {
                    command.env("FAST_CLOCK_HOLD", place.thread);
                }
            }
        }
        let file = std::fs::File::create(&output).unwrap();
        command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), output }
    }

    /// All it has printed.
    pub(super) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap()).into_owned()
    }

    /// Waits until it has printed all of these.
    pub(super) async fn says(&self, texts: &[&str]) {
        eventually(&format!("{texts:?} in {}", self.output.display()), async || {
            let output = self.output();
            texts.iter().all(|text| output.contains(text)).then_some(())
        })
        .await;
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended by itself; until it is waited for the number is its own.
        let _ = kill_process(self.pid(), signal);
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<End> {
        let status = self.child.try_wait().unwrap()?;
        Some(match (status.code(), status.signal()) {
            (Some(code), _) => End::Code(code),
            (None, Some(9)) => End::Killed,
            (None, signal) => panic!("ended by signal {signal:?}: {}", self.output()),
        })
    }

    pub(super) async fn end(&mut self) -> End {
        let what = format!("the end of {}: {}", self.child.id(), self.output.display());
        eventually(&what, async || self.ended()).await
    }

    /// Until it ended, met its fault where that proves nothing, or `is_done`: then it is stopped.
    pub(super) async fn runs_until(&mut self, tracing: &Tracing<'_>, is_done: impl Fn(&Self) -> bool) -> End {
        let what = format!("the end of {} with {tracing:?}", self.output.display());
        let end = eventually(&what, async || {
            let ended = self.ended();
            let done = tracing.strayed() || is_done(self);
            ended.or(done.then_some(End::Stopped))
        })
        .await;
        if end == End::Stopped {
            self.stop().await;
        }
        end
    }

    /// SIGKILL, by us.
    pub(super) async fn stop(&mut self) {
        self.signal(Signal::KILL);
        self.end().await;
    }

    /// Attaches to a thread of a process at rest.
    pub(super) async fn attach(&self, tracing: &Tracing<'_>) -> Strace {
        let thread = if tracing.place.thread == MAIN {
            self.child.id()
        } else {
            eventually("the thread", async || self.thread(tracing.place.thread)).await
        };
        let arguments: Vec<&str> = tracing.arguments.iter().map(String::as_str).collect();
        Strace::record(thread, tracing.log, &arguments).await
    }

    /// Waits until the process holds itself for that, attaches to the thread that was just born, and lets it go on.
    pub(super) async fn attach_when_held(&self, tracing: &Tracing<'_>) -> Option<Strace> {
        let what = format!("the birth of {} in {}", tracing.place.thread, self.output.display());
        let held = eventually(&what, async || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
            match stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]) {
                Some(b'T') => Some(true),
                None | Some(b'Z' | b'X') => Some(false),
                _ => None,
            }
        });
        if !held.await {
            return None;
        }
        let strace = self.attach(tracing).await;
        self.signal(Signal::CONT);
        Some(strace)
    }

    fn thread(&self, name: &str) -> Option<u32> {
        let entries = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
        let named = |entry: std::fs::DirEntry| {
            let comm = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            (comm.trim() == name).then(|| entry.file_name().to_str()?.parse().ok())?
        };
        entries.filter_map(Result::ok).find_map(named)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
