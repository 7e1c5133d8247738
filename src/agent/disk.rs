//! The disk's own thread, so that nothing else waits for a disk that hangs.
//!
//! [`Disk`] always exists: the spool is opened on its thread, and opened again for as long as that fails. Operations run one after
//! the other, in the order they were given. Whoever asks for one waits for it at most the patience (500 ms), then hears
//! [`DiskError::Slow`]; the operation still runs when the disk wakes. While one is overdue, new ones are still queued, but answered
//! `Slow` at once. What nobody waits for any more is told through the channel of [`Report`]s that [`Disk::start`] returns; that the
//! thread hangs, whoever waits for it or nobody, through [`Disk::silence`].
//!
//! The patience is the runtime's time: with tokio's time paused it is over as soon as nothing else is to be done.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use self::silence::Silence;
use super::arrivals::Arrivals;
use crate::{
    files,
    key::SchedulerKey,
    spool::{
        Adopted, Count, Holder, Limits, Marks, Settled, Spool, SpoolError, Taken, Unheld,
        record::{Kind, Record, RecordId},
        volume::{self, Durability},
    },
};

mod silence;

pub use silence::Overdue;

/// How long an operation is waited for.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// An operation that nobody waits for, or somebody for as long as it takes, is overdue after this: thousands of records take seconds.
const LONG: Duration = Duration::from_secs(10);
/// How long a command waits for all of a spool: a full one takes a slow disk seconds.
pub const WHOLE_SPOOL: Duration = Duration::from_secs(15);
/// How long the spool's opening waits for what tells how long its volume lives.
const FOUND_WITHIN: Duration = Duration::from_millis(100);
/// How many operations may wait for the disk.
const BACKLOG: usize = 1024;
/// How soon a spool that could not be opened is opened again, and what it owes is tried again, without any operation that asks for it.
const REOPEN: Duration = Duration::from_secs(5);

/// Why an operation has no result.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The spool could not be opened, or refused.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// It is not done yet, and will be when the disk wakes. Counts as refused.
    #[error("the disk of the spool {} has not answered within {} ms", dir.display(), waited.as_millis())]
    Slow {
        /// The spool's directory.
        dir: PathBuf,
        /// The patience.
        waited: Duration,
    },
    /// It was not queued: too many wait already.
    #[error("the disk of the spool {} does not answer, and {bound} operations wait for it", dir.display())]
    Backlog {
        /// The spool's directory.
        dir: PathBuf,
        /// How many may wait.
        bound: usize,
    },
    /// The disk's thread has ended, or could not be started.
    #[error("the thread that writes the spool {} is gone", dir.display())]
    Gone {
        /// The spool's directory.
        dir: PathBuf,
    },
}

/// How an operation ended that nobody waited for.
#[derive(Debug)]
pub struct Report {
    /// Which operation, a constant name.
    pub operation: &'static str,
    /// How it ended.
    pub result: Result<(), SpoolError>,
}

/// How the spool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpoolState {
    /// It is being opened for the first time.
    Opening,
    /// It is open.
    Open,
    /// It could not be opened, and why; that is tried again.
    Refused(Arc<str>),
}

type Job = Box<dyn FnOnce(Result<&mut Spool, SpoolError>) + Send>;

/// Where operations are queued.
enum Jobs {
    /// Counted here, since the library's bounded queue takes the room of a full one from the start: 24 KiB.
    Thread { queue: Sender<Job>, waiting: Arc<AtomicUsize> },
    #[cfg(test)]
    Task(mpsc::Sender<Job>),
}

struct Shared {
    dir: PathBuf,
    jobs: Jobs,
    silence: Arc<Silence>,
    reports: mpsc::UnboundedSender<Report>,
    state: watch::Receiver<SpoolState>,
    durability: Arc<OnceLock<Durability>>,
    arrivals: OnceLock<Arc<Arrivals>>,
    holder: OnBehalf,
    patience: Duration,
}

/// On whose behalf the spool is used, however often it is opened; `None` before that was said.
type OnBehalf = Arc<Mutex<Option<Holder>>>;

/// A handle on the disk's thread. The thread ends, and lets go of the spool, once all handles are gone and what they queued is done.
#[derive(Clone)]
pub struct Disk {
    shared: Arc<Shared>,
}

impl Disk {
    /// Starts the thread, which opens the spool in `dir`.
    pub fn start(dir: impl Into<PathBuf>, limits: Limits) -> (Self, mpsc::UnboundedReceiver<Report>) {
        let dir = dir.into();
        let open = {
            let dir = dir.clone();
            move || Spool::open(&dir, limits)
        };
        Self::start_with(dir, PATIENCE, REOPEN, open)
    }

