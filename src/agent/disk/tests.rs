use std::sync::{Condvar, Mutex, atomic::AtomicBool};

use futures_util::FutureExt;

use super::*;
use crate::spool::record::{Cause, Kind, What};

/// For tests of a disk that hangs: nothing is expected to be done in so short a time.
const SHORT: Duration = Duration::from_millis(100);
/// No test waits so long unless it has failed.
const BOUND: Duration = Duration::from_secs(60);

fn key() -> SchedulerKey {
    SchedulerKey::new(1.try_into().unwrap(), "scheduler-0".parse().unwrap(), "10.0.0.1".parse().unwrap())
}

fn ask(id: u64) -> Record {
    Record {
        id: RecordId(format!("{id:016x}")),
        key: key(),
        what: What::SignOff { cause: Cause::Down, drain_until: None },
        address: None,
        listed: true,
        row_updated: None,
        registered: None,
        at: id,
        pod: None,
        managers: Default::default(),
    }
}

/// A disk that hangs until it is let go.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let (open, changed) = &*self.0;
        let _open = changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap();
    }

    /// The same, for a time.
    fn pass_within(&self, limit: Duration) {
        let (open, changed) = &*self.0;
        drop(changed.wait_timeout_while(open.lock().unwrap(), limit, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.unwrap()
}

async fn until(disk: &Disk, state: impl Fn(&SpoolState) -> bool) -> SpoolState {
    within(async { disk.state().wait_for(|now| state(now)).await.unwrap().clone() }).await
}

/// Waits until the thread has let go of the spool.
async fn ended(mut reports: mpsc::UnboundedReceiver<Report>, disk: Disk) {
    let mut state = disk.state();
    drop(disk);
    within(async {
        while reports.recv().await.is_some() {}
        while state.changed().await.is_ok() {}
    })
    .await;
}

fn start(dir: &Path) -> (Disk, mpsc::UnboundedReceiver<Report>) {
    start_with(dir, BOUND)
}

fn start_with(dir: &Path, patience: Duration) -> (Disk, mpsc::UnboundedReceiver<Report>) {
    let at = dir.to_owned();
    Disk::start_with(dir.to_owned(), patience, BOUND, move || Spool::open(&at, Limits::default()))
}

#[tokio::test]
async fn what_is_asked_is_done_in_order_and_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, reports) = start(dir.path());
    within(disk.write_ask(ask(1))).await.unwrap();
    disk.write_mark(Record { what: What::Seen, ..ask(2) });
    disk.settle_later(vec![ask(1).id], true);
    let held =
        within(disk.run("look", |spool| Ok(spool.held().filter(|(kind, _)| *kind == Kind::Mark).count())));
    assert_eq!(held.await.unwrap(), 2);
    disk.drop_marks(key(), true);
    within(disk.write_ask(ask(3))).await.unwrap();
    crate::spool::drop_record(dir.path(), &ask(3).id.0).unwrap();
    assert_eq!(within(disk.vanished(vec![ask(3).id])).await, [ask(3).id]);
    within(disk.drop_all_marks(key())).await.unwrap();
    let settled = within(disk.settle(vec![ask(3).id], false)).await.unwrap();
    assert_eq!(settled.vanished, [ask(3).id]);
    assert_ne!(disk.durability().label(), "");
    ended(reports, disk).await;
    assert_eq!(crate::spool::scan(dir.path()).unwrap().entries().count(), 0);
}

#[tokio::test]
async fn the_next_on_the_spool_takes_what_this_one_left() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, reports) = start(dir.path());
    within(disk.write_ask(ask(1))).await.unwrap();
    ended(reports, disk).await;
    let (disk, reports) = start(dir.path());
    let taken = within(disk.take_own(key(), |_| ())).await.unwrap();
    assert_eq!(taken.records, [(Kind::Ask, ask(1))]);
    disk.release(vec![ask(1).id]);
    let adopted = within(disk.take_unheld(WHOLE_SPOOL)).await.unwrap().taken;
    assert_eq!(adopted.records, [(Kind::Ask, ask(1))]);
    ended(reports, disk).await;
}

