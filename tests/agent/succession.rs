//! A scheduler that came back under a new IP, and the row that its earlier incarnation left. Verdicts are read from the table.

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use signoff::{
    key::SchedulerKey,
    manager::State,
    mock::{
        fault::{Fault, Kind},
        manager::{Config, MockManager, User},
        scheduler::{MockScheduler, SchedulerConfig},
        table::{By, Collation, Database},
    },
};
use tokio::net::TcpListener;

use crate::{
    harness::{INTERVAL, LONG, PASSWORD, Process, World, eventually, run},
    hook::{metric, own_address},
    trust::ends_tls,
};

/// The successor's IP.
const NEW: &str = "127.0.0.2";
/// What a real scheduler waits before its first keep-alive, and between any two.
const REAL_INTERVAL: Duration = Duration::from_secs(5);

fn key_at(world: &World, ip: &str) -> SchedulerKey {
    SchedulerKey::new(world.key.cluster_id, world.key.hostname.clone(), ip.parse().unwrap())
}

/// The world's pod comes back under a new IP: its scheduler is started, and its row is not active yet.
async fn successor(world: &World, manager: &MockManager, interval: Duration) -> MockScheduler {
    let listen: SocketAddr = format!("{NEW}:0").parse().unwrap();
    let config = SchedulerConfig::new(key_at(world, NEW), manager.grpc_addr()).every(interval);
    MockScheduler::start(SchedulerConfig { listen, ..config }).await.unwrap()
}

/// Its agent, with a scheduler of the tests' short interval.
fn heir(world: &World, scheduler: &MockScheduler, rest: bool) -> Command {
    heir_of(world, scheduler, rest, INTERVAL)
}

fn heir_of(world: &World, scheduler: &MockScheduler, rest: bool, interval: Duration) -> Command {
    let mut command = if rest { world.agent_with_rest() } else { world.agent() };
    let (path, millis) =
        (world.path("scheduler.yaml"), |interval: Duration| format!("{}ms", interval.as_millis()));
    let yaml = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, yaml.replace(&millis(INTERVAL), &millis(interval))).unwrap();
    command.env("SIGNOFF_IP", NEW).env("SIGNOFF_SCHEDULER_ADDR", scheduler.addr().to_string());
    command
}

/// Which rows are active, by IP.
fn active(table: &Database) -> Vec<String> {
    let rows = table.rows().unwrap().into_iter();
    rows.filter(|row| row.state == State::Active).map(|row| row.ip).collect()
}

/// How often the row of this key was made inactive by the end of a stream.
fn signed_off(table: &Database, key: &SchedulerKey) -> usize {
    let ended = |change: &signoff::mock::table::Change| {
        change.by == By::StreamEnd
            && change.ip == key.ip.to_string()
            && change.host_name == key.hostname.as_str()
    };
    table.history().into_iter().filter(ended).count()
}

/// Waits until the successor's row is active and the old one is not: how long after `began`.
async fn one_active_row(table: &Database, began: Instant) -> Duration {
    let reached = table.eventually(LONG, |_| active(table) == [NEW]).await;
    assert!(reached, "{:?}", table.history());
    began.elapsed()
}

async fn a_lost_pods_row_is_signed_off(rest: bool, hung: bool) {
    let mut world = World::new().await;
    let old = world.scheduler.addr();
    world.scheduler.vanish().await;
    // A stopped process: its kernel accepts, and nobody says a word.
    let hole = if hung { Some(TcpListener::bind(old).await.unwrap()) } else { None };
    let address = own_address();
    let began = Instant::now();
    let successor = successor(&world, &world.manager, REAL_INTERVAL).await;
    let mut command = heir_of(&world, &successor, rest, REAL_INTERVAL);
    command.env("SIGNOFF_LISTEN", address.to_string());
    let agent = Process::start(command);
    let took = one_active_row(world.manager.table(), began).await;
    println!("rest: {rest}, hung: {hung}: one active row {took:?} after the successor's start");
    assert!(took < Duration::from_secs(10), "{took:?}: {}", agent.log());
    agent.says("Settled a sign-off of another key.").await;
    eventually("it is counted", async || {
        let counted = metric(address, "signoff_predecessors_total{verdict=\"signed-off\"}").await;
        (counted == "1").then_some(())
    })
    .await;
    let settled = "signoff_settled_total{result=\"confirmed\",cause=\"predecessor\"}";
    assert_eq!(metric(address, settled).await, "1");
    assert_eq!(metric(address, "signoff_pending_signoffs").await, "0");
    assert!(world.asks().is_empty());
    let table = world.manager.table();
    assert_eq!((signed_off(table, &world.key), signed_off(table, &key_at(&world, NEW))), (1, 0));
    drop(hole);
}

