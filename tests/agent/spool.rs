//! What an agent finds in its spool: damage, strangers, other pods' sign-offs, thousands of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use signoff::{
    key::SchedulerKey,
    manager::State,
    mock::{
        scheduler::{MockScheduler, SchedulerConfig},
        table::By,
    },
};

use crate::{
    harness::{LONG, Process, World, active_row, eventually, key, run},
    record,
};

/// A record's file, as the releases wrote it that didn't say which manager it is for.
fn write_record(dir: &Path, version: u64, key: &SchedulerKey, id: u64, port: u16) -> PathBuf {
    write_record_of(dir, version, key, id, &format!("{}:{port}", key.ip), &[])
}

/// One that says where its scheduler was, and which manager it is for.
fn write_record_of(
    dir: &Path,
    version: u64,
    key: &SchedulerKey,
    id: u64,
    address: &str,
    managers: &[&str],
) -> PathBuf {
    record::write_ask(dir, version, key, id, address, 1_800_000_000_000, managers).unwrap()
}

/// An active row of another scheduler.
fn row(world: &World, hostname: &str, port: u16) -> SchedulerKey {
    let key = key(hostname);
    active_row(world.manager.table(), &key, port.into());
    key
}

/// Another scheduler that lives, and whose row is active.
async fn scheduler(world: &World, hostname: &str) -> MockScheduler {
    let config = SchedulerConfig::new(key(hostname), world.manager.grpc_addr());
    let scheduler = MockScheduler::start(config.every(Duration::from_secs(1))).await.unwrap();
    let active = Some(State::Active);
    assert!(world.manager.table().eventually_state(scheduler.key(), active, LONG).await);
    scheduler
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

async fn status(world: &World) -> serde_json::Value {
    let mut command = world.command(&["status"]);
    command.args(["-o", "json"]);
    let (code, out, err) = run(command).await;
    assert_eq!(code, 0, "{out}{err}");
    serde_json::from_str(&out).unwrap()
}

#[tokio::test]
async fn thousands_of_good_asks_are_replayed_beside_damaged_newer_and_foreign_files_that_are_all_kept() {
    const ASKS: u64 = 2_000;
    let world = World::new().await;
    let spool = world.path("spool");
    std::fs::create_dir(&spool).unwrap();
    let keys: Vec<SchedulerKey> = (0..ASKS)
        .map(|i| {
            let key = row(&world, &format!("gone-{i}"), 1);
            write_record(&spool, 1, &key, i, 1);
            key
        })
        .collect();
    // What is not to be used is of rows that live on.
    let odd: Vec<SchedulerKey> = (0..4).map(|i| row(&world, &format!("odd-{i}"), 1)).collect();
    let mut kept = Vec::new();
    let mut keep = |path: &Path| kept.push(std::fs::read(path).unwrap());
    let cut = write_record(&spool, 1, &odd[0], 90_000, 1);
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    keep(&cut);
    let flipped = write_record(&spool, 1, &odd[1], 90_001, 1);
    let mut bytes = std::fs::read(&flipped).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&flipped, bytes).unwrap();
    keep(&flipped);
    let misnamed = write_record(&spool, 1, &odd[2], 90_002, 1);
    std::fs::rename(&misnamed, spool.join("backup.ask.json")).unwrap();
    keep(&spool.join("backup.ask.json"));
    let newer = write_record(&spool, 2, &odd[3], 90_003, 1);
    keep(&newer);
    std::fs::write(spool.join("README.txt"), "whose is this?").unwrap();
    std::fs::write(spool.join("00000000.0000000000000000.ask.json.corrupt"), "of long ago").unwrap();

    let began = Instant::now();
    let agent = Process::watching(world.agent()).await;
    for key in &keys {
        assert!(world.manager.table().eventually_state(key, Some(State::Inactive), LONG).await, "{key}");
    }
    eprintln!("{ASKS} sign-offs replayed {:?} after the agent's start", began.elapsed());
    for key in &odd {
        assert_eq!(world.manager.table().state(key).unwrap(), Some(State::Active), "{key}");
    }
    let status = status(&world).await;
    assert_eq!(status["spool"]["corrupt"], 4, "{status}");
    assert_eq!(status["spool"]["newer"], 1, "{status}");
    let after = contents(&spool);
    assert_eq!(after["README.txt"], b"whose is this?");
    assert_eq!(after["00000000.0000000000000000.ask.json.corrupt"], b"of long ago");
    for content in kept {
        assert!(after.values().any(|bytes| *bytes == content), "deleted: {}", content.escape_ascii());
    }
    assert!(newer.exists());
    let log = agent.kill().await;
    assert_eq!(log.matches("A file in the spool is not used.").count(), 4, "{log}");
    assert!(!log.contains("A bug"), "{log}");
}

