//! The tables of docs/reference.md are what the code says, in English and in Chinese. `SIGNOFF_BLESS=1 cargo test --test
//! docs` rewrites those that are generated; what their cells are in Chinese is in `docs/chinese.txt`.
#![allow(clippy::unwrap_used, reason = "a test's helper that can't go on fails the test")]

use std::{collections::BTreeSet, ffi::OsString, fmt::Write, fs, path::PathBuf, sync::Mutex};

use signoff::{agent::metrics::Metrics, spool::volume::Durability};

#[path = "docs/chinese.rs"]
mod chinese;
#[path = "docs/dictionary.rs"]
mod dictionary;
#[path = "docs/folder.rs"]
mod folder;

/// Where the generated tables are, in English and in Chinese.
const REFERENCE: &str = "docs/reference.md";
const CHINESE: &str = "docs/reference.zh-CN.md";

/// Those at the top, and all of docs/.
fn documents() -> Vec<String> {
    let mut all = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
        .map(str::to_owned)
        .to_vec();
    let folder = fs::read_dir(path("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    all.extend(
        folder.map(|name| format!("docs/{}", name.to_str().unwrap())).filter(|name| name.ends_with(".md")),
    );
    assert!(all.len() > 8, "{all:?}");
    all
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// Where the table under a heading is in a text: from its first row on, to the next empty line.
fn around(text: &str, heading: &str) -> (usize, usize) {
    let section = text.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
    let begin = section + text[section..].find("\n|").unwrap() + 1;
    let end = begin + text[begin..].find("\n\n").unwrap() + 1;
    (begin, end)
}

fn table(heading: &str) -> String {
    table_of(REFERENCE, heading)
}

fn table_of(name: &str, heading: &str) -> String {
    let text = read(name);
    let (begin, end) = around(&text, heading);
    text[begin..end].to_owned()
}

/// The reference's table under this heading is the one given, and the Chinese reference's is that in Chinese; with
/// SIGNOFF_BLESS they are made so.
fn is(heading: &str, wanted: &str) {
    is_in(REFERENCE, heading, wanted);
    is_in(CHINESE, &dictionary::heading(heading), &dictionary::generated(wanted));
}

fn is_in(name: &str, heading: &str, wanted: &str) {
    static WRITING: Mutex<()> = Mutex::new(());
    if std::env::var_os("SIGNOFF_BLESS").is_some() {
        let _one = WRITING.lock();
        let mut text = read(name);
        let (begin, end) = around(&text, heading);
        text.replace_range(begin..end, wanted);
        // As a whole: other tests are reading it.
        let new = path("target").join(name.replace('/', "-"));
        fs::create_dir_all(path("target")).unwrap();
        fs::write(&new, text).unwrap();
        fs::rename(new, path(name)).unwrap();
    }
    let shown = table_of(name, heading);
    assert!(
        shown == wanted,
        "{name}'s {heading:?} is stale: SIGNOFF_BLESS=1 cargo test --test docs\n\nit says\n{shown}\nthe code says\n{wanted}"
    );
}

/// The text between `begin` and `end`, and the text without the two and it.
fn cut(text: &str, begin: &str, end: char) -> (Option<String>, String) {
    let Some((before, rest)) = text.split_once(begin) else { return (None, text.to_owned()) };
    // An address in brackets may be within.
    let mut depth = 0;
    let close = rest.char_indices().find(|(_, c)| {
        depth += i32::from(*c == '[') - i32::from(*c == end);
        depth < 0
    });
    let (inner, after) = rest.split_at(close.unwrap().0);
    (Some(inner.to_owned()), format!("{}{}", before.trim_end(), &after[1..]))
}

/// A command's flags as a table, and how many they are.
fn flags(name: &str) -> (String, usize) {
    let command = signoff::cli::command();
    let agent = command.find_subcommand(name).unwrap();
    let mut wanted = String::from("| flag | variable | default | meaning |\n|---|---|---|---|\n");
    let mut rows = 0;
    for arg in agent.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let Some(long) = arg.get_long().filter(|long| *long != "help") else { continue };
        let help = arg.get_help().unwrap().to_string().replace('\n', " ");
        let (variable, help) = cut(&help, "[env: ", ']');
        let (default, help) = cut(&help, "[default: ", ']');
        let value = arg.get_value_names().unwrap_or_default().join(" ").replace('|', "\\|");
        let value = match arg.get_num_args().map(|n| n.min_values()) {
            Some(0) => format!("[={value}]"),
            _ => format!(" {value}"),
        };
        let (variable, default) = (variable.unwrap(), default.unwrap_or_else(|| "–".to_owned()));
        writeln!(wanted, "| `--{long}{value}` | `{variable}` | {default} | {} |", help.trim()).unwrap();
        rows += 1;
    }
    (wanted, rows)
}

#[test]
fn the_configuration_table_is_the_agents_flags_and_at_most_25() {
    let (wanted, rows) = flags("agent");
    assert!(rows > 15, "{wanted}");
    assert!(rows <= 25, "{rows}");
    is("Configuration of the agent", &wanted);
}

#[test]
fn the_configuration_table_of_reconcile_is_its_flags() {
    let (wanted, rows) = flags("reconcile");
    assert!(rows > 15, "{wanted}");
    is("Configuration of reconcile", &wanted);
}

#[test]
fn the_metrics_tables_are_what_a_scrape_reads() {
    let metrics = Metrics::new();
    // A reason appears with its first time.
    metrics.set_degraded("spool", true);
    is("Metrics", &scraped(&metrics.text().unwrap()));
    let metrics = signoff::repair::metrics::Metrics::new(std::time::Duration::from_secs(300));
    is("Metrics of reconcile", &scraped(&metrics.text().unwrap()));
}

/// What a scrape reads, as a table.
fn scraped(text: &str) -> String {
    let mut wanted = String::from("| metric | type | meaning |\n|---|---|---|\n");
    for help in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (family, meaning) = help.split_once(' ').unwrap();
        let of_it =
            |line: &&str| line.strip_prefix("# TYPE ").is_some_and(|l| l.starts_with(&format!("{family} ")));
        let kind = text.lines().find(of_it).unwrap().rsplit(' ').next().unwrap();
        let (suffix, kind) = match kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            kind => ("", kind),
        };
        let sample = text
            .lines()
            .find(|line| !line.starts_with('#') && line.starts_with(&format!("{family}{suffix}")))
            .unwrap_or_else(|| panic!("no sample of {family}{suffix} in\n{text}"));
        let labels: Vec<&str> = match sample.split_once('{').filter(|_| kind != "histogram") {
            Some((_, rest)) => {
                rest.split_once('}').unwrap().0.split(',').map(|l| l.split_once('=').unwrap().0).collect()
            }
            None => Vec::new(),
        };
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let meaning = meaning.trim_end_matches('.');
        writeln!(wanted, "| `{family}{suffix}{labels}` | {kind} | {meaning} |").unwrap();
    }
    wanted
}

