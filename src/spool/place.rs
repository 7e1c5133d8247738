//! The spool's directory itself: making it, its locks, modes.

use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
};

use super::{
    error::SpoolError,
    files::{File, Files, How},
    format,
    scan::{self, There},
    whose::Managers,
};

/// The lock of whoever keeps the directory in order. It is there wherever a spool is; never renamed or removed.
pub(super) const LOCK: &str = "spool.lock";

/// The lock of whoever takes the records for these managers. Never renamed or removed either.
pub(super) fn lock_of(managers: &Managers) -> String {
    let endpoints = managers.endpoints().join("\n");
    format!("spool.{:08x}.lock", format::crc32(endpoints.as_bytes()))
}

/// The spool that the spool in `dir` lies in, if it lies in one. Fails where the disk can't tell.
pub(super) fn older(files: &Files, dir: &Path) -> Result<Option<PathBuf>, SpoolError> {
    let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(None) };
    let lock = parent.join(LOCK);
    match files.link_stat(&lock) {
        Ok(stat) => Ok(stat.is_file.then(|| parent.to_owned())),
        // What can't be seen by this user is no spool of its.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            Ok(None)
        }
        Err(error) => Err(SpoolError::at("look at it", &lock)(error)),
    }
}

/// A lock's file, and whether this process has it locked.
pub(super) struct Lock {
    path: PathBuf,
    file: File,
    held: bool,
}

impl Lock {
    /// Opens the lock of this name, which is made if it is missing.
    pub(super) fn open(files: &Files, dir: &Path, name: &str) -> Result<Self, SpoolError> {
        let path = dir.join(name);
        let file = files.open(&path, How::OrNew).map_err(SpoolError::at("open it", &path))?;
        share_with_group(files, dir, &path);
        Ok(Self { path, file, held: false })
    }

    /// Fails where its file system has no locks.
    pub(super) fn works(&self) -> Result<(), SpoolError> {
        match self.file.try_lock_shared() {
            // Held any longer it would keep others from it.
            Ok(()) if !self.held => drop(self.file.unlock()),
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => {
                return Err(SpoolError::NoLocks { path: self.path.clone(), source });
            }
        }
        Ok(())
    }

    /// Whether its name still is this very file's. Fails where the disk can't tell.
    pub(super) fn is_there(&self, files: &Files) -> io::Result<bool> {
        scan::look(files, &self.file, &self.path).map(|there| there == There::This)
    }

    /// Whether this process has it locked, or could lock it now. Where the name is another file's, the lock that others take is
    /// that one's.
    pub(super) fn take(&mut self, files: &Files, dir: &Path) -> Result<bool, SpoolError> {
        // Where the disk can't tell, it is what it was.
        if !self.is_there(files).unwrap_or(true) {
            let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            *self = Self::open(files, dir, &name)?;
        }
        if !self.held {
            self.held = match self.file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(source)) => {
                    return Err(SpoolError::NoLocks { path: self.path.clone(), source });
                }
            };
        }
        Ok(self.held)
    }
}

pub(super) fn make_directory(files: &Files, dir: &Path) -> Result<(), SpoolError> {
    match files.stat(dir) {
        Ok(stat) if stat.is_directory => return Ok(()),
        Ok(_) => return Err(SpoolError::NotADirectory { path: dir.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(SpoolError::at("look at it", dir)(error)),
    }
    files.make_directory(dir).map_err(SpoolError::at("make the directory", dir))?;
    // Else a power loss could take the directory with all that is fsynced in it.
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        files.sync_directory(parent).map_err(SpoolError::at("fsync the directory", parent))?;
    }
    Ok(())
}

/// Where the directory's group may write, it may write the files too, whatever the umask: an agent under another uid replays
/// them. Where that is refused, the file is somebody else's and has its mode, or the volume has no modes.
pub(super) fn share_with_group(files: &Files, dir: &Path, path: &Path) {
    const GROUP_WRITE: u32 = 0o020;
    let mode = |path: &Path| files.link_stat(path).map_or(0, |stat| stat.mode);
    if mode(dir) & GROUP_WRITE != 0 && mode(path) & GROUP_WRITE == 0 {
        let _ = files.share(path);
    }
}
