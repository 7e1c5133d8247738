//! Puts succession together, where it is on.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::{mpsc, watch};

use super::{
    super::{
        backlog::Backlog,
        disk::Disk,
        replay::Replay,
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
use crate::{key::SchedulerKey, manager::Manager};

impl Agent {
    /// Starts to look for predecessors once `serves` says so. Answers whom to tell what was found in the spool, and what
    /// `signoff status` shows.
    pub(super) fn succeed(
        &self,
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
                let replay = Replay::new(
                    Arc::clone(manager),
                    disk.clone(),
                    self.metrics.clone(),
                    backlog.clone(),
                    self.clock,
                );
                let pod = self.settings.pod_name.clone();
                let core = Succession::new(key.clone(), self.settings.keep_alive_interval, standing.mode);
                let task = Task { replay, serves, heirlooms, contested, pod, unclear: BTreeSet::new() };
                tokio::spawn(task.run(core));
            }
        }
        let Standing { mode, why } = standing;
        let status = move || SuccessionStatus { mode, why: why.clone(), contested: known.borrow().clone() };
        (tell, status)
    }
}
