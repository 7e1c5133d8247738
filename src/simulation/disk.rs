//! A node's disk: what is written is volatile until it is fsynced, and a power loss takes what isn't, or a part of it.
//!
//! A file's content and a directory's names are two things. Without power a file has of its unsynced content a prefix, or
//! garbage; and of the changes of a directory since its last fsync any may have been made, each whole. After a failed fsync of a
//! file another one says that all is well, and its content is lost all the same, as on Linux.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

use rustix::io::Errno;
use tokio::sync::Notify;

use super::{
    dice::Dice,
    dragonflies::{in_the_world, manager_at},
    history::{Event, HAND, History, Pid},
};
use crate::{
    key::SchedulerKey,
    spool::{
        Managers,
        files::{FileSystem, Files, How, OpenFile, Stat},
        format,
        record::{Record, RecordId, What},
    },
};

type Inode = u64;

/// How a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    /// Each call fails with EIO, one time in so many.
    Errors(u64),
    Full,
    ReadOnly,
}

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    synced: bool,
    /// A failed fsync has lost it.
    lost: bool,
}

/// One change of a directory's names.
#[derive(Clone)]
enum Change {
    Link(String, Inode),
    Unlink(String),
    Rename(String, String, Inode),
}

#[derive(Default)]
struct Directory {
    now: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
    unsynced: Vec<Change>,
}

