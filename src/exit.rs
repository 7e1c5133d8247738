//! Exit codes, the same everywhere (the numbers of 64 and up are those of BSD's sysexits.h).

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A check failed.
    CheckFailed = 1,
    /// Inconsistencies were found, and nothing was changed.
    Inconsistent = 2,
    /// Held back by a guard.
    HeldBack = 3,
    /// Wrong usage or configuration.
    Usage = 64,
    /// No agent or no endpoint answered, or the disk failed.
    Unavailable = 69,
    /// An internal error, panics included.
    Internal = 70,
    /// Left queued.
    Queued = 75,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
