use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::*;
use crate::{identity::Inputs, logging::Format};

fn parsed(line: &[&str], env: &[(&str, &str)]) -> Result<Command, clap::Error> {
    let env: HashMap<&str, &str> = env.iter().copied().collect();
    let args = std::iter::once("signoff").chain(line.iter().copied()).map(OsString::from).collect();
    parse(args, &|name| env.get(name).map(OsString::from)).map(|cli| cli.command)
}

fn agent(line: &[&str], env: &[(&str, &str)]) -> Inputs {
    let line: Vec<&str> = std::iter::once("agent").chain(line.iter().copied()).collect();
    match parsed(&line, env) {
        Ok(Command::Agent(args)) => args.inputs(),
        other => panic!("{other:?}"),
    }
}

fn refused(line: &[&str], env: &[(&str, &str)]) -> String {
    let error = parsed(line, env).expect_err("refused");
    assert!(error.use_stderr());
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Each agent flag with two values, and what they make of [`Inputs`].
type Set = fn(&mut Inputs, &str);
const AGENT_FLAGS: [(&str, &str, &str, Set); 20] = [
    ("hostname", "a.x", "b.x", |i, v| i.hostname = v.parse().ok()),
    ("ip", "10.0.0.1", "fd00::1", |i, v| i.ip = v.parse().ok()),
    ("cluster-id", "1", "2", |i, v| i.cluster_id = v.parse().ok()),
    ("scheduler-addr", "a:1", "[::1]:2", |i, v| i.scheduler_addr = v.parse().ok()),
    ("scheduler-config", "/a", "/b", |i, v| i.scheduler_config = Some(v.into())),
    ("manager", "grpc://a:1", "http://b:2", |i, v| i.managers = vec![v.into()]),
    ("username", "a", "b", |i, v| i.username = Some(v.into())),
    ("password-file", "/a", "/b", |i, v| i.password_file = Some(v.into())),
    ("ca-file", "/a", "/b", |i, v| i.ca_file = Some(v.into())),
    ("cert-file", "/a", "/b", |i, v| i.cert_file = Some(v.into())),
    ("key-file", "/a", "/b", |i, v| i.key_file = Some(v.into())),
    ("spool", "/a", "/b", |i, v| i.spool = Some(v.into())),
    ("run-dir", "/a", "/b", |i, v| i.run_dir = Some(v.into())),
    ("grace", "5s", "1m", |i, v| i.grace = humantime::parse_duration(v).ok()),
    ("repair", "on", "report", |i, v| i.repair = clap::ValueEnum::from_str(v, false).ok()),
    ("listen", "[::]:1", "127.0.0.1:2", |i, v| i.listen = v.parse().ok()),
    ("ready-after-manager", "true", "false", |i, v| i.ready_after_manager = v.parse().ok()),
    ("hook-listen", "[::]:1", "127.0.0.1:2", |i, v| i.hook_listen = v.parse().ok()),
    ("hook-allow", "10.0.0.1", "fd00::/64", |i, v| i.hook_allow = vec![v.into()]),
    ("hook-token-file", "/a", "/b", |i, v| i.hook_token_file = Some(v.into())),
];

/// The long names of a subcommand's flags, `help` left out, by heading.
fn flags(command: &clap::Command) -> BTreeMap<String, BTreeSet<String>> {
    let mut by_heading: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for arg in command.get_arguments().filter(|arg| !environment::is_claps(arg)) {
        let Some(long) = arg.get_long() else { continue };
        let heading = arg.get_help_heading().unwrap_or("none").to_owned();
        by_heading.entry(heading).or_default().insert(long.to_owned());
    }
    by_heading
}

fn leaves(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
    let subs: Vec<_> = command.get_subcommands().collect();
    if subs.is_empty() {
        return vec![(path.to_owned(), command.clone())];
    }
    let own = (!command.is_subcommand_required_set()).then(|| (path.to_owned(), command.clone()));
    let deeper = subs.into_iter().flat_map(|s| leaves(s, format!("{path} {}", s.get_name()).trim()));
    own.into_iter().chain(deeper).collect()
}

#[test]
fn the_definition_holds_together() {
    command().debug_assert();
}

#[test]
fn every_agent_flag_is_read_from_the_line_and_from_its_variable_and_the_line_goes_first() {
    for (flag, one, two, set) in AGENT_FLAGS {
        let expect = |value: &str| {
            let mut inputs = Inputs::default();
            set(&mut inputs, value);
            assert_ne!(inputs, Inputs::default(), "{flag}");
            inputs
        };
        let variable = environment::variable(flag);
        let (first, second) = (format!("--{flag}={one}"), format!("--{flag}={two}"));
        assert_eq!(agent(&[&first], &[]), expect(one), "{flag}");
        assert_eq!(agent(&[], &[(&variable, two)]), expect(two), "{flag}");
        assert_eq!(agent(&[&first], &[(&variable, two)]), expect(one), "{flag}");
        assert_eq!(agent(&[], &[(&variable, "")]), Inputs::default(), "{flag}");
        assert_eq!(agent(&[], &[(&variable, " \t")]), Inputs::default(), "{flag}");
        assert_eq!(agent(&[&first], &[(&variable, " ")]), expect(one), "{flag}");
        if !["manager", "hook-allow"].contains(&flag) {
            assert_eq!(agent(&[&first, &second], &[]), expect(two), "{flag}: repeated later wins");
        }
    }
}

#[test]
fn the_flags_tested_above_are_all_the_agents_and_at_most_25() {
    let all: BTreeSet<String> = leaves(&command(), "")
        .into_iter()
        .filter(|(path, _)| path == "agent")
        .flat_map(|(_, c)| flags(&c).into_values().flatten().collect::<Vec<_>>())
        .collect();
    let tested = AGENT_FLAGS.iter().map(|f| f.0).chain(["log-format", "log-level"]).map(str::to_owned);
    assert_eq!(all, tested.collect());
    assert!(all.len() <= 25);
}

#[test]
fn every_flag_of_every_command_is_read_from_its_variable_and_says_so() {
    for (path, leaf) in leaves(&command(), "") {
        if environment::WITHOUT.contains(&path.as_str()) {
            continue;
        }
        for arg in leaf.get_arguments().filter(|arg| !environment::is_claps(arg)) {
            let Some(long) = arg.get_long() else { continue };
            let variable = environment::variable(long);
            let help = arg.get_help().unwrap().to_string().replace('\n', " ");
            assert!(help.ends_with(&format!("[env: {variable}]")), "{path} --{long}: {help}");
            // A value nothing takes: refused in the variable's name, or taken, and then the parse differs.
            let mut line: Vec<&str> = path.split(' ').collect();
            if leaf.get_positionals().next().is_some() {
                // A record's id, and a row's.
                line.push("0123456789012345");
            }
            let without = format!("{:?}", parsed(&line, &[]).unwrap());
            match parsed(&line, &[(&variable, "\u{1}")]) {
                Ok(with) => assert_ne!(format!("{with:?}"), without, "{path} --{long}"),
                Err(error) => assert!(error.to_string().contains(&variable), "{path}: {error}"),
            }
        }
    }
}

#[test]
fn a_repeatable_flag_is_gathered_in_order_and_its_variable_is_a_list() {
    let expect = |list: &[&str]| list.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        agent(&["--manager", "a:1", "--manager", "b:2"], &[]).managers,
        expect(&["grpc://a:1", "grpc://b:2"])
    );
    assert_eq!(
        agent(&[], &[("SIGNOFF_MANAGER", "a:1, grpcs://b:2 ,,http://c:3,")]).managers,
        expect(&["grpc://a:1", "grpcs://b:2", "http://c:3"])
    );
    assert_eq!(agent(&["--manager", "a:1"], &[("SIGNOFF_MANAGER", "b:2")]).managers, expect(&["grpc://a:1"]));
    assert_eq!(
        agent(&[], &[("SIGNOFF_HOOK_ALLOW", "10.0.0.1,::1")]).hook_allow,
        expect(&["10.0.0.1", "::1"])
    );
}

