//! Reading a log that somebody else may write: with `pread`, checked after the copy, and never
//! through a map of a file that another process changes. Nothing is written and no lock taken.
//!
//! A frame is where the checksum says so: in its segment, or not yet there and in the ring. What
//! is in neither is "not yet", unless it had been durable before it was looked for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::LogOptions;
use super::checkpoint::{Checkpoint, Testimony, Totals};
use super::finding::{Finding, Severity, What};
use super::frame::{Frame, FrameKind, Salt};
use super::index::Mapped;
use super::links::{Link, Pieces, find, link};
use super::look::{Known, Look, look};
use super::mark::{self, Mark};
use super::read::{begins_stream, events_in, read_frame};
use super::recover::{self, Ending, Evidence};
use super::run_file::Run;
use super::scan::{Place, RingFileSource, SegmentSource, Source, enter, seek, whole_frame};
use super::segment::{SegmentHeader, file_path};
use super::slots;
use super::verify::read_finding;
use crate::disk::{Access, Disk, PAGE_U64};
use crate::error::{DiskError, OpenError, Reject};
use crate::types::{FRAME_ALIGN, Life, StreamId};

/// A log as it is found, without owning it.
#[derive(Debug)]
pub struct LogView {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: LogOptions,
    pub(super) id: u64,
    pub(super) look: Look,
    /// What compaction has put in the place of the oldest segments.
    pub(super) runs: Vec<Arc<Run>>,
}

/// A segment of a log, from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its file.
    pub path: PathBuf,
    /// Position of its first byte.
    pub base: u64,
    /// Size of the file.
    pub bytes: u64,
    /// The life that made it.
    pub life: Life,
    /// Where the log left it, where a recovery says so or it is the last one.
    pub end: Option<u64>,
}

/// What a cursor comes upon.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A frame, checked.
    Frame(Frame<'a>),
    /// A place where frames had been and none is valid. The cursor goes on behind it.
    Bad(Finding),
}

impl LogView {
    /// Looks at the log `id` in `options.dir`. `evidence` is what is known from elsewhere, `lives`
    /// are some that wrote it.
    ///
    /// # Errors
    /// The file system's; another version's files. Damage is none: see
    /// [`findings`](Self::findings).
    pub fn open(
        disk: &Arc<dyn Disk>,
        options: &LogOptions,
        id: u64,
        (evidence, lives): (Evidence, &[Life]),
    ) -> Result<Self, OpenError> {
        let Evidence { durable, killed } = evidence;
        let known = Known { durable, killed, lives: lives.to_vec() };
        let look = look(disk, options, id, &known)?;
        let runs = look.survey.runs.iter();
        let runs = runs.map(|run| Run::existing(disk, &options.dir, *run)).collect();
        Ok(Self { disk: Arc::clone(disk), options: options.clone(), id, look, runs })
    }

