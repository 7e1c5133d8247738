//! Taking over what dead processes left, and setting aside what is damaged.

use std::{collections::BTreeSet, time::Duration};

use rustix::{io::Errno, process::Resource};

use super::{
    error::SpoolError,
    files::File,
    format::{self, FileName},
    house::set_aside,
    place::{self, Lock},
    record::{Kind, Record, RecordId},
    scan::{self, Access, Name, Opened, Problem},
    store::{Place, Spool},
    whose::Whose,
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
    /// Asks that nobody holds and that are not for this process's manager, as far as anybody can say: for another, or for one that
    /// they don't name. They are left as they are.
    pub strangers: Vec<Record>,
    /// Damaged files (set aside as `….corrupt` where that was possible), files of a newer version, and unreadable ones.
    pub problems: Vec<Problem>,
    /// Asks, and a directory, that can't be read: they stay, and may be taken another time.
    pub unreadable: usize,
    /// Records that a living process holds.
    pub busy: usize,
    /// There are more records than are taken at a time: adopt again, once these are settled if nothing was taken.
    pub more: bool,
}

impl Taken {
    /// Nothing was there to be taken or said, and no living process holds what could be taken later.
    pub fn is_nothing(&self) -> bool {
        let none = self.records.is_empty() && self.strangers.is_empty() && self.problems.is_empty();
        none && self.busy == 0 && !self.more
    }
}

/// What one look through the spool took over.
#[derive(Debug)]
#[must_use = "what was taken is held"]
pub struct Adopted {
    /// Of the own key.
    pub own: Taken,
    /// Of other keys; `None` where another living process does this for the same Dragonfly.
    pub others: Result<Option<Taken>, SpoolError>,
    /// Nobody else keeps the directory in order: it is this process's to tell of what is nobody's.
    pub keeps_house: bool,
    /// Nobody else can be seen on this spool.
    alone: bool,
}

impl Adopted {
    /// There was nothing, and no other living process was seen on this spool.
    pub fn is_nothing(&self) -> bool {
        self.alone && self.own.is_nothing() && matches!(&self.others, Ok(Some(taken)) if taken.is_nothing())
    }
}

/// All asks of a spool that no living process holds, as `queue flush` takes them.
#[derive(Debug)]
#[must_use = "what was taken is held"]
pub struct Unheld {
    /// Those for this process's manager.
    pub taken: Taken,
    /// Asks for its manager that living processes hold.
    pub held: Vec<Record>,
}

/// What is done with a record that was opened.
pub(super) enum Sort {
    Take,
    Stranger,
    Leave,
}

/// The names in a spool's directories.
pub(super) struct Names {
    own: Vec<Name>,
    older: Vec<Name>,
    problem: Option<Problem>,
}

/// A record's file that was opened and locked.
pub(super) struct Found {
    file: File,
    place: Place,
    kind: Kind,
    pub(super) record: Record,
}

/// A record's file that this process doesn't hold.
pub(super) type At = (FileName, Place);

impl Spool {
    /// Takes what dead processes left for this key: locks it, and returns what was not held yet. Records that a living process
    /// holds are left alone; so this may be repeated, to take them once it is gone.
    pub fn take_own(&mut self, key: &SchedulerKey) -> Result<Taken, SpoolError> {
        self.see_to_the_place();
        let names = self.names()?;
        Ok(self.take_own_of(&names, key))
    }

    /// Takes what dead processes left for other keys, for the same manager: for each key with an ask, its asks and marks. `None`
    /// where another living process does this for that Dragonfly. Once this process has that lock it keeps it for life. Marks that
    /// nobody holds and no ask needs are looked through for damage; the oldest of them go when the spool is half full.
    pub fn adopt_foreign(&mut self, except: Option<&SchedulerKey>) -> Result<Option<Taken>, SpoolError> {
        let names = self.names()?;
        let keeps_house = self.try_to_keep_house();
        self.adopt_foreign_of(&names, except, usize::MAX, keeps_house)
    }

