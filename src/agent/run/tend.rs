//! What an agent keeps an eye on: the disk, the manager, the scheduler, and the spool.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tracing::{info, warn};

use super::super::{
    backlog::Backlog,
    command::{Command, Commands},
    disk::{Disk, DiskError, SpoolState},
    lifecycle::{Event, Sight},
    replay::Replay,
    say,
    scheduler::{Observation, Target, Watcher},
    succession::task::Heirloom,
};
use super::Agent;
use crate::{
    identity::Settings,
    key::SchedulerKey,
    manager::Manager,
    net::{Peer, TlsFiles},
    spool::{
        Adopted, Taken,
        record::{Kind, Record},
    },
};

/// How often the spool is looked through for what dead processes left, as long as there is something to be found.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The same where there was nothing at all, and nobody else, and the kernel tells of what comes: for what it may not tell of.
const LOOK_ALONE_EVERY: Duration = Duration::from_secs(600);
/// The same where more wait than there is room for, and some of those that have it were settled.
const LOOK_FOR_MORE_EVERY: Duration = Duration::from_secs(2);

impl Agent {
    pub(super) fn watch_disk(
        &self,
        disk: &Disk,
        mut reports: mpsc::UnboundedReceiver<super::super::disk::Report>,
    ) {
        let (degraded, metrics) = (self.degraded.clone(), self.metrics.clone());
        let mut state = disk.state();
        tokio::spawn(async move {
            loop {
                let why = match &*state.borrow_and_update() {
                    SpoolState::Refused(why) => Some(why.to_string()),
                    SpoolState::Opening | SpoolState::Open => None,
                };
                degraded.set("spool", why);
                if state.changed().await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            while let Some(report) = reports.recv().await {
                if let Err(error) = report.result {
                    metrics.spool_error();
                    warn!(spool.operation = report.operation, reason = %error, "The disk refused a write to the spool.");
                }
            }
        });
    }

    pub(super) fn watch_manager(&self, manager: &dyn Manager) {
        let mut contact = manager.watch();
        let (commands, ready) = (self.commands.clone(), self.ready.clone());
        tokio::spawn(async move {
            let (mut losses, mut gains) = (0, 0);
            loop {
                let now = contact.borrow_and_update().clone();
                if now.answered {
                    ready.set(true);
                }
                if now.losses > losses {
                    losses = now.losses;
                    // The shell is gone only when the process ends.
                    let _ = commands.send(Command::Event(Event::ManagerLost));
                }
                if now.gains > gains {
                    gains = now.gains;
                    let _ = commands.send(Command::Event(Event::ManagerBack));
                }
                if contact.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    pub(super) fn watch_scheduler(&self, watcher: Option<Watcher>) {
        let (Some(addr), Some(mut watcher)) = (self.settings.scheduler_addr.clone(), watcher) else {
            return;
        };
        let commands = self.commands.clone();
        tokio::spawn(async move {
            loop {
                let sight = match watcher.next().await {
                    Observation::Serving(at) => Sight::Serving(at),
                    Observation::Refused(at) => Sight::Refused(at),
                    Observation::Unclear(why) => {
                        info!(scheduler.address = %addr, reason = why, "Can't tell whether the scheduler serves.");
                        Sight::Unclear
                    }
                };
                if commands.send(Command::Event(Event::Scheduler(sight))).is_err() {
                    return;
                }
            }
        });
    }

    /// Takes over what dead processes leave on the spool, for as long as the agent lives: the own key's goes to the core (a
    /// pre-stop that found no agent leaves such), the others' are replayed, and `heirlooms` hears of that.
    pub(super) fn tend_spool(
        &self,
        disk: &Disk,
        manager: &Arc<dyn Manager>,
        key: &SchedulerKey,
        backlog: &Backlog,
        heirlooms: mpsc::UnboundedSender<Heirloom>,
    ) {
        let replay =
            Replay::new(Arc::clone(manager), disk.clone(), self.metrics.clone(), backlog.clone(), self.clock);
        let (disk, key, metrics) = (disk.clone(), key.clone(), self.metrics.clone());
        let commands = self.commands.clone();
        tokio::spawn(async move {
            let mut state = disk.state();
            let mut replays = JoinSet::new();
            let crowded = watch::Sender::new(false);
            let mut failed = false;
            loop {
                let (adopted, told) = match disk.adopt(key.clone()).await {
                    Ok((adopted, told)) => (Ok(adopted), told),
                    Err(error) => (Err(error), false),
                };
                let looked = Instant::now();
                if adopted.is_ok() {
                    // Opened for this look, perhaps.
                    state.mark_unchanged();
                }
                let alone = told && adopted.as_ref().is_ok_and(Adopted::is_nothing);
                let every = if alone { LOOK_ALONE_EVERY } else { LOOK_EVERY };
                // What was taken is held from now on, whatever became of the other.
                let others = match adopted {
                    Ok(adopted) => {
                        tell_own(adopted.own, &commands);
                        adopted.others.map_err(DiskError::from)
                    }
                    Err(error) => Err(error),
                };
                if let Err(error) = &others
                    && !failed
                {
                    warn!(reason = %error, "The spool could not be looked through; it is tried again.");
                }
                failed = others.is_err();
                let taken = others.ok().flatten().unwrap_or_default();
                say::problems(&taken.problems);
                let some = !taken.records.is_empty();
                for (key, asks) in by_key(taken.records) {
                    info!(scheduler.key = %key, signoff.pending = asks.len(), "Found sign-offs of another scheduler in the spool.");
                    metrics.inherited(asks.len() as u64);
                    let (replay, heirlooms, others_wait) =
                        (replay.clone(), heirlooms.clone(), crowded.subscribe());
                    // Nobody listens where succession is off.
                    let _ = heirlooms.send(Heirloom::Taken(key.clone()));
                    replays.spawn(async move {
                        let verdict = replay.settle_in_turn(key.clone(), asks, others_wait).await;
                        let _ = heirlooms.send(Heirloom::Settled(key, verdict));
                    });
                }
                if taken.more && some {
                    continue;
                }
                crowded.send_replace(taken.more);
                let jitter = 0.9 + 0.1 * fastrand::f64();
                let pause = tokio::time::sleep_until(looked + every.mul_f64(jitter));
                tokio::pin!(pause);
                let mut came = false;
                loop {
                    tokio::select! {
                        biased;
                        () = &mut pause => break,
                        // Whoever wrote it may leave it. It is at it now: nobody is to wait for the disk.
                        () = disk.something_came(), if alone && !came => {
                            came = true;
                            let soon = pause.deadline().min(Instant::now() + LOOK_EVERY.mul_f64(jitter));
                            pause.as_mut().reset(soon);
                        }
                        // It was opened, at last.
                        Ok(()) = state.changed() => {
                            if *state.borrow_and_update() == SpoolState::Open {
                                break;
                            }
                        }
                        Some(_) = replays.join_next(), if !replays.is_empty() => {
                            // There is room for some of those that were left.
                            if taken.more {
                                let soon = pause.deadline().min(looked + LOOK_FOR_MORE_EVERY);
                                pause.as_mut().reset(soon);
                            }
                        }
                    }
                }
            }
        });
    }
}

/// Starts to watch the scheduler of these settings.
pub(super) fn start_to_watch(settings: &Settings) -> Option<Watcher> {
    let addr = settings.scheduler_addr.as_ref()?;
    let files = settings.scheduler_tls.clone().map(|tls| TlsFiles {
        ca: tls.ca_file,
        cert: tls.cert_file,
        key: tls.key_file,
    });
    Some(Watcher::start(Target::new(Peer::new(addr.host(), addr.port()), files)))
}

/// Takes what dead processes left for this key and tells the core of it: now, or once a slow disk has it.
pub async fn take_own(disk: &Disk, key: &SchedulerKey, commands: &Commands) -> Result<(), DiskError> {
    let late = {
        let commands = commands.clone();
        // What fails late is tried again, and said then.
        move |taken: Result<Taken, _>| drop(taken.map(|taken| tell_own(taken, &commands)))
    };
    disk.take_own(key.clone(), late).await.map(|taken| tell_own(taken, commands))
}

fn tell_own(taken: Taken, commands: &Commands) {
    say::problems(&taken.problems);
    // Nothing is news, too: no agent before this one left an attempt. One whose record can't be read, or is another's at the
    // moment, may have.
    let all = taken.problems.is_empty() && taken.busy == 0;
    if all || !taken.records.is_empty() {
        // The shell is gone only when the process ends.
        let _ = commands.send(Command::Event(Event::Found { left: taken.records, all }));
    }
}

/// Other keys' asks, by key; their marks stay held, and go with the asks.
pub fn by_key(records: Vec<(Kind, Record)>) -> BTreeMap<SchedulerKey, Vec<Record>> {
    let mut keys: BTreeMap<SchedulerKey, Vec<Record>> = BTreeMap::new();
    for (kind, record) in records {
        if kind == Kind::Ask {
            keys.entry(record.key.clone()).or_default().push(record);
        }
    }
    keys
}

#[cfg(test)]
mod tests;
