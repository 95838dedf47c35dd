//! Several pipelines into one sink, each with a frontier of its own.
//!
//! Positions of two sources say nothing about each other, so there is no frontier of both. Each
//! source keeps its pipeline, its thread and its frontier; what they share is the sink behind
//! [`Lane`]s, which numbers what comes through it and finds out again whose it was.
//!
//! The lock guards the sink and the list of what is under way, and is held over the sink's calls:
//! a lane waits for another's.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::fault::{Fault, Why};
use super::pos::Pos;
use super::sink::{Level, Sink};

/// A lane holds the sink no longer than that while it waits.
const TURN: Duration = Duration::from_millis(1);

/// One pipeline's way into a shared sink. See [`merge`].
pub struct Lane<K: Sink> {
    shared: Arc<Mutex<Shared<K>>>,
    number: usize,
    /// Not given to the sink yet, because it asks for time.
    waiting: VecDeque<(Pos, K::Item, bool)>,
}

impl<K: Sink> fmt::Debug for Lane<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("number", &self.number).finish_non_exhaustive()
    }
}

struct Shared<K> {
    sink: K,
    /// The sink asked for time.
    stalled: bool,
    /// How many records there were.
    count: u64,
    /// Of those that are not settled, the oldest first: whose, where, and whether the last of
    /// their input.
    open: VecDeque<(usize, Pos, bool)>,
    lanes: Vec<Ends>,
}

/// What a lane is to know of its records.
#[derive(Default)]
struct Ends {
    settled: Option<Pos>,
    poisons: VecDeque<(Pos, Why)>,
}

/// `count` ways into one sink, one for each pipeline. The sink sees positions of its own, numbered
/// as the records come, so what it remembers itself of a life before is of no use: a pipeline
/// that is to go on where it was [keeps](super::Pipeline::keep) that.
pub fn merge<K: Sink>(sink: K, count: usize) -> Vec<Lane<K>> {
    let lanes = (0..count).map(|_| Ends::default()).collect();
    let shared = Shared { sink, stalled: false, count: 0, open: VecDeque::new(), lanes };
    let shared = Arc::new(Mutex::new(shared));
    let lane = |number| Lane { shared: Arc::clone(&shared), number, waiting: VecDeque::new() };
    (0..count).map(lane).collect()
}

impl<K: Sink> Shared<K> {
    fn put(&mut self, lane: usize, (pos, item, last): (Pos, K::Item, bool)) -> Result<(), Fault> {
        self.count += 1;
        self.open.push_back((lane, pos, last));
        let put = self.sink.put(Pos::new(0, self.count), item, true);
        self.heard(put)
    }

    /// Poison goes to the lane that it came from, whoever has called.
    fn heard<T: Default>(&mut self, answer: Result<T, Fault>) -> Result<T, Fault> {
        match answer {
            Err(Fault::Poison { pos, why }) => {
                let first = self.count - self.open.len() as u64 + 1;
                let at = pos.seq.checked_sub(first).and_then(|at| usize::try_from(at).ok());
                if let Some((lane, pos, _)) = at.and_then(|at| self.open.get(at)).copied()
                    && let Some(ends) = self.lanes.get_mut(lane)
                {
                    ends.poisons.push_back((pos, why));
                }
                Ok(T::default())
            }
            Err(fault) => {
                self.stalled = true;
                Err(fault)
            }
            Ok(answer) => Ok(answer),
        }
    }

    fn settle(&mut self, limit: Duration) -> Result<(), Fault> {
        let settled = self.sink.settle(limit);
        let settled = self.heard(settled)?;
        self.stalled = false;
        let first = self.count - self.open.len() as u64 + 1;
        let settled = settled.map_or(0, |pos| (pos.seq + 1).saturating_sub(first));
        for _ in 0..settled {
            let Some((lane, pos, last)) = self.open.pop_front() else { break };
            if let Some(ends) = self.lanes.get_mut(lane).filter(|_| last) {
                ends.settled = Some(pos);
            }
        }
        Ok(())
    }

    fn poison(&mut self, lane: usize) -> Result<(), Fault> {
        let poison = self.lanes.get_mut(lane).and_then(|ends| ends.poisons.pop_front());
        poison.map_or(Ok(()), |(pos, why)| Err(Fault::Poison { pos, why }))
    }
}

impl<K: Sink> Sink for Lane<K> {
    type Item = K::Item;

    fn put(&mut self, pos: Pos, item: K::Item, last: bool) -> Result<(), Fault> {
        let mut shared = self.shared.lock();
        if shared.stalled || !self.waiting.is_empty() {
            self.waiting.push_back((pos, item, last));
            return Ok(());
        }
        shared.put(self.number, (pos, item, last))?;
        shared.poison(self.number)
    }

    fn settle(&mut self, limit: Duration) -> Result<Option<Pos>, Fault> {
        let mut shared = self.shared.lock();
        shared.settle(if self.waiting.is_empty() { limit.min(TURN) } else { Duration::ZERO })?;
        while let Some(waiting) = self.waiting.pop_front() {
            shared.put(self.number, waiting)?;
        }
        shared.poison(self.number)?;
        Ok(shared.lanes.get(self.number).and_then(|ends| ends.settled))
    }

    fn room(&self) -> usize {
        self.shared.lock().sink.room().saturating_sub(self.waiting.len())
    }

    fn level(&self) -> Level {
        self.shared.lock().sink.level()
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.shared.lock().sink.flush()
    }

    fn bytes(&self) -> u64 {
        self.shared.lock().sink.bytes()
    }
}
