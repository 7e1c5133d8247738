//! Each verdict by example, and all of them against a reference that is written row by row, from the module's own words.

use std::{num::NonZeroU32, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::repair::sighting::USUAL_INTERVAL;

pub(in crate::repair) const GIVEN: Circumstances =
    Circumstances { names: Names::Exact, apart: Duration::from_secs(15), masked: false };

const T0: &str = "2026-11-23 20:54:32.734";
const T1: &str = "2026-11-23 20:54:37.735";

/// A row that was active at both looks, and of which nothing else is known.
pub(in crate::repair) fn row(id: u64, hostname: &str, ip: &str) -> Seen {
    let now = Sighting {
        id,
        cluster_id: 1,
        hostname: hostname.into(),
        ip: Some(ip.parse().unwrap()),
        port: 8002,
        state: State::Active,
        created: None,
        keep_alive: None,
        updated: None,
        interval_ms: None,
    };
    Seen { before: Some(Before::from(&now)), now, probe: Probed::NotMade, ours: false, pod: Says::NotOurs }
}

impl Seen {
    pub(in crate::repair) fn heard(mut self) -> Self {
        self.now.keep_alive = Some(Stamp::of(T1));
        self.silent_since()
    }

    pub(in crate::repair) fn silent(mut self) -> Self {
        self.now.keep_alive = Some(Stamp::of(T0));
        self.silent_since()
    }

    fn silent_since(mut self) -> Self {
        self.before = self.before.map(|before| Before { keep_alive: Some(Stamp::of(T0)), ..before });
        self
    }

    pub(in crate::repair) fn probed(mut self, probe: Probed) -> Self {
        self.probe = probe;
        self
    }

    pub(in crate::repair) fn with_pod(mut self, pod: Says) -> Self {
        self.pod = pod;
        self
    }

    pub(in crate::repair) fn inactive(mut self) -> Self {
        self.now.state = State::Inactive;
        self.before = self.before.map(|before| Before { state: State::Inactive, ..before });
        self
    }

    pub(in crate::repair) fn in_cluster(mut self, id: u64) -> Self {
        self.now.cluster_id = id;
        self
    }
}

fn verdicts(rows: &[Seen]) -> Vec<Verdict> {
    judge(rows, &GIVEN).into_iter().map(|judgement| judgement.verdict).collect()
}

fn words(rows: &[Seen], at: usize) -> String {
    judge(rows, &GIVEN)[at].reason.words(&rows[at], &GIVEN)
}

/// Somebody the manager hears of, so that silence means something.
fn witness() -> Seen {
    row(99, "witness-0", "10.9.9.9").heard()
}

#[test]
fn g7_a_row_whose_time_moved_lives_whatever_a_probe_says() {
    for probe in
        [Probed::NotMade, Probed::Answers, Probed::Proxy, Probed::Silent, Probed::Foreign, Probed::Unclear]
    {
        assert_eq!(verdicts(&[row(1, "s-0", "10.0.0.1").heard().probed(probe)]), [Verdict::Live]);
    }
    let mut anew = row(1, "s-0", "10.0.0.1").silent().probed(Probed::Silent);
    anew.before.as_mut().unwrap().port = 8003;
    assert_eq!(verdicts(&[anew, witness()])[0], Verdict::Live, "it registered with another port");
}

#[test]
fn g7_silence_and_a_mute_address_are_death_and_either_alone_is_not() {
    let silent = row(1, "s-0", "10.0.0.1").silent();
    let rows = [silent.clone().probed(Probed::Silent), witness()];
    assert_eq!(verdicts(&rows)[0], Verdict::Dead);
    assert_eq!(words(&rows, 0), "the manager heard nothing of it for 15s; nothing answers at its address");
    for probe in [Probed::NotMade, Probed::Unclear, Probed::Foreign, Probed::Proxy, Probed::Answers] {
        assert_eq!(verdicts(&[silent.clone().probed(probe), witness()])[0], Verdict::Undecided, "{probe:?}");
    }
    let mute = row(1, "s-0", "10.0.0.1").probed(Probed::Silent);
    assert_eq!(verdicts(&[mute]), [Verdict::Undecided], "a source without times");
}

#[test]
fn g7_a_pod_that_is_there_lives_whatever_a_probe_says_and_one_that_is_gone_is_one_kind() {
    let silent = |pod| row(1, "s-0", "10.0.0.1").silent().with_pod(pod);
    for probe in [Probed::NotMade, Probed::Unclear, Probed::Foreign, Probed::Proxy, Probed::Silent] {
        let verdict = |pod| verdicts(&[silent(pod).probed(probe), witness()])[0];
        assert_eq!([Says::Lives, Says::Starts].map(verdict), [Verdict::Undecided; 2], "{probe:?}");
        assert_eq!([verdict(Says::Gone), verdict(Says::Went)], [Verdict::Dead; 2], "{probe:?}");
        assert_eq!(verdict(Says::Unclear), verdict(Says::NotOurs), "{probe:?}");
    }
    // Whoever answers there, it is somebody.
    assert_eq!(verdicts(&[silent(Says::Went).probed(Probed::Answers), witness()])[0], Verdict::Undecided);
    // Without times a silent address may be out of sight for the same reason.
    let mute = |pod| verdicts(&[row(1, "s-0", "10.0.0.1").probed(Probed::Silent).with_pod(pod)])[0];
    assert_eq!([Says::Gone, Says::Went].map(mute), [Verdict::Undecided, Verdict::Dead]);
    // Alone it is not enough, nor against a keep-alive.
    let behind_a_mesh = || row(1, "s-0", "10.0.0.1").probed(Probed::Proxy);
    assert_eq!(verdicts(&[behind_a_mesh().with_pod(Says::Went)]), [Verdict::Undecided]);
    assert_eq!(verdicts(&[behind_a_mesh().heard().with_pod(Says::Went)]), [Verdict::Live]);
    // Behind a mesh, over gRPC: its successor's pod is there.
    let successor = row(2, "s-0", "10.0.0.2").probed(Probed::Proxy).with_pod(Says::Lives);
    let rows = [behind_a_mesh().with_pod(Says::Went), successor];
    assert_eq!(verdicts(&rows), [Verdict::Replaced, Verdict::Live]);
    assert_eq!(
        words(&rows, 0),
        "a service mesh's proxy answers at its address, whoever is behind it (see docs/meshes.md); no pod of its name has its \
         address any more; row 2, which lives, has its hostname; no keep-alive time is shown for it (gRPC, or a manager before v2.3.1)"
    );
    assert!(words(&rows, 1).starts_with("its pod is there, and has its address; "));
    // One that isn't ready is no witness against another.
    let [gone, successor] = rows;
    let rows = [gone.with_pod(Says::Gone), successor.with_pod(Says::Starts)];
    assert_eq!(verdicts(&rows), [Verdict::Undecided, Verdict::Live]);
}

#[test]
fn a_row_without_a_time_is_judged_as_if_nobody_had_one() {
    let mute = row(1, "s-0", "10.0.0.1").probed(Probed::Silent);
    assert_eq!(
        verdicts(&[mute.clone(), witness()])[0],
        Verdict::Undecided,
        "a manager of before v2.3.1 may serve it"
    );
    assert_eq!(verdicts(&[mute, row(2, "s-0", "10.0.0.2").heard()])[0], Verdict::Replaced);
}

#[test]
fn a_time_that_could_tell_and_does_not_yet_is_waited_for_whatever_else_speaks() {
    let mute = || row(1, "s-0", "10.0.0.1").silent().probed(Probed::Silent);
    let namesake = || row(2, "s-0", "10.0.0.2");
    // Nothing moves, and both answer for all that is known: two that live.
    assert_eq!(verdicts(&[mute(), namesake().silent().probed(Probed::Answers)])[0], Verdict::Undecided);
    let mut slow = mute();
    slow.now.interval_ms = NonZeroU32::new(60_000);
    assert_eq!(verdicts(&[slow, namesake().heard()])[0], Verdict::Undecided, "too soon");
    // A reconnect's first message moves `updated_at` alone.
    let mut back = mute();
    back.now.updated = Some(Stamp::of(T1));
    back.before.as_mut().unwrap().updated = Some(Stamp::of(T0));
    assert_eq!(verdicts(&[back.clone(), namesake().heard()])[0], Verdict::Undecided);
    assert!(words(&[back.clone(), witness()], 0).contains("just have come back"));
    back.now.updated = back.before.unwrap().updated;
    assert_eq!(verdicts(&[back, namesake().heard()])[0], Verdict::Replaced);
    // Another cluster's schedulers say nothing of this one's manager.
    assert_eq!(verdicts(&[mute(), witness().in_cluster(2)])[0], Verdict::Undecided);
}

#[test]
fn g7_a_table_in_which_nothing_moves_proves_no_silence() {
    let rows = [
        row(1, "s-0", "10.0.0.1").silent().probed(Probed::Silent),
        row(2, "s-1", "10.0.0.2").silent().probed(Probed::Answers),
    ];
    assert_eq!(verdicts(&rows), [Verdict::Undecided, Verdict::Live]);
    assert!(words(&rows, 0).contains("no row's keep-alive time in its cluster moved"), "{}", words(&rows, 0));
}

#[test]
fn g7_silence_takes_three_of_the_rows_own_intervals() {
    let mut slow = row(1, "s-0", "10.0.0.1").silent().probed(Probed::Silent);
    slow.now.interval_ms = NonZeroU32::new(5001);
    assert_eq!(verdicts(&[slow.clone(), witness()])[0], Verdict::Undecided);
    assert!(
        words(&[slow.clone(), witness()], 0).contains("less than 3 of its keep-alive intervals of 5s 1ms")
    );
    slow.now.interval_ms = NonZeroU32::new(5000);
    assert_eq!(verdicts(&[slow, witness()])[0], Verdict::Dead);
    assert_eq!(
        USUAL_INTERVAL * INTERVALS_APART,
        GIVEN.apart,
        "a row that doesn't say is judged at the default"
    );
}

#[test]
fn a_silent_row_whose_hostname_lives_elsewhere_is_replaced() {
    let rows = [row(1, "s-0", "10.0.0.1").silent(), row(2, "s-0", "10.0.0.2").heard()];
    assert_eq!(verdicts(&rows), [Verdict::Replaced, Verdict::Live]);
    assert!(words(&rows, 0).contains("row 2, which lives, has its hostname"), "{}", words(&rows, 0));
    // Not by another cluster's row, nor by an inactive one, nor by one that is dead itself.
    for other in [
        row(2, "s-0", "10.0.0.2").heard().in_cluster(2),
        row(2, "s-0", "10.0.0.2").heard().inactive(),
        row(2, "s-0", "10.0.0.2").silent(),
    ] {
        assert_eq!(verdicts(&[row(1, "s-0", "10.0.0.1").silent(), other, witness()])[0], Verdict::Undecided);
    }
}

/// A row that was made at one time and last written at another.
fn made(row: Seen, at: &str, written: &str) -> Seen {
    let mut row = row;
    row.now.created = Some(Stamp::of(at));
    row.now.updated = Some(Stamp::of(written));
    row.before = row.before.map(|before| Before { updated: row.now.updated, ..before });
    row
}

#[test]
fn g7_a_namesake_that_was_there_while_it_was_still_heard_of_is_no_successor() {
    let silent = made(row(1, "s-0", "10.0.0.1").silent(), "2026-11-20 00:00:00", T0);
    let namesake = |at: &str| {
        let mut row = row(2, "s-0", "10.0.0.2").heard();
        row.now.created = Some(Stamp::of(at));
        row
    };
    let after = "2026-11-23 20:54:32.735";
    assert_eq!(verdicts(&[silent.clone(), namesake(after)])[0], Verdict::Replaced);
    for at in [T0, "2026-11-22 00:00:00"] {
        let rows = [silent.clone(), namesake(at)];
        assert_eq!(verdicts(&rows)[0], Verdict::Undecided, "{at}: two that share a name, one cut off");
        assert!(
            words(&rows, 0).contains("was made before this one was last heard of"),
            "{}",
            words(&rows, 0)
        );
        // One that nobody can reach, either, is dead by that.
        let rows = [silent.clone().probed(Probed::Silent), namesake(at)];
        assert_eq!(verdicts(&rows)[0], Verdict::Dead, "{at}");
    }
    // The youngest counts: the one before it may be dead too.
    let mut youngest = namesake(after);
    youngest.now.id = 3;
    assert_eq!(verdicts(&[silent.clone(), namesake(T0), youngest])[0], Verdict::Replaced);
    // A source without keep-alive times, whose rows say when they were written.
    let mut timeless = made(row(1, "s-0", "10.0.0.1"), "2026-11-20 00:00:00", T0).probed(Probed::Silent);
    timeless.now.keep_alive = None;
    let mut answers = namesake(T0).probed(Probed::Answers);
    (answers.now.keep_alive, answers.before.as_mut().unwrap().keep_alive) = (None, None);
    assert_eq!(verdicts(&[timeless, answers])[0], Verdict::Undecided);
}

#[test]
fn g7_what_takes_connections_and_answers_as_no_scheduler_speaks_neither_way() {
    let foreign = || row(1, "s-0", "10.0.0.1").silent().probed(Probed::Foreign);
    for masked in [false, true] {
        let given = Circumstances { masked, ..GIVEN };
        let judged = |rows: &[Seen]| judge(rows, &given)[0];
        let alone = judged(&[foreign(), witness()]);
        assert_eq!((alone.verdict, alone.alive), (Verdict::Undecided, false));
        let said = alone.reason.words(&foreign(), &given);
        assert_eq!(said.contains("docs/meshes.md"), masked, "{said}");
        // The keep-alive times and the namesake decide.
        assert_eq!(judged(&[foreign(), row(2, "s-0", "10.0.0.2").heard()]).verdict, Verdict::Replaced);
        let timeless = row(1, "s-0", "10.0.0.1").probed(Probed::Foreign);
        let answers = row(2, "s-0", "10.0.0.2").probed(Probed::Answers);
        assert_eq!(judged(&[timeless, answers]).verdict, Verdict::Undecided);
    }
}

#[test]
fn g7_a_meshs_proxy_at_a_dead_ones_address_is_no_sign_of_life() {
    let timeless = || row(1, "s-0", "10.0.0.1").probed(Probed::Proxy);
    let taken = || timeless().silent();
    let namesake = || row(2, "s-0", "10.0.0.2");
    assert_eq!(verdicts(&[taken(), witness()])[0], Verdict::Undecided, "nobody replaced it");
    let said = words(&[taken(), witness()], 0);
    assert!(said.contains("a service mesh's proxy answers at its address"), "{said}");
    assert_eq!(verdicts(&[taken(), namesake().heard()])[0], Verdict::Replaced, "the times decide");
    // A scheduler that the manager hears of lives behind its own proxy.
    assert_eq!(verdicts(&[taken().heard(), namesake().heard()])[0], Verdict::Contested);
    // Without times it neither lives, nor takes its name from one that can't be reached.
    let rows = [timeless(), namesake().probed(Probed::Silent)];
    assert_eq!(verdicts(&rows), [Verdict::Undecided; 2]);
    assert!(judge(&rows, &GIVEN).iter().all(|judgement| !judgement.alive));
    assert_eq!(verdicts(&[timeless(), namesake().probed(Probed::Answers)])[0], Verdict::Undecided);
}

#[test]
fn g7_a_row_that_something_made_active_long_after_it_was_heard_of_is_contested() {
    let dead = || row(1, "s-0", "10.0.0.1").silent().probed(Probed::Silent);
    // T0 is when it was last heard of.
    for (written, verdict) in [
        ("2026-11-23 20:54:32.735", Verdict::Dead),
        ("2026-11-23 20:54:37.835", Verdict::Dead),
        ("2026-11-23 20:55:30.000", Verdict::Contested),
    ] {
        let rows = [made(dead(), "2026-11-20 00:00:00", written), witness()];
        assert_eq!(verdicts(&rows)[0], verdict, "{written}");
    }
    let rows = [made(dead(), "2026-11-20 00:00:00", "2026-11-23 20:55:30.000"), witness()];
    assert!(words(&rows, 0).contains("made it active again"), "{}", words(&rows, 0));
}

#[test]
fn an_answer_is_the_neighbours_whose_address_it_is_now() {
    let reused = row(1, "s-0", "10.0.0.1").silent().probed(Probed::Answers);
    let rows = [reused.clone(), row(2, "t-0", "10.0.0.1").heard()];
    assert_eq!(verdicts(&rows), [Verdict::Replaced, Verdict::Live]);
    assert!(words(&rows, 0).contains("row 2, which lives, has its address"), "{}", words(&rows, 0));
    // Another port, or another cluster's network, is another address.
    let mut port = row(2, "t-0", "10.0.0.1").heard();
    port.now.port = 8003;
    port.before.as_mut().unwrap().port = 8003;
    for other in [port, row(2, "t-0", "10.0.0.1").heard().in_cluster(2)] {
        assert_eq!(verdicts(&[reused.clone(), other, witness()])[0], Verdict::Undecided);
    }
}

#[test]
fn without_times_a_row_is_dead_only_where_it_was_replaced() {
    let rows = [
        row(1, "s-0", "10.0.0.1").probed(Probed::Silent),
        row(2, "s-0", "10.0.0.2").probed(Probed::Answers),
        row(3, "s-1", "10.0.0.3").probed(Probed::Silent),
        row(4, "s-2", "10.0.0.4").probed(Probed::Unclear),
    ];
    let expected = [Verdict::Replaced, Verdict::Live, Verdict::Undecided, Verdict::Undecided];
    assert_eq!(verdicts(&rows), expected);
    assert!(words(&rows, 2).contains("no keep-alive time is shown for it"), "{}", words(&rows, 2));
}

#[test]
fn without_times_who_answers_at_a_shared_address_is_not_known() {
    let rows = [
        row(1, "s-0", "10.0.0.1").probed(Probed::Answers),
        row(2, "t-0", "10.0.0.1").probed(Probed::Answers),
        row(3, "s-0", "10.0.0.3").probed(Probed::Answers),
    ];
    assert_eq!(verdicts(&rows), [Verdict::Undecided, Verdict::Undecided, Verdict::Live]);
    assert!(words(&rows, 0).contains("it or row 2, can't be told"), "{}", words(&rows, 0));
}

#[test]
fn g7_an_orphans_row_with_its_address_takes_nothing_from_one_that_lives() {
    // The manager doesn't hear of it at the moment, it answers, and its hostname lives elsewhere, too.
    let twin = || row(1, "s-0", "10.0.0.1").silent().probed(Probed::Answers);
    let orphan = row(2, "t-0", "10.0.0.1").silent().probed(Probed::Answers);
    let namesake = row(3, "s-0", "10.0.0.3").heard();
    assert_eq!(verdicts(&[twin(), orphan.clone(), namesake.clone()])[0], Verdict::Undecided);
    let mut heir = orphan.heard();
    heir.now.id = 2;
    assert_eq!(verdicts(&[twin(), heir, namesake])[0], Verdict::Replaced);
}

#[test]
fn g7_two_that_live_under_one_hostname_are_contested() {
    let rows = [row(1, "s-0", "10.0.0.1").heard(), row(2, "s-0", "10.0.0.2").heard()];
    assert_eq!(verdicts(&rows), [Verdict::Contested; 2]);
    let by_probe = rows.map(|mut row| {
        row.now.keep_alive = None;
        row.before.as_mut().unwrap().keep_alive = None;
        row.probed(Probed::Answers)
    });
    assert_eq!(verdicts(&by_probe), [Verdict::Contested; 2]);
    let one_unheard =
        [row(1, "s-0", "10.0.0.1").silent().probed(Probed::Answers), row(2, "s-0", "10.0.0.2").heard()];
    assert_eq!(verdicts(&one_unheard), [Verdict::Contested, Verdict::Live]);
}

#[test]
fn g7_a_row_that_came_back_after_our_sign_off_is_contested_until_it_is_heard_of() {
    let mut back = row(1, "s-0", "10.0.0.1").silent().probed(Probed::Silent);
    back.ours = true;
    assert_eq!(verdicts(&[back.clone(), witness()])[0], Verdict::Contested);
    let mut heard = back.heard();
    heard.ours = true;
    assert_eq!(verdicts(&[heard, witness()])[0], Verdict::Live);
}

#[test]
fn what_was_not_there_or_not_active_at_the_first_look_is_undecided() {
    let mut appeared = row(1, "s-0", "10.0.0.1").silent().probed(Probed::Silent);
    appeared.before = None;
    let mut activated = row(1, "s-0", "10.0.0.1").silent().probed(Probed::Silent);
    activated.before.as_mut().unwrap().state = State::Inactive;
    let mut untimed = row(1, "s-0", "10.0.0.1").silent().probed(Probed::Silent);
    untimed.before.as_mut().unwrap().keep_alive = None;
    let mut timeless = row(1, "s-0", "10.0.0.1").silent().probed(Probed::Silent);
    timeless.now.keep_alive = None;
    for new in [appeared, activated, untimed, timeless] {
        assert_eq!(verdicts(&[new.clone(), witness()])[0], Verdict::Undecided, "{new:?}");
    }
}

#[test]
fn an_inactive_row_is_right_unless_its_scheduler_lives() {
    let judged = |row: Seen, others: &[Seen]| {
        let rows = [&[row], others].concat();
        let judgement = judge(&rows, &GIVEN)[0];
        (judgement.verdict, judgement.wrongly_inactive())
    };
    let gone = row(1, "s-0", "10.0.0.1").silent().inactive();
    assert_eq!(judged(gone.clone(), &[witness()]), (Verdict::Dead, false));
    assert_eq!(judged(gone.heard(), &[witness()]), (Verdict::Live, true));
    // Without times an answer tells, if no active row has the address.
    let answers = row(1, "s-0", "10.0.0.1").inactive().probed(Probed::Answers);
    assert_eq!(judged(answers.clone(), &[]), (Verdict::Live, true));
    let reused = row(2, "t-0", "10.0.0.1").probed(Probed::Answers);
    assert_eq!(judged(answers, &[reused]), (Verdict::Dead, false));
    // Signed off between the looks, its last message a moment before.
    let mut ended = row(1, "s-0", "10.0.0.1").heard();
    ended.now.state = State::Inactive;
    assert_eq!(judged(ended, &[]), (Verdict::Dead, false));
}

#[test]
fn hostnames_match_as_the_database_matches_them() {
    let rows = [row(1, "S-0", "10.0.0.1").silent(), row(2, "s-0", "10.0.0.2").heard()];
    for (names, verdict) in [
        (Names::IgnoreCase, Verdict::Replaced),
        (Names::Exact, Verdict::Undecided),
        (Names::Unknown, Verdict::Undecided),
    ] {
        assert_eq!(judge(&rows, &Circumstances { names, ..GIVEN })[0].verdict, verdict, "{names:?}");
    }
}

/// The module's words once more, for one row at a time, without any index.
fn reference(rows: &[Seen], at: usize, given: &Circumstances) -> (Verdict, bool, bool) {
    let r = &rows[at];
    let is_active = |x: &Seen| x.now.state == State::Active;
    let has_moved = |x: &Seen| {
        x.before.is_some_and(|b| {
            let times = b.keep_alive.zip(x.now.keep_alive);
            b.port != x.now.port || times.is_some_and(|(b, n)| n.moved_since(b))
        })
    };
    // Comparable: there at both looks, not newly active, its time shown at both or at neither.
    let rewritten = |x: &Seen| {
        let times = x.before.and_then(|b| b.updated).zip(x.now.updated);
        is_active(x) && times.is_some_and(|(b, n)| n.moved_since(b))
    };
    let comparable = |x: &Seen| {
        x.before.is_some_and(|b| {
            !(b.state == State::Inactive && is_active(x))
                && b.keep_alive.is_some() == x.now.keep_alive.is_some()
                && !rewritten(x)
        })
    };
    let heard_in = |cluster: u64| rows.iter().any(|y| y.now.cluster_id == cluster && has_moved(y));
    let timed = |x: &Seen| x.now.keep_alive.is_some();
    let is_silent = |x: &Seen| {
        let far_enough = given.apart >= 3 * x.now.interval();
        !has_moved(x) && comparable(x) && timed(x) && heard_in(x.now.cluster_id) && far_enough
    };
    let others = |x: usize| (0..rows.len()).filter(move |y| *y != x);
    let has_address = |x: &Seen| x.now.ip.is_some() && x.now.port != 0;
    let one_address = |x: usize, y: usize| {
        let (x, y) = (&rows[x].now, &rows[y].now);
        has_address(&rows[at]) && (x.cluster_id, x.ip, x.port) == (y.cluster_id, y.ip, y.port)
    };
    let one_name = |x: usize, y: usize| {
        let (x, y) = (&rows[x].now, &rows[y].now);
        x.cluster_id == y.cluster_id
            && if given.names == Names::IgnoreCase {
                x.hostname.to_ascii_lowercase() == y.hostname.to_ascii_lowercase()
            } else {
                x.hostname == y.hostname
            }
    };
    let answers_alone = |x: usize| {
        rows[x].probe == Probed::Answers
            && !others(x).any(|y| {
                let (a, b) = (&rows[x].now, &rows[y].now);
                has_address(&rows[x])
                    && (a.cluster_id, a.ip, a.port) == (b.cluster_id, b.ip, b.port)
                    && is_active(&rows[y])
            })
    };
    let has_pod = |x: usize| matches!(rows[x].pod, Says::Lives | Says::Starts);
    let lives = |x: usize| {
        let shows = answers_alone(x) || (is_active(&rows[x]) && rows[x].pod == Says::Lives);
        has_moved(&rows[x]) || (!is_silent(&rows[x]) && shows)
    };
    let alive = lives(at);
    if !is_active(r) {
        let before = r.before.is_some_and(|b| b.state == State::Inactive);
        let new = !has_moved(r) && !comparable(r);
        let wrongly = before && alive && !new;
        return (if wrongly { Verdict::Live } else { Verdict::Dead }, alive, wrongly);
    }
    let namesake =
        others(at).filter(|y| one_name(at, *y) && is_active(&rows[*y]) && lives(*y)).max_by_key(|y| {
            (rows[*y].now.created.map_or(i64::MAX, |made| made.moment().unwrap()), rows[*y].now.id)
        });
    let succeeded = namesake.is_some_and(|y| r.now.times().precede(rows[y].now.times()) != Some(false));
    let namesake = namesake.is_some();
    let neighbour = others(at).any(|y| one_address(at, y) && is_active(&rows[y]) && has_moved(&rows[y]));
    let verdict = if has_moved(r) {
        if namesake { Verdict::Contested } else { Verdict::Live }
    } else if r.ours {
        Verdict::Contested
    } else if !comparable(r) {
        Verdict::Undecided
    } else if answers_alone(at) || has_pod(at) {
        match (namesake, is_silent(r)) {
            (true, _) => Verdict::Contested,
            (false, true) => Verdict::Undecided,
            (false, false) => Verdict::Live,
        }
    } else {
        let kinds = usize::from(is_silent(r))
            + usize::from(r.probe == Probed::Silent)
            + usize::from(succeeded)
            + usize::from(neighbour)
            + usize::from(match r.pod {
                Says::Went => true,
                Says::Gone => timed(r) || succeeded || neighbour,
                _ => false,
            });
        let perhaps_it_answers = r.probe == Probed::Answers && !neighbour;
        let its_time_will_tell = timed(r) && !is_silent(r);
        let dead = kinds >= 2 && !perhaps_it_answers && !its_time_will_tell;
        match (dead, succeeded || neighbour) {
            (false, _) => Verdict::Undecided,
            (true, _) if is_silent(r) && r.now.times().were_written_apart(r.now.interval()) => {
                Verdict::Contested
            }
            (true, true) => Verdict::Replaced,
            (true, false) => Verdict::Dead,
        }
    };
    (verdict, alive, false)
}

fn any_time() -> impl Strategy<Value = Option<Stamp>> {
    prop_oneof![Just(None), Just(Some(Stamp::of(T0))), Just(Some(Stamp::of(T0))), Just(Some(Stamp::of(T1)))]
}

/// When a row may have been made or written: also long after its last keep-alive.
fn any_write() -> impl Strategy<Value = Option<Stamp>> {
    prop_oneof![4 => any_time(), 1 => Just(Some(Stamp::of("2026-11-23 21:54:37.735")))]
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![3 => Just(State::Active), 1 => Just(State::Inactive)]
}

prop_compose! {
    fn any_row()(
        cluster_id in 1u64..3,
        hostname in prop_oneof![Just("a"), Just("A"), Just("b")],
        ip in prop_oneof![Just(None), Just(Some("10.0.0.1")), Just(Some("10.0.0.2")), Just(Some("fd00::1"))],
        port in prop_oneof![8 => Just(8002u16), 1 => Just(8003), 1 => Just(0)],
        (state, keep_alive) in (any_state(), any_time()),
        interval_ms in prop_oneof![Just(None), Just(NonZeroU32::new(4000)), Just(NonZeroU32::new(60_000))],
        before in proptest::option::weighted(0.9, (any_time(), any_state(), prop_oneof![9 => Just(None), 1 => Just(Some(8003u16))], any_write())),
        (updated, created) in (any_write(), any_write()),
        probe in prop_oneof![
            Just(Probed::NotMade), Just(Probed::Answers), Just(Probed::Silent), Just(Probed::Silent), Just(Probed::Unclear),
            Just(Probed::Foreign), Just(Probed::Proxy)
        ],
        ours in proptest::bool::weighted(0.1),
        pod in prop_oneof![
            4 => Just(Says::NotOurs), 1 => Just(Says::Lives), 1 => Just(Says::Starts), 1 => Just(Says::Unclear), 2 => Just(Says::Gone), 2 => Just(Says::Went)
        ],
    ) -> Seen {
        let now = Sighting {
            id: 0, cluster_id, hostname: hostname.into(), ip: ip.map(|ip| ip.parse().unwrap()), port, state, keep_alive,
            created, updated, interval_ms,
        };
        let before =
            before.map(|(keep_alive, state, other, updated)| Before { keep_alive, updated, state, port: other.unwrap_or(port) });
        Seen { now, before, probe, ours, pod }
    }
}

/// A table in which each row has an id.
pub(in crate::repair) fn any_table() -> impl Strategy<Value = (Vec<Seen>, Circumstances)> {
    let rows = proptest::collection::vec(any_row(), 0..9).prop_map(|mut rows| {
        (1..).zip(&mut rows).for_each(|(id, row)| row.now.id = id);
        rows
    });
    let names = prop_oneof![Just(Names::IgnoreCase), Just(Names::Exact), Just(Names::Unknown)];
    let apart = prop_oneof![Just(1u64), Just(15), Just(180)].prop_map(Duration::from_secs);
    let given = (names, apart, any::<bool>());
    (rows, given.prop_map(|(names, apart, masked)| Circumstances { names, apart, masked }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_judge_judges_as_its_words_say((rows, given) in any_table()) {
        let judged = judge(&rows, &given);
        prop_assert_eq!(judged.len(), rows.len());
        for (at, judgement) in judged.iter().enumerate() {
            let said = (judgement.verdict, judgement.alive, judgement.wrongly_inactive());
            prop_assert_eq!(said, reference(&rows, at, &given), "row {}: {:?}", rows[at].now.id, judgement);
            prop_assert!(!judgement.reason.words(&rows[at], &given).is_empty());
        }
    }

    #[test]
    fn nobody_is_dead_on_one_kind_of_evidence_or_against_an_answer_of_its_own((rows, given) in any_table()) {
        for (at, judgement) in judge(&rows, &given).iter().enumerate() {
            let row = &rows[at];
            if row.now.state == State::Inactive || !matches!(judgement.verdict, Verdict::Dead | Verdict::Replaced) {
                continue;
            }
            let Reason::Evidence { silent, probe, namesake, succeeded, neighbour, .. } = judgement.reason else {
                panic!("{judgement:?}")
            };
            prop_assert!(namesake.is_some() || !succeeded);
            let kinds = [silent, probe == Probed::Silent, succeeded, neighbour.is_some(), row.pod.is_gone()];
            prop_assert!(!row.pod.lives(), "{:?}", judgement);
            prop_assert!(kinds.into_iter().filter(|kind| *kind).count() >= 2, "{:?}", judgement);
            prop_assert!(probe != Probed::Answers || neighbour.is_some(), "{:?}", judgement);
            prop_assert!(!judgement.alive && !row.ours);
            prop_assert_eq!(succeeded || neighbour.is_some(), judgement.verdict == Verdict::Replaced);
        }
    }

    #[test]
    fn the_order_of_the_rows_decides_nothing((rows, given) in any_table(), seed in any::<u64>()) {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|at| (*at as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
        let shuffled: Vec<Seen> = order.iter().map(|at| rows[*at].clone()).collect();
        let (one, other) = (judge(&rows, &given), judge(&shuffled, &given));
        for (to, from) in order.iter().enumerate() {
            prop_assert_eq!(one[*from].verdict, other[to].verdict);
        }
    }
}

#[test]
fn a_row_with_its_judgement_stays_small_for_a_table_may_have_100_000() {
    let bytes = size_of::<Seen>() + size_of::<Judgement>() + size_of::<(u64, Before)>();
    assert!(
        bytes <= 184,
        "{bytes} = {} + {} + {}",
        size_of::<Seen>(),
        size_of::<Judgement>(),
        size_of::<(u64, Before)>()
    );
}
