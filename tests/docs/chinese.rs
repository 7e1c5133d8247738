//! A page that is there in Chinese says what it says in English. How it is worded is its translator's; this goes by what
//! must not differ: the order of headings, paragraphs, lists, tables and code; commands; and in each part the names,
//! figures and links.

use super::{
    documents,
    folder::{headings, slug, target},
    read, spans,
};

/// The pages in both languages: NAME.md and NAME.zh-CN.md.
pub(super) const PAGES: [&str; 4] = ["README", "docs/how-it-works", "docs/reconcile", "docs/reference"];

/// What stands under a page's title, in English and in Chinese.
fn languages(page: &str) -> [String; 2] {
    let name = page.rsplit('/').next().unwrap();
    [
        format!("\n\nEnglish | [简体中文]({name}.zh-CN.md)\n\n"),
        format!("\n\n[English]({name}.md) | 简体中文\n\n"),
    ]
}

/// The files of a page, in English and in Chinese.
pub(super) fn files(page: &str) -> [String; 2] {
    [format!("{page}.md"), format!("{page}.zh-CN.md")]
}

/// A page in one language.
struct Side {
    file: String,
    headings: Vec<String>,
    chinese: bool,
}

/// Under these headings a table's first column is words; in all other tables it is names, and they stay as they are.
const WORDS_FIRST: [&str; 7] = [
    "Before and after",
    "How it works",
    "Read on",
    "What the row should be",
    "What reconcile makes of a row",
    "Files on disk",
    "What each kind of volume survives",
];

/// A month has a name in English, and a figure in Chinese.
const MONTHS: &str = "January February March April May June July August September October November December";

enum Block<'a> {
    Heading(usize, &'a str),
    /// With both fences.
    Code(Vec<&'a str>),
    Table(Vec<&'a str>),
    List(Vec<String>),
    Paragraph(String),
}

impl Block<'_> {
    fn begins(&self) -> String {
        match self {
            Block::Heading(level, text) => format!("a heading of level {level}: {text}"),
            Block::Code(lines) => format!("code: {}", lines[1]),
            Block::Table(rows) => format!("a table: {}", rows[0]),
            Block::List(items) => format!("a list: {}", items[0]),
            Block::Paragraph(text) => format!("a paragraph: {text}"),
        }
    }
}

/// A document's parts, in their order.
fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut lines = text.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let mut block = vec![line];
        if line.starts_with("```") {
            for line in lines.by_ref() {
                block.push(line);
                if line == "```" {
                    break;
                }
            }
            found.push(Block::Code(block));
        } else if let Some(heading) = line.split_once(' ').filter(|(hashes, _)| hashes.starts_with('#')) {
            found.push(Block::Heading(heading.0.len(), heading.1));
        } else if !line.is_empty() {
            let ends = |line: &&str| line.is_empty() || line.starts_with("```") || line.starts_with('#');
            while let Some(line) =
                lines.next_if(|line| !ends(line) && line.starts_with('|') == block[0].starts_with('|'))
            {
                block.push(line);
            }
            found.push(match line {
                _ if line.starts_with('|') => Block::Table(block),
                _ if line.starts_with("- ") => {
                    let items = format!("\n{}", block.join("\n"));
                    Block::List(items.split("\n- ").skip(1).map(str::to_owned).collect())
                }
                _ => Block::Paragraph(block.join("\n")),
            });
        }
    }
    found
}

/// A row's cells; `\|` is text within one.
pub(super) fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|').replace("\\|", "\u{0}");
    let row = row.strip_suffix('|').unwrap_or(&row);
    row.split('|').map(|cell| cell.trim().replace('\u{0}', "\\|")).collect()
}

/// A link, so that it reads the same in both languages: to a page that is there in both it has to lead to the one in the
/// text's own language, and a heading counts by its place.
fn link_of(link: &str, side: &Side) -> String {
    let (file, anchor) = target(&side.file, link);
    let Some(page) = PAGES.into_iter().find(|page| files(page).contains(&file)) else {
        return link.to_owned();
    };
    if file != files(page)[usize::from(side.chinese)] {
        return format!("{link}, which is in the other language");
    }
    let (name, headings) =
        if file == side.file { ("", side.headings.clone()) } else { (page, headings(&file)) };
    let Some(anchor) = anchor else { return name.to_owned() };
    match headings.iter().position(|heading| slug(heading) == anchor) {
        Some(at) => format!("{name}#{at}"),
        None => format!("{name}#{anchor}, which is no heading's"),
    }
}

