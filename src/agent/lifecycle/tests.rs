//! The core, one situation at a time. Time is a number here.

use super::{super::attempts::AttemptId, *};
use crate::{
    exit::Exit,
    identity::Repair,
    manager::{Failure, Outcome, Registered, RowRead, RowState},
    spool::{
        Managers,
        record::{Cause, Kind, Record, WallMillis, What},
    },
};

mod model;

const WALL: WallMillis = 1_800_000_000_000;

fn config(freshness: Freshness) -> Config {
    Config {
        key: SchedulerKey::new(
            1.try_into().unwrap(),
            "sched-0".parse().unwrap(),
            "10.0.0.1".parse().unwrap(),
        ),
        advertised: Some("10.0.0.1:8002".parse().unwrap()),
        grace: Duration::from_secs(30),
        interval: Duration::from_secs(5),
        repair: Repair::On,
        follows: true,
        in_question: false,
        freshness,
        pod: Some("sched-0".into()),
        run: 7,
    }
}

fn now_at(secs: u64) -> Now {
    let at = Moment(Duration::from_secs(secs));
    Now { at, came: at, wall: WALL, roll: u32::MAX }
}

/// A lifecycle with a clock and a disk that obeys.
struct Bench {
    core: Lifecycle,
    at: Duration,
    wall: WallMillis,
    /// All effects so far, those of the last step included.
    all: Vec<Effect>,
    disk_works: bool,
    /// The scheduler's configuration names the key that it always named.
    is_identified: bool,
    /// How long a write takes.
    disk_takes: Duration,
}

impl Bench {
    fn new(freshness: Freshness, left: Vec<(Kind, Record)>) -> Self {
        let now = now_at(100);
        let mut core = Lifecycle::new(config(freshness), now.at);
        let all = core.step(Event::Found { left, all: true }, now);
        Self {
            core,
            at: now.at.0,
            wall: WALL,
            all,
            disk_works: true,
            is_identified: true,
            disk_takes: Duration::ZERO,
        }
    }

    fn fresh() -> Self {
        Self::new(Freshness::Fresh, Vec::new())
    }

    /// One that has settled in: serving, listed, its row read active.
    fn serving() -> Self {
        let mut bench = Self::fresh();
        bench.step(serving());
        bench.step(Event::Identity { listed: true });
        bench.read(RowState::Active);
        bench
    }

    fn now(&self) -> Now {
        Now { at: Moment(self.at), came: Moment(self.at), wall: self.wall, roll: u32::MAX }
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = self.core.step(event, self.now());
        let mut at = 0;
        while at < effects.len() {
            let answer = match &effects[at] {
                Effect::Persist(record) => {
                    self.at += self.disk_takes;
                    Some(Event::Written { ask: record.id.clone(), on_disk: self.disk_works })
                }
                Effect::Identify { .. } if self.is_identified => {
                    Some(Event::Identified { in_question: false })
                }
                _ => None,
            };
            if let Some(event) = answer {
                let more = self.core.step(event, self.now());
                effects.extend(more);
            }
            at += 1;
        }
        self.all.extend(effects.clone());
        effects
    }

    fn after(&mut self, time: Duration) -> Vec<Effect> {
        self.at += time;
        self.wall += time.as_millis() as u64;
        self.step(Event::Tick)
    }

    fn secs(&mut self, secs: u64) -> Vec<Effect> {
        self.after(Duration::from_secs(secs))
    }

    fn read(&mut self, state: RowState) -> Vec<Effect> {
        let freshness = self.core.freshness;
        let read = Ok(RowRead { state, freshness, registered: None, updated: None });
        self.step(Event::RowRead { asked: Moment(self.at), read })
    }

    fn end(&mut self, attempt: AttemptId, outcome: Outcome) -> Vec<Effect> {
        self.step(Event::Ended { attempt, outcome })
    }
}

fn attempt(effects: &[Effect]) -> Option<AttemptId> {
    effects.iter().find_map(|effect| match effect {
        Effect::Attempt { id, .. } | Effect::Release { id, .. } => Some(*id),
        _ => None,
    })
}

fn settled(effects: &[Effect]) -> Option<Verdict> {
    effects.iter().find_map(|effect| match effect {
        Effect::Notice(Notice::Settled { verdict, .. }) => Some(*verdict),
        _ => None,
    })
}

fn answered(effects: &[Effect]) -> Option<Verdict> {
    effects.iter().find_map(|effect| match effect {
        Effect::Answer(_, answer) => Some(answer.verdict),
        _ => None,
    })
}

fn exited(effects: &[Effect]) -> Option<Exit> {
    effects.iter().find_map(|effect| match effect {
        Effect::Exit(exit) => Some(*exit),
        _ => None,
    })
}

fn watched() -> SocketAddr {
    "127.0.0.1:8002".parse().unwrap()
}

fn serving() -> Event {
    Event::Scheduler(Sight::Serving(watched()))
}

fn refused() -> Event {
    Event::Scheduler(Sight::Refused(vec![watched()]))
}

fn failed() -> Outcome {
    Outcome::Failed(Failure::new("connection refused"))
}

fn unknown() -> Outcome {
    Outcome::Unknown(Failure::new("no answer"))
}

fn ask_of(drain_until: Option<u64>) -> (Kind, Record) {
    let mut bench = Bench::fresh();
    // Another process's.
    bench.core.config.run = 6;
    let what = What::SignOff { cause: Cause::Sigterm, drain_until };
    let now = bench.now();
    (Kind::Ask, on_disk(bench.core.record(what, now)))
}

/// As the spool writes it: with its writer's manager.
fn on_disk(record: Record) -> Record {
    Record { managers: Managers::of(["grpc://manager:65003".to_owned()]), ..record }
}

fn mark_of(what: What) -> (Kind, Record) {
    let mut bench = Bench::fresh();
    bench.core.served_at.push(watched());
    let now = bench.now();
    (Kind::Mark, on_disk(bench.core.record(what, now)))
}

#[test]
fn g1_a_scheduler_that_goes_down_is_signed_off_at_once_and_the_ask_is_persisted_first() {
    let mut bench = Bench::serving();
    let effects = bench.step(refused());
    let persist = effects.iter().position(|effect| matches!(effect, Effect::Persist(_))).unwrap();
    let tried = effects.iter().position(|effect| matches!(effect, Effect::Attempt { .. })).unwrap();
    assert!(persist < tried, "{effects:?}");
    let effects = bench.end(attempt(&effects).unwrap(), Outcome::Confirmed);
    assert_eq!(settled(&effects), Some(Verdict::Confirmed));
}

#[test]
fn g3_while_the_shell_waits_for_the_disk_no_attempt_is_silent() {
    let hedged =
        |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Attempt { hedge: true, .. }));
    let mut bench = Bench::serving();
    bench.disk_takes = Duration::from_millis(500);
    let effects = bench.step(refused());
    assert!(attempt(&effects).is_some() && !hedged(&effects), "it is only begun now: {effects:?}");
    assert!(!hedged(&bench.after(Duration::from_millis(499))), "and has its time");
    // One that is under way can't be heard either, while another ask is written.
    let effects = bench.step(Event::PreStop { hook: 1, wait: None });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Persist(_))), "{effects:?}");
    assert!(!hedged(&effects), "{effects:?}");
    assert!(hedged(&bench.after(Duration::from_millis(1))));
}

#[test]
fn g2_a_refused_address_that_never_served_is_not_down() {
    let mut bench = Bench::fresh();
    for _ in 0..100 {
        bench.step(refused());
        bench.secs(10);
    }
    assert_eq!(attempt(&bench.all), None);
    assert_eq!(bench.core.target(Moment(bench.at)), Target::Leave);
}

#[test]
fn g2_a_seen_mark_for_another_address_proves_nothing() {
    let mut mark = mark_of(What::Seen);
    mark.1.address = Some("127.0.0.1:9999".parse().unwrap());
    let mut bench = Bench::new(Freshness::Fresh, vec![mark]);
    let effects = bench.step(refused());
    assert_eq!(attempt(&effects), None);
    let mut bench = Bench::new(Freshness::Fresh, vec![mark_of(What::Seen)]);
    let effects = bench.step(refused());
    assert!(attempt(&effects).is_some());
}

