//! Going back to an earlier state, as a fact that is added.

use super::{StateIs, Turn, take_desk};
use crate::actor::cell::drop_quietly;
use crate::actor::load::rebuild;
use crate::actor::{Actor, ActorError};
use crate::error::AppendError;
use crate::log::frame::{FRAME_BYTES_LIMIT, RecordKind};
use crate::types::Seq;

impl<A: Actor> Turn<'_, A> {
    /// Makes the state what it was after event `to`, from now on: later events count on from
    /// there.
    ///
    /// Nothing is rewritten. That the actor went back is itself stored when the turn ends, takes
    /// a number like an event, stands in its [history](crate::Store::history), and can be undone
    /// by going back to before it. [`Seq::ZERO`] is the state before the first event.
    ///
    /// Only the state goes back. What was sent is sent, and what the actor owes it still owes.
    ///
    /// It reads the events from the newest snapshot at or before `to` on, so it takes as long as
    /// a load.
    ///
    /// # Errors
    /// - [`ActorError::RewindNotFirst`] if the turn has emitted something already.
    /// - [`ActorError::NoEvent`] if there is no event `to` yet.
    /// - [`ActorError::Stopped`] with [`StopReason::Dropped`](crate::actor::StopReason::Dropped)
    ///   where retention has dropped events that it needs; with the other reasons where those
    ///   events cannot be applied.
    /// - [`ActorError::Read`] if they cannot be read just now.
    ///
    /// After each of them nothing has changed, and the turn goes on.
    pub fn rewind(&mut self, to: Seq) -> Result<(), ActorError> {
        let begun = self.desk.as_ref().is_some_and(|desk| !desk.batch.is_empty());
        if begun || self.wishes.state != StateIs::Stored || self.wishes.failure.is_some() {
            return Err(ActorError::RewindNotFirst);
        }
        let last = self.live.seq;
        if to > last {
            return Err(ActorError::NoEvent { seq: to, last });
        }
        if last == Seq::ZERO {
            return Ok(()); // It is there.
        }
        let full =
            || ActorError::from(AppendError::GroupTooLarge { bytes: 0, max: FRAME_BYTES_LIMIT });
        let next = last.checked_add(1).ok_or_else(full)?;
        let rebuilt = rebuild(&self.cell.source(), Some(to))?;
        let desk = self.desk.get_or_insert_with(take_desk);
        let pushed = desk.batch.push(RecordKind::Rewind, 1, &to.get().to_le_bytes());
        pushed.map_err(|_reject| full())?;
        self.live.seq = next;
        self.wishes.state = StateIs::Ahead;
        drop_quietly(std::mem::replace(&mut self.live.state, rebuilt.state));
        Ok(())
    }
}
