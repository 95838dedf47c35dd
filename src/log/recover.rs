//! What an open finds, what that means, and what is done about it: facts, decision, action.
//!
//! *Facts* are two positions and how the log ends. `end` (P) is the first position at which no
//! valid frame stands, the ring's rescue included. `durable` (D) is the highest position that is
//! known to have been durable: from the mark file, the identity, the recovery headers, and the
//! mark that every valid frame carries, those behind P included.
//!
//! | ends | P against D | decision |
//! |---|---|---|
//! | empty | equal | `Fresh` |
//! | closed | at or above | `GoOn` in the last segment, at the next page |
//! | full | at or above | `StartAnew` in a new segment; nothing was behind P |
//! | torn | at or above | `StartAnew` in a new segment; what was behind P is lost for ever |
//! | any | below | `Damage`: promised bytes are gone |
//!
//! Nothing else is a test for damage. See docs/recovery.md for why.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::LogOptions;
use super::checkpoint::{Checkpoint, Totals};
use super::mark::{self, Mark};
use super::scan::{
    Place, RingFileSource, SegmentSource, Walked, enter, highest_mark, holds_frames, walk,
};
use super::segment::{FIRST_FRAME, SegmentHeader, base_of, file_path, read_header};
use super::slots;
use crate::disk::{Access, Disk, File, PAGE_U64, read_full, write_full};
use crate::error::{Damage, DamageReason, DiskError, OpenError, Reject};
use crate::types::{HybridTime, Life, to_usize};

/// How the last life of a log ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// There is no segment.
    Empty,
    /// With a `Close` frame, and there is room for another life behind it.
    Closed,
    /// With a `Close` frame, and its segment is full.
    Full,
    /// In any other way.
    Torn,
}

/// What the decision depends on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How the log ends.
    pub ending: Ending,
    /// P: the first position without a valid frame; 0 for an empty log.
    pub end: u64,
    /// D: the highest position known to have been durable; 0 if none is.
    pub durable: u64,
}

/// What an open does.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A new log.
    Fresh,
    /// The next life goes on in the last segment.
    GoOn,
    /// The next life begins a new segment.
    StartAnew,
    /// A person must look.
    Damage,
}

/// The table above. No wildcard: a new fact must break the build.
pub fn decide(facts: &Facts) -> Decision {
    match (facts.ending, facts.end.cmp(&facts.durable)) {
        (Ending::Empty, Ordering::Equal | Ordering::Greater) => Decision::Fresh,
        (Ending::Closed, Ordering::Equal | Ordering::Greater) => Decision::GoOn,
        (Ending::Full | Ending::Torn, Ordering::Equal | Ordering::Greater) => Decision::StartAnew,
        (Ending::Empty | Ending::Closed | Ending::Full | Ending::Torn, Ordering::Less) => {
            Decision::Damage
        }
    }
}

/// How a log was opened.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It was empty.
    Fresh,
    /// The life before had closed it.
    Continued,
    /// The life before had crashed.
    Recovered,
    /// It was damaged, and is one that can do without: the rest was set aside.
    SetAside,
}

/// What an open found and did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// How it began.
    pub start: Start,
    /// The first position that held no valid frame.
    pub end: u64,
    /// The highest position that was known to have been durable.
    pub durable: u64,
    /// What is lost for ever, because a crash took it back or it was never written. Empty
    /// unless the open began a new segment.
    pub lost: Range<u64>,
    /// Frames that were checked.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that were in the ring alone, and are in their segments now.
    pub rescued: u64,
    /// Frames that had been durable were missing from a segment, and the ring had them.
    pub repaired: bool,
    /// What was set aside.
    pub damage: Option<Damage>,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.start {
            Start::Fresh => write!(f, "fresh"),
            Start::Continued => write!(f, "continued at {} after a clean close", self.end),
            Start::Recovered => write!(
                f,
                "recovered up to {}: {} frames checked, {} rescued from the ring",
                self.end, self.frames, self.rescued
            ),
            Start::SetAside => write!(f, "set aside what lies behind {}", self.end),
        }
    }
}

/// A segment in the chain, as found.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub header: SegmentHeader,
    pub path: PathBuf,
    /// Where it ends, if the segment after it says so.
    pub end: Option<u64>,
    pub disk: Arc<dyn Disk>,
}

