//! What an agent keeps an eye on: the disk, the manager, the scheduler, and the spool.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

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
    replay::Origin,
    say,
    scheduler::{Observation, Target, Watcher},
    strangers::{self, Strangers},
    succession::task::Heirloom,
};
use super::{Agent, StartToWatch};
use crate::{
    files::Troubles,
    identity::{DEFAULT_SCHEDULER_PORT, HostPort, Settings},
    key::SchedulerKey,
    manager::Manager,
    net::{Peer, TlsFiles},
    spool::{
        Adopted, Taken,
        record::{Cause, Kind, Record, RecordId, What},
    },
};

/// How often the scheduler's configuration is asked for its address while it doesn't serve.
const ADDRESS_EVERY: Duration = Duration::from_secs(5);
/// A disk that has been silent for so long hangs: one that is only slow is counted, and no news.
const HANGS_AFTER: Duration = Duration::from_secs(5);
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
        let (mut state, mut silence) = (disk.state(), disk.silence());
        let dir = disk.dir().display().to_string();
        tokio::spawn(async move {
            loop {
                let refused = match &*state.borrow_and_update() {
                    SpoolState::Refused(why) => Some(why.to_string()),
                    SpoolState::Opening | SpoolState::Open => None,
                };
                let hangs_at = silence.borrow_and_update().since().map(|since| since + HANGS_AFTER);
                let hangs = hangs_at.is_some_and(|at| at <= Instant::now());
                let why = refused.or_else(|| {
                    hangs.then(|| {
                        format!(
                            "the disk of the spool {dir} does not answer: while it doesn't, a sign-off that the manager doesn't \
                             acknowledge is lost with this process; see that volume, its server, its node"
                        )
                    })
                });
                degraded.set("spool", why);
                let changed = tokio::select! {
                    changed = state.changed() => changed,
                    changed = silence.changed() => changed,
                    () = tokio::time::sleep_until(hangs_at.unwrap_or_else(Instant::now)), if hangs_at.is_some() && !hangs => Ok(()),
                };
                if changed.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            let said = say::Said::default();
            while let Some(report) = reports.recv().await {
                if let Err(error) = report.result {
                    metrics.spool_error();
                    say::disk_refused(report.operation, &error, &said);
                }
            }
        });
    }

    pub(super) fn watch_manager(&self, tasks: &mut JoinSet<()>, manager: &dyn Manager) {
        let mut contact = manager.watch();
        let (commands, ready) = (self.commands.clone(), self.ready.clone());
        tasks.spawn(async move {
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

    /// Watches the scheduler where it served, and, while it doesn't, where its configuration names by now too, and tells the core what
    /// is seen of it. Answers why it wasn't seen serving at the last look, in words; `None` where it was, or was not looked at yet.
    pub(super) fn watch_scheduler(
        &self,
        tasks: &mut JoinSet<()>,
        look: &StartToWatch,
    ) -> watch::Receiver<Option<String>> {
        let (tell, why) = watch::channel(None);
        let Some(addr) = self.settings.scheduler_addr.clone() else { return why };
        let (settings, look, resolve) = (self.settings.clone(), Arc::clone(look), Arc::clone(&self.resolve));
        let commands = self.commands.clone();
        tasks.spawn(async move {
            let said = say::Said::default();
            let mut named: Option<HostPort> = None;
            let mut watcher = look(&settings, None);
            let mut serves = false;
            loop {
                let observation = tokio::select! {
                    observation = watcher.next() => observation,
                    () = tokio::time::sleep(ADDRESS_EVERY), if !serves => {
                        let found = resolve().await.ok().and_then(|resolved| resolved.settings.scheduler_addr);
                        let other = found.filter(|found| *found != addr);
                        if other.is_some() && other != named {
                            named = other;
                            watcher = look(&settings, named.as_ref());
                        }
                        continue;
                    }
                };
                serves = matches!(observation, Observation::Serving(_) | Observation::Reconnected(_));
                let (sight, why) = match observation {
                    Observation::Serving(at) => (Sight::Serving(at), None),
                    Observation::Reconnected(_) => (Sight::Reconnected, None),
                    Observation::Refused(at) => {
                        let addresses: Vec<String> = at.iter().map(ToString::to_string).collect();
                        (Sight::Refused(at), Some(format!("{}: connection refused", addresses.join(", "))))
                    }
                    Observation::Unclear(why) => {
                        say::cant_tell(&addr, &why, &said);
                        (Sight::Unclear, Some(why))
                    }
                };
                tell.send_replace(why);
                if commands.send(Command::Event(Event::Scheduler(sight))).is_err() {
                    return;
                }
            }
        });
        why
    }

    /// Takes over what dead processes leave on the spool, for as long as the agent lives: the own key's goes to the core (a
    /// pre-stop that found no agent leaves such), the others' are replayed, and `heirlooms` hears of that. What is not known to be
    /// for this manager is looked up there first.
    pub(super) fn tend_spool(
        &self,
        tasks: &mut JoinSet<()>,
        disk: &Disk,
        manager: &Arc<dyn Manager>,
        key: &SchedulerKey,
        backlog: &Backlog,
        heirlooms: mpsc::UnboundedSender<Heirloom>,
    ) {
        let replay = self.replay(disk, manager, backlog);
        let (disk, key, metrics, backlog) =
            (disk.clone(), key.clone(), self.metrics.clone(), backlog.clone());
        let (commands, named, own_ip) = (self.commands.clone(), self.named.clone(), key.ip);
        tasks.spawn(async move {
            let mut state = disk.state();
            let mut replays = JoinSet::new();
            let (mut strangers, mut trying) = (Strangers::default(), JoinSet::new());
            let crowded = watch::Sender::new(false);
            // What was let go of for a while is no news.
            let mut found: HashSet<RecordId> = HashSet::new();
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
                let mut keeps_house = false;
                let others = match adopted {
                    Ok(adopted) => {
                        tell_own(adopted.own, &commands);
                        keeps_house = adopted.keeps_house;
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
                backlog.strangers(&taken.strangers, keeps_house);
                if trying.is_empty() {
                    let due = strangers.due(&taken.strangers, &key, replay.clock.now().at);
                    if !due.is_empty() {
                        trying.spawn(strangers::try_them(replay.clone(), due, heirlooms.clone()));
                    }
                }
                let some = !taken.records.is_empty();
                for (key, Left { asks, served }) in by_key(taken.records) {
                    // Its scheduler may be this one, while that is open.
                    let (is_known, may_be_ours) = (named.is_known(), key.ip == own_ip);
                    let known = async move { if may_be_ours { is_known.await } };
                    let news = asks.iter().filter(|ask| found.insert(ask.id.clone())).count();
                    if news > 0 {
                        info!(scheduler.key = %key, signoff.pending = asks.len(), "Found sign-offs of another scheduler in the spool.");
                    }
                    metrics.inherited(news as u64);
                    let (replay, heirlooms, others_wait) =
                        (replay.clone(), heirlooms.clone(), crowded.subscribe());
                    // Nobody listens where succession is off.
                    let _ = heirlooms.send(Heirloom::Taken(key.clone()));
                    replays.spawn(async move {
                        let origin = Origin::Spool { served };
                        let verdict = replay.settle_in_turn(key.clone(), asks, origin, (known, others_wait)).await;
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
                        Some(tried) = trying.join_next(), if !trying.is_empty() => {
                            strangers.tried(tried.unwrap_or_default(), replay.clock.now().at);
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

/// Starts to watch the scheduler of these settings, which may be at another address too. Tells there whether its files can be used.
pub(super) fn start_to_watch(settings: &Settings, other: Option<&HostPort>, troubles: Troubles) -> Watcher {
    let files = settings.scheduler_tls.clone().map(|tls| TlsFiles {
        ca: tls.ca_file,
        cert: tls.cert_file,
        key: tls.key_file,
    });
    let mut peers =
        settings.scheduler_addr.iter().chain(other).map(|addr| Peer::new(addr.host(), addr.port()));
    // Complete settings have an address.
    let first = peers.next().unwrap_or_else(|| Peer::new("127.0.0.1", DEFAULT_SCHEDULER_PORT));
    Watcher::start(peers.fold(Target::new(first, files).telling(troubles), Target::or_at))
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

/// What was left of another key.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Its asks.
    pub asks: Vec<Record>,
    /// Its scheduler was seen serving, as a mark says, or as an ask implies.
    pub served: bool,
}

impl Left {
    /// They were asked for a dead incarnation by its successor, all of them.
    pub fn are_a_predecessors(&self) -> bool {
        self.asks.iter().all(|ask| matches!(ask.what, What::SignOff { cause: Cause::Predecessor, .. }))
    }
}

/// Other keys' asks, by key; their marks stay held, and go with the asks.
pub fn by_key(records: Vec<(Kind, Record)>) -> BTreeMap<SchedulerKey, Left> {
    let mut keys: BTreeMap<SchedulerKey, Left> = BTreeMap::new();
    let mut served = BTreeSet::new();
    for (kind, record) in records {
        let seen = match record.what {
            What::Seen | What::Held => true,
            What::SignOff { cause, .. } => matches!(cause, Cause::Down | Cause::Revived | Cause::Predecessor),
        };
        if seen {
            served.insert(record.key.clone());
        }
        if kind == Kind::Ask {
            keys.entry(record.key.clone()).or_default().asks.push(record);
        }
    }
    for (key, left) in &mut keys {
        left.served = served.contains(key);
    }
    keys
}

#[cfg(test)]
mod tests;