    /// Both, by one look at the directory, and only some of the others' asks at a time.
    pub fn adopt(&mut self, own: &SchedulerKey) -> Result<Adopted, SpoolError> {
        let names = self.names()?;
        let keeps_house = self.try_to_keep_house();
        let taken = self.take_own_of(&names, own);
        let others = self.adopt_foreign_of(&names, Some(own), AT_A_LOOK, keeps_house);
        let alone = keeps_house && self.older.is_none();
        Ok(Adopted { own: taken, others, keeps_house, alone })
    }

    /// Takes every ask for this process's manager that nobody holds, with its key's marks, whoever leads.
    pub fn take_unheld(&mut self) -> Result<Unheld, SpoolError> {
        // Without locks nobody knows what is held.
        self.house.works()?;
        let names = self.names()?;
        let mut taken = Taken::default();
        self.take_asks(&names, None, usize::MAX, &mut taken);
        let held = if taken.busy == 0 { Vec::new() } else { self.held_by_others()? };
        Ok(Unheld { taken, held })
    }

    /// Takes these asks, whoever they are for, if nobody holds them.
    pub fn take_these(&mut self, ids: &[RecordId]) -> Result<Taken, SpoolError> {
        let names = self.names()?;
        let asks = self.unheld(&names, |name| name.kind == Kind::Ask && ids.contains(&name.id));
        let (mut taken, mut found) = (Taken::default(), Vec::new());
        let room = self.room(self.limits.foreign);
        self.take(asks, &mut found, &mut taken, room, |_| Sort::Take);
        self.keep(found, &mut taken);
        Ok(taken)
    }

    /// The asks for this process's manager that other, living processes hold.
    fn held_by_others(&self) -> Result<Vec<Record>, SpoolError> {
        let locked = self.scan()?.asks.into_iter().filter(|entry| entry.locked).map(|entry| entry.record);
        let others = locked.filter(|record| !self.held.contains_key(&record.id));
        Ok(others.filter(|record| self.holder.whose(record) == Whose::Ours).collect())
    }

    fn names(&mut self) -> Result<Names, SpoolError> {
        let own = scan::names(&self.files, &self.dir)?;
        let (older, problem) = match self.older_names() {
            Ok(names) => (names, None),
            // Nothing lies there any more.
            Err(SpoolError::Missing { .. }) => (Vec::new(), None),
            Err(error) => {
                let path = self.older.clone().unwrap_or_else(|| self.dir.clone());
                (Vec::new(), Some(Problem { path, why: error.to_string() }))
            }
        };
        Ok(Names { own, older, problem })
    }

    fn older_names(&mut self) -> Result<Vec<Name>, SpoolError> {
        if self.older.is_none() {
            self.older = place::older(&self.files, &self.dir)?;
        }
        self.older.as_ref().map_or_else(|| Ok(Vec::new()), |dir| scan::names(&self.files, dir))
    }

    fn take_own_of(&mut self, names: &Names, key: &SchedulerKey) -> Taken {
        let hash = format::key_hash(key);
        let mut taken = Taken { problems: names.problem.iter().cloned().collect(), ..Taken::default() };
        let names = self.unheld(names, |name| name.hash == hash);
        let mut found = Vec::new();
        let owns = |record: &Record| match record {
            _ if self.holder.owns(key, record) => Sort::Take,
            _ if self.holder.may_have_owned(key, record) => Sort::Stranger,
            _ => Sort::Leave,
        };
        self.take(names, &mut found, &mut taken, self.room(usize::MAX), owns);
        self.keep(found, &mut taken);
        // What their agent began may still be applied to this one's row, as if it lived.
        taken.busy += std::mem::take(&mut taken.strangers).len();
        taken
    }

