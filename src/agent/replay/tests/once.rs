//! A predecessor's sign-off: at most one that may have been applied.

use super::*;

const BEFORE: &str = "2026-11-23T12:00:00Z";

/// The row as it was when the sign-off was asked, whatever was tried since.
fn untouched(_: usize) -> Stamp {
    Stamp::of(BEFORE)
}

/// Each attempt was applied, and undone by whom the row belongs to.
fn given_back(attempts: usize) -> Stamp {
    Stamp::of(&format!("2026-11-23T12:00:{attempts:02}Z"))
}

/// A predecessor's ask, made when the row had been written at [`BEFORE`], or where that wasn't shown.
fn predecessors(knows: bool) -> Record {
    Record { row_updated: knows.then(|| BEFORE.to_owned()), ..ask(1, Cause::Predecessor) }
}

/// How it ended, how many attempts that took, and for how long.
async fn once(manager: Scripted, ask: Record, origin: Origin) -> (Verdict, usize, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let (verdict, attempts) = settled_in(dir.path(), manager, vec![ask], origin, clock).await;
    (verdict, attempts, clock.now().at - Moment::default())
}

#[tokio::test(start_paused = true)]
async fn g7_an_attempt_without_an_answer_is_waited_out_and_what_is_active_then_is_contested() {
    // A living twin, whose agent gives its row back.
    let twin = || Scripted { written: Some(given_back), ..Scripted::answering(vec![unknown(); 9]) };
    let (verdict, attempts, took) = once(twin(), predecessors(true), Origin::Own).await;
    assert_eq!((verdict, attempts), (Verdict::Contested, 1));
    assert!(took >= Duration::from_secs(60), "{took:?}");
    // Over gRPC nobody can tell whether it was written.
    let (verdict, attempts, took) =
        once(Scripted { rest: false, ..twin() }, predecessors(false), Origin::Own).await;
    assert_eq!((verdict, attempts), (Verdict::Contested, 1));
    assert!(took >= Duration::from_secs(60) + LIST_AGE, "{took:?}");
    // REST was away when it was asked.
    let (verdict, attempts, _) = once(twin(), predecessors(false), Origin::Own).await;
    assert_eq!((verdict, attempts), (Verdict::Contested, 1));
}

#[tokio::test(start_paused = true)]
async fn g6_one_that_may_have_been_signed_off_is_not_signed_off_again() {
    for origin in [Origin::Own, FOUND] {
        let answers = vec![unknown(), Outcome::Confirmed];
        let manager = Scripted { written: Some(given_back), ..Scripted::answering(answers) };
        let (verdict, attempts, _) = once(manager, predecessors(false), origin).await;
        assert_eq!((verdict, attempts), (Verdict::Contested, usize::from(origin == Origin::Own)));
    }
}

#[tokio::test(start_paused = true)]
async fn g7_a_predecessor_that_was_judged_without_times_is_watched_where_they_are_shown_again() {
    let lives: fn(u64) -> Option<String> =
        |second| Some(format!("2026-11-23T12:{:02}:{:02}Z", second / 60, second % 60));
    let silent: fn(u64) -> Option<String> = |_| Some("2026-11-23T12:00:00Z".to_owned());
    let asked = |heard| settled_beside(Refuses, heard, predecessors(false));
    assert_eq!(asked(lives).await, (Verdict::Contested, 0));
    assert_eq!(asked(silent).await, (Verdict::Confirmed, 1));
    assert_eq!(asked(|_| None).await, (Verdict::Confirmed, 1), "a manager before v2.3.1");
}

