//! What the documents say is what the code does.

use bootward::policy::TABLE;

const README: &str = include_str!("../../README.md");
const OPEN: &str = "<!-- decision-table -->";
const CLOSE: &str = "<!-- /decision-table -->";

/// The cells of a Markdown table's row. A `\\|` inside a cell is a bar.
fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().strip_prefix('|').and_then(|rest| rest.strip_suffix('|')).expect(line);
    inner.replace("\\|", "\0").split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

#[test]
fn the_readme_shows_the_decision_table() {
    assert_eq!(README.matches(OPEN).count(), 1, "README.md has {OPEN} once");
    let (_, after) = README.split_once(OPEN).unwrap();
    let (table, _) = after.split_once(CLOSE).expect("README.md closes the table with its marker");
    let rows: Vec<_> = table.lines().filter(|line| !line.trim().is_empty()).map(cells).collect();

    assert_eq!(rows[0], ["rule", "when", "then"]);
    assert!(rows[1].iter().all(|cell| cell.trim_matches(':').chars().all(|c| c == '-')), "{:?}", rows[1]);
    let stated: Vec<Vec<String>> = (1..)
        .zip(TABLE)
        .map(|(rule, (when, then))| vec![rule.to_string(), when.to_string(), then.to_string()])
        .collect();
    assert_eq!(rows[2..], stated, "README.md and policy::TABLE differ");
}
