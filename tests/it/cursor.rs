//! Cursors: what was saved is found again, and never points at what a crash took back.

use std::collections::BTreeMap;
use std::time::Duration;

use annals::disk::sim::Random;
use annals::error::{Error, StreamError};
use annals::{Begin, Filter, Position, Store};

use crate::stream::{Seen, Writer, options, read, rest, seen};
use crate::support::{Replay, disk, scaled, seeds};

const NOW: Duration = Duration::ZERO;

fn saved(store: &Store, name: &str) -> Option<Position> {
    store.cursor(name).unwrap().position()
}

#[test]
fn cursors_are_listed_set_deleted_and_found_again() {
    let disk = disk(1);
    let store = options(&disk).open("/store").unwrap();
    let mut writer = Writer::default();
    for _ in 0..9 {
        writer.turn(&store, ("kind", "a"), 2, &[]);
    }
    let at = |number: usize| writer.all[number].position;
    assert_eq!(store.cursors().unwrap(), BTreeMap::new());
    assert_eq!(store.cursor_floor().unwrap(), None);
    let (mail, bill) = (store.cursor("mail").unwrap(), store.cursor("bill").unwrap());
    assert_eq!(mail.position(), None);
    assert!(!store.delete_cursor("mail").unwrap(), "it is not there yet");
    mail.save(at(5)).unwrap();
    bill.save(at(3)).unwrap();
    // Two owners of one name are one cursor.
    store.cursor("mail").unwrap().save(at(7)).unwrap();
    assert_eq!(mail.position(), Some(at(7)));
    let both = BTreeMap::from([("bill".to_owned(), at(3)), ("mail".to_owned(), at(7))]);
    assert_eq!(store.cursors().unwrap(), both);
    let _closed = store.close(Duration::from_secs(9)).unwrap();
    let disk = disk.kill();
    let store = options(&disk).open("/store").unwrap();
    assert_eq!(store.cursors().unwrap(), both);
    assert_eq!(store.cursor_floor().unwrap(), Some(at(3)));
    assert!(store.delete_cursor("bill").unwrap());
    assert_eq!(store.cursors().unwrap().len(), 1);
    assert_eq!(store.cursor_floor().unwrap(), Some(at(3)), "a power cut may bring it back");
    store.sync().unwrap();
    assert_eq!(store.cursor_floor().unwrap(), Some(at(7)));
    let _closed = store.close(Duration::from_secs(9)).unwrap();
    let disk = disk.kill();
    let store = options(&disk).open("/store").unwrap();
    assert_eq!((saved(&store, "bill"), saved(&store, "mail")), (None, Some(at(7))));
    // And back again, also backwards.
    store.cursor("bill").unwrap().save(at(1)).unwrap();
    store.cursor("mail").unwrap().save(at(2)).unwrap();
    assert_eq!(store.cursor_floor().unwrap(), Some(at(1)));
    assert_eq!((saved(&store, "bill"), saved(&store, "mail")), (Some(at(1)), Some(at(2))));
    // Subscribers see nothing of all that.
    assert_eq!(read(&store, &Filter::all(), Begin::First), writer.all);
    assert_eq!(store.totals().unwrap().streams, 1, "an actor; cursors are no actors");
}

#[test]
fn a_cursor_is_not_set_behind_the_end_and_has_a_name() {
    let disk = disk(1);
    let store = options(&disk).open("/store").unwrap();
    let mut writer = Writer::default();
    writer.turn(&store, ("kind", "a"), 2, &[]);
    let cursor = store.cursor("c").unwrap();
    let ahead = Position::new(store.log().written() + 16, 0);
    assert!(matches!(cursor.save(ahead), Err(StreamError::Ahead { .. })));
    assert_eq!(cursor.position(), None);
    cursor.save(Position::new(store.log().written(), 0)).unwrap();
    for bad in ["", &"x".repeat(65_536)] {
        let error = store.cursor(bad).map(drop).unwrap_err();
        assert!(matches!(error, Error::Stream(StreamError::BadName)), "{error}");
    }
    let mut stream = store.subscribe(Filter::all(), Begin::First).unwrap();
    assert!(matches!(stream.ack(), Err(StreamError::NoCursor)));
}

