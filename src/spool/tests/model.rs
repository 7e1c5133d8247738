//! Random sequences of operations, kills and damage, against what must hold whatever happens.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;

use super::{
    faults::{Synced, Syncs, watched},
    *,
};

#[derive(Debug, Clone)]
enum Step {
    Ask(u64),
    Mark(u64),
    /// Settle the asks of a key that were there when the attempt began: all but the newest `spare`.
    Settle {
        key: u64,
        spare: usize,
        mark: bool,
    },
    DropMarks(u64),
    DropByHand(usize),
    /// The disk refuses the next fsync of this kind.
    FailSync(bool),
    /// The process dies and another opens the spool.
    Kill,
    Release(u64),
    Damage(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 1..4u64;
    let step = prop_oneof![
        4 => key.clone().prop_map(Step::Ask),
        2 => key.clone().prop_map(Step::Mark),
        3 => (key.clone(), 0..2usize, any::<bool>()).prop_map(|(key, spare, mark)| Step::Settle { key, spare, mark }),
        1 => key.clone().prop_map(Step::DropMarks),
        1 => any::<usize>().prop_map(Step::DropByHand),
        1 => any::<bool>().prop_map(Step::FailSync),
        2 => Just(Step::Kill),
        1 => key.prop_map(Step::Release),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(file, bit)| Step::Damage(file, bit)),
    ];
    prop::collection::vec(step, 1..40)
}

/// What must be on disk, and what may be.
#[derive(Default)]
struct Model {
    /// Accepted asks that are not settled: must be there, in order of writing.
    asks: Vec<(u64, u64)>,
    /// Marks: the newest id of each kind and key.
    marks: BTreeMap<(u64, bool), u64>,
    /// Asks that were refused or are being settled when the disk failed: either way is right.
    either: Vec<u64>,
    corrupt: usize,
}

struct Bench {
    dir: TempDir,
    spool: Spool,
    syncs: Arc<Mutex<Syncs>>,
    model: Model,
    last: u64,
}

impl Bench {
    fn new() -> Self {
        let dir = dir();
        let (spool, syncs) = watched(&dir);
        Self { dir, spool, syncs, model: Model::default(), last: 0 }
    }

    /// A kill: all that is kept is the directory. The successor takes everything.
    fn reopen(&mut self) {
        let (spool, syncs) = watched(&self.dir);
        // The old one is dropped here, and with it its locks.
        self.spool = spool;
        self.syncs = syncs;
        for n in 1..4 {
            self.model.corrupt += self.spool.take_own(&key(n)).unwrap().problems.len();
        }
    }

    fn step(&mut self, step: &Step) {
        self.last += 1;
        let id = self.last;
        match *step {
            Step::Ask(n) => match self.spool.write_ask(&ask(n, id)) {
                Ok(()) => self.model.asks.push((n, id)),
                Err(_) => self.model.either.push(id),
            },
            Step::Mark(n) => {
                if self.spool.write_mark(&seen(n, id)).is_ok() {
                    self.model.marks.insert((n, false), id);
                }
            }
            Step::Settle { key: n, spare, mark } => {
                let of_key: Vec<u64> =
                    self.model.asks.iter().filter(|(of, _)| *of == n).map(|(_, id)| *id).collect();
                let covered = &of_key[..of_key.len().saturating_sub(spare)];
                let ids: Vec<RecordId> = covered.iter().map(|id| ask(n, *id).id).collect();
                // The renames are done even where the fsync fails.
                let _ = self.spool.settle(&ids, mark);
                self.model.asks.retain(|(_, id)| !covered.contains(id));
                if let Some(newest) = covered.last().filter(|_| mark) {
                    self.model.marks.insert((n, true), *newest);
                }
            }
            Step::DropMarks(n) => {
                let _ = self.spool.drop_marks(&key(n), Marks::All);
                self.model.marks.retain(|(of, _), _| *of != n);
            }
            Step::DropByHand(which) => {
                if self.model.asks.is_empty() {
                    return;
                }
                let (n, id) = self.model.asks.remove(which % self.model.asks.len());
                drop_record(self.dir.path(), &ask(n, id).id.0).unwrap();
                assert_eq!(self.spool.vanished(&[ask(n, id).id]), [ask(n, id).id]);
            }
            Step::FailSync(directory) => {
                let which = if directory { Synced::Directory } else { Synced::File };
                self.syncs.lock().unwrap().fail = Some((which, 5));
                let failed = self.spool.write_ask(&ask(1, id));
                assert!(failed.is_err());
                self.syncs.lock().unwrap().fail = None;
                // Tried again from memory: there now.
                self.spool.write_ask(&ask(1, id)).unwrap();
                self.model.asks.push((1, id));
            }
            Step::Kill => self.reopen(),
            Step::Release(n) => {
                let of_key = self.spool.held().filter(|(_, record)| record.key == key(n));
                let ids: Vec<RecordId> = of_key.map(|(_, record)| record.id.clone()).collect();
                self.spool.release(&ids);
                self.model.corrupt += self.spool.take_own(&key(n)).unwrap().problems.len();
            }
            Step::Damage(file, bit) => {
                if self.model.asks.is_empty() {
                    return;
                }
                let (n, id) = self.model.asks.remove(file % self.model.asks.len());
                let path = path_of(&self.dir, Kind::Ask, &ask(n, id));
                let mut bytes = fs::read(&path).unwrap();
                let at = bit % (bytes.len() * 8);
                bytes[at / 8] ^= 1 << (at % 8);
                fs::write(&path, bytes).unwrap();
                self.reopen();
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let listing = scan(self.dir.path()).unwrap();
        let number = |entry: &Entry| u64::from_str_radix(&entry.record.id.0, 16).unwrap();
        let asks: Vec<u64> =
            listing.asks.iter().map(number).filter(|id| !self.model.either.contains(id)).collect();
        let accepted: Vec<u64> = self.model.asks.iter().map(|(_, id)| *id).collect();
        prop_assert_eq!(asks, accepted, "each accepted ask is there until it is settled, and no other");
        let mut marks: Vec<u64> = listing.marks.iter().map(number).collect();
        marks.sort_unstable();
        let mut expected: Vec<u64> = self.model.marks.values().copied().collect();
        expected.sort_unstable();
        prop_assert_eq!(marks, expected);
        prop_assert!(listing.entries().all(|entry| entry.locked), "all of them are held");
        prop_assert_eq!(listing.corrupt.len(), self.model.corrupt);
        prop_assert_eq!((listing.problems.len(), listing.unreadable.len()), (0, 0));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn g1_what_was_accepted_is_there_until_it_is_settled_whatever_happens(steps in steps()) {
        let mut bench = Bench::new();
        for step in &steps {
            bench.step(step);
            bench.check()?;
        }
        bench.reopen();
        bench.check()?;
    }
}
