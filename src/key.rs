//! The identity of a scheduler's row in the manager: [`SchedulerKey`].
//!
//! A key that exists is one the manager's own request validation accepts (`KeepAliveRequest` in Dragonfly's
//! `manager.proto`: a hostname of labels of letters, digits and hyphens, an IP, a cluster id of at least 1), so no
//! later step has to check again. The IP is kept in the spelling Go prints, since the manager compares strings.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a value can't be part of a key. Its message names the field, the value and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The hostname isn't one the manager accepts.
    #[error(
        "hostname {0:?} is not a hostname: {1}; use labels of letters, digits and hyphens joined by dots"
    )]
    Hostname(String, &'static str),
    /// The cluster id is zero or no number.
    #[error("cluster id {0:?} is not a cluster id: use a whole number of at least 1")]
    ClusterId(String),
    /// The IP is not an address a scheduler can be reached at.
    #[error("ip {0:?} is not {1}")]
    Ip(String, &'static str),
}

/// The id of a scheduler cluster in the manager: at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct ClusterId(u64);

impl ClusterId {
    /// The number as the manager's APIs carry it.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for ClusterId {
    type Error = KeyError;
    fn try_from(id: u64) -> Result<Self, KeyError> {
        if id == 0 { Err(KeyError::ClusterId(id.to_string())) } else { Ok(Self(id)) }
    }
}

impl From<ClusterId> for u64 {
    fn from(id: ClusterId) -> u64 {
        id.0
    }
}

impl FromStr for ClusterId {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        text.parse::<u64>().map_err(|_| KeyError::ClusterId(text.to_owned()))?.try_into()
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A hostname that the manager's request validation accepts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(String);

impl Hostname {
    /// The name as written; its case is kept, since PostgreSQL compares it exactly.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first label: a StatefulSet pod's name.
    pub fn first_label(&self) -> &str {
        self.0.split('.').next().unwrap_or(&self.0)
    }

    fn check(name: &str) -> Result<(), &'static str> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return Err("it is empty");
        }
        if name.len() > 253 {
            return Err("it is longer than 253 characters");
        }
        for label in name.split('.') {
            if label.is_empty() {
                return Err("it has an empty label");
            }
            if label.len() > 63 {
                return Err("it has a label of more than 63 characters");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err("it has a label that starts or ends with a hyphen");
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return Err("it has a character that is no letter, digit or hyphen");
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Hostname {
    type Error = KeyError;
    fn try_from(name: String) -> Result<Self, KeyError> {
        match Self::check(&name) {
            Ok(()) => Ok(Self(name)),
            Err(why) => Err(KeyError::Hostname(name, why)),
        }
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> String {
        name.0
    }
}

impl FromStr for Hostname {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::try_from(text.to_owned())
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The IP a scheduler registered with, canonical as Go's `net.IP.String` prints it (an IPv4-mapped IPv6 address is IPv4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SchedulerIp(IpAddr);

impl SchedulerIp {
    /// The address.
    pub fn get(self) -> IpAddr {
        self.0
    }
}

impl TryFrom<IpAddr> for SchedulerIp {
    type Error = KeyError;
    fn try_from(ip: IpAddr) -> Result<Self, KeyError> {
        let ip = ip.to_canonical();
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(KeyError::Ip(ip.to_string(), "an address that a scheduler can be reached at"));
        }
        Ok(Self(ip))
    }
}

impl TryFrom<String> for SchedulerIp {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<SchedulerIp> for String {
    fn from(ip: SchedulerIp) -> String {
        ip.to_string()
    }
}

impl FromStr for SchedulerIp {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let ip: IpAddr = text.parse().map_err(|_| KeyError::Ip(text.to_owned(), "an IP address"))?;
        ip.try_into()
    }
}

impl fmt::Display for SchedulerIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a row is a row of. Only schedulers now; a seed peer has the same kind of row and the same call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// `source_type` 0 of a `KeepAliveRequest`.
    #[default]
    Scheduler,
}

/// A row's identity in the manager: the unique key `uk_scheduler` (host_name, ip, scheduler_cluster_id).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SchedulerKey {
    /// The scheduler's cluster in the manager.
    pub cluster_id: ClusterId,
    /// The name it registered with.
    pub hostname: Hostname,
    /// The IP it registered with.
    pub ip: SchedulerIp,
    /// What kind of row it is.
    #[serde(default, skip_serializing_if = "is_scheduler")]
    pub source: Source,
}

fn is_scheduler(source: &Source) -> bool {
    *source == Source::Scheduler
}

impl SchedulerKey {
    /// A scheduler's key.
    pub fn new(cluster_id: ClusterId, hostname: Hostname, ip: SchedulerIp) -> Self {
        Self { cluster_id, hostname, ip, source: Source::Scheduler }
    }
}

impl fmt::Display for SchedulerKey {
    /// `hostname/ip in cluster N`, as users read it everywhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} in cluster {}", self.hostname, self.ip, self.cluster_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ip_is_kept_as_go_prints_it() {
        for (given, kept) in
            [("::ffff:10.0.0.1", "10.0.0.1"), ("fd00:0:0:0:0:0:0:1", "fd00::1"), ("10.0.0.1", "10.0.0.1")]
        {
            assert_eq!(given.parse::<SchedulerIp>().unwrap().to_string(), kept);
        }
    }

    #[test]
    fn what_the_manager_would_reject_is_no_key() {
        for name in ["", " ", "a..b", "-a", "a-", "under_score", &"x".repeat(64), "ü"] {
            let said = name.parse::<Hostname>().unwrap_err().to_string();
            assert!(said.contains("hostname"), "{said}");
        }
        for ip in ["", "0.0.0.0", "::", "10.0.0", "a"] {
            assert!(ip.parse::<SchedulerIp>().is_err(), "{ip}");
        }
        for id in ["", "0", "-1", "x"] {
            assert!(id.parse::<ClusterId>().is_err(), "{id}");
        }
    }
}
