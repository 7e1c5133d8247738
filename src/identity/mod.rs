//! Whose row the agent answers for, and where everything is: flags, environment, scheduler.yaml, POD_IP and FQDN.

pub mod duration;
pub mod scheduler_yaml;
