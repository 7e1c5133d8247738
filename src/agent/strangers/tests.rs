use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use tokio::sync::watch;

use super::*;
use crate::{
    agent::{arrivals::Arrivals, backlog::Backlog, clock::Clock, disk::Disk, metrics::Metrics},
    manager::{
        AttemptOptions, Contact, Freshness, HoldStart, Listed, Outcome, Row, RowRead, RowState, State,
    },
    net::{Probe, Prober, Reach},
    spool::{
        Holder, Limits, Managers, Spool,
        record::{Cause, What},
        scan,
    },
};

/// A manager with one row.
struct OneRow {
    row: Mutex<Row>,
    answer: Outcome,
    answers_probes: bool,
}

#[async_trait]
impl Manager for OneRow {
    async fn sign_off(&self, key: &SchedulerKey, _: AttemptOptions) -> Outcome {
        let mut row = self.row.lock().unwrap();
        if !row.is(key) {
            return Outcome::Absent;
        }
        if self.answer == Outcome::Confirmed {
            row.state = State::Inactive;
        }
        self.answer.clone()
    }
    async fn hold(&self, _: &SchedulerKey) -> Result<HoldStart, Failure> {
        Ok(HoldStart::Absent)
    }
    async fn read_row(&self, _: &SchedulerKey) -> Result<RowRead, Failure> {
        let state = match (&self.answer, self.row.lock().unwrap().state) {
            (Outcome::Absent, _) => RowState::Absent,
            (_, State::Active) => RowState::Active,
            (_, State::Inactive) => RowState::Inactive,
        };
        Ok(RowRead { state, freshness: Freshness::Fresh, registered: None, updated: None })
    }
    async fn list(&self, _: &Filter) -> Result<Listed, Failure> {
        Ok(Listed { rows: vec![self.row.lock().unwrap().clone()], freshness: Freshness::Fresh })
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

/// Its scheduler, as it is reached.
struct Scheduler {
    answers: bool,
}

#[async_trait]
impl Reach for Scheduler {
    async fn probe(&self, address: SocketAddr, _: Duration) -> Probe {
        if self.answers && address.ip() == key(1).ip.get() {
            Probe::Scheduler
        } else {
            Probe::Nobody("connection refused".into())
        }
    }
}

fn key(n: u64) -> SchedulerKey {
    SchedulerKey::new(1.try_into().unwrap(), format!("s-{n}").parse().unwrap(), "10.0.0.1".parse().unwrap())
}

/// One for a manager that goes by another name, or of a release that didn't say it.
fn ask(n: u64, manager: Option<&str>) -> Record {
    Record {
        id: RecordId(format!("{n:016x}")),
        key: key(n),
        what: What::SignOff { cause: Cause::Sigterm, drain_until: None },
        address: Some(([10, 0, 0, 1], 8002).into()),
        listed: true,
        row_updated: None,
        registered: None,
        at: n,
        pod: None,
        managers: Managers::of(manager.map(|name| format!("grpc://{name}:65003"))),
    }
}

/// A manager whose one row is that of the first key.
fn manager() -> OneRow {
    let row = Row {
        id: 1,
        hostname: "S-1".into(),
        ip: "10.0.0.1".into(),
        port: 8002,
        state: State::Active,
        cluster_id: 1,
        last_keep_alive_at: None,
        keep_alive_interval: None,
        created_at: None,
        updated_at: None,
    };
    OneRow { row: Mutex::new(row), answer: Outcome::Confirmed, answers_probes: false }
}

/// Tries an ask that lies on a spool, at this manager. Answers whether it is settled, and what was left of it if not.
async fn tried(manager: OneRow, ask: Record) -> (bool, Option<NotSettled>) {
    tried_telling(manager, ask, mpsc::unbounded_channel().0).await
}

/// The same; `heirlooms` hears of it.
async fn tried_telling(
    manager: OneRow,
    ask: Record,
    heirlooms: mpsc::UnboundedSender<Heirloom>,
) -> (bool, Option<NotSettled>) {
    let dir = tempfile::tempdir().unwrap();
    let theirs = Holder { managers: ask.managers.clone(), ..Holder::default() };
    Spool::open(dir.path(), Limits::default()).unwrap().held_by(theirs).write_ask(&ask).unwrap();
    let at = dir.path().to_owned();
    let ours = Holder { managers: Managers::of(["grpc://here:65003".to_owned()]), ports: vec![8002] };
    let open = move || Ok(Spool::open(&at, Limits::default())?.held_by(ours.clone()));
    let (disk, _reports) =
        Disk::start_on_a_task(dir.path().to_owned(), Arrivals::of_the_kernel(), || async {}, || (), open);
    let metrics = Metrics::new();
    let backlog = Backlog::new(metrics.clone());
    let prober = Arc::new(Prober::new(Scheduler { answers: manager.answers_probes }));
    let replay = Replay::new(Arc::new(manager), prober, disk.clone(), metrics, backlog, Clock::start());
    let tried = try_them(replay, vec![ask.clone()], heirlooms).await;
    disk.flush().await;
    let found = tried.iter().find(|(id, _)| *id == ask.id).map(|(_, left)| *left);
    let left = scan(dir.path()).unwrap().asks;
    assert!(left.iter().all(|entry| !entry.locked), "nothing is held");
    (left.is_empty(), found)
}

#[tokio::test(start_paused = true)]
async fn g1_an_ask_for_a_manager_that_goes_by_another_name_now_is_settled_where_its_row_is_shown() {
    for named in [Some("before"), None] {
        assert_eq!(tried(manager(), ask(1, named)).await, (true, None));
        // One that a process before this one signed off, and had not settled yet.
        let inactive = manager();
        inactive.row.lock().unwrap().state = State::Inactive;
        assert_eq!(tried(inactive, ask(1, named)).await, (true, None));
    }
}

#[tokio::test(start_paused = true)]
async fn g5_an_ask_whose_row_this_manager_does_not_show_is_left_as_it_is() {
    // Another key; another Dragonfly's scheduler on the same node.
    let other_port = Record { address: Some(([10, 0, 0, 1], 9002).into()), ..ask(1, Some("another")) };
    for (manager, ask) in
        [(manager(), ask(2, Some("another"))), (manager(), ask(2, None)), (manager(), other_port)]
    {
        assert_eq!(tried(manager, ask).await, (false, Some(NotSettled::Hidden)));
    }
}

#[tokio::test(start_paused = true)]
async fn g5_an_ask_for_another_manager_is_settled_by_nothing_but_a_confirmation() {
    let lives = OneRow { answers_probes: true, ..manager() };
    let absent = OneRow { answer: Outcome::Absent, ..manager() };
    let fails = OneRow { answer: Outcome::Failed(Failure::new("refused")), ..manager() };
    for manager in [lives, absent, fails] {
        assert_eq!(tried(manager, ask(1, None)).await, (false, Some(NotSettled::Hindered)));
    }
}

#[tokio::test(start_paused = true)]
async fn g7_a_predecessor_of_another_s_is_tried_once_in_a_process_s_life() {
    let fails = OneRow { answer: Outcome::Unknown(Failure::new("cut")), ..manager() };
    let what = What::SignOff { cause: Cause::Predecessor, drain_until: None };
    assert_eq!(tried(fails, Record { what, ..ask(1, None) }).await, (false, Some(NotSettled::ForGood)));
}

#[tokio::test(start_paused = true)]
async fn g5_a_predecessor_of_another_s_is_settled_by_no_read() {
    // Its row is inactive here, and each attempt fails.
    let inactive = OneRow { answer: Outcome::Failed(Failure::new("refused")), ..manager() };
    inactive.row.lock().unwrap().state = State::Inactive;
    let what = What::SignOff { cause: Cause::Predecessor, drain_until: None };
    assert_eq!(tried(inactive, Record { what, ..ask(1, None) }).await, (false, Some(NotSettled::ForGood)));
}

#[tokio::test(start_paused = true)]
async fn g7_succession_hears_of_the_predecessors_that_are_tried_for_others() {
    let what = What::SignOff { cause: Cause::Predecessor, drain_until: None };
    // Its row is active, and whether an attempt of before was applied can't be told; or it is inactive.
    for (state, told) in [(State::Active, Verdict::Contested), (State::Inactive, Verdict::Confirmed)] {
        let (heirlooms, mut heard) = mpsc::unbounded_channel();
        let manager = manager();
        manager.row.lock().unwrap().state = state;
        tried_telling(manager, Record { what: what.clone(), ..ask(1, None) }, heirlooms).await;
        assert!(matches!(heard.try_recv(), Ok(Heirloom::Taken(taken)) if taken == key(1)));
        assert!(
            matches!(heard.try_recv(), Ok(Heirloom::Settled(of, verdict)) if of == key(1) && verdict == told)
        );
    }
}

#[test]
fn one_is_due_again_after_a_while_and_one_of_the_own_key_never() {
    let mut strangers = Strangers::default();
    let found = [ask(1, None), ask(2, Some("another"))];
    let at = |secs| Moment(Duration::from_secs(secs));
    let due = |strangers: &mut Strangers, now| strangers.due(&found, &key(2), at(now));
    assert_eq!(due(&mut strangers, 0), [found[0].clone()]);
    let mut now = 0;
    // Something stood in the way; its row was not shown.
    for (left, alone) in [
        (NotSettled::Hindered, 60),
        (NotSettled::Hindered, 120),
        (NotSettled::Hidden, 600),
        (NotSettled::Hindered, 60),
    ] {
        strangers.tried(vec![(found[0].id.clone(), left)], at(now));
        assert_eq!(due(&mut strangers, now + alone - 1), []);
        now += alone;
        assert_eq!(due(&mut strangers, now), [found[0].clone()]);
    }
    // What is gone is forgotten, and what is not to be tried again isn't, though somebody else had it meanwhile.
    for (left, again) in [(NotSettled::Hidden, true), (NotSettled::ForGood, false)] {
        strangers.tried(vec![(found[0].id.clone(), left)], at(now));
        assert_eq!(strangers.due(&[], &key(2), at(now)), []);
        assert_eq!(!due(&mut strangers, now).is_empty(), again, "{left:?}");
    }
    assert_eq!(due(&mut strangers, now + 1_000_000), []);
}
