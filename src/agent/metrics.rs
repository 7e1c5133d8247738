//! What Prometheus sees: [`Metrics`], a cheap clone, and its text.
//!
//! No label holds a hostname or an IP: a fleet's scrape adds those, and a label of ours would live on after its pod.
//! Labels come from fixed sets. What isn't known yet is `NaN`, which no comparison in an alert matches, not 0.
//! A dying pod isn't scraped any more: these serve the living ones and the next agent.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use super::lifecycle::Verdict;
use crate::{manager::Outcome, spool::record::Cause};

/// The `Content-Type` of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: a healthy sign-off takes 3 ms on loopback and some 20 ms in a cluster, one through a manager without
/// Redis 5 to 7 s.
const ATTEMPT_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How an ask can be settled.
const SETTLED: [Verdict; 6] = [
    Verdict::Confirmed,
    Verdict::Absent,
    Verdict::NeverRegistered,
    Verdict::Superseded,
    Verdict::Dropped,
    Verdict::Contested,
];

const CAUSES: [Cause; 5] = [Cause::PreStop, Cause::Sigterm, Cause::Down, Cause::Revived, Cause::Predecessor];

/// What can come of a predecessor: see the module `succession`.
const PREDECESSORS: [&str; 4] = ["signed-off", "contested", "reported", "undecided"];

/// The labels of `Outcome::label`.
const OUTCOMES: [&str; 5] = ["confirmed", "absent", "rejected", "failed", "unknown"];

