//! From flags, `SIGNOFF_…`, `agent.json`, scheduler.yaml, POD_IP and FQDN, in that order, to [`Settings`].
//!
//! Start never fails for the surroundings: what can't be read or isn't known yet is a [`Problem`] and a field left
//! open, and [`resolve`] is simply called again. While a scheduler.yaml that should be there can't be read, what it may
//! say is not guessed: a wrong identity would sign nobody off. An error is only what no waiting can mend.

use std::{io, net::IpAddr, path::PathBuf, time::Duration};

use super::{
    address::{HostPort, is_grpc},
    fqdn::{self, Lookup},
    inputs::Inputs,
    ip,
    scheduler_yaml::{self, Parsed, SchedulerYaml, TlsFiles},
    settings::{DEFAULT_GRACE, DEFAULT_KEEP_ALIVE, DEFAULT_SCHEDULER_PORT, LEAST_GRACE, Settings},
    surroundings::Surroundings,
};
use crate::key::{ClusterId, Hostname, KeyError, SchedulerIp};

const HOSTS_FILE: &str = "/etc/hosts";

/// Something in the surroundings that is not as it should be, yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The label of `signoff_degraded{reason}`: `scheduler-config`, `hostname`, `ip`, `manager` or `environment`.
    pub reason: &'static str,
    /// One line: what is wrong, where, and what would be right.
    pub text: String,
}

/// What could be resolved, and what couldn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The settings; see [`Settings::is_complete`].
    pub settings: Settings,
    /// Why they may be incomplete, or not what was meant.
    pub problems: Vec<Problem>,
}

/// A configuration that is wrong in itself (exit 64).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Nothing names a gRPC endpoint of the manager, and no scheduler.yaml can come to.
    #[error(
        "no gRPC endpoint of the manager is known: give --manager HOST:PORT (or SIGNOFF_MANAGER), or --scheduler-config \
         with the scheduler's own file ({} is not there)",
        scheduler_yaml::DEFAULT_PATH
    )]
    NoManager,
    /// The grace is too short for anything.
    #[error("--grace {} is too short: it must be at least {}", humantime::format_duration(*.0), humantime::format_duration(LEAST_GRACE))]
    Grace(Duration),
}

/// Resolves, once; blocks for at most a few seconds, so keep it off an async thread. `file` is the `agent.json` of a
/// running agent, for commands beside it: what it says goes before scheduler.yaml and the defaults.
pub fn resolve(
    inputs: &Inputs,
    file: Option<&Settings>,
    surroundings: &impl Surroundings,
) -> Result<Resolved, UsageError> {
    let mut problems = Vec::new();
    let grace = inputs.grace.or(file.map(|f| f.grace)).unwrap_or(DEFAULT_GRACE);
    if grace < LEAST_GRACE {
        return Err(UsageError::Grace(grace));
    }
    let file = file.cloned().unwrap_or_default();
    let config = if file.is_complete() {
        Config::NotThere
    } else {
        Config::read(inputs.scheduler_config.as_ref(), surroundings, &mut problems)
    };
    let yaml = config.yaml();
    let mut context = Context { config: &config, surroundings, problems: &mut problems };

    let hostname = inputs.hostname.clone().or(file.hostname).or_else(|| context.hostname());
    let ip = inputs.ip.or(file.ip).or_else(|| context.ip());
    let cluster_id = inputs.cluster_id.or(file.cluster_id).or_else(|| context.cluster_id());
    let scheduler_addr =
        inputs.scheduler_addr.clone().or(file.scheduler_addr).or_else(|| context.scheduler_addr());
    let managers = context.managers(&inputs.managers, &file.managers)?;
    let host_ips = match context.host_ips() {
        ips if ips.is_empty() => file.host_ips,
        ips => ips,
    };

    // Where an agent.json named the files, scheduler.yaml was not read.
    let tls = yaml.manager_tls.clone().unwrap_or_default();
    let listening_port = inputs.scheduler_addr.as_ref().map(HostPort::port);
    let settings = Settings {
        hostname,
        ip,
        cluster_id,
        scheduler_addr,
        advertise_port: match config {
            Config::NotThere => listening_port.unwrap_or(file.advertise_port),
            _ => yaml.advertise_port.or(yaml.port).or(listening_port).unwrap_or(DEFAULT_SCHEDULER_PORT),
        },
        scheduler_tls: yaml.server_tls.clone().or(file.scheduler_tls),
        keep_alive_interval: match config {
            Config::NotThere => file.keep_alive_interval,
            _ => yaml.keep_alive_interval.unwrap_or(DEFAULT_KEEP_ALIVE),
        },
        managers,
        username: inputs.username.clone().or(file.username),
        password_file: inputs.password_file.clone().or(file.password_file),
        ca_file: inputs.ca_file.clone().or(file.ca_file).or(tls.ca_file),
        cert_file: inputs.cert_file.clone().or(file.cert_file).or(tls.cert_file),
        key_file: inputs.key_file.clone().or(file.key_file).or(tls.key_file),
        spool: inputs.spool.clone().unwrap_or(file.spool),
        run_dir: inputs.run_dir.clone().unwrap_or(file.run_dir),
        grace,
        repair: inputs.repair.unwrap_or(file.repair),
        listen: inputs.listen.unwrap_or(file.listen),
        ready_after_manager: inputs.ready_after_manager.unwrap_or(file.ready_after_manager),
        hook_listen: inputs.hook_listen.or(file.hook_listen),
        hook_allow: if inputs.hook_allow.is_empty() { file.hook_allow } else { inputs.hook_allow.clone() },
        hook_token_file: inputs.hook_token_file.clone().or(file.hook_token_file),
        pod_name: surroundings.var("POD_NAME").or(file.pod_name),
        pod_ip: surroundings.var("POD_IP").and_then(|ip| ip.trim().parse().ok()).or(file.pod_ip),
        host_ips,
    };
    pairs(&settings, &mut problems);
    Ok(Resolved { settings, problems })
}

