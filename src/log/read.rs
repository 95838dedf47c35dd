//! Reading: the whole log in order, or one stream.
//!
//! A frame is borrowed from its segment's map and is checked before it is handed out, each time.
//! What is written and not yet stored is stored first. Of a poisoned log nothing above the
//! durable mark is served.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::chain::Piece;
use super::checkpoint::Totals;
use super::frame::{Frame, FrameKind, HEADER, Header, Record, RecordKind, Salt};
use super::index::{Index, Place, Places, after, offset_of};
use super::rule::{Rule, holds};
use super::run_file::{InRun, Run};
use super::segment::{FIRST_FRAME, Segment};
use super::spot::{Ahead, InSegment, Spot};
use super::write::FIRST_SEQ;
use super::{Closing, Log, Shared, name};
use crate::disk::PAGE_U64;
use crate::error::{Damage, DamageReason, ReadError, Reject};
use crate::types::{FRAME_ALIGN, Life, Lsn, Seq, StreamId, to_usize};

/// How far a reader goes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// To the end of what is written.
    Written,
    /// To the end of what is on disk.
    Durable,
}

/// Where a stream stands.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamEnd {
    /// Its last event; [`Seq::ZERO`] if it has none.
    pub last: Seq,
    /// The mark that covers its last frame.
    pub end: Option<Lsn>,
    /// Events up to this one may have been dropped by retention, all but those of the first
    /// frame; [`Seq::ZERO`] if none were.
    pub dropped: Seq,
}

/// Reads frames in the order of the log. See [`Log::frames`].
#[derive(Debug)]
pub struct Frames {
    shared: Arc<Shared>,
    limit: Limit,
    /// Where it is, if that is in a run.
    run: Option<InRun>,
    /// Where it is, if that is in a segment.
    segment: Option<Arc<Segment>>,
    /// Where the next frame begins.
    offset: u64,
    life: Life,
    /// Frames in this segment that begin below may be read without looking further.
    ready: u64,
    /// The last frame was a `Seal`.
    sealed: bool,
    /// Offset and length of the frame that was stepped to.
    current: Option<(u64, usize)>,
    /// Below this position something may be missing of what it should have come by.
    gone: u64,
}

/// What there is at a reader's place.
enum Look {
    /// A frame of the segment that it is in.
    Ready,
    /// It has stepped to a frame of a run.
    Stepped,
    /// Nothing yet.
    End,
}

