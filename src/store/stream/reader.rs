//! Who reads: the open subscriptions of a store, and how far each has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::log::{Limit, Log};

/// All of them.
#[derive(Debug, Default)]
pub(in crate::store) struct Readers(Mutex<Vec<Arc<Reader>>>);

/// One subscription, as others see it.
#[derive(Debug)]
pub(super) struct Reader {
    /// Everything before is behind it; [`CAUGHT_UP`] while it waits for something new.
    at: AtomicU64,
    limit: Limit,
}

/// Nothing is before it.
const CAUGHT_UP: u64 = u64::MAX;

/// How far those who follow what happens are with it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// Subscriptions that are open.
    pub open: u64,
    /// How many bytes of the log are before the last of them, up to where it may read.
    pub lag_bytes: u64,
}

impl Reader {
    /// Relaxed, here and below: a number for who looks at it, and no data hangs on it.
    pub(super) fn stands_at(&self, position: u64) {
        self.at.store(position, Ordering::Relaxed);
    }

    pub(super) fn is_waiting(&self) {
        self.at.store(CAUGHT_UP, Ordering::Relaxed);
    }
}

impl Readers {
    pub(super) fn begin(&self, at: u64, limit: Limit) -> Arc<Reader> {
        let reader = Arc::new(Reader { at: AtomicU64::new(at), limit });
        self.0.lock().push(Arc::clone(&reader));
        reader
    }

    pub(super) fn end(&self, reader: &Arc<Reader>) {
        self.0.lock().retain(|it| !Arc::ptr_eq(it, reader));
    }

    pub(in crate::store) fn stats(&self, log: &Log) -> SubscriptionStats {
        let readers = self.0.lock();
        let (written, durable) = (log.written(), log.durable());
        let lag = |reader: &Arc<Reader>| {
            let end = match reader.limit {
                Limit::Written => written,
                Limit::Durable => durable,
            };
            end.saturating_sub(reader.at.load(Ordering::Relaxed))
        };
        let lag_bytes = readers.iter().map(lag).max().unwrap_or(0);
        SubscriptionStats { open: readers.len() as u64, lag_bytes }
    }
}
