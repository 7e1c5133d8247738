//! The flags of each subcommand. Each flag can also be given as `SIGNOFF_…` (see [`super::environment`]), in which case
//! the flag goes first; one that is repeated is taken as given last.
//!
//! There are no defaults here: what neither a flag nor the environment gives may still come from the agent's own
//! settings or scheduler.yaml (see [`crate::identity::resolve()`]).

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};

use crate::{
    identity::{
        HostPort, Inputs, Repair,
        address::{allowed_peers, manager_endpoint},
        duration,
        settings::LEAST_GRACE,
    },
    key::{ClusterId, Hostname, SchedulerIp},
    logging::{Format, Level},
};

/// Signs stopped Dragonfly schedulers off in their manager, whatever the manager does meanwhile.
#[derive(Debug, Clone, Parser)]
#[command(name = "signoff", version, args_override_self = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Keep a scheduler's row in the manager true: the sidecar
    Agent(Box<AgentArgs>),
    /// Sign the scheduler off before it is told to stop: for a preStop hook
    PreStop(Box<PreStopArgs>),
    /// Show what the agent sees and does
    Status(StatusArgs),
    /// Look at, or settle, the pending sign-offs of a spool
    Queue(QueueArgs),
    /// Check identity, manager, scheduler, spool and permissions, and say what to do
    Check(Box<CheckArgs>),
    /// Print a shell's completions
    Completions(CompletionsArgs),
}

/// Below the help of the commands that run beside an agent.
const FROM_THE_AGENT: &str =
    "What is not given is taken from the settings of the agent in --run-dir, if there is one.";

/// Whose row it is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Identity")]
pub struct IdentityArgs {
    /// The name the scheduler registers with [default: scheduler.yaml's server.host, else the FQDN]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<Hostname>,
    /// The IP it registers with [default: scheduler.yaml's server.advertiseIP, else POD_IP, else by its own rules]
    #[arg(long, value_name = "IP")]
    pub ip: Option<SchedulerIp>,
    /// Its cluster's id in the manager [default: scheduler.yaml's, else 1]
    #[arg(long, value_name = "ID")]
    pub cluster_id: Option<ClusterId>,
    /// Where to watch the scheduler [default: scheduler.yaml's server.listenIP and port, else 127.0.0.1:8002]
    #[arg(long, value_name = "HOST:PORT")]
    pub scheduler_addr: Option<HostPort>,
    /// The scheduler's own configuration [default: /etc/dragonfly/scheduler.yaml if it is there]
    #[arg(long, value_name = "FILE")]
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
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// TLS towards the manager.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// CAs that sign the manager's certificates, PEM [default: scheduler.yaml's manager.tls, else the public ones]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate for the manager, PEM [default: scheduler.yaml's manager.tls]
    #[arg(long, value_name = "FILE")]
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM [default: scheduler.yaml's manager.tls]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// The spool.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Queue")]
pub struct SpoolArgs {
    /// The durable queue's directory [default: /var/lib/signoff]
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
}

/// Where the agent is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Agent")]
pub struct RunDirArgs {
    /// The directory of the agent's socket and settings [default: /run/signoff]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
}

/// How much time there is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Agent")]
pub struct GraceArgs {
    /// The pod's terminationGracePeriodSeconds, at least 5s [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = grace)]
    pub grace: Option<Duration>,
}

/// Log lines, on stderr.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct LogArgs {
    /// How log lines look on stderr; auto is text on a terminal, else json [default: auto]
    #[arg(long, value_name = "auto|text|json", value_enum, hide_possible_values = true)]
    pub log_format: Option<Format>,
    /// Which are written [default: info]
    #[arg(long, value_name = "error|warn|info|debug", value_enum, hide_possible_values = true)]
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
    #[arg(short = 'o', long, value_name = "table|json", value_enum, hide_possible_values = true)]
    pub output: Option<OutputFormat>,
}

/// `signoff agent`.
#[derive(Debug, Clone, Default, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub identity: IdentityArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub manager: ManagerArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tls: TlsArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub grace: GraceArgs,
    /// Whether to sign off dead predecessors and restore a living row unasked [default: on]
    #[arg(
        long,
        value_name = "on|report|off",
        value_enum,
        hide_possible_values = true,
        help_heading = "Agent"
    )]
    pub repair: Option<Repair>,
    /// Where /livez, /readyz and /metrics are served [default: [::]:9802]
    #[arg(long, value_name = "IP:PORT", value_parser = listen, help_heading = "Agent")]
    pub listen: Option<SocketAddr>,
    /// Be ready only once the manager has answered
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), hide_possible_values = true, help_heading = "Agent")]
    pub ready_after_manager: Option<bool>,
    /// Where kubelet's preStop httpGet is served; off unless given
    #[arg(long, value_name = "IP:PORT", value_parser = listen, help_heading = "Agent")]
    pub hook_listen: Option<SocketAddr>,
    /// Who may call that hook beside the pod's own node, repeatable: an IP or a network
    #[arg(long, value_name = "IP|NETWORK", value_parser = allowed_peers, help_heading = "Agent")]
    pub hook_allow: Vec<String>,
    /// The file with the token that hook's callers must send
    #[arg(long, value_name = "FILE", help_heading = "Agent")]
    pub hook_token_file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

