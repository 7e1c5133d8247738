//! Lines that somebody else can cause again and again: the first ones are said at once, then at most one a minute, which says
//! how many like it were held back.

use std::time::Duration;

use tokio::time::Instant;

/// How often a line is said that goes on and on.
pub const EVERY: Duration = Duration::from_secs(60);

/// One kind of line. Pure: time is an argument.
#[derive(Debug, Clone)]
pub struct Seldom {
    /// How many may follow each other at once, after a quiet time of as many minutes.
    burst: u32,
    /// When a whole burst may be said again.
    rested_at: Option<Instant>,
    held_back: u64,
}

/// A line may be said now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// How many like it were held back since the last one that was said; `None` where none was. A log line's field.
    pub held_back: Option<u64>,
}

impl Seldom {
    /// At most `burst` (at least 1) lines at once.
    pub fn new(burst: u32) -> Self {
        Self { burst: burst.max(1), rested_at: None, held_back: 0 }
    }

    /// Whether a line may be said at `now`; if not, it is counted.
    pub fn turn(&mut self, now: Instant) -> Option<Turn> {
        let rested_at = self.rested_at.unwrap_or(now).max(now);
        if rested_at - now > EVERY * (self.burst - 1) {
            self.held_back += 1;
            return None;
        }
        self.rested_at = Some(rested_at + EVERY);
        Some(Turn { held_back: self.take() })
    }

    fn take(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.held_back)).filter(|count| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_then_one_a_minute_with_the_number_of_the_others() {
        let (mut seldom, start) = (Seldom::new(1), Instant::now());
        let mut said = Vec::new();
        // Ten a second, for an hour.
        for tenth in 0..36_000u64 {
            let at = Duration::from_millis(tenth * 100);
            if let Some(turn) = seldom.turn(start + at) {
                said.push((at.as_secs(), turn.held_back));
            }
        }
        assert_eq!(said.len(), 60);
        assert_eq!(said[..2], [(0, None), (60, Some(599))]);
    }

    #[test]
    fn a_burst_is_said_whole_and_again_after_as_many_quiet_minutes() {
        let (mut seldom, start) = (Seldom::new(3), Instant::now());
        let mut burst = |at: Instant| (0..10).filter(|_| seldom.turn(at).is_some()).count();
        assert_eq!(burst(start), 3);
        assert_eq!(burst(start + EVERY), 1);
        assert_eq!(burst(start + EVERY * 10), 3);
    }
}
