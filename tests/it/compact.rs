//! Compaction: segments become runs, and nobody notices but by the room that it saves.

use annals::disk::sim::{Call, Failure, Fault, Op, Outcome, Random, SimDisk};
use annals::error::{DamageReason, OpenError, ReadError};
use annals::log::run::{RunHeader, RunTable};
use annals::log::{Limit, LogOptions};
use annals::types::Seq;

use crate::support::{
    End, Replay, STREAMS, Track, disk, life, read_all, read_stream, read_until, seeds, snapshot,
    stream, tiny,
};

/// A log that has lived `lives` lives, some ended by a crash, open in the last of them.
fn aged(seed: u64, options: LogOptions, lives: u64) -> (SimDisk, Track) {
    let mut random = Random::new(seed);
    let mut disk = disk(seed);
    let mut track = Track::new(options, 42);
    for number in 1..=lives {
        track.reopen(&disk, life(number));
        for _ in 0..12 {
            let stream = random.below(usize::try_from(STREAMS).unwrap()) as u64;
            let bytes = 40 + random.below(1_500);
            track.append(&disk, stream, bytes).unwrap();
            if random.once_in(3) {
                track.wait_last(&disk).unwrap();
            }
        }
        track.store(&disk).unwrap();
        let (next, end) = match random.below(3) {
            0 => {
                track.close(&disk).unwrap();
                (disk.kill(), End::Kill)
            }
            1 => (disk.kill(), End::Kill),
            _ => (disk.power_cut(random.bits()), End::PowerCut),
        };
        track.ended(end);
        disk = next;
    }
    track.reopen(&disk, life(lives + 1));
    (disk, track)
}

/// Compacts as long as there is anything to do; answers how often.
fn compact_all(track: &mut Track, upto: &[u64], thorough: bool) -> usize {
    let mut count = 0;
    while let Some(done) = track.compact(upto, thorough).unwrap() {
        count += 1;
        assert!(count < 100, "no end: {done:?}");
    }
    count
}

/// The run files on a disk.
fn runs(disk: &SimDisk) -> Vec<(std::path::PathBuf, u64)> {
    let all = disk.list_all().into_iter();
    all.filter(|(path, _)| path.extension() == Some("run".as_ref())).collect()
}

/// How many files end so.
fn count(disk: &SimDisk, ending: &str) -> usize {
    disk.list_all().iter().filter(|(path, _)| path.to_string_lossy().ends_with(ending)).count()
}

#[test]
fn everything_reads_the_same_from_runs_and_after_a_reopen() {
    for seed in seeds(20) {
        let _replay = Replay(seed);
        for ring in [true, false] {
            let (disk, mut track) = aged(seed, tiny(ring), 6);
            let before = count(&disk, ".seg");
            assert!(compact_all(&mut track, &[], false) > 0, "seed {seed}: nothing was old");
            assert!(count(&disk, ".seg") < before);
            assert!(!runs(&disk).is_empty());
            assert_eq!(track.log.as_ref().unwrap().stats().runs, runs(&disk).len() as u64);
            track.check_live().unwrap();
            track.check_dropped().unwrap();
            assert_eq!(track.oracle.dropped, [], "nothing was allowed to go");
            track.append(&disk, 1, 100).unwrap();
            track.close(&disk).unwrap();
            let disk = disk.kill();
            track.ended(End::Kill);
            track.reopen(&disk, life(20));
            // By hand everything becomes one run, as far as it fits.
            compact_all(&mut track, &[], true);
            track.check_dropped().unwrap();
        }
    }
}

