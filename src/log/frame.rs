//! The frame: the atomic unit of the log, one turn of one actor or one system record.
//!
//! ```text
//!  0  crc        u32   over: the bytes from 16 on, then these 16, the salt where the crc is
//!  4  position   u32   low half of LSN / 16
//!  8  time       u64   hybrid time
//! 16  length/16  u24   of the whole frame, header and padding included
//! 19  kind       u4    low half: Single 1, Records 2, Seal 3, Close 4, Life 5
//!     padding    u4    high half: bytes of padding at the end of the body, 0..=15
//! 20  durable    u32   low half of (durable mark known when the frame was written) / 16
//! 24  seq        u48   number of the first event in the frame (0: none); what else is numbered
//!                      like an event is an event in this sense
//! 30  n          u16   Single: version of the event. Records: number of records
//! 32  stream     u128  hash of kind and name; 0 for system frames
//! 48  body             Single: the archive of one event. Records: see `Record`. Then padding
//! ```
//!
//! All numbers are little-endian. The whole is a multiple of 16 bytes and stands at one.
//! A frame of one event of 128 bytes takes 176 bytes.
//!
//! A record in a `Records` frame begins at a multiple of 8 from the frame's start:
//!
//! ```text
//!  0  bytes   u32   of the payload
//!  4  version u16   of what is in it
//!  6  kind    u8    Event 1, Name 2, Snapshot 3, State 4, Turn 5, Rewind 6, Note 7, Meta 8,
//!                   Tag 9, Side 10, Token 11
//!  7  gap     u8    0 or 8: bytes between this header and the payload, so that it is aligned
//!  8  gap, payload, then zeros up to the next multiple of 8
//! ```
//!
//! **A frame knows where it is**: its position is in it, its log, its life and its segment's base
//! go into the checksum, so a moved or a stale frame never validates.
//!
//! The first 16 bytes are what is known only when the frame gets its place, inside the log's
//! lock. All else is summed before.
//!
//! `docs/format.md` has the same with an example, which a test compares with what is written here.

use std::sync::LazyLock;

use crc32fast::Hasher;
use rkyv::util::AlignedVec;

use super::name;
use crate::error::Reject;
use crate::types::{FRAME_ALIGN, HybridTime, Life, Lsn, Seq, StreamId, to_usize};

use record::RecordsState;
pub use record::{Record, RecordKind, Records};

/// Bytes of a frame's header.
pub const HEADER: usize = 48;
/// Bytes of a record's header.
pub const RECORD_HEADER: usize = 8;
/// What the format itself can hold; options set the limit far lower.
pub const FRAME_BYTES_LIMIT: usize = ((1 << 24) - 1) * FRAME_ALIGN;

const _: () = assert!(HEADER.is_multiple_of(FRAME_ALIGN));

/// What is filled in when the frame gets its place, and summed last.
pub(crate) const HEAD: usize = 16;
const _: () = assert!(HEAD.is_multiple_of(FRAME_ALIGN) && HEAD < HEADER);

/// What a frame is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// One event, nothing else.
    Single,
    /// One or more records.
    Records,
    /// Ends its segment: the next frame is the next segment's first.
    Seal,
    /// Ends its life: the next frame is at the next 4 KiB boundary, or in another segment.
    Close,
    /// Opens a life.
    Life,
}

impl FrameKind {
    const fn code(self) -> u8 {
        match self {
            Self::Single => 1,
            Self::Records => 2,
            Self::Seal => 3,
            Self::Close => 4,
            Self::Life => 5,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Single,
            2 => Self::Records,
            3 => Self::Seal,
            4 => Self::Close,
            5 => Self::Life,
            _ => return None,
        })
    }
}

/// What makes a checksum this log's, this segment's and this life's.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Salt {
    /// The log's random id.
    pub log: u64,
    /// The life's random bits.
    pub life: Life,
    /// The segment's base.
    pub base: u64,
}

