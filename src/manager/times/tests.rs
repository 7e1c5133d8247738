use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

#[test]
fn a_stamp_moves_with_its_time_and_not_with_the_zone_it_is_shown_in() {
    for (before, now, moved) in [
        ("2026-11-23 20:54:32.734", "2026-11-23 20:54:32.734", false),
        ("2026-11-23 20:54:32.734", "2026-11-23 20:54:32.735", true),
        // One manager's zone is Shanghai, the other's UTC: MySQL's digits stay, PostgreSQL's instant does.
        ("2026-11-23T20:54:32.734+08:00", "2026-11-23T20:54:32.734Z", false),
        ("2026-11-23T20:54:32.734+08:00", "2026-11-23T12:54:32.734Z", false),
        ("2026-11-23T20:54:32.734+08:00", "2026-11-23T20:54:37.734+08:00", true),
        // New York sets its clocks back.
        ("2026-11-01T01:59:58-04:00", "2026-11-01T01:00:03-05:00", true),
        ("2026-11-01 01:59:58", "2026-11-01 01:00:03", true),
        ("", "", false),
        ("what", "ever", true),
        ("ünïcödë", "ünïcödé", true),
    ] {
        assert_eq!(Stamp::of(now).moved_since(Stamp::of(before)), moved, "{before} -> {now}");
    }
}

proptest! {
    #[test]
    fn a_stamp_is_as_its_text_says(
        (before, now) in (any_text(), any_text()),
    ) {
        let (digits, moment): (Vec<_>, Vec<_>) = [&before, &now].map(|text| {
            let (date, time) = text.split_at(text.len().min(11));
            let digits = format!("{date}{}", time.split(['Z', '+', '-']).next().unwrap());
            let with_offset = if digits.len() < text.len() { text.clone() } else { format!("{text}Z") };
            (digits, with_offset.parse::<Timestamp>().ok().map(Timestamp::as_millisecond))
        }).into_iter().unzip();
        let (earlier, later) = (Stamp::of(&before), Stamp::of(&now));
        prop_assert_eq!(later.moved_since(earlier), digits[0] != digits[1] && (moment[0] != moment[1] || moment[0].is_none()));
        let age = moment[1].zip(moment[0]).and_then(|(now, before)| u64::try_from(now - before).ok());
        prop_assert_eq!(later.after(earlier).map(|age| age.as_millis()), age.map(u128::from));
    }
}

/// Times of all kinds, and what is none.
fn any_text() -> impl Strategy<Value = String> {
    let date = proptest::sample::select(vec![
        "2026-11-01",
        "0001-01-01",
        "9998-12-31",
        "1969-12-31",
        "2026-13-01",
        "x",
    ]);
    let time = proptest::sample::select(vec!["00:00:00.001", "01:59:58.734", "12:59:59.999", "23:00:00.000"]);
    let offset =
        proptest::sample::select(vec!["", "Z", "+00:00", "+08:00", "-05:00", "+05:45", "-12:00", "+14:00"]);
    (date, time, offset).prop_map(|(date, time, offset)| format!("{date}T{time}{offset}"))
}

#[test]
fn an_age_is_the_distance_of_two_times_of_one_table() {
    let (early, late) = (Stamp::of("2026-11-23 20:54:32.734"), Stamp::of("2026-11-23 21:54:32.735"));
    assert_eq!(late.after(early), Some(Duration::from_millis(3_600_001)));
    assert_eq!(early.after(late), None);
    assert_eq!(late.after(Stamp::of("never")), None);
}

fn times(created: &str, updated: &str, keep_alive: &str) -> Times {
    let stamp = |text: &str| (!text.is_empty()).then(|| Stamp::of(&format!("2026-11-23T12:{text}Z")));
    Times { created: stamp(created), updated: stamp(updated), keep_alive: stamp(keep_alive) }
}

#[test]
fn a_predecessor_was_last_heard_of_and_written_before_its_successors_row_was_made() {
    let successor = times("00:10.000", "00:40.000", "00:40.000");
    for (predecessor, precedes) in [
        (times("00:00.000", "00:09.001", "00:09.000"), Some(true)),
        (times("00:00.000", "00:10.000", "00:09.999"), Some(false)),
        // A twin that was signed off and is back: its last keep-alive is old, and it was written since.
        (times("00:00.000", "00:30.000", "00:09.000"), Some(false)),
        (times("00:00.000", "00:39.001", "00:39.000"), Some(false)),
        // A manager before v2.3.1 shows when it was written, and gRPC nothing.
        (times("00:00.000", "00:09.000", ""), Some(true)),
        (times("00:00.000", "00:11.000", ""), Some(false)),
        (times("", "", ""), None),
    ] {
        assert_eq!(predecessor.precede(successor), precedes, "{predecessor:?}");
    }
    let of_grpc = times("", "", "");
    assert_eq!(times("00:00.000", "00:09.000", "00:09.000").precede(of_grpc), None);
    let unreadable = Some(Stamp::of("yesterday"));
    let odd = Times { created: None, updated: unreadable, keep_alive: unreadable };
    assert_eq!(odd.precede(successor), None);
}

#[test]
fn a_row_that_something_else_than_its_keep_alives_wrote_is_known_by_its_times() {
    for (row, apart) in [
        (times("00:00.000", "00:30.001", "00:30.000"), false),
        // Its stream's first message, and no other after it.
        (times("00:00.000", "00:05.100", "00:00.000"), false),
        (times("00:00.000", "00:40.000", "00:30.000"), false),
        (times("00:00.000", "00:40.001", "00:30.000"), true),
        (times("00:00.000", "00:40.001", ""), false),
        (times("", "", "00:30.000"), false),
    ] {
        assert_eq!(row.were_written_apart(USUAL_INTERVAL), apart, "{row:?}");
    }
}

#[test]
fn a_look_that_shows_no_times_says_nothing_of_change() {
    let [first, heard, written] =
        [times("", "00:01", "00:01"), times("", "00:06", "00:06"), times("", "00:06", "00:01")];
    assert_eq!([heard.heard_since(first), heard.written_since(first)], [Some(true); 2]);
    assert_eq!([written.heard_since(first), written.written_since(first)], [Some(false), Some(true)]);
    assert_eq!([first.heard_since(first), first.written_since(first)], [Some(false); 2]);
    assert_eq!([first.heard_since(Times::default()), Times::default().written_since(first)], [None; 2]);
}
