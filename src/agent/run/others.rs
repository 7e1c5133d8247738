//! What else the scheduler may be registered as, while it is open which key it registers: the end of its agent ends those rows as well.
//!
//! A drain is of the key that is answered for alone: the scheduler may live on under another one, and not always would anything show
//! that its row was to be given back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    super::{clock::wall_millis, disk::Disk, metrics::Metrics, say, shell::within},
    follow::Connect,
    holder,
};
use crate::{
    identity::Settings,
    key::SchedulerKey,
    manager::{AttemptOptions, Filter, Freshness, Manager, Outcome, Row, State},
    spool::{
        Managers,
        record::{Cause, Record},
    },
};

/// How long each call to a manager that has to do with such a key may take.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// A key that the scheduler may register instead of the one that is answered for, or registers by now.
#[derive(Clone)]
pub(super) struct Other {
    pub(super) settings: Settings,
    /// Its manager, where that is asked already.
    pub(super) manager: Option<Arc<dyn Manager>>,
}

/// All of them, and whether it is open which key the scheduler registers.
#[derive(Clone, Default)]
pub(super) struct Named {
    all: Arc<Mutex<Vec<Other>>>,
    open: watch::Sender<bool>,
}

impl Named {
    pub(super) fn set(&self, named: Vec<Other>) {
        *self.lock() = named;
    }

    /// It is open from now on, or no more.
    pub(super) fn open(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// Waits until it is known which key the scheduler registers.
    pub(super) fn is_known(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut open = self.open.subscribe();
        async move {
            // The sender lives as long as the agent.
            let _ = open.wait_for(|open| !*open).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Other>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An ask for one of them.
struct Ask {
    managers: Managers,
    record: Record,
    on_disk: bool,
}

/// Signs them off at the end.
pub struct Others {
    named: Named,
    connect: Connect,
    disk: Disk,
    metrics: Metrics,
    pod: Option<String>,
    asks: Mutex<Vec<Ask>>,
}

impl Others {
    pub(super) fn new(
        named: Named,
        connect: Connect,
        disk: Disk,
        metrics: Metrics,
        pod: Option<String>,
    ) -> Self {
        Self { named, connect, disk, metrics, pod, asks: Mutex::default() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.lock().is_empty()
    }

    /// Asks for them on disk. Whoever replays that looks first whether there is such a row, and who answers for it.
    pub async fn ask(&self) {
        let named = self.named.lock().clone();
        for other in named {
            if let Some(key) = other.settings.key() {
                self.ask_for(&other.settings, &key).await;
            }
        }
    }

    /// Signs off those that their manager shows as active with the scheduler's port, all at once. `serves`: the scheduler was seen to be
    /// there still. Answers whether none of them is active from now on; else its ask is on the spool, if the disk took it.
    pub async fn sign_off(&self, serves: bool) -> bool {
        let named = self.named.lock().clone();
        let ended = join_all(named.iter().map(|other| self.sign_off_one(other, serves))).await;
        ended.into_iter().all(|ended| ended)
    }

    async fn sign_off_one(&self, Other { settings, manager }: &Other, serves: bool) -> bool {
        let Some(key) = settings.key() else { return true };
        let ask = self.ask_for(settings, &key).await;
        let manager = manager.clone().map_or_else(|| (self.connect)(settings), Ok);
        let listed = match &manager {
            Ok(manager) => within(LAST_LOOK, manager.list(&Filter::Ip(key.ip.get()))).await,
            Err(failure) => Err(failure.clone()),
        };
        let (manager, listed) = match (manager, listed) {
            (Ok(manager), Ok(listed)) => (manager, listed),
            (_, Err(failure)) | (Err(failure), _) => {
                warn!(
                    scheduler.key = %key, reason = %failure,
                    "The scheduler may be registered under this key, too, and its manager can't be asked: its sign-off stays queued."
                );
                return false;
            }
        };
        let is_it = |row: &&Row| {
            row.is(&key) && row.state == State::Active && row.port == i32::from(settings.advertise_port)
        };
        match listed.rows.iter().find(is_it) {
            // A list may be older than the row; and a scheduler that is there may register it yet.
            None if serves || listed.freshness != Freshness::Fresh => false,
            None => {
                self.settle(&ask, false).await;
                true
            }
            // It may live on, and only its time would show that this is its row, and have it given back.
            Some(row) if serves && row.last_keep_alive_at.is_none() => {
                warn!(
                    scheduler.key = %key,
                    "The scheduler may be registered under this key, too, and is there still: its sign-off stays queued."
                );
                false
            }
            Some(_) => {
                let options = AttemptOptions { hedge: false, limit: LAST_LOOK };
                let outcome = manager.sign_off(&key, options).await;
                if outcome != Outcome::Confirmed {
                    warn!(
                        scheduler.key = %key,
                        "The scheduler may be registered under this key, too. Its sign-off is not acknowledged: it stays queued."
                    );
                    return false;
                }
                info!(scheduler.key = %key, "The scheduler may be registered under this key, too: it was signed off.");
                // Its mark has the key's next agent give the row back, should the scheduler live on.
                self.settle(&ask, true).await;
                true
            }
        }
    }

    /// Whoever opens the spool next settles what the disk refuses to, and finds the row inactive.
    async fn settle(&self, ask: &Record, keep_as_mark: bool) {
        drop(self.disk.settle(vec![ask.id.clone()], keep_as_mark).await);
    }

    /// The ask for that key at its manager: there is one. What the disk refused is offered again.
    async fn ask_for(&self, settings: &Settings, key: &SchedulerKey) -> Record {
        let whose = holder(settings);
        let (ask, on_disk) = {
            let mut asks = self.asks();
            let is_it = |ask: &Ask| ask.record.key == *key && ask.managers == whose.managers;
            match asks.iter().find(|ask| is_it(ask)) {
                Some(ask) => (ask.record.clone(), ask.on_disk),
                None => {
                    let (advertised, pod) = (settings.advertised(), self.pod.clone());
                    let ask = Record::sign_off(key.clone(), Cause::Sigterm, advertised, wall_millis(), pod);
                    // That is not known.
                    let record = Record { listed: false, ..ask };
                    let managers = whose.managers.clone();
                    asks.push(Ask { managers, record: record.clone(), on_disk: false });
                    (record, false)
                }
            }
        };
        if on_disk {
            return ask;
        }
        match self.disk.write_ask_for(whose, ask.clone()).await {
            Ok(()) => {
                self.asks()
                    .iter_mut()
                    .filter(|one| one.record.id == ask.id)
                    .for_each(|one| one.on_disk = true);
            }
            Err(error) => {
                self.metrics.spool_error();
                say::not_persisted(key, &error, &say::Said::default());
            }
        }
        ask
    }

    fn asks(&self) -> MutexGuard<'_, Vec<Ask>> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
