//! One manager process: what it remembers between calls, and forgets when it dies.
//!
//! Three caches stand between a read and the table, and a test that trusts a read must know them. The *query cache* (30 s)
//! keeps the results of reads of the database and loses all of them when this process writes anything. *Memory* (3 min)
//! and *Redis* (5 min, shared by all managers of a [`Database`]) keep gRPC's lists; KeepAlive's two moments delete a
//! cluster's list in Redis and in this process' memory, never in another's. Empty lists aren't kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    enforcer::Enforcer,
    fault::Faults,
    manager::{Config, Release},
    table::{
        Account, By, Cached, Database, Millis, Patch, Registration, Rule, Selector, TableError, TableRow,
    },
};
use crate::manager::State;

const QUERY_CACHE: Duration = Duration::from_secs(30);
const MEMORY: Duration = Duration::from_secs(180);
const REDIS: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
struct Memory {
    lists: HashMap<String, Cached>,
    queries: HashMap<String, Cached>,
    /// How many rows match, and until when that is handed out.
    counts: HashMap<String, (Millis, usize)>,
    /// Sign-ins that the query cache answers, without the password's hash.
    users: HashMap<String, Millis>,
    /// Lookups of a row that run now: later ones share the first one's result, but not its error.
    lookups: HashMap<Selector, u32>,
}

/// One life of a manager process.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) database: Arc<Database>,
    pub(super) faults: Arc<Faults>,
    pub(super) latency: Duration,
    enforcer: Enforcer,
    pub(super) token_life: Duration,
    pub(super) release: Release,
    pub(super) zone_hours: i8,
    memory: Mutex<Memory>,
}

fn millis(time: Duration) -> Millis {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4)
}

