//! `signoff queue` beside agents, and beside another Dragonfly's.

use std::{path::Path, process::Command};

use signoff::{
    manager::State,
    mock::manager::{Config, MockManager},
};

use crate::{
    clock::FastClock,
    harness::{LONG, Process, World, active_row, eventually, key, run, signoff},
    record,
    strace::can_inject,
};

/// `signoff queue ...` on this spool, without an agent.
fn queue(spool: &Path, args: &[&str]) -> Command {
    let mut command = signoff();
    command.arg("queue").args(args).env("SIGNOFF_SPOOL", spool);
    command
}

fn flush(spool: &Path, manager: &MockManager) -> Command {
    queue(spool, &["flush", "--manager", &manager.grpc_addr().to_string(), "--run-dir", "/nowhere"])
}

#[tokio::test]
async fn g1_an_ask_outlives_another_dragonfly_s_agent_and_flush_and_its_own_manager_settles_it() {
    let mut world = World::new().await;
    world.killed_with_an_ask_pending().await;
    world.manager.stop().await;
    // The other Dragonfly: another manager, and an agent on the same spool, which looks there before and while the first is away.
    let other = World::new().await;
    let mut neighbour = other.agent();
    neighbour.env("SIGNOFF_SPOOL", world.path("spool"));
    let neighbour = Process::watching(neighbour).await;
    eventually("the neighbour counts it", async || {
        let (_, out, _) = run(status_of(&other)).await;
        let status: serde_json::Value = serde_json::from_str(&out).ok()?;
        (status["spool"]["for_another"] == 1).then_some(())
    })
    .await;
    let (code, out, err) = run(flush(&world.path("spool"), &other.manager)).await;
    assert_eq!(code, 75, "{out}{err}");
    let endpoint = format!("grpc://{}", world.manager.grpc_addr());
    assert!(
        out.contains("left: ") && out.contains(&format!("it is for another manager, {endpoint}")),
        "{out}"
    );
    assert!(out.contains("0 settled, 1 left queued"), "{out}");
    let (code, out, _) = run(queue(&world.path("spool"), &["list", "-o", "json"])).await;
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &listed["asks"][0]["managers"][0], &listed["asks"][0]["held"]),
        (0, &endpoint.into(), &false.into())
    );
    let mut list = other.command(&["queue", "list"]);
    list.env("SIGNOFF_SPOOL", world.path("spool"));
    let (_, out, _) = run(list).await;
    assert!(out.contains("for another manager: grpc://"), "{out}");

    world.manager.restart().await.unwrap();
    let mut own = flush(&world.path("spool"), &world.manager);
    // A minute and a half of waiting, in seconds.
    own.envs(FastClock::of(20).iter().flat_map(FastClock::environment));
    let (code, out, err) = run(own).await;
    assert_eq!(code, 0, "{out}{err}");
    world.until(State::Inactive).await;
    assert_eq!(other.state(), Some(State::Active), "{}", neighbour.log());
    assert!(world.asks().is_empty());
}

fn status_of(world: &World) -> Command {
    let mut command = world.command(&["status"]);
    command.args(["-o", "json"]);
    command
}

#[tokio::test]
async fn g1_an_ask_that_is_replaced_by_its_copy_stays_pending_and_is_settled() {
    let mut world = World::new().await;
    let agent = Process::watching(world.agent()).await;
    world.manager.stop().await;
    world.scheduler.stop().await;
    let ask = eventually("an ask", async || world.asks().pop()).await;
    // The whole volume, as it is restored; and then that file alone.
    for of in [world.path("spool"), ask.clone()] {
        let files = if of.is_dir() {
            std::fs::read_dir(&of).unwrap().map(|entry| entry.unwrap().path()).collect()
        } else {
            vec![of]
        };
        for file in files {
            let copy = file.with_extension("copy");
            std::fs::copy(&file, &copy).unwrap();
            std::fs::rename(copy, file).unwrap();
        }
        // The agent has looked: it holds the copy.
        eventually("the copy held", async || {
            let listing = signoff::spool::scan(&world.path("spool")).unwrap();
            listing.asks.first()?.locked.then_some(())
        })
        .await;
    }
    assert!(!agent.log().contains("dropped"), "{}", agent.log());
    world.manager.restart().await.unwrap();
    world.until(State::Inactive).await;
    eventually("nothing pending", async || world.asks().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_flush_of_a_directory_that_is_not_there_is_wrong_usage_and_makes_none() {
    let manager = MockManager::start(Config::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (spool, why) in [(dir.path().join("a/b"), "no such directory"), (file, "is no directory")] {
        let (code, out, err) = run(flush(&spool, &manager)).await;
        assert_eq!((code, out.as_str()), (64, ""), "{err}");
        assert!(err.contains(why) && err.contains(spool.to_str().unwrap()), "{err}");
    }
    assert!(!dir.path().join("a").exists());
}

#[tokio::test]
async fn several_are_dropped_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    for id in [1, 2] {
        record::write_ask(dir.path(), 1, &key("gone"), id, "127.0.0.1:1", 1_800_000_000_000, &[]).unwrap();
    }
    let [one, two, none] = [1, 2, 3].map(|id| format!("{id:016x}"));
    let (code, out, err) = run(queue(dir.path(), &["drop", &one, &none, &two])).await;
    assert_eq!((code, out.as_str()), (64, ""));
    assert!(err.contains(&none) && !err.contains(&one) && err.contains("nothing was dropped"), "{err}");
    assert_eq!(signoff::spool::scan(dir.path()).unwrap().asks.len(), 2);
    let (code, out, _) = run(queue(dir.path(), &["drop", &one, &two])).await;
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
    assert_eq!(signoff::spool::scan(dir.path()).unwrap().asks.len(), 0);
}

#[tokio::test]
async fn a_disk_that_fails_is_no_wrong_usage() {
    if !can_inject() {
        return;
    }
    let manager = MockManager::start(Config::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let id = format!("{:016x}", 1);
    let endpoint = manager.grpc_addr().to_string();
    record::write_ask(
        dir.path(),
        1,
        &key("gone"),
        1,
        "127.0.0.1:1",
        1_800_000_000_000,
        &[&format!("grpc://{endpoint}")],
    )
    .unwrap();
    active_row(manager.table(), &key("gone"), 1);
    for (call, args) in [
        ("getdents64", vec!["list"]),
        ("getdents64", vec!["show", &id]),
        ("getdents64", vec!["drop", &id]),
        ("unlink", vec!["drop", &id]),
        ("getdents64", vec!["flush", "--run-dir", "/nowhere", "--manager", &endpoint]),
    ] {
        let command = queue(dir.path(), &args);
        let mut traced = Command::new("strace");
        traced.args(["-f", "-o", "/dev/null", "-e"]).arg(format!("inject={call}:error=EIO"));
        traced.arg(command.get_program()).args(command.get_args()).env("SIGNOFF_SPOOL", dir.path());
        let (code, out, err) = tokio::time::timeout(LONG, run(traced)).await.unwrap();
        assert_eq!(code, 69, "{call} {args:?}: {out}{err}");
        assert!(err.contains("error: ") && err.contains("Input/output error"), "{call} {args:?}: {err}");
        assert!(!out.contains("dropped"), "{out}");
    }
    assert_eq!(signoff::spool::scan(dir.path()).unwrap().asks.len(), 1);
}
