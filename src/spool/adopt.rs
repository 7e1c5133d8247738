//! Taking over what dead processes left, and setting aside what is damaged.

use std::{
    collections::BTreeSet,
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{io::Errno, process::Resource};

use super::{
    error::SpoolError,
    files::{File, Files},
    format::{self, Damage, FileName},
    place,
    record::{Kind, Record},
    scan::{self, Access, Name, Opened, Problem},
    store::Spool,
};
use crate::key::SchedulerKey;

/// Who only looks holds a shared lock for some microseconds; after this long it is a living owner's.
const LOOKED_AT: Duration = Duration::from_millis(5);

/// How many asks of other keys one look takes: whoever writes one meanwhile waits for all of them.
const AT_A_LOOK: usize = 256;

/// What was taken over, and what was found beside it.
#[derive(Debug, Default)]
#[must_use = "its problems are to be reported"]
pub struct Taken {
    /// The records that this process holds from now on, oldest first by the wall clock.
    pub records: Vec<(Kind, Record)>,
    /// Damaged files (set aside as `….corrupt` where that was possible), files of a newer version, and unreadable ones.
    pub problems: Vec<Problem>,
    /// Asks that can't be read: they stay, and may be taken another time.
    pub unreadable: usize,
    /// Records that a living process holds.
    pub busy: usize,
    /// There are more records than are taken at a time: adopt again, once these are settled if nothing was taken.
    pub more: bool,
}

impl Taken {
    /// Nothing was there to be taken or said, and no living process holds what could be taken later.
    pub fn is_nothing(&self) -> bool {
        self.records.is_empty() && self.problems.is_empty() && self.busy == 0 && !self.more
    }
}

/// What one look through the spool took over.
#[derive(Debug)]
#[must_use = "what was taken is held"]
pub struct Adopted {
    /// Of the own key.
    pub own: Taken,
    /// Of other keys; `None` where another living process holds `spool.lock`: it does this.
    pub others: Result<Option<Taken>, SpoolError>,
}

impl Adopted {
    /// There was nothing, and no other living process was seen on this spool.
    pub fn is_nothing(&self) -> bool {
        self.own.is_nothing() && matches!(&self.others, Ok(Some(taken)) if taken.is_nothing())
    }
}

impl Spool {
    /// Takes what dead processes left for this key: locks it, and returns what was not held yet. Records that a living process
    /// holds are left alone; so this may be repeated, to take them once it is gone.
    pub fn take_own(&mut self, key: &SchedulerKey) -> Result<Taken, SpoolError> {
        let names = scan::names(&self.files, &self.dir)?;
        Ok(self.take_own_of(&names, key))
    }

    /// Takes what dead processes left for other keys: for each key with an ask, its asks and marks. `None` where another living
    /// process holds `spool.lock`: it does this. Once this process has that lock it keeps it for life. Marks that nobody holds and
    /// no ask needs are looked through for damage; the oldest of them go when the spool is half full.
    pub fn adopt_foreign(&mut self, except: Option<&SchedulerKey>) -> Result<Option<Taken>, SpoolError> {
        let names = scan::names(&self.files, &self.dir)?;
        self.adopt_foreign_of(&names, except, usize::MAX)
    }

    /// Both, by one look at the directory, and only some of the others' asks at a time.
    pub fn adopt(&mut self, own: &SchedulerKey) -> Result<Adopted, SpoolError> {
        let names = scan::names(&self.files, &self.dir)?;
        let taken = self.take_own_of(&names, own);
        let others = self.adopt_foreign_of(&names, Some(own), AT_A_LOOK);
        Ok(Adopted { own: taken, others })
    }

    fn take_own_of(&mut self, names: &[Name], key: &SchedulerKey) -> Taken {
        let hash = format::key_hash(key);
        let names = self.records(names, |name| name.hash == hash);
        let mut taken = Taken::default();
        let mut found = Vec::new();
        self.take(names, &mut found, &mut taken, self.room(usize::MAX), |record| record.key == *key);
        self.keep(found, &mut taken);
        taken
    }

    fn adopt_foreign_of(
        &mut self,
        names: &[Name],
        except: Option<&SchedulerKey>,
        at_most: usize,
    ) -> Result<Option<Taken>, SpoolError> {
        if !self.try_lead()? {
            return Ok(None);
        }
        self.remove_leftovers(names);
        let mut taken = Taken::default();
        self.set_misnamed_aside(names, &mut taken);
        let foreign = |record: &Record| Some(&record.key) != except;

        let mut asks = self.records(names, |name| name.kind == Kind::Ask);
        // What comes after those that had their turn: what is let go of unsettled keeps nothing from its own.
        let next = asks.partition_point(|name| Some(name) <= self.last_adopted.as_ref());
        asks.rotate_left(next);
        let mut found = Vec::new();
        let room = self.room(self.limits.foreign).min(at_most);
        self.take(asks, &mut found, &mut taken, room, foreign);
        if let Some((_, kind, record)) = found.last() {
            self.last_adopted = Some(FileName::of(*kind, record));
        }

        let keys: BTreeSet<SchedulerKey> = found.iter().map(|(_, _, record)| record.key.clone()).collect();
        let hashes: BTreeSet<String> = keys.iter().map(format::key_hash).collect();
        // An ask that was taken may have a mark that is younger than the look.
        let again = if keys.is_empty() { None } else { Some(scan::names(&self.files, &self.dir)?) };
        let (needed, idle): (Vec<_>, Vec<_>) = self
            .records(again.as_deref().unwrap_or(names), |name| name.kind == Kind::Mark)
            .into_iter()
            .partition(|name| hashes.contains(&name.hash));
        self.take(needed, &mut found, &mut taken, self.room(usize::MAX), |record| keys.contains(&record.key));
        self.keep(found, &mut taken);
        if !taken.more {
            let records = names.iter().filter(|name| matches!(name, Name::Record(_))).count();
            self.tend_idle_marks(idle, records, &mut taken, foreign);
        }
        Ok(Some(taken))
    }

    /// Whether this process holds `spool.lock`, or could take it now.
    fn try_lead(&mut self) -> Result<bool, SpoolError> {
        let path = self.dir.join(place::LOCK);
        if !scan::is_at(&self.files, &self.lock, &path) {
            // Somebody removed it: the lock that others take is another file's.
            self.leads = false;
            self.lock = place::open_lock(&self.files, &self.dir)?;
        }
        if !self.leads {
            self.leads = match self.lock.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(source)) => return Err(SpoolError::NoLocks { path, source }),
            };
        }
        Ok(self.leads)
    }

    /// Removes temporary files that no living writer has locked.
    pub(super) fn remove_leftovers(&self, names: &[Name]) {
        for name in names {
            let Name::Temporary(name) = name else { continue };
            let path = self.dir.join(name);
            let Ok(file) = scan::open_nonblocking(&self.files, &path, Access::Take) else { continue };
            if file.try_lock().is_ok() && scan::is_at(&self.files, &file, &path) {
                // What can't be removed now is no record, and disturbs nothing.
                let _ = self.files.remove(&path);
            }
        }
    }

    /// The names of records that this process doesn't hold.
    fn records(&self, names: &[Name], which: impl Fn(&FileName) -> bool) -> Vec<FileName> {
        let records = names.iter().filter_map(|name| match name {
            Name::Record(name) => Some(name),
            _ => None,
        });
        records.filter(|name| which(name) && !self.held.contains_key(&name.id)).cloned().collect()
    }

    /// How many more records may be held where `limit` of them may be, and kept open: half of the files this process may open,
    /// since it needs some for itself.
    fn room(&self, limit: usize) -> usize {
        let files = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
        usize::try_from(files).unwrap_or(usize::MAX).min(limit).saturating_sub(self.held.len())
    }

    fn take(
        &self,
        names: Vec<FileName>,
        found: &mut Vec<(File, Kind, Record)>,
        taken: &mut Taken,
        room: usize,
        ours: impl Fn(&Record) -> bool,
    ) {
        self.take_waiting(names, found, taken, room, ours, || self.files.wait(LOOKED_AT));
    }

    /// Tries what is locked once more, after `wait`.
    pub(super) fn take_waiting(
        &self,
        names: Vec<FileName>,
        found: &mut Vec<(File, Kind, Record)>,
        taken: &mut Taken,
        room: usize,
        ours: impl Fn(&Record) -> bool,
        wait: impl FnOnce(),
    ) {
        let busy = self.take_once(names, found, taken, room, &ours);
        if !busy.is_empty() {
            wait();
            taken.busy += self.take_once(busy, found, taken, room, &ours).len();
        }
    }

    /// Until `found` has as many as there is room for. Answers with the names that somebody has locked.
    fn take_once(
        &self,
        names: Vec<FileName>,
        found: &mut Vec<(File, Kind, Record)>,
        taken: &mut Taken,
        room: usize,
        ours: impl Fn(&Record) -> bool,
    ) -> Vec<FileName> {
        let mut busy = Vec::new();
        for name in names {
            if found.len() >= room {
                taken.more = true;
                break;
            }
            let path = self.dir.join(name.to_string());
            let opened = match scan::open(&self.files, &path, &name, Access::Take) {
                // Without locks there is no telling who lives, but there is one agent for a key.
                Opened::Unreadable(SpoolError::NoLocks { .. }) => {
                    scan::open(&self.files, &path, &name, Access::Look)
                }
                opened => opened,
            };
            match opened {
                Opened::Whole { file, record, .. } if ours(&record) => found.push((file, name.kind, *record)),
                Opened::Whole { .. } | Opened::Gone => {}
                Opened::Locked => busy.push(name),
                Opened::Newer(version) => taken.problems.push(scan::newer(path, version)),
                Opened::Damaged(_locked, damage) => {
                    taken.problems.push(set_aside(&self.files, path, &damage))
                }
                Opened::Unreadable(error) if out_of_files(&error) => taken.more = true,
                Opened::Unreadable(error) => {
                    taken.unreadable += usize::from(name.kind == Kind::Ask);
                    taken.problems.push(Problem { path, why: error.to_string() });
                }
            }
        }
        busy
    }

    /// What a dead process has named may not be on disk yet: nothing is done for its sake before it is.
    fn keep(&mut self, mut found: Vec<(File, Kind, Record)>, taken: &mut Taken) {
        if !found.is_empty()
            && let Err(error) = self.sync_if(true)
        {
            // It is owed now, and no reason to leave undone what was asked.
            taken.problems.push(Problem { path: self.dir.clone(), why: error.to_string() });
        }
        found.sort_by(|(_, _, a), (_, _, b)| (a.at, &a.id).cmp(&(b.at, &b.id)));
        for (file, kind, record) in found {
            taken.records.push((kind, record.clone()));
            self.hold(file, kind, record);
        }
    }

    fn set_misnamed_aside(&self, names: &[Name], taken: &mut Taken) {
        for name in names {
            let Name::Misnamed(name) = name else { continue };
            let path = self.dir.join(name);
            // Nobody writes such a name, so nobody's lock counts.
            taken.problems.push(set_aside(&self.files, path, &Damage::Name));
        }
    }

    fn tend_idle_marks(
        &mut self,
        names: Vec<FileName>,
        records: usize,
        taken: &mut Taken,
        foreign: impl Fn(&Record) -> bool,
    ) {
        let mut too_many = records.saturating_sub(self.limits.records / 2);
        let mut idle: Vec<(u64, FileName)> = Vec::new();
        for name in names {
            let mut found = Vec::new();
            // One at a time, and let go at once: its agent may start this moment.
            taken.busy += self.take_once(vec![name.clone()], &mut found, taken, 1, &foreign).len();
            idle.extend(found.into_iter().map(|(_, _, record)| (record.at, name.clone())));
        }
        idle.sort_unstable();
        for (_, name) in idle {
            if too_many == 0 {
                break;
            }
            let mut found = Vec::new();
            self.take_once(vec![name.clone()], &mut found, &mut Taken::default(), 1, &foreign);
            if !found.is_empty() && self.files.remove(&self.dir.join(name.to_string())).is_ok() {
                too_many -= 1;
            }
        }
    }
}

fn out_of_files(error: &SpoolError) -> bool {
    let SpoolError::Io { source, .. } = error else { return false };
    let is = |errno: Errno| source.raw_os_error() == Some(errno.raw_os_error());
    is(Errno::MFILE) || is(Errno::NFILE)
}

/// Renames a damaged file to a `.corrupt` name that is not taken. Called with its lock held, where it has one.
fn set_aside(files: &Files, path: PathBuf, damage: &Damage) -> Problem {
    match rename_aside(files, &path) {
        Ok(aside) => Problem { path: aside, why: format!("set aside: {damage}") },
        Err(error) => Problem { why: format!("damaged ({damage}), and can't be set aside: {error}"), path },
    }
}

fn rename_aside(files: &Files, path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut aside = path.with_file_name(format!("{name}.corrupt"));
    while files.link_stat(&aside).is_ok() {
        // Nothing set aside earlier is overwritten.
        aside = path.with_file_name(format!("{name}.{:08x}.corrupt", fastrand::u32(..)));
    }
    files.rename(path, &aside)?;
    Ok(aside)
}
