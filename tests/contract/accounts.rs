//! Users and roles: who makes them, what they may do, and which manager knows. Seen on v2.2.0 and v2.5.1.

use serde_json::{Value, json};
use signoff::mock::{Config, Database, MockManager, Release};

use crate::support::{Target, key, mock, register, reqwest, sign_in};

/// A name and a password for one test: many tests share a real manager.
fn fresh() -> (String, &'static str) {
    (format!("s{:08x}", fastrand::u32(..)), "s3cr3t-password")
}

/// One call: the status and the body, null where there is none.
async fn call(rest: &str, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let method = method.parse::<reqwest::Method>().unwrap();
    let mut request = reqwest().request(method, format!("{rest}/api/v1{path}")).bearer_auth(token);
    if !body.is_null() {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null))
}

async fn sign_up(rest: &str, name: &str, password: &str) -> (u16, Value) {
    let body = json!({ "name": name, "password": password, "email": format!("{name}@signoff.invalid") });
    call(rest, "", "POST", "/users/signup", body).await
}

async fn token_of(rest: &str, (name, password): (&str, &str)) -> String {
    let (status, granted) = sign_in(rest, name, password).await;
    assert_eq!(status, 200, "{granted}");
    granted["token"].as_str().unwrap().to_owned()
}

fn role_with(name: &str, object: &str, action: &str) -> Value {
    json!({ "role": name, "permissions": [{ "object": object, "action": action }] })
}

/// What a user is answered who lists schedulers, deletes one that is not there, lists users, lists roles, and makes himself root.
async fn answers(rest: &str, token: &str, id: &Value) -> [u16; 5] {
    let mut found = [0; 5];
    let tries = [
        ("GET", "/schedulers?page=1&per_page=1".to_owned()),
        ("DELETE", format!("/schedulers/{}", i64::MAX)),
        ("GET", "/users?page=1&per_page=1".to_owned()),
        ("GET", "/roles".to_owned()),
        ("PUT", format!("/users/{id}/roles/root")),
    ];
    for (found, (method, path)) in found.iter_mut().zip(tries) {
        let (status, said) = call(rest, token, method, &path, Value::Null).await;
        let message = match status {
            401 => Some("permission deny"),
            404 => Some("record not found"),
            _ => None,
        };
        assert_eq!(said["message"].as_str(), message, "{method} {path}");
        *found = status;
    }
    found
}

const GUEST: [u16; 5] = [200, 401, 200, 200, 401];
const LEAST: [u16; 5] = [200, 404, 401, 401, 401];
const NOBODY: [u16; 5] = [401; 5];

#[tokio::test]
async fn whoever_signs_up_is_a_guest_and_a_role_decides_what_a_user_may_do() {
    let target = Target::any().await;
    let (rest, root) = (&target.rest, target.token().await);
    let (name, password) = fresh();
    let (status, user) = sign_up(rest, &name, password).await;
    assert_eq!((status, user["name"].as_str()), (200, Some(name.as_str())));
    assert!(!user.to_string().contains(password), "{user}");
    let id = &user["id"];
    let token = token_of(rest, (&name, password)).await;
    let roles_path = format!("/users/{id}/roles");
    assert_eq!(call(rest, &root, "GET", &roles_path, Value::Null).await, (200, json!(["guest"])));
    assert_eq!(answers(rest, &token, id).await, GUEST);

    // The role is named as its one user.
    let made = call(rest, &root, "POST", "/roles", role_with(&name, "schedulers", "*")).await;
    assert_eq!(made, (200, Value::Null));
    let put = format!("/users/{id}/roles/{name}");
    assert_eq!(call(rest, &root, "PUT", &put, Value::Null).await, (200, Value::Null));
    let guest = format!("/users/{id}/roles/guest");
    assert_eq!(call(rest, &root, "DELETE", &guest, Value::Null).await, (200, Value::Null));
    // The token that it had is as good as a new one.
    assert_eq!(answers(rest, &token, id).await, LEAST);

    assert_eq!(call(rest, &root, "DELETE", &put, Value::Null).await, (200, Value::Null));
    assert_eq!(answers(rest, &token, id).await, NOBODY);
    assert_eq!(call(rest, &root, "DELETE", &format!("/roles/{name}"), Value::Null).await.0, 200);
}

