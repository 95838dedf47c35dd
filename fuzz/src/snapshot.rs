//! Snapshots with hostile content: in frames that are sound, and in files that are not.
//!
//! A sound event log, with a range that a crash took back, stands beside a snapshot log whose
//! frames are made of the input: any records, in any order, and bodies of no structure at all,
//! with the right checksum. Then the files are damaged. **What is handed out is a state that was
//! written, as it was written, and covers a position that the event log has.**

use std::cell::OnceCell;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use annals::disk::Disk;
use annals::disk::sim::SimDisk;
use annals::log::frame::{Batch, Frame, HEADER, RecordKind, Salt};
use annals::log::{Limit, Log, LogOptions, Opening, name};
use annals::rkyv::util::AlignedVec;
use annals::snapshot::{NewSnapshot, Snapshots};
use annals::types::{Life, Lsn, Seq, StreamId};

use crate::damage::{CHANGE, Input, damage, write};
use crate::frame::mend;

const EVENTS_ID: u64 = 0x5eed;
const SNAPSHOTS_ID: u64 = 0x57a7e;
const STREAMS: usize = 3;
const FRAMES_MAX: usize = 24;
const CHANGES_MAX: usize = 8;

/// One input.
pub fn run(data: &[u8]) {
    thread_local! {
        static BASE: OnceCell<SimDisk> = const { OnceCell::new() };
    }
    let mut disk = BASE.with(|base| base.get_or_init(base_log).fork());
    let mut input = Input(data);
    let mut written = Vec::new();
    let events = open(&disk, true, 8).expect("an event log that nothing was done to");
    fill(&disk, &mut input, &events, &mut written);
    events.close().expect("a disk that works");
    drop(events);
    let mut rest = input.0;
    for _ in 0..CHANGES_MAX {
        let Some((change, after)) = rest.split_first_chunk::<CHANGE>() else { break };
        // Of the snapshots alone: what hostile bytes do to events is `recover`'s.
        (disk, rest) = damage(disk, "/snapshots", *change, after);
    }
    let events = Arc::new(open(&disk, true, 9).expect("an event log that nothing was done to"));
    let Ok(log) = open(&disk, false, 9) else { return };
    let flush = Duration::from_secs(1);
    let Ok(snapshots) = Snapshots::start(log, Arc::clone(&events), (false, flush), 1 << 12) else {
        return;
    };
    for number in 0..STREAMS {
        check(&snapshots, &events, number, &written);
    }
    // It works on: what is saved now is the newest.
    let covers = Lsn::new(first_event(&events)).expect("a frame's");
    let state = b"the newest of all";
    let mut archive = AlignedVec::new();
    archive.extend_from_slice(state);
    let saved = snapshots.save(NewSnapshot {
        stream: stream(0),
        kind: "fuzz",
        name: "0".into(),
        seq: Seq::new(1 << 40).expect("48 bits"),
        covers,
        version: 7,
        state: archive,
        side: b"owed".to_vec(),
    });
    let mut newest = None;
    let loaded = snapshots.load(stream(0), &mut |snapshot| {
        newest = Some((snapshot.covers, snapshot.version, snapshot.state.to_vec()));
        ControlFlow::Break(())
    });
    if saved && loaded.is_ok() {
        assert_eq!(newest, Some((covers, 7, state.to_vec())), "what was just saved");
    }
}

/// Everything that is handed out is something that was written.
fn check(snapshots: &Snapshots, events: &Log, number: usize, written: &[Vec<u8>]) {
    let lost = events.lost();
    // An index that cannot be read is an error, and then the events are replayed.
    let loaded = snapshots.load(stream(number), &mut |snapshot| {
        let covers = snapshot.covers.get();
        assert!(!lost.iter().any(|lost| lost.contains(&covers)), "{covers} was lost");
        assert!(covers < events.written(), "{covers} is of the future");
        let state = snapshot.state;
        let known = state.is_empty()
            || written.iter().any(|body| body.windows(state.len()).any(|part| part == state));
        assert!(known, "a state that nobody wrote: {state:?}");
        ControlFlow::Continue(())
    });
    drop(loaded);
}

