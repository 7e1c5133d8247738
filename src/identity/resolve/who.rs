//! The name and the address that a scheduler registers where nobody set them: what it finds out by itself when it starts
//! (Dragonfly's `pkg/net/fqdn` and `pkg/net/ip`, the same in v2.1.34 to v2.5.1).
//!
//! A scheduler asks each thing once and takes what it gets: an error of DNS, or none in time, leaves it with its plain hostname
//! and its first address. It reads /etc/hosts at its start, which a kubelet may be writing anew at that moment: each start of a
//! container of the pod does that, and the file is empty for an instant. So the plain hostname is always a candidate.

use std::net::IpAddr;

use super::{
    super::{
        fqdn::{self, Lookup},
        ip, scheduler_yaml,
        surroundings::Surroundings,
    },
    Context,
};
use crate::key::{Hostname, KeyError, SchedulerIp};

const HOSTS_FILE: &str = "/etc/hosts";

/// What was found, the likeliest first, and why that isn't certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found<T> {
    all: Vec<T>,
    pub(super) doubt: Option<String>,
}

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self { all: Vec::new(), doubt: None }
    }
}

impl<T> Found<T> {
    /// One, and no other.
    pub(super) fn certain(one: T) -> Self {
        Self { all: vec![one], doubt: None }
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.all.first()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.all.iter()
    }
}

