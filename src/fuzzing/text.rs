//! Texts that people, kubelet and the kernel write: scheduler.yaml, the hosts file, mountinfo, addresses, durations.

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    agent::hook::allow::Network,
    identity::{HostPort, Settings, address, duration, fqdn, scheduler_yaml},
    key::{ClusterId, Hostname, SchedulerIp},
    manager::{endpoints::Endpoint, outcome},
    spool::volume,
};

/// Stands in seeds wherever a secret may stand.
const SECRET: &str = "hunter2";

/// A scheduler.yaml.
pub fn yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = Path::new("/etc/dragonfly/scheduler.yaml");
    let parsed = match scheduler_yaml::parse(text, file) {
        Ok(parsed) => parsed,
        Err(error) => {
            let said = error.to_string();
            assert!(!said.contains(SECRET) && said.starts_with("/etc/dragonfly/scheduler.yaml:"), "{said}");
            return;
        }
    };
    for error in &parsed.errors {
        let said = error.to_string();
        assert!(!said.contains(SECRET), "{said}");
        let scheduler_yaml::YamlError::Field { field, line, .. } = error else { panic!("{said}") };
        let is_read = scheduler_yaml::FIELDS.contains(field) || scheduler_yaml::SECTIONS.contains(field);
        assert!(is_read && *line > 0, "{said}");
        assert!(parsed.is_bad(field));
    }
    let yaml = &parsed.yaml;
    assert!(yaml.port != Some(0) && yaml.registered_port() != 0 && yaml.cluster_id != Some(0));
    assert!(yaml.keep_alive_interval.is_none_or(|interval| !interval.is_zero()));
    assert!(!yaml.listening_ports().contains(&0));
    for text in [&yaml.host, &yaml.manager_addr].into_iter().flatten() {
        assert!(!text.is_empty());
    }
    // Comments and a document's start change nothing.
    if !text.starts_with(['%', '\u{feff}', '-']) {
        let commented = format!("# a comment\n{text}");
        let again = scheduler_yaml::parse(&commented, file).unwrap();
        assert_eq!(again.yaml, parsed.yaml);
    }
}

/// A hosts file behind the name that is looked for.
pub fn hosts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (host, hosts) = text.split_once('\n').unwrap_or((&text, ""));
    let found = fqdn::from_hosts(hosts, host);
    // go-fqdn's rules once more, in other words.
    let lines: Vec<Vec<&str>> = hosts
        .lines()
        .map(|line| &line[..line.find('#').unwrap_or(line.len())])
        .map(|line| line.split([' ', '\t', '\r']).filter(|field| !field.is_empty()).skip(1).collect())
        .collect();
    let usable = |name: &str| name.len() <= 254 && !name.chars().any(|c| c.is_ascii() && !plain(c));
    let first = |is_it: &dyn Fn(&str) -> bool| {
        let line = lines.iter().find(|names| {
            names.first().is_some_and(|first| usable(first)) && names.iter().any(|name| is_it(name))
        });
        line.map(|names| names[0].to_owned())
    };
    let exact = first(&|name| name == host);
    let folded = || first(&|name| name.eq_ignore_ascii_case(host));
    assert_eq!(found, exact.or_else(|| folded().map(|name| name.trim_end_matches('.').to_owned())));
    assert!(found.is_none_or(|name| hosts.contains(&name)));
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '.' || c == '-'
}

/// A directory's path, and a mountinfo.
pub fn mountinfo(data: &[u8]) {
    let line_end = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let (dir, mounts) = data.split_at(line_end);
    let dir = format!("/nowhere/{}", String::from_utf8_lossy(dir).replace('\0', ""));
    let found = volume::find_in(Path::new(&dir), mounts);
    let Some(volume) = found else { return };
    assert!(!volume.durability.label().is_empty() && !volume.durability.queued().is_empty());
    let text = String::from_utf8_lossy(mounts);
    assert!(text.contains(" - "), "{volume:?}");
}

/// One value of each kind that a flag may have.
pub fn values(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = text.parse::<HostPort>() {
        assert!(address.port() > 0 && !address.host().is_empty());
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    endpoint(text);
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
        assert!(address::allowed_peers(text).is_ok());
    }
    if let Ok(name) = text.parse::<Hostname>() {
        assert!(name.as_str() == text && text.len() <= 254 && !name.first_label().is_empty());
    }
    if let Ok(ip) = text.parse::<SchedulerIp>() {
        assert_eq!(ip.to_string().parse::<IpAddr>().unwrap(), ip.get());
    }
    if let Ok(id) = text.parse::<ClusterId>() {
        assert!(id.get() > 0);
    }
    match duration::parse(text) {
        Ok(read) => {
            assert!(read <= duration::LONGEST);
            assert_eq!(duration::parse(&duration::format(read)), Ok(read));
        }
        Err(said) => assert!(said.contains("30s")),
    }
    if let Some(read) = duration::parse_go(text) {
        assert!(text.bytes().any(|b| b.is_ascii_digit()) && Instant::now().checked_add(read).is_some());
    }
    if let Some(wish) = outcome::retry_after(text) {
        assert!(wish <= outcome::LONGEST_WISH && text.trim().trim_start_matches('+').parse::<u64>().is_ok());
    }
}

/// A value of `--manager`: the flag's own check, and what the client makes of it.
fn endpoint(text: &str) {
    match address::manager_endpoint(text) {
        Ok(url) => {
            assert!(!text.contains('@'));
            assert_eq!(address::manager_endpoint(&url).as_ref(), Ok(&url));
            let endpoint: Endpoint = url.parse().unwrap();
            assert_eq!(endpoint.to_string().parse::<Endpoint>().as_ref(), Ok(&endpoint));
        }
        Err(said) if text.contains('@') => assert!(!said.contains(SECRET), "{said}"),
        Err(said) => assert!(said.contains("host:port"), "{said}"),
    }
    if let Err(error) = text.parse::<Endpoint>() {
        assert!(!text.contains('@') || !error.to_string().contains(SECRET));
    }
}

/// An agent.json.
pub fn agent_json(data: &[u8]) {
    let Ok(settings) = serde_json::from_slice::<Settings>(data) else { return };
    let again = serde_json::to_vec(&settings).unwrap();
    assert_eq!(serde_json::from_slice::<Settings>(&again).unwrap(), settings);
    if let Some(key) = settings.key() {
        assert!(key.cluster_id.get() > 0);
    }
    assert!(!settings.is_complete() || settings.has_grpc());
    let manager = settings.manager();
    assert!(manager.grpc.len() + manager.rest.len() <= settings.managers.len());
    let _: Duration = settings.grace;
}

/// A URL of a database, with a password in it.
#[cfg(feature = "database")]
pub fn database_url(data: &[u8]) {
    use crate::repair::sources::database::url::Place;
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Place::parse(&text.replacen("%S", SECRET, 1)) {
        Ok(place) => {
            assert!(place.port > 0 && !place.host.is_empty() && !place.user.is_empty());
            // The rest of the text may spell a secret by chance. So the words are held against those with another secret: where that
            // changes the password, it changes nothing that is shown.
            let Ok(other) = Place::parse(&text.replacen("%S", "zucchini", 1)) else { return };
            let password = |place: &Place| place.password.as_ref().map(|p| p.expose().to_owned());
            if password(&place) != password(&other) {
                assert_eq!(format!("{place} {place:?}"), format!("{other} {other:?}"));
            }
        }
        Err(error) => assert!(!error.to_string().contains(SECRET), "{error}"),
    }
}
