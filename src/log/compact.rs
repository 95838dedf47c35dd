//! Compaction: the oldest pieces of a log become one [run](super::run).
//!
//! Frames are copied byte for byte, each checked on the way, clustered by stream; what the
//! caller's [`Plan`] lets go is left out. The order is what makes a crash anywhere in it just
//! another crash:
//!
//! 1. the run is written under another name, synced, and read back,
//! 2. it gets its name, and the name is synced,
//! 3. readers go to the run from now on; those in the midst of an old piece stay there,
//! 4. the old pieces are unlinked.
//!
//! Before 2 the run is a leftover; after 2 the old pieces are. Whatever fails before 3 leaves the
//! log as it was. Memory: 12 bytes a frame and 48 a stream carried (twice that while
//! the lists grow), of which there are [`RUN_FRAMES_MAX`] at most unless one segment has more, the
//! indexes of segments that have no index file, and a buffer.
//!
//! Only what needs no second look at a recovery is taken: sealed, durable segments wholly below
//! the mark file's frame boundary, and never the newest two.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::chain::Piece;
use super::checkpoint::Totals;
use super::frame::Frame;
use super::merge::{Sink, Source, merge};
use super::read::last_event;
use super::run::{FIRST_FRAME, Row, RunHeader, Sums, TableMaker, run_path};
use super::run_file::Run;
use super::write::FIRST_SEQ;
use super::{Log, Shared};
use crate::disk::{Access, Disk, File, PAGE, read_full, write_full};
use crate::error::{Damage, DamageReason, DiskError, ReadError};
use crate::metrics::Measure;
use crate::types::{HybridTime, Seq, StreamId, to_usize};

/// A run holds at most so many frames.
pub const RUN_FRAMES_MAX: u64 = 1 << 22;
/// What is written, and read back, at a time.
const BUFFER: usize = 1 << 20;

/// What is kept of one stream.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Frames that hold no event after this one may go.
    pub upto: Seq,
    /// But not the one with the stream's first event, which carries its name. And that events
    /// were dropped is remembered.
    pub first: bool,
    /// What goes has been superseded by what stays: no limit of age or size holds for it, and it is
    /// not counted as dropped.
    pub superseded: bool,
}

impl Keep {
    /// All of it.
    pub const ALL: Self = Self { upto: Seq::ZERO, first: true, superseded: false };
}

/// What a compaction is to do.
pub struct Plan<'a> {
    /// Runs are merged while their files stay below this, and segments are taken while theirs
    /// do (but one at least).
    pub run_bytes_max: u64,
    /// What may go of a stream. Asked once for each stream of the pieces that are taken.
    pub keep: &'a dyn Fn(StreamId) -> Result<Keep, ReadError>,
    /// Nothing at or above this position goes, whatever it is. Below `u64::MAX` it also means that
    /// `keep` goes by what is in this log: all of that is made durable before anything goes.
    pub pinned: u64,
    /// Segments that hold anything at or above this position are not taken: frames of no stream
    /// go with their segment.
    pub unnamed: u64,
    /// And nothing at or above this position.
    pub below: u64,
    /// And nothing that was appended at this time or later.
    pub before: HybridTime,
    /// Where no segment can be taken, a run is made anew of which more than half may go by now.
    /// To find out, `keep` is asked for every stream of the runs.
    pub renew: bool,
    /// Runs are merged and made anew wherever that does anything, and not only where it pays.
    pub thorough: bool,
}

impl std::fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("run_bytes_max", &self.run_bytes_max)
            .field("pinned", &self.pinned)
            .field("unnamed", &self.unnamed)
            .field("below", &self.below)
            .field("before", &self.before)
            .field("renew", &self.renew)
            .field("thorough", &self.thorough)
            .finish_non_exhaustive()
    }
}

