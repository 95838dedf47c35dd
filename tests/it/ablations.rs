//! Rules that do not hold: a sync that says Ok and does nothing, or a rule of recovery that is
//! switched off. The tests are only worth something if each such lie, told at the right place,
//! makes them find a broken promise; and a rule is only needed if something breaks without it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use annals::disk::sim::{Failure, Fault, Op, SimDisk};
use annals::error::OpenError;
use annals::log::LogOptions;
use annals::log::rule::{Rule, without};

use crate::exhaustive::{explore, sequences, shapes};
use crate::support::{End, Track, disk, life, read_all, tiny};
use crate::world::Explorer;

/// Appends and waits over two lives while syncs of `op` at `path` lie. Answers the violations
/// that some power cut brings to light.
fn violations(op: Op, path: &str, lie: bool) -> Vec<String> {
    let mut violations = Vec::new();
    for seed in 0..40 {
        let disk = disk(seed);
        let mut track = Track::new(tiny(true), 42);
        if lie {
            disk.fail(Fault::new(Failure::Lie).on(op).at_path(path).for_ever());
        }
        track.reopen(&disk, life(1));
        for (number, bytes) in [300, 3_500, 60, 3_500, 900, 80].into_iter().enumerate() {
            track.append(&disk, number as u64 % 3, bytes).unwrap();
            track.wait_last(&disk).unwrap();
        }
        // Headed and named, and not written to yet.
        track.log.as_ref().unwrap().prepare_ahead();
        let next = if seed == 0 { disk.power_cut_losing_all() } else { disk.power_cut(seed) };
        track.ended(End::PowerCut);
        match track.open(&next, life(2)) {
            Err(error) => violations.push(format!("seed {seed}: {error}")),
            Ok(_) => violations.extend(track.compare().err()),
        }
    }
    violations
}

#[test]
fn an_honest_disk_breaks_no_promise() {
    assert_eq!(violations(Op::SyncData, ".seg", false), Vec::<String>::new());
}

#[test]
fn a_missing_sync_of_a_segment_is_found_out() {
    assert!(!violations(Op::SyncData, ".seg", true).is_empty());
}

#[test]
fn a_missing_sync_of_a_segments_header_is_found_out() {
    assert!(!violations(Op::SyncData, ".tmp", true).is_empty());
}

#[test]
fn a_missing_sync_of_the_logs_directory_is_found_out() {
    assert!(!violations(Op::SyncDir, "/store/log", true).is_empty());
}

#[test]
fn a_missing_sync_of_the_name_of_the_logs_directory_is_found_out() {
    let violations = violations(Op::SyncDir, "/store", true);
    assert!(!violations.is_empty());
}

/// What a recovery found is in the cache only, until it syncs: a power cut in the life after it
/// must not take it back.
#[test]
fn a_missing_sync_in_recovery_is_found_out() {
    let taken_back = |lie: bool| {
        let mut count = 0;
        for seed in 0..40 {
            let first = disk(seed);
            let mut track = Track::new(tiny(true), 42);
            track.reopen(&first, life(1));
            for bytes in [300, 3_500, 60, 900] {
                track.append(&first, 0, bytes).unwrap();
            }
            let second = first.kill();
            track.ended(End::Kill);
            if lie {
                second.fail(Fault::new(Failure::Lie).on(Op::SyncData).at_path(".seg").for_ever());
            }
            track.reopen(&second, life(2));
            let third = second.power_cut(seed);
            track.ended(End::PowerCut);
            let opened = track.open(&third, life(3)).is_ok();
            count += usize::from(!opened || track.compare().is_err());
        }
        count
    };
    assert_eq!(taken_back(false), 0);
    assert!(taken_back(true) > 0);
}