#[test]
fn g2_a_scheduler_is_down_only_where_it_has_served() {
    let other: SocketAddr = "127.0.0.1:9999".parse().unwrap();
    let mut bench = Bench::serving();
    let effects = bench.step(Event::Scheduler(Sight::Refused(vec![other])));
    assert_eq!(attempt(&effects), None, "its name has another address now");
    let effects = bench.step(Event::Scheduler(Sight::Refused(vec![other, watched()])));
    assert!(attempt(&effects).is_some());
}

#[test]
fn a_seen_mark_that_comes_late_makes_a_refusing_scheduler_down() {
    let mut bench = Bench::fresh();
    assert_eq!(attempt(&bench.step(refused())), None);
    let effects = bench.step(Event::Found { left: vec![mark_of(What::Seen)], all: true });
    assert!(attempt(&effects).is_some());
}

#[test]
fn g2_a_mark_that_is_told_of_late_is_older_than_what_was_seen_since() {
    let mut bench = Bench::fresh();
    bench.step(serving());
    let before: Vec<SocketAddr> = (1..=5).map(|n| format!("127.0.0.{n}:9999").parse().unwrap()).collect();
    let marks = before.iter().map(|at| {
        let (kind, mark) = mark_of(What::Seen);
        (kind, Record { address: Some(*at), ..mark })
    });
    let mut marks: Vec<_> = marks.collect();
    // And where it serves now.
    marks.push(mark_of(What::Seen));
    bench.step(Event::Found { left: marks, all: true });
    assert_eq!(bench.core.served_at, [&before[2..], &[watched()]].concat());
    // It is where it was: no new mark, and it is down where it refuses.
    assert!(!bench.step(serving()).iter().any(|effect| matches!(effect, Effect::Mark(_))));
    assert!(attempt(&bench.step(refused())).is_some());
}

#[test]
fn g5_an_absent_row_says_nothing_of_an_ask_that_names_no_manager() {
    let (kind, said) = ask_of(None);
    let unsaid = Record { managers: Managers::default(), listed: true, ..said.clone() };
    for (left, verdict) in [(said, Some(Verdict::Absent)), (unsaid, None)] {
        let left = Record { listed: true, ..left };
        let mut bench = Bench::new(Freshness::Fresh, vec![(kind, left), mark_of(What::Seen)]);
        // A minute for what the agent before may have left.
        bench.secs(61);
        let id = attempt(&bench.step(refused())).unwrap();
        let effects = bench.end(id, Outcome::Absent);
        assert_eq!(settled(&effects), verdict);
    }
}

#[test]
fn g5_a_mark_that_names_no_manager_does_not_say_that_this_one_lists_the_key() {
    let (kind, mark) = mark_of(What::Seen);
    for (managers, verdict) in [(mark.managers.clone(), Some(Verdict::Absent)), (Managers::default(), None)] {
        let mark = Record { managers, listed: true, ..mark.clone() };
        let mut bench = Bench::new(Freshness::Fresh, vec![(kind, mark)]);
        let id = attempt(&bench.step(refused())).unwrap();
        assert_eq!(settled(&bench.end(id, Outcome::Absent)), verdict);
    }
}

#[test]
fn g5_an_ask_that_names_no_manager_stays_though_the_row_was_listed_here() {
    let (kind, ask) = ask_of(None);
    let unsaid = Record { managers: Managers::default(), listed: true, ..ask };
    let mut bench = Bench::new(Freshness::Fresh, vec![(kind, unsaid.clone()), mark_of(What::Seen)]);
    bench.step(Event::Identity { listed: true });
    bench.read(RowState::Inactive);
    assert!(bench.core.listed());
    bench.secs(61);
    let id = attempt(&bench.step(refused())).unwrap();
    // Its own ask is settled by that, and the one that was found isn't.
    bench.end(id, Outcome::Absent);
    let left: Vec<_> = bench.core.pending().iter().map(|ask| ask.record.id.clone()).collect();
    assert_eq!(left, std::slice::from_ref(&unsaid.id));
    assert_eq!(attempt(&bench.step(Event::Tick)), None, "not in a tight loop");
    // A row that is found and made inactive settles it.
    bench.secs(60);
    let id = attempt(&bench.all).unwrap();
    let id = (id..id + 9).find(|id| {
        bench.core.attempts.covers(&unsaid.id) && settled(&bench.end(*id, Outcome::Confirmed)).is_some()
    });
    assert!(id.is_some() && bench.core.pending().is_empty(), "{:?}", bench.core.pending());
}

/// How an ask that was found ends while the manager answers each attempt that there is no such row, for so long.
fn never_listed(ask: Record, marks: Vec<(Kind, Record)>, secs: u64) -> Option<Verdict> {
    let mut bench = Bench::new(Freshness::Fresh, [vec![(Kind::Ask, ask)], marks].concat());
    bench.step(refused());
    let mut effects = std::mem::take(&mut bench.all);
    for _ in 0..secs {
        while let Some(id) = attempt(&effects) {
            effects = bench.end(id, Outcome::Absent);
            if let Some(verdict) = settled(&effects) {
                return Some(verdict);
            }
        }
        effects = bench.secs(1);
    }
    None
}

#[test]
fn g5_what_was_asked_for_a_scheduler_that_never_served_is_settled_once_its_manager_has_denied_the_row_for_a_minute()
 {
    let (_, ask) = ask_of(None);
    let ask = Record { listed: false, ..ask };
    assert_eq!(never_listed(ask.clone(), Vec::new(), 55), None);
    assert_eq!(never_listed(ask.clone(), Vec::new(), 200), Some(Verdict::NeverRegistered));
    // It served; or nobody knows which manager was meant.
    let (kind, seen) = mark_of(What::Seen);
    let seen = Record { listed: false, ..seen };
    assert_eq!(never_listed(ask.clone(), vec![(kind, seen)], 400), None);
    let unsaid = Record { managers: Managers::default(), ..ask };
    assert_eq!(never_listed(unsaid, Vec::new(), 400), None);
}

#[test]
fn g2_an_unclear_scheduler_is_left_alone_until_sigterm() {
    let mut bench = Bench::fresh();
    bench.step(Event::Scheduler(Sight::Unclear));
    for _ in 0..100 {
        bench.secs(10);
    }
    assert_eq!(attempt(&bench.all), None);
    let effects = bench.step(Event::Terminate);
    let id = attempt(&effects).expect("never seen serving: nothing to wait for");
    assert_eq!(exited(&bench.end(id, Outcome::Confirmed)), Some(Exit::Done));
}

#[test]
fn g4_after_sigterm_a_serving_scheduler_is_waited_for_until_the_reserve_and_then_signed_off() {
    let mut bench = Bench::serving();
    let effects = bench.step(Event::Terminate);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Persist(_))));
    assert_eq!(attempt(&effects), None);
    assert_eq!(attempt(&bench.after(Duration::from_millis(28_900))), None);
    let effects = bench.after(Duration::from_millis(100));
    let id = attempt(&effects).expect("the reserve");
    let effects = bench.end(id, Outcome::Confirmed);
    assert_eq!(exited(&effects), Some(Exit::Done));
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Settle { mark: true, .. })),
        "it leaves a mark"
    );
}

#[test]
fn g4_after_sigterm_the_schedulers_going_down_ends_it_with_one_attempt() {
    let mut bench = Bench::serving();
    bench.step(Event::Terminate);
    bench.after(Duration::from_millis(7));
    let effects = bench.step(refused());
    let effects = bench.end(attempt(&effects).unwrap(), Outcome::Confirmed);
    assert_eq!(exited(&effects), Some(Exit::Done));
    assert_eq!(bench.all.iter().filter(|effect| matches!(effect, Effect::Attempt { .. })).count(), 1);
    assert_eq!(bench.all.iter().filter(|effect| matches!(effect, Effect::Persist(_))).count(), 1);
}

#[test]
fn g1_sigterm_asks_although_an_attempt_was_confirmed_after_the_scheduler_came_back() {
    let mut bench = Bench::serving();
    let id = attempt(&bench.step(refused())).unwrap();
    bench.step(serving());
    bench.end(id, Outcome::Confirmed);
    let effects = bench.step(Event::Terminate);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Persist(_))), "{effects:?}");
}

