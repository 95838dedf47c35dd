//! The table of a run, block by block: what a load does not need may be damaged, and what it does
//! need is checked. And tables of version 1, which are summed as a whole.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use annals::disk::sim::SimDisk;
use annals::error::{DamageReason, OpenError, ReadError};
use annals::log::compact::{Keep, Plan};
use annals::log::frame::{Batch, RecordKind};
use annals::log::run::{RunHeader, RunTable};
use annals::log::{Limit, Log, LogOptions};
use annals::types::{HybridTime, Seq, StreamId};

use crate::support::{End, Track, disk, life, snapshot, stream, tiny};

/// More than fit into one block of 16 KiB.
const STREAMS: u64 = 900;
const BLOCK: u64 = 16 << 10;

/// A log of two frames of each stream and more of some, most of them in one run, closed.
struct Many {
    disk: SimDisk,
    track: Track,
    /// Stream, number and position of each frame, in order.
    written: Vec<(StreamId, u64, u64)>,
    /// Where the run is, and what it is.
    path: PathBuf,
    bytes: Vec<u8>,
}

fn many() -> Many {
    let disk = disk(7);
    let segment = 256 << 10;
    let tiny =
        LogOptions { segment_bytes_max: segment, segment_bytes_first: segment, ..tiny(true) };
    let mut track = Track::new(tiny, 42);
    track.open(&disk, life(1)).unwrap();
    let log = track.log.as_ref().unwrap();
    let mut written = Vec::new();
    let mut append = |number, seq, bytes| {
        let mut batch = Batch::new();
        batch.push(RecordKind::Event, 1, &vec![7; bytes]).unwrap();
        let appended = log.append(&mut batch, stream(number), Seq::new(seq).unwrap()).unwrap();
        written.push((stream(number), seq, appended.lsn.get()));
    };
    for seq in 1..=2 {
        (0..STREAMS).for_each(|number| append(number, seq, 40));
    }
    (0..400).for_each(|number| append(number, 3, 1_500));
    track.close(&disk).unwrap();
    let disk = disk.kill();
    track.ended(End::Kill);
    track.open(&disk, life(2)).unwrap();
    while compact(track.log.as_ref().unwrap()).unwrap() {}
    track.close(&disk).unwrap();
    let disk = disk.kill();
    track.ended(End::Kill);
    let mut files = disk.list_all().into_iter().map(|(path, _)| path);
    let path = files.find(|path| path.extension() == Some("run".as_ref())).unwrap();
    let bytes = disk.copy_bytes(&path).unwrap();
    Many { disk, track, written, path, bytes }
}

/// Makes one run of all that it can; `false` if there was nothing to do.
fn compact(log: &Log) -> Result<bool, ReadError> {
    let plan = Plan {
        run_bytes_max: 1 << 30,
        keep: &|_| Ok(Keep::ALL),
        pinned: u64::MAX,
        unnamed: u64::MAX,
        below: u64::MAX,
        before: HybridTime::from_bits(u64::MAX),
        renew: true,
        thorough: true,
    };
    Ok(log.compact(&plan)?.is_some())
}

impl Many {
    fn opened(&self, disk: &SimDisk) -> Track {
        let mut track = self.track.clone();
        track.open(disk, life(40)).unwrap();
        track
    }

    fn with_flipped(&self, at: u64) -> (SimDisk, Track) {
        let disk = self.disk.fork();
        disk.flip_bit(&self.path, at, u8::try_from(at % 8).unwrap()).unwrap();
        let track = self.opened(&disk);
        (disk, track)
    }

    /// Reads every stream: how many came whole, and how many with damage in the run's table.
    fn read_each(&self, log: &Log) -> (usize, usize) {
        let (mut whole, mut damaged) = (0, 0);
        for id in (0..STREAMS).map(stream) {
            let mut found = Vec::new();
            let read = log.stream(id, Seq::ZERO, &mut |frame| {
                found.push((id, frame.seq().get(), frame.lsn().get()));
                ControlFlow::Continue(())
            });
            match read {
                Ok(_) => {
                    let own = self.written.iter().filter(|(stream, ..)| *stream == id);
                    assert!(found.iter().eq(own), "{id} is not what was written");
                    whole += 1;
                }
                Err(error) => {
                    is_of_table(&error, &self.path);
                    damaged += 1;
                }
            }
        }
        (whole, damaged)
    }

    /// Reads all frames by position, up to the first error.
    fn read_all(&self, log: &Log) -> Option<ReadError> {
        let mut found = Vec::new();
        let mut read = || -> Result<(), ReadError> {
            let mut frames = log.frames(0, Limit::Written)?;
            while let Some(frame) = frames.next()? {
                if frame.stream() != StreamId::SYSTEM {
                    found.push((frame.stream(), frame.seq().get(), frame.lsn().get()));
                }
            }
            Ok(())
        };
        let error = read().err();
        assert!(self.written.starts_with(&found), "what was read is not what was written");
        assert!(error.is_some() || found.len() == self.written.len(), "something is missing");
        error
    }
}

