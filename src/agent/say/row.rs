//! What is known of the row: the newest of what was read, what the manager acknowledged, and what the agent holds.
//!
//! A list over gRPC may be 30 s old, so what it says is as good as known then. An acknowledged sign-off, or a stream that the
//! agent opened after that, is the better word.

use crate::{
    agent::{
        lifecycle::{Lifecycle, Notice, Verdict},
        moment::Moment,
    },
    manager::RowState,
};

/// How the row's state is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// By a read.
    Read,
    /// By the manager's acknowledgement of a sign-off.
    SignOff,
    /// By the agent's own open stream.
    Hold,
}

impl By {
    /// As `signoff status` has it in JSON.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::SignOff => "sign-off",
            Self::Hold => "hold",
        }
    }
}

/// What the row is as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Best {
    /// Active, or not.
    pub state: RowState,
    /// When it was read, when the sign-off was acknowledged, or since when it is held.
    pub at: Moment,
    /// Which of these.
    pub by: By,
}

/// What was learned of the row beside reads.
#[derive(Debug, Default)]
pub struct Known {
    /// When a sign-off was last acknowledged, and what the row was then.
    signed_off: Option<(Moment, RowState)>,
    /// When the row was last registered again.
    put_back: Option<Moment>,
}

impl Known {
    /// Takes notice of an acknowledgement, and of a row that was registered again.
    pub fn learn(&mut self, notice: &Notice, now: Moment) {
        if *notice == Notice::PutBack {
            self.put_back = Some(now);
        }
        let (Notice::Settled { verdict, .. } | Notice::Watched { verdict, .. }) = notice else { return };
        match verdict {
            Verdict::Confirmed => self.signed_off = Some((now, RowState::Inactive)),
            Verdict::Absent | Verdict::NeverRegistered => self.signed_off = Some((now, RowState::Absent)),
            Verdict::Superseded | Verdict::Dropped | Verdict::Contested | Verdict::Queued => {}
        }
    }

    pub(super) fn put_back_at(&self) -> Option<Moment> {
        self.put_back
    }

    pub(super) fn best(&self, core: &Lifecycle) -> Option<Best> {
        let read = core.row().map(|row| {
            let as_of = Moment(row.asked.0.saturating_sub(row.freshness.age()));
            (as_of, Best { state: row.state, at: row.asked, by: By::Read })
        });
        let signed_off = self.signed_off.map(|(at, state)| (at, Best { state, at, by: By::SignOff }));
        let held = core.held().map(|(at, _)| (at, Best { state: RowState::Active, at, by: By::Hold }));
        // The later ones win where two are as new as each other.
        let known = [read, signed_off, held].into_iter().flatten();
        known.max_by_key(|(as_of, _)| *as_of).map(|(_, best)| best)
    }
}
