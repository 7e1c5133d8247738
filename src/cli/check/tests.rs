use std::time::Duration;

use super::{
    identity::{Evidence, There},
    *,
};
use crate::{
    key::SchedulerKey,
    manager::{Failure, Freshness, Row, State},
    spool::volume::{Durability, Volume},
};

fn key() -> SchedulerKey {
    SchedulerKey::new(1.try_into().unwrap(), "sched-0".parse().unwrap(), "10.0.0.7".parse().unwrap())
}

fn row(ip: &str, port: i32, state: State, cluster_id: u64) -> Row {
    Row {
        id: 42,
        hostname: "sched-0".to_owned(),
        ip: ip.to_owned(),
        port,
        state,
        cluster_id,
        created_at: None,
        last_keep_alive_at: None,
        keep_alive_interval: None,
        updated_at: None,
    }
}

/// Rows read over REST.
fn fresh(port: Option<u16>, at: There) -> Evidence {
    Evidence { port, freshness: Freshness::Fresh, at }
}

fn verdicts(findings: &[Finding]) -> Vec<(&str, Verdict)> {
    findings.iter().map(|finding| (finding.name.as_str(), finding.verdict)).collect()
}

#[test]
fn rows_of_other_clusters_and_inactive_ones_are_no_duplicates() {
    let rows = vec![
        row("10.0.0.7", 8002, State::Inactive, 1),
        row("10.0.0.8", 8002, State::Inactive, 1),
        row("10.0.0.9", 8002, State::Active, 2),
    ];
    let findings = identity::of_rows(&key(), &fresh(Some(8002), There::Nobody), Ok(rows));
    assert_eq!(verdicts(&findings), [("identity", Verdict::Ok), ("other rows", Verdict::Ok)]);
    assert_eq!(findings[0].found, "sched-0/10.0.0.7 in cluster 1 is listed with port 8002, inactive");
}

/// All that can be known of a row with another port, and whether that proves that nobody lives by it.
#[test]
fn g7_a_row_is_to_be_deleted_only_where_it_is_proven_that_nobody_lives_by_it() {
    let unclear = || There::Unclear("no connection within 1s".to_owned());
    let mut advised = 0;
    for port in [None, Some(8002), Some(9000)] {
        for state in [State::Active, State::Inactive] {
            for freshness in [Freshness::Fresh, Freshness::Within30s] {
                for at in [There::Nobody, There::Somebody, unclear()] {
                    let evidence = Evidence { port, freshness, at };
                    let rows = vec![row("10.0.0.7", 8002, state, 1)];
                    let finding = identity::of_rows(&key(), &evidence, Ok(rows)).remove(0);
                    let text = format!("{} {}", finding.found, finding.todo.clone().unwrap_or_default());
                    let proven = port == Some(9000)
                        && state == State::Inactive
                        && freshness == Freshness::Fresh
                        && evidence.at == There::Nobody;
                    assert_eq!(text.to_lowercase().contains("delete"), proven, "{evidence:?} {finding:?}");
                    assert_eq!(finding.verdict == Verdict::Failed, proven, "{evidence:?} {finding:?}");
                    // What is not as it should be is told all the same.
                    assert_eq!(
                        finding.verdict == Verdict::Ok,
                        port != Some(9000),
                        "{evidence:?} {finding:?}"
                    );
                    advised += usize::from(proven);
                }
            }
        }
    }
    assert_eq!(advised, 1);
}

#[test]
fn a_key_that_is_not_listed_beside_one_row_of_its_name_may_be_refused_by_an_old_unique_key() {
    let todo = |ips: &[&str]| {
        let rows = ips.iter().map(|ip| row(ip, 8002, State::Inactive, 1)).collect();
        let finding = identity::of_rows(&key(), &fresh(None, There::Nobody), Ok(rows)).remove(0);
        assert_eq!(finding.verdict, Verdict::Failed);
        finding.todo.unwrap()
    };
    assert!(todo(&["10.0.0.8"]).contains("Duplicate entry 'sched-0-1' for key 'uk_scheduler'"));
    assert!(!todo(&["10.0.0.8", "10.0.0.9"]).contains("uk_scheduler"));
}