#[tokio::test]
async fn a_user_in_the_role_deletes_a_row() {
    let target = Target::any().await;
    let (rest, root) = (&target.rest, target.token().await);
    let (name, password) = fresh();
    let user = sign_up(rest, &name, password).await.1;
    call(rest, &root, "POST", "/roles", role_with(&name, "schedulers", "*")).await;
    call(rest, &root, "PUT", &format!("/users/{}/roles/{name}", user["id"]), Value::Null).await;
    call(rest, &root, "DELETE", &format!("/users/{}/roles/guest", user["id"]), Value::Null).await;
    let id = register(target.grpc, &key("least")).await.id;
    let token = token_of(rest, (&name, password)).await;
    assert_eq!(call(rest, &token, "DELETE", &format!("/schedulers/{id}"), Value::Null).await.0, 200);
    assert_eq!(call(rest, &token, "GET", &format!("/schedulers/{id}"), Value::Null).await.0, 404);
    call(rest, &root, "DELETE", &format!("/roles/{name}"), Value::Null).await;
}

#[tokio::test]
async fn what_is_there_already_and_what_is_not_there_is_told_apart() {
    let target = Target::any().await;
    let (rest, root) = (&target.rest, target.token().await);
    let (name, password) = fresh();
    let id = sign_up(rest, &name, password).await.1["id"].clone();
    let conflict = (409, json!({ "message": "Conflict" }));
    assert_eq!(sign_up(rest, &name, password).await, conflict);
    let body = json!({ "name": fresh().0, "password": password, "email": format!("{name}@signoff.invalid") });
    assert_eq!(call(rest, "", "POST", "/users/signup", body).await, conflict);

    let role = format!("/roles/{name}");
    assert_eq!(call(rest, &root, "GET", &role, Value::Null).await, (200, json!([])));
    assert_eq!(call(rest, &root, "DELETE", &role, Value::Null).await, (404, Value::Null));
    for _ in 0..2 {
        let made = call(rest, &root, "POST", "/roles", role_with(&name, "schedulers", "*")).await;
        assert_eq!(made, (200, Value::Null));
    }
    let permissions = json!([[name, "schedulers", "*"]]);
    assert_eq!(call(rest, &root, "GET", &role, Value::Null).await, (200, permissions));
    let roles = call(rest, &root, "GET", "/roles", Value::Null).await.1;
    for one in ["root", "guest", &name] {
        assert!(roles.as_array().unwrap().contains(&json!(one)), "{roles}");
    }
    let member = format!("/users/{id}/roles/{name}");
    for (method, statuses) in [("PUT", [200, 409]), ("DELETE", [200, 404])] {
        for status in statuses {
            assert_eq!(
                call(rest, &root, method, &member, Value::Null).await,
                (status, Value::Null),
                "{method}"
            );
        }
    }
    assert_eq!(call(rest, &root, "DELETE", &role, Value::Null).await, (200, Value::Null));
}

