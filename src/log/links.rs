//! The files of segments and runs, and how their headers link them to a chain.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::LogOptions;
use super::rule::{Rule, holds};
use super::run::{RunHeader, range_of};
use super::run_file::read_run_header;
use super::scan::holds_frames;
use super::segment::{SegmentHeader, base_of, file_path, read_header};
use crate::disk::{Access, Disk, File, PAGE_U64};
use crate::error::{Damage, DamageReason, DiskError, OpenError};
use crate::types::FRAME_ALIGN;

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

/// What is in the log's folder.
pub(super) struct Found {
    pub files: Vec<Link>,
    pub runs: Vec<(RunHeader, PathBuf)>,
    /// Files that are no segment or run although their names say so.
    pub bad: Vec<Damage>,
    pub leftovers: Vec<PathBuf>,
    /// Index files, by the bases in their names.
    pub indexes: Vec<(u64, PathBuf)>,
    pub above: u64,
}

/// The files of the log's directory; none if it is not there.
/// Headers that a checkpoint holds are not read again.
pub(super) fn find(
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
    let mut found = Found {
        files: Vec::new(),
        runs: Vec::new(),
        bad: Vec::new(),
        leftovers: Vec::new(),
        indexes: Vec::new(),
        above: 0,
    };
    for entry in entries {
        if let Some(range) = range_of(&entry.name) {
            found.run(&**disk, dir.join(&entry.name), range, entry.bytes)?;
        }
        if [".tmp", ".itmp", ".rtmp"].iter().any(|ending| entry.name.ends_with(ending)) {
            found.leftovers.push(dir.join(&entry.name));
        }
        if let Some(base) = base_of(&entry.name, "idx") {
            found.indexes.push((base, dir.join(&entry.name)));
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
        found.bad.extend(damage);
    }
    found.above = found.above.next_multiple_of(PAGE_U64);
    found.files.sort_by_key(|link| link.header.base);
    Ok(found)
}

impl Found {
    /// Takes note of a run's file.
    pub(super) fn run(
        &mut self,
        disk: &dyn Disk,
        path: PathBuf,
        range: Range<u64>,
        bytes: u64,
    ) -> Result<(), OpenError> {
        self.above = self.above.max(range.end);
        let reason = match read_run_header(disk, &path)? {
            Ok(header) if header.range() != range => "it is another run's",
            Ok(header) if header.bytes > bytes => "the file is cut short",
            Ok(header) => {
                self.runs.push((header, path));
                return Ok(());
            }
            Err(reason) => reason,
        };
        self.bad.push(Damage {
            file: path,
            offset: 0,
            lsns: range,
            reason: DamageReason::Header(reason),
        });
        Ok(())
    }
}

/// The log's pieces, and the files that are dead; or what is wrong.
pub(super) type Linked = Result<Pieces, Damage>;

/// What a log consists of.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub runs: Vec<RunHeader>,
    pub chain: Vec<Link>,
    pub dead: Vec<PathBuf>,
}

/// Puts the runs in order, then follows the segments' headers from the first one behind.
pub(super) fn link(found: &Found, options: &LogOptions, log: u64) -> Result<Linked, DiskError> {
    let (runs, mut dead) = match line_up(&found.runs, options, log) {
        Ok(lined_up) => lined_up,
        Err(damage) => return Ok(Err(damage)),
    };
    // What lies within is a leftover of a crash before it was removed, whatever it looks like.
    let covered = runs.last().map_or(0, |run| run.limit);
    for bad in &found.bad {
        if bad.lsns.end > covered {
            return Ok(Err(bad.clone()));
        }
        dead.push(bad.file.clone());
    }
    let (within, files): (Vec<&Link>, Vec<&Link>) =
        found.files.iter().partition(|link| link.header.base < covered);
    if let Some(over) = within.iter().find(|link| link.header.limit() > covered) {
        return Ok(Err(header_damage(over, "it overlaps a run")));
    }
    dead.extend(within.iter().map(|link| link.path.clone()));
    let indexes = found.indexes.iter().filter(|(base, _)| *base < covered);
    dead.extend(indexes.map(|(_, path)| path.clone()));
    let files: Vec<Link> = files.into_iter().cloned().collect();
    let linked = match runs.last() {
        None => link_segments(&files, |link| link.header.previous.is_none(), options, log)?,
        Some(last) => {
            let follows = |link: &Link| {
                let previous = link.header.previous.map(|previous| previous.base);
                link.header.base == last.limit && previous == Some(last.previous)
            };
            if !files.iter().any(follows) {
                let end = files.first().map_or(found.above, |link| link.header.base);
                return Ok(Err(missing(options, last.limit, last.limit..end.max(last.limit))));
            }
            link_segments(&files, follows, options, log)?
        }
    };
    Ok(linked.map(|(chain, spares)| {
        dead.extend(spares);
        Pieces { runs, chain, dead }
    }))
}

