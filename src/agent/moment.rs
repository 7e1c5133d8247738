//! Time as the core sees it: handed in, never read.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

use crate::spool::record::WallMillis;

/// A moment of the monotonic clock: the time since the agent started. Setting the wall clock doesn't move it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub Duration);

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, later: Duration) -> Moment {
        Moment(self.0.saturating_add(later))
    }
}

impl Sub<Moment> for Moment {
    type Output = Duration;
    /// The time since `earlier`; zero if that is not in the past.
    fn sub(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// What a step of the core gets to know about time and chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub at: Moment,
    /// When what happened came: before `at` where the shell waited for the disk meanwhile. A grace counts from here.
    pub came: Moment,
    /// The wall clock: only for what is written into records, and for the end of a drain that outlives its agent.
    pub wall: WallMillis,
    /// A random number, for jitter.
    pub roll: u32,
}

impl Now {
    /// `roll` as a fraction in 0..1.
    pub fn fraction(&self) -> f64 {
        f64::from(self.roll) / (f64::from(u32::MAX) + 1.0)
    }
}