impl Link {
    pub(super) fn open(&self) -> Result<Arc<dyn File>, DiskError> {
        self.disk.open(&self.path, Access::Read).map_err(DiskError::at("opening", &self.path))
    }
}

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
    evidence: u64,
) -> Result<Survey, OpenError> {
    let began = options.clock.monotonic();
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
    let mark = Mark::highest(&mark_found, log);
    let Found { files, bad, leftovers, above } = found;
    let linked = match bad {
        Some(damage) => Err(damage),
        None => link(&files, options, log)?,
    };
    let (chain, dead) = match linked {
        Ok(linked) => linked,
        Err(damage) if options.rebuildable => {
            return aside(disk, options, damage, above);
        }
        Err(damage) => return Err(damage.into()),
    };
    let known = mark.map_or(0, |mark| mark.durable).max(evidence);
    let mut spares = leftovers;
    spares.extend(dead);

    let mut source = SegmentSource::default();
    let from = starting_place(&chain, log, mark)?;
    let walked = walk(&mut source, &chain, log, from, &mut |_, _| {})?;
    let (rescue, rescued, walked_ring) = ring(disk, options, &chain, log, walked.place)?;
    let place = walked_ring.as_ref().map_or(walked.place, |ring| ring.place);
    let (segments_end, end) = (position(&chain, walked.place), position(&chain, place));

    let headers = chain.iter().filter_map(|link| link.end).max().unwrap_or(0);
    let lives = lives(&chain, place, mark);
    let behind = look_ahead(&mut source, &chain, (log, &lives), place, options)?;
    let time = walked_ring.as_ref().map_or(walked.time, |ring| ring.time.max(walked.time));
    let ring_mark = walked_ring.as_ref().map_or(0, |ring| ring.durable);
    let durable = [known, headers, walked.durable, ring_mark, behind].into_iter().fold(0, u64::max);
    let (place, end) = step_back(&chain, place, durable).unwrap_or((place, end));
    let ending = match chain.get(place.number) {
        None => Ending::Empty,
        Some(link) if place.closed && has_room(link, place, options) => Ending::Closed,
        Some(_) if place.closed => Ending::Full,
        Some(_) => Ending::Torn,
    };
    let facts = Facts { ending, end, durable };
    let mut decision = decide(&facts);
    let mut damage = None;
    if decision == Decision::Damage {
        let found = describe(&chain, options, place, &walked, &facts);
        if !options.rebuildable {
            return Err(found.into());
        }
        damage = Some(found);
        decision = if chain.is_empty() { Decision::Fresh } else { Decision::StartAnew };
    }
    // Only what was counted below P was counted of this past.
    let counted = checkpoints
        .iter()
        .find(|checkpoint| {
            checkpoint.position <= end
                && chain.iter().take(place.number + 1).any(|link| {
                    let inside = link.header.base..=link.end.unwrap_or(link.header.limit());
                    inside.contains(&checkpoint.position)
                })
        })
        .map_or((Totals::default(), 0), |checkpoint| (checkpoint.totals, checkpoint.position));
    let used = place.number + 1;
    spares.extend(chain.iter().skip(used).map(|link| link.path.clone()));
    let report = RecoveryReport {
        start: match (ending, &damage) {
            (_, Some(_)) => Start::SetAside,
            (Ending::Empty, None) => Start::Fresh,
            (Ending::Closed | Ending::Full, None) => Start::Continued,
            (Ending::Torn, None) => Start::Recovered,
        },
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
        chain,
        spares,
        above,
        facts,
        place,
        decision,
        mark: mark_found,
        time,
        counted,
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
        if [".seg", ".idx", ".tmp", ".itmp"].iter().any(|ending| entry.name.ends_with(ending)) {
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
        chain: Vec::new(),
        spares,
        above,
        facts: Facts { ending: Ending::Empty, end: 0, durable: 0 },
        place: Place { number: 0, offset: 0, life: Life { number: 0, bits: 0 }, closed: false },
        decision: Decision::Fresh,
        mark: slots::Found::default(),
        time: HybridTime::default(),
        counted: (Totals::default(), 0),
        report,
        rescue: Vec::new(),
    })
}

struct Found {
    files: Vec<Link>,
    /// The first file that is no segment although its name says so.
    bad: Option<Damage>,
    leftovers: Vec<PathBuf>,
    above: u64,
}