/// `signoff pre-stop`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = FROM_THE_AGENT)]
pub struct PreStopArgs {
    /// How long to wait for the manager; what is not confirmed by then is queued [default: 5s; without an agent the grace]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, help_heading = "Agent")]
    pub deadline: Option<Duration>,
    /// How long to hold the scheduler's stop back after that, so that running downloads finish [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, help_heading = "Agent")]
    pub linger: Option<Duration>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub identity: IdentityArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub manager: ManagerArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tls: TlsArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub grace: GraceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

/// `signoff status`.
#[derive(Debug, Clone, Default, Args)]
pub struct StatusArgs {
    /// Print nothing; exit 0 once the agent has started, for a startup probe
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), hide_possible_values = true, help_heading = "Output")]
    pub started: Option<bool>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run_dir: RunDirArgs,
}

/// `signoff check`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = FROM_THE_AGENT)]
pub struct CheckArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub identity: IdentityArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub manager: ManagerArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tls: TlsArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub grace: GraceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// `signoff queue`.
#[derive(Debug, Clone, Args)]
pub struct QueueArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: QueueCommand,
}

/// What to do with the queue.
#[derive(Debug, Clone, Subcommand)]
pub enum QueueCommand {
    /// List what a spool holds
    List(QueueListArgs),
    /// Show records in full
    Show(QueueShowArgs),
    /// Drop pending sign-offs: they are then not made
    Drop(QueueDropArgs),
    /// Settle everything that is pending
    Flush(Box<FlushArgs>),
}