/// The next life would give positions out again that a life before had used.
#[test]
fn a_missing_sync_of_the_frame_that_opens_a_life_is_found_out() {
    let found = |ring: bool, lie: bool| {
        let mut count = 0;
        for seed in 0..40 {
            let first = disk(seed);
            // Large enough for another life to go on in it.
            let mut options = tiny(ring);
            (options.segment_bytes_first, options.segment_bytes_max) = (32 << 10, 32 << 10);
            let mut track = Track::new(options, 42);
            track.reopen(&first, life(1));
            track.append(&first, 0, 300).unwrap();
            track.close(&first).unwrap();
            let second = first.kill();
            track.ended(End::Kill);
            if lie {
                second.fail(Fault::new(Failure::Lie).on(Op::SyncData).at_path(".seg"));
            }
            track.reopen(&second, life(2));
            let given = track.append(&second, 0, 300).unwrap().lsn;
            let third = second.power_cut(seed);
            track.ended(End::PowerCut);
            let opened = track.open(&third, life(3)).is_ok();
            count += usize::from(!opened || track.log.as_ref().unwrap().written() <= given);
        }
        count
    };
    assert_eq!(found(true, false), 0);
    assert!(found(true, true) > 0);
    // Where there is a mark file, that alone would do, most of the time.
    assert_eq!(found(false, false), 0);
    assert!(without(Rule::LifeFirst, || found(false, false)) > 0);
}

/// Looks at all crashes of all short sequences, until a promise is broken. Says which.
fn first_broken_promise() -> Option<String> {
    // Without crashes in recoveries first, which takes less.
    for (shape, deep) in [0, 6].into_iter().flat_map(|deep| shapes().map(|shape| (shape, deep))) {
        let mut explorer = Explorer::new(&shape, 8, deep);
        for acts in (0..=3).flat_map(sequences) {
            let run = AssertUnwindSafe(|| explore(&mut explorer, &shape, &acts));
            if let Err(panic) = catch_unwind(run) {
                let text = panic.downcast_ref::<String>().cloned();
                return Some(text.unwrap_or_else(|| "a panic".to_owned()));
            }
        }
    }
    None
}

#[track_caller]
fn each_is_needed(rules: &[Rule]) {
    for rule in rules {
        let broken = without(*rule, first_broken_promise);
        println!("{rule:?}: {broken:?}");
        assert!(broken.is_some(), "nobody needs {rule:?}");
    }
}

#[test]
fn without_any_of_these_rules_a_crash_breaks_a_promise() {
    each_is_needed(&[Rule::RescueRing, Rule::UnusedAreDead, Rule::NameFirst]);
}

/// It takes two crashes to see what these are for: the second in the recovery from the first.
#[test]
fn without_any_of_these_rules_a_crash_in_a_recovery_breaks_a_promise() {
    each_is_needed(&[Rule::SyncRescued, Rule::AboveEverything, Rule::RemoveLast]);
}

const FIRST: &str = "/store/log/00000000000000000000.seg";

/// A log in one long segment, each frame waited for; killed. Then some files are gone.
fn long(options: LogOptions, gone: &[&str]) -> (SimDisk, Track) {
    let (first, max) = (64 << 10, 64 << 10);
    let options = LogOptions { segment_bytes_first: first, segment_bytes_max: max, ..options };
    let disk = disk(1);
    let mut track = Track::new(options, 42);
    track.reopen(&disk, life(1));
    for _ in 0..10 {
        track.append(&disk, 0, 700).unwrap();
        track.wait_last(&disk).unwrap();
    }
    (kill(&disk, &mut track, gone), track)
}

fn kill(disk: &SimDisk, track: &mut Track, gone: &[&str]) -> SimDisk {
    // The machine is restarted, so that nobody expects what was written to be there.
    let disk = disk.restarted();
    track.ended(End::Kill);
    for path in gone {
        disk.delete(path.as_ref()).unwrap();
    }
    disk
}

/// Is the log refused as damaged?
fn refused(disk: &SimDisk, track: &Track) -> bool {
    let opened = track.clone().open(&disk.fork(), life(9));
    assert!(opened.is_ok() || matches!(opened, Err(OpenError::Damage(_))), "{opened:?}");
    opened.is_err()
}

/// Damage is seen with the rule, and taken for a torn tail without it.
fn needs(rule: Rule, disk: &SimDisk, track: &Track) {
    assert!(refused(disk, track), "the damage is seen, with {rule:?}");
    assert!(!without(rule, || refused(disk, track)), "and is not without {rule:?}");
}