#[test]
fn reading_goes_on_from_any_position_in_a_run() {
    let (_disk, mut track) = aged(3, tiny(true), 6);
    let upto = [4, 4, 4, 4];
    compact_all(&mut track, &upto, true);
    track.check_dropped().unwrap();
    assert!(!track.oracle.dropped.is_empty());
    let log = track.log.as_ref().unwrap();
    let lost = log.lost();
    assert!(!lost.is_empty(), "some life was cut off");
    let (entries, end) = (&track.oracle.entries, log.written());
    for position in (4096..end).step_by(16) {
        let next = entries.iter().find(|entry| entry.lsn >= position);
        let inside = lost.iter().find(|lost| lost.start < position && position < lost.end);
        match log.frames(position, Limit::Written) {
            Ok(mut frames) => {
                assert_eq!(inside, None, "{position} was lost");
                // Not a frame's beginning: in a segment that is damage, in a run the next is met.
                let mut read = || loop {
                    match frames.next() {
                        Ok(Some(frame)) if frame.header().seq.get() == 0 => {}
                        Ok(frame) => return Ok(frame.map(|frame| frame.lsn().get())),
                        Err(error) => return Err(error),
                    }
                };
                match read() {
                    Ok(found) => assert_eq!(found, next.map(|entry| entry.lsn), "at {position}"),
                    Err(error) => {
                        assert!(entries.iter().all(|entry| entry.lsn != position), "{error}");
                    }
                }
            }
            Err(ReadError::PositionLost { .. }) => {
                assert!(entries.iter().all(|entry| entry.lsn != position), "{position} is there");
            }
            Err(error) => panic!("{position}: {error}"),
        }
    }
    for dropped in &track.oracle.dropped {
        let next = entries.iter().find(|entry| entry.lsn > dropped.lsn).map(|entry| entry.lsn);
        let mut frames = log.frames(dropped.lsn, Limit::Written).unwrap();
        let mut found = None;
        while let Some(frame) = frames.next().unwrap() {
            if frame.header().seq.get() > 0 {
                found = Some(frame.lsn().get());
                break;
            }
        }
        assert_eq!(found, next, "behind {dropped:?}");
    }
}

#[test]
fn what_was_dropped_is_gone_but_for_the_first_frame_and_the_numbers_go_on() {
    for seed in seeds(10) {
        let _replay = Replay(seed);
        let (disk, mut track) = aged(seed, tiny(true), 6);
        let upto: Vec<u64> = (0..STREAMS).map(|number| track.oracle.last_seq(number)).collect();
        compact_all(&mut track, &upto, true);
        track.check_dropped().unwrap();
        assert!(track.oracle.dropped.len() > 10);
        let log = track.log.as_ref().unwrap();
        for number in 0..STREAMS {
            let first = read_stream(log, number).unwrap().first().map(|entry| entry.seq);
            assert_eq!(first, Some(1), "stream {number} keeps its name");
            let end =
                log.stream(stream(number), Seq::MAX, &mut |_| std::ops::ControlFlow::Break(()));
            let gone = track.oracle.dropped.iter().filter(|entry| entry.stream == number);
            let gone = gone.map(|entry| entry.seq).max().unwrap_or(0);
            assert_eq!(end.unwrap().last.get(), track.oracle.last_seq(number));
            let end =
                log.stream(stream(number), Seq::ZERO, &mut |_| std::ops::ControlFlow::Continue(()));
            assert_eq!(end.unwrap().dropped.get(), gone, "stream {number}");
        }
        let disk = disk.power_cut_losing_all();
        track.ended(End::PowerCut);
        track.reopen(&disk, life(30));
    }
}

/// Random work, compactions, and ends of lives.
#[test]
fn compactions_among_random_work_and_crashes_lose_nothing() {
    let mut compactions = 0;
    for seed in seeds(60) {
        let _replay = Replay(seed);
        let mut random = Random::new(seed ^ 0xc0_ffee);
        let ring = random.once_in(2);
        let mut options = tiny(ring);
        options.segment_bytes_max = [16 << 10, 32 << 10][random.below(2)];
        let mut disk = disk(seed);
        let mut track = Track::new(options, 42);
        let mut lives = 0;
        for _ in 0..25 {
            lives += 1;
            // Perhaps a crash on the way.
            if random.once_in(3) {
                disk.crash_at(random.below(40) as u64);
            }
            let opened = track.open(&disk, life(lives));
            if !disk.has_crashed() {
                disk.clear_faults();
                track.check_recovered(&opened.unwrap());
                for _ in 0..random.below(30) {
                    let stream = random.below(usize::try_from(STREAMS).unwrap()) as u64;
                    track.append(&disk, stream, 40 + random.below(900)).unwrap();
                    if random.once_in(6) {
                        track.wait_last(&disk).unwrap();
                    }
                }
                track.store(&disk).unwrap();
                if random.once_in(3) {
                    track.log.as_ref().unwrap().keep();
                }
                if random.once_in(2) {
                    disk.crash_at(random.below(60) as u64);
                }
                let upto: Vec<u64> = (0..STREAMS)
                    .map(|number| {
                        let last = usize::try_from(track.oracle.last_seq(number)).unwrap();
                        random.below(last + 1) as u64
                    })
                    .collect();
                for _ in 0..random.below(4) {
                    let thorough = random.once_in(2);
                    match track.compact(&upto, thorough) {
                        Ok(Some(_)) => compactions += 1,
                        Ok(None) => break,
                        Err(error) => assert!(disk.has_crashed(), "{error}"),
                    }
                    if disk.has_crashed() {
                        break;
                    }
                    track.check_dropped().unwrap();
                }
            }
            let (next, end) = match random.below(4) {
                0 if !disk.has_crashed() => {
                    disk.clear_faults();
                    track.close(&disk).unwrap();
                    (disk.kill(), End::Kill)
                }
                0 | 1 => (disk.kill(), End::Kill),
                2 => (disk.power_cut_losing_all(), End::PowerCut),
                _ => (disk.power_cut(random.bits()), End::PowerCut),
            };
            track.ended(end);
            disk = next;
        }
    }
    assert!(compactions > 100, "only {compactions} compactions");
}

