//! Files that are not what they were: every kind of damage to every file, one at a time. Either
//! the open says so and changes nothing, or what was durable is read back, or reading says so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use annals::disk::sim::SimDisk;
use annals::error::{Damage, DamageReason, OpenError, ReadError};
use annals::log::LogOptions;

use crate::support::{
    End, Entry, STREAMS, Track, disk, life, read_stream, read_until, scaled, snapshot, tiny,
};

/// What became of one trial.
#[derive(Copy, Clone, Debug, Default)]
struct Tally {
    trials: u64,
    /// The open was refused.
    refused: u64,
    /// The open went on, and reading met the damage.
    noticed: u64,
    /// Nothing that was durable was touched.
    harmless: u64,
}

/// How the store was left.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Left {
    Closed,
    Killed,
}

/// A log of several lives and many segments, with indexes and spares; and older copies of its
/// files.
fn log(left: Left, options: LogOptions) -> (SimDisk, Track, Vec<(PathBuf, Vec<u8>)>) {
    log_of(42, left, options)
}

fn log_of(id: u64, left: Left, options: LogOptions) -> (SimDisk, Track, Vec<(PathBuf, Vec<u8>)>) {
    let mut disk = disk(1);
    let mut track = Track::new(options, id);
    let mut stale = Vec::new();
    let mut number = 0;
    for lives in 1..=4 {
        track.reopen(&disk, life(lives));
        for step in 0..8 {
            number += 1;
            let bytes = [60, 1_800, 300, 3_600, 10, 900][number % 6];
            track.append(&disk, number as u64 % STREAMS, bytes).unwrap();
            if step == 5 {
                track.wait_last(&disk).unwrap();
                stale.extend(snapshot(&disk));
            }
        }
        let log = track.log.as_ref().unwrap();
        log.keep();
        log.prepare_ahead();
        // The second and the last life end as they are asked to, the others are closed.
        if lives % 2 == 1 || left == Left::Closed {
            track.close(&disk).unwrap();
        } else {
            track.wait_last(&disk).unwrap();
            track.append(&disk, 1, 40).unwrap();
            track.store(&disk).unwrap();
            // In the ring alone.
            for stream in 0..6 {
                track.append(&disk, stream % STREAMS, 200).unwrap();
            }
        }
        let next = disk.kill();
        track.ended(End::Kill);
        disk = next;
    }
    (disk, track, stale)
}

/// Opens and reads a log with a damaged file.
fn trial(disk: &SimDisk, track: &Track, file: &Path, tally: &mut Tally, what: &str) {
    tally.trials += 1;
    let before = snapshot(disk);
    let mut track = track.clone();
    if file.ends_with("ring") {
        // Where the damage reaches to the last frame, nothing is left to speak of those before.
        track.ended(End::PowerCut);
    }
    let opened = catch_unwind(AssertUnwindSafe(|| track.open(disk, life(90))));
    let opened = opened.unwrap_or_else(|_| panic!("{what} made the open panic"));
    match opened {
        Err(OpenError::Damage(damage)) => {
            tally.refused += 1;
            assert!(snapshot(disk) == before, "{what}: refused, and changed something");
            names_a_place(&damage, what);
        }
        Err(other) => panic!("{what}: {other}"),
        Ok(report) => {
            let read = catch_unwind(AssertUnwindSafe(|| read(&track, file, what)));
            let whole = read.unwrap_or_else(|_| panic!("{what}: {report:?}"));
            *(if whole { &mut tally.harmless } else { &mut tally.noticed }) += 1;
        }
    }
}

fn names_a_place(damage: &Damage, what: &str) {
    let ring = damage.file.ends_with("ring");
    assert!(damage.file.starts_with("/store/log") || ring, "{what}: {damage}");
    assert!(damage.lsns.start <= damage.lsns.end, "{what}: {damage}");
}

