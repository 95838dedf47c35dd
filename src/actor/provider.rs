//! Where the runtime keeps events and snapshots: two small traits.
//!
//! The log and the snapshot store implement them (`store` ties them in), and so does
//! `memory`. The runtime knows nothing else of storage.
//!
//! A *mark* is an [`Lsn`] used half-open: a frame that ends at or below it is covered.

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use rkyv::util::AlignedVec;

use crate::error::{AppendError, DiskError, ReadError, SyncError};
use crate::log::frame::{Batch, Frame};
use crate::types::{HybridTime, Lsn, Seq, StreamId};

/// Where a frame went.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its position.
    pub lsn: Lsn,
    /// The mark that covers it: the first position behind it.
    pub end: Lsn,
    /// When.
    pub time: HybridTime,
}

/// Where a stream stands after a replay.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Its last event; [`Seq::ZERO`] if it has none.
    pub last: Seq,
    /// The mark that covers its last frame; `None` if it has none.
    pub end: Option<Lsn>,
}

/// An append-only store of streams in one total order, of which durability is a prefix.
pub trait EventStore: Debug + Send + Sync + 'static {
    /// Appends `batch` as one frame whose first event is number `first`. When it returns the
    /// frame survives the process. The caller is the stream's one owner and answers for `first`.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended.
    fn append(
        &self,
        batch: &mut Batch,
        stream: StreamId,
        first: Seq,
    ) -> Result<Appended, AppendError>;

    /// Visits the frames of `stream` that hold events after `after`, in order, each checked.
    /// A frame may begin with events at or before `after`. `Break` ends the visits early.
    ///
    /// # Errors
    /// See [`ReadError`]; frames before the error were visited.
    fn replay(
        &self,
        stream: StreamId,
        after: Seq,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Replayed, ReadError>;

    /// Everything below is on disk: a prefix.
    fn durable(&self) -> u64;

    /// Blocks until `mark` is durable, committing on this thread if nobody else is.
    ///
    /// # Errors
    /// [`SyncError::InDoubt`] where the store is poisoned, [`SyncError::Timeout`] after `limit`.
    fn wait_durable(&self, mark: Lsn, limit: Option<Duration>) -> Result<(), SyncError>;

    /// Sees to it that `mark` becomes durable soon, and wakes `waker` then or when the store is
    /// poisoned. Wakes at once if either is so already.
    fn wake_when_durable(&self, mark: Lsn, waker: &Waker);

    /// The failure since which nothing is accepted.
    fn poisoned(&self) -> Option<DiskError>;
}

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
}

/// Keeps states. Losing one costs a replay, never an answer.
pub trait SnapshotStore: Debug + Send + Sync + 'static {
    /// Hands a snapshot over; does not wait for the disk. `false` if it was not taken (too many
    /// are under way, it is too large, or the store cannot write): the caller goes on without.
    fn save(&self, snapshot: NewSnapshot) -> bool;

    /// Visits the usable snapshots of `stream`, newest first, until `Break`. Those that cover
    /// what a crash took back, or do not validate, are skipped.
    ///
    /// # Errors
    /// See [`ReadError`]. The caller may replay instead.
    fn load(
        &self,
        stream: StreamId,
        visit: &mut dyn FnMut(SnapshotRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError>;
}
