//! A scheduler whose configuration names another key by now: restarted in place with it, or not restarted at all.

use std::{path::PathBuf, process::Command};

use signoff::{
    key::SchedulerKey,
    manager::State,
    mock::{
        manager::{Config, MockManager},
        scheduler::{MockScheduler, SchedulerConfig},
    },
};

use crate::harness::{INTERVAL, Process, World, eventually, run};

/// The same scheduler in cluster 2.
fn in_cluster_2(world: &World) -> SchedulerKey {
    SchedulerKey::new(2.try_into().unwrap(), world.key.hostname.clone(), world.key.ip)
}

fn state(world: &World, key: &SchedulerKey) -> Option<State> {
    world.manager.table().state(key).unwrap()
}

/// The file that the agent was started with names cluster 2 from now on.
fn name_cluster_2(world: &World) {
    let path = world.path("scheduler.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = text.replace("schedulerClusterID: 1", "schedulerClusterID: 2");
    assert_ne!(changed, text);
    std::fs::write(path, changed).unwrap();
}

/// The scheduler's container is restarted in place: the same port, the other key.
async fn restart_in_cluster_2(world: &mut World) {
    let listen = world.scheduler.addr();
    world.scheduler.stop().await;
    let config = SchedulerConfig {
        listen,
        ..SchedulerConfig::new(in_cluster_2(world), world.manager.grpc_addr()).every(INTERVAL)
    };
    let again = async || MockScheduler::start(config.clone()).await.ok();
    world.scheduler = eventually("the port again", again).await;
}

#[tokio::test]
async fn g2_a_scheduler_that_comes_back_in_another_cluster_is_answered_for_there() {
    for rest in [true, false] {
        let mut world = World::new().await;
        let agent = Process::watching(if rest { world.agent_with_rest() } else { world.agent() }).await;
        agent.says("Read the row.").await;
        name_cluster_2(&world);
        restart_in_cluster_2(&mut world).await;
        agent.says("The scheduler registers another key now").await;
        agent.says_times("Answering for this scheduler.", 2).await;
        let new = in_cluster_2(&world);
        assert_eq!(
            (world.state(), state(&world, &new)),
            (Some(State::Inactive), Some(State::Active)),
            "{}",
            agent.log()
        );
        let (code, text, _) = run(world.command(&["status", "-o", "json"])).await;
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, &status["key"]["cluster_id"]), (0, &2.into()), "{text}");
        // The end of the pod is the new row's end.
        agent.term();
        world.scheduler.vanish().await;
        let (code, log) = agent.ended().await;
        assert_eq!((code, state(&world, &new)), (0, Some(State::Inactive)), "{log}");
        // Over gRPC alone it can't be told that the old row is inactive: that is watched for a while yet.
        assert!(!rest || world.asks().is_empty(), "{log}");
    }
}

#[tokio::test]
async fn g2_a_file_that_changed_beside_a_scheduler_that_goes_on_changes_nothing_though_the_agent_is_restarted()
 {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent_with_rest()).await;
    agent.says("Read the row.").await;
    eventually("its settings", async || world.path("run").join("agent.json").exists().then_some(())).await;
    let command = world.agent_with_rest();
    name_cluster_2(&world);
    agent.kill().await;
    let next = Process::watching(command).await;
    next.says("The scheduler goes on under its old key").await;
    assert_eq!((world.state(), state(&world, &in_cluster_2(&world))), (Some(State::Active), None));
    // What others do to its row is still undone.
    assert!(world.manager.table().set_by_hand(&world.key, State::Inactive).unwrap());
    world.until_active_for_good().await;
    next.term();
    world.scheduler.vanish().await;
    let (code, log) = next.ended().await;
    let state = world.manager.table().state(&world.key).unwrap();
    assert_eq!((code, state), (0, Some(State::Inactive)), "{log}");
}

/// The end comes while it is open which key the scheduler registers: after it came back, and before the manager can have shown it.
#[tokio::test]
async fn g3_an_end_before_it_is_known_which_key_the_scheduler_registers_signs_both_rows_off() {
    let mut world = World::new().await;
    let command = world.agent();
    let (agent, new) = in_the_question(&mut world, command).await;
    agent.hears_term().await;
    world.scheduler.vanish().await;
    let (_, log) = agent.ended().await;
    assert!(!log.contains("The scheduler registers another key now"), "it was open still: {log}");
    assert_eq!((world.state(), state(&world, &new)), (Some(State::Inactive), Some(State::Inactive)), "{log}");
}

/// It is open which of two keys the scheduler registers, and the manager shows the new one as active.
async fn in_the_question(world: &mut World, command: Command) -> (Process, SchedulerKey) {
    let agent = Process::watching(command).await;
    agent.says("Read the row.").await;
    name_cluster_2(world);
    restart_in_cluster_2(world).await;
    agent.says("The scheduler may register another key").await;
    let new = in_cluster_2(world);
    eventually("its own message", async || (state(world, &new) == Some(State::Active)).then_some(())).await;
    (agent, new)
}

