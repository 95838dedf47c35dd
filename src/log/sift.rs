//! Sifting a segment: every frame that validates, and the ranges in which none does. The walk of
//! an open, taken up again behind what it stopped at.

use std::ops::{ControlFlow, Range};

use super::frame::{Frame, FrameKind};
use super::links::Link;
use super::scan::{Place, Source, seek, walk};
use crate::disk::PAGE_U64;
use crate::error::{DiskError, Reject};
use crate::types::{FRAME_ALIGN, Life};

/// A range of a segment's file in which frames stood and none is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub offsets: Range<u64>,
    pub reject: Reject,
}

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Sifted {
    /// Behind the last valid frame.
    pub place: Place,
    /// It ends with its `Seal`.
    pub sealed: bool,
    pub bad: Vec<Bad>,
    pub frames: u64,
    pub bytes: u64,
}

/// Shows `see` every valid frame of `link` below `limit`, an offset, with its life, from the
/// first on. `lives` are those whose frames there may be; lives that begin here are added.
pub(super) fn sift(
    source: &mut dyn Source,
    link: &Link,
    (log, lives): (u64, &mut Vec<Life>),
    (from, limit): (Place, u64),
    see: &mut dyn FnMut(&Frame<'_>, Life),
) -> Result<Sifted, DiskError> {
    let base = link.header.base;
    // A segment that ends at its seal has no end of its own: the walk knows it by that.
    let end = (limit < link.header.bytes).then_some(base + limit);
    let alone = Link { end: link.end.or(end), ..link.clone() };
    let mut place = Place { number: 0, ..from };
    let mut sifted = Sifted { place, sealed: false, bad: Vec::new(), frames: 0, bytes: 0 };
    loop {
        let mut life = place.life;
        let mut last = None;
        let walked = walk(source, std::slice::from_ref(&alone), log, place, &mut |_, frame| {
            life = opened_by(frame).unwrap_or(life);
            if !lives.contains(&life) {
                lives.push(life);
            }
            last = Some(frame.header().kind);
            see(frame, life);
        })?;
        sifted.frames += walked.frames;
        sifted.bytes += walked.bytes;
        sifted.place = walked.place;
        sifted.sealed = last == Some(FrameKind::Seal);
        let Place { offset, closed, .. } = walked.place;
        let start = if closed { offset.next_multiple_of(PAGE_U64) } else { offset };
        if sifted.sealed || offset >= limit || start >= limit {
            return Ok(sifted);
        }
        let mut next = None;
        let behind = start + FRAME_ALIGN as u64..limit;
        seek(source, link, (log, lives), behind, &mut |frame, life| {
            next = Some((frame.lsn().get() - base, life));
            ControlFlow::Break(())
        })?;
        let offsets = start..next.map_or(limit, |(offset, _)| offset);
        sifted.bad.push(Bad { offsets, reject: walked.reject });
        let Some((offset, life)) = next else { return Ok(sifted) };
        place = Place { number: 0, offset, life, closed: false };
    }
}

/// The life that a `Life` frame opens.
pub(super) fn opened_by(frame: &Frame<'_>) -> Option<Life> {
    if frame.header().kind != FrameKind::Life {
        return None;
    }
    let (number, rest) = frame.body().split_first_chunk::<8>()?;
    let (bits, _) = rest.split_first_chunk::<8>()?;
    Some(Life { number: u64::from_le_bytes(*number), bits: u64::from_le_bytes(*bits) })
}