#[test]
fn g4_out_of_time_the_ask_stays_and_the_exit_says_queued() {
    let mut bench = Bench::serving();
    bench.step(Event::Terminate);
    let mut effects = bench.step(refused());
    let began = bench.at;
    while exited(&effects).is_none() {
        if let Some(id) = attempt(&effects) {
            effects = bench.end(id, failed());
        } else {
            effects = bench.after(Duration::from_millis(10));
        }
        assert!(bench.at - began < Duration::from_secs(30), "exit is called by the deadline");
    }
    assert_eq!(exited(&effects), Some(Exit::Queued));
    assert_eq!(settled(&bench.all), None);
    assert!(!bench.all.iter().any(|effect| matches!(effect, Effect::Settle { .. })));
    let attempts = bench.all.iter().filter(|effect| matches!(effect, Effect::Attempt { .. })).count();
    assert!(attempts >= 29, "the cap is one second within the grace: {attempts}");
}

#[test]
fn g1_a_second_signal_exits_at_once_and_keeps_the_ask() {
    let mut bench = Bench::serving();
    bench.step(Event::Terminate);
    assert_eq!(exited(&bench.step(Event::Terminate)), Some(Exit::Queued));
    assert!(!bench.all.iter().any(|effect| matches!(effect, Effect::Settle { .. })));
}

#[test]
fn g6_a_confirmation_beside_another_attempt_settles_nothing_until_the_row_was_read() {
    let mut bench = Bench::serving();
    let first = attempt(&bench.step(refused())).unwrap();
    let hedge = attempt(&bench.after(Duration::from_millis(500))).expect("a silent attempt is hedged");
    assert_eq!(attempt(&bench.secs(2)), None, "at most two are open");
    let effects = bench.end(hedge, Outcome::Confirmed);
    assert_eq!(settled(&effects), None);
    assert_eq!(attempt(&bench.secs(2)), None, "once one is confirmed, none is begun");
    assert_eq!(settled(&bench.read(RowState::Inactive)), None, "the first is still open");
    bench.end(first, unknown());
    bench.secs(59);
    assert_eq!(settled(&bench.read(RowState::Inactive)), None, "it may still be applied");
    bench.secs(2);
    assert_eq!(settled(&bench.read(RowState::Inactive)), Some(Verdict::Confirmed));
}

#[test]
fn g6_an_ask_made_while_a_confirmation_is_watched_gets_an_attempt_of_its_own() {
    // An agent restarted just before its pod is deleted: its predecessor's attempts may still be applied for a minute.
    let mut bench = Bench::new(Freshness::Fresh, vec![mark_of(What::Seen), ask_of(None)]);
    let effects = bench.step(refused());
    let first = attempt(&effects).expect("replayed");
    bench.end(first, Outcome::Confirmed);
    assert_eq!(attempt(&bench.secs(1)), None, "the one that is covered only waits");
    let effects = bench.step(Event::Terminate);
    let second = attempt(&effects).expect("the new one does not");
    assert_eq!(exited(&bench.end(second, Outcome::Confirmed)), Some(Exit::Done));
}

#[test]
fn g3_beside_a_silent_attempt_others_are_made_one_at_a_time_and_never_in_a_tight_loop() {
    let mut bench = Bench::serving();
    attempt(&bench.step(refused())).expect("the first, which stays silent");
    let (mut made, began) = (0, bench.at);
    while bench.at - began < Duration::from_secs(20) {
        let now = Moment(bench.at);
        let wake = bench.core.wake_at(now).unwrap() - now;
        if let Some(id) = attempt(&bench.after(wake)) {
            made += 1;
            bench.end(id, failed());
        }
    }
    assert!((15..=30).contains(&made), "{made} in 20 s");
}

#[test]
fn g3_a_row_found_active_after_the_watch_is_signed_off_again() {
    let mut bench = Bench::serving();
    let first = attempt(&bench.step(refused())).unwrap();
    let hedge = attempt(&bench.after(Duration::from_millis(500))).unwrap();
    bench.end(hedge, Outcome::Confirmed);
    bench.end(first, unknown());
    bench.secs(61);
    let effects = bench.read(RowState::Active);
    assert_eq!(settled(&effects), None);
    assert!(attempt(&effects).is_some());
}

#[test]
fn g1_an_ask_made_after_the_attempt_began_is_not_settled_by_it() {
    let mut bench = Bench::serving();
    let first = attempt(&bench.step(refused())).unwrap();
    bench.step(Event::PreStop { hook: 1, wait: None });
    let effects = bench.end(first, Outcome::Confirmed);
    assert_eq!(bench.core.pending().len(), 1, "the later one is left");
    let second = attempt(&effects).expect("and is tried");
    assert_eq!(answered(&effects), None);
    assert_eq!(answered(&bench.end(second, Outcome::Confirmed)), Some(Verdict::Confirmed));
    assert!(bench.core.pending().is_empty());
}

#[test]
fn g6_an_ask_that_no_attempt_covers_yet_is_not_doubled() {
    let mut bench = Bench::serving();
    let mut effects = bench.step(refused());
    effects = bench.end(attempt(&effects).unwrap(), failed());
    assert_eq!(attempt(&effects), None);
    for _ in 0..20 {
        bench.step(Event::Scheduler(Sight::Unclear));
        bench.step(refused());
    }
    assert_eq!(bench.core.pending().len(), 1);
}

#[test]
fn g5_record_not_found_settles_only_a_key_that_was_seen() {
    let mut bench = Bench::serving();
    let id = attempt(&bench.step(refused())).unwrap();
    assert_eq!(settled(&bench.end(id, Outcome::Absent)), Some(Verdict::Absent));

    let mut bench = Bench::fresh();
    bench.step(serving());
    let id = attempt(&bench.step(refused())).unwrap();
    let effects = bench.end(id, Outcome::Absent);
    assert_eq!(settled(&effects), None);
    assert!(effects.contains(&Effect::Notice(Notice::IdentityUnknown)));
    assert_eq!(bench.core.pending().len(), 1);
}

#[test]
fn a_key_that_is_not_listed_35_s_after_its_scheduler_serves_is_said() {
    let mut bench = Bench::fresh();
    let mut effects = bench.step(serving());
    let began = bench.at;
    loop {
        if effects.contains(&Effect::CheckIdentity) {
            effects = bench.step(Event::Identity { listed: false });
        } else {
            effects = bench.secs(1);
        }
        if effects.contains(&Effect::Notice(Notice::IdentityUnknown)) {
            break;
        }
    }
    let after = bench.at - began;
    assert!((35..=41).contains(&after.as_secs()), "{after:?}");
}

#[test]
fn a_look_that_began_before_the_key_was_seen_says_nothing_against_it() {
    let mut bench = Bench::fresh();
    assert!(bench.step(serving()).contains(&Effect::CheckIdentity));
    bench.secs(40);
    bench.read(RowState::Active);
    let effects = bench.step(Event::Identity { listed: false });
    assert!(!effects.contains(&Effect::Notice(Notice::IdentityUnknown)), "{effects:?}");
    assert!(bench.core.listed() && !bench.core.key_unknown());
    assert!(!bench.secs(60).contains(&Effect::CheckIdentity));
}

#[test]
fn a_drain_signs_off_a_serving_scheduler_and_its_hook_hears_of_it() {
    let mut bench = Bench::serving();
    let effects = bench.step(Event::PreStop { hook: 1, wait: Some(Duration::from_secs(5)) });
    let effects = bench.end(attempt(&effects).unwrap(), Outcome::Confirmed);
    assert_eq!(answered(&effects), Some(Verdict::Confirmed));
    bench.secs(5);
    let effects = bench.read(RowState::Active);
    assert!(attempt(&effects).is_some(), "a reconnect that revives it is signed off again");
}