    /// As [`Disk::start`], of a spool that is there: its directory is not made.
    pub fn start_in(dir: impl Into<PathBuf>, limits: Limits) -> (Self, mpsc::UnboundedReceiver<Report>) {
        let dir = dir.into();
        let open = {
            let dir = dir.clone();
            move || Spool::open_existing(&dir, limits)
        };
        Self::start_with(dir, PATIENCE, REOPEN, open)
    }

    fn start_with(
        dir: PathBuf,
        patience: Duration,
        reopen: Duration,
        open: impl Fn() -> Result<Spool, SpoolError> + Send + 'static,
    ) -> (Self, mpsc::UnboundedReceiver<Report>) {
        let (jobs, queue) = channel();
        let (reports, reported) = mpsc::unbounded_channel();
        let (said, state) = watch::channel(SpoolState::Opening);
        // Where no thread can be started the queue goes with the closure, and every operation is answered `Gone`.
        let durability = Arc::new(OnceLock::new());
        let holder = OnBehalf::default();
        let thread = {
            let (dir, durability, holder) = (dir.clone(), Arc::clone(&durability), Arc::clone(&holder));
            move || {
                find_out(&durability, move || volume::durability(&dir, Path::new(volume::MOUNTINFO)));
                serve(&queue, Server { open, said, holder, spool: None }, reopen);
            }
        };
        drop(std::thread::Builder::new().name("spool".to_owned()).spawn(thread));
        let jobs = Jobs::Thread { queue: jobs, waiting: Arc::default() };
        let (arrivals, silence) = (OnceLock::new(), Arc::default());
        let shared = Shared { dir, jobs, silence, reports, state, durability, arrivals, holder, patience };
        (Self { shared: Arc::new(shared) }, reported)
    }

    /// From now on the spool is used on this one's behalf, without waiting.
    pub fn hold_for(&self, holder: Holder) {
        *self.shared.holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(holder.clone());
        self.send("hold-for", move |spool| {
            spool.hold_for(holder.completed_by_the_resolver());
            Ok(())
        });
    }

    /// The spool's directory.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Whether the spool is open; changes are seen on the receiver.
    pub fn state(&self) -> watch::Receiver<SpoolState> {
        self.shared.state.clone()
    }

    /// How long the spool's volume lives. Waits for nothing: `Unknown` until the thread has found out, right after its start.
    pub fn durability(&self) -> Durability {
        self.shared.durability.get().copied().unwrap_or(Durability::Unknown)
    }

    /// Runs `operation` after those queued before it. An `Err` other than [`DiskError::Slow`] means that it has not run or
    /// that the spool refused. A late end goes to the reports, a late value is dropped: see [`Disk::run_or_late`].
    pub async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        operation: impl FnOnce(&mut Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let reports = self.shared.reports.clone();
        // Nobody may listen.
        let late = move |result: Result<T, SpoolError>| {
            drop(reports.send(Report { operation: name, result: result.map(drop) }));
        };
        self.run_or_late(operation, late).await
    }

