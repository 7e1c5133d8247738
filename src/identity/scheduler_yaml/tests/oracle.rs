//! What signoff reads of a file against what the scheduler's own decoders read of it (`tests/oracle`, a Go program), on files
//! made by chance.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use fastrand::Rng;
use serde::Deserialize;

use super::*;

mod files;

/// So many files in a usual run; SIGNOFF_ORACLE says how many else.
const FILES: u64 = 3000;

/// What the oracle read.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Read {
    #[serde(default)]
    unreadable: Option<String>,
    bad: Option<Vec<String>>,
    advertise_ip: String,
    advertise_port: i64,
    listen_ip: String,
    port: i64,
    host: String,
    server_tls: Option<Files>,
    addr: Option<String>,
    manager_tls: Option<Files>,
    cluster_id: u64,
    interval: i64,
    metrics: bool,
    metrics_addr: String,
    enable_ipv6: bool,
    auto_issue_cert: bool,
    ca_cert: String,
    tls_policy: String,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Files {
    #[serde(rename = "CACert")]
    ca_cert: String,
    cert: String,
    key: String,
}

impl Files {
    fn of(tls: &TlsFiles) -> Self {
        let text = |path: &Option<std::path::PathBuf>| {
            path.as_ref().map(|p| p.display().to_string()).unwrap_or_default()
        };
        Self { ca_cert: text(&tls.ca_file), cert: text(&tls.cert_file), key: text(&tls.key_file) }
    }
}

/// The same of what signoff reads, with what it falls back to.
fn ours(text: &str) -> Read {
    let parsed = match read(text) {
        Ok(parsed) => parsed,
        Err(error) => return Read { unreadable: Some(error.to_string()), bad: None, ..ours("") },
    };
    let bad = parsed.errors.iter().map(|error| match error {
        YamlError::Field { field, .. } => (*field).to_owned(),
        YamlError::Document { .. } => unreachable!(),
    });
    let mut bad: Vec<String> = bad.collect();
    bad.sort();
    let yaml = parsed.yaml;
    let ip = |ip: Option<IpAddr>| ip.map(|ip| ip.to_canonical().to_string()).unwrap_or_default();
    Read {
        unreadable: None,
        bad: Some(bad),
        advertise_ip: ip(yaml.advertise_ip),
        advertise_port: yaml.registered_port().into(),
        listen_ip: ip(yaml.listen_ip),
        port: yaml.port.unwrap_or(DEFAULT_SCHEDULER_PORT).into(),
        host: yaml.host.unwrap_or("the.fqdn".into()),
        server_tls: yaml.server_tls.as_ref().map(Files::of),
        addr: yaml.manager_addr,
        manager_tls: yaml.manager_tls.as_ref().map(Files::of),
        cluster_id: yaml.cluster_id.unwrap_or(1),
        interval: i64::try_from(yaml.keep_alive_interval.unwrap_or(Duration::from_secs(5)).as_nanos())
            .unwrap(),
        metrics: yaml.metrics,
        metrics_addr: yaml.metrics_addr.unwrap_or(":8000".into()),
        enable_ipv6: yaml.enable_ipv6,
        auto_issue_cert: yaml.security.auto_issue_cert,
        ca_cert: yaml.security.ca_cert.unwrap_or_default(),
        tls_policy: yaml.security.tls_policy.unwrap_or("prefer".into()),
    }
}

