//! The flags of each subcommand. Each flag can also be given as `SIGNOFF_…` (see [`super::environment`]), in which case
//! the flag goes first; one that is repeated is taken as given last.
//!
//! There are no defaults here: what neither a flag nor the environment gives may still come from the agent's own
//! settings or scheduler.yaml (see [`crate::identity::resolve()`]).

#![allow(
    missing_docs,
    reason = "a flattened group's documentation is its type's; a flag's is its help, which is tested"
)]

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::groups::utf8_path;
pub use self::{
    called::Called,
    grant::GrantArgs,
    groups::{
        GraceArgs, IdentityArgs, LogArgs, ManagerArgs, OutputArgs, OutputFormat, RunDirArgs, SpoolArgs,
        TlsArgs,
    },
    reconcile::{ExplainArgs, LookArgs, ReconcileArgs, ReconcileCommand, SourceName},
};
use crate::{
    identity::{Inputs, Repair, Wrong, address::allowed_peers, duration},
    logging::{Format, Level},
};

mod called;
mod grant;
mod groups;
mod reconcile;

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
    Agent(Called<AgentArgs>),
    /// Sign the scheduler off before it is told to stop: for a preStop hook
    PreStop(Called<PreStopArgs>),
    /// Show what the agent sees and does
    Status(Called<StatusArgs>),
    /// Look at, or settle, the pending sign-offs of a spool
    Queue(Called<QueueArgs>),
    /// Check identity, manager, scheduler, spool and permissions, and say what to do
    Check(Called<CheckArgs>),
    /// Find the rows of schedulers that are gone, and repair them
    Reconcile(Called<ReconcileArgs>),
    /// Make a manager's user who may list and delete schedulers, and nothing else
    Grant(Called<GrantArgs>),
    /// Run a mock Dragonfly manager: both APIs, faults on demand, a live page
    #[cfg(feature = "mock")]
    MockManager(Called<crate::mock::MockManagerArgs>),
    /// Run a mock Dragonfly scheduler
    #[cfg(feature = "mock")]
    MockScheduler(Called<crate::mock::MockSchedulerArgs>),
    /// Play the main job on an embedded mock manager, live
    #[cfg(feature = "mock")]
    Demo(Called<crate::demo::DemoArgs>),
    /// Copy this program to a place where another container's hook finds it
    Install(Called<InstallArgs>),
    /// Print a shell's completions
    Completions(Called<CompletionsArgs>),
}

/// Below the help of the commands that run beside an agent.
const FROM_THE_AGENT: &str =
    "What is not given is taken from the settings of the agent in --run-dir, if there is one.";

/// `signoff agent`.
#[derive(Debug, Clone, Default, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    pub identity: IdentityArgs,
    #[command(flatten)]
    pub manager: ManagerArgs,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
    pub grace: GraceArgs,
    /// Sign off dead predecessors and give a living scheduler's row back, unasked; report only says so [default: on]
    #[arg(
        long,
        value_name = "on|report|off",
        value_enum,
        ignore_case = true,
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
    #[arg(long, value_name = "FILE", value_parser = utf8_path(), help_heading = "Agent")]
    pub hook_token_file: Option<PathBuf>,
    #[command(flatten)]
    pub log: LogArgs,
    /// What was given and can't be taken: see [`super::tolerant`].
    #[arg(skip)]
    pub wrong: Vec<Wrong>,
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
    pub identity: IdentityArgs,
    #[command(flatten)]
    pub manager: ManagerArgs,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
    pub grace: GraceArgs,
    #[command(flatten)]
    pub log: LogArgs,
    /// What was given and can't be taken: see [`super::tolerant`].
    #[arg(skip)]
    pub wrong: Vec<Wrong>,
}

/// `signoff status`.
#[derive(Debug, Clone, Default, Args)]
pub struct StatusArgs {
    /// Print nothing; exit 0 once the agent has started, for a startup probe
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), hide_possible_values = true, help_heading = "Output")]
    pub started: Option<bool>,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub run_dir: RunDirArgs,
}

/// `signoff check`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = FROM_THE_AGENT)]
pub struct CheckArgs {
    #[command(flatten)]
    pub identity: IdentityArgs,
    #[command(flatten)]
    pub manager: ManagerArgs,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
    pub grace: GraceArgs,
    #[command(flatten)]
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
    List(Called<QueueListArgs>),
    /// Show records in full
    Show(Called<QueueShowArgs>),
    /// Drop pending sign-offs: they are then not made
    Drop(Called<QueueDropArgs>),
    /// Settle everything that is pending
    Flush(Called<FlushArgs>),
}

