//! What a spool can fail with: each error carries the path and says what would be right.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why an operation on the spool failed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// EACCES or EPERM: the directory or a file in it belongs to others. Needs a person.
    #[error(
        "{}: permission denied for uid {uid}, gid {gid}{groups}: the spool's directory must be writable for one of these \
         (in Kubernetes: securityContext.fsGroup; a hostPath directory needs its owner or group changed on the node)",
        path.display()
    )]
    Denied {
        /// What could not be reached.
        path: PathBuf,
        /// The effective user id.
        uid: u32,
        /// The effective group id.
        gid: u32,
        /// The supplementary groups, as `, groups 1, 2`; empty if there are none.
        groups: String,
        /// What the system said.
        source: io::Error,
    },
    /// ENOSPC, EDQUOT or EFBIG: the volume is full, or a limit reached.
    #[error("{}: no space left to write it ({source}): free space on the volume or enlarge it", path.display())]
    NoSpace {
        /// What could not be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// EROFS: the volume is mounted read-only.
    #[error("{}: the volume is read-only: mount it writable (readOnly: false), or look why the kernel made it so", path.display())]
    ReadOnly {
        /// What could not be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other error of the system, EIO among them.
    #[error("{}: can't {doing}: {source}", path.display())]
    Io {
        /// Which step failed.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The spool holds as many records as it may.
    #[error(
        "{}: the spool is full, it holds {count} records and may hold {bound}: settle them (signoff queue flush) or drop \
         some (signoff queue drop ID)",
        dir.display()
    )]
    Full {
        /// The spool's directory.
        dir: PathBuf,
        /// How many it holds.
        count: usize,
        /// How many it may hold.
        bound: usize,
    },
    /// There is no such directory.
    #[error("{}: no such directory, so there is no spool: give the agent's --spool", dir.display())]
    Missing {
        /// The spool's directory.
        dir: PathBuf,
    },
    /// Something else is in the directory's place.
    #[error("{}: is no directory: a spool is a directory", path.display())]
    NotADirectory {
        /// What was given as the spool.
        path: PathBuf,
    },
    /// A record that no file can be written for.
    #[error("record id {id:?} is not 16 hexadecimal digits in lower case")]
    BadId {
        /// The id given.
        id: String,
    },
    /// A record whose content does not fit its kind.
    #[error("record {id}: {why}")]
    BadRecord {
        /// Its id.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// No readable record has one of these ids.
    #[error("{}: no record has the id {}: signoff queue list shows those there are", dir.display(), either(ids))]
    UnknownId {
        /// The ids asked for that are no record's.
        ids: Vec<String>,
        /// The spool's directory.
        dir: PathBuf,
    },
    /// The file system has no locks, so nobody can tell the records of the living from those of the dead.
    #[error("{}: its file system has no file locks ({source}): only this key's own records are replayed", path.display())]
    NoLocks {
        /// What could not be locked.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SpoolError {
    /// Turns an error of the system into the variant that says what to do.
    pub(super) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
                Self::Denied { path, uid, gid, groups: groups(gid), source }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::NoSpace { path, source }
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path, source },
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            _ => Self::Io { doing, path, source },
        }
    }

    /// A short constant name: `denied`, `no-space`, `read-only`, `full`, `io`, ... for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::NoSpace { .. } => "no-space",
            Self::ReadOnly { .. } => "read-only",
            Self::Io { .. } => "io",
            Self::Full { .. } => "full",
            Self::Missing { .. } => "missing",
            Self::NotADirectory { .. } => "not-a-directory",
            Self::BadId { .. } | Self::BadRecord { .. } => "bad-record",
            Self::UnknownId { .. } => "unknown-id",
            Self::NoLocks { .. } => "no-locks",
        }
    }
}

/// As `"A" or "B"`.
fn either(ids: &[String]) -> String {
    ids.iter().map(|id| format!("{id:?}")).collect::<Vec<_>>().join(" or ")
}

fn groups(gid: u32) -> String {
    let mut groups: Vec<u32> =
        rustix::process::getgroups().unwrap_or_default().into_iter().map(|g| g.as_raw()).collect();
    groups.retain(|group| *group != gid);
    if groups.is_empty() {
        return String::new();
    }
    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
    format!(", groups {}", groups.join(", "))
}
