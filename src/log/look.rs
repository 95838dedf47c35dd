//! Looking at a log that may be somebody else's, or damaged: by the rules of an open, and where
//! an open would refuse, the best that can be made of what is there. Writes nothing.
//!
//! An open knows that nobody else writes; here somebody may. So what was promised is read before
//! what is there, and what looks like damage is looked at again: it is believed if it is still
//! there although more time has passed than any write needs that had been promised before.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LogOptions;
use super::checkpoint::Checkpoint;
use super::finding::{Finding, Severity, Substitute, What};
use super::links::{Found, Link, Pieces, link};
use super::mark::{self, Mark};
use super::recover::Evidence;
use super::run::range_of;
use super::scan::{SegmentSource, enter, holds_frames};
use super::segment::{Previous, SegmentHeader, base_of, file_path, read_header};
use super::sift::sift;
use super::slots;
use super::survey::{Gathered, Survey, judge};
use crate::disk::{Disk, PAGE_U64};
use crate::error::{Damage, DamageReason, DiskError, OpenError};
use crate::types::Life;

/// How often a log that changes is looked at again.
const TRIES: usize = 8;

/// A log, looked at.
#[derive(Debug)]
pub(super) struct Look {
    /// All segments that hang together, those behind the end included.
    pub chain: Vec<Link>,
    /// The rules of an open, applied to that.
    pub survey: Survey,
    /// What is wrong with header pages, and what is missing.
    pub findings: Vec<Finding>,
    /// Headers that stand in for pages on the disk.
    pub patches: Vec<Patch>,
    /// Lives whose frames there may be.
    pub lives: Vec<Life>,
}

/// A header as it should be, where the page says something else.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    pub path: PathBuf,
    pub header: SegmentHeader,
}

/// What is known of a log from elsewhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// A position that had been durable.
    pub durable: u64,
    /// The newest life, where it was killed at most, and is not running.
    pub killed: Option<Life>,
    pub lives: Vec<Life>,
}

