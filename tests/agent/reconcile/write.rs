//! With `--apply`.

use signoff::{
    manager::{
        Withdraw,
        client::{Client, ManagerSettings},
    },
    mock::fault::{Fault, Kind, Scope},
};

use super::*;
use crate::trust::ends_tls;

#[tokio::test]
async fn dead_rows_that_nobody_replaced_are_repaired_by_one_run_and_the_living_one_is_untouched() {
    let mut fleet = Fleet::of(3).await;
    fleet.lose(&[0, 1]).await;
    let before = fleet.history();
    let (code, said) = ended(fleet.reconcile(&ALL)).await;
    assert_eq!(code, 0, "{said}");
    let states = [0, 1, 2].map(|n| fleet.state(&nth(n)));
    assert_eq!(states, [Some(State::Inactive), Some(State::Inactive), Some(State::Active)], "{said}");
    let living = fleet.row(&nth(2)).id;
    assert!(fleet.history()[before.len()..].iter().all(|change| change.id != living), "{said}");
    assert!(said.contains("reconcile: repaired: 3 rows") && said.contains("2 signed off"), "{said}");
    // Once more: nothing is left to be done.
    let before = fleet.history().len();
    let (code, said) = ended(fleet.reconcile(&ALL)).await;
    assert_eq!((code, fleet.history().len()), (0, before), "{said}");
    assert!(said.contains("reconcile: consistent"), "{said}");
}

#[tokio::test]
async fn a_time_zone_of_the_manager_is_no_evidence() {
    for zone_hours in [-5, 8] {
        let mut fleet = Fleet::with(Config { zone_hours, ..Config::default() }, 2).await;
        fleet.lose(&[0]).await;
        let (code, said) = ended(fleet.reconcile(&ALL)).await;
        assert_eq!(code, 0, "{said}");
        let states = [0, 1].map(|n| fleet.state(&nth(n)));
        assert_eq!(states, [Some(State::Inactive), Some(State::Active)], "{zone_hours}: {said}");
    }
}

#[tokio::test]
async fn a_hung_scheduler_is_dead_though_its_kernel_accepts() {
    let mut fleet = Fleet::of(2).await;
    fleet.lose(&[0]).await;
    let hung = std::net::TcpListener::bind(fleet.schedulers[0].addr()).unwrap();
    let (code, said) = ended(fleet.reconcile(&ALL)).await;
    assert_eq!((code, fleet.state(&nth(0))), (0, Some(State::Inactive)), "{said}");
    drop(hung);
}

#[tokio::test]
async fn one_that_answers_though_nothing_is_heard_of_it_is_left_alone() {
    let mut fleet = Fleet::of(2).await;
    fleet.lose(&[0]).await;
    // What answers as a scheduler there lives, for all that a probe can tell.
    let _answering = fleet.stranger(fleet.schedulers[0].addr()).await;
    let before = fleet.history().len();
    let (code, report) = json(fleet.reconcile(&ALL)).await;
    let found = finding(&report, &fleet, &nth(0)).unwrap();
    assert_eq!((code, &found["verdict"]), (0, &"undecided".into()), "{report}");
    assert_eq!(fleet.history().len(), before, "{report}");
}

#[tokio::test]
async fn an_address_that_another_scheduler_has_now_is_no_sign_of_life() {
    let mut fleet = Fleet::of(1).await;
    fleet.lose(&[0]).await;
    let address = fleet.schedulers[0].addr();
    let successor = named("another-0", 1, 1);
    let config = SchedulerConfig {
        listen: address,
        ..SchedulerConfig::new(successor.clone(), fleet.manager.grpc_addr())
    };
    fleet.add_as(config).await;
    let (code, report) = json(fleet.reconcile(&ALL)).await;
    let found = finding(&report, &fleet, &nth(0)).unwrap();
    assert_eq!((code, &found["verdict"]), (0, &"replaced".into()), "{report}");
    assert_eq!(fleet.state(&nth(0)), Some(State::Inactive), "{report}");
    assert_eq!(fleet.state(&successor), Some(State::Active), "{report}");
}

