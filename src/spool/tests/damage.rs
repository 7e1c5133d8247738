use super::*;

/// Puts `bytes` where `ask(1, 1)` belongs, beside a whole ask, and takes both. Answers the problems.
fn take_beside_a_whole_one(bytes: &[u8], why: &str) -> Vec<Problem> {
    let dir = dir();
    let damaged = path_of(&dir, Kind::Ask, &ask(1, 1));
    fs::write(&damaged, bytes).unwrap();
    fs::write(path_of(&dir, Kind::Ask, &ask(1, 2)), format::encode(&ask(1, 2)).unwrap()).unwrap();
    let mut spool = open(&dir);
    let taken = spool.take_own(&key(1)).unwrap();
    assert_eq!(ids(&taken.records), [(Kind::Ask, 2)], "{why}");
    assert!(!damaged.exists(), "{why}");
    let aside = dir.path().join(format!("{}.corrupt", FileName::of(Kind::Ask, &ask(1, 1))));
    assert_eq!(fs::read(aside).unwrap(), bytes, "{why}");
    taken.problems
}

#[test]
fn g1_a_torn_spool_file_is_set_aside_and_the_rest_is_replayed() {
    let whole = format::encode(&ask(1, 1)).unwrap();
    for length in 0..whole.len() {
        let problems = take_beside_a_whole_one(&whole[..length], &format!("cut at {length}"));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].to_string().contains("set aside"), "{}", problems[0]);
    }
}

#[test]
fn g1_a_spool_file_with_any_flipped_bit_is_set_aside_and_the_rest_is_replayed() {
    let whole = format::encode(&ask(1, 1)).unwrap();
    let name = FileName::of(Kind::Ask, &ask(1, 1));
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            assert!(format::decode(&name, &bytes).is_err(), "byte {at}, bit {bit}");
        }
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        assert_eq!(take_beside_a_whole_one(&bytes, &format!("flipped in byte {at}")).len(), 1);
    }
}

#[test]
fn content_that_is_longer_twice_there_or_no_text_is_set_aside() {
    let whole = format::encode(&ask(1, 1)).unwrap();
    let huge = vec![b' '; format::MAX_BYTES as usize + 2];
    for bytes in [
        [&whole[..], b" "].concat(),
        [&whole[..], &whole[..]].concat(),
        [&whole[..], &huge[..]].concat(),
        vec![0; whole.len()],
        vec![0xff; whole.len()],
    ] {
        take_beside_a_whole_one(&bytes, "no record");
    }
}

fn framed(body: &str) -> String {
    format!("{{\"crc32\":\"{:08x}\",{body}", crc32fast::hash(body.as_bytes()))
}

#[test]
fn a_checksum_alone_makes_no_record() {
    let body = |text: String| text[20..].to_owned();
    let whole = body(String::from_utf8(format::encode(&ask(1, 1)).unwrap()).unwrap());
    let other_key = body(String::from_utf8(format::encode(&ask(2, 1)).unwrap()).unwrap());
    let other_id = body(String::from_utf8(format::encode(&ask(1, 3)).unwrap()).unwrap());
    let elsewhere = whole.replace("\"address\":\"10.0.0.1:8002\"", "\"address\":\"10.0.0.2:8002\"");
    let no_sign_off = body(String::from_utf8(format::encode(&seen(1, 1)).unwrap()).unwrap());
    for (text, said) in [
        ("{}\n".to_owned(), "no record"),
        ("\"version\":0,\"record\":{}}\n".to_owned(), "version 0"),
        ("\"version\":-1,\"record\":{}}\n".to_owned(), "invalid value: integer `-1`"),
        (whole.replace("\"cluster_id\":1", "\"cluster_id\":0"), "cluster id"),
        (whole.replace("scheduler.dragonfly", "scheduler..dragonfly"), "hostname"),
        (whole.replace("\"ip\":\"10.0.0.1\"", "\"ip\":\"0.0.0.0\""), "ip"),
        (whole.replace("\"sign-off\"", "\"sing-off\""), "sing-off"),
        (other_key, "belongs in the file"),
        (other_id, "belongs in the file"),
        (no_sign_off, "no sign-off"),
        (elsewhere, "names 10.0.0.2:8002 as the place to look first"),
    ] {
        let problems = take_beside_a_whole_one(framed(&text).as_bytes(), said);
        assert!(problems[0].why.contains(said), "{said:?} not in {:?}", problems[0].why);
    }
}

