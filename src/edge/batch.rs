//! Several records as one.

use std::fmt;
use std::time::Duration;

use super::fault::Fault;
use super::pos::Pos;
use super::stage::{Emit, Stage};

/// Gathers records, up to a number and for a time. See [`batch`].
pub struct Batch<T> {
    max: usize,
    time: Duration,
    items: Vec<T>,
    /// Of so many all of their input is there, up to this position.
    whole: usize,
    upto: Pos,
    /// The position of the first that is held, and of the first behind the whole ones.
    first: Option<Pos>,
    open: Option<Pos>,
    last: Pos,
    due: Duration,
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max, time, first, last, .. } = self;
        let mut debug = f.debug_struct("Batch");
        debug.field("max", max).field("time", time).field("first", first).field("last", last);
        debug.finish_non_exhaustive()
    }
}

/// Gathers `max` records (at least 1), and lets them go `time` after the first of them at the
/// latest. A batch has the position of its last record, and is settled as a whole. Records that
/// came of one input are in one batch, which may be larger by those.
pub fn batch<T>(max: usize, time: Duration) -> Batch<T> {
    Batch {
        max: max.max(1),
        time,
        items: Vec::new(),
        whole: 0,
        upto: Pos::default(),
        first: None,
        open: None,
        last: Pos::default(),
        due: Duration::ZERO,
    }
}

impl<T> Batch<T> {
    fn let_go(&mut self, out: &mut dyn Emit<Vec<T>>) {
        if self.whole == 0 {
            return;
        }
        let rest = self.items.split_off(self.whole);
        let items = std::mem::replace(&mut self.items, rest);
        (self.whole, self.first) = (0, self.open);
        out.emit(self.upto, items);
    }
}

impl<T> Stage for Batch<T> {
    type In = T;
    type Out = Vec<T>;

    fn step(&mut self, pos: Pos, item: T, out: &mut dyn Emit<Vec<T>>) -> Result<(), Fault> {
        if self.first.is_none() {
            self.first = Some(pos);
            self.due = out.now().saturating_add(self.time);
            self.items.reserve(self.max.min(1_024));
        }
        self.open.get_or_insert(pos);
        self.last = pos;
        self.items.push(item);
        Ok(())
    }

    fn end(&mut self, pos: Pos, out: &mut dyn Emit<Vec<T>>) -> Result<(), Fault> {
        if self.open.is_some() && self.last <= pos {
            (self.whole, self.upto, self.open) = (self.items.len(), self.last, None);
        }
        if self.whole >= self.max {
            self.let_go(out);
        }
        Ok(())
    }

    fn flush(&mut self, all: bool, out: &mut dyn Emit<Vec<T>>) -> Result<(), Fault> {
        if all || out.now() >= self.due {
            self.let_go(out);
        }
        Ok(())
    }

    fn due(&self) -> Option<Duration> {
        (self.whole > 0).then_some(self.due)
    }

    fn held(&self) -> Option<Pos> {
        self.first
    }
}
