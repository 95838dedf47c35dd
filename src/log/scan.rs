//! Walking over frames that nobody vouches for: the segments' files at open, and the ring's.

use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{Frame, FrameKind, HEADER, Header, position_from, stands_at};
use super::links::Link;
use super::read::read_frame;
use super::segment::FIRST_FRAME;
use crate::disk::{File, PAGE, PAGE_U64, read_full};
use crate::error::{DiskError, Reject};
use crate::types::{FRAME_ALIGN, HybridTime, Life, to_usize};

/// How much is read at a time, once it shows that much is wanted: most walks end soon.
const WINDOW: usize = 1 << 18;
/// How much is read at first; twice as much each time from there.
const WINDOW_FIRST: usize = 1 << 13;

/// Bytes by segment and offset.
pub(super) trait Source {
    /// `want` bytes at `offset` of the segment `link`; fewer where there are no more.
    fn bytes(&mut self, link: &Link, offset: u64, want: usize) -> Result<&[u8], DiskError>;

    /// The first offset at or behind `offset` that may hold anything but zeros.
    fn next_data(&mut self, _link: &Link, offset: u64) -> Result<Option<u64>, DiskError> {
        Ok(Some(offset))
    }
}

/// The segments' own files.
#[derive(Debug)]
pub(super) struct SegmentSource {
    open: Option<(u64, Arc<dyn File>)>,
    window: Vec<u8>,
    start: u64,
    next_window: usize,
    /// Where the disk refused to read, for who goes on all the same with zeros in its place.
    pub unreadable: Option<Vec<(u64, DiskError)>>,
    /// Frames that belong into segments and are not there yet: base, offset, bytes.
    pub overlay: Vec<(u64, u64, Vec<u8>)>,
    /// What was read need not stay in the cache.
    pub forgets: bool,
}

impl Default for SegmentSource {
    fn default() -> Self {
        Self {
            open: None,
            window: Vec::new(),
            start: 0,
            next_window: WINDOW_FIRST,
            unreadable: None,
            overlay: Vec::new(),
            forgets: false,
        }
    }
}

/// How much to read now, and after that twice as much.
fn grow(window: &mut usize) -> usize {
    let now = *window;
    *window = (now * 2).min(WINDOW);
    now
}

impl SegmentSource {
    fn file(&mut self, link: &Link) -> Result<Arc<dyn File>, DiskError> {
        let base = link.header.base;
        if let Some((open, file)) = &self.open
            && *open == base
        {
            return Ok(Arc::clone(file));
        }
        let file = link.open()?;
        self.window.clear();
        self.open = Some((base, Arc::clone(&file)));
        Ok(file)
    }
}

impl SegmentSource {
    /// One that goes on where the disk refuses to read.
    pub(super) fn patient() -> Self {
        Self { unreadable: Some(Vec::new()), ..Self::default() }
    }

    /// The same, with frames laid over that are in the ring alone.
    pub(super) fn patient_over(overlay: Vec<(u64, u64, Vec<u8>)>) -> Self {
        Self { overlay, ..Self::patient() }
    }

    /// What was read may be old: the next read asks the file again.
    pub(super) fn refresh(&mut self) {
        self.window.clear();
    }
}

/// Puts `bytes`, which stand at `from`, over what `window` has at `start` and behind.
fn lay_over(window: &mut [u8], start: u64, bytes: &[u8], from: u64) {
    let common = from.max(start)..(from + bytes.len() as u64).min(start + window.len() as u64);
    if common.is_empty() {
        return;
    }
    let target = window.get_mut(to_usize(common.start - start)..to_usize(common.end - start));
    let source = bytes.get(to_usize(common.start - from)..to_usize(common.end - from));
    if let (Some(target), Some(source)) = (target, source) {
        target.copy_from_slice(source);
    }
}

/// Fills `window` page by page; those that cannot be read are zeros, and noted.
fn read_pages(
    file: &dyn File,
    link: &Link,
    window: &mut [u8],
    start: u64,
    unreadable: &mut Vec<(u64, DiskError)>,
) {
    let mut at = start;
    for page in window.chunks_mut(PAGE) {
        if let Err(error) = read_full(file, page, at) {
            page.fill(0);
            unreadable.push((at, DiskError::at("reading", &link.path)(error)));
        }
        at += page.len() as u64;
    }
}

