//! What the commit queue and the tails are built on: locks, atomics, a futex, a moment's patience.
//!
//! Here they are the real ones. The package in `loom/` includes the queue's source with a module
//! of this name made of loom's, and tries every order in which its threads can run.

use std::sync::atomic::Ordering;
pub(super) use std::sync::atomic::{AtomicU32, fence};
pub(super) use std::thread::yield_now;
use std::time::Duration;

pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::thread::futex;
use rustix::time::Timespec;

use crate::time::Clock;

/// A word that threads sleep on until it changes.
#[derive(Debug, Default)]
pub(super) struct Futex(AtomicU32);

impl Futex {
    #[inline]
    pub(super) fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    #[inline]
    pub(super) fn store(&self, value: u32, order: Ordering) {
        self.0.store(value, order);
    }

    #[inline]
    pub(super) fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        self.0.fetch_add(value, order)
    }

    /// Sleeps while the word is `seen`, for `limit` at most; may wake early.
    pub(super) fn wait(&self, seen: u32, limit: Option<Duration>) {
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        // Interrupted, timed out or changed in between: who waits looks again in any case.
        futex::wait(&self.0, futex::Flags::PRIVATE, seen, limit.as_ref()).unwrap_or_default();
    }

    /// Wakes all who sleep here.
    pub(super) fn wake_all(&self) {
        // Nobody may sleep here, and then nothing is woken: that is no error.
        futex::wake(&self.0, futex::Flags::PRIVATE, u32::MAX >> 1).unwrap_or_default();
    }
}

/// Waits for something for so long, and then does without.
#[derive(Debug)]
pub(super) struct Patience(Duration);

impl Patience {
    pub(super) fn for_at_most(limit: Duration) -> Self {
        Self(Clock::System.monotonic() + limit)
    }

    pub(super) fn is_over(&self) -> bool {
        Clock::System.monotonic() >= self.0
    }
}
