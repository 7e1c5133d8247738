//! What a user can get wrong, all of it: the agent starts, stays, answers its startup probe, and says what is wrong.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, process::Command};

use futures_util::{StreamExt, stream};
use signoff::{
    manager::State,
    spool::{
        Limits, Managers, Spool,
        record::{Cause, Record},
    },
};

use crate::{
    harness::{Process, World, eventually, run},
    hook::{get, metric, own_address},
};

/// So many agents at once.
const AT_ONCE: usize = 8;

/// An agent of a world with places of its own.
struct Subject {
    command: Command,
    run_dir: std::path::PathBuf,
    /// Of `/livez`; none where the port itself can't be had.
    listens: Option<std::net::SocketAddr>,
}

impl Subject {
    fn new(world: &World, name: &str) -> Self {
        let mut command = world.agent();
        let (run_dir, listens) = (world.path(&format!("run-{name}")), own_address());
        command
            .env("SIGNOFF_SPOOL", world.path(&format!("spool-{name}")))
            .env("SIGNOFF_RUN_DIR", &run_dir)
            .env("SIGNOFF_LISTEN", listens.to_string())
            .env("SIGNOFF_LOG_LEVEL", "info");
        Self { command, run_dir, listens: Some(listens) }
    }
}

async fn probe(run_dir: &Path) -> i32 {
    let mut command = crate::harness::signoff();
    command.args(["status", "--started"]).env("SIGNOFF_RUN_DIR", run_dir);
    run(command).await.0
}

/// It stays, answers its probe and its port, and says this of the reason: log (once), status, check and metric.
async fn starts_and_says(subject: Subject, reason: &str, words: &[&str]) -> Process {
    let Subject { command, run_dir, listens } = subject;
    let shown = format!("{command:?}");
    let agent = Process::start(command);
    eventually(&format!("the startup probe passes: {shown}"), async || {
        (probe(&run_dir).await == 0).then_some(())
    })
    .await;
    if let Some(address) = listens {
        let name = format!("signoff_degraded{{reason=\"{reason}\"}}");
        eventually(&format!("{name}: {shown}"), async || (metric(address, &name).await == "1").then_some(()))
            .await;
        assert_eq!(get(address, "/livez").await.0, 200, "{shown}");
    }
    agent.says("\"level\":\"ERROR\"").await;
    let marked = format!("\"degraded.reason\":\"{reason}\"");
    agent.says(&marked).await;
    let log = agent.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains(&marked)).collect();
    assert_eq!(said.len(), 1, "said once: {log}");
    for word in words {
        assert!(said[0].contains(word), "{word}: {log}");
    }
    if run_dir.join("agent.sock").exists() {
        for what in [&["status"][..], &["check"]] {
            let mut command = crate::harness::signoff();
            command.args(what).env("SIGNOFF_RUN_DIR", &run_dir);
            let (_, out, err) = run(command).await;
            // The table folds nothing.
            for word in words {
                let word = word.replace("\\\"", "\"");
                assert!(
                    out.contains(&word) || what == ["check"] && err.contains("no gRPC endpoint"),
                    "{what:?} {word}: {out}{err}"
                );
            }
        }
    }
    agent
}