/// Values that are of use only together.
fn pairs(settings: &Settings, problems: &mut Vec<Problem>) {
    let mut say = |text: &str| problems.push(Problem { reason: "manager", text: text.to_owned() });
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

/// The scheduler's configuration file, as far as it can be had.
enum Config {
    /// Nobody named one, and there is none at the default path.
    NotThere,
    /// It should be there, and can't be read.
    Unreadable,
    /// It was read.
    Read(Box<Parsed>),
}

impl Config {
    fn read(given: Option<&PathBuf>, surroundings: &impl Surroundings, problems: &mut Vec<Problem>) -> Self {
        let path = given.cloned().unwrap_or_else(|| scheduler_yaml::DEFAULT_PATH.into());
        let mut say = |text: String| problems.push(Problem { reason: "scheduler-config", text });
        let text = match surroundings.read(&path, scheduler_yaml::MAX_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && given.is_none() => {
                return Self::NotThere;
            }
            Err(error) => {
                say(format!("{}: {error}", path.display()));
                return Self::Unreadable;
            }
        };
        match scheduler_yaml::parse(&text, &path) {
            Ok(parsed) => {
                parsed.errors.iter().for_each(|e| say(e.to_string()));
                Self::Read(Box::new(parsed))
            }
            Err(error) => {
                say(error.to_string());
                Self::Unreadable
            }
        }
    }

    fn yaml(&self) -> SchedulerYaml {
        match self {
            Self::Read(parsed) => parsed.yaml.clone(),
            Self::NotThere | Self::Unreadable => SchedulerYaml::default(),
        }
    }

    /// Whether it may say something of `fields` that can't be read now.
    fn hides(&self, fields: &[&str]) -> bool {
        match self {
            Self::NotThere => false,
            Self::Unreadable => true,
            Self::Read(parsed) => fields.iter().any(|f| parsed.is_bad(f)),
        }
    }
}

struct Context<'a, S> {
    config: &'a Config,
    surroundings: &'a S,
    problems: &'a mut Vec<Problem>,
}

