//! Succession: a scheduler that came back under a new IP signs off the row that its earlier incarnation left active.
//!
//! # What it promises
//!
//! - It looks only while the scheduler serves and nothing is to end it (no drain, no SIGTERM), and judges only a listing in
//!   which the scheduler's own row is active: once then, and again [35 s](core::SECOND_LOOK) later, as a cache may have hidden
//!   some rows.
//! - A *predecessor* is an active row of the same hostname and cluster with another IP. Silent at its ip:port, or with that
//!   ip:port in another scheduler's active row by now, it is signed off: through the spool, like any other ask.
//! - Each at most once in the agent's life. One that is active again afterwards is *contested*: nothing more is written, and
//!   one ERROR says so. So is one that answers, at two looks 30 s apart (a scheduler that took its address over may not be
//!   active yet at the first), and one that became active only after our own row had been: these are left alone.
//! - What can't be looked at is left for the next look, for [15 min](core::WATCHED) at most.
//!
//! It can't tell a dead pod from one of another Kubernetes cluster that can't be reached from here and shares hostname and
//! cluster id in one manager: hence *at most once*, and that agent gives its own row back.
//!
//! [`core`] decides, without I/O, clock or chance; [`task`] lists, probes, persists, signs off and says; [`standing`] says
//! whether it is on at all.

pub mod core;
pub mod standing;
pub mod task;
