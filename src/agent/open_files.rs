//! How many files the process may have open: each record that it holds is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as it is allowed at all. What it starts with is for programs that call `select`.
pub(super) fn allow_all() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused there are fewer at a time.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
