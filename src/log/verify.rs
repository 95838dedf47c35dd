//! Reading all of a log: every header page, every frame, every index, by the rules of an open.
//! What is wrong is listed, each with its place.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::ControlFlow;

use super::finding::{Affected, Finding, Severity, What};
use super::frame::{Frame, Salt};
use super::index::{Growing, Mapped};
use super::links::Link;
use super::read::{begins_stream, events_in, last_event};
use super::run_file::Run;
use super::scan::{SegmentSource, Source, enter, whole_frame};
use super::segment::{base_of, file_path};
use super::sift::{Bad, Sifted, sift};
use super::view::LogView;
use crate::error::{Damage, DamageReason, DiskError, ReadError};
use crate::types::{FRAME_ALIGN, Life, Seq, StreamId, StreamMap};

/// Streams whose numbers are followed: so many take about 32 MiB.
const STREAMS_MAX: usize = 1 << 20;

/// What was read, and what is wrong.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LogVerification {
    /// Segments read.
    pub segments: u64,
    /// Valid frames, system frames included.
    pub frames: u64,
    /// Events in them.
    pub events: u64,
    /// Streams that begin in them.
    pub streams: u64,
    /// Bytes of the frames.
    pub bytes: u64,
    /// Bytes read.
    pub read: u64,
    /// The end of the log as it stood when this began.
    pub end: u64,
    /// How far it is known to have been durable.
    pub durable: u64,
    /// What is wrong, in the order of the log.
    pub findings: Vec<Finding>,
    /// It was told to stop before the end.
    pub stopped: bool,
}

/// How a log is verified.
pub(crate) struct Pass<'a> {
    /// Do the numbers of a stream follow each other? Not those of snapshots.
    pub numbered: bool,
    /// What damage to frames means.
    pub severity: Severity,
    /// What is read need not stay in the cache.
    pub forgets: bool,
    /// Only segments that take no more frames.
    pub sealed_only: bool,
    /// Asked about once a quarter of a MiB, with the bytes since the last call.
    pub progress: &'a mut Ask<'a>,
}

/// Told of bytes read; `Break` ends the reading.
pub(crate) type Ask<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// How often progress is told of.
const TELL_BYTES: u64 = 1 << 18;

impl LogView {
    /// Bytes that [`verify`](Self::verify) will read.
    pub(crate) fn verify_bytes(&self) -> u64 {
        let links = self.look.chain.iter().take(self.links_to_read());
        let runs: u64 = self.runs.iter().map(|run| run.header.bytes).sum();
        runs + links.map(|link| self.limit(link)).sum::<u64>()
    }

    /// Damaged logs are read to the very end: behind the damage there may be good frames.
    fn links_to_read(&self) -> usize {
        match self.look.survey.report.damage {
            Some(_) => self.look.chain.len(),
            None => (self.look.survey.place.number + 1).min(self.look.chain.len()),
        }
    }

