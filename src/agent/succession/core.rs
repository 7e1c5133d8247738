//! Decides which rows are predecessors, what is done with each, and when to look next. Pure: a moment comes in as an argument.
//!
//! The order of a look: [`Succession::listed`] with what the manager lists, then [`Succession::looked`] with what was found at
//! each suspect's address, then [`Succession::judged`]. What can't be brought to its end is [`Succession::put_off`].

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{
    super::{lifecycle::Verdict, look::Look, moment::Moment},
    evidence::{Evidence, Readiness},
    standing::Mode,
};
use crate::{
    key::{SchedulerIp, SchedulerKey},
    manager::{
        Freshness, Listed, Row, State,
        times::{Times, were_alone},
    },
};

#[cfg(test)]
mod tests;

/// How long after the first look the second is: longer than any manager keeps a query's answer.
pub const SECOND_LOOK: Duration = Duration::from_secs(35);
/// How long it is watched whether one that was signed off comes back, and how long one that can't be looked at is tried.
pub const WATCHED: Duration = Duration::from_secs(15 * 60);
/// How soon something that failed is tried again, and how often it is looked for the own row.
const AGAIN: Duration = Duration::from_secs(5);
/// When the own row is looked for first, in keep-alive intervals: its first keep-alive comes one after the scheduler's start,
/// which may have been seen late.
const EARLY: [f32; 2] = [0.4, 0.7];
/// And after that interval.
const SOON: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// A row that is still not active this long after its scheduler began to serve is no longer a matter of seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// So long after the scheduler began to serve REST is waited for, where it is configured and doesn't answer.
pub const TIMES_WITHIN: Duration = Duration::from_secs(120);
/// What has to be watched for a while is looked at again no sooner than this.
const SOONEST: Duration = Duration::from_millis(200);
/// What answered is contested only if it still does so long after.
const ANSWERS_FOR: Duration = Duration::from_secs(30);

/// How often a list is asked for where nothing is urgent: each over gRPC leaves an entry in the manager's caches.
fn period(freshness: Freshness) -> Duration {
    match freshness {
        Freshness::Fresh => Duration::from_secs(60),
        Freshness::Within30s => Duration::from_secs(300),
    }
}

/// A row that may be a predecessor's: to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Its key.
    pub key: SchedulerKey,
    /// Its ip:port.
    pub address: SocketAddr,
    /// When it was last written, verbatim, where that is shown.
    pub updated: Option<String>,
}

/// Why a row is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contested {
    /// Something answers there, and has for a while.
    Answers,
    /// Something answered there, and is silent now.
    Answered,
    /// It became active only after our own row had been.
    Younger,
    /// The manager hears of both.
    Twin,
    /// It was heard of, or written, after our own row was made: no predecessor's was.
    Beside,
    /// It was there at one time with another row of this hostname, as no predecessor is.
    Fleets,
    /// It lives, though it was to be signed off: nothing more is written.
    Lives,
    /// It was signed off, and is active again: nothing more is written.
    CameBack,
    /// It may have been signed off, and is active: nothing more is written.
    Tried,
}

impl std::fmt::Display for Contested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Contested::Answers => "something answers at its address",
            Contested::Answered => "something answered at its address a moment ago",
            Contested::Younger => "it became active after this scheduler had",
            Contested::Lives => "it lives, though it was to be signed off as a predecessor",
            Contested::Twin => "the manager hears of both: two that live under one name",
            Contested::Beside => {
                "it was heard of, or written, after this scheduler's row was made, as no predecessor's is"
            }
            Contested::Fleets => {
                "another row of this hostname was there while the manager heard of it: two fleets share the name, and it may be cut off"
            }
            Contested::CameBack => "it was signed off as a predecessor, and is active again",
            Contested::Tried => "its sign-off was tried, and may have been made, and it is active",
        })
    }
}

/// What to do with a suspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Sign it off: nobody is there, for this reason. [`Succession::settled`] hears how that ended.
    SignOff(String),
    /// Say that it would be signed off, for this reason.
    Report(String),
    /// Say that it is contested.
    Contested(Contested),
    /// It answers, for the first time: say so, and look again.
    Answers,
    /// It can't be told by anything there is: look again, for this reason.
    Wait(String),
    /// Its times have not been watched for long enough: look again soon.
    Watch,
    /// Nothing now.
    Nothing,
}