fn stream(number: usize) -> StreamId {
    StreamId::of("fuzz", &number.to_string())
}

/// Position of the first event.
fn first_event(events: &Log) -> u64 {
    let mut frames = events.frames(0, Limit::Written).expect("the beginning");
    while let Some(frame) = frames.next().expect("nothing is damaged") {
        if frame.header().stream != StreamId::SYSTEM {
            return frame.lsn().get();
        }
    }
    unreachable!("the base log has events")
}

fn options(events: bool) -> LogOptions {
    LogOptions {
        ring: events.then(|| PathBuf::from("/events.ring")),
        ring_bytes: 16 << 10,
        segment_bytes_first: 8 << 10,
        segment_bytes_max: 16 << 10,
        frame_bytes_max: 4 << 10,
        threads: false,
        rebuildable: !events,
        ..LogOptions::new(if events { "/events" } else { "/snapshots" })
    }
}

fn open(disk: &SimDisk, events: bool, life: u64) -> Result<Log, annals::error::OpenError> {
    let disk: Arc<dyn Disk> = disk.handle();
    let id = if events { EVENTS_ID } else { SNAPSHOTS_ID };
    Ok(Opening::new(&disk, options(events), id, 0)?.start(self::life(life))?.0)
}

fn life(number: u64) -> Life {
    Life { number, bits: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

/// An event log with a range that a power cut took back, and no snapshots.
fn base_log() -> SimDisk {
    let disk = SimDisk::new(1);
    let log = open(&disk, true, 1).expect("an empty disk");
    for seq in 1..30_u64 {
        let mut batch = Batch::new();
        batch.push(RecordKind::Event, 1, &[7; 200]).expect("small");
        log.append(&mut batch, stream(0), Seq::new(seq).expect("small")).expect("room");
        if seq == 10 {
            log.sync().expect("a disk that works");
        }
    }
    let disk = disk.power_cut_losing_all();
    drop(log);
    let log = open(&disk, true, 2).expect("a power cut is no damage");
    let mut batch = Batch::new();
    batch.push(RecordKind::Event, 1, &[8; 200]).expect("small");
    log.append(&mut batch, stream(0), Seq::new(11).expect("small")).expect("room");
    log.close().expect("a disk that works");
    assert!(!log.lost().is_empty(), "a crash took something back");
    drop(log);
    disk.kill()
}

/// Writes frames of the input's making. `written` gets the states in them, or whole bodies.
fn fill(disk: &SimDisk, input: &mut Input<'_>, events: &Log, written: &mut Vec<Vec<u8>>) {
    let log = open(disk, false, 1).expect("no snapshots yet");
    let mut forged = Vec::new();
    for _ in 0..FRAMES_MAX {
        let what = input.byte().unwrap_or(0);
        if what == 0 {
            break;
        }
        let number = usize::from(what >> 4) % STREAMS;
        let mut batch = Batch::new();
        let body = (what & 8 != 0).then(|| forged_body(&mut batch, input));
        if body.is_none() {
            for _ in 0..=what % 4 {
                record(&mut batch, number, input, events, written);
            }
        }
        let seq = Seq::new(u64::from(input.byte().unwrap_or(0)) + 1).expect("small");
        let appended = log.append(&mut batch, stream(number), seq).expect("room");
        forged.extend(body.map(|body| (appended.lsn.get()..appended.end.get(), body)));
        log.store().expect("a disk that works");
        if what == 0xff {
            log.sync().expect("a disk that works");
        }
    }
    log.close().expect("a disk that works");
    drop(log);
    for (place, body) in forged {
        forge(disk, place, &body);
        written.push(body);
    }
}

/// A record of any kind; half of what is in it makes sense.
fn record(
    batch: &mut Batch,
    number: usize,
    input: &mut Input<'_>,
    events: &Log,
    written: &mut Vec<Vec<u8>>,
) {
    let what = input.byte().unwrap_or(0);
    let any = input.bytes(usize::from(what >> 3)).to_vec();
    let (kind, payload) = match what % 8 {
        0 | 1 => (RecordKind::State, any.clone()),
        2 => (RecordKind::Name, name::encode("fuzz", &number.to_string()).expect("short")),
        3 => (RecordKind::Name, any.clone()),
        4 => (RecordKind::Snapshot, any.clone()),
        5 => (RecordKind::Event, any.clone()),
        _ => {
            let from = events.lost().first().map_or(0, |lost| lost.start);
            let place = [first_event(events), from, events.written(), u64::MAX, 0];
            let covers = place[input.below(place.len())].wrapping_add(u64::from(input.word()));
            (RecordKind::Snapshot, covers.to_le_bytes().to_vec())
        }
    };
    let align = 1 << input.below(5);
    let pushed = batch.push_with(kind, 1, align, |buffer| {
        buffer.extend_from_slice(&payload);
        Ok(())
    });
    pushed.expect("small");
    written.push(payload);
}

/// A body of no structure, and a frame that has room for it.
fn forged_body(batch: &mut Batch, input: &mut Input<'_>) -> Vec<u8> {
    let bytes = input.below(256);
    let mut body = input.bytes(bytes).to_vec();
    body.resize(body.len().next_multiple_of(16).max(16), 0);
    // The record's header takes 8 bytes of the body that is written over.
    batch.push(RecordKind::State, 1, &body[8..]).expect("small");
    body
}

/// Puts `body` into the frame at `place`, and sums it anew.
fn forge(disk: &SimDisk, place: Range<u64>, body: &[u8]) {
    let files = disk.list_all().into_iter().filter_map(|(path, _)| {
        let digits = path.strip_prefix("/snapshots").ok()?.to_str()?.strip_suffix(".seg")?;
        Some((digits.parse::<u64>().ok()?, path.clone()))
    });
    let (base, path) = files.filter(|(base, _)| *base <= place.start).max().expect("its segment");
    let (offset, bytes) = (place.start - base, place.end - place.start);
    let [start, bytes] = [offset, bytes].map(|it| usize::try_from(it).expect("64 bits"));
    let mut frame = disk.copy_bytes(&path).expect("a file")[start..start + bytes].to_vec();
    frame[HEADER..].copy_from_slice(body);
    let salt = Salt { log: SNAPSHOTS_ID, life: life(1), base };
    let frame = mend(&frame, offset, salt).expect("a frame");
    assert!(Frame::read(&frame, offset, salt).is_ok(), "the frame that was forged");
    write(disk, &path, offset, &frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the target would look at stores that hand nothing out.
    #[test]
    fn what_was_filled_in_whole_is_handed_out_and_what_covers_a_lost_position_is_not() {
        let disk = base_log();
        let events = Arc::new(open(&disk, true, 9).expect("events"));
        let lost = events.lost().first().expect("a lost range").start;
        let log = open(&disk, false, 1).expect("no snapshots yet");
        for (seq, covers) in [(1, first_event(&events)), (2, lost), (3, events.written())] {
            let mut batch = Batch::new();
            batch.push(RecordKind::Snapshot, 1, &covers.to_le_bytes()).expect("small");
            let name = name::encode("fuzz", "0").expect("short");
            batch.push(RecordKind::Name, 1, &name).expect("small");
            batch.push(RecordKind::State, 1, b"state").expect("small");
            log.append(&mut batch, stream(0), Seq::new(seq).expect("small")).expect("room");
        }
        let flush = Duration::from_secs(1);
        let snapshots = Snapshots::start(log, Arc::clone(&events), (false, flush), 1 << 12);
        let snapshots = snapshots.expect("no thread is needed");
        let mut found = Vec::new();
        let loaded = snapshots.load(stream(0), &mut |snapshot| {
            found.push(snapshot.seq.get());
            ControlFlow::Continue(())
        });
        loaded.expect("nothing is damaged");
        assert_eq!(found, [1]);
        assert_eq!(snapshots.stats().skipped, 2);
    }
}