impl Source for SegmentSource {
    fn bytes(&mut self, link: &Link, offset: u64, want: usize) -> Result<&[u8], DiskError> {
        let file = self.file(link)?;
        let inside =
            offset >= self.start && offset + want as u64 <= self.start + self.window.len() as u64;
        if !inside {
            let left = link.header.bytes.saturating_sub(offset);
            let read = (want.max(grow(&mut self.next_window)) as u64).min(left);
            self.window.resize(to_usize(read), 0);
            self.start = offset;
            match (read_full(&*file, &mut self.window, offset), &mut self.unreadable) {
                (Ok(read), _) => self.window.truncate(read),
                (Err(error), None) => {
                    self.window.clear();
                    return Err(DiskError::at("reading", &link.path)(error));
                }
                (Err(_), Some(unreadable)) => {
                    read_pages(&*file, link, &mut self.window, offset, unreadable);
                }
            }
            for (base, from, bytes) in &self.overlay {
                if *base == link.header.base {
                    lay_over(&mut self.window, offset, bytes, *from);
                }
            }
            if self.forgets {
                file.forget(offset..offset + self.window.len() as u64);
            }
        }
        let from = to_usize(offset - self.start);
        let to = (from + want).min(self.window.len());
        Ok(self.window.get(from..to).unwrap_or_default())
    }

    fn next_data(&mut self, link: &Link, offset: u64) -> Result<Option<u64>, DiskError> {
        Ok(self.file(link)?.next_data(offset))
    }
}

/// The ring's file: position modulo its size.
#[derive(Debug)]
pub(super) struct RingFileSource {
    file: Arc<dyn File>,
    path: PathBuf,
    /// Size of the ring.
    bytes: u64,
    window: Vec<u8>,
    /// Position of the window's first byte.
    start: u64,
    next_window: usize,
}

impl RingFileSource {
    pub(super) fn new(file: Arc<dyn File>, path: PathBuf, bytes: u64) -> Self {
        Self { file, path, bytes, window: Vec::new(), start: 0, next_window: WINDOW_FIRST }
    }

    /// Reads `bytes` bytes of the ring from `position` on, wrapping.
    fn fill(&mut self, position: u64, bytes: u64) -> Result<(), DiskError> {
        let start = position % self.bytes;
        let first = bytes.min(self.bytes - start);
        self.window.resize(to_usize(bytes), 0);
        self.start = position;
        let (head, tail) = self.window.split_at_mut(to_usize(first));
        for (part, at) in [(head, start), (tail, 0)] {
            read_full(&*self.file, part, at).map_err(DiskError::at("reading", &self.path))?;
        }
        Ok(())
    }
}

impl RingFileSource {
    /// Where the newest frame of `life` ends that the ring holds anywhere up to `window` bytes
    /// behind `end`; 0 if it holds none that ends at `end` or behind.
    ///
    /// Frames say where they stand, so one that has overtaken `end` by more than a lap is found
    /// too, where looking at each position behind `end` would find another frame in its place.
    pub(super) fn newest(
        &mut self,
        chain: &[Link],
        (log, life): (u64, Life),
        end: u64,
        window: u64,
    ) -> Result<u64, DiskError> {
        let floor = end.saturating_sub(self.bytes);
        let limit = end.saturating_add(window);
        let (mut before, mut behind) = (0, Vec::new());
        let mut slot = 0;
        while slot < self.bytes {
            self.fill(slot, (WINDOW as u64).min(self.bytes - slot))?;
            let chunks = self.window.as_chunks::<FRAME_ALIGN>().0;
            for (at, chunk) in (slot..).step_by(FRAME_ALIGN).zip(chunks) {
                let position = position_from(chunk, floor);
                if position >= limit || position % self.bytes != at {
                    continue;
                }
                if position < end {
                    before = position.max(before);
                } else {
                    behind.push(position);
                }
            }
            slot += self.window.len() as u64;
        }
        let mut newest = 0;
        for position in behind.into_iter().chain([before]) {
            let number = chain.partition_point(|link| link.header.base <= position);
            let Some(link) = number.checked_sub(1).and_then(|number| chain.get(number)) else {
                continue;
            };
            let (base, offset) = (link.header.base, position - link.header.base);
            let salt = super::frame::Salt { log, life, base };
            let bytes = whole_frame(self, link, offset)?;
            if let Ok((frame, of)) = read_frame(bytes, offset, salt)
                && of == life
            {
                newest = frame.end().max(newest);
            }
        }
        Ok(if newest < end { 0 } else { newest })
    }
}

