//! `signoff reconcile`: finds the rows of schedulers that are gone, and repairs them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use self::{
    out::Out,
    shown::Shown,
    view::{Explained, View},
};
use super::{
    args::{ExplainArgs, LookArgs, OutputFormat, ReconcileArgs, ReconcileCommand, SourceName},
    print, print_by, settings, told_to_stop, usage,
};
#[cfg(feature = "database")]
use crate::repair::sources::database::DatabaseSource;
use crate::{
    agent::{
        clock::wall_millis,
        http::{self, Exposition, Readiness, Served},
        last_words::{LastWords, TERMINATION_LOG},
    },
    exit::Exit,
    files,
    identity::{Inputs, Settings, duration, settings::DEFAULT_LISTEN},
    manager::{Failure, Withdraw, client::Client, rest::Rest},
    net::{Prober, Tls, TlsFiles},
    repair::{
        guard::Limits,
        metrics::Metrics,
        pods::{InCluster, Kubernetes, Watch},
        reconcile::{Policy, Reconciler, Report},
        sources::{Scope, Source, grpc::GrpcSource, rest::RestSource},
        survey::Options,
        withdraw::Wanted,
    },
};

mod out;
mod shown;
mod view;

impl Exposition for Metrics {
    fn text(&self) -> Result<String, std::fmt::Error> {
        Metrics::text(self)
    }
}

/// A run ends within this: inside a CronJob's period of five minutes.
const DEADLINE: Duration = Duration::from_secs(240);

/// A row that was left is nobody's once it was for longer than partitions last: as long as a manager's own collection waits.
const PURGE_FLOOR: Duration = Duration::from_secs(30 * 60);

/// So long a run of many waits for standard output to take its report.
const STDOUT_LIMIT: Duration = Duration::from_secs(1);

/// Runs once, or stays with `--every`; or explains.
pub async fn run(args: ReconcileArgs) -> Exit {
    match &args.command {
        Some(ReconcileCommand::Explain(explain)) => self::explain(explain).await,
        None => reconcile(&args).await,
    }
}

async fn reconcile(args: &ReconcileArgs) -> Exit {
    let apply = args.apply.unwrap_or(false);
    let scope = match scope(&args.look, apply) {
        Ok(scope) => scope,
        Err(wrong) => return usage(&wrong),
    };
    let deadline = args.deadline.unwrap_or(DEADLINE);
    if args.look.recheck_after.is_some_and(|recheck| recheck >= deadline) {
        return usage(&format!(
            "--recheck-after {} leaves nothing of --deadline {}: make it shorter, or the deadline longer",
            duration::format(args.look.recheck_after.unwrap_or_default()),
            duration::format(deadline)
        ));
    }
    if let Some(early) = args.purge_after.filter(|after| *after < PURGE_FLOOR)
        && !args.purge_early.unwrap_or(false)
    {
        return usage(&format!(
            "--purge-after {} is shorter than {}: a scheduler that is cut off for so long would lose its row; make it longer, or say \
             --purge-early",
            duration::format(early),
            duration::format(PURGE_FLOOR)
        ));
    }
    let (source, manager) = match ends(&args.look, apply, args.purge_after.is_some() && apply).await {
        Ok(ends) => ends,
        Err(exit) => return exit,
    };
    if args.purge_after.is_some() && !source.shows_inactive() {
        return usage(&format!(
            "--purge-after needs --source rest or database: {} shows no inactive rows",
            source.name()
        ));
    }
    // A row is signed off before it is withdrawn.
    let withdraws_without_times = args.withdraw_without_keep_alive_times.unwrap_or(false);
    let policy = Policy {
        look: Options {
            scope,
            recheck_after: args.look.recheck_after,
            wanted: Wanted {
                replaced: args.withdraw.unwrap_or(true) && source.shows_inactive(),
                left: args.purge_after,
                without_times: withdraws_without_times,
            },
            only: None,
        },
        pattern: args.hostname_pattern.clone(),
        limits: Limits {
            max_share: args.max_share.unwrap_or_default(),
            without_times: args.apply_without_keep_alive_times.unwrap_or(false) || withdraws_without_times,
        },
        apply,
        deadline,
    };
    let without_user = match without_user(args, &policy).await {
        Ok(reconciler) => reconciler,
        Err(exit) => return exit,
    };
    let reconciler = match reconciler(&args.look, (source, manager), policy).await {
        Ok(reconciler) => reconciler,
        Err(exit) => return exit,
    };
    let words = LastWords::to(TERMINATION_LOG);
    let output = args.look.output.output.unwrap_or_default();
    let job = Job { reconciler, without_user, output, words, out: Out::default() };
    match args.every {
        Some(every) => job.stay(every, args).await,
        None => job.once().await,
    }
}