#[test]
fn a_grace_is_a_duration_or_as_kubernetes_writes_it_a_number_of_seconds() {
    for (given, seconds) in [("30", 30), (" 30 ", 30), ("30s", 30), ("2m", 120), ("4", 4), ("0", 0)] {
        let expected = Some(std::time::Duration::from_secs(seconds));
        assert_eq!(agent(&["--grace", given], &[]).grace, expected, "{given}");
        assert_eq!(agent(&[], &[("SIGNOFF_GRACE", given)]).grace, expected, "{given}");
    }
    for wrong in ["-30", "30.5", "101years", "18446744073709551615", "99999999999999999999999"] {
        assert!(parsed(&["agent", "--grace", wrong], &[]).is_err(), "{wrong}");
    }
}

#[test]
fn a_switch_needs_no_value() {
    assert_eq!(agent(&["--ready-after-manager"], &[]).ready_after_manager, Some(true));
    assert_eq!(agent(&["--ready-after-manager=no"], &[]).ready_after_manager, Some(false));
    assert_eq!(agent(&[], &[("SIGNOFF_READY_AFTER_MANAGER", "0")]).ready_after_manager, Some(false));
}

#[test]
fn a_bad_value_is_refused_with_flag_value_and_what_would_be_right() {
    for (line, said) in [
        (
            vec!["--hostname", ""],
            "error: invalid value '' for '--hostname <NAME>': hostname \"\" is not a hostname: it is \
            empty; use labels of letters, digits and hyphens joined by dots",
        ),
        (
            vec!["--ip", "here"],
            "error: invalid value 'here' for '--ip <IP>': ip \"here\" is not an IP address",
        ),
        (
            vec!["--cluster-id", "0"],
            "error: invalid value '0' for '--cluster-id <ID>': cluster id \"0\" is not a cluster \
            id: use a whole number of at least 1",
        ),
        (
            vec!["--grace", "30 parsecs"],
            "error: invalid value '30 parsecs' for '--grace <DURATION>': it is not a duration; write a number \
            and a unit, such as 500ms, 30s or 1m30s",
        ),
        (
            vec!["--manager", "m"],
            "error: invalid value 'm' for '--manager <ENDPOINT>': it has no port (a manager's gRPC \
            port is 65003 by default); use host:port, grpc://host:port, grpcs://host:port, http://host:port or \
            https://host:port",
        ),
        (
            vec!["--scheduler-addr", "s"],
            "error: invalid value 's' for '--scheduler-addr <HOST:PORT>': write it as \
            host:port, an IPv6 address in brackets: [fd00::1]:8002",
        ),
        (
            vec!["--listen", "9802"],
            "error: invalid value '9802' for '--listen <IP:PORT>': it is not an address to listen \
            at; write it as 127.0.0.1:9802 or [::]:9802",
        ),
        (
            vec!["--hook-allow", "node"],
            "error: invalid value 'node' for '--hook-allow <IP|NETWORK>': it is neither an IP \
            address nor a network; write it as 10.1.2.3, 10.0.0.0/8 or fd00::/64",
        ),
        (vec!["--repair", "maybe"], "error: invalid value 'maybe' for '--repair <on|report|off>'"),
        (vec!["--output", "json"], "error: unexpected argument '--output' found"),
    ] {
        let line: Vec<&str> = std::iter::once("agent").chain(line).collect();
        assert_eq!(refused(&line, &[]), said);
    }
}

