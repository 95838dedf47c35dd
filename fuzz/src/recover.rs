//! A log with hostile bytes in its files.
//!
//! A sound log of some segments, two lives and a crash is built once. Each input damages a copy
//! of it: bits, ranges, whole files, parts copied elsewhere, a power cut on top. Then it is opened.
//! It may refuse; **it must not panic or hang, and what it hands out must be a beginning of what
//! was written**: no event that was changed, none after a hole. If it opens, it must work on.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;

use annals::disk::Disk;
use annals::disk::sim::SimDisk;
use annals::error::{OpenError, ReadError};
use annals::log::frame::{Batch, RecordKind};
use annals::log::{Limit, Log, LogOptions, Opening};
use annals::types::{Life, Seq, StreamId};

use crate::damage::{CHANGE, damage};

const LOG_ID: u64 = 0x5eed;
/// Events of the base log.
const EVENTS: u64 = 90;
const STREAMS: u64 = 3;
const CHANGES_MAX: usize = 16;

/// One input.
pub fn run(data: &[u8]) {
    thread_local! {
        static BASE: OnceCell<SimDisk> = const { OnceCell::new() };
    }
    let mut disk = BASE.with(|base| base.get_or_init(base_log).fork());
    let mut rest = data;
    for _ in 0..CHANGES_MAX {
        let Some((change, after)) = rest.split_first_chunk::<CHANGE>() else { break };
        (disk, rest) = damage(disk, "/", *change, after);
    }
    let Ok(log) = open(&disk, 3) else { return };
    let Ok(found) = read(&log) else { return };
    assert!(found <= EVENTS, "more events than were written");
    if append(&log, found).is_err() {
        return;
    }
    assert_eq!(read(&log).expect("what was read once"), found + 1);
    log.close().expect("a disk that works");
    drop(log);
    let log = open(&disk, 4).expect("a log that was closed");
    assert_eq!(read(&log).expect("what was read before"), found + 1);
}

fn options() -> LogOptions {
    LogOptions {
        ring: Some(PathBuf::from("/ring")),
        mark: Some(PathBuf::from("/mark")),
        ring_bytes: 16 << 10,
        segment_bytes_first: 8 << 10,
        segment_bytes_max: 16 << 10,
        frame_bytes_max: 4 << 10,
        threads: false,
        ..LogOptions::new("/log")
    }
}

fn open(disk: &SimDisk, life: u64) -> Result<Log, OpenError> {
    let disk: Arc<dyn Disk> = disk.handle();
    let life = Life { number: life, bits: life.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
    Ok(Opening::new(&disk, options(), LOG_ID, 0)?.start(life)?.0)
}

/// The undamaged log: a life that was closed, then one that was killed with frames in the ring.
fn base_log() -> SimDisk {
    let disk = SimDisk::new(1);
    let first = open(&disk, 1).expect("an empty disk");
    for number in 0..EVENTS / 2 {
        append(&first, number).expect("a disk that works");
        if number % 8 == 0 {
            first.sync().expect("a disk that works");
        }
    }
    first.close().expect("a disk that works");
    drop(first);
    let second = open(&disk, 2).expect("a log that was closed");
    for number in EVENTS / 2..EVENTS {
        append(&second, number).expect("a disk that works");
        if number % 16 == 0 {
            second.sync().expect("a disk that works");
        }
    }
    let killed = disk.kill();
    drop(second);
    killed
}

/// What event `number` holds.
fn content(number: u64) -> Vec<u8> {
    let bytes = usize::try_from(number * 131 % 700).expect("small");
    number.to_le_bytes().into_iter().cycle().take(8 + bytes).collect()
}

fn append(log: &Log, number: u64) -> Result<(), annals::error::AppendError> {
    let mut batch = Batch::new();
    batch.push(RecordKind::Event, 1, &content(number)).expect("small");
    let stream = StreamId::of("fuzz", &(number % STREAMS).to_string());
    log.append(&mut batch, stream, Seq::new(number / STREAMS + 1).expect("small"))?;
    Ok(())
}

/// Reads the whole log, which must be events 0, 1, 2 ...; answers how many.
fn read(log: &Log) -> Result<u64, ReadError> {
    let mut frames = log.frames(0, Limit::Written)?;
    let mut found = 0;
    while let Some(frame) = frames.next()? {
        if frame.header().stream == StreamId::SYSTEM {
            continue;
        }
        let records: Vec<_> = frame.records().collect();
        let [Ok(record)] = records.as_slice() else { panic!("not one record: {records:?}") };
        assert_eq!(record.payload, content(found), "not event {found}");
        assert_eq!(frame.header().seq.get(), found / STREAMS + 1);
        found += 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Else the target would look at logs that nothing is in.
    #[test]
    fn the_base_log_opens_with_all_that_was_written_and_spans_segments() {
        let disk = base_log();
        let segments = |disk: &SimDisk| {
            let files = disk.list_all();
            files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "seg")).count()
        };
        assert!(segments(&disk) >= 4, "{:?}", disk.list_all());
        let log = open(&disk, 3).expect("a log that was killed");
        assert_eq!(read(&log).expect("nothing is damaged"), EVENTS);

        let disk = base_log();
        disk.delete(Path::new("/ring")).expect("a ring");
        let log = open(&disk, 3).expect("a torn tail");
        assert!(read(&log).expect("nothing is damaged") < EVENTS, "the ring held nothing alone");
    }
}