/// `signoff queue list`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = FROM_THE_AGENT)]
pub struct QueueListArgs {
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
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
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
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
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub run_dir: RunDirArgs,
}

/// `signoff queue flush`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = FROM_THE_AGENT)]
pub struct FlushArgs {
    /// How long to try; what is not settled by then stays queued [default: until all is settled]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, help_heading = "Queue")]
    pub deadline: Option<Duration>,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub manager: ManagerArgs,
    /// The scheduler's scheduler.yaml, which names its manager [default: /etc/dragonfly/scheduler.yaml if there]
    #[arg(long, value_name = "FILE", value_parser = utf8_path(), help_heading = "Manager")]
    pub scheduler_config: Option<PathBuf>,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// `signoff install`.
#[derive(Debug, Clone, Args)]
pub struct InstallArgs {
    /// The file to write, or a directory that gets a file named signoff
    #[arg(value_name = "DEST")]
    pub dest: PathBuf,
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
    #[arg(value_name = "bash|zsh|fish", value_enum, ignore_case = true, hide_possible_values = true)]
    pub shell: Shell,
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.trim()
        .parse()
        .map_err(|_| "it is not an address to listen at; write it as 127.0.0.1:9802 or [::]:9802".to_owned())
}

/// What all commands that may do the whole job alone have in common.
fn common(
    identity: &IdentityArgs,
    manager: &ManagerArgs,
    tls: &TlsArgs,
    (spool, run_dir, grace): (&SpoolArgs, &RunDirArgs, &GraceArgs),
) -> Inputs {
    let mut inputs = Inputs {
        spool: spool.spool.clone(),
        run_dir: run_dir.run_dir.clone(),
        grace: grace.grace,
        ..Inputs::default()
    };
    identity.fill(&mut inputs);
    manager.fill(&mut inputs);
    tls.fill(&mut inputs);
    inputs
}

impl AgentArgs {
    /// What [`crate::identity::resolve()`] starts from.
    pub fn inputs(&self) -> Inputs {
        Inputs {
            repair: self.repair,
            listen: self.listen,
            ready_after_manager: self.ready_after_manager,
            hook_listen: self.hook_listen,
            hook_allow: self.hook_allow.clone(),
            hook_token_file: self.hook_token_file.clone(),
            wrong: self.wrong.clone(),
            ..common(&self.identity, &self.manager, &self.tls, (&self.spool, &self.run_dir, &self.grace))
        }
    }
}

impl PreStopArgs {
    /// What [`crate::identity::resolve()`] starts from.
    pub fn inputs(&self) -> Inputs {
        let inputs =
            common(&self.identity, &self.manager, &self.tls, (&self.spool, &self.run_dir, &self.grace));
        Inputs { wrong: self.wrong.clone(), ..inputs }
    }
}

impl CheckArgs {
    /// What [`crate::identity::resolve()`] starts from.
    pub fn inputs(&self) -> Inputs {
        common(&self.identity, &self.manager, &self.tls, (&self.spool, &self.run_dir, &self.grace))
    }
}

impl FlushArgs {
    /// What [`crate::identity::resolve()`] starts from.
    pub fn inputs(&self) -> Inputs {
        let identity =
            IdentityArgs { scheduler_config: self.scheduler_config.clone(), ..IdentityArgs::default() };
        let grace = GraceArgs::default();
        common(&identity, &self.manager, &self.tls, (&self.spool, &self.run_dir, &grace))
    }
}

impl Command {
    /// How the command logs: the agent from info on, the others from warn on, unless told.
    pub fn log(&self) -> (Format, Level) {
        let none = (LogArgs::default(), Level::Warn);
        let (log, usual) = match self {
            Command::Agent(args) => (args.log, Level::Info),
            Command::PreStop(args) => (args.log, Level::Warn),
            Command::Queue(args) => match &args.command {
                QueueCommand::Flush(args) => (args.log, Level::Warn),
                _ => none,
            },
            Command::Reconcile(args) => match &args.command {
                Some(ReconcileCommand::Explain(args)) => (args.look.log, Level::Warn),
                // What it does to rows is for the log of a job.
                None => (args.look.log, Level::Info),
            },
            // That a sign-in is tried again for half a minute is for whoever waits.
            Command::Grant(args) => (args.log, Level::Info),
            _ => none,
        };
        (log.log_format.unwrap_or_default(), log.log_level.unwrap_or(usual))
    }
}