#[tokio::test]
async fn past_the_share_nothing_is_done() {
    let mut fleet = Fleet::of(4).await;
    fleet.lose(&[0, 1]).await;
    let before = fleet.history().len();
    for share in [None, Some("--max-share=1"), Some("--max-share=49%")] {
        let mut command = fleet.reconcile(&["--apply", "--all-clusters"]);
        command.args(share);
        let (code, report) = json(command).await;
        assert_eq!(code, 3, "{share:?}: {report}");
        assert_eq!(report["held_back"][0]["guard"], "share", "{report}");
        assert_eq!(fleet.history().len(), before, "{share:?}: {report}");
    }
    let (code, said) = ended(fleet.reconcile(&["--apply", "--all-clusters", "--max-share=2"])).await;
    assert_eq!(
        (code, fleet.state(&nth(0)), fleet.state(&nth(1))),
        (0, Some(State::Inactive), Some(State::Inactive)),
        "{said}"
    );
}

#[tokio::test]
async fn a_cluster_in_which_nobody_is_known_to_live_keeps_its_rows() {
    let mut fleet = Fleet::of(2).await;
    let elsewhere = named("other-0", 2, 9);
    fleet.add(elsewhere.clone()).await;
    fleet.lose(&[2]).await;
    // A scheduler answers there: it lives for all that a probe can tell, but nobody hears of it.
    let also_there = named("other-1", 2, 10);
    fleet.add(also_there.clone()).await;
    fleet.lose(&[3]).await;
    let _answering = fleet.stranger(fleet.schedulers[3].addr()).await;
    // One lives and is heard of, but its row is inactive: no help to a peer.
    let wrongly = named("other-2", 2, 11);
    fleet.add(wrongly.clone()).await;
    fleet.manager.table().set_by_hand(&wrongly, State::Inactive).unwrap();
    let (code, report) = json(fleet.reconcile(&["--apply", "--all-clusters", "--max-share=100%"])).await;
    assert_eq!((code, &report["held_back"][0]["guard"]), (3, &"last-live".into()), "{report}");
    assert_eq!(fleet.state(&elsewhere), Some(State::Active), "{report}");
}

#[tokio::test]
async fn where_every_probe_fails_reconcile_is_blind_and_does_nothing() {
    let mut fleet = Fleet::of(0).await;
    for n in 0..3 {
        // They live, and are registered with a port that nobody can reach.
        let config = SchedulerConfig {
            register_port: Some(1024),
            ..SchedulerConfig::new(nth(n), fleet.manager.grpc_addr())
        };
        fleet.add_as(config).await;
    }
    fleet.lose(&[0]).await;
    let before = fleet.history().len();
    for apply in [true, false] {
        let args: &[&str] = if apply { &ALL } else { &[] };
        let (code, report) = json(fleet.reconcile(args)).await;
        assert_eq!((code, &report["held_back"][0]["guard"]), (3, &"blind".into()), "{report}");
        assert!(
            report["held_back"][0]["reason"].as_str().unwrap().contains("every probe failed (3 of 3)"),
            "{report}"
        );
    }
    assert_eq!(fleet.history().len(), before);
}

#[tokio::test]
async fn only_the_rows_in_the_scope_and_of_the_pattern_are_repaired() {
    let mut fleet = Fleet::of(3).await;
    let elsewhere = [named("scheduler-0", 2, 21), named("other-1", 2, 22)];
    for key in &elsewhere {
        fleet.add(key.clone()).await;
    }
    fleet.lose(&[0, 1, 3]).await;
    let (code, said) = ended(fleet.reconcile(&[&ALL[..], &["--hostname-pattern=*-0"]].concat())).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(fleet.state(&nth(0)), Some(State::Inactive), "{said}");
    assert_eq!(fleet.state(&nth(1)), Some(State::Active), "the pattern leaves it out: {said}");
    assert_eq!(fleet.state(&elsewhere[0]), Some(State::Active), "another cluster: {said}");
    let both = ["--apply", "--cluster-id=1", "--cluster-id=2", "--max-share=100%"];
    let (code, said) = ended(fleet.reconcile(&both)).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(fleet.state(&nth(1)), Some(State::Inactive), "{said}");
    assert_eq!(fleet.state(&elsewhere[0]), Some(State::Inactive), "{said}");
}

#[tokio::test]
async fn the_living_row_that_says_inactive_is_reported_with_the_remedy_and_not_written() {
    let fleet = Fleet::of(2).await;
    fleet.manager.table().set_by_hand(&nth(0), State::Inactive).unwrap();
    let before = fleet.history().len();
    for (args, exit) in [(&[][..], 2), (&ALL[..], 0)] {
        let (code, report) = json(fleet.reconcile(args)).await;
        let found = finding(&report, &fleet, &nth(0)).unwrap();
        assert_eq!(
            (code, &found["verdict"], &found["wrongly_inactive"]),
            (exit, &"live".into(), &true.into()),
            "{report}"
        );
        assert!(found["reason"].as_str().unwrap().contains("its agent gives it back"), "{report}");
    }
    assert_eq!(fleet.history().len(), before);
}