/// The files of the log's directory; none if it is not there.
/// Headers that a checkpoint holds are not read again.
fn find(
    disk: &Arc<dyn Disk>,
    options: &LogOptions,
    known: Option<&BTreeMap<u64, SegmentHeader>>,
) -> Result<Found, OpenError> {
    let dir = &options.dir;
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(DiskError::at("listing", dir)(error).into()),
    };
    let mut found = Found { files: Vec::new(), bad: None, leftovers: Vec::new(), above: 0 };
    for entry in entries {
        if [".tmp", ".itmp"].iter().any(|ending| entry.name.ends_with(ending)) {
            found.leftovers.push(dir.join(&entry.name));
        }
        let Some(base) = base_of(&entry.name, "seg") else { continue };
        let path = dir.join(&entry.name);
        found.above = found.above.max(base.saturating_add(entry.bytes));
        let header = match known.and_then(|known| known.get(&base)) {
            Some(header) => Ok(*header),
            None => read_header(&**disk, &path)?,
        };
        let reason = match header {
            Ok(header) if header.base != base => Some("it is another segment's"),
            Ok(header) if header.bytes > entry.bytes => Some("the file is cut short"),
            Ok(header) => {
                found.above = found.above.max(header.limit());
                found.files.push(Link {
                    header,
                    path: path.clone(),
                    end: None,
                    disk: Arc::clone(disk),
                });
                None
            }
            Err(reason) => Some(reason),
        };
        // Named files were whole and synced before they were named, so this is no torn write.
        let damage = reason.map(|reason| Damage {
            file: path,
            offset: 0,
            lsns: base..base.saturating_add(entry.bytes),
            reason: DamageReason::Header(reason),
        });
        found.bad = found.bad.or(damage);
    }
    found.above = found.above.next_multiple_of(PAGE_U64);
    found.files.sort_by_key(|link| link.header.base);
    Ok(found)
}

/// The chain, and the files that are dead; or what is wrong.
type Linked = Result<(Vec<Link>, Vec<PathBuf>), Damage>;

/// Follows the headers from the first segment.
fn link(files: &[Link], options: &LogOptions, log: u64) -> Result<Linked, DiskError> {
    if let Some(other) = files.iter().find(|link| link.header.log != log) {
        return Ok(Err(header_damage(other, "it belongs to another log")));
    }
    let mut followers: BTreeMap<u64, Vec<&Link>> = BTreeMap::new();
    for link in files {
        if let Some(previous) = link.header.previous {
            followers.entry(previous.base).or_default().push(link);
        }
    }
    let mut chain: Vec<Link> = Vec::new();
    let mut next = files.iter().find(|link| link.header.previous.is_none());
    while let Some(link) = next {
        chain.push(link.clone());
        let after = followers.get(&link.header.base).map(Vec::as_slice).unwrap_or_default();
        let end_of = |link: &Link| link.header.previous.and_then(|previous| previous.end);
        // A recovery names what it follows for good; a spare may have named it before. Of
        // spares the newest counts: older ones were about to be removed.
        next = after
            .iter()
            .filter(|after| end_of(after).is_some())
            .chain(after.iter().rfind(|after| end_of(after).is_none()))
            .max_by_key(|after| (end_of(after).is_some(), after.header.base))
            .copied();
        if let (Some(after), Some(last)) = (next, chain.last_mut()) {
            last.end = end_of(after);
        }
    }
    let newest = chain.last().map_or(0, |link| link.header.base);
    let mut dead = Vec::new();
    for link in files {
        if chain.iter().any(|chained| chained.header.base == link.header.base) {
            continue;
        }
        // What lies below the chain's newest was passed over by a recovery. What lies above it
        // and holds nothing was prepared, and files prepared before it were removed before it
        // was: a crash came in between, or kept one of the removals and not the other.
        if link.header.base > newest && holds_frames(link, log)? {
            let missing = link.header.previous.map_or(0, |previous| previous.base);
            return Ok(Err(Damage {
                file: file_path(&options.dir, missing, "seg"),
                offset: 0,
                lsns: missing..link.header.base,
                reason: DamageReason::Missing,
            }));
        }
        dead.push(link.path.clone());
    }
    Ok(Ok((chain, dead)))
}

