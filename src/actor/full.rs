//! The door of a full disk: turns that want to store something are turned away before they have
//! changed the state, until there is room.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::ActorError;
use super::runtime::Shared;
use crate::error::{AppendError, DiskError};

/// How often it is tried whether there is room, at most.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Whether the disk was full when something was last appended.
#[derive(Default)]
pub(crate) struct FullDisk {
    /// Whether there is something in `since`: all that is looked at while there is room.
    is_full: AtomicBool,
    since: Mutex<Option<Full>>,
}

struct Full {
    error: DiskError,
    probed: Duration,
}

impl Shared {
    /// May a turn store something? Otherwise what it must fail with; nothing was tried.
    ///
    /// Without this, each refused turn would cost the state, since its events are applied before
    /// they are appended: a full disk would be answered by reading it all day.
    #[inline]
    pub(crate) fn admit_event(&self) -> Result<(), ActorError> {
        // Relaxed: a hint. Who misses that the disk has just become full finds out by appending.
        if self.full.is_full.load(Ordering::Relaxed) { self.probe_room() } else { Ok(()) }
    }

    #[cold]
    fn probe_room(&self) -> Result<(), ActorError> {
        let now = self.clock.monotonic();
        let error = {
            let mut since = self.full.since.lock();
            let Some(full) = &mut *since else { return Ok(()) };
            let error = full.error.clone();
            if now.saturating_sub(full.probed) < PROBE_INTERVAL {
                return Err(AppendError::DiskFull(error).into());
            }
            full.probed = now;
            error
        };
        // Not under the lock: it may write to the disk. Others are turned away meanwhile.
        if self.events.has_room() {
            self.full.clear();
            return Ok(());
        }
        Err(AppendError::DiskFull(error).into())
    }

    /// What became of an append.
    #[inline]
    pub(crate) fn note_append(&self, refused: Option<&AppendError>) {
        match refused {
            None if self.full.is_full.load(Ordering::Relaxed) => self.full.clear(),
            Some(AppendError::DiskFull(error)) => {
                let probed = self.clock.monotonic();
                *self.full.since.lock() = Some(Full { error: error.clone(), probed });
                self.full.is_full.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

impl FullDisk {
    #[cold]
    fn clear(&self) {
        let mut since = self.since.lock();
        *since = None;
        self.is_full.store(false, Ordering::Relaxed);
    }
}
