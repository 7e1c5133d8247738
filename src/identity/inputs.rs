//! What the command line and the environment say of identity and settings.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    address::HostPort,
    settings::{DEFAULT_RUN_DIR, Repair},
};
use crate::key::{ClusterId, Hostname, SchedulerIp};

/// What flags and `SIGNOFF_…` gave, flags first. None and empty: not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inputs {
    /// `--hostname`.
    pub hostname: Option<Hostname>,
    /// `--ip`.
    pub ip: Option<SchedulerIp>,
    /// `--cluster-id`.
    pub cluster_id: Option<ClusterId>,
    /// `--scheduler-addr`.
    pub scheduler_addr: Option<HostPort>,
    /// `--scheduler-config`.
    pub scheduler_config: Option<PathBuf>,
    /// `--manager`, as [`super::address::manager_endpoint`] writes them.
    pub managers: Vec<String>,
    /// `--username`.
    pub username: Option<String>,
    /// `--password-file`.
    pub password_file: Option<PathBuf>,
    /// `--ca-file`.
    pub ca_file: Option<PathBuf>,
    /// `--cert-file`.
    pub cert_file: Option<PathBuf>,
    /// `--key-file`.
    pub key_file: Option<PathBuf>,
    /// `--spool`.
    pub spool: Option<PathBuf>,
    /// `--run-dir`.
    pub run_dir: Option<PathBuf>,
    /// `--grace`.
    pub grace: Option<Duration>,
    /// `--repair`.
    pub repair: Option<Repair>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--ready-after-manager`.
    pub ready_after_manager: Option<bool>,
    /// `--hook-listen`.
    pub hook_listen: Option<SocketAddr>,
    /// `--hook-allow`.
    pub hook_allow: Vec<String>,
    /// `--hook-token-file`.
    pub hook_token_file: Option<PathBuf>,
    /// What was given and can't be taken.
    pub wrong: Vec<Wrong>,
}

/// A flag, or its variable, whose value can't be taken; or a word of the command line that is no flag's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The flag's long name, without dashes; none where it is no flag of the command.
    pub flag: Option<String>,
    /// One line: the field, its value (never what may be a secret), and what would be right.
    pub text: String,
}

impl Inputs {
    /// Whether this flag, by its long name, was given and can't be taken: then no other source may stand in for it.
    pub fn is_wrong(&self, flag: &str) -> bool {
        self.wrong.iter().any(|wrong| wrong.flag.as_deref() == Some(flag))
    }

    /// The run directory: the flag's, or the default.
    pub fn run_dir(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| DEFAULT_RUN_DIR.into())
    }
}
