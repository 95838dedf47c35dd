//! The log and the snapshot store as what the actors' runtime asks for.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::actor::provider::{Appended, EventStore, Replayed, SnapshotStore, Testimony, Witness};
use crate::error::{AppendError, DiskError, ReadError, SyncError};
use crate::log::frame::{Batch, Frame};
use crate::log::{Limit, Log};
use crate::snapshot::{NewSnapshot, SnapshotRef, Snapshots};
use crate::types::{Lsn, Seq, StreamId};

/// A store's parts as their traits, for the suite that every provider passes.
#[cfg(feature = "testkit")]
impl super::Store {
    pub(crate) fn providers(&self) -> (Arc<dyn EventStore>, Arc<dyn SnapshotStore>) {
        let (events, snapshots) = (Arc::clone(&self.events), Arc::clone(&self.snapshots));
        (events, snapshots)
    }
}

/// The store's folder, by that of its events.
pub(super) fn home(events: &Log) -> &Path {
    events.dir().parent().unwrap_or(events.dir())
}

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

    fn written(&self) -> u64 {
        Self::written(self)
    }

    fn scan(
        &self,
        from: u64,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let end = Self::written(self);
        let mut frames = self.frames(from, Limit::Written)?;
        while let Some(frame) = frames.next()? {
            let past = frame.lsn().get() >= end;
            if past || (frame.header().stream != StreamId::SYSTEM && visit(frame).is_break()) {
                break;
            }
        }
        Ok(())
    }

    fn frame(&self, lsn: Lsn, visit: &mut dyn FnMut(Frame<'_>)) -> Result<(), ReadError> {
        let mut frames = self.frames(lsn.get(), Limit::Written)?;
        match frames.next()? {
            Some(frame) if frame.lsn() == lsn => {
                visit(frame);
                Ok(())
            }
            Some(_) | None => {
                Err(ReadError::PositionLost { lsn: lsn.get(), lost: lsn.get()..lsn.get() })
            }
        }
    }

    fn heed(&self, witness: Arc<dyn Witness>) {
        Self::heed(self, witness);
    }

    fn testimony(&self) -> Option<Testimony> {
        Self::testimony(self)
    }

    fn has_dropped(&self) -> bool {
        Self::has_dropped(self)
    }

    fn has_room(&self) -> bool {
        Self::has_room(self)
    }

    fn path(&self) -> &Path {
        home(self)
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
