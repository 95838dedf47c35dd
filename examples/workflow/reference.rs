//! The same rules once more, written apart from the actor: a plain fold over the file's lines.
//!
//! Shares no code with `case` and `csv`. It has no stages and no counters: it keeps the names of
//! what was accepted so far and asks that list. What the store ends with must equal this.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// What is known of a case at the end, in the file's own words.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Accepted activities, in order, with their times as written in the file.
    pub(crate) accepted: Vec<(String, String)>,
    /// How often each reason was given.
    pub(crate) refused: BTreeMap<&'static str, u32>,
    /// Last value of each laboratory test.
    pub(crate) values: BTreeMap<String, f32>,
}

impl Outcome {
    pub(crate) fn count(&self, activity: &str) -> usize {
        self.accepted.iter().filter(|(name, _)| name == activity).count()
    }

    fn has(&self, prefix: &str) -> bool {
        self.accepted.iter().any(|(name, _)| name.starts_with(prefix))
    }

    /// The reason to refuse, if there is one.
    fn objection(&self, activity: &str, value: &str) -> Option<&'static str> {
        if !self.has("ER Registration") && activity != "ER Registration" {
            return Some("not registered");
        }
        if activity == "Return ER" {
            let released = self.has("Release");
            let returned = self.has("Return ER");
            return if returned {
                Some("done before")
            } else {
                (!released).then_some("not released")
            };
        }
        if self.has("Release") {
            return Some("after release");
        }
        if activity.starts_with("ER ") && self.has(activity) {
            return Some("done before");
        }
        let needed = match activity.split(' ').next().unwrap_or_default() {
            "Release" => "Admission",
            "Admission" | "IV" => "ER Sepsis Triage",
            _ if activity == "ER Sepsis Triage" => "ER Triage",
            _ => "",
        };
        if !self.has(needed) && !needed.is_empty() {
            return Some("too early");
        }
        let test = ["CRP", "Leucocytes", "LacticAcid"].contains(&activity);
        (test && value.is_empty()).then_some("no value")
    }
}

/// Every case's outcome by its name.
pub(crate) fn outcomes(path: &Path) -> io::Result<BTreeMap<String, Outcome>> {
    let text = fs::read_to_string(path)?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(';').collect();
    let column = |name: &str| names.iter().position(|other| *other == name).unwrap_or(usize::MAX);
    let (case, activity) = (column("Case ID"), column("Activity"));
    let time = column("Complete Timestamp");
    let field = |line: &[&str], column: usize| (*line.get(column).unwrap_or(&"")).to_owned();

    let mut table: Vec<Vec<&str>> = lines.map(|line| line.split(';').collect()).collect();
    // The way times are written, they sort as text. Stable, so the file decides between equals.
    table.sort_by_key(|line| field(line, time));
    let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
    for line in &table {
        let outcome = outcomes.entry(field(line, case)).or_default();
        let done = field(line, activity);
        let value = field(line, column(&done));
        if let Some(reason) = outcome.objection(&done, &value) {
            *outcome.refused.entry(reason).or_default() += 1;
            continue;
        }
        if let Ok(value) = value.parse() {
            outcome.values.insert(done.clone(), value);
        }
        outcome.accepted.push((done, field(line, time)));
    }
    Ok(outcomes)
}
