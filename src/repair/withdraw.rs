//! Rows that are nobody's, and that peers are given all the same: which may be taken out of the table. Pure.
//!
//! A peer that names its cluster is given every row of it, whatever its state, and each of a scheduler that is gone costs a start of
//! that peer some seconds. Deleting one whose scheduler lives would do harm until its agent puts it back, so none goes by age alone.
//! A row is nobody's where the manager heard nothing of it between the looks, though its time is shown and another's in its cluster
//! moved, **and** nothing answers at its address, or another living row has that, or no pod of its name has it and no scheduler
//! answers there. One whose pod lives, or can't be told, is not. Such a row may go, if it is
//!
//! - *replaced*: its hostname lives elsewhere in its cluster, in one row that was made after this one was last heard of; and none of
//!   the rows of that hostname was there while this one was heard of: two that were at one time are twins', of two fleets that share
//!   names, and of those one that is cut off looks like a predecessor. They are contested, and left alone;
//! - or *left*: inactive, and not written for long. How long is told within the table: from the row's `updated_at` to the newest
//!   keep-alive time of a row that moved.
//!
//! Where no keep-alive times are shown, silence can't be, nor who was there beside whom. There no row goes unless that is allowed;
//! then a replaced one is an inactive or dead row that was made before the one row of its hostname that lives, and where nobody is:
//! one that is cut off, of two fleets that share names, looks just so.
//!
//! A key that this process withdrew before, and that is back, was put back by its agent, or by somebody: it is contested.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use super::{
    judge::{Circumstances, Groups, Heard, Judgement, Probed, Reason, Seen, Unproven, Verdict, hear},
    pods::Says,
    sighting::Stamp,
};
use crate::manager::{
    State,
    times::{Times, were_alone},
};

/// What may be taken out of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Replaced rows.
    pub replaced: bool,
    /// `--purge-after`: rows that were left for longer.
    pub left: Option<Duration>,
    /// `--withdraw-without-keep-alive-times`: replaced rows whose times are not shown, too.
    pub without_times: bool,
}

impl Wanted {
    /// Whether there is anything to look for.
    pub fn any(self) -> bool {
        self.replaced || self.left.is_some()
    }
}

/// The rows that may go, by their place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    /// Replaced ones.
    pub replaced: Vec<usize>,
    /// Those that were left, the oldest first.
    pub left: Vec<usize>,
    /// Those that this process withdrew before: contested.
    pub came_back: Vec<usize>,
    /// How many replaced rows this process withdrew in the five minutes before.
    pub withdrew: usize,
}

/// The newest time in the table that is known to be of now: of a row that moved between the looks.
pub(super) fn newest(rows: &[Seen], heard: &[Heard]) -> Option<Stamp> {
    let moved = rows.iter().zip(heard).filter(|(_, heard)| **heard == Heard::Moved);
    Stamp::latest(moved.filter_map(|(row, _)| row.now.keep_alive))
}

/// How long before `newest` a row was last written; none where that can't be told.
pub(super) fn age(row: &Seen, newest: Option<Stamp>) -> Option<Duration> {
    newest?.after(row.now.updated?)
}

/// Whether each row's hostname lives elsewhere in its cluster, in one row that was made after this one was last heard of, and none
/// of that name was there while this one was heard of.
pub(super) fn replaced(rows: &[Seen], heard: &[Heard], given: &Circumstances) -> Vec<bool> {
    let mut replaced = vec![false; rows.len()];
    if !heard.contains(&Heard::Silent) {
        return replaced;
    }
    for group in Groups::of(rows, &given.names, |_| true).groups() {
        // One that is heard of and inactive may be the living one, too.
        let mut living = group.clone().filter(|at| heard[*at] == Heard::Moved);
        let (Some(successor), None) = (living.next(), living.next()) else { continue };
        if rows[successor].now.state == State::Inactive {
            continue;
        }
        let times: Vec<Times> = group.clone().map(|at| rows[at].now.times()).collect();
        let newest = rows[successor].now.times();
        for ((at, times), alone) in group.zip(&times).zip(were_alone(&times).unwrap_or_default()) {
            replaced[at] = alone && times.ended_before(newest);
        }
    }
    replaced
}

