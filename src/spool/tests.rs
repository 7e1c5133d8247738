use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    format::{self, FileName},
    record::{Cause, Kind, Record, RecordId, What},
    *,
};
use crate::key::SchedulerKey;

mod damage;
mod faults;
mod kept;
mod model;
mod sharing;
mod whose;

fn key(n: u64) -> SchedulerKey {
    let ip = format!("10.0.{}.{}", n / 256, n % 256);
    SchedulerKey::new(
        1.try_into().unwrap(),
        format!("dragonfly-scheduler-{n}.scheduler.dragonfly.svc").parse().unwrap(),
        ip.parse().unwrap(),
    )
}

fn record(key: SchedulerKey, id: u64, what: What) -> Record {
    Record {
        id: RecordId(format!("{id:016x}")),
        address: Some((key.ip.get(), 8002).into()),
        key,
        what,
        listed: true,
        row_updated: None,
        registered: None,
        at: 1_700_000_000_000 + id,
        pod: Some("dragonfly-scheduler-0".to_owned()),
        managers: Default::default(),
    }
}

fn ask(n: u64, id: u64) -> Record {
    record(key(n), id, What::SignOff { cause: Cause::PreStop, drain_until: Some(1_700_000_035_000) })
}

fn seen(n: u64, id: u64) -> Record {
    record(key(n), id, What::Seen)
}

fn open(dir: &TempDir) -> Spool {
    Spool::open(dir.path(), Limits::default()).unwrap()
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn ids(records: &[(Kind, Record)]) -> Vec<(Kind, u64)> {
    records.iter().map(|(kind, r)| (*kind, u64::from_str_radix(&r.id.0, 16).unwrap())).collect()
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with(".lock"));
    names.sort();
    names
}

fn path_of(dir: &TempDir, kind: Kind, record: &Record) -> PathBuf {
    dir.path().join(FileName::of(kind, record).to_string())
}

#[test]
fn an_ask_is_read_back_as_it_was_written() {
    let dir = dir();
    let records = [ask(1, 1), record(key(1), 2, What::SignOff { cause: Cause::Down, drain_until: None })];
    let mut first = open(&dir);
    for record in &records {
        first.write_ask(record).unwrap();
    }
    first.write_mark(&seen(1, 3)).unwrap();
    drop(first);
    let taken = open(&dir).take_own(&key(1)).unwrap();
    assert_eq!(taken.problems, []);
    let expected =
        [(Kind::Ask, records[0].clone()), (Kind::Ask, records[1].clone()), (Kind::Mark, seen(1, 3))];
    assert_eq!(taken.records, expected);
}

#[test]
fn a_file_is_one_line_with_a_checksum_over_what_follows_it() {
    let dir = dir();
    open(&dir).write_ask(&ask(1, 1)).unwrap();
    let text = fs::read_to_string(path_of(&dir, Kind::Ask, &ask(1, 1))).unwrap();
    assert_eq!(text.lines().count(), 1);
    let (head, rest) = text.split_at(20);
    assert_eq!(head, format!("{{\"crc32\":\"{:08x}\",", crc32fast::hash(rest.as_bytes())));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["version"], 1);
    assert_eq!(json["record"]["what"], "sign-off");
    assert_eq!(json["record"]["key"]["hostname"], key(1).hostname.as_str());
}

#[test]
fn the_files_of_version_1_are_read() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/spool-v1");
    let dir = dir();
    for name in files(&committed) {
        fs::copy(committed.join(&name), dir.path().join(&name)).unwrap();
    }
    let listing = scan(dir.path()).unwrap();
    assert_eq!(
        (listing.problems.len(), listing.newer.len(), listing.unreadable.len()),
        (0, 0, 0),
        "{listing:?}"
    );
    let read: Vec<(Kind, Record)> = listing.entries().map(|e| (e.kind, e.record.clone())).collect();
    assert_eq!(read, version_1());
}

