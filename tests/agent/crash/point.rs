//! Where a fault goes, and which faults a system call may have.

use std::{collections::BTreeMap, fmt, path::Path};

/// What a process is made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// A pre-stop, and then a SIGTERM.
    PreStop,
    /// A SIGTERM alone.
    Sigterm,
    /// An agent starts where a dead one of another key left asks.
    Replay,
    /// `signoff queue flush` of such a spool.
    Flush,
    /// The scheduler comes back under another key, and the agent takes that up.
    TakeUp,
    /// An agent starts where a dead one of another key left an ask, whose scheduler never registered.
    NeverRegistered,
}

pub(super) const OPERATIONS: [Operation; 6] = [
    Operation::PreStop,
    Operation::Sigterm,
    Operation::Replay,
    Operation::Flush,
    Operation::TakeUp,
    Operation::NeverRegistered,
];

/// From when on a thread's calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Since {
    /// The process's first instruction: its first thread.
    Start,
    /// The thread is given its name.
    Birth,
    /// The agent has nothing to do.
    Idle,
}

/// A thread, by the name it has at last, and from when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) thread: &'static str,
    pub(super) since: Since,
}

/// The name of a process's first thread.
pub(super) const MAIN: &str = "signoff";

impl Operation {
    /// All threads that have a part in it.
    pub(super) fn places(self) -> Vec<Place> {
        let place = |since| move |thread| Place { thread, since };
        match self {
            Self::PreStop | Self::Sigterm => {
                [MAIN, "spool", "log", "watchdog"].map(place(Since::Idle)).to_vec()
            }
            // What their starts are like the others show.
            Self::TakeUp | Self::NeverRegistered => [MAIN, "spool"].map(place(Since::Idle)).to_vec(),
            Self::Replay | Self::Flush => {
                let mut places = vec![place(Since::Start)(MAIN)];
                // The first that reads a file beside the spool, of several.
                places.extend(["spool", "log", "file"].map(place(Since::Birth)));
                if self == Self::Flush {
                    places.push(place(Since::Birth)("tokio-rt-worker"));
                }
                places
            }
        }
    }

    /// It is killed at one call in so many: on the first thread most say nothing that their neighbours don't.
    fn is_killed_at_one_in(self, place: Place) -> usize {
        match self {
            Self::TakeUp if place.thread == MAIN => 2,
            Self::NeverRegistered if place.thread == MAIN => 4,
            _ => 1,
        }
    }

    /// Whether a call is to fail so. What is no matter of this operation alone the others show.
    fn tries(self, place: Place, errno: &str) -> bool {
        match self {
            Self::PreStop | Self::Sigterm | Self::Replay | Self::Flush => true,
            Self::TakeUp | Self::NeverRegistered => place.thread == "spool" && errno == "EIO",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::PreStop => "pre-stop",
            Self::Sigterm => "sigterm",
            Self::Replay => "replay",
            Self::Flush => "flush",
            Self::TakeUp => "take-up",
            Self::NeverRegistered => "never-registered",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens as the call is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// SIGKILL.
    Kill,
    /// It is not made, and fails so.
    Error(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "SIGKILL",
            Self::Error(errno) => errno,
        })
    }
}

/// One fault: at the n-th of these calls of that thread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Case {
    pub(super) operation: Operation,
    pub(super) place: Place,
    pub(super) call: String,
    pub(super) nth: usize,
    pub(super) fault: Fault,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, place, call, nth, fault } = self;
        write!(f, "{operation}/{}/{call}/{nth}/{fault}", place.thread)
    }
}

impl Case {
    /// strace's arguments for it.
    pub(super) fn arguments(&self) -> Vec<String> {
        let Self { call, nth, .. } = self;
        let fault = match self.fault {
            Fault::Kill => "signal=KILL".to_owned(),
            Fault::Error(errno) => format!("error={errno}"),
        };
        ["-yy", "-e", &format!("trace={call}"), "-e", &format!("inject={call}:{fault}:when={nth}")]
            .map(str::to_owned)
            .to_vec()
    }
}