#[test]
fn frames_behind_the_damage_are_needed_where_the_mark_file_is_gone() {
    let (disk, track) = long(tiny(true), &["/store/mark", "/store/ring"]);
    disk.flip_bit(FIRST.as_ref(), track.oracle.entries[5].lsn + 100, 1).unwrap();
    needs(Rule::EvidenceBehind, &disk, &track);
}

#[test]
fn the_mark_file_is_needed_where_no_frame_speaks_of_the_last() {
    let (disk, track) = long(tiny(true), &["/store/ring"]);
    disk.flip_bit(FIRST.as_ref(), track.oracle.entries[9].lsn + 100, 1).unwrap();
    needs(Rule::EvidenceInMark, &disk, &track);
}

/// Two lives; of the second there is nothing left but what its open told others.
fn recovered_once(gone: impl Fn(&Path) -> bool) -> (SimDisk, Track) {
    let (disk, mut track) = long(tiny(true), &[]);
    track.reopen(&disk, life(2));
    let disk = kill(&disk, &mut track, &["/store/mark", "/store/ring"]);
    for (path, bytes) in disk.list_all() {
        if gone(&path) {
            disk.delete(&path).unwrap();
        } else if path != Path::new(FIRST) {
            disk.zero(&path, 4_096..bytes).unwrap();
        }
    }
    let last = track.oracle.entries[9];
    disk.zero(FIRST.as_ref(), last.lsn..last.end).unwrap();
    (disk, track)
}

#[test]
fn the_position_in_the_identity_is_needed_where_nothing_else_is_left() {
    let (disk, track) = recovered_once(|path| path != Path::new(FIRST));
    needs(Rule::EvidenceInIdentity, &disk, &track);
}

#[test]
fn the_headers_of_recoveries_are_needed_where_the_identity_remembers_nothing() {
    let (disk, track) = recovered_once(|_| false);
    let forgetful = Track::new(track.options, 42);
    needs(Rule::EvidenceInHeaders, &disk, &forgetful);
}

#[test]
fn a_seal_is_needed_where_the_next_segment_is_gone() {
    let disk = disk(1);
    let mut track = Track::new(tiny(true), 42);
    track.reopen(&disk, life(1));
    while track.log.as_ref().unwrap().stats().segments < 2 {
        track.append(&disk, 0, 700).unwrap();
    }
    track.store(&disk).unwrap();
    let disk = kill(&disk, &mut track, &["/store/mark", "/store/ring"]);
    for (path, _) in disk.list_all() {
        if path != Path::new(FIRST) {
            disk.delete(&path).unwrap();
        }
    }
    needs(Rule::EvidenceInSeal, &disk, &track);
}

/// After a kill what was written is there, in the ring if nowhere else.
#[test]
fn what_was_written_is_needed_as_evidence_where_the_machine_ran_on() {
    let disk = disk(1);
    let mut track = Track::new(tiny(true), 42);
    track.reopen(&disk, life(1));
    for _ in 0..4 {
        track.append(&disk, 0, 100).unwrap();
    }
    let disk = disk.kill();
    track.ended(End::Kill);
    let at = track.oracle.entries[1].lsn % track.options.ring_bytes as u64;
    disk.flip_bit("/store/ring".as_ref(), at + 60, 1).unwrap();
    needs(Rule::EvidenceInWritten, &disk, &track);
}

/// Marks in frames before the end are never beyond it; but they say that what only the ring had
/// was not just late.
#[test]
fn marks_in_frames_are_needed_to_say_that_the_ring_has_repaired_something() {
    let (disk, track) = long(tiny(true), &["/store/mark"]);
    let from = track.oracle.entries[6].lsn;
    disk.zero(FIRST.as_ref(), from..64 << 10).unwrap();
    let repaired = || track.clone().open(&disk.fork(), life(9)).unwrap().repaired;
    assert!(repaired());
    assert!(!without(Rule::EvidenceInFrames, repaired));
}

