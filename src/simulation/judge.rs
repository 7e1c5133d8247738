//! Judges a history against the guarantees, each in a function of its own. Knows nothing of how an agent decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    dragonflies::{address_of, manager_of},
    fleet::GRACE,
    history::{Call, CallId, End, Event, HAND, Pid, Target},
    world::INTERVAL,
};
use crate::{
    agent::lifecycle::Verdict,
    exit::Exit,
    key::SchedulerKey,
    manager::{Freshness, LIST_AGE, RowState},
    spool::record::{Cause, RecordId},
};

mod repair;

pub(super) type Events = [(Duration, Event)];

/// How long an attempt of unknown outcome may still be applied.
const LINGER: Duration = Duration::from_secs(60);
/// How long after a disk's trouble what was not written may still be missing.
const DISK_RECOVERS: Duration = Duration::from_secs(8);
/// What is not on disk was refused by it, or dropped by hand this short time ago.
const DROP_IS_SEEN: Duration = Duration::from_secs(8);

/// A guarantee that was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) guarantee: &'static str,
    pub(super) at: Duration,
    pub(super) how: String,
}

struct Ask {
    key: SchedulerKey,
    cause: Cause,
    listed: bool,
    by: Pid,
    born: Duration,
    /// When it may have been asked: a disk that hangs writes it later.
    since: Duration,
}

/// A call of an agent, as the history tells it.
struct Made {
    pid: Pid,
    key: SchedulerKey,
    what: Call,
    on_disk: bool,
    target: Target,
    began: (usize, Duration),
    ended: Option<(usize, Duration, End)>,
}

impl Made {
    /// From when to when it may have been applied.
    fn closed(&self, killed: Option<Duration>) -> Duration {
        match self.ended {
            Some((_, at, End::Unknown)) => at + LINGER,
            Some((_, at, _)) => at,
            None => killed.map_or(Duration::MAX, |at| at + LINGER),
        }
    }
}

/// A history, indexed.
struct Case<'a> {
    events: &'a Events,
    keys: BTreeMap<Pid, (SchedulerKey, String, Duration)>,
    ends: BTreeMap<Pid, Duration>,
    asks: BTreeMap<RecordId, Ask>,
    calls: BTreeMap<CallId, Made>,
    /// When a disk was, or may have been, in trouble.
    troubles: Vec<(Duration, Duration)>,
    drops: Vec<(Duration, RecordId)>,
    broken: Vec<Broken>,
}

/// All that was broken.
pub(super) fn judge(events: &Events) -> Vec<Broken> {
    let mut case = Case::of(events);
    case.g1_what_is_tried_or_answered_is_on_disk();
    case.g1_g5_g6_what_goes_was_settled();
    case.g1_g5_each_dragonfly_settles_its_own();
    case.g2_g3_g6_in_the_end_all_is_right();
    case.g2_a_hold_is_the_last_resort();
    case.g3_there_is_no_storm_of_attempts();
    case.g4_it_ends_in_time_and_only_when_told();
    case.g5_what_is_said_was_acknowledged();
    case.g7_repairing_makes_no_outage();
    case.g7_reconciling_makes_no_outage();
    case.broken.sort_by_key(|broken| broken.at);
    case.broken
}

