//! What others have to answer: the manager's endpoints, the sign-in, the scheduler.

use std::{
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
    agent::socket::Verdict,
    mock::{Config, MockManager, TlsFiles, manager::User},
};
use tokio::net::TcpListener;

use super::{Checked, NO_AGENT, alone, beside, informed, mode, with_rest};
use crate::harness::World;

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
async fn an_endpoint_that_refuses_and_one_that_is_silent_are_failed_each_for_itself() {
    let world = World::new().await;
    let _agent = informed(&world, world.agent()).await;
    let grpc = world.manager.grpc_addr().to_string();
    let (dead, (_listener, mute)) = (refusing().await, silent().await);
    for (endpoint, said) in [(dead, "connection refused"), (mute, "it accepts connections, but")] {
        let mut command = beside(&world);
        command.args(["--manager", &grpc, "--manager", &endpoint]);
        let checked = Checked::of(command).await;
        checked.only(&format!("manager grpc://{endpoint}"), Verdict::Failed, said);
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
    let (grpc, rest) = (format!("manager grpc://{grpc}"), format!("manager http://{rest}"));
    let failed =
        ["agent", "identity", "sign-in", "scheduler", &grpc, &rest].map(|name| (name, Verdict::Failed));
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
    // Without TLS where it is wanted, and with TLS where there is none: what to give instead is said.
    let (secured_grpc, plain_grpc) = (secured.grpc_addr(), world.manager.grpc_addr());
    for (given, found, cure) in [
        (format!("grpc://{secured_grpc}"), "it speaks TLS", format!("give it as grpcs://{secured_grpc}")),
        (format!("grpcs://{plain_grpc}"), "does not speak TLS", format!("give it as grpc://{plain_grpc}")),
    ] {
        let mut command = beside(&world);
        command.args(["--manager", &plain_grpc.to_string(), "--manager", &given]);
        let checked = Checked::of(command).await;
        let finding = checked.found(&format!("manager {given}"));
        assert!(finding.verdict == Verdict::Failed && finding.found.contains(found), "{}", checked.out);
        assert!(finding.todo.as_ref().unwrap().contains(&cure), "{}", checked.out);
    }
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
    let config = Config { users: vec![User::guest("other", "s3cr3t-password-2")], ..Config::default() };
    let world = World::with(config).await;
    let _agent = informed(&world, with_rest(&world)).await;
    let check = async |password: &str| {
        std::fs::write(world.path("other"), password).unwrap();
        mode(&world.path("other"), 0o600);
        let mut command = beside(&world);
        command.args(["--username", "other", "--password-file"]).arg(world.path("other"));
        Checked::of(command).await
    };
    check("s3cr3t-password-2").await.are(&[]);
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
async fn something_that_answers_at_every_address_is_named_with_what_to_do() {
    let mut world = World::new().await;
    let agent = world.agent();
    let port = world.scheduler.addr().port();
    world.scheduler.vanish().await;
    let listener = TcpListener::bind(("0.0.0.0", port)).await.unwrap();
    let proxy = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            drop(tcp);
        }
    });
    let checked = Checked::of(alone(&world, &agent)).await;
    let probes = checked.found("probes");
    assert_eq!(probes.verdict, Verdict::Warning, "{}", checked.out);
    assert!(probes.found.contains("where nobody is"), "{probes:?}");
    assert!(probes.todo.as_ref().unwrap().contains("docs/meshes.md"), "{probes:?}");
    proxy.abort();
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

#[tokio::test]
async fn the_port_of_the_other_api_is_told_from_the_right_one() {
    let world = World::new().await;
    let mut agent = with_rest(&world);
    let grpc = world.manager.grpc_addr();
    agent.env("SIGNOFF_MANAGER", format!("{grpc},http://{grpc}"));
    let checked = Checked::of(alone(&world, &agent)).await;
    let name = format!("manager http://{grpc}");
    checked.are(&[NO_AGENT, (&name, Verdict::Failed), ("sign-in", Verdict::Failed)]);
    let todo = checked.found(&name).todo.as_deref();
    assert!(todo.is_some_and(|todo| todo.contains("REST port (usually 8080)")), "{}", checked.out);
}
