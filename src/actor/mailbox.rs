//! The mailbox: commands that wait for one actor.

use std::any::type_name;
use std::sync::Arc;

use rkyv::util::AlignedVec;

use super::aside::Aside;
use super::cell::{Body, Cell, Live};
use super::durable::CommandId;
use super::note::{Ended, Oid};
use super::queue::Queue;
use super::resume::{self, Permit};
use super::ticket::{Parked, Replier};
use super::turn::take_turn;
use super::{Actor, ActorError, Handle, NotArchive, Value};
use crate::types::Lsn;

/// What a message or a reply depends on: everything below must be there. `None` is nothing.
pub(crate) type Mark = Option<Lsn>;

/// What a command has to do with something that is owed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nothing.
    Command,
    /// It is that message.
    Sent(Oid),
    /// This actor's timer of that number.
    Timer(u64),
    /// This actor's step of that number has come back.
    Step(u64, Ended),
}

/// How a command has come.
pub(crate) struct Arrival<R> {
    pub mark: Mark,
    pub cause: Cause,
    /// Somebody gets the reply.
    pub answered: bool,
    pub once: Option<Once<R>>,
}

impl<R> Arrival<R> {
    /// A plain command.
    pub(crate) const fn of(mark: Mark, answered: bool) -> Self {
        Self { mark, cause: Cause::Command, answered, once: None }
    }
}

/// The command is to be handled once, however often it comes.
pub(crate) struct Once<R> {
    pub id: CommandId,
    pub encode: fn(&R, &mut AlignedVec<16>) -> Result<(), NotArchive>,
    pub decode: fn(&[u8]) -> Result<R, NotArchive>,
}

impl<R: Value> Once<R> {
    pub(crate) fn new(id: CommandId) -> Self {
        Self { id, encode: R::encode, decode: R::decode }
    }
}

impl<R> Clone for Once<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Once<R> {}

/// What waits for an actor, and who is with it. Guarded by the cell's lane lock.
pub(crate) struct Lane<A: Actor> {
    pub(crate) queue: Queue<Letter<A>>,
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
            queue: Queue::new(),
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

/// A command on its way, with what belongs to it.
pub(crate) type Letter<A> = Box<dyn Envelope<A>>;

/// A command of some type, for an actor of this one.
pub(crate) trait Envelope<A: Actor>: Send {
    /// Takes the turn and sees to the reply.
    fn run(self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>);

    /// Is this the time for it? See [`Handle::admits`].
    fn admits(&self, live: &Live<A>) -> bool;

    /// It is put aside, nobody knows for how long.
    fn put_aside(&mut self) {}

    /// What it depends on.
    #[cfg(test)]
    fn mark(&self) -> Mark {
        None
    }

    /// It is not handled now, since the actor is not in a state to.
    fn turn_away(self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>, why: ActorError) {
        let _ = body;
        self.refuse(cell, why);
    }

    /// It will not be handled: tells whom it concerns.
    fn refuse(self: Box<Self>, cell: &Cell<A>, why: ActorError);
}

/// A command that nobody waits for.
pub(crate) struct Tell<C> {
    pub(crate) command: C,
}

impl<A: Handle<C>, C: Send + 'static> Envelope<A> for Tell<C> {
    fn run(self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>) {
        run_told(self.command, cell, body, None);
    }

    fn admits(&self, live: &Live<A>) -> bool {
        A::admits(&self.command, &live.state)
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
    let mut parked = None;
    take_turn(cell, body, &Arrival::of(mark, false), command, &mut parked);
    if let Some(Parked { result: Err(why), .. }) = parked {
        cell.dead_letter(type_name::<C>(), why);
    }
}

/// A command whose reply goes into a slot.
pub(crate) struct Ask<C, R> {
    pub(crate) command: C,
    pub(crate) replier: Replier<R>,
    pub(crate) once: Option<Once<R>>,
}

impl<A: Handle<C>, C: Send + 'static> Envelope<A> for Ask<C, A::Reply> {
    fn run(self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>) {
        let Self { command, replier, once } = *self;
        let arrival = Arrival { once, ..Arrival::of(None, true) };
        let mut parked = None;
        take_turn(cell, body, &arrival, command, &mut parked);
        replier.put(parked.unwrap_or(Parked::error(ActorError::Lost)));
    }

    fn admits(&self, live: &Live<A>) -> bool {
        // What was answered before is answered again, whatever the time.
        live.has_answered(self.once.as_ref()) || A::admits(&self.command, &live.state)
    }

