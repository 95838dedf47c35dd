//! Checkpoints: what an open would else have to read all segments for.
//!
//! `ckpt-<position, 20 digits>` holds the headers of all segments that had begun below the
//! position, and what had been counted up to it. It is written at seal and at close, once
//! everything below the position is durable, and the last two are kept. The newest one that
//! validates and whose position is part of the log is used; without one the headers are read
//! from the segments and the counts from the frames, which takes longer and ends the same.
//!
//! ```text
//!  0  magic     8 bytes  "ANNALCKP"
//!  8  version   u32      1
//! 12  segments  u32
//! 16  log       u64      the log's id
//! 24  position  u64      everything below is covered
//! 32  frames    u64      } appended below the position,
//! 40  events    u64      } over all lives
//! 48  streams   u64      }
//! 56  segments: { base, bytes, life number, life bits, previous, end } u64 each, as in a header
//!     crc       u32      over all before
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segment::{Previous, Segment, SegmentHeader};
use crate::disk::{Access, Disk, read_full, write_full};
use crate::error::DiskError;
use crate::types::{Life, to_usize};

const MAGIC: [u8; 8] = *b"ANNALCKP";
const VERSION: u32 = 1;
const HEADER: usize = 56;
const ENTRY: usize = 48;
const NONE: u64 = u64::MAX;
const PREFIX: &str = "ckpt-";
/// How many are kept.
const KEPT: usize = 2;
/// Larger files are none of ours: a million segments.
const BYTES_MAX: u64 = (HEADER + 4 + ENTRY * 1_000_000) as u64;

/// What was appended over all lives of a log.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames, system frames included.
    pub frames: u64,
    /// Events in them.
    pub events: u64,
    /// Streams that were begun.
    pub streams: u64,
}

impl Totals {
    /// A forged checkpoint can say anything, so it saturates.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            frames: self.frames.saturating_add(other.frames),
            events: self.events.saturating_add(other.events),
            streams: self.streams.saturating_add(other.streams),
        }
    }
}

/// What somebody above the log wants to be found again without reading what is below `position`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Testimony {
    /// Everything below has gone into it, and nothing at or above.
    pub position: u64,
    /// Whatever it is.
    pub bytes: Vec<u8>,
}

/// Who is asked, whenever a checkpoint is written, what it should hold.
pub trait Witness: std::fmt::Debug + Send + Sync {
    /// What there is now; `None` where that is not known.
    fn testify(&self) -> Option<Testimony>;
}

/// A checkpoint's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub position: u64,
    pub totals: Totals,
    pub headers: BTreeMap<u64, SegmentHeader>,
}

impl Checkpoint {
    pub(super) fn new(position: u64, totals: Totals, segments: &[Arc<Segment>]) -> Self {
        let headers = segments
            .iter()
            .filter(|segment| segment.header.base < position)
            .map(|segment| (segment.header.base, segment.header))
            .collect();
        Self { position, totals, headers }
    }

