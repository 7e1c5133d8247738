//! Hears the signals, and ends the process by its deadline, whatever blocks.
//!
//! A thread of its own waits for SIGTERM and SIGINT. The first signal arms it there and then: exit is called a grace after that
//! moment, be the runtime blocked by then or the settings still unknown. The core, once it has heard of the signal, may set an
//! earlier deadline: the grace began with the first pre-stop, say. A second signal leaves a moment. The thread shares nothing
//! with the runtime, and needs nothing of the system once it has started.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    low_level::pipe,
};

use super::{lifecycle::LEAST_AFTER_SIGTERM, shell::Deadline};
use crate::exit::Exit;

/// Exit is called this long before the deadline.
const MARGIN: Duration = Duration::from_millis(20);
/// How long the core has to do as a second signal says, and keep the asks.
const AT_ONCE: Duration = Duration::from_secs(1);
/// What signal-hook writes for a signal.
const SIGNAL: u8 = b'X';
/// The deadline is another.
const CHANGED: u8 = b'c';

/// A handle on the thread.
#[derive(Clone)]
pub struct Watchdog {
    leash: Arc<Mutex<Leash>>,
    wake: Arc<UnixStream>,
}

/// What the thread knows.
struct Leash {
    grace: Duration,
    /// When the first signal came.
    signalled: Option<Instant>,
    /// When exit is called.
    until: Option<Instant>,
    /// With which exit code.
    code: Arc<AtomicU8>,
}

impl Leash {
    fn sooner(&mut self, until: Instant) {
        self.until = Some(self.until.map_or(until, |known| known.min(until)));
    }

    fn signal(&mut self, now: Instant) {
        if self.signalled.is_some() {
            self.sooner(now + AT_ONCE);
            return;
        }
        self.signalled = Some(now);
        self.arm(now);
    }

    /// The kubelet's own deadline, as far as it is known.
    fn arm(&mut self, signalled: Instant) {
        self.sooner(signalled + self.grace.max(LEAST_AFTER_SIGTERM) - MARGIN);
    }
}

impl Watchdog {
    /// Starts the thread. `grace` is what is to be taken for the pod's until [`Watchdog::grace`] says better; `tell` is called
    /// for each signal, on the thread.
    pub fn start(grace: Duration, tell: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (signals, wake) = UnixStream::pair()?;
        let handlers = [wake.try_clone()?, wake.try_clone()?];
        let watchdog = Self::over(signals, wake, grace, tell, |code| std::process::exit(code.into()))?;
        // From here on a signal no longer ends the process by itself.
        for (signal, handler) in [SIGTERM, SIGINT].into_iter().zip(handlers) {
            pipe::register(signal, handler)?;
        }
        Ok(watchdog)
    }

    fn over(
        signals: UnixStream,
        wake: UnixStream,
        grace: Duration,
        tell: impl Fn() + Send + 'static,
        exit: impl FnOnce(u8) + Send + 'static,
    ) -> io::Result<Self> {
        let code = Arc::new(AtomicU8::new(Exit::Unavailable.code()));
        let leash = Arc::new(Mutex::new(Leash { grace, signalled: None, until: None, code }));
        let watched = Arc::clone(&leash);
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || exit(watch(&signals, &watched, tell)))?;
        Ok(Self { leash, wake: Arc::new(wake) })
    }

    fn leash(&self) -> MutexGuard<'_, Leash> {
        lock(&self.leash)
    }

    fn changed(&self) {
        // A full pipe wakes it as well.
        let _ = (&*self.wake).write(&[CHANGED]);
    }

    /// The pod's grace is known now.
    pub fn grace(&self, grace: Duration) {
        let mut leash = self.leash();
        leash.grace = grace;
        if let Some(signalled) = leash.signalled {
            leash.arm(signalled);
            drop(leash);
            self.changed();
        }
    }

    /// What the core sets: a deadline, and the exit code that it says last. From here on it is known whose row this is: what isn't
    /// done by the deadline is left queued.
    pub fn deadline(&self) -> Deadline {
        let watchdog = self.clone();
        self.leash().code.store(Exit::Queued.code(), Ordering::SeqCst);
        Deadline(Box::new(move |left, code| {
            let mut leash = watchdog.leash();
            leash.sooner(Instant::now() + left);
            leash.code = code;
            drop(leash);
            watchdog.changed();
        }))
    }
}

