//! A manager's TLS that turns bad while the agent runs: nothing is told to who is there then, and nothing believed.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::future::join_all;
use rcgen::{CertificateParams, date_time_ymd};
use signoff::{
    manager::State,
    mock::{
        TlsFiles,
        manager::{Config, MockManager, User},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    harness::{PASSWORD, Process, World},
    secret,
    trust::{Authority, for_loopback},
};

/// Who answers for a manager.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Who listens there.
    Of(SocketAddr),
    /// One that wants TLS 1.1.
    OldTls,
}

/// ServerHello, TLS 1.1 with TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA.
fn hello_of_tls_1_1() -> Vec<u8> {
    let record = [0x16, 3, 2, 0, 42];
    let handshake = [2, 0, 0, 38, 3, 2];
    [&record[..], &handshake, &[7; 32], &[0, 0xc0, 0x13, 0]].concat()
}

/// A TCP proxy, behind which another may come to stand. All that clients sent to it is kept.
struct Front {
    addr: SocketAddr,
    place: watch::Sender<Place>,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Front {
    async fn of(manager: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let place = watch::Sender::new(Place::Of(manager));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (changes, hears) = (place.subscribe(), heard.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut changes, hears) = (changes.clone(), hears.clone());
                tokio::spawn(async move {
                    let place = *changes.borrow_and_update();
                    tokio::select! {
                        () = Self::pass(client, place, hears) => {}
                        // Cut, so that it is met anew.
                        _ = changes.changed() => {}
                    }
                });
            }
        });
        Self { addr, place, heard }
    }

    async fn pass(mut client: TcpStream, place: Place, hears: Arc<Mutex<Vec<u8>>>) {
        let (mut from_client, mut to_client) = client.split();
        let mut bytes = [0; 4096];
        let (mut server, answer) = match place {
            Place::Of(addr) => (TcpStream::connect(addr).await.ok(), Vec::new()),
            Place::OldTls => (None, hello_of_tls_1_1()),
        };
        let _ = to_client.write_all(&answer).await;
        let (mut from_server, mut to_server) = match &mut server {
            Some(server) => {
                let (from, to) = server.split();
                (Some(from), Some(to))
            }
            None => (None, None),
        };
        let there = async {
            while let Ok(n @ 1..) = from_client.read(&mut bytes).await {
                hears.lock().unwrap().extend_from_slice(&bytes[..n]);
                if let Some(to) = &mut to_server
                    && to.write_all(&bytes[..n]).await.is_err()
                {
                    break;
                }
            }
        };
        let back = async {
            match &mut from_server {
                Some(from) => drop(tokio::io::copy(from, &mut to_client).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = there => {}
            () = back => {}
        }
    }
}

/// A manager over the world's table, with this certificate or without TLS.
async fn manager(
    world: &World,
    name: &str,
    certificate: Option<(&Authority, CertificateParams)>,
) -> MockManager {
    let tls = certificate.map(|(authority, params)| {
        let (cert, key) = (world.path(&format!("{name}.pem")), world.path(&format!("{name}-key.pem")));
        authority.issue(params, &cert, &key);
        TlsFiles { cert, key, client_ca: None }
    });
    let users = vec![User::guest("viewer", PASSWORD)];
    let database = Some(world.manager.table().clone());
    MockManager::start(Config { tls, users, database, ..Config::default() }).await.unwrap()
}

/// What stands in the manager's place, and what the agent says of it.
async fn nothing_is_told_or_believed(bad: &str, said: &str) {
    let mut world = World::new().await;
    let (right, wrong) = (Authority::new(), Authority::new());
    right.write(&world.path("ca.pem"));
    let good = manager(&world, "good", Some((&right, for_loopback()))).await;
    let mut params = for_loopback();
    let impostor = match bad {
        "expired" => {
            (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
            Some((&right, params))
        }
        "not yet valid" => {
            (params.not_before, params.not_after) = (date_time_ymd(2901, 1, 1), date_time_ymd(2902, 1, 1));
            Some((&right, params))
        }
        "for another name" => Some((&right, CertificateParams::new(vec!["127.0.0.2".to_owned()]).unwrap())),
        "of another CA" => Some((&wrong, params)),
        // It would take the sign-off, and the password.
        "without TLS" => None,
        "of TLS 1.1" => None,
        _ => unreachable!(),
    };
    let impostor = manager(&world, "impostor", impostor).await;
    let (grpc, rest) = (Front::of(good.grpc_addr()).await, Front::of(good.rest_addr()).await);
    let mut command = world.agent_with_rest();
    command
        .env("SIGNOFF_MANAGER", format!("grpcs://{},https://{}", grpc.addr, rest.addr))
        .env("SIGNOFF_CA_FILE", world.path("ca.pem"));
    let agent = Process::watching(command).await;
    agent.says("Read the row.").await;
    let place = |addr| if bad == "of TLS 1.1" { Place::OldTls } else { Place::Of(addr) };
    grpc.place.send_replace(place(impostor.grpc_addr()));
    rest.place.send_replace(place(impostor.rest_addr()));
    agent.hears_term().await;
    world.scheduler.vanish().await;
    agent.says_times("An attempt did not succeed.", 3).await;
    let log = agent.log();
    assert_eq!((world.state(), world.asks().len()), (Some(State::Active), 1), "{bad}: {log}");
    assert!(log.contains(said), "{bad}: {log}");
    grpc.place.send_replace(Place::Of(good.grpc_addr()));
    rest.place.send_replace(Place::Of(good.rest_addr()));
    agent.ends_signed_off(&world).await;
    for heard in [grpc.heard, rest.heard] {
        let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
        assert!(heard.len() > 1000, "{bad}: this has heard nothing");
        secret::none_in(&heard, "what was sent without TLS");
    }
}

#[tokio::test]
async fn a_manager_whose_tls_turns_bad_while_the_agent_runs_is_told_nothing_and_not_believed() {
    let bad = [
        ("expired", "certificate expired"),
        ("not yet valid", "certificate not valid yet"),
        ("for another name", "certificate not valid for name"),
        ("of another CA", "BadSignature"),
        (
            "without TLS",
            "what answers there does not speak TLS: if that manager has no TLS, give it as grpc://",
        ),
        ("of TLS 1.1", "ServerDoesNotSupportTls12Or13"),
    ];
    join_all(bad.map(|(bad, said)| nothing_is_told_or_believed(bad, said))).await;
}
