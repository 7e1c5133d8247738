//! Looking at a spool without changing it.

use std::{
    collections::BTreeSet,
    fmt,
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::{
    error::SpoolError,
    files::{File, Files, How},
    format::{self, Content, Damage, FileName, MAX_BYTES},
    place,
    record::{Kind, Record},
};

/// A file that needs a person's eye, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it is named now.
    pub path: PathBuf,
    /// What is wrong with it, and what was done, in words.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

/// One record as it lies in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Ask or mark.
    pub kind: Kind,
    /// What it records.
    pub record: Record,
    /// Its file.
    pub path: PathBuf,
    /// A living process holds it.
    pub locked: bool,
}

/// What is in a spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Sign-offs not yet settled, oldest first by the wall clock.
    pub asks: Vec<Entry>,
    /// Marks, oldest first by the wall clock.
    pub marks: Vec<Entry>,
    /// Files that were damaged and set aside (`….corrupt`).
    pub corrupt: Vec<PathBuf>,
    /// Whole records of a version that this release doesn't know: left untouched.
    pub newer: Vec<Problem>,
    /// Damaged files that nobody has set aside yet.
    pub problems: Vec<Problem>,
    /// Files that can't be read.
    pub unreadable: Vec<Problem>,
}

impl Listing {
    /// Asks, then marks.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.asks.iter().chain(&self.marks)
    }

    /// The ask or mark with this id.
    pub fn find(&self, id: &str) -> Option<&Entry> {
        self.entries().find(|entry| entry.record.id.0 == id)
    }
}

/// Reads all of `dir` without changing anything. Fails only if the directory can't be listed.
pub fn scan(dir: &Path) -> Result<Listing, SpoolError> {
    scan_on(&Files::Real, dir)
}

