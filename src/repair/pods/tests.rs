use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::{
    manager::Failure,
    repair::judge::{Probed, Seen, tests::row},
};

#[cfg(feature = "mock")]
mod served;

const DOMAIN: &str = "cluster.local";
const S0: &str = "s-0.sched.dragonfly.svc.cluster.local";

fn zone() -> Zone {
    Zone::new("dragonfly", DOMAIN)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A pod of the StatefulSet's, as the API shows it.
fn pod(name: &str, ip: &str) -> Value {
    json!({
        "metadata": { "name": name, "uid": format!("uid-{name}-{ip}"), "labels": { "component": "scheduler", "app": "dragonfly" } },
        "spec": { "nodeName": "node-1", "hostname": name, "subdomain": "sched", "containers": [{ "name": "scheduler" }] },
        "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "hostIP": "192.168.0.1",
            "conditions": [{ "type": "Initialized", "status": "True" }, { "type": "Ready", "status": "True" }] }
    })
}

/// The pod with something else at that place; null takes it away.
fn with(mut pod: Value, place: &str, value: Value) -> Value {
    let (parent, key) = place.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap()[key] = value;
    pod
}

fn body(pods: &[Value], next: Option<&str>) -> String {
    let metadata = json!({ "resourceVersion": "4711", "continue": next });
    json!({ "kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": pods }).to_string()
}

fn pods_at(taken: Instant, pods: &[Value]) -> Pods {
    Pods::of_json(zone(), taken, body(pods, None).as_bytes()).unwrap()
}

fn pods(pods: &[Value]) -> Pods {
    pods_at(Instant::now(), pods)
}

fn says(pod: Value) -> Says {
    pods(&[pod]).says(S0, ip("10.0.0.1"))
}

/// One list after the other, the last one first.
struct Lists(Zone, std::sync::Mutex<Vec<Pods>>);

#[async_trait::async_trait]
impl ListPods for Lists {
    fn zone(&self) -> &Zone {
        &self.0
    }
    async fn pods(&self) -> Result<Pods, Failure> {
        let next = self.1.lock().unwrap().pop();
        match next {
            Some(list) => Ok(list),
            None => std::future::pending().await,
        }
    }
}

/// Watches the pod s-0, which has these IPs one after the other.
fn watch(ips: &[&str]) -> Watch {
    let lists = ips.iter().rev().map(|ip| pods(&[pod("s-0", ip)])).collect();
    Watch::new(Box::new(Lists(zone(), std::sync::Mutex::new(lists))))
}

async fn told(watch: &mut Watch, rows: &mut [Seen]) -> Vec<Says> {
    watch.tell(rows, Instant::now() + Duration::from_secs(60)).await.unwrap();
    rows.iter().map(|row| row.pod).collect()
}

#[tokio::test]
async fn g7_one_that_is_heard_of_after_its_pod_went_did_not_go() {
    let old = || row(1, S0, "10.0.0.1").silent();
    let rows = |old| [old, row(2, S0, "10.0.0.2").heard()];
    let (before, after) = ("10.0.0.1", "10.0.0.2");
    let mut watch = watch(&[before, after, after, after, before, after, after, after]);
    assert_eq!(told(&mut watch, &mut rows(old().heard())).await[0], Says::Lives);
    // Its last word came between the looks, before it went.
    assert_eq!(told(&mut watch, &mut rows(old().heard())).await, [Says::Went, Says::Lives]);
    assert_eq!(told(&mut watch, &mut rows(old().heard())).await[0], Says::Gone);
    assert_eq!(told(&mut watch, &mut rows(old())).await[0], Says::Gone, "it may be another cluster's by now");
    // The same of one that answers.
    assert_eq!(told(&mut watch, &mut rows(old().heard())).await[0], Says::Lives);
    assert_eq!(told(&mut watch, &mut rows(old())).await[0], Says::Went);
    assert_eq!(told(&mut watch, &mut rows(old().probed(Probed::Answers))).await[0], Says::Gone);
    assert_eq!(told(&mut watch, &mut rows(old())).await[0], Says::Gone);
}

