//! What a process uses, and whether that grows.

use std::{fmt, path::Path};

/// At one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of its own (`RssAnon`), in KiB: the program's file is paged in bit by bit, which is no growth.
    pub(crate) memory: u64,
    /// Open files, sockets among them.
    pub(crate) files: u64,
    pub(crate) threads: u64,
    /// Files in the spool.
    pub(crate) spool: u64,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, files, threads, spool } = self;
        write!(f, "{memory} KiB, {files} open files, {threads} threads, {spool} files in the spool")
    }
}

impl Usage {
    pub(crate) fn of(pid: u32, spool: &Path) -> Self {
        let count = |dir: &Path| std::fs::read_dir(dir).map_or(0, |entries| entries.count() as u64);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| -> u64 {
            let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            value.split_whitespace().next().unwrap().parse().unwrap()
        };
        Self {
            memory: field("RssAnon:"),
            files: count(Path::new(&format!("/proc/{pid}/fd"))),
            threads: field("Threads:"),
            spool: count(spool),
        }
    }
}

/// How much each may be higher in the second half than in the first, once it has warmed up (a quarter of the time).
const ALLOWED: Usage = Usage { memory: 256, files: 1, threads: 1, spool: 2 };

/// So many samples tell something.
pub(crate) const ENOUGH: usize = 12;

fn median(samples: &[Usage], of: impl Fn(&Usage) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

fn medians(samples: &[Usage]) -> Usage {
    Usage {
        memory: median(samples, |usage| usage.memory),
        files: median(samples, |usage| usage.files),
        threads: median(samples, |usage| usage.threads),
        spool: median(samples, |usage| usage.spool),
    }
}

/// The medians of both halves, once it has warmed up.
pub(crate) fn halves(samples: &[Usage]) -> (Usage, Usage) {
    let warm = &samples[samples.len() / 4..];
    let (first, second) = warm.split_at(warm.len() / 2);
    (medians(first), medians(second))
}

/// What grew.
pub(crate) fn grown(samples: &[Usage]) -> Vec<&'static str> {
    assert!(samples.len() >= ENOUGH, "too few to tell: {}", samples.len());
    let (first, second) = halves(samples);
    let grew = |of: fn(&Usage) -> u64| of(&second) > of(&first) + of(&ALLOWED);
    let memory = grew(|usage| usage.memory).then_some("memory");
    let files = grew(|usage| usage.files).then_some("open files");
    let threads = grew(|usage| usage.threads).then_some("threads");
    let spool = grew(|usage| usage.spool).then_some("files in the spool");
    [memory, files, threads, spool].into_iter().flatten().collect()
}

#[test]
fn what_grows_is_seen_and_what_goes_up_and_down_is_not_taken_for_growth() {
    fn series(each: impl Fn(u64) -> Usage) -> Vec<Usage> {
        (0..120).map(each).collect()
    }
    let level = |n: u64| Usage { memory: 6_000, files: 20, threads: 4, spool: 3 + n % 2 };
    assert_eq!(grown(&series(level)), [""; 0]);
    let warms_up = |n: u64| Usage { memory: 6_000.min(2_000 + n * 200), ..level(n) };
    assert_eq!(grown(&series(warms_up)), [""; 0]);
    let up_and_down = |n: u64| Usage { memory: 6_000 + n % 7 * 300, files: 20 + n % 5 * 4, ..level(n) };
    assert_eq!(grown(&series(up_and_down)), [""; 0]);
    // 12 KiB in half a minute: one connection's buffers.
    assert_eq!(grown(&series(|n| Usage { memory: 6_000 + n * 12, ..level(n) })), ["memory"]);
    assert_eq!(grown(&series(|n| Usage { files: 20 + n / 15, ..level(n) })), ["open files"]);
    assert_eq!(grown(&series(|n| Usage { threads: 4 + n / 15, ..level(n) })), ["threads"]);
    assert_eq!(grown(&series(|n| Usage { spool: 3 + n / 10, ..level(n) })), ["files in the spool"]);
}

#[test]
fn a_process_that_leaks_is_measured_as_it_is() {
    let spool = tempfile::tempdir().unwrap();
    let before = Usage::of(std::process::id(), spool.path());
    let held: Vec<std::fs::File> =
        (0..50).map(|n| std::fs::File::create(spool.path().join(n.to_string())).unwrap()).collect();
    let memory = vec![1_u8; 16 << 20];
    let thread = std::thread::spawn(std::thread::park);
    let after = Usage::of(std::process::id(), spool.path());
    // Other tests run in this process.
    assert!(after.memory > before.memory + (8 << 10), "{before}; {after}");
    assert!(after.files > before.files + 25 && after.spool == 50, "{before}; {after}");
    assert!(after.threads > 1);
    thread.thread().unpark();
    thread.join().unwrap();
    drop((held, memory));
}
