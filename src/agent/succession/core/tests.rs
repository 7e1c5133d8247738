use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NAME: &str = "sched-0.sched";
const INTERVAL: Duration = Duration::from_secs(5);

fn key(ip: &str) -> SchedulerKey {
    SchedulerKey::new(1.try_into().unwrap(), NAME.parse().unwrap(), ip.parse().unwrap())
}

fn row(id: u64, ip: &str) -> Row {
    Row {
        id,
        hostname: NAME.to_owned(),
        ip: ip.to_owned(),
        port: 8002,
        state: State::Active,
        cluster_id: 1,
        created_at: None,
        last_keep_alive_at: None,
        keep_alive_interval: None,
        updated_at: None,
    }
}

fn fresh(rows: Vec<Row>) -> Listed {
    Listed { rows, freshness: Freshness::Fresh }
}

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn silent() -> Look {
    Look::Silent("refused".to_owned())
}

/// An agent of `10.0.0.9` (row 9), whose scheduler serves since the beginning.
fn serving(mode: Mode) -> Succession {
    let mut core = Succession::new(key("10.0.0.9"), INTERVAL, mode);
    core.serves(true, at(0));
    core
}

/// One whole look at `seconds`: the decision on each row but the own one, which is listed as row 9.
fn look(
    core: &mut Succession,
    seconds: u64,
    freshness: Freshness,
    others: &[Row],
    found: &Look,
) -> Vec<(String, Decision)> {
    let rows: Vec<Row> = others.iter().cloned().chain([row(9, "10.0.0.9")]).collect();
    let (suspects, contested) = core.listed((at(seconds), at(seconds)), &Listed { rows, freshness });
    let mut all: Vec<_> =
        contested.into_iter().map(|(key, why)| (key.ip.to_string(), Decision::Contested(why))).collect();
    for suspect in suspects {
        let decision = core.looked(&suspect.key, found, at(seconds));
        all.push((suspect.key.ip.to_string(), decision));
    }
    core.judged(at(seconds));
    all
}

fn signs_off(ip: &str) -> Vec<(String, Decision)> {
    vec![(ip.to_owned(), Decision::SignOff("refused".to_owned()))]
}

#[test]
fn a_silent_row_of_the_same_name_is_signed_off_once_the_own_row_is_active() {
    let mut core = serving(Mode::On);
    assert_eq!(core.wake_at(), Some(at(0)));
    let (suspects, _) = core.listed((at(0), at(0)), &fresh(vec![row(1, "10.0.0.1")]));
    assert!(suspects.is_empty(), "the own row is not active");
    core.judged(at(0));
    assert_eq!(core.wake_at(), Some(at(2)), "its first keep-alive comes one interval after its start");
    assert_eq!(look(&mut core, 5, Freshness::Fresh, &[row(1, "10.0.0.1")], &silent()), signs_off("10.0.0.1"));
    assert_eq!(core.wake_at(), Some(at(40)));
    assert_eq!(look(&mut core, 40, Freshness::Fresh, &[row(1, "10.0.0.1")], &silent()), [], "at most once");
}

#[test]
fn the_own_row_is_looked_for_soon_and_then_ever_less_often() {
    for (freshness, slow) in [(Freshness::Fresh, 60), (Freshness::Within30s, 300)] {
        let mut core = serving(Mode::On);
        let mut looks = Vec::new();
        while let Some(now) = core.wake_at().filter(|now| *now < at(1000)) {
            looks.push(now.0.as_secs_f32());
            core.listed((now, now), &Listed { rows: vec![row(1, "10.0.0.1")], freshness });
            core.judged(now);
        }
        assert_eq!(looks[..10], [0.0, 2.0, 3.5, 5.0, 5.5, 6.0, 7.0, 9.0, 14.0, 19.0]);
        let last = looks.last().unwrap() - looks[looks.len() - 2];
        assert!((last - slow as f32).abs() < 0.1, "{looks:?}");
    }
}

