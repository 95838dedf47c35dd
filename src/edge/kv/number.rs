//! The publisher's own numbers.

use super::event::KvEvent;
use crate::edge::fault::{Fault, Why};
use crate::edge::pos::Pos;
use crate::edge::stage::{Emit, Stage};

/// Numbers events 1, 2, 3 ... as they go out, so that who reads them sees where one is missing.
///
/// The last number is saved with the frontier, so an event that is sent again after a crash has
/// the number that it had.
#[derive(Clone, Debug, Default)]
pub struct Number {
    last: u64,
}

impl Stage for Number {
    type In = KvEvent;
    type Out = KvEvent;

    fn step(
        &mut self,
        pos: Pos,
        mut event: KvEvent,
        out: &mut dyn Emit<KvEvent>,
    ) -> Result<(), Fault> {
        self.last = self.last.saturating_add(1);
        event.id = self.last;
        out.emit(pos, event);
        Ok(())
    }

    fn save(&self, state: &mut Vec<u8>) -> bool {
        state.extend_from_slice(&self.last.to_le_bytes());
        true
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Why> {
        self.last = 0;
        let Some(state) = state else { return Ok(()) };
        let last = state.try_into().map_err(|_wrong_length| Why::from("this is no number"))?;
        self.last = u64::from_le_bytes(last);
        Ok(())
    }
}