#[tokio::test]
async fn g1_what_takes_longer_than_the_patience_to_be_taken_over_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, reports) = start(dir.path());
    within(disk.write_ask(ask(1))).await.unwrap();
    ended(reports, disk).await;
    let (disk, reports) = start_with(dir.path(), SHORT);
    until(&disk, |state| *state == SpoolState::Open).await;
    let gate = Gate::default();
    let hung = gate.clone();
    let hung = within(disk.run("hang", move |_| {
        hung.pass();
        Ok(())
    }));
    assert!(matches!(hung.await, Err(DiskError::Slow { .. })));
    let mut adopting = Box::pin(disk.take_unheld(WHOLE_SPOOL));
    assert!(adopting.as_mut().now_or_never().is_none(), "it waits on");
    gate.open();
    let adopted = within(&mut adopting).await.unwrap().taken;
    drop(adopting);
    assert_eq!(adopted.records, [(Kind::Ask, ask(1))]);
    ended(reports, disk).await;
}

#[tokio::test]
async fn g4_a_disk_that_hangs_is_waited_for_once_and_does_its_work_when_it_wakes() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, mut reports) = start_with(dir.path(), SHORT);
    let gate = Gate::default();
    until(&disk, |state| *state == SpoolState::Open).await;
    let hung = {
        let gate = gate.clone();
        within(disk.run("hang", move |_| {
            gate.pass();
            Ok(())
        }))
        .await
    };
    assert!(matches!(hung, Err(DiskError::Slow { .. })), "{hung:?}");
    // Now nothing is waited for at all, and yet queued.
    for id in 1..=50 {
        let refused = disk.write_ask(ask(id)).now_or_never().unwrap().unwrap_err();
        assert!(matches!(refused, DiskError::Slow { .. }), "{refused}");
        assert!(refused.to_string().contains(&dir.path().display().to_string()), "{refused}");
    }
    disk.flush().now_or_never().unwrap();
    gate.open();
    let mut late = Vec::new();
    for _ in 0..51 {
        let report = within(reports.recv()).await.unwrap();
        report.result.unwrap();
        late.push(report.operation);
    }
    assert_eq!((late[0], late[1], late[50]), ("hang", "write-ask", "write-ask"));
    // Awake: waited for again. The same ask may be given again.
    let mut answered = disk.write_ask(ask(1)).await;
    while matches!(answered, Err(DiskError::Slow { .. })) {
        tokio::task::yield_now().await;
        answered = disk.write_ask(ask(1)).await;
    }
    answered.unwrap();
    assert_eq!(crate::spool::scan(dir.path()).unwrap().asks.len(), 50);
    ended(reports, disk).await;
}

#[tokio::test]
async fn g1_a_value_that_comes_late_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, reports) = start_with(dir.path(), SHORT);
    until(&disk, |state| *state == SpoolState::Open).await;
    let (gate, (tell, told)) = (Gate::default(), oneshot::channel());
    let hang = gate.clone();
    let operation = move |_: &mut Spool| {
        hang.pass();
        Ok(42)
    };
    let slow = within(disk.run_or_late(operation, move |late| tell.send(late.unwrap()).unwrap())).await;
    assert!(matches!(slow, Err(DiskError::Slow { .. })), "{slow:?}");
    gate.open();
    assert_eq!(within(told).await.unwrap(), 42);
    ended(reports, disk).await;
}

