//! The last moments of an agent.

use crate::harness::{Process, World, eventually, run};

#[tokio::test]
async fn a_hook_that_waits_hears_queued_before_a_second_sigterm_ends_the_agent() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    world.manager.stop().await;
    let mut command = world.command(&["pre-stop"]);
    command.arg("--deadline=60s");
    let hook = tokio::spawn(run(command));
    eventually("the ask on disk", async || (world.asks().len() == 1).then_some(())).await;
    agent.term();
    agent.says("Asked to stop.").await;
    agent.term();
    let (code, log) = agent.ended().await;
    assert_eq!(code, 75, "{log}");
    let (code, out, err) = hook.await.unwrap();
    assert_eq!(code, 75, "{out}{err}");
    assert!(out.starts_with("queued"), "{out}{err}");
    assert!(!err.contains("alone"), "the agent answered, and nobody else: {err}");
    assert!(!world.path("run").join("agent.sock").exists(), "the socket's file is gone");
}

#[tokio::test]
async fn sigterm_before_it_is_known_whose_row_it_is_ends_the_agent_at_once() {
    let world = World::new().await;
    let mut command = world.agent();
    // Neither the hostname nor the manager can be read from it.
    command.env("SIGNOFF_SCHEDULER_CONFIG", world.path("not-there-yet.yaml"));
    let agent = Process::start(command);
    agent.says("Listening for hooks.").await;
    agent.term();
    let (code, log) = agent.ended().await;
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("nothing was signed off"), "{log}");
}
