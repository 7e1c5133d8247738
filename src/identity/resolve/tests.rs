use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::*;
use crate::identity::{Repair, fqdn::Lookup, interfaces::Interface, scheduler_yaml::TlsFiles};

/// Surroundings of a test's making: a pod beside a chart's scheduler, unless told otherwise.
struct Fake {
    env: HashMap<&'static str, &'static str>,
    files: HashMap<PathBuf, Result<String, io::ErrorKind>>,
    hostname: Result<&'static str, io::ErrorKind>,
    lookup: Lookup,
    interfaces: Result<Vec<Interface>, io::ErrorKind>,
    /// Nothing is waited for any more.
    patience_is_over: bool,
    asked: RefCell<Vec<String>>,
}

const CONFIG: &str = "/etc/dragonfly/scheduler.yaml";

impl Default for Fake {
    fn default() -> Self {
        let mut fake = Self {
            env: HashMap::new(),
            files: HashMap::new(),
            hostname: Ok("s-0"),
            lookup: Lookup::NoSuchName,
            interfaces: Ok(vec![interface(&["10.0.0.5", "fd00::5"])]),
            patience_is_over: false,
            asked: RefCell::default(),
        };
        fake.file("/etc/hosts", "10.0.0.5 s-0.sched.ns.svc.cluster.local s-0\n");
        fake
    }
}

impl Fake {
    fn file(&mut self, path: &str, text: &str) {
        self.files.insert(path.into(), Ok(text.to_owned()));
    }

    fn with_config(text: &str) -> Self {
        let mut fake = Self::default();
        fake.file(CONFIG, text);
        fake
    }
}

impl Surroundings for Fake {
    fn var(&self, name: &str) -> Option<String> {
        self.env.get(name).map(|v| (*v).to_owned())
    }
    fn read(&self, path: &Path, _: u64) -> io::Result<String> {
        self.asked.borrow_mut().push(path.display().to_string());
        self.files.get(path).cloned().unwrap_or(Err(io::ErrorKind::NotFound)).map_err(io::Error::from)
    }
    fn hostname(&self) -> io::Result<String> {
        self.hostname.map(str::to_owned).map_err(io::Error::from)
    }
    fn lookup(&self, _: &str) -> Lookup {
        self.lookup.clone()
    }
    fn waits_for(&self, _: &'static str, amiss: bool) -> bool {
        amiss && !self.patience_is_over
    }
    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        self.interfaces.clone().map_err(io::Error::from)
    }
}

fn interface(addresses: &[&str]) -> Interface {
    Interface { up: true, loopback: false, addresses: addresses.iter().map(|a| a.parse().unwrap()).collect() }
}

fn resolved(inputs: &Inputs, fake: &Fake) -> Resolved {
    resolve(inputs, None, fake)
}

fn texts(resolved: &Resolved) -> Vec<String> {
    resolved.problems.iter().map(|p| format!("{}: {}", p.reason, p.text)).collect()
}

const FULL: &str = "server: {host: y.example, advertiseIP: 10.0.0.9, advertisePort: 9000, listenIP: 10.0.0.8, port: 9001,\n\
    \x20 tls: {caCert: /sca, cert: /scrt, key: /skey}}\n\
    manager: {addr: 'm:65003', schedulerClusterID: 7, keepAlive: {interval: 3s}}\n";

#[test]
fn scheduler_yaml_alone_is_enough() {
    let got = resolved(&Inputs::default(), &Fake::with_config(FULL));
    assert_eq!(texts(&got), Vec::<String>::new());
    assert!(got.settings.is_complete());
    assert_eq!(got.settings.key().unwrap().to_string(), "y.example/10.0.0.9 in cluster 7");
    assert_eq!(got.settings.scheduler_addr, "10.0.0.8:9001".parse().ok());
    assert_eq!(got.settings.advertised(), "10.0.0.9:9000".parse().ok());
    assert_eq!(got.settings.managers, ["grpc://m:65003"]);
    assert_eq!(got.settings.keep_alive_interval, Duration::from_secs(3));
    assert_eq!(got.settings.scheduler_tls.unwrap().cert_file, Some("/scrt".into()));
}

#[test]
fn an_empty_scheduler_yaml_leaves_the_schedulers_own_rules() {
    let fake = Fake::with_config("manager: {addr: 'm:65003', tls: {caCert: /ca, cert: /crt, key: /key}}");
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!(texts(&got), Vec::<String>::new());
    assert_eq!(
        got.settings.key().unwrap().to_string(),
        "s-0.sched.ns.svc.cluster.local/10.0.0.5 in cluster 1"
    );
    assert_eq!(got.settings.scheduler_addr, "127.0.0.1:8002".parse().ok());
    assert_eq!(got.settings.managers, ["grpcs://m:65003"]);
    assert_eq!(got.settings.ca_file, Some("/ca".into()));
}

