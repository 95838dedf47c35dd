//! Checkpoints: what an open would else have to read all segments for.
//!
//! `ckpt-<position, 20 digits>` holds the headers of all segments that had begun below the
//! position, what had been counted up to it, and a *testimony*: what a [`Witness`] above the log
//! wants to be found again. It is written at seal and at close, once everything below the position
//! and below that of the testimony is durable, and the last two are kept. The newest one that
//! validates and whose position is part of the log is used; without one the headers are read
//! from the segments and the counts from the frames, which takes longer and ends the same.
//!
//! ```text
//!  0  magic     8 bytes  "ANNALCKP"
//!  8  version   u32      2
//! 12  segments  u32
//! 16  log       u64      the log's id
//! 24  position  u64      everything below is covered
//! 32  frames    u64      } appended below the position,
//! 40  events    u64      } over all lives
//! 48  streams   u64      }
//! 56  told      u64      position of the testimony; all ones: there is none
//! 64  bytes     u64      of the testimony
//! 72  segments: { base, bytes, life number, life bits, previous, end } u64 each, as in a header
//!     crc       u32      over the testimony
//!     crc       u32      over all before
//!     testimony          to the end of the file
//! ```
//!
//! The two checksums fail apart: a testimony that is damaged takes no header with it. And the
//! testimony alone is large, so it is read by whoever wants it and not at every open.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segment::{Previous, Segment, SegmentHeader};
use crate::disk::{Access, Disk, read_full, write_full};
use crate::error::DiskError;
use crate::types::{Life, to_usize};

const MAGIC: [u8; 8] = *b"ANNALCKP";
const VERSION: u32 = 2;
const HEADER: usize = 72;
const ENTRY: usize = 48;
const CRCS: usize = 8;
const NONE: u64 = u64::MAX;
const PREFIX: &str = "ckpt-";
/// How many are kept.
const KEPT: usize = 2;
/// More segments there are none.
const SEGMENTS_MAX: usize = 1_000_000;
/// The largest testimony: one that is larger is not kept, and the one before stays.
pub(super) const TESTIMONY_MAX: u64 = 256 << 20;

/// What was appended over all lives of a log.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames, system frames included.
    pub frames: u64,
    /// Events in them.
    pub events: u64,
    /// Streams that were begun, but for those that Annals keeps for itself (`annals.cursor` and
    /// others): actors, that is.
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
    /// Everything below has gone into it, and nothing at or above. At most what is
    /// [written](super::Log::written).
    pub position: u64,
    /// Whatever it is; at most 256 MiB.
    pub bytes: Vec<u8>,
}

/// Who is asked, whenever a checkpoint is written, what it should hold.
pub trait Witness: std::fmt::Debug + Send + Sync {
    /// What there is now; `None` where that is not known. Called without any lock of the log's: it
    /// may wait for one under which others append.
    fn testify(&self) -> Option<Testimony>;
}

/// What a checkpoint's head says of the testimony behind it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Told {
    position: u64,
    bytes: u64,
    crc: u32,
}

/// A checkpoint's content, without the testimony itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub position: u64,
    pub totals: Totals,
    pub headers: BTreeMap<u64, SegmentHeader>,
    told: Option<Told>,
    /// Where it was found.
    path: PathBuf,
}

impl Checkpoint {
    pub(super) fn new(position: u64, totals: Totals, segments: &[Arc<Segment>]) -> Self {
        let headers = segments
            .iter()
            .filter(|segment| segment.header.base < position)
            .map(|segment| (segment.header.base, segment.header))
            .collect();
        Self { position, totals, headers, told: None, path: PathBuf::new() }
    }

