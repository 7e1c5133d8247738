//! `signoff grant`.

#![allow(missing_docs, reason = "a flag's documentation is its help, which is tested")]

use std::path::PathBuf;

use clap::{Args, builder::NonEmptyStringValueParser};

use super::{LogArgs, TlsArgs, groups::utf8_path};
use crate::identity::address::manager_endpoint;

/// Below the help.
const AFTER: &str = "The role may do all with schedulers, and nothing else. A user in it can do what reconcile needs to withdraw rows; an\n\
    agent needs no more than a guest. Without --password-file the password is drawn, and printed as a Secret, once: nobody\n\
    can read it out of a manager again. Run again with the same --password-file it changes nothing, and checks.\n\
    A manager reads its roles at its start only: the others know a new one when they were restarted. So name each manager\n\
    by its own address (a Service answers for any of them); those to restart are named.\n\
    No manager can delete a user, nor reset a password without the old one. To rotate: grant another --username, bring\n\
    its Secret out, then --revoke the old one. Its user stays, without a role.\n\
    0: every manager given is ready. 1: some are to be restarted, or were not reached. 64: something is wrong with what\n\
    was given; it says what. 69: no manager answered.";

/// `signoff grant`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = AFTER)]
pub struct GrantArgs {
    /// A manager's REST endpoint, http(s)://host:port, repeatable: each manager there is, by its own address
    #[arg(long, value_name = "ENDPOINT", value_parser = manager_endpoint, help_heading = "Manager")]
    pub manager: Vec<String>,
    /// A user of the manager's in the role root [default: root]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), help_heading = "Manager")]
    pub root_username: Option<String>,
    /// The file with that user's password
    #[arg(long, value_name = "FILE", value_parser = utf8_path(), help_heading = "Manager")]
    pub root_password_file: Option<PathBuf>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// The user to make, or to revoke: 3 to 10 letters, digits, - and _ [default: signoff]
    #[arg(long, value_name = "NAME", value_parser = username, help_heading = "Grant")]
    pub username: Option<String>,
    /// Write that user's password there instead of printing a Secret; a file that is there is read, and never overwritten
    #[arg(long, value_name = "FILE", value_parser = utf8_path(), help_heading = "Grant")]
    pub password_file: Option<PathBuf>,
    /// The role to make, if it isn't there [default: signoff]
    #[arg(long, value_name = "NAME", value_parser = role, help_heading = "Grant")]
    pub role: Option<String>,
    /// What the printed Secret is called [default: signoff-rest]
    #[arg(long, value_name = "NAME", value_parser = secret_name, help_heading = "Grant")]
    pub secret_name: Option<String>,
    /// Take the role from the user instead, at each manager given
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), hide_possible_values = true, help_heading = "Grant")]
    pub revoke: Option<bool>,
    #[command(flatten)]
    pub log: LogArgs,
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// The name is also the first half of the email that a manager asks for.
fn username(text: &str) -> Result<String, String> {
    if !(3..=10).contains(&text.len()) || !is_plain(text) {
        return Err("a manager's user is 3 to 10 characters; use letters, digits, - and _".to_owned());
    }
    Ok(text.to_owned())
}

/// A role that begins with a digit could be a user's id, and its rights then that user's.
fn role(text: &str) -> Result<String, String> {
    if ["root", "guest"].contains(&text) {
        return Err("that role is the manager's own; name one that is yours, such as signoff".to_owned());
    }
    if text.len() > 100 || !text.starts_with(|c: char| c.is_ascii_alphabetic()) || !is_plain(text) {
        return Err("use a letter, and then at most 99 letters, digits, - and _".to_owned());
    }
    Ok(text.to_owned())
}

fn secret_name(text: &str) -> Result<String, String> {
    let is_right = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if text.len() > 253 || !text.split('.').all(is_right) {
        return Err("it is not the name of a Secret; use lower case letters, digits, - and .".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_manager_or_kubernetes_would_refuse_is_refused_before_anything_is_done() {
        for wrong in ["", "ab", "abcdefghijk", "a b", "a/b", "é12", "a@b"] {
            assert!(username(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "root", "guest", "7", "-a", "a/b", &"a".repeat(101)] {
            assert!(role(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "-a", "a-", "A", "a..b", "a_b", &"a".repeat(254)] {
            assert!(secret_name(wrong).is_err(), "{wrong}");
        }
        for (right, of) in
            [("sig", username as fn(&str) -> _), ("s_1-x", role), ("signoff-rest.v2", secret_name)]
        {
            assert_eq!(of(right).unwrap(), right);
        }
    }
}
