//! The manager's table of schedulers: [`Database`].
//!
//! Promises what the real table does: every column of it, the unique key (host_name, ip, scheduler_cluster_id), hostnames
//! compared without regard to case (MySQL) or with it (PostgreSQL), `updated_at` moved by every write. Several managers may
//! share one database, in one process (an `Arc`) or as processes over one state file; the shared cache ("Redis") lives
//! here too, and so do the users of the REST API and their roles. Every write of a state is kept in [`Database::history`], so that a test's verdict is read from the table.
//! It doesn't survive a power loss: the state file is replaced atomically, but never fsynced.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::{key::SchedulerKey, manager::State};

mod accounts;
mod file;
mod row;
#[cfg(test)]
mod tests;

pub(crate) use accounts::{Account, Rule};
use row::default_features;
pub use row::{By, Change, Patch, Registration, Selector, TableRow};

/// Milliseconds since the Unix epoch. Moved by tokio's clock, so that a test with paused time moves it too.
pub type Millis = u64;

/// What the database refuses, in its own words.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The unique key (host_name, ip, scheduler_cluster_id) is taken by a row with another port.
    #[error("{0}")]
    Duplicate(String),
    /// The state file can't be read, written or locked.
    #[error("state file {path}: {source}")]
    File {
        /// The state file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The state file holds something else.
    #[error(
        "state file {path} is no table of schedulers: {source}; move it away to start with an empty table"
    )]
    Content {
        /// The state file.
        path: PathBuf,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
}

/// How the database compares hostnames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Collation {
    /// Without regard to case.
    #[default]
    MySql,
    /// Exactly.
    PostgreSql,
}

/// What is stored: the rows, the cache that all managers share, the users and their roles.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Content {
    last_id: u64,
    rows: Vec<TableRow>,
    #[serde(default)]
    redis: BTreeMap<String, Cached>,
    #[serde(default)]
    accounts: accounts::Accounts,
}

/// An entry of a cache: rows that are handed out until a moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cached {
    pub(crate) until: Millis,
    pub(crate) rows: Vec<TableRow>,
}

/// What is stored, as this process knows it, and its writes in order.
#[derive(Debug, Default)]
struct Journal {
    content: Content,
    /// The file that is the content's, of a table in one; none where it is to be read.
    taken: Option<file::Taken>,
    history: Vec<Change>,
}

/// The database and the Redis of a mock Dragonfly installation.
#[derive(Debug)]
pub struct Database {
    collation: Collation,
    started: Instant,
    started_at: Millis,
    file: Option<PathBuf>,
    journal: Mutex<Journal>,
    changes: watch::Sender<u64>,
}

impl Database {
    /// An empty table in memory.
    pub fn in_memory(collation: Collation) -> Arc<Self> {
        Arc::new(Self::new(collation, None))
    }

    /// A table in a JSON file, which other processes may use at the same time; created if it isn't there. Fails if the
    /// file can't be used or holds something else.
    pub fn open(path: &Path, collation: Collation) -> Result<Arc<Self>, TableError> {
        let database = Self::new(collation, Some(path.to_owned()));
        database.access(|content, _| (Some(content.rows.len()), true))?;
        Ok(Arc::new(database))
    }

    fn new(collation: Collation, file: Option<PathBuf>) -> Self {
        let started_at = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        Self {
            collation,
            started: Instant::now(),
            started_at,
            file,
            journal: Mutex::default(),
            changes: watch::channel(0).0,
        }
    }

    /// How it compares hostnames.
    pub fn collation(&self) -> Collation {
        self.collation
    }

    /// Now, by the clock of every time in the table.
    pub fn now(&self) -> Millis {
        self.started_at + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }

    /// All rows, by id.
    pub fn rows(&self) -> Result<Vec<TableRow>, TableError> {
        self.select(<[TableRow]>::to_vec)
    }

    /// What `work` makes of all rows, by id.
    pub(crate) fn select<T>(&self, work: impl FnOnce(&[TableRow]) -> T) -> Result<T, TableError> {
        self.access(|content, _| (work(&content.rows), false))
    }

    /// The row of an id.
    pub fn row(&self, id: u64) -> Result<Option<TableRow>, TableError> {
        self.access(|content, _| (content.rows.iter().find(|r| r.id == id).cloned(), false))
    }

    /// The row of a key.
    pub fn find(&self, key: &SchedulerKey) -> Result<Option<TableRow>, TableError> {
        let selector = Selector::from(key);
        self.access(|content, _| {
            (self.first(&content.rows, &selector).map(|i| content.rows[i].clone()), false)
        })
    }

    /// The state of a key's row; none if there is no row.
    pub fn state(&self, key: &SchedulerKey) -> Result<Option<State>, TableError> {
        Ok(self.find(key)?.map(|row| row.state))
    }

    /// Every write of a state by this process, oldest first.
    pub fn history(&self) -> Vec<Change> {
        self.lock().history.clone()
    }