/// Whether each row that shows no keep-alive time was made before the one row of its hostname that is known to live.
fn replaced_without_times(
    rows: &[Seen],
    judged: &[Judgement],
    heard: &[Heard],
    given: &Circumstances,
) -> Vec<bool> {
    let mut replaced = vec![false; rows.len()];
    for group in Groups::of(rows, &given.names, |_| true).groups() {
        let mut living = group.clone().filter(|at| judged[*at].alive || judged[*at].wrongly_inactive());
        let (Some(successor), None) = (living.next(), living.next()) else { continue };
        if rows[successor].now.state == State::Inactive {
            continue;
        }
        for at in group.filter(|at| heard[*at] == Heard::Unproven(Unproven::NoTimes)) {
            let made = rows[at].now.created.zip(rows[successor].now.created);
            replaced[at] = at != successor && made.is_some_and(|(made, newer)| newer.is_after(made));
        }
    }
    replaced
}

/// The rows that may go: of those that `may`. `before` tells which of them this process withdrew before. What holds them back is for
/// [`super::guard`].
pub fn plan(
    rows: &[Seen],
    judged: &[Judgement],
    given: &Circumstances,
    wanted: Wanted,
    before: impl Fn(&Seen) -> bool,
    may: impl Fn(&Seen) -> bool,
) -> Candidates {
    let mut found = Candidates::default();
    if !wanted.any() {
        return found;
    }
    let heard = hear(rows, given);
    let newest = newest(rows, &heard);
    let address = |row: &Seen| (row.now.cluster_id, row.now.ip, row.now.port);
    let lives = |at: usize| heard[at] == Heard::Moved && rows[at].now.state == State::Active;
    let taken: BTreeSet<_> = (0..rows.len()).filter(|at| lives(*at)).map(|at| address(&rows[at])).collect();
    let mut replaced = if wanted.replaced { replaced(rows, &heard, given) } else { vec![false; rows.len()] };
    if wanted.replaced && wanted.without_times {
        let others = replaced_without_times(rows, judged, &heard, given);
        replaced.iter_mut().zip(others).for_each(|(replaced, other)| *replaced |= other);
    }
    let nobodys = |at: usize| {
        let answers = matches!(rows[at].probe, Probed::Answers | Probed::Proxy);
        let reused = answers && taken.contains(&address(&rows[at]));
        let is_dead = match rows[at].now.state {
            State::Active => matches!(judged[at].verdict, Verdict::Dead | Verdict::Replaced),
            State::Inactive => judged[at].reason == Reason::Inactive,
        };
        let mute = rows[at].probe == Probed::Silent || reused;
        let nobody_is_there = match rows[at].pod {
            Says::Lives | Says::Starts | Says::Unclear => false,
            Says::Gone | Says::Went => mute || rows[at].probe != Probed::Answers,
            Says::NotOurs => mute,
        };
        let timeless = wanted.without_times && heard[at] == Heard::Unproven(Unproven::NoTimes);
        (heard[at] == Heard::Silent || timeless) && is_dead && nobody_is_there
    };
    let mut left: Vec<(Duration, usize)> = Vec::new();
    for at in (0..rows.len()).filter(|at| may(&rows[*at]) && nobodys(*at)) {
        let long = || {
            let inactive = rows[at].now.state == State::Inactive;
            age(&rows[at], newest).filter(|age| inactive && wanted.left.is_some_and(|after| *age >= after))
        };
        let (is_replaced, age) = (replaced[at], long());
        match (is_replaced, age) {
            (false, None) => {}
            _ if before(&rows[at]) => found.came_back.push(at),
            (true, _) => found.replaced.push(at),
            (false, Some(age)) => left.push((age, at)),
        }
    }
    left.sort_by_key(|(age, _)| Reverse(*age));
    found.left = left.into_iter().map(|(_, at)| at).collect();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repair::{
        judge::{
            Before, judge,
            tests::{GIVEN, row},
        },
        sighting::Sighting,
    };

    const HOUR: Duration = Duration::from_secs(3600);

    /// Inactive, unheard of, mute, and last written at that time.
    fn old(id: u64, updated: &str) -> Seen {
        let mut row = row(id, &format!("old-{id}"), &format!("10.1.0.{id}")).silent().inactive();
        row.now.updated = Some(Stamp::of(updated));
        row.probed(Probed::Silent)
    }

    /// Heard of at 20:54:37.735 by the table's own clock.
    fn witness() -> Seen {
        row(99, "witness-0", "10.9.9.9").heard().probed(Probed::Answers)
    }

    fn found(rows: &[Seen], wanted: Wanted, before: bool) -> Candidates {
        plan(rows, &judge(rows, &GIVEN), &GIVEN, wanted, |_| before, |_| true)
    }

    /// The ids of those that were left for an hour.
    fn planned(rows: &[Seen]) -> Vec<u64> {
        let found = found(rows, Wanted { left: Some(HOUR), ..Wanted::default() }, false);
        found.left.into_iter().map(|at| rows[at].now.id).collect()
    }

    #[test]
    fn what_is_inactive_for_long_and_nobodys_is_deleted_and_no_younger_row() {
        let rows = [
            old(1, "2026-11-23 19:54:37.735"),
            old(2, "2026-11-23 19:54:37.736"),
            old(3, "2025-01-01 00:00:00"),
            witness(),
        ];
        assert_eq!(planned(&rows), [3, 1], "the oldest first");
    }

    #[test]
    fn a_row_that_may_live_is_never_deleted_however_old() {
        let ancient = || old(1, "2020-01-01 00:00:00");
        let mut untold = ancient();
        untold.now.updated = None;
        let mut active = ancient();
        active.now.state = State::Active;
        let mut ended = ancient();
        ended.before.as_mut().unwrap().state = State::Active;
        for kept in [
            ancient().heard(),
            ancient().probed(Probed::Answers),
            ancient().probed(Probed::Unclear),
            ancient().probed(Probed::NotMade),
            untold,
            active,
            ended,
        ] {
            assert_eq!(planned(&[kept.clone(), witness()]), Vec::<u64>::new(), "{kept:?}");
        }
        assert_eq!(planned(&[ancient(), witness()]), [1]);
    }

    #[test]
    fn g7_a_row_whose_pod_is_there_or_unclear_is_kept_and_one_whose_pod_is_gone_goes_behind_a_mesh_too() {
        let of =
            |probe, pod| planned(&[old(1, "2020-01-01 00:00:00").probed(probe).with_pod(pod), witness()]);
        for probe in [Probed::Silent, Probed::Proxy, Probed::Foreign, Probed::Unclear] {
            for pod in [Says::Lives, Says::Unclear] {
                assert_eq!(of(probe, pod), Vec::<u64>::new(), "{probe:?} {pod:?}");
            }
            for pod in [Says::Gone, Says::Went] {
                assert_eq!(of(probe, pod), [1], "{probe:?} {pod:?}");
            }
        }
        assert_eq!(of(Probed::Answers, Says::Went), Vec::<u64>::new());
    }

    #[test]
    fn an_answer_at_a_reused_address_is_another_ones() {
        let reused = old(1, "2020-01-01 00:00:00").probed(Probed::Answers);
        let neighbour = row(2, "new-0", "10.1.0.1").heard().probed(Probed::Answers);
        assert_eq!(planned(&[reused, neighbour]), [1]);
    }

    #[test]
    fn without_anything_heard_nothing_is_deleted() {
        assert_eq!(planned(&[old(1, "2020-01-01 00:00:00")]), Vec::<u64>::new());
    }

    const REPLACED: Wanted = Wanted { replaced: true, left: None, without_times: false };

    /// One of the hostname s-0, made at the one time and last heard of at the other.
    fn of_the_name(id: u64, made: &str, heard: &str) -> Seen {
        let mut row = row(id, "s-0", &format!("10.0.0.{id}")).silent().inactive().probed(Probed::Silent);
        let heard = Some(Stamp::of(heard));
        (row.now.created, row.now.keep_alive) = (Some(Stamp::of(made)), heard);
        row.before = row.before.map(|before| Before { keep_alive: heard, ..before });
        row
    }

    /// The one that lives, since then.
    fn successor(made: &str) -> Seen {
        let mut row = row(9, "s-0", "10.0.0.9").heard().probed(Probed::Answers);
        row.now.created = Some(Stamp::of(made));
        row
    }

    fn withdrawn(rows: &[Seen]) -> Vec<u64> {
        found(rows, REPLACED, false).replaced.into_iter().map(|at| rows[at].now.id).collect()
    }

    #[test]
    fn g7_a_row_is_replaced_where_it_was_never_there_at_one_time_with_another_of_its_name() {
        let [one, two, three] = ["2026-11-20 00:00:00", "2026-11-21 00:00:00", "2026-11-22 00:00:00"];
        let [end_of_one, end_of_two] = ["2026-11-20 12:00:00", "2026-11-21 12:00:00"];
        let chain = || [of_the_name(1, one, end_of_one), of_the_name(2, two, end_of_two), successor(three)];
        assert_eq!(withdrawn(&chain()), [1, 2]);
        // A twin: it was heard of while the second was there, and is cut off by now.
        let [_, second, newest] = chain();
        assert_eq!(withdrawn(&[of_the_name(1, one, end_of_two), second, newest]), Vec::<u64>::new());
        // It was heard of after the living one was made.
        assert_eq!(withdrawn(&[of_the_name(1, one, three), successor(two)]), Vec::<u64>::new());
        // A time that isn't shown tells nothing, of any row.
        let [mut first, second, newest] = chain();
        first.now.created = None;
        assert_eq!(withdrawn(&[first, second, newest]), Vec::<u64>::new());
        // Two that live; and one that lives and is wrongly inactive.
        let twin = Seen { now: Sighting { id: 8, ..successor(three).now }, ..successor(three) };
        assert_eq!(withdrawn(&[of_the_name(1, one, end_of_one), successor(two), twin]), Vec::<u64>::new());
        let [first, second, newest] = chain();
        assert_eq!(withdrawn(&[first, second, newest.inactive()]), Vec::<u64>::new());
    }

    #[test]
    fn g7_a_replaced_row_needs_its_silence_and_a_mute_address_and_is_withdrawn_once() {
        let [made, ended, newer] = ["2026-11-20 00:00:00", "2026-11-20 12:00:00", "2026-11-21 00:00:00"];
        let gone = || of_the_name(1, made, ended);
        assert_eq!(withdrawn(&[gone(), successor(newer)]), [1]);
        for probe in [Probed::Answers, Probed::Proxy, Probed::Foreign, Probed::Unclear, Probed::NotMade] {
            assert_eq!(withdrawn(&[gone().probed(probe), successor(newer)]), Vec::<u64>::new(), "{probe:?}");
        }
        let rows = [gone(), successor(newer)];
        let again = found(&rows, REPLACED, true);
        assert_eq!((again.replaced, again.came_back), (vec![], vec![0]));
        assert_eq!(found(&rows, Wanted::default(), false), Candidates::default());
        // Another cluster's is another's.
        assert_eq!(withdrawn(&[gone(), successor(newer).in_cluster(2)]), Vec::<u64>::new());
    }

    #[test]
    fn g7_without_times_a_row_goes_only_where_that_is_allowed_and_one_newer_row_of_its_name_lives() {
        let [made, newer] = ["2026-11-20 00:00:00", "2026-11-21 00:00:00"];
        let timeless = |row: Seen, made: &str| {
            let mut row = row;
            (row.now.keep_alive, row.now.created) = (None, Some(Stamp::of(made)));
            row.before = row.before.map(|before| Before { keep_alive: None, ..before });
            row
        };
        let gone = || timeless(row(1, "s-0", "10.0.0.1").silent().inactive().probed(Probed::Silent), made);
        let lives =
            |id: u64| timeless(row(id, "s-0", &format!("10.0.0.{id}")).probed(Probed::Answers), newer);
        let allowed = |rows: &[Seen]| {
            let wanted = Wanted { without_times: true, ..REPLACED };
            found(rows, wanted, false).replaced.into_iter().map(|at| rows[at].now.id).collect::<Vec<_>>()
        };
        assert_eq!(withdrawn(&[gone(), lives(9)]), Vec::<u64>::new(), "it was not allowed");
        assert_eq!(allowed(&[gone(), lives(9)]), [1]);
        // One that this run is to sign off first.
        let active = timeless(row(1, "s-0", "10.0.0.1").silent().probed(Probed::Silent), made);
        assert_eq!(allowed(&[active, lives(9)]), [1]);
        for probe in [Probed::Answers, Probed::Proxy, Probed::Foreign, Probed::Unclear, Probed::NotMade] {
            assert_eq!(allowed(&[gone().probed(probe), lives(9)]), Vec::<u64>::new(), "{probe:?}");
        }
        for pod in [Says::Lives, Says::Starts, Says::Unclear] {
            assert_eq!(allowed(&[gone().with_pod(pod), lives(9)]), Vec::<u64>::new(), "{pod:?}");
        }
        let newest = timeless(gone(), "2026-11-22 00:00:00");
        assert_eq!(allowed(&[newest, lives(9)]), Vec::<u64>::new(), "it was made after the living one");
        assert_eq!(allowed(&[gone(), lives(8), lives(9)]), Vec::<u64>::new(), "two live");
        assert_eq!(allowed(&[gone(), lives(9).inactive()]), Vec::<u64>::new(), "the living one is inactive");
        assert_eq!(allowed(&[gone()]), Vec::<u64>::new(), "nobody has its name");
        let mut unmade = gone();
        unmade.now.created = None;
        assert_eq!(allowed(&[unmade, lives(9)]), Vec::<u64>::new(), "when it was made is not shown");
        // A table with times that this row has none of: a manager before v2.3.1 made it.
        let mut witnessed = successor(newer);
        witnessed.now.created = Some(Stamp::of(newer));
        assert_eq!(allowed(&[gone(), witnessed]), [1]);
    }
}
