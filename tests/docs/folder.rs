//! docs/ against the code, the rule file and itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use signoff::agent::metrics::Metrics;

use super::{chinese::files, documents, path, prose, read, spans, table};

/// What a heading is called in a link, as GitHub and GitLab make it.
pub(super) fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// A document's headings, without their hashes.
pub(super) fn headings(document: &str) -> Vec<String> {
    let text = read(document);
    let lines = prose(&text).filter(|line| line.starts_with('#'));
    lines.map(|line| line.trim_start_matches('#').trim().to_owned()).collect()
}

/// A link's target, seen from the document it stands in: the file, and the heading in it.
pub(super) fn target(document: &str, link: &str) -> (String, Option<String>) {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let file = match (file, document.rsplit_once('/')) {
        ("", _) => document.to_owned(),
        (file, None) => file.to_owned(),
        (file, Some((folder, _))) => match file.strip_prefix("../") {
            Some(file) => file.to_owned(),
            None => format!("{folder}/{file}"),
        },
    };
    (file, anchor.map(str::to_owned))
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let mut anchors = 0;
    for document in documents().into_iter().chain(["k8s/README.md".to_owned()]) {
        let text = read(&document);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target(&document, link);
            assert!(path(&file).exists(), "{document}: {link}: there is no {file}");
            if let Some(anchor) = anchor {
                let found = headings(&file).iter().any(|heading| slug(heading) == anchor);
                assert!(found, "{document}: {link}: no heading of {file} makes that anchor");
                anchors += 1;
            }
        }
    }
    assert!(anchors > 20, "{anchors}");
}

/// Who wants to find a page has the README.
#[test]
fn the_readmes_lead_to_every_page_of_docs() {
    for readme in files("README") {
        let text = read(&readme);
        for page in documents().iter().filter(|name| name.starts_with("docs/") && !name.contains(".zh-CN.")) {
            let chinese = page.replace(".md", ".zh-CN.md");
            let page = if readme.contains(".zh-CN.") && path(&chinese).exists() { &chinese } else { page };
            assert!(text.contains(&format!("| [{page}]({page})")), "{readme}: no row leads to {page}");
        }
    }
}

/// The fields of the reference's table are written somewhere: `name = …`, in a log line's macro.
#[test]
fn every_log_field_in_the_reference_is_one() {
    let mut found = Vec::new();
    sources(&path("src"), &mut found);
    let all: String = found.iter().map(|source| fs::read_to_string(source).unwrap()).collect();
    let fields: BTreeSet<String> = table("Log fields")
        .lines()
        .skip(2)
        .flat_map(|row| spans(row.split('|').nth(1).unwrap()).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(fields.len() > 20, "{fields:?}");
    for field in fields {
        let ends = |at: &(usize, &str)| {
            !all[..at.0].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.')
        };
        let written = all.match_indices(&format!("{field} = ")).any(|at| ends(&at));
        assert!(written, "{field}");
    }
}

#[test]
fn no_two_headings_of_a_document_have_one_anchor() {
    for document in documents() {
        let mut seen = BTreeSet::new();
        for heading in headings(&document) {
            assert!(seen.insert(slug(&heading)), "{document}: {heading}");
        }
    }
}

/// The names of the rule file's alerts.
fn alerts() -> BTreeSet<String> {
    let rules = read("k8s/monitoring/prometheus-rule.yaml");
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect()
}

#[test]
fn every_alert_has_a_section_and_no_section_is_of_an_alert_that_is_not_there() {
    let text = read("docs/operate.md");
    let of_alerts = text.split_once("\n# Alerts\n").unwrap().1;
    let sections: BTreeMap<&str, &str> =
        of_alerts.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let names: BTreeSet<String> = sections.keys().map(|name| (*name).to_owned()).collect();
    assert!(names.len() > 15, "{names:?}");
    assert_eq!(names, alerts());
    for (name, section) in sections {
        assert!(section.contains("Means**: "), "{name} says not what it means");
        assert!(
            ["**Do**", "do**", "| do |"].iter().any(|words| section.contains(words)),
            "{name} says not what to do"
        );
    }
}

/// Names of alerts elsewhere in the documents are those of alerts, too.
#[test]
fn no_document_names_an_alert_that_is_not_there() {
    let alerts = alerts();
    for document in documents() {
        let text = read(&document);
        for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
            let named = word.strip_prefix("Signoff").is_some_and(|rest| rest.starts_with(char::is_uppercase));
            assert!(!named || alerts.contains(word), "{document}: {word}");
        }
    }
}

