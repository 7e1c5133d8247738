use std::{
    fs::TryLockError,
    io,
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
    /// This path can't be looked at.
    pub(super) no_look_at: Option<PathBuf>,
    pub(super) looks_fail_with: rustix::io::Errno,
    /// A copy gets this file's name right after it was opened, once.
    pub(super) copy_once_opened: Option<PathBuf>,
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
        if self.unseen == Some(at) { Err(self.looks_fail_with.into()) } else { Ok(()) }
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
        let syncs = self.0.lock().unwrap();
        syncs.look(Unseen::Path)?;
        if syncs.no_look_at.as_deref() == Some(path) {
            return Err(syncs.looks_fail_with.into());
        }
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
        let copied = self.0.lock().unwrap().copy_once_opened.take_if(|copied| copied == path);
        if let Some(path) = copied {
            fs::copy(&path, path.with_extension("copy")).unwrap();
            fs::rename(path.with_extension("copy"), path).unwrap();
        }
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
    watched_in(dir.path())
}

pub(super) fn watched_in(dir: &Path) -> (Spool, Arc<Mutex<Syncs>>) {
    let syncs = Arc::new(Mutex::new(Syncs {
        done: Vec::new(),
        fail: None,
        unseen: None,
        no_look_at: None,
        looks_fail_with: rustix::io::Errno::IO,
        copy_once_opened: None,
        listings: usize::MAX,
        no_names: false,
    }));
    let files = Files::Other(Arc::new(Watched(Arc::clone(&syncs))));
    let spool = Spool::open_on(files, dir.to_owned(), Limits::default()).unwrap();
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