impl Frames {
    /// The next frame; `None` at the end, which may move: ask again.
    ///
    /// # Errors
    /// See [`ReadError`]; the reader stays where it is.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "it lends: a frame borrows from its reader")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        if self.advance()? { self.current() } else { Ok(None) }
    }

    /// Position of the next frame.
    pub fn position(&self) -> u64 {
        if let Some(inside) = &self.run {
            return inside.position();
        }
        self.segment.as_ref().map_or(0, |segment| segment.header.base + self.offset)
    }

    /// Retention has dropped frames at or behind where the reader was or is, all of them below
    /// this position; 0: it has not, as far as the reader has come.
    pub fn gone(&self) -> u64 {
        self.gone
    }

    /// No frame will come any more.
    pub(super) fn closed(&self) -> bool {
        self.shared.append.lock().closing == Closing::Closed
    }

    /// Steps to the next frame; `false` if there is none yet.
    #[inline]
    pub(super) fn advance(&mut self) -> Result<bool, ReadError> {
        if self.offset >= self.ready || self.shared.poison.get().is_some() {
            match self.look()? {
                Look::Ready => {}
                Look::Stepped => return Ok(true),
                Look::End => return Ok(false),
            }
        }
        let Some(segment) = &self.segment else { return Ok(false) };
        let rest = segment.opened()?.map.bytes().get(to_usize(self.offset)..).unwrap_or_default();
        match Frame::read(rest, self.offset, segment.salt(self.life)) {
            Ok(frame) if matches!(frame.header().kind, FrameKind::Single | FrameKind::Records) => {
                let length = frame.bytes().len();
                self.current = Some((self.offset, length));
                self.offset += length as u64;
                Ok(true)
            }
            Ok(_) | Err(_) => self.step_over_system(),
        }
    }

    /// Steps to a frame of the log itself, which may end a page, a segment or a life.
    #[cold]
    fn step_over_system(&mut self) -> Result<bool, ReadError> {
        let Some(segment) = &self.segment else { return Ok(false) };
        let rest = segment.opened()?.map.bytes().get(to_usize(self.offset)..).unwrap_or_default();
        let (frame, life) = read_frame(rest, self.offset, segment.salt(self.life))
            .map_err(|reject| frame_damage(segment, self.offset, reject))?;
        let header = frame.header();
        let next = after(&header, self.offset);
        self.current = Some((self.offset, header.length));
        // A closed segment that nobody went on in ends with its Close frame.
        self.offset = segment.end().map_or(next, |end| next.min(end - segment.header.base));
        self.sealed = header.kind == FrameKind::Seal;
        if self.sealed {
            self.ready = 0;
        }
        self.life = life;
        Ok(true)
    }

    /// Sees whether there is a frame at `offset`, or where the next one is; notes how far frames
    /// are ready. `false` if there is none yet.
    #[cold]
    fn look(&mut self) -> Result<Look, ReadError> {
        loop {
            if let Some(inside) = &mut self.run {
                if inside.advance()? {
                    return Ok(Look::Stepped);
                }
                let limit = inside.limit();
                if !self.enter_from(limit) {
                    return Ok(Look::End);
                }
                continue;
            }
            let Some(segment) = &self.segment else {
                if !self.enter_from(0) {
                    return Ok(Look::End);
                }
                continue;
            };
            let base = segment.header.base;
            let own_end = segment.end();
            let position = base + self.offset;
            if self.sealed || own_end == Some(position) {
                // By position: what followed may have gone into a run meanwhile.
                let limit = segment.header.limit();
                if !self.enter_from(limit) {
                    return Ok(Look::End);
                }
                continue;
            }
            let end = self.shared.end(self.limit);
            if position >= end {
                self.ready = 0;
                return Ok(Look::End);
            }
            let map = &segment.opened()?.map;
            if map.bytes().len() as u64 <= self.offset {
                self.shared.drain(self.shared.written.load(Ordering::Acquire))?;
            }
            // What is published ends with a frame, and so do the marks.
            self.ready = (map.bytes().len() as u64)
                .min(end - base)
                .min(own_end.map_or(u64::MAX, |end| end - base));
            return Ok(Look::Ready);
        }
    }

    /// Enters the first piece that has positions at or above `position`, if there is one.
    fn enter_from(&mut self, position: u64) -> bool {
        let piece = self.shared.chain.read().first_from(position);
        match piece {
            None => return false,
            Some(Piece::Segment(segment)) => {
                self.offset = FIRST_FRAME;
                self.life = segment.header.life;
                self.run = None;
                self.segment = Some(segment);
            }
            Some(Piece::Run(run)) => self.enter_run(run, position),
        }
        self.ready = 0;
        self.sealed = false;
        self.current = None;
        true
    }

    /// Goes on at the first frame of `run` at or behind `position`.
    fn enter_run(&mut self, run: Arc<Run>, position: u64) {
        self.segment = None;
        self.ready = 0;
        let gone = run.header.gone();
        if gone > position {
            self.gone = self.gone.max(gone);
        }
        self.run = Some(InRun::new(run, position));
    }

    /// The frame that `advance` stepped to.
    #[inline]
    pub(super) fn current(&self) -> Result<Option<Frame<'_>>, ReadError> {
        if let Some(inside) = &self.run {
            return inside.current();
        }
        let (Some((offset, length)), Some(segment)) = (self.current, &self.segment) else {
            return Ok(None);
        };
        let start = to_usize(offset);
        let bytes = segment.opened()?.map.bytes().get(start..start + length);
        Ok(bytes.map(|bytes| Frame::checked_before(segment.header.base + offset, bytes)))
    }
}

