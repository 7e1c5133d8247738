//! The scheduler's own configuration, `/etc/dragonfly/scheduler.yaml`: the named fields that say whose row the agent
//! answers for and where everything is. Nothing else is read.
//!
//! The file also holds a Redis password. So whatever isn't a named field goes with the document, and an error
//! names the file, the line and the field, never a word of the file's text. As the scheduler reads it: keys match
//! without regard to case, a null counts as unset, a number will do where a text is wanted and the other way about.

use std::{net::IpAddr, path::Path, time::Duration};

use super::duration;

use document::{Document, Found, Leaf};

mod document;

/// Where the Helm chart and the scheduler itself expect the file.
pub const DEFAULT_PATH: &str = "/etc/dragonfly/scheduler.yaml";

/// A file longer than this is not read.
pub const MAX_BYTES: u64 = 1 << 20;

/// Certificate files of one side of a connection. Empty paths are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct TlsFiles {
    /// `caCert`: whom to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<std::path::PathBuf>,
    /// `cert`: who we are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<std::path::PathBuf>,
    /// `key` of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<std::path::PathBuf>,
}

impl TlsFiles {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The named fields. None: absent, null, or (but for a number) empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SchedulerYaml {
    /// `server.host`.
    pub host: Option<String>,
    /// `server.advertiseIP`.
    pub advertise_ip: Option<IpAddr>,
    /// `server.advertisePort`.
    pub advertise_port: Option<u16>,
    /// `server.listenIP`.
    pub listen_ip: Option<IpAddr>,
    /// `server.port`.
    pub port: Option<u16>,
    /// `server.tls`: where there is any, the scheduler wants a client certificate, for health checks too.
    pub server_tls: Option<TlsFiles>,
    /// `manager.addr`, `host:port`.
    pub manager_addr: Option<String>,
    /// `manager.tls`.
    pub manager_tls: Option<TlsFiles>,
    /// `manager.schedulerClusterID`.
    pub cluster_id: Option<u64>,
    /// `manager.keepAlive.interval`.
    pub keep_alive_interval: Option<Duration>,
    /// `network.enableIPv6`.
    pub enable_ipv6: bool,
}

/// Why the file, or one field of it, can't be used. Never quotes the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// The text is no YAML document of the shape a scheduler reads.
    #[error("{file}:{line}: {what}")]
    Document {
        /// The file's path.
        file: String,
        /// Counted from 1; 0 where it isn't known.
        line: u64,
        /// What is wrong there, in our own words.
        what: &'static str,
    },
    /// A named field has a value that can't be right.
    #[error("{file}:{line}: {field} is not {wanted}")]
    Field {
        /// The file's path.
        file: String,
        /// Counted from 1.
        line: u64,
        /// Its dotted name.
        field: &'static str,
        /// What would be right.
        wanted: &'static str,
    },
}

/// What was read, and what couldn't be: a bad field leaves the others usable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// The fields that could be read.
    pub yaml: SchedulerYaml,
    /// The fields that couldn't.
    pub errors: Vec<YamlError>,
}

impl Parsed {
    /// Whether `field` (its dotted name, as in an error) is there and unusable.
    pub fn is_bad(&self, field: &str) -> bool {
        self.errors.iter().any(|e| matches!(e, YamlError::Field { field: f, .. } if *f == field))
    }
}

/// Every field that is read, by its dotted name.
const FIELDS: [&str; 15] = [
    "server.host",
    "server.advertiseIP",
    "server.advertisePort",
    "server.listenIP",
    "server.port",
    "server.tls.caCert",
    "server.tls.cert",
    "server.tls.key",
    "manager.addr",
    "manager.tls.caCert",
    "manager.tls.cert",
    "manager.tls.key",
    "manager.schedulerClusterID",
    "manager.keepAlive.interval",
    "network.enableIPv6",
];

/// Reads the named fields from the file's `text`; `file` is its path, for errors only.
pub fn parse(text: &str, file: &Path) -> Result<Parsed, YamlError> {
    let file = file.display().to_string();
    let document = Document::read(text).map_err(|(line, what)| YamlError::Document {
        file: file.clone(),
        line: line as u64,
        what,
    })?;
    let mut found: Vec<Found> = FIELDS.iter().filter_map(|field| document.find(field)).collect();
    // What is wrong is told from the top down.
    found.sort_by_key(|found| found.line);
    Ok(fill(found, &file))
}

fn fill(found: Vec<Found>, file: &str) -> Parsed {
    let mut yaml = SchedulerYaml::default();
    let mut errors = Vec::new();
    let (mut server_tls, mut manager_tls) = (TlsFiles::default(), TlsFiles::default());
    for Found { field, line, leaf } in found {
        let mut wrong = |wanted| errors.push(YamlError::Field { file: file.to_owned(), line, field, wanted });
        let text = match leaf {
            Leaf::Null => continue,
            Leaf::Collection => {
                wrong("a single value");
                continue;
            }
            Leaf::Text(text) if text.trim().is_empty() => continue,
            Leaf::Text(text) => text.trim().to_owned(),
        };
        let path = || Some(std::path::PathBuf::from(&text));
        match field {
            "server.host" => yaml.host = Some(text),
            "manager.addr" => yaml.manager_addr = Some(text),
            "server.tls.caCert" => server_tls.ca_file = path(),
            "server.tls.cert" => server_tls.cert_file = path(),
            "server.tls.key" => server_tls.key_file = path(),
            "manager.tls.caCert" => manager_tls.ca_file = path(),
            "manager.tls.cert" => manager_tls.cert_file = path(),
            "manager.tls.key" => manager_tls.key_file = path(),
            "server.advertiseIP" | "server.listenIP" => match text.parse::<IpAddr>() {
                Ok(ip) if field == "server.listenIP" => yaml.listen_ip = Some(ip),
                Ok(ip) => yaml.advertise_ip = Some(ip),
                Err(_) => wrong("an IP address"),
            },
            "server.advertisePort" | "server.port" => match whole(&text).map(u16::try_from) {
                // The scheduler takes 0 for unset.
                Some(Ok(0)) => {}
                Some(Ok(port)) if field == "server.port" => yaml.port = Some(port),
                Some(Ok(port)) => yaml.advertise_port = Some(port),
                _ => wrong("a port, a whole number from 1 to 65535"),
            },
            "manager.schedulerClusterID" => match whole(&text) {
                Some(id) if id > 0 => yaml.cluster_id = Some(id),
                _ => wrong("a cluster id, a whole number of at least 1"),
            },
            "manager.keepAlive.interval" => match duration::parse_go(&text) {
                Some(interval) if !interval.is_zero() => yaml.keep_alive_interval = Some(interval),
                _ => wrong("a duration such as 5s or 1m30s"),
            },
            "network.enableIPv6" => match text.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => yaml.enable_ipv6 = true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => yaml.enable_ipv6 = false,
                _ => wrong("true or false"),
            },
            _ => {}
        }
    }
    yaml.server_tls = Some(server_tls).filter(|t| !t.is_empty());
    yaml.manager_tls = Some(manager_tls).filter(|t| !t.is_empty());
    Parsed { yaml, errors }
}

/// A whole number as YAML writes it, decimal, `0x` or `0o`.
fn whole(text: &str) -> Option<u64> {
    match text.split_at_checked(2) {
        Some(("0x", digits)) => u64::from_str_radix(digits, 16).ok(),
        Some(("0o", digits)) => u64::from_str_radix(digits, 8).ok(),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests;
