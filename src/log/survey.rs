//! Looking a log through at open: the facts of [`recover`](super::recover), where they come from,
//! and what is done to make what is kept sound. Reads first; changes nothing before it has decided.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::LogOptions;
use super::checkpoint::{Checkpoint, Totals};
use super::links::{Link, Pieces, find, link};
use super::mark::{self, Mark};
use super::recover::{Decision, Ending, Evidence, Facts, RecoveryReport, Start, decide};
use super::rule::{Rule, holds};
use super::run::RunHeader;
use super::scan::{
    Place, RingFileSource, SegmentSource, Source, Traces, Walked, enter, holds_frames, traces, walk,
};
use super::segment::{FIRST_FRAME, file_path};
use super::slots;
use crate::disk::{Access, Disk, File, PAGE_U64, read_full, write_full};
use crate::error::{Damage, DamageReason, DiskError, OpenError, Reject};
use crate::types::{HybridTime, Life, to_usize};

/// A run of frames that were in the ring and belong into a segment.
#[derive(Debug)]
struct Rescue {
    number: usize,
    offset: u64,
    bytes: Vec<u8>,
}

/// Everything that an open found out before it changed anything.
#[derive(Debug)]
pub(super) struct Survey {
    pub runs: Vec<RunHeader>,
    pub chain: Vec<Link>,
    /// Files that hold nothing: prepared and never used, or half made.
    pub spares: Vec<PathBuf>,
    /// The first position above every file.
    pub above: u64,
    pub facts: Facts,
    pub place: Place,
    pub decision: Decision,
    pub mark: slots::Found,
    /// The time of the newest frame.
    pub time: HybridTime,
    /// What is known to have been appended below a position.
    pub counted: (Totals, u64),
    /// Checkpoints of another past, which went further.
    pub strangers: Vec<PathBuf>,
    pub report: RecoveryReport,
    rescue: Vec<Rescue>,
}

/// Reads; changes nothing.
///
/// # Errors
/// Damage, the file system's, another version's files.
pub(super) fn survey(
    disk: &Arc<dyn Disk>,
    options: &LogOptions,
    log: u64,
    evidence: Evidence,
) -> Result<Survey, OpenError> {
    let checkpoints = match &options.checkpoints {
        Some(dir) => Checkpoint::read_all(&**disk, dir, log),
        None => Vec::new(),
    };
    let known_headers = checkpoints.first().map(|newest| &newest.headers);
    let found = find(disk, options, known_headers)?;
    let mark_found = match &options.mark {
        Some(path) => slots::read(&**disk, path, mark::MAGIC)?,
        None => slots::Found::default(),
    };
    let above = found.above;
    let Pieces { runs, chain, dead } = match link(&found, options, log)? {
        Ok(linked) => linked,
        Err(damage) if options.rebuildable => {
            return aside(disk, options, damage, above);
        }
        Err(damage) => return Err(damage.into()),
    };
    let mut spares = found.leftovers;
    spares.extend(dead);
    let gathered = Gathered { runs, chain, spares, above, checkpoints, mark_found, evidence };
    judge(disk, options, log, gathered)
}

/// What [`judge`] goes by.
#[derive(Debug)]
pub(super) struct Gathered {
    pub runs: Vec<RunHeader>,
    pub chain: Vec<Link>,
    pub spares: Vec<PathBuf>,
    pub above: u64,
    pub checkpoints: Vec<Checkpoint>,
    pub mark_found: slots::Found,
    /// What is known from elsewhere.
    pub evidence: Evidence,
}

