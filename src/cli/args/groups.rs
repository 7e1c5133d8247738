//! Flags that several commands share, by the group their help shows them in.

use std::{path::PathBuf, time::Duration};

use clap::{
    Args, ValueEnum,
    builder::{NonEmptyStringValueParser, PathBufValueParser, TypedValueParser},
};

use crate::{
    identity::{HostPort, Inputs, address::manager_endpoint, duration},
    key::{ClusterId, Hostname, SchedulerIp},
    logging::{Format, Level},
};

/// Whose row it is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Identity")]
pub struct IdentityArgs {
    /// The name the scheduler registers with [default: scheduler.yaml's server.host, else the FQDN]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<Hostname>,
    /// The IP it registers with [default: scheduler.yaml's server.advertiseIP, else by the scheduler's own rules]
    #[arg(long, value_name = "IP")]
    pub ip: Option<SchedulerIp>,
    /// Its cluster's id in the manager [default: scheduler.yaml's, else 1]
    #[arg(long, value_name = "ID")]
    pub cluster_id: Option<ClusterId>,
    /// Where to watch the scheduler [default: scheduler.yaml's server.listenIP and port, else 127.0.0.1:8002]
    #[arg(long, value_name = "HOST:PORT")]
    pub scheduler_addr: Option<HostPort>,
    /// The scheduler's own configuration [default: /etc/dragonfly/scheduler.yaml if it is there]
    #[arg(long, value_name = "FILE", value_parser = utf8_path())]
    pub scheduler_config: Option<PathBuf>,
}

/// Where the manager is, and who we are to its REST API.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Manager")]
pub struct ManagerArgs {
    /// The manager, repeatable: host:port or grpc(s):// for gRPC, http(s):// for REST [default: scheduler.yaml's manager.addr]
    #[arg(long, value_name = "ENDPOINT", value_parser = manager_endpoint)]
    pub manager: Vec<String>,
    /// A user for REST; a guest is enough
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub username: Option<String>,
    /// The file with that user's password
    #[arg(long, value_name = "FILE", value_parser = utf8_path())]
    pub password_file: Option<PathBuf>,
}

/// TLS towards the manager.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// CAs that sign the manager's certificates, PEM [default: scheduler.yaml's manager.tls, else the public ones]
    #[arg(long, value_name = "FILE", value_parser = utf8_path())]
    pub ca_file: Option<PathBuf>,
    /// Client certificate for the manager, PEM [default: scheduler.yaml's manager.tls]
    #[arg(long, value_name = "FILE", value_parser = utf8_path())]
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM [default: scheduler.yaml's manager.tls]
    #[arg(long, value_name = "FILE", value_parser = utf8_path())]
    pub key_file: Option<PathBuf>,
}

/// The spool.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Queue")]
pub struct SpoolArgs {
    /// The durable queue's directory [default: /var/lib/signoff]
    #[arg(long, value_name = "DIR", value_parser = utf8_path())]
    pub spool: Option<PathBuf>,
}

/// Where the agent is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Agent")]
pub struct RunDirArgs {
    /// The directory of the agent's socket and settings [default: /run/signoff]
    #[arg(long, value_name = "DIR", value_parser = utf8_path())]
    pub run_dir: Option<PathBuf>,
}

/// How much time there is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Agent")]
pub struct GraceArgs {
    /// The pod's terminationGracePeriodSeconds, as a number or a duration [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = grace)]
    pub grace: Option<Duration>,
}

/// Log lines, on stderr.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct LogArgs {
    /// How log lines look on stderr; auto is text on a terminal, else json [default: auto]
    #[arg(long, value_name = "auto|text|json", value_enum, ignore_case = true, hide_possible_values = true)]
    pub log_format: Option<Format>,
    /// Which are written [default: info]
    #[arg(
        long,
        value_name = "error|warn|info|debug",
        value_enum,
        ignore_case = true,
        hide_possible_values = true
    )]
    pub log_level: Option<Level>,
}

/// How a table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// For machines.
    Json,
}

/// What is printed, on stdout.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// What is printed [default: table]
    #[arg(
        short = 'o',
        long,
        value_name = "table|json",
        value_enum,
        ignore_case = true,
        hide_possible_values = true
    )]
    pub output: Option<OutputFormat>,
}

/// A path. One that is not UTF-8 could be written neither into the agent's settings nor into a message.
pub(super) fn utf8_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.to_str() {
        Some(_) => Ok(path),
        None => Err("it is not UTF-8 text"),
    })
}

fn grace(text: &str) -> Result<Duration, String> {
    match text.trim() {
        // As terminationGracePeriodSeconds is written, so that it can be copied from there.
        seconds if seconds.bytes().all(|b| b.is_ascii_digit()) => match seconds.parse() {
            Ok(seconds) => duration::bounded(Duration::from_secs(seconds)),
            Err(_) => duration::parse(seconds),
        },
        other => duration::parse(other),
    }
}

impl IdentityArgs {
    pub(super) fn fill(&self, inputs: &mut Inputs) {
        inputs.hostname = self.hostname.clone();
        inputs.ip = self.ip;
        inputs.cluster_id = self.cluster_id;
        inputs.scheduler_addr = self.scheduler_addr.clone();
        inputs.scheduler_config = self.scheduler_config.clone();
    }
}

impl ManagerArgs {
    pub(super) fn fill(&self, inputs: &mut Inputs) {
        inputs.managers = self.manager.clone();
        inputs.username = self.username.clone();
        inputs.password_file = self.password_file.clone();
    }
}

impl TlsArgs {
    pub(super) fn fill(&self, inputs: &mut Inputs) {
        inputs.ca_file = self.ca_file.clone();
        inputs.cert_file = self.cert_file.clone();
        inputs.key_file = self.key_file.clone();
    }
}

impl OutputArgs {
    /// As the queue's rendering knows it.
    pub fn format(&self) -> crate::cli::queue::Format {
        match self.output.unwrap_or_default() {
            OutputFormat::Table => crate::cli::queue::Format::Table,
            OutputFormat::Json => crate::cli::queue::Format::Json,
        }
    }
}
