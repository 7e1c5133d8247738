//! Starts, restarts, signals: the agent's own life, and its scheduler's.

use std::time::Duration;

use signoff::manager::State;
use tokio::net::TcpListener;

use crate::harness::{Process, World, run};

#[tokio::test]
async fn an_agent_stopped_alone_signs_off_at_the_reserve_and_the_next_gives_the_row_back() {
    let world = World::new().await;
    let mut command = world.agent();
    command.arg("--grace=5s");
    let agent = Process::watching(command).await;
    agent.term();
    agent.ends_signed_off(&world).await;
    assert!(!world.spool_files(".mark.json").is_empty());
    let _next = Process::watching(world.agent()).await;
    world.until(State::Active).await;
}

#[tokio::test]
async fn a_second_sigterm_exits_at_once_with_the_ask_kept() {
    let world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    agent.term();
    agent.says("Signing off.").await;
    agent.term();
    let (code, log) = agent.ended().await;
    assert_eq!(code, 75, "{log}");
    assert_eq!(world.asks().len(), 1);
    assert_eq!(world.state(), Some(State::Active), "the scheduler lives");
}

#[tokio::test]
async fn a_sigterm_while_starting_ends_it_within_the_grace() {
    let world = World::new().await;
    for delay in [0, 5, 20, 60, 150] {
        let mut command = world.agent();
        command.arg("--grace=5s");
        let agent = Process::start(command);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        agent.term();
        // Before its handlers are there the signal's own default ends it, and nothing was asked.
        let (code, log) = agent.ended().await;
        assert!(matches!(code, -1 | 0 | 75), "after {delay} ms: {code} {log}");
    }
}

#[tokio::test]
async fn an_agent_killed_with_an_ask_pending_is_succeeded_by_one_that_replays_it() {
    let mut world = World::new().await;
    world.killed_with_an_ask_pending().await;
    assert_eq!(world.state(), Some(State::Active));
    let _next = Process::start(world.agent());
    world.until(State::Inactive).await;
}

#[tokio::test]
async fn an_inherited_ask_of_a_scheduler_that_serves_is_superseded() {
    let mut world = World::new().await;
    world.killed_with_an_ask_pending().await;
    world.scheduler.restart().await.unwrap();
    let before = world.manager.table().history().len();
    let next = Process::watching(world.agent()).await;
    next.says("superseded").await;
    assert!(world.asks().is_empty());
    world.until(State::Active).await;
    let wrong = world
        .manager
        .table()
        .history()
        .into_iter()
        .skip(before)
        .any(|change| change.to == Some(State::Inactive));
    assert!(!wrong, "it was never signed off");
}

#[tokio::test]
async fn two_pre_stops_at_once_and_one_after_sigterm_all_hear_the_same() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    let (one, two) = tokio::join!(run(world.command(&["pre-stop"])), run(world.command(&["pre-stop"])));
    assert!(one.1.starts_with("confirmed") && two.1.starts_with("confirmed"), "{one:?} {two:?}");
    agent.term();
    let after = run(world.command(&["pre-stop"])).await;
    assert!(after.1.starts_with("confirmed"), "{after:?}");
    world.scheduler.stop().await;
    agent.ends_signed_off(&world).await;
    assert!(world.asks().is_empty());
}

#[tokio::test]
async fn a_pre_stop_that_no_stop_follows_is_undone() {
    let world = World::new().await;
    let mut command = world.agent();
    command.arg("--grace=5s");
    let agent = Process::watching(command).await;
    let (_, out, _) = run(world.command(&["pre-stop"])).await;
    assert!(out.starts_with("confirmed"), "{out}");
    assert_eq!(world.state(), Some(State::Inactive));
    agent.says("The drain is over").await;
    world.until(State::Active).await;
}

