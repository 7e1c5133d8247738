//! What Prometheus sees of `signoff reconcile --every`. Labels come from fixed sets; no host name, no IP.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::{
    guard::Held,
    judge::Verdict,
    reconcile::{Counts, Outcome, Report},
};
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Run {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Guard {
    guard: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rows {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    outcome: &'static str,
}

/// The result of a run that could not read the rows.
const FAILED: &str = "failed";
/// Beside the verdicts on active rows.
const WRONGLY_INACTIVE: &str = "wrongly-inactive";

/// Reconcile's metrics. Clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    runs: Family<Run, Counter>,
    last_run: Gauge<f64, AtomicU64>,
    interval: Gauge<f64, AtomicU64>,
    held_back: Family<Guard, Gauge>,
    rows: Family<Rows, Gauge>,
    signoffs: Family<Write, Counter>,
    withdrawals: Family<Write, Counter>,
    given: Gauge,
    given_for: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Nothing has run yet; `every` is the time between two runs' beginnings.
    pub fn new(every: Duration) -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            runs: Family::default(),
            last_run: Gauge::default(),
            interval: Gauge::default(),
            held_back: Family::default(),
            rows: Family::default(),
            signoffs: Family::default(),
            withdrawals: Family::default(),
            given: Gauge::default(),
            given_for: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("signoff");
        metrics.register(&mut registry);
        metrics.registry = Arc::new(registry);
        metrics.interval.set(every.as_secs_f64());
        for result in Outcome::ALL.map(Outcome::label).into_iter().chain([FAILED]) {
            drop(metrics.runs.get_or_create(&Run { result }));
        }
        for guard in Held::GUARDS {
            drop(metrics.held_back.get_or_create(&Guard { guard }));
        }
        for verdict in Verdict::ALL.map(Verdict::label).into_iter().chain([WRONGLY_INACTIVE]) {
            drop(metrics.rows.get_or_create(&Rows { verdict }));
        }
        for outcome in ["signed-off", FAILED, "came-back"] {
            drop(metrics.signoffs.get_or_create(&Write { outcome }));
        }
        for outcome in ["withdrawn", FAILED] {
            drop(metrics.withdrawals.get_or_create(&Write { outcome }));
        }
        metrics
    }

    /// The encoder appends `_total` to a counter's name, `_info` to an info's, the unit to any, and a full stop to the help.
    fn register(&self, registry: &mut Registry) {
        let build = Info::new(Build { version: env!("CARGO_PKG_VERSION") });
        registry.register("build", "The running version", build);
        registry.register("reconcile_runs", "Runs that ended, by result", self.runs.clone());
        registry.register_with_unit(
            "reconcile_last_run_timestamp",
            "When the last run ended that could read the rows, as Unix time (0: none yet)",
            Unit::Seconds,
            self.last_run.clone(),
        );
        registry.register_with_unit(
            "reconcile_interval",
            "What --every says: the time between the beginnings of two runs",
            Unit::Seconds,
            self.interval.clone(),
        );
        registry.register(
            "reconcile_held_back",
            "Whether a guard held the last run back (1) or not (0), by guard",
            self.held_back.clone(),
        );
        registry.register(
            "reconcile_rows",
            "Active rows by the last run's verdict, before its repair; and those that are wrongly inactive",
            self.rows.clone(),
        );
        registry.register(
            "reconcile_signoffs",
            "Sign-offs of dead schedulers' rows, by outcome",
            self.signoffs.clone(),
        );
        registry.register(
            "reconcile_withdrawals",
            "Rows that were to be taken out of the table, by outcome",
            self.withdrawals.clone(),
        );
        registry.register(
            "reconcile_given_rows",
            "Rows that peers naming their cluster are given after the last run, though nobody is there",
            self.given.clone(),
        );
        registry.register_with_unit(
            "reconcile_given",
            "How long ago the manager last heard of the oldest of those",
            Unit::Seconds,
            self.given_for.clone(),
        );
    }

    /// A run ended, at this Unix time in milliseconds.
    pub fn ended(&self, report: &Report, at: u64) {
        let counts = report.counts();
        let result = report.outcome().label();
        self.runs.get_or_create(&Run { result }).inc();
        self.last_run.set(Duration::from_millis(at).as_secs_f64());
        for guard in Held::GUARDS {
            let held = report.plan.held.iter().any(|held| held.guard() == guard);
            self.held_back.get_or_create(&Guard { guard }).set(i64::from(held));
        }
        let gauge = |verdict, count: usize| {
            self.rows.get_or_create(&Rows { verdict }).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        for verdict in Verdict::ALL {
            gauge(verdict.label(), counts.of(verdict));
        }
        gauge(WRONGLY_INACTIVE, counts.wrongly_inactive);
        self.given.set(i64::try_from(counts.given).unwrap_or(i64::MAX));
        self.given_for.set(report.given_for().as_secs_f64());
        let Counts { signed_off, came_back, failed, withdrawn, not_withdrawn, .. } = counts;
        let add = |family: &Family<Write, Counter>, outcome, count: usize| {
            family.get_or_create(&Write { outcome }).inc_by(count as u64);
        };
        add(&self.signoffs, "signed-off", signed_off);
        add(&self.signoffs, "came-back", came_back);
        add(&self.signoffs, FAILED, failed);
        add(&self.withdrawals, "withdrawn", withdrawn);
        add(&self.withdrawals, FAILED, not_withdrawn);
    }

    /// A run could not read the rows.
    pub fn failed(&self) {
        self.runs.get_or_create(&Run { result: FAILED }).inc();
    }

    /// All metrics as OpenMetrics text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::with_capacity(4 << 10);
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_the_promised_ones_and_all_labels_are_there_before_the_first_run() {
        let text = Metrics::new(Duration::from_secs(300)).text().unwrap();
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
                "signoff_build_info",
                "signoff_reconcile_given_rows",
                "signoff_reconcile_given_seconds",
                "signoff_reconcile_held_back",
                "signoff_reconcile_interval_seconds",
                "signoff_reconcile_last_run_timestamp_seconds",
                "signoff_reconcile_rows",
                "signoff_reconcile_runs_total",
                "signoff_reconcile_signoffs_total",
                "signoff_reconcile_withdrawals_total",
            ]
        );
        for line in [
            "signoff_reconcile_interval_seconds 300.0",
            "signoff_reconcile_last_run_timestamp_seconds 0.0",
            "signoff_reconcile_runs_total{result=\"held-back\"} 0",
            "signoff_reconcile_runs_total{result=\"failed\"} 0",
            "signoff_reconcile_held_back{guard=\"last-live\"} 0",
            "signoff_reconcile_rows{verdict=\"wrongly-inactive\"} 0",
            "signoff_reconcile_signoffs_total{outcome=\"came-back\"} 0",
            "signoff_reconcile_withdrawals_total{outcome=\"withdrawn\"} 0",
            "signoff_reconcile_given_rows 0",
        ] {
            assert!(text.lines().any(|there| there == line), "{line}\n{text}");
        }
    }
}
