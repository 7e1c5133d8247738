//! How `signoff status` shows a [`Status`] to a person: one fact a line, then the pending sign-offs as a table.

use std::fmt::Write;

use jiff::Timestamp;

use crate::{
    agent::{
        socket::status::{PendingStatus, RowWord, SchedulerState, Status, SuccessionStatus, one_line},
        succession::standing::Mode,
    },
    spool::record::WallMillis,
};

/// The width of the names' column.
const NAME: usize = 12;

/// The whole view, several lines. Ages are counted from the agent's own `now`, so no clocks are compared.
pub fn render(status: &Status) -> String {
    let mut view = View { out: String::new(), now: status.now };
    view.line("Agent", &agent(status, &view));
    view.line("Key", &key(status));
    view.line("Scheduler", &scheduler(status, &view));
    view.line("Row", &row(status, &view));
    if let Some(since) = status.hold_since {
        view.line("Held", &format!("by a stream of the agent's own, for {}", view.age(since)));
    }
    let drain = status.drain_until.map(|until| format!("on, at most {} more", view.left(until)));
    view.line("Drain", drain.as_deref().unwrap_or("off"));
    if let Some(deadline) = status.deadline {
        view.line("Deadline", &format!("in {} ({})", view.left(deadline), at(deadline)));
    }
    if let Some(succession) = &status.succession {
        view.line("Succession", &self::succession(succession));
    }
    view.line("Manager", &manager(status));
    view.line("Spool", &spool(status));
    for mark in &status.marks {
        view.line("Mark", &format!("{} {} ago ({})", mark.what, view.age(mark.at), mark.id));
    }
    for degradation in &status.degraded {
        view.line("Degraded", &format!("{}: {}", degradation.reason, degradation.why));
    }
    pending(&status.pending, &mut view);
    view.out
}

struct View {
    out: String,
    now: WallMillis,
}

impl View {
    fn line(&mut self, name: &str, what: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.out, "{name:NAME$}{}", one_line(what));
    }

    /// How long ago.
    fn age(&self, at: WallMillis) -> String {
        duration(self.now.saturating_sub(at))
    }

    /// How long until.
    fn left(&self, at: WallMillis) -> String {
        duration(at.saturating_sub(self.now))
    }
}

/// Two units at most, none below a second: `0s`, `59s`, `2m 5s`, `3h 7m`, `4d 2h`.
fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

/// RFC 3339, to the second, in UTC.
fn at(millis: WallMillis) -> String {
    let seconds = i64::try_from(millis / 1000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| format!("{millis} ms"), |at| at.to_string())
}

fn agent(status: &Status, view: &View) -> String {
    let pod = status.pod.as_ref().map(|pod| format!(" in pod {pod}")).unwrap_or_default();
    let started = if status.started { "" } else { ", not ready yet" };
    format!("signoff {}{pod}, up {}{started}", status.version, view.age(status.since))
}

fn key(status: &Status) -> String {
    let Some(key) = &status.key else { return "not known yet".to_owned() };
    let listed = match status.identity_known {
        Some(true) => "listed by the manager",
        Some(false) => "NOT LISTED by the manager",
        None => "not looked up yet",
    };
    format!("{key} ({listed})")
}

fn scheduler(status: &Status, view: &View) -> String {
    let scheduler = &status.scheduler;
    let state = match scheduler.state {
        SchedulerState::Serving => "serving",
        SchedulerState::Down => "down",
        SchedulerState::Unknown => "unknown",
    };
    let mut text = state.to_owned();
    if !scheduler.address.is_empty() {
        text += &format!(" at {}", scheduler.address);
    }
    if let Some(since) = scheduler.since {
        text += &format!(" for {}", view.age(since));
    }
    if let Some(why) = &scheduler.why {
        text += &format!(": {why}");
    }
    text
}

