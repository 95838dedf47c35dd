//! Feeds: what happens to a kind of actor, decoded, and old events as what they have become.

use std::collections::BTreeMap;

use annals::log::frame::{Batch, RecordKind};
use annals::log::name;
use annals::{Begin, Filter, Retain, Seq, StreamId};

use crate::noted::{self, Notes};
use crate::stream::{NOW, aged, options};
use crate::support::disk;

/// Events come decoded; those of an old version as what they have become.
#[test]
fn a_feed_decodes_what_happens_to_a_kind() {
    let (_disk, options) = aged(Retain::All);
    let store = options.open("/store").unwrap();
    let mut feed = store.feed::<Notes>(Begin::First).unwrap();
    let mut notes = BTreeMap::<String, Vec<u64>>::new();
    while let Some(told) = feed.next(NOW).unwrap() {
        let annals::Change::Event(noted) = told.what else { panic!("nobody went back") };
        notes.entry(told.name.to_string()).or_default().push(noted.note);
    }
    for (name, expected) in noted::loaded(&store) {
        assert_eq!(notes.remove(name), Some(expected.unwrap()), "{name}");
    }
    let mut all = store.subscribe(Filter::all(), Begin::First).unwrap();
    let found = all.next(NOW).unwrap().unwrap();
    assert!(found.decode::<Newer>().is_err(), "of another kind");
}

/// Another kind.
#[derive(Default)]
struct Newer;

impl annals::Actor for Newer {
    type Event = u64;
    const KIND: &'static str = "newer";
    const VERSION: u16 = 2;
    fn apply(&mut self, _: &u64) {}
    fn upcast(
        old: annals::actor::Old<'_>,
        out: &mut Vec<u64>,
    ) -> Result<(), annals::actor::Unreadable> {
        let number: u64 = old.read()?;
        out.extend((0..number).map(|_| number));
        Ok(())
    }
}

/// Old events become several, or none; the position stands behind all of them or before.
#[test]
fn an_old_event_comes_as_what_it_has_become_and_is_acknowledged_as_a_whole() {
    use annals::Value as _;
    let disk = disk(1);
    let store = options(&disk).open("/store").unwrap();
    let mut batch = Batch::new();
    batch.push(RecordKind::Name, 1, &name::encode("newer", "a").unwrap()).unwrap();
    for number in [2_u64, 0, 3] {
        let pushed = batch.push_with(RecordKind::Event, 1, 8, |buffer| {
            number.encode(buffer).unwrap();
            Ok(())
        });
        pushed.unwrap();
    }
    let stream = StreamId::of("newer", "a");
    let lsn = store.log().append(&mut batch, stream, Seq::new(1).unwrap()).unwrap().lsn.get();
    store.sync().unwrap();
    let mut feed = store.feed::<Newer>(Begin::First).unwrap();
    let mut found = Vec::new();
    while let Some(told) = feed.next(NOW).unwrap() {
        let annals::Change::Event(number) = told.what else { panic!("an event") };
        found.push((told.seq.get(), number, feed.position().index()));
    }
    assert_eq!(found, [(1, 2, 1), (1, 2, 2), (3, 3, 3), (3, 3, 3), (3, 3, 4)]);
    assert!(feed.position().lsn() > lsn, "behind the frame");
}
