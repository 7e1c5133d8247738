//! The spool's directory itself: making it, its lock, modes, and what is fsynced.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::{error::SpoolError, scan};

/// The lock of whoever replays other keys' records. Never renamed or removed.
pub(super) const LOCK: &str = "spool.lock";

pub(super) const FILE_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o770;

/// What is fsynced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Synced {
    File,
    Directory,
}

/// Makes a file, or the directory, durable. Tests put their own in its place.
pub(super) type Sync = Box<dyn FnMut(Synced, &Path, Option<&File>) -> io::Result<()> + Send>;

pub(super) fn sync(what: Synced, path: &Path, file: Option<&File>) -> io::Result<()> {
    match (what, file) {
        (Synced::File, Some(file)) => file.sync_all(),
        (Synced::File, None) | (Synced::Directory, _) => scan::sync_directory(path),
    }
}

pub(super) fn make_directory(dir: &Path) -> Result<(), SpoolError> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => return Err(SpoolError::NotADirectory { path: dir.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(SpoolError::at("look at it", dir)(error)),
    }
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(dir)
        .map_err(SpoolError::at("make the directory", dir))?;
    // Else a power loss could take the directory with all that is fsynced in it.
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        scan::sync_directory(parent).map_err(SpoolError::at("fsync the directory", parent))?;
    }
    Ok(())
}

pub(super) fn open_lock(dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    let file = options.open(&path).map_err(SpoolError::at("open it", &path))?;
    share_with_group(dir, &path);
    Ok(file)
}

/// Where the directory's group may write, it may write the files too, whatever the umask: an agent under another uid replays
/// them. Where that is refused, the file is somebody else's and has its mode, or the volume has no modes.
pub(super) fn share_with_group(dir: &Path, path: &Path) {
    const GROUP_WRITE: u32 = 0o020;
    let mode = |path: &Path| fs::symlink_metadata(path).map_or(0, |metadata| metadata.mode());
    if mode(dir) & GROUP_WRITE != 0 && mode(path) & GROUP_WRITE == 0 {
        let _ = fs::set_permissions(path, Permissions::from_mode(FILE_MODE));
    }
}