/// The API that all sign-offs go over.
const GRPC: &str = "grpc";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PredecessorLabels {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    api: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Settling {
    result: &'static str,
    cause: &'static str,
}

/// 1, 0, or `NaN` where it isn't known.
type Known = Gauge<f64, AtomicU64>;

fn number(known: Option<bool>) -> f64 {
    match known {
        Some(true) => 1.0,
        Some(false) => 0.0,
        None => f64::NAN,
    }
}

/// The agent's metrics. Clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    identity_known: Known,
    row_active: Known,
    scheduler_up: Known,
    degraded: Family<Reason, Gauge>,
    pending: Gauge,
    pending_for_others: Gauge,
    oldest_pending: Gauge<f64, AtomicU64>,
    inherited: Counter,
    predecessors: Family<PredecessorLabels, Counter>,
    attempts: Family<Attempt, Counter>,
    attempt_duration: Histogram,
    settled: Family<Settling, Counter>,
    restored: Counter,
    put_back: Counter,
    spool_errors: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, nothing known and nothing counted. Counters whose labels are known beforehand start at 0, so that a
    /// rate sees their first increment.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("signoff");
        let mut metrics = Self {
            registry: Arc::default(),
            identity_known: Known::default(),
            row_active: Known::default(),
            scheduler_up: Known::default(),
            degraded: Family::default(),
            pending: Gauge::default(),
            pending_for_others: Gauge::default(),
            oldest_pending: Gauge::default(),
            inherited: Counter::default(),
            predecessors: Family::default(),
            attempts: Family::default(),
            attempt_duration: Histogram::new(ATTEMPT_BUCKETS),
            settled: Family::default(),
            restored: Counter::default(),
            put_back: Counter::default(),
            spool_errors: Counter::default(),
        };
        metrics.register(&mut registry);
        metrics.registry = Arc::new(registry);
        metrics.set_identity_known(None);
        metrics.set_row_active(None);
        metrics.set_scheduler_up(None);
        for outcome in OUTCOMES {
            drop(metrics.attempts.get_or_create(&Attempt { api: GRPC, outcome }));
        }
        for verdict in PREDECESSORS {
            drop(metrics.predecessors.get_or_create(&PredecessorLabels { verdict }));
        }
        for result in SETTLED {
            for cause in CAUSES {
                drop(
                    metrics.settled.get_or_create(&Settling { result: result.label(), cause: cause.label() }),
                );
            }
        }
        metrics
    }

    /// The encoder appends `_total` to a counter's name, `_info` to an info's, the unit to any, and a full stop to the help.
    fn register(&self, registry: &mut Registry) {
        let build = Info::new(Build { version: env!("CARGO_PKG_VERSION") });
        registry.register("build", "The running version", build);
        registry.register(
            "identity_known",
            "Whether the manager lists the scheduler's key (NaN until that was asked)",
            self.identity_known.clone(),
        );
        registry.register(
            "row_active",
            "Whether the scheduler's row was active when last read (NaN until read)",
            self.row_active.clone(),
        );
        registry.register(
            "scheduler_up",
            "Whether the scheduler serves: 1 serving, 0 down, NaN unknown",
            self.scheduler_up.clone(),
        );
        registry.register(
            "degraded",
            "What the agent has to do without, by reason (0: it was so, and is over)",
            self.degraded.clone(),
        );
        registry.register("pending_signoffs", "Sign-offs asked and not yet settled", self.pending.clone());
        registry.register(
            "pending_for_others",
            "Pending sign-offs on the spool that are for another Dragonfly's manager: its own agent, or queue flush, settles them",
            self.pending_for_others.clone(),
        );
        registry.register_with_unit(
            "oldest_pending_timestamp",
            "When the oldest pending sign-off was asked, as Unix time (0: none is pending)",
            Unit::Seconds,
            self.oldest_pending.clone(),
        );
        registry.register(
            "inherited",
            "Pending sign-offs found on the spool at start",
            self.inherited.clone(),
        );
        registry.register(
            "predecessors",
            "Active rows of this hostname with another IP, by verdict: signed-off, contested, reported, undecided",
            self.predecessors.clone(),
        );
        registry.register(
            "attempts",
            "Attempts at a sign-off that ended, by API and outcome",
            self.attempts.clone(),
        );
        registry.register_with_unit(
            "attempt_duration",
            "How long an attempt at a sign-off took",
            Unit::Seconds,
            self.attempt_duration.clone(),
        );
        registry.register("settled", "Sign-offs settled, by result and cause", self.settled.clone());
        registry.register(
            "restored",
            "Times the row of a serving scheduler was given back",
            self.restored.clone(),
        );
        registry.register(
            "put_back",
            "Times the row of a serving scheduler was gone and was registered again",
            self.put_back.clone(),
        );
        registry.register(
            "spool_errors",
            "Reads and writes of the spool that failed or took too long",
            self.spool_errors.clone(),
        );
    }

    /// Whether the manager lists the key; `None` while that isn't known.
    pub fn set_identity_known(&self, known: Option<bool>) {
        self.identity_known.set(number(known));
    }

    /// Whether the row is active, as last read; `None` while that isn't known.
    pub fn set_row_active(&self, active: Option<bool>) {
        self.row_active.set(number(active));
    }

    /// Serving, down, or unknown (`None`).
    pub fn set_scheduler_up(&self, up: Option<bool>) {
        self.scheduler_up.set(number(up));
    }

    /// Turns a reason on or off. A reason is a word of a fixed set, never text from elsewhere.
    pub fn set_degraded(&self, reason: &'static str, on: bool) {
        self.degraded.get_or_create(&Reason { reason }).set(i64::from(on));
    }

    /// How many sign-offs are pending, and when the oldest was asked (Unix time in milliseconds).
    pub fn set_pending(&self, count: usize, oldest: Option<u64>) {
        self.pending.set(i64::try_from(count).unwrap_or(i64::MAX));
        let seconds = oldest.map_or(0.0, |millis| Duration::from_millis(millis).as_secs_f64());
        self.oldest_pending.set(seconds);
    }

    /// Sets how many asks on the spool are for another manager.
    pub fn set_pending_for_others(&self, count: usize) {
        self.pending_for_others.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts pending sign-offs found on the spool.
    pub fn inherited(&self, count: u64) {
        self.inherited.inc_by(count);
    }

    /// Counts a predecessor. A verdict is a word of a fixed set.
    pub fn predecessor(&self, verdict: &'static str) {
        self.predecessors.get_or_create(&PredecessorLabels { verdict }).inc();
    }

    /// Counts an attempt over gRPC that ended, and how long it took.
    pub fn attempt(&self, outcome: &Outcome, took: Duration) {
        self.attempts.get_or_create(&Attempt { api: GRPC, outcome: outcome.label() }).inc();
        self.attempt_duration.observe(took.as_secs_f64());
    }

    /// Counts a settled ask.
    pub fn settled(&self, result: Verdict, cause: Cause) {
        self.settled.get_or_create(&Settling { result: result.label(), cause: cause.label() }).inc();
    }

    /// Counts a row given back.
    pub fn restored(&self) {
        self.restored.inc();
    }

    /// The row of a serving scheduler was registered again.
    pub fn put_back(&self) {
        self.put_back.inc();
    }

    /// Counts a failed read or write of the spool.
    pub fn spool_error(&self) {
        self.spool_errors.inc();
    }

    /// All metrics as OpenMetrics text, to be sent as [`CONTENT_TYPE`].
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::with_capacity(8 << 10);
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::Failure;

    /// The value of the one sample that is written `name{labels}`.
    fn sample(metrics: &Metrics, name: &str) -> Option<String> {
        let text = metrics.text().unwrap();
        let mut found =
            text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        let value = found.next();
        assert_eq!(found.next(), None, "{name} is there twice");
        value
    }

    #[test]
    fn the_names_are_the_promised_ones_and_no_others() {
        let metrics = Metrics::new();
        metrics.set_degraded("spool", true);
        let text = metrics.text().unwrap();
        let mut names: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(['{', ' ']).next())
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(
            names,
            [
                "signoff_attempt_duration_seconds_bucket",
                "signoff_attempt_duration_seconds_count",
                "signoff_attempt_duration_seconds_sum",
                "signoff_attempts_total",
                "signoff_build_info",
                "signoff_degraded",
                "signoff_identity_known",
                "signoff_inherited_total",
                "signoff_oldest_pending_timestamp_seconds",
                "signoff_pending_for_others",
                "signoff_pending_signoffs",
                "signoff_predecessors_total",
                "signoff_put_back_total",
                "signoff_restored_total",
                "signoff_row_active",
                "signoff_scheduler_up",
                "signoff_settled_total",
                "signoff_spool_errors_total",
            ]
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(text.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")), "{text}");
    }

    #[test]
    fn what_is_not_known_yet_is_not_zero() {
        let metrics = Metrics::new();
        for name in ["signoff_identity_known", "signoff_row_active", "signoff_scheduler_up"] {
            assert_eq!(sample(&metrics, name).as_deref(), Some("NaN"), "{name}");
        }
        metrics.set_row_active(Some(false));
        metrics.set_identity_known(Some(true));
        assert_eq!(sample(&metrics, "signoff_row_active").as_deref(), Some("0.0"));
        assert_eq!(sample(&metrics, "signoff_identity_known").as_deref(), Some("1.0"));
        metrics.set_row_active(None);
        assert_eq!(sample(&metrics, "signoff_row_active").as_deref(), Some("NaN"));
    }

    #[test]
    fn a_degradation_comes_and_goes() {
        let metrics = Metrics::new();
        let name = "signoff_degraded{reason=\"spool\"}";
        assert_eq!(sample(&metrics, name), None);
        metrics.set_degraded("spool", true);
        assert_eq!(sample(&metrics, name).as_deref(), Some("1"));
        metrics.set_degraded("spool", false);
        assert_eq!(sample(&metrics, name).as_deref(), Some("0"));
    }

    #[test]
    fn every_outcome_and_every_settling_is_there_before_it_happens() {
        let metrics = Metrics::new();
        let failure = || Failure::new("x");
        for outcome in [
            Outcome::Confirmed,
            Outcome::Absent,
            Outcome::Rejected(failure()),
            Outcome::Failed(failure()),
            Outcome::Unknown(failure()),
        ] {
            let name = format!("signoff_attempts_total{{api=\"grpc\",outcome=\"{}\"}}", outcome.label());
            assert_eq!(sample(&metrics, &name).as_deref(), Some("0"), "{name}");
            metrics.attempt(&outcome, Duration::from_millis(3));
            assert_eq!(sample(&metrics, &name).as_deref(), Some("1"), "{name}");
        }
        assert_eq!(sample(&metrics, "signoff_attempt_duration_seconds_count").as_deref(), Some("5"));
        for verdict in PREDECESSORS {
            let name = format!("signoff_predecessors_total{{verdict=\"{verdict}\"}}");
            assert_eq!(sample(&metrics, &name).as_deref(), Some("0"), "{name}");
            metrics.predecessor(verdict);
            assert_eq!(sample(&metrics, &name).as_deref(), Some("1"), "{name}");
        }
        for result in SETTLED {
            for cause in CAUSES {
                let name = format!(
                    "signoff_settled_total{{result=\"{}\",cause=\"{}\"}}",
                    result.label(),
                    cause.label()
                );
                assert_eq!(sample(&metrics, &name).as_deref(), Some("0"), "{name}");
                metrics.settled(result, cause);
                assert_eq!(sample(&metrics, &name).as_deref(), Some("1"), "{name}");
            }
        }
    }

    #[test]
    fn a_clone_counts_into_the_same_numbers() {
        let metrics = Metrics::new();
        let other = metrics.clone();
        other.set_pending(2, Some(1_500));
        other.inherited(3);
        other.restored();
        other.spool_error();
        assert_eq!(sample(&metrics, "signoff_pending_signoffs").as_deref(), Some("2"));
        assert_eq!(sample(&metrics, "signoff_oldest_pending_timestamp_seconds").as_deref(), Some("1.5"));
        assert_eq!(sample(&metrics, "signoff_inherited_total").as_deref(), Some("3"));
        assert_eq!(sample(&metrics, "signoff_restored_total").as_deref(), Some("1"));
        assert_eq!(sample(&metrics, "signoff_spool_errors_total").as_deref(), Some("1"));
        metrics.set_pending(0, None);
        assert_eq!(sample(&other, "signoff_oldest_pending_timestamp_seconds").as_deref(), Some("0.0"));
    }
}
