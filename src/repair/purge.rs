//! Rows that have been inactive for long and are nobody's: which may be deleted. Pure.
//!
//! Peers walk inactive rows too, so each costs them a connect time-out. Deleting one whose scheduler lives would do harm (it
//! doesn't register again before its next start), so age alone deletes nothing: the row was inactive at both looks, the manager
//! heard nothing of it between them, nothing answers at its address or another row has it, and it has not been written for
//! long. How long is told within the table: from the row's `updated_at` to the newest keep-alive time of a row that moved.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use super::{
    judge::{Circumstances, Heard, Judgement, Probed, Reason, Seen, hear},
    sighting::Stamp,
};
use crate::manager::State;

/// The newest time in the table that is known to be of now: of a row that moved between the looks.
pub(super) fn newest(rows: &[Seen], heard: &[Heard]) -> Option<Stamp> {
    let moved = rows.iter().zip(heard).filter(|(_, heard)| **heard == Heard::Moved);
    moved
        .filter_map(|(row, _)| row.now.keep_alive)
        .reduce(|one, other| if other.after(one).is_some() { other } else { one })
}

/// How long before `newest` a row was last written; none where that can't be told.
pub(super) fn age(row: &Seen, newest: Option<Stamp>) -> Option<Duration> {
    newest?.after(row.now.updated?)
}

/// The rows to delete, by their place in the list, the oldest first: those that are `wanted`. What holds them back is for
/// [`super::guard`].
pub fn plan(
    rows: &[Seen],
    judged: &[Judgement],
    given: &Circumstances,
    after: Duration,
    wanted: impl Fn(&Seen) -> bool,
) -> Vec<usize> {
    let heard = hear(rows, given);
    let newest = newest(rows, &heard);
    let address = |row: &Seen| (row.now.cluster_id, row.now.ip, row.now.port);
    let lives = |at: usize| heard[at] == Heard::Moved && rows[at].now.state == State::Active;
    let taken: BTreeSet<_> = (0..rows.len()).filter(|at| lives(*at)).map(|at| address(&rows[at])).collect();
    let nobodys = |at: usize| {
        let answers = matches!(rows[at].probe, Probed::Answers | Probed::Proxy);
        let reused = answers && taken.contains(&address(&rows[at]));
        heard[at] == Heard::Silent
            && judged[at].reason == Reason::Inactive
            && (rows[at].probe == Probed::Silent || reused)
    };
    let mut old: Vec<(Duration, usize)> = (0..rows.len())
        .filter(|at| wanted(&rows[*at]) && nobodys(*at))
        .filter_map(|at| Some((age(&rows[at], newest).filter(|age| *age >= after)?, at)))
        .collect();
    old.sort_by_key(|(age, _)| Reverse(*age));
    old.into_iter().map(|(_, at)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repair::judge::{
        judge,
        tests::{GIVEN, row},
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

    fn planned(rows: &[Seen]) -> Vec<u64> {
        let judged = judge(rows, &GIVEN);
        plan(rows, &judged, &GIVEN, HOUR, |_| true).into_iter().map(|at| rows[at].now.id).collect()
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
    fn an_answer_at_a_reused_address_is_another_ones() {
        let reused = old(1, "2020-01-01 00:00:00").probed(Probed::Answers);
        let neighbour = row(2, "new-0", "10.1.0.1").heard().probed(Probed::Answers);
        assert_eq!(planned(&[reused, neighbour]), [1]);
    }

    #[test]
    fn without_anything_heard_nothing_is_deleted() {
        assert_eq!(planned(&[old(1, "2020-01-01 00:00:00")]), Vec::<u64>::new());
    }
}
