//! What a process that stays remembers of the rows that it signed off, or may have. Pure.
//!
//! A row that is active again after a sign-off of ours was begun lives, or may: it is contested, and not written again. **What
//! counts is what was begun**, since an attempt that ended without an answer may have been applied; unless the row was not written
//! since, which the table shows (`updated_at`). And what is remembered ends with a run that sees the row live: when its scheduler
//! dies after that, it is another death.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    judge::{Judgement, Seen},
    sighting::{Sighting, Stamp},
};
use crate::manager::State;

/// A sign-off that was begun.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// When the row had last been written then, where that is shown.
    pub written: Option<Stamp>,
    /// Until when it may still be applied.
    pub open_until: Instant,
}

/// The sign-offs that were begun, by their rows' ids.
#[derive(Debug, Default)]
pub struct Memory(BTreeMap<u64, Begun>);

impl Memory {
    /// A sign-off of this row was begun.
    pub fn began(&mut self, id: u64, begun: Begun) {
        self.0.insert(id, begun);
    }

    /// Whether this process signed the row off, or may have, or may still: read at `now`.
    pub fn is_ours(&self, row: &Sighting, now: Instant) -> bool {
        self.0.get(&row.id).is_some_and(|begun| {
            let untouched = begun.written.zip(row.updated).is_some_and(|(then, now)| !now.moved_since(then));
            now < begun.open_until || !untouched
        })
    }

    /// Forgets the rows that are active and live; and those that are gone, where `all` rows are shown, inactive ones too.
    pub fn forget(&mut self, rows: &[Seen], judged: &[Judgement], all: bool) {
        self.0.retain(|id, _| match rows.binary_search_by_key(id, |row| row.now.id) {
            Ok(at) => !(judged[at].alive && rows[at].now.state == State::Active),
            Err(_) => !all,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repair::judge::{
        judge,
        tests::{GIVEN, row},
    };

    fn written(at: &str) -> Seen {
        let mut row = row(1, "s-0", "10.0.0.1").silent();
        row.now.updated = Some(Stamp::of(at));
        row
    }

    const BEFORE: &str = "2026-11-23 20:54:32.735";
    const SINCE: &str = "2026-11-23 20:55:32.735";

    #[test]
    fn g7_a_row_is_ours_once_a_sign_off_was_begun_unless_nothing_was_written() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let before = Some(Stamp::of(BEFORE));
        assert!(!memory.is_ours(&written(SINCE).now, now));
        memory.began(1, Begun { written: before, open_until: now });
        assert!(memory.is_ours(&written(SINCE).now, now));
        assert!(!memory.is_ours(&written(BEFORE).now, now));
        memory.began(1, Begun { written: None, open_until: now });
        assert!(memory.is_ours(&written(BEFORE).now, now), "a source that doesn't show it can't tell");
        // It may still be applied.
        memory.began(1, Begun { written: before, open_until: now + std::time::Duration::from_secs(1) });
        assert!(memory.is_ours(&written(BEFORE).now, now));
    }

    #[test]
    fn g7_what_is_remembered_of_a_row_ends_with_a_run_that_sees_it_live() {
        let remembered = |rows: &[Seen], all| {
            let (mut memory, now) = (Memory::default(), Instant::now());
            memory.began(1, Begun { written: None, open_until: now });
            memory.forget(rows, &judge(rows, &GIVEN), all);
            memory.is_ours(&written(SINCE).now, now)
        };
        assert!(!remembered(&[written(SINCE).heard()], true));
        assert!(remembered(&[written(SINCE)], true));
        // It sends its keep-alives, and nobody gave it back yet.
        assert!(remembered(&[written(SINCE).heard().inactive()], true));
        assert!(!remembered(&[row(2, "s-1", "10.0.0.2")], true), "there is no such row any more");
        assert!(remembered(&[row(2, "s-1", "10.0.0.2")], false), "it is inactive, and gRPC doesn't show it");
    }
}
