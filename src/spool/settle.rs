//! Settling records: renames, removals, one fsync.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::{
    error::SpoolError,
    format::FileName,
    record::{Kind, Record, RecordId},
    store::{Held, Marks, Place, Spool},
};
use crate::key::SchedulerKey;

/// What settling did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// The asks that are marks now.
    pub marked: Vec<RecordId>,
    /// The asks that were gone already: somebody dropped them by hand.
    pub vanished: Vec<RecordId>,
}

impl Spool {
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
        let mut changed = BTreeSet::new();
        for (key, ids) in newest_last {
            let mut ids: Vec<RecordId> = ids.into_values().collect();
            let mut mark = None;
            if keep_as_mark {
                // First the mark, then the removals: whatever a crash leaves says that the sign-off was asked or made.
                match self.mark_newest(&mut ids, &mut settled, &mut changed) {
                    Ok(marked) => mark = marked,
                    Err(error) => {
                        self.refused.extend(ids.into_iter().map(|id| (id, true)));
                        failed.get_or_insert(error);
                        continue;
                    }
                }
            }
            for id in ids {
                match self.unlink(&id) {
                    Ok(Some(place)) => drop(changed.insert(place)),
                    Ok(None) => settled.vanished.push(id),
                    Err(error) => {
                        self.refused.insert(id, false);
                        failed.get_or_insert(error);
                    }
                }
            }
            if let Some(mark) = mark {
                match self.unlink_marks(&key, Marks::SignOff, Some(&mark)) {
                    Ok(places) => changed.extend(places),
                    Err(error) => {
                        failed.get_or_insert(error);
                    }
                }
            }
        }
        self.sync(changed)?;
        failed.map_or(Ok(settled), Err)
    }

    /// Whether the disk refused something that is to be made good.
    pub fn owes(&self) -> bool {
        !self.owed.is_empty() || !self.refused.is_empty() || !self.unwritten.is_empty()
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
        match self.unlink_marks(key, which, None) {
            Ok(changed) => self.sync(changed),
            Err(error) => {
                self.sync([Place::Own])?;
                Err(error)
            }
        }
    }

    /// Renames the newest ask that is still there to its mark, and takes it off `ids`. Answers which that was.
    fn mark_newest(
        &mut self,
        ids: &mut Vec<RecordId>,
        settled: &mut Settled,
        changed: &mut BTreeSet<Place>,
    ) -> Result<Option<RecordId>, SpoolError> {
        while let Some(id) = ids.pop() {
            let Some(held) = self.held.get(&id) else { continue };
            let ask = self.path_of(held);
            let mark = ask.with_file_name(FileName::of(Kind::Mark, &held.record).to_string());
            let renamed = self.files.rename(&ask, &mark);
            let Some(held) = self.held.get_mut(&id) else { continue };
            match renamed {
                Ok(()) => {
                    held.kind = Kind::Mark;
                    changed.insert(held.place);
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

    /// Removes a held record's file and lets go of it. Answers from which directory, if it was still there.
    fn unlink(&mut self, id: &RecordId) -> Result<Option<Place>, SpoolError> {
        let Some(held) = self.held.get(id) else { return Ok(None) };
        let path = self.path_of(held);
        let there = match self.files.remove(&path) {
            Ok(()) => Some(held.place),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(SpoolError::at("remove it", &path)(error)),
        };
        self.held.remove(id);
        Ok(there)
    }

    /// Removes a key's held marks of one kind. Answers from which directories.
    pub(super) fn unlink_marks(
        &mut self,
        key: &SchedulerKey,
        which: Marks,
        except: Option<&RecordId>,
    ) -> Result<BTreeSet<Place>, SpoolError> {
        let of_key = |held: &&Held| {
            held.kind == Kind::Mark && held.record.key == *key && which.include(&held.record.what)
        };
        let ids: BTreeSet<RecordId> =
            self.held.values().filter(of_key).map(|held| held.record.id.clone()).collect();
        let mut changed = BTreeSet::new();
        for id in ids.iter().filter(|id| Some(*id) != except) {
            changed.extend(self.unlink(id)?);
        }
        Ok(changed)
    }

    /// Makes what changed in these directories durable, and what is owed.
    pub(super) fn sync(&mut self, changed: impl IntoIterator<Item = Place>) -> Result<(), SpoolError> {
        self.owed.extend(changed);
        for place in self.owed.clone() {
            let dir = self.dir_of(place);
            self.files.sync_directory(dir).map_err(SpoolError::at("fsync the directory", dir))?;
            self.owed.remove(&place);
        }
        Ok(())
    }
}