/// What stands in as long as the user's password file isn't there, as a Secret that is optional: it only reports, over gRPC.
struct WithoutUser {
    password_file: PathBuf,
    reconciler: Reconciler,
    /// It stood in for the last run.
    stood_in: bool,
}

impl WithoutUser {
    /// It, if it is to stand in for the next run.
    async fn now(&mut self) -> Option<&mut Reconciler> {
        let file = self.password_file.clone();
        // A file that can't be looked for is for the run itself to name.
        let is_there = files::within(files::LIMIT, move || file.try_exists().unwrap_or(true)).await;
        let stands_in = !is_there.unwrap_or(true);
        if stands_in && !self.stood_in {
            warn!(
                manager.password_file = %self.password_file.display(),
                "There is no password file: rows are read over gRPC, and only reported. `signoff grant` makes a user and the Secret with \
                 its password; once the file is there, the next run goes by it."
            );
        }
        if self.stood_in && !stands_in {
            info!(manager.password_file = %self.password_file.display(), "The password file is there now.");
        }
        self.stood_in = stands_in;
        stands_in.then_some(&mut self.reconciler)
    }
}

/// One process's runs.
struct Job {
    reconciler: Reconciler,
    without_user: Option<WithoutUser>,
    output: OutputFormat,
    words: LastWords,
    out: Out,
}

impl Job {
    async fn once(mut self) -> Exit {
        let shown = Shown::new();
        let until = Instant::now() + self.reconciler.policy.deadline;
        let stop = told_to_stop();
        tokio::pin!(stop);
        let ended = tokio::select! {
            ended = self.reconciler.run(&shown) => ended,
            () = &mut stop => {
                shown.clear();
                warn!("Stopped before the run was done; what it did is in this log, the next one does the rest.");
                self.words.say("reconcile: stopped before the run was done; the next one does the rest\n".to_owned());
                self.words.flush().await;
                return Exit::CheckFailed;
            }
        };
        shown.clear();
        let exit = match ended {
            Ok(report) => {
                let report = Arc::new(report);
                self.words.say(format!("{}\n", View::of(&report).summary()));
                let (shown, output) = (Arc::clone(&report), self.output);
                let written = self.out.write(move || {
                    let view = View::of(&shown);
                    match output {
                        OutputFormat::Table => print(&view.table()),
                        OutputFormat::Json => print_by(|out| view.json(true, out)),
                    }
                });
                tokio::select! {
                    () = written => {}
                    () = stop => warn!("Stopped before standard output had taken the report."),
                    () = sleep_until(until) => {
                        warn!("Standard output took no report within --deadline; the summary is in the log.");
                        info!(reconcile.summary = View::of(&report).summary(), "The run ended.");
                    }
                }
                for empty in report.no_such_clusters() {
                    usage(&format!("--cluster-id {}: {empty}", empty.cluster_id));
                }
                report.exit()
            }
            Err(failure) => {
                self.words.say(format!("reconcile: the rows could not be read: {failure}\n"));
                settings::unavailable(&format!("the rows could not be read: {failure}"))
            }
        };
        self.words.flush().await;
        exit
    }

