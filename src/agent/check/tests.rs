use super::*;
use crate::{
    agent::socket::status::{
        ManagerStatus, PendingStatus, RowKnown, RowStatus, SchedulerStatus, SpoolStatus, SuccessionStatus,
    },
    key::SchedulerKey,
};

const NOW: WallMillis = 1_795_435_200_000;

fn healthy() -> Status {
    let key =
        SchedulerKey::new(1.try_into().unwrap(), "sched-0".parse().unwrap(), "10.0.0.7".parse().unwrap());
    Status {
        version: "0.1.0".to_owned(),
        now: NOW,
        since: NOW - 300_000,
        started: true,
        key: Some(key),
        identity_known: Some(true),
        scheduler: SchedulerStatus {
            address: "10.0.0.7:8002".to_owned(),
            state: SchedulerState::Serving,
            since: Some(NOW - 200_000),
            why: None,
        },
        row: Some(RowStatus { state: RowWord::Active, at: NOW - 5_000, source: "rest".to_owned() }),
        grace_ms: 30_000,
        manager: ManagerStatus { answered: true, ..ManagerStatus::default() },
        spool: SpoolStatus { dir: "/spool".to_owned(), asks: Some(0), ..SpoolStatus::default() },
        ..Status::default()
    }
}

fn row(state: RowWord, ago: u64) -> Option<RowStatus> {
    Some(RowStatus { state, at: NOW - ago, source: "rest".to_owned() })
}

/// Just this one is as told; all the others are ok, and there are no more.
fn only(status: &Status, name: &str, verdict: Verdict, said: &str) {
    let findings = of_status(status);
    for finding in &findings {
        let expected = if finding.name == name { verdict } else { Verdict::Ok };
        assert_eq!(finding.verdict, expected, "{finding:?}");
        assert_eq!(finding.todo.is_none(), expected == Verdict::Ok, "{finding:?}");
    }
    let finding = findings.iter().find(|finding| finding.name == name).unwrap();
    assert!(finding.found.contains(said), "{finding:?}");
}

#[test]
fn a_healthy_agent_finds_nothing_to_be_mended() {
    only(&healthy(), "agent: row", Verdict::Ok, "active (read 5 s ago)");
}

#[test]
fn each_thing_that_is_not_right_is_told_and_it_alone() {
    let scheduler = healthy().scheduler;
    let down =
        SchedulerStatus { state: SchedulerState::Down, since: Some(NOW - 100_000), ..scheduler.clone() };
    let unknown = SchedulerStatus {
        state: SchedulerState::Unknown,
        since: None,
        why: Some("no answer".to_owned()),
        ..scheduler
    };
    let ask = PendingStatus {
        at: NOW - 90_000,
        last_error: Some("connection refused".to_owned()),
        ..PendingStatus::default()
    };
    let rejected = PendingStatus {
        key: "s/10.0.0.9 in cluster 1".to_owned(),
        last_error: Some("rejected with PermissionDenied: no".to_owned()),
        rejected: true,
        ..ask.clone()
    };
    let watched = PendingStatus { watched_until: Some(NOW + 1), ..PendingStatus::default() };
    let contested = SuccessionStatus {
        contested: vec!["s/10.0.0.8 in cluster 1".to_owned()],
        ..SuccessionStatus::default()
    };
    let spool =
        |corrupt, newer| SpoolStatus { corrupt: Some(corrupt), newer: Some(newer), ..healthy().spool };
    let silent = SpoolStatus { asks: None, silent_since: Some(NOW - 12_300), ..healthy().spool };
    let slow = SpoolStatus { silent_since: Some(NOW - 600), ..silent.clone() };
    let unread = SpoolStatus { asks: None, why: Some("no room".to_owned()), ..healthy().spool };
    for (status, name, verdict, said) in [
        (Status { started: false, ..healthy() }, "agent: started", Verdict::Warning, "not ready"),
        (Status { key: None, ..healthy() }, "agent: identity", Verdict::Failed, "whose row"),
        (
            Status { identity_known: Some(false), ..healthy() },
            "agent: identity",
            Verdict::Failed,
            "was not listed",
        ),
        (
            Status { identity_known: None, ..healthy() },
            "agent: identity",
            Verdict::Warning,
            "not looked up yet",
        ),
        (
            Status { scheduler: down.clone(), row: row(RowWord::Inactive, 5_000), ..healthy() },
            "agent: scheduler",
            Verdict::Warning,
            "down at 10.0.0.7:8002",
        ),
        (Status { scheduler: unknown, ..healthy() }, "agent: scheduler", Verdict::Warning, "no answer"),
        (Status { row: None, ..healthy() }, "agent: row", Verdict::Warning, "not read"),
        (
            Status { row: row(RowWord::Unknown, 1), ..healthy() },
            "agent: row",
            Verdict::Warning,
            "doesn't know",
        ),
        (
            Status { row: row(RowWord::NotActive, 5_000), ..healthy() },
            "agent: row",
            Verdict::Warning,
            "not active though the scheduler serves (read 5 s ago)",
        ),
        (
            Status { drain_until: Some(NOW + 34_000), ..healthy() },
            "agent: drain",
            Verdict::Warning,
            "at most 34 s more",
        ),
        (
            Status { pending: vec![watched.clone(), ask.clone(), rejected], ..healthy() },
            "agent: queue",
            Verdict::Failed,
            "2 sign-off(s) pending, the oldest asked 90 s ago; s/10.0.0.9 in cluster 1: rejected with \
             PermissionDenied: no",
        ),
        (
            Status { pending: vec![watched, ask], ..healthy() },
            "agent: queue",
            Verdict::Warning,
            "1 sign-off(s) pending, the oldest asked 90 s ago; last failure: connection refused",
        ),
        (
            Status { succession: Some(contested), ..healthy() },
            "agent: succession",
            Verdict::Warning,
            "another scheduler seems to live under this hostname: s/10.0.0.8 in cluster 1",
        ),
        (
            Status {
                manager: ManagerStatus { last_error: Some("TLS: x".to_owned()), ..ManagerStatus::default() },
                ..healthy()
            },
            "agent: manager",
            Verdict::Warning,
            "has not answered the agent yet; the last call failed: TLS: x",
        ),
        (
            Status {
                manager: ManagerStatus {
                    answered: true,
                    rest_error: Some("HTTP 401".to_owned()),
                    ..ManagerStatus::default()
                },
                ..healthy()
            },
            "agent: manager",
            Verdict::Warning,
            "rows can't be read over REST, and are read over gRPC, where they may be 30 s old: HTTP 401",
        ),
        (Status { spool: spool(2, 0), ..healthy() }, "agent: spool", Verdict::Warning, "2 damaged"),
        (
            Status { spool: silent, ..healthy() },
            "agent: spool",
            Verdict::Failed,
            "what is in /spool is unknown: the disk has not answered for 13 s",
        ),
        (
            Status { spool: slow, ..healthy() },
            "agent: spool",
            Verdict::Warning,
            "what is in /spool is unknown: the disk has not answered for 1 s",
        ),
        (Status { spool: unread, ..healthy() }, "agent: spool", Verdict::Failed, "is unknown: no room"),
        (
            Status { spool: spool(0, 3), ..healthy() },
            "agent: spool",
            Verdict::Warning,
            "3 record(s) of a newer",
        ),
    ] {
        only(&status, name, verdict, said);
    }
}

