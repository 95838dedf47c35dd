//! The frames of several pieces of a log, stream by stream, oldest first.

use std::ops::Range;
use std::sync::Arc;

use super::Shared;
use super::chain::Piece;
use super::checkpoint::Totals;
use super::frame::{Frame, FrameKind};
use super::index::after;
use super::read::{begins_stream, events_in, frame_damage, read_frame};
use super::run::Origin;
use super::run_file::Run;
use super::segment::{FIRST_FRAME, Segment};
use crate::disk::Disk;
use crate::error::{Damage, DamageReason, ReadError};
use crate::types::{FRAME_ALIGN, Seq, StreamId, to_usize};

/// A piece, its streams in order, and which of them is next.
#[derive(Debug)]
pub(super) struct Source {
    of: Of,
    number: usize,
    streams: usize,
    head: Option<StreamId>,
    /// Frames of streams that were handed out, and those that there are.
    seen: u64,
    users: u64,
    /// Of everything in it.
    pub totals: Totals,
    /// Frames that retention has dropped before.
    pub dropped: u64,
    /// And they were below this position.
    pub gone: u64,
    pub origins: Vec<Origin>,
    /// What crashes took back.
    pub lost: Vec<Range<u64>>,
}

#[derive(Debug)]
enum Of {
    Segment {
        segment: Arc<Segment>,
        /// Of an index that is in no order.
        sorted: Option<Vec<StreamId>>,
    },
    Run(Arc<Run>),
}

impl Source {
    /// Opens a piece. A segment is read through once: what its index says is believed only as far
    /// as it agrees with that.
    ///
    /// # Errors
    /// The file system's, and damage.
    pub(super) fn open(disk: &dyn Disk, piece: &Piece) -> Result<Self, ReadError> {
        let mut source = match piece {
            Piece::Segment(segment) => Self::of_segment(disk, segment)?,
            Piece::Run(run) => Self::of_run(run)?,
        };
        source.head = source.at(0);
        Ok(source)
    }

    fn of_segment(disk: &dyn Disk, segment: &Arc<Segment>) -> Result<Self, ReadError> {
        let walked = walk(segment)?;
        let mut index = segment.index.lock();
        segment.catch_up(disk, &mut index)?;
        let (streams, sorted) = (index.streams(), index.sorted());
        drop(index);
        Ok(Self {
            of: Of::Segment { segment: Arc::clone(segment), sorted },
            number: 0,
            streams,
            head: None,
            seen: 0,
            users: walked.users,
            totals: walked.totals,
            dropped: 0,
            gone: 0,
            origins: walked.origins,
            lost: Vec::new(),
        })
    }

    fn of_run(run: &Arc<Run>) -> Result<Self, ReadError> {
        let table = run.table()?;
        Ok(Self {
            number: 0,
            streams: table.rows(),
            head: None,
            seen: 0,
            users: table.carried() as u64,
            totals: run.header.totals,
            dropped: run.header.dropped,
            gone: run.header.gone(),
            origins: table.origins().collect(),
            lost: table.lost().collect(),
            of: Of::Run(Arc::clone(run)),
        })
    }

    /// Frames of streams in it.
    pub(super) fn users(&self) -> u64 {
        self.users
    }

    fn at(&self, number: usize) -> Option<StreamId> {
        match &self.of {
            Of::Segment { sorted: Some(sorted), .. } => sorted.get(number).copied(),
            Of::Segment { segment, sorted: None } => segment.index.lock().stream(number),
            Of::Run(run) => run.table().ok()?.row(number).map(|row| row.stream),
        }
    }

