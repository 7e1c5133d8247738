//! The world around the agents: the manager's table, its replicas, the schedulers, the network.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};

use super::{
    dice::Dice,
    disk::Disk,
    dragonflies::{MANAGERS, REPLICAS, at_its_manager, manager_of, replicas_of},
    history::{CallId, Event, History, Pid, Target},
    repair::{Mesh, Shows, Times},
};
use crate::{
    key::SchedulerKey,
    manager::{Contact, Failure, Outcome, Row, State},
};

/// The schedulers' keep-alive interval.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// No attempt is applied later than this after its client has gone (the agents count on 60 s).
const LATEST: u64 = 55_000;
pub(super) const PORT: u16 = 8002;

/// A row of the table, and all it was.
struct TableRow {
    id: u64,
    key: SchedulerKey,
    port: u16,
    /// Since when it was what, the latest last: active, inactive, or gone. It begins inactive.
    was: Vec<(Duration, Option<bool>)>,
    times: Times,
}

impl TableRow {
    fn at(&self, then: Duration) -> Option<bool> {
        self.was.iter().rev().find(|(since, _)| *since <= then).and_then(|(_, active)| *active)
    }

    fn is_there(&self) -> bool {
        self.was.last().is_some_and(|(_, active)| active.is_some())
    }

    /// As a list shows it: with the times that `shows` has.
    fn shown(&self, active: bool, shows: Shows) -> Row {
        let [created_at, updated_at, last_keep_alive_at] = self.times.shown(shows);
        Row {
            id: self.id,
            hostname: self.key.hostname.as_str().to_owned(),
            ip: self.key.ip.to_string(),
            port: i32::from(self.port),
            state: if active { State::Active } else { State::Inactive },
            cluster_id: at_its_manager(&self.key).cluster_id.get(),
            created_at,
            keep_alive_interval: last_keep_alive_at.as_ref().map(|_| INTERVAL),
            last_keep_alive_at,
            updated_at,
        }
    }
}

/// How the managers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// As they mostly are.
    Well,
    /// Nothing is ever odd.
    Best,
    /// The cache is down: it takes seconds, and says OK.
    Slow,
    /// All sorts of ends.
    Odd,
    /// It does all that it is told, and its answers are lost.
    Lossy,
    /// The database can't be reached.
    NoDatabase,
    /// They are away, and something that stands before them answers in their place, and hangs up after each answer.
    Proxied,
}

/// What becomes of a packet from a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// Refused at once.
    Refused,
    /// Swallowed.
    Silent,
}

/// How fast a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Well,
    Slow,
    Hangs,
}

/// What a scheduler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    /// Not there: what connects is refused.
    Down,
    Serves,
    /// Stopped, frozen: it accepts, and says nothing.
    Hangs,
}

/// What an agent's loss of the manager's connections is told through.
struct Watching {
    pid: Pid,
    pod: usize,
    manager: usize,
    contact: watch::Sender<Contact>,
}

/// A pod: its name, its address, its scheduler.
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) key: SchedulerKey,
    /// Where its scheduler serves.
    pub(super) port: u16,
    /// The key that the scheduler's configuration names: it is the scheduler's from its next start on.
    pub(super) named: SchedulerKey,
    /// What the pod's last agent answered as, as it kept it in the pod's run directory.
    pub(super) answered: Option<crate::identity::Settings>,
    /// All keys that an agent of it ever answered for.
    pub(super) has_answered: BTreeSet<SchedulerKey>,
    pub(super) node: usize,
    pub(super) spool: String,
    pub(super) link: Link,
    pub(super) fact: watch::Sender<Fact>,
    /// Which life of the scheduler it is: a task of an older one has ended.
    pub(super) life: u64,
    /// The replica that has the scheduler's open stream, and in which life of its own.
    pub(super) stream: Option<(usize, u64)>,
    /// The pod is there; else nobody is at its address.
    pub(super) exists: bool,
    pub(super) agent: Option<Pid>,
    /// What its agent was configured with.
    pub(super) endpoint: String,
}

impl Pod {
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.key.ip.get(), self.port)
    }
}

