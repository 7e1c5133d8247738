//! Many agents on one manager, and the queue beside a running agent.

use std::process::Command;

use signoff::{
    manager::State,
    mock::{
        manager::{Config, MockManager},
        scheduler::{MockScheduler, SchedulerConfig},
    },
};

use crate::{
    harness::{INTERVAL, LONG, Process, World, eventually, key, run, signoff},
    hook::{metric, own_address},
};

const AGENTS: usize = 40;

#[tokio::test]
async fn forty_agents_over_an_outage_all_settle_and_exit_0() {
    let mut manager = MockManager::start(Config::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (mut schedulers, mut agents) = (Vec::new(), Vec::new());
    for n in 0..AGENTS {
        let key = key(&format!("scheduler-{n}"));
        let config = SchedulerConfig::new(key.clone(), manager.grpc_addr()).every(INTERVAL);
        let scheduler = MockScheduler::start(config).await.unwrap();
        let mut command = signoff();
        command
            .arg("agent")
            .env("SIGNOFF_HOSTNAME", key.hostname.as_str())
            .env("SIGNOFF_IP", key.ip.to_string())
            .env("SIGNOFF_CLUSTER_ID", "1")
            .env("SIGNOFF_SCHEDULER_ADDR", scheduler.addr().to_string())
            .env("SIGNOFF_MANAGER", manager.grpc_addr().to_string())
            .env("SIGNOFF_SPOOL", dir.path().join(format!("spool-{n}")))
            .env("SIGNOFF_RUN_DIR", dir.path().join(format!("run-{n}")))
            .env("SIGNOFF_LISTEN", "127.0.0.1:0")
            // This is one small machine.
            .env("SIGNOFF_GRACE", "60s");
        schedulers.push(scheduler);
        agents.push(Process::start(command));
    }
    for agent in &agents {
        agent.says("The scheduler serves.").await;
    }
    let states = |wanted: State| {
        let all = manager
            .table()
            .eventually(LONG, move |rows| rows.len() == AGENTS && rows.iter().all(|row| row.state == wanted));
        async move { assert!(all.await, "not all rows became {wanted:?}") }
    };
    states(State::Active).await;
    manager.stop().await;
    for agent in &agents {
        agent.term();
    }
    for scheduler in &mut schedulers {
        scheduler.vanish().await;
    }
    for agent in &agents {
        agent.says("An attempt did not succeed.").await;
    }
    let active = manager.table().rows().unwrap().iter().filter(|row| row.state == State::Active).count();
    assert_eq!(active, AGENTS, "nobody could tell the manager");
    manager.restart().await.unwrap();
    for agent in agents {
        let (code, log) = agent.ended().await;
        assert_eq!(code, 0, "{log}");
    }
    let left: Vec<_> =
        manager.table().rows().unwrap().into_iter().filter(|row| row.state != State::Inactive).collect();
    assert!(left.is_empty(), "{left:?}");
    for n in 0..AGENTS {
        let spool = std::fs::read_dir(dir.path().join(format!("spool-{n}"))).unwrap();
        let asks =
            spool.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().ends_with(".ask.json"));
        assert_eq!(asks.count(), 0, "spool {n}");
    }
}

/// The queue's subcommand with what an agent would have been given, where none runs to ask for it.
fn beside(world: &World, subcommand: &[&str]) -> Command {
    let agent = world.agent();
    let mut command = world.command(subcommand);
    command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[tokio::test]
async fn the_queue_of_a_running_agent_is_listed_and_shown_during_an_outage() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    let (code, out, err) = run(world.command(&["queue", "list"])).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("no pending sign-offs"), "{out}");
    world.manager.stop().await;
    world.scheduler.vanish().await;
    eventually("the ask on disk", async || (world.asks().len() == 1).then_some(())).await;
    let (code, out, err) = run(world.command(&["queue", "list", "-o", "json"])).await;
    assert_eq!(code, 0, "{out}{err}");
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    let ask = &listed["asks"][0];
    assert_eq!((&ask["cause"], &ask["held"]), (&"down".into(), &true.into()), "{out}");
    assert_eq!(ask["key"]["hostname"], world.key.hostname.as_str(), "{out}");
    let (code, out, err) = run(world.command(&["queue", "show", ask["id"].as_str().unwrap()])).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains(world.key.hostname.as_str()) && out.contains("down"), "{out}");
    let (code, out, err) = run(world.command(&["queue", "show", "none"])).await;
    assert_ne!(code, 0, "{out}{err}");
    assert!(err.contains("none"), "{err}");
    world.manager.restart().await.unwrap();
    world.until(State::Inactive).await;
    drop(agent);
}

#[tokio::test]
async fn an_ask_dropped_by_hand_is_not_made_and_its_hook_hears_so() {
    let mut world = World::new().await;
    let address = own_address();
    let mut command = world.agent_with_rest();
    command.env("SIGNOFF_LISTEN", address.to_string());
    let agent = Process::watching(command).await;
    world.manager.stop().await;
    let mut hook = world.command(&["pre-stop"]);
    hook.arg("--deadline=25s");
    let hook = tokio::spawn(run(hook));
    eventually("the ask on disk", async || (world.asks().len() == 1).then_some(())).await;
    let (_, out, _) = run(world.command(&["queue", "list", "-o", "json"])).await;
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    let (code, out, err) =
        run(world.command(&["queue", "drop", listed["asks"][0]["id"].as_str().unwrap()])).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(world.asks().is_empty(), "{out}");
    let (code, out, err) = hook.await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("dropped"), "{out}");
    let settled = "signoff_settled_total{result=\"dropped\",cause=\"pre-stop\"}";
    assert_eq!(metric(address, settled).await, "1");
    let attempts = || async {
        let mut counts = Vec::new();
        for outcome in ["confirmed", "absent", "rejected", "failed", "unknown"] {
            let name = format!("signoff_attempts_total{{api=\"grpc\",outcome=\"{outcome}\"}}");
            counts.push(metric(address, &name).await);
        }
        counts
    };
    let before = attempts().await;
    world.manager.restart().await.unwrap();
    // It sees that the row is active, and leaves it so.
    let reads = agent.log().matches("Read the row.").count();
    agent.says_times("Read the row.", reads + 1).await;
    let (code, out, err) = run(world.command(&["status", "-o", "json"])).await;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, status["pending"].as_array().map(Vec::len)), (0, Some(0)), "{out}{err}");
    assert_eq!(attempts().await, before, "{}", agent.log());
    assert_eq!(world.state(), Some(State::Active), "{}", agent.log());
}

#[tokio::test]
async fn a_flush_beside_a_living_agent_is_held_back() {
    let mut world = World::new().await;
    let _agent = Process::watching(world.agent()).await;
    world.manager.stop().await;
    world.scheduler.vanish().await;
    eventually("the ask on disk", async || (world.asks().len() == 1).then_some(())).await;
    let (code, out, err) = run(beside(&world, &["queue", "flush"])).await;
    assert_eq!(code, 3, "{out}{err}");
    assert!(err.contains("an agent on this spool settles it already"), "{err}");
    assert_eq!(world.asks().len(), 1);
}