#[test]
fn a_crash_at_every_call_of_a_compaction_is_recovered_from() {
    let mut states = 0;
    // And of one that makes a run anew, under the name that it has.
    for (seed, ring, anew) in
        [(1, true, false), (2, false, false), (5, true, true), (6, true, true)]
    {
        let (disk, track) = aged(seed, tiny(ring), 5);
        let upto = [3, 0, 5, 1];
        for crash in 0.. {
            let disk = disk.fork();
            let mut track = track.clone();
            // A fork has no open files: the life begins again, without a crash.
            track.ended(End::Kill);
            track.reopen(&disk, life(10));
            track.append(&disk, 2, 300).unwrap();
            track.wait_last(&disk).unwrap();
            if anew {
                compact_all(&mut track, &[], true);
            }
            disk.crash_at(crash);
            let compacted = track.compact(&upto, true);
            let crashed = disk.has_crashed();
            assert!(crashed || compacted.unwrap().is_some());
            let mut ends = vec![
                (disk.fork().kill(), End::Kill),
                (disk.fork().power_cut_losing_all(), End::PowerCut),
            ];
            ends.extend((0..6).map(|cut| (disk.fork().power_cut(cut), End::PowerCut)));
            for (disk, end) in ends {
                let mut track = track.clone();
                track.ended(end);
                track.reopen(&disk, life(11));
                assert_eq!(count(&disk, ".rtmp"), 0);
                // What is left to do is done now, and the lives go on.
                compact_all(&mut track, &upto, true);
                track.check_dropped().unwrap();
                let disk = disk.power_cut_losing_all();
                track.ended(End::PowerCut);
                track.reopen(&disk, life(12));
                states += 1;
            }
            if !crashed {
                break;
            }
        }
    }
    println!("{states} recoveries were looked at");
}

#[test]
fn whichever_call_of_a_compaction_fails_the_log_is_as_it_was() {
    let mut failures = 0;
    for op in Op::ALL {
        for number in 0.. {
            let (disk, mut track) = aged(4, tiny(true), 5);
            if number % 4 > 1 {
                compact_all(&mut track, &[], true);
            }
            let failure = if number % 2 == 0 { Failure::Io } else { Failure::NoSpace };
            disk.record(true);
            disk.clear_log();
            disk.fail(Fault::new(failure).on(op).after(number));
            let compacted = track.compact(&[3, 3, 3, 3], true);
            let fails = |call: &Call| match call.outcome {
                Outcome::Failed(kind) => kind != std::io::ErrorKind::NotFound,
                Outcome::Done | Outcome::Crashed => false,
            };
            let struck = disk.log().iter().any(fails);
            disk.clear_faults();
            match &compacted {
                Err(_) => failures += 1,
                Ok(done) => assert!(done.is_some()),
            }
            track.check_dropped().unwrap();
            // The next try may, or must not; either way all is there.
            if track.compact(&[3, 3, 3, 3], true).is_ok() {
                track.check_dropped().unwrap();
            }
            track.append(&disk, 0, 100).unwrap();
            track.wait_last(&disk).unwrap();
            for end in [End::Kill, End::PowerCut] {
                let disk = match end {
                    End::Kill => disk.fork().kill(),
                    End::PowerCut => disk.fork().power_cut(number),
                };
                let mut track = track.clone();
                track.ended(end);
                track.reopen(&disk, life(20));
            }
            if !struck {
                break;
            }
        }
    }
    assert!(failures > 8, "only {failures} calls failed");
}

/// A log with one run and a few segments, closed; and where its run is.
fn with_run(upto: &[u64]) -> (SimDisk, Track, std::path::PathBuf, Vec<u8>) {
    let (disk, mut track) = aged(4, LogOptions { segment_bytes_max: 16 << 10, ..tiny(true) }, 4);
    assert!(track.compact(upto, true).unwrap().is_some());
    track.check_dropped().unwrap();
    track.close(&disk).unwrap();
    let disk = disk.kill();
    track.ended(End::Kill);
    let path = runs(&disk).first().unwrap().0.clone();
    let bytes = disk.copy_bytes(&path).unwrap();
    (disk, track, path, bytes)
}