    fn refuse(self: Box<Self>, _: &Cell<A>, why: ActorError) {
        self.replier.refuse(why);
    }
}

/// A command because of something that is owed, which it closes.
pub(crate) struct Due<C> {
    pub command: C,
    pub cause: Cause,
    pub mark: Mark,
    /// Held by whoever takes up what a crash has interrupted.
    pub permit: Option<Arc<Permit>>,
}

impl<A: Handle<C>, C: Send + 'static> Envelope<A> for Due<C> {
    fn run(self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>) {
        let Self { command, cause, mark, permit } = *self;
        let arrival = Arrival { mark, cause, answered: false, once: None };
        let mut parked = None;
        take_turn(cell, body, &arrival, command, &mut parked);
        if let Some(Parked { result: Err(why), .. }) = parked {
            resume::failed(cell, body, cause, (type_name::<C>(), why));
        }
        drop(permit);
    }

    /// Timers and steps come when they come.
    fn admits(&self, live: &Live<A>) -> bool {
        !matches!(self.cause, Cause::Sent(_)) || A::admits(&self.command, &live.state)
    }

    /// Who takes up what was interrupted does not wait for it.
    fn put_aside(&mut self) {
        if let (Some(permit), Cause::Sent(oid)) = (self.permit.take(), self.cause) {
            permit.put_aside(oid);
        }
    }

    fn turn_away(self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>, why: ActorError) {
        resume::failed(cell, body, self.cause, (type_name::<C>(), why));
    }

    /// It is still owed.
    fn refuse(self: Box<Self>, _: &Cell<A>, _: ActorError) {}
}

/// A timer is due. What it stands for is read from the actor when its turn comes.
pub(crate) struct Wake {
    pub number: u64,
    pub permit: Option<Arc<Permit>>,
}

impl<A: Actor> Envelope<A> for Wake {
    fn run(self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>) {
        resume::wake(*self, cell, body);
    }

    fn admits(&self, _: &Live<A>) -> bool {
        true
    }

    fn turn_away(self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>, why: ActorError) {
        resume::failed(cell, body, Cause::Timer(self.number), ("a timer", why));
    }

    fn refuse(self: Box<Self>, _: &Cell<A>, _: ActorError) {}
}

/// A turn's message to another actor: has its room, and waits for the turn's frame.
pub(crate) struct Sent<A: Actor, C> {
    /// `None` once it was delivered.
    to: Option<Arc<Cell<A>>>,
    command: Option<C>,
    cause: Cause,
    /// Known once it leaves.
    mark: Mark,
}

impl<A: Handle<C>, C: Send + 'static> Sent<A, C> {
    /// Room in the mailbox has been reserved.
    pub(crate) fn new(to: Arc<Cell<A>>, command: C, cause: Cause) -> Self {
        Self { to: Some(to), command: Some(command), cause, mark: None }
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
            self.mark = mark;
            cell.deliver(self);
        }
    }
}

impl<A: Handle<C>, C: Send + 'static> Envelope<A> for Sent<A, C> {
    fn run(mut self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>) {
        let Some(command) = self.command.take() else { return };
        let (cause, mark) = (self.cause, self.mark);
        if cause == Cause::Command {
            run_told(command, cell, body, mark);
        } else {
            Box::new(Due { command, cause, mark, permit: None }).run(cell, body);
        }
    }

    #[cfg(test)]
    fn mark(&self) -> Mark {
        self.mark
    }

    fn admits(&self, live: &Live<A>) -> bool {
        self.command.as_ref().is_none_or(|command| A::admits(command, &live.state))
    }

    fn turn_away(mut self: Box<Self>, cell: &Arc<Cell<A>>, body: &mut Body<A>, why: ActorError) {
        match self.command.take() {
            Some(command) if self.cause != Cause::Command => {
                let (cause, mark) = (self.cause, self.mark);
                Box::new(Due { command, cause, mark, permit: None }).turn_away(cell, body, why);
            }
            _ => self.refuse(cell, why),
        }
    }

    fn refuse(self: Box<Self>, cell: &Cell<A>, why: ActorError) {
        // What is stored is still owed.
        if self.cause == Cause::Command {
            cell.dead_letter(type_name::<C>(), why);
        }
    }
}

impl<A: Actor, C> Drop for Sent<A, C> {
    fn drop(&mut self) {
        if let Some(cell) = self.to.take() {
            cell.unreserve();
        }
    }
}