    /// What is wrong, as far as an open would notice. [`verify`](crate::Store) reads everything.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.look.findings.clone();
        findings.extend(self.look.end_finding());
        findings
    }

    /// What segments lack although it had been durable, and the ring has: the next open writes it
    /// back. Of a log that nobody writes.
    pub(crate) fn in_ring_alone(&self) -> Option<Finding> {
        let survey = &self.look.survey;
        let (base, offset, _) = survey.in_ring().into_iter().next()?;
        let link = self.look.chain.iter().find(|link| link.header.base == base)?;
        let lsns = base + offset..survey.facts.end;
        let finding = Finding::file(&link.path, Severity::Redundant, What::InRing);
        survey.report.repaired.then_some(Finding { offset, lsns, ..finding })
    }

    /// The end of what was written when it was looked at.
    pub fn written(&self) -> u64 {
        let recover::Facts { end, .. } = self.look.survey.facts;
        end
    }

    /// How far it is known to have been durable.
    pub fn durable(&self) -> u64 {
        let survey = &self.look.survey;
        match survey.report.damage {
            // Of a log that grows meanwhile, more is durable by now than was seen.
            None => survey.facts.durable.min(survey.facts.end),
            Some(_) => survey.facts.durable,
        }
    }

    /// How the last life ended, or stands.
    pub fn ending(&self) -> Ending {
        self.look.survey.facts.ending
    }

    /// The newest life that has a frame.
    pub fn life(&self) -> Life {
        self.look.survey.place.life
    }

    /// Has retention dropped frames? Then what covers them is no longer a thing that can be done
    /// without.
    pub fn has_dropped(&self) -> bool {
        self.runs.iter().any(|run| run.header.dropped > 0)
    }

    /// The segments up to the end, oldest first; before them runs, which have taken the place of
    /// older ones, with the life 0.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let last = self.look.survey.place.number;
        let info = |(number, link): (usize, &Link)| SegmentInfo {
            path: link.path.clone(),
            base: link.header.base,
            bytes: link.header.bytes,
            life: link.header.life,
            end: if number == last { Some(self.written()) } else { link.end },
        };
        let runs = self.runs.iter().map(|run| SegmentInfo {
            path: run.path.clone(),
            base: run.header.start,
            bytes: run.header.bytes,
            life: Life { number: 0, bits: 0 },
            end: Some(run.header.limit),
        });
        runs.chain(self.look.chain.iter().enumerate().take(last + 1).map(info)).collect()
    }

    /// What crashes took back, oldest first.
    pub fn lost(&self) -> Vec<Range<u64>> {
        let links = self.look.chain.iter().take(self.look.survey.place.number + 1);
        links.filter_map(|link| Some(link.header.previous?.end?..link.header.base)).collect()
    }

    /// Reads all frames from the first at or behind `from` on.
    pub fn frames(&self, from: u64) -> Cursor {
        let known = self.look.chain.iter().map(|link| (link.header.base, link.header)).collect();
        let mut cursor = Cursor {
            disk: Arc::clone(&self.disk),
            options: self.options.clone(),
            id: self.id,
            chain: self.look.chain.clone(),
            known,
            lives: self.look.lives.clone(),
            runs: self.runs.clone(),
            run: (0, 0),
            place: None,
            from,
            below: u64::MAX,
            only: None,
            durable: self.durable(),
            source: SegmentSource::default(),
            ring: None,
            buffer: Vec::new(),
            current: None,
        };
        let number = cursor.chain.partition_point(|link| link.header.base <= from);
        cursor.enter(number.saturating_sub(1));
        cursor
    }

    /// Reads the frames of one stream. Segments whose index does not have it are passed over.
    pub fn stream(&self, stream: StreamId) -> Cursor {
        let mut cursor = self.frames(0);
        cursor.only = Some(stream);
        cursor.place = None;
        cursor.enter(0);
        cursor
    }

    /// What the newest checkpoint holds that tells of what is here.
    pub(crate) fn testimony(&self) -> Option<Testimony> {
        let dir = self.options.checkpoints.as_ref()?;
        let checkpoints = Checkpoint::read_all(&*self.disk, dir, self.id);
        // A newer one tells of what a live writer has appended since.
        let here = |told: u64| told <= self.written() && self.is_past(told);
        let believed = checkpoints.iter().filter(|it| it.told().is_some_and(here));
        believed.into_iter().find_map(|it| it.testimony(&*self.disk))
    }

    /// Is everything below `position` of this past? Not if a crash took back what was there.
    fn is_past(&self, position: u64) -> bool {
        let in_segments = self.look.chain.iter().any(|link| {
            let end = link.end.unwrap_or(link.header.limit());
            (link.header.base..=end).contains(&position)
        });
        let run =
            self.runs.iter().find(|run| (run.header.start..run.header.limit).contains(&position));
        in_segments
            || run.is_some_and(|run| {
                let lost = run.lost_at(position);
                lost.is_ok_and(|lost| lost.is_none_or(|lost| lost.start == position))
            })
    }

    /// What was appended up to the end as it was looked at, over all lives. Reads what no
    /// checkpoint covers.
    ///
    /// # Errors
    /// The file system's.
    pub fn totals(&self) -> Result<Totals, DiskError> {
        let checkpoints = match &self.options.checkpoints {
            Some(dir) => Checkpoint::read_all(&*self.disk, dir, self.id),
            None => Vec::new(),
        };
        let inside = |position: u64| {
            self.look.chain.iter().any(|link| {
                let end = link.end.unwrap_or(link.header.limit());
                (link.header.base..=end).contains(&position)
            })
        };
        let newest =
            checkpoints.iter().find(|it| it.position <= self.written() && inside(it.position));
        let in_runs =
            self.runs.iter().fold(Totals::default(), |sum, run| sum.plus(run.header.totals));
        let in_runs = (in_runs, self.runs.last().map_or(0, |run| run.header.limit));
        let (mut totals, from) = newest.map_or(in_runs, |newest| (newest.totals, newest.position));
        let mut cursor = self.frames(from);
        cursor.stop_at(self.written());
        while let Some(seen) = cursor.next()? {
            let Seen::Frame(frame) = seen else { continue };
            let events = events_in(&frame);
            totals.frames += 1;
            totals.events += events;
            totals.streams += u64::from(begins_stream(&frame));
        }
        Ok(totals)
    }
}

