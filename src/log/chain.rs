//! The pieces of a log in order: runs, then segments; and where a position is among them.

use std::ops::Range;
use std::sync::Arc;

use super::run_file::Run;
use super::segment::Segment;
use crate::error::ReadError;

/// What a part of a log is kept in.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Run(Arc<Run>),
    Segment(Arc<Segment>),
}

impl Piece {
    /// Where it begins.
    pub(super) fn start(&self) -> u64 {
        match self {
            Self::Run(run) => run.header.start,
            Self::Segment(segment) => segment.header.base,
        }
    }
}

/// All runs, which follow each other and end where the first segment begins; and all segments
/// that hold frames, oldest first; the last one is written.
#[derive(Debug, Default)]
pub(super) struct Chain {
    runs: Vec<Arc<Run>>,
    segments: Vec<Arc<Segment>>,
}

impl Chain {
    pub(super) fn new(runs: Vec<Arc<Run>>, segments: Vec<Arc<Segment>>) -> Self {
        debug_assert!(
            segments.is_sorted_by(|a, b| a.header.limit() <= b.header.base),
            "segments in order"
        );
        debug_assert!(
            runs.is_sorted_by(|a, b| a.header.limit == b.header.start),
            "runs without a gap"
        );
        Self { runs, segments }
    }

    /// Oldest first.
    pub(super) fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    /// Everything, oldest first, as of now.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let runs = self.runs.iter().cloned().map(Piece::Run);
        runs.chain(self.segments.iter().cloned().map(Piece::Segment)).collect()
    }

    /// Puts `run` in the place of everything in its range.
    pub(super) fn replace(&mut self, run: Arc<Run>) {
        let range = run.header.range();
        self.segments.retain(|segment| !range.contains(&segment.header.base));
        self.runs.retain(|run| !range.contains(&run.header.start));
        let place = self.runs.partition_point(|before| before.header.start < range.start);
        self.runs.insert(place, run);
    }

    /// The first piece that has positions at or above `position`.
    pub(super) fn first_from(&self, position: u64) -> Option<Piece> {
        if let Some(run) = self.run_from(position) {
            return Some(Piece::Run(Arc::clone(run)));
        }
        let number = self.segments.partition_point(|segment| segment.header.limit() <= position);
        self.segments.get(number).cloned().map(Piece::Segment)
    }

    fn run_from(&self, position: u64) -> Option<&Arc<Run>> {
        self.runs.get(self.runs.partition_point(|run| run.header.limit <= position))
    }

    pub(super) fn push(&mut self, segment: Arc<Segment>) {
        self.segments.push(segment);
    }

    /// Oldest first.
    pub(super) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Number of the segment whose file `position` lies in or behind.
    fn number_at(&self, position: u64) -> Option<usize> {
        self.segments.partition_point(|segment| segment.header.base <= position).checked_sub(1)
    }

    /// The segment that the frame at `position` is or will be stored in, and where the frames of
    /// the one after it begin.
    pub(super) fn writing_at(&self, position: u64) -> Option<(Arc<Segment>, Option<u64>)> {
        let number = self.number_at(position)?;
        let segment = self.segments.get(number)?;
        let next = self.segments.get(number + 1).map(|next| next.header.first_frame());
        Some((Arc::clone(segment), next))
    }

    /// The segments that hold any of `range`.
    pub(super) fn between(&self, range: Range<u64>) -> Vec<Arc<Segment>> {
        let first = self.number_at(range.start).unwrap_or(0);
        let overlaps = |segment: &&Arc<Segment>| {
            segment.header.base < range.end && segment.end().is_none_or(|end| end > range.start)
        };
        self.segments.iter().skip(first).filter(overlaps).cloned().collect()
    }

    /// Where the frame is that was once given `position`, below the log's `end`. A run has more
    /// to say about it, in its table.
    ///
    /// # Errors
    /// [`ReadError::PositionLost`] where no frame can be.
    pub(super) fn locate(&self, position: u64, end: u64) -> Result<Piece, ReadError> {
        let lost = |lost| ReadError::PositionLost { lsn: position, lost };
        if position >= end {
            return Err(lost(end..u64::MAX));
        }
        if let Some(run) = self.run_from(position).filter(|run| run.header.start <= position) {
            return Ok(Piece::Run(Arc::clone(run)));
        }
        let first = self.segments.first().map_or(end, |segment| segment.header.first_frame());
        let Some(number) = self.number_at(position).filter(|_| position >= first) else {
            return Err(lost(0..first));
        };
        let Some(segment) = self.segments.get(number) else { return Err(lost(0..first)) };
        let following = self
            .segments
            .get(number + 1)
            .map_or(u64::MAX, |following| following.header.first_frame());
        match segment.end() {
            Some(end) if position >= end => Err(lost(end..following)),
            _ if position < segment.header.first_frame() => {
                Err(lost(segment.header.base..segment.header.first_frame()))
            }
            _ => Ok(Piece::Segment(Arc::clone(segment))),
        }
    }

    /// What crashes took back, behind the runs: the positions between a segment's end and the
    /// next one's base, where that names a lost range.
    pub(super) fn lost(&self) -> Vec<Range<u64>> {
        let ends = |segment: &Arc<Segment>| {
            let end = segment.header.previous.and_then(|previous| previous.end)?;
            Some(end..segment.header.base)
        };
        // The first segment's is in the run before it too.
        let in_runs = usize::from(!self.runs.is_empty());
        self.segments.iter().skip(in_runs).filter_map(ends).collect()
    }
}
