//! The command line: one file a subcommand. [`main`] parses, sets logs up, runs the command and maps how it ended to an
//! exit code.

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, error::ErrorKind};
use tracing::error;

use self::{
    args::{Called, Cli, Command, CompletionsArgs, QueueCommand, Shell},
    environment::{Added, Env},
};
use crate::{
    agent::{clock::wall_millis, disk::WHOLE_SPOOL, run::holder},
    exit::Exit,
    files,
    identity::settings::{DEFAULT_RUN_DIR, DEFAULT_SPOOL},
    logging,
    spool::SpoolError,
};

pub mod agent;
pub mod args;
pub mod check;
pub mod environment;
pub mod flush;
pub mod grant;
pub mod install;
pub mod pre_stop;
pub mod queue;
pub mod reconcile;
pub mod settings;
pub mod started;
pub mod status;
pub mod status_view;
pub mod tolerant;

/// The process: everything but `fn main`.
pub fn main() -> ExitCode {
    let cli = match called(std::env::args_os().collect(), &|name| std::env::var_os(name)) {
        Ok(cli) => cli,
        Err(error) => {
            // Where the help goes is gone: so is who asked for it.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let (format, level) = cli.command.log();
    logging::init(format, level);
    exit_on_panic();
    let exit = match cli.command {
        Command::Completions(args) => completions(&args),
        Command::Install(args) => install::run(&args),
        command => on_runtime(command),
    };
    logging::flush();
    exit.into()
}

/// What a command line calls. Nothing that is wrong in one of `signoff agent` is an error: the agent starts, and says it; nor in
/// one of `signoff pre-stop`, which asks the agent all the same. Nor is a variable that is none of a startup probe's business.
pub fn called(args: Vec<OsString>, env: Env<'_>) -> Result<Cli, clap::Error> {
    parse(args.clone(), env).or_else(|error| match tolerant::called(&args, env) {
        _ if !error.use_stderr() => Err(error),
        Some(agent) => Ok(Cli { command: Command::Agent(Called::new(agent)) }),
        None if let Some(hook) = tolerant::called(&args, env) => {
            Ok(Cli { command: Command::PreStop(Called::new(hook)) })
        }
        None if tolerant::is_startup_probe(&args) => {
            parse(args, &|name| env(name).filter(|_| name == environment::variable("run-dir")))
                .map_err(|_| error)
        }
        None => Err(error),
    })
}

/// Parses a command line, the program's name first, with what the environment adds to it.
pub fn parse(args: Vec<OsString>, env: Env<'_>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = args.into_iter().map(environment::trimmed).collect();
    let added = Added::new(Cli::command(), args, env);
    Cli::command()
        .try_get_matches_from(&added.args)
        // Help is an error, too, and shows the variables.
        .or_else(|error| match error.kind() {
            ErrorKind::DisplayVersion => Err(error),
            _ => command().try_get_matches_from(&added.args),
        })
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| added.blame(error))
}

/// The command line's definition, each flag's variable named in its help.
pub fn command() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    environment::documented(command)
}

/// Prints `text` and a newline on stdout. A reader that has gone away is no error (`signoff queue list | head -1`).
pub fn print(text: &str) {
    print_by(|out| out.write_all(text.as_bytes()));
}

/// [`print`] for what is too much to be held in memory: `write` writes the text, without the newline at its end.
fn print_by(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if let Err(error) = write(&mut out).and_then(|()| writeln!(out)).and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        error!(%error, "Standard output can't be written.");
    }
}

/// Rows of cells as lines, each column as wide as it must be.
fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Says on stderr, in one line, what is wrong with the usage or configuration.
pub fn usage(wrong: &dyn std::fmt::Display) -> Exit {
    complain(wrong);
    Exit::Usage
}

/// Says on stderr, in one line, what is wrong. Nobody may read it: that holds the exit up for a moment only.
fn complain(wrong: &dyn std::fmt::Display) {
    let line = format!("error: {wrong}");
    let said = move || drop(writeln!(io::stderr(), "{line}"));
    drop(files::within_blocking(files::LIMIT, said));
}

/// A panic is a bug of ours: it is logged, and the process exits 70, whatever thread it was on. What is on disk is what
/// the next process works with.
pub fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("no message");
        error!(panic.at = %at, panic.message = %what, "A bug: please report it.");
        logging::flush();
        std::process::exit(Exit::Internal.code().into());
    }));
}

fn on_runtime(command: Command) -> Exit {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Room for what becomes ready at once, which is a few sockets; the default's is for a thousand.
    let runtime = match builder.enable_all().max_io_events_per_tick(64).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "The runtime can't be started.");
            return Exit::Internal;
        }
    };
    let exit = runtime.block_on(dispatch(command));
    // Not waiting for a disk or a resolver that hangs.
    runtime.shutdown_background();
    exit
}

async fn dispatch(command: Command) -> Exit {
    match command {
        Command::Agent(args) => agent::run(args.into_inner()).await,
        Command::PreStop(args) => pre_stop::run(args.into_inner()).await,
        Command::Status(args) => status::run(args.into_inner()).await,
        Command::Check(args) => check::run(args.into_inner()).await,
        Command::Reconcile(args) => reconcile::run(args.into_inner()).await,
        Command::Grant(args) => grant::run(args.into_inner()).await,
        Command::Queue(args) => match args.into_inner().command {
            QueueCommand::Flush(args) => flush::run(args.into_inner()).await,
            command => queue(command).await,
        },
        #[cfg(feature = "mock")]
        Command::MockManager(args) => {
            ended(crate::mock::run_manager(args.into_inner(), told_to_stop()).await)
        }
        #[cfg(feature = "mock")]
        Command::MockScheduler(args) => {
            ended(crate::mock::run_scheduler(args.into_inner(), told_to_stop()).await)
        }
        #[cfg(feature = "mock")]
        Command::Demo(args) => crate::demo::run(args.into_inner()).await,
        Command::Install(args) => install::run(&args),
        Command::Completions(args) => completions(&args),
    }
}