impl Plan<'_> {
    /// May `frame` go, as far as it goes by itself?
    fn lets_go(&self, keep: Keep, frame: &Frame<'_>) -> bool {
        let lsn = frame.lsn().get();
        let aged = lsn < self.below && frame.header().time < self.before;
        last_event(frame) <= keep.upto && lsn < self.pinned && (aged || keep.superseded)
    }
}

/// What a compaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Positions that the new run answers for.
    pub range: Range<u64>,
    /// Segments and runs that it replaces.
    pub pieces: usize,
    /// Frames in it.
    pub carried: u64,
    /// Frames that were left out.
    pub dropped: u64,
    /// Size of what was replaced.
    pub bytes_before: u64,
    /// Size of the run.
    pub bytes_after: u64,
    /// Files that could not be removed. The next open does.
    pub unremoved: usize,
}

/// The pieces that are to become one.
struct Chosen {
    pieces: Vec<Piece>,
    sources: Vec<Source>,
    /// Where they begin and end.
    range: Range<u64>,
    /// What the first of them names, and what the piece behind is to name.
    before: Option<u64>,
    previous: u64,
    /// What was lost just before the piece behind.
    lost: Option<Range<u64>>,
}

fn bytes_of(piece: &Piece) -> u64 {
    match piece {
        Piece::Run(run) => run.header.bytes,
        Piece::Segment(segment) => segment.header.bytes,
    }
}

/// The range that a recovery before `piece` gave up.
fn lost_before(piece: &Piece) -> Option<Range<u64>> {
    let Piece::Segment(segment) = piece else { return None };
    let end = segment.header.previous.and_then(|previous| previous.end)?;
    Some(end..segment.header.base)
}

impl Log {
    /// Makes one run of the oldest pieces, if there is anything to gain: new segments that can be
    /// taken, or a run that has become half empty. Call it again until it answers `None`.
    ///
    /// # Errors
    /// Damage in what was to be copied, or the file system's. The log is as it was, except where
    /// the name of the new run could not be synced: then no further compaction is tried in this
    /// life.
    pub fn compact(&self, plan: &Plan<'_>) -> Result<Option<Compacted>, ReadError> {
        let shared = &*self.shared;
        let mut broken = shared.compacting.lock();
        if let Some(error) = &*broken {
            return Err(error.clone().into());
        }
        if shared.poison.get().is_some() {
            return Ok(None);
        }
        // Counted before the frames go.
        shared.totals_before()?;
        let Some(chosen) = shared.choose(plan)? else { return Ok(None) };
        let (range, clock) = (chosen.range.clone(), &shared.options.clock);
        shared.watch.compaction_begun(&range, chosen.pieces.len());
        shared.ring_for_news();
        let began = clock.monotonic();
        let compacted = shared.compact(plan, chosen, &mut broken);
        shared.watch.took(Measure::Compaction, "", Some(began));
        shared.watch.compacted(&range, &compacted, clock.monotonic().saturating_sub(began));
        shared.ring_for_news();
        let compacted = compacted?;
        // Relaxed: counters.
        let count = |counter: &std::sync::atomic::AtomicU64, number| {
            counter.fetch_add(number, Ordering::Relaxed);
        };
        count(&shared.counts.compactions, 1);
        count(&shared.counts.dropped, compacted.dropped);
        let saved = compacted.bytes_before.saturating_sub(compacted.bytes_after);
        count(&shared.counts.reclaimed_bytes, saved);
        Ok(Some(compacted))
    }

    /// Size of the segments that could be compacted now, and of all runs.
    pub fn compactable(&self) -> (u64, u64) {
        let shared = &*self.shared;
        let settled = shared.settled();
        let (pieces, runs) = shared.pieces();
        let settled = shared.takeable(&pieces, runs, settled);
        let sum = |pieces: &[Piece]| pieces.iter().map(bytes_of).sum();
        let (runs, segments) = pieces.split_at(runs);
        (sum(segments.get(..settled).unwrap_or_default()), sum(runs))
    }
}

