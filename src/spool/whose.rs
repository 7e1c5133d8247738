//! Whose Dragonfly a record is about: the manager that whoever wrote it was configured for.

use std::{fmt, fs::File, io::Read, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::key::SchedulerKey;

/// More endpoints than anybody configures: a record has room for them.
const MOST: usize = 32;
/// Where the machine's resolver is configured.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const RESOLV_CONF_BYTES: u64 = 64 * 1024;

/// A manager's gRPC endpoints, as URLs with ports, as somebody was configured to reach it: `grpc://m.ns.svc:65003`. Sorted, each
/// once, in lower case, 32 at most.
///
/// Two lists name the same manager where they share an endpoint. Hosts are the same where one is the other's beginning, label by
/// label, as `m.ns` and `m.ns.svc` are of `m.ns.svc.cluster.local`; TLS or not makes no difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct Managers(Arc<[String]>);

impl Default for Managers {
    fn default() -> Self {
        Self::of([])
    }
}

impl From<Vec<String>> for Managers {
    fn from(endpoints: Vec<String>) -> Self {
        Self::of(endpoints)
    }
}

impl From<Managers> for Vec<String> {
    fn from(managers: Managers) -> Self {
        managers.0.to_vec()
    }
}

/// Which manager a record is for, seen from one that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The reader's own: they share an endpoint.
    Ours,
    /// Another: the record names its manager, and it is none of the reader's.
    Anothers,
    /// The record names no manager: an older release wrote it.
    Unsaid,
}

impl Managers {
    /// These endpoints.
    pub fn of(endpoints: impl IntoIterator<Item = String>) -> Self {
        let mut all: Vec<String> = endpoints.into_iter().map(|one| one.to_ascii_lowercase()).collect();
        all.sort_unstable();
        all.dedup();
        all.truncate(MOST);
        Self(all.into())
    }

    /// The same, each host of one label completed as this machine's resolver does it: by the first domain of `resolv_conf`. In
    /// Kubernetes that is the pod's namespace, and `manager` is another manager in each.
    pub fn completed(self, resolv_conf: &str) -> Self {
        let Some(domain) = first_search_domain(resolv_conf) else { return self };
        let completed = |endpoint: &String| complete(endpoint, &domain).unwrap_or_else(|| endpoint.clone());
        Self::of(self.0.iter().map(completed))
    }

    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The endpoints.
    pub fn endpoints(&self) -> &[String] {
        &self.0
    }

    /// Which manager a record is for that was written with these managers, read by one who was configured with `ours`.
    pub fn seen_from(&self, ours: &Self) -> Whose {
        match (self.is_empty(), ours.is_empty()) {
            (true, true) => return Whose::Ours,
            (true, false) => return Whose::Unsaid,
            (false, _) => {}
        }
        let shared = self.0.iter().any(|theirs| ours.0.iter().any(|ours| is_same(theirs, ours)));
        if shared { Whose::Ours } else { Whose::Anothers }
    }
}

/// On whose behalf a process uses a spool. Whoever names no manager takes what names none for its own.
#[derive(Debug, Clone, Default)]
pub struct Holder {
    /// Its manager.
    pub managers: Managers,
    /// The ports its scheduler is known by. A record of its key that names no manager and another port is about another
    /// Dragonfly's scheduler: under hostNetwork two on one node have one key. Empty: it has no scheduler.
    pub ports: Vec<u16>,
}

impl Holder {
    /// The same, its manager's name completed as this machine's resolver does it. Reads a file.
    pub fn completed_by_the_resolver(self) -> Self {
        let mut text = String::new();
        // Where it can't be read, the names are as they were given.
        if let Ok(file) = File::open(RESOLV_CONF)
            && file.take(RESOLV_CONF_BYTES).read_to_string(&mut text).is_ok()
        {
            return Self { managers: self.managers.completed(&text), ..self };
        }
        self
    }

    /// Which manager a record is for.
    pub(super) fn whose(&self, record: &Record) -> Whose {
        record.managers.seen_from(&self.managers)
    }

    /// Whether a record that isn't its own may be that of an agent before this one, for the same scheduler, whose manager went by
    /// another name then.
    pub(super) fn may_have_owned(&self, key: &SchedulerKey, record: &Record) -> bool {
        record.key == *key && record.address.is_none_or(|address| self.ports.contains(&address.port()))
    }

    /// Whether a record is of this process's own scheduler, whose key is `key`.
    pub(super) fn owns(&self, key: &SchedulerKey, record: &Record) -> bool {
        record.key == *key
            && match self.whose(record) {
                Whose::Ours => true,
                Whose::Anothers => false,
                Whose::Unsaid => record.address.is_none_or(|address| self.ports.contains(&address.port())),
            }
    }
}

