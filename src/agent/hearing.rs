//! Whether the manager hears of another scheduler, by what it lists of it again and again. Pure.
//!
//! It is the rule that reconcile judges by (see [`crate::manager::times`]): a row is heard of whose keep-alive time moves, and it
//! is silent whose time stands still while that of another row of its cluster, a witness, moves. Over gRPC nothing is shown.

use std::{collections::BTreeMap, time::Duration};

use super::moment::Moment;
use crate::manager::{Row, times::Times};

/// What the lists say so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// They show no keep-alive times.
    Untold,
    /// It was heard of since the first look: it lives.
    Moved,
    /// Nothing yet: no witness moved, or it was just written.
    Unproven,
    /// It was silent for so long while a witness moved.
    Silent(Duration),
}

/// One row, from one look to the next.
#[derive(Debug, Clone, Default)]
pub struct Hearing {
    first: Option<First>,
}

#[derive(Debug, Clone)]
struct First {
    /// When the list was there.
    at: Moment,
    row: (Times, i32),
    witnesses: BTreeMap<u64, Times>,
}

impl Hearing {
    /// A list that was asked for at `asked` and was there at `answered` shows the row like this, and these witnesses: rows of
    /// schedulers that should be heard of.
    pub fn listed<'a>(
        &mut self,
        (asked, answered): (Moment, Moment),
        row: &Row,
        witnesses: impl Iterator<Item = &'a Row> + Clone,
    ) -> Heard {
        let now = (Times::from(row), row.port);
        if now.0.keep_alive.is_none() {
            // Shown before, it will be shown again.
            return if self.first.is_some() { Heard::Unproven } else { Heard::Untold };
        }
        let begin = || First {
            at: answered,
            row: now,
            witnesses: witnesses.clone().map(|row| (row.id, Times::from(row))).collect(),
        };
        let Some(first) = &self.first else {
            self.first = Some(begin());
            return Heard::Unproven;
        };
        if now.1 != first.row.1 || now.0.heard_since(first.row.0) == Some(true) {
            return Heard::Moved;
        }
        if now.0.written_since(first.row.0) == Some(true) {
            // A scheduler that is back moves its keep-alive time only with its second message.
            self.first = Some(begin());
            return Heard::Unproven;
        }
        let moved = |row: &Row| {
            let now = Times::from(row);
            first.witnesses.get(&row.id).is_none_or(|before| {
                now.heard_since(*before) == Some(true) || now.written_since(*before) == Some(true)
            })
        };
        let mut others = witnesses.clone().filter(|other| other.id != row.id);
        if others.any(moved) { Heard::Silent(asked - first.at) } else { Heard::Unproven }
    }

    /// When it will have been silent for `time`, as things are.
    pub fn silent_at(&self, time: Duration) -> Option<Moment> {
        self.first.as_ref().map(|first| first.at + time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::State;

    fn row(id: u64, heard: &str, written: &str) -> Row {
        let shown = |second: &str| (!second.is_empty()).then(|| format!("2026-11-23T12:00:{second}Z"));
        Row {
            id,
            hostname: "s-0".to_owned(),
            ip: format!("10.0.0.{id}"),
            port: 8002,
            state: State::Active,
            cluster_id: 1,
            created_at: None,
            last_keep_alive_at: shown(heard),
            keep_alive_interval: None,
            updated_at: shown(written),
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    /// The looks at a row and its witness, one a second long, every 10 s; what each said.
    fn heard(looks: &[(Row, Option<Row>)]) -> Vec<Heard> {
        let mut hearing = Hearing::default();
        let at = |n: usize| (at(10 * n as u64), at(10 * n as u64 + 1));
        let one =
            |(n, (row, witness)): (usize, &(Row, Option<Row>))| hearing.listed(at(n), row, witness.iter());
        looks.iter().enumerate().map(one).collect()
    }

    #[test]
    fn g7_a_row_is_silent_only_beside_a_witness_that_moves_and_lives_if_its_time_does() {
        let witness = |heard| Some(row(9, heard, heard));
        let still = || row(1, "01", "01");
        let silent = |seconds| Heard::Silent(Duration::from_secs(seconds));
        let said = heard(&[(still(), witness("02")), (still(), witness("12")), (still(), witness("22"))]);
        assert_eq!(
            said,
            [Heard::Unproven, silent(9), silent(19)],
            "from the first list's end to the next one's beginning"
        );
        // A manager, or a replica, that stands still.
        assert_eq!(heard(&[(still(), witness("02")), (still(), witness("02"))])[1], Heard::Unproven);
        assert_eq!(heard(&[(still(), None), (still(), None)])[1], Heard::Unproven);
        // The row itself is no witness.
        assert_eq!(
            heard(&[(still(), Some(still())), (still(), Some(row(1, "05", "05")))])[1],
            Heard::Unproven
        );
        assert_eq!(heard(&[(still(), witness("02")), (row(1, "11", "11"), witness("02"))])[1], Heard::Moved);
        let anew = Row { port: 8003, ..still() };
        assert_eq!(heard(&[(still(), witness("02")), (anew, witness("12"))])[1], Heard::Moved);
        // A witness that is new, or became active, has moved.
        assert_eq!(heard(&[(still(), None), (still(), witness("12"))])[1], silent(9));
        assert_eq!(heard(&[(still(), witness("02")), (still(), Some(row(9, "02", "12")))])[1], silent(9));
    }

    #[test]
    fn g7_one_that_was_just_written_is_watched_anew() {
        let witness = |heard| Some(row(9, heard, heard));
        let looks = [
            (row(1, "01", "01"), witness("02")),
            (row(1, "01", "11"), witness("12")),
            (row(1, "01", "11"), witness("22")),
        ];
        assert_eq!(heard(&looks), [Heard::Unproven, Heard::Unproven, Heard::Silent(Duration::from_secs(9))]);
        let mut hearing = Hearing::default();
        assert_eq!(hearing.silent_at(Duration::from_secs(15)), None);
        hearing.listed((at(0), at(1)), &looks[0].0, [].iter());
        assert_eq!(hearing.silent_at(Duration::from_secs(15)), Some(at(16)));
    }

    #[test]
    fn where_no_times_are_shown_nothing_is_told_and_what_was_shown_before_is_waited_for() {
        let untold = || row(1, "", "01");
        assert_eq!(heard(&[(untold(), None), (untold(), None)]), [Heard::Untold; 2]);
        let looks = [(row(1, "01", "01"), None), (row(1, "", ""), None)];
        assert_eq!(heard(&looks)[1], Heard::Unproven);
    }
}
