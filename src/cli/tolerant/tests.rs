use std::collections::HashMap;

use super::*;
use crate::{
    cli::{args, called, parse},
    identity::{Inputs, Repair},
    logging,
};

fn line(words: &[&[u8]]) -> Vec<OsString> {
    let words = std::iter::once(&b"signoff"[..]).chain(words.iter().copied());
    words.map(|word| OsStr::from_bytes(word).to_owned()).collect()
}

fn command(words: &[&[u8]], env: &[(&str, &[u8])]) -> Result<args::Command, clap::Error> {
    let env: HashMap<&str, &[u8]> = env.iter().copied().collect();
    called(line(words), &|name| env.get(name).map(|value| OsStr::from_bytes(value).to_owned()))
        .map(|cli| cli.command)
}

fn started(words: &[&[u8]], env: &[(&str, &[u8])]) -> AgentArgs {
    match command(words, env) {
        Ok(args::Command::Agent(args)) => args.into_inner(),
        other => panic!("{words:?} {env:?}: {other:?}"),
    }
}

fn texts(words: &[&[u8]], env: &[(&str, &[u8])]) -> Vec<String> {
    started(words, env).wrong.into_iter().map(|wrong| wrong.text).collect()
}

/// Every flag of the agent.
fn flags() -> Vec<String> {
    let command = AgentArgs::augment_args(Command::new("agent"));
    command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

/// Values that one flag or another can't take.
const ODD: [&[u8]; 9] =
    [b"", b"\xff\xfe", b"\x01", b"abc def", b"-1", b"@", b"999999999999999999999", b"[::", b"maybe"];

#[test]
fn g8_no_value_of_any_flag_or_variable_keeps_the_agent_from_starting_and_each_that_is_wrong_is_named() {
    assert!(flags().len() > 20);
    for flag in flags() {
        let variable = variable(&flag);
        let (mut by_flag, mut by_variable) = (0, 0);
        for odd in ODD {
            let word = [format!("--{flag}=").as_bytes(), odd].concat();
            for (name, args) in [
                (format!("--{flag}"), started(&[b"agent", &word], &[])),
                (variable.clone(), started(&[b"agent"], &[(&variable, odd)])),
            ] {
                let taken = args.wrong.is_empty();
                if !taken {
                    let [wrong] = args.wrong.as_slice() else { panic!("{flag}: {:?}", args.wrong) };
                    assert_eq!(wrong.flag.as_deref(), Some(flag.as_str()));
                    assert!(wrong.text.starts_with(&format!("{name} \"")), "{}", wrong.text);
                    assert!(
                        wrong.text.len() > name.len() + 20,
                        "it says what would be right: {}",
                        wrong.text
                    );
                    assert!(args.inputs().is_wrong(&flag));
                    *(if name == variable { &mut by_variable } else { &mut by_flag }) += 1;
                }
            }
        }
        assert!(by_flag > 0, "--{flag}: nothing is wrong there");
        assert!(by_variable > 0, "{variable}: nothing is wrong there");
    }
}

#[test]
fn g8_an_agent_with_words_and_flags_that_it_does_not_know_starts() {
    for (words, said) in [
        (&["agent", "--gracee=30s"][..], "--gracee: signoff agent has no such flag (is --grace meant?)"),
        (&["agent", "--password", "s3cr3t-1"], "--password: signoff agent has no such flag"),
        (&["agent", "--password=s3cr3t-1"], "--password: signoff agent has no such flag"),
        (&["agent", "-vvs3cr3t-1"], "-v: signoff agent has no such flag"),
        (&["agent", "s3cr3t-1"], "a word of the command line belongs to no flag"),
        (&["agent", "--grace"], "--grace: it needs a value"),
        (&["agent", "--hostname", "--ip=10.0.0.1"], "--hostname: it needs a value"),
        (
            &["--log-levle=debug", "agent"],
            "--log-levle: signoff agent has no such flag (is --log-level meant?)",
        ),
        (&["agent", "--ready-after-manager", "no"], "a word of the command line belongs to no flag"),
    ] {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let all = texts(&words, &[]);
        assert!(all.len() == 1 && all[0].starts_with(said), "{said}: {all:?}");
        assert!(!all[0].contains("s3cr3t"), "{all:?}");
        assert!(all[0].contains("signoff agent --help"), "{all:?}");
    }
    // What is right beside it is taken.
    let args =
        started(&[b"agent", b"--bogus", b"--grace", b"7", b"--repair=off", b"--ready-after-manager"], &[]);
    assert_eq!(args.grace.grace, Some(std::time::Duration::from_secs(7)));
    assert_eq!((args.repair, args.ready_after_manager), (Some(Repair::Off), Some(true)));
}

#[test]
fn all_that_is_wrong_at_once_is_told_and_what_is_right_is_taken() {
    let env: [(&str, &[u8]); 4] = [
        ("SIGNOFF_CLUSTER_ID", b"abc"),
        ("SIGNOFF_GRACE", b"30 parsecs"),
        ("SIGNOFF_MANAGER", b"a:1, nowhere,b:2"),
        ("SIGNOFF_SPOOL", b"/somewhere\xff"),
    ];
    let args =
        started(&[b"agent", b"--hostname=under_score", b"--hook-allow=10.0.0.1", b"--hook-allow=x"], &env);
    let all: Vec<&str> = args.wrong.iter().map(|wrong| wrong.text.as_str()).collect();
    for (text, start) in all.iter().zip([
        "--hostname \"under_score\": ",
        "SIGNOFF_CLUSTER_ID \"abc\": cluster id \"abc\" is not a cluster id: use a whole number of at least 1",
        "SIGNOFF_MANAGER \"nowhere\": it has no port",
        "SIGNOFF_SPOOL \"/somewhere\u{fffd}\": it is not UTF-8 text",
        "SIGNOFF_GRACE \"30 parsecs\": it is not a duration; write a number and a unit, such as 500ms, 30s or 1m30s",
        "--hook-allow \"x\": ",
    ]) {
        assert!(text.starts_with(start), "{all:?}");
    }
    assert_eq!(all.len(), 6, "{all:?}");
    let inputs = args.inputs();
    assert_eq!(inputs.spool, None, "its default counts");
    assert_eq!(inputs.managers, ["grpc://a:1", "grpc://b:2"]);
    assert_eq!(inputs.hook_allow, ["10.0.0.1"]);
}

#[test]
fn a_wrong_flag_is_not_mended_by_its_variable_and_of_one_given_twice_the_last_counts() {
    let args = started(&[b"agent", b"--ip=here"], &[("SIGNOFF_IP", b"10.0.0.1")]);
    assert_eq!((args.identity.ip, args.wrong.len()), (None, 1));
    let args = started(&[b"agent", b"--ip=here", b"--ip=10.0.0.1", b"--bogus"], &[]);
    assert_eq!(
        (args.identity.ip.map(|ip| ip.to_string()).as_deref(), args.wrong.len()),
        (Some("10.0.0.1"), 1)
    );
}

#[test]
fn a_password_in_a_value_is_not_shown_and_a_long_value_is_cut() {
    let all = texts(&[b"agent"], &[("SIGNOFF_MANAGER", b"https://root:hunter2@m:1")]);
    assert!(!all[0].contains("hunter2") && all[0].contains("***@m:1"), "{all:?}");
    let long = "x".repeat(5000);
    let all = texts(&[b"agent"], &[("SIGNOFF_LISTEN", long.as_bytes())]);
    assert!(all[0].len() < 400, "{all:?}");
}

#[test]
fn values_are_trimmed_and_words_taken_without_regard_to_case() {
    let env: [(&str, &[u8]); 8] = [
        ("SIGNOFF_CLUSTER_ID", b"2\n"),
        ("SIGNOFF_LOG_LEVEL", b"INFO"),
        ("SIGNOFF_LOG_FORMAT", b" Text\r\n"),
        ("SIGNOFF_REPAIR", b"True\n"),
        ("SIGNOFF_GRACE", b" 0\n"),
        ("SIGNOFF_READY_AFTER_MANAGER", b"TRUE\n"),
        ("SIGNOFF_MANAGER", b"m:65003\n"),
        ("SIGNOFF_SPOOL", b"/spool\n"),
    ];
    let flags: Vec<Vec<u8>> = env
        .iter()
        .map(|(name, value)| {
            let long = name.trim_start_matches("SIGNOFF_").to_ascii_lowercase().replace('_', "-");
            [b"--", long.as_bytes(), b"= ", value].concat()
        })
        .collect();
    let by_flag: Vec<&[u8]> = std::iter::once(&b"agent"[..]).chain(flags.iter().map(Vec::as_slice)).collect();
    for args in [started(&[b"agent"], &env), started(&by_flag, &[])] {
        assert_eq!(
            args.inputs(),
            Inputs {
                cluster_id: "2".parse().ok(),
                repair: Some(Repair::On),
                grace: Some(std::time::Duration::ZERO),
                ready_after_manager: Some(true),
                managers: vec!["grpc://m:65003".into()],
                spool: Some("/spool".into()),
                ..Inputs::default()
            }
        );
        assert_eq!(args.log.log_level, Some(logging::Level::Info));
        assert_eq!(args.log.log_format, Some(logging::Format::Text));
    }
    for (word, repair) in [
        ("on", Repair::On),
        ("YES", Repair::On),
        ("1", Repair::On),
        ("Off", Repair::Off),
        ("no", Repair::Off),
        ("0", Repair::Off),
        ("FALSE", Repair::Off),
        ("REPORT", Repair::Report),
    ] {
        assert_eq!(
            started(&[b"agent"], &[("SIGNOFF_REPAIR", word.as_bytes())]).repair,
            Some(repair),
            "{word}"
        );
    }
    assert_eq!(
        started(&[b"agent"], &[("SIGNOFF_LOG_LEVEL", b"WARNING")]).log.log_level,
        Some(logging::Level::Warn)
    );
}

#[test]
fn the_commands_that_people_run_and_help_are_as_they_were() {
    for words in [
        &["status", "--bogus"][..],
        &["check", "--grace=abc"],
        &["queue", "flush", "--manager=x"],
        &["reconcile", "--bogus"],
        &["agnt"],
        &["queue", "agent"],
        &[],
    ] {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        assert!(command(&words, &[]).unwrap_err().use_stderr(), "{words:?}");
    }
    for words in [&["agent", "--help"][..], &["agent", "-h"], &["--version"], &["--help"]] {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        assert!(!command(&words, &[("SIGNOFF_GRACE", b"abc")]).unwrap_err().use_stderr(), "{words:?}");
    }
    assert!(
        parse(line(&[b"agent", b"--bogus"]), &|_| None).is_err(),
        "the usual parser is as strict as before"
    );
}

#[test]
fn g8_a_startup_probe_depends_on_the_run_directory_alone() {
    let env: [(&str, &[u8]); 3] =
        [("SIGNOFF_OUTPUT", b"yaml"), ("SIGNOFF_STARTED", b"maybe"), ("SIGNOFF_RUN_DIR", b"/r\n")];
    match command(&[b"status", b"--started"], &env) {
        Ok(args::Command::Status(args)) => {
            assert_eq!((args.started, args.run_dir.run_dir.clone()), (Some(true), Some("/r".into())));
        }
        other => panic!("{other:?}"),
    }
    assert!(command(&[b"status"], &env).is_err());
}

#[test]
fn g8_a_misspelt_identity_endpoint_or_repair_is_not_taken_from_the_next_source() {
    for (word, flag) in [
        ("--cluster_id=7", "cluster-id"),
        ("--Cluster-Id=7", "cluster-id"),
        ("-cluster-id=7", "cluster-id"),
        ("--clusterid=7", "cluster-id"),
        ("7", "cluster-id"),
        ("--host=sched-9", "hostname"),
        ("--ip-address=10.0.0.9", "ip"),
        ("10.0.0.9", "ip"),
        ("--managers=manager:65003", "manager"),
        ("--manager-addr=manager:65003", "manager"),
        ("10.0.0.9:65003", "manager"),
        ("grpc://manager:65003", "manager"),
        ("--repairs=off", "repair"),
        ("--schedulerconfig=/scheduler.yaml", "scheduler-config"),
    ] {
        let args = started(&[b"agent", word.as_bytes()], &[]);
        assert!(args.inputs().is_wrong(flag), "{word}: {:?}", args.wrong);
        assert_eq!(args.wrong.len(), 1, "{word}: {:?}", args.wrong);
    }
    let args = started(&[b"agent"], &[("SIGNOFF_MANAGER", b" , ")]);
    assert!(args.inputs().is_wrong("manager"), "{:?}", args.wrong);
    // What has to do with none of them is ignored.
    for word in ["--log-levle=debug", "--spol=/x", "--gracee=30s", "-v", "extra"] {
        assert_eq!(started(&[b"agent", word.as_bytes()], &[]).wrong[0].flag, None, "{word}");
    }
}

#[test]
fn g8_a_hook_asks_the_agent_whatever_its_variables_are_like() {
    let hook = |words: &[&[u8]], env| match command(words, env) {
        Ok(args::Command::PreStop(args)) => args.into_inner(),
        other => panic!("{words:?}: {other:?}"),
    };
    let args =
        hook(&[b"pre-stop", b"--deadline=7s"], &[("SIGNOFF_LOG_LEVEL", b"loud"), ("SIGNOFF_IP", b"here")]);
    assert_eq!(args.deadline, Some(std::time::Duration::from_secs(7)));
    assert!(args.inputs().is_wrong("ip") && args.wrong.len() == 2, "{:?}", args.wrong);
    assert!(hook(&[b"pre-stop", b"--cluster_id=7"], &[]).inputs().is_wrong("cluster-id"));
    // What people run says it.
    assert!(command(&[b"check", b"--frobnicate"], &[]).is_err());
}

#[test]
fn g8_a_startup_probe_in_either_form_minds_no_variable() {
    for word in [&b"--started"[..], b"--started=true"] {
        assert!(command(&[b"status", word], &[("SIGNOFF_OUTPUT", b"yaml")]).is_ok());
    }
}
