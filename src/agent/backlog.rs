//! How many sign-offs are pending: counted and shown in one place, whoever works on them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{attempts::Attempts, metrics::Metrics, socket::status::PendingStatus};
use crate::spool::record::{Record, RecordId, WallMillis, What};

/// Why nobody works on an ask of an older release.
const UNSAID: &str = "its record doesn't say which manager it is for (an older release wrote it), and this one doesn't show its \
                      row: signoff queue flush --manager ITS-MANAGER, or signoff queue drop";

/// All asks that this process knows of, its own key's and the replayed ones: what the metrics and `signoff status` show.
#[derive(Clone)]
pub struct Backlog {
    metrics: Metrics,
    asks: Arc<Mutex<Asks>>,
}

#[derive(Default)]
struct Asks {
    /// How many the own key has, and when the oldest was asked (Unix time in milliseconds).
    own: (usize, Option<u64>),
    /// The oldest first.
    others: BTreeMap<(u64, RecordId), PendingStatus>,
    /// Those that nobody works on, since they don't say which manager they are for.
    unsaid: BTreeMap<(u64, RecordId), PendingStatus>,
}

impl Backlog {
    /// None yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, asks: Arc::default() }
    }

    /// How many asks of the own key are pending, and when the oldest was asked (Unix time in milliseconds).
    pub fn own(&self, count: usize, oldest: Option<u64>) {
        self.change(|asks| asks.own = (count, oldest));
    }

    /// The asks of other keys.
    pub fn others(&self) -> Vec<PendingStatus> {
        let asks = self.asks();
        asks.others.values().chain(asks.unsaid()).cloned().collect()
    }

    /// What the last look through the spool found there that is not known to be for this manager: counted as pending where it
    /// says nothing, and it is this process's to tell (`tells`); by itself where it is for another manager.
    pub(super) fn strangers(&self, found: &[Record], tells: bool) {
        let (unsaid, for_others): (Vec<_>, Vec<_>) =
            found.iter().partition(|record| record.managers.is_empty());
        self.metrics.set_pending_for_others(for_others.len());
        self.change(|asks| {
            asks.unsaid = unsaid
                .into_iter()
                .filter(|_| tells)
                .filter_map(|ask| Some(((ask.at, ask.id.clone()), unsaid_status(ask)?)))
                .collect();
        });
    }

    /// How it stands with another key's asks.
    pub(super) fn replaying(&self, replayed: &[Record], attempts: &Attempts, inherited: bool) {
        self.change(|asks| {
            for ask in replayed {
                let What::SignOff { cause, .. } = ask.what else { continue };
                let status = PendingStatus {
                    id: ask.id.to_string(),
                    key: ask.key.to_string(),
                    cause: cause.label().to_owned(),
                    at: ask.at,
                    attempts: u64::from(attempts.count()),
                    last_error: attempts.last_failure().map(str::to_owned),
                    rejected: attempts.rejected(),
                    watched_until: None,
                    inherited,
                };
                asks.others.insert((ask.at, ask.id.clone()), status);
            }
        });
    }

    /// The manager acknowledged them; they are kept until then (Unix time in milliseconds).
    pub(super) fn watched(&self, replayed: &[Record], until: WallMillis) {
        self.change(|asks| {
            for ask in replayed {
                if let Some(status) = asks.others.get_mut(&(ask.at, ask.id.clone())) {
                    status.watched_until = Some(until);
                }
            }
        });
    }

    /// These are settled, or somebody else's from now on.
    pub(super) fn replayed(&self, replayed: &[Record]) {
        self.change(|asks| {
            for ask in replayed {
                asks.others.remove(&(ask.at, ask.id.clone()));
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Asks)) {
        let mut asks = self.asks();
        change(&mut asks);
        let (own, oldest) = asks.own;
        let first = |asks: &BTreeMap<(u64, RecordId), _>| asks.keys().next().map(|(at, _)| *at);
        let oldest = oldest.into_iter().chain(first(&asks.others)).chain(first(&asks.unsaid)).min();
        self.metrics.set_pending(own + asks.others.len() + asks.unsaid().count(), oldest);
    }

    fn asks(&self) -> MutexGuard<'_, Asks> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asks {
    /// Those that say nothing and are not being worked on after all.
    fn unsaid(&self) -> impl Iterator<Item = &PendingStatus> {
        self.unsaid.iter().filter(|(at, _)| !self.others.contains_key(at)).map(|(_, status)| status)
    }
}

fn unsaid_status(ask: &Record) -> Option<PendingStatus> {
    let What::SignOff { cause, .. } = ask.what else { return None };
    Some(PendingStatus {
        id: ask.id.to_string(),
        key: ask.key.to_string(),
        cause: cause.label().to_owned(),
        at: ask.at,
        last_error: Some(UNSAID.to_owned()),
        inherited: true,
        ..PendingStatus::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::moment::Moment, key::SchedulerKey, spool::record::Cause};

    #[test]
    fn the_backlog_counts_the_asks_of_all_keys_and_knows_the_oldest() {
        let metrics = Metrics::new();
        let backlog = Backlog::new(metrics.clone());
        let key =
            SchedulerKey::new(1.try_into().unwrap(), "s-1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let ask = |at| Record {
            id: RecordId::random(),
            key: key.clone(),
            what: What::SignOff { cause: Cause::Down, drain_until: None },
            address: None,
            listed: true,
            row_updated: None,
            registered: None,
            at,
            pod: None,
            managers: Default::default(),
        };
        let (asks, attempts) = ([ask(3000), ask(2000)], Attempts::new(Moment::default()));
        let shown = |count: &str, oldest: &str| {
            let text = metrics.text().unwrap();
            assert!(text.contains(&format!("signoff_pending_signoffs {count}\n")), "{text}");
            let oldest = format!("signoff_oldest_pending_timestamp_seconds {oldest}\n");
            assert!(text.contains(&oldest), "{text}");
        };
        backlog.own(1, Some(5000));
        shown("1", "5.0");
        backlog.replaying(&asks, &attempts, true);
        backlog.replaying(&asks, &attempts, true);
        shown("3", "2.0");
        assert_eq!(backlog.others().len(), 2);
        backlog.watched(&asks[..1], 9000);
        let watched =
            |backlog: &Backlog| backlog.others().iter().map(|ask| ask.watched_until).collect::<Vec<_>>();
        assert_eq!(watched(&backlog), [None, Some(9000)]);
        backlog.replaying(&asks, &attempts, true);
        assert_eq!(watched(&backlog), [None, None], "it is pending again");
        backlog.own(0, None);
        shown("2", "2.0");
        backlog.replayed(&asks);
        shown("0", "0.0");
    }
}