fn header_damage(link: &Link, reason: &'static str) -> Damage {
    Damage {
        file: link.path.clone(),
        offset: 0,
        lsns: link.header.base..link.header.limit(),
        reason: DamageReason::Header(reason),
    }
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

/// What the ring holds from `place` on.
fn ring(
    disk: &Arc<dyn Disk>,
    options: &LogOptions,
    chain: &[Link],
    log: u64,
    place: Place,
) -> Result<(Vec<Rescue>, u64, Option<Walked>), DiskError> {
    let nothing = (Vec::new(), 0, None);
    let Some(path) = &options.ring else { return Ok(nothing) };
    let file = match disk.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(nothing),
        Err(error) => return Err(DiskError::at("opening", path)(error)),
    };
    let bytes = file.len().map_err(DiskError::at("reading", path))?;
    if bytes == 0 || !bytes.is_multiple_of(PAGE_U64) {
        return Ok(nothing);
    }
    let mut source = RingFileSource::new(file, path.clone(), bytes);
    let mut rescue: Vec<Rescue> = Vec::new();
    let walked = match walk(&mut source, chain, log, place, &mut |number, frame| {
        let offset = frame.header().offset;
        match rescue.last_mut() {
            Some(run) if run.number == number && run.offset + run.bytes.len() as u64 == offset => {
                run.bytes.extend_from_slice(frame.bytes());
            }
            _ => rescue.push(Rescue { number, offset, bytes: frame.bytes().to_vec() }),
        }
    }) {
        Ok(walked) => walked,
        // A ring that cannot be read is as good as none: whether that matters, P and D decide.
        Err(_unreadable) => return Ok(nothing),
    };
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

/// The highest durable mark in any valid frame behind `place`, as far as marks can lag.
fn look_ahead(
    source: &mut SegmentSource,
    chain: &[Link],
    (log, lives): (u64, &[Life]),
    place: Place,
    options: &LogOptions,
) -> Result<u64, DiskError> {
    let window =
        2 * (options.flush_bytes + options.ring_bytes as u64) + 2 * options.frame_bytes_max as u64;
    let from = position(chain, place);
    let mut highest = 0;
    for (number, link) in chain.iter().enumerate().skip(place.number) {
        if link.header.base > from.saturating_add(window) {
            break;
        }
        let start = if number == place.number { place.offset } else { FIRST_FRAME };
        let limit = from.saturating_add(window).saturating_sub(link.header.base);
        let range = start..limit.min(link.header.bytes);
        highest = highest.max(highest_mark(source, link, (log, lives), range)?);
    }
    Ok(highest)
}

/// A place as a position; 0 for an empty chain.
fn position(chain: &[Link], place: Place) -> u64 {
    chain.get(place.number).map_or(0, |link| link.header.base + place.offset)
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
    let lsns = facts.end..facts.durable;
    let Some(link) = chain.get(place.number) else {
        let file = file_path(&options.dir, 0, "seg");
        return Damage { file, offset: 0, lsns, reason: DamageReason::Missing };
    };
    let limit = chain.last().map_or(0, |last| last.header.limit());
    let behind_file = link.header.limit() <= facts.end;
    let reason = if walked.reject == Reject::Short || facts.durable > limit || behind_file {
        DamageReason::Short { durable: facts.durable }
    } else {
        DamageReason::Frame(walked.reject)
    };
    Damage { file: link.path.clone(), offset: place.offset, lsns, reason }
}

impl Survey {
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
            if overlaps {
                rewrite(&*file, unsure).map_err(DiskError::at("writing", path))?;
            }
            file.sync_data().map_err(DiskError::at("syncing", path))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_answers_every_combination_of_facts_once() {
        for ending in [Ending::Empty, Ending::Closed, Ending::Full, Ending::Torn] {
            for (end, durable) in [(0, 0), (16, 0), (16, 16), (16, 32)] {
                let decision = decide(&Facts { ending, end, durable });
                let expected = match (ending, end < durable) {
                    (_, true) => Decision::Damage,
                    (Ending::Empty, false) => Decision::Fresh,
                    (Ending::Closed, false) => Decision::GoOn,
                    (Ending::Full | Ending::Torn, false) => Decision::StartAnew,
                };
                assert_eq!(decision, expected, "{ending:?} {end} {durable}");
            }
        }
    }
}