/// What tests/fixtures/spool-v1 holds: every cause and every kind of mark, with and without what is optional.
fn version_1() -> Vec<(Kind, Record)> {
    let sign_off = |cause, drain_until| What::SignOff { cause, drain_until };
    let ipv6 =
        SchedulerKey::new(7.try_into().unwrap(), "scheduler-0".parse().unwrap(), "fd00::10".parse().unwrap());
    let mut bare = record(ipv6, 0x16, What::Held);
    bare.address = None;
    bare.pod = None;
    bare.listed = false;
    vec![
        (Kind::Ask, ask(1, 0x10)),
        (Kind::Ask, record(key(1), 0x11, sign_off(Cause::Sigterm, None))),
        (Kind::Ask, record(key(2), 0x12, sign_off(Cause::Down, None))),
        (Kind::Ask, record(key(2), 0x13, sign_off(Cause::Revived, None))),
        (Kind::Ask, record(key(3), 0x14, sign_off(Cause::Predecessor, None))),
        (Kind::Mark, record(key(4), 0x15, sign_off(Cause::Sigterm, None))),
        (Kind::Mark, bare),
        (Kind::Mark, seen(5, 0x17)),
    ]
}

/// Writes the fixture of the version that this release writes: `SIGNOFF_WRITE_FIXTURE=1 cargo test --lib
/// write_the_fixture -- --ignored`.
#[test]
#[ignore = "writes tests/fixtures; run by hand for a new version"]
fn write_the_fixture() {
    if std::env::var_os("SIGNOFF_WRITE_FIXTURE").is_none() {
        return;
    }
    let committed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/spool-v{}", format::VERSION));
    fs::create_dir_all(&committed).unwrap();
    for (kind, record) in version_1() {
        let path = committed.join(FileName::of(kind, &record).to_string());
        fs::write(path, format::encode(&record).unwrap()).unwrap();
    }
}

#[test]
fn fields_of_a_later_release_are_passed_over() {
    let dir = dir();
    let bytes = format::encode(&ask(1, 1)).unwrap();
    let body = String::from_utf8(bytes[20..].to_vec()).unwrap();
    let body = body.replace("\"listed\":true", "\"listed\":true,\"mood\":{\"a\":[1]}");
    assert!(body.contains("mood"));
    let text = format!("{{\"crc32\":\"{:08x}\",{body}", crc32fast::hash(body.as_bytes()));
    fs::write(path_of(&dir, Kind::Ask, &ask(1, 1)), text).unwrap();
    assert_eq!(open(&dir).take_own(&key(1)).unwrap().records, [(Kind::Ask, ask(1, 1))]);
}

#[test]
fn g1_settling_leaves_the_newest_ask_as_the_only_mark_of_a_sign_off() {
    let dir = dir();
    let mut spool = open(&dir);
    spool.write_mark(&seen(1, 9)).unwrap();
    spool.write_ask(&ask(1, 1)).unwrap();
    let settled = spool.settle(&[ask(1, 1).id], true).unwrap();
    assert_eq!(settled, Settled { marked: vec![ask(1, 1).id], vanished: vec![] });
    for id in [2, 3, 4] {
        spool.write_ask(&ask(1, id)).unwrap();
    }
    // The one asked after the confirmed attempt began stays.
    spool.settle(&[ask(1, 3).id, ask(1, 2).id], true).unwrap();
    drop(spool);
    let left = open(&dir).take_own(&key(1)).unwrap().records;
    assert_eq!(ids(&left), [(Kind::Mark, 3), (Kind::Ask, 4), (Kind::Mark, 9)]);
}

#[test]
fn settling_without_a_mark_removes_the_asks() {
    let dir = dir();
    let mut spool = open(&dir);
    for id in [1, 2] {
        spool.write_ask(&ask(1, id)).unwrap();
    }
    spool.settle(&[ask(1, 1).id, ask(1, 2).id], false).unwrap();
    assert_eq!(files(dir.path()), [""; 0]);
    assert_eq!(spool.held().count(), 0);
}

#[test]
fn g6_settling_twice_or_something_unknown_changes_nothing() {
    let dir = dir();
    let mut spool = open(&dir);
    spool.write_ask(&ask(1, 1)).unwrap();
    spool.settle(&[ask(1, 1).id], true).unwrap();
    let before = files(dir.path());
    assert_eq!(
        spool.settle(&[ask(1, 1).id, RecordId("../../etc".to_owned())], true).unwrap(),
        Settled::default()
    );
    assert_eq!(files(dir.path()), before);
}