    /// The number of the last write of a state by this process: changes with each.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until the rows are as `wanted`, whoever writes them; false if they aren't `within` that time.
    pub async fn eventually(&self, within: Duration, mut wanted: impl FnMut(&[TableRow]) -> bool) -> bool {
        let end = Instant::now() + within;
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            if self.rows().is_ok_and(|rows| wanted(&rows)) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            // Other processes over the same file, and touches, are no change here: look again soon all the same.
            let _ = tokio::time::timeout_at(
                end.min(Instant::now() + Duration::from_millis(20)),
                changes.changed(),
            )
            .await;
        }
    }

    /// [`Database::eventually`] for one key's state; none waits for its row to be gone.
    pub async fn eventually_state(&self, key: &SchedulerKey, state: Option<State>, within: Duration) -> bool {
        let selector = Selector::from(key);
        self.eventually(within, |rows| self.first(rows, &selector).map(|i| rows[i].state) == state).await
    }

    /// UpdateScheduler: updates the row with the same hostname, ip, port and cluster, or creates one (inactive). A row of
    /// the same key with another port is [`TableError::Duplicate`].
    pub fn register(&self, asked: Registration) -> Result<TableRow, TableError> {
        let now = self.now();
        let features = if asked.features.is_empty() { default_features() } else { asked.features.clone() };
        self.access(|content, history| {
            let same = Selector {
                hostname: asked.hostname.clone(),
                ip: Some(asked.ip.clone()),
                cluster_id: asked.cluster_id,
            };
            if let Some(i) = self.first(&content.rows, &same) {
                let row = &mut content.rows[i];
                if row.port != asked.port {
                    return (Err(self.duplicate(row)), false);
                }
                row.idc = asked.idc;
                row.location = asked.location;
                row.features = features;
                row.config = asked.config;
                row.last_keep_alive_at = now;
                row.updated_at = now;
                return (Ok(row.clone()), true);
            }
            content.last_id += 1;
            let row = TableRow {
                id: content.last_id,
                created_at: now,
                updated_at: now,
                is_del: 0,
                config: asked.config,
                host_name: asked.hostname,
                idc: asked.idc,
                location: asked.location,
                ip: asked.ip,
                port: asked.port,
                state: State::Inactive,
                features,
                last_keep_alive_at: now,
                scheduler_cluster_id: asked.cluster_id,
            };
            content.rows.push(row.clone());
            self.note(history, &row, None, Some(State::Inactive), By::Register);
            (Ok(row), true)
        })?
    }

    /// Puts rows into the table as they are, the unique key unchecked; a row with the id 0 is given the next one. For tests of
    /// what a register can't make: many rows, odd values, old times. A state put so is no write in [`Database::history`].
    pub fn put(&self, rows: impl IntoIterator<Item = TableRow>) -> Result<(), TableError> {
        self.access(|content, _| {
            for mut row in rows {
                if row.id == 0 {
                    row.id = content.last_id + 1;
                }
                content.last_id = content.last_id.max(row.id);
                content.rows.push(row);
            }
            content.rows.sort_by_key(|row| row.id);
            ((), true)
        })
    }

    /// Writes the state of the row that the selector finds; false if there is none.
    pub fn set_state(&self, selector: &Selector, state: State, by: By) -> Result<bool, TableError> {
        let now = self.now();
        self.access(|content, history| {
            let Some(i) = self.first(&content.rows, selector) else { return (false, false) };
            let row = &mut content.rows[i];
            let before = std::mem::replace(&mut row.state, state);
            row.updated_at = now;
            self.note(history, row, Some(before), Some(state), by);
            (true, true)
        })
    }

    /// Moves `last_keep_alive_at`; false if there is no such row.
    pub fn touch(&self, selector: &Selector) -> Result<bool, TableError> {
        let now = self.now();
        self.access(|content, _| {
            let Some(i) = self.first(&content.rows, selector) else { return (false, false) };
            content.rows[i].last_keep_alive_at = now;
            content.rows[i].updated_at = now;
            (true, true)
        })
    }

    /// Sets what a REST PATCH may set (never the state); none if there is no such row.
    pub fn patch(&self, id: u64, patch: Patch) -> Result<Option<TableRow>, TableError> {
        let now = self.now();
        self.access(|content, _| {
            let Some(row) = content.rows.iter_mut().find(|r| r.id == id) else { return (None, false) };
            row.config = patch.config.unwrap_or(row.config.take());
            row.idc = patch.idc.unwrap_or_else(|| row.idc.clone());
            row.location = patch.location.unwrap_or_else(|| row.location.clone());
            row.ip = patch.ip.unwrap_or_else(|| row.ip.clone());
            row.port = patch.port.unwrap_or(row.port);
            row.features = patch.features.unwrap_or_else(|| row.features.clone());
            row.scheduler_cluster_id = patch.scheduler_cluster_id.unwrap_or(row.scheduler_cluster_id);
            row.updated_at = now;
            (Some(row.clone()), true)
        })
    }

    /// Deletes a row for good; false if there was none.
    pub fn delete(&self, id: u64, by: By) -> Result<bool, TableError> {
        self.access(|content, history| {
            let Some(i) = content.rows.iter().position(|r| r.id == id) else { return (false, false) };
            let row = content.rows.remove(i);
            self.note(history, &row, Some(row.state), None, by);
            (true, true)
        })
    }

    /// A manager's hourly collection: rows that reported a keep-alive interval and were silent for three become inactive;
    /// rows that were inactive, and not written, for over 30 min are deleted.
    pub fn collect(&self) -> Result<(), TableError> {
        const PURGE_AFTER: Millis = 30 * 60 * 1000;
        let now = self.now();
        self.access(|content, history| {
            let gone: Vec<_> = content
                .rows
                .extract_if(.., |r| r.state == State::Inactive && r.updated_at + PURGE_AFTER < now)
                .collect();
            for row in &gone {
                self.note(history, row, Some(row.state), None, By::Collection);
            }
            for row in &mut content.rows {
                let Some(nanos) = row.config["manager_keep_alive_interval"].as_u64() else { continue };
                if row.state == State::Active && row.last_keep_alive_at + 3 * nanos / 1_000_000 < now {
                    row.state = State::Inactive;
                    row.updated_at = now;
                    self.note(history, row, Some(State::Active), Some(State::Inactive), By::Collection);
                }
            }
            ((), true)
        })
    }

    /// Writes a state past every manager, as `UPDATE scheduler SET state = ...` does: no cache is cleared. False if there
    /// is no such row.
    pub fn set_by_hand(&self, key: &SchedulerKey, state: State) -> Result<bool, TableError> {
        self.set_state(&Selector::from(key), state, By::Hand)
    }

    pub(crate) fn redis_get(&self, key: &str) -> Result<Option<Vec<TableRow>>, TableError> {
        let now = self.now();
        self.access(|content, _| {
            (content.redis.get(key).filter(|c| c.until > now).map(|c| c.rows.clone()), false)
        })
    }

    pub(crate) fn redis_set(&self, key: &str, entry: Cached) -> Result<(), TableError> {
        self.access(|content, _| (drop(content.redis.insert(key.to_owned(), entry)), true))
    }

    pub(crate) fn redis_delete(&self, key: &str) -> Result<(), TableError> {
        self.access(|content, _| {
            let was_there = content.redis.remove(key).is_some();
            ((), was_there)
        })
    }

    /// Where the row is that MySQL's `... LIMIT 1` by primary key finds.
    fn first(&self, rows: &[TableRow], selector: &Selector) -> Option<usize> {
        rows.iter().position(|row| {
            row.scheduler_cluster_id == selector.cluster_id
                && selector.ip.as_ref().is_none_or(|ip| row.ip == *ip)
                && match self.collation {
                    Collation::MySql => row.host_name.eq_ignore_ascii_case(&selector.hostname),
                    Collation::PostgreSql => row.host_name == selector.hostname,
                }
        })
    }

    fn duplicate(&self, row: &TableRow) -> TableError {
        TableError::Duplicate(match self.collation {
            Collation::MySql => format!(
                "Error 1062 (23000): Duplicate entry '{}-{}-{}' for key 'scheduler.uk_scheduler'",
                row.host_name, row.ip, row.scheduler_cluster_id
            ),
            Collation::PostgreSql => {
                "ERROR: duplicate key value violates unique constraint \"uk_scheduler\" (SQLSTATE 23505)"
                    .to_owned()
            }
        })
    }

    fn note(
        &self,
        history: &mut Vec<Change>,
        row: &TableRow,
        from: Option<State>,
        to: Option<State>,
        by: By,
    ) {
        history.push(Change {
            seq: history.last().map_or(1, |c| c.seq + 1),
            at: Instant::now(),
            at_millis: self.now(),
            id: row.id,
            host_name: row.host_name.clone(),
            ip: row.ip.clone(),
            scheduler_cluster_id: row.scheduler_cluster_id,
            from,
            to,
            by,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One transaction: `work` says whether it wrote. Where that can't be written to the file, it was not done.
    fn access<T>(
        &self,
        work: impl FnOnce(&mut Content, &mut Vec<Change>) -> (T, bool),
    ) -> Result<T, TableError> {
        let mut journal = self.lock();
        let journal = &mut *journal;
        let before = journal.history.len();
        let done = match &self.file {
            None => work(&mut journal.content, &mut journal.history).0,
            Some(path) => {
                let guard = file::lock(path)?;
                let known = journal.taken.take().filter(|taken| taken.is_at(path));
                journal.taken = match known {
                    Some(taken) => Some(taken),
                    None => {
                        let (content, taken) = file::read(path)?;
                        journal.content = content;
                        taken
                    }
                };
                let (done, wrote) = work(&mut journal.content, &mut journal.history);
                if wrote {
                    // Forgotten first: what can't be written is in the content, and is to be read anew.
                    journal.taken = None;
                    match file::replace(path, &journal.content) {
                        Ok(taken) => journal.taken = Some(taken),
                        Err(e) => {
                            journal.history.truncate(before);
                            return Err(e);
                        }
                    }
                }
                drop(guard);
                done
            }
        };
        if journal.history.len() > before {
            self.changes.send_replace(journal.history.last().map_or(0, |c| c.seq));
        }
        Ok(done)
    }
}