#[test]
fn a_flag_goes_before_everything() {
    let mut fake = Fake::with_config(FULL);
    fake.env.insert("POD_IP", "10.0.0.77");
    let inputs = Inputs {
        hostname: "f.example".parse().ok(),
        ip: "10.0.0.1".parse().ok(),
        cluster_id: "3".parse().ok(),
        scheduler_addr: "f:1".parse().ok(),
        managers: vec!["grpcs://f:65003".into()],
        ..Inputs::default()
    };
    let file = resolved(&Inputs::default(), &fake).settings;
    for file in [None, Some(&file)] {
        let got = resolve(&inputs, file, &fake);
        assert_eq!(got.settings.key().unwrap().to_string(), "f.example/10.0.0.1 in cluster 3");
        assert_eq!(got.settings.scheduler_addr, "f:1".parse().ok());
        assert_eq!(got.settings.managers, ["grpcs://f:65003"]);
    }
}

#[test]
fn scheduler_yaml_goes_before_pod_ip_and_fqdn() {
    let mut fake = Fake::with_config(FULL);
    fake.env.insert("POD_IP", "10.0.0.77");
    let got = resolved(&Inputs::default(), &fake).settings;
    assert_eq!((got.hostname, got.ip), ("y.example".parse().ok(), "10.0.0.9".parse().ok()));
}

#[test]
fn without_any_scheduler_yaml_a_manager_must_be_given() {
    let fake = Fake::default();
    let got = resolved(&Inputs::default(), &fake);
    assert!(!got.settings.is_complete());
    assert_eq!(
        texts(&got),
        [
            "configuration: no gRPC endpoint of the manager is known: give --manager HOST:PORT (or SIGNOFF_MANAGER), or \
         --scheduler-config with the scheduler's own file (/etc/dragonfly/scheduler.yaml is not there)"
        ]
    );
    let rest = Inputs { managers: vec!["http://m:8080".into()], ..Inputs::default() };
    assert_eq!(resolved(&rest, &fake).problems[0].reason, CONFIGURATION);
    let grpc = Inputs { managers: vec!["grpc://m:65003".into()], ..Inputs::default() };
    let got = resolved(&grpc, &fake);
    assert!(got.settings.is_complete() && got.problems.is_empty(), "{got:?}");
}

#[test]
fn a_rest_endpoint_alone_leaves_grpc_to_scheduler_yaml() {
    let inputs = Inputs {
        managers: vec!["http://m:8080".into()],
        username: Some("guest".into()),
        password_file: Some("/p".into()),
        ..Inputs::default()
    };
    let got = resolved(&inputs, &Fake::with_config(FULL));
    assert_eq!(got.settings.managers, ["grpc://m:65003", "http://m:8080"]);
    assert!(got.problems.is_empty());
}

#[test]
fn while_a_named_scheduler_yaml_can_not_be_read_nothing_it_may_say_is_guessed() {
    let inputs = Inputs { scheduler_config: Some("/given.yaml".into()), ..Inputs::default() };
    let mut fake = Fake::default();
    fake.env.insert("POD_IP", "10.0.0.77");
    for (state, said) in [
        (Err(io::ErrorKind::NotFound), "scheduler-config: /given.yaml: entity not found"),
        (Err(io::ErrorKind::PermissionDenied), "scheduler-config: /given.yaml: permission denied"),
        (Ok("server: {".to_owned()), "scheduler-config: /given.yaml:1: not a YAML document"),
    ] {
        fake.files.insert("/given.yaml".into(), state);
        let got = resolved(&inputs, &fake);
        let all = texts(&got);
        assert!(all.len() == 1 && all[0].starts_with(said), "{all:?}");
        let s = &got.settings;
        assert_eq!((&s.hostname, s.ip, s.cluster_id, &s.scheduler_addr), (&None, None, None, &None));
        assert!(s.managers.is_empty());
    }
    fake.file("/given.yaml", FULL);
    assert!(resolved(&inputs, &fake).settings.is_complete());
}

#[test]
fn an_unreadable_file_at_the_default_path_is_waited_for_too() {
    let mut fake = Fake::default();
    fake.files.insert(CONFIG.into(), Err(io::ErrorKind::PermissionDenied));
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!(texts(&got), ["scheduler-config: /etc/dragonfly/scheduler.yaml: permission denied"]);
    assert!(!got.settings.is_complete());
}

