//! Users and the rules of their roles, as the database keeps them. What a manager goes by is its own copy of the rules, taken
//! at its start: [`crate::mock::enforcer`].

use serde::{Deserialize, Serialize};

use super::{Content, Database, Millis, TableError};
use crate::mock::table::Collation;

/// A user, as stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) id: u64,
    pub(crate) created_at: Millis,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(super) password: String,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Account {
    /// Whether this is the user's password.
    pub(crate) fn has_password(&self, given: &str) -> bool {
        self.password == given
    }
}

/// A rule of who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Rule {
    /// A role, or a user's id in a role's place, may do `action` (`read`, or `*` for all) with the objects of a name.
    Permission { role: String, object: String, action: String },
    /// A user has a role.
    Member { user: u64, role: String },
}

/// What is stored of users and roles.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Accounts {
    last_user: u64,
    users: Vec<Account>,
    rules: Vec<Rule>,
}

impl Database {
    fn is_named(&self, account: &Account, name: &str) -> bool {
        match self.collation {
            Collation::MySql => account.name.eq_ignore_ascii_case(name),
            Collation::PostgreSql => account.name == name,
        }
    }

    /// All users, by id.
    pub(crate) fn users(&self) -> Result<Vec<Account>, TableError> {
        self.access(|content, _| (content.accounts.users.clone(), false))
    }

    /// The user of this name.
    pub(crate) fn user(&self, name: &str) -> Result<Option<Account>, TableError> {
        self.access(|content, _| {
            (content.accounts.users.iter().find(|user| self.is_named(user, name)).cloned(), false)
        })
    }

    /// A new user; [`TableError::Duplicate`] where the name or the email is taken.
    pub(crate) fn add_user(&self, name: &str, password: &str, email: &str) -> Result<Account, TableError> {
        let now = self.now();
        self.access(|content, _| {
            let Accounts { last_user, users, .. } = &mut content.accounts;
            let taken = users.iter().find(|user| self.is_named(user, name) || user.email == email);
            if let Some(taken) = taken {
                let key = if self.is_named(taken, name) { "uk_user_name" } else { "uk_user_email" };
                return (Err(TableError::Duplicate(format!("Error 1062: Duplicate entry for {key}"))), false);
            }
            *last_user += 1;
            let user = Account {
                id: *last_user,
                created_at: now,
                name: name.to_owned(),
                email: email.to_owned(),
                password: password.to_owned(),
            };
            users.push(user.clone());
            (Ok(user), true)
        })?
    }

    /// Makes sure that there is such a user with that password, in that role: what a manager is set up with.
    pub(crate) fn set_up_user(&self, name: &str, password: &str, role: &str) -> Result<(), TableError> {
        let now = self.now();
        self.access(|content, _| {
            let Accounts { last_user, users, rules } = &mut content.accounts;
            let id = match users.iter_mut().find(|user| user.name == name) {
                Some(user) => {
                    user.password = password.to_owned();
                    user.id
                }
                None => {
                    *last_user += 1;
                    let email = if *last_user == 1 { String::new() } else { format!("{name}@mock.invalid") };
                    let (name, password) = (name.to_owned(), password.to_owned());
                    users.push(Account { id: *last_user, created_at: now, name, email, password });
                    *last_user
                }
            };
            let member = Rule::Member { user: id, role: role.to_owned() };
            if !rules.contains(&member) {
                rules.push(member);
            }
            ((), true)
        })
    }

    /// All rules, in the order they were added; the same one may be there more than once.
    pub(crate) fn rules(&self) -> Result<Vec<Rule>, TableError> {
        self.access(|content, _| (content.accounts.rules.clone(), false))
    }

    /// Adds rules, whether they are there or not.
    pub(crate) fn add_rules(&self, added: impl IntoIterator<Item = Rule>) -> Result<(), TableError> {
        self.access(|content, _| (content.accounts.rules.extend(added), true))
    }

    /// Removes the rules that are `unwanted`.
    pub(crate) fn remove_rules(&self, unwanted: impl Fn(&Rule) -> bool) -> Result<(), TableError> {
        self.access(|Content { accounts: Accounts { rules, .. }, .. }, _| {
            rules.retain(|rule| !unwanted(rule));
            ((), true)
        })
    }
}
