//! What the agent has to do without: said once, shown as long as it lasts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{error, info};

use super::{metrics::Metrics, socket::status::Degradation};

/// The agent's shortcomings, by reason. Clones share them.
#[derive(Clone)]
pub struct Degraded {
    metrics: Metrics,
    reasons: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Degraded {
    /// None yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, reasons: Arc::default() }
    }

    /// There is one, in words with what to do; or it is over.
    pub fn set(&self, reason: &'static str, why: Option<String>) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => {
                self.metrics.set_degraded(reason, true);
                if reasons.get(reason) != Some(&why) {
                    error!(degraded.reason = reason, "{why}");
                    reasons.insert(reason, why);
                }
            }
            None => {
                if reasons.remove(reason).is_some() {
                    self.metrics.set_degraded(reason, false);
                    info!(degraded.reason = reason, "No longer degraded.");
                }
            }
        }
    }

    /// All of them.
    pub fn list(&self) -> Vec<Degradation> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons
            .iter()
            .map(|(reason, why)| Degradation { reason: (*reason).to_owned(), why: why.clone() })
            .collect()
    }
}