#[test]
fn a_bad_field_leaves_open_only_what_depends_on_it() {
    let fake = Fake::with_config(
        "server: {host: y.example, advertiseIP: there}\nmanager: {addr: 'm:65003', schedulerClusterID: 0}\n",
    );
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!(
        texts(&got),
        [
            "scheduler-config: /etc/dragonfly/scheduler.yaml:1: server.advertiseIP is not an IP address",
            "scheduler-config: /etc/dragonfly/scheduler.yaml:2: manager.schedulerClusterID is not a cluster id, a whole \
             number of at least 1",
        ]
    );
    assert_eq!(got.settings.hostname, "y.example".parse().ok());
    assert_eq!((got.settings.ip, got.settings.cluster_id), (None, None));
    let given = Inputs { ip: "10.0.0.1".parse().ok(), cluster_id: "1".parse().ok(), ..Inputs::default() };
    assert!(resolved(&given, &fake).settings.is_complete());
}

#[test]
fn a_host_that_is_no_hostname_is_said_and_left_open() {
    let got = resolved(
        &Inputs::default(),
        &Fake::with_config("server: {host: under_score}\nmanager: {addr: 'm:65003'}"),
    );
    assert_eq!(
        texts(&got),
        [
            "hostname: server.host in the scheduler's configuration: hostname \"under_score\" is not a hostname: it has a \
          character that is no letter, digit or hyphen; use labels of letters, digits and hyphens joined by dots"
        ]
    );
}

#[test]
fn the_address_to_watch_follows_listen_ip() {
    for (server, addr) in [
        ("{}", "127.0.0.1:8002"),
        ("{listenIP: 0.0.0.0, port: 9}", "127.0.0.1:9"),
        ("{listenIP: '::', port: 9}", "[::1]:9"),
        ("{listenIP: '', port: 9}\nnetwork: {enableIPv6: true}", "[::1]:9"),
        ("{listenIP: 10.0.0.8}", "10.0.0.8:8002"),
        ("{listenIP: '::ffff:10.0.0.8'}", "10.0.0.8:8002"),
        ("{listenIP: 'fd00::8'}", "[fd00::8]:8002"),
    ] {
        let got = resolved(
            &Inputs::default(),
            &Fake::with_config(&format!("manager: {{addr: 'm:65003'}}\nserver: {server}\n")),
        );
        assert_eq!(got.settings.scheduler_addr.unwrap().to_string(), addr, "{server}");
    }
}

fn keys(resolved: &Resolved) -> Vec<String> {
    resolved.keys.iter().map(|key| format!("{}/{}", key.hostname, key.ip)).collect()
}

#[test]
fn a_pods_own_address_is_taken_in_the_family_that_the_scheduler_takes() {
    let mut fake = Fake::with_config("manager: {addr: 'm:65003'}\nnetwork: {enableIPv6: true}");
    fake.env.insert("POD_IP", "10.0.0.5");
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!((got.settings.ip, got.doubt), ("fd00::5".parse().ok(), None));
    fake.env.insert("POD_IP", "nonsense");
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!(texts(&got), ["environment: POD_IP \"nonsense\" is not an IP address"]);
    assert_eq!(got.settings.ip, "fd00::5".parse().ok());
}

#[test]
fn with_several_interfaces_the_schedulers_own_rule_decides_and_not_pod_ip() {
    let mut fake = Fake::with_config("manager: {addr: 'm:65003'}");
    fake.hostname = Ok("node-7");
    fake.file(
        "/etc/hosts",
        "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n127.0.1.1 node-7\n",
    );
    fake.interfaces = Ok(vec![interface(&["192.168.0.1"]), interface(&["10.0.0.5"])]);
    fake.env.insert("POD_IP", "10.0.0.5");
    // The name stands for a loopback address, which no interface here has: the first one is registered.
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!(keys(&got), ["node-7/192.168.0.1", "node-7/10.0.0.5"]);
    assert_eq!((got.doubt, got.problems.len()), (None, 0));
    // DNS is asked only where the hosts file has no address.
    fake.file("/etc/hosts", "127.0.0.1 localhost\n");
    fake.lookup = Lookup::Found { canonical: None, addresses: vec!["10.0.0.5".parse().unwrap()] };
    assert_eq!(keys(&resolved(&Inputs::default(), &fake)), ["node-7/10.0.0.5", "node-7/192.168.0.1"]);
    fake.lookup = Lookup::NoSuchName;
    assert_eq!(keys(&resolved(&Inputs::default(), &fake)), ["node-7/192.168.0.1", "node-7/10.0.0.5"]);
}

