//! The spot of a stream: where its frames are in one piece of the log, a segment or a run.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::Shared;
use super::frame::Frame;
use super::index::{Place, offset_of};
use super::read::{frame_damage, last_event};
use super::run::Row;
use super::run_file::Run;
use super::segment::Segment;
use crate::disk::SegmentMap;
use crate::error::{ReadError, Reject};
use crate::types::{Life, Seq, StreamId, to_usize};

/// Where frames of one stream are, in one piece of the log.
pub(super) enum Spot<'a> {
    Segment(InSegment<'a>),
    Run(&'a Run, Row),
}

/// Where frames of one stream are, in one segment.
pub(super) struct InSegment<'a> {
    pub segment: &'a Segment,
    /// Number of the first event there.
    pub first: Seq,
    /// Each frame, in order.
    pub places: Cow<'a, [Place]>,
    /// The life of all of them, where the segment knows only one.
    pub life: Option<Life>,
}

impl InSegment<'_> {
    /// The places of the frames that hold events after `after`.
    fn after(&self, after: Seq) -> Result<&[Place], ReadError> {
        let first = Shared::first_after(self.segment, &self.places, after)?;
        Ok(self.places.get(first..).unwrap_or_default())
    }
}

impl Spot<'_> {
    /// Number of the first event there.
    pub(super) fn first(&self) -> Seq {
        match self {
            Self::Segment(here) => here.first,
            Self::Run(_, row) => row.first,
        }
    }

    /// Number of the last event that was dropped there.
    pub(super) fn dropped(&self) -> Seq {
        match self {
            Self::Segment(_) => Seq::ZERO,
            Self::Run(_, row) => row.dropped,
        }
    }

    /// Frames there.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Segment(here) => here.places.len(),
            Self::Run(_, row) => row.count as usize,
        }
    }

    /// Forgets frames at or above `position`. What is in a run is durable.
    pub(super) fn retain_below(&mut self, position: u64) {
        if let Self::Segment(here) = self {
            let base = here.segment.header.base;
            here.places.to_mut().retain(|place| base + offset_of(*place) < position);
        }
    }

    /// How many of the frames there stand below `position`.
    pub(super) fn below(&self, position: u64) -> Result<usize, ReadError> {
        match self {
            Self::Segment(here) => {
                let base = here.segment.header.base;
                Ok(here.places.partition_point(|place| base + offset_of(*place) < position))
            }
            Self::Run(run, row) => {
                let part = run.part()?;
                let (mut low, mut high) = (0, row.count as usize);
                while low < high {
                    let middle = low.midpoint(high);
                    let place = part.place(row.numbers().start + middle)?;
                    if place.is_some_and(|(lsn, _)| lsn < position) {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                Ok(low)
            }
        }
    }

    /// What was dropped there stood below this position.
    pub(super) fn gone(&self) -> u64 {
        match self {
            Self::Segment(_) => 0,
            Self::Run(run, _) => run.header.gone(),
        }
    }

    /// The `number`-th frame.
    pub(super) fn frame(&self, number: usize, stream: StreamId) -> Result<Frame<'_>, ReadError> {
        match self {
            Self::Segment(here) => {
                let offset = here.places.get(number).copied().map_or(0, offset_of);
                Shared::frame_at(here.segment, (offset, here.life), stream)
            }
            Self::Run(run, row) => run.frame_of(row.numbers().start + number, stream),
        }
    }

    pub(super) fn last(&self, stream: StreamId) -> Result<Frame<'_>, ReadError> {
        self.frame(self.count().saturating_sub(1), stream)
    }

    /// The frames that hold events after `after`, where they lie far apart.
    pub(super) fn scattered(&self, after: Seq) -> Result<Option<Scattered<'_>>, ReadError> {
        let Self::Segment(here) = self else { return Ok(None) };
        let map = &here.segment.opened()?.map;
        Ok(Some(Scattered { map, places: here.after(after)? }))
    }

    /// Visits the frames that hold events after `after`, in order.
    pub(super) fn visit(
        &self,
        stream: StreamId,
        after: Seq,
        ahead: &mut Ahead<'_>,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        match self {
            Self::Segment(here) => {
                let segment = here.segment;
                let bytes = segment.opened()?.map.bytes();
                let only = here.life.map(|life| segment.salt(life));
                for place in here.after(after)? {
                    ahead.fetch();
                    let offset = offset_of(*place);
                    let salt = match only {
                        Some(salt) => salt,
                        None => Shared::salt_at(segment, offset),
                    };
                    let rest = bytes.get(to_usize(offset)..).unwrap_or_default();
                    let frame = match Frame::read(rest, offset, salt) {
                        Ok(frame) if frame.stream() == stream => frame,
                        Ok(_other) => return Err(bad_frame(segment, offset, Reject::Records)),
                        Err(reject) => return Err(bad_frame(segment, offset, reject)),
                    };
                    if is_after(&frame, after) && visit(frame).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            // Side by side in the file: the processor fetches them by itself.
            Self::Run(run, row) => {
                let numbers = run.first_after(row, after)?..row.numbers().end;
                return run.visit(numbers, stream, &mut |frame| {
                    if is_after(&frame, after) { visit(frame) } else { ControlFlow::Continue(()) }
                });
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[cold]
fn bad_frame(segment: &Segment, offset: u64, reject: Reject) -> ReadError {
    frame_damage(segment, offset, reject).into()
}

/// Does a frame hold events after `after`?
#[inline]
fn is_after(frame: &Frame<'_>, after: Seq) -> bool {
    frame.seq() > after || last_event(frame) > after
}

/// Frames that lie far apart in one segment.
pub(super) struct Scattered<'a> {
    map: &'a SegmentMap,
    places: &'a [Place],
}

/// How many frames of a stream are on their way from memory while one is checked: one after the
/// other each would be waited for.
const AHEAD: usize = 10;
/// How much of each. What is longer is read in order, which the processor notices.
const AHEAD_BYTES: usize = 176;

/// Has the frames that will be read soon fetched from memory.
pub(super) struct Ahead<'a> {
    spots: std::vec::IntoIter<Scattered<'a>>,
    map: Option<&'a SegmentMap>,
    places: std::slice::Iter<'a, Place>,
}

impl<'a> Ahead<'a> {
    /// Begins to fetch.
    pub(super) fn begin(spots: Vec<Scattered<'a>>) -> Self {
        let mut ahead = Self { spots: spots.into_iter(), map: None, places: [].iter() };
        (0..AHEAD).for_each(|_| ahead.fetch());
        ahead
    }

    /// One more. Called once for each frame that is read.
    #[inline]
    fn fetch(&mut self) {
        loop {
            if let (Some(map), Some(place)) = (self.map, self.places.next()) {
                map.prefetch(to_usize(offset_of(*place)), AHEAD_BYTES);
                return;
            }
            let Some(next) = self.spots.next() else { return };
            (self.map, self.places) = (Some(next.map), next.places.iter());
        }
    }
}
