//! The scheduler beside the agent.

use std::time::{Duration, Instant};

use signoff::{
    key::SchedulerKey,
    manager::State,
    mock::{By, Channel, Config, MockManager, MockScheduler, SchedulerConfig, SchedulerError},
    proto::health_v1::{HealthCheckRequest, health_client::HealthClient},
};

use crate::support::{PATIENCE, eventually, key, mock, sign_off, with_ip};

const INTERVAL: Duration = Duration::from_millis(50);

async fn start(mock: &MockManager, key: &SchedulerKey) -> MockScheduler {
    let mut config = SchedulerConfig::new(key.clone(), mock.grpc_addr()).every(INTERVAL);
    config.register_port = Some(8002);
    MockScheduler::start(config).await.unwrap()
}

async fn active(mock: &MockManager, key: &SchedulerKey) {
    assert!(mock.table().eventually_state(key, Some(State::Active), PATIENCE).await);
}

async fn inactive(mock: &MockManager, key: &SchedulerKey) {
    assert!(mock.table().eventually_state(key, Some(State::Inactive), PATIENCE).await);
}

async fn health(scheduler: &MockScheduler) -> HealthClient<Channel> {
    let channel = Channel::connect(scheduler.addr()).await.unwrap();
    let origin = channel.origin();
    HealthClient::with_origin(channel, origin)
}

#[tokio::test]
async fn it_is_active_one_interval_after_its_start() {
    let mock = mock(Config::default()).await;
    let key = key("start");
    let begun = Instant::now();
    let mut config = SchedulerConfig::new(key.clone(), mock.grpc_addr()).every(Duration::from_millis(300));
    config.register_port = Some(8002);
    let _scheduler = MockScheduler::start(config).await.unwrap();
    assert_eq!(mock.table().state(&key).unwrap(), Some(State::Inactive));
    active(&mock, &key).await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn it_does_not_start_where_its_key_is_taken_by_another_port() {
    let mock = mock(Config::default()).await;
    let key = key("port");
    drop(start(&mock, &key).await);
    let mut config = SchedulerConfig::new(key, mock.grpc_addr());
    config.register_port = Some(8003);
    let refused = MockScheduler::start(config).await.unwrap_err();
    assert!(matches!(refused, SchedulerError::Refused { code: tonic::Code::Internal, .. }), "{refused}");
}

#[tokio::test]
async fn stopped_when_idle_it_is_inactive_and_gone_at_once() {
    let mock = mock(Config::default()).await;
    let key = key("stop");
    let mut scheduler = start(&mock, &key).await;
    active(&mock, &key).await;
    // An idle connection doesn't hold it, and sees the end.
    let mut idle = health(&scheduler).await;
    idle.check(HealthCheckRequest::default()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), scheduler.stop()).await.expect("it is gone");
    inactive(&mock, &key).await;
    assert!(Channel::connect(scheduler.addr()).await.is_err(), "its port is closed");
    eventually("the idle client's connection is over", async || {
        idle.check(HealthCheckRequest::default()).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn an_open_watch_keeps_it_from_stopping_until_it_is_cancelled() {
    let mock = mock(Config::default()).await;
    let key = key("watch");
    let mut scheduler = start(&mock, &key).await;
    active(&mock, &key).await;
    let mut client = health(&scheduler).await;
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    scheduler.begin_stop().await;
    inactive(&mock, &key).await;
    assert!(Channel::connect(scheduler.addr()).await.is_err(), "its port is closed");
    assert!(
        tokio::time::timeout(Duration::from_millis(300), scheduler.stopped()).await.is_err(),
        "it waits for the open call"
    );
    let event = tokio::time::timeout(Duration::from_millis(100), watch.message()).await;
    assert!(event.is_err(), "and the watcher hears nothing: {event:?}");
    drop(watch);
    tokio::time::timeout(PATIENCE, scheduler.stopped()).await.expect("it is gone");
}

#[tokio::test]
async fn killed_on_a_living_node_it_is_inactive_at_once() {
    let mock = mock(Config::default()).await;
    let key = key("kill");
    let mut scheduler = start(&mock, &key).await;
    active(&mock, &key).await;
    scheduler.kill().await;
    inactive(&mock, &key).await;
}

#[tokio::test]
async fn hung_or_on_a_lost_node_it_stays_active() {
    let mock = mock(Config::default()).await;
    let key = key("lost");
    let mut scheduler = start(&mock, &key).await;
    active(&mock, &key).await;
    scheduler.vanish().await;
    assert!(Channel::connect(scheduler.addr()).await.is_err(), "nothing answers there");
    let inactive = mock.table().eventually_state(&key, Some(State::Inactive), Duration::from_secs(2)).await;
    assert!(!inactive);
}

#[tokio::test]
async fn a_row_made_inactive_while_it_lives_is_repaired_by_nobody_however_often_it_is_kept_alive() {
    let mock = mock(Config::default()).await;
    let key = key("wronged");
    let _scheduler = start(&mock, &key).await;
    active(&mock, &key).await;
    sign_off(mock.grpc_addr(), &key).await.unwrap();
    let touched = |rows: &[signoff::mock::TableRow]| rows[0].last_keep_alive_at;
    for _ in 0..5 {
        let before = touched(&mock.table().rows().unwrap());
        assert!(mock.table().eventually(PATIENCE, |rows| touched(rows) > before).await);
        assert_eq!(mock.table().state(&key).unwrap(), Some(State::Inactive));
    }
}

#[tokio::test]
async fn it_reconnects_after_a_managers_restart_and_is_active_again() {
    let mut mock = mock(Config::default()).await;
    let key = key("reconnects");
    let _scheduler = start(&mock, &key).await;
    active(&mock, &key).await;
    mock.stop().await;
    mock.table().set_by_hand(&key, State::Inactive).unwrap();
    mock.restart().await.unwrap();
    active(&mock, &key).await;
    let last = mock.table().history().pop().unwrap();
    assert_eq!(last.by, By::FirstMessage);
}

#[tokio::test]
async fn stopped_while_its_manager_was_dead_it_stays_active_beside_its_successor() {
    let mut mock = mock(Config::default()).await;
    let old = key("successor");
    let new = with_ip(&old, "192.0.2.2");
    let mut scheduler = start(&mock, &old).await;
    active(&mock, &old).await;
    mock.stop().await;
    scheduler.stop().await;
    mock.restart().await.unwrap();
    let _successor = start(&mock, &new).await;
    active(&mock, &new).await;
    assert_eq!(mock.table().state(&old).unwrap(), Some(State::Active));
    assert_eq!(crate::support::list(mock.grpc_addr(), "peer", 0).await.len(), 2);
}