impl<'a> Case<'a> {
    fn of(events: &'a Events) -> Self {
        let mut case = Self {
            events,
            keys: BTreeMap::new(),
            ends: BTreeMap::new(),
            asks: BTreeMap::new(),
            calls: BTreeMap::new(),
            troubles: Vec::new(),
            drops: Vec::new(),
            broken: Vec::new(),
        };
        let mut ill: BTreeMap<usize, Duration> = BTreeMap::new();
        for (n, (at, event)) in events.iter().enumerate() {
            match event {
                Event::Started { pid, key, spool } => {
                    case.keys.insert(*pid, (key.clone(), spool.clone(), *at));
                }
                Event::Killed { pid } | Event::Exited { pid, .. } => {
                    case.ends.insert(*pid, *at);
                }
                Event::Asked { pid, id, key, cause, listed } => {
                    let ask = Ask {
                        key: key.clone(),
                        cause: *cause,
                        listed: *listed,
                        by: *pid,
                        born: *at,
                        since: *at,
                    };
                    case.asks.entry(id.clone()).or_insert(ask);
                }
                Event::AskGone { pid: HAND, id, .. } => case.drops.push((*at, id.clone())),
                Event::Began { pid, call, key, what, on_disk, target } => {
                    let (pid, key, what, on_disk, target) = (*pid, key.clone(), *what, *on_disk, *target);
                    let made = Made { pid, key, what, on_disk, target, began: (n, *at), ended: None };
                    case.calls.insert(*call, made);
                }
                Event::Ended { call, end, .. } => {
                    if let Some(made) = case.calls.get_mut(call) {
                        made.ended = Some((n, *at, *end));
                    }
                }
                Event::Disk { node, works: false } => {
                    ill.entry(*node).or_insert(*at);
                }
                Event::Disk { node, works: true } => {
                    if let Some(since) = ill.remove(node) {
                        case.troubles.push((since, *at + DISK_RECOVERS));
                    }
                }
                _ => {}
            }
        }
        case.troubles.extend(ill.into_values().map(|since| (since, Duration::MAX)));
        for ask in case.asks.values_mut() {
            let hung = case.troubles.iter().filter(|(from, to)| (*from..=*to).contains(&ask.born));
            ask.since = hung.map(|(from, _)| *from).min().unwrap_or(ask.born);
        }
        case
    }

    fn breaks(&mut self, guarantee: &'static str, at: Duration, how: String) {
        self.broken.push(Broken { guarantee, at, how });
    }

    fn disk_is_blameless(&self, at: Duration) -> bool {
        !self.troubles.iter().any(|(from, to)| (*from..=*to).contains(&at))
    }

    fn dropped_lately(&self, key: &SchedulerKey, at: Duration) -> bool {
        self.drops.iter().any(|(when, id)| {
            // While the disk gives trouble nobody sees it.
            let trouble =
                self.troubles.iter().filter(|(from, to)| *from <= *when + DROP_IS_SEEN && when <= to);
            let seen = trouble.map(|(_, to)| *to).fold(*when, Duration::max).saturating_add(DROP_IS_SEEN);
            (*when..=seen).contains(&at) && self.asks.get(id).is_some_and(|ask| ask.key == *key)
        })
    }

    /// G1: persisted before it is attempted, answered or left.
    fn g1_what_is_tried_or_answered_is_on_disk(&mut self) {
        let mut found = Vec::new();
        let excused = |key: &SchedulerKey, at| !self.disk_is_blameless(at) || self.dropped_lately(key, at);
        for (call, made) in &self.calls {
            let at = made.began.1;
            let agents = self.keys.contains_key(&made.pid);
            if agents && matches!(made.what, Call::SignOff { .. }) && !made.on_disk && !excused(&made.key, at)
            {
                found.push((at, format!("call {call} of {} was begun without an ask on disk", made.key)));
            }
        }
        for (at, event) in self.events {
            match event {
                Event::Answered { pid, result: Verdict::Queued, persisted, on_disk, .. } => {
                    let key = &self.keys[pid].0;
                    if *persisted && !on_disk && !self.dropped_lately(key, *at) {
                        found.push((*at, format!("{pid} answered that the ask is on disk, and it isn't")));
                    }
                    if !persisted && !excused(key, *at) {
                        found
                            .push((*at, format!("{pid} answered that the ask is not on disk, whose fault?")));
                    }
                }
                Event::Exited { pid, exit: Exit::Queued, on_disk: false }
                    if !excused(&self.keys[pid].0, *at) =>
                {
                    found.push((*at, format!("{pid} left its ask queued, and it isn't on disk")));
                }
                _ => {}
            }
        }
        for (at, how) in found {
            self.breaks("G1", at, how);
        }
    }

