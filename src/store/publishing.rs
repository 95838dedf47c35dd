//! The log as what the actors' runtime asks for, and what their turns publish.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use crate::actor::provider::{Appended, EventStore, Replayed, Testimony, Witness};
use crate::error::{AppendError, DiskError, ReadError, SyncError};
use crate::log::Log;
use crate::log::frame::{Batch, Frame};
use crate::op::Ops;
use crate::sync::node::Node;
use crate::types::{Lsn, Seq, StreamId};

/// The event log, and the node's tokens in it if the store is a node.
#[derive(Debug)]
pub(super) struct Publishing {
    log: Arc<Log>,
    node: OnceLock<Arc<Node>>,
}

impl Publishing {
    pub(super) fn new(log: &Arc<Log>) -> Arc<Self> {
        Arc::new(Self { log: Arc::clone(log), node: OnceLock::new() })
    }

    /// From now on turns can publish.
    pub(super) fn begin(&self, node: Arc<Node>) {
        self.node.get_or_init(|| node);
    }
}

impl EventStore for Publishing {
    fn append(
        &self,
        batch: &mut Batch,
        stream: StreamId,
        first: Seq,
    ) -> Result<Appended, AppendError> {
        self.log.append(batch, stream, first)
    }

    fn append_publishing(
        &self,
        batch: &mut Batch,
        stream: StreamId,
        first: Seq,
        ops: &Ops,
    ) -> Result<Appended, AppendError> {
        let node = self.node.get().ok_or(AppendError::NoNode)?;
        node.publish_in(batch, (stream, first), ops)
    }

    fn publishes(&self) -> bool {
        self.node.get().is_some()
    }

    fn replay(
        &self,
        stream: StreamId,
        after: Seq,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Replayed, ReadError> {
        EventStore::replay(&*self.log, stream, after, visit)
    }

    fn durable(&self) -> u64 {
        self.log.durable()
    }

    fn wait_durable(&self, mark: Lsn, limit: Option<Duration>) -> Result<(), SyncError> {
        self.log.wait_durable(mark, limit)
    }

    fn wake_when_durable(&self, mark: Lsn, waker: &Waker) {
        self.log.wake_when_durable(mark, waker);
    }

    fn poisoned(&self) -> Option<DiskError> {
        self.log.poisoned()
    }

    fn written(&self) -> u64 {
        self.log.written()
    }

    fn scan(
        &self,
        from: u64,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        EventStore::scan(&*self.log, from, visit)
    }

    fn frame(&self, lsn: Lsn, visit: &mut dyn FnMut(Frame<'_>)) -> Result<(), ReadError> {
        EventStore::frame(&*self.log, lsn, visit)
    }

    fn heed(&self, witness: Arc<dyn Witness>) {
        self.log.heed(witness);
    }

    fn testimony(&self) -> Option<Testimony> {
        self.log.testimony()
    }

    fn has_dropped(&self) -> bool {
        self.log.has_dropped()
    }

    fn has_room(&self) -> bool {
        self.log.has_room()
    }

    fn path(&self) -> &Path {
        self.log.path()
    }
}