#[tokio::test]
async fn a_lost_or_hung_pods_row_is_signed_off_within_10_s_of_its_successors_start() {
    tokio::join!(
        a_lost_pods_row_is_signed_off(true, false),
        a_lost_pods_row_is_signed_off(false, false),
        a_lost_pods_row_is_signed_off(true, true),
        a_lost_pods_row_is_signed_off(false, true),
    );
}

#[tokio::test]
async fn an_agent_that_starts_only_later_signs_the_dead_row_off_at_once() {
    let mut world = World::new().await;
    world.scheduler.vanish().await;
    let successor = successor(&world, &world.manager, INTERVAL).await;
    let table = world.manager.table();
    assert!(table.eventually_state(&key_at(&world, NEW), Some(State::Active), LONG).await);
    let _agent = Process::watching(heir(&world, &successor, true)).await;
    let took = one_active_row(table, Instant::now()).await;
    println!("{took:?} after its scheduler was seen");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

async fn behind_several_managers(rest: bool) {
    let database = Database::in_memory(Collation::MySql);
    let mut world = World::with(Config { database: Some(database.clone()), ..Config::default() }).await;
    let users = vec![User::guest("viewer", PASSWORD)];
    let config = Config { database: Some(database), users, ..Config::default() };
    // Its memory is never emptied: nobody writes through it.
    let reading = MockManager::start(config).await.unwrap();
    world.scheduler.vanish().await;
    let began = Instant::now();
    let successor = successor(&world, &world.manager, REAL_INTERVAL).await;
    let mut command = heir_of(&world, &successor, rest, REAL_INTERVAL);
    let rest_addr = if rest { format!(",http://{}", reading.rest_addr()) } else { String::new() };
    command.env("SIGNOFF_MANAGER", format!("{}{rest_addr}", reading.grpc_addr()));
    let agent = Process::start(command);
    let took = one_active_row(world.manager.table(), began).await;
    println!("rest: {rest}, several managers: one active row {took:?} after the successor's start");
    let limit = if rest { 10 } else { 45 };
    assert!(took < Duration::from_secs(limit), "{took:?}: {}", agent.log());
}

#[tokio::test]
async fn at_the_second_look_what_a_cache_hid_or_was_taken_over_is_signed_off_and_what_still_answers_is_contested()
 {
    tokio::join!(
        behind_several_managers(true),
        behind_several_managers(false),
        an_address_is_reused(Duration::from_secs(20)),
        a_living_pod_of_the_same_name_is_contested(true),
        a_living_pod_of_the_same_name_is_contested(false),
    );
}

/// An agent for which succession is off, or may only report, beside a dead predecessor's row.
async fn left_alone(environment: (&str, &str), says: &str, shows: &str) {
    let mut world = World::new().await;
    world.scheduler.vanish().await;
    let successor = successor(&world, &world.manager, INTERVAL).await;
    let table = world.manager.table();
    assert!(table.eventually_state(&key_at(&world, NEW), Some(State::Active), LONG).await);
    let mut command = heir(&world, &successor, true);
    let address = own_address();
    // A blank variable counts as unset.
    command.env("SIGNOFF_LISTEN", address.to_string()).env(environment.0, environment.1);
    let agent = Process::watching(command).await;
    agent.says(says).await;
    agent.says_times("Read the row.", 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(active(table), ["127.0.0.1", NEW], "{}", agent.log());
    assert_eq!(signed_off(table, &world.key), 0, "{}", agent.log());
    assert_eq!(agent.log().matches(says).count(), 1, "{}", agent.log());
    let (code, out, err) = run(world.command(&["status"])).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains(shows), "{shows}: {out}");
    let (_, out, _) = run(world.command(&["status", "-o", "json"])).await;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    let mode = if shows.contains("reports") { "report" } else { "off" };
    assert_eq!(status["succession"]["mode"], mode, "{out}");
    let reported = if mode == "report" { "1" } else { "0" };
    assert_eq!(metric(address, "signoff_predecessors_total{verdict=\"reported\"}").await, reported);
}

#[tokio::test]
async fn what_is_no_stateful_sets_pod_or_has_its_nodes_address_or_may_not_leaves_the_row_alone_and_says_why()
{
    let off = "succession is off.";
    tokio::join!(
        left_alone(("POD_NAME", ""), off, "Succession  off: POD_NAME is not set"),
        left_alone(("POD_NAME", "scheduler-1"), off, "which is not the pod's name, scheduler-1"),
        left_alone(("HOST_IP", NEW), off, "127.0.0.2 is its node's address (hostNetwork)"),
        left_alone(("SIGNOFF_REPAIR", "off"), off, "Succession  off: repair is set to off"),
        left_alone(
            ("SIGNOFF_REPAIR", "report"),
            "though it is gone; it is left alone",
            "Succession  reports"
        ),
    );
}

/// It is said once, and left alone: by its keep-alive times where these are shown, else by its answers.
async fn a_living_pod_of_the_same_name_is_contested(rest: bool) {
    let world = World::new().await;
    let address = own_address();
    let successor = successor(&world, &world.manager, INTERVAL).await;
    let mut command = heir(&world, &successor, rest);
    command.env("SIGNOFF_LISTEN", address.to_string());
    let agent = Process::watching(command).await;
    if !rest {
        agent.says("something answers there: it is looked at again").await;
    }
    agent.says("is contested and left alone").await;
    let log = agent.log();
    let line = log.lines().find(|line| line.contains("is contested")).unwrap();
    let why = if rest { "\"reason\":\"" } else { "something answers" };
    for said in ["\"ERROR\"", "127.0.0.1\"", "127.0.0.2\"", "schedulerClusterID", why] {
        assert!(line.contains(said), "{said}: {line}");
    }
    assert_eq!(metric(address, "signoff_predecessors_total{verdict=\"contested\"}").await, "1");
    let (_, out, _) = run(world.command(&["status"])).await;
    assert!(out.contains(&format!("CONTESTED, left alone: {}", world.key)), "{out}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let table = world.manager.table();
    assert_eq!(active(table), ["127.0.0.1", NEW], "{}", agent.log());
    assert_eq!(signed_off(table, &world.key), 0);
    assert_eq!(agent.log().matches("is contested").count(), 1, "{}", agent.log());
}

/// Another scheduler has the dead one's address, and becomes active `after` its start.
async fn an_address_is_reused(after: Duration) {
    let mut world = World::new().await;
    let old = world.scheduler.addr();
    world.scheduler.vanish().await;
    let other = SchedulerKey::new(
        world.key.cluster_id,
        "scheduler-7.scheduler.dragonfly.svc.cluster.local".parse().unwrap(),
        "127.0.0.1".parse().unwrap(),
    );
    let config = SchedulerConfig::new(other.clone(), world.manager.grpc_addr()).every(after);
    let other_scheduler = MockScheduler::start(SchedulerConfig { listen: old, ..config }).await.unwrap();
    let table = world.manager.table();
    if after < Duration::from_secs(1) {
        assert!(table.eventually_state(&other, Some(State::Active), LONG).await);
    }
    let began = Instant::now();
    let successor = successor(&world, &world.manager, INTERVAL).await;
    let agent = Process::start(heir(&world, &successor, true));
    let reached = table.eventually_state(&world.key, Some(State::Inactive), LONG).await;
    assert!(reached, "{}", agent.log());
    println!("address reused, active {after:?} after its start: signed off after {:?}", began.elapsed());
    assert_eq!(table.state(&other).unwrap(), Some(State::Active));
    assert_eq!(signed_off(table, &other), 0);
    assert!(!agent.log().contains("is contested"), "{}", agent.log());
    drop(other_scheduler);
}

#[tokio::test]
async fn an_ip_that_another_scheduler_has_by_now_is_recognised() {
    an_address_is_reused(INTERVAL).await;
}

/// A dead predecessor whose sign-off no manager takes: the ask is on disk.
async fn an_ask_is_pending(world: &mut World) -> (MockScheduler, Process) {
    world.scheduler.vanish().await;
    let successor = successor(world, &world.manager, INTERVAL).await;
    let table = world.manager.table();
    assert!(table.eventually_state(&key_at(world, NEW), Some(State::Active), LONG).await);
    world.manager.faults().add(Fault::new(Kind::Unavailable).call("keep-alive")).unwrap();
    let agent = Process::watching(heir(world, &successor, true)).await;
    agent.says("its sign-off stays queued").await;
    // A slow disk is not waited for.
    eventually("the ask on disk", async || (world.asks().len() == 1).then_some(())).await;
    assert_eq!(active(table), ["127.0.0.1", NEW]);
    let (code, out, err) = run(world.command(&["status"])).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!("{}  predecessor ", world.key)), "{out}");
    (successor, agent)
}