#[test]
fn g4_a_hook_whose_wait_is_over_hears_queued_and_the_agent_goes_on() {
    let mut bench = Bench::serving();
    let mut effects = bench.step(Event::PreStop { hook: 1, wait: Some(Duration::from_secs(5)) });
    effects = bench.end(attempt(&effects).unwrap(), failed());
    assert_eq!(answered(&effects), None);
    let effects = bench.secs(5);
    assert_eq!(answered(&effects), Some(Verdict::Queued));
    assert!(attempt(&effects).is_some());
}

#[test]
fn g2_a_pre_stop_that_no_stop_follows_is_over_five_seconds_after_the_grace_and_the_row_restored() {
    let mut bench = Bench::serving();
    let effects = bench.step(Event::PreStop { hook: 1, wait: None });
    bench.end(attempt(&effects).unwrap(), Outcome::Confirmed);
    bench.secs(34);
    bench.read(RowState::Inactive);
    assert!(!bench.all.contains(&Effect::Hold));
    bench.secs(1);
    bench.secs(1);
    bench.read(RowState::Inactive);
    assert!(bench.all.contains(&Effect::Hold));
}

#[test]
fn g2_while_it_is_open_which_key_a_scheduler_registers_its_row_is_neither_given_back_nor_signed_off() {
    let mut bench = Bench::serving();
    bench.is_identified = false;
    let effects = bench.step(refused());
    bench.end(attempt(&effects).unwrap(), Outcome::Confirmed);
    let before = bench.all.len();
    assert!(bench.step(serving()).contains(&Effect::Identify { was_away: true }));
    for state in [RowState::Inactive, RowState::Active, RowState::Inactive] {
        bench.secs(60);
        bench.read(state);
    }
    let written =
        |effect: &Effect| matches!(effect, Effect::Hold | Effect::Attempt { .. } | Effect::Persist(_));
    assert!(!bench.all[before..].iter().any(written), "{:?}", &bench.all[before..]);
    // It goes away again: whichever it was, this row is nobody's now.
    bench.read(RowState::Active);
    assert!(attempt(&bench.step(refused())).is_some());
    // It is as it was, after all.
    bench.is_identified = true;
    bench.step(serving());
    bench.secs(20);
    assert!(bench.read(RowState::Inactive).contains(&Effect::Hold));
}

#[test]
fn g2_an_ask_that_is_pending_when_the_scheduler_comes_back_waits_until_it_is_known_which_key_it_registers() {
    let mut bench = Bench::serving();
    bench.is_identified = false;
    let effects = bench.step(refused());
    bench.end(attempt(&effects).unwrap(), failed());
    let before = bench.all.len();
    bench.step(serving());
    bench.secs(30);
    assert_eq!(bench.core.pending().len(), 1, "it is not superseded: the old row may be nobody's");
    assert_eq!(attempt(&bench.all[before..]), None);
    assert_eq!(settled(&bench.step(Event::Identified { in_question: false })), Some(Verdict::Superseded));
}

/// Restarted in place: signed off when it went down, and serving again a moment later.
fn restarted_in_place(freshness: Freshness) -> Bench {
    let mut bench = Bench::new(freshness, Vec::new());
    bench.step(serving());
    bench.step(Event::Identity { listed: true });
    bench.secs(100);
    bench.read(RowState::Active);
    let effects = bench.step(refused());
    bench.end(attempt(&effects).unwrap(), Outcome::Confirmed);
    bench.secs(1);
    bench.step(serving());
    bench
}

#[test]
fn g2_a_scheduler_that_came_back_sets_its_row_active_itself_and_is_not_held() {
    for freshness in [Freshness::Fresh, Freshness::Within30s] {
        let mut bench = restarted_in_place(freshness);
        let inactive = if freshness == Freshness::Fresh { RowState::Inactive } else { RowState::NotActive };
        // What was read before its own first message was due proves nothing.
        for _ in 0..9 {
            bench.secs(1);
            bench.read(inactive);
        }
        for _ in 0..120 {
            bench.secs(1);
            bench.read(RowState::Active);
        }
        assert!(!bench.all.contains(&Effect::Hold), "{freshness:?}: {:?}", bench.all);
        assert!(bench.all.contains(&Effect::DropMarks { signed_off: true }), "{freshness:?}");
        assert!(!bench.core.signed_off());
    }
}

#[test]
fn g2_a_scheduler_that_came_back_and_stays_inactive_is_held_once_a_read_proves_it() {
    for (freshness, secs) in [(Freshness::Fresh, 10), (Freshness::Within30s, 41)] {
        let mut bench = restarted_in_place(freshness);
        let inactive = if freshness == Freshness::Fresh { RowState::Inactive } else { RowState::NotActive };
        for _ in 0..secs - 1 {
            bench.secs(1);
            bench.read(inactive);
        }
        assert!(!bench.all.contains(&Effect::Hold), "{freshness:?}");
        assert!(
            bench.secs(1).contains(&Effect::ReadRow),
            "{freshness:?}: it is read when its message is due"
        );
        let effects = bench.read(inactive);
        assert!(effects.contains(&Effect::Hold), "{freshness:?}: {effects:?}");
        bench.step(Event::HoldOpened);
        assert_eq!(bench.core.held().map(|(_, why)| why), Some(HoldReason::OwnSignOff));
    }
}

#[test]
fn g2_a_liveness_restart_ends_the_drain() {
    let mut bench = Bench::serving();
    let effects = bench.step(Event::PreStop { hook: 1, wait: None });
    bench.end(attempt(&effects).unwrap(), Outcome::Confirmed);
    let effects = bench.step(refused());
    bench.end(attempt(&effects).unwrap(), Outcome::Confirmed);
    bench.secs(1);
    let effects = bench.step(serving());
    assert!(effects.contains(&Effect::Notice(Notice::Drain(false))), "{effects:?}");
    bench.secs(10);
    let effects = bench.read(RowState::Inactive);
    assert!(effects.contains(&Effect::Hold), "{effects:?}");
}

#[test]
fn g2_a_mark_of_a_scheduler_that_went_down_says_that_its_own_message_comes_or_has_come() {
    for freshness in [Freshness::Fresh, Freshness::Within30s] {
        let mark = mark_of(What::SignOff { cause: Cause::Down, drain_until: None });
        let mut bench = Bench::new(freshness, vec![mark_of(What::Seen), mark]);
        bench.step(serving());
        let inactive = if freshness == Freshness::Fresh { RowState::Inactive } else { RowState::NotActive };
        bench.read(inactive);
        bench.secs(9);
        bench.read(inactive);
        assert!(!bench.all.contains(&Effect::Hold), "{freshness:?}: {:?}", bench.all);
        bench.secs(32);
        assert!(bench.read(inactive).contains(&Effect::Hold), "{freshness:?}");
    }
}

#[test]
fn g2_over_grpc_alone_what_the_agent_caused_is_restored_without_a_look() {
    let mut bench = Bench::new(
        Freshness::Within30s,
        vec![mark_of(What::Seen), mark_of(What::SignOff { cause: Cause::Sigterm, drain_until: None })],
    );
    let effects = bench.step(serving());
    assert!(effects.contains(&Effect::Hold), "{effects:?}");
}

#[test]
fn g2_an_inherited_ask_is_superseded_by_a_serving_scheduler_and_leaves_its_mark() {
    let mut bench = Bench::new(Freshness::Fresh, vec![ask_of(None)]);
    assert_eq!(attempt(&bench.secs(1)), None, "nothing before the first look");
    let effects = bench.step(serving());
    assert_eq!(settled(&effects), Some(Verdict::Superseded));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Settle { mark: true, .. })));
    assert_eq!(attempt(&bench.all), None);
}

#[test]
fn g1_an_inherited_ask_of_a_scheduler_that_does_not_serve_is_replayed() {
    let mut bench = Bench::new(Freshness::Fresh, vec![ask_of(None)]);
    let effects = bench.step(refused());
    let id = attempt(&effects).expect("replayed");
    let effects = bench.end(id, Outcome::Confirmed);
    assert_eq!(settled(&effects), None, "the agent before may have left attempts open");
    bench.secs(61);
    assert_eq!(settled(&bench.read(RowState::Inactive)), Some(Verdict::Confirmed));
}

