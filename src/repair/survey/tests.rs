//! The looks and the probes, on a source that is a list.

use std::{num::NonZeroU32, sync::Mutex};

use async_trait::async_trait;

use super::*;
use crate::repair::{
    judge::{Verdict, judge, tests::row},
    sighting::Stamp,
    sources::Names,
};

/// Rows, as each look sees them in turn; the last one's stay.
pub(in crate::repair) struct List {
    looks: Mutex<Vec<Vec<Sighting>>>,
    /// When each look was made.
    pub(in crate::repair) at: Mutex<Vec<Instant>>,
    /// What a look at one row sees in turn, the last one's stay; none: what the last look saw.
    pub(in crate::repair) again: Mutex<Vec<Option<Sighting>>>,
    /// Done at the next look at one row.
    pub(in crate::repair) meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    pub(in crate::repair) fails: bool,
    pub(in crate::repair) fresh: bool,
    /// How long a look at one row takes.
    pub(in crate::repair) takes: Duration,
    /// The manager's clusters.
    pub(in crate::repair) clusters: Option<Vec<u64>>,
}

impl List {
    pub(in crate::repair) fn of(looks: Vec<Vec<Sighting>>) -> Self {
        Self {
            looks: Mutex::new(looks),
            at: Mutex::default(),
            again: Mutex::default(),
            meanwhile: Mutex::default(),
            fails: false,
            fresh: true,
            takes: Duration::ZERO,
            clusters: None,
        }
    }
}

pub(in crate::repair) fn take_turn<T: Clone>(turns: &mut Vec<T>) -> Option<T> {
    if turns.len() > 1 { Some(turns.remove(0)) } else { turns.first().cloned() }
}

#[async_trait]
impl Source for List {
    fn name(&self) -> String {
        "a list".to_owned()
    }
    fn names(&self) -> Names {
        Names::Exact
    }
    fn fresh(&self) -> bool {
        self.fresh
    }
    async fn clusters(&self) -> Option<Vec<u64>> {
        self.clusters.clone()
    }
    async fn look(&self, scope: &Scope, each: &mut (dyn FnMut(Sighting) + Send)) -> Result<(), Failure> {
        if self.fails {
            return Err(Failure::new("a list: nobody is there"));
        }
        self.at.lock().unwrap().push(Instant::now());
        let rows = take_turn(&mut self.looks.lock().unwrap()).unwrap_or_default();
        rows.into_iter().filter(|row| scope.holds(row.cluster_id)).for_each(each);
        Ok(())
    }
    async fn again(&self, row: &Sighting) -> Result<Option<Sighting>, Failure> {
        tokio::time::sleep(self.takes).await;
        if let Some(act) = self.meanwhile.lock().unwrap().take() {
            act();
        }
        if let Some(again) = take_turn(&mut self.again.lock().unwrap()) {
            return Ok(again);
        }
        Ok(self
            .looks
            .lock()
            .unwrap()
            .last()
            .and_then(|rows| rows.iter().find(|other| other.id == row.id).cloned()))
    }
}

pub(in crate::repair) struct Nobody;

impl Progress for Nobody {
    fn read(&self, _: u8, _: usize) {}
    fn waiting(&self, _: Duration) {}
    fn probed(&self, _: usize, _: usize) {}
    fn written(&self, _: usize, _: usize) {}
}

pub(in crate::repair) fn options() -> Options {
    Options { scope: Scope::All, recheck_after: None, wanted: withdraw::Wanted::default(), only: None }
}

/// An active row at an address where nobody listens, its time as given.
pub(in crate::repair) fn sighting(id: u64, time: &str) -> Sighting {
    let port = 1;
    Sighting { port, keep_alive: Some(Stamp::of(time)), ..row(id, &format!("s-{id}"), "127.0.0.1").now }
}

