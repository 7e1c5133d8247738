//! `signoff check`: looks at everything a sign-off needs, and says what to do.
//!
//! The agent, if there is one, is asked for what it knows; everything else is looked at from here, as this process's
//! user, at once and within [`LIMIT`], whatever hangs. Nothing is changed: the row is read only, and what is written to
//! the spool's directory to see that it can be is removed again.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt, join_all};
use tokio::time::{Instant, timeout_at};

use super::{
    args::{CheckArgs, OutputFormat},
    print, settings,
};
use crate::{
    agent::{
        check::{WITHOUT_MANAGER, failed, ok, warning},
        socket::{self, AskError, Finding, Request, Response, Verdict, ask},
    },
    exit::Exit,
    identity::{Problem, Settings},
    manager::client::Client,
};

mod files;
mod grace;
mod identity;
mod manager;
mod place;
mod probes;
mod scheduler;
#[cfg(test)]
mod tests;
mod view;

/// How long all of it may take.
const LIMIT: Duration = Duration::from_millis(8500);
/// How long the agent may take to answer.
const AGENT_LIMIT: Duration = Duration::from_secs(3);

/// Checks, prints and exits 1 if a check failed.
pub async fn run(args: CheckArgs) -> Exit {
    let deadline = Instant::now() + LIMIT;
    // Beside an agent what is missing here is one finding of several: the agent says what is wrong of its own.
    let (found, problems) = match settings::found(args.inputs()).await {
        Ok((found, problems)) if socket::is_there(&found.run_dir) => (found, problems),
        Ok(resolved) => match settings::right(resolved) {
            Ok(resolved) => resolved,
            Err(exit) => return exit,
        },
        Err(exit) => return exit,
    };
    let findings = findings(&found, &problems, deadline).await;
    match args.output.output.unwrap_or_default() {
        OutputFormat::Table => print(view::table(&findings).trim_end()),
        OutputFormat::Json => match serde_json::to_string_pretty(&findings) {
            Ok(text) => print(&text),
            Err(error) => {
                tracing::error!(error = %error, "The findings can't be written as JSON.");
                return Exit::Internal;
            }
        },
    }
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Failed);
    if failed { Exit::CheckFailed } else { Exit::Done }
}

/// One check, which may have several findings, and the name under which it is missed.
struct Check<'a> {
    name: String,
    findings: BoxFuture<'a, Vec<Finding>>,
}

impl<'a> Check<'a> {
    fn new(name: impl Into<String>, findings: impl Future<Output = Vec<Finding>> + Send + 'a) -> Self {
        Self { name: name.into(), findings: findings.boxed() }
    }
}

/// All findings, in the order they are shown in.
async fn findings(settings: &Settings, problems: &[Problem], deadline: Instant) -> Vec<Finding> {
    let client = Client::new(settings.manager());
    let mut checks = vec![Check::new("settings", std::future::ready(vec![of_settings(settings, problems)]))];
    match &client {
        _ if settings.without_manager => {
            checks.push(Check::new("manager", std::future::ready(vec![ok("manager", WITHOUT_MANAGER)])));
        }
        Ok(client) => {
            checks.push(Check::new("identity", identity::check(client, settings)));
            checks.extend(manager::endpoints(settings));
            // Without a user nobody signs in: `settings` says so.
            let user = settings.username.is_some() && settings.password_file.is_some();
            if let Some(rest) = client.rest().filter(|_| user) {
                checks.push(Check::new(manager::SIGN_IN, manager::sign_in(rest, settings)));
            }
        }
        Err(why) => {
            let todo = "give --manager HOST:PORT, or --scheduler-config with the scheduler's own file";
            let finding = failed("manager", why.to_string(), todo);
            checks.push(Check::new("manager", std::future::ready(vec![finding])));
        }
    }
    if !settings.without_manager {
        checks.push(Check::new("scheduler", scheduler::check(settings)));
        checks.push(Check::new(probes::NAME, probes::check(settings)));
    }
    let spool = settings.spool.clone();
    checks.push(Check::new("spool", off_thread("spool", move || place::spool(&spool))));
    let run_dir = settings.run_dir.clone();
    checks.push(Check::new("run dir", off_thread("run dir", move || vec![place::run_dir(&run_dir)])));
    checks.push(Check::new("grace", std::future::ready(vec![grace::check(settings)])));
    let named = files::named(settings);
    checks.push(Check::new("files", off_thread("files", move || files::check(&named))));
    if let Some(path) = settings.hook_token_file.clone() {
        checks.push(Check::new("hook token file", files::token(path)));
    }
    checks.push(Check::new("agent", ask_agent(&settings.run_dir)));
    join_all(checks.into_iter().map(|check| in_time(check, deadline))).await.into_iter().flatten().collect()
}

async fn in_time(check: Check<'_>, deadline: Instant) -> Vec<Finding> {
    match timeout_at(deadline, check.findings).await {
        Ok(findings) => findings,
        Err(_) => vec![failed(
            check.name,
            format!("no answer within {} s", LIMIT.as_secs()),
            "find out what hangs: a disk, a name server, or whoever is asked here",
        )],
    }
}

/// A check that may block.
async fn off_thread(name: &str, look: impl FnOnce() -> Vec<Finding> + Send + 'static) -> Vec<Finding> {
    match tokio::task::spawn_blocking(look).await {
        Ok(findings) => findings,
        Err(error) => vec![failed(name, error.to_string(), "this is a bug of signoff: please report it")],
    }
}

fn of_settings(settings: &Settings, problems: &[Problem]) -> Finding {
    const NAME: &str = "settings";
    const TODO: &str = "mend what is named, or give the flag: signoff check --help";
    let said: Vec<&str> = problems.iter().map(|problem| problem.text.as_str()).collect();
    match settings.key() {
        None if settings.without_manager && problems.is_empty() => ok(NAME, "complete, without a manager"),
        None if settings.without_manager => warning(NAME, said.join("; "), TODO),
        Some(key) if settings.is_complete() && problems.is_empty() => {
            ok(NAME, format!("complete, for {key}"))
        }
        Some(_) if settings.is_complete() => warning(NAME, said.join("; "), TODO),
        _ => failed(NAME, format!("not complete: {}", said.join("; ")), TODO),
    }
}

/// What the agent says, if there is one.
async fn ask_agent(run_dir: &Path) -> Vec<Finding> {
    const NAME: &str = "agent";
    let socket = socket::path_in(run_dir);
    let finding = match ask(run_dir, &Request::Check, AGENT_LIMIT).await {
        Ok(Response::Check(findings)) => {
            let mut all = vec![ok(NAME, format!("answers on {}", socket.display()))];
            all.extend(findings);
            return all;
        }
        Ok(_) => failed(
            NAME,
            format!("{}: the agent answered something else", socket.display()),
            "use the same version of signoff for the check and the agent",
        ),
        Err(error @ AskError::NoAgent(_)) => warning(
            NAME,
            error.to_string(),
            "run this in the agent's own container, or give its --run-dir; if there is none there, start it",
        ),
        Err(error @ AskError::Denied(_)) => failed(
            NAME,
            error.to_string(),
            "a hook that runs as this user can't reach the agent: give it the agent's user or group",
        ),
        Err(error) => failed(NAME, error.to_string(), "see the agent's log"),
    };
    vec![finding]
}

/// One TLS for all endpoints of these settings.
fn tls(settings: &Settings) -> Arc<crate::net::Tls> {
    Arc::new(crate::net::Tls::new(crate::net::TlsFiles {
        ca: settings.ca_file.clone(),
        cert: settings.cert_file.clone(),
        key: settings.key_file.clone(),
    }))
}
