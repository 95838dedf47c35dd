//! Where the runtime keeps events and snapshots: two small traits.
//!
//! The log and the snapshot store implement them (`store` ties them in), and so does
//! `memory`. The runtime knows nothing else of storage.
//!
//! A *mark* is an [`Lsn`] used half-open: a frame that ends at or below it is covered.

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::error::{AppendError, DiskError, ReadError, SyncError};
use crate::log::frame::{Batch, Frame, RecordKind};
use crate::log::name;
use crate::op::Ops;
pub use crate::snapshot::{NewSnapshot, SnapshotRef};
use crate::types::{Lsn, Seq, StreamId};

pub use crate::log::{Appended, StreamEnd as Replayed, Testimony, Witness};

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

    /// The same for a turn that publishes: `ops` become tokens of the very frame.
    ///
    /// # Errors
    /// [`AppendError::NoNode`] where nothing can be published; else as for
    /// [`append`](Self::append).
    fn append_publishing(
        &self,
        batch: &mut Batch,
        stream: StreamId,
        first: Seq,
        ops: &Ops,
    ) -> Result<Appended, AppendError> {
        let _ = (batch, stream, first, ops);
        Err(AppendError::NoNode)
    }

    /// Can turns publish?
    fn publishes(&self) -> bool {
        false
    }

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

    /// Everything below has been appended.
    fn written(&self) -> u64;

    /// Visits the frames of all streams from position `from` on (0: from the first) up to what is
    /// appended when this is called, in the order in which they were appended. `Break` ends the
    /// visits.
    ///
    /// # Errors
    /// See [`ReadError`]; frames before the error were visited. [`ReadError::PositionLost`] where
    /// no frame is or will be at `from`.
    fn scan(
        &self,
        from: u64,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError>;

    /// Visits the frame at `lsn`.
    ///
    /// # Errors
    /// [`ReadError::PositionLost`] where there is none; else see [`ReadError`].
    fn frame(&self, lsn: Lsn, visit: &mut dyn FnMut(Frame<'_>)) -> Result<(), ReadError>;

    /// From now on the store's checkpoints hold what `witness` says.
    fn heed(&self, witness: Arc<dyn Witness>);

    /// What the newest checkpoint holds that is of this past: `None` if there is none.
    fn testimony(&self) -> Option<Testimony>;

    /// Were frames dropped by retention?
    fn has_dropped(&self) -> bool;

    /// After an append has failed for want of room: is there some again? It may try the disk, and
    /// is asked a few times a second while turns are refused. `true` where nobody knows: then an
    /// append will tell.
    fn has_room(&self) -> bool {
        true
    }

    /// Where it is, for those who are told what happens; empty where it is nowhere.
    fn path(&self) -> &Path {
        Path::new("")
    }

    /// Kind and name of the actor whose stream it is, as its first frame says.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn name_of(&self, stream: StreamId) -> Result<Option<(String, String)>, ReadError> {
        let mut found = None;
        self.replay(stream, Seq::ZERO, &mut |frame| {
            let named = frame.records().flatten().find(|it| it.kind == RecordKind::Name);
            found = named
                .and_then(|record| name::decode(record.payload))
                .map(|(kind, name)| (kind.to_owned(), name.to_owned()));
            ControlFlow::Break(())
        })?;
        Ok(found)
    }
}

/// What must stay of the events although snapshots cover it: asked by who drops old ones.
pub trait Pins: Debug + Send + Sync + 'static {
    /// Nothing of `stream` goes from this event on: it holds what is owed.
    fn owed_from(&self, stream: StreamId) -> Option<Seq> {
        let _ = stream;
        None
    }

    /// Nothing at or above this position goes: a durable cursor has not passed it.
    fn cursor_floor(&self) -> Option<u64> {
        None
    }

    /// Nothing at or above this position goes, nor do frames of no stream: the node's tokens, which
    /// somebody lacks.
    fn node_floor(&self) -> Option<u64> {
        None
    }

    /// Frames of `stream` that hold no event after this one are of no use to anybody. `None` for
    /// streams of which that is not known.
    fn goes_upto(&self, stream: StreamId) -> Option<Seq> {
        let _ = stream;
        None
    }

    /// Is each frame of `stream` superseded by the next, but for the first, which has the name?
    fn is_superseding(&self, stream: StreamId) -> bool {
        let _ = stream;
        false
    }

    /// Old events of `stream`, which a snapshot covers, stay because of what is owed: it may state
    /// that anew. Called without locks, a few hundred times a pass at most, again and again.
    fn is_held_up(&self, stream: StreamId) {
        let _ = stream;
    }

    /// Waits until what is owed is known, at most that long. Before that everything is.
    fn wait_known(&self, limit: Duration) {
        let _ = limit;
    }
}

/// Nothing is owed, and nobody reads.
#[derive(Copy, Clone, Debug, Default)]
pub struct NoPins;

impl Pins for NoPins {}

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
