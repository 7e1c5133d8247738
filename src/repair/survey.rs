//! Gathering the evidence: two looks at the table, then a probe of each row that the looks leave open.
//!
//! Probing is bounded: so many at a time, each so long, so many in a run (beyond that a random part of them, so that over some
//! runs each is seen). In every cluster with a row to be probed some rows that live are probed beside it: if these don't
//! answer either, it is this side that can't see (see [`super::guard`]). Where something takes connections even at addresses where
//! nobody can be, probes are worthless, and that is kept ([`Circumstances::masked`]).

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use super::{
    judge::{Before, Circumstances, Heard, Probed, Seen, Unproven, hear},
    memory::Memory,
    pods::Says,
    sighting::{Sighting, USUAL_INTERVAL},
    sources::{Scope, Source},
    withdraw::{self, Wanted},
};
use crate::{
    manager::{Failure, State, times::INTERVALS_APART},
    net::{Found, Prober},
};

#[cfg(test)]
pub(super) mod tests;

/// How many probes are under way at a time: each takes a file descriptor.
const AT_ONCE: usize = 64;
/// How long a probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// How many rows are probed in a run: past it, the mute ones alone would take longer than a minute.
const PROBES: usize = 2_000;
/// How many living rows of a cluster are probed beside the others.
const CONTROLS: usize = 8;
/// A row with a longer interval than a third of this is judged only with a longer `--recheck-after`.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// What to look at, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which clusters.
    pub scope: Scope,
    /// `--recheck-after`: between the two looks; three of the longest keep-alive interval if none.
    pub recheck_after: Option<Duration>,
    /// What may be taken out of the table: such rows are probed too.
    pub wanted: Wanted,
    /// Only what is needed to judge this row is probed.
    pub only: Option<u64>,
}

/// Hears how far a run is. Called often; must not block.
pub trait Progress: Send + Sync {
    /// So many rows were read in this look (1 or 2).
    fn read(&self, look: u8, rows: usize);
    /// Waiting so long for the second look.
    fn waiting(&self, left: Duration);
    /// So many of so many rows were probed.
    fn probed(&self, done: usize, of: usize);
    /// So many of so many rows were written.
    fn written(&self, done: usize, of: usize);
}

/// Everything that is known.
#[derive(Debug)]
pub struct Survey {
    /// The rows of the second look, by id.
    pub rows: Vec<Seen>,
    /// How they were looked at.
    pub given: Circumstances,
    /// What a probe said that found nobody, by row id.
    pub probe_words: BTreeMap<u64, String>,
    /// Rows that should have been probed and were not: there are too many.
    pub not_probed: usize,
    /// Only what one row needs was probed: the guards can't be judged by it.
    pub partial: bool,
}

/// Looks twice, then probes. `memory` knows which rows this process signed off before. Fails where a look fails: rows may be
/// missing then.
pub async fn survey(
    source: &dyn Source,
    prober: &Prober,
    options: &Options,
    memory: &Memory,
    progress: &dyn Progress,
) -> Result<Survey, Failure> {
    let mut first: Vec<(u64, Before)> = Vec::new();
    let mut longest = Duration::ZERO;
    source
        .look(&options.scope, &mut |row| {
            if row.state == State::Active {
                longest = longest.max(row.interval());
            }
            first.push((row.id, Before::from(&row)));
            progress.read(1, first.len());
        })
        .await?;
    first.sort_unstable_by_key(|(id, _)| *id);
    let looked = Instant::now();
    wait(options.recheck_after.unwrap_or_else(|| between(longest)), progress).await;

    let apart = looked.elapsed();
    let mut rows: Vec<Seen> = Vec::with_capacity(first.len());
    let mut next = 0;
    source
        .look(&options.scope, &mut |now| {
            // Mostly the one behind the last one's: most sources go by id.
            let expected = first.get(next).is_some_and(|(id, _)| *id == now.id);
            let found = if expected { Ok(next) } else { first.binary_search_by_key(&now.id, |(id, _)| *id) };
            next = found.map_or_else(|at| at, |at| at + 1);
            let before = found.ok().map(|at| first[at].1);
            let ours = memory.is_ours(&now, looked + apart);
            rows.push(Seen { now, before, probe: Probed::NotMade, ours, pod: Says::NotOurs });
            progress.read(2, rows.len());
        })
        .await?;
    drop(first);
    rows.sort_unstable_by_key(|row| row.now.id);
    let given = Circumstances { names: source.names(), apart, masked: false };
    let partial = options.only.is_some();
    let mut survey = Survey { rows, given, probe_words: BTreeMap::new(), not_probed: 0, partial };
    survey.probe(prober, options, progress).await;
    Ok(survey)
}