#[tokio::test]
async fn a_liveness_restart_in_place_is_drained_and_active_again() {
    let mut world = World::new().await;
    let _agent = Process::watching(world.agent()).await;
    let (_, out, _) = run(world.command(&["pre-stop"])).await;
    assert!(out.starts_with("confirmed"), "{out}");
    world.scheduler.stop().await;
    assert_eq!(world.state(), Some(State::Inactive));
    world.scheduler.restart().await.unwrap();
    world.until(State::Active).await;
}

#[tokio::test]
async fn a_scheduler_that_never_comes_up_is_left_alone() {
    let mut world = World::new().await;
    world.scheduler.vanish().await;
    let agent = Process::start(world.agent());
    agent.says("its row is left as it is").await;
    let history = world.manager.table().history().len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.manager.table().history().len(), history, "its row was left as it is");
}

#[tokio::test]
async fn a_scheduler_back_while_an_attempt_hangs_is_active_in_the_end() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent_with_rest()).await;
    let stall = signoff::mock::fault::Fault::new(signoff::mock::fault::Kind::Stall)
        .after(Duration::from_secs(5))
        .call("keep-alive")
        .count(1);
    world.manager.faults().add(stall).unwrap();
    world.scheduler.kill().await;
    agent.says("Signing off.").await;
    world.scheduler.restart().await.unwrap();
    agent.says_times("The scheduler serves.", 2).await;
    agent.says_times("The manager answered.", 1).await;
    world.until_active_for_good().await;
}

#[tokio::test]
async fn a_wrong_scheduler_address_is_never_taken_for_down() {
    let world = World::new().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut command = world.agent();
    command.env("SIGNOFF_SCHEDULER_ADDR", free.to_string());
    let agent = Process::start(command);
    agent.says("its row is left as it is").await;
    let history = world.manager.table().history().len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.manager.table().history().len(), history);
    assert_eq!(world.state(), Some(State::Active));
}

#[tokio::test]
async fn a_living_scheduler_that_somebody_signed_off_gets_its_row_back() {
    let world = World::new().await;
    let _agent = Process::watching(world.agent_with_rest()).await;
    // Not by hand in the table: as another process does it, over gRPC.
    let mut other = world.agent();
    other = {
        let mut command = world.command(&["pre-stop"]);
        command.envs(other.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
            .env("SIGNOFF_RUN_DIR", world.path("other-run"))
            .env("SIGNOFF_SPOOL", world.path("other-spool"));
        command
    };
    let (code, out, err) = run(other).await;
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(world.state(), Some(State::Inactive));
    world.until(State::Active).await;
}

#[tokio::test]
async fn a_port_that_is_taken_degrades_the_agent_and_nothing_else() {
    let mut world = World::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut command = world.agent();
    command.env("SIGNOFF_LISTEN", taken.local_addr().unwrap().to_string());
    let agent = Process::watching(command).await;
    agent.says(&taken.local_addr().unwrap().to_string()).await;
    agent.term();
    world.scheduler.stop().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn two_agents_on_one_spool_leave_each_others_asks_alone() {
    let mut one = World::new().await;
    let two = World::new().await;
    let shared = one.path("shared-spool");
    let grace = "--grace=5s";
    let mut command = one.agent();
    command.arg(grace).env("SIGNOFF_SPOOL", &shared);
    let first = Process::watching(command).await;
    let mut command = two.agent();
    command
        .arg(grace)
        .env("SIGNOFF_SPOOL", &shared)
        .env("SIGNOFF_MANAGER", one.manager.grpc_addr().to_string())
        .env("SIGNOFF_HOSTNAME", "scheduler-1");
    let second = Process::watching(command).await;
    one.manager.stop().await;
    first.hears_term().await;
    one.scheduler.stop().await;
    let (code, log) = first.ended().await;
    assert_eq!(code, 75, "{log}");
    assert_eq!(
        std::fs::read_dir(&shared)
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".ask.json") })
            .count(),
        1
    );
    // The living one takes the dead one's ask over once its holder is gone.
    one.manager.restart().await.unwrap();
    one.until(State::Inactive).await;
    drop(second);
}
