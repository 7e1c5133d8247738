//! `signoff queue list | show | drop`: a spool's asks and marks, for people.
//!
//! They need no agent: they read the directory. Listing and showing change nothing.

use std::{fmt::Write as _, path::Path};

use jiff::Timestamp;
use serde::Serialize;

use super::columns;
use crate::spool::{
    self, Entry, Listing, Managers, Problem, SpoolError, Whose,
    record::{Kind, Record, WallMillis, What},
};

/// How output is rendered: `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON object.
    Json,
}

/// `queue list`: the asks, and the files that need a person's eye. `ours` is the manager of the agent here, where there is one.
pub fn list(
    dir: &Path,
    ours: Option<&Managers>,
    format: Format,
    now: WallMillis,
) -> Result<String, SpoolError> {
    let listing = spool::scan(dir)?;
    Ok(match format {
        Format::Table => table(dir, &listing, ours, now),
        Format::Json => json(&ListView::of(&listing, ours)),
    })
}

/// `queue show ID`: everything about one record.
pub fn show(dir: &Path, id: &str, format: Format) -> Result<String, SpoolError> {
    let listing = spool::scan(dir)?;
    let unknown = || SpoolError::UnknownId { ids: vec![id.to_owned()], dir: dir.to_owned() };
    let entry = listing.find(id).ok_or_else(unknown)?;
    Ok(match format {
        Format::Table => details(entry),
        Format::Json => json(&EntryView::of(entry, None)),
    })
}

/// `queue drop ID...`: removes records, whoever holds them, and says what they were. Where one of the ids is no record's, none is
/// removed. Where the disk lets go of some only, those are said, and why not the others.
pub fn drop(dir: &Path, ids: &[String]) -> Result<(String, Option<SpoolError>), SpoolError> {
    let drops = spool::drop_records(dir, ids)?;
    let mut said = String::new();
    for entry in &drops.dropped {
        let Record { id, key, .. } = &entry.record;
        let (kind, cause) = (kind(entry.kind), cause(&entry.record));
        let held = if entry.locked && entry.kind == Kind::Ask {
            "; the agent that holds it takes it for settled"
        } else {
            ""
        };
        let _ = writeln!(said, "dropped {kind} {id} ({cause}) of {key}{held}");
    }
    Ok((said, drops.failed))
}

#[derive(Serialize)]
struct ListView<'a> {
    asks: Vec<EntryView<'a>>,
    corrupt: Vec<String>,
    newer: Vec<String>,
    damaged: Vec<String>,
    unreadable: Vec<String>,
}

impl<'a> ListView<'a> {
    fn of(listing: &'a Listing, ours: Option<&Managers>) -> Self {
        let said = |problems: &[Problem]| problems.iter().map(Problem::to_string).collect();
        Self {
            asks: listing.asks.iter().map(|entry| EntryView::of(entry, ours)).collect(),
            corrupt: listing.corrupt.iter().map(|path| path.display().to_string()).collect(),
            newer: said(&listing.newer),
            damaged: said(&listing.problems),
            unreadable: said(&listing.unreadable),
        }
    }
}

#[derive(Serialize)]
struct EntryView<'a> {
    kind: Kind,
    #[serde(flatten)]
    record: &'a Record,
    written: String,
    held: bool,
    /// Whose it is, seen from the agent here: `this-manager`, `another-manager`, `not-said`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    whose: Option<&'static str>,
    file: String,
}

impl<'a> EntryView<'a> {
    fn of(entry: &'a Entry, ours: Option<&Managers>) -> Self {
        Self {
            kind: entry.kind,
            record: &entry.record,
            written: time(entry.record.at),
            held: entry.locked,
            whose: ours.map(|ours| match entry.record.managers.seen_from(ours) {
                Whose::Ours => "this-manager",
                Whose::Anothers => "another-manager",
                Whose::Unsaid => "not-said",
            }),
            file: entry.path.display().to_string(),
        }
    }
}

fn json(value: &impl Serialize) -> String {
    // Plain data: there is nothing in it that JSON can't say.
    serde_json::to_string_pretty(value).map_or_else(|error| format!("{error}\n"), |text| text + "\n")
}

