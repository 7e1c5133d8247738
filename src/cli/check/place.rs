//! The spool's directory and the run directory: whether this user can write there, and how long the spool's volume lives.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::Access;

use crate::{
    agent::{
        check::{failed, ok, warning},
        socket::Finding,
    },
    spool::volume::{self, Durability, MOUNTINFO},
};

const SPOOL: &str = "spool";
const LOCKS: &str = "spool locks";
const LIFE: &str = "spool volume";
const RUN_DIR: &str = "run dir";
/// A full spool of 16,384 records takes a file of 4 KiB each.
const ROOM: u64 = 64 << 20;
/// A healthy disk's fsync takes milliseconds. A write that takes longer than this counts as refused by the agent.
const SLOW: Duration = Duration::from_millis(500);

/// Writes, fsyncs and removes a file there, which is no record: whether that works, how long the volume lives, and locks.
pub(super) fn spool(dir: &Path) -> Vec<Finding> {
    let mut findings = match tried(dir) {
        Err(Refused::Missing) => vec![missing(SPOOL, dir)],
        Err(Refused::Error(path, error)) => vec![refused(SPOOL, &path, &error)],
        Ok(Tried { took, locks }) => vec![writable(dir, took), of_locks(dir, locks)],
    };
    findings.push(life(volume::find(dir, Path::new(MOUNTINFO)).as_ref()));
    findings
}

/// Whether the socket and the settings can be put there.
pub(super) fn run_dir(dir: &Path) -> Finding {
    match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing(RUN_DIR, dir),
        Err(error) => refused(RUN_DIR, dir, &error),
        Ok(metadata) if !metadata.is_dir() => refused(RUN_DIR, dir, &io::ErrorKind::NotADirectory.into()),
        Ok(_) => match may_write(dir) {
            Ok(()) => ok(RUN_DIR, format!("{} is writable", dir.display())),
            Err(error) => refused(RUN_DIR, dir, &error),
        },
    }
}

struct Tried {
    took: Duration,
    locks: Result<(), io::Error>,
}

enum Refused {
    Missing,
    Error(PathBuf, io::Error),
}

fn tried(dir: &Path) -> Result<Tried, Refused> {
    match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Refused::Missing),
        Ok(metadata) if !metadata.is_dir() => {
            return Err(Refused::Error(dir.to_owned(), io::ErrorKind::NotADirectory.into()));
        }
        // The write says it better.
        _ => {}
    }
    let path = dir.join(format!(".check.{}.{:08x}", std::process::id(), fastrand::u32(..)));
    let began = Instant::now();
    let written = write(dir, &path);
    let took = began.elapsed();
    // Where it was not made there is nothing to remove.
    let removed = fs::remove_file(&path);
    let file = written.map_err(|error| Refused::Error(path.clone(), error))?;
    removed.map_err(|error| Refused::Error(path, error))?;
    let locks = match file.try_lock() {
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    };
    Ok(Tried { took, locks })
}

/// As a record is written: the file and then its directory are fsynced.
fn write(dir: &Path, path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(b"signoff check: this file may be removed\n")?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

fn writable(dir: &Path, took: Duration) -> Finding {
    let free = rustix::fs::statvfs(dir).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize)).ok();
    let room = free.map(|free| format!(", {} MiB free", free >> 20)).unwrap_or_default();
    let found = format!("{} is writable, a durable write took {} ms{room}", dir.display(), took.as_millis());
    if took > SLOW {
        return warning(
            SPOOL,
            found,
            "find a faster disk: the agent goes on without the disk where a write takes longer than 500 ms",
        );
    }
    if free.is_some_and(|free| free < ROOM) {
        return warning(SPOOL, found, "free space on that volume: a full spool takes 64 MiB");
    }
    ok(SPOOL, found)
}

/// What a file system without locks costs.
pub(super) fn of_locks(dir: &Path, locks: Result<(), io::Error>) -> Finding {
    match locks {
        Ok(()) => ok(LOCKS, "its file system has file locks"),
        Err(error) => warning(
            LOCKS,
            format!("{}: its file system has no file locks ({error})", dir.display()),
            "use one that has, where several agents share a spool: without, only a key's own sign-offs are replayed",
        ),
    }
}

/// What the volume's life means.
pub(super) fn life(volume: Option<&volume::Volume>) -> Finding {
    let durability = volume.map_or(Durability::Unknown, |volume| volume.durability);
    let at = volume
        .map(|volume| format!(" ({} at {})", volume.fs_type, volume.mount_point.display()))
        .unwrap_or_default();
    let found = format!("{}: {}{at}", durability.label(), durability.queued());
    const BETTER: &str = "where that matters, give --spool a hostPath or a claim";
    match durability {
        Durability::Container => warning(
            LIFE,
            format!("{found}: it is the container's own layer, gone with the container's next restart"),
            format!(
                "mount at least an emptyDir there: a sign-off that is queued must outlive a restart; {BETTER}"
            ),
        ),
        Durability::Pod => warning(
            LIFE,
            format!("{found}: what the manager did not take before the pod's end is lost with it"),
            format!("nothing, if that is meant; {BETTER}"),
        ),
        Durability::Unknown => warning(
            LIFE,
            format!("{found}: it can't be told from {MOUNTINFO}"),
            "see what that directory is mounted from",
        ),
        Durability::Node | Durability::Claim => ok(LIFE, found),
    }
}

/// A directory that is not there is made by the agent, if it may.
fn missing(name: &str, dir: &Path) -> Finding {
    let parent = dir.ancestors().skip(1).find(|parent| parent.exists()).unwrap_or(Path::new("."));
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match may_write(parent) {
        Ok(()) => warning(
            name,
            format!("{} is not there yet", dir.display()),
            "nothing, if no agent has run here yet: it makes the directory; else give the agent's own --spool and --run-dir",
        ),
        Err(error) => failed(
            name,
            format!("{} is not there, and {} can't be written: {error}", dir.display(), parent.display()),
            "mount a volume there that the agent's user may write (in Kubernetes: an emptyDir, securityContext.fsGroup)",
        ),
    }
}

fn may_write(dir: &Path) -> io::Result<()> {
    // By the effective ids, which the agent's writes go by.
    let flags = rustix::fs::AtFlags::EACCESS;
    Ok(rustix::fs::accessat(rustix::fs::CWD, dir, Access::WRITE_OK | Access::EXEC_OK, flags)?)
}

fn refused(name: &str, path: &Path, error: &io::Error) -> Finding {
    let todo = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            format!(
                "make the directory writable for uid {uid} or gid {gid} (in Kubernetes: securityContext.fsGroup; a hostPath \
                 directory needs its owner or group changed on the node)"
            )
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space on that volume, or enlarge it".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem => "mount the volume writable (readOnly: false)".to_owned(),
        io::ErrorKind::NotADirectory => "give a directory: a file is in its place".to_owned(),
        _ => "see what is wrong with that volume, or use another one".to_owned(),
    };
    failed(name, format!("{}: {error}", path.display()), todo)
}
