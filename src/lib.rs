//! signoff keeps one promise: a Dragonfly manager's record of a scheduler says what is true. A scheduler that is gone is
//! `inactive`, one that lives is `active`, and nobody edits a database by hand to make it so.
//!
//! Arrows point one way: `cli` -> `agent`, `repair` -> `manager`, `spool`, `net`; the core (`agent::lifecycle`) knows no I/O, no clock
//! and no randomness; nothing outside `mock` and `demo` knows those two.

#![forbid(unsafe_code)]

pub mod agent;
pub mod cli;
#[cfg(feature = "mock")]
pub mod demo;
pub mod exit;
pub mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod identity;
pub mod key;
pub mod logging;
pub mod manager;
#[cfg(feature = "mock")]
pub mod mock;
pub mod net;
pub mod proto;
pub mod repair;
mod secret;
#[cfg(test)]
mod simulation;
pub mod spool;
