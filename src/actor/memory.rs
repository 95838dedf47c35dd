//! Events and snapshots in memory: for tests, and for actors that need not outlive the process.
//!
//! Frames are those of the log, checksums and all. A test can hold the durable mark back, cut
//! the power, let appends fail or a sync.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rkyv::util::AlignedVec;

use super::provider::{
    Appended, EventStore, NewSnapshot, Replayed, SnapshotRef, SnapshotStore, Testimony, Witness,
};
use super::ticket::Deadline;
use crate::error::{AppendError, Damage, DamageReason, DiskError, ReadError, SyncError};
use crate::log::frame::{About, Batch, Frame, Place, Salt};
use crate::time::Clock;
use crate::types::{HybridTime, Life, Lsn, Seq, StreamId, StreamMap};
use fault::Faults;

mod fault;

pub use fault::Call;

/// Where the first frame stands.
const FIRST: u64 = 4096;

/// Frames have their positions from this: there is one segment.
const SALT: Salt = Salt { log: 1, life: Life { number: 1, bits: 1 }, base: 0 };

/// A store of events and of snapshots that lives as long as its `Arc`.
///
/// ```
/// use annals::actor::memory::Memory;
/// use annals::actor::provider::EventStore;
/// use annals::log::frame::{Batch, RecordKind};
/// use annals::types::{Seq, StreamId};
///
/// let memory = Memory::new();
/// memory.hold(); // nothing becomes durable until the test says so
/// let mut batch = Batch::new();
/// batch.push(RecordKind::Event, 1, b"something happened").expect("small");
/// let first = Seq::new(1).expect("small");
/// let at = memory.append(&mut batch, StreamId::of("kind", "name"), first)?;
/// assert!(memory.durable() < at.end.get());
/// memory.release();
/// assert!(memory.durable() >= at.end.get());
/// # Ok::<(), annals::error::AppendError>(())
/// ```
pub struct Memory {
    clock: Clock,
    /// Kept in step with `inner`, for reading without its lock.
    durable: AtomicU64,
    inner: Mutex<Inner>,
    /// The durable mark has moved, or never will.
    changed: Condvar,
    /// Frames that replays have shown.
    visits: AtomicUsize,
}

struct Inner {
    frames: Vec<Stored>,
    streams: StreamMap<Stream>,
    snapshots: StreamMap<Vec<NewSnapshot>>,
    end: u64,
    durable: u64,
    time: HybridTime,
    /// The durable mark moves only when told.
    held: bool,
    append_failure: Option<AppendError>,
    /// So many appends work yet.
    appends_left: Option<u64>,
    read_failure: Option<ReadError>,
    poisoned: Option<DiskError>,
    refuses_snapshots: bool,
    faults: Faults,
    wakers: Vec<(Lsn, Waker)>,
}

#[derive(Default)]
struct Stream {
    frames: Vec<Arc<AlignedVec<16>>>,
    last: Seq,
}

struct Stored {
    stream: StreamId,
    bytes: Arc<AlignedVec<16>>,
    end: u64,
}

impl Memory {
    /// An empty store, with the machine's clock.
    pub fn new() -> Arc<Self> {
        Self::with_clock(Clock::System)
    }

    /// An empty store whose frames get their times from `clock`.
    pub fn with_clock(clock: Clock) -> Arc<Self> {
        let inner = Inner {
            frames: Vec::new(),
            streams: StreamMap::default(),
            snapshots: StreamMap::default(),
            end: FIRST,
            durable: FIRST,
            time: HybridTime::default(),
            held: false,
            append_failure: None,
            appends_left: None,
            read_failure: None,
            poisoned: None,
            refuses_snapshots: false,
            faults: Faults::default(),
            wakers: Vec::new(),
        };
        Arc::new(Self {
            clock,
            durable: AtomicU64::new(FIRST),
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            visits: AtomicUsize::new(0),
        })
    }

    /// From now on the durable mark stands, and who waits for it waits.
    pub fn hold(&self) {
        self.inner.lock().held = true;
    }

    /// Moves a held durable mark to `mark`, if that is further.
    pub fn advance(&self, mark: Lsn) {
        self.commit(self.inner.lock(), mark.get());
    }

    /// All that was appended is durable, and what will be is as soon as somebody waits.
    pub fn release(&self) {
        let mut inner = self.inner.lock();
        inner.held = false;
        self.commit(inner, u64::MAX);
    }

