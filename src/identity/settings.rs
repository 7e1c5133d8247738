//! What an agent works with, resolved: [`Settings`], and their file `agent.json` in the run directory.
//!
//! The file exists because a hook, or `kubectl exec`, doesn't inherit the agent's arguments: `pre-stop`, `status`,
//! `check` and `queue` read flags, then the environment, then this file. It holds file paths, never what is in them. It is replaced
//! as a whole; what a newer release adds is ignored, what it lacks has its default.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::Mode;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{
    address::{HostPort, manager_endpoint},
    duration,
    scheduler_yaml::TlsFiles,
};
use crate::{
    files,
    key::{ClusterId, Hostname, SchedulerIp, SchedulerKey},
    manager::{
        client::ManagerSettings,
        endpoints::{Api, Endpoint},
    },
};

/// The default of `--spool`.
pub const DEFAULT_SPOOL: &str = "/var/lib/signoff";
/// The default of `--run-dir`.
pub const DEFAULT_RUN_DIR: &str = "/run/signoff";
/// The default of `--grace`: Kubernetes' own terminationGracePeriodSeconds.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// The default of `--listen`.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 9802);
/// The scheduler's default port.
pub const DEFAULT_SCHEDULER_PORT: u16 = 8002;
/// The scheduler's default keep-alive interval.
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The settings' file in the run directory.
pub const FILE: &str = "agent.json";
const MAX_BYTES: u64 = 1 << 20;

/// What the agent may write unasked (succession, restore).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Repair {
    /// Repairs.
    #[default]
    #[value(aliases = ["true", "yes", "1"])]
    On,
    /// Only says what it would repair.
    Report,
    /// Doesn't look.
    #[value(aliases = ["false", "no", "0"])]
    Off,
}

/// Everything that was resolved. The Options of the key, and an empty [`managers`](Self::managers), mean: not known yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The name the scheduler registers with.
    pub hostname: Option<Hostname>,
    /// The IP it registers with.
    pub ip: Option<SchedulerIp>,
    /// Its cluster's id.
    pub cluster_id: Option<ClusterId>,
    /// Where the agent watches it.
    pub scheduler_addr: Option<HostPort>,
    /// The port others reach it at, with [`ip`](Self::ip).
    pub advertise_port: u16,
    /// The port that scheduler.yaml itself has it register with (8002 where the file names none); `None` where no such file was
    /// read, so that [`advertise_port`](Self::advertise_port) is no more than a guess.
    pub registered_port: Option<u16>,
    /// The ports that the scheduler listens on, as far as they are known. The agent listens on none of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scheduler_ports: Vec<u16>,
    /// The scheduler's own `server.tls`, where it has any.
    pub scheduler_tls: Option<TlsFiles>,
    /// Its `manager.keepAlive.interval`.
    #[serde(with = "duration::text")]
    pub keep_alive_interval: Duration,
    /// The manager's endpoints, as URLs with ports: `grpc`, `grpcs`, `http`, `https`.
    #[serde(deserialize_with = "endpoints")]
    pub managers: Vec<String>,
    /// The scheduler is configured without a manager, and no flag names one: there is nothing to keep true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub without_manager: bool,
    /// The user for REST.
    pub username: Option<String>,
    /// The file that user's password is in.
    pub password_file: Option<PathBuf>,
    /// The CAs that sign the manager's certificates.
    pub ca_file: Option<PathBuf>,
    /// The client certificate for the manager.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The durable queue's directory.
    pub spool: PathBuf,
    /// The directory of the agent's socket and of this file.
    pub run_dir: PathBuf,
    /// The one deadline: so long after the first sign of the end.
    #[serde(with = "duration::text")]
    pub grace: Duration,
    /// What may be written unasked.
    pub repair: Repair,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub listen: SocketAddr,
    /// Whether `/readyz` waits for the manager's first answer.
    pub ready_after_manager: bool,
    /// Where kubelet's preStop `httpGet` is served, if anywhere.
    pub hook_listen: Option<SocketAddr>,
    /// Who may call it beside the node: IPs and networks.
    pub hook_allow: Vec<String>,
    /// The file of the token its callers must send, if any.
    pub hook_token_file: Option<PathBuf>,
    /// POD_NAME.
    pub pod_name: Option<String>,
    /// POD_IP.
    pub pod_ip: Option<IpAddr>,
    /// The node's addresses, from HOST_IP (`status.hostIPs`).
    pub host_ips: Vec<IpAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: None,
            ip: None,
            cluster_id: None,
            scheduler_addr: None,
            advertise_port: DEFAULT_SCHEDULER_PORT,
            registered_port: None,
            scheduler_ports: Vec::new(),
            scheduler_tls: None,
            keep_alive_interval: DEFAULT_KEEP_ALIVE,
            managers: Vec::new(),
            without_manager: false,
            username: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            spool: DEFAULT_SPOOL.into(),
            run_dir: DEFAULT_RUN_DIR.into(),
            grace: DEFAULT_GRACE,
            repair: Repair::On,
            listen: DEFAULT_LISTEN,
            ready_after_manager: false,
            hook_listen: None,
            hook_allow: Vec::new(),
            hook_token_file: None,
            pod_name: None,
            pod_ip: None,
            host_ips: Vec::new(),
        }
    }
}

