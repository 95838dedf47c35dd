//! Following one stream: what is far behind is found by the indexes, what is near by reading on.
//!
//! A stream's frames among millions of others are not looked for one by one: as long as the
//! reader is more than [`NEAR`] behind the end, it asks where the stream's next frames are and
//! copies some of them. From there on it follows the log. Both go by the number of the stream's
//! last frame and by one mark, so that no frame is missed between them and none comes twice; and
//! a number that is left out has been dropped by retention.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::frame::Frame;
use super::read::{Limit, last_event};
use super::tail::{Advanced, Tail};
use super::{Log, Shared};
use crate::error::ReadError;
use crate::types::{Seq, StreamId};

/// What is nearer to the end is read through: it is in memory, and a look into the indexes has
/// its price too.
const NEAR: u64 = 256 << 10;
/// How much is copied at a time, about.
const COPIED: usize = 256 << 10;
/// Frames of others that are passed between two looks at the time.
const PATIENCE: u32 = 256;

/// A reader that follows one stream. See [`Log::follow`].
#[derive(Debug)]
pub(crate) struct Follow {
    log: Arc<Log>,
    stream: StreamId,
    limit: Limit,
    /// The last event that was passed.
    last: Seq,
    /// Where to go on once the copies are used up.
    tail: Tail,
    bytes: AlignedVec<16>,
    /// The copies that are left: position, number of the last event before, bytes.
    copies: std::vec::IntoIter<Copied>,
    /// The copy that was stepped to.
    current: Option<Copied>,
    /// The last step was to a copy.
    copied: bool,
    gone: u64,
    /// That these are missing has been said.
    missing: Seq,
}

/// A frame, copied.
#[derive(Clone, Debug)]
struct Copied {
    position: u64,
    first: Seq,
    last: Seq,
    at: Range<usize>,
}

impl Follow {
    /// Steps to the stream's next frame. Where none of those that are there is the stream's, it
    /// waits for at most `limit`.
    ///
    /// # Errors
    /// See [`ReadError`]; it stays where it is.
    pub(crate) fn advance(&mut self, limit: Duration) -> Result<Advanced, ReadError> {
        let clock = self.shared().options.clock.clone();
        let deadline = clock.monotonic().saturating_add(limit);
        // What is there now is looked at, however long that takes; only then it is waited.
        let there = self.shared().end(self.limit);
        let mut left = limit;
        let mut passed = 0_u32;
        loop {
            if let Some(copy) = self.copies.next() {
                self.came_to(copy.position, copy.first, copy.last);
                self.copied = true;
                self.current = Some(copy);
                return Ok(Advanced::Frame);
            }
            let end = self.shared().end(self.limit);
            if end.saturating_sub(self.tail.position()) > NEAR {
                self.hop(end)?;
                continue;
            }
            let advanced = self.tail.advance(left)?;
            self.copied = false;
            if advanced != Advanced::Frame {
                return Ok(advanced);
            }
            if let Some(frame) = self.tail.current()?
                && frame.stream() == self.stream
                // What a look into the indexes has shown already.
                && frame.seq() > self.last
            {
                let came = (frame.lsn().get(), frame.seq(), last_event(&frame));
                self.came_to(came.0, came.1, came.2);
                return Ok(Advanced::Frame);
            }
            passed += 1;
            if passed.is_multiple_of(PATIENCE) {
                left = deadline.saturating_sub(clock.monotonic());
                if left.is_zero() && self.tail.position() >= there {
                    return Ok(Advanced::Over);
                }
            }
        }
    }

    /// The frame that `advance` stepped to.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn current(&self) -> Result<Option<Frame<'_>>, ReadError> {
        if !self.copied {
            return self.tail.current();
        }
        let Some(copy) = &self.current else { return Ok(None) };
        let bytes = self.bytes.get(copy.at.clone());
        Ok(bytes.map(|bytes| Frame::checked_before(copy.position, bytes)))
    }

    /// All of the stream's frames below have been stepped to.
    pub(crate) fn position(&self) -> u64 {
        match &self.current {
            Some(copy) if self.copied => copy.position + copy.at.len() as u64,
            _ => self.tail.position(),
        }
    }

    /// Retention has dropped frames of the stream that it should have come by, all of them below
    /// this position; 0: it has not.
    pub(crate) fn gone(&self) -> u64 {
        self.gone
    }

    fn shared(&self) -> &Shared {
        &self.log.shared
    }

    fn came_to(&mut self, position: u64, first: Seq, last: Seq) {
        let known = self.last.max(self.missing);
        if known.checked_add(1).is_some_and(|next| first > next) {
            self.gone = self.gone.max(position);
        }
        self.last = self.last.max(last);
    }

    /// Copies the stream's next frames below `end`, and goes on at `end` if that were all.
    fn hop(&mut self, end: u64) -> Result<(), ReadError> {
        self.bytes.clear();
        self.copied = false;
        self.current = None;
        let (mut copies, mut all) = (Vec::new(), true);
        let (bytes, stream) = (&mut self.bytes, self.stream);
        let found = self.log.stream(stream, self.last, &mut |frame| {
            let position = frame.lsn().get();
            if position >= end {
                return ControlFlow::Break(());
            }
            let at = bytes.len()..bytes.len() + frame.bytes().len();
            bytes.extend_from_slice(frame.bytes());
            let (first, last) = (frame.seq(), last_event(&frame));
            copies.push(Copied { position, first, last, at });
            all = bytes.len() < COPIED;
            if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if all {
            self.tail = self.log.tail(end, self.limit)?;
            let reached = copies.last().map_or(self.last, |copy| copy.last.max(self.last));
            if found.dropped > reached.max(self.missing) {
                // Nothing of the stream follows, below `end`, that would show it.
                self.gone = self.gone.max(end);
                self.missing = found.dropped;
            }
        }
        self.copies = copies.into_iter();
        Ok(())
    }
}

impl Log {
    /// Follows the frames of `stream` from position `from` on, as far as `limit` says.
    ///
    /// # Errors
    /// [`ReadError::PositionLost`] where no frame is or will be at `from`; else see [`ReadError`].
    pub(crate) fn follow(
        self: &Arc<Self>,
        stream: StreamId,
        from: u64,
        limit: Limit,
    ) -> Result<Follow, ReadError> {
        let tail = self.tail(from, limit)?;
        let last = if from == 0 { Seq::ZERO } else { self.last_before(stream, from)? };
        Ok(Follow {
            log: Arc::clone(self),
            stream,
            limit,
            last,
            tail,
            bytes: AlignedVec::new(),
            copies: Vec::new().into_iter(),
            current: None,
            copied: false,
            gone: 0,
            missing: Seq::ZERO,
        })
    }

    /// The last event of `stream` in a frame below `position`. Of events that were dropped, those
    /// count that are known to have been there.
    fn last_before(&self, stream: StreamId, position: u64) -> Result<Seq, ReadError> {
        self.shared.ensure_indexed(stream)?;
        let pieces = self.shared.chain.read().pieces();
        let mut dropped = Seq::ZERO;
        for piece in pieces.iter().rev().filter(|piece| piece.start() < position) {
            let Some(spot) = self.shared.spot_in(piece, stream)? else { continue };
            if spot.gone() <= position {
                dropped = dropped.max(spot.dropped());
            }
            if let Some(number) = spot.below(position)?.checked_sub(1) {
                return Ok(last_event(&spot.frame(number, stream)?).max(dropped));
            }
        }
        Ok(dropped)
    }
}
