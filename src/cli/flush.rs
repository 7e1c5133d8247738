//! `signoff queue flush`.

use super::args::FlushArgs;
use crate::exit::Exit;

/// Runs the command.
pub async fn run(_args: FlushArgs) -> Exit {
    tracing::error!("This command is not wired yet.");
    Exit::Internal
}
