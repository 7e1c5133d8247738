//! Writing, settling and forgetting records.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
};

use super::{
    error::SpoolError,
    files::{File, Files, How},
    format::{self, FileName},
    place::{make_directory, open_lock, share_with_group},
    record::{Kind, Record, RecordId, What},
    scan::{self, Access, Listing, Name, Opened},
};
use crate::key::SchedulerKey;

/// How much a spool may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Asks and marks, of all its users together.
    pub records: usize,
    /// Records that a process holds when it takes no more asks of other keys: each is some kilobytes of its memory.
    pub foreign: usize,
}

impl Default for Limits {
    /// 16,384 records, 4,096 of them held for others.
    fn default() -> Self {
        Self { records: 16_384, foreign: 4096 }
    }
}

/// Which marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Marks {
    /// Of sign-offs made.
    SignOff,
    /// Of where the scheduler served.
    Seen,
    /// Of holds.
    Held,
    /// All.
    All,
}

impl Marks {
    fn include(self, what: &What) -> bool {
        match self {
            Marks::All => true,
            Marks::SignOff => matches!(what, What::SignOff { .. }),
            Marks::Seen => *what == What::Seen,
            Marks::Held => *what == What::Held,
        }
    }

    fn of(what: &What) -> Self {
        match what {
            What::SignOff { .. } => Marks::SignOff,
            What::Seen => Marks::Seen,
            What::Held => Marks::Held,
        }
    }
}

/// How many files are opened to count them: thousands would keep others from the disk.
const READ_TO_COUNT: usize = 256;

/// How many files of each kind a spool has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Asks that can be read.
    pub asks: u64,
    /// Marks that can be read.
    pub marks: u64,
    /// Damaged files that were set aside.
    pub corrupt: u64,
    /// Records of a version that this release doesn't know.
    pub newer: u64,
}

/// What settling did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// The asks that are marks now.
    pub marked: Vec<RecordId>,
    /// The asks that were gone already: somebody dropped them by hand.
    pub vanished: Vec<RecordId>,
}

/// A record that this process holds: its file is open, and locked where the file system has locks.
pub(super) struct Held {
    pub(super) file: File,
    pub(super) kind: Kind,
    pub(super) record: Record,
    /// Grows with each record taken or written: which of two asks is newer.
    pub(super) order: u64,
}

impl Held {
    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(FileName::of(self.kind, &self.record).to_string())
    }
}