/// Whether the fault was met, by what strace (`-yy`) wrote, and was one that the call may have there: the order of calls on different
/// files is not the same in each run.
pub(super) fn met(case: &Case, killed: bool, record: &str) -> Met {
    let Fault::Error(errno) = case.fault else {
        return if killed { Met::Yes } else { Met::No };
    };
    let Some(line) = record.lines().find(|line| line.contains("(INJECTED)")) else { return Met::No };
    let Some((call, arguments)) = line.split_once('(') else { return Met::No };
    if errors(call, arguments).contains(&errno) { Met::Yes } else { Met::Elsewhere }
}

/// Whether a case's fault was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    Yes,
    /// There were fewer calls this time.
    No,
    /// By a call on something else, which can't fail so.
    Elsewhere,
}

/// All cases at one place, from what strace (`-yy`) recorded there of a run without a fault.
pub(super) fn cases(operation: Operation, place: Place, record: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    // What the loader does before the program begins is no part of it; the first call of Rust's runtime is this.
    let mut began = place.since != Since::Start;
    for line in record.lines() {
        let Some((call, arguments)) = line.split_once('(') else { continue };
        let named = !call.is_empty() && call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        // Where it was attached to, a call was resumed.
        if !named || call == "restart_syscall" {
            continue;
        }
        let nth = counts.entry(call).or_default();
        *nth += 1;
        began |= call == "ppoll" || call == "poll";
        if !began {
            continue;
        }
        let case = |fault| Case { operation, place, call: call.to_owned(), nth: *nth, fault };
        if nth.is_multiple_of(operation.is_killed_at_one_in(place)) {
            cases.push(case(Fault::Kill));
        }
        let errors = errors(call, arguments).iter().filter(|errno| operation.tries(place, errno));
        cases.extend(errors.map(|errno| case(Fault::Error(errno))));
    }
    cases
}

/// What a call is about, by its first argument.
#[derive(Debug, PartialEq, Eq)]
enum Object {
    File,
    Directory,
    /// A socket or a pipe.
    Stream,
    Other,
}

fn object(arguments: &str) -> Object {
    let first = arguments.split([',', ')']).next().unwrap_or_default();
    let Some((number, rest)) = first.split_once('<') else {
        return if first.starts_with('"') { Object::File } else { Object::Other };
    };
    let target = rest.trim_end_matches('>');
    if number == "AT_FDCWD" {
        return Object::File;
    }
    // What is made by socketpair has no name: there a signal's handler and its task talk, who never wait.
    let named = arguments.split(">, ").next().is_some_and(|socket| socket.contains('"'));
    match target {
        _ if target.starts_with("UNIX") => {
            if named {
                Object::Stream
            } else {
                Object::Other
            }
        }
        _ if target.starts_with("TCP") || target.starts_with("pipe:") => Object::Stream,
        _ if Path::new(target).is_dir() => Object::Directory,
        _ if target.starts_with('/') => Object::File,
        _ => Object::Other,
    }
}

