//! Mending a damaged log, where somebody has decided to: header pages are written again, a hole
//! is recorded so that what stands behind it counts, and what is replaced is kept aside.

use std::path::{Path, PathBuf};

use super::finding::{Finding, What};
use super::index::{Growing, Mapped};
use super::mark::{self, Mark};
use super::scan::{SegmentSource, enter};
use super::segment::{Previous, SegmentHeader, file_path, read_header};
use super::sift::sift;
use super::slots::{self, Slots};
use super::view::LogView;
use crate::disk::{Access, Disk, Fill, PAGE, read_full, write_full};
use crate::error::{DiskError, OpenError};
use crate::types::Life;

/// Where frames are good again behind a hole.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct BehindHole {
    pub position: u64,
    pub life: Life,
}

impl LogView {
    /// The headers that are to be written over their pages: file, and is what is lost before it
    /// recorded in it?
    pub(crate) fn headers_to_mend(&self) -> Vec<(PathBuf, SegmentHeader)> {
        let patches = self.look.patches.iter();
        patches.map(|patch| (patch.path.clone(), patch.header)).collect()
    }

    /// The header of the segment behind the one that `hole` ends without its seal, saying so.
    pub(crate) fn header_behind(&self, hole: &Finding) -> Option<(PathBuf, SegmentHeader)> {
        if !matches!(hole.what, What::Unsealed(_)) {
            return None;
        }
        let number = self.look.chain.iter().position(|link| link.path == hole.file)?;
        let (link, next) = (self.look.chain.get(number)?, self.look.chain.get(number + 1)?);
        let previous = Previous { base: link.header.base, end: Some(hole.lsns.start) };
        Some((next.path.clone(), SegmentHeader { previous: Some(previous), ..next.header }))
    }

    /// Is anything good behind the segment that `hole` is in?
    pub(crate) fn goes_on_behind(&self, hole: &Finding) -> bool {
        let Some(number) = self.look.chain.iter().position(|link| link.path == hole.file) else {
            return false;
        };
        self.look
            .chain
            .iter()
            .skip(number + 1)
            .any(|link| super::scan::holds_frames(link, self.id).unwrap_or(false))
    }

    /// The first good frame behind the last hole, and the segments that have holes get indexes of
    /// what is good, where theirs are gone: else no stream could be found in them.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn mend_holes(&self, end: u64) -> Result<Option<BehindHole>, DiskError> {
        let mut behind = None;
        let mut lives = self.look.lives.clone();
        let last = self.look.chain.len().saturating_sub(1);
        for (number, link) in self.look.chain.iter().enumerate() {
            let limit = link.end.unwrap_or(link.header.limit()) - link.header.base;
            let path = file_path(&self.options.dir, link.header.base, "idx");
            let index = [link.end, Some(link.header.limit())]
                .into_iter()
                .flatten()
                .find_map(|end| Mapped::read(&*self.disk, &path, &link.header, end));
            lives.extend(index.iter().flat_map(Mapped::lives).map(|(_, life)| *life));
            let mut growing = Growing::new(link.header.life);
            let mut frames: Vec<(u64, Life)> = Vec::new();
            let mut source = SegmentSource::patient_over(self.look.survey.in_ring());
            let from = (enter(0, link), limit);
            let mut previous = None;
            let sifted =
                sift(&mut source, link, (self.id, &mut lives), from, &mut |frame, life| {
                    growing.take(&frame.header(), frame.lsn().get() - link.header.base, life);
                    let offset = frame.lsn().get() - link.header.base;
                    if previous != Some(offset) {
                        frames.push((offset, life));
                    }
                    previous = Some(super::index::after(&frame.header(), offset));
                })?;
            let holes: Vec<_> = sifted
                .bad
                .iter()
                .filter_map(|bad| {
                    frames.iter().find(|(offset, _)| *offset == bad.offsets.end).copied()
                })
                .collect();
            let Some((offset, life)) = holes.last().copied() else { continue };
            behind = Some(BehindHole { position: link.header.base + offset, life });
            if index.is_none() {
                let own_end = if number == last || link.end.is_some() {
                    link.end.unwrap_or(end)
                } else {
                    link.header.limit()
                };
                let file = growing.encode(&link.header, own_end);
                let target = self
                    .disk
                    .open(&path, Access::Create)
                    .map_err(DiskError::at("creating", &path))?;
                write_full(&*target, &file, 0).map_err(DiskError::at("writing", &path))?;
                target.sync_data().map_err(DiskError::at("syncing", &path))?;
            }
        }
        Ok(behind)
    }

    /// Where the last good frame of all ends.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn last_good(&self) -> Result<u64, DiskError> {
        let mut lives = self.look.lives.clone();
        for link in self.look.chain.iter().rev() {
            let limit = link.end.unwrap_or(link.header.limit()) - link.header.base;
            let mut source = SegmentSource::patient_over(self.look.survey.in_ring());
            let from = (enter(0, link), limit);
            let sifted = sift(&mut source, link, (self.id, &mut lives), from, &mut |_, _| {})?;
            if sifted.frames > 0 {
                return Ok(link.header.base + sifted.place.offset);
            }
        }
        Ok(0)
    }

    /// Does a header that is to be mended bridge what is missing before `position`?
    pub(crate) fn mends_gap_at(&self, position: u64) -> bool {
        self.look.patches.iter().any(|patch| patch.header.base == position)
    }

    /// The segment that begins at `position`.
    pub(crate) fn file_at(&self, position: u64) -> Option<PathBuf> {
        let link = self.look.chain.iter().find(|link| link.header.base == position);
        link.map(|link| link.path.clone())
    }

    /// Would an open say that promised bytes are missing at the end?
    pub(crate) fn is_short(&self) -> bool {
        self.look.survey.report.damage.is_some()
    }

    /// The newest life that anything in the log names.
    pub(crate) fn newest_life(&self) -> Life {
        let newest = self.look.lives.iter().max_by_key(|life| life.number);
        newest.copied().unwrap_or(Life { number: 0, bits: 0 })
    }

    /// Files that an open would remove.
    pub(crate) fn unused(&self) -> Vec<PathBuf> {
        self.look.survey.spares.clone()
    }

    /// From now on an open looks at what stands behind the hole.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn start_behind(&self, behind: BehindHole, durable: u64) -> Result<(), DiskError> {
        let Some(path) = &self.options.mark else { return Ok(()) };
        let found = slots::read(&*self.disk, path, mark::MAGIC)?;
        let durable = Mark::highest(&found, self.id)
            .map_or(0, |mark| mark.durable)
            .max(durable)
            .max(behind.position);
        let mark = Mark { durable, boundary: behind.position, life: behind.life, poisoned: false };
        let mut slots = Slots::open(&*self.disk, path, mark::MAGIC, &found)?;
        // Both: neither may send an open to the place before.
        for _ in 0..2 {
            slots.write(&mark.fields(self.id))?;
            slots.sync()?;
        }
        Ok(())
    }
}

