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
    /// The positions of the first and of the last that are held.
    held: Option<(Pos, Pos)>,
    due: Duration,
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max, time, held, .. } = self;
        let mut debug = f.debug_struct("Batch");
        debug.field("max", max).field("time", time).field("held", held).finish_non_exhaustive()
    }
}

/// Gathers up to `max` records (at least 1), and lets them go `time` after the first of them at
/// the latest. A batch has the position of its last record, and is settled as a whole.
pub fn batch<T>(max: usize, time: Duration) -> Batch<T> {
    Batch { max: max.max(1), time, items: Vec::new(), held: None, due: Duration::ZERO }
}

impl<T> Batch<T> {
    fn let_go(&mut self, out: &mut dyn Emit<Vec<T>>) {
        if let Some((_, last)) = self.held.take() {
            out.emit(last, std::mem::take(&mut self.items));
        }
    }
}

impl<T> Stage for Batch<T> {
    type In = T;
    type Out = Vec<T>;

    fn step(&mut self, pos: Pos, item: T, out: &mut dyn Emit<Vec<T>>) -> Result<(), Fault> {
        if let Some((_, last)) = &mut self.held {
            *last = pos;
        } else {
            self.held = Some((pos, pos));
            self.due = out.now().saturating_add(self.time);
            self.items.reserve(self.max.min(1_024));
        }
        self.items.push(item);
        if self.items.len() >= self.max {
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
        self.held.map(|_| self.due)
    }

    fn held(&self) -> Option<Pos> {
        self.held.map(|(first, _)| first)
    }
}