#[test]
fn a_bad_value_from_the_environment_is_refused_in_the_variables_name() {
    assert_eq!(
        refused(&["agent"], &[("SIGNOFF_GRACE", "30 parsecs")]),
        "error: invalid value '30 parsecs' for 'SIGNOFF_GRACE': it is not a duration; write a number and a unit, such as 500ms, \
         30s or 1m30s"
    );
    assert!(
        refused(&["queue", "flush"], &[("SIGNOFF_MANAGER", "a:1,b")]).contains("'b' for 'SIGNOFF_MANAGER'")
    );
    assert_eq!(
        refused(&["agent", "--grace", "4w y"], &[("SIGNOFF_GRACE", "30")]),
        "error: invalid value '4w y' for '--grace <DURATION>': it is not a duration; write a number and a unit, such as 500ms, 30s or \
         1m30s"
    );
}

#[test]
fn a_password_in_an_endpoint_is_not_taken_over() {
    let error = parsed(&["agent"], &[("SIGNOFF_MANAGER", "https://root:hunter2@m:1")]).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let error = parsed(&["agent", "--manager", "https://root:hunter2@m:1"], &[]).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(error.to_string().contains("--password-file"), "{error}");
}

#[test]
fn variables_of_flags_a_command_has_not_are_none_of_its_business() {
    let env = [("SIGNOFF_GRACE", "nonsense"), ("SIGNOFF_LISTEN", "nonsense"), ("SIGNOFF_SHELL", "x")];
    assert!(parsed(&["status"], &env).is_ok());
    assert!(parsed(&["queue", "list"], &env).is_ok());
    assert!(parsed(&["completions", "bash"], &env).is_ok());
}

