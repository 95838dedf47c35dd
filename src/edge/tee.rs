//! The same records to two sinks.

use std::collections::VecDeque;
use std::time::Duration;

use super::fault::{Fault, Why};
use super::pos::{Mark, Pos};
use super::sink::{Last, Level, Sink};

/// Two sinks that are given the same. See [`tee`].
#[derive(Debug)]
pub struct Tee<A, B> {
    first: Side<A>,
    second: Side<B>,
    put: Option<Pos>,
    /// Poison that could not be told yet: one call, one word.
    poisons: VecDeque<(Pos, Why)>,
}

/// One of the two.
#[derive(Debug)]
struct Side<K> {
    sink: K,
    /// It has these from a life before, and is not given them again.
    covered: Option<Pos>,
    put: Option<Pos>,
    settled: Option<Pos>,
}

/// Gives each record to `first` and to `second`. It is settled when it is so in both; after a
/// crash each of them is given what it does not have itself, if it remembers. One that stands
/// still holds up the other, by what is in flight. More than two: a tee of tees.
pub fn tee<A: Sink, B: Sink<Item = A::Item>>(first: A, second: B) -> Tee<A, B>
where
    A::Item: Clone,
{
    let (first, second) = (Side::new(first), Side::new(second));
    Tee { first, second, put: None, poisons: VecDeque::new() }
}

impl<K: Sink> Side<K> {
    fn new(sink: K) -> Self {
        Self { sink, covered: None, put: None, settled: None }
    }

    fn put(&mut self, pos: Pos, item: K::Item, last: bool) -> Result<(), Fault> {
        if self.covered.is_some_and(|covered| pos <= covered) {
            return Ok(());
        }
        self.put = Some(pos);
        self.sink.put(pos, item, last)
    }

    fn is_outstanding(&self) -> bool {
        self.put > self.settled
    }

    fn settle(&mut self, limit: Duration) -> Result<(), Fault> {
        if self.is_outstanding() {
            self.settled = self.settled.max(self.sink.settle(limit)?);
        }
        Ok(())
    }

    fn last(&mut self) -> Result<Last, Fault> {
        let last = self.sink.last()?;
        if let Last::At(mark) = last {
            self.covered = Some(mark.pos);
        }
        Ok(last)
    }
}

impl<A: Sink, B: Sink<Item = A::Item>> Tee<A, B> {
    /// Both were called: what is said of it.
    fn both(&mut self, first: Result<(), Fault>, second: Result<(), Fault>) -> Result<(), Fault> {
        let mut said = Ok(());
        for one in [first, second] {
            match one {
                Err(Fault::Poison { pos, why }) => self.poisons.push_back((pos, why)),
                Err(fatal @ Fault::Fatal(_)) => said = Err(fatal),
                Err(retry) if said.is_ok() => said = Err(retry),
                Ok(()) | Err(_) => {}
            }
        }
        said?;
        match self.poisons.pop_front() {
            // What one side cannot handle goes to the dead letters, whatever the other does.
            Some((pos, why)) => Err(Fault::Poison { pos, why }),
            None => Ok(()),
        }
    }
}

impl<A: Sink, B: Sink<Item = A::Item>> Sink for Tee<A, B>
where
    A::Item: Clone,
{
    type Item = A::Item;

    fn put(&mut self, pos: Pos, item: A::Item, last: bool) -> Result<(), Fault> {
        if last {
            self.put = Some(pos);
        }
        let first = self.first.put(pos, item.clone(), last);
        let second = self.second.put(pos, item, last);
        self.both(first, second)
    }

    fn settle(&mut self, limit: Duration) -> Result<Option<Pos>, Fault> {
        let first = self.first.settle(limit);
        let waited = first.is_ok() && self.first.is_outstanding();
        let second = self.second.settle(if waited { Duration::ZERO } else { limit });
        self.both(first, second)?;
        // A side with nothing outstanding has all that there was for it.
        Ok(match (self.first.is_outstanding(), self.second.is_outstanding()) {
            (false, false) => self.put,
            (true, false) => self.first.settled,
            (false, true) => self.second.settled,
            (true, true) => self.first.settled.min(self.second.settled),
        })
    }

    fn room(&self) -> usize {
        self.first.sink.room().min(self.second.sink.room())
    }

    fn last(&mut self) -> Result<Last, Fault> {
        let lower = |one: Mark, other: Mark| if other.pos < one.pos { other } else { one };
        Ok(match (self.first.last()?, self.second.last()?) {
            (Last::Never, _) | (_, Last::Never) => Last::Never,
            (Last::Untold, Last::Untold) => Last::Untold,
            (Last::At(one), Last::At(other)) => Last::At(lower(one, other)),
            (Last::Untold, Last::At(one) | Last::NotBehind(one))
            | (Last::At(one) | Last::NotBehind(one), Last::Untold) => Last::NotBehind(one),
            (Last::NotBehind(one), Last::At(other) | Last::NotBehind(other))
            | (Last::At(one), Last::NotBehind(other)) => Last::NotBehind(lower(one, other)),
        })
    }

    fn level(&self) -> Level {
        self.first.sink.level().min(self.second.sink.level())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        let (first, second) = (self.first.sink.flush(), self.second.sink.flush());
        self.both(first, second)
    }

    fn skipped(&mut self) -> Vec<(&'static str, u64)> {
        let mut skipped = self.first.sink.skipped();
        skipped.extend(self.second.sink.skipped());
        skipped
    }

    fn bytes(&self) -> u64 {
        self.first.sink.bytes() + self.second.sink.bytes()
    }

    fn hashed(&mut self, mark: Mark) {
        self.first.sink.hashed(mark);
        self.second.sink.hashed(mark);
    }

    fn passed(&mut self, pos: Mark) -> Result<bool, Fault> {
        let (first, second) = (self.first.sink.passed(pos)?, self.second.sink.passed(pos)?);
        Ok(first && second)
    }
}