impl Shared {
    /// All pieces, and how many of them are runs.
    fn pieces(&self) -> (Vec<Piece>, usize) {
        let chain = self.chain.read();
        (chain.pieces(), chain.runs().len())
    }

    /// Below this nothing changes any more, and no recovery begins to read.
    fn settled(&self) -> u64 {
        let boundary = self.syncing.lock().boundary();
        // Acquire: pairs with the Release where they rise.
        let durable = self.durable.load(Ordering::Acquire);
        boundary.min(durable).min(self.stored.load(Ordering::Acquire))
    }

    /// How many segments may be taken.
    #[expect(clippy::unused_self, reason = "beside those that it is used with")]
    fn takeable(&self, pieces: &[Piece], runs: usize, settled: u64) -> usize {
        let segments = pieces.get(runs..).unwrap_or_default();
        let pairs = segments.iter().zip(segments.iter().skip(1));
        let older = segments.len().saturating_sub(2);
        pairs
            .take(older)
            .take_while(|(segment, next)| {
                let ended = match segment {
                    Piece::Segment(segment) => segment.end().is_some(),
                    Piece::Run(_) => false,
                };
                ended && next.start() <= settled
            })
            .count()
    }

    fn choose(&self, plan: &Plan<'_>) -> Result<Option<Chosen>, ReadError> {
        let settled = self.settled().min(plan.unnamed);
        let (pieces, runs) = self.pieces();
        let takeable = self.takeable(&pieces, runs, settled);
        let (mut first, mut end, mut bytes, mut frames) = (runs, runs, 0, 0);
        let mut sources = Vec::new();
        for piece in pieces.get(runs..runs + takeable).unwrap_or_default() {
            if end > first && bytes + bytes_of(piece) > plan.run_bytes_max {
                break;
            }
            let source = Source::open(&*self.disk, piece)?;
            if end > first && frames + source.users() > RUN_FRAMES_MAX {
                break;
            }
            bytes += bytes_of(piece);
            frames += source.users();
            sources.push(source);
            end += 1;
        }
        if end == first {
            let Some(again) =
                self.run_to_make_anew(plan, pieces.get(..runs).unwrap_or_default())?
            else {
                return Ok(None);
            };
            (first, end) = (again, again + 1);
            let Some(Piece::Run(run)) = pieces.get(first) else { return Ok(None) };
            (bytes, frames) = (run.header.bytes, u64::from(run.header.carried));
            sources.push(Source::open(&*self.disk, &Piece::Run(Arc::clone(run)))?);
        }
        // Runs of about the same size are merged, so that each frame is copied a few times at
        // most before its run is as large as runs are to be.
        while let Some(Piece::Run(run)) = first.checked_sub(1).and_then(|number| pieces.get(number))
        {
            let header = &run.header;
            let worth = plan.thorough || header.bytes <= bytes.saturating_mul(2);
            let fits = bytes + header.bytes <= plan.run_bytes_max
                && frames + u64::from(header.carried) <= RUN_FRAMES_MAX;
            if !worth || !fits {
                break;
            }
            bytes += header.bytes;
            frames += u64::from(header.carried);
            sources.insert(0, Source::open(&*self.disk, &Piece::Run(Arc::clone(run)))?);
            first -= 1;
        }
        let (Some(taken), Some(next)) = (pieces.get(first..end), pieces.get(end)) else {
            return Ok(None);
        };
        let (Some(oldest), Some(newest)) = (taken.first(), taken.last()) else { return Ok(None) };
        let before = match oldest {
            Piece::Run(run) => run.header.before,
            Piece::Segment(segment) => segment.header.previous.map(|previous| previous.base),
        };
        let previous = match newest {
            Piece::Run(run) => run.header.previous,
            Piece::Segment(segment) => segment.header.base,
        };
        for (piece, source) in taken.iter().zip(&mut sources).skip(1) {
            source.lost.extend(lost_before(piece));
        }
        Ok(Some(Chosen {
            pieces: taken.to_vec(),
            sources,
            range: oldest.start()..next.start(),
            before,
            previous,
            // Of a run at the end its own table says so.
            lost: lost_before(next).filter(|_| matches!(newest, Piece::Segment(_))),
        }))
    }

