//! Flags from the environment: `--scheduler-addr` is also `SIGNOFF_SCHEDULER_ADDR`, and so on for every flag of the
//! commands that run beside a scheduler. A flag on the command line goes first; a blank variable counts as unset; a
//! repeatable flag's variable is a comma-separated list. White space around a value is cut off: a Secret or ConfigMap often
//! brings a newline.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

use clap::{
    Arg, ArgAction, Command,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};

/// These set up the world a scheduler lives in, or none at all: the environment's word for an agent is not for them.
pub(super) const WITHOUT: [&str; 5] = ["mock-manager", "mock-scheduler", "demo", "install", "completions"];

/// The environment, by name.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The variable of a flag: `SIGNOFF_` and its long name.
pub fn variable(long: &str) -> String {
    format!("SIGNOFF_{}", long.to_ascii_uppercase().replace('-', "_"))
}

/// Says in each flag's help which variable stands for it. `command` is built: it knows the flags of all its subcommands.
pub fn documented(command: Command) -> Command {
    if WITHOUT.contains(&command.get_name()) {
        return command;
    }
    let command = command.mut_args(|arg| match (arg.get_long().map(variable), arg.get_help()) {
        (Some(variable), Some(help)) if !is_claps(&arg) => {
            // A no-break space keeps the variable in one piece until the lines are broken.
            let help = wrapped(&format!("{help} [env:\u{a0}{variable}]")).replace('\u{a0}', " ");
            arg.help(help)
        }
        _ => arg,
    });
    command.mut_subcommands(documented)
}

/// `--help` and `--version`: clap adds them to a command that it builds.
pub(super) fn is_claps(arg: &Arg) -> bool {
    matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

/// Lines of at most [`WIDTH`] characters, broken at spaces.
fn wrapped(text: &str) -> String {
    /// What a terminal of 120 columns has left beside the longest flag.
    const WIDTH: usize = 72;
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 {
            let fits = column + 1 + length <= WIDTH;
            lines.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        lines.push_str(word);
        column += length;
    }
    lines
}

/// `args` with what the environment adds, and where each of those values came from.
pub struct Added {
    /// The arguments, the program's name included.
    pub args: Vec<OsString>,
    /// The variables used, by the long name of their flags.
    variables: BTreeMap<String, String>,
}

impl Added {
    /// Adds to `args` what `env` gives for the flags of the (sub)command that `args` call, unless they give it themselves.
    pub fn new(command: Command, mut args: Vec<OsString>, env: Env<'_>) -> Self {
        let mut variables = BTreeMap::new();
        let mut command = command.ignore_errors(true);
        // Asked for help, or for nothing that exists: the environment has no say.
        let Ok(given) = command.try_get_matches_from_mut(&args) else { return Self { args, variables } };
        let mut given = &given;
        while let Some((_, deeper)) = given.subcommand() {
            given = deeper;
        }
        // Only what was called knows its flags, and only since it was parsed.
        let mut depth = 1;
        let mut leaf = &command;
        while let Some(sub) = args.get(depth).and_then(|arg| leaf.find_subcommand(arg)) {
            depth += 1;
            leaf = sub;
        }
        if WITHOUT.contains(&leaf.get_name()) {
            return Self { args, variables };
        }
        for arg in leaf.get_arguments().filter(|arg| !is_claps(arg)) {
            let Some(long) = arg.get_long() else { continue };
            let id = arg.get_id().as_str();
            let is_given = given
                .try_contains_id(id)
                .is_ok_and(|known| known && given.value_source(id) == Some(ValueSource::CommandLine));
            let variable = variable(long);
            let Some(value) = env(&variable).filter(|v| !is_given && !blank(v)) else { continue };
            let is_repeatable = matches!(arg.get_action(), ArgAction::Append);
            for value in if is_repeatable { list(&value) } else { vec![trimmed(value)] } {
                let mut flag = OsString::from(format!("--{long}="));
                flag.push(value);
                args.insert(depth, flag);
            }
            variables.insert(long.to_owned(), variable);
        }
        Self { args, variables }
    }

    /// The error, naming the variable where the value came from one, and without what may be a password.
    pub fn blame(&self, mut error: clap::Error) -> clap::Error {
        if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
            && let Some((_, host)) = value.rsplit_once('@')
        {
            let masked = format!("***@{host}");
            error.insert(ContextKind::InvalidValue, ContextValue::String(masked));
        }
        let flag = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(arg)) => arg.trim_start_matches('-').to_owned(),
            _ => return error,
        };
        let long = flag.split([' ', '=', '[']).next().unwrap_or_default();
        if let Some(variable) = self.variables.get(long) {
            error.insert(ContextKind::InvalidArg, ContextValue::String(variable.clone()));
        }
        error
    }
}

/// A word of a command line, or a variable's value, without the white space around it; in `--flag= value` around both.
pub(super) fn trimmed(word: OsString) -> OsString {
    let Some(text) = word.to_str() else { return word };
    let text = text.trim();
    match text.split_once('=').filter(|_| text.starts_with("--")) {
        Some((flag, value)) => format!("{}={}", flag.trim_end(), value.trim_start()).into(),
        None => text.into(),
    }
}

pub(super) fn blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|v| v.trim().is_empty())
}

/// The items of a comma-separated list, last first: each is inserted before the one before it. One of nothing but commas is an
/// item, which nothing takes.
pub(super) fn list(value: &OsStr) -> Vec<OsString> {
    let Some(text) = value.to_str() else { return vec![value.to_owned()] };
    let items: Vec<OsString> =
        text.split(',').map(str::trim).filter(|t| !t.is_empty()).rev().map(OsString::from).collect();
    if items.is_empty() { vec![OsString::from(text.trim())] } else { items }
}
