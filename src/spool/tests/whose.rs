//! Two Dragonflies on one spool.

use super::*;

fn managers(name: &str) -> Managers {
    Managers::of([format!("grpc://manager.{name}.svc:65003")])
}

/// The spool as an agent of this Dragonfly's uses it.
fn of(dir: &Path, name: &str) -> Spool {
    let holder = Holder { managers: managers(name), ports: vec![8002] };
    Spool::open(dir, Limits::default()).unwrap().held_by(holder)
}

fn for_manager(record: Record, name: &str) -> Record {
    Record { managers: managers(name), ..record }
}

fn others(spool: &mut Spool, own: u64) -> (Vec<(Kind, u64)>, Vec<u64>) {
    let taken = spool.adopt(&key(own)).unwrap().others.unwrap().unwrap();
    let strangers = taken.strangers.iter().map(|record| record.at % 1000).collect();
    (ids(&taken.records), strangers)
}

#[test]
fn a_record_names_the_manager_of_whoever_wrote_it() {
    let dir = dir();
    let mut spool = of(dir.path(), "one");
    spool.write_ask(&ask(1, 1)).unwrap();
    spool.write_mark(&seen(1, 2)).unwrap();
    let listing = scan(dir.path()).unwrap();
    let records: Vec<Record> = listing.entries().map(|entry| entry.record.clone()).collect();
    assert_eq!(records, [for_manager(ask(1, 1), "one"), for_manager(seen(1, 2), "one")]);
    // Written again, it is the same.
    spool.write_ask(&ask(1, 1)).unwrap();
    assert_eq!(scan(dir.path()).unwrap().asks.len(), 1);
}

#[test]
fn g1_an_ask_for_another_manager_is_told_and_stays_unlocked_for_its_own() {
    let dir = dir();
    of(dir.path(), "one").write_ask(&ask(1, 1)).unwrap();
    let mut two = of(dir.path(), "two");
    two.write_ask(&ask(2, 2)).unwrap();
    assert_eq!(others(&mut two, 2), (vec![], vec![1]));
    assert!(!scan(dir.path()).unwrap().find(&ask(1, 1).id.0).unwrap().locked);
    // Beside a living agent of the other Dragonfly's, which keeps the house.
    let mut one = of(dir.path(), "one");
    let adopted = one.adopt(&key(3)).unwrap();
    assert!(!adopted.keeps_house && !adopted.is_nothing());
    assert_eq!(ids(&adopted.others.unwrap().unwrap().records), [(Kind::Ask, 1)]);
    assert_eq!(two.count().unwrap().for_another, 1);
}

#[test]
fn g6_one_process_takes_what_is_for_its_dragonfly() {
    let dir = dir();
    let (mut first, mut second) = (of(dir.path(), "one"), of(dir.path(), "one"));
    assert!(matches!(first.adopt(&key(8)).unwrap().others, Ok(Some(_))));
    of(dir.path(), "one").write_ask(&ask(1, 1)).unwrap();
    assert!(matches!(second.adopt(&key(9)).unwrap().others, Ok(None)));
    drop(first);
    assert_eq!(others(&mut second, 9), (vec![(Kind::Ask, 1)], vec![]));
}

