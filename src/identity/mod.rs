//! Whose row the agent answers for, and where everything is: flags, environment, scheduler.yaml, POD_IP and FQDN.

pub mod address;
pub mod duration;
pub mod fqdn;
pub mod interfaces;
pub mod ip;
pub mod scheduler_yaml;
pub mod settings;
pub mod surroundings;
