//! The container's last words, where Kubernetes reads them: its termination message.
//!
//! Written by a thread of its own, so that a file that hangs holds nobody up; while it hangs, only the latest words are kept.
//! [`LastWords::flush`] waits for them at the end, a moment at most.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

/// Where Kubernetes reads them, unless the pod says otherwise.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// How long the end waits for them.
const LIMIT: Duration = Duration::from_millis(100);

/// Writes the last words of this process; or nothing, where there is no such file. Clones write the same file.
#[derive(Clone)]
pub struct LastWords {
    speaker: Option<Arc<Speaker>>,
}

/// Ends the thread with the last handle.
struct Speaker(Arc<Shared>);

#[derive(Default)]
struct Shared {
    words: Mutex<Words>,
    said: Condvar,
    written: Notify,
}

#[derive(Default)]
struct Words {
    next: Option<String>,
    /// The thread is at some.
    writing: bool,
    /// Nobody will say any more, or nobody writes.
    over: bool,
}

impl Shared {
    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next words, once there are some; none when it is over.
    fn next(&self) -> Option<String> {
        let mut words = self.words();
        words.writing = false;
        self.written.notify_waiters();
        let silent = |words: &mut Words| words.next.is_none() && !words.over;
        let mut words = self.said.wait_while(words, silent).unwrap_or_else(PoisonError::into_inner);
        let next = words.next.take();
        words.writing = next.is_some();
        next
    }

    fn over(&self) {
        self.words().over = true;
        self.said.notify_all();
        self.written.notify_waiters();
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.0.over();
    }
}

impl LastWords {
    /// Says nothing.
    pub fn none() -> Self {
        Self { speaker: None }
    }

    /// Writes to `path`, if there is such a file: the container runtime makes it.
    pub fn to(path: impl Into<PathBuf>) -> Self {
        let (path, shared) = (path.into(), Arc::new(Shared::default()));
        let speaker = Speaker(Arc::clone(&shared));
        let thread = move || {
            if path.exists() {
                while let Some(text) = shared.next() {
                    // Nobody else reads this file, so an error has nowhere to go.
                    drop(std::fs::write(&path, text));
                }
            }
            // Without a file nobody waits for it to be written.
            let mut words = shared.words();
            (words.next, words.writing) = (None, false);
            drop(words);
            shared.over();
        };
        let started = std::thread::Builder::new().name("last-words".to_owned()).spawn(thread);
        Self { speaker: started.is_ok().then(|| Arc::new(speaker)) }
    }

    /// These are the last words from now on.
    pub fn say(&self, text: String) {
        if let Some(speaker) = &self.speaker {
            let mut words = speaker.0.words();
            if !words.over {
                words.next = Some(text);
                drop(words);
                speaker.0.said.notify_all();
            }
        }
    }

    /// Waits until they are written, at most 100 ms.
    pub async fn flush(&self) {
        self.flush_within(LIMIT).await;
    }

    async fn flush_within(&self, limit: Duration) {
        let Some(speaker) = &self.speaker else { return };
        let written = async {
            loop {
                let written = speaker.0.written.notified();
                let mut written = std::pin::pin!(written);
                // Before the look, so that what comes between the two is heard.
                written.as_mut().enable();
                let is_written = {
                    let words = speaker.0.words();
                    words.next.is_none() && !words.writing
                };
                if is_written {
                    return;
                }
                written.await;
            }
        };
        if timeout(limit, written).await.is_err() {
            tracing::warn!("The termination message is not written yet: its file hangs.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An outer bound: the end's own limit is too short for a busy machine.
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_last_of_the_last_words_is_in_the_file_once_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("termination-log");
        std::fs::write(&path, "").unwrap();
        let words = LastWords::to(&path);
        for n in 0..100 {
            words.say(format!("sign-off {n}\n"));
        }
        words.flush_within(LONG).await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "sign-off 99\n");
    }

    #[tokio::test]
    async fn g4_a_file_that_hangs_holds_nobody_up_and_keeps_the_latest_words_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("termination-log");
        // Its first open waits for a reader.
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, 0o600.into(), 0).unwrap();
        let words = LastWords::to(&path);
        let begun = std::time::Instant::now();
        words.say("the first\n".to_owned());
        while !words.speaker.as_ref().unwrap().0.words().writing {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for n in 0..1000 {
            words.say(format!("sign-off {n}\n"));
        }
        words.flush().await;
        assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
        let speaker = words.speaker.as_ref().unwrap();
        assert_eq!(speaker.0.words().next.as_deref(), Some("sign-off 999\n"));
        let mut reader = std::fs::File::open(&path).unwrap();
        words.flush_within(LONG).await;
        let mut read = vec![0; 100];
        let n = std::io::Read::read(&mut reader, &mut read).unwrap();
        let text = String::from_utf8_lossy(&read[..n]).into_owned();
        assert_eq!(text, "the first\nsign-off 999\n");
    }

    #[tokio::test]
    async fn where_there_is_no_such_file_none_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("termination-log");
        let words = LastWords::to(&path);
        words.say("sign-off\n".to_owned());
        words.flush_within(LONG).await;
        assert!(!path.exists());
    }
}
