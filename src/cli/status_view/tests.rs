use super::*;
use crate::{
    agent::socket::status::{
        Degradation, ManagerStatus, MarkStatus, RowKnown, RowStatus, SchedulerStatus, SpoolStatus,
    },
    key::SchedulerKey,
};

/// 2026-11-23T12:00:00Z.
const NOON: WallMillis = 1_795_435_200_000;

fn healthy() -> Status {
    let key =
        SchedulerKey::new(1.try_into().unwrap(), "sched-0".parse().unwrap(), "10.0.0.7".parse().unwrap());
    Status {
        version: "0.1.0".to_owned(),
        pod: Some("sched-0".to_owned()),
        now: NOON,
        since: NOON - 125_000,
        started: true,
        key: Some(key),
        identity_known: Some(true),
        scheduler: SchedulerStatus {
            address: "10.0.0.7:8002".to_owned(),
            state: SchedulerState::Serving,
            since: Some(NOON - 120_000),
            why: None,
        },
        row: Some(RowStatus { state: RowWord::Active, at: NOON - 12_000, source: "rest".to_owned() }),
        grace_ms: 30_000,
        manager: ManagerStatus {
            endpoints: vec!["grpc://manager:65003".to_owned()],
            answered: true,
            ..ManagerStatus::default()
        },
        spool: SpoolStatus {
            dir: "/var/lib/signoff".to_owned(),
            durability: "lives with the pod".to_owned(),
            asks: Some(0),
            ..SpoolStatus::default()
        },
        ..Status::default()
    }
}

#[test]
fn a_healthy_agent_takes_eight_lines() {
    assert_eq!(
        render(&healthy()),
        "\
Agent       signoff 0.1.0 in pod sched-0, up 2m 5s
Key         sched-0/10.0.0.7 in cluster 1 (listed by the manager)
Scheduler   serving at 10.0.0.7:8002 for 2m 0s
Row         active, read 12s ago over rest
Drain       off
Manager     grpc://manager:65003 (has answered)
Spool       /var/lib/signoff (lives with the pod), 0 pending
Pending     nothing
"
    );
}

#[test]
fn what_is_pending_is_shown_with_its_age_and_last_error() {
    let pending = vec![
        PendingStatus {
            id: "00ff".to_owned(),
            key: "sched-0/10.0.0.7 in cluster 1".to_owned(),
            cause: "pre-stop".to_owned(),
            at: NOON - 3_000,
            attempts: 4,
            last_error: Some("manager:65003: connection refused".to_owned()),
            ..PendingStatus::default()
        },
        PendingStatus {
            id: "01".to_owned(),
            key: "sched-1/10.0.0.8 in cluster 1".to_owned(),
            cause: "sigterm".to_owned(),
            at: NOON - 90_000_000,
            watched_until: Some(NOON + 61_000),
            inherited: true,
            ..PendingStatus::default()
        },
    ];
    let status = Status {
        pending,
        drain_until: Some(NOON + 35_000),
        deadline: Some(NOON + 30_000),
        hold_since: Some(NOON - 1_000),
        hold_reason: Some("somebody made it inactive".to_owned()),
        put_back_at: Some(NOON - 2_000),
        scheduler: SchedulerStatus {
            state: SchedulerState::Down,
            why: Some("connection refused".to_owned()),
            ..healthy().scheduler
        },
        spool: SpoolStatus { asks: Some(2), corrupt: Some(1), newer: Some(3), ..healthy().spool },
        marks: vec![MarkStatus { id: "02".to_owned(), what: "seen".to_owned(), at: NOON - 5_000 }],
        degraded: vec![Degradation { reason: "spool".to_owned(), why: "read-only".to_owned() }],
        ..healthy()
    };
    let shown = render(&status);
    let after = shown.split_once("Scheduler").unwrap().1;
    assert_eq!(
        after,
        "   down at 10.0.0.7:8002 for 2m 0s: connection refused
Row         active, read 12s ago over rest
Held        active by a stream of the agent's own, for 1s: somebody made it inactive
Put back    somebody deleted the row while the scheduler served; the agent registered it again 2s ago
Drain       on, at most 35s more: the row is kept inactive
Deadline    in 30s (2026-11-23T12:00:30Z)
Manager     grpc://manager:65003 (has answered)
Spool       /var/lib/signoff (lives with the pod), 1 pending, 1 confirmed and watched, 1 damaged and set aside, 3 of a newer version left alone
Mark        seen 5s ago (02)
Degraded    spool: read-only

ID    KEY                            CAUSE               AGE    TRIES  STATE
00ff  sched-0/10.0.0.7 in cluster 1  pre-stop            3s     4      manager:65003: connection refused
01    sched-1/10.0.0.8 in cluster 1  sigterm, inherited  1d 1h  0      confirmed, watched for 1m 1s more
"
    );
}

#[test]
fn an_agent_that_knows_nothing_yet_says_so() {
    let shown = render(&Status { version: "0.1.0".to_owned(), ..Status::default() });
    for said in [
        "up 0s, not ready yet",
        "Key         not known yet",
        "Scheduler   unknown\n",
        "Row         not read yet",
        "no endpoint known yet (has not answered yet)",
    ] {
        assert!(shown.contains(said), "{said}\n{shown}");
    }
}

