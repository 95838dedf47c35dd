//! The snapshot store: archived states in a log of their own.
//!
//! A snapshot is one frame: a `Snapshot` record (position of the last frame it covers, u64), the
//! `Name` record and a `State` record, aligned so that the state is read in place. Snapshots save
//! replays and nothing rests on them: one that is lost, unreadable, or of a past that a crash
//! took back is passed over, and the one before is used, or the events are.
//!
//! One thread writes. [`Snapshots::save`] hands it a state and returns; what the thread cannot
//! take is refused there, so that nobody waits for the disk. A stored snapshot survives the
//! process; it survives power loss within the log's `flush_interval`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use rkyv::util::AlignedVec;

use crate::error::{AppendError, DiskError, OpenError, ReadError, Reject};
use crate::log::frame::{Batch, Frame, RecordKind};
use crate::log::{Log, name};
use crate::metrics::{Measure, Meter};
use crate::time::Clock;
use crate::trace;
use crate::types::{Lsn, Seq, StreamId};

/// Snapshots that may wait for the thread.
const QUEUE: usize = 256;
/// Bytes that may wait for the thread.
const QUEUE_BYTES: usize = 64 << 20;
/// Archives are aligned to this at most.
const STATE_ALIGN: usize = 16;
/// Snapshots stored without a sync before the thread makes them durable.
const UNSYNCED_MAX: u64 = 4096;

/// How many usable snapshots of an actor are kept at least, if its kind says nothing else.
pub const KEPT: usize = 2;

/// A state as it was after an event.
#[derive(Debug)]
pub struct NewSnapshot {
    /// Whose.
    pub stream: StreamId,
    /// The actor's kind.
    pub kind: &'static str,
    /// The actor's name.
    pub name: Arc<str>,
    /// The last event in it.
    pub seq: Seq,
    /// The position of the frame that holds that event.
    pub covers: Lsn,
    /// Version of the state's type.
    pub version: u16,
    /// The archive.
    pub state: AlignedVec<16>,
    /// What belongs to the state besides: what its actor owes. Empty if it owes nothing.
    pub side: Vec<u8>,
}

impl NewSnapshot {
    /// Bytes of what is stored for it.
    fn bytes(&self) -> usize {
        self.state.len() + self.side.len()
    }
}

/// A stored snapshot, readable in place.
#[derive(Copy, Clone, Debug)]
pub struct SnapshotRef<'a> {
    /// The actor's kind.
    pub kind: &'a str,
    /// The actor's name.
    pub name: &'a str,
    /// The last event in it.
    pub seq: Seq,
    /// The position of the frame that holds that event.
    pub covers: Lsn,
    /// Version of the state's type.
    pub version: u16,
    /// The archive, aligned to 16, checksum checked.
    pub state: &'a [u8],
    /// What belongs to the state besides; empty if there is nothing.
    pub side: &'a [u8],
}

impl<'a> SnapshotRef<'a> {
    /// `None` where the frame is not a snapshot.
    pub(crate) fn of(frame: &Frame<'a>) -> Option<Self> {
        let (mut covers, mut named, mut state) = (None, None, None);
        let mut side: &[u8] = &[];
        for record in frame.records() {
            let record = record.ok()?;
            match record.kind {
                RecordKind::Snapshot => {
                    let (position, _) = record.payload.split_first_chunk::<8>()?;
                    covers = Lsn::new(u64::from_le_bytes(*position));
                }
                RecordKind::Name => named = name::decode(record.payload),
                RecordKind::State => state = Some((record.version, record.payload)),
                RecordKind::Side => side = record.payload,
                RecordKind::Event
                | RecordKind::Turn
                | RecordKind::Rewind
                | RecordKind::Note
                | RecordKind::Meta
                | RecordKind::Tag
                | RecordKind::Token => return None,
            }
        }
        let ((kind, name), (version, state)) = (named?, state?);
        Some(Self { kind, name, seq: frame.header().seq, covers: covers?, version, state, side })
    }
}

/// Numbers since the store was opened.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotStats {
    /// Snapshots stored.
    pub saved: u64,
    /// Bytes of their states.
    pub bytes: u64,
    /// Snapshots that were not taken, because too many were under way or one was too large.
    pub refused: u64,
    /// Snapshots that were taken and could not be stored.
    pub failed: u64,
    /// Snapshots found on loading that could not be used: unreadable, or of a past that was
    /// taken back.
    pub skipped: u64,
}

#[derive(Debug)]
struct Shared {
    log: Log,
    events: Arc<Log>,
    saved: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
    /// Bytes in the queue.
    queued: AtomicUsize,
    bytes_max: usize,
    meter: Meter,
}

