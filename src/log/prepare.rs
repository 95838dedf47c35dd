//! Segments made ahead, so that an append never waits for one.
//!
//! The keeper thread keeps [`AHEAD`] segments ready. Where there is no keeper, or it is slow,
//! the appender makes the segment itself or waits. Only `ENOSPC` is "disk full", and it is
//! answered before a position is taken; the next append tries again.
//!
//! A file that a segment no longer needs is made a segment again, where that is safe: it has its
//! blocks, so it need not be filled, and often its pages are in memory still.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::segment::{Previous, Retired, Segment, SegmentHeader};
use super::watch::Watch;
use crate::disk::{Disk, Fill, PAGE_U64};
use crate::error::{AppendError, DiskError};
use crate::types::Life;

/// How many segments are kept ready.
const AHEAD: usize = 2;
/// How many files are kept for segments to come.
const RETIRED: usize = 2;

/// Makes segments, one after another, each naming the one before.
#[derive(Debug)]
pub(super) struct Preparer {
    disk: Arc<dyn Disk>,
    watch: Arc<Watch>,
    dir: PathBuf,
    log: u64,
    life: Life,
    bytes_max: u64,
    state: Mutex<State>,
    /// Files without a segment, all of the largest size. Locked by itself or inside `state`.
    retired: Mutex<Vec<Retired>>,
    /// There is a segment more, or an error.
    ready: Condvar,
    /// Has anybody committed to the disk lately? Then segments are filled, else only reserved.
    filled: AtomicBool,
    /// Appends that had to wait.
    pub waits: AtomicU64,
    /// Segments made of files that had been others'.
    pub recycled: AtomicU64,
}

#[derive(Debug)]
struct State {
    ready: VecDeque<Arc<Segment>>,

    /// The header of the next one to be made, but for its size.
    base: u64,
    bytes: u64,
    previous: Option<Previous>,
    making: bool,
    failed: Option<DiskError>,
    /// A keeper thread makes segments; nobody else does.
    kept: bool,
}

/// Where the chain of prepared segments begins.
#[derive(Copy, Clone, Debug)]
pub(super) struct Start {
    /// Base of the first one.
    pub base: u64,
    /// Its size.
    pub bytes: u64,
    /// What its header names.
    pub previous: Option<Previous>,
}

impl Preparer {
    pub(super) fn new(
        (disk, watch): (&Arc<dyn Disk>, &Arc<Watch>),
        dir: PathBuf,
        (log, life): (u64, Life),
        start: Start,
        bytes_max: u64,
    ) -> Self {
        Self {
            disk: Arc::clone(disk),
            watch: Arc::clone(watch),
            dir,
            log,
            life,
            bytes_max,
            state: Mutex::new(State {
                ready: VecDeque::new(),
                base: start.base,
                bytes: start.bytes,
                previous: start.previous,
                making: false,
                failed: None,
                kept: false,
            }),
            retired: Mutex::new(Vec::new()),
            ready: Condvar::new(),
            filled: AtomicBool::new(false),
            waits: AtomicU64::new(0),
            recycled: AtomicU64::new(0),
        }
    }

    /// Somebody waits for the disk: from now on segments are worth filling.
    pub(super) fn expect_commits(&self) {
        // Relaxed: a hint. The load first, because this is called for every wait.
        if !self.filled.load(Ordering::Relaxed) {
            self.filled.store(true, Ordering::Relaxed);
        }
    }

    /// A keeper thread takes over.
    pub(super) fn keep(&self) {
        self.state.lock().kept = true;
    }

    /// The keeper calls what may wait for an appender: meanwhile no appender waits for the keeper.
    pub(super) fn away<T>(&self, call: impl FnOnce() -> T) -> T {
        let kept = std::mem::replace(&mut self.state.lock().kept, false);
        self.ready.notify_all();
        let answer = call();
        self.state.lock().kept = kept;
        answer
    }

    /// The keeper's turn: makes one segment if one is missing. Answers whether there is more to
    /// do.
    pub(super) fn make_ahead(&self) -> bool {
        let mut state = self.state.lock();
        if state.making || state.ready.len() >= AHEAD || state.failed.is_some() {
            return false;
        }
        state.making = true;
        drop(state);
        let made = self.make();
        let mut state = self.state.lock();
        state.making = false;
        let more = self.settle(&mut state, made);
        self.ready.notify_all();
        more && state.ready.len() < AHEAD
    }

    /// The next segment. Waits for the keeper, or makes it here where there is none.
    ///
    /// # Errors
    /// `DiskFull` or `Disk`. Nothing was taken; a later call tries again.
    pub(super) fn take(&self, wake_keeper: impl Fn()) -> Result<Arc<Segment>, AppendError> {
        let taken = self.take_ready(&wake_keeper);
        self.watch.segment_taken(taken.as_ref().err());
        if self.watch.news.is_some() {
            wake_keeper();
        }
        taken
    }

