//! The index of a segment: stream -> offsets of its frames, and which life each frame is of.
//!
//! Derived: a missing, torn or damaged index file is built again from the frames. While a segment
//! is written its index grows in memory, when somebody asks; once it is sealed the index goes to
//! `<base>.idx` beside it and is mapped from there.
//!
//! ```text
//!  0  magic    8 bytes  "ANNALIDX"
//!  8  version  u32      1
//! 12  lives    u32      number of lives
//! 16  log      u64      the log's id
//! 24  base     u64      the segment's
//! 32  end      u64      where the segment ends, as a position
//! 40  rows     u32      number of streams
//! 44  entries  u32      number of frames
//! 48  words    u32      number of filter words
//! 52  0        u32
//! 56  crc      u32      over the whole file, this field zero
//! 60  seal     u32      offset / 16 of the end of the `Seal` frame; 0 if there is none
//! 64  lives    { offset u64, number u64, bits u64 }: from this offset on
//!     filter   u64 words: bits of the streams that are here
//!     rows     { stream u128, first seq u64, start u32, count u32 }, by stream
//!     entries  u32: offset / 16, grouped by row, in order
//! ```

use std::cmp::Ordering;
use std::path::Path;
use std::sync::Arc;

use super::frame::{FrameKind, Header as FrameHeader};
use super::segment::{FIRST_FRAME, Segment, SegmentHeader, file_path};
use crate::disk::{Access, Disk, PAGE_U64, SegmentMap, read_full, write_full};
use crate::error::{Damage, DamageReason, DiskError, ReadError};
use crate::types::{FRAME_ALIGN, Life, Seq, StreamId, StreamMap, halves, to_usize};

const MAGIC: [u8; 8] = *b"ANNALIDX";
const VERSION: u32 = 1;
const HEADER: usize = 64;
const CRC_AT: usize = 56;
const LIFE: usize = 24;
const ROW: usize = 32;
const END_OF_LIST: u32 = u32::MAX;

/// A segment's index, in whatever state it is.
#[derive(Debug, Default)]
pub(crate) enum Index {
    /// Nobody has asked yet.
    #[default]
    Unbuilt,
    /// Built in memory up to some offset. While it is written to its file, which is when it is
    /// whole, it is shared with who writes.
    Growing(Arc<Growing>),
    /// On disk, checked. The segment has it too, for who need not wait for the lock.
    Mapped(Arc<Mapped>),
}

/// An offset in a segment / 16, as an index file has it.
pub(super) type Place = [u8; 4];

/// The offset that a place speaks of.
#[inline]
pub(super) fn offset_of(place: Place) -> u64 {
    u64::from(u32::from_le_bytes(place)) * FRAME_ALIGN as u64
}

/// Where frames of one stream are in one segment.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Number of the first event there.
    pub first: Seq,
    /// (offset / 16) of each frame, in order.
    pub offsets: Vec<u32>,
    /// The life of all of them, where the segment knows only one.
    pub life: Option<Life>,
}

impl Index {
    /// Where `stream` is. Knows of what was indexed so far.
    pub(crate) fn places(&self, stream: StreamId) -> Option<Places> {
        let (places, lives) = match self {
            Self::Unbuilt => return None,
            Self::Growing(growing) => (growing.places(stream)?, &growing.lives),
            Self::Mapped(mapped) => (mapped.places(stream)?, &mapped.lives),
        };
        let only = match lives.as_slice() {
            [(_, life)] => Some(*life),
            _ => None,
        };
        Some(Places { life: only, ..places })
    }

    /// Streams in it, of a mapped index.
    pub(super) fn streams(&self) -> usize {
        match self {
            Self::Unbuilt => 0,
            Self::Growing(growing) => growing.rows.len(),
            Self::Mapped(mapped) => mapped.rows,
        }
    }

    /// The streams in order, where they are not in order already.
    pub(super) fn sorted(&self) -> Option<Vec<StreamId>> {
        let Self::Growing(growing) = self else { return None };
        let mut streams: Vec<StreamId> = growing.rows.keys().copied().collect();
        streams.sort_unstable();
        Some(streams)
    }

    /// The `number`-th stream of a mapped index.
    pub(super) fn stream(&self, number: usize) -> Option<StreamId> {
        let Self::Mapped(mapped) = self else { return None };
        mapped.stream_of(number).map(StreamId::from_u128)
    }

    /// Where the `Seal` frame ends, if it is known of.
    fn seal(&self) -> Option<u64> {
        match self {
            Self::Growing(growing) => growing.sealed.then_some(growing.upto),
            Self::Mapped(mapped) => mapped.seal,
            Self::Unbuilt => None,
        }
    }

