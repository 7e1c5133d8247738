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
    args::{Cli, Command, CompletionsArgs, QueueCommand, Shell},
    environment::{Added, Env},
};
use crate::{
    agent::clock::wall_millis,
    exit::Exit,
    identity::{
        Settings,
        settings::{DEFAULT_RUN_DIR, DEFAULT_SPOOL},
    },
    logging,
    spool::SpoolError,
};

pub mod agent;
pub mod args;
pub mod check;
pub mod environment;
pub mod flush;
pub mod install;
pub mod pre_stop;
pub mod queue;
pub mod reconcile;
pub mod settings;
pub mod status;
pub mod status_view;

/// The process: everything but `fn main`.
pub fn main() -> ExitCode {
    let cli = match parse(std::env::args_os().collect(), &|name| std::env::var_os(name)) {
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

/// Parses a command line, the program's name first, with what the environment adds to it.
pub fn parse(args: Vec<OsString>, env: Env<'_>) -> Result<Cli, clap::Error> {
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
    let _ = writeln!(io::stderr(), "error: {wrong}");
    Exit::Usage
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
    let of_the_agent = || Settings::read(&run_dir).ok().flatten().map(|settings| settings.spool);
    let dir = spool.spool.clone().or_else(of_the_agent).unwrap_or_else(|| DEFAULT_SPOOL.into());
    let shown = match command {
        QueueCommand::List(args) => queue::list(&dir, false, args.output.format(), wall_millis()),
        QueueCommand::Show(args) => each(&args.ids, |id| queue::show(&dir, id, args.output.format())),
        QueueCommand::Drop(args) => each(&args.ids, |id| queue::drop(&dir, id, queue::Format::Table)),
        QueueCommand::Flush(_) => Ok(String::new()),
    };
    match shown {
        Ok(text) => {
            print(text.trim_end());
            Exit::Done
        }
        Err(error) => usage(&error),
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
