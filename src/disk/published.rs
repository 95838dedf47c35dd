//! How far a segment's bytes may be read.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A mark that only rises, and that carries the bytes below it from who wrote to who reads.
///
/// The package in `loom/` includes this file and tries every order in which threads can use it.
#[derive(Debug, Default)]
pub(super) struct Published(AtomicUsize);

impl Published {
    /// Everything below `end` is written, and will not change any more.
    pub(super) fn raise(&self, end: usize) {
        // Release: pairs with the Acquire in `get`, so that who sees the mark sees the bytes.
        self.0.fetch_max(end, Ordering::Release);
    }

    pub(super) fn get(&self) -> usize {
        // Acquire: pairs with the Release in `raise`.
        self.0.load(Ordering::Acquire)
    }
}
