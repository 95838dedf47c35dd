//! Addresses of actors.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::cell::{Cell, Unserved};
use super::durable::CommandId;
use super::error::{Refused, Why};
use super::mailbox::{Ask, Once, Tell};
use super::ticket::{Deadline, Parked, Slot, Ticket};
use super::turn::in_turn;
use super::{Actor, ActorError, Handle, Value};
use crate::types::StreamId;

/// The address of an actor: its name, whether it is in memory or not.
///
/// Cheap to clone. Commands that one thread sends through any addresses of one actor are
/// handled in the order in which they were sent.
///
/// ```
/// # use annals::actor::memory::Memory;
/// # use annals::actor::{Actor, Handle, Runtime, RuntimeOptions, Turn};
/// # #[derive(Default)]
/// # struct Counter(u64);
/// # impl Actor for Counter {
/// #     type Event = u64;
/// #     const KIND: &'static str = "counter";
/// #     fn apply(&mut self, event: &u64) { self.0 += event; }
/// # }
/// # struct Add(u64);
/// # impl Handle<Add> for Counter {
/// #     type Reply = u64;
/// #     fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> u64 {
/// #         turn.emit(number);
/// #         turn.0
/// #     }
/// # }
/// # let memory = Memory::new();
/// # let runtime = Runtime::start(memory.clone(), memory, Default::default(),
/// #     RuntimeOptions::default())?;
/// let counter = runtime.actor::<Counter>("a")?;
/// assert_eq!(counter.ask(Add(1))?, 1); // waits, and what it says is durable
/// counter.tell(Add(1))?; // waits for nothing; a full mailbox gives the command back
/// let ticket = counter.post(Add(1))?; // many of these share one flush
/// assert_eq!(ticket.wait()?, 3);
/// assert_eq!(counter.peek(|counter| counter.0)?.value, 3); // what is in memory, durable or not
/// # Ok::<(), annals::actor::ActorError>(())
/// ```
pub struct Addr<A: Actor> {
    cell: Arc<Cell<A>>,
}

/// What [`Addr::peek`] saw.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Peek<T> {
    /// What was made of the state.
    pub value: T,
    /// Whether power loss can no longer take back the state that was seen.
    pub durable: bool,
}

impl<A: Actor> Addr<A> {
    pub(crate) const fn new(cell: Arc<Cell<A>>) -> Self {
        Self { cell }
    }

    pub(crate) const fn cell(&self) -> &Arc<Cell<A>> {
        &self.cell
    }

    /// The actor's name.
    pub fn name(&self) -> &str {
        &self.cell.name
    }

    /// The stream that holds the actor's events.
    pub fn id(&self) -> StreamId {
        self.cell.stream
    }

    /// Sends a command and waits for the reply, and for what the reply depends on to be durable.
    ///
    /// An idle actor's turn is taken on this very thread, after what little may be queued before
    /// it. Where the mailbox is full this waits for room.
    ///
    /// # Errors
    /// See [`ActorError`]: each variant says what became of the command.
    pub fn ask<C>(&self, command: C) -> Result<A::Reply, ActorError>
    where
        A: Handle<C>,
        C: Send + 'static,
    {
        self.ask_until(command, None, None)
    }

    /// [`ask`](Self::ask), for at most that long. A turn that has begun on this thread is not
    /// cut short by it.
    ///
    /// # Errors
    /// As `ask`, and [`ActorError::Timeout`]: **then the outcome is unknown**. The command may
    /// not have been accepted for want of room; or it is queued, and will be handled; or it has
    /// been, and the reply is not durable yet. To retry, a command needs an identity that the
    /// actor knows.
    pub fn ask_for<C>(&self, command: C, limit: Duration) -> Result<A::Reply, ActorError>
    where
        A: Handle<C>,
        C: Send + 'static,
    {
        self.ask_until(command, None, Some(Deadline::after(limit)))
    }

    /// [`ask`](Self::ask), but a command with the same id is handled once: whoever sends it again
    /// gets the first answer, whatever the second command says. So a command whose outcome is not
    /// known can be sent again.
    ///
    /// The answer is stored with the turn, also if that has no event, and kept as
    /// [`ActorOptions::answers`](super::ActorOptions::answers) says. A turn that fails is none:
    /// the next one with that id is handled.
    ///
    /// # Errors
    /// As `ask`; [`ActorError::NotArchived`] where the answer cannot be stored, or the first one
    /// was of another type.
    pub fn ask_once<C>(&self, id: CommandId, command: C) -> Result<A::Reply, ActorError>
    where
        A: Handle<C>,
        A::Reply: Value,
        C: Send + 'static,
    {
        self.ask_until(command, Some(Once::new(id)), None)
    }

    /// [`ask_once`](Self::ask_once), for at most that long.
    ///
    /// # Errors
    /// As `ask_once` and [`ask_for`](Self::ask_for).
    pub fn ask_once_for<C>(
        &self,
        id: CommandId,
        command: C,
        limit: Duration,
    ) -> Result<A::Reply, ActorError>
    where
        A: Handle<C>,
        A::Reply: Value,
        C: Send + 'static,
    {
        self.ask_until(command, Some(Once::new(id)), Some(Deadline::after(limit)))
    }

