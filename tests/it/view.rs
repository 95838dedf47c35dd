//! Looking at a store that somebody else writes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annals::log::Seen;
use annals::{Durability, LastLife, Store};

use crate::noted::{Left, Note, Notes, Told, filled, options, seen, tell};
use crate::support::{disk, snapshot};

fn as_seen(told: &Told) -> BTreeMap<String, Vec<u64>> {
    told.iter().map(|(name, notes)| ((*name).to_owned(), notes.clone())).collect()
}

#[test]
fn a_view_shows_all_of_a_store_and_writes_nothing() {
    for left in [Left::Closed, Left::Killed] {
        let (disk, told, _) = filled(left);
        let before = snapshot(&disk);
        let view = options(&disk).read_only("/store").unwrap();
        assert_eq!(seen(&view), (as_seen(&told), 0));
        assert_eq!(view.owner(), None);
        let expected = if left == Left::Closed { LastLife::Closed } else { LastLife::Crashed };
        assert_eq!(view.last_life(), expected);
        assert_eq!(view.names(Some("notes")).unwrap().len(), 4);
        let totals = view.totals().unwrap();
        assert_eq!(totals.events, told.values().map(Vec::len).sum::<usize>() as u64);
        assert_eq!(totals.streams, 4);
        let mut snapshots = 0;
        view.snapshots(&mut |info| {
            assert_eq!(info.actor.kind, "notes");
            snapshots += 1;
        })
        .unwrap();
        assert!(snapshots > 0);
        assert_eq!(disk.mutations(), 0, "a view writes nothing");
        assert!(snapshot(&disk) == before);
        let store = options(&disk).open("/store").unwrap();
        assert_eq!(store.totals().unwrap().events, totals.events);
        assert_eq!(options(&disk).read_only("/store").unwrap().owner(), Some("5"));
    }
}

/// Step by step with the writer: through roll overs, and into later lives.
#[test]
fn a_cursor_follows_a_writer_through_segments_and_lives() {
    let mut disk = disk(3);
    let mut told = Told::new();
    let store = options(&disk).open("/store").unwrap();
    let view = options(&disk).read_only("/store").unwrap();
    let mut cursor = view.frames(0);
    let mut store = Some(store);
    let mut notes = Vec::new();
    let mut lives = 0;
    for note in 0..200 {
        if note % 40 == 39 {
            let _report = store.take().unwrap().close(Duration::from_secs(5)).unwrap();
            store = Some(options(&disk).open("/store").unwrap());
        }
        tell(store.as_ref().unwrap(), &mut told, note, Durability::Process);
        if note % 7 == 0 {
            store.as_ref().unwrap().log().keep();
        }
        while let Some(seen) = cursor.next().unwrap() {
            let Seen::Frame(frame) = seen else { panic!("nothing is bad: {seen:?}") };
            let life = frame.header().kind == annals::log::frame::FrameKind::Life;
            lives += usize::from(life);
            let events = frame
                .records()
                .flatten()
                .filter(|record| record.kind == annals::log::frame::RecordKind::Event);
            notes.extend(events.map(|record| crate::noted::note_of(record.payload)));
        }
        assert_eq!(notes, (0..=note).collect::<Vec<_>>(), "at once");
    }
    assert_eq!(lives, 6);
    drop(store);
    disk = disk.kill();
    drop(disk);
}

/// With threads and a real disk: what a view shows was appended, in order, without holes.
#[test]
fn a_view_beside_a_busy_writer_never_shows_what_was_not_appended() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options()
        .segment_bytes(64 << 10, 256 << 10)
        .ring_bytes(64 << 10)
        .frame_bytes_max(8 << 10)
        .snapshot_bytes_max(8 << 10)
        .catalogue(false)
        .open(dir.path())
        .unwrap();
    let (done, appended) = (AtomicBool::new(false), AtomicU64::new(0));
    let total: u64 = 20_000;
    let read = std::thread::scope(|scope| {
        scope.spawn(|| {
            let actor = store.actor::<Notes>("a").unwrap();
            for note in 0..total {
                // Before the call: a view may be faster than the answer.
                appended.store(note + 1, Ordering::SeqCst);
                let level = if note % 64 == 0 { Durability::Power } else { Durability::Process };
                actor.ask(Note(note, usize::try_from(note % 300).unwrap(), level)).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        let view = Store::read_only(dir.path()).unwrap();
        let mut cursor = view.frames(0);
        let mut next = 0;
        loop {
            let ended = done.load(Ordering::SeqCst);
            let mut moved = false;
            while let Some(seen) = cursor.next().unwrap() {
                let Seen::Frame(frame) = seen else { panic!("{seen:?}") };
                moved = true;
                for record in frame.records().flatten() {
                    if record.kind == annals::log::frame::RecordKind::Event {
                        assert_eq!(crate::noted::note_of(record.payload), next);
                        next += 1;
                        assert!(next <= appended.load(Ordering::SeqCst));
                    }
                }
            }
            if next % 1_000 == 0 || !moved {
                let again = Store::read_only(dir.path()).unwrap();
                assert_eq!(again.findings(), [], "a busy store has nothing wrong");
                assert!(again.owner().is_some());
            }
            if ended && !moved {
                break;
            }
        }
        next
    });
    assert_eq!(read, total);
}

/// A log that grew while it was looked at, and faster than that, was reported as cut short: what
/// had become durable since was expected in a look that had begun before.
#[test]
fn a_log_that_grows_faster_than_it_is_looked_at_has_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options()
        .segment_bytes(64 << 10, 256 << 10)
        .ring_bytes(64 << 10)
        .frame_bytes_max(8 << 10)
        .catalogue(false)
        .open(dir.path())
        .unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                let actor = store.actor::<Plain>(name).unwrap();
                while !done.load(Ordering::SeqCst) {
                    actor.ask(Grow).unwrap();
                }
            });
        }
        for _ in 0..8 {
            let view = Store::read_only(dir.path()).unwrap();
            let verified = view.verify(&mut |_| ControlFlow::Continue(())).unwrap();
            let found: Vec<_> = verified.all().filter(|it| it.is_damage()).collect();
            done.store(!found.is_empty(), Ordering::SeqCst);
            assert_eq!(found, Vec::<&annals::Finding>::new());
            assert!(view.durable() <= view.written());
        }
        done.store(true, Ordering::SeqCst);
    });
}

/// Without snapshots: its turns cost next to nothing.
#[derive(Default)]
struct Plain;

#[derive(annals::rkyv::Archive, annals::rkyv::Serialize, annals::rkyv::Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Grown([u8; 32], [u8; 32]);

impl annals::Actor for Plain {
    type Event = Grown;
    const KIND: &'static str = "plain";
    fn apply(&mut self, _: &Grown) {}
}

struct Grow;
impl annals::Handle<Grow> for Plain {
    type Reply = ();
    fn handle(_: Grow, turn: &mut annals::Turn<'_, Self>) {
        turn.durability(Durability::Process);
        (0..20).for_each(|byte| turn.emit(Grown([byte; 32], [byte; 32])));
    }
}
