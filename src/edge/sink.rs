//! Where records go.

use std::time::Duration;

use super::fault::Fault;
use super::pos::{Mark, Pos};

/// Where records go.
///
/// A sink owns what it was given until that is settled: it keeps what it would need to send it
/// again. One thread calls it.
pub trait Sink {
    /// A record.
    type Item;

    /// Takes a record. Positions never decrease; several records may have come of one input, and
    /// `last` says that everything up to `pos` has been put now. What was put since the `last`
    /// before belongs together: it is settled as one, and a sink that remembers has all of it or
    /// forgets it. (Its positions may differ, where a batch has ended in the midst of an input.)
    ///
    /// It may keep it for later. It is not called where [`room`](Self::room) is 0, but for what
    /// one more input makes of itself.
    ///
    /// # Errors
    /// `Retry`: it has the record all the same, and [`settle`](Self::settle) goes on with it.
    /// `Poison`: it has forgotten the record, and does not remember that it came. `Fatal`.
    fn put(&mut self, pos: Pos, item: Self::Item, last: bool) -> Result<(), Fault>;

    /// Makes progress, and says how far it is: everything that was put with a position up to the
    /// answer is as safe as [`level`](Self::level) says. `None`: nothing yet. Never decreases,
    /// and is always a position that was put with `last`.
    ///
    /// Where something is not settled it waits at most `limit`; with zero it only looks.
    ///
    /// # Errors
    /// `Retry`: it has all that it had, and goes on when it is called again. `Poison`: it has
    /// forgotten that one record, and may say of it that it is settled; a sink that remembers
    /// says so before anything behind it is durable. `Fatal`.
    fn settle(&mut self, limit: Duration) -> Result<Option<Pos>, Fault>;

    /// How many records it would take now without holding more than it may. This is the
    /// backpressure: where there is no room, nothing is pulled from the source.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// What it remembers itself of this source, from lives before; asked once, before the first
    /// put. What is not behind that position is not put again.
    ///
    /// # Errors
    /// `Retry` where it cannot be reached now; `Fatal`.
    fn last(&mut self) -> Result<Last, Fault> {
        Ok(Last::Untold)
    }

    /// What settled means here.
    fn level(&self) -> Level;

    /// Lets go of what it holds back to send it with more. Called before a swap, a checkpoint and
    /// the end; settling goes on by [`settle`](Self::settle).
    ///
    /// # Errors
    /// As for [`settle`](Self::settle).
    fn flush(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// What it dropped on purpose since it was asked last, by reason: for a sink that is more
    /// stages.
    fn skipped(&mut self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Bytes that it has written since it was made, where it counts them.
    fn bytes(&self) -> u64 {
        0
    }

    /// A hash of the input at a position, as its source has it. Said before the input's `last` is
    /// put, where the source has one. For sinks that remember.
    fn hashed(&mut self, mark: Mark) {
        let _ = mark;
    }

    /// Every input up to `pos` is settled or came to nothing. For sinks that remember: said now
    /// and then, when `pos` is higher than what was put last. `true`: it will be in
    /// [`last`](Self::last) after whatever ends the process, and the source may be told.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    fn passed(&mut self, pos: Mark) -> Result<bool, Fault> {
        let _ = pos;
        Ok(false)
    }
}

/// What a sink remembers of a source.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// It does not remember.
    Untold,
    /// It would, and has nothing of this source.
    Never,
    /// Everything up to here is settled, or was never put.
    At(Mark),
    /// One part of it has everything up to here, and another does not remember: of what the
    /// pipeline itself remembers and this, the earlier counts.
    NotBehind(Mark),
}

/// What it means that something is settled, from the weakest to the strongest.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// It was handed on. Whether anybody has it is not known.
    Sent,
    /// The other side has said that it has it. What it loses then is its own affair: the sink's
    /// documentation says what.
    Acked,
    /// It survives the end of the process that keeps it, however that comes; not power loss.
    Process,
    /// It survives power loss.
    Power,
}

impl<K: Sink + ?Sized> Sink for Box<K> {
    type Item = K::Item;

    fn put(&mut self, pos: Pos, item: Self::Item, last: bool) -> Result<(), Fault> {
        (**self).put(pos, item, last)
    }

    fn settle(&mut self, limit: Duration) -> Result<Option<Pos>, Fault> {
        (**self).settle(limit)
    }

    fn room(&self) -> usize {
        (**self).room()
    }

    fn last(&mut self) -> Result<Last, Fault> {
        (**self).last()
    }

    fn level(&self) -> Level {
        (**self).level()
    }

    fn flush(&mut self) -> Result<(), Fault> {
        (**self).flush()
    }

    fn skipped(&mut self) -> Vec<(&'static str, u64)> {
        (**self).skipped()
    }

    fn bytes(&self) -> u64 {
        (**self).bytes()
    }

    fn hashed(&mut self, mark: Mark) {
        (**self).hashed(mark);
    }

    fn passed(&mut self, pos: Mark) -> Result<bool, Fault> {
        (**self).passed(pos)
    }
}
