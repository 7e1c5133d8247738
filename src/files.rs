//! Files that may never answer, away from the runtime's one thread.
//!
//! A frozen disk, a dead NFS server or a FIFO in a file's place holds up whoever opens it, for hours if need be. So what touches
//! a file does that on a thread of its own, and is waited for at most [`LIMIT`]; what has not answered by then counts as
//! unreadable. The thread goes on: [`Reader`] never starts a second one beside it, answers [`Unanswered::Slow`] at once while
//! it hangs, and hands its late answer to whoever asks next. (The spool has a thread of its own: `agent::disk`.)
//!
//! No thread stays behind once its file has answered. [`Troubles`] is where it is told which files can't be used.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};

/// How long a file is waited for. A Secret's volume is in memory, and a disk takes milliseconds.
pub const LIMIT: Duration = Duration::from_secs(1);

/// A late answer is as good as a new one for so long: whoever was told `Slow` asks again within it.
const GOOD_FOR: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The file, or what it lies on, hangs.
    #[error("no answer within {}: its disk or server hangs, or it is a pipe", humantime::format_duration(*.0))]
    Slow(Duration),
    /// The system refuses another thread, in its words.
    #[error("no thread can be started for it: {0}")]
    NoThread(String),
    /// The thread ended without an answer: a bug, which was logged.
    #[error("its thread has ended without an answer")]
    Lost,
}

impl From<Unanswered> for io::Error {
    fn from(unanswered: Unanswered) -> Self {
        let kind = match unanswered {
            Unanswered::Slow(_) => io::ErrorKind::TimedOut,
            Unanswered::NoThread(_) | Unanswered::Lost => io::ErrorKind::Other,
        };
        io::Error::new(kind, unanswered.to_string())
    }
}

fn thread(work: impl FnOnce() + Send + 'static) -> Result<(), Unanswered> {
    std::thread::Builder::new()
        .name("file".to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|error| Unanswered::NoThread(error.to_string()))
}

/// Starts `work` on a thread of its own. What it answers comes out of the receiver.
pub fn start<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, Unanswered> {
    let (answer, answered) = oneshot::channel();
    thread(move || {
        // Nobody may be waiting any more.
        let _ = answer.send(work());
    })?;
    Ok(answered)
}

/// Does `work` on a thread of its own, and waits for it at most `limit`. It goes on after that; what it answers is lost.
pub async fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unanswered> {
    let answered = start(work)?;
    match timeout(limit, answered).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) => Err(Unanswered::Lost),
        Err(_) => Err(Unanswered::Slow(limit)),
    }
}

/// Does `work` on a thread of its own, and waits for its end, however long that takes: for what must not be begun twice. `slow` is
/// told once that takes longer than [`LIMIT`].
pub async fn to_the_end<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    slow: impl FnOnce(Unanswered),
) -> Result<T, Unanswered> {
    let mut answered = start(work)?;
    let answer = match timeout(LIMIT, &mut answered).await {
        Ok(answer) => answer,
        Err(_) => {
            slow(Unanswered::Slow(LIMIT));
            answered.await
        }
    };
    answer.map_err(|_| Unanswered::Lost)
}

/// As [`within`], for who has no runtime, or may be held up for so long: blocks.
pub fn within_blocking<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unanswered> {
    let answer = begin(work)?;
    answer.wait(limit);
    let state = std::mem::replace(&mut *answer.state(), State::Gone);
    match state {
        State::Is(value, _) => Ok(value),
        State::Gone => Err(Unanswered::Lost),
        State::Outstanding => Err(Unanswered::Slow(limit)),
    }
}

/// Where a thread puts its answer.
struct Answer<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    told: Notify,
}

enum State<T> {
    Outstanding,
    Is(T, Instant),
    /// The thread has ended without one, or nobody waits for it any more.
    Gone,
}

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State::Outstanding), changed: Condvar::new(), told: Notify::new() }
    }
}