/// What must be the same in both languages, wherever in the sentence it stands: code, links, figures.
fn facts(text: &str, side: &Side) -> Vec<String> {
    let mut found: Vec<String> = spans(text).map(|span| format!("`{span}`")).collect();
    let words: String = text.split('`').step_by(2).collect::<Vec<_>>().join("` `");
    let mut rest = words.split("](");
    let mut words = rest.next().unwrap_or_default().to_owned();
    for link in rest {
        let (target, after) = link.split_once(')').unwrap_or((link, ""));
        found.push(format!("]({})", link_of(target, side)));
        words.push_str(after);
    }
    for (at, month) in MONTHS.split(' ').enumerate() {
        words = words.replace(month, &(at + 1).to_string());
    }
    let figures =
        words.split(|c: char| !c.is_ascii_digit() && c != '.').map(|figure| figure.trim_matches('.'));
    found.extend(figures.filter(|figure| !figure.is_empty()).map(str::to_owned));
    found.sort();
    found
}

pub(super) fn is_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

/// Whether the English has something to translate: two words in a row that are not code.
fn has_words(text: &str) -> bool {
    text.split('`').step_by(2).any(|words| {
        let words: Vec<bool> = words
            .split_whitespace()
            .map(|word| {
                word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase() || ".,:;?'".contains(c))
            })
            .collect();
        words.windows(2).any(|pair| pair[0] && pair[1])
    })
}

/// A console's line: the command, or what was printed; and the comment behind it, which is translated.
fn command(line: &str) -> (&str, Option<&str>) {
    line.split_once(" # ")
        .map_or((line.trim_end(), None), |(command, comment)| (command.trim_end(), Some(comment)))
}

/// Two pieces that say the same, as far as can be told: or why not.
fn same(english: &str, chinese: &str, sides: &[Side; 2]) -> Result<(), String> {
    let facts = [facts(english, &sides[0]), facts(chinese, &sides[1])];
    if facts[0] != facts[1] {
        let only = |a: &[String], b: &[String]| {
            let mut rest = b.to_vec();
            let missing = a.iter().filter(|fact| match rest.iter().position(|other| other == *fact) {
                Some(at) => {
                    rest.remove(at);
                    false
                }
                None => true,
            });
            missing.cloned().collect::<Vec<_>>().join(" ")
        };
        let only = [only(&facts[0], &facts[1]), only(&facts[1], &facts[0])];
        return Err(format!(
            "only {} has: {}; only {} has: {}\n  {english}\n  {chinese}",
            sides[0].file, only[0], sides[1].file, only[1]
        ));
    }
    if has_words(english) && !is_chinese(chinese) {
        return Err(format!("not translated\n  {english}\n  {chinese}"));
    }
    Ok(())
}

fn same_code(english: &[&str], chinese: &[&str], sides: &[Side; 2]) -> Result<(), String> {
    if english.len() != chinese.len() {
        return Err(format!("{} lines of code, and {}", english.len(), chinese.len()));
    }
    for (one, other) in english.iter().zip(chinese) {
        if english[0] != "```console" {
            if one != other {
                return Err(format!("not the same code: {other}"));
            }
            continue;
        }
        let ((one, comment), (other, translated)) = (command(one), command(other));
        if one != other {
            return Err(format!("not the same command: {other}"));
        }
        match (comment, translated) {
            (None, None) => {}
            (Some(comment), Some(translated)) => {
                same(comment, translated, sides).map_err(|why| format!("comment on {one}: {why}"))?;
            }
            _ => return Err(format!("only one has a comment: {one}")),
        }
    }
    Ok(())
}

fn same_table(
    english: &[&str],
    chinese: &[&str],
    names_first: bool,
    sides: &[Side; 2],
) -> Result<(), String> {
    if english.len() != chinese.len() {
        return Err(format!("{} lines of a table, and {}", english.len(), chinese.len()));
    }
    for (at, (one, other)) in english.iter().zip(chinese).enumerate() {
        let (names, others) = (cells(one), cells(other));
        if names.len() != others.len() {
            return Err(format!("{} cells, and {}: {other}", names.len(), others.len()));
        }
        // Below the head and its rule.
        if at > 1 && names_first && names[0] != others[0] {
            return Err(format!("the row of {:?} is that of {:?}", names[0], others[0]));
        }
        for (cell, translated) in names.iter().zip(&others) {
            same(cell, translated, sides).map_err(|why| format!("row of {}: {why}", others[0]))?;
        }
    }
    Ok(())
}