    /// The first position behind all frames.
    pub fn end(&self) -> Lsn {
        Lsn::new(self.inner.lock().end)
            .unwrap_or_else(|| unreachable!("frames are multiples of 16 bytes"))
    }

    /// Frames that were appended.
    pub fn frames(&self) -> usize {
        self.inner.lock().frames.len()
    }

    /// Where the frames end.
    #[cfg(test)]
    pub(crate) fn frame_ends(&self) -> Vec<Lsn> {
        self.inner.lock().frames.iter().filter_map(|frame| Lsn::new(frame.end)).collect()
    }

    /// Appends fail after so many more.
    #[cfg(test)]
    pub(crate) fn fail_appends_after(&self, appends: u64) {
        self.inner.lock().appends_left = Some(appends);
    }

    /// Appends fail with this, until called with `None`.
    pub fn fail_appends(&self, failure: Option<AppendError>) {
        let mut inner = self.inner.lock();
        inner.append_failure = failure;
        inner.appends_left = None;
    }

    /// Replays fail with this, until called with `None`.
    pub fn fail_reads(&self, failure: Option<ReadError>) {
        self.inner.lock().read_failure = failure;
    }

    /// Throws all snapshots away.
    pub fn forget_snapshots(&self) {
        self.inner.lock().snapshots.clear();
    }

    /// Frames that replays have shown since the last call.
    #[cfg(test)]
    pub(crate) fn count_visits(&self) -> usize {
        self.visits.swap(0, Ordering::Relaxed)
    }

    /// A sync has failed: what is not durable is in doubt, and nothing is appended any more.
    pub fn poison(&self) {
        let source = Arc::new(io::Error::other("a failure that a test asked for"));
        let mut inner = self.inner.lock();
        inner.poisoned = Some(DiskError { doing: "syncing", path: "memory".into(), source });
        let wakers = std::mem::take(&mut inner.wakers);
        drop(inner);
        self.changed.notify_all();
        for (_, waker) in wakers {
            waker.wake();
        }
    }

