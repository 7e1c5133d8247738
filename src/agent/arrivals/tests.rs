use std::{fs, time::Duration};

use super::*;

/// Whether it came: as soon as nothing else is to be done, with the time paused.
async fn came(arrivals: &Arrivals) -> bool {
    tokio::time::timeout(Duration::from_secs(1), arrivals.came()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn it_tells_once_of_what_is_made_or_moved_there_since_it_listens() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let arrivals = Arrivals::of_the_kernel();
    fs::write(at("before"), "").unwrap();
    assert!(arrivals.listen(dir.path()));
    fs::remove_file(at("before")).unwrap();
    assert!(!came(&arrivals).await, "only what comes");
    fs::write(at("made"), "").unwrap();
    assert!(came(&arrivals).await);

    assert!(arrivals.listen(dir.path()));
    assert!(!came(&arrivals).await, "that was told");
    fs::rename(at("made"), at("moved")).unwrap();
    assert!(came(&arrivals).await);
    fs::write(at("more"), "").unwrap();
    assert!(arrivals.listen(dir.path()));
    assert!(!came(&arrivals).await, "that is for the look that comes now");
}

#[tokio::test]
async fn where_nothing_can_be_told_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let arrivals = Arrivals::of_the_kernel();
    assert!(!arrivals.listen(&dir.path().join("missing")));
    assert!(!arrivals.listen(&dir.path().join("file")));
    assert!(!Arrivals::Kernel(None).listen(dir.path()));
}
