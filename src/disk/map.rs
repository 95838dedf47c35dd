//! The unsafe room: memory that is shared with a file.
//!
//! Two things are mapped, and both types are built so that no reference into a mapping can see
//! its bytes change:
//!
//! - the **ring**, written by one [`RingWriter`] through raw pointers and read by nobody in this
//!   process but the kernel, which copies out of it in `pwrite` ([`RingSource`]);
//! - a **segment**, mapped read-only. [`SegmentMap::bytes`] hands out what was
//!   published, and published bytes never change again: the file is
//!   written by `pwrite` alone, always below the published mark with the bytes that are there
//!   (the last page of a group is written again by the next one).
//!
//! What is left is the file system's: reading a map can meet `SIGBUS` where the disk cannot give
//! back an evicted page, or where somebody cuts the file. docs/guarantees.md says so.
#![expect(unsafe_code, reason = "the one module that touches mapped memory")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::Arc;
#[cfg(any(test, feature = "internals", feature = "testkit"))]
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::published::Published;
use super::{PAGE, best_effort};

/// Memory of a fixed size that lives until it is dropped and is never moved.
pub(super) struct Region {
    start: *mut u8,
    bytes: usize,
    hold: Hold,
    /// Up to where some map of it has published: what the simulated disk must not change.
    #[cfg(any(test, feature = "internals", feature = "testkit"))]
    still: AtomicUsize,
}

enum Hold {
    Map(MmapRaw),
    Heap(Layout),
}

// SAFETY: A region is an address, a length and an owner. Which accesses may meet is the business
// of the types below; none of them depends on the thread.
unsafe impl Send for Region {}
// SAFETY: As above: the region itself offers raw copies only, and says whose duty they are.
unsafe impl Sync for Region {}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Region {
    /// Zeroed, page-aligned memory that is no file's.
    pub(super) fn heap(bytes: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(bytes, PAGE).map_err(io::Error::other)?;
        if bytes == 0 {
            return Err(io::Error::other("an empty region"));
        }
        // SAFETY: The layout's size is not zero, as checked in the line above.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        Ok(Self::new(start, bytes, Hold::Heap(layout)))
    }

    fn new(start: *mut u8, bytes: usize, hold: Hold) -> Self {
        Self {
            start,
            bytes,
            hold,
            #[cfg(any(test, feature = "internals", feature = "testkit"))]
            still: AtomicUsize::new(0),
        }
    }

    fn map(map: MmapRaw) -> io::Result<Self> {
        map.advise(Advice::DontFork)?;
        Ok(Self::new(map.as_mut_ptr(), map.len(), Hold::Map(map)))
    }

    fn advise(&self, advice: Advice) {
        if let Hold::Map(map) = &self.hold {
            // Advice only: a kernel that does not take it is slower, and right all the same.
            best_effort(map.advise(advice));
        }
    }

    /// Copies `bytes` to `at`.
    ///
    /// # Safety
    /// The region is writable, and nobody holds a reference to, or copies at the same time from
    /// within this process, any of `at..at + bytes.len()`.
    pub(super) unsafe fn copy_in(&self, at: usize, bytes: &[u8]) {
        let end = at.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= self.bytes), "copy past the end of a region");
        // SAFETY: `at` is within the region, as asserted above.
        let target = unsafe { self.start.add(at) };
        // SAFETY: The range is within the region (asserted), which the caller says is writable
        // and not looked at; `bytes` is a slice elsewhere, so the two do not overlap.
        unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Copies from `at` into `buffer`.
    ///
    /// # Safety
    /// Nobody in this process writes any of `at..at + buffer.len()` at the same time.
    #[cfg(any(test, feature = "internals", feature = "testkit"))]
    pub(super) unsafe fn copy_out(&self, at: usize, buffer: &mut [u8]) {
        let end = at.checked_add(buffer.len());
        assert!(end.is_some_and(|end| end <= self.bytes), "copy past the end of a region");
        // SAFETY: `at` is within the region, as asserted above.
        let source = unsafe { self.start.add(at) };
        // SAFETY: The range is within the region (asserted) and still, as the caller says;
        // `buffer` is ours alone.
        unsafe { source.copy_to_nonoverlapping(buffer.as_mut_ptr(), buffer.len()) };
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Hold::Heap(layout) = &self.hold {
            // SAFETY: `start` came from `alloc_zeroed` with this layout, and this is the owner.
            unsafe { dealloc(self.start, *layout) };
        }
    }
}