/// Why `agent.json` can't be used. Its absence is no error.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It, or its directory, can't be read or written.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The file's path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is not what an agent writes.
    #[error("{path} is not an agent's settings: {error}; the next start of the agent writes it anew", path = path.display())]
    Format {
        /// The file's path.
        path: PathBuf,
        /// What is wrong.
        error: serde_json::Error,
    },
}

impl Settings {
    /// The row's key, once all of it is known.
    pub fn key(&self) -> Option<SchedulerKey> {
        Some(SchedulerKey::new(self.cluster_id?, self.hostname.clone()?, self.ip?))
    }

    /// Whether these settings, of an earlier agent in the same run directory, are of the same pod: then its scheduler may still run as
    /// they say. Where neither tells its pod, the same address does.
    pub fn is_of_the_same_pod(&self, other: &Self) -> bool {
        let pod = |settings: &Self| (settings.pod_name.clone(), settings.pod_ip);
        match pod(self) {
            (None, None) => pod(other) == (None, None) && self.ip == other.ip,
            told => told == pod(other),
        }
    }

    /// The same with another key.
    pub fn with_key(&self, key: SchedulerKey) -> Self {
        let SchedulerKey { cluster_id, hostname, ip, .. } = key;
        Self { cluster_id: Some(cluster_id), hostname: Some(hostname), ip: Some(ip), ..self.clone() }
    }

    /// The address others reach the scheduler at: its registered IP and port.
    pub fn advertised(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip?.get(), self.advertise_port))
    }

    /// Whether nothing is missing that the agent needs: the key, the scheduler's address and a gRPC endpoint.
    pub fn is_complete(&self) -> bool {
        self.key().is_some() && self.scheduler_addr.is_some() && self.has_grpc()
    }

    /// Whether one of the endpoints is for gRPC, which all writes need.
    pub fn has_grpc(&self) -> bool {
        let endpoints = self.managers.iter().filter_map(|text| text.parse::<Endpoint>().ok());
        endpoints.into_iter().any(|endpoint| endpoint.api() == Api::Grpc)
    }

    /// What the manager's client is built from.
    pub fn manager(&self) -> ManagerSettings {
        let endpoints = self.managers.iter().filter_map(|text| text.parse::<Endpoint>().ok());
        let (grpc, rest) = endpoints.partition(|endpoint| endpoint.api() == Api::Grpc);
        ManagerSettings {
            grpc,
            rest,
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            caller_ip: self.ip.map(SchedulerIp::get),
        }
    }

    /// Writes `agent.json` in [`run_dir`](Self::run_dir), which is made if need be, as a whole: a reader sees the old or
    /// the new one. Its mode is 0644 less the umask.
    pub fn write(&self) -> Result<(), SettingsError> {
        let path = self.run_dir.join(FILE);
        let failed = |error| SettingsError::Io { path: path.clone(), error };
        std::fs::create_dir_all(&self.run_dir).map_err(failed)?;
        let json = serde_json::to_vec_pretty(self)
            .map_err(|error| SettingsError::Format { path: path.clone(), error })?;
        // The process id keeps two agents that share a directory out of each other's way.
        let temporary = self.run_dir.join(format!(".{FILE}.{}", std::process::id()));
        let written = write_new(&temporary, &json).and_then(|()| std::fs::rename(&temporary, &path));
        written.map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            failed(error)
        })
    }

    /// Reads the `agent.json` of `run_dir`. None: there is none, so no agent has run with that directory. Blocks, for
    /// [`files::LIMIT`] at most.
    pub fn read(run_dir: &Path) -> Result<Option<Self>, SettingsError> {
        let path = run_dir.join(FILE);
        let file = path.clone();
        let read = move || super::surroundings::read_file(&file, MAX_BYTES);
        let read = files::within_blocking(files::LIMIT, read).unwrap_or_else(|why| Err(why.into()));
        let text = match read {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SettingsError::Io { path, error }),
        };
        serde_json::from_str(&text).map(Some).map_err(|error| SettingsError::Format { path, error })
    }
}