#[test]
fn g2_an_inherited_ask_is_not_replayed_while_nobody_has_looked_at_its_scheduler() {
    let (kind, mut record) = ask_of(None);
    record.address = Some("10.0.0.1:9999".parse().unwrap());
    let mut bench = Bench::new(Freshness::Fresh, vec![(kind, record)]);
    bench.step(refused());
    bench.secs(600);
    assert_eq!(attempt(&bench.all), None, "another address is configured now");
    let mut bench = Bench::new(Freshness::Fresh, vec![ask_of(None)]);
    bench.step(Event::Scheduler(Sight::Unclear));
    bench.secs(600);
    assert_eq!(attempt(&bench.all), None, "it may live");
    assert!(attempt(&bench.step(refused())).is_some());
}

#[test]
fn g2_a_hold_on_a_row_that_was_never_in_the_list_of_active_ones_is_renewed_once_at_most() {
    // A row without the schedule feature is in no such list, active or not: nobody is handed it. One that has it may have been
    // ended under the hold by an attempt that no record tells of any more.
    let mut bench = Bench::new(Freshness::Within30s, Vec::new());
    bench.step(serving());
    bench.step(Event::Identity { listed: true });
    bench.secs(60);
    assert!(bench.read(RowState::NotActive).contains(&Effect::Hold));
    bench.step(Event::HoldOpened);
    bench.secs(90);
    assert_eq!(attempt(&bench.read(RowState::NotActive)), None, "such an attempt may still be applied");
    bench.secs(1);
    let renewal = attempt(&bench.read(RowState::NotActive)).unwrap();
    assert!(bench.end(renewal, Outcome::Confirmed).contains(&Effect::Hold), "at once");
    bench.step(Event::HoldOpened);
    for _ in 0..20 {
        bench.secs(60);
        assert_eq!(
            attempt(&bench.read(RowState::NotActive)),
            None,
            "its half-close would end what may be right"
        );
    }
    bench.read(RowState::Active);
    bench.secs(60);
    assert!(attempt(&bench.read(RowState::NotActive)).is_some(), "this one was in it");
}

#[test]
fn g2_an_inherited_drain_is_known_and_one_too_far_ahead_is_over() {
    let mut bench = Bench::new(Freshness::Fresh, vec![ask_of(Some(WALL + 20_000))]);
    bench.step(serving());
    assert!(attempt(&bench.all).is_some());
    let mut bench = Bench::new(Freshness::Fresh, vec![ask_of(Some(WALL + 3_600_000))]);
    let effects = bench.step(serving());
    assert_eq!(settled(&effects), Some(Verdict::Superseded));
}

#[test]
fn g2_a_row_that_others_made_inactive_is_restored_two_intervals_after_the_scheduler_appeared() {
    let mut bench = Bench::serving();
    bench.secs(9);
    bench.read(RowState::Inactive);
    assert!(!bench.all.contains(&Effect::Hold));
    bench.secs(1);
    assert!(bench.read(RowState::Inactive).contains(&Effect::Hold));
    bench.step(Event::HoldOpened);
    bench.secs(1);
    assert!(bench.read(RowState::Active).contains(&Effect::Notice(Notice::Restored)));
}

#[test]
fn with_repair_report_an_unasked_restore_is_only_said() {
    let mut bench = Bench::serving();
    bench.core.config.repair = Repair::Report;
    bench.secs(60);
    let effects = bench.read(RowState::Inactive);
    assert!(effects.contains(&Effect::Notice(Notice::WouldRestore)), "{effects:?}");
    assert!(!bench.all.contains(&Effect::Hold));
}

#[test]
fn g6_a_held_row_is_signed_off_by_the_holds_half_close() {
    let mut bench = Bench::serving();
    bench.secs(60);
    bench.read(RowState::Inactive);
    bench.step(Event::HoldOpened);
    let effects = bench.step(refused());
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Release { .. })));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Attempt { .. })));
    assert_eq!(settled(&bench.end(attempt(&effects).unwrap(), Outcome::Confirmed)), Some(Verdict::Confirmed));
}

#[test]
fn g6_a_hold_is_renewed_by_closing_it_first() {
    let mut bench = Bench::serving();
    bench.secs(60);
    bench.read(RowState::Inactive);
    bench.step(Event::HoldOpened);
    bench.secs(1);
    bench.read(RowState::Active);
    bench.secs(60);
    let effects = bench.read(RowState::Inactive);
    let id = attempt(&effects).expect("closed");
    assert!(!effects.contains(&Effect::Hold), "{effects:?}");
    bench.secs(1);
    assert!(!bench.end(id, Outcome::Confirmed).contains(&Effect::Hold), "the row may be right now");
    let effects = bench.read(RowState::Inactive);
    assert!(effects.contains(&Effect::Hold), "{effects:?}");
}

#[test]
fn g3_a_late_application_under_a_scheduler_that_is_back_is_found_and_undone() {
    let mut bench = Bench::serving();
    let id = attempt(&bench.step(refused())).unwrap();
    bench.secs(1);
    let effects = bench.step(serving());
    assert_eq!(settled(&effects), Some(Verdict::Superseded));
    bench.end(id, unknown());
    let mut reads = 0;
    for _ in 0..20 {
        reads += usize::from(bench.secs(1).contains(&Effect::ReadRow));
        if bench.core.reading {
            bench.read(RowState::Active);
        }
    }
    assert!(reads >= 3, "{reads}");
    bench.secs(5);
    assert!(bench.read(RowState::Inactive).contains(&Effect::Hold));
}

#[test]
fn g1_a_disk_that_refuses_delays_no_attempt_and_is_asked_again() {
    let mut bench = Bench::serving();
    bench.disk_works = false;
    let effects = bench.step(Event::PreStop { hook: 1, wait: Some(Duration::from_secs(1)) });
    bench.end(attempt(&effects).unwrap(), failed());
    let effects = bench.secs(1);
    let on_disk = effects.iter().find_map(|effect| match effect {
        Effect::Answer(_, answer) => Some(answer.on_disk),
        _ => None,
    });
    assert_eq!(on_disk, Some(false));
    bench.disk_works = true;
    assert!(bench.secs(5).iter().any(|effect| matches!(effect, Effect::Persist(_))));
    assert!(bench.core.pending()[0].on_disk);
}

#[test]
fn g4_the_deadline_counts_from_the_first_of_the_ends_causes() {
    let mut bench = Bench::serving();
    bench.step(Event::PreStop { hook: 1, wait: None });
    bench.secs(10);
    bench.step(Event::Terminate);
    assert_eq!(bench.core.deadline().unwrap().0, bench.at + Duration::from_secs(20));
    let mut bench = Bench::serving();
    bench.step(refused());
    bench.secs(3600);
    bench.step(Event::Terminate);
    assert_eq!(
        bench.core.deadline().unwrap().0,
        bench.at + Duration::from_secs(30),
        "a crash of long ago is another end"
    );
}

#[test]
fn g4_the_grace_counts_from_when_a_signal_came_though_the_disk_was_waited_for_meanwhile() {
    let came = Moment(Duration::from_millis(99_500));
    for (event, deadline) in
        [(Event::Terminate, 30), (Event::PreStop { hook: 1, wait: None }, 30), (refused(), 30)]
    {
        let mut bench = Bench::serving();
        let now = Now { came, ..bench.now() };
        bench.core.step(event, now);
        assert_eq!(bench.core.deadline(), Some(came + Duration::from_secs(deadline)));
    }
    let mut bench = Bench::serving();
    let now = Now { came, ..bench.now() };
    bench.core.step(Event::PreStop { hook: 1, wait: Some(Duration::from_secs(5)) }, now);
    assert_eq!(bench.core.hooks[0].0.answer_by, came + Duration::from_secs(5));
}