#[test]
fn every_flipped_bit_of_a_runs_header_page_is_damage_at_open() {
    let (disk, track, path, _) = with_run(&[]);
    for byte in 0..4096 {
        let (disk, mut track) = (disk.fork(), track.clone());
        disk.flip_bit(&path, byte, u8::try_from(byte % 8).unwrap()).unwrap();
        let before = snapshot(&disk);
        match track.open(&disk, life(40)) {
            Err(OpenError::Damage(damage)) => assert_eq!(damage.file, path),
            other => panic!("byte {byte}: {other:?}"),
        }
        assert!(snapshot(&disk) == before, "something was changed");
    }
}

#[test]
fn every_flipped_byte_of_a_runs_table_is_damage_when_it_is_read() {
    let (disk, track, path, bytes) = with_run(&[2, 2]);
    let table = RunHeader::decode(&bytes).unwrap().table;
    for byte in table..bytes.len() as u64 {
        let (disk, mut track) = (disk.fork(), track.clone());
        disk.flip_bit(&path, byte, u8::try_from(byte % 8).unwrap()).unwrap();
        track.open(&disk, life(40)).unwrap();
        let log = track.log.as_ref().unwrap();
        let (found, error) = read_until(log);
        assert_eq!(found, [], "byte {byte}");
        let Some(ReadError::Damage(damage)) = error else { panic!("byte {byte}: {error:?}") };
        assert_eq!((&damage.file, damage.offset), (&path, table));
        assert!(matches!(damage.reason, DamageReason::Table(_)));
        for number in 0..STREAMS {
            assert!(matches!(read_stream(log, number), Err(ReadError::Damage(_))));
        }
    }
}

#[test]
fn damage_in_a_run_is_located_to_the_frame_and_others_are_read() {
    let (disk, track, path, bytes) = with_run(&[]);
    let header = RunHeader::decode(&bytes).unwrap();
    let first = usize::try_from(header.table).unwrap();
    let table = RunTable::check(&header, &bytes[first..]).unwrap();
    for number in 0..table.carried() {
        let (lsn, offset) = table.place(number).unwrap();
        let hurt = track.oracle.entries.iter().find(|entry| entry.lsn == lsn).unwrap();
        for byte in [0, 5, 9, 40, table.length(number).unwrap() - 1] {
            let (disk, mut track) = (disk.fork(), track.clone());
            disk.flip_bit(&path, offset + byte, 3).unwrap();
            track.open(&disk, life(40)).unwrap();
            let log = track.log.as_ref().unwrap();
            let error = read_stream(log, hurt.stream).unwrap_err();
            let ReadError::Damage(damage) = error else { panic!("{error}") };
            assert_eq!((&damage.file, damage.offset), (&path, offset));
            assert_eq!(damage.lsns.start, lsn);
            let (found, error) = read_until(log);
            assert!(matches!(error, Some(ReadError::Damage(found)) if found == damage));
            let before = track.oracle.entries.iter().filter(|entry| entry.lsn < lsn);
            assert_eq!(found.len(), before.count(), "all before it");
            for other in (0..STREAMS).filter(|other| *other != hurt.stream) {
                read_stream(log, other).unwrap();
            }
            // It is not copied on, and stays as it is.
            let error = loop {
                match track.compact(&[99, 99, 99, 99], true) {
                    Ok(done) => assert!(done.is_some(), "damage was passed over"),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, ReadError::Damage(found) if found == damage));
            assert_eq!(count(&disk, ".rtmp"), 0);
            assert!(disk.copy_bytes(&path).is_ok());
        }
    }
}

#[test]
fn a_run_that_is_gone_or_cut_short_is_damage() {
    let (disk, track, path, bytes) = with_run(&[]);
    let gone = disk.fork();
    gone.delete(&path).unwrap();
    let short = disk.fork();
    short.truncate(&path, bytes.len() as u64 - 1).unwrap();
    let renamed = disk.fork();
    renamed.delete(&path).unwrap();
    let other = path.with_file_name("00000000000000000000-00000000000000004096.run");
    renamed.put(&other, bytes).unwrap();
    for disk in [gone, short, renamed] {
        let before = snapshot(&disk);
        let opened = track.clone().open(&disk, life(40));
        assert!(matches!(opened, Err(OpenError::Damage(_))), "{opened:?}");
        assert!(snapshot(&disk) == before);
    }
    // What is missing of the segments behind a run is noticed too.
    let follower = disk.fork();
    let first =
        disk.list_all().into_iter().find(|(path, _)| path.to_string_lossy().ends_with("seg"));
    follower.delete(&first.unwrap().0).unwrap();
    let opened = track.clone().open(&follower, life(40));
    assert!(matches!(opened, Err(OpenError::Damage(_))), "{opened:?}");
}

