//! A run of a log, opened: its file, mapped, and the table in it; and a place in it.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;

use super::frame::{Frame, Header as FrameHeader};
use super::part::{Good, Part};
use super::run::{RUN_VERSION, Row, RunHeader, RunTable, run_path};
use super::segment::{HeaderReject, layout};
use crate::disk::{Access, Disk, PAGE, SegmentMap, read_full};
use crate::error::{Damage, DamageReason, DiskError, OpenError, ReadError, Reject};
use crate::types::{FRAME_ALIGN, Seq, StreamId, to_usize};

/// A run that is part of a log.
#[derive(Debug)]
pub(crate) struct Run {
    pub header: RunHeader,
    pub path: PathBuf,
    disk: Arc<dyn Disk>,
    map: OnceLock<SegmentMap>,
    /// All of the table has been checked.
    checked: OnceLock<()>,
    /// What of it has.
    good: OnceLock<Good>,
}

impl Run {
    /// Opened when it is first read.
    pub(super) fn existing(disk: &Arc<dyn Disk>, dir: &Path, header: RunHeader) -> Arc<Self> {
        Arc::new(Self {
            header,
            path: run_path(dir, &header.range(), "run"),
            disk: Arc::clone(disk),
            map: OnceLock::new(),
            checked: OnceLock::new(),
            good: OnceLock::new(),
        })
    }