    /// As [`Disk::run`], for a value that must not be lost: `late` gets it, on the disk's thread, after [`DiskError::Slow`] was
    /// answered. Dropping this future loses the value.
    pub async fn run_or_late<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Spool) -> Result<T, SpoolError> + Send + 'static,
        late: impl FnOnce(Result<T, SpoolError>) + Send + 'static,
    ) -> Result<T, DiskError> {
        let shared = &self.shared;
        let (answer, mut answered) = oneshot::channel();
        let asked = Instant::now();
        self.queue(move |spool| {
            let result = spool.and_then(operation);
            if let Err(unheard) = answer.send(result) {
                late(unheard);
            }
        })?;
        let slow = || DiskError::Slow { dir: shared.dir.clone(), waited: shared.patience };
        if shared.silence.is() {
            return Err(slow());
        }
        match tokio::time::timeout(shared.patience, &mut answered).await {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(_)) => Err(DiskError::Gone { dir: shared.dir.clone() }),
            Err(_) => {
                // From here on the answer goes to `late`; it may have come in this very moment.
                answered.close();
                if let Ok(result) = answered.try_recv() {
                    return Ok(result?);
                }
                self.overdue(asked);
                Err(slow())
            }
        }
    }

    /// What was asked then is overdue, until the thread has come past everything that is queued now.
    fn overdue(&self, asked: Instant) {
        self.shared.silence.begins(asked);
        let silence = Arc::clone(&self.shared.silence);
        if self.queue(move |_| silence.ends()).is_err() {
            self.shared.silence.ends();
        }
    }

    /// Since when the disk has not answered; changes are seen on the receiver.
    pub fn silence(&self) -> watch::Receiver<Overdue> {
        self.shared.silence.watch()
    }

    /// For how long the disk has not answered; `None` where it does.
    pub fn silent_for(&self) -> Option<Duration> {
        Some(self.shared.silence.watch().borrow().since()?.elapsed())
    }

    /// Writes an ask. May be repeated after any error, with the same record.
    pub async fn write_ask(&self, record: Record) -> Result<(), DiskError> {
        self.run("write-ask", move |spool| spool.write_ask(&record)).await
    }

    /// Writes an ask on behalf of another holder: it names that one's manager.
    pub async fn write_ask_for(&self, holder: Holder, record: Record) -> Result<(), DiskError> {
        self.run("write-ask", move |spool| {
            let managers = holder.completed_by_the_resolver().managers;
            spool.write_ask(&Record { managers, ..record })
        })
        .await
    }

    /// Writes a mark in place of the older ones of its kind, without waiting: how that ended goes to the reports if it failed.
    pub fn write_mark(&self, record: Record) {
        self.send("write-mark", move |spool| spool.write_mark(&record));
    }

    /// Removes this key's marks of sign-offs (`signed_off`), or else of holds, without waiting.
    pub fn drop_marks(&self, key: SchedulerKey, signed_off: bool) {
        let which = if signed_off { Marks::SignOff } else { Marks::Held };
        self.send("drop-marks", move |spool| spool.drop_marks(&key, which));
    }

    /// Removes all marks of a key.
    pub async fn drop_all_marks(&self, key: SchedulerKey) -> Result<(), DiskError> {
        self.run("drop-marks", move |spool| spool.drop_marks(&key, Marks::All)).await
    }

    /// Settles asks: see [`Spool::settle`].
    pub async fn settle(&self, asks: Vec<RecordId>, keep_as_mark: bool) -> Result<Settled, DiskError> {
        self.run("settle", move |spool| spool.settle(&asks, keep_as_mark)).await
    }

    /// Settles asks without waiting: how that ended goes to the reports if it failed.
    pub fn settle_later(&self, asks: Vec<RecordId>, keep_as_mark: bool) {
        self.send("settle", move |spool| spool.settle(&asks, keep_as_mark).map(drop));
    }

    /// Which of these asks somebody dropped by hand; none where the disk can't tell.
    pub async fn vanished(&self, asks: Vec<RecordId>) -> Vec<RecordId> {
        self.run("look-for-dropped", move |spool| Ok(spool.vanished(&asks))).await.unwrap_or_default()
    }

    /// How many files of each kind there are (see [`Spool::count`]), and this key's marks that this process holds.
    pub async fn survey(&self, key: SchedulerKey) -> Result<(Count, Vec<Record>), DiskError> {
        let survey = move |spool: &mut Spool| {
            let marks = spool.held().filter(|(kind, record)| *kind == Kind::Mark && record.key == key);
            let marks = marks.map(|(_, record)| record.clone()).collect();
            Ok((spool.count()?, marks))
        };
        self.run_or_late(survey, |_| ()).await
    }

    /// Takes what dead processes left for `key`: see [`Spool::take_own`]. `late` gets it where the disk was slow.
    pub async fn take_own(
        &self,
        key: SchedulerKey,
        late: impl FnOnce(Result<Taken, SpoolError>) + Send + 'static,
    ) -> Result<Taken, DiskError> {
        self.run_or_late(move |spool| spool.take_own(&key), late).await
    }

    /// Takes what dead processes left for `own` and for other keys: see [`Spool::adopt`]. Waits for as long as that takes:
    /// thousands of records are no sign of a bad disk, and what was taken must not be lost. Answers too whether
    /// [`Disk::something_came`] tells of what comes into the spool from that look on.
    pub async fn adopt(&self, own: SchedulerKey) -> Result<(Adopted, bool), DiskError> {
        let (dir, arrivals) = (self.shared.dir.clone(), Arc::clone(self.arrivals()));
        self.run_patiently(move |spool| {
            let told = arrivals.listen(&dir);
            Ok((spool.adopt(&own)?, told))
        })
        .await
    }

    /// Waits until a file, its own or another process's, has come into the spool since the last [`Disk::adopt`].
    pub async fn something_came(&self) {
        self.arrivals().came().await;
    }

    fn arrivals(&self) -> &Arc<Arrivals> {
        self.shared.arrivals.get_or_init(|| Arc::new(Arrivals::of_the_kernel()))
    }

    /// Takes all that nobody holds for this process's manager: see [`Spool::take_unheld`]. Waits for as long as that takes,
    /// at most `limit`.
    pub async fn take_unheld(&self, limit: Duration) -> Result<Unheld, DiskError> {
        self.in_time(limit, self.run_patiently(Spool::take_unheld)).await
    }

    /// Takes these asks, whoever they are for: see [`Spool::take_these`]. Waits for as long as that takes, at most `limit`.
    pub async fn take_these(&self, ids: Vec<RecordId>, limit: Duration) -> Result<Taken, DiskError> {
        self.in_time(limit, self.run_patiently(move |spool| spool.take_these(&ids))).await
    }

    async fn in_time<T>(
        &self,
        limit: Duration,
        operation: impl Future<Output = Result<T, DiskError>>,
    ) -> Result<T, DiskError> {
        let slow = |_| DiskError::Slow { dir: self.shared.dir.clone(), waited: limit };
        tokio::time::timeout(limit, operation).await.map_err(slow)?
    }

    /// The keys whose asks this process holds. Waits for as long as that takes, at most `limit`, for what was queued before it
    /// too.
    pub async fn asking(&self, limit: Duration) -> Result<BTreeSet<SchedulerKey>, DiskError> {
        let asking = self.run_patiently(|spool| {
            let asks = spool.held().filter(|(kind, _)| *kind == Kind::Ask);
            Ok(asks.map(|(_, record)| record.key.clone()).collect())
        });
        self.in_time(limit, asking).await
    }

    /// As [`Disk::run`], without any patience that could end.
    async fn run_patiently<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let (answer, mut answered) = oneshot::channel();
        let asked = Instant::now();
        self.queue(move |spool| {
            // Only a process that is ending does not listen.
            let _ = answer.send(spool.and_then(operation));
        })?;
        let gone = |_| DiskError::Gone { dir: self.shared.dir.clone() };
        let answer = match tokio::time::timeout(LONG, &mut answered).await {
            Ok(answer) => answer,
            Err(_) => {
                self.overdue(asked);
                answered.await
            }
        };
        Ok(answer.map_err(gone)??)
    }

    /// Lets go of records, and of all marks of their key, without waiting.
    pub fn release_with_marks(&self, ids: Vec<RecordId>, key: SchedulerKey) {
        self.send("release", move |spool| {
            spool.release_with_marks(&ids, &key);
            Ok(())
        });
    }

    /// Lets go of records, without waiting.
    pub fn release(&self, ids: Vec<RecordId>) {
        self.send("release", move |spool| {
            spool.release(&ids);
            Ok(())
        });
    }

    /// Waits until what was queued is done, at most the patience.
    pub async fn flush(&self) {
        // What is not done by then has been or will be told otherwise.
        let _ = self.run_or_late(|_| Ok(()), |_| ()).await;
    }

    /// Queues an operation that nobody waits for. Needs to be called within a tokio runtime.
    fn send(
        &self,
        name: &'static str,
        operation: impl FnOnce(&mut Spool) -> Result<(), SpoolError> + Send + 'static,
    ) {
        let (reports, asked) = (self.shared.reports.clone(), Instant::now());
        let (done, ended) = oneshot::channel::<()>();
        let queued = self.queue(move |spool| {
            if let Err(error) = spool.and_then(operation) {
                // Nobody may listen.
                let _ = reports.send(Report { operation: name, result: Err(error) });
            }
            drop(done);
        });
        if queued.is_ok() && !self.shared.silence.is() {
            // Keeps the thread no longer than its handles do.
            let shared = Arc::downgrade(&self.shared);
            tokio::spawn(async move {
                if tokio::time::timeout(LONG, ended).await.is_err()
                    && let Some(shared) = shared.upgrade()
                {
                    Self { shared }.overdue(asked);
                }
            });
        }
        if let Err(error) = queued {
            let source = std::io::Error::other(error.to_string());
            let refused = SpoolError::Io { doing: name, path: self.shared.dir.clone(), source };
            // Nobody may listen.
            let _ = self.shared.reports.send(Report { operation: name, result: Err(refused) });
        }
    }

    fn queue(
        &self,
        job: impl FnOnce(Result<&mut Spool, SpoolError>) + Send + 'static,
    ) -> Result<(), DiskError> {
        let dir = || self.shared.dir.clone();
        match &self.shared.jobs {
            Jobs::Thread { queue, waiting } => {
                if waiting.fetch_add(1, Ordering::SeqCst) >= BACKLOG {
                    waiting.fetch_sub(1, Ordering::SeqCst);
                    return Err(DiskError::Backlog { dir: dir(), bound: BACKLOG });
                }
                let waiting = Arc::clone(waiting);
                let begun: Job = Box::new(move |spool| {
                    waiting.fetch_sub(1, Ordering::SeqCst);
                    job(spool);
                });
                queue.send(begun).map_err(|_| DiskError::Gone { dir: dir() })
            }
            #[cfg(test)]
            Jobs::Task(jobs) => jobs.try_send(Box::new(job)).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => DiskError::Backlog { dir: dir(), bound: BACKLOG },
                mpsc::error::TrySendError::Closed(_) => DiskError::Gone { dir: dir() },
            }),
        }
    }
}