impl Salt {
    /// What stands where the checksum will, while the sum is made.
    #[inline]
    fn word(self) -> u32 {
        let word = self.log ^ self.life.bits ^ self.base;
        let [w0, w1, w2, w3, ..] = (word ^ word >> 32).to_le_bytes();
        u32::from_le_bytes([w0, w1, w2, w3])
    }
}

/// What is known of a frame before it has its place.
#[derive(Copy, Clone, Debug)]
pub(crate) struct About {
    pub stream: StreamId,
    pub seq: Seq,
    /// The durable mark, as known now; [`Place`] has the last word.
    pub durable: u64,
}

/// What the log fills in when a frame gets its place.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Place {
    pub salt: Salt,
    /// Offset in the segment's file.
    pub offset: u64,
    /// The durable mark, as known now. At or below the frame.
    pub durable: u64,
    pub time: HybridTime,
}

/// A frame in the making: records are pushed, then the log gives it a place.
///
/// The payload of a lone event is where it must be in both forms of a frame: as `Single` the
/// header takes the place of the record header too, and the frame begins 8 bytes into the buffer.
#[derive(Debug)]
pub struct Batch {
    buffer: AlignedVec<16>,
    records: u16,
    events: u16,
    version: u16,
    gap: u8,
    first: Option<RecordKind>,
}

/// See [`Batch::savepoint`].
#[derive(Copy, Clone, Debug)]
pub(crate) struct Savepoint {
    bytes: usize,
    records: u16,
    events: u16,
}

impl Savepoint {
    /// Of an empty batch.
    pub(crate) const EMPTY: Self = Self { bytes: HEADER, records: 0, events: 0 };

    /// Records that were in it.
    pub(crate) const fn records(&self) -> u16 {
        self.records
    }

    /// Nothing was in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.records == 0
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// An empty frame.
    pub fn new() -> Self {
        let mut buffer = AlignedVec::with_capacity(512);
        buffer.resize(HEADER, 0);
        Self { buffer, records: 0, events: 0, version: 0, gap: 0, first: None }
    }

    /// Throws the records away; the room stays.
    pub fn clear(&mut self) {
        self.buffer.resize(HEADER, 0);
        self.records = 0;
        self.events = 0;
        self.first = None;
    }

    /// What is in it now, to [`restore`](Self::restore) if what comes next is to be dropped.
    pub(crate) fn savepoint(&self) -> Savepoint {
        let (records, events) = (self.records, self.events);
        Savepoint { bytes: self.buffer.len(), records, events }
    }

    /// Drops what was pushed since.
    pub(crate) fn restore(&mut self, savepoint: Savepoint) {
        if savepoint.records == 0 {
            self.clear();
            return;
        }
        self.buffer.resize(savepoint.bytes, 0);
        self.records = savepoint.records;
        self.events = savepoint.events;
    }

    /// No record has been pushed.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Records pushed so far.
    pub(crate) fn records(&self) -> u16 {
        self.records
    }

    /// Records pushed so far that take a number: events, and what is numbered like them.
    pub fn events(&self) -> u16 {
        self.events
    }

    /// Bytes that the frame takes in the log, at least.
    pub fn frame_bytes(&self) -> usize {
        self.buffer.len().next_multiple_of(FRAME_ALIGN)
    }

    /// Adds a record whose bytes are there already. Alignment 1.
    ///
    /// # Errors
    /// [`Reject::Records`] past 65,535 records or 4 GiB; the batch is as it was.
    pub fn push(&mut self, kind: RecordKind, version: u16, payload: &[u8]) -> Result<(), Reject> {
        self.push_with(kind, version, 1, |buffer| {
            buffer.extend_from_slice(payload);
            Ok(())
        })
    }

