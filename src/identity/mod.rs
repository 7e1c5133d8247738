//! Whose row the agent answers for, and where everything is: flags, environment, scheduler.yaml, POD_IP and FQDN.
//!
//! [`resolve()`] turns [`Inputs`] and [`Surroundings`] into [`Settings`]. It blocks for up to a few seconds and may be
//! called again while something is missing; keep one [`System`] for all calls, and call it off the async threads.

pub mod address;
pub mod duration;
pub mod fqdn;
pub mod inputs;
pub mod interfaces;
pub mod ip;
pub mod resolve;
pub mod scheduler_yaml;
pub mod settings;
pub mod surroundings;
pub mod target;

pub use address::HostPort;
pub use inputs::{Inputs, Wrong};
pub use resolve::{CONFIGURATION, Problem, Resolved, resolve};
pub use scheduler_yaml::TlsFiles;
pub use settings::{DEFAULT_SCHEDULER_PORT, Repair, Settings, SettingsError};
pub use surroundings::{Surroundings, System};
