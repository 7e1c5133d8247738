//! The spool's files, one and many.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::Value;

use crate::{
    key::SchedulerKey,
    spool::{
        Limits, Spool,
        format::{self, Content, FileName},
        record::{Cause, Kind, Record, RecordId, What},
        scan,
    },
};

/// Before the checksum's digits, and behind them.
const FRAME: (&str, &str) = ("{\"crc32\":\"", "\",");

/// `body` behind the checksum that is right for it.
fn framed(body: &[u8]) -> Vec<u8> {
    let head = format!("{}{:08x}{}", FRAME.0, format::crc32(body), FRAME.1);
    [head.as_bytes(), body].concat()
}

/// The name that the content itself asks for, read without the spool's own reader.
fn name_for(kind: Kind, bytes: &[u8]) -> FileName {
    let told = || {
        let Value::Object(file) = serde_json::from_slice(bytes).ok()? else { return None };
        let record = file.get("record")?;
        let id = record.get("id")?.as_str()?;
        let key: SchedulerKey = serde_json::from_value(record.get("key")?.clone()).ok()?;
        format::is_id(id).then(|| FileName { hash: format::key_hash(&key), id: RecordId(id.into()), kind })
    };
    told().unwrap_or(FileName { hash: "0".repeat(8), id: RecordId("1".repeat(16)), kind })
}

/// A file's content. First byte: bit 0 an ask or a mark, bit 1 a frame around the rest.
pub fn file(data: &[u8]) {
    let Some((&how, rest)) = data.split_first() else { return };
    let kind = if how & 1 == 0 { Kind::Ask } else { Kind::Mark };
    let bytes = if how & 2 == 0 { rest.to_vec() } else { framed(rest) };
    let name = name_for(kind, &bytes);
    match format::decode(&name, &bytes) {
        Ok(content) => {
            assert!(bytes.len() as u64 <= format::MAX_BYTES);
            assert_eq!(
                bytes,
                framed(&bytes[FRAME.0.len() + 8 + FRAME.1.len()..]),
                "read without its checksum"
            );
            match content {
                Content::Newer(version) => assert!(version > format::VERSION),
                Content::Record(record) => whole(&name, &record),
            }
            // One bit of it is enough.
            let at = usize::from(how) * 31 % bytes.len();
            let mut flipped = bytes;
            flipped[at] ^= 1 << (how >> 5);
            assert!(format::decode(&name, &flipped).is_err(), "read with a bit of byte {at} flipped");
        }
        Err(damage) => {
            assert!(!damage.to_string().is_empty());
        }
    }
}

/// What holds of a record that was read.
fn whole(name: &FileName, record: &Record) {
    assert_eq!(FileName::of(name.kind, record), *name, "read as another one's");
    if name.kind == Kind::Ask {
        assert!(matches!(record.what, What::SignOff { .. }));
        let its_own = |ip: std::net::IpAddr| ip.to_canonical() == record.key.ip.get();
        assert!(record.address.is_none_or(|address| its_own(address.ip())));
    }
    let again = format::encode(record).unwrap();
    match format::decode(name, &again) {
        Ok(Content::Record(read)) => assert_eq!(*read, *record, "written, it reads as another"),
        other => panic!("written, it can't be read: {other:?}"),
    }
    let other = FileName { id: RecordId("f".repeat(16)), ..name.clone() };
    assert!(*name == other || format::decode(&other, &again).is_err(), "read under another name");
}

/// A directory that goes away.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("signoff-fuzz-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Every name, with its content (none: no file).
fn listed(dir: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).ok())).collect()
}

fn known() -> Record {
    Record {
        id: RecordId("00000000000000aa".into()),
        key: SchedulerKey::new(
            7.try_into().unwrap(),
            "known-0".parse().unwrap(),
            "10.9.8.7".parse().unwrap(),
        ),
        what: What::SignOff { cause: Cause::PreStop, drain_until: None },
        address: None,
        listed: true,
        row_updated: None,
        registered: None,
        at: 1_790_000_000_000,
        pod: None,
        managers: Default::default(),
    }
}