pub(crate) fn scan_on(files: &Files, dir: &Path) -> Result<Listing, SpoolError> {
    let mut listing = Listing::default();
    read_all(files, dir, names(files, dir)?, &mut listing);
    let older = match place::older(files, dir) {
        Ok(Some(older)) => names(files, &older).map(|names| read_all(files, &older, names, &mut listing)),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = older {
        listing.unreadable.push(Problem { path: dir.to_owned(), why: error.to_string() });
    }
    for entries in [&mut listing.asks, &mut listing.marks] {
        entries.sort_by(|a, b| (a.record.at, &a.record.id).cmp(&(b.record.at, &b.record.id)));
    }
    Ok(listing)
}

fn read_all(files: &Files, dir: &Path, names: Vec<Name>, listing: &mut Listing) {
    for name in names {
        let path = dir.join(name.text());
        match name {
            Name::Record(name) => match open(files, &path, &name, Access::Look) {
                Opened::Whole { record, locked, .. } => {
                    let kind = name.kind;
                    let entries = if kind == Kind::Ask { &mut listing.asks } else { &mut listing.marks };
                    entries.push(Entry { kind, record: *record, path, locked });
                }
                Opened::Newer(version) => listing.newer.push(newer(path, version)),
                Opened::Damaged(_, damage) => {
                    listing.problems.push(Problem { path, why: damage.to_string() })
                }
                Opened::Unreadable(error) => {
                    listing.unreadable.push(Problem { path, why: error.to_string() })
                }
                Opened::Gone | Opened::Locked => {}
            },
            Name::Misnamed(_) => listing.problems.push(Problem { path, why: Damage::Name.to_string() }),
            Name::Corrupt(_) => listing.corrupt.push(path),
            Name::Temporary(_) => {}
        }
    }
}

/// What came of dropping several records.
#[derive(Debug, Default)]
pub struct Drops {
    /// Those that were dropped, as they were.
    pub dropped: Vec<Entry>,
    /// Why not the others, if there are any.
    pub failed: Option<SpoolError>,
}

/// Removes records by hand, whoever holds them. Where one of the ids is no record's, nothing is removed. The directories are
/// fsynced.
pub fn drop_records(dir: &Path, ids: &[String]) -> Result<Drops, SpoolError> {
    drop_records_on(&Files::Real, dir, ids)
}

pub(crate) fn drop_records_on(files: &Files, dir: &Path, ids: &[String]) -> Result<Drops, SpoolError> {
    let mut drops = Drops::default();
    let mut left: BTreeSet<&String> = ids.iter().collect();
    let mut listing = scan_on(files, dir)?;
    let unknown = |id: &&&String, listing: &Listing| listing.find(id).is_none();
    let is_unknown: Vec<String> =
        left.iter().filter(|id| unknown(id, &listing)).map(|id| (*id).clone()).collect();
    if !is_unknown.is_empty() {
        return Err(SpoolError::UnknownId { ids: is_unknown, dir: dir.to_owned() });
    }
    // Its agent may rename an ask to its mark between the look and the removal: then look again.
    for _ in 0..3 {
        let mut changed = BTreeSet::new();
        for entry in left.iter().filter_map(|id| listing.find(id)) {
            match files.remove(&entry.path) {
                Ok(()) => {
                    changed.extend(entry.path.parent().map(Path::to_owned));
                    drops.dropped.push(entry.clone());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => drops.failed = Some(SpoolError::at("remove it", &entry.path)(error)),
            }
        }
        for dir in &changed {
            if let Err(error) = files.sync_directory(dir) {
                drops.failed = Some(SpoolError::at("fsync the directory", dir)(error));
            }
        }
        left.retain(|id| !drops.dropped.iter().any(|entry| entry.record.id.0 == **id));
        if left.is_empty() || drops.failed.is_some() {
            return Ok(drops);
        }
        listing = scan_on(files, dir)?;
    }
    // Settled in this very moment.
    drops.failed =
        Some(SpoolError::UnknownId { ids: left.into_iter().cloned().collect(), dir: dir.to_owned() });
    Ok(drops)
}

/// [`drop_records`] of one.
#[cfg(test)]
pub(crate) fn drop_record(dir: &Path, id: &str) -> Result<Entry, SpoolError> {
    let mut drops = drop_records(dir, &[id.to_owned()])?;
    drops.failed.map_or_else(|| Ok(drops.dropped.remove(0)), Err)
}

pub(super) fn newer(path: PathBuf, version: u64) -> Problem {
    let known = format::VERSION;
    let why = format!("its version is {version}, this release knows {known}: left for a newer release");
    Problem { path, why }
}

/// A name in the directory that concerns the spool.
pub(super) enum Name {
    Record(FileName),
    Misnamed(String),
    Corrupt(String),
    Temporary(String),
}

impl Name {
    fn text(&self) -> String {
        match self {
            Self::Record(name) => name.to_string(),
            Self::Misnamed(name) | Self::Corrupt(name) | Self::Temporary(name) => name.clone(),
        }
    }
}

/// The names in the directory, sorted; files that are none of the spool's are left out.
pub(super) fn names(files: &Files, dir: &Path) -> Result<Vec<Name>, SpoolError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => SpoolError::Missing { dir: dir.to_owned() },
        _ => SpoolError::at("list the directory", dir)(error),
    };
    // A name that is no UTF-8 is none of ours.
    let mut texts = files.names(dir).map_err(failed)?;
    texts.sort_unstable();
    Ok(texts.into_iter().filter_map(name_of).collect())
}