/// The frame at the beginning of `bytes`, which stands at `offset`, where `salt` is what the
/// frames before had; and the life that it is of: a `Life` frame brings its own.
#[inline]
pub(super) fn read_frame(
    bytes: &[u8],
    offset: u64,
    salt: Salt,
) -> Result<(Frame<'_>, Life), Reject> {
    match Frame::read(bytes, offset, salt) {
        Ok(frame) => Ok((frame, salt.life)),
        Err(reject) => {
            Frame::read_life(bytes, offset, salt.log, salt.base).map_err(|_no_life_frame| reject)
        }
    }
}

pub(super) fn frame_damage(segment: &Segment, offset: u64, reject: Reject) -> Damage {
    let at = segment.header.base + offset;
    Damage {
        file: segment.path.clone(),
        offset,
        lsns: at..at + FRAME_ALIGN as u64,
        reason: DamageReason::Frame(reject),
    }
}

pub(super) fn events_in(frame: &Frame<'_>) -> u64 {
    match frame.header().kind {
        FrameKind::Single => 1,
        FrameKind::Records => frame
            .records()
            .filter(|record| matches!(record, Ok(record) if record.kind.is_numbered()))
            .count() as u64,
        FrameKind::Seal | FrameKind::Close | FrameKind::Life => 0,
    }
}

/// Does it begin a stream, and not one of Annals' own?
pub(super) fn begins_stream(frame: &Frame<'_>) -> bool {
    let own = |it: Record<'_>| it.kind == RecordKind::Name && name::is_own(it.payload);
    frame.header().seq == FIRST_SEQ
        && events_in(frame) > 0
        && (frame.header().kind == FrameKind::Single || !frame.records().flatten().any(own))
}

/// Number of the last event in a frame.
pub(super) fn last_event(frame: &Frame<'_>) -> Seq {
    let events = events_in(frame);
    let first = frame.header().seq;
    // A frame without events (a snapshot's) stands for the number it carries.
    first.checked_add(events.saturating_sub(1)).unwrap_or(Seq::MAX)
}

impl Shared {
    /// Where readers stop.
    pub(super) fn end(&self, limit: Limit) -> u64 {
        match (limit, self.poison.get().filter(|_| holds(Rule::PoisonHides))) {
            (Limit::Written, None) => self.written.load(Ordering::Acquire),
            (Limit::Durable, _) | (_, Some(_)) => self.durable.load(Ordering::Acquire),
        }
    }

    /// Sees to it that the indexes know all frames that `stream` has now.
    pub(super) fn ensure_indexed(&self, stream: StreamId) -> Result<(), ReadError> {
        let mut indexed = self.recent.indexed();
        if !self.recent.contains(stream) {
            return Ok(());
        }
        let written = {
            let _appender = self.append.lock();
            self.recent.clear();
            self.written.load(Ordering::Acquire)
        };
        let caught_up = self.catch_up(*indexed, written);
        match &caught_up {
            Ok(()) => *indexed = written,
            // The next one who asks tries again.
            Err(_) => self.recent.fill(),
        }
        caught_up
    }

    fn catch_up(&self, from: u64, written: u64) -> Result<(), ReadError> {
        if self.poison.get().is_none() {
            self.drain(written)?;
        }
        let segments = self.chain.read().between(from..written);
        for segment in segments {
            segment.catch_up(&*self.disk, &mut segment.index.lock())?;
        }
        Ok(())
    }

    /// The piece that holds the frame that was once given `position`, or did.
    ///
    /// # Errors
    /// [`ReadError::PositionLost`] where no frame can be.
    pub(super) fn locate(&self, position: u64) -> Result<Piece, ReadError> {
        let find = || self.chain.read().locate(position, self.written.load(Ordering::Acquire));
        let found = find()?;
        if let Piece::Segment(segment) = &found
            && segment.end() == Some(segment.header.limit())
            && segment.catch_up(&*self.disk, &mut segment.index.lock()).is_ok()
        {
            // Now it is known where its `Seal` is.
            return find();
        }
        Ok(found)
    }

