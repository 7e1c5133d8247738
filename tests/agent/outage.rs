//! The scheduler stops, and the manager is away, slow, or lies.

use std::time::Duration;

use signoff::{
    manager::State,
    mock::{
        fault::{Fault, Kind, Scope},
        manager::{Config, MockManager},
        table::By,
    },
};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Process, World, eventually, run};

/// How often signoff or the scheduler wrote `inactive` by a stream's end.
fn ends(world: &World) -> usize {
    world.manager.table().history().iter().filter(|change| change.by == By::StreamEnd).count()
}

/// The row active though its scheduler is gone, as after a manager's crash; and the agent has asked.
async fn stopped_during_an_outage(world: &mut World, agent: &Process) {
    world.manager.stop().await;
    agent.hears_term().await;
    world.scheduler.stop().await;
    agent.says("Signing off.").await;
    assert_eq!(world.state(), Some(State::Active), "the outage left the row as it was");
}

#[tokio::test]
async fn a_manager_down_for_the_whole_grace_leaves_the_ask_and_exit_75_and_the_next_agent_replays_it() {
    let mut world = World::new().await;
    let mut command = world.agent();
    command.arg("--grace=5s");
    let agent = Process::watching(command).await;
    stopped_during_an_outage(&mut world, &agent).await;
    let (code, log) = agent.ended().await;
    assert_eq!(code, 75, "{log}");
    assert_eq!(world.asks().len(), 1, "{:?} {log}", world.asks());
    assert_eq!(world.state(), Some(State::Active));
    world.manager.restart().await.unwrap();
    let _next = Process::start(world.agent());
    world.until(State::Inactive).await;
}

#[tokio::test]
async fn a_manager_that_comes_back_in_the_last_second_is_told_in_time() {
    let mut world = World::new().await;
    let mut command = world.agent();
    command.arg("--grace=5s");
    let agent = Process::watching(command).await;
    stopped_during_an_outage(&mut world, &agent).await;
    // The grace is five seconds, the last of it the reserve.
    tokio::time::sleep(Duration::from_millis(3_200)).await;
    world.manager.restart().await.unwrap();
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn a_manager_that_flaps_is_told_in_the_end() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    stopped_during_an_outage(&mut world, &agent).await;
    for _ in 0..4 {
        world.manager.faults().add(Fault::new(Kind::Unavailable)).unwrap();
        world.manager.restart().await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.manager.stop().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.manager.faults().clear();
    world.manager.restart().await.unwrap();
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn g4_a_wish_to_come_in_an_hour_that_a_proxy_had_binds_no_grace_beside_a_healthy_manager() {
    let mut world = World::new().await;
    let mut command = world.agent();
    command.arg("--grace=8s");
    let agent = Process::watching(command).await;
    let wish = Fault::new(Kind::Proxied).message("maintenance").after(Duration::from_secs(3600));
    world.manager.faults().add(wish).unwrap();
    world.scheduler.vanish().await;
    agent.says("An attempt did not succeed.").await;
    world.manager.faults().clear();
    agent.term();
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn a_row_is_signed_off_once_the_manager_is_back_behind_what_answered_for_it() {
    for fault in [Fault::new(Kind::Proxied), Fault::new(Kind::HangUp).scope(Scope::Grpc)] {
        let mut world = World::new().await;
        let mut command = world.agent();
        command.arg("--grace=5s");
        let agent = Process::watching(command).await;
        // A hang-up is for new connections.
        world.manager.stop().await;
        world.scheduler.vanish().await;
        world.manager.faults().add(fault).unwrap();
        world.manager.restart().await.unwrap();
        agent.says("An attempt did not succeed.").await;
        assert_eq!(world.state(), Some(State::Active));
        world.manager.faults().clear();
        world.until(State::Inactive).await;
    }
}

#[tokio::test]
async fn a_black_hole_ends_with_the_sign_off() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    world.manager.faults().add(Fault::new(Kind::BlackHole)).unwrap();
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.says("Signing off.").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.state(), Some(State::Active));
    world.manager.faults().clear();
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn a_manager_that_answers_after_seven_seconds_is_waited_for() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    let stall = Fault::new(Kind::Stall).after(Duration::from_secs(7)).call("keep-alive");
    world.manager.faults().add(stall).unwrap();
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn a_manager_without_its_redis_is_waited_for() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    world.manager.faults().add(Fault::new(Kind::RedisDown)).unwrap();
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn an_attempt_applied_late_under_a_scheduler_that_is_back_ends_active() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent_with_rest()).await;
    let late = Fault::new(Kind::ApplyLate).after(Duration::from_secs(4)).call("keep-alive").count(1);
    world.manager.faults().add(late).unwrap();
    world.scheduler.kill().await;
    world.until(State::Inactive).await;
    agent.says("Signing off.").await;
    world.scheduler.restart().await.unwrap();
    agent.says_times("The scheduler serves.", 2).await;
    // The late `inactive` lands after the scheduler is back; the agent finds it and gives the row back, for good.
    let before = ends(&world);
    eventually("the late application", async || (ends(&world) > before).then_some(())).await;
    world.until_active_for_good().await;
}