    fn adopt_foreign_of(
        &mut self,
        names: &Names,
        except: Option<&SchedulerKey>,
        at_most: usize,
        keeps_house: bool,
    ) -> Result<Option<Taken>, SpoolError> {
        if !self.try_lead()? {
            return Ok(None);
        }
        let mut taken = Taken::default();
        if keeps_house {
            self.remove_leftovers(&names.own);
            self.set_misnamed_aside(&names.own, &mut taken);
        }
        let idle = self.take_asks(names, except, at_most, &mut taken);
        if keeps_house && !taken.more {
            let records = names.own.iter().filter(|name| matches!(name, Name::Record(_))).count();
            let foreign = |record: &Record| !except.is_some_and(|own| self.holder.owns(own, record));
            self.tend_idle_marks(idle, records, &mut taken, foreign);
        }
        Ok(Some(taken))
    }

    /// Takes the asks of keys other than `except` that are for this manager, with those keys' marks. Answers with the marks that
    /// nobody holds and no ask needs.
    fn take_asks(
        &mut self,
        names: &Names,
        except: Option<&SchedulerKey>,
        at_most: usize,
        taken: &mut Taken,
    ) -> Vec<At> {
        // What may lie there is unread.
        taken.unreadable += usize::from(names.problem.is_some());
        taken.problems.extend(names.problem.clone());
        let mut asks = self.unheld(names, |name| name.kind == Kind::Ask);
        // What comes after those that had their turn: what is let go of unsettled keeps nothing from its own.
        let next = asks.partition_point(|at| Some(at) <= self.last_adopted.as_ref());
        asks.rotate_left(next);
        let mut found = Vec::new();
        let room = self.room(self.limits.foreign).min(at_most);
        let sort = |record: &Record| match self.holder.whose(record) {
            // Its own agent's, by another look.
            _ if except.is_some_and(|own| self.holder.owns(own, record)) => Sort::Leave,
            Whose::Ours => Sort::Take,
            Whose::Anothers | Whose::Unsaid => Sort::Stranger,
        };
        self.take(asks, &mut found, taken, room, sort);
        if let Some(Found { place, kind, record, .. }) = found.last() {
            self.last_adopted = Some((FileName::of(*kind, record), *place));
        }

        let keys: BTreeSet<SchedulerKey> = found.iter().map(|found| found.record.key.clone()).collect();
        let hashes: BTreeSet<String> = keys.iter().map(format::key_hash).collect();
        // An ask that was taken may have a mark that is younger than the look. Where that can't be looked for, it stays.
        let again = if keys.is_empty() { None } else { self.names().ok() };
        let (needed, idle): (Vec<_>, Vec<_>) = self
            .unheld(again.as_ref().unwrap_or(names), |name| name.kind == Kind::Mark)
            .into_iter()
            .partition(|(name, _)| hashes.contains(&name.hash));
        let of_these = |record: &Record| {
            let taken = keys.contains(&record.key) && self.holder.whose(record) == Whose::Ours;
            if taken { Sort::Take } else { Sort::Leave }
        };
        self.take(needed, &mut found, taken, self.room(usize::MAX), of_these);
        self.keep(found, taken);
        idle
    }

    /// Whether this process takes what is for its Dragonfly, or could begin to now.
    fn try_lead(&mut self) -> Result<bool, SpoolError> {
        if self.lead.is_none() {
            let name = place::lock_of(&self.holder.managers);
            self.lead = Some(Lock::open(&self.files, &self.dir, &name)?);
        }
        self.lead.as_mut().map_or(Ok(false), |lead| lead.take(&self.files, &self.dir))
    }

    /// Whether this process keeps the directory in order, or could begin to now.
    fn try_to_keep_house(&mut self) -> bool {
        // Of a place that isn't what it was nothing is known yet.
        self.see_to_the_place() && self.house.take(&self.files, &self.dir).unwrap_or(false)
    }

