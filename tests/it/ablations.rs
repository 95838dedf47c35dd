//! Disks that lie: a sync that says Ok and does nothing. The tests are only worth something if
//! each such lie, told at the right place, makes them find a broken promise.

use annals::disk::sim::{Failure, Fault, Op};

use crate::support::{End, Track, disk, life, tiny};

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
    let found = |lie: bool| {
        let mut count = 0;
        for seed in 0..40 {
            let first = disk(seed);
            // Large enough for another life to go on in it.
            let mut options = tiny(true);
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
    assert_eq!(found(false), 0);
    assert!(found(true) > 0);
}
