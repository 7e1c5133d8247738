//! A manager that is far away: everything takes 400 ms each way.

use std::{net::SocketAddr, time::Duration};

use signoff::{
    manager::State,
    mock::{
        TlsFiles,
        manager::{Config, MockManager, User},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    harness::{PASSWORD, Process, World, eventually, run},
    hook::{metric, own_address},
    trust::{Authority, for_loopback},
};

const ONE_WAY: Duration = Duration::from_millis(400);

/// A way to `server`, on which all that is sent arrives later. TCP's own handshake is the kernel's, and takes no time.
async fn way_to(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(far) = TcpStream::connect(server).await else { return };
                let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                tokio::join!(carry(from_near, to_far), carry(from_far, to_near));
            });
        }
    });
    addr
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let (send, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let leave = async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut bytes).await {
            let _ = send.send((Instant::now() + ONE_WAY, bytes[..n].to_vec()));
        }
    };
    let arrive = async move {
        while let Some((at, bytes)) = under_way.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(leave, arrive);
}

#[tokio::test]
async fn g3_a_manager_that_is_far_away_is_spoken_to_like_a_near_one() {
    let mut world = World::new().await;
    let authority = Authority::new();
    authority.write(&world.path("ca.pem"));
    let (cert, key) = (world.path("manager.pem"), world.path("manager-key.pem"));
    authority.issue(for_loopback(), &cert, &key);
    let manager = MockManager::start(Config {
        tls: Some(TlsFiles { cert, key, client_ca: None }),
        users: vec![User::guest("viewer", PASSWORD)],
        database: Some(world.manager.table().clone()),
        ..Config::default()
    })
    .await
    .unwrap();
    let (grpc, rest) = (way_to(manager.grpc_addr()).await, way_to(manager.rest_addr()).await);
    let listen = own_address();
    let with_far_manager = |mut command: std::process::Command| {
        command
            .env("SIGNOFF_MANAGER", format!("grpcs://{grpc},https://{rest}"))
            .env("SIGNOFF_CA_FILE", world.path("ca.pem"))
            .env("SIGNOFF_LISTEN", listen.to_string());
        command
    };
    let agent = Process::watching(with_far_manager(world.agent_with_rest())).await;
    let is = async |name: &str, value: &str| {
        eventually(name, async || (metric(listen, name).await == value).then_some(())).await;
    };
    is("signoff_identity_known", "1.0").await;
    is("signoff_row_active", "1.0").await;
    // Over REST: no connection failed on the way there.
    assert!(!agent.log().contains("REST does not answer"), "{}", agent.log());
    // A row that somebody made inactive is given back.
    world.manager.table().set_by_hand(&world.key, State::Inactive).unwrap();
    world.until_active_for_good().await;
    let (_, found, _) = run(with_far_manager(world.command(&["check"]))).await;
    for name in [format!("manager grpcs://{grpc}"), format!("manager https://{rest}"), "identity".to_owned()]
    {
        let line = found.lines().find(|line| line.starts_with(&name)).unwrap();
        assert_eq!(line[name.len()..].split_whitespace().next(), Some("ok"), "{found}");
    }
    agent.term();
    world.scheduler.vanish().await;
    let log = agent.ends_signed_off(&world).await;
    assert!(!log.contains("No manager answers"), "{log}");
}
