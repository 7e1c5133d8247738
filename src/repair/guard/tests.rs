use proptest::prelude::*;

use super::*;
use crate::repair::judge::{
    judge,
    tests::{GIVEN, any_table, row},
};

/// What may be done, whatever shows that a row is dead.
fn limits(max_share: MaxShare) -> Limits {
    Limits { max_share, without_times: true }
}

fn planned(rows: &[Seen], max_share: MaxShare) -> Plan {
    plan(rows, &judge(rows, &GIVEN), &GIVEN, limits(max_share), |_| true, &Candidates::default())
}

fn dead(id: u64, ip: &str) -> Seen {
    row(id, &format!("dead-{id}"), ip).silent().probed(Probed::Silent)
}

fn live(id: u64, ip: &str) -> Seen {
    row(id, &format!("live-{id}"), ip).heard().probed(Probed::Answers)
}

const ALL: MaxShare = MaxShare::percent(100);

#[test]
fn the_dead_are_signed_off_and_the_living_are_not() {
    let rows = [dead(1, "10.0.0.1"), live(2, "10.0.0.2"), dead(3, "10.0.0.3")];
    assert_eq!(planned(&rows, ALL), Plan { sign_off: vec![0, 2], withdraw: vec![], held: vec![] });
}

#[test]
fn g7_past_the_share_nothing_at_all_is_done() {
    let rows = [dead(1, "10.0.0.1"), live(2, "10.0.0.2"), dead(3, "10.0.0.3")];
    let held = planned(&rows, MaxShare::default());
    assert_eq!(
        held,
        Plan {
            sign_off: vec![],
            withdraw: vec![],
            held: vec![Held::Share { wanted: 2, allowed: 1, active: 3 }]
        }
    );
    assert!(planned(&rows, MaxShare::Count(1)).sign_off.is_empty());
    assert_eq!(planned(&rows, MaxShare::Count(2)).sign_off, [0, 2]);
    assert_eq!(planned(&rows[..2], MaxShare::default()).sign_off, [0], "one row may always be");
}

#[test]
fn g7_a_cluster_in_which_every_probe_failed_is_left_alone() {
    let unreachable = row(2, "live-2", "10.0.0.2").heard().probed(Probed::Silent);
    let rows = [
        dead(1, "10.0.0.1"),
        unreachable,
        dead(3, "10.0.0.3").in_cluster(2),
        live(4, "10.0.0.4").in_cluster(2),
    ];
    let plan = planned(&rows, ALL);
    assert_eq!(plan.sign_off, [2], "the other cluster answers");
    assert_eq!(plan.held, [Held::Blind { cluster_id: 1, probes: 2, answers: 0 }]);
}

#[test]
fn a_look_with_no_network_at_all_is_blind_though_nobody_is_judged_dead() {
    let rows = [
        row(1, "s-1", "10.0.0.1").silent().probed(Probed::Unclear),
        row(2, "s-2", "10.0.0.2").heard().probed(Probed::Unclear),
    ];
    assert_eq!(planned(&rows, ALL).held, [Held::Blind { cluster_id: 1, probes: 2, answers: 0 }]);
}

#[test]
fn g7_a_cluster_without_anybody_known_to_live_keeps_its_rows() {
    // Nothing is heard, and nothing answers but a control elsewhere: not judged dead, and said all the same.
    let mute = row(2, "s-2", "10.0.0.2").silent().probed(Probed::Silent);
    let unclear = row(4, "s-4", "10.0.0.4").silent().probed(Probed::Answers).inactive();
    let rows = [dead(1, "10.0.0.1"), mute, unclear, live(3, "10.0.0.3").in_cluster(2)];
    assert_eq!(
        planned(&rows, ALL),
        Plan { sign_off: vec![], withdraw: vec![], held: vec![Held::LastLive { cluster_id: 1, wanted: 2 }] }
    );
    // A living scheduler whose row is inactive is no help to a peer.
    let rows = [
        dead(1, "10.0.0.1"),
        live(2, "10.0.0.2").inactive(),
        row(3, "s-3", "10.0.0.3").silent().probed(Probed::Answers),
    ];
    assert_eq!(planned(&rows, ALL).held, [Held::LastLive { cluster_id: 1, wanted: 1 }]);
}