    /// Runs again and again until it is told to stop. A run that fails ends nothing.
    async fn stay(mut self, every: Duration, args: &ReconcileArgs) -> Exit {
        let (metrics, ready) = (Metrics::new(every), Readiness::default());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let served = Served::new(metrics.clone(), ready.clone());
        let server = match http::listen("--listen", args.listen.unwrap_or(DEFAULT_LISTEN)) {
            Ok(listener) => tokio::spawn(http::run(listener, served, async move {
                // A sender that is gone is the end too.
                let _ = stopped.await;
            })),
            Err(why) => {
                // The runs are what it is there for: an alert sees that nobody is scraped.
                error!(reason = %why, "There are no metrics.");
                tokio::spawn(std::future::ready(()))
            }
        };
        info!(
            rows.source = self.reconciler.source.name(),
            reconcile.apply = self.reconciler.policy.apply,
            reconcile.every_seconds = every.as_secs_f64(),
            "Reconciling."
        );
        tokio::select! {
            () = told_to_stop() => info!("Stopping."),
            () = self.runs(every, &metrics, &ready) => {}
        }
        drop(stop);
        // Who doesn't read its answer can't hold up the exit.
        let _ = tokio::time::timeout(Duration::from_millis(100), server).await;
        self.words.flush().await;
        Exit::Done
    }

    async fn runs(&mut self, every: Duration, metrics: &Metrics, ready: &Readiness) {
        let mut begin = tokio::time::interval(every);
        begin.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            begin.tick().await;
            let stand_in = match &mut self.without_user {
                Some(without) => without.now().await,
                None => None,
            };
            let reconciler = stand_in.unwrap_or(&mut self.reconciler);
            match reconciler.run(&shown::Quiet).await {
                Ok(report) => {
                    ready.set(true);
                    metrics.ended(&report, wall_millis());
                    self.say(report).await;
                }
                Err(failure) => {
                    metrics.failed();
                    self.words.say(format!("reconcile: the rows could not be read: {failure}\n"));
                    warn!(reason = %failure, "The rows could not be read; the next run tries again.");
                }
            }
        }
    }

    async fn say(&self, report: Report) {
        let report = Arc::new(report);
        let view = View::of(&report);
        let summary = view.summary();
        self.words.say(format!("{summary}\n"));
        if self.output == OutputFormat::Json {
            let shown = Arc::clone(&report);
            let written = self.out.write(move || print_by(|out| View::of(&shown).json(false, out)));
            // The next run doesn't wait for whoever reads it.
            let _ = tokio::time::timeout(STDOUT_LIMIT, written).await;
        }
        for empty in report.no_such_clusters() {
            error!(scheduler.cluster = empty.cluster_id, reason = %empty, "There is no such cluster: nothing is done.");
        }
        for held in &report.plan.held {
            error!(reconcile.guard = held.guard(), reason = %held, "A guard held something back.");
        }
        for finding in view.findings() {
            warn!(
                row.id = finding.id,
                scheduler.cluster = finding.cluster_id,
                scheduler.hostname = finding.hostname,
                scheduler.ip = finding.ip,
                row.verdict = finding.verdict,
                reason = finding.reason,
                "A row is not as it should be."
            );
        }
        info!(reconcile.result = report.outcome().label(), reconcile.summary = summary, "A run ended.");
    }
}

/// Which clusters. A run that writes has to be told.
fn scope(look: &LookArgs, apply: bool) -> Result<Scope, String> {
    match (look.cluster_id.as_slice(), look.all_clusters.unwrap_or(false)) {
        ([], true) => Ok(Scope::All),
        ([], false) if apply => {
            Err("--apply needs to be told where: give --cluster-id (repeatable), or --all-clusters"
                .to_owned())
        }
        ([], false) => Ok(Scope::All),
        (_, true) => Err("--cluster-id and --all-clusters exclude each other: give one of them".to_owned()),
        (ids, false) => Ok(Scope::Clusters(ids.to_vec())),
    }
}

/// Kubernetes' pods, if they are to be asked.
async fn pods(look: &LookArgs) -> Result<Option<Watch>, String> {
    if !look.pods.unwrap_or(false) {
        return Ok(None);
    }
    match Kubernetes::in_cluster(InCluster::here()).await {
        Ok(pods) => Ok(Some(Watch::new(Box::new(pods)))),
        // Each begins with the flag's name.
        Err(why) => Err(format!("--{why}")),
    }
}

