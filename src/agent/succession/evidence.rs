//! What the manager's lists say of a suspect: whether it is a predecessor at all, and whether it is gone. Pure.
//!
//! Where times are shown, **a predecessor was last heard of, and last written, before its successor's row was made**; whatever was
//! heard of or written later is a twin, or was signed off once and came back. That is necessary, not sufficient: so it is watched,
//! too. Of what nobody is seen to be at its address, for one interval and a bit: one that lives moves its time in it. Of what
//! can't be looked at, for [three](INTERVALS_APART).

use std::time::Duration;

use super::{
    super::{
        hearing::{Heard, Hearing},
        moment::Moment,
    },
    core::Contested,
};
use crate::manager::{
    Row,
    times::{INTERVALS_APART, Times},
};

#[cfg(test)]
mod tests;

/// How long one is watched where nobody is seen to be, in its intervals: its next keep-alive comes within one.
const WATCHED: f32 = 1.2;

/// Whether the lists say enough for a sign-off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing is heard of it, in words.
    Gone(String),
    /// It has to be watched, at least until then.
    NotYet(Moment),
    /// They say nothing.
    Untold,
}

/// What the lists so far say of one suspect.
#[derive(Debug, Clone)]
pub struct Evidence {
    hearing: Hearing,
    heard: Heard,
    /// It is older than our own row in all that is shown of it; none where that isn't shown.
    precedes: Option<bool>,
    interval: Duration,
    /// When the last list was there.
    at: Moment,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            hearing: Hearing::default(),
            heard: Heard::Untold,
            precedes: None,
            interval: Duration::ZERO,
            at: Moment::default(),
        }
    }
}

impl Evidence {
    /// A list shows it like this, beside our own row. `interval` is that of a row that doesn't say.
    pub(super) fn listed(
        &mut self,
        (asked, answered): (Moment, Moment),
        row: &Row,
        own: Option<&Row>,
        interval: Duration,
    ) {
        self.heard = self.hearing.listed((asked, answered), row, own.into_iter());
        let shown = own.and_then(|own| Times::from(row).precede(own.into()));
        self.precedes = shown.or(self.precedes);
        self.interval = row.keep_alive_interval.unwrap_or(interval);
        self.at = answered;
    }

    /// What says that it is no predecessor.
    pub fn speaks_against(&self) -> Option<Contested> {
        match (self.heard, self.precedes) {
            (Heard::Moved, _) => Some(Contested::Twin),
            (_, Some(false)) => Some(Contested::Beside),
            (Heard::Untold | Heard::Unproven | Heard::Silent(_), None | Some(true)) => None,
        }
    }

    /// Whether a sign-off may follow. Where times are expected and not shown, they are waited for until `times_by`.
    pub(super) fn readiness(&self, seen_to_be_gone: bool, times_by: Option<Moment>) -> Readiness {
        let needed =
            if seen_to_be_gone { self.interval.mul_f32(WATCHED) } else { self.interval * INTERVALS_APART };
        match self.heard {
            Heard::Untold => times_by.map_or(Readiness::Untold, Readiness::NotYet),
            // Without the order of the two there is one kind of evidence alone.
            Heard::Silent(time) if time >= needed && (seen_to_be_gone || self.precedes == Some(true)) => {
                Readiness::Gone(format!(
                    "the manager heard nothing of it for {} s, and last before this scheduler's row was made",
                    time.as_secs()
                ))
            }
            Heard::Silent(time) if time >= needed => Readiness::Untold,
            Heard::Silent(_) | Heard::Unproven | Heard::Moved => {
                let then = self.hearing.silent_at(needed);
                Readiness::NotYet(then.filter(|then| *then > self.at).unwrap_or(self.at + self.interval))
            }
        }
    }
}
