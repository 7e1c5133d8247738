//! What one look at the manager's table keeps of a row: little, so that a table of 100,000 rows fits a small memory.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU64,
    time::Duration,
};

use crate::{
    key::{KeyError, SchedulerIp, SchedulerKey},
    manager::{
        Row, State,
        date::{self, Date, MINUTE},
    },
};

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
    pub(super) fn read(verbatim: &[u8]) -> Self {
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

    /// How much later this is than `earlier`, another time of the same table. None where it isn't, or can't be told.
    pub fn after(self, earlier: Self) -> Option<Duration> {
        let millis = self.time()?.0.checked_sub(earlier.time()?.0)?;
        u64::try_from(millis).ok().map(Duration::from_millis)
    }
}

/// FNV-1a: quick. Names that were chosen to collide cost the sort of a few more, and no more than that.
pub(super) fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.fold(0xcbf2_9ce4_8422_2325, step)
}

/// One row, as one look saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The row's id.
    pub id: u64,
    /// `scheduler_cluster_id`.
    pub cluster_id: u64,
    /// `host_name`, verbatim: it may be none that the manager's KeepAlive takes.
    pub hostname: Box<str>,
    /// `ip`; `None` where it is none, or not spelled as Go prints it (no KeepAlive finds such a row).
    pub ip: Option<IpAddr>,
    /// `port`; 0 where it is none.
    pub port: u16,
    /// `state`.
    pub state: State,
    /// `last_keep_alive_at`, where the source shows it.
    pub keep_alive: Option<Stamp>,
    /// `updated_at`, where the source shows it.
    pub updated: Option<Stamp>,
    /// `config.manager_keep_alive_interval` in milliseconds, where the source shows it.
    pub interval_ms: Option<u32>,
}

/// The keep-alive interval of a row that doesn't say: the scheduler's default.
pub const USUAL_INTERVAL: Duration = Duration::from_secs(5);

impl Sighting {
    /// The row's keep-alive interval: its own, else the usual one.
    pub fn interval(&self) -> Duration {
        self.interval_ms.map_or(USUAL_INTERVAL, |ms| Duration::from_millis(ms.into()))
    }

    /// The key that a KeepAlive finds this row by. An error where none can.
    pub fn key(&self) -> Result<SchedulerKey, KeyError> {
        let ip = match self.ip {
            Some(ip) => SchedulerIp::try_from(ip)?,
            None => "".parse::<SchedulerIp>()?,
        };
        Ok(SchedulerKey::new(self.cluster_id.try_into()?, self.hostname.parse()?, ip))
    }
}

/// An interval as the table's `config` has it, in milliseconds; none where it is no interval.
pub fn interval_ms(interval: Duration) -> Option<u32> {
    u32::try_from(interval.as_millis()).ok().filter(|ms| *ms > 0)
}

/// The address of a row, where it is spelled as Go prints it: a KeepAlive compares strings, and finds no other.
pub fn canonical(ip: &str) -> Option<IpAddr> {
    // IPv4 has one spelling that is read at all.
    if let Ok(ip) = ip.parse::<Ipv4Addr>() {
        return Some(ip.into());
    }
    ip.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()).filter(|parsed| parsed.to_string() == ip)
}