/// A value whose changes are told to all in the order in which they asked: one channel with several waiters wakes them in an
/// order that is drawn.
pub(super) struct Told<T>(T, Vec<watch::Sender<T>>);

impl<T: Copy> Told<T> {
    fn new(value: T) -> Self {
        Self(value, Vec::new())
    }

    pub(super) fn now(&self) -> T {
        self.0
    }

    pub(super) fn tell(&mut self, value: T) {
        self.0 = value;
        self.1.retain(|listener| listener.send(value).is_ok());
    }

    pub(super) fn subscribe(&mut self) -> watch::Receiver<T> {
        let (tell, told) = watch::channel(self.0);
        self.1.push(tell);
        told
    }
}

pub(super) struct World {
    pub(super) history: History,
    pub(super) dice: Dice,
    /// How often each manager's name has changed.
    pub(super) renamed: [u32; MANAGERS],
    pub(super) rest: bool,
    pub(super) rest_works: bool,
    /// Which times REST shows.
    pub(super) shows: Shows,
    pub(super) mesh: Mesh,
    pub(super) mood: Mood,
    /// Whether each replica is up, and its how manieth life it is.
    pub(super) replicas: Vec<Told<(bool, u64)>>,
    table: Vec<TableRow>,
    pub(super) pods: Vec<Pod>,
    pub(super) disks: Vec<Disk>,
    pub(super) paces: Vec<Told<Pace>>,
    watching: Vec<Watching>,
    pub(super) last_call: CallId,
}

/// The one world of a run. A lock of it is never held over an await.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<World>>);

/// How a call goes at the manager: when each moment is applied, and when what is answered.
pub(super) struct Script {
    pub(super) active: Option<Duration>,
    pub(super) inactive: Option<Duration>,
    pub(super) answer: Option<(Duration, Outcome)>,
}

enum Step {
    Apply(bool),
    Answer(Outcome),
}

pub(super) fn failure(why: &str) -> Failure {
    Failure::new(why)
}

