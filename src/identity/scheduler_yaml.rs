//! The scheduler's own configuration, `/etc/dragonfly/scheduler.yaml`: the named fields that say whose row the agent
//! answers for and where everything is. Nothing else is read.
//!
//! The file also holds a Redis password. So whatever isn't a named field is skipped without being kept, and an error
//! names the file, the line and the field, never a word of the file's text. As the scheduler reads it: keys match
//! without regard to case, a null counts as unset, a number will do where a text is wanted and the other way about.

use std::{cell::Cell, fmt, net::IpAddr, path::Path, time::Duration};

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::duration;

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
    let walk = Walk { found: Cell::default() };
    let section = Section { walk: &walk, prefix: "" };
    // Snippets of the source are switched off, and the error's text isn't used either.
    let options = serde_saphyr::options! { with_snippet: false };
    let read =
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |de| section.deserialize(de));
    if let Err(error) = read {
        let line = error.location().map_or(0, |l| l.line());
        let what = match error {
            serde_saphyr::Error::MultipleDocuments { .. } => "more than one YAML document",
            serde_saphyr::Error::DuplicateMappingKey { .. } => "a key is there twice in one mapping",
            serde_saphyr::Error::Eof { .. } => "the document ends too early",
            _ => "not a YAML document of the kind a scheduler reads",
        };
        return Err(YamlError::Document { file, line, what });
    }
    Ok(fill(walk.found.take(), &file))
}

struct Found {
    field: &'static str,
    line: u64,
    leaf: Leaf,
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
            "server.advertisePort" | "server.port" => match text.parse::<u16>() {
                // The scheduler takes 0 for unset.
                Ok(0) => {}
                Ok(port) if field == "server.port" => yaml.port = Some(port),
                Ok(port) => yaml.advertise_port = Some(port),
                Err(_) => wrong("a port, a whole number from 1 to 65535"),
            },
            "manager.schedulerClusterID" => match text.parse::<u64>() {
                Ok(id) if id > 0 => yaml.cluster_id = Some(id),
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

/// Collects the leaves on the way through the document.
struct Walk {
    found: Cell<Vec<Found>>,
}

/// A mapping on the way to named fields, whose dotted names begin with `prefix`. Anything else than a mapping there
/// holds none of them.
#[derive(Clone, Copy)]
struct Section<'w> {
    walk: &'w Walk,
    prefix: &'static str,
}

impl<'de> DeserializeSeed<'de> for Section<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

/// What a key of a section leads to.
enum Step {
    Leaf(&'static str),
    Section(&'static str),
}

impl Section<'_> {
    fn step(&self, key: &str) -> Option<Step> {
        FIELDS.iter().find_map(|field| {
            let rest = field.strip_prefix(self.prefix)?;
            let (head, deeper) = match rest.split_once('.') {
                Some((head, _)) => (head, true),
                None => (rest, false),
            };
            if !head.eq_ignore_ascii_case(key) {
                return None;
            }
            let prefix = &field[..self.prefix.len() + head.len() + usize::from(deeper)];
            Some(if deeper { Step::Section(prefix) } else { Step::Leaf(field) })
        })
    }
}

impl<'de> Visitor<'de> for Section<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key::<Key>()? {
            match self.step(&key) {
                Some(Step::Section(prefix)) => map.next_value_seed(Section { walk: self.walk, prefix })?,
                Some(Step::Leaf(field)) => {
                    let spanned: Spanned<Leaf> = map.next_value()?;
                    let mut found = self.walk.found.take();
                    found.push(Found { field, line: spanned.referenced.line(), leaf: spanned.value });
                    self.walk.found.set(found);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// A mapping's key, whatever its type; only texts lead anywhere.
struct Key(String);

impl<'de> de::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Key(match Leaf::deserialize(from)? {
            Leaf::Text(text) => text,
            Leaf::Null | Leaf::Collection => String::new(),
        }))
    }
}

/// The value of a named field.
enum Leaf {
    Null,
    Text(String),
    Collection,
}

impl<'de> de::Deserialize<'de> for Leaf {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Leaf;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Leaf, E> {
                Ok(Leaf::Null)
            }
            fn visit_none<E: de::Error>(self) -> Result<Leaf, E> {
                Ok(Leaf::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Leaf, D::Error> {
                from.deserialize_any(V)
            }
            fn visit_bool<E: de::Error>(self, v: bool) -> Result<Leaf, E> {
                Ok(Leaf::Text(v.to_string()))
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Leaf, E> {
                Ok(Leaf::Text(v.to_string()))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Leaf, E> {
                Ok(Leaf::Text(v.to_string()))
            }
            fn visit_i128<E: de::Error>(self, v: i128) -> Result<Leaf, E> {
                Ok(Leaf::Text(v.to_string()))
            }
            fn visit_u128<E: de::Error>(self, v: u128) -> Result<Leaf, E> {
                Ok(Leaf::Text(v.to_string()))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Leaf, E> {
                Ok(Leaf::Text(v.to_string()))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Leaf, E> {
                Ok(Leaf::Text(v.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Leaf, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Leaf::Collection)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Leaf, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Leaf::Collection)
            }
        }
        from.deserialize_any(V)
    }
}

#[cfg(test)]
mod tests;
