//! The agents' processes: started, told, killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::sleep,
};

use super::{
    dragonflies::{at_its_manager, endpoint, in_the_world, manager_at, manager_of, port_of},
    history::{Event, Pid},
    network::{Lie, Network},
    world::{Fact, INTERVAL, Pace, Pod, Shared},
};
use crate::{
    agent::{
        arrivals::Arrivals,
        command::{Command, Commands},
        disk::Disk,
        lifecycle,
        run::simulated::{self, Known},
        scheduler::{Observation, Watcher},
        shell::Deadline,
    },
    exit::Exit,
    identity::Settings,
    key::SchedulerKey,
    manager::Manager,
    net::Prober,
    spool::{Limits, Spool},
};

pub(super) const GRACE: Duration = Duration::from_secs(30);

/// A process of an agent.
struct Process {
    pod: usize,
    commands: Commands,
    tasks: Vec<AbortHandle>,
}

#[derive(Default)]
struct Processes {
    last: Pid,
    last_hook: u64,
    running: BTreeMap<Pid, Process>,
}

/// All agents. Clones share them.
#[derive(Clone)]
pub(super) struct Fleet {
    pub(super) world: Shared,
    lie: Lie,
    deaf: bool,
    processes: Arc<Mutex<Processes>>,
}

impl Fleet {
    pub(super) fn new(world: Shared, lie: Lie, deaf: bool) -> Self {
        Self { world, lie, deaf, processes: Arc::default() }
    }

    pub(super) fn lie(&self) -> Lie {
        self.lie
    }

    pub(super) fn next_pid(&self) -> Pid {
        let mut processes = self.processes.lock().unwrap();
        processes.last += 1;
        processes.last
    }

    /// A new pod of the first manager's, without a scheduler or an agent yet.
    pub(super) fn add_pod(&self, hostname: &str, node: usize, spool: String) -> usize {
        self.add_pod_at(0, hostname, node, spool)
    }

    /// As [`Fleet::add_pod`], of any manager's.
    pub(super) fn add_pod_at(&self, manager: usize, hostname: &str, node: usize, spool: String) -> usize {
        let n = self.world.lock().pods.len();
        let ip = format!("10.0.{}.{}", n / 200, n % 200 + 1);
        let key = SchedulerKey::new(1.try_into().unwrap(), hostname.parse().unwrap(), ip.parse().unwrap());
        self.add_pod_of(in_the_world(manager, &key), node, spool)
    }

    /// As [`Fleet::add_pod`], with this key.
    pub(super) fn add_pod_of(&self, key: SchedulerKey, node: usize, spool: String) -> usize {
        let mut world = self.world.lock();
        let n = world.pods.len();
        world.pods.push(Pod {
            name: key.hostname.first_label().to_owned(),
            port: port_of(&key),
            named: key.clone(),
            key,
            answered: None,
            has_answered: BTreeSet::new(),
            node,
            spool,
            link: super::world::Link::Up,
            fact: watch::Sender::new(Fact::Down),
            life: 0,
            stream: None,
            exists: true,
            agent: None,
            endpoint: String::new(),
        });
        n
    }

