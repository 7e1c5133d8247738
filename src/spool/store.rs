//! A spool, and the records of it that this process holds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
};

use super::{
    error::SpoolError,
    files::{File, Files},
    format::FileName,
    place::{self, Lock, make_directory},
    record::{Kind, Record, RecordId, What},
    scan::{self, Access, Listing, Name, Opened},
    whose::{Holder, Whose},
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
    pub(super) fn include(self, what: &What) -> bool {
        match self {
            Marks::All => true,
            Marks::SignOff => matches!(what, What::SignOff { .. }),
            Marks::Seen => *what == What::Seen,
            Marks::Held => *what == What::Held,
        }
    }

    pub(super) fn of(what: &What) -> Self {
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
    /// Those of them that are for another manager, as far as they were read.
    pub for_another: u64,
    /// Marks that can be read.
    pub marks: u64,
    /// Damaged files that were set aside.
    pub corrupt: u64,
    /// Records of a version that this release doesn't know.
    pub newer: u64,
}

/// In which of a spool's directories a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Its own.
    Own,
    /// That of the spool it lies in.
    Older,
}

/// A record that this process holds: its file is open, and locked where the file system has locks.
pub(super) struct Held {
    pub(super) file: File,
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) record: Record,
    /// Grows with each record taken or written: which of two asks is newer.
    pub(super) order: u64,
}

/// A spool's directory, and the records of it that this process holds. Synchronous: it belongs on a thread of its own.
pub struct Spool {
    pub(super) files: Files,
    pub(super) dir: PathBuf,
    /// The spool that this one lies in.
    pub(super) older: Option<PathBuf>,
    pub(super) limits: Limits,
    pub(super) holder: Holder,
    pub(super) held: HashMap<RecordId, Held>,
    pub(super) last_order: u64,
    /// `spool.lock`.
    pub(super) house: Lock,
    /// Of this process's Dragonfly; none before it is needed.
    pub(super) lead: Option<Lock>,
    /// The last ask of another key that was taken.
    pub(super) last_adopted: Option<(FileName, Place)>,
    /// The directories whose fsync failed and is to be made good.
    pub(super) owed: BTreeSet<Place>,
    /// Settled asks that the disk did not let go of, and whether they are to be marks.
    pub(super) refused: BTreeMap<RecordId, bool>,
    /// Marks that the disk did not take.
    pub(super) unwritten: BTreeMap<(SchedulerKey, Marks), Record>,
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

    /// As [`Spool::open`], where its directory is there; it is not made.
    pub fn open_existing(dir: impl Into<PathBuf>, limits: Limits) -> Result<Self, SpoolError> {
        let dir = dir.into();
        match Files::Real.stat(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SpoolError::Missing { dir }),
            // What else is wrong with it is said by what follows.
            _ => Self::open(dir, limits),
        }
    }

    /// As [`Spool::open`], on any file system.
    pub(crate) fn open_on(files: Files, dir: PathBuf, limits: Limits) -> Result<Self, SpoolError> {
        make_directory(&files, &dir)?;
        files.may_write_in(&dir).map_err(SpoolError::at("write in the directory", &dir))?;
        let house = Lock::open(&files, &dir, place::LOCK)?;
        let spool = Self {
            older: None,
            files,
            dir,
            limits,
            holder: Holder::default(),
            held: HashMap::new(),
            last_order: 0,
            house,
            lead: None,
            last_adopted: None,
            owed: BTreeSet::new(),
            refused: BTreeMap::new(),
            unwritten: BTreeMap::new(),
        };
        spool.remove_leftovers(&scan::names(&spool.files, &spool.dir)?);
        Ok(spool)
    }

    /// The same, on this one's behalf.
    #[must_use]
    pub fn held_by(mut self, holder: Holder) -> Self {
        self.hold_for(holder);
        self
    }

    /// On this one's behalf from now on: what is written names its manager, and what is for that manager is taken.
    pub fn hold_for(&mut self, holder: Holder) {
        if holder.managers != self.holder.managers {
            // It is another Dragonfly's to take.
            self.lead = None;
        }
        self.holder = holder;
    }

    /// The spool's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn dir_of(&self, place: Place) -> &Path {
        match (place, &self.older) {
            (Place::Older, Some(older)) => older,
            _ => &self.dir,
        }
    }

    pub(super) fn path_of(&self, held: &Held) -> PathBuf {
        self.dir_of(held.place).join(FileName::of(held.kind, &held.record).to_string())
    }

    /// What is in the spool, other processes' records included. Changes nothing.
    pub fn scan(&self) -> Result<Listing, SpoolError> {
        scan::scan_on(&self.files, &self.dir)
    }

    /// Counts the files, other processes' included. Changes nothing, and opens only some of those that this process doesn't hold:
    /// past [`READ_TO_COUNT`] a record's name tells what it is.
    pub fn count(&self) -> Result<Count, SpoolError> {
        let (mut count, mut read) = (Count::default(), 0);
        self.count_in(&self.dir, &mut count, &mut read)?;
        if let Some(older) = &self.older {
            self.count_in(older, &mut count, &mut read)?;
        }
        Ok(count)
    }

    fn count_in(&self, dir: &Path, count: &mut Count, read: &mut usize) -> Result<(), SpoolError> {
        for name in scan::names(&self.files, dir)? {
            let name = match name {
                Name::Record(name) => name,
                Name::Corrupt(_) => {
                    count.corrupt += 1;
                    continue;
                }
                Name::Misnamed(_) | Name::Temporary(_) => continue,
            };
            let whole = self.held.contains_key(&name.id) || *read == READ_TO_COUNT || {
                *read += 1;
                match scan::open(&self.files, &dir.join(name.to_string()), &name, Access::Look) {
                    Opened::Whole { record, .. } => {
                        let for_another = self.holder.whose(&record) == Whose::Anothers;
                        count.for_another += u64::from(for_another && name.kind == Kind::Ask);
                        true
                    }
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
        Ok(())
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

    pub(super) fn hold(&mut self, file: File, place: Place, kind: Kind, record: Record) {
        self.last_order += 1;
        let held = Held { file, place, kind, record, order: self.last_order };
        self.held.insert(held.record.id.clone(), held);
    }

    pub(super) fn number(&self) -> Result<usize, SpoolError> {
        let names = scan::names(&self.files, &self.dir)?;
        Ok(names.iter().filter(|name| matches!(name, Name::Record(_))).count())
    }
}
