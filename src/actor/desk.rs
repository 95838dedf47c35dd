//! The desk: what turns write on, until it is appended.

use std::cell::Cell as ThreadCell;
use std::ops::Range;

use super::cell::drop_quietly;
use super::mailbox::{Mark, Outgoing};
use super::note::Note;
use super::provider::{Appended, EventStore};
use crate::error::{AppendError, Reject};
use crate::log::frame::{Batch, RecordKind, Savepoint};
use crate::op::Ops;
use crate::types::{Seq, StreamId};

/// A batch that grew past this is not kept for the next turn.
const KEPT_BATCH_BYTES_MAX: usize = 256 * 1024;

/// Records of one turn, or of several that are to be one frame; and what leaves with them.
#[derive(Default)]
pub(crate) struct Desk {
    pub batch: Batch,
    pub outgoing: Vec<Box<dyn Outgoing>>,
    /// The notes among the records, to be read again once they are appended.
    notes: Vec<(u16, Range<usize>)>,
    bytes: Vec<u8>,
    /// What the turn publishes.
    pub ops: Ops,
    /// The name that a stream's first frame carries is in it.
    pub named: bool,
    /// It holds no turn, but what settles something without one.
    pub settles: bool,
}

/// What was on a desk before a turn.
#[derive(Copy, Clone)]
pub(crate) struct Before {
    batch: Savepoint,
    notes: usize,
    bytes: usize,
    ops: usize,
    named: bool,
}

impl Before {
    /// On an empty desk.
    pub(crate) fn nothing() -> Self {
        Self { batch: Savepoint::EMPTY, notes: 0, bytes: 0, ops: 0, named: false }
    }

    /// No turn is on it.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }
}

thread_local! {
    static DESK: ThreadCell<Option<Box<Desk>>> = const { ThreadCell::new(None) };
}

impl Desk {
    /// The thread's, or a new one.
    pub(crate) fn take() -> Box<Self> {
        DESK.try_with(ThreadCell::take).ok().flatten().unwrap_or_default()
    }

    /// Back to the thread, empty.
    pub(crate) fn put_back(mut self: Box<Self>) {
        self.drop_outgoing();
        if self.batch.frame_bytes() <= KEPT_BATCH_BYTES_MAX {
            self.batch.clear();
            self.notes.clear();
            self.bytes.clear();
            self.ops.truncate(0);
            self.named = false;
            self.settles = false;
            // A thread that is ending has no place for it any more.
            let _kept: Result<(), _> = DESK.try_with(|place| place.set(Some(self)));
        }
    }

    pub(crate) fn before(&self) -> Before {
        let batch = self.batch.savepoint();
        Before {
            batch,
            notes: self.notes.len(),
            bytes: self.bytes.len(),
            ops: self.ops.len(),
            named: self.named,
        }
    }

    /// Drops what a turn has written.
    pub(crate) fn restore(&mut self, before: Before) {
        self.batch.restore(before.batch);
        self.notes.truncate(before.notes);
        self.bytes.truncate(before.bytes);
        self.ops.truncate(before.ops);
        self.named = before.named;
        self.drop_outgoing();
    }

    /// [`Self::restore`], but what is to leave is kept.
    pub(crate) fn keep(&mut self, before: Before) {
        self.batch.restore(before.batch);
    }

    /// Was anything written since, or published?
    pub(crate) fn grew(&self, before: Before) -> bool {
        self.batch.records() > before.batch.records() || self.ops.len() > before.ops
    }

    /// Appends what is on it.
    ///
    /// # Errors
    /// See [`AppendError`]; it may have grown, and is to be [kept](Self::keep).
    pub(crate) fn append(
        &mut self,
        events: &dyn EventStore,
        stream: StreamId,
        first: Seq,
    ) -> Result<Appended, AppendError> {
        if self.ops.is_empty() {
            return events.append(&mut self.batch, stream, first);
        }
        events.append_publishing(&mut self.batch, stream, first, &self.ops)
    }

    /// Was a note?
    pub(crate) fn has_notes_since(&self, before: Before) -> bool {
        self.notes.len() > before.notes
    }

    /// Writes a note.
    ///
    /// # Errors
    /// [`Reject::Records`] where a string in it is too long, or the batch full; the batch is as it
    /// was.
    pub(crate) fn note(&mut self, note: &Note<'_>) -> Result<(), Reject> {
        let start = self.bytes.len();
        let (version, encoded) = (note.version(), note.encode(&mut self.bytes));
        let pushed = match self.bytes.get(start..) {
            Some(bytes) if encoded => self.batch.push(RecordKind::Note, version, bytes),
            Some(_) | None => Err(Reject::Records),
        };
        match pushed {
            Ok(()) => self.notes.push((version, start..self.bytes.len())),
            Err(_) => self.bytes.truncate(start),
        }
        pushed
    }

    /// Are there any notes?
    pub(crate) fn has_notes(&self) -> bool {
        !self.notes.is_empty()
    }

    /// The notes written since `before`; all without.
    pub(crate) fn notes(&self, before: Option<Before>) -> impl Iterator<Item = Note<'_>> {
        let first = before.map_or(0, |before| before.notes);
        let notes = self.notes.get(first..).unwrap_or_default();
        notes.iter().filter_map(|(version, range)| {
            Note::decode(*version, self.bytes.get(range.clone()).unwrap_or_default())
        })
    }

    /// Sends what the turn wanted to send.
    pub(crate) fn deliver(&mut self, mark: Mark, reply: Mark) {
        for message in self.outgoing.drain(..) {
            message.deliver(mark, reply);
        }
    }

    /// Last first: what is undone was done after what stands before it.
    fn drop_outgoing(&mut self) {
        for message in self.outgoing.drain(..).rev() {
            drop_quietly(message);
        }
    }
}