impl<S: Surroundings> Context<'_, S> {
    fn own_name(&mut self, reason: &'static str) -> Option<String> {
        match self.surroundings.hostname() {
            Ok(name) if !name.trim().is_empty() => Some(name),
            Ok(_) => {
                self.say(reason, "this machine has no hostname: give --hostname".to_owned());
                None
            }
            Err(error) => {
                self.say(reason, format!("this machine's hostname can't be read: {error}"));
                None
            }
        }
    }

    /// The hosts file. Without one there is still DNS.
    fn hosts(&self) -> String {
        self.surroundings.read(HOSTS_FILE.as_ref(), scheduler_yaml::MAX_BYTES).unwrap_or_default()
    }

    /// What DNS says of this machine's name. None while it has not answered: that is said, and waited for.
    fn lookup(&mut self, reason: &'static str, host: &str) -> Option<Lookup> {
        match self.surroundings.lookup(host) {
            Lookup::NotYet => {
                self.say(
                    reason,
                    format!("what {host:?} stands for is not known: the resolver has not answered yet"),
                );
                None
            }
            answer => Some(answer),
        }
    }

    pub(super) fn hostnames(&mut self) -> Option<Found<Hostname>> {
        if self.config.hides(&["server.host"]) {
            return None;
        }
        if let Some(host) = self.config.yaml().host {
            return self.names(vec![host], None, "server.host in the scheduler's configuration");
        }
        let host = self.own_name("hostname")?;
        let hosts = self.hosts();
        if let Some(name) = fqdn::from_hosts(&hosts, &host) {
            let doubt =
                (!fqdn::is_whole(&hosts)).then(|| "the hosts file may be just being written".to_owned());
            return self.names(vec![name, host], doubt, "the FQDN of this machine");
        }
        let whole = fqdn::is_whole(&hosts) && !fqdn::lacks_its_pod(&hosts);
        // A kubelet that writes it is done in a moment.
        if self.surroundings.waits_for("hosts", !whole) {
            self.say("hostname", format!("{HOSTS_FILE} has no line for {host:?} yet"));
            return None;
        }
        let (names, doubt) = match self.lookup("hostname", &host)? {
            Lookup::Found { canonical: Some(name), .. } if !name.trim_end_matches('.').is_empty() => {
                (vec![name.trim_end_matches('.').to_owned(), host], None)
            }
            Lookup::Found { .. } | Lookup::NoSuchName => (vec![host], None),
            Lookup::Failed(why) => {
                let doubt = format!(
                    "the FQDN of {host:?} is not known ({why}), and its scheduler registers {host:?} then"
                );
                (vec![host], Some(doubt))
            }
            Lookup::NotYet => return None,
        };
        let doubt = doubt.or_else(|| (!whole).then(|| format!("{HOSTS_FILE} has no line for this machine")));
        self.names(names, doubt, "the hostname of this machine")
    }

    /// These as hostnames: the first must be one.
    fn names(&mut self, names: Vec<String>, doubt: Option<String>, of: &str) -> Option<Found<Hostname>> {
        let mut all: Vec<Hostname> = Vec::new();
        for name in names {
            match name.parse() {
                Ok(name) if all.contains(&name) => {}
                Ok(name) => all.push(name),
                Err(error) if all.is_empty() => {
                    let error: KeyError = error;
                    self.say("hostname", format!("{of}: {error}"));
                    return None;
                }
                Err(_) => {}
            }
        }
        Some(Found { all, doubt })
    }

    pub(super) fn ips(&mut self) -> Option<Found<SchedulerIp>> {
        if self.config.hides(&["server.advertiseIP", "network.enableIPv6"]) {
            return None;
        }
        let yaml = self.config.yaml();
        if let Some(ip) = yaml.advertise_ip {
            return self.addresses(vec![ip], None, "server.advertiseIP in the scheduler's configuration");
        }
        let ipv6 = yaml.enable_ipv6;
        let pod_ip = self.pod_ip(ipv6);
        let interfaces = match self.surroundings.interfaces() {
            Ok(interfaces) => interfaces,
            Err(error) => {
                let why = format!("the network interfaces can't be listed: {error}");
                let Some(pod_ip) = pod_ip else {
                    self.say("ip", format!("{why}; give --ip"));
                    return None;
                };
                return self.addresses(vec![pod_ip], Some(why), "POD_IP");
            }
        };
        let first = ip::candidates(&interfaces, ipv6).next();
        let Some(first) = first else {
            let Some(pod_ip) = pod_ip else {
                let family = if ipv6 { "IPv6" } else { "IPv4" };
                self.say(
                    "ip",
                    format!("this machine has no {family} address but loopback and link-local: give --ip"),
                );
                return None;
            };
            return self.addresses(
                vec![pod_ip],
                Some("POD_IP is no address of this machine".to_owned()),
                "POD_IP",
            );
        };
        let several = ip::candidates(&interfaces, ipv6).nth(1).is_some();
        let (chosen, mut doubt) =
            if several { self.chosen(&interfaces, first, ipv6)? } else { (first, None) };
        let is_here = |ip: &IpAddr| ip::candidates(&interfaces, ipv6).any(|here| here == *ip);
        if let Some(pod_ip) = pod_ip.filter(|pod_ip| !is_here(pod_ip)) {
            doubt = doubt.or_else(|| Some(format!("POD_IP {pod_ip} is no address of this machine")));
        }
        let all = std::iter::once(chosen).chain(pod_ip).chain([first]).collect();
        self.addresses(all, doubt, "this machine's address")
    }

    /// Of several addresses the one that the scheduler would take: one that its own name stands for, else the first.
    fn chosen(
        &mut self,
        interfaces: &[super::super::interfaces::Interface],
        first: IpAddr,
        ipv6: bool,
    ) -> Option<(IpAddr, Option<String>)> {
        let host = self.own_name("ip")?;
        let in_hosts = fqdn::addresses(&self.hosts(), &host);
        if !in_hosts.is_empty() {
            return Some((ip::choose(interfaces, &in_hosts, ipv6).unwrap_or(first), None));
        }
        Some(match self.lookup("ip", &host)? {
            Lookup::Found { addresses, .. } => {
                (ip::choose(interfaces, &addresses, ipv6).unwrap_or(first), None)
            }
            Lookup::NoSuchName | Lookup::NotYet => (first, None),
            Lookup::Failed(why) => {
                let doubt = format!(
                    "which of this machine's addresses {host:?} stands for is not known ({why}), and its scheduler registers the \
                     first then"
                );
                (first, Some(doubt))
            }
        })
    }

    /// POD_IP, where it is of the family that the scheduler takes. In a pod's own network it is what the scheduler finds, too;
    /// with hostNetwork it is one of the node's addresses, and need not be.
    fn pod_ip(&mut self, ipv6: bool) -> Option<IpAddr> {
        let text = self.surroundings.var("POD_IP")?;
        match text.trim().parse::<IpAddr>() {
            // A pod of both families has its first address there.
            Ok(ip) => Some(ip.to_canonical()).filter(|ip| ip.is_ipv6() == ipv6),
            Err(_) => {
                self.say("environment", format!("POD_IP {text:?} is not an IP address"));
                None
            }
        }
    }

    /// These as a scheduler's addresses: the first must be one.
    fn addresses(&mut self, ips: Vec<IpAddr>, doubt: Option<String>, of: &str) -> Option<Found<SchedulerIp>> {
        let mut all: Vec<SchedulerIp> = Vec::new();
        for ip in ips {
            match SchedulerIp::try_from(ip) {
                Ok(ip) if all.contains(&ip) => {}
                Ok(ip) => all.push(ip),
                Err(error) if all.is_empty() => {
                    self.say("ip", format!("{of}: {error}"));
                    return None;
                }
                Err(_) => {}
            }
        }
        Some(Found { all, doubt })
    }
}