#[test]
fn the_exit_codes_are_those_of_the_code() {
    let code = read("src/exit.rs");
    let body = code.split("pub enum Exit {").nth(1).unwrap().split('}').next().unwrap();
    let mut wanted = String::from("| code | meaning |\n|---|---|\n");
    let mut meaning = String::new();
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            meaning = text.trim_end_matches('.').to_owned();
        } else if let Some((_, code)) = line.split_once(" = ") {
            writeln!(wanted, "| {} | {meaning} |", code.trim_end_matches(',')).unwrap();
        }
    }
    assert_eq!(wanted.lines().count(), 2 + 8, "{wanted}");
    is("Exit codes", &wanted);
}

#[test]
fn what_is_said_of_each_kind_of_volume_is_what_the_answers_say() {
    let said: BTreeSet<String> = table("What each kind of volume survives")
        .lines()
        .skip(2)
        .map(|row| row.split('|').nth(2).unwrap().trim().trim_matches('`').to_owned())
        .collect();
    let kinds =
        [Durability::Container, Durability::Pod, Durability::Node, Durability::Claim, Durability::Unknown];
    assert_eq!(said, kinds.map(|kind| kind.queued().to_owned()).into());
}

/// The lines that are not in a fenced block.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// What is in backticks in this line.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The `signoff …` lines of the documents: those of a console (true), and those in a sentence, which may leave out what
/// a command requires.
fn commands() -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for document in documents() {
        let text = read(&document);
        let console = text.lines().filter_map(|line| line.trim_start().strip_prefix("$ ")).map(|line| {
            let line = line.split(" #").next().unwrap().trim();
            let line =
                line.replace("cargo run --release -- ", "signoff ").replace("cargo run -- ", "signoff ");
            // In a pod.
            line.split_once(" -- signoff ").map_or(line.clone(), |(_, args)| format!("signoff {args}"))
        });
        found
            .extend(console.filter(|command| command.starts_with("signoff ")).map(|command| (command, true)));
        let spans = prose(&text).flat_map(spans).filter(|span| span.starts_with("signoff "));
        found.extend(spans.map(|span| (span.to_owned(), false)));
    }
    found
}

#[test]
fn every_command_in_the_documents_is_one() {
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    for (command, whole) in commands {
        let of_the_mock = ["mock-", "demo"].iter().any(|name| command["signoff ".len()..].starts_with(name));
        if of_the_mock && cfg!(not(feature = "mock")) {
            continue;
        }
        // `a|b|c` stands for each of the three, ID for some record's or row's.
        let command = command.replace(" ID", " 7").replace("HOST:PORT", "manager:65003");
        let words: Vec<Vec<&str>> = command.split(' ').map(|word| word.split('|').collect()).collect();
        let most = words.iter().map(Vec::len).max().unwrap();
        for at in 0..most {
            let line: Vec<OsString> =
                words.iter().map(|choices| choices[at.min(choices.len() - 1)].into()).collect();
            if let Err(error) = signoff::cli::parse(line, &|_| None) {
                let partial = !whole && error.kind() == clap::error::ErrorKind::MissingRequiredArgument;
                // `--version` and `--help` end a parse too.
                assert!(partial || !error.use_stderr(), "{command}: {error}");
            }
        }
    }
}

/// Who has never heard of signoff reads it to its end.
#[test]
fn a_readme_has_fewer_than_160_lines() {
    for readme in chinese::files("README") {
        let lines = read(&readme).lines().count();
        assert!(lines < 160, "{readme}: {lines} lines: what is looked up goes to docs/");
    }
}

#[test]
fn the_documents_are_finished_and_fit_a_screen() {
    for document in documents() {
        let text = read(&document);
        for unfinished in ["<!--", "TODO", "TBD", "FIXME"] {
            assert!(!text.contains(unfinished), "{document}: {unfinished}");
        }
        for line in text.lines() {
            let width = line.chars().count();
            assert!(width <= 160, "{document}: {width} characters: {line}");
        }
        for line in prose(&text) {
            // The tests here go by lines, and so does a search.
            assert!(
                line.matches('`').count() % 2 == 0,
                "{document}: a span goes over the line's end: {line}"
            );
        }
    }
}
