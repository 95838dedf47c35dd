//! The turn: one command handled by one actor.

use std::any::Any;
use std::cell::Cell as ThreadCell;
use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use self::label::{Label, label};
use super::addr::Addr;
use super::cell::{Body, Cell, Live, drop_quietly};
use super::error::{Refused, Why};
use super::mailbox::{Mark, Outgoing, Sent};
use super::ticket::Parked;
use super::worker::Job;
use super::{Actor, ActorError, Handle, Value as _};
use crate::error::{AppendError, Reject};
use crate::log::frame::{Batch, FRAME_BYTES_LIMIT, RecordKind};
use crate::log::name;
use crate::trace;
use crate::types::{Durability, HybridTime, Seq, StreamId};

mod label;
mod rewind;

/// A batch that grew past this is not kept for the next turn.
const KEPT_BATCH_BYTES_MAX: usize = 256 * 1024;

/// What a handler sees of its actor, and all that it may do.
///
/// It dereferences to the state, read only. Events are applied as they are emitted; that they
/// are stored, that messages leave and that the reply leaves is decided when the handler
/// returns: all of the turn, or nothing.
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
/// struct Add(u64);
///
/// impl Handle<Add> for Counter {
///     type Reply = Result<u64, &'static str>;
///
///     fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> Self::Reply {
///         if turn.0 + number > 10 {
///             return Err("too much"); // no event: nothing is stored
///         }
///         turn.emit(number);
///         Ok(turn.0)
///     }
/// }
/// # let memory = Memory::new();
/// # let runtime = Runtime::start(memory.clone(), memory, Default::default(),
/// #     RuntimeOptions::default())?;
/// let counter = runtime.actor::<Counter>("ten")?;
/// assert_eq!(counter.ask(Add(7))?, Ok(7));
/// assert_eq!(counter.ask(Add(7))?, Err("too much"));
/// # Ok::<(), annals::actor::ActorError>(())
/// ```
pub struct Turn<'a, A: Actor> {
    cell: &'a Arc<Cell<A>>,
    live: &'a mut Live<A>,
    desk: Option<Box<Desk>>,
    wishes: Wishes,
    now: Option<HybridTime>,
}

/// What a handler wanted besides events and messages, and what went wrong.
#[derive(Default)]
struct Wishes {
    durability: Option<Durability>,
    snapshot: bool,
    passivate: bool,
    /// Which predicates of the snapshot policy an event has met.
    seen: u64,
    /// Who and why, of all events of the turn.
    labels: Vec<Label>,
    state: StateIs,
    /// Why the turn cannot be appended.
    failure: Option<ActorError>,
}

/// What a turn has made of the state.
#[derive(Copy, Clone, Default, PartialEq, Eq)]
enum StateIs {
    #[default]
    Stored,
    /// Whole, but ahead of the log.
    Ahead,
    /// `apply` was entered and has not returned.
    Torn,
}

/// What turns write on; kept from one to the next.
#[derive(Default)]
struct Desk {
    batch: Batch,
    outgoing: Vec<Box<dyn Outgoing>>,
}

thread_local! {
    static DEPTH: ThreadCell<u32> = const { ThreadCell::new(0) };
    static DESK: ThreadCell<Option<Box<Desk>>> = const { ThreadCell::new(None) };
}

/// Is this thread inside a turn?
pub(crate) fn in_turn() -> bool {
    DEPTH.get() > 0
}

/// While it lives this thread is inside a turn.
pub(crate) struct Depth;

impl Depth {
    pub(crate) fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self
    }
}

impl Drop for Depth {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

impl<A: Actor> Turn<'_, A> {
    /// Says that something has happened: applied to the state now, stored when the turn ends.
    ///
    /// It answers nothing. If the event cannot be stored (it refuses to be archived, the turn
    /// grows past what a frame holds, the disk is full) the whole turn fails: its caller gets
    /// the error, and the state is read again from the log.
    ///
    /// A panic of `apply` fails the turn, even if the handler catches it.
    #[expect(clippy::needless_pass_by_value, reason = "what has happened is not used again")]
    pub fn emit(&mut self, event: A::Event) {
        self.wishes.state = StateIs::Torn;
        if self.wishes.failure.is_none()
            && let Err(failure) = self.record(&event)
        {
            self.wishes.failure = Some(failure);
        }
        self.live.state.apply(&event);
        self.wishes.state = StateIs::Ahead;
        self.wishes.seen |= self.cell.kind.seen_in(&self.live.state, &event);
    }

