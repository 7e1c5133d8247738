//! What there is to do where no agent runs: a pre-stop that does the whole job, and `queue flush`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::oneshot;
use tracing::warn;

use super::{
    backlog::Backlog,
    clock::Clock,
    command::{Command, Commands},
    disk::{Disk, DiskError, PATIENCE},
    lifecycle::{Lifecycle, Verdict},
    metrics::Metrics,
    open_files,
    replay::{Origin, Replay},
    run::{by_key, core_config, take_own},
    say,
    shell::Shell,
    socket::{PreStopAnswer, Status},
};
use crate::{
    identity::Settings,
    key::SchedulerKey,
    manager::{Failure, Manager, client::Client},
    spool::Limits,
};

/// The manager of these settings.
pub fn client(settings: &Settings) -> Result<Arc<dyn Manager>, Failure> {
    Client::new(settings.manager())
        .map(|client| Arc::new(client) as Arc<dyn Manager>)
        .map_err(|why| Failure::new(why.to_string()))
}

/// A pre-stop without an agent: asks, attempts and waits, at most for `wait`, or for the grace. The ask stays in the spool
/// unless it was settled.
pub async fn pre_stop(
    settings: &Settings,
    key: SchedulerKey,
    wait: Option<Duration>,
) -> Result<PreStopAnswer, Failure> {
    let manager = client(settings)?;
    let (disk, _reports) = Disk::start(&settings.spool, Limits::default());
    let clock = Clock::start();
    let (commands, inbox) = Commands::new(clock);
    let mut core = Lifecycle::new(core_config(settings, key.clone(), manager.freshness()), clock.now().at);
    if let Err(error) = take_own(&disk, &key, &commands).await {
        warn!(reason = %error, "The spool could not be read.");
    }
    let (answer, answered) = oneshot::channel();
    let _ = commands.send(Command::PreStop { wait, answer });
    let status = Box::new(Status::default);
    let mut shell = Shell::new(manager, disk.clone(), Metrics::new(), clock, commands, status);
    let answer = tokio::select! {
        answer = answered => answer.map_err(|_| Failure::new("the hook was not answered"))?,
        exit = shell.run(&mut core, Vec::new(), inbox) => {
            return Err(Failure::new(format!("ended with exit code {} before the hook was answered", exit.code())));
        }
    };
    disk.flush().await;
    Ok(answer)
}

/// How a flush goes.
pub trait Progress: Send + Sync {
    /// So many keys have asks.
    fn found(&self, keys: usize);
    /// This one is not settled yet, and why.
    fn waits(&self, key: &SchedulerKey, why: &str);
    /// This one is, or is out of time.
    fn settled(&self, key: &SchedulerKey, verdict: Verdict);
}

/// Settles all of a spool that no living agent answers for. `wait` bounds it. Answers how many keys were settled and how many
/// are left: those whose ask could not be removed among them, though signed off, and those that could not be read.
pub async fn flush(
    settings: &Settings,
    wait: Option<Duration>,
    progress: &dyn Progress,
) -> Result<(usize, usize), FlushError> {
    let manager = client(settings)?;
    open_files::allow_all();
    // Keeps a connection warm for all of them.
    let _contact = manager.watch();
    let (disk, _reports) = Disk::start(&settings.spool, Limits::default());
    let clock = Clock::start();
    let until = wait.map(|wait| clock.now().at + wait);
    let metrics = Metrics::new();
    let backlog = Backlog::new(metrics.clone());
    let replay = Replay::new(manager, disk.clone(), metrics, backlog, clock);
    let (mut settled, mut left) = (0, 0);
    loop {
        let Some(taken) = disk.adopt_all().await? else { return Err(FlushError::Held) };
        say::problems(&taken.problems);
        left += taken.unreadable;
        let keys = by_key(taken.records);
        let found = keys.len();
        progress.found(found);
        let mut running: FuturesUnordered<_> = keys
            .into_iter()
            .map(|(key, asks)| {
                let replay = &replay;
                async move {
                    let waits = |why: &str| progress.waits(&key, why);
                    let verdict = replay.settle(key.clone(), asks, Origin::Spool, until, &waits).await;
                    (key.clone(), verdict)
                }
            })
            .collect();
        while let Some((key, verdict)) = running.next().await {
            progress.settled(&key, verdict);
            *(if verdict == Verdict::Queued { &mut left } else { &mut settled }) += 1;
        }
        if !taken.more || found == 0 {
            let kept = kept(&disk, until.map(|until| until - clock.now().at))
                .await
                .map_or(settled, |keys| keys.len());
            return Ok((settled.saturating_sub(kept), left + kept));
        }
    }
}

/// The keys whose settled asks the disk did not let go of. Fails where it doesn't say that in time.
async fn kept(disk: &Disk, limit: Option<Duration>) -> Result<BTreeSet<SchedulerKey>, DiskError> {
    let Some(limit) = limit else { return disk.asking().await };
    let slow = |_| DiskError::Slow { dir: disk.dir().to_owned(), waited: limit };
    // Out of time, a disk that is well still answers.
    tokio::time::timeout(limit.max(PATIENCE), disk.asking()).await.map_err(slow)?
}

/// Why a spool can't be flushed.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The manager's client can't be built.
    #[error(transparent)]
    Manager(#[from] Failure),
    /// The spool can't be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A living agent replays this spool.
    #[error("an agent on this spool settles it already: see signoff status")]
    Held,
}