/// Where a page's Chinese says something else, each with the English that it should say.
fn differences(page: &str, english: &str, chinese: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut texts = [english.to_owned(), chinese.to_owned()];
    for (text, line) in texts.iter_mut().zip(languages(page)) {
        let title = text.find('\n').unwrap_or(text.len());
        if !(text.starts_with("# ") && text[title..].starts_with(&line)) {
            found.push(format!("no languages under the title: {line:?}"));
        }
        *text = text.replacen(&line, "\n\n", 1);
    }
    let [english, chinese] = [blocks(&texts[0]), blocks(&texts[1])];
    let headings = [&english, &chinese].map(|blocks| {
        let of = blocks.iter().filter_map(|block| match block {
            Block::Heading(_, text) => Some((*text).to_owned()),
            _ => None,
        });
        of.collect::<Vec<_>>()
    });
    let [of_english, of_chinese] = headings;
    let [file, translation] = files(page);
    let sides = [
        Side { file, headings: of_english, chinese: false },
        Side { file: translation, headings: of_chinese, chinese: true },
    ];

    let mut section = "";
    for (one, other) in english.iter().zip(&chinese) {
        let result = match (one, other) {
            (Block::Heading(level, heading), Block::Heading(other, _)) => {
                section = *heading;
                if level == other { Ok(()) } else { Err(format!("a heading of level {other}, not {level}")) }
            }
            (Block::Code(one), Block::Code(other)) => same_code(one, other, &sides),
            (Block::Table(one), Block::Table(other)) => {
                same_table(one, other, !WORDS_FIRST.contains(&section), &sides)
            }
            (Block::Paragraph(one), Block::Paragraph(other)) => same(one, other, &sides),
            (Block::List(one), Block::List(other)) if one.len() == other.len() => {
                one.iter().zip(other).try_for_each(|(one, other)| same(one, other, &sides))
            }
            (Block::List(one), Block::List(other)) => {
                Err(format!("{} items, and {}", one.len(), other.len()))
            }
            _ => {
                // All that follows would be compared with its neighbour.
                found.push(format!(
                    "{section}: out of step: {} goes on with {}\nand {} with {}",
                    sides[0].file,
                    one.begins(),
                    sides[1].file,
                    other.begins()
                ));
                return found;
            }
        };
        if let Err(why) = result {
            found.push(format!("{section}: {why}"));
        }
    }
    if english.len() != chinese.len() {
        let [one, other] = sides.map(|side| side.file);
        found.push(format!("{one} has {} parts, {other} {}", english.len(), chinese.len()));
    }
    found
}

#[test]
fn a_chinese_page_has_each_part_command_name_figure_and_link_of_the_english_one() {
    for page in PAGES {
        let [english, chinese] = files(page);
        let found = differences(page, &read(&english), &read(&chinese));
        assert!(found.is_empty(), "{chinese} is not {english} in Chinese:\n\n{}", found.join("\n\n"));
    }
}

#[test]
fn no_chinese_page_goes_uncompared() {
    let mut compared = PAGES.map(|page| files(page)[1].clone());
    let mut there: Vec<String> = documents().into_iter().filter(|name| name.contains(".zh-CN.")).collect();
    compared.sort();
    there.sort();
    assert_eq!(there, compared);
}

