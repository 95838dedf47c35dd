//! When turns are appended: at once, or gathered.
//!
//! A turn that is deferred is handled, and lives in its actor's memory only. It is appended with
//! those before it, as one frame, at the next *barrier*: a reply, a message, a timer, a step,
//! [`suspend`](super::Turn::suspend), [`finish`](super::Turn::finish), passivation or close.
//! Whatever the policy, what survives is a beginning of the actor's events, and nobody has learned
//! anything of what does not.

use std::time::Duration;

/// When the turns of an actor are appended.
///
/// The most particular one counts: of the step, then of the type of event
/// ([`ActorOptions::commit_when`](super::ActorOptions::commit_when)), of the actor
/// ([`Turn::persistence`](super::Turn::persistence)), of its kind, of the store.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Persistence {
    /// Each turn by itself, before anything of it leaves.
    #[default]
    EachTurn,
    /// As soon as so many events have gathered.
    Every(u32),
    /// At the latest so long after the first that has gathered, in milliseconds' precision.
    Interval(Duration),
    /// Only at barriers.
    Deferred,
}

/// What is decided for one event.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// Append the turn, and all before it.
    Commit,
    /// Leave it for later, whatever the policy; a barrier commits it all the same.
    Defer,
    /// What the next level says.
    #[default]
    Inherit,
}

impl Decision {
    /// Of several events of one turn: one that must be committed takes the others along.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Commit, _) | (_, Self::Commit) => Self::Commit,
            (Self::Defer, _) | (_, Self::Defer) => Self::Defer,
            (Self::Inherit, Self::Inherit) => Self::Inherit,
        }
    }
}

impl Persistence {
    /// As a note has it.
    pub(crate) fn code(self) -> (u8, u64) {
        match self {
            Self::EachTurn => (0, 0),
            Self::Every(events) => (1, u64::from(events)),
            Self::Interval(time) => (2, u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            Self::Deferred => (3, 0),
        }
    }

    /// `None` for what is not known: then the next level counts.
    pub(crate) fn from_code(code: u8, n: u64) -> Option<Self> {
        match code {
            0 => Some(Self::EachTurn),
            1 => Some(Self::Every(u32::try_from(n).unwrap_or(u32::MAX))),
            2 => Some(Self::Interval(Duration::from_millis(n))),
            3 => Some(Self::Deferred),
            _ => None,
        }
    }

    /// Is it time, with so many events gathered?
    pub(crate) fn is_due(self, events: u64) -> bool {
        match self {
            Self::EachTurn => true,
            Self::Every(most) => events >= u64::from(most.max(1)),
            Self::Interval(_) | Self::Deferred => false,
        }
    }
}
