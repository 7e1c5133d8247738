//! What a spool does to files, all of it, in one place: so that another file system can stand in for the real one in tests.
//!
//! Built to be shipped there is only [`Files::Real`], and each of these is a call of `std::fs` and nothing else.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use rustix::fs::{Access, OFlags};

#[cfg(test)]
pub(crate) use other::{FileSystem, OpenFile};

pub(super) const FILE_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o770;

/// A file system.
#[derive(Clone)]
pub(crate) enum Files {
    /// The machine's own.
    Real,
    /// One made up by a test.
    #[cfg(test)]
    Other(std::sync::Arc<dyn FileSystem>),
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// To be written, and not there before.
    New,
    /// To be written, and made if it is missing.
    OrNew,
    /// To be written, and there; without following a link or waiting for a pipe's other end.
    Write,
    /// As [`How::Write`], to be read only.
    Read,
}

/// What is at a path, or open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The device and the inode: which file it is, whatever its name.
    pub(crate) id: (u64, u64),
    pub(crate) is_file: bool,
    pub(crate) is_directory: bool,
    pub(crate) mode: u32,
}

impl From<fs::Metadata> for Stat {
    fn from(metadata: fs::Metadata) -> Self {
        Self {
            id: (metadata.dev(), metadata.ino()),
            is_file: metadata.is_file(),
            is_directory: metadata.is_dir(),
            mode: metadata.mode(),
        }
    }
}

impl Files {
    /// Follows links.
    pub(super) fn stat(&self, path: &Path) -> io::Result<Stat> {
        match self {
            Self::Real => fs::metadata(path).map(Stat::from),
            #[cfg(test)]
            Self::Other(other) => other.stat(path),
        }
    }

    /// Of a link, the link's own.
    pub(super) fn link_stat(&self, path: &Path) -> io::Result<Stat> {
        match self {
            Self::Real => fs::symlink_metadata(path).map(Stat::from),
            #[cfg(test)]
            Self::Other(other) => other.stat(path),
        }
    }

    /// With those above it.
    pub(super) fn make_directory(&self, dir: &Path) -> io::Result<()> {
        match self {
            Self::Real => DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir),
            #[cfg(test)]
            Self::Other(other) => other.make_directory(dir),
        }
    }

    /// Whether this process may make files in a directory.
    pub(super) fn may_write_in(&self, dir: &Path) -> io::Result<()> {
        match self {
            Self::Real => Ok(rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK)?),
            #[cfg(test)]
            Self::Other(_) => Ok(()),
        }
    }

    /// The mode of a record's file.
    pub(super) fn share(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::set_permissions(path, Permissions::from_mode(FILE_MODE)),
            #[cfg(test)]
            Self::Other(_) => Ok(()),
        }
    }

    /// The names that are UTF-8, in any order.
    pub(super) fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        match self {
            Self::Real => {
                let mut names = Vec::new();
                for entry in fs::read_dir(dir)? {
                    names.extend(entry?.file_name().into_string());
                }
                Ok(names)
            }
            #[cfg(test)]
            Self::Other(other) => other.names(dir),
        }
    }

    pub(super) fn open(&self, path: &Path, how: How) -> io::Result<File> {
        #[allow(clippy::cast_possible_wrap)]
        let careful = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32;
        let mut options = OpenOptions::new();
        options.read(true).write(how != How::Read);
        match how {
            How::New => options.create_new(true).mode(FILE_MODE),
            How::OrNew => options.create(true).truncate(false).mode(FILE_MODE),
            How::Write | How::Read => options.custom_flags(careful),
        };
        match self {
            Self::Real => options.open(path).map(File::Real),
            #[cfg(test)]
            Self::Other(other) => other.open(path, how).map(File::Other),
        }
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::rename(from, to),
            #[cfg(test)]
            Self::Other(other) => other.rename(from, to),
        }
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::remove_file(path),
            #[cfg(test)]
            Self::Other(other) => other.remove(path),
        }
    }

    /// Lets others do what they are about to do to these files.
    pub(super) fn wait(&self, duration: Duration) {
        match self {
            Self::Real => std::thread::sleep(duration),
            #[cfg(test)]
            Self::Other(files) => files.wait(duration),
        }
    }

    /// Makes renames and removals in `dir` durable.
    pub(super) fn sync_directory(&self, dir: &Path) -> io::Result<()> {
        match self {
            Self::Real => match fs::File::open(dir)?.sync_all() {
                // Some network file systems have no such thing for directories.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
                {
                    Ok(())
                }
                other => other,
            },
            #[cfg(test)]
            Self::Other(other) => other.sync_directory(dir),
        }
    }
}

/// An open file.
pub(crate) enum File {
    /// The machine's own.
    Real(fs::File),
    /// One of a file system made up by a test.
    #[cfg(test)]
    Other(Box<dyn OpenFile>),
}

impl File {
    pub(super) fn stat(&self) -> io::Result<Stat> {
        match self {
            Self::Real(file) => file.metadata().map(Stat::from),
            #[cfg(test)]
            Self::Other(other) => other.stat(),
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Real(file) => file.write_all(bytes),
            #[cfg(test)]
            Self::Other(other) => other.write_all(bytes),
        }
    }

    /// All that there is, up to `limit` bytes.
    pub(super) fn read(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        match self {
            Self::Real(file) => {
                let mut bytes = Vec::new();
                file.take(limit).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            #[cfg(test)]
            Self::Other(other) => other.read(limit),
        }
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.sync_all(),
            #[cfg(test)]
            Self::Other(other) => other.sync(),
        }
    }

    pub(super) fn try_lock(&self) -> Result<(), TryLockError> {
        match self {
            Self::Real(file) => file.try_lock(),
            #[cfg(test)]
            Self::Other(other) => other.try_lock(),
        }
    }

    pub(super) fn try_lock_shared(&self) -> Result<(), TryLockError> {
        match self {
            Self::Real(file) => file.try_lock_shared(),
            #[cfg(test)]
            Self::Other(other) => other.try_lock_shared(),
        }
    }

    pub(super) fn unlock(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.unlock(),
            #[cfg(test)]
            Self::Other(other) => other.unlock(),
        }
    }
}

#[cfg(test)]
mod other {
    use std::{fs::TryLockError, io, path::Path, time::Duration};

    use super::{How, Stat};

    /// A file system made up by a test: each as its namesake of [`super::Files`]. What it makes has the mode of a record's file.
    pub(crate) trait FileSystem: Send + Sync {
        fn wait(&self, duration: Duration);
        fn stat(&self, path: &Path) -> io::Result<Stat>;
        fn make_directory(&self, dir: &Path) -> io::Result<()>;
        fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
        fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn OpenFile>>;
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
        fn remove(&self, path: &Path) -> io::Result<()>;
        fn sync_directory(&self, dir: &Path) -> io::Result<()>;
    }

    /// An open file of such a file system. Its lock goes with it.
    pub(crate) trait OpenFile: Send {
        fn stat(&self) -> io::Result<Stat>;
        fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
        fn read(&mut self, limit: u64) -> io::Result<Vec<u8>>;
        fn sync(&self) -> io::Result<()>;
        fn try_lock(&self) -> Result<(), TryLockError>;
        fn try_lock_shared(&self) -> Result<(), TryLockError>;
        fn unlock(&self) -> io::Result<()>;
    }
}
