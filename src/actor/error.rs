//! What an actor answers instead of a reply, and what state that leaves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{AppendError, DiskError, ReadError, SyncError};
use crate::types::{Lsn, Seq};

/// Why there is no reply.
///
/// Unless a variant says otherwise the command had no effect at all, and the actor takes the
/// next one as if this had not been.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActorError {
    /// Asked, waited, polled or told around [`Turn`](super::Turn) from inside a turn, where
    /// nothing may block and nothing may leave before the turn is appended. The command was not
    /// accepted. Inside a turn use [`Turn::tell`](super::Turn::tell).
    #[error("an actor's turn may not wait for another actor")]
    InTurn,
    /// The handler panicked. Its events and messages are dropped, and the state is read again
    /// from the log if anything had been emitted.
    #[error("the handler panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: Arc<str>,
    },
    /// The turn's events could not be appended; they and its messages are dropped, and the state
    /// is read again from the log. Later commands work again once the cause is gone, except
    /// where the store is poisoned or closed.
    #[error("the turn was not appended: {0}")]
    Append(Box<AppendError>),
    /// An event refused to be archived. The turn is dropped like one that was not appended.
    #[error("the turn was not appended: {reason}")]
    NotArchived {
        /// What the event said.
        reason: Arc<str>,
    },
    /// The turn was handled, but a failed sync leaves open whether what the reply depends on is
    /// on disk. After a reopen the turn is wholly there or wholly absent.
    #[error("it is in doubt whether {lsn} is on disk: {cause}")]
    InDoubt {
        /// Up to where durability was needed.
        lsn: Lsn,
        /// The failure.
        cause: Box<DiskError>,
    },
    /// The runtime is closed, or was while the command waited. It was not handled.
    #[error("the runtime is closed")]
    Closed,
    /// The mailbox is full, or the stash ([`Handle::admits`](super::Handle::admits)). The command
    /// was not accepted.
    #[error("the mailbox is full")]
    Full,
    /// Sent by a turn to an actor of another runtime. The command was not accepted.
    #[error("the actor belongs to another runtime")]
    Foreign,
    /// The time given was over. **The outcome is unknown**: a command that had been accepted
    /// will still be handled, or has been already.
    #[error("no reply within the time given")]
    Timeout,
    /// The actor cannot be rebuilt from its events and has stopped; others are not affected. The
    /// command was not handled. Nothing was changed in the log.
    #[error(transparent)]
    Stopped(Arc<Stopped>),
    /// The actor has failed and rests, as its [`Supervision`](super::Supervision) says. The command
    /// was not handled.
    #[error("the actor has failed and rests for another {left:?}")]
    Resting {
        /// How much longer.
        left: Duration,
    },
    /// The actor has failed too often, and takes no commands until
    /// [`Addr::restart`](super::Addr::restart). The command was not handled.
    #[error("the actor has failed {failures} times in a row and waits for a restart")]
    GivenUp {
        /// How often, in a row.
        failures: u32,
    },
    /// Two names have the same hash, or the log holds another actor's name in this stream.
    /// Nothing was read or written for the name that was refused.
    #[error("{} and {} have the same stream", .0.wanted, .0.found)]
    Collision(Box<Collision>),
    /// The actor's events could not be read just now. The next command tries again.
    #[error("the actor could not be read: {0}")]
    Read(Box<ReadError>),
    /// The name is empty, or longer than 65,535 bytes.
    #[error("a name is 1 to 65,535 bytes long")]
    BadName,
    /// There is no such event. Nothing was changed.
    #[error("there is no event {seq}: the last is {last}")]
    NoEvent {
        /// The event that was asked for.
        seq: Seq,
        /// The actor's last event.
        last: Seq,
    },
    /// [`Turn::rewind`](super::Turn::rewind) after the turn had emitted something. Nothing was
    /// changed by it; the turn may go on.
    #[error("a rewind comes before all else that a turn stores")]
    RewindNotFirst,
    /// [`Turn::note`](super::Turn::note) or [`Turn::tag`](super::Turn::tag) after the turn had
    /// written something beside turns that were deferred. The turn is dropped like one that was
    /// not appended.
    #[error("what is said of a turn comes before all else that it stores")]
    LabelTooLate,
    /// Another Rust type has the same [`KIND`](super::Actor::KIND), or it is empty or too long, or
    /// begins with `annals.`, which is for what Annals itself keeps.
    #[error("the kind `{kind}` is another's, or not 1 to 65,535 bytes long")]
    KindTaken {
        /// The kind.
        kind: &'static str,
    },
    /// The reply was taken from this ticket before.
    #[error("the reply was taken already")]
    Taken,
    /// The command was accepted, and then given up without having been handled to its end.
    #[error("the reply is lost")]
    Lost,
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(Arc<std::io::Error>),
}

