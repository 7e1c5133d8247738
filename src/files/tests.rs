use std::sync::{
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use super::*;

/// An outer bound, no verdict.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

/// A file that answers once it is let.
struct Frozen {
    thaw: mpsc::Sender<u32>,
    frozen: Arc<Mutex<mpsc::Receiver<u32>>>,
    threads: Arc<AtomicUsize>,
}

impl Frozen {
    fn new() -> Self {
        let (thaw, frozen) = mpsc::channel();
        Self { thaw, frozen: Arc::new(Mutex::new(frozen)), threads: Arc::default() }
    }

    fn read(&self) -> impl FnOnce() -> u32 + Send + 'static {
        let (frozen, threads) = (Arc::clone(&self.frozen), Arc::clone(&self.threads));
        move || {
            threads.fetch_add(1, Ordering::SeqCst);
            frozen.lock().unwrap().recv_timeout(LONG).unwrap()
        }
    }

    fn threads(&self) -> usize {
        self.threads.load(Ordering::SeqCst)
    }
}

async fn late(reader: &Reader<u32>) {
    let answer = Arc::clone(&reader.reading.lock().unwrap().as_ref().unwrap().answer);
    while matches!(*answer.state(), State::Outstanding) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn g4_a_file_that_hangs_is_waited_for_once_and_keeps_one_thread() {
    let (file, reader) = (Frozen::new(), Reader::default());
    assert_eq!(reader.read(SHORT, file.read()).await, Err(Unanswered::Slow(SHORT)));
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(reader.read(SHORT, file.read()).await, Err(Unanswered::Slow(SHORT)));
        assert_eq!(reader.read_blocking(SHORT, file.read()), Err(Unanswered::Slow(SHORT)));
    }
    assert!(begun.elapsed() < SHORT * 100, "each was waited for: {:?}", begun.elapsed());
    assert_eq!(file.threads(), 1);
}

#[tokio::test]
async fn a_late_answer_is_the_next_questions_and_no_later_ones() {
    let (file, reader) = (Frozen::new(), Reader::default());
    assert_eq!(reader.read(SHORT, file.read()).await, Err(Unanswered::Slow(SHORT)));
    file.thaw.send(1).unwrap();
    late(&reader).await;
    assert_eq!(reader.read(LONG, file.read()).await, Ok(1));
    assert_eq!(reader.read(LONG, || 2).await, Ok(2));
}

#[tokio::test]
async fn what_nobody_waited_for_to_the_end_is_read_anew() {
    let (file, reader) = (Frozen::new(), Reader::default());
    // Who asked went away, before the limit.
    assert!(timeout(SHORT, reader.read(LONG, file.read())).await.is_err());
    file.thaw.send(1).unwrap();
    late(&reader).await;
    assert_eq!(reader.read(LONG, || 2).await, Ok(2), "it may have changed since");
}

#[tokio::test]
async fn an_answer_that_came_long_ago_is_not_handed_on() {
    let (file, reader) = (Frozen::new(), Reader::default());
    assert_eq!(reader.read(SHORT, file.read()).await, Err(Unanswered::Slow(SHORT)));
    file.thaw.send(1).unwrap();
    late(&reader).await;
    tokio::time::pause();
    tokio::time::advance(GOOD_FOR + Duration::from_secs(1)).await;
    tokio::time::resume();
    assert_eq!(reader.read(LONG, || 2).await, Ok(2));
}

#[tokio::test]
async fn who_asks_meanwhile_waits_for_the_same_answer() {
    let (file, reader) = (Frozen::new(), Reader::default());
    let both = async { tokio::join!(reader.read(LONG, file.read()), reader.read(LONG, file.read())) };
    let thaw = async {
        while file.threads() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        file.thaw.send(7).unwrap();
    };
    let (both, ()) = tokio::join!(both, thaw);
    assert_eq!(both, (Ok(7), Ok(7)));
    assert_eq!(file.threads(), 1);
}

#[tokio::test]
async fn work_that_panics_is_no_answer_and_the_next_is_begun_anew() {
    let reader: Reader<u32> = Reader::default();
    assert_eq!(reader.read(LONG, || panic!("of this test")).await, Err(Unanswered::Lost));
    assert_eq!(reader.read_blocking(LONG, || panic!("of this test")), Err(Unanswered::Lost));
    assert_eq!(reader.read(LONG, || 1).await, Ok(1));
    assert_eq!(within(LONG, || -> u32 { panic!("of this test") }).await, Err(Unanswered::Lost));
    assert_eq!(within_blocking(LONG, || -> u32 { panic!("of this test") }), Err(Unanswered::Lost));
}

#[tokio::test]
async fn work_on_a_thread_of_its_own_is_waited_for_no_longer_than_its_limit() {
    let file = Frozen::new();
    assert_eq!(within(SHORT, file.read()).await, Err(Unanswered::Slow(SHORT)));
    assert_eq!(within_blocking(SHORT, || 1), Ok(1));
    assert_eq!(within(LONG, || 1).await, Ok(1));
}

#[test]
fn a_trouble_is_told_once_and_over_once_it_is() {
    let troubles = Troubles::default();
    let mut told = troubles.watch();
    troubles.tell("password", Some(&"gone"));
    assert!(told.has_changed().unwrap());
    assert_eq!(told.borrow_and_update()["password"], "gone");
    troubles.tell("password", Some(&"gone"));
    assert!(!told.has_changed().unwrap());
    troubles.tell("password", None);
    assert!(told.borrow_and_update().is_empty());
    troubles.tell("password", None);
    assert!(!told.has_changed().unwrap());
}