fn table(dir: &Path, listing: &Listing, ours: Option<&Managers>, now: WallMillis) -> String {
    let head = ["ID", "KIND", "KEY", "CAUSE", "AGE", "HELD", "POD", "MANAGER"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for entry in &listing.asks {
        let record = &entry.record;
        rows.push(vec![
            record.id.to_string(),
            kind(entry.kind).to_owned(),
            record.key.to_string(),
            cause(record).to_owned(),
            age(record.at, now),
            if entry.locked { "yes" } else { "no" }.to_owned(),
            record.pod.clone().unwrap_or_else(|| "-".to_owned()),
            manager(record, ours),
        ]);
    }
    let mut out =
        if rows.len() > 1 { columns(&rows) } else { format!("no pending sign-offs in {}\n", dir.display()) };
    for (title, problems) in
        [("damaged", &listing.problems), ("newer", &listing.newer), ("unreadable", &listing.unreadable)]
    {
        for problem in problems {
            let _ = writeln!(out, "{title}: {problem}");
        }
    }
    for path in &listing.corrupt {
        let _ = writeln!(out, "set aside: {}", path.display());
    }
    out
}

fn details(entry: &Entry) -> String {
    let record = &entry.record;
    let yes = |is| if is { "yes" } else { "no" };
    let mut lines = vec![
        ("id", record.id.to_string()),
        ("kind", kind(entry.kind).to_owned()),
        ("hostname", record.key.hostname.to_string()),
        ("ip", record.key.ip.to_string()),
        ("cluster", record.key.cluster_id.to_string()),
        ("cause", cause(record).to_owned()),
        ("written", time(record.at)),
    ];
    if let What::SignOff { drain_until: Some(until), .. } = record.what {
        lines.push(("drain until", time(until)));
    }
    lines.extend(record.address.map(|address| ("address", address.to_string())));
    lines.push(("manager", manager(record, None)));
    lines.push(("listed", yes(record.listed).to_owned()));
    lines.extend(record.pod.clone().map(|pod| ("pod", pod)));
    lines.push(("held", yes(entry.locked).to_owned()));
    lines.push(("file", entry.path.display().to_string()));
    let rows: Vec<Vec<String>> =
        lines.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    columns(&rows)
}

/// Which manager a record is for, seen from the agent here, where there is one.
fn manager(record: &Record, ours: Option<&Managers>) -> String {
    match (record.managers.is_empty(), ours.map(|ours| record.managers.seen_from(ours))) {
        (true, _) => "not said".to_owned(),
        (false, Some(Whose::Anothers)) => format!("for another manager: {}", record.managers),
        (false, _) => record.managers.to_string(),
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Ask => "ask",
        Kind::Mark => "mark",
    }
}

fn cause(record: &Record) -> &'static str {
    match record.what {
        What::SignOff { cause, .. } => cause.label(),
        What::Seen => "seen",
        What::Held => "held",
    }
}

fn time(at: WallMillis) -> String {
    let known = i64::try_from(at).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    known.map_or_else(|| format!("{at} ms"), |time| format!("{time:.3}"))
}

