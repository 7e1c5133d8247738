//! Rows as the REST API writes them, read leniently: unknown keys and nulls don't matter, and only what is needed must be
//! there. Each row is checked as soon as it is read, so that a page of rubbish takes no memory.

use std::{fmt, marker::PhantomData, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::manager::{Registered, Row, State};

/// A page of rows, of each what is asked for.
pub(super) struct Rows<T = Row>(pub(super) Vec<T>);

/// One row.
pub(super) struct One(pub(super) Row);

/// One row, and all that is shown of it as JSON.
pub(super) struct Whole(pub(super) Row, pub(super) String);

#[derive(Deserialize, Serialize)]
pub(super) struct Raw {
    id: Option<Value>,
    host_name: Option<Value>,
    ip: Option<Value>,
    port: Option<Value>,
    state: Option<Value>,
    scheduler_cluster_id: Option<Value>,
    created_at: Option<Value>,
    last_keep_alive_at: Option<Value>,
    updated_at: Option<Value>,
    idc: Option<Value>,
    location: Option<Value>,
    features: Option<Value>,
    config: Option<Value>,
}

/// The keep-alive interval in `config`, which is whatever JSON a scheduler reported: nanoseconds.
fn interval(config: &Value) -> Option<Duration> {
    let nanoseconds = config.get("manager_keep_alive_interval")?.as_u64();
    nanoseconds.filter(|ns| *ns > 0).map(Duration::from_nanos)
}

/// The same, as the database has it: JSON, or whatever else stands there.
#[cfg(feature = "database")]
pub(crate) fn interval_in(config: &[u8]) -> Option<Duration> {
    interval(&serde_json::from_slice(config).ok()?)
}

impl TryFrom<Raw> for Row {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Row, String> {
        let id = number("id", raw.id)?.ok_or("id: it is missing or null; a row has a number there")?;
        let cluster_id = number("scheduler_cluster_id", raw.scheduler_cluster_id)?.unwrap_or_default();
        let hostname = text("host_name", raw.host_name)?;
        let state = text("state", raw.state)?
            .ok_or("state: it is missing or null; a row has active or inactive there")?;
        let port = number("port", raw.port)?.unwrap_or_default();
        let keep_alive_interval = raw.config.as_ref().and_then(interval);
        Ok(Row {
            id,
            hostname: hostname.unwrap_or_default(),
            ip: text("ip", raw.ip)?.unwrap_or_default(),
            port: i32::try_from(port).map_err(|_| format!("port: {port} is no port"))?,
            state: if state == "active" { State::Active } else { State::Inactive },
            cluster_id,
            created_at: text("created_at", raw.created_at)?.filter(|at| !at.is_empty()),
            last_keep_alive_at: text("last_keep_alive_at", raw.last_keep_alive_at)?
                .filter(|at| !at.is_empty()),
            keep_alive_interval,
            updated_at: text("updated_at", raw.updated_at)?.filter(|at| !at.is_empty()),
        })
    }
}

fn number(field: &str, value: Option<Value>) -> Result<Option<u64>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| wrong(field, &value, "a whole number")),
    }
}

fn text(field: &str, value: Option<Value>) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(value) => Err(wrong(field, &value, "a string")),
    }
}

fn wrong(field: &str, value: &Value, right: &str) -> String {
    let shown: String = value.to_string().chars().take(60).collect();
    format!("{field}: {shown} is not {right}")
}

impl<'de> Deserialize<'de> for One {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Raw::deserialize(input)?.try_into().map(One).map_err(D::Error::custom)
    }
}

/// What one row of a page is read as.
pub(super) trait OfAPage: Sized {
    /// Or what is wrong with it, by its field.
    fn of(raw: Raw) -> Result<Self, String>;
}

impl OfAPage for Row {
    fn of(raw: Raw) -> Result<Self, String> {
        raw.try_into()
    }
}

impl OfAPage for Whole {
    fn of(raw: Raw) -> Result<Self, String> {
        let whole = serde_json::to_string(&raw).map_err(|error| error.to_string())?;
        raw.try_into().map(|row| Whole(row, whole))
    }
}

impl OfAPage for (Row, Registered) {
    fn of(mut raw: Raw) -> Result<Self, String> {
        let word = |value: Option<Value>| match value {
            Some(Value::String(word)) => Some(word),
            _ => None,
        };
        let mut registered = Registered {
            port: 0,
            idc: word(raw.idc.take()).unwrap_or_default(),
            location: word(raw.location.take()).unwrap_or_default(),
            // What is no list of words is the manager's to choose.
            features: match raw.features.take() {
                Some(Value::Array(words)) => words.into_iter().filter_map(|one| word(Some(one))).collect(),
                _ => Vec::new(),
            },
            config: match &raw.config {
                None | Some(Value::Null) => String::new(),
                Some(config) => config.to_string(),
            },
        };
        let row = Row::try_from(raw)?;
        registered.port = row.port;
        Ok((row, registered))
    }
}