fn lock(leash: &Mutex<Leash>) -> MutexGuard<'_, Leash> {
    leash.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until the deadline. Answers the exit code.
fn watch(mut signals: &UnixStream, leash: &Mutex<Leash>, tell: impl Fn()) -> u8 {
    let mut byte = [0];
    loop {
        let left = {
            let leash = lock(leash);
            let left = leash.until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return leash.code.load(Ordering::SeqCst);
            }
            left
        };
        let read = signals.set_read_timeout(left).and_then(|()| signals.read(&mut byte));
        if matches!(read, Ok(1..)) && byte[0] == SIGNAL {
            lock(leash).signal(Instant::now());
            tell();
        }
        // An error is the time that is over; or one that nothing can be done about but to wait for that.
        if let Err(error) = read
            && !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
            )
        {
            std::thread::sleep(left.unwrap_or(AT_ONCE).min(AT_ONCE));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An outer bound, no verdict.
    const LONG: Duration = Duration::from_secs(60);

    struct Bench {
        watchdog: Watchdog,
        handler: UnixStream,
        told: mpsc::Receiver<()>,
        exit: mpsc::Receiver<u8>,
    }

    fn bench(grace: Duration) -> Bench {
        let (signals, wake) = UnixStream::pair().unwrap();
        let handler = wake.try_clone().unwrap();
        let (tell, told) = mpsc::channel();
        let (code, exit) = mpsc::channel();
        let tell = move || _ = tell.send(());
        let watchdog = Watchdog::over(signals, wake, grace, tell, move |c| _ = code.send(c)).unwrap();
        Bench { watchdog, handler, told, exit }
    }

    impl Bench {
        fn signal(&mut self) {
            self.handler.write_all(&[SIGNAL]).unwrap();
            self.told.recv_timeout(LONG).unwrap();
        }

        fn left(&self) -> Option<Duration> {
            let leash = self.watchdog.leash();
            Some(leash.until? - leash.signalled?)
        }
    }

    #[test]
    fn g4_a_signal_arms_the_watchdog_itself_though_nobody_takes_it_up() {
        // The shortest that a kubelet gives.
        let mut bench = bench(Duration::ZERO);
        let begun = Instant::now();
        bench.signal();
        assert_eq!(bench.exit.recv_timeout(LONG).unwrap(), Exit::Unavailable.code());
        assert!(begun.elapsed() >= LEAST_AFTER_SIGTERM - MARGIN, "{:?}", begun.elapsed());
    }

    #[test]
    fn g4_a_grace_that_becomes_known_after_the_signal_counts_from_the_signal() {
        let mut bench = bench(Duration::from_secs(30));
        bench.signal();
        assert_eq!(bench.left(), Some(Duration::from_secs(30) - MARGIN));
        bench.watchdog.grace(Duration::from_secs(3));
        assert_eq!(bench.left(), Some(Duration::from_secs(3) - MARGIN));
        // It has learnt meanwhile whose row this is.
        let _deadline = bench.watchdog.deadline();
        assert_eq!(bench.exit.recv_timeout(LONG).unwrap(), Exit::Queued.code());
    }

    #[test]
    fn g4_the_core_may_bring_the_exit_forward_and_says_its_code() {
        let mut bench = bench(LONG);
        bench.signal();
        let code = Arc::new(AtomicU8::new(Exit::Queued.code()));
        (bench.watchdog.deadline().0)(Duration::from_millis(50), Arc::clone(&code));
        code.store(Exit::Done.code(), Ordering::SeqCst);
        assert_eq!(bench.exit.recv_timeout(LONG).unwrap(), Exit::Done.code());
    }

    #[test]
    fn g4_the_core_can_not_put_the_exit_off() {
        let mut bench = bench(LONG);
        bench.signal();
        let left = bench.left();
        (bench.watchdog.deadline().0)(LONG * 2, Arc::default());
        assert_eq!(bench.left(), left);
    }

    #[test]
    fn a_second_signal_leaves_a_moment() {
        let mut bench = bench(LONG);
        bench.signal();
        bench.signal();
        assert!(bench.left().unwrap() <= AT_ONCE + LONG / 2, "{:?}", bench.left());
        bench.exit.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn without_a_signal_it_waits() {
        let bench = bench(Duration::ZERO);
        bench.watchdog.grace(Duration::ZERO);
        bench.watchdog.changed();
        assert!(bench.exit.recv_timeout(Duration::from_millis(50)).is_err());
        assert_eq!(bench.left(), None);
    }
}