#[tokio::test]
async fn g7_where_no_row_of_a_name_has_its_pods_ip_that_row_is_unclear() {
    let advertised = || row(1, S0, "192.168.0.9").silent();
    let scaled_down = || row(2, &S0.replace("s-0", "s-1"), "10.0.0.9").silent();
    let foreign = || row(3, "node-1", "10.0.0.1");
    let mut watch = watch(&["10.0.0.1"; 2]);
    let mut rows = [advertised(), scaled_down(), foreign()];
    assert_eq!(told(&mut watch, &mut rows).await, [Says::Unclear, Says::Gone, Says::NotOurs]);
    // The fleet registers its pods' IPs.
    let mut rows = [advertised(), scaled_down(), foreign(), row(4, S0, "10.0.0.1").heard()];
    let told = watch.tell(&mut rows, Instant::now() + Duration::from_secs(60)).await.unwrap();
    assert_eq!(
        (rows[0].pod, rows[3].pod, told.others, told.zone),
        (Says::Gone, Says::Lives, 1, zone().to_string())
    );
}

#[tokio::test(start_paused = true)]
async fn g7_a_list_that_is_not_there_in_time_is_none_and_each_row_of_its_pods_is_unclear() {
    let mut rows = [row(1, S0, "10.0.0.1"), row(2, "node-1", "10.0.0.1")];
    let until = Instant::now() + Duration::from_secs(1);
    let failure = watch(&[]).tell(&mut rows, until).await.unwrap_err();
    assert!(failure.why.contains("--deadline") && Instant::now() == until, "{failure}");
    assert_eq!(rows.map(|row| row.pod), [Says::Unclear, Says::NotOurs]);
}

#[test]
fn g7_a_pod_of_that_name_with_that_ip_lives_whatever_else_is_said_of_it() {
    let there = || pod("s-0", "10.0.0.1");
    let unready = json!([{ "type": "Ready", "status": "False", "reason": "ContainersNotReady" }]);
    for living in [
        there(),
        with(there(), "/status/phase", json!("Pending")),
        with(there(), "/metadata/deletionTimestamp", json!("2026-11-23T09:54:32Z")),
        with(there(), "/status/conditions", unready),
        with(there(), "/status/conditions", Value::Null),
        with(there(), "/status/podIPs", Value::Null),
        with(there(), "/status/podIP", Value::Null),
        with(there(), "/spec/hostname", Value::Null),
        with(there(), "/spec/subdomain", json!("another")),
        with(there(), "/metadata/uid", Value::Null),
    ] {
        assert_eq!(says(living.clone()), Says::Lives, "{living}");
    }
}

#[test]
fn g7_a_pod_whose_node_nobody_hears_of_is_evidence_for_nothing() {
    let there = || pod("s-0", "10.0.0.1");
    let ready = |status: &str, reason: Value| {
        with(there(), "/status/conditions", json!([{ "type": "Ready", "status": status, "reason": reason }]))
    };
    for unclear in [
        ready("False", Value::Null),
        ready("False", json!("")),
        ready("Unknown", json!("NodeStatusUnknown")),
        with(there(), "/status/reason", json!("NodeLost")),
        with(there(), "/status/phase", json!("Unknown")),
        with(there(), "/status/phase", Value::Null),
        with(with(there(), "/status/podIP", Value::Null), "/status/podIPs", json!([])),
        with(with(there(), "/status/podIP", json!("10.0.0.256")), "/status/podIPs", Value::Null),
    ] {
        assert_eq!(says(unclear.clone()), Says::Unclear, "{unclear}");
    }
}

#[test]
fn g7_another_ip_an_ended_pod_or_none_is_evidence_that_it_is_gone() {
    let there = || pod("s-0", "10.0.0.1");
    for gone in [
        pod("s-0", "10.0.0.2"),
        pod("s-1", "10.0.0.1"),
        with(there(), "/status/phase", json!("Failed")),
        with(there(), "/status/phase", json!("Succeeded")),
        // Its successor has no IP yet.
        with(with(pod("s-0", ""), "/status/podIPs", Value::Null), "/status/phase", json!("Pending")),
    ] {
        assert_eq!(says(gone.clone()), Says::Gone, "{gone}");
    }
    assert_eq!(pods(&[]).says(S0, ip("10.0.0.1")), Says::Gone);
}