/// `signoff queue list`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = FROM_THE_AGENT)]
pub struct QueueListArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// `signoff queue show`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = FROM_THE_AGENT)]
pub struct QueueShowArgs {
    /// The records' ids, as `signoff queue list` prints them
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// `signoff queue drop`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = FROM_THE_AGENT)]
pub struct QueueDropArgs {
    /// The records' ids, as `signoff queue list` prints them
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run_dir: RunDirArgs,
}

/// `signoff queue flush`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = FROM_THE_AGENT)]
pub struct FlushArgs {
    /// How long to try; what is not settled by then stays queued [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, help_heading = "Queue")]
    pub deadline: Option<Duration>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub manager: ManagerArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tls: TlsArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

/// A shell there are completions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// `signoff completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// Whose
    #[arg(value_name = "bash|zsh|fish", value_enum, hide_possible_values = true)]
    pub shell: Shell,
}

fn grace(text: &str) -> Result<Duration, String> {
    let grace = duration::parse(text)?;
    if grace < LEAST_GRACE {
        return Err(format!("it must be at least {}", duration::format(LEAST_GRACE)));
    }
    Ok(grace)
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.trim()
        .parse()
        .map_err(|_| "it is not an address to listen at; write it as 127.0.0.1:9802 or [::]:9802".to_owned())
}

impl IdentityArgs {
    fn fill(&self, inputs: &mut Inputs) {
        inputs.hostname = self.hostname.clone();
        inputs.ip = self.ip;
        inputs.cluster_id = self.cluster_id;
        inputs.scheduler_addr = self.scheduler_addr.clone();
        inputs.scheduler_config = self.scheduler_config.clone();
    }
}

impl ManagerArgs {
    fn fill(&self, inputs: &mut Inputs) {
        inputs.managers = self.manager.clone();
        inputs.username = self.username.clone();
        inputs.password_file = self.password_file.clone();
    }
}

impl TlsArgs {
    fn fill(&self, inputs: &mut Inputs) {
        inputs.ca_file = self.ca_file.clone();
        inputs.cert_file = self.cert_file.clone();
        inputs.key_file = self.key_file.clone();
    }
}

impl AgentArgs {
    /// What [`crate::identity::resolve()`] starts from.
    pub fn inputs(&self) -> Inputs {
        let mut inputs = Inputs {
            spool: self.spool.spool.clone(),
            run_dir: self.run_dir.run_dir.clone(),
            grace: self.grace.grace,
            repair: self.repair,
            listen: self.listen,
            ready_after_manager: self.ready_after_manager,
            hook_listen: self.hook_listen,
            hook_allow: self.hook_allow.clone(),
            hook_token_file: self.hook_token_file.clone(),
            ..Inputs::default()
        };
        self.identity.fill(&mut inputs);
        self.manager.fill(&mut inputs);
        self.tls.fill(&mut inputs);
        inputs
    }
}

impl PreStopArgs {
    /// What [`crate::identity::resolve()`] starts from.
    pub fn inputs(&self) -> Inputs {
        let mut inputs = Inputs {
            spool: self.spool.spool.clone(),
            run_dir: self.run_dir.run_dir.clone(),
            grace: self.grace.grace,
            ..Inputs::default()
        };
        self.identity.fill(&mut inputs);
        self.manager.fill(&mut inputs);
        self.tls.fill(&mut inputs);
        inputs
    }
}

impl CheckArgs {
    /// What [`crate::identity::resolve()`] starts from.
    pub fn inputs(&self) -> Inputs {
        let mut inputs = Inputs {
            spool: self.spool.spool.clone(),
            run_dir: self.run_dir.run_dir.clone(),
            grace: self.grace.grace,
            ..Inputs::default()
        };
        self.identity.fill(&mut inputs);
        self.manager.fill(&mut inputs);
        self.tls.fill(&mut inputs);
        inputs
    }
}

impl FlushArgs {
    /// What [`crate::identity::resolve()`] starts from.
    pub fn inputs(&self) -> Inputs {
        let mut inputs = Inputs {
            spool: self.spool.spool.clone(),
            run_dir: self.run_dir.run_dir.clone(),
            ..Inputs::default()
        };
        self.manager.fill(&mut inputs);
        self.tls.fill(&mut inputs);
        inputs
    }
}

impl Command {
    /// How the command logs: the agent from info on, the others from warn on, unless told.
    pub fn log(&self) -> (Format, Level) {
        let (log, usual) = match self {
            Command::Agent(args) => (args.log, Level::Info),
            Command::PreStop(args) => (args.log, Level::Warn),
            Command::Queue(QueueArgs { command: QueueCommand::Flush(args) }) => (args.log, Level::Warn),
            _ => (LogArgs::default(), Level::Warn),
        };
        (log.log_format.unwrap_or_default(), log.log_level.unwrap_or(usual))
    }
}