/// Puts what the data says into `dir`, beside what is there. A file is: a byte that says what it is, its name's length, its
/// name, its content's length (two bytes), its content.
fn fill(dir: &Path, mut data: &[u8]) {
    while let [how, length, rest @ ..] = data {
        let (name, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        let [high, low, rest @ ..] = rest else { return };
        let length = usize::from(*high) << 8 | usize::from(*low);
        let (content, rest) = rest.split_at(rest.len().min(length));
        data = rest;
        let content = if how & 2 == 0 { content.to_vec() } else { framed(content) };
        let kind = if how & 1 == 0 { Kind::Ask } else { Kind::Mark };
        let name = match how >> 2 & 7 {
            // The right name, whatever it is.
            0..=2 => name_for(kind, &content).to_string(),
            // A name that the known record's could be mistaken for.
            3 => {
                let id = format!("{:016x}", name.len());
                FileName { hash: format::key_hash(&known().key), id: RecordId(id), kind }.to_string()
            }
            4 => name_for(kind, &content).temporary(),
            _ => String::from_utf8_lossy(name).replace(['/', '\0'], "_"),
        };
        let path = dir.join(&name);
        if name.is_empty() || name.len() > 200 || path.symlink_metadata().is_ok() || name.starts_with("..") {
            continue;
        }
        // What can't be made is not there.
        let _ = match how >> 5 {
            6 => fs::create_dir(&path),
            7 => std::os::unix::fs::symlink("nowhere", &path),
            _ => fs::write(&path, &content),
        };
    }
}

/// A whole directory: nothing that is no leftover is removed, nothing is changed, and what is whole is read.
pub fn directory(data: &[u8]) {
    let dir = Directory::new();
    let known = known();
    let name = FileName::of(Kind::Ask, &known);
    fs::write(dir.0.join(name.to_string()), format::encode(&known).unwrap()).unwrap();
    fill(&dir.0, data);
    let before = listed(&dir.0);

    let listing = scan(&dir.0).unwrap();
    assert_eq!(listed(&dir.0), before, "a look changed something");
    assert_eq!(listing.find(&known.id.0).map(|entry| &entry.record), Some(&known), "not read beside others");

    let mut spool = Spool::open(&dir.0, Limits::default()).unwrap();
    let own = spool.take_own(&known.key).unwrap();
    assert!(own.records.contains(&(Kind::Ask, known.clone())), "not taken beside others");
    let foreign = spool.adopt_foreign(None).unwrap().expect("nobody else is there");
    for (name, content) in &before {
        still_there(&dir.0, name, content.as_deref(), &spool);
    }
    let asks = own.records.iter().chain(&foreign.records).filter(|(kind, _)| *kind == Kind::Ask).count();
    assert_eq!(asks, listing.asks.len(), "a look and a taking see different asks");

    let settled = spool.settle(std::slice::from_ref(&known.id), true).unwrap();
    assert_eq!(settled.marked, std::slice::from_ref(&known.id));
    drop(spool);
    let listing = scan(&dir.0).unwrap();
    assert!(listing.marks.iter().any(|entry| entry.record == known), "its mark is lost");
    assert!(listing.problems.is_empty(), "not set aside: {:?}", listing.problems);
}

/// What was there under `name` still is, under that name or set aside.
fn still_there(dir: &Path, name: &str, content: Option<&[u8]>, spool: &Spool) {
    if FileName::is_temporary(name) && content.is_some() {
        return;
    }
    let now = listed(dir);
    if now.get(name).is_some_and(|now| now.as_deref() == content) {
        let Some(content) = content else { return };
        let Some(name) = FileName::parse(name) else { return };
        match format::decode(&name, content) {
            // A mark that no ask needs is let go again.
            Ok(Content::Record(_)) if name.kind == Kind::Mark => {}
            Ok(Content::Record(record)) => assert!(spool.held().any(|held| held == (name.kind, &*record))),
            Ok(Content::Newer(_)) => {}
            Err(damage) => panic!("{name} is damaged ({damage}), and still there"),
        }
        return;
    }
    let aside = |other: &str| other.starts_with(name) && other.ends_with(".corrupt");
    assert!(
        now.iter().any(|(other, now)| aside(other) && now.as_deref() == content),
        "{name} is lost: {:?}",
        now.keys()
    );
    if let (Some(name), Some(content)) = (FileName::parse(name), content) {
        assert!(format::decode(&name, content).is_err(), "{name} is whole, and was set aside");
    }
}