/// Has `find` say how long the spool's volume lives. That is known before the first operation is answered, unless what tells it
/// hangs: that must not keep the spool closed.
fn find_out(durability: &Arc<OnceLock<Durability>>, find: impl FnOnce() -> Durability + Send + 'static) {
    let durability = Arc::clone(durability);
    drop(files::within_blocking(FOUND_WITHIN, move || _ = durability.set(find())));
}

/// What runs the operations: opens, and opens again.
struct Server<F> {
    open: F,
    said: watch::Sender<SpoolState>,
    holder: OnBehalf,
    spool: Option<Spool>,
}

impl<F: Fn() -> Result<Spool, SpoolError>> Server<F> {
    fn open(&mut self) -> Result<&mut Spool, SpoolError> {
        let opened = (self.open)();
        self.said.send_replace(match &opened {
            Ok(_) => SpoolState::Open,
            Err(error) => SpoolState::Refused(error.to_string().into()),
        });
        let mut spool = opened?;
        let holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(holder) = holder {
            spool.hold_for(holder.completed_by_the_resolver());
        }
        Ok(self.spool.insert(spool))
    }

    fn run(&mut self, job: Job) {
        self.make_good();
        match &mut self.spool {
            Some(spool) => job(Ok(spool)),
            None => job(self.open()),
        }
    }

