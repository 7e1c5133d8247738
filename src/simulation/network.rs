//! The manager, and the other pods, as an agent reaches them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{sleep, timeout};

use super::{
    dragonflies::in_the_world,
    history::{Call, CallId, End, Event, Pid},
    repair::{Mesh, Shows},
    world::{Fact, Link, Mood, Script, Shared, failure},
};
use crate::{
    key::{ClusterId, SchedulerKey},
    manager::{
        AttemptOptions, Contact, Failure, Filter, Freshness, Held, HoldStart, Listed, Manager, Outcome,
        Registered, Row, RowRead, RowState, State, Withdraw, times::Stamp,
    },
    net::{Probe, Reach},
};

/// A lie that is told to the agents, to show that the judges see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Lie {
    #[default]
    None,
    /// What nobody acknowledged is confirmed.
    Confirms,
    /// What may still be applied has failed.
    Fails,
    /// The rows are always as they should be.
    Reads,
    /// Nothing answers at any address.
    Probes,
    /// What a mesh's proxy says in TLS is a scheduler's answer.
    Proxies,
    /// A row that was never registered again is said to be.
    Registers,
}

/// The network of one process.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) world: Shared,
    pub(super) pid: Pid,
    pub(super) pod: usize,
    /// Whose manager it comes to.
    pub(super) manager: usize,
    pub(super) lie: Lie,
    rest_worked: std::sync::Arc<AtomicBool>,
}

fn end_of(outcome: &Outcome) -> End {
    match outcome {
        Outcome::Confirmed => End::Confirmed,
        Outcome::Absent => End::Absent,
        Outcome::Rejected(_) => End::Rejected,
        Outcome::Failed(_) => End::Failed,
        Outcome::Unknown(_) => End::Unknown,
    }
}

impl Network {
    pub(super) fn new(world: Shared, pid: Pid, pod: usize, manager: usize, lie: Lie) -> Self {
        Self { world, pid, pod, manager, lie, rest_worked: std::sync::Arc::default() }
    }

    /// The same process' at another manager.
    pub(super) fn at(&self, manager: usize) -> Self {
        Self { manager, ..self.clone() }
    }

    fn is_dead(&self) -> bool {
        let world = self.world.lock();
        world.disks[world.pods[self.pod].node].is_dead(self.pid)
    }

