//! From flags, `SIGNOFF_…`, `agent.json`, scheduler.yaml, the hosts file, DNS and the interfaces, in that order, to [`Settings`].
//!
//! Nothing fails here: what can't be read, isn't known yet or is wrong in itself is a [`Problem`] and a field left open, and
//! [`resolve`] is simply called again. While a scheduler.yaml that should be there can't be read, what it may say is not
//! guessed: a wrong identity would sign nobody off. For the same reason a flag whose value is wrong leaves its field open:
//! no other source stands in for it, unless that can't lead to a write that nobody meant.
//!
//! What the scheduler registers where nobody set it, it found out when it started; what is found here is what it would find
//! now. So there may be other [`Resolved::keys`] than the first: the manager's list tells which it is.

use std::net::IpAddr;

use self::{config::Config, who::Found};
use super::{
    address::{HostPort, is_grpc},
    inputs::{Inputs, Wrong},
    settings::{DEFAULT_KEEP_ALIVE, DEFAULT_SCHEDULER_PORT, Repair, Settings},
    surroundings::Surroundings,
};
use crate::key::{ClusterId, SchedulerKey};

mod config;
mod endpoints;
mod who;

/// The reason of a [`Problem`] that no waiting can mend: what flags and variables say is wrong (exit 64 for the commands that
/// people run).
pub const CONFIGURATION: &str = "configuration";

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The label of `signoff_degraded{reason}`: [`CONFIGURATION`], `scheduler-config`, `hostname`, `ip`, `manager` or
    /// `environment`.
    pub reason: &'static str,
    /// One line: what is wrong, where, and what would be right.
    pub text: String,
}

/// What could be resolved, and what couldn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The settings; see [`Settings::is_complete`].
    pub settings: Settings,
    /// The keys that the scheduler may be registered with, the likeliest, [`Settings::key`], first; none while it is not known.
    /// There are others only where the scheduler found its name or address out by itself.
    pub keys: Vec<SchedulerKey>,
    /// Why the first key isn't certain to be the one that the scheduler registers if it starts now; none where it is.
    pub doubt: Option<String>,
    /// Why the settings may be incomplete, or not what was meant.
    pub problems: Vec<Problem>,
}