#[test]
fn g7_of_a_row_that_is_not_this_namespaces_in_this_cluster_nothing_is_said() {
    let pods = pods(&[pod("s-0", "10.0.0.1")]);
    for other in [
        "s-0",
        "s-0.sched",
        "s-0.sched.dragonfly.svc",
        "s-0.dragonfly.svc.cluster.local",
        "s-0.sched.another.svc.cluster.local",
        "s-0.sched.not-dragonfly.svc.cluster.local",
        "s-0.sched.dragonfly.svc.another.local",
        "s-0.sched.dragonfly.svc.cluster.local.example",
        "s-0.sched.dragonfly.svc.local",
        ".sched.dragonfly.svc.cluster.local",
        "s-0..dragonfly.svc.cluster.local",
        "dragonfly.svc.cluster.local",
        "node-1",
        "",
    ] {
        assert_eq!(pods.says(other, ip("10.0.0.1")), Says::NotOurs, "{other}");
        assert_eq!(pods.says(other, ip("10.0.0.9")), Says::NotOurs, "{other}");
    }
    let of_the_node = with(pod("s-0", "10.0.0.1"), "/spec/hostNetwork", json!(true));
    assert_eq!(says(of_the_node), Says::NotOurs);
}

#[test]
fn case_a_dot_at_the_end_and_the_spelling_of_an_ip_do_not_matter() {
    let mut shown = pod("s-0", "10.0.0.1");
    shown["status"]["podIPs"] = json!([{ "ip": "10.0.0.1" }, { "ip": "FD00:0:0::1" }]);
    let shown = Pods::of_json(
        Zone::new("Dragonfly", "Cluster.Local."),
        Instant::now(),
        body(&[shown], None).as_bytes(),
    );
    let shown = shown.unwrap();
    for name in [S0, "S-0.Sched.dragonfly.svc.CLUSTER.local."] {
        for address in ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1"] {
            assert_eq!(shown.says(name, ip(address)), Says::Lives, "{name} {address}");
        }
        assert_eq!(shown.says(name, ip("fd00::2")), Says::Gone);
    }
    assert_eq!((shown.zone().to_string().as_str(), shown.len()), ("dragonfly.svc.cluster.local", 1));
}

#[test]
fn g7_a_pod_is_known_by_the_hostname_that_the_kubelet_gives_it() {
    let named = |name: &str| format!("{name}.sched.dragonfly.svc.cluster.local");
    let found = |pod: Value, name: &str| pods(&[pod]).says(&named(name), ip("10.0.0.1"));
    let other = with(pod("web-5d9f7", "10.0.0.1"), "/spec/hostname", json!("s-0"));
    assert_eq!(found(other.clone(), "s-0"), Says::Lives);
    assert_eq!(found(other, "web-5d9f7"), Says::Lives);
    let long = format!("{}-{}", "a".repeat(62), "b".repeat(10));
    let long = with(pod(&long, "10.0.0.1"), "/spec/hostname", Value::Null);
    assert_eq!(found(long, &"a".repeat(62)), Says::Lives);
    let dotted = with(pod("a.b", "10.0.0.1"), "/spec/hostname", Value::Null);
    assert_eq!(found(dotted, "a.b"), Says::Lives);
}