#[tokio::test(start_paused = true)]
async fn g7_an_attempt_that_was_applied_without_an_answer_is_settled_by_the_read_and_by_no_other() {
    for rest in [true, false] {
        let gone =
            Scripted { inactive_after: 1, rest, ..Scripted::answering(vec![unknown(), Outcome::Confirmed]) };
        let (verdict, attempts, took) = once(gone, predecessors(false), Origin::Own).await;
        assert_eq!((verdict, attempts), (Verdict::Confirmed, 1));
        assert!(took >= Duration::from_secs(60), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_known_not_to_have_been_applied_is_tried_again() {
    let answers = vec![unknown(), Outcome::Failed(Failure::new("refused")), Outcome::Confirmed];
    let manager = Scripted { written: Some(untouched), ..Scripted::answering(answers) };
    let (verdict, attempts, took) = once(manager, predecessors(true), Origin::Own).await;
    assert_eq!((verdict, attempts), (Verdict::Confirmed, 3));
    assert!(took >= Duration::from_secs(60), "{took:?}");
    let answers = vec![Outcome::Failed(Failure::new("refused")), Outcome::Confirmed];
    let (verdict, attempts, took) =
        once(Scripted::answering(answers), predecessors(false), Origin::Own).await;
    assert_eq!((verdict, attempts), (Verdict::Confirmed, 2));
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn g7_a_predecessors_ask_that_is_found_counts_as_tried() {
    let found = |manager, knows| once(manager, predecessors(knows), FOUND);
    // Nothing was written since it was asked: whoever asked made no attempt that was applied.
    let manager = Scripted { written: Some(untouched), ..Scripted::answering(vec![Outcome::Confirmed]) };
    let (verdict, attempts, took) = found(manager, true).await;
    assert_eq!((verdict, attempts), (Verdict::Confirmed, 1));
    assert!(took >= Duration::from_secs(60), "{took:?}");
    // It was, or that isn't known: it is left alone.
    let written = |_| Stamp::of("2026-11-23T12:00:30Z");
    for (written, rest, knows) in [
        (Some(written as fn(usize) -> Stamp), true, true),
        (Some(untouched), true, false),
        (None, false, false),
    ] {
        let manager = Scripted { written, rest, ..Scripted::answering(vec![Outcome::Confirmed]) };
        let (verdict, attempts, _) = found(manager, knows).await;
        assert_eq!((verdict, attempts), (Verdict::Contested, 0), "rest: {rest}, knows: {knows}");
    }
    // What was asked is done.
    for rest in [true, false] {
        let manager = Scripted { inactive_after: 0, rest, ..Scripted::answering(vec![Outcome::Confirmed]) };
        let (verdict, attempts, _) = found(manager, false).await;
        assert_eq!((verdict, attempts), (Verdict::Confirmed, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn g7_a_predecessors_row_that_was_written_since_it_was_looked_at_is_left_alone() {
    let written = Scripted {
        written: Some(|_| Stamp::of("2026-11-23T12:00:30Z")),
        ..Scripted::answering(vec![Outcome::Confirmed])
    };
    let (verdict, attempts, _) = once(written, predecessors(true), Origin::Own).await;
    assert_eq!((verdict, attempts), (Verdict::Contested, 0));
    // Between two tries, the first of which was not applied.
    let refused = vec![Outcome::Failed(Failure::new("refused")), Outcome::Confirmed];
    let written = Scripted { written: Some(given_back), ..Scripted::answering(refused) };
    let (verdict, attempts, _) = once(written, predecessors(true), Origin::Own).await;
    assert_eq!((verdict, attempts), (Verdict::Contested, 1));
}

#[tokio::test(start_paused = true)]
async fn g7_a_silent_attempt_at_a_predecessor_is_not_hedged() {
    let frozen = Scripted { takes: ATTEMPT_LIMIT, inactive_after: 1, ..Scripted::answering(vec![unknown()]) };
    let (verdict, attempts, _) = once(frozen, predecessors(true), Origin::Own).await;
    assert_eq!((verdict, attempts), (Verdict::Confirmed, 1));
}

/// A proxy that answers for everybody, so that a probe tells nothing.
struct Mesh;

#[async_trait]
impl Reach for Mesh {
    async fn probe(&self, addr: SocketAddr, _: Duration) -> Probe {
        Probe::Foreign(format!("{addr}: it hung up"))
    }
}

/// Nobody is anywhere.
struct Refuses;

#[async_trait]
impl Reach for Refuses {
    async fn probe(&self, addr: SocketAddr, _: Duration) -> Probe {
        Probe::Nobody(format!("{addr}: connection refused"))
    }
}

/// How an ask ended where the manager lists the key's row as heard of so; and how often it was signed off.
async fn settled_beside(
    reach: impl Reach + 'static,
    heard: fn(u64) -> Option<String>,
    ask: Record,
) -> (Verdict, usize) {
    let (verdict, attempts, _) = settled_as_read(reach, heard, ask, (Freshness::Fresh, BEFORE)).await;
    (verdict, attempts)
}

/// The same, where a read of the row has this freshness and shows this `updated_at`; and for how long.
async fn settled_as_read(
    reach: impl Reach + 'static,
    heard: fn(u64) -> Option<String>,
    ask: Record,
    (freshness, updated): (Freshness, &str),
) -> (Verdict, usize, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_owned();
    let open = move || Spool::open(&at, Limits::default());
    let (disk, _reports) =
        Disk::start_on_a_task(dir.path().to_owned(), Arrivals::of_the_kernel(), || async {}, || (), open);
    let asks = vec![ask];
    disk.write_ask(asks[0].clone()).await.unwrap();
    let clock = Clock::start();
    let updated = (freshness == Freshness::Fresh).then(|| Stamp::of(updated));
    let read = (freshness, updated);
    let manager = Arc::new(Listing { clock, heard, read, signed_off: AtomicUsize::new(0) });
    let (metrics, prober) = (Metrics::new(), Arc::new(Prober::new(reach)));
    let replay =
        Replay::new(manager.clone(), prober, disk.clone(), metrics.clone(), Backlog::new(metrics), clock);
    let until = Some(Moment(Duration::from_secs(600)));
    let verdict = replay.settle(asks[0].key.clone(), asks, Origin::Own, until, &|_| ()).await;
    disk.flush().await;
    (verdict, manager.signed_off.load(Ordering::SeqCst), clock.now().at - Moment::default())
}

/// Lists the key's row, last heard of as `heard` says by the second, beside one that is heard of each second.
struct Listing {
    clock: Clock,
    heard: fn(u64) -> Option<String>,
    read: (Freshness, Option<Stamp>),
    signed_off: AtomicUsize,
}

#[async_trait]
impl Manager for Listing {
    async fn sign_off(&self, _: &SchedulerKey, _: AttemptOptions) -> Outcome {
        self.signed_off.fetch_add(1, Ordering::SeqCst);
        Outcome::Confirmed
    }
    async fn hold(&self, _: &SchedulerKey) -> Result<HoldStart, Failure> {
        Ok(HoldStart::Absent)
    }
    async fn read_row(&self, _: &SchedulerKey) -> Result<RowRead, Failure> {
        let (freshness, updated) = self.read;
        Ok(RowRead { state: RowState::Active, freshness, registered: None, updated })
    }
    async fn list(&self, _: &Filter) -> Result<Listed, Failure> {
        let second = self.clock.now().at.0.as_secs();
        let row = |id: u64, hostname: &str, ip: &str, last_keep_alive_at| crate::manager::Row {
            id,
            hostname: hostname.to_owned(),
            ip: ip.to_owned(),
            port: 8002,
            state: crate::manager::State::Active,
            cluster_id: 1,
            created_at: None,
            last_keep_alive_at,
            keep_alive_interval: None,
            updated_at: None,
        };
        let key = ask(1, Cause::Down).key;
        let witness =
            (self.heard)(0).map(|_| format!("2026-11-23T13:{:02}:{:02}Z", second / 60, second % 60));
        let rows = vec![
            row(1, key.hostname.as_str(), &key.ip.to_string(), (self.heard)(second)),
            row(2, "witness-0", "10.0.0.9", witness),
        ];
        Ok(Listed { rows, freshness: Freshness::Fresh })
    }
    async fn register(&self, _: &SchedulerKey, _: &crate::manager::Registered) -> Result<(), Failure> {
        unreachable!("nobody registers here")
    }
    fn freshness(&self) -> Freshness {
        Freshness::Fresh
    }
    fn watch(&self) -> watch::Receiver<Contact> {
        watch::channel(Contact::default()).1
    }
}

#[tokio::test(start_paused = true)]
async fn g7_where_a_connection_tells_nothing_the_keep_alive_times_do() {
    let silent: fn(u64) -> Option<String> = |_| Some("2026-11-23T12:00:00Z".to_owned());
    let lives: fn(u64) -> Option<String> =
        |second| Some(format!("2026-11-23T12:{:02}:{:02}Z", second / 60, second % 60));
    let behind_a_mesh = |heard| settled_beside(Mesh, heard, ask(1, Cause::Sigterm));
    assert_eq!(behind_a_mesh(silent).await, (Verdict::Confirmed, 1));
    assert_eq!(behind_a_mesh(lives).await, (Verdict::Superseded, 0));
    assert_eq!(behind_a_mesh(|_| None).await, (Verdict::Queued, 0), "it stays in the spool");
}

#[tokio::test(start_paused = true)]
async fn g7_a_judged_predecessor_is_signed_off_behind_a_mesh_only_while_its_row_is_as_it_was() {
    let silent = |_| Some("2026-11-23T12:00:00Z".to_owned());
    let behind_a_mesh = |read| settled_as_read(Mesh, silent, predecessors(true), read);
    let (verdict, attempts, took) = behind_a_mesh((Freshness::Fresh, BEFORE)).await;
    assert_eq!((verdict, attempts), (Verdict::Confirmed, 1));
    assert!(took < Duration::from_secs(10), "it was watched before it was asked: {took:?}");
    let (verdict, attempts, _) = behind_a_mesh((Freshness::Fresh, "2026-11-23T12:00:05Z")).await;
    assert_eq!((verdict, attempts), (Verdict::Contested, 0));
    let (verdict, attempts, _) = behind_a_mesh((Freshness::Within30s, BEFORE)).await;
    assert_eq!((verdict, attempts), (Verdict::Queued, 0), "nothing tells whether it lives");
    // A manager before v2.3.1: a keep-alive doesn't write the row, so that it stands still says nothing.
    let (verdict, attempts, _) =
        settled_as_read(Mesh, |_| None, predecessors(true), (Freshness::Fresh, BEFORE)).await;
    assert_eq!((verdict, attempts), (Verdict::Queued, 0));
}