    /// G1, G5, G6: an ask goes only when it was acknowledged with nothing open beside it, or a read after all were closed
    /// said so; or its scheduler lives; or by hand.
    fn g1_g5_g6_what_goes_was_settled(&mut self) {
        let mut found = Vec::new();
        let mut accepted: BTreeSet<&RecordId> = BTreeSet::new();
        for (n, (at, event)) in self.events.iter().enumerate() {
            match event {
                Event::Asked { id, .. } => drop(accepted.insert(id)),
                Event::AskGone { pid, id, .. } if *pid != HAND && accepted.contains(id) => {
                    let Some(ask) = self.asks.get(id) else { continue };
                    // What the disk refused was taken back within the same moment, and is no ask.
                    let taken_back = ask.born == *at && !self.disk_is_blameless(*at);
                    // A damaged copy in the place of one that is held is set aside, and the ask written again.
                    let again = self.events[n..].iter().take_while(|(then, _)| then == at).any(|(_, event)| {
                        matches!(event, Event::Asked { pid: by, id: asked, .. } if by == pid && asked == id)
                    });
                    if taken_back
                        || again
                        || self.lives(*pid, ask, n)
                        || self.a_predecessors_is_over(*pid, ask, n)
                    {
                        continue;
                    }
                    if let Err((guarantee, why)) = self.is_settled(*pid, id, ask, n) {
                        found.push((
                            guarantee,
                            *at,
                            format!("{pid} settled {id} of {} ({:?}): {why}", ask.key, ask.cause),
                        ));
                    }
                }
                _ => {}
            }
        }
        for (guarantee, at, how) in found {
            self.breaks(guarantee, at, how);
        }
    }

    /// G1, G5: no manager has a word to say of another's row.
    fn g1_g5_each_dragonfly_settles_its_own(&mut self) {
        let mut found = Vec::new();
        for (at, event) in self.events {
            let Event::AskGone { pid, id, .. } = event else { continue };
            let (Some(ask), Some((key, ..))) = (self.asks.get(id), self.keys.get(pid)) else { continue };
            // What the disk refused was taken back within the same moment, and is no ask.
            let taken_back = ask.by == *pid && ask.born == *at;
            if manager_of(&ask.key) != manager_of(key) && !taken_back {
                found.push((*at, format!("{pid}, of another Dragonfly, settled {id} of {}", ask.key)));
            }
        }
        for (at, how) in found {
            self.breaks("G5", at, how);
        }
    }

    /// Whether the agent could know that the ask's scheduler lives.
    fn lives(&self, pid: Pid, ask: &Ask, before: usize) -> bool {
        let own = self.keys.get(&pid).is_some_and(|(key, ..)| *key == ask.key);
        let address = address_of(&ask.key);
        let mut serves = false;
        let mut ever = false;
        for (at, event) in &self.events[..before] {
            match event {
                Event::Sight { pid: seen, serves: now } if *seen == pid && own => serves = *now == Some(true),
                Event::Probed { pid: seen, address: there, answers, .. }
                    if *seen == pid && *there == address =>
                {
                    serves = *answers == Some(true);
                }
                _ => {}
            }
            ever |= serves && *at >= ask.since;
        }
        let once = ask.cause == Cause::Predecessor;
        ever || serves
            || self.was_heard_of(pid, ask, before)
            || (once && !own && self.came_back(pid, ask, before))
    }

    /// A predecessor's ask is superseded where its row is active after an acknowledged attempt.
    fn came_back(&self, pid: Pid, ask: &Ask, before: usize) -> bool {
        let confirmed = self.calls.values().any(|made| {
            made.pid == pid && made.key == ask.key && matches!(made.ended, Some((_, _, End::Confirmed)))
        });
        confirmed
            && self.events[..before].iter().any(|(_, event)| {
                matches!(event, Event::Read { pid: read, key, state: Some(RowState::Active), .. } if *read == pid && *key == ask.key)
            })
    }

