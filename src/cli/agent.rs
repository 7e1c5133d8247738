//! `signoff agent`.

use super::args::AgentArgs;
use crate::exit::Exit;

/// Runs the command.
pub async fn run(_args: AgentArgs) -> Exit {
    tracing::error!("This command is not wired yet.");
    Exit::Internal
}
