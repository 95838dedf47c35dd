//! Which streams have frames that no index knows yet.
//!
//! A small filter, set by every append and emptied when the indexes catch up. It spares the
//! common load, of an actor that did not write a moment ago, a drain and a look at the tail.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::types::StreamId;

const WORDS: usize = 1024;

/// A filter of streams, and the lock under which it is asked and emptied.
#[derive(Debug)]
pub(super) struct Recent {
    words: Box<[AtomicU64]>,
    /// Positions below are indexed, or belong to segments whose index builds itself.
    indexed: Mutex<u64>,
    checking: Mutex<()>,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self {
            words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
            indexed: Mutex::new(0),
            checking: Mutex::new(()),
        }
    }

    /// Under the append lock.
    pub(super) fn insert(&self, stream: StreamId) {
        let (word, bit) = self.place(stream);
        // Relaxed: who asks holds `indexed`, and either finds the append lock's holder done or
        // does not depend on its frame.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(super) fn contains(&self, stream: StreamId) -> bool {
        let (word, bit) = self.place(stream);
        word.load(Ordering::Relaxed) & bit != 0
    }

    /// Under the append lock.
    pub(super) fn clear(&self) {
        for word in &self.words {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Fills it, so that the next one who asks looks for himself.
    pub(super) fn fill(&self) {
        for word in &self.words {
            word.store(u64::MAX, Ordering::Relaxed);
        }
    }

    pub(super) fn indexed(&self) -> MutexGuard<'_, u64> {
        self.indexed.lock()
    }

    /// Held over a comparison and the append that depends on it.
    pub(super) fn checking(&self) -> MutexGuard<'_, ()> {
        self.checking.lock()
    }

    #[expect(clippy::indexing_slicing, reason = "modulo the number of words")]
    fn place(&self, stream: StreamId) -> (&AtomicU64, u64) {
        let hash = stream.get();
        let bit = 1 << (hash & 63);
        let word = usize::try_from((hash >> 6) % WORDS as u128).unwrap_or(0);
        (&self.words[word], bit)
    }
}
