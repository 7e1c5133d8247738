//! Files as people, Helm and other programs write them, and as nobody should: a tree of values, drawn, then written in one of
//! YAML's many ways, then perhaps spoilt.

use fastrand::Rng;

/// Files of a kind that once was read in another way.
pub(super) const KNOWN: [&str; 37] = [
    "",
    "---\n",
    "# nothing\n",
    "null\n",
    "[]\n",
    "text\n",
    "{}\n",
    "--- {manager: {addr: 'm:1'}}\n",
    "manager:\n  addr: m:65003\n---\nmanager:\n  addr: other:1\n",
    "manager:\n  addr: m:65003\n---\n",
    "manager:\n  addr: m:65003\n...\nanything: [\n",
    "manager:\n  addr: m:65003\n--- [\n",
    "server.host: dotted\nserver:\n  host: nested\n  port: 9001\n",
    "server.host: null\nserver:\n  host: nested\n",
    "manager:\n  keepAlive.interval: 7s\n  tls.caCert: /ca\n",
    "manager.keepAlive:\n  interval: 7s\nmanager.keepAlive.interval: 8s\n",
    "server: {\tport:\t9001,\tadvertisePort:\t9002\t}\nmanager: {addr: [\t]\t}\n",
    "server: {port: 9001,\n\tadvertisePort: 9002}\n",
    "server:\n  port: 1e+03\n  advertisePort: 8.002e+03\nmanager:\n  schedulerClusterID: 1e+06\n",
    "server:\n  port: 010\n  advertisePort: 0x1f42\nmanager:\n  schedulerClusterID: '0x10'\n",
    "manager:\n  keepAlive:\n    interval: 5000000000\n",
    "manager:\n  keepAlive:\n    interval: '5000000000'\n",
    "manager:\n  keepAlive:\n    interval: 5e9\n",
    "server:\n  port: 9001\n  advertisePort: 0\n",
    "server:\n  port: 9001\n",
    "server:\n  host: yes\n  port: true\nnetwork:\n  enableIPv6: 'yes'\n",
    "server:\n  host: 2024-01-02\n",
    "server:\n  host: 1.0\n  advertiseIP: ''\n",
    "server:\n  host: [a]\n  port: {a: 1}\n",
    "server: []\nmanager: 7\nnetwork: text\n",
    "server:\n  tls: {}\nmanager:\n  tls: {other: 1}\n",
    "base: &b {caCert: /ca, cert: /crt}\nmanager:\n  tls:\n    <<: *b\n    cert: /other\n",
    "a: &a {b: *a}\n",
    "base: &b [1]\nmanager:\n  <<: *b\n",
    "manager:\n  addr: !!int x\n",
    "manager:\n  addr: !!str 65003\n  schedulerClusterID: !!int '7'\n",
    "manager: {addr: m:65003}\nmanager: {addr: n:65003}\n",
];

const FIELDS: [(&str, &[&str]); 20] = [
    ("server.host", TEXTS),
    ("server.advertiseIP", IPS),
    ("server.advertisePort", NUMBERS),
    ("server.listenIP", IPS),
    ("server.port", NUMBERS),
    ("server.tls.caCert", PATHS),
    ("server.tls.cert", PATHS),
    ("server.tls.key", PATHS),
    ("manager.addr", TEXTS),
    ("manager.tls.caCert", PATHS),
    ("manager.tls.cert", PATHS),
    ("manager.tls.key", PATHS),
    ("manager.schedulerClusterID", NUMBERS),
    ("manager.keepAlive.interval", DURATIONS),
    ("metrics.enable", BOOLS),
    ("metrics.addr", TEXTS),
    ("network.enableIPv6", BOOLS),
    ("security.autoIssueCert", BOOLS),
    ("security.caCert", PATHS),
    ("security.tlsPolicy", TEXTS),
];

