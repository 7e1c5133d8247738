//! `signoff queue list | show | drop`: a spool's asks and marks, for people.
//!
//! They need no agent: they read the directory. Listing and showing change nothing.

use std::{fmt::Write as _, path::Path};

use jiff::Timestamp;
use serde::Serialize;

use super::columns;
use crate::spool::{
    self, Entry, Listing, Problem, SpoolError,
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

/// `queue list`: the asks, or with `all` the marks too, and the files that need a person's eye.
pub fn list(dir: &Path, all: bool, format: Format, now: WallMillis) -> Result<String, SpoolError> {
    let listing = spool::scan(dir)?;
    Ok(match format {
        Format::Table => table(dir, &listing, all, now),
        Format::Json => json(&ListView::of(&listing, all)),
    })
}

/// `queue show ID`: everything about one record.
pub fn show(dir: &Path, id: &str, format: Format) -> Result<String, SpoolError> {
    let listing = spool::scan(dir)?;
    let unknown = || SpoolError::UnknownId { id: id.to_owned(), dir: dir.to_owned() };
    let entry = listing.find(id).ok_or_else(unknown)?;
    Ok(match format {
        Format::Table => details(entry),
        Format::Json => json(&EntryView::of(entry)),
    })
}

/// `queue drop ID`: removes one record, whoever holds it, and says what it was.
pub fn drop(dir: &Path, id: &str, format: Format) -> Result<String, SpoolError> {
    let entry = spool::drop_record(dir, id)?;
    Ok(match format {
        Format::Json => json(&EntryView::of(&entry)),
        Format::Table => {
            let Record { id, key, .. } = &entry.record;
            let kind = kind(entry.kind);
            let cause = cause(&entry.record);
            let held = if entry.locked && entry.kind == Kind::Ask {
                "; the agent that holds it takes it for settled"
            } else {
                ""
            };
            format!("dropped {kind} {id} ({cause}) of {key}{held}\n")
        }
    })
}

#[derive(Serialize)]
struct ListView<'a> {
    asks: Vec<EntryView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marks: Option<Vec<EntryView<'a>>>,
    corrupt: Vec<String>,
    newer: Vec<String>,
    damaged: Vec<String>,
    unreadable: Vec<String>,
}

impl<'a> ListView<'a> {
    fn of(listing: &'a Listing, all: bool) -> Self {
        let said = |problems: &[Problem]| problems.iter().map(Problem::to_string).collect();
        Self {
            asks: listing.asks.iter().map(EntryView::of).collect(),
            marks: all.then(|| listing.marks.iter().map(EntryView::of).collect()),
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
    file: String,
}

impl<'a> EntryView<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self {
            kind: entry.kind,
            record: &entry.record,
            written: time(entry.record.at),
            held: entry.locked,
            file: entry.path.display().to_string(),
        }
    }
}

fn json(value: &impl Serialize) -> String {
    // Plain data: there is nothing in it that JSON can't say.
    serde_json::to_string_pretty(value).map_or_else(|error| format!("{error}\n"), |text| text + "\n")
}

fn table(dir: &Path, listing: &Listing, all: bool, now: WallMillis) -> String {
    let mut rows = vec![["ID", "KIND", "KEY", "CAUSE", "AGE", "HELD", "POD"].map(str::to_owned).to_vec()];
    for entry in listing.entries().filter(|entry| all || entry.kind == Kind::Ask) {
        let record = &entry.record;
        rows.push(vec![
            record.id.to_string(),
            kind(entry.kind).to_owned(),
            record.key.to_string(),
            cause(record).to_owned(),
            age(record.at, now),
            if entry.locked { "yes" } else { "no" }.to_owned(),
            record.pod.clone().unwrap_or_else(|| "-".to_owned()),
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
    lines.push(("listed", yes(record.listed).to_owned()));
    lines.extend(record.pod.clone().map(|pod| ("pod", pod)));
    lines.push(("held", yes(entry.locked).to_owned()));
    lines.push(("file", entry.path.display().to_string()));
    let rows: Vec<Vec<String>> =
        lines.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    columns(&rows)
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
            Limits, Spool,
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
            at: 1_700_000_000_000,
            pod: Some("scheduler-0".to_owned()),
        }
    }

    /// One ask, held, and one mark.
    fn with_two(test: impl FnOnce(&Path)) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), Limits::default()).unwrap();
        let what = What::SignOff { cause: Cause::PreStop, drain_until: Some(1_700_000_035_000) };
        spool.write_ask(&record(1, what)).unwrap();
        spool.write_mark(&record(2, What::Seen)).unwrap();
        test(dir.path());
    }

    #[test]
    fn the_list_shows_asks_and_with_all_marks_too() {
        with_two(|dir| {
            let table = list(dir, false, Format::Table, 1_700_000_125_000).unwrap();
            let lines: Vec<&str> = table.lines().collect();
            assert_eq!(lines.len(), 2, "{table}");
            assert_eq!(
                lines[1],
                "0000000000000001  ask   scheduler-0/10.0.0.7 in cluster 1  pre-stop  2m   yes   scheduler-0"
            );
            let table = list(dir, true, Format::Table, 1_700_000_125_000).unwrap();
            assert!(
                table.lines().nth(2).unwrap().contains("mark  scheduler-0/10.0.0.7 in cluster 1  seen"),
                "{table}"
            );
        });
    }

    #[test]
    fn the_list_as_json_names_everything() {
        with_two(|dir| {
            std::fs::write(dir.join("x.ask.json"), "").unwrap();
            let text = list(dir, true, Format::Json, 0).unwrap();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["asks"][0]["id"], "0000000000000001");
            assert_eq!(json["asks"][0]["cause"], "pre-stop");
            assert_eq!(json["asks"][0]["held"], true);
            assert_eq!(json["asks"][0]["written"], "2023-11-14T22:13:20.000Z");
            assert_eq!(json["marks"][0]["what"], "seen");
            assert!(json["damaged"][0].as_str().unwrap().contains("x.ask.json"));
        });
    }

    #[test]
    fn an_empty_queue_says_so_and_a_missing_spool_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let said = list(dir.path(), false, Format::Table, 0).unwrap();
        assert_eq!(said, format!("no pending sign-offs in {}\n", dir.path().display()));
        let error = list(&dir.path().join("none"), false, Format::Table, 0).unwrap_err();
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
            let said = drop(dir, "0000000000000001", Format::Table).unwrap();
            assert_eq!(
                said,
                "dropped ask 0000000000000001 (pre-stop) of scheduler-0/10.0.0.7 in cluster 1; the agent that holds it takes \
                 it for settled\n"
            );
            assert!(matches!(
                drop(dir, "0000000000000001", Format::Table),
                Err(SpoolError::UnknownId { .. })
            ));
            assert_eq!(spool::scan(dir).unwrap().entries().count(), 1);
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
