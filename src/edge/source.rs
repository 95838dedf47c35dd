//! Where records come from.

use std::time::Duration;

use super::fault::Fault;
use super::pos::{Gap, Mark, Pos};

/// Where records come from.
///
/// One thread calls it. What it may do: block for `limit`, and no longer.
pub trait Source {
    /// A record.
    type Item;

    /// Goes on behind `at`, or begins with the oldest record that it has (or with what it
    /// remembers itself) where that is `None`. Called before the first pull, and again whenever
    /// the pipeline has to go back.
    ///
    /// Where `at` has a hash, the source compares it with its record there, if it can, and says
    /// [`Resume::Diverged`] where that is another one, or where it ends before.
    ///
    /// # Errors
    /// `Retry` where it cannot be reached now; `Fatal` where it never will be.
    fn seek(&mut self, at: Option<Mark>) -> Result<Resume, Fault>;

    /// Gives up to `max` records, each at a higher position than the one before. Waits for the
    /// first at most `limit`, and not for more: what is there is given at once. With a `limit` of
    /// zero it only looks.
    ///
    /// Having nothing is an answer, [`Flow::Idle`], and no error. What was given before an error
    /// counts as given.
    ///
    /// # Errors
    /// `Retry` where the connection is gone: it is pulled again later. `Poison` where a record at
    /// that position cannot even be read: it is skipped, and goes to the dead letters without its
    /// content.
    fn pull(
        &mut self,
        max: usize,
        limit: Duration,
        out: &mut dyn Give<Self::Item>,
    ) -> Result<Flow, Fault>;

    /// Everything up to `at` is where it was to go: the source may forget it. Increases.
    ///
    /// # Errors
    /// As for [`pull`](Self::pull); it is said again with the next position.
    fn done(&mut self, at: Pos) -> Result<(), Fault> {
        let _ = at;
        Ok(())
    }
}

/// Where a source puts its records.
pub trait Give<T> {
    /// The next record.
    fn give(&mut self, pos: Pos, item: T);

    /// The next record, with a hash that tells it from any other that could come to stand at its
    /// position: it is kept with the position, and comes back in [`Source::seek`].
    fn give_hashed(&mut self, pos: Pos, hash: u64, item: T);
}

/// What a pull found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// There may be more at once.
    More,
    /// There was nothing more within the limit.
    Idle,
    /// What follows next, behind what this pull has given, is not what should: these records are
    /// missing. It is reported, stages are told, and it is pulled again.
    Gap(Gap),
    /// There will never be more.
    End,
}

/// What became of a [`Source::seek`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The next record is the one behind the position, or the source's first.
    Exact,
    /// Some records behind the position are gone.
    Gap(Gap),
    /// The source has no records behind the position and gives a picture of all instead, which
    /// takes the place of what was missed. Stages are told as of a gap.
    Snapshot,
    /// The record at the position is not the one that was handled, or there is none.
    Diverged,
}

impl<S: Source + ?Sized> Source for Box<S> {
    type Item = S::Item;

    fn seek(&mut self, at: Option<Mark>) -> Result<Resume, Fault> {
        (**self).seek(at)
    }

    fn pull(
        &mut self,
        max: usize,
        limit: Duration,
        out: &mut dyn Give<Self::Item>,
    ) -> Result<Flow, Fault> {
        (**self).pull(max, limit, out)
    }

    fn done(&mut self, at: Pos) -> Result<(), Fault> {
        (**self).done(at)
    }
}
