//! PID 1's stdout: where a hook's words must go to be in the container's log, since kubelet keeps its output to itself.

use std::{
    fs::{Metadata, OpenOptions},
    io::Write,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

/// Also writes `line` to PID 1's stdout, where that is somebody else's: this process is not PID 1 and its own stdout is
/// another file. Never blocks, and is silent where it can't (outside of a container it mostly may not).
pub fn also_write(line: &str) {
    if std::process::id() != 1 {
        write_unless_own(Path::new("/proc/1/fd/1"), std::io::stdout(), line);
    }
}

fn write_unless_own(path: &Path, own: impl AsFd, line: &str) {
    let Ok(theirs) = std::fs::metadata(path) else { return };
    if rustix::fs::fstat(own).is_ok_and(|own| same(&theirs, own.st_dev, own.st_ino)) {
        return;
    }
    // Appending, since it may be a regular file; not blocking, since nobody may be reading the pipe.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let Ok(flags) = i32::try_from(flags.bits()) else { return };
    if let Ok(mut file) = OpenOptions::new().append(true).custom_flags(flags).open(path) {
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

fn same(file: &Metadata, device: u64, inode: u64) -> bool {
    file.dev() == device && file.ino() == inode
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_line_is_appended_to_another_file_and_not_to_our_own() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        std::fs::write(&ours, "").unwrap();
        std::fs::write(&theirs, "before\n").unwrap();
        let own = std::fs::File::open(&ours).unwrap();
        write_unless_own(&theirs, &own, "confirmed");
        write_unless_own(&ours, &own, "confirmed");
        assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "before\nconfirmed\n");
        assert_eq!(std::fs::read_to_string(&ours).unwrap(), "");
    }

    #[test]
    fn a_pipe_gets_the_line_and_a_full_or_unread_one_blocks_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::fs::File::open("/dev/null").unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        write_unless_own(&fifo, &own, "nobody reads");
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        let mut reader = OpenOptions::new().read(true).custom_flags(nonblocking).open(&fifo).unwrap();
        write_unless_own(&fifo, &own, "confirmed");
        let mut buffer = [0; 64];
        let read = reader.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"confirmed\n");
        for _ in 0..3 {
            write_unless_own(&fifo, &own, &"x".repeat(60_000));
        }
    }

    #[test]
    fn what_is_not_there_is_no_matter() {
        let own = std::fs::File::open("/dev/null").unwrap();
        write_unless_own(Path::new("/nonexistent/fd/1"), &own, "x");
    }
}
