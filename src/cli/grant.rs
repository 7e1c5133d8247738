//! `signoff grant`: makes the least user that `reconcile` can delete rows with, and sees at each manager what it may do there.
//!
//! In this order, so that whatever stops it another run can go on: the password is on disk before its user is made; a user that
//! is there already has to have that password, and to be one of grant's own, before it is given anything; the role, the user,
//! the user's role, and the role `guest`, which each new user gets, taken. All that is written through one manager, the one that
//! knows most of it already; the others read it when they restart. Only what is missing is written.
//!
//! The root's password is sent to the managers given, and shown nowhere. The new user's is in its file, or in the Secret on
//! standard output; then all else that is said goes to standard error.

use std::{io::Write, path::PathBuf};

use futures_util::future::join_all;

use self::{
    check::{Rights, rights},
    manager::{Manager, Seen},
};
use super::{args::GrantArgs, print, settings, usage};
use crate::{
    exit::Exit,
    files,
    manager::{
        Failure,
        rest::{Rest, User},
    },
    secret::Secret,
};

mod check;
mod manager;
mod password;

/// The one permission of the role.
const PERMISSION: (&str, &str) = ("schedulers", "*");
/// The role that a manager gives each new user: it reads everything.
const GUEST: &str = "guest";

/// Why it ends early.
enum Stop {
    /// What was given is wrong.
    Usage(String),
    /// A manager or the disk fails.
    Unavailable(String),
}

impl Stop {
    fn say(self) -> Exit {
        match self {
            Stop::Usage(why) => usage(&why),
            Stop::Unavailable(why) => settings::unavailable(&why),
        }
    }
}

/// Runs it.
pub async fn run(args: GrantArgs) -> Exit {
    let job = match Job::of(&args).await {
        Ok(job) => job,
        Err(stop) => return stop.say(),
    };
    let ended = if job.revoke { job.revoke().await } else { job.grant().await };
    ended.unwrap_or_else(Stop::say)
}

struct Job {
    managers: Vec<Manager>,
    root: String,
    username: String,
    email: String,
    role: String,
    password_file: Option<PathBuf>,
    secret_name: String,
    revoke: bool,
    /// Standard output is the Secret's.
    aside: bool,
}

impl Job {
    async fn of(args: &GrantArgs) -> Result<Self, Stop> {
        let root = args.root_username.clone().unwrap_or_else(|| "root".to_owned());
        let username = args.username.clone().unwrap_or_else(|| "signoff".to_owned());
        if username.eq_ignore_ascii_case(&root) {
            let wrong = "--username is the root's own; name another, which grant is to make";
            return Err(Stop::Usage(wrong.to_owned()));
        }
        let managers = Manager::all(args, &root).await?;
        let revoke = args.revoke.unwrap_or(false);
        Ok(Self {
            managers,
            root,
            email: format!("{}@signoff.invalid", username.to_ascii_lowercase()),
            username,
            role: args.role.clone().unwrap_or_else(|| "signoff".to_owned()),
            password_file: args.password_file.clone(),
            secret_name: args.secret_name.clone().unwrap_or_else(|| "signoff-rest".to_owned()),
            revoke,
            aside: args.password_file.is_none() && !revoke,
        })
    }

    fn say(&self, line: &str) {
        if self.aside {
            // Nobody need read it.
            let _ = writeln!(std::io::stderr(), "{line}");
        } else {
            print(line);
        }
    }

    /// What each manager knows; an error where none was reached, or the user or the role is another's.
    async fn look(&self) -> Result<Vec<Result<Seen, Failure>>, Stop> {
        let seen =
            join_all(self.managers.iter().map(|manager| Seen::at(manager, &self.role, &self.username))).await;
        if seen.iter().all(Result::is_err) {
            let why: Vec<&str> =
                seen.iter().filter_map(|s| s.as_ref().err()).map(|f| f.why.as_str()).collect();
            let why = why.join("; ");
            for manager in &self.managers {
                if manager.root.is_refused().await {
                    return Err(Stop::Usage(format!("--root-username {:?}: {why}", self.root)));
                }
            }
            return Err(Stop::Unavailable(format!("no manager answered: {why}")));
        }
        for (manager, seen) in self.reached(&seen) {
            self.is_ours(manager, seen)?;
        }
        Ok(seen)
    }