    /// Starts an agent in a pod that has none.
    pub(super) fn start(&self, pod: usize) {
        let (key, port, node, spool, history, rest) = {
            let world = self.world.lock();
            let Pod { key, port, node, spool, exists, agent, .. } = &world.pods[pod];
            if !exists || agent.is_some() {
                return;
            }
            (key.clone(), *port, *node, spool.clone(), world.history.clone(), world.rest)
        };
        let pid = self.next_pid();
        self.world.lock().pods[pod].agent = Some(pid);
        let on = format!("node {node}: {spool}");
        history.tell(Event::Started { pid, key: key.clone(), spool: on });
        let manager = manager_of(&key);
        let endpoint = {
            let mut world = self.world.lock();
            let endpoint = endpoint(manager, world.renamed[manager]);
            world.pods[pod].endpoint.clone_from(&endpoint);
            endpoint
        };
        let settings = {
            let (world, spool) = (self.world.clone(), spool.clone());
            let name = world.lock().pods[pod].name.clone();
            // As the scheduler's configuration names it now.
            move || {
                let (key, endpoint) = {
                    let world = world.lock();
                    let named = &world.pods[pod].named;
                    let its = manager_of(named);
                    // What its own manager is called is in its flags.
                    let is_another = its != manager;
                    let endpoint =
                        if is_another { self::endpoint(its, world.renamed[its]) } else { endpoint.clone() };
                    (at_its_manager(named), endpoint)
                };
                Settings {
                    pod_name: Some(name.clone()),
                    hostname: Some(key.hostname.clone()),
                    ip: Some(key.ip),
                    cluster_id: Some(key.cluster_id),
                    scheduler_addr: Some(format!("{}:{port}", key.ip).parse().unwrap()),
                    advertise_port: port,
                    registered_port: Some(port),
                    keep_alive_interval: INTERVAL,
                    managers: [Some(endpoint.as_str()), rest.then_some("http://manager:8080")]
                        .into_iter()
                        .flatten()
                        .map(str::to_owned)
                        .collect(),
                    username: rest.then(|| "guest".to_owned()),
                    password_file: rest.then(|| "/password".into()),
                    spool: spool.clone().into(),
                    grace: GRACE,
                    ..Settings::default()
                }
            }
        };
        let network = Network::new(self.world.clone(), pid, pod, manager, self.lie);
        let look = {
            let fleet = self.clone();
            move || fleet.look_at(pid, pod)
        };
        let deadline = {
            let fleet = self.clone();
            Deadline(Box::new(move |left, code| {
                let fleet = fleet.clone();
                tokio::spawn(async move {
                    sleep(left).await;
                    let done = code.load(Ordering::SeqCst) == Exit::Done.code();
                    fleet.exited(pid, if done { Exit::Done } else { Exit::Queued });
                });
            }))
        };
        let disk = self.disk(pid, manager, node, spool.into());
        let known = self.world.lock().pods[pod]
            .answered
            .clone()
            .map_or(Known::Certain, |before| Known::Before(Box::new(before)));
        let remember = {
            let world = self.world.clone();
            move |settings: &Settings| {
                let key = in_the_world(manager_at(&settings.managers).unwrap(), &settings.key().unwrap());
                let mut world = world.lock();
                world.pods[pod].answered = Some(settings.clone());
                world.pods[pod].has_answered.insert(key.clone());
                world.history.tell(Event::AnswersFor { pid, key });
            }
        };
        let known = (known, remember);
        let prober = Prober::new(network.clone());
        let connect = move |settings: &Settings| -> Arc<dyn Manager> {
            Arc::new(network.at(manager_at(&settings.managers).unwrap()))
        };
        let (commands, run) =
            simulated::agent_among(settings, known, (connect, prober), disk, look, deadline);
        let fleet = self.clone();
        let main = tokio::spawn(async move {
            match std::panic::AssertUnwindSafe(run).catch_unwind().await {
                Ok(exit) => fleet.exited(pid, exit),
                Err(_) => fleet.world.lock().history.tell(Event::Panicked { pid }),
            }
        });
        let tasks = vec![main.abort_handle()];
        self.processes.lock().unwrap().running.insert(pid, Process { pod, commands, tasks });
    }

    fn disk(
        &self,
        pid: Pid,
        manager: usize,
        node: usize,
        dir: PathBuf,
    ) -> (Disk, mpsc::UnboundedReceiver<crate::agent::disk::Report>) {
        let (disk, pace, dice) = {
            let mut world = self.world.lock();
            (world.disks[node].clone(), world.paces[node].subscribe(), world.dice.clone())
        };
        let arrivals = Arrivals::Test(disk.tells_of_what_comes_to(&dir));
        let files = disk.seen_by(pid, manager);
        let (at, dead) = (dir.clone(), disk.clone());
        let turn = move || {
            let (mut pace, dice, disk) = (pace.clone(), dice.clone(), dead.clone());
            async move {
                let now = *pace.borrow_and_update();
                match now {
                    Pace::Well if dice.one_in(3) => sleep(dice.millis(1, 10)).await,
                    Pace::Well => {}
                    Pace::Slow => sleep(dice.millis(20, 800)).await,
                    // The pace lives as long as the world.
                    Pace::Hangs => drop(pace.changed().await),
                }
                if disk.is_dead(pid) {
                    std::future::pending::<()>().await;
                }
            }
        };
        let fleet = self.clone();
        let done = move || {
            if disk.is_dead(pid) {
                fleet.kill(pid);
            }
        };
        let open = move || Spool::open_on(files.clone(), at.clone(), Limits::default());
        Disk::start_on_a_task(dir, arrivals, turn, done, open)
    }

