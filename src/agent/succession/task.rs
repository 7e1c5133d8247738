//! Acts: lists, probes, persists before it signs off, and says what came of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::debug;

use super::{
    super::{
        lifecycle::Verdict,
        look::{self, Look},
        moment::Moment,
        replay::{Origin, Replay, write_ask},
        say,
        shell::{READ_LIMIT, within},
    },
    core::{Contested, Decision, Succession, Suspect},
};
use crate::{
    key::SchedulerKey,
    manager::Filter,
    spool::record::{Cause, Record},
};

/// How many addresses are looked at at a time.
const AT_ONCE: usize = 32;
/// How soon an ask that the disk refused is offered to it again.
const PERSIST_AGAIN: Duration = Duration::from_secs(5);

/// What becomes of a sign-off of another key that was found in the spool.
#[derive(Debug)]
pub enum Heirloom {
    /// It is being made.
    Taken(SchedulerKey),
    /// It ended so.
    Settled(SchedulerKey, Verdict),
}

/// What succession works with.
pub struct Task {
    /// Signs off; its other parts are the manager, the disk, the metrics and the clock.
    pub replay: Replay,
    /// Whether the scheduler serves and nothing is to end it. Its sender's end ends the task.
    pub serves: watch::Receiver<bool>,
    /// What was found in the spool.
    pub heirlooms: mpsc::UnboundedReceiver<Heirloom>,
    /// The keys that are contested, for `signoff status`.
    pub contested: watch::Sender<Vec<String>>,
    /// POD_NAME, for the records.
    pub pod: Option<String>,
    /// What was said not to be clear.
    pub unclear: BTreeSet<SchedulerKey>,
}

impl Task {
    /// Runs for as long as the agent.
    pub async fn run(mut self, mut core: Succession) {
        let clock = self.replay.clock;
        let mut asked = JoinSet::new();
        loop {
            core.serves(*self.serves.borrow_and_update(), clock.now().at);
            let wake = async |at: Option<Moment>| match at {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            };
            tokio::select! {
                biased;
                changed = self.serves.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                Some(heirloom) = self.heirlooms.recv() => self.found(&mut core, heirloom),
                Some(Ok((key, verdict))) = asked.join_next() => self.settled(&mut core, &key, verdict),
                () = wake(core.wake_at()) => self.look(&mut core, &mut asked).await,
            }
        }
    }

    async fn look(&mut self, core: &mut Succession, asked: &mut JoinSet<(SchedulerKey, Verdict)>) {
        let clock = self.replay.clock;
        let manager = Arc::clone(&self.replay.manager);
        let at = clock.now().at;
        let hostname = Filter::Hostname(core.key().hostname.clone());
        let listed = match within(READ_LIMIT, manager.list(&hostname)).await {
            Ok(listed) => listed,
            Err(failure) => {
                debug!(scheduler.key = %core.key(), reason = %failure, "Could not look for predecessors.");
                return core.put_off(clock.now().at);
            }
        };
        while let Ok(heirloom) = self.heirlooms.try_recv() {
            self.found(core, heirloom);
        }
        let (suspects, contested) = core.listed((at, clock.now().at), &listed);
        for (key, why) in contested {
            self.contested(core, &key, &why);
        }
        let (manager, prober) = (manager.as_ref(), self.replay.prober.as_ref());
        let looks: Vec<(Suspect, Look)> = stream::iter(suspects)
            .map(|suspect| async move {
                let look = look::at(prober, manager, &suspect.key, suspect.address).await;
                (suspect, look)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        if !*self.serves.borrow() {
            // Whoever is going doesn't speak for the hostname any more.
            return core.put_off(clock.now().at);
        }
        for (suspect, look) in looks {
            let key = core.key().clone();
            match core.looked(&suspect.key, &look, clock.now().at) {
                Decision::SignOff(why) => {
                    say::predecessor(&key, &suspect.key, &why);
                    asked.spawn(sign_off(self.replay.clone(), self.pod.clone(), suspect));
                }
                Decision::Report(why) => {
                    say::would_sign_off(&key, &suspect.key, &why);
                    self.replay.metrics.predecessor("reported");
                }
                Decision::Contested(why) => self.contested(core, &suspect.key, &why),
                Decision::Answers => say::predecessor_answers(&key, &suspect.key),
                Decision::Wait(why) => self.undecided(&key, &suspect.key, &why),
                Decision::Watch => {
                    debug!(scheduler.key = %key, predecessor.key = %suspect.key, "Its keep-alive times are watched.");
                }
                Decision::Nothing => {}
            }
        }
        for left in core.judged(clock.now().at) {
            self.undecided(
                core.key(),
                &left,
                "what the manager shows of it was not enough for as long as it was watched",
            );
        }
    }

    fn undecided(&mut self, key: &SchedulerKey, other: &SchedulerKey, why: &str) {
        if self.unclear.insert(other.clone()) {
            say::predecessor_unclear(key, other, why);
            self.replay.metrics.predecessor("undecided");
        }
    }

    fn found(&self, core: &mut Succession, heirloom: Heirloom) {
        match heirloom {
            Heirloom::Taken(key) => core.inherited(&key),
            Heirloom::Settled(key, verdict) => {
                if let Some(why) = core.settled(&key, verdict, false, self.replay.clock.now().at) {
                    self.contested(core, &key, &why);
                }
            }
        }
    }

    fn settled(&self, core: &mut Succession, key: &SchedulerKey, verdict: Verdict) {
        if matches!(verdict, Verdict::Confirmed | Verdict::Absent) {
            self.replay.metrics.predecessor("signed-off");
        }
        if let Some(why) = core.settled(key, verdict, true, self.replay.clock.now().at) {
            self.contested(core, key, &why);
        }
    }

    fn contested(&self, core: &Succession, key: &SchedulerKey, why: &Contested) {
        say::contested(core.key(), key, why);
        self.replay.metrics.predecessor("contested");
        self.contested.send_modify(|contested| contested.push(key.to_string()));
    }
}

/// One sign-off of a predecessor, as durable as any other.
async fn sign_off(replay: Replay, pod: Option<String>, suspect: Suspect) -> (SchedulerKey, Verdict) {
    let key = suspect.key;
    let at = replay.clock.now().wall;
    let asked = Record::sign_off(key.clone(), Cause::Predecessor, Some(suspect.address), at, pod);
    let record = Record { row_updated: suspect.updated, ..asked };
    let written = write_ask(&replay.disk, &replay.metrics, &record).await;
    let id = record.id.clone();
    let again = persist(&replay, record.clone(), written);
    let verdict = tokio::select! {
        biased;
        verdict = replay.settle(key.clone(), vec![record], Origin::Own, None, &|_| ()) => verdict,
        never = again => match never {},
    };
    if !written {
        // A write that came too late must not outlive what it was for.
        replay.disk.settle_later(vec![id], false);
    }
    (key, verdict)
}

/// Offers an ask to the disk until it is written, and never ends.
async fn persist(replay: &Replay, record: Record, mut written: bool) -> std::convert::Infallible {
    while !written {
        tokio::time::sleep(PERSIST_AGAIN).await;
        written = replay.disk.write_ask(record.clone()).await.is_ok();
    }
    std::future::pending().await
}
