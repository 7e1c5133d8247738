//! Who may do what, as one life of a manager process knows it.
//!
//! The rules are read from the database when the process starts, and never again. A change through a manager is written to the
//! database and to that manager's memory; another one goes on as it was until it restarts. Whether a change was one at all is
//! told by that memory alone: the removal of a rule that only the database has is a 404. A rule that only the database has is added a
//! second time by a v2.5 manager; the database of v2.2 refuses it, and the manager goes on without.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::table::{Database, Rule, TableError};

/// The API's groups, of which each is an object of permissions: the first word of a path.
const GROUPS: [&str; 5] = ["users", "roles", "schedulers", "scheduler-clusters", "permissions"];

/// What a process knows of the rules.
#[derive(Debug, Default)]
pub(super) struct Enforcer(Mutex<Vec<Rule>>);

impl Enforcer {
    /// Reads the rules, and adds those of the roles `root` and `guest`, where they are missing.
    pub(super) fn load(database: &Database) -> Result<Self, TableError> {
        let mut rules = database.rules()?;
        let built_in = GROUPS.iter().flat_map(|group| {
            [("root", "*"), ("guest", "read")].map(|(role, action)| Rule::Permission {
                role: role.to_owned(),
                object: (*group).to_owned(),
                action: action.to_owned(),
            })
        });
        let missing: Vec<Rule> = built_in.filter(|rule| !rules.contains(rule)).collect();
        if !missing.is_empty() {
            database.add_rules(missing.clone())?;
            rules.extend(missing);
        }
        Ok(Self(Mutex::new(rules)))
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a user may do `action` with the objects of that name.
    pub(super) fn allows(&self, user: u64, object: &str, action: &str) -> bool {
        let (rules, user_name) = (self.rules(), user.to_string());
        let has = |role: &str| {
            role == user_name
                || rules
                    .iter()
                    .any(|rule| matches!(rule, Rule::Member { user: u, role: r } if *u == user && r == role))
        };
        rules.iter().any(|rule| match rule {
            Rule::Permission { role, object: o, action: a } => {
                o == object && (a == action || a == "*") && has(role)
            }
            Rule::Member { .. } => false,
        })
    }

    /// The roles that have a permission, in the order they got one.
    pub(super) fn roles(&self) -> Vec<String> {
        let mut roles: Vec<String> = Vec::new();
        for rule in self.rules().iter() {
            if let Rule::Permission { role, .. } = rule
                && !roles.contains(role)
            {
                roles.push(role.clone());
            }
        }
        roles
    }

    /// A role's permissions, each as role, object and action.
    pub(super) fn permissions(&self, of: &str) -> Vec<[String; 3]> {
        let rules = self.rules();
        let own = rules.iter().filter_map(|rule| match rule {
            Rule::Permission { role, object, action } if role == of => {
                Some([role.clone(), object.clone(), action.clone()])
            }
            _ => None,
        });
        own.collect()
    }

    /// The roles of a user.
    pub(super) fn roles_of(&self, id: u64) -> Vec<String> {
        let rules = self.rules();
        let own = rules.iter().filter_map(|rule| match rule {
            Rule::Member { user, role } if *user == id => Some(role.clone()),
            _ => None,
        });
        own.collect()
    }

    /// Adds a rule; false if this process knows it already. `once`: [`TableError::Duplicate`] if only the database has it.
    pub(super) fn add(&self, database: &Database, rule: Rule, once: bool) -> Result<bool, TableError> {
        let mut rules = self.rules();
        if rules.contains(&rule) {
            return Ok(false);
        }
        if once && database.rules()?.contains(&rule) {
            return Err(TableError::Duplicate("Error 1062: Duplicate entry for idx_casbin_rule".to_owned()));
        }
        database.add_rules([rule.clone()])?;
        rules.push(rule);
        Ok(true)
    }

    /// Removes the rules that are `unwanted`, from the database in any case; false if this process knows none.
    pub(super) fn remove(
        &self,
        database: &Database,
        unwanted: impl Fn(&Rule) -> bool,
    ) -> Result<bool, TableError> {
        database.remove_rules(&unwanted)?;
        let mut rules = self.rules();
        let before = rules.len();
        rules.retain(|rule| !unwanted(rule));
        Ok(rules.len() < before)
    }
}
