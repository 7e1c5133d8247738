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
        let at = self.at(Instant::now());
        Now { at, came: at, wall: wall_millis(), roll: fastrand::u32(..) }
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
    #[cfg(test)]
    if let Some(wall) = set::wall() {
        return wall;
    }
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A wall clock that a test sets, for its own thread: it goes on with tokio's.
#[cfg(test)]
pub(crate) mod set {
    use std::cell::Cell;

    use tokio::time::Instant;

    /// Nobody asks so often what time it is while it stands still, unless nothing ever lets it go on.
    const SPINS: u32 = 1_000_000;

    thread_local! {
        static SET: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
        static ASKED: Cell<Option<(Instant, u32)>> = const { Cell::new(None) };
    }

    /// It is so late now (Unix time in milliseconds), or as late as the machine says again.
    pub(crate) fn set_wall(millis: Option<u64>) {
        SET.set(millis.map(|millis| (Instant::now(), millis)));
    }

    pub(super) fn wall() -> Option<u64> {
        let (since, millis) = SET.get()?;
        let now = Instant::now();
        let times = ASKED.get().filter(|(at, _)| *at == now).map_or(0, |(_, times)| times) + 1;
        ASKED.set(Some((now, times)));
        assert!(times < SPINS, "it spins: time stands still");
        Some(millis + u64::try_from((now - since).as_millis()).unwrap_or(0))
    }
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
