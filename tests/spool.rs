//! A spool as another process finds it: of another user, in a group, out of room, short of files.
//!
//! Apart from the spool's other tests: a process that is started holds the locks of the one that starts it until it is the other
//! program (`fork` before `exec`), so where processes are started a record may look taken that was just let go.
#![allow(clippy::unwrap_used, reason = "a test's helper that can't go on fails the test")]

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use signoff::{
    key::SchedulerKey,
    spool::{
        Limits, Spool, SpoolError,
        record::{Cause, Kind, Record, RecordId, What},
        scan,
    },
};
use tempfile::TempDir;

#[path = "record/mod.rs"]
mod record;

/// Held while a test starts a process, and while it has a spool open.
static STARTS: Mutex<()> = Mutex::new(());

fn key(n: u64) -> SchedulerKey {
    let hostname = format!("dragonfly-scheduler-{n}.scheduler.dragonfly.svc");
    SchedulerKey::new(1.try_into().unwrap(), hostname.parse().unwrap(), "10.0.0.1".parse().unwrap())
}

fn ask(n: u64, id: u64) -> Record {
    Record {
        id: RecordId(format!("{id:016x}")),
        address: Some((key(n).ip.get(), 8002).into()),
        key: key(n),
        what: What::SignOff { cause: Cause::PreStop, drain_until: None },
        listed: true,
        row_updated: None,
        registered: None,
        at: 1_700_000_000_000 + id,
        pod: None,
        managers: Default::default(),
    }
}

fn ids(records: &[(Kind, Record)]) -> Vec<(Kind, u64)> {
    records.iter().map(|(kind, r)| (*kind, u64::from_str_radix(&r.id.0, 16).unwrap())).collect()
}

/// What is in a spool, its lock aside.
fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    // Locks are never removed.
    names.filter(|name| !(name.starts_with("spool.") && name.ends_with(".lock"))).collect()
}

fn begin() -> (MutexGuard<'static, ()>, TempDir) {
    (STARTS.lock().unwrap_or_else(PoisonError::into_inner), tempfile::tempdir().unwrap())
}

/// Runs one ignored test of this binary in a process of its own, under `sh` with `before` done first.
fn alone(test: &str, uid: Option<u32>, before: &str, dir: &Path) {
    let binary = std::env::current_exe().unwrap();
    // Another user may not reach the build directory, but may run a copy.
    let copy = tempfile::tempdir().unwrap();
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let run = copy.path().join("tests");
    fs::copy(binary, &run).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            &format!("{before} exec \"$0\" --exact \"$1\" --ignored --nocapture"),
            &run.to_string_lossy(),
        ])
        .arg(test)
        .current_dir(copy.path())
        .env("SIGNOFF_TEST_DIR", dir);
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The directory that [`alone`] gave; none where the test was not run by it.
fn given() -> Option<PathBuf> {
    std::env::var_os("SIGNOFF_TEST_DIR").map(PathBuf::from)
}

fn nobody() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(65532)
}

#[test]
fn a_spool_that_may_not_be_written_names_the_path_the_user_and_the_cure() {
    let (_alone, dir) = begin();
    let spool = dir.path().join("spool");
    fs::create_dir(&spool).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o555)).unwrap();
    alone("may_not_write", nobody(), "", &spool);
}

#[test]
#[ignore = "run by a_spool_that_may_not_be_written_names_the_path_the_user_and_the_cure"]
fn may_not_write() {
    let Some(dir) = given() else { return };
    let error = Spool::open(&dir, Limits::default()).unwrap_err();
    let uid = rustix::process::geteuid().as_raw();
    assert!(matches!(error, SpoolError::Denied { uid: said, .. } if said == uid), "{error}");
    let text = error.to_string();
    assert!(text.contains(&dir.display().to_string()) && text.contains("fsGroup"), "{text}");
    assert!(text.contains(&format!("uid {uid}")), "{text}");
}

#[test]
fn a_directory_of_anothers_group_is_shared_by_its_group() {
    // As root prepares a hostPath: of another owner, and its group ours.
    if nobody().is_none() {
        eprintln!("skipped: only root can be two users");
        return;
    }
    let (_alone, dir) = begin();
    let spool = dir.path().join("spool");
    let mut ours = Spool::open(&spool, Limits::default()).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&spool, None, nobody()).unwrap();
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o2770)).unwrap();
    ours.write_ask(&ask(1, 1)).unwrap();
    drop(ours);
    std::os::unix::fs::chown(spool.join("spool.lock"), None, nobody()).unwrap();
    fs::set_permissions(spool.join("spool.lock"), fs::Permissions::from_mode(0o660)).unwrap();
    alone("shares_with_the_group", nobody(), "", &spool);
    assert_eq!(scan(&spool).unwrap().asks.len(), 1, "settled 1, wrote 2");
}

