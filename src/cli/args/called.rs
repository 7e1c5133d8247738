//! A subcommand's flags, defined only where that subcommand is called.

use std::ops::Deref;

use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id};

/// `T`, whose flags clap is told of only where it parses them, or where [`Command::build`] asks for all: those of all
/// subcommands are some hundred and fifty, and a hook needs few of them, `--version` none.
#[derive(Debug, Clone)]
pub struct Called<T>(Box<T>);

impl<T> Called<T> {
    /// A subcommand that was called with these values.
    pub fn new(values: T) -> Self {
        Self(Box::new(values))
    }

    /// The flags' values.
    pub fn into_inner(self) -> T {
        *self.0
    }
}

impl<T> Deref for Called<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What the enum says in one line that a subcommand does goes before what the flags' own type says of itself, as it does
/// without [`Called`].
fn named(with: fn(Command) -> Command, command: Command) -> Command {
    let about = command.get_about().cloned().unwrap_or_default();
    with(command).about(about).long_about(None)
}

impl<T: Args> Args for Called<T> {
    fn group_id() -> Option<Id> {
        T::group_id()
    }

    fn augment_args(command: Command) -> Command {
        command.defer(|command| named(T::augment_args, command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(|command| named(T::augment_args_for_update, command))
    }
}

impl<T: FromArgMatches> FromArgMatches for Called<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self(Box::new(T::from_arg_matches(matches)?)))
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        Ok(Self(Box::new(T::from_arg_matches_mut(matches)?)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}
