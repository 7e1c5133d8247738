//! What is held stays what it is, whatever becomes of its file.

use super::{
    faults::{Unseen, watched},
    *,
};

/// Renames a copy of a file over it, as a volume that is restored or moved has one.
fn copy_over(path: &Path) {
    let copy = path.with_extension("copy");
    fs::copy(path, &copy).unwrap();
    fs::rename(copy, path).unwrap();
}

fn copy_all(dir: &TempDir) {
    for entry in fs::read_dir(dir.path()).unwrap() {
        copy_over(&entry.unwrap().path());
    }
}

#[test]
fn g1_an_ask_that_was_replaced_by_its_copy_was_dropped_by_nobody_and_is_held_anew() {
    for all in [false, true] {
        let dir = dir();
        let mut spool = open(&dir);
        spool.write_ask(&ask(1, 1)).unwrap();
        match all {
            true => copy_all(&dir),
            false => copy_over(&path_of(&dir, Kind::Ask, &ask(1, 1))),
        }
        // Nobody has the copy locked: whoever looks takes it for a dead process's.
        assert!(!scan(dir.path()).unwrap().asks[0].locked);
        assert_eq!(spool.vanished(&[ask(1, 1).id]), []);
        assert!(scan(dir.path()).unwrap().asks[0].locked, "the copy is the record now");
        assert_eq!(open(&dir).take_own(&key(1)).unwrap().records, []);
        let settled = spool.settle(&[ask(1, 1).id], true).unwrap();
        assert_eq!(settled, Settled { marked: vec![ask(1, 1).id], vanished: vec![] });
    }
}

#[test]
fn g1_an_ask_whose_open_file_is_stale_was_dropped_by_nobody() {
    let dir = dir();
    let (mut spool, syncs) = watched(&dir);
    spool.write_ask(&ask(1, 1)).unwrap();
    for (unseen, errno) in
        [(Unseen::OpenFile, rustix::io::Errno::STALE), (Unseen::Path, rustix::io::Errno::STALE)]
    {
        let mut syncs = syncs.lock().unwrap();
        (syncs.unseen, syncs.looks_fail_with) = (Some(unseen), errno);
        drop(syncs);
        assert_eq!(spool.vanished(&[ask(1, 1).id]), [], "{unseen:?}");
    }
    syncs.lock().unwrap().unseen = None;
    assert_eq!(spool.vanished(&[ask(1, 1).id]), []);
    assert!(scan(dir.path()).unwrap().asks[0].locked);
    fs::remove_file(path_of(&dir, Kind::Ask, &ask(1, 1))).unwrap();
    assert_eq!(spool.vanished(&[ask(1, 1).id]), [ask(1, 1).id]);
}

#[test]
fn g1_an_ask_that_a_restored_volume_lacks_is_written_again() {
    let dir = dir();
    let mut spool = open(&dir);
    spool.write_ask(&ask(1, 1)).unwrap();
    copy_all(&dir);
    // The copy was made before the second was asked.
    let (lock, before) = (dir.path().join("spool.lock"), path_of(&dir, Kind::Ask, &ask(1, 1)));
    assert_eq!(spool.vanished(&[ask(1, 1).id]), []);
    spool.write_ask(&ask(1, 2)).unwrap();
    fs::remove_file(path_of(&dir, Kind::Ask, &ask(1, 2))).unwrap();
    copy_over(&lock);
    copy_over(&before);
    assert_eq!(spool.vanished(&[ask(1, 1).id, ask(1, 2).id]), []);
    let listing = scan(dir.path()).unwrap();
    assert_eq!(listing.asks.iter().map(|entry| entry.locked).collect::<Vec<_>>(), [true, true]);
    // One that is dropped after that is dropped.
    drop_record(dir.path(), &ask(1, 2).id.0).unwrap();
    assert_eq!(spool.vanished(&[ask(1, 1).id, ask(1, 2).id]), [ask(1, 2).id]);
}

#[test]
fn g1_a_look_through_a_restored_volume_loses_nothing_that_is_held() {
    let dir = dir();
    let mut spool = open(&dir);
    spool.write_ask(&ask(1, 1)).unwrap();
    assert!(spool.adopt(&key(1)).unwrap().keeps_house);
    fs::remove_file(path_of(&dir, Kind::Ask, &ask(1, 1))).unwrap();
    copy_over(&dir.path().join("spool.lock"));
    assert!(spool.adopt(&key(1)).unwrap().keeps_house, "by the lock that others take now");
    assert_eq!(spool.vanished(&[ask(1, 1).id]), []);
    assert_eq!(scan(dir.path()).unwrap().asks.len(), 1);
    assert!(!open(&dir).adopt(&key(2)).unwrap().keeps_house);
}

#[test]
fn g1_a_torn_copy_in_the_place_of_an_ask_is_set_aside_and_the_ask_written_again() {
    let dir = dir();
    let mut spool = open(&dir);
    spool.write_ask(&ask(1, 1)).unwrap();
    let path = path_of(&dir, Kind::Ask, &ask(1, 1));
    let torn = fs::read_to_string(&path).unwrap()[..40].to_owned();
    fs::write(path.with_extension("torn"), &torn).unwrap();
    fs::rename(path.with_extension("torn"), &path).unwrap();
    assert_eq!(spool.vanished(&[ask(1, 1).id]), []);
    let listing = scan(dir.path()).unwrap();
    assert_eq!((listing.asks.len(), listing.asks[0].locked, listing.corrupt.len()), (1, true, 1));
    assert_eq!(fs::read_to_string(&listing.corrupt[0]).unwrap(), torn);
}

#[test]
fn g6_a_copy_that_another_process_took_stays_its() {
    let dir = dir();
    let mut first = open(&dir);
    first.write_ask(&ask(1, 1)).unwrap();
    copy_over(&path_of(&dir, Kind::Ask, &ask(1, 1)));
    let mut second = open(&dir);
    assert_eq!(ids(&second.take_own(&key(1)).unwrap().records), [(Kind::Ask, 1)]);
    // Asked for still: both settle it, which is harmless.
    assert_eq!(first.vanished(&[ask(1, 1).id]), []);
    second.settle(&[ask(1, 1).id], false).unwrap();
    assert_eq!(first.vanished(&[ask(1, 1).id]), [ask(1, 1).id]);
}

#[test]
fn an_ask_that_gets_another_file_between_the_opening_and_the_lock_is_taken() {
    let dir = dir();
    let (mut spool, syncs) = watched(&dir);
    open(&dir).write_ask(&ask(1, 1)).unwrap();
    syncs.lock().unwrap().copy_once_opened = Some(path_of(&dir, Kind::Ask, &ask(1, 1)));
    let taken = spool.take_own(&key(1)).unwrap();
    assert_eq!(ids(&taken.records), [(Kind::Ask, 1)]);
    assert!(scan(dir.path()).unwrap().asks[0].locked);
}