    /// Everything but the testimony.
    fn encode_head(&self, log: u64, testimony: Option<&Testimony>) -> Vec<u8> {
        let mut file = Vec::with_capacity(head_bytes(self.headers.len()));
        let segments = u32::try_from(self.headers.len()).unwrap_or(u32::MAX);
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&segments.to_le_bytes());
        let Totals { frames, events, streams } = self.totals;
        let told = testimony.map_or((NONE, 0), |it| (it.position, it.bytes.len() as u64));
        let mut numbers = vec![log, self.position, frames, events, streams, told.0, told.1];
        for header in self.headers.values() {
            let previous = header.previous.map_or(NONE, |previous| previous.base);
            let end = header.previous.and_then(|previous| previous.end).unwrap_or(0);
            let Life { number, bits } = header.life;
            numbers.extend([header.base, header.bytes, number, bits, previous, end]);
        }
        for number in numbers {
            file.extend_from_slice(&number.to_le_bytes());
        }
        let crc = testimony.map_or(0, |testimony| crc32fast::hash(&testimony.bytes));
        file.extend_from_slice(&crc.to_le_bytes());
        let crc = crc32fast::hash(&file);
        file.extend_from_slice(&crc.to_le_bytes());
        file
    }

    /// `head` is all of the file but the testimony.
    fn decode_head(head: &[u8], log: u64) -> Option<Self> {
        let (body, crc) = head.split_last_chunk::<4>()?;
        if crc32fast::hash(body).to_le_bytes() != *crc || !body.starts_with(&MAGIC) {
            return None;
        }
        let (body, told_crc) = body.split_last_chunk::<4>()?;
        let (version, rest) = body.get(8..)?.split_first_chunk::<4>()?;
        let (segments, rest) = rest.split_first_chunk::<4>()?;
        let mut numbers = rest.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || numbers.next();
        if u32::from_le_bytes(*version) != VERSION || next()? != log {
            return None;
        }
        let position = next()?;
        let totals = Totals { frames: next()?, events: next()?, streams: next()? };
        let told = Told { position: next()?, bytes: next()?, crc: u32::from_le_bytes(*told_crc) };
        let told = (told.position != NONE).then_some(told);
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
        Some(Self { position, totals, headers, told, path: PathBuf::new() })
    }

    /// Makes it durable in `dir`, with `testimony`, and removes those that are older than the last
    /// two. **Everything below its position and the testimony's must be durable.**
    pub(super) fn write(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        log: u64,
        testimony: Option<&Testimony>,
    ) -> Result<(), DiskError> {
        let path = dir.join(format!("{PREFIX}{:020}", self.position));
        let temporary = dir.join("ckpt.tmp");
        let file =
            disk.open(&temporary, Access::Create).map_err(DiskError::at("creating", &temporary))?;
        let head = self.encode_head(log, testimony);
        write_full(&*file, &head, 0).map_err(DiskError::at("writing", &temporary))?;
        if let Some(testimony) = testimony {
            write_full(&*file, &testimony.bytes, head.len() as u64)
                .map_err(DiskError::at("writing", &temporary))?;
        }
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
        paths.into_iter().filter_map(|(_, path)| Self::read(disk, path, log)).collect()
    }

    fn read(disk: &dyn Disk, path: PathBuf, log: u64) -> Option<Self> {
        let file = disk.open(&path, Access::Read).ok()?;
        let mut start = [0; HEADER];
        if read_full(&*file, &mut start, 0).ok()? < HEADER {
            return None;
        }
        let segments = start.get(12..)?.first_chunk::<4>()?;
        let segments = usize::try_from(u32::from_le_bytes(*segments)).ok()?;
        let bytes = head_bytes(Some(segments).filter(|count| *count <= SEGMENTS_MAX)?);
        // Before there is a buffer for it.
        file.len().ok().filter(|length| *length >= bytes as u64)?;
        let mut head = vec![0; bytes];
        let read = read_full(&*file, &mut head, 0).ok()?;
        head.truncate(read);
        Some(Self { path, ..Self::decode_head(&head, log)? })
    }

    /// Where its testimony was given, if it holds one.
    pub(super) fn told(&self) -> Option<u64> {
        self.told.map(|told| told.position)
    }

    /// Is it of a log that ended at `end`, or before?
    pub(super) fn is_within(&self, end: u64) -> bool {
        self.position <= end && self.told().is_none_or(|told| told <= end)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its testimony, read again from its file: `None` where it holds none or it is damaged.
    pub(super) fn testimony(&self, disk: &dyn Disk) -> Option<Testimony> {
        let told = self.told.filter(|told| told.bytes <= TESTIMONY_MAX)?;
        let file = disk.open(&self.path, Access::Read).ok()?;
        let head = head_bytes(self.headers.len()) as u64;
        file.len().ok().filter(|length| *length == head.saturating_add(told.bytes))?;
        let mut bytes = vec![0; to_usize(told.bytes)];
        let read = read_full(&*file, &mut bytes, head).ok()?;
        let whole = read == bytes.len() && crc32fast::hash(&bytes) == told.crc;
        whole.then_some(Testimony { position: told.position, bytes })
    }
}

