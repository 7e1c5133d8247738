use std::time::Duration;

use super::*;
use crate::net::testing::{Answer, BlackHole, Server, eventually, refusing};

fn key() -> SchedulerKey {
    SchedulerKey::new(1.try_into().unwrap(), "sched-0".parse().unwrap(), "10.0.0.7".parse().unwrap())
}

fn settings(grpc: std::net::SocketAddr) -> ManagerSettings {
    ManagerSettings { grpc: vec![Endpoint::grpc(grpc.into(), false)], ..Default::default() }
}

#[test]
fn a_grpc_endpoint_is_needed_and_each_api_has_its_own() {
    let said = |settings| Client::new(settings).err().unwrap();
    assert_eq!(said(ManagerSettings::default()), SettingsError::NoGrpc);
    let rest: Endpoint = "http://m:8080".parse().unwrap();
    let wrong = ManagerSettings { grpc: vec![rest.clone()], ..Default::default() };
    assert_eq!(said(wrong), SettingsError::WrongApi(rest));
}

#[tokio::test]
async fn g5_where_rest_fails_grpc_answers_and_says_how_old_it_may_be() {
    let server = Server::start(Answer::Ok).await;
    let dead: Endpoint = format!("http://{}", refusing().await).parse().unwrap();
    let client = Client::new(ManagerSettings { rest: vec![dead], ..settings(server.addr) }).unwrap();
    assert_eq!(client.freshness(), Freshness::Within30s);
    let read = client.read_row(&key()).await.unwrap();
    assert_eq!(read.freshness, Freshness::Within30s);
    assert!(client.list(&Filter::Ip("10.0.0.7".parse().unwrap())).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn g3_where_every_rest_endpoint_hangs_a_read_has_time_left_for_grpc() {
    let server = Server::start(Answer::Ok).await;
    let holes = futures_util::future::join_all((0..8).map(|_| BlackHole::start())).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "correct-horse").unwrap();
    let rest = holes.iter().map(|hole| format!("http://{}", hole.addr).parse().unwrap()).collect();
    let client = Client::new(ManagerSettings {
        rest,
        username: Some("guest".into()),
        password_file: Some(file),
        ..settings(server.addr)
    })
    .unwrap();
    // As the agent's shell reads.
    let read = timeout(READ_LIMIT, client.read_row(&key())).await.expect("it was cut").unwrap();
    assert_eq!(read.freshness, Freshness::Within30s);
    let ip = Filter::Ip("10.0.0.7".parse().unwrap());
    assert!(timeout(READ_LIMIT, client.list(&ip)).await.expect("it was cut").unwrap().rows.is_empty());
}

#[tokio::test]
async fn where_both_fail_both_are_named() {
    let (grpc, rest) = (refusing().await, refusing().await);
    let dead: Endpoint = format!("http://{rest}").parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "correct-horse").unwrap();
    let client = Client::new(ManagerSettings {
        rest: vec![dead],
        username: Some("guest".into()),
        password_file: Some(file),
        ..settings(grpc)
    })
    .unwrap();
    let why = client.read_row(&key()).await.unwrap_err().why;
    assert!(why.contains(&grpc.to_string()) && why.contains(&rest.to_string()), "{why}");
    assert!(!why.contains("correct-horse"), "{why}");
}

#[tokio::test]
async fn deletion_without_rest_says_what_it_needs() {
    let client = Client::new(settings(refusing().await)).unwrap();
    assert!(client.delete(1).await.unwrap_err().why.contains("--password-file"));
}

#[tokio::test]
async fn a_dropped_client_leaves_nothing_running() {
    let mut server = Server::start(Answer::Ok).await;
    let client = Client::new(settings(server.addr)).unwrap();
    let contact = client.watch();
    eventually("the manager answered", || contact.borrow().answered).await;
    drop(client);
    // The keeper holds the other end of this: gone with it.
    eventually("the keeper has ended", || contact.has_changed().is_err()).await;
    server.kill().await;
}

#[tokio::test]
async fn a_sign_off_on_the_warm_connection_makes_no_other() {
    let server = Server::start(Answer::Ok).await;
    let client = Client::new(settings(server.addr)).unwrap();
    let contact = client.watch();
    eventually("the manager answered", || contact.borrow().answered).await;
    let options = AttemptOptions { hedge: false, limit: Duration::from_secs(20) };
    assert_eq!(client.sign_off(&key(), options).await, Outcome::Confirmed);
    assert_eq!(server.script.count("connection"), 1);
}
