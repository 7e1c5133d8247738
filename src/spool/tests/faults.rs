use std::{
    fs::TryLockError,
    io,
    os::unix::process::CommandExt,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::*;
use crate::spool::files::{File, FileSystem, Files, How, OpenFile, Stat};

/// What is fsynced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Synced {
    File,
    Directory,
}

/// What can't be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unseen {
    Path,
    OpenFile,
}

/// A spool whose fsyncs are counted, and fail at will; looks too.
pub(super) struct Syncs {
    pub(super) done: Vec<Synced>,
    pub(super) fail: Option<(Synced, i32)>,
    pub(super) unseen: Option<Unseen>,
    /// So many more listings of the directory succeed.
    pub(super) listings: usize,
    /// No name can be made, changed or removed.
    pub(super) no_names: bool,
}

impl Syncs {
    /// Counts it; done is what `sync` does.
    fn count(&mut self, what: Synced, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.done.push(what);
        match self.fail {
            Some((which, errno)) if which == what => Err(io::Error::from_raw_os_error(errno)),
            _ => sync(),
        }
    }

    fn name(&self) -> io::Result<()> {
        if self.no_names { Err(rustix::io::Errno::IO.into()) } else { Ok(()) }
    }

    fn look(&self, at: Unseen) -> io::Result<()> {
        if self.unseen == Some(at) { Err(rustix::io::Errno::IO.into()) } else { Ok(()) }
    }
}

/// The real files, with their fsyncs watched.
struct Watched(Arc<Mutex<Syncs>>);

impl FileSystem for Watched {
    /// A process that another test starts has a dead spool's files, and their locks, until it runs its own program: many tests at
    /// once make that longer than a look takes.
    fn wait(&self, duration: Duration) {
        std::thread::sleep(duration * 20);
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.0.lock().unwrap().look(Unseen::Path)?;
        Files::Real.link_stat(path)
    }

