//! The log and the snapshot store as what the actors' runtime asks for.

use std::ops::ControlFlow;
use std::task::Waker;
use std::time::Duration;

use crate::actor::provider::{Appended, EventStore, Replayed, SnapshotStore};
use crate::error::{AppendError, DiskError, ReadError, SyncError};
use crate::log::Log;
use crate::log::frame::{Batch, Frame};
use crate::snapshot::{NewSnapshot, SnapshotRef, Snapshots};
use crate::types::{Lsn, Seq, StreamId};

impl EventStore for Log {
    fn append(
        &self,
        batch: &mut Batch,
        stream: StreamId,
        first: Seq,
    ) -> Result<Appended, AppendError> {
        Self::append(self, batch, stream, first)
    }

    fn replay(
        &self,
        stream: StreamId,
        after: Seq,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Replayed, ReadError> {
        self.stream(stream, after, visit)
    }

    fn durable(&self) -> u64 {
        Self::durable(self)
    }

    fn wait_durable(&self, mark: Lsn, limit: Option<Duration>) -> Result<(), SyncError> {
        Self::wait_durable(self, mark, limit)
    }

    fn wake_when_durable(&self, mark: Lsn, waker: &Waker) {
        Self::wake_when_durable(self, mark, waker);
    }

    fn poisoned(&self) -> Option<DiskError> {
        Self::poisoned(self)
    }
}

impl SnapshotStore for Snapshots {
    fn save(&self, snapshot: NewSnapshot) -> bool {
        Self::save(self, snapshot)
    }

    fn load(
        &self,
        stream: StreamId,
        visit: &mut dyn FnMut(SnapshotRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        Self::load(self, stream, visit)
    }
}
