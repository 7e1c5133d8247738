//! What one look at the manager's table keeps of a row: little, so that a table of 100,000 rows fits a small memory.

use std::{net::IpAddr, time::Duration};

use crate::{
    key::{KeyError, SchedulerIp, SchedulerKey},
    manager::{Row, State},
};

/// A row's `last_keep_alive_at`, only ever compared with the same row's at another look: what it says of a time depends on
/// the manager's time zone, whether it moved doesn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// Of the value as the source writes it, verbatim. Two values that differ have stamps that differ, but for one case in 2^64.
    pub fn of(verbatim: &str) -> Self {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        verbatim.hash(&mut hasher);
        Self(hasher.finish())
    }
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

impl From<&Row> for Sighting {
    fn from(row: &Row) -> Self {
        let ip = row.ip.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        Self {
            id: row.id,
            cluster_id: row.cluster_id,
            hostname: row.hostname.as_str().into(),
            ip: ip.filter(|ip| ip.to_string() == row.ip),
            port: u16::try_from(row.port).unwrap_or(0),
            state: row.state,
            keep_alive: row.last_keep_alive_at.as_deref().map(Stamp::of),
            interval_ms: row
                .keep_alive_interval
                .and_then(|interval| u32::try_from(interval.as_millis()).ok())
                .filter(|ms| *ms > 0),
        }
    }
}

#[cfg(test)]
mod tests {
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
        for unfindable in ["", "::ffff:10.0.0.1", "fd00:0:0:0:0:0:0:1", "x"] {
            assert!(Sighting::from(&row(unfindable)).key().is_err(), "{unfindable}");
        }
    }

    #[test]
    fn a_stamp_moves_with_its_text_alone() {
        assert_eq!(Stamp::of("2026-11-23 20:54:32.734"), Stamp::of("2026-11-23 20:54:32.734"));
        assert_ne!(Stamp::of("2026-11-23 20:54:32.734"), Stamp::of("2026-11-23 20:54:32.735"));
    }
}
