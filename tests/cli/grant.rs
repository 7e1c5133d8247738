//! `signoff grant` as a process, against mock managers.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use signoff::{
    mock::{Channel, Config, MockManager, Role, User},
    proto::manager_v2::{UpdateSchedulerRequest, manager_client::ManagerClient},
};

use crate::{LONG, secret, signoff, text};

const ROOT: &str = "s3cr3t-root-password";

/// Two managers over one database, root's password in a file, and a person who is a guest.
struct World {
    dir: tempfile::TempDir,
    managers: [MockManager; 2],
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("root"), format!("{ROOT}\n")).unwrap();
        let user = |name: &str, role| User { name: name.to_owned(), password: ROOT.to_owned(), role };
        let config = Config {
            state: Some(dir.path().join("state")),
            users: vec![user("root", Role::Root), user("person", Role::Guest)],
            ..Config::default()
        };
        let managers =
            [MockManager::start(config.clone()).await.unwrap(), MockManager::start(config).await.unwrap()];
        Self { dir, managers }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn at(&self, index: usize) -> String {
        format!("http://{}", self.managers[index].rest_addr())
    }

    /// All that the database has of users and roles.
    fn accounts(&self) -> Value {
        let state: Value = serde_json::from_slice(&std::fs::read(self.path("state")).unwrap()).unwrap();
        state["accounts"].clone()
    }

    /// Managers that were restarted, with empty memories: a right password is right at once.
    async fn restart(&mut self, which: &[usize]) {
        for index in which {
            self.managers[*index].stop().await;
            let began = Instant::now();
            // A process that another test is just starting has the old listener, until it is a program of its own.
            while let Err(error) = self.managers[*index].restart().await {
                assert!(began.elapsed() < LONG, "{error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Another write through a manager, which makes it forget who has signed in: else a right password is refused for 30 s.
    async fn write_through(&self, index: usize) {
        let channel = Channel::connect(self.managers[index].grpc_addr()).await.unwrap();
        let origin = channel.origin();
        let row = UpdateSchedulerRequest {
            hostname: "sched-0".to_owned(),
            ip: "192.0.2.1".to_owned(),
            port: 8002,
            scheduler_cluster_id: 1,
            ..UpdateSchedulerRequest::default()
        };
        ManagerClient::with_origin(channel, origin).update_scheduler(row).await.unwrap();
    }

    /// Runs it with these arguments more, at both managers. Neither root's password nor one of the tests' is in what it prints.
    async fn grant(&self, args: &[&str]) -> Output {
        let (a, b) = (self.at(0), self.at(1));
        self.grant_at(&[&a, &b], args).await
    }

    async fn grant_at(&self, managers: &[&str], args: &[&str]) -> Output {
        let root = self.path("root");
        let mut command = signoff(&["grant", "--root-password-file", root.to_str().unwrap()]);
        command.args(managers.iter().flat_map(|at| ["--manager", at])).args(args);
        let got = tokio::process::Command::from(command).output().await.unwrap();
        secret::none_in(&text(&got.stdout), "stdout");
        secret::none_in(&text(&got.stderr), "stderr");
        got
    }

    async fn call(&self, index: usize, who: (&str, &str), method: &str, path: &str, body: Value) -> u16 {
        // The client wants a provider even where it needs no TLS.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let at = format!("{}/api/v1", self.at(index));
        let named = json!({ "name": who.0, "password": who.1 });
        let granted = http.post(format!("{at}/users/signin")).json(&named).send().await.unwrap();
        let granted: Value = granted.json().await.unwrap();
        let request = http.request(method.parse().unwrap(), format!("{at}{path}"));
        let request = request.bearer_auth(granted["token"].as_str().unwrap()).json(&body);
        request.send().await.unwrap().status().as_u16()
    }
}

fn of(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap().trim_end().to_owned()
}

#[tokio::test]
async fn the_user_is_made_a_manager_that_has_not_read_the_role_is_named_and_again_nothing_is_changed() {
    let mut world = World::new().await;
    let file = world.path("password");
    let args = ["--password-file", file.to_str().unwrap()];
    let got = world.grant(&args).await;
    let (stdout, stderr) = (text(&got.stdout), text(&got.stderr));
    assert_eq!(got.status.code(), Some(1), "{stdout}{stderr}");
    let (a, b) = (world.at(0), world.at(1));
    for line in [
        "Made the role signoff (schedulers, *).".to_owned(),
        format!("Made the user signoff; its password is in {}.", file.display()),
        "Gave it the role signoff.".to_owned(),
        format!("Took the role guest from it at {a}."),
        format!("{a}: ready: lists and deletes schedulers, is refused users and roles"),
        format!(
            "{b}: restart it: it refuses listing and deleting schedulers, as it has not read the user's role since it started"
        ),
    ] {
        assert!(stdout.lines().any(|l| l == line), "{line}\nis not in\n{stdout}");
    }
    let password = of(&file);
    assert_eq!(password.len(), 20);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(!stdout.contains(&password) && !stderr.contains(&password));

    let before = world.accounts();
    for whole in [false, true] {
        world.restart(if whole { &[0, 1] } else { &[0] }).await;
        world.write_through(1).await;
        // In another order: it is not written once more through one that has not read it.
        let got = world.grant_at(&[&b, &a], &args).await;
        let stdout = text(&got.stdout);
        assert_eq!(got.status.code(), Some(i32::from(!whole)), "{stdout}");
        assert!(stdout.starts_with("Nothing was changed.\n"), "{stdout}");
        assert_eq!(stdout.matches(": ready: ").count(), 1 + usize::from(whole), "{stdout}");
        assert_eq!((of(&file), world.accounts()), (password.clone(), before.clone()));
        if !whole {
            assert!(stdout.contains(&format!("{b}: restart it: ")), "{stdout}");
        }
    }
}

#[tokio::test]
async fn without_a_file_the_password_is_printed_as_a_secret_and_nothing_else_is_on_stdout() {
    let mut world = World::new().await;
    let a = world.at(0);
    let got = world
        .grant_at(&[&a], &["--username", "sweeper", "--role", "sweep", "--secret-name", "sweeper-rest"])
        .await;
    let stdout = text(&got.stdout);
    assert_eq!(got.status.code(), Some(0), "{stdout}{}", text(&got.stderr));
    let (head, password) = stdout.split_once("  password: \"").unwrap();
    assert_eq!(
        head,
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: sweeper-rest\ntype: Opaque\nstringData:\n  username: \"sweeper\"\n"
    );
    let password = password.strip_suffix("\"\n").unwrap();
    assert_eq!(password.len(), 20);
    assert!(text(&got.stderr).contains(&format!("{a}: ready: ")), "{}", text(&got.stderr));
    world.restart(&[0]).await;
    assert_eq!(world.call(0, ("sweeper", password), "GET", "/schedulers", Value::Null).await, 200);
}

#[tokio::test]
async fn what_is_not_its_own_is_left_alone() {
    let mut world = World::new().await;
    let file = world.path("password");
    let with_file = ["--password-file", file.to_str().unwrap()];
    assert_eq!(world.grant(&with_file).await.status.code(), Some(1));
    world.restart(&[0, 1]).await;
    let root = ("root", ROOT);
    let broad = json!({ "role": "broad", "permissions": [{ "object": "users", "action": "read" }] });
    assert_eq!(world.call(0, root, "POST", "/roles", broad).await, 200);
    world.restart(&[0, 1]).await;
    let elsewhere = world.path("elsewhere");
    let before = world.accounts();
    for (args, said) in [
        (vec![], "--username \"signoff\" is there already, and no manager tells or resets its password"),
        (
            vec!["--password-file", elsewhere.to_str().unwrap()],
            "elsewhere is not: no manager tells or resets a password",
        ),
        (vec!["--username", "person"], "that user was not made by grant"),
        (vec!["--revoke", "--username", "person"], "that user was not made by grant"),
        (vec!["--revoke", "--username", "nobody"], "there is no such user"),
        (vec!["--username", "another", "--role", "broad"], "that role also has (users, read)"),
        (vec!["--username", "root"], "--username is the root's own"),
    ] {
        let got = world.grant(&args).await;
        let stderr = text(&got.stderr);
        assert_eq!(got.status.code(), Some(64), "{args:?}: {stderr}");
        assert!(stderr.contains(said), "{args:?}: {stderr}");
        assert!(got.stdout.is_empty() && !elsewhere.exists(), "{args:?}");
        assert_eq!(world.accounts(), before, "{args:?}");
        world.restart(&[0, 1]).await;
    }
}

#[tokio::test]
async fn a_run_that_was_stopped_anywhere_is_gone_on_with() {
    let role = json!({ "role": "signoff", "permissions": [{ "object": "schedulers", "action": "*" }] });
    let user =
        json!({ "name": "signoff", "password": "s3cr3t-in-its-file", "email": "signoff@signoff.invalid" });
    let done = [
        ("POST", "/roles", role),
        ("POST", "/users/signup", user),
        // After root and the person.
        ("PUT", "/users/3/roles/signoff", Value::Null),
        ("DELETE", "/users/3/roles/guest", Value::Null),
    ];
    let mut accounts = Vec::new();
    for stopped_after in 0..=done.len() {
        let mut world = World::new().await;
        let file = world.path("password");
        std::fs::write(&file, "s3cr3t-in-its-file").unwrap();
        for (method, path, body) in &done[..stopped_after] {
            assert_eq!(
                world.call(0, ("root", ROOT), method, path, body.clone()).await,
                200,
                "{method} {path}"
            );
            world.restart(&[0]).await;
        }
        let a = world.at(0);
        let got = world.grant_at(&[&a], &["--password-file", file.to_str().unwrap()]).await;
        let stdout = text(&got.stdout);
        assert_eq!(got.status.code(), Some(0), "{stopped_after}: {stdout}{}", text(&got.stderr));
        assert_eq!(stdout.starts_with("Nothing was changed.\n"), stopped_after == done.len(), "{stdout}");
        assert_eq!(of(&file), "s3cr3t-in-its-file");
        accounts.push(world.accounts()["rules"].clone());
    }
    accounts.dedup();
    assert_eq!(accounts.len(), 1, "all the same in the end: {accounts:?}");
}

#[tokio::test]
async fn a_sign_up_whose_answer_was_lost_is_found_to_be_done() {
    let world = World::new().await;
    world.managers[0]
        .faults()
        .add("cut-after-apply,scope=rest,call=signup,count=1".parse().unwrap())
        .unwrap();
    let a = world.at(0);
    let got = world.grant_at(&[&a], &[]).await;
    assert_eq!(got.status.code(), Some(0), "{}", text(&got.stderr));
    assert!(text(&got.stdout).contains("\n  username: \"signoff\"\n  password: \""));
}

#[tokio::test]
async fn revoked_the_user_may_do_nothing_at_any_manager_at_once_and_the_role_stays() {
    let mut world = World::new().await;
    let file = world.path("password");
    let args = ["--password-file", file.to_str().unwrap()];
    assert_eq!(world.grant(&args).await.status.code(), Some(1));
    world.restart(&[0, 1]).await;
    let got = world.grant(&["--revoke"]).await;
    let stdout = text(&got.stdout);
    assert_eq!(got.status.code(), Some(0), "{stdout}{}", text(&got.stderr));
    assert_eq!(stdout.matches(": revoked: the user has no role any more\n").count(), 2, "{stdout}");
    assert!(stdout.contains("The user signoff stays, without a role"), "{stdout}");
    let user = ("signoff", &*of(&file));
    for index in [0, 1] {
        assert_eq!(world.call(index, user, "GET", "/schedulers", Value::Null).await, 401);
    }
    world.restart(&[0, 1]).await;
    assert_eq!(world.call(0, ("root", ROOT), "GET", "/roles/signoff", Value::Null).await, 200);
    assert!(world.accounts()["rules"].to_string().contains("\"role\":\"signoff\""));
    world.restart(&[0, 1]).await;
    // And it can be given it again, and a user of another name beside it.
    assert_eq!(world.grant(&args).await.status.code(), Some(1));
}

#[tokio::test]
async fn a_manager_that_does_not_answer_is_named_and_none_is_69() {
    let mut world = World::new().await;
    world.managers[1].stop().await;
    let file = world.path("password");
    let got = world.grant(&["--password-file", file.to_str().unwrap()]).await;
    let stdout = text(&got.stdout);
    assert_eq!(got.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains(&format!("{}: not checked: ", world.at(1))), "{stdout}");
    world.managers[0].stop().await;
    let got = world.grant(&["--username", "other"]).await;
    assert_eq!(got.status.code(), Some(69), "{}", text(&got.stderr));
    assert!(got.stdout.is_empty() && text(&got.stderr).contains("no manager answered"));
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let short = dir.path().join("short");
    std::fs::write(&short, "s3cr3t-").unwrap();
    for (args, said) in [
        (vec!["grant"], "give its password with --root-password-file"),
        (vec!["grant", "--root-password-file", "/nowhere"], "give each with --manager http://host:8080"),
        (
            vec!["grant", "--root-password-file", "/nowhere", "--manager", "m:65003"],
            "give each with --manager http://host:8080",
        ),
        (vec!["grant", "--username", "ab"], "a manager's user is 3 to 10 characters"),
        (vec!["grant", "--role", "guest"], "that role is the manager's own"),
        (vec!["grant", "--secret-name", "A"], "it is not the name of a Secret"),
        (vec!["grant", "--manager", "ftp://m"], "its scheme is none of grpc, grpcs, http and https"),
    ] {
        let got = crate::run(&args);
        let stderr = text(&got.stderr);
        assert_eq!(got.status.code(), Some(64), "{args:?}: {stderr}");
        assert!(stderr.contains(said), "{args:?}: {stderr}");
    }
    let world = World::new().await;
    let a = world.at(0);
    let got = crate::run(&["grant", "--manager", &a, "--root-password-file", "/nowhere"]);
    assert_eq!(got.status.code(), Some(64));
    assert!(text(&got.stderr).contains("--root-password-file: password file /nowhere: No such file"));
    let got = world.grant(&["--password-file", short.to_str().unwrap()]).await;
    assert_eq!(got.status.code(), Some(64));
    assert!(
        text(&got.stderr).contains("it holds 7 characters, and a manager takes 8 to 20"),
        "{}",
        text(&got.stderr)
    );
}