    /// That it was refused was said when it was.
    fn make_good(&mut self) {
        if let Some(spool) = self.spool.as_mut().filter(|spool| spool.owes()) {
            drop(spool.make_good());
        }
    }

    /// Whether there is nothing to do without any operation.
    fn is_at_rest(&self) -> bool {
        self.spool.as_ref().is_some_and(|spool| !spool.owes())
    }

    /// What is to be done without any operation.
    fn tend(&mut self) {
        match self.spool {
            Some(_) => self.make_good(),
            // Why it is refused was said.
            None => drop(self.open()),
        }
    }
}

/// The thread: runs what is queued until no handle is left.
fn serve<F: Fn() -> Result<Spool, SpoolError>>(
    queue: &Receiver<Job>,
    mut server: Server<F>,
    reopen: Duration,
) {
    server.tend();
    loop {
        let job = if server.is_at_rest() {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(reopen)
        };
        match job {
            Ok(job) => server.run(job),
            Err(RecvTimeoutError::Timeout) => server.tend(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
impl Disk {
    /// As [`Disk::start`], on a task of the runtime: `turn` comes before each operation, and takes as long as the disk does;
    /// `done` comes after it.
    pub(crate) fn start_on_a_task<T: Future<Output = ()> + Send>(
        dir: PathBuf,
        arrivals: Arrivals,
        turn: impl Fn() -> T + Send + Sync + 'static,
        done: impl Fn() + Send + Sync + 'static,
        open: impl Fn() -> Result<Spool, SpoolError> + Send + 'static,
    ) -> (Self, mpsc::UnboundedReceiver<Report>) {
        let (jobs, mut queue) = mpsc::channel::<Job>(BACKLOG);
        let (reports, reported) = mpsc::unbounded_channel();
        let (said, state) = watch::channel(SpoolState::Opening);
        let holder = OnBehalf::default();
        let for_server = Arc::clone(&holder);
        tokio::spawn(async move {
            let mut server = Server { open, said, holder: for_server, spool: None };
            turn().await;
            server.tend();
            loop {
                done();
                let job = if server.is_at_rest() {
                    Ok(queue.recv().await)
                } else {
                    tokio::time::timeout(REOPEN, queue.recv()).await
                };
                turn().await;
                match job {
                    Ok(Some(job)) => server.run(job),
                    Ok(None) => return,
                    Err(_) => server.tend(),
                }
            }
        });
        let (silence, durability) = (Arc::default(), Arc::default());
        let (jobs, arrivals) = (Jobs::Task(jobs), Arc::new(arrivals).into());
        let patience = PATIENCE;
        let shared = Shared { dir, jobs, silence, reports, state, durability, arrivals, holder, patience };
        (Self { shared: Arc::new(shared) }, reported)
    }
}

#[cfg(test)]
mod tests;
