//! Whose row it is: a key the manager doesn't know, a row that others changed, a scheduler.yaml that isn't there yet; and
//! what the agent says, and never says.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use signoff::{
    manager::State,
    mock::{manager::Config, table::By},
};

use crate::{
    harness::{Process, World, eventually, run},
    hook::{get, metric, own_address},
    secret,
};

/// What an agent with a wrong key must do: say it in time, and settle nothing.
async fn a_wrong_key_is_said_and_settles_nothing(rest: bool, name: &str, value: &str) {
    let mut world = World::new().await;
    let address = own_address();
    let mut command = if rest { world.agent_with_rest() } else { world.agent() };
    command.env(name, value).env("SIGNOFF_LISTEN", address.to_string()).arg("--grace=6s");
    let agent = Process::watching(command).await;
    let began = Instant::now();
    agent.says("The manager has no row with this scheduler's key").await;
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    let listed = format!("{}/127.0.0.1:{} in cluster 1", world.key.hostname, world.scheduler.addr().port());
    let said = format!("\"manager.listed\":\"{listed}\"");
    assert!(agent.log().contains(&said), "once: {said}: {}", agent.log());
    assert_eq!(metric(address, "signoff_identity_known").await, "0.0");
    agent.hears_term().await;
    world.scheduler.vanish().await;
    let (code, log) = agent.ended().await;
    assert_eq!(code, 75, "{log}");
    assert!(log.contains("\"attempt.outcome\":\"absent\""), "the manager was asked: {log}");
    assert_eq!((world.state(), world.asks().len()), (Some(State::Active), 1), "{log}");
}

#[tokio::test]
async fn a_wrong_cluster_id_or_ip_is_said_with_the_keys_listed_and_settles_nothing() {
    tokio::join!(
        a_wrong_key_is_said_and_settles_nothing(true, "SIGNOFF_CLUSTER_ID", "2"),
        a_wrong_key_is_said_and_settles_nothing(true, "SIGNOFF_IP", "127.0.0.77"),
        a_wrong_key_is_said_and_settles_nothing(false, "SIGNOFF_IP", "127.0.0.77"),
    );
}

#[tokio::test]
async fn a_row_that_was_seen_and_then_deleted_is_settled_as_absent() {
    for rest in [true, false] {
        let mut world = World::new().await;
        let address = own_address();
        let mut command = if rest { world.agent_with_rest() } else { world.agent() };
        command.env("SIGNOFF_LISTEN", address.to_string());
        let agent = Process::watching(command).await;
        eventually("the key is known", async || {
            (metric(address, "signoff_identity_known").await == "1.0").then_some(())
        })
        .await;
        let id = world.manager.table().find(&world.key).unwrap().unwrap().id;
        assert!(world.manager.table().delete(id, By::Hand).unwrap());
        agent.hears_term().await;
        world.scheduler.vanish().await;
        let (code, log) = agent.ended().await;
        assert_eq!((code, world.state()), (0, None), "{log}");
        assert!(log.contains("\"signoff.result\":\"absent\""), "{log}");
        assert!(world.asks().is_empty(), "{log}");
    }
}

#[tokio::test]
async fn a_row_that_others_made_inactive_is_given_back_within_75_seconds_over_rest_though_the_token_expired()
{
    let world = World::with(Config { token_life: Duration::from_secs(5), ..Config::default() }).await;
    let agent = Process::watching(world.agent_with_rest()).await;
    eventually("the first reads", async || (agent.log().matches("Read the row.").count() >= 2).then_some(()))
        .await;
    // The next read comes after some 60 s, with a token that has long expired; over gRPC it would be 5 min.
    world.manager.table().set_by_hand(&world.key, State::Inactive).unwrap();
    let began = Instant::now();
    world.until(State::Active).await;
    let took = began.elapsed();
    println!("given back after {took:?}");
    assert!(took < Duration::from_secs(75), "{took:?}: {}", agent.log());
    assert!(!agent.log().contains("Rows can't be read over REST"), "{}", agent.log());
}

#[tokio::test]
async fn repair_report_says_that_a_living_row_is_inactive_and_leaves_it() {
    let world = World::new().await;
    world.manager.table().set_by_hand(&world.key, State::Inactive).unwrap();
    let history = world.manager.table().history().len();
    let mut command = world.agent_with_rest();
    command.arg("--repair=report");
    let agent = Process::watching(command).await;
    agent.says("it is left alone, since repair is set to report").await;
    agent.says_times("Read the row.", 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.manager.table().history().len(), history, "{}", agent.log());
    assert_eq!(world.state(), Some(State::Inactive));
}