/// `signoff queue list|show|drop`: the spool's directory is all they need.
async fn queue(command: QueueCommand) -> Exit {
    let (spool, run_dir) = match &command {
        QueueCommand::List(args) => (&args.spool, &args.run_dir),
        QueueCommand::Show(args) => (&args.spool, &args.run_dir),
        QueueCommand::Drop(args) => (&args.spool, &args.run_dir),
        QueueCommand::Flush(args) => (&args.spool, &args.run_dir),
    };
    let run_dir = run_dir.run_dir.clone().unwrap_or_else(|| DEFAULT_RUN_DIR.into());
    let agent = settings::of_the_agent(&run_dir);
    let of_the_agent = || agent.as_ref().map(|settings| settings.spool.clone());
    let dir = spool.spool.clone().or_else(of_the_agent).unwrap_or_else(|| DEFAULT_SPOOL.into());
    let (spool, dropping) = (dir.clone(), matches!(command, QueueCommand::Drop(_)));
    // What was dropped is told even where the rest could not be.
    let whole = |text| (text, None);
    let shown = move || match command {
        QueueCommand::List(args) => {
            let ours = agent.as_ref().map(|agent| holder(agent).completed_by_the_resolver().managers);
            queue::list(&dir, ours.as_ref(), args.output.format(), wall_millis()).map(whole)
        }
        QueueCommand::Show(args) => {
            each(&args.ids, |id| queue::show(&dir, id, args.output.format())).map(whole)
        }
        QueueCommand::Drop(args) => queue::drop(&dir, &args.ids),
        QueueCommand::Flush(_) => Ok(whole(String::new())),
    };
    match files::within(WHOLE_SPOOL, shown).await {
        Ok(Ok((text, failed))) => {
            print(text.trim_end());
            failed.map_or(Exit::Done, |failed| spool_failed(&failed))
        }
        Ok(Err(error @ SpoolError::UnknownId { .. })) if dropping => {
            usage(&format!("{error}; nothing was dropped"))
        }
        Ok(Err(error)) => spool_failed(&error),
        Err(why) => settings::unavailable(&format!("the spool {}: {why}", spool.display())),
    }
}

/// Says what is wrong with a spool: with what was asked for or how it is set up, or else with the disk.
fn spool_failed(error: &SpoolError) -> Exit {
    match error {
        SpoolError::Missing { .. }
        | SpoolError::NotADirectory { .. }
        | SpoolError::Denied { .. }
        | SpoolError::BadId { .. }
        | SpoolError::BadRecord { .. }
        | SpoolError::UnknownId { .. } => usage(error),
        SpoolError::NoSpace { .. }
        | SpoolError::ReadOnly { .. }
        | SpoolError::Io { .. }
        | SpoolError::Full { .. }
        | SpoolError::NoLocks { .. } => settings::unavailable(error),
    }
}

fn each(ids: &[String], act: impl Fn(&str) -> Result<String, SpoolError>) -> Result<String, SpoolError> {
    ids.iter().map(|id| act(id)).collect()
}

/// Resolves at SIGTERM or SIGINT.
async fn told_to_stop() {
    use signal_hook::consts::{SIGINT, SIGTERM};
    match signal_hook_tokio::Signals::new([SIGTERM, SIGINT]) {
        Ok(mut signals) => drop(futures_util::StreamExt::next(&mut signals).await),
        Err(error) => {
            error!(%error, "Signals can't be handled: a signal ends this at once.");
            std::future::pending().await
        }
    }
}

#[cfg(feature = "mock")]
fn ended(result: Result<(), impl std::fmt::Display>) -> Exit {
    match result {
        Ok(()) => Exit::Done,
        Err(error) => usage(&error),
    }
}

fn completions(args: &CompletionsArgs) -> Exit {
    use clap_complete::aot;
    let mut script = Vec::new();
    let mut command = command().mut_subcommands(without_hidden);
    match args.shell {
        Shell::Bash => aot::generate(aot::Bash, &mut command, "signoff", &mut script),
        Shell::Zsh => aot::generate(aot::Zsh, &mut command, "signoff", &mut script),
        Shell::Fish => aot::generate(aot::Fish, &mut command, "signoff", &mut script),
    }
    print(String::from_utf8_lossy(&script).trim_end());
    Exit::Done
}

/// Completions offer hidden flags too, and a flag can't be taken out of a command: the one that has some is made anew.
fn without_hidden(command: clap::Command) -> clap::Command {
    const DEMO: &str = "demo";
    if command.get_name() != DEMO {
        return command;
    }
    let shown =
        command.get_arguments().filter(|arg| !arg.is_hide_set() && !environment::is_claps(arg)).cloned();
    let bin_name = command.get_bin_name().unwrap_or(DEMO).to_owned();
    let about = command.get_about().cloned().unwrap_or_default();
    clap::Command::new(DEMO).bin_name(bin_name).about(about).args(shown)
}

#[cfg(test)]
mod tests;