#[test]
fn g5_a_twin_s_records_are_not_its_own_though_the_key_is_the_same() {
    let dir = dir();
    let mut one = of(dir.path(), "one");
    one.write_ask(&ask(1, 1)).unwrap();
    one.write_mark(&seen(1, 2)).unwrap();
    drop(one);
    // Of a release that didn't say it, with the port of another scheduler on this node.
    let port = |record: Record, port| Record { address: Some((record.key.ip.get(), port).into()), ..record };
    open(&dir).write_ask(&port(ask(1, 3), 9002)).unwrap();
    open(&dir).write_ask(&port(ask(1, 4), 8002)).unwrap();
    let mut two = of(dir.path(), "two");
    let adopted = two.adopt(&key(1)).unwrap();
    assert_eq!(ids(&adopted.own.records), [(Kind::Ask, 4)]);
    let others = adopted.others.unwrap().unwrap();
    assert_eq!(ids(&others.records), []);
    assert_eq!(others.strangers.iter().map(|record| record.at % 1000).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(
        ids(&of(dir.path(), "one").take_own(&key(1)).unwrap().records),
        [(Kind::Ask, 1), (Kind::Mark, 2)]
    );
}

#[test]
fn g6_the_marks_of_a_twin_stay_where_they_are() {
    let dir = dir();
    // The same key at both managers.
    of(dir.path(), "two").write_mark(&seen(1, 2)).unwrap();
    of(dir.path(), "one").write_ask(&ask(1, 1)).unwrap();
    let mut one = of(dir.path(), "one");
    assert_eq!(others(&mut one, 9), (vec![(Kind::Ask, 1)], vec![]));
    one.settle(&[ask(1, 1).id], false).unwrap();
    one.drop_marks(&key(1), Marks::All).unwrap();
    let left = scan(dir.path()).unwrap().marks;
    assert_eq!(
        left.iter().map(|entry| entry.record.clone()).collect::<Vec<_>>(),
        [for_manager(seen(1, 2), "two")]
    );
}

#[test]
fn an_ask_that_says_nothing_is_told_to_each_and_taken_by_name() {
    let dir = dir();
    open(&dir).write_ask(&ask(1, 1)).unwrap();
    let (mut one, mut two) = (of(dir.path(), "one"), of(dir.path(), "two"));
    assert_eq!(others(&mut one, 8), (vec![], vec![1]));
    assert_eq!(others(&mut two, 9), (vec![], vec![1]));
    assert_eq!(ids(&two.take_these(&[ask(1, 1).id]).unwrap().records), [(Kind::Ask, 1)]);
    assert_eq!(others(&mut one, 8), (vec![], vec![]));
    assert_eq!(ids(&one.take_these(&[ask(1, 1).id]).unwrap().records), []);
    two.release(&[ask(1, 1).id]);
    assert_eq!(ids(&one.take_these(&[ask(1, 1).id]).unwrap().records), [(Kind::Ask, 1)]);
}

#[test]
fn a_flush_takes_what_is_for_its_manager_whoever_leads_and_names_what_is_held() {
    let dir = dir();
    let mut living = of(dir.path(), "one");
    assert!(living.adopt(&key(9)).unwrap().keeps_house);
    living.write_ask(&ask(9, 9)).unwrap();
    of(dir.path(), "one").write_ask(&ask(1, 1)).unwrap();
    of(dir.path(), "two").write_ask(&ask(2, 2)).unwrap();
    let unheld = of(dir.path(), "one").take_unheld().unwrap();
    assert_eq!(ids(&unheld.taken.records), [(Kind::Ask, 1)]);
    assert_eq!(unheld.taken.strangers, [for_manager(ask(2, 2), "two")]);
    assert_eq!(unheld.held, [for_manager(ask(9, 9), "one")]);
}

#[test]
fn what_lies_in_the_directory_that_all_used_is_taken_from_there() {
    let dir = dir();
    let before = dir.path().join("spool");
    // Of a release before, and of this one.
    let mut old = Spool::open(&before, Limits::default()).unwrap();
    for n in [1, 2] {
        old.write_ask(&ask(n, n)).unwrap();
        old.write_mark(&seen(n, 10 + n)).unwrap();
    }
    drop(old);
    of(&before, "one").write_ask(&ask(3, 3)).unwrap();
    let mut spool = of(&before.join("one"), "one");
    spool.write_ask(&ask(1, 9)).unwrap();
    let adopted = spool.adopt(&key(1)).unwrap();
    // Its own, since the port is its own; the other key's that says nothing is told.
    assert_eq!(ids(&adopted.own.records), [(Kind::Ask, 1), (Kind::Mark, 11)]);
    assert!(!adopted.is_nothing());
    let others = adopted.others.unwrap().unwrap();
    assert_eq!((ids(&others.records), others.strangers), (vec![(Kind::Ask, 3)], vec![ask(2, 2)]));
    assert_eq!(ids(&spool.take_these(&[ask(2, 2).id]).unwrap().records), [(Kind::Ask, 2)]);
    assert_eq!(spool.count().unwrap(), Count { asks: 4, marks: 2, ..Count::default() });
    assert_eq!(scan(&before.join("one")).unwrap().asks.len(), 4);
    // Settled where they lie.
    let all: Vec<RecordId> = spool.held().map(|(_, record)| record.id.clone()).collect();
    spool.settle(&all, true).unwrap();
    spool.settle(&[ask(2, 2).id], false).unwrap();
    let left = files(&before);
    assert_eq!(left.iter().filter(|name| name.ends_with(".ask.json")).count(), 0, "{left:?}");
    drop(spool);
    // Nothing new is written there, and nobody below takes from a directory that is no spool.
    assert_eq!(scan(&before.join("one")).unwrap().marks.len(), 5, "{left:?}");
    assert!(of(&dir.path().join("beside"), "one").adopt(&key(1)).unwrap().is_nothing());
}

#[test]
fn g1_what_was_taken_from_the_older_directory_and_is_dropped_there_is_dropped() {
    let dir = dir();
    let before = dir.path().join("spool");
    of(&before, "one").write_ask(&ask(1, 1)).unwrap();
    let mut spool = of(&before.join("one"), "one");
    assert_eq!(ids(&spool.take_own(&key(1)).unwrap().records), [(Kind::Ask, 1)]);
    assert_eq!(spool.vanished(&[ask(1, 1).id]), []);
    drop_record(&before.join("one"), &ask(1, 1).id.0).unwrap();
    assert_eq!(spool.vanished(&[ask(1, 1).id]), [ask(1, 1).id]);
    assert_eq!(files(&before), ["one"]);
}

#[test]
fn g1_an_older_directory_that_can_not_be_read_is_said_and_counts_as_unread() {
    use super::faults::watched_in;
    let dir = dir();
    let before = dir.path().join("spool");
    of(&before, "one").write_ask(&ask(1, 1)).unwrap();
    for (looks, listings) in [(true, usize::MAX), (false, 2)] {
        let (spool, syncs) = watched_in(&before.join("one"));
        let mut spool = spool.held_by(Holder { managers: managers("one"), ports: vec![8002] });
        {
            let mut syncs = syncs.lock().unwrap();
            syncs.no_look_at = looks.then(|| before.join("spool.lock"));
            // Its own directory's are fine.
            syncs.listings = listings.saturating_sub(1);
        }
        let unheld = spool.take_unheld().unwrap();
        assert_eq!((ids(&unheld.taken.records), unheld.taken.unreadable), (vec![], 1), "{looks}");
        assert!(unheld.taken.problems[0].why.contains("Input/output error"), "{:?}", unheld.taken.problems);
        syncs.lock().unwrap().listings = listings.saturating_sub(1);
        assert_eq!(spool.take_own(&key(1)).unwrap().problems.len(), 1, "{looks}");
    }
    assert_eq!(ids(&of(&before.join("one"), "one").take_own(&key(1)).unwrap().records), [(Kind::Ask, 1)]);
}

#[test]
fn g6_what_an_agent_before_asked_of_a_manager_by_another_name_may_still_be_applied() {
    let dir = dir();
    let at = |port| Record { address: Some((ask(1, 1).key.ip.get(), port).into()), ..ask(1, 1) };
    for (port, busy) in [(8002, 1), (9002, 0)] {
        of(dir.path(), "one").write_ask(&at(port)).unwrap();
        let taken = of(dir.path(), "two").take_own(&key(1)).unwrap();
        assert_eq!((taken.records.len(), taken.busy, taken.strangers.len()), (0, busy, 0), "{port}");
    }
}
