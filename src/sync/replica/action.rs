//! What comes out of the core: what is to be done, in this order, before the next step.

use std::ops::Range;
use std::time::Duration;

use crate::sync::domain::DomainId;
use crate::sync::fact::{Birth, Members};
use crate::sync::message::{Message, Place, Refusal};
use crate::sync::origin::{Incarnation, Lane, Origin, TokenLog};
use crate::sync::replica::event::Link;
use crate::sync::token::TokenKind;
use crate::types::HybridTime;

/// Which domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that this node has.
    Every,
    /// These.
    These(Vec<DomainId>),
}

/// Why something is cleared.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// Tokens cannot be had any more (R2).
    Gap,
    /// A new life that does not vouch for the one before (R3).
    NewLife,
    /// This node's own life before ended without a word (R4).
    Unclean,
    /// Two different logs have one name (R13).
    Diverged,
    /// Nothing was known of the origin, and it was taken up in the middle.
    Adopted,
    /// A member was taken out by an operator, or left and its last tokens cannot be had (R9).
    Removed,
}

/// Why this node may not publish.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fence {
    /// It is no member: it never joined, or has left.
    NoMember,
    /// It was removed by an operator.
    Removed,
    /// It has joined, and waits until everybody must have heard of it.
    Joining,
    /// There is a later life of it.
    Later(Incarnation),
    /// It was rolled back or copied, and that a second time, or with the copy alive: it needs a
    /// new origin id from an operator (R13).
    Copied,
}

/// A thing that somebody should know of. Nothing is lost in silence (R11).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Tokens of an origin were passed over, and what they could have been about was cleared.
    Cleared {
        /// Whose.
        origin: Origin,
        /// Why.
        why: Why,
        /// From where; `None` if nothing was known.
        from: Option<Place>,
        /// To where.
        to: Place,
    },
    /// A peer broke the protocol; its connection was closed.
    Broke {
        /// Who.
        peer: Origin,
        /// How, as it was told.
        refusal: Refusal,
    },
    /// A peer was refused, or refused this node.
    Refused {
        /// Who.
        peer: Origin,
        /// Why.
        refusal: Refusal,
        /// It was the peer that refused.
        by_peer: bool,
    },
    /// A peer caches nothing that this node writes, and writes nothing that it caches.
    NothingShared {
        /// Who.
        peer: Origin,
    },
    /// All leases were dropped: the clocks jumped, or nothing ran for too long.
    TimeLost {
        /// By how much.
        by: Duration,
    },
    /// This node is named in a way that it cannot have been: rolled back or copied (R13).
    RolledBack {
        /// What somebody knows of it.
        known: Place,
    },
    /// A member joined, left or was removed.
    Membership {
        /// Who.
        origin: Origin,
        /// It may write now.
        member: bool,
    },
    /// A removal or a join did not find a majority in time. Nothing was changed by this node.
    NoMajority {
        /// Who was to join or be removed.
        origin: Origin,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Send it on the connection, behind all that was sent before.
    Send {
        /// On which.
        link: Link,
        /// What.
        message: Message,
    },
    /// From now on send what this log has after `after`, in order, as it comes and as credit
    /// allows, until [`Self::Halt`] or the end of the connection: own logs up to
    /// [`Logs::head`](super::Logs::head), foreign ones as they are kept. If the log does not reach
    /// `after` yet, begin when it does. When nothing is to be sent but the visible mark has moved,
    /// send a batch without records that says so. Say
    /// [`Event::Shipped`](super::Event::Shipped) now and then, for foreign logs at least before
    /// each tick.
    Ship {
        /// On which connection.
        link: Link,
        /// Which log.
        log: TokenLog,
        /// Behind which token.
        after: u64,
    },
    /// Send no more of it on this connection.
    Halt {
        /// The connection.
        link: Link,
        /// Which log.
        log: TokenLog,
    },
    /// Tokens of the batch that is being stepped, checked, in order and new. Each is applied
    /// (generation up, then remove: R6; those above the visible mark as provisional), then all of
    /// them are appended to the foreign log.
    Apply {
        /// Whose.
        log: TokenLog,
        /// Number of the first.
        first: u64,
        /// Number of the last.
        last: u64,
        /// The running hash before the first.
        before: u64,
        /// Where they stand in the bytes of the batch.
        bytes: Range<usize>,
    },
    /// Changes of the origin up to here may be read: what was provisional is so no longer, and the
    /// generation of what they match goes up once more (R7). Kept with the foreign log, lazily.
    Visible {
        /// Of which log.
        log: TokenLog,
        /// Up to which token.
        upto: u64,
    },
    /// Forget everything of these domains, wherever it came from: one number goes up (R12). Open
    /// intents stay open, and what is provisional stays so.
    Flush {
        /// Which.
        domains: Which,
        /// Why.
        why: Why,
        /// Values of up to this time act as invalidations from now on; 0 if none is skipped.
        floor: HybridTime,
    },
    /// The foreign logs of this origin begin behind `to`: whatever is kept of it below, or of
    /// other lives, goes. Durable together, or not at all, and in one step with the flush before.
    /// What was provisional of it, or open as an intent, is settled: what is open yet comes again
    /// behind `to`, and before the next proof.
    Adopt {
        /// From where on.
        to: Place,
        /// Up to here its changes may be read.
        visible: u64,
        /// Of that life, for [`Kept`](super::Kept).
        birth: Option<Birth>,
    },
    /// The origin is a writer no more, and all that it ever wrote is applied or cleared: what was
    /// provisional of it, or open as an intent, is settled.
    Settle {
        /// Who.
        origin: Origin,
    },
    /// A foreign log is known to be one of two with one name: remember it.
    Mark {
        /// The place, with `diverged` set.
        at: Place,
    },
    /// End the connection, after what was sent.
    Close {
        /// Which.
        link: Link,
        /// What the peer was told; `None` if it is simply not needed.
        refusal: Option<Refusal>,
    },
    /// A domain is proved up to this time (of `CLOCK_BOOTTIME`): an answer is fresh while it is at
    /// most the lease ago. `None`: it is not proved. `Duration::MAX`: nobody else writes.
    Fresh {
        /// Which domain.
        domain: DomainId,
        /// As of when.
        as_of: Option<Duration>,
    },
    /// Append this to the own log, and say [`Event::Published`](super::Event::Published). Not
    /// fenced. In [`Lane::Values`] it is synced at once.
    Publish {
        /// Comes back.
        ticket: u64,
        /// To which log.
        lane: Lane,
        /// What it says.
        kind: TokenKind,
        /// Of which domain.
        domain: DomainId,
        /// Its body.
        body: Vec<u8>,
    },
    /// This node may not publish; whoever tries is told why. `None`: it may.
    Fence(Option<Fence>),
    /// Remember who is a member, durably, before anything that follows.
    Persist {
        /// All that is known.
        members: Members,
        /// The term in which this node may write; 0 if it may not.
        term: u64,
    },
    /// Members have this much of the own log on their disks: what is up to there may go.
    Retain {
        /// Of which log.
        lane: Lane,
        /// The last token that may go.
        upto: u64,
    },
    /// Take a life with a counter above this one, durably, with all connections closed, and begin
    /// again with [`Clean::Not`](crate::sync::fact::Clean::Not) and `reborn` set to the wall clock.
    /// Nothing is published before.
    Reborn {
        /// The highest counter that anybody has named.
        above: u64,
    },
    /// Say [`Event::Tick`](super::Event::Tick) at this time at the latest; replaces the last.
    Arm {
        /// By `CLOCK_BOOTTIME`.
        at: Duration,
    },
    /// Somebody should know.
    Report(Notice),
}
