//! The run: what is kept of a range of old segments, in one file, clustered by stream.
//!
//! A run takes the place of one or more sealed segments, and of older runs, at the old end of a
//! log: `<start, 20 digits>-<limit, 20 digits>.run` replaces everything from `start` (the base of
//! the first thing replaced) up to `limit` (the base of the next thing kept). The runs of a log
//! follow each other without a gap and are followed by its first segment. Frames are carried byte
//! for byte and keep their positions; `Seal`, `Close` and `Life` frames are not carried. A run
//! may hold no frame at all: then it says that there was something, and that it may be gone.
//!
//! ```text
//!    0  magic     8 bytes  "ANNALRUN"
//!    8  version   u32      2; of version 1 the table is summed as a whole
//!   12  layout    u32      how archives are laid out: see `segment::layout`
//!   16  log       u64      random id of the log
//!   24  start     u64      position of the first thing replaced; in the file's name too
//!   32  limit     u64      position of what follows; in the file's name too
//!   40  before    u64      base of the segment before `start`; all ones: none
//!   48  previous  u64      base of the last segment replaced: what follows names it as its
//!                          predecessor
//!   56  bytes     u64      size of the file
//!   64  table     u64      offset of the table, a multiple of 16
//!   72  frames    u64      } of everything that ever was in the range,
//!   80  events    u64      } carried or not
//!   88  streams   u64      }
//!   96  dropped   u64      frames of it that retention has dropped
//!  104  origins   u32      } numbers of entries in the table
//!  108  lost      u32      }
//!  112  rows      u32      }
//!  116  carried   u32      }
//!  120  crc       u32      over the sums; in version 1 over the table
//!  124  zeros    u32
//!  128  gone      u64      everything that retention has dropped began below; 0: nothing has
//!  136  zeros
//! 4092  crc       u32      over all before
//! 4096  frames             one after the other; those of one stream side by side, in order
//! table origins   { from u64, base u64, life number u64, life bits u64 }, ascending: frames from
//!                 this position on are of the segment of that base, and of that life
//!       lost      { end u64, base u64 }: nothing is or ever will be in `end..base`
//!       rows      { stream u128, first seq u64, dropped seq u64, start u32, count u32 }, by
//!                 stream: `count` frames from number `start` on. `dropped` is the last event of
//!                 the stream that retention has dropped here, 0 if none
//!       lsns      u64 a frame, in the file's order
//!       offsets   u32 a frame: offset / 16
//!       order     u32 a frame: the frames' numbers, by position
//!       sums      u32 a block: the checksum of each 16 KiB of the table before. Not in version 1
//! ```
//!
//! A run is whole and synced before it gets its name, so whatever does not validate in a run of
//! that name is damage. Frames are checked each time they are read, as they are everywhere. Of the
//! table, what is looked at is checked once, block by block (`part.rs`).

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::checkpoint::Totals;
use super::frame::{Frame, Salt};
use super::segment::{FORMAT_VERSION, HeaderReject, POSITION_MAX, layout};
use crate::disk::{PAGE, PAGE_U64};
use crate::error::Reject;
use crate::types::{FRAME_ALIGN, Life, Seq, StreamId};

const MAGIC: [u8; 8] = *b"ANNALRUN";
const CRC_AT: usize = PAGE - 4;
const NONE: u64 = u64::MAX;
const ORIGIN: usize = 32;
const LOST: usize = 16;
const ROW: usize = 40;
/// Offsets are 32 bits of 16 bytes.
const BYTES_MAX: u64 = 1 << 36;

/// The version that is written; 1 is read too.
pub(super) const RUN_VERSION: u32 = 2;

/// Bytes of the table that have one checksum.
pub(super) const BLOCK: usize = 16 << 10;

/// Offset of a run's first frame.
pub const FIRST_FRAME: u64 = PAGE_U64;