/// An acknowledgement is a frame, which wakes the subscriber who has nothing to acknowledge then.
#[test]
fn acknowledgements_are_gathered_and_make_no_more_of_themselves() {
    let disk = disk(1);
    let store = options(&disk).open("/store").unwrap();
    let mut writer = Writer::default();
    for _ in 0..200 {
        writer.turn(&store, ("kind", "a"), 2, &[]);
    }
    store.sync().unwrap();
    let cursor = store.cursor("c").unwrap();
    let mut stream = store.resume(Filter::all(), &cursor).unwrap();
    let frames = store.stats().log.frames;
    let mut count = 0;
    while stream.next(NOW).unwrap().is_some() {
        stream.ack().unwrap();
        count += 1;
    }
    assert_eq!(count, 400);
    // Time stands still in this store: the name, the first, and the last before the wait.
    assert_eq!(store.stats().log.frames - frames, 3);
    assert!(cursor.position().unwrap() > writer.all[399].position);
    for _ in 0..10 {
        store.sync().unwrap();
        assert!(stream.next(NOW).unwrap().is_none());
        stream.ack().unwrap();
    }
    assert_eq!(store.stats().log.frames - frames, 3, "nothing has happened since");
    // What was acknowledged is saved at the latest when the subscription goes.
    writer.turn(&store, ("kind", "a"), 1, &[]);
    store.sync().unwrap();
    assert!(stream.next(NOW).unwrap().is_some());
    stream.ack().unwrap();
    drop(stream);
    assert_eq!(rest(&mut store.resume(Filter::all(), &cursor).unwrap()), []);
}

/// What is found of one cursor after a crash: a position that was saved, the last one that was
/// promised or a later one, from which exactly what follows comes again.
#[test]
fn after_any_crash_what_follows_the_last_saved_position_comes_again_and_nothing_before() {
    let states = scaled(6);
    for seed in seeds(12) {
        let _replay = Replay(seed);
        let mut random = Random::new(seed);
        let mut disk = disk(seed);
        let mut writer = Writer::default();
        // What was handed out of what is durable, which no crash takes back.
        let mut learned: Vec<Seen> = Vec::new();
        for _ in 0..4 {
            let store = options(&disk).open("/store").unwrap();
            // What the crash took back, if it did.
            writer = Writer::found(&store, writer);
            assert!(learned.iter().all(|it| writer.all.contains(it)), "what was learned is there");
            let cursor = store.cursor("c").unwrap();
            let mut stream = store.resume(Filter::all(), &cursor).unwrap();
            // Positions that were saved in this life, with the marks that cover them.
            let mut saves = vec![(0, cursor.position())];
            for _ in 0..25 {
                match random.below(6) {
                    0..3 => writer.random(&store, &mut random),
                    3 => store.sync().unwrap(),
                    _ => {
                        for _ in 0..random.below(4) {
                            learned.extend(stream.next(NOW).unwrap().as_ref().map(seen));
                        }
                        let mark = cursor.save(stream.position()).unwrap();
                        saves.push((mark.get(), Some(stream.position())));
                    }
                }
                let durable = store.log().durable();
                let floor = store.cursor_floor().unwrap();
                let promised = saves.iter().rposition(|(mark, _)| *mark <= durable).unwrap();
                let seed = random.bits();
                let cuts = disk.power_cuts_by((0..states).map(|number| seed + number));
                for (cut, disk) in cuts {
                    let after = options(&disk).open("/store").unwrap();
                    let found = saved(&after, "c");
                    let which = saves[promised..].iter().any(|(_, saved)| *saved == found);
                    assert!(which, "cut {cut}: {found:?} of {:?}", &saves[promised..]);
                    assert!(floor <= found || found.is_none(), "cut {cut}: {floor:?}, {found:?}");
                    assert!(found.is_some() || floor.is_none_or(|_| saves[promised].1.is_none()));
                    let all = read(&after, &Filter::all(), Begin::First);
                    assert_eq!(all, writer.all[..all.len()], "cut {cut}");
                    let from = found.unwrap_or_default();
                    let behind: Vec<Seen> =
                        all.iter().filter(|it| it.position >= from).cloned().collect();
                    let cursor = after.cursor("c").unwrap();
                    let mut again = after.resume(Filter::all(), &cursor).unwrap();
                    assert_eq!(rest(&mut again), behind, "cut {cut}");
                    // Whatever was handled is before it or comes again.
                    assert!(learned.iter().all(|it| all.contains(it)), "cut {cut}");
                }
            }
            let next = match random.below(2) {
                0 => disk.kill(),
                _ => disk.power_cut(random.bits()),
            };
            drop((stream, store));
            disk = next;
        }
    }
}
