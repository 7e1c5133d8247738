//! A faster clock for a real process: a shared object that is preloaded, and scales what the process learns of the time and how
//! long it waits.
//!
//! What the kernel times by itself (TCP's retransmissions) and what work takes stays as it is: at 50 times the speed a connect has
//! 20 ms, a disk 10 ms. So the agent sees a slower machine and a slower network than there are.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::strace::skip;

const SOURCE: &str = include_str!("fast.c");

/// A clock, for as many processes as are to agree on the time.
#[derive(Debug, Clone)]
pub(crate) struct FastClock {
    library: &'static Path,
    rate: u32,
    base: String,
}

impl FastClock {
    /// One that is right now, and then runs `rate` times as fast. Where there is no C compiler, says so, and fails in CI.
    pub(crate) fn of(rate: u32) -> Option<Self> {
        let nanos = |id| {
            let Timespec { tv_sec, tv_nsec } = clock_gettime(id);
            format!("{tv_sec}{tv_nsec:09}")
        };
        let base = format!("{}:{}", nanos(ClockId::Monotonic), nanos(ClockId::Realtime));
        library().map(|library| Self { library, rate, base })
    }

    /// What a process that has this clock has in its environment.
    pub(crate) fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAST_CLOCK_RATE", self.rate.to_string()),
            ("FAST_CLOCK_BASE", self.base.clone()),
        ]
    }

    /// How long that is for everybody else.
    pub(crate) fn real(&self, duration: Duration) -> Duration {
        duration / self.rate
    }
}

/// Built once for this source, where cargo keeps what tests make.
fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = LIBRARY.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let library = dir.join(format!("fast-clock-{:08x}.so", crc32fast::hash(SOURCE.as_bytes())));
        if library.exists() {
            return Some(library);
        }
        std::fs::create_dir_all(dir).unwrap();
        let work = tempfile::tempdir_in(dir).unwrap();
        let (source, built) = (work.path().join("fast.c"), work.path().join("fast.so"));
        std::fs::write(&source, SOURCE).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&built).arg(&source);
        let Ok(output) = cc.output() else {
            skip("cc is missing");
            return None;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(built, &library).unwrap();
        Some(library)
    });
    built.as_deref()
}