/// Where the two don't agree, in words. A field that is bad has no value to compare, nor has what is made of it.
fn differs(ours: &Read, theirs: &Read) -> Option<String> {
    // With what it can't read no scheduler starts: what is read of it then does no harm.
    if theirs.unreadable.is_some() {
        return None;
    }
    if let Some(why) = &ours.unreadable {
        return Some(format!("not read: {why}"));
    }
    let bad = theirs.bad.clone().unwrap_or_default();
    let mut bad_of_ours = ours.bad.clone().unwrap_or_default();
    // One port is made of the other.
    let port = |name: &String| name != "server.advertisePort";
    if bad.contains(&"server.port".into()) {
        bad_of_ours.retain(port);
    }
    let comparable: Vec<String> =
        bad.iter().filter(|name| port(name) || !bad.contains(&"server.port".into())).cloned().collect();
    if bad_of_ours != comparable {
        return Some(format!("bad: {bad_of_ours:?} and {comparable:?}"));
    }
    let is_bad = |field: &str| {
        let holds = |bad: &String| {
            field.strip_prefix(bad.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        bad.iter().any(holds)
    };
    let port_is_bad = is_bad("server.port") || is_bad("server.advertisePort");
    let tls = |section: &str| {
        ["", ".caCert", ".cert", ".key"].iter().any(|file| is_bad(&format!("{section}{file}")))
    };
    let differences = [
        (ours.host != theirs.host && !is_bad("server.host"), "server.host"),
        (ours.advertise_ip != theirs.advertise_ip && !is_bad("server.advertiseIP"), "server.advertiseIP"),
        (ours.listen_ip != theirs.listen_ip && !is_bad("server.listenIP"), "server.listenIP"),
        (ours.port != theirs.port && !is_bad("server.port"), "server.port"),
        (ours.advertise_port != theirs.advertise_port && !port_is_bad, "server.advertisePort"),
        (ours.server_tls != theirs.server_tls && !tls("server.tls"), "server.tls"),
        (ours.addr != theirs.addr && !is_bad("manager.addr"), "manager.addr"),
        (ours.manager_tls != theirs.manager_tls && !tls("manager.tls"), "manager.tls"),
        (
            ours.cluster_id != theirs.cluster_id && !is_bad("manager.schedulerClusterID"),
            "manager.schedulerClusterID",
        ),
        (
            ours.interval != theirs.interval && !is_bad("manager.keepAlive.interval"),
            "manager.keepAlive.interval",
        ),
        (ours.metrics != theirs.metrics && !is_bad("metrics.enable"), "metrics.enable"),
        (ours.metrics_addr != theirs.metrics_addr && !is_bad("metrics.addr"), "metrics.addr"),
        (ours.enable_ipv6 != theirs.enable_ipv6 && !is_bad("network.enableIPv6"), "network.enableIPv6"),
        (
            ours.auto_issue_cert != theirs.auto_issue_cert && !is_bad("security.autoIssueCert"),
            "security.autoIssueCert",
        ),
        (ours.ca_cert != theirs.ca_cert && !is_bad("security.caCert"), "security.caCert"),
        (ours.tls_policy != theirs.tls_policy && !is_bad("security.tlsPolicy"), "security.tlsPolicy"),
    ];
    let named: Vec<&str> =
        differences.iter().filter(|(differs, _)| *differs).map(|(_, field)| *field).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

/// The oracle, built; None where this machine can't, which is said.
fn built(dir: &Path) -> Option<std::path::PathBuf> {
    let program = dir.join("oracle");
    let go = Command::new("go")
        .args(["build", "-mod=readonly", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle"))
        .env("GOTOOLCHAIN", "local")
        .output();
    let why = match go {
        Ok(go) if go.status.success() => return Some(program),
        Ok(go) => String::from_utf8_lossy(&go.stderr).into_owned(),
        Err(error) => format!("no Go: {error}"),
    };
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "in CI this must run: {why}");
    eprintln!("SKIPPED: what the scheduler's own decoders read is not compared: {why}");
    None
}

/// What the oracle reads of these files.
fn theirs(program: &Path, files: &[String]) -> Vec<Read> {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: String = files.iter().map(|text| serde_json::to_string(text).unwrap() + "\n").collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let read: Vec<Read> = answers.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    read
}

#[test]
fn what_a_scheduler_reads_signoff_reads() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = built(dir.path()) else { return };
    let count = std::env::var("SIGNOFF_ORACLE").map_or(FILES, |count| count.parse().unwrap());
    let mut files: Vec<String> = files::KNOWN.iter().map(|text| (*text).to_owned()).collect();
    files.push(CHART.to_owned());
    files.extend((0..count).map(|seed| files::made(&mut Rng::with_seed(seed))));
    let all = theirs(&program, &files);
    assert_eq!(all.len(), files.len());
    let mut different = Vec::new();
    let (mut unreadable, mut refused, mut taken) = (0, 0, 0);
    for (text, theirs) in files.iter().zip(&all) {
        match (&theirs.unreadable, &theirs.bad) {
            (Some(_), _) => unreadable += 1,
            (None, Some(bad)) if !bad.is_empty() => refused += 1,
            _ => taken += 1,
        }
        // Which of two names that differ in case it takes is chance there.
        if read(text)
            .is_ok_and(|parsed| parsed.errors.iter().any(|error| error.to_string().contains("another case")))
        {
            continue;
        }
        if let Some(how) = differs(&ours(text), theirs) {
            different.push(format!("--- {how}\n{text}\n--- ours {:?}\n--- theirs {theirs:?}\n", ours(text)));
        }
    }
    println!("{} files: {taken} taken, {refused} refused for a field, {unreadable} no document", files.len());
    let shown: String = different.iter().take(20).map(String::as_str).collect();
    assert!(different.is_empty(), "{} of {} differ:\n{shown}", different.len(), files.len());
    // It has seen something.
    assert!(taken * 5 > files.len() && refused > 20 && unreadable > 20);
}
