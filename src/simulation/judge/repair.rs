//! G7: repairing makes no outage.

use std::{collections::BTreeSet, time::Duration};

use super::{
    super::{
        dragonflies::address_of,
        history::{CallId, End, Event, Pid},
        world::INTERVAL,
    },
    Ask, Case, LINGER, Made,
};
use crate::{
    key::SchedulerKey,
    manager::RowState,
    spool::record::{Cause, RecordId},
};

/// What comes between a look and the attempt that it led to is no fault of the look: a read and a probe that begin together, and
/// take as long as a slow manager and a silent address do.
const A_MOMENT: Duration = Duration::from_secs(2);
/// A read, and the beginning of the attempt that it led to.
const A_READ: Duration = Duration::from_millis(50);
/// A look is believed for so long.
const LOOK_AGE: Duration = Duration::from_secs(70);

impl Case<'_> {
    /// Another's row is written only on evidence that it is gone, and a predecessor's once.
    pub(super) fn g7_repairing_makes_no_outage(&mut self) {
        let mut found = Vec::new();
        let mut asked: BTreeSet<(Pid, &SchedulerKey)> = BTreeSet::new();
        for (at, event) in self.events {
            if let Event::Asked { pid, key, cause: Cause::Predecessor, id, .. } = event
                // An ask that the disk refused is offered to it again.
                && self.asks[id].born == *at
                && !asked.insert((*pid, key))
                && self.disk_is_blameless(*at)
            {
                found.push((*at, format!("{pid} asked twice for its predecessor {key}")));
            }
        }
        for (call, made) in &self.calls {
            let Some((own, ..)) = self.keys.get(&made.pid) else { continue };
            if *own == made.key {
                continue;
            }
            let found = &mut found;
            let mut say = |how: String| found.push((made.began.1, how));
            if let Err(looked) = self.was_seen_to_be_gone(made) {
                say(format!("{} signs {} off, and its last look was {looked}", made.pid, made.key));
            }
            if !self.is_a_predecessors(made) {
                continue;
            }
            if lives_and_is_heard_of(made) {
                say(format!(
                    "{} signs {} off, which lives, and the manager heard of it {:?} ago",
                    made.pid, made.key, made.target.unheard_for
                ));
            }
            if let Some(earlier) = self.was_begun_before(*call, made) {
                say(format!(
                    "{} signs its predecessor {} off again, after call {earlier}",
                    made.pid, made.key
                ));
            }
        }
        for (at, how) in found {
            self.breaks("G7", at, how);
        }
    }

    /// The same of reconcile: only on evidence, and a row that came back only after a run that saw it live.
    pub(super) fn g7_reconciling_makes_no_outage(&mut self) {
        let mut found = Vec::new();
        for (call, made) in self.calls.iter().filter(|(_, made)| !self.keys.contains_key(&made.pid)) {
            let Made { pid, key, target, began: (_, at), .. } = made;
            if lives_and_is_heard_of(made) {
                let ago = target.unheard_for;
                found.push((
                    *at,
                    format!("reconcile {pid} signs {key} off, which lives and was heard of {ago:?} ago"),
                ));
            }
            if let Err(looked) = self.was_seen_to_be_gone(made) {
                found.push((*at, format!("reconcile {pid} signs {key} off, and its last look was {looked}")));
            }
            // One that is inactive is signed off once more before it is withdrawn.
            if target.active
                && !self.became_active_just_before(made)
                && let Some(earlier) = self.was_reconciled_before(*call, made)
            {
                found.push((*at, format!("reconcile {pid} signs {key} off again, after call {earlier}")));
            }
        }
        // A row that it takes out of the table: of a living scheduler only where that is cut off, and then it is put back (G2); and
        // that of a key only once.
        let mut withdrawn = BTreeSet::new();
        for (at, event) in self.events {
            if let Event::Withdrew { pid, key, lives, unheard_for } = event {
                // What comes between the last read and the deletion is undone by its agent.
                if *lives && *unheard_for < 3 * INTERVAL && *unheard_for > A_READ {
                    found.push((
                        *at,
                        format!("reconcile {pid} withdraws {key}, which lives and was heard of {unheard_for:?} ago"),
                    ));
                }
                if !withdrawn.insert((pid, key)) {
                    found.push((*at, format!("reconcile {pid} withdraws {key} again")));
                }
            }
        }
        for (at, how) in found {
            self.breaks("G7", at, how);
        }
    }

    fn became_active_just_before(&self, made: &Made) -> bool {
        let last = self.events[..made.began.0].iter().rev().find_map(|(at, event)| match event {
            Event::Row { key, active, .. } if *key == made.key => Some((*at, *active)),
            _ => None,
        });
        last.is_some_and(|(at, active)| active && made.began.1 - at <= A_READ)
    }

    /// An earlier attempt of the same process at that row that made it inactive, or may have, with no run since that saw it live.
    fn was_reconciled_before(&self, call: CallId, made: &Made) -> Option<CallId> {
        let lived_since = |then: usize| {
            self.events[then..made.began.0].iter().any(|(_, event)| {
                matches!(event, Event::Reconciled { pid, live } if *pid == made.pid && live.contains(&made.key))
            })
        };
        let earlier = self.calls.iter().filter(|(id, other)| {
            **id != call && other.pid == made.pid && other.key == made.key && other.began.0 < made.began.0
        });
        earlier
            .filter(|(_, other)| !lived_since(other.began.0))
            .find(|(id, other)| {
                let failed = matches!(other.ended, Some((n, _, End::Failed | End::Rejected | End::Absent)) if n < made.began.0);
                let may_be_applied = other.closed(None) > made.began.1 || !made.target.times_are_shown;
                !failed && (self.made_it_inactive(**id, made.began.0) || may_be_applied)
            })
            .map(|(id, _)| *id)
    }

    /// The last look found nobody there; or its keep-alive times have stood still for three intervals; or there is nothing to lose.
    fn was_seen_to_be_gone(&self, made: &Made) -> Result<(), String> {
        // A hedge, too, whose first attempt passes through `active`.
        let one_look = |other: &&Made| {
            let lately =
                made.began.1.saturating_sub(other.began.1) <= LOOK_AGE && other.began.0 <= made.began.0;
            other.pid == made.pid && other.key == made.key && lately
        };
        if self.calls.values().filter(one_look).any(|other| !other.target.active) {
            return Ok(());
        }
        let at = made.began.1;
        let address = address_of(&made.key);
        let looked = self.events[..made.began.0].iter().rev().find_map(|(when, event)| match event {
            Event::Probed { pid, address: there, answers, lives, cut }
                if *pid == made.pid && *there == address =>
            {
                Some((*when, *answers, *lives && !*cut))
            }
            _ => None,
        });
        let pods = self.events[..made.began.0].iter().rev().find_map(|(when, event)| match event {
            Event::Pods { pid, ips } if *pid == made.pid => Some((when, ips)),
            _ => None,
        });
        let gone =
            pods.is_some_and(|(when, ips)| at - *when <= LOOK_AGE && !ips.contains(&made.key.ip.get()));
        let silent = made.target.times_are_shown && made.target.unheard_for >= 3 * INTERVAL;
        match looked {
            Some((when, Some(false), false)) if at - when <= LOOK_AGE => Ok(()),
            _ if silent => Ok(()),
            other if gone && !matches!(other, Some((_, Some(true), _))) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    /// A predecessor's ask is over where its row is read inactive once nothing of it can be applied any more; and where it is read
    /// active: whoever signs it off knows what was written since.
    pub(super) fn a_predecessors_is_over(&self, pid: Pid, ask: &Ask, before: usize) -> bool {
        let own = self.keys.get(&pid).is_some_and(|(key, ..)| *key == ask.key);
        if ask.cause != Cause::Predecessor || own {
            return false;
        }
        let calls = self.calls.values().filter(|made| made.pid == pid && made.key == ask.key);
        let inherited = (ask.by != pid).then(|| self.keys[&pid].2 + LINGER);
        self.events[..before].iter().enumerate().any(|(n, (_, event))| {
            let Event::Read { pid: by, key, asked, state: Some(state), freshness } = event else {
                return false;
            };
            let begun = calls.clone().filter(|made| made.began.0 < n).map(|made| made.closed(None));
            let closed = begun.chain(inherited).max().unwrap_or_default().max(ask.since);
            let age = freshness.age().saturating_sub(Duration::from_secs(1));
            let proves = *state == RowState::Active || *asked >= closed.saturating_add(age);
            *by == pid && *key == ask.key && *asked >= ask.since && proves
        })
    }

    /// Whether the lists that a process was given showed that the manager hears of an ask's scheduler.
    pub(super) fn was_heard_of(&self, pid: Pid, ask: &Ask, before: usize) -> bool {
        let (hostname, ip) = (ask.key.hostname.as_str(), ask.key.ip.get());
        let shown = self.events[..before].iter().filter_map(|(at, event)| match event {
            Event::Listed { pid: by, keys } if *by == pid => {
                let (_, _, heard) = keys.iter().find(|(name, there, _)| name == hostname && *there == ip)?;
                Some((*at, heard.as_ref()?))
            }
            _ => None,
        });
        let (earlier, since): (Vec<_>, Vec<_>) = shown.partition(|(at, _)| *at < ask.since);
        let last = earlier.last().or(since.first());
        since.iter().any(|(_, heard)| last.is_some_and(|(_, before)| before != heard))
    }

    /// Whether all that is asked for that key on this spool is a predecessor's sign-off.
    fn is_a_predecessors(&self, made: &Made) -> bool {
        let mut asks = self.asks_for(made).peekable();
        asks.peek().is_some() && asks.all(|cause| cause == Cause::Predecessor)
    }

    /// The causes of the asks of a call.
    fn asks_for<'a>(&'a self, made: &'a Made) -> impl Iterator<Item = Cause> + 'a {
        let there = |by: Pid| self.spool_of(by) == self.spool_of(made.pid);
        let asks = self.asks.iter().filter(move |(_, ask)| ask.key == made.key && there(ask.by));
        let asks = asks.filter(|(id, ask)| {
            let gone =
                |(_, event): &(_, Event)| matches!(event, Event::AskGone { id: gone, .. } if gone == *id);
            ask.since <= made.began.1 && !self.events[..made.began.0].iter().any(gone)
        });
        asks.map(|(_, ask)| ask.cause)
    }

    fn spool_of(&self, pid: Pid) -> Option<&str> {
        self.keys.get(&pid).map(|(_, spool, _)| spool.as_str())
    }

    /// An attempt at that key, for the same ask, that made its row inactive, or may have.
    fn was_begun_before(&self, call: CallId, made: &Made) -> Option<CallId> {
        let is_there = |(id, ask): &(&RecordId, &Ask)| {
            let gone =
                |(_, event): &(_, Event)| matches!(event, Event::AskGone { id: gone, .. } if gone == *id);
            ask.key == made.key
                && self.spool_of(ask.by) == self.spool_of(made.pid)
                && ask.since <= made.began.1
                && !self.events[..made.began.0].iter().any(gone)
        };
        let there: Vec<&Ask> = self.asks.iter().filter(is_there).map(|(_, ask)| ask).collect();
        // Who asked itself signs off for that, whatever others have asked.
        let own = there.iter().any(|ask| ask.by == made.pid);
        let for_the_same_ask = |other: &Made| {
            let may_be_it = |ask: &&Ask| ask.since <= other.began.1 && (!own || ask.by == made.pid);
            other.pid == made.pid || there.iter().copied().any(|ask| may_be_it(&ask))
        };
        let one_spool = |other: &Made| self.spool_of(other.pid) == self.spool_of(made.pid);
        let earlier = self.calls.iter().filter(|(id, other)| {
            **id != call && other.key == made.key && other.began.0 < made.began.0 && one_spool(other)
        });
        earlier
            .filter(|(_, other)| for_the_same_ask(other))
            .find(|(id, other)| {
                let killed = self.ends.get(&other.pid).copied();
                let failed = matches!(other.ended, Some((n, _, End::Failed | End::Rejected | End::Absent)) if n < made.began.0);
                let may_be_applied = other.closed(killed) > made.began.1 || !made.target.times_are_shown;
                !failed && (self.made_it_inactive(**id, made.began.0) || may_be_applied)
            })
            .map(|(id, _)| *id)
    }

    /// Whether a call is what made a row inactive, in truth.
    fn made_it_inactive(&self, call: CallId, before: usize) -> bool {
        let name = format!("call {call}");
        self.events[..before]
            .iter()
            .any(|(_, event)| matches!(event, Event::Row { active: false, by, .. } if *by == name))
    }
}

/// Whether the scheduler whose row is written lives, and the manager shows that it heard of it a moment ago.
fn lives_and_is_heard_of(made: &Made) -> bool {
    let target = made.target;
    let heard_of = (A_MOMENT..INTERVAL).contains(&target.unheard_for);
    target.lives && target.times_are_shown && heard_of
}
