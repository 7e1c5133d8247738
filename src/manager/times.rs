//! The times of a row, and what they say. Pure.
//!
//! **Evidence is change, not age**: a time is only ever compared with times of the same table, and what it says of life is whether
//! it moved between two looks. Each keep-alive but a stream's first moves `last_keep_alive_at` and `updated_at` (v2.3.1 and
//! later); a stream's first message, and its end, move `updated_at` alone; a registration moves both.

use std::{num::NonZeroU64, time::Duration};

use super::{
    Row,
    date::{self, Date, MINUTE},
};

#[cfg(test)]
mod tests;

/// Two looks that are to show silence are at least so many keep-alive intervals apart.
pub const INTERVALS_APART: u32 = 3;
/// The keep-alive interval of a row that doesn't say: the scheduler's default.
pub const USUAL_INTERVAL: Duration = Duration::from_secs(5);
/// A stream's first message comes an interval after the registration, and a keep-alive moves both times: a row that was written
/// so many intervals later than it was heard of, and at least so much later, was written by something else.
const WRITTEN_APART: (u32, Duration) = (2, Duration::from_secs(10));

/// A time as the table has it. MySQL's and MariaDB's have no zone, and over REST the same value carries that of whichever
/// manager answers: so it is only ever compared with times of the same table, never with a clock of ours.
///
/// Eight bytes, since a table may have 100,000 rows with several of them. The last bit says what the others are. 1: twelve bits of
/// the offset that is written beside the time, in minutes plus 2^11 (no offset is UTC); above them the moment by that offset, in
/// milliseconds since 1970 plus 2^48. 0: what is written is no such time, and this is its hash, without the offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp(NonZeroU64);

const ZERO_MOMENT: i64 = 1 << 48;
const ZERO_OFFSET: i64 = 1 << 11;

impl Stamp {
    /// Of the value as the source writes it: RFC 3339 (REST), or `2026-11-23 20:54:32.734` (a database).
    pub fn of(verbatim: &str) -> Self {
        Self::read(verbatim.as_bytes())
    }

    /// The same of what may be no UTF-8.
    pub(crate) fn read(verbatim: &[u8]) -> Self {
        let parts = date::split(verbatim.trim_ascii());
        Date::of(parts).and_then(Self::packed).unwrap_or_else(|| Self::hashed(parts.0))
    }

    /// None where it doesn't fit.
    fn packed(date: Date) -> Option<Self> {
        let unsigned = |number: i64, zero: i64| {
            u64::try_from(number.checked_add(zero)?)
                .ok()
                .filter(|unsigned| *unsigned < 2 * zero.unsigned_abs())
        };
        let offset = unsigned(date.offset, ZERO_OFFSET)?;
        let bits = unsigned(date.moment(), ZERO_MOMENT)? << 13 | offset << 1 | 1;
        NonZeroU64::new(bits).map(Self)
    }

    fn hashed(text: &[u8]) -> Self {
        let hash = hash(text.iter().copied());
        Self(NonZeroU64::new(hash & !1).unwrap_or(NonZeroU64::MIN.saturating_add(1)))
    }

    /// For putting times of one table in order; none where it is no time.
    pub(crate) fn moment(self) -> Option<i64> {
        Some(self.time()?.0)
    }

    /// The moment, and what is shown of it, in milliseconds; none where it is no time.
    fn time(self) -> Option<(i64, i64)> {
        let bits = self.0.get();
        if bits & 1 == 0 {
            return None;
        }
        let moment = (bits >> 13).cast_signed() - ZERO_MOMENT;
        let offset = (bits >> 1 & 0xfff).cast_signed() - ZERO_OFFSET;
        Some((moment, moment + offset * MINUTE))
    }

    /// Whether this is another time than `before`, the same row's at an earlier look. Managers in different time zones write
    /// the same time with other digits (PostgreSQL behind them) or with another offset (MySQL): neither is a move.
    pub fn moved_since(self, before: Self) -> bool {
        match (self.time(), before.time()) {
            (Some((moment, shown)), Some(before)) => moment != before.0 && shown != before.1,
            _ => self != before,
        }
    }

    /// Whether this is earlier than `later`, another time of the same table. None where it can't be told.
    fn is_before(self, later: Self) -> Option<bool> {
        Some(self.time()?.0 < later.time()?.0)
    }

    /// Whether this is later than `earlier`, another time of the same table.
    pub fn is_after(self, earlier: Self) -> bool {
        earlier.is_before(self) == Some(true)
    }

