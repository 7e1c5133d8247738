//! One run's directory: a spool, and what else the process needs.

use std::path::PathBuf;

use signoff::{key::SchedulerKey, spool};

/// One run's surroundings.
pub(super) struct Scene {
    pub(super) dir: tempfile::TempDir,
    /// Whose agent it is, and those whose asks are there.
    pub(super) own: SchedulerKey,
    pub(super) others: Vec<SchedulerKey>,
    /// Whose each ask is that was there before.
    pub(super) before: Vec<SchedulerKey>,
}

impl Scene {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where nothing ever listens but a system's own service.
    pub(super) fn silent() -> String {
        "127.0.0.1:1".to_owned()
    }

    pub(super) fn listing(&self) -> spool::Listing {
        spool::scan(&self.path("spool")).unwrap_or_default()
    }

    /// All files but marks and the lock.
    pub(super) fn files(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("spool")) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".mark.json") && name != "spool.lock").collect()
    }
}

/// In memory where that is possible: no fault is the machine's own then, by a disk that others keep busy.
pub(super) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
