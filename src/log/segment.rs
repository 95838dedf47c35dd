//! The segment: a file of frames behind a header page.
//!
//! ```text
//!    0  magic        8 bytes  "ANNALSEG"
//!    8  version      u32      1
//!   12  layout       u32      how archives are laid out: see `layout`
//!   16  log          u64      random id of the log
//!   24  base         u64      position of this page; in the file's name too
//!   32  bytes        u64      size of the file
//!   40  life number  u64      the life that this segment was made in,
//!   48  life bits    u64      and its frames' until a Life frame says otherwise
//!   56  previous     u64      base of the segment before; all ones: none
//!   64  end          u64      recovery header: where the segment before ends, so that
//!                             `end..base` is lost for ever; 0: it ends with its Seal frame
//!   72  zeros
//! 4092  crc          u32      over all before
//! ```
//!
//! A segment is *prepared* (filled, headed, synced, named, its name synced) before its first
//! frame is stored. It is *sealed* when the next one is entered, and not written after that.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::frame::Salt;
use super::index::{Index, Mapped};
use super::rule::{Rule, holds};
use crate::disk::{Access, Disk, File, Fill, PAGE, PAGE_U64, SegmentMap, read_full, write_full};
use crate::error::{DiskError, OpenError};
use crate::types::{Life, to_usize};

/// The newest version of the format that this build reads, and the one it writes.
pub const FORMAT_VERSION: u32 = 1;

/// How rkyv lays archives out in this build: its byte order (1: little-endian), the bytes of a
/// pointer, the alignment of a `u64`. All three are chosen by features of rkyv, which any crate
/// in the tree can switch.
pub fn layout() -> u32 {
    static LAYOUT: OnceLock<u32> = OnceLock::new();
    *LAYOUT.get_or_init(|| {
        let little = rkyv::to_bytes::<rkyv::rancor::Error>(&1_u32)
            .is_ok_and(|bytes| bytes.first() == Some(&1));
        let pointer = size_of::<rkyv::primitive::ArchivedUsize>();
        let align = align_of::<rkyv::primitive::ArchivedU64>();
        let byte = |number: usize| u32::from(u8::try_from(number).unwrap_or(u8::MAX));
        u32::from(little) << 16 | byte(pointer) << 8 | byte(align)
    })
}

const MAGIC: [u8; 8] = *b"ANNALSEG";
const CRC_AT: usize = PAGE - 4;
const NO_PREVIOUS: u64 = u64::MAX;
/// No log comes this far: an exbibyte. A file that says so is none of ours.
pub(super) const POSITION_MAX: u64 = 1 << 60;

/// Offset of a segment's first frame.
pub const FIRST_FRAME: u64 = PAGE_U64;

/// The segment before, as a header names it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Its base.
    pub base: u64,
    /// In a recovery header: the position where it ends. Else it ends with its Seal.
    pub end: Option<u64>,
}

/// A segment's header page.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Random id of the log.
    pub log: u64,
    /// Position of the header page.
    pub base: u64,
    /// Size of the file.
    pub bytes: u64,
    /// The life that it was made in.
    pub life: Life,
    /// The segment before.
    pub previous: Option<Previous>,
}

/// Why a page is no header.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum HeaderReject {
    /// Damage, in a word.
    Bad(&'static str),
    /// A later version's.
    Version(u32),
    /// Another archive layout's.
    Layout(u32),
}

