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
//! # Whose
//!
//! A record names the manager whose row it is about, by the gRPC endpoints of whoever wrote it ([`Managers`]): several Dragonflies
//! may share a directory, and another manager knows nothing of that row. A record is for a process where they share an endpoint.
//! Releases before this one did not say it; their records say nothing, and are nobody's in particular.
//!
//! A spool whose parent directory is a spool itself (it has a `spool.lock`) takes from that one, too: that is how what lies in one
//! directory for all goes over to a directory for each. Nothing new is written there.
//!
//! # Several processes
//!
//! Each record's file is open and locked (`flock`) in the process whose record it is, from before it has its name. Unlocked
//! means: its process is dead. [`Spool::take_own`] takes a key's own. Those of other keys, for the same manager, are taken by
//! whoever holds that Dragonfly's lock, `spool.<hash of its endpoints>.lock` ([`Spool::adopt`]). What is for another manager, or
//! says nothing, is told and left unlocked, for whoever can settle it; it is taken only by name ([`Spool::take_these`]).
//! `spool.lock` is held by whoever keeps the directory in order. `queue flush` takes what is unlocked and for its manager,
//! whoever leads. `queue drop` removes a file whoever holds it; its holder sees it by [`Spool::vanished`].
//!
//! Only a missing name is a drop. A file that has the name and is another one (a copy: a volume that was restored or moved, a file
//! server that failed over) is the record still: it is opened and locked anew. Where the directory itself, or its `spool.lock`,
//! is not what it was, no missing name says anything, and what is held is written again.

mod adopt;
mod error;
pub(crate) mod files;
pub(crate) mod format;
mod house;
mod kept;
mod place;
pub mod record;
mod scan;
mod settle;
mod store;
#[cfg(test)]
mod tests;
pub mod volume;
mod whose;
mod write;

pub use adopt::{Adopted, Taken, Unheld};
pub use error::SpoolError;
#[cfg(test)]
pub(crate) use scan::drop_record;
pub use scan::{Drops, Entry, Listing, Problem, drop_records, scan};
pub use settle::Settled;
pub use store::{Count, Limits, Marks, Spool};
pub use whose::{Holder, Managers, Whose};
