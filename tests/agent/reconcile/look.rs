//! Without `--apply`: what is said, and that nothing is changed.

use super::*;

#[tokio::test]
async fn a_dry_run_says_what_is_wrong_and_changes_nothing() {
    let mut fleet = Fleet::of(3).await;
    let (code, said) = ended(fleet.reconcile(&[])).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("reconcile: consistent: 3 rows") && said.contains("3 live"), "{said}");
    fleet.lose(&[0, 1]).await;
    let before = fleet.history().len();
    let (code, said) = ended(fleet.reconcile(&[])).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("reconcile: inconsistent: 3 rows") && said.contains("2 dead"), "{said}");
    assert!(said.contains("would be held back: 2 of 3 active rows"), "{said}");
    let (code, report) = json(fleet.reconcile(&["--max-share=100%"])).await;
    assert_eq!((code, &report["counts"]["dead"], &report["exit"]), (2, &2.into(), &2.into()), "{report}");
    let found = finding(&report, &fleet, &nth(0)).unwrap();
    assert_eq!(
        (&found["verdict"], &found["action"]),
        (&"dead".into(), &"would be signed off".into()),
        "{report}"
    );
    assert!(finding(&report, &fleet, &nth(2)).is_none(), "what is right isn't listed: {report}");
    assert_eq!(fleet.history().len(), before);
}

#[tokio::test]
async fn a_dry_run_over_rest_needs_no_grpc_and_no_right_to_write() {
    let mut fleet = Fleet::of(2).await;
    fleet.lose(&[0]).await;
    let mut command = fleet.reconcile(&[]);
    command.env("SIGNOFF_MANAGER", format!("http://{}", fleet.manager.rest_addr()));
    let (code, said) = ended(command).await;
    assert_eq!(code, 2, "{said}");
}

#[tokio::test]
async fn one_row_is_explained_with_all_that_speaks_of_it() {
    let mut fleet = Fleet::of(2).await;
    fleet.lose(&[0]).await;
    let [dead, live] = [0, 1].map(|n| fleet.row(&nth(n)).id.to_string());
    let before = fleet.history().len();
    let (code, said) = ended(fleet.reconcile(&["explain", &dead])).await;
    assert_eq!(code, 2, "{said}");
    for words in [
        "verdict    dead",
        "its keep-alive time did not move",
        "connection refused",
        "2 active rows, 1 known to live",
        "--apply    would be signed off",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (code, said) = ended(fleet.reconcile(&["explain", &live])).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("verdict    live") && said.contains("its keep-alive time moved"), "{said}");
    let (code, report) = json(fleet.reconcile(&["explain", &dead])).await;
    assert_eq!((code, &report["verdict"], &report["id"].to_string()), (2, &"dead".into(), &dead), "{report}");
    let (code, said) = ended(fleet.reconcile(&["explain", "4711"])).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no row with the id 4711"), "{said}");
    assert_eq!(fleet.history().len(), before);
}

