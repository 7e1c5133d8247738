//! The processes beside the demo's own. They end with it however it ends, a panic and a kill -9 included, and leave nothing
//! behind: each agent asks the kernel to be killed with the demo, and a janitor, which waits for the end of a pipe from it,
//! removes its directory.

use std::{
    io::{self, Read, Write},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::stage::Failure;
use crate::exit::Exit;

/// How long the janitor tries: an agent that is being killed may still write.
const CLEANING: Duration = Duration::from_secs(5);

/// What a process of the demo is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Becomes `signoff agent`.
    Agent,
    /// Becomes `signoff pre-stop`.
    PreStop,
    /// Becomes `signoff reconcile`.
    Reconcile,
    /// Makes the demo's directory, says which on stdout, and removes it at the end of stdin.
    Janitor,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::PreStop => "pre-stop",
            Self::Reconcile => "reconcile",
            Self::Janitor => "janitor",
        }
    }

    /// The process of this part, in a process group of its own: an interrupt from the terminal is the demo's alone.
    pub(super) fn command(self) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["demo", "--part", self.name(), "--of", &std::process::id().to_string()])
            .process_group(0)
            .kill_on_drop(self != Self::Janitor);
        Ok(command)
    }

    /// Plays the part, for the demo with the process id `of`.
    pub(super) fn play(self, of: Option<u32>) -> Exit {
        let error = match self {
            Self::Agent | Self::PreStop | Self::Reconcile => self.become_it(of),
            Self::Janitor => match clean_up_after() {
                Ok(()) => return Exit::Done,
                Err(error) => error,
            },
        };
        // Whoever would read it may be gone.
        let _ = writeln!(io::stderr(), "the demo's {}: {error}", self.name());
        Exit::Internal
    }

    fn become_it(self, of: Option<u32>) -> io::Error {
        if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
            return error.into();
        }
        // Asked too late: the demo was gone before.
        let parent = getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
        if parent != of {
            return io::Error::other("the demo is gone");
        }
        match std::env::current_exe() {
            Ok(program) => std::process::Command::new(program).arg(self.name()).exec(),
            Err(error) => error,
        }
    }
}

fn clean_up_after() -> io::Result<()> {
    let dir = std::env::temp_dir().join(format!("signoff-demo-{:016x}", fastrand::u64(..)));
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    // The demo may be gone already: then there is all the more to clean up.
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{}", dir.display()).and_then(|()| out.flush());
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let began = Instant::now();
    loop {
        match std::fs::remove_dir_all(&dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if began.elapsed() > CLEANING => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The demo's directory, and who removes it.
pub(super) struct Workshop {
    /// The directory.
    pub dir: PathBuf,
    janitor: Child,
}

impl Workshop {
    /// Makes the directory.
    pub(super) async fn open() -> Result<Self, Failure> {
        let mut janitor = Part::Janitor.command()?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = janitor.stdout.take().ok_or("the janitor has no stdout")?;
        let said = BufReader::new(stdout).lines().next_line().await?;
        let dir = said.ok_or("no directory for the demo can be made in the temporary directory")?;
        Ok(Self { dir: dir.into(), janitor })
    }

    /// Removes the directory.
    pub(super) async fn close(&mut self) {
        drop(self.janitor.stdin.take());
        // It has said on stderr what can't be removed.
        let _ = tokio::time::timeout(2 * CLEANING, self.janitor.wait()).await;
    }
}
