//! Which of the dead rows may be written. Pure.
//!
//! - **blind**: where every probe of a cluster failed, or most of those at rows that are known to live, it is the prober that
//!   may be cut off: nothing is done there.
//! - **last-live**: where no row of a cluster that would stay active is known to live, nothing is done there: peers fail when
//!   no scheduler at all is active.
//! - **share**: more than a set share of the active rows is no accident of some pods: then nothing at all is done.
//!
//! Deletions obey the same guards, and one run deletes no more than that share of all rows: the oldest first, the rest in later
//! runs. What is held back is said, and the run ends with exit code 3.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use super::judge::{Judgement, Probed, Seen, Verdict};
use crate::manager::State;

#[cfg(test)]
mod tests;

/// `--max-share`: how many rows one run may sign off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxShare {
    /// In thousandths of a percent of the active rows in the scope; at least one row.
    Share(usize),
    /// So many.
    Count(usize),
}

impl Default for MaxShare {
    fn default() -> Self {
        Self::percent(15)
    }
}

impl MaxShare {
    const ALL: usize = 100_000;

    /// So many percent.
    pub const fn percent(percent: usize) -> Self {
        Self::Share(percent * (Self::ALL / 100))
    }

    /// How many of `active` rows.
    pub fn of(self, active: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Share(share) => (active.saturating_mul(share) / Self::ALL).max(1),
        }
    }
}

impl FromStr for MaxShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "it is neither a share such as 15% (above 0%, at most 100%) nor a count such as 3 (at least 1)"
                .to_owned()
        };
        let text = text.trim();
        match text.strip_suffix('%') {
            Some(percent) => {
                let share = thousandths(percent.trim()).filter(|share| (1..=Self::ALL).contains(share));
                share.map(Self::Share).ok_or_else(wrong)
            }
            None => match text.parse() {
                Ok(0) | Err(_) => Err(wrong()),
                Ok(count) => Ok(Self::Count(count)),
            },
        }
    }
}

/// A decimal number in thousandths; what is beyond them is cut. By whole numbers: a parser of floats is 16 KB of program.
fn thousandths(number: &str) -> Option<usize> {
    let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
    let digits = [whole, rest].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut shown = whole.bytes().chain(rest.bytes().chain(std::iter::repeat(b'0')).take(3));
    shown.try_fold(0, |so_far: usize, digit| so_far.checked_mul(10)?.checked_add(usize::from(digit - b'0')))
}

impl fmt::Display for MaxShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => {
                let number = format!("{}.{:03}", share / 1000, share % 1000);
                write!(f, "{}%", number.trim_end_matches('0').trim_end_matches('.'))
            }
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// Why something is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// Every probe in this cluster failed, or most of those at schedulers that are known to live.
    Blind {
        /// The cluster.
        cluster_id: u64,
        /// How many probes there were.
        probes: usize,
        /// How many found somebody.
        answers: usize,
    },
    /// No row of this cluster that would stay active is known to live.
    LastLive {
        /// The cluster.
        cluster_id: u64,
        /// How many of its rows are dead, or may be: nothing answers there.
        wanted: usize,
    },
    /// Too many at once.
    Share {
        /// How many rows would be signed off.
        wanted: usize,
        /// How many may be.
        allowed: usize,
        /// Of how many active ones.
        active: usize,
    },
}

impl Held {
    /// The labels of `signoff_reconcile_held_back{guard}`.
    pub const GUARDS: [&'static str; 3] = ["blind", "last-live", "share"];

    /// Which guard.
    pub fn guard(&self) -> &'static str {
        match self {
            Self::Blind { .. } => Self::GUARDS[0],
            Self::LastLive { .. } => Self::GUARDS[1],
            Self::Share { .. } => Self::GUARDS[2],
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blind { cluster_id, probes, answers: 0 } => write!(
                f,
                "blind in cluster {cluster_id}: every probe failed ({probes} of {probes}), so it may be this side that is cut off \
                 (a NetworkPolicy, a node): nothing is done there"
            ),
            Self::Blind { cluster_id, .. } => write!(
                f,
                "blind in cluster {cluster_id}: most probes of schedulers that live failed, so it may be this side that is cut off \
                 (a NetworkPolicy, a node): nothing is done there"
            ),
            Self::LastLive { cluster_id, wanted } => write!(
                f,
                "no scheduler that would stay active in cluster {cluster_id} is known to live, and peers fail without any: its {wanted} \
                 row(s) where nothing answers are left alone"
            ),
            Self::Share { wanted, allowed, active } => write!(
                f,
                "{wanted} of {active} active rows would be signed off, or may be dead and were not looked at, and --max-share allows {allowed}: nothing is done; look whether \
                 that many are gone, then raise it"
            ),
        }
    }
}