    /// What is in the log from `from` up to this life's first frame.
    pub(super) fn count(&self, from: u64) -> Result<Totals, ReadError> {
        let mut totals = Totals::default();
        let segments = self.chain.read().between(from..self.first);
        for segment in segments {
            let opened = segment.opened()?;
            let mut index = segment.index.lock();
            let start = from.saturating_sub(segment.header.base).max(FIRST_FRAME);
            if start != FIRST_FRAME {
                segment.catch_up(&*self.disk, &mut index)?;
            }
            let mut life = index.life_at(start).unwrap_or(segment.header.life);
            drop(index);
            let mut offset = start;
            let bytes = opened.map.bytes();
            let here = bytes.get(to_usize(start)..).unwrap_or_default();
            if read_frame(here, start, segment.salt(life)).is_err() {
                // Behind a `Close` frame.
                offset = start.next_multiple_of(PAGE_U64);
            }
            let end = self.first.min(segment.header.limit()) - segment.header.base;
            while offset < end {
                let rest = bytes.get(to_usize(offset)..).unwrap_or_default();
                if rest.is_empty() {
                    break;
                }
                let (frame, at) = read_frame(rest, offset, segment.salt(life))
                    .map_err(|reject| frame_damage(&segment, offset, reject))?;
                let events = events_in(&frame);
                totals.frames += 1;
                totals.events += events;
                totals.streams += u64::from(begins_stream(&frame));
                life = at;
                if frame.header().kind == FrameKind::Seal {
                    break;
                }
                offset = after(&frame.header(), offset);
            }
        }
        Ok(totals)
    }

    /// Where `stream` is in `pieces`, newest first, back to the event after `after`.
    fn places<'a>(
        &self,
        pieces: &'a [Piece],
        stream: StreamId,
        after: Seq,
    ) -> Result<Vec<Spot<'a>>, ReadError> {
        let mut found = Vec::with_capacity(pieces.len());
        if after == Seq::ZERO {
            // All of them will be asked: so that not one after the other is waited for.
            for piece in pieces {
                if let Piece::Segment(segment) = piece
                    && let Some(mapped) = segment.mapped.get()
                {
                    mapped.prefetch(stream);
                }
            }
        }
        for piece in pieces.iter().rev() {
            let Some(spot) = self.spot_in(piece, stream)? else { continue };
            let first = spot.first();
            found.push(spot);
            if first.get() <= after.get() + 1 {
                break;
            }
        }
        Ok(found)
    }

    pub(super) fn spot_in<'a>(
        &self,
        piece: &'a Piece,
        stream: StreamId,
    ) -> Result<Option<Spot<'a>>, ReadError> {
        Ok(match piece {
            Piece::Segment(segment) => self.spot_in_segment(segment, stream)?.map(Spot::Segment),
            Piece::Run(run) => run.row(stream)?.map(|row| Spot::Run(run, row)),
        })
    }

    fn spot_in_segment<'a>(
        &self,
        segment: &'a Segment,
        stream: StreamId,
    ) -> Result<Option<InSegment<'a>>, ReadError> {
        if segment.mapped.get().is_none() {
            let mut index = segment.index.lock();
            // Also where it was begun: one that met damage is not whole, and says so each time.
            if segment.end().is_some() {
                segment.catch_up(&*self.disk, &mut index)?;
            }
            if !matches!(*index, Index::Mapped(_)) {
                let places = index.places(stream).filter(|places| !places.offsets.is_empty());
                return Ok(places.map(|Places { first, offsets, life }| {
                    let places = offsets.into_iter().map(u32::to_le_bytes).collect();
                    InSegment { segment, first, places: Cow::Owned(places), life }
                }));
            }
        }
        let Some(mapped) = segment.mapped.get() else { return Ok(None) };
        let found = mapped.find(stream).filter(|(_, places)| !places.is_empty());
        Ok(found.map(|(first, places)| {
            let life = mapped.only_life();
            InSegment { segment, first, places: Cow::Borrowed(places), life }
        }))
    }

    /// The frame of `stream` at one of its places.
    pub(super) fn frame_at(
        segment: &Segment,
        (offset, life): (u64, Option<Life>),
        stream: StreamId,
    ) -> Result<Frame<'_>, ReadError> {
        let salt = life.map_or_else(|| Self::salt_at(segment, offset), |life| segment.salt(life));
        let bytes = segment.opened()?.map.bytes();
        let rest = bytes.get(to_usize(offset)..).unwrap_or_default();
        match Frame::read(rest, offset, salt) {
            Ok(frame) if frame.stream() == stream => Ok(frame),
            Ok(_other) => Err(frame_damage(segment, offset, Reject::Records).into()),
            Err(reject) => Err(frame_damage(segment, offset, reject).into()),
        }
    }

    /// What makes the checksum of the frame at `offset`, where the segment knows several lives.
    pub(super) fn salt_at(segment: &Segment, offset: u64) -> Salt {
        segment.salt(segment.index.lock().life_at(offset).unwrap_or(segment.header.life))
    }

    /// The first of `places` whose frame holds events after `after`.
    pub(super) fn first_after(
        segment: &Segment,
        places: &[Place],
        after: Seq,
    ) -> Result<usize, ReadError> {
        if after == Seq::ZERO {
            return Ok(0);
        }
        let bytes = segment.opened()?.map.bytes();
        let begins_after = |place: &Place| {
            let start = to_usize(offset_of(*place));
            // What does not parse is looked at again, and checked, when it is read.
            Header::read(bytes.get(start..).unwrap_or_default())
                .is_ok_and(|header| header.seq > after)
        };
        Ok(places.partition_point(|place| !begins_after(place)).saturating_sub(1))
    }
}

