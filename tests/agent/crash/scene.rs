//! One run's directory: a spool, and what else the process needs.

use std::{cell::RefCell, path::PathBuf};

use signoff::{key::SchedulerKey, mock::scheduler::MockScheduler, spool};

/// One run's surroundings.
pub(super) struct Scene {
    pub(super) dir: tempfile::TempDir,
    /// Whose agent it is, and those whose asks are there.
    pub(super) own: SchedulerKey,
    pub(super) others: Vec<SchedulerKey>,
    /// Whose each ask is that was there before.
    pub(super) before: Vec<SchedulerKey>,
    /// The scheduler beside the agent, where it has one of its own.
    pub(super) scheduler: RefCell<Option<MockScheduler>>,
    /// That of the next agent, where it is the same.
    pub(super) environment: RefCell<Vec<(&'static str, String)>>,
}

impl Scene {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where nothing ever listens but a system's own service.
    pub(super) fn silent() -> String {
        "127.0.0.1:1".to_owned()
    }

    /// The spool that this one lies in, where there is one.
    pub(super) fn older_spool(&self) -> PathBuf {
        self.path("spools")
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.older_spool().join("own")
    }

    pub(super) fn listing(&self) -> spool::Listing {
        spool::scan(&self.spool()).unwrap_or_default()
    }

    /// All files but marks and locks.
    pub(super) fn files(&self) -> Vec<String> {
        let entries =
            [self.spool(), self.older_spool()].into_iter().filter_map(|dir| std::fs::read_dir(dir).ok());
        let files = entries
            .flatten()
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_ok_and(|of| !of.is_dir()));
        let names = files.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".mark.json") && !name.ends_with(".lock")).collect()
    }
}

/// In memory where that is possible: no fault is the machine's own then, by a disk that others keep busy.
pub(super) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