/// Looks at the log in `options.dir`, which counts as rebuildable here: damage is a finding.
///
/// # Errors
/// The file system's; another version's files.
pub(super) fn look(
    disk: &Arc<dyn Disk>,
    options: &LogOptions,
    log: u64,
    known: &Known,
) -> Result<Look, OpenError> {
    let options = &LogOptions { rebuildable: true, ..options.clone() };
    let mut known = known.clone();
    let mut before: Option<(Look, u64)> = None;
    let mut written = 0;
    for _ in 0..TRIES {
        // What had been promised before this look must be in it.
        let promised = known.durable.max(written);
        let found = match once(disk, options, log, &known) {
            Ok(found) => found,
            // A segment was retired between the listing and the look.
            Err(OpenError::Disk(error)) if error.source.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let damaged = found.survey.report.damage.is_some();
        if !damaged && found.findings.is_empty() {
            return Ok(found);
        }
        let proven = !damaged || found.survey.facts.end < promised;
        let again = before.as_ref().is_some_and(|(before, _)| before.findings == found.findings);
        if proven && again {
            return Ok(found);
        }
        known.durable = known.durable.max(found.survey.facts.durable);
        written = written.max(found.survey.facts.written);
        before = Some((found, promised));
    }
    match before {
        Some((mut last, promised)) => {
            // It grew each time: nothing that had been promised before a look was missing in it.
            if last.survey.facts.end >= promised {
                last.survey.report.damage = None;
            }
            Ok(last)
        }
        None => Err(DiskError::at("listing", &options.dir)(ErrorKind::NotFound.into()).into()),
    }
}

fn once(
    disk: &Arc<dyn Disk>,
    options: &LogOptions,
    log: u64,
    known: &Known,
) -> Result<Look, OpenError> {
    let mark_found = match &options.mark {
        Some(path) => slots::read(&**disk, path, mark::MAGIC).unwrap_or_default(),
        None => slots::Found::default(),
    };
    let checkpoints = match &options.checkpoints {
        Some(dir) => Checkpoint::read_all(&**disk, dir, log),
        None => Vec::new(),
    };
    let mut found = Files::list(disk, options, log, &checkpoints)?;
    found.lives.extend(&known.lives);
    found.lives.extend(Mark::highest(&mark_found, log).map(|mark| mark.life));
    found.guess_headers(disk, log)?;
    let Pieces { runs, chain, dead } = found.hang_together(options, log)?;
    let mut spares = std::mem::take(&mut found.found.leftovers);
    spares.extend(dead);
    let gathered = |killed| Gathered {
        runs: runs.clone(),
        chain: chain.clone(),
        spares: spares.clone(),
        above: found.found.above.next_multiple_of(PAGE_U64),
        checkpoints: checkpoints.clone(),
        mark_found: mark_found.clone(),
        evidence: Evidence { durable: known.durable, killed },
    };
    let survey = match judge(disk, options, log, gathered(known.killed)) {
        Err(OpenError::Damage(damage)) if damage.reason == DamageReason::Ring => {
            let finding = Finding::file(&damage.file, Severity::Loss, What::Ring);
            let survey = judge(disk, options, log, gathered(None))?;
            let lsns = survey.facts.end..survey.facts.end;
            found.findings.push(Finding { lsns, ..finding });
            survey
        }
        survey => survey?,
    };
    let mut lives = found.lives;
    lives.push(survey.place.life);
    lives.sort_by_key(|life| std::cmp::Reverse(life.number));
    lives.dedup();
    Ok(Look { chain, survey, findings: found.findings, patches: found.patches, lives })
}

/// What is in the folder.
struct Files {
    found: Found,
    /// Segments without a header that counts: base, size, path, and why.
    headless: Vec<(u64, u64, PathBuf, &'static str)>,
    findings: Vec<Finding>,
    patches: Vec<Patch>,
    lives: Vec<Life>,
}

impl Files {
    fn list(
        disk: &Arc<dyn Disk>,
        options: &LogOptions,
        log: u64,
        checkpoints: &[Checkpoint],
    ) -> Result<Self, OpenError> {
        let dir = &options.dir;
        let list = || match disk.list(dir) {
            Ok(entries) => Ok(entries),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(DiskError::at("listing", dir)(error)),
        };
        // A listing may miss a name that is given while it is read, and have a later one. Segments
        // get their names in order: those up to the newest of one listing are all in the next.
        let newest = list()?.iter().filter_map(|entry| base_of(&entry.name, "seg")).max();
        let mut entries = list()?;
        entries.retain(|entry| base_of(&entry.name, "seg").is_none_or(|base| Some(base) <= newest));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut found = Self {
            found: Found {
                files: Vec::new(),
                runs: Vec::new(),
                bad: Vec::new(),
                leftovers: Vec::new(),
                indexes: Vec::new(),
                above: 0,
            },
            headless: Vec::new(),
            findings: Vec::new(),
            patches: Vec::new(),
            lives: Vec::new(),
        };
        for entry in entries {
            if [".tmp", ".itmp", ".rtmp"].iter().any(|ending| entry.name.ends_with(ending)) {
                found.found.leftovers.push(dir.join(&entry.name));
            }
            if let Some(base) = base_of(&entry.name, "idx") {
                found.found.indexes.push((base, dir.join(&entry.name)));
            }
            if let Some(range) = range_of(&entry.name) {
                let before = found.found.bad.len();
                let read = found.found.run(&**disk, dir.join(&entry.name), range, entry.bytes);
                if !gone(&read) {
                    read?;
                }
                for bad in found.found.bad.drain(before..) {
                    let what =
                        What::Header { why: header_reason(&bad), substitute: Substitute::Nothing };
                    let finding = Finding::file(bad.file, Severity::Loss, what);
                    found.findings.push(Finding { lsns: bad.lsns, ..finding });
                }
            }
            let Some(base) = base_of(&entry.name, "seg") else { continue };
            found.found.above = found.found.above.max(base.saturating_add(entry.bytes));
            let known = checkpoints.iter().find_map(|checkpoint| checkpoint.headers.get(&base));
            found.add(disk, (base, entry.bytes, dir.join(&entry.name)), known.copied(), log)?;
        }
        found.lives.extend(found.found.files.iter().map(|link| link.header.life));
        Ok(found)
    }

    fn add(
        &mut self,
        disk: &Arc<dyn Disk>,
        (base, bytes, path): (u64, u64, PathBuf),
        known: Option<SegmentHeader>,
        log: u64,
    ) -> Result<(), OpenError> {
        let read = match read_header(&**disk, &path) {
            Ok(read) => read,
            Err(OpenError::Disk(error)) if error.source.kind() == ErrorKind::NotFound => {
                return Ok(());
            }
            Err(OpenError::Disk(_)) => Err("the disk cannot read it"),
            Err(error) => return Err(error),
        };
        let read = match read {
            Ok(header) if header.base != base => Err("it is another segment's"),
            Ok(header) if header.log != log => Err("it belongs to another log"),
            Ok(header) if known.is_some_and(|known| known != header) => {
                Err("a checkpoint says something else")
            }
            read => read,
        };
        let header = match (read, known) {
            (Ok(header), _) => header,
            (Err(why), Some(header)) => {
                self.header_finding(&path, (base, bytes), why, Substitute::Checkpoint);
                self.patches.push(Patch { path: path.clone(), header });
                header
            }
            (Err(why), None) => {
                self.headless.push((base, bytes, path, why));
                return Ok(());
            }
        };
        self.found.above = self.found.above.max(header.limit());
        if header.bytes > bytes {
            let lsns = base.saturating_add(bytes)..header.limit();
            let what = What::Cut { bytes: header.bytes };
            let finding = Finding::file(&path, Severity::Loss, what);
            self.findings.push(Finding { offset: bytes, lsns, ..finding });
        }
        self.found.files.push(Link { header, path, end: None, disk: Arc::clone(disk) });
        Ok(())
    }

    fn header_finding(
        &mut self,
        path: &Path,
        (base, bytes): (u64, u64),
        why: &'static str,
        substitute: Substitute,
    ) {
        let (severity, lsns) = match substitute {
            Substitute::Checkpoint | Substitute::Neighbours => (Severity::Redundant, 0..0),
            Substitute::Nothing => (Severity::Loss, base..base.saturating_add(bytes)),
        };
        let what = What::Header { why, substitute };
        self.findings.push(Finding { lsns, ..Finding::file(path, severity, what) });
    }

    /// A header that nobody has a copy of follows from the segment before and from the frames.
    fn guess_headers(&mut self, disk: &Arc<dyn Disk>, log: u64) -> Result<(), DiskError> {
        for (base, bytes, path, why) in std::mem::take(&mut self.headless) {
            let blank = SegmentHeader {
                log,
                base,
                bytes: bytes / PAGE_U64 * PAGE_U64,
                life: Life { number: 0, bits: 0 },
                previous: None,
            };
            let before = self.found.files.iter().filter(|link| link.header.base < base);
            let mut previous = None;
            for link in before {
                let source = &mut SegmentSource::patient();
                let from = (enter(0, link), link.header.bytes);
                let sifted = sift(source, link, (log, &mut self.lives), from, &mut |_, _| {})?;
                if sifted.frames > 0 {
                    let end = link.header.base + sifted.place.offset;
                    let end = (!sifted.sealed).then_some(end);
                    previous = Some(Previous { base: link.header.base, end });
                }
            }
            let mut header = None;
            for life in &self.lives {
                let guess = SegmentHeader { life: *life, previous, ..blank };
                let link =
                    Link { header: guess, path: path.clone(), end: None, disk: Arc::clone(disk) };
                if guess.is_possible() && holds_frames(&link, log).unwrap_or(false) {
                    header = Some(link);
                    break;
                }
            }
            let substitute =
                if header.is_some() { Substitute::Neighbours } else { Substitute::Nothing };
            self.header_finding(&path, (base, bytes), why, substitute);
            if let Some(link) = header {
                self.patches.push(Patch { path, header: link.header });
                let at = self.found.files.partition_point(|other| other.header.base < base);
                self.found.files.insert(at, link);
            }
        }
        Ok(())
    }

    /// The chain; where something is missing, over the gap, with a header that says so.
    fn hang_together(&mut self, options: &LogOptions, log: u64) -> Result<Pieces, DiskError> {
        for _ in 0..=self.found.files.len() {
            let damage = match link(&self.found, options, log)? {
                Ok(linked) => return Ok(linked),
                Err(damage) => damage,
            };
            let (reached, behind) = self.ends_at(&damage, log)?;
            let runs_end = self.found.runs.iter().map(|(run, _)| run.limit).max().unwrap_or(0);
            // Runs are followed by their very segment: a gap there cannot be bridged.
            let bridged = runs_end == 0 || reached.is_some_and(|(base, _)| base >= runs_end);
            let Some(link) = self.found.files.get_mut(behind).filter(|_| bridged) else {
                let file = damage.file;
                let finding = Finding::file(file, Severity::Loss, What::Missing);
                self.findings.push(Finding { lsns: damage.lsns, ..finding });
                break;
            };
            let lsns = reached.map_or(0, |(_, end)| end)..link.header.base;
            link.header.previous = reached.map(|(base, end)| Previous { base, end: Some(end) });
            let patch = Patch { path: link.path.clone(), header: link.header };
            self.patches.retain(|other| other.path != patch.path);
            self.patches.push(patch);
            let file = file_path(&options.dir, damage.lsns.start, "seg");
            let what = What::Missing;
            self.findings.push(Finding { lsns, ..Finding::file(file, Severity::Loss, what) });
        }
        Ok(Pieces::default())
    }

    /// Where the chain ends that `damage` interrupts, and the number of the file that does not
    /// follow.
    fn ends_at(
        &mut self,
        damage: &Damage,
        log: u64,
    ) -> Result<(Option<(u64, u64)>, usize), DiskError> {
        let nowhere = self.found.files.len();
        if damage.reason != DamageReason::Missing {
            return Ok((None, nowhere));
        }
        let number = self.found.files.partition_point(|link| link.header.base < damage.lsns.end);
        let mut reached = None;
        let before: Vec<Link> = self.found.files.iter().take(number).cloned().collect();
        for link in before.iter().rev() {
            let source = &mut SegmentSource::patient();
            let from = (enter(0, link), link.header.bytes);
            let sifted = sift(source, link, (log, &mut self.lives), from, &mut |_, _| {})?;
            if sifted.frames > 0 {
                reached = Some((link.header.base, link.header.base + sifted.place.offset));
                break;
            }
        }
        Ok((reached, number))
    }
}

/// Was it removed after it was listed?
fn gone(read: &Result<(), OpenError>) -> bool {
    matches!(read, Err(OpenError::Disk(error)) if error.source.kind() == ErrorKind::NotFound)
}

fn header_reason(damage: &Damage) -> &'static str {
    match damage.reason {
        DamageReason::Header(why) => why,
        _ => "it is none",
    }
}

impl Look {
    /// What an open would refuse because of how the log ends.
    pub(super) fn end_finding(&self) -> Option<Finding> {
        let damage = self.survey.report.damage.as_ref()?;
        let what = match &damage.reason {
            DamageReason::Frame(reject) => What::Frame(*reject),
            DamageReason::Missing => What::Missing,
            _ => What::Short { durable: self.survey.facts.durable },
        };
        let finding = Finding::file(&damage.file, Severity::Loss, what);
        Some(Finding { offset: damage.offset, lsns: damage.lsns.clone(), ..finding })
    }
}