    /// The life of the frame at `offset`.
    pub(crate) fn life_at(&self, offset: u64) -> Option<Life> {
        let lives = match self {
            Self::Unbuilt => return None,
            Self::Growing(growing) => &growing.lives,
            Self::Mapped(mapped) => &mapped.lives,
        };
        lives.iter().rev().find(|(from, _)| *from <= offset).map(|(_, life)| *life)
    }
}

/// An index in memory.
#[derive(Debug)]
pub(crate) struct Growing {
    /// Frames below this offset are in it.
    upto: u64,
    /// The `Seal` frame has been seen: there are no more.
    sealed: bool,
    lives: Vec<(u64, Life)>,
    rows: StreamMap<Row>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Row {
    first: Seq,
    /// Number of its newest entry.
    newest: u32,
    count: u32,
}

/// A frame. Entries of a stream are linked from the newest back: so that one more of them is added
/// without touching another, which lies anywhere.
#[derive(Copy, Clone, Debug)]
struct Entry {
    offset: u32,
    before: u32,
}

impl Growing {
    pub(super) fn new(life: Life) -> Self {
        Self {
            upto: FIRST_FRAME,
            sealed: false,
            lives: vec![(FIRST_FRAME, life)],
            rows: StreamMap::default(),
            entries: Vec::new(),
        }
    }

    fn life(&self) -> Life {
        self.lives.last().map_or(Life { number: 0, bits: 0 }, |(_, life)| *life)
    }

    /// Takes in a frame that somebody else has read at `offset` and checked, of `life`.
    pub(super) fn take(&mut self, header: &FrameHeader, offset: u64, life: Life) {
        self.upto = offset;
        if life != self.life() {
            self.lives.push((offset, life));
        }
        self.step(header);
    }

    fn step(&mut self, header: &FrameHeader) {
        self.add(header);
        self.sealed = header.kind == FrameKind::Seal;
        self.upto = after(header, self.upto);
    }

    fn add(&mut self, header: &FrameHeader) {
        if header.stream == StreamId::SYSTEM {
            return;
        }
        let (Ok(offset), Ok(number)) =
            (u32::try_from(self.upto / FRAME_ALIGN as u64), u32::try_from(self.entries.len()))
        else {
            return;
        };
        let new = Row { first: header.seq, newest: END_OF_LIST, count: 0 };
        let row = self.rows.entry(header.stream).or_insert(new);
        self.entries.push(Entry { offset, before: row.newest });
        row.newest = number;
        row.count += 1;
    }

    fn places(&self, stream: StreamId) -> Option<Places> {
        let row = self.rows.get(&stream)?;
        let mut offsets: Vec<u32> = self.offsets_back(row).collect();
        offsets.reverse();
        Some(Places { first: row.first, offsets, life: None })
    }

    /// Newest first.
    fn offsets_back(&self, row: &Row) -> impl Iterator<Item = u32> {
        let newest = self.entries.get(row.newest as usize);
        std::iter::successors(newest, |entry| self.entries.get(entry.before as usize))
            .map(|entry| entry.offset)
    }

    /// The index file's content.
    pub(super) fn encode(&self, header: &SegmentHeader, end: u64) -> Vec<u8> {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_unstable_by_key(|(stream, _)| **stream);
        let mut filter = vec![0_u64; (self.rows.len() / 6 + 1).next_power_of_two()];
        for (stream, _) in &rows {
            for bit in filter_bits(**stream, filter.len()) {
                if let Some(word) = filter.get_mut(bit / 64) {
                    *word |= 1 << (bit % 64);
                }
            }
        }
        let mut file = Vec::with_capacity(
            HEADER
                + self.lives.len() * LIFE
                + filter.len() * 8
                + rows.len() * ROW
                + self.entries.len() * 4,
        );
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&count(self.lives.len()));
        for number in [header.log, header.base, end] {
            file.extend_from_slice(&number.to_le_bytes());
        }
        for number in [rows.len(), self.entries.len(), filter.len()] {
            file.extend_from_slice(&count(number));
        }
        file.resize(HEADER, 0);
        for (offset, life) in &self.lives {
            for number in [*offset, life.number, life.bits] {
                file.extend_from_slice(&number.to_le_bytes());
            }
        }
        for word in &filter {
            file.extend_from_slice(&word.to_le_bytes());
        }
        let mut start = 0_u32;
        for (stream, row) in &rows {
            file.extend_from_slice(&stream.get().to_le_bytes());
            file.extend_from_slice(&row.first.get().to_le_bytes());
            file.extend_from_slice(&start.to_le_bytes());
            file.extend_from_slice(&row.count.to_le_bytes());
            start += row.count;
        }
        let mut offsets = Vec::new();
        for (_, row) in &rows {
            offsets.clear();
            offsets.extend(self.offsets_back(row));
            for offset in offsets.iter().rev() {
                file.extend_from_slice(&offset.to_le_bytes());
            }
        }
        let seal = if self.sealed { self.upto / FRAME_ALIGN as u64 } else { 0 };
        if let Some(field) = file.get_mut(CRC_AT + 4..HEADER) {
            field.copy_from_slice(&u32::try_from(seal).unwrap_or(0).to_le_bytes());
        }
        let crc = crc32fast::hash(&file).to_le_bytes();
        if let Some(field) = file.get_mut(CRC_AT..CRC_AT + 4) {
            field.copy_from_slice(&crc);
        }
        file
    }
}