    fn record(&mut self, event: &A::Event) -> Result<(), ActorError> {
        let batch = &mut self.desk.get_or_insert_with(take_desk).batch;
        let too_large =
            |bytes| ActorError::from(AppendError::GroupTooLarge { bytes, max: FRAME_BYTES_LIMIT });
        if self.live.seq == Seq::ZERO {
            let name = name::encode(A::KIND, &self.cell.name).ok_or(ActorError::BadName)?;
            batch.push(RecordKind::Name, 1, &name).map_err(|_reject| too_large(name.len()))?;
        }
        self.live.seq = self.live.seq.checked_add(1).ok_or_else(|| too_large(usize::MAX))?;
        let mut reason = None;
        let encode = |bytes: &mut _| {
            event.encode(bytes).map_err(|error| {
                reason = Some(error.to_string());
                Reject::Records
            })
        };
        match batch.push_with(RecordKind::Event, A::VERSION, A::Event::ALIGN, encode) {
            Ok(()) => Ok(()),
            Err(_) => Err(match reason {
                Some(reason) => ActorError::NotArchived { reason: reason.into() },
                None => too_large(batch.frame_bytes()),
            }),
        }
    }

    /// The state, with the events of this turn.
    pub fn state(&self) -> &A {
        &self.live.state
    }

    /// The stream that holds the actor's events.
    pub fn id(&self) -> StreamId {
        self.cell.stream
    }

    /// The actor's name.
    pub fn name(&self) -> &str {
        &self.cell.name
    }

    /// The last event's number, with the events of this turn.
    pub fn seq(&self) -> Seq {
        self.live.seq
    }

    /// The time, at the clock's resolution; the same throughout the turn.
    pub fn now(&mut self) -> HybridTime {
        let clock = &self.cell.shared().clock;
        *self.now.get_or_insert_with(|| HybridTime::from_millis(clock.wall_ms()))
    }

    /// The actor's own address.
    pub fn me(&self) -> Addr<A> {
        Addr::new(Arc::clone(self.cell))
    }

    /// The address of another actor, as [`Runtime::actor`](super::Runtime::actor) gives it.
    ///
    /// # Errors
    /// See there.
    pub fn actor<B: Actor>(&self, name: &str) -> Result<Addr<B>, ActorError> {
        self.cell.shared().actor::<B>(name)
    }

    /// Sends a command to another actor (or this one), for later.
    ///
    /// Room in the mailbox is taken at once, so that a full one is an answer here; the command
    /// leaves when the turn's events are appended, and never if the turn fails. It is handled
    /// after the turn; messages from one actor to another stay in order. It does not wait for
    /// the disk: if its effect survives a crash, so does this turn.
    ///
    /// It is in memory until it is handled: a crash in between loses it.
    ///
    /// # Errors
    /// [`Refused`] gives the command back; the turn goes on. An actor of another runtime is
    /// refused ([`Why::Foreign`]): its log knows nothing of this one's order.
    pub fn tell<B, C>(&mut self, to: &Addr<B>, command: C) -> Result<(), Refused<C>>
    where
        B: Handle<C>,
        C: Send + 'static,
    {
        if !Arc::ptr_eq(to.cell().shared(), self.cell.shared()) {
            return Err(Refused { command, why: Why::Foreign });
        }
        if let Err(why) = to.cell().reserve() {
            return Err(Refused { command, why });
        }
        let sent = Sent::new(Arc::clone(to.cell()), command);
        self.desk.get_or_insert_with(take_desk).outgoing.push(Box::new(sent));
        Ok(())
    }

    /// How hard this turn must be stored before its reply leaves, whatever the kind's default.
    pub fn durability(&mut self, durability: Durability) {
        self.wishes.durability = Some(durability);
    }

    /// Asks for a snapshot once the turn has ended. Kinds without
    /// [`snapshots`](super::ActorOptions::snapshots) take none.
    pub fn snapshot(&mut self) {
        self.wishes.snapshot = true;
    }

    /// Lets the state leave memory once the turn has ended. Commands find it again.
    pub fn passivate(&mut self) {
        self.wishes.passivate = true;
    }
}

impl<A: Actor> Deref for Turn<'_, A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.live.state
    }
}

impl<A: Actor> fmt::Debug for Turn<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("kind", &A::KIND)
            .field("name", &self.name())
            .field("seq", &self.seq())
            .finish_non_exhaustive()
    }
}

