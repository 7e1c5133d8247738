use std::sync::mpsc;

use super::*;

/// Generous: no verdict depends on it.
const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A sink that takes nothing until it is let: each write waits for a permit.
struct Gate {
    at: mpsc::Sender<()>,
    permits: mpsc::Receiver<()>,
    sink: Sink,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.at.send(());
        let _ = self.permits.recv();
        self.sink.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(lines: impl FnOnce(Queue) -> tracing::subscriber::DefaultGuard, log: impl FnOnce()) -> String {
    super::listen_on_each_thread();
    let sink = Sink::default();
    let queue = Queue::start(sink.clone());
    let guard = lines(queue.clone());
    log();
    drop(guard);
    assert!(queue.flush(LONG));
    sink.text()
}

#[test]
fn a_json_line_has_dotted_fields_beside_a_utc_timestamp_level_and_message() {
    let text = logged(
        |queue| json_lines(queue, Level::Info).set_default(),
        || tracing::info!(scheduler.hostname = %"s-0", attempt = 2, "Signed off."),
    );
    let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(text.ends_with("}\n") && text.matches('\n').count() == 1, "{text}");
    let names: Vec<&str> = line.keys().map(String::as_str).collect();
    assert_eq!(names, ["attempt", "level", "message", "scheduler.hostname", "timestamp"]);
    assert_eq!(line["message"], "Signed off.");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["scheduler.hostname"], "s-0");
    assert_eq!(line["attempt"], 2);
    let timestamp = line["timestamp"].as_str().unwrap();
    timestamp.parse::<jiff::Timestamp>().unwrap();
    assert_eq!((timestamp.len(), &timestamp[19..20], &timestamp[23..]), (24, ".", "Z"), "{timestamp}");
}

#[test]
fn a_text_line_reads_as_one_sentence_with_its_fields() {
    let text = logged(
        |queue| text_lines(queue, Level::Info).set_default(),
        || tracing::warn!(scheduler.hostname = %"s-0", "Signed off."),
    );
    assert!(text.ends_with("  WARN Signed off. scheduler.hostname=s-0\n"), "{text}");
}

#[test]
fn only_lines_of_the_level_or_above_are_written_and_a_librarys_only_from_warn_on() {
    let each = || {
        tracing::error!("e");
        tracing::warn!("w");
        tracing::info!("i");
        tracing::debug!("d");
        tracing::trace!("t");
        tracing::warn!(target: "h2", "library w");
        tracing::info!(target: "h2", "library i");
    };
    for (level, expected) in [
        (Level::Error, vec!["e"]),
        (Level::Warn, vec!["e", "w", "library w"]),
        (Level::Info, vec!["e", "w", "i", "library w"]),
        (Level::Debug, vec!["e", "w", "i", "d", "library w"]),
    ] {
        let text = logged(|queue| json_lines(queue, level).set_default(), each);
        let messages: Vec<String> = text
            .lines()
            .map(|l| {
                serde_json::from_str::<serde_json::Value>(l).unwrap()["message"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(messages, expected, "{level:?}");
    }
}

#[test]
fn while_stderr_takes_nothing_lines_are_dropped_nobody_waits_and_the_queued_ones_come_later() {
    let (at, arrived) = mpsc::channel();
    let (permit, permits) = mpsc::channel();
    let sink = Sink::default();
    let queue = Queue::start(Gate { at, permits, sink: sink.clone() });
    queue.push(b"first\n".to_vec());
    arrived.recv_timeout(LONG).unwrap();
    // The thread is stuck with the first; the queue fills, the rest is dropped.
    for n in 0..QUEUE + 7 {
        queue.push(format!("{n}\n").into_bytes());
    }
    assert!(!queue.flush(Duration::from_millis(1)), "it can't have been written");
    assert_eq!(queue.shared.0.lock().unwrap().dropped, 7);
    for _ in 0..=QUEUE {
        permit.send(()).unwrap();
    }
    assert!(queue.flush(LONG));
    let text = sink.text();
    assert_eq!(text.lines().count(), 1 + QUEUE);
    assert!(text.starts_with("first\n0\n1\n") && text.ends_with(&format!("{}\n", QUEUE - 1)));
}

#[test]
fn a_broken_stderr_takes_lines_without_a_word() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let queue = Queue::start(Broken);
    queue.push(b"a\n".to_vec());
    queue.push(b"b\n".to_vec());
    assert!(queue.flush(LONG));
}

#[test]
fn an_event_within_a_dependencys_span_is_a_line_like_any_other() {
    for json in [true, false] {
        let start = |queue: Queue| {
            if json {
                json_lines(queue, Level::Info).set_default()
            } else {
                text_lines(queue, Level::Info).set_default()
            }
        };
        let text = logged(start, || {
            tracing::error_span!("outer", peer = 1).in_scope(|| tracing::error!(attempt = 2, "Broken."));
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("Broken.") && !text.contains("outer"), "{text}");
    }
}