impl SegmentHeader {
    /// The page, checksum included.
    pub fn encode(&self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        let previous = self.previous.map_or(NO_PREVIOUS, |previous| previous.base);
        let end = self.previous.and_then(|previous| previous.end).unwrap_or(0);
        let mut fields = Vec::with_capacity(72);
        fields.extend_from_slice(&MAGIC);
        fields.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        fields.extend_from_slice(&layout().to_le_bytes());
        for number in
            [self.log, self.base, self.bytes, self.life.number, self.life.bits, previous, end]
        {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        let (body, crc) = page.split_at_mut(CRC_AT);
        for (target, field) in body.iter_mut().zip(fields) {
            *target = field;
        }
        crc.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        page
    }

    /// Reads a header page.
    ///
    /// # Errors
    /// Why it is none.
    pub fn decode(page: &[u8]) -> Result<Self, HeaderReject> {
        let (page, _) = page.split_first_chunk::<PAGE>().ok_or(HeaderReject::Bad("cut short"))?;
        let (body, crc) = page.split_at(CRC_AT);
        if crc != crc32fast::hash(body).to_le_bytes() {
            return Err(HeaderReject::Bad("its checksum does not match"));
        }
        let (magic, rest) = body.split_at(8);
        if magic != MAGIC {
            return Err(HeaderReject::Bad("it is not a segment's"));
        }
        let (words, numbers) = rest.split_at(8);
        let mut words = words.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        let version = words.next().unwrap_or(0);
        if version != FORMAT_VERSION {
            return Err(HeaderReject::Version(version));
        }
        let layout = words.next().unwrap_or(0);
        if layout != self::layout() {
            return Err(HeaderReject::Layout(layout));
        }
        let mut numbers = numbers.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || numbers.next().unwrap_or(0);
        let (log, base, bytes) = (next(), next(), next());
        let life = Life { number: next(), bits: next() };
        let (previous, end) = (next(), next());
        let previous = (previous != NO_PREVIOUS)
            .then_some(Previous { base: previous, end: (end != 0).then_some(end) });
        let header = Self { log, base, bytes, life, previous };
        if header.is_possible() {
            Ok(header)
        } else {
            Err(HeaderReject::Bad("its numbers are impossible"))
        }
    }

    /// Could a segment be there, and be that large? Asked of every header from a disk, so that
    /// nobody behind has to think of overflows: a checksum can be forged.
    pub(super) fn is_possible(&self) -> bool {
        self.base.is_multiple_of(PAGE_U64)
            && self.bytes.is_multiple_of(PAGE_U64)
            && self.bytes > FIRST_FRAME
            && self.base <= POSITION_MAX
            && self.bytes <= POSITION_MAX
            && self.previous.is_none_or(|previous| previous.base < self.base)
    }

    /// The first position behind the file.
    pub fn limit(&self) -> u64 {
        self.base + self.bytes
    }

    /// Position of the first frame.
    pub fn first_frame(&self) -> u64 {
        self.base + FIRST_FRAME
    }
}

/// `<base, 20 digits>.<ending>` in `dir`.
pub(super) fn file_path(dir: &Path, base: u64, ending: &str) -> PathBuf {
    dir.join(format!("{base:020}.{ending}"))
}

/// The base in a file's name, if it ends in `ending`.
pub(super) fn base_of(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending)?.strip_suffix('.')?;
    let base = digits.parse().ok().filter(|base| *base <= POSITION_MAX);
    if digits.len() == 20 { base } else { None }
}

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub header: SegmentHeader,
    pub path: PathBuf,
    /// Where its last frame ends, as a position; 0 until that is known for ever.
    end: AtomicU64,
    open: OnceLock<Opened>,
    disk: Arc<dyn Disk>,
    pub index: Mutex<Index>,
    /// The same, once it is in a file.
    pub mapped: OnceLock<Arc<Mapped>>,
    /// Made in this life, so that all frames in it are of this process.
    pub own: bool,
    /// Its index file has been written, or was tried to be.
    pub indexed: AtomicBool,
}

/// A file that was a segment's and is to be another's.
#[derive(Debug)]
pub(crate) struct Retired {
    pub path: PathBuf,
    file: Arc<dyn File>,
    pub bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Opened {
    pub file: Arc<dyn File>,
    pub map: SegmentMap,
}

impl Segment {
    /// A segment of an earlier life that ends at `end`; opened when it is first read.
    pub(super) fn existing(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        header: SegmentHeader,
        end: Option<u64>,
    ) -> Arc<Self> {
        Arc::new(Self::new(disk, dir, header, end))
    }

    fn new(disk: &Arc<dyn Disk>, dir: &Path, header: SegmentHeader, end: Option<u64>) -> Self {
        Self {
            header,
            path: file_path(dir, header.base, "seg"),
            end: AtomicU64::new(end.unwrap_or(0)),
            open: OnceLock::new(),
            disk: Arc::clone(disk),
            index: Mutex::new(Index::default()),
            mapped: OnceLock::new(),
            own: false,
            indexed: AtomicBool::new(false),
        }
    }

    /// Makes a segment that may be written at once: everything about it is durable.
    pub(super) fn prepare(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        header: SegmentHeader,
        fill: Fill,
    ) -> Result<Arc<Self>, DiskError> {
        let temporary = file_path(dir, header.base, "tmp");
        let made = Self::make(&**disk, &temporary, &header, fill);
        if made.is_err() {
            // What is left of it takes room that somebody may be waiting for. If it cannot be
            // removed either, the next open does.
            disk.remove(&temporary).unwrap_or_default();
        }
        Self::named(disk, dir, header, (&temporary, made?))
    }