impl Shared {
    pub(super) fn new(history: History, dice: Dice, rest: bool, disks: Vec<Disk>) -> Self {
        Self(Arc::new(Mutex::new(World {
            history,
            dice,
            renamed: [0; MANAGERS],
            rest,
            rest_works: rest,
            shows: Shows::All,
            mesh: Mesh::None,
            mood: Mood::Well,
            replicas: (0..REPLICAS * MANAGERS).map(|_| Told::new((true, 0))).collect(),
            table: Vec::new(),
            pods: Vec::new(),
            paces: disks.iter().map(|_| Told::new(Pace::Well)).collect(),
            disks,
            watching: Vec::new(),
            last_call: 0,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Applies one moment of a call now.
    pub(super) fn apply(&self, key: &SchedulerKey, active: bool, by: &str) {
        self.lock().apply(key, active, by);
    }

    /// Carries a script out at a replica: what it applies after its client has gone included. The answer comes through the
    /// channel; without one it never comes.
    pub(super) fn carry_out(
        &self,
        replica: usize,
        key: SchedulerKey,
        by: String,
        script: Script,
    ) -> tokio::sync::oneshot::Receiver<Outcome> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let (world, start) = (self.clone(), tokio::time::Instant::now());
        let mut lives = self.lock().replicas[replica].subscribe();
        lives.borrow_and_update();
        tokio::spawn(async move {
            let crashed = async move {
                // The replicas live as long as the world.
                let _ = lives.changed().await;
            };
            let mut answer = Some(answer);
            let mut steps = Vec::new();
            steps.extend(script.active.map(|at| (at, Step::Apply(true))));
            steps.extend(script.inactive.map(|at| (at, Step::Apply(false))));
            steps.extend(script.answer.map(|(at, outcome)| (at, Step::Answer(outcome))));
            steps.sort_by_key(|(at, _)| *at);
            let carried_out = async {
                for (at, step) in steps {
                    sleep_until(start + at).await;
                    match step {
                        Step::Apply(active) => world.apply(&key, active, &by),
                        Step::Answer(outcome) => {
                            // Its client may have gone.
                            let _ = answer.take().map(|answer| answer.send(outcome));
                        }
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = crashed => {}
                () = carried_out => {}
            }
            // Without an answer its client finds the connection lost.
        });
        answered
    }

    /// A stream of a dead client ends at the manager some time, and with it the row becomes inactive.
    pub(super) fn ends_late(&self, key: SchedulerKey, by: String, latest: u64) {
        let world = self.clone();
        let after = self.lock().dice.millis(1, latest.clamp(1, LATEST));
        tokio::spawn(async move {
            sleep(after).await;
            world.apply(&key, false, &by);
        });
    }

    /// What a manager's replicas come to, from a pod: one that is up, if the pod has a link.
    pub(super) fn reach(&self, pod: usize, manager: usize) -> Result<usize, Link> {
        let world = self.lock();
        match world.pods[pod].link {
            Link::Up => {}
            link => return Err(link),
        }
        let up: Vec<usize> =
            replicas_of(manager).filter(|replica| world.replicas[*replica].now().0).collect();
        if up.is_empty() { Err(Link::Refused) } else { Ok(world.dice.of(&up)) }
    }

    /// How the next sign-off (`whole`), or the end of a hold, goes.
    pub(super) fn script(&self, key: &SchedulerKey, whole: bool) -> Script {
        let world = self.lock();
        let dice = &world.dice;
        let ms = |from, to| dice.millis(from, to);
        if world.mood == Mood::Proxied {
            // Some proxies say when to come again.
            let floor = dice.one_in(2).then(|| dice.millis(1_000, 30_000));
            let failure = Failure { floor, ..failure("Unavailable: no healthy upstream") };
            return Script {
                active: None,
                inactive: None,
                answer: Some((ms(1, 4), Outcome::Unknown(failure))),
            };
        }
        if world.row(key).is_none() {
            return Script { active: None, inactive: None, answer: Some((ms(1, 4), Outcome::Absent)) };
        }
        let odd = match world.mood {
            Mood::Well => {
                if dice.one_in(50) {
                    dice.below(8)
                } else {
                    8
                }
            }
            Mood::Best => 8,
            Mood::Slow => 0,
            Mood::Odd => dice.below(10),
            Mood::Lossy => 3 + dice.below(2),
            Mood::NoDatabase | Mood::Proxied => 1,
        };
        let internal = |why| Outcome::Failed(failure(why));
        let (active, inactive, answer) = match odd {
            0 => (Some(ms(1, 5)), Some(ms(3000, 3500)), Some((ms(5000, 7000), Outcome::Confirmed))),
            // No database, or lost between the moments.
            1 => (None, None, Some((ms(1, 4), internal("dial tcp: connection refused")))),
            2 => (Some(ms(1, 4)), None, Some((ms(5, 9), internal("invalid connection")))),
            // The acknowledgement is lost: cut, or never comes.
            3 => (Some(ms(1, 4)), Some(ms(5, 9)), Some((ms(10, 90), Outcome::Unknown(failure("reset"))))),
            4 => (Some(ms(1, 4)), Some(ms(5, 9)), None),
            // Applied late, both.
            5 | 6 => {
                let first = ms(1, LATEST / 2);
                let cut = (odd == 6).then(|| (ms(1, 900), Outcome::Unknown(failure("reset"))));
                (Some(first), Some(first + ms(1, LATEST / 2)), cut)
            }
            // Seconds, with everything well.
            7 => (Some(ms(100, 900)), Some(ms(1000, 9000)), Some((ms(9001, 9100), Outcome::Confirmed))),
            _ => (Some(ms(1, 3)), Some(ms(3, 5)), Some((ms(6, 9), Outcome::Confirmed))),
        };
        Script { active: active.filter(|_| whole), inactive, answer }
    }
}

impl World {
    fn apply(&mut self, key: &SchedulerKey, active: bool, by: &str) {
        let now = self.history.now();
        let Some(row) = self.table.iter_mut().find(|row| row.key == *key && row.is_there()) else { return };
        row.was.push((now, Some(active)));
        row.times.written(now);
        self.history.tell(Event::Row { key: key.clone(), active, by: by.to_owned() });
    }

    /// A scheduler registers: its row is there from now on, and it was heard of.
    pub(super) fn register(&mut self, key: &SchedulerKey, port: u16) {
        let now = self.history.now();
        let id = self.table.iter().map(|row| row.id).max().unwrap_or_default() + 1;
        match self.table.iter_mut().find(|row| row.key == *key) {
            Some(row) if row.is_there() => {}
            Some(row) => {
                row.was.push((now, Some(false)));
                (row.id, row.port, row.times) = (id, port, Times::made(now));
            }
            None => {
                let (key, was, times) = (key.clone(), vec![(now, Some(false))], Times::made(now));
                self.table.push(TableRow { id, key, port, was, times });
            }
        }
        self.heard(key);
    }

    /// Whether a row was there once, and is not.
    pub(super) fn was_deleted(&self, key: &SchedulerKey) -> bool {
        self.table.iter().any(|row| row.key == *key && !row.is_there())
    }

    /// Whose row has that id.
    pub(super) fn key_of(&self, id: u64) -> Option<SchedulerKey> {
        self.table.iter().find(|row| row.id == id && row.is_there()).map(|row| row.key.clone())
    }

    /// Somebody deletes a row.
    pub(super) fn delete(&mut self, key: &SchedulerKey) {
        let now = self.history.now();
        let Some(row) = self.table.iter_mut().find(|row| row.key == *key && row.is_there()) else { return };
        row.was.push((now, None));
        self.history.tell(Event::Row {
            key: key.clone(),
            active: false,
            by: "somebody who deletes it".to_owned(),
        });
    }

    /// The manager hears of a scheduler, by its registration or by a message that is not its stream's first.
    fn heard(&mut self, key: &SchedulerKey) {
        let now = self.history.now();
        if let Some(row) = self.table.iter_mut().find(|row| row.key == *key && row.is_there()) {
            row.times.heard(now);
        }
    }

    /// The times of a row.
    pub(super) fn times(&self, key: &SchedulerKey) -> Option<Times> {
        self.table.iter().find(|row| row.key == *key).map(|row| row.times)
    }

    /// Whether a row is active; nothing where there is none.
    pub(super) fn row(&self, key: &SchedulerKey) -> Option<bool> {
        self.table.iter().find(|row| row.key == *key)?.was.last()?.1
    }

    /// All rows of a manager's, as they were so long ago, with such times.
    pub(super) fn rows_before(&self, manager: usize, age: Duration, shows: Shows) -> Vec<Row> {
        let then = self.history.now().saturating_sub(age);
        let its = self.table.iter().filter(|row| manager_of(&row.key) == manager);
        its.filter_map(|row| Some(row.shown(row.at(then)?, shows))).collect()
    }

    pub(super) fn keys(&self) -> Vec<SchedulerKey> {
        self.table.iter().filter(|row| row.is_there()).map(|row| row.key.clone()).collect()
    }

    /// When the row last became active, having been something else.
    pub(super) fn became_active(&self, key: &SchedulerKey) -> Option<Duration> {
        let row = self.table.iter().find(|row| row.key == *key)?;
        let is = |active: Option<bool>| active == Some(true);
        let at = row.was.windows(2).rev().find(|pair| is(pair[1].1) && !is(pair[0].1))?;
        Some(at[1].0)
    }

    /// Whoever is at an address, as far as a pod's network goes.
    pub(super) fn pod_at(&self, address: SocketAddr, from: usize) -> Option<&Pod> {
        let one_network = |pod: &&Pod| pod.network() == self.pods[from].network();
        self.pods.iter().filter(one_network).find(|pod| pod.exists && pod.address() == address)
    }

    /// Whether a pod of that network had an address, and none has it now.
    pub(super) fn was_a_pods(&self, address: SocketAddr, from: usize) -> bool {
        let one_network = |pod: &&Pod| pod.network() == self.pods[from].network();
        let had = self.pods.iter().filter(one_network).any(|pod| !pod.exists && pod.address() == address);
        had && self.pod_at(address, from).is_none()
    }

    /// What there is to be known of a scheduler whose row somebody else is about to write.
    pub(super) fn target(&self, key: &SchedulerKey) -> Target {
        let now = self.history.now();
        let pod = self.pods.iter().find(|pod| pod.exists && pod.key == *key);
        Target {
            lives: pod.is_some_and(|pod| *pod.fact.borrow() == Fact::Serves),
            streams: pod.is_some_and(|pod| pod.stream.is_some()),
            active: self.row(key) == Some(true),
            unheard_for: self.times(key).map_or(Duration::MAX, |times| now.saturating_sub(times.keep_alive)),
            times_are_shown: self.rest && self.rest_works && self.shows == Shows::All,
        }
    }

    pub(super) fn watch(&mut self, pid: Pid, pod: usize, manager: usize) -> watch::Receiver<Contact> {
        let its = replicas_of(manager);
        let up = self.pods[pod].link == Link::Up && self.replicas[its].iter().any(|replica| replica.now().0);
        let gains = u64::from(up);
        let (contact, receiver) =
            watch::channel(Contact { answered: up, losses: 0, gains, last_error: None, rest_error: None });
        self.watching.push(Watching { pid, pod, manager, contact });
        receiver
    }

    /// The agents of these pods notice that a connection is lost, or is there again.
    pub(super) fn contact(&mut self, pods: &[usize], gained: bool) {
        self.tell(|watching| pods.contains(&watching.pod), gained);
    }

    /// So do all agents of a manager's.
    fn contact_with(&mut self, manager: usize, gained: bool) {
        self.tell(|watching| watching.manager == manager && watching.pod != usize::MAX, gained);
    }

    fn tell(&mut self, is_told: impl Fn(&Watching) -> bool, gained: bool) {
        for watching in self.watching.iter().filter(|watching| is_told(watching)) {
            watching.contact.send_modify(|contact| {
                contact.answered |= gained;
                *(if gained { &mut contact.gains } else { &mut contact.losses }) += 1;
            });
        }
    }

    pub(super) fn forget_watch(&mut self, pid: Pid) {
        // The receivers wait for ever, as those of a dead process do; nothing is told them any more.
        for watching in self.watching.iter_mut().filter(|watching| watching.pid == pid) {
            watching.pod = usize::MAX;
        }
    }
}

impl Shared {
    /// A message of a scheduler's open stream, if it comes through: a stopped process sends none.
    fn keeps_alive(&self, pod: usize, comes_through: bool) {
        let mut world = self.lock();
        let serves = *world.pods[pod].fact.borrow() == Fact::Serves;
        if comes_through && serves && world.mood != Mood::NoDatabase {
            let key = world.pods[pod].key.clone();
            world.heard(&key);
        }
    }

    /// A replica dies, or is there again.
    pub(super) fn set_replica(&self, replica: usize, up: bool) {
        let mut world = self.lock();
        if world.replicas[replica].now().0 == up {
            return;
        }
        world.history.tell(Event::Fault(format!("replica {replica} {}", if up { "is up" } else { "dies" })));
        let (_, life) = world.replicas[replica].now();
        world.replicas[replica].tell((up, life + 1));
        world.contact_with(replica / REPLICAS, up);
    }

    /// Connections to the managers are made and lost again, for so long.
    pub(super) async fn flap(&self, pod: usize, time: Duration) {
        let until = self.lock().history.now() + time;
        self.lock().history.tell(Event::Fault(format!("the connections of pod {pod} come and go")));
        while self.lock().history.now() < until {
            self.lock().contact(&[pod], false);
            self.lock().contact(&[pod], true);
            let pause = self.lock().dice.millis(50, 1_000);
            sleep(pause).await;
        }
    }

    pub(super) fn set_link(&self, pod: usize, link: Link) {
        let mut world = self.lock();
        let before = std::mem::replace(&mut world.pods[pod].link, link);
        if before == link {
            return;
        }
        world.history.tell(Event::Fault(format!("the link of pod {pod} is {link:?}")));
        if before == Link::Up || link == Link::Up {
            world.contact(&[pod], link == Link::Up);
        }
    }

    /// The scheduler of a pod starts: it registers, and one interval later its row is active, by its stream.
    pub(super) fn start_scheduler(&self, pod: usize) {
        let life = {
            let mut world = self.lock();
            world.history.tell(Event::Fault(format!("scheduler {pod} starts")));
            let pod = &mut world.pods[pod];
            pod.key = pod.named.clone();
            pod.life += 1;
            pod.fact.send_replace(Fact::Serves);
            pod.life
        };
        tokio::spawn(keep_alive(self.clone(), pod, life));
    }

    pub(super) fn hang_scheduler(&self, pod: usize, hangs: bool) {
        let world = self.lock();
        let (from, to) = if hangs { (Fact::Serves, Fact::Hangs) } else { (Fact::Hangs, Fact::Serves) };
        let changed = world.pods[pod].fact.send_if_modified(|fact| {
            let is = *fact == from;
            if is {
                *fact = to;
            }
            is
        });
        if changed {
            world.history.tell(Event::Fault(format!("scheduler {pod} is {to:?}")));
        }
    }

    /// It ends: by itself or by a kill the kernel closes its stream, without power nobody does.
    pub(super) fn stop_scheduler(&self, pod: usize, power: bool) {
        let (key, link, was, streams) = {
            let mut world = self.lock();
            world.history.tell(Event::Fault(format!(
                "scheduler {pod} ends{}",
                if power { "" } else { " without power" }
            )));
            let pod = &mut world.pods[pod];
            pod.life += 1;
            let (stream, was) = (pod.stream.take(), pod.fact.send_replace(Fact::Down));
            let (key, link) = (pod.key.clone(), pod.link);
            // A manager that is gone by now hears of no end, and writes nothing.
            let streams = stream.is_some_and(|(replica, life)| world.replicas[replica].now() == (true, life));
            (key, link, was, streams)
        };
        if was != Fact::Down && power && link == Link::Up && streams {
            let by = format!("the end of scheduler {pod}");
            // Usually within milliseconds.
            let late = {
                let world = self.lock();
                world.mood != Mood::Best && world.dice.one_in(5)
            };
            let latest = if late { LATEST } else { 9 };
            self.ends_late(key, by, latest);
        }
    }
}

/// A scheduler's own streams.
async fn keep_alive(world: Shared, pod: usize, life: u64) {
    let (key, port, by) = {
        let world = world.lock();
        (world.pods[pod].key.clone(), world.pods[pod].port, format!("scheduler {pod}"))
    };
    let manager = manager_of(&key);
    let lives = || world.lock().pods[pod].life == life;
    while lives() && world.reach(pod, manager).is_err() {
        sleep(INTERVAL).await;
    }
    if !lives() {
        return;
    }
    world.lock().register(&key, port);
    loop {
        sleep(INTERVAL).await;
        if !lives() {
            return;
        }
        let Ok(replica) = world.reach(pod, manager) else { continue };
        if matches!(world.lock().mood, Mood::NoDatabase | Mood::Proxied) {
            continue;
        }
        world.apply(&key, true, &by);
        let mut replica = {
            let mut world = world.lock();
            world.pods[pod].stream = Some((replica, world.replicas[replica].now().1));
            world.replicas[replica].subscribe()
        };
        replica.borrow_and_update();
        loop {
            let crashed = tokio::time::timeout(INTERVAL, replica.changed()).await.is_ok();
            if !lives() {
                return;
            }
            if crashed {
                // The manager is gone: it writes nothing.
                world.lock().pods[pod].stream = None;
                break;
            }
            let cut = world.reach(pod, manager).is_err();
            world.keeps_alive(pod, !cut);
            if cut && world.lock().dice.one_in(3) {
                // The manager notices that its stream is dead, now or later.
                world.lock().pods[pod].stream = None;
                world.ends_late(key.clone(), format!("a lost stream of {by}"), LATEST);
                break;
            }
        }
    }
}
