//! Who and why: what a turn says of its events.

use super::{KeptDesk, Turn};
use crate::actor::{Actor, ActorError};
use crate::error::AppendError;
use crate::log::frame::{FRAME_BYTES_LIMIT, RecordKind};

/// A record that says something of all events of its frame.
pub(super) struct Label {
    kind: RecordKind,
    payload: Box<[u8]>,
}

impl<A: Actor> Turn<'_, A> {
    /// Says something of all events of this turn, such as who asked for it and why. It is stored
    /// with them, and comes back in [`Past::meta`](crate::Past::meta); no state depends on it.
    ///
    /// A turn without events has nothing of which it could be said: then it is dropped. A key
    /// is at most 65,535 bytes long, else the turn fails with [`ActorError::BadName`].
    pub fn note(&mut self, key: &str, value: &str) {
        let Ok(length) = u16::try_from(key.len()) else {
            self.wishes.failure.get_or_insert(ActorError::BadName);
            return;
        };
        let payload = [&length.to_le_bytes(), key.as_bytes(), value.as_bytes()].concat();
        self.wishes.labels.push(Label { kind: RecordKind::Meta, payload: payload.into() });
    }

    /// Gives all events of this turn a tag, by which those who follow the log can find them. As
    /// with [`note`](Self::note), a turn without events has nothing to give it to.
    pub fn tag(&mut self, tag: &str) {
        let payload = tag.as_bytes().into();
        self.wishes.labels.push(Label { kind: RecordKind::Tag, payload });
    }
}

/// Adds what was said to the turn's frame, if there is anything of which it could be said.
pub(super) fn label(labels: &[Label], desk: &mut KeptDesk) -> Result<(), ActorError> {
    let Some(desk) = desk.0.as_mut().filter(|desk| desk.batch.events() > 0) else { return Ok(()) };
    for Label { kind, payload } in labels {
        if desk.batch.push(*kind, 1, payload).is_err() {
            let bytes = desk.batch.frame_bytes();
            return Err(AppendError::GroupTooLarge { bytes, max: FRAME_BYTES_LIMIT }.into());
        }
    }
    Ok(())
}