#[test]
fn a_pod_ip_of_another_machine_is_a_candidate_and_no_more() {
    let mut fake = Fake::with_config("manager: {addr: 'm:65003'}");
    fake.env.insert("POD_IP", "10.0.0.77");
    let got = resolved(&Inputs::default(), &fake);
    let fqdn = "s-0.sched.ns.svc.cluster.local";
    let expected = ["10.0.0.5", "10.0.0.77"].map(|ip| format!("{fqdn}/{ip}"));
    assert_eq!(keys(&got)[..2], expected);
    assert_eq!(got.doubt.as_deref(), Some("POD_IP 10.0.0.77 is no address of this machine"));
    // It is better than nothing.
    fake.interfaces = Err(io::ErrorKind::PermissionDenied);
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!((got.settings.ip, got.problems.len()), ("10.0.0.77".parse().ok(), 0));
    assert_eq!(got.doubt.as_deref(), Some("the network interfaces can't be listed: permission denied"));
}

#[test]
fn an_error_of_dns_leaves_the_plain_hostname_and_the_first_address_as_it_leaves_the_scheduler() {
    let mut fake = Fake::with_config("manager: {addr: 'm:65003'}");
    fake.file("/etc/hosts", "127.0.0.1 localhost\n");
    fake.interfaces = Ok(vec![interface(&["192.168.0.1"]), interface(&["10.0.0.5"])]);
    fake.lookup = Lookup::Failed("server misbehaving".into());
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!(keys(&got), ["s-0/192.168.0.1"]);
    assert!(got.settings.is_complete() && got.problems.is_empty());
    assert!(got.doubt.unwrap().starts_with("the FQDN of \"s-0\" is not known (server misbehaving)"));
    // No answer yet is waited for.
    fake.lookup = Lookup::NotYet;
    assert_eq!(
        texts(&resolved(&Inputs::default(), &fake)),
        [
            "hostname: what \"s-0\" stands for is not known: the resolver has not answered yet",
            "ip: what \"s-0\" stands for is not known: the resolver has not answered yet",
        ]
    );
}

#[test]
fn a_hosts_file_that_a_kubelet_is_writing_does_not_make_the_short_name_stick() {
    let mut fake = Fake::with_config("manager: {addr: 'm:65003'}");
    for torn in [
        "",
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n",
        "127.0.0.1\tlocalhost\n10.0.0.5\ts-0.sch",
    ] {
        fake.file("/etc/hosts", torn);
        let got = resolved(&Inputs::default(), &fake);
        assert_eq!(texts(&got), ["hostname: /etc/hosts has no line for \"s-0\" yet"], "{torn:?}");
        assert!(got.keys.is_empty());
    }
    // One that stays so is no reason to wait for ever.
    fake.patience_is_over = true;
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!((keys(&got), got.problems.len()), (vec!["s-0/10.0.0.5".to_owned()], 0));
    assert_eq!(got.doubt.as_deref(), Some("/etc/hosts has no line for this machine"));
    // Whole again, the FQDN is the first; the scheduler may have read it when it was not.
    fake.file("/etc/hosts", "127.0.0.1\tlocalhost\n10.0.0.5\ts-0.sched.svc\ts-0\n");
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!(
        (keys(&got), got.doubt),
        (vec!["s-0.sched.svc/10.0.0.5".to_owned(), "s-0/10.0.0.5".to_owned()], None)
    );
    // Torn within the name itself.
    fake.file("/etc/hosts", "127.0.0.1\tlocalhost\n10.0.0.5\ts-0");
    assert_eq!(
        resolved(&Inputs::default(), &fake).doubt.as_deref(),
        Some("the hosts file may be just being written")
    );
}

#[test]
fn what_is_set_is_certain_and_has_no_other() {
    let mut fake = Fake::with_config(FULL);
    fake.lookup = Lookup::NotYet;
    fake.file("/etc/hosts", "");
    fake.env.insert("POD_IP", "10.0.0.77");
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!((keys(&got), got.doubt), (vec!["y.example/10.0.0.9".to_owned()], None));
    let flags = Inputs { hostname: "f".parse().ok(), ip: "10.0.0.1".parse().ok(), ..Inputs::default() };
    assert_eq!(keys(&resolved(&flags, &fake)), ["f/10.0.0.1"]);
}

#[test]
fn what_the_machine_does_not_tell_is_a_problem_and_no_failure() {
    let mut fake = Fake::with_config("manager: {addr: 'm:65003'}");
    fake.hostname = Err(io::ErrorKind::Other);
    fake.interfaces = Err(io::ErrorKind::PermissionDenied);
    assert_eq!(
        texts(&resolved(&Inputs::default(), &fake)),
        [
            "hostname: this machine's hostname can't be read: other error",
            "ip: the network interfaces can't be listed: permission denied; give --ip",
        ]
    );
    fake.hostname = Ok(" ");
    fake.interfaces = Ok(vec![interface(&["10.0.0.5"]), interface(&["10.0.0.6"])]);
    fake.lookup = Lookup::NoSuchName;
    assert_eq!(
        texts(&resolved(&Inputs { hostname: "s".parse().ok(), ..Inputs::default() }, &fake)),
        ["ip: this machine has no hostname: give --hostname"]
    );
    fake.hostname = Ok("s-0");
    fake.interfaces = Ok(vec![]);
    assert_eq!(
        texts(&resolved(&Inputs::default(), &fake)),
        ["ip: this machine has no IPv4 address but loopback and link-local: give --ip"]
    );
}

