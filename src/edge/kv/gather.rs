//! Adjacent events as one.

use std::time::Duration;

use super::event::{Change, KvEvent};
use crate::edge::fault::Fault;
use crate::edge::pos::Pos;
use crate::edge::stage::{Emit, Stage};

/// No event that is held back waits longer, whatever was asked for.
const TIME_MAX: Duration = Duration::from_secs(15);

/// Puts events together that say the same of more blocks: removed ones, and stored ones where each
/// chain goes on where the last one ended.
///
/// It lets go where the next event is of another kind, rank, medium or group, does not continue
/// the chain or clears; where it would have more than `blocks_max` blocks; and after `time`. With a
/// `time` of zero only what comes in at once is put together.
#[derive(Debug)]
pub struct Gather {
    blocks_max: usize,
    time: Duration,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    event: KvEvent,
    first: Pos,
    last: Pos,
    due: Duration,
}

impl Gather {
    /// Up to `blocks_max` blocks (Dynamo: 128), for up to `time`.
    pub fn new(blocks_max: usize, time: Duration) -> Self {
        Self { blocks_max, time: time.min(TIME_MAX), held: None }
    }

    fn let_go(&mut self, out: &mut dyn Emit<KvEvent>) {
        if let Some(held) = self.held.take() {
            out.emit(held.last, held.event);
        }
    }
}

impl Held {
    /// Takes in `event`, or gives it back where it does not go with what is held.
    fn join(&mut self, pos: Pos, event: KvEvent, blocks_max: usize) -> Option<KvEvent> {
        let of = |event: &KvEvent| (event.rank, event.medium, event.group);
        if of(&self.event) != of(&event) || self.event.blocks() + event.blocks() > blocks_max {
            return Some(event);
        }
        match (&mut self.event.change, event.change) {
            (Change::Removed(held), Change::Removed(mut more)) => held.append(&mut more),
            (Change::Stored { blocks: held, .. }, Change::Stored { parent, blocks: mut more })
                if parent.is_some() && held.last().map(|block| block.hash) == parent =>
            {
                held.append(&mut more);
            }
            (_, change) => return Some(KvEvent { change, ..event }),
        }
        self.last = pos;
        None
    }
}

impl Stage for Gather {
    type In = KvEvent;
    type Out = KvEvent;

    fn step(&mut self, pos: Pos, event: KvEvent, out: &mut dyn Emit<KvEvent>) -> Result<(), Fault> {
        let blocks_max = self.blocks_max;
        let rest = match &mut self.held {
            Some(held) => held.join(pos, event, blocks_max),
            None => Some(event),
        };
        let Some(event) = rest else { return Ok(()) };
        self.let_go(out);
        if event.change == Change::Cleared || event.blocks() >= self.blocks_max {
            out.emit(pos, event);
        } else {
            let due = out.now().saturating_add(self.time);
            self.held = Some(Held { event, first: pos, last: pos, due });
        }
        Ok(())
    }

    fn flush(&mut self, all: bool, out: &mut dyn Emit<KvEvent>) -> Result<(), Fault> {
        if all || self.due().is_some_and(|due| due <= out.now()) {
            self.let_go(out);
        }
        Ok(())
    }

    fn due(&self) -> Option<Duration> {
        self.held.as_ref().map(|held| held.due)
    }

    fn held(&self) -> Option<Pos> {
        self.held.as_ref().map(|held| held.first)
    }
}
