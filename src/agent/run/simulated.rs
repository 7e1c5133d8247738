//! An agent as it is shipped, in surroundings that are made up.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};

use super::{Agent, Open, Surroundings};
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
    identity::{Resolved, Settings},
    key::SchedulerKey,
    manager::Manager,
    net::Prober,
};

/// What an agent knows at its start of the key that its scheduler registers.
pub(crate) enum Known {
    /// It is the one that the settings name.
    Certain,
    /// The agent before this one answered for the key of these settings.
    Before(Box<Settings>),
    /// The one that the settings name is the likeliest; these are the others.
    OrOneOf(Vec<SchedulerKey>),
}

/// As [`agent_among`], where there is one manager.
pub(crate) fn agent(
    settings: impl Fn() -> Settings + Send + Sync + 'static,
    known: (Known, impl Fn(&Settings) + Send + Sync + 'static),
    (manager, prober): (Arc<dyn Manager>, Prober),
    disk: (Disk, mpsc::UnboundedReceiver<Report>),
    look: impl Fn() -> Watcher + Send + Sync + 'static,
    deadline: Deadline,
) -> (Commands, impl Future<Output = Exit> + Send) {
    let connect = move |_: &Settings| Arc::clone(&manager);
    agent_among(settings, known, (connect, prober), disk, look, deadline)
}

/// Runs an agent to its end, and answers whom to tell what happens to it. What is resolved is always complete; `connect` makes the
/// client of the manager that settings name.
pub(crate) fn agent_among(
    settings: impl Fn() -> Settings + Send + Sync + 'static,
    (known, remember): (Known, impl Fn(&Settings) + Send + Sync + 'static),
    (connect, prober): (impl Fn(&Settings) -> Arc<dyn Manager> + Send + Sync + 'static, Prober),
    (disk, reports): (Disk, mpsc::UnboundedReceiver<Report>),
    look: impl Fn() -> Watcher + Send + Sync + 'static,
    deadline: Deadline,
) -> (Commands, impl Future<Output = Exit> + Send) {
    let clock = Clock::start();
    let (commands, inbox) = Commands::new(clock);
    let metrics = Metrics::new();
    let mut agent = Agent {
        settings: settings(),
        resolve: Arc::new(move || {
            std::future::ready(Ok(Resolved {
                settings: settings(),
                problems: Vec::new(),
                keys: Vec::new(),
                doubt: None,
            }))
            .boxed()
        }),
        keys: Vec::new(),
        doubt: None,
        degraded: Degraded::new(metrics.clone()),
        metrics,
        prober: Arc::new(prober),
        named: super::others::Named::default(),
        ready: Readiness::default(),
        clock,
        commands: commands.clone(),
        bound: watch::Sender::new(true),
        remembered: watch::Sender::new(None),
    };
    let around = Surroundings {
        connect: Arc::new(move |settings| Ok(connect(settings))),
        disk,
        look: Arc::new(move |_, _| look()),
        remember: Box::new(move |agent| remember(&agent.settings)),
        last_words: LastWords::none(),
        deadline: Arc::new(deadline),
    };
    let exit = async move {
        agent.watch_disk(&around.disk, reports);
        let open = match known {
            Known::Certain => Open::Nothing,
            Known::OrOneOf(others) => Open::Doubt(others),
            Known::Before(before) => match agent.answer_as(*before).await {
                true => Open::OtherThanBefore,
                false => Open::Nothing,
            },
        };
        agent.live(around, inbox, open).await
    };
    (commands, exit)
}