/// The errors among EIO, ENOSPC and EINTR that this call may have, by its manual page and what it is made on.
///
/// A call that fails so is not made. For a close that is not what Linux does (the file is closed all the same), so that it only
/// stands for a file that stays open. A directory's can't fail: nothing is flushed.
fn errors(call: &str, arguments: &str) -> &'static [&'static str] {
    match (call, object(arguments)) {
        ("openat", _) if arguments.contains("O_CREAT") => &["EIO", "ENOSPC", "EINTR"],
        ("openat", _) => &["EIO", "EINTR"],
        ("read" | "pread64", Object::File) => &["EIO", "EINTR"],
        ("write" | "pwrite64", Object::File) => &["EIO", "ENOSPC", "EINTR"],
        ("fsync" | "fdatasync", _) => &["EIO", "ENOSPC", "EINTR"],
        ("rename" | "renameat" | "renameat2" | "mkdir" | "mkdirat", _) => &["EIO", "ENOSPC"],
        ("unlink" | "unlinkat" | "chmod" | "fchmod" | "fchmodat" | "getdents64", _) => &["EIO"],
        ("statx" | "newfstatat" | "access" | "faccessat" | "faccessat2" | "readlink", _) => &["EIO"],
        ("flock" | "ftruncate" | "close", Object::File) => &["EIO", "EINTR"],
        ("read" | "write" | "readv" | "writev" | "close", Object::Stream) => &["EINTR"],
        ("recvfrom" | "recvmsg" | "sendto" | "sendmsg", Object::Stream) => &["EINTR"],
        ("connect" | "accept4", _) => &["EINTR"],
        ("epoll_wait" | "epoll_pwait" | "epoll_pwait2" | "poll" | "ppoll" | "clock_nanosleep", _) => {
            &["EINTR"]
        }
        ("futex", _) if arguments.contains("FUTEX_WAIT") => &["EINTR"],
        _ => &[],
    }
}

#[test]
fn each_call_is_counted_by_itself_and_has_the_errors_that_it_may_have() {
    let record = "openat(AT_FDCWD</>, \"/lib/libc.so.6\", O_RDONLY|O_CLOEXEC) = 3</lib/libc.so.6>\n\
                  ppoll([{fd=0</dev/null>, events=0}], 1, {tv_sec=0, tv_nsec=0}, NULL, 0) = 0 (Timeout)\n\
                  openat(AT_FDCWD</>, \"/spool/.x.tmp\", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0660) = 3</spool/.x.tmp>\n\
                  --- SIGCONT {si_signo=SIGCONT, si_code=SI_USER, si_pid=1, si_uid=0} ---\n\
                  write(9<anon_inode:[eventfd]>, \"\\1\\0\\0\\0\\0\\0\\0\\0\", 8) = 8\n\
                  close(3</>)                            = 0\n";
    let place = Place { thread: MAIN, since: Since::Start };
    let all = cases(Operation::Flush, place, record);
    let [.., case, _, _] = &all[..] else { panic!("{all:?}") };
    let failed =
        |object| format!("openat({object}, O_RDONLY) = -1 EINTR (Interrupted system call) (INJECTED)\n");
    assert_eq!(met(case, false, &failed("AT_FDCWD</>, \"/x\"")), Met::Yes, "{case}");
    assert_eq!(met(case, false, "+++ exited with 0 +++\n"), Met::No);
    let write = Case { call: "write".to_owned(), fault: Fault::Error("EINTR"), ..case.clone() };
    let failed =
        |object| format!("write(3<{object}>, \"x\", 1) = -1 EINTR (Interrupted system call) (INJECTED)\n");
    assert_eq!(met(&write, false, &failed("anon_inode:[eventfd]")), Met::Elsewhere);
    assert_eq!(met(&write, false, &failed("UNIX-STREAM:[7->8]")), Met::Elsewhere);
    assert_eq!(met(&write, false, &failed("UNIX-STREAM:[7->8,\"/run/agent.sock\"]")), Met::Yes);
    assert_eq!(met(&write, false, &failed("TCP:[127.0.0.1:1->127.0.0.1:2]")), Met::Yes);
    let found: Vec<String> = all.iter().map(ToString::to_string).collect();
    let expected = [
        "flush/signoff/ppoll/1/SIGKILL",
        "flush/signoff/ppoll/1/EINTR",
        "flush/signoff/openat/2/SIGKILL",
        "flush/signoff/openat/2/EIO",
        "flush/signoff/openat/2/ENOSPC",
        "flush/signoff/openat/2/EINTR",
        "flush/signoff/write/1/SIGKILL",
        "flush/signoff/close/1/SIGKILL",
    ];
    assert_eq!(found, expected);
}