#[test]
fn a_row_says_how_it_was_read_and_a_key_that_it_is_not_listed() {
    let mut status = healthy();
    for (state, source, said) in [
        (RowWord::NotActive, "grpc", "not active (inactive or absent), read 12s ago over grpc, where it may"),
        (RowWord::Absent, "rest", "absent: the manager has no such row, read 12s ago over rest"),
        (RowWord::Inactive, "rest", "Row         inactive, read"),
        (RowWord::Unknown, "", "doesn't know, read 12s ago\n"),
    ] {
        status.row = Some(RowStatus { state, at: NOON - 12_000, source: source.to_owned() });
        assert!(render(&status).contains(said), "{said}\n{}", render(&status));
    }
    status.identity_known = Some(false);
    assert!(render(&status).contains("(NOT LISTED by the manager)"));
}

#[test]
fn what_is_known_best_of_the_row_comes_before_a_list_that_may_be_older() {
    let shown = |row, known: Option<(RowWord, u64, &str)>| {
        let row_known = known.map(|(state, ago, by)| RowKnown { state, at: NOON - ago, by: by.to_owned() });
        let shown = render(&Status { row, row_known, ..healthy() });
        shown.lines().find_map(|line| line.strip_prefix("Row         ")).unwrap().to_owned()
    };
    let list = || Some(RowStatus { state: RowWord::NotActive, at: NOON - 2_000, source: "grpc".to_owned() });
    assert_eq!(
        shown(list(), Some((RowWord::Active, 19_000, "hold"))),
        "active: held by the agent for 19s; last read: not active (inactive or absent), read 2s ago over grpc, where it may \
         have been 30s old"
    );
    assert_eq!(
        shown(None, Some((RowWord::Inactive, 3_000, "sign-off"))),
        "inactive: signed off 3s ago; not read since"
    );
    assert_eq!(
        shown(list(), Some((RowWord::NotActive, 2_000, "read"))),
        "not active (inactive or absent), read 2s ago over grpc, where it may have been 30s old"
    );
    assert_eq!(shown(None, None), "not read yet");
}

#[test]
fn what_others_said_can_not_forge_a_line_or_move_the_cursor() {
    let mut status = healthy();
    status.manager.last_error = Some("x\nRow         active\u{1b}[2J".to_owned());
    status.pending =
        vec![PendingStatus { last_error: Some("y\r\nz".to_owned()), ..PendingStatus::default() }];
    let shown = render(&status);
    assert_eq!(shown.lines().filter(|line| line.starts_with("Row")).count(), 1, "{shown}");
    assert!(!shown.contains(['\u{1b}', '\r']), "{shown}");
}

#[test]
fn succession_says_what_it_may_do_why_not_and_what_is_contested() {
    let shown = |mode, why: Option<&str>, contested: &[&str]| {
        let succession = SuccessionStatus {
            mode,
            why: why.map(str::to_owned),
            contested: contested.iter().map(|key| (*key).to_owned()).collect(),
        };
        let shown = render(&Status { succession: Some(succession), ..healthy() });
        shown.lines().find_map(|line| line.strip_prefix("Succession  ")).unwrap().to_owned()
    };
    assert_eq!(shown(Mode::Off, Some("POD_NAME is not set"), &[]), "off: POD_NAME is not set");
    assert!(shown(Mode::Report, None, &[]).starts_with("reports "));
    let said = shown(Mode::On, None, &["sched-0/10.0.0.8 in cluster 1"]);
    assert!(
        said.starts_with("on: ") && said.ends_with("left alone: sched-0/10.0.0.8 in cluster 1"),
        "{said}"
    );
}

#[test]
fn durations_have_two_units_at_most() {
    for (seconds, shown) in [
        (0, "0s"),
        (59, "59s"),
        (60, "1m 0s"),
        (3_599, "59m 59s"),
        (3_600, "1h 0m"),
        (86_399, "23h 59m"),
        (90_000, "1d 1h"),
    ] {
        assert_eq!(duration(seconds * 1000 + 999), shown);
    }
}

#[test]
fn what_the_disk_does_not_say_is_unknown_and_not_zero() {
    let shown = |spool: SpoolStatus| {
        let shown = render(&Status { spool, ..healthy() });
        shown.lines().find_map(|line| line.strip_prefix("Spool       ")).unwrap().to_owned()
    };
    let unknown = SpoolStatus { asks: None, ..healthy().spool };
    assert_eq!(
        shown(SpoolStatus { silent_since: Some(NOON - 12_300), ..unknown.clone() }),
        "/var/lib/signoff (lives with the pod), unknown: the disk has not answered for 13 s"
    );
    assert_eq!(
        shown(SpoolStatus { why: Some("read-only".to_owned()), ..unknown.clone() }),
        "/var/lib/signoff (lives with the pod), unknown: read-only"
    );
    assert_eq!(shown(unknown), "/var/lib/signoff (lives with the pod), unknown: the spool was not read yet");
    let json = serde_json::to_value(SpoolStatus::default()).unwrap();
    for name in ["asks", "marks", "corrupt", "newer"] {
        assert!(json[name].is_null(), "{json}");
    }
}