/// A document with one of each, the first in English.
const SAMPLES: [&str; 2] = [
    r##"# signoff

English | [简体中文](README.zh-CN.md)

It waits for 35 s, see [below](#exit-codes) and [install](docs/install.md#the-image), with `--grace`, since May 2024.
More is in [reference](docs/reference.md#exit-codes).

```console
$ signoff agent        # at most 40 s
$ signoff queue list   # what is left
printed
```

```text
AS PROMISED
```

## How it works

| when | who |
|---|---|
| at the end | the agent |

## Exit codes

| code | meaning |
|---|---|
| 74 | it is done |
| 75 | left `queued` |

- one item with `--listen`
- and another item
"##,
    r##"# signoff

[English](README.md) | 简体中文

它等待 35 秒，带 `--grace`，见[下文](#退出码)和[安装](docs/install.md#the-image)，始于 2024 年 5 月。
另见[参考](docs/reference.zh-CN.md#退出码)。

```console
$ signoff agent        # 至多 40 秒
$ signoff queue list   # 还剩什么
printed
```

```text
AS PROMISED
```

## 为什么

| 何时 | 由谁 |
|---|---|
| 最后 | agent 程序 |

## 退出码

| 退出码 | 含义 |
|---|---|
| 74 | 已完成 |
| 75 | 仍在 `queued` |

- 一项，带 `--listen`
- 另一项
"##,
];

#[test]
fn each_kind_of_difference_is_noticed() {
    let [english, chinese] = SAMPLES;
    assert_eq!(differences("README", english, chinese), Vec::<String>::new());
    let planted = [
        ("\n## 退出码\n", "\n### 退出码\n", "a heading of level"),
        ("\n## 退出码\n", "\n", "out of step"),
        ("\n## 退出码\n", "\n## 退出码\n\n一段。\n", "out of step"),
        ("- 另一项\n", "- 另一项\n\n一段。\n", "parts"),
        ("queue list ", "queue flush ", "not the same command"),
        ("\nprinted", "\ntold", "not the same command"),
        ("\nprinted", "", "lines of code"),
        ("   # 还剩什么", "", "only one has a comment"),
        ("40 秒", "30 秒", "comment on $ signoff agent: only README.md has: 40"),
        ("还剩什么", "what is left", "comment on $ signoff queue list: not translated"),
        ("AS PROMISED", "AS EVER", "not the same code"),
        ("```text", "```yaml", "not the same code"),
        ("| 最后 | agent 程序 |", "| 最后 | agent | 程序 |", "cells"),
        ("| 74 |", "| 73 |", "the row of"),
        ("| 74 | 已完成 |\n| 75 | 仍在 `queued` |", "| 75 | 仍在 `queued` |\n| 74 | 已完成 |", "the row of"),
        ("| 74 | 已完成 |\n", "", "lines of a table"),
        ("已完成", "it is done", "not translated"),
        ("仍在 `queued`", "仍在 `done`", "only README.md has: `queued`"),
        ("#the-image", "#closed-networks", "only README.md has: ](docs/install.md#the-image)"),
        ("[安装](docs/install.md#the-image)", "安装", "only README.md has"),
        ("#退出码", "#为什么", "only README.md has: ](#2)"),
        ("#退出码", "#exit-codes", "which is no heading's"),
        ("reference.zh-CN.md#退出码", "reference.md#exit-codes", "which is in the other language"),
        ("reference.zh-CN.md#退出码", "reference.zh-CN.md#指标", "only README.md has: ](docs/reference#"),
        ("reference.zh-CN.md#退出码", "reference.zh-CN.md#exit-codes", "which is no heading's"),
        ("35 秒", "30 秒", "only README.md has: 35"),
        ("5 月", "6 月", "only README.md has: 5"),
        ("`--grace`", "`--spool`", "only README.md has: `--grace`"),
        ("- 另一项", "另一项", "items"),
        ("`--listen`", "`--hook-listen`", "only README.md has: `--listen`"),
        ("- 另一项", "- and another item", "not translated"),
        ("[English](README.md) | 简体中文\n\n", "", "no languages under the title"),
        ("(README.md)", "(docs/faq.md)", "no languages under the title"),
    ];
    for (from, to, noticed) in planted {
        let fault = chinese.replacen(from, to, 1);
        assert_ne!(fault, chinese, "{from:?}");
        let found = differences("README", english, &fault);
        assert!(found.iter().any(|found| found.contains(noticed)), "{from:?} as {to:?}: {found:#?}");
    }
    let found = differences("README", &english.replacen(&languages("README")[0], "\n\n", 1), chinese);
    assert!(found[0].contains("no languages under the title"), "{found:#?}");
}

/// A line's end is a space when it is shown; behind these nobody sees it.
#[test]
fn no_line_of_a_chinese_page_ends_within_a_clause() {
    let mut ends = 0;
    for page in PAGES {
        let text = read(&files(page)[1]);
        let parts = blocks(&text).into_iter().flat_map(|block| match block {
            Block::Paragraph(text) => vec![text],
            Block::List(items) => items,
            _ => Vec::new(),
        });
        for part in parts {
            let lines: Vec<&str> = part.lines().collect();
            for line in &lines[..lines.len() - 1] {
                let clause = line.trim_end_matches('*').ends_with(['。', '，', '；', '：', '、', '）']);
                assert!(clause, "{page}: {line}");
                ends += 1;
            }
        }
    }
    assert!(ends > 20, "{ends}");
}