    /// Makes a segment of the file of another, that nobody knows any more. What it holds behind
    /// the header page stays there: no frame of it validates in the new place.
    pub(super) fn prepare_again(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        header: SegmentHeader,
        retired: Retired,
    ) -> Result<Arc<Self>, DiskError> {
        let Retired { path, file, .. } = retired;
        let head = || {
            // It has its room; where the file system can take that back, it says so now.
            file.allocate(header.bytes, Fill::Reserve)
                .map_err(DiskError::at("allocating", &path))?;
            write_full(&*file, &header.encode(), 0).map_err(DiskError::at("writing", &path))?;
            file.sync_data().map_err(DiskError::at("syncing", &path))
        };
        if let Err(error) = head() {
            disk.remove(&path).unwrap_or_default();
            return Err(error);
        }
        Self::named(disk, dir, header, (&path, file))
    }

    /// Gives a file with a durable header its name.
    fn named(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        header: SegmentHeader,
        (temporary, file): (&Path, Arc<dyn File>),
    ) -> Result<Arc<Self>, DiskError> {
        let path = file_path(dir, header.base, "seg");
        disk.rename(temporary, &path).map_err(DiskError::at("renaming", temporary))?;
        // The directory is synced before the first frame: else a crash could keep a frame's
        // acknowledgement but lose the file's name.
        if holds(Rule::NameFirst) {
            disk.sync_dir(dir).map_err(DiskError::at("syncing", dir))?;
        }
        let map =
            file.map_segment(to_usize(header.bytes)).map_err(DiskError::at("mapping", &path))?;
        let open = OnceLock::from(Opened { file, map });
        Ok(Arc::new(Self { open, own: true, ..Self::new(disk, dir, header, None) }))
    }

    /// Takes a segment's file away from it, for [`prepare_again`](Self::prepare_again). `None`
    /// where somebody still reads it or has linked it. Then, or where the file system fails, the
    /// file is removed, or was called `.tmp` and the next open removes it.
    ///
    /// The caller has taken the segment out of the chain.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn retire(self: Arc<Self>, dir: &Path) -> Result<Option<Retired>, DiskError> {
        let (disk, from) = (Arc::clone(&self.disk), self.path.clone());
        let SegmentHeader { base, bytes, .. } = self.header;
        // Frames are borrowed from the map, and whoever does has the segment: the last one who
        // has it ends the map here. From now on nobody can see the bytes change.
        let unread = Arc::into_inner(self).map(drop).is_some();
        if !unread {
            disk.remove(&from).map_err(DiskError::at("removing", &from))?;
            return Ok(None);
        }
        let path = file_path(dir, base, "tmp");
        disk.rename(&from, &path).map_err(DiskError::at("renaming", &from))?;
        let take = || {
            // Durable before anything in it changes: else a crash could bring the old name back
            // for a file that is another segment's.
            disk.sync_dir(dir).map_err(DiskError::at("syncing", dir))?;
            let file = disk.open(&path, Access::Write).map_err(DiskError::at("opening", &path))?;
            // After it was renamed, because nobody links a file of that name.
            let links = file.links().map_err(DiskError::at("reading", &path))?;
            let same = file.len().map_err(DiskError::at("reading", &path))? == bytes;
            Ok((file, links == 1 && same))
        };
        match take() {
            Ok((file, true)) => Ok(Some(Retired { path, file, bytes })),
            Ok((_, false)) => {
                disk.remove(&path).map_err(DiskError::at("removing", &path))?;
                Ok(None)
            }
            Err(error) => {
                disk.remove(&path).unwrap_or_default();
                Err(error)
            }
        }
    }

    fn make(
        disk: &dyn Disk,
        temporary: &Path,
        header: &SegmentHeader,
        fill: Fill,
    ) -> Result<Arc<dyn File>, DiskError> {
        let file =
            disk.open(temporary, Access::Create).map_err(DiskError::at("creating", temporary))?;
        file.allocate(header.bytes, fill).map_err(DiskError::at("allocating", temporary))?;
        write_full(&*file, &header.encode(), 0).map_err(DiskError::at("writing", temporary))?;
        file.sync_data().map_err(DiskError::at("syncing", temporary))?;
        Ok(file)
    }