    /// Adds a record that `write` appends to the buffer. `align` is what its archive needs, at
    /// most 16. The buffer's position modulo 16 is the one that the record will have in memory.
    ///
    /// # Errors
    /// What `write` answers, or [`Reject::Records`] as for [`push`](Self::push); the batch is as
    /// it was.
    pub fn push_with(
        &mut self,
        kind: RecordKind,
        version: u16,
        align: usize,
        write: impl FnOnce(&mut AlignedVec<16>) -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        let before = self.buffer.len();
        self.push_record(kind, version, align, write).inspect_err(|_| {
            self.buffer.resize(before, 0);
        })
    }

    fn push_record(
        &mut self,
        kind: RecordKind,
        version: u16,
        align: usize,
        write: impl FnOnce(&mut AlignedVec<16>) -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        debug_assert!(align.is_power_of_two() && align <= 16, "archives align to 16 at most");
        let records = self.records.checked_add(1).ok_or(Reject::Records)?;
        let head = self.buffer.len().next_multiple_of(8);
        let gap: u8 = if align > 8 && !(head + RECORD_HEADER).is_multiple_of(16) { 8 } else { 0 };
        let payload = head + RECORD_HEADER + usize::from(gap);
        self.buffer.resize(payload, 0);
        write(&mut self.buffer)?;
        let bytes = self.buffer.len().checked_sub(payload).ok_or(Reject::Records)?;
        let bytes = u32::try_from(bytes).map_err(|_too_large| Reject::Records)?;
        let header = self.buffer.get_mut(head..head + RECORD_HEADER).ok_or(Reject::Records)?;
        let (length, rest) = header.split_at_mut(4);
        length.copy_from_slice(&bytes.to_le_bytes());
        let [low, high] = version.to_le_bytes();
        rest.copy_from_slice(&[low, high, kind.code(), gap]);
        if self.first.is_none() {
            self.first = Some(kind);
            self.version = version;
            self.gap = gap;
        }
        self.records = records;
        self.events += u16::from(kind.is_numbered());
        Ok(())
    }

    /// Does it begin with the name of a stream of Annals' own?
    pub(super) fn begins_own(&self) -> bool {
        let payload = self.buffer.get(HEADER + RECORD_HEADER..).unwrap_or_default();
        self.first == Some(RecordKind::Name) && name::is_own(payload)
    }

    /// A system frame's body, of which there is nothing else.
    pub(super) fn of_body(body: &[u8]) -> Self {
        let mut batch = Self::new();
        batch.buffer.extend_from_slice(body);
        batch
    }

    /// Pads, fills in what is known already and sums it. Done outside the log's lock.
    /// `system` makes it a system frame.
    pub(crate) fn seal(&mut self, system: Option<FrameKind>, about: &About) -> Sealed<'_> {
        let single = self.records == 1
            && self.first == Some(RecordKind::Event)
            && self.gap == 0
            && system.is_none();
        let kind = system.unwrap_or(if single { FrameKind::Single } else { FrameKind::Records });
        let start = if single { RECORD_HEADER } else { 0 };
        let n = if single { self.version } else { self.records };
        let used = self.buffer.len() - start;
        let length = used.next_multiple_of(FRAME_ALIGN);
        self.buffer.resize(start + length, 0);
        let frame = self.buffer.get_mut(start..).unwrap_or_default();
        let padding = u8::try_from(length - used).unwrap_or(0);
        if let Some((header, _)) = frame.split_first_chunk_mut::<HEADER>() {
            // Put together as two words: what is stored byte by byte and then read as a whole, as
            // the sum does, makes the processor wait.
            let length = u64::from(low_sixteenths(length as u64)) & 0x00ff_ffff;
            let kind = u64::from(kind.code() | padding << 4);
            let low = length | kind << 24 | u64::from(low_sixteenths(about.durable)) << 32;
            let high = about.seq.get() | u64::from(n) << 48;
            let (_, rest) = header.split_at_mut(HEAD);
            let (fields, stream) = rest.split_at_mut(16);
            fields.copy_from_slice(&(u128::from(low) | u128::from(high) << 64).to_le_bytes());
            stream.copy_from_slice(&about.stream.get().to_le_bytes());
        }
        let sum = sum_of(frame.get(HEAD..).unwrap_or_default());
        Sealed { frame, sum, durable: about.durable }
    }
}

