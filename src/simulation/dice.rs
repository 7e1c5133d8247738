//! Chance, all of it from one seed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// Throws. Clones share one series.
#[derive(Clone)]
pub(super) struct Dice(Arc<Mutex<fastrand::Rng>>);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// 0 to `bound` - 1.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.0.lock().unwrap().u64(..bound)
    }

    pub(super) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// `from` to `to`, in milliseconds.
    pub(super) fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }

    /// One of these.
    pub(super) fn of<T: Copy>(&self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}
