//! When the next attempt may begin, whatever the far end says and wishes.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn now(at: Duration) -> Now {
    Now { at: Moment(at), came: Moment(at), wall: 0, roll: u32::MAX }
}

/// An attempt that was answered so.
fn failed(attempts: &mut Attempts, wish: Option<Duration>, urgency: Urgency, at: Duration) {
    let id = attempts.begin(Vec::new(), Moment(at));
    let failure = Failure { floor: wish, ..Failure::new("503") };
    assert_eq!(attempts.ended(id, &Outcome::Unknown(failure), urgency, now(at)), Ended::Again);
}

/// When the next attempt may begin.
fn next(attempts: &Attempts, at: Duration) -> Duration {
    let at = Moment(at);
    if attempts.may_begin(at) { at.0 } else { attempts.not_before.0 }
}

#[test]
fn g3_a_wish_of_an_hour_puts_off_the_background_by_no_more_than_its_cap() {
    let mut attempts = Attempts::new(Moment::default());
    failed(&mut attempts, Some(HOUR), Urgency::Background, Duration::from_secs(10));
    assert_eq!(next(&attempts, Duration::from_secs(10)), Duration::from_secs(10) + BACKGROUND_CAP);
}

#[test]
fn g3_a_wish_ends_when_the_manager_is_healthy_again() {
    let mut attempts = Attempts::new(Moment::default());
    failed(&mut attempts, Some(HOUR), Urgency::Background, Duration::from_secs(10));
    attempts.manager_is_back(Urgency::Background, now(Duration::from_secs(12)));
    assert!(next(&attempts, Duration::from_secs(12)) <= Duration::from_secs(12) + BACKGROUND_SOON);
    // Nor does the wish bind whoever is told to stop now.
    attempts.urge(Urgency::Urgent(Duration::from_secs(30)), Moment(Duration::from_secs(12)));
    assert_eq!(next(&attempts, Duration::from_secs(12)), Duration::from_secs(12));
}

#[test]
fn g4_in_every_grace_there_is_an_attempt_before_the_reserve_however_late_one_is_wished_for() {
    for grace in [1, 2, 3, 5, 8, 30, 90].map(Duration::from_secs) {
        let mut attempts = Attempts::new(Moment::default());
        failed(&mut attempts, Some(HOUR), Urgency::Background, Duration::from_secs(100));
        let began = Duration::from_secs(101);
        attempts.urge(Urgency::Urgent(grace), Moment(began));
        let first = next(&attempts, began);
        let left = began + grace - first;
        assert!(left >= LAST_CHANCE.min(grace / 2), "{grace:?}: {left:?} are left at the first attempt");
    }
}

#[test]
fn g4_a_wish_heard_in_a_grace_leaves_time_for_one_more_attempt_and_no_more_than_one() {
    let deadline = Duration::from_secs(30);
    let mut attempts = Attempts::new(Moment::default());
    attempts.urge(Urgency::Urgent(deadline), Moment::default());
    let (mut at, mut made) = (Duration::ZERO, Vec::new());
    while at < deadline {
        made.push(at);
        failed(&mut attempts, Some(HOUR), Urgency::Urgent(deadline - at), at);
        at = next(&attempts, at);
    }
    assert_eq!(made, [Duration::ZERO, deadline - LAST_CHANCE]);
}

#[test]
fn g3_a_manager_that_comes_and_goes_is_not_asked_at_each_coming() {
    let (mut attempts, mut dice) = (Attempts::new(Moment::default()), fastrand::Rng::with_seed(3));
    let (mut at, mut made) = (Duration::ZERO, 0);
    while at < Duration::from_secs(300) {
        let roll = Now { roll: dice.u32(..), ..now(at) };
        attempts.manager_is_back(Urgency::Background, roll);
        if attempts.may_begin(Moment(at)) {
            let id = attempts.begin(Vec::new(), Moment(at));
            let outcome = Outcome::Failed(Failure::new("invalid connection"));
            attempts.ended(id, &outcome, Urgency::Background, roll);
            made += usize::from(at >= Duration::from_secs(60));
        }
        at += Duration::from_millis(100);
    }
    // One wait in the background is some 15 s; cut short once, it is some 2.5 s.
    assert!(made < 160, "{made} attempts in 240 s");
}

#[test]
fn g3_a_row_that_the_manager_does_not_know_is_asked_for_less_and_less_often() {
    let mut attempts = Attempts::new(Moment::default());
    let (mut at, mut made) = (Duration::ZERO, 0);
    while at < Duration::from_secs(300) {
        let id = attempts.begin(Vec::new(), Moment(at));
        let ended = attempts.ended(id, &Outcome::Absent, Urgency::Background, now(at));
        assert!(matches!(ended, Ended::Settled { absent: true, .. }));
        attempts.unknown_key("the manager has no such row", Urgency::Background, now(at));
        made += 1;
        at = next(&attempts, at);
    }
    assert!(made < 20, "{made} attempts in 300 s");
}