#[tokio::test]
async fn whatever_flag_or_variable_has_a_wrong_value_the_agent_starts_stays_and_names_it() {
    let world = World::new().await;
    let wrong: [(&str, &[u8]); 22] = [
        ("hostname", b"under_score"),
        ("ip", b"here"),
        ("cluster-id", b"abc"),
        ("scheduler-addr", b"8002"),
        ("scheduler-config", b""),
        ("manager", b"nowhere"),
        ("username", b"\xff"),
        ("password-file", b""),
        ("ca-file", b""),
        ("cert-file", b""),
        ("key-file", b""),
        ("spool", b""),
        ("run-dir", b""),
        ("grace", b"30 parsecs"),
        ("repair", b"maybe"),
        ("listen", b"9802"),
        ("ready-after-manager", b"perhaps"),
        ("hook-listen", b"9803"),
        ("hook-allow", b"node"),
        ("hook-token-file", b""),
        ("log-format", b"xml"),
        ("log-level", b"loud"),
    ];
    let command = signoff::cli::command();
    let agent = command.get_subcommands().find(|sub| sub.get_name() == "agent").unwrap();
    for flag in agent.get_arguments().filter_map(|arg| arg.get_long()).filter(|flag| *flag != "help") {
        assert!(wrong.iter().any(|(known, _)| *known == flag), "--{flag} is not tested");
    }
    let cases = wrong.iter().flat_map(|(flag, value)| [(flag, value, false), (flag, value, true)]);
    // A blank variable is none. The run directory's default may be another's here.
    let cases =
        cases.filter(|(flag, value, by_variable)| !(*by_variable && value.is_empty() || **flag == "run-dir"));
    stream::iter(cases.enumerate())
        .for_each_concurrent(AT_ONCE, |(n, (flag, value, by_variable))| {
            let mut subject = Subject::new(&world, &n.to_string());
            let variable = format!("SIGNOFF_{}", flag.to_uppercase().replace('-', "_"));
            subject.command.env_remove(&variable);
            if by_variable {
                subject.command.env(&variable, OsStr::from_bytes(value));
            } else {
                let word = [format!("--{flag}=").as_bytes(), value].concat();
                subject.command.arg(OsStr::from_bytes(&word));
            }
            if *flag == "listen" {
                // Its default may be another's.
                subject.listens = None;
            }
            async move {
                let name = if by_variable { variable } else { format!("--{flag}") };
                let agent = starts_and_says(subject, "configuration", &[&name, "until that is mended"]).await;
                let log = agent.kill().await;
                for written in ["Signing off", "attempt.outcome", "restoring it"] {
                    assert!(!log.contains(written), "{written}: {log}");
                }
            }
        })
        .await;
}

#[tokio::test]
async fn an_unknown_flag_and_two_wrong_values_at_once_are_told_together() {
    let world = World::new().await;
    let mut subject = Subject::new(&world, "a");
    subject.command.args(["--gracee=5s", "--cluster-id", "abc"]).env("SIGNOFF_REPAIR", "sometimes");
    let words =
        ["--gracee: signoff agent has no such flag", "--cluster-id", "SIGNOFF_REPAIR", "on, report, off"];
    let agent = starts_and_says(subject, "configuration", &words).await;
    agent.term();
    let (code, log) = agent.ended().await;
    assert_eq!((code, world.state()), (69, Some(State::Active)), "{log}");
}

#[tokio::test]
async fn a_wrong_identity_or_endpoint_writes_nothing_though_the_next_source_is_right() {
    for (variable, value) in [("SIGNOFF_CLUSTER_ID", "abc"), ("SIGNOFF_MANAGER", "nowhere")] {
        let mut world = World::new().await;
        let mut subject = Subject::new(&world, "a");
        subject.command.env(variable, value);
        let agent = starts_and_says(subject, "configuration", &[variable]).await;
        let history = world.manager.table().history().len();
        agent.term();
        world.scheduler.vanish().await;
        let (code, log) = agent.ended().await;
        assert_eq!(code, 69, "{log}");
        assert_eq!(
            (world.state(), world.manager.table().history().len()),
            (Some(State::Active), history),
            "{log}"
        );
    }
}