impl<T> Answer<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State<T>) {
        *self.state() = state;
        self.changed.notify_all();
        self.told.notify_waiters();
    }

    fn wait(&self, limit: Duration) {
        let outstanding = |state: &mut State<T>| matches!(state, State::Outstanding);
        drop(self.changed.wait_timeout_while(self.state(), limit, outstanding));
    }
}

/// Begins `work` on a thread of its own.
fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<Arc<Answer<T>>, Unanswered> {
    let answer = Arc::new(Answer::default());
    let end = End(Arc::clone(&answer));
    thread(move || {
        let value = work();
        end.0.set(State::Is(value, Instant::now()));
    })?;
    Ok(answer)
}

/// Ends the wait where the work panics.
struct End<T>(Arc<Answer<T>>);

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        let outstanding = matches!(*self.0.state(), State::Outstanding);
        if outstanding {
            self.0.set(State::Gone);
        }
    }
}

/// Reads one file, again and again, on one thread at a time.
pub struct Reader<T> {
    reading: Mutex<Option<Reading<T>>>,
}

struct Reading<T> {
    begun: Instant,
    /// Somebody has waited in vain: the answer is for the next.
    missed: bool,
    answer: Arc<Answer<T>>,
}

impl<T> Default for Reader<T> {
    fn default() -> Self {
        Self { reading: Mutex::default() }
    }
}

impl<T> std::fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl<T: Clone + Send + 'static> Reader<T> {
    /// What `work` answers. Where an earlier one has not answered yet, that one's answer, and `work` isn't begun: all who ask
    /// meanwhile wait for the same one, until `limit` after its beginning.
    pub async fn read(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (answer, begun) = self.reading(work)?;
        let told = answer.told.notified();
        let mut told = std::pin::pin!(told);
        // Before the look, so that what comes between the two is heard.
        told.as_mut().enable();
        if matches!(*answer.state(), State::Outstanding) {
            // Whether it was told or is out of time shows in a moment.
            let _ = timeout_at(begun + limit, told).await;
        }
        self.taken(&answer, limit)
    }

    /// As [`Reader::read`], blocking.
    pub fn read_blocking(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (answer, begun) = self.reading(work)?;
        answer.wait((begun + limit).saturating_duration_since(Instant::now()));
        self.taken(&answer, limit)
    }

    /// The reading to wait for, and when it began.
    fn reading(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(Arc<Answer<T>>, Instant), Unanswered> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = &*reading {
            let is_of_use = match &*current.answer.state() {
                State::Outstanding => true,
                State::Is(_, at) => current.missed && at.elapsed() <= GOOD_FOR,
                State::Gone => false,
            };
            if is_of_use {
                return Ok((Arc::clone(&current.answer), current.begun));
            }
        }
        let answer = begin(work)?;
        let begun = Instant::now();
        *reading = Some(Reading { begun, missed: false, answer: Arc::clone(&answer) });
        Ok((answer, begun))
    }

    fn taken(&self, answer: &Arc<Answer<T>>, limit: Duration) -> Result<T, Unanswered> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let current = reading.as_mut().filter(|current| Arc::ptr_eq(&current.answer, answer));
        let found = match &*answer.state() {
            State::Is(value, _) => Ok(value.clone()),
            State::Gone => Err(Unanswered::Lost),
            State::Outstanding => {
                if let Some(current) = current {
                    current.missed = true;
                }
                return Err(Unanswered::Slow(limit));
            }
        };
        // The next question is answered by a read of its own.
        if current.is_some() {
            *reading = None;
        }
        found
    }
}

/// Which files can't be used now, and why. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Troubles(Arc<watch::Sender<BTreeMap<&'static str, String>>>);

impl Troubles {
    /// The files named `what` can't be used, in words that name them; or they can.
    pub fn tell(&self, what: &'static str, why: Option<&dyn std::fmt::Display>) {
        self.0.send_if_modified(|troubles| match why.map(ToString::to_string) {
            Some(why) => troubles.insert(what, why.clone()).as_ref() != Some(&why),
            None => troubles.remove(what).is_some(),
        });
    }

    /// Tells of each change.
    pub fn watch(&self) -> watch::Receiver<BTreeMap<&'static str, String>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests;