/// Reads everything; answers whether all that was promised is there.
fn read(track: &Track, file: &Path, what: &str) -> bool {
    let log = track.log.as_ref().unwrap();
    let entries = &track.oracle.entries;
    let (found, error) = read_until(log);
    assert!(entries.starts_with(&found), "{what}: what is read is not what was written");
    match &error {
        None => assert!(found.len() >= track.oracle.process, "{what}: a silent loss"),
        Some(ReadError::Damage(damage)) => {
            assert_eq!(damage.file, file, "{what}");
            let next = entries.get(found.len()).map_or(u64::MAX, |next| next.end);
            assert!(damage.lsns.start < next, "{what}: {damage} is said too late");
        }
        Some(other) => panic!("{what}: {other}"),
    }
    let mut whole = error.is_none();
    for number in 0..STREAMS {
        let expected: Vec<Entry> =
            entries.iter().filter(|entry| entry.stream == number).copied().collect();
        let durable =
            entries[..track.oracle.process].iter().filter(|it| it.stream == number).count();
        match read_stream(log, number) {
            Ok(found) => {
                assert!(expected.starts_with(&found), "{what}: stream {number} is not itself");
                assert!(found.len() >= durable, "{what}: stream {number} is cut in silence");
            }
            Err(ReadError::Damage(damage)) => {
                assert_eq!(damage.file, file, "{what}");
                whole = false;
            }
            Err(other) => panic!("{what}: {other}"),
        }
    }
    whole
}

/// Every damage to every file of `disk`, one at a time.
pub(crate) fn every_damage(
    disk: &SimDisk,
    stale: &[(PathBuf, Vec<u8>)],
    foreign: &SimDisk,
    bits: u64,
    try_it: &mut dyn FnMut(&SimDisk, &Path, &str),
) {
    let files = disk.list_all();
    let bit_step = (bits / scaled(1)).max(1);
    for (path, bytes) in &files {
        let name = path.display();
        for bit in (0..bytes * 8).step_by(usize::try_from(bit_step).unwrap()) {
            let damaged = disk.fork();
            damaged.flip_bit(path, bit / 8, u8::try_from(bit % 8).unwrap()).unwrap();
            try_it(&damaged, path, &format!("{name}: bit {bit} flipped"));
        }
        for sector in 0..bytes.div_ceil(512) {
            let damaged = disk.fork();
            damaged.zero(path, sector * 512..(sector + 1) * 512).unwrap();
            try_it(&damaged, path, &format!("{name}: sector {sector} zeroed"));
            let damaged = disk.fork();
            damaged.truncate(path, sector * 512).unwrap();
            try_it(&damaged, path, &format!("{name}: cut at sector {sector}"));
        }
        for page in 1..bytes / 4_096 {
            let damaged = disk.fork();
            let at = usize::try_from(page * 4_096).unwrap();
            let swap = |bytes: &mut Vec<u8>| {
                // What is durable may be shorter than what is seen.
                if bytes.len() >= at + 4_096 {
                    let (before, after) = bytes.split_at_mut(at);
                    before[at - 4_096..].swap_with_slice(&mut after[..4_096]);
                }
            };
            damaged.damage(path, swap).unwrap();
            try_it(&damaged, path, &format!("{name}: page {page} swapped with the one before"));
        }
        let damaged = disk.fork();
        damaged.delete(path).unwrap();
        try_it(&damaged, path, &format!("{name}: deleted"));
        for (_, old) in stale.iter().filter(|(old, _)| old == path) {
            let damaged = disk.fork();
            damaged.put(path, old.clone()).unwrap();
            try_it(&damaged, path, &format!("{name}: an old copy"));
            let now = disk.copy_bytes(path).unwrap();
            for (page, (now, old)) in now.chunks(4_096).zip(old.chunks(4_096)).enumerate() {
                if now != old && now.len() == old.len() {
                    let damaged = disk.fork();
                    let put = |bytes: &mut Vec<u8>| {
                        let target = bytes.get_mut(page * 4_096..page * 4_096 + old.len());
                        if let Some(target) = target {
                            target.copy_from_slice(old);
                        }
                    };
                    damaged.damage(path, put).unwrap();
                    try_it(&damaged, path, &format!("{name}: an old copy of page {page}"));
                }
            }
        }
        if let Ok(bytes) = foreign.copy_bytes(path) {
            let damaged = disk.fork();
            damaged.put(path, bytes).unwrap();
            try_it(&damaged, path, &format!("{name}: that of another store"));
        }
        for (other, _) in files.iter().filter(|(other, _)| other.extension() == path.extension()) {
            let damaged = disk.fork();
            damaged.put(path, disk.copy_bytes(other).unwrap()).unwrap();
            try_it(&damaged, path, &format!("{name}: a copy of {}", other.display()));
        }
    }
}

