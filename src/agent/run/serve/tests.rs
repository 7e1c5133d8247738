use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use super::*;
use crate::agent::metrics::Metrics;

/// An outer bound, no verdict.
const LONG: Duration = Duration::from_secs(20);

fn why(degraded: &Degraded) -> Option<String> {
    degraded.list().first().map(|said| format!("{}: {}", said.reason, said.why))
}

#[tokio::test]
async fn g8_what_hangs_at_the_start_is_told_and_holds_nothing_else_up() {
    let degraded = Degraded::new(Metrics::new());
    let (thaw, frozen) = mpsc::channel::<()>();
    let frozen = Mutex::new(frozen);
    let begun = Arc::new(AtomicUsize::new(0));
    let times = Arc::clone(&begun);
    let work = move || {
        times.fetch_add(1, Ordering::SeqCst);
        frozen.lock().unwrap().recv_timeout(LONG).map_err(|_| "nobody let it go")
    };
    let told = degraded.clone();
    let done = tokio::spawn(async move {
        until_done("socket", &told, Path::new("/run/signoff"), work).await;
    });
    let since = std::time::Instant::now();
    while why(&degraded).is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(since.elapsed() < LONG / 2, "the runtime was held up: {:?}", since.elapsed());
    let said = why(&degraded).unwrap();
    assert!(said.starts_with("socket: /run/signoff: no answer within 1s"), "{said}");
    assert!(!done.is_finished());
    thaw.send(()).unwrap();
    done.await.unwrap();
    assert_eq!((why(&degraded), begun.load(Ordering::SeqCst)), (None, 1), "no second one beside it");
}

#[tokio::test]
async fn what_fails_is_told_and_tried_again_until_it_succeeds() {
    let degraded = Degraded::new(Metrics::new());
    let tries = AtomicUsize::new(0);
    let work = move || match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Err("the volume is read-only"),
        tried => Ok(tried),
    };
    let told = degraded.clone();
    let done = tokio::spawn(async move { until_done("settings", &told, Path::new("/x"), work).await });
    while why(&degraded).is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(why(&degraded).unwrap(), "settings: the volume is read-only");
    assert_eq!(done.await.unwrap(), 1);
    assert_eq!(why(&degraded), None);
}

#[tokio::test]
async fn g8_no_port_of_the_schedulers_is_listened_on() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let others = [free.port().wrapping_add(1), free.port()];
    for flag in ["--listen", "--hook-listen"] {
        let said = listen(flag, free, &others).unwrap_err().to_string();
        assert_eq!(
            said,
            format!(
                "{flag} {free} is not listened on: the scheduler needs port {} itself: give {flag} another one",
                free.port()
            )
        );
    }
    // Nobody holds it: the scheduler gets it, and so would the agent where it is nobody's.
    drop(listen("--listen", free, &others[..1]).unwrap());
}