impl Log {
    /// Reads all frames from the one at `from` on, system frames included. `0` is the beginning.
    ///
    /// # Errors
    /// [`ReadError::PositionLost`] where no frame is or will be at `from`.
    pub fn frames(&self, from: u64, limit: Limit) -> Result<Frames, ReadError> {
        let shared = Arc::clone(&self.shared);
        let mut frames = Frames {
            shared,
            limit,
            run: None,
            segment: None,
            offset: FIRST_FRAME,
            life: Life { number: 0, bits: 0 },
            ready: 0,
            sealed: false,
            current: None,
            gone: 0,
        };
        if from == 0 {
            return Ok(frames);
        }
        let end = self.written();
        let found = {
            let chain = self.shared.chain.read();
            if from == end {
                chain.writing_at(from).map(|(segment, _)| segment)
            } else {
                // A mark that stood at the end of a life that crashed or was closed.
                let ends = |segment: &&Arc<Segment>| segment.end() == Some(from);
                chain.segments().iter().find(ends).cloned()
            }
        };
        let located = match found {
            Some(segment) => Some(segment),
            None if from == end => None,
            None => match self.shared.locate(from) {
                Ok(Piece::Segment(segment)) => Some(segment),
                Ok(Piece::Run(run)) => {
                    // As above: where something was lost, a mark may stand before it.
                    let lost = run.lost_at(from)?.filter(|lost| lost.start < from);
                    if let Some(lost) = lost {
                        return Err(ReadError::PositionLost { lsn: from, lost });
                    }
                    frames.enter_run(run, from);
                    None
                }
                // Behind the `Seal` frame, now that it is known where that ends.
                Err(ReadError::PositionLost { lost, .. }) if lost.start == from => {
                    frames.enter_from(lost.end);
                    None
                }
                Err(lost) => return Err(lost),
            },
        };
        if let Some(segment) = located {
            frames.offset = from - segment.header.base;
            frames.life = self.life_at(&segment, frames.offset)?;
            frames.segment = Some(segment);
            self.step_over_end(&mut frames)?;
        }
        Ok(frames)
    }

