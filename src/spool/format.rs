//! A record's file: its name, and its one line.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{
    error::SpoolError,
    record::{Kind, Record, RecordId, What},
};
use crate::key::SchedulerKey;

/// The version this release writes.
pub(crate) const VERSION: u64 = 1;
/// More than any record needs: a longer file is no record.
pub(crate) const MAX_BYTES: u64 = 64 * 1024;

const PREFIX: &str = "{\"crc32\":\"";
const SUFFIX: &str = "\",";
/// The checksum covers everything from here to the end of the file.
const COVERED_FROM: usize = PREFIX.len() + 8 + SUFFIX.len();

/// A record's file name: `<hash of key>.<id>.ask.json` or `.mark.json`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileName {
    /// CRC-32 of the key's canonical text, 8 hexadecimal digits: which files may be a key's own.
    pub(crate) hash: String,
    pub(crate) id: RecordId,
    pub(crate) kind: Kind,
}

impl FileName {
    /// The name a record's file has.
    pub(crate) fn of(kind: Kind, record: &Record) -> Self {
        Self { hash: key_hash(&record.key), id: record.id.clone(), kind }
    }

    /// Reads a name back; anything else than what [`FileName`] displays is `None`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (stem, kind) = match (name.strip_suffix(".ask.json"), name.strip_suffix(".mark.json")) {
            (Some(stem), _) => (stem, Kind::Ask),
            (_, Some(stem)) => (stem, Kind::Mark),
            _ => return None,
        };
        let (hash, id) = stem.split_once('.')?;
        let parsed = is_hex(hash, 8) && is_id(id);
        parsed.then(|| Self { hash: hash.to_owned(), id: RecordId(id.to_owned()), kind })
    }

    /// Whether a file of this name claims to be a record, well named or not.
    pub(crate) fn claims(name: &str) -> bool {
        name.ends_with(".ask.json") || name.ends_with(".mark.json")
    }

    /// A name for the file while it is written. Unlike a record's name it starts with a dot and ends in `.tmp`.
    pub(crate) fn temporary(&self) -> String {
        format!(".{}.{}.{:08x}.tmp", self.hash, self.id, fastrand::u32(..))
    }

    /// Whether a name is one that [`FileName::temporary`] made.
    pub(crate) fn is_temporary(name: &str) -> bool {
        let parts: Vec<&str> = name.split('.').collect();
        matches!(parts[..], ["", hash, id, random, "tmp"] if is_hex(hash, 8) && is_id(id) && is_hex(random, 8))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Ask => "ask",
            Kind::Mark => "mark",
        };
        write!(f, "{}.{}.{kind}.json", self.hash, self.id)
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text is a record's id: 16 hexadecimal digits in lower case.
pub(crate) fn is_id(text: &str) -> bool {
    is_hex(text, 16)
}

/// CRC-32 as in Ethernet, gzip and PNG (IEEE 802.3).
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    // A byte at a time, by a table of 1 KiB: a record has some hundred.
    static CRC_32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    CRC_32.checksum(bytes)
}

/// CRC-32 of `<cluster id>/<hostname>/<ip>`, as 8 hexadecimal digits.
pub(crate) fn key_hash(key: &SchedulerKey) -> String {
    let text = format!("{}/{}/{}", key.cluster_id, key.hostname, key.ip);
    format!("{:08x}", crc32(text.as_bytes()))
}

/// What is wrong with a file's content, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("it does not begin as a record does")]
    Frame,
    #[error("its checksum is {written}, but its content's is {computed}")]
    Checksum { written: String, computed: String },
    #[error("its content is no record: {0}")]
    Content(String),
    #[error("its content is the record {id} of {key}, which belongs in the file {name}")]
    Misnamed { id: RecordId, key: Box<SchedulerKey>, name: String },
    #[error("it is named an ask, but its record is no sign-off")]
    NoSignOff,
    #[error(
        "it asks to sign {key} off, but names {address} as the place to look first, which is not that scheduler's"
    )]
    Elsewhere { key: Box<SchedulerKey>, address: SocketAddr },
    #[error("its name is not <8 hexadecimal digits>.<16 hexadecimal digits>.ask.json or .mark.json")]
    Name,
    #[error("it is no regular file")]
    NoFile,
}

/// What a whole file holds.
#[derive(Debug)]
pub(crate) enum Content {
    Record(Box<Record>),
    /// Whole, but of a version this release doesn't know.
    Newer(u64),
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Serialize)]
struct Body<'a> {
    version: u64,
    record: &'a Record,
}

#[derive(Deserialize)]
struct OwnedBody {
    record: Record,
}

/// An ask's address where its IP is not its key's: a look there would say nothing of the scheduler that is to be signed off.
/// (A mark's may be another: where the agent beside it saw it serve.)
pub(crate) fn elsewhere(ask: &Record) -> Option<SocketAddr> {
    ask.address.filter(|address| address.ip().to_canonical() != ask.key.ip.get())
}

/// The bytes of a record's file.
pub(crate) fn encode(record: &Record) -> Result<Vec<u8>, SpoolError> {
    let body = serde_json::to_string(&Body { version: VERSION, record })
        .map_err(|e| SpoolError::BadRecord { id: record.id.to_string(), why: e.to_string() })?;
    // The body without its opening brace follows the checksum, so that it covers the version too.
    let covered = format!("{}\n", body.strip_prefix('{').unwrap_or(&body));
    let crc = crc32(covered.as_bytes());
    Ok(format!("{PREFIX}{crc:08x}{SUFFIX}{covered}").into_bytes())
}

/// Reads a file's bytes back.
pub(crate) fn decode(name: &FileName, bytes: &[u8]) -> Result<Content, Damage> {
    if bytes.is_empty() {
        return Err(Damage::Empty);
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Damage::TooLong);
    }
    let written = bytes
        .strip_prefix(PREFIX.as_bytes())
        .and_then(|rest| rest.get(..8))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .ok_or(Damage::Frame)?;
    let covered = bytes.get(COVERED_FROM..).ok_or(Damage::Frame)?;
    if bytes.get(COVERED_FROM - SUFFIX.len()..COVERED_FROM) != Some(SUFFIX.as_bytes()) {
        return Err(Damage::Frame);
    }
    let computed = format!("{:08x}", crc32(covered));
    if computed != written {
        return Err(Damage::Checksum { written: written.escape_debug().to_string(), computed });
    }
    let content = |error: serde_json::Error| Damage::Content(error.to_string());
    let version = serde_json::from_slice::<Versioned>(bytes).map_err(content)?.version;
    if version > VERSION {
        return Ok(Content::Newer(version));
    }
    if version < VERSION {
        return Err(Damage::Content(format!("there is no version {version}")));
    }
    let record = serde_json::from_slice::<OwnedBody>(bytes).map_err(content)?.record;
    if FileName::of(name.kind, &record) != *name {
        let right = FileName::of(name.kind, &record).to_string();
        return Err(Damage::Misnamed { id: record.id, key: Box::new(record.key), name: right });
    }
    if name.kind == Kind::Ask && !matches!(record.what, What::SignOff { .. }) {
        return Err(Damage::NoSignOff);
    }
    if let (Kind::Ask, Some(address)) = (name.kind, elsewhere(&record)) {
        return Err(Damage::Elsewhere { key: Box::new(record.key), address });
    }
    Ok(Content::Record(Box::new(record)))
}
