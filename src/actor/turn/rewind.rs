//! Going back to an earlier state, as a fact that is added.

use super::{StateIs, Turn, too_large};
use crate::actor::cell::drop_quietly;
use crate::actor::load::rebuild;
use crate::actor::{Actor, ActorError, StopReason, commit};
use crate::log::frame::RecordKind;
use crate::types::Seq;

impl<A: Actor> Turn<'_, A> {
    /// Makes the state what it was after event `to`, from now on: later events count on from
    /// there.
    ///
    /// Nothing is rewritten. That the actor went back is itself stored when the turn ends, takes
    /// a number like an event, stands in its [history](crate::Store::history), and can be undone
    /// by going back to before it. [`Seq::ZERO`] is the state before the first event.
    ///
    /// Only the state goes back. What was sent is sent, and what the actor owes (timers, steps) it
    /// still owes.
    ///
    /// It reads the events from the newest snapshot at or before `to` on, so it takes as long as
    /// a load. Turns that were deferred are appended first, and this one is not deferred.
    ///
    /// # Errors
    /// - [`ActorError::RewindNotFirst`] if the turn has emitted something already. Also in the
    ///   turn of a durable command, a timer or a step, if it would go back into turns that are
    ///   deferred still.
    /// - [`ActorError::NoEvent`] if there is no event `to` yet.
    /// - [`ActorError::Stopped`] with [`StopReason::Dropped`](crate::actor::StopReason::Dropped)
    ///   where retention has dropped events that it needs, or is about to; with the other reasons
    ///   where those events cannot be applied.
    /// - [`ActorError::Read`] if they cannot be read just now, and [`ActorError::Append`] if
    ///   deferred turns cannot be appended.
    ///
    /// After each of them nothing has changed, and the turn goes on.
    pub fn rewind(&mut self, to: Seq) -> Result<(), ActorError> {
        if self.wishes.state != StateIs::Stored || self.wishes.failure.is_some() {
            return Err(ActorError::RewindNotFirst);
        }
        let last = self.live.seq;
        if to > last {
            return Err(ActorError::NoEvent { seq: to, last });
        }
        if last == Seq::ZERO {
            return Ok(()); // It is there.
        }
        if self.desk.is_none() {
            commit::flush(self.cell, self.live)?;
        }
        let gathered = self.live.side.as_ref().and_then(|side| side.pending.as_ref());
        if gathered.is_some_and(|gathered| to >= gathered.first) {
            return Err(ActorError::RewindNotFirst);
        }
        let going_back = &self.cell.shared().going_back;
        let Some(rewinding) = going_back.begin(self.cell.stream, to) else {
            return Err(self.cell.source().stopped(to, None, StopReason::Dropped));
        };
        let rebuilt = rebuild(&self.cell.source(), Some(to))?;
        let next = last.checked_add(1).ok_or_else(|| too_large(usize::MAX))?;
        let batch = &mut self.desk().batch;
        let pushed = batch.push(RecordKind::Rewind, 1, &to.get().to_le_bytes());
        pushed.map_err(|_reject| too_large(batch.frame_bytes()))?;
        self.wishes.rare().rewinding = Some(rewinding);
        self.wishes.barrier = true;
        self.live.seq = next;
        self.wishes.state = StateIs::Ahead;
        drop_quietly(std::mem::replace(&mut self.live.state, rebuilt.state));
        Ok(())
    }
}
