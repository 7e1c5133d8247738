//! Seeing to it that what is held is still there, under its name.

use std::path::Path;

use super::{
    error::SpoolError,
    format::FileName,
    house::rename_aside,
    place::{self, Lock},
    record::RecordId,
    scan::{self, Access, Opened, There},
    store::{Place, Spool},
};

impl Spool {
    /// Which of these records, held by this process, somebody dropped by hand: their names are missing. They stay held until they
    /// are settled or released. A file that has the name and is another one is the record still, a copy of it: it is opened and
    /// locked anew. Where the directory itself or its lock is not what it was, no missing name says anything: all that is held is
    /// written again.
    pub fn vanished(&mut self, ids: &[RecordId]) -> Vec<RecordId> {
        if !self.see_to_the_place() {
            return Vec::new();
        }
        let mut dropped = Vec::new();
        for id in ids {
            match self.there(id) {
                Some(There::Nothing) => dropped.push(id.clone()),
                Some(There::Another) => self.take_again(id),
                Some(There::This) | None => {}
            }
        }
        dropped
    }

    /// Whether the directory and its lock, which nobody removes, are what they were, or what is held is in them again.
    pub(super) fn see_to_the_place(&mut self) -> bool {
        // Where the disk can't tell, they are.
        self.house.is_there(&self.files).unwrap_or(true) || self.write_what_is_missing()
    }

    /// What has the name of a record that this process holds. `None`: it isn't held, or the disk can't tell.
    fn there(&self, id: &RecordId) -> Option<There> {
        let held = self.held.get(id)?;
        let there = scan::look(&self.files, &held.file, &self.path_of(held)).ok()?;
        // Of a directory that is gone no name is missing.
        let is_gone = there == There::Nothing
            && held.place == Place::Older
            && !matches!(place::older(&self.files, &self.dir), Ok(Some(_)));
        (!is_gone).then_some(there)
    }

    /// The directory is another one, or was emptied and filled again: a volume that was restored. Whatever is held and not there
    /// is written again; only when all is there is the place taken for what it should be.
    fn write_what_is_missing(&mut self) -> bool {
        let held: Vec<RecordId> = self.held.keys().cloned().collect();
        let mut whole = true;
        for id in held {
            match self.there(&id) {
                Some(There::Nothing) => whole &= self.write_again(&id),
                Some(There::Another) => self.take_again(&id),
                Some(There::This) => {}
                None => whole = false,
            }
        }
        // With the lock goes what tells that this is to be done.
        whole && Lock::open(&self.files, &self.dir, place::LOCK).map(|house| self.house = house).is_ok()
    }

    /// Writes a held record anew, from memory. Answers whether the disk took it.
    fn write_again(&mut self, id: &RecordId) -> bool {
        let Some(held) = self.held.get(id) else { return true };
        let (kind, record, order) = (held.kind, held.record.clone(), held.order);
        let written = self.write_anew(kind, &record).is_ok();
        if let Some(held) = self.held.get_mut(id) {
            held.order = order;
        }
        written
    }

    /// Another file has a held record's name: it is the record, if it reads as it.
    fn take_again(&mut self, id: &RecordId) {
        let Some(held) = self.held.get(id) else { return };
        let (path, name) = (self.path_of(held), FileName::of(held.kind, &held.record));
        let opened = match scan::open(&self.files, &path, &name, Access::Take) {
            // Without locks there is no telling who has it.
            Opened::Unreadable(SpoolError::NoLocks { .. }) => {
                scan::open(&self.files, &path, &name, Access::Look)
            }
            opened => opened,
        };
        match opened {
            Opened::Whole { file, record, .. } if *record == held.record => {
                if let Some(held) = self.held.get_mut(id) {
                    held.file = file;
                }
            }
            Opened::Whole { .. } | Opened::Damaged(..) => self.replace(id, &path),
            // Somebody else took the copy, or the disk can't tell: it is asked for still.
            Opened::Locked | Opened::Newer(_) | Opened::Gone | Opened::Unreadable(_) => {}
        }
    }

    /// What has a held record's name is not it: it is set aside, and the record written again.
    fn replace(&mut self, id: &RecordId, path: &Path) {
        if rename_aside(&self.files, path).is_ok() {
            self.write_again(id);
        }
    }
}