/// How a chain ends, what that means, and where. Reads; changes nothing.
///
/// # Errors
/// Damage, but of a log that is rebuildable; the file system's.
pub(super) fn judge(
    disk: &Arc<dyn Disk>,
    options: &LogOptions,
    log: u64,
    gathered: Gathered,
) -> Result<Survey, OpenError> {
    let began = options.clock.monotonic();
    let Gathered { runs, chain, mut spares, above, checkpoints, mark_found, evidence } = gathered;
    let mark = Mark::highest(&mark_found, log);
    let marked = mark.filter(|_| holds(Rule::EvidenceInMark)).map_or(0, |mark| mark.durable);
    let known = if holds(Rule::EvidenceInIdentity) { marked.max(evidence.durable) } else { marked };

    let mut source = SegmentSource::default();
    let from = starting_place(&chain, log, mark)?;
    let walked = walk(&mut source, &chain, log, from, &mut |_, _| {})?;
    let mut ring = open_ring(disk, options)?;
    let (rescue, rescued, walked_ring) = match &mut ring {
        Some(ring) => in_ring(ring, &chain, log, walked.place)?,
        None => (Vec::new(), 0, None),
    };
    let place = walked_ring.as_ref().map_or(walked.place, |ring| ring.place);
    let (segments_end, end) = (position(&chain, walked.place), position(&chain, place));

    let ends = chain.iter().filter_map(|link| link.end);
    let headers = ends.filter(|_| holds(Rule::EvidenceInHeaders)).max().unwrap_or(0);
    let lives = lives(&chain, place, mark);
    let killed = evidence.killed.filter(|_| holds(Rule::EvidenceInWritten));
    let killed = killed.filter(|life| expects_all(*life, &chain, place, mark));
    if killed.is_some() && ring.is_none() {
        ring_is_missing(options, end)?;
    }
    let window = lag_max(options);
    let newest = match (killed, &mut ring) {
        (Some(life), Some(ring)) => ring.newest(&chain, (log, life), end, window)?,
        (None, _) | (_, None) => 0,
    };
    let mut behind = Traces { durable: 0, written: newest };
    // A ring whose newest frame ends here, after a kill, says that nothing was written behind it.
    if newest == 0 || newest != end {
        let sought = (log, lives.as_slice(), killed);
        behind = behind.and(look_ahead(&mut source, &chain, sought, (place, window))?);
    }
    let time = walked_ring.as_ref().map_or(walked.time, |ring| ring.time.max(walked.time));
    let ring_mark = walked_ring.as_ref().map_or(0, |ring| ring.durable);
    let sealed = walked_ring.as_ref().unwrap_or(&walked).sealed;
    let sealed = if holds(Rule::EvidenceInSeal) { sealed } else { 0 };
    let behind = if holds(Rule::EvidenceBehind) { behind } else { Traces::default() };
    let in_frames = walked.durable.max(ring_mark);
    let in_frames = if holds(Rule::EvidenceInFrames) { in_frames } else { 0 };
    let durable = [known, headers, in_frames, behind.durable, sealed];
    let durable = durable.into_iter().fold(0, u64::max);
    let (place, end) = step_back(&chain, place, durable).unwrap_or((place, end));
    let ending = ending(&chain, place, options);
    let facts = Facts { ending, end, durable, written: behind.written };
    let mut decision = decide(&facts);
    let mut damage = None;
    let mut above = above;
    if decision == Decision::Damage {
        let found = describe(&chain, options, place, &walked, &facts);
        if !options.rebuildable {
            return Err(found.into());
        }
        damage = Some(found);
        // Positions up to here were given out, whatever files are left.
        above = above.max(facts.durable.max(facts.written).next_multiple_of(PAGE_U64));
        decision = if chain.is_empty() { Decision::Fresh } else { Decision::StartAnew };
    }
    let counted = counted(&checkpoints, (&runs, &chain), place, end);
    let strangers = checkpoints.iter().filter(|it| !it.is_within(end));
    let strangers = strangers.map(|it| it.path().to_owned()).collect();
    let used = place.number + 1;
    spares.extend(chain.iter().skip(used).map(|link| link.path.clone()));
    let report = RecoveryReport {
        start: start(ending, damage.is_some()),
        end,
        durable,
        lost: end..end,
        frames: walked.frames + rescued,
        bytes: walked.bytes + walked_ring.map_or(0, |ring| ring.bytes),
        rescued,
        repaired: segments_end < durable && damage.is_none(),
        damage,
        took: options.clock.monotonic().saturating_sub(began),
    };
    let chain = chain.into_iter().take(used).collect();
    Ok(Survey {
        runs,
        chain,
        spares,
        above,
        facts,
        place,
        decision,
        mark: mark_found,
        time,
        counted,
        strangers,
        report,
        rescue,
    })
}

