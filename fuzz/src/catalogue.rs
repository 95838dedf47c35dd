//! The catalogue's stamp, of any bytes: believed only where it is right.
//!
//! sled itself takes long to open and may panic on its own threads, so its files are not what is
//! tried here (`store::tests` damages those). A stamp says up to which frame names were taken in.
//! **It is believed only if it names a durable frame of this log with that frame's checksum, and
//! what is read behind it is exactly what was not taken in.**

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use annals::catalogue::{believed, names_from};
use annals::disk::Disk;
use annals::disk::sim::SimDisk;
use annals::error::OpenError;
use annals::log::frame::{Batch, RecordKind};
use annals::log::{Limit, Log, LogOptions, Opening, name};
use annals::types::{Life, Seq, StreamId};

use crate::damage::Input;

const LOG_ID: u64 = 0x5eed;
const NAMES: u64 = 60;

/// One input.
pub fn run(data: &[u8]) {
    thread_local! {
        static BASE: OnceCell<Base> = const { OnceCell::new() };
    }
    BASE.with(|base| base.get_or_init(Base::new).check(data));
}

/// A log with names, a lost range and a tail that is not durable.
struct Base {
    log: Log,
    /// Checksum, and the kinds and names in the frame; by position. Durable frames only.
    frames: BTreeMap<u64, (u32, Option<(String, String)>)>,
    undurable: Vec<u64>,
}

impl Base {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let first = open(&disk, 1).expect("an empty disk");
        append(&first, 0..NAMES / 2);
        first.sync().expect("a disk that works");
        append(&first, 1_000..1_010);
        let cut = disk.power_cut_losing_all();
        drop(first);
        let log = open(&cut, 2).expect("a power cut is no damage");
        append(&log, NAMES / 2..NAMES);
        log.sync().expect("a disk that works");
        let durable = log.durable();
        append(&log, NAMES..NAMES + 5);
        let mut base = Self { log, frames: BTreeMap::new(), undurable: Vec::new() };
        let mut frames = base.log.frames(0, Limit::Written).expect("the beginning");
        while let Some(frame) = frames.next().expect("nothing is damaged") {
            let lsn = frame.lsn().get();
            if lsn >= durable {
                base.undurable.push(lsn);
                continue;
            }
            let record = frame.records().next().and_then(Result::ok);
            let named = record.filter(|record| record.kind == RecordKind::Name);
            let named = named.and_then(|record| name::decode(record.payload));
            let named = named.map(|(kind, name)| (kind.to_owned(), name.to_owned()));
            base.frames.insert(lsn, (frame.crc(), named));
        }
        base
    }

    fn check(&self, data: &[u8]) {
        let stamp = self.stamp(data);
        let Some(next) = believed(&self.log, &stamp) else { return };
        let number =
            |at: usize| u64::from_le_bytes(stamp[at..at + 8].try_into().expect("eight bytes"));
        let (id, lsn) = (number(0), number(8));
        let crc = u32::from_le_bytes(stamp[24..28].try_into().expect("four bytes"));
        assert_eq!(id, LOG_ID, "another log's stamp was believed");
        let taken_in = if lsn == 0 {
            assert_eq!(next, 0);
            0
        } else {
            let frame = self.frames.get(&lsn);
            assert!(frame.is_some_and(|(found, _)| *found == crc), "no durable frame at {lsn}");
            lsn
        };
        for kind in ["user", "order", "us"] {
            let all = names_from(&self.log, 0, kind).expect("nothing is damaged");
            let behind = names_from(&self.log, next, kind).expect("a place to go on from");
            let before: BTreeSet<String> = self
                .frames
                .range(..=taken_in)
                .filter_map(|(_, (_, named))| named.as_ref())
                .filter(|(found, _)| found == kind)
                .map(|(_, name)| name.clone())
                .collect();
            assert!(before.is_disjoint(&behind), "a name was taken in twice");
            assert_eq!(before.union(&behind).cloned().collect::<BTreeSet<_>>(), all, "{kind}");
        }
    }

    /// The input's bytes, or those of a frame that there is, changed a little.
    fn stamp(&self, data: &[u8]) -> Vec<u8> {
        let mut input = Input(data);
        let what = input.byte().unwrap_or(0);
        if what & 1 == 0 {
            return input.0.to_vec();
        }
        let at = input.below(self.frames.len() + self.undurable.len());
        let mut frames = self.frames.iter().map(|(lsn, (crc, _))| (*lsn, *crc));
        let (lsn, crc) = match at.checked_sub(self.frames.len()) {
            Some(at) => (self.undurable[at], self.crc(self.undurable[at])),
            None => frames.nth(at).expect("as many as that"),
        };
        let next = u64::from(input.word()) * 16;
        let mut stamp: Vec<u8> =
            [LOG_ID, lsn, next].into_iter().flat_map(u64::to_le_bytes).collect();
        stamp.extend_from_slice(&crc.to_le_bytes());
        for _ in 0..(what >> 1) % 4 {
            let at = input.below(stamp.len());
            stamp[at] ^= input.byte().unwrap_or(0);
        }
        stamp
    }

    fn crc(&self, lsn: u64) -> u32 {
        let mut frames = self.log.frames(lsn, Limit::Written).expect("a frame");
        frames.next().expect("nothing is damaged").expect("a frame").crc()
    }
}

fn open(disk: &SimDisk, life: u64) -> Result<Log, OpenError> {
    let disk: Arc<dyn Disk> = disk.handle();
    let life = Life { number: life, bits: life.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
    let options = LogOptions {
        ring: Some(PathBuf::from("/ring")),
        ring_bytes: 16 << 10,
        segment_bytes_first: 8 << 10,
        segment_bytes_max: 16 << 10,
        frame_bytes_max: 4 << 10,
        threads: false,
        ..LogOptions::new("/log")
    };
    Ok(Opening::new(&disk, options, LOG_ID, 0)?.start(life)?.0)
}

/// A stream each, with its name in the first frame.
fn append(log: &Log, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let kind = ["user", "order", "us"][usize::from(number.to_le_bytes()[0] % 3)];
        let name = number.to_string();
        let stream = StreamId::of(kind, &name);
        let mut batch = Batch::new();
        let record = name::encode(kind, &name).expect("short");
        batch.push(RecordKind::Name, 1, &record).expect("small");
        batch.push(RecordKind::Event, 1, &[1; 300]).expect("small");
        log.append(&mut batch, stream, Seq::new(1).expect("small")).expect("room");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the target would see refusals alone.
    #[test]
    fn the_stamp_of_every_durable_frame_is_believed_and_no_other_is() {
        let base = Base::new();
        assert!(base.undurable.len() == 5 && base.frames.len() > 60);
        let stamp = |lsn: u64, crc: u32| {
            let words = [LOG_ID, lsn, 0].into_iter().flat_map(u64::to_le_bytes);
            words.chain(crc.to_le_bytes()).collect::<Vec<u8>>()
        };
        for (lsn, (crc, _)) in &base.frames {
            assert!(believed(&base.log, &stamp(*lsn, *crc)).is_some(), "{lsn}");
            assert_eq!(believed(&base.log, &stamp(*lsn, *crc ^ 1)), None, "{lsn}");
            assert_eq!(believed(&base.log, &stamp(*lsn + 16, *crc)), None, "{lsn}");
        }
        for lsn in &base.undurable {
            assert_eq!(believed(&base.log, &stamp(*lsn, base.crc(*lsn))), None, "{lsn}");
        }
    }
}