#[test]
fn g7_a_row_that_was_there_beside_another_of_its_name_is_no_predecessors() {
    let of = |id: u64, ip: &str, made: &str, heard: &str| Row {
        created_at: Some(made.to_owned()),
        last_keep_alive_at: Some(heard.to_owned()),
        ..row(id, ip)
    };
    let [one, two, three, four] =
        ["2026-11-20T00:00:00Z", "2026-11-20T01:00:00Z", "2026-11-20T02:00:00Z", "2026-11-20T03:00:00Z"];
    // The other fleet's, which is cut off; beside it the own one's before the last roll, signed off.
    let before = Row { state: State::Inactive, ..of(2, "10.0.0.2", two, three) };
    let looked = |cut_off: Row| {
        let mut core = serving(Mode::On);
        look(&mut core, 5, Freshness::Fresh, &[cut_off, before.clone()], &silent())
    };
    let fleets = vec![("10.0.0.1".to_owned(), Decision::Contested(Contested::Fleets))];
    assert_eq!(looked(of(1, "10.0.0.1", one, three)), fleets);
    assert_eq!(looked(of(1, "10.0.0.1", three, four)), fleets, "at one moment is at one time");
    for a_predecessors in [of(1, "10.0.0.1", one, "2026-11-20T00:59:59Z"), row(1, "10.0.0.1")] {
        assert!(!looked(a_predecessors.clone()).contains(&fleets[0]), "{a_predecessors:?}");
    }
}

#[test]
fn g7_what_is_no_predecessor_is_never_looked_at() {
    let mut core = serving(Mode::On);
    let others = [
        Row { state: State::Inactive, ..row(1, "10.0.0.1") },
        Row { cluster_id: 2, ..row(2, "10.0.0.2") },
        Row { hostname: "Sched-0.sched".to_owned(), ..row(3, "10.0.0.3") },
        Row { hostname: "sched-00.sched".to_owned(), ..row(4, "10.0.0.4") },
        Row { port: 0, ..row(5, "10.0.0.5") },
        Row { port: 70_000, ..row(6, "10.0.0.6") },
        row(7, "::ffff:10.0.0.7"),
        row(8, "fd00:0:0:0:0:0:0:1"),
        row(10, ""),
        row(11, "0.0.0.0"),
        row(12, "::ffff:10.0.0.9"),
    ];
    assert_eq!(look(&mut core, 5, Freshness::Fresh, &others, &silent()), []);
}

#[test]
fn no_look_while_it_does_not_serve_and_what_was_begun_goes_on_when_it_does_again() {
    let mut core = serving(Mode::On);
    core.serves(false, at(1));
    assert_eq!(core.wake_at(), None);
    core.serves(true, at(100));
    assert_eq!(core.wake_at(), Some(at(100)));
    assert_eq!(look(&mut core, 105, Freshness::Fresh, &[row(1, "10.0.0.1")], &silent()).len(), 1);
    core.serves(false, at(110));
    assert_eq!(core.wake_at(), None);
    core.serves(true, at(200));
    assert_eq!(core.wake_at(), Some(at(200)), "the second look is overdue");
}

#[test]
fn g7_what_answers_is_contested_only_if_it_still_does_half_a_minute_later() {
    let other = [row(1, "10.0.0.1")];
    let contested = |why| vec![("10.0.0.1".to_owned(), Decision::Contested(why))];
    let mut core = serving(Mode::On);
    let first = look(&mut core, 5, Freshness::Fresh, &other, &Look::Lives);
    assert_eq!(first, [("10.0.0.1".to_owned(), Decision::Answers)]);
    assert_eq!(core.wake_at(), Some(at(40)));
    // A scheduler that took the address over is active by now.
    let mut reused = core.clone();
    let by = Look::Reused("sched-1 serves there".to_owned());
    let second = look(&mut reused, 40, Freshness::Fresh, &other, &by);
    assert_eq!(second, [("10.0.0.1".to_owned(), Decision::SignOff("sched-1 serves there".to_owned()))]);
    // It lived a moment ago: silence may be a fault of the network.
    let mut gone = core.clone();
    assert_eq!(look(&mut gone, 40, Freshness::Fresh, &other, &silent()), contested(Contested::Answered));
    assert_eq!(look(&mut core, 40, Freshness::Fresh, &other, &Look::Lives), contested(Contested::Answers));
    assert_eq!(core.wake_at(), None, "and nothing more is looked for");
    assert_eq!(look(&mut core, 80, Freshness::Fresh, &other, &silent()), [], "once");
}

