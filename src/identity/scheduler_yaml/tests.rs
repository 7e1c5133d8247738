use super::*;

mod oracle;

fn read(text: &str) -> Result<Parsed, YamlError> {
    parse(text, Path::new("/etc/dragonfly/scheduler.yaml"))
}

/// As the Helm chart writes it.
const CHART: &str = r#"
server:
  port: 8002
  advertiseIP: ""
  advertisePort: 8002
  listenIP: "0.0.0.0"
  cacheDir: /var/cache/dragonfly
  logDir: ""
  requestRateLimit: 4000
scheduler:
  algorithm: default
  backToSourceCount: 200
  gc:
    hostGCInterval: 5m
  networkTopology:
    probe: {}
database:
  redis:
    addrs:
    - dragonfly-redis-master.dragonfly.svc.cluster.local:6379
    password: hunter2-secret
    brokerDB: 1
dynconfig:
  refreshInterval: 1m
manager:
  addr: d-dragonfly-manager.dragonfly.svc.cluster.local:65003
  schedulerClusterID: 1
  keepAlive:
    interval: 5s
seedPeer:
  null
peer:
  null
job: {}
storage:
  null
metrics:
  enable: true
  addr: ":8000"
network:
  enableIPv6: false
console: false
pprofPort: -1
tracing:
"#;

#[test]
fn the_charts_file_is_read_without_complaint() {
    let parsed = read(CHART).unwrap();
    assert_eq!(parsed.errors, []);
    assert_eq!(
        parsed.yaml,
        SchedulerYaml {
            advertise_port: Some(8002),
            listen_ip: Some("0.0.0.0".parse().unwrap()),
            port: Some(8002),
            manager_addr: Some("d-dragonfly-manager.dragonfly.svc.cluster.local:65003".into()),
            cluster_id: Some(1),
            keep_alive_interval: Some(Duration::from_secs(5)),
            metrics: true,
            metrics_addr: Some(":8000".into()),
            ..SchedulerYaml::default()
        }
    );
}

#[test]
fn every_named_field_is_read() {
    let parsed = read(
        "server: {host: sched-0.example, advertiseIP: fd00::1, advertisePort: 9000, listenIP: '::', port: 9001,\n\
         \x20 tls: {caCert: /ca, cert: /crt, key: /key}}\n\
         manager: {addr: m:65003, tls: {caCert: /mca, cert: /mcrt, key: /mkey}, schedulerClusterID: 7,\n\
         \x20 keepAlive: {interval: 1m30s}}\n\
         network: {enableIPv6: true}\n",
    )
    .unwrap();
    assert_eq!(parsed.errors, []);
    let tls = |p: &str| TlsFiles {
        ca_file: Some(format!("/{p}ca").into()),
        cert_file: Some(format!("/{p}crt").into()),
        key_file: Some(format!("/{p}key").into()),
    };
    assert_eq!(
        parsed.yaml,
        SchedulerYaml {
            host: Some("sched-0.example".into()),
            advertise_ip: Some("fd00::1".parse().unwrap()),
            advertise_port: Some(9000),
            listen_ip: Some("::".parse().unwrap()),
            port: Some(9001),
            server_tls: Some(tls("")),
            manager_addr: Some("m:65003".into()),
            manager_tls: Some(tls("m")),
            cluster_id: Some(7),
            keep_alive_interval: Some(Duration::from_secs(90)),
            enable_ipv6: true,
            ..SchedulerYaml::default()
        }
    );
}

#[test]
fn nulls_and_empty_mappings_count_as_unset() {
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "null\n",
        "~",
        "server:\nmanager: ~\nnetwork: null\n",
        "server: {host: , port: ~, tls: , listenIP: '', advertisePort: null}\nmanager: {tls: {caCert: }, keepAlive: }\n",
        "server: {}\nmanager: {tls: {}}\n",
        "other: 7\n",
    ] {
        assert_eq!(read(text), Ok(Parsed::default()), "{text:?}");
    }
}

#[test]
fn the_scheduler_s_own_leniency_is_ours() {
    let parsed = read(
        "Server: {HOST: 123, Port: '9001'}\nMANAGER: {schedulerclusterid: '7', keepalive: {interval: 5e+09}}\n\
         network: {enableipv6: 1}\n",
    )
    .unwrap();
    assert_eq!(parsed.errors, []);
    assert_eq!(parsed.yaml.host.as_deref(), Some("123"));
    assert_eq!(parsed.yaml.port, Some(9001));
    assert_eq!(parsed.yaml.cluster_id, Some(7));
    assert_eq!(parsed.yaml.keep_alive_interval, Some(Duration::from_secs(5)));
    assert!(parsed.yaml.enable_ipv6);
}