    /// The first run of which enough may be dropped by now, or that can be merged with the one
    /// before it.
    fn run_to_make_anew(
        &self,
        plan: &Plan<'_>,
        runs: &[Piece],
    ) -> Result<Option<usize>, ReadError> {
        let mut before: Option<&RunHeader> = None;
        let looked_at = if plan.renew || plan.thorough { runs } else { &[] };
        for (number, piece) in looked_at.iter().enumerate() {
            let Piece::Run(run) = piece else { continue };
            let fits = before.is_some_and(|before| {
                before.bytes + run.header.bytes <= plan.run_bytes_max
                    && u64::from(before.carried) + u64::from(run.header.carried) <= RUN_FRAMES_MAX
            });
            let dead = self.droppable(plan, run)?;
            let pays = dead > 0 && (plan.thorough || dead * 2 > run.header.table);
            if pays || (fits && plan.thorough) {
                return Ok(Some(number));
            }
            before = Some(&run.header);
        }
        Ok(None)
    }

    /// Bytes of frames in `run` that may go by now.
    #[expect(clippy::unused_self, reason = "beside those that it is used with")]
    fn droppable(&self, plan: &Plan<'_>, run: &Run) -> Result<u64, ReadError> {
        let table = run.table()?;
        let mut bytes = 0;
        for row in (0..table.rows()).map_while(|number| table.row(number)) {
            let keep = (plan.keep)(row.stream)?;
            for number in row.numbers().take_while(|_| keep.upto > Seq::ZERO) {
                let frame = run.frame_of(number, row.stream)?;
                if !plan.lets_go(keep, &frame) {
                    break;
                }
                if !(keep.first && frame.header().seq == FIRST_SEQ) {
                    bytes += frame.bytes().len() as u64;
                }
            }
        }
        Ok(bytes)
    }

    fn compact(
        &self,
        plan: &Plan<'_>,
        chosen: Chosen,
        broken: &mut Option<DiskError>,
    ) -> Result<Compacted, ReadError> {
        let (disk, dir) = (&*self.disk, &*self.options.dir);
        let Chosen { pieces, range, .. } = &chosen;
        let (pieces, range) = (pieces.clone(), range.clone());
        let dropped_before: u64 = chosen.sources.iter().map(|source| source.dropped).sum();
        let temporary = run_path(dir, &range, "rtmp");
        let path = run_path(dir, &range, "run");
        let made = self.write_run(plan, chosen, &temporary).and_then(|header| {
            read_back(disk, &temporary, &header)?;
            disk.rename(&temporary, &path).map_err(DiskError::at("renaming", &temporary))?;
            Ok(header)
        });
        if made.is_err() {
            // If it cannot be removed either, the next open does.
            disk.remove(&temporary).unwrap_or_default();
        }
        let header = made?;
        // A run that was made anew has the name of the one before, and its place.
        let same = |piece: &Piece| matches!(piece, Piece::Run(run) if run.path == path);
        if let Err(error) = disk.sync_dir(dir).map_err(DiskError::at("syncing", dir)) {
            // It may have its name after a crash or not, and either is right; but while it is
            // there no other run may overlap it.
            if !pieces.iter().any(same) {
                disk.remove(&path).unwrap_or_default();
            }
            *broken = Some(error.clone());
            return Err(error.into());
        }
        let run = Run::existing(&self.disk, dir, header);
        self.chain.write().replace(run);
        let (replaced, bytes_before) = (pieces.len(), pieces.iter().map(bytes_of).sum());
        let mut unremoved = 0;
        for piece in pieces.into_iter().filter(|piece| !same(piece)) {
            unremoved += usize::from(self.let_go(piece).is_err());
        }
        // Names that come back are leftovers, and go at the next open.
        disk.sync_dir(dir).unwrap_or_default();
        Ok(Compacted {
            range,
            pieces: replaced,
            carried: u64::from(header.carried),
            dropped: header.dropped.saturating_sub(dropped_before),
            bytes_before,
            bytes_after: header.bytes,
            unremoved,
        })
    }