#[test]
fn what_cannot_be_looked_at_is_tried_for_a_quarter_of_an_hour_and_then_left() {
    let mut core = serving(Mode::On);
    let unclear = Look::Unclear("no route".to_owned());
    look(&mut core, 5, Freshness::Fresh, &[row(1, "10.0.0.1")], &unclear);
    let mut late = core.clone();
    assert_eq!(look(&mut late, 40, Freshness::Fresh, &[row(1, "10.0.0.1")], &silent()).len(), 1);
    let mut looks = 0;
    while let Some(now) = core.wake_at() {
        let seconds = now.0.as_secs();
        assert!(seconds <= 5 + 15 * 60 + 35, "{seconds}");
        let said = look(&mut core, seconds, Freshness::Fresh, &[row(1, "10.0.0.1")], &unclear);
        assert!(matches!(said[..], [(_, Decision::Wait(_))]), "{said:?}");
        looks += 1;
    }
    assert!((25..=27).contains(&looks), "{looks}");
}

#[test]
fn g7_a_row_that_a_cache_hid_is_signed_off_at_the_second_look_and_a_younger_one_is_contested() {
    for (freshness, id, signed_off) in [
        (Freshness::Within30s, 1, true),
        (Freshness::Within30s, 10, false),
        // Nothing was hidden from a fresh first look.
        (Freshness::Fresh, 1, false),
    ] {
        let mut core = serving(Mode::On);
        assert_eq!(look(&mut core, 5, freshness, &[], &silent()), []);
        let said = look(&mut core, 40, freshness, &[row(id, "10.0.0.1")], &silent());
        if signed_off {
            assert_eq!(said, signs_off("10.0.0.1"));
        } else {
            assert_eq!(said, [("10.0.0.1".to_owned(), Decision::Contested(Contested::Younger))]);
        }
    }
}

#[test]
fn g7_one_that_comes_back_is_contested_once_and_nothing_is_written_any_more() {
    for (freshness, early, late) in [(Freshness::Fresh, 6, 7), (Freshness::Within30s, 36, 37)] {
        let mut core = serving(Mode::On);
        let others = [row(1, "10.0.0.1")];
        assert_eq!(look(&mut core, 5, freshness, &others, &silent()).len(), 1);
        assert_eq!(core.settled(&key("10.0.0.1"), Verdict::Confirmed, true, at(6)), None);
        assert_eq!(core.wake_at(), Some(at(40)));
        if freshness == Freshness::Within30s {
            assert_eq!(
                look(&mut core, early, freshness, &others, &silent()),
                [],
                "an old list proves nothing"
            );
        }
        let said = look(&mut core, late, freshness, &[row(1, "10.0.0.1"), row(2, "10.0.0.2")], &silent());
        assert_eq!(said, [("10.0.0.1".to_owned(), Decision::Contested(Contested::CameBack))]);
        assert_eq!(core.wake_at(), None);
        assert_eq!(look(&mut core, 90, freshness, &[row(2, "10.0.0.2")], &silent()), []);
    }
}

#[test]
fn g7_one_that_was_tried_without_an_answer_and_is_active_is_contested_and_nothing_is_written_any_more() {
    let mut core = serving(Mode::On);
    let others = [row(1, "10.0.0.1")];
    assert_eq!(look(&mut core, 5, Freshness::Within30s, &others, &silent()).len(), 1);
    let tried = core.settled(&key("10.0.0.1"), Verdict::Contested, true, at(100));
    assert_eq!(tried, Some(Contested::Tried));
    assert_eq!(core.wake_at(), None);
    assert_eq!(look(&mut core, 200, Freshness::Within30s, &[row(2, "10.0.0.2")], &silent()), []);
}

