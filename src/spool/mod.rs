//! The durable queue: one directory of asks and marks, one immutable file each.

pub mod record;
