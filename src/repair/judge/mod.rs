//! What each row of the table is: live, dead, replaced, contested or undecided; and why, in words. Pure.
//!
//! What speaks of a row, each kind by itself:
//!
//! | evidence | for life | for death |
//! |---|---|---|
//! | its keep-alive time, at two looks | it moved: the scheduler lives, whatever a probe says | it did not, though the looks were three of its intervals apart, some other row's in its cluster did, and nobody wrote the row: *silence* |
//! | a probe of its ip:port | a scheduler answers, and no other active row has that address | nobody is there |
//! | its hostname, in its cluster | | another row of that name lives, its *namesake*, and was made after this one was last heard of and written |
//! | its ip:port, in its cluster | | another row with that address lives: its *neighbour*, whose answer it is then |
//! | Kubernetes' pods, of the rows that are theirs ([`super::pods`]) | a pod of that name has that ip | no pod of that name has it: *gone* |
//!
//! What takes connections and doesn't answer as a scheduler speaks neither way: a service mesh's proxy does that for the dead, in TLS
//! where it is another pod's that has the address by now. A
//! namesake whose row was there while this one was still heard of is no successor: two share that name, or it came back to an old
//! row of its own.
//!
//! **Dead needs two kinds**, no answer of its own, and no living pod. `replaced` is dead with a namesake or a neighbour in its place. Two rows of
//! one hostname that both live are contested; so is one that this process signed off and that is active again; and one that
//! answers beside a living namesake while the manager hears nothing of it; and one that would be dead, but was written long after
//! its scheduler was last heard of: something made it active again, perhaps after a sign-off of an earlier process's, which
//! remembers nothing. Whatever else is undecided: it is reported and
//! left alone. A row that is inactive, and of which nothing was heard, is as it should be; one that lives is wrongly so.
//!
//! Where a row's time could tell and doesn't yet (the looks too close together, nothing moves, the row just written), it is
//! undecided, whatever else speaks against it: a later run's looks will tell.
//!
//! Managers before v2.3.1 have no keep-alive time, and gRPC's lists show none. There a row lives if it answers at an address that
//! is its alone, and is dead if nothing answers, or its pod is gone, *and* its hostname lives elsewhere; a row that nobody
//! replaced can't be told from one that can't be reached, and is not judged dead.
//!
//! Silence counts only where something else was heard: a table in which nothing moves is a manager, or a replica, that
//! stands still. No clock is read, and that a time of one row's is earlier than another's is never evidence of death by itself: it
//! is only what a namesake needs beside its life.

use std::{cmp::Ordering, collections::BTreeSet, fmt, net::IpAddr, num::NonZeroU64, time::Duration};

use super::{
    pods::Says,
    sighting::{Sighting, Stamp, hash},
    sources::Names,
};
use crate::manager::{State, times::INTERVALS_APART};

mod reason;
#[cfg(test)]
pub(super) mod tests;

pub use reason::{Newness, Reason, Unproven};

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Its scheduler lives.
    Live,
    /// Its scheduler is gone.
    Dead,
    /// Its scheduler is gone, and another one has its hostname or its address.
    Replaced,
    /// Two claim one name, or it came back after it was signed off.
    Contested,
    /// The evidence doesn't reach.
    Undecided,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Live, Self::Dead, Self::Replaced, Self::Contested, Self::Undecided];

    /// As users read it, and the label of `signoff_reconcile_rows{verdict}`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Dead => "dead",
            Self::Replaced => "replaced",
            Self::Contested => "contested",
            Self::Undecided => "undecided",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What was found at a row's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Probed {
    /// Nobody looked.
    #[default]
    NotMade,
    /// A scheduler answers.
    Answers,
    /// A service mesh's proxy answers in TLS, of whoever has that address.
    Proxy,
    /// Refused, unreachable, or a process that hangs.
    Silent,
    /// Something takes connections that doesn't answer as a scheduler: a proxy, or another program.
    Foreign,
    /// It could not be looked at: a fault on our side.
    Unclear,
}

