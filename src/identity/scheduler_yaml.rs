//! The scheduler's own configuration, `/etc/dragonfly/scheduler.yaml`: the named fields that say whose row the agent
//! answers for and where everything is. Nothing else is read.
//!
//! The file also holds a Redis password. So whatever isn't a named field goes with the document, and an error
//! names the file, the line and the field, never a word of the file's text. It is read as the scheduler reads it (viper,
//! mapstructure and yaml.v3, of the versions that v2.1.34 to v2.5.1 are built with; `tests/oracle` compares): the first
//! document, keys without regard to case, dotted ones too, a null as unset, and a number where a text is wanted. No variable
//! of the environment changes a field there.

use std::{net::IpAddr, path::Path, time::Duration};

use self::{
    document::{Document, Leaves},
    value::Value,
};
use super::settings::DEFAULT_SCHEDULER_PORT;

mod document;
mod value;

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
    /// `metrics.enable`.
    pub metrics: bool,
    /// `metrics.addr`, as Go listens on it: `host:port`.
    pub metrics_addr: Option<String>,
    /// `network.enableIPv6`.
    pub enable_ipv6: bool,
    /// `security`, of which v2.1.34 to v2.1.60 took the manager's TLS.
    pub security: Security,
}

/// `security` of v2.1.34 to v2.1.60; later releases ignore it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// `autoIssueCert`: without it there is no TLS.
    pub auto_issue_cert: bool,
    /// `caCert`: the certificate of the manager's CA itself, or the file that it is in.
    pub ca_cert: Option<String>,
    /// `tlsPolicy`: `force`, `prefer` (as without one: TLS towards the manager, either of peers) or `default` (plain text towards
    /// the manager).
    pub tls_policy: Option<String>,
}

impl Security {
    /// Whether the scheduler speaks TLS to its manager.
    pub fn is_tls(&self) -> bool {
        self.auto_issue_cert && self.tls_policy.as_deref() != Some("default")
    }

    fn is_inline(&self) -> bool {
        self.ca_cert.as_ref().is_some_and(|cert| cert.trim().starts_with("-----BEGIN "))
    }

    fn files(&self) -> TlsFiles {
        let file = self.ca_cert.as_ref().filter(|cert| !cert.is_empty() && !self.is_inline());
        TlsFiles { ca_file: file.map(Into::into), ..TlsFiles::default() }
    }
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
    /// Whether `field` (its dotted name, as in an error), or what holds it, is there and unusable.
    pub fn is_bad(&self, field: &str) -> bool {
        let is_or_holds =
            |bad: &str| field.strip_prefix(bad).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.errors.iter().any(|e| matches!(e, YamlError::Field { field: bad, .. } if is_or_holds(bad)))
    }
}

/// Every field that is read, by its dotted name.
pub(crate) const FIELDS: [&str; 20] = [
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
    "metrics.enable",
    "metrics.addr",
    "network.enableIPv6",
    "security.autoIssueCert",
    "security.caCert",
    "security.tlsPolicy",
];

/// What holds those fields.
pub(crate) const SECTIONS: [&str; 8] =
    ["server", "server.tls", "manager", "manager.tls", "manager.keepAlive", "metrics", "network", "security"];

/// Reads the named fields from the file's `text`; `file` is its path, for errors only.
pub fn parse(text: &str, file: &Path) -> Result<Parsed, YamlError> {
    let file = file.display().to_string();
    let sections = SECTIONS.map(str::to_lowercase);
    // Nothing else is looked at: there may be much.
    let wanted = |name: &str| {
        sections.iter().any(|section| {
            let below =
                |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('.'));
            section == name || below(name, section) || below(section, name)
        })
    };
    let leaves = Document::read(text).and_then(|document| document.leaves(&wanted));
    let leaves =
        leaves.map_err(|(line, what)| YamlError::Document { file: file.clone(), line: line as u64, what })?;
    Ok(fill(&leaves, &file))
}

fn fill(found: &Leaves, file: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut wrong: Vec<(usize, &'static str, &'static str)> = Vec::new();
    for section in SECTIONS {
        if let Some(leaf) = found.leaves.get(&section.to_lowercase()) {
            wrong.push((leaf.line, section, "a mapping of names to values"));
        }
    }
    for field in FIELDS {
        let name = field.to_lowercase();
        let of_it =
            |other: &str| other == name || name.strip_prefix(other).is_some_and(|rest| rest.starts_with('.'));
        if let Some((_, line)) = found.ambiguous.iter().find(|(other, _)| of_it(other)) {
            wrong.push((*line, field, "there once: it is there twice, in letters of another case"));
            continue;
        }
        let below = format!("{name}.");
        let deeper =
            found.leaves.range(below.clone()..).next().filter(|(other, _)| other.starts_with(&below));
        let leaf = match (deeper, found.leaves.get(&name)) {
            (None, None) => continue,
            (Some((_, leaf)), _) => (leaf.line, None),
            (None, Some(leaf)) => (leaf.line, leaf.value.as_ref()),
        };
        let taken = match leaf.1 {
            Some(value) => parsed.yaml.take(field, value),
            None => Err("a single value"),
        };
        if let Err(wanted) = taken {
            wrong.push((leaf.0, field, wanted));
        }
    }
    let holds = |section: &str| {
        found
            .leaves
            .range(format!("{section}.")..)
            .next()
            .is_some_and(|(name, _)| name.starts_with(&format!("{section}.")))
    };
    parsed.yaml.server_tls = parsed.yaml.server_tls.or_else(|| holds("server.tls").then(TlsFiles::default));
    parsed.yaml.manager_tls =
        parsed.yaml.manager_tls.or_else(|| holds("manager.tls").then(TlsFiles::default));
    // What is wrong is told from the top down.
    wrong.sort();
    parsed.errors = wrong
        .into_iter()
        .map(|(line, field, wanted)| YamlError::Field {
            file: file.to_owned(),
            line: line as u64,
            field,
            wanted,
        })
        .collect();
    parsed
}