impl fmt::Display for Managers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// The host, without a dot at its end, and the port.
fn split(endpoint: &str) -> Option<(&str, &str)> {
    let (_, address) = endpoint.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    Some((host.strip_suffix('.').unwrap_or(host), port))
}

fn is_same(one: &str, other: &str) -> bool {
    let (Some((one, port)), Some((other, other_port))) = (split(one), split(other)) else {
        return one == other;
    };
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    let is_name = short.contains('.') && short.parse::<IpAddr>().is_err();
    let begins =
        long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || (is_name && rest.starts_with('.')));
    port == other_port && begins
}

fn complete(endpoint: &str, domain: &str) -> Option<String> {
    let (host, port) = split(endpoint)?;
    let (scheme, address) = endpoint.split_once("://")?;
    let one_label =
        !host.contains(['.', ':']) && !address.starts_with(&format!("{host}.")) && host != "localhost";
    one_label.then(|| format!("{scheme}://{host}.{domain}:{port}"))
}

/// See resolv.conf(5): the last `search` or `domain` line counts.
fn first_search_domain(resolv_conf: &str) -> Option<String> {
    let words = resolv_conf.lines().map(str::split_ascii_whitespace);
    let mut domains = words.filter_map(|mut words| match words.next()? {
        "search" | "domain" => words.next(),
        _ => None,
    });
    let domain = domains.next_back()?.trim_matches('.');
    (!domain.is_empty()).then(|| domain.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn managers(endpoints: &[&str]) -> Managers {
        Managers::of(endpoints.iter().map(|endpoint| (*endpoint).to_owned()))
    }

    #[test]
    fn managers_are_the_same_where_one_endpoint_is_whatever_its_spelling() {
        let ours =
            managers(&["grpc://dragonfly-manager.ns.svc.cluster.local:65003", "grpc://10.0.0.9:65003"]);
        for same in [
            "grpc://dragonfly-manager.ns.svc.cluster.local:65003",
            "grpcs://dragonfly-manager.ns.svc.cluster.local:65003",
            "grpc://Dragonfly-Manager.ns.svc.cluster.local.:65003",
            "grpc://dragonfly-manager.ns.svc:65003",
            "grpc://dragonfly-manager.ns:65003",
            "grpc://10.0.0.9:65003",
        ] {
            assert_eq!(managers(&[same, "grpc://elsewhere:1"]).seen_from(&ours), Whose::Ours, "{same}");
        }
        for another in [
            "grpc://dragonfly-manager.other.svc.cluster.local:65003",
            "grpc://dragonfly-manager.ns.svc.cluster.local:65004",
            "grpc://dragonfly-manager:65003",
            "grpc://dragonfly-manager.n:65003",
            "grpc://10.0.0.90:65003",
            "grpc://10.0.0.9.example:65003",
            "grpc://[fd00::9]:65003",
        ] {
            assert_eq!(managers(&[another]).seen_from(&ours), Whose::Anothers, "{another}");
        }
        assert_eq!(managers(&[]).seen_from(&ours), Whose::Unsaid);
        let ipv6 = managers(&["grpc://[fd00::9]:65003"]);
        assert_eq!(ipv6.seen_from(&managers(&["grpcs://[fd00::9]:65003"])), Whose::Ours);
    }

    #[test]
    fn a_host_of_one_label_is_another_in_each_namespace() {
        let resolv_conf = "nameserver 10.96.0.10\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
        for (given, completed) in [
            ("grpc://manager:65003", "grpc://manager.ns.svc.cluster.local:65003"),
            ("grpc://manager.:65003", "grpc://manager.:65003"),
            ("grpc://manager.ns:65003", "grpc://manager.ns:65003"),
            ("grpc://localhost:65003", "grpc://localhost:65003"),
            ("grpc://10.0.0.9:65003", "grpc://10.0.0.9:65003"),
            ("grpc://[fd00::9]:65003", "grpc://[fd00::9]:65003"),
        ] {
            assert_eq!(managers(&[given]).completed(resolv_conf), managers(&[completed]));
        }
        let as_given = managers(&["grpc://manager:65003"]);
        for without in ["", "nameserver 10.96.0.10\n", "search .\n", "# search a.b\n"] {
            assert_eq!(as_given.clone().completed(without), as_given, "{without:?}");
        }
        let last = "domain old.example\nsearch New.example. other\n";
        assert_eq!(as_given.completed(last), managers(&["grpc://manager.new.example:65003"]));
    }
}
