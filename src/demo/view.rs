//! What the audience sees: a timeline, and on a terminal the manager's table below it.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use crate::{manager::State, mock::table::TableRow};

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";

/// A timeline on stdout. Clones share it.
#[derive(Clone)]
pub(super) struct View(Arc<Mutex<Screen>>);

struct Screen {
    began: Instant,
    /// A terminal that can paint over what is there.
    live: bool,
    /// Colours too, which NO_COLOR forbids.
    colours: bool,
    rows: Vec<TableRow>,
    /// Lines of the table on the screen, to be painted over.
    painted: usize,
}

impl View {
    /// Begins the timeline.
    pub(super) fn new(began: Instant) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_none_or(|term| term == "dumb");
        let live = std::io::stdout().is_terminal() && !dumb;
        let colours = live && set("NO_COLOR").is_none();
        Self(Arc::new(Mutex::new(Screen { began, live, colours, rows: Vec::new(), painted: 0 })))
    }

    /// A scene begins.
    pub(super) fn scene(&self, title: &str) {
        self.with(|screen| {
            let title = screen.coloured(BOLD, title);
            screen.print(&format!("\n{title}"));
        });
    }

    /// Somebody did something.
    pub(super) fn line(&self, who: &str, what: &str) {
        self.with(|screen| {
            let at = screen.coloured(DIM, &format!("{:7.2} s", screen.began.elapsed().as_secs_f32()));
            let padded = format!("{who:<9}");
            let who = if who == "table" { screen.coloured(CYAN, &padded) } else { padded };
            screen.print(&format!("{at}  {who}  {what}"));
        });
    }

    /// How a scene ended: as it promised, or why not.
    pub(super) fn verdict(&self, outcome: &Result<String, String>) {
        self.with(|screen| {
            let text = match outcome {
                Ok(promise) => format!("{}: {promise}", screen.coloured(GREEN, "AS PROMISED")),
                Err(why) => format!("{}: {why}", screen.coloured(RED, "NOT AS PROMISED")),
            };
            screen.print(&format!("{:11}{text}", ""));
        });
    }

    /// A last line, below the table.
    pub(super) fn end(&self, text: &str) {
        self.with(|screen| {
            let text = screen.coloured(BOLD, text);
            screen.painted = 0;
            screen.write(&format!("\n{text}\n"));
        });
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
    fn coloured(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("{colour}{text}\x1b[0m") } else { text.to_owned() }
    }

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
        // Writing to a String doesn't fail.
        if self.painted > 0 {
            let _ = write!(text, "\x1b[{}A\x1b[J", self.painted);
        }
        if let Some(line) = line {
            text.push_str(line);
            text.push('\n');
        }
        self.painted = 0;
        if !self.rows.is_empty() {
            let head = format!("  {:>2}  {:<13}  {:<11}  {:<5}  state", "id", "hostname", "ip", "port");
            let _ = write!(text, "\n{}\n", self.coloured(DIM, &head));
            for row in &self.rows {
                let (colour, state) = match row.state {
                    State::Active => (GREEN, "active"),
                    State::Inactive => (DIM, "inactive"),
                };
                let row = format!(
                    "  {:>2}  {:<13}  {:<11}  {:<5}  {state}",
                    row.id, row.host_name, row.ip, row.port
                );
                let _ = writeln!(text, "{}", self.coloured(colour, &row));
            }
            self.painted = 2 + self.rows.len();
        }
        self.write(&text);
    }

    fn write(&self, text: &str) {
        // A reader that has gone away doesn't change how the demo ends.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