    /// The latest of some times of one table.
    pub fn latest(stamps: impl Iterator<Item = Self>) -> Option<Self> {
        stamps.reduce(|one, other| if other.after(one).is_some() { other } else { one })
    }

    /// How much later this is than `earlier`, another time of the same table. None where it isn't, or can't be told.
    pub fn after(self, earlier: Self) -> Option<Duration> {
        let millis = self.time()?.0.checked_sub(earlier.time()?.0)?;
        u64::try_from(millis).ok().map(Duration::from_millis)
    }
}

/// FNV-1a: quick. Names that were chosen to collide cost the sort of a few more, and no more than that.
pub(crate) fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.fold(0xcbf2_9ce4_8422_2325, step)
}

/// What a look keeps of a row's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// `created_at`.
    pub created: Option<Stamp>,
    /// `updated_at`.
    pub updated: Option<Stamp>,
    /// `last_keep_alive_at`.
    pub keep_alive: Option<Stamp>,
}

impl From<&Row> for Times {
    fn from(row: &Row) -> Self {
        let stamp = |text: &Option<String>| text.as_deref().map(Stamp::of);
        Self {
            created: stamp(&row.created_at),
            updated: stamp(&row.updated_at),
            keep_alive: stamp(&row.last_keep_alive_at),
        }
    }
}

/// Of the rows of one hostname, which were never there at one time with another: each was last heard of before the next was made. That
/// is what predecessors were; of two fleets that share names, one that is cut off looks like a predecessor of the other's next, but
/// was there beside the others. None where not all of their times are shown.
pub fn were_alone(rows: &[Times]) -> Option<Vec<bool>> {
    let span =
        |(at, times): (usize, &Times)| Some((times.created?.moment()?, times.keep_alive?.moment()?, at));
    let mut spans = rows.iter().enumerate().map(span).collect::<Option<Vec<_>>>()?;
    spans.sort_unstable();
    let mut alone = vec![false; rows.len()];
    let mut until = i64::MIN;
    for (which, (made, heard, at)) in spans.iter().enumerate() {
        let next = spans.get(which + 1).map_or(i64::MAX, |(made, ..)| *made);
        alone[*at] = until < *made && *heard < next;
        until = until.max(*heard);
    }
    Some(alone)
}

/// Whether a time moved, where both looks show it.
fn moved(before: Option<Stamp>, now: Option<Stamp>) -> Option<bool> {
    before.zip(now).map(|(before, now)| now.moved_since(before))
}

impl Times {
    /// Whether the manager heard of the row's scheduler since `before`, an earlier look at the same row; none where a look
    /// doesn't show that.
    pub fn heard_since(self, before: Self) -> Option<bool> {
        moved(before.keep_alive, self.keep_alive)
    }

    /// Whether the row was written since `before`, by whomever; none where a look doesn't show that.
    pub fn written_since(self, before: Self) -> Option<bool> {
        moved(before.updated, self.updated)
    }

    /// Whether the row was last heard of, and last written, before the row of `successor` was made: what a predecessor's was.
    /// Necessary, never sufficient: a twin that is cut off looks the same. None where it can't be told.
    pub fn precede(self, successor: Self) -> Option<bool> {
        let made = successor.created?;
        let before = |time: Stamp| time.is_before(made);
        let (updated, keep_alive) = (self.updated.map(before), self.keep_alive.map(before));
        match (updated, keep_alive) {
            (None | Some(None), None | Some(None)) => None,
            (updated, keep_alive) => {
                Some(updated.flatten().unwrap_or(true) && keep_alive.flatten().unwrap_or(true))
            }
        }
    }

    /// Whether the row was last heard of before that of `newer` was made, whoever wrote it since. False where that isn't shown.
    pub fn ended_before(self, newer: Self) -> bool {
        let ended = self.keep_alive.zip(newer.created).and_then(|(heard, made)| heard.is_before(made));
        ended == Some(true)
    }

    /// Whether the row was written long after its scheduler was last heard of: something made it active again, a sign-off that
    /// was undone for one.
    pub fn were_written_apart(self, interval: Duration) -> bool {
        let apart = self.updated.zip(self.keep_alive).and_then(|(updated, heard)| updated.after(heard));
        let (intervals, at_least) = WRITTEN_APART;
        apart.is_some_and(|apart| apart > (intervals * interval).max(at_least))
    }
}
