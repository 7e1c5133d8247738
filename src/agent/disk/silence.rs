//! Whether the disk's thread answers, and since when it doesn't.

use tokio::{sync::watch, time::Instant};

/// How many operations were given up on that the thread has not come past yet. Clones of the receiver see each change.
#[derive(Debug)]
pub(super) struct Silence(watch::Sender<Overdue>);

/// What was given up on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overdue {
    count: usize,
    since: Option<Instant>,
}

impl Overdue {
    /// Since when the oldest of them has waited; `None` where the disk answers.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }
}

impl Default for Silence {
    fn default() -> Self {
        Self(watch::Sender::new(Overdue::default()))
    }
}

impl Silence {
    /// Whether an operation is overdue.
    pub(super) fn is(&self) -> bool {
        self.0.borrow().count > 0
    }

    /// One that was asked at `since` is overdue.
    pub(super) fn begins(&self, since: Instant) {
        self.0.send_modify(|overdue| {
            overdue.count += 1;
            overdue.since.get_or_insert(since);
        });
    }

    /// The thread has come past one.
    pub(super) fn ends(&self) {
        self.0.send_modify(|overdue| {
            overdue.count = overdue.count.saturating_sub(1);
            if overdue.count == 0 {
                overdue.since = None;
            }
        });
    }

    pub(super) fn watch(&self) -> watch::Receiver<Overdue> {
        self.0.subscribe()
    }
}