#[test]
fn g7_where_most_of_the_living_do_not_answer_the_prober_is_not_believed() {
    let living =
        |id: u64, probe| row(id, &format!("live-{id}"), &format!("10.0.0.{id}")).heard().probed(probe);
    let some = |answering: usize| {
        let mut rows = vec![dead(1, "10.0.0.1")];
        for (n, id) in (2..6).enumerate() {
            rows.push(living(id, if n < answering { Probed::Answers } else { Probed::Silent }));
        }
        planned(&rows, ALL)
    };
    assert_eq!(some(1).held, [Held::Blind { cluster_id: 1, probes: 5, answers: 1 }]);
    assert_eq!(some(2), Plan { sign_off: vec![0], withdraw: vec![], held: vec![] });
}

#[test]
fn g7_rows_that_nobody_had_room_to_look_at_count_for_the_share() {
    let mut rows = vec![dead(1, "10.0.0.1"), live(2, "10.0.0.2")];
    rows.extend((3..13).map(|id| row(id, &format!("s-{id}"), &format!("10.0.1.{id}")).silent()));
    let held = planned(&rows, MaxShare::percent(50)).held;
    assert_eq!(held, [Held::Share { wanted: 11, allowed: 6, active: 12 }]);
    assert_eq!(planned(&rows, ALL).sign_off, [0]);
}

#[test]
fn g7_a_row_that_is_dead_by_no_keep_alive_time_is_written_only_by_an_explicit_word() {
    let timeless = |id: u64, hostname: &str, probe| row(id, hostname, &format!("10.0.0.{id}")).probed(probe);
    let strict = Limits { max_share: ALL, without_times: false };
    let planned = |rows: &[Seen], limits| {
        plan(rows, &judge(rows, &GIVEN), &GIVEN, limits, |_| true, &Candidates::default())
    };
    // gRPC, or a manager before v2.3.1.
    let rows = [timeless(1, "s-0", Probed::Silent), timeless(2, "s-0", Probed::Answers)];
    let refused = Held::NoTimes { rows: 1, all: true };
    assert_eq!(planned(&rows, strict), Plan { sign_off: vec![], withdraw: vec![], held: vec![refused] });
    assert_eq!(planned(&rows, limits(ALL)), Plan { sign_off: vec![0], withdraw: vec![], held: vec![] });
    let said = refused.to_string();
    assert!(said.contains("--apply-without-keep-alive-times") && said.contains("v2.3.1"), "{said}");
    // It is refused whatever there is to be written.
    assert_eq!(planned(&rows[1..], strict).held, [Held::NoTimes { rows: 0, all: true }]);
    assert_eq!(planned(&[], strict).held, []);
    // Beside rows with times: those are written.
    let rows = [rows[0].clone(), rows[1].clone(), dead(3, "10.0.0.3"), live(4, "10.0.0.4")];
    let held = vec![Held::NoTimes { rows: 1, all: false }];
    assert_eq!(planned(&rows, strict), Plan { sign_off: vec![2], withdraw: vec![], held });
}

#[test]
fn g7_rows_that_only_a_probe_could_decide_are_said_where_something_answers_for_the_dead() {
    let foreign =
        |id: u64| row(id, &format!("s-{id}"), &format!("10.0.0.{id}")).silent().probed(Probed::Foreign);
    let replaced = row(5, "live-2", "10.0.0.5").silent().probed(Probed::Foreign);
    let rows = [foreign(1), live(2, "10.0.0.2"), foreign(3), replaced];
    for masked in [true, false] {
        let given = Circumstances { masked, ..GIVEN };
        let planned = |rows: &[Seen]| {
            plan(rows, &judge(rows, &given), &given, limits(ALL), |_| true, &Candidates::default())
        };
        let plan = planned(&rows);
        assert_eq!(plan.sign_off, [3], "what the times decide is done");
        assert_eq!(plan.held, [Held::Probes { cluster_id: 1, rows: 2, everywhere: masked }]);
        let said = plan.held[0].to_string();
        assert!(said.contains("probes") && said.contains("docs/meshes.md"), "{said}");
        // Those that live can't be reached either, as they want the mesh's own TLS: this side is not blind for that.
        let unreached = |row: Seen| row.probed(Probed::Foreign);
        let all = [rows[0].clone(), unreached(live(2, "10.0.0.2")), rows[3].clone()];
        let is_blind =
            |rows: &[Seen]| planned(rows).held.iter().any(|held| matches!(held, Held::Blind { .. }));
        assert_eq!(is_blind(&all), !masked);
        // Whose TLS is heard was reached.
        let [one, two, three] = all;
        let all = [one, two.probed(Probed::Proxy), three];
        assert!(!is_blind(&all));
        assert_eq!(planned(&all).sign_off, [2]);
    }
}