#[test]
fn settling_several_keys_leaves_a_mark_of_each() {
    let dir = dir();
    let mut spool = open(&dir);
    spool.write_ask(&ask(1, 1)).unwrap();
    spool.settle(&[ask(1, 1).id], true).unwrap();
    spool.write_ask(&ask(2, 2)).unwrap();
    spool.write_ask(&ask(3, 3)).unwrap();
    fs::remove_file(path_of(&dir, Kind::Ask, &ask(3, 3))).unwrap();
    spool.write_ask(&ask(1, 4)).unwrap();
    let settled = spool.settle(&[ask(1, 4).id, ask(3, 3).id, ask(2, 2).id], true).unwrap();
    assert_eq!(settled.vanished, [ask(3, 3).id]);
    let marks: Vec<u64> = scan(dir.path()).unwrap().marks.iter().map(|e| e.record.at % 1000).collect();
    assert_eq!(marks, [2, 4]);
}

#[test]
fn an_ask_dropped_by_hand_is_seen_as_vanished_and_settles_without_complaint() {
    let dir = dir();
    let mut spool = open(&dir);
    for id in [1, 2] {
        spool.write_ask(&ask(1, id)).unwrap();
    }
    let asked = [ask(1, 1).id, ask(1, 2).id];
    assert_eq!(spool.vanished(&asked), []);
    let dropped = drop_record(dir.path(), &ask(1, 2).id.0).unwrap();
    assert_eq!((dropped.record, dropped.locked), (ask(1, 2), true));
    assert_eq!(spool.vanished(&asked), [ask(1, 2).id]);
    let settled = spool.settle(&asked, true).unwrap();
    assert_eq!(settled, Settled { marked: vec![ask(1, 1).id], vanished: vec![ask(1, 2).id] });
    assert_eq!(files(dir.path()).len(), 1);
}