/// Writes a header over a file's first page, and makes the file as long as it says. What the page
/// was is kept in `aside`.
///
/// # Errors
/// The file system's.
pub(crate) fn write_header(
    disk: &dyn Disk,
    (path, header): (&Path, &SegmentHeader),
    aside: &Path,
) -> Result<(), OpenError> {
    if read_header(disk, path)? == Ok(*header) {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default();
    let mut kept = aside.join(name);
    kept.set_extension("header");
    let file = disk.open(path, Access::Write).map_err(DiskError::at("opening", path))?;
    let mut page = vec![0; PAGE];
    // What cannot be read cannot be kept.
    let read = read_full(&*file, &mut page, 0).unwrap_or_default();
    page.truncate(read);
    write_new(disk, &kept, &page)?;
    write_full(&*file, &header.encode(), 0).map_err(DiskError::at("writing", path))?;
    file.sync_data().map_err(DiskError::at("syncing", path))?;
    Ok(())
}

/// Makes a file that was cut short as long as its header says.
///
/// # Errors
/// The file system's.
pub(crate) fn lengthen(disk: &dyn Disk, path: &Path, bytes: u64) -> Result<(), DiskError> {
    let file = disk.open(path, Access::Write).map_err(DiskError::at("opening", path))?;
    file.allocate(bytes, Fill::Reserve).map_err(DiskError::at("allocating", path))?;
    file.sync_data().map_err(DiskError::at("syncing", path))
}

/// Keeps a file in `aside` too: under a second name, or as a copy.
///
/// # Errors
/// The file system's.
pub(crate) fn keep_aside(disk: &dyn Disk, path: &Path, aside: &Path) -> Result<(), DiskError> {
    let to = aside.join(path.file_name().unwrap_or_default());
    if disk.link(path, &to).is_ok() {
        return Ok(());
    }
    keep_copy(disk, path, aside)
}

/// Keeps a copy of a file in `aside`: of one that is written again.
///
/// # Errors
/// The file system's.
pub(crate) fn keep_copy(disk: &dyn Disk, path: &Path, aside: &Path) -> Result<(), DiskError> {
    let to = aside.join(path.file_name().unwrap_or_default());
    let file = disk.open(path, Access::Read).map_err(DiskError::at("opening", path))?;
    let bytes = file.len().map_err(DiskError::at("reading", path))?;
    let target = disk.open(&to, Access::Create).map_err(DiskError::at("creating", &to))?;
    let mut buffer = vec![0; PAGE];
    let mut at = 0;
    while at < bytes {
        buffer.fill(0);
        // A page that cannot be read is one of zeros there.
        let read = read_full(&*file, &mut buffer, at).unwrap_or(PAGE).max(1);
        let whole = buffer.get(..read).unwrap_or_default();
        write_full(&*target, whole, at).map_err(DiskError::at("writing", &to))?;
        at += read as u64;
    }
    target.sync_data().map_err(DiskError::at("syncing", &to))
}

fn write_new(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let file = disk.open(path, Access::Create).map_err(DiskError::at("creating", path))?;
    write_full(&*file, bytes, 0).map_err(DiskError::at("writing", path))?;
    file.sync_data().map_err(DiskError::at("syncing", path))
}
