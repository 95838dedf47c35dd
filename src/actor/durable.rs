//! What outlives a crash besides events: commands and steps, as values rather than closures.

use std::collections::HashMap;
use std::sync::Arc;

use super::mailbox::{Cause, Due, Envelope};
use super::note::{Oid, StepPolicy};
use super::service::Services;
use super::{Actor, Handle, Value};
use crate::types::StreamId;

/// A command that can be stored: to be sent for good, or at a later time.
///
/// A kind of actor that is to receive it says so in its options
/// ([`ActorOptions::command`](super::ActorOptions::command)).
///
/// ```
/// use annals::actor::Durable;
/// use annals::rkyv::{self, Archive, Deserialize, Serialize};
///
/// #[derive(Archive, Serialize, Deserialize)]
/// struct Ship {
///     parcel: u64,
/// }
///
/// impl Durable for Ship {
///     const NAME: &'static str = "ship";
/// }
/// ```
pub trait Durable: Value {
    /// The type's name in the log. It never changes, and no other type of its kind has it.
    const NAME: &'static str;

    /// Version of the type; raise it with every change.
    const VERSION: u16 = 1;

    /// Reads one of another version. `None` leaves it unread, and what is owed open.
    fn upcast(version: u16, archive: &[u8]) -> Option<Self> {
        // Without a body that looks at them, the two are unused.
        let (_, _) = (version, archive);
        None
    }
}

/// Work that is done outside of turns, whose beginning and end are stored.
///
/// It runs on a thread of its own and may block. A crash while it runs leaves a doubt that only
/// its author can settle: the actor gets it back as [`Outcome::InDoubt`] and decides. What helps is
/// [`StepContext::key`], which is the same each time.
pub trait Step: Durable + Sync {
    /// What it brings back; in memory only. What must be kept of it is an event of the turn that
    /// receives it.
    type Output: Send + 'static;

    /// When its beginning and its end are committed.
    const POLICY: StepPolicy = StepPolicy::Around;

    /// Does the work. A panic comes back as [`Outcome::Panicked`].
    fn run(&self, context: &StepContext) -> Self::Output;
}

/// What a step is told.
#[derive(Clone, Debug)]
pub struct StepContext {
    pub(crate) oid: Oid,
    pub(crate) key: Arc<str>,
    pub(crate) services: Services,
}

impl StepContext {
    /// What [`Turn::step`](super::Turn::step) was given.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Names this beginning of a step among all of the store. Who begins it again after a doubt
    /// gives it another: what must stay the same then, as an idempotency key of the outside must,
    /// is the [`key`](Self::key).
    pub fn id(&self) -> String {
        self.oid.to_string()
    }

    /// What was given to the runtime under that type, as for
    /// [`Turn::service`](super::Turn::service): the way to the world outside.
    pub fn service<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.services.get()
    }
}

/// A step that has come back to its actor: a command like any other.
#[derive(Debug)]
pub struct Stepped<S: Step> {
    /// The step, as it was begun.
    pub step: S,
    /// What [`Turn::step`](super::Turn::step) was given.
    pub key: Arc<str>,
    /// How it ended.
    pub outcome: Outcome<S::Output>,
}

/// How a step ended.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It ran to its end.
    Done(T),
    /// It panicked with this message. What it had done by then is done.
    Panicked(Arc<str>),
    /// The process ended after it was begun and before its end was stored: it has run, or not, or
    /// in part. To run it again, begin it again.
    InDoubt,
}

/// The durable types that a kind of actor takes.
pub(crate) struct Durables<A: Actor> {
    commands: HashMap<&'static str, Open<A>>,
    steps: HashMap<&'static str, Open<A>>,
}

/// Makes a queued command of an archive.
type Open<A> = fn(version: u16, archive: &[u8], of: Of) -> Option<Box<dyn Envelope<A>>>;

/// What an archive was stored as.
#[derive(Clone, Debug)]
pub(crate) struct Of {
    pub cause: Cause,
    /// Of a step.
    pub key: Arc<str>,
    /// Held until the command has been handled.
    pub permit: Option<Arc<super::resume::Permit>>,
}

impl<A: Actor> Durables<A> {
    pub(crate) fn new() -> Self {
        Self { commands: HashMap::new(), steps: HashMap::new() }
    }

    pub(crate) fn command<C>(&mut self)
    where
        A: Handle<C>,
        C: Durable,
    {
        self.commands.insert(C::NAME, |version, archive, of| {
            let command = read::<C>(version, archive)?;
            Some(Box::new(Due { command, cause: of.cause, mark: None, permit: of.permit }))
        });
    }

    pub(crate) fn step<S>(&mut self)
    where
        A: Handle<Stepped<S>>,
        S: Step,
    {
        self.steps.insert(S::NAME, |version, archive, of| {
            let step = read::<S>(version, archive)?;
            let command = Stepped { step, key: of.key, outcome: Outcome::InDoubt };
            Some(Box::new(Due { command, cause: of.cause, mark: None, permit: of.permit }))
        });
    }

    pub(crate) fn takes(&self, command: &str) -> bool {
        self.commands.contains_key(command)
    }

    pub(crate) fn steps_with(&self, step: &str) -> bool {
        self.steps.contains_key(step)
    }

    pub(crate) fn open_command(
        &self,
        (name, version): (&str, u16),
        archive: &[u8],
        of: Of,
    ) -> Option<Box<dyn Envelope<A>>> {
        self.commands.get(name)?(version, archive, of)
    }

    pub(crate) fn open_step(
        &self,
        (name, version): (&str, u16),
        archive: &[u8],
        of: Of,
    ) -> Option<Box<dyn Envelope<A>>> {
        self.steps.get(name)?(version, archive, of)
    }
}

fn read<D: Durable>(version: u16, archive: &[u8]) -> Option<D> {
    if version == D::VERSION { D::decode(archive).ok() } else { D::upcast(version, archive) }
}

/// Names a command, so that it is handled once however often it is sent.
///
/// ```
/// use annals::actor::CommandId;
///
/// assert_eq!(CommandId::of("order 7, by mail"), CommandId::of("order 7, by mail"));
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u128);

impl CommandId {
    /// The hash of a text.
    pub fn of(text: &str) -> Self {
        Self(StreamId::of("annals.command", text).get())
    }
}