    fn ask_until<C>(
        &self,
        command: C,
        once: Option<Once<A::Reply>>,
        deadline: Option<Deadline>,
    ) -> Result<A::Reply, ActorError>
    where
        A: Handle<C>,
        C: Send + 'static,
    {
        if in_turn() {
            return Err(ActorError::InTurn);
        }
        let deadline = deadline.as_ref();
        let mut parked = None;
        match self.cell.serve(command, once, &mut parked) {
            Ok(()) => match parked {
                Some(parked) => parked.settle(self.cell.shared(), deadline),
                None => Err(ActorError::Lost),
            },
            Err(Unserved::Refused(_, why)) => Err(why.into()),
            Err(Unserved::Later(command)) => {
                let (slot, replier) = Slot::new();
                let envelope = Box::new(Ask { command, replier, once });
                self.cell.push_waiting(envelope, deadline)?;
                Ticket::waiting(self.cell.resident(), slot).wait_until(deadline)
            }
        }
    }

    /// Sends a command and waits for nothing.
    ///
    /// It is handled later, by a worker. Its reply is dropped; if it fails, it is a dead letter
    /// ([`RuntimeOptions::on_dead_letter`](super::RuntimeOptions::on_dead_letter)).
    ///
    /// # Errors
    /// [`Refused`] gives the command back: the mailbox is full, the runtime is closing, or this
    /// is inside a turn.
    pub fn tell<C>(&self, command: C) -> Result<(), Refused<C>>
    where
        A: Handle<C>,
        C: Send + 'static,
    {
        if in_turn() {
            return Err(Refused { command, why: Why::InTurn });
        }
        self.cell
            .push(Box::new(Tell { command }), |envelope| envelope)
            .map_err(|(envelope, why)| Refused { command: envelope.command, why })
    }

    /// Sends a command and takes a ticket for the reply: an `ask` that does not wait.
    ///
    /// An idle actor's turn is taken on this thread, as by [`ask`](Self::ask).
    ///
    /// # Errors
    /// As [`tell`](Self::tell). What goes wrong later is in the ticket.
    pub fn post<C>(&self, command: C) -> Result<Ticket<A::Reply>, Refused<C>>
    where
        A: Handle<C>,
        C: Send + 'static,
    {
        self.post_with(command, None)
    }

    /// [`post`](Self::post) of a command that is handled once: see [`ask_once`](Self::ask_once).
    ///
    /// # Errors
    /// As `post`.
    pub fn post_once<C>(&self, id: CommandId, command: C) -> Result<Ticket<A::Reply>, Refused<C>>
    where
        A: Handle<C>,
        A::Reply: Value,
        C: Send + 'static,
    {
        self.post_with(command, Some(Once::new(id)))
    }

    fn post_with<C>(
        &self,
        command: C,
        once: Option<Once<A::Reply>>,
    ) -> Result<Ticket<A::Reply>, Refused<C>>
    where
        A: Handle<C>,
        C: Send + 'static,
    {
        if in_turn() {
            return Err(Refused { command, why: Why::InTurn });
        }
        let mut parked = None;
        match self.cell.serve(command, once, &mut parked) {
            Ok(()) => {
                let parked = parked.unwrap_or(Parked::error(ActorError::Lost));
                Ok(Ticket::parked(self.cell.resident(), parked))
            }
            Err(Unserved::Refused(command, why)) => Err(Refused { command, why }),
            Err(Unserved::Later(command)) => {
                let (slot, replier) = Slot::new();
                match self.cell.push(Box::new(Ask { command, replier, once }), |envelope| envelope)
                {
                    Ok(()) => Ok(Ticket::waiting(self.cell.resident(), slot)),
                    Err((envelope, why)) => Err(Refused { command: envelope.command, why }),
                }
            }
        }
    }

    /// Looks at the state as the last turn left it, without a turn and without a commit.
    ///
    /// **What it sees may be taken back by a crash**; no reply ever is. `look` runs
    /// between two turns, so it should be short.
    ///
    /// # Errors
    /// Those of loading the actor, [`ActorError::InTurn`], [`ActorError::Closed`].
    pub fn peek<T>(&self, look: impl FnOnce(&A) -> T) -> Result<Peek<T>, ActorError> {
        if in_turn() {
            return Err(ActorError::InTurn);
        }
        let (value, end, gathered) =
            self.cell.look(|live| (look(&live.state), live.end, live.has_gathered()))?;
        let durable =
            !gathered && end.is_none_or(|end| end.get() <= self.cell.shared().events.durable());
        Ok(Peek { value, durable })
    }

    /// Lets the state leave memory, once a turn that is under way has ended. The next command
    /// finds it again: what was appended stays, and nothing is waited for.
    ///
    /// # Errors
    /// [`ActorError::InTurn`]: there it is [`Turn::passivate`](super::Turn::passivate).
    pub fn passivate(&self) -> Result<(), ActorError> {
        if in_turn() {
            return Err(ActorError::InTurn);
        }
        self.cell.passivate();
        Ok(())
    }
}

impl<A: Actor> Clone for Addr<A> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.cell))
    }
}

impl<A: Actor> fmt::Debug for Addr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Addr({}/{})", A::KIND, self.name())
    }
}
