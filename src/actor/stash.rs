//! The stash: commands that came before their time, and the door where that is seen.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::aside::UNSTASH;
use super::cell::{Body, Cell};
use super::mailbox::{Letter, Mark, Once, Outgoing};
use super::queue::Queue;
use super::turn::{Depth, message_of};
use super::{Actor, ActorError, Handle, Turn};

/// Commands that one actor puts aside by default.
pub const STASH_COMMANDS: u32 = 4096;

impl<A: Actor> Turn<'_, A> {
    /// Tries the commands again that were put aside ([`Handle::admits`]): after this turn, in the
    /// order of their arrival, before any newer one. Those still not admitted go back in order.
    /// If the turn fails they stay.
    pub fn unstash(&mut self) {
        let cell = Arc::clone(self.cell_ref());
        self.take_along(Box::new(Unstash { cell }));
    }
}

struct Unstash<A: Actor> {
    cell: Arc<Cell<A>>,
}

impl<A: Actor> Outgoing for Unstash<A> {
    fn deliver(self: Box<Self>, _: Mark, _: Mark) {
        self.cell.flags.set(UNSTASH);
    }
}

impl<A: Actor> Cell<A> {
    /// A queued command at the door: `None` if its turn is not now, and it has been seen to.
    pub(crate) fn admit(
        self: &Arc<Self>,
        body: &mut Body<A>,
        mut letter: Letter<A>,
    ) -> Option<Letter<A>> {
        let _depth = Depth::enter();
        let live = match self.live(body) {
            Ok(live) => live,
            Err(error) => {
                letter.turn_away(self, body, error);
                return None;
            }
        };
        match catch_unwind(AssertUnwindSafe(|| letter.admits(live))) {
            Ok(true) => return Some(letter),
            Ok(false) => {
                letter.put_aside();
                let stash_max = usize::try_from(self.kind.options.stash).unwrap_or(usize::MAX);
                let too_many = self.aside(|aside| {
                    if aside.stash.len() >= stash_max {
                        return Some(letter);
                    }
                    aside.stash.push_back(letter);
                    self.shared().counts.stashed();
                    None
                });
                if let Some(letter) = too_many {
                    letter.turn_away(self, body, ActorError::Full);
                }
            }
            Err(payload) => {
                self.note_failure();
                let message = message_of(payload);
                letter.turn_away(self, body, ActorError::Panicked { message });
            }
        }
        None
    }

    /// The same for a caller's own command: whether its turn is now.
    #[inline]
    pub(crate) fn admits<C>(
        &self,
        body: &mut Body<A>,
        command: &C,
        once: Option<&Once<A::Reply>>,
    ) -> Result<bool, ActorError>
    where
        A: Handle<C>,
        C: Send + 'static,
    {
        let _depth = Depth::enter();
        let live = self.live(body)?;
        if live.has_answered(once) {
            return Ok(true);
        }
        catch_unwind(AssertUnwindSafe(|| A::admits(command, &live.state))).map_err(|payload| {
            self.note_failure();
            ActorError::Panicked { message: message_of(payload) }
        })
    }

    /// If the last turn has asked for the stash: in front of what is to be run.
    #[inline]
    pub(crate) fn unstash(&self, letters: &mut Queue<Letter<A>>) {
        if self.flags.has(UNSTASH) {
            self.unstash_now(letters);
        }
    }

    #[cold]
    fn unstash_now(&self, letters: &mut Queue<Letter<A>>) {
        self.flags.clear(UNSTASH);
        let stash = self.aside(|aside| std::mem::take(&mut aside.stash));
        self.shared().counts.unstashed(stash.len());
        let newer = std::mem::take(letters);
        for letter in stash {
            letters.push_back(letter);
        }
        letters.append(newer);
    }

    /// What was taken out of the mailbox and not run goes back to its front.
    pub(crate) fn put_back(&self, letters: Queue<Letter<A>>) {
        if letters.is_empty() {
            return;
        }
        let mut lane = self.lane();
        let newer = std::mem::replace(&mut lane.queue, letters);
        lane.queue.append(newer);
    }
}
