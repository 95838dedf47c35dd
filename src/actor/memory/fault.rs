//! Calls to a memory that are to fail, for tests of what an actor does then.

use std::io;
use std::sync::Arc;

use super::Memory;
use crate::error::DiskError;
use crate::types::StreamId;

/// A call to a [`Memory`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A turn's frame is appended. It fails as it does where a disk refuses to make a segment:
    /// nothing was appended, and later appends work.
    Append,
    /// An actor's events are read.
    Read,
    /// A snapshot is handed over. It is not taken.
    Save,
    /// An actor's snapshots are read.
    Load,
    /// What was appended is made durable, because somebody waits for it. Then the store is
    /// [poisoned](Memory::poison). Belongs to no actor.
    Sync,
}

/// Failures that are still to come, in the order in which they were ordered.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(Call, Option<StreamId>)>);

impl Faults {
    /// The failure that strikes this call, if one does: it is over then.
    pub(super) fn strike(&mut self, call: Call, stream: StreamId) -> Option<DiskError> {
        let strikes = |(of, only): &(Call, Option<StreamId>)| {
            *of == call && only.is_none_or(|only| only == stream)
        };
        let at = self.0.iter().position(strikes)?;
        self.0.remove(at);
        let source = Arc::new(io::Error::other("a failure that a test asked for"));
        Some(DiskError { doing: "using", path: "memory".into(), source })
    }
}

/// Failures by the call, where [`fail_appends`](Memory::fail_appends) and its like are for ever.
impl Memory {
    /// The next such call fails, whichever actor's it is. Several add up.
    ///
    /// ```
    /// use annals::actor::memory::{Call, Memory};
    /// use annals::actor::provider::EventStore;
    /// use annals::types::{Seq, StreamId};
    /// use std::ops::ControlFlow;
    ///
    /// let memory = Memory::new();
    /// memory.fail_next(Call::Read);
    /// let read = || {
    ///     memory.replay(StreamId::of("kind", "a"), Seq::ZERO, &mut |_| ControlFlow::Continue(()))
    /// };
    /// assert!(read().is_err());
    /// assert!(read().is_ok());
    /// ```
    pub fn fail_next(&self, call: Call) {
        self.inner.lock().faults.0.push((call, None));
    }

    /// The next such call of this actor fails; those of others do not.
    pub fn fail_next_of(&self, call: Call, stream: StreamId) {
        self.inner.lock().faults.0.push((call, Some(stream)));
    }

    /// Failures that were ordered and have not come about.
    pub fn failures_left(&self) -> usize {
        self.inner.lock().faults.0.len()
    }
}