#[tokio::test]
async fn two_that_live_under_one_name_are_contested_and_left_alone() {
    let mut fleet = Fleet::of(1).await;
    let twin = named("scheduler-0", 1, 31);
    fleet.add(twin.clone()).await;
    let before = fleet.history().len();
    let (code, report) = json(fleet.reconcile(&[])).await;
    assert_eq!(code, 2, "{report}");
    for key in [nth(0), twin] {
        assert_eq!(finding(&report, &fleet, &key).unwrap()["verdict"], "contested", "{report}");
    }
    let (_, said) = ended(fleet.reconcile(&ALL)).await;
    assert_eq!(fleet.history().len(), before, "{said}");
}

/// Where no keep-alive times are shown nothing is written without an explicit word.
async fn without_times(fleet: &Fleet, command: impl Fn() -> Command) {
    let before = fleet.history().len();
    let mut refused = command();
    refused.arg("--recheck-after=100ms");
    let (code, report) = json(refused).await;
    assert_eq!((code, &report["held_back"][0]["guard"]), (3, &"no-times".into()), "{report}");
    let mut refused = command();
    refused.arg("--recheck-after=100ms");
    let (_, said) = ended(refused).await;
    for words in ["--apply-without-keep-alive-times", "No keep-alive times are shown"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(fleet.history().len(), before, "{report}");
}

/// Something that takes connections at an address, and closes them: what a service mesh does for the dead.
async fn hangs_up(addr: SocketAddr) -> tokio::task::JoinHandle<()> {
    let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    })
}