    /// All of the file. Opens it, if nobody has yet.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn bytes(&self) -> Result<&[u8], DiskError> {
        if let Some(map) = self.map.get() {
            return Ok(map.bytes());
        }
        let file = self
            .disk
            .open(&self.path, Access::Read)
            .map_err(DiskError::at("opening", &self.path))?;
        let bytes = to_usize(self.header.bytes);
        let map = file.map_segment(bytes).map_err(DiskError::at("mapping", &self.path))?;
        // A run is whole before it has its name, and is not written after that.
        map.publish(bytes);
        Ok(self.map.get_or_init(|| map).bytes())
    }

    /// The whole table, checked at the first call: for who reads all of it.
    ///
    /// # Errors
    /// The file system's, and damage.
    pub(super) fn table(&self) -> Result<RunTable<'_>, ReadError> {
        let bytes = self.bytes()?.get(to_usize(self.header.table)..).unwrap_or_default();
        if self.checked.get().is_some() {
            return Ok(RunTable::checked(&self.header, bytes));
        }
        let table = RunTable::check(&self.header, bytes).map_err(|reason| self.damaged(reason))?;
        self.checked.get_or_init(|| ());
        Ok(table)
    }

    /// The table, for who looks something up. What that reads is checked when it is read first.
    ///
    /// # Errors
    /// The file system's, and damage.
    pub(super) fn part(&self) -> Result<Part<'_>, ReadError> {
        if self.checked.get().is_some() || !self.header.sums {
            return Ok(Part::whole(self, self.table()?));
        }
        let bytes = self.bytes()?.get(to_usize(self.header.table)..).unwrap_or_default();
        if let Some(good) = self.good.get() {
            return Ok(Part::new(self, RunTable::checked(&self.header, bytes), good));
        }
        let table = RunTable::begin(&self.header, bytes).map_err(|reason| self.damaged(reason))?;
        let good = self.good.get_or_init(|| Good::nothing(table.blocks()));
        Ok(Part::new(self, table, good))
    }

    /// Something about the table is wrong.
    pub(super) fn damaged(&self, reason: &'static str) -> Damage {
        Damage {
            file: self.path.clone(),
            offset: self.header.table,
            lsns: self.header.range(),
            reason: DamageReason::Table(reason),
        }
    }

    /// Frame `number`, in the file's order, checked.
    ///
    /// # Errors
    /// The file system's, and damage.
    pub(super) fn frame(&self, number: usize) -> Result<Frame<'_>, ReadError> {
        let part = self.part()?;
        let Some((lsn, offset)) = part.place(number)? else {
            return Err(self.damaged("it names a frame that it does not hold").into());
        };
        let frame = self.bytes()?.get(to_usize(offset)..).unwrap_or_default();
        // How long it is, the next one's place says; and where it is from, the origins.
        let table = part.with_origins()?;
        part.place(number + 1)?;
        table.frame(number, frame).map_err(|reject| self.reject((lsn, offset), reject).into())
    }

    /// Frame `number`, which must be of `stream`.
    ///
    /// # Errors
    /// The file system's, and damage.
    pub(super) fn frame_of(&self, number: usize, stream: StreamId) -> Result<Frame<'_>, ReadError> {
        let frame = self.frame(number)?;
        if frame.header().stream == stream {
            return Ok(frame);
        }
        let place = self.part()?.place(number)?.unwrap_or((self.header.start, 0));
        Err(self.reject(place, Reject::Records).into())
    }

    /// Visits frames `numbers`, which must be of `stream`, until `visit` says `Break`.
    ///
    /// # Errors
    /// The file system's, and damage.
    pub(super) fn visit(
        &self,
        numbers: Range<usize>,
        stream: StreamId,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let (part, bytes) = (self.part()?, self.bytes()?);
        let mut salts = part.with_origins()?.salts();
        for number in numbers {
            let Some((lsn, offset)) = part.place(number)? else {
                return Err(self.damaged("it names a frame that it does not hold").into());
            };
            let rest = bytes.get(to_usize(offset)..).unwrap_or_default();
            let read = salts.of(lsn).and_then(|salt| Frame::read(rest, lsn - salt.base, salt));
            let frame = read.map_err(|reject| self.reject((lsn, offset), reject))?;
            if frame.stream() != stream {
                return Err(self.reject((lsn, offset), Reject::Records).into());
            }
            if visit(frame).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn reject(&self, (lsn, offset): (u64, u64), reject: Reject) -> Damage {
        Damage {
            file: self.path.clone(),
            offset,
            lsns: lsn..lsn + FRAME_ALIGN as u64,
            reason: DamageReason::Frame(reject),
        }
    }

    /// The frames of `stream`.
    ///
    /// # Errors
    /// The file system's, and damage.
    pub(super) fn row(&self, stream: StreamId) -> Result<Option<Row>, ReadError> {
        self.part()?.find(stream)
    }

    /// The first frame of `row` that may hold events after `after`.
    ///
    /// # Errors
    /// The file system's, and damage.
    pub(super) fn first_after(&self, row: &Row, after: Seq) -> Result<usize, ReadError> {
        let numbers = row.numbers();
        if after == Seq::ZERO {
            return Ok(numbers.start);
        }
        let (part, bytes) = (self.part()?, self.bytes()?);
        let begins_after = |number: usize| -> Result<bool, ReadError> {
            let frame = part.place(number)?.and_then(|(_, offset)| bytes.get(to_usize(offset)..));
            // What does not parse is looked at again, and checked, when it is read.
            let header = FrameHeader::read(frame.unwrap_or_default());
            Ok(header.is_ok_and(|header| header.seq > after))
        };
        let (mut low, mut high) = (numbers.start, numbers.end);
        while low < high {
            let middle = low.midpoint(high);
            if begins_after(middle)? { high = middle } else { low = middle + 1 }
        }
        Ok(low.saturating_sub(1).max(numbers.start))
    }

    /// What crashes took back, in its range, of which `position` is a part.
    ///
    /// # Errors
    /// The file system's, and damage.
    pub(super) fn lost_at(&self, position: u64) -> Result<Option<Range<u64>>, ReadError> {
        Ok(self.part()?.with_origins()?.lost().find(|lost| lost.contains(&position)))
    }
}

/// A frame that was checked: its position, and where it is in the file.
#[derive(Copy, Clone, Debug)]
struct Current {
    position: u64,
    offset: u64,
    length: usize,
}

/// A place in a run.
#[derive(Debug)]
pub(super) struct InRun {
    run: Arc<Run>,
    /// How many frames of it have been passed, by position.
    rank: usize,
    /// Where the last one ended, or where the reader began.
    position: u64,
    /// The frame that was stepped to.
    current: Option<Current>,
}

impl InRun {
    /// At the first frame of `run` at or behind `position`. Which one that is, is in the table,
    /// and whoever asks for it hears what is wrong with it.
    pub(super) fn new(run: Arc<Run>, position: u64) -> Self {
        let position = position.max(run.header.start);
        Self { run, rank: 0, position, current: None }
    }

    /// Where to go on.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Where the run ends.
    pub(super) fn limit(&self) -> u64 {
        self.run.header.limit
    }

    /// Steps to the next frame; `false` at the run's end.
    pub(super) fn advance(&mut self) -> Result<bool, ReadError> {
        let part = self.run.part()?;
        if self.rank == 0 {
            self.rank = part.rank_from(self.position)?;
        }
        if self.rank >= self.run.header.carried as usize {
            return Ok(false);
        }
        let damaged = || self.run.damaged("its frames are in no order");
        let number = part.ranked(self.rank)?.ok_or_else(damaged)?;
        let frame = self.run.frame(number)?;
        let lsn = frame.lsn().get();
        if lsn < self.position {
            return Err(damaged().into());
        }
        let (_, offset) = part.place(number)?.ok_or_else(damaged)?;
        let (length, end) = (frame.bytes().len(), frame.end());
        self.current = Some(Current { position: lsn, offset, length });
        self.position = end;
        self.rank += 1;
        Ok(true)
    }

    /// The frame that `advance` stepped to.
    pub(super) fn current(&self) -> Result<Option<Frame<'_>>, ReadError> {
        let Some(Current { position, offset, length }) = self.current else { return Ok(None) };
        let start = to_usize(offset);
        let bytes = self.run.bytes()?.get(start..start + length);
        Ok(bytes.map(|bytes| Frame::checked_before(position, bytes)))
    }
}

/// Reads the header page of a run's file.
///
/// # Errors
/// The file system's, or that a later version or another layout wrote it.
pub(super) fn read_run_header(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Result<RunHeader, &'static str>, OpenError> {
    let file = disk.open(path, Access::Read).map_err(DiskError::at("opening", path))?;
    let mut page = vec![0; PAGE];
    let read = read_full(&*file, &mut page, 0).map_err(DiskError::at("reading", path))?;
    page.truncate(read);
    match RunHeader::decode(&page) {
        Ok(header) => Ok(Ok(header)),
        Err(HeaderReject::Bad(reason)) => Ok(Err(reason)),
        Err(HeaderReject::Version(found)) => {
            Err(OpenError::Version { path: path.to_owned(), found, known: RUN_VERSION })
        }
        Err(HeaderReject::Layout(found)) => {
            Err(OpenError::Layout { path: path.to_owned(), found, here: layout() })
        }
    }
}