    fn life_at(&self, segment: &Segment, offset: u64) -> Result<Life, ReadError> {
        if offset == FIRST_FRAME {
            return Ok(segment.header.life);
        }
        let mut index = segment.index.lock();
        if index.life_at(offset).is_none() || segment.end().is_none() {
            if self.poisoned().is_none() {
                self.store()?;
            }
            segment.catch_up(&*self.shared.disk, &mut index)?;
        }
        Ok(index.life_at(offset).unwrap_or(segment.header.life))
    }

    /// A mark taken at close stands behind the `Close` frame, and the next life goes on at the
    /// next page. One that stands behind a `Seal` frame goes on in the next segment.
    fn step_over_end(&self, frames: &mut Frames) -> Result<(), ReadError> {
        let Some(segment) = &frames.segment else { return Ok(()) };
        let bytes = segment.opened()?.map.bytes();
        let at = |offset: u64| bytes.get(to_usize(offset)..).unwrap_or_default();
        let salt = segment.salt(frames.life);
        if Frame::read(at(frames.offset), frames.offset, salt).is_ok() {
            return Ok(());
        }
        let page = frames.offset.next_multiple_of(PAGE_U64);
        let (log, base) = (self.shared.id, segment.header.base);
        if page != frames.offset && Frame::read_life(at(page), page, log, base).is_ok() {
            frames.offset = page;
            return Ok(());
        }
        let before = frames.offset.saturating_sub(HEADER as u64);
        frames.sealed = Frame::read(at(before), before, salt)
            .is_ok_and(|frame| frame.header().kind == FrameKind::Seal);
        Ok(())
    }

    /// Visits the frames of `stream` that hold events after `after`, in order. The first may
    /// begin with events at or before it. `Break` ends the visits.
    ///
    /// # Errors
    /// See [`ReadError`]; frames before the error were visited.
    pub fn stream(
        &self,
        stream: StreamId,
        after: Seq,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<StreamEnd, ReadError> {
        let shared = &*self.shared;
        shared.ensure_indexed(stream)?;
        let pieces = shared.chain.read().pieces();
        let mut found = shared.places(&pieces, stream, after)?;
        if self.poisoned().is_some() {
            let durable = self.durable();
            for spot in &mut found {
                spot.retain_below(durable);
            }
        }
        let dropped = found.iter().map(Spot::dropped).max().unwrap_or(Seq::ZERO);
        found.retain(|spot| spot.count() > 0);
        let Some(newest) = found.first() else {
            return Ok(StreamEnd { last: dropped, end: None, dropped });
        };
        let last = newest.last(stream)?;
        // The last event may be one of those that were dropped.
        let end =
            StreamEnd { last: last_event(&last).max(dropped), end: Lsn::new(last.end()), dropped };
        let mut scattered = Vec::with_capacity(found.len());
        for spot in found.iter().rev() {
            scattered.extend(spot.scattered(after)?);
        }
        let mut ahead = Ahead::begin(scattered);
        for spot in found.iter().rev() {
            if spot.visit(stream, after, &mut ahead, visit)?.is_break() {
                break;
            }
        }
        Ok(end)
    }

    /// Visits the frames of `stream`, newest first, until `Break`. For streams whose frames
    /// stand alone, as snapshots do.
    ///
    /// # Errors
    /// As for [`stream`](Self::stream); a frame that does not validate is answered to `visit` as
    /// an error instead, and the visits go on.
    pub fn stream_newest(
        &self,
        stream: StreamId,
        visit: &mut dyn FnMut(Result<Frame<'_>, ReadError>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let shared = &*self.shared;
        shared.ensure_indexed(stream)?;
        let pieces = shared.chain.read().pieces();
        for piece in pieces.iter().rev() {
            let Some(spot) = shared.spot_in(piece, stream)? else { continue };
            for number in (0..spot.count()).rev() {
                if visit(spot.frame(number, stream)).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
