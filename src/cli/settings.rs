//! What commands beside an agent work with: flags, then the environment, then the agent's own settings.

use std::{fmt::Display, path::Path};

use crate::{
    exit::Exit,
    identity::{CONFIGURATION, Inputs, Problem, Settings, System, resolve},
};

/// Resolves, off the async thread. What can't be known is in the problems; `Err` has been said already, as wrong usage is.
pub async fn resolved(inputs: Inputs) -> Result<(Settings, Vec<Problem>), Exit> {
    found(inputs).await.and_then(right)
}

/// As [`resolved`], wrong usage among the problems.
pub async fn found(inputs: Inputs) -> Result<(Settings, Vec<Problem>), Exit> {
    let found = tokio::task::spawn_blocking(move || {
        let file = of_the_agent(&inputs.run_dir());
        resolve(&inputs, file.as_ref(), &System::default())
    });
    match found.await {
        Ok(resolved) => Ok((resolved.settings, resolved.problems)),
        Err(error) => {
            tracing::error!(error = %error, "The settings could not be found out.");
            Err(Exit::Internal)
        }
    }
}

/// The settings of the agent that runs, or ran, with this run directory. An agent.json that can't be read is warned of: it must not
/// keep a hook from working with what its flags say. Blocks, for [`files::LIMIT`](crate::files::LIMIT) at most.
pub fn of_the_agent(run_dir: &Path) -> Option<Settings> {
    Settings::read(run_dir).unwrap_or_else(|error| {
        tracing::warn!(reason = %error, "The agent's settings can't be read.");
        None
    })
}

/// What was found, if nothing of that is wrong usage, which is said.
pub fn right((settings, problems): (Settings, Vec<Problem>)) -> Result<(Settings, Vec<Problem>), Exit> {
    match problems.iter().find(|problem| problem.reason == CONFIGURATION) {
        Some(wrong) => Err(super::usage(&wrong.text)),
        None => Ok((settings, problems)),
    }
}

/// Says what is missing of the settings.
pub fn incomplete(problems: &[Problem]) -> Exit {
    let texts: Vec<&str> = problems.iter().map(|problem| problem.text.as_str()).collect();
    super::usage(&format!("it is not known whose row this is: {}", texts.join("; ")))
}

/// Says that nobody answered.
pub fn unavailable(why: &dyn Display) -> Exit {
    super::complain(why);
    Exit::Unavailable
}
