//! Whether succession is on for this agent, and why not.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::identity::{Repair, Settings};

/// What succession may do here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Signs predecessors off.
    On,
    /// Only says what it would sign off.
    Report,
    /// Doesn't look.
    #[default]
    #[serde(other)]
    Off,
}

/// What it may do, and where it is off, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What it may do.
    pub mode: Mode,
    /// Why it is off, in words.
    pub why: Option<String>,
}

impl Standing {
    /// By these settings. A hostname proves the same incarnation only where a StatefulSet gives it to one pod at a time; and
    /// under hostNetwork it is a node's address that lives on, whichever pod has it.
    pub fn of(settings: &Settings) -> Self {
        let off = |why: String| Self { mode: Mode::Off, why: Some(why) };
        let mode = match settings.repair {
            Repair::Off => return off("repair is set to off".to_owned()),
            Repair::Report => Mode::Report,
            Repair::On => Mode::On,
        };
        let Some(pod) = settings.pod_name.as_deref() else {
            return off("POD_NAME is not set".to_owned());
        };
        let label = settings.hostname.as_ref().map_or("", |hostname| hostname.first_label());
        if label != pod {
            return off(format!("the hostname begins with {label}, which is not the pod's name, {pod}"));
        }
        if !of_a_stateful_set(pod) {
            return off(format!("the pod's name, {pod}, does not end in a StatefulSet's ordinal"));
        }
        let own = settings.ip.map(|ip| ip.get()).into_iter().chain(settings.pod_ip);
        let of_the_node =
            |ip: IpAddr| settings.host_ips.iter().any(|host| host.to_canonical() == ip.to_canonical());
        if let Some(ip) = own.into_iter().find(|ip| of_the_node(*ip)) {
            return off(format!("{ip} is its node's address (hostNetwork)"));
        }
        Self { mode, why: None }
    }
}

/// `<name>-<ordinal>`.
fn of_a_stateful_set(pod: &str) -> bool {
    pod.rsplit_once('-').is_some_and(|(name, ordinal)| {
        let digits = !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit());
        // An ordinal is written without leading zeros.
        !name.is_empty() && digits && (ordinal == "0" || !ordinal.starts_with('0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(hostname: &str, pod: Option<&str>) -> Settings {
        Settings {
            hostname: Some(hostname.parse().unwrap()),
            ip: Some("10.0.0.7".parse().unwrap()),
            pod_name: pod.map(str::to_owned),
            pod_ip: Some("10.0.0.7".parse().unwrap()),
            host_ips: vec!["192.0.2.1".parse().unwrap()],
            ..Settings::default()
        }
    }

    #[test]
    fn it_is_on_for_a_stateful_sets_pod_alone() {
        for (hostname, pod, on) in [
            ("sched-0.sched.ns.svc.cluster.local", Some("sched-0"), true),
            ("a-dragonfly-scheduler-12", Some("a-dragonfly-scheduler-12"), true),
            ("sched-0.sched", None, false),
            ("sched-0.sched", Some("sched-1"), false),
            ("Sched-0.sched", Some("sched-0"), false),
            ("node-7", Some("sched-0"), false),
            // A Deployment's pod.
            ("sched-5d4f8c7b9d-x2x4z", Some("sched-5d4f8c7b9d-x2x4z"), false),
            ("sched-00", Some("sched-00"), false),
            ("sched-01", Some("sched-01"), false),
            ("sched", Some("sched"), false),
            ("0", Some("0"), false),
        ] {
            let standing = Standing::of(&settings(hostname, pod));
            assert_eq!(standing.mode == Mode::On, on, "{hostname} {pod:?}: {standing:?}");
            assert_eq!(standing.why.is_none(), on, "{standing:?}");
        }
    }

    #[test]
    fn g7_it_is_off_under_host_network_whichever_address_tells() {
        let ok = settings("sched-0", Some("sched-0"));
        let node = || Some("192.0.2.1".parse().unwrap());
        for (settings, on) in [
            (Settings { ip: Some("192.0.2.1".parse().unwrap()), ..ok.clone() }, false),
            (Settings { pod_ip: node(), ..ok.clone() }, false),
            (Settings { pod_ip: Some("::ffff:192.0.2.1".parse().unwrap()), ..ok.clone() }, false),
            (Settings { host_ips: Vec::new(), pod_ip: node(), ..ok.clone() }, true),
            (Settings { pod_ip: None, ..ok }, true),
        ] {
            let standing = Standing::of(&settings);
            assert_eq!(standing.mode == Mode::On, on, "{standing:?}");
            assert_eq!(standing.why.is_some_and(|why| why.contains("hostNetwork")), !on);
        }
    }

    #[test]
    fn repair_governs_it() {
        let ok = settings("sched-0", Some("sched-0"));
        let mode = |repair| Standing::of(&Settings { repair, ..ok.clone() }).mode;
        assert_eq!([Repair::On, Repair::Report, Repair::Off].map(mode), [Mode::On, Mode::Report, Mode::Off]);
    }
}
