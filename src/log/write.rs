//! The write path: append into the ring, drain into the segment.
//!
//! ```text
//!  batch --CRC of the body--> [append lock] place, header, CRC --> ring     (survives kill -9)
//!                                  drain: pwrite of whole 4 KiB pages --> segment (readable)
//!                                                 commit: fdatasync --> disk (survives power)
//! ```
//!
//! Lock order: append, then drain, then the chain's. A drain takes whole pages, so it writes
//! bytes behind the written mark too: left-overs of an earlier lap, or a frame in the making.
//! Neither validates there (a frame's place is in its checksum), and both are written over
//! later. For the same reason the ring keeps the page that the stored mark is in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::checkpoint::Totals;
use super::frame::{About, Batch, FrameKind, HEAD, HEADER, Place, Salt};
use super::rule::{Rule, holds};
use super::segment::{FIRST_FRAME, Segment};
use super::{Closing, Shared};
use crate::disk::{PAGE_U64, RingWriter, write_ring_full};
use crate::error::{AppendError, DiskError};
use crate::types::{FRAME_ALIGN, HybridTime, Life, Lsn, Seq, StreamId, to_usize};

/// What is pending in the ring when the drain thread is woken.
pub(super) const DRAIN_BYTES: u64 = 1 << 20;

/// The number of a stream's first event.
pub(super) const FIRST_SEQ: Seq = match Seq::new(1) {
    Some(seq) => seq,
    None => Seq::ZERO,
};

/// Where a frame went.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its position.
    pub lsn: Lsn,
    /// The first position behind it: the mark that covers it.
    pub end: Lsn,
    /// When, in the log's own time.
    pub time: HybridTime,
}

/// What the append lock guards. In this order: what every append touches shares the lock's cache
/// line and the next, because they go from one processor to the other with the lock.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Appender {
    /// Offset of the next frame in the segment being written.
    pub offset: u64,
    /// Frames that end at or below this offset fit: the segment, the ring, and how far marks may
    /// lag. Marks only rise, so it may be too low, never too high. 0: look.
    pub room: u64,
    pub time: HybridTime,
    /// What goes into the checksum of frames in the segment being written.
    pub salt: Salt,
    pub ring: RingWriter,
    pub counts: AppendCounts,
    /// The segment being written; none before a log's first frame.
    pub segment: Option<Arc<Segment>>,
    /// The `Life` frame has been written.
    pub begun: bool,
    pub life: Life,
    pub closing: Closing,
}

/// Counted under the append lock.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct AppendCounts {
    pub frames: u64,
    pub events: u64,
    pub bytes: u64,
    pub ring_full: u64,
    pub lag_waits: u64,
    pub seals: u64,
    /// Streams that began, but for those of Annals' own.
    pub streams: u64,
}

impl AppendCounts {
    pub(super) fn totals(&self) -> Totals {
        Totals { frames: self.frames, events: self.events, streams: self.streams }
    }
}

/// Copies a frame into the ring: what has been there for long first, what was just computed last.
#[inline]
fn put(ring: &mut RingWriter, position: u64, (head, rest): ([u8; HEAD], &[u8])) {
    ring.copy_in(position + HEAD as u64, rest);
    ring.copy_in(position, &head);
}

impl Shared {
    /// See [`Log::append`](super::Log::append).
    pub(super) fn append(
        &self,
        batch: &mut Batch,
        kind: Option<FrameKind>,
        stream: StreamId,
        first: Seq,
    ) -> Result<Appended, AppendError> {
        let events = u64::from(batch.events());
        let begun = u64::from(events > 0 && first == FIRST_SEQ && !batch.begins_own());
        // Relaxed: looked at again under the lock.
        let durable = self.durable.load(Ordering::Relaxed);
        let mut sealed = batch.seal(kind, &About { stream, seq: first, durable });
        let bytes = sealed.bytes();
        if bytes > self.options.frame_bytes_max {
            return Err(AppendError::GroupTooLarge { bytes, max: self.options.frame_bytes_max });
        }
        // Read before the lock is taken: what it orders is decided inside.
        let now = self.options.clock.hybrid();
        let mut appender = self.append.lock();
        if let Some(poison) = self.poison.get().filter(|_| holds(Rule::PoisonRefuses)) {
            return Err(AppendError::Poisoned(poison.clone()));
        }
        if appender.offset + bytes as u64 > appender.room {
            self.make_room(&mut appender, bytes, kind)?;
        }
        let offset = appender.offset;
        let place = Place {
            salt: appender.salt,
            offset,
            // Relaxed: any older mark is as true.
            durable: self.durable.load(Ordering::Relaxed),
            time: now.max(appender.time.next()),
        };
        let position = appender.salt.base + offset;
        put(&mut appender.ring, position, sealed.place(&place));
        appender.offset += bytes as u64;
        appender.time = place.time;
        appender.counts.frames += 1;
        appender.counts.events += events;
        appender.counts.streams += begun;
        appender.counts.bytes += bytes as u64;
        self.recent.insert(stream);
        let end = position + bytes as u64;
        // Release: pairs with the Acquire loads of `written`, so that the kernel copies whole
        // frames below it.
        self.written.store(end, Ordering::Release);
        drop(appender);
        // Once for so many bytes: to look how far it has come would fetch its cache line each time.
        if position / DRAIN_BYTES != end / DRAIN_BYTES {
            self.drain_bell.ring();
        }
        self.tails.ring_written();
        match (Lsn::new(position), Lsn::new(end)) {
            (Some(lsn), Some(end)) => Ok(Appended { lsn, end, time: place.time }),
            // A frame stands behind a header page, at a multiple of 16.
            (None, _) | (_, None) => unreachable!("a frame at {position} to {end}"),
        }
    }

