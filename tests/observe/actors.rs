//! The actors of these tests. Each scene has kinds of its own, so that what is told of them can be
//! told apart.

use std::path::PathBuf;

use annals::disk::sim::SimDisk;
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::{Store, StoreOptions};

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
pub(crate) struct Noted {
    pub(crate) padding: Vec<u8>,
}

/// Emits an event of so many bytes.
pub(crate) struct Note(pub(crate) usize);
/// How many there are.
pub(crate) struct Count;
/// Panics.
pub(crate) struct Fall;
/// Lets the state leave memory.
pub(crate) struct Leave;
/// Asks for a snapshot.
pub(crate) struct Save;

/// An actor that counts, of a kind, a version of its events, and options.
macro_rules! kind {
    ($name:ident, $kind:literal, $version:literal, $options:expr) => {
        #[derive(Clone, Debug, Default, Archive, Serialize, Deserialize)]
        #[rkyv(crate = annals::rkyv)]
        struct $name {
            count: u64,
            bytes: Vec<u8>,
        }

        impl Actor for $name {
            type Event = Noted;
            const KIND: &'static str = $kind;
            const VERSION: u16 = $version;
            fn apply(&mut self, event: &Noted) {
                self.count += 1;
                self.bytes.clone_from(&event.padding);
            }
            fn options() -> ActorOptions<Self> {
                $options
            }
        }

        impl Handle<Note> for $name {
            type Reply = u64;
            fn handle(Note(bytes): Note, turn: &mut Turn<'_, Self>) -> u64 {
                turn.emit(Noted { padding: vec![7; bytes] });
                turn.count
            }
        }

        impl Handle<Count> for $name {
            type Reply = u64;
            fn handle(_: Count, turn: &mut Turn<'_, Self>) -> u64 {
                turn.count
            }
        }

        impl Handle<Fall> for $name {
            type Reply = ();
            fn handle(_: Fall, _: &mut Turn<'_, Self>) {
                panic!("it fell, as it was told to");
            }
        }

        impl Handle<Leave> for $name {
            type Reply = ();
            fn handle(_: Leave, turn: &mut Turn<'_, Self>) {
                turn.passivate();
            }
        }

        impl Handle<Save> for $name {
            type Reply = ();
            fn handle(_: Save, turn: &mut Turn<'_, Self>) {
                turn.snapshot();
            }
        }
    };
}
pub(crate) use kind;

/// Options for tiny files, so that little work crosses many borders.
pub(crate) fn small() -> StoreOptions {
    Store::options()
        .ring_bytes(16 << 10)
        .segment_bytes(8 << 10, 16 << 10)
        .frame_bytes_max(4 << 10)
        .snapshot_bytes_max(4 << 10)
        .run_bytes_max(200 << 10)
        .workers(std::num::NonZeroUsize::MIN)
}

/// The same on a simulated disk, without threads of the logs.
pub(crate) fn on(disk: &SimDisk) -> StoreOptions {
    small().disk(disk.handle()).threads(false)
}

/// A simulated disk that keeps no list of calls.
pub(crate) fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.record(false);
    disk
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = annals::time::Clock::System;
    let began = clock.monotonic();
    while !is_so() {
        let waited = clock.monotonic().saturating_sub(began);
        assert!(waited < std::time::Duration::from_mins(1), "still not so: {what}");
        std::thread::yield_now();
    }
}

/// The files in a folder of a simulated disk whose names end so, oldest first.
pub(crate) fn files(disk: &SimDisk, folder: &str, end: &str) -> Vec<PathBuf> {
    let all = disk.list_all().into_iter().map(|(path, _)| path);
    let mut found: Vec<_> = all
        .filter(|path| path.starts_with(folder) && path.to_string_lossy().ends_with(end))
        .collect();
    found.sort();
    found
}
