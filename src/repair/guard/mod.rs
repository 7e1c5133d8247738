//! Which of the dead rows may be written. Pure.
//!
//! - **blind**: where every probe of a cluster failed, or most of those at rows that are known to live, it is the prober that
//!   may be cut off: nothing is done there.
//! - **last-live**: where no row of a cluster that would stay active is known to live, nothing is done there: peers fail when
//!   no scheduler at all is active.
//! - **share**: more than a set share of the active rows is no accident of some pods: then nothing at all is done.
//! - **no-times**: a row that is dead by a silent address and a namesake alone, without a keep-alive time, may be a twin's that can't
//!   be reached from here; a run that remembers nothing would sign it off again and again. It needs an explicit word.
//! - **probes**: where something takes connections for the dead, nothing follows from a probe; rows that can't be decided
//!   without are said, and left alone.
//!
//! Withdrawals obey the same guards. Of the rows that were left for long one run takes no more than that share of all rows: the oldest
//! first, the rest in later runs. Of the replaced ones:
//!
//! - **withdrawals**: more than that share of the active rows, with those that this process withdrew in the five minutes before, is no
//!   accident of some pods: then none of them is taken. Where two fleets share names, and one is cut off while the other is rolled,
//!   every row of the living one looks replaced.
//!
//! No share counts the rows of which this process saw the pod have that address, and saw it go: those are this cluster's own, and
//! a rolling update of three is no accident. They need no keep-alive time, either, to be signed off.
//!
//! What is held back is said, and the run ends with exit code 3.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use super::{
    judge::{Circumstances, Judgement, Probed, Reason, Seen, Unproven, Verdict},
    pods::Says,
    withdraw::Candidates,
};
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
    /// Rows can't be decided, since what takes connections at their addresses doesn't answer as a scheduler.
    Probes {
        /// The cluster.
        cluster_id: u64,
        /// How many rows.
        rows: usize,
        /// Something takes connections where nobody can be, too.
        everywhere: bool,
    },
    /// Dead by what is no keep-alive time.
    NoTimes {
        /// How many rows.
        rows: usize,
        /// No active row at all has a time.
        all: bool,
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
    /// Too many were replaced at once.
    Withdrawals {
        /// How many rows would be withdrawn.
        wanted: usize,
        /// How many this process withdrew in the five minutes before.
        before: usize,
        /// How many may be, together.
        allowed: usize,
    },
}