/// Where the frame after the one at `offset` begins, in the same file.
#[inline]
pub(super) fn after(header: &FrameHeader, offset: u64) -> u64 {
    let end = offset + header.length as u64;
    match header.kind {
        FrameKind::Close => end.next_multiple_of(PAGE_U64),
        FrameKind::Single | FrameKind::Records | FrameKind::Seal | FrameKind::Life => end,
    }
}

/// The two bits of `stream` in a filter of `words` words.
fn filter_bits(stream: StreamId, words: usize) -> [usize; 2] {
    // The number of words is a power of two.
    let last = (words as u64).saturating_mul(64).saturating_sub(1);
    let [low, high] = halves(stream.get());
    [to_usize(low & last), to_usize(high & last)]
}

/// An index file, mapped and checked.
#[derive(Debug)]
pub(crate) struct Mapped {
    content: Content,
    lives: Vec<(u64, Life)>,
    words: usize,
    rows: usize,
    seal: Option<u64>,
}

/// Where an index file's bytes are.
#[derive(Debug)]
enum Content {
    Map(SegmentMap),
    /// Read: for who must not map what another process may take away.
    Read(Vec<u8>),
}

impl Content {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Map(map) => map.bytes(),
            Self::Read(bytes) => bytes,
        }
    }
}

/// Larger ones are none of ours: a segment of 32 GiB has no more frames than that.
const READ_MAX: u64 = 1 << 33;

impl Mapped {
    /// Reads the file instead of mapping it. `None` as for [`open`](Self::open).
    pub(super) fn read(
        disk: &dyn Disk,
        path: &Path,
        header: &SegmentHeader,
        end: u64,
    ) -> Option<Self> {
        let file = disk.open(path, Access::Read).ok()?;
        let bytes = file.len().ok().filter(|bytes| *bytes <= READ_MAX)?;
        let mut content = vec![0; to_usize(bytes)];
        let read = read_full(&*file, &mut content, 0).ok()?;
        content.truncate(read);
        Self::check(Content::Read(content), header, end)
    }

