//! Following the log: catch up, then live, without a gap and without a frame twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::frame::Frame;
use super::primitives::{AtomicU32, Futex, fence};
use super::read::{Frames, Limit};
use super::{Log, Shared};
use crate::error::ReadError;

/// Wakes those who follow; costs an append one load where there are none.
#[derive(Debug, Default)]
pub(super) struct Tails {
    listening: AtomicU32,
    word: Futex,
}

impl Tails {
    /// Something was written, and the append lock was released since.
    ///
    /// A listener counts itself, then takes and releases the append lock, then looks at the
    /// mark. So either its turn at the lock came after the append, and it finds the frame, or
    /// before, and then its count is seen here.
    pub(super) fn ring_written(&self) {
        if self.listening.load(Ordering::Relaxed) > 0 {
            self.wake();
        }
    }

    /// Another mark moved, or the log was poisoned or closed.
    pub(super) fn ring(&self) {
        // Between the mark's store and this load; pairs with the fence in `listen`.
        fence(Ordering::SeqCst);
        if self.listening.load(Ordering::Relaxed) > 0 {
            self.wake();
        }
    }

    fn wake(&self) {
        self.word.fetch_add(1, Ordering::Release);
        self.word.wake_all();
    }
}

/// What a step along the log came to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Advanced {
    /// It stands at a frame.
    Frame,
    /// The time given is over.
    Over,
    /// There will be no other: the log is closed, or poisoned.
    Ended,
}

/// A reader that follows the log. See [`Log::tail`].
#[derive(Debug)]
pub struct Tail {
    frames: Frames,
    shared: Arc<Shared>,
}

impl Tail {
    /// The next frame, waiting for it for at most `limit`; `None` when that is over, or the log
    /// is closed.
    ///
    /// # Errors
    /// See [`ReadError`]; the tail stays where it is.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Frame<'_>>, ReadError> {
        match self.advance(limit)? {
            Advanced::Frame => self.current(),
            Advanced::Over | Advanced::Ended => Ok(None),
        }
    }

    /// Steps to the next frame, waiting for it for at most `limit`.
    ///
    /// # Errors
    /// See [`ReadError`]; the tail stays where it is.
    pub(crate) fn advance(&mut self, limit: Duration) -> Result<Advanced, ReadError> {
        if limit.is_zero() && self.frames.advance()? {
            return Ok(Advanced::Frame);
        }
        let clock = self.shared.options.clock.clone();
        let deadline = clock.monotonic().saturating_add(limit);
        loop {
            let seen = self.listen();
            let ready = self.frames.advance();
            if !matches!(ready, Ok(false)) {
                self.leave();
                ready?;
                return Ok(Advanced::Frame);
            }
            let left = deadline.saturating_sub(clock.monotonic());
            let ended = self.shared.poison.get().is_some() || self.frames.closed();
            if left.is_zero() || ended {
                self.leave();
                return Ok(if ended { Advanced::Ended } else { Advanced::Over });
            }
            // Woken, timed out, interrupted: look again.
            self.shared.tails.word.wait(seen, Some(left));
            self.leave();
        }
    }

    /// The frame that `advance` stepped to.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn current(&self) -> Result<Option<Frame<'_>>, ReadError> {
        self.frames.current()
    }

    /// Where the next frame is looked for.
    pub(crate) fn position(&self) -> u64 {
        self.frames.position()
    }

    /// See [`Frames::gone`].
    pub(crate) fn gone(&self) -> u64 {
        self.frames.gone()
    }

    fn listen(&self) -> u32 {
        self.shared.tails.listening.fetch_add(1, Ordering::Relaxed);
        // See `ring_written` and `ring`.
        drop(self.shared.append.lock());
        fence(Ordering::SeqCst);
        self.shared.tails.word.load(Ordering::Acquire)
    }

    fn leave(&self) {
        self.shared.tails.listening.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Log {
    /// Follows the log from the frame at `from` on, as far as `limit` says.
    ///
    /// # Errors
    /// [`ReadError::PositionLost`] where no frame is or will be at `from`.
    pub fn tail(&self, from: u64, limit: Limit) -> Result<Tail, ReadError> {
        Ok(Tail { frames: self.frames(from, limit)?, shared: Arc::clone(&self.shared) })
    }
}
