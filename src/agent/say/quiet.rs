//! How often a line is said that a scheduler, a manager, a disk or a caller can cause again and again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

use crate::logging::seldom::{Seldom, Turn};

/// The lines of an agent that are bounded, one name for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// The scheduler serves.
    Serves,
    /// Nothing serves where the scheduler is expected.
    NothingServes,
    /// The scheduler is down.
    Down,
    /// It isn't known whether the scheduler lives.
    Unclear,
    /// A look at the scheduler said nothing, and why.
    CantTell,
    /// A sign-off was asked.
    Asked,
    /// A predecessor's asks were found.
    Inherited,
    /// An ask is settled.
    Settled,
    /// An ask is acknowledged, and watched.
    Watched,
    /// A drain began.
    DrainOn,
    /// A drain is over.
    DrainOver,
    /// The row is given back.
    Restoring,
    /// The row would be given back.
    WouldRestore,
    /// The row was given back.
    Restored,
    /// The row is gone.
    RowGone,
    /// The row was registered again.
    PutBack,
    /// The row could not be registered again.
    NotPutBack,
    /// The row came back though it should not.
    Revived,
    /// An attempt was acknowledged.
    Answered,
    /// An attempt was not acknowledged: by its outcome's label, so that the first one of each kind is said at once.
    NotAcknowledged(&'static str),
    /// A hold could not be opened.
    HoldFailed,
    /// A hold was lost.
    HoldLost,
    /// An ask could not be written.
    NotWritten,
    /// An operation of the spool failed, by its name.
    DiskRefused(&'static str),
}

impl Line {
    /// What failed once fails again: the first time says it. A change of what is known is worth a line each time, until there
    /// are too many.
    fn burst(self) -> u32 {
        match self {
            Self::NotAcknowledged(_)
            | Self::HoldFailed
            | Self::HoldLost
            | Self::NotWritten
            | Self::DiskRefused(_) => 1,
            Self::CantTell => 5,
            _ => 20,
        }
    }
}

/// What was said so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Said {
    lines: Arc<Mutex<BTreeMap<Line, Seldom>>>,
}

impl Said {
    /// Whether this line may be said now.
    pub fn turn(&self, line: Line) -> Option<Turn> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.entry(line).or_insert_with(|| Seldom::new(line.burst())).turn(Instant::now())
    }
}

/// Logs a bounded line: at its level when its turn has come, with the number of those held back; else at DEBUG.
macro_rules! seldom {
    ($said:expr, $line:expr, $level:ident, $($rest:tt)*) => {
        match $said.turn($line) {
            Some(turn) => tracing::$level!(log.held_back = turn.held_back, $($rest)*),
            None => tracing::debug!($($rest)*),
        }
    };
}

pub(crate) use seldom;
