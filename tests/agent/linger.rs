//! `pre-stop --linger`, and where a hook's words go inside a container.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    harness::{Process, World, eventually, run},
    strace::skip,
};

#[tokio::test]
async fn linger_holds_on_after_the_answer() {
    let world = World::new().await;
    let _agent = Process::watching(world.agent()).await;
    let mut command = world.command(&["pre-stop"]);
    command.arg("--linger=2s");
    let began = Instant::now();
    let (code, out, err) = run(command).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(began.elapsed() >= Duration::from_secs(2));
}

/// `command` as PID 1 of a container of its own; none where such a thing can't be had.
fn as_pid_1(command: &Command) -> Option<Command> {
    let unshared = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]);
        unshare
    };
    if !unshared().arg("/bin/true").status().is_ok_and(|status| status.success()) {
        return None;
    }
    let mut unshare = unshared();
    unshare.arg(command.get_program()).args(command.get_args()).env_clear();
    unshare.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(unshare)
}

#[tokio::test]
async fn in_the_sidecars_own_hook_linger_says_that_it_cannot_help_and_the_containers_log_has_the_words() {
    let world = World::new().await;
    let Some(command) = as_pid_1(&world.agent()) else { return skip("no PID namespace can be had here") };
    let agent = Process::watching(command).await;
    let children = format!("/proc/{0}/task/{0}/children", agent.pid());
    let pid_1 = eventually("the container's PID 1", async || {
        std::fs::read_to_string(&children).ok()?.split_whitespace().next().map(str::to_owned)
    })
    .await;
    let hook = world.command(&["pre-stop", "--linger=100s"]);
    let mut inside = Command::new("nsenter");
    inside
        .args(["--target", &pid_1, "--user", "--preserve-credentials", "--pid", "--mount"])
        .arg(hook.get_program())
        .args(hook.get_args())
        .env_clear()
        .envs(hook.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let began = Instant::now();
    let (code, out, err) = run(inside).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("a sidecar's own hook delays nobody"), "{out}");
    assert!(began.elapsed() < Duration::from_secs(100), "it did not linger");
    agent.says("confirmed: the manager acknowledged").await;
}
