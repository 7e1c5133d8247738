//! `signoff check`: a healthy world has nothing to be mended, and each thing that is broken is told, and it alone.

use std::{
    collections::BTreeMap, fs::Permissions, os::unix::fs::PermissionsExt, path::Path, process::Command,
};

use signoff::{
    agent::socket::{Finding, Verdict},
    key::SchedulerKey,
    manager::State,
    mock::{
        fault::{Fault, Kind},
        table::Patch,
    },
};

use crate::harness::{Process, World, eventually, registration, run};

mod peers;
mod place;

/// Says how long the volume of these tests' directory lives, whatever that is.
const VOLUME: &str = "spool volume";

/// What one check printed.
struct Checked {
    code: i32,
    findings: Vec<Finding>,
    out: String,
}

impl Checked {
    async fn of(command: Command) -> Self {
        let (code, out, err) = run(command).await;
        let findings =
            serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {code} {out:?} {err:?}"));
        Self { code, findings, out: out + &err }
    }

    /// What isn't ok, but for the volume's life, and for how fast and how full the disk of this machine is.
    fn bad(&self) -> BTreeMap<&str, Verdict> {
        let bad = self.findings.iter().filter(|f| f.verdict != Verdict::Ok && f.name != VOLUME);
        let slow = ["is writable, a durable write took", "the disk has not answered for"];
        let bad = bad.filter(|f| !slow.iter().any(|slow| f.found.contains(slow)));
        bad.map(|finding| (finding.name.as_str(), finding.verdict)).collect()
    }

    fn found(&self, name: &str) -> &Finding {
        self.findings.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no {name}: {}", self.out))
    }

    /// Just this is as told, and everything else ok; and the exit code follows from that.
    fn only(&self, name: &str, verdict: Verdict, said: &str) {
        self.are(&[(name, verdict)]);
        let finding = self.found(name);
        assert!(finding.found.contains(said), "{finding:?}");
    }

    fn are(&self, expected: &[(&str, Verdict)]) {
        assert_eq!(self.bad(), expected.iter().copied().collect(), "{}", self.out);
        let failed = expected.iter().any(|(_, verdict)| *verdict == Verdict::Failed);
        assert_eq!(self.code, i32::from(failed), "{}", self.out);
        for finding in &self.findings {
            assert_eq!(finding.todo.is_none(), finding.verdict == Verdict::Ok, "{finding:?}");
        }
    }
}

/// A check beside this world's agent.
fn beside(world: &World) -> Command {
    world.command(&["check", "-o", "json"])
}

/// One with an agent's environment, and no agent: `agent` is a warning then.
fn alone(world: &World, agent: &Command) -> Command {
    for dir in ["spool", "run"] {
        std::fs::create_dir_all(world.path(dir)).unwrap();
    }
    let mut command = beside(world);
    command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

const NO_AGENT: (&str, Verdict) = ("agent", Verdict::Warning);

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn with_rest(world: &World) -> Command {
    let command = world.agent_with_rest();
    mode(&world.path("password"), 0o600);
    command
}

/// An agent that has looked its key up and read its row.
async fn informed(world: &World, command: Command) -> Process {
    let agent = Process::watching(command).await;
    eventually("the agent knows its row", async || {
        let (code, out, _) = run(world.command(&["status", "-o", "json"])).await;
        let status: serde_json::Value = serde_json::from_str(&out).unwrap_or_default();
        (code == 0 && status["identity_known"] == true && status["row"]["state"] == "active").then_some(())
    })
    .await;
    agent
}

#[tokio::test]
async fn a_healthy_world_has_nothing_to_be_mended() {
    let world = World::new().await;
    let _agent = informed(&world, with_rest(&world)).await;
    let checked = Checked::of(beside(&world)).await;
    checked.are(&[]);
    let names: Vec<&str> = checked.findings.iter().map(|finding| finding.name.as_str()).collect();
    let (grpc, rest) = (world.manager.grpc_addr(), world.manager.rest_addr());
    let (grpc, rest) = (format!("manager grpc://{grpc}"), format!("manager http://{rest}"));
    let expected = [
        "settings",
        "identity",
        "other rows",
        &grpc,
        &rest,
        "sign-in",
        "scheduler",
        "probes",
        "spool",
        "spool locks",
        VOLUME,
        "run dir",
        "grace",
        "password file",
        "agent",
        "agent: started",
        "agent: identity",
        "agent: scheduler",
        "agent: row",
        "agent: drain",
        "agent: succession",
        "agent: manager",
        "agent: queue",
        "agent: spool",
    ];
    assert_eq!(names, expected);
    let port = world.scheduler.addr().port();
    let listed = format!("{} is listed with port {port}, active", world.key);
    assert_eq!(checked.found("identity").found, listed);
    assert!(checked.found(&grpc).found.ends_with("(plain text)"), "{}", checked.out);
    let left: Vec<_> =
        std::fs::read_dir(world.path("spool")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("check")), "{left:?}");
}