#[tokio::test]
async fn a_manager_that_dies_between_the_two_moments_is_asked_again() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    world.manager.faults().add(Fault::new(Kind::DieBetween).call("keep-alive").count(2)).unwrap();
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn an_answer_cut_after_applying_is_no_acknowledgement() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    world.manager.faults().add(Fault::new(Kind::CutAfterApply).call("keep-alive").count(2)).unwrap();
    agent.term();
    let before = ends(&world);
    world.scheduler.vanish().await;
    let log = agent.ends_signed_off(&world).await;
    assert!(ends(&world) - before >= 3, "two were cut: {log}");
}

#[tokio::test]
async fn each_error_a_manager_can_answer_is_outlived() {
    for fault in [
        Fault::new(Kind::Unavailable).count(2),
        Fault::new(Kind::ResourceExhausted).count(2),
        Fault::new(Kind::Internal).count(2),
        Fault::new(Kind::DatabaseLost).count(2),
        Fault::new(Kind::Garbage).count(2),
        Fault::new(Kind::Http).count(2),
        Fault::new(Kind::Reset).count(1),
        Fault::new(Kind::Slow),
    ] {
        let said = format!("{fault:?}");
        let mut world = World::new().await;
        let agent = Process::watching(world.agent()).await;
        world.manager.faults().add(fault.scope(Scope::Grpc)).unwrap();
        agent.hears_term().await;
        world.scheduler.vanish().await;
        let (code, log) = agent.ended().await;
        assert_eq!((code, world.state()), (0, Some(State::Inactive)), "{said}: {log}");
    }
}

#[tokio::test]
async fn a_manager_that_is_stopping_while_its_streams_live_on_is_left_for_the_next() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    world.manager.stop_gracefully().await;
    world.manager.restart().await.unwrap();
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn of_two_managers_one_dead_and_one_slow_the_slow_one_is_told() {
    let mut world = World::new().await;
    let table = world.manager.table().clone();
    let slow = MockManager::start(Config { database: Some(table), ..Config::default() }).await.unwrap();
    slow.faults().add(Fault::new(Kind::Stall).after(Duration::from_secs(2)).call("keep-alive")).unwrap();
    let mut command = world.agent();
    command.env("SIGNOFF_MANAGER", format!("{},{}", world.manager.grpc_addr(), slow.grpc_addr()));
    let agent = Process::watching(command).await;
    world.manager.stop().await;
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

/// A TCP balancer, as a Service is one: each connection goes to the next manager.
async fn balancer(managers: Vec<std::net::SocketAddr>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for manager in managers.iter().cycle() {
            let Ok((mut client, _)) = listener.accept().await else { return };
            let manager = *manager;
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(manager).await {
                    // Either end may go first.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    addr
}

#[tokio::test]
async fn behind_one_balancer_a_dead_and_a_frozen_manager_do_not_keep_the_third_from_being_told() {
    let mut world = World::new().await;
    let table = world.manager.table().clone();
    let replica = || MockManager::start(Config { database: Some(table.clone()), ..Config::default() });
    let (mut dead, frozen) = (replica().await.unwrap(), replica().await.unwrap());
    let service = balancer(vec![dead.grpc_addr(), frozen.grpc_addr(), world.manager.grpc_addr()]).await;
    let mut command = world.agent();
    command.env("SIGNOFF_MANAGER", service.to_string());
    let agent = Process::watching(command).await;
    dead.stop().await;
    frozen.faults().add(Fault::new(Kind::BlackHole)).unwrap();
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn a_pre_stop_during_an_outage_says_queued_and_how_long_that_lives() {
    let mut world = World::new().await;
    let _agent = Process::watching(world.agent()).await;
    world.manager.stop().await;
    let mut command = world.command(&["pre-stop"]);
    command.arg("--deadline=1s");
    let (code, out, err) = run(command).await;
    assert_eq!(code, 75, "{out}{err}");
    assert!(out.starts_with("queued"), "{out}");
    assert_eq!(out.lines().count(), 1, "{out}");
    assert_eq!(world.asks().len(), 1);
    world.manager.restart().await.unwrap();
    world.until(State::Inactive).await;
}

#[tokio::test]
async fn without_an_agent_an_outage_leaves_the_ask_and_flush_settles_it() {
    let mut world = World::new().await;
    world.manager.stop().await;
    let agent = world.agent();
    let alone = |subcommand: &[&str], world: &World| {
        let mut command = world.command(subcommand);
        command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    };
    let mut command = alone(&["pre-stop"], &world);
    command.arg("--deadline=1s");
    let (code, out, err) = run(command).await;
    assert_eq!(code, 75, "{out}{err}");
    assert_eq!(world.asks().len(), 1);
    world.scheduler.vanish().await;
    world.manager.restart().await.unwrap();
    let (code, out, err) = run(alone(&["queue", "flush"], &world)).await;
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(world.state(), Some(State::Inactive));
    assert!(world.asks().is_empty(), "{out}{err}");
}
