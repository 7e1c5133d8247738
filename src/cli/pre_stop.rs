//! `signoff pre-stop`.

use super::args::PreStopArgs;
use crate::exit::Exit;

/// Runs the command.
pub async fn run(_args: PreStopArgs) -> Exit {
    tracing::error!("This command is not wired yet.");
    Exit::Internal
}