const TEXTS: &[&str] = &[
    "sched-0.example",
    "m:65003",
    "dns:///m:65003",
    "dns:m:65003",
    "m",
    "10.0.0.1:65003",
    "[fd00::1]:65003",
    ":65003",
    "prefer",
    "force",
    "default",
    "1e3",
    "1.50",
    "0x10",
    "true",
    "no",
    "~",
    "null",
    "",
    "a b",
    "a: b",
    "a #b",
    "-",
    "08",
    "007",
    "1_0",
    "été",
    "x\u{301}",
];
const IPS: &[&str] = &[
    "10.0.0.1",
    "fd00::1",
    "::ffff:10.0.0.9",
    "::",
    "0.0.0.0",
    "",
    "null",
    "here",
    "10.0.0",
    "010.0.0.1",
    "1",
    "fe80::1%eth0",
    " 10.0.0.1",
];
const NUMBERS: &[&str] = &[
    "8002",
    "9001",
    "65003",
    "1",
    "7",
    "0",
    "-1",
    "65536",
    "1e+06",
    "1e+03",
    "9.001e+03",
    "8002.0",
    "8002.9",
    "0x1f42",
    "0o17502",
    "010",
    "08",
    "0b101",
    "1_000",
    "+80",
    "many",
    "",
    "null",
    "true",
    "False",
    " 80",
    "80 ",
    "1__0",
    "_1",
    "0x",
    "9999999999999",
];
const PATHS: &[&str] =
    &["/etc/tls/ca.crt", "/a b/c", "", "null", "7", "relative", "-----BEGIN CERTIFICATE-----"];
const DURATIONS: &[&str] = &[
    "5s",
    "1m30s",
    "1.5h",
    ".5s",
    "250ms",
    "7us",
    "7µs",
    "0",
    "0s",
    "-5s",
    "+5s",
    "5000000000",
    "5e9",
    "5e+09",
    "5",
    "5 s",
    "",
    "null",
    "1h0m0.25s",
    "true",
    "1d",
    "3.3333333333333333333333s",
];
const BOOLS: &[&str] = &[
    "true", "false", "True", "TRUE", "yes", "no", "on", "0", "1", "1.0", "t", "F", "", "null", "maybe", "2",
];
/// Of other sections, as a chart writes them.
const OTHERS: &[&str] = &[
    "seedPeer:\n  null\n",
    "storage:\n",
    "job: {}\n",
    "pprofPort: -1\n",
    "console: false\n",
    "tracing:\n",
    "verbose: true\n",
    "database:\n  redis:\n    addrs:\n    - r:6379\n    password: hunter2\n",
    "scheduler:\n  gc:\n    hostGCInterval: 5m\n  algorithm: default\n",
    "? 1\n: a\n",
    "\"quoted key\": 'x'\n",
    "list:\n- a\n-   b\n- {c: d}\n",
    "folded: >-\n  a\n  b\n\n  c\n",
    "literal: |\n  a\n   b\n",
    "long: aaa bbb\n  ccc ddd\n",
    "empty: \"\"\n",
    "date: 2024-01-02\n",
    "7: seven\n",
];

