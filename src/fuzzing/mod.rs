//! What is done with any bytes at all: one function a target of `fuzz/`, each with properties of its own.
//!
//! Built for tests and for `fuzz/` alone. The same functions are run over the committed corpora (and over changes of
//! them, drawn from a seed) by plain `cargo test`, so that what was found once stays found. A function panics where a
//! property doesn't hold; what it is given is never the reason.
//!
//! Where a format has a checksum or a frame that no luck gets past, the first byte of the data says whether the rest is
//! taken as it is, or put into a whole frame first.

// A failure here is a find, and its words are for whoever looks at it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod command;
pub mod manager;
pub mod served;
pub mod spool;
pub mod text;

#[cfg(all(test, feature = "database"))]
mod tests;

/// A target: what it does with the data.
pub type Target = fn(&[u8]);

/// The targets, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("spool_file", spool::file),
    ("spool_directory", spool::directory),
    ("scheduler_yaml", text::yaml),
    ("hosts_file", text::hosts),
    ("mountinfo", text::mountinfo),
    ("values", text::values),
    ("agent_json", text::agent_json),
    #[cfg(feature = "database")]
    ("database_url", text::database_url),
    ("settings", command::settings),
    ("rest_answer", manager::rest),
    ("grpc_answer", manager::grpc),
    ("http_request", served::http),
    ("hook_request", served::hook),
    ("socket_request", served::socket),
];
