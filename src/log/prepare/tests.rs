//! Files that are made segments again: on the simulated disk, with every call as a crash.

use super::*;
use crate::disk::sim::{Failure, Fault, SimDisk};
use crate::disk::{Access, Entry, read_full, write_full};
use crate::log::frame::{About, Batch, Frame, Place, RecordKind};
use crate::log::segment::FIRST_FRAME;
use crate::types::{FRAME_ALIGN, HybridTime, Seq, StreamId, to_usize};

const LOG: u64 = 42;
const LIFE: Life = Life { number: 1, bits: 77 };
const BYTES: u64 = 16 << 10;
const DIR: &str = "/log";

fn preparer(disk: &SimDisk) -> Preparer {
    let disk: Arc<dyn Disk> = disk.handle();
    let start = Start { base: 0, bytes: BYTES, previous: None };
    let watch = Arc::new(Watch::new(DIR.into(), crate::time::Clock::System));
    Preparer::new((&disk, &watch), DIR.into(), (LOG, LIFE), start, BYTES)
}

fn disk_with_dir() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir(DIR.as_ref()).unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    disk
}

/// Fills a segment to its end with frames, all durable and published; answers how many.
fn fill(segment: &Segment) -> Result<usize, DiskError> {
    let opened = segment.opened()?;
    let at = DiskError::at("writing", &segment.path);
    let mut offset = FIRST_FRAME;
    let mut frames = 0;
    let mut bytes = Vec::new();
    while offset + 512 <= segment.header.bytes {
        let mut batch = Batch::new();
        batch.push(RecordKind::Event, 1, &[0xab; 100]).unwrap();
        let durable = segment.header.base + offset;
        let about = About { stream: StreamId::of("a", "b"), seq: Seq::MAX, durable };
        let place = Place {
            salt: segment.salt(LIFE),
            offset,
            durable,
            time: HybridTime::from_bits(offset),
        };
        let mut sealed = batch.seal(None, &about);
        let (head, rest) = sealed.place(&place);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(rest);
        offset = FIRST_FRAME + bytes.len() as u64;
        frames += 1;
    }
    write_full(&*opened.file, &bytes, FIRST_FRAME)
        .and_then(|()| opened.file.sync_data())
        .map_err(at)?;
    opened.map.publish(to_usize(offset));
    segment.finish(segment.header.base + offset);
    Ok(frames)
}

/// How many frames of the segment at `base` stand anywhere in these bytes.
fn frames_in(bytes: &[u8], base: u64) -> usize {
    let salt = crate::log::frame::Salt { log: LOG, life: LIFE, base };
    let offsets = (FIRST_FRAME..bytes.len() as u64).step_by(FRAME_ALIGN);
    let stands = |offset: &u64| {
        let rest = bytes.get(to_usize(*offset)..).unwrap_or_default();
        Frame::read(rest, *offset, salt).is_ok()
            || Frame::read_life(rest, *offset, LOG, base).is_ok()
    };
    offsets.filter(stands).count()
}

fn segments_on(disk: &SimDisk) -> Vec<Entry> {
    let mut entries = disk.list(DIR.as_ref()).unwrap();
    entries.retain(|entry| crate::log::segment::base_of(&entry.name, "seg").is_some());
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    entries
}

/// Every file that is called a segment is one, of that name; and it holds all the frames that it
/// was filled with, or none of anybody's.
fn check(disk: &SimDisk, filled: usize) {
    for entry in segments_on(disk) {
        let path = PathBuf::from(DIR).join(&entry.name);
        let file = disk.open(&path, Access::Read).unwrap();
        let mut bytes = vec![0; to_usize(entry.bytes)];
        assert_eq!(read_full(&*file, &mut bytes, 0).unwrap(), bytes.len());
        let header = SegmentHeader::decode(&bytes)
            .unwrap_or_else(|reject| panic!("{}: {reject:?}", entry.name));
        assert_eq!(format!("{:020}.seg", header.base), entry.name);
        assert_eq!(header.bytes, entry.bytes);
        let found = frames_in(&bytes, header.base);
        let fits = found == 0 || (header.base == 0 && found == filled);
        assert!(fits, "{}: {found} frames of {filled}", entry.name);
    }
}