/// The snapshot store.
#[derive(Debug)]
pub struct Snapshots {
    shared: Arc<Shared>,
    queue: Mutex<Option<Sender<NewSnapshot>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Snapshots {
    /// Over an open `log`, for actors whose events are in `events`. With `thread` a thread
    /// writes; without, `save` does. `state_bytes_max` is the largest state that is taken.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        log: Log,
        events: Arc<Log>,
        (thread, flush_interval): (bool, Duration),
        state_bytes_max: usize,
    ) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared {
            log,
            events,
            saved: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            bytes_max: state_bytes_max,
            meter: Meter::default(),
        });
        let (mut queue, mut handle) = (None, None);
        if thread {
            let (sender, receiver) = bounded(QUEUE);
            let writer = Arc::clone(&shared);
            let spawned = std::thread::Builder::new()
                .name("annals-snapshot".to_owned())
                .spawn(move || writer.write_all(&receiver, flush_interval))
                .map_err(DiskError::at("starting a thread for", "snapshots".as_ref()))?;
            queue = Some(sender);
            handle = Some(spawned);
        }
        Ok(Self { shared, queue: Mutex::new(queue), thread: Mutex::new(handle) })
    }

    /// Hands a snapshot over; does not wait for the disk. `false` if it was not taken: the
    /// caller goes on without.
    pub fn save(&self, snapshot: NewSnapshot) -> bool {
        let shared = &*self.shared;
        let bytes = snapshot.bytes();
        let (kind, seq) = (snapshot.kind, snapshot.seq.get());
        let name = trace::ON.then(|| Arc::clone(&snapshot.name));
        // A clone, because without a thread it is written here, and that takes time.
        let queue = self.queue.lock().clone();
        // Relaxed, here and below: bounds and counters, no data hangs on them.
        let fits = bytes <= shared.bytes_max
            && shared.queued.load(Ordering::Relaxed) + bytes <= QUEUE_BYTES;
        let taken = fits
            && match queue {
                Some(queue) => {
                    shared.queued.fetch_add(bytes, Ordering::Relaxed);
                    let sent = queue.try_send(snapshot).is_ok();
                    if !sent {
                        shared.queued.fetch_sub(bytes, Ordering::Relaxed);
                    }
                    sent
                }
                None => self.thread.lock().is_none() && shared.write(&snapshot),
            };
        if !taken {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            let (name, too_large) = (name.as_deref().unwrap_or(""), bytes > shared.bytes_max);
            let bytes = bytes as u64;
            if too_large {
                trace::SnapshotTooLarge { kind, name, seq, bytes }.tell();
            } else {
                trace::SnapshotRefused { kind, name, seq, bytes }.tell();
            }
        }
        taken
    }

    /// Visits the usable snapshots of `stream`, newest first, until `Break`.
    ///
    /// # Errors
    /// See [`ReadError`]: the store's index could not be read. The caller replays instead.
    pub fn load(
        &self,
        stream: StreamId,
        visit: &mut dyn FnMut(SnapshotRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let shared = &*self.shared;
        let mut skipped = Vec::new();
        let visited = shared.log.stream_newest(stream, &mut |frame| {
            let snapshot = frame.as_ref().ok().and_then(SnapshotRef::of);
            if let Some(snapshot) = snapshot.filter(|it| shared.events.holds(it.covers)) {
                return visit(snapshot);
            }
            shared.skipped.fetch_add(1, Ordering::Relaxed);
            if trace::ON {
                skipped.push(match (frame, snapshot) {
                    (Err(error), _) => error.to_string(),
                    (Ok(_), None) => "the frame is no snapshot".to_owned(),
                    (Ok(_), Some(it)) => format!("the event at {} was taken back", it.covers),
                });
            }
            ControlFlow::Continue(())
        });
        for error in skipped {
            let dir = shared.log.dir();
            trace::SnapshotPassedOver { dir, stream: &stream, error: &error }.tell();
        }
        visited
    }

    /// What an actor needs at least, of those of its snapshots that `usable` says can be used: the
    /// oldest of as many of the newest as `kept` says for its kind. All of these are durable, as is
    /// what they cover, and each was read here, and its checksum checked.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn floor(
        &self,
        stream: StreamId,
        usable: &dyn Fn(&SnapshotRef<'_>) -> bool,
        kept: &dyn Fn(&str) -> usize,
    ) -> Result<Option<Seq>, ReadError> {
        let shared = &*self.shared;
        let (durable, events) = (shared.log.durable(), shared.events.durable());
        let (mut floor, mut left): (Option<Seq>, usize) = (None, usize::MAX);
        shared.log.stream_newest(stream, &mut |frame| {
            let Ok(frame) = frame else { return ControlFlow::Continue(()) };
            let snapshot = SnapshotRef::of(&frame).filter(|snapshot| {
                frame.end() <= durable
                    && snapshot.covers.get() < events
                    && floor.is_none_or(|floor| snapshot.seq < floor)
                    && shared.events.holds(snapshot.covers)
                    && usable(snapshot)
            });
            if let Some(snapshot) = snapshot {
                floor = Some(snapshot.seq);
                left = left.min(kept(snapshot.kind)).saturating_sub(1);
            }
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(floor)
    }

    /// What is measured.
    #[cfg(feature = "metrics")]
    pub(crate) fn meter(&self) -> &Meter {
        &self.shared.meter
    }

    /// The log that they are in.
    pub(crate) fn log(&self) -> &Log {
        &self.shared.log
    }

    /// Makes what was stored durable.
    ///
    /// # Errors
    /// See [`crate::error::SyncError`].
    pub fn sync(&self) -> Result<(), crate::error::SyncError> {
        self.shared.log.sync()
    }

    /// Numbers since it was opened.
    pub fn stats(&self) -> SnapshotStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SnapshotStats {
            saved: of(&self.shared.saved),
            bytes: of(&self.shared.bytes),
            refused: of(&self.shared.refused),
            failed: of(&self.shared.failed),
            skipped: of(&self.shared.skipped),
        }
    }

    /// Writes what was taken, makes it durable and ends the thread.
    ///
    /// # Errors
    /// See [`crate::error::SyncError`].
    pub fn close(&self) -> Result<(), crate::error::SyncError> {
        self.queue.lock().take();
        let thread = self.thread.lock().take();
        if let Some(Err(panic)) = thread.map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        self.shared.log.close()
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`.
        self.close().unwrap_or_default();
    }
}

impl Shared {
    fn write_all(&self, queue: &Receiver<NewSnapshot>, flush_interval: Duration) {
        let mut unsynced = 0;
        let mut synced = Clock::System.monotonic_coarse();
        loop {
            match queue.recv_timeout(flush_interval) {
                Ok(snapshot) => {
                    self.queued.fetch_sub(snapshot.bytes(), Ordering::Relaxed);
                    self.write(&snapshot);
                    unsynced += 1;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Clock::System.monotonic_coarse();
            let due = unsynced >= UNSYNCED_MAX || now.saturating_sub(synced) >= flush_interval;
            if unsynced > 0 && due {
                // A failure poisons this log alone: snapshots fail from here on, and are counted.
                self.log.sync().unwrap_or_default();
                self.log.keep();
                unsynced = 0;
                synced = now;
            }
        }
    }

    /// Appends one snapshot and stores it, so that it survives the process.
    fn write(&self, snapshot: &NewSnapshot) -> bool {
        let began = self.meter.began(&Clock::System);
        let NewSnapshot { kind, name, seq, covers, .. } = snapshot;
        let (seq, bytes) = (seq.get(), snapshot.bytes() as u64);
        match self.try_write(snapshot) {
            Ok(()) => {
                self.saved.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.meter.took((Measure::Snapshot, ""), &Clock::System, began);
                self.meter.add(Measure::SnapshotBytes, "", bytes);
                trace::SnapshotTaken { kind, name, seq, lsn: covers.get(), bytes }.tell();
                true
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                trace::SnapshotFailed { kind, name, seq, error: &error }.tell();
                false
            }
        }
    }

    fn try_write(&self, snapshot: &NewSnapshot) -> Result<(), Unwritten> {
        let mut batch = Batch::new();
        fill(&mut batch, snapshot)?;
        self.log.append(&mut batch, snapshot.stream, snapshot.seq)?;
        self.log.store()?;
        Ok(())
    }
}

/// Why a snapshot could not be stored.
#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error("it makes no frame: {0}")]
    Frame(#[from] Reject),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Store(#[from] ReadError),
}

fn fill(batch: &mut Batch, snapshot: &NewSnapshot) -> Result<(), Reject> {
    let name = name::encode(snapshot.kind, &snapshot.name).ok_or(Reject::Records)?;
    batch.push(RecordKind::Snapshot, 1, &snapshot.covers.get().to_le_bytes())?;
    batch.push(RecordKind::Name, 1, &name)?;
    batch.push_with(RecordKind::State, snapshot.version, STATE_ALIGN, |buffer| {
        buffer.extend_from_slice(&snapshot.state);
        Ok(())
    })?;
    if !snapshot.side.is_empty() {
        batch.push(RecordKind::Side, 1, &snapshot.side)?;
    }
    Ok(())
}
