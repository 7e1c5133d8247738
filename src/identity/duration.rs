//! Durations as people write them on a command line (`30s`, `1m 30s`) and as Go writes them in a file (`1m30s`).

use std::time::Duration;

/// The longest duration that a flag may give, 100 years: far more than any use, and sums with it don't overflow.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads a duration as flags and `SIGNOFF_…` variables give it: `30s`, `500ms`, `1m30s`. The error says what would be
/// right; the caller names the flag and the value.
pub fn parse(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text.trim()).map_err(|_| {
        "it is not a duration; write a number and a unit, such as 500ms, 30s or 1m30s".to_owned()
    })?;
    bounded(duration)
}

/// Refuses one that is over [`LONGEST`].
pub fn bounded(duration: Duration) -> Result<Duration, String> {
    if duration > LONGEST {
        Err("it is longer than 100 years; write one such as 30s".to_owned())
    } else {
        Ok(duration)
    }
}

/// Writes a duration so that [`parse`] reads it back.
pub fn format(duration: Duration) -> String {
    // Nine digits of fraction help nobody, and humantime prints each unit apart.
    humantime::format_duration(duration).to_string()
}

/// Reads a duration as Go's `time.ParseDuration` does (`5s`, `1m30s`, `1.5h`, `0`). None where it is none, or negative.
pub fn parse_go(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0u128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        // What comes after these is less than a nanosecond.
        let fraction = &fraction[..fraction.len().min(18)];
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.into() };
        let nanos = whole.checked_mul(scale)?;
        let part = match fraction {
            "" => 0,
            digits => {
                u128::from(digits.parse::<u64>().ok()?) * scale
                    / 10u128.pow(u32::try_from(digits.len()).ok()?)
            }
        };
        total = total.checked_add(nanos)?.checked_add(part)?;
        rest = tail;
    }
    u64::try_from(total).ok().map(Duration::from_nanos)
}

/// Serde's way for a [`Duration`] field: a text that [`parse`] reads.
pub mod text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes it as text.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&super::format(*duration))
    }

    /// Reads it from text.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_duration_is_read_as_go_reads_it() {
        for (text, nanos) in [
            ("5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1h0m0.25s", 3_600_250_000_000),
            ("250ms", 250_000_000),
            ("7us", 7_000),
            ("7µs", 7_000),
            ("0", 0),
        ] {
            assert_eq!(parse_go(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in [
            "",
            "s",
            "5 s",
            "-5s",
            "5000000000",
            "1.2.3s",
            "5x",
            "1d",
            ".s",
            "5s3",
            "99999999999999999999h",
            "1e9",
        ] {
            assert_eq!(parse_go(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for millis in [0, 1, 500, 5_000, 90_000, 3_600_000, 90_061_001] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }

    #[test]
    fn one_that_sums_could_overflow_with_is_refused() {
        assert_eq!(bounded(LONGEST), Ok(LONGEST));
        for text in ["101years", "18446744073709551615s"] {
            assert!(parse(text).unwrap_err().contains("100 years"), "{text}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_refused_with_what_would_be_right() {
        for text in ["30", "", "s", "-1s", "3 parsecs"] {
            assert!(parse(text).unwrap_err().contains("30s"), "{text}");
        }
    }
}