/// Two handles of a ring over `region`: one writes, the other is what the kernel copies from.
fn ring(region: Region) -> (RingWriter, RingSource) {
    let region = Arc::new(region);
    (RingWriter::new(Arc::clone(&region)), RingSource { region })
}

/// A ring in plain memory, for logs whose frames need not outlive the process by themselves.
///
/// # Errors
/// `bytes` is zero or absurd.
pub fn heap_ring(bytes: usize) -> io::Result<(RingWriter, RingSource)> {
    Region::heap(bytes).map(ring)
}

/// A ring over a mapped file, every page of it present and, where allowed, locked.
pub(super) fn file_ring(
    file: &std::fs::File,
    bytes: usize,
) -> io::Result<(RingWriter, RingSource)> {
    let map = MmapOptions::new().len(bytes).map_raw(file)?;
    // Without these the first lap meets a page fault per page, inside the append lock.
    map.advise(Advice::PopulateWrite)?;
    // Not allowed to everybody (RLIMIT_MEMLOCK); the ring works without.
    best_effort(map.lock());
    Region::map(map).map(ring)
}

/// The writing end of a ring: there is one, and to write is to have it by `&mut`.
#[derive(Debug)]
pub struct RingWriter {
    region: Arc<Region>,
    /// A position that is the ring's first byte: spares a division where it is the last lap's.
    lap: u64,
}

impl RingWriter {
    fn new(region: Arc<Region>) -> Self {
        Self { region, lap: 0 }
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.region.bytes
    }

    /// No ring is empty; here because clippy asks for it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `bytes` to `position` modulo the ring's size.
    ///
    /// # Panics
    /// If `bytes` is larger than the ring.
    #[inline]
    pub fn copy_in(&mut self, position: u64, bytes: &[u8]) {
        let start = position.wrapping_sub(self.lap);
        if start.saturating_add(bytes.len() as u64) > self.region.bytes as u64 {
            self.copy_in_wrapping(position, bytes);
            return;
        }
        // SAFETY: As in `copy_in_wrapping`.
        unsafe { self.region.copy_in(crate::types::to_usize(start), bytes) };
    }

    #[cold]
    fn copy_in_wrapping(&mut self, position: u64, bytes: &[u8]) {
        let ring = self.region.bytes as u64;
        self.lap = (position + bytes.len() as u64) / ring * ring;
        for (at, part) in wrapped(position, bytes.len(), self.region.bytes) {
            let part = bytes.get(part).unwrap_or_default();
            // SAFETY: A ring is mapped writable. This is its only writer (`&mut self`, not
            // `Clone`, made once per region), and nothing else in the process reads it: a
            // `RingSource` lets the kernel copy. The kernel may copy bytes that are being
            // written here; they lie above the written mark and are written out again later.
            unsafe { self.region.copy_in(at, part) };
        }
    }
}

/// The reading end of a ring, for the kernel's eyes (and the simulated disk's).
#[derive(Clone, Debug)]
pub struct RingSource {
    region: Arc<Region>,
}

impl RingSource {
    /// `pwrite` of at most `bytes` bytes from `position` on, not past the ring's wrap.
    pub(super) fn pwrite(
        &self,
        target: BorrowedFd<'_>,
        position: u64,
        bytes: usize,
        at: u64,
    ) -> io::Result<usize> {
        let at = libc::off_t::try_from(at).map_err(io::Error::other)?;
        let Some((start, part)) = wrapped(position, bytes, self.region.bytes).next() else {
            return Ok(0);
        };
        // SAFETY: `start` is within the region: `wrapped` answers nothing else.
        let source = unsafe { self.region.start.add(start) };
        // SAFETY: `source..source + part.len()` is within the region, which this handle keeps
        // alive; the kernel only reads it; the descriptor is borrowed, so it is open.
        let written = unsafe { libc::pwrite(target.as_raw_fd(), source.cast(), part.len(), at) };
        usize::try_from(written).map_err(|_negative| io::Error::last_os_error())
    }

    /// Size in bytes.
    #[cfg(any(test, feature = "internals", feature = "testkit"))]
    pub(super) fn len(&self) -> usize {
        self.region.bytes
    }

    /// How much of `bytes` bytes at `position` comes before the ring's wrap.
    #[cfg(any(test, feature = "internals", feature = "testkit"))]
    pub(super) fn contiguous(&self, position: u64, bytes: usize) -> usize {
        wrapped(position, bytes, self.region.bytes).next().map_or(0, |(_, part)| part.len())
    }

