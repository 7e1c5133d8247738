//! The spool's disk is full, read-only, broken, hangs; or holds what it should not.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use signoff::manager::State;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Process, World, eventually, run},
    strace::{Strace, can_inject, skip, spool_thread, traced},
};

/// Each way in which a disk can refuse an ask. Of the thread's writes only the first is the ask's: the next wakes the runtime.
const REFUSALS: [&str; 6] = [
    "write:error=ENOSPC:when=1",
    "fsync:error=ENOSPC",
    "openat:error=ENOSPC",
    "openat:error=EROFS",
    "fsync:error=EIO",
    "rename:error=EIO",
];

/// A loopback address of one's own: a port on it is nobody else's.
fn listen_address() -> String {
    let [a, b] = rand_bytes();
    format!("127.{}.{}.3:9802", 2 + a % 250, b)
}

fn rand_bytes() -> [u8; 2] {
    use std::hash::{BuildHasher, RandomState};
    let [a, b, ..] = RandomState::new().hash_one(Instant::now()).to_le_bytes();
    [a, b]
}

/// A metric's sample, as it is at that address now.
async fn metric(listen: &str, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(listen).await.ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// An agent that has seen its scheduler serve, and has nothing more to write.
async fn settled_in(world: &World, command: Command) -> Process {
    let agent = Process::watching(command).await;
    eventually("the mark", async || (!world.spool_files(".mark.json").is_empty()).then_some(())).await;
    let thread = spool_thread(&agent).await;
    let status = format!("/proc/{}/task/{thread}/status", agent.pid());
    eventually("an idle disk", async || {
        std::fs::read_to_string(&status).unwrap().contains("State:\tS").then_some(())
    })
    .await;
    agent
}

fn without_an_agent(world: &World, arguments: &[&str]) -> Command {
    let agent = world.agent();
    let mut command = world.command(arguments);
    command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[tokio::test]
async fn whatever_the_disk_refuses_the_sign_off_goes_ahead_and_the_refusal_is_counted() {
    if !can_inject() {
        return;
    }
    for refusal in REFUSALS {
        let mut world = World::new().await;
        let listen = listen_address();
        let mut command = world.agent();
        command.env("SIGNOFF_LISTEN", &listen);
        let agent = settled_in(&world, command).await;
        let sick = Strace::inject(&agent, refusal).await;
        let (code, out, err) = run(world.command(&["pre-stop"])).await;
        assert_eq!(code, 0, "{refusal}: {out}{err}");
        assert!(out.starts_with("confirmed"), "{refusal}: {out}");
        assert_eq!(world.state(), Some(State::Inactive), "{refusal}");
        // The answer may be here before the line is read.
        agent.says("A sign-off could not be written to the spool").await;
        let errors = metric(&listen, "signoff_spool_errors_total ").await;
        assert!(errors.is_some_and(|errors| errors >= 1.0), "{refusal}: {errors:?}");
        agent.term();
        world.scheduler.stop().await;
        let (code, log) = agent.ended().await;
        assert_eq!((code, world.state()), (0, Some(State::Inactive)), "{refusal}: {log}");
        drop(sick);
        assert!(
            world.spool_files(".corrupt").is_empty() && world.spool_files(".tmp").is_empty(),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn an_ask_that_the_disk_refuses_is_said_to_be_in_memory_only_and_written_once_the_disk_is_well() {
    if !can_inject() {
        return;
    }
    let each = REFUSALS.map(|refusal| async move {
        let mut world = World::new().await;
        let agent = settled_in(&world, world.agent()).await;
        world.manager.stop().await;
        let sick = Strace::inject(&agent, refusal).await;
        let mut command = world.command(&["pre-stop"]);
        command.arg("--deadline=1s");
        let (code, out, err) = run(command).await;
        assert_eq!(code, 75, "{refusal}: {out}{err}");
        assert!(out.starts_with("queued in memory only, the spool refused"), "{refusal}: {out}");
        assert_eq!(world.asks().len(), 0, "{refusal}");
        drop(sick);
        eventually("the ask on disk", async || (world.asks().len() == 1).then_some(())).await;
        agent.kill().await;
        world.scheduler.vanish().await;
        world.manager.restart().await.unwrap();
        let _next = Process::start(world.agent());
        world.until(State::Inactive).await;
    });
    futures_util::future::join_all(each).await;
}

#[tokio::test]
async fn a_sigterm_while_the_disk_refuses_and_the_manager_is_away_ends_by_the_deadline_with_75() {
    if !can_inject() {
        return;
    }
    let mut world = World::new().await;
    let mut command = world.agent();
    command.arg("--grace=5s");
    let agent = Process::watching(command).await;
    world.manager.stop().await;
    let _sick = Strace::inject(&agent, "fsync,openat:error=ENOSPC").await;
    let began = Instant::now();
    agent.term();
    world.scheduler.stop().await;
    let (code, log) = agent.ended().await;
    assert_eq!(code, 75, "{log}");
    assert!(began.elapsed() < Duration::from_millis(5_500), "{:?}: {log}", began.elapsed());
}

#[tokio::test]
async fn a_disk_that_hangs_delays_neither_the_sign_off_nor_the_exit() {
    if !can_inject() {
        return;
    }
    for (manager_up, fault) in [
        (true, "fsync:delay_enter=3600s"),
        (false, "fsync:delay_enter=3600s"),
        (true, "rename:delay_exit=3600s"),
    ] {
        let mut world = World::new().await;
        let mut command = world.agent();
        command.arg("--grace=5s");
        let agent = Process::watching(command).await;
        if !manager_up {
            world.manager.stop().await;
        }
        let hangs = Strace::inject(&agent, fault).await;
        let began = Instant::now();
        agent.term();
        world.scheduler.vanish().await;
        if manager_up {
            world.until(State::Inactive).await;
        }
        // The traced thread stays until strace is done with it: the process is a zombie once it has called exit.
        let status = format!("/proc/{}/status", agent.pid());
        eventually("the agent's exit", async || {
            std::fs::read_to_string(&status).unwrap().contains("State:\tZ").then_some(())
        })
        .await;
        let took = began.elapsed();
        drop(hangs);
        let (code, log) = agent.ended().await;
        assert_eq!(code, if manager_up { 0 } else { 75 }, "{fault}: {log}");
        assert!(log.contains("has not answered within 500 ms"), "{fault}: {log}");
        assert!(
            took < Duration::from_millis(if manager_up { 3_000 } else { 5_500 }),
            "{fault}: {took:?} {log}"
        );
    }
}

#[tokio::test]
async fn a_hook_hears_in_time_that_the_disk_hangs_and_once_it_wakes_the_ask_is_written() {
    if !can_inject() {
        return;
    }
    let mut world = World::new().await;
    let listen = listen_address();
    let mut command = world.agent();
    command.env("SIGNOFF_LISTEN", &listen);
    let agent = Process::watching(command).await;
    world.manager.stop().await;
    let hangs = Strace::inject(&agent, "fsync:delay_enter=3600s").await;
    let mut command = world.command(&["pre-stop"]);
    command.arg("--deadline=2s");
    let (code, out, err) = run(command).await;
    assert_eq!(code, 75, "{out}{err}");
    assert!(out.starts_with("queued in memory only, the spool refused"), "{out}");
    let errors = metric(&listen, "signoff_spool_errors_total ").await;
    assert!(errors.is_some_and(|errors| errors >= 1.0), "{errors:?}");
    // What is in the spool is not known: neither nothing nor well.
    eventually("the hanging disk in the status", async || {
        let (_, out, _) = run(world.command(&["status", "-o", "json"])).await;
        let status: serde_json::Value = serde_json::from_str(&out).unwrap_or_default();
        assert!(status["spool"]["asks"].is_null() && status["spool"]["marks"].is_null(), "{out}");
        (status["degraded"][0]["reason"] == "spool").then_some(())
    })
    .await;
    let (_, out, _) = run(world.command(&["status"])).await;
    assert!(out.contains("unknown: the disk has not answered for"), "{out}");
    assert_eq!(metric(&listen, "signoff_degraded{reason=\"spool\"} ").await, Some(1.0));
    drop(hangs);
    eventually("the ask on disk", async || (world.asks().len() == 1).then_some(())).await;
    let (code, out, err) = run({
        let mut command = world.command(&["pre-stop"]);
        command.arg("--deadline=2s");
        command
    })
    .await;
    assert_eq!(code, 75, "{out}{err}");
    assert!(out.starts_with("queued") && !out.contains("memory"), "{out}");
    world.manager.restart().await.unwrap();
    world.until(State::Inactive).await;
}

#[tokio::test]
async fn a_pre_stop_alone_says_that_the_disk_refused_and_signs_off_all_the_same() {
    if !can_inject() {
        return;
    }
    let mut world = World::new().await;
    // Nothing else in this process fsyncs.
    let arguments = ["-e", "trace=fsync", "-e", "inject=fsync:error=EIO"];
    let log = world.path("strace");
    let (code, out, err) = run(traced(&without_an_agent(&world, &["pre-stop"]), &log, &arguments)).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("confirmed"), "{out}");
    assert_eq!(world.state(), Some(State::Inactive));
    world.manager.stop().await;
    let command = without_an_agent(&world, &["pre-stop", "--deadline=1s"]);
    let (code, out, err) = run(traced(&command, &log, &arguments)).await;
    assert_eq!(code, 75, "{out}{err}");
    assert!(out.starts_with("queued in memory only, the spool refused"), "{out}");
}

#[tokio::test]
async fn on_a_read_only_spool_the_agent_starts_degraded_and_signs_off_all_the_same() {
    if !can_inject() {
        return;
    }
    let mut world = World::new().await;
    let listen = listen_address();
    let lock = world.path("spool").join("spool.lock");
    let mut command = world.agent();
    command.env("SIGNOFF_LISTEN", &listen);
    let arguments = ["-P", lock.to_str().unwrap(), "-e", "trace=openat", "-e", "inject=openat:error=EROFS"];
    let agent = Process::watching(traced(&command, &world.path("strace"), &arguments)).await;
    agent.says("degraded.reason").await;
    let log = agent.log();
    assert!(log.contains(&format!("{}: the volume is read-only", lock.display())), "{log}");
    assert_eq!(metric(&listen, "signoff_degraded{reason=\"spool\"} ").await, Some(1.0), "{log}");
    let (code, out, err) = run(world.command(&["pre-stop"])).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("confirmed"), "{out}");
    assert_eq!(world.state(), Some(State::Inactive));
    let errors = metric(&listen, "signoff_spool_errors_total ").await;
    assert!(errors.is_some_and(|errors| errors >= 1.0), "{errors:?}");
    agent.term();
    world.scheduler.stop().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn a_spool_that_may_not_be_written_is_named_and_once_it_may_the_pending_ask_is_written() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new().await;
    let command = world.agent();
    let spool = world.path("spool");
    std::fs::create_dir(&spool).unwrap();
    std::fs::create_dir(world.path("run")).unwrap();
    let chmod =
        |path: PathBuf, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    chmod(spool.clone(), 0o555);
    chmod(world.path("run"), 0o777);
    chmod(world.path(""), 0o755);
    let command = if rustix::process::geteuid().is_root() {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let tried = Command::new("setpriv").args(nobody).arg(command.get_program()).arg("--version").output();
        if !tried.is_ok_and(|output| output.status.success()) {
            return skip("setpriv is missing, or another user may not run this binary");
        }
        let mut dropped = Command::new("setpriv");
        dropped.args(nobody).arg(command.get_program()).args(command.get_args());
        dropped.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        dropped
    } else {
        command
    };
    let agent = Process::watching(command).await;
    agent.says("degraded.reason").await;
    let log = agent.log();
    assert!(log.contains(spool.to_str().unwrap()) && log.contains("ermission denied"), "{log}");
    world.manager.stop().await;
    let mut command = world.command(&["pre-stop"]);
    command.arg("--deadline=1s");
    let (code, out, err) = run(command).await;
    assert_eq!(code, 75, "{out}{err}");
    assert!(out.starts_with("queued in memory only, the spool refused"), "{out}");
    chmod(spool, 0o777);
    eventually("the ask on disk", async || (world.asks().len() == 1).then_some(())).await;
    agent.says("No longer degraded.").await;
    world.manager.restart().await.unwrap();
    world.until(State::Inactive).await;
}

#[tokio::test]
async fn a_sign_off_costs_two_fsyncs_for_the_ask_and_one_for_forgetting_it() {
    if !can_inject() {
        return;
    }
    let world = World::new().await;
    let agent = settled_in(&world, world.agent()).await;
    agent.says("Read the row.").await;
    let trace = world.path("trace");
    let thread = spool_thread(&agent).await;
    let calls = "trace=fsync,fdatasync,sync_file_range,syncfs,rename,renameat,renameat2,unlink,unlinkat";
    let strace = Strace::record(thread, &trace, &["-e", calls]).await;
    let (_, out, _) = run(world.command(&["pre-stop"])).await;
    assert!(out.starts_with("confirmed"), "{out}");
    let done = || -> Option<Vec<String>> {
        let text = std::fs::read_to_string(&trace).unwrap();
        let calls: Vec<String> =
            text.lines().filter_map(|line| Some(line.split('(').next()?.to_owned())).collect();
        // The ask's, its renaming to a mark, and the one for that.
        (calls.iter().filter(|call| call.starts_with("fsync")).count() >= 3).then_some(calls)
    };
    let calls = eventually("the ask forgotten", async || done()).await;
    assert_eq!(calls, ["fsync", "rename", "fsync", "rename", "fsync"]);
    drop(strace);
    assert!(world.asks().is_empty());
}