/// A run's header page.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// Random id of the log.
    pub log: u64,
    /// Position of the first thing replaced.
    pub start: u64,
    /// Position of what follows.
    pub limit: u64,
    /// Base of the segment before `start`.
    pub before: Option<u64>,
    /// Base of the last segment replaced.
    pub previous: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Offset of the table.
    pub table: u64,
    /// Of everything that ever was in the range.
    pub totals: Totals,
    /// Frames of it that retention has dropped.
    pub dropped: u64,
    /// Entries in the table: where frames come from.
    pub origins: u32,
    /// Entries in the table: what crashes took back.
    pub lost: u32,
    /// Entries in the table: streams.
    pub rows: u32,
    /// Frames in the file.
    pub carried: u32,
    /// The table has a checksum for each of its blocks. Else it is one of version 1.
    pub sums: bool,
    /// Checksum of these, or of the table.
    pub table_crc: u32,
    /// Everything that retention has dropped of the range was below this position; 0 if nothing
    /// was.
    pub gone: u64,
}

impl RunHeader {
    /// The page, checksum included.
    pub fn encode(&self) -> [u8; PAGE] {
        let mut fields = Vec::with_capacity(136);
        fields.extend_from_slice(&MAGIC);
        let version = if self.sums { RUN_VERSION } else { FORMAT_VERSION };
        fields.extend_from_slice(&version.to_le_bytes());
        fields.extend_from_slice(&layout().to_le_bytes());
        let Totals { frames, events, streams } = self.totals;
        let before = self.before.unwrap_or(NONE);
        let place = [self.log, self.start, self.limit, before, self.previous];
        let content = [self.bytes, self.table, frames, events, streams, self.dropped];
        for number in place.into_iter().chain(content) {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.origins, self.lost, self.rows, self.carried, self.table_crc] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        fields.extend_from_slice(&[0; 4]);
        fields.extend_from_slice(&self.gone.to_le_bytes());
        let mut page = [0; PAGE];
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
            return Err(HeaderReject::Bad("it is not a run's"));
        }
        let (words, rest) = rest.split_at(8);
        let (numbers, rest) = rest.split_at(88);
        let (counts, rest) = rest.split_at(24);
        let gone = rest.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let mut words = words.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        let version = words.next().unwrap_or(0);
        if version != FORMAT_VERSION && version != RUN_VERSION {
            return Err(HeaderReject::Version(version));
        }
        let layout = words.next().unwrap_or(0);
        if layout != super::segment::layout() {
            return Err(HeaderReject::Layout(layout));
        }
        let mut numbers = numbers.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || numbers.next().unwrap_or(0);
        let mut counts = counts.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        let mut count = || counts.next().unwrap_or(0);
        let (log, start, limit, before) = (next(), next(), next(), next());
        let header = Self {
            log,
            start,
            limit,
            before: (before != NONE).then_some(before),
            previous: next(),
            bytes: next(),
            table: next(),
            totals: Totals { frames: next(), events: next(), streams: next() },
            dropped: next(),
            origins: count(),
            lost: count(),
            rows: count(),
            carried: count(),
            sums: version == RUN_VERSION,
            table_crc: count(),
            gone,
        };
        if header.is_possible() {
            Ok(header)
        } else {
            Err(HeaderReject::Bad("its numbers are impossible"))
        }
    }

    /// Could a run be there, and be that large? A checksum can be forged, and nobody behind is to
    /// think of overflows.
    fn is_possible(&self) -> bool {
        let Totals { frames, events, streams } = self.totals;
        let counts = [frames, events, streams, self.dropped];
        self.start.is_multiple_of(PAGE_U64)
            && self.limit.is_multiple_of(PAGE_U64)
            && self.limit <= POSITION_MAX
            && (self.start..self.limit).contains(&self.previous)
            && self.before.is_none_or(|before| before < self.start)
            && self.table.is_multiple_of(FRAME_ALIGN as u64)
            && (FIRST_FRAME..=self.bytes).contains(&self.table)
            && self.bytes <= BYTES_MAX
            && self.table_bytes() == self.bytes - self.table
            && counts.iter().all(|count| *count <= POSITION_MAX)
            && self.gone <= self.limit
    }

    /// Size of the table, with its sums.
    pub fn table_bytes(&self) -> u64 {
        let summed = self.summed_bytes();
        if self.sums { summed + summed.div_ceil(BLOCK as u64) * 4 } else { summed }
    }

    /// Size of the table without its sums.
    pub(super) fn summed_bytes(&self) -> u64 {
        let [origins, lost, rows, carried] =
            [self.origins, self.lost, self.rows, self.carried].map(u64::from);
        origins * ORIGIN as u64 + lost * LOST as u64 + rows * ROW as u64 + carried * 16
    }

    /// Below this position something may be missing that retention has dropped; 0: nothing is.
    pub fn gone(&self) -> u64 {
        match (self.dropped, self.gone) {
            (0, _) => 0,
            (_, 0) => self.limit,
            (_, gone) => gone,
        }
    }

    /// Positions that it answers for.
    pub fn range(&self) -> Range<u64> {
        self.start..self.limit
    }
}

