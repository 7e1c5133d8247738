//! Why a row is what it is: small, since a table may have 100,000; in words where somebody reads them.

use std::{fmt::Write, num::NonZeroU64, time::Duration};

use super::{Circumstances, Probed, Says, Seen};
use crate::{identity::duration, manager::times::INTERVALS_APART};

/// Why two looks at a row's keep-alive time prove nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// No keep-alive time is shown for it: gRPC, a manager before v2.3.1, or a row that such a one made.
    NoTimes,
    /// No row's time moved: the manager, or the replica that is read, stands still.
    NothingMoved,
    /// The looks were too close together for this row's interval.
    TooSoon,
}

/// What a row's first look lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newness {
    /// The row was not there.
    Row,
    /// It was inactive, and is active.
    State,
    /// One look shows its keep-alive time, the other doesn't.
    Time,
    /// It was written between the looks: its scheduler may just have come back to the manager.
    Written,
}

/// Why a row is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The manager heard of it between the looks.
    Heard,
    /// It answers at an address that is its alone, or its pod is there; and its keep-alive time proves nothing.
    Answers {
        /// Why not.
        why: Unproven,
    },
    /// It answers, or its pod is there, but the manager hears nothing of it.
    AnswersUnheard,
    /// What it was at the first look doesn't compare.
    New(Newness),
    /// Two rows of one hostname live.
    Twins {
        /// The other one's id.
        with: u64,
    },
    /// It answers, or its pod is there, beside a living row of its hostname, while the manager hears nothing of it.
    AnswersBeside {
        /// That row's id.
        with: u64,
    },
    /// This process signed it off, or may have, and it is active again.
    CameBack,
    /// It would be dead, and something made it active long after it was last heard of.
    WrittenApart,
    /// What speaks of its death, or does not reach for that.
    Evidence {
        /// Its keep-alive time did not move, and should have.
        silent: bool,
        /// Why that is not known.
        unproven: Option<Unproven>,
        /// What was found at its address.
        probe: Probed,
        /// Another active row with its address.
        shared: Option<NonZeroU64>,
        /// A living row of its hostname.
        namesake: Option<NonZeroU64>,
        /// That row was made after this one was last heard of and written, as far as that is shown.
        succeeded: bool,
        /// A living row with its address.
        neighbour: Option<NonZeroU64>,
    },
    /// Inactive, and nothing was heard of it.
    Inactive,
    /// It was active at the first look and is inactive now.
    Ended,
    /// Inactive, though its scheduler lives.
    WronglyInactive {
        /// The manager heard of it; else it answers.
        heard: bool,
    },
}

impl Unproven {
    fn words(self, row: &Seen, apart: Duration) -> String {
        match self {
            Self::NoTimes => "no keep-alive time is shown for it (gRPC, or a manager before v2.3.1)".to_owned(),
            Self::NothingMoved => {
                "no row's keep-alive time in its cluster moved (does the manager, or the replica that is read, stand still?)"
                    .to_owned()
            }
            Self::TooSoon => format!(
                "the looks were {} apart, less than {INTERVALS_APART} of its keep-alive intervals of {} (see --recheck-after)",
                short(apart),
                duration::format(row.now.interval())
            ),
        }
    }
}

/// To the second: nobody reads the rest.
fn short(time: Duration) -> String {
    match time.as_secs() {
        0 => duration::format(time),
        seconds => duration::format(Duration::from_secs(seconds)),
    }
}

