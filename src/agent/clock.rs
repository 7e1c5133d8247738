//! The clocks that the shell reads for the core.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::moment::{Moment, Now};

/// 30 years: no agent lives as long.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

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

    /// A moment as an instant; one that is too far off to be told is [`NEVER`] from the start.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.start.checked_add(moment.0).unwrap_or(self.start + NEVER)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_past_all_instants_is_far_off_and_no_panic() {
        let clock = Clock::start();
        assert!(clock.instant(Moment(Duration::MAX)) >= clock.instant(Moment::default()) + NEVER);
    }
}