impl<'de, T: OfAPage> Deserialize<'de> for Rows<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Page<T>(PhantomData<T>);
        impl<'de, T: OfAPage> Visitor<'de> for Page<T> {
            type Value = Rows<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of schedulers")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rows<T>, A::Error> {
                let mut rows = Vec::new();
                while let Some(raw) = seq.next_element::<Raw>()? {
                    rows.push(T::of(raw).map_err(A::Error::custom)?);
                }
                Ok(Rows(rows))
            }
            // Go writes an empty slice that was never made as null.
            fn visit_unit<E: Error>(self) -> Result<Rows<T>, E> {
                Ok(Rows(Vec::new()))
            }
        }
        input.deserialize_any(Page(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a v2.5 manager writes it.
    const ROW: &str = r#"{"id":1,"created_at":"2026-11-23T12:05:43.748Z","updated_at":"2026-11-23T12:26:28.76Z","is_del":0,
        "config":{"manager_keep_alive_interval":5000000000},"host_name":"sched-0","idc":"","ip":"127.0.0.20","port":8002,
        "state":"active","features":["schedule"],"last_keep_alive_at":"2026-11-23T12:26:28.759Z","scheduler_cluster_id":1,
        "scheduler_cluster":{"id":0,"created_at":"0001-01-01T00:00:00Z","config":null}}"#;

    #[test]
    fn a_row_is_read_as_the_manager_writes_it() {
        let Rows::<Row>(rows) = serde_json::from_str(&format!("[{ROW}]")).unwrap();
        assert_eq!(
            rows,
            [Row {
                id: 1,
                hostname: "sched-0".into(),
                ip: "127.0.0.20".into(),
                port: 8002,
                state: State::Active,
                cluster_id: 1,
                created_at: Some("2026-11-23T12:05:43.748Z".into()),
                last_keep_alive_at: Some("2026-11-23T12:26:28.759Z".into()),
                keep_alive_interval: Some(Duration::from_secs(5)),
                updated_at: Some("2026-11-23T12:26:28.76Z".into()),
            }]
        );
    }

    #[test]
    fn what_a_scheduler_registered_is_read_as_it_is() {
        let Rows(rows) = serde_json::from_str::<Rows<(Row, Registered)>>(&format!("[{ROW}]")).unwrap();
        let config = r#"{"manager_keep_alive_interval":5000000000}"#.to_owned();
        let registered =
            Registered { port: 8002, features: vec!["schedule".to_owned()], config, ..Registered::default() };
        assert_eq!(rows[0].1, registered);
        let odd = r#"[{"id":2,"state":"inactive","port":9,"idc":"a","location":"b|c","features":null,"config":null},
            {"id":3,"state":"inactive","port":9,"idc":"a","location":"b|c","features":{"x":1}}]"#;
        let Rows(rows) = serde_json::from_str::<Rows<(Row, Registered)>>(odd).unwrap();
        let told =
            Registered { port: 9, idc: "a".to_owned(), location: "b|c".to_owned(), ..Registered::default() };
        assert!(rows.iter().all(|(_, registered)| *registered == told), "{rows:?}");
    }

    #[test]
    fn nulls_missing_keys_and_an_odd_config_do_not_matter() {
        let page = r#"[{"id":2,"state":"inactive","host_name":null,"ip":null,"config":null,"last_keep_alive_at":null},
            {"id":3,"state":"inactive","config":"x"},{"id":4,"state":"inactive","config":{"manager_keep_alive_interval":"5s"}}]"#;
        let Rows::<Row>(rows) = serde_json::from_str(page).unwrap();
        assert_eq!(rows.iter().map(|r| r.id).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(rows.iter().all(|r| r.keep_alive_interval.is_none() && r.state == State::Inactive));
        assert!(serde_json::from_str::<Rows>("null").unwrap().0.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        for (page, field) in [
            (r#"[{"state":"active"}]"#, "id: "),
            (r#"[{"id":"x","state":"active"}]"#, "id: \"x\""),
            (r#"[{"id":1}]"#, "state: "),
            (r#"[{"id":1,"state":7}]"#, "state: 7"),
            (r#"[{"id":1,"state":"active","port":4294967296}]"#, "port: 4294967296"),
            (r#"{"message":"hello"}"#, "a list of schedulers"),
        ] {
            let Err(error) = serde_json::from_str::<Rows>(page) else { panic!("{page}") };
            assert!(error.to_string().contains(field), "{page}: {error}");
        }
    }
}
