//! A scalar as the scheduler's decoders see it: typed by yaml.v3 (`resolve.go` of v3.0.1), then made into what a field wants by
//! mapstructure with weak types (v1.5.0). So `1e+06` is a million, as Helm writes it, and a host named `1e3` is `1000`.

use std::{net::IpAddr, time::Duration};

/// What yaml.v3 makes of a scalar.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
    /// A date, or bytes: nothing that a field here can be made of.
    Other,
}

/// The type of a scalar with this text. `tag` is the short one (`!!int`) of YAML's own, if it has any; a scalar that is not
/// plain is a text unless it has. None where it isn't of the type that its tag says: then no scheduler reads the document.
pub(super) fn resolve(tag: Option<&str>, plain: bool, text: &str) -> Option<Value> {
    let value = match tag {
        None if plain => untagged(text),
        None | Some("!!str") => Value::Text(text.to_owned()),
        Some("!!bool" | "!!int" | "!!float" | "!!null" | "!!timestamp") => untagged(text),
        Some("!!binary") => Value::Other,
        Some(_) => Value::Text(text.to_owned()),
    };
    match (tag, value) {
        (Some("!!float"), Value::Int(int)) => Some(Value::Float(int as f64)),
        (Some("!!bool"), value @ Value::Bool(_))
        | (Some("!!int"), value @ (Value::Int(_) | Value::Uint(_)))
        | (Some("!!float"), value @ Value::Float(_))
        | (Some("!!null"), value @ Value::Null)
        | (Some("!!timestamp"), value @ Value::Other) => Some(value),
        (Some("!!bool" | "!!int" | "!!float" | "!!null" | "!!timestamp"), _) => None,
        (_, value) => Some(value),
    }
}

fn untagged(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    match text.as_bytes()[0] {
        b'.' if is_float(text) => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Float),
        b'0'..=b'9' | b'+' | b'-' => number(text).unwrap_or_else(|| Value::Text(text.to_owned())),
        _ => Value::Text(text.to_owned()),
    }
}

fn number(text: &str) -> Option<Value> {
    if is_timestamp(text) {
        return Some(Value::Other);
    }
    let plain = text.replace('_', "");
    if let Some(int) = parse_int(&plain) {
        return Some(Value::Int(int));
    }
    if let Some(uint) = parse_uint(&plain) {
        return Some(Value::Uint(uint));
    }
    // 08, which is no octal number, is eight here.
    if is_float(&plain) {
        plain.parse().ok().filter(|float: &f64| float.is_finite()).map(Value::Float)
    } else {
        None
    }
}

/// YAML's own form: `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn is_float(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let whole = digits(rest);
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = digits(fraction);
        if whole == 0 && length == 0 {
            return false;
        }
        rest = &fraction[length..];
    } else if whole == 0 {
        return false;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

/// `2006-1-2`, alone or with a time of day after `T`, `t` or a space.
fn is_timestamp(text: &str) -> bool {
    let (date, time) =
        text.split_once(['T', 't', ' ']).map_or((text, None), |(date, time)| (date, Some(time)));
    let parts: Vec<&str> = date.split('-').collect();
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>, most: u32| {
        digits.contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && text.parse::<u32>().is_ok_and(|number| number <= most)
    };
    let &[year, month, day] = parts.as_slice() else { return false };
    let is_date = number(year, 4..=4, 9999) && number(month, 1..=2, 12) && number(day, 1..=2, 31);
    let time_of_day = |time: &str| {
        let parts: Vec<&str> = time.split(':').collect();
        let &[hour, minute, second] = parts.as_slice() else { return false };
        let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
        number(hour, 1..=2, 23)
            && number(minute, 1..=2, 59)
            && number(second, 1..=2, 59)
            && !fraction.is_empty()
            && fraction.bytes().all(|byte| byte.is_ascii_digit())
    };
    let zoned = |time: &str| match time.strip_suffix(['Z']) {
        Some(time) => time_of_day(time),
        None => time.rfind(['+', '-']).is_some_and(|at| {
            let zone: Vec<&str> = time[at + 1..].split(':').collect();
            zone.len() == 2 && zone.iter().all(|part| number(part, 2..=2, 59)) && time_of_day(&time[..at])
        }),
    };
    is_date
        && month.parse::<u32>().is_ok_and(|month| month > 0)
        && day.parse::<u32>().is_ok_and(|day| day > 0)
        && match (time, text.as_bytes().get(date.len())) {
            (None, _) => true,
            (Some(time), Some(b' ')) => time_of_day(time),
            (Some(time), _) => zoned(time),
        }
}

/// Go's `strconv.ParseInt(text, 0, 64)`.
fn parse_int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = parse_uint(digits)?;
    match (negative, i64::try_from(magnitude)) {
        (false, Ok(int)) => Some(int),
        (true, Ok(int)) => Some(-int),
        (true, Err(_)) if magnitude == 1 << 63 => None,
        _ => None,
    }
}