#[test]
fn anchors_aliases_and_merges_are_followed() {
    let parsed = read(
        "base: &tls {caCert: /ca, cert: /crt, key: /key}\nhost: &h sched-0\n\
         server: {host: *h, tls: *tls}\nmanager:\n  tls:\n    <<: *tls\n    key: /other\n",
    )
    .unwrap();
    assert_eq!(parsed.yaml.host.as_deref(), Some("sched-0"));
    assert_eq!(parsed.yaml.server_tls.unwrap().key_file, Some("/key".into()));
    let manager = parsed.yaml.manager_tls.unwrap();
    assert_eq!((manager.ca_file, manager.key_file), (Some("/ca".into()), Some("/other".into())));
}

#[test]
fn a_bad_field_is_named_with_file_and_line_and_leaves_the_others() {
    let parsed = read(
        "server:\n  host: [a]\n  port: many\n  advertisePort: 70000\n  advertiseIP: here\n  listenIP: 10.0.0\n\
         manager:\n  addr: m:65003\n  schedulerClusterID: 0\n  keepAlive:\n    interval: 5 s\n\
         network:\n  enableIPv6: maybe\n",
    )
    .unwrap();
    let said: Vec<String> = parsed.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "/etc/dragonfly/scheduler.yaml:2: server.host is not a single value",
            "/etc/dragonfly/scheduler.yaml:3: server.port is not a port, a whole number from 1 to 65535",
            "/etc/dragonfly/scheduler.yaml:4: server.advertisePort is not a port, a whole number from 1 to 65535",
            "/etc/dragonfly/scheduler.yaml:5: server.advertiseIP is not an IP address",
            "/etc/dragonfly/scheduler.yaml:6: server.listenIP is not an IP address",
            "/etc/dragonfly/scheduler.yaml:9: manager.schedulerClusterID is not a cluster id, a whole number of at least 1",
            "/etc/dragonfly/scheduler.yaml:11: manager.keepAlive.interval is not a duration such as 5s or 1m30s",
            "/etc/dragonfly/scheduler.yaml:13: network.enableIPv6 is not true or false",
        ]
    );
    assert_eq!(parsed.yaml.manager_addr.as_deref(), Some("m:65003"));
    assert!(parsed.is_bad("server.port") && !parsed.is_bad("manager.addr"));
}

#[test]
fn an_error_never_quotes_the_file() {
    const SECRET: &str = "hunter2";
    let broken = [
        format!("database:\n  redis:\n    password: {SECRET}\n   brokerDB: 1\n"),
        format!("database:\n  redis:\n    password: \"{SECRET}\n"),
        format!("database: {{redis: {{password: {SECRET}\n"),
        format!("database:\n  password: {SECRET}\n  password: {SECRET}\n"),
        format!("{SECRET}: 1\n{SECRET}: 2\n"),
        format!("password: *{SECRET}\n"),
        format!("password: !<{SECRET} x\n"),
        format!("a: {SECRET}: b: c\n"),
        format!("password: '{SECRET}'{SECRET}\n"),
        format!("? [{SECRET}]\n: : :\n- x\n"),
    ];
    for text in broken {
        let error = read(&text).expect_err(&text);
        let said = format!("{error} {error:?}");
        assert!(!said.contains(SECRET), "{said}");
        assert!(said.contains("/etc/dragonfly/scheduler.yaml:"), "{said}");
    }
    let fields = format!(
        "server: {{host: {{a: {SECRET}}}, port: {SECRET}, listenIP: {SECRET}, advertiseIP: {SECRET}}}\n\
         manager: {{schedulerClusterID: {SECRET}, keepAlive: {{interval: {SECRET}}}}}\nnetwork: {{enableIPv6: {SECRET}}}\n"
    );
    let parsed = read(&fields).unwrap();
    assert_eq!(parsed.errors.len(), 7);
    assert!(!format!("{:?}", parsed).contains(SECRET));
}

#[test]
fn a_broken_document_is_named_with_its_line() {
    let error = read("server:\n  host: a\n  host: b\n").unwrap_err();
    assert_eq!(error.to_string(), "/etc/dragonfly/scheduler.yaml:3: a key is there twice in one mapping");
}

