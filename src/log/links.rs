//! The segments' files, and how their headers link them to a chain.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::LogOptions;
use super::rule::{Rule, holds};
use super::scan::holds_frames;
use super::segment::{SegmentHeader, base_of, file_path, read_header};
use crate::disk::{Access, Disk, File, PAGE_U64};
use crate::error::{Damage, DamageReason, DiskError, OpenError};

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
    /// The first file that is no segment although its name says so.
    pub bad: Option<Damage>,
    pub leftovers: Vec<PathBuf>,
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
pub(super) type Linked = Result<(Vec<Link>, Vec<PathBuf>), Damage>;

/// Follows the headers from the first segment.
pub(super) fn link(files: &[Link], options: &LogOptions, log: u64) -> Result<Linked, DiskError> {
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
        if link.header.base > newest && (holds_frames(link, log)? || !holds(Rule::UnusedAreDead)) {
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