    /// The file's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.content.bytes()
    }

    /// The lives of the segment's frames, each with the offset that it begins at.
    pub(super) fn lives(&self) -> &[(u64, Life)] {
        &self.lives
    }

    /// Every stream here, with where its frames are.
    pub(super) fn all(&self) -> impl Iterator<Item = (StreamId, Places)> {
        let rows = self.rows_at();
        (0..self.rows).filter_map(move |row| {
            let stream = number::<16>(self.bytes(), rows + row * ROW)?;
            let stream = StreamId::from_u128(u128::from_le_bytes(stream));
            Some((stream, places_of(self.row(row)?)))
        })
    }

    /// `None` where the file is absent, damaged, or of another segment or end.
    fn open(disk: &dyn Disk, path: &Path, segment: &Segment, end: u64) -> Option<Self> {
        let file = disk.open(path, Access::Read).ok()?;
        let bytes = to_usize(file.len().ok()?);
        if bytes < HEADER {
            return None;
        }
        let map = file.map_segment(bytes).ok()?;
        map.publish(bytes);
        Self::check(Content::Map(map), &segment.header, end)
    }

    fn check(content: Content, header: &SegmentHeader, end: u64) -> Option<Self> {
        let bytes = content.bytes();
        let (before, rest) = bytes.split_at_checked(CRC_AT)?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(before);
        hasher.update(&[0; 4]);
        hasher.update(rest);
        let [log, base, stored_end] =
            [16, 24, 32].map(|at| number::<8>(bytes, at).map(u64::from_le_bytes));
        let [version, lives, rows, entries, words] =
            [8, 12, 40, 44, 48].map(|at| number::<4>(bytes, at).map(u32::from_le_bytes));
        let [lives, rows, entries, words] =
            [lives?, rows?, entries?, words?].map(|number| number as usize);
        let fits = HEADER + lives * LIFE + words * 8 + rows * ROW + entries * 4 == bytes.len();
        let ours = hasher.finalize() == u32::from_le_bytes(*crc)
            && before.starts_with(&MAGIC)
            && version == Some(VERSION)
            && (log, base, stored_end) == (Some(header.log), Some(header.base), Some(end))
            && words.is_power_of_two();
        if !(fits && ours) {
            return None;
        }
        let lives = (0..lives)
            .map(|life| {
                let at = HEADER + life * LIFE;
                let [offset, number, bits] =
                    [at, at + 8, at + 16].map(|at| number::<8>(bytes, at).map(u64::from_le_bytes));
                Some((offset?, Life { number: number?, bits: bits? }))
            })
            .collect::<Option<Vec<_>>>()?;
        // Another segment may have had this base and been set aside.
        let first = lives.first() == Some(&(FIRST_FRAME, header.life));
        let seal = number::<4>(bytes, CRC_AT + 4).map(u32::from_le_bytes);
        let seal = seal.filter(|seal| *seal != 0).map(|seal| u64::from(seal) * FRAME_ALIGN as u64);
        first.then_some(Self { content, lives, words, rows, seal })
    }

    /// The `row`-th stream.
    fn stream_of(&self, row: usize) -> Option<u128> {
        if row >= self.rows {
            return None;
        }
        let rows = self.rows_at();
        number::<16>(self.bytes(), rows + row * ROW).map(u128::from_le_bytes)
    }

    /// The life of all frames, where the segment knows only one.
    pub(super) fn only_life(&self) -> Option<Life> {
        match self.lives.as_slice() {
            [(_, life)] => Some(*life),
            _ => None,
        }
    }

    fn filter_at(&self) -> usize {
        HEADER + self.lives.len() * LIFE
    }

    fn rows_at(&self) -> usize {
        self.filter_at() + self.words * 8
    }

    /// Has fetched from memory what [`find`](Self::find) looks at first.
    pub(super) fn prefetch(&self, stream: StreamId) {
        let Content::Map(map) = &self.content else { return };
        for bit in filter_bits(stream, self.words) {
            map.prefetch(self.filter_at() + bit / 64 * 8, 8);
        }
        map.prefetch(self.rows_at() + self.share(stream.get()) * ROW, ROW);
    }

    /// Where `stream` is: the number of its first event, and its frames in order.
    pub(super) fn find(&self, stream: StreamId) -> Option<(Seq, &[Place])> {
        let bytes = self.bytes();
        let filter = self.filter_at();
        let here = filter_bits(stream, self.words).into_iter().all(|bit| {
            let word = number::<8>(bytes, filter + bit / 64 * 8).map_or(0, u64::from_le_bytes);
            word >> (bit % 64) & 1 == 1
        });
        if here { self.row(self.row_of(stream)?) } else { None }
    }

    pub(super) fn places(&self, stream: StreamId) -> Option<Places> {
        self.find(stream).map(places_of)
    }

    /// The `number`-th row.
    fn row(&self, row: usize) -> Option<(Seq, &[Place])> {
        let bytes = self.bytes();
        let rows = self.rows_at();
        let row = rows + row * ROW;
        let first = Seq::new(u64::from_le_bytes(number::<8>(bytes, row + 16)?))?;
        let [start, count] =
            [row + 24, row + 28].map(|at| number::<4>(bytes, at).map_or(0, u32::from_le_bytes));
        let entries = rows + self.rows * ROW + start as usize * 4;
        let entries = bytes.get(entries..entries + count as usize * 4)?;
        Some((first, entries.as_chunks::<4>().0))
    }
}

fn places_of((first, places): (Seq, &[Place])) -> Places {
    let offsets = places.iter().map(|place| u32::from_le_bytes(*place)).collect();
    Places { first, offsets, life: None }
}

/// How often a guess is mended before the rest is halved.
const GUESSES: usize = 8;

impl Mapped {
    /// How many of the rows stand below `hash`, if they are spread evenly.
    fn share(&self, hash: u128) -> usize {
        let [_, high] = halves(hash);
        let [_, below] = halves(u128::from(high) * self.rows as u128);
        to_usize(below)
    }