#[test]
#[ignore = "run by a_directory_of_anothers_group_is_shared_by_its_group"]
fn shares_with_the_group() {
    let Some(dir) = given() else { return };
    let mut spool = Spool::open(&dir, Limits::default()).unwrap();
    let adopted = spool.adopt_foreign(Some(&key(2))).unwrap().unwrap();
    assert_eq!((ids(&adopted.records), adopted.problems), (vec![(Kind::Ask, 1)], vec![]));
    spool.settle(&[ask(1, 1).id], false).unwrap();
    spool.write_ask(&ask(2, 2)).unwrap();
}

#[test]
fn an_unreadable_record_is_reported_and_the_rest_is_taken() {
    let (_alone, dir) = begin();
    let spool = dir.path().join("spool");
    let mut before = Spool::open(&spool, Limits::default()).unwrap();
    before.write_ask(&ask(1, 1)).unwrap();
    before.write_ask(&ask(1, 2)).unwrap();
    drop(before);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(&spool).unwrap() {
        let path = entry.unwrap().path();
        let theirs = path.to_string_lossy().contains(&ask(1, 1).id.0);
        fs::set_permissions(&path, fs::Permissions::from_mode(if theirs { 0o000 } else { 0o666 })).unwrap();
    }
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o777)).unwrap();
    alone("can_not_read_one", nobody(), "", &spool);
    assert_eq!(scan(&spool).unwrap().corrupt.len(), 0);
}

#[test]
#[ignore = "run by an_unreadable_record_is_reported_and_the_rest_is_taken"]
fn can_not_read_one() {
    let Some(dir) = given() else { return };
    assert_eq!(scan(&dir).unwrap().unreadable.len(), 1);
    let mut spool = Spool::open(&dir, Limits::default()).unwrap();
    let taken = spool.take_own(&key(1)).unwrap();
    assert_eq!(ids(&taken.records), [(Kind::Ask, 2)]);
    assert_eq!(taken.problems.len(), 1);
    assert!(taken.problems[0].why.contains("permission denied"), "{:?}", taken.problems);
}

#[test]
fn g1_a_write_that_the_disk_cuts_short_leaves_nothing_and_says_so() {
    let (_alone, dir) = begin();
    // No file may grow: every write fails as it does on a full disk, with an error that is a write's.
    alone("no_room", None, "trap '' XFSZ; ulimit -f 0;", dir.path());
    assert_eq!(files(dir.path()), [""; 0]);
}

#[test]
#[ignore = "run by g1_a_write_that_the_disk_cuts_short_leaves_nothing_and_says_so"]
fn no_room() {
    let Some(dir) = given() else { return };
    let mut spool = Spool::open(&dir, Limits::default()).unwrap();
    for _ in 0..2 {
        let error = spool.write_ask(&ask(1, 1)).unwrap_err();
        assert!(matches!(error, SpoolError::NoSpace { .. }), "{error}");
        assert!(error.to_string().contains(&dir.display().to_string()), "{error}");
    }
    assert_eq!(spool.held().count(), 0);
}

#[test]
fn more_asks_than_files_may_be_open_are_adopted_in_turns() {
    let (_alone, dir) = begin();
    for n in 0..100 {
        record::write_ask(dir.path(), 1, &key(n + 1), n, "10.0.0.1:8002", 1_700_000_000_000, &[]).unwrap();
    }
    alone("few_files", None, "ulimit -n 64;", dir.path());
    assert_eq!(files(dir.path()), [""; 0]);
}

#[test]
#[ignore = "run by more_asks_than_files_may_be_open_are_adopted_in_turns"]
fn few_files() {
    let Some(dir) = given() else { return };
    let mut spool = Spool::open(&dir, Limits::default()).unwrap();
    let mut turns = 0;
    loop {
        let taken = spool.adopt_foreign(None).unwrap().unwrap();
        assert!(taken.problems.is_empty(), "{:?}", taken.problems);
        let ids: Vec<RecordId> = taken.records.iter().map(|(_, record)| record.id.clone()).collect();
        assert!(!ids.is_empty() && ids.len() <= 32, "{}", ids.len());
        spool.settle(&ids, false).unwrap();
        turns += 1;
        if !taken.more {
            break;
        }
    }
    assert!(turns >= 4, "{turns}");
}
