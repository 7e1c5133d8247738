//! What there is to do where no agent runs: a pre-stop that does the whole job, and `queue flush`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::oneshot;
use tracing::warn;

use super::{
    backlog::Backlog,
    clock::Clock,
    command::{Command, Commands},
    disk::{Disk, DiskError, PATIENCE, WHOLE_SPOOL},
    lifecycle::{Lifecycle, Verdict},
    metrics::Metrics,
    moment::Moment,
    open_files,
    replay::{Origin, Replay},
    run::{Left, by_key, core_config, holder, take_own},
    say,
    shell::Shell,
    socket::{PreStopAnswer, Status},
    strangers,
};
use crate::{
    identity::Settings,
    key::SchedulerKey,
    manager::{Failure, Manager, client::Client},
    net::Prober,
    spool::{Limits, Unheld, record::Record},
};

/// How soon a manager that could not be asked is asked again.
const AGAIN: Duration = Duration::from_secs(5);

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
    disk.hold_for(holder(settings));
    let clock = Clock::start();
    let (commands, mut inbox) = Commands::new(clock);
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
        _ = shell.run(&mut core, Vec::new(), &mut inbox) => {
            return Err(Failure::new("ended before the hook was answered"));
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
    /// These were not tried, and why.
    fn left(&self, asks: &[Record], why: &str);
}

/// Settles all of a spool that is for this manager and that no living process holds, and what this manager shows of what doesn't
/// say whom it is for. `wait` bounds it. Answers how many keys were settled and how many are left: those whose ask could not be
/// removed among them, though signed off, those that could not be read, and those for another manager.
pub async fn flush(
    settings: &Settings,
    wait: Option<Duration>,
    progress: &dyn Progress,
) -> Result<(usize, usize), FlushError> {
    let manager = client(settings)?;
    open_files::allow_all();
    // Keeps a connection warm for all of them.
    let _contact = manager.watch();
    let (disk, _reports) = Disk::start_in(&settings.spool, Limits::default());
    disk.hold_for(holder(settings));
    let clock = Clock::start();
    let until = wait.map(|wait| clock.now().at + wait);
    let metrics = Metrics::new();
    let backlog = Backlog::new(metrics.clone());
    let replay = Replay::new(manager, Arc::new(Prober::network()), disk.clone(), metrics, backlog, clock);
    let flush = Flush { replay, until, progress };
    let (mut settled, mut left) = (0, 0);
    loop {
        let Unheld { taken, held } = disk.take_unheld(flush.disk_limit()).await?;
        say::problems(&taken.problems);
        left += taken.unreadable;
        let keys = by_key(taken.records);
        let found = keys.len();
        let last = !taken.more || found == 0;
        if (settled, left, found, taken.strangers.len()) == (0, 0, 0, 0) && !held.is_empty() {
            return Err(FlushError::Held);
        }
        // One key is one job's at a time.
        let strangers = if last { taken.strangers } else { Vec::new() };
        let (same, others): (Vec<_>, Vec<_>) =
            strangers.into_iter().partition(|ask| keys.contains_key(&ask.key));
        let origin = |left: &Left| Origin::Spool { served: left.served };
        let (ours, others) = tokio::join!(flush.settle(keys, origin), flush.strangers(others));
        for (done, queued) in [ours, others?, flush.strangers(same).await?] {
            (settled, left) = (settled + done, left + queued);
        }
        if !last {
            continue;
        }
        left += flush.leave(held, "a living agent on this spool settles it");
        // Those whose settled asks the disk did not let go of: all, where it doesn't say that in time.
        let kept = disk.asking(flush.disk_limit()).await.map_or(settled, |keys| keys.len());
        return Ok((settled.saturating_sub(kept), left + kept));
    }
}

/// One flush.
struct Flush<'a> {
    replay: Replay,
    until: Option<Moment>,
    progress: &'a dyn Progress,
}

