//! The tables of `docs/observe.md`, as the tests read them.

use std::collections::BTreeMap;

/// A row: its first cell is the name of the thing.
pub(crate) type Rows = BTreeMap<String, Vec<String>>;

/// The rows of the table below the heading `heading`, without backticks.
pub(crate) fn rows(heading: &str) -> Rows {
    let document = include_str!("../../docs/observe.md");
    let (_, below) = document.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let below = below.split("\n## ").next().unwrap_or_default();
    let mut rows = Rows::new();
    for line in below.lines().filter(|line| line.starts_with("| `")) {
        let cells = line.trim_matches('|').split(" | ");
        let mut cells = cells.map(|cell| cell.trim().replace('`', ""));
        let name = cells.next().expect("a name");
        let before = rows.insert(name.clone(), cells.collect());
        assert_eq!(before, None, "{name} is there twice");
    }
    assert!(rows.len() > 10, "{heading}: {}", rows.len());
    rows
}

/// A cell that is a list.
pub(crate) fn list(cell: &str) -> Vec<&str> {
    cell.split(", ").filter(|name| !name.is_empty()).collect()
}