#[test]
fn a_row_that_is_active_though_the_scheduler_is_gone_is_told_once_that_can_be_known() {
    let down = |since| Status {
        scheduler: SchedulerStatus {
            state: SchedulerState::Down,
            since: Some(NOW - since),
            ..healthy().scheduler
        },
        ..healthy()
    };
    let verdict = |status: &Status| {
        of_status(status).into_iter().find(|finding| finding.name == "agent: row").unwrap().verdict
    };
    assert_eq!(verdict(&down(100_000)), Verdict::Warning);
    // Read before that, or too soon after it.
    assert_eq!(verdict(&down(4_000)), Verdict::Ok);
    assert_eq!(verdict(&down(20_000)), Verdict::Ok);
    // A drain of 30 s + 5 s that began 34 s ago.
    let draining = Status { drain_until: Some(NOW + 1_000), row: row(RowWord::Active, 0), ..healthy() };
    assert_eq!(verdict(&draining), Verdict::Warning);
    let fresh = Status { drain_until: Some(NOW + 30_000), ..draining };
    assert_eq!(verdict(&fresh), Verdict::Ok);
}

#[test]
fn a_row_that_is_held_is_not_called_inactive_by_an_older_list() {
    let list = RowStatus { state: RowWord::NotActive, at: NOW - 1_000, source: "grpc".to_owned() };
    let held = |by: &str, state| Status {
        row: Some(list.clone()),
        row_known: Some(RowKnown { state, at: NOW - 19_000, by: by.to_owned() }),
        ..healthy()
    };
    only(&held("hold", RowWord::Active), "agent: row", Verdict::Ok, "active (held by the agent for 19 s)");
    let said = "not active though the scheduler serves (signed off 19 s ago)";
    only(&held("sign-off", RowWord::Inactive), "agent: row", Verdict::Warning, said);
    let said = "not active though the scheduler serves (read 1 s ago)";
    only(&held("read", RowWord::NotActive), "agent: row", Verdict::Warning, said);
}

#[test]
fn a_confirmed_sign_off_that_is_still_watched_is_not_pending() {
    let watched = PendingStatus { watched_until: Some(NOW + 1), ..PendingStatus::default() };
    let status = Status { pending: vec![watched], ..healthy() };
    only(&status, "agent: queue", Verdict::Ok, "1 confirmed and still watched");
}

#[test]
fn what_the_agent_has_to_do_without_is_failed_where_a_sign_off_needs_it() {
    let without = |reason: &str| {
        let degraded = vec![Degradation { reason: reason.to_owned(), why: "it is gone".to_owned() }];
        Status { degraded, ..healthy() }
    };
    for reason in [
        "spool",
        "scheduler-config",
        "hostname",
        "ip",
        "hook-listen",
        "hook-allow",
        "hook-token",
        "socket",
        "new",
    ] {
        only(&without(reason), &format!("agent: without {reason}"), Verdict::Failed, "it is gone");
    }
    for reason in ["listen", "settings", "environment", "manager"] {
        only(&without(reason), &format!("agent: without {reason}"), Verdict::Warning, "it is gone");
    }
}