#[test]
fn an_address_is_its_key_s_however_it_is_written_and_a_mark_s_may_be_the_loopback() {
    let name = FileName::of(Kind::Ask, &ask(1, 1));
    let whole = String::from_utf8(format::encode(&ask(1, 1)).unwrap()).unwrap()[20..].to_owned();
    for address in ["10.0.0.1:8002", "10.0.0.1:1", "[::ffff:10.0.0.1]:8002"] {
        let text = framed(&whole.replace("10.0.0.1:8002", address));
        assert!(format::decode(&name, text.as_bytes()).is_ok(), "{text}");
    }
    let dir = dir();
    let mut spool = open(&dir);
    let served_at = |record: Record| Record { address: "127.0.0.1:8002".parse().ok(), ..record };
    spool.write_mark(&served_at(seen(1, 1))).unwrap();
    assert!(matches!(spool.write_ask(&served_at(ask(1, 2))), Err(SpoolError::BadRecord { .. })));
    drop(spool);
    let taken = open(&dir).take_own(&key(1)).unwrap();
    assert_eq!((ids(&taken.records), taken.problems), (vec![(Kind::Mark, 1)], vec![]));
}

#[test]
fn g1_a_newer_version_is_left_untouched_and_reported() {
    let dir = dir();
    for (n, id) in [(1, 1), (2, 2)] {
        let path = path_of(&dir, Kind::Ask, &ask(n, id));
        fs::write(path, framed("\"version\":2,\"record\":\"in a way we don't know\"}\n")).unwrap();
    }
    let before = files(dir.path());
    let mut spool = open(&dir);
    let own = spool.take_own(&key(1)).unwrap();
    let others = spool.adopt_foreign(Some(&key(1))).unwrap().unwrap();
    assert_eq!((own.records.len(), others.records.len()), (0, 0));
    assert!(own.problems[0].why.contains("version is 2") && own.problems.len() == 1, "{:?}", own.problems);
    assert_eq!(files(dir.path()), before);
    assert_eq!(scan(dir.path()).unwrap().newer.len(), 2);
}

#[test]
fn what_is_no_regular_file_or_wrongly_named_is_set_aside_and_strangers_are_ignored() {
    let dir = dir();
    let name = |id| FileName::of(Kind::Ask, &ask(1, id)).to_string();
    fs::create_dir(dir.path().join(name(1))).unwrap();
    std::os::unix::fs::symlink(dir.path().join("target"), dir.path().join(name(2))).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join(name(3)),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let whole = format::encode(&ask(1, 4)).unwrap();
    for wrong in ["x.ask.json", ".mark.json", "0.0.ask.json", "ABCDEF00.0123456789abcdef.ask.json"] {
        fs::write(dir.path().join(wrong), &whole).unwrap();
    }
    let strangers = ["lost+found", "notes.txt", "ask.json", ".nfs0001", "a.tmp"];
    for stranger in strangers {
        fs::write(dir.path().join(stranger), &whole).unwrap();
    }
    let mut spool = open(&dir);
    spool.write_ask(&ask(1, 9)).unwrap();
    let taken = spool.adopt_foreign(None).unwrap().unwrap();
    assert_eq!(taken.records, []);
    assert_eq!(taken.problems.len(), 7, "{:#?}", taken.problems);
    let left = files(dir.path());
    assert_eq!(left.iter().filter(|name| name.ends_with(".corrupt")).count(), 7);
    assert!(strangers.iter().all(|name| left.contains(&(*name).to_owned())));
    assert_eq!(left.len(), 7 + strangers.len() + 1);
}

#[test]
fn g1_what_was_set_aside_before_is_never_overwritten() {
    let dir = dir();
    let path = path_of(&dir, Kind::Ask, &ask(1, 1));
    let mut spool = open(&dir);
    for content in ["one", "two", "three"] {
        fs::write(&path, content).unwrap();
        assert_eq!(spool.take_own(&key(1)).unwrap().problems.len(), 1);
    }
    let mut kept: Vec<String> =
        files(dir.path()).iter().map(|name| fs::read_to_string(dir.path().join(name)).unwrap()).collect();
    kept.sort();
    assert_eq!(kept, ["one", "three", "two"]);
    assert_eq!(scan(dir.path()).unwrap().corrupt.len(), 3);
}

