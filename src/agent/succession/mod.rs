//! Succession: a scheduler that came back under a new IP signs off the row that its earlier incarnation left active.
//!
//! # What it promises
//!
//! - It looks only while the scheduler serves and nothing is to end it (no drain, no SIGTERM), and judges only a listing in
//!   which the scheduler's own row is active: once then, and again [35 s](core::SECOND_LOOK) later, as a cache may have hidden
//!   some rows.
//! - A *predecessor* is an active row of the same hostname and cluster with another IP. Silent at its ip:port, or with that
//!   ip:port in another scheduler's active row by now, it is signed off: through the spool, like any other ask.
//! - Where the manager shows keep-alive times (REST of v2.3.1 and later), they have to agree: see [`evidence`]. Where a
//!   connection tells nothing, as behind a service mesh, they decide alone.
//! - Each at most once in the agent's life, and what counts is an attempt that was begun. One that is active again afterwards is
//!   *contested*: nothing more is written, and one ERROR says so. So is one that answers, at two looks 30 s apart (a scheduler that
//!   took its address over may not be active yet at the first), one that became active only after our own row had been, one that
//!   the manager hears of, and one that it heard of after our own row was made: these are left alone.
//! - What can't be told is left for the next look, for [15 min](core::WATCHED) at most, and said once.
//!
//! Over gRPC alone it can't tell a dead pod from one of another Kubernetes cluster that can't be reached from here and shares
//! hostname and cluster id in one manager: hence *at most once*, and that agent gives its own row back.
//!
//! [`core`] decides, without I/O, clock or chance; [`task`] lists, probes, persists, signs off and says; [`standing`] says
//! whether it is on at all.

pub mod core;
pub mod evidence;
pub mod standing;
pub mod task;