/// A rebuildable log whose chain does not hold together: all of it is set aside.
fn aside(
    disk: &Arc<dyn Disk>,
    options: &LogOptions,
    damage: Damage,
    above: u64,
) -> Result<Survey, OpenError> {
    let mut spares = Vec::new();
    for entry in disk.list(&options.dir).map_err(DiskError::at("listing", &options.dir))? {
        let endings = [".seg", ".run", ".idx", ".tmp", ".itmp", ".rtmp"];
        if endings.iter().any(|ending| entry.name.ends_with(ending)) {
            spares.push(options.dir.join(entry.name));
        }
    }
    let report = RecoveryReport {
        start: Start::SetAside,
        end: 0,
        durable: 0,
        lost: 0..above,
        frames: 0,
        bytes: 0,
        rescued: 0,
        repaired: false,
        damage: Some(damage),
        took: Duration::ZERO,
    };
    Ok(Survey {
        runs: Vec::new(),
        chain: Vec::new(),
        spares,
        above,
        facts: Facts { ending: Ending::Empty, end: 0, durable: 0, written: 0 },
        place: Place { number: 0, offset: 0, life: Life { number: 0, bits: 0 }, closed: false },
        decision: Decision::Fresh,
        mark: slots::Found::default(),
        time: HybridTime::default(),
        counted: (Totals::default(), 0),
        strangers: Vec::new(),
        report,
        rescue: Vec::new(),
    })
}

/// Where the walk begins: the mark's frame boundary, else the segment before the newest one that
/// begins with a frame.
fn starting_place(chain: &[Link], log: u64, mark: Option<Mark>) -> Result<Place, DiskError> {
    if let Some(mark) = mark {
        let number = chain.partition_point(|link| link.header.base <= mark.boundary);
        if let Some((number, link)) =
            number.checked_sub(1).and_then(|number| Some((number, chain.get(number)?)))
        {
            let offset = mark.boundary - link.header.base;
            let inside = offset >= FIRST_FRAME
                && offset < link.header.bytes
                && link.end.is_none_or(|end| mark.boundary <= end);
            if inside {
                return Ok(Place { number, offset, life: mark.life, closed: false });
            }
        }
    }
    let mut number = chain.len().saturating_sub(1);
    while number > 0 {
        let Some(link) = chain.get(number) else { break };
        number -= 1;
        if holds_frames(link, log)? {
            break;
        }
    }
    let start = chain.get(number).map(|link| enter(number, link));
    Ok(start.unwrap_or(Place {
        number: 0,
        offset: FIRST_FRAME,
        life: Life { number: 0, bits: 0 },
        closed: false,
    }))
}

/// The ring's file, if there is one.
fn open_ring(
    disk: &Arc<dyn Disk>,
    options: &LogOptions,
) -> Result<Option<RingFileSource>, DiskError> {
    let path = options.ring.as_ref().filter(|_| holds(Rule::RescueRing));
    let Some(path) = path else { return Ok(None) };
    let file = match disk.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError::at("opening", path)(error)),
    };
    let bytes = file.len().map_err(DiskError::at("reading", path))?;
    let whole = bytes > 0 && bytes.is_multiple_of(PAGE_U64);
    Ok(whole.then(|| RingFileSource::new(file, path.clone(), bytes)))
}

/// Must everything that `life`, which was killed, has written be there? It made its ring before
/// its first segment, and wrote down if it was poisoned. What it closed itself is behind it.
fn expects_all(life: Life, chain: &[Link], place: Place, mark: Option<Mark>) -> bool {
    let began = place.life == life || chain.iter().any(|link| link.header.life == life);
    let closed = place.closed && place.life == life;
    let poisoned = mark.is_some_and(|mark| mark.life == life && mark.poisoned);
    began && !closed && !poisoned
}

fn ring_is_missing(options: &LogOptions, end: u64) -> Result<(), OpenError> {
    match &options.ring {
        Some(path) => Err(Damage {
            file: path.clone(),
            offset: 0,
            lsns: end..u64::MAX,
            reason: DamageReason::Ring,
        }
        .into()),
        None => Ok(()),
    }
}