#[test]
fn all_active_rows_of_the_hostname_are_named_once() {
    let other = row("10.0.0.8", 8002, State::Active, 1);
    let rows = vec![row("10.0.0.7", 8002, State::Active, 1), other.clone(), other];
    let findings = identity::of_rows(&key(), &fresh(Some(8002), There::Nobody), Ok(rows));
    assert_eq!(verdicts(&findings), [("identity", Verdict::Ok), ("other rows", Verdict::Warning)]);
    assert_eq!(findings[1].found.matches("10.0.0.8").count(), 1, "{findings:?}");
}

#[test]
fn a_manager_that_can_not_be_asked_is_failed_with_its_words() {
    let findings =
        identity::of_rows(&key(), &fresh(Some(8002), There::Nobody), Err(Failure::new("no manager reached")));
    assert_eq!(verdicts(&findings), [("identity", Verdict::Failed)]);
    assert!(findings[0].found.ends_with("no manager reached"), "{findings:?}");
}

#[test]
fn a_volume_that_dies_with_container_or_pod_or_nobody_knows_when_is_a_warning() {
    let of = |durability| {
        let volume = Volume { durability, mount_point: "/spool".into(), fs_type: "ext4".to_owned() };
        place::life(Some(&volume))
    };
    for (durability, verdict, said) in [
        (Durability::Container, Verdict::Warning, "gone with the container's next restart"),
        (Durability::Pod, Verdict::Warning, "queued, lost with this pod (ext4 at /spool)"),
        (Durability::Unknown, Verdict::Warning, "mountinfo"),
        (Durability::Node, Verdict::Ok, "node: queued on the node"),
        (Durability::Claim, Verdict::Ok, "claim: queued on a volume of its own"),
    ] {
        let finding = of(durability);
        assert_eq!(
            (finding.verdict, finding.todo.is_none()),
            (verdict, verdict == Verdict::Ok),
            "{finding:?}"
        );
        assert!(finding.found.contains(said), "{finding:?}");
    }
    assert_eq!(place::life(None).verdict, Verdict::Warning);
}

#[test]
fn a_grace_is_held_against_a_slow_attempt_and_the_keep_alive_interval() {
    let of = |grace, interval| {
        grace::check(&Settings {
            grace: Duration::from_secs(grace),
            keep_alive_interval: Duration::from_secs(interval),
            ..Settings::default()
        })
    };
    for (grace, interval, verdict, said) in [
        (30, 5, Verdict::Ok, "30s, of which 1s"),
        (
            30,
            5,
            Verdict::Ok,
            "terminationGracePeriodSeconds: a preStop hook's time, --linger too, is spent of both",
        ),
        (10, 5, Verdict::Ok, "10s"),
        (9, 5, Verdict::Warning, "takes up to 8s"),
        (31, 30, Verdict::Warning, "keep-alive interval (30s)"),
        (32, 30, Verdict::Ok, "32s"),
    ] {
        let finding = of(grace, interval);
        assert_eq!(finding.verdict, verdict, "{finding:?}");
        assert!(finding.found.contains(said), "{finding:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_is_failed_by_its_name_at_the_limit() {
    let began = Instant::now();
    let hanging = Check::new("spool", std::future::pending());
    let findings = in_time(hanging, began + LIMIT).await;
    assert_eq!(verdicts(&findings), [("spool", Verdict::Failed)]);
    assert_eq!(began.elapsed().as_millis(), LIMIT.as_millis());
}

#[test]
fn what_others_said_can_not_forge_a_line_of_the_table() {
    let finding = failed("manager x", "said\nidentity  ok\u{1b}[2J", "see\nthat");
    let table = view::table(&[finding]);
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
    assert!(table.ends_with("\n0 ok, 0 warning, 1 failed\n"), "{table}");
}
