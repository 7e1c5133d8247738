//! The command lines of `signoff agent` and `signoff pre-stop`, of which nothing is an error: a native sidecar that doesn't
//! start keeps its scheduler from starting, and a hook that ends at once is no drain.
//!
//! [`called`] is asked where the usual parser has refused. It looks at each flag and each variable alone: what can be taken is
//! taken, and what can't becomes a [`Wrong`], with which the agent starts degraded. Of a flag that is no list only the last
//! value counts. A flag that is wrong stays wrong though its variable be right: no other source stands in for it. So does one
//! that is misspelt, where what is misspelt says whose row this is, at which manager, or what may be written.

use std::{
    error::Error,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use clap::{
    Arg, ArgAction, Args, Command, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{
    args::{AgentArgs, PreStopArgs},
    environment::{Env, blank, is_claps, list, trimmed, variable},
};
use crate::identity::Wrong;

/// What is shown of a value at the most, in characters.
const SHOWN: usize = 100;

/// What was given for a flag, and by what name: the flag's or its variable's.
struct Given {
    name: String,
    /// None where a flag stands without one.
    value: Option<OsString>,
}

/// A subcommand of whose command line nothing is an error.
pub trait Tolerant: Args + FromArgMatches + Default {
    /// Its name.
    const NAME: &'static str;
    /// The same, with what was given and can't be taken.
    fn with(self, wrong: Vec<Wrong>) -> Self;
}

impl Tolerant for AgentArgs {
    const NAME: &'static str = "agent";
    fn with(self, wrong: Vec<Wrong>) -> Self {
        Self { wrong, ..self }
    }
}

impl Tolerant for PreStopArgs {
    const NAME: &'static str = "pre-stop";
    fn with(self, wrong: Vec<Wrong>) -> Self {
        Self { wrong, ..self }
    }
}

/// The flags that say whose row it is, at which manager, and what may be written: no other source stands in for one that is
/// misspelt, either.
const NEVER_GUESSED: [&str; 7] =
    ["hostname", "ip", "cluster-id", "scheduler-addr", "scheduler-config", "manager", "repair"];

/// The subcommand's flags out of a whole command line that the usual parser refused, the program's name first. None where the
/// line calls another, or asks for help.
pub fn called<T: Tolerant>(words: &[OsString], env: Env<'_>) -> Option<T> {
    let at = words.iter().skip(1).position(|word| word == T::NAME)? + 1;
    let (before, after) = (words.get(1..at)?, words.get(at + 1..)?);
    let is_flag = |word: &OsString| word.as_bytes().starts_with(b"-");
    if !before.iter().all(is_flag) || words.iter().any(|word| word == "--help" || word == "-h") {
        return None;
    }
    let command = T::augment_args(Command::new(T::NAME).args_override_self(true));
    let mut wrong = Vec::new();
    let line = read(&command, before.iter().chain(after).cloned().map(trimmed), &mut wrong);
    let mut taken = vec![OsString::from(T::NAME)];
    for arg in command.get_arguments().filter(|arg| !is_claps(arg)) {
        let Some(long) = arg.get_long() else { continue };
        let given: Vec<&Given> =
            line.iter().filter(|(flag, _)| flag == long).map(|(_, given)| given).collect();
        let from_env = if given.is_empty() { from_env(arg, long, env) } else { Vec::new() };
        let all: Vec<&Given> = given.into_iter().chain(&from_env).collect();
        let counts = if is_list(arg) { 0 } else { all.len().saturating_sub(1) };
        for given in &all[counts..] {
            match check(&command, long, given) {
                Ok(flag) => taken.push(flag),
                Err(text) => wrong.push(Wrong { flag: Some(long.to_owned()), text }),
            }
        }
    }
    let args = command.try_get_matches_from(&taken).and_then(|matches| T::from_arg_matches(&matches));
    // Each was taken alone, so all are taken together.
    let args = args.unwrap_or_else(|error| {
        wrong.push(Wrong {
            flag: None,
            text: error.to_string().lines().next().unwrap_or_default().to_owned(),
        });
        T::default()
    });
    Some(args.with(wrong))
}

/// Whether a command line is the startup probe's, `signoff status --started`: it has to do with the run directory alone.
pub fn is_startup_probe(words: &[OsString]) -> bool {
    words.get(1).is_some_and(|word| word == "status")
        && words.iter().any(|word| word == "--started" || word.as_bytes().starts_with(b"--started="))
}

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// The flags of a command line, by their long names; what is none of the command's is wrong.
fn read(
    command: &Command,
    words: impl Iterator<Item = OsString>,
    wrong: &mut Vec<Wrong>,
) -> Vec<(String, Given)> {
    let mut given = Vec::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        let Some(flag) = bytes.strip_prefix(b"--").filter(|flag| !flag.is_empty()) else {
            // It may be the value, and a secret, of a flag that isn't known.
            let name = command.get_name();
            let (what, flag) = if bytes.starts_with(b"-") && bytes != b"--" {
                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(2)]);
                (format!("{shown}: signoff {name} has no such flag"), meant(command, &word.to_string_lossy()))
            } else {
                let what =
                    format!("a word of the command line belongs to no flag: signoff {name} takes flags only");
                (what, looks_like(&word.to_string_lossy()))
            };
            wrong.push(Wrong {
                flag: flag.map(str::to_owned),
                text: format!("{what}; see signoff {name} --help"),
            });
            continue;
        };
        let (name, value) = match flag.iter().position(|byte| *byte == b'=') {
            Some(at) => (&flag[..at], Some(OsString::from_vec(flag[at + 1..].to_vec()))),
            None => (flag, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let known = command.get_arguments().find(|arg| arg.get_long() == Some(&name) && !is_claps(arg));
        let takes_next = known.is_none_or(|arg| !arg.is_require_equals_set());
        let next = |words: &mut std::iter::Peekable<_>| {
            words.next_if(|word: &OsString| takes_next && !word.as_bytes().starts_with(b"-"))
        };
        let value = value.or_else(|| next(&mut words));
        match known {
            Some(_) => given.push((name.clone(), Given { name: format!("--{name}"), value })),
            None => {
                let flag = meant(command, &name).map(str::to_owned);
                wrong.push(Wrong { text: no_such_flag(command, &name, flag.as_deref()), flag });
            }
        }
    }
    given
}

/// What clap takes a flag for that it doesn't know.
fn suggested(command: &Command, name: &str) -> Option<String> {
    let parsed = command.clone().try_get_matches_from([command.get_name(), &format!("--{name}")]);
    match parsed.err()?.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => Some(flag.clone()),
        _ => None,
    }
}