/// A whole frame but for its place.
pub(crate) struct Sealed<'a> {
    frame: &'a mut [u8],
    /// Of all behind the first 16 bytes.
    sum: Hasher,
    durable: u64,
}

impl Sealed<'_> {
    pub(crate) fn bytes(&self) -> usize {
        self.frame.len()
    }

    /// The frame in two parts, ready for the log. Inside the log's lock.
    #[inline]
    pub(crate) fn place(&mut self, place: &Place) -> ([u8; HEAD], &[u8]) {
        let lsn = place.salt.base + place.offset;
        debug_assert!(place.durable <= lsn, "a durable mark above the frame that carries it");
        debug_assert!(lsn - place.durable <= LAG_MAX, "a durable mark that cannot be told");
        if place.durable != self.durable {
            self.set_durable(place.durable);
        }
        let head = u128::from(low_sixteenths(lsn)) << 32 | u128::from(place.time.bits()) << 64;
        let mut sum = self.sum.clone();
        sum.update(&(head | u128::from(place.salt.word())).to_le_bytes());
        let head = (head | u128::from(sum.finalize())).to_le_bytes();
        (head, self.frame.get(HEAD..).unwrap_or_default())
    }

    /// There was a commit since the frame was sealed. Once a commit: the sum is made anew.
    #[cold]
    fn set_durable(&mut self, durable: u64) {
        self.durable = durable;
        if let Some(field) = self.frame.get_mut(DURABLE_AT..DURABLE_AT + 4) {
            field.copy_from_slice(&low_sixteenths(durable).to_le_bytes());
        }
        self.sum = sum_of(self.frame.get(HEAD..).unwrap_or_default());
    }
}

const DURABLE_AT: usize = 20;
/// How far below a frame its durable mark may be: as far as 32 bits tell, in steps of 16 bytes.
const LAG_MAX: u64 = (1 << 36) - FRAME_ALIGN as u64;

/// The low half of `bytes / 16`.
#[inline]
fn low_sixteenths(bytes: u64) -> u32 {
    let [a, b, c, d, ..] = (bytes / FRAME_ALIGN as u64).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Does the first 16 bytes of a header say that the frame stands at `position`?
#[inline]
pub(super) fn stands_at(head: &[u8; HEAD], position: u64) -> bool {
    let [_, _, _, _, p0, p1, p2, p3, ..] = *head;
    u32::from_le_bytes([p0, p1, p2, p3]) == low_sixteenths(position)
}

/// The position that the first 16 bytes of a header speak of: the lowest one at or above `floor`,
/// which is a multiple of 16.
#[inline]
pub(super) fn position_from(head: &[u8; HEAD], floor: u64) -> u64 {
    let [_, _, _, _, p0, p1, p2, p3, ..] = *head;
    let above = u32::from_le_bytes([p0, p1, p2, p3]).wrapping_sub(low_sixteenths(floor));
    floor + u64::from(above) * FRAME_ALIGN as u64
}

#[inline]
fn sum_of(bytes: &[u8]) -> Hasher {
    // To make one asks the processor what it can; to copy one does not.
    static FRESH: LazyLock<Hasher> = LazyLock::new(Hasher::new);
    let mut sum = FRESH.clone();
    sum.update(bytes);
    sum
}

/// A header whose fields are possible; its checksum has not been looked at.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Header {
    crc: u32,
    /// Low half of the LSN, in steps of 16 bytes.
    position: u32,
    /// Of the whole frame, in bytes.
    pub length: usize,
    /// What it is.
    pub kind: FrameKind,
    padding: u8,
    /// Low half of the durable mark, in steps of 16 bytes.
    durable: u32,
    /// When it was appended.
    pub time: HybridTime,
    /// Whose it is.
    pub stream: StreamId,
    /// Number of its first event.
    pub seq: Seq,
    n: u16,
}

