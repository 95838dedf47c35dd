//! The turn: one command handled by one actor.

use std::any::Any;
use std::cell::Cell as ThreadCell;
use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use self::label::Label;
use super::addr::Addr;
use super::cell::{Body, Cell, Live, drop_quietly};
use super::commit::{self, Ending};
use super::desk::{Before, Desk};
use super::error::{Refused, Why};
use super::going_back::Rewinding;
use super::mailbox::{Arrival, Cause, Once, Outgoing, Sent};
use super::note::{Note, Packed, StepPolicy};
use super::policy::{Decision, Persistence};
use super::ticket::Parked;
use super::{Actor, ActorError, Handle, Value as _};
use crate::error::{AppendError, Reject};
use crate::log::frame::{FRAME_BYTES_LIMIT, RecordKind};
use crate::log::name;
use crate::op::Op;
use crate::trace;
use crate::types::{Durability, HybridTime, Seq, StreamId};

pub(super) mod label;
mod rewind;

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
    pub(super) cell: &'a Arc<Cell<A>>,
    pub(super) live: &'a mut Live<A>,
    pub(super) desk: Option<Box<Desk>>,
    /// What was on the desk before, where turns are gathered.
    pub(super) before: Option<Before>,
    pub(super) wishes: Wishes,
    now: Option<HybridTime>,
}

/// What a handler wanted besides events and messages, and what went wrong.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its own")]
pub(super) struct Wishes {
    pub durability: Option<Durability>,
    pub snapshot: bool,
    pub passivate: bool,
    /// Which predicates of the snapshot policy an event has met.
    pub seen: u64,
    /// What its events ask for.
    pub decision: Decision,
    /// It ends with a barrier.
    pub barrier: bool,
    pub suspended: bool,
    pub finished: bool,
    pub state: StateIs,
    /// What few turns want: one pointer for all others.
    pub rare: Option<Box<Rare>>,
    /// Why the turn cannot be appended.
    pub failure: Option<ActorError>,
}

/// What few turns want.
#[derive(Default)]
pub(super) struct Rare {
    /// It goes back, and nothing may be dropped of what that relies on until it is appended.
    pub rewinding: Option<Rewinding>,
    /// Who and why, of all events of the turn.
    pub labels: Vec<Label>,
    /// Begun steps, to be run once the turn is stored as hard as they ask for.
    pub steps: Vec<super::steps::Task>,
    /// What is to run once the turn is as durable as its reply.
    pub after: Vec<Box<dyn FnOnce() + Send>>,
    /// Things opened in this turn.
    pub opened: u64,
}

impl Wishes {
    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(super) fn labels(&self) -> &[Label] {
        self.rare.as_ref().map_or(&[], |rare| &rare.labels)
    }
}

/// What a turn has made of the state.
#[derive(Copy, Clone, Default, PartialEq, Eq)]
pub(super) enum StateIs {
    #[default]
    Stored,
    /// Whole, but ahead of the log.
    Ahead,
    /// `apply` was entered and has not returned.
    Torn,
}

