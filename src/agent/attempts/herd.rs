//! A herd: many agents whose manager comes back after an outage, with the shipped delays. What they ask of it in a second has
//! to stay under its limit, or the sign-offs of one take the place of another's.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;
use crate::manager::grpc::warm;

/// New requests or streams that a manager takes in a second (v2.1.34 to v2.5.1).
const LIMIT: usize = 4000;
/// The outage's length: long enough for every delay to have reached its cap.
const OUTAGE: Duration = Duration::from_secs(120);

/// One agent with one ask.
struct Agent {
    attempts: Attempts,
    contact: Backoff,
    settled: Option<Duration>,
    /// Attempts since the manager is back.
    made: u32,
}

/// What happens next to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// It looks whether the manager answers.
    Contact,
    /// It may be time for an attempt.
    Attempt,
}

/// What became of a herd.
#[derive(Debug)]
#[expect(dead_code, reason = "shown whole")]
struct Told {
    /// Most requests in any second since the return.
    peak: usize,
    /// When the last was settled, after the return.
    last: Duration,
    /// The most attempts that one needed after the return.
    most: u32,
    refused: usize,
}

fn herd(agents: usize, urgency: Urgency, seed: u64) -> Told {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut turns = BinaryHeap::new();
    let mut all: Vec<Agent> = Vec::new();
    for index in 0..agents {
        all.push(Agent {
            attempts: Attempts::new(Moment::default()),
            contact: warm::backoff(),
            settled: None,
            made: 0,
        });
        turns.push(Reverse((Duration::ZERO, index, Turn::Contact)));
        turns.push(Reverse((Duration::ZERO, index, Turn::Attempt)));
    }
    let mut requests: Vec<Duration> = Vec::new();
    let (mut tokens, mut filled, mut refused) = (LIMIT as f64, OUTAGE, 0);
    while let Some(Reverse((at, index, turn))) = turns.pop() {
        let agent = &mut all[index];
        if agent.settled.is_some() {
            continue;
        }
        let now = Now { at: Moment(at), came: Moment(at), wall: 0, roll: dice.u32(..) };
        let is_back = at >= OUTAGE;
        let mut is_taken = || {
            // A bucket of tokens, one for each request that is taken.
            tokens = (tokens + (at - filled).as_secs_f64() * LIMIT as f64).min(LIMIT as f64);
            filled = at;
            requests.push(at);
            let taken = tokens >= 1.0;
            tokens -= f64::from(u8::from(taken));
            refused += usize::from(!taken);
            taken
        };
        match turn {
            // One that is turned away has not heard that the manager is healthy.
            Turn::Contact if is_back && is_taken() => {
                agent.attempts.manager_is_back(urgency, now);
                turns.push(Reverse((at, index, Turn::Attempt)));
            }
            Turn::Contact => {
                let delay = agent.contact.next(warm::CAP, now.fraction(), None, None);
                turns.push(Reverse((at + delay, index, Turn::Contact)));
            }
            Turn::Attempt if !agent.attempts.may_begin(now.at) => {
                let next = agent.attempts.wake_at(true, now.at).unwrap();
                turns.push(Reverse((next.0, index, Turn::Attempt)));
            }
            Turn::Attempt => {
                let id = agent.attempts.begin(Vec::new(), now.at);
                let outcome = match is_back {
                    false => Outcome::Failed(Failure::new("connection refused")),
                    true if is_taken() => Outcome::Confirmed,
                    true => {
                        Outcome::Failed(Failure { exhausted: true, ..Failure::new("resource exhausted") })
                    }
                };
                agent.made += u32::from(is_back);
                if let Ended::Settled { .. } = agent.attempts.ended(id, &outcome, urgency, now) {
                    agent.settled = Some(at - OUTAGE);
                } else {
                    turns.push(Reverse((at, index, Turn::Attempt)));
                }
            }
        }
    }
    let second = |from: &Duration| {
        let (from, to) = (*from, *from + Duration::from_secs(1));
        requests.partition_point(|at| *at < to) - requests.partition_point(|at| *at < from)
    };
    Told {
        peak: requests.iter().map(second).max().unwrap_or(0),
        last: all.iter().map(|agent| agent.settled.unwrap()).max().unwrap(),
        most: all.iter().map(|agent| agent.made).max().unwrap(),
        refused,
    }
}

#[test]
fn ten_thousand_agents_in_the_background_stay_under_the_managers_limit() {
    for seed in 0..2 {
        let told = herd(10_000, Urgency::Background, seed);
        println!("10,000 in the background: {told:?}");
        assert!(told.peak < LIMIT && told.last <= BACKGROUND_CAP * 2, "{told:?}");
    }
}

#[test]
fn a_thousand_agents_that_shut_down_at_once_stay_under_the_managers_limit() {
    for seed in 0..2 {
        let told = herd(1000, Urgency::Urgent(Duration::from_secs(30)), seed);
        println!("1,000 that shut down: {told:?}");
        assert!(told.peak < LIMIT && told.last <= EXHAUSTED_CAP * 2, "{told:?}");
    }
}
