//! An agent as it is shipped, in surroundings that are made up.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::{Agent, Surroundings};
use crate::{
    agent::{
        clock::Clock,
        command::Commands,
        degraded::Degraded,
        disk::{Disk, Report},
        http::Readiness,
        last_words::LastWords,
        metrics::Metrics,
        scheduler::Watcher,
        shell::Deadline,
    },
    exit::Exit,
    identity::Settings,
    manager::Manager,
};

/// Runs an agent to its end, and answers whom to tell what happens to it. The settings are complete.
pub(crate) fn agent(
    settings: Settings,
    manager: Arc<dyn Manager>,
    (disk, reports): (Disk, mpsc::UnboundedReceiver<Report>),
    watcher: Watcher,
    deadline: Deadline,
) -> (Commands, impl Future<Output = Exit> + Send) {
    let clock = Clock::start();
    let (commands, inbox) = Commands::new(clock);
    let metrics = Metrics::new();
    let agent = Agent {
        settings,
        degraded: Degraded::new(metrics.clone()),
        metrics,
        ready: Readiness::default(),
        clock,
        commands: commands.clone(),
        bound: watch::Sender::new(true),
    };
    let key = agent.settings.key().unwrap();
    let around = Surroundings {
        manager,
        disk,
        reports,
        look: Box::new(|_| Some(watcher)),
        last_words: LastWords::none(),
        deadline,
    };
    (commands, async move { agent.live(key, around, inbox).await })
}