#[test]
fn aliases_and_depth_cost_no_more_than_their_text() {
    let mut text = String::from("server: {port: 0x1f42}\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..40 {
        let p = i - 1;
        text += &format!("a{i}: &a{i} [*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p}]\n");
    }
    assert_eq!(read(&text).unwrap().yaml.port, Some(8002));
    // One that holds itself is refused, as the scheduler refuses it.
    let text = format!("server: &s {{<<: [{}], port: 8002}}\n", "*s,".repeat(1000));
    assert_eq!(
        read(&text).unwrap_err().to_string(),
        "/etc/dragonfly/scheduler.yaml:1: an alias within what it stands for"
    );
    let mut text = String::from("m0: &m0 {a: 1}\n");
    for i in 1..40 {
        let p = i - 1;
        text += &format!("m{i}: &m{i} {{<<: [*m{p},*m{p},*m{p},*m{p}]}}\n");
    }
    text += "server: {<<: *m39}\n";
    assert!(read(&text).unwrap_err().to_string().contains("too many aliases and merges"));
    // So deep that it is refused, or not: nothing breaks.
    let _ = read(&"[".repeat(200_000));
    let _ = read(&(0..2_000).map(|depth| " ".repeat(depth) + "a:\n").collect::<String>());
}

#[test]
fn sections_and_fields_of_another_kind_are_named_and_leave_the_others() {
    let said = |text: &str| -> Vec<String> {
        read(text)
            .unwrap()
            .errors
            .iter()
            .map(|error| error.to_string().replace("/etc/dragonfly/scheduler.yaml:", ""))
            .collect()
    };
    assert_eq!(
        said("server: []\nmanager: 7\nnetwork: text\n"),
        [
            "1: server is not a mapping of names to values",
            "2: manager is not a mapping of names to values",
            "3: network is not a mapping of names to values",
        ]
    );
    let parsed = read("server: 7\nmanager: {addr: 'm:1', keepAlive: x}\n").unwrap();
    assert!(
        parsed.is_bad("server.host")
            && parsed.is_bad("manager.keepAlive.interval")
            && !parsed.is_bad("manager.addr")
    );
    assert_eq!(parsed.yaml.manager_addr.as_deref(), Some("m:1"));
    assert_eq!(
        said("server:\n  host: ''\n  port: 0\nmanager:\n  addr: ''\n"),
        [
            "2: server.host is not a hostname",
            "3: server.port is not a port, a whole number from 1 to 65535",
            "5: manager.addr is not the manager's address, host:port",
        ]
    );
    assert_eq!(
        said("server:\n  host: a\n  HOST: b\n"),
        ["3: server.host is not there once: it is there twice, in letters of another case"]
    );
    for text in ["[]", "text", "7", "- a\n"] {
        assert!(
            read(text).unwrap_err().to_string().ends_with(":1: not a mapping of names to values"),
            "{text}"
        );
    }
}

#[test]
fn only_the_first_document_is_read() {
    for after in ["---\n", "---\nmanager: {addr: 'other:1'}\n", "...\n", "--- [\n", "---\n\tx: {{{\n"] {
        let parsed = read(&format!("manager:\n  addr: m:65003\n{after}")).unwrap();
        assert_eq!(parsed.yaml.manager_addr.as_deref(), Some("m:65003"), "{after:?}");
    }
}

#[test]
fn the_port_that_is_registered_is_8002_unless_advertised() {
    for (server, port) in [
        ("{}", 8002),
        ("{port: 9001}", 8002),
        ("{port: 9001, advertisePort: 9002}", 9002),
        ("{port: 9001, advertisePort: 0}", 9001),
        ("{advertisePort: 0}", 8002),
        ("{advertisePort: 9.002e+03}", 9002),
    ] {
        assert_eq!(read(&format!("server: {server}")).unwrap().yaml.registered_port(), port, "{server}");
    }
}

#[test]
fn the_managers_tls_of_old_releases_is_in_security() {
    let security = |text: &str| read(text).unwrap().yaml.security;
    assert!(!security("security: {autoIssueCert: false, caCert: /ca}").is_tls());
    assert!(security("security: {autoIssueCert: true, caCert: /ca}").is_tls());
    assert!(security("security: {autoIssueCert: 1, tlsPolicy: force}").is_tls());
    assert!(!security("security: {autoIssueCert: true, tlsPolicy: default}").is_tls());
}
