//! Logs: one line an event on stderr, as JSON (dotted fields beside `timestamp`, `level` and `message`) or as text.
//!
//! Logging never stops the process: lines go through a bounded queue to a thread of their own. While stderr takes none
//! (a full pipe that nobody reads), up to [`QUEUE`] lines wait and further ones are dropped; how many is said once it takes lines again. A
//! broken stderr takes them all, silently. [`flush`] waits for what is queued, a moment at most.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tracing::{
    Event, Metadata, Subscriber,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    filter::Targets,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
    layer::SubscriberExt,
    registry::{Extensions, ExtensionsMut, LookupSpan, SpanData},
    util::SubscriberInitExt,
};

#[cfg(test)]
mod captured;
pub mod pid1;
pub mod seldom;

#[cfg(test)]
pub(crate) use captured::Log;

/// How many lines may wait for stderr.
pub const QUEUE: usize = 1024;
/// How long [`flush`] waits at most.
pub const FLUSH_LIMIT: Duration = Duration::from_millis(100);

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// `--log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, clap::ValueEnum)]
pub enum Level {
    /// Something is lost, or a person is needed.
    Error,
    /// It will be retried.
    #[value(alias = "warning")]
    Warn,
    /// What happens.
    #[default]
    Info,
    /// How it happens.
    Debug,
}

static STDERR: OnceLock<Queue> = OnceLock::new();

/// Starts logging to stderr, for the whole process, once; a second call changes nothing.
pub fn init(format: Format, level: Level) {
    let queue = STDERR.get_or_init(|| Queue::start(io::stderr())).clone();
    let json = match format {
        Format::Auto => !io::stderr().is_terminal(),
        Format::Text => false,
        Format::Json => true,
    };
    // The second of two subscribers is refused: the first one stays.
    let _ = if json { json_lines(queue, level).try_init() } else { text_lines(queue, level).try_init() };
}

/// Waits until what was logged so far is written, at most [`FLUSH_LIMIT`].
pub fn flush() {
    if let Some(queue) = STDERR.get() {
        queue.flush(FLUSH_LIMIT);
    }
}

fn targets(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    // The HTTP/2 library's own debug lines would drown ours.
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(env!("CARGO_CRATE_NAME"), level)
}

fn json_lines(queue: Queue, level: Level) -> impl SubscriberInitExt {
    let layer = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false)
        .with_timer(UtcMillis)
        .with_writer(queue);
    NoSpans.with(targets(level)).with(layer)
}

fn text_lines(queue: Queue, level: Level) -> impl SubscriberInitExt {
    let layer = tracing_subscriber::fmt::layer().with_target(false).with_timer(UtcMillis).with_writer(queue);
    NoSpans.with(targets(level)).with(layer)
}

/// What the lines are made on: events alone. The library's own keeps spans, in tables of 32 KiB and more, and there are none here:
/// a dependency's is as good as disabled.
struct NoSpans;

impl Subscriber for NoSpans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(u64::MAX)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl<'a> LookupSpan<'a> for NoSpans {
    type Data = NoSpan;
    fn span_data(&'a self, _: &Id) -> Option<NoSpan> {
        None
    }
}

/// A span that can't be.
enum NoSpan {}

impl SpanData<'_> for NoSpan {
    fn id(&self) -> Id {
        match *self {}
    }
    fn metadata(&self) -> &'static Metadata<'static> {
        match *self {}
    }
    fn parent(&self) -> Option<&Id> {
        match *self {}
    }
    fn extensions(&self) -> Extensions<'_> {
        match *self {}
    }
    fn extensions_mut(&self) -> ExtensionsMut<'_> {
        match *self {}
    }
}

/// RFC 3339 in UTC with milliseconds.
struct UtcMillis;

impl FormatTime for UtcMillis {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{:.3}", jiff::Timestamp::now())
    }
}

#[derive(Default)]
struct Lines {
    waiting: std::collections::VecDeque<Vec<u8>>,
    /// The thread is at one.
    writing: bool,
    dropped: u64,
}

/// The bounded queue in front of a sink that may block.
#[derive(Clone)]
struct Queue {
    shared: Arc<(Mutex<Lines>, Condvar)>,
}

impl Queue {
    fn start(mut sink: impl Write + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Lines::default()), Condvar::new()));
        let queue = Self { shared: shared.clone() };
        let spawned = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            let (lines, changed) = &*shared;
            loop {
                let (line, dropped) = {
                    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                    lines.writing = false;
                    changed.notify_all();
                    loop {
                        if let Some(line) = lines.waiting.pop_front() {
                            lines.writing = true;
                            break (line, std::mem::take(&mut lines.dropped));
                        }
                        lines = changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
                    }
                };
                // A line that a broken stderr refuses is lost; the next may not be.
                let _ = sink.write_all(&line);
                if dropped > 0 {
                    tracing::warn!(
                        log.dropped = dropped,
                        "Log lines were dropped: stderr took none for a while."
                    );
                }
            }
        });
        if let Err(error) = spawned {
            // Without the thread nothing is ever written; this once, it is worth waiting for.
            let _ = writeln!(io::stderr(), "signoff: no thread for the log: {error}");
        }
        queue
    }

    fn push(&self, line: Vec<u8>) {
        let (lines, changed) = &*self.shared;
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.waiting.len() < QUEUE {
            lines.waiting.push_back(line);
            changed.notify_all();
        } else {
            lines.dropped += 1;
        }
    }

    /// Whether everything was written in time.
    fn flush(&self, limit: Duration) -> bool {
        let (lines, changed) = &*self.shared;
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |lines: &mut Lines| lines.writing || !lines.waiting.is_empty();
        let waited = changed.wait_timeout_while(lines, limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: self, bytes: Vec::new() }
    }
}

/// One event's line, queued as a whole when it is complete.
struct Line<'a> {
    queue: &'a Queue,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.queue.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// For tests that listen to their own thread's log. While there is only one dispatcher, tracing takes the interest in an event
/// from whichever thread comes past it first, and keeps it: another test's thread, which doesn't listen, would silence it for all.
#[cfg(test)]
pub(crate) fn listen_on_each_thread() {
    use tracing::{Dispatch, subscriber::NoSubscriber};
    static OTHERS: OnceLock<[Dispatch; 2]> = OnceLock::new();
    OTHERS.get_or_init(|| [(); 2].map(|()| Dispatch::new(NoSubscriber::new())));
}

#[cfg(test)]
mod tests;