    /// Offset in a segment's file behind which no frame of the log is.
    fn limit(&self, link: &Link) -> u64 {
        let last = self.look.survey.chain.last();
        let is_last = last.is_some_and(|last| last.header.base == link.header.base);
        match link.end {
            Some(end) => end - link.header.base,
            None if is_last && self.look.survey.report.damage.is_none() => {
                self.look.survey.place.offset
            }
            None => link.header.bytes,
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// The file system's, where not even a folder can be listed.
    pub(crate) fn verify(&self, mut pass: Pass<'_>) -> Result<LogVerification, DiskError> {
        let mut verified = LogVerification {
            end: self.written(),
            durable: self.durable(),
            findings: self.look.findings.clone(),
            ..LogVerification::default()
        };
        for finding in &mut verified.findings {
            finding.severity = finding.severity.min(pass.severity);
        }
        let mut source = SegmentSource::patient_over(self.look.survey.in_ring());
        source.forgets = pass.forgets;
        let mut reader = Reader {
            view: self,
            source,
            lives: self.look.lives.clone(),
            last: StreamMap::default(),
            full: false,
        };
        for run in &self.runs {
            if !reader.run(run, &mut pass, &mut verified) {
                verified.stopped = true;
                return Ok(verified);
            }
        }
        let count = self.links_to_read();
        let mut trailing = None;
        for (number, link) in self.look.chain.iter().take(count).enumerate() {
            if pass.sealed_only && number + 1 == count {
                break;
            }
            let before = verified.findings.len();
            let more = match reader.segment(link, &mut pass, &mut verified) {
                Ok(more) => more,
                Err(error) if error.source.kind() == ErrorKind::NotFound => true,
                Err(error) => {
                    let what = What::Unreadable(error.to_string());
                    verified.findings.push(Finding::file(&link.path, pass.severity, what));
                    true
                }
            };
            // Behind the last good frame of a damaged log there is only what was never written.
            if self.look.survey.report.damage.is_some() {
                for finding in verified.findings.iter().skip(before) {
                    if finding.lsns.end == link.header.limit() {
                        trailing = Some(finding.clone());
                    } else {
                        trailing = None;
                    }
                }
            }
            if !more {
                verified.stopped = true;
                break;
            }
        }
        if !pass.sealed_only {
            self.end_of(&mut verified, trailing.as_ref(), &pass);
            self.other_files(&mut verified)?;
        }
        Ok(verified)
    }

    /// What is wrong with the end, where nothing that was read says so yet.
    fn end_of(&self, verified: &mut LogVerification, trailing: Option<&Finding>, pass: &Pass<'_>) {
        let Some(mut end) = self.look.end_finding() else { return };
        end.severity = end.severity.min(pass.severity);
        if let Some(trailing) = trailing {
            verified.findings.retain(|finding| finding != trailing);
            end.streams.clone_from(&trailing.streams);
            let place = (trailing.lsns.start, trailing.offset, trailing.file.clone());
            // Not the first hole but the last: behind it nothing comes.
            (end.lsns.start, end.offset, end.file) = place;
            end.lsns.end = end.lsns.end.max(end.lsns.start);
            if end.lsns.start >= self.durable() {
                return;
            }
        }
        let covered = verified.findings.iter().any(|finding| {
            finding.severity == end.severity && finding.lsns.start == end.lsns.start
        });
        if !covered {
            verified.findings.push(end);
        }
    }

    /// Files that are no segments of the chain.
    fn other_files(&self, verified: &mut LogVerification) -> Result<(), DiskError> {
        let dir = &self.options.dir;
        let entries = match self.disk.list(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(DiskError::at("listing", dir)(error)),
        };
        let spares: BTreeSet<_> = self.look.survey.spares.iter().collect();
        let chained = |base: u64| self.look.chain.iter().any(|link| link.header.base == base);
        for entry in entries {
            let path = dir.join(&entry.name);
            let known = [".seg", ".idx", ".run", ".tmp", ".itmp", ".rtmp"];
            let what = if !known.iter().any(|ending| entry.name.ends_with(ending)) {
                What::Stray
            } else if spares.contains(&path)
                || base_of(&entry.name, "idx").is_some_and(|base| !chained(base))
            {
                What::Leftover
            } else {
                continue;
            };
            verified.findings.push(Finding::file(path, Severity::Note, what));
        }
        Ok(())
    }
}

/// What is known while segments are read one after the other.
struct Reader<'a> {
    view: &'a LogView,
    source: SegmentSource,
    lives: Vec<Life>,
    /// The last event of each stream.
    last: StreamMap<Seq>,
    /// There are more streams than are followed.
    full: bool,
}

/// A number that does not follow.
struct Jump {
    lsn: u64,
    stream: StreamId,
    expected: Seq,
    found: Seq,
}

impl Reader<'_> {
    /// Reads one segment; `false` if it was told to stop.
    fn segment(
        &mut self,
        link: &Link,
        pass: &mut Pass<'_>,
        verified: &mut LogVerification,
    ) -> Result<bool, DiskError> {
        let limit = self.view.limit(link);
        let index = self.index(link);
        if let Some(index) = &index {
            // A `Life` frame may be damaged, and its life known to nobody else.
            for (_, life) in index.lives() {
                if !self.lives.contains(life) {
                    self.lives.push(*life);
                }
            }
        }
        let mut growing = Growing::new(link.header.life);
        let mut jumps = Vec::new();
        let (mut told, mut stopped) = (0, false);
        let Self { view, source, lives, last, full } = self;
        let from = (enter(0, link), limit);
        let sifted = sift(source, link, (view.id, lives), from, &mut |frame, life| {
            if stopped {
                return;
            }
            growing.take(&frame.header(), frame.lsn().get() - link.header.base, life);
            let events = events_in(frame);
            verified.events += events;
            verified.streams += u64::from(begins_stream(frame));
            if pass.numbered {
                jumps.extend(follow(last, full, frame));
            }
            let here = frame.end() - link.header.base;
            if here >= told + TELL_BYTES {
                stopped = (pass.progress)(here - told).is_break();
                told = here;
            }
        })?;
        if !stopped {
            stopped = (pass.progress)(limit.saturating_sub(told)).is_break();
        }
        verified.segments += 1;
        verified.frames += sifted.frames;
        verified.bytes += sifted.bytes;
        verified.read += limit;
        for (offset, error) in self.source.unreadable.iter_mut().flat_map(|list| list.drain(..)) {
            if offset < limit {
                let at = link.header.base + offset;
                let what = What::Unreadable(error.source.to_string());
                let finding = Finding::file(&link.path, pass.severity, what);
                verified.findings.push(Finding { offset, lsns: at..at + 4096, ..finding });
            }
        }
        self.frames(link, (&sifted, index.as_ref()), pass, verified)?;
        add_jumps(link, jumps, pass, verified);
        if sifted.bad.is_empty() && !stopped {
            self.compare_index(link, (index, &growing, sifted.sealed), verified);
        }
        Ok(!stopped)
    }