/// What is known of a row of this hostname.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not judged yet.
    Open,
    /// It answers since then, and is not judged yet.
    Answers(Moment),
    /// It would have been signed off.
    Reported,
    /// It is being signed off.
    Asked,
    /// It was, then.
    SignedOff(Moment),
    /// It is left alone.
    Contested,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was judged yet.
    First,
    /// There was a first look, and some may have been hidden from it.
    Second {
        /// Nothing can have been hidden from it.
        fresh: bool,
        /// When it is looked once more for what was.
        at: Moment,
        /// What can't be looked at until then never will be.
        until: Moment,
    },
    /// Only whether one that was signed off comes back.
    Watch { until: Moment },
    /// No look any more, unless one is signed off late.
    Done,
    /// One came back: no look and no write any more.
    Stopped,
}

/// The decisions of one agent's life. See the module.
#[derive(Debug, Clone)]
pub struct Succession {
    key: SchedulerKey,
    interval: Duration,
    mode: Mode,
    phase: Phase,
    fates: BTreeMap<SchedulerKey, Fate>,
    /// What the lists say of each suspect.
    evidence: BTreeMap<SchedulerKey, Evidence>,
    /// REST is configured: where it doesn't answer, it is waited for a while.
    expects_times: bool,
    /// When to look at one again whose times have to be watched.
    sooner: Option<Moment>,
    /// Since when the scheduler serves and nothing is to end it.
    since: Option<Moment>,
    due: Moment,
    /// How fresh the last listing was.
    freshness: Freshness,
    /// When the listing was asked for that is being judged; none where it doesn't have the own row as active.
    judging: Option<Moment>,
}

impl Succession {
    /// For the scheduler of `key`, which sends a keep-alive every `interval`.
    pub fn new(key: SchedulerKey, interval: Duration, mode: Mode) -> Self {
        Self {
            key,
            interval,
            mode,
            phase: if mode == Mode::Off { Phase::Done } else { Phase::First },
            fates: BTreeMap::new(),
            evidence: BTreeMap::new(),
            expects_times: false,
            sooner: None,
            since: None,
            due: Moment::default(),
            freshness: Freshness::Within30s,
            judging: None,
        }
    }

    /// REST is configured, which may show times: while it doesn't answer, nothing is judged without them for [`TIMES_WITHIN`].
    pub fn expects_times(mut self, expects: bool) -> Self {
        self.expects_times = expects;
        self
    }

    /// Whose predecessors.
    pub fn key(&self) -> &SchedulerKey {
        &self.key
    }

    /// Whether the scheduler serves and nothing is to end it.
    pub fn serves(&mut self, serves: bool, now: Moment) {
        match (serves, self.since) {
            (true, None) => {
                self.since = Some(now);
                if self.phase == Phase::First {
                    self.due = now;
                }
            }
            (false, _) => self.since = None,
            (true, Some(_)) => {}
        }
    }

    /// When to look next, if at all.
    pub fn wake_at(&self) -> Option<Moment> {
        let over = matches!(self.phase, Phase::Done | Phase::Stopped);
        self.since.filter(|_| !over).map(|since| self.due.max(since))
    }

    /// The manager lists these rows of the hostname, asked for and there at these moments. Answers what is to be looked at, and
    /// what is contested without a look.
    pub fn listed(
        &mut self,
        (asked, answered): (Moment, Moment),
        listed: &Listed,
    ) -> (Vec<Suspect>, Vec<(SchedulerKey, Contested)>) {
        self.freshness = listed.freshness;
        self.judging = None;
        self.sooner = None;
        let active = || listed.rows.iter().filter(|row| row.state == State::Active);
        let others: BTreeMap<SchedulerKey, (SocketAddr, &Row)> =
            active().filter_map(|row| self.other(row).map(|(key, addr)| (key, (addr, row)))).collect();
        self.evidence.retain(|key, _| others.contains_key(key));
        let witness = listed.rows.iter().find(|row| row.is(&self.key));
        for (key, (_, row)) in &others {
            self.evidence.entry(key.clone()).or_default().listed(
                (asked, answered),
                row,
                witness,
                self.interval,
            );
        }
        if let Some(back) = others.keys().find(|key| self.came_back(key, asked)).cloned() {
            self.fates.insert(back.clone(), Fate::Contested);
            self.phase = Phase::Stopped;
            return (Vec::new(), vec![(back, Contested::CameBack)]);
        }
        let Some(own) = active().find(|row| row.is(&self.key)) else { return (Vec::new(), Vec::new()) };
        self.judging = Some(asked);
        // Inactive by now: not ours to judge any more.
        self.fates.retain(|key, fate| fate.is_judged() || others.contains_key(key));
        if !matches!(self.phase, Phase::First | Phase::Second { .. }) {
            return (Vec::new(), Vec::new());
        }
        let (mut suspects, mut contested) = (Vec::new(), Vec::new());
        let beside = self.beside_each_other(&listed.rows);
        for (key, (address, row)) in others {
            let younger = match self.phase {
                Phase::Second { fresh, .. } => fresh || row.id > own.id,
                _ => false,
            };
            let fate = self.fates.get(&key);
            if fate.is_some_and(|fate| fate.is_judged()) {
                continue;
            }
            let against = self.evidence.get(&key).and_then(Evidence::speaks_against);
            let against = against.or(beside.contains(&row.id).then_some(Contested::Fleets));
            let against = if fate.is_none() && younger { Some(Contested::Younger) } else { against };
            match against {
                Some(why) => {
                    self.fates.insert(key.clone(), Fate::Contested);
                    contested.push((key, why));
                }
                None => {
                    self.fates.entry(key.clone()).or_insert(Fate::Open);
                    suspects.push(Suspect { key, address, updated: row.updated_at.clone() });
                }
            }
        }
        (suspects, contested)
    }