/// What the first look keeps of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// `last_keep_alive_at`.
    pub keep_alive: Option<Stamp>,
    /// `updated_at`: a stream's first message moves this alone.
    pub updated: Option<Stamp>,
    /// `state`.
    pub state: State,
    /// `port`: another one at the second look means that the scheduler registered anew.
    pub port: u16,
}

impl From<&Sighting> for Before {
    fn from(row: &Sighting) -> Self {
        Self { keep_alive: row.keep_alive, updated: row.updated, state: row.state, port: row.port }
    }
}

/// One row, with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// As the second look saw it.
    pub now: Sighting,
    /// As the first one did, if it did.
    pub before: Option<Before>,
    /// What was found at its address, after the second look.
    pub probe: Probed,
    /// This process signed it off earlier.
    pub ours: bool,
    /// What Kubernetes' pods say of it, after the second look.
    pub pod: Says,
}

/// What the rows were looked at with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// How hostnames match.
    pub names: Names,
    /// From the end of the first look to the beginning of the second.
    pub apart: Duration,
    /// Something takes connections even where nobody can be: probes are worthless here.
    pub masked: bool,
}

/// What a row is, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// What it is.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// There is evidence that its scheduler lives: a guard counts on it.
    pub alive: bool,
}

impl Judgement {
    /// Its scheduler lives, and its row says inactive.
    pub fn wrongly_inactive(&self) -> bool {
        matches!(self.reason, Reason::WronglyInactive { .. })
    }
}

/// What the two looks say of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Its keep-alive time moved, or it registered anew.
    Moved,
    /// It did not, and should have.
    Silent,
    /// Nothing follows from it.
    Unproven(Unproven),
    /// It is not known what it was before.
    New,
}

/// Whether its keep-alive time moved between the looks, or it registered anew.
pub(super) fn is_heard_of(row: &Seen) -> bool {
    let Some(before) = &row.before else { return false };
    before.port != row.now.port
        || match (before.keep_alive, row.now.keep_alive) {
            (Some(before), Some(now)) => now.moved_since(before),
            // Two managers of different releases may have answered: only one of them shows times.
            _ => false,
        }
}

/// Whether a row was written between the looks, by whomever.
fn written(row: &Seen) -> bool {
    let updated = row.before.and_then(|before| before.updated).zip(row.now.updated);
    updated.is_some_and(|(before, now)| now.moved_since(before))
}

/// What the two looks say of each row.
pub(super) fn hear(rows: &[Seen], given: &Circumstances) -> Vec<Heard> {
    // In its own cluster: each has its own network, and may have managers of its own.
    let clusters: BTreeSet<u64> =
        rows.iter().filter(|row| is_heard_of(row)).map(|row| row.now.cluster_id).collect();
    let one = |row: &Seen| match &row.before {
        _ if is_heard_of(row) => Heard::Moved,
        None => Heard::New,
        Some(before) if before.state == State::Inactive && row.now.state == State::Active => Heard::New,
        Some(before) if before.keep_alive.is_some() != row.now.keep_alive.is_some() => Heard::New,
        // A scheduler that has just come back to a restarted manager moves its time only with its second message.
        Some(_) if row.now.state == State::Active && written(row) => Heard::New,
        Some(before) if before.keep_alive.is_none() => Heard::Unproven(Unproven::NoTimes),
        Some(_) if !clusters.contains(&row.now.cluster_id) => Heard::Unproven(Unproven::NothingMoved),
        Some(_) if given.apart < INTERVALS_APART * row.now.interval() => Heard::Unproven(Unproven::TooSoon),
        Some(_) => Heard::Silent,
    };
    rows.iter().map(one).collect()
}