#[tokio::test]
async fn what_can_not_be_done_is_said_with_what_would_be_right() {
    let fleet = Fleet::of(0).await;
    let rest = format!("http://{}", fleet.manager.rest_addr());
    for (args, env, words) in [
        (&["--apply"][..], None, "--cluster-id"),
        (&["--cluster-id=1", "--all-clusters"], None, "exclude each other"),
        (&["--cluster-id=0"], None, "at least 1"),
        (&["--max-share=0%"], None, "15%"),
        (&["--hostname-pattern="], None, "scheduler-*"),
        (&["--recheck-after=0s"], None, "longer than 0s"),
        (&["--every=x"], None, "30s"),
        (&["--recheck-after=500000000000y"], None, "100 years"),
        (&["--recheck-after=5m"], None, "--deadline 4m"),
        (&["--purge-after=1h", "--source=grpc"], None, "shows no inactive rows"),
        (&["--purge-after=29m"], None, "--purge-after 29m is shorter than 30m"),
        (&["--source=rest"], Some(("SIGNOFF_MANAGER", "127.0.0.1:1")), "http://host:8080"),
        (&["--source=database"], None, "--database-url"),
        (&["--apply", "--all-clusters"], Some(("SIGNOFF_MANAGER", rest.as_str())), "gRPC"),
        (
            &["--apply", "--all-clusters", "--purge-after=1h"],
            Some(("SIGNOFF_MANAGER", "127.0.0.1:1")),
            "withdraws through REST",
        ),
        (&[], Some(("SIGNOFF_USERNAME", "")), "REST needs a user"),
        (&["--apply", "explain", "1"], None, "explain"),
    ] {
        let mut command = fleet.reconcile(args);
        command.envs(env);
        let (code, said) = ended(command).await;
        assert_eq!(code, 64, "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_a_wrong_value() {
    let mut fleet = Fleet::of(1).await;
    fleet.add(named("other-0", 2, 9)).await;
    let before = fleet.history().len();
    for args in [&["--cluster-id=99"][..], &["--cluster-id=1", "--cluster-id=99", "--apply"]] {
        let (code, said) = ended(fleet.reconcile(args)).await;
        assert_eq!(code, 64, "{said}");
        assert!(
            said.contains("--cluster-id 99: the manager has no cluster 99; its clusters are 1, 2"),
            "{said}"
        );
    }
    // gRPC shows active rows alone: that there are none is no proof.
    let (code, said) = ended(fleet.over_grpc(&["--cluster-id=99"])).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("cluster 99 has no row"), "{said}");
    assert_eq!(fleet.history().len(), before);
}

/// Standard output is a pipe that nobody reads.
fn unread(mut command: Command) -> std::process::Child {
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    command.spawn().unwrap()
}

/// How it ended, and how long that took; it is killed after a minute.
async fn its_end(mut child: std::process::Child) -> (Option<i32>, std::time::Duration) {
    let began = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code(), began.elapsed());
        }
        if began.elapsed() > LONG {
            child.kill().unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn standard_output_that_nobody_reads_holds_up_neither_a_signal_nor_the_deadline() {
    // One user who signs in twice within half a minute is refused, as by the real manager.
    let users = ["told", "stays"].map(|name| User::guest(name, PASSWORD)).to_vec();
    let fleet = Fleet::with(Config { users, ..Config::default() }, 0).await;
    // More than a pipe takes, each row worth a word.
    let table = fleet.manager.table();
    for n in 0..600u16 {
        let [high, low] = n.to_be_bytes();
        let ip = format!("127.9.{high}.{low}");
        let mut row = TableRow::sample(&format!("gone-{n}"), &ip, 1, State::Active, table.now());
        row.port = 1;
        table.put([row]).unwrap();
    }
    let by_deadline = unread(fleet.reconcile(&["--deadline=45s", "-o", "json"]));
    let by = |user: &str, args: &[&str]| {
        let mut command = fleet.reconcile(args);
        command.env("SIGNOFF_USERNAME", user);
        unread(command)
    };
    let told = by("told", &["-o", "json"]);
    let staying = by("stays", &["-o", "json", "--every=4s", "--listen=127.0.0.1:0"]);
    let ids = [told.id(), staying.id()];
    let (code, took) = its_end(by_deadline).await;
    assert_eq!(code, Some(3), "nobody lives: {took:?}");
    assert!(took < std::time::Duration::from_secs(90), "{took:?}");
    for pid in ids {
        let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
    for child in [told, staying] {
        let (code, took) = its_end(child).await;
        assert!(code.is_some() && took < std::time::Duration::from_secs(30), "{code:?} {took:?}");
    }
}

#[tokio::test]
async fn a_manager_that_does_not_answer_is_named() {
    let mut fleet = Fleet::of(1).await;
    fleet.manager.stop().await;
    for command in [fleet.reconcile(&[]), fleet.over_grpc(&[]), fleet.reconcile(&["explain", "1"])] {
        let (code, said) = ended(command).await;
        assert_eq!(code, 69, "{said}");
        assert!(said.contains("the rows could not be read") && said.contains("127.0.0.1:"), "{said}");
    }
}