/// Endpoints, each as [`manager_endpoint`] writes it.
fn endpoints<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let endpoint = |text: &String| {
        text.parse::<Endpoint>().map_err(D::Error::custom)?;
        manager_endpoint(text).map_err(D::Error::custom)
    };
    texts.iter().map(endpoint).collect()
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use rustix::fs::{CWD, OFlags, openat};
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = openat(CWD, path, flags, Mode::from_raw_mode(0o644))?;
    std::fs::File::from(fd).write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(run_dir: &Path) -> Settings {
        Settings {
            hostname: Some("sched-0.example".parse().unwrap()),
            ip: Some("fd00::1".parse().unwrap()),
            cluster_id: Some("7".parse().unwrap()),
            scheduler_addr: Some("[::1]:9001".parse().unwrap()),
            advertise_port: 9000,
            registered_port: Some(9000),
            scheduler_ports: vec![9001, 8000],
            scheduler_tls: Some(TlsFiles { ca_file: Some("/ca".into()), ..TlsFiles::default() }),
            keep_alive_interval: Duration::from_millis(1500),
            managers: vec!["grpcs://m:65003".into(), "https://m:8080".into()],
            without_manager: false,
            username: Some("guest".into()),
            password_file: Some("/secret/password".into()),
            ca_file: Some("/ca.pem".into()),
            cert_file: Some("/crt.pem".into()),
            key_file: Some("/key.pem".into()),
            spool: "/spool".into(),
            run_dir: run_dir.to_owned(),
            grace: Duration::from_secs(90),
            repair: Repair::Report,
            listen: "127.0.0.1:1".parse().unwrap(),
            ready_after_manager: true,
            hook_listen: Some("0.0.0.0:9803".parse().unwrap()),
            hook_allow: vec!["10.0.0.0/8".into()],
            hook_token_file: Some("/token".into()),
            pod_name: Some("sched-0".into()),
            pod_ip: Some("fd00::1".parse().unwrap()),
            host_ips: vec!["10.0.0.1".parse().unwrap(), "fd00::9".parse().unwrap()],
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        assert!(Settings::read(&run_dir).unwrap().is_none());
        let settings = full(&run_dir);
        settings.write().unwrap();
        assert_eq!(Settings::read(&run_dir).unwrap(), Some(settings.clone()));
        let other = Settings { run_dir: run_dir.clone(), ..Settings::default() };
        other.write().unwrap();
        assert_eq!(Settings::read(&run_dir).unwrap(), Some(other));
        let names: Vec<_> = std::fs::read_dir(&run_dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["agent.json"]);
    }

    #[test]
    fn a_file_of_another_release_is_read_as_far_as_it_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"hostname":"s","invented_later":{"a":1}}"#;
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let read = Settings::read(dir.path()).unwrap().unwrap();
        assert_eq!(read, Settings { hostname: Some("s".parse().unwrap()), ..Settings::default() });
    }

    #[test]
    fn a_damaged_file_is_named_with_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), r#"{"cluster_id":0}"#).unwrap();
        let said = Settings::read(dir.path()).unwrap_err().to_string();
        assert!(
            said.contains("agent.json is not an agent's settings") && said.contains("cluster id"),
            "{said}"
        );
        std::fs::write(dir.path().join(FILE), r#"{"managers":["https://m","grpc:/m:65003"]}"#).unwrap();
        let said = Settings::read(dir.path()).unwrap_err().to_string();
        assert!(said.contains("an agent's settings") && said.contains(r#""grpc:/m:65003""#), "{said}");
        std::fs::write(dir.path().join(FILE), "").unwrap();
        assert!(matches!(Settings::read(dir.path()), Err(SettingsError::Format { .. })));
    }

    #[test]
    fn a_place_that_can_not_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let said = Settings { run_dir: file.clone(), ..Settings::default() }.write().unwrap_err().to_string();
        assert!(said.starts_with(&format!("{}/agent.json: ", file.display())), "{said}");
    }

    #[test]
    fn settings_are_complete_with_a_key_an_address_and_a_grpc_endpoint() {
        let settings = full(Path::new("/run"));
        assert!(settings.is_complete());
        assert_eq!(settings.key().unwrap().to_string(), "sched-0.example/fd00::1 in cluster 7");
        assert_eq!(settings.advertised(), "[fd00::1]:9000".parse().ok());
        for lacking in [
            Settings { hostname: None, ..settings.clone() },
            Settings { ip: None, ..settings.clone() },
            Settings { cluster_id: None, ..settings.clone() },
            Settings { scheduler_addr: None, ..settings.clone() },
            Settings { managers: vec!["https://m:8080".into()], ..settings.clone() },
        ] {
            assert!(!lacking.is_complete(), "{lacking:?}");
        }
    }
}
