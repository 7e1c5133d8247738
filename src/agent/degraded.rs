//! What the agent has to do without: said once, shown as long as it lasts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{error, info};

use tokio::time::Instant;

use super::{metrics::Metrics, socket::status::Degradation};
use crate::logging::seldom::Seldom;

/// How many lines of one reason are said at once: a disk or a port that comes and goes must not fill the log.
const LINES: u32 = 10;

/// The agent's shortcomings, by reason. Clones share them.
#[derive(Clone)]
pub struct Degraded {
    metrics: Metrics,
    reasons: Arc<Mutex<BTreeMap<&'static str, Reason>>>,
}

struct Reason {
    /// In words with what to do; `None` once it is over.
    why: Option<String>,
    lines: Seldom,
}

impl Degraded {
    /// None yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, reasons: Arc::default() }
    }

    /// There is one, in words with what to do; or it is over.
    pub fn set(&self, reason: &'static str, why: Option<String>) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        if why.is_none() && !reasons.contains_key(reason) {
            return;
        }
        let known = reasons.entry(reason).or_insert_with(|| Reason { why: None, lines: Seldom::new(LINES) });
        self.metrics.set_degraded(reason, why.is_some());
        if known.why == why {
            return;
        }
        if let Some(turn) = known.lines.turn(Instant::now()) {
            match &why {
                Some(why) => error!(degraded.reason = reason, log.held_back = turn.held_back, "{why}"),
                None => {
                    info!(degraded.reason = reason, log.held_back = turn.held_back, "No longer degraded.")
                }
            }
        }
        known.why = why;
    }

    /// All of them.
    pub fn list(&self) -> Vec<Degradation> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let lasting = reasons.iter().filter_map(|(reason, known)| Some((*reason, known.why.clone()?)));
        lasting.map(|(reason, why)| Degradation { reason: reason.to_owned(), why }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::logging::Log;

    #[tokio::test(start_paused = true)]
    async fn what_comes_and_goes_is_shown_each_time_and_said_a_bounded_number_of_times() {
        let (log, _guard) = Log::capture();
        let degraded = Degraded::new(Metrics::new());
        degraded.set("spool", None);
        for _ in 0..3600 {
            degraded.set("spool", Some("it hangs".to_owned()));
            assert_eq!(degraded.list().len(), 1);
            degraded.set("spool", None);
            assert_eq!(degraded.list(), []);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let lines = log.text().lines().count();
        assert!((60..=70).contains(&lines), "{lines}");
        assert!(log.text().contains("log.held_back=119"), "{}", log.text());
    }
}
