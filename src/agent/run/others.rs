//! What else the scheduler may be registered as, while it is open which key it registers: whoever ends the scheduler's row ends
//! those rows as well.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tracing::{info, warn};

use super::{
    super::{clock::wall_millis, disk::Disk, metrics::Metrics, say, shell::within},
    follow::Connect,
    holder,
};
use crate::{
    identity::Settings,
    key::SchedulerKey,
    manager::{AttemptOptions, Failure, Filter, Manager, Outcome, Row, State},
    spool::record::{Cause, Record, RecordId},
};

/// How long each call to a manager that has to do with such a key may take.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// The settings with the keys that the scheduler may register instead of the one that is answered for, or registers by now.
#[derive(Clone, Default)]
pub(super) struct Named(Arc<Mutex<Vec<Settings>>>);

impl Named {
    pub(super) fn set(&self, settings: Vec<Settings>) {
        *self.lock() = settings;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Settings>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When those keys are signed off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before the scheduler is told to stop, or lives on.
    Drain,
    /// As the agent ends; its scheduler may be there still.
    End {
        /// It was seen to be.
        serves: bool,
    },
}

impl When {
    fn is_end(self) -> bool {
        matches!(self, Self::End { .. })
    }

    /// The scheduler may live on for long.
    fn may_live_on(self) -> bool {
        matches!(self, Self::Drain | Self::End { serves: true })
    }
}

/// Signs those keys off.
pub struct Others {
    pub(super) named: Named,
    pub(super) connect: Connect,
    pub(super) disk: Disk,
    pub(super) metrics: Metrics,
    pub(super) pod: Option<String>,
    /// Their sign-offs that nobody confirmed yet.
    pub(super) left: Mutex<Vec<(SchedulerKey, RecordId)>>,
}

impl Others {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.lock().is_empty()
    }

    /// Signs off those that their manager shows as active with the scheduler's port, all at once. Answers whether none of them is active
    /// from now on. At the end, what could not be made sure of is on the spool, if the disk took it.
    pub async fn sign_off(&self, when: When) -> bool {
        let named = self.named.lock().clone();
        let ended = join_all(named.iter().map(|settings| self.sign_off_one(settings, when))).await;
        ended.into_iter().all(|ended| ended)
    }

    async fn sign_off_one(&self, settings: &Settings, when: When) -> bool {
        let Some(key) = settings.key() else { return true };
        let ask = match when {
            When::Drain => None,
            // Whoever replays it looks first whether there is such a row, and who answers for it.
            When::End { .. } => Some(self.ask(settings, &key, when).await),
        };
        let found = match (self.connect)(settings) {
            Ok(manager) => {
                active_row(manager.as_ref(), &key, settings.advertise_port).await.map(|row| (manager, row))
            }
            Err(failure) => Err(failure),
        };
        let (manager, row) = match found {
            Ok(found) => found,
            Err(failure) => {
                if when.is_end() {
                    warn!(
                        scheduler.key = %key, reason = %failure,
                        "The scheduler may be registered under this key, too, and its manager can't be asked: its sign-off stays queued."
                    );
                }
                return false;
            }
        };
        let Some(row) = row else {
            self.settle(ask, false).await;
            // A scheduler that goes on may register it yet.
            return when.is_end();
        };
        // Only its time would show later that this is the row of a scheduler that lives on, and have it given back.
        if when.may_live_on() && row.last_keep_alive_at.is_none() {
            self.settle(ask, false).await;
            return false;
        }
        let ask = match ask {
            Some(ask) => ask,
            None => self.ask(settings, &key, when).await,
        };
        let options = AttemptOptions { hedge: false, limit: LAST_LOOK };
        let outcome = manager.sign_off(&key, options).await;
        let confirmed = outcome == Outcome::Confirmed;
        info!(
            scheduler.key = %key, signoff.confirmed = confirmed,
            "The scheduler may be registered under this key, too: it is signed off."
        );
        if confirmed {
            // Its mark has the key's own agent give the row back, should the scheduler live on.
            self.settle(Some(ask), true).await;
        }
        confirmed
    }

    /// Whoever opens the spool next settles what the disk refuses to, and finds the row inactive.
    async fn settle(&self, ask: Option<RecordId>, keep_as_mark: bool) {
        if let Some(ask) = ask {
            drop(self.disk.settle(vec![ask.clone()], keep_as_mark).await);
            self.left().retain(|(_, left)| *left != ask);
        }
    }

    /// The ask for that key: it is made once.
    async fn ask(&self, settings: &Settings, key: &SchedulerKey, when: When) -> RecordId {
        if let Some((_, ask)) = self.left().iter().find(|(left, _)| left == key) {
            return ask.clone();
        }
        let (advertised, pod) = (settings.advertised(), self.pod.clone());
        let cause = match when {
            When::Drain => Cause::PreStop,
            When::End { .. } => Cause::Sigterm,
        };
        let ask = Record {
            // That is not known.
            listed: false,
            ..Record::sign_off(key.clone(), cause, advertised, wall_millis(), pod)
        };
        self.left().push((key.clone(), ask.id.clone()));
        let id = ask.id.clone();
        if let Err(error) = self.disk.write_ask_for(holder(settings), ask).await {
            self.metrics.spool_error();
            say::not_persisted(key, &error, &say::Said::default());
        }
        id
    }

    /// Lets go of what nobody confirmed: whoever answers for those keys from now on may have it.
    pub(super) fn let_go(&self) {
        self.disk.release(self.left().drain(..).map(|(_, ask)| ask).collect());
    }

    fn left(&self) -> MutexGuard<'_, Vec<(SchedulerKey, RecordId)>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key's row, if it is active with that port.
async fn active_row(manager: &dyn Manager, key: &SchedulerKey, port: u16) -> Result<Option<Row>, Failure> {
    let listed = within(LAST_LOOK, manager.list(&Filter::Ip(key.ip.get()))).await?;
    let is_it = |row: &Row| row.is(key) && row.state == State::Active && row.port == i32::from(port);
    Ok(listed.rows.into_iter().find(is_it))
}
