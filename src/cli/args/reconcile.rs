//! `signoff reconcile`, and `signoff reconcile explain`.

#![allow(missing_docs, reason = "a flag's documentation is its help, which is tested")]

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::{Called, LogArgs, ManagerArgs, OutputArgs, RunDirArgs, TlsArgs, groups::utf8_path, listen};
use crate::{
    identity::duration,
    key::ClusterId,
    repair::{guard::MaxShare, reconcile::Pattern},
    secret::Secret,
};

/// Below the help.
const AFTER: &str = "Without --apply nothing is changed: exit code 0 if all is well, 2 if something isn't, 3 if reconcile can't see.\n\
    With it: 0 done, 1 something could not be written, 3 held back by a guard. 69: the rows could not be read.\n\
    A run alone (a CronJob's) remembers no other: what keeps it from writing a living scheduler's row again and again\n\
    are the row's own times. So it writes only where keep-alive times are shown, and no row that was written long after\n\
    its last keep-alive. With --every, a row that comes back is not written again until a run has seen it live.\n\
    To withdraw a row is to take it out of the table, and out of what peers are given: through REST, with a user who may\n\
    delete (`signoff grant` makes one). Without one no row is withdrawn; without keep-alive times neither, but where that is\n\
    allowed.\n\
    What is not given of the manager is taken from the settings of the agent in --run-dir, if there is one.";

/// Longer than anything here makes sense for, and far from what a clock can't count.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// `signoff reconcile`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = AFTER, args_conflicts_with_subcommands = true)]
pub struct ReconcileArgs {
    /// What to do instead.
    #[command(subcommand)]
    pub command: Option<ReconcileCommand>,
    #[command(flatten)]
    pub look: LookArgs,
    /// Repair: sign the dead schedulers' rows off, and withdraw rows; needs --cluster-id or --all-clusters
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), hide_possible_values = true, help_heading = "Repair")]
    pub apply: Option<bool>,
    /// Repair over gRPC, or a manager before v2.3.1, too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), hide_possible_values = true, help_heading = "Repair")]
    pub apply_without_keep_alive_times: Option<bool>,
    /// The same, and withdraw replaced rows there
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), hide_possible_values = true, help_heading = "Repair")]
    pub withdraw_without_keep_alive_times: Option<bool>,
    /// Only rows with such hostnames are repaired: * is any text, ? one character
    #[arg(long, value_name = "PATTERN", help_heading = "Repair")]
    pub hostname_pattern: Option<Pattern>,
    /// How much one run may sign off: a share of the scope's active rows (at least one), or a count [default: 15%]
    #[arg(long, value_name = "SHARE%|COUNT", help_heading = "Repair")]
    pub max_share: Option<MaxShare>,
    /// Withdraw replaced rows too: those whose hostname lives under a newer row [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), hide_possible_values = true, help_heading = "Repair")]
    pub withdraw: Option<bool>,
    /// Withdraw rows that are nobody's and inactive for longer, at least 30m; lists them without --apply
    #[arg(long, value_name = "DURATION", value_parser = positive, help_heading = "Repair")]
    pub purge_after: Option<Duration>,
    /// Let --purge-after be shorter than 30m: a scheduler that is cut off for so long loses its row
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), hide_possible_values = true, help_heading = "Repair")]
    pub purge_early: Option<bool>,
    /// Stay, and begin a run this often [default: one run]
    #[arg(long, value_name = "DURATION", value_parser = positive, help_heading = "Repair")]
    pub every: Option<Duration>,
    /// How long one run may take: less than a CronJob's period [default: 4m]
    #[arg(long, value_name = "DURATION", value_parser = positive, help_heading = "Repair")]
    pub deadline: Option<Duration>,
    /// With --every: where /livez, /readyz and /metrics are served [default: [::]:9802]
    #[arg(long, value_name = "IP:PORT", value_parser = listen, help_heading = "Repair")]
    pub listen: Option<SocketAddr>,
}

/// What to do instead of a run.
#[derive(Debug, Clone, Subcommand)]
pub enum ReconcileCommand {
    /// Say what one row is, and why; changes nothing
    Explain(Called<ExplainArgs>),
}

/// `signoff reconcile explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The row's id
    #[arg(value_name = "ID", value_parser = row_id)]
    pub id: u64,
    #[command(flatten)]
    pub look: LookArgs,
}

/// Where the rows are read, and which.
#[derive(Debug, Clone, Default, Args)]
pub struct LookArgs {
    #[command(flatten)]
    pub manager: ManagerArgs,
    /// The scheduler's scheduler.yaml, which names its manager [default: /etc/dragonfly/scheduler.yaml if there]
    #[arg(long, value_name = "FILE", value_parser = utf8_path(), help_heading = "Manager")]
    pub scheduler_config: Option<PathBuf>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Where the rows are read [default: database if its URL is given, else rest if an http endpoint is, else grpc]
    #[arg(
        long,
        value_name = "rest|grpc|database",
        value_enum,
        ignore_case = true,
        hide_possible_values = true,
        help_heading = "Look"
    )]
    pub source: Option<SourceName>,
    /// The manager's own database, only read: mysql://user@host/manager or postgres://…; best as the variable
    #[arg(long, value_name = "URL", help_heading = "Look")]
    pub database_url: Option<SecretUrl>,
    /// The file with the password of the database's user
    #[arg(long, value_name = "FILE", value_parser = utf8_path(), help_heading = "Look")]
    pub database_password_file: Option<PathBuf>,
    /// Only rows of this cluster, repeatable
    #[arg(long, value_name = "ID", help_heading = "Look")]
    pub cluster_id: Vec<ClusterId>,
    /// Rows of all clusters
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), hide_possible_values = true, help_heading = "Look")]
    pub all_clusters: Option<bool>,
    /// Between the two looks at each row [default: three of the longest keep-alive interval, at most 2m]
    #[arg(long, value_name = "DURATION", value_parser = positive, help_heading = "Look")]
    pub recheck_after: Option<Duration>,
    /// Take Kubernetes' pods as evidence for the rows of this namespace: to be run in it, by who may list them [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), hide_possible_values = true, help_heading = "Look")]
    pub pods: Option<bool>,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub run_dir: RunDirArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Where the rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SourceName {
    Rest,
    Grpc,
    Database,
}

/// A URL that may hold a password: never printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUrl(Secret);

impl SecretUrl {
    /// The URL. Not to be printed.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl std::str::FromStr for SecretUrl {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(Secret::new(text.trim())))
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    if time.is_zero() {
        Err("it must be longer than 0s".to_owned())
    } else if time > LONGEST {
        Err(format!("it must be at most {}", duration::format(LONGEST)))
    } else {
        Ok(time)
    }
}

fn row_id(text: &str) -> Result<u64, String> {
    text.trim()
        .parse()
        .map_err(|_| "it is not a row's id; use a whole number, as reconcile prints it".to_owned())
}
