//! Puts succession together, where it is on.

use std::{collections::BTreeSet, sync::Arc};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    super::{
        attempts::Attempts,
        backlog::Backlog,
        disk::Disk,
        replay::{Origin, Replay},
        say,
        socket::status::SuccessionStatus,
        succession::{
            core::Succession,
            standing::Standing,
            task::{Heirloom, Task},
        },
    },
    Agent,
};
use crate::{key::SchedulerKey, manager::Manager, net::EXCLUDE, spool::record::Record};

impl Agent {
    /// Starts to look for predecessors once `serves` says so. Answers whom to tell what was found in the spool, and what
    /// `signoff status` shows.
    pub(super) fn succeed(
        &self,
        tasks: &mut JoinSet<()>,
        disk: &Disk,
        manager: &Arc<dyn Manager>,
        key: &SchedulerKey,
        backlog: &Backlog,
        serves: watch::Receiver<bool>,
    ) -> (mpsc::UnboundedSender<Heirloom>, impl Fn() -> SuccessionStatus + Send + 'static) {
        let standing = Standing::of(&self.settings);
        let (tell, heirlooms) = mpsc::unbounded_channel();
        let (contested, known) = watch::channel(Vec::new());
        match &standing.why {
            Some(why) => say::no_succession(key, why),
            None => {
                // One of its own: a spool full of others' sign-offs must not make it wait for its turn.
                let replay = self.replay(disk, manager, backlog);
                let pod = self.settings.pod_name.clone();
                let reads = self.settings.manager();
                let over_rest =
                    !reads.rest.is_empty() && reads.username.is_some() && reads.password_file.is_some();
                let interval = self.settings.keep_alive_interval;
                let core = Succession::new(key.clone(), interval, standing.mode).expects_times(over_rest);
                let task = Task { replay, serves, heirlooms, contested, pod, unclear: BTreeSet::new() };
                tasks.spawn(task.run(core));
            }
        }
        let Standing { mode, why } = standing;
        let status = move || SuccessionStatus { mode, why: why.clone(), contested: known.borrow().clone() };
        (tell, status)
    }

    /// Signs the row of the key off that this agent answered for before.
    pub(super) fn sign_off_what_was_left(
        &self,
        tasks: &mut JoinSet<()>,
        ask: Record,
        replay: Replay,
        heirlooms: mpsc::UnboundedSender<Heirloom>,
    ) {
        let key = ask.key.clone();
        // Pending from now on, whenever its turn comes.
        let none = Attempts::new(self.clock.now().at);
        replay.backlog.replaying(std::slice::from_ref(&ask), &none, false);
        // Nobody listens where succession is off.
        let _ = heirlooms.send(Heirloom::Taken(key.clone()));
        tasks.spawn(async move {
            let verdict = replay.settle(key.clone(), vec![ask], Origin::Own, None, &|_| ()).await;
            let _ = heirlooms.send(Heirloom::Settled(key, verdict));
        });
    }

    /// A replay of nothing yet.
    pub(super) fn replay(&self, disk: &Disk, manager: &Arc<dyn Manager>, backlog: &Backlog) -> Replay {
        let (metrics, prober) = (self.metrics.clone(), Arc::clone(&self.prober));
        Replay::new(Arc::clone(manager), prober, disk.clone(), metrics, backlog.clone(), self.clock)
    }

    /// Says, for as long as it is so, that nothing follows from a probe here.
    pub(super) fn watch_what_probes_are_worth(&self) {
        let (mut worthless, degraded) = (self.prober.worthless(), self.degraded.clone());
        tokio::spawn(async move {
            loop {
                let why = worthless.borrow_and_update().clone();
                degraded.set("probes", why.map(|why| format!("{why}; {EXCLUDE}")));
                if worthless.changed().await.is_err() {
                    return;
                }
            }
        });
    }
}
