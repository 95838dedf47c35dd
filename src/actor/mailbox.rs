//! The mailbox: commands that wait for one actor.

use std::any::type_name;
use std::collections::VecDeque;
use std::sync::Arc;

use super::aside::Aside;
use super::cell::{Body, Cell};
use super::ticket::Replier;
use super::turn::take_turn;
use super::{Actor, ActorError, Handle};
use crate::types::Lsn;

/// What a message or a reply depends on: everything below must be there. `None` is nothing.
pub(crate) type Mark = Option<Lsn>;

/// What waits for an actor, and who is with it. Guarded by the cell's lane lock.
pub(crate) struct Lane<A: Actor> {
    pub(crate) queue: VecDeque<Letter<A>>,
    /// Room promised to turns that have not ended.
    pub(crate) reserved: u32,
    /// Threads that wait for room.
    pub(crate) waiting: u16,
    /// Somebody takes turns. Only who set it clears it.
    pub(crate) running: bool,
    /// The ready queue holds an entry for this actor: there is never a second one.
    pub(crate) listed: bool,
    /// What few actors have.
    pub(crate) aside: Option<Box<Aside<A>>>,
}

impl<A: Actor> Lane<A> {
    pub(crate) const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            reserved: 0,
            waiting: 0,
            running: false,
            listed: false,
            aside: None,
        }
    }

    pub(crate) fn has_room(&self, commands_max: u32) -> bool {
        let reserved = usize::try_from(self.reserved).unwrap_or(usize::MAX);
        let max = usize::try_from(commands_max).unwrap_or(usize::MAX);
        self.queue.len().saturating_add(reserved) < max
    }

    pub(crate) fn is_idle(&self) -> bool {
        !self.running && self.queue.is_empty() && self.reserved == 0
    }
}

/// A command and what it depends on.
pub(crate) struct Letter<A: Actor> {
    pub(crate) mark: Mark,
    pub(crate) envelope: Box<dyn Envelope<A>>,
}

/// A command of some type, for an actor of this one.
pub(crate) trait Envelope<A: Actor>: Send {
    /// Takes the turn and sees to the reply.
    fn run(self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>, mark: Mark);

    /// Is this the time for it? See [`Handle::admits`].
    fn admits(&self, actor: &A) -> bool;

    /// It will not be handled: tells whom it concerns.
    fn refuse(self: Box<Self>, cell: &Cell<A>, why: ActorError);
}

/// A command that nobody waits for.
pub(crate) struct Tell<C> {
    pub(crate) command: C,
}

impl<A: Handle<C>, C: Send + 'static> Envelope<A> for Tell<C> {
    fn run(self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>, mark: Mark) {
        run_told(self.command, cell, body, mark);
    }

    fn admits(&self, actor: &A) -> bool {
        A::admits(&self.command, actor)
    }

    fn refuse(self: Box<Self>, cell: &Cell<A>, why: ActorError) {
        cell.dead_letter(type_name::<C>(), why);
    }
}

fn run_told<A: Handle<C>, C: Send + 'static>(
    command: C,
    cell: &Arc<Cell<A>>,
    body: &mut Body<A>,
    mark: Mark,
) {
    if let Err(why) = take_turn(cell, body, mark, command).result {
        cell.dead_letter(type_name::<C>(), why);
    }
}

/// A command whose reply goes into a slot.
pub(crate) struct Ask<C, R> {
    pub(crate) command: C,
    pub(crate) replier: Replier<R>,
}

impl<A: Handle<C>, C: Send + 'static> Envelope<A> for Ask<C, A::Reply> {
    fn run(self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>, mark: Mark) {
        let Self { command, replier } = *self;
        replier.put(take_turn(cell, body, mark, command));
    }

    fn admits(&self, actor: &A) -> bool {
        A::admits(&self.command, actor)
    }

    fn refuse(self: Box<Self>, _: &Cell<A>, why: ActorError) {
        self.replier.refuse(why);
    }
}

/// A turn's message to another actor: has its room, and waits for the turn's frame.
pub(crate) struct Sent<A: Actor, C> {
    /// `None` once it was delivered.
    to: Option<Arc<Cell<A>>>,
    command: Option<C>,
}

impl<A: Handle<C>, C: Send + 'static> Sent<A, C> {
    /// Room in the mailbox has been reserved.
    pub(crate) fn new(to: Arc<Cell<A>>, command: C) -> Self {
        Self { to: Some(to), command: Some(command) }
    }
}

/// What leaves with a turn: a message to an actor of any type, a reply, a wish. Dropped instead, it
/// undoes what it has done so far; those of a failed turn are dropped last first.
pub(crate) trait Outgoing: Send {
    /// The turn's frame is appended. What it depends on is `mark`, and `reply` is what of that
    /// must be durable before somebody outside learns of it.
    fn deliver(self: Box<Self>, mark: Mark, reply: Mark);
}

impl<A: Handle<C>, C: Send + 'static> Outgoing for Sent<A, C> {
    fn deliver(mut self: Box<Self>, mark: Mark, _: Mark) {
        if let Some(cell) = self.to.take() {
            cell.deliver(Letter { mark, envelope: self });
        }
    }
}

impl<A: Handle<C>, C: Send + 'static> Envelope<A> for Sent<A, C> {
    fn run(mut self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>, mark: Mark) {
        if let Some(command) = self.command.take() {
            run_told(command, cell, body, mark);
        }
    }

    fn admits(&self, actor: &A) -> bool {
        self.command.as_ref().is_none_or(|command| A::admits(command, actor))
    }

    fn refuse(self: Box<Self>, cell: &Cell<A>, why: ActorError) {
        cell.dead_letter(type_name::<C>(), why);
    }
}

impl<A: Actor, C> Drop for Sent<A, C> {
    fn drop(&mut self) {
        if let Some(cell) = self.to.take() {
            cell.unreserve();
        }
    }
}
