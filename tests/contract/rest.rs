//! The REST API.

use std::time::Duration;

use signoff::{
    manager::State,
    mock::{Config, Database, User},
};

use crate::support::{
    Stream, Target, beat, key, mock, password, register, reqwest, sign_in, sign_off, user, with_ip,
};

async fn get(target: &Target, path: &str) -> (u16, reqwest::header::HeaderMap, serde_json::Value) {
    let answer = reqwest()
        .get(format!("{}{path}", target.rest))
        .bearer_auth(target.token().await)
        .send()
        .await
        .unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.unwrap();
    (status, headers, serde_json::from_str(&text).unwrap_or(serde_json::Value::Null))
}

#[tokio::test]
async fn a_row_has_these_fields_and_its_times_carry_their_offset() {
    let target = Target::any().await;
    let key = key("row");
    register(target.grpc, &key).await;
    let row = target.row(&key).await.unwrap();
    for (field, value) in [
        ("is_del", serde_json::json!(0)),
        ("config", serde_json::json!({ "manager_keep_alive_interval": 5_000_000_000u64 })),
        ("host_name", serde_json::json!(key.hostname)),
        ("idc", serde_json::json!("")),
        ("location", serde_json::json!("")),
        ("ip", serde_json::json!("192.0.2.1")),
        ("port", serde_json::json!(8002)),
        ("state", serde_json::json!("inactive")),
        ("features", serde_json::json!(["schedule", "preheat"])),
        ("scheduler_cluster_id", serde_json::json!(1)),
    ] {
        let absent = field == "config" && !target.has_times();
        assert_eq!(row[field], if absent { serde_json::Value::Null } else { value }, "{field}");
    }
    assert_eq!(row["scheduler_cluster"]["id"], 0);
    let times = ["created_at", "updated_at", "last_keep_alive_at"];
    for field in &times[..if target.has_times() { 3 } else { 2 }] {
        let text = row[field].as_str().unwrap();
        text.parse::<jiff::Timestamp>().unwrap_or_else(|e| panic!("{field} {text}: {e}"));
    }
}

#[tokio::test]
async fn a_list_is_paged_and_its_link_header_names_prev_next_first_and_last() {
    let target = Target::any().await;
    let first = key("pages");
    for n in 1..=3 {
        register(target.grpc, &with_ip(&first, &format!("192.0.2.{n}"))).await;
    }
    let path = format!("/api/v1/schedulers?host_name={}&per_page=2&page=1", first.hostname);
    let (status, headers, rows) = get(&target, &path).await;
    assert_eq!((status, rows.as_array().unwrap().len()), (200, 2));
    let link = |page: u32, rel: &str| {
        format!("</api/v1/schedulers?host_name={}&page={page}&per_page=2>;rel={rel}", first.hostname)
    };
    let links = [link(1, "prev"), link(2, "next"), link(1, "first"), link(2, "last")].join(",");
    assert_eq!(headers["link"], links);
    let (_, _, rest) = get(&target, &path.replace("page=1", "page=2")).await;
    assert_eq!(rest.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_list_can_be_filtered_by_every_column_named() {
    let target = Target::any().await;
    let key = key("filter");
    register(target.grpc, &key).await;
    let host = &key.hostname;
    for (filter, found) in [
        ("ip=192.0.2.1", 1),
        ("ip=192.0.2.2", 0),
        ("state=inactive", 1),
        ("state=active", 0),
        ("scheduler_cluster_id=1", 1),
        ("scheduler_cluster_id=99999", 0),
    ] {
        let (status, _, rows) = get(&target, &format!("/api/v1/schedulers?host_name={host}&{filter}")).await;
        assert_eq!((status, rows.as_array().unwrap().len()), (200, found), "{filter}");
    }
}

#[tokio::test]
async fn per_page_0_means_the_default_and_over_the_limit_is_422() {
    let target = Target::any().await;
    assert_eq!(get(&target, "/api/v1/schedulers?per_page=0").await.0, 200);
    let (status, _, body) = get(&target, "/api/v1/schedulers?per_page=10000001").await;
    assert_eq!(status, 422);
    let said = body["errors"].as_str().unwrap();
    assert!(said.starts_with("Key: ") && said.ends_with("failed on the 'lte' tag"), "{said}");
}

#[tokio::test]
async fn a_row_is_got_by_its_id_and_an_absent_one_is_404_and_a_wrong_id_422() {
    let target = Target::any().await;
    let key = key("id");
    let id = register(target.grpc, &key).await.id;
    let (status, _, row) = get(&target, &format!("/api/v1/schedulers/{id}")).await;
    assert_eq!((status, row["host_name"].as_str()), (200, Some(key.hostname.as_str())));
    let (status, _, body) = get(&target, "/api/v1/schedulers/999999999").await;
    assert_eq!((status, body), (404, serde_json::json!({ "message": "record not found" })));
    assert_eq!(get(&target, "/api/v1/schedulers/abc").await.0, 422);
}

#[tokio::test]
async fn a_patch_of_the_state_answers_200_and_changes_nothing() {
    let target = Target::any().await;
    let key = key("patch");
    let id = register(target.grpc, &key).await.id;
    let stream = Stream::open(target.grpc).await;
    stream.send(beat(&key));
    target.eventually(&key, Some(State::Active)).await;
    let answer = reqwest()
        .patch(format!("{}/api/v1/schedulers/{id}", target.rest))
        .bearer_auth(target.token().await)
        .json(&serde_json::json!({ "state": "inactive" }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(target.state(&key).await, Some(State::Active));
    stream.half_close().await.unwrap();
}

#[tokio::test]
async fn a_deleted_row_is_gone_for_good() {
    let target = Target::any().await;
    let key = key("delete");
    let id = register(target.grpc, &key).await.id;
    for status in [200, 404] {
        let answer = reqwest()
            .delete(format!("{}/api/v1/schedulers/{id}", target.rest))
            .bearer_auth(target.token().await)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status);
    }
    assert_eq!(sign_off(target.grpc, &key).await.unwrap_err().message(), "record not found");
}

#[tokio::test]
async fn without_a_token_it_is_401_and_healthy_needs_none() {
    let target = Target::any().await;
    let answer = reqwest().get(format!("{}/api/v1/schedulers", target.rest)).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let answer = reqwest().get(format!("{}/healthy", target.rest)).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "\"OK\""));
}

#[tokio::test]
async fn a_guest_may_read_and_nothing_else() {
    let config = Config { users: vec![User::guest("reader", "dragonfly")], ..Config::default() };
    let mock = mock(config).await;
    let key = key("guest");
    let id = register(mock.grpc_addr(), &key).await.id;
    let rest = format!("http://{}", mock.rest_addr());
    let (_, granted) = sign_in(&rest, "reader", "dragonfly").await;
    let token = granted["token"].as_str().unwrap();
    let url = format!("{rest}/api/v1/schedulers/{id}");
    assert_eq!(reqwest().get(&url).bearer_auth(token).send().await.unwrap().status(), 200);
    let answer = reqwest().delete(&url).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["message"], "permission deny");
    assert!(mock.table().find(&key).unwrap().is_some());
}