/// Judges all rows of the scope: what a row is depends on the others.
pub fn judge(rows: &[Seen], given: &Circumstances) -> Vec<Judgement> {
    let heard = hear(rows, given);
    let active = |at: usize| rows[at].now.state == State::Active;
    // Who answers where two active rows have one address is told by what was heard of them.
    let (shared, neighbours) = {
        let addresses = Groups::of(rows, &Address, |row| row.now.ip.is_some() && row.now.port != 0);
        (addresses.others(active), addresses.others(|at| active(at) && heard[at] == Heard::Moved))
    };
    let answers = |at: usize| rows[at].probe == Probed::Answers && shared[at].is_none();
    let alive: Vec<bool> = (0..rows.len())
        .map(|at| match heard[at] {
            Heard::Moved => true,
            Heard::Silent => false,
            Heard::Unproven(_) | Heard::New => answers(at) || (active(at) && rows[at].pod == Says::Lives),
        })
        .collect();
    // The one that was made last: if that one is no successor, none is.
    let made = |at: usize| {
        (rows[at].now.created.map_or(i64::MAX, |made| made.moment().unwrap_or(i64::MAX)), rows[at].now.id)
    };
    let namesakes = Groups::of(rows, &given.names, |_| true).last_others(|at| active(at) && alive[at], made);
    (0..rows.len())
        .map(|at| {
            let id = |other: Option<u32>| other.map(|at| rows[at as usize].now.id);
            let facts = Facts {
                row: &rows[at],
                heard: heard[at],
                answers_itself: answers(at),
                shared: id(shared[at]),
                namesake: id(namesakes[at]),
                succeeded: namesakes[at].is_some_and(|other| {
                    rows[at].now.times().precede(rows[other as usize].now.times()) != Some(false)
                }),
                neighbour: id(neighbours[at]),
            };
            let (verdict, reason) = if active(at) { facts.of_active() } else { facts.of_inactive() };
            Judgement { verdict, reason, alive: alive[at] }
        })
        .collect()
}

/// All that speaks of one row.
struct Facts<'a> {
    row: &'a Seen,
    heard: Heard,
    /// Something answers at its address, and it is no other active row's.
    answers_itself: bool,
    /// Another active row with its address.
    shared: Option<u64>,
    /// Another active row of its hostname, which lives.
    namesake: Option<u64>,
    /// That one was made after this one was last heard of and written, as far as that is shown.
    succeeded: bool,
    /// Another active row with its address, of which the manager hears.
    neighbour: Option<u64>,
}