fn old(id: u64) -> Seen {
    row(id, &format!("old-{id}"), &format!("10.0.2.{id}")).silent().inactive().probed(Probed::Silent)
}

#[test]
fn g7_a_withdrawal_obeys_the_guards_and_of_those_left_takes_a_share_at_most_the_oldest_first() {
    let planned = |rows: &[Seen], max_share| {
        let found = Candidates { left: vec![2, 0, 1], ..Candidates::default() };
        plan(rows, &judge(rows, &GIVEN), &GIVEN, limits(max_share), |_| true, &found)
    };
    let rows = [old(1), old(2), old(3), live(4, "10.0.0.4"), dead(5, "10.0.0.5"), dead(6, "10.0.0.6")];
    assert_eq!(planned(&rows, ALL).withdraw, [0, 1, 2]);
    assert_eq!(planned(&rows, MaxShare::Count(2)).withdraw, [0, 2], "the oldest are named first");
    let held = planned(&rows, MaxShare::Count(1));
    assert_eq!(
        (held.withdraw.len(), held.held.len()),
        (0, 1),
        "past the share of sign-offs nothing is done at all"
    );
    // Every probe failed in their cluster, though another one answers.
    let rows = [old(1).in_cluster(2), old(2).in_cluster(2), old(3).in_cluster(2), live(4, "10.0.0.4")];
    let held = planned(&rows, ALL);
    assert_eq!(
        (held.withdraw.len(), held.held),
        (0, vec![Held::Blind { cluster_id: 2, probes: 3, answers: 0 }])
    );
}

#[test]
fn g7_past_the_share_no_replaced_row_is_withdrawn_and_what_was_in_the_minutes_before_counts() {
    let rows = [old(1), old(2), live(3, "10.0.0.3"), live(4, "10.0.0.4"), live(5, "10.0.0.5")];
    let planned = |replaced: &[usize], withdrew, allowed| {
        let found = Candidates { replaced: replaced.to_vec(), withdrew, ..Candidates::default() };
        plan(&rows, &judge(&rows, &GIVEN), &GIVEN, limits(MaxShare::Count(allowed)), |_| true, &found)
    };
    assert_eq!(planned(&[0, 1], 0, 2).withdraw, [0, 1]);
    assert_eq!(planned(&[0], 1, 2).withdraw, [0]);
    for (replaced, withdrew, allowed) in [(&[0, 1][..], 0, 1), (&[0], 1, 1), (&[0, 1], 1, 2)] {
        let Plan { withdraw, held, .. } = planned(replaced, withdrew, allowed);
        assert_eq!(withdraw, Vec::<usize>::new());
        assert_eq!(held, [Held::Withdrawals { wanted: replaced.len(), before: withdrew, allowed }]);
    }
    assert_eq!(planned(&[], 5, 1).held, []);
}

#[test]
fn g7_no_share_counts_a_row_whose_pod_this_process_saw_go_and_every_other_it_does() {
    let of = |pod| {
        let old = |id| old(id).with_pod(pod);
        let rows =
            [old(1), old(2), old(3), live(4, "10.0.0.4"), live(5, "10.0.0.5"), old(6).with_pod(Says::Gone)];
        let planned = |replaced: &[usize]| {
            let found = Candidates { replaced: replaced.to_vec(), ..Candidates::default() };
            plan(&rows, &judge(&rows, &GIVEN), &GIVEN, limits(MaxShare::Count(1)), |_| true, &found)
        };
        let Plan { withdraw, held, .. } = planned(&[0, 1, 2, 5]);
        (withdraw, held.len(), planned(&[5]).withdraw)
    };
    assert_eq!(of(Says::Went), (vec![0, 1, 2, 5], 0, vec![5]));
    for pod in [Says::Gone, Says::NotOurs] {
        assert_eq!(of(pod), (vec![], 1, vec![5]), "{pod:?}");
    }
    // Nor does a sign-off's.
    let signed_off = |pod| {
        let dead = |id, ip| dead(id, ip).with_pod(pod);
        let rows = [dead(1, "10.0.0.1"), dead(2, "10.0.0.2"), live(3, "10.0.0.3"), live(4, "10.0.0.4")];
        planned(&rows, MaxShare::Count(1)).sign_off
    };
    assert_eq!([signed_off(Says::Went), signed_off(Says::Gone)], [vec![0, 1], vec![]]);
}