impl Held {
    /// The labels of `signoff_reconcile_held_back{guard}`.
    pub const GUARDS: [&'static str; 6] =
        ["blind", "last-live", "share", "no-times", "probes", "withdrawals"];

    /// Which guard.
    pub fn guard(&self) -> &'static str {
        match self {
            Self::Blind { .. } => Self::GUARDS[0],
            Self::LastLive { .. } => Self::GUARDS[1],
            Self::Share { .. } => Self::GUARDS[2],
            Self::NoTimes { .. } => Self::GUARDS[3],
            Self::Probes { .. } => Self::GUARDS[4],
            Self::Withdrawals { .. } => Self::GUARDS[5],
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
            Self::Probes { cluster_id, rows, everywhere: true } => write!(
                f,
                "probes are worthless in cluster {cluster_id}: something takes connections to addresses where nobody is, as a service \
                 mesh does; its {rows} row(s) that can't be decided without are left alone: exclude the schedulers' port from the mesh \
                 (docs/meshes.md)"
            ),
            Self::Probes { cluster_id, rows, .. } => write!(
                f,
                "probes decide nothing for {rows} row(s) of cluster {cluster_id}: what takes connections at their addresses doesn't \
                 answer as a scheduler (a service mesh's proxy, see docs/meshes.md, or another program); they are left alone"
            ),
            Self::NoTimes { rows, all } => write!(
                f,
                "{}: one that lives and can't be reached from here would be signed off again by each run, so {} signed off; \
                 give a REST endpoint with a user, of a manager from v2.3.1 on, or --database-url; or say \
                 --apply-without-keep-alive-times",
                match all {
                    true => "no keep-alive times are shown (gRPC, or a manager before v2.3.1)",
                    false => "some rows have no keep-alive time (a manager before v2.3.1 made them)",
                },
                match rows {
                    0 => "no row would be".to_owned(),
                    rows => format!("{rows} row(s) are not"),
                }
            ),
            Self::Withdrawals { wanted, before, allowed } => write!(
                f,
                "{wanted} replaced row(s) would be withdrawn, and {before} were in the five minutes before; --max-share allows {allowed}: \
                 none is; look whether that many are gone (two fleets that share names look so), then raise it"
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
    /// Which are to be taken out of the table, by their place in the list.
    pub withdraw: Vec<usize>,
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
    /// Undecided rows where something answers that is no scheduler.
    masked: usize,
    dead: Vec<usize>,
    /// How many rows are to be withdrawn.
    withdraw: usize,
}

/// What may be done at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// `--max-share`.
    pub max_share: MaxShare,
    /// `--apply-without-keep-alive-times`.
    pub without_times: bool,
}

/// Whether this process saw the row's pod go.
fn went(row: &Seen) -> bool {
    row.pod == Says::Went
}

/// Whether a row is dead by a silence of its keep-alive time.
fn is_silent(judgement: &Judgement) -> bool {
    matches!(judgement.reason, Reason::Evidence { silent: true, .. })
}

/// Whether an undecided row's probe is what is missing: nothing is heard of it, or no time is shown.
fn could_be_dead(judgement: &Judgement) -> bool {
    let no_times = Some(Unproven::NoTimes);
    matches!(judgement.reason, Reason::Evidence { silent, unproven, .. } if silent || unproven == no_times)
}

/// Which rows may be signed off: the active ones that are dead or replaced and `wanted`, as far as the guards let. `found` are
/// rows that may be taken out of the table: what the guards let stays in the plan, and none of a cluster that is held back.
pub fn plan(
    rows: &[Seen],
    judged: &[Judgement],
    given: &Circumstances,
    limits: Limits,
    wanted: impl Fn(&Seen) -> bool,
    found: &Candidates,
) -> Plan {
    let mut clusters: BTreeMap<u64, Cluster> = BTreeMap::new();
    let (mut active, mut timed, mut unlooked) = (0, 0, 0);
    for (at, (row, judgement)) in rows.iter().zip(judged).enumerate() {
        let cluster = clusters.entry(row.now.cluster_id).or_default();
        // Where something answers for everybody, it doesn't show that this side is cut off.
        let counts = row.probe != Probed::NotMade && !(given.masked && row.probe == Probed::Foreign);
        cluster.probes += usize::from(counts);
        // Whoever it is that answers: this side is not cut off.
        let answers = matches!(row.probe, Probed::Answers | Probed::Proxy);
        cluster.answers += usize::from(answers);
        if judgement.alive && counts {
            cluster.controls += 1;
            cluster.controls_that_answer += usize::from(answers);
        }
        if row.now.state == State::Inactive {
            continue;
        }
        // What no share counts makes none larger.
        active += usize::from(wanted(row) && !went(row));
        timed += usize::from(row.now.keep_alive.is_some());
        cluster.live += usize::from(judgement.alive);
        cluster.unheard += usize::from(!judgement.alive);
        match judgement.verdict {
            Verdict::Dead | Verdict::Replaced if wanted(row) => cluster.dead.push(at),
            Verdict::Undecided if wanted(row) => {
                cluster.mute += usize::from(row.probe == Probed::Silent);
                let is_masked = matches!(row.probe, Probed::Foreign | Probed::Proxy);
                cluster.masked += usize::from(is_masked && could_be_dead(judgement));
                // Whether it is dead was not looked at for want of room: it counts for the share all the same.
                unlooked += usize::from(row.probe == Probed::NotMade && row.now.ip.is_some());
            }
            _ => {}
        }
    }
    for at in found.left.iter().chain(&found.replaced) {
        clusters.entry(rows[*at].now.cluster_id).or_default().withdraw += 1;
    }
    let mut plan = Plan::default();
    let mut left_alone = BTreeSet::new();
    for (cluster_id, cluster) in clusters {
        let mute_or_dead = cluster.dead.len() + cluster.mute;
        let asks = cluster.unheard + cluster.withdraw > 0;
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
        if cluster.masked > 0 {
            plan.held.push(Held::Probes { cluster_id, rows: cluster.masked, everywhere: given.masked });
        }
    }
    plan.sign_off.sort_unstable();
    if !limits.without_times {
        let wanted = plan.sign_off.len();
        plan.sign_off.retain(|at| is_silent(&judged[*at]) || went(&rows[*at]));
        let (held, all) = (wanted - plan.sign_off.len(), active > 0 && timed == 0);
        if held > 0 || (all && plan.sign_off.is_empty()) {
            plan.held.push(Held::NoTimes { rows: held, all });
        }
    }
    let max_share = limits.max_share;
    let allowed = max_share.of(active);
    let counted = plan.sign_off.iter().filter(|at| !went(&rows[**at])).count();
    let wanted = counted + if plan.sign_off.is_empty() { 0 } else { unlooked };
    if wanted > allowed {
        plan.sign_off.clear();
        plan.held.push(Held::Share { wanted, allowed, active });
        return plan;
    }
    let free = |at: &usize| !left_alone.contains(&rows[*at].now.cluster_id);
    let replaced = found.replaced.iter().copied().filter(free);
    let (went, others): (Vec<usize>, Vec<usize>) = replaced.partition(|at| went(&rows[*at]));
    plan.withdraw = went;
    if others.is_empty() || others.len() + found.withdrew <= allowed {
        plan.withdraw.extend(others);
    } else {
        let (wanted, before) = (others.len(), found.withdrew);
        plan.held.push(Held::Withdrawals { wanted, before, allowed });
    }
    plan.withdraw.extend(found.left.iter().copied().filter(free).take(max_share.of(rows.len())));
    plan.withdraw.sort_unstable();
    plan
}
