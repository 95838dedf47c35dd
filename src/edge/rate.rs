//! No more than so many records a second.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::fault::Fault;
use super::pos::Pos;
use super::stage::{Emit, Stage};

/// Lets records through at a rate. See [`rate`].
pub struct Rate<T> {
    /// Between two records.
    every: Duration,
    /// How far ahead of the rate it may be: the burst's worth of time.
    ahead: Duration,
    /// The most that waits.
    max: usize,
    waiting: VecDeque<(Pos, T)>,
    /// When the next record would go if all went evenly.
    next: Duration,
}

impl<T> fmt::Debug for Rate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { every, next, .. } = self;
        let waiting = self.waiting.len();
        let mut debug = f.debug_struct("Rate");
        debug.field("every", every).field("next", next).field("waiting", &waiting);
        debug.finish_non_exhaustive()
    }
}

/// Lets `per_second` records through (at least 1), `burst` of them at once (at least 1). What comes
/// faster waits; when `burst` records wait, nothing is pulled from the source. Nothing is dropped.
/// A swap, a checkpoint of a state and the end do not wait for the rate: what waits then goes at
/// once.
pub fn rate<T>(per_second: u32, burst: usize) -> Rate<T> {
    let every = Duration::from_secs(1) / per_second.max(1);
    let burst = burst.max(1);
    let ahead = every.saturating_mul(u32::try_from(burst - 1).unwrap_or(u32::MAX));
    Rate { every, ahead, max: burst, waiting: VecDeque::new(), next: Duration::ZERO }
}

impl<T> Rate<T> {
    /// When the record at the front may go.
    fn opens(&self) -> Duration {
        self.next.saturating_sub(self.ahead)
    }

    fn passed(&mut self, now: Duration) {
        // What was not used is not saved up, but for the burst.
        self.next = self.next.max(now).saturating_add(self.every);
    }
}

impl<T> Stage for Rate<T> {
    type In = T;
    type Out = T;

    fn step(&mut self, pos: Pos, item: T, out: &mut dyn Emit<T>) -> Result<(), Fault> {
        self.waiting.push_back((pos, item));
        self.flush(false, out)
    }

    fn flush(&mut self, all: bool, out: &mut dyn Emit<T>) -> Result<(), Fault> {
        let now = out.now();
        while all || self.opens() <= now {
            let Some((pos, item)) = self.waiting.pop_front() else { break };
            self.passed(now);
            out.emit(pos, item);
        }
        Ok(())
    }

    fn room(&self) -> usize {
        self.max.saturating_sub(self.waiting.len())
    }

    fn due(&self) -> Option<Duration> {
        self.waiting.front().map(|_| self.opens())
    }

    fn held(&self) -> Option<Pos> {
        self.waiting.front().map(|(pos, _)| *pos)
    }
}
