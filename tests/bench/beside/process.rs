//! The program's processes, and what the manager's table says of them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use signoff::{
    key::SchedulerKey,
    mock::{By, Database},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::{Child, Command},
    time::Instant,
};

use crate::Failed;

/// Between two looks at what has to come about before something is timed.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The n-th row of its kind: each turn has one of its own, so that no earlier one shows.
pub(crate) fn key(kind: &str, turn: usize) -> Result<SchedulerKey, Failed> {
    Ok(SchedulerKey::new(1.try_into()?, format!("{kind}-{turn}").parse()?, "127.0.0.1".parse()?))
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

/// SIGTERM, and the moment at which it was sent.
pub(crate) fn terminate(child: &Child) -> Result<Instant, Failed> {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).ok_or("it has ended")?;
    let at = Instant::now();
    kill_process(pid, Signal::TERM)?;
    Ok(at)
}

/// A mock scheduler, registered and serving.
pub(crate) async fn scheduler(
    mocks: &Path,
    key: &SchedulerKey,
    manager: SocketAddr,
) -> Result<(Child, SocketAddr), Failed> {
    let mut child = command(mocks)
        .args([
            "mock-scheduler",
            "--hostname",
            key.hostname.as_str(),
            "--ip",
            &key.ip.to_string(),
            "--port",
            "0",
        ])
        .args(["--manager", &manager.to_string(), "--keep-alive-interval", "100ms"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    let line = lines.next_line().await?.ok_or("the mock scheduler did not start")?;
    let addr = line.strip_prefix("scheduler ").ok_or("the mock scheduler says something else")?.parse()?;
    Ok((child, addr))
}

/// An agent's process, in a directory of its own that goes with it.
pub(crate) struct Agent {
    pub(crate) child: Child,
    dir: PathBuf,
}

impl Agent {
    pub(crate) fn start(
        program: &Path,
        dir: &Path,
        key: &SchedulerKey,
        scheduler: SocketAddr,
        manager: SocketAddr,
    ) -> Result<Self, Failed> {
        let dir = dir.join(key.hostname.as_str());
        let child = command(program)
            .args(["agent", "--hostname", key.hostname.as_str(), "--ip", &key.ip.to_string()])
            .args(["--scheduler-addr", &scheduler.to_string(), "--manager", &manager.to_string()])
            .args(["--listen", "127.0.0.1:0"])
            .args([Path::new("--spool"), &dir.join("spool"), Path::new("--run-dir"), &dir.join("run")])
            .spawn()?;
        Ok(Self { child, dir })
    }

    async fn status(&self) -> Result<Value, Failed> {
        let mut stream = UnixStream::connect(self.dir.join("run/agent.sock")).await?;
        stream.write_all(b"{\"version\":1,\"request\":\"status\"}\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(serde_json::from_str::<Value>(&answer)?["status"].take())
    }

    /// Waits until its status is so.
    pub(crate) async fn until(&mut self, is: impl Fn(&Value) -> bool) -> Result<(), Failed> {
        while !self.status().await.is_ok_and(|status| is(&status)) {
            if let Some(code) = self.child.try_wait()? {
                return Err(format!("the agent ended: {code}").into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // What is left of it does no harm.
        let _ = self.child.start_kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// When streams of a row ended, so many of them: waits for the last.
pub(crate) async fn ends(table: &Database, key: &SchedulerKey, count: usize) -> Vec<Instant> {
    loop {
        let history = table.history();
        let ends: Vec<Instant> = history
            .iter()
            .filter(|change| change.by == By::StreamEnd && change.host_name == key.hostname.as_str())
            .map(|change| change.at)
            .collect();
        if ends.len() >= count {
            return ends;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