#[test]
fn dropping_an_unknown_id_says_so_and_does_nothing() {
    let dir = dir();
    open(&dir).write_ask(&ask(1, 1)).unwrap();
    let before = files(dir.path());
    for id in ["", "00", "0000000000000002", "../spool.lock", &format!("{}x", ask(1, 1).id)] {
        let said = drop_record(dir.path(), id).unwrap_err().to_string();
        assert!(said.contains(&format!("{id:?}")) && said.contains("queue list"), "{said}");
    }
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_mark_takes_the_place_of_the_older_one_of_its_kind_alone() {
    let dir = dir();
    let mut spool = open(&dir);
    spool.write_mark(&seen(1, 1)).unwrap();
    spool.write_mark(&record(key(1), 2, What::Held)).unwrap();
    spool.write_mark(&seen(2, 3)).unwrap();
    spool.write_mark(&seen(1, 4)).unwrap();
    let marks: Vec<u64> = scan(dir.path()).unwrap().marks.iter().map(|e| e.record.at % 1000).collect();
    assert_eq!(marks, [2, 3, 4]);
    spool.drop_marks(&key(1), Marks::Held).unwrap();
    spool.drop_marks(&key(1), Marks::SignOff).unwrap();
    let marks: Vec<u64> = scan(dir.path()).unwrap().marks.iter().map(|e| e.record.at % 1000).collect();
    assert_eq!(marks, [3, 4]);
    spool.drop_marks(&key(1), Marks::All).unwrap();
    spool.drop_marks(&key(2), Marks::Seen).unwrap();
    assert_eq!(files(dir.path()), [""; 0]);
}

#[test]
fn a_full_spool_refuses_with_the_bound_and_takes_more_once_there_is_room() {
    let dir = dir();
    let mut spool = Spool::open(dir.path(), Limits { records: 2, ..Limits::default() }).unwrap();
    spool.write_ask(&ask(1, 1)).unwrap();
    spool.write_mark(&seen(1, 2)).unwrap();
    let error = spool.write_ask(&ask(1, 3)).unwrap_err();
    assert!(matches!(error, SpoolError::Full { count: 2, bound: 2, .. }), "{error}");
    assert!(error.to_string().contains(&dir.path().display().to_string()));
    // One that is there already is no further one, and settling needs no room.
    spool.write_ask(&ask(1, 1)).unwrap();
    spool.settle(&[ask(1, 1).id], true).unwrap();
    spool.drop_marks(&key(1), Marks::Seen).unwrap();
    spool.write_ask(&ask(1, 3)).unwrap();
}

#[test]
fn an_id_that_is_no_id_is_refused_before_a_path_is_made_of_it() {
    let dir = dir();
    let mut spool = open(&dir);
    for id in ["", "../../x", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0"] {
        let mut bad = ask(1, 1);
        bad.id = RecordId(id.to_owned());
        let error = spool.write_ask(&bad).unwrap_err();
        assert!(matches!(error, SpoolError::BadId { .. }) && error.to_string().contains(id), "{error}");
    }
    let error = spool.write_ask(&seen(1, 1)).unwrap_err();
    assert!(error.to_string().contains("only a sign-off can be asked"), "{error}");
    assert_eq!(files(dir.path()), [""; 0]);
}

#[test]
fn a_missing_directory_is_made_and_a_file_in_its_place_is_named() {
    let dir = dir();
    let deep = dir.path().join("a/b");
    Spool::open(&deep, Limits::default()).unwrap().write_ask(&ask(1, 1)).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for wrong in [file.clone(), file.join("spool")] {
        let error = Spool::open(&wrong, Limits::default()).unwrap_err();
        assert!(matches!(error, SpoolError::NotADirectory { .. }), "{error}");
        assert!(error.to_string().contains("file"), "{error}");
    }
    let error = scan(&dir.path().join("none")).unwrap_err();
    assert!(matches!(error, SpoolError::Missing { .. }), "{error}");
}

#[test]
fn g1_a_directory_removed_under_the_spool_is_made_again_with_all_that_is_held() {
    let dir = dir();
    let at = dir.path().join("spool");
    let mut spool = Spool::open(&at, Limits::default()).unwrap();
    spool.write_ask(&ask(1, 1)).unwrap();
    spool.write_mark(&seen(1, 3)).unwrap();
    fs::remove_dir_all(&at).unwrap();
    assert_eq!(spool.vanished(&[ask(1, 1).id]), [], "nobody dropped it");
    spool.write_ask(&ask(1, 2)).unwrap();
    assert!(spool.adopt_foreign(None).unwrap().is_some());
    let listing = scan(&at).unwrap();
    assert_eq!((listing.asks.len(), listing.marks.len()), (2, 1));
    // With all of it there again a missing name is a drop.
    fs::remove_file(at.join(FileName::of(Kind::Ask, &ask(1, 1)).to_string())).unwrap();
    assert_eq!(spool.vanished(&[ask(1, 1).id, ask(1, 2).id]), [ask(1, 1).id]);
}

#[test]
fn where_the_directorys_group_may_write_it_may_write_the_records() {
    let dir = dir();
    for (directory, file) in [(0o2770, 0o660), (0o700, 0o640)] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(directory)).unwrap();
        let mut spool = open(&dir);
        let record = ask(1, u64::from(directory));
        spool.write_ask(&record).unwrap();
        let mode = fs::metadata(path_of(&dir, Kind::Ask, &record)).unwrap().mode() & 0o777;
        // The umask may only take from the second.
        assert!(mode == file || (file == 0o640 && mode & !0o660 == 0), "{mode:o} in {directory:o}");
    }
    assert_eq!(fs::metadata(dir.path().join("spool.lock")).unwrap().mode() & 0o060, 0o060);
}

#[test]
fn looking_at_a_spool_changes_nothing() {
    let dir = dir();
    let mut spool = open(&dir);
    spool.write_ask(&ask(1, 1)).unwrap();
    fs::write(path_of(&dir, Kind::Ask, &ask(2, 2)), "torn").unwrap();
    fs::write(dir.path().join("x.ask.json"), "").unwrap();
    fs::write(dir.path().join("lost+found"), "").unwrap();
    fs::write(dir.path().join("old.ask.json.corrupt"), "").unwrap();
    let before = files(dir.path());
    let listing = spool.scan().unwrap();
    assert_eq!(files(dir.path()), before);
    assert_eq!((listing.asks.len(), listing.problems.len(), listing.corrupt.len()), (1, 2, 1));
    assert!(listing.asks[0].locked);
    drop(spool);
    assert!(!scan(dir.path()).unwrap().asks[0].locked);
}