    fn is_settled(
        &self,
        pid: Pid,
        id: &RecordId,
        ask: &Ask,
        before: usize,
    ) -> Result<(), (&'static str, String)> {
        let Some((_, _, started)) = self.keys.get(&pid) else { return Err(("G1", "by nobody".to_owned())) };
        let ours: Vec<&Made> = self
            .calls
            .values()
            .filter(|made| made.pid == pid && made.key == ask.key && made.began.0 < before)
            .collect();
        let acknowledged = ours.iter().filter(|made| {
            let Some((n, _, end)) = made.ended else { return false };
            let signs_off = !matches!(made.what, Call::Hold);
            n < before
                && signs_off
                && made.began.1 >= ask.since
                && matches!(end, End::Confirmed | End::Absent)
        });
        let (mut any, mut why) = (false, "no attempt since it was asked was acknowledged".to_owned());
        for made in acknowledged {
            let Some((ended, confirmed, end)) = made.ended else { continue };
            if end == End::Absent && !ask.listed && !self.was_listed(pid, &ask.key, before) {
                // What another process asked and nobody ever saw is settled once the manager has said so twice, a minute apart.
                let said_before = |first: &&Made| matches!(first.ended, Some((_, at, End::Absent)) if at + LINGER <= confirmed);
                if ask.by != pid && ours.iter().copied().any(|first| said_before(&first)) {
                    return Ok(());
                }
                why = "absent, of a key that was never seen".to_owned();
                continue;
            }
            any = true;
            // An attempt for which another ask of the key stays on disk is that one's matter. A disk that is slow carries out
            // later what was decided then: what began since may have had its own ask refused.
            let counts = |other: &Made, at: usize| {
                let refused = other.began.0 >= at && !self.disk_is_blameless(other.began.1);
                !refused && !self.is_for_another(id, other, before)
            };
            // The attempts of the agent before count for a minute from this one's start.
            // Of a predecessor nobody on this spool may know: its sign-off is made once, on what is seen of it.
            let theirs = ask.by != pid || self.keys[&pid].0 == ask.key;
            let inherited = (theirs && self.asks_before(pid, &ask.key)).then_some(*started + LINGER);
            let others = ours.iter().filter(|other| other.began.0 != made.began.0);
            let closed_by = |n: usize| {
                let beside = others.clone().filter(|other| counts(other, n));
                let closed = beside.map(|other| other.closed(None)).chain(inherited);
                closed.filter(|closed| *closed > made.began.1).max()
            };
            let Some(closed) = closed_by(ended) else { return Ok(()) };
            let read = self.events[..before].iter().enumerate().any(|(n, (_, event))| {
                let Event::Read { pid: read, key, asked, state: Some(state), freshness } = event else {
                    return false;
                };
                let closed = closed_by(n).unwrap_or_default();
                let age = if *freshness == Freshness::Fresh {
                    Duration::ZERO
                } else {
                    LIST_AGE - Duration::from_secs(1)
                };
                let proves = *asked >= closed.max(confirmed).saturating_add(age);
                *read == pid && *key == ask.key && *state != RowState::Active && proves
            });
            if read {
                return Ok(());
            }
            why = format!(
                "another attempt was open until {closed:?}, and no read since said that the row is inactive"
            );
        }
        Err((if any { "G6" } else { "G5" }, why))
    }

    /// Whether an attempt was begun for another ask of the same key, which is still on disk.
    fn is_for_another(&self, ask: &RecordId, attempt: &Made, before: usize) -> bool {
        self.asks.iter().any(|(id, other)| {
            let gone =
                |(_, event): &(_, Event)| matches!(event, Event::AskGone { id: gone, .. } if gone == id);
            let there = other.since <= attempt.began.1 && !self.events[..before].iter().any(gone);
            there && other.key == attempt.key && id != ask
        })
    }

    /// Whether a dead agent left something on this one's spool that says that attempts may be open.
    fn asks_before(&self, pid: Pid, key: &SchedulerKey) -> bool {
        let (_, spool, started) = &self.keys[&pid];
        // What was dropped by hand says nothing any more.
        let dropped = |id| self.drops.iter().any(|(at, gone)| *at < *started && gone == id);
        self.asks.iter().any(|(id, ask)| ask.key == *key && ask.born < *started && !dropped(id))
            && self.calls.values().any(|made| {
                let same = self.keys.get(&made.pid).is_some_and(|(_, other, _)| other == spool);
                let killed = self.ends.get(&made.pid).copied();
                // What the disk refused for as long as that process lived, no record tells of.
                let told =
                    [Some(made.began.1), killed].into_iter().flatten().any(|at| self.disk_is_blameless(at));
                let open = made.began.1 < *started && made.closed(killed) > *started;
                same && told && made.pid != pid && made.key == *key && open
            })
    }

    fn was_listed(&self, pid: Pid, key: &SchedulerKey, before: usize) -> bool {
        self.events[..before].iter().any(|(_, event)| match event {
            Event::Listed { pid: by, keys } => {
                let own = manager_of(&self.keys[&pid].0) == manager_of(key);
                (*by == pid && own)
                    && keys.iter().any(|(name, ip, _)| name == key.hostname.as_str() && *ip == key.ip.get())
            }
            Event::Read { pid: by, key: read, state, .. } => {
                *by == pid && read == key && matches!(state, Some(RowState::Active | RowState::Inactive))
            }
            _ => false,
        })
    }

