//! A command line, an environment and the files beside them, up to the settings that come of it.

use std::{
    cell::Cell, collections::HashMap, ffi::OsString, io, net::IpAddr, os::unix::ffi::OsStringExt, path::Path,
};

use crate::{
    cli::{self, args::Command},
    exit::Exit,
    identity::{Inputs, Settings, Surroundings, duration, fqdn::Lookup, interfaces::Interface, resolve},
};

/// Stands for a password in a URL; in the data it is `%S`.
const SECRET: &str = "c0rrect-h0rse";

/// These take a URL that may have a password in it.
const URLS: [&str; 2] = ["--database-url=", "--manager="];
const URL_VARIABLES: [&str; 2] = ["SIGNOFF_DATABASE_URL", "SIGNOFF_MANAGER"];

/// The data's parts, divided by bytes of 0xff: arguments and variables (each ended by a zero byte), scheduler.yaml, the hosts
/// file, agent.json.
pub fn settings(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0xff).chain(std::iter::repeat(&[][..]));
    let mut next = || parts.next().unwrap_or_default();
    let (arguments, variables, yaml, hosts, agent) = (next(), next(), next(), next(), next());
    let world = World {
        variables: variables.split(|b| *b == 0).filter_map(variable).collect(),
        yaml: String::from_utf8_lossy(yaml).into_owned(),
        hosts: String::from_utf8_lossy(hosts).into_owned(),
        asked: Cell::default(),
    };
    let words = arguments.split(|b| *b == 0).filter(|word| !word.is_empty()).map(argument);
    let line: Vec<OsString> = std::iter::once("signoff".into()).chain(words).take(40).collect();
    let env = |name: &str| world.variables.get(name).map(|value| OsString::from_vec(value.clone()));
    let parsed = match cli::called(line, &env) {
        Ok(parsed) => parsed,
        Err(error) => {
            let said = error.to_string();
            assert!(!said.contains(SECRET), "{said}");
            assert!(!error.use_stderr() || !said.is_empty());
            assert_eq!(Exit::Usage.code(), 64);
            return;
        }
    };
    assert!(!format!("{parsed:?}").contains(SECRET), "shown");
    let inputs = match &parsed.command {
        Command::Agent(args) => args.inputs(),
        Command::PreStop(args) => args.inputs(),
        Command::Check(args) => args.inputs(),
        _ => return,
    };
    let file = serde_json::from_slice::<Settings>(agent).ok();
    resolved(&inputs, file.as_ref(), &world);
}

fn resolved(inputs: &Inputs, file: Option<&Settings>, world: &World) {
    let resolved = resolve(inputs, file, world);
    let settings = &resolved.settings;
    assert!(settings.grace <= duration::LONGEST);
    let content = settings.is_complete() || settings.without_manager;
    assert!(content || !resolved.problems.is_empty(), "incomplete, and nothing said");
    assert_eq!(resolved.keys.first(), settings.key().as_ref());
    for (flag, given, taken, nothing) in [
        (
            "hostname",
            inputs.hostname.is_some(),
            settings.hostname == inputs.hostname,
            settings.hostname.is_none(),
        ),
        ("ip", inputs.ip.is_some(), settings.ip == inputs.ip, settings.ip.is_none()),
        (
            "cluster-id",
            inputs.cluster_id.is_some(),
            settings.cluster_id == inputs.cluster_id,
            settings.cluster_id.is_none(),
        ),
        ("grace", inputs.grace.is_some(), Some(settings.grace) == inputs.grace, false),
    ] {
        // What is misspelt, and a stray word, may have meant that flag: then its value is not known. Where the scheduler has no
        // manager nobody asks for it.
        let may_be_nothing = inputs.is_wrong(flag) || settings.without_manager;
        let as_given = taken || may_be_nothing && nothing;
        assert!(!given || as_given, "the value of --{flag} was not taken");
    }
    for problem in &resolved.problems {
        assert!(!problem.text.contains(SECRET), "{}", problem.text);
        assert!(!problem.text.is_empty() && !problem.reason.is_empty());
    }
    let written = serde_json::to_vec(settings).unwrap();
    assert_eq!(serde_json::from_slice::<Settings>(&written).unwrap(), *settings);
}

fn has(text: &[u8], prefixes: [&str; 2]) -> bool {
    prefixes.iter().any(|prefix| text.starts_with(prefix.as_bytes()))
}

/// `%S` where a password stands in a URL.
fn with_secret(text: &[u8]) -> Vec<u8> {
    match text.windows(2).position(|two| two == b"%S") {
        Some(at) => [&text[..at], b"http://root:", SECRET.as_bytes(), b"@", &text[at + 2..]].concat(),
        None => text.to_vec(),
    }
}

fn argument(word: &[u8]) -> OsString {
    let word = if has(word, URLS) { with_secret(word) } else { word.to_vec() };
    OsString::from_vec(word)
}

fn variable(text: &[u8]) -> Option<(String, Vec<u8>)> {
    let at = text.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (String::from_utf8(text[..at].to_vec()).ok()?, &text[at + 1..]);
    let value = if URL_VARIABLES.contains(&&*name) { with_secret(value) } else { value.to_vec() };
    Some((name, value))
}

/// A machine made up.
struct World {
    variables: HashMap<String, Vec<u8>>,
    yaml: String,
    hosts: String,
    /// How often the resolver was asked: every other time it fails.
    asked: Cell<u32>,
}

impl Surroundings for World {
    fn var(&self, name: &str) -> Option<String> {
        let value = String::from_utf8(self.variables.get(name)?.clone()).ok()?;
        Some(value).filter(|value| !value.trim().is_empty())
    }

    fn read(&self, path: &Path, _limit: u64) -> io::Result<String> {
        let text = if path.ends_with("hosts") { &self.hosts } else { &self.yaml };
        if text.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(text.clone()) }
    }

    fn hostname(&self) -> io::Result<String> {
        Ok("sched-0".into())
    }

    fn lookup(&self, _name: &str) -> Lookup {
        self.asked.set(self.asked.get() + 1);
        match self.asked.get() % 2 {
            0 => Lookup::Failed("not now".into()),
            _ => Lookup::Found { canonical: Some("sched-0.x.".into()), addresses: vec![self.address()] },
        }
    }

    fn waits_for(&self, _what: &'static str, amiss: bool) -> bool {
        amiss
    }

    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        Ok(vec![Interface { up: true, loopback: false, addresses: vec![self.address()] }])
    }
}

impl World {
    fn address(&self) -> IpAddr {
        IpAddr::from([10, 1, 2, 3])
    }
}
