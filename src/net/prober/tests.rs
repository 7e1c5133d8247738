use std::sync::Arc;

use super::*;

const LIMIT: Duration = Duration::from_secs(1);

/// Answers by address, and counts.
#[derive(Clone)]
struct Scripted {
    answers: fn(SocketAddr) -> Probe,
    asked: Arc<Mutex<Vec<SocketAddr>>>,
}

#[async_trait]
impl Reach for Scripted {
    async fn probe(&self, addr: SocketAddr, _: Duration) -> Probe {
        self.asked.lock().unwrap().push(addr);
        (self.answers)(addr)
    }
}

fn over(answers: fn(SocketAddr) -> Probe) -> (Prober, Arc<Mutex<Vec<SocketAddr>>>) {
    let asked = Arc::default();
    (Prober::new(Scripted { answers, asked: Arc::clone(&asked) }), asked)
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn refused(addr: SocketAddr) -> Probe {
    Probe::Nobody(format!("{addr}: connection refused"))
}

/// The addresses of pods are 10.0.0.0/8.
fn is_a_pods(addr: SocketAddr) -> bool {
    addr.to_string().starts_with("10.")
}

#[tokio::test]
async fn g7_what_answers_where_nobody_can_be_makes_probes_worthless_and_is_said() {
    let closes: fn(SocketAddr) -> Probe = |addr| match addr.ip().to_string().as_str() {
        "10.0.0.1" => Probe::Scheduler,
        _ => Probe::Foreign(format!("{addr}: it hung up")),
    };
    let (prober, _) = over(closes);
    let worthless = prober.worthless();
    let why = "10.0.0.2:8002: it hung up".to_owned();
    assert_eq!(prober.look(at("10.0.0.2:8002"), LIMIT).await, Found::Something { why, everywhere: true });
    let said = worthless.borrow().clone().unwrap();
    assert!(said.contains("192.0.2.219:8002") && said.contains("service mesh"), "{said}");
    // What no proxy can say is believed.
    assert_eq!(prober.look(at("10.0.0.1:8002"), LIMIT).await, Found::Scheduler);
    // A proxy that is silent for the dead, and one that says that all is well with them.
    let (prober, _) = over(|addr| Probe::Mute(addr.to_string()));
    let found = prober.look(at("10.0.0.2:8002"), LIMIT).await;
    assert!(matches!(found, Found::Something { everywhere: true, .. }), "{found:?}");
    let (prober, _) = over(|_| Probe::Scheduler);
    let found = prober.look(at("10.0.0.2:8002"), LIMIT).await;
    assert!(matches!(found, Found::Something { everywhere: true, .. }), "{found:?}");
}

#[tokio::test]
async fn without_a_mesh_a_hung_process_is_nobody_and_what_is_no_scheduler_is_something() {
    let (prober, _) = over(|addr| match addr.to_string().as_str() {
        "10.0.0.1:8002" => Probe::Mute("no answer".to_owned()),
        "10.0.0.2:8002" => Probe::Foreign("no scheduler's answer".to_owned()),
        _ => refused(addr),
    });
    assert_eq!(prober.look(at("10.0.0.1:8002"), LIMIT).await, Found::Nobody("no answer".to_owned()));
    let why = "no scheduler's answer".to_owned();
    assert_eq!(prober.look(at("10.0.0.2:8002"), LIMIT).await, Found::Something { why, everywhere: false });
    assert_eq!(*prober.worthless().borrow(), None);
}

#[tokio::test]
async fn g7_a_meshs_proxy_at_one_address_is_neither_a_scheduler_nor_nobody_and_makes_no_other_probe_worthless()
 {
    let (prober, _) = over(|addr| match addr.ip().to_string().as_str() {
        "10.0.0.1" => Probe::Proxy("a proxy".to_owned()),
        _ => refused(addr),
    });
    assert_eq!(prober.look(at("10.0.0.1:8002"), LIMIT).await, Found::Proxy("a proxy".to_owned()));
    assert!(matches!(prober.look(at("10.0.0.2:8002"), LIMIT).await, Found::Nobody(_)));
    assert_eq!(*prober.worthless().borrow(), None);
    // One that does so everywhere.
    let (prober, _) = over(|_| Probe::Proxy("a proxy".to_owned()));
    let why = "a proxy".to_owned();
    assert_eq!(prober.look(at("10.0.0.1:8002"), LIMIT).await, Found::Something { why, everywhere: true });
    assert!(prober.worthless().borrow().is_some());
}

#[tokio::test]
async fn one_odd_network_decides_nothing_and_two_of_three_do() {
    let one: fn(SocketAddr) -> Probe = |addr| match addr.ip().to_string().as_str() {
        "192.0.2.219" | "10.0.0.1" => Probe::Mute(addr.to_string()),
        _ => refused(addr),
    };
    let (prober, _) = over(one);
    let found = prober.look(at("10.0.0.1:8002"), LIMIT).await;
    assert!(matches!(found, Found::Nobody(_)), "{found:?}");
    let two: fn(SocketAddr) -> Probe = |addr| match addr.ip().to_string().as_str() {
        "203.0.113.219" => Probe::CantLook(addr.to_string()),
        _ => Probe::Mute(addr.to_string()),
    };
    let (prober, _) = over(two);
    let found = prober.look(at("10.0.0.1:8002"), LIMIT).await;
    assert!(matches!(found, Found::Something { everywhere: true, .. }), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_control_is_made_only_where_a_connection_was_taken_and_once_a_minute_for_a_port() {
    let (prober, asked) = over(refused);
    prober.look(at("10.0.0.1:8002"), LIMIT).await;
    assert_eq!(asked.lock().unwrap().len(), 1);
    let (prober, asked) = over(|addr| if is_a_pods(addr) { Probe::Scheduler } else { refused(addr) });
    for (port, probes) in [(8002, 4), (8002, 5), (8003, 9)] {
        prober.look(SocketAddr::new("10.0.0.1".parse().unwrap(), port), LIMIT).await;
        assert_eq!(asked.lock().unwrap().len(), probes);
        assert!(asked.lock().unwrap().iter().all(|addr| addr.port() == 8002 || port == 8003));
    }
    tokio::time::advance(BELIEVED).await;
    prober.look(at("10.0.0.1:8002"), LIMIT).await;
    assert_eq!(asked.lock().unwrap().len(), 13);
}

#[tokio::test]
async fn controls_are_of_the_addresss_own_kind() {
    for (like, nowhere) in [
        ("10.0.0.1:8002", "198.51.100.219:8002"),
        ("[::ffff:10.0.0.1]:8002", "198.51.100.219:8002"),
        ("127.0.0.1:8002", "127.198.51.219:8002"),
        ("[2a00::1]:8002", "[2001:db8:c7d1::219]:8002"),
        ("[fd00::1]:8002", "[fdb2:61f8:c97::219]:8002"),
    ] {
        let (prober, asked) = over(|_| Probe::Scheduler);
        prober.look(at(like), LIMIT).await;
        assert!(asked.lock().unwrap().contains(&at(nowhere)), "{like}: {:?}", asked.lock().unwrap());
    }
    for alone in ["[::1]:8002", "[fe80::1]:8002"] {
        let (prober, asked) = over(|_| Probe::Scheduler);
        assert_eq!(prober.look(at(alone), LIMIT).await, Found::Scheduler);
        assert_eq!(asked.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_was_worthless_and_is_not_any_more_is_no_longer_said() {
    let (prober, _) =
        over(|addr| if addr.port() == 1 { Probe::Mute(addr.to_string()) } else { refused(addr) });
    assert!(prober.answers_for_nobody(at("10.0.0.1:1"), LIMIT).await.is_some());
    prober.controls().clear();
    assert!(prober.answers_for_nobody(at("10.0.0.1:2"), LIMIT).await.is_none());
}