impl From<AppendError> for ActorError {
    fn from(error: AppendError) -> Self {
        Self::Append(Box::new(error))
    }
}

impl From<ReadError> for ActorError {
    fn from(error: ReadError) -> Self {
        Self::Read(Box::new(error))
    }
}

impl From<SyncError> for ActorError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::InDoubt { lsn, cause } => Self::InDoubt { lsn, cause: Box::new(cause) },
            SyncError::Timeout => Self::Timeout,
        }
    }
}

/// An actor that cannot be rebuilt, and where its events went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("actor {kind}/{name} has stopped at event {seq}{}: {why}", At(*lsn))]
pub struct Stopped {
    /// The actor's kind.
    pub kind: &'static str,
    /// The actor's name.
    pub name: Arc<str>,
    /// The event that could not be applied, or that is missing.
    pub seq: Seq,
    /// The frame in which that was noticed, if it was in one.
    pub lsn: Option<Lsn>,
    /// What is wrong.
    pub why: StopReason,
}

/// Prints " in frame 4096", or nothing.
struct At(Option<Lsn>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(lsn) => write!(f, " in frame {lsn}"),
            None => Ok(()),
        }
    }
}

/// What is wrong with an actor's events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// `apply` (or `upcast`, or `default`) panicked.
    #[error("applying it panicked: {0}")]
    Panicked(Arc<str>),
    /// The archive does not decode, although its version is the current one.
    #[error("{0}")]
    NotArchive(Arc<str>),
    /// The event has another version, and [`upcast`](super::Actor::upcast) does not know it.
    #[error("its version {version} is unknown")]
    Unreadable {
        /// The event's version.
        version: u16,
    },
    /// Another event stands where this one should be, or none.
    #[error("it is missing")]
    Hole,
    /// It was dropped by retention, and no snapshot that covers it can be used: all are of
    /// another version, damaged, or gone.
    #[error("it was dropped, and no snapshot that covers it can be used")]
    Dropped,
    /// What the actor owes is written in a way that this build does not know.
    #[error("what it owes cannot be read")]
    Note,
    /// The records of the frame do not add up, or the first frame carries no name.
    #[error("its frame is not one of an actor")]
    Frame,
}

/// Two names where one was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    /// The actor that was asked for, as `kind/name`.
    pub wanted: String,
    /// The actor that is there, as `kind/name`.
    pub found: String,
}

impl ActorError {
    pub(crate) fn collision(wanted: (&str, &str), found: (&str, &str)) -> Self {
        let full = |(kind, name): (&str, &str)| format!("{kind}/{name}");
        Self::Collision(Box::new(Collision { wanted: full(wanted), found: full(found) }))
    }
}

/// A command that was not accepted, given back.
///
/// `?` turns it into an [`ActorError`] or a [`crate::error::Error`], dropping the command.
pub struct Refused<C> {
    /// The command, as it was given.
    pub command: C,
    /// Why it was not taken.
    pub why: Why,
}

/// Why a command was not accepted.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// The mailbox holds as many commands as it may.
    #[error("the mailbox is full")]
    Full,
    /// The runtime is closed or closing.
    #[error("the runtime is closed")]
    Closed,
    /// The actor belongs to another runtime than the turn.
    #[error("the actor belongs to another runtime")]
    Foreign,
    /// Inside a turn messages leave through [`Turn::tell`](super::Turn::tell).
    #[error("inside a turn messages leave through the turn")]
    InTurn,
}

impl From<Why> for ActorError {
    fn from(why: Why) -> Self {
        match why {
            Why::Full => Self::Full,
            Why::Closed => Self::Closed,
            Why::InTurn => Self::InTurn,
            Why::Foreign => Self::Foreign,
        }
    }
}

impl<C> From<Refused<C>> for ActorError {
    fn from(refused: Refused<C>) -> Self {
        refused.why.into()
    }
}

impl<C> From<Refused<C>> for crate::error::Error {
    fn from(refused: Refused<C>) -> Self {
        Self::Actor(refused.why.into())
    }
}

impl<C> fmt::Debug for Refused<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("why", &self.why).finish_non_exhaustive()
    }
}

impl<C> fmt::Display for Refused<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl<C> std::error::Error for Refused<C> {}
