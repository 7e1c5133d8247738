//! The mock manager and the mock scheduler: real servers with the semantics of the real ones.
//!
//! Tests, the demo and `signoff mock-manager` / `signoff mock-scheduler` run the same code. A test reads its verdict from
//! [`MockManager::table`], never from a client's words.

mod admin;
pub mod channel;
pub mod cli;
mod connection;
mod enforcer;
pub mod fault;
mod grpc;
mod health;
mod limit;
mod listener;
pub mod manager;
mod million;
mod node;
mod rest;
pub mod scheduler;
pub mod table;
mod tls;
mod validate;

pub use channel::Channel;
pub use cli::{MockManagerArgs, MockSchedulerArgs, run_manager, run_scheduler};
pub use fault::{Fault, Faults, Kind, Scope};
pub use limit::Call;
pub use manager::{Config, MockError, MockManager, Release, Role, User};
pub use scheduler::{MockScheduler, SchedulerConfig, SchedulerError};
pub use table::{By, Change, Collation, Database, Registration, TableRow};
pub use tls::{TlsError, TlsFiles};
