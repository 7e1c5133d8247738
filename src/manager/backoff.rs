//! When to try again.
//!
//! Exponential, full jitter: a delay is uniform between zero and the current interval, and never exceeds the cap. The
//! `backoff` crate's policy gives the interval only; its own jitter can reach twice the cap, and its clock decides
//! nothing here. Pure: the random number is an argument.

use std::{fmt, time::Duration};

use backoff::{ExponentialBackoff, SystemClock, backoff::Backoff as _};

/// The delays between the attempts of one ask.
pub struct Backoff {
    initial: Duration,
    policy: ExponentialBackoff,
}

impl fmt::Debug for Backoff {
    /// Without the policy's own start time, which decides nothing: two alike are written alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backoff")
            .field("initial", &self.initial)
            .field("interval", &self.policy.current_interval)
            .field("cap", &self.policy.max_interval)
            .finish()
    }
}

impl Clone for Backoff {
    /// With the interval it has reached: the policy's own `Clone` is missing, as it stands for a clock too.
    fn clone(&self) -> Self {
        let mut policy = policy(self.initial, self.policy.max_interval);
        policy.current_interval = self.policy.current_interval;
        Self { initial: self.initial, policy }
    }
}

fn policy(initial: Duration, cap: Duration) -> ExponentialBackoff {
    ExponentialBackoff {
        current_interval: initial,
        initial_interval: initial,
        randomization_factor: 0.0,
        multiplier: 2.0,
        max_interval: cap,
        // Its default would give up after 15 min.
        max_elapsed_time: None,
        clock: SystemClock::default(),
        start_time: std::time::Instant::now(),
    }
}

impl Backoff {
    /// Delays that start at up to `initial`.
    pub fn new(initial: Duration) -> Self {
        Self { initial, policy: policy(initial, initial) }
    }

    /// The next delay. `cap` bounds it (it may change from one delay to the next), `roll` (0 to 1) is the random number
    /// that draws it, `floor` is the manager's wish for no sooner, and `left` is the time until the deadline, past which
    /// no delay reaches: the last attempt is made at the deadline rather than never.
    pub fn next(
        &mut self,
        cap: Duration,
        roll: f64,
        floor: Option<Duration>,
        left: Option<Duration>,
    ) -> Duration {
        self.policy.max_interval = cap;
        // A cap of zero must not leave an interval that doubles to zero for ever.
        self.policy.current_interval = self.policy.current_interval.max(self.initial).min(cap);
        // Without an elapsed-time limit the policy always has a next one.
        let interval = self.policy.next_backoff().unwrap_or(cap).min(cap);
        let roll = if roll.is_finite() { roll.clamp(0.0, 1.0) } else { 1.0 };
        let jittered = interval.mul_f64(roll);
        let wished = jittered.max(floor.unwrap_or_default());
        left.map_or(wished, |left| wished.min(left))
    }

    /// Starts over, as after a success.
    pub fn reset(&mut self) {
        self.policy = policy(self.initial, self.initial);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn g3_the_interval_doubles_up_to_the_cap() {
        let mut backoff = Backoff::new(MS(200));
        let delays: Vec<_> = (0..5).map(|_| backoff.next(MS(1000), 1.0, None, None)).collect();
        assert_eq!(delays, [200, 400, 800, 1000, 1000].map(MS));
        backoff.reset();
        assert_eq!(backoff.next(MS(1000), 1.0, None, None), MS(200));
    }

    #[test]
    fn a_cap_that_shrinks_holds_at_once_and_one_that_grows_is_grown_into() {
        let mut backoff = Backoff::new(MS(200));
        for _ in 0..20 {
            backoff.next(MS(30_000), 1.0, None, None);
        }
        assert_eq!(backoff.next(MS(1000), 1.0, None, None), MS(1000));
        assert!(backoff.next(MS(5000), 1.0, None, None) <= MS(2000));
    }

    #[test]
    fn g3_it_never_gives_up() {
        let mut backoff = Backoff::new(MS(200));
        assert!((0..100_000).all(|_| backoff.next(MS(30_000), 0.5, None, None) <= MS(15_000)));
    }

    #[test]
    fn g3_a_floor_is_kept_but_not_past_the_deadline() {
        let mut backoff = Backoff::new(MS(200));
        assert_eq!(backoff.next(MS(1000), 0.0, Some(MS(3000)), None), MS(3000));
        assert_eq!(backoff.next(MS(1000), 0.0, Some(MS(3000)), Some(MS(700))), MS(700));
    }

    #[test]
    fn a_clone_goes_on_where_the_first_one_was() {
        let mut backoff = Backoff::new(MS(200));
        backoff.next(MS(1000), 1.0, None, None);
        let mut clone = backoff.clone();
        assert_eq!(clone.next(MS(1000), 1.0, None, None), backoff.next(MS(1000), 1.0, None, None));
    }

    proptest! {
        #[test]
        fn g3_full_jitter_never_exceeds_the_cap(
            caps in proptest::collection::vec(0u64..60_000, 1..40), roll in -1.0f64..2.0, left in 0u64..60_000,
        ) {
            let mut backoff = Backoff::new(MS(200));
            for cap in caps {
                let delay = backoff.next(MS(cap), roll, None, Some(MS(left)));
                prop_assert!(delay <= MS(cap) && delay <= MS(left));
            }
        }
    }
}
