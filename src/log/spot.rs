//! The spot of a stream: where its frames are in one piece of the log, a segment or a run.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Shared;
use super::frame::Frame;
use super::index::Places;
use super::read::last_event;
use super::run::Row;
use super::run_file::Run;
use super::segment::Segment;
use crate::disk::SegmentMap;
use crate::error::ReadError;
use crate::types::{FRAME_ALIGN, Seq, StreamId};

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

    /// The frames that hold events after `after`, where they lie far apart.
    pub(super) fn scattered(&self, after: Seq) -> Result<Option<(&SegmentMap, &[u32])>, ReadError> {
        let Self::Segment(segment, places) = self else { return Ok(None) };
        let first = Shared::first_after(segment, &places.offsets, after)?;
        let places = places.offsets.get(first..).unwrap_or_default();
        Ok(Some((&segment.opened()?.map, places)))
    }

    /// Visits the frames that hold events after `after`, in order. `fetch_next` is called once
    /// for each that is scattered.
    pub(super) fn visit(
        &self,
        stream: StreamId,
        after: Seq,
        fetch_next: &mut dyn FnMut(),
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        match self {
            Self::Segment(segment, places) => {
                let first = Shared::first_after(segment, &places.offsets, after)?;
                for place in places.offsets.get(first..).unwrap_or_default() {
                    fetch_next();
                    let frame = Shared::frame_at(segment, (*place, places.life), stream)?;
                    if last_event(&frame) > after && visit(frame).is_break() {
                        return Ok(ControlFlow::Break(()));
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