impl From<&Row> for Sighting {
    fn from(row: &Row) -> Self {
        Self {
            id: row.id,
            cluster_id: row.cluster_id,
            hostname: row.hostname.as_str().into(),
            ip: canonical(&row.ip),
            port: u16::try_from(row.port).unwrap_or(0),
            state: row.state,
            keep_alive: row.last_keep_alive_at.as_deref().map(Stamp::of),
            updated: row.updated_at.as_deref().map(Stamp::of),
            interval_ms: row.keep_alive_interval.and_then(interval_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn row(ip: &str) -> Row {
        Row {
            id: 7,
            hostname: "scheduler-0".to_owned(),
            ip: ip.to_owned(),
            port: 8002,
            state: State::Active,
            cluster_id: 1,
            last_keep_alive_at: Some("2026-11-23T20:54:32.734+08:00".to_owned()),
            keep_alive_interval: Some(Duration::from_secs(3)),
            updated_at: Some("2026-11-23T20:54:32.734+08:00".to_owned()),
        }
    }

    #[test]
    fn a_key_is_made_of_what_a_keep_alive_would_find() {
        let key = Sighting::from(&row("10.0.0.1")).key().unwrap();
        assert_eq!(
            key.to_string(),
            SchedulerKey::new(
                1.try_into().unwrap(),
                "scheduler-0".parse().unwrap(),
                "10.0.0.1".parse().unwrap()
            )
            .to_string()
        );
        for unfindable in [
            "",
            "::ffff:10.0.0.1",
            "fd00:0:0:0:0:0:0:1",
            "x",
            "10.0.0.01",
            "10.0.1",
            "0x0a.0.0.1",
            " 10.0.0.1",
        ] {
            assert!(Sighting::from(&row(unfindable)).key().is_err(), "{unfindable}");
        }
    }

    #[test]
    fn a_stamp_moves_with_its_time_and_not_with_the_zone_it_is_shown_in() {
        for (before, now, moved) in [
            ("2026-11-23 20:54:32.734", "2026-11-23 20:54:32.734", false),
            ("2026-11-23 20:54:32.734", "2026-11-23 20:54:32.735", true),
            // One manager's zone is Shanghai, the other's UTC: MySQL's digits stay, PostgreSQL's instant does.
            ("2026-11-23T20:54:32.734+08:00", "2026-11-23T20:54:32.734Z", false),
            ("2026-11-23T20:54:32.734+08:00", "2026-11-23T12:54:32.734Z", false),
            ("2026-11-23T20:54:32.734+08:00", "2026-11-23T20:54:37.734+08:00", true),
            // New York sets its clocks back.
            ("2026-11-01T01:59:58-04:00", "2026-11-01T01:00:03-05:00", true),
            ("2026-11-01 01:59:58", "2026-11-01 01:00:03", true),
            ("", "", false),
            ("what", "ever", true),
            ("ünïcödë", "ünïcödé", true),
        ] {
            assert_eq!(Stamp::of(now).moved_since(Stamp::of(before)), moved, "{before} -> {now}");
        }
    }

    proptest! {
        #[test]
        fn a_stamp_is_as_its_text_says(
            (before, now) in (any_text(), any_text()),
        ) {
            let (digits, moment): (Vec<_>, Vec<_>) = [&before, &now].map(|text| {
                let (date, time) = text.split_at(text.len().min(11));
                let digits = format!("{date}{}", time.split(['Z', '+', '-']).next().unwrap());
                let with_offset = if digits.len() < text.len() { text.clone() } else { format!("{text}Z") };
                (digits, with_offset.parse::<Timestamp>().ok().map(Timestamp::as_millisecond))
            }).into_iter().unzip();
            let (earlier, later) = (Stamp::of(&before), Stamp::of(&now));
            prop_assert_eq!(later.moved_since(earlier), digits[0] != digits[1] && (moment[0] != moment[1] || moment[0].is_none()));
            let age = moment[1].zip(moment[0]).and_then(|(now, before)| u64::try_from(now - before).ok());
            prop_assert_eq!(later.after(earlier).map(|age| age.as_millis()), age.map(u128::from));
        }
    }

    /// Times of all kinds, and what is none.
    fn any_text() -> impl Strategy<Value = String> {
        let date = proptest::sample::select(vec![
            "2026-11-01",
            "0001-01-01",
            "9998-12-31",
            "1969-12-31",
            "2026-13-01",
            "x",
        ]);
        let time =
            proptest::sample::select(vec!["00:00:00.001", "01:59:58.734", "12:59:59.999", "23:00:00.000"]);
        let offset = proptest::sample::select(vec![
            "", "Z", "+00:00", "+08:00", "-05:00", "+05:45", "-12:00", "+14:00",
        ]);
        (date, time, offset).prop_map(|(date, time, offset)| format!("{date}T{time}{offset}"))
    }

    #[test]
    fn an_age_is_the_distance_of_two_times_of_one_table() {
        let (early, late) = (Stamp::of("2026-11-23 20:54:32.734"), Stamp::of("2026-11-23 21:54:32.735"));
        assert_eq!(late.after(early), Some(Duration::from_millis(3_600_001)));
        assert_eq!(early.after(late), None);
        assert_eq!(late.after(Stamp::of("never")), None);
    }
}
