//! The container's last words, where Kubernetes reads them: its termination message.
//!
//! Written by a thread of its own, in the order they were said, so that a file that hangs holds nobody up. [`LastWords::flush`]
//! waits for them at the end, a moment at most.

use std::{path::PathBuf, sync::mpsc, time::Duration};

use tokio::sync::oneshot;

/// Where Kubernetes reads them, unless the pod says otherwise.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// How long the end waits for them.
const LIMIT: Duration = Duration::from_millis(100);

enum Word {
    Say(String),
    Flush(oneshot::Sender<()>),
}

/// Writes the last words of this process; or nothing, where there is no such file.
pub struct LastWords {
    words: Option<mpsc::Sender<Word>>,
}

impl LastWords {
    /// Says nothing.
    pub fn none() -> Self {
        Self { words: None }
    }

    /// Writes to `path`, if there is such a file: the container runtime makes it.
    pub fn to(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let (words, said) = mpsc::channel();
        let thread = move || {
            if !path.exists() {
                return;
            }
            while let Ok(word) = said.recv() {
                match word {
                    // Nobody else reads this file, so an error has nowhere to go.
                    Word::Say(text) => drop(std::fs::write(&path, text)),
                    Word::Flush(done) => drop(done.send(())),
                }
            }
        };
        let started = std::thread::Builder::new().name("last-words".to_owned()).spawn(thread);
        Self { words: started.is_ok().then_some(words) }
    }

    /// These are the last words from now on.
    pub fn say(&self, text: String) {
        if let Some(words) = &self.words {
            // Without a file the thread has ended.
            let _ = words.send(Word::Say(text));
        }
    }

    /// Waits until they are written, at most 100 ms.
    pub async fn flush(&self) {
        self.flush_within(LIMIT).await;
    }

    async fn flush_within(&self, limit: Duration) {
        let Some(words) = &self.words else { return };
        let (done, written) = oneshot::channel();
        if words.send(Word::Flush(done)).is_ok() {
            // Out of time, or without a file: there is nothing more to do.
            let _ = tokio::time::timeout(limit, written).await;
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
    async fn where_there_is_no_such_file_none_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("termination-log");
        let words = LastWords::to(&path);
        words.say("sign-off\n".to_owned());
        words.flush_within(LONG).await;
        assert!(!path.exists());
    }
}
