//! The library's `primitives`, made of loom's.
//!
//! Time does not pass: a wait with a limit never ends by it, so a wake-up that is lost is a
//! deadlock, which loom reports. Patience is over after a look.

use std::sync::atomic::Ordering;
use std::time::Duration;

pub(crate) use loom::sync::atomic::{AtomicU32, AtomicUsize, fence};
pub(crate) use loom::thread::yield_now;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Absent while it is lent to a wait.
    guard: Option<loom::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, guard: Some(self.0.lock().unwrap()) }
    }
}

impl<T> MutexGuard<'_, T> {
    pub(crate) fn unlocked(guard: &mut Self, act: impl FnOnce()) {
        drop(guard.guard.take());
        act();
        guard.guard = Some(guard.mutex.0.lock().unwrap());
    }
}

impl<T> std::ops::Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.guard.as_ref().unwrap()
    }
}

impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(loom::sync::Condvar);

pub(crate) struct WaitTimeoutResult;

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        false
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    pub(crate) fn wait_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        _limit: Duration,
    ) -> WaitTimeoutResult {
        let taken = guard.guard.take().unwrap();
        guard.guard = Some(self.0.wait(taken).unwrap());
        WaitTimeoutResult
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let taken = guard.guard.take().unwrap();
        guard.guard = Some(self.0.wait(taken).unwrap());
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A futex as the kernel keeps it: the word is compared under the lock of the queue of those
/// who sleep on it, and a wake takes the same lock.
#[derive(Debug)]
pub(crate) struct Futex {
    word: AtomicU32,
    queue: loom::sync::Mutex<()>,
    sleepers: loom::sync::Condvar,
}

impl Default for Futex {
    fn default() -> Self {
        Self {
            word: AtomicU32::new(0),
            queue: loom::sync::Mutex::new(()),
            sleepers: loom::sync::Condvar::new(),
        }
    }
}

impl Futex {
    pub(crate) fn load(&self, order: Ordering) -> u32 {
        self.word.load(order)
    }

    pub(crate) fn store(&self, value: u32, order: Ordering) {
        self.word.store(value, order);
    }

    pub(crate) fn wait(&self, seen: u32, _limit: Option<Duration>) {
        let queue = self.queue.lock().unwrap();
        if self.word.load(Ordering::Relaxed) == seen {
            drop(self.sleepers.wait(queue).unwrap());
        }
    }

    pub(crate) fn wake_all(&self) {
        let _queue = self.queue.lock().unwrap();
        self.sleepers.notify_all();
    }
}

pub(crate) struct Patience(std::cell::Cell<u32>);

impl Patience {
    pub(crate) fn for_at_most(_limit: Duration) -> Self {
        Self(std::cell::Cell::new(1))
    }

    pub(crate) fn is_over(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left == 0
    }
}