#[test]
fn g8_a_grace_from_zero_up_leaves_a_sign_off_its_time_and_its_end_comes_before_a_kubelet_kills() {
    for grace in [0, 1, 2, 3, 4, 5, 30].map(Duration::from_secs) {
        let mut bench = Bench::serving();
        bench.core.config.grace = grace;
        bench.step(Event::Terminate);
        let [reserve, exit] = [bench.core.reserve_at(), bench.core.exit_at()];
        let deadline = bench.core.deadline().unwrap();
        assert_eq!(deadline.0 - bench.at, grace.max(Duration::from_secs(2)), "{grace:?}");
        assert!(reserve.0 - bench.at >= Duration::from_millis(1600), "{grace:?}: time for attempts");
        assert!(exit - reserve >= Duration::from_millis(250), "{grace:?}: time for the last attempt");
        assert!(exit < deadline, "{grace:?}");
        // A scheduler that serves on is signed off at the reserve, and then it ends.
        bench.at = reserve.0;
        let effects = bench.step(Event::Tick);
        assert!(effects.iter().any(|e| matches!(e, Effect::Attempt { .. })), "{grace:?}: {effects:?}");
        bench.at = exit.0;
        let effects = bench.step(Event::Tick);
        assert!(effects.contains(&Effect::Exit(Exit::Queued)), "{grace:?}: {effects:?}");
    }
}

#[test]
fn g4_a_pre_stop_in_the_grace_of_another_that_no_stop_followed_begins_the_end_by_itself() {
    let mut bench = Bench::serving();
    bench.step(Event::PreStop { hook: 1, wait: None });
    bench.secs(28);
    bench.step(Event::PreStop { hook: 2, wait: None });
    bench.secs(10);
    bench.step(Event::PreStop { hook: 3, wait: None });
    bench.secs(1);
    bench.step(Event::Terminate);
    assert_eq!(bench.core.deadline().unwrap().0, bench.at + Duration::from_secs(30 - 11));
}

#[test]
fn g1_a_hook_without_time_left_is_answered_once_its_ask_was_offered_to_the_disk() {
    for disk_works in [true, false] {
        let mut bench = Bench::serving();
        let effects = bench.step(Event::PreStop { hook: 1, wait: None });
        bench.end(attempt(&effects).unwrap(), Outcome::Confirmed);
        bench.after(Duration::from_millis(29_500));
        bench.disk_works = disk_works;
        let effects = bench.step(Event::PreStop { hook: 2, wait: None });
        let answer = effects.iter().find_map(|effect| match effect {
            Effect::Answer(2, answer) => Some(answer.clone()),
            _ => None,
        });
        assert_eq!(
            answer.map(|answer| (answer.verdict, answer.on_disk)),
            Some((Verdict::Queued, disk_works))
        );
    }
}

#[test]
fn g6_what_another_process_holds_of_this_keys_may_have_left_attempts() {
    for (all, verdict) in [(true, Some(Verdict::Confirmed)), (false, None)] {
        let mut core = Lifecycle::new(config(Freshness::Fresh), now_at(100).at);
        let first = core.step(Event::Found { left: vec![mark_of(What::Seen)], all }, now_at(100));
        let mut bench = Bench {
            core,
            at: Duration::from_secs(100),
            wall: WALL,
            all: first,
            disk_works: true,
            is_identified: true,
            disk_takes: Duration::ZERO,
        };
        let effects = bench.step(refused());
        let effects = bench.end(attempt(&effects).unwrap(), Outcome::Confirmed);
        assert_eq!(settled(&effects), verdict, "{all}");
    }
}

#[test]
fn dropped_by_hand_is_settled_and_the_hook_hears_of_it() {
    let mut bench = Bench::serving();
    let effects = bench.step(Event::PreStop { hook: 1, wait: None });
    bench.end(attempt(&effects).unwrap(), failed());
    let id = bench.core.pending()[0].record.id.clone();
    assert_eq!(answered(&bench.step(Event::Dropped(vec![id]))), Some(Verdict::Dropped));
    assert!(bench.core.pending().is_empty());
}

#[test]
fn g2_what_was_dropped_by_hand_while_it_may_be_applied_leaves_a_mark_and_the_row_is_given_back() {
    let signed_off = |effects: &[Effect]| {
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Mark(mark) if matches!(mark.what, What::SignOff { .. })))
    };
    let mut bench = Bench::serving();
    let effects = bench.step(Event::PreStop { hook: 1, wait: None });
    let under_way = attempt(&effects).unwrap();
    let id = bench.core.pending()[0].record.id.clone();
    assert!(signed_off(&bench.step(Event::Dropped(vec![id]))), "it may still be applied");
    assert!(bench.core.signed_off());
    bench.end(under_way, Outcome::Confirmed);
    bench.secs(1);
    let effects = bench.read(RowState::Inactive);
    assert!(effects.contains(&Effect::Hold), "at once, since we were the cause: {effects:?}");

    // One of which nothing can be applied leaves none.
    let mut bench = Bench::serving();
    let effects = bench.step(Event::PreStop { hook: 1, wait: None });
    bench.end(attempt(&effects).unwrap(), failed());
    let id = bench.core.pending()[0].record.id.clone();
    assert!(!signed_off(&bench.step(Event::Dropped(vec![id]))) && !bench.core.signed_off());
}

#[test]
fn g3_once_the_manager_is_back_an_ask_of_the_background_is_tried_within_seconds() {
    let mut bench = Bench::serving();
    let mut effects = bench.step(refused());
    let began = bench.at;
    while bench.at - began < Duration::from_secs(600) {
        effects = match attempt(&effects) {
            Some(id) => bench.end(id, failed()),
            None => bench.secs(1),
        };
    }
    let tried = (0..60).find_map(|_| {
        let tried = attempt(&effects);
        effects = if tried.is_none() { bench.secs(1) } else { Vec::new() };
        tried
    });
    bench.end(tried.expect("no delay is longer than half a minute"), failed());
    assert_eq!(attempt(&bench.secs(2)), None, "the background waits longer than that");
    let tried = attempt(&bench.step(Event::ManagerBack)).or_else(|| attempt(&bench.secs(5)));
    assert!(tried.is_some());
}

#[test]
fn g6_dropping_one_ask_by_hand_leaves_the_other_ones_confirmation_as_it_is() {
    let mut bench = Bench::serving();
    let first = attempt(&bench.step(refused())).unwrap();
    let hedge = attempt(&bench.after(Duration::from_millis(500))).unwrap();
    bench.step(Event::PreStop { hook: 1, wait: None });
    let later = bench.core.pending()[1].record.id.clone();
    let for_the_later = attempt(&bench.end(hedge, Outcome::Confirmed)).expect("it is not covered");
    bench.end(first, unknown());
    bench.step(Event::Dropped(vec![later]));
    bench.end(for_the_later, failed());
    bench.secs(61);
    assert_eq!(settled(&bench.read(RowState::Inactive)), Some(Verdict::Confirmed));
}

#[test]
fn g3_the_agent_wakes_for_the_next_attempt_after_one_that_failed() {
    let mut bench = Bench::serving();
    let mut id = attempt(&bench.step(refused())).unwrap();
    for _ in 0..20 {
        let mut effects = bench.end(id, failed());
        let ended = bench.at;
        for _ in 0..20 {
            if attempt(&effects).is_some() {
                break;
            }
            let wake = bench.core.wake_at(Moment(bench.at)).expect("there is an ask");
            effects = bench.after(wake - Moment(bench.at));
        }
        id = attempt(&effects).expect("it wakes for it");
        assert!(bench.at - ended <= Duration::from_secs(30), "one retry interval");
    }
}

#[test]
fn g3_waking_at_the_said_time_always_leads_on() {
    // No wake-up may be due at once again without an effect: that would spin.
    let mut bench = Bench::serving();
    for event in [Event::PreStop { hook: 1, wait: Some(Duration::from_secs(3)) }, refused(), Event::Terminate]
    {
        bench.step(event);
        for _ in 0..200 {
            let Some(wake) = bench.core.wake_at(Moment(bench.at)) else { break };
            let time = wake - Moment(bench.at);
            let effects = bench.after(time);
            if exited(&effects).is_some() {
                return;
            }
            let again = bench.core.wake_at(Moment(bench.at));
            assert!(again.is_none_or(|again| again > Moment(bench.at)), "{effects:?} {:?}", bench.core);
            if let Some(id) = attempt(&effects) {
                bench.end(id, failed());
            }
        }
    }
}