/// Takes one turn: load, handle, append, send, and the reply with what it waits for.
pub(crate) fn take_turn<A, C>(
    cell: &Arc<Cell<A>>,
    body: &mut Body<A>,
    carried: Mark,
    command: C,
) -> Parked<A::Reply>
where
    A: Handle<C>,
    C: Send + 'static,
{
    let _depth = Depth::enter();
    let live = match cell.live(body) {
        Ok(live) => live,
        Err(error) => {
            drop_quietly(command);
            return Parked::error(error);
        }
    };
    let first = live.seq;
    let mut turn = Turn { cell, live, desk: None, wishes: Wishes::default(), now: None };
    let handled = catch_unwind(AssertUnwindSafe(|| A::handle(command, &mut turn)));
    let Turn { live, desk, mut wishes, .. } = turn;
    let mut desk = KeptDesk(desk);
    let (reply, failure) = match handled {
        Ok(reply) if wishes.state == StateIs::Torn => {
            drop_quietly(reply);
            let message = "an event could not be applied, and the handler went on".into();
            (None, Some(ActorError::Panicked { message }))
        }
        Ok(reply) => (Some(reply), wishes.failure.take()),
        Err(payload) => (None, Some(ActorError::Panicked { message: message_of(payload) })),
    };
    let failure = failure.or_else(|| label(&wishes.labels, &mut desk).err());
    let failure = failure.or_else(|| commit(cell, live, &mut desk, first).err());
    let depends = live.end.max(carried);
    let level = wishes
        .durability
        .or(cell.kind.options.durability)
        .unwrap_or(cell.shared().options.durability);
    // At `Process` an appended frame is durable enough, and all that `depends` names are. After
    // a failed sync nobody knows what a reopen will find: then only the disk counts.
    let waits = level == Durability::Power || cell.shared().is_poisoned();
    let mark = if waits { depends } else { None };
    match (failure, reply) {
        (None, Some(reply)) => {
            desk.deliver(depends);
            aftermath(cell, live, &wishes);
            Parked { result: Ok(reply), mark }
        }
        (failure, reply) => {
            if wishes.state != StateIs::Stored {
                cell.forget(body);
            }
            drop_quietly(reply);
            let failure = failure.unwrap_or(ActorError::Lost);
            if let ActorError::Panicked { message } = &failure {
                let (kind, name, seq) = (A::KIND, &*cell.name, first.get());
                trace::TurnPanicked { kind, name, seq, error: message }.tell();
            }
            // What a panic says may come from the state; that an append failed does not.
            let told = matches!(failure, ActorError::Panicked { .. });
            Parked { result: Err(failure), mark: if told { mark } else { None } }
        }
    }
}

/// Appends what the turn emitted, if it did.
fn commit<A: Actor>(
    cell: &Cell<A>,
    live: &mut Live<A>,
    desk: &mut KeptDesk,
    first: Seq,
) -> Result<(), ActorError> {
    let Some(desk) = &mut desk.0 else { return Ok(()) };
    if desk.batch.is_empty() {
        return Ok(());
    }
    let first = first.checked_add(1).unwrap_or(Seq::MAX);
    let appended = cell.shared().events.append(&mut desk.batch, cell.stream, first);
    if let Err(AppendError::Poisoned(_)) = appended {
        cell.shared().note_poisoned();
    }
    let appended = appended?;
    live.lsn = Some(appended.lsn);
    live.end = Some(appended.end);
    Ok(())
}

/// What a turn leaves for the workers to do.
fn aftermath<A: Actor>(cell: &Arc<Cell<A>>, live: &mut Live<A>, wishes: &Wishes) {
    if cell.is_save_due(live, wishes.seen, wishes.snapshot) && !live.save_asked {
        live.save_asked = true;
        cell.shared().send(Job::Save(cell.resident()));
    }
    if wishes.passivate && !live.leave_asked {
        live.leave_asked = true;
        cell.shared().send(Job::Passivate(cell.resident()));
    }
}

/// A desk that goes back to its thread, empty.
struct KeptDesk(Option<Box<Desk>>);

impl KeptDesk {
    fn deliver(&mut self, mark: Mark) {
        let Some(desk) = &mut self.0 else { return };
        for message in desk.outgoing.drain(..) {
            message.deliver(mark);
        }
    }
}

impl Drop for KeptDesk {
    fn drop(&mut self) {
        let Some(mut desk) = self.0.take() else { return };
        for message in desk.outgoing.drain(..) {
            drop_quietly(message);
        }
        if desk.batch.frame_bytes() <= KEPT_BATCH_BYTES_MAX {
            desk.batch.clear();
            // A thread that is ending has no place for it any more.
            let _kept: Result<(), _> = DESK.try_with(|place| place.set(Some(desk)));
        }
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "it stays where it is from turn to turn")]
fn take_desk() -> Box<Desk> {
    DESK.try_with(ThreadCell::take).ok().flatten().unwrap_or_default()
}

/// What a panic says.
pub(crate) fn message_of(payload: Box<dyn Any + Send>) -> Arc<str> {
    let message = match payload.downcast_ref::<&'static str>() {
        Some(text) => Arc::from(*text),
        None => match payload.downcast_ref::<String>() {
            Some(text) => Arc::from(text.as_str()),
            None => Arc::from("a value that is no text"),
        },
    };
    drop_quietly(payload);
    message
}
