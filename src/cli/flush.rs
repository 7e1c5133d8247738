//! `signoff queue flush`: settles all of a spool.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{args::FlushArgs, print, settings, spool_failed};
use crate::{
    agent::{
        alone::{self, FlushError, Progress},
        disk::DiskError,
        lifecycle::Verdict,
    },
    exit::Exit,
    key::SchedulerKey,
    spool::record::Record,
};

/// Settles, with a bar on a terminal and a line for each key elsewhere.
pub async fn run(args: FlushArgs) -> Exit {
    let (found, problems) = match settings::resolved(args.inputs()).await {
        Ok(resolved) => resolved,
        Err(exit) => return exit,
    };
    if found.without_manager {
        return super::usage(&"the scheduler's configuration names no manager: give --manager HOST:PORT");
    }
    if !found.has_grpc() {
        return settings::incomplete(&problems);
    }
    let shown = Arc::new(Shown::new());
    let (settled, left) = match alone::flush(&found, args.deadline, shown.as_ref()).await {
        Ok(counts) => counts,
        Err(error @ FlushError::Held) => {
            settings::unavailable(&error);
            return Exit::HeldBack;
        }
        Err(FlushError::Disk(DiskError::Spool(error))) => return spool_failed(&error),
        Err(error) => return settings::unavailable(&error),
    };
    shown.bar.finish_and_clear();
    print(&format!("{settled} settled, {left} left queued"));
    if left > 0 { Exit::Queued } else { Exit::Done }
}

struct Shown {
    bar: ProgressBar,
    /// Why each key isn't settled yet.
    last: Mutex<BTreeMap<SchedulerKey, String>>,
}

impl Shown {
    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, last: Mutex::default() }
    }
}

impl Progress for Shown {
    fn found(&self, keys: usize) {
        self.bar.inc_length(keys as u64);
        // Drawn before the first is settled: an outage would show nothing.
        self.bar.tick();
    }

    fn waits(&self, key: &SchedulerKey, why: &str) {
        self.bar.set_message(format!("{key}: {why}"));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.get(key).is_none_or(|known| known != why) {
            tracing::info!(scheduler.key = %key, reason = why, "Not settled yet.");
            last.insert(key.clone(), why.to_owned());
        }
    }

    fn left(&self, asks: &[Record], why: &str) {
        let keys: BTreeSet<String> = asks.iter().map(|ask| ask.key.to_string()).collect();
        for key in keys {
            self.bar.suspend(|| print(&format!("left: {key} ({why})")));
        }
    }

    fn settled(&self, key: &SchedulerKey, verdict: Verdict) {
        let why = match verdict {
            Verdict::Queued => self.last.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned(),
            _ => None,
        };
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        self.bar.suspend(|| print(&format!("{}: {key}{why}", verdict.label())));
        self.bar.inc(1);
    }
}