    /// Waits for ever once the process is dead.
    async fn alive(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    fn in_the_world(&self, key: &SchedulerKey) -> SchedulerKey {
        in_the_world(self.manager, key)
    }

    fn tell(&self, event: Event) {
        self.world.lock().history.tell(event);
    }

    fn began(&self, key: &SchedulerKey, what: Call) -> CallId {
        let mut world = self.world.lock();
        world.last_call += 1;
        let (call, pod) = (world.last_call, &world.pods[self.pod]);
        let on_disk = world.disks[pod.node].has_durable_ask(pod.spool.as_ref(), key);
        let target = world.target(key);
        world.history.tell(Event::Began { pid: self.pid, call, key: key.clone(), what, on_disk, target });
        call
    }

    async fn ended(&self, call: CallId, outcome: Outcome) -> Outcome {
        self.alive().await;
        self.tell(Event::Ended { pid: self.pid, call, end: end_of(&outcome) });
        if let (Lie::Fails, Outcome::Unknown(failure)) = (self.lie, &outcome) {
            return Outcome::Failed(failure.clone());
        }
        if self.lie == Lie::Confirms && matches!(outcome, Outcome::Unknown(_) | Outcome::Failed(_)) {
            return Outcome::Confirmed;
        }
        outcome
    }

    /// A replica, or how the connection failed.
    async fn connect(&self, limit: Duration) -> Result<usize, Failure> {
        self.alive().await;
        match self.world.reach(self.pod, self.manager) {
            Ok(replica) => Ok(replica),
            Err(Link::Silent) => {
                sleep(Duration::from_secs(1).min(limit)).await;
                Err(failure("connect: timed out"))
            }
            Err(_) => {
                sleep(Duration::from_millis(1)).await;
                Err(failure("connect: connection refused"))
            }
        }
    }

    async fn run(
        &self,
        call: CallId,
        key: &SchedulerKey,
        replica: usize,
        script: Script,
        limit: Duration,
    ) -> Outcome {
        let answered = self.world.carry_out(replica, key.clone(), format!("call {call}"), script);
        match timeout(limit, answered).await {
            Ok(Ok(outcome)) => outcome,
            _ => Outcome::Unknown(failure("no answer")),
        }
    }

    /// Rows, and how old they may be; as a read of that kind sees them.
    pub(super) async fn rows(&self, filter: Option<&Filter>) -> Result<(Vec<Row>, Freshness), Failure> {
        self.connect(Duration::from_secs(30)).await?;
        let latency = self.world.lock().dice.millis(1, 30);
        let manager = self.manager;
        sleep(latency).await;
        self.alive().await;
        let world = self.world.lock();
        if world.rest && world.rest_works {
            self.rest_worked.store(true, Ordering::Relaxed);
            return Ok((world.rows_before(manager, Duration::ZERO, world.shows), Freshness::Fresh));
        }
        self.rest_worked.store(false, Ordering::Relaxed);
        if world.mood == Mood::Proxied {
            return Err(failure("Unavailable: no healthy upstream"));
        }
        if world.mood == Mood::NoDatabase {
            return Err(failure("dial tcp: connection refused"));
        }
        let age = match filter {
            Some(Filter::Cluster(_)) => world.dice.millis(0, 480_000),
            _ => world.dice.millis(0, 30_000),
        };
        let mut rows = world.rows_before(manager, age, Shows::Nothing);
        if !matches!(filter, Some(Filter::Cluster(_))) {
            rows.retain(|row| row.state == State::Active);
        }
        Ok((rows, Freshness::Within30s))
    }
}

#[async_trait]
impl Manager for Network {
    async fn sign_off(&self, key: &SchedulerKey, options: AttemptOptions) -> Outcome {
        self.alive().await;
        let key = &self.in_the_world(key);
        let call = self.began(key, Call::SignOff { hedge: options.hedge });
        let outcome = match self.connect(options.limit).await {
            Ok(replica) => {
                let script = self.world.script(key, true);
                self.run(call, key, replica, script, options.limit).await
            }
            Err(failure) => Outcome::Failed(failure),
        };
        {
            let mut world = self.world.lock();
            if world.mood == Mood::Proxied && world.pods[self.pod].link == Link::Up {
                world.contact(&[self.pod], false);
                world.contact(&[self.pod], true);
            }
        }
        self.ended(call, outcome).await
    }

