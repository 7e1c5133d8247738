//! How `signoff status` shows a [`Status`] to a person: one fact a line, then the pending sign-offs as a table.

use std::fmt::Write;

use jiff::Timestamp;

use crate::{
    agent::{
        check::WITHOUT_MANAGER,
        socket::status::{PendingStatus, RowWord, SchedulerState, Status, SuccessionStatus, one_line},
        succession::standing::Mode,
    },
    spool::record::WallMillis,
};

/// The width of the names' column.
const NAME: usize = 12;

/// The whole view, several lines. Ages are counted from the agent's own `now`, so no clocks are compared.
pub fn render(status: &Status) -> String {
    let mut view = View { out: String::new(), now: status.now };
    view.line("Agent", &agent(status, &view));
    view.line("Key", &key(status));
    view.line("Scheduler", &scheduler(status, &view));
    view.line("Row", &row(status, &view));
    if let Some(since) = status.hold_since {
        let why = status.hold_reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        view.line("Held", &format!("active by a stream of the agent's own, for {}{why}", view.age(since)));
    }
    if let Some(at) = status.put_back_at {
        let what = "somebody deleted the row while the scheduler served; the agent registered it again";
        view.line("Put back", &format!("{what} {} ago", view.age(at)));
    }
    let drain = status
        .drain_until
        .map(|until| format!("on, at most {} more: the row is kept inactive", view.left(until)));
    view.line("Drain", drain.as_deref().unwrap_or("off"));
    if let Some(deadline) = status.deadline {
        view.line("Deadline", &format!("in {} ({})", view.left(deadline), at(deadline)));
    }
    if let Some(succession) = &status.succession {
        view.line("Succession", &self::succession(succession));
    }
    view.line("Manager", &manager(status));
    view.line("Spool", &spool(status));
    for mark in &status.marks {
        view.line("Mark", &format!("{} {} ago ({})", mark.what, view.age(mark.at), mark.id));
    }
    for degradation in &status.degraded {
        view.line("Degraded", &format!("{}: {}", degradation.reason, degradation.why));
    }
    pending(&status.pending, &mut view);
    view.out
}

struct View {
    out: String,
    now: WallMillis,
}

impl View {
    fn line(&mut self, name: &str, what: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.out, "{name:NAME$}{}", one_line(what));
    }

    /// How long ago.
    fn age(&self, at: WallMillis) -> String {
        duration(self.now.saturating_sub(at))
    }

    /// How long until.
    fn left(&self, at: WallMillis) -> String {
        duration(at.saturating_sub(self.now))
    }
}

/// Two units at most, none below a second: `0s`, `59s`, `2m 5s`, `3h 7m`, `4d 2h`.
fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

/// RFC 3339, to the second, in UTC.
fn at(millis: WallMillis) -> String {
    let seconds = i64::try_from(millis / 1000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| format!("{millis} ms"), |at| at.to_string())
}

fn agent(status: &Status, view: &View) -> String {
    let pod = status.pod.as_ref().map(|pod| format!(" in pod {pod}")).unwrap_or_default();
    let started = if status.started { "" } else { ", not ready yet" };
    format!("signoff {}{pod}, up {}{started}", status.version, view.age(status.since))
}

fn key(status: &Status) -> String {
    let Some(key) = &status.key else {
        return if status.manager.none { "not needed" } else { "not known yet" }.to_owned();
    };
    let listed = match status.identity_known {
        Some(true) => "listed by the manager",
        Some(false) => "NOT LISTED by the manager",
        None => "not looked up yet",
    };
    format!("{key} ({listed})")
}

fn scheduler(status: &Status, view: &View) -> String {
    let scheduler = &status.scheduler;
    let state = match scheduler.state {
        SchedulerState::Serving => "serving",
        SchedulerState::Down => "down",
        SchedulerState::Unknown => "unknown",
    };
    let mut text = state.to_owned();
    if !scheduler.address.is_empty() {
        text += &format!(" at {}", scheduler.address);
    }
    if let Some(since) = scheduler.since {
        text += &format!(" for {}", view.age(since));
    }
    if let Some(why) = &scheduler.why {
        text += &format!(": {why}");
    }
    text
}