impl SchedulerYaml {
    /// Takes a field's value, or says what would be right.
    fn take(&mut self, field: &'static str, value: &Value) -> Result<(), &'static str> {
        const TEXT: &str = "a text";
        match field {
            "server.host" => {
                self.host = Some(value.text().filter(|host| !host.is_empty()).ok_or("a hostname")?);
            }
            "server.advertiseIP" => self.advertise_ip = value.ip().ok_or("an IP address")?,
            "server.listenIP" => self.listen_ip = value.ip().ok_or("an IP address")?,
            "server.port" => self.port = Some(port(value).filter(|port| *port > 0).ok_or(PORT)?),
            "server.advertisePort" => self.advertise_port = Some(port(value).ok_or(PORT)?),
            "manager.addr" => {
                let addr = value.text().filter(|addr| !addr.is_empty());
                self.manager_addr = Some(addr.ok_or("the manager's address, host:port")?);
            }
            "manager.schedulerClusterID" => {
                let id = value.uint().filter(|id| *id > 0);
                self.cluster_id = Some(id.ok_or("a cluster id, a whole number of at least 1")?);
            }
            "manager.keepAlive.interval" => {
                let interval = value.duration().filter(|interval| !interval.is_zero());
                self.keep_alive_interval = Some(interval.ok_or("a duration such as 5s or 1m30s")?);
            }
            "metrics.enable" => self.metrics = value.bool().ok_or("true or false")?,
            "metrics.addr" => self.metrics_addr = Some(value.text().ok_or(TEXT)?),
            "network.enableIPv6" => self.enable_ipv6 = value.bool().ok_or("true or false")?,
            "security.autoIssueCert" => {
                self.security.auto_issue_cert = value.bool().ok_or("true or false")?
            }
            "security.caCert" => self.security.ca_cert = Some(value.text().ok_or(TEXT)?),
            "security.tlsPolicy" => self.security.tls_policy = Some(value.text().ok_or(TEXT)?),
            _ => {
                let path = value.text().ok_or("a file's path")?;
                let path = (!path.is_empty()).then(|| std::path::PathBuf::from(path));
                let (section, file) = field.rsplit_once('.').unwrap_or_default();
                let tls = if section == "server.tls" { &mut self.server_tls } else { &mut self.manager_tls };
                let tls = tls.get_or_insert_default();
                match file {
                    "caCert" => tls.ca_file = path,
                    "cert" => tls.cert_file = path,
                    _ => tls.key_file = path,
                }
            }
        }
        Ok(())
    }

    /// The ports that the scheduler listens on: for its peers, and for its metrics (8000 unless one is given) where they are on.
    pub fn listening_ports(&self) -> Vec<u16> {
        let metrics = match (self.metrics, &self.metrics_addr) {
            (false, _) => None,
            (true, None) => Some(DEFAULT_METRICS_PORT),
            // A port's name, or port 0, is nobody's to keep clear of.
            (true, Some(addr)) => {
                addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).filter(|port| *port > 0)
            }
        };
        std::iter::once(self.port.unwrap_or(DEFAULT_SCHEDULER_PORT)).chain(metrics).collect()
    }

    /// The files with which the scheduler speaks TLS to its manager; none where it speaks plain text.
    pub fn manager_tls_files(&self) -> Option<TlsFiles> {
        self.manager_tls.clone().or_else(|| self.security.is_tls().then(|| self.security.files()))
    }

    /// Whether the certificate of the manager's CA is in the file itself.
    pub fn has_certificate_inline(&self) -> bool {
        self.manager_tls.is_none() && self.security.is_tls() && self.security.is_inline()
    }

    /// The files to look at the scheduler with; none where it is plain text.
    pub fn server_tls_files(&self) -> Option<TlsFiles> {
        self.server_tls.clone().or_else(|| self.wants_issued_certificates().then(|| self.security.files()))
    }

    /// Whether the scheduler, of an old release, takes no connection without a certificate that its manager issued.
    pub fn wants_issued_certificates(&self) -> bool {
        let force = self.security.tls_policy.as_deref() == Some("force");
        self.server_tls.is_none() && self.manager_tls.is_none() && self.security.auto_issue_cert && force
    }

    /// The port that the scheduler registers with: 8002 unless one is given, whatever the port is that it listens on; that
    /// one where 0 is given.
    pub fn registered_port(&self) -> u16 {
        match self.advertise_port {
            None => DEFAULT_SCHEDULER_PORT,
            Some(0) => self.port.unwrap_or(DEFAULT_SCHEDULER_PORT),
            Some(port) => port,
        }
    }
}

/// Where the scheduler serves its metrics unless told otherwise (v2.0.2 to v2.5.1).
const DEFAULT_METRICS_PORT: u16 = 8000;

const PORT: &str = "a port, a whole number from 1 to 65535";

fn port(value: &Value) -> Option<u16> {
    u16::try_from(value.int()?).ok()
}

#[cfg(test)]
mod tests;
