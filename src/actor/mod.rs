//! Actors: named states that change only by events, and outlive the process.
//!
//! An [`Actor`] is a state and the events that change it. It has a kind (the Rust type) and a
//! name; [`Runtime::actor`] gives the address of a name, and the first command finds the state
//! as its events left it, whenever that was. One command at a time is handled, in a [`Turn`]:
//! the handler reads the state, emits events, answers. All of a turn is stored as one frame, or
//! nothing of it.
//!
//! **What a caller learns is stored.** A reply leaves when everything it can depend on is as
//! durable as asked for: the actor's own last frame, and the frames on which the command itself
//! depended (its *causal mark*). The wait is the caller's, on its own thread; the actor goes on
//! with the next command, and both share a flush. Messages between actors do not wait: the log
//! is one total order of which durability is a prefix, so no effect outlives its cause.
//!
//! **Handlers never block.** Inside a turn `ask`, `wait`, `poll` and `peek` answer
//! [`ActorError::InTurn`] at once, so actors that talk to each other cannot deadlock.
//!
//! What escapes this: interior mutability in a state, and side effects of a handler. A state
//! must change in `apply` alone, or it will differ after a reload.
//!
//! ```
//! use annals::actor::memory::Memory;
//! use annals::actor::{Actor, Handle, Runtime, RuntimeOptions, Turn};
//! use annals::rkyv::{self, Archive, Deserialize, Serialize};
//! use annals::time::Clock;
//!
//! #[derive(Archive, Serialize, Deserialize)]
//! enum Event {
//!     Deposited { cents: u64 },
//! }
//!
//! #[derive(Default)]
//! struct Account {
//!     cents: u64,
//! }
//!
//! impl Actor for Account {
//!     type Event = Event;
//!     const KIND: &'static str = "account";
//!
//!     fn apply(&mut self, event: &Event) {
//!         match event {
//!             Event::Deposited { cents } => self.cents += cents,
//!         }
//!     }
//! }
//!
//! struct Deposit {
//!     cents: u64,
//! }
//!
//! impl Handle<Deposit> for Account {
//!     type Reply = u64;
//!
//!     fn handle(command: Deposit, turn: &mut Turn<'_, Self>) -> u64 {
//!         turn.emit(Event::Deposited { cents: command.cents }); // applied now
//!         turn.cents // leaves when it is stored
//!     }
//! }
//!
//! let memory = Memory::new();
//! let runtime =
//!     Runtime::start(memory.clone(), memory, Clock::System, RuntimeOptions::default())?;
//! let alice = runtime.actor::<Account>("alice")?; // a name, not a spawn
//! assert_eq!(alice.ask(Deposit { cents: 500 })?, 500);
//! alice.tell(Deposit { cents: 5 })?;
//! let ticket = alice.post(Deposit { cents: 5 })?;
//! assert_eq!(ticket.wait()?, 510);
//! # Ok::<(), annals::actor::ActorError>(())
//! ```
//!
//! Lock order: a shard of the registry, then a mailbox; a body (held during a turn) stands
//! before both. No lock but the body is held over code of users.
#![forbid(unsafe_code)]

mod addr;
mod aside;
mod book;
mod cell;
mod close;
mod commit;
mod counts;
mod departures;
mod desk;
mod durable;
mod error;
#[cfg(any(test, feature = "internals"))]
pub mod front;
mod full;
mod going_back;
mod kind;
mod later;
mod leave;
mod ledger;
mod load;
mod loads;
mod mailbox;
pub mod memory;
mod name;
mod note;
mod options;
mod owe;
pub mod past;
mod policy;
pub mod provider;
mod queue;
mod ready;
mod resume;
mod runtime;
mod saving;
mod service;
mod side;
mod stash;
mod steps;
mod supervise;
mod sweep;
mod ticket;
mod turn;
mod value;
mod weight;
mod worker;

#[cfg(test)]
mod tests;

pub use addr::{Addr, Peek};
pub(crate) use book::{Book, Open, What as Owing};
pub use close::CloseReport;
pub use counts::{ActorStats, OwedStats};
pub use durable::{CommandId, Durable, Outcome, Step, StepContext, Stepped};
pub use error::{ActorError, Collision, Refused, StopReason, Stopped, Why};
pub use later::ReplyKey;
pub(crate) use note::{Ended, Note, Packed, outside_message};
pub use note::{Missed, Oid, StepPolicy};
pub use options::{
    ActorOptions, DeadLetter, MAILBOX_COMMANDS, OnDeadLetter, RuntimeOptions, SNAPSHOTS_KEPT,
};
pub use policy::{Decision, Persistence};
pub use resume::{OnRecovery, Recovery, RecoveryPhase, Registrar};
pub(crate) use runtime::KnownKinds;
pub use runtime::Runtime;
pub use saving::SnapshotPolicy;
pub use service::Services;
pub use stash::STASH_COMMANDS;
pub use supervise::Supervision;
pub use ticket::Ticket;
pub use turn::Turn;
pub use value::{NotArchive, Tail, Value};