/// Go's `strconv.ParseUint(text, 0, 64)`: prefixes `0x`, `0o`, `0b` and `0`, underscores between digits.
fn parse_uint(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // One stands between digits, or after a prefix.
    let after_prefix = radix != 10 && digits.starts_with('_');
    let separated = digits.strip_prefix('_').filter(|_| after_prefix).unwrap_or(digits);
    if separated.split('_').any(|part| part.is_empty() || !part.bytes().all(|b| b.is_ascii_alphanumeric())) {
        return None;
    }
    u64::from_str_radix(&separated.replace('_', ""), radix).ok()
}

impl Value {
    /// As a text.
    pub(super) fn text(&self) -> Option<String> {
        Some(match self {
            Value::Text(text) => text.clone(),
            Value::Bool(set) => u8::from(*set).to_string(),
            Value::Int(int) => int.to_string(),
            Value::Uint(uint) => uint.to_string(),
            Value::Float(float) if float.is_nan() => "NaN".to_owned(),
            Value::Float(float) if float.is_infinite() => {
                if *float > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
            }
            Value::Float(float) => float.to_string(),
            Value::Null | Value::Other => return None,
        })
    }

    /// As Go's `int`. What comes of a number past it depends on the machine: none is taken.
    pub(super) fn int(&self) -> Option<i64> {
        Some(match self {
            Value::Text(text) if text.is_empty() => 0,
            Value::Text(text) => parse_int(text)?,
            Value::Bool(set) => i64::from(*set),
            Value::Int(int) => *int,
            Value::Uint(uint) => uint.cast_signed(),
            Value::Float(float) => truncated(*float)?,
            Value::Null | Value::Other => return None,
        })
    }

    /// As Go's `uint`, which a negative whole number is turned into without complaint.
    pub(super) fn uint(&self) -> Option<u64> {
        Some(match self {
            Value::Text(text) if text.is_empty() => 0,
            Value::Text(text) => parse_uint(text)?,
            Value::Bool(set) => u64::from(*set),
            Value::Int(int) => int.cast_unsigned(),
            Value::Uint(uint) => *uint,
            Value::Float(float) => u64::try_from(truncated(*float)?).ok()?,
            Value::Null | Value::Other => return None,
        })
    }

    /// As a `bool`.
    pub(super) fn bool(&self) -> Option<bool> {
        match self {
            Value::Bool(set) => Some(*set),
            Value::Int(int) => Some(*int != 0),
            Value::Uint(uint) => Some(*uint != 0),
            Value::Float(float) => Some(*float != 0.0),
            Value::Text(text) => match text.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" | "" => Some(false),
                _ => None,
            },
            Value::Null | Value::Other => None,
        }
    }

    /// As a `time.Duration`: a text as Go writes one, a number of nanoseconds. None where it is negative, too.
    pub(super) fn duration(&self) -> Option<Duration> {
        match self {
            Value::Text(text) => super::super::duration::parse_go(text),
            other => u64::try_from(other.int()?).ok().map(Duration::from_nanos),
        }
    }

    /// As an IP address; an empty text is none.
    pub(super) fn ip(&self) -> Option<Option<IpAddr>> {
        match self {
            Value::Text(text) if text.is_empty() => Some(None),
            Value::Text(text) => text.parse().ok().map(Some),
            _ => None,
        }
    }
}