    /// Where hostnames that differ in case alone are different rows, only the exact one is ours to write.
    fn is_of_the_name(&self, row: &Row) -> bool {
        row.hostname == self.key.hostname.as_str() && row.cluster_id == self.key.cluster_id.get()
    }

    /// The rows of this hostname and cluster, but the own one, that were there at one time with another of them, by their ids.
    fn beside_each_other(&self, rows: &[Row]) -> Vec<u64> {
        let others = rows.iter().filter(|row| self.is_of_the_name(row) && !row.is(&self.key));
        let others: Vec<&Row> = others.collect();
        let times: Vec<Times> = others.iter().map(|row| Times::from(*row)).collect();
        let alone = were_alone(&times).unwrap_or_default();
        others.iter().zip(alone).filter(|(_, alone)| !alone).map(|(row, _)| row.id).collect()
    }

    /// Another row of this hostname and cluster that a KeepAlive can reach and that can be looked at.
    fn other(&self, row: &Row) -> Option<(SchedulerKey, SocketAddr)> {
        if !self.is_of_the_name(row) {
            return None;
        }
        let ip: SchedulerIp = row.ip.parse().ok()?;
        // The manager compares strings: it finds no row whose address is spelled otherwise.
        if ip == self.key.ip || ip.to_string() != row.ip {
            return None;
        }
        let port = u16::try_from(row.port).ok().filter(|port| *port > 0)?;
        let key = SchedulerKey::new(self.key.cluster_id, self.key.hostname.clone(), ip);
        Some((key, SocketAddr::new(ip.get(), port)))
    }

    fn came_back(&self, key: &SchedulerKey, asked: Moment) -> bool {
        matches!(self.fates.get(key), Some(Fate::SignedOff(at)) if asked >= *at + self.freshness.age())
    }

    /// What was found at a suspect's address.
    pub fn looked(&mut self, key: &SchedulerKey, look: &Look, now: Moment) -> Decision {
        let Some(fate) = self.fates.get_mut(key) else { return Decision::Nothing };
        let readiness = |seen_to_be_gone: bool| {
            let evidence = self.evidence.get(key);
            let over_rest = self.freshness == Freshness::Fresh;
            let until = self.since.map(|since| since + TIMES_WITHIN).filter(|until| now < *until);
            let waits = until.filter(|_| self.expects_times && !over_rest);
            evidence.map_or(Readiness::Untold, |evidence| evidence.readiness(seen_to_be_gone, waits))
        };
        let sign_off = |why: String| match self.mode {
            Mode::On => Decision::SignOff(why),
            Mode::Report | Mode::Off => Decision::Report(why),
        };
        let mut sooner = None;
        let mut watch = |until: Moment| {
            sooner = Some(until);
            Decision::Watch
        };
        let decision = match (*fate, look) {
            (Fate::Answers(_), Look::Silent(_)) => Decision::Contested(Contested::Answered),
            (Fate::Open, Look::Silent(why)) | (Fate::Open | Fate::Answers(_), Look::Reused(why)) => {
                match readiness(true) {
                    Readiness::Gone(_) | Readiness::Untold => sign_off(why.clone()),
                    Readiness::NotYet(until) => watch(until),
                }
            }
            (Fate::Open, Look::Lives) => Decision::Answers,
            (Fate::Answers(since), Look::Lives) if now - since >= ANSWERS_FOR => {
                Decision::Contested(Contested::Answers)
            }
            (Fate::Answers(_), Look::Lives) => Decision::Nothing,
            (Fate::Open | Fate::Answers(_), Look::Unclear(why)) => match readiness(false) {
                Readiness::Gone(silent) => sign_off(format!("{why}; but {silent}")),
                Readiness::NotYet(until) => watch(until),
                Readiness::Untold => Decision::Wait(why.clone()),
            },
            (Fate::Reported | Fate::Asked | Fate::SignedOff(_) | Fate::Contested, _) => Decision::Nothing,
        };
        *fate = match decision {
            Decision::SignOff(_) => Fate::Asked,
            Decision::Report(_) => Fate::Reported,
            Decision::Contested(_) => Fate::Contested,
            Decision::Answers => Fate::Answers(now),
            Decision::Wait(_) | Decision::Watch | Decision::Nothing => *fate,
        };
        self.sooner = [self.sooner, sooner].into_iter().flatten().min();
        decision
    }