    /// What power loss leaves: frames below the durable mark, and snapshots of them. The store
    /// is not poisoned any more. Only for when no runtime uses it.
    pub fn cut_power(&self) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.poisoned = None;
        inner.held = false;
        while inner.frames.last().is_some_and(|frame| frame.end > inner.durable) {
            if let Some(stored) = inner.frames.pop()
                && let Some(stream) = inner.streams.get_mut(&stored.stream)
            {
                stream.frames.pop();
                stream.last = stream.frames.last().map_or(Seq::ZERO, |bytes| last_of(bytes));
            }
        }
        let durable = inner.durable;
        for snapshots in inner.snapshots.values_mut() {
            snapshots.retain(|snapshot| snapshot.covers.get() < durable);
        }
        // Positions are not issued again: the end stays, and is durable, as after a recovery.
        inner.durable = inner.end;
        self.durable.store(inner.durable, Ordering::Release);
    }

    /// Whether snapshots are refused.
    pub fn refuse_snapshots(&self, refuse: bool) {
        self.inner.lock().refuses_snapshots = refuse;
    }

    /// The last events in the snapshots of a stream, oldest first.
    pub fn snapshots(&self, stream: StreamId) -> Vec<Seq> {
        let inner = self.inner.lock();
        let seqs = |snapshots: &Vec<NewSnapshot>| snapshots.iter().map(|it| it.seq).collect();
        inner.snapshots.get(&stream).map(seqs).unwrap_or_default()
    }

    /// Appends whatever its number: what no runtime does, and a damaged log holds.
    #[cfg(test)]
    pub(crate) fn append_unchecked(
        &self,
        batch: &mut Batch,
        stream: StreamId,
        first: Seq,
    ) -> Result<Appended, AppendError> {
        self.append_if(batch, stream, first, false)
    }

    fn append_if(
        &self,
        batch: &mut Batch,
        stream: StreamId,
        first: Seq,
        checked: bool,
    ) -> Result<Appended, AppendError> {
        let events = u64::from(batch.events());
        let about = About { stream, seq: first, durable: self.durable.load(Ordering::Relaxed) };
        let mut sealed = batch.seal(None, &about);
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if let Some(cause) = &inner.poisoned {
            return Err(AppendError::Poisoned(cause.clone()));
        }
        if let Some(failure) = &inner.append_failure {
            return Err(failure.clone());
        }
        if let Some(failure) = inner.faults.strike(Call::Append, stream) {
            return Err(AppendError::Disk(failure));
        }
        if let Some(left) = &mut inner.appends_left {
            let Some(fewer) = left.checked_sub(1) else { return Err(AppendError::Closed) };
            *left = fewer;
        }
        let in_stream = inner.streams.entry(stream).or_default();
        let expected = Seq::new(first.get().saturating_sub(1)).unwrap_or(Seq::MAX);
        if checked && events > 0 && in_stream.last != expected {
            let actual = in_stream.last;
            return Err(AppendError::Conflict { stream, expected, actual });
        }
        inner.time = self.clock.hybrid_after(inner.time);
        let offset = inner.end;
        let frame_bytes = sealed.bytes();
        let (head, rest) =
            sealed.place(&Place { salt: SALT, offset, durable: inner.durable, time: inner.time });
        let mut bytes = AlignedVec::with_capacity(frame_bytes);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(rest);
        let bytes = Arc::new(bytes);
        in_stream.frames.push(Arc::clone(&bytes));
        in_stream.last = expected.checked_add(events).unwrap_or(Seq::MAX);
        inner.end += frame_bytes as u64;
        inner.frames.push(Stored { stream, bytes, end: inner.end });
        let (Some(lsn), Some(end)) = (Lsn::new(offset), Lsn::new(inner.end)) else {
            unreachable!("frames are multiples of 16 bytes")
        };
        Ok(Appended { lsn, end, time: inner.time })
    }

    fn commit(&self, mut inner: MutexGuard<'_, Inner>, mark: u64) {
        if inner.poisoned.is_some() {
            return;
        }
        inner.durable = inner.durable.max(mark.min(inner.end));
        let durable = inner.durable;
        // Release: pairs with the Acquire in `durable`.
        self.durable.store(durable, Ordering::Release);
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut inner.wakers)
            .into_iter()
            .partition(|(mark, _)| mark.get() <= durable);
        inner.wakers = rest;
        drop(inner);
        self.changed.notify_all();
        for (_, waker) in due {
            waker.wake();
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.lock();
        f.debug_struct("Memory")
            .field("frames", &inner.frames.len())
            .field("end", &inner.end)
            .field("durable", &inner.durable)
            .finish_non_exhaustive()
    }
}

impl EventStore for Memory {
    fn append(
        &self,
        batch: &mut Batch,
        stream: StreamId,
        first: Seq,
    ) -> Result<Appended, AppendError> {
        self.append_if(batch, stream, first, true)
    }