impl Source for RingFileSource {
    fn bytes(&mut self, link: &Link, offset: u64, want: usize) -> Result<&[u8], DiskError> {
        let position = link.header.base + offset;
        let want = (want as u64).min(self.bytes);
        let inside =
            position >= self.start && position + want <= self.start + self.window.len() as u64;
        if !inside {
            let window = grow(&mut self.next_window) as u64;
            self.fill(position, want.max(window).min(self.bytes))?;
        }
        let from = to_usize(position - self.start);
        Ok(self.window.get(from..from + to_usize(want)).unwrap_or_default())
    }
}

/// A place in the chain.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which link of the chain.
    pub number: usize,
    pub offset: u64,
    /// The life of frames here, unless a `Life` frame says otherwise.
    pub life: Life,
    /// The frame before was a `Close`: what follows is a `Life` frame at the next page, if
    /// anything.
    pub closed: bool,
}

/// Where a walk ended, and what it saw.
#[derive(Debug)]
pub(super) struct Walked {
    pub place: Place,
    pub frames: u64,
    pub bytes: u64,
    /// The highest durable mark in any frame.
    pub durable: u64,
    /// The latest time in any frame.
    pub time: HybridTime,
    /// The walk ended with a `Seal` behind which there is no segment, although one was durable
    /// before the seal was written: where its first frame would be. Else 0.
    pub sealed: u64,
    /// Why the next bytes are no frame.
    pub reject: Reject,
}

/// Walks from `from` over valid frames, through the chain, to the first position that holds
/// none. `see` is shown every frame with the number of its link.
pub(super) fn walk(
    source: &mut dyn Source,
    chain: &[Link],
    log: u64,
    from: Place,
    see: &mut dyn FnMut(usize, &Frame<'_>),
) -> Result<Walked, DiskError> {
    let mut walked = Walked {
        place: from,
        frames: 0,
        bytes: 0,
        durable: 0,
        time: HybridTime::default(),
        sealed: 0,
        reject: Reject::Short,
    };
    while let Some(link) = chain.get(walked.place.number) {
        let Place { number, offset, life, closed } = walked.place;
        if link.end == Some(link.header.base + offset) {
            let Some(next) = chain.get(number + 1) else { break };
            walked.place = enter(number + 1, next);
            continue;
        }
        let at = if closed { offset.next_multiple_of(PAGE_U64) } else { offset };
        let salt = super::frame::Salt { log, life, base: link.header.base };
        let bytes = whole_frame(source, link, at)?;
        let read = if closed {
            Frame::read_life(bytes, at, log, link.header.base)
        } else {
            read_frame(bytes, at, salt)
        };
        let (frame, life) = match read {
            Ok(read) => read,
            Err(reject) => {
                walked.reject = reject;
                break;
            }
        };
        see(number, &frame);
        let length = frame.header().length as u64;
        walked.frames += 1;
        walked.bytes += length;
        walked.durable = walked.durable.max(frame.durable());
        walked.time = walked.time.max(frame.header().time);
        let kind = frame.header().kind;
        walked.place =
            Place { number, offset: at + length, life, closed: kind == FrameKind::Close };
        if kind == FrameKind::Seal && link.end.is_none() {
            let Some(next) = chain.get(number + 1) else {
                walked.sealed = link.header.limit() + FIRST_FRAME;
                break;
            };
            walked.place = enter(number + 1, next);
        }
    }
    Ok(walked)
}

/// The beginning of a link.
pub(super) fn enter(number: usize, link: &Link) -> Place {
    Place { number, offset: FIRST_FRAME, life: link.header.life, closed: false }
}

/// Does a segment begin with a frame?
pub(super) fn holds_frames(link: &Link, log: u64) -> Result<bool, DiskError> {
    let mut source = SegmentSource::default();
    let bytes = whole_frame(&mut source, link, FIRST_FRAME)?;
    let salt = super::frame::Salt { log, life: link.header.life, base: link.header.base };
    Ok(read_frame(bytes, FIRST_FRAME, salt).is_ok())
}

/// The bytes of the frame that its header at `offset` speaks of, as far as there are any.
pub(super) fn whole_frame<'a>(
    source: &'a mut dyn Source,
    link: &Link,
    offset: u64,
) -> Result<&'a [u8], DiskError> {
    let left = to_usize(link.header.bytes.saturating_sub(offset));
    if left < HEADER {
        return Ok(&[]);
    }
    let length = match Header::read(source.bytes(link, offset, HEADER)?) {
        Ok(header) => header.length,
        Err(_no_header) => HEADER,
    };
    source.bytes(link, offset, length.min(left))
}