#[tokio::test]
async fn a_sign_off_that_was_pending_when_the_agent_was_killed_is_replayed_and_not_asked_for_twice() {
    let mut world = World::new().await;
    let (successor, agent) = an_ask_is_pending(&mut world).await;
    agent.kill().await;
    let agent = Process::watching(heir(&world, &successor, true)).await;
    agent.says("Found sign-offs of another scheduler in the spool.").await;
    agent.says("its sign-off stays queued").await;
    // It looks at once, and an interval later.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.asks().len(), 1, "{}", agent.log());
    world.manager.faults().clear();
    one_active_row(world.manager.table(), Instant::now()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(signed_off(world.manager.table(), &world.key), 1, "{}", agent.log());
    assert!(!agent.log().contains("signing it off"), "{}", agent.log());
}

#[tokio::test]
async fn a_sign_off_during_an_outage_is_made_once_the_manager_is_back() {
    let mut world = World::new().await;
    let (_successor, agent) = an_ask_is_pending(&mut world).await;
    world.manager.stop().await;
    world.manager.faults().clear();
    agent.says("connection refused").await;
    world.manager.restart().await.unwrap();
    let took = one_active_row(world.manager.table(), Instant::now()).await;
    println!("signed off {took:?} after the manager was back");
}

#[tokio::test]
async fn a_disk_that_refuses_does_not_keep_a_predecessor_from_being_signed_off() {
    let mut world = World::new().await;
    world.scheduler.vanish().await;
    let successor = successor(&world, &world.manager, INTERVAL).await;
    std::fs::write(world.path("spool"), "in the way").unwrap();
    let agent = Process::start(heir(&world, &successor, true));
    one_active_row(world.manager.table(), Instant::now()).await;
    agent.says("A sign-off could not be written to the spool: it is tried all the same").await;
}

/// Something takes every connection to the port of a dead predecessor, and closes it, as a service mesh does: also where nobody is.
async fn in_a_mesh(world: &mut World) -> tokio::task::JoinHandle<()> {
    let port = world.scheduler.addr().port();
    world.scheduler.vanish().await;
    let proxy = TcpListener::bind(("0.0.0.0", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = proxy.accept().await {
            drop(tcp);
        }
    })
}

#[tokio::test]
async fn in_a_mesh_the_keep_alive_times_decide_and_it_is_said_that_probes_are_worthless() {
    let mut world = World::new().await;
    let proxy = in_a_mesh(&mut world).await;
    let successor = successor(&world, &world.manager, INTERVAL).await;
    let address = own_address();
    let mut command = heir(&world, &successor, true);
    command.env("SIGNOFF_LISTEN", address.to_string());
    let agent = Process::watching(command).await;
    one_active_row(world.manager.table(), Instant::now()).await;
    agent.says("but the manager heard nothing of it for").await;
    assert_eq!(signed_off(world.manager.table(), &key_at(&world, NEW)), 0, "{}", agent.log());
    let degraded = "signoff_degraded{reason=\"probes\"}";
    eventually("it is a metric", async || (metric(address, degraded).await == "1").then_some(())).await;
    let (_, out, _) = run(world.command(&["status"])).await;
    assert!(out.contains("probes: something takes connections to addresses where nobody is"), "{out}");
    proxy.abort();
}

#[tokio::test]
async fn in_a_mesh_without_keep_alive_times_nothing_is_written_and_it_is_said_once() {
    let mut world = World::new().await;
    let proxy = in_a_mesh(&mut world).await;
    let successor = successor(&world, &world.manager, INTERVAL).await;
    let address = own_address();
    let mut command = heir(&world, &successor, false);
    command.env("SIGNOFF_LISTEN", address.to_string());
    let agent = Process::watching(command).await;
    let said = "it can't be told whether anybody is there";
    agent.says(said).await;
    assert_eq!(metric(address, "signoff_predecessors_total{verdict=\"undecided\"}").await, "1");
    assert_eq!(metric(address, "signoff_predecessors_total{verdict=\"contested\"}").await, "0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let table = world.manager.table();
    assert_eq!(
        (active(table), signed_off(table, &world.key)),
        (vec!["127.0.0.1".to_owned(), NEW.to_owned()], 0)
    );
    assert_eq!(agent.log().matches(said).count(), 1, "{}", agent.log());
    proxy.abort();
}

/// A lost pod whose address another one has by now, which ends TLS; its successor, and that one's agent.
async fn the_address_speaks_tls(of_a_mesh: bool, rest: bool) -> (World, SocketAddr, Process, impl Sized) {
    let mut world = World::new().await;
    let old = world.scheduler.addr();
    world.scheduler.vanish().await;
    let heir_of_the_address = ends_tls(old, of_a_mesh).await;
    let successor = successor(&world, &world.manager, INTERVAL).await;
    let address = own_address();
    let mut command = heir(&world, &successor, rest);
    command.env("SIGNOFF_LISTEN", address.to_string());
    let agent = Process::watching(command).await;
    (world, address, agent, (successor, heir_of_the_address))
}

#[tokio::test]
async fn where_a_meshed_pod_has_a_dead_ones_address_the_keep_alive_times_decide() {
    let (world, address, agent, _lives) = the_address_speaks_tls(true, true).await;
    one_active_row(world.manager.table(), Instant::now()).await;
    agent.says("a service mesh's proxy ends TLS there; but the manager heard nothing of it for").await;
    assert_eq!(signed_off(world.manager.table(), &key_at(&world, NEW)), 0, "{}", agent.log());
    assert_eq!(metric(address, "signoff_predecessors_total{verdict=\"contested\"}").await, "0");
    assert_ne!(metric(address, "signoff_degraded{reason=\"probes\"}").await, "1", "it is one address alone");
}

#[tokio::test]
async fn where_a_meshed_pod_has_a_dead_ones_address_and_no_times_are_shown_nothing_is_written() {
    let (world, address, agent, _lives) = the_address_speaks_tls(true, false).await;
    agent.says("it can't be told whether anybody is there").await;
    assert_eq!(metric(address, "signoff_predecessors_total{verdict=\"undecided\"}").await, "1");
    assert_eq!(metric(address, "signoff_predecessors_total{verdict=\"contested\"}").await, "0");
    let table = world.manager.table();
    assert_eq!(active(table), ["127.0.0.1", NEW], "{}", agent.log());
    assert_eq!(signed_off(table, &world.key), 0);
}

#[tokio::test]
async fn one_that_wants_a_client_certificate_as_a_scheduler_does_is_contested_though_the_manager_hears_nothing_of_it()
 {
    let (world, _, agent, _lives) = the_address_speaks_tls(false, true).await;
    agent.says("something answers there: it is looked at again").await;
    agent.says("is contested and left alone").await;
    let table = world.manager.table();
    assert_eq!(active(table), ["127.0.0.1", NEW], "{}", agent.log());
    assert_eq!(signed_off(table, &world.key), 0);
}

/// One of two Kubernetes clusters: its pod, which can't be reached from the other, and its agent.
async fn one_of_two(world: &World, ip: &str, rest: bool) -> (MockScheduler, Process) {
    let unreachable = {
        let listener = TcpListener::bind(format!("{ip}:0")).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let config = SchedulerConfig {
        listen: format!("{ip}:0").parse().unwrap(),
        register_port: Some(unreachable),
        ..SchedulerConfig::new(key_at(world, ip), world.manager.grpc_addr()).every(INTERVAL)
    };
    let scheduler = MockScheduler::start(config).await.unwrap();
    let mut command = heir(world, &scheduler, rest);
    // The other's is written to the same place.
    let config = world.path(&format!("scheduler-{ip}.yaml"));
    std::fs::copy(world.path("scheduler.yaml"), &config).unwrap();
    command
        .env("SIGNOFF_SCHEDULER_CONFIG", config)
        .env("SIGNOFF_IP", ip)
        .env("SIGNOFF_SPOOL", world.path(&format!("spool-{ip}")))
        .env("SIGNOFF_RUN_DIR", world.path(&format!("run-{ip}")));
    let agent = Process::watching(command).await;
    (scheduler, agent)
}

#[tokio::test]
async fn of_two_clusters_with_the_same_names_none_signs_the_other_off_where_keep_alive_times_are_shown() {
    let mut world = World::new().await;
    world.scheduler.stop().await;
    world.until(State::Inactive).await;
    let (one, two) =
        tokio::join!(one_of_two(&world, "127.0.0.2", true), one_of_two(&world, "127.0.0.3", true));
    let table = world.manager.table();
    eventually("one says that the other lives", async || {
        [&one, &two]
            .iter()
            .any(|(_, agent)| agent.log().contains("is contested and left alone"))
            .then_some(())
    })
    .await;
    // Two more looks would come by now, if any came.
    tokio::time::sleep(Duration::from_secs(10)).await;
    for (key, (_, agent)) in ["127.0.0.3", "127.0.0.2"].map(|ip| key_at(&world, ip)).iter().zip([&one, &two])
    {
        assert_eq!(signed_off(table, key), 0, "{:?}\n{}", table.history(), agent.log());
    }
    assert_eq!(active(table), ["127.0.0.2", "127.0.0.3"]);
}

#[tokio::test]
async fn of_two_clusters_with_the_same_names_over_grpc_one_signs_the_other_off_at_most_once_and_it_recovers()
{
    let mut world = World::new().await;
    world.scheduler.stop().await;
    world.until(State::Inactive).await;
    // The second one's agent reads over REST, and sees within 60 s what was done to it.
    let (one, two) =
        tokio::join!(one_of_two(&world, "127.0.0.2", false), one_of_two(&world, "127.0.0.3", true));
    let table = world.manager.table();
    let keys = ["127.0.0.2", "127.0.0.3"].map(|ip| key_at(&world, ip));
    let wrong = || keys.each_ref().map(|key| signed_off(table, key));
    eventually("one is signed off", async || (wrong()[1] > 0).then_some(())).await;
    let began = Instant::now();
    let both = table.eventually(LONG, |_| active(table) == ["127.0.0.2", "127.0.0.3"]).await;
    assert!(both, "{:?}\n{}\n{}", table.history(), one.1.log(), two.1.log());
    println!("both active again {:?} after a wrong sign-off", began.elapsed());
    // Another look would come by now, if any came.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(wrong(), [0, 1], "{:?}\n{}\n{}", table.history(), one.1.log(), two.1.log());
    assert_eq!(active(table), ["127.0.0.2", "127.0.0.3"]);
}