#[tokio::test]
async fn where_a_proxy_answers_for_the_dead_the_keep_alive_times_decide_and_what_they_leave_open_is_said() {
    let mut fleet = Fleet::of(4).await;
    fleet.lose(&[0, 1]).await;
    let proxies = [hangs_up(fleet.schedulers[0].addr()).await, hangs_up(fleet.schedulers[1].addr()).await];
    let successor = named("scheduler-0", 1, 71);
    fleet.add(successor.clone()).await;
    let (code, report) = json(fleet.reconcile(&ALL)).await;
    assert_eq!((code, &report["held_back"][0]["guard"]), (3, &"probes".into()), "{report}");
    assert_eq!(finding(&report, &fleet, &nth(0)).unwrap()["action"], "signed off", "{report}");
    assert_eq!(finding(&report, &fleet, &nth(1)).unwrap()["verdict"], "undecided", "{report}");
    let states = [nth(0), nth(1), successor].map(|key| fleet.state(&key));
    assert_eq!(states, [Some(State::Inactive), Some(State::Active), Some(State::Active)], "{report}");
    proxies.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn where_a_meshed_pod_has_a_dead_ones_address_the_times_decide_and_who_lives_behind_its_own_proxy_lives()
 {
    let mut fleet = Fleet::of(2).await;
    let taken = fleet.schedulers[0].addr();
    fleet.lose(&[0]).await;
    let successor = named("scheduler-0", 1, 71);
    fleet.add(successor.clone()).await;
    let proxy = ends_tls(taken, true).await;
    // One whose own proxy ends TLS before it; and one that wants a client certificate itself, of which the manager hears nothing.
    let (meshed, with_tls) = (named("scheduler-8", 1, 72), named("scheduler-9", 1, 73));
    let mut there = vec![proxy];
    for (key, of_a_mesh) in [(&meshed, true), (&with_tls, false)] {
        let at = ends_tls(SocketAddr::new(key.ip.get(), 0), of_a_mesh).await;
        let register_port = Some(at.0.grpc_addr().port());
        let listen = SocketAddr::new(key.ip.get(), 0);
        let config = SchedulerConfig::new(key.clone(), fleet.manager.grpc_addr());
        fleet.add_as(SchedulerConfig { listen, register_port, ..config }).await;
        there.push(at);
    }
    let last = fleet.schedulers.len() - 1;
    fleet.lose(&[last]).await;
    let namesake = named("scheduler-9", 1, 74);
    fleet.add(namesake).await;
    let (code, report) = json(fleet.reconcile(&ALL)).await;
    assert_eq!(code, 0, "what is contested is left alone: {report}");
    assert_eq!(finding(&report, &fleet, &nth(0)).unwrap()["action"], "signed off", "{report}");
    assert_eq!(finding(&report, &fleet, &with_tls).unwrap()["verdict"], "contested", "{report}");
    assert!(finding(&report, &fleet, &meshed).is_none(), "it is heard of: {report}");
    let states = [nth(0), nth(1), successor, meshed, with_tls].map(|key| fleet.state(&key));
    let [gone, rest @ ..] = states;
    assert_eq!(gone, Some(State::Inactive), "{report}");
    assert_eq!(rest, [Some(State::Active); 4], "{report}");
}

#[tokio::test]
async fn where_something_answers_at_every_address_probes_are_worthless_and_that_is_said() {
    let mut fleet = Fleet::of(2).await;
    let port = fleet.schedulers[0].addr().port();
    fleet.lose(&[0]).await;
    // It takes what no scheduler listens for itself, at that port and any address.
    let everywhere = hangs_up(([0, 0, 0, 0], port).into()).await;
    let (code, report) = json(fleet.reconcile(&[])).await;
    let held = &report["held_back"][0];
    assert_eq!((code, &held["guard"]), (3, &"probes".into()), "a dry run can't see: {report}");
    assert!(held["reason"].as_str().unwrap().contains("probes are worthless in cluster 1"), "{report}");
    let id = fleet.row(&nth(0)).id.to_string();
    let (_, said) = ended(fleet.reconcile(&["explain", &id])).await;
    assert!(said.contains("a probe is worthless here"), "{said}");
    everywhere.abort();
}

#[tokio::test]
async fn a_sign_off_without_an_answer_is_said_and_not_made_again() {
    let mut fleet = Fleet::of(2).await;
    fleet.lose(&[0]).await;
    fleet
        .manager
        .faults()
        .add(Fault::new(Kind::CutAfterApply).call("keep-alive").scope(Scope::Grpc))
        .unwrap();
    let before = fleet.history().len();
    let (code, report) = json(fleet.reconcile(&[&ALL[..], &["--deadline=20s"]].concat())).await;
    let action = finding(&report, &fleet, &nth(0)).unwrap()["action"].as_str().unwrap().to_owned();
    assert_eq!((code, action.starts_with("perhaps signed off")), (1, true), "{report}");
    assert_eq!(report["counts"]["signed_off"], 0, "{report}");
    let row = fleet.row(&nth(0)).id;
    let changes = fleet.history()[before..].iter().filter(|change| change.id == row).count();
    assert!(changes <= 2, "more than one attempt: {:?}", fleet.history());
}

#[tokio::test]
async fn over_grpc_a_replaced_row_is_repaired_and_one_that_nobody_replaced_is_undecided() {
    let mut fleet = Fleet::of(2).await;
    fleet.lose(&[0, 1]).await;
    let successor = named("scheduler-0", 1, 41);
    fleet.add(successor.clone()).await;
    without_times(&fleet, || fleet.over_grpc(&ALL)).await;
    let mut command = fleet.over_grpc(&[&ALL[..], &["--apply-without-keep-alive-times"]].concat());
    command.arg("--recheck-after=100ms");
    let (code, report) = json(command).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!(finding(&report, &fleet, &nth(0)).unwrap()["verdict"], "replaced", "{report}");
    assert_eq!(finding(&report, &fleet, &nth(1)).unwrap()["verdict"], "undecided", "{report}");
    let states = [nth(0), nth(1), successor].map(|key| fleet.state(&key));
    assert_eq!(states, [Some(State::Inactive), Some(State::Active), Some(State::Active)], "{report}");
}

#[tokio::test]
async fn a_manager_without_keep_alive_times_is_judged_by_probes_and_names_over_rest_too() {
    let mut fleet = Fleet::with(Config { release: Release::V2_2, ..Config::default() }, 3).await;
    fleet.lose(&[0, 1]).await;
    let successor = named("scheduler-0", 1, 51);
    fleet.until_a_later_second(&nth(0)).await;
    fleet.add(successor.clone()).await;
    fleet.manager.table().set_by_hand(&nth(2), State::Inactive).unwrap();
    without_times(&fleet, || fleet.reconcile(&ALL)).await;
    let mut command = fleet.reconcile(&[&ALL[..], &["--apply-without-keep-alive-times"]].concat());
    command.arg("--recheck-after=100ms");
    let (code, report) = json(command).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!(finding(&report, &fleet, &nth(0)).unwrap()["verdict"], "replaced", "{report}");
    assert_eq!(finding(&report, &fleet, &nth(1)).unwrap()["verdict"], "undecided", "{report}");
    assert_eq!(finding(&report, &fleet, &nth(2)).unwrap()["wrongly_inactive"], true, "{report}");
    assert_eq!(
        (fleet.state(&nth(0)), fleet.state(&nth(1))),
        (Some(State::Inactive), Some(State::Active)),
        "{report}"
    );
}

#[tokio::test]
async fn where_no_keep_alive_times_are_shown_a_replaced_row_is_withdrawn_if_that_is_allowed() {
    let mut fleet = Fleet::with(Config { release: Release::V2_2, ..Config::default() }, 2).await;
    fleet.lose(&[0]).await;
    async fn run(fleet: &Fleet, more: &str) -> (i32, String) {
        let mut command = fleet.reconcile_as_root(&[&ALL[..], &[more]].concat());
        command.arg("--recheck-after=100ms");
        ended(command).await
    }
    // Nobody has its name.
    let (code, said) = run(&fleet, "--withdraw-without-keep-alive-times").await;
    assert_eq!((code, fleet.state(&nth(0))), (0, Some(State::Active)), "{said}");
    let successor = named("scheduler-0", 1, 51);
    fleet.until_a_later_second(&nth(0)).await;
    fleet.add(successor.clone()).await;
    let (code, said) = run(&fleet, "--apply-without-keep-alive-times").await;
    assert_eq!((code, fleet.state(&nth(0))), (0, Some(State::Inactive)), "{said}");
    let (code, said) = run(&fleet, "--withdraw-without-keep-alive-times").await;
    assert_eq!((code, fleet.state(&nth(0))), (0, None), "{said}");
    assert!(said.contains("a manager before v2.3.4 keeps a list for each peer that asked"), "{said}");
    let states = [nth(1), successor].map(|key| fleet.state(&key));
    assert_eq!(states, [Some(State::Active), Some(State::Active)], "{said}");
}

#[tokio::test]
async fn rows_that_were_left_for_long_are_withdrawn_and_no_others() {
    let mut fleet = Fleet::of(4).await;
    fleet.lose(&[0]).await;
    let (code, said) = ended(fleet.reconcile(&ALL)).await;
    assert_eq!((code, fleet.state(&nth(0))), (0, Some(State::Inactive)), "{said}");
    // It lives, and its row is wrongly inactive: never withdrawn.
    fleet.manager.table().set_by_hand(&nth(1), State::Inactive).unwrap();
    // Not long enough.
    let (code, said) = ended(fleet.reconcile_as_root(&[&ALL[..], &["--purge-after=1h"]].concat())).await;
    assert_eq!((code, fleet.manager.table().rows().unwrap().len()), (0, 4), "{said}");
    // A dry run lists.
    let soon = ["--purge-after=1s", "--purge-early"];
    let (code, said) = ended(fleet.reconcile_as_root(&soon)).await;
    assert_eq!((code, fleet.manager.table().rows().unwrap().len()), (2, 4), "{said}");
    assert!(said.contains("would be withdrawn"), "{said}");
    // A guest may not.
    let (code, said) = ended(fleet.reconcile(&[&ALL[..], &soon].concat())).await;
    assert_eq!((code, fleet.manager.table().rows().unwrap().len()), (0, 4), "{said}");
    assert!(said.contains("may not delete") && said.contains("signoff grant"), "{said}");
    let (code, said) = ended(fleet.reconcile_as_root(&[&ALL[..], &soon].concat())).await;
    let left: Vec<String> =
        fleet.manager.table().rows().unwrap().into_iter().map(|row| row.host_name).collect();
    assert_eq!(
        (code, left),
        (0, ["scheduler-1", "scheduler-2", "scheduler-3"].map(str::to_owned).to_vec()),
        "{said}"
    );
    assert!(said.contains("1 withdrawn"), "{said}");
}

/// The addresses that a peer which names cluster 1 is given, as the manager has them at hand.
async fn given(fleet: &Fleet) -> Vec<String> {
    let settings = ManagerSettings {
        grpc: vec![fleet.manager.grpc_addr().to_string().parse().unwrap()],
        ..ManagerSettings::default()
    };
    let given = Client::new(settings).unwrap().given(1.try_into().unwrap(), &[]).await.unwrap();
    let [(_, rows)] = &given[..] else { panic!("{given:?}") };
    let mut addresses: Vec<String> = rows.as_ref().unwrap().iter().map(|row| row.ip.clone()).collect();
    addresses.sort();
    addresses
}

#[tokio::test]
async fn a_replaced_row_is_out_of_what_peers_are_given_after_one_run_and_the_living_are_as_they_were() {
    let mut fleet = Fleet::of(3).await;
    let gone = fleet.row(&nth(0));
    fleet.lose(&[0]).await;
    let successor = named("scheduler-0", 1, 51);
    fleet.add(successor.clone()).await;
    fleet.manager.table().set_by_hand(&nth(0), State::Inactive).unwrap();
    // Inactive, and given to peers all the same; the manager keeps that list.
    assert_eq!(given(&fleet).await, ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.51"]);
    let ids = || [&nth(1), &nth(2), &successor].map(|key| (fleet.row(key).id, fleet.state(key)));
    let before = ids();
    let (code, said) = ended(fleet.reconcile_as_root(&["--apply", "--cluster-id=1"])).await;
    assert_eq!((code, fleet.state(&nth(0))), (0, None), "{said}");
    assert_eq!(given(&fleet).await, ["127.0.0.2", "127.0.0.3", "127.0.0.51"], "{said}");
    assert_eq!(ids(), before);
    // All of it, for whoever wants it back.
    let whole = format!("\"host_name\":\"scheduler-0\",\"ip\":\"127.0.0.1\",\"port\":{}", gone.port);
    assert!(said.replace('\\', "").contains(&whole), "{whole}: {said}");
    assert!(said.contains("1 withdrawn, 0 not withdrawn"), "{said}");
}

#[tokio::test]
async fn an_active_row_that_is_replaced_is_signed_off_and_withdrawn_in_one_run_by_one_who_may_delete() {
    let mut fleet = Fleet::of(2).await;
    fleet.lose(&[0]).await;
    fleet.add(named("scheduler-0", 1, 51)).await;
    fleet.manager.table().set_by_hand(&nth(0), State::Active).unwrap();
    let (code, said) = ended(fleet.reconcile(&ALL)).await;
    assert_eq!((code, fleet.state(&nth(0))), (0, Some(State::Inactive)), "{said}");
    assert!(said.contains("1 row(s) can't be withdrawn") && said.contains("signoff grant"), "{said}");
    fleet.manager.table().set_by_hand(&nth(0), State::Active).unwrap();
    let (code, said) = ended(fleet.reconcile_as_root(&[&ALL[..], &["--withdraw=false"]].concat())).await;
    assert_eq!(fleet.state(&nth(0)), Some(State::Inactive), "{code}: {said}");
    fleet.manager.table().set_by_hand(&nth(0), State::Active).unwrap();
    let (code, said) = ended(fleet.reconcile_as_root(&ALL)).await;
    assert_eq!((code, fleet.state(&nth(0))), (0, None), "{said}");
}

#[tokio::test]
async fn of_two_fleets_that_share_names_nothing_is_withdrawn_where_one_is_cut_off_and_the_other_is_rolled() {
    let mut fleet = Fleet::of(2).await;
    let other = |n: u8| named(&format!("scheduler-{n}"), 1, 101 + n);
    fleet.add(other(0)).await;
    fleet.add(other(1)).await;
    // The first is cut off; the pods of the other come back under new addresses.
    fleet.lose(&[0, 1, 2, 3]).await;
    for n in [0, 1] {
        fleet.add(named(&format!("scheduler-{n}"), 1, 201 + n)).await;
    }
    for key in [nth(0), nth(1), other(0), other(1)] {
        fleet.manager.table().set_by_hand(&key, State::Inactive).unwrap();
    }
    let (code, said) = ended(fleet.reconcile_as_root(&ALL)).await;
    assert_eq!((code, fleet.manager.table().rows().unwrap().len()), (0, 6), "{said}");
    assert!(!said.contains("withdrawn"), "{said}");
}

#[tokio::test]
async fn a_manager_that_is_gone_when_it_comes_to_writing_is_a_failure() {
    let mut fleet = Fleet::of(2).await;
    fleet.lose(&[0]).await;
    let mut command = fleet.reconcile(&ALL);
    // Reads work; nobody takes the sign-off.
    command.env("SIGNOFF_MANAGER", format!("127.0.0.1:1,http://{}", fleet.manager.rest_addr()));
    let before = fleet.history().len();
    let (code, said) = ended(command).await;
    assert_eq!((code, fleet.history().len()), (1, before), "{said}");
    assert!(said.contains("not signed off: ") && said.contains("1 failed"), "{said}");
}