fn truncated(float: f64) -> Option<i64> {
    /// 2^63, the first that is too large.
    const END: f64 = 9_223_372_036_854_775_808.0;
    (float > -END && float < END).then_some(float as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Value {
        resolve(None, true, text).unwrap()
    }

    #[test]
    fn a_plain_scalar_has_the_type_that_yaml_v3_gives_it() {
        let text = |text: &str| Value::Text(text.into());
        for (given, value) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("NULL", Value::Null),
            ("nUll", text("nUll")),
            ("True", Value::Bool(true)),
            ("yes", text("yes")),
            ("8002", Value::Int(8002)),
            ("1_000", Value::Int(1000)),
            ("010", Value::Int(8)),
            ("08", Value::Float(8.0)),
            ("0x1F42", Value::Int(8002)),
            ("0o17502", Value::Int(8002)),
            ("0b11", Value::Int(3)),
            ("-5", Value::Int(-5)),
            ("18446744073709551615", Value::Uint(u64::MAX)),
            ("1e+06", Value::Float(1e6)),
            (".5", Value::Float(0.5)),
            ("1.", Value::Float(1.0)),
            ("1e400", text("1e400")),
            ("5s", text("5s")),
            ("-", text("-")),
            ("10.0.0.1", text("10.0.0.1")),
            ("2024-01-02", Value::Other),
            ("2024-1-2T3:4:5Z", Value::Other),
            ("2024-1-2 3:4:5.5", Value::Other),
            ("2024-13-02", text("2024-13-02")),
            ("2024-01-02x", text("2024-01-02x")),
        ] {
            assert_eq!(plain(given), value, "{given:?}");
        }
        assert_eq!(resolve(None, false, "8002"), Some(text("8002")));
        assert_eq!(resolve(Some("!!int"), false, "8002"), Some(Value::Int(8002)));
        assert_eq!(resolve(Some("!!float"), true, "5"), Some(Value::Float(5.0)));
        assert_eq!(resolve(Some("!!str"), true, "5"), Some(text("5")));
        assert_eq!(resolve(Some("!!int"), true, "x"), None);
        assert_eq!(resolve(Some("!mine"), true, "5"), Some(text("5")));
    }

    #[test]
    fn a_value_becomes_what_a_field_wants_as_weakly_as_the_scheduler_takes_it() {
        assert_eq!(plain("1e3").text().as_deref(), Some("1000"));
        assert_eq!(plain("true").text().as_deref(), Some("1"));
        assert_eq!(plain("2024-01-02").text(), None);
        assert_eq!(
            (plain("1e+06").int(), plain("true").int(), plain("8e30").int()),
            (Some(1_000_000), Some(1), None)
        );
        assert_eq!(Value::Text("0x1f42".into()).int(), Some(8002));
        assert_eq!(Value::Text(" 1".into()).int(), None);
        assert_eq!(Value::Text(String::new()).int(), Some(0));
        assert_eq!((plain("-1").uint(), plain("1.9").uint()), (Some(u64::MAX), Some(1)));
        assert_eq!((plain("1").bool(), Value::Text("yes".into()).bool()), (Some(true), None));
        assert_eq!(plain("5e9").duration(), Some(Duration::from_secs(5)));
        assert_eq!(plain("1m30s").duration(), Some(Duration::from_secs(90)));
        assert_eq!((plain("-5s").duration(), Value::Text("5".into()).duration()), (None, None));
        assert_eq!(Value::Text(String::new()).ip(), Some(None));
        assert_eq!((plain("::1").ip(), plain("1").ip()), (Some("::1".parse().ok()), None));
    }
}
