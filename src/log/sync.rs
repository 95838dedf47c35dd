//! The sync itself: stored, `fdatasync`, durable mark, mark file. One at a time.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::Shared;
use super::commit::Begun;
use super::mark::Mark;
use super::slots::Slots;
use crate::error::DiskError;
use crate::metrics::Measure;
use crate::types::Life;

/// How far below the durable mark the mark file's frame boundary is kept.
const BOUNDARY_LAG: u64 = 1 << 20;
/// How far apart the boundaries are that it is chosen from.
const BOUNDARY_STEP: u64 = 1 << 17;

/// What the one who syncs owns.
#[derive(Debug)]
pub(super) struct Syncing {
    file: Option<Slots>,
    /// Frame boundaries of this life, oldest first.
    boundaries: VecDeque<u64>,
    life: Life,
    /// The mark file has been written and not synced.
    dirty: bool,
}

impl Syncing {
    /// `first` is a frame boundary of `life`, at or below the durable mark.
    pub(super) fn new(file: Option<Slots>, first: u64, life: Life) -> Self {
        Self { file, boundaries: VecDeque::from([first]), life, dirty: false }
    }

    /// Writes the mark file.
    pub(super) fn note(&mut self, log: u64, durable: u64) -> Result<(), DiskError> {
        if self.boundaries.back().is_none_or(|last| durable >= last + BOUNDARY_STEP) {
            self.boundaries.push_back(durable);
        }
        while self.boundaries.get(1).is_some_and(|second| second + BOUNDARY_LAG <= durable) {
            self.boundaries.pop_front();
        }
        let Some(slots) = &mut self.file else { return Ok(()) };
        let boundary = self.boundaries.front().copied().unwrap_or(durable);
        self.dirty = true;
        let mark = Mark { durable, boundary, life: self.life, poisoned: false };
        slots.write(&mark.fields(log))
    }

    /// Writes into the mark file that the log is poisoned: then the next open does not expect to
    /// find everything that was written, whether the machine has been running or not.
    pub(super) fn note_poison(&mut self, log: u64, durable: u64) -> Result<(), DiskError> {
        let boundary = self.boundaries.front().copied().unwrap_or(durable);
        let mark = Mark { durable, boundary, life: self.life, poisoned: true };
        match &mut self.file {
            Some(slots) => slots.write(&mark.fields(log)),
            None => Ok(()),
        }
    }

    /// Where the next recovery begins to read.
    pub(super) fn boundary(&self) -> u64 {
        self.boundaries.front().copied().unwrap_or(0)
    }

    /// Makes the mark file durable.
    pub(super) fn settle(&mut self) -> Result<(), DiskError> {
        if let (true, Some(slots)) = (self.dirty, &self.file) {
            slots.sync()?;
            self.dirty = false;
        }
        Ok(())
    }

    /// The mark file has been written and not synced.
    pub(super) fn dirty(&self) -> bool {
        self.dirty
    }
}

impl Shared {
    /// One commit from its beginning to its end, whatever comes of it.
    pub(super) fn commit(&self, begun: &Begun) {
        if self.watch.meter.is_watched() {
            self.watch.group(self.append.lock().counts.frames);
        }
        let before = self.durable.load(Ordering::Acquire);
        // An error has poisoned the log, and whoever waits finds that.
        let committed = self.sync_written(self.syncing.lock()).is_ok_and(|mark| mark > before);
        self.commits.end(begun, committed);
        let reached = match self.poison.get() {
            None => self.durable.load(Ordering::Acquire),
            Some(_) => u64::MAX,
        };
        self.commits.wake_futures(reached);
        self.tails.ring();
    }

    /// Syncs everything that is written; answers the durable mark.
    ///
    /// # Errors
    /// The file system's; the log is poisoned. **Never tried again.**
    pub(super) fn sync_written(
        &self,
        mut syncing: MutexGuard<'_, Syncing>,
    ) -> Result<u64, DiskError> {
        if let Some(poison) = self.poison.get() {
            return Err(poison.clone());
        }
        let began = self.watch.began();
        let drained = self.drain(self.written.load(Ordering::Acquire));
        let cap = drained.map_err(|error| self.poison_with(error, &mut syncing))?;
        let durable = self.durable.load(Ordering::Acquire);
        if cap <= durable {
            return Ok(durable);
        }
        let segments = self.chain.read().between(durable..cap);
        let sealed = segments.len() > 1;
        for segment in segments {
            let sync = self.watch.began();
            let synced = segment.opened().and_then(|opened| {
                opened.file.sync_data().map_err(DiskError::at("syncing", &segment.path))
            });
            self.watch.took(Measure::Sync, "", sync);
            synced.map_err(|error| self.poison_with(error, &mut syncing))?;
        }
        // Release: pairs with the Acquire in `durable()`: what is answered is on disk.
        self.durable.store(cap, Ordering::Release);
        // Once a segment the mark is made durable too: else a power cut in a busy life would leave
        // one from its beginning, and the next open would read all of it.
        let noted = syncing.note(self.id, cap);
        let noted = noted.and_then(|()| if sealed { syncing.settle() } else { Ok(()) });
        if let Err(error) = noted {
            self.mark_failed(error);
        }
        self.watch.committed(cap - durable, began);
        if self.poison.get().is_some() {
            // By the drain, meanwhile, which could not write it then.
            self.note_poison(&mut syncing);
        }
        Ok(cap)
    }
}
