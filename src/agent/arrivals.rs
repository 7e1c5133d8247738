//! Hearing from the kernel that a file came into the spool, so that nobody has to look for it again and again.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::{Interest, unix::AsyncFd};

/// More than one event with the longest name a file can have.
const EVENT: usize = 512;

/// Tells once, after it was told to listen, that a file came into a directory.
pub enum Arrivals {
    /// By inotify(7); `None` where the kernel has no more of them for this user.
    Kernel(Option<AsyncFd<OwnedFd>>),
    /// By the file system that a test made up, of all that comes.
    #[cfg(test)]
    Test(std::sync::Arc<tokio::sync::Notify>),
}

impl Arrivals {
    /// In a runtime, where it is waited for.
    pub fn of_the_kernel() -> Self {
        // Its successor is `unsafe`, against descriptors that change: this one is owned.
        #[allow(deprecated)]
        let made = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map(|inotify| AsyncFd::with_interest(inotify, Interest::READABLE));
        Self::Kernel(made.ok().and_then(Result::ok))
    }

    /// From now on, until one came; what came before is forgotten. Whether that can be told: a file system of another machine's
    /// tells of what comes from here.
    pub fn listen(&self, dir: &Path) -> bool {
        match self {
            Self::Kernel(Some(inotify)) => {
                while read(inotify.get_ref()).is_ok() {}
                // One event, or each write of its own would wake who listens.
                let came = WatchFlags::CREATE | WatchFlags::MOVED_TO;
                inotify::add_watch(inotify, dir, came | WatchFlags::ONESHOT | WatchFlags::ONLYDIR).is_ok()
            }
            Self::Kernel(None) => false,
            #[cfg(test)]
            Self::Test(_) => true,
        }
    }

    /// Waits for it.
    pub async fn came(&self) {
        match self {
            Self::Kernel(Some(inotify)) => {
                while let Ok(mut ready) = inotify.readable().await {
                    if ready.try_io(|inotify| read(inotify.get_ref())).is_ok() {
                        return;
                    }
                }
            }
            Self::Kernel(None) => {}
            #[cfg(test)]
            Self::Test(told) => return told.notified().await,
        }
        std::future::pending().await
    }
}

fn read(inotify: &OwnedFd) -> io::Result<usize> {
    Ok(rustix::io::read(inotify, &mut [0_u8; EVENT])?)
}

#[cfg(test)]
mod tests;