type Ends = (Box<dyn Source>, Option<Arc<dyn Withdraw>>);

/// What looks, and writes, as it is told to.
async fn reconciler(look: &LookArgs, (source, manager): Ends, policy: Policy) -> Result<Reconciler, Exit> {
    let mut reconciler = Reconciler::new(source, manager, Prober::network(), policy);
    reconciler.pods = pods(look).await.map_err(|wrong| usage(&wrong))?;
    Ok(reconciler)
}

/// What stands in for a process that stays and has no password file, where there is gRPC, too.
async fn without_user(args: &ReconcileArgs, policy: &Policy) -> Result<Option<WithoutUser>, Exit> {
    let look = &args.look;
    if args.every.is_none() || look.source.is_some() || look.database_url.is_some() {
        return Ok(None);
    }
    let settings = manager(look, policy.apply).await?;
    let (endpoints, Some(password_file)) = (settings.manager(), settings.password_file.clone()) else {
        return Ok(None);
    };
    if endpoints.rest.is_empty() || endpoints.grpc.is_empty() {
        return Ok(None);
    }
    let look = LookArgs { source: Some(SourceName::Grpc), ..look.clone() };
    let options = Options { wanted: Wanted::default(), ..policy.look.clone() };
    let policy = Policy { look: options, apply: false, ..policy.clone() };
    let ends = ends(&look, false, false).await?;
    let reconciler = reconciler(&look, ends, policy).await?;
    Ok(Some(WithoutUser { password_file, reconciler, stood_in: false }))
}

/// Where the rows are read, and who writes them, if somebody is to.
async fn ends(look: &LookArgs, apply: bool, deletes: bool) -> Result<Ends, Exit> {
    let settings = manager(look, apply).await?;
    let settings = settings.manager();
    let wrong = |why: &str| Err(usage(&why));
    if apply && settings.grpc.is_empty() {
        return wrong(
            "--apply needs a gRPC endpoint of the manager: give one with --manager host:port (all sign-offs go over gRPC)",
        );
    }
    let user = settings.username.is_some() && settings.password_file.is_some();
    if deletes && (settings.rest.is_empty() || !user) {
        return wrong(
            "--purge-after withdraws through REST: give an http:// or https:// endpoint with --manager, and with --username and \
             --password-file a user who may delete",
        );
    }
    let tls = Arc::new(Tls::new(TlsFiles {
        ca: settings.ca_file.clone(),
        cert: settings.cert_file.clone(),
        key: settings.key_file.clone(),
    }));
    let client = if settings.grpc.is_empty() {
        None
    } else {
        match Client::new(settings.clone()) {
            Ok(client) => Some(Arc::new(client)),
            Err(why) => return wrong(&why.to_string()),
        }
    };
    let chosen = look.source.unwrap_or(if look.database_url.is_some() {
        SourceName::Database
    } else if settings.rest.is_empty() {
        SourceName::Grpc
    } else {
        SourceName::Rest
    });
    let source: Box<dyn Source> = match chosen {
        SourceName::Rest => {
            if settings.rest.is_empty() {
                return wrong(
                    "--source rest needs a REST endpoint: give http://host:8080 or https:// with --manager",
                );
            }
            if !user {
                return wrong("REST needs a user: give --username and --password-file (a guest may read)");
            }
            let shared = client.as_ref().and_then(|client| client.shared_rest());
            Box::new(RestSource::new(shared.unwrap_or_else(|| {
                let credentials = crate::manager::rest::RestCredentials {
                    username: settings.username.clone(),
                    password_file: settings.password_file.clone(),
                };
                Arc::new(Rest::new(settings.rest.clone(), tls, credentials))
            })))
        }
        SourceName::Grpc => {
            let Some(client) = &client else {
                return wrong(
                    "--source grpc needs a gRPC endpoint of the manager: give one with --manager host:port",
                );
            };
            Box::new(GrpcSource::new(client.shared_grpc(), client.caller_ip()))
        }
        SourceName::Database => database(look)?,
    };
    Ok((source, client.map(|client| client as Arc<dyn Withdraw>)))
}