    /// Reads one run, which is whole or damaged; `false` if it was told to stop.
    fn run(&mut self, run: &Run, pass: &mut Pass<'_>, verified: &mut LogVerification) -> bool {
        verified.segments += 1;
        verified.read += run.header.bytes;
        let table = match run.table() {
            Ok(table) => table,
            Err(error) => {
                verified.findings.push(read_finding(run, error, pass.severity));
                return (pass.progress)(run.header.bytes).is_continue();
            }
        };
        for row in (0..table.rows()).filter_map(|row| table.row(row)) {
            if row.dropped > Seq::ZERO && !self.full {
                self.last.insert(row.stream, row.dropped);
            }
        }
        let mut told = 0;
        for rank in 0..table.carried() {
            let Some(number) = table.ranked(rank) else { continue };
            match run.frame(number) {
                Ok(frame) => {
                    let events = events_in(&frame);
                    verified.frames += 1;
                    verified.events += events;
                    verified.bytes += frame.bytes().len() as u64;
                    verified.streams += u64::from(begins_stream(&frame));
                    told += frame.bytes().len() as u64;
                    if pass.numbered
                        && let Some(jump) = follow(&mut self.last, &mut self.full, &frame)
                    {
                        let Jump { lsn, stream, expected, found } = jump;
                        let what = What::Sequence { stream, expected, found };
                        let finding = Finding::file(&run.path, pass.severity, what);
                        verified.findings.push(Finding { lsns: lsn..lsn + 16, ..finding });
                    }
                }
                Err(error) => {
                    let mut finding = read_finding(run, error, pass.severity);
                    let row = (0..table.rows())
                        .filter_map(|row| table.row(row))
                        .find(|row| row.numbers().contains(&number));
                    finding.streams = Some(
                        row.iter()
                            .map(|row| {
                                let last = self.last.get(&row.stream).copied();
                                let from = last.and_then(|last| last.checked_add(1));
                                let from = from.unwrap_or(row.first);
                                Affected { stream: row.stream, from, frames: 1, name: None }
                            })
                            .collect(),
                    );
                    verified.findings.push(finding);
                }
            }
            if told >= TELL_BYTES {
                if (pass.progress)(told).is_break() {
                    return false;
                }
                told = 0;
            }
        }
        (pass.progress)(told).is_continue()
    }

    /// The segment's index file, if it is valid.
    fn index(&self, link: &Link) -> Option<Mapped> {
        let view = self.view;
        let path = file_path(&view.options.dir, link.header.base, "idx");
        let read = |end| Mapped::read(&*view.disk, &path, &link.header, end);
        link.end.and_then(read).or_else(|| read(link.header.limit()))
    }

    /// What is bad in it.
    fn frames(
        &mut self,
        link: &Link,
        (sifted, index): (&Sifted, Option<&Mapped>),
        pass: &Pass<'_>,
        verified: &mut LogVerification,
    ) -> Result<(), DiskError> {
        let base = link.header.base;
        for Bad { offsets, reject } in &sifted.bad {
            let to_the_end = link.end.is_none() && offsets.end == link.header.bytes;
            let what = if to_the_end { What::Unsealed(*reject) } else { What::Frame(*reject) };
            let streams = match index {
                Some(index) => Some(self.affected(link, index, (offsets.start, offsets.end))?),
                None => None,
            };
            verified.findings.push(Finding {
                offset: offsets.start,
                lsns: base + offsets.start..base + offsets.end,
                streams,
                ..Finding::file(&link.path, pass.severity, what)
            });
        }
        Ok(())
    }