/// The file of the run over `range` in `dir`; with `ending` "rtmp" while it is made.
pub fn run_path(dir: &Path, range: &Range<u64>, ending: &str) -> PathBuf {
    dir.join(format!("{:020}-{:020}.{ending}", range.start, range.end))
}

/// The range in the name of a run's file.
pub fn range_of(name: &str) -> Option<Range<u64>> {
    let (start, limit) = name.strip_suffix(".run")?.split_once('-')?;
    let number = |digits: &str| {
        let number = (digits.len() == 20).then(|| digits.parse().ok())?;
        number.filter(|position: &u64| *position <= POSITION_MAX)
    };
    Some(number(start)?..number(limit)?)
}

/// From which segment and life frames are, from a position on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// From this position on.
    pub from: u64,
    /// Base of their segment.
    pub base: u64,
    /// Their life.
    pub life: Life,
}

/// The frames of one stream.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose.
    pub stream: StreamId,
    /// Number of the first event that is here; of a row without frames, the one after `dropped`.
    pub first: Seq,
    /// Number of the last event that retention has dropped here; zero if none.
    pub dropped: Seq,
    /// Number of the first frame, in the file's order.
    pub start: u32,
    /// How many.
    pub count: u32,
}

// Compaction holds one for each stream of a run.
const _: () = assert!(size_of::<Row>() <= 48, "docs/guarantees.md says so");

impl Row {
    /// The frames' numbers.
    pub fn numbers(&self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.count as usize
    }
}

/// The table at the end of a run: where each frame is, by stream and by position.
#[derive(Copy, Clone, Debug)]
pub struct RunTable<'a> {
    header: RunHeader,
    bytes: &'a [u8],
}