/// A life with a crash, a return, a drain that no stop follows, a drain, a stop; between all events the wall clock is set.
fn a_life(set: impl Fn(WallMillis) -> WallMillis) -> Vec<Effect> {
    let mut bench = Bench::serving();
    let step = |bench: &mut Bench, event: Option<Event>, secs: u64| {
        bench.wall = set(bench.wall);
        bench.secs(secs);
        let mut effects = event.map_or_else(Vec::new, |event| bench.step(event));
        // The manager refuses once, and then obeys.
        for outcome in [failed(), Outcome::Confirmed] {
            if let Some(id) = attempt(&effects) {
                bench.wall = set(bench.wall);
                bench.end(id, outcome);
                effects = bench.secs(1);
            }
        }
        if bench.core.reading {
            let inactive = bench.core.inactive_proven;
            bench.read(if inactive { RowState::Inactive } else { RowState::Active });
        }
    };
    let pre_stop = |hook| Some(Event::PreStop { hook, wait: Some(Duration::from_secs(5)) });
    step(&mut bench, Some(refused()), 10);
    step(&mut bench, Some(serving()), 10);
    step(&mut bench, Some(Event::HoldOpened), 1);
    step(&mut bench, pre_stop(1), 60);
    for _ in 0..50 {
        step(&mut bench, None, 1);
    }
    step(&mut bench, Some(Event::ManagerLost), 5);
    step(&mut bench, pre_stop(2), 60);
    step(&mut bench, Some(Event::Terminate), 2);
    step(&mut bench, Some(refused()), 3);
    for _ in 0..40 {
        step(&mut bench, None, 1);
    }
    assert!(exited(&bench.all).is_some(), "{:?}", bench.all);
    bench.all
}

/// Without the wall-clock times, which are written into records for people and for a successor's drain.
fn without_dates(effects: Vec<Effect>) -> Vec<Effect> {
    let undated = |mut record: Record| {
        record.at = 0;
        if let What::SignOff { drain_until: Some(until), .. } = &mut record.what {
            *until = 0;
        }
        record
    };
    let each = effects.into_iter().map(|effect| match effect {
        Effect::Persist(record) => Effect::Persist(undated(record)),
        Effect::Mark(record) => Effect::Mark(undated(record)),
        other => other,
    });
    each.collect()
}

#[test]
fn g6_setting_the_wall_clock_a_day_back_or_forward_between_any_events_changes_no_effect() {
    const DAY: WallMillis = 24 * 60 * 60 * 1000;
    let undisturbed = without_dates(a_life(|wall| wall));
    let drains =
        undisturbed.iter().filter(|effect| matches!(effect, Effect::Notice(Notice::Drain(_)))).count();
    assert!(drains >= 3, "one that ended by time, and another: {undisturbed:?}");
    let sets: [fn(WallMillis) -> WallMillis; 3] = [
        |wall| wall - DAY,
        |wall| wall + DAY,
        |wall| if wall % 2 == 0 { wall + DAY + 1 } else { wall - DAY - 1 },
    ];
    for set in sets {
        assert_eq!(without_dates(a_life(set)), undisturbed);
    }
}

fn reads(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::ReadRow)).count()
}

#[test]
fn g3_a_read_that_fails_is_not_repeated_at_once_though_the_row_may_be_ours() {
    let mark = mark_of(What::SignOff { cause: Cause::Sigterm, drain_until: None });
    let mut bench = Bench::new(Freshness::Fresh, vec![mark]);
    assert!(bench.core.signed_off());
    bench.step(serving());
    for _ in 0..3 {
        let at = Moment(bench.at);
        let failed = Err(Failure::new("connection refused"));
        let effects = bench.step(Event::RowRead { asked: at, read: failed });
        assert_eq!(reads(&effects), 0, "read again at the very moment it failed");
        assert!(bench.core.wake_at(at).is_some_and(|wake| wake > at), "it would spin");
        assert_eq!(reads(&bench.after(Duration::from_millis(4900))), 0);
        assert_eq!(reads(&bench.after(Duration::from_millis(100))), 1, "one interval later");
    }
    bench.read(RowState::Inactive);
    assert!(bench.all.contains(&Effect::Hold), "what the read was wanted for");
}

#[test]
fn g6_attempts_of_an_agent_before_us_count_as_open_from_our_start_though_the_spool_cannot_be_read() {
    let now = now_at(100);
    let core = Lifecycle::new(config(Freshness::Fresh), now.at);
    let mut bench = Bench {
        core,
        at: now.at.0,
        wall: WALL,
        all: Vec::new(),
        disk_works: true,
        is_identified: true,
        disk_takes: Duration::ZERO,
    };
    bench.step(serving());
    bench.step(Event::Identity { listed: true });
    bench.read(RowState::Active);
    let id = attempt(&bench.step(refused())).unwrap();
    let effects = bench.end(id, Outcome::Confirmed);
    assert_eq!(settled(&effects), None, "an agent before us may have left an attempt");
    bench.secs(59);
    assert_eq!(settled(&bench.read(RowState::Inactive)), None);
    bench.secs(1);
    assert_eq!(settled(&bench.read(RowState::Inactive)), Some(Verdict::Confirmed));
}

#[test]
fn g6_a_spool_without_a_record_of_this_key_says_that_no_agent_was_before_us() {
    let now = now_at(100);
    let mut core = Lifecycle::new(config(Freshness::Fresh), now.at);
    assert!(core.attempts.any_open(now.at));
    core.step(Event::Found { left: vec![mark_of(What::Seen)], all: true }, now);
    assert!(!core.attempts.any_open(now.at), "one that only saw it serve left nothing");
    core.step(Event::Found { left: vec![mark_of(What::Held)], all: true }, now);
    assert!(core.attempts.any_open(now.at));
    core.step(Event::Found { left: Vec::new(), all: true }, now);
    assert!(core.attempts.any_open(now.at), "nothing more is no proof of less");
}

#[test]
fn g2_a_hold_that_breaks_in_its_first_moment_may_still_end_the_row_a_minute_later() {
    let mut bench = Bench::new(Freshness::Fresh, vec![mark_of(What::Held)]);
    bench.step(serving());
    bench.secs(70);
    bench.read(RowState::Inactive);
    assert!(bench.all.contains(&Effect::Hold));
    let effects = bench.step(Event::HoldFailed { absent: false });
    assert_eq!(exited(&effects), None);
    // Its own stream makes the row active before the broken hold's end lands.
    bench.after(Duration::from_millis(100));
    let effects = bench.read(RowState::Active);
    let dropped =
        |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::DropMarks { .. }));
    assert!(!dropped(&effects), "its end may still be applied: {effects:?}");
    bench.secs(61);
    let effects = bench.read(RowState::Inactive);
    assert!(effects.contains(&Effect::Hold), "what the agent may have caused is undone at once: {effects:?}");
}

/// What the scheduler registered, as its row shows it.
fn told() -> Registered {
    Registered {
        port: 8002,
        idc: "idc-1".to_owned(),
        features: vec!["schedule".to_owned()],
        config: r#"{"manager_keep_alive_interval":7000000000}"#.to_owned(),
        ..Registered::default()
    }
}

impl Bench {
    /// A read that shows the row, with what its scheduler registered.
    fn shows(&mut self, state: RowState) -> Vec<Effect> {
        let freshness = self.core.freshness;
        let read = Ok(RowRead { state, freshness, registered: Some(told()), updated: None });
        self.step(Event::RowRead { asked: Moment(self.at), read })
    }

    /// One whose row was read a minute ago.
    fn read_a_minute_ago(freshness: Freshness) -> Self {
        let mut bench = Self::new(freshness, Vec::new());
        bench.step(serving());
        bench.shows(RowState::Active);
        bench.secs(60);
        bench
    }
}

fn registers(effects: &[Effect]) -> Option<&Registered> {
    effects.iter().find_map(|effect| match effect {
        Effect::Register(registered) => Some(registered),
        _ => None,
    })
}