/// Reads frames in the order of the log, and follows it as it grows.
#[derive(Debug)]
pub struct Cursor {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    id: u64,
    chain: Vec<Link>,
    /// Headers that need not be read again.
    known: BTreeMap<u64, SegmentHeader>,
    lives: Vec<Life>,
    runs: Vec<Arc<Run>>,
    /// Which run is read, and how many frames of it have been passed.
    run: (usize, usize),
    place: Option<Place>,
    /// Frames before are not shown.
    from: u64,
    /// Nor are frames from here on.
    below: u64,
    /// Nor are frames of any other stream.
    only: Option<StreamId>,
    durable: u64,
    source: SegmentSource,
    ring: Option<RingFileSource>,
    buffer: Vec<u8>,
    current: Option<u64>,
}

/// What one step came to.
enum Step {
    Frame,
    Bad(Finding),
    End,
}

impl Cursor {
    /// Frames at or behind `position` are not shown.
    pub fn stop_at(&mut self, position: u64) {
        self.below = position;
    }

    /// Where the next frame is looked for.
    pub fn position(&self) -> u64 {
        let place = self.place;
        place.map_or(0, |place| {
            self.chain.get(place.number).map_or(0, |link| link.header.base + place.offset)
        })
    }

    /// How far the log is known to be durable.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The next frame, or what is bad before it; `None` at the end, which may move: ask again.
    ///
    /// # Errors
    /// The file system's; the cursor stays where it is.
    #[expect(clippy::should_implement_trait, reason = "it lends: a frame borrows from its reader")]
    pub fn next(&mut self) -> Result<Option<Seen<'_>>, DiskError> {
        loop {
            match self.step()? {
                Step::End => return Ok(None),
                Step::Bad(finding) => return Ok(Some(Seen::Bad(finding))),
                Step::Frame => {
                    let Some(position) = self.current else { return Ok(None) };
                    let stream = Frame::checked_before(position, &self.buffer).header().stream;
                    let wanted =
                        position >= self.from && self.only.is_none_or(|only| only == stream);
                    if wanted {
                        let frame = Frame::checked_before(position, &self.buffer);
                        return Ok(Some(Seen::Frame(frame)));
                    }
                }
            }
        }
    }

    fn enter(&mut self, number: usize) {
        let mut number = number;
        while let (Some(stream), Some(link), true) =
            (self.only, self.chain.get(number), number + 1 < self.chain.len())
        {
            let end = link.end.unwrap_or(link.header.limit());
            let path = file_path(&self.options.dir, link.header.base, "idx");
            let index = Mapped::read(&*self.disk, &path, &link.header, end);
            if index.is_none_or(|index| index.places(stream).is_some()) {
                break;
            }
            number += 1;
        }
        self.place = self.chain.get(number).map(|link| enter(number, link));
    }

    /// The next frame that is in a run; `None` behind the last of them.
    fn step_in_runs(&mut self) -> Option<Step> {
        loop {
            let (number, rank) = self.run;
            let run = Arc::clone(self.runs.get(number)?);
            let next_run = (number + 1, 0);
            if run.header.limit <= self.from {
                self.run = next_run;
                continue;
            }
            if run.header.start >= self.below {
                return Some(Step::End);
            }
            let bad = |error| Step::Bad(read_finding(&run, error, Severity::Loss));
            let table = match run.table() {
                Ok(table) => table,
                Err(error) => {
                    self.run = next_run;
                    return Some(bad(error));
                }
            };
            let frame = match self.only {
                Some(stream) => table.find(stream).and_then(|row| row.numbers().nth(rank)),
                None => table.ranked(rank).filter(|_| rank < table.carried()),
            };
            let Some(frame) = frame else {
                self.run = next_run;
                continue;
            };
            self.run = (number, rank + 1);
            match run.frame(frame) {
                Ok(frame) => {
                    if frame.lsn().get() >= self.below {
                        self.run = (number, rank);
                        return Some(Step::End);
                    }
                    self.buffer.clear();
                    self.buffer.extend_from_slice(frame.bytes());
                    self.current = Some(frame.lsn().get());
                    return Some(Step::Frame);
                }
                Err(error) => return Some(bad(error)),
            }
        }
    }

    fn step(&mut self) -> Result<Step, DiskError> {
        if let Some(step) = self.step_in_runs() {
            return Ok(step);
        }
        loop {
            let Some(place) = self.place else {
                self.list_again();
                self.enter(0);
                if self.place.is_none() {
                    return Ok(Step::End);
                }
                continue;
            };
            let Some(link) = self.chain.get(place.number).cloned() else { return Ok(Step::End) };
            let position = link.header.base + place.offset;
            if position >= self.below {
                return Ok(Step::End);
            }
            if link.end.is_some_and(|end| position >= end) {
                self.enter(place.number + 1);
                if self.place.is_none() {
                    self.place = Some(place);
                    return Ok(Step::End);
                }
                continue;
            }
            if place.offset >= link.header.bytes && place.number + 1 < self.chain.len() {
                self.enter(place.number + 1);
                continue;
            }
            if self.take(&link, place, Where::Segment)?.is_ok() {
                return Ok(Step::Frame);
            }
            if self.ring.is_some() && self.take(&link, place, Where::Ring)?.is_ok() {
                return Ok(Step::Frame);
            }
            // Whatever is durable by now is in its segment, and a read from now on finds it.
            self.look_at_mark();
            let mut reject = Reject::Short;
            for at in [Where::Segment, Where::Ring, Where::Segment] {
                self.source.refresh();
                self.ring = None;
                match self.take(&link, place, at)? {
                    Ok(()) => return Ok(Step::Frame),
                    Err(why) => reject = why,
                }
            }
            if self.list_again() {
                continue;
            }
            if position >= self.durable {
                return Ok(Step::End);
            }
            return self.step_over(&link, place, reject);
        }
    }

    /// Takes the frame at `place` from the segment or the ring.
    fn take(
        &mut self,
        link: &Link,
        place: Place,
        at: Where,
    ) -> Result<Result<(), Reject>, DiskError> {
        let Place { number, offset, life, closed } = place;
        let offset = if closed { offset.next_multiple_of(PAGE_U64) } else { offset };
        let source: &mut dyn Source = match at {
            Where::Segment => &mut self.source,
            Where::Ring => {
                if self.ring.is_none() {
                    self.ring = self.open_ring();
                }
                let Some(ring) = &mut self.ring else { return Ok(Err(Reject::Short)) };
                ring
            }
        };
        let (log, base) = (self.id, link.header.base);
        let bytes = whole_frame(source, link, offset)?;
        let read = if closed {
            Frame::read_life(bytes, offset, log, base)
        } else {
            read_frame(bytes, offset, Salt { log, life, base })
        };
        let (frame, life) = match read {
            Ok(read) => read,
            Err(reject) => return Ok(Err(reject)),
        };
        self.buffer.clear();
        self.buffer.extend_from_slice(frame.bytes());
        let header = frame.header();
        self.durable = self.durable.max(frame.durable());
        self.current = Some(frame.lsn().get());
        if !self.lives.contains(&life) {
            self.lives.push(life);
        }
        let closed = header.kind == FrameKind::Close;
        let next = offset + header.length as u64;
        self.place = Some(Place { number, offset: next, life, closed });
        if header.kind == FrameKind::Seal && link.end.is_none() {
            // As if the file ended here: what lies behind is none of the log's.
            self.place = Some(Place { number, offset: link.header.bytes, life, closed: false });
        }
        Ok(Ok(()))
    }

    /// Opened anew at each end: another life may have made another file.
    fn open_ring(&self) -> Option<RingFileSource> {
        let path = self.options.ring.clone()?;
        let file = self.disk.open(&path, Access::Read).ok()?;
        let bytes = file.len().ok().filter(|bytes| *bytes > 0 && bytes.is_multiple_of(PAGE_U64))?;
        Some(RingFileSource::new(file, path, bytes))
    }

    /// Behind what is damaged.
    fn step_over(&mut self, link: &Link, place: Place, reject: Reject) -> Result<Step, DiskError> {
        let base = link.header.base;
        let limit = link.end.map_or(link.header.bytes, |end| end - base);
        let start =
            if place.closed { place.offset.next_multiple_of(PAGE_U64) } else { place.offset };
        if start >= limit {
            return Ok(Step::End);
        }
        let mut next = None;
        let mut source = SegmentSource::patient();
        let behind = start + FRAME_ALIGN as u64..limit;
        seek(&mut source, link, (self.id, &self.lives), behind, &mut |frame, life| {
            next = Some((frame.lsn().get() - base, life));
            std::ops::ControlFlow::Break(())
        })?;
        let number = place.number;
        let offset = next.map_or(limit, |(offset, _)| offset);
        let life = next.map_or(place.life, |(_, life)| life);
        self.place = Some(Place { number, offset, life, closed: false });
        let what = What::Frame(reject);
        let lsns = base + start..(base + offset).min(self.durable.max(base + start));
        let finding = Finding::file(&link.path, Severity::Loss, what);
        Ok(Step::Bad(Finding { offset: start, lsns, ..finding }))
    }

    fn look_at_mark(&mut self) {
        let Some(path) = &self.options.mark else { return };
        let found = slots::read(&*self.disk, path, mark::MAGIC).unwrap_or_default();
        if let Some(mark) = Mark::highest(&found, self.id) {
            self.durable = self.durable.max(mark.durable);
        }
    }

    /// Looks for segments that were made since. Did anything change that matters here?
    fn list_again(&mut self) -> bool {
        let Ok(found) = find(&self.disk, &self.options, Some(&self.known)) else { return false };
        let Ok(Ok(Pieces { chain, .. })) = link(&found, &self.options, self.id) else {
            return false;
        };
        let Some(place) = self.place else {
            self.chain = chain;
            return !self.chain.is_empty();
        };
        let Some(here) = self.chain.get(place.number) else { return false };
        let base = here.header.base;
        let (old_end, old_links) = (here.end, self.chain.len());
        let number = chain.partition_point(|link| link.header.base < base);
        let Some(now) = chain.get(number) else { return false };
        for link in &chain {
            self.known.insert(link.header.base, link.header);
        }
        let more = chain.len() - number > old_links - place.number;
        if now.header.base != base {
            // Retired: what followed is where the log goes on.
            self.chain = chain;
            self.enter(number);
            return true;
        }
        let changed = now.end != old_end;
        let at_end = place.offset >= now.header.bytes;
        self.chain = chain;
        self.place = Some(Place { number, ..place });
        changed || (more && at_end)
    }
}

/// Where a frame is looked for.
#[derive(Copy, Clone, Debug)]
enum Where {
    Segment,
    Ring,
}