impl<'a> RunTable<'a> {
    /// `bytes` are those of the file from `header.table` to its end. Reads all of them.
    ///
    /// # Errors
    /// Why they are not the table of that header.
    pub fn check(header: &RunHeader, bytes: &'a [u8]) -> Result<Self, &'static str> {
        let table = Self::begin(header, bytes)?;
        if header.sums {
            (0..table.blocks()).try_for_each(|number| table.check_block(number))?;
        }
        Ok(table)
    }

    /// Checks what says whether the rest is as it was: the sums. Of version 1, all of it.
    pub(super) fn begin(header: &RunHeader, bytes: &'a [u8]) -> Result<Self, &'static str> {
        if bytes.len() as u64 != header.table_bytes() {
            return Err("its table is cut short");
        }
        let table = Self::checked(header, bytes);
        let summed = if header.sums { bytes.get(table.sums_at()..) } else { Some(bytes) };
        if crc32fast::hash(summed.unwrap_or_default()) != header.table_crc {
            return Err("the checksum of its table does not match");
        }
        Ok(table)
    }

    /// Blocks that have a checksum each.
    pub(super) fn blocks(&self) -> usize {
        self.sums_at().div_ceil(BLOCK)
    }

    pub(super) fn check_block(&self, number: usize) -> Result<(), &'static str> {
        let end = self.sums_at().min((number + 1) * BLOCK);
        let block = self.bytes.get(number * BLOCK..end).unwrap_or_default();
        if Some(crc32fast::hash(block)) == self.word(self.sums_at() + number * 4) {
            Ok(())
        } else {
            Err("the checksum of a part of its table does not match")
        }
    }

    /// Of bytes that were checked before.
    pub(super) fn checked(header: &RunHeader, bytes: &'a [u8]) -> Self {
        Self { header: *header, bytes }
    }

    fn lost_at(&self) -> usize {
        self.header.origins as usize * ORIGIN
    }

    fn rows_at(&self) -> usize {
        self.lost_at() + self.header.lost as usize * LOST
    }

    fn lsns_at(&self) -> usize {
        self.rows_at() + self.header.rows as usize * ROW
    }

    fn offsets_at(&self) -> usize {
        self.lsns_at() + self.header.carried as usize * 8
    }

    fn order_at(&self) -> usize {
        self.offsets_at() + self.header.carried as usize * 4
    }

    fn sums_at(&self) -> usize {
        self.order_at() + self.header.carried as usize * 4
    }

    /// Where in the table it says what its frames come from, and what is lost.
    pub(super) fn bytes_of_origins(&self) -> Range<usize> {
        0..self.rows_at()
    }

    /// Where it says what these rows are.
    pub(super) fn bytes_of_rows(&self, numbers: &Range<usize>) -> Range<usize> {
        self.rows_at() + numbers.start * ROW..self.rows_at() + numbers.end * ROW
    }

    /// Where it says where these frames are.
    pub(super) fn bytes_of_places(&self, numbers: &Range<usize>) -> [Range<usize>; 2] {
        let (lsns, offsets) = (self.lsns_at(), self.offsets_at());
        [
            lsns + numbers.start * 8..lsns + numbers.end * 8,
            offsets + numbers.start * 4..offsets + numbers.end * 4,
        ]
    }

    /// Where it says which frames these are by position.
    pub(super) fn bytes_of_ranks(&self, ranks: &Range<usize>) -> Range<usize> {
        self.order_at() + ranks.start * 4..self.order_at() + ranks.end * 4
    }

    fn long(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }

    /// Frames in the file.
    pub fn carried(&self) -> usize {
        self.header.carried as usize
    }

    /// Streams in it.
    pub fn rows(&self) -> usize {
        self.header.rows as usize
    }

    /// The `number`-th origin.
    pub fn origin(&self, number: usize) -> Option<Origin> {
        if number >= self.header.origins as usize {
            return None;
        }
        let at = number * ORIGIN;
        let life = Life { number: self.long(at + 16)?, bits: self.long(at + 24)? };
        Some(Origin { from: self.long(at)?, base: self.long(at + 8)?, life })
    }

    /// All of them, ascending.
    pub fn origins(&self) -> impl Iterator<Item = Origin> {
        (0..).map_while(|number| self.origin(number))
    }

    /// How many origins begin at `lsn` or before.
    fn origins_upto(&self, lsn: u64) -> usize {
        partition(self.header.origins as usize, |number| {
            self.origin(number).is_some_and(|origin| origin.from <= lsn)
        })
    }

    /// What frames at `lsn` come from.
    pub fn origin_of(&self, lsn: u64) -> Option<Origin> {
        self.origin(self.origins_upto(lsn).checked_sub(1)?)
    }

    /// For frames that are read one after the other.
    pub(super) fn salts(&self) -> Salts<'a> {
        let salt = Salt { log: self.header.log, life: Life { number: 0, bits: 0 }, base: 0 };
        Salts { table: *self, holds: 0..0, salt }
    }

