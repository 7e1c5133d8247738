//! Signing in, and keeping the token.
//!
//! A manager can answer a right password with 401 for up to 30 s after another sign-in of the same user. So a refusal is
//! final only once it has lasted longer than that, or came from every one of several endpoints; even then it is tried
//! again now and then, since credentials get fixed. A token is renewed at a quarter of its life, which that fault
//! doesn't touch.

use std::{
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Rest, joined};
use crate::{
    files,
    manager::{
        Failure,
        date::{Date, split},
        endpoints::Endpoint,
    },
    secret::{FileError, Secret},
};

/// A refusal that lasted longer than this is no fault of the manager's memory (30 s).
const FALSE_REFUSAL: Duration = Duration::from_secs(35);
/// Between two sign-ins while a refusal may be false, and once it is final.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// A token's life where the manager's word on it can't be used.
const UNSURE_LIFE: Duration = Duration::from_secs(3600);

/// Who signs in. The password is read when it is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// `--username`.
    pub username: Option<String>,
    /// `--password-file`.
    pub password_file: Option<PathBuf>,
}

impl Credentials {
    /// Whether both parts are given.
    pub fn complete(&self) -> bool {
        self.username.is_some() && self.password_file.is_some()
    }
}

struct Token {
    secret: Secret,
    since: Instant,
    life: Duration,
    renew_at: Instant,
}

/// What is known of the session with the managers.
#[derive(Default)]
pub(super) struct Session {
    token: Option<Token>,
    refusal: Option<Refusal>,
}

struct Refusal {
    since: Instant,
    retry_at: Instant,
    last: bool,
    why: Failure,
    /// The password that was refused: another one is tried at once.
    password: Secret,
}

impl Session {
    /// When the token is to be renewed.
    pub(super) fn renewal_due_in(&self) -> Duration {
        self.token.as_ref().map_or(Duration::ZERO, |t| t.renew_at.saturating_duration_since(Instant::now()))
    }

    /// A refusal that may be the manager's fault, not the password's.
    fn may_be_false(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| !refusal.last)
    }

    /// When a refused sign-in is tried again.
    pub(super) fn retry_in(&self) -> Duration {
        self.refusal.as_ref().map_or(Duration::ZERO, |r| r.retry_at.saturating_duration_since(Instant::now()))
    }

    fn signed_in(&mut self, given: Given) {
        if self.refusal.take().is_some_and(|r| r.last) {
            tracing::info!("The manager accepts the sign-in again.");
        }
        let now = Instant::now();
        let life = given.life();
        self.token =
            Some(Token { secret: Secret::new(given.token), since: now, life, renew_at: now + life / 4 });
    }

    /// Every endpoint that answered said 401.
    fn refused(&mut self, username: &str, password: Secret, by_all_of_several: bool) -> Failure {
        let now = Instant::now();
        let (since, was_last) = match &self.refusal {
            Some(r) if r.password == password => (r.since, r.last),
            _ => (now, false),
        };
        let last = by_all_of_several || now.duration_since(since) > FALSE_REFUSAL;
        let why = Failure::new(if last {
            format!("sign-in as {username:?} is refused: the user name or the password in its file is wrong")
        } else {
            format!(
                "sign-in as {username:?} was refused; a manager does that to a right password for up to 30 s after another sign-in, so it is tried again"
            )
        });
        if last && !was_last {
            tracing::error!(manager.user = username, "The manager refuses the user name or the password.");
        }
        let retry_at = now + if last { RETRY.1 } else { RETRY.0 };
        self.refusal = Some(Refusal { since, retry_at, last, why: why.clone(), password });
        why
    }
}

/// What a sign-in or a renewal gives.
#[derive(Deserialize)]
struct Given {
    token: String,
    expire: Option<String>,
}

impl Given {
    /// Until `expire` by our own clock; where the two clocks plainly disagree, a careful guess.
    fn life(&self) -> Duration {
        let at = self.expire.as_deref().and_then(|at| Date::of(split(at.as_bytes())));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        at.and_then(|at| u64::try_from(at.moment()).ok())
            .map(|at| Duration::from_millis(at).saturating_sub(now))
            .filter(|life| *life > Duration::from_secs(60))
            .unwrap_or(UNSURE_LIFE)
    }
}

impl Rest {
    /// The token to use: signs in, or renews it, where that is due. `stale` is one that a manager has refused.
    pub(super) async fn token(&self, stale: Option<&Secret>) -> Result<Secret, Failure> {
        let mut session = self.session.lock().await;
        if session.token.as_ref().is_some_and(|t| stale == Some(&t.secret)) {
            session.token = None;
        }
        if session.token.as_ref().is_some_and(|t| Instant::now() >= t.renew_at) {
            self.renew(&mut session).await;
        }
        if session.token.is_none() {
            self.sign_in(&mut session).await?;
        }
        match &session.token {
            Some(token) => Ok(token.secret.clone()),
            None => Err(Failure::new("not signed in")),
        }
    }

