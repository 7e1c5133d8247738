//! `signoff install DEST`: this program, copied where the scheduler's container can run it as its preStop hook. Kubernetes
//! runs an exec hook in the container it belongs to, which has no signoff of its own; an init container puts it on a
//! volume that both mount.
//!
//! The copy replaces what was there in one step, so that a hook that runs at that moment runs the old or the new one.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::{args::InstallArgs, print, settings, usage};
use crate::exit::Exit;

/// Runs it.
pub fn run(args: &InstallArgs) -> Exit {
    let dest = if args.dest.is_dir() { args.dest.join("signoff") } else { args.dest.clone() };
    match install(Path::new("/proc/self/exe"), &dest) {
        Ok(()) => {
            print(&format!("Installed {}.", dest.display()));
            Exit::Done
        }
        // A disk that is full or fails is not a wrong destination.
        Err(error) if error.is_the_disks() => settings::unavailable(&error),
        Err(error) => usage(&error),
    }
}

/// The copy can't be made: nothing was changed at its destination.
#[derive(Debug, thiserror::Error)]
#[error("{} can't be written: {source}; give a file in a directory that is writable for this user", dest.display())]
pub struct InstallError {
    dest: PathBuf,
    source: io::Error,
}

impl InstallError {
    fn is_the_disks(&self) -> bool {
        let its = [Errno::IO, Errno::NOSPC, Errno::DQUOT].map(Errno::raw_os_error);
        self.source.raw_os_error().is_some_and(|code| its.contains(&code))
    }
}

/// Copies the program at `source` to `dest`, mode 0755, in one step.
pub fn install(source: &Path, dest: &Path) -> Result<(), InstallError> {
    let wrong = |source| InstallError { dest: dest.to_owned(), source };
    let name = dest.file_name().ok_or_else(|| wrong(io::ErrorKind::InvalidInput.into()))?;
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(".partial");
    let partial = dest.with_file_name(partial);
    let copied = copy(source, &partial).and_then(|()| fs::rename(&partial, dest));
    copied.map_err(|error| {
        // Where it can't be removed either, the next copy replaces it.
        let _ = fs::remove_file(&partial);
        wrong(error)
    })
}

fn copy(source: &Path, partial: &Path) -> io::Result<()> {
    match fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nothing that was put there in between is followed or overwritten.
    let mut to = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(partial)?;
    io::copy(&mut fs::File::open(source)?, &mut to)?;
    // Whatever the umask.
    to.set_permissions(fs::Permissions::from_mode(0o755))?;
    to.sync_all()
}
