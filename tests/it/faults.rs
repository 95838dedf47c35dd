//! Calls that fail, one at a time and for ever, during a fixed script: every answer is a typed
//! one, and what was promised before is kept.

use std::io::ErrorKind;
use std::path::Path;

use annals::disk::sim::{Call, Failure, Fault, Op, Outcome, SimDisk};
use annals::error::{AppendError, OpenError, SyncError};

use crate::support::{End, Track, disk, life, tiny};

/// Bytes of the script's payloads: some fit a page with others, some seal a segment.
const PAYLOADS: [usize; 12] = [100, 3_900, 10, 2_000, 2_000, 60, 3_500, 3_500, 8, 500, 4_000, 700];

/// A life with waits and roll-overs, a close, and another life. Answers what each call answered;
/// goes on after errors, as far as there is a log to go on with.
fn script(disk: &SimDisk, track: &mut Track) -> Vec<String> {
    let mut answers = Vec::new();
    for number in [10, 11] {
        // Tried twice: what failed once may work, and must not do harm.
        for attempt in 0..2 {
            let opened = track.open(disk, life(number + attempt * 2));
            let failed = opened.is_err();
            answers.push(match opened {
                Ok(report) => format!("opened, {:?}", report.start),
                Err(OpenError::Disk(error)) => format!("open: {error}"),
                Err(other) => panic!("no fault makes an open answer {other:?}"),
            });
            if !failed {
                break;
            }
        }
        if track.log.is_none() {
            return answers;
        }
        track.compare().unwrap_or_else(|broken| {
            // What cannot be read now is an error, and says so; what is read is right.
            assert!(broken.contains("os error"), "{broken}");
            answers.push(broken);
        });
        for (step, bytes) in PAYLOADS.into_iter().enumerate() {
            answers.push(append(disk, track, bytes));
            if step % 3 == 0 {
                answers.push(wait(disk, track));
            }
            if step == 4 {
                answers.push(track.store(disk).map_or_else(|e| e.to_string(), |()| String::new()));
                let log = track.log.as_ref().unwrap();
                log.prepare_ahead();
                log.keep();
            }
        }
        answers.push(match track.close(disk) {
            Ok(()) => "closed".to_owned(),
            Err(SyncError::InDoubt { cause, .. }) => format!("close: {cause}"),
            Err(other) => panic!("a close answers {other:?}"),
        });
        track.ended(End::Kill);
    }
    answers
}

fn append(disk: &SimDisk, track: &mut Track, bytes: usize) -> String {
    let poisoned = track.log.as_ref().unwrap().poisoned().is_some();
    let end = track.log.as_ref().unwrap().written();
    let answer = track.append(disk, 0, bytes);
    assert!(!poisoned || matches!(answer, Err(AppendError::Poisoned(_))), "{answer:?}");
    let log = track.log.as_ref().unwrap();
    match answer {
        Ok(entry) => format!("appended {}", entry.lsn),
        Err(AppendError::DiskFull(error)) => {
            assert!(error.is_full() && log.written() == end, "no position was given out");
            format!("append: {error}")
        }
        Err(AppendError::Disk(error) | AppendError::Poisoned(error)) => format!("append: {error}"),
        Err(other) => panic!("an append answers {other:?}"),
    }
}

fn wait(disk: &SimDisk, track: &mut Track) -> String {
    let log = track.log.as_ref().unwrap();
    let (poisoned, before) = (log.poisoned().is_some(), log.durable());
    let settled = before >= track.oracle.entries.last().map_or(0, |last| last.end);
    let answer = track.wait_last(disk);
    assert!(!poisoned || settled || answer.is_err(), "an acknowledgement of a poisoned log");
    let log = track.log.as_ref().unwrap();
    match answer {
        Ok(()) => "durable".to_owned(),
        Err(SyncError::InDoubt { cause, .. }) => {
            assert!(log.poisoned().is_some(), "in doubt, so poisoned");
            assert_eq!(log.durable(), before, "the durable mark stays");
            format!("wait: {cause}")
        }
        Err(other) => panic!("a wait answers {other:?}"),
    }
}