    /// Is `other` an end of the same ring?
    #[cfg(any(test, feature = "internals", feature = "testkit"))]
    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.region, &other.region)
    }

    /// Is this the last handle, the writing end gone with the others?
    #[cfg(any(test, feature = "internals", feature = "testkit"))]
    pub(super) fn is_last(&self) -> bool {
        Arc::strong_count(&self.region) == 1
    }

    /// Copies `buffer.len()` bytes out, for a disk that has no kernel.
    #[cfg(any(test, feature = "internals", feature = "testkit"))]
    pub(super) fn copy_out(&self, position: u64, buffer: &mut [u8]) {
        for (at, part) in wrapped(position, buffer.len(), self.region.bytes) {
            let Some(part) = buffer.get_mut(part) else { return };
            // SAFETY: Plays the kernel's part, with its licence: bytes above the written mark
            // may be in the making, and whoever calls this makes no promise about those.
            unsafe { self.region.copy_out(at, part) };
        }
    }
}

/// The at most two pieces of `bytes` bytes at `position` in a ring of `ring` bytes:
/// (offset in the ring, range of the piece).
fn wrapped(
    position: u64,
    bytes: usize,
    ring: usize,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    assert!(bytes <= ring, "a piece larger than the ring");
    let start = crate::types::to_usize(position % (ring as u64));
    let first = bytes.min(ring - start);
    [(start, 0..first), (0, first..bytes)].into_iter().filter(|(_, part)| !part.is_empty())
}

/// The bytes of a file of the simulated disk: written here, seen by its maps.
///
/// One exists per region, and to write is to have it by `&mut`.
#[cfg(any(test, feature = "internals", feature = "testkit"))]
#[derive(Debug)]
pub(super) struct FilePages {
    region: Arc<Region>,
}

#[cfg(any(test, feature = "internals", feature = "testkit"))]
impl FilePages {
    /// A file of that content.
    pub(super) fn new(content: &[u8]) -> io::Result<Self> {
        let mut pages = Self { region: Arc::new(Region::heap(content.len())?) };
        pages.copy_in(0, content).map_err(|_changed| io::ErrorKind::Other)?;
        Ok(pages)
    }

    /// Size in bytes.
    pub(super) fn len(&self) -> usize {
        self.region.bytes
    }

    /// Are there no maps (any more)?
    pub(super) fn is_unmapped(&self) -> bool {
        Arc::strong_count(&self.region) == 1
    }

    /// Writes `bytes` at `at`.
    ///
    /// # Errors
    /// A byte that a living map has published would change. Nothing was written.
    pub(super) fn copy_in(&mut self, at: usize, bytes: &[u8]) -> Result<(), PublishedChanges> {
        // Acquire: pairs with the Release in `publish`. A mark that is published later covers
        // bytes that were written before, and so nothing of what is written here.
        let still = self.region.still.load(Ordering::Acquire);
        let still = if self.is_unmapped() { 0 } else { still.saturating_sub(at) };
        let (same, new) = bytes.split_at(still.min(bytes.len()));
        let mut before = vec![0; same.len()];
        self.copy_out(at, &mut before);
        if before != same {
            return Err(PublishedChanges);
        }
        // SAFETY: The region is heap memory, so writable. This is its only writer (`&mut self`,
        // not `Clone`, one per region: `into_ring` consumes it), and what maps hand out
        // references to lies below `still`, which the copy begins above.
        unsafe { self.region.copy_in(at + same.len(), new) };
        Ok(())
    }

    /// Reads from `at`.
    pub(super) fn copy_out(&self, at: usize, buffer: &mut [u8]) {
        // SAFETY: Nobody writes: the only writer is `self` by `&mut`, which is borrowed here.
        unsafe { self.region.copy_out(at, buffer) };
    }

    /// Another map of the first `bytes` bytes.
    pub(super) fn map(&mut self, bytes: usize) -> SegmentMap {
        if self.is_unmapped() {
            // Relaxed: nobody else has the region; whoever gets a map, gets it from here.
            self.region.still.store(0, Ordering::Relaxed);
        }
        assert!(bytes <= self.region.bytes, "a map larger than its file");
        let region = Arc::clone(&self.region);
        SegmentMap { region, bytes, published: Published::default() }
    }

    /// The same bytes as a ring, that from now on only the ring's writer writes.
    pub(super) fn into_ring(self) -> (RingWriter, RingSource) {
        assert!(self.is_unmapped(), "a ring that is mapped as a segment too");
        (RingWriter::new(Arc::clone(&self.region)), RingSource { region: self.region })
    }
}