    /// What crashes took back, as far as replaced segments knew.
    pub fn lost(&self) -> impl Iterator<Item = Range<u64>> {
        (0..self.header.lost as usize).map_while(|number| {
            let at = self.lost_at() + number * LOST;
            Some(self.long(at)?..self.long(at + 8)?)
        })
    }

    /// The `number`-th stream.
    pub fn row(&self, number: usize) -> Option<Row> {
        if number >= self.rows() {
            return None;
        }
        let at = self.rows_at() + number * ROW;
        let stream = u128::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?);
        Some(Row {
            stream: StreamId::from_u128(stream),
            first: Seq::new(self.long(at + 16)?)?,
            dropped: Seq::new(self.long(at + 24)?)?,
            start: self.word(at + 32)?,
            count: self.word(at + 36)?,
        })
    }

    /// Where `stream` is.
    pub fn find(&self, stream: StreamId) -> Option<Row> {
        let number = partition(self.rows(), |number| {
            self.row(number).is_some_and(|row| row.stream < stream)
        });
        self.row(number).filter(|row| row.stream == stream)
    }

    /// Position and offset in the file of frame `number`, in the file's order.
    pub fn place(&self, number: usize) -> Option<(u64, u64)> {
        if number >= self.carried() {
            return None;
        }
        let lsn = self.long(self.lsns_at() + number * 8)?;
        let offset = u64::from(self.word(self.offsets_at() + number * 4)?) * FRAME_ALIGN as u64;
        Some((lsn, offset))
    }

    /// Bytes of frame `number`: up to the next one, or to the table.
    pub fn length(&self, number: usize) -> Option<u64> {
        let (_, offset) = self.place(number)?;
        let end = self.place(number + 1).map_or(self.header.table, |(_, next)| next);
        end.checked_sub(offset)
    }

    /// Number of the frame that is the `rank`-th by position.
    pub fn ranked(&self, rank: usize) -> Option<usize> {
        if rank >= self.carried() {
            return None;
        }
        Some(self.word(self.order_at() + rank * 4)? as usize)
    }

    /// Rank of the first frame at `position` or behind; the number of all frames if there is none.
    pub fn rank_from(&self, position: u64) -> usize {
        partition(self.carried(), |rank| {
            let place = self.ranked(rank).and_then(|number| self.place(number));
            place.is_some_and(|(lsn, _)| lsn < position)
        })
    }

    /// Checks frame `number`, which begins `bytes`.
    ///
    /// # Errors
    /// Why it is not the frame that was carried.
    pub fn frame<'b>(&self, number: usize, bytes: &'b [u8]) -> Result<Frame<'b>, Reject> {
        let (lsn, _) = self.place(number).ok_or(Reject::Position)?;
        let origin = self.origin_of(lsn).ok_or(Reject::Position)?;
        let salt = Salt { log: self.header.log, life: origin.life, base: origin.base };
        let offset = lsn.checked_sub(origin.base).ok_or(Reject::Position)?;
        let frame = Frame::read(bytes, offset, salt)?;
        if frame.bytes().len() as u64 == self.length(number).unwrap_or(0) {
            Ok(frame)
        } else {
            Err(Reject::Length)
        }
    }
}

/// What goes into the checksums of frames that are read in the order of their positions: looked
/// for anew only where another segment or life begins.
#[derive(Clone, Debug)]
pub(super) struct Salts<'a> {
    table: RunTable<'a>,
    holds: Range<u64>,
    salt: Salt,
}

impl Salts<'_> {
    /// That of the frame at `lsn`.
    ///
    /// # Errors
    /// Nothing is known of a frame there.
    pub(super) fn of(&mut self, lsn: u64) -> Result<Salt, Reject> {
        if !self.holds.contains(&lsn) {
            let behind = self.table.origins_upto(lsn);
            let origin = behind.checked_sub(1).and_then(|number| self.table.origin(number));
            let Origin { from, base, life } =
                origin.filter(|origin| origin.base <= lsn).ok_or(Reject::Position)?;
            self.holds = from..self.table.origin(behind).map_or(u64::MAX, |next| next.from);
            self.salt = Salt { log: self.table.header.log, life, base };
        }
        if lsn < self.salt.base { Err(Reject::Position) } else { Ok(self.salt) }
    }
}