fn change(names: &mut BTreeMap<String, Inode>, change: &Change) {
    match change {
        Change::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
        Change::Unlink(name) => drop(names.remove(name)),
        Change::Rename(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
    }
}

struct State {
    files: BTreeMap<Inode, Content>,
    directories: BTreeMap<PathBuf, Directory>,
    /// Who hears of what comes to a directory.
    listeners: BTreeMap<PathBuf, Vec<Weak<Notify>>>,
    /// Who has which file locked: the process, and the open file.
    locks: BTreeMap<Inode, Vec<(Pid, u64, bool)>>,
    last: u64,
    health: Health,
    /// fsync does nothing: a sabotage.
    lies: bool,
    dice: Dice,
    dead: BTreeSet<Pid>,
    /// A process dies at its so manieth call from now.
    dies: BTreeMap<Pid, u64>,
    /// Which row of the world each record is about.
    about: BTreeMap<RecordId, SchedulerKey>,
    /// Whoever has one of these open is told that it is gone: another file has its name.
    stale: BTreeSet<Inode>,
}

/// A disk. Clones share it.
#[derive(Clone)]
pub(super) struct Disk {
    state: Arc<Mutex<State>>,
    history: History,
}

impl Disk {
    pub(super) fn new(history: History, dice: Dice, lies: bool) -> Self {
        let state = State {
            files: BTreeMap::new(),
            directories: BTreeMap::new(),
            listeners: BTreeMap::new(),
            locks: BTreeMap::new(),
            last: 0,
            health: Health::Well,
            lies,
            dice,
            dead: BTreeSet::new(),
            dies: BTreeMap::new(),
            about: BTreeMap::new(),
            stale: BTreeSet::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), history }
    }

    /// The disk as a process of a manager's agent sees it.
    pub(super) fn seen_by(&self, pid: Pid, manager: usize) -> Files {
        Files::Other(Arc::new(View { disk: self.clone(), pid, manager }))
    }

    /// Hears of each file that comes into a directory.
    pub(super) fn tells_of_what_comes_to(&self, dir: &Path) -> Arc<Notify> {
        let listener = Arc::new(Notify::new());
        let mut state = self.state.lock().unwrap();
        let listeners = state.listeners.entry(dir.to_owned()).or_default();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&listener));
        listener
    }

    pub(super) fn set(&self, health: Health) {
        self.state.lock().unwrap().health = health;
    }

    /// The process is dead: its locks are gone, and nothing it may still do has an effect.
    pub(super) fn kill(&self, pid: Pid) {
        self.state.lock().unwrap().kill(pid);
    }

    /// The process is to die at its so manieth call.
    pub(super) fn kill_at_call(&self, pid: Pid, call: u64) {
        self.state.lock().unwrap().dies.insert(pid, call);
    }

    /// No process is to die at a call any more.
    pub(super) fn spare_all(&self) {
        self.state.lock().unwrap().dies.clear();
    }

    pub(super) fn is_dead(&self, pid: Pid) -> bool {
        self.state.lock().unwrap().dead.contains(&pid)
    }

    /// The power is gone, and what was not synced, or a part of it. All processes are dead before.
    pub(super) fn lose_power(&self) {
        let mut state = self.state.lock().unwrap();
        let State { files, directories, dice, .. } = &mut *state;
        for content in files.values_mut() {
            let mut left = content.durable.clone();
            if !content.synced && !content.now.is_empty() {
                let kept = dice.below(content.now.len() as u64 + 1) as usize;
                left = content.now[..kept].to_vec();
                if dice.one_in(3) {
                    left.resize(content.now.len(), 0);
                }
            }
            content.now.clone_from(&left);
            content.durable = left;
            content.synced = true;
        }
        for directory in directories.values_mut() {
            // The journal's order, cut somewhere; or any of them.
            let cut = dice.below(directory.unsynced.len() as u64 + 1) as usize;
            let in_order = dice.one_in(2);
            let mut names = directory.durable.clone();
            for (at, made) in std::mem::take(&mut directory.unsynced).iter().enumerate() {
                if if in_order { at < cut } else { dice.one_in(2) } {
                    change(&mut names, made);
                }
            }
            directory.now.clone_from(&names);
            directory.durable = names;
        }
        state.locks.clear();
    }

    /// The asks of a directory that would be there after a power loss, whole.
    pub(super) fn durable_asks(&self, dir: &Path) -> Vec<Record> {
        let state = self.state.lock().unwrap();
        let Some(directory) = state.directories.get(dir) else { return Vec::new() };
        let asks = directory.durable.iter().filter(|(name, _)| name.ends_with(".ask.json"));
        asks.filter_map(|(_, inode)| state.record(&state.files.get(inode)?.durable)).collect()
    }

    pub(super) fn has_durable_ask(&self, dir: &Path, key: &SchedulerKey) -> bool {
        self.durable_asks(dir).iter().any(|record| record.key == *key)
    }

    /// The records of a directory, by their files' names.
    pub(super) fn records(&self, dir: &Path) -> Vec<(String, Record)> {
        let state = self.state.lock().unwrap();
        let Some(directory) = state.directories.get(dir) else { return Vec::new() };
        let names = directory.now.iter().filter(|(name, _)| name.ends_with(".json"));
        names
            .filter_map(|(name, inode)| Some((name.clone(), state.record(&state.files.get(inode)?.now)?)))
            .collect()
    }

    /// Whatever nobody holds is as an older release wrote it: it doesn't say which manager it is for.
    pub(super) fn forget_managers(&self, dir: &Path) {
        let mut state = self.state.lock().unwrap();
        let State { files, directories, locks, .. } = &mut *state;
        let Some(directory) = directories.get_mut(dir) else { return };
        for (name, inode) in &directory.now {
            let held = locks.get(inode).is_some_and(|holders| !holders.is_empty());
            let file = files.get_mut(inode).unwrap();
            let synced = directory.durable.get(name) == Some(inode) && file.synced;
            if let Some(record) = record(&file.now).filter(|_| name.ends_with(".json") && synced && !held) {
                file.now = format::encode(&Record { managers: Managers::default(), ..record }).unwrap();
                file.durable.clone_from(&file.now);
            }
        }
    }

    /// The volume is restored, or moved: each of a directory's files is a copy of what it was, and what is open is no file of the
    /// directory's any more. Where `stale`, whoever has one open is told so.
    pub(super) fn replace_by_copies(&self, dir: &Path, stale: bool) {
        let mut state = self.state.lock().unwrap();
        let Some(directory) = state.directories.remove(dir) else { return };
        let mut names = BTreeMap::new();
        for (name, inode) in directory.now {
            state.last += 1;
            let (copy, now) = (state.last, state.files[&inode].now.clone());
            state.files.insert(copy, Content { durable: now.clone(), now, synced: true, lost: false });
            names.insert(name, copy);
            if stale {
                state.stale.insert(inode);
            }
        }
        let directory = Directory { durable: names.clone(), now: names, unsynced: Vec::new() };
        state.directories.insert(dir.to_owned(), directory);
    }

    /// Somebody drops an ask by hand.
    pub(super) fn drop_by_hand(&self, dir: &Path, name: &str) {
        let view = View { disk: self.clone(), pid: HAND, manager: 0 };
        // It may be settled this moment.
        let _ = view.remove(&dir.join(name));
        let _ = view.sync_directory(dir);
    }
}

