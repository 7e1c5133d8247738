//! The findings as a table.

use std::fmt::Write;

use crate::agent::socket::{Finding, Verdict, status::one_line};

/// One line a finding, what to do below it, and how many there are of each verdict.
pub(super) fn table(findings: &[Finding]) -> String {
    let width =
        findings.iter().map(|finding| one_line(&finding.name).chars().count()).max().unwrap_or(0).max(5);
    let mut out = format!("{:width$}  {:7}  FOUND\n", "CHECK", "RESULT");
    for Finding { name, verdict, found, todo } in findings {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{:width$}  {:7}  {}", one_line(name), word(*verdict), one_line(found));
        if let Some(todo) = todo {
            let _ = writeln!(out, "{:width$}  {:7}  -> {}", "", "", one_line(todo));
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let _ = writeln!(
        out,
        "\n{} ok, {} warning, {} failed",
        count(Verdict::Ok),
        count(Verdict::Warning),
        count(Verdict::Failed)
    );
    out
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Failed => "failed",
    }
}