impl Header {
    /// Reads the first 48 bytes of `bytes`; `bytes` may be shorter than the frame.
    ///
    /// # Errors
    /// Why these bytes begin no frame.
    #[inline]
    pub fn read(bytes: &[u8]) -> Result<Self, Reject> {
        let (header, _) = bytes.split_first_chunk::<HEADER>().ok_or(Reject::Short)?;
        let [c0, c1, c2, c3, p0, p1, p2, p3, rest @ ..] = *header;
        let [t0, t1, t2, t3, t4, t5, t6, t7, rest @ ..] = rest;
        let [l0, l1, l2, kind, d0, d1, d2, d3, rest @ ..] = rest;
        let [s0, s1, s2, s3, s4, s5, n0, n1, stream @ ..] = rest;
        let length = u64::from(u32::from_le_bytes([l0, l1, l2, 0])) * FRAME_ALIGN as u64;
        let length = to_usize(length);
        if length < HEADER {
            return Err(Reject::Length);
        }
        let padding = kind >> 4;
        if HEADER + usize::from(padding) > length {
            return Err(Reject::Length);
        }
        let kind = FrameKind::from_code(kind & 0x0f).ok_or(Reject::Kind)?;
        let seq = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, 0, 0]);
        Ok(Self {
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            position: u32::from_le_bytes([p0, p1, p2, p3]),
            length,
            kind,
            padding,
            durable: u32::from_le_bytes([d0, d1, d2, d3]),
            time: HybridTime::from_bits(u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7])),
            stream: StreamId::from_u128(u128::from_le_bytes(stream)),
            seq: Seq::new(seq).ok_or(Reject::Length)?,
            n: u16::from_le_bytes([n0, n1]),
        })
    }

    /// The frame's position modulo 64 GiB.
    pub(crate) fn low_position(&self) -> u64 {
        u64::from(self.position) * FRAME_ALIGN as u64
    }

    /// Could this be the header of a frame that stands at `position` of the log? Says nothing of
    /// positions 64 GiB apart.
    #[inline]
    pub(super) fn stands_at(&self, position: u64) -> bool {
        self.position == low_sixteenths(position)
    }

    /// How far the durable mark was below the frame, in bytes.
    #[inline]
    fn lag(&self) -> u64 {
        u64::from(self.position.wrapping_sub(self.durable)) * FRAME_ALIGN as u64
    }

    /// Number of events in a `Single`, of records in a `Records` frame.
    pub fn count(&self) -> u16 {
        match self.kind {
            FrameKind::Single => 1,
            FrameKind::Records => self.n,
            FrameKind::Seal | FrameKind::Close | FrameKind::Life => 0,
        }
    }
}

