//! Dates as a manager and its database write them: RFC 3339, or `2026-11-23 20:54:32.734` with or without an offset. One
//! layout, and no other: each row of a table has two of them.

/// The milliseconds of a minute.
pub(crate) const MINUTE: i64 = 60_000;

/// What is written of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Date {
    /// What is shown, in milliseconds since 1970 as if that were UTC.
    pub(crate) shown: i64,
    /// The offset written beside it, in minutes; without one it is UTC.
    pub(crate) offset: i64,
}

impl Date {
    /// Reads what [`split`] gave. None where it is no such time.
    pub(crate) fn of((digits, offset): (&[u8], &[u8])) -> Option<Self> {
        Some(Self { shown: shown(digits)?, offset: minutes(offset)? })
    }

    /// The moment, in milliseconds since 1970.
    pub(crate) fn moment(self) -> i64 {
        self.shown - self.offset * MINUTE
    }
}

/// What is shown of a time, and the offset beside it.
pub(crate) fn split(text: &[u8]) -> (&[u8], &[u8]) {
    // A date has hyphens too: an offset can only stand behind the time of day.
    let begins = |byte: &u8| matches!(byte, b'Z' | b'z' | b'+' | b'-');
    text.split_at(text.iter().skip(11).position(begins).map_or(text.len(), |at| 11 + at))
}

/// A whole number as it is written in digits alone; none where it is none, or too large.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    let mut number: u64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(digit.into())?;
    }
    (!digits.is_empty()).then_some(number)
}

/// Two digits, of a number from `least` to `most`.
fn two(digits: [&u8; 2], least: u32, most: u32) -> Option<u32> {
    let [tens, ones] = digits.map(|byte| u32::from(byte.wrapping_sub(b'0')));
    let number = tens * 10 + ones;
    (tens < 10 && ones < 10 && least <= number && number <= most).then_some(number)
}

fn shown(digits: &[u8]) -> Option<i64> {
    let [y3, y2, y1, y0, b'-', m1, m0, b'-', d1, d0, b' ' | b'T' | b't', time @ ..] = digits else {
        return None;
    };
    let [h1, h0, b':', i1, i0, b':', s1, s0, fraction @ ..] = time else { return None };
    let year = two([y3, y2], 0, 99)? * 100 + two([y1, y0], 0, 99)?;
    if year == 0 {
        return None;
    }
    let month = two([m1, m0], 1, 12)?;
    let day = two([d1, d0], 1, length(year, month))?;
    let minutes = two([h1, h0], 0, 23)? * 60 + two([i1, i0], 0, 59)?;
    let millis = match fraction {
        [] => 0,
        [b'.', digits @ ..] => {
            number(digits)?;
            let digit = |at: usize| digits.get(at).map_or(0, |byte| u32::from(byte - b'0'));
            digit(0) * 100 + digit(1) * 10 + digit(2)
        }
        _ => return None,
    };
    let millis = two([s1, s0], 0, 59)? * 1_000 + millis;
    let days = i64::from(days(year, month, day)) - 719_468;
    Some((days * 1_440 + i64::from(minutes)) * MINUTE + i64::from(millis))
}

/// The days of a month.
fn length(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days since the first of March of the year 0. Years are counted from March, so that a leap day is the last one.
fn days(year: u32, month: u32, day: u32) -> u32 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1
}

fn minutes(offset: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match offset {
        [] | [b'Z' | b'z'] => return Some(0),
        // PostgreSQL writes whole hours so.
        [sign, h1, h0] => (sign, [h1, h0], [&b'0'; 2]),
        [sign, h1, h0, b':', m1, m0] => (sign, [h1, h0], [m1, m0]),
        _ => return None,
    };
    let minutes = i64::from(two(hours, 0, 23)? * 60 + two(minutes, 0, 59)?);
    match sign {
        b'+' => Some(minutes),
        b'-' => Some(-minutes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, civil::DateTime, tz::Offset};
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Date> {
        Date::of(split(text.as_bytes()))
    }

    proptest! {
        #[test]
        fn a_date_is_read_as_a_calendar_has_it(
            (year, month, day) in (0..9_999_i32, 0..15_u8, 0..33_u8),
            (hour, minute, second) in (0..26_u8, 0..62_u8, 0..60_u8),
            fraction in "(\\.[0-9]{1,9})?",
            between in "[ Tt]",
            offset in "Z|z|[+-](0[0-9]|1[0-9]|2[0-3])(:[0-5][0-9])?|",
        ) {
            let digits = format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}{fraction}");
            let floor = |at: Timestamp| i64::try_from(at.as_nanosecond().div_euclid(1_000_000)).unwrap();
            let shown = digits.parse::<DateTime>().ok().filter(|_| year > 0);
            let shown = shown.and_then(|at| Offset::UTC.to_timestamp(at).ok()).map(floor);
            let date = read(&format!("{digits}{offset}"));
            prop_assert_eq!(date.map(|date| date.shown), shown);
            if !offset.is_empty() && shown.is_some() {
                prop_assert_eq!(date.map(Date::moment), format!("{digits}{offset}").parse().ok().map(floor));
            }
        }

        #[test]
        fn what_is_no_date_is_none(text in "[0-9TZ:. +-]{0,30}", bytes: Vec<u8>) {
            prop_assert!(read(&text).is_none() || text.parse::<DateTime>().is_ok() || text.parse::<Timestamp>().is_ok());
            prop_assert_eq!(Date::of(split(&bytes)), None);
        }
    }

    #[test]
    fn what_a_calendar_has_not_is_no_date() {
        for text in [
            "",
            "never",
            "0000-00-00 00:00:00",
            "2026-02-29 00:00:00",
            "1900-02-29 00:00:00",
            "2026-04-31 00:00:00",
            "2026-11-23",
            "2026-11-23 20:54",
            "2026-11-23 20:54:32.",
            "2026-11-23 20:54:32 ",
            "2026-11-23 20:54:32+8",
            "2026-11-23 20:54:32+08:5",
            "2026-11-23 20:54:32+08:60",
            "2026-11-23 20:54:32Zz",
            "20261-11-3 20:54:32",
            "12026-11-23 20:54:32",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(["2024-02-29 00:00:00", "2000-02-29 00:00:00"].iter().all(|text| read(text).is_some()));
    }

    #[test]
    fn a_number_is_digits_alone() {
        assert_eq!(
            ["0", "007", "18446744073709551615"].map(|text| number(text.as_bytes())),
            [Some(0), Some(7), Some(u64::MAX)]
        );
        assert!(
            ["", "-1", "+1", "1 ", "x", "18446744073709551616"]
                .iter()
                .all(|text| number(text.as_bytes()).is_none())
        );
    }
}
