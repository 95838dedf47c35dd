//! Where the frames of one stream are, in one piece of the log.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Shared;
use super::frame::{Frame, Header};
use super::index::Places;
use super::read::last_event;
use super::run::Row;
use super::run_file::Run;
use super::segment::Segment;
use crate::error::ReadError;
use crate::types::{FRAME_ALIGN, Seq, StreamId, to_usize};

/// Where frames of one stream are, in one piece of the log.
pub(super) enum Spot {
    Segment(Arc<Segment>, Places),
    Run(Arc<Run>, Row),
}

impl Spot {
    /// Number of the first event there.
    pub(super) fn first(&self) -> Seq {
        match self {
            Self::Segment(_, places) => places.first,
            Self::Run(_, row) => row.first,
        }
    }

    /// Number of the last event that was dropped there.
    pub(super) fn dropped(&self) -> Seq {
        match self {
            Self::Segment(..) => Seq::ZERO,
            Self::Run(_, row) => row.dropped,
        }
    }

    /// Frames there.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Segment(_, places) => places.offsets.len(),
            Self::Run(_, row) => row.count as usize,
        }
    }

    /// Forgets frames at or above `position`. What is in a run is durable.
    pub(super) fn retain_below(&mut self, position: u64) {
        if let Self::Segment(segment, places) = self {
            let base = segment.header.base;
            let at = |place: &u32| base + u64::from(*place) * FRAME_ALIGN as u64;
            places.offsets.retain(|place| at(place) < position);
        }
    }

    /// The `number`-th frame.
    pub(super) fn frame(&self, number: usize, stream: StreamId) -> Result<Frame<'_>, ReadError> {
        match self {
            Self::Segment(segment, places) => {
                let place = places.offsets.get(number).copied().unwrap_or(0);
                Shared::frame_at(segment, (place, places.life), stream)
            }
            Self::Run(run, row) => run.frame_of(row.numbers().start + number, stream),
        }
    }

    pub(super) fn last(&self, stream: StreamId) -> Result<Frame<'_>, ReadError> {
        self.frame(self.count().saturating_sub(1), stream)
    }

    /// Visits the frames that hold events after `after`, in order.
    pub(super) fn visit(
        &self,
        stream: StreamId,
        after: Seq,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        match self {
            Self::Segment(segment, places) => {
                let first = first_after(segment, &places.offsets, after)?;
                let bytes = segment.opened()?.map.bytes();
                for batch in places.offsets.get(first..).unwrap_or_default().chunks(TOUCHED) {
                    touch(bytes, batch);
                    for place in batch {
                        let frame = Shared::frame_at(segment, (*place, places.life), stream)?;
                        if last_event(&frame) > after && visit(frame).is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                }
            }
            // Side by side in the file: the processor fetches them by itself.
            Self::Run(run, row) => {
                let numbers = run.first_after(row, after)?..row.numbers().end;
                return run.visit(numbers, stream, &mut |frame| {
                    if last_event(&frame) > after {
                        visit(frame)
                    } else {
                        ControlFlow::Continue(())
                    }
                });
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The first of `offsets` whose frame holds events after `after`.
fn first_after(segment: &Segment, offsets: &[u32], after: Seq) -> Result<usize, ReadError> {
    if after == Seq::ZERO {
        return Ok(0);
    }
    let bytes = segment.opened()?.map.bytes();
    let begins_after = |place: &u32| {
        let start = to_usize(u64::from(*place) * FRAME_ALIGN as u64);
        // What does not parse is looked at again, and checked, when it is read.
        Header::read(bytes.get(start..).unwrap_or_default()).is_ok_and(|header| header.seq > after)
    };
    Ok(offsets.partition_point(|place| !begins_after(place)).saturating_sub(1))
}

/// How many frames are fetched from memory at a time.
const TOUCHED: usize = 16;

/// Looks at the first lines of some frames, so that the processor fetches them side by side
/// rather than one after the other as they are checked: those of one stream lie far apart.
fn touch(bytes: &[u8], places: &[u32]) {
    const LINE: usize = 64;
    let mut sum = 0_u8;
    for place in places {
        let start = *place as usize * FRAME_ALIGN;
        for line in [start, start + LINE, start + 2 * LINE] {
            sum ^= bytes.get(line).copied().unwrap_or(0);
        }
    }
    std::hint::black_box(sum);
}