/// What a scrape of an agent and one of a reconcile read.
fn scrapes() -> String {
    let metrics = Metrics::new();
    metrics.set_degraded("spool", true);
    metrics.text().unwrap()
        + &signoff::repair::metrics::Metrics::new(Duration::from_secs(300)).text().unwrap()
}

#[test]
fn every_metric_in_the_documents_is_one() {
    let scrapes = scrapes();
    let known: BTreeSet<&str> = scrapes
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(|name| name.strip_suffix("_bucket").unwrap_or(name))
        .collect();
    let mut named = 0;
    for document in documents() {
        let text = read(&document);
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if word.starts_with("signoff_") {
                assert!(known.contains(word), "{document}: {word}");
                named += 1;
            }
        }
    }
    assert!(named > 20, "{named}");
}

/// The values that this label has in a scrape.
fn labels(name: &str) -> BTreeSet<String> {
    let begin = format!("{name}=\"");
    let scrapes = scrapes();
    scrapes.split(&begin).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

/// The first cells of operate.md's table with this head.
fn cells(head: &str) -> BTreeSet<String> {
    let text = read("docs/operate.md");
    let table = text.split_once(&format!("\n{head}")).unwrap_or_else(|| panic!("no table {head}")).1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').nth(1).unwrap().trim().trim_matches('`').to_owned()).collect()
}

#[test]
fn causes_results_and_guards_are_those_of_the_code() {
    assert_eq!(cells("| cause |"), labels("cause"));
    let of_signoffs: BTreeSet<String> = scrapes()
        .lines()
        .filter_map(|line| line.strip_prefix("signoff_settled_total{result=\""))
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    assert_eq!(cells("| result |"), of_signoffs);
    assert_eq!(cells("| guard |"), labels("guard"));
}

/// Flags in the documents that are other programs'.
const OTHERS_FLAGS: [&str; 3] = ["--build-arg", "--enable-helm", "--force"];

#[test]
fn every_flag_and_variable_in_the_documents_is_one() {
    let mut known: BTreeSet<String> = OTHERS_FLAGS.map(str::to_owned).into();
    let mut variables = BTreeSet::new();
    let mut commands = vec![signoff::cli::command()];
    while let Some(command) = commands.pop() {
        for arg in command.get_arguments() {
            known.extend(arg.get_long().map(|long| format!("--{long}")));
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            variables.extend(
                help.split_once("[env: ").map(|(_, rest)| rest.split(']').next().unwrap().to_owned()),
            );
        }
        commands.extend(command.get_subcommands().cloned());
    }
    assert!(variables.len() > 20, "{variables:?}");
    for document in documents() {
        let text = read(&document);
        for span in prose(&text).flat_map(spans).filter(|span| !span.contains("kubectl ")) {
            let flag = span.split([' ', '=', '[']).next().unwrap();
            // A file of the repository's own tools has its own.
            assert!(
                !flag.starts_with("--") || known.contains(flag) || document == "CONTRIBUTING.md",
                "{document}: {span}"
            );
        }
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let ours = word.starts_with("SIGNOFF_") && word != "SIGNOFF_" && word != "SIGNOFF_BLESS";
            assert!(!ours || variables.contains(word), "{document}: {word}");
        }
    }
}

#[test]
fn the_picture_is_what_its_script_draws() {
    let output = Command::new("python3").arg(path("docs/shutdown.py")).output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI has to have python3");
            eprintln!("SKIPPED: there is no python3");
            return;
        }
        Err(error) => panic!("python3: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docs/shutdown.py: {said}");
    let drawn = String::from_utf8(output.stdout).unwrap();
    assert!(
        drawn == read("docs/shutdown.svg"),
        "docs/shutdown.svg is stale: python3 docs/shutdown.py > docs/shutdown.svg"
    );
}

/// A path of the repository's k8s/ that stands in a text, without what follows it in the sentence.
fn manifests(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("k8s/").filter_map(move |(at, _)| {
        // Another's path may end so: `/work/k8s/…`, but `../k8s/…` is a link.
        let before = text[..at].chars().next_back();
        let ours =
            before.is_none_or(|c| matches!(c, '`' | ' ' | '(' | '"' | '\n')) || text[..at].ends_with("../");
        let end = text[at..]
            .find(|c: char| !c.is_ascii_alphanumeric() && !"/-_.".contains(c))
            .unwrap_or(text.len() - at);
        ours.then(|| text[at..at + end].trim_end_matches(['.', '/']))
    })
}

