//! How many sign-offs are pending: counted and shown in one place, whoever works on them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{attempts::Attempts, metrics::Metrics, socket::status::PendingStatus};
use crate::spool::record::{Record, RecordId, What};

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
        self.asks().others.values().cloned().collect()
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
        let oldest = oldest.into_iter().chain(asks.others.keys().next().map(|(at, _)| *at)).min();
        self.metrics.set_pending(own + asks.others.len(), oldest);
    }

    fn asks(&self) -> MutexGuard<'_, Asks> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            at,
            pod: None,
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
        backlog.own(0, None);
        shown("2", "2.0");
        backlog.replayed(&asks);
        shown("0", "0.0");
    }
}