    /// Sees to it that the log takes frames, that the life has begun and that `bytes` fit the
    /// segment and the ring; notes how much more does.
    #[cold]
    fn make_room(
        &self,
        appender: &mut Appender,
        bytes: usize,
        kind: Option<FrameKind>,
    ) -> Result<(), AppendError> {
        match (appender.closing, kind) {
            (Closing::Open, _) | (Closing::LastFrame, Some(FrameKind::Close)) => {}
            (Closing::LastFrame | Closing::Closed, _) => return Err(AppendError::Closed),
        }
        self.begin_life(appender)?;
        // A seal must always fit behind.
        let needed = (bytes + HEADER) as u64;
        loop {
            match &appender.segment {
                Some(segment) if appender.offset + needed <= segment.header.bytes => {
                    let segment_room = segment.header.bytes - HEADER as u64;
                    self.ring_room(appender, bytes)?;
                    if appender.closing == Closing::Open {
                        appender.room = segment_room.min(self.room(appender));
                    }
                    return Ok(());
                }
                _ => self.roll_over(appender)?,
            }
        }
    }

    /// Up to which offset frames may go without a commit or a drain.
    fn room(&self, appender: &Appender) -> u64 {
        let durable = self.durable.load(Ordering::Acquire) + self.lag_max(appender);
        let stored = self.kept() + appender.ring.len() as u64;
        durable.min(stored).saturating_sub(appender.salt.base)
    }

    /// How far durable marks may lag. Recovery looks for evidence behind the first bad position
    /// no further than that, so this is where they are kept from lagging more.
    fn lag_max(&self, appender: &Appender) -> u64 {
        self.options.flush_bytes + appender.ring.len() as u64
    }

    /// From where on the ring is still needed.
    fn kept(&self) -> u64 {
        // Acquire: pairs with the Release in `drain`; the kernel has copied what is below.
        self.stored.load(Ordering::Acquire) / PAGE_U64 * PAGE_U64
    }

    /// Waits until `bytes` more fit the ring, by storing what is in it.
    fn ring_room(&self, appender: &mut Appender, bytes: usize) -> Result<(), AppendError> {
        let end = appender.salt.base + appender.offset + bytes as u64;
        let ring = appender.ring.len() as u64;
        let lag_max = self.lag_max(appender);
        let lag = end.saturating_sub(self.durable.load(Ordering::Acquire));
        if lag > lag_max && holds(Rule::LagBounded) {
            appender.counts.lag_waits += 1;
            self.watch.waited(&appender.counts);
            self.commit_below(end - lag_max).map_err(AppendError::Poisoned)?;
        }
        if end.saturating_sub(self.kept()) > ring {
            appender.counts.ring_full += 1;
            self.watch.waited(&appender.counts);
            let written = self.written.load(Ordering::Acquire);
            self.drain(written).map_err(AppendError::Poisoned)?;
            debug_assert!(
                end.saturating_sub(self.kept()) <= ring,
                "a drained ring holds one page, and a frame takes less than half of it"
            );
        }
        Ok(())
    }

    /// Seals the segment, if there is one, and enters the next. Nothing changes unless the next
    /// one is there.
    pub(super) fn roll_over(&self, appender: &mut Appender) -> Result<(), AppendError> {
        let next = self.preparer.take(|| self.keeper_bell.ring())?;
        if let Some(segment) = appender.segment.clone() {
            self.seal(appender, &segment)?;
            if self.options.checkpoints.is_some() {
                let position = next.header.first_frame();
                *self.due.lock() = Some((position, appender.counts.totals()));
            }
        }
        self.chain.write().push(Arc::clone(&next));
        appender.room = 0;
        appender.offset = FIRST_FRAME;
        if appender.segment.is_none() {
            // This life's first segment: what was before is durable, and the marks begin here.
            let first = next.header.first_frame();
            *self.drain.lock() = first;
            self.durable.store(first, Ordering::Release);
            self.stored.store(first, Ordering::Release);
        }
        // Release: as in `append`. With the seal, so that a drain that sees it can step over.
        self.written.store(next.header.first_frame(), Ordering::Release);
        appender.salt = next.salt(appender.life);
        appender.segment = Some(next);
        Ok(())
    }