#[test]
fn each_command_shows_its_own_flags_in_their_groups_and_no_others() {
    let identity = ("Identity", "hostname ip cluster-id scheduler-addr scheduler-config");
    let manager = ("Manager", "manager username password-file");
    // The scheduler.yaml names a manager too.
    let flush_manager = ("Manager", "manager username password-file scheduler-config");
    let tls = ("TLS", "ca-file cert-file key-file");
    let queue = ("Queue", "spool");
    let logs = ("Output", "log-format log-level");
    let expected: [(&str, Vec<(&str, &str)>); 11] = [
        (
            "agent",
            vec![
                identity,
                manager,
                tls,
                queue,
                logs,
                (
                    "Agent",
                    "run-dir grace repair listen ready-after-manager hook-listen hook-allow hook-token-file",
                ),
            ],
        ),
        ("pre-stop", vec![identity, manager, tls, queue, logs, ("Agent", "run-dir grace deadline linger")]),
        ("status", vec![("Agent", "run-dir"), ("Output", "output started")]),
        ("queue list", vec![queue, ("Agent", "run-dir"), ("Output", "output")]),
        ("queue show", vec![queue, ("Agent", "run-dir"), ("Output", "output")]),
        ("queue drop", vec![queue, ("Agent", "run-dir")]),
        ("queue flush", vec![flush_manager, tls, ("Queue", "spool deadline"), logs, ("Agent", "run-dir")]),
        ("check", vec![identity, manager, tls, queue, ("Agent", "run-dir grace"), ("Output", "output")]),
        (
            "grant",
            vec![
                ("Manager", "manager root-username root-password-file"),
                tls,
                ("Grant", "username password-file role secret-name revoke"),
                logs,
            ],
        ),
        ("install", vec![]),
        ("completions", vec![]),
    ];
    let leaves = leaves(&command(), "");
    for (path, groups) in expected {
        let (_, leaf) = leaves.iter().find(|(p, _)| p == path).unwrap();
        let groups = groups
            .into_iter()
            .map(|(heading, flags)| (heading.to_owned(), flags.split(' ').map(str::to_owned).collect()))
            .collect();
        assert_eq!(flags(leaf), groups, "{path}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for line in [&["--help"][..], &["-h"], &["--version"], &["agent", "--help"], &["queue", "flush", "-h"]] {
        let error = parsed(line, &[("SIGNOFF_GRACE", "nonsense")]).unwrap_err();
        assert!(!error.use_stderr(), "{error}");
    }
}

#[test]
fn no_line_of_any_help_is_wider_than_a_wide_terminal() {
    for (path, mut leaf) in leaves(&command(), "") {
        let help = leaf.render_long_help().to_string();
        let widest = help.lines().map(|l| l.chars().count()).max().unwrap();
        assert!(widest <= 120, "{path}: {widest}\n{help}");
    }
}

#[test]
fn the_agent_logs_from_info_on_and_the_others_from_warn_on_unless_told() {
    let log = |line: &[&str], env: &[(&str, &str)]| parsed(line, env).unwrap().log();
    assert_eq!(log(&["grant"], &[]), (Format::Auto, logging::Level::Info));
    assert_eq!(log(&["agent"], &[]), (Format::Auto, logging::Level::Info));
    assert_eq!(log(&["pre-stop"], &[]), (Format::Auto, logging::Level::Warn));
    assert_eq!(log(&["status"], &[("SIGNOFF_LOG_LEVEL", "debug")]), (Format::Auto, logging::Level::Warn));
    assert_eq!(
        log(&["agent", "--log-format", "json"], &[("SIGNOFF_LOG_LEVEL", "debug")]),
        (Format::Json, logging::Level::Debug)
    );
}