#[test]
fn a_scheduler_without_a_manager_leaves_nothing_to_do() {
    for text in [
        "server: {port: 9001}",
        "manager: {}",
        "manager:\n",
        "manager: {addr: }",
        "manager: {addr: null}",
        "",
    ] {
        let mut fake = Fake::with_config(text);
        // Nothing of this is asked.
        fake.lookup = Lookup::NotYet;
        fake.file("/etc/hosts", "");
        fake.interfaces = Ok(vec![]);
        let got = resolved(&Inputs::default(), &fake);
        assert!(got.settings.without_manager && got.problems.is_empty(), "{text}: {got:?}");
        assert!(!got.settings.is_complete() && got.keys.is_empty());
        // A command beside that agent, which knows no scheduler.yaml.
        let beside = resolve(&Inputs::default(), Some(&got.settings), &Fake::default());
        assert!(beside.settings.without_manager && beside.problems.is_empty(), "{beside:?}");
        // One that is named by a flag is one.
        let flags = Inputs { managers: vec!["grpc://m:65003".into()], ..Inputs::default() };
        let named = resolved(&flags, &Fake::with_config(text));
        assert!(named.settings.is_complete() && !named.settings.without_manager);
        let rest = Inputs { managers: vec!["http://m:8080".into()], ..Inputs::default() };
        assert!(!resolved(&rest, &fake).settings.without_manager, "REST alone can't write");
        // Nor is one that is wrong none.
        let inputs = Inputs { wrong: wrong(&["manager"]), ..Inputs::default() };
        assert!(!resolved(&inputs, &fake).settings.without_manager);
    }
    for text in [
        "manager: {addr: ''}",
        "manager: {addr: ':65003'}",
        "manager: 7",
        "manager: [",
        "manager: {addr: [a]}",
    ] {
        let got = resolved(&Inputs::default(), &Fake::with_config(text));
        assert!(!got.settings.without_manager && !got.problems.is_empty(), "{text}");
    }
}

#[test]
fn the_managers_address_is_a_target_of_grpc_and_tls_is_where_the_release_has_it() {
    for (text, endpoint, ca) in [
        ("manager: {addr: 'dns:///m:65003'}", "grpc://m:65003", None),
        ("manager: {addr: m}", "grpc://m:443", None),
        ("manager: {addr: 'm:1', tls: {caCert: /ca}}", "grpcs://m:1", Some("/ca")),
        (
            "manager: {addr: 'm:1'}\nsecurity: {autoIssueCert: true, caCert: /sca}",
            "grpcs://m:1",
            Some("/sca"),
        ),
        ("manager: {addr: 'm:1'}\nsecurity: {autoIssueCert: false, caCert: /sca}", "grpc://m:1", None),
        (
            "manager: {addr: 'm:1'}\nsecurity: {autoIssueCert: true, tlsPolicy: default, caCert: /sca}",
            "grpc://m:1",
            None,
        ),
        (
            "manager: {addr: 'm:1', tls: {caCert: /ca}}\nsecurity: {autoIssueCert: true, caCert: /sca}",
            "grpcs://m:1",
            Some("/ca"),
        ),
    ] {
        let got = resolved(&Inputs::default(), &Fake::with_config(text));
        assert_eq!(got.settings.managers, [endpoint], "{text}");
        assert_eq!((got.settings.ca_file, got.problems.len()), (ca.map(Into::into), 0), "{text}");
    }
    let inline =
        "manager: {addr: 'm:1'}\nsecurity: {autoIssueCert: true, caCert: '-----BEGIN CERTIFICATE-----'}";
    let got = resolved(&Inputs::default(), &Fake::with_config(inline));
    assert_eq!((got.settings.managers, got.settings.ca_file), (vec!["grpcs://m:1".to_owned()], None));
    assert!(got.problems[0].text.contains("give that as --ca-file"), "{:?}", got.problems);
    let force = "manager: {addr: 'm:1'}\nsecurity: {autoIssueCert: true, tlsPolicy: force, caCert: /sca}";
    let got = resolved(&Inputs::default(), &Fake::with_config(force));
    assert!(
        got.settings.scheduler_tls.is_some() && got.problems[0].text.contains("tlsPolicy force"),
        "{:?}",
        got.problems
    );
}

