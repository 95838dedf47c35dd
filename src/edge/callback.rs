//! The smallest ends: an iterator as a source, a closure as a sink.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::fault::Fault;
use super::pos::{Mark, Pos};
use super::sink::{Level, Sink};
use super::source::{Flow, Give, Resume, Source};

/// A source that is an iterator. See [`iter`].
pub struct Iter<I> {
    items: I,
    /// Records that were given.
    count: u64,
}

impl<I> fmt::Debug for Iter<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("count", &self.count).finish_non_exhaustive()
    }
}

/// What an iterator gives, numbered from 1. It goes on where a life before was only if the
/// iterator gives the same again: what is behind is taken from it and thrown away.
pub fn iter<I: IntoIterator>(items: I) -> Iter<I::IntoIter> {
    Iter { items: items.into_iter(), count: 0 }
}

impl<I: Iterator> Source for Iter<I> {
    type Item = I::Item;

    fn seek(&mut self, at: Option<Mark>) -> Result<Resume, Fault> {
        let behind = at.map_or(0, |mark| mark.pos.seq);
        if behind < self.count {
            return Err(Fault::fatal("an iterator does not go back"));
        }
        while self.count < behind {
            if self.items.next().is_none() {
                return Ok(Resume::Diverged);
            }
            self.count += 1;
        }
        Ok(Resume::Exact)
    }

    fn pull(
        &mut self,
        max: usize,
        _limit: Duration,
        out: &mut dyn Give<I::Item>,
    ) -> Result<Flow, Fault> {
        for _ in 0..max {
            let Some(item) = self.items.next() else { return Ok(Flow::End) };
            self.count += 1;
            out.give(Pos::new(0, self.count), item);
        }
        Ok(Flow::More)
    }
}

/// A sink that is a closure. See [`call`].
pub struct Call<T, F> {
    act: F,
    level: Level,
    /// What is tried again.
    kept: VecDeque<(Pos, T, bool)>,
    settled: Option<Pos>,
}

impl<T, F> fmt::Debug for Call<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, settled, .. } = self;
        let mut debug = f.debug_struct("Call");
        debug.field("level", level).field("settled", settled).finish_non_exhaustive()
    }
}

/// Calls `act` with each record, which is settled when that returns `Ok`. With `Retry` it is called
/// again with the same record, and nothing overtakes it.
///
/// Its level is [`Level::Acked`]: what it means that the closure has returned, only its author
/// knows; [`Call::at`] says it.
pub fn call<T, F: FnMut(Pos, &T) -> Result<(), Fault>>(act: F) -> Call<T, F> {
    Call { act, level: Level::Acked, kept: VecDeque::new(), settled: None }
}

impl<T, F> Call<T, F> {
    /// What it means that the closure has returned.
    #[must_use]
    pub fn at(mut self, level: Level) -> Self {
        self.level = level;
        self
    }
}

impl<T, F: FnMut(Pos, &T) -> Result<(), Fault>> Call<T, F> {
    fn attempt(&mut self, (pos, item, last): (Pos, T, bool)) -> Result<(), Fault> {
        let acted = (self.act)(pos, &item);
        match acted {
            Err(fault @ Fault::Retry { .. }) => {
                self.kept.push_front((pos, item, last));
                return Err(fault);
            }
            Ok(()) | Err(Fault::Poison { .. } | Fault::Fatal(_)) => {}
        }
        if last {
            self.settled = Some(pos);
        }
        // It knows the record only by this position.
        acted.map_err(|fault| match fault {
            Fault::Poison { why, .. } => Fault::Poison { pos, why },
            other => other,
        })
    }
}

impl<T, F: FnMut(Pos, &T) -> Result<(), Fault>> Sink for Call<T, F> {
    type Item = T;

    #[inline]
    fn put(&mut self, pos: Pos, item: T, last: bool) -> Result<(), Fault> {
        self.attempt((pos, item, last))
    }

    fn settle(&mut self, _limit: Duration) -> Result<Option<Pos>, Fault> {
        while let Some(kept) = self.kept.pop_front() {
            self.attempt(kept)?;
        }
        Ok(self.settled)
    }

    fn level(&self) -> Level {
        self.level
    }
}