#[test]
fn every_manifest_that_the_documents_name_is_there() {
    let mut named = 0;
    for document in documents() {
        let text = read(&document);
        for manifest in manifests(&text) {
            assert!(path(manifest).exists(), "{document}: {manifest}");
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

#[test]
fn unsafe_is_forbidden_and_dependencies_are_checked_as_security_md_says() {
    // In the roots too: Cargo's lints don't reach who compiles without Cargo.
    for root in ["src/lib.rs", "src/main.rs"] {
        assert!(read(root).lines().any(|line| line == "#![forbid(unsafe_code)]"), "{root}");
    }
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let manifest = read(manifest);
        let (_, lints) = manifest.split_once("[lints.rust]\n").unwrap();
        assert!(lints.split("\n\n").next().unwrap().contains("unsafe_code = \"forbid\""), "{manifest}");
    }
    let mut found = Vec::new();
    for dir in ["src", "tests", "fuzz/fuzz_targets"] {
        sources(&path(dir), &mut found);
    }
    assert!(found.len() > 200, "{}", found.len());
    // This file alone has the word, in strings.
    for source in found.iter().filter(|source| !source.ends_with("tests/docs/folder.rs")) {
        let text = fs::read_to_string(source).unwrap();
        let code = text.lines().filter_map(|line| line.split("//").next());
        let mut words = code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
        assert!(words.all(|word| word != "unsafe"), "{}", source.display());
    }
    let checks = read(".ci/run");
    let deny = checks.lines().find(|line| line.starts_with("run cargo deny")).unwrap();
    assert!(deny.ends_with("bans licenses sources"), "{deny}");
}

#[test]
fn every_test_that_security_md_names_is_one() {
    let text = read("docs/security.md");
    let (_, tested) = text.split_once("\n## What is tested\n").unwrap();
    let rows = tested.lines().filter(|line| line.starts_with('|')).skip(2);
    let named: Vec<&str> = rows.flat_map(|row| spans(row.rsplit('|').nth(1).unwrap())).collect();
    assert!(named.len() > 20, "{named:?}");
    let mut found = Vec::new();
    ["src", "tests"].iter().for_each(|dir| sources(&path(dir), &mut found));
    let all: String = found.iter().map(|source| fs::read_to_string(source).unwrap()).collect();
    for name in named {
        let there = ["\nfn", "\nasync fn", "\n    fn"].map(|begin| all.contains(&format!("]{begin} {name}")));
        assert!(there.contains(&true), "{name}");
    }
}

#[test]
fn what_is_said_to_hold_each_guarantee_is_there() {
    let text = read("docs/guarantees.md");
    let mut found = Vec::new();
    sources(&path("src"), &mut found);
    let all: String = found.iter().map(|source| fs::read_to_string(source).unwrap()).collect();
    let lines: Vec<&str> = all.lines().map(str::trim).collect();
    let planted = || {
        fs::read_dir(path("tests/planted"))
            .unwrap()
            .map(|bug| bug.unwrap().file_name().into_string().unwrap())
    };
    for guarantee in 1..=8 {
        let name = format!("fn g{guarantee}_");
        let is_test = |pair: &&[&str]| {
            pair[0].ends_with(']') && pair[1].trim_start_matches("async ").starts_with(&name)
        };
        let tests = lines.windows(2).filter(is_test).count();
        let bugs = planted().filter(|name| name.starts_with(&format!("g{guarantee}-"))).count();
        let said = format!("*Held by* {tests} tests (`cargo test --lib g{guarantee}_`), {bugs} planted bugs");
        assert!(text.contains(&said), "{said}");
    }
    let bugs = planted().filter(|name| name.ends_with(".patch")).count();
    assert!(text.contains(&format!("{bugs} of {bugs} planted bugs caught")), "{bugs}");
}