#[test]
fn it_is_watched_for_a_quarter_of_an_hour_whether_one_comes_back() {
    for (freshness, looks) in [(Freshness::Fresh, 15), (Freshness::Within30s, 3)] {
        let mut core = serving(Mode::On);
        look(&mut core, 5, freshness, &[row(1, "10.0.0.1")], &silent());
        assert_eq!(core.settled(&key("10.0.0.1"), Verdict::Confirmed, true, at(6)), None);
        look(&mut core, 40, freshness, &[], &silent());
        let mut watched = Vec::new();
        while let Some(now) = core.wake_at() {
            watched.push(now);
            // A row that is new now may be anybody's.
            assert_eq!(look(&mut core, now.0.as_secs(), freshness, &[row(3, "10.0.0.3")], &silent()), []);
        }
        assert_eq!(watched.len(), looks, "{watched:?}");
        // One that is settled only now is watched too.
        let mut late = serving(Mode::On);
        look(&mut late, 5, freshness, &[row(1, "10.0.0.1")], &silent());
        look(&mut late, 40, freshness, &[row(1, "10.0.0.1")], &silent());
        while let Some(now) = late.wake_at() {
            look(&mut late, now.0.as_secs(), freshness, &[row(1, "10.0.0.1")], &silent());
        }
        assert_eq!(late.settled(&key("10.0.0.1"), Verdict::Confirmed, true, at(5000)), None);
        assert!(late.wake_at().is_some_and(|now| now > at(5000)));
    }
}

#[test]
fn where_nothing_was_signed_off_two_looks_are_all() {
    let mut core = serving(Mode::On);
    assert_eq!(look(&mut core, 5, Freshness::Within30s, &[], &silent()), []);
    assert_eq!(look(&mut core, 40, Freshness::Within30s, &[], &silent()), []);
    assert_eq!(core.wake_at(), None);
}

#[test]
fn g7_report_says_it_once_and_off_never_looks() {
    let mut core = serving(Mode::Report);
    let said = look(&mut core, 5, Freshness::Fresh, &[row(1, "10.0.0.1")], &silent());
    assert_eq!(said, [("10.0.0.1".to_owned(), Decision::Report("refused".to_owned()))]);
    assert_eq!(look(&mut core, 40, Freshness::Fresh, &[row(1, "10.0.0.1")], &silent()), []);
    assert_eq!(core.wake_at(), None);
    assert_eq!(serving(Mode::Off).wake_at(), None);
}

#[test]
fn g7_a_sign_off_that_was_found_in_the_spool_is_not_asked_for_again() {
    let mut core = serving(Mode::On);
    core.inherited(&key("10.0.0.1"));
    core.inherited(&key("10.0.0.9"));
    assert_eq!(look(&mut core, 5, Freshness::Fresh, &[row(1, "10.0.0.1")], &silent()), []);
    assert_eq!(core.settled(&key("10.0.0.1"), Verdict::Confirmed, false, at(66)), None);
    let said = look(&mut core, 67, Freshness::Fresh, &[row(1, "10.0.0.1")], &silent());
    assert_eq!(said, [("10.0.0.1".to_owned(), Decision::Contested(Contested::CameBack))]);
    // One that was found to live is left alone, and stops nothing else.
    let mut core = serving(Mode::On);
    core.inherited(&key("10.0.0.1"));
    assert_eq!(core.settled(&key("10.0.0.1"), Verdict::Superseded, false, at(3)), Some(Contested::Lives));
    let others = [row(1, "10.0.0.1"), row(2, "10.0.0.2")];
    assert_eq!(look(&mut core, 5, Freshness::Fresh, &others, &silent()), signs_off("10.0.0.2"));
}