#[tokio::test]
async fn values_with_white_space_capitals_and_common_words_do_what_they_obviously_mean() {
    let mut world = World::new().await;
    let mut subject = Subject::new(&world, "a");
    subject
        .command
        .env("SIGNOFF_CLUSTER_ID", "1\n")
        .env("SIGNOFF_LOG_LEVEL", "INFO")
        .env("SIGNOFF_REPAIR", "true")
        .env("SIGNOFF_GRACE", "3\n")
        .env("POD_NAME", "scheduler-0\n");
    let agent = Process::watching(subject.command).await;
    assert!(!agent.log().contains("\"ERROR\""), "{}", agent.log());
    agent.term();
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn beside_a_scheduler_without_a_manager_the_agent_is_content_until_one_is_named() {
    let mut world = World::new().await;
    let Subject { mut command, run_dir, listens } = Subject::new(&world, "a");
    let address = listens.unwrap();
    let path = world.path("scheduler.yaml");
    let with_a_manager = std::fs::read_to_string(&path).unwrap();
    let addr = format!("  addr: {}\n", world.manager.grpc_addr());
    assert!(with_a_manager.contains(&addr));
    std::fs::write(&path, with_a_manager.replace(&addr, "  addr: null\n")).unwrap();
    command.env("SIGNOFF_READY_AFTER_MANAGER", "true");
    // For the manager that was named once.
    let managers = Managers::of([format!("grpc://{}", world.manager.grpc_addr())]);
    let ask = Record { managers, ..Record::sign_off(world.key.clone(), Cause::Sigterm, None, 1, None) };
    Spool::open(world.path("spool-a"), Limits::default()).unwrap().write_ask(&ask).unwrap();
    let agent = Process::start(command);
    agent.says("names no manager: there is nothing to keep true.").await;
    eventually("ready", async || (get(address, "/readyz").await.0 == 200).then_some(())).await;
    // The command line of people, who know no more than the run directory.
    let beside = |what: &[&str]| {
        let mut command = crate::harness::signoff();
        command.args(what).env("SIGNOFF_RUN_DIR", &run_dir).env("SIGNOFF_SPOOL", world.path("spool-a"));
        command
    };
    eventually("its settings", async || run_dir.join("agent.json").exists().then_some(())).await;
    for (what, word) in [
        (&["check"][..], "names no manager"),
        (&["status"], "names no manager"),
        (
            &["pre-stop"],
            "absent: the scheduler's configuration names no manager: there is nothing to sign off",
        ),
    ] {
        let (code, out, err) = run(beside(what)).await;
        assert!(code == 0 && out.contains(word), "{what:?}: {code} {out}{err}");
        assert!(!out.lines().any(|line| line.contains("  failed ")), "{what:?}: {out}");
    }
    let (code, out, _) = run(beside(&["status", "-o", "json"])).await;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &status["degraded"], &status["manager"]["none"], &status["spool"]["asks"]),
        (0, &serde_json::json!([]), &true.into(), &1.into())
    );
    let (_, out, _) = run(beside(&["check"])).await;
    assert!(out.contains("1 sign-off(s) in ") && out.contains("signoff queue flush --manager"), "{out}");
    let said = agent.log();
    assert!(!said.contains("\"ERROR\"") && !said.contains("\"WARN\""), "{said}");
    assert_eq!(said.matches("names no manager").count(), 1, "said once: {said}");
    // It is taken up once it is named.
    std::fs::write(&path, with_a_manager).unwrap();
    agent.says("The scheduler serves.").await;
    agent.term();
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn beside_a_scheduler_without_a_manager_sigterm_ends_the_agent_well() {
    let world = World::new().await;
    let Subject { command, run_dir, .. } = Subject::new(&world, "a");
    std::fs::write(world.path("scheduler.yaml"), "server:\n  port: 8002\n").unwrap();
    // A hook without an agent has nothing to do either.
    let mut hook = crate::harness::signoff();
    hook.args(["pre-stop"])
        .env("SIGNOFF_RUN_DIR", &run_dir)
        .env("SIGNOFF_SCHEDULER_CONFIG", world.path("scheduler.yaml"));
    let (code, out, err) = run(hook).await;
    assert!(code == 0 && out.contains("nothing to sign off"), "{code} {out}{err}");
    let agent = Process::start(command);
    agent.says("there is nothing to keep true.").await;
    agent.term();
    let (code, log) = agent.ended().await;
    assert_eq!((code, world.state()), (0, Some(State::Active)), "{log}");
}

