//! Rows that nobody signed off: found by what two looks at the manager's table and a probe show, and repaired.
//!
//! [`judge`] is pure: it says of each row what it is, and why. [`guard`] is pure: it says which of the dead ones may be
//! written. [`withdraw`] is pure: it says which rows may be taken out of the table. [`sources`] read the table; [`sighting`] is what a
//! look keeps of a row; [`memory`] is what a process that stays keeps of its writes; [`reconcile`] is one run of it all.
//! **Evidence is change, not age**: no clock of a database or a manager is ever compared with another clock.

pub mod apply;
pub mod guard;
pub mod judge;
pub mod memory;
pub mod metrics;
pub mod pods;
pub mod reconcile;
pub mod sighting;
pub mod sources;
pub mod survey;
pub mod withdraw;
