//! The scenes. Each promises something about the manager's table, and can be sabotaged so that the promise fails.

use std::{pin::Pin, time::Duration};

use super::stage::{Failure, Stage};
use crate::manager::State;

const SERVES: &str = "The scheduler serves.";

type Playing<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + 'a>>;

/// One scene.
pub(super) struct Scene {
    /// What `--break` calls it.
    pub name: &'static str,
    /// What the audience reads.
    pub title: &'static str,
    /// Plays it; `true` sabotages it.
    pub play: for<'a> fn(&'a mut Stage, bool) -> Playing<'a>,
}

/// All scenes, in order.
pub(super) const SCENES: [Scene; 7] = [
    Scene {
        name: "stop",
        title: "a normal stop: the scheduler's row is inactive, and its agent leaves",
        play: |stage, broken| Box::pin(async move { in_words(stop(stage, broken).await) }),
    },
    Scene {
        name: "outage",
        title: "a stop while the manager is down: signed off as soon as it is back",
        play: |stage, broken| Box::pin(async move { in_words(outage(stage, broken).await) }),
    },
    Scene {
        name: "replay",
        title: "kill -9 of the agent with a sign-off pending: its successor replays it",
        play: |stage, broken| Box::pin(async move { in_words(replay(stage, broken).await) }),
    },
    Scene {
        name: "restart",
        title: "a liveness restart in place: drained, restarted, and active again",
        play: |stage, broken| Box::pin(async move { in_words(restart(stage, broken).await) }),
    },
    Scene {
        name: "succession",
        title: "a pod lost with its node, back under a new IP: the dead row is signed off",
        play: |stage, broken| Box::pin(async move { in_words(succession(stage, broken).await) }),
    },
    Scene {
        name: "reconcile",
        title: "a dead one that was scaled down: nobody comes back, and reconcile signs it off",
        play: |stage, broken| Box::pin(async move { in_words(reconcile(stage, broken).await) }),
    },
    Scene {
        name: "withdrawal",
        title: "a peer that names its cluster is given the inactive, too: reconcile takes a replaced row out",
        play: |stage, broken| Box::pin(async move { in_words(withdrawal(stage, broken).await) }),
    },
];

fn in_words(outcome: Result<&str, Failure>) -> Result<String, String> {
    outcome.map(str::to_owned).map_err(|failure| failure.to_string())
}

async fn stop(stage: &mut Stage, broken: bool) -> Result<&'static str, Failure> {
    let key = stage.scheduler("scheduler-0").await?;
    stage.agent(&key, SERVES).await?;
    if broken {
        stage.kill_agent().await?;
        stage.view.line("scheduler", "is lost with its node");
        stage.cast()?.vanish().await;
    } else {
        stage.terminate_agent()?;
        stage.view.line("scheduler", "gets SIGTERM");
        stage.cast()?.stop().await;
        stage.agent_exits(0).await?;
    }
    stage.expect(&key, State::Inactive).await?;
    Ok("the table says inactive, the agent's exit code is 0")
}

async fn outage(stage: &mut Stage, broken: bool) -> Result<&'static str, Failure> {
    let key = stage.scheduler("scheduler-1").await?;
    stage.agent(&key, SERVES).await?;
    stage.view.line("manager", "is killed");
    stage.manager.stop().await;
    stage.view.line("scheduler", "gets SIGTERM");
    stage.cast()?.stop().await;
    if broken {
        stage.kill_agent().await?;
    } else {
        stage.terminate_agent()?;
        stage.ask_is_on_disk(&key).await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.expect(&key, State::Active).await?;
    stage.view.line("table", "still says active, though nobody is there: jobs would wait for it");
    stage.view.line("manager", "is back");
    stage.manager.restart().await?;
    stage.expect(&key, State::Inactive).await?;
    stage.agent_exits(0).await?;
    Ok("the table says inactive, the agent's exit code is 0")
}