    /// The streams that an index has in a range.
    fn affected(
        &mut self,
        link: &Link,
        index: &Mapped,
        (start, end): (u64, u64),
    ) -> Result<Vec<Affected>, DiskError> {
        let mut affected = Vec::new();
        let inside = |place: &u32| (start..end).contains(&(u64::from(*place) * FRAME_ALIGN as u64));
        for (stream, places) in index.all() {
            let Some(first) = places.offsets.iter().position(inside) else { continue };
            let frames = places.offsets.iter().filter(|place| inside(place)).count() as u64;
            let before = first.checked_sub(1).and_then(|before| places.offsets.get(before));
            let from = match before {
                None => places.first,
                Some(place) => self
                    .last_event_at(link, u64::from(*place) * FRAME_ALIGN as u64)?
                    .and_then(|last| last.checked_add(1))
                    .unwrap_or(places.first),
            };
            affected.push(Affected { stream, from, frames, name: None });
        }
        Ok(affected)
    }

    fn last_event_at(&mut self, link: &Link, offset: u64) -> Result<Option<Seq>, DiskError> {
        let source: &mut dyn Source = &mut self.source;
        let bytes = whole_frame(source, link, offset)?;
        let salt = |life| Salt { log: self.view.id, life, base: link.header.base };
        let read = |life: &Life| Frame::read(bytes, offset, salt(*life)).ok();
        Ok(self.lives.iter().find_map(read).map(|frame| last_event(&frame)))
    }

    /// Is the index that of the frames?
    fn compare_index(
        &self,
        link: &Link,
        (index, growing, sealed): (Option<Mapped>, &Growing, bool),
        verified: &mut LogVerification,
    ) {
        if !sealed && link.end.is_none() {
            // The end, as it was when this began: its owner may have gone on, and sealed it.
            return;
        }
        let view = self.view;
        let path = file_path(&view.options.dir, link.header.base, "idx");
        let what = if let Some(index) = index {
            let limit = link.header.limit();
            let ends = [link.end.unwrap_or(limit), limit];
            let same = ends.iter().any(|end| growing.encode(&link.header, *end) == index.bytes());
            (!same).then_some(What::IndexDiffers)
        } else {
            let there = view.disk.open(&path, crate::disk::Access::Read).is_ok();
            there.then_some(What::Index)
        };
        if let Some(what) = what {
            verified.findings.push(Finding::file(path, Severity::Derived, what));
        }
    }
}

/// What is wrong with a run.
pub(super) fn read_finding(run: &Run, error: ReadError, severity: Severity) -> Finding {
    match error {
        ReadError::Damage(damage) => {
            let what = match damage.reason {
                DamageReason::Frame(reject) => What::Frame(reject),
                reason => What::Run(reason.to_string()),
            };
            let Damage { file, offset, lsns, .. } = damage;
            Finding { offset, lsns, ..Finding::file(file, severity, what) }
        }
        error => {
            let what = What::Unreadable(error.to_string());
            Finding { lsns: run.header.range(), ..Finding::file(&run.path, severity, what) }
        }
    }
}

/// Takes note of a frame's numbers, if its stream is one of those that are followed.
fn follow(last: &mut StreamMap<Seq>, full: &mut bool, frame: &Frame<'_>) -> Option<Jump> {
    let (stream, found) = (frame.header().stream, frame.header().seq);
    if stream == StreamId::SYSTEM || events_in(frame) == 0 {
        return None;
    }
    let known = last.get(&stream).copied();
    *full = *full || last.len() >= STREAMS_MAX;
    if known.is_none() && *full {
        return None;
    }
    last.insert(stream, last_event(frame));
    let expected = known.unwrap_or(Seq::ZERO).checked_add(1)?;
    let lsn = frame.lsn().get();
    (expected != found).then_some(Jump { lsn, stream, expected, found })
}

/// A number that does not follow is what a hole before it has done, or it is damage of its own.
fn add_jumps(link: &Link, jumps: Vec<Jump>, pass: &Pass<'_>, verified: &mut LogVerification) {
    for Jump { lsn, stream, expected, found } in jumps {
        let hole = |finding: &&mut Finding| {
            finding.lsns.start < lsn
                && matches!(
                    finding.what,
                    What::Frame(_)
                        | What::Unsealed(_)
                        | What::Missing
                        | What::Header { .. }
                        | What::Cut { .. }
                )
        };
        let Some(hole) = verified.findings.iter_mut().rev().find(hole) else {
            let what = What::Sequence { stream, expected, found };
            let finding = Finding::file(&link.path, pass.severity, what);
            let offset = lsn - link.header.base;
            verified.findings.push(Finding { offset, lsns: lsn..lsn + 16, ..finding });
            continue;
        };
        let streams = hole.streams.get_or_insert_default();
        if !streams.iter().any(|affected| affected.stream == stream) {
            streams.push(Affected { stream, from: expected, frames: 0, name: None });
        }
    }
}
