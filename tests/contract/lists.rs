//! ListSchedulers and its caches.

use std::time::Duration;

use signoff::{
    manager::State,
    mock::{Config, Database, Registration},
    proto::manager_v2::ListSchedulersRequest,
};

use crate::support::{Stream, Target, beat, client, key, list, mock, register, shows, sign_off, with_ip};

#[tokio::test]
async fn a_clusters_list_shows_inactive_rows_too() {
    let target = Target::any().await;
    if !target.has_times() {
        return;
    }
    let key = key("clusters");
    register(target.grpc, &key).await;
    // The two moments clear the cluster's list, in this manager at least.
    sign_off(target.grpc, &key).await.unwrap();
    assert_eq!(shows(&list(target.grpc, "caller", 1).await, &key).as_deref(), Some("inactive"));
}

#[tokio::test]
async fn the_list_without_a_cluster_shows_active_rows_of_every_cluster_and_those_that_match_first() {
    let mock = mock(Config::default()).await;
    for (cluster_id, hostname, idc) in [(1, "far", "a"), (2, "near", "b"), (3, "down", "b")] {
        let row = Registration {
            hostname: hostname.into(),
            ip: "192.0.2.1".into(),
            port: 8002,
            cluster_id,
            idc: idc.into(),
            ..Registration::default()
        };
        mock.table().register(row).unwrap();
        if hostname != "down" {
            let key = signoff::key::SchedulerKey::new(
                cluster_id.try_into().unwrap(),
                hostname.parse().unwrap(),
                "192.0.2.1".parse().unwrap(),
            );
            mock.table().set_by_hand(&key, State::Active).unwrap();
        }
    }
    let request = ListSchedulersRequest {
        hostname: "caller".into(),
        ip: "192.0.2.9".into(),
        idc: "b".into(),
        ..ListSchedulersRequest::default()
    };
    let answer = client(mock.grpc_addr()).await.list_schedulers(request).await.unwrap().into_inner();
    let names: Vec<_> = answer.schedulers.iter().map(|s| s.hostname.as_str()).collect();
    assert_eq!(names, ["near", "far"]);
}

#[tokio::test]
async fn the_list_without_a_cluster_shows_an_active_row_and_not_an_inactive_one() {
    let target = Target::any().await;
    let (up, down) = (key("up"), key("down"));
    register(target.grpc, &up).await;
    register(target.grpc, &down).await;
    let stream = Stream::open(target.grpc).await;
    stream.send(beat(&up));
    target.eventually(&up, Some(State::Active)).await;
    let shown = list(target.grpc, key("nobody").hostname.as_str(), 0).await;
    assert_eq!(shows(&shown, &up).as_deref(), Some("active"));
    assert_eq!(shows(&shown, &down), None);
    stream.half_close().await.unwrap();
}

async fn two_over_one_database() -> [signoff::mock::MockManager; 2] {
    let database = Database::in_memory(signoff::mock::Collation::MySql);
    let config = Config { database: Some(database), ..Config::default() };
    [mock(config.clone()).await, mock(config).await]
}

#[tokio::test(start_paused = true)]
async fn under_a_name_nobody_used_a_list_is_at_most_30_s_old() {
    let [a, b] = two_over_one_database().await;
    let (mine, other) = (key("mine"), key("other"));
    for key in [&mine, &other] {
        register(a.grpc_addr(), key).await;
    }
    a.table().set_by_hand(&mine, State::Active).unwrap();
    a.table().set_by_hand(&other, State::Active).unwrap();
    assert_eq!(list(b.grpc_addr(), "caller-1", 0).await.len(), 2);
    sign_off(a.grpc_addr(), &mine).await.unwrap();
    tokio::time::advance(Duration::from_millis(29_900)).await;
    assert_eq!(list(b.grpc_addr(), "caller-2", 0).await.len(), 2, "the query cache of the other manager");
    tokio::time::advance(Duration::from_millis(200)).await;
    assert_eq!(list(b.grpc_addr(), "caller-3", 0).await.len(), 1);
    assert_eq!(list(b.grpc_addr(), "caller-1", 0).await.len(), 2, "a name that was used has its own cache");
}

#[tokio::test(start_paused = true)]
async fn another_manager_can_be_eight_minutes_behind_with_a_clusters_list() {
    let [a, b] = two_over_one_database().await;
    let key = key("behind");
    register(a.grpc_addr(), &key).await;
    a.table().set_by_hand(&key, State::Active).unwrap();
    let state = async |m: &signoff::mock::MockManager| shows(&list(m.grpc_addr(), "c", 1).await, &key);
    // A's answer goes to Redis; B takes it from there just before it ends, for three minutes of its own.
    assert_eq!(state(&a).await.as_deref(), Some("active"));
    tokio::time::advance(Duration::from_secs(299)).await;
    assert_eq!(state(&b).await.as_deref(), Some("active"));
    sign_off(a.grpc_addr(), &key).await.unwrap();
    assert_eq!(state(&a).await.as_deref(), Some("inactive"), "the manager that wrote knows at once");
    tokio::time::advance(Duration::from_secs(179)).await;
    assert_eq!(state(&b).await.as_deref(), Some("active"));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(state(&b).await.as_deref(), Some("inactive"));
}

#[tokio::test]
async fn two_incarnations_of_one_hostname_are_both_handed_out() {
    let target = Target::any().await;
    let old = key("twice");
    let new = with_ip(&old, "192.0.2.2");
    let mut streams = Vec::new();
    for key in [&old, &new] {
        register(target.grpc, key).await;
        let stream = Stream::open(target.grpc).await;
        stream.send(beat(key));
        target.eventually(key, Some(State::Active)).await;
        streams.push(stream);
    }
    let shown = list(target.grpc, key("nobody").hostname.as_str(), 0).await;
    assert!(shows(&shown, &old).is_some() && shows(&shown, &new).is_some());
    for stream in streams {
        stream.half_close().await.unwrap();
    }
}

#[tokio::test]
async fn two_managers_over_one_state_file_share_the_table_and_redis_and_a_restart_keeps_both() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { state: Some(dir.path().join("state.json")), ..Config::default() };
    let (mut a, b) = (mock(config.clone()).await, mock(config).await);
    let key = key("file");
    register(a.grpc_addr(), &key).await;
    let stream = Stream::open(b.grpc_addr()).await;
    stream.send(beat(&key));
    assert!(a.table().eventually_state(&key, Some(State::Active), crate::support::PATIENCE).await);
    assert_eq!(shows(&list(a.grpc_addr(), "c", 1).await, &key).as_deref(), Some("active"));
    stream.half_close().await.unwrap();
    assert_eq!(a.table().state(&key).unwrap(), Some(State::Inactive));
    assert_eq!(
        shows(&list(a.grpc_addr(), "c", 1).await, &key).as_deref(),
        Some("active"),
        "B cleared Redis, and not the memory of A"
    );
    a.stop().await;
    a.restart().await.unwrap();
    assert_eq!(shows(&list(a.grpc_addr(), "c", 1).await, &key).as_deref(), Some("inactive"));
}