/// The runs of a log, oldest first, and those that are leftovers: wholly in the range of another,
/// which has taken their place.
fn line_up(
    found: &[(RunHeader, PathBuf)],
    options: &LogOptions,
    log: u64,
) -> Result<(Vec<RunHeader>, Vec<PathBuf>), Damage> {
    let damage = |header: &RunHeader, path: &PathBuf, reason| Damage {
        file: path.clone(),
        offset: 0,
        lsns: header.range(),
        reason: DamageReason::Header(reason),
    };
    if let Some((header, path)) = found.iter().find(|(header, _)| header.log != log) {
        return Err(damage(header, path, "it belongs to another log"));
    }
    let mut sorted: Vec<_> = found.iter().collect();
    sorted.sort_by_key(|(header, _)| (header.start, std::cmp::Reverse(header.limit)));
    let (mut runs, mut dead): (Vec<RunHeader>, Vec<PathBuf>) = (Vec::new(), Vec::new());
    for (header, path) in sorted {
        let (covered, before) =
            runs.last().map_or((0, None), |last| (last.limit, Some(last.previous)));
        if header.limit <= covered {
            dead.push(path.clone());
        } else if header.start < covered {
            return Err(damage(header, path, "it overlaps another run"));
        } else if before != header.before || (before.is_some() && header.start != covered) {
            let base = header.before.unwrap_or(covered).max(covered.min(header.start));
            return Err(missing(options, base, base..header.start));
        } else {
            runs.push(*header);
        }
    }
    Ok((runs, dead))
}

fn missing(options: &LogOptions, base: u64, lsns: Range<u64>) -> Damage {
    let file = file_path(&options.dir, base, "seg");
    Damage { file, offset: 0, lsns, reason: DamageReason::Missing }
}

/// The segments in order, and the files that are dead; or what is wrong.
type LinkedSegments = Result<(Vec<Link>, Vec<PathBuf>), Damage>;

/// Follows the headers from the `first` segment.
fn link_segments(
    files: &[Link],
    first: impl Fn(&Link) -> bool,
    options: &LogOptions,
    log: u64,
) -> Result<LinkedSegments, DiskError> {
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
    let mut next = files.iter().find(|link| first(link));
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
            if !follows(&after.header, &last.header) {
                return Ok(Err(header_damage(after, "it does not fit the segment before")));
            }
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
        if link.header.base > newest && (holds_frames(link, log)? || !holds(Rule::UnusedAreDead)) {
            let missing = link.header.previous.map_or(0, |previous| previous.base);
            return Ok(Err(self::missing(options, missing, missing..link.header.base)));
        }
        dead.push(link.path.clone());
    }
    Ok(Ok((chain, dead)))
}

/// Could a segment follow another, whose base it names? Checksums can be forged, and nobody behind
/// is to think of ends outside of their files.
fn follows(after: &SegmentHeader, before: &SegmentHeader) -> bool {
    let end = after.previous.and_then(|previous| previous.end);
    after.base >= before.limit()
        && end.is_none_or(|end| {
            (before.first_frame()..=before.limit()).contains(&end)
                && end.is_multiple_of(FRAME_ALIGN as u64)
        })
}

fn header_damage(link: &Link, reason: &'static str) -> Damage {
    Damage {
        file: link.path.clone(),
        offset: 0,
        lsns: link.header.base..link.header.limit(),
        reason: DamageReason::Header(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::segment::Previous;
    use crate::types::Life;

    /// A forged end was believed, and a reader published more of a segment than there is.
    #[test]
    fn a_header_that_ends_the_segment_before_outside_of_its_file_follows_nothing() {
        let header = |base, end| SegmentHeader {
            log: 7,
            base,
            bytes: 8_192,
            life: Life { number: 1, bits: 1 },
            previous: Some(Previous { base: 0, end }),
        };
        let first = SegmentHeader { previous: None, ..header(0, None) };
        for end in [None, Some(4_096), Some(8_192), Some(4_112)] {
            assert!(follows(&header(8_192, end), &first), "{end:?}");
        }
        for end in [0, 16, 4_080, 4_097, 8_208, u64::MAX] {
            assert!(!follows(&header(8_192, Some(end)), &first), "{end}");
        }
        assert!(!follows(&header(4_096, None), &first), "it lies inside");
    }
}