impl Flush<'_> {
    /// For how long the disk is waited for: out of time, one that is well still answers.
    fn disk_limit(&self) -> Duration {
        let left = |until: Moment| (until - self.replay.clock.now().at).clamp(PATIENCE, WHOLE_SPOOL);
        self.until.map_or(WHOLE_SPOOL, left)
    }

    /// Answers how many keys were settled, and how many were not.
    async fn settle(
        &self,
        keys: BTreeMap<SchedulerKey, Left>,
        origin: impl Fn(&Left) -> Origin,
    ) -> (usize, usize) {
        self.progress.found(keys.len());
        let mut running: FuturesUnordered<_> = keys
            .into_iter()
            .map(|(key, left)| {
                let origin = origin(&left);
                async move {
                    let waits = |why: &str| self.progress.waits(&key, why);
                    let verdict =
                        self.replay.settle(key.clone(), left.asks, origin, self.until, &waits).await;
                    (key.clone(), verdict)
                }
            })
            .collect();
        let (mut settled, mut queued) = (0, 0);
        while let Some((key, verdict)) = running.next().await {
            self.progress.settled(&key, verdict);
            *(if verdict == Verdict::Queued { &mut queued } else { &mut settled }) += 1;
        }
        (settled, queued)
    }

    /// Those of which this manager shows the row are attempted, the others left. Answers as [`Flush::settle`].
    async fn strangers(&self, asks: Vec<Record>) -> Result<(usize, usize), FlushError> {
        if asks.is_empty() {
            return Ok((0, 0));
        }
        let with_address = asks.iter().filter(|ask| ask.address.is_some()).cloned().collect::<Vec<_>>();
        let shown = loop {
            match strangers::shown(self.replay.manager.as_ref(), &with_address).await {
                Ok(shown) => break shown,
                Err(failure) => {
                    asks.iter().for_each(|ask| self.progress.waits(&ask.key, &failure.why));
                    let again = self.replay.clock.now().at + AGAIN;
                    if self.until.is_some_and(|until| again >= until) {
                        return Ok((0, self.leave(asks, &failure.why)));
                    }
                    self.replay.clock.sleep_until(again).await;
                }
            }
        };
        let (shown, hidden): (Vec<_>, Vec<_>) = asks.into_iter().partition(|ask| shown.contains(&ask.id));
        let (unsaid, anothers): (Vec<_>, Vec<_>) =
            hidden.into_iter().partition(|ask| ask.managers.is_empty());
        let for_whom: BTreeSet<String> = anothers.iter().map(|ask| ask.managers.to_string()).collect();
        let mut left = 0;
        for managers in for_whom {
            let its = anothers.iter().filter(|ask| ask.managers.to_string() == managers).cloned().collect();
            left += self.leave(its, &format!("it is for another manager, {managers}"));
        }
        left +=
            self.leave(unsaid, "it doesn't say which manager it is for, and this one doesn't show its row");
        let ids = shown.iter().map(|ask| ask.id.clone()).collect();
        let taken = self.replay.disk.take_these(ids, self.disk_limit()).await?;
        say::problems(&taken.problems);
        let is_taken = |ask: &Record| taken.records.iter().any(|(_, record)| record.id == ask.id);
        let others = shown.into_iter().filter(|ask| !is_taken(ask)).collect();
        left += self.leave(others, "it could not be read, or somebody else has taken it");
        let origin = |_: &Left| Origin::Stranger { patient: true };
        let (settled, queued) = self.settle(by_key(taken.records), origin).await;
        Ok((settled, left + queued))
    }

    /// Says that these are left, and why. Answers how many keys they are of.
    fn leave(&self, asks: Vec<Record>, why: &str) -> usize {
        if !asks.is_empty() {
            self.progress.left(&asks, why);
        }
        asks.into_iter().map(|ask| ask.key).collect::<BTreeSet<_>>().len()
    }
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
    /// Living agents hold all that there is for this manager.
    #[error("an agent on this spool settles it already: see signoff status")]
    Held,
}
