//! What this process's user has to be able to use: directories, files, the socket.

use std::{collections::BTreeMap, os::unix::process::CommandExt, process::Command};

use signoff::agent::socket::Verdict;

use super::{Checked, NO_AGENT, alone, beside, informed, mode, with_rest};
use crate::harness::World;

/// Runs it without root's rights, where the tests have them.
fn without_rights(world: &World, command: &mut Command) {
    if rustix::process::geteuid().is_root() {
        mode(&world.path("."), 0o755);
        command.uid(65534).gid(65534);
    }
}

#[tokio::test]
async fn a_spool_and_a_run_dir_that_may_not_be_written_are_failed_and_name_the_path() {
    let world = World::new().await;
    let agent = world.agent();
    for (dir, name) in [("spool", "spool"), ("run", "run dir")] {
        let mut command = alone(&world, &agent);
        for other in ["spool", "run"] {
            mode(&world.path(other), if other == dir { 0o555 } else { 0o777 });
        }
        without_rights(&world, &mut command);
        let checked = Checked::of(command).await;
        checked.are(&[NO_AGENT, (name, Verdict::Failed)]);
        let finding = checked.found(name);
        assert!(finding.found.contains(&world.path(dir).display().to_string()), "{finding:?}");
        assert!(finding.todo.as_ref().unwrap().contains("fsGroup"), "{finding:?}");
        mode(&world.path(dir), 0o755);
    }
}

#[tokio::test]
async fn a_spool_and_a_run_dir_that_are_not_there_are_told_by_whether_they_can_be_made() {
    let world = World::new().await;
    let agent = world.agent();
    std::fs::write(world.path("file"), "").unwrap();
    for (variable, name) in [("SIGNOFF_SPOOL", "spool"), ("SIGNOFF_RUN_DIR", "run dir")] {
        for (path, verdict) in [("new/one", Verdict::Warning), ("file", Verdict::Failed)] {
            let mut command = alone(&world, &agent);
            command.env(variable, world.path(path));
            let checked = Checked::of(command).await;
            // A run directory that can't be one holds no agent that could be asked either.
            let mut bad = checked.bad();
            bad.remove("agent");
            assert_eq!(bad, BTreeMap::from([(name, verdict)]), "{}", checked.out);
            assert!(!world.path("new").exists());
        }
    }
}

/// The same command, with these system calls failing; none where strace isn't there or may not trace.
fn injected(command: &Command, injections: &[&str]) -> Option<Command> {
    let works =
        Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status().is_ok_and(|s| s.success());
    if !works {
        assert!(std::env::var_os("CI").is_none(), "strace is needed here");
        eprintln!("SKIPPED: strace does not work here");
        return None;
    }
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null"]);
    for injection in injections {
        traced.arg("-e").arg(format!("inject={injection}"));
    }
    traced.arg(command.get_program()).args(command.get_args());
    traced.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    Some(traced)
}

#[tokio::test]
async fn a_disk_that_refuses_is_failed_and_one_without_locks_is_a_warning() {
    let world = World::new().await;
    let check = alone(&world, &world.agent());
    for (injection, name, verdict, said) in [
        ("fsync:error=EIO", "spool", Verdict::Failed, "Input/output error"),
        ("flock:error=ENOLCK", "spool locks", Verdict::Warning, "no file locks"),
    ] {
        let Some(command) = injected(&check, &[injection]) else { return };
        let checked = Checked::of(command).await;
        checked.are(&[NO_AGENT, (name, verdict)]);
        assert!(checked.found(name).found.contains(said), "{injection}: {}", checked.out);
        assert_eq!(std::fs::read_dir(world.path("spool")).unwrap().count(), 0);
    }
    let Some(command) = injected(&check, &["fsync:delay_enter=600000"]) else { return };
    let checked = Checked::of(command).await;
    checked.are(&[NO_AGENT]);
    let spool = checked.found("spool");
    assert_eq!(spool.verdict, Verdict::Warning, "{spool:?}");
    assert!(spool.todo.as_ref().unwrap().contains("faster disk"), "{spool:?}");
}

#[tokio::test]
async fn a_secret_that_everyone_may_read_is_a_warning_and_one_that_we_may_not_is_failed() {
    let world = World::new().await;
    let agent = with_rest(&world);
    mode(&world.path("password"), 0o644);
    let checked = Checked::of(alone(&world, &agent)).await;
    checked.are(&[NO_AGENT, ("password file", Verdict::Warning)]);
    assert!(checked.found("password file").found.contains("0644"), "{}", checked.out);

    mode(&world.path("password"), 0o000);
    let mut command = alone(&world, &agent);
    for dir in ["spool", "run"] {
        mode(&world.path(dir), 0o777);
    }
    without_rights(&world, &mut command);
    let checked = Checked::of(command).await;
    // Nobody can sign in without it.
    checked.are(&[NO_AGENT, ("password file", Verdict::Failed), ("sign-in", Verdict::Failed)]);
    let path = world.path("password").display().to_string();
    assert!(checked.found("password file").found.contains(&path), "{}", checked.out);
    mode(&world.path("password"), 0o600);
}

#[tokio::test]
async fn a_hook_token_that_is_not_there_or_empty_is_failed() {
    let world = World::new().await;
    let mut agent = world.agent();
    agent.env("SIGNOFF_HOOK_TOKEN_FILE", world.path("token"));
    let _agent = informed(&world, agent).await;
    let path = world.path("token").display().to_string();
    Checked::of(beside(&world)).await.only("hook token file", Verdict::Failed, &path);
    std::fs::write(world.path("token"), "\n").unwrap();
    mode(&world.path("token"), 0o600);
    let said = format!("{path} is empty");
    Checked::of(beside(&world)).await.only("hook token file", Verdict::Failed, &said);
    std::fs::write(world.path("token"), "s3cr3t-token\n").unwrap();
    Checked::of(beside(&world)).await.are(&[]);
}

#[tokio::test]
async fn an_agent_that_may_not_be_asked_is_failed_and_the_socket_is_named() {
    let world = World::new().await;
    let _agent = informed(&world, world.agent()).await;
    for dir in ["spool", "run"] {
        mode(&world.path(dir), 0o777);
    }
    let socket = world.path("run").join("agent.sock");
    let mut command = beside(&world);
    mode(&socket, 0o000);
    without_rights(&world, &mut command);
    let checked = Checked::of(command).await;
    checked.only("agent", Verdict::Failed, &format!("permission denied on {}", socket.display()));
}