    async fn hold(&self, key: &SchedulerKey) -> Result<HoldStart, Failure> {
        self.alive().await;
        let key = &self.in_the_world(key);
        let call = self.began(key, Call::Hold);
        // Given up before it is connected, it ends all the same.
        let mut given_up = GivenUp { network: self, call: Some(call) };
        let replica = self.connect(Duration::from_secs(1)).await;
        given_up.call = None;
        let replica = match replica {
            Ok(replica) => replica,
            Err(failure) => {
                // Nothing of it was sent. A hold that breaks in its first moment is left out: the agent takes it for one
                // that was not applied.
                self.tell(Event::Ended { pid: self.pid, call, end: End::Failed });
                return Err(failure);
            }
        };
        if self.world.lock().mood == Mood::Proxied {
            self.tell(Event::Ended { pid: self.pid, call, end: End::Failed });
            return Err(failure("Unavailable: no healthy upstream"));
        }
        if self.world.lock().row(key).is_none() {
            self.tell(Event::Ended { pid: self.pid, call, end: End::Absent });
            return Ok(HoldStart::Absent);
        }
        let (slow, lives) = {
            let mut world = self.world.lock();
            let slow = world.mood != Mood::Best && world.dice.one_in(8);
            let first = if slow { world.dice.millis(100, 20_000) } else { world.dice.millis(1, 4) };
            (first, world.replicas[replica].subscribe())
        };
        let (world, held, by) = (self.world.clone(), key.clone(), format!("hold {call}"));
        let mut replica_lives = self.world.lock().replicas[replica].subscribe();
        replica_lives.borrow_and_update();
        // The manager's end of the stream: its first message.
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = replica_lives.changed() => {}
                () = sleep(slow) => world.apply(&held, true, &by),
            }
        });
        let mut lives = lives;
        lives.borrow_and_update();
        let hold = Hold {
            network: self.clone(),
            key: key.clone(),
            call,
            replica,
            lives,
            first_by: tokio::time::Instant::now() + slow,
            open: true,
            told: false,
        };
        sleep(Duration::from_millis(50)).await;
        self.alive().await;
        Ok(HoldStart::Open(Box::new(hold)))
    }

    async fn read_row(&self, key: &SchedulerKey) -> Result<RowRead, Failure> {
        let asked = self.world.lock().history.now();
        let rows = self.rows(None).await;
        let freshness = self.freshness();
        let in_the_world = self.in_the_world(key);
        let told = |state| Event::Read { pid: self.pid, key: in_the_world.clone(), asked, state, freshness };
        let (rows, freshness) = match rows {
            Ok(rows) => rows,
            Err(failure) => {
                self.tell(told(None));
                return Err(failure);
            }
        };
        let row = rows.iter().find(|row| row.is(key));
        let updated = row.and_then(|row| row.updated_at.as_deref()).map(Stamp::of);
        let state = match (row.map(|row| row.state), freshness) {
            (Some(State::Active), _) => RowState::Active,
            (Some(State::Inactive), _) => RowState::Inactive,
            (None, Freshness::Fresh) => RowState::Absent,
            (None, Freshness::Within30s) => RowState::NotActive,
        };
        self.tell(told(Some(state)));
        let state = if self.lie == Lie::Reads {
            let serves = *self.world.lock().pods[self.pod].fact.borrow() == Fact::Serves;
            if serves { RowState::Active } else { RowState::NotActive }
        } else {
            state
        };
        let registered = row.map(|row| Registered { port: row.port, ..Registered::default() });
        Ok(RowRead { state, freshness, registered, updated })
    }

    async fn list(&self, filter: &Filter) -> Result<Listed, Failure> {
        let (mut rows, freshness) = self.rows(Some(filter)).await?;
        rows.retain(|row| match filter {
            Filter::Hostname(hostname) => row.hostname == hostname.as_str(),
            Filter::Cluster(cluster) => row.cluster_id == cluster.get(),
            Filter::Ip(ip) => row.ip == ip.to_string(),
        });
        let one =
            |row: &Row| Some((row.hostname.clone(), row.ip.parse().ok()?, row.last_keep_alive_at.clone()));
        let keys = rows.iter().filter_map(one).collect();
        self.tell(Event::Listed { pid: self.pid, keys });
        Ok(Listed { rows, freshness })
    }

    async fn register(&self, key: &SchedulerKey, registered: &Registered) -> Result<(), Failure> {
        self.alive().await;
        let key = &self.in_the_world(key);
        self.connect(Duration::from_secs(1)).await?;
        let (latency, is_lost) = {
            let world = self.world.lock();
            if matches!(world.mood, Mood::NoDatabase | Mood::Proxied) {
                return Err(failure("Unavailable: no healthy upstream"));
            }
            let is_lost = matches!(world.mood, Mood::Lossy | Mood::Odd) && world.dice.one_in(2);
            (world.dice.millis(1, 30), is_lost)
        };
        sleep(latency).await;
        if self.lie == Lie::Registers {
            return Ok(());
        }
        let port = u16::try_from(registered.port).map_err(|_| failure("InvalidArgument: port"))?;
        {
            let mut world = self.world.lock();
            world.register(key, port);
            let by = format!("agent {} which puts it back", self.pid);
            let active = world.row(key) == Some(true);
            world.history.tell(Event::Row { key: key.clone(), active, by });
        }
        self.alive().await;
        if is_lost { Err(failure("reset")) } else { Ok(()) }
    }

    fn freshness(&self) -> Freshness {
        if self.rest_worked.load(Ordering::Relaxed) { Freshness::Fresh } else { Freshness::Within30s }
    }

    fn watch(&self) -> tokio::sync::watch::Receiver<Contact> {
        self.world.lock().watch(self.pid, self.pod, self.manager)
    }
}