/// A frame that was checked: it is what was written, where it was written.
///
/// Three words; the header's fields are taken out of the bytes when somebody asks.
#[derive(Copy, Clone, Debug)]
pub struct Frame<'a> {
    position: u64,
    bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Checks the frame at the beginning of `bytes`, which stands at `offset` in the segment
    /// that `salt` names.
    ///
    /// # Errors
    /// Why it is not a frame of this log, life and place.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "its answer would go through memory, word by word")]
    pub fn read(bytes: &'a [u8], offset: u64, salt: Salt) -> Result<Self, Reject> {
        let position = salt.base + offset;
        let header = Header::read(bytes)?;
        if !header.stands_at(position) {
            return Err(Reject::Position);
        }
        if header.lag() > position {
            return Err(Reject::Mark);
        }
        let bytes = bytes.get(..header.length).ok_or(Reject::Short)?;
        let (head, rest) = bytes.split_first_chunk::<HEAD>().ok_or(Reject::Short)?;
        // A sum goes on by adding what it is so far to the next four bytes. So the head need not be
        // copied for having another word where the checksum is.
        let so_far = sum_of(rest).finalize() ^ header.crc ^ salt.word();
        let mut sum = Hasher::new_with_initial(so_far);
        sum.update(head);
        if sum.finalize() != header.crc {
            return Err(Reject::Checksum);
        }
        Ok(Self { position, bytes })
    }

    /// A frame that was checked where it stands, again.
    #[inline]
    pub(super) fn checked_before(position: u64, bytes: &'a [u8]) -> Self {
        Self { position, bytes }
    }

    /// A `Life` frame names the life whose checksum it carries, so it is read before that life
    /// is known. Answers the frame and the life it opens.
    ///
    /// # Errors
    /// Why it is not a `Life` frame.
    pub fn read_life(
        bytes: &'a [u8],
        offset: u64,
        log: u64,
        base: u64,
    ) -> Result<(Self, Life), Reject> {
        let header = Header::read(bytes)?;
        if header.kind != FrameKind::Life {
            return Err(Reject::Kind);
        }
        let body = bytes.get(HEADER..header.length).ok_or(Reject::Short)?;
        let (number, rest) = body.split_first_chunk::<8>().ok_or(Reject::Short)?;
        let (bits, _) = rest.split_first_chunk::<8>().ok_or(Reject::Short)?;
        let life = Life { number: u64::from_le_bytes(*number), bits: u64::from_le_bytes(*bits) };
        let frame = Self::read(bytes, offset, Salt { log, life, base })?;
        Ok((frame, life))
    }

    /// The header's fields.
    #[inline]
    pub fn header(&self) -> Header {
        Header::read(self.bytes).unwrap_or_else(|_| unreachable!("a frame that was checked"))
    }

    /// A field of the header, for who asks one of each frame of many.
    #[inline]
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or([0; N], |field| *field)
    }

    /// Number of its first event.
    #[inline]
    pub fn seq(&self) -> Seq {
        let [s0, s1, s2, s3, s4, s5, ..] = self.field::<8>(24);
        Seq::new(u64::from_le_bytes([s0, s1, s2, s3, s4, s5, 0, 0])).unwrap_or(Seq::MAX)
    }

    /// Whose it is.
    #[inline]
    pub fn stream(&self) -> StreamId {
        StreamId::from_u128(u128::from_le_bytes(self.field(32)))
    }

    /// Where it stands in the log.
    #[inline]
    pub fn lsn(&self) -> Lsn {
        Lsn::new(self.position).unwrap_or_else(|| {
            unreachable!("a frame stands behind its segment's header page, at a multiple of 16")
        })
    }

    /// The first position after it.
    pub fn end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }

    /// The durable mark known when it was written.
    pub fn durable(&self) -> u64 {
        self.position - self.header().lag()
    }

    /// The checksum: names these very bytes in this very place.
    pub fn crc(&self) -> u32 {
        self.header().crc
    }

    /// The whole frame.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What is behind the header, without padding.
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        let [kind] = self.field(19);
        let end = self.bytes.len().saturating_sub(usize::from(kind >> 4));
        self.bytes.get(HEADER..end).unwrap_or_default()
    }

    /// The records, in order. A record that does not add up ends the iteration with an error
    /// (a writer's mistake: the checksum was right).
    #[inline]
    pub fn records(&self) -> Records<'a> {
        let ([kind], n) = (self.field(19), u16::from_le_bytes(self.field(30)));
        let (left, state) = match FrameKind::from_code(kind & 0x0f) {
            Some(FrameKind::Single) => {
                let (kind, payload) = (RecordKind::Event, self.body());
                (1, RecordsState::Single(Record { kind, version: n, payload }))
            }
            Some(FrameKind::Records) => (n, RecordsState::Many(self.body())),
            Some(FrameKind::Seal | FrameKind::Close | FrameKind::Life) | None => {
                (0, RecordsState::Many(&[]))
            }
        };
        Records { left, state }
    }
}

mod record;
#[cfg(test)]
mod tests;