/// What stands under a name.
enum Tree {
    Leaf(&'static str),
    Mapping(Vec<(String, Tree)>),
}

/// A file of this chance.
pub(super) fn made(rng: &mut Rng) -> String {
    let mut root = Vec::new();
    let dotted = rng.u8(..6) == 0;
    for (name, values) in FIELDS {
        if rng.u8(..5) < 2 {
            continue;
        }
        // Mostly a value that can be right, the first ones.
        let usual = values.len().min(2);
        let value = if rng.bool() { values[rng.usize(..usual)] } else { values[rng.usize(..values.len())] };
        put(&mut root, name, value, dotted, rng);
    }
    if rng.u8(..8) == 0 {
        // A section, or a field, of another kind than it should be.
        let (name, _) = FIELDS[rng.usize(..FIELDS.len())];
        let odd = [
            "7", "text", "[]", "[a, b]", "{}", "{a: }", "{a: 1}", "[{a: 1}]", "null", "\"\"", "!!str 7",
            "!local x",
        ];
        let at = rng.usize(..name.split('.').count());
        let parts: Vec<&str> = name.split('.').take(at + 1).collect();
        replace(&mut root, &parts, odd[rng.usize(..odd.len())]);
    }
    let mut style = Style { rng, indent: 2, out: String::new() };
    style.indent = [2, 2, 2, 4, 3, 1][style.rng.usize(..6)];
    let text = style.file(&root);
    if rng.u8(..4) == 0 { spoilt(&text, rng) } else { text }
}

fn cased(name: &str, rng: &mut Rng) -> String {
    match rng.u8(..10) {
        0 => name.to_lowercase(),
        1 => name.to_uppercase(),
        2 => name.chars().map(|c| if rng.bool() { c.to_ascii_uppercase() } else { c }).collect(),
        _ => name.to_owned(),
    }
}

fn put(tree: &mut Vec<(String, Tree)>, name: &str, value: &'static str, dotted: bool, rng: &mut Rng) {
    let Some((first, rest)) = name.split_once('.').filter(|_| !(dotted && rng.u8(..3) == 0)) else {
        // Twice in one mapping, in whatever case, is chance in the scheduler.
        if !tree.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            tree.push((cased(name, rng), Tree::Leaf(value)));
        }
        return;
    };
    if let Some((_, Tree::Mapping(below))) =
        tree.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(first))
    {
        return put(below, rest, value, dotted, rng);
    }
    let mut below = Vec::new();
    put(&mut below, rest, value, dotted, rng);
    if !tree.iter().any(|(known, _)| known.eq_ignore_ascii_case(first)) {
        tree.push((cased(first, rng), Tree::Mapping(below)));
    }
}

fn replace(tree: &mut [(String, Tree)], parts: &[&str], value: &'static str) {
    let Some((first, rest)) = parts.split_first() else { return };
    // A value where dotted names make a mapping of it, too, is chance in the scheduler.
    let dotted = tree.iter().any(|(known, _)| known.contains('.'));
    let Some((_, below)) = tree.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(first)) else {
        return;
    };
    match below {
        _ if dotted => {}
        below if rest.is_empty() => *below = Tree::Leaf(value),
        Tree::Mapping(below) => replace(below, rest, value),
        Tree::Leaf(_) => {}
    }
}

/// One of the ways to write it.
struct Style<'a> {
    rng: &'a mut Rng,
    indent: usize,
    out: String,
}