#[test]
fn only_wanted_rows_are_written_and_counted() {
    let rows = [dead(1, "10.0.0.1"), live(2, "10.0.0.2"), dead(3, "10.0.0.3"), live(4, "10.0.0.4")];
    let judged = judge(&rows, &GIVEN);
    let of_one = plan(
        &rows,
        &judged,
        &GIVEN,
        limits(MaxShare::percent(15)),
        |row| row.now.id == 3,
        &Candidates::default(),
    );
    assert_eq!(of_one, Plan { sign_off: vec![2], withdraw: vec![], held: vec![] });
}

#[test]
fn a_share_is_a_share_or_a_count_and_nothing_else() {
    for (text, of, wanted) in [
        ("15%", 100, 15),
        ("15%", 3, 1),
        ("100%", 7, 7),
        (" 0.5 % ", 1000, 5),
        ("3", 100, 3),
        ("29%", 100, 29),
        (".5%", 1000, 5),
        ("12.3456%", 100_000, 12_345),
        ("100.000%", 7, 7),
    ] {
        assert_eq!(text.parse::<MaxShare>().unwrap().of(of), wanted, "{text}");
    }
    for wrong in [
        "",
        "0",
        "0%",
        "101%",
        "-1",
        "-5%",
        "x",
        "1.5",
        "NaN%",
        "inf%",
        "%",
        ".%",
        "1.2.3%",
        "+5%",
        "1e1%",
        "100.001%",
        "0.0001%",
        "99999999999999999999%",
    ] {
        assert!(wrong.parse::<MaxShare>().unwrap_err().contains("15%"), "{wrong}");
    }
    for text in ["15%", "100%", "0.5%", "12.345%", "10%", "3"] {
        assert_eq!(text.parse::<MaxShare>().unwrap().to_string(), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn g7_no_plan_can_make_an_outage(
        (rows, given) in any_table(),
        max_share in prop_oneof![Just(MaxShare::Count(1)), Just(MaxShare::Count(3)), Just(MaxShare::percent(40)), Just(ALL)],
        without_times in any::<bool>(),
    ) {
        let judged = judge(&rows, &given);
        let plan = plan(&rows, &judged, &given, Limits { max_share, without_times }, |_| true, &Candidates::default());
        let counts = |row: &&Seen| row.now.state == State::Active && row.pod != Says::Went;
        let active = rows.iter().filter(counts).count();
        let counted = plan.sign_off.iter().filter(|at| rows[**at].pod != Says::Went).count();
        prop_assert!(counted <= max_share.of(active));
        for at in &plan.sign_off {
            let cluster = rows[*at].now.cluster_id;
            prop_assert!(!judged[*at].alive);
            let silent = matches!(judged[*at].reason, Reason::Evidence { silent: true, .. });
            prop_assert!(silent || without_times || rows[*at].pod == Says::Went, "row {} is dead by no keep-alive time", rows[*at].now.id);
            let of_cluster = || (0..rows.len()).filter(|other| rows[*other].now.cluster_id == cluster);
            let stays = of_cluster().any(|other| {
                !plan.sign_off.contains(&other) && judged[other].alive && rows[other].now.state == State::Active
            });
            prop_assert!(stays, "cluster {} is left without a living scheduler", cluster);
            let counts = |probe: &Probed| *probe != Probed::NotMade && !(given.masked && *probe == Probed::Foreign);
            let probes: Vec<_> = of_cluster().map(|other| rows[other].probe).filter(counts).collect();
            let answers = probes.iter().any(|probe| matches!(probe, Probed::Answers | Probed::Proxy));
            prop_assert!(probes.is_empty() || answers, "cluster {} was not seen", cluster);
        }
    }
}

/// What ails a living scheduler's evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The manager hears nothing of it: its stream broke, or its manager restarts.
    Unheard,
    /// It can't be reached from here.
    Unreachable,
    /// It is of another Kubernetes cluster, with the same names: in the one whose pods are listed, no pod has its address, which can't
    /// be reached from there.
    Elsewhere,
}

/// One scheduler as it really is.
#[derive(Debug, Clone)]
struct Life {
    lives: bool,
    active: bool,
    fault: Fault,
    hostname: u8,
    cluster_id: u64,
    /// At its address is a pod with a service mesh's proxy: its own, or, where it is gone, that of whoever has the address by now.
    meshed: bool,
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let fault = prop_oneof![
        4 => Just(Fault::None), 1 => Just(Fault::Unheard), 1 => Just(Fault::Unreachable), 1 => Just(Fault::Elsewhere)
    ];
    let meshed = proptest::bool::weighted(0.2);
    let life = (proptest::bool::weighted(0.7), proptest::bool::weighted(0.9), fault, 0u8..6, 1u64..3, meshed)
        .prop_map(|(lives, active, fault, hostname, cluster_id, meshed)| Life {
            lives,
            active,
            fault,
            hostname,
            cluster_id,
            meshed,
        });
    proptest::collection::vec(life, 1..12)
}

/// What is seen of them, each at an address of its own; of their pods, too, if those are listed.
fn seen(lives: &[Life], times: bool, pods: bool) -> Vec<Seen> {
    (1u64..)
        .zip(lives)
        .map(|(id, life)| {
            let seen =
                row(id, &format!("s-{}", life.hostname), &format!("10.0.0.{id}")).in_cluster(life.cluster_id);
            let heard = life.lives && life.fault != Fault::Unheard;
            let seen = match (times, heard) {
                (true, true) => seen.heard(),
                (true, false) => seen.silent(),
                (false, _) => seen,
            };
            let seen = seen.probed(match (life.lives, life.fault) {
                (true, Fault::None | Fault::Unheard) => Probed::Answers,
                _ if life.meshed => Probed::Proxy,
                _ => Probed::Silent,
            });
            let seen = seen.with_pod(match (pods, life.lives, life.fault) {
                (false, ..) => Says::NotOurs,
                (true, true, Fault::Elsewhere) | (true, false, Fault::Unheard) => Says::Gone,
                (true, true, _) => Says::Lives,
                (true, false, _) => Says::Went,
            });
            if life.active { seen } else { seen.inactive() }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn one_fault_at_each_signs_nobody_off_who_lives(lives in lives(), pods in any::<bool>()) {
        let rows = seen(&lives, true, pods);
        for at in planned(&rows, ALL).sign_off {
            prop_assert!(!lives[at].lives, "{:?}", lives[at]);
        }
    }

    #[test]
    fn without_times_nobody_is_signed_off_who_lives_where_no_two_share_a_name(mut lives in lives(), pods in any::<bool>()) {
        // Two that live under one name are what such a source can't tell from a dead one and its successor.
        let mut names = std::collections::BTreeSet::new();
        lives.retain(|life| !life.lives || names.insert((life.cluster_id, life.hostname)));
        let rows = seen(&lives, false, pods);
        for at in planned(&rows, ALL).sign_off {
            prop_assert!(!lives[at].lives, "{:?}", lives[at]);
        }
    }

    #[test]
    fn without_faults_every_dead_row_beside_a_living_one_is_signed_off(mut lives in lives(), pods in any::<bool>()) {
        lives.iter_mut().for_each(|life| life.fault = Fault::None);
        let rows = seen(&lives, true, pods);
        let planned = planned(&rows, ALL).sign_off;
        for (at, life) in lives.iter().enumerate() {
            let company = lives.iter().any(|other| other.lives && other.active && other.cluster_id == life.cluster_id);
            // Behind a proxy only whose hostname lives elsewhere, or whose pod is gone, can be told to be gone.
            let is_namesake = |other: &Life| other.hostname == life.hostname && other.cluster_id == life.cluster_id;
            let replaced = lives.iter().any(|other| other.lives && other.active && is_namesake(other));
            let wanted = !life.lives && life.active && company && (replaced || !life.meshed || pods);
            prop_assert_eq!(planned.contains(&at), wanted, "{:?}", life);
        }
    }
}
