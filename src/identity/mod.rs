//! Whose row the agent answers for, and where everything is: flags, environment, scheduler.yaml, POD_IP and FQDN.

pub mod address;
pub mod duration;
pub mod fqdn;
pub mod interfaces;
pub mod ip;
pub mod resolve;
pub mod scheduler_yaml;
pub mod settings;
pub mod surroundings;

pub use address::HostPort;
pub use resolve::{Inputs, Problem, Resolved, UsageError, resolve};
pub use scheduler_yaml::TlsFiles;
pub use settings::{Repair, Settings, SettingsError};
pub use surroundings::{Surroundings, System};