async fn replay(stage: &mut Stage, broken: bool) -> Result<&'static str, Failure> {
    let key = stage.scheduler("scheduler-2").await?;
    stage.agent(&key, SERVES).await?;
    stage.view.line("manager", "is killed");
    stage.manager.stop().await;
    stage.view.line("scheduler", "gets SIGTERM");
    stage.cast()?.stop().await;
    stage.ask_is_on_disk(&key).await?;
    stage.kill_agent().await?;
    stage.view.line("manager", "is back");
    stage.manager.restart().await?;
    stage.expect(&key, State::Active).await?;
    if !broken {
        stage.agent(&key, "Found sign-offs").await?;
    }
    stage.expect(&key, State::Inactive).await?;
    Ok("the table says inactive")
}

async fn restart(stage: &mut Stage, broken: bool) -> Result<&'static str, Failure> {
    let key = stage.scheduler("scheduler-3").await?;
    stage.agent(&key, SERVES).await?;
    stage.pre_stop(&key).await?;
    stage.expect(&key, State::Inactive).await?;
    stage.view.line("scheduler", "is restarted in place");
    stage.cast()?.stop().await;
    if !broken {
        stage.cast()?.restart().await?;
    }
    stage.comes_to_stay(&key, State::Active, Duration::from_secs(2)).await?;
    Ok("drained, then active again, and it stays so")
}

async fn succession(stage: &mut Stage, broken: bool) -> Result<&'static str, Failure> {
    let lost = stage.scheduler("scheduler-4").await?;
    stage.agent(&lost, SERVES).await?;
    stage.view.line("node", "is lost, with the scheduler, its agent and the agent's spool");
    stage.kill_agent().await?;
    stage.lose_scheduler().await?;
    let successor = stage.scheduler_at("scheduler-4", "127.0.0.2").await?;
    stage.expect(&lost, State::Active).await?;
    stage.view.line("table", "has two active rows for one scheduler: jobs would wait for one of them");
    let repair = if broken { "off" } else { "on" };
    stage.agent_with(&successor, SERVES, &[("SIGNOFF_REPAIR", repair)]).await?;
    stage.expect(&lost, State::Inactive).await?;
    stage.expect(&successor, State::Active).await?;
    Ok("one active row, the successor's")
}

async fn reconcile(stage: &mut Stage, broken: bool) -> Result<&'static str, Failure> {
    let gone = stage.scheduler("scheduler-6").await?;
    stage.agent(&gone, SERVES).await?;
    stage.view.line("node", "is lost, and the scheduler was its StatefulSet's last: nobody comes back");
    stage.kill_agent().await?;
    stage.lose_scheduler().await?;
    let living = stage.scheduler("scheduler-5").await?;
    stage.expect(&gone, State::Active).await?;
    stage.view.line("table", "says active of one that is gone for good: jobs wait for it");
    stage.reconcile(if broken { "false" } else { "true" }).await?;
    stage.expect(&gone, State::Inactive).await?;
    stage.expect(&living, State::Active).await?;
    Ok("the dead one's row is inactive, the living one's is active")
}

async fn withdrawal(stage: &mut Stage, broken: bool) -> Result<&'static str, Failure> {
    let gone = stage.scheduler("scheduler-7").await?;
    stage.agent(&gone, SERVES).await?;
    stage.terminate_agent()?;
    stage.view.line("scheduler", "gets SIGTERM, and its pod comes back under a new IP");
    stage.cast()?.stop().await;
    stage.agent_exits(0).await?;
    stage.expect(&gone, State::Inactive).await?;
    let successor = stage.scheduler_at("scheduler-7", "127.0.0.2").await?;
    let before = stage.given(&gone.hostname).await?;
    stage.reconcile(if broken { "false" } else { "true" }).await?;
    let after = stage.given(&gone.hostname).await?;
    stage.expect(&successor, State::Active).await?;
    match (&before[..], &after[..]) {
        ([_, _], [left]) if *left == successor.ip.get() => Ok("peers are given the living one alone"),
        _ => Err(format!("a peer was given {before:?}, and then {after:?}").into()),
    }
}