fn name_of(text: String) -> Option<Name> {
    match FileName::parse(&text) {
        Some(name) => Some(Name::Record(name)),
        None if FileName::claims(&text) => Some(Name::Misnamed(text)),
        None if text.ends_with(".corrupt") => Some(Name::Corrupt(text)),
        None => FileName::is_temporary(&text).then_some(Name::Temporary(text)),
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Read-only; whether somebody holds it is found out by a shared lock that is gone at once.
    Look,
    /// Locked, for as long as the file is kept open.
    Take,
}

/// What opening a record's file gave.
pub(super) enum Opened {
    Whole {
        file: File,
        record: Box<Record>,
        locked: bool,
    },
    Newer(u64),
    /// With the file if it could be opened; locked then, if it was to be taken.
    Damaged(Option<File>, Damage),
    /// A living process holds it.
    Locked,
    /// It is not there any more, or another file has its name.
    Gone,
    Unreadable(SpoolError),
}

/// Opens, locks and reads one record's file.
pub(super) fn open(files: &Files, path: &Path, name: &FileName, access: Access) -> Opened {
    // Another file may get its name between the opening and the lock: a copy. Whoever does that all the time waits.
    for _ in 0..3 {
        if let Some(opened) = open_once(files, path, name, access) {
            return opened;
        }
    }
    Opened::Locked
}

fn open_once(files: &Files, path: &Path, name: &FileName, access: Access) -> Option<Opened> {
    let file = match open_and_lock(files, path, access) {
        Ok((file, locked)) => (file, locked),
        Err(opened) => return Some(opened),
    };
    read(files, path, name, file.0, file.1, access)
}

/// The file, and whether somebody else has it locked.
fn open_and_lock(files: &Files, path: &Path, access: Access) -> Result<(File, bool), Opened> {
    let file = match open_nonblocking(files, path, access) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Opened::Gone),
        Err(error) if is_no_file(&error) => return Err(Opened::Damaged(None, Damage::NoFile)),
        Err(error) => return Err(Opened::Unreadable(SpoolError::at("open it", path)(error))),
    };
    let mut locked = false;
    match access {
        Access::Look => {
            locked = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
            // Held any longer it would keep an adopter from it.
            let _ = file.unlock();
        }
        Access::Take => match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Opened::Locked),
            Err(TryLockError::Error(source)) => {
                return Err(Opened::Unreadable(SpoolError::NoLocks { path: path.to_owned(), source }));
            }
        },
    }
    Ok((file, locked))
}

/// Reads an opened file of a record. `None`: another file has its name now.
pub(super) fn read(
    files: &Files,
    path: &Path,
    name: &FileName,
    mut file: File,
    locked: bool,
    access: Access,
) -> Option<Opened> {
    // Between the opening and the lock its owner may have settled it.
    if access == Access::Take {
        match look(files, &file, path) {
            Ok(There::This) => {}
            Ok(There::Another) => return None,
            Ok(There::Nothing) => return Some(Opened::Gone),
            Err(error) => return Some(Opened::Unreadable(SpoolError::at("look at it", path)(error))),
        }
    }
    Some(match file.stat() {
        Ok(stat) if !stat.is_file => Opened::Damaged(Some(file), Damage::NoFile),
        Err(error) => Opened::Unreadable(SpoolError::at("look at it", path)(error)),
        Ok(_) => match file.read(MAX_BYTES + 1) {
            Err(error) => Opened::Unreadable(SpoolError::at("read it", path)(error)),
            Ok(bytes) => match format::decode(name, &bytes) {
                Ok(Content::Record(record)) => Opened::Whole { file, record, locked },
                Ok(Content::Newer(version)) => Opened::Newer(version),
                Err(damage) => Opened::Damaged(Some(file), damage),
            },
        },
    })
}

/// Opens without following a link and without waiting for a pipe's other end.
pub(super) fn open_nonblocking(files: &Files, path: &Path, access: Access) -> io::Result<File> {
    match access {
        Access::Look => files.open(path, How::Read),
        // NFS locks only what may be written; elsewhere a file that may only be read can be locked as well.
        Access::Take => files.open(path, How::Write).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                files.open(path, How::Read)
            }
            _ => Err(error),
        }),
    }
}

fn is_no_file(error: &io::Error) -> bool {
    let of_kind = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    [Errno::LOOP, Errno::ISDIR, Errno::NXIO, Errno::NODEV].into_iter().any(of_kind)
}

/// What has a file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum There {
    /// This very file.
    This,
    /// Another file: a copy of it, or one that was written anew. Where the open file is gone (ESTALE) and its name is there, the
    /// name is another file's, too.
    Another,
    /// Nothing: the name is missing.
    Nothing,
}

/// What `path` names, compared with an open file. Fails where the disk can't tell.
pub(super) fn look(files: &Files, file: &File, path: &Path) -> io::Result<There> {
    let named = match files.link_stat(path) {
        Ok(stat) => stat.id,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
        Err(error) => return Err(error),
    };
    match file.stat() {
        Ok(stat) if stat.id == named => Ok(There::This),
        Ok(_) => Ok(There::Another),
        Err(error) if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) => Ok(There::Another),
        Err(error) => Err(error),
    }
}

/// Whether `path` still names this very file; not, where that can't be found out.
pub(super) fn is_at(files: &Files, file: &File, path: &Path) -> bool {
    look(files, file, path).is_ok_and(|there| there == There::This)
}