/// What frames say of a log that stand somewhere behind its first bad position.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traces {
    /// The highest durable mark in any of them.
    pub durable: u64,
    /// The highest end of any that is of the life asked for: so far it had been written.
    pub written: u64,
}

impl Traces {
    pub(super) fn and(self, other: Self) -> Self {
        Self { durable: self.durable.max(other.durable), written: self.written.max(other.written) }
    }
}

/// Looks for frames of `lives` anywhere in `range` of a segment: evidence, never a frame to
/// deliver. `killed` is the life whose frames count as written.
pub(super) fn traces(
    source: &mut dyn Source,
    link: &Link,
    (log, lives, killed): (u64, &[Life], Option<Life>),
    range: Range<u64>,
) -> Result<Traces, DiskError> {
    let mut found = Traces::default();
    seek(source, link, (log, lives), range, &mut |frame, life| {
        let written = if Some(life) == killed { frame.end() } else { 0 };
        found = found.and(Traces { durable: frame.durable(), written });
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Shows `see` every valid frame of `lives`, or of a life that it opens itself, that stands
/// anywhere in `range` of a segment, until `Break`.
pub(super) fn seek(
    source: &mut dyn Source,
    link: &Link,
    (log, lives): (u64, &[Life]),
    range: Range<u64>,
    see: &mut dyn FnMut(&Frame<'_>, Life) -> ControlFlow<()>,
) -> Result<(), DiskError> {
    const STEP: u64 = FRAME_ALIGN as u64;
    let mut offset = range.start.next_multiple_of(STEP);
    let mut blank = true;
    let mut ask_at = offset;
    while offset < range.end {
        // Most of what was prepared was never written. To ask costs about as much as to read.
        if blank && offset >= ask_at {
            ask_at = offset + WINDOW as u64;
            match source.next_data(link, offset)? {
                Some(data) if data < range.end => offset = offset.max(data / STEP * STEP),
                _ => break,
            }
        }
        // As much as can be looked at in one go where there is nothing, else a page.
        let step = if blank { WINDOW as u64 } else { PAGE_U64 };
        let page_end = ((offset / step + 1) * step).min(range.end);
        let page = source.bytes(link, offset, to_usize(page_end - offset))?;
        let was_blank = blank;
        blank = is_blank(page);
        if was_blank && !blank {
            continue;
        }
        let candidates =
            if blank { Vec::new() } else { candidates(page, link.header.base, offset) };
        for candidate in candidates {
            let bytes = whole_frame(source, link, candidate)?;
            let salt = |life| super::frame::Salt { log, life, base: link.header.base };
            let known = lives.iter().find_map(|life| {
                Frame::read(bytes, candidate, salt(*life)).ok().map(|frame| (frame, *life))
            });
            let read = || Frame::read_life(bytes, candidate, log, link.header.base).ok();
            if let Some((frame, life)) = known.or_else(read)
                && see(&frame, life).is_break()
            {
                return Ok(());
            }
        }
        offset = page_end;
    }
    Ok(())
}

/// Offsets in `page` (which stands at `offset` of the segment at `base`) where a frame may begin:
/// where the stored position is right. Cheap, because it is asked of every 16 bytes of the
/// look-ahead; what a file held in an earlier use is passed over by it.
fn candidates(page: &[u8], base: u64, offset: u64) -> Vec<u64> {
    let places = (offset..).step_by(FRAME_ALIGN).zip(page.as_chunks::<FRAME_ALIGN>().0);
    let may_begin = |(at, chunk): &(u64, &[u8; FRAME_ALIGN])| stands_at(chunk, base + at);
    places.filter(may_begin).map(|(at, _)| at).collect()
}

/// Nothing but zeros?
fn is_blank(page: &[u8]) -> bool {
    let (blocks, rest) = page.as_chunks::<256>();
    // Whole blocks without a way out in between: the processor does many bytes at a time.
    let is_zero = |block: &[u8; 256]| {
        let words = block.as_chunks::<16>().0.iter();
        words.fold(0, |all, word| all | u128::from_le_bytes(*word)) == 0
    };
    blocks.iter().all(is_zero) && rest.iter().all(|byte| *byte == 0)
}
