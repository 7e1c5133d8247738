//! What an older release, and a manager in another time zone, show differently.

use std::time::Duration;

use serde_json::Value;
use signoff::{
    manager::State,
    mock::{Collation, Config, Database, MockManager, Release, TableRow},
};

use crate::support::{Stream, beat, key, list, mock, reqwest, sign_off};

async fn rows(manager: &MockManager) -> Vec<Value> {
    let base = format!("http://{}/api/v1", manager.rest_addr());
    let user = serde_json::json!({ "name": "root", "password": "dragonfly" });
    let token = reqwest().post(format!("{base}/users/signin")).json(&user).send().await.unwrap();
    let token: Value = token.json().await.unwrap();
    let asked = reqwest().get(format!("{base}/schedulers")).bearer_auth(token["token"].as_str().unwrap());
    asked.send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn v2_2_shows_no_keep_alive_times_lists_by_no_cluster_and_is_touched_by_no_message() {
    let manager = mock(Config { release: Release::V2_2, ..Config::default() }).await;
    let (mine, at) = (key("old"), 1_795_427_672_734);
    let sample = |name: &str, cluster_id, state| TableRow::sample(name, "192.0.2.1", cluster_id, state, at);
    let table = manager.table();
    table.put([sample(mine.hostname.as_str(), 1, State::Inactive), sample("b", 2, State::Active)]).unwrap();

    let shown = &rows(&manager).await[0];
    assert!(shown.get("last_keep_alive_at").is_none() && shown.get("config").is_none(), "{shown}");
    assert_eq!(shown["updated_at"], "2026-11-23T09:54:32Z", "whole seconds");

    // The cluster's id is not known to it: the active rows of every cluster.
    let names: Vec<_> = list(manager.grpc_addr(), "c", 1).await.into_iter().map(|s| s.hostname).collect();
    assert_eq!(names, ["b"]);

    let stream = Stream::open(manager.grpc_addr()).await;
    stream.send(beat(&mine));
    stream.send(beat(&mine));
    stream.half_close().await.unwrap();
    assert_eq!(table.row(1).unwrap().unwrap().last_keep_alive_at, at);
    sign_off(manager.grpc_addr(), &mine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn v2_2_never_collects_a_silent_row() {
    for (release, state) in [(Release::V2_2, State::Active), (Release::V2_5, State::Inactive)] {
        let every = Some(Duration::from_secs(3600));
        let manager = mock(Config { release, collect_every: every, ..Config::default() }).await;
        manager.table().put([TableRow::sample("a", "192.0.2.1", 1, State::Active, 0)]).unwrap();
        tokio::time::sleep(Duration::from_secs(3700)).await;
        assert_eq!(manager.table().rows().unwrap()[0].state, state, "{release:?}");
    }
}

#[tokio::test]
async fn managers_in_two_zones_show_one_time_with_their_own_offsets() {
    let database = Database::in_memory(Collation::MySql);
    let at = 1_795_427_672_734;
    database.put([TableRow::sample("a", "192.0.2.1", 1, State::Active, at)]).unwrap();
    let config = Config { database: Some(database), ..Config::default() };
    let utc = mock(config.clone()).await;
    let shanghai = mock(Config { zone_hours: 8, ..config }).await;
    assert_eq!(rows(&utc).await[0]["last_keep_alive_at"], "2026-11-23T09:54:32.734Z");
    assert_eq!(rows(&shanghai).await[0]["last_keep_alive_at"], "2026-11-23T17:54:32.734+08:00");
}
