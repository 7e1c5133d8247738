//! Asks on the spool that are not known to be for this manager: another Dragonfly's, or of an older release, which didn't say.
//!
//! One is attempted here only if this manager shows its row, with the port that the ask names: a manager that goes by another name
//! now does, another Dragonfly's doesn't. (Under hostNetwork the schedulers of two Dragonflies on one node have one
//! key, and ports of their own.) Until then nothing is held, so that whoever can settle it finds it unlocked.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{
    disk::WHOLE_SPOOL,
    lifecycle::Verdict,
    moment::Moment,
    replay::{Origin, Replay},
    run::by_key,
    shell::{READ_LIMIT, within},
    succession::task::Heirloom,
};
use crate::{
    key::SchedulerKey,
    manager::{Failure, Filter, Manager},
    spool::record::{Record, RecordId},
};

/// How soon one is looked up again whose row was not shown.
const AGAIN: Duration = Duration::from_secs(600);
/// How soon one is whose row was shown and that was not settled; doubling, up to the same.
const SOON: Duration = Duration::from_secs(60);
/// How soon it is, where it could not be asked; doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How many are taken at a time: whoever writes an ask meanwhile waits for all of them.
const AT_A_TIME: usize = 256;

/// Which asks need not be looked at before when.
#[derive(Debug, Default)]
pub struct Strangers {
    let_alone: HashMap<RecordId, LetAlone>,
}

#[derive(Debug, Clone, Copy)]
struct LetAlone {
    /// None: for as long as this process lives.
    until: Option<Moment>,
    /// How long the next time.
    next: Duration,
}

/// What came of an ask that was due, and is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSettled {
    /// The manager doesn't show its row.
    Hidden,
    /// It was shown, and something stood in the way.
    Hindered,
    /// A predecessor is signed off once in a process's life.
    ForGood,
}

impl Strangers {
    /// Those of these asks that are to be looked at now. Never one of the agent's own key: its row is another scheduler's.
    pub fn due(&mut self, found: &[Record], own: &SchedulerKey, now: Moment) -> Vec<Record> {
        let is_there = |id: &RecordId| found.iter().any(|ask| ask.id == *id);
        self.let_alone.retain(|id, alone| alone.until.is_none() || is_there(id));
        let is_due = |ask: &&Record| {
            let alone = self.let_alone.get(&ask.id);
            let due = alone.is_none_or(|alone| alone.until.is_some_and(|until| now >= until));
            ask.key != *own && ask.address.is_some() && due
        };
        found.iter().filter(is_due).cloned().collect()
    }

    /// So it ended, just now.
    pub fn tried(&mut self, left: Vec<(RecordId, NotSettled)>, now: Moment) {
        for (id, left) in left {
            let next = self.let_alone.get(&id).map_or(SOON, |alone| alone.next);
            let alone = match left {
                NotSettled::Hidden => LetAlone { until: Some(now + AGAIN), next: SOON },
                NotSettled::Hindered => LetAlone { until: Some(now + next), next: (next * 2).min(AGAIN) },
                NotSettled::ForGood => LetAlone { until: None, next: AGAIN },
            };
            self.let_alone.insert(id, alone);
        }
    }
}

/// Looks these asks up in the manager, and attempts those whose rows it shows. Answers what was left of them.
/// `heirlooms` hears of those.
pub async fn try_them(
    replay: Replay,
    asks: Vec<Record>,
    heirlooms: mpsc::UnboundedSender<Heirloom>,
) -> Vec<(RecordId, NotSettled)> {
    let mut pause = FIRST_PAUSE;
    let shown = loop {
        match shown(replay.manager.as_ref(), &asks).await {
            Ok(shown) => break shown,
            // Nothing is held meanwhile.
            Err(_) => tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    let all = asks.into_iter().map(|ask| ask.id);
    let (shown, hidden): (Vec<RecordId>, Vec<RecordId>) = all.partition(|id| shown.contains(id));
    let mut left: Vec<_> = hidden.into_iter().map(|id| (id, NotSettled::Hidden)).collect();
    let mut settling = FuturesUnordered::new();
    for some in shown.chunks(AT_A_TIME) {
        // What somebody else has taken meanwhile is theirs; what there is no room for comes another time.
        let taken = replay.disk.take_these(some.to_vec(), WHOLE_SPOOL).await.unwrap_or_default();
        replay.metrics.inherited(taken.records.len() as u64);
        settling.extend(by_key(taken.records).into_iter().map(|(key, found)| {
            let (replay, heirlooms) = (&replay, &heirlooms);
            // Nobody listens where succession is off.
            let _ = heirlooms.send(Heirloom::Taken(key.clone()));
            async move {
                let left =
                    if found.are_a_predecessors() { NotSettled::ForGood } else { NotSettled::Hindered };
                let ids: Vec<RecordId> = found.asks.iter().map(|ask| ask.id.clone()).collect();
                let origin = Origin::Stranger { patient: false };
                let verdict = replay.settle(key.clone(), found.asks, origin, None, &|_| ()).await;
                // Whatever was begun for it is not begun once more.
                let is_left_alone = verdict == Verdict::Queued && left == NotSettled::ForGood;
                let told = if is_left_alone { Verdict::Contested } else { verdict };
                let _ = heirlooms.send(Heirloom::Settled(key, told));
                (ids, left, verdict)
            }
        }));
    }
    while let Some((ids, how, verdict)) = settling.next().await {
        if verdict == Verdict::Queued {
            left.extend(ids.into_iter().map(|id| (id, how)));
        }
    }
    left
}

/// Which of these asks' rows the manager shows, active or not, each with the port that the ask names.
pub async fn shown(manager: &dyn Manager, asks: &[Record]) -> Result<HashSet<RecordId>, Failure> {
    let clusters: BTreeSet<_> = asks.iter().map(|ask| ask.key.cluster_id).collect();
    let mut rows: HashSet<(u64, String, SocketAddr)> = HashSet::new();
    for cluster in clusters {
        let listed = within(READ_LIMIT, manager.list(&Filter::Cluster(cluster))).await?;
        rows.extend(listed.rows.into_iter().filter_map(|row| {
            let (ip, port) = (row.ip.parse::<IpAddr>().ok()?, u16::try_from(row.port).ok()?);
            Some((
                row.cluster_id,
                row.hostname.to_ascii_lowercase(),
                SocketAddr::new(ip.to_canonical(), port),
            ))
        }));
    }
    let is_shown = |ask: &&Record| {
        ask.address.is_some_and(|address| {
            let hostname = ask.key.hostname.as_str().to_ascii_lowercase();
            rows.contains(&(
                ask.key.cluster_id.get(),
                hostname,
                SocketAddr::new(ask.key.ip.get(), address.port()),
            ))
        })
    };
    Ok(asks.iter().filter(is_shown).map(|ask| ask.id.clone()).collect())
}

#[cfg(test)]
mod tests;
