//! Looks over REST, which shows times: at each second given, what the manager lists and what is found at the other's address.

use super::*;
use crate::{
    agent::{
        look::Look,
        succession::{
            core::{Decision, SECOND_LOOK, Succession},
            standing::Mode,
        },
    },
    key::SchedulerKey,
    manager::{Freshness, Listed, State},
};

const INTERVAL: Duration = Duration::from_secs(5);
/// When our own row was made, by the table's clock, and began to be looked for, by ours.
const MADE: u64 = 1000;

fn key(ip: &str) -> SchedulerKey {
    SchedulerKey::new(1.try_into().unwrap(), "sched-0".parse().unwrap(), ip.parse().unwrap())
}

fn at(seconds: f32) -> Moment {
    Moment(Duration::from_secs_f32(seconds))
}

fn shown(seconds: u64) -> Option<String> {
    Some(jiff::Timestamp::from_second(1_795_000_000 + i64::try_from(seconds).unwrap()).unwrap().to_string())
}

/// A row that was made, last written, and last heard of at these seconds of the table's clock.
fn row(id: u64, ip: &str, [made, written, heard]: [u64; 3]) -> Row {
    Row {
        id,
        hostname: "sched-0".to_owned(),
        ip: ip.to_owned(),
        port: 8002,
        state: State::Active,
        cluster_id: 1,
        created_at: shown(made),
        last_keep_alive_at: shown(heard),
        keep_alive_interval: Some(INTERVAL),
        updated_at: shown(written),
    }
}

/// Our own row: it is made at [`MADE`], active an interval later, and heard of each interval after that.
fn own(second: f32) -> Row {
    let whole = second as u64 / 5 * 5;
    let state = if second < 5.0 { State::Inactive } else { State::Active };
    let heard = if whole >= 10 { MADE + whole } else { MADE };
    Row { state, ..row(9, "10.0.0.9", [MADE, MADE + whole, heard]) }
}

/// The other's row, by the second.
type Other = fn(u64) -> Row;

/// A predecessor that was heard of for the last time `10` s before our own row was made.
fn dead(_: u64) -> Row {
    row(1, "10.0.0.1", [1, MADE - 10, MADE - 10])
}

/// A twin: heard of each interval.
fn twin(second: u64) -> Row {
    let heard = MADE + second / 5 * 5 + 2;
    row(1, "10.0.0.1", [1, heard, heard])
}

/// Looks as often as it wants to, for five minutes: the first decision that is more than to watch, and when.
fn decided(other: Other, found: &Look, freshness: fn(f32) -> Freshness) -> Option<(f32, Decision)> {
    let mut core = Succession::new(key("10.0.0.9"), INTERVAL, Mode::On).expects_times(true);
    core.serves(true, at(0.0));
    while let Some(now) = core.wake_at().filter(|now| *now < at(300.0)) {
        let second = now.0.as_secs_f32();
        let mut rows = vec![other(second as u64), own(second)];
        let freshness = freshness(second);
        if freshness == Freshness::Within30s {
            rows.retain(|row| row.state == State::Active);
            for row in &mut rows {
                (row.created_at, row.last_keep_alive_at, row.updated_at) = (None, None, None);
            }
        }
        let (suspects, contested) = core.listed((now, now), &Listed { rows, freshness });
        if let Some((_, why)) = contested.into_iter().next() {
            return Some((second, Decision::Contested(why)));
        }
        for suspect in suspects {
            match core.looked(&suspect.key, found, now) {
                Decision::Watch | Decision::Nothing => {}
                decision => return Some((second, decision)),
            }
        }
        core.judged(now);
        assert!(core.wake_at().is_none_or(|next| next > now), "it would look again at once");
    }
    None
}

fn over_rest(_: f32) -> Freshness {
    Freshness::Fresh
}

fn silent() -> Look {
    Look::Silent("refused".to_owned())
}

fn unclear() -> Look {
    Look::Unclear("it hung up".to_owned())
}

#[test]
fn a_dead_predecessor_is_watched_for_an_interval_and_a_bit_and_signed_off_then() {
    let (second, decision) = decided(dead, &silent(), over_rest).unwrap();
    assert_eq!(decision, Decision::SignOff("refused".to_owned()));
    assert!((6.0..7.5).contains(&second), "{second}");
    let (second, decision) =
        decided(dead, &Look::Reused("sched-1 serves there".to_owned()), over_rest).unwrap();
    assert!(matches!(decision, Decision::SignOff(_)), "{second}: {decision:?}");
}

#[test]
fn g7_a_twin_that_the_manager_hears_of_is_contested_whatever_is_found_at_its_address() {
    for found in [silent(), unclear(), Look::Reused("sched-1 serves there".to_owned())] {
        let (second, decision) = decided(twin, &found, over_rest).unwrap();
        assert_eq!(decision, Decision::Contested(Contested::Twin), "{second}");
    }
    // One whose manager's clock is hours behind: its times seem to be older than our own row.
    let behind: Other = |second| {
        let heard = second / 5 * 5 + 2;
        row(1, "10.0.0.1", [1, heard, heard])
    };
    let (_, decision) = decided(behind, &silent(), over_rest).unwrap();
    assert_eq!(decision, Decision::Contested(Contested::Twin));
}