/// The age in its largest whole unit; `-` for what lies ahead (the clock was set).
fn age(at: WallMillis, now: WallMillis) -> String {
    let Some(milliseconds) = now.checked_sub(at) else { return "-".to_owned() };
    match milliseconds / 1000 {
        seconds @ 0..=119 => format!("{seconds}s"),
        seconds @ 120..=7199 => format!("{}m", seconds / 60),
        seconds @ 7200..=172_799 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        key::SchedulerKey,
        spool::{
            Holder, Limits, Spool,
            record::{Cause, RecordId},
        },
    };

    fn record(id: u64, what: What) -> Record {
        let key = SchedulerKey::new(
            1.try_into().unwrap(),
            "scheduler-0".parse().unwrap(),
            "10.0.0.7".parse().unwrap(),
        );
        Record {
            id: RecordId(format!("{id:016x}")),
            key,
            what,
            address: Some("10.0.0.7:8002".parse().unwrap()),
            listed: true,
            row_updated: None,
            registered: None,
            at: 1_700_000_000_000,
            pod: Some("scheduler-0".to_owned()),
            managers: Default::default(),
        }
    }

    fn managers(endpoint: &str) -> Managers {
        Managers::of([endpoint.to_owned()])
    }

    /// One ask, held, and one mark.
    fn with_two(test: impl FnOnce(&Path)) {
        let dir = tempfile::tempdir().unwrap();
        let holder = Holder { managers: managers("grpc://manager.ns.svc:65003"), ..Holder::default() };
        let mut spool = Spool::open(dir.path(), Limits::default()).unwrap().held_by(holder);
        let what = What::SignOff { cause: Cause::PreStop, drain_until: Some(1_700_000_035_000) };
        spool.write_ask(&record(1, what)).unwrap();
        spool.write_mark(&record(2, What::Seen)).unwrap();
        test(dir.path());
    }

    #[test]
    fn the_list_shows_asks_and_whose_they_are() {
        with_two(|dir| {
            let (ours, theirs) =
                (managers("grpc://manager.ns.svc.cluster.local:65003"), managers("grpc://m2:65003"));
            for (agent, whose) in [
                (None, "grpc://manager.ns.svc:65003"),
                (Some(&ours), "grpc://manager.ns.svc:65003"),
                (Some(&theirs), "for another manager: grpc://manager.ns.svc:65003"),
            ] {
                let table = list(dir, agent, Format::Table, 1_700_000_125_000).unwrap();
                let lines: Vec<&str> = table.lines().collect();
                assert_eq!(lines.len(), 2, "{table}");
                let row = "0000000000000001  ask   scheduler-0/10.0.0.7 in cluster 1  pre-stop  2m   yes   scheduler-0";
                assert_eq!(lines[1], format!("{row}  {whose}"));
            }
        });
    }

    #[test]
    fn an_ask_of_an_older_release_does_not_say_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let what = What::SignOff { cause: Cause::PreStop, drain_until: None };
        Spool::open(dir.path(), Limits::default()).unwrap().write_ask(&record(1, what)).unwrap();
        let ours = managers("grpc://m:65003");
        for shown in [
            list(dir.path(), Some(&ours), Format::Table, 0).unwrap(),
            show(dir.path(), "0000000000000001", Format::Table).unwrap(),
        ] {
            assert!(shown.contains("not said"), "{shown}");
        }
        let json = list(dir.path(), Some(&ours), Format::Json, 0).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["asks"][0]["for"], json["asks"][0].get("managers")), (&"not-said".into(), None));
    }

    #[test]
    fn the_list_as_json_names_everything() {
        with_two(|dir| {
            std::fs::write(dir.join("x.ask.json"), "").unwrap();
            let ours = managers("grpc://elsewhere:1");
            let text = list(dir, Some(&ours), Format::Json, 0).unwrap();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["asks"][0]["id"], "0000000000000001");
            assert_eq!(json["asks"][0]["cause"], "pre-stop");
            assert_eq!(json["asks"][0]["held"], true);
            assert_eq!(json["asks"][0]["written"], "2023-11-14T22:13:20.000Z");
            assert_eq!(json["asks"][0]["managers"], serde_json::json!(["grpc://manager.ns.svc:65003"]));
            assert_eq!(json["asks"][0]["for"], "another-manager");
            assert!(json["damaged"][0].as_str().unwrap().contains("x.ask.json"));
        });
    }

    #[test]
    fn an_empty_queue_says_so_and_a_missing_spool_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let said = list(dir.path(), None, Format::Table, 0).unwrap();
        assert_eq!(said, format!("no pending sign-offs in {}\n", dir.path().display()));
        let error = list(&dir.path().join("none"), None, Format::Table, 0).unwrap_err();
        assert!(error.to_string().contains("no such directory"), "{error}");
    }

    #[test]
    fn one_record_is_shown_whole() {
        with_two(|dir| {
            let said = show(dir, "0000000000000001", Format::Table).unwrap();
            for part in
                ["pre-stop", "2023-11-14T22:13:55.000Z", "10.0.0.7:8002", "held", ".ask.json", "listed"]
            {
                assert!(said.contains(part), "{part} not in {said}");
            }
            let json: serde_json::Value =
                serde_json::from_str(&show(dir, "0000000000000002", Format::Json).unwrap()).unwrap();
            assert_eq!((&json["kind"], &json["what"]), (&"mark".into(), &"seen".into()));
            assert!(matches!(show(dir, "2", Format::Table), Err(SpoolError::UnknownId { .. })));
        });
    }

    #[test]
    fn dropping_says_what_was_dropped() {
        with_two(|dir| {
            let one = ["0000000000000001".to_owned()];
            let (said, failed) = drop(dir, &one).unwrap();
            assert_eq!(
                said,
                "dropped ask 0000000000000001 (pre-stop) of scheduler-0/10.0.0.7 in cluster 1; the agent that holds it takes \
                 it for settled\n"
            );
            assert!(failed.is_none());
            assert!(matches!(drop(dir, &one), Err(SpoolError::UnknownId { .. })));
            assert_eq!(spool::scan(dir).unwrap().entries().count(), 1);
        });
    }

    #[test]
    fn nothing_is_dropped_where_one_of_the_ids_is_no_records() {
        with_two(|dir| {
            let ids = ["0000000000000001", "0000000000000009", "bad", "0000000000000002"].map(str::to_owned);
            let said = drop(dir, &ids).unwrap_err().to_string();
            assert!(said.contains("\"0000000000000009\" or \"bad\""), "{said}");
            assert_eq!(spool::scan(dir).unwrap().entries().count(), 2);
            // One that is given twice is one.
            let twice = ["0000000000000001", "0000000000000001", "0000000000000002"].map(str::to_owned);
            let (said, failed) = drop(dir, &twice).unwrap();
            assert_eq!((said.lines().count(), failed.is_none()), (2, true), "{said}");
            assert_eq!(spool::scan(dir).unwrap().entries().count(), 0);
        });
    }

    #[test]
    fn an_age_is_told_in_its_largest_unit_and_a_clock_set_back_is_survived() {
        let at = 1_700_000_000_000;
        for (later, said) in
            [(0, "0s"), (119_999, "119s"), (120_000, "2m"), (7_200_000, "2h"), (172_800_000, "2d")]
        {
            assert_eq!(age(at, at + later), said);
        }
        assert_eq!(age(at, at - 1), "-");
        assert_eq!(time(u64::MAX), format!("{} ms", u64::MAX));
    }
}