#[tokio::test]
async fn a_wrong_password_is_401() {
    let target = Target::any().await;
    for (name, password) in [("nobody", "dragonfly1"), ("ro", "dragonfly"), ("root", "short")] {
        let answer = sign_in(&target.rest, name, password).await;
        assert_eq!(answer, (401, serde_json::json!({ "message": "Unauthorized" })), "{name}");
    }
}

#[tokio::test]
async fn a_right_password_is_401_within_30_s_of_another_sign_in_until_a_write_empties_the_cache() {
    let mock = mock(Config::default()).await;
    let rest = format!("http://{}", mock.rest_addr());
    let key = key("writes");
    register(mock.grpc_addr(), &key).await;
    let status = async || sign_in(&rest, &user(), &password()).await.0;
    assert_eq!(status().await, 200);
    assert_eq!(status().await, 401);
    assert_eq!(status().await, 401);
    sign_off(mock.grpc_addr(), &key).await.unwrap();
    assert_eq!(status().await, 200);
}

#[tokio::test]
async fn a_token_ends_and_is_refreshed_in_the_first_half_of_its_life_only() {
    let database = Database::in_memory(signoff::mock::Collation::MySql);
    let rest = async |life| {
        let config = Config { database: Some(database.clone()), token_life: life, ..Config::default() };
        mock(config).await
    };
    let long = rest(Duration::from_secs(1_000_000)).await;
    let short = rest(Duration::from_millis(1)).await;
    let refresh = async |token: &str| {
        let url = format!("http://{}/api/v1/users/refresh_token", long.rest_addr());
        let answer = reqwest().post(url).bearer_auth(token).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    let (_, granted) = sign_in(&format!("http://{}", long.rest_addr()), "root", "dragonfly").await;
    granted["expire"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let (status, fresh) = refresh(granted["token"].as_str().unwrap()).await;
    assert_eq!(status, 200);
    assert!(fresh["token"].is_string() && fresh["expire"].is_string());
    let (_, granted) = sign_in(&format!("http://{}", short.rest_addr()), "root", "dragonfly").await;
    crate::support::eventually("its end", async || {
        refresh(granted["token"].as_str().unwrap()).await.0 == 401
    })
    .await;
}

#[tokio::test]
async fn another_managers_read_is_up_to_30_s_old_and_a_query_that_differs_is_fresh() {
    let database = Database::in_memory(signoff::mock::Collation::MySql);
    let config = Config { database: Some(database), ..Config::default() };
    let (a, b) = (mock(config.clone()).await, mock(config).await);
    let key = key("stale");
    register(a.grpc_addr(), &key).await;
    let (_, granted) = sign_in(&format!("http://{}", b.rest_addr()), "root", "dragonfly").await;
    let state = async |per_page: u32| {
        let url = format!("http://{}/api/v1/schedulers?per_page={per_page}", b.rest_addr());
        let answer = reqwest().get(url).bearer_auth(granted["token"].as_str().unwrap());
        let rows: serde_json::Value = answer.send().await.unwrap().json().await.unwrap();
        rows[0]["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(10).await, "inactive");
    let stream = Stream::open(a.grpc_addr()).await;
    stream.send(beat(&key));
    assert!(a.table().eventually_state(&key, Some(State::Active), crate::support::PATIENCE).await);
    assert_eq!(state(10).await, "inactive", "as it was, from the cache");
    assert_eq!(state(11).await, "active");
    // Whatever B writes empties its cache.
    register(b.grpc_addr(), &with_ip(&key, "192.0.2.2")).await;
    assert_eq!(state(10).await, "active");
    stream.half_close().await.unwrap();
}