/// What the manager shows in a drain is taken up after it; the scheduler's end may come before.
#[tokio::test]
async fn g3_an_end_in_a_drain_in_which_another_key_was_proven_signs_both_rows_off() {
    let mut world = World::new().await;
    let command = world.agent_with_rest();
    let (agent, new) = in_the_question(&mut world, command).await;
    let (code, said, _) = run(world.command(&["pre-stop"])).await;
    let log = agent.log();
    assert_eq!(
        (code, world.state(), state(&world, &new)),
        (75, Some(State::Inactive), Some(State::Active)),
        "{said}: {log}"
    );
    assert!(said.contains("the end signs the other one off, too"), "{said}");
    agent.says("The scheduler registers another key now").await;
    agent.hears_term().await;
    world.scheduler.vanish().await;
    let (code, log) = agent.ended().await;
    assert_eq!(
        (code, world.state(), state(&world, &new)),
        (0, Some(State::Inactive), Some(State::Inactive)),
        "{log}"
    );
}

/// At the end the manager can't be asked which of the two rows is the scheduler's.
#[tokio::test]
async fn g1_an_end_in_an_outage_before_it_is_known_which_key_the_scheduler_registers_leaves_both_asks_on_disk()
 {
    let mut world = World::new().await;
    let command = world.agent();
    let (agent, new) = in_the_question(&mut world, command).await;
    world.manager.stop().await;
    agent.hears_term().await;
    world.scheduler.vanish().await;
    let (code, log) = agent.ended().await;
    assert_eq!(code, 75, "{log}");
    let asked_for = |cluster: u8| {
        let is_it = |path: &PathBuf| {
            std::fs::read_to_string(path).unwrap().contains(&format!("\"cluster_id\":{cluster}"))
        };
        world.asks().iter().filter(|path| is_it(path)).count()
    };
    assert_eq!((asked_for(1), asked_for(2)), (1, 1), "{log}");
    world.manager.restart().await.unwrap();
    let manager = world.manager.grpc_addr().to_string();
    let (code, said, err) = run(world.command(&["queue", "flush", "--manager", &manager])).await;
    assert_eq!(
        (code, world.state(), state(&world, &new)),
        (0, Some(State::Inactive), Some(State::Inactive)),
        "{said}{err}"
    );
}

/// The file that the agent was started with names another manager from now on.
fn name_manager(world: &World, manager: &MockManager) {
    let path = world.path("scheduler.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = text.replace(&world.manager.grpc_addr().to_string(), &manager.grpc_addr().to_string());
    assert_ne!(changed, text);
    std::fs::write(path, changed).unwrap();
}

#[tokio::test]
async fn g2_a_scheduler_that_comes_back_at_another_manager_is_answered_for_there_though_the_old_one_is_gone()
{
    for gone in [false, true] {
        let mut world = World::new().await;
        let other = MockManager::start(Config::default()).await.unwrap();
        let agent = Process::watching(world.agent()).await;
        agent.says("Read the row.").await;
        name_manager(&world, &other);
        let listen = world.scheduler.addr();
        world.scheduler.stop().await;
        if gone {
            world.manager.stop().await;
        }
        let config = SchedulerConfig {
            listen,
            ..SchedulerConfig::new(world.key.clone(), other.grpc_addr()).every(INTERVAL)
        };
        let again = async || MockScheduler::start(config.clone()).await.ok();
        world.scheduler = eventually("the port again", again).await;
        agent.says("The scheduler registers another key now").await;
        agent.says_times("Answering for this scheduler.", 2).await;
        assert_eq!(other.table().state(&world.key).unwrap(), Some(State::Active), "{}", agent.log());
        agent.term();
        world.scheduler.vanish().await;
        let (code, log) = agent.ended().await;
        assert_eq!((code, other.table().state(&world.key).unwrap()), (0, Some(State::Inactive)), "{log}");
    }
}

#[tokio::test]
async fn g2_a_scheduler_that_goes_on_keeps_its_row_though_its_file_can_not_be_read_any_more() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent_with_rest()).await;
    agent.says("Read the row.").await;
    let listen = world.scheduler.addr();
    world.scheduler.stop().await;
    world.until(State::Inactive).await;
    std::fs::remove_file(world.path("scheduler.yaml")).unwrap();
    let config = SchedulerConfig {
        listen,
        ..SchedulerConfig::new(world.key.clone(), world.manager.grpc_addr()).every(INTERVAL)
    };
    let again = async || MockScheduler::start(config.clone()).await.ok();
    world.scheduler = eventually("the port again", again).await;
    agent.says("the scheduler goes on under its old key").await;
    // What others do to its row is undone.
    assert!(world.manager.table().set_by_hand(&world.key, State::Inactive).unwrap());
    world.until_active_for_good().await;
}
