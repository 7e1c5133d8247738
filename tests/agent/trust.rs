//! Names, certificates, passwords: what stands between an agent and a manager, or a scheduler, that is there.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use signoff::{
    manager::State,
    mock::{
        TlsFiles,
        fault::{Fault, Kind},
        manager::{Config, MockManager},
    },
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    harness::{PASSWORD, Process, World},
    hook::{exchange, metric, own_address},
};

/// A CA.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes the CA's own certificate.
    pub(crate) fn write(&self, path: &Path) {
        put(path, &self.0.pem());
    }

    /// Writes a certificate and its key, with these names.
    pub(crate) fn issue(&self, params: CertificateParams, cert: &Path, key: &Path) {
        let pair = KeyPair::generate().unwrap();
        put(cert, &params.signed_by(&pair, &self.0).unwrap().pem());
        put(key, &pair.serialize_pem());
    }
}

/// A certificate for 127.0.0.1, valid for ever.
pub(crate) fn for_loopback() -> CertificateParams {
    CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap()
}

/// Something that ends TLS at that address, and wants a client certificate: a service mesh's proxy, by its own; else as a scheduler
/// does.
pub(crate) async fn ends_tls(at: SocketAddr, of_a_mesh: bool) -> (MockManager, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let [cert, key, clients] = ["cert.pem", "key.pem", "clients.pem"].map(|name| dir.path().join(name));
    let mut params = for_loopback();
    if of_a_mesh {
        let id = "spiffe://cluster.local/ns/shop/sa/cart".try_into().unwrap();
        params.subject_alt_names = vec![SanType::URI(id)];
    }
    authority.issue(params, &cert, &key);
    authority.write(&clients);
    let tls = Some(TlsFiles { cert, key, client_ca: Some(clients) });
    (MockManager::start(Config { grpc: at, tls, ..Config::default() }).await.unwrap(), dir)
}

/// Puts a whole file in place at once, as a Secret's update does.
fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// A manager behind TLS over the world's own table; with `clients`, it asks for a certificate of that CA.
async fn behind_tls(world: &World, authority: &Authority, clients: Option<&Authority>) -> MockManager {
    let (cert, key) = (world.path("server.pem"), world.path("server-key.pem"));
    authority.issue(for_loopback(), &cert, &key);
    let client_ca = clients.map(|clients| {
        clients.write(&world.path("clients.pem"));
        world.path("clients.pem")
    });
    let config = Config {
        database: Some(world.manager.table().clone()),
        tls: Some(TlsFiles { cert, key, client_ca }),
        ..Config::default()
    };
    MockManager::start(config).await.unwrap()
}

/// An agent that speaks TLS to `manager` and trusts what is in the world's `ca.pem`.
fn agent_over_tls(world: &World, manager: &MockManager) -> Command {
    let mut command = world.agent();
    command
        .env("SIGNOFF_MANAGER", format!("grpcs://{}", manager.grpc_addr()))
        .env("SIGNOFF_CA_FILE", world.path("ca.pem"));
    command
}

/// The same with a client's certificate.
fn agent_over_mtls(world: &World, manager: &MockManager) -> Command {
    let mut command = agent_over_tls(world, manager);
    command
        .env("SIGNOFF_CERT_FILE", world.path("client.pem"))
        .env("SIGNOFF_KEY_FILE", world.path("client-key.pem"));
    command
}

#[tokio::test]
async fn a_manager_whose_name_does_not_resolve_leaves_the_ask_queued() {
    let mut world = World::new().await;
    let mut command = world.agent();
    command.env("SIGNOFF_MANAGER", "manager.invalid:65003").arg("--grace=6s");
    let agent = Process::watching(command).await;
    agent.says("manager.invalid").await;
    agent.hears_term().await;
    world.scheduler.vanish().await;
    let (code, log) = agent.ended().await;
    assert_eq!(code, 75, "{log}");
    assert_eq!((world.state(), world.asks().len()), (Some(State::Active), 1), "{log}");
}

/// `command` with a hosts file of its own, in a mount namespace; none where such a thing can't be had.
fn with_hosts(command: &Command, hosts: &Path) -> Option<Command> {
    let unshared = |program: &str| {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["-r", "-m", "/bin/sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
            .arg(hosts)
            .arg(program);
        unshare
    };
    if !unshared("/bin/true").status().is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI has to allow unshare -r -m");
        println!("SKIPPED: no mount namespace can be had here (unshare -r -m)");
        return None;
    }
    let mut unshare = unshared(command.get_program().to_str()?);
    unshare.args(command.get_args()).env_clear().env("PATH", "/usr/bin:/bin");
    unshare.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(unshare)
}