impl Style<'_> {
    fn one_in(&mut self, n: u8) -> bool {
        self.rng.u8(..n) == 0
    }

    fn file(mut self, root: &[(String, Tree)]) -> String {
        let begin = [
            "",
            "",
            "",
            "",
            "---\n",
            "# a comment\n",
            "\u{feff}",
            "%YAML 1.1\n---\n",
            "\n\n",
            "--- # start\n",
        ];
        self.out.push_str(begin[self.rng.usize(..begin.len())]);
        if self.one_in(12) {
            self.flow(root, 0);
            self.out.push('\n');
        } else {
            self.block(root, 0);
        }
        let end = [
            "",
            "",
            "",
            "---\n",
            "...\n",
            "---\nserver: {host: second}\n",
            "--- [\n",
            "... # end\n",
            "# end",
            "\n---\n%a\n",
        ];
        self.out.push_str(end[self.rng.usize(..end.len())]);
        if self.one_in(15) { self.out.replace('\n', "\r\n") } else { self.out }
    }

    fn block(&mut self, tree: &[(String, Tree)], depth: usize) {
        for (name, below) in tree {
            if depth == 0 && self.one_in(6) {
                let other = OTHERS[self.rng.usize(..OTHERS.len())];
                // Not twice.
                if !self.out.contains(other.split(':').next().unwrap_or_default()) {
                    self.out.push_str(other);
                }
            }
            self.out.push_str(&" ".repeat(depth * self.indent));
            self.key(name);
            match below {
                Tree::Leaf(value) => {
                    self.out.push(' ');
                    self.value(value, false);
                    let tail = ["", "", "", "", " # a comment", "  ", "\t", "\t# c"];
                    self.out.push_str(tail[self.rng.usize(..tail.len())]);
                    self.out.push('\n');
                }
                Tree::Mapping(below) if self.rng.u8(..6) == 0 => {
                    self.out.push(' ');
                    self.flow(below, depth + 1);
                    self.out.push('\n');
                }
                Tree::Mapping(below) => {
                    let tail = ["\n", "\n", "\n", " # section\n", "\n\n", "\n# c\n", " \n"];
                    self.out.push_str(tail[self.rng.usize(..tail.len())]);
                    self.block(below, depth + 1);
                }
            }
        }
    }

    fn flow(&mut self, tree: &[(String, Tree)], depth: usize) {
        let gaps = ["", " ", "\t", " \t ", "  "];
        self.out.push('{');
        for (n, (name, below)) in tree.iter().enumerate() {
            if n > 0 {
                self.out.push(',');
                if self.one_in(8) {
                    self.out.push('\n');
                    self.out.push_str(&" ".repeat((depth + 1) * self.indent));
                }
            }
            let gap = gaps[self.rng.usize(..gaps.len())];
            self.out.push_str(gap);
            self.key(name);
            self.out.push_str([" ", " ", "\t", "  "][self.rng.usize(..4)]);
            match below {
                Tree::Leaf(value) => self.value(value, true),
                Tree::Mapping(below) => self.flow(below, depth + 1),
            }
            let gap = gaps[self.rng.usize(..gaps.len())];
            self.out.push_str(gap);
        }
        self.out.push('}');
    }

    fn key(&mut self, name: &str) {
        let key = match self.rng.u8(..12) {
            0 => format!("\"{name}\":"),
            1 => format!("'{name}':"),
            2 => format!("{name} :"),
            _ => format!("{name}:"),
        };
        self.out.push_str(&key);
    }

    fn value(&mut self, value: &str, flow: bool) {
        let plain = !value.is_empty()
            && value.trim() == value
            && !value.contains(": ")
            && !value.contains(" #")
            && value != "-"
            && !value.starts_with(['[', '{', '%', '"', '-'])
            && !(flow && value.contains([',', '[', ']', '{', '}']));
        let literal = value.starts_with(['[', '{', '!', '"']);
        let text = match self.rng.u8(..12) {
            _ if literal => value.to_owned(),
            0..=6 if plain || value.is_empty() => value.to_owned(),
            7 if plain => format!("!!str {value}"),
            8 if plain => format!("&anchor{} {value}", self.rng.u16(..)),
            9 if !flow && plain => format!("|-\n{}{value}", " ".repeat(4 * self.indent)),
            10 => format!("'{}'", value.replace('\'', "''")),
            _ => format!("{value:?}"),
        };
        self.out.push_str(&text);
    }
}

/// With a line gone, doubled or put in, or a character of its own meaning put in or taken out.
fn spoilt(text: &str, rng: &mut Rng) -> String {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let at = rng.usize(..lines.len().max(1));
    // Within tags and anchors, at a colon in braces and at the beginning of a text in lines the two parsers differ, on what
    // nobody writes.
    let near = lines.iter().take(at + 1).skip(at.saturating_sub(1));
    if lines.is_empty() || near.into_iter().any(|line| line.contains(['!', '&', '{', '|'])) {
        return text.to_owned();
    }
    match rng.u8(..8) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 => lines.insert(at, "\t\n".to_owned()),
        3 => lines.insert(at, "    # indented\n".to_owned()),
        4 => lines.insert(at, "\n".to_owned()),
        _ => {
            let mut chars: Vec<char> = lines[at].chars().collect();
            let place = rng.usize(..chars.len().max(1));
            let odd = [' ', ':', '#', '-', '"', '\'', ',', '[', '}', '*', '%', '@', '\t', '\n', 'x'];
            if rng.bool() || chars.is_empty() {
                chars.insert(place, odd[rng.usize(..odd.len())]);
            } else {
                chars.remove(place);
            }
            lines[at] = chars.into_iter().collect();
        }
    }
    lines.concat()
}