    /// Lets go of the files of a piece for which a run stands in. Readers that hold it keep it;
    /// a segment that nobody holds becomes another one.
    fn let_go(&self, piece: Piece) -> Result<(), DiskError> {
        let (disk, segment) = match piece {
            Piece::Run(run) => {
                let removed = self.disk.remove(&run.path);
                return removed.map_err(DiskError::at("removing", &run.path));
            }
            Piece::Segment(segment) => (&self.disk, segment),
        };
        let index = segment.path.with_extension("idx");
        self.preparer.recycle(segment)?;
        match disk.remove(&index) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DiskError::at("removing", &index)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes the run and syncs it.
    fn write_run(
        &self,
        plan: &Plan<'_>,
        chosen: Chosen,
        path: &Path,
    ) -> Result<RunHeader, ReadError> {
        let Chosen { mut sources, range, before, previous, lost, .. } = chosen;
        let origins = sources.iter_mut().flat_map(|source| std::mem::take(&mut source.origins));
        let origins = origins.collect();
        let mut all_lost: Vec<_> =
            sources.iter_mut().flat_map(|source| std::mem::take(&mut source.lost)).collect();
        all_lost.extend(lost);
        let mut header = RunHeader {
            log: self.id,
            start: range.start,
            limit: range.end,
            before,
            previous,
            bytes: 0,
            table: 0,
            totals: sources.iter().fold(Totals::default(), |sum, it| sum.plus(it.totals)),
            dropped: sources.iter().map(|source| source.dropped).sum(),
            origins: 0,
            lost: 0,
            rows: 0,
            carried: 0,
            sums: true,
            table_crc: 0,
            gone: sources.iter().map(|source| source.gone).max().unwrap_or(0),
        };
        let mut copy = Copy {
            plan,
            output: Output::create(&*self.disk, path)?,
            table: TableMaker::new(origins, all_lost),
            dropped: 0,
            gone: 0,
            left_out: false,
            stream: Stream::default(),
        };
        merge(&mut sources, &mut copy)?;
        let Copy { mut output, table, dropped, gone, left_out, .. } = copy;
        if left_out && plan.pinned < u64::MAX {
            // What let it go may have been said a moment ago: a power cut must not take that back.
            self.sync_written(self.syncing.lock())?;
        }
        header.dropped += dropped;
        header.gone = header.gone.max(gone);
        header.table = output.at;
        table.write(&mut header, &mut |bytes| output.push(bytes))?;
        output.finish(&header)?;
        Ok(header)
    }
}

/// What becomes of the frames that are handed over.
struct Copy<'a> {
    plan: &'a Plan<'a>,
    output: Output<'a>,
    table: TableMaker,
    dropped: u64,
    /// Where the last of those ended.
    gone: u64,
    /// Something was left out.
    left_out: bool,
    stream: Stream,
}

/// The stream whose frames are being handed over.
#[derive(Copy, Clone, Default)]
struct Stream {
    keep: Option<Keep>,
    start: u32,
    first: Option<Seq>,
    dropped: Seq,
    /// A frame had to be kept that may not be dropped: so have all after it.
    kept: bool,
}