#[async_trait]
impl Withdraw for Network {
    async fn may_delete(&self) -> Result<bool, Failure> {
        self.connect(Duration::from_secs(1)).await.map(|_| self.world.lock().rest)
    }

    async fn sign_off_everywhere(
        &self,
        key: &SchedulerKey,
        _: &[IpAddr],
        limit: Duration,
    ) -> Result<Vec<(String, Outcome)>, Failure> {
        let options = AttemptOptions { hedge: false, limit };
        Ok(vec![("the manager".to_owned(), self.sign_off(key, options).await)])
    }

    async fn whole(&self, id: u64, _: (u64, &str, Option<IpAddr>)) -> Result<Option<(Row, String)>, Failure> {
        let (rows, freshness) = self.rows(None).await?;
        if freshness != Freshness::Fresh {
            return Err(failure("REST does not answer"));
        }
        Ok(rows.into_iter().find(|row| row.id == id).map(|row| (row, "{}".to_owned())))
    }

    async fn delete(&self, id: u64) -> Result<(), Failure> {
        self.connect(Duration::from_secs(1)).await?;
        let (latency, is_lost) = {
            let world = self.world.lock();
            if !world.rest_works || matches!(world.mood, Mood::NoDatabase | Mood::Proxied) {
                return Err(failure("REST does not answer"));
            }
            let is_lost = matches!(world.mood, Mood::Lossy | Mood::Odd) && world.dice.one_in(2);
            (world.dice.millis(1, 30), is_lost)
        };
        sleep(latency).await;
        self.alive().await;
        {
            let mut world = self.world.lock();
            if let Some(key) = world.key_of(id) {
                let lives = world.pods.iter().any(|pod| pod.key == key && *pod.fact.borrow() == Fact::Serves);
                let unheard_for = world.target(&key).unheard_for;
                world.delete(&key);
                world.history.tell(Event::Withdrew { pid: self.pid, key, lives, unheard_for });
            }
        }
        if is_lost { Err(failure("reset")) } else { Ok(()) }
    }

    async fn given(
        &self,
        _: ClusterId,
        _: &[IpAddr],
    ) -> Result<Vec<(String, Result<Vec<Row>, Failure>)>, Failure> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Reach for Network {
    async fn probe(&self, address: SocketAddr, limit: Duration) -> Probe {
        self.alive().await;
        let (link, fact, lives, cut, mesh, heir) = {
            let world = self.world.lock();
            let (link, pod) = (world.pods[self.pod].link, world.pod_at(address, self.pod));
            let truth = pod.map(|pod| *pod.fact.borrow());
            let reached = pod.is_some_and(|pod| pod.link != Link::Silent);
            let cut = link == Link::Silent || (pod.is_some() && !reached);
            let heir = world.mesh == Mesh::OfTheHeirs && world.was_a_pods(address, self.pod);
            (link, truth.filter(|_| reached), truth == Some(Fact::Serves), cut, world.mesh, heir)
        };
        let fact = if self.lie == Lie::Probes { None } else { fact };
        let (after, probe) = match (link, fact) {
            // The proxy beside the prober takes every connection, and finds out that nobody is there.
            (_, fact) if matches!(mesh, Mesh::Closes | Mesh::Answers503) && fact != Some(Fact::Serves) => {
                (Duration::from_millis(3), Probe::Foreign(format!("{mesh:?}")))
            }
            (Link::Up | Link::Refused, None) if heir && self.lie == Lie::Proxies => {
                (Duration::from_millis(2), Probe::Scheduler)
            }
            (Link::Up | Link::Refused, None) if heir => {
                (Duration::from_millis(2), Probe::Proxy(format!("{mesh:?}")))
            }
            (Link::Silent, _) => (limit, Probe::Nobody("timed out".to_owned())),
            (_, Some(Fact::Serves)) => (Duration::from_millis(2), Probe::Scheduler),
            (_, Some(Fact::Down)) => (Duration::from_millis(1), Probe::Nobody("refused".to_owned())),
            (_, Some(Fact::Hangs)) => (limit, Probe::Mute("no answer".to_owned())),
            (_, None) => (limit, Probe::Nobody("timed out".to_owned())),
        };
        sleep(after).await;
        self.alive().await;
        let answers = match probe {
            Probe::Scheduler => Some(true),
            Probe::Nobody(_) | Probe::Mute(_) => Some(false),
            Probe::Proxy(_) | Probe::Foreign(_) | Probe::CantLook(_) => None,
        };
        self.tell(Event::Probed { pid: self.pid, address, answers, lives, cut });
        probe
    }
}

/// Tells that a call was dropped on its way.
struct GivenUp<'a> {
    network: &'a Network,
    call: Option<CallId>,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.network.tell(Event::Ended { pid: self.network.pid, call, end: End::Unknown });
        }
    }
}