/// The first of `count` numbers for which `below` is not so.
fn partition(count: usize, below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if below(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// A table in the making. Frames are added in the file's order, rows in the order of streams.
#[derive(Debug, Default)]
pub(super) struct TableMaker {
    origins: Vec<Origin>,
    lost: Vec<Range<u64>>,
    rows: Vec<Row>,
    lsns: Vec<u64>,
    offsets: Vec<u32>,
}

impl TableMaker {
    pub(super) fn new(mut origins: Vec<Origin>, lost: Vec<Range<u64>>) -> Self {
        origins.sort_by_key(|origin| origin.from);
        Self { origins, lost, ..Self::default() }
    }

    /// A frame of the stream whose row is added next.
    pub(super) fn frame(&mut self, lsn: u64, offset: u64) {
        self.lsns.push(lsn);
        self.offsets.push(u32::try_from(offset / FRAME_ALIGN as u64).unwrap_or(u32::MAX));
    }

    /// Frames so far.
    pub(super) fn frames(&self) -> u32 {
        u32::try_from(self.lsns.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn row(&mut self, row: Row) {
        debug_assert!(self.rows.last().is_none_or(|last| last.stream < row.stream), "in order");
        self.rows.push(row);
    }

    /// Fills in what the header says of the table, which stands at `header.table`, and hands its
    /// bytes to `write`, piece by piece.
    pub(super) fn write<E>(
        self,
        header: &mut RunHeader,
        write: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        header.origins = count(self.origins.len());
        header.lost = count(self.lost.len());
        header.rows = count(self.rows.len());
        header.carried = count(self.lsns.len());
        header.sums = true;
        header.bytes = header.table + header.table_bytes();
        let mut sums = Sums::default();
        let mut out = |bytes: &[u8]| {
            sums.update(bytes);
            write(bytes)
        };
        for Origin { from, base, life } in &self.origins {
            for number in [*from, *base, life.number, life.bits] {
                out(&number.to_le_bytes())?;
            }
        }
        for range in &self.lost {
            out(&range.start.to_le_bytes())?;
            out(&range.end.to_le_bytes())?;
        }
        for row in &self.rows {
            out(&row.stream.get().to_le_bytes())?;
            out(&row.first.get().to_le_bytes())?;
            out(&row.dropped.get().to_le_bytes())?;
            out(&row.start.to_le_bytes())?;
            out(&row.count.to_le_bytes())?;
        }
        for lsn in &self.lsns {
            out(&lsn.to_le_bytes())?;
        }
        for offset in &self.offsets {
            out(&offset.to_le_bytes())?;
        }
        drop(self.offsets);
        let mut order: Vec<u32> = (0..header.carried).collect();
        order.sort_unstable_by_key(|number| self.lsns.get(*number as usize).copied());
        for number in &order {
            out(&number.to_le_bytes())?;
        }
        let sums = sums.finish();
        header.table_crc = crc32fast::hash(&sums);
        write(&sums)
    }
}

/// The checksums of a table's blocks, as it is written or read in order.
#[derive(Debug, Default)]
pub(super) struct Sums {
    done: Vec<u8>,
    block: crc32fast::Hasher,
    bytes: usize,
}

impl Sums {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.bytes));
            self.block.update(now);
            self.bytes += now.len();
            if self.bytes == BLOCK {
                self.end_block();
            }
            bytes = later;
        }
    }

    fn end_block(&mut self) {
        let block = std::mem::take(&mut self.block);
        self.done.extend_from_slice(&block.finalize().to_le_bytes());
        self.bytes = 0;
    }

    /// As they stand in the file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.bytes > 0 {
            self.end_block();
        }
        self.done
    }
}

#[cfg(test)]
mod tests;