/// What the ring holds from `place` on.
fn in_ring(
    source: &mut RingFileSource,
    chain: &[Link],
    log: u64,
    place: Place,
) -> Result<(Vec<Rescue>, u64, Option<Walked>), DiskError> {
    let mut rescue: Vec<Rescue> = Vec::new();
    let walked = walk(source, chain, log, place, &mut |number, frame| {
        let Some(link) = chain.get(number) else { return };
        let offset = frame.lsn().get() - link.header.base;
        match rescue.last_mut() {
            Some(run) if run.number == number && run.offset + run.bytes.len() as u64 == offset => {
                run.bytes.extend_from_slice(frame.bytes());
            }
            _ => rescue.push(Rescue { number, offset, bytes: frame.bytes().to_vec() }),
        }
    })?;
    let rescued = walked.frames;
    Ok((rescue, rescued, (rescued > 0).then_some(walked)))
}

/// The lives whose frames there may be, newest first.
fn lives(chain: &[Link], place: Place, mark: Option<Mark>) -> Vec<Life> {
    let mut lives: Vec<Life> = chain.iter().map(|link| link.header.life).collect();
    lives.push(place.life);
    lives.extend(mark.map(|mark| mark.life));
    lives.sort_by_key(|life| std::cmp::Reverse(life.number));
    lives.dedup();
    lives
}

/// How far behind the first bad position a frame may stand that speaks of it: marks lag no
/// further.
fn lag_max(options: &LogOptions) -> u64 {
    2 * (options.flush_bytes + options.ring_bytes as u64) + 2 * options.frame_bytes_max as u64
}

/// What valid frames up to `window` bytes behind `place` say.
fn look_ahead(
    source: &mut dyn Source,
    chain: &[Link],
    sought: (u64, &[Life], Option<Life>),
    (place, window): (Place, u64),
) -> Result<Traces, DiskError> {
    let from = position(chain, place);
    let mut found = Traces::default();
    for (number, link) in chain.iter().enumerate().skip(place.number) {
        if link.header.base > from.saturating_add(window) {
            break;
        }
        let start = if number == place.number { place.offset } else { FIRST_FRAME };
        let limit = from.saturating_add(window).saturating_sub(link.header.base);
        let range = start..limit.min(link.header.bytes);
        found = found.and(traces(source, link, sought, range)?);
    }
    Ok(found)
}

/// A place as a position; 0 for an empty chain.
fn position(chain: &[Link], place: Place) -> u64 {
    chain.get(place.number).map_or(0, |link| link.header.base + place.offset)
}

/// How the last life ended.
fn ending(chain: &[Link], place: Place, options: &LogOptions) -> Ending {
    match chain.get(place.number) {
        None => Ending::Empty,
        Some(link) if place.closed && has_room(link, place, options) => Ending::Closed,
        Some(_) if place.closed => Ending::Full,
        Some(_) => Ending::Torn,
    }
}

/// What that makes of the open.
fn start(ending: Ending, damaged: bool) -> Start {
    match (ending, damaged) {
        (_, true) => Start::SetAside,
        (Ending::Empty, false) => Start::Fresh,
        (Ending::Closed | Ending::Full, false) => Start::Continued,
        (Ending::Torn, false) => Start::Recovered,
    }
}

/// The newest counts that are of this past: those below P, P being `end` at `place`. What is in
/// runs was counted when they were made.
fn counted(
    checkpoints: &[Checkpoint],
    (runs, chain): (&[RunHeader], &[Link]),
    place: Place,
    end: u64,
) -> (Totals, u64) {
    let in_runs = runs.iter().fold(Totals::default(), |sum, run| sum.plus(run.totals));
    let in_runs = (in_runs, runs.last().map_or(0, |run| run.limit));
    let inside = |link: &Link, position| {
        (link.header.base..=link.end.unwrap_or(link.header.limit())).contains(&position)
    };
    checkpoints
        .iter()
        .find(|checkpoint| {
            let mut links = chain.iter().take(place.number + 1);
            checkpoint.position <= end && links.any(|link| inside(link, checkpoint.position))
        })
        .map_or(in_runs, |checkpoint| (checkpoint.totals, checkpoint.position))
}

/// Is there room for another life behind a `Close`?
fn has_room(link: &Link, place: Place, options: &LogOptions) -> bool {
    let next = place.offset.next_multiple_of(PAGE_U64);
    next + PAGE_U64 + options.frame_bytes_max as u64 <= link.header.bytes
}

