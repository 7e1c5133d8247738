//! The generated tables of docs/reference.md, in Chinese: each of their cells is translated once, in `chinese.txt`, so that a cell
//! that changes has no Chinese, and a test says so.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CHINESE, REFERENCE,
    chinese::{cells, is_chinese},
    folder::headings,
    read, table,
};

/// The headings whose tables are.
const GENERATED: [&str; 5] = [
    "Configuration of the agent",
    "Configuration of reconcile",
    "Exit codes",
    "Metrics",
    "Metrics of reconcile",
];

/// The heading that has this one's place in the Chinese reference.
pub(super) fn heading(english: &str) -> String {
    let headings = [REFERENCE, CHINESE].map(headings);
    let at = headings[0].iter().position(|heading| heading == english).unwrap();
    assert_eq!(headings[0].len(), headings[1].len(), "{CHINESE} has not the headings of {REFERENCE}");
    headings[1][at].clone()
}

/// `tests/docs/chinese.txt`: English cells, and what they are in Chinese.
fn dictionary() -> BTreeMap<String, String> {
    let text = read("tests/docs/chinese.txt");
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut found = BTreeMap::new();
    for pair in lines.chunks(2) {
        let chinese = pair.get(1).and_then(|line| line.strip_prefix("    "));
        let chinese = chinese.unwrap_or_else(|| panic!("chinese.txt: no Chinese under {:?}", pair[0]));
        assert!(!pair[0].starts_with(' ') && is_chinese(chinese), "chinese.txt: {pair:?}");
        let before = found.insert(pair[0].to_owned(), chinese.to_owned());
        assert!(before.is_none(), "chinese.txt: {:?} is there twice", pair[0]);
    }
    found
}

/// A generated table in Chinese, or the cells that `chinese.txt` has not.
fn translated(table: &str, dictionary: &BTreeMap<String, String>) -> Result<String, Vec<String>> {
    let mut missing = Vec::new();
    let mut said = String::new();
    for row in table.lines() {
        if row.starts_with("|---") {
            said += &format!("{row}\n");
            continue;
        }
        let cells = cells(row);
        for (at, cell) in cells.iter().enumerate() {
            let meaning = at + 1 == cells.len();
            let chinese = dictionary.get(cell).unwrap_or_else(|| {
                if meaning || (cell.contains(' ') && !cell.starts_with('`')) {
                    missing.push(cell.clone());
                }
                cell
            });
            said += &format!("| {chinese} ");
        }
        said += "|\n";
    }
    if missing.is_empty() { Ok(said) } else { Err(missing) }
}

/// A generated table as the Chinese reference has it.
pub(super) fn generated(table: &str) -> String {
    translated(table, &dictionary()).unwrap_or_else(|missing| {
        panic!("tests/docs/chinese.txt says not what this is in Chinese:\n{}", missing.join("\n"))
    })
}

#[test]
fn a_cell_of_a_generated_table_that_has_no_chinese_is_noticed() {
    let table = "| flag | default | meaning |\n|---|---|---|\n| `--a on\\|off` | 30s | Done |\n";
    let said = translated(table, &dictionary()).unwrap();
    assert_eq!(said, "| 参数 | 默认值 | 含义 |\n|---|---|---|\n| `--a on\\|off` | 30s | 完成 |\n");
    for (from, to) in [("Done", "Done."), ("30s", "30s, at most")] {
        let missing = translated(&table.replace(from, to), &dictionary()).unwrap_err();
        assert_eq!(missing, [to]);
    }
}

#[test]
fn no_chinese_is_kept_of_a_cell_that_is_gone() {
    let tables = GENERATED.map(table).join("");
    let used: BTreeSet<String> = tables.lines().flat_map(cells).collect();
    let unused: Vec<String> = dictionary().into_keys().filter(|english| !used.contains(english)).collect();
    assert!(unused.is_empty(), "in tests/docs/chinese.txt, and in no generated table: {unused:#?}");
    assert!(used.len() > 100, "{used:?}");
}