/// Resolves, once; blocks for at most a few seconds, so keep it off an async thread. It may be called again at any time. `file`
/// is the `agent.json` of a running agent, for commands beside it: what it says goes before scheduler.yaml and the defaults.
pub fn resolve(inputs: &Inputs, file: Option<&Settings>, surroundings: &impl Surroundings) -> Resolved {
    let mut problems: Vec<Problem> = inputs.wrong.iter().map(said).collect();
    let file = file.cloned().unwrap_or_default();
    let config = if inputs.is_wrong("scheduler-config") {
        Config::Unreadable
    } else if file.is_complete() {
        Config::NotThere
    } else {
        Config::read(inputs.scheduler_config.as_ref(), surroundings, &mut problems)
    };
    let yaml = config.yaml();
    let mut context = Context { inputs, config: &config, surroundings, problems: &mut problems };

    let (managers, without_manager) = context.managers(&file);
    let (mut names, mut ips) = (Found::default(), Found::default());
    let (mut cluster_id, mut scheduler_addr) = (None, None);
    // There is nothing to find out where there is nothing to do.
    if !without_manager {
        let given = inputs.hostname.clone().or(file.hostname);
        names = context
            .unless_wrong("hostname", given.map(Found::certain), Context::hostnames)
            .unwrap_or_default();
        let given = inputs.ip.or(file.ip);
        ips = context.unless_wrong("ip", given.map(Found::certain), Context::ips).unwrap_or_default();
        let given = inputs.cluster_id.or(file.cluster_id);
        cluster_id = context.unless_wrong("cluster-id", given, Context::cluster_id);
        let given = inputs.scheduler_addr.clone().or(file.scheduler_addr);
        scheduler_addr = context.unless_wrong("scheduler-addr", given, Context::scheduler_addr);
    }
    let host_ips = match context.host_ips() {
        ips if ips.is_empty() => file.host_ips,
        ips => ips,
    };

    // Where an agent.json named the files, scheduler.yaml was not read.
    let tls = yaml.manager_tls_files().unwrap_or_default();
    let listening_port = inputs.scheduler_addr.as_ref().map(HostPort::port);
    let right = |flag: &str| !inputs.is_wrong(flag);
    let settings = Settings {
        hostname: names.first().cloned(),
        ip: ips.first().copied(),
        cluster_id,
        scheduler_addr,
        advertise_port: match config {
            Config::NotThere => listening_port.unwrap_or(file.advertise_port),
            Config::Unreadable => listening_port.unwrap_or(DEFAULT_SCHEDULER_PORT),
            Config::Read(_) => yaml.registered_port(),
        },
        registered_port: match &config {
            Config::NotThere => file.registered_port,
            Config::Read(parsed) if !parsed.is_bad("server.advertisePort") => Some(yaml.registered_port()),
            Config::Read(_) | Config::Unreadable => None,
        },
        scheduler_ports: scheduler_ports(&config, &file.scheduler_ports, inputs.scheduler_addr.as_ref()),
        scheduler_tls: yaml.server_tls_files().or(file.scheduler_tls),
        keep_alive_interval: match config {
            Config::NotThere => file.keep_alive_interval,
            _ => yaml.keep_alive_interval.unwrap_or(DEFAULT_KEEP_ALIVE),
        },
        managers,
        without_manager,
        username: inputs.username.clone().or(file.username).filter(|_| right("username")),
        password_file: inputs.password_file.clone().or(file.password_file).filter(|_| right("password-file")),
        ca_file: inputs.ca_file.clone().or(file.ca_file).or(tls.ca_file).filter(|_| right("ca-file")),
        cert_file: inputs
            .cert_file
            .clone()
            .or(file.cert_file)
            .or(tls.cert_file)
            .filter(|_| right("cert-file")),
        key_file: inputs.key_file.clone().or(file.key_file).or(tls.key_file).filter(|_| right("key-file")),
        spool: inputs.spool.clone().unwrap_or(file.spool),
        run_dir: inputs.run_dir.clone().unwrap_or(file.run_dir),
        grace: inputs.grace.unwrap_or(file.grace),
        repair: if right("repair") { inputs.repair.unwrap_or(file.repair) } else { Repair::Report },
        listen: inputs.listen.unwrap_or(file.listen),
        ready_after_manager: inputs.ready_after_manager.unwrap_or(file.ready_after_manager),
        // Without the token that its callers must send it would be open to all that are allowed.
        hook_listen: inputs
            .hook_listen
            .or(file.hook_listen)
            .filter(|_| right("hook-listen") && right("hook-token-file")),
        hook_allow: if inputs.hook_allow.is_empty() && right("hook-allow") {
            file.hook_allow
        } else {
            inputs.hook_allow.clone()
        },
        hook_token_file: inputs.hook_token_file.clone().or(file.hook_token_file),
        pod_name: surroundings.var("POD_NAME").or(file.pod_name),
        pod_ip: surroundings.var("POD_IP").and_then(|ip| ip.trim().parse().ok()).or(file.pod_ip),
        host_ips,
    };
    pairs(inputs, &settings, yaml.manager_tls_files().is_some(), &mut problems);
    let keys = cluster_id.map(|cluster_id| keys(cluster_id, &names, &ips)).unwrap_or_default();
    Resolved { settings, keys, doubt: names.doubt.or(ips.doubt), problems }
}