#[tokio::test]
async fn an_empty_address_of_the_manager_or_one_without_a_host_is_a_fault() {
    let world = World::new().await;
    for (n, addr) in ["\"\"", "\":65003\""].into_iter().enumerate() {
        let subject = Subject::new(&world, &n.to_string());
        std::fs::write(world.path("scheduler.yaml"), format!("manager:\n  addr: {addr}\n")).unwrap();
        let reason = if n == 0 { "scheduler-config" } else { "manager" };
        let agent = starts_and_says(subject, reason, &["manager.addr"]).await;
        agent.kill().await;
    }
}

#[tokio::test]
async fn a_grace_of_zero_still_signs_off_after_sigterm() {
    let mut world = World::new().await;
    let mut command = world.agent();
    command.env("SIGNOFF_GRACE", "0");
    let agent = Process::watching(command).await;
    agent.says("The grace is short").await;
    agent.term();
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn whatever_place_or_port_can_not_be_had_the_agent_starts_and_answers_its_probe() {
    let world = World::new().await;
    let file = world.path("file");
    std::fs::write(&file, "").unwrap();
    let long = world.path(&"x".repeat(200));
    let taken = std::net::TcpListener::bind(own_address()).unwrap();
    let taken_address = taken.local_addr().unwrap();
    let mut cases = Vec::new();
    for (n, run_dir) in
        [file.clone(), file.join("below"), long, "/proc/nowhere".into()].into_iter().enumerate()
    {
        let mut subject = Subject::new(&world, &format!("run{n}"));
        subject.command.env("SIGNOFF_RUN_DIR", &run_dir);
        subject.run_dir = run_dir;
        cases.push((subject, "socket"));
    }
    for (n, spool) in [file.clone(), file.join("below"), "/proc/nowhere".into()].into_iter().enumerate() {
        let mut subject = Subject::new(&world, &format!("spool{n}"));
        subject.command.env("SIGNOFF_SPOOL", spool);
        cases.push((subject, "spool"));
    }
    let listens = [taken_address.to_string(), "203.0.113.77:9802".to_owned()];
    for (n, listen) in listens.into_iter().enumerate() {
        let mut subject = Subject::new(&world, &format!("listen{n}"));
        subject.command.env("SIGNOFF_LISTEN", listen);
        subject.listens = None;
        cases.push((subject, "listen"));
    }
    let mut subject = Subject::new(&world, "config");
    subject
        .command
        .env("SIGNOFF_SCHEDULER_CONFIG", &file)
        .env("SIGNOFF_HOOK_LISTEN", taken_address.to_string());
    cases.push((subject, "hook-listen"));
    let mut subject = Subject::new(&world, "pod-ip");
    subject.command.env("POD_IP", "nonsense").env("HOST_IP", "x,10.0.0.1");
    cases.push((subject, "environment"));
    stream::iter(cases)
        .for_each_concurrent(AT_ONCE, |(subject, reason)| async move {
            let agent = starts_and_says(subject, reason, &[]).await;
            agent.kill().await;
        })
        .await;
    drop(taken);
    assert_eq!(world.state(), Some(State::Active));
}

/// The two share a pod's network: whoever is first on a port keeps the other off.
#[tokio::test]
async fn a_port_that_the_scheduler_needs_is_left_to_it() {
    let world = World::new().await;
    for variable in ["SIGNOFF_LISTEN", "SIGNOFF_HOOK_LISTEN"] {
        let reason = variable.trim_start_matches("SIGNOFF_").to_lowercase().replace('_', "-");
        let mut subject = Subject::new(&world, &reason);
        let schedulers = std::net::SocketAddr::new(own_address().ip(), 8012);
        let config = world.path(&format!("{reason}.yaml"));
        std::fs::write(&config, format!("server: {{port: {}}}\n", schedulers.port())).unwrap();
        subject.command.env("SIGNOFF_SCHEDULER_CONFIG", config).env(variable, schedulers.to_string());
        if variable == "SIGNOFF_LISTEN" {
            subject.listens = None;
        }
        let needs = format!("the scheduler needs port {} itself", schedulers.port());
        let agent = starts_and_says(subject, &reason, &[&needs]).await;
        drop(std::net::TcpListener::bind(schedulers).unwrap());
        agent.kill().await;
    }
}