/// Evidence is looked for as far as marks can lag. If they lagged further there would be none.
#[test]
fn the_bound_on_what_is_not_durable_is_needed_where_evidence_is_looked_for() {
    let lagging = || {
        let (first, max) = (1 << 20, 1 << 20);
        let options = LogOptions { flush_bytes: 0, ..tiny(true) };
        let options = LogOptions { segment_bytes_first: first, segment_bytes_max: max, ..options };
        let disk = disk(1);
        let mut track = Track::new(options, 42);
        track.reopen(&disk, life(1));
        for _ in 0..60 {
            track.append(&disk, 0, 3_500).unwrap();
        }
        track.wait_last(&disk).unwrap();
        track.append(&disk, 0, 8).unwrap();
        track.store(&disk).unwrap();
        let disk = kill(&disk, &mut track, &["/store/mark", "/store/ring"]);
        disk.flip_bit(FIRST.as_ref(), track.oracle.entries[1].lsn + 100, 1).unwrap();
        refused(&disk, &track)
    };
    assert!(lagging());
    assert!(!without(Rule::LagBounded, lagging));
}

/// What a failed sync has marked clean is written again by the next open; else the sync of that
/// open says Ok to nothing.
#[test]
fn writing_again_is_needed_after_a_sync_that_failed() {
    let lost = || {
        let mut lost = 0;
        for seed in 0..40 {
            let first = disk(seed);
            let mut track = Track::new(tiny(true), 42);
            track.reopen(&first, life(1));
            for bytes in [300, 700, 60, 900] {
                track.append(&first, 0, bytes).unwrap();
            }
            first.fail(Fault::new(Failure::Io).on(Op::SyncData).at_path(".seg"));
            assert!(track.wait_last(&first).is_err());
            let second = kill(&first, &mut track, &[]);
            track.reopen(&second, life(2));
            let third = second.power_cut_losing_all();
            track.ended(End::PowerCut);
            let opened = track.open(&third, life(3)).is_ok();
            lost += usize::from(!opened || track.compare().is_err());
        }
        lost
    };
    assert_eq!(lost(), 0);
    assert!(without(Rule::RewriteUnsure, lost) > 0);
}

/// The sync of a new segment's name failed, and the next open must not name that segment as the
/// one before its own.
#[test]
fn stepping_back_is_needed_after_the_sync_of_a_name_that_failed() {
    let lost = || {
        let mut lost = 0;
        for seed in 0..40 {
            let first = disk(seed);
            let mut track = Track::new(tiny(true), 42);
            track.reopen(&first, life(1));
            track.append(&first, 0, 300).unwrap();
            let second = kill(&first, &mut track, &[]);
            second.fail(Fault::new(Failure::Io).on(Op::SyncDir).at_path("log").after(1));
            assert!(track.open(&second, life(2)).is_err());
            let third = kill(&second, &mut track, &[]);
            track.reopen(&third, life(3));
            track.append(&third, 0, 100).unwrap();
            track.wait_last(&third).unwrap();
            let fourth = third.power_cut_losing_all();
            track.ended(End::PowerCut);
            let opened = track.open(&fourth, life(4)).is_ok();
            lost += usize::from(!opened || track.compare().is_err());
        }
        lost
    };
    assert_eq!(lost(), 0);
    assert!(without(Rule::StepBack, lost) > 0);
}

#[test]
fn poison_is_needed_or_a_log_takes_and_serves_what_it_cannot_keep() {
    let poisoned = || {
        let disk = disk(1);
        let mut track = Track::new(tiny(true), 42);
        track.reopen(&disk, life(1));
        track.append(&disk, 0, 300).unwrap();
        disk.fail(Fault::new(Failure::Io).on(Op::SyncData).at_path(".seg"));
        assert!(track.wait_last(&disk).is_err());
        let served = read_all(track.log.as_ref().unwrap()).unwrap().len();
        (track.append(&disk, 0, 300).is_ok(), served)
    };
    assert_eq!(poisoned(), (false, 0));
    assert!(without(Rule::PoisonRefuses, poisoned).0);
    assert_eq!(without(Rule::PoisonHides, poisoned).1, 1);
}