#[test]
fn g2_a_row_that_is_gone_is_registered_again_as_it_was_and_given_back() {
    let mut bench = Bench::read_a_minute_ago(Freshness::Fresh);
    let effects = bench.read(RowState::Absent);
    assert_eq!(registers(&effects), Some(&told()));
    assert!(effects.contains(&Effect::Notice(Notice::RowGone { is_put_back: true })), "{effects:?}");
    assert_eq!(registers(&bench.read(RowState::Absent)), None, "it is under way");
    let effects = bench.step(Event::Registered(Registration::Done));
    assert!(effects.contains(&Effect::Notice(Notice::PutBack)), "{effects:?}");
    // A stream of its own that is open again sets it active within an interval.
    bench.secs(2);
    assert!(!bench.shows(RowState::Inactive).contains(&Effect::Hold));
    bench.secs(5);
    assert!(bench.shows(RowState::Inactive).contains(&Effect::Hold));
    bench.step(Event::HoldOpened);
    assert_eq!(bench.core.held().map(|(_, why)| why), Some(HoldReason::Deleted));
    bench.secs(1);
    assert!(bench.shows(RowState::Active).contains(&Effect::Notice(Notice::Restored)));
}

#[test]
fn g2_over_grpc_alone_record_not_found_says_that_a_row_is_gone() {
    let mut bench = Bench::read_a_minute_ago(Freshness::Within30s);
    assert!(bench.read(RowState::NotActive).contains(&Effect::Hold), "it may be inactive");
    let effects = bench.step(Event::HoldFailed { absent: true });
    assert_eq!(registers(&effects), Some(&told()));
    bench.step(Event::Registered(Registration::Done));
    assert!(bench.core.read_due.is_some_and(|at| at.0 <= bench.at + Duration::from_secs(38)), "soon enough");
    // A list may be half a minute old.
    bench.secs(30);
    assert!(!bench.read(RowState::NotActive).contains(&Effect::Hold));
    bench.secs(8);
    assert!(bench.read(RowState::NotActive).contains(&Effect::Hold));
}

#[test]
fn g2_a_row_that_could_not_be_registered_is_registered_an_interval_later() {
    let mut bench = Bench::read_a_minute_ago(Freshness::Fresh);
    bench.read(RowState::Absent);
    assert_eq!(registers(&bench.step(Event::Registered(Registration::Refused))), None);
    assert_eq!(bench.core.wake_at(Moment(bench.at)), Some(Moment(bench.at + Duration::from_secs(5))));
    assert_eq!(registers(&bench.secs(4)), None);
    assert_eq!(registers(&bench.secs(1)), Some(&told()));
}

#[test]
fn g2_the_agent_after_it_puts_back_what_a_mark_tells_of() {
    let mut bench = Bench::fresh();
    bench.step(serving());
    let effects = bench.shows(RowState::Active);
    let mark = effects.iter().find_map(|effect| match effect {
        Effect::Mark(record) if record.what == What::Seen => Some(record.clone()),
        _ => None,
    });
    let mark = (Kind::Mark, on_disk(mark.unwrap()));
    let mut bench = Bench::new(Freshness::Fresh, vec![mark.clone()]);
    bench.step(serving());
    bench.secs(70);
    assert_eq!(registers(&bench.read(RowState::Absent)), Some(&told()));
    // What names no manager may tell of another one's table.
    let nobodys = Record { managers: Managers::default(), ..mark.1 };
    let mut bench = Bench::new(Freshness::Fresh, vec![(Kind::Mark, nobodys)]);
    bench.step(serving());
    bench.secs(70);
    assert_eq!(registers(&bench.read(RowState::Absent)), None);
}

#[test]
fn g2_no_row_is_put_back_that_may_not_be() {
    let left_alone = |why: &str, prepare: fn(&mut Bench)| {
        let mut bench = Bench::read_a_minute_ago(Freshness::Fresh);
        prepare(&mut bench);
        let effects = bench.read(RowState::Absent);
        assert_eq!(registers(&effects), None, "{why}");
        effects
    };
    left_alone("it drains", |bench| drop(bench.step(Event::PreStop { hook: 1, wait: None })));
    left_alone("it is down", |bench| drop(bench.step(refused())));
    left_alone("nobody knows whether it lives", |bench| drop(bench.step(Event::Scheduler(Sight::Unclear))));
    left_alone("the agent ends", |bench| drop(bench.step(Event::Terminate)));
    left_alone("it may register another key", |bench| bench.core.in_question = true);
    left_alone("it was never listed", |bench| bench.core.listed = false);
    left_alone("it registers itself as it starts", |bench| {
        bench.step(refused());
        bench.secs(60);
        bench.step(serving());
        bench.secs(9);
    });
    let effects = left_alone("--repair report", |bench| bench.core.config.repair = Repair::Report);
    assert!(effects.contains(&Effect::Notice(Notice::RowGone { is_put_back: false })), "{effects:?}");
}

#[test]
fn g2_what_grpc_does_not_show_of_a_row_is_built_from_the_schedulers_own_interval() {
    let mut bench = Bench::new(Freshness::Within30s, Vec::new());
    bench.step(serving());
    let registered = Some(Registered { config: String::new(), ..told() });
    let read =
        RowRead { state: RowState::Active, freshness: Freshness::Within30s, registered, updated: None };
    bench.step(Event::RowRead { asked: Moment(bench.at), read: Ok(read.clone()) });
    bench.secs(60);
    bench.read(RowState::NotActive);
    let effects = bench.step(Event::HoldFailed { absent: true });
    let config = r#"{"manager_keep_alive_interval":5000000000}"#.to_owned();
    assert_eq!(registers(&effects), Some(&Registered { config, ..told() }));
    // What REST showed once is not unsaid by a list that doesn't show it.
    let mut bench = Bench::read_a_minute_ago(Freshness::Fresh);
    let effects = bench.step(Event::RowRead { asked: Moment(bench.at), read: Ok(read) });
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Mark(_))), "no news: {effects:?}");
    assert_eq!(bench.core.registered, Some(told()));
}

#[test]
fn g2_a_registration_that_had_no_answer_is_looked_for() {
    let mut bench = Bench::read_a_minute_ago(Freshness::Fresh);
    bench.read(RowState::Absent);
    let effects = bench.step(Event::Registered(Registration::Unknown));
    assert!(!effects.contains(&Effect::Notice(Notice::PutBack)), "nobody knows: {effects:?}");
    let effects = bench.secs(5);
    assert!(effects.contains(&Effect::ReadRow), "{effects:?}");
    let effects = bench.shows(RowState::Inactive);
    assert_eq!(registers(&effects), None, "it was applied");
    assert!(effects.contains(&Effect::Notice(Notice::PutBack)), "{effects:?}");
    bench.secs(2);
    assert!(bench.shows(RowState::Inactive).contains(&Effect::Hold));
    // Or it was not.
    let mut bench = Bench::read_a_minute_ago(Freshness::Fresh);
    bench.read(RowState::Absent);
    bench.step(Event::Registered(Registration::Unknown));
    bench.secs(5);
    assert_eq!(registers(&bench.read(RowState::Absent)), Some(&told()));
}

#[test]
fn g2_a_registration_under_way_is_given_up_as_the_drain_begins_and_may_still_be_applied() {
    let mut bench = Bench::read_a_minute_ago(Freshness::Fresh);
    bench.read(RowState::Absent);
    let effects = bench.step(Event::PreStop { hook: 1, wait: None });
    assert!(effects.contains(&Effect::DropRegistration), "{effects:?}");
    assert!(bench.core.attempts.any_open(Moment(bench.at)), "the row is read once more");
    let effects = bench.step(Event::Registered(Registration::Done));
    assert!(!effects.contains(&Effect::Notice(Notice::PutBack)), "it was on its way: {effects:?}");
}

#[test]
fn g3_a_row_that_was_put_back_after_our_own_sign_off_is_not_read_in_a_tight_loop() {
    let mut bench = Bench::new(Freshness::Fresh, vec![mark_of(What::Held)]);
    bench.step(serving());
    bench.shows(RowState::Inactive);
    bench.secs(70);
    bench.read(RowState::Absent);
    assert!(bench.core.ours && bench.core.put_back.under_way.is_some());
    bench.step(Event::Registered(Registration::Done));
    bench.secs(1);
    let before = bench.all.len();
    bench.shows(RowState::Inactive);
    let reads = bench.all[before..].iter().filter(|effect| **effect == Effect::ReadRow).count();
    assert_eq!(reads, 0, "its own message is waited for");
}