impl Reason {
    /// In words, of the row `row`.
    pub fn words(&self, row: &Seen, given: &Circumstances) -> String {
        let apart = short(given.apart);
        let shows_itself = match (row.probe, row.pod) {
            (Probed::Answers, _) => "it answers at its address",
            _ => "its pod is there, and has its address",
        };
        match self {
            Self::Heard => "the manager heard of it between the looks".to_owned(),
            Self::Answers { why } => format!("{shows_itself}; {}", why.words(row, given.apart)),
            Self::AnswersUnheard => format!(
                "{shows_itself}, but the manager heard nothing of it for {apart}: see that scheduler's log"
            ),
            Self::New(Newness::Row) => "it was not there at the first look".to_owned(),
            Self::New(Newness::State) => "it became active between the looks".to_owned(),
            Self::New(Newness::Time) => {
                "its keep-alive time was shown at one look only (managers of different releases?)".to_owned()
            }
            Self::New(Newness::Written) => {
                "it was written between the looks: its scheduler may just have come back to the manager"
                    .to_owned()
            }
            Self::Twins { with } => format!(
                "row {with} has its hostname, and both live: two schedulers share one name; give each its own (server.host), or \
                 each Kubernetes cluster its own cluster id (manager.schedulerClusterID)"
            ),
            Self::AnswersBeside { with } => format!(
                "{shows_itself}, the manager heard nothing of it for {apart}, and row {with}, which lives, has its hostname"
            ),
            Self::CameBack => "this process signed it off, and it is active again".to_owned(),
            Self::WrittenApart => "nothing is heard of it, but it was written long after its last keep-alive: something made it active \
                                   again, perhaps after an earlier sign-off; see whether its scheduler lives"
                .to_owned(),
            Self::Inactive if row.pod.lives() => {
                "inactive, and nothing was heard of it; its pod is there, and may be starting, or draining".to_owned()
            }
            Self::Inactive => "inactive, and nothing was heard of it".to_owned(),
            Self::Ended => "it became inactive between the looks".to_owned(),
            Self::WronglyInactive { heard } => format!(
                "inactive, but {}: its agent gives it back within 65 s (6 min over gRPC alone), unless it drains; where it has no \
                 agent, restart that scheduler",
                if *heard { "the manager hears of it" } else { "it answers at its address" }
            ),
            Self::Evidence { silent, unproven, probe, shared, namesake, succeeded, neighbour } => {
                let mut said = Vec::new();
                if *silent {
                    said.push(format!("the manager heard nothing of it for {apart}"));
                }
                said.extend(match probe {
                    Probed::Silent => Some("nothing answers at its address".to_owned()),
                    Probed::Answers => match (neighbour, shared) {
                        (None, Some(id)) => {
                            Some(format!("who answers at its address, it or row {id}, can't be told"))
                        }
                        _ => None,
                    },
                    Probed::Proxy => Some(
                        "a service mesh's proxy answers at its address, whoever is behind it (see docs/meshes.md)".to_owned(),
                    ),
                    Probed::Foreign if given.masked => Some(
                        "a probe is worthless here: something takes connections to addresses where nobody is (see docs/meshes.md)"
                            .to_owned(),
                    ),
                    Probed::Foreign => Some("what takes connections at its address doesn't answer as a scheduler".to_owned()),
                    Probed::Unclear => Some("its address can't be looked at from here".to_owned()),
                    Probed::NotMade if row.now.ip.is_none() || row.now.port == 0 => {
                        Some("it has no address to look at".to_owned())
                    }
                    Probed::NotMade => {
                        Some("its address was not looked at (too many are unheard of)".to_owned())
                    }
                });
                said.extend(match row.pod {
                    Says::Gone => Some("no pod of its name has its address".to_owned()),
                    Says::Went => Some("no pod of its name has its address any more".to_owned()),
                    Says::Unclear => Some("what its pod says is unclear (see docs/operate.md)".to_owned()),
                    Says::Lives | Says::Starts | Says::NotOurs => None,
                });
                said.extend(namesake.map(|id| match succeeded {
                    true => format!("row {id}, which lives, has its hostname"),
                    false => format!(
                        "row {id}, which lives, has its hostname, but was made before this one was last heard of or written"
                    ),
                }));
                said.extend(neighbour.map(|id| format!("row {id}, which lives, has its address")));
                said.extend(unproven.map(|why| why.words(row, given.apart)));
                let mut text = String::new();
                for (n, words) in said.iter().enumerate() {
                    // Writing to a String doesn't fail.
                    let _ = write!(text, "{}{words}", if n == 0 { "" } else { "; " });
                }
                text
            }
        }
    }
}
