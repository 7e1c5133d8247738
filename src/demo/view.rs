//! What the audience sees: a timeline, and on a terminal the manager's table below it.

use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use crate::{manager::State, mock::table::TableRow};

/// A timeline on stdout.
#[derive(Clone)]
pub(super) struct View(Arc<Mutex<Screen>>);

struct Screen {
    began: Instant,
    live: bool,
    rows: Vec<TableRow>,
    /// Lines of the table on the screen, to be painted over.
    painted: usize,
}

impl View {
    /// Begins the timeline.
    pub(super) fn new(began: Instant) -> Self {
        let live = std::io::stdout().is_terminal();
        Self(Arc::new(Mutex::new(Screen { began, live, rows: Vec::new(), painted: 0 })))
    }

    /// A scene begins.
    pub(super) fn scene(&self, title: &str) {
        self.with(|screen| {
            let title = if screen.live { format!("\x1b[1m{title}\x1b[0m") } else { title.to_owned() };
            screen.print(&format!("\n{title}"));
        });
    }

    /// Somebody did something.
    pub(super) fn line(&self, who: &str, what: &str) {
        self.with(|screen| {
            let at = screen.began.elapsed().as_secs_f32();
            screen.print(&format!("{at:7.2} s  {who:<10} {what}"));
        });
    }

    /// How a scene ended.
    pub(super) fn verdict(&self, good: bool, text: &str) {
        self.with(|screen| {
            let word = match (good, screen.live) {
                (true, true) => "\x1b[32mas promised\x1b[0m",
                (true, false) => "as promised",
                (false, true) => "\x1b[31mNOT AS PROMISED\x1b[0m",
                (false, false) => "NOT AS PROMISED",
            };
            screen.print(&format!("{:>12}{word}: {text}", ""));
        });
    }

    /// The last line.
    pub(super) fn end(&self, text: &str) {
        self.with(|screen| screen.print(&format!("\n{text}")));
    }

    /// The manager's table changed.
    pub(super) fn table(&self, rows: Vec<TableRow>) {
        self.with(|screen| {
            screen.rows = rows;
            if screen.live {
                screen.repaint(None);
            }
        });
    }

    fn with(&self, act: impl FnOnce(&mut Screen)) {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Screen {
    fn print(&mut self, line: &str) {
        if self.live {
            self.repaint(Some(line));
        } else {
            self.write(&format!("{line}\n"));
        }
    }

    /// Replaces the painted table by a line and the table below it.
    fn repaint(&mut self, line: Option<&str>) {
        let mut text = String::new();
        if self.painted > 0 {
            text.push_str(&format!("\x1b[{}A\x1b[J", self.painted));
        }
        if let Some(line) = line {
            text.push_str(line);
            text.push('\n');
        }
        self.painted = 0;
        if !self.rows.is_empty() {
            text.push_str("\n  id  hostname       ip           port   state\n");
            self.painted = 2 + self.rows.len();
            for row in &self.rows {
                let (colour, state) = match row.state {
                    State::Active => ("\x1b[32m", "active"),
                    State::Inactive => ("\x1b[2m", "inactive"),
                };
                text.push_str(&format!(
                    "{colour}{:>4}  {:<13}  {:<11}  {:<5}  {state}\x1b[0m\n",
                    row.id, row.host_name, row.ip, row.port
                ));
            }
        }
        self.write(&text);
    }

    fn write(&self, text: &str) {
        // A reader that has gone away doesn't change how the demo ends.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