impl Facts<'_> {
    fn of_active(&self) -> (Verdict, Reason) {
        let shows_itself = self.answers_itself || self.row.pod.lives();
        match self.heard {
            Heard::Moved => match self.namesake {
                Some(with) => (Verdict::Contested, Reason::Twins { with }),
                None => (Verdict::Live, Reason::Heard),
            },
            _ if self.row.ours => (Verdict::Contested, Reason::CameBack),
            Heard::New => (Verdict::Undecided, Reason::New(self.what_is_new())),
            Heard::Silent if shows_itself => match self.namesake {
                Some(with) => (Verdict::Contested, Reason::AnswersBeside { with }),
                None => (Verdict::Undecided, Reason::AnswersUnheard),
            },
            Heard::Unproven(why) if shows_itself => match self.namesake {
                Some(with) => (Verdict::Contested, Reason::Twins { with }),
                None => (Verdict::Live, Reason::Answers { why }),
            },
            Heard::Silent | Heard::Unproven(_) => self.of_what_does_not_answer(),
        }
    }

    fn what_is_new(&self) -> Newness {
        match &self.row.before {
            None => Newness::Row,
            Some(before) if before.state != self.row.now.state => Newness::State,
            Some(before) if before.keep_alive.is_some() != self.row.now.keep_alive.is_some() => Newness::Time,
            Some(_) => Newness::Written,
        }
    }

    fn of_what_does_not_answer(&self) -> (Verdict, Reason) {
        let silent = self.heard == Heard::Silent;
        let mute = self.row.probe == Probed::Silent;
        let unproven = match self.heard {
            Heard::Unproven(why) => Some(why),
            _ => None,
        };
        let is_replaced = self.succeeded || self.neighbour.is_some();
        // Of another Kubernetes cluster with such names both its address and its pod are out of sight, for one reason.
        let gone = match self.row.pod {
            Says::Gone => unproven != Some(Unproven::NoTimes) || is_replaced,
            pod => pod == Says::Went,
        };
        let kinds = [silent, mute, self.succeeded, self.neighbour.is_some(), gone];
        let reason = Reason::Evidence {
            silent,
            unproven,
            probe: self.row.probe,
            shared: self.shared.and_then(NonZeroU64::new),
            namesake: self.namesake.and_then(NonZeroU64::new),
            succeeded: self.succeeded,
            neighbour: self.neighbour.and_then(NonZeroU64::new),
        };
        // Something answers there, and it can't be told whether it is this one.
        let may_answer = self.row.probe == Probed::Answers && self.neighbour.is_none();
        // Where there are times and they prove nothing, the next run's may: what is known beside them can wait.
        let times_may_tell = matches!(unproven, Some(Unproven::NothingMoved | Unproven::TooSoon));
        let verdict = match kinds.iter().filter(|kind| **kind).count() {
            0 | 1 => Verdict::Undecided,
            _ if times_may_tell => Verdict::Undecided,
            _ if may_answer => Verdict::Undecided,
            _ if silent && self.row.now.times().were_written_apart(self.row.now.interval()) => {
                return (Verdict::Contested, Reason::WrittenApart);
            }
            _ if is_replaced => Verdict::Replaced,
            _ => Verdict::Dead,
        };
        (verdict, reason)
    }

    fn of_inactive(&self) -> (Verdict, Reason) {
        let before = self.row.before.is_some_and(|before| before.state == State::Inactive);
        match self.heard {
            // Active at the first look: it ended between the two.
            _ if !before => (Verdict::Dead, Reason::Ended),
            Heard::Moved => (Verdict::Live, Reason::WronglyInactive { heard: true }),
            Heard::Unproven(_) if self.answers_itself => {
                (Verdict::Live, Reason::WronglyInactive { heard: false })
            }
            Heard::Silent | Heard::Unproven(_) | Heard::New => (Verdict::Dead, Reason::Inactive),
        }
    }
}

/// What makes two rows alike.
pub(super) trait Likeness {
    fn compare(&self, a: &Sighting, b: &Sighting) -> Ordering;
    /// The same of rows that are alike.
    fn hash(&self, row: &Sighting) -> u32;
}

/// Half of a hash is one.
fn half(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or_default()
}

/// The same ip and port in the same cluster.
struct Address;

fn address(row: &Sighting) -> (u64, Option<IpAddr>, u16) {
    (row.cluster_id, row.ip, row.port)
}

impl Likeness for Address {
    fn compare(&self, a: &Sighting, b: &Sighting) -> Ordering {
        address(a).cmp(&address(b))
    }

    fn hash(&self, row: &Sighting) -> u32 {
        let ip = match row.ip {
            Some(IpAddr::V4(ip)) => ip.to_bits().into(),
            Some(IpAddr::V6(ip)) => ip.to_bits(),
            None => 0,
        };
        let port = row.port.to_ne_bytes();
        half(hash(row.cluster_id.to_ne_bytes().into_iter().chain(ip.to_ne_bytes()).chain(port)))
    }
}

impl Names {
    /// A hostname as it is compared. Where it isn't known how, only the exact name is evidence.
    fn folded(self, hostname: &str) -> impl Iterator<Item = u8> {
        hostname.bytes().map(move |byte| match self {
            Self::IgnoreCase => byte.to_ascii_lowercase(),
            Self::Exact | Self::Unknown => byte,
        })
    }
}