use crate::types::Seq;

/// A state, and the events that change it.
///
/// The [module](self) has an example. `Default` is the state before the first event.
pub trait Actor: Default + Send + 'static {
    /// What can happen to the state.
    type Event: Value;

    /// The kind's name in the log. It never changes, and no other type has it.
    const KIND: &'static str;

    /// Version of [`Self::Event`]; raise it with every change of the type, and teach
    /// [`upcast`](Self::upcast) the version before.
    const VERSION: u16 = 1;

    /// Changes the state by one event: total, pure, and the same live and at a replay.
    ///
    /// A panic here during a turn fails the turn; at a replay it stops the actor
    /// ([`ActorError::Stopped`]).
    fn apply(&mut self, event: &Self::Event);

    /// Turns an event of another version into any number of current ones.
    ///
    /// # Errors
    /// [`Unreadable`] for a version that it does not know: the actor stops.
    fn upcast(old: Old<'_>, out: &mut Vec<Self::Event>) -> Result<(), Unreadable> {
        // Without a body that looks at them, the two are unused.
        let (_, _) = (old, out);
        Err(Unreadable)
    }

    /// How actors of this kind are kept. Called once per runtime.
    fn options() -> ActorOptions<Self> {
        ActorOptions::new()
    }
}

/// Handling one type of command.
pub trait Handle<C: Send + 'static>: Actor {
    /// The answer. Often a `Result`: an error is an answer like any other.
    type Reply: Send + 'static;

    /// Takes one turn. It must not block, and what it does besides
    /// [`emit`](Turn::emit) and [`tell`](Turn::tell) is done even if the turn fails.
    ///
    /// A panic fails the turn: see [`ActorError::Panicked`].
    fn handle(command: C, turn: &mut Turn<'_, Self>) -> Self::Reply;

    /// Is this the time for the command? `false` puts it aside, until a turn calls
    /// [`unstash`](Turn::unstash): then it is looked at again, in the order of arrival and before
    /// any newer one. Who asked waits meanwhile.
    ///
    /// At most [`ActorOptions::stash`] commands are put aside; one more is answered
    /// [`ActorError::Full`], or is a dead letter if it was told. They stay through panics of other
    /// turns and while the state is out of memory, and get [`ActorError::Closed`] at close. They
    /// are in memory only. A command that others must not overtake is admitted and kept as an
    /// event instead.
    ///
    /// It looks at the state and does nothing else. A panic fails the command like one of
    /// `handle`.
    ///
    /// ```
    /// # use annals::actor::memory::Memory;
    /// # use annals::actor::{Actor, Handle, Runtime, RuntimeOptions, Turn};
    /// # #[derive(Default)]
    /// # struct Shop { open: bool }
    /// # impl Actor for Shop {
    /// #     type Event = ();
    /// #     const KIND: &'static str = "shop";
    /// #     fn apply(&mut self, _: &()) { self.open = true; }
    /// # }
    /// struct Buy;
    /// struct Open;
    ///
    /// impl Handle<Buy> for Shop {
    ///     type Reply = &'static str;
    ///     fn handle(_: Buy, _: &mut Turn<'_, Self>) -> &'static str {
    ///         "thank you"
    ///     }
    ///     fn admits(_: &Buy, shop: &Self) -> bool {
    ///         shop.open
    ///     }
    /// }
    /// impl Handle<Open> for Shop {
    ///     type Reply = ();
    ///     fn handle(_: Open, turn: &mut Turn<'_, Self>) {
    ///         turn.emit(());
    ///         turn.unstash();
    ///     }
    /// }
    /// # let memory = Memory::new();
    /// # let runtime = Runtime::start(memory.clone(), memory, Default::default(),
    /// #     RuntimeOptions::default())?;
    /// let shop = runtime.actor::<Shop>("corner")?;
    /// let early = shop.post(Buy)?;
    /// shop.ask(Open)?;
    /// assert_eq!(early.wait()?, "thank you");
    /// # Ok::<(), annals::actor::ActorError>(())
    /// ```
    fn admits(command: &C, actor: &Self) -> bool {
        // Without a body that looks at them, the two are unused.
        let (_, _) = (command, actor);
        true
    }
}

/// An event of another version, as it was stored.
#[derive(Copy, Clone, Debug)]
pub struct Old<'a> {
    version: u16,
    seq: Seq,
    bytes: &'a [u8],
}

impl<'a> Old<'a> {
    pub(crate) const fn new(version: u16, seq: Seq, bytes: &'a [u8]) -> Self {
        Self { version, seq, bytes }
    }

    /// [`Actor::VERSION`] of when it was stored.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Its number in the actor's events.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Its archive.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Reads it as the type that events of that version had.
    ///
    /// # Errors
    /// [`Unreadable`] if it is no archive of that type.
    pub fn read<T: Value>(&self) -> Result<T, Unreadable> {
        T::decode(self.bytes).map_err(|_not_archive| Unreadable)
    }
}

/// An old event that cannot be turned into current ones.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of an unknown version")]
pub struct Unreadable;