#[test]
fn g7_a_list_that_is_not_one_or_hides_a_pod_is_an_error() {
    let read = |text: &str| Pods::of_json(zone(), Instant::now(), text.as_bytes()).map(|pods| pods.len());
    let nameless = with(pod("s-0", "10.0.0.1"), "/metadata/name", Value::Null);
    for (text, why) in [
        ("<html>", "no list of pods: expected value"),
        ("{}", "of kind \"\""),
        (r#"{"kind":"Status","items":[]}"#, "of kind \"Status\""),
        (r#"{"kind":"PodList"}"#, "no items"),
        (r#"{"kind":"PodList","items":null}"#, "no items"),
        (r#"{"kind":"PodList","items":[{"metadata":{}}]}"#, "no name"),
        (&body(&[pod("s-1", "10.0.0.2"), nameless], None), "no name"),
        (&body(&[with(pod("s-0", "10.0.0.1"), "/status/podIPs", json!("10.0.0.1"))], None), "invalid type"),
    ] {
        let said = read(text).unwrap_err().to_string();
        assert!(said.contains(why), "{text}: {said}");
    }
    assert_eq!(read(r#"{"kind":"PodList","items":[{"metadata":{"name":"bare"}}]}"#), Ok(1));
    assert_eq!(read(r#"{"kind":"PodList","items":[]}"#), Ok(0));
    assert!(pods(&[]).is_empty());
}

#[test]
fn the_managers_are_the_running_pods_with_that_label() {
    let manager = |name: &str, ip: &str| with(pod(name, ip), "/metadata/labels/component", json!("manager"));
    let both = with(
        manager("m-0", "10.0.1.1"),
        "/status/podIPs",
        json!([{ "ip": "10.0.1.1" }, { "ip": "fd00::1" }]),
    );
    let found = pods(&[
        manager("m-1", "10.0.1.2"),
        both,
        with(manager("m-2", "10.0.1.3"), "/metadata/deletionTimestamp", json!("2026-11-23T09:54:32Z")),
        with(manager("m-3", "10.0.1.4"), "/status/phase", json!("Pending")),
        with(manager("m-4", "10.0.1.5"), "/metadata/labels", Value::Null),
        pod("s-0", "10.0.0.1"),
    ]);
    assert_eq!(found.managers(), [ip("10.0.1.1"), ip("10.0.1.2")]);
}

#[test]
fn the_domain_is_that_of_the_search_list() {
    let domain = |text: &str| Zone::of_resolv_conf("dragonfly", text).map(|zone| zone.domain);
    let written = "search dragonfly.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\noptions ndots:5\n";
    assert_eq!(domain(written).as_deref(), Some("cluster.local"));
    assert_eq!(domain("search lan Dragonfly.svc.k8s.Example.\n").as_deref(), Some("k8s.example"));
    for without in [
        "",
        "nameserver 10.96.0.10\n",
        "search another.svc.cluster.local svc.cluster.local\n",
        "search dragonfly.svc\n",
        "search dragonfly.svc.\n",
        "search dragonfly.svc.cluster.local\nsearch lan\n",
        "# search dragonfly.svc.cluster.local\n",
    ] {
        assert_eq!(domain(without), None, "{without:?}");
    }
}

/// What was seen to go, of s-0 at 10.0.0.1, after these lists.
fn watched(lists: &[&[Value]]) -> bool {
    let mut watched = Watched::default();
    lists.iter().for_each(|list| watched.saw(&pods(list)));
    watched.saw_it_go(S0, ip("10.0.0.1"))
}

#[test]
fn g7_what_went_is_what_this_process_saw_there_and_then_gone_or_elsewhere() {
    let (old, new) = (|| pod("s-0", "10.0.0.1"), || pod("s-0", "10.0.0.2"));
    let starting =
        || with(with(pod("s-0", ""), "/status/podIPs", Value::Null), "/status/phase", json!("Pending"));
    let moved = with(new(), "/metadata/uid", old()["metadata"]["uid"].clone());
    let cut_off = with(old(), "/status/reason", json!("NodeLost"));
    let elsewhere = pod("s-1", "10.0.0.1");
    for lists in [
        &[&[old()][..], &[]][..],
        &[&[old()], &[new()]],
        &[&[old()], &[starting()]],
        &[&[old()], &[starting()], &[new()]],
        &[&[old()], &[moved]],
        &[&[cut_off], &[new()]],
        // Another pod has its IP by now.
        &[&[old()], &[new(), elsewhere]],
        // It came back, and went again.
        &[&[old()], &[new()], &[old()], &[]],
    ] {
        assert!(watched(lists), "{lists:?}");
    }
}

#[test]
fn g7_what_was_not_seen_there_or_may_be_there_did_not_go() {
    let (old, new) = (|| pod("s-0", "10.0.0.1"), || pod("s-0", "10.0.0.2"));
    let failed = with(old(), "/status/phase", json!("Failed"));
    let no_ip = with(with(old(), "/status/podIP", Value::Null), "/status/podIPs", Value::Null);
    let restarted = with(no_ip.clone(), "/status/phase", json!("Pending"));
    let of_the_node = with(old(), "/spec/hostNetwork", json!(true));
    let no_subdomain = with(old(), "/spec/subdomain", Value::Null);
    let renamed = with(old(), "/spec/subdomain", json!("another"));
    for lists in [
        &[][..],
        &[&[new()][..]],
        &[&[], &[new()]],
        &[&[pod("s-1", "10.0.0.1")], &[new()]],
        &[&[old()]],
        &[&[old()], &[old()]],
        &[&[old()], &[new()], &[old()]],
        // It is there still, whatever it is.
        &[&[old()], std::slice::from_ref(&failed)],
        &[&[old()], &[no_ip]],
        &[&[old()], &[restarted]],
        &[std::slice::from_ref(&failed), &[new()]],
        // None that a row of that name can be of.
        &[std::slice::from_ref(&of_the_node), &[new()]],
        &[&[old()], std::slice::from_ref(&of_the_node)],
        &[&[no_subdomain], &[new()]],
        &[&[renamed], &[new()]],
    ] {
        assert!(!watched(lists), "{lists:?}");
    }
}

#[test]
fn g7_what_went_in_another_zone_is_forgotten() {
    let mut watched = Watched::default();
    watched.saw(&pods(&[pod("s-0", "10.0.0.1")]));
    watched.saw(&pods(&[]));
    assert!(watched.saw_it_go("S-0.sched.dragonfly.svc.cluster.local.", ip("::ffff:10.0.0.1")));
    assert!(!watched.saw_it_go("s-0.sched.another.svc.cluster.local", ip("10.0.0.1")));
    let other =
        Pods::of_json(Zone::new("another", DOMAIN), Instant::now(), body(&[], None).as_bytes()).unwrap();
    watched.saw(&other);
    assert!(!watched.saw_it_go(S0, ip("10.0.0.1")));
    assert!(!watched.saw_it_go("s-0.sched.another.svc.cluster.local", ip("10.0.0.1")));
}

#[test]
fn what_went_is_forgotten_a_day_after() {
    let mut watched = Watched::default();
    let start = Instant::now();
    let hours = |hours: u64| start + Duration::from_secs(hours * 3600);
    watched.saw(&pods_at(start, &[pod("s-0", "10.0.0.1")]));
    for (at, is_kept) in [(1, true), (24, true), (25, false), (26, false)] {
        watched.saw(&pods_at(hours(at), &[pod("s-0", "10.0.0.2")]));
        assert_eq!(watched.saw_it_go(S0, ip("10.0.0.1")), is_kept, "after {at} h");
    }
    // What stays is kept, however long.
    watched.saw(&pods_at(hours(27), &[]));
    assert!(watched.saw_it_go(S0, ip("10.0.0.2")));
}

#[test]
fn some_thousands_are_remembered_and_what_went_first_is_forgotten_first() {
    const ROUND: usize = 1000;
    let mut watched = Watched::default();
    let address = |n: usize| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
    for round in 0..6 {
        let some: Vec<_> = (0..ROUND).map(|n| pod(&format!("s-{n}"), &address(round * ROUND + n))).collect();
        watched.saw(&pods(&some));
    }
    let went = |n: usize| {
        watched.saw_it_go(&format!("s-{}.sched.dragonfly.svc.cluster.local", n % ROUND), ip(&address(n)))
    };
    // 4096 are kept: those that are there, and the last three rounds before them.
    assert!((2 * ROUND..5 * ROUND).all(went));
    assert!(!(0..ROUND).any(went) && !(5 * ROUND..6 * ROUND).any(went));
}