/// A write would change bytes that a map has published.
#[cfg(any(test, feature = "internals", feature = "testkit"))]
#[derive(Copy, Clone, Debug)]
pub(super) struct PublishedChanges;

/// A segment, mapped read-only.
#[derive(Debug)]
pub struct SegmentMap {
    region: Arc<Region>,
    bytes: usize,
    published: Published,
}

impl SegmentMap {
    pub(super) fn of_file(file: &std::fs::File, bytes: usize) -> io::Result<Self> {
        let region = Region::map(MmapOptions::new().len(bytes).map_raw_read_only(file)?)?;
        // No read-ahead: it would make large folios, and a folio is written back whole.
        region.advise(Advice::Random);
        Ok(Self { region: Arc::new(region), bytes, published: Published::default() })
    }

    /// Size in bytes, published or not.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// No segment is empty; here because clippy asks for it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From now on everything below `end` may be read, and **will not change any more**: the
    /// caller has written those bytes and writes nothing else there ever again.
    pub(crate) fn publish(&self, end: usize) {
        assert!(end <= self.bytes, "published past the end of a segment");
        // Release: pairs with the Acquire in `FilePages::copy_in`.
        #[cfg(any(test, feature = "internals", feature = "testkit"))]
        self.region.still.fetch_max(end, Ordering::Release);
        self.published.raise(end);
    }

    /// What has been published.
    pub fn bytes(&self) -> &[u8] {
        let end = self.published.get();
        // SAFETY: `end` is within the region (asserted in `publish`), which lives as long as
        // `self`. The bytes below it are initialised (a file's, or zeroed memory) and do not
        // change: the map is read-only, and `publish`'s callers in `log` only ever `pwrite` the
        // same bytes there again.
        unsafe { std::slice::from_raw_parts(self.region.start, end) }
    }

    /// Bytes from `start` on will be read soon. Says nothing of what is there.
    #[inline]
    pub(crate) fn prefetch(&self, start: usize, bytes: usize) {
        const LINE: usize = 64;
        let end = start.saturating_add(bytes).min(self.bytes);
        for at in (start / LINE * LINE..end).step_by(LINE) {
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                // SAFETY: `at` is within the region, as bounded above.
                let line = unsafe { self.region.start.add(at) };
                // SAFETY: A hint, for an address of ours; it reads nothing and cannot fail.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast_const().cast()) };
            }
            #[cfg(not(target_arch = "x86_64"))]
            std::hint::black_box(at);
        }
    }

    /// The segment is complete: read-ahead does no harm any more.
    pub(crate) fn sealed(&self) {
        self.region.advise(Advice::Normal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_that_wraps_comes_back_in_order_from_every_position() {
        let (mut writer, source) = heap_ring(PAGE).unwrap();
        let piece: Vec<u8> = (0..=255).collect();
        // Miri is slow; the wrap is among these too.
        for position in (0..2 * PAGE as u64).step_by(if cfg!(miri) { 251 } else { 1 }) {
            writer.copy_in(position, &piece);
            let mut back = vec![0; piece.len()];
            source.copy_out(position, &mut back);
            assert_eq!(back, piece, "at {position}");
        }
    }

    #[test]
    fn nothing_of_a_segment_is_readable_before_it_is_published() {
        let map = FilePages::new(&[0; PAGE]).unwrap().map(PAGE);
        assert!(map.bytes().is_empty());
        map.publish(64);
        map.publish(16);
        assert_eq!(map.bytes().len(), 64, "a mark never goes back");
    }

    #[test]
    fn a_map_sees_what_is_written_and_what_it_published_cannot_change() {
        let mut pages = FilePages::new(&[1; PAGE]).unwrap();
        let map = pages.map(PAGE);
        pages.copy_in(10, b"later").unwrap();
        map.publish(20);
        assert_eq!(map.bytes().get(9..16), Some(&b"\x01later\x01"[..]));
        pages.copy_in(10, b"later").unwrap();
        assert!(pages.copy_in(14, b"R12345").is_err());
        pages.copy_in(14, b"r\x01\x01\x01\x01\x0123").unwrap();
        drop(map);
        pages.copy_in(0, b"nobody looks").unwrap();
    }

    #[test]
    #[should_panic(expected = "larger than the ring")]
    fn a_piece_larger_than_the_ring_is_our_own_mistake() {
        heap_ring(PAGE).unwrap().0.copy_in(0, &[0; PAGE + 1]);
    }
}