fn is_of_table(error: &ReadError, path: &Path) {
    let ReadError::Damage(damage) = error else { panic!("{error}") };
    assert_eq!(damage.file, path);
    assert!(matches!(damage.reason, DamageReason::Table(_)), "{damage}");
}

#[test]
fn damage_in_a_block_of_a_runs_table_is_noticed_by_all_who_need_it_and_by_no_others() {
    let many = many();
    let header = RunHeader::decode(&many.bytes).unwrap();
    let table = &many.bytes[usize::try_from(header.table).unwrap()..];
    RunTable::check(&header, table).unwrap();
    let blocks = table.len() as u64 / BLOCK + 1;
    assert!(blocks >= 4, "only {blocks} blocks");
    let (mut partial, mut noticed) = (0, 0);
    let places = (0..blocks).flat_map(|block| [0, 1, BLOCK / 2, BLOCK - 1].map(|at| (block, at)));
    for at in places.map(|(block, at)| header.table + block * BLOCK + at) {
        if at >= many.bytes.len() as u64 {
            continue;
        }
        let (_disk, track) = many.with_flipped(at);
        let log = track.log.as_ref().unwrap();
        let (whole, damaged) = many.read_each(log);
        let error = many.read_all(log);
        if let Some(error) = &error {
            is_of_table(error, &many.path);
        }
        assert!(damaged > 0 || error.is_some(), "{at}: nobody has noticed");
        noticed += 1;
        partial += usize::from(whole > 0 && damaged > 0);
        // Who reads all of it takes none of it.
        is_of_table(&compact(log).unwrap_err(), &many.path);
    }
    assert!(partial >= 4, "of {noticed} places in {partial} some streams could be read");
    let track = many.opened(&many.disk.fork());
    let log = track.log.as_ref().unwrap();
    assert_eq!(many.read_each(log), (900, 0));
    assert!(many.read_all(log).is_none());
}

#[test]
fn a_flipped_bit_in_the_sums_of_a_runs_table_is_damage_to_all() {
    let many = many();
    let header = RunHeader::decode(&many.bytes).unwrap();
    let end = many.bytes.len() as u64;
    let summed = (end - header.table - 4).div_ceil(BLOCK + 4);
    for at in end - summed * 4..end {
        let (_disk, track) = many.with_flipped(at);
        assert_eq!(many.read_each(track.log.as_ref().unwrap()), (0, 900), "byte {at}");
    }
}

/// The same run as version 1 has it: without sums, its table summed as a whole.
fn of_version_1(bytes: &[u8]) -> Vec<u8> {
    let mut header = RunHeader::decode(bytes).unwrap();
    let table = usize::try_from(header.table).unwrap();
    header.sums = false;
    header.bytes = header.table + header.table_bytes();
    let mut bytes = bytes[..usize::try_from(header.bytes).unwrap()].to_vec();
    header.table_crc = crc32fast::hash(&bytes[table..]);
    bytes[..4096].copy_from_slice(&header.encode());
    assert_eq!(bytes[8..12], 1_u32.to_le_bytes());
    bytes
}

#[test]
fn a_run_of_version_1_is_read_and_any_damage_to_its_table_is_damage_to_all() {
    let mut many = many();
    many.bytes = of_version_1(&many.bytes);
    many.disk.put(&many.path, many.bytes.clone()).unwrap();
    let table = RunHeader::decode(&many.bytes).unwrap().table;
    for at in (table..many.bytes.len() as u64).step_by(1_009) {
        let (_disk, track) = many.with_flipped(at);
        let log = track.log.as_ref().unwrap();
        assert_eq!(many.read_each(log), (0, 900), "byte {at}");
        is_of_table(&many.read_all(log).unwrap(), &many.path);
    }
    let track = many.opened(&many.disk.fork());
    let log = track.log.as_ref().unwrap();
    assert_eq!(many.read_each(log), (900, 0));
    assert!(many.read_all(log).is_none());
}

#[test]
fn a_run_of_a_later_version_is_refused_by_its_name_and_nothing_is_changed() {
    let many = many();
    let mut later = many.bytes.clone();
    later[8..12].copy_from_slice(&3_u32.to_le_bytes());
    let crc = crc32fast::hash(&later[..4092]);
    later[4092..4096].copy_from_slice(&crc.to_le_bytes());
    many.disk.put(&many.path, later).unwrap();
    let before = snapshot(&many.disk);
    match many.track.clone().open(&many.disk, life(3)) {
        Err(OpenError::Version { path, found: 3, known: 2 }) => assert_eq!(path, many.path),
        other => panic!("{other:?}"),
    }
    assert!(snapshot(&many.disk) == before, "something was changed");
}