/// A life of the log is on the disk already, and was killed: its last frames are in the ring.
fn prepared(seed: u64) -> (SimDisk, Track) {
    let disk = disk(seed);
    let mut track = Track::new(tiny(true), 42);
    track.reopen(&disk, life(1));
    for bytes in [1_000, 3_000, 2_500, 80] {
        track.append(&disk, 0, bytes).unwrap();
    }
    track.wait_last(&disk).unwrap();
    for bytes in [90, 700] {
        track.append(&disk, 0, bytes).unwrap();
    }
    let next = disk.kill();
    track.ended(End::Kill);
    next.record(true);
    (next, track)
}

/// What is there after every kind of end is what was promised.
fn check_after(disk: &SimDisk, track: &Track, what: &str) -> u64 {
    disk.clear_faults();
    let dropped = disk.fork();
    dropped.drop_caches();
    let ends = [
        (disk.fork().kill(), End::Kill),
        // After a failed sync, this shows what the cache had hidden.
        (dropped.kill(), End::PowerCut),
        (disk.fork().power_cut_losing_all(), End::PowerCut),
        (disk.fork().power_cut(1), End::PowerCut),
        (disk.fork().power_cut(2), End::PowerCut),
    ];
    let count = ends.len() as u64;
    for (number, (disk, end)) in ends.into_iter().enumerate() {
        let mut track = track.clone();
        track.ended(end);
        let report = track.open(&disk, life(50));
        let report = report.unwrap_or_else(|error| panic!("{error}: {what}, end {number}"));
        assert_eq!(report.damage, None, "{what}");
        track.compare().unwrap_or_else(|broken| panic!("{broken}: {what}, end {number}"));
    }
    count
}

/// How often each kind of call is made by the script when nothing fails.
fn calls() -> (Vec<Call>, Vec<String>) {
    let (disk, mut track) = prepared(1);
    let answers = script(&disk, &mut track);
    assert_eq!(track.oracle.power, track.oracle.entries.len(), "closed, so all is durable");
    (disk.log(), answers)
}

/// Runs the script with each call of each kind failing, once and for ever.
fn each_failure(failure: Failure, check: impl Fn(Op, &[String], &str)) -> u64 {
    let (log, _) = calls();
    let mut states = 0;
    for op in Op::ALL {
        let calls: Vec<&Call> = log.iter().filter(|call| call.op == op).collect();
        let count = calls.len() as u64;
        let seeds = if op == Op::SyncDir { 16 } else { 2 };
        for (skip, seed) in (0..count).flat_map(|skip| (0..seeds).map(move |seed| (skip, seed))) {
            for for_ever in [false, true] {
                let (disk, mut track) = prepared(seed);
                let fault = Fault::new(failure).on(op).after(skip);
                disk.fail(if for_ever { fault.for_ever() } else { fault });
                let what = format!("{failure:?} at {op:?} {skip}, {for_ever}, seed {seed}");
                let answers = script(&disk, &mut track);
                check(op, &answers, &what);
                track.ended(End::Kill);
                states += check_after(&disk, &track, &what);
            }
        }
    }
    states
}

#[test]
fn whatever_call_fails_every_answer_is_typed_and_every_promise_kept() {
    let mut states = 0;
    for failure in [Failure::Io, Failure::NoSpace] {
        states += each_failure(failure, |_, _, _| {});
    }
    println!("{states} recoveries were looked at");
}

#[test]
fn interruptions_and_short_transfers_are_invisible() {
    let (_, smooth) = calls();
    let transfers = [Op::Read, Op::Write, Op::WriteRing];
    for failure in [Failure::Interrupted, Failure::Short] {
        let (log, _) = calls();
        for op in transfers {
            let count = log.iter().filter(|call| call.op == op).count() as u64;
            for skip in 0..count {
                let (disk, mut track) = prepared(1);
                disk.fail(Fault::new(failure).on(op).after(skip));
                let answers = script(&disk, &mut track);
                assert_eq!(answers, smooth, "{failure:?} at {op:?} {skip}");
                check_after(&disk, &track, "a transfer in parts");
            }
        }
    }
    // Every transfer in parts.
    for op in transfers {
        let (disk, mut track) = prepared(1);
        disk.fail(Fault::new(Failure::Short).on(op).for_ever());
        assert_eq!(script(&disk, &mut track), smooth, "every {op:?} is short");
        check_after(&disk, &track, "every transfer in parts");
    }
}