#[tokio::test]
async fn g4_what_waits_for_a_hanging_disk_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let hang = gate.clone();
    let at = dir.path().to_owned();
    let (disk, reports) = Disk::start_with(at.clone(), SHORT, BOUND, move || {
        hang.pass();
        Spool::open(&at, Limits::default())
    });
    assert_eq!(*disk.state().borrow(), SpoolState::Opening);
    let mut refused = None;
    for _ in 0..BACKLOG + 2 {
        if let Err(error @ DiskError::Backlog { .. }) = disk.run("nothing", |_| Ok(())).await {
            refused = Some(error);
            break;
        }
    }
    let said = refused.unwrap().to_string();
    assert!(said.contains(&BACKLOG.to_string()), "{said}");
    gate.open();
    until(&disk, |state| *state == SpoolState::Open).await;
    // What has begun waits no longer.
    within(async {
        while disk.run("nothing", |_| Ok(())).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    ended(reports, disk).await;
}

#[tokio::test]
async fn an_operation_nobody_waits_for_reports_its_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, mut reports) = start(dir.path());
    let mut bad = ask(1);
    bad.id = RecordId("..".to_owned());
    disk.write_mark(bad);
    let report = within(reports.recv()).await.unwrap();
    assert_eq!(report.operation, "write-mark");
    assert!(matches!(report.result, Err(SpoolError::BadId { .. })), "{:?}", report.result);
    ended(reports, disk).await;
}

#[tokio::test]
async fn a_spool_that_cannot_be_opened_is_degraded_and_opened_when_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("spool");
    std::fs::write(&at, "in the way").unwrap();
    let (disk, reports) = start(&at);
    let SpoolState::Refused(why) = until(&disk, |state| *state != SpoolState::Opening).await else {
        panic!("opened a file as a spool");
    };
    assert!(why.contains("is no directory"), "{why}");
    let refused = within(disk.write_ask(ask(1))).await.unwrap_err();
    assert!(matches!(refused, DiskError::Spool(SpoolError::NotADirectory { .. })), "{refused}");
    std::fs::remove_file(&at).unwrap();
    // The next operation opens it.
    within(disk.write_ask(ask(1))).await.unwrap();
    assert_eq!(*disk.state().borrow(), SpoolState::Open);
    ended(reports, disk).await;
}

#[tokio::test]
async fn g1_a_refused_spool_is_opened_again_without_anybody_asking() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_owned();
    let first = AtomicBool::new(true);
    let (disk, reports) = Disk::start_with(at.clone(), BOUND, Duration::from_millis(1), move || {
        if first.swap(false, Ordering::SeqCst) {
            return Err(SpoolError::Missing { dir: at.clone() });
        }
        Spool::open(&at, Limits::default())
    });
    until(&disk, |state| *state == SpoolState::Open).await;
    ended(reports, disk).await;
}

#[tokio::test]
async fn g6_a_settled_ask_that_the_disk_did_not_let_go_of_goes_without_anybody_asking() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_owned();
    let open = move || Spool::open(&at, Limits::default());
    let (disk, reports) = Disk::start_with(dir.path().to_owned(), BOUND, SHORT, open);
    within(disk.write_ask(ask(1))).await.unwrap();
    let path = crate::spool::scan(dir.path()).unwrap().asks[0].path.clone();
    // A file can't be removed where a directory is.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    within(disk.settle(vec![ask(1).id], false)).await.unwrap_err();
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    within(async {
        while path.exists() {
            tokio::time::sleep(SHORT / 10).await;
        }
    })
    .await;
    ended(reports, disk).await;
}

