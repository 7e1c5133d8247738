//! scheduler.yaml, as far as it can be had.

use std::{io, path::PathBuf};

use super::{
    super::{
        scheduler_yaml::{self, Parsed, SchedulerYaml},
        surroundings::Surroundings,
    },
    Problem,
};

/// The scheduler's configuration file, as far as it can be had.
pub(super) enum Config {
    /// Nobody named one, and there is none at the default path.
    NotThere,
    /// It should be there, and can't be read.
    Unreadable,
    /// It was read.
    Read(Box<Parsed>),
}

impl Config {
    pub(super) fn read(
        given: Option<&PathBuf>,
        surroundings: &impl Surroundings,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let path = given.cloned().unwrap_or_else(|| scheduler_yaml::DEFAULT_PATH.into());
        let mut say = |text: String| problems.push(Problem { reason: "scheduler-config", text });
        let text = match surroundings.read(&path, scheduler_yaml::MAX_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && given.is_none() => {
                return Self::NotThere;
            }
            Err(error) => {
                say(format!("{}: {error}", path.display()));
                return Self::Unreadable;
            }
        };
        match scheduler_yaml::parse(&text, &path) {
            Ok(parsed) => {
                parsed.errors.iter().for_each(|e| say(e.to_string()));
                if parsed.yaml.wants_issued_certificates() {
                    say(format!(
                        "{}: with security.tlsPolicy force the scheduler wants certificates that its manager issues, and signoff has \
                         none: whether the scheduler serves can't be seen",
                        path.display()
                    ));
                }
                Self::Read(Box::new(parsed))
            }
            Err(error) => {
                say(error.to_string());
                Self::Unreadable
            }
        }
    }

    pub(super) fn yaml(&self) -> SchedulerYaml {
        match self {
            Self::Read(parsed) => parsed.yaml.clone(),
            Self::NotThere | Self::Unreadable => SchedulerYaml::default(),
        }
    }

    /// Whether it may say something of `fields` that can't be read now.
    pub(super) fn hides(&self, fields: &[&str]) -> bool {
        match self {
            Self::NotThere => false,
            Self::Unreadable => true,
            Self::Read(parsed) => fields.iter().any(|f| parsed.is_bad(f)),
        }
    }
}
