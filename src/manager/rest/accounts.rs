//! Users and roles, at one manager: what root does, and what a user may do there.
//!
//! All of it is asked of the client's first endpoint alone. What a manager tells of roles is what it has in memory: it reads
//! them from the database when it starts, and after that knows only the changes that were made through itself.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, DENIED, Rest, SCHEDULERS, joined, parse};
use crate::{
    manager::{Failure, outcome::Class},
    secret::Secret,
};

const USERS: &str = "/api/v1/users";
const ROLES: &str = "/api/v1/roles";
/// No row has this id: the largest that both databases can count to.
const NO_ROW: i64 = i64::MAX;

/// A user of a manager's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct User {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) email: String,
}

/// Something that a user may do, or may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// List schedulers.
    List,
    /// Delete a scheduler. Tried with an id that no row has.
    Delete,
    /// List users.
    Users,
    /// List roles.
    Roles,
}

impl Rest {
    /// Asks the first endpoint, with the token.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        json: Option<&serde_json::Value>,
    ) -> Result<(String, Answer), Failure> {
        let Some(endpoint) = self.endpoints.first() else { return Err(joined(Vec::new())) };
        self.authorized_at(endpoint, method, path, json).await
    }

    /// What a GET of `path` answers.
    async fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let (at, answer) = self.ask(Method::GET, path, None).await?;
        match answer.class() {
            Class::Confirmed => parse(&at, &answer.body),
            _ => Err(answer.failure(&at)),
        }
    }

    /// Writes. False where it was so already, which another status than 200 says: `already`.
    async fn write(
        &self,
        method: Method,
        path: &str,
        json: Option<&serde_json::Value>,
        already: u16,
    ) -> Result<bool, Failure> {
        let (at, answer) = self.ask(method, path, json).await?;
        match answer.status {
            200 => Ok(true),
            status if status == already => Ok(false),
            _ => Err(answer.failure(&at)),
        }
    }

    /// The permissions of a role, each as object and action; none where there is no such role.
    pub(crate) async fn permissions(&self, role: &str) -> Result<Vec<(String, String)>, Failure> {
        let all: Option<Vec<(String, String, String)>> = self.read(&format!("{ROLES}/{role}")).await?;
        let all = all.unwrap_or_default().into_iter();
        Ok(all.map(|(_, object, action)| (object, action)).collect())
    }

    /// Makes a role with one permission. False where the database has it, and this manager has not read it (v2.2.0; a later one
    /// takes it up, and writes it once more).
    pub(crate) async fn make_role(&self, role: &str, object: &str, action: &str) -> Result<bool, Failure> {
        let asked = json!({ "role": role, "permissions": [{ "object": object, "action": action }] });
        self.write(Method::POST, ROLES, Some(&asked), 409).await
    }

    /// The user of this name, as it is in the database now.
    pub(crate) async fn user_named(&self, name: &str) -> Result<Option<User>, Failure> {
        // Another query each time: a manager keeps an answer for up to 30 s.
        let per_page = fastrand::u32(1_000..10_000_000);
        let found: Vec<User> = self.read(&format!("{USERS}?name={name}&page=1&per_page={per_page}")).await?;
        Ok(found.into_iter().find(|user| user.name.eq_ignore_ascii_case(name)))
    }

    /// Signs a new user up, for which no token is needed; the manager gives it the role `guest`. An error may mean that it was
    /// done all the same.
    pub(crate) async fn sign_up(&self, name: &str, password: &Secret, email: &str) -> Result<User, Failure> {
        let Some(endpoint) = self.endpoints.first() else { return Err(joined(Vec::new())) };
        let at = endpoint.to_string();
        let asked = json!({ "name": name, "password": password.expose(), "email": email });
        let answer =
            self.request(endpoint, Method::POST, &format!("{USERS}/signup"), None, Some(&asked)).await?;
        match answer.class() {
            Class::Confirmed => parse(&at, &answer.body),
            _ => Err(answer.failure(&at)),
        }
    }

    /// The roles of a user.
    pub(crate) async fn roles_of(&self, user: u64) -> Result<Vec<String>, Failure> {
        let roles: Option<Vec<String>> = self.read(&format!("{USERS}/{user}/roles")).await?;
        Ok(roles.unwrap_or_default())
    }

    /// Gives a user a role. False where the user has it: by this manager's memory, or as for [`Rest::make_role`].
    pub(crate) async fn give_role(&self, user: u64, role: &str) -> Result<bool, Failure> {
        self.write(Method::PUT, &format!("{USERS}/{user}/roles/{role}"), None, 409).await
    }

    /// Takes a role from a user: in the database, and in this manager's memory. False where that had it not.
    pub(crate) async fn take_role(&self, user: u64, role: &str) -> Result<bool, Failure> {
        self.write(Method::DELETE, &format!("{USERS}/{user}/roles/{role}"), None, 404).await
    }

    /// Whether the user who signs in here may do that. Changes nothing.
    pub(crate) async fn may(&self, right: Right) -> Result<bool, Failure> {
        let (method, path) = match right {
            Right::List => (Method::GET, format!("{SCHEDULERS}?page=1&per_page=1")),
            Right::Delete => (Method::DELETE, format!("{SCHEDULERS}/{NO_ROW}")),
            Right::Users => (Method::GET, format!("{USERS}?page=1&per_page=1")),
            Right::Roles => (Method::GET, ROLES.to_owned()),
        };
        let (at, answer) = self.ask(method, &path, None).await?;
        match answer.class() {
            Class::Confirmed | Class::Absent => Ok(true),
            _ if answer.status == 401 && answer.message() == DENIED => Ok(false),
            _ => Err(answer.failure(&at)),
        }
    }
}