#[tokio::test]
async fn a_thread_that_is_gone_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, mut reports) = start(dir.path());
    let (gone, _) = channel();
    let shared = Arc::new(Shared {
        dir: dir.path().to_owned(),
        jobs: Jobs::Thread { queue: gone, waiting: Arc::default() },
        silence: Arc::default(),
        reports: disk.shared.reports.clone(),
        state: disk.state(),
        durability: Arc::default(),
        arrivals: OnceLock::new(),
        holder: OnBehalf::default(),
        patience: BOUND,
    });
    let broken = Disk { shared };
    assert!(matches!(broken.write_ask(ask(1)).await, Err(DiskError::Gone { .. })));
    broken.settle_later(vec![], false);
    assert!(within(reports.recv()).await.unwrap().result.is_err());
    drop(broken);
    ended(reports, disk).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_silent_since_it_was_asked_whoever_waits_for_it_and_no_more_once_it_wakes() {
    enum Asked {
        Waited,
        Patiently,
        ByNobody,
    }
    for asked in [Asked::Waited, Asked::Patiently, Asked::ByNobody] {
        let dir = tempfile::tempdir().unwrap();
        let (awake, hangs) = (Arc::new(tokio::sync::Semaphore::new(1)), Arc::new(AtomicUsize::new(0)));
        let turn = {
            let (awake, hangs) = (Arc::clone(&awake), Arc::clone(&hangs));
            move || {
                let (awake, hangs) = (Arc::clone(&awake), hangs.load(Ordering::SeqCst) > 0);
                async move {
                    if hangs {
                        awake.acquire().await.unwrap().forget();
                        awake.add_permits(1);
                    }
                }
            }
        };
        let at = dir.path().to_owned();
        let open = move || Spool::open(&at, Limits::default());
        let (disk, _reports) =
            Disk::start_on_a_task(dir.path().to_owned(), Arrivals::of_the_kernel(), turn, || (), open);
        disk.survey(key()).await.unwrap();
        let mut silence = disk.silence();
        let began = Instant::now();
        // What is well is never silent, however often it is asked.
        disk.write_mark(Record { what: What::Seen, ..ask(1) });
        let _adopted = disk.adopt(key()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(silence.borrow_and_update().since().is_none() && Instant::now() > began);

        awake.acquire().await.unwrap().forget();
        hangs.store(1, Ordering::SeqCst);
        let began = Instant::now();
        match asked {
            Asked::Waited => drop(disk.write_ask(ask(2)).await.unwrap_err()),
            Asked::ByNobody => disk.settle_later(vec![ask(1).id], false),
            Asked::Patiently => {
                let disk = disk.clone();
                tokio::spawn(async move { disk.adopt(key()).await.is_ok() });
            }
        }
        tokio::time::sleep(LONG + PATIENCE).await;
        assert_eq!(silence.borrow_and_update().since(), Some(began));
        assert!(matches!(disk.survey(key()).await, Err(DiskError::Slow { .. })));
        hangs.store(0, Ordering::SeqCst);
        awake.add_permits(1);
        silence.wait_for(|overdue| overdue.since().is_none()).await.unwrap();
        disk.survey(key()).await.unwrap();
    }
}

#[tokio::test]
async fn the_marks_that_are_shown_are_this_keys_own() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, reports) = start(dir.path());
    disk.write_mark(Record { what: What::Seen, ..ask(1) });
    disk.write_mark(Record { what: What::Held, ..ask(2) });
    let stranger =
        SchedulerKey::new(1.try_into().unwrap(), "scheduler-1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    disk.write_mark(Record { key: stranger, what: What::Seen, ..ask(3) });
    within(disk.write_ask(ask(4))).await.unwrap();
    let (count, marks) = within(disk.survey(key())).await.unwrap();
    assert_eq!((count.asks, count.marks), (1, 3));
    let mut what: Vec<What> = marks.into_iter().map(|mark| mark.what).collect();
    what.sort_by_key(|what| *what == What::Held);
    assert_eq!(what, [What::Seen, What::Held]);
    ended(reports, disk).await;
}

#[test]
fn g1_a_search_for_the_volumes_life_that_hangs_keeps_no_spool_closed() {
    let (durability, gate) = (Arc::default(), Gate::default());
    let hangs = gate.clone();
    let begun = std::time::Instant::now();
    find_out(&durability, move || {
        hangs.pass_within(BOUND / 10);
        Durability::Node
    });
    assert!(begun.elapsed() < BOUND / 20, "{:?}", begun.elapsed());
    assert_eq!(durability.get(), None);
    gate.open();
    while durability.get() != Some(&Durability::Node) {
        assert!(begun.elapsed() < BOUND, "a late answer is one too");
        std::thread::sleep(Duration::from_millis(1));
    }
    let quick = Arc::default();
    find_out(&quick, || Durability::Pod);
    assert_eq!(quick.get(), Some(&Durability::Pod));
}