    fn seal(&self, appender: &mut Appender, segment: &Segment) -> Result<(), AppendError> {
        let position = segment.header.base + appender.offset;
        self.ring_room(appender, HEADER)?;
        self.put(appender, segment, (FrameKind::Seal, &[]));
        appender.counts.seals += 1;
        segment.finish(position + HEADER as u64);
        self.watch.segment_sealed(segment, position + HEADER as u64);
        // The writer enters segment N + 2 only when N is synced.
        if self.durable.load(Ordering::Acquire) < segment.header.base {
            self.commit_below(segment.header.base).map_err(AppendError::Poisoned)?;
        }
        Ok(())
    }

    /// A system frame in the segment being written.
    pub(super) fn put_system(
        &self,
        appender: &mut Appender,
        kind: FrameKind,
        body: &[u8],
    ) -> Result<(), AppendError> {
        let Some(segment) = appender.segment.clone() else { return Err(AppendError::Closed) };
        self.ring_room(appender, HEADER + body.len() + FRAME_ALIGN)?;
        self.put(appender, &segment, (kind, body));
        // Release: as in `append`.
        self.written.store(segment.header.base + appender.offset, Ordering::Release);
        Ok(())
    }

    /// Copies a system frame into the ring. There is room.
    fn put(&self, appender: &mut Appender, segment: &Segment, (kind, body): (FrameKind, &[u8])) {
        // Relaxed: any older mark is as true.
        let durable = self.durable.load(Ordering::Relaxed);
        let place = Place {
            salt: segment.salt(appender.life),
            offset: appender.offset,
            durable,
            time: self.options.clock.hybrid_after(appender.time),
        };
        let mut batch = Batch::of_body(body);
        let about = About { stream: StreamId::SYSTEM, seq: Seq::ZERO, durable };
        let mut sealed = batch.seal(Some(kind), &about);
        put(&mut appender.ring, segment.header.base + appender.offset, sealed.place(&place));
        appender.offset += sealed.bytes() as u64;
        appender.time = place.time;
        appender.counts.frames += 1;
        appender.counts.bytes += sealed.bytes() as u64;
    }

    /// Stores everything below `upto` in its segment; answers the stored mark.
    ///
    /// # Errors
    /// The file system's; then the log is poisoned.
    pub(super) fn drain(&self, upto: u64) -> Result<u64, DiskError> {
        let mut stored = self.drain.lock();
        while *stored < upto {
            let Some((segment, next)) = self.chain.read().writing_at(*stored) else { break };
            match self.store(&segment, *stored, upto) {
                Ok(end) if Some(end) == segment.end() => {
                    // The seal went with it: the next position is the next segment's.
                    let Some(next) = next else {
                        *stored = end;
                        break;
                    };
                    *stored = next;
                    self.keeper_bell.ring();
                    self.sealed_bell.ring();
                }
                Ok(end) => *stored = end,
                Err(error) => return Err(self.poison(error)),
            }
            // Release: pairs with the Acquire loads, for whom the segment's map holds the bytes.
            self.stored.store(*stored, Ordering::Release);
        }
        Ok(*stored)
    }

    /// Writes one segment's part of `from..upto`, in whole pages; answers where it ends.
    fn store(&self, segment: &Segment, from: u64, upto: u64) -> Result<u64, DiskError> {
        let base = segment.header.base;
        let end = segment.end().map_or(upto, |end| end.min(upto));
        // Never the header page: frames begin behind it.
        let first = (from - base) / PAGE_U64 * PAGE_U64;
        let bytes = (end - base).next_multiple_of(PAGE_U64) - first;
        let opened = segment.opened()?;
        write_ring_full(&*opened.file, &self.ring, base + first, to_usize(bytes), first)
            .map_err(DiskError::at("writing", &segment.path))?;
        // Whole frames, in the file, and written again with the same bytes at most.
        opened.map.publish(to_usize(end - base));
        self.counts.drains.fetch_add(1, Ordering::Relaxed);
        self.counts.drained_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(end)
    }

    /// Commits until everything below `position` is durable. Takes no part in the queue: who
    /// calls holds the append lock, so it waits for a running commit and then makes its own.
    fn commit_below(&self, position: u64) -> Result<(), DiskError> {
        let synced = self.syncing.lock();
        if self.durable.load(Ordering::Acquire) < position {
            self.sync_written(synced)?;
        }
        Ok(())
    }
}
