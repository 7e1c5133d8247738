use std::io::Write;

use super::{
    adopt::Sort,
    files::Files,
    scan::{Access, Opened},
    store::Place,
    *,
};

#[test]
fn g1_records_of_a_living_agent_are_left_alone_and_adopted_once_it_is_gone() {
    let dir = dir();
    let mut living = open(&dir);
    living.write_ask(&ask(1, 1)).unwrap();
    living.write_mark(&seen(1, 2)).unwrap();
    let mut other = open(&dir);
    let adopted = other.adopt_foreign(Some(&key(2))).unwrap().unwrap();
    assert_eq!((adopted.records, adopted.problems), (vec![], vec![]));
    assert_eq!(open(&dir).take_own(&key(1)).unwrap().records, []);
    drop(living);
    let adopted = other.adopt_foreign(Some(&key(2))).unwrap().unwrap();
    assert_eq!(ids(&adopted.records), [(Kind::Ask, 1), (Kind::Mark, 2)]);
    // They are its own now, and not told twice.
    assert_eq!(open(&dir).take_own(&key(1)).unwrap().records, []);
    assert_eq!(other.adopt_foreign(Some(&key(2))).unwrap().unwrap().records, []);
    other.settle(&[ask(1, 1).id], false).unwrap();
    other.drop_marks(&key(1), Marks::All).unwrap();
    assert_eq!(files(dir.path()), [""; 0]);
}

#[test]
fn g6_what_another_process_holds_of_a_key_is_said() {
    let dir = dir();
    let mut first = open(&dir);
    first.write_ask(&ask(1, 1)).unwrap();
    let mut second = open(&dir);
    assert_eq!(second.take_own(&key(1)).unwrap().busy, 1);
    assert_eq!(second.take_own(&key(2)).unwrap().busy, 0);
    drop(first);
    let taken = second.take_own(&key(1)).unwrap();
    assert_eq!((taken.records.len(), taken.busy), (1, 0));
}

#[test]
fn g6_one_agent_alone_replays_for_others() {
    let dir = dir();
    open(&dir).write_ask(&ask(9, 9)).unwrap();
    let (mut first, mut second) = (open(&dir), open(&dir));
    assert_eq!(first.adopt_foreign(Some(&key(1))).unwrap().unwrap().records.len(), 1);
    assert!(second.adopt_foreign(Some(&key(2))).unwrap().is_none());
    // The lock is held from then on, whatever there is to do.
    first.release(&[ask(9, 9).id]);
    assert!(second.adopt_foreign(Some(&key(2))).unwrap().is_none());
    drop(first);
    assert_eq!(second.adopt_foreign(Some(&key(2))).unwrap().unwrap().records.len(), 1);
}