    /// Hands over the frames of `stream`, if that is next, and steps to the next one. Answers the
    /// last event that was dropped here. `last` is the position of the last frame, and rises.
    ///
    /// # Errors
    /// The file system's, damage, and what the sink answers.
    fn take(
        &mut self,
        stream: StreamId,
        last: &mut u64,
        sink: &mut dyn Sink,
    ) -> Result<Seq, ReadError> {
        let mut dropped = Seq::ZERO;
        if self.head != Some(stream) {
            return Ok(dropped);
        }
        let mut seen = 0;
        let mut hand_over = |frame: &Frame<'_>| {
            let lsn = frame.lsn().get();
            // So that no frame is counted twice in the place of another.
            if lsn <= *last {
                return Err(self.damaged("its frames are in no order"));
            }
            *last = lsn;
            seen += 1;
            sink.frame(stream, frame)
        };
        match &self.of {
            Of::Segment { segment, .. } => {
                let places = segment.index.lock().places(stream).unwrap_or_default();
                for place in &places.offsets {
                    let offset = u64::from(*place) * FRAME_ALIGN as u64;
                    hand_over(&Shared::frame_at(segment, (offset, places.life), stream)?)?;
                }
            }
            Of::Run(run) => {
                if let Some(row) = run.row(stream)? {
                    dropped = row.dropped;
                    for number in row.numbers() {
                        hand_over(&run.frame_of(number, stream)?)?;
                    }
                }
            }
        }
        self.seen += seen;
        self.number += 1;
        self.head = self.at(self.number);
        if self.head.is_some_and(|head| head <= stream) {
            return Err(self.damaged("its streams are in no order"));
        }
        Ok(dropped)
    }

    /// Has everything been handed out that is in it?
    ///
    /// # Errors
    /// Damage: a table that leaves frames out.
    fn finish(&self) -> Result<(), ReadError> {
        if self.number == self.streams && self.seen == self.users {
            Ok(())
        } else {
            Err(self.damaged("it does not name all frames"))
        }
    }

    fn damaged(&self, reason: &'static str) -> ReadError {
        match &self.of {
            Of::Run(run) => run.damaged(reason).into(),
            Of::Segment { segment, .. } => ReadError::Damage(Damage {
                file: segment.path.with_extension("idx"),
                offset: 0,
                lsns: segment.header.base..segment.header.limit(),
                reason: DamageReason::Table(reason),
            }),
        }
    }
}

/// Who is handed the frames of several pieces.
pub(super) trait Sink {
    /// The next frame of `stream`.
    ///
    /// # Errors
    /// Whatever ends the merge.
    fn frame(&mut self, stream: StreamId, frame: &Frame<'_>) -> Result<(), ReadError>;

    /// There are no more of `stream`. `dropped` is the last of its events that is known to have
    /// been dropped before.
    fn end(&mut self, stream: StreamId, dropped: Seq);
}

/// Hands all frames of `sources`, which follow each other, to `sink`: stream by stream, and each
/// stream's from old to new.
///
/// # Errors
/// The file system's, damage, and what the sink answers.
pub(super) fn merge(sources: &mut [Source], sink: &mut dyn Sink) -> Result<(), ReadError> {
    while let Some(stream) = sources.iter().filter_map(|source| source.head).min() {
        let mut dropped = Seq::ZERO;
        let mut last = 0;
        for source in &mut *sources {
            dropped = dropped.max(source.take(stream, &mut last, sink)?);
        }
        sink.end(stream, dropped);
    }
    sources.iter().try_for_each(Source::finish)
}

/// What reading a segment through has shown.
struct Walked {
    totals: Totals,
    origins: Vec<Origin>,
    users: u64,
}

/// Checks every frame of a sealed segment.
fn walk(segment: &Segment) -> Result<Walked, ReadError> {
    let base = segment.header.base;
    let end = segment.end().unwrap_or(segment.header.limit()) - base;
    let mut life = segment.header.life;
    let mut walked = Walked {
        totals: Totals::default(),
        origins: vec![Origin { from: base, base, life }],
        users: 0,
    };
    let bytes = segment.opened()?.map.bytes();
    let mut offset = FIRST_FRAME;
    while offset < end {
        let rest = bytes.get(to_usize(offset)..).unwrap_or_default();
        let (frame, at) = read_frame(rest, offset, segment.salt(life))
            .map_err(|reject| frame_damage(segment, offset, reject))?;
        if at != life {
            life = at;
            walked.origins.push(Origin { from: base + offset, base, life });
        }
        let header = frame.header();
        let events = events_in(&frame);
        walked.totals.frames += 1;
        walked.totals.events += events;
        walked.totals.streams += u64::from(begins_stream(&frame));
        walked.users += u64::from(header.stream != StreamId::SYSTEM);
        debug_assert!(header.length.is_multiple_of(FRAME_ALIGN), "frames are aligned");
        if header.kind == FrameKind::Seal {
            break;
        }
        offset = after(&header, offset);
    }
    Ok(walked)
}