#[tokio::test]
async fn a_name_that_resolves_only_later_gets_the_sign_off_through() {
    let mut world = World::new().await;
    let hosts = world.path("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let mut command = world.agent();
    command.env("SIGNOFF_MANAGER", format!("manager.invalid:{}", world.manager.grpc_addr().port()));
    let Some(command) = with_hosts(&command, &hosts) else { return };
    let agent = Process::watching(command).await;
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.says("An attempt did not succeed.").await;
    assert_eq!((world.state(), world.asks().len()), (Some(State::Active), 1), "{}", agent.log());
    // In place: a new file would not be seen behind the mount.
    std::fs::write(&hosts, "127.0.0.1 localhost manager.invalid\n").unwrap();
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn with_a_wrong_ca_nothing_is_signed_off_until_the_right_one_is_put_in_place() {
    let mut world = World::new().await;
    let (right, wrong) = (Authority::new(), Authority::new());
    let manager = behind_tls(&world, &right, None).await;
    wrong.write(&world.path("ca.pem"));
    let agent = Process::watching(agent_over_tls(&world, &manager)).await;
    agent.says("No manager answers").await;
    assert!(agent.log().contains("TLS: "), "{}", agent.log());
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.says_times("An attempt did not succeed.", 2).await;
    assert_eq!((world.state(), world.asks().len()), (Some(State::Active), 1), "{}", agent.log());
    right.write(&world.path("ca.pem"));
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn a_manager_that_asks_for_a_client_certificate_gets_it() {
    let mut world = World::new().await;
    let authority = Authority::new();
    authority.write(&world.path("ca.pem"));
    authority.issue(for_loopback(), &world.path("client.pem"), &world.path("client-key.pem"));
    let manager = behind_tls(&world, &authority, Some(&authority)).await;
    let agent = Process::watching(agent_over_mtls(&world, &manager)).await;
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn without_the_client_certificate_that_a_manager_asks_for_the_ask_is_kept() {
    let mut world = World::new().await;
    let authority = Authority::new();
    authority.write(&world.path("ca.pem"));
    let manager = behind_tls(&world, &authority, Some(&authority)).await;
    let mut command = agent_over_tls(&world, &manager);
    command.arg("--grace=6s");
    let agent = Process::watching(command).await;
    agent.says("No manager answers").await;
    agent.hears_term().await;
    world.scheduler.vanish().await;
    let (code, log) = agent.ended().await;
    assert_eq!(code, 75, "{log}");
    assert_eq!((world.state(), world.asks().len()), (Some(State::Active), 1), "{log}");
    assert!(log.to_lowercase().contains("certificate"), "it says what is missing: {log}");
}

#[tokio::test]
async fn a_client_certificate_rotated_while_the_agent_runs_is_used() {
    let mut world = World::new().await;
    let (server, old, new) = (Authority::new(), Authority::new(), Authority::new());
    server.write(&world.path("ca.pem"));
    old.issue(for_loopback(), &world.path("client.pem"), &world.path("client-key.pem"));
    let mut manager = behind_tls(&world, &server, Some(&old)).await;
    let agent = Process::watching(agent_over_mtls(&world, &manager)).await;
    // From now on only the new CA's certificates are taken, and the agent has one of the old.
    manager.stop().await;
    new.write(&world.path("clients.pem"));
    manager.restart().await.unwrap();
    agent.says("No manager answers").await;
    new.issue(for_loopback(), &world.path("client.pem"), &world.path("client-key.pem"));
    agent.says("The manager answers again.").await;
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

#[tokio::test]
async fn a_wrong_password_is_said_never_shown_and_keeps_nothing_from_being_signed_off() {
    let mut world = World::new().await;
    let command = world.agent_with_rest();
    let wrong = "s3cr3t-not-right";
    std::fs::write(world.path("password"), wrong).unwrap();
    let agent = Process::watching(command).await;
    agent.says("Rows can't be read over REST").await;
    // Not before the 35 s in which a manager may refuse a right one.
    agent.says("The manager refuses the user name or the password.").await;
    agent.hears_term().await;
    world.scheduler.vanish().await;
    let log = agent.ends_signed_off(&world).await;
    assert!(!log.contains(wrong), "{log}");
}

#[tokio::test]
async fn a_right_password_that_is_refused_for_half_a_minute_is_waited_for() {
    let world = World::new().await;
    let command = world.agent_with_rest();
    let body = format!("{{\"name\":\"viewer\",\"password\":\"{PASSWORD}\"}}");
    let request = format!(
        "POST /api/v1/users/signin HTTP/1.1\r\nHost: manager\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let (status, _) = exchange(world.manager.rest_addr(), None, &request).await.unwrap();
    assert_eq!(status, 200, "somebody else signs in");
    let agent = Process::watching(command).await;
    agent.says("Rows can't be read over REST").await;
    agent.says("REST works again: reads are fresh.").await;
    let log = agent.kill().await;
    assert!(!log.contains("refuses the user name or the password"), "{log}");
    assert!(!log.contains(PASSWORD), "{log}");
}

/// The process's largest resident memory so far, in KiB, by the socket it listens on.
fn peak_memory(world: &World) -> u64 {
    let socket = std::os::unix::net::UnixStream::connect(world.path("run").join("agent.sock")).unwrap();
    let pid = rustix::net::sockopt::socket_peercred(&socket).unwrap().pid;
    let path: PathBuf = format!("/proc/{}/status", pid.as_raw_nonzero()).into();
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_million_rows_are_cut_off_and_the_sign_off_goes_on() {
    let mut world = World::new().await;
    let usual = {
        let mut command = world.agent_with_rest();
        command.env("SIGNOFF_SPOOL", world.path("another-spool"));
        let agent = Process::watching(command).await;
        agent.says("Read the row.").await;
        peak_memory(&world)
    };
    world.manager.faults().add(Fault::new(Kind::MillionRow)).unwrap();
    let agent = Process::watching(world.agent_with_rest()).await;
    agent.says("Could not look for the key in the manager.").await;
    agent.says_times("The row could not be read.", 5).await;
    let peak = peak_memory(&world);
    println!("at most {peak} KiB resident, usually {usual} KiB");
    // An agent is to stay below 16 MiB, of which it usually takes 3; a build for tests takes many times that for its code.
    assert!(peak.saturating_sub(usual) < 12 * 1024, "{usual} to {peak} KiB: {}", agent.log());
    assert!(cfg!(debug_assertions) || peak < 16 * 1024, "{peak} KiB");
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
}

/// A TCP proxy before the scheduler that can be made to talk nonsense.
struct Proxy {
    addr: std::net::SocketAddr,
    nonsense: Arc<watch::Sender<bool>>,
}

impl Proxy {
    async fn before(target: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let nonsense = Arc::new(watch::Sender::new(false));
        let switch = nonsense.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut changes = switch.subscribe();
                tokio::spawn(async move {
                    let now = *changes.borrow_and_update();
                    let talk = async {
                        if now {
                            // An alert of TLS, as of a server that wants it, and then bytes of no protocol at all.
                            let _ = client.write_all(b"\x15\x03\x03\x00\x02\x02\x28\xff\x00garbage").await;
                            let _ = client.shutdown().await;
                        } else if let Ok(mut server) = TcpStream::connect(target).await {
                            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                        }
                    };
                    tokio::select! {
                        () = talk => {}
                        _ = changes.changed() => {}
                    }
                });
            }
        });
        Self { addr, nonsense }
    }
}

#[tokio::test]
async fn a_scheduler_that_talks_tls_nonsense_is_never_taken_for_down() {
    let world = World::new().await;
    let proxy = Proxy::before(world.scheduler.addr()).await;
    let mut command = world.agent();
    command.env("SIGNOFF_SCHEDULER_ADDR", proxy.addr.to_string());
    let agent = Process::watching(command).await;
    let history = world.manager.table().history().len();
    proxy.nonsense.send_replace(true);
    agent.says("state is unclear").await;
    // It looks again and again, and finds the same.
    agent.says_times("Can't tell whether the scheduler serves.", 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.manager.table().history().len(), history, "its row was left as it is: {}", agent.log());
    assert!(world.asks().is_empty(), "{}", agent.log());
    proxy.nonsense.send_replace(false);
    agent.says_times("The scheduler serves.", 2).await;
    assert_eq!(world.state(), Some(State::Active));
}

#[tokio::test]
async fn a_scheduler_that_needs_a_client_certificate_we_lack_is_never_taken_for_down() {
    let world = World::new().await;
    let authority = Authority::new();
    // It serves health as a scheduler does.
    let scheduler = behind_tls(&world, &authority, Some(&authority)).await;
    let address = own_address();
    let mut command = world.agent();
    command
        .env("SIGNOFF_SCHEDULER_ADDR", scheduler.grpc_addr().to_string())
        .env("SIGNOFF_LISTEN", address.to_string());
    let agent = Process::start(command);
    agent.says("Can't tell whether the scheduler serves.").await;
    let history = world.manager.table().history().len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.manager.table().history().len(), history, "its row was left as it is: {}", agent.log());
    assert!(world.asks().is_empty(), "{}", agent.log());
    assert_eq!(metric(address, "signoff_scheduler_up").await, "NaN");
}
