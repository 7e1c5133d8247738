//! `signoff status`: the agent's word on itself, for people, machines and startup probes.

use std::{
    fs::Permissions,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

use signoff::agent::socket::{Status, status::RowWord, status::SchedulerState};

use crate::{
    harness::{Process, World, eventually, run},
    hook::{metric, own_address},
};

#[tokio::test]
async fn the_table_and_the_json_say_the_same_of_a_serving_scheduler() {
    let world = World::new().await;
    let _agent = Process::watching(world.agent()).await;
    let status = eventually("the row is read", async || {
        let (code, out, err) = run(world.command(&["status", "-o", "json"])).await;
        assert_eq!(code, 0, "{err}");
        let status: Status = serde_json::from_str(&out).unwrap();
        (status.row.is_some() && status.identity_known == Some(true)).then_some(status)
    })
    .await;
    assert_eq!(status.key, Some(world.key.clone()));
    assert_eq!(status.scheduler.state, SchedulerState::Serving);
    assert_eq!(status.scheduler.address, world.scheduler.addr().to_string());
    assert_eq!(status.row.unwrap().state, RowWord::Active);
    assert!(status.started && status.pending.is_empty() && status.degraded.is_empty());
    assert_eq!(status.grace_ms, 30_000);
    let (code, out, err) = run(world.command(&["status"])).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for said in [
        &format!("Key         {} (listed by the manager)", world.key),
        &format!("Scheduler   serving at {} for ", world.scheduler.addr()),
        "Row         active, read ",
        "Pending     nothing",
    ] {
        assert!(out.contains(said), "{said}\n{out}");
    }
}

#[tokio::test]
async fn a_pending_sign_off_is_shown_with_why_it_is_not_settled() {
    let mut world = World::new().await;
    let _agent = Process::watching(world.agent()).await;
    world.manager.stop().await;
    world.scheduler.stop().await;
    let status = eventually("an attempt failed", async || {
        let (_, out, _) = run(world.command(&["status", "-o", "json"])).await;
        let status: Status = serde_json::from_str(&out).unwrap();
        status.pending.first().is_some_and(|ask| ask.last_error.is_some()).then_some(status)
    })
    .await;
    assert_eq!(status.scheduler.state, SchedulerState::Down);
    let ask = &status.pending[0];
    assert_eq!(ask.key, world.key.to_string());
    let (code, out, _) = run(world.command(&["status"])).await;
    assert_eq!(code, 0);
    assert!(out.contains(&ask.id) && out.contains("connection refused"), "{out}");
}

#[tokio::test]
async fn why_the_manager_is_away_is_shown_until_it_answers_again() {
    let mut world = World::new().await;
    let _agent = Process::watching(world.agent()).await;
    let error = async |world: &World| {
        let (_, out, _) = run(world.command(&["status", "-o", "json"])).await;
        serde_json::from_str::<Status>(&out).unwrap().manager.last_error
    };
    eventually("the manager's answer", async || error(&world).await.is_none().then_some(())).await;
    world.manager.stop().await;
    // At first it may be that of a call that was cut.
    eventually("the failure in the table", async || {
        let (_, out, _) = run(world.command(&["status"])).await;
        let line = out.lines().find(|line| line.starts_with("Manager ")).unwrap_or_default();
        (line.contains("; the last call failed: ") && line.contains("connection refused")).then_some(())
    })
    .await;
    assert!(error(&world).await.is_some());
    world.manager.restart().await.unwrap();
    eventually("the failure is over", async || error(&world).await.is_none().then_some(())).await;
}

#[tokio::test]
async fn a_flag_that_lacks_its_pair_is_degraded_for_good_though_a_manager_answers() {
    let world = World::new().await;
    let address = own_address();
    let mut command = world.agent();
    command.env("SIGNOFF_LISTEN", address.to_string()).env("SIGNOFF_USERNAME", "viewer");
    let agent = Process::watching(command).await;
    eventually("the manager has answered", async || {
        (metric(address, "signoff_identity_known").await == "1.0").then_some(())
    })
    .await;
    assert_eq!(metric(address, "signoff_degraded{reason=\"manager\"}").await, "1", "{}", agent.log());
    let (_, out, _) = run(world.command(&["status"])).await;
    assert!(out.contains("Degraded    manager: --username and --password-file"), "{out}");
}

#[tokio::test]
async fn without_an_agent_it_exits_69_and_names_the_socket_it_looked_for() {
    let world = World::new().await;
    for format in ["table", "json"] {
        let (code, out, err) = run(world.command(&["status", "-o", format])).await;
        assert_eq!((code, out.as_str()), (69, ""), "{err}");
        let socket = world.path("run").join("agent.sock");
        let line = format!("error: no agent runs here: nobody listens on {}\n", socket.display());
        assert_eq!(err, line);
    }
}

#[tokio::test]
async fn a_socket_that_may_not_be_used_is_named_and_never_called_no_agent() {
    let world = World::new().await;
    let _agent = Process::watching(world.agent()).await;
    let socket = world.path("run").join("agent.sock");
    let mode = |path: &std::path::Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode));
    mode(&socket, 0o000).unwrap();
    for args in [&["status"][..], &["status", "--started"]] {
        let mut command = world.command(args);
        if rustix::process::geteuid().is_root() {
            mode(&world.path("."), 0o755).unwrap();
            mode(&world.path("run"), 0o755).unwrap();
            command.uid(65534).gid(65534);
        }
        let (code, out, err) = run(command).await;
        assert_eq!((code, out.as_str()), (69, ""), "{err}");
        let said = format!("error: permission denied on {}", socket.display());
        assert!(err.starts_with(&said) && err.contains("fsGroup"), "{err}");
    }
}

#[tokio::test]
async fn the_socket_is_for_its_user_and_group_alone_whatever_the_umask_and_the_directory_allow() {
    for (umask, made, mode) in [("000", Some(0o777), 0o777), ("077", None, 0o770)] {
        let world = World::new().await;
        let (run_dir, socket) = (world.path("run"), world.path("run").join("agent.sock"));
        let permit = |path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        permit(world.path("."), 0o755);
        if let Some(made) = made {
            std::fs::create_dir(&run_dir).unwrap();
            permit(run_dir.clone(), made);
        }
        let agent = world.agent();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "umask \"$0\" && exec \"$@\"", umask])
            .arg(agent.get_program())
            .args(agent.get_args());
        command.env_clear().envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let _agent = Process::watching(command).await;
        let (code, _, err) = run(world.command(&["status"])).await;
        assert_eq!(code, 0, "{err}");
        let found = [&socket, &run_dir].map(|path| path.metadata().unwrap().permissions().mode() & 0o7777);
        assert_eq!(found, [0o660, mode], "{umask}");
        if rustix::process::geteuid().is_root() {
            let mut command = world.command(&["status"]);
            command.uid(65534).gid(65534);
            let (code, _, err) = run(command).await;
            assert!(code == 69 && err.starts_with("error: permission denied on "), "{umask}: {code} {err}");
        }
    }
}

#[tokio::test]
async fn a_startup_probe_prints_nothing_and_needs_an_agent_but_no_manager() {
    let mut world = World::new().await;
    let started = async || run(world.command(&["status", "--started"])).await;
    assert_eq!(started().await, (69, String::new(), String::new()), "no agent yet");
    world.manager.stop().await;
    let agent = Process::watching(world.agent()).await;
    let started = run(world.command(&["status", "--started"])).await;
    assert_eq!(started, (0, String::new(), String::new()), "{}", agent.log());
}