#[tokio::test]
async fn users_are_found_by_their_name_and_none_is_an_empty_list() {
    let target = Target::any().await;
    let (rest, root) = (&target.rest, target.token().await);
    let (name, password) = fresh();
    let find = async |name: &str| {
        let per_page = fastrand::u32(1_000..1_000_000);
        let path = format!("/users?name={name}&page=1&per_page={per_page}");
        call(rest, &root, "GET", &path, Value::Null).await
    };
    assert_eq!(find(&name).await, (200, json!([])));
    let made = sign_up(rest, &name, password).await.1;
    let (status, found) = find(&name).await;
    assert_eq!((status, found.as_array().unwrap().len()), (200, 1));
    for field in ["id", "name", "email", "state"] {
        assert_eq!(found[0][field], made[field], "{field}");
    }
    let one = format!("/users/{}", made["id"]);
    assert_eq!(call(rest, &root, "GET", &one, Value::Null).await.1["name"], json!(name));
    let absent = call(rest, &root, "GET", "/users/999999999", Value::Null).await;
    assert_eq!(absent, (404, json!({ "message": "record not found" })));
    // Nor can a user be deleted.
    let (status, _) = call(rest, &root, "DELETE", &one, Value::Null).await;
    assert!(![200, 202, 204].contains(&status), "{status}");
    assert_eq!(find(&name).await.1.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn names_passwords_and_emails_have_bounds() {
    let target = Target::any().await;
    let long = "x".repeat(21);
    for (name, password, email, field, tag) in [
        ("ab", "s3cr3t-password", "a@signoff.invalid", "SignInRequest.Name", "min"),
        ("abcdefghijk", "s3cr3t-password", "a@signoff.invalid", "SignInRequest.Name", "max"),
        ("abc", "s3cr3t-", "a@signoff.invalid", "SignInRequest.Password", "min"),
        ("abc", &long, "a@signoff.invalid", "SignInRequest.Password", "max"),
        ("abc", "s3cr3t-password", "nowhere", "Email", "email"),
        ("abc", "s3cr3t-password", "", "Email", "required"),
    ] {
        let body = json!({ "name": name, "password": password, "email": email });
        let (status, said) = call(&target.rest, "", "POST", "/users/signup", body).await;
        let word = field.rsplit('.').next().unwrap();
        let wanted = format!(
            "Key: 'SignUpRequest.{field}' Error:Field validation for '{word}' failed on the '{tag}' tag"
        );
        assert_eq!((status, said["errors"].as_str()), (422, Some(wanted.as_str())));
    }
}

/// Two managers of one database, root's token, and a user in a role with that user's token: all of it through the first one.
async fn two(release: Release) -> ([MockManager; 2], [String; 2], String, (Value, String, String)) {
    let database = Database::in_memory(signoff::mock::Collation::MySql);
    let config = Config { database: Some(database), release, ..Config::default() };
    let managers = [mock(config.clone()).await, mock(config).await];
    let rest = managers.each_ref().map(|manager| format!("http://{}", manager.rest_addr()));
    let root = token_of(&rest[0], ("root", "dragonfly")).await;
    let (name, password) = fresh();
    let id = sign_up(&rest[0], &name, password).await.1["id"].clone();
    call(&rest[0], &root, "POST", "/roles", role_with(&name, "schedulers", "*")).await;
    call(&rest[0], &root, "PUT", &format!("/users/{id}/roles/{name}"), Value::Null).await;
    call(&rest[0], &root, "DELETE", &format!("/users/{id}/roles/guest"), Value::Null).await;
    let token = token_of(&rest[0], (&name, password)).await;
    (managers, rest, root, (id, name, token))
}

// One manager is named by SIGNOFF_TEST_MANAGER, and these take two: against the mock alone.

#[tokio::test]
async fn a_manager_knows_a_role_made_at_another_one_only_after_its_restart() {
    for release in [Release::V2_2, Release::V2_5] {
        let (mut managers, rest, root, (id, name, token)) = two(release).await;
        assert_eq!(answers(&rest[0], &token, &id).await, LEAST);
        assert_eq!(answers(&rest[1], &token, &id).await, NOBODY);
        let role = format!("/roles/{name}");
        assert_eq!(call(&rest[1], &root, "GET", &role, Value::Null).await, (200, json!([])));
        managers[1].stop().await;
        managers[1].restart().await.unwrap();
        assert_eq!(answers(&rest[1], &token, &id).await, LEAST);
    }
}

#[tokio::test]
async fn what_another_manager_wrote_v2_5_takes_up_when_it_is_told_and_v2_2_refuses() {
    for (release, status, then) in [(Release::V2_2, 409, NOBODY), (Release::V2_5, 200, LEAST)] {
        let (_managers, rest, root, (id, name, token)) = two(release).await;
        let body = role_with(&name, "schedulers", "*");
        assert_eq!(call(&rest[1], &root, "POST", "/roles", body).await.0, status);
        let member = format!("/users/{id}/roles/{name}");
        let (put, said) = call(&rest[1], &root, "PUT", &member, Value::Null).await;
        assert_eq!(put, status);
        let conflict = (status == 409).then(|| json!("Conflict"));
        assert_eq!(said.get("message"), conflict.as_ref(), "{release:?}");
        assert_eq!(answers(&rest[1], &token, &id).await, then, "{release:?}");
    }
}

#[tokio::test]
async fn a_role_that_is_taken_at_one_manager_is_gone_from_the_database_and_another_one_goes_on_by_its_memory()
{
    for release in [Release::V2_2, Release::V2_5] {
        let (mut managers, rest, root, (id, name, token)) = two(release).await;
        // The second doesn't know of it, and says so.
        let member = format!("/users/{id}/roles/{name}");
        assert_eq!(call(&rest[1], &root, "DELETE", &member, Value::Null).await, (404, Value::Null));
        assert_eq!(answers(&rest[0], &token, &id).await, LEAST);
        managers[0].stop().await;
        managers[0].restart().await.unwrap();
        assert_eq!(answers(&rest[0], &token, &id).await, NOBODY);
    }
}

#[tokio::test]
async fn a_manager_that_started_while_a_user_was_a_guest_goes_on_taking_it_for_one() {
    for release in [Release::V2_2, Release::V2_5] {
        let (mut managers, rest, root, _) = two(release).await;
        let (name, password) = fresh();
        let id = sign_up(&rest[0], &name, password).await.1["id"].clone();
        managers[1].stop().await;
        managers[1].restart().await.unwrap();
        let guest = format!("/users/{id}/roles/guest");
        assert_eq!(call(&rest[0], &root, "DELETE", &guest, Value::Null).await.0, 200);
        let token = token_of(&rest[1], (&name, password)).await;
        assert_eq!(answers(&rest[0], &token, &id).await, NOBODY);
        assert_eq!(answers(&rest[1], &token, &id).await, GUEST);
        assert_eq!(call(&rest[1], &root, "DELETE", &guest, Value::Null).await.0, 200);
        assert_eq!(answers(&rest[1], &token, &id).await, NOBODY);
    }
}
