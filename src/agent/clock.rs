//! The clocks that the shell reads for the core.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::moment::{Moment, Now};

/// Counts from its making. tokio's clock, so that tests can stop it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts to count.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        Now { at: self.at(Instant::now()), wall: wall_millis(), roll: fastrand::u32(..) }
    }

    /// An instant as a moment.
    pub fn at(&self, instant: Instant) -> Moment {
        Moment(instant.saturating_duration_since(self.start))
    }

    /// A moment as an instant.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.start + moment.0
    }

    /// Waits for a moment.
    pub async fn sleep_until(&self, moment: Moment) {
        tokio::time::sleep_until(self.instant(moment)).await;
    }
}

/// Milliseconds since the Unix epoch; zero for a clock set before it.
pub fn wall_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
