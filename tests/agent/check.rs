//! `signoff check`: a healthy world has nothing to be mended, and each thing that is broken is told, and it alone.

use std::{
    collections::BTreeMap,
    fs::Permissions,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use signoff::{
    agent::socket::{Finding, Verdict},
    key::SchedulerKey,
    manager::State,
    mock::{
        Config, MockManager, TlsFiles,
        manager::User,
        table::{Patch, Registration},
    },
};
use tokio::net::TcpListener;

use crate::harness::{Process, World, eventually, run};

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

    /// What isn't ok, but for the volume's life.
    fn bad(&self) -> BTreeMap<&str, Verdict> {
        let bad = self.findings.iter().filter(|f| f.verdict != Verdict::Ok && f.name != VOLUME);
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

fn registration(key: &SchedulerKey, port: i32) -> Registration {
    Registration {
        hostname: key.hostname.to_string(),
        ip: key.ip.to_string(),
        port,
        cluster_id: key.cluster_id.get(),
        idc: String::new(),
        location: String::new(),
        features: Vec::new(),
        config: serde_json::Value::Null,
    }
}

/// A port of loopback that refuses.
async fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// One that accepts (in the kernel) and says nothing, for as long as it lives.
async fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
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
async fn a_row_with_another_port_is_failed_with_what_the_manager_will_say() {
    let world = World::new().await;
    let _agent = informed(&world, world.agent()).await;
    let row = world.manager.table().find(&world.key).unwrap().unwrap();
    let other = Patch { port: Some(1025), ..Patch::default() };
    world.manager.table().patch(row.id, other).unwrap().unwrap();
    // A list may be some 30 s old.
    let checked = eventually("the list shows it", async || {
        let checked = Checked::of(beside(&world)).await;
        checked.bad().contains_key("identity").then_some(checked)
    })
    .await;
    checked.only("identity", Verdict::Failed, "listed with port 1025");
    let identity = checked.found("identity");
    assert!(identity.found.contains("Error 1062 Duplicate entry"), "{identity:?}");
    assert!(identity.todo.as_ref().unwrap().contains(&format!("delete row {}", row.id)), "{identity:?}");
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
async fn an_endpoint_that_refuses_and_one_that_is_silent_are_failed_each_for_itself() {
    let world = World::new().await;
    let _agent = informed(&world, world.agent()).await;
    let grpc = world.manager.grpc_addr().to_string();
    let (dead, (_listener, mute)) = (refusing().await, silent().await);
    for (endpoint, said) in [(dead, "connection refused"), (mute, "it accepts connections, but")] {
        let mut command = beside(&world);
        command.args(["--manager", &grpc, "--manager", &endpoint]);
        let checked = Checked::of(command).await;
        // A list that was asked of the silent one is asked of the other in its time, or not at all.
        let name = format!("manager grpc://{endpoint}");
        let mut bad = checked.bad();
        assert_eq!(bad.remove(name.as_str()), Some(Verdict::Failed), "{}", checked.out);
        bad.remove("identity");
        assert!(bad.is_empty() && checked.code == 1, "{}", checked.out);
        assert!(checked.found(&name).found.contains(said), "{}", checked.out);
        assert_eq!(checked.found(&format!("manager grpc://{grpc}")).verdict, Verdict::Ok);
    }
}

#[tokio::test]
async fn a_rest_endpoint_that_refuses_is_failed_and_so_is_the_sign_in_there() {
    let world = World::new().await;
    let mut agent = with_rest(&world);
    let dead = refusing().await;
    agent.env("SIGNOFF_MANAGER", format!("{},http://{dead}", world.manager.grpc_addr()));
    let checked = Checked::of(alone(&world, &agent)).await;
    let name = format!("manager http://{dead}");
    checked.are(&[NO_AGENT, (&name, Verdict::Failed), ("sign-in", Verdict::Failed)]);
}

#[tokio::test]
async fn where_everything_is_silent_it_ends_all_the_same() {
    let world = World::new().await;
    let mut agent = with_rest(&world);
    let (_grpc, grpc) = silent().await;
    let (_rest, rest) = silent().await;
    let (_scheduler, scheduler) = silent().await;
    let _socket = {
        std::fs::create_dir_all(world.path("run")).unwrap();
        std::os::unix::net::UnixListener::bind(world.path("run").join("agent.sock")).unwrap()
    };
    agent.env("SIGNOFF_MANAGER", format!("{grpc},http://{rest}")).env("SIGNOFF_SCHEDULER_ADDR", &scheduler);
    let began = Instant::now();
    let checked = Checked::of(alone(&world, &agent)).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let grpc = format!("manager grpc://{grpc}");
    let failed = ["agent", "identity", "sign-in", "scheduler", &grpc].map(|name| (name, Verdict::Failed));
    checked.are(&failed);
}

struct Authority {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Certificate and key, in PEM.
    fn leaf(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let cert =
            CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &self.ca).unwrap();
        (cert.pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn an_endpoint_over_tls_says_which_and_a_wrong_ca_is_failed() {
    let world = World::new().await;
    let (ca, stranger) = (Authority::new(), Authority::new());
    let (cert, key) = ca.leaf();
    for (name, text) in
        [("cert.pem", &cert), ("key.pem", &key), ("ca.pem", &ca.ca.pem()), ("other.pem", &stranger.ca.pem())]
    {
        std::fs::write(world.path(name), text).unwrap();
    }
    let secured = MockManager::start(Config {
        database: Some(world.manager.table().clone()),
        tls: Some(TlsFiles { cert: world.path("cert.pem"), key: world.path("key.pem"), client_ca: None }),
        ..Config::default()
    })
    .await
    .unwrap();
    let _agent = informed(&world, world.agent()).await;
    let check = async |ca: &str| {
        let mut command = beside(&world);
        let endpoint = format!("grpcs://{}", secured.grpc_addr());
        command.args(["--manager", &world.manager.grpc_addr().to_string(), "--manager", &endpoint]);
        command.arg("--ca-file").arg(world.path(ca));
        Checked::of(command).await
    };
    let name = format!("manager grpcs://{}", secured.grpc_addr());
    let well = check("ca.pem").await;
    well.are(&[]);
    assert!(well.found(&name).found.ends_with("(TLSv1_3)"), "{}", well.out);
    assert_eq!(well.found("CA file").verdict, Verdict::Ok);
    let wrong = check("other.pem").await;
    wrong.only(&name, Verdict::Failed, "TLS: ");
    assert!(wrong.found(&name).todo.as_ref().unwrap().contains("--ca-file"), "{}", wrong.out);
}

#[tokio::test]
async fn a_wrong_password_is_told_as_such_and_never_shown() {
    let world = World::new().await;
    let agent = with_rest(&world);
    Checked::of(alone(&world, &agent)).await.are(&[NO_AGENT]);
    std::fs::write(world.path("password"), "not-the-one\n").unwrap();
    let checked = Checked::of(alone(&world, &agent)).await;
    checked.are(&[NO_AGENT, ("sign-in", Verdict::Failed)]);
    let sign_in = checked.found("sign-in");
    assert!(sign_in.found.starts_with("sign-in as \"viewer\""), "{sign_in:?}");
    assert!(sign_in.todo.as_ref().unwrap().contains("--password-file are right"), "{sign_in:?}");
    assert!(!checked.out.contains("not-the-one"), "{}", checked.out);
}

#[tokio::test]
async fn another_user_than_the_agents_is_not_vouched_for_by_it() {
    let config = Config { users: vec![User::guest("other", "password-2")], ..Config::default() };
    let world = World::with(config).await;
    let _agent = informed(&world, with_rest(&world)).await;
    let check = async |password: &str| {
        std::fs::write(world.path("other"), password).unwrap();
        mode(&world.path("other"), 0o600);
        let mut command = beside(&world);
        command.args(["--username", "other", "--password-file"]).arg(world.path("other"));
        Checked::of(command).await
    };
    check("password-2").await.are(&[]);
    check("wrong-password").await.only("sign-in", Verdict::Failed, "sign-in as \"other\"");
}

#[tokio::test]
async fn a_scheduler_that_is_gone_is_failed() {
    let mut world = World::new().await;
    let agent = world.agent();
    Checked::of(alone(&world, &agent)).await.are(&[NO_AGENT]);
    world.scheduler.vanish().await;
    let checked = Checked::of(alone(&world, &agent)).await;
    checked.are(&[NO_AGENT, ("scheduler", Verdict::Failed)]);
    assert!(checked.found("scheduler").found.starts_with("nobody listens at 127.0.0.1:"), "{}", checked.out);
}

#[tokio::test]
async fn a_scheduler_that_wants_a_client_certificate_is_told_as_such() {
    let world = World::new().await;
    let ca = Authority::new();
    let (cert, key) = ca.leaf();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.ca.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, addr) = silent().await;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            // Whoever has no certificate is turned away; the outcome is seen at the other end.
            tokio::spawn(async move { drop(acceptor.accept(tcp).await) });
        }
    });
    let mut agent = world.agent();
    agent.env("SIGNOFF_SCHEDULER_ADDR", &addr);
    let checked = Checked::of(alone(&world, &agent)).await;
    checked.are(&[NO_AGENT, ("scheduler", Verdict::Failed)]);
    let scheduler = checked.found("scheduler");
    assert!(scheduler.found.starts_with("it wants a client certificate"), "{scheduler:?}");
    assert!(scheduler.todo.as_ref().unwrap().contains("--scheduler-config"), "{scheduler:?}");
}

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
        ("fsync:delay_enter=600000", "spool", Verdict::Warning, "an fsync took"),
    ] {
        let Some(command) = injected(&check, &[injection]) else { return };
        let checked = Checked::of(command).await;
        checked.are(&[NO_AGENT, (name, verdict)]);
        assert!(checked.found(name).found.contains(said), "{injection}: {}", checked.out);
        assert_eq!(std::fs::read_dir(world.path("spool")).unwrap().count(), 0);
    }
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
async fn a_hook_token_that_is_not_there_is_failed() {
    let world = World::new().await;
    let mut agent = world.agent();
    agent.env("SIGNOFF_HOOK_TOKEN_FILE", world.path("token"));
    let _agent = informed(&world, agent).await;
    let path = world.path("token").display().to_string();
    Checked::of(beside(&world)).await.only("hook token file", Verdict::Failed, &path);
    std::fs::write(world.path("token"), "secret-token\n").unwrap();
    mode(&world.path("token"), 0o600);
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

#[tokio::test]
async fn a_drain_that_is_on_is_told_by_the_agent() {
    let world = World::new().await;
    let _agent = informed(&world, world.agent()).await;
    let (code, out, err) = run(world.command(&["pre-stop"])).await;
    assert_eq!(code, 0, "{out}{err}");
    Checked::of(beside(&world)).await.only("agent: drain", Verdict::Warning, "the row stays inactive");
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
    agent = world.command(&["check", "-o", "json", "--grace", "1s"]);
    let (code, out, err) = run(agent).await;
    assert_eq!((code, out.as_str()), (64, ""), "{err}");
    assert!(err.contains("--grace"), "{err}");
}