    /// Signs in where that is due, and waits a refusal out that may be the manager's own fault: for a process that has
    /// only just begun, and can't have signed in early.
    pub async fn sign_in_patiently(&self) -> Result<(), Failure> {
        loop {
            let Err(failure) = self.token(None).await else { return Ok(()) };
            let session = self.session.lock().await;
            let (may_be_false, pause) = (session.may_be_false(), session.retry_in());
            drop(session);
            if !may_be_false {
                return Err(failure);
            }
            tracing::info!(reason = %failure, "Signing in again.");
            tokio::time::sleep(pause.max(Duration::from_millis(100))).await;
        }
    }

    async fn renew(&self, session: &mut Session) {
        let Some(token) = &mut session.token else { return };
        let old = token.secret.clone();
        let ask = |endpoint| {
            let old = &old;
            async move {
                const PATH: &str = "/api/v1/users/refresh_token";
                let answer =
                    self.request(endpoint, Method::POST, PATH, Some(old), None).await.map_err(drop)?;
                match (answer.status, serde_json::from_slice::<Given>(&answer.body)) {
                    (200, Ok(given)) => Ok(Some(given)),
                    (401, _) => Ok(None),
                    _ => Err(()),
                }
            }
            .boxed()
        };
        let now = Instant::now();
        match self.first(ask).await {
            Ok((_, Some(given))) => session.signed_in(given),
            Ok((_, None)) => session.token = None,
            Err(_) if now.duration_since(token.since) >= token.life => session.token = None,
            Err(_) => token.renew_at = now + Duration::from_secs(60),
        }
    }

    /// Whether the last sign-in was refused for good: the user or the password is wrong.
    pub(crate) async fn is_refused(&self) -> bool {
        self.session.lock().await.refusal.as_ref().is_some_and(|refusal| refusal.last)
    }

    /// Who signs in, and with what.
    async fn user(&self) -> Result<(&str, Secret), Failure> {
        if let (Some(username), Some(password)) = (&self.credentials.username, &self.given_password) {
            return Ok((username, password.clone()));
        }
        let (Some(username), Some(path)) = (&self.credentials.username, &self.credentials.password_file)
        else {
            return Err(Failure::new(
                "REST needs a user: give --username and --password-file (a guest may read)",
            ));
        };
        let file = path.clone();
        let read = self.password.read(files::LIMIT, move || Secret::from_file(&file)).await;
        let password = read.unwrap_or_else(|why| Err(FileError::new(path, &why)));
        self.troubles.tell("the password", password.as_ref().err().map(|why| why as &dyn std::fmt::Display));
        Ok((username, password.map_err(|why| Failure::new(why.to_string()))?))
    }

    async fn sign_in(&self, session: &mut Session) -> Result<(), Failure> {
        let (username, password) = self.user().await?;
        if let Some(refusal) = &session.refusal
            && refusal.password == password
            && Instant::now() < refusal.retry_at
        {
            return Err(refusal.why.clone());
        }
        let body = serde_json::json!({ "name": username, "password": password.expose() });
        let ask = |endpoint| self.sign_in_at(endpoint, &body).boxed();
        let errors = match self.first(ask).await {
            Ok((index, given)) => {
                session.signed_in(given);
                self.preferred.store(index, Ordering::Relaxed);
                return Ok(());
            }
            Err(errors) => errors,
        };
        let failures: Vec<Failure> = errors.into_iter().flatten().collect();
        let refusals = self.endpoints.len() - failures.len();
        if refusals == 0 {
            return Err(joined(failures));
        }
        let all = self.endpoints.len() > 1 && failures.is_empty();
        Err(session.refused(username, password, all))
    }

    /// Signs in at one endpoint. An error without a failure is a 401.
    async fn sign_in_at(
        &self,
        endpoint: &Endpoint,
        body: &serde_json::Value,
    ) -> Result<Given, Option<Failure>> {
        let answer = self.request(endpoint, Method::POST, "/api/v1/users/signin", None, Some(body)).await?;
        match answer.status {
            200 => match serde_json::from_slice::<Given>(&answer.body) {
                Ok(given) if !given.token.is_empty() => Ok(given),
                // serde's words could quote the token.
                _ => Err(Some(Failure::new(format!("{endpoint}: sign-in: no token in the answer")))),
            },
            401 => Err(None),
            _ => {
                let failure = answer.failure(&endpoint.to_string());
                Err(Some(Failure { why: format!("sign-in: {}", failure.why), ..failure }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_that_two_clocks_disagree_on_is_guessed() {
        for expire in [None, Some("never"), Some("1999-01-01T00:00:00Z")] {
            let given = Given { token: "t".to_owned(), expire: expire.map(str::to_owned) };
            assert_eq!(given.life(), UNSURE_LIFE, "{expire:?}");
        }
    }
}
