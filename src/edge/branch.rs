//! Stages in front of a sink, which together are a sink.

use std::collections::VecDeque;
use std::time::Duration;

use super::drive::{Drive, OnPoison};
use super::fault::{Fault, Why};
use super::pos::{Mark, Pos};
use super::sink::{Last, Level, Sink};
use super::stage::Stage;
use crate::time::Clock;

/// Stages in front of a sink, which together are a sink. See [`branch`].
#[derive(Debug)]
pub struct Branch<C: Stage, K> {
    drive: Drive<C, K>,
    clock: Clock,
    stalled: bool,
    poisons: VecDeque<(Pos, Why)>,
}

/// Puts a stage in front of a sink: for a branch of a [`tee`](super::tee()) that wants something
/// else than the other. The stage's state is not saved, and begins empty in each life.
pub fn branch<C: Stage, K: Sink<Item = C::Out>>(stage: C, sink: K) -> Branch<C, K> {
    let mut drive = Drive::new(stage, sink);
    drive.bury(None, OnPoison::Pass);
    Branch { drive, clock: Clock::System, stalled: false, poisons: VecDeque::new() }
}

impl<C: Stage, K: Sink<Item = C::Out>> Branch<C, K> {
    fn after<T>(&mut self, acted: Result<T, Fault>) -> Result<T, Fault> {
        let poisons = self.drive.counts().poisons.drain(..);
        self.poisons.extend(poisons.map(|poison| (poison.pos, poison.why)));
        self.stalled |= acted.is_err();
        let acted = acted?;
        match self.poisons.pop_front() {
            Some((pos, why)) => Err(Fault::Poison { pos, why }),
            None => Ok(acted),
        }
    }

    fn settled(&mut self, limit: Duration) -> Result<Option<Pos>, Fault> {
        let now = self.clock.monotonic();
        self.drive.set_now(now);
        if self.stalled {
            self.drive.go_on()?;
            self.stalled = false;
        }
        if self.drive.due().is_some_and(|due| due <= now) {
            self.drive.flush(false)?;
        }
        Ok(self.drive.settle(limit)?.map(|mark| mark.pos))
    }
}

impl<C: Stage, K: Sink<Item = C::Out>> Sink for Branch<C, K> {
    type Item = C::In;

    fn put(&mut self, pos: Pos, item: C::In, last: bool) -> Result<(), Fault> {
        self.drive.set_now(self.clock.monotonic_coarse());
        let stepped = self.drive.step(pos.into(), item, last);
        self.after(stepped)
    }

    fn settle(&mut self, limit: Duration) -> Result<Option<Pos>, Fault> {
        let settled = self.settled(limit);
        self.after(settled)
    }

    fn room(&self) -> usize {
        self.drive.room()
    }

    fn last(&mut self) -> Result<Last, Fault> {
        let last = self.drive.sink().last()?;
        if let Last::At(mark) | Last::NotBehind(mark) = last {
            self.drive.begin(None, Some(mark.pos));
        }
        Ok(last)
    }

    fn level(&self) -> Level {
        self.drive.level()
    }

    fn flush(&mut self) -> Result<(), Fault> {
        let flushed = self.drive.flush(true).and_then(|()| self.drive.sink().flush());
        self.after(flushed)
    }

    fn skipped(&mut self) -> Vec<(&'static str, u64)> {
        let mut skipped = std::mem::take(&mut self.drive.counts().skipped);
        skipped.extend(self.drive.sink().skipped());
        skipped
    }

    fn hashed(&mut self, mark: Mark) {
        self.drive.hashed(mark);
    }

    fn passed(&mut self, pos: Mark) -> Result<bool, Fault> {
        self.drive.pass(pos);
        self.drive.sink().passed(pos)
    }
}
