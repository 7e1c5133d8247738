//! A record's file in a spool, as every release reads it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use signoff::key::SchedulerKey;

/// Writes an ask that a dead process left, asked at `at` (Unix time in milliseconds) for a scheduler at `address`. Not by the
/// spool: that writes no other version than its own, fsyncs each file and keeps it locked. `managers` are those of the process;
/// with none it is as the releases wrote it that didn't say.
pub(crate) fn write_ask(
    dir: &Path,
    version: u64,
    key: &SchedulerKey,
    id: u64,
    address: &str,
    at: u64,
    managers: &[&str],
) -> io::Result<PathBuf> {
    let mut record = ask(key, id, address, at);
    if !managers.is_empty() {
        record["managers"] = managers.into();
    }
    write(dir, version, key, id, &record)
}

/// The ask of a process that had seen its scheduler's row in the manager.
pub(crate) fn ask(key: &SchedulerKey, id: u64, address: &str, at: u64) -> serde_json::Value {
    serde_json::json!({
        "id": format!("{id:016x}"),
        "key": key,
        "what": "sign-off",
        "cause": "sigterm",
        "address": address,
        "listed": true,
        "at": at,
    })
}

/// Writes an ask, whatever it says.
pub(crate) fn write(
    dir: &Path,
    version: u64,
    key: &SchedulerKey,
    id: u64,
    record: &serde_json::Value,
) -> io::Result<PathBuf> {
    let covered = format!("\"version\":{version},\"record\":{record}}}\n");
    let crc = crc32fast::hash(covered.as_bytes());
    let hash = crc32fast::hash(format!("{}/{}/{}", key.cluster_id, key.hostname, key.ip).as_bytes());
    let path = dir.join(format!("{hash:08x}.{id:016x}.ask.json"));
    fs::write(&path, format!("{{\"crc32\":\"{crc:08x}\",{covered}"))?;
    Ok(path)
}