#[tokio::test]
async fn the_table_has_a_line_for_each_check_what_to_do_below_it_and_a_sum() {
    let world = World::new().await;
    let mut command = world.command(&["check", "--grace", "6s"]);
    let agent = world.agent();
    command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (code, out, err) = run(command).await;
    assert_eq!(code, 0, "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("CHECK ") && lines[0].ends_with(" RESULT   FOUND"), "{out}");
    let grace = lines.iter().position(|line| line.starts_with("grace ")).unwrap();
    assert!(lines[grace].contains("  warning  6s, of which"), "{out}");
    assert!(
        lines[grace + 1].trim_start().starts_with("-> give the pod a terminationGracePeriodSeconds"),
        "{out}"
    );
    assert!(lines.last().unwrap().ends_with(" warning, 0 failed"), "{out}");
}

#[tokio::test]
async fn a_key_the_manager_does_not_list_is_failed_and_the_listed_ones_are_named() {
    let world = World::new().await;
    let _agent = informed(&world, world.agent()).await;
    let mut command = beside(&world);
    command.args(["--cluster-id", "2"]);
    let checked = Checked::of(command).await;
    let instead = format!(
        "lists {}/127.0.0.1:{} in cluster 1 (active)",
        world.key.hostname,
        world.scheduler.addr().port()
    );
    checked.only("identity", Verdict::Failed, &instead);
    let mut command = beside(&world);
    command.args(["--hostname", "nobody"]);
    Checked::of(command).await.only("identity", Verdict::Failed, "lists no scheduler named nobody");
}

#[tokio::test]
async fn a_row_with_another_port_is_to_be_deleted_only_where_nobody_lives_by_it() {
    let world = World::new().await;
    let agent = with_rest(&world);
    let table = world.manager.table();
    let row = table.find(&world.key).unwrap().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = listener.local_addr().unwrap();
    table.patch(row.id, Patch { port: Some(other.port().into()), ..Patch::default() }).unwrap().unwrap();
    let check = async |verdict, said: &str| {
        let checked = Checked::of(alone(&world, &agent)).await;
        checked.are(&[NO_AGENT, ("identity", verdict)]);
        let identity = checked.found("identity").clone();
        let text = format!("{} {}", identity.found, identity.todo.unwrap());
        assert!(text.contains(said), "{text}");
        assert_eq!(text.contains("delete row"), verdict == Verdict::Failed, "{text}");
        assert!(text.contains("Error 1062 Duplicate entry"), "{text}");
    };
    // It is active: somebody lives by it, whatever its port.
    check(Verdict::Warning, "it is a living scheduler's").await;
    assert!(table.set_by_hand(&world.key, State::Inactive).unwrap());
    check(Verdict::Warning, &format!("something listens at {other}")).await;
    drop(listener);
    check(Verdict::Failed, &format!("delete row {}", row.id)).await;
}

#[tokio::test]
async fn a_watched_port_is_no_evidence_of_the_registered_one() {
    let world = World::new().await;
    let table = world.manager.table();
    let row = table.find(&world.key).unwrap().unwrap();
    table.patch(row.id, Patch { port: Some(1025), ..Patch::default() }).unwrap().unwrap();
    for dir in ["spool", "run"] {
        std::fs::create_dir_all(world.path(dir)).unwrap();
    }
    let mut command = beside(&world);
    command.args(["--hostname", world.key.hostname.as_str(), "--ip", "127.0.0.1"]);
    command.args(["--manager", &world.manager.grpc_addr().to_string()]);
    command.args(["--scheduler-addr", &world.scheduler.addr().to_string()]);
    let checked = Checked::of(command).await;
    checked.are(&[NO_AGENT]);
    let identity = checked.found("identity");
    assert!(identity.found.contains("listed with port 1025, active"), "{identity:?}");
}

#[tokio::test]
async fn another_active_row_of_the_hostname_is_a_warning() {
    let world = World::new().await;
    let _agent = informed(&world, world.agent()).await;
    let other =
        SchedulerKey::new(world.key.cluster_id, world.key.hostname.clone(), "127.0.0.9".parse().unwrap());
    world.manager.table().register(registration(&other, 8002)).unwrap();
    Checked::of(beside(&world)).await.are(&[]);
    assert!(world.manager.table().set_by_hand(&other, State::Active).unwrap());
    let checked = eventually("the list shows it", async || {
        let checked = Checked::of(beside(&world)).await;
        (!checked.bad().is_empty()).then_some(checked)
    })
    .await;
    checked.only("other rows", Verdict::Warning, "127.0.0.9:8002 in cluster 1 (active)");
}

#[tokio::test]
async fn a_short_grace_is_a_warning() {
    let world = World::new().await;
    let _agent = informed(&world, world.agent()).await;
    let mut command = beside(&world);
    command.args(["--grace", "9s"]);
    Checked::of(command).await.only("grace", Verdict::Warning, "whose Redis is down takes up to 8s");
}

#[tokio::test]
async fn a_drain_that_is_on_is_told_by_the_agent() {
    let world = World::new().await;
    let _agent = informed(&world, world.agent()).await;
    let (code, out, err) = run(world.command(&["pre-stop"])).await;
    assert_eq!(code, 0, "{out}{err}");
    Checked::of(beside(&world)).await.only("agent: drain", Verdict::Warning, "the row stays inactive");
}

#[tokio::test]
async fn a_sign_off_that_the_manager_rejects_is_failed_until_one_gets_through() {
    let world = World::new().await;
    let _agent = informed(&world, world.agent()).await;
    let rejects = Fault {
        call: Some("keep-alive".to_owned()),
        message: Some("rpc error: code = PermissionDenied desc = not you".to_owned()),
        ..Fault::new(Kind::Internal)
    };
    world.manager.faults().add(rejects).unwrap();
    let (code, out, err) = run(world.command(&["pre-stop", "--deadline=1s"])).await;
    assert_eq!(code, 75, "{out}{err}");
    let checked = Checked::of(beside(&world)).await;
    checked.are(&[("agent: drain", Verdict::Warning), ("agent: queue", Verdict::Failed)]);
    let queue = &checked.found("agent: queue").found;
    assert!(queue.contains(&world.key.to_string()) && queue.contains("desc = not you"), "{queue}");
    world.manager.faults().clear();
    eventually("it gets through", async || {
        let checked = Checked::of(beside(&world)).await;
        (checked.found("agent: queue").verdict == Verdict::Ok).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_not_known_is_failed_and_what_can_not_be_is_refused() {
    let world = World::new().await;
    let mut agent = world.agent();
    std::fs::write(world.path("scheduler.yaml"), "server: [\n").unwrap();
    let checked = Checked::of(alone(&world, &agent)).await;
    assert_eq!(checked.code, 1, "{}", checked.out);
    let settings = checked.found("settings");
    assert!(settings.verdict == Verdict::Failed && settings.found.contains("scheduler.yaml"), "{settings:?}");
    assert_eq!(checked.found("manager").verdict, Verdict::Failed);
    agent = world.command(&["check", "-o", "json", "--grace", "long"]);
    let (code, out, err) = run(agent).await;
    assert_eq!((code, out.as_str()), (64, ""), "{err}");
    assert!(err.contains("--grace"), "{err}");
}