#[test]
fn g7_what_was_heard_of_or_written_after_our_own_row_was_made_is_no_predecessor() {
    // A twin that is cut off since, and one that was signed off once and given back.
    let cut_off: Other = |_| row(1, "10.0.0.1", [1, MADE + 3, MADE + 3]);
    let given_back: Other = |_| row(1, "10.0.0.1", [1, MADE + 3, MADE - 500]);
    for other in [cut_off, given_back] {
        let (_, decision) = decided(other, &silent(), over_rest).unwrap();
        assert_eq!(decision, Decision::Contested(Contested::Beside));
    }
    // A manager before v2.3.1 says when a row was written, too.
    let old: Other = |_| Row { last_keep_alive_at: None, ..row(1, "10.0.0.1", [1, MADE + 3, 0]) };
    let (_, decision) = decided(old, &silent(), over_rest).unwrap();
    assert_eq!(decision, Decision::Contested(Contested::Beside));
}

#[test]
fn g7_where_nothing_can_be_found_out_at_its_address_three_silent_intervals_decide() {
    let (second, decision) = decided(dead, &unclear(), over_rest).unwrap();
    let Decision::SignOff(why) = &decision else { panic!("{second}: {decision:?}") };
    assert!(why.contains("it hung up; but the manager heard nothing of it for 1"), "{why}");
    assert!((15.0..17.0).contains(&second), "{second}");
}

#[test]
fn g7_with_neither_times_nor_a_probe_it_is_reported_and_left() {
    let (second, decision) = decided(dead, &unclear(), |_| Freshness::Within30s).unwrap();
    assert_eq!(decision, Decision::Wait("it hung up".to_owned()));
    // REST is configured, and was waited for.
    assert!(second >= 120.0, "{second}");
    let no_times: Other = |_| Row { last_keep_alive_at: None, ..row(1, "10.0.0.1", [1, MADE - 10, 0]) };
    let (second, decision) = decided(no_times, &unclear(), over_rest).unwrap();
    assert_eq!(decision, Decision::Wait("it hung up".to_owned()));
    assert!(second < 10.0, "{second}");
}

#[test]
fn without_times_a_silent_one_is_signed_off_and_rest_is_waited_for_where_it_is_configured() {
    let no_times: Other = |_| Row { last_keep_alive_at: None, ..row(1, "10.0.0.1", [1, MADE - 10, 0]) };
    let (second, decision) = decided(no_times, &silent(), over_rest).unwrap();
    assert!(matches!(decision, Decision::SignOff(_)) && second < 6.0, "{second}: {decision:?}");
    let (second, decision) = decided(dead, &silent(), |_| Freshness::Within30s).unwrap();
    assert!(matches!(decision, Decision::SignOff(_)), "{decision:?}");
    assert!((120.0..160.0).contains(&second), "{second}");
    // It comes back meanwhile, and shows who lives.
    let away: fn(f32) -> Freshness =
        |second| if second < 30.0 { Freshness::Within30s } else { Freshness::Fresh };
    let (_, decision) = decided(twin, &silent(), away).unwrap();
    assert!(matches!(decision, Decision::Contested(Contested::Twin | Contested::Beside)), "{decision:?}");
}

#[test]
fn g7_times_that_were_shown_and_are_not_any_more_are_waited_for() {
    let away: fn(f32) -> Freshness =
        |second| if second < 4.0 { Freshness::Fresh } else { Freshness::Within30s };
    assert_eq!(decided(dead, &silent(), away), None);
}

#[test]
fn a_manager_that_stands_still_proves_no_silence() {
    let mut core = Succession::new(key("10.0.0.9"), INTERVAL, Mode::On);
    core.serves(true, at(0.0));
    for second in [0.0, 10.0, 20.0, 60.0] {
        // A replica that lags: our own row is active in it, and nothing moves.
        let rows = vec![dead(0), own(6.0)];
        let (suspects, _) =
            core.listed((at(second), at(second)), &Listed { rows, freshness: Freshness::Fresh });
        assert_eq!(core.looked(&suspects[0].key, &silent(), at(second)), Decision::Watch);
        core.judged(at(second));
    }
}

#[test]
fn after_an_early_look_the_second_one_comes_all_the_same() {
    let mut core = Succession::new(key("10.0.0.9"), INTERVAL, Mode::On);
    core.serves(true, at(0.0));
    let mut looks = Vec::new();
    while let Some(now) = core.wake_at().filter(|now| *now < at(300.0)) {
        let second = now.0.as_secs_f32();
        looks.push(second);
        let rows = vec![dead(0), own(second)];
        let (suspects, _) = core.listed((now, now), &Listed { rows, freshness: Freshness::Fresh });
        for suspect in suspects {
            core.looked(&suspect.key, &silent(), now);
        }
        core.judged(now);
    }
    let first = looks.iter().find(|second| **second >= 5.0).unwrap();
    assert!(looks.contains(&(first + SECOND_LOOK.as_secs_f32())), "{looks:?}");
}