/// The ports that the agent keeps clear of: the file's, or what an agent read of it, or the default; and the one that a flag names.
fn scheduler_ports(config: &Config, of_file: &[u16], given: Option<&HostPort>) -> Vec<u16> {
    let mut ports = match config {
        Config::NotThere if !of_file.is_empty() => of_file.to_vec(),
        Config::Read(_) => config.yaml().listening_ports(),
        Config::NotThere | Config::Unreadable if given.is_some() => Vec::new(),
        Config::NotThere | Config::Unreadable => vec![DEFAULT_SCHEDULER_PORT],
    };
    ports.extend(given.map(HostPort::port));
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Every name with every address, the likeliest first.
fn keys(
    cluster_id: ClusterId,
    names: &Found<crate::key::Hostname>,
    ips: &Found<crate::key::SchedulerIp>,
) -> Vec<SchedulerKey> {
    let of = |name: &crate::key::Hostname| {
        let name = name.clone();
        ips.iter().map(move |ip| SchedulerKey::new(cluster_id, name.clone(), *ip))
    };
    names.iter().flat_map(of).collect()
}

/// What is wrong, and what the agent does instead.
fn said(wrong: &Wrong) -> Problem {
    let instead = match wrong.flag.as_deref() {
        Some("hostname" | "ip" | "cluster-id" | "scheduler-addr" | "scheduler-config") => {
            "until that is mended it is not known whose row this is, and nothing is written"
        }
        Some("manager") => "until that is mended no manager is known, and nothing is written",
        Some("repair") => "until that is mended it counts as report: nothing is written unasked",
        Some("username" | "password-file") => "until that is mended nobody is signed in over REST",
        Some("ca-file" | "cert-file" | "key-file") => "until that is mended no such file is used",
        Some("hook-listen" | "hook-token-file") => "until that is mended the hook's port is not served",
        Some("hook-allow") => "until that is mended it allows nobody",
        Some(_) => "until that is mended its default counts",
        None => "it is ignored",
    };
    Problem { reason: CONFIGURATION, text: format!("{}; {instead}", wrong.text) }
}

/// Values that are of use only together. `tls` says that the scheduler speaks TLS to its manager.
fn pairs(inputs: &Inputs, settings: &Settings, tls: bool, problems: &mut Vec<Problem>) {
    let mut say = |text: &str| problems.push(Problem { reason: "manager", text: text.to_owned() });
    let speaks_tls = |manager: &String| manager.starts_with("grpcs:") || manager.starts_with("https:");
    let plain = settings.has_grpc() && !settings.managers.iter().any(speaks_tls);
    let files = inputs.ca_file.is_some() || inputs.cert_file.is_some() || inputs.key_file.is_some();
    if plain && files {
        say(
            "--ca-file, --cert-file and --key-file are of no use: every endpoint of the manager is plain text; for TLS write it \
             as grpcs://host:port",
        );
    } else if plain && tls && !inputs.managers.is_empty() {
        say(
            "the scheduler's configuration has TLS for its manager, and --manager has none: for TLS write it as grpcs://host:port",
        );
    }
    if settings.cert_file.is_some() != settings.key_file.is_some() {
        say("--cert-file and --key-file are of use only together: no client certificate is shown");
    }
    let rest = settings.managers.iter().any(|m| !is_grpc(m));
    if settings.username.is_some() != settings.password_file.is_some() {
        say("--username and --password-file are of use only together: nobody is signed in over REST");
    } else if rest && settings.username.is_none() {
        say(
            "a REST endpoint needs --username and --password-file (a guest is enough): rows are read over gRPC",
        );
    }
}

struct Context<'a, S> {
    inputs: &'a Inputs,
    config: &'a Config,
    surroundings: &'a S,
    problems: &'a mut Vec<Problem>,
}

impl<S: Surroundings> Context<'_, S> {
    fn say(&mut self, reason: &'static str, text: String) {
        self.problems.push(Problem { reason, text });
    }

    /// What was given, else what is found; nothing where the flag's value is wrong.
    fn unless_wrong<T>(
        &mut self,
        flag: &str,
        given: Option<T>,
        find: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        if self.inputs.is_wrong(flag) { None } else { given.or_else(|| find(self)) }
    }

    fn cluster_id(&mut self) -> Option<ClusterId> {
        if self.config.hides(&["manager.schedulerClusterID"]) {
            return None;
        }
        // The scheduler's own default is 1.
        ClusterId::try_from(self.config.yaml().cluster_id.unwrap_or(1)).ok()
    }

    fn scheduler_addr(&mut self) -> Option<HostPort> {
        if self.config.hides(&["server.listenIP", "server.port", "network.enableIPv6"]) {
            return None;
        }
        let yaml = self.config.yaml();
        let port = yaml.port.unwrap_or(DEFAULT_SCHEDULER_PORT);
        // Listening everywhere, it is nearest on the loopback that the pod's containers share.
        let ip = match yaml.listen_ip.map(|ip| ip.to_canonical()) {
            Some(ip) if !ip.is_unspecified() => ip,
            Some(ip) if ip.is_ipv6() => std::net::Ipv6Addr::LOCALHOST.into(),
            None if yaml.enable_ipv6 => std::net::Ipv6Addr::LOCALHOST.into(),
            _ => std::net::Ipv4Addr::LOCALHOST.into(),
        };
        Some(HostPort::of_ip(ip, port))
    }

    fn host_ips(&mut self) -> Vec<IpAddr> {
        let given = self.surroundings.var("HOST_IP").unwrap_or_default();
        let mut ips = Vec::new();
        for text in given.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            match text.parse::<IpAddr>() {
                Ok(ip) => ips.push(ip.to_canonical()),
                Err(_) => self.say("environment", format!("HOST_IP: {text:?} is not an IP address")),
            }
        }
        ips
    }
}

#[cfg(test)]
mod tests;
