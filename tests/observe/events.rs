//! The table of events.

use std::collections::{BTreeMap, BTreeSet};

use annals::trace::EVENTS;

use crate::hear::{Heard, heard, listen};
use crate::table::{Rows, list, rows};
use crate::{edges, owed, scenes};

/// What the table says of an event: level, target, fields.
fn said(rows: &Rows, name: &str) -> Option<(String, String, BTreeSet<String>)> {
    let [level, target, fields, _] = &rows.get(name)?[..] else { panic!("{name}: four cells") };
    let fields = list(fields).into_iter().map(str::to_owned).collect();
    Some((level.clone(), target.clone(), fields))
}

#[test]
fn every_event_is_told_as_the_table_says() {
    let rows = rows("Events");
    let known: BTreeSet<&str> = EVENTS.iter().map(|event| event.name).collect();
    let in_table: BTreeSet<&str> = rows.keys().map(String::as_str).collect();
    assert_eq!(known, in_table, "of the library, and of docs/observe.md");
    assert_eq!(known.len(), EVENTS.len(), "a name twice");
    for event in EVENTS {
        let fields = event.fields.iter().map(|field| (*field).to_owned()).collect();
        let level = event.level.to_string().to_lowercase();
        let here = (level, event.target.to_owned(), fields);
        assert_eq!(said(&rows, event.name), Some(here), "{}", event.name);
    }
}

/// Runs every scene, and looks at all that was told.
#[test]
fn every_event_of_the_table_is_told_by_something() {
    listen();
    let rows = rows("Events");
    std::thread::scope(|scope| {
        // By themselves: each has a folder, or a disk, of its own.
        let running: Vec<_> = scenes::ALL
            .iter()
            .chain(&owed::ALL)
            .chain(&edges::ALL)
            .map(|(name, scene)| (name, scope.spawn(scene)))
            .collect();
        let mut failed = Vec::new();
        for (name, scene) in running {
            if scene.join().is_err() {
                failed.push(name);
            }
        }
        assert!(failed.is_empty(), "{failed:?}");
    });
    let heard = heard();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for it in heard.iter().filter(|it| !it.is_span) {
        *counts.entry(it.name).or_default() += 1;
        let Heard { name, level, target, fields, .. } = it;
        let (its_level, its_target, its_fields) =
            said(&rows, name).unwrap_or_else(|| panic!("not in the table: {it:?}"));
        assert_eq!((level.to_string().to_lowercase(), *target), (its_level, &*its_target));
        let found: BTreeSet<String> = fields.keys().map(|field| (*field).to_owned()).collect();
        let mut expected = its_fields;
        expected.insert("message".to_owned());
        assert_eq!(found, expected, "{name}");
        assert_eq!(fields["message"], *name);
    }
    let silent: Vec<_> = rows.keys().filter(|name| !counts.contains_key(&***name)).collect();
    assert!(silent.is_empty(), "told by nothing here: {silent:?}");
    let spans: BTreeSet<_> = heard.iter().filter(|it| it.is_span).map(|it| it.name).collect();
    assert_eq!(spans, BTreeSet::from(["open", "close", "backup", "verify", "repair"]));
    println!("{counts:#?}");
}