fn record(bytes: &[u8]) -> Option<Record> {
    let frame: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    serde_json::from_value(frame.get("record")?.clone()).ok()
}

fn errno(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

/// The directory and the name of a path.
fn split(path: &Path) -> (PathBuf, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    (path.parent().unwrap_or(Path::new("/")).to_owned(), name)
}

impl State {
    /// A file's record, with the key that the world knows.
    fn record(&self, bytes: &[u8]) -> Option<Record> {
        let record = record(bytes)?;
        Some(Record { key: self.about.get(&record.id).unwrap_or(&record.key).clone(), ..record })
    }

    fn kill(&mut self, pid: Pid) {
        self.dead.insert(pid);
        self.dies.remove(&pid);
        for holders in self.locks.values_mut() {
            holders.retain(|(holder, _, _)| *holder != pid);
        }
    }

    /// One call of a process.
    fn call(&mut self, pid: Pid, writes: bool) -> io::Result<()> {
        if let Some(left) = self.dies.get_mut(&pid) {
            *left -= 1;
            if *left == 0 {
                self.kill(pid);
            }
        }
        if self.dead.contains(&pid) {
            return Err(errno(Errno::IO));
        }
        match self.health {
            Health::Errors(one_in) if pid != HAND && self.dice.one_in(one_in) => Err(errno(Errno::IO)),
            Health::ReadOnly if writes => Err(errno(Errno::ROFS)),
            _ => Ok(()),
        }
    }

    fn directory(&mut self, dir: &Path) -> io::Result<&mut Directory> {
        self.directories.get_mut(dir).ok_or_else(|| errno(Errno::NOENT))
    }

    fn find(&self, path: &Path) -> io::Result<Inode> {
        let (dir, name) = split(path);
        let directory = self.directories.get(&dir).ok_or_else(|| errno(Errno::NOENT))?;
        directory.now.get(&name).copied().ok_or_else(|| errno(Errno::NOENT))
    }

    fn make(&mut self, dir: &Path, made: Change) -> io::Result<()> {
        let directory = self.directory(dir)?;
        change(&mut directory.now, &made);
        if !matches!(made, Change::Unlink(_)) {
            let listeners = self.listeners.get(dir).into_iter().flatten();
            listeners.filter_map(Weak::upgrade).for_each(|listener| listener.notify_one());
        }
        self.directory(dir)?.unsynced.push(made);
        Ok(())
    }
}

/// A disk as one process sees it.
struct View {
    disk: Disk,
    pid: Pid,
    manager: usize,
}

impl View {
    fn gone(&self, name: &str, marked: bool) {
        if let Some(id) = name.strip_suffix(".ask.json").and_then(|name| name.split_once('.')) {
            let id = RecordId(id.1.to_owned());
            self.disk.history.tell(Event::AskGone { pid: self.pid, id, marked });
        }
    }
}

impl FileSystem for View {
    fn wait(&self, _: std::time::Duration) {}

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let mut state = self.disk.state.lock().unwrap();
        state.call(self.pid, false)?;
        if state.directories.contains_key(path) {
            return Ok(Stat { id: (1, 0), is_file: false, is_directory: true, mode: 0o755 });
        }
        let inode = state.find(path)?;
        Ok(Stat { id: (1, inode), is_file: true, is_directory: false, mode: 0o660 })
    }

    fn make_directory(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.disk.state.lock().unwrap();
        state.call(self.pid, true)?;
        state.directories.entry(dir.to_owned()).or_default();
        Ok(())
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.disk.state.lock().unwrap();
        state.call(self.pid, false)?;
        Ok(state.directory(dir)?.now.keys().cloned().collect())
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn OpenFile>> {
        let mut state = self.disk.state.lock().unwrap();
        state.call(self.pid, how != How::Read)?;
        let (dir, name) = split(path);
        let inode = match (state.find(path), how) {
            (Ok(_), How::New) => return Err(errno(Errno::EXIST)),
            (Ok(inode), _) => inode,
            (Err(error), How::Write | How::Read) => return Err(error),
            (Err(_), How::New | How::OrNew) => {
                if state.health == Health::Full {
                    return Err(errno(Errno::NOSPC));
                }
                state.last += 1;
                let inode = state.last;
                state.files.insert(inode, Content::default());
                state.make(&dir, Change::Link(name, inode))?;
                inode
            }
        };
        state.last += 1;
        Ok(Box::new(Open { disk: self.disk.clone(), pid: self.pid, inode, id: state.last }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.disk.state.lock().unwrap();
        state.call(self.pid, true)?;
        let inode = state.find(from)?;
        let ((dir, old), (_, new)) = (split(from), split(to));
        state.make(&dir, Change::Rename(old.clone(), new.clone(), inode))?;
        let is_new = new.ends_with(".json") && old.ends_with(".tmp");
        let written = is_new.then(|| record(&state.files[&inode].now)).flatten().map(|record| {
            // A scheduler may have come from another manager.
            let manager = manager_at(record.managers.endpoints()).unwrap_or(self.manager);
            let key = in_the_world(manager, &record.key);
            state.about.insert(record.id.clone(), key.clone());
            Record { key, ..record }
        });
        let asked = written.filter(|_| new.ends_with(".ask.json"));
        drop(state);
        if let Some(Record { id, key, what: What::SignOff { cause, .. }, listed, .. }) = asked {
            self.disk.history.tell(Event::Asked { pid: self.pid, id, key, cause, listed });
        }
        self.gone(&old, true);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.disk.state.lock().unwrap();
        state.call(self.pid, true)?;
        state.find(path)?;
        let (dir, name) = split(path);
        state.make(&dir, Change::Unlink(name.clone()))?;
        drop(state);
        self.gone(&name, false);
        Ok(())
    }

    fn sync_directory(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.disk.state.lock().unwrap();
        state.call(self.pid, true)?;
        if state.lies || !state.directories.contains_key(dir) {
            return Ok(());
        }
        let directory = state.directory(dir)?;
        directory.unsynced.clear();
        directory.durable = directory.now.clone();
        Ok(())
    }
}

/// An open file.
struct Open {
    disk: Disk,
    pid: Pid,
    inode: Inode,
    id: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        // A test that panicked has the state for itself.
        if let Ok(mut state) = self.disk.state.lock()
            && let Some(holders) = state.locks.get_mut(&self.inode)
        {
            holders.retain(|(_, id, _)| *id != self.id);
        }
    }
}

impl Open {
    fn lock(&self, alone: bool) -> Result<(), TryLockError> {
        let mut state = self.disk.state.lock().unwrap();
        state.call(self.pid, false).map_err(TryLockError::Error)?;
        let holders = state.locks.entry(self.inode).or_default();
        if holders.iter().any(|(_, id, theirs)| *id != self.id && (alone || *theirs)) {
            return Err(TryLockError::WouldBlock);
        }
        holders.retain(|(_, id, _)| *id != self.id);
        holders.push((self.pid, self.id, alone));
        Ok(())
    }
}

impl OpenFile for Open {
    fn stat(&self) -> io::Result<Stat> {
        if self.disk.state.lock().unwrap().stale.contains(&self.inode) {
            return Err(errno(Errno::STALE));
        }
        Ok(Stat { id: (1, self.inode), is_file: true, is_directory: false, mode: 0o660 })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock().unwrap();
        let called = state.call(self.pid, true);
        let full = state.health == Health::Full;
        let cut = state.dice.below(bytes.len() as u64 + 1) as usize;
        let content = state.files.get_mut(&self.inode).unwrap();
        content.synced = false;
        // What fails may have written some of it.
        content.now.extend(if called.is_err() || full { &bytes[..cut] } else { bytes });
        called?;
        if full { Err(errno(Errno::NOSPC)) } else { Ok(()) }
    }

    fn read(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut state = self.disk.state.lock().unwrap();
        state.call(self.pid, false)?;
        let bytes = &state.files[&self.inode].now;
        Ok(bytes[..bytes.len().min(limit as usize)].to_vec())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock().unwrap();
        let called = state.call(self.pid, true);
        let (lies, dead) = (state.lies, state.dead.contains(&self.pid));
        let content = state.files.get_mut(&self.inode).unwrap();
        if let Err(error) = called {
            content.lost |= !dead;
            return Err(error);
        }
        if !lies && !content.lost {
            content.durable = content.now.clone();
            content.synced = true;
        }
        Ok(())
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        self.lock(true)
    }

    fn try_lock_shared(&self) -> Result<(), TryLockError> {
        self.lock(false)
    }

    fn unlock(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock().unwrap();
        if let Some(holders) = state.locks.get_mut(&self.inode) {
            holders.retain(|(_, id, _)| *id != self.id);
        }
        Ok(())
    }
}
