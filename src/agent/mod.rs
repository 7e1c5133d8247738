//! The agent: a pure core that decides ([`lifecycle`]) and a thin shell that acts.

pub mod alone;
pub mod arrivals;
pub mod attempts;
pub mod backlog;
pub mod check;
pub mod clock;
pub mod command;
pub mod degraded;
pub mod disk;
pub mod hook;
pub mod http;
pub mod last_words;
pub mod lifecycle;
pub mod look;
pub mod metrics;
pub mod moment;
mod open_files;
pub mod replay;
pub mod run;
pub mod say;
pub mod scheduler;
pub mod shell;
pub mod socket;
pub mod succession;