#[test]
fn g1_a_crash_at_any_step_of_a_write_leaves_the_record_whole_or_not_there() {
    let bytes = format::encode(&ask(1, 2)).unwrap();
    let name = FileName::of(Kind::Ask, &ask(1, 2));
    // Created; written in part; written; renamed.
    for (written, renamed) in
        [(0, false), (bytes.len() / 2, false), (bytes.len(), false), (bytes.len(), true)]
    {
        let dir = dir();
        open(&dir).write_ask(&ask(1, 1)).unwrap();
        let at = dir.path().join(if renamed { name.to_string() } else { name.temporary() });
        fs::write(at, &bytes[..written]).unwrap();
        let mut next = open(&dir);
        let taken = next.take_own(&key(1)).unwrap();
        let expected = if renamed { vec![(Kind::Ask, 1), (Kind::Ask, 2)] } else { vec![(Kind::Ask, 1)] };
        assert_eq!((ids(&taken.records), taken.problems), (expected.clone(), vec![]));
        assert_eq!(files(dir.path()).len(), expected.len(), "nothing else is left");
    }
}

#[test]
fn g1_settling_whose_mark_is_refused_removes_no_ask() {
    let dir = dir();
    let mut spool = open(&dir);
    for id in [1, 2] {
        spool.write_ask(&ask(1, id)).unwrap();
    }
    // A directory under the mark's name: the rename fails.
    let mark = path_of(&dir, Kind::Mark, &ask(1, 2));
    fs::create_dir(&mark).unwrap();
    spool.settle(&[ask(1, 1).id, ask(1, 2).id], true).unwrap_err();
    for id in [1, 2] {
        assert!(path_of(&dir, Kind::Ask, &ask(1, id)).exists(), "{id}");
    }
    fs::remove_dir(&mark).unwrap();
    assert_eq!(spool.settle(&[ask(1, 1).id, ask(1, 2).id], true).unwrap().marked, [ask(1, 2).id]);
}

#[test]
fn g1_a_crash_at_any_step_of_settling_leaves_an_ask_or_its_mark() {
    // Settling 1 and 2, with the mark of 3: rename 2; remove 1; remove 3.
    for steps in 0..=3 {
        let dir = dir();
        let mut spool = open(&dir);
        spool.write_ask(&ask(1, 3)).unwrap();
        spool.settle(&[ask(1, 3).id], true).unwrap();
        for id in [1, 2] {
            spool.write_ask(&ask(1, id)).unwrap();
        }
        drop(spool);
        let (asked, made) = (path_of(&dir, Kind::Ask, &ask(1, 2)), path_of(&dir, Kind::Mark, &ask(1, 2)));
        let moves: [&dyn Fn(); 3] = [
            &|| fs::rename(&asked, &made).unwrap(),
            &|| fs::remove_file(path_of(&dir, Kind::Ask, &ask(1, 1))).unwrap(),
            &|| fs::remove_file(path_of(&dir, Kind::Mark, &ask(1, 3))).unwrap(),
        ];
        moves[..steps].iter().for_each(|step| step());
        let mut next = open(&dir);
        let taken = next.take_own(&key(1)).unwrap();
        assert_eq!(taken.problems, []);
        let asks: Vec<RecordId> =
            taken.records.iter().filter(|(kind, _)| *kind == Kind::Ask).map(|(_, r)| r.id.clone()).collect();
        assert!(
            !asks.is_empty()
                || ids(&taken.records) == [(Kind::Mark, 2)]
                || ids(&taken.records) == [(Kind::Mark, 2), (Kind::Mark, 3)],
            "{steps}"
        );
        // The next agent settles the rest, and ends with one mark.
        next.settle(&asks, true).unwrap();
        if !asks.is_empty() {
            assert_eq!(files(dir.path()).len(), 1, "{steps}");
        }
    }
}