/// The end of the segment before, where the log ends in one that a recovery has made, that holds
/// nothing and that nothing speaks of: if the sync of its name failed, then a later one may
/// succeed without it, and a segment that names this one would follow nothing.
fn step_back(chain: &[Link], place: Place, durable: u64) -> Option<(Place, u64)> {
    let empty = chain.get(place.number).filter(|_| place.offset == FIRST_FRAME)?;
    if !holds(Rule::StepBack) {
        return None;
    }
    let number = place.number.checked_sub(1)?;
    let before = chain.get(number)?;
    let end = before.end.filter(|_| durable <= empty.header.base)?;
    Some((Place { number, offset: end - before.header.base, ..place }, end))
}

/// Which frame is missing.
fn describe(
    chain: &[Link],
    options: &LogOptions,
    place: Place,
    walked: &Walked,
    facts: &Facts,
) -> Damage {
    let promised = facts.durable.max(facts.written);
    let lsns = facts.end..promised;
    let Some(link) = chain.get(place.number) else {
        let file = file_path(&options.dir, 0, "seg");
        return Damage { file, offset: 0, lsns, reason: DamageReason::Missing };
    };
    let limit = chain.last().map_or(0, |last| last.header.limit());
    let behind_file = link.header.limit() <= facts.end;
    let reason = if walked.reject == Reject::Short || promised > limit || behind_file {
        DamageReason::Short { durable: promised }
    } else {
        DamageReason::Frame(walked.reject)
    };
    Damage { file: link.path.clone(), offset: place.offset, lsns, reason }
}

impl Survey {
    /// What the ring has and the segments have not: base, offset and bytes of each run.
    pub(super) fn in_ring(&self) -> Vec<(u64, u64, Vec<u8>)> {
        let base = |run: &Rescue| Some(self.chain.get(run.number)?.header.base);
        self.rescue
            .iter()
            .filter_map(|run| Some((base(run)?, run.offset, run.bytes.clone())))
            .collect()
    }

    /// Puts what was found beyond doubt: the ring's frames go into their segments, every page
    /// touching what is not known to be durable is written again (a failed sync may have marked
    /// a lost page clean), and all of it is synced.
    ///
    /// # Errors
    /// The file system's. A crash or an error in here is just another crash.
    pub(super) fn rescue(
        &mut self,
        disk: &dyn Disk,
        options: &LogOptions,
    ) -> Result<(), OpenError> {
        let Range { start: durable, end } = self.facts.durable.min(self.facts.end)..self.facts.end;
        if self.chain.is_empty() || (self.rescue.is_empty() && durable == end) {
            return Ok(());
        }
        for (number, link) in self.chain.iter().enumerate() {
            let base = link.header.base;
            let runs: Vec<&Rescue> =
                self.rescue.iter().filter(|run| run.number == number).collect();
            let own_end = if number == self.place.number {
                self.place.offset
            } else {
                link.end.map_or(link.header.bytes, |end| end - base)
            };
            let unsure = durable.saturating_sub(base).max(FIRST_FRAME)..own_end;
            let overlaps = durable < base + own_end;
            if runs.is_empty() && !overlaps {
                continue;
            }
            let path = &link.path;
            let file = disk.open(path, Access::Write).map_err(DiskError::at("opening", path))?;
            for run in runs {
                write_full(&*file, &run.bytes, run.offset)
                    .map_err(DiskError::at("writing", path))?;
            }
            if overlaps && holds(Rule::RewriteUnsure) {
                rewrite(&*file, unsure).map_err(DiskError::at("writing", path))?;
            }
            if holds(Rule::SyncRescued) {
                file.sync_data().map_err(DiskError::at("syncing", path))?;
            }
        }
        let dir = &options.dir;
        disk.sync_dir(dir).map_err(DiskError::at("syncing", dir))?;
        self.rescue.clear();
        Ok(())
    }
}

/// Writes the pages touching `range` again, as they are.
fn rewrite(file: &dyn File, range: Range<u64>) -> std::io::Result<()> {
    const STEP: u64 = 1 << 20;
    let mut at = range.start / PAGE_U64 * PAGE_U64;
    let mut buffer = Vec::new();
    while at < range.end {
        let bytes = (range.end - at).min(STEP);
        buffer.resize(to_usize(bytes), 0);
        let read = read_full(file, &mut buffer, at)?;
        write_full(file, buffer.get(..read).unwrap_or_default(), at)?;
        at += bytes;
    }
    Ok(())
}