impl<S: Surroundings> Context<'_, S> {
    fn say(&mut self, reason: &'static str, text: String) {
        self.problems.push(Problem { reason, text });
    }

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

    fn hostname(&mut self) -> Option<Hostname> {
        if self.config.hides(&["server.host"]) {
            return None;
        }
        let (name, of) = match self.config.yaml().host {
            Some(host) => (host, "server.host in the scheduler's configuration"),
            None => {
                let host = self.own_name("hostname")?;
                // Without a hosts file there is still DNS.
                let hosts = self
                    .surroundings
                    .read(HOSTS_FILE.as_ref(), scheduler_yaml::MAX_BYTES)
                    .unwrap_or_default();
                match fqdn::fqdn(&host, &hosts, || self.surroundings.lookup(&host)) {
                    Ok(name) => (name, "the FQDN of this machine"),
                    Err(why) => {
                        self.say("hostname", why);
                        return None;
                    }
                }
            }
        };
        name.parse().map_err(|error: KeyError| self.say("hostname", format!("{of}: {error}"))).ok()
    }

    fn ip(&mut self) -> Option<SchedulerIp> {
        if self.config.hides(&["server.advertiseIP", "network.enableIPv6"]) {
            return None;
        }
        let yaml = self.config.yaml();
        if let Some(ip) = yaml.advertise_ip {
            return self.scheduler_ip(ip, "server.advertiseIP in the scheduler's configuration");
        }
        let ipv6 = yaml.enable_ipv6;
        match self.surroundings.var("POD_IP").map(|text| (text.trim().parse::<IpAddr>(), text)) {
            // A pod of both families has its first address there; the scheduler takes the family it was told to.
            Some((Ok(ip), _)) if ip.to_canonical().is_ipv6() == ipv6 => {
                return self.scheduler_ip(ip, "POD_IP");
            }
            Some((Err(_), text)) => self.say("environment", format!("POD_IP {text:?} is not an IP address")),
            _ => {}
        }
        let interfaces = match self.surroundings.interfaces() {
            Ok(interfaces) => interfaces,
            Err(error) => {
                self.say("ip", format!("the network interfaces can't be listed: {error}; give --ip"));
                return None;
            }
        };
        let host = self.own_name("ip")?;
        let (own, unsure) = match self.surroundings.lookup(&host) {
            Lookup::Found { addresses, .. } => (addresses, None),
            Lookup::NoSuchName => (Vec::new(), None),
            Lookup::Failed(why) => (Vec::new(), Some(why)),
        };
        match (ip::choose(&interfaces, &own, ipv6), unsure) {
            (Some(_), Some(why)) if ip::candidates(&interfaces, ipv6).nth(1).is_some() => {
                self.say(
                    "ip",
                    format!("which of this machine's addresses {host:?} stands for is not known: {why}"),
                );
                None
            }
            (Some(ip), _) => self.scheduler_ip(ip, "this machine's address"),
            (None, _) => {
                let family = if ipv6 { "IPv6" } else { "IPv4" };
                self.say(
                    "ip",
                    format!("this machine has no {family} address but loopback and link-local: give --ip"),
                );
                None
            }
        }
    }

    fn scheduler_ip(&mut self, ip: IpAddr, of: &str) -> Option<SchedulerIp> {
        ip.try_into().map_err(|error: KeyError| self.say("ip", format!("{of}: {error}"))).ok()
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

    fn managers(&mut self, given: &[String], file: &[String]) -> Result<Vec<String>, UsageError> {
        let mut managers = given.to_vec();
        if managers.is_empty() {
            managers = file.to_vec();
        }
        if managers.iter().any(|m| is_grpc(m)) {
            return Ok(managers);
        }
        // REST endpoints alone: writes go where the agent's, or the scheduler's own, go.
        let mut grpc: Vec<String> = file.iter().filter(|m| is_grpc(m)).cloned().collect();
        let yaml = self.config.yaml();
        match (&self.config, yaml.manager_addr) {
            _ if !grpc.is_empty() => {}
            (Config::NotThere, _) => return Err(UsageError::NoManager),
            (_, Some(addr)) => {
                let tls = yaml.manager_tls.as_ref().is_some_and(|tls| *tls != TlsFiles::default());
                match addr.parse::<HostPort>() {
                    Ok(addr) => grpc.push(format!("{}://{addr}", if tls { "grpcs" } else { "grpc" })),
                    Err(why) => {
                        self.say("manager", format!("manager.addr in the scheduler's configuration: {why}"));
                    }
                }
            }
            (Config::Read(parsed), None) if !parsed.is_bad("manager.addr") => self.say(
                "manager",
                "the scheduler's configuration has no manager.addr: give --manager HOST:PORT".to_owned(),
            ),
            _ => {}
        }
        grpc.extend(managers);
        Ok(grpc)
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