    fn encode(&self, log: u64) -> Vec<u8> {
        let mut file = Vec::with_capacity(HEADER + self.headers.len() * ENTRY + 4);
        let segments = u32::try_from(self.headers.len()).unwrap_or(u32::MAX);
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&segments.to_le_bytes());
        let Totals { frames, events, streams } = self.totals;
        let mut numbers = vec![log, self.position, frames, events, streams];
        for header in self.headers.values() {
            let previous = header.previous.map_or(NONE, |previous| previous.base);
            let end = header.previous.and_then(|previous| previous.end).unwrap_or(0);
            let Life { number, bits } = header.life;
            numbers.extend([header.base, header.bytes, number, bits, previous, end]);
        }
        for number in numbers {
            file.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&file);
        file.extend_from_slice(&crc.to_le_bytes());
        file
    }

    fn decode(file: &[u8], log: u64) -> Option<Self> {
        let (body, crc) = file.split_last_chunk::<4>()?;
        if crc32fast::hash(body).to_le_bytes() != *crc || !body.starts_with(&MAGIC) {
            return None;
        }
        let (version, rest) = body.get(8..)?.split_first_chunk::<4>()?;
        let (segments, rest) = rest.split_first_chunk::<4>()?;
        let mut numbers = rest.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || numbers.next();
        if u32::from_le_bytes(*version) != VERSION || next()? != log {
            return None;
        }
        let position = next()?;
        let totals = Totals { frames: next()?, events: next()?, streams: next()? };
        let mut headers = BTreeMap::new();
        for _ in 0..u32::from_le_bytes(*segments) {
            let (base, bytes) = (next()?, next()?);
            let life = Life { number: next()?, bits: next()? };
            let (previous, end) = (next()?, next()?);
            let previous = (previous != NONE)
                .then_some(Previous { base: previous, end: (end != 0).then_some(end) });
            let header = SegmentHeader { log, base, bytes, life, previous };
            headers.insert(base, Some(header).filter(SegmentHeader::is_possible)?);
        }
        Some(Self { position, totals, headers })
    }

    /// Makes it durable in `dir` and removes those that are older than the last two.
    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path, log: u64) -> Result<(), DiskError> {
        let path = dir.join(format!("{PREFIX}{:020}", self.position));
        let temporary = dir.join("ckpt.tmp");
        let file =
            disk.open(&temporary, Access::Create).map_err(DiskError::at("creating", &temporary))?;
        write_full(&*file, &self.encode(log), 0).map_err(DiskError::at("writing", &temporary))?;
        file.sync_data().map_err(DiskError::at("syncing", &temporary))?;
        disk.rename(&temporary, &path).map_err(DiskError::at("renaming", &temporary))?;
        disk.sync_dir(dir).map_err(DiskError::at("syncing", dir))?;
        for (_, old) in list(disk, dir)?.into_iter().skip(KEPT) {
            disk.remove(&old).map_err(DiskError::at("removing", &old))?;
        }
        Ok(())
    }

    /// The valid checkpoints in `dir`, newest first. What cannot be read is none.
    pub(super) fn read_all(disk: &dyn Disk, dir: &Path, log: u64) -> Vec<Self> {
        let paths = list(disk, dir).unwrap_or_default();
        paths.iter().filter_map(|(_, path)| Self::read(disk, path, log)).collect()
    }

    fn read(disk: &dyn Disk, path: &Path, log: u64) -> Option<Self> {
        let file = disk.open(path, Access::Read).ok()?;
        let bytes = file.len().ok().filter(|bytes| *bytes <= BYTES_MAX)?;
        let mut content = vec![0; to_usize(bytes)];
        let read = read_full(&*file, &mut content, 0).ok()?;
        content.truncate(read);
        Self::decode(&content, log)
    }
}

/// Is the file at `path` a checkpoint of this log?
pub(crate) fn checkpoint_is_valid(disk: &dyn Disk, path: &Path, log: u64) -> bool {
    Checkpoint::read(disk, path, log).is_some()
}

/// The checkpoint files in `dir`, newest first.
fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<(u64, PathBuf)>, DiskError> {
    let entries = disk.list(dir).map_err(DiskError::at("listing", dir))?;
    let mut found: Vec<(u64, PathBuf)> = entries
        .into_iter()
        .filter_map(|entry| {
            let digits = entry.name.strip_prefix(PREFIX)?;
            let position = (digits.len() == 20).then(|| digits.parse().ok())??;
            Some((position, dir.join(&entry.name)))
        })
        .collect();
    found.sort_unstable_by_key(|(position, _)| std::cmp::Reverse(*position));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_and_every_flipped_bit_is_noticed() {
        let life = Life { number: 2, bits: 3 };
        let header = |base, previous| SegmentHeader { log: 7, base, bytes: 8192, life, previous };
        let checkpoint = Checkpoint {
            position: 16_384,
            totals: Totals { frames: 5, events: 6, streams: 1 },
            headers: [
                header(0, None),
                header(8192, Some(Previous { base: 0, end: Some(5000) })),
                header(16_384, Some(Previous { base: 8192, end: None })),
            ]
            .map(|header| (header.base, header))
            .into(),
        };
        let file = checkpoint.encode(7);
        assert_eq!(Checkpoint::decode(&file, 7), Some(checkpoint));
        assert_eq!(Checkpoint::decode(&file, 8), None, "another log's");
        for bit in 0..file.len() * 8 {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Checkpoint::decode(&file, 7), None, "bit {bit}");
        }
        for cut in 0..file.len() {
            assert_eq!(Checkpoint::decode(&file[..cut], 7), None, "cut at {cut}");
        }
    }
}