#[test]
fn files_of_tls_beside_a_manager_in_plain_text_are_said_to_be_of_no_use() {
    let plain =
        Inputs { managers: vec!["grpc://m:1".into()], ca_file: Some("/ca".into()), ..Inputs::default() };
    let said = texts(&resolved(&plain, &Fake::with_config(FULL)));
    assert!(said.len() == 1 && said[0].contains("grpcs://host:port"), "{said:?}");
    let tls = Inputs { managers: vec!["grpcs://m:1".into()], ..plain.clone() };
    assert_eq!(texts(&resolved(&tls, &Fake::with_config(FULL))), Vec::<String>::new());
    let flag = Inputs { ca_file: None, ..plain };
    assert_eq!(texts(&resolved(&flag, &Fake::with_config(FULL))), Vec::<String>::new());
    let said = texts(&resolved(&flag, &Fake::with_config("manager: {addr: 'm:1', tls: {caCert: /ca}}")));
    assert!(said.len() == 1 && said[0].contains("has TLS for its manager"), "{said:?}");
}

#[test]
fn an_unusable_manager_addr_is_said() {
    let got = resolved(&Inputs::default(), &Fake::with_config("manager: {addr: ':65003'}"));
    let all = texts(&got);
    let said =
        "manager: manager.addr in the scheduler's configuration: its host is empty; write it as host:port";
    assert!(all[0].starts_with(said), "{all:?}");
    assert!(got.settings.managers.is_empty());
}

#[test]
fn halves_of_a_pair_are_said() {
    let fake = Fake::with_config(FULL);
    let inputs = |f: fn(&mut Inputs)| {
        let mut inputs = Inputs::default();
        f(&mut inputs);
        texts(&resolved(&inputs, &fake)).join("\n")
    };
    assert!(inputs(|i| i.cert_file = Some("/c".into())).contains("--cert-file and --key-file"));
    assert!(inputs(|i| i.key_file = Some("/c".into())).contains("--cert-file and --key-file"));
    assert!(inputs(|i| i.username = Some("u".into())).contains("--username and --password-file"));
    assert!(inputs(|i| i.password_file = Some("/p".into())).contains("--username and --password-file"));
    assert!(inputs(|i| i.managers = vec!["http://m:80".into()]).contains("a REST endpoint needs --username"));
}

#[test]
fn the_pods_own_variables_are_read() {
    let mut fake = Fake::with_config(FULL);
    fake.env.insert("POD_NAME", "s-0");
    fake.env.insert("HOST_IP", "10.9.0.1, ::ffff:10.9.0.2,fd00::9,x");
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!(got.settings.pod_name.as_deref(), Some("s-0"));
    let ips: Vec<String> = got.settings.host_ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.9.0.1", "10.9.0.2", "fd00::9"]);
    assert_eq!(texts(&got), ["environment: HOST_IP: \"x\" is not an IP address"]);
}

