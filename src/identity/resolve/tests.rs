use std::{cell::RefCell, collections::HashMap, path::Path};

use super::*;
use crate::identity::Repair;
use crate::identity::interfaces::Interface;

/// Surroundings of a test's making: a pod beside a chart's scheduler, unless told otherwise.
struct Fake {
    env: HashMap<&'static str, &'static str>,
    files: HashMap<PathBuf, Result<String, io::ErrorKind>>,
    hostname: Result<&'static str, io::ErrorKind>,
    lookup: Lookup,
    interfaces: Result<Vec<Interface>, io::ErrorKind>,
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
            asked: RefCell::default(),
        };
        fake.file(HOSTS_FILE, "10.0.0.5 s-0.sched.ns.svc.cluster.local s-0\n");
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
    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        self.interfaces.clone().map_err(io::Error::from)
    }
}

fn interface(addresses: &[&str]) -> Interface {
    Interface { up: true, loopback: false, addresses: addresses.iter().map(|a| a.parse().unwrap()).collect() }
}

fn resolved(inputs: &Inputs, fake: &Fake) -> Resolved {
    resolve(inputs, None, fake).unwrap()
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
    let mut fake = Fake::with_config("manager: {addr: 'm:65003', tls: {caCert: /ca, cert: /crt, key: /key}}");
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!(texts(&got), Vec::<String>::new());
    assert_eq!(
        got.settings.key().unwrap().to_string(),
        "s-0.sched.ns.svc.cluster.local/10.0.0.5 in cluster 1"
    );
    assert_eq!(got.settings.scheduler_addr, "127.0.0.1:8002".parse().ok());
    assert_eq!(got.settings.managers, ["grpcs://m:65003"]);
    assert_eq!(got.settings.ca_file, Some("/ca".into()));
    fake.env.insert("POD_IP", "10.0.0.77");
    assert_eq!(resolved(&Inputs::default(), &fake).settings.ip, "10.0.0.77".parse().ok());
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
        let got = resolve(&inputs, file, &fake).unwrap();
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
    let said = resolve(&Inputs::default(), None, &fake).unwrap_err().to_string();
    assert_eq!(
        said,
        "no gRPC endpoint of the manager is known: give --manager HOST:PORT (or SIGNOFF_MANAGER), or \
         --scheduler-config with the scheduler's own file (/etc/dragonfly/scheduler.yaml is not there)"
    );
    let rest = Inputs { managers: vec!["http://m:8080".into()], ..Inputs::default() };
    assert_eq!(resolve(&rest, None, &fake), Err(UsageError::NoManager));
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

#[test]
fn pod_ip_is_taken_only_in_the_family_the_scheduler_takes() {
    let mut fake = Fake::with_config("manager: {addr: 'm:65003'}\nnetwork: {enableIPv6: true}");
    fake.env.insert("POD_IP", "10.0.0.77");
    assert_eq!(resolved(&Inputs::default(), &fake).settings.ip, "fd00::5".parse().ok());
    fake.env.insert("POD_IP", "fd00:0:0::77");
    assert_eq!(resolved(&Inputs::default(), &fake).settings.ip, "fd00::77".parse().ok());
    fake.env.insert("POD_IP", "nonsense");
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!(texts(&got), ["environment: POD_IP \"nonsense\" is not an IP address"]);
    assert_eq!(got.settings.ip, "fd00::5".parse().ok());
}

#[test]
fn with_several_addresses_the_one_of_the_own_name_is_taken_and_waited_for() {
    let mut fake = Fake::with_config("manager: {addr: 'm:65003'}");
    fake.interfaces = Ok(vec![interface(&["192.168.0.1"]), interface(&["10.0.0.5"])]);
    fake.lookup = Lookup::Found { canonical: None, addresses: vec!["10.0.0.5".parse().unwrap()] };
    assert_eq!(resolved(&Inputs::default(), &fake).settings.ip, "10.0.0.5".parse().ok());
    fake.lookup = Lookup::Failed("the resolver has not answered yet".into());
    let got = resolved(&Inputs::default(), &fake);
    assert_eq!(got.settings.ip, None);
    assert_eq!(
        texts(&got),
        [
            "ip: which of this machine's addresses \"s-0\" stands for is not known: the resolver has not answered yet"
        ]
    );
    fake.interfaces = Ok(vec![interface(&["10.0.0.5"])]);
    assert_eq!(resolved(&Inputs::default(), &fake).settings.ip, "10.0.0.5".parse().ok());
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
    fake.interfaces = Ok(vec![]);
    fake.lookup = Lookup::NoSuchName;
    assert_eq!(
        texts(&resolved(&Inputs { hostname: "s".parse().ok(), ..Inputs::default() }, &fake)),
        ["ip: this machine has no hostname: give --hostname"]
    );
    fake.hostname = Ok("s-0");
    assert_eq!(
        texts(&resolved(&Inputs::default(), &fake)),
        ["ip: this machine has no IPv4 address but loopback and link-local: give --ip"]
    );
    fake.files.clear();
    fake.file(CONFIG, "manager: {addr: ''}\nserver: {advertiseIP: 10.0.0.1}");
    fake.lookup = Lookup::Failed("temporary failure".into());
    assert_eq!(
        texts(&resolved(&Inputs::default(), &fake)),
        [
            "hostname: the FQDN of \"s-0\" is not known: temporary failure",
            "manager: the scheduler's configuration has no manager.addr: give --manager HOST:PORT",
        ]
    );
}

#[test]
fn an_unusable_manager_addr_is_said() {
    let got = resolved(&Inputs::default(), &Fake::with_config("manager: {addr: nowhere}"));
    let all = texts(&got);
    assert!(
        all[0].starts_with("manager: manager.addr in the scheduler's configuration: write it as host:port")
    );
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
        scheduler_tls: Some(TlsFiles { ca_file: Some("/a".into()), ..TlsFiles::default() }),
        keep_alive_interval: Duration::from_secs(9),
        managers: vec!["grpc://a:65003".into(), "http://a:8080".into()],
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
    let got = resolve(&Inputs::default(), Some(&agents), &fake).unwrap();
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
    };
    let got = resolve(&inputs, Some(&agents), &fake).unwrap().settings;
    assert_eq!(
        got,
        Settings {
            hostname: inputs.hostname,
            ip: inputs.ip,
            cluster_id: inputs.cluster_id,
            scheduler_addr: inputs.scheduler_addr,
            advertise_port: 1,
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
    let got = resolve(&Inputs::default(), Some(&agents), &Fake::with_config(FULL)).unwrap().settings;
    assert_eq!(got.key().unwrap().to_string(), "y.example/10.0.0.9 in cluster 7");
    assert_eq!(got.grace, Duration::from_secs(99));
}

#[test]
fn a_grace_under_five_seconds_is_refused() {
    let inputs = Inputs { grace: Some(Duration::from_millis(4999)), ..Inputs::default() };
    let said = resolve(&inputs, None, &Fake::with_config(FULL)).unwrap_err().to_string();
    assert_eq!(said, "--grace 4s 999ms is too short: it must be at least 5s");
}
