//! What one look at the manager's table keeps of a row: little, so that a table of 100,000 rows fits a small memory.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    time::Duration,
};

use crate::{
    key::{KeyError, SchedulerIp, SchedulerKey},
    manager::{Row, State},
};

pub(super) use crate::manager::times::hash;
pub use crate::manager::times::{Stamp, Times, USUAL_INTERVAL};

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
    /// `created_at`, where the source shows it.
    pub created: Option<Stamp>,
    /// `last_keep_alive_at`, where the source shows it.
    pub keep_alive: Option<Stamp>,
    /// `updated_at`, where the source shows it.
    pub updated: Option<Stamp>,
    /// `config.manager_keep_alive_interval` in milliseconds, where the source shows it.
    pub interval_ms: Option<NonZeroU32>,
}

impl Sighting {
    /// The row's keep-alive interval: its own, else the usual one.
    pub fn interval(&self) -> Duration {
        self.interval_ms.map_or(USUAL_INTERVAL, |ms| Duration::from_millis(ms.get().into()))
    }

    /// Its times.
    pub fn times(&self) -> Times {
        Times { created: self.created, updated: self.updated, keep_alive: self.keep_alive }
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
pub fn interval_ms(interval: Duration) -> Option<NonZeroU32> {
    u32::try_from(interval.as_millis()).ok().and_then(NonZeroU32::new)
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
            created: row.created_at.as_deref().map(Stamp::of),
            keep_alive: row.last_keep_alive_at.as_deref().map(Stamp::of),
            updated: row.updated_at.as_deref().map(Stamp::of),
            interval_ms: row.keep_alive_interval.and_then(interval_ms),
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
            created_at: Some("2026-11-23T12:54:32.734+08:00".to_owned()),
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
}