#[test]
fn what_a_run_has_replaced_is_a_leftover_whatever_it_looks_like() {
    let (disk, mut track) = aged(4, tiny(true), 6);
    let mut old = snapshot(&disk);
    while track.compact(&[], false).unwrap().is_some() {
        old.extend(snapshot(&disk));
    }
    track.close(&disk).unwrap();
    let disk = disk.kill();
    track.ended(End::Kill);
    compact_in_a_new_life(&disk, &mut track);
    let there = snapshot(&disk);
    let name = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let is_old = |path: &std::path::Path| {
        let ours = [".seg", ".idx", ".run"].iter().any(|ending| name(path).ends_with(ending));
        ours && !there.iter().any(|(here, _)| here == path)
    };
    let mut back = 0;
    for (number, (path, bytes)) in old.into_iter().enumerate() {
        if is_old(&path) {
            let mut bytes = bytes;
            if number % 2 == 0 {
                bytes.iter_mut().take(100).for_each(|byte| *byte ^= 0x55);
            }
            disk.put(&path, bytes).unwrap();
            back += 1;
        }
    }
    assert!(back > 5, "only {back} files came back");
    disk.put("/store/log/00000000000000000000-00000000000000004096.rtmp".as_ref(), vec![1; 9])
        .unwrap();
    track.reopen(&disk, life(41));
    let names = |files: Vec<(std::path::PathBuf, Vec<u8>)>| -> Vec<String> {
        let names = files.iter().map(|(path, _)| name(path));
        names.filter(|path| path.contains(".run") || path.contains(".rtmp")).collect()
    };
    assert_eq!(names(snapshot(&disk)), names(there));
}

fn compact_in_a_new_life(disk: &SimDisk, track: &mut Track) {
    track.reopen(disk, life(30));
    compact_all(track, &[], true);
    track.close(disk).unwrap();
    track.ended(End::Kill);
}

/// How many power cuts after a compaction, of which some syncs lie, break a promise.
fn violations(lie: Option<(Op, &str)>) -> usize {
    let mut violations = 0;
    for cut in 0..40 {
        let (disk, mut track) = aged(4, tiny(true), 5);
        if let Some((op, path)) = lie {
            disk.fail(Fault::new(Failure::Lie).on(op).at_path(path).for_ever());
        }
        track.compact(&[], true).unwrap().unwrap();
        let disk = disk.power_cut(cut);
        track.ended(End::PowerCut);
        violations += usize::from(match track.open(&disk, life(20)) {
            Err(_) => true,
            Ok(_) => track.compare().is_err(),
        });
    }
    violations
}

#[test]
fn a_missing_sync_of_a_run_or_of_its_name_is_found_out() {
    assert_eq!(violations(None), 0);
    assert!(violations(Some((Op::SyncData, ".rtmp"))) > 0);
    // As if the sources were unlinked before the directory was synced.
    assert!(violations(Some((Op::SyncDir, "/store/log"))) > 0);
}

#[test]
fn readers_in_the_midst_of_an_old_piece_stay_there_and_miss_nothing() {
    for seed in seeds(10) {
        let _replay = Replay(seed);
        let (_disk, mut track) = aged(seed, tiny(true), 6);
        let all = read_all(track.log.as_ref().unwrap()).unwrap();
        // One reader at each frame.
        let mut readers: Vec<_> = (0..all.len())
            .map(|number| {
                let log = track.log.as_ref().unwrap();
                let mut frames = log.frames(0, Limit::Written).unwrap();
                let mut passed = 0;
                while passed < number {
                    let frame = frames.next().unwrap().unwrap();
                    passed += usize::from(frame.header().seq.get() > 0);
                }
                frames
            })
            .collect();
        for thorough in [false, true] {
            while track.compact(&[], thorough).unwrap().is_some() {}
        }
        for (number, frames) in readers.iter_mut().enumerate() {
            let mut found = Vec::new();
            while let Some(frame) = frames.next().unwrap() {
                if frame.header().seq.get() > 0 {
                    found.push(frame.lsn().get());
                }
            }
            let expected: Vec<u64> = all[number..].iter().map(|entry| entry.lsn).collect();
            assert_eq!(found, expected, "reader {number}");
        }
    }
}