#[test]
fn damage_to_any_file_is_noticed_or_harmless_and_never_a_panic() {
    // In the large one a segment holds several lives.
    for (segment_bytes, left) in [8 << 10, 64 << 10]
        .into_iter()
        .flat_map(|bytes| [Left::Closed, Left::Killed].map(|left| (bytes, left)))
    {
        let segments = LogOptions {
            segment_bytes_first: segment_bytes,
            segment_bytes_max: 64 << 10,
            ..tiny(true)
        };
        let (foreign, ..) = log_of(77, left, segments.clone());
        let (disk, track, stale) = log(left, segments);
        let mut tally = Tally::default();
        every_damage(&disk, &stale, &foreign, 401, &mut |damaged, file, what| {
            trial(damaged, &track, file, &mut tally, &format!("{left:?}: {what}"));
        });
        println!("{segment_bytes}, {left:?}: {tally:?}");
        assert!(tally.refused > 0 && tally.noticed > 0 && tally.harmless > 0, "{tally:?}");
    }
}

#[test]
fn a_log_that_can_be_rebuilt_opens_whatever_its_files_are() {
    let (disk, track, stale) = log(Left::Closed, tiny(false));
    let (foreign, ..) = log_of(77, Left::Closed, tiny(false));
    let mut trials = 0;
    every_damage(&disk, &stale, &foreign, 401, &mut |damaged, _, what| {
        let mut track = track.clone();
        track.ended(End::PowerCut);
        let opened = track.open(damaged, life(90));
        opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        let (found, _) = read_until(track.log.as_ref().unwrap());
        assert!(track.oracle.entries.starts_with(&found), "{what}");
        trials += 1;
    });
    println!("{trials} trials");
}

#[test]
fn without_indexes_or_mark_or_ring_a_closed_log_is_the_same() {
    let (disk, track, _) = log(Left::Closed, tiny(true));
    let is = |path: &Path, ending: &str| path.extension().is_some_and(|it| it == ending);
    let derived: [&dyn Fn(&Path) -> bool; 4] = [
        &|path| is(path, "idx"),
        &|path| path.ends_with("mark"),
        &|path| path.ends_with("ring"),
        &|path| !is(path, "seg"),
    ];
    for goes in derived {
        let damaged = disk.fork();
        let mut gone = 0;
        for (path, _) in disk.list_all() {
            if goes(&path) {
                damaged.delete(&path).unwrap();
                gone += 1;
            }
        }
        assert!(gone > 0);
        let mut track = track.clone();
        track.ended(End::Kill);
        let report = track.reopen(&damaged, life(90));
        assert_eq!(report.start, annals::log::Start::Continued);
        assert_eq!(track.oracle.power, track.oracle.entries.len());
    }
}

/// A rebuildable log sets all its files aside, and may crash before the indexes are removed: the
/// next segments have the same bases, and the old indexes were taken for theirs.
#[test]
fn an_index_that_is_left_of_another_segment_is_not_believed() {
    let (first, _, _) = log(Left::Closed, tiny(false));
    let second = disk(2);
    let mut track = Track::new(tiny(false), 42);
    track.open(&second, life(101)).unwrap();
    for number in 0..20 {
        track.append(&second, number % STREAMS, 900).unwrap();
    }
    track.close(&second).unwrap();
    for (path, _) in first.list_all() {
        if path.extension().is_some_and(|ending| ending == "idx") {
            second.put(&path, first.copy_bytes(&path).unwrap()).unwrap();
        }
    }
    let second = second.kill();
    track.ended(End::Kill);
    track.reopen(&second, life(102));
}

/// Without a mark file, frames behind the damage say how far the log had been durable.
#[test]
fn frames_behind_the_damage_are_evidence_of_it() {
    let segments =
        LogOptions { segment_bytes_first: 64 << 10, segment_bytes_max: 64 << 10, ..tiny(true) };
    let disk = disk(1);
    let mut track = Track::new(segments, 42);
    track.reopen(&disk, life(1));
    for _ in 0..20 {
        track.append(&disk, 0, 700).unwrap();
        track.wait_last(&disk).unwrap();
    }
    let disk = disk.kill();
    track.ended(End::Kill);
    let disk = disk.restarted();
    disk.delete("/store/mark".as_ref()).unwrap();
    disk.delete("/store/ring".as_ref()).unwrap();
    let file = Path::new("/store/log/00000000000000000000.seg");
    // Of the last one no frame speaks.
    for entry in &track.oracle.entries[..19] {
        let damaged = disk.fork();
        damaged.flip_bit(file, entry.lsn + 100, 1).unwrap();
        let error = track.clone().open(&damaged, life(2)).unwrap_err();
        assert!(matches!(error, OpenError::Damage(damage) if damage.lsns.start == entry.lsn));
    }
    track.reopen(&disk, life(2));
}

