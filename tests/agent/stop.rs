//! The scheduler stops, and the manager is there.

use signoff::manager::State;

use crate::harness::{Process, World, run};

#[tokio::test]
async fn a_scheduler_that_stops_is_signed_off_and_its_agent_exits_0() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    agent.term();
    world.scheduler.stop().await;
    let (code, log) = agent.ended().await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(world.state(), Some(State::Inactive));
    assert!(world.asks().is_empty());
}

#[tokio::test]
async fn a_scheduler_that_vanishes_is_signed_off_without_any_signal() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    world.scheduler.vanish().await;
    agent.says("Settled a sign-off.").await;
    assert_eq!(world.state(), Some(State::Inactive));
}

#[tokio::test]
async fn a_pre_stop_drains_a_serving_scheduler() {
    let world = World::new().await;
    let _agent = Process::watching(world.agent()).await;
    let (code, out, err) = run(world.command(&["pre-stop"])).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("confirmed"), "{out}");
    assert_eq!(world.state(), Some(State::Inactive));
}

#[tokio::test]
async fn without_an_agent_pre_stop_does_the_whole_job_alone() {
    let world = World::new().await;
    let mut command = world.agent();
    command = {
        let mut alone = world.command(&["pre-stop"]);
        alone.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        alone
    };
    let (code, out, err) = run(command).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("confirmed"), "{out}");
    assert_eq!(world.state(), Some(State::Inactive));
}