#[tokio::test]
async fn another_pods_sign_off_is_replayed_only_where_nothing_answers_or_the_address_was_reused() {
    let world = World::new().await;
    let spool = world.path("spool");
    std::fs::create_dir(&spool).unwrap();
    let living = scheduler(&world, "lives").await;
    let (lives, lives_at) = (living.key().clone(), living.addr().port());
    // Its row is made anew: it came after the one whose address it has.
    let mut heiress = scheduler(&world, "heir").await;
    let (heir, reused_at) = (heiress.key().clone(), heiress.addr().port());
    heiress.kill().await;
    let before = world.manager.table().find(&heir).unwrap().unwrap();
    assert!(world.manager.table().delete(before.id, By::Hand).unwrap());
    let replaced = row(&world, "replaced", reused_at);
    heiress.restart().await.unwrap();
    assert!(world.manager.table().eventually_state(&heir, Some(State::Active), LONG).await);
    let silent = row(&world, "silent", 1);
    let ours = format!("grpc://{}", world.manager.grpc_addr());
    let write = |key: &SchedulerKey, id, port| {
        write_record_of(&spool, 1, key, id, &format!("{}:{port}", key.ip), &[&ours])
    };
    let ask = write(&lives, 1, lives_at);
    write(&replaced, 2, reused_at);
    write(&silent, 3, 1);
    let table = world.manager.table();
    let written = table.history().len();
    let began = Instant::now();
    let agent = Process::start(world.agent());
    assert!(table.eventually_state(&silent, Some(State::Inactive), LONG).await);
    let took = began.elapsed();
    eprintln!("replayed {took:?} after the agent's start");
    assert!(took < Duration::from_secs(10), "two seconds on an idle machine: {took:?}");
    assert!(table.eventually_state(&replaced, Some(State::Inactive), LONG).await);
    agent.says("superseded").await;
    eventually("the superseded ask gone", async || (!ask.exists()).then_some(())).await;
    for key in [&lives, &heir] {
        let ended = |change: &signoff::mock::table::Change| {
            change.host_name == key.hostname.as_str() && change.by == By::StreamEnd
        };
        assert!(!table.history()[written..].iter().any(ended), "{key} lives");
        assert_eq!(table.state(key).unwrap(), Some(State::Active));
    }
}

#[tokio::test]
async fn an_ask_of_an_older_release_is_replayed_where_its_row_is_shown_and_left_where_it_is_not() {
    let world = World::new().await;
    let spool = world.path("spool");
    std::fs::create_dir(&spool).unwrap();
    let living = scheduler(&world, "lives").await;
    let (lives, lives_at) = (living.key().clone(), living.addr().port());
    let (silent, nowhere) = (row(&world, "silent", 1), key("nowhere"));
    write_record(&spool, 1, &silent, 1, 1);
    let kept = [write_record(&spool, 1, &lives, 2, lives_at), write_record(&spool, 1, &nowhere, 3, 1)];
    let twin = write_record(&spool, 1, &silent, 4, 2);
    let agent = Process::watching(world.agent()).await;
    assert!(world.manager.table().eventually_state(&silent, Some(State::Inactive), LONG).await);
    let status = status(&world).await;
    assert!(kept.iter().all(|ask| ask.exists()) && twin.exists(), "{}", agent.log());
    assert_eq!(world.manager.table().state(&lives).unwrap(), Some(State::Active));
    // They are shown as pending, and why nobody works on them.
    let pending: Vec<&str> =
        status["pending"].as_array().unwrap().iter().map(|ask| ask["key"].as_str().unwrap()).collect();
    assert!(pending.contains(&"nowhere/127.0.0.1 in cluster 1"), "{status}");
    assert!(status.to_string().contains("doesn't say which manager it is for"), "{status}");
}

