//! The durable queue: one directory of asks and marks, one immutable file each.
//!
//! # What it promises
//!
//! A record that [`Spool::write_ask`] or [`Spool::write_mark`] accepted is on disk, file and directory fsynced, until it is
//! settled or dropped. A kill or a power loss at any instant leaves each record whole or not there: a write goes to a temporary
//! file in the same directory, is fsynced, renamed, and then the directory is fsynced. After an error nothing of that file is kept
//! or fsynced again: the next try makes a new file from memory. Settling is renames and removals and one directory fsync; undone by
//! a power loss, it leaves an ask that is replayed once more, which is harmless. No invariant spans two files.
//!
//! # On disk
//!
//! `<hash of key>.<id>.ask.json` or `.mark.json`, where the hash is the CRC-32 of `<cluster id>/<hostname>/<ip>`, as 8 hexadecimal
//! digits, and the id is the record's. The content is one line:
//!
//! ```json
//! {"crc32":"xxxxxxxx","version":1,"record":{...}}
//! ```
//!
//! The checksum is the CRC-32 (IEEE) of all bytes after the comma that follows it, the line's end included: it covers the version
//! too. Every version keeps the name and this frame. A reader ignores fields that it doesn't know, so that each release writes what
//! the one before it reads. A file of a newer version is left alone and reported. A file that is damaged or misnamed, or an
//! ask whose address is not at its key's IP (a look there would prove nothing), is renamed to `….corrupt` and reported by whoever
//! takes records; it is never removed and stops nothing. Other files are ignored.
//!
//! # Several processes
//!
//! Each record's file is open and locked (`flock`) in the process whose record it is, from before it has its name. Unlocked
//! means: its process is dead. [`Spool::take_own`] takes a key's own; those of other keys are taken by whoever holds `spool.lock`
//! ([`Spool::adopt_foreign`]). `queue drop` removes a file whoever holds it; its holder sees it by [`Spool::vanished`].

mod adopt;
mod error;
pub(crate) mod files;
pub(crate) mod format;
mod place;
pub mod record;
mod scan;
mod store;
#[cfg(test)]
mod tests;
pub mod volume;

pub use adopt::{Adopted, Taken};
pub use error::SpoolError;
pub use scan::{Entry, Listing, Problem, drop_record, scan};
pub use store::{Count, Limits, Marks, Settled, Spool};