/// How far apart the looks are, by the longest interval of an active row.
fn between(longest: Duration) -> Duration {
    let interval = if longest.is_zero() { USUAL_INTERVAL } else { longest };
    (interval * INTERVALS_APART).min(LONGEST_WAIT)
}

async fn wait(time: Duration, progress: &dyn Progress) {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        progress.waiting(left);
        sleep(left.min(Duration::from_secs(1))).await;
    }
}

impl Survey {
    async fn probe(&mut self, prober: &Prober, options: &Options, progress: &dyn Progress) {
        let heard = hear(&self.rows, &self.given);
        let mut open = self.open(options, &heard);
        if open.len() > PROBES {
            fastrand::shuffle(&mut open);
            self.not_probed = open.len() - PROBES;
            open.truncate(PROBES);
        }
        let controls = self.controls(&open, &heard);
        let all: Vec<(usize, SocketAddr)> = open
            .into_iter()
            .chain(controls)
            .filter_map(|at| Some((at, address(&self.rows[at].now)?)))
            .collect();
        let of = all.len();
        let mut found = stream::iter(all)
            .map(|(at, addr)| async move { (at, prober.look(addr, PROBE_LIMIT).await) })
            .buffer_unordered(AT_ONCE);
        let mut done = 0;
        while let Some((at, found)) = found.next().await {
            done += 1;
            progress.probed(done, of);
            let row = &mut self.rows[at];
            let (probed, words) = match found {
                Found::Scheduler => (Probed::Answers, None),
                Found::Nobody(words) => (Probed::Silent, Some(words)),
                Found::Proxy(words) => (Probed::Proxy, Some(words)),
                Found::Something { why, everywhere } => {
                    self.given.masked |= everywhere;
                    (Probed::Foreign, Some(why))
                }
                Found::CantLook(words) => (Probed::Unclear, Some(words)),
            };
            row.probe = probed;
            self.probe_words.extend(words.map(|words| (row.now.id, words)));
        }
    }

    /// The rows that the looks leave open: active ones nothing was heard of; where there are no times inactive ones too, since
    /// their schedulers may live; and those that may be taken out of the table.
    fn open(&self, options: &Options, heard: &[Heard]) -> Vec<usize> {
        let newest = withdraw::newest(&self.rows, heard);
        let replaced = options.wanted.replaced.then(|| withdraw::replaced(&self.rows, heard, &self.given));
        let asked = options.only.and_then(|id| self.rows.iter().find(|row| row.now.id == id));
        if self.partial && asked.is_none() {
            return Vec::new();
        }
        (0..self.rows.len())
            .filter(|at| {
                let row = &self.rows[*at];
                let open = match (row.now.state, heard[*at]) {
                    (_, Heard::Moved) => false,
                    (State::Active, _) | (State::Inactive, Heard::Unproven(Unproven::NoTimes)) => true,
                    (State::Inactive, Heard::Unproven(_) | Heard::New) => false,
                    (State::Inactive, Heard::Silent) => {
                        let age = withdraw::age(row, newest);
                        let is_left = options.wanted.left.zip(age).is_some_and(|(after, age)| age >= after);
                        is_left || replaced.as_ref().is_some_and(|replaced| replaced[*at])
                    }
                };
                open && address(&row.now).is_some()
                    && asked.is_none_or(|asked| {
                        row.now.id == asked.now.id
                            || (row.now.cluster_id == asked.now.cluster_id
                                && row.now.hostname.eq_ignore_ascii_case(&asked.now.hostname))
                    })
            })
            .collect()
    }

    /// Some living rows of each cluster in which others are probed.
    fn controls(&self, open: &[usize], heard: &[Heard]) -> Vec<usize> {
        let mut wanted: BTreeMap<u64, usize> =
            open.iter().map(|at| (self.rows[*at].now.cluster_id, CONTROLS)).collect();
        (0..self.rows.len())
            .filter(|at| {
                let row = &self.rows[*at].now;
                let lives =
                    row.state == State::Active && heard[*at] == Heard::Moved && address(row).is_some();
                lives
                    && wanted.get_mut(&row.cluster_id).is_some_and(|left| {
                        let any = *left > 0;
                        *left = left.saturating_sub(1);
                        any
                    })
            })
            .collect()
    }
}

/// Where a row's scheduler is to be reached.
pub(super) fn address(row: &Sighting) -> Option<SocketAddr> {
    row.ip.filter(|_| row.port != 0).map(|ip| SocketAddr::new(ip, row.port))
}

/// Looks once more who is there.
pub(super) async fn probe_again(prober: &Prober, row: &Sighting) -> Option<Found> {
    Some(prober.look(address(row)?, PROBE_LIMIT).await)
}