#[cfg(feature = "database")]
fn database(look: &LookArgs) -> Result<Box<dyn Source>, Exit> {
    let Some(url) = &look.database_url else { return Err(no_database_url()) };
    match DatabaseSource::new(url.expose(), look.database_password_file.clone()) {
        Ok(source) => Ok(Box::new(source)),
        Err(wrong) => Err(usage(&format!("--database-url: {wrong}"))),
    }
}

#[cfg(not(feature = "database"))]
fn database(look: &LookArgs) -> Result<Box<dyn Source>, Exit> {
    if look.database_url.is_none() {
        return Err(no_database_url());
    }
    Err(usage(&"this build can't read a database (cargo feature `database`); use --source rest or grpc"))
}

fn no_database_url() -> Exit {
    usage(&"--source database needs --database-url mysql://user@host:3306/manager or postgres://…")
}

/// The manager's endpoints and credentials: flags and environment, then a running agent's, then scheduler.yaml's.
async fn manager(look: &LookArgs, apply: bool) -> Result<Settings, Exit> {
    let inputs = Inputs {
        managers: look.manager.manager.clone(),
        username: look.manager.username.clone(),
        password_file: look.manager.password_file.clone(),
        ca_file: look.tls.ca_file.clone(),
        cert_file: look.tls.cert_file.clone(),
        key_file: look.tls.key_file.clone(),
        scheduler_config: look.scheduler_config.clone(),
        run_dir: look.run_dir.run_dir.clone(),
        ..Inputs::default()
    };
    let grpc = inputs.managers.iter().any(|endpoint| crate::identity::address::is_grpc(endpoint));
    let enough = grpc || (!apply && (!inputs.managers.is_empty() || look.database_url.is_some()));
    if !enough || inputs.scheduler_config.is_some() {
        return settings::resolved(inputs).await.map(|(settings, _)| settings);
    }
    // Whose row the process stands beside doesn't matter here, and finding that out may take seconds.
    let agents = settings::of_the_agent(&inputs.run_dir()).unwrap_or_default();
    Ok(Settings {
        managers: inputs.managers,
        username: inputs.username.or(agents.username),
        password_file: inputs.password_file.or(agents.password_file),
        ca_file: inputs.ca_file.or(agents.ca_file),
        cert_file: inputs.cert_file.or(agents.cert_file),
        key_file: inputs.key_file.or(agents.key_file),
        ..Settings::default()
    })
}

async fn explain(args: &ExplainArgs) -> Exit {
    let scope = match scope(&args.look, false) {
        Ok(scope) => scope,
        Err(wrong) => return usage(&wrong),
    };
    let (source, _) = match ends(&args.look, false, false).await {
        Ok(ends) => ends,
        Err(exit) => return exit,
    };
    let policy = Policy {
        look: Options {
            scope,
            recheck_after: args.look.recheck_after,
            wanted: Wanted::default(),
            only: Some(args.id),
        },
        pattern: None,
        limits: Limits::default(),
        apply: false,
        deadline: DEADLINE,
    };
    let shown = Shown::new();
    let mut reconciler = match reconciler(&args.look, (source, None), policy).await {
        Ok(reconciler) => reconciler,
        Err(exit) => return exit,
    };
    let ended = reconciler.run(&shown).await;
    shown.clear();
    let unread = |failure: &Failure| settings::unavailable(&format!("the rows could not be read: {failure}"));
    match ended {
        Err(failure) => unread(&failure),
        Ok(report) => match Explained::of(&report, args.id) {
            None => {
                let _ = std::io::Write::write_all(
                    &mut std::io::stderr(),
                    format!("error: {} shows no row with the id {} in this scope\n", report.source, args.id)
                        .as_bytes(),
                );
                Exit::CheckFailed
            }
            Some(explained) => {
                print(&match args.look.output.output.unwrap_or_default() {
                    OutputFormat::Table => explained.text(),
                    OutputFormat::Json => explained.json(),
                });
                if explained.wrong() { Exit::Inconsistent } else { Exit::Done }
            }
        },
    }
}
