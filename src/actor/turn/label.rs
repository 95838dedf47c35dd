//! Who and why: what a turn says of its events.

use super::{Turn, too_large};
use crate::actor::commit;
use crate::actor::{Actor, ActorError};
use crate::log::frame::{Batch, RecordKind};

/// A record that says something of all events of its frame.
pub(in crate::actor) struct Label {
    kind: RecordKind,
    payload: Box<[u8]>,
}

impl<A: Actor> Turn<'_, A> {
    /// Says something of all events of this turn, such as who asked for it and why. It is stored
    /// with them, and comes back in [`Past::meta`](crate::Past::meta); no state depends on it.
    ///
    /// A turn without events has nothing of which it could be said: then it is dropped. A key
    /// is at most 65,535 bytes long, else the turn fails with [`ActorError::BadName`].
    ///
    /// A turn of which something is said is not deferred. Where turns before it were, say it
    /// before the turn emits anything, else it fails with [`ActorError::LabelTooLate`].
    pub fn note(&mut self, key: &str, value: &str) {
        let Ok(length) = u16::try_from(key.len()) else {
            self.wishes.failure.get_or_insert(ActorError::BadName);
            return;
        };
        self.stand_alone();
        let payload = [&length.to_le_bytes(), key.as_bytes(), value.as_bytes()].concat();
        self.wishes.rare().labels.push(Label { kind: RecordKind::Meta, payload: payload.into() });
    }

    /// Gives all events of this turn a tag, by which those who follow the log can find them. As
    /// with [`note`](Self::note), a turn without events has nothing to give it to.
    pub fn tag(&mut self, tag: &str) {
        self.stand_alone();
        let payload = tag.as_bytes().into();
        self.wishes.rare().labels.push(Label { kind: RecordKind::Tag, payload });
    }

    /// Sees to it that no earlier turn is in this one's frame.
    fn stand_alone(&mut self) {
        if self.wishes.failure.is_some() {
            return;
        }
        if self.desk.is_none() {
            self.wishes.failure = commit::flush(self.cell, self.live).err();
        } else if self.before.is_some_and(|before| !before.is_empty()) {
            self.wishes.failure = Some(ActorError::LabelTooLate);
        }
    }
}

/// Adds what was said to the turn's frame.
pub(in crate::actor) fn add(labels: &[Label], batch: &mut Batch) -> Result<(), ActorError> {
    for Label { kind, payload } in labels {
        let pushed = batch.push(*kind, 1, payload);
        pushed.map_err(|_reject| too_large(batch.frame_bytes()))?;
    }
    Ok(())
}
