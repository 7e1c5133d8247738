//! `signoff status`.

use super::args::StatusArgs;
use crate::exit::Exit;

/// Runs the command.
pub async fn run(_args: StatusArgs) -> Exit {
    tracing::error!("This command is not wired yet.");
    Exit::Internal
}