    /// What an agent sees of its scheduler.
    fn look_at(&self, pid: Pid, pod: usize) -> Watcher {
        let (tell, seen) = mpsc::channel(16);
        let (mut fact, address, history, dice) = {
            let world = self.world.lock();
            let pod = &world.pods[pod];
            (pod.fact.subscribe(), pod.address(), world.history.clone(), world.dice.clone())
        };
        let world = self.world.clone();
        let lives = move || world.lock().pods[pod].life;
        let looks = tokio::spawn(async move {
            let (mut told, mut life) = (None, lives());
            loop {
                let now = *fact.borrow_and_update();
                match now {
                    Fact::Serves => sleep(dice.millis(1, 3)).await,
                    Fact::Down => sleep(dice.millis(1, 2)).await,
                    Fact::Hangs => sleep(Duration::from_secs(1)).await,
                }
                let is_another = std::mem::replace(&mut life, lives()) != life;
                if told == Some(now) && now == Fact::Serves && is_another {
                    // It went and came between two looks: its connection has ended.
                    if tell.send(Observation::Reconnected(address)).await.is_err() {
                        return;
                    }
                }
                if told != Some(now) {
                    told = Some(now);
                    let (serves, observation) = match now {
                        Fact::Serves => (Some(true), Observation::Serving(address)),
                        Fact::Down => (Some(false), Observation::Refused(vec![address])),
                        Fact::Hangs => (None, Observation::Unclear("no answer".to_owned())),
                    };
                    history.tell(Event::Sight { pid, serves });
                    if tell.send(observation).await.is_err() {
                        return;
                    }
                }
                if fact.changed().await.is_err() {
                    return;
                }
                match now {
                    Fact::Serves => {}
                    Fact::Down => sleep(dice.millis(1, 300)).await,
                    Fact::Hangs => sleep(dice.millis(1000, 5000)).await,
                }
            }
        });
        Watcher::fed(seen, looks.abort_handle())
    }

    fn remove(&self, pid: Pid) -> Option<Process> {
        let process = self.processes.lock().unwrap().running.remove(&pid)?;
        let mut world = self.world.lock();
        let node = world.pods[process.pod].node;
        world.disks[node].kill(pid);
        world.forget_watch(pid);
        world.pods[process.pod].agent = None;
        drop(world);
        for task in &process.tasks {
            task.abort();
        }
        Some(process)
    }

    fn exited(&self, pid: Pid, exit: Exit) {
        let Some(Process { pod, .. }) = self.remove(pid) else { return };
        let world = self.world.lock();
        let pod = &world.pods[pod];
        let on_disk = world.disks[pod.node].has_durable_ask(pod.spool.as_ref(), &pod.key);
        world.history.tell(Event::Exited { pid, exit, on_disk });
    }

    /// kill -9.
    pub(super) fn kill(&self, pid: Pid) {
        if self.remove(pid).is_some() {
            self.world.lock().history.tell(Event::Killed { pid });
        }
    }

    pub(super) fn agent_of(&self, pod: usize) -> Option<Pid> {
        self.world.lock().pods[pod].agent
    }

    pub(super) fn kill_agent(&self, pod: usize) {
        if let Some(pid) = self.agent_of(pod) {
            self.kill(pid);
        }
    }

    fn tell(&self, pid: Pid, command: Command) {
        if let Some(process) = self.processes.lock().unwrap().running.get(&pid) {
            // It may be at its end.
            let _ = process.commands.send(command);
        }
    }

    pub(super) fn terminate(&self, pod: usize) {
        let Some(pid) = self.agent_of(pod) else { return };
        self.world.lock().history.tell(Event::Terminated { pid });
        let (fleet, late) = (self.clone(), if self.deaf { GRACE * 3 / 4 } else { Duration::ZERO });
        tokio::spawn(async move {
            sleep(late).await;
            fleet.tell(pid, Command::Event(lifecycle::Event::Terminate));
        });
    }

    /// A pre-stop hook: its end comes through the channel, answered or not.
    pub(super) fn pre_stop(&self, pod: usize, wait: Option<Duration>) -> oneshot::Receiver<()> {
        let (done, is_done) = oneshot::channel();
        let Some(pid) = self.agent_of(pod) else { return is_done };
        let hook = {
            let mut processes = self.processes.lock().unwrap();
            processes.last_hook += 1;
            processes.last_hook
        };
        self.world.lock().history.tell(Event::PreStop { pid, hook });
        let (answer, answered) = oneshot::channel();
        self.tell(pid, Command::PreStop { wait, answer });
        let fleet = self.clone();
        tokio::spawn(async move {
            if let Ok(answer) = answered.await {
                let world = fleet.world.lock();
                let pod = &world.pods[pod];
                let on_disk = world.disks[pod.node].has_durable_ask(pod.spool.as_ref(), &pod.key);
                let (result, persisted) = (answer.result, answer.persisted);
                world.history.tell(Event::Answered { pid, hook, result, persisted, on_disk });
            }
            // Who waited may not care any more.
            let _ = done.send(());
        });
        is_done
    }
}