    /// The row of `stream`.
    ///
    /// Streams are hashes: where one stands follows from its number, about, and more exactly from
    /// who is found there. So the search ends after touching very few lines of memory. Where
    /// numbers are no hashes it goes on by halves.
    fn row_of(&self, stream: StreamId) -> Option<usize> {
        let target = stream.get();
        let share = |hash| self.share(hash);
        // It is in `low..high`, if it is anywhere.
        let (mut low, mut high) = (0, self.rows);
        let mut guess = share(target);
        let mut guesses = 0;
        while low < high {
            let at =
                if guesses < GUESSES { guess.clamp(low, high - 1) } else { low.midpoint(high) };
            guesses += 1;
            let there = self.stream_of(at)?;
            match there.cmp(&target) {
                Ordering::Equal => return Some(at),
                Ordering::Less => {
                    low = at + 1;
                    guess = low.saturating_add(share(target - there));
                }
                Ordering::Greater => {
                    high = at;
                    guess = at.saturating_sub(share(there - target)).saturating_sub(1);
                }
            }
        }
        None
    }
}

/// `N` bytes at `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

impl Segment {
    /// Brings the index up to what is published, building or loading it first.
    ///
    /// # Errors
    /// Damage, where a frame below the published end does not validate.
    pub(crate) fn catch_up(&self, disk: &dyn Disk, index: &mut Index) -> Result<(), ReadError> {
        if matches!(index, Index::Mapped(_)) {
            return Ok(());
        }
        let opened = self.opened()?;
        if matches!(index, Index::Unbuilt) {
            let dir = self.path.parent().unwrap_or(Path::new(""));
            let mapped = self.end().and_then(|end| {
                Mapped::open(disk, &file_path(dir, self.header.base, "idx"), self, end)
            });
            *index = match mapped {
                Some(mapped) => self.has_mapped(mapped),
                None => Index::Growing(Arc::new(Growing::new(self.header.life))),
            };
        }
        if let Index::Growing(growing) = index
            && let Some(growing) = Arc::get_mut(growing)
        {
            let bytes = opened.map.bytes();
            let grown = if self.own {
                growing.grow_own(bytes, self.header.base)
            } else {
                growing.grow(bytes, &|life| self.salt(life))
            };
            grown.map_err(|reject| {
                let at = self.header.base + growing.upto;
                Damage {
                    file: self.path.clone(),
                    offset: growing.upto,
                    lsns: at..at + FRAME_ALIGN as u64,
                    reason: DamageReason::Frame(reject),
                }
            })?;
        }
        self.found_seal(index);
        Ok(())
    }

    /// Its index is in a file, and stays there.
    fn has_mapped(&self, mapped: Mapped) -> Index {
        Index::Mapped(Arc::clone(self.mapped.get_or_init(|| Arc::new(mapped))))
    }

    /// A sealed segment of an earlier life is known by its size until its index is.
    fn found_seal(&self, index: &Index) {
        let end = index.seal().map(|offset| self.header.base + offset);
        if let Some(end) = end.filter(|end| *end < self.header.limit())
            && self.end() == Some(self.header.limit())
        {
            self.finish(end);
        }
    }

    /// Writes the index of a sealed, wholly stored segment to its file and goes on from there.
    ///
    /// # Errors
    /// As for [`catch_up`](Self::catch_up), and the file system's: the index stays in memory.
    pub(super) fn store_index(&self, disk: &Arc<dyn Disk>) -> Result<(), ReadError> {
        let Some(end) = self.end() else { return Ok(()) };
        let growing = {
            let mut index = self.index.lock();
            self.catch_up(&**disk, &mut index)?;
            let Index::Growing(growing) = &*index else { return Ok(()) };
            if !growing.sealed && growing.upto < end - self.header.base {
                return Ok(());
            }
            // Readers go on with it meanwhile.
            Arc::clone(growing)
        };
        // A sealed segment is known by its size to later lives, which have not read its seal.
        let end = if growing.sealed { self.header.limit() } else { end };
        let file = growing.encode(&self.header, end);
        let dir = self.path.parent().unwrap_or(Path::new(""));
        let temporary = file_path(dir, self.header.base, "itmp");
        let path = file_path(dir, self.header.base, "idx");
        let write = || -> Result<(), DiskError> {
            let target = disk
                .open(&temporary, Access::Create)
                .map_err(DiskError::at("creating", &temporary))?;
            write_full(&*target, &file, 0).map_err(DiskError::at("writing", &temporary))?;
            // Not synced: a torn index is noticed by its checksum and built again.
            disk.rename(&temporary, &path).map_err(DiskError::at("renaming", &temporary))
        };
        write()?;
        if let Some(mapped) = Mapped::open(&**disk, &path, self, end) {
            *self.index.lock() = self.has_mapped(mapped);
        }
        Ok(())
    }
}

mod grow;
#[cfg(test)]
mod tests;