    /// G2, G3, G6: after a while of quiet each row is as it should be, and nothing is left over.
    fn g2_g3_g6_in_the_end_all_is_right(&mut self) {
        for (at, event) in self.events {
            match event {
                Event::Final { key, wanted: true, active: false, why } => {
                    self.breaks("G2", *at, format!("{key} is left inactive, and {why}"));
                }
                Event::Final { key, wanted: false, active: true, why } => {
                    self.breaks("G3", *at, format!("{key} is left active, and {why}"));
                }
                Event::Panicked { pid } => self.breaks("panic", *at, format!("{pid} panicked")),
                Event::Left { id } => self.breaks("G6", *at, format!("{id} is never settled")),
                _ => {}
            }
        }
    }

    /// G2: a scheduler that was seen to come back sets its row active itself, and until that was due nobody holds its row: a hold
    /// that is not needed makes a living scheduler inactive when its agent ends.
    fn g2_a_hold_is_the_last_resort(&mut self) {
        let mut found = Vec::new();
        let mut came_back: BTreeMap<Pid, (bool, Option<Duration>)> = BTreeMap::new();
        for (at, event) in self.events {
            match event {
                Event::Sight { pid, serves } => {
                    let (refused, back) = came_back.entry(*pid).or_default();
                    if *serves == Some(true) && std::mem::take(refused) {
                        *back = Some(*at);
                    }
                    *refused |= *serves == Some(false);
                }
                Event::Began { pid, key, what: Call::Hold, .. } => {
                    let back = came_back.get(pid).and_then(|(_, back)| *back);
                    if let Some(back) = back.filter(|back| *at < *back + INTERVAL * 2) {
                        let waited = *at - back;
                        found.push((
                            *at,
                            format!("{pid} holds {key} {waited:?} after its scheduler came back"),
                        ));
                    }
                }
                _ => {}
            }
        }
        for (at, how) in found {
            self.breaks("G2", at, how);
        }
    }

    /// G3: attempts wait for each other, whatever the manager, or what answers in its place, is like: in a grace half a second on the
    /// average, in the background some seconds at the least; hedges double that.
    fn g3_there_is_no_storm_of_attempts(&mut self) {
        let mut begun: BTreeMap<(Pid, &SchedulerKey), Vec<Duration>> = BTreeMap::new();
        for made in self.calls.values().filter(|made| matches!(made.what, Call::SignOff { .. })) {
            begun.entry((made.pid, &made.key)).or_default().push(made.began.1);
        }
        let mut urged: BTreeMap<Pid, Vec<Duration>> = BTreeMap::new();
        for (at, event) in self.events {
            match event {
                Event::PreStop { pid, .. }
                | Event::Terminated { pid }
                | Event::Sight { pid, serves: Some(false) }
                | Event::Started { pid, .. }
                | Event::Asked { pid, .. } => urged.entry(*pid).or_default().push(*at),
                _ => {}
            }
        }
        let mut found = Vec::new();
        for ((pid, key), mut at) in begun {
            at.sort_unstable();
            let urged = urged.get(&pid).map_or(&[][..], Vec::as_slice);
            let waits = |from: Duration, to: Duration| {
                urged.iter().any(|urged| *urged <= to && *urged + GRACE + Duration::from_secs(15) >= from)
            };
            for (window, at_most, background) in [(10, 60, false), (20, 16, true)] {
                let window = Duration::from_secs(window);
                let storm = at.windows(at_most + 1).find(|some| {
                    let (first, last) = (some[0], some[at_most]);
                    last - first < window && !(background && waits(first, last))
                });
                if let Some(storm) = storm {
                    found.push((
                        storm[0],
                        format!("{pid} makes over {at_most} attempts on {key} in {window:?}"),
                    ));
                }
            }
        }
        for (at, how) in found {
            self.breaks("G3", at, how);
        }
    }

