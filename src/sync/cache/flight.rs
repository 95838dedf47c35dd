//! One load per key, however many ask; and the ticket by which its value is admitted.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// What a fill is compared with: taken before the source is read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) hash: u64,
    /// The generation of the key's stripe.
    pub(crate) stripe: u64,
    /// The number of the domain.
    pub(crate) number: u64,
}

/// Why a load has no value to show.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The source says so. It will be asked again by the next call.
    #[error("the source failed: {0}")]
    Source(Arc<dyn std::error::Error + Send + Sync>),
    /// The load panicked.
    #[error("the load panicked")]
    Panicked,
    /// It took longer than it was given; it goes on, and what it finds is remembered.
    #[error("the load took longer than {0:?}")]
    TimedOut(Duration),
    /// As many loads as may run are running, and as many as may wait are waiting.
    #[error("too many loads are waiting")]
    Busy,
    /// Whether what is remembered is still so is not known, and the cache was told to refuse then.
    #[error("nothing was heard of all writers for {0:?}")]
    Stale(Duration),
    /// The cache was built without a loader.
    #[error("the cache has no loader")]
    NoLoader,
}

/// One load under way, and those who wait for it.
#[derive(Debug)]
pub(crate) struct Flight<V> {
    pub(crate) ticket: Ticket,
    /// When it began, boot time in nanoseconds.
    pub(crate) begun: u64,
    landed: Mutex<Option<Result<Option<V>, LoadError>>>,
    arrival: Condvar,
}

impl<V> Flight<V> {
    pub(crate) fn new(ticket: Ticket, begun: u64) -> Self {
        Self { ticket, begun, landed: Mutex::new(None), arrival: Condvar::new() }
    }

    /// It is over, with this.
    pub(crate) fn land(&self, result: Result<Option<V>, LoadError>) {
        let mut landed = self.landed.lock();
        if landed.is_none() {
            *landed = Some(result);
        }
        drop(landed);
        self.arrival.notify_all();
    }

    /// What it brought; `None` if it has not for so long.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> Option<Result<Option<V>, LoadError>>
    where
        V: Clone,
    {
        let mut landed = self.landed.lock();
        match limit {
            None => self.arrival.wait_while(&mut landed, |landed| landed.is_none()),
            Some(limit) => {
                let wait = |landed: &mut Option<_>| landed.is_none();
                let _timed_out = self.arrival.wait_while_for(&mut landed, wait, limit);
            }
        }
        landed.clone()
    }
}