    /// The records' files that this process doesn't hold.
    fn unheld(&self, names: &Names, which: impl Fn(&FileName) -> bool) -> Vec<At> {
        let of = |names: &[Name], place| -> Vec<At> {
            let records = names.iter().filter_map(|name| match name {
                Name::Record(name) => Some(name),
                _ => None,
            });
            let unheld = records.filter(|name| which(name) && !self.held.contains_key(&name.id));
            unheld.map(|name| (name.clone(), place)).collect()
        };
        let mut all = of(&names.own, Place::Own);
        all.extend(of(&names.older, Place::Older));
        all.sort_unstable();
        all
    }

    /// How many more records may be held where `limit` of them may be, and kept open: half of the files this process may open,
    /// since it needs some for itself.
    fn room(&self, limit: usize) -> usize {
        let files = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
        usize::try_from(files).unwrap_or(usize::MAX).min(limit).saturating_sub(self.held.len())
    }

    fn take(
        &self,
        names: Vec<At>,
        found: &mut Vec<Found>,
        taken: &mut Taken,
        room: usize,
        sort: impl Fn(&Record) -> Sort,
    ) {
        self.take_waiting(names, found, taken, room, sort, || self.files.wait(LOOKED_AT));
    }

    /// Tries what is locked once more, after `wait`.
    pub(super) fn take_waiting(
        &self,
        names: Vec<At>,
        found: &mut Vec<Found>,
        taken: &mut Taken,
        room: usize,
        sort: impl Fn(&Record) -> Sort,
        wait: impl FnOnce(),
    ) {
        let busy = self.take_once(names, found, taken, room, &sort);
        if !busy.is_empty() {
            wait();
            taken.busy += self.take_once(busy, found, taken, room, &sort).len();
        }
    }

    /// Until `found` has as many as there is room for. Answers with what somebody has locked.
    pub(super) fn take_once(
        &self,
        names: Vec<At>,
        found: &mut Vec<Found>,
        taken: &mut Taken,
        room: usize,
        sort: impl Fn(&Record) -> Sort,
    ) -> Vec<At> {
        let mut busy = Vec::new();
        for (name, place) in names {
            if found.len() >= room {
                taken.more = true;
                break;
            }
            let path = self.dir_of(place).join(name.to_string());
            let opened = match scan::open(&self.files, &path, &name, Access::Take) {
                // Without locks there is no telling who lives, but there is one agent for a key.
                Opened::Unreadable(SpoolError::NoLocks { .. }) => {
                    scan::open(&self.files, &path, &name, Access::Look)
                }
                opened => opened,
            };
            match opened {
                Opened::Whole { file, record, .. } => match sort(&record) {
                    Sort::Take => found.push(Found { file, place, kind: name.kind, record: *record }),
                    Sort::Stranger if taken.strangers.len() < self.limits.foreign => {
                        taken.strangers.push(*record);
                    }
                    Sort::Stranger | Sort::Leave => {}
                },
                Opened::Gone => {}
                Opened::Locked => busy.push((name, place)),
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
    fn keep(&mut self, mut found: Vec<Found>, taken: &mut Taken) {
        let places: BTreeSet<Place> = found.iter().map(|found| found.place).collect();
        if !found.is_empty()
            && let Err(error) = self.sync(places)
        {
            // It is owed now, and no reason to leave undone what was asked.
            taken.problems.push(Problem { path: self.dir.clone(), why: error.to_string() });
        }
        found.sort_by(|a, b| (a.record.at, &a.record.id).cmp(&(b.record.at, &b.record.id)));
        for Found { file, place, kind, mut record } in found {
            if record.managers == self.holder.managers {
                // Thousands may be held: one list for all.
                record.managers = self.holder.managers.clone();
            }
            taken.records.push((kind, record.clone()));
            self.hold(file, place, kind, record);
        }
    }
}

fn out_of_files(error: &SpoolError) -> bool {
    let SpoolError::Io { source, .. } = error else { return false };
    let is = |errno: Errno| source.raw_os_error() == Some(errno.raw_os_error());
    is(Errno::MFILE) || is(Errno::NFILE)
}
