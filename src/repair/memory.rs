//! What a process that stays remembers of the rows that it signed off, or may have. Pure.
//!
//! A row that is active again after a sign-off of ours was begun lives, or may: it is contested, and not written again. **What
//! counts is what was begun**, since an attempt that ended without an answer may have been applied; unless the row was not written
//! since, which the table shows (`updated_at`). And what is remembered ends with a run that sees the row live: when its scheduler
//! dies after that, it is another death.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::{
    judge::{Judgement, Seen},
    sighting::{Sighting, Stamp},
};
use crate::manager::State;

/// What was begun on a row that is gone is remembered for so long: it may be put back, under another id.
const AFTER_IT_IS_GONE: Duration = Duration::from_secs(24 * 3600);

/// A sign-off that was begun.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// When the row had last been written then, where that is shown.
    pub written: Option<Stamp>,
    /// Until when it may still be applied.
    pub open_until: Instant,
}

/// What is remembered of a row, and since when it is gone.
#[derive(Debug)]
struct Remembered {
    begun: Begun,
    gone: Option<Instant>,
}

/// The sign-offs that were begun, by their rows' cluster and IP, and then hostname: a row that is deleted and comes back has another
/// id. A table may have a million rows: none of their names is copied to look it up.
#[derive(Debug, Default)]
pub struct Memory(BTreeMap<(u64, Option<IpAddr>), BTreeMap<Box<str>, Remembered>>);

impl Memory {
    /// A sign-off of this row was begun.
    pub fn began(&mut self, row: &Sighting, begun: Begun) {
        let names = self.0.entry((row.cluster_id, row.ip)).or_default();
        names.insert(row.hostname.clone(), Remembered { begun, gone: None });
    }

    fn of(&self, row: &Sighting) -> Option<&Remembered> {
        self.0.get(&(row.cluster_id, row.ip))?.get(&row.hostname)
    }

    /// Whether this process signed the row off, or may have, or may still: read at `now`.
    pub fn is_ours(&self, row: &Sighting, now: Instant) -> bool {
        self.of(row).is_some_and(|Remembered { begun, .. }| {
            let untouched = begun.written.zip(row.updated).is_some_and(|(then, now)| !now.moved_since(then));
            now < begun.open_until || !untouched
        })
    }

    /// Forgets the rows that are active and live; and a day later those that are gone, where `all` rows are shown, inactive ones too.
    pub fn forget(&mut self, rows: &[Seen], judged: &[Judgement], all: bool, now: Instant) {
        let mut there = BTreeMap::new();
        for (Seen { now: row, .. }, judged) in rows.iter().zip(judged) {
            if self.of(row).is_some() {
                let lives = judged.alive && row.state == State::Active;
                *there.entry((row.cluster_id, row.ip, &*row.hostname)).or_insert(false) |= lives;
            }
        }
        for ((cluster, ip), names) in &mut self.0 {
            names.retain(|name, remembered| match there.get(&(*cluster, *ip, &**name)) {
                Some(lives) => {
                    remembered.gone = None;
                    !lives
                }
                None if all => now < *remembered.gone.get_or_insert(now) + AFTER_IT_IS_GONE,
                None => true,
            });
        }
        self.0.retain(|_, names| !names.is_empty());
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
        memory.began(&written(SINCE).now, Begun { written: before, open_until: now });
        assert!(memory.is_ours(&written(SINCE).now, now));
        assert!(!memory.is_ours(&written(BEFORE).now, now));
        memory.began(&written(SINCE).now, Begun { written: None, open_until: now });
        assert!(memory.is_ours(&written(BEFORE).now, now), "a source that doesn't show it can't tell");
        // It may still be applied.
        memory.began(
            &written(SINCE).now,
            Begun { written: before, open_until: now + std::time::Duration::from_secs(1) },
        );
        assert!(memory.is_ours(&written(BEFORE).now, now));
    }

    #[test]
    fn g7_what_is_remembered_of_a_row_ends_with_a_run_that_sees_it_live() {
        let remembered = |rows: &[Seen], all| {
            let (mut memory, now) = (Memory::default(), Instant::now());
            memory.began(&written(SINCE).now, Begun { written: None, open_until: now });
            memory.forget(rows, &judge(rows, &GIVEN), all, now);
            memory.is_ours(&written(SINCE).now, now)
        };
        assert!(!remembered(&[written(SINCE).heard()], true));
        assert!(remembered(&[written(SINCE)], true));
        // It sends its keep-alives, and nobody gave it back yet.
        assert!(remembered(&[written(SINCE).heard().inactive()], true));
        assert!(remembered(&[row(2, "s-1", "10.0.0.2")], false), "it is inactive, and gRPC doesn't show it");
    }

    #[test]
    fn g7_a_row_that_comes_back_under_another_id_is_the_same_row_for_a_day() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        memory.began(&written(SINCE).now, Begun { written: None, open_until: now });
        let others = [row(2, "s-1", "10.0.0.2")];
        let again = Seen { now: Sighting { id: 3, ..written(SINCE).now }, ..written(SINCE) };
        let after = |memory: &mut Memory, hours: u32| {
            let now = now + hours * Duration::from_secs(3600);
            memory.forget(&others, &judge(&others, &GIVEN), true, now);
            memory.is_ours(&again.now, now)
        };
        assert!(after(&mut memory, 1) && after(&mut memory, 24), "it may be put back");
        assert!(!after(&mut memory, 26), "it is gone for good");
    }
}