/// Which of the flags that are never guessed a word may mean that begins as a flag does.
fn meant(command: &Command, word: &str) -> Option<&'static str> {
    let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
    let name = name.to_ascii_lowercase().replace('_', "-");
    let among = |flag: &str| NEVER_GUESSED.into_iter().find(|known| *known == flag);
    let alike = |known: &&str| name.len() > 1 && (known.starts_with(&name) || name.starts_with(known));
    among(&name)
        .or_else(|| suggested(command, &name).and_then(|flag| among(flag.trim_start_matches('-'))))
        .or_else(|| NEVER_GUESSED.into_iter().find(alike))
}

/// Of which of them a word may be the value that stands alone.
fn looks_like(word: &str) -> Option<&'static str> {
    if word.parse::<std::net::IpAddr>().is_ok() {
        return Some("ip");
    }
    if word.parse::<u64>().is_ok() {
        return Some("cluster-id");
    }
    word.contains(':').then_some("manager")
}

fn no_such_flag(command: &Command, name: &str, meant: Option<&str>) -> String {
    let suggested = suggested(command, name).or_else(|| meant.map(|flag| format!("--{flag}")));
    let meant = suggested.map(|flag| format!(" (is {flag} meant?)")).unwrap_or_default();
    let called = command.get_name();
    format!("--{}: signoff {called} has no such flag{meant}; see signoff {called} --help", shortened(name))
}

fn from_env(arg: &Arg, long: &str, env: Env<'_>) -> Vec<Given> {
    let name = variable(long);
    let Some(value) = env(&name).filter(|value| !blank(value)) else { return Vec::new() };
    let values = if is_list(arg) { list(&value).into_iter().rev().collect() } else { vec![trimmed(value)] };
    values.into_iter().map(|value| Given { name: name.clone(), value: Some(value) }).collect()
}

/// The flag as one word, if its value can be taken; else what is wrong.
fn check(command: &Command, long: &str, given: &Given) -> Result<OsString, String> {
    let mut flag = OsString::from(format!("--{long}"));
    if let Some(value) = &given.value {
        flag.push("=");
        flag.push(value);
    }
    match command.clone().try_get_matches_from([OsStr::new(command.get_name()), &flag]) {
        Ok(_) => Ok(flag),
        Err(error) => Err(match &given.value {
            Some(value) => format!("{} {}: {}", given.name, shown(value), why(&error)),
            None => format!("{}: it needs a value; see signoff {} --help", given.name, command.get_name()),
        }),
    }
}

/// A value, quoted; without what may be a password, which stands before an `@`.
fn shown(value: &OsStr) -> String {
    let value = value.to_string_lossy();
    match value.rsplit_once('@') {
        Some((_, host)) => format!("{:?}", format!("***@{}", shortened(host))),
        None => format!("{:?}", shortened(&value)),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn why(error: &clap::Error) -> String {
    if let Some(ContextValue::Strings(right)) = error.get(ContextKind::ValidValue)
        && !right.is_empty()
    {
        return format!("use one of {}", right.join(", "));
    }
    match (error.kind(), error.source().map(ToString::to_string)) {
        (ErrorKind::InvalidUtf8, _) => "it is not UTF-8 text".to_owned(),
        (_, Some(why)) if why.contains("boolean") => "use true or false".to_owned(),
        (_, Some(why)) => why,
        (_, None) => "it is empty; give it a value, or leave it out".to_owned(),
    }
}

#[cfg(test)]
mod tests;