/// What may happen next.
#[derive(Debug, Clone)]
enum Act {
    Wait(u8),
    Serves(bool),
    /// A look: whether the own row is active, which others are, what is found there, how fresh the list is, whether it is
    /// brought to its end.
    Look {
        own: bool,
        others: Vec<(u8, bool, u8)>,
        fresh: bool,
        ends: bool,
    },
    Settled {
        ip: u8,
        verdict: u8,
        own: bool,
    },
    Inherited(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let others = prop::collection::vec((1..12u8, any::<bool>(), 0..5u8), 0..6);
    prop_oneof![
        2 => (0..120u8).prop_map(Act::Wait),
        1 => any::<bool>().prop_map(Act::Serves),
        6 => (prop::bool::weighted(0.8), others, any::<bool>(), prop::bool::weighted(0.9))
            .prop_map(|(own, others, fresh, ends)| Act::Look { own, others, fresh, ends }),
        3 => (1..12u8, 0..6u8, any::<bool>())
            .prop_map(|(ip, verdict, own)| Act::Settled { ip, verdict, own }),
        1 => (1..12u8).prop_map(Act::Inherited),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn g7_whatever_happens_no_row_is_signed_off_twice_or_without_evidence(
        mode in prop_oneof![3 => Just(Mode::On), 1 => Just(Mode::Report)],
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut core = serving(mode);
        let mut now = at(0);
        let (mut signed_off, mut contested, mut said) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (mut inherited, mut stopped, mut serves) = (BTreeSet::new(), false, true);
        for act in acts {
            match act {
                Act::Wait(seconds) => now = now + Duration::from_secs(seconds.into()),
                Act::Serves(is) => {
                    serves = is;
                    core.serves(is, now);
                }
                Act::Inherited(n) => {
                    core.inherited(&key(&format!("10.0.0.{n}")));
                    inherited.insert(format!("10.0.0.{n}"));
                }
                Act::Settled { ip, verdict, own } => {
                    let verdict = [
                        Verdict::Confirmed, Verdict::Absent, Verdict::Superseded, Verdict::Dropped, Verdict::Queued,
                        Verdict::Contested,
                    ][usize::from(verdict)];
                    let ip = format!("10.0.0.{ip}");
                    let why = core.settled(&key(&ip), verdict, own, now);
                    if why.is_some() {
                        prop_assert!(contested.insert(ip.clone()), "{ip} is contested twice");
                        stopped |= own;
                    }
                }
                Act::Look { own, others, fresh, ends } => {
                    let freshness = if fresh { Freshness::Fresh } else { Freshness::Within30s };
                    let mut rows: Vec<Row> = others
                        .iter()
                        .filter(|(n, ..)| *n != 9)
                        .map(|(n, active, _)| {
                            let state = if *active { State::Active } else { State::Inactive };
                            Row { state, ..row(u64::from(*n), &format!("10.0.0.{n}")) }
                        })
                        .collect();
                    rows.sort_by_key(|row| row.id);
                    rows.dedup_by_key(|row| row.id);
                    if own {
                        rows.push(row(9, "10.0.0.9"));
                    }
                    let listed = Listed { rows, freshness };
                    let (suspects, news) = core.listed((now, now), &listed);
                    let rows = listed.rows;
                    for (key, why) in news {
                        prop_assert!(contested.insert(key.ip.to_string()), "{key} is contested twice");
                        stopped |= why == Contested::CameBack;
                        prop_assert!(why != Contested::CameBack || signed_off.contains(&key.ip.to_string())
                            || inherited.contains(&key.ip.to_string()));
                    }
                    for suspect in suspects {
                        let ip = suspect.key.ip.to_string();
                        prop_assert!(own, "without the own row nothing is looked at");
                        prop_assert!(rows.iter().any(|row| row.ip == ip && row.state == State::Active));
                        prop_assert!(ip != "10.0.0.9" && !signed_off.contains(&ip) && !contested.contains(&ip));
                        if !ends {
                            continue;
                        }
                        let found = others.iter().find(|(n, ..)| format!("10.0.0.{n}") == ip).unwrap().2;
                        let found = match found {
                            0 | 1 => silent(),
                            2 => Look::Lives,
                            3 => Look::Reused("x".to_owned()),
                            _ => Look::Unclear("x".to_owned()),
                        };
                        match core.looked(&suspect.key, &found, now) {
                            Decision::SignOff(_) => {
                                prop_assert_eq!(mode, Mode::On);
                                prop_assert!(!stopped, "one came back");
                                prop_assert!(!inherited.contains(&ip), "{} is signed off from the spool", ip);
                                prop_assert!(matches!(found, Look::Silent(_) | Look::Reused(_)));
                                prop_assert!(signed_off.insert(ip));
                            }
                            Decision::Report(_) => {
                                prop_assert_eq!(mode, Mode::Report);
                                prop_assert!(said.insert(ip), "said twice");
                            }
                            Decision::Contested(_) => prop_assert!(contested.insert(ip), "contested twice"),
                            Decision::Answers | Decision::Wait(_) | Decision::Watch | Decision::Nothing => {}
                        }
                    }
                    if ends { drop(core.judged(now)) } else { core.put_off(now) }
                    prop_assert!(core.wake_at().is_none_or(|at| at > now), "it would look again at once");
                }
            }
            prop_assert!(serves || core.wake_at().is_none());
            prop_assert!(!stopped || core.wake_at().is_none());
        }
    }
}
