//! What an agent listens on: its ports and its socket, and who is turned away.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use signoff::{
    manager::State,
    mock::fault::{Fault, Kind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, UnixStream},
};

use crate::{
    harness::{Process, World, eventually},
    secret,
};

/// An address to listen at that nobody else has: a loopback IP of its own.
pub(crate) fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    ([127, (high & 0x7f) | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed)], 9802).into()
}

/// One request to an agent from `from`, as it is: the status and the whole answer. None where nobody listens.
pub(crate) async fn send(to: SocketAddr, from: Option<&str>, request: &str) -> Option<(u16, String)> {
    let (status, answer) = exchange(to, from, request).await?;
    secret::none_in(&answer, "an agent's answer");
    Some((status, answer))
}

/// The same, to whoever may answer a secret.
pub(crate) async fn exchange(to: SocketAddr, from: Option<&str>, request: &str) -> Option<(u16, String)> {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    }
    let mut stream = socket.connect(to).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some((answer.get(9..12)?.parse().ok()?, answer))
}

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n{headers}\r\n")
}

/// `GET path`, once somebody listens.
pub(crate) async fn get(to: SocketAddr, path: &str) -> (u16, String) {
    eventually("somebody listens", async || send(to, None, &request("GET", path, "")).await).await
}

/// A metric's value, by its name with the labels; empty if it isn't there.
pub(crate) async fn metric(to: SocketAddr, name: &str) -> String {
    let (_, text) = get(to, "/metrics").await;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_hook_drains_for_its_node_alone_and_says_whom_it_turned_away() {
    let world = World::new().await;
    let address = own_address();
    let mut command = world.agent();
    command.env("SIGNOFF_HOOK_LISTEN", address.to_string()).env("HOST_IP", "127.0.0.1");
    let agent = Process::watching(command).await;
    let hook = request("GET", "/pre-stop", "");
    let stranger =
        eventually("the hook listens", async || send(address, Some("127.9.8.7"), &hook).await).await;
    assert_eq!(stranger.0, 403, "{stranger:?}");
    agent.says("127.9.8.7").await;
    let posted =
        send(address, Some("127.0.0.1"), &request("POST", "/pre-stop", "Content-Length: 0\r\n")).await;
    assert_eq!(posted.unwrap().0, 405);
    assert_eq!(world.state(), Some(State::Active), "neither was a hook: {}", agent.log());
    let (status, body) = send(address, Some("127.0.0.1"), &hook).await.unwrap();
    assert_eq!((status, world.state()), (200, Some(State::Inactive)), "{body}");
    assert!(body.contains("confirmed"), "{body}");
}

#[tokio::test]
async fn the_hook_wants_its_token() {
    let world = World::new().await;
    std::fs::write(world.path("token"), "s3cr3t-sesame\n").unwrap();
    let address = own_address();
    let mut command = world.agent();
    command
        .env("SIGNOFF_HOOK_LISTEN", address.to_string())
        .env("SIGNOFF_HOOK_TOKEN_FILE", world.path("token"))
        .env("HOST_IP", "127.0.0.1");
    let agent = Process::watching(command).await;
    assert_eq!(get(address, "/").await.0, 404, "it listens");
    let wrong = request("GET", "/pre-stop", "Authorization: Bearer s3cr3t-barley\r\n");
    assert_eq!(send(address, None, &wrong).await.unwrap().0, 401);
    // What was refused is in the log, which is looked through for the token.
    agent.says("it has not the token").await;
    assert_eq!(get(address, "/pre-stop").await.0, 401);
    assert_eq!(world.state(), Some(State::Active), "{}", agent.log());
    let right = request("GET", "/pre-stop", "Authorization: Bearer s3cr3t-sesame\r\n");
    let (status, body) = send(address, None, &right).await.unwrap();
    assert_eq!((status, world.state()), (200, Some(State::Inactive)), "{body}");
}

#[tokio::test]
async fn a_token_that_is_missing_or_empty_is_said_at_the_start_and_for_as_long_as_it_is() {
    let world = World::new().await;
    let (address, listen) = (own_address(), own_address());
    let mut command = world.agent();
    command
        .env("SIGNOFF_HOOK_LISTEN", address.to_string())
        .env("SIGNOFF_LISTEN", listen.to_string())
        .env("SIGNOFF_HOOK_TOKEN_FILE", world.path("token"));
    let agent = Process::watching(command).await;
    let degraded = "signoff_degraded{reason=\"hook-token\"}";
    agent.says(&format!("--hook-token-file {} can't be read", world.path("token").display())).await;
    assert_eq!(metric(listen, degraded).await, "1", "{}", agent.log());
    std::fs::write(world.path("token"), "\n").unwrap();
    agent.says("is empty: it must hold one line").await;
    assert!(!agent.log().contains("A pre-stop hook"), "nobody called: {}", agent.log());
    std::fs::write(world.path("token"), "s3cr3t-sesame\n").unwrap();
    agent.says("No longer degraded.").await;
    assert_eq!(metric(listen, degraded).await, "0");
}

#[tokio::test]
async fn the_hook_blocks_until_it_is_done_and_twice_is_once() {
    let mut world = World::new().await;
    let address = own_address();
    let mut command = world.agent();
    command.env("SIGNOFF_HOOK_LISTEN", address.to_string()).env("HOST_IP", "127.0.0.1");
    let agent = Process::watching(command).await;
    world.manager.stop().await;
    let hook = request("GET", "/pre-stop", "");
    let call = || {
        let hook = hook.clone();
        tokio::spawn(async move { send(address, None, &hook).await.unwrap() })
    };
    assert_eq!(get(address, "/").await.0, 404, "it listens");
    let (one, two) = (call(), call());
    agent.says_times("A pre-stop hook came.", 2).await;
    agent.says("An attempt did not succeed.").await;
    assert!(!one.is_finished() && !two.is_finished(), "it answered before it was done");
    assert!(!world.asks().is_empty());
    world.manager.restart().await.unwrap();
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert_eq!((one.0, two.0, world.state()), (200, 200, Some(State::Inactive)), "{one:?} {two:?}");
    assert!(one.1.contains("confirmed") && two.1.contains("confirmed"), "{one:?} {two:?}");
    eventually("nothing is left", async || world.asks().is_empty().then_some(())).await;
}

#[tokio::test]
async fn the_hook_is_answered_long_before_the_grace_ends_and_the_sign_off_goes_on() {
    let mut world = World::new().await;
    let address = own_address();
    let mut command = world.agent();
    command.env("SIGNOFF_HOOK_LISTEN", address.to_string()).env("HOST_IP", "127.0.0.1").arg("--grace=90s");
    let agent = Process::watching(command).await;
    world.manager.stop().await;
    let began = Instant::now();
    let (status, body) = get(address, "/pre-stop").await;
    let took = began.elapsed();
    assert!(status == 200 && body.contains("queued"), "{body}");
    // The rest of the 90 s is the scheduler's.
    assert!(took < Duration::from_secs(30), "{took:?}: {}", agent.log());
    assert_eq!(world.asks().len(), 1);
    world.manager.restart().await.unwrap();
    world.until(State::Inactive).await;
    eventually("it is settled", async || world.asks().is_empty().then_some(())).await;
}

#[tokio::test]
async fn the_port_is_alive_at_once_and_ready_for_good_once_the_manager_has_answered() {
    let mut world = World::new().await;
    world.manager.stop().await;
    let address = own_address();
    let mut command = world.agent();
    command.env("SIGNOFF_LISTEN", address.to_string()).env("SIGNOFF_READY_AFTER_MANAGER", "true");
    let agent = Process::watching(command).await;
    assert_eq!(get(address, "/livez").await.0, 200);
    assert_eq!(get(address, "/readyz").await.0, 503);
    world.manager.restart().await.unwrap();
    eventually("ready", async || (get(address, "/readyz").await.0 == 200).then_some(())).await;
    world.manager.stop().await;
    agent.says_times("No manager answers", 2).await;
    assert_eq!(get(address, "/readyz").await.0, 200, "for good");
    assert_eq!(get(address, "/livez").await.0, 200);
    assert_eq!(metric(address, "signoff_scheduler_up").await, "1.0");
    assert_eq!(send(address, None, &request("POST", "/livez", "")).await.unwrap().0, 405);
    assert_eq!(get(address, "/pre-stop").await.0, 404, "the hook is not served there");
}

#[tokio::test]
async fn without_that_flag_the_port_is_ready_though_no_manager_answers() {
    let mut world = World::new().await;
    world.manager.stop().await;
    let address = own_address();
    let mut command = world.agent();
    command.env("SIGNOFF_LISTEN", address.to_string());
    let _agent = Process::watching(command).await;
    assert_eq!(get(address, "/readyz").await.0, 200);
}

#[tokio::test]
async fn a_version_that_the_socket_does_not_speak_is_refused_in_clear_words() {
    let world = World::new().await;
    world.manager.faults().add(Fault::new(Kind::Unavailable)).unwrap();
    let _agent = Process::watching(world.agent()).await;
    let asked = async |line: &str| {
        let mut stream = UnixStream::connect(world.path("run").join("agent.sock")).await.unwrap();
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        secret::none_in(&answer, "the socket's answer");
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()
    };
    let answer = asked("{\"version\":7,\"request\":\"pre-stop\",\"colour\":\"red\"}\n").await;
    let said = answer["refused"].as_str().unwrap();
    assert!(said.contains("version 7 is not spoken") && said.contains("version 1"), "{said}");
    assert!(world.asks().is_empty(), "it was no pre-stop");
    let answer = asked("{\"version\":1,\"request\":\"status\"}\n").await;
    assert_eq!(answer["status"]["key"]["hostname"], world.key.hostname.as_str(), "{answer}");
}
