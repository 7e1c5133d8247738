//! How far a run is: a line on a terminal, nothing elsewhere.

use std::{io::IsTerminal, time::Duration};

use indicatif::ProgressBar;

use crate::repair::survey::Progress;

/// Says nothing.
pub(super) struct Quiet;

impl Progress for Quiet {
    fn read(&self, _: u8, _: usize) {}
    fn waiting(&self, _: Duration) {}
    fn probed(&self, _: usize, _: usize) {}
    fn written(&self, _: usize, _: usize) {}
}

/// One line on stderr, if that is a terminal.
pub(super) struct Shown(ProgressBar);

impl Shown {
    pub(super) fn new() -> Self {
        let bar =
            if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        Self(bar)
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }

    fn say(&self, text: String) {
        if !self.0.is_hidden() {
            self.0.set_message(text);
            self.0.tick();
        }
    }
}

impl Progress for Shown {
    fn read(&self, look: u8, rows: usize) {
        // Drawing each of 100,000 rows would take longer than reading it.
        if rows.is_multiple_of(500) || rows == 1 {
            self.say(format!("look {look} of 2: {rows} rows"));
        }
    }

    fn waiting(&self, left: Duration) {
        self.say(format!("waiting {} s for the second look", left.as_secs() + 1));
    }

    fn probed(&self, done: usize, of: usize) {
        self.say(format!("probed {done} of {of} addresses"));
    }

    fn written(&self, done: usize, of: usize) {
        self.say(format!("written {done} of {of} rows"));
    }
}
