//! Where the manager is.

use super::{
    super::{
        address::is_grpc,
        scheduler_yaml::{self, SchedulerYaml},
        settings::Settings,
        surroundings::Surroundings,
        target,
    },
    CONFIGURATION, Context,
    config::Config,
};

impl<S: Surroundings> Context<'_, S> {
    /// The manager's endpoints; or that there is none, and need not be.
    pub(super) fn managers(&mut self, file: &Settings) -> (Vec<String>, bool) {
        // One that is right beside one that is wrong is no more to be trusted: REST alone would leave gRPC to scheduler.yaml.
        if self.inputs.is_wrong("manager") {
            return (Vec::new(), false);
        }
        let mut managers = self.inputs.managers.clone();
        if managers.is_empty() {
            managers = file.managers.clone();
        }
        if managers.iter().any(|m| is_grpc(m)) {
            return (managers, false);
        }
        // REST endpoints alone: writes go where the agent's, or the scheduler's own, go.
        let mut grpc: Vec<String> = file.managers.iter().filter(|m| is_grpc(m)).cloned().collect();
        match self.config {
            _ if !grpc.is_empty() => {}
            Config::NotThere if file.without_manager && managers.is_empty() => return (Vec::new(), true),
            Config::NotThere => self.say(
                CONFIGURATION,
                format!(
                    "no gRPC endpoint of the manager is known: give --manager HOST:PORT (or SIGNOFF_MANAGER), or \
                     --scheduler-config with the scheduler's own file ({} is not there)",
                    scheduler_yaml::DEFAULT_PATH
                ),
            ),
            Config::Unreadable => {}
            Config::Read(parsed) => match &parsed.yaml.manager_addr {
                Some(addr) => grpc.extend(self.target(addr, &parsed.yaml)),
                None if parsed.is_bad("manager.addr") => {}
                None if managers.is_empty() => return (Vec::new(), true),
                None => self.say(
                    "manager",
                    "the scheduler's configuration has no manager.addr: give --manager HOST:PORT, too".to_owned(),
                ),
            },
        }
        grpc.extend(managers);
        (grpc, false)
    }

    /// The scheduler's own manager as an endpoint.
    fn target(&mut self, addr: &str, yaml: &SchedulerYaml) -> Option<String> {
        if yaml.has_certificate_inline() && self.inputs.ca_file.is_none() {
            self.say(
                "manager",
                "security.caCert in the scheduler's configuration is the certificate itself: put it into a file, and give \
                 that as --ca-file"
                    .to_owned(),
            );
        }
        let scheme = if yaml.manager_tls_files().is_some() { "grpcs" } else { "grpc" };
        match target::parse(addr) {
            Ok(addr) => Some(format!("{scheme}://{addr}")),
            Err(why) => {
                self.say("manager", format!("manager.addr in the scheduler's configuration: {why}"));
                None
            }
        }
    }
}