#[tokio::test]
async fn an_ask_that_would_have_another_address_looked_at_is_set_aside_and_its_scheduler_stays() {
    let world = World::new().await;
    let spool = world.path("spool");
    std::fs::create_dir(&spool).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lives = row(&world, "lives", listener.local_addr().unwrap().port());
    let silent = row(&world, "silent", 1);
    // Nobody is there.
    let forged = write_record_of(&spool, 1, &lives, 1, "127.0.0.9:1", &[]);
    write_record(&spool, 1, &silent, 2, 1);
    let agent = Process::start(world.agent());
    agent.says("names 127.0.0.9:1 as the place to look first").await;
    let table = world.manager.table();
    assert!(table.eventually_state(&silent, Some(State::Inactive), LONG).await, "the rest is replayed");
    assert_eq!(table.state(&lives).unwrap(), Some(State::Active), "{}", agent.log());
    assert!(!forged.exists() && world.spool_files(".corrupt").len() == 1, "{}", agent.log());
}

/// The open files of a process, and its memory in KiB.
fn usage(agent: &Process) -> (usize, u64) {
    let files = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (files, rss.trim().trim_end_matches(" kB").parse().unwrap())
}

#[tokio::test]
async fn two_hundred_restarts_of_its_scheduler_cost_an_agent_no_file_and_no_memory() {
    let mut world = World::new().await;
    world.scheduler.kill().await;
    let quick =
        SchedulerConfig::new(world.key.clone(), world.manager.grpc_addr()).every(Duration::from_millis(50));
    // The row's port is part of what is registered.
    let quick = SchedulerConfig { listen: world.scheduler.addr(), ..quick };
    world.scheduler = MockScheduler::start(quick).await.unwrap();
    let agent = Process::watching(world.agent_with_rest()).await;
    let mut before = None;
    for cycle in 1..=200 {
        world.scheduler.kill().await;
        agent.says_times("The scheduler is down.", cycle).await;
        world.until(State::Inactive).await;
        world.scheduler.restart().await.unwrap();
        agent.says_times("The scheduler serves.", cycle + 1).await;
        world.until(State::Active).await;
        if cycle == 20 {
            before = Some((usage(&agent), contents(&world.path("spool")).len()));
        }
    }
    let ((files, memory), records) = before.unwrap();
    eventually("as few open files as before", async || (usage(&agent).0 <= files + 4).then_some(())).await;
    let (_, after) = usage(&agent);
    let in_spool = contents(&world.path("spool")).len();
    eprintln!("{files} files, {memory} KiB, {records} records; after: {after} KiB, {in_spool} records");
    assert!(after < memory + 4_096, "{memory} KiB grew to {after} KiB");
    assert!(
        in_spool <= records + 4,
        "{records} grew to {in_spool}: {:?}",
        contents(&world.path("spool")).keys()
    );
}

#[tokio::test]
async fn an_agent_takes_all_the_open_files_that_it_is_allowed() {
    let world = World::new().await;
    let agent = world.agent();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -S -n 256 && exec \"$0\" \"$@\""])
        .arg(agent.get_program())
        .args(agent.get_args());
    command.env_clear().envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let agent = Process::watching(command).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    let of_files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let of_files: Vec<&str> = of_files.split_whitespace().collect();
    assert_eq!(of_files[0], of_files[1], "{limits}");
    agent.kill().await;
}