/// The index of a damaged segment is made as far as the damage. Whoever came second found it made,
/// and took it for whole.
#[test]
fn a_stream_in_a_damaged_segment_without_an_index_is_not_cut_in_silence_at_the_second_look() {
    let disk = disk(1);
    let mut track = Track::new(tiny(true), 42);
    track.reopen(&disk, life(1));
    for stream in 0..40 {
        track.append(&disk, stream % STREAMS, 700).unwrap();
    }
    track.close(&disk).unwrap();
    let disk = disk.restarted();
    let first = track.oracle.entries[2];
    disk.flip_bit("/store/log/00000000000000000000.seg".as_ref(), first.lsn + 100, 1).unwrap();
    let indexes = |(path, _): &(PathBuf, u64)| path.extension() == Some("idx".as_ref());
    for (path, _) in disk.list_all().into_iter().filter(indexes) {
        disk.delete(&path).unwrap();
    }
    track.open(&disk, life(2)).unwrap();
    for _ in 0..2 {
        for number in 0..STREAMS {
            let read = read_stream(track.log.as_ref().unwrap(), number);
            assert!(matches!(read, Err(ReadError::Damage(_))), "stream {number}: {read:?}");
        }
    }
}

/// What is in the ring alone was promised to survive a kill.
#[test]
fn after_a_kill_frames_behind_a_damaged_one_in_the_ring_are_evidence_of_it() {
    let disk = disk(1);
    let mut track = Track::new(tiny(true), 42);
    track.reopen(&disk, life(1));
    for stream in 0..20 {
        track.append(&disk, stream % STREAMS, 100).unwrap();
    }
    let disk = disk.kill();
    track.ended(End::Kill);
    let ring = Path::new("/store/ring");
    for entry in &track.oracle.entries[..19] {
        for bit in [0, 40, 400, 1_000] {
            let damaged = disk.fork();
            let byte = entry.lsn % track.options.ring_bytes as u64 + bit / 8;
            damaged.flip_bit(ring, byte, u8::try_from(bit % 8).unwrap()).unwrap();
            let error = track.clone().open(&damaged, life(2)).unwrap_err();
            let OpenError::Damage(damage) = &error else { panic!("{error}") };
            assert_eq!(damage.lsns.start, entry.lsn, "{error}");
            // The machine was restarted: nobody expects the ring to be whole.
            let mut track = track.clone();
            track.ended(End::PowerCut);
            track.reopen(&damaged.restarted(), life(2));
        }
    }
    let gone = disk.fork();
    gone.delete(ring).unwrap();
    let error = track.clone().open(&gone, life(2)).unwrap_err();
    let reason = match &error {
        OpenError::Damage(damage) => Some(damage.reason.clone()),
        _ => None,
    };
    assert_eq!(reason, Some(DamageReason::Ring), "{error}");
    track.reopen(&disk, life(2));
}

/// A seal is written once the next segment is durable, so one without a next segment is evidence,
/// also where that held nothing that any durable mark speaks of: what was in it had been promised
/// to survive a kill.
#[test]
fn a_seal_without_a_next_segment_is_evidence_of_a_missing_one() {
    let disk = disk(1);
    let mut track = Track::new(tiny(true), 42);
    track.reopen(&disk, life(1));
    let segments = |track: &Track| track.log.as_ref().unwrap().stats().segments;
    while segments(&track) < 2 {
        track.append(&disk, 0, 700).unwrap();
    }
    track.append(&disk, 0, 700).unwrap();
    track.store(&disk).unwrap();
    let disk = disk.kill();
    track.ended(End::Kill);
    // Without mark and ring nothing else speaks of the second segment.
    let disk = disk.restarted();
    disk.delete("/store/mark".as_ref()).unwrap();
    disk.delete("/store/ring".as_ref()).unwrap();
    let whole = disk.fork();
    for (path, _) in disk.list_all() {
        let segment = path.extension() == Some("seg".as_ref());
        if segment && path != Path::new("/store/log/00000000000000000000.seg") {
            disk.delete(&path).unwrap();
        }
    }
    let error = track.clone().open(&disk, life(2)).unwrap_err();
    assert!(matches!(error, OpenError::Damage(_)), "{error}");
    track.reopen(&whole, life(2));
}
