//! How many requests a second a manager takes: a bucket of tokens, as its rate limiter is, and a record of all that came.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// A request that came to a manager with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// When.
    pub at: Instant,
    /// Whether it was one too many.
    pub refused: bool,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    calls: Vec<Call>,
}

/// The limit. What came is kept for as long as this lives: for a test, not for a server that stays.
#[derive(Debug)]
pub(super) struct Limit {
    per_second: f64,
    bucket: Mutex<Bucket>,
}

impl Limit {
    /// So many requests a second, and as many at once after a second of silence.
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        let bucket = Bucket { tokens: per_second, filled: Instant::now(), calls: Vec::new() };
        Self { per_second, bucket: Mutex::new(bucket) }
    }

    /// Whether a request that comes now is taken.
    pub(super) fn takes(&self) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        let grown = (at - bucket.filled).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + grown).min(self.per_second);
        bucket.filled = at;
        let refused = bucket.tokens < 1.0;
        if !refused {
            bucket.tokens -= 1.0;
        }
        bucket.calls.push(Call { at, refused });
        !refused
    }

    /// All that came, in order.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).calls.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_a_seconds_share_is_taken_and_then_one_for_each_share_of_a_second() {
        let limit = Limit::new(4);
        assert_eq!([(); 6].map(|()| limit.takes()), [true, true, true, true, false, false]);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!([(); 3].map(|()| limit.takes()), [true, true, false]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!([(); 6].map(|()| limit.takes()), [true, true, true, true, false, false]);
        let calls = limit.calls();
        assert_eq!((calls.len(), calls.iter().filter(|call| call.refused).count()), (15, 5));
        assert_eq!(calls[14].at - calls[0].at, Duration::from_millis(60_500));
    }
}