/// The same hostname in the same cluster.
impl Likeness for Names {
    fn compare(&self, a: &Sighting, b: &Sighting) -> Ordering {
        let names = || self.folded(&a.hostname).cmp(self.folded(&b.hostname));
        a.cluster_id.cmp(&b.cluster_id).then_with(names)
    }

    fn hash(&self, row: &Sighting) -> u32 {
        half(hash(row.cluster_id.to_ne_bytes().into_iter().chain(self.folded(&row.hostname))))
    }
}

/// Rows that are alike, in groups.
pub(super) struct Groups {
    /// A hash of what they are alike in, and where each is.
    order: Vec<(u32, u32)>,
    /// Where in `order` each group ends.
    ends: Vec<u32>,
    rows: usize,
}

impl Groups {
    pub(super) fn of(rows: &[Seen], likeness: &dyn Likeness, counts: impl Fn(&Seen) -> bool) -> Self {
        let compare = |a: &(u32, u32), b: &(u32, u32)| {
            likeness.compare(&rows[a.1 as usize].now, &rows[b.1 as usize].now)
        };
        let mut order: Vec<(u32, u32)> = (0u32..)
            .zip(rows)
            .filter(|(_, row)| counts(row))
            .map(|(at, row)| (likeness.hash(&row.now), at))
            .collect();
        // By the hash alone first: few names of a fleet differ before their last letters, and few rows have one hash.
        order.sort_unstable();
        for one in order.chunk_by_mut(|a, b| a.0 == b.0).filter(|one| one.len() > 1) {
            one.sort_unstable_by(|a, b| compare(a, b).then(a.1.cmp(&b.1)));
        }
        let mut ends: Vec<u32> = (1u32..)
            .zip(order.windows(2))
            .filter(|(_, pair)| pair[0].0 != pair[1].0 || compare(&pair[0], &pair[1]) != Ordering::Equal)
            .map(|(end, _)| end)
            .collect();
        ends.extend(u32::try_from(order.len()).ok().filter(|end| *end > 0));
        Self { order, ends, rows: rows.len() }
    }

    /// The places of each group that has more than one.
    pub(super) fn groups(&self) -> impl Iterator<Item = impl ExactSizeIterator<Item = usize> + Clone> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .filter(|(start, end)| *end - start > 1)
            .map(|(start, end)| self.order[start as usize..*end as usize].iter().map(|(_, at)| *at as usize))
    }

    /// For each row the last other one of its group that is `wanted`, in the order of `rank`.
    fn last_others<K: Ord>(
        &self,
        wanted: impl Fn(usize) -> bool,
        rank: impl Fn(usize) -> K,
    ) -> Vec<Option<u32>> {
        let mut others = vec![None; self.rows];
        for group in self.groups() {
            // The second one is for the first itself.
            let (mut first, mut second): (Option<usize>, Option<usize>) = (None, None);
            for at in group.clone().filter(|at| wanted(*at)) {
                let beats = |other: Option<usize>| other.is_none_or(|other| rank(at) > rank(other));
                if beats(first) {
                    second = first.replace(at);
                } else if beats(second) {
                    second = Some(at);
                }
            }
            Self::tell(&mut others, group, first, second);
        }
        others
    }

    /// For each row the first other one of its group that is `wanted`.
    fn others(&self, wanted: impl Fn(usize) -> bool) -> Vec<Option<u32>> {
        let mut others = vec![None; self.rows];
        for group in self.groups() {
            // The second one is for the first itself.
            let mut found = group.clone().filter(|at| wanted(*at));
            let (first, second) = (found.next(), found.next());
            Self::tell(&mut others, group, first, second);
        }
        others
    }

    fn tell(
        others: &mut [Option<u32>],
        group: impl Iterator<Item = usize>,
        first: Option<usize>,
        second: Option<usize>,
    ) {
        for at in group {
            let other = if first == Some(at) { second } else { first };
            // A place fits, as it does in `order`.
            others[at] = other.and_then(|other| u32::try_from(other).ok());
        }
    }
}