#[tokio::test]
async fn repair_off_leaves_a_living_row_that_is_inactive() {
    let world = World::new().await;
    world.manager.table().set_by_hand(&world.key, State::Inactive).unwrap();
    let history = world.manager.table().history().len();
    let address = own_address();
    let mut command = world.agent_with_rest();
    command.arg("--repair=off").env("SIGNOFF_LISTEN", address.to_string());
    let agent = Process::watching(command).await;
    agent.says_times("Read the row.", 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(metric(address, "signoff_row_active").await, "0.0", "it has seen it");
    assert_eq!(world.manager.table().history().len(), history, "{}", agent.log());
    assert_eq!(world.state(), Some(State::Inactive));
}

#[tokio::test]
async fn with_repair_on_that_row_is_given_back_two_intervals_after_the_start() {
    let world = World::new().await;
    world.manager.table().set_by_hand(&world.key, State::Inactive).unwrap();
    let _agent = Process::watching(world.agent_with_rest()).await;
    let began = Instant::now();
    world.until(State::Active).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_scheduler_yaml_that_appears_only_later_is_read_then() {
    let mut world = World::new().await;
    let address = own_address();
    let mut command = world.agent();
    command.env("SIGNOFF_LISTEN", address.to_string());
    std::fs::rename(world.path("scheduler.yaml"), world.path("later.yaml")).unwrap();
    let agent = Process::start(command);
    assert_eq!(get(address, "/livez").await.0, 200, "it runs all the same");
    assert_eq!(get(address, "/readyz").await.0, 503);
    eventually("it says so", async || {
        (metric(address, "signoff_degraded{reason=\"scheduler-config\"}").await == "1").then_some(())
    })
    .await;
    let (code, out, err) = run(world.command(&["status"])).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("scheduler.yaml"), "{out}");
    std::fs::rename(world.path("later.yaml"), world.path("scheduler.yaml")).unwrap();
    agent.says("The scheduler serves.").await;
    assert_eq!(metric(address, "signoff_degraded{reason=\"scheduler-config\"}").await, "0");
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn a_scheduler_yaml_that_cannot_be_read_is_named_and_its_passwords_are_in_no_output() {
    let world = World::new().await;
    let address = own_address();
    let mut command = world.agent();
    command.env("SIGNOFF_LISTEN", address.to_string());
    let path = world.path("scheduler.yaml");
    let good = std::fs::read_to_string(&path).unwrap();
    // First no file at all, then no YAML (and the password right where it breaks), then a wrong value, then all as it should be.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let agent = Process::start(command);
    agent.says("not a regular file").await;
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, good.replace("password: ", "password: \"")).unwrap();
    let no_output_has_it = async || {
        secret::none_in(&agent.log(), "the log");
        // Of these whoever gets them sees to it, as of the log and of agent.json at the end.
        get(address, "/metrics").await;
        for subcommand in [&["status"][..], &["status", "-o", "json"], &["check"], &["queue", "list"]] {
            run(world.command(subcommand)).await;
        }
    };
    agent.says("scheduler.yaml:16:").await;
    no_output_has_it().await;
    let wrong = good.replace("schedulerClusterID: 1", "schedulerClusterID: one");
    std::fs::write(&path, wrong).unwrap();
    agent.says("manager.schedulerClusterID").await;
    no_output_has_it().await;
    std::fs::write(&path, &good).unwrap();
    agent.says("The scheduler serves.").await;
    let (code, out, err) = run(world.command(&["pre-stop"])).await;
    assert_eq!((code, world.state()), (0, Some(State::Inactive)), "{out}{err}");
    no_output_has_it().await;
}

#[tokio::test]
async fn every_line_is_json_and_at_info_no_library_speaks() {
    let mut world = World::new().await;
    let mut command = world.agent_with_rest();
    command.env("SIGNOFF_LOG_LEVEL", "info");
    let agent = Process::watching(command).await;
    world.manager.stop().await;
    agent.says("No manager answers").await;
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.says("An attempt did not succeed.").await;
    world.manager.restart().await.unwrap();
    let (code, log) = agent.ended().await;
    assert_eq!(code, 0, "{log}");
    let mut messages = BTreeSet::new();
    for line in log.lines() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        assert!(["INFO", "WARN", "ERROR"].contains(&json["level"].as_str().unwrap()), "{line}");
        let message = json["message"].as_str().unwrap();
        // Ours are sentences; a field that is not dotted is a library's.
        assert!(message.ends_with('.'), "{line}");
        for field in json.as_object().unwrap().keys() {
            let known = ["timestamp", "level", "message", "reason", "error", "attempt", "peer", "path"];
            assert!(field.contains('.') || known.contains(&field.as_str()), "{field}: {line}");
        }
        messages.insert(message.to_owned());
    }
    for message in ["Asked to stop.", "Signing off.", "Settled a sign-off.", "Stopping."] {
        assert!(messages.contains(message), "{message}: {messages:?}");
    }
    assert!(log.lines().count() < 100, "{log}");
}
