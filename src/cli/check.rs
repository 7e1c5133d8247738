//! `signoff check`.

use super::args::CheckArgs;
use crate::exit::Exit;

/// Runs the command.
pub async fn run(_args: CheckArgs) -> Exit {
    tracing::error!("This command is not wired yet.");
    Exit::Internal
}