#[test]
fn beside_an_agent_its_file_goes_before_scheduler_yaml_and_defaults_but_after_what_is_given() {
    let agents = Settings {
        hostname: "a.example".parse().ok(),
        ip: "10.0.0.3".parse().ok(),
        cluster_id: "4".parse().ok(),
        scheduler_addr: "10.0.0.3:5".parse().ok(),
        advertise_port: 6,
        registered_port: Some(6),
        scheduler_ports: vec![5, 8000],
        scheduler_tls: Some(TlsFiles { ca_file: Some("/a".into()), ..TlsFiles::default() }),
        keep_alive_interval: Duration::from_secs(9),
        managers: vec!["grpc://a:65003".into(), "http://a:8080".into()],
        without_manager: false,
        username: Some("agent".into()),
        password_file: Some("/a/p".into()),
        ca_file: Some("/a/ca".into()),
        cert_file: Some("/a/crt".into()),
        key_file: Some("/a/key".into()),
        spool: "/a/spool".into(),
        run_dir: "/a/run".into(),
        grace: Duration::from_secs(99),
        repair: Repair::Off,
        listen: "127.0.0.1:9".parse().unwrap(),
        ready_after_manager: true,
        hook_listen: "127.0.0.1:10".parse().ok(),
        hook_allow: vec!["10.0.0.0/8".into()],
        hook_token_file: Some("/a/token".into()),
        pod_name: Some("a-0".into()),
        pod_ip: "10.9.0.7".parse().ok(),
        host_ips: vec!["10.9.0.1".parse().unwrap()],
    };
    let fake = Fake::with_config(FULL);
    let got = resolve(&Inputs::default(), Some(&agents), &fake);
    assert_eq!((&got.settings, got.problems.len()), (&agents, 0));
    assert!(!fake.asked.borrow().contains(&CONFIG.to_owned()), "the agent has read it already");

    let inputs = Inputs {
        hostname: "f.example".parse().ok(),
        ip: "10.0.0.1".parse().ok(),
        cluster_id: "3".parse().ok(),
        scheduler_addr: "f:1".parse().ok(),
        scheduler_config: None,
        managers: vec!["grpc://f:1".into()],
        username: Some("flag".into()),
        password_file: Some("/f/p".into()),
        ca_file: Some("/f/ca".into()),
        cert_file: Some("/f/crt".into()),
        key_file: Some("/f/key".into()),
        spool: Some("/f/spool".into()),
        run_dir: Some("/f/run".into()),
        grace: Some(Duration::from_secs(10)),
        repair: Some(Repair::Report),
        listen: "127.0.0.1:1".parse().ok(),
        ready_after_manager: Some(false),
        hook_listen: "127.0.0.1:2".parse().ok(),
        hook_allow: vec!["::1".into()],
        hook_token_file: Some("/f/token".into()),
        wrong: Vec::new(),
    };
    let got = resolve(&inputs, Some(&agents), &fake).settings;
    assert_eq!(
        got,
        Settings {
            hostname: inputs.hostname,
            ip: inputs.ip,
            cluster_id: inputs.cluster_id,
            scheduler_addr: inputs.scheduler_addr,
            advertise_port: 1,
            scheduler_ports: vec![1, 5, 8000],
            managers: inputs.managers,
            username: inputs.username,
            password_file: inputs.password_file,
            ca_file: inputs.ca_file,
            cert_file: inputs.cert_file,
            key_file: inputs.key_file,
            spool: "/f/spool".into(),
            run_dir: "/f/run".into(),
            grace: Duration::from_secs(10),
            repair: Repair::Report,
            listen: "127.0.0.1:1".parse().unwrap(),
            ready_after_manager: false,
            hook_listen: inputs.hook_listen,
            hook_allow: inputs.hook_allow,
            hook_token_file: inputs.hook_token_file,
            ..agents
        }
    );
}

#[test]
fn an_incomplete_agents_file_is_completed_from_scheduler_yaml() {
    let agents = Settings { grace: Duration::from_secs(99), ..Settings::default() };
    let got = resolve(&Inputs::default(), Some(&agents), &Fake::with_config(FULL)).settings;
    assert_eq!(got.key().unwrap().to_string(), "y.example/10.0.0.9 in cluster 7");
    assert_eq!(got.grace, Duration::from_secs(99));
}

/// What flags and variables say is wrong, by the flags' names.
fn wrong(flags: &[&str]) -> Vec<Wrong> {
    flags
        .iter()
        .map(|flag| Wrong { flag: Some((*flag).into()), text: format!("--{flag} \"x\": no") })
        .collect()
}

#[test]
fn g8_a_wrong_identity_or_endpoint_is_not_taken_from_the_next_source() {
    let mut fake = Fake::with_config(FULL);
    fake.env.insert("POD_IP", "10.0.0.77");
    for flag in ["hostname", "ip", "cluster-id", "scheduler-addr", "scheduler-config", "manager"] {
        let inputs = Inputs { wrong: wrong(&[flag]), ..Inputs::default() };
        for file in [None, Some(&resolved(&Inputs::default(), &fake).settings)] {
            let got = resolve(&inputs, file, &fake);
            let known = file.is_some() && flag == "scheduler-config";
            assert_eq!(got.settings.is_complete(), known, "{flag}: {got:?}");
            let said = format!("configuration: --{flag} \"x\": no; until that is mended ");
            assert!(texts(&got)[0].starts_with(&said), "{got:?}");
        }
        let others = match flag {
            "scheduler-config" => 0,
            _ => 5,
        };
        let s = resolved(&inputs, &fake).settings;
        let known =
            [s.hostname.is_some(), s.ip.is_some(), s.cluster_id.is_some(), s.scheduler_addr.is_some()];
        let known = known.iter().filter(|known| **known).count() + usize::from(s.has_grpc());
        assert_eq!(known, if others == 0 { 0 } else { 4 }, "{flag}: the others are known: {s:?}");
    }
    // Not even one that is right beside it.
    let inputs = Inputs {
        managers: vec!["grpc://m:65003".into(), "http://m:8080".into()],
        wrong: wrong(&["manager"]),
        ..Inputs::default()
    };
    assert!(resolved(&inputs, &fake).settings.managers.is_empty());
}