/// Everything before the testimony.
const fn head_bytes(segments: usize) -> usize {
    HEADER + segments * ENTRY + CRCS
}

/// Is the file at `path` a checkpoint of this log, and its testimony whole?
pub(crate) fn checkpoint_is_valid(disk: &dyn Disk, path: &Path, log: u64) -> bool {
    let found = Checkpoint::read(disk, path.to_owned(), log);
    found.is_some_and(|it| it.told.is_none() || it.testimony(disk).is_some())
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
    use crate::disk::sim::SimDisk;

    const LOG: u64 = 7;

    fn checkpoint() -> Checkpoint {
        let life = Life { number: 2, bits: 3 };
        let header = |base, previous| SegmentHeader { log: LOG, base, bytes: 8192, life, previous };
        Checkpoint {
            position: 16_384,
            totals: Totals { frames: 5, events: 6, streams: 1 },
            headers: [
                header(0, None),
                header(8192, Some(Previous { base: 0, end: Some(5000) })),
                header(16_384, Some(Previous { base: 8192, end: None })),
            ]
            .map(|header| (header.base, header))
            .into(),
            told: None,
            path: PathBuf::new(),
        }
    }

    /// What is found of a file with these bytes.
    fn found(file: Vec<u8>, log: u64) -> Option<(Checkpoint, Option<Testimony>)> {
        let disk = SimDisk::new(1);
        let path = PathBuf::from("/ckpt-00000000000000016384");
        disk.put(&path, file).unwrap();
        let read = Checkpoint::read(&disk, path.clone(), log);
        let valid = checkpoint_is_valid(&disk, &path, log);
        let read = read.map(|it| {
            let testimony = it.testimony(&disk);
            (Checkpoint { told: None, path: PathBuf::new(), ..it }, testimony)
        });
        assert!(read.is_some() || !valid);
        read
    }

    fn file(testimony: Option<&Testimony>) -> Vec<u8> {
        let bytes = testimony.map(|it| it.bytes.clone()).unwrap_or_default();
        [checkpoint().encode_head(LOG, testimony), bytes].concat()
    }

    #[test]
    fn a_checkpoint_comes_back_and_every_flipped_bit_is_noticed() {
        let told = Testimony { position: 17_000, bytes: b"what is owed, and to whom".to_vec() };
        let empty = Testimony { position: 0, bytes: Vec::new() };
        for testimony in [None, Some(empty), Some(told)] {
            let whole = file(testimony.as_ref());
            let head = head_bytes(3);
            assert_eq!(found(whole.clone(), LOG), Some((checkpoint(), testimony.clone())));
            assert_eq!(found(whole.clone(), LOG + 1), None, "another log's");
            // Of what lies behind the head, the testimony alone is lost with it.
            let without = Some((checkpoint(), None));
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let left = if bit / 8 < head { None } else { without.clone() };
                assert_eq!(found(flipped, LOG), left, "bit {bit}");
            }
            for cut in 0..whole.len() {
                let left = if cut < head { None } else { without.clone() };
                assert_eq!(found(whole[..cut].to_vec(), LOG), left, "cut at {cut}");
            }
            let longer = [whole.as_slice(), b"x"].concat();
            assert_eq!(found(longer, LOG), without, "a byte too many");
        }
    }

    #[test]
    fn a_forged_length_of_a_checkpoint_takes_no_memory() {
        let told = Testimony { position: 17_000, bytes: b"short".to_vec() };
        let whole = file(Some(&told));
        let head = head_bytes(3);
        for bytes in [6, u64::from(u32::MAX), u64::MAX / 2, u64::MAX] {
            let mut forged = whole.clone();
            forged[64..72].copy_from_slice(&bytes.to_le_bytes());
            let crc = crc32fast::hash(&forged[..head - 4]).to_le_bytes();
            forged[head - 4..head].copy_from_slice(&crc);
            assert_eq!(found(forged, LOG), Some((checkpoint(), None)), "{bytes} bytes");
        }
        for segments in [4, 1_000_001, u32::MAX] {
            let mut forged = whole.clone();
            forged[12..16].copy_from_slice(&segments.to_le_bytes());
            assert_eq!(found(forged, LOG), None, "{segments} segments");
        }
    }
}
