//! `signoff status`: what the agent says of itself.

use std::time::Duration;

use super::{
    args::{OutputFormat, StatusArgs},
    print, settings, started, status_view,
};
use crate::{
    agent::socket::{Request, Response, ask},
    exit::Exit,
    identity::settings::DEFAULT_RUN_DIR,
};

/// How long the agent may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks the agent, and shows what it says; with `--started` only exits by it: see [`started`].
pub async fn run(args: StatusArgs) -> Exit {
    let run_dir = args.run_dir.run_dir.unwrap_or_else(|| DEFAULT_RUN_DIR.into());
    if args.started == Some(true) {
        return started::run(&run_dir).await;
    }
    let status = match ask(&run_dir, &Request::Status, LIMIT).await {
        Ok(Response::Status(status)) => *status,
        Ok(_) => {
            return settings::unavailable(
                &"the agent answered something else: use its own version of signoff",
            );
        }
        Err(error) => return settings::unavailable(&error),
    };
    match args.output.output.unwrap_or_default() {
        OutputFormat::Table => print(status_view::render(&status).trim_end()),
        OutputFormat::Json => match serde_json::to_string_pretty(&status) {
            Ok(text) => print(&text),
            Err(error) => {
                tracing::error!(error = %error, "The status can't be written as JSON.");
                return Exit::Internal;
            }
        },
    }
    Exit::Done
}
