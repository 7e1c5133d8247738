//! What a process that stays remembers of the rows that it signed off, or may have, and of those that it took out of the table. Pure.
//!
//! A key that was withdrawn and is back was put back: by its agent, by its scheduler, or by another fleet's. For a day it is contested.
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

/// How long a withdrawal counts for the share: as long as a CronJob's period.
const COUNTS_FOR: Duration = Duration::from_secs(300);

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
pub struct Memory {
    begun: BTreeMap<(u64, Option<IpAddr>), BTreeMap<Box<str>, Remembered>>,
    withdrawn: Vec<Withdrawn>,
}

/// A row that was taken out of the table.
#[derive(Debug)]
struct Withdrawn {
    cluster_id: u64,
    ip: Option<IpAddr>,
    hostname: Box<str>,
    /// When.
    at: Instant,
    /// It was replaced: it counts for the share.
    counts: bool,
    /// It is back, and that was said.
    said: bool,
}

impl Withdrawn {
    fn is(&self, row: &Sighting) -> bool {
        (self.cluster_id, self.ip, &self.hostname) == (row.cluster_id, row.ip, &row.hostname)
    }
}

impl Memory {
    /// A sign-off of this row was begun.
    pub fn began(&mut self, row: &Sighting, begun: Begun) {
        let names = self.begun.entry((row.cluster_id, row.ip)).or_default();
        names.insert(row.hostname.clone(), Remembered { begun, gone: None });
    }

    /// This row was withdrawn; for the share it `counts`, or not.
    pub fn withdrew(&mut self, row: &Sighting, counts: bool, at: Instant) {
        self.withdrawn.retain(|withdrawn| at < withdrawn.at + AFTER_IT_IS_GONE);
        let hostname = row.hostname.clone();
        self.withdrawn.push(Withdrawn {
            cluster_id: row.cluster_id,
            ip: row.ip,
            hostname,
            at,
            counts,
            said: false,
        });
    }

    /// Whether this process withdrew the row's key in the day before `now`.
    pub fn was_withdrawn(&self, row: &Sighting, now: Instant) -> bool {
        self.withdrawn.iter().any(|withdrawn| withdrawn.is(row) && now < withdrawn.at + AFTER_IT_IS_GONE)
    }

    /// Whether it is to be said that a row that was withdrawn is back: once.
    pub fn is_news(&mut self, row: &Sighting) -> bool {
        let mut told = self.withdrawn.iter_mut().filter(|withdrawn| withdrawn.is(row));
        told.any(|withdrawn| !std::mem::replace(&mut withdrawn.said, true))
    }

    /// How many rows were withdrawn of late, as the share counts them.
    pub fn withdrawn_lately(&self, now: Instant) -> usize {
        self.withdrawn.iter().filter(|withdrawn| withdrawn.counts && now < withdrawn.at + COUNTS_FOR).count()
    }

    fn of(&self, row: &Sighting) -> Option<&Remembered> {
        self.begun.get(&(row.cluster_id, row.ip))?.get(&row.hostname)
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
        for ((cluster, ip), names) in &mut self.begun {
            names.retain(|name, remembered| match there.get(&(*cluster, *ip, &**name)) {
                Some(lives) => {
                    remembered.gone = None;
                    !lives
                }
                None if all => now < *remembered.gone.get_or_insert(now) + AFTER_IT_IS_GONE,
                None => true,
            });
        }
        self.begun.retain(|_, names| !names.is_empty());
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

    #[test]
    fn g7_what_was_withdrawn_is_remembered_by_its_key_for_a_day_and_counts_for_five_minutes() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let minutes = |minutes: u64| now + Duration::from_secs(60 * minutes);
        let withdrawn = row(1, "s-0", "10.0.0.1").now;
        memory.withdrew(&withdrawn, true, now);
        memory.withdrew(&row(2, "s-1", "10.0.0.2").now, false, now);
        let again = Sighting { id: 7, ..withdrawn.clone() };
        assert!(memory.was_withdrawn(&again, minutes(24 * 60 - 1)), "whatever its id");
        assert!(!memory.was_withdrawn(&again, minutes(24 * 60)));
        assert!(!memory.was_withdrawn(&row(1, "s-0", "10.0.0.9").now, now));
        assert_eq!([(); 2].map(|()| memory.is_news(&again)), [true, false]);
        assert_eq!([0, 4, 5].map(|at| memory.withdrawn_lately(minutes(at))), [1, 1, 0]);
        memory.withdrew(&again, true, minutes(24 * 60));
        assert_eq!(memory.withdrawn.len(), 1, "the others are forgotten");
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