async fn surveyed(list: &List, options: &Options) -> Survey {
    survey(list, &Prober::network(), options, &Memory::default(), &Nobody).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_looks_are_three_of_the_longest_interval_apart_at_most_two_minutes() {
    for (intervals, wanted) in
        [(vec![None], 15), (vec![Some(500), Some(8000)], 24), (vec![Some(3_600_000)], 120), (vec![], 15)]
    {
        let rows: Vec<_> = (1u64..)
            .zip(&intervals)
            .map(|(id, interval_ms)| Sighting {
                interval_ms: interval_ms.and_then(NonZeroU32::new),
                ip: None,
                ..sighting(id, "t")
            })
            .collect();
        let list = List::of(vec![rows]);
        let survey = surveyed(&list, &options()).await;
        assert_eq!(survey.given.apart, Duration::from_secs(wanted), "{intervals:?}");
        let at = list.at.lock().unwrap().clone();
        assert_eq!(at[1] - at[0], Duration::from_secs(wanted), "{intervals:?}");
    }
    let list = List::of(vec![vec![]]);
    let given = Options { recheck_after: Some(Duration::from_secs(100)), ..options() };
    assert_eq!(surveyed(&list, &given).await.given.apart, Duration::from_secs(100));
}

#[tokio::test(start_paused = true)]
async fn an_inactive_rows_interval_holds_nobody_up() {
    let slow = Sighting {
        interval_ms: NonZeroU32::new(20_000),
        state: State::Inactive,
        ip: None,
        ..sighting(1, "t")
    };
    assert_eq!(surveyed(&List::of(vec![vec![slow]]), &options()).await.given.apart, Duration::from_secs(15));
}

#[tokio::test]
async fn only_what_the_looks_leave_open_is_probed_and_some_of_its_living_neighbours() {
    let at = |id: u64, time: &str, cluster_id| Sighting { cluster_id, ..sighting(id, time) };
    let first = vec![
        at(1, "2026-11-23 20:00:00", 1),
        at(2, "2026-11-23 20:00:00", 1),
        at(3, "2026-11-23 20:00:00", 2),
    ];
    let second = vec![
        at(1, "2026-11-23 20:00:00", 1),
        at(2, "2026-11-23 20:00:15", 1),
        at(3, "2026-11-23 20:00:15", 2),
    ];
    let quick = Options { recheck_after: Some(Duration::from_millis(1)), ..options() };
    let survey = surveyed(&List::of(vec![first.clone(), second.clone()]), &quick).await;
    let probed: Vec<_> = survey.rows.iter().map(|row| row.probe).collect();
    assert_eq!(
        probed,
        [Probed::Silent, Probed::Silent, Probed::NotMade],
        "a cluster in which all live is not probed"
    );
    assert!(survey.probe_words[&1].contains("connection refused"), "{:?}", survey.probe_words);
    // One row alone is asked for: its namesakes and the controls are looked at, nobody else.
    let other = Sighting { hostname: "t-0".into(), ..at(4, "2026-11-23 20:00:00", 1) };
    let (mut a, mut b) = (first, second);
    a.push(other.clone());
    b.push(other);
    let only = Options { only: Some(1), ..quick };
    let survey = surveyed(&List::of(vec![a, b]), &only).await;
    let probed: Vec<_> = survey.rows.iter().map(|row| row.probe).collect();
    assert_eq!(probed, [Probed::Silent, Probed::Silent, Probed::NotMade, Probed::NotMade]);
}

#[tokio::test]
async fn more_rows_than_a_run_may_probe_are_left_and_counted() {
    let rows: Vec<_> = (1..=PROBES as u64 + 50).map(|id| sighting(id, "t")).collect();
    let quick = Options { recheck_after: Some(Duration::from_millis(1)), ..options() };
    let survey = surveyed(&List::of(vec![rows]), &quick).await;
    let probed = survey.rows.iter().filter(|row| row.probe != Probed::NotMade).count();
    assert_eq!((probed, survey.not_probed), (PROBES, 50));
    let judged = judge(&survey.rows, &survey.given);
    assert!(judged.iter().all(|judgement| judgement.verdict == Verdict::Undecided));
}

#[tokio::test(start_paused = true)]
async fn a_row_of_one_look_only_is_no_row_of_both() {
    let list = List::of(vec![
        vec![Sighting { ip: None, ..sighting(1, "t") }],
        vec![Sighting { ip: None, ..sighting(2, "t") }],
    ]);
    let survey = surveyed(&list, &options()).await;
    assert_eq!(survey.rows.iter().map(|row| (row.now.id, row.before)).collect::<Vec<_>>(), [(2, None)]);
}
