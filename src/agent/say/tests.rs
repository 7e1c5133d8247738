use super::*;
use crate::{
    agent::socket::status::RowWord,
    agent::{
        lifecycle::{Config, Effect},
        moment::Moment,
    },
    identity::Repair,
    logging::Log,
    manager::RowState,
    spool::record::RecordId,
};

const WALL: WallMillis = 1_800_000_000_000;

/// A core whose scheduler serves and whose row is listed and active, and what its container's last words are.
struct Bench {
    core: Lifecycle,
    words: Words,
    at: Duration,
    said: Option<String>,
    disk_works: bool,
    offered: Vec<RecordId>,
}

impl Bench {
    fn serving() -> Self {
        let key =
            SchedulerKey::new(1.try_into().unwrap(), "sched-0".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let config = Config {
            follows: false,
            in_question: false,
            key,
            advertised: Some("10.0.0.1:8002".parse().unwrap()),
            grace: Duration::from_secs(30),
            interval: Duration::from_secs(5),
            repair: Repair::On,
            freshness: Freshness::Fresh,
            pod: None,
            run: 7,
        };
        let mut bench = Self {
            core: Lifecycle::new(config, Moment::default()),
            words: Words::default(),
            at: Duration::from_secs(100),
            said: None,
            disk_works: true,
            offered: Vec::new(),
        };
        bench.step(Event::Found { left: Vec::new(), all: true });
        bench.step(Event::Scheduler(Sight::Serving(address())));
        bench.step(Event::Identity { listed: true });
        bench.read(RowState::Active);
        bench
    }

    fn now(&self) -> Now {
        let at = Moment(self.at);
        Now { at, came: at, wall: WALL + milliseconds(self.at), roll: u32::MAX }
    }

    /// As the shell does: the words are looked at after each write, and after all effects.
    fn step(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.core.step(event, self.now());
        for effect in &effects {
            match effect {
                Effect::Persist(record) => {
                    self.offered.push(record.id.clone());
                    self.step(Event::Written { ask: record.id.clone(), on_disk: self.disk_works });
                }
                Effect::Notice(notice) => self.words.learn(notice),
                _ => {}
            }
        }
        self.said = self.words.news(&self.core, Durability::Pod, false).or(self.said.take());
        effects
    }

    fn after(&mut self, time: Duration) -> Vec<Effect> {
        self.at += time;
        self.step(Event::Tick)
    }

    fn read(&mut self, state: RowState) -> Vec<Effect> {
        let read = Ok(RowRead { state, freshness: Freshness::Fresh, registered: None, updated: None });
        self.step(Event::RowRead { asked: Moment(self.at), read })
    }

    fn said(&self) -> &str {
        self.said.as_deref().unwrap_or_default()
    }
}

fn address() -> std::net::SocketAddr {
    "127.0.0.1:8002".parse().unwrap()
}

fn attempt(effects: &[Effect]) -> AttemptId {
    let begun = effects.iter().find_map(|effect| match effect {
        Effect::Attempt { id, .. } => Some(*id),
        _ => None,
    });
    begun.unwrap_or_else(|| panic!("no attempt in {effects:?}"))
}

const PENDING: &str = "sign-off of sched-0/10.0.0.1 in cluster 1 is pending";
const WATCHED: &str = "sign-off of sched-0/10.0.0.1 in cluster 1: confirmed; its record is kept and watched";

#[test]
fn the_last_words_call_pending_what_is_not_acknowledged_and_nothing_else() {
    let mut bench = Bench::serving();
    assert_eq!(bench.said, None);
    bench.disk_works = false;
    let first = attempt(&bench.step(Event::Scheduler(Sight::Refused(vec![address()]))));
    assert!(bench.said().starts_with(PENDING) && bench.said().contains("in memory only"), "{}", bench.said());
    let hedge = attempt(&bench.after(Duration::from_millis(500)));
    bench.step(Event::Ended { attempt: hedge, outcome: Outcome::Confirmed });
    assert!(bench.said().starts_with(WATCHED), "{}", bench.said());
    // It is offered to the disk again, and taken: no less acknowledged than before.
    bench.disk_works = true;
    let offered = bench.offered.len();
    bench.after(Duration::from_secs(6));
    assert!(bench.offered.len() > offered, "it was not offered again");
    assert!(bench.said().starts_with(WATCHED), "{}", bench.said());
    // The first was applied after all: it is pending again, and on disk by now.
    bench.step(Event::Ended { attempt: first, outcome: Outcome::Unknown(Failure::new("cut")) });
    bench.after(Duration::from_secs(61));
    let last = attempt(&bench.read(RowState::Active));
    assert!(
        bench.said().starts_with(PENDING) && bench.said().contains("queued, lost with this pod"),
        "{}",
        bench.said()
    );
    bench.step(Event::Ended { attempt: last, outcome: Outcome::Confirmed });
    assert_eq!(bench.said(), "sign-off of sched-0/10.0.0.1 in cluster 1: confirmed\n");
}

#[test]
fn the_very_last_words_say_why_a_sign_off_is_still_pending() {
    let mut bench = Bench::serving();
    let first = attempt(&bench.step(Event::Scheduler(Sight::Refused(vec![address()]))));
    let failure = Failure::new("no manager reached: 10.0.9.9:65003: connection refused");
    bench.step(Event::Ended { attempt: first, outcome: Outcome::Failed(failure) });
    assert!(!bench.said().contains("connection refused"), "each failure would be a write: {}", bench.said());
    let words = bench.words.news(&bench.core, Durability::Node, true).unwrap();
    assert!(
        words.starts_with(PENDING)
            && words.ends_with(
                "queued on the node; the last attempt failed: no manager reached: 10.0.9.9:65003: \
                 connection refused\n"
            ),
        "{words}"
    );
    assert_eq!(bench.words.news(&bench.core, Durability::Node, true), None, "said already");
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_takes_a_line_a_minute_for_each_kind_of_failure_and_counts_the_others() {
    let (log, _guard) = Log::capture();
    let (said, key) = (Said::default(), Bench::serving().core.key().clone());
    let options = AttemptOptions { hedge: false, limit: Duration::from_secs(30) };
    // Ten a second for an hour, and each tenth of them without an answer.
    for id in 0..36_000 {
        let failure = Failure::new("no manager reached");
        let outcome = if id % 10 == 0 { Outcome::Unknown(failure) } else { Outcome::Failed(failure) };
        super::attempt(&key, id, options, &outcome, Duration::ZERO, &said);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let text = log.text();
    let warned: Vec<&str> = text.lines().filter(|line| line.contains("WARN")).collect();
    for (outcome, held_back) in [("failed", 539), ("unknown", 59)] {
        let of_it = || warned.iter().filter(|line| line.contains(&format!("attempt.outcome=\"{outcome}\"")));
        assert_eq!(of_it().count(), 60, "{outcome}");
        assert!(!of_it().next().unwrap().contains("log.held_back"), "{outcome}");
        assert!(of_it().nth(1).unwrap().contains(&format!("log.held_back={held_back}")), "{warned:?}");
    }
    assert_eq!(warned.len(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_flaps_takes_a_line_a_minute_once_it_was_seen_to() {
    let (log, _guard) = Log::capture();
    let said = Said::default();
    let mut bench = Bench::serving();
    for _ in 0..3600 {
        for sight in [Sight::Refused(vec![address()]), Sight::Serving(address())] {
            let event_seen = Event::Scheduler(sight);
            event(&bench.core, &event_seen, &said);
            bench.step(event_seen);
        }
        for n in 0..10 {
            cant_tell(&"127.0.0.1:8002", &format!("answer {n}"), &said);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let text = log.text();
    let count = |what: &str| text.lines().filter(|line| line.contains("INFO") && line.contains(what)).count();
    for what in ["The scheduler is down.", "The scheduler serves."] {
        assert!((60..=80).contains(&count(what)), "{what}: {}", count(what));
    }
    assert!((60..=65).contains(&count("Can't tell whether")), "{}", count("Can't tell whether"));
}

#[test]
fn the_row_is_what_is_known_best_of_it_not_what_an_older_list_says() {
    let shown = |bench: &Bench, known: &Known| {
        let known = status(Status::default(), &bench.core, known, bench.now()).row_known.unwrap();
        (known.state, known.by, (WALL + milliseconds(bench.at) - known.at) / 1000)
    };
    let read = |bench: &mut Bench, state, freshness| {
        let read = Ok(RowRead { state, freshness, registered: None, updated: None });
        bench.step(Event::RowRead { asked: Moment(bench.at), read })
    };
    let (mut bench, mut known) = (Bench::serving(), Known::default());
    assert_eq!(shown(&bench, &known), (RowWord::Active, "read".to_owned(), 0));

    // It goes, and is signed off; a list that the manager made before that still has it.
    let begun = attempt(&bench.step(Event::Scheduler(Sight::Refused(vec![address()]))));
    let now = bench.now().at;
    for effect in bench.step(Event::Ended { attempt: begun, outcome: Outcome::Confirmed }) {
        if let Effect::Notice(notice) = effect {
            known.learn(&notice, now);
        }
    }
    bench.after(Duration::from_secs(20));
    read(&mut bench, RowState::Active, Freshness::Within30s);
    assert_eq!(shown(&bench, &known), (RowWord::Inactive, "sign-off".to_owned(), 20));

    // It is back, and its row is given back; a list of before the hold does not have it.
    bench.step(Event::Scheduler(Sight::Serving(address())));
    for _ in 0..200 {
        if bench.after(Duration::from_secs(1)).contains(&Effect::Hold) {
            break;
        }
        read(&mut bench, RowState::NotActive, Freshness::Within30s);
    }
    bench.step(Event::HoldOpened);
    bench.after(Duration::from_secs(19));
    read(&mut bench, RowState::NotActive, Freshness::Within30s);
    assert_eq!(shown(&bench, &known), (RowWord::Active, "hold".to_owned(), 19));
    // One that was made after it counts again, and a fresh one at once.
    let before = bench.core.clone();
    let mut later = Bench { core: before, at: bench.at, ..Bench::serving() };
    later.after(Duration::from_secs(20));
    read(&mut later, RowState::NotActive, Freshness::Within30s);
    assert_eq!(shown(&later, &known), (RowWord::NotActive, "read".to_owned(), 0));
    read(&mut bench, RowState::Inactive, Freshness::Fresh);
    assert_eq!(shown(&bench, &known), (RowWord::Inactive, "read".to_owned(), 0));
}
