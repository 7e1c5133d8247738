//! The agent as a process, on good days and bad ones. Each verdict is read from the manager's table.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

mod check;
mod clock;
mod configuration;
mod crash;
mod disk;
mod ending;
mod far;
mod flood;
mod follow;
mod front;
mod hang;
mod harness;
mod hook;
mod identity;
mod kill;
mod leak;
mod life;
mod linger;
mod many;
mod outage;
mod put_back;
mod queue;
mod reconcile;
#[path = "../record/mod.rs"]
mod record;
#[path = "../secret/mod.rs"]
mod secret;
mod soak;
mod spool;
mod status;
mod stop;
mod strace;
mod succession;
mod tls;
mod trust;
