//! Small stores on the simulated disk, with what was told to their actors: for tests that look at
//! a store from outside.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use annals::disk::sim::SimDisk;
use annals::error::Error;
use annals::rkyv::{self, Archive, Deserialize, Serialize};
use annals::{
    Actor, ActorOptions, Durability, Handle, Seq, SnapshotPolicy, Store, StoreOptions, Turn, View,
};

use crate::support::{disk, snapshot};

/// Keeps what it was told, in order.
#[derive(Default, Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
pub(crate) struct Notes(pub Vec<u64>);

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
pub(crate) struct Noted {
    pub note: u64,
    filling: Vec<u8>,
}

impl Actor for Notes {
    type Event = Noted;
    const KIND: &'static str = "notes";
    fn apply(&mut self, event: &Noted) {
        self.0.push(event.note);
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::every(2))
    }
}

/// A note, and how large the event is to be; at `Process` or at `Power`.
pub(crate) struct Note(pub u64, pub usize, pub Durability);
pub(crate) struct Get;

impl Handle<Note> for Notes {
    type Reply = usize;
    fn handle(Note(note, bytes, durability): Note, turn: &mut Turn<'_, Self>) -> usize {
        turn.durability(durability);
        turn.emit(Noted { note, filling: vec![7; bytes] });
        turn.0.len()
    }
}

impl Handle<Get> for Notes {
    type Reply = Vec<u64>;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Vec<u64> {
        turn.0.clone()
    }
}

pub(crate) const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A store of tiny files.
pub(crate) fn options(disk: &SimDisk) -> StoreOptions {
    Store::options()
        .disk(disk.handle())
        .threads(false)
        .ring_bytes(16 << 10)
        .segment_bytes(8 << 10, 16 << 10)
        .frame_bytes_max(4 << 10)
        .snapshot_bytes_max(4 << 10)
        .workers(std::num::NonZeroUsize::MIN)
}

/// What was told, by name.
pub(crate) type Told = BTreeMap<&'static str, Vec<u64>>;

/// Tells somebody something.
pub(crate) fn tell(store: &Store, told: &mut Told, note: u64, durability: Durability) {
    let name = NAMES[usize::try_from(note % 4).unwrap()];
    let bytes = [40, 900, 200, 1_800, 0][usize::try_from(note % 5).unwrap()];
    store.actor::<Notes>(name).unwrap().ask(Note(note, bytes, durability)).unwrap();
    told.entry(name).or_default().push(note);
}

/// How a store was left.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Closed,
    Killed,
}

/// A store of several lives and many segments, with what was told, and older copies of its files.
pub(crate) fn filled(left: Left) -> (SimDisk, Told, Vec<(PathBuf, Vec<u8>)>) {
    let mut disk = disk(1);
    let mut told = Told::new();
    let mut stale = Vec::new();
    let mut note = 0;
    for life in 1..=4 {
        let store = options(&disk).open("/store").unwrap();
        for step in 0..12 {
            note += 1;
            tell(&store, &mut told, note, Durability::Power);
            if step == 6 {
                stale.extend(snapshot(&disk));
            }
        }
        store.log().keep();
        store.log().prepare_ahead();
        let next = if life % 2 == 1 || left == Left::Closed {
            let _report = store.close(Duration::from_secs(10)).unwrap();
            disk.kill()
        } else {
            let next = disk.kill();
            drop(store);
            next
        };
        disk = next;
    }
    (disk, told, stale)
}

/// The notes of everybody, as a view reads them; and how much of it was bad.
pub(crate) fn seen(view: &View) -> (BTreeMap<String, Vec<u64>>, usize) {
    let mut all = BTreeMap::new();
    let mut bad = 0;
    for name in NAMES {
        let mut notes = Vec::new();
        let found = view
            .history("notes", name, Seq::ZERO, &mut |event| {
                notes.push(note_of(event.bytes));
                ControlFlow::Continue(())
            })
            .unwrap();
        bad += found.len();
        if !notes.is_empty() {
            all.insert(name.to_owned(), notes);
        }
    }
    (all, bad)
}

/// The note in an archived event.
pub(crate) fn note_of(bytes: &[u8]) -> u64 {
    let mut aligned = rkyv::util::AlignedVec::<16>::new();
    aligned.extend_from_slice(bytes);
    let noted = rkyv::access::<ArchivedNoted, rkyv::rancor::Error>(&aligned);
    noted.unwrap().note.to_native()
}

/// Everybody's notes, as a store that is opened has them; an error for who cannot be loaded.
pub(crate) fn loaded(store: &Store) -> BTreeMap<&'static str, Result<Vec<u64>, Error>> {
    let get = |name| store.actor::<Notes>(name).unwrap().ask(Get).map_err(Error::from);
    NAMES.into_iter().map(|name| (name, get(name))).collect()
}

/// Opens, and compares all with what was told.
pub(crate) fn check_whole(disk: &SimDisk, path: &Path, told: &Told) {
    let store = options(disk).open(path).unwrap();
    for (name, notes) in loaded(&store) {
        let expected = told.get(name).cloned().unwrap_or_default();
        assert_eq!(notes.unwrap(), expected, "{name}");
    }
    let _report = store.close(Duration::from_secs(10)).unwrap();
}
