//! The spool's directory itself: making it, its lock, modes.

use std::{io, path::Path};

use super::{
    error::SpoolError,
    files::{File, Files, How},
};

/// The lock of whoever replays other keys' records. Never renamed or removed.
pub(super) const LOCK: &str = "spool.lock";

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

pub(super) fn open_lock(files: &Files, dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join(LOCK);
    let file = files.open(&path, How::OrNew).map_err(SpoolError::at("open it", &path))?;
    share_with_group(files, dir, &path);
    Ok(file)
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