#[test]
fn a_lock_file_removed_by_hand_is_made_again_and_still_has_one_holder() {
    let dir = dir();
    let (mut first, mut second) = (open(&dir), open(&dir));
    assert!(first.adopt_foreign(None).unwrap().is_some());
    for entry in fs::read_dir(dir.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let adopted = second.adopt(&key(2)).unwrap();
    assert!(adopted.keeps_house && adopted.others.unwrap().is_some());
    let adopted = first.adopt(&key(1)).unwrap();
    assert!(!adopted.keeps_house && adopted.others.unwrap().is_none());
}

#[test]
fn a_record_settled_between_the_opening_and_the_lock_is_not_taken() {
    let dir = dir();
    let (path, name) = (path_of(&dir, Kind::Ask, &ask(1, 1)), FileName::of(Kind::Ask, &ask(1, 1)));
    for settled_to_mark in [true, false] {
        let mut owner = open(&dir);
        owner.write_ask(&ask(1, 1)).unwrap();
        let opened = scan::open_nonblocking(&Files::Real, &path, Access::Take).unwrap();
        owner.settle(&[ask(1, 1).id], settled_to_mark).unwrap();
        drop(owner);
        opened.try_lock().unwrap();
        assert!(matches!(
            scan::read(&Files::Real, &path, &name, opened, false, Access::Take),
            Some(Opened::Gone)
        ));
    }
}

#[test]
fn a_record_that_somebody_only_looks_at_is_taken_all_the_same() {
    let dir = dir();
    open(&dir).write_ask(&ask(1, 1)).unwrap();
    let looked_at = fs::File::open(path_of(&dir, Kind::Ask, &ask(1, 1))).unwrap();
    looked_at.lock_shared().unwrap();
    let (spool, mut found, mut taken) = (open(&dir), Vec::new(), Taken::default());
    let names = || vec![(FileName::of(Kind::Ask, &ask(1, 1)), Place::Own)];
    spool.take_waiting(names(), &mut found, &mut taken, 1, |_| Sort::Take, || ());
    assert_eq!(found.len(), 0, "it stays with a living owner");
    spool.take_waiting(names(), &mut found, &mut taken, 1, |_| Sort::Take, || looked_at.unlock().unwrap());
    assert_eq!(found.len(), 1);
}

#[test]
fn ones_own_key_is_not_adopted_as_a_foreign_one() {
    let dir = dir();
    let mut before = open(&dir);
    before.write_ask(&ask(1, 1)).unwrap();
    before.write_ask(&ask(2, 2)).unwrap();
    drop(before);
    let mut spool = open(&dir);
    assert_eq!(ids(&spool.adopt_foreign(Some(&key(1))).unwrap().unwrap().records), [(Kind::Ask, 2)]);
    assert_eq!(ids(&spool.take_own(&key(1)).unwrap().records), [(Kind::Ask, 1)]);
}

#[test]
fn one_look_takes_what_is_of_ones_own_key_and_what_is_of_others() {
    let dir = dir();
    let mut before = open(&dir);
    before.write_ask(&ask(1, 1)).unwrap();
    before.write_ask(&ask(2, 2)).unwrap();
    before.write_mark(&seen(2, 3)).unwrap();
    drop(before);
    let (mut first, mut second) = (open(&dir), open(&dir));
    let adopted = first.adopt(&key(1)).unwrap();
    assert_eq!(ids(&adopted.own.records), [(Kind::Ask, 1)]);
    assert_eq!(ids(&adopted.others.unwrap().unwrap().records), [(Kind::Ask, 2), (Kind::Mark, 3)]);
    assert!(first.adopt(&key(1)).unwrap().is_nothing());
    // Nothing is there for the second, but there is another.
    let adopted = second.adopt(&key(3)).unwrap();
    assert!(matches!(adopted.others, Ok(None)) && !adopted.is_nothing(), "{adopted:?}");
    // The first sees the second's, whatever it is.
    second.write_mark(&seen(3, 4)).unwrap();
    assert!(!first.adopt(&key(1)).unwrap().is_nothing());
    drop(second);
    assert!(first.adopt(&key(1)).unwrap().is_nothing());
}

#[test]
fn more_than_are_held_at_a_time_are_taken_in_turns_though_none_is_settled() {
    let dir = dir();
    let mut before = open(&dir);
    for n in 1..=5 {
        before.write_ask(&ask(n, n)).unwrap();
    }
    drop(before);
    let mut spool = Spool::open(dir.path(), Limits { foreign: 2, ..Limits::default() }).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for so_far in [2, 4, 5] {
        let taken = spool.adopt_foreign(None).unwrap().unwrap();
        assert_eq!((taken.records.len(), taken.more), (2, true));
        let full = spool.adopt_foreign(None).unwrap().unwrap();
        assert_eq!((full.records, full.more), (vec![], true));
        let ids: Vec<RecordId> = taken.records.into_iter().map(|(_, record)| record.id).collect();
        spool.release(&ids);
        seen.extend(ids);
        assert_eq!(seen.len(), so_far);
    }
}

#[test]
fn a_count_is_what_a_scan_would_say() {
    let dir = dir();
    let mut spool = open(&dir);
    let mut other = open(&dir);
    spool.write_ask(&ask(1, 1)).unwrap();
    spool.write_mark(&seen(1, 2)).unwrap();
    other.write_ask(&ask(2, 3)).unwrap();
    other.write_ask(&ask(2, 4)).unwrap();
    other.write_mark(&seen(2, 5)).unwrap();
    fs::write(path_of(&dir, Kind::Ask, &ask(3, 6)), "damaged").unwrap();
    fs::write(dir.path().join("00000000.0000000000000000.ask.json.corrupt"), "of long ago").unwrap();
    let newer = "\"version\":2,\"record\":{}}\n";
    let newer = format!("{{\"crc32\":\"{:08x}\",{newer}", crc32fast::hash(newer.as_bytes()));
    fs::write(path_of(&dir, Kind::Ask, &ask(3, 7)), newer).unwrap();
    let (count, listing) = (spool.count().unwrap(), scan(dir.path()).unwrap());
    assert_eq!(count, Count { asks: 3, marks: 2, corrupt: 1, newer: 1, ..Count::default() });
    let of = |len: usize| len as u64;
    let scanned = Count {
        asks: of(listing.asks.len()),
        marks: of(listing.marks.len()),
        corrupt: of(listing.corrupt.len()),
        newer: of(listing.newer.len()),
        for_another: 0,
    };
    assert_eq!(count, scanned);
}

#[test]
fn g1_released_records_may_be_taken_by_the_next() {
    let dir = dir();
    let (mut first, mut second) = (open(&dir), open(&dir));
    for id in [1, 2] {
        first.write_ask(&ask(1, id)).unwrap();
    }
    first.release(&[ask(1, 1).id]);
    assert_eq!(ids(&second.take_own(&key(1)).unwrap().records), [(Kind::Ask, 1)]);
    // What it let go of is no longer its to settle.
    assert_eq!(first.settle(&[ask(1, 1).id], true).unwrap(), Settled::default());
    assert!(path_of(&dir, Kind::Ask, &ask(1, 1)).exists());
}

#[test]
fn g6_asks_for_the_same_key_that_are_still_worked_on_are_not_released_with_its_marks() {
    let dir = dir();
    let mut spool = open(&dir);
    spool.write_ask(&ask(1, 1)).unwrap();
    spool.write_ask(&ask(1, 2)).unwrap();
    spool.write_mark(&seen(1, 3)).unwrap();
    spool.settle(&[ask(1, 1).id], true).unwrap();
    spool.release_with_marks(&[ask(1, 1).id], &key(1));
    assert_eq!(spool.held().collect::<Vec<_>>(), [(Kind::Ask, &ask(1, 2))]);
    // Adopted, it would be replayed beside itself.
    assert_eq!(spool.adopt_foreign(None).unwrap().unwrap().records, []);
}

#[test]
fn a_mark_that_no_ask_needs_stays_for_its_own_agent() {
    let dir = dir();
    let mut before = open(&dir);
    before.write_mark(&seen(1, 1)).unwrap();
    before.write_mark(&seen(2, 2)).unwrap();
    before.write_ask(&ask(2, 3)).unwrap();
    drop(before);
    let mut other = open(&dir);
    assert_eq!(
        ids(&other.adopt_foreign(Some(&key(9))).unwrap().unwrap().records),
        [(Kind::Mark, 2), (Kind::Ask, 3)]
    );
    assert_eq!(ids(&open(&dir).take_own(&key(1)).unwrap().records), [(Kind::Mark, 1)]);
}

#[test]
fn idle_marks_of_the_dead_go_oldest_first_when_the_spool_is_half_full() {
    let dir = dir();
    let mut before = open(&dir);
    for n in 1..=6 {
        before.write_mark(&seen(n, 100 - n)).unwrap();
    }
    drop(before);
    let mut living = open(&dir);
    assert_eq!(living.take_own(&key(6)).unwrap().records.len(), 1, "the oldest, and held");
    let mut own = Spool::open(dir.path(), Limits { records: 8, ..Limits::default() }).unwrap();
    assert_eq!(own.take_own(&key(5)).unwrap().records.len(), 1);
    let adopted = own.adopt_foreign(Some(&key(5))).unwrap().unwrap();
    assert_eq!((adopted.records, adopted.problems), (vec![], vec![]));
    let left: Vec<u64> = scan(dir.path()).unwrap().marks.iter().map(|e| 100 - e.record.at % 1000).collect();
    assert_eq!(left, [6, 5, 2, 1]);
}

#[test]
fn a_damaged_mark_of_a_key_without_asks_is_set_aside_too() {
    let dir = dir();
    fs::write(path_of(&dir, Kind::Mark, &seen(7, 7)), "").unwrap();
    let adopted = open(&dir).adopt_foreign(Some(&key(1))).unwrap().unwrap();
    assert_eq!(adopted.problems.len(), 1);
    assert_eq!(scan(dir.path()).unwrap().corrupt.len(), 1);
}

#[test]
fn g1_a_temporary_file_goes_with_its_writer_and_not_before() {
    let dir = dir();
    let path = dir.path().join(FileName::of(Kind::Ask, &ask(1, 1)).temporary());
    let mut writer = fs::File::create(&path).unwrap();
    writer.write_all(b"{").unwrap();
    writer.lock().unwrap();
    let mut spool = open(&dir);
    assert!(path.exists());
    assert!(spool.adopt_foreign(None).unwrap().is_some());
    assert!(path.exists());
    drop(writer);
    assert!(spool.adopt_foreign(None).unwrap().is_some());
    assert!(!path.exists());
}

#[test]
fn a_key_with_the_same_hash_is_not_taken_for_ones_own() {
    // Two of so many random keys have one CRC-32, by the birthday paradox.
    let mut random = fastrand::Rng::with_seed(7);
    let mut hashes = std::collections::HashMap::new();
    let (one, other) = (0..1_000_000)
        .find_map(|_| {
            let pod = pod(random.u64(..));
            Some((hashes.insert(format::key_hash(&pod), pod.clone())?, pod))
        })
        .unwrap();
    let what = What::SignOff { cause: Cause::Down, drain_until: None };
    let dir = dir();
    let mut before = open(&dir);
    before.write_ask(&record(one.clone(), 1, what.clone())).unwrap();
    before.write_ask(&record(other.clone(), 2, what)).unwrap();
    drop(before);
    let mut spool = open(&dir);
    assert_eq!(ids(&spool.take_own(&other).unwrap().records), [(Kind::Ask, 2)]);
    assert_eq!(ids(&spool.take_own(&one).unwrap().records), [(Kind::Ask, 1)]);
}

fn pod(n: u64) -> SchedulerKey {
    let name = format!("scheduler-{n:016x}");
    SchedulerKey::new(1.try_into().unwrap(), name.parse().unwrap(), "10.0.0.1".parse().unwrap())
}

#[test]
fn g6_agents_that_start_and_look_at_once_lose_and_double_nothing() {
    let dir = dir();
    let mut before = open(&dir);
    for n in 1..=40 {
        before.write_ask(&ask(n, n)).unwrap();
    }
    drop(before);
    let path = dir.path();
    let taken: Vec<u64> = std::thread::scope(|scope| {
        let looking =
            scope.spawn(move || (0..20).for_each(|_| assert_eq!(scan(path).unwrap().asks.len(), 40)));
        let agents: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let mut spool = Spool::open(path, Limits::default()).unwrap();
                    let mut got = Vec::new();
                    for n in 1..=40 {
                        got.extend(
                            ids(&spool.take_own(&key(n)).unwrap().records).into_iter().map(|(_, id)| id),
                        );
                    }
                    (spool, got)
                })
            })
            .collect();
        let agents: Vec<(Spool, Vec<u64>)> = agents.into_iter().map(|agent| agent.join().unwrap()).collect();
        looking.join().unwrap();
        agents.into_iter().flat_map(|(_, got)| got).collect()
    });
    let mut sorted = taken.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), taken.len(), "nothing is taken twice");
    assert_eq!(sorted.len(), 40, "and nothing is left");
}