    fn replay(
        &self,
        stream: StreamId,
        after: Seq,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Replayed, ReadError> {
        let frames = {
            let mut inner = self.inner.lock();
            if let Some(failure) = &inner.read_failure {
                return Err(failure.clone());
            }
            if let Some(failure) = inner.faults.strike(Call::Read, stream) {
                return Err(failure.into());
            }
            inner.streams.get(&stream).map(|it| it.frames.clone()).unwrap_or_default()
        };
        let mut replayed = Replayed::default();
        for bytes in &frames {
            let frame = read(bytes)?;
            replayed.last = last_of(bytes);
            replayed.end = Lsn::new(frame.end());
            if replayed.last <= after {
                continue;
            }
            self.visits.fetch_add(1, Ordering::Relaxed);
            if visit(frame).is_break() {
                break;
            }
        }
        Ok(replayed)
    }

    fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    fn wait_durable(&self, mark: Lsn, limit: Option<Duration>) -> Result<(), SyncError> {
        let deadline = limit.map(Deadline::after);
        let mut inner = self.inner.lock();
        loop {
            if inner.durable >= mark.get() {
                return Ok(());
            }
            if let Some(cause) = &inner.poisoned {
                return Err(SyncError::InDoubt { lsn: mark, cause: cause.clone() });
            }
            if !inner.held {
                if inner.faults.strike(Call::Sync, StreamId::SYSTEM).is_some() {
                    drop(inner);
                    self.poison();
                    inner = self.inner.lock();
                    continue;
                }
                self.commit(inner, u64::MAX);
                return Ok(());
            }
            match deadline {
                None => self.changed.wait(&mut inner),
                Some(deadline) if deadline.is_over() => return Err(SyncError::Timeout),
                Some(deadline) => {
                    self.changed.wait_for(&mut inner, deadline.left());
                }
            }
        }
    }

    fn wake_when_durable(&self, mark: Lsn, waker: &Waker) {
        let mut inner = self.inner.lock();
        if inner.durable >= mark.get() || inner.poisoned.is_some() {
            drop(inner);
            waker.wake_by_ref();
            return;
        }
        inner.wakers.push((mark, waker.clone()));
        if inner.held {
            return;
        }
        if inner.faults.strike(Call::Sync, StreamId::SYSTEM).is_some() {
            drop(inner);
            self.poison();
        } else {
            self.commit(inner, u64::MAX);
        }
    }

    fn poisoned(&self) -> Option<DiskError> {
        self.inner.lock().poisoned.clone()
    }

    fn written(&self) -> u64 {
        self.inner.lock().end
    }

    fn scan(
        &self,
        from: u64,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let frames: Vec<_> = {
            let inner = self.inner.lock();
            if let Some(failure) = &inner.read_failure {
                return Err(failure.clone());
            }
            let first = inner.frames.partition_point(|frame| frame.end <= from);
            let rest = inner.frames.get(first..).unwrap_or_default();
            rest.iter().map(|frame| Arc::clone(&frame.bytes)).collect()
        };
        for bytes in &frames {
            if visit(read(bytes)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn frame(&self, lsn: Lsn, visit: &mut dyn FnMut(Frame<'_>)) -> Result<(), ReadError> {
        let found = {
            let inner = self.inner.lock();
            let number = inner.frames.partition_point(|frame| frame.end <= lsn.get());
            inner.frames.get(number).map(|frame| Arc::clone(&frame.bytes))
        };
        match found.as_deref().map(read).transpose()? {
            Some(frame) if frame.lsn() == lsn => {
                visit(frame);
                Ok(())
            }
            Some(_) | None => {
                Err(ReadError::PositionLost { lsn: lsn.get(), lost: lsn.get()..lsn.get() })
            }
        }
    }

    /// There are no checkpoints: who comes next reads it all.
    fn heed(&self, _: Arc<dyn Witness>) {}

    fn testimony(&self) -> Option<Testimony> {
        None
    }

    fn has_dropped(&self) -> bool {
        false
    }

    fn has_room(&self) -> bool {
        !matches!(self.inner.lock().append_failure, Some(AppendError::DiskFull(_)))
    }
}

impl SnapshotStore for Memory {
    fn save(&self, snapshot: NewSnapshot) -> bool {
        let mut inner = self.inner.lock();
        if inner.refuses_snapshots || inner.faults.strike(Call::Save, snapshot.stream).is_some() {
            return false;
        }
        inner.snapshots.entry(snapshot.stream).or_default().push(snapshot);
        true
    }

    fn load(
        &self,
        stream: StreamId,
        visit: &mut dyn FnMut(SnapshotRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut inner = self.inner.lock();
        if let Some(failure) = inner.faults.strike(Call::Load, stream) {
            return Err(failure.into());
        }
        for snapshot in inner.snapshots.get(&stream).into_iter().flatten().rev() {
            let NewSnapshot { kind, name, seq, covers, version, state, side, .. } = snapshot;
            let (seq, covers, version) = (*seq, *covers, *version);
            if visit(SnapshotRef { kind, name, seq, covers, version, state, side }).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn read(bytes: &AlignedVec<16>) -> Result<Frame<'_>, ReadError> {
    let offset = crate::log::frame::Header::read(bytes).map_or(0, |header| header.low_position());
    Frame::read(bytes, offset, SALT).map_err(|reject| {
        ReadError::Damage(Damage {
            file: "memory".into(),
            offset,
            lsns: offset..offset + bytes.len() as u64,
            reason: DamageReason::Frame(reject),
        })
    })
}

/// The last event in a frame.
fn last_of(bytes: &AlignedVec<16>) -> Seq {
    let Ok(frame) = read(bytes) else { return Seq::ZERO };
    let is_event = |record: &Result<crate::log::frame::Record<'_>, _>| {
        record.as_ref().is_ok_and(|it| it.kind.is_numbered())
    };
    let events = frame.records().filter(is_event).count() as u64;
    Seq::new((frame.header().seq.get() + events).saturating_sub(1)).unwrap_or(Seq::MAX)
}