impl Node {
    /// A process that starts: the users it is set up with are in the database, the rules of all roles in its memory.
    pub(super) fn new(
        database: Arc<Database>,
        faults: Arc<Faults>,
        config: &Config,
    ) -> Result<Self, TableError> {
        for user in &config.users {
            database.set_up_user(&user.name, &user.password, user.role.name())?;
        }
        Ok(Self {
            enforcer: Enforcer::load(&database)?,
            database,
            faults,
            latency: config.latency,
            token_life: config.token_life,
            release: config.release,
            zone_hours: config.zone_hours,
            memory: Mutex::default(),
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the database takes for a statement.
    pub(super) async fn database_time(&self, share: u32) {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency / share).await;
        }
    }

    fn wrote(&self) {
        let mut memory = self.memory();
        memory.queries.clear();
        memory.counts.clear();
        memory.users.clear();
    }

    /// A read through the query cache.
    pub(super) fn query(
        &self,
        statement: String,
        select: impl FnOnce(&[TableRow]) -> Vec<TableRow>,
    ) -> Result<Vec<TableRow>, TableError> {
        let now = self.database.now();
        if let Some(cached) = self.memory().queries.get(&statement).filter(|c| c.until > now) {
            return Ok(cached.rows.clone());
        }
        let rows = self.database.select(select)?;
        let entry = Cached { until: now + millis(QUERY_CACHE), rows: rows.clone() };
        self.memory().queries.insert(statement, entry);
        Ok(rows)
    }

    /// A count through the query cache.
    pub(super) fn count(
        &self,
        statement: String,
        count: impl FnOnce(&[TableRow]) -> usize,
    ) -> Result<usize, TableError> {
        let now = self.database.now();
        if let Some((_, cached)) = self.memory().counts.get(&statement).filter(|(until, _)| *until > now) {
            return Ok(*cached);
        }
        let rows = self.database.select(count)?;
        self.memory().counts.insert(statement, (now + millis(QUERY_CACHE), rows));
        Ok(rows)
    }

    /// A list through memory, Redis and the query cache.
    pub(super) fn list(
        &self,
        key: &str,
        statement: &str,
        wanted: impl Fn(&TableRow) -> bool,
    ) -> Result<Vec<TableRow>, TableError> {
        let now = self.database.now();
        if let Some(cached) = self.memory().lists.get(key).filter(|c| c.until > now) {
            return Ok(cached.rows.clone());
        }
        let in_memory = |rows: &[TableRow]| {
            let entry = Cached { until: now + millis(MEMORY), rows: rows.to_vec() };
            self.memory().lists.insert(key.to_owned(), entry);
        };
        if let Some(rows) = self.database.redis_get(key)? {
            in_memory(&rows);
            return Ok(rows);
        }
        let rows = self
            .query(statement.to_owned(), |rows| rows.iter().filter(|row| wanted(row)).cloned().collect())?;
        if !rows.is_empty() {
            self.database.redis_set(key, Cached { until: now + millis(REDIS), rows: rows.clone() })?;
            in_memory(&rows);
        }
        Ok(rows)
    }

    pub(super) fn cluster_list_key(cluster_id: u64) -> String {
        format!("manager:peers:scheduler-clusters:{cluster_id}:schedulers")
    }

    /// What KeepAlive's two moments do to the caches.
    pub(super) fn forget_cluster(&self, cluster_id: u64) -> Result<(), TableError> {
        let key = Self::cluster_list_key(cluster_id);
        self.memory().lists.remove(&key);
        self.database.redis_delete(&key)
    }

    pub(super) fn register(&self, asked: Registration) -> Result<TableRow, TableError> {
        let row = self.database.register(asked)?;
        self.wrote();
        Ok(row)
    }

    pub(super) fn set_state(&self, selector: &Selector, state: State, by: By) -> Result<bool, TableError> {
        let found = self.database.set_state(selector, state, by)?;
        if found {
            self.wrote();
        }
        Ok(found)
    }

    pub(super) fn touch(&self, selector: &Selector) -> Result<(), TableError> {
        if self.release != Release::V2_2 && self.database.touch(selector)? {
            self.wrote();
        }
        Ok(())
    }

    pub(super) fn patch(&self, id: u64, patch: Patch) -> Result<Option<TableRow>, TableError> {
        let row = self.database.patch(id, patch)?;
        self.wrote();
        Ok(row)
    }

    pub(super) fn delete(&self, id: u64) -> Result<bool, TableError> {
        let deleted = self.database.delete(id, By::Rest)?;
        if deleted {
            self.wrote();
        }
        Ok(deleted)
    }

    /// Looks a row up as several calls at once do: true for the one that will hear an error.
    pub(super) async fn lookup(&self, selector: &Selector) -> bool {
        let first = {
            let mut memory = self.memory();
            let running = memory.lookups.entry(selector.clone()).or_default();
            *running += 1;
            *running == 1
        };
        // Given back also where the caller is dropped meanwhile.
        let _running = Running { node: self, selector };
        self.database_time(2).await;
        first
    }

    /// The user of that name and password, as this process sees it: within 30 s of the last look it has lost the password's
    /// hash, and nothing is right.
    pub(super) fn sign_in(&self, name: &str, password: &str) -> Result<Option<Account>, TableError> {
        // Nobody is no result, and isn't kept.
        let Some(user) = self.database.user(name)? else { return Ok(None) };
        let now = self.database.now();
        let mut memory = self.memory();
        if memory.users.get(name).is_some_and(|until| *until > now) {
            return Ok(None);
        }
        memory.users.insert(name.to_owned(), now + millis(QUERY_CACHE));
        Ok(user.has_password(password).then_some(user))
    }

    pub(super) fn sign_up(&self, name: &str, password: &str, email: &str) -> Result<Account, TableError> {
        let user = self.database.add_user(name, password, email)?;
        self.add_rule(Rule::Member { user: user.id, role: "guest".to_owned() })?;
        Ok(user)
    }

    /// Who may do what.
    pub(super) fn enforcer(&self) -> &Enforcer {
        &self.enforcer
    }

    /// Adds a rule; false if this process knows it already.
    pub(super) fn add_rule(&self, rule: Rule) -> Result<bool, TableError> {
        let once = self.release == Release::V2_2;
        let added = self.enforcer.add(&self.database, rule, once)?;
        self.wrote();
        Ok(added)
    }

    /// Removes the rules that are `unwanted`; false if this process knows none.
    pub(super) fn remove_rules(&self, unwanted: impl Fn(&Rule) -> bool) -> Result<bool, TableError> {
        let removed = self.enforcer.remove(&self.database, unwanted)?;
        self.wrote();
        Ok(removed)
    }
}

struct Running<'a> {
    node: &'a Node,
    selector: &'a Selector,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut memory = self.node.memory();
        if let Some(running) = memory.lookups.get_mut(self.selector) {
            *running -= 1;
            if *running == 0 {
                memory.lookups.remove(self.selector);
            }
        }
    }
}