    fn reached<'a>(
        &'a self,
        seen: &'a [Result<Seen, Failure>],
    ) -> impl Iterator<Item = (&'a Manager, &'a Seen)> {
        self.managers.iter().zip(seen).filter_map(|(manager, seen)| Some((manager, seen.as_ref().ok()?)))
    }

    /// Neither a person's user nor a role with more rights is made this one.
    fn is_ours(&self, manager: &Manager, seen: &Seen) -> Result<(), Stop> {
        if seen.user.as_ref().is_some_and(|user| user.email != self.email) {
            return Err(Stop::Usage(format!(
                "--username {:?}: at {manager} that user was not made by grant (its email is not {}); name another",
                self.username, self.email
            )));
        }
        // What else it may do is no reason not to take this.
        if self.revoke {
            return Ok(());
        }
        let others = seen.roles.iter().filter(|role| **role != self.role && **role != GUEST);
        let others: Vec<&str> = others.map(String::as_str).collect();
        if !others.is_empty() {
            return Err(Stop::Usage(format!(
                "--username {:?}: at {manager} that user also has the role {}; name another",
                self.username,
                others.join(", ")
            )));
        }
        let more = seen
            .permissions
            .iter()
            .filter(|(object, action)| (object.as_str(), action.as_str()) != PERMISSION);
        let more: Vec<String> = more.map(|(object, action)| format!("{object}, {action}")).collect();
        if !more.is_empty() {
            return Err(Stop::Usage(format!(
                "--role {:?}: at {manager} that role also has ({}); name another",
                self.role,
                more.join("), (")
            )));
        }
        Ok(())
    }

    fn failed(&self, failure: &Failure) -> Stop {
        if failure.why.contains("permission deny") {
            return Stop::Usage(format!(
                "--root-username {:?} has to be a user in the role root: {failure}",
                self.root
            ));
        }
        Stop::Unavailable(failure.to_string())
    }

    async fn grant(&self) -> Result<Exit, Stop> {
        let seen = self.look().await?;
        // Through the manager that knows most: another one would write what is there once more.
        let knows =
            |(_, seen): &(&Manager, &Seen)| (!seen.permissions.is_empty(), seen.roles.contains(&self.role));
        let most = self.reached(&seen).map(|one| knows(&one)).max().unwrap_or_default();
        let Some((through, known)) = self.reached(&seen).find(|one| knows(one) == most) else {
            return Err(Stop::Unavailable("no manager answered".to_owned()));
        };
        let password = self.password(known.user.is_some()).await?;
        let client = through.user(&self.username, &password);
        let mut changed = Vec::new();

        if known.user.is_some() {
            self.sign_in(through, &client).await?;
        }
        let (object, action) = PERMISSION;
        if known.permissions.is_empty()
            && through.root.make_role(&self.role, object, action).await.map_err(|f| self.failed(&f))?
        {
            changed.push(format!("Made the role {} ({object}, {action}).", self.role));
        }
        let (user, is_new) = match &known.user {
            Some(user) => (user.clone(), false),
            None => (self.make_user(through, &client, &password).await?, true),
        };
        if is_new {
            let place = match &self.password_file {
                Some(path) => format!("in {}", path.display()),
                None => "in the Secret, and nowhere else".to_owned(),
            };
            changed.push(format!("Made the user {}; its password is {place}.", self.username));
        }
        if !known.roles.contains(&self.role)
            && through.root.give_role(user.id, &self.role).await.map_err(|f| self.failed(&f))?
        {
            changed.push(format!("Gave it the role {}.", self.role));
        }
        // A new user has it here; one that was made before, wherever a manager still goes by that.
        for (manager, seen) in self.reached(&seen) {
            if seen.roles.iter().any(|role| role == GUEST) || (is_new && std::ptr::eq(manager, through)) {
                manager.root.take_role(user.id, GUEST).await.map_err(|f| self.failed(&f))?;
                changed.push(format!("Took the role {GUEST} from it at {manager}."));
            }
        }
        if changed.is_empty() {
            changed.push("Nothing was changed.".to_owned());
        }
        self.say(&changed.join("\n"));
        if is_new {
            self.say(
                "No manager can delete a user, nor reset its password without the old one: to rotate, grant another --username, \
                 then --revoke this one.",
            );
        }
        Ok(self.check(&seen, through, &client, &password).await)
    }

    /// The user's password: its file's, or one that is drawn, and written to that file first.
    async fn password(&self, is_there: bool) -> Result<Secret, Stop> {
        let drawn = || password::drawn().map_err(|why| Stop::Unavailable(format!("no random bytes: {why}")));
        let Some(path) = self.password_file.clone() else {
            if is_there {
                return Err(Stop::Usage(format!(
                    "--username {:?} is there already, and no manager tells or resets its password: give the file that holds it with \
                     --password-file, or name another",
                    self.username
                )));
            }
            return drawn();
        };
        let named = path.clone();
        let read = files::within(files::LIMIT, move || password::read(&path)).await;
        match read.map_err(|why| Stop::Unavailable(format!("password file {}: {why}", named.display())))? {
            Err(wrong) => Err(Stop::Usage(format!("--password-file: {wrong}"))),
            Ok(Some(password)) => Ok(password),
            Ok(None) if is_there => Err(Stop::Usage(format!(
                "--username {:?} is there already, and --password-file {} is not: no manager tells or resets a password; give the file \
                 that holds it, or name another user",
                self.username,
                named.display()
            ))),
            Ok(None) => {
                let password = drawn()?;
                let (kept, path) = (password.clone(), named.clone());
                let slow = |why| tracing::warn!(reason = %why, "The password is not on disk yet.");
                match files::to_the_end(move || password::write(&path, &kept), slow).await {
                    Ok(Ok(())) => Ok(password),
                    Ok(Err(wrong)) => Err(Stop::Unavailable(format!("--password-file: {wrong}"))),
                    Err(why) => Err(Stop::Unavailable(format!("password file {}: {why}", named.display()))),
                }
            }
        }
    }

    async fn sign_in(&self, manager: &Manager, client: &Rest) -> Result<(), Stop> {
        let Err(failure) = client.sign_in_patiently().await else { return Ok(()) };
        if !client.is_refused().await {
            return Err(Stop::Unavailable(failure.to_string()));
        }
        Err(Stop::Usage(format!(
            "--username {:?} has another password at {manager} than --password-file holds: give its own file, or name another user",
            self.username
        )))
    }

    /// Signs the user up, and prints the Secret as soon as there is a user whose password it holds.
    async fn make_user(&self, through: &Manager, client: &Rest, password: &Secret) -> Result<User, Stop> {
        let user = match through.root.sign_up(&self.username, password, &self.email).await {
            Ok(user) => user,
            // It may have been done, and its answer lost; or somebody else was faster.
            Err(failure) => match through.root.user_named(&self.username).await {
                Ok(Some(user)) if user.email == self.email => {
                    self.sign_in(through, client).await?;
                    user
                }
                _ => return Err(Stop::Unavailable(format!("the user was not made: {failure}"))),
            },
        };
        if self.aside {
            print(self.secret(password).trim_end());
        }
        Ok(user)
    }

    fn secret(&self, password: &Secret) -> String {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {}\ntype: Opaque\nstringData:\n  username: \"{}\"\n  password: \"{}\"\n",
            self.secret_name,
            self.username,
            password.expose()
        )
    }

    /// What the user may do at each manager.
    async fn check(
        &self,
        seen: &[Result<Seen, Failure>],
        through: &Manager,
        signed_in: &Rest,
        password: &Secret,
    ) -> Exit {
        let looks = self.managers.iter().zip(seen).map(async |(manager, seen)| match seen {
            Err(failure) => Err(failure.clone()),
            Ok(_) if std::ptr::eq(manager, through) => rights(signed_in).await,
            Ok(_) => rights(&manager.user(&self.username, password)).await,
        });
        let found: Vec<Result<Rights, Failure>> = join_all(looks).await;
        let mut left = 0;
        for (manager, found) in self.managers.iter().zip(&found) {
            let (is_ready, words) = match found {
                Ok(rights) => rights.verdict(),
                Err(failure) => (false, format!("not checked: {failure}")),
            };
            left += usize::from(!is_ready);
            self.say(&format!("{manager}: {words}"));
        }
        if left == 0 {
            return Exit::Done;
        }
        self.say(&format!(
            "{left} of {} managers to see to; then run this again with this user's --password-file.",
            found.len()
        ));
        Exit::CheckFailed
    }

    async fn revoke(&self) -> Result<Exit, Stop> {
        let seen = self.look().await?;
        if self.reached(&seen).all(|(_, seen)| seen.user.is_none()) {
            return Err(Stop::Usage(format!("--username {:?}: there is no such user", self.username)));
        }
        let mut exit = Exit::Done;
        for (manager, seen) in self.managers.iter().zip(&seen) {
            match self.revoke_at(manager, seen).await {
                Ok(words) => self.say(&format!("{manager}: {words}")),
                Err(failure) => {
                    exit = Exit::CheckFailed;
                    self.say(&format!("{manager}: not revoked: {failure}; restart it, or run this again"));
                }
            }
        }
        self.say(&format!(
            "The user {} stays, without a role: no manager can delete one. The role {} stays, for others who have it.",
            self.username, self.role
        ));
        Ok(exit)
    }

    /// Each manager has a memory of its own; what it doesn't know of may be in the database all the same.
    async fn revoke_at(&self, manager: &Manager, seen: &Result<Seen, Failure>) -> Result<String, Failure> {
        let seen = seen.as_ref().map_err(Clone::clone)?;
        let Some(user) = &seen.user else { return Ok("there is no such user".to_owned()) };
        for role in [self.role.as_str(), GUEST] {
            manager.root.take_role(user.id, role).await?;
        }
        let left = manager.root.roles_of(user.id).await?;
        if left.iter().any(|role| *role == self.role || role == GUEST) {
            return Err(Failure::new(format!("the user still has the role {}", left.join(", "))));
        }
        if !left.is_empty() {
            return Ok(format!(
                "revoked; the user also has the role {}, which grant never gave",
                left.join(", ")
            ));
        }
        Ok(if seen.roles.is_empty() {
            "the user has no role"
        } else {
            "revoked: the user has no role any more"
        }
        .to_owned())
    }
}