/// What may be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Which rows are to be signed off, by their place in the list.
    pub sign_off: Vec<usize>,
    /// Which are to be deleted, by their place in the list.
    pub purge: Vec<usize>,
    /// What was held back, and why.
    pub held: Vec<Held>,
}

/// Whether what probes say of a cluster is believed: somebody answered, and of the rows known to live no minority.
fn sees(cluster: &Cluster) -> bool {
    cluster.answers > 0 && 2 * cluster.controls_that_answer >= cluster.controls
}

#[derive(Default)]
struct Cluster {
    probes: usize,
    answers: usize,
    /// Active rows that are known to live.
    live: usize,
    /// Active rows of which nothing was heard.
    unheard: usize,
    /// Living rows that were probed beside the others, and those of them that answer.
    controls: usize,
    controls_that_answer: usize,
    /// Undecided rows where nothing answers.
    mute: usize,
    dead: Vec<usize>,
    /// How many rows are to be deleted.
    purge: usize,
}

/// Which rows may be signed off: the active ones that are dead or replaced and `wanted`, as far as the guards let. `purge` are
/// rows to be deleted, oldest first: as many stay in the plan as the share allows of all rows, and none of a cluster that is held back.
pub fn plan(
    rows: &[Seen],
    judged: &[Judgement],
    max_share: MaxShare,
    wanted: impl Fn(&Seen) -> bool,
    purge: &[usize],
) -> Plan {
    let mut clusters: BTreeMap<u64, Cluster> = BTreeMap::new();
    let (mut active, mut unlooked) = (0, 0);
    for (at, (row, judgement)) in rows.iter().zip(judged).enumerate() {
        let cluster = clusters.entry(row.now.cluster_id).or_default();
        cluster.probes += usize::from(row.probe != Probed::NotMade);
        cluster.answers += usize::from(row.probe == Probed::Answers);
        if judgement.alive && row.probe != Probed::NotMade {
            cluster.controls += 1;
            cluster.controls_that_answer += usize::from(row.probe == Probed::Answers);
        }
        if row.now.state == State::Inactive {
            continue;
        }
        active += usize::from(wanted(row));
        cluster.live += usize::from(judgement.alive);
        cluster.unheard += usize::from(!judgement.alive);
        match judgement.verdict {
            Verdict::Dead | Verdict::Replaced if wanted(row) => cluster.dead.push(at),
            Verdict::Undecided if wanted(row) => {
                cluster.mute += usize::from(row.probe == Probed::Silent);
                // Whether it is dead was not looked at for want of room: it counts for the share all the same.
                unlooked += usize::from(row.probe == Probed::NotMade && row.now.ip.is_some());
            }
            _ => {}
        }
    }
    for at in purge {
        clusters.entry(rows[*at].now.cluster_id).or_default().purge += 1;
    }
    let mut plan = Plan::default();
    let mut left_alone = BTreeSet::new();
    for (cluster_id, cluster) in clusters {
        let mute_or_dead = cluster.dead.len() + cluster.mute;
        let asks = cluster.unheard + cluster.purge > 0;
        if asks && cluster.probes > 0 && !sees(&cluster) {
            let Cluster { probes, answers, .. } = cluster;
            plan.held.push(Held::Blind { cluster_id, probes, answers });
            left_alone.insert(cluster_id);
        } else if mute_or_dead > 0 && cluster.live == 0 {
            plan.held.push(Held::LastLive { cluster_id, wanted: mute_or_dead });
            left_alone.insert(cluster_id);
        } else {
            plan.sign_off.extend(cluster.dead);
        }
    }
    plan.sign_off.sort_unstable();
    let allowed = max_share.of(active);
    let wanted = plan.sign_off.len() + if plan.sign_off.is_empty() { 0 } else { unlooked };
    if wanted > allowed {
        plan.sign_off.clear();
        plan.held.push(Held::Share { wanted, allowed, active });
        return plan;
    }
    let free = purge.iter().copied().filter(|at| !left_alone.contains(&rows[*at].now.cluster_id));
    plan.purge = free.take(max_share.of(rows.len())).collect();
    plan.purge.sort_unstable();
    plan
}
