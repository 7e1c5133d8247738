//! What goes wrong in a manager, its database and its Redis.

use std::time::{Duration, Instant};

use signoff::{
    manager::State,
    mock::{Channel, Config, Fault, Kind, MockManager},
};
use tonic::Code;

use crate::support::{PATIENCE, Stream, beat, client, eventually, key, mock, register, said, sign_off};

async fn with(fault: Fault) -> (MockManager, signoff::key::SchedulerKey) {
    let mock = mock(Config::default()).await;
    let key = key("outage");
    register(mock.grpc_addr(), &key).await;
    mock.faults().add(fault).unwrap();
    (mock, key)
}

#[tokio::test]
async fn a_database_that_is_gone_is_internal_with_its_words_and_nothing_is_applied() {
    let (mock, key) = with(Fault::new(Kind::Internal).count(1)).await;
    let (code, message) = said(sign_off(mock.grpc_addr(), &key).await);
    assert_eq!(code, Code::Internal);
    assert!(message.starts_with("dial tcp ") && message.ends_with("connection refused"), "{message}");
    assert_eq!(mock.table().history().len(), 1, "the registration alone");
}

#[tokio::test]
async fn a_database_lost_between_the_two_moments_leaves_the_row_active() {
    let (mock, key) = with(Fault::new(Kind::DatabaseLost).count(1)).await;
    let answer = said(sign_off(mock.grpc_addr(), &key).await);
    assert_eq!(answer, (Code::Internal, "invalid connection".into()));
    assert_eq!(mock.table().state(&key).unwrap(), Some(State::Active));
}

#[tokio::test]
async fn a_call_given_up_on_is_still_applied_later_both_moments() {
    let late = Fault::new(Kind::ApplyLate).after(Duration::from_millis(500)).count(1);
    let (mock, key) = with(late).await;
    let stream = Stream::open(mock.grpc_addr()).await;
    stream.send(beat(&key));
    eventually("the call was taken up", async || mock.faults().list().is_empty()).await;
    stream.lose();
    assert_eq!(mock.table().history().len(), 1, "nothing yet");
    assert!(mock.table().eventually(PATIENCE, |_| mock.table().history().len() == 3).await);
    let states: Vec<_> = mock.table().history().iter().map(|c| c.to).collect();
    assert_eq!(states[1..], [Some(State::Active), Some(State::Inactive)]);
}

#[tokio::test]
async fn a_manager_that_dies_between_the_two_moments_leaves_the_row_active() {
    let (mut mock, key) = with(Fault::new(Kind::RedisDown)).await;
    let stream = Stream::open(mock.grpc_addr()).await;
    stream.send(beat(&key));
    // `inactive` waits for the first moment's cache; the manager is killed meanwhile.
    assert!(mock.table().eventually_state(&key, Some(State::Active), PATIENCE).await);
    mock.stop().await;
    assert!(stream.half_close().await.is_err());
    mock.faults().clear();
    mock.restart().await.unwrap();
    assert_eq!(mock.table().state(&key).unwrap(), Some(State::Active));
}

#[tokio::test]
async fn with_redis_down_inactive_comes_after_three_seconds_and_ok_after_five_to_seven() {
    let (mock, key) = with(Fault::new(Kind::RedisDown)).await;
    let begun = Instant::now();
    let answer = tokio::spawn({
        let (addr, key) = (mock.grpc_addr(), key.clone());
        async move { (sign_off(addr, &key).await, begun.elapsed()) }
    });
    assert!(mock.table().eventually_state(&key, Some(State::Active), PATIENCE).await);
    assert!(mock.table().eventually_state(&key, Some(State::Inactive), PATIENCE).await);
    assert!(begun.elapsed() >= Duration::from_millis(3400), "{:?}", begun.elapsed());
    let (answer, took) = answer.await.unwrap();
    assert_eq!(answer.unwrap(), 0);
    assert!(took >= Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn with_redis_frozen_there_is_no_answer_and_inactive_comes_two_seconds_after_the_client_gave_up() {
    let (mock, key) = with(Fault::new(Kind::RedisFrozen)).await;
    let stream = Stream::open(mock.grpc_addr()).await;
    stream.send(beat(&key));
    assert!(mock.table().eventually_state(&key, Some(State::Active), PATIENCE).await);
    let gave_up = Instant::now();
    stream.lose();
    assert!(mock.table().eventually_state(&key, Some(State::Inactive), PATIENCE).await);
    assert!(gave_up.elapsed() >= Duration::from_secs(2), "{:?}", gave_up.elapsed());
}

#[tokio::test]
async fn a_stopping_manager_closes_its_listener_tells_its_clients_to_go_and_still_records_open_streams() {
    let mut mock = mock(Config::default()).await;
    let key = key("stopping");
    register(mock.grpc_addr(), &key).await;
    let stream = Stream::open(mock.grpc_addr()).await;
    stream.send(beat(&key));
    assert!(mock.table().eventually_state(&key, Some(State::Active), PATIENCE).await);
    let mut idle = client(mock.grpc_addr()).await;
    mock.stop_gracefully().await;
    assert!(Channel::connect(mock.grpc_addr()).await.is_err(), "the listener is closed");
    eventually("a new call on a warm connection fails", async || {
        idle.update_scheduler(crate::support::registration(&key)).await.is_err()
    })
    .await;
    assert_eq!(mock.table().state(&key).unwrap(), Some(State::Active));
    assert_eq!(stream.half_close().await.unwrap(), 0);
    assert_eq!(mock.table().state(&key).unwrap(), Some(State::Inactive));
    tokio::time::timeout(PATIENCE, mock.stopped()).await.expect("it has ended");
}

#[tokio::test]
async fn a_killed_managers_streams_end_without_the_write_of_inactive() {
    let mut mock = mock(Config::default()).await;
    let key = key("killed");
    register(mock.grpc_addr(), &key).await;
    let stream = Stream::open(mock.grpc_addr()).await;
    stream.send(beat(&key));
    assert!(mock.table().eventually_state(&key, Some(State::Active), PATIENCE).await);
    mock.stop().await;
    assert!(stream.answer().await.is_err());
    mock.restart().await.unwrap();
    assert_eq!(mock.table().state(&key).unwrap(), Some(State::Active));
}

#[tokio::test(start_paused = true)]
async fn the_hourly_collection_is_late_by_up_to_an_hour_and_begins_anew_with_each_start() {
    let hour = Duration::from_secs(3600);
    let mut mock = mock(Config { collect_every: Some(hour), ..Config::default() }).await;
    let key = key("orphan");
    let row = signoff::mock::Registration {
        hostname: key.hostname.to_string(),
        ip: key.ip.to_string(),
        port: 8002,
        cluster_id: 1,
        config: serde_json::json!({ "manager_keep_alive_interval": 5_000_000_000u64 }),
        ..Default::default()
    };
    mock.table().register(row).unwrap();
    mock.table().set_by_hand(&key, State::Active).unwrap();
    tokio::time::sleep(Duration::from_secs(59 * 60)).await;
    mock.stop().await;
    mock.restart().await.unwrap();
    tokio::time::sleep(Duration::from_secs(59 * 60)).await;
    assert_eq!(mock.table().state(&key).unwrap(), Some(State::Active), "an orphan for two hours");
    tokio::time::sleep(Duration::from_secs(2 * 60)).await;
    assert_eq!(mock.table().state(&key).unwrap(), Some(State::Inactive));
    tokio::time::sleep(hour).await;
    assert_eq!(mock.table().state(&key).unwrap(), None, "purged");
}
