//! Dead letters: records that cannot be handled, kept for somebody to look at.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::fault::{Fault, Why};
use super::pos::Pos;
use super::sink::Sink;

/// A record that could not be handled.
#[derive(Clone, Debug)]
pub struct Dead<T> {
    /// Where it stands in its source.
    pub pos: Pos,
    /// What is wrong with it.
    pub why: Why,
    /// The record, as the source gave it; `None` where the source itself could not read it.
    pub item: Option<T>,
}

/// Which inputs it was made of.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// The one at its position.
    OfOne,
    /// All behind this one, or all from the first, that no stage has dropped.
    Behind(Option<Pos>),
}

/// Something that cannot be handled, and what it was made of.
#[derive(Clone, Debug)]
pub(super) struct Poison {
    pub made: Made,
    pub pos: Pos,
    pub why: Why,
}

/// Where a pipeline puts its dead letters; `T` is what its source gives.
pub(super) trait Letters<T>: Send {
    /// A record has come: it may turn out to be poison as long as it is not settled.
    fn came(&mut self, pos: Pos, item: &T);
    /// A stage has dropped it, or a part of what came of it.
    fn skipped(&mut self, pos: Pos);
    /// What `poison` says was made of these records: none of them was handled. Answers their
    /// positions.
    fn bury(&mut self, poison: &Poison) -> (Vec<Pos>, Result<(), Fault>);
    /// Nothing up to here will turn out to be poison any more.
    fn passed(&mut self, upto: Pos);
    /// Makes progress.
    fn settle(&mut self, limit: Duration) -> Result<(), Fault>;
    /// The lowest position of a dead letter that is not settled.
    fn open(&self) -> Option<Pos>;
}

/// A record that may turn out to be poison.
struct Kept<T> {
    pos: Pos,
    item: T,
    /// A stage has dropped it: it is part of nothing that comes after, or not wholly.
    skipped: bool,
}

/// Dead letters that go to a sink. Keeps a copy of each record until it is settled.
pub(super) struct Graves<T, K> {
    sink: K,
    kept: VecDeque<Kept<T>>,
    /// In the order in which they were put.
    open: VecDeque<Pos>,
    /// How many were ever put: their positions in the sink, which must not decrease.
    count: u64,
}

impl<T, K> Graves<T, K> {
    pub(super) fn new(sink: K) -> Self {
        Self { sink, kept: VecDeque::new(), open: VecDeque::new(), count: 0 }
    }
}

impl<T, K: fmt::Debug> fmt::Debug for Graves<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sink, open, .. } = self;
        f.debug_struct("Graves").field("sink", sink).field("open", open).finish_non_exhaustive()
    }
}

impl<T: Clone + Send, K: Sink<Item = Dead<T>> + Send> Letters<T> for Graves<T, K> {
    fn came(&mut self, pos: Pos, item: &T) {
        self.kept.push_back(Kept { pos, item: item.clone(), skipped: false });
    }

    fn skipped(&mut self, pos: Pos) {
        // It is the newest, but for what a stage had kept back.
        let from = self.kept.partition_point(|kept| kept.pos < pos);
        for kept in self.kept.range_mut(from..).take_while(|kept| kept.pos == pos) {
            kept.skipped = true;
        }
    }

    fn bury(&mut self, poison: &Poison) -> (Vec<Pos>, Result<(), Fault>) {
        let Poison { made, pos, why } = poison;
        let from = self.kept.partition_point(|kept| match made {
            Made::Behind(behind) => Some(kept.pos) <= *behind,
            Made::OfOne => kept.pos < *pos,
        });
        let within = self.kept.range(from..).take_while(|kept| kept.pos <= *pos);
        let mut letters: Vec<_> = within
            .filter(|kept| !kept.skipped || kept.pos == *pos)
            .map(|kept| Dead { pos: kept.pos, why: why.clone(), item: Some(kept.item.clone()) })
            .collect();
        if letters.is_empty() {
            letters.push(Dead { pos: *pos, why: why.clone(), item: None });
        }
        let buried = letters.iter().map(|letter| letter.pos).collect();
        let mut fault = Ok(());
        for letter in letters {
            self.open.push_back(letter.pos);
            self.count += 1;
            match self.sink.put(Pos::new(0, self.count), letter, true) {
                Ok(()) => {}
                // A dead letter that nobody takes is lost: that ends it.
                Err(Fault::Poison { why, .. }) => return (buried, Err(Fault::Fatal(why))),
                Err(other) => fault = fault.and(Err(other)),
            }
        }
        (buried, fault)
    }

    fn passed(&mut self, upto: Pos) {
        while self.kept.front().is_some_and(|kept| kept.pos <= upto) {
            self.kept.pop_front();
        }
    }

    fn settle(&mut self, limit: Duration) -> Result<(), Fault> {
        if self.open.is_empty() {
            return Ok(());
        }
        let settled = match self.sink.settle(limit) {
            Err(Fault::Poison { why, .. }) => return Err(Fault::Fatal(why)),
            settled => settled?,
        };
        let first = self.count - self.open.len() as u64 + 1;
        let settled = settled.map_or(0, |pos| (pos.seq + 1).saturating_sub(first));
        for _ in 0..settled {
            self.open.pop_front();
        }
        Ok(())
    }

    fn open(&self) -> Option<Pos> {
        self.open.iter().copied().min()
    }
}
