//! `signoff agent`.

use super::args::AgentArgs;
use crate::{
    agent::run,
    exit::Exit,
    identity::{System, resolve},
};

/// Runs the agent until it was told to stop and has done what there was to do.
pub async fn run(args: AgentArgs) -> Exit {
    let (inputs, system) = (args.inputs(), System::default());
    run::run(run::blocking(move || resolve(&inputs, None, &system))).await
}