    /// G4: by the deadline exit was called, and without SIGTERM it never is.
    fn g4_it_ends_in_time_and_only_when_told(&mut self) {
        let mut found = Vec::new();
        let last = self.events.last().map_or(Duration::ZERO, |(at, _)| *at);
        for (pid, (_, _, started)) in &self.keys {
            let mut told = None;
            // The first sign of this ending.
            let (mut served, mut ending): (bool, Option<Duration>) = (false, None);
            let mut over = last;
            let mut exited = false;
            for (at, event) in self.events {
                match event {
                    Event::Terminated { pid: who } if who == pid && told.is_none() => told = Some(*at),
                    Event::PreStop { pid: who, .. } if who == pid => {
                        ending = ending.filter(|began| *began + GRACE >= *at).or(Some(*at));
                    }
                    Event::Sight { pid: who, serves: Some(true) } if who == pid && told.is_none() => {
                        (served, ending) = (true, None);
                    }
                    Event::Sight { pid: who, serves: Some(false) } if who == pid && served => {
                        ending = ending.filter(|began| *began + GRACE >= *at).or(Some(*at));
                    }
                    Event::Killed { pid: who } if who == pid => over = *at,
                    Event::Exited { pid: who, .. } if who == pid => (over, exited) = (*at, true),
                    _ => {}
                }
                if told == Some(*at) {
                    ending = ending.filter(|began| *began + GRACE >= *at).or(Some(*at));
                }
            }
            match told {
                None if exited => {
                    found.push((over, format!("{pid}, started at {started:?}, ended by itself")))
                }
                Some(told) => {
                    let began = ending.filter(|began| *began <= told).unwrap_or(told);
                    let deadline = (began + GRACE).max(told + Duration::from_secs(2));
                    if over > deadline {
                        found.push((
                            over,
                            format!("{pid} was told to stop at {told:?} and lived past {deadline:?}"),
                        ));
                    }
                }
                None => {}
            }
        }
        for (at, how) in found {
            self.breaks("G4", at, how);
        }
    }

    /// G5: an answer of success, and the exit code of one, rest on an acknowledgement since the asking.
    fn g5_what_is_said_was_acknowledged(&mut self) {
        let mut found = Vec::new();
        let mut hooks: BTreeMap<u64, Duration> = BTreeMap::new();
        let acknowledged = |pid: Pid, since: Duration, until: Duration, wanted: End| {
            let key = &self.keys[&pid].0;
            self.calls.values().any(|made| {
                let ended =
                    made.ended.is_some_and(|(_, at, end)| end == wanted && at <= until && at >= since);
                made.pid == pid && made.key == *key && !matches!(made.what, Call::Hold) && ended
            })
        };
        for (at, event) in self.events {
            match event {
                Event::PreStop { hook, .. } => drop(hooks.insert(*hook, *at)),
                Event::Answered { pid, hook, result, .. } => {
                    let since = hooks.get(hook).copied().unwrap_or_default();
                    let wanted = match result {
                        Verdict::Confirmed => End::Confirmed,
                        Verdict::Absent => End::Absent,
                        _ => continue,
                    };
                    // A read that proves it may end a watch over an earlier acknowledgement.
                    if !acknowledged(*pid, since, *at, wanted) {
                        found.push((*at, format!("{pid} answered {result:?}, and nothing was acknowledged")));
                    }
                }
                Event::Exited { pid, exit: Exit::Done, .. } => {
                    let started = self.keys[pid].2;
                    let said = acknowledged(*pid, started, *at, End::Confirmed)
                        || acknowledged(*pid, started, *at, End::Absent)
                        || self.dropped_since(*pid, started)
                        || self.read_inactive(*pid, *at);
                    if !said {
                        found.push((*at, format!("{pid} left with success, and nothing was acknowledged")));
                    }
                }
                _ => {}
            }
        }
        for (at, how) in found {
            self.breaks("G5", at, how);
        }
    }

    fn dropped_since(&self, pid: Pid, since: Duration) -> bool {
        let key = &self.keys[&pid].0;
        self.drops.iter().any(|(at, id)| *at >= since && self.asks.get(id).is_some_and(|ask| ask.key == *key))
    }

    fn read_inactive(&self, pid: Pid, until: Duration) -> bool {
        let own = &self.keys[&pid].0;
        self.events.iter().take_while(|(at, _)| *at <= until).any(|(_, event)| {
            matches!(event, Event::Read { pid: by, key, state: Some(state), .. } if *by == pid && key == own && *state != RowState::Active)
        })
    }
}