#[test]
fn g8_a_wrong_repair_writes_nothing_unasked_and_a_wrong_token_opens_no_hook() {
    let fake = Fake::with_config(FULL);
    let given = Inputs {
        hook_listen: "127.0.0.1:2".parse().ok(),
        hook_allow: vec!["10.0.0.1".into()],
        username: Some("u".into()),
        password_file: Some("/p".into()),
        ca_file: Some("/ca".into()),
        ..Inputs::default()
    };
    let with = |flags: &[&str]| {
        let got = resolved(&Inputs { wrong: wrong(flags), ..given.clone() }, &fake);
        assert!(got.settings.is_complete(), "{flags:?}");
        assert!(got.problems.iter().any(|problem| problem.reason == CONFIGURATION), "{flags:?}");
        got.settings
    };
    assert_eq!(with(&["repair"]).repair, Repair::Report);
    assert_eq!(with(&["hook-token-file"]).hook_listen, None);
    assert_eq!(with(&["hook-listen"]).hook_listen, None);
    assert_eq!(with(&["hook-allow"]).hook_allow, ["10.0.0.1"]);
    assert_eq!(with(&["username"]).username, None);
    assert_eq!(with(&["password-file"]).password_file, None);
    // Nor another CA than the one that was meant.
    assert_eq!(with(&["ca-file"]).ca_file, None);
    let defaults = with(&["spool", "run-dir", "grace", "listen", "ready-after-manager", "log-level"]);
    assert_eq!((defaults.grace, defaults.listen), (Duration::from_secs(30), Settings::default().listen));
}

#[test]
fn the_ports_to_keep_clear_of_are_those_that_the_scheduler_listens_on() {
    let ports = |yaml: &str, given: Option<&str>| {
        let fake = if yaml.is_empty() { Fake::default() } else { Fake::with_config(yaml) };
        let inputs = Inputs { scheduler_addr: given.map(|addr| addr.parse().unwrap()), ..Inputs::default() };
        resolved(&inputs, &fake).settings.scheduler_ports
    };
    let with = |yaml: &str| ports(&format!("{yaml}\nmanager: {{addr: 'm:65003'}}"), None);
    assert_eq!(with("server: {advertisePort: 9000}"), [8002]);
    assert_eq!(with("server: {port: 9001, advertisePort: 9000}"), [9001]);
    // The metrics', but only where they are served.
    assert_eq!(with("metrics: {enable: true}"), [8000, 8002]);
    assert_eq!(with("metrics: {enable: true, addr: '0.0.0.0:9802'}"), [8002, 9802]);
    assert_eq!(with("metrics: {enable: true, addr: '[::]:9802'}"), [8002, 9802]);
    assert_eq!(with("metrics: {enable: false, addr: ':9802'}"), [8002]);
    for none in ["':0'", "':http'", "''", "9802", "':99999'"] {
        assert_eq!(with(&format!("metrics: {{enable: true, addr: {none}}}")), [8002], "{none}");
    }
    // What can't be read leaves the default; a flag is believed beside the file.
    assert_eq!(ports("", None), [8002]);
    assert_eq!(ports("server: [", None), [8002]);
    assert_eq!(ports("", Some("127.0.0.1:9001")), [9001]);
    assert_eq!(ports("server: {port: 9001}", Some("127.0.0.1:9003")), [9001, 9003]);
    // A scheduler without a manager has ports, too.
    assert_eq!(ports("server: {port: 9001}", None), [9001]);
}

#[test]
fn any_grace_from_zero_up_is_taken() {
    for grace in [0, 3, 4999, 30_000].map(Duration::from_millis) {
        let inputs = Inputs { grace: Some(grace), ..Inputs::default() };
        let got = resolved(&inputs, &Fake::with_config(FULL));
        assert_eq!((got.settings.grace, got.problems.len()), (grace, 0));
    }
}

#[test]
fn the_registered_port_is_scheduler_yamls_or_not_known() {
    let of = |fake: &Fake, inputs: &Inputs| resolve(inputs, None, fake).settings.registered_port;
    let watched = Inputs {
        scheduler_addr: Some("127.0.0.1:9001".parse().unwrap()),
        managers: vec!["grpc://m:65003".to_owned()],
        ..Inputs::default()
    };
    for (text, port) in [
        ("manager:\n  addr: m:65003\n", Some(8002)),
        ("server:\n  port: 9000\n", Some(8002)),
        ("server:\n  port: 9000\n  advertisePort: 9002\n", Some(9002)),
        ("server:\n  advertisePort: x\n", None),
        ("server: [\n", None),
    ] {
        assert_eq!(of(&Fake::with_config(text), &watched), port, "{text}");
    }
    assert_eq!(of(&Fake::default(), &watched), None, "where it is watched says nothing of it");
    // What an agent has read, a command beside it need not read again.
    let agents =
        Settings { registered_port: Some(9002), ..resolve(&watched, None, &Fake::default()).settings };
    let beside = resolve(&watched, Some(&agents), &Fake::default()).settings;
    assert_eq!(beside.registered_port, Some(9002));
}
