//! Where the runtime keeps events and snapshots: two small traits.
//!
//! The log and the snapshot store implement them (`store` ties them in), and so does
//! `memory`. The runtime knows nothing else of storage.
//!
//! A *mark* is an [`Lsn`] used half-open: a frame that ends at or below it is covered.

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::task::Waker;
use std::time::Duration;

use crate::error::{AppendError, DiskError, ReadError, SyncError};
use crate::log::frame::{Batch, Frame};
pub use crate::snapshot::{NewSnapshot, SnapshotRef};
use crate::types::{Lsn, Seq, StreamId};

pub use crate::log::{Appended, StreamEnd as Replayed};

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