    fn make_directory(&self, dir: &Path) -> io::Result<()> {
        Files::Real.make_directory(dir)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut syncs = self.0.lock().unwrap();
        match syncs.listings.checked_sub(1) {
            Some(left) => syncs.listings = left,
            None => return Err(rustix::io::Errno::IO.into()),
        }
        Files::Real.names(dir)
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn OpenFile>> {
        if how == How::New {
            self.0.lock().unwrap().name()?;
        }
        let file = Files::Real.open(path, how)?;
        Ok(Box::new(WatchedFile { file, syncs: Arc::clone(&self.0) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.lock().unwrap().name()?;
        Files::Real.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().unwrap().name()?;
        Files::Real.remove(path)
    }

    fn sync_directory(&self, dir: &Path) -> io::Result<()> {
        self.0.lock().unwrap().count(Synced::Directory, || Files::Real.sync_directory(dir))
    }
}

struct WatchedFile {
    file: File,
    syncs: Arc<Mutex<Syncs>>,
}

impl OpenFile for WatchedFile {
    fn stat(&self) -> io::Result<Stat> {
        self.syncs.lock().unwrap().look(Unseen::OpenFile)?;
        self.file.stat()
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn read(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        self.file.read(limit)
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.lock().unwrap().count(Synced::File, || self.file.sync())
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        self.file.try_lock()
    }

    fn try_lock_shared(&self) -> Result<(), TryLockError> {
        self.file.try_lock_shared()
    }

    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }
}

pub(super) fn watched(dir: &TempDir) -> (Spool, Arc<Mutex<Syncs>>) {
    let syncs = Arc::new(Mutex::new(Syncs {
        done: Vec::new(),
        fail: None,
        unseen: None,
        listings: usize::MAX,
        no_names: false,
    }));
    let files = Files::Other(Arc::new(Watched(Arc::clone(&syncs))));
    let spool = Spool::open_on(files, dir.path().to_owned(), Limits::default()).unwrap();
    (spool, syncs)
}

#[test]
fn g1_an_ask_costs_two_fsyncs_and_settling_a_batch_one() {
    let dir = dir();
    let (mut spool, syncs) = watched(&dir);
    let count = |syncs: &Mutex<Syncs>| std::mem::take(&mut syncs.lock().unwrap().done);
    spool.write_ask(&ask(1, 1)).unwrap();
    assert_eq!(count(&syncs), [Synced::File, Synced::Directory]);
    spool.write_ask(&ask(1, 1)).unwrap();
    assert_eq!(count(&syncs), []);
    for id in 2..10 {
        spool.write_ask(&ask(1, id)).unwrap();
    }
    count(&syncs);
    let all: Vec<RecordId> = (1..10).map(|id| ask(1, id).id).collect();
    spool.settle(&all, true).unwrap();
    assert_eq!(count(&syncs), [Synced::Directory]);
    spool.settle(&all, true).unwrap();
    assert_eq!(count(&syncs), []);
    spool.write_mark(&seen(1, 20)).unwrap();
    count(&syncs);
    spool.write_mark(&seen(1, 21)).unwrap();
    assert_eq!(count(&syncs), [Synced::File, Synced::Directory]);
    spool.drop_marks(&key(1), Marks::All).unwrap();
    assert_eq!(count(&syncs), [Synced::Directory]);
    spool.drop_marks(&key(1), Marks::All).unwrap();
    assert_eq!(count(&syncs), []);
}

#[test]
fn g1_after_a_failed_fsync_nothing_is_left_and_the_next_try_is_a_new_file() {
    for failing in [Synced::File, Synced::Directory] {
        let dir = dir();
        let (mut spool, syncs) = watched(&dir);
        spool.write_ask(&ask(1, 1)).unwrap();
        syncs.lock().unwrap().fail = Some((failing, 5));
        let error = spool.write_ask(&ask(1, 2)).unwrap_err();
        assert!(matches!(error, SpoolError::Io { .. }) && error.to_string().contains("fsync"), "{error}");
        assert_eq!(files(dir.path()), [FileName::of(Kind::Ask, &ask(1, 1)).to_string()]);
        assert_eq!(spool.held().count(), 1);
        syncs.lock().unwrap().fail = None;
        syncs.lock().unwrap().done.clear();
        spool.write_ask(&ask(1, 2)).unwrap();
        assert_eq!(syncs.lock().unwrap().done, [Synced::File, Synced::Directory]);
        drop(spool);
        assert_eq!(open(&dir).take_own(&key(1)).unwrap().records.len(), 2);
    }
}

#[test]
fn an_ask_that_can_not_be_looked_at_is_reported_and_taken_once_it_can() {
    for unseen in [Unseen::Path, Unseen::OpenFile] {
        let dir = dir();
        open(&dir).write_ask(&ask(1, 1)).unwrap();
        let (mut spool, syncs) = watched(&dir);
        syncs.lock().unwrap().unseen = Some(unseen);
        let taken = spool.take_own(&key(1)).unwrap();
        assert_eq!((ids(&taken.records), taken.unreadable), (vec![], 1), "{unseen:?}");
        assert!(taken.problems[0].why.contains("look at it"), "{:?}", taken.problems);
        syncs.lock().unwrap().unseen = None;
        assert_eq!(ids(&spool.take_own(&key(1)).unwrap().records), [(Kind::Ask, 1)], "{unseen:?}");
    }
}

#[test]
fn an_ask_that_can_not_be_looked_at_was_dropped_by_nobody() {
    let dir = dir();
    let (mut spool, syncs) = watched(&dir);
    spool.write_ask(&ask(1, 1)).unwrap();
    let held = [ask(1, 1).id];
    for unseen in [Unseen::Path, Unseen::OpenFile] {
        syncs.lock().unwrap().unseen = Some(unseen);
        assert_eq!(spool.vanished(&held), [], "{unseen:?}");
    }
    syncs.lock().unwrap().unseen = None;
    fs::remove_file(path_of(&dir, Kind::Ask, &ask(1, 1))).unwrap();
    assert_eq!(spool.vanished(&held), held);
}

#[test]
fn g1_a_settling_whose_fsync_failed_is_made_good_by_the_next_try() {
    let dir = dir();
    let (mut spool, syncs) = watched(&dir);
    spool.write_ask(&ask(1, 1)).unwrap();
    syncs.lock().unwrap().fail = Some((Synced::Directory, 5));
    let error = spool.settle(&[ask(1, 1).id], true).unwrap_err();
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    syncs.lock().unwrap().fail = None;
    syncs.lock().unwrap().done.clear();
    spool.settle(&[ask(1, 1).id], true).unwrap();
    assert_eq!(syncs.lock().unwrap().done, [Synced::Directory]);
    assert_eq!(scan(dir.path()).unwrap().marks.len(), 1);
}

#[test]
fn g6_what_the_disk_refused_to_settle_is_offered_to_it_again() {
    for keep_as_mark in [true, false] {
        for dropped in [false, true] {
            let dir = dir();
            let (mut spool, syncs) = watched(&dir);
            spool.write_ask(&ask(1, 1)).unwrap();
            spool.write_ask(&ask(1, 2)).unwrap();
            syncs.lock().unwrap().no_names = true;
            spool.settle(&[ask(1, 1).id, ask(1, 2).id], keep_as_mark).unwrap_err();
            assert!(spool.owes());
            spool.make_good().unwrap_err();
            assert!(spool.owes());
            if dropped {
                spool.drop_marks(&key(1), Marks::SignOff).unwrap();
            }
            syncs.lock().unwrap().no_names = false;
            spool.make_good().unwrap();
            assert!(!spool.owes());
            let listing = scan(dir.path()).unwrap();
            let marks = usize::from(keep_as_mark && !dropped);
            assert_eq!((listing.asks.len(), listing.marks.len()), (0, marks), "{keep_as_mark} {dropped}");
        }
    }
}

#[test]
fn g6_a_mark_that_the_disk_refused_is_offered_to_it_again_unless_another_took_its_place_or_it_is_dropped() {
    let refused = |then: &dyn Fn(&mut Spool, &Mutex<Syncs>)| {
        let dir = dir();
        let (mut spool, syncs) = watched(&dir);
        syncs.lock().unwrap().no_names = true;
        spool.write_mark(&seen(1, 1)).unwrap_err();
        then(&mut spool, &syncs);
        syncs.lock().unwrap().no_names = false;
        spool.make_good().unwrap();
        assert!(!spool.owes());
        let listing = scan(dir.path()).unwrap();
        listing.marks.into_iter().map(|entry| entry.record).collect::<Vec<_>>()
    };
    assert_eq!(refused(&|_, _| ()), [seen(1, 1)]);
    assert_eq!(refused(&|spool, _| spool.write_mark(&seen(1, 2)).map_or((), drop)), [seen(1, 2)]);
    assert_eq!(refused(&|spool, _| spool.drop_marks(&key(1), Marks::Seen).unwrap()), []);
    assert_eq!(refused(&|spool, _| spool.release_with_marks(&[], &key(1))), []);
}

#[test]
fn g1_what_is_taken_from_a_dead_process_is_on_disk_before_anything_is_done_for_it() {
    for own in [true, false] {
        let dir = dir();
        open(&dir).write_ask(&ask(1, 1)).unwrap();
        let (mut spool, syncs) = watched(&dir);
        let take = |spool: &mut Spool| match own {
            true => spool.take_own(&key(1)).unwrap(),
            false => spool.adopt_foreign(None).unwrap().unwrap(),
        };
        assert_eq!(ids(&take(&mut spool).records), [(Kind::Ask, 1)]);
        assert_eq!(syncs.lock().unwrap().done, [Synced::Directory]);
        assert_eq!(ids(&take(&mut spool).records), []);
        assert_eq!(syncs.lock().unwrap().done.len(), 1, "nothing was taken");
        // One that can't be made sure of is taken all the same, and said.
        spool.release(&[ask(1, 1).id]);
        syncs.lock().unwrap().fail = Some((Synced::Directory, 5));
        let taken = take(&mut spool);
        assert_eq!((ids(&taken.records), taken.problems.len()), (vec![(Kind::Ask, 1)], 1));
        assert!(spool.owes());
    }
}

#[test]
fn g1_what_was_taken_is_said_though_the_disk_refuses_the_rest() {
    for listings in 0..6 {
        let dir = dir();
        open(&dir).write_ask(&ask(1, 1)).unwrap();
        let (mut spool, syncs) = watched(&dir);
        syncs.lock().unwrap().listings = listings;
        let first = spool.adopt_foreign(None).map_or(Vec::new(), |taken| ids(&taken.unwrap().records));
        syncs.lock().unwrap().listings = usize::MAX;
        let second = ids(&spool.adopt_foreign(None).unwrap().unwrap().records);
        assert_eq!([first, second].concat(), [(Kind::Ask, 1)], "{listings}");
    }
}

#[test]
fn a_look_that_finds_nothing_lists_the_directory_once() {
    let dir = dir();
    let (mut spool, syncs) = watched(&dir);
    spool.write_mark(&seen(1, 1)).unwrap();
    open(&dir).write_mark(&seen(2, 2)).unwrap();
    syncs.lock().unwrap().listings = 1;
    assert!(spool.adopt(&key(1)).unwrap().is_nothing());
    syncs.lock().unwrap().listings = 0;
    spool.adopt(&key(1)).unwrap_err();
}

#[test]
fn each_refusal_of_the_disk_says_what_it_is_and_where() {
    for (errno, label, said) in [
        (rustix::io::Errno::ACCESS, "denied", "fsGroup"),
        (rustix::io::Errno::PERM, "denied", "uid"),
        (rustix::io::Errno::NOSPC, "no-space", "no space"),
        (rustix::io::Errno::DQUOT, "no-space", "no space"),
        (rustix::io::Errno::ROFS, "read-only", "read-only"),
        (rustix::io::Errno::IO, "io", "fsync"),
        (rustix::io::Errno::NOTDIR, "not-a-directory", "is a directory"),
    ] {
        let error = SpoolError::at("fsync it", Path::new("/var/lib/signoff/x"))(errno.into());
        assert_eq!(error.label(), label);
        let text = error.to_string();
        assert!(text.contains("/var/lib/signoff/x") && text.contains(said), "{text}");
    }
}

/// Runs one ignored test of this binary in a process of its own, under `sh` with `before` done first.
fn alone(test: &str, uid: Option<u32>, before: &str, dir: &Path) {
    let binary = std::env::current_exe().unwrap();
    // Another user may not reach the build directory, but may run a copy.
    let copy = tempfile::tempdir().unwrap();
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let run = copy.path().join("tests");
    // By a process of its own: a file that this one has open for writing, while another test forks, can't be run for as long
    // as that fork holds it too (ETXTBSY).
    assert!(Command::new("cp").arg(binary).arg(&run).status().unwrap().success());
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            &format!("{before} exec \"$0\" --exact \"$1\" --ignored --nocapture"),
            &run.to_string_lossy(),
        ])
        .arg(format!("spool::tests::faults::{test}"))
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
    let dir = dir();
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
    let dir = dir();
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
    let dir = dir();
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
    let dir = dir();
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
    let dir = dir();
    for n in 0..100 {
        let record = ask(n + 1, n);
        fs::write(path_of(&dir, Kind::Ask, &record), format::encode(&record).unwrap()).unwrap();
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