    /// All that the listing showed was dealt with, as far as it could be. Answers what is left undecided for good.
    pub fn judged(&mut self, now: Moment) -> Vec<SchedulerKey> {
        let judged = self.judging.take();
        if let Phase::Watch { until } = self.phase {
            self.due = now + period(self.freshness);
            if now >= until {
                self.phase = Phase::Done;
            }
            return Vec::new();
        }
        let Some(asked) = judged else {
            self.due = self.look_for_own_row(now);
            return Vec::new();
        };
        let undecided = self.fates.values().any(|fate| !fate.is_judged());
        let asked_off = self.fates.values().any(|fate| matches!(fate, Fate::Asked | Fate::SignedOff(_)));
        match self.phase {
            Phase::First => {
                let fresh = self.freshness == Freshness::Fresh;
                let at = asked + SECOND_LOOK;
                self.phase = Phase::Second { fresh, at, until: asked + WATCHED };
                self.due = self.soon_or(at, now);
            }
            Phase::Second { at, .. } if asked < at => self.due = self.soon_or(at, now),
            Phase::Second { until, .. } if undecided && now < until => {
                self.due = self.soon_or(now + SECOND_LOOK, now);
            }
            Phase::Second { .. } => {
                if asked_off {
                    self.watch(now)
                } else {
                    self.phase = Phase::Done
                }
                let left = self.fates.iter().filter(|(_, fate)| !fate.is_judged());
                return left.map(|(key, _)| key.clone()).collect();
            }
            Phase::Watch { .. } | Phase::Done | Phase::Stopped => {}
        }
        Vec::new()
    }

    /// `at`, or sooner where the times of one are to be looked at sooner.
    fn soon_or(&self, at: Moment, now: Moment) -> Moment {
        self.sooner.map_or(at, |sooner| sooner.max(now + SOONEST).min(at))
    }

    /// The look could not be brought to its end.
    pub fn put_off(&mut self, now: Moment) {
        self.judging = None;
        self.due = now + AGAIN;
    }

    fn watch(&mut self, now: Moment) {
        self.phase = Phase::Watch { until: now + WATCHED };
        self.due = now + period(self.freshness);
    }

    fn look_for_own_row(&self, now: Moment) -> Moment {
        let Some(since) = self.since else { return now + AGAIN };
        let first = since + self.interval;
        let early = EARLY.iter().map(|part| since + self.interval.mul_f32(*part));
        let soon = early.chain(SOON.iter().map(|after| first + *after)).find(|at| *at > now);
        soon.unwrap_or_else(|| now + if now - first < PATIENCE { AGAIN } else { period(self.freshness) })
    }

    /// A sign-off of this key was found in the spool and is made: not to be asked for again.
    pub fn inherited(&mut self, key: &SchedulerKey) {
        let same_name = key.cluster_id == self.key.cluster_id && key.hostname == self.key.hostname;
        if same_name && key.ip != self.key.ip {
            let fate = self.fates.entry(key.clone()).or_insert(Fate::Asked);
            if !matches!(fate, Fate::SignedOff(_) | Fate::Contested) {
                *fate = Fate::Asked;
            }
        }
    }

    /// A sign-off ended: one that was asked for here (`own`), or one that was found in the spool.
    pub fn settled(
        &mut self,
        key: &SchedulerKey,
        verdict: Verdict,
        own: bool,
        now: Moment,
    ) -> Option<Contested> {
        let fate = self.fates.get_mut(key).filter(|fate| **fate == Fate::Asked)?;
        match verdict {
            Verdict::Confirmed | Verdict::Absent => {
                *fate = Fate::SignedOff(now);
                if matches!(self.phase, Phase::Watch { .. } | Phase::Done) {
                    self.watch(now);
                }
                None
            }
            Verdict::Superseded => {
                *fate = Fate::Contested;
                if own {
                    self.phase = Phase::Stopped;
                }
                Some(Contested::Lives)
            }
            Verdict::Contested => {
                *fate = Fate::Contested;
                if own {
                    self.phase = Phase::Stopped;
                }
                Some(Contested::Tried)
            }
            // It stays as it is, and is not asked for again.
            Verdict::NeverRegistered | Verdict::Dropped | Verdict::Queued => None,
        }
    }
}

impl Fate {
    fn is_judged(self) -> bool {
        !matches!(self, Fate::Open | Fate::Answers(_))
    }
}
