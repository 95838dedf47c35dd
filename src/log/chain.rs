//! The segments of a log in order, and where a position is among them.

use std::ops::Range;
use std::sync::Arc;

use super::segment::Segment;
use crate::error::ReadError;

/// All segments that hold frames, oldest first; the last one is written.
#[derive(Debug, Default)]
pub(super) struct Chain {
    segments: Vec<Arc<Segment>>,
}

impl Chain {
    pub(super) fn new(segments: Vec<Arc<Segment>>) -> Self {
        debug_assert!(
            segments.is_sorted_by(|a, b| a.header.limit() <= b.header.base),
            "segments in order"
        );
        Self { segments }
    }

    pub(super) fn push(&mut self, segment: Arc<Segment>) {
        self.segments.push(segment);
    }

    /// Takes the oldest segment out, if there are others.
    #[cfg(any(test, feature = "internals"))]
    pub(super) fn take_first(&mut self) -> Option<Arc<Segment>> {
        if self.segments.len() > 1 { Some(self.segments.remove(0)) } else { None }
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

    /// The segment after the one based at `base`.
    pub(super) fn following(&self, base: u64) -> Option<Arc<Segment>> {
        let number = self.segments.partition_point(|segment| segment.header.base <= base);
        self.segments.get(number).cloned()
    }

    /// The segment of a frame that was once given `position`, below the log's `end`.
    ///
    /// # Errors
    /// [`ReadError::PositionLost`] where no frame can be.
    pub(super) fn locate(&self, position: u64, end: u64) -> Result<Arc<Segment>, ReadError> {
        let lost = |lost| ReadError::PositionLost { lsn: position, lost };
        if position >= end {
            return Err(lost(end..u64::MAX));
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
            _ => Ok(Arc::clone(segment)),
        }
    }

    /// What crashes took back: the positions between a segment's end and the next one's base,
    /// where that names a lost range.
    pub(super) fn lost(&self) -> Vec<Range<u64>> {
        let ends = |segment: &Arc<Segment>| {
            let end = segment.header.previous.and_then(|previous| previous.end)?;
            Some(end..segment.header.base)
        };
        self.segments.iter().filter_map(ends).collect()
    }
}