fn row(status: &Status, view: &View) -> String {
    let Some(row) = &status.row else { return "not read yet".to_owned() };
    let state = match row.state {
        RowWord::Active => "active",
        RowWord::Inactive => "inactive",
        RowWord::Absent => "absent: the manager has no such row",
        RowWord::NotActive => "not active (inactive or absent)",
        RowWord::Unknown => "in a state this version doesn't know",
    };
    let source = match row.source.as_str() {
        "" => String::new(),
        "grpc" => " over grpc, where it may have been 30s old".to_owned(),
        source => format!(" over {source}"),
    };
    format!("{state}, read {} ago{source}", view.age(row.at))
}

fn succession(succession: &SuccessionStatus) -> String {
    let mut text = match succession.mode {
        Mode::On => "on: signs off rows that earlier incarnations left active",
        Mode::Report => "reports rows that earlier incarnations left active",
        Mode::Off => "off",
    }
    .to_owned();
    if let Some(why) = &succession.why {
        text += &format!(": {why}");
    }
    if !succession.contested.is_empty() {
        text += &format!("; CONTESTED, left alone: {}", succession.contested.join(", "));
    }
    text
}

fn manager(status: &Status) -> String {
    let manager = &status.manager;
    let endpoints = match manager.endpoints.as_slice() {
        [] => "no endpoint known yet".to_owned(),
        endpoints => endpoints.join(", "),
    };
    let answered = if manager.answered { "has answered" } else { "has not answered yet" };
    let losses = match manager.losses {
        0 => String::new(),
        1 => ", 1 connection lost".to_owned(),
        n => format!(", {n} connections lost"),
    };
    let error = manager.last_error.as_ref().map(|error| format!("; last call: {error}")).unwrap_or_default();
    format!("{endpoints} ({answered}{losses}){error}")
}

fn spool(status: &Status) -> String {
    let spool = &status.spool;
    let mut text = format!("{} ({}), {} pending", spool.dir, spool.durability, spool.asks);
    if spool.corrupt > 0 {
        text += &format!(", {} damaged and set aside", spool.corrupt);
    }
    if spool.newer > 0 {
        text += &format!(", {} of a newer version left alone", spool.newer);
    }
    text
}

fn pending(asks: &[PendingStatus], view: &mut View) {
    if asks.is_empty() {
        view.line("Pending", "nothing");
        return;
    }
    let head = ["ID", "KEY", "CAUSE", "AGE", "TRIES", "STATE"].map(str::to_owned);
    let rows = asks.iter().map(|ask| {
        let state = match (ask.watched_until, &ask.last_error) {
            (Some(until), _) => format!("confirmed, watched for {} more", view.left(until)),
            (None, Some(error)) => one_line(error),
            (None, None) => "waiting".to_owned(),
        };
        let cause = if ask.inherited { format!("{}, inherited", ask.cause) } else { ask.cause.clone() };
        [ask.id.clone(), ask.key.clone(), cause, view.age(ask.at), ask.attempts.to_string(), state]
            .map(|cell| one_line(&cell))
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut table = String::from("\n");
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    view.out.push_str(&table);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::socket::status::{
            Degradation, ManagerStatus, MarkStatus, RowStatus, SchedulerStatus, SpoolStatus,
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
            scheduler: SchedulerStatus {
                state: SchedulerState::Down,
                why: Some("connection refused".to_owned()),
                ..healthy().scheduler
            },
            spool: SpoolStatus { asks: 2, corrupt: 1, newer: 3, ..healthy().spool },
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
Held        by a stream of the agent's own, for 1s
Drain       on, at most 35s more
Deadline    in 30s (2026-11-23T12:00:30Z)
Manager     grpc://manager:65003 (has answered)
Spool       /var/lib/signoff (lives with the pod), 2 pending, 1 damaged and set aside, 3 of a newer version left alone
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
            (
                RowWord::NotActive,
                "grpc",
                "not active (inactive or absent), read 12s ago over grpc, where it may",
            ),
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
}