/// A disk with one segment, all of it filled and durable, and who makes the next.
fn filled_disk() -> (SimDisk, Preparer, Arc<Segment>, usize) {
    let disk = disk_with_dir();
    let preparer = preparer(&disk);
    let segment = preparer.take(|| ()).unwrap();
    let filled = fill(&segment).unwrap();
    (disk, preparer, segment, filled)
}

/// Gives a segment's file back, and makes another: of the same file.
fn once_around(preparer: &Preparer, segment: Arc<Segment>) -> Result<(), AppendError> {
    preparer.recycle(segment).map_err(AppendError::Disk)?;
    preparer.take(|| ())?;
    Ok(())
}

#[test]
fn a_retired_file_is_a_segment_again_and_nothing_in_it_is_a_frame() {
    let (disk, preparer, first, filled) = filled_disk();
    assert_eq!(frames_in(first.opened().unwrap().map.bytes(), 0), filled);
    preparer.recycle(first).unwrap();
    assert!(segments_on(&disk).is_empty());
    let again = preparer.take(|| ()).unwrap();
    assert_eq!(preparer.recycled.load(Ordering::Relaxed), 1);
    assert_eq!(again.header.base, BYTES);
    let file = disk.copy_bytes(&again.path).unwrap();
    assert_eq!(frames_in(&file, 0), filled, "what was there is there still");
    assert_eq!(frames_in(&file, BYTES), 0);
    // And it is no evidence of anything to a look-ahead, for any life.
    check(&disk, filled);
    assert!(fill(&again).unwrap() > 0);
    assert_eq!(disk.list(DIR.as_ref()).unwrap().len(), 1);
}

#[test]
fn a_file_that_somebody_reads_is_removed_and_stays_as_it_was_for_him() {
    let (disk, preparer, first, filled) = filled_disk();
    let reader = Arc::clone(&first);
    preparer.recycle(first).unwrap();
    fill(&preparer.take(|| ()).unwrap()).unwrap();
    assert_eq!(preparer.recycled.load(Ordering::Relaxed), 0);
    assert_eq!(frames_in(reader.opened().unwrap().map.bytes(), 0), filled);
    assert_eq!(segments_on(&disk).len(), 1);
}

#[test]
fn no_more_files_are_kept_than_are_of_use_and_none_after_a_close() {
    let disk = disk_with_dir();
    let preparer = preparer(&disk);
    let segments: Vec<_> = (0..4).map(|_| preparer.take(|| ()).unwrap()).collect();
    for segment in segments {
        preparer.recycle(segment).unwrap();
    }
    assert_eq!(disk.list(DIR.as_ref()).unwrap().len(), RETIRED);
    preparer.discard();
    assert!(disk.list(DIR.as_ref()).unwrap().is_empty());
}

#[test]
fn a_crash_at_any_call_leaves_whole_segments_under_their_own_names() {
    let (disk, preparer, segment, filled) = filled_disk();
    let before = disk.mutations();
    once_around(&preparer, segment).unwrap();
    let calls = disk.mutations() - before;
    assert!(calls > 4, "a file goes and comes back");
    for call in 0..calls {
        let crashed = || {
            let (disk, preparer, segment, _) = filled_disk();
            disk.crash_at(call);
            assert!(once_around(&preparer, segment).is_err(), "call {call}");
            disk
        };
        check(&crashed().kill(), filled);
        check(&crashed().power_cut_losing_all(), filled);
        for seed in 0..50 {
            check(&crashed().power_cut(seed), filled);
        }
    }
}

#[test]
fn whatever_call_fails_no_segment_is_left_under_another_name() {
    let (disk, preparer, segment, filled) = filled_disk();
    let before = disk.operations();
    once_around(&preparer, segment).unwrap();
    let calls = disk.operations() - before;
    for call in 0..calls {
        for failure in [Failure::Io, Failure::NoSpace] {
            let (disk, preparer, segment, _) = filled_disk();
            disk.fail(Fault::new(failure).after(call));
            let failed = once_around(&preparer, segment).is_err();
            let next = preparer.take(|| ()).is_ok();
            assert!(failed || next, "call {call}: the disk works again");
            for seed in 0..20 {
                check(&disk.fork().power_cut(seed), filled);
            }
        }
    }
}