impl Sink for Copy<'_> {
    fn frame(&mut self, stream: StreamId, frame: &Frame<'_>) -> Result<(), ReadError> {
        let keep = match self.stream.keep {
            Some(keep) => keep,
            None => (self.plan.keep)(stream)?,
        };
        self.stream.keep = Some(keep);
        let goes = !self.stream.kept && self.plan.lets_go(keep, frame);
        let named = keep.first && frame.header().seq == FIRST_SEQ;
        if goes && !named {
            self.stream.dropped = self.stream.dropped.max(last_event(frame));
            self.left_out = true;
            if !keep.superseded {
                self.dropped += 1;
                self.gone = self.gone.max(frame.end());
            }
            return Ok(());
        }
        self.stream.kept |= !goes;
        self.stream.first.get_or_insert(frame.header().seq);
        self.table.frame(frame.lsn().get(), self.output.at);
        self.output.push(frame.bytes())?;
        Ok(())
    }

    fn end(&mut self, stream: StreamId, dropped_before: Seq) {
        let Stream { keep, start, first, dropped, .. } = self.stream;
        let remembers = match keep {
            Some(keep) => keep.first,
            // Nothing but the memory of it is left.
            None => true,
        };
        let dropped = if remembers { dropped.max(dropped_before) } else { Seq::ZERO };
        let count = self.table.frames() - start;
        if count > 0 || dropped > Seq::ZERO {
            let first = first.or(dropped.checked_add(1)).unwrap_or(Seq::MAX);
            self.table.row(Row { stream, first, dropped, start, count });
        }
        self.stream = Stream { start: self.table.frames(), ..Stream::default() };
    }
}

/// A file that is written from its second page on, and its first page last.
struct Output<'a> {
    file: Arc<dyn File>,
    path: &'a Path,
    buffer: Vec<u8>,
    /// Where the next byte goes.
    at: u64,
}

impl<'a> Output<'a> {
    fn create(disk: &dyn Disk, path: &'a Path) -> Result<Self, DiskError> {
        let file = disk.open(path, Access::Create).map_err(DiskError::at("creating", path))?;
        Ok(Self { file, path, buffer: Vec::with_capacity(BUFFER), at: FIRST_FRAME })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        let start = self.at - self.buffer.len() as u64;
        write_full(&*self.file, &self.buffer, start)
            .map_err(DiskError::at("writing", self.path))?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, header: &RunHeader) -> Result<(), DiskError> {
        self.flush()?;
        write_full(&*self.file, &header.encode(), 0)
            .map_err(DiskError::at("writing", self.path))?;
        self.file.sync_data().map_err(DiskError::at("syncing", self.path))
    }
}

/// Is the header there that was written, and the table that it speaks of?
fn read_back(disk: &dyn Disk, path: &Path, header: &RunHeader) -> Result<(), ReadError> {
    let bad = |offset, reason| {
        let lsns = header.range();
        Damage { file: path.to_owned(), offset, lsns, reason: DamageReason::Header(reason) }
    };
    let file = disk.open(path, Access::Read).map_err(DiskError::at("opening", path))?;
    let mut buffer = vec![0; BUFFER];
    let (page, _) = buffer.split_at_mut(PAGE);
    let read = read_full(&*file, page, 0).map_err(DiskError::at("reading", path))?;
    if RunHeader::decode(page.get(..read).unwrap_or_default()) != Ok(*header) {
        return Err(bad(0, "it was written and is not there").into());
    }
    let sums_at = header.table + header.summed_bytes();
    let (mut sums, mut stored) = (Sums::default(), Vec::new());
    let mut at = header.table;
    while at < header.bytes {
        let end = if at < sums_at { sums_at } else { header.bytes };
        let want = to_usize((end - at).min(BUFFER as u64));
        let part = buffer.get_mut(..want).unwrap_or_default();
        let read = read_full(&*file, part, at).map_err(DiskError::at("reading", path))?;
        if read == 0 {
            break;
        }
        let part = part.get(..read).unwrap_or_default();
        if at < sums_at {
            sums.update(part);
        } else {
            stored.extend_from_slice(part);
        }
        at += read as u64;
    }
    let whole = at == header.bytes && sums.finish() == stored;
    if !whole || crc32fast::hash(&stored) != header.table_crc {
        return Err(bad(header.table, "its table was written and is not there").into());
    }
    Ok(())
}