/// A stream of an agent's own.
struct Hold {
    network: Network,
    key: SchedulerKey,
    call: CallId,
    replica: usize,
    lives: tokio::sync::watch::Receiver<(bool, u64)>,
    /// By then its first message is applied.
    first_by: tokio::time::Instant,
    /// Its end is nobody else's matter.
    open: bool,
    told: bool,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.told {
            self.network.tell(Event::Ended { pid: self.network.pid, call: self.call, end: End::Unknown });
        }
        self.end_late();
    }
}

impl Hold {
    /// Gone without a word: the manager notices, now or later, after the first message.
    fn end_late(&mut self) {
        if std::mem::take(&mut self.open) {
            let first = self.first_by.saturating_duration_since(tokio::time::Instant::now());
            let left = 55_000u64.saturating_sub(u64::try_from(first.as_millis()).unwrap_or(0));
            let (world, key, by) =
                (self.network.world.clone(), self.key.clone(), format!("the loss of hold {}", self.call));
            // A run that ended is dropped outside its runtime.
            if tokio::runtime::Handle::try_current().is_ok() {
                tokio::spawn(async move {
                    sleep(first).await;
                    world.ends_late(key, by, left.max(1));
                });
            }
        }
    }
}

#[async_trait]
impl Held for Hold {
    async fn lost(&mut self) -> Failure {
        self.network.alive().await;
        loop {
            let crashed = timeout(Duration::from_secs(1), self.lives.changed()).await.is_ok();
            if self.network.is_dead() {
                // Its kernel closes the stream.
                self.end_late();
                std::future::pending::<()>().await;
            }
            let silent = self.network.world.lock().pods[self.network.pod].link != Link::Up;
            if crashed || silent {
                self.network.alive().await;
                if crashed {
                    // A dead manager writes nothing.
                    self.open = false;
                }
                self.network.tell(Event::Ended { pid: self.network.pid, call: self.call, end: End::Unknown });
                self.told = true;
                return failure("the stream was lost");
            }
        }
    }

    async fn release(mut self: Box<Self>, limit: Duration) -> Outcome {
        let network = self.network.clone();
        network.alive().await;
        let call = network.began(&self.key, Call::Release);
        // The stream ends as a hold, and goes on as a release.
        network.tell(Event::Ended { pid: network.pid, call: self.call, end: End::Confirmed });
        let first = self.first_by.saturating_duration_since(tokio::time::Instant::now());
        let script = network.world.script(&self.key, false);
        let later = |at: Duration| at + first;
        let script = Script {
            active: None,
            inactive: script.inactive.map(later),
            answer: script.answer.map(|(at, outcome)| (later(at), outcome)),
        };
        (self.open, self.told) = (false, true);
        let outcome = if network.world.reach(network.pod, network.manager).is_err() {
            network.world.ends_late(self.key.clone(), format!("call {call}"), 30_000);
            Outcome::Unknown(failure("the connection was lost"))
        } else {
            network.run(call, &self.key, self.replica, script, limit).await
        };
        network.ended(call, outcome).await
    }
}
