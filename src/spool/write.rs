//! Writing records: a new file for each, whole or not there.

use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
};

use super::{
    error::SpoolError,
    files::{File, How},
    format::{self, FileName},
    place::{make_directory, share_with_group},
    record::{Kind, Record, What},
    scan,
    store::{Marks, Place, Spool},
};

impl Spool {
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
        self.write(Kind::Ask, &self.named(record))
    }

    /// Writes a mark durably and keeps it locked, in place of the held marks of the same key and kind. One that the disk refuses
    /// is owed: [`Spool::make_good`].
    pub fn write_mark(&mut self, record: &Record) -> Result<(), SpoolError> {
        let which = (record.key.clone(), Marks::of(&record.what));
        self.unwritten.remove(&which);
        if let Err(error) = self.write(Kind::Mark, &self.named(record)) {
            self.unwritten.insert(which, record.clone());
            return Err(error);
        }
        // Should an older one come back after a power loss, it says nothing that was not true: no fsync for that.
        self.unlink_marks(&record.key, Marks::of(&record.what), Some(&record.id)).map(drop)
    }

    /// The record, with the manager of whoever writes it.
    fn named(&self, record: &Record) -> Record {
        let mut record = record.clone();
        if record.managers.is_empty() {
            record.managers = self.holder.managers.clone();
        }
        record
    }

    fn write(&mut self, kind: Kind, record: &Record) -> Result<(), SpoolError> {
        if !format::is_id(&record.id.0) {
            return Err(SpoolError::BadId { id: record.id.0.clone() });
        }
        if let Some(held) = self.held.get(&record.id)
            && scan::is_at(&self.files, &held.file, &self.path_of(held))
        {
            return self.sync([]);
        }
        self.write_anew(kind, record)
    }

    /// Writes a record as a new file, whether or not one has its name.
    pub(super) fn write_anew(&mut self, kind: Kind, record: &Record) -> Result<(), SpoolError> {
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
        self.hold(file, Place::Own, kind, record.clone());
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
        self.owed.remove(&Place::Own);
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
}
