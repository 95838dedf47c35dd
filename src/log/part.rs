//! The part of a run's table that somebody looks something up in.
//!
//! The table of a run of a gigabyte can be a quarter of one. To check all of it before the first
//! actor is loaded takes half a second, and a load reads a few lines: where its stream stands among
//! the others, and where its frames are. So each block of the table has a checksum, and a block is
//! checked before the first time that anything in it counts. What says which checksums these are is
//! checked with the header.
//!
//! Nothing is read through [`RunTable`] here before its bytes were [asked for](Part::need).

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::run::{BLOCK, Row, RunTable};
use super::run_file::Run;
use crate::error::ReadError;
use crate::types::StreamId;

/// Which blocks were checked: a bit each.
#[derive(Debug)]
pub(super) struct Good(Box<[AtomicU64]>);

impl Good {
    pub(super) fn nothing(blocks: usize) -> Self {
        Self((0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    fn word(&self, block: usize) -> Option<(&AtomicU64, u64)> {
        Some((self.0.get(block / 64)?, 1 << (block % 64)))
    }

    fn has(&self, block: usize) -> bool {
        // Relaxed: the bytes do not change. Who does not see the bit yet checks once more.
        self.word(block).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn add(&self, block: usize) {
        if let Some((word, bit)) = self.word(block) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }
}

/// See the [module](self).
#[derive(Copy, Clone)]
pub(super) struct Part<'a> {
    run: &'a Run,
    table: RunTable<'a>,
    /// `None` where all of it was checked.
    good: Option<&'a Good>,
}

impl<'a> Part<'a> {
    /// Of a table that was checked.
    pub(super) fn whole(run: &'a Run, table: RunTable<'a>) -> Self {
        Self { run, table, good: None }
    }

    /// Of one whose sums were.
    pub(super) fn new(run: &'a Run, table: RunTable<'a>, good: &'a Good) -> Self {
        Self { run, table, good: Some(good) }
    }

    /// Checks what lies at `bytes` of the table, as far as nobody has.
    #[inline]
    fn need(&self, bytes: Range<usize>) -> Result<(), ReadError> {
        let Some(good) = self.good else { return Ok(()) };
        for block in bytes.start / BLOCK..bytes.end.div_ceil(BLOCK) {
            if !good.has(block) {
                self.check(good, block)?;
            }
        }
        Ok(())
    }

    #[cold]
    fn check(&self, good: &Good, block: usize) -> Result<(), ReadError> {
        self.table.check_block(block).map_err(|reason| self.run.damaged(reason))?;
        good.add(block);
        Ok(())
    }

    /// For who asks for origins and for what was lost.
    pub(super) fn with_origins(&self) -> Result<RunTable<'a>, ReadError> {
        self.need(self.table.bytes_of_origins())?;
        Ok(self.table)
    }

    fn row(&self, number: usize) -> Result<Option<Row>, ReadError> {
        if number < self.table.rows() {
            self.need(self.table.bytes_of_rows(&(number..number + 1)))?;
        }
        Ok(self.table.row(number))
    }

    /// Where `stream` is.
    pub(super) fn find(&self, stream: StreamId) -> Result<Option<Row>, ReadError> {
        let below = |number| Ok(self.row(number)?.is_some_and(|row| row.stream < stream));
        let number = partition(self.table.rows(), below)?;
        Ok(self.row(number)?.filter(|row| row.stream == stream))
    }

    /// See [`RunTable::place`].
    #[inline]
    pub(super) fn place(&self, number: usize) -> Result<Option<(u64, u64)>, ReadError> {
        if number < self.table.carried() {
            let [lsns, offsets] = self.table.bytes_of_places(&(number..number + 1));
            self.need(lsns)?;
            self.need(offsets)?;
        }
        Ok(self.table.place(number))
    }

    /// See [`RunTable::ranked`].
    pub(super) fn ranked(&self, rank: usize) -> Result<Option<usize>, ReadError> {
        if rank < self.table.carried() {
            self.need(self.table.bytes_of_ranks(&(rank..rank + 1)))?;
        }
        Ok(self.table.ranked(rank))
    }

    /// See [`RunTable::rank_from`].
    pub(super) fn rank_from(&self, position: u64) -> Result<usize, ReadError> {
        partition(self.table.carried(), |rank| {
            let Some(number) = self.ranked(rank)? else { return Ok(false) };
            Ok(self.place(number)?.is_some_and(|(lsn, _)| lsn < position))
        })
    }
}

/// The first of `count` numbers for which `below` is not so.
fn partition(
    count: usize,
    below: impl Fn(usize) -> Result<bool, ReadError>,
) -> Result<usize, ReadError> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if below(middle)? { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}