thread_local! {
    static DEPTH: ThreadCell<u32> = const { ThreadCell::new(0) };
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

/// Tells a subscriber what happened to an actor that this thread is with: as within a turn, so that
/// he does not wait for it.
pub(crate) fn within_turn<T>(tell: impl FnOnce() -> T) -> T {
    let _depth = Depth::enter();
    tell()
}

impl Drop for Depth {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

impl<'a, A: Actor> Turn<'a, A> {
    /// Says that something has happened: applied to the state now, stored when the turn ends.
    ///
    /// It answers nothing. If the event cannot be stored (it refuses to be archived, the turn
    /// grows past what a frame holds, the disk is full) the whole turn fails: its caller gets
    /// the error, and the state is as before the turn, read again from the log if need be. From
    /// the event on that cannot be stored none is applied.
    ///
    /// A panic of `apply` fails the turn, even if the handler catches it.
    #[expect(clippy::needless_pass_by_value, reason = "what has happened is not used again")]
    pub fn emit(&mut self, event: A::Event) {
        // A turn that fails changes nothing more: if it had not before, the state stays as it is.
        if self.wishes.failure.is_some() {
            return;
        }
        if let Some(commit_when) = self.cell.kind.options.commit_when {
            let decided = catch_unwind(AssertUnwindSafe(|| commit_when(&self.live.state, &event)));
            let decision = decided.unwrap_or(Decision::Commit);
            self.wishes.decision = self.wishes.decision.and(decision);
        }
        let admitted = self.cell.shared().admit_event();
        if let Err(failure) = admitted.and_then(|()| self.record(&event)) {
            self.wishes.failure = Some(failure);
            return;
        }
        self.wishes.state = StateIs::Torn;
        self.live.state.apply(&event);
        self.wishes.state = StateIs::Ahead;
        self.wishes.seen |= self.cell.kind.seen_in(&self.live.state, &event);
    }

    fn record(&mut self, event: &A::Event) -> Result<(), ActorError> {
        self.number()?;
        let batch = &mut self.desk().batch;
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

    /// The desk of this turn: the actor's where turns are gathered, else the thread's.
    pub(super) fn desk(&mut self) -> &mut Desk {
        self.desk.get_or_insert_with(|| match &mut self.live.side {
            Some(side) if side.pending.is_some() => {
                let desk = side.pending.as_mut().and_then(|it| it.desk.take());
                let desk = desk.unwrap_or_else(Desk::take);
                self.before = Some(desk.before());
                desk
            }
            Some(_) | None => Desk::take(),
        })
    }

    /// Sees to it that the stream's first frame carries its name.
    pub(super) fn name_it(&mut self) -> Result<(), ActorError> {
        if self.live.seq > Seq::ZERO || self.desk().named {
            return Ok(());
        }
        let name = name::encode(A::KIND, &self.cell.name).ok_or(ActorError::BadName)?;
        let desk = self.desk();
        desk.batch.push(RecordKind::Name, 1, &name).map_err(|_reject| too_large(name.len()))?;
        desk.named = true;
        Ok(())
    }

    /// Takes the next number, for a record that is about to be pushed.
    pub(super) fn number(&mut self) -> Result<(), ActorError> {
        self.name_it()?;
        self.live.seq = self.live.seq.checked_add(1).ok_or_else(|| too_large(usize::MAX))?;
        Ok(())
    }

    pub(crate) const fn cell_ref(&self) -> &'a Arc<Cell<A>> {
        self.cell
    }

    /// Writes a note; the turn fails if it cannot be.
    pub(super) fn write(&mut self, note: &Note<'_>) {
        if self.wishes.failure.is_some() {
            return;
        }
        let admitted = self.cell.shared().admit_event();
        let written = admitted.and_then(|()| self.name_it()).and_then(|()| {
            let desk = self.desk();
            desk.note(note).map_err(|_reject| too_large(desk.batch.frame_bytes()))
        });
        if let Err(failure) = written {
            self.wishes.failure = Some(failure);
        }
    }

    /// Changes when the turns of this actor are appended, from the next one on, whatever its kind's
    /// options say. Stored like an event.
    pub fn persistence(&mut self, persistence: Persistence) {
        let (code, n) = persistence.code();
        self.write(&Note::Policy { code, n });
    }

    /// Ends a burst: what was deferred is appended when the turn ends, and a snapshot is taken if
    /// the kind's options say so.
    pub fn suspend(&mut self) {
        self.wishes.barrier = true;
        self.wishes.suspended = true;
    }

    /// Comes to an end: all timers are disarmed, what was deferred is appended, and the state
    /// leaves memory. Commands find the actor again all the same.
    pub fn finish(&mut self) {
        let armed: Vec<_> = self.live.side.iter().flat_map(|side| side.timers()).collect();
        let numbers: Vec<_> = armed.iter().map(|(_, timer)| timer.number).collect();
        for number in numbers {
            self.write(&Note::Disarmed { number });
        }
        self.suspend();
        self.wishes.finished = true;
        self.wishes.passivate = true;
    }

    /// Says that what others remember of something is no longer so: see [`Op`]. It reaches every
    /// node, and travels in the turn's own frame: state and word of it cannot part. So the turn is
    /// appended when it ends, whatever its policy. A turn that fails has published nothing.
    ///
    /// Where the store is no node ([`AppendError::NoNode`]) the turn fails.
    pub fn publish(&mut self, op: Op<'_>) {
        if self.wishes.failure.is_some() {
            return;
        }
        let shared = self.cell.shared();
        let admitted = shared.admit_event();
        let able = if shared.events.publishes() { Ok(()) } else { Err(AppendError::NoNode.into()) };
        if let Err(failure) = able.and(admitted).and_then(|()| self.name_it()) {
            self.wishes.failure = Some(failure);
            return;
        }
        self.wishes.barrier = true;
        self.desk().ops.push(op);
    }

    /// Appends this turn when it ends, and all that were deferred before it.
    pub fn commit(&mut self) {
        self.wishes.barrier = true;
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
        self.take_along(Box::new(Sent::new(Arc::clone(to.cell()), command, Cause::Command)));
        Ok(())
    }

    /// To be delivered with the turn's frame.
    pub(crate) fn take_along(&mut self, outgoing: Box<dyn Outgoing>) {
        self.desk().outgoing.push(outgoing);
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

/// A turn that does not fit into a frame.
pub(super) fn too_large(bytes: usize) -> ActorError {
    AppendError::GroupTooLarge { bytes, max: FRAME_BYTES_LIMIT }.into()
}

/// Takes one turn: load, handle, append, send; puts the reply, and what it waits for, in place.
pub(crate) fn take_turn<A, C>(
    cell: &Arc<Cell<A>>,
    body: &mut Body<A>,
    arrival: &Arrival<A::Reply>,
    command: C,
    parked: &mut Option<Parked<A::Reply>>,
) where
    A: Handle<C>,
    C: Send + 'static,
{
    let _depth = Depth::enter();
    let live = match cell.live(body) {
        Ok(live) => live,
        Err(error) => {
            drop_quietly(command);
            *parked = Some(Parked::error(error));
            return;
        }
    };
    if let Some(once) = &arrival.once
        && let Some(first) = live.side.as_ref().and_then(|side| side.answer(once.id.0))
    {
        drop_quietly(command);
        cell.shared().counts.answered_again();
        *parked = Some(match (once.decode)(&first.archive) {
            Ok(reply) => Parked { result: Ok(reply), mark: commit::mark_of(cell, live, None) },
            Err(error) => Parked::error(ActorError::NotArchived {
                reason: format!("the first answer: {error}").into(),
            }),
        });
        return;
    }
    let first = live.seq;
    let mut turn =
        Turn { cell, live, desk: None, before: None, wishes: Wishes::default(), now: None };
    if arrival.cause != Cause::Command {
        turn.close(arrival.cause);
    }
    let handled = catch_unwind(AssertUnwindSafe(|| A::handle(command, &mut turn)));
    let arrived = (arrival.mark, arrival.answered);
    let failure = match handled {
        Ok(reply) if turn.wishes.state == StateIs::Torn => {
            drop_quietly(reply);
            let message = "an event could not be applied, and the handler went on".into();
            ActorError::Panicked { message }
        }
        Ok(reply) => {
            if let Some(once) = &arrival.once {
                turn.answer(once, &reply);
            }
            match turn.wishes.failure.take() {
                None => match (Ending { turn: &mut turn, first, arrival: arrived }).succeed() {
                    Ok(mark) => {
                        cell.note_success();
                        *parked = Some(Parked { result: Ok(reply), mark });
                        return;
                    }
                    Err(failed) => {
                        let (failure, state) = *failed;
                        drop(turn);
                        drop_quietly(reply);
                        if state != StateIs::Stored {
                            cell.forget(body);
                        }
                        *parked = Some(Parked::error(failure));
                        return;
                    }
                },
                Some(failure) => {
                    drop_quietly(reply);
                    failure
                }
            }
        }
        Err(payload) => ActorError::Panicked { message: message_of(payload) },
    };
    // What a panic says may come from the state; that an append failed does not.
    let mut told = false;
    if let ActorError::Panicked { message } = &failure {
        let (kind, name, seq) = (A::KIND, &*cell.name, first.get());
        trace::TurnPanicked { kind, name, seq, error: message }.tell();
        cell.note_failure();
        told = true;
    }
    let (mark, stored) = Ending { turn: &mut turn, first, arrival: arrived }.fail();
    drop(turn);
    if !stored {
        cell.forget(body);
    }
    *parked = Some(Parked { result: Err(failure), mark: if told { mark } else { None } });
}

impl<A: Actor> Turn<'_, A> {
    /// Closes what has brought the command here: first of all, so that what the handler opens
    /// anew comes after.
    fn close(&mut self, cause: Cause) {
        match cause {
            Cause::Command => {}
            Cause::Sent(oid) => self.write(&Note::Handled { oid, given_up: false }),
            Cause::Timer(number) => {
                let now = self.now().millis();
                let due = self.live.side.as_ref().and_then(|side| side.timer_numbered(number));
                let due = due.map_or(0, |timer| timer.rhythm.after(now));
                // It rings again when it is stored that it has rung: that is not left for later.
                self.wishes.barrier |= due > 0;
                self.write(&Note::Fired { number, due });
            }
            Cause::Step(number, how) => {
                let step = self.live.side.as_ref().and_then(|side| side.step(number));
                self.wishes.barrier |= step.is_none_or(|it| it.policy != StepPolicy::Before);
                self.write(&Note::Ended { number, how });
            }
        }
    }

    /// Keeps the reply for whoever sends the same command again.
    fn answer<R>(&mut self, once: &Once<R>, reply: &R) {
        let mut archive = rkyv::util::AlignedVec::new();
        if let Err(error) = (once.encode)(reply, &mut archive) {
            let reason = format!("the reply: {error}").into();
            self.wishes.failure.get_or_insert(ActorError::NotArchived { reason });
            return;
        }
        let at = self.now().millis();
        let reply = Packed { name: "", version: 1, archive: &archive };
        self.write(&Note::Answered { id: once.id.0, at, reply });
    }
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