#[test]
fn an_interruption_of_any_other_call_is_no_worse_than_an_error() {
    let (log, _) = calls();
    for op in Op::ALL {
        if [Op::Read, Op::Write, Op::WriteRing].contains(&op) {
            continue;
        }
        let count = log.iter().filter(|call| call.op == op).count() as u64;
        for skip in 0..count {
            let (disk, mut track) = prepared(1);
            disk.fail(Fault::new(Failure::Interrupted).on(op).after(skip));
            script(&disk, &mut track);
            track.ended(End::Kill);
            check_after(&disk, &track, &format!("interrupted {op:?} {skip}"));
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_more_is_acknowledged() {
    let (log, _) = calls();
    let syncs = log.iter().filter(|call| call.op == Op::SyncData).count() as u64;
    let mut poisoned = 0;
    for skip in 0..syncs {
        let (disk, mut track) = prepared(skip);
        disk.fail(Fault::new(Failure::Io).on(Op::SyncData).at_path(".seg").after(skip));
        if track.open(&disk, life(2)).is_err() {
            continue;
        }
        track.compare().unwrap();
        for bytes in PAYLOADS {
            append(&disk, &mut track, bytes);
            wait(&disk, &mut track);
        }
        let log = track.log.as_ref().unwrap();
        if log.poisoned().is_none() {
            continue;
        }
        poisoned += 1;
        let found = crate::support::read_all(log).unwrap();
        assert_eq!(found.len(), track.oracle.power, "nothing above the durable mark is served");
        check_after(&disk, &track, &format!("sync {skip} failed"));
    }
    assert!(poisoned > 5, "{poisoned} syncs of commits failed");
}

#[test]
fn a_full_disk_refuses_appends_loses_nothing_and_is_over_when_there_is_room() {
    for room in (0..80).map(|pages| pages << 9) {
        let (disk, mut track) = prepared(3);
        track.reopen(&disk, life(2));
        disk.set_capacity(Some(disk.used() + room));
        let mut refused = 0;
        for step in 0..40 {
            let log = track.log.as_ref().unwrap();
            let (written, bytes) = (log.written(), PAYLOADS[step % PAYLOADS.len()]);
            match track.append(&disk, 0, bytes) {
                Ok(_) => {}
                Err(AppendError::DiskFull(_)) => {
                    let log = track.log.as_ref().unwrap();
                    assert_eq!(log.written(), written, "no position was given out");
                    refused += 1;
                }
                Err(other) => panic!("{other} with room for {room}"),
            }
            if step % 5 == 0 {
                track.wait_last(&disk).unwrap();
            }
        }
        assert!(refused > 0, "the disk was full with room for {room}");
        track.check_live().unwrap();
        track.sync(&disk).unwrap();
        check_after_full(&disk, &track);
        disk.set_capacity(None);
        for bytes in PAYLOADS {
            track.append(&disk, 0, bytes).unwrap();
        }
        track.wait_last(&disk).unwrap();
        track.check_live().unwrap();
        track.close(&disk).unwrap();
        track.ended(End::Kill);
        check_after(&disk, &track, "after there was room again");
    }
}

/// On a full disk a log may be refused as full, and is all there once there is room.
fn check_after_full(disk: &SimDisk, track: &Track) {
    let (disk, mut track) = (disk.fork().kill(), track.clone());
    track.ended(End::Kill);
    match track.open(&disk, life(40)) {
        Ok(_) => track.compare().unwrap(),
        Err(OpenError::Disk(error)) if error.is_full() => {
            track.ended(End::Kill);
            disk.set_capacity(None);
            track.reopen(&disk, life(41));
        }
        Err(other) => panic!("{other}"),
    }
}

/// Of the calls that were made, each write into a segment came after its content and its name
/// were made durable.
fn check_preparation(log: &[Call]) {
    let named = |path: &Path| path.to_string_lossy().ends_with(".seg");
    for (at, call) in log.iter().enumerate() {
        if call.op != Op::Rename || !call.to.as_ref().is_some_and(|to| named(to)) {
            continue;
        }
        let (from, to) = (&call.path, call.to.as_ref().unwrap());
        let written = log[..at].iter().rposition(|it| &it.path == from && it.op == Op::Write);
        let synced = log[..at].iter().rposition(|it| &it.path == from && it.op == Op::SyncData);
        assert!(written < synced, "{} was named before it was synced", to.display());
        let first = log[at..].iter().position(|it| &it.path == to && it.op == Op::WriteRing);
        let dir = log[at..].iter().position(|it| it.op == Op::SyncDir && it.is_done());
        if let Some(first) = first {
            assert!(dir.is_some_and(|dir| dir < first), "{} was not durable", to.display());
        }
    }
}

#[test]
fn nothing_is_acknowledged_at_power_before_it_and_its_name_are_on_the_disk() {
    let (disk, mut track) = prepared(5);
    track.reopen(&disk, life(2));
    for round in 0..40 {
        track.append(&disk, round % 4, PAYLOADS[usize::try_from(round).unwrap() % 12]).unwrap();
        if round % 3 == 0 {
            track.log.as_ref().unwrap().prepare_ahead();
        }
        track.wait_last(&disk).unwrap();
        let calls = disk.log();
        let last_write = calls.iter().rposition(|call| call.op == Op::WriteRing).unwrap();
        let path = &calls[last_write].path;
        assert!(
            calls[last_write..].iter().any(|it| it.op == Op::SyncData && &it.path == path),
            "the last write was synced"
        );
        check_preparation(&calls);
        let cut = disk.fork().power_cut_losing_all();
        let mut track = track.clone();
        track.ended(End::PowerCut);
        track.reopen(&cut, life(3));
    }
    let failed = |call: &&Call| matches!(call.outcome, Outcome::Failed(ErrorKind::StorageFull));
    assert_eq!(disk.log().iter().filter(failed).count(), 0);
}

/// Closing a poisoned log answered Ok although frames in it were not on the disk.
#[test]
fn closing_a_poisoned_log_says_that_what_is_in_it_is_in_doubt() {
    let (disk, mut track) = prepared(5);
    track.reopen(&disk, life(2));
    track.append(&disk, 0, 100).unwrap();
    disk.fail(Fault::new(Failure::Io).on(Op::SyncData));
    assert!(matches!(track.sync(&disk), Err(SyncError::InDoubt { .. })));
    assert!(matches!(track.close(&disk), Err(SyncError::InDoubt { .. })));
}

/// The sync of a new segment's name failed at an open, the next open named that segment as the
/// one before its own, and a power cut took the name: the log was refused for ever.
#[test]
fn a_segment_whose_name_was_never_synced_is_not_built_upon() {
    for seed in 0..32 {
        let (disk, mut track) = prepared(seed);
        disk.fail(Fault::new(Failure::Io).on(Op::SyncDir).at_path("log"));
        assert!(track.open(&disk, life(2)).is_err());
        let disk = disk.kill();
        track.ended(End::Kill);
        track.reopen(&disk, life(3));
        track.append(&disk, 0, 100).unwrap();
        track.wait_last(&disk).unwrap();
        check_after(&disk, &track, &format!("seed {seed}"));
    }
}

/// What is in the ring was promised to survive a kill, so a ring that cannot be read just now is
/// no missing one: the open says so, and the next may read it.
#[test]
fn a_ring_that_cannot_be_read_refuses_the_open_and_the_next_one_has_everything() {
    let (disk, mut track) = prepared(1);
    disk.fail(Fault::new(Failure::Io).on(Op::Read).at_path("ring").for_ever());
    let refused = track.open(&disk, life(2)).unwrap_err();
    let OpenError::Disk(error) = &refused else { panic!("{refused}") };
    assert!(error.path.ends_with("ring"), "{error}");
    disk.clear_faults();
    track.reopen(&disk, life(3));
    check_after(&disk, &track, "the ring was read later");
}

/// Who removes the ring, the machine having been restarted, loses what was on the disk nowhere
/// else, and nothing more.
#[test]
fn a_ring_that_is_missing_takes_no_promise_about_power_with_it() {
    let (disk, mut track) = prepared(1);
    let disk = disk.restarted();
    disk.delete(Path::new("/store/ring")).unwrap();
    track.oracle.ended(End::PowerCut);
    track.reopen(&disk, life(2));
    track.append(&disk, 0, 100).unwrap();
    track.wait_last(&disk).unwrap();
    check_after(&disk, &track, "without a ring");
}