/// A spool's directory, and the records of it that this process holds. Synchronous: it belongs on a thread of its own.
pub struct Spool {
    pub(super) files: Files,
    pub(super) dir: PathBuf,
    pub(super) limits: Limits,
    pub(super) held: HashMap<RecordId, Held>,
    pub(super) last_order: u64,
    /// `spool.lock`, and whether this process has it locked.
    pub(super) lock: File,
    pub(super) leads: bool,
    /// The last ask of another key that was taken.
    pub(super) last_adopted: Option<FileName>,
    /// A directory fsync failed and is to be made good.
    pub(super) owed: bool,
    /// Settled asks that the disk did not let go of, and whether they are to be marks.
    refused: BTreeMap<RecordId, bool>,
    /// Marks that the disk did not take.
    unwritten: BTreeMap<(SchedulerKey, Marks), Record>,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("dir", &self.dir)
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl Spool {
    /// Opens the spool in `dir`, which is made if it is missing (mode 0770 under the umask). Leftover temporary files of dead
    /// writers are removed; no record is read. Fails where the directory can't be written, with what would be right.
    pub fn open(dir: impl Into<PathBuf>, limits: Limits) -> Result<Self, SpoolError> {
        Self::open_on(Files::Real, dir.into(), limits)
    }

    /// As [`Spool::open`], on any file system.
    pub(crate) fn open_on(files: Files, dir: PathBuf, limits: Limits) -> Result<Self, SpoolError> {
        make_directory(&files, &dir)?;
        files.may_write_in(&dir).map_err(SpoolError::at("write in the directory", &dir))?;
        let lock = open_lock(&files, &dir)?;
        let spool = Self {
            files,
            dir,
            limits,
            held: HashMap::new(),
            last_order: 0,
            lock,
            leads: false,
            last_adopted: None,
            owed: false,
            refused: BTreeMap::new(),
            unwritten: BTreeMap::new(),
        };
        spool.remove_leftovers(&scan::names(&spool.files, &spool.dir)?);
        Ok(spool)
    }

    /// The spool's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is in the spool, other processes' records included. Changes nothing.
    pub fn scan(&self) -> Result<Listing, SpoolError> {
        scan::scan_on(&self.files, &self.dir)
    }

    /// Counts the files, other processes' included. Changes nothing, and opens only some of those that this process doesn't hold:
    /// past [`READ_TO_COUNT`] a record's name tells what it is.
    pub fn count(&self) -> Result<Count, SpoolError> {
        let (mut count, mut read) = (Count::default(), 0);
        for name in scan::names(&self.files, &self.dir)? {
            let name = match name {
                Name::Record(name) => name,
                Name::Corrupt(_) => {
                    count.corrupt += 1;
                    continue;
                }
                Name::Misnamed(_) | Name::Temporary(_) => continue,
            };
            let whole = self.held.contains_key(&name.id) || read == READ_TO_COUNT || {
                read += 1;
                match scan::open(&self.files, &self.dir.join(name.to_string()), &name, Access::Look) {
                    Opened::Whole { .. } => true,
                    Opened::Newer(_) => {
                        count.newer += 1;
                        false
                    }
                    Opened::Damaged(..) | Opened::Locked | Opened::Gone | Opened::Unreadable(_) => false,
                }
            };
            match name.kind {
                Kind::Ask => count.asks += u64::from(whole),
                Kind::Mark => count.marks += u64::from(whole),
            }
        }
        Ok(count)
    }

    /// Writes an ask durably and keeps it locked. An ask that is there already is not written again, so that a write may be
    /// repeated after any error.
    pub fn write_ask(&mut self, record: &Record) -> Result<(), SpoolError> {
        if !matches!(record.what, What::SignOff { .. }) {
            let why = "only a sign-off can be asked".to_owned();
            return Err(SpoolError::BadRecord { id: record.id.to_string(), why });
        }
        if let Some(address) = format::elsewhere(record) {
            let why = format!("{address} is not an address of {}", record.key);
            return Err(SpoolError::BadRecord { id: record.id.to_string(), why });
        }
        self.write(Kind::Ask, record)
    }

    /// Writes a mark durably and keeps it locked, in place of the held marks of the same key and kind. One that the disk refuses
    /// is owed: [`Spool::make_good`].
    pub fn write_mark(&mut self, record: &Record) -> Result<(), SpoolError> {
        let which = (record.key.clone(), Marks::of(&record.what));
        self.unwritten.remove(&which);
        if let Err(error) = self.write(Kind::Mark, record) {
            self.unwritten.insert(which, record.clone());
            return Err(error);
        }
        // Should an older one come back after a power loss, it says nothing that was not true: no fsync for that.
        self.unlink_marks(&record.key, Marks::of(&record.what), Some(&record.id)).map(drop)
    }

    /// These asks are settled. With `keep_as_mark` the newest held one of each key becomes its mark, in place of older marks of
    /// sign-offs; the others are removed. Ids that aren't held asks are passed over, so that this may be repeated after any error.
    /// What the disk refuses is owed: [`Spool::make_good`]. One directory fsync.
    pub fn settle(&mut self, asks: &[RecordId], keep_as_mark: bool) -> Result<Settled, SpoolError> {
        let mut newest_last: BTreeMap<SchedulerKey, BTreeMap<u64, RecordId>> = BTreeMap::new();
        for id in asks {
            self.refused.remove(id);
            if let Some(held) = self.held.get(id).filter(|held| held.kind == Kind::Ask) {
                newest_last.entry(held.record.key.clone()).or_default().insert(held.order, id.clone());
            }
        }
        let mut settled = Settled::default();
        let mut failed = None;
        let mut changed = false;
        for (key, ids) in newest_last {
            let mut ids: Vec<RecordId> = ids.into_values().collect();
            let mut mark = None;
            if keep_as_mark {
                // First the mark, then the removals: whatever a crash leaves says that the sign-off was asked or made.
                match self.mark_newest(&mut ids, &mut settled) {
                    Ok(marked) => mark = marked,
                    Err(error) => {
                        self.refused.extend(ids.into_iter().map(|id| (id, true)));
                        failed.get_or_insert(error);
                        continue;
                    }
                }
                changed |= mark.is_some();
            }
            for id in ids {
                match self.unlink(&id) {
                    Ok(true) => changed = true,
                    Ok(false) => settled.vanished.push(id),
                    Err(error) => {
                        self.refused.insert(id, false);
                        failed.get_or_insert(error);
                    }
                }
            }
            if let Some(mark) = mark {
                match self.unlink_marks(&key, Marks::SignOff, Some(&mark)) {
                    Ok(some) => changed |= some,
                    Err(error) => {
                        failed.get_or_insert(error);
                    }
                }
            }
        }
        self.sync_if(changed)?;
        failed.map_or(Ok(settled), Err)
    }

    /// Whether the disk refused something that is to be made good.
    pub fn owes(&self) -> bool {
        self.owed || !self.refused.is_empty() || !self.unwritten.is_empty()
    }

    /// Tries again what the disk refused: an ask that is settled and stays would be replayed, and be shown as pending; without its
    /// mark nobody would know what this process did.
    pub fn make_good(&mut self) -> Result<(), SpoolError> {
        let of_kind = |mark| self.refused.iter().filter(move |(_, as_mark)| **as_mark == mark);
        let [marks, gone] =
            [true, false].map(|mark| of_kind(mark).map(|(id, _)| id.clone()).collect::<Vec<_>>());
        let marked = self.settle(&marks, true);
        let settled = self.settle(&gone, false).and(marked).map(drop);
        let unwritten: Vec<Record> = self.unwritten.values().cloned().collect();
        unwritten.iter().map(|mark| self.write_mark(mark)).fold(settled, Result::and)
    }

    /// Removes this key's held marks of one kind. One directory fsync, if there were any.
    pub fn drop_marks(&mut self, key: &SchedulerKey, which: Marks) -> Result<(), SpoolError> {
        self.unwritten.retain(|(of, kind), _| of != key || !(which == Marks::All || which == *kind));
        if matches!(which, Marks::SignOff | Marks::All) {
            // What is owed becomes no mark any more.
            for (id, as_mark) in &mut self.refused {
                *as_mark &= self.held.get(id).is_none_or(|held| held.record.key != *key);
            }
        }
        let unlinked = self.unlink_marks(key, which, None);
        self.sync_if(*unlinked.as_ref().unwrap_or(&true))?;
        unlinked.map(drop)
    }

    /// Which of these records, held by this process, are not in the directory any more: somebody dropped them by hand. They stay
    /// held until they are settled or released.
    pub fn vanished(&self, ids: &[RecordId]) -> Vec<RecordId> {
        let gone = |id: &&RecordId| {
            self.held.get(*id).is_some_and(|held| {
                // Where the disk can't tell, nobody dropped it.
                matches!(scan::is_still_at(&self.files, &held.file, &held.path(&self.dir)), Ok(false))
            })
        };
        ids.iter().filter(gone).cloned().collect()
    }

    /// Lets go of these records: their files stay, and whoever adopts next may have them.
    pub fn release(&mut self, ids: &[RecordId]) {
        for id in ids {
            self.refused.remove(id);
            self.held.remove(id);
        }
    }

    /// Lets go of these records, and of all marks of a key: its own agent may have them. Another's asks for it stay held.
    pub fn release_with_marks(&mut self, ids: &[RecordId], key: &SchedulerKey) {
        self.unwritten.retain(|(of, _), _| of != key);
        let marks = self.held.values().filter(|held| held.kind == Kind::Mark && held.record.key == *key);
        let marks: Vec<RecordId> = marks.map(|held| held.record.id.clone()).collect();
        self.release(&marks);
        self.release(ids);
    }

    /// The records that this process holds.
    pub fn held(&self) -> impl Iterator<Item = (Kind, &Record)> {
        self.held.values().map(|held| (held.kind, &held.record))
    }

    pub(super) fn hold(&mut self, file: File, kind: Kind, record: Record) {
        self.last_order += 1;
        self.held.insert(record.id.clone(), Held { file, kind, record, order: self.last_order });
    }

    fn write(&mut self, kind: Kind, record: &Record) -> Result<(), SpoolError> {
        if !format::is_id(&record.id.0) {
            return Err(SpoolError::BadId { id: record.id.0.clone() });
        }
        if let Some(held) = self.held.get(&record.id)
            && scan::is_at(&self.files, &held.file, &held.path(&self.dir))
        {
            return self.sync_if(false);
        }
        let bytes = format::encode(record)?;
        make_directory(&self.files, &self.dir)?;
        let count = self.number()?;
        if count >= self.limits.records {
            return Err(SpoolError::Full { dir: self.dir.clone(), count, bound: self.limits.records });
        }
        let name = FileName::of(kind, record);
        let (temporary, mut file) = self.create(&name)?;
        let path = self.dir.join(name.to_string());
        if let Err(error) = self.fill(&temporary, &path, &mut file, &bytes) {
            // After an error nothing of this file can be trusted: the next try makes a new one from memory.
            let _ = self.files.remove(&temporary);
            let _ = self.files.remove(&path);
            return Err(error);
        }
        self.hold(file, kind, record.clone());
        Ok(())
    }

    fn fill(
        &mut self,
        temporary: &Path,
        path: &Path,
        file: &mut File,
        bytes: &[u8],
    ) -> Result<(), SpoolError> {
        file.write_all(bytes).map_err(SpoolError::at("write it", temporary))?;
        file.sync().map_err(SpoolError::at("fsync it", temporary))?;
        self.files.rename(temporary, path).map_err(SpoolError::at("rename it into place", path))?;
        self.files.sync_directory(&self.dir).map_err(SpoolError::at("fsync the directory", &self.dir))?;
        self.owed = false;
        Ok(())
    }

    /// A new empty file, locked before it has a record's name.
    fn create(&self, name: &FileName) -> Result<(PathBuf, File), SpoolError> {
        let mut last = None;
        for _ in 0..3 {
            let path = self.dir.join(name.temporary());
            let file = match self.files.open(&path, How::New) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(SpoolError::at("create it", &path)(error)),
            };
            share_with_group(&self.files, &self.dir, &path);
            match file.try_lock() {
                // Someone who removes leftovers may have been here between the two: then its name is gone.
                Ok(()) if scan::is_at(&self.files, &file, &path) => return Ok((path, file)),
                Ok(()) | Err(TryLockError::WouldBlock) => {
                    let _ = self.files.remove(&path);
                    last = Some(io::Error::from(io::ErrorKind::WouldBlock));
                }
                // Without locks nobody adopts, and an ask is still better written than not.
                Err(TryLockError::Error(_)) => return Ok((path, file)),
            }
        }
        let error = last.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into());
        Err(SpoolError::at("create a temporary file in the directory", &self.dir)(error))
    }

    /// Renames the newest ask that is still there to its mark, and takes it off `ids`. Answers which that was.
    fn mark_newest(
        &mut self,
        ids: &mut Vec<RecordId>,
        settled: &mut Settled,
    ) -> Result<Option<RecordId>, SpoolError> {
        while let Some(id) = ids.pop() {
            let Some(held) = self.held.get_mut(&id) else { continue };
            let ask = held.path(&self.dir);
            let mark = self.dir.join(FileName::of(Kind::Mark, &held.record).to_string());
            match self.files.rename(&ask, &mark) {
                Ok(()) => {
                    held.kind = Kind::Mark;
                    settled.marked.push(id.clone());
                    return Ok(Some(id));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.held.remove(&id);
                    settled.vanished.push(id);
                }
                Err(error) => {
                    ids.push(id);
                    return Err(SpoolError::at("rename it to its mark", &ask)(error));
                }
            }
        }
        Ok(None)
    }

    /// Removes a held record's file and lets go of it. Answers whether it was still there.
    fn unlink(&mut self, id: &RecordId) -> Result<bool, SpoolError> {
        let Some(held) = self.held.get(id) else { return Ok(false) };
        let path = held.path(&self.dir);
        let there = match self.files.remove(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(SpoolError::at("remove it", &path)(error)),
        };
        self.held.remove(id);
        Ok(there)
    }

    fn unlink_marks(
        &mut self,
        key: &SchedulerKey,
        which: Marks,
        except: Option<&RecordId>,
    ) -> Result<bool, SpoolError> {
        let of_key = |held: &&Held| {
            held.kind == Kind::Mark && held.record.key == *key && which.include(&held.record.what)
        };
        let ids: BTreeSet<RecordId> =
            self.held.values().filter(of_key).map(|held| held.record.id.clone()).collect();
        let mut changed = false;
        for id in ids.iter().filter(|id| Some(*id) != except) {
            changed |= self.unlink(id)?;
        }
        Ok(changed)
    }

    pub(super) fn sync_if(&mut self, changed: bool) -> Result<(), SpoolError> {
        if !changed && !self.owed {
            return Ok(());
        }
        self.owed = true;
        self.files.sync_directory(&self.dir).map_err(SpoolError::at("fsync the directory", &self.dir))?;
        self.owed = false;
        Ok(())
    }

    fn number(&self) -> Result<usize, SpoolError> {
        let names = scan::names(&self.files, &self.dir)?;
        Ok(names.iter().filter(|name| matches!(name, Name::Record(_))).count())
    }
}