    /// The file and its map. What lies below the segment's end is published at the first call.
    pub(crate) fn opened(&self) -> Result<&Opened, DiskError> {
        if let Some(opened) = self.open.get() {
            return Ok(opened);
        }
        // Reads only reach segments that end; the one that is written was opened with `prepare`
        // or `reopen`.
        let opened = self.open_with(Access::Read)?;
        Ok(self.open.get_or_init(|| opened))
    }

    /// Opens a segment of an earlier life for writing on at its end.
    pub(super) fn reopen(&self) -> Result<&Opened, DiskError> {
        let opened = self.open_with(Access::Write)?;
        Ok(self.open.get_or_init(|| opened))
    }

    fn open_with(&self, access: Access) -> Result<Opened, DiskError> {
        let file =
            self.disk.open(&self.path, access).map_err(DiskError::at("opening", &self.path))?;
        let map = file
            .map_segment(to_usize(self.header.bytes))
            .map_err(DiskError::at("mapping", &self.path))?;
        if let Some(end) = self.end() {
            map.publish(to_usize(end - self.header.base));
        }
        Ok(Opened { file, map })
    }

    /// Where it ends, once it takes no more frames.
    pub(crate) fn end(&self) -> Option<u64> {
        // Acquire: pairs with the Release in `finish`.
        match self.end.load(Ordering::Acquire) {
            0 => None,
            end => Some(end),
        }
    }

    /// It takes no more frames.
    pub(super) fn finish(&self, end: u64) {
        debug_assert!(end > self.header.base && end <= self.header.limit());
        self.end.store(end, Ordering::Release);
        if let Some(opened) = self.open.get() {
            opened.map.sealed();
        }
    }

    /// It takes frames again: a life goes on where the one before was closed.
    pub(super) fn unfinish(&self) {
        self.end.store(0, Ordering::Release);
    }

    /// The checksum's salt for frames of `life` in it.
    pub(crate) fn salt(&self, life: Life) -> Salt {
        Salt { log: self.header.log, life, base: self.header.base }
    }
}

/// Reads a header page from a file.
///
/// # Errors
/// The file system's, or that a later version or another layout wrote it.
pub(super) fn read_header(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Result<SegmentHeader, &'static str>, OpenError> {
    let file = disk.open(path, Access::Read).map_err(DiskError::at("opening", path))?;
    let mut page = vec![0; PAGE];
    let read = read_full(&*file, &mut page, 0).map_err(DiskError::at("reading", path))?;
    page.truncate(read);
    match SegmentHeader::decode(&page) {
        Ok(header) => Ok(Ok(header)),
        Err(HeaderReject::Bad(reason)) => Ok(Err(reason)),
        Err(HeaderReject::Version(found)) => {
            Err(OpenError::Version { path: path.to_owned(), found, known: FORMAT_VERSION })
        }
        Err(HeaderReject::Layout(found)) => {
            Err(OpenError::Layout { path: path.to_owned(), found, here: layout() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            log: 7,
            base: 1 << 20,
            bytes: 1 << 16,
            life: Life { number: 3, bits: 99 },
            previous: Some(Previous { base: 0, end: Some(8192) }),
        }
    }

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        let header = header();
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        let first = SegmentHeader { previous: None, ..header };
        assert_eq!(SegmentHeader::decode(&first.encode()), Ok(first));
    }

    #[test]
    fn a_header_with_numbers_that_would_overflow_is_none() {
        for (base, bytes) in [(u64::MAX - 4095, 8192), (0, u64::MAX - 4095), (0, 4096), (1, 8192)] {
            let forged = SegmentHeader { base, bytes, ..header() };
            let read = SegmentHeader::decode(&forged.encode());
            assert!(matches!(read, Err(HeaderReject::Bad(_))), "{base} {bytes}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_page_is_noticed() {
        let page = header().encode();
        for bit in 0..PAGE * 8 {
            let mut page = page;
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&page).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn names_sort_as_their_positions_do() {
        let dir = Path::new("log");
        let path = file_path(dir, 1 << 20, "seg");
        assert_eq!(path, dir.join("00000000000001048576.seg"));
        assert_eq!(base_of("00000000000001048576.seg", "seg"), Some(1 << 20));
        let absurd = format!("{}.seg", u64::MAX);
        for other in ["1048576.seg", "00000000000001048576.idx", "x", "", &absurd] {
            assert_eq!(base_of(other, "seg"), None, "{other}");
        }
    }
}
