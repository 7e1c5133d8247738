//! `signoff status`.

use std::time::{Duration, Instant};

use super::{
    args::{OutputFormat, StatusArgs},
    print, settings, status_view, usage,
};
use crate::{
    agent::socket::{AskError, Request, Response, Status, ask},
    exit::Exit,
};

/// How long the agent may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks the agent, and shows what it says.
pub async fn run(args: StatusArgs) -> Exit {
    let inputs = crate::identity::Inputs { run_dir: args.run_dir.run_dir.clone(), ..Default::default() };
    let started = args.started == Some(true);
    let began = Instant::now();
    let status = match ask(&inputs.run_dir(), &Request::Status, LIMIT).await {
        Ok(Response::Status(status)) => *status,
        Ok(other) => return settings::unavailable(&format!("the agent answered something else: {other:?}")),
        // A probe's failure is shown by nobody.
        Err(AskError::NoAgent { .. }) if started => return Exit::Unavailable,
        Err(error) => return settings::unavailable(&error),
    };
    tracing::debug!(milliseconds = began.elapsed().as_millis(), "The agent answered.");
    if started {
        return if status.started { Exit::Done } else { Exit::Unavailable };
    }
    match args.output.output.unwrap_or_default() {
        OutputFormat::Table => print(status_view::render(&status).trim_end()),
        OutputFormat::Json => match json(&status) {
            Ok(text) => print(&text),
            Err(error) => return usage(&error),
        },
    }
    Exit::Done
}

fn json(status: &Status) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(status)
}
