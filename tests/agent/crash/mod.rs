//! A fault at every system call of a sign-off, a replay, a flush and a take-up of another key of the real binary; then the recovery.
//!
//! strace counts a system call's invocations for each thread and each call by itself. So each operation is recorded first, once for
//! each of its threads; then for each call, and each fault that it may have, a process of its own is run with that one fault. What
//! is left is judged at once; then a new process, with all well, has to settle all that was pending and leave the spool clean.
//!
//! `cargo test` tries a sample. `SIGNOFF_CRASH=all` tries all, and `SIGNOFF_CRASH=replay/spool/fsync` those whose names begin so.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use futures_util::{StreamExt, stream};

use self::{
    point::{Case, Met, OPERATIONS, Operation},
    world::{RATE, Then, World},
};
use crate::{clock::FastClock, strace::can_inject};

mod flush;
mod judge;
mod point;
mod registered;
mod scene;
mod subject;
mod take_up;
mod world;

/// How many threads try cases, each with a manager of its own, and how many each at a time: most of the time they wait.
const THREADS: usize = 2;
const AT_ONCE: usize = 40;
/// A sample is one in so many, by their names: the same ones each time.
const ONE_IN: u32 = 40;

/// Which cases are tried.
enum Choice {
    Sample,
    All,
    Begins(String),
}

impl Choice {
    fn of_the_environment() -> Self {
        match std::env::var("SIGNOFF_CRASH") {
            Err(_) => Self::Sample,
            Ok(all) if all == "all" => Self::All,
            Ok(name) => Self::Begins(name),
        }
    }

    fn of(&self, cases: Vec<Case>) -> Vec<Case> {
        match self {
            Self::All => cases,
            Self::Begins(name) => {
                cases.into_iter().filter(|case| case.to_string().starts_with(name)).collect()
            }
            Self::Sample => {
                let chosen =
                    |case: &Case| crc32fast::hash(case.to_string().as_bytes()).is_multiple_of(ONE_IN);
                cases.into_iter().filter(chosen).collect()
            }
        }
    }
}

fn on_a_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// All of `work` done, by some threads.
fn in_parallel<T: Send, R: Send>(
    clock: &FastClock,
    work: impl IntoIterator<Item = T>,
    each: impl AsyncFn(&World, T) -> R + Sync,
) -> Vec<R> {
    let queue: Mutex<VecDeque<T>> = Mutex::new(work.into_iter().collect());
    let results = Mutex::new(Vec::new());
    let (queue, results, each) = (&queue, &results, &each);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(move || {
                on_a_runtime(async {
                    let world = World::new(clock.clone()).await;
                    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    stream::iter(std::iter::from_fn(next))
                        .map(|work| each(&world, work))
                        .buffer_unordered(AT_ONCE)
                        .for_each(async |result| {
                            results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                        })
                        .await;
                });
            });
        }
    });
    std::mem::take(&mut *results.lock().unwrap())
}

#[test]
fn whatever_system_call_fails_or_is_its_last_nothing_asked_is_lost_and_the_next_process_settles_it() {
    let Some(clock) = FastClock::of(RATE) else { return };
    if !can_inject() {
        return;
    }
    let began = Instant::now();
    let places = OPERATIONS
        .into_iter()
        .flat_map(|operation| operation.places().into_iter().map(move |at| (operation, at)));
    let recorded =
        in_parallel(&clock, places, async |world, (operation, place)| world.record(operation, place).await);
    let mut cases: Vec<Case> = recorded.into_iter().flatten().collect();
    // In one order, in which those that mostly wait are beside those that mostly work.
    cases.sort_by_cached_key(|case| crc32fast::hash(case.to_string().as_bytes()));
    let all = cases.len();
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for case in cases.iter().filter(|case| case.fault == point::Fault::Kill) {
        *calls.entry(case.operation.to_string()).or_default() += 1;
    }
    let chosen = Choice::of_the_environment().of(cases);
    let outcomes = in_parallel(&clock, chosen.into_iter().enumerate(), async |world, (number, case)| {
        let outcome = world.try_case(number, &case).await;
        (case, outcome)
    });
    let met = outcomes.iter().filter(|(_, outcome)| outcome.met == Met::Yes).count();
    let ended = |then| outcomes.iter().filter(|(_, outcome)| outcome.then == then).count();
    eprintln!(
        "system calls: {calls:?}; {all} cases, {} tried, {met} met their fault, in {:?}: {} times nothing was asked yet, {} times \
         all was settled, {} times a new process had to",
        outcomes.len(),
        began.elapsed(),
        ended(Then::NothingAsked),
        ended(Then::Settled),
        ended(Then::Recovered),
    );
    let missed: Vec<&Case> =
        outcomes.iter().filter(|(_, outcome)| outcome.met != Met::Yes).map(|(case, _)| case).collect();
    for case in &missed {
        eprintln!("not met: {case}");
    }
    let wrong: Vec<&str> = outcomes
        .iter()
        .filter_map(|(_, outcome)| outcome.verdict.as_ref().err().map(String::as_str))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), outcomes.len(), wrong.join("\n\n"));
    // Waits and wake-ups vary in number from run to run; what a sign-off writes does not.
    assert!(missed.len() * 10 <= outcomes.len() + 10, "too many were not met");
    let durable = ["fsync", "rename", "unlink"];
    // What waits for the manager writes a mark again with each attempt that it needs: on a busy machine these are more or fewer.
    let varies =
        |case: &Case| !matches!(case.operation, Operation::PreStop | Operation::Sigterm) && case.nth > 1;
    let odd = missed.iter().filter(|case| durable.contains(&case.call.as_str()) && !varies(case));
    let odd: Vec<_> = odd.collect();
    assert!(odd.is_empty(), "never reached: {odd:?}");
}