    fn take_ready(&self, wake_keeper: impl Fn()) -> Result<Arc<Segment>, AppendError> {
        loop {
            let mut state = self.await_ready(&wake_keeper)?;
            if let Some(segment) = state.ready.pop_front() {
                drop(state);
                wake_keeper();
                return Ok(segment);
            }
        }
    }

    /// Could a segment be taken? Tries to make one if none is there.
    pub(super) fn has_room(&self, wake_keeper: impl Fn()) -> bool {
        self.await_ready(&wake_keeper).is_ok()
    }

    /// Returns as soon as a segment is there, or cannot be made.
    fn await_ready(&self, wake_keeper: &impl Fn()) -> Result<MutexGuard<'_, State>, AppendError> {
        let mut state = self.state.lock();
        if !state.ready.is_empty() {
            return Ok(state);
        }
        // Relaxed: a counter.
        self.waits.fetch_add(1, Ordering::Relaxed);
        // An error of an earlier try is old news: there may be room by now.
        state.failed = None;
        loop {
            if !state.ready.is_empty() {
                return Ok(state);
            }
            if let Some(error) = &state.failed {
                let error = error.clone();
                return Err(if error.is_full() {
                    AppendError::DiskFull(error)
                } else {
                    AppendError::Disk(error)
                });
            }
            if state.kept || state.making {
                wake_keeper();
                self.ready.wait(&mut state);
            } else {
                let header = self.next_header(&state);
                let made = self.make_with(header);
                self.settle(&mut state, made);
            }
        }
    }

    fn make(&self) -> Result<Arc<Segment>, DiskError> {
        let header = self.next_header(&self.state.lock());
        self.make_with(header)
    }

    fn make_with(&self, header: SegmentHeader) -> Result<Arc<Segment>, DiskError> {
        let began = self.watch.began();
        let fits = |retired: &mut Retired| retired.bytes == header.bytes;
        let retired = self.retired.lock().pop_if(fits);
        if let Some(retired) = retired {
            let made = Segment::prepare_again(&self.disk, &self.dir, header, retired)?;
            self.recycled.fetch_add(1, Ordering::Relaxed);
            self.watch.segment_made(&made, true, began);
            return Ok(made);
        }
        let fill = if self.filled.load(Ordering::Relaxed) { Fill::Zero } else { Fill::Reserve };
        let made = Segment::prepare(&self.disk, &self.dir, header, fill)?;
        self.watch.segment_made(&made, false, began);
        Ok(made)
    }

    fn next_header(&self, state: &State) -> SegmentHeader {
        SegmentHeader {
            log: self.log,
            base: state.base,
            bytes: state.bytes,
            life: self.life,
            previous: state.previous,
        }
    }

    /// Takes note of what became of a try; `true` if it succeeded.
    fn settle(&self, state: &mut State, made: Result<Arc<Segment>, DiskError>) -> bool {
        match made {
            Ok(segment) => {
                state.previous = Some(Previous { base: segment.header.base, end: None });
                state.base = segment.header.limit();
                state.bytes = next_size(segment.header.bytes, self.bytes_max);
                state.ready.push_back(segment);
                true
            }
            Err(error) => {
                state.failed = Some(error);
                false
            }
        }
    }

    /// Takes over the file of a segment that has left the chain and that nothing on the disk
    /// needs any more: it becomes a segment to come, or goes. Either way its name is gone when
    /// this returns `Ok`; what is left after an error the next open removes, or finds whole.
    ///
    /// Its index file is the caller's.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn recycle(&self, segment: Arc<Segment>) -> Result<(), DiskError> {
        let wanted = segment.header.bytes == self.bytes_max && self.retired.lock().len() < RETIRED;
        if !wanted {
            let path = &segment.path;
            return self.disk.remove(path).map_err(DiskError::at("removing", path));
        }
        let (path, base) = (segment.path.clone(), segment.header.base);
        if let Some(retired) = segment.retire(&self.dir)? {
            self.retired.lock().push(retired);
            self.watch.segment_retired(path, base);
        }
        Ok(())
    }

    /// Removes what was prepared and never used, at close.
    pub(super) fn discard(&self) {
        let ready = std::mem::take(&mut self.state.lock().ready);
        let retired = std::mem::take(&mut *self.retired.lock());
        let paths = ready.iter().map(|segment| &segment.path);
        for path in paths.chain(retired.iter().map(|retired| &retired.path)) {
            // What stays is found and removed by the next open.
            self.disk.remove(path).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests;

/// Segments double until they are `max` large.
fn next_size(bytes: u64, max: u64) -> u64 {
    bytes.saturating_mul(2).min(max).max(bytes.min(max)).next_multiple_of(PAGE_U64)
}
