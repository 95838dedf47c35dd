//! What is told and measured of a log.
//!
//! Nearly all of it happens under the append lock, or while somebody syncs, where nobody's code but
//! ours may run: so it is put on the news, and told by the drain thread, for which nobody waits; or
//! at the end of a call, where the log has no threads.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::compact::Compacted;
use super::segment::Segment;
use super::write::AppendCounts;
use crate::error::{AppendError, DiskError, ReadError};
use crate::metrics::{Measure, Meter};
use crate::time::Clock;
use crate::trace::{self, News, Seldom};

/// What is told and measured, and what is remembered for that.
#[derive(Debug)]
pub(super) struct Watch {
    dir: PathBuf,
    clock: Clock,
    pub news: News,
    pub meter: Meter,
    /// The last segment could not be had for want of room.
    full: AtomicBool,
    /// Frames of this life at the last commit that was measured.
    frames: AtomicU64,
    waits: Seldom,
    marks: Seldom,
}

impl Watch {
    pub(super) fn new(dir: PathBuf, clock: Clock) -> Self {
        Self {
            dir,
            clock,
            news: News::default(),
            meter: Meter::default(),
            full: AtomicBool::new(false),
            frames: AtomicU64::new(0),
            waits: Seldom::default(),
            marks: Seldom::default(),
        }
    }

    /// The beginning of something that is measured.
    pub(super) fn began(&self) -> Option<Duration> {
        self.meter.began(&self.clock)
    }

    /// Its end.
    pub(super) fn took(&self, measure: Measure, label: &'static str, began: Option<Duration>) {
        self.meter.took((measure, label), &self.clock, began);
    }

    pub(super) fn segment_made(&self, segment: &Segment, recycled: bool, began: Option<Duration>) {
        self.took(Measure::Segment, if recycled { "recycled" } else { "made" }, began);
        if trace::ON {
            // Not the segment itself: its file is made another's only when nobody has it.
            let (file, header) = (segment.path.clone(), segment.header);
            self.news.add(move || {
                let (lsn, bytes) = (header.base, header.bytes);
                trace::SegmentMade { file: &file, lsn, bytes, recycled }.tell();
            });
        }
    }

    /// Somebody needed the next segment; `refused` says why it was not to be had.
    pub(super) fn segment_taken(&self, refused: Option<&AppendError>) {
        if !trace::ON {
            return;
        }
        // Relaxed: under the append lock.
        let was_full = self.full.load(Ordering::Relaxed);
        let dir = self.dir.clone();
        match refused {
            Some(AppendError::DiskFull(error)) if !was_full => {
                self.full.store(true, Ordering::Relaxed);
                let error = error.clone();
                self.news.add(move || trace::DiskFull { dir: &dir, error: &error }.tell());
            }
            Some(AppendError::Disk(error)) => {
                let error = error.clone();
                self.news.add(move || trace::SegmentFailed { dir: &dir, error: &error }.tell());
            }
            None if was_full => {
                self.full.store(false, Ordering::Relaxed);
                self.news.add(move || trace::DiskHasRoom { dir: &dir }.tell());
            }
            _ => {}
        }
    }

    pub(super) fn segment_sealed(&self, segment: &Segment, lsn: u64) {
        if trace::ON {
            let file = segment.path.clone();
            self.news.add(move || trace::SegmentSealed { file: &file, lsn }.tell());
        }
    }

    pub(super) fn segment_retired(&self, file: PathBuf, lsn: u64) {
        self.news.add(move || trace::SegmentRetired { file: &file, lsn }.tell());
    }

    pub(super) fn index_failed(&self, segment: &Segment, error: ReadError) {
        if trace::ON {
            let file = segment.path.with_extension("idx");
            self.news.add(move || trace::IndexFailed { file: &file, error: &error }.tell());
        }
    }

    pub(super) fn checkpointed(&self, lsn: u64, written: Result<(), ReadError>) {
        if trace::ON {
            let dir = self.dir.clone();
            self.news.add(move || match written {
                Ok(()) => trace::CheckpointWritten { dir: &dir, lsn }.tell(),
                Err(error) => trace::CheckpointFailed { dir: &dir, lsn, error: &error }.tell(),
            });
        }
    }

    /// The mark file could not be written, for so many times by now.
    pub(super) fn mark_failed(&self, error: DiskError, failures: u64) {
        if self.marks.lets(|| self.clock.monotonic_coarse()) {
            let dir = self.dir.clone();
            self.news.add(move || trace::MarkFailed { dir: &dir, failures, error: &error }.tell());
        }
    }

    pub(super) fn poisoned(&self, durable: u64, error: &DiskError) {
        if trace::ON {
            let (dir, error) = (self.dir.clone(), error.clone());
            self.news
                .add(move || trace::Poisoned { dir: &dir, lsn: durable, error: &error }.tell());
        }
    }

    /// An append had to wait for the disk.
    pub(super) fn waited(&self, counts: &AppendCounts) {
        if self.waits.lets(|| self.clock.monotonic_coarse()) {
            let (ring_full, lag_waits) = (counts.ring_full, counts.lag_waits);
            let dir = self.dir.clone();
            self.news.add(move || trace::AppendsWaited { dir: &dir, ring_full, lag_waits }.tell());
        }
    }

    pub(super) fn compaction_begun(&self, range: &std::ops::Range<u64>, pieces: usize) {
        if trace::ON {
            let (dir, lsn, lsn_end) = (self.dir.clone(), range.start, range.end);
            let pieces = pieces as u64;
            self.news.add(move || {
                trace::CompactionBegun { dir: &dir, lsn, lsn_end, pieces }.tell();
            });
        }
    }

    pub(super) fn compacted(
        &self,
        range: &std::ops::Range<u64>,
        done: &Result<Compacted, ReadError>,
        took: Duration,
    ) {
        if trace::ON {
            let (dir, lsn, lsn_end, done) =
                (self.dir.clone(), range.start, range.end, done.clone());
            self.news.add(move || match done {
                Ok(Compacted { carried, dropped, bytes_before, bytes_after, .. }) => {
                    trace::Compacted {
                        dir: &dir,
                        lsn,
                        lsn_end,
                        carried,
                        dropped,
                        bytes_before,
                        bytes_after,
                        took_us: trace::micros(took),
                    }
                    .tell();
                }
                Err(error) => {
                    trace::CompactionFailed { dir: &dir, lsn, lsn_end, error: &error }.tell();
                }
            });
        }
    }

    /// A commit has made `bytes` durable.
    pub(super) fn committed(&self, bytes: u64, began: Option<Duration>) {
        if began.is_some() {
            self.took(Measure::Commit, "", began);
            self.meter.add(Measure::CommitBytes, "", bytes);
        }
    }

    /// A commit begins, of all that was appended: `frames` in this life.
    pub(super) fn group(&self, frames: u64) {
        // Relaxed: one commit at a time begins here.
        let before = self.frames.swap(frames, Ordering::Relaxed);
        if frames > before {
            self.meter.add(Measure::CommitFrames, "", frames - before);
        }
    }
}