/// What is known best, first: a list over gRPC may be older than what the agent itself did since.
fn row(status: &Status, view: &View) -> String {
    let read = status.row.as_ref().map(|row| {
        let source = match row.source.as_str() {
            "" => String::new(),
            "grpc" => " over grpc, where it may have been 30s old".to_owned(),
            source => format!(" over {source}"),
        };
        format!("{}, read {} ago{source}", state(row.state), view.age(row.at))
    });
    let known = status.row_known.as_ref().and_then(|known| {
        let how = match known.by.as_str() {
            "hold" => format!("held by the agent for {}", view.age(known.at)),
            "sign-off" => format!("signed off {} ago", view.age(known.at)),
            // The read itself.
            _ => return None,
        };
        Some(format!("{}: {how}", state(known.state)))
    });
    match (known, read) {
        (Some(known), Some(read)) => format!("{known}; last read: {read}"),
        (Some(known), None) => format!("{known}; not read since"),
        (None, Some(read)) => read,
        (None, None) => "not read yet".to_owned(),
    }
}

fn state(word: RowWord) -> &'static str {
    match word {
        RowWord::Active => "active",
        RowWord::Inactive => "inactive",
        RowWord::Absent => "absent: the manager has no such row",
        RowWord::NotActive => "not active (inactive or absent)",
        RowWord::Unknown => "in a state this version doesn't know",
    }
}

fn succession(succession: &SuccessionStatus) -> String {
    let mut text = match succession.mode {
        Mode::On => "on: signs off rows that earlier incarnations left active",
        Mode::Report => "reports rows that earlier incarnations left active",
        Mode::Off => "off",
    }
    .to_owned();
    if let Some(why) = &succession.why {
        text += &format!(": {why}");
    }
    if !succession.contested.is_empty() {
        text += &format!("; CONTESTED, left alone: {}", succession.contested.join(", "));
    }
    text
}

fn manager(status: &Status) -> String {
    let manager = &status.manager;
    if manager.none {
        return format!("none: {WITHOUT_MANAGER}");
    }
    let endpoints = match manager.endpoints.as_slice() {
        [] => "no endpoint known yet".to_owned(),
        endpoints => endpoints.join(", "),
    };
    let answered = if manager.answered { "has answered" } else { "has not answered yet" };
    let losses = match manager.losses {
        0 => String::new(),
        1 => ", 1 connection lost".to_owned(),
        n => format!(", {n} connections lost"),
    };
    let error = manager
        .last_error
        .as_ref()
        .map(|error| format!("; the last call failed: {error}"))
        .unwrap_or_default();
    let rest = manager.rest_error.as_ref().map(|error| format!("; rows can't be read over REST: {error}"));
    format!("{endpoints} ({answered}{losses}){error}{}", rest.unwrap_or_default())
}

fn spool(status: &Status) -> String {
    let spool = &status.spool;
    let place = match spool.durability.as_str() {
        "" => spool.dir.clone(),
        durability => format!("{} ({durability})", spool.dir),
    };
    if let Some(unknown) = spool.unknown(status.now) {
        return format!("{place}, {unknown}");
    }
    // What the manager has acknowledged is no longer pending, though its record is there.
    let watched = status.pending.iter().filter(|ask| ask.watched_until.is_some()).count() as u64;
    let asks = spool.asks.unwrap_or_default();
    let mut text = format!("{place}, {} pending", asks.saturating_sub(watched));
    if let Some(for_another @ 1..) = spool.for_another {
        text += &format!(" ({for_another} for another manager, left to it)");
    }
    if watched > 0 {
        text += &format!(", {watched} confirmed and watched");
    }
    if let Some(corrupt @ 1..) = spool.corrupt {
        text += &format!(", {corrupt} damaged and set aside");
    }
    if let Some(newer @ 1..) = spool.newer {
        text += &format!(", {newer} of a newer version left alone");
    }
    text
}

fn pending(asks: &[PendingStatus], view: &mut View) {
    if asks.is_empty() {
        view.line("Pending", "nothing");
        return;
    }
    let head = ["ID", "KEY", "CAUSE", "AGE", "TRIES", "STATE"].map(str::to_owned);
    let rows = asks.iter().map(|ask| {
        let state = match (ask.watched_until, &ask.last_error) {
            (Some(until), _) => format!("confirmed, watched for {} more", view.left(until)),
            (None, Some(error)) => one_line(error),
            (None, None) => "waiting".to_owned(),
        };
        let cause = if ask.inherited { format!("{}, inherited", ask.cause) } else { ask.cause.clone() };
        [ask.id.clone(), ask.key.clone(), cause, view.age(ask.at), ask.attempts.to_string(), state]
            .map(|cell| one_line(&cell))
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut table = String::from("\n");
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    view.out.push_str(&table);
}

#[cfg(test)]
mod tests;
