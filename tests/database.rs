//! Reading the rows from a real MariaDB and a real PostgreSQL, started here on a free port and gone with this process.
//!
//! A server that isn't installed is skipped, visibly; in CI it has to be there.
#![cfg(feature = "database")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's helper that can't go on fails the test"
)]

#[path = "database/bench.rs"]
mod bench;
#[path = "secret/mod.rs"]
mod secret;
#[path = "database/server.rs"]
mod server;

#[path = "database/hang.rs"]
mod hang;
#[cfg(feature = "mock")]
#[path = "database/judged.rs"]
mod judged;
#[path = "database/rights.rs"]
mod rights;
#[path = "database/rows.rs"]
mod rows;
#[path = "database/tls.rs"]
mod tls;
