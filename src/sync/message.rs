//! What two nodes say to each other, as types. The bytes of it are the wire's.
//!
//! One connection carries one direction's messages in order, and that order is part of what they
//! mean: a [`Beat`] vouches for what was sent before it. A node may have several connections to
//! the same peer; each begins with a [`Hello`] and a [`Message::Have`] of its own.
//!
//! ```text
//!  Hello ->                      <- Hello        who I am; else Refused and the end
//!  Have [Place, ..] ->           <- Have         how far I am with everybody
//!  Want O at Place ->            <- From | Gap | NewInc | Diverged
//!                                <- Tokens ..    as long as the link lives, or until Unwant
//!  Ack durable, applied ->
//!  Ping n ->                     <- Beat echo n  what is proved, and of which age
//! ```

use std::fmt;
use std::time::Duration;

use crate::sync::domain::DomainId;
use crate::sync::fact::{Birth, Members};
use crate::sync::origin::{ClusterId, Cursor, Incarnation, Lane, Origin, TokenLog};
use crate::types::HybridTime;

/// The protocol's version. Peers with another one are refused.
pub const PROTOCOL: u16 = 1;
/// Origins in one [`Message::Have`] or [`Beat`]; a longer vector is sent in several messages.
pub const ORIGINS_MAX: usize = 1_024;
/// Domains that one node declares.
pub const DOMAINS_MAX: usize = 256;

/// How far in one log: everything up to `seq`, and the running hash of it. Number 0 is before the
/// first, with hash 0.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The last token.
    pub seq: u64,
    /// Of all up to there: [`chain`](crate::sync::token::chain).
    pub hash: u64,
}

impl Mark {
    /// Before the first token.
    pub const ZERO: Self = Self { seq: 0, hash: 0 };
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:08x}", self.seq, self.hash >> 32)
    }
}

/// One mark for each of an origin's two logs.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks {
    /// Of [`Lane::Tokens`].
    pub tokens: Mark,
    /// Of [`Lane::Values`].
    pub values: Mark,
}

impl Marks {
    /// Before the first token of either.
    pub const ZERO: Self = Self { tokens: Mark::ZERO, values: Mark::ZERO };

    /// That of one lane.
    pub const fn of(&self, lane: Lane) -> Mark {
        match lane {
            Lane::Tokens => self.tokens,
            Lane::Values => self.values,
        }
    }

    /// Sets that of one lane.
    pub const fn set(&mut self, lane: Lane, mark: Mark) {
        match lane {
            Lane::Tokens => self.tokens = mark,
            Lane::Values => self.values = mark,
        }
    }

    /// Is each lane as far as `other`'s, by number?
    pub const fn covers(&self, other: &Self) -> bool {
        self.tokens.seq >= other.tokens.seq && self.values.seq >= other.values.seq
    }
}

/// How far somebody is with everything of one origin.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Whose.
    pub origin: Origin,
    /// In which of its lives.
    pub incarnation: Incarnation,
    /// How far.
    pub marks: Marks,
    /// Somebody found two different logs under this name: nobody has a lease for this life of the
    /// origin, and the origin itself, when it hears of it, begins another (R13).
    pub diverged: bool,
}

impl Place {
    /// Its log in a lane.
    pub const fn log(&self, lane: Lane) -> TokenLog {
        TokenLog { origin: self.origin, incarnation: self.incarnation, lane }
    }

    /// Its cursor in a lane.
    pub const fn cursor(&self, lane: Lane) -> Cursor {
        let mark = self.marks.of(lane);
        Cursor { log: self.log(lane), seq: mark.seq, hash: mark.hash }
    }
}

/// A domain as its node declares it in a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schema {
    /// Which.
    pub domain: DomainId,
    /// See [`Domain::schema`](crate::sync::domain::Domain::schema).
    pub schema: u64,
}

/// The first message on a connection, in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Who speaks.
    pub origin: Origin,
    /// In which life.
    pub incarnation: Incarnation,
    /// [`PROTOCOL`].
    pub protocol: u16,
    /// Bits of what it can do besides; none is defined so far, and unknown ones are ignored.
    pub features: u64,
    /// Its wall clock now.
    pub time: HybridTime,
    /// Of its membership, as it knows itself: see [`Member::term`](crate::sync::fact::Member).
    /// 0 if it never joined.
    pub term: u64,
    /// What it caches or writes.
    pub domains: Vec<Schema>,
}

/// What cannot be had any more. Who takes it clears what it has of the origin's domains, and goes
/// on behind `floor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Whose log, in which life, and behind what it can be had. Never above what was visible, nor
    /// at or above the oldest intent that is open: both would be missing where it is taken.
    pub floor: Place,
    /// How far the sender is.
    pub head: Marks,
    /// The highest time of a token up to `floor`: values up to there act as invalidations (R10).
    pub time: HybridTime,
    /// Of the origin's life: its domains are in it. `None` if the sender does not know, and then
    /// all that there are are cleared.
    pub birth: Option<Birth>,
}

/// Tokens of one log, as they stand in it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Tokens<'a> {
    /// Of which log.
    pub log: TokenLog,
    /// Number of the first.
    pub first: u64,
    /// The running hash before it.
    pub before: u64,
    /// Changes up to here may be read at their origin: tokens above are provisional (R7). Always
    /// the last token's number in [`Lane::Values`].
    pub visible: u64,
    /// The records, back to back: [`Token`](crate::sync::token::Token).
    pub bytes: &'a [u8],
}

/// How far somebody is with one log. Cumulative: the latest counts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// With what.
    pub log: TokenLog,
    /// It survives power loss there. This alone moves retention.
    pub durable: u64,
    /// Its caches have heard of it.
    pub applied: u64,
}

/// An origin that [`Beat::age`] does not cover.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct But {
    /// Who.
    pub origin: Origin,
    /// Its own age; `None` if nothing is proved of it.
    pub age: Option<Duration>,
}

/// What is proved at the moment when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The receiver's [`Message::Ping`] that this answers. The proof counts from the moment when
    /// *that* was sent, by the receiver's own clock: no clocks are compared.
    pub echo: u64,
    /// The sender's life.
    pub incarnation: Incarnation,
    /// Heads of its own logs: of age 0.
    pub head: Marks,
    /// Its own changes up to here may be read.
    pub visible: u64,
    /// Everything up to this long ago, of all origins that the receiver wants on this connection
    /// and was answered [`Message::From`] for, was sent before this. `None`: nothing is proved but
    /// the sender's own.
    pub age: Option<Duration>,
    /// Those that `age` does not cover.
    pub but: Vec<But>,
    /// The visible marks of relayed origins that have moved since the last beat.
    pub marks: Vec<(Origin, Incarnation, u64)>,
    /// [`Members::digest`] of the sender's membership: who has another one says what it knows.
    pub members: u64,
}

/// Why a connection or a request is refused. The sender of it closes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Of another cluster.
    #[error("the node is of another cluster")]
    Cluster,
    /// Of another version of the protocol.
    #[error("the node speaks version {0} of the protocol, not {PROTOCOL}")]
    Protocol(u16),
    /// Clocks differ by more than is allowed.
    #[error("the clocks differ by {0:?}")]
    Skew(Duration),
    /// Both have the domain, with different schemas.
    #[error("domain {domain:?} has schema {theirs} there and {ours} here")]
    Schema {
        /// Which.
        domain: DomainId,
        /// The receiver's.
        theirs: u64,
        /// The sender's.
        ours: u64,
    },
    /// There is a later life of the receiver.
    #[error("a later life of this node is known: {0}")]
    Fenced(Incarnation),
    /// The receiver is no member any more; it may join again.
    #[error("the node was removed from the cluster")]
    Removed,
    /// The receiver does not know the protocol: a hole, a checksum, a message out of turn.
    #[error("the peer breaks the protocol: {0}")]
    Broken(Breach),
    /// Another member must sponsor: this one does not write what is to be joined, or may not.
    #[error("the node cannot sponsor this join")]
    Sponsor,
    /// There is another connection, a limit, or the end of the process.
    #[error("the node does not take the connection now")]
    Busy,
}

/// How a peer broke the protocol.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Breach {
    /// Tokens were left out inside a stream (R1).
    #[error("tokens were left out of a stream")]
    Hole,
    /// A token's checksum, or the end of the bytes, was wrong.
    #[error("tokens are damaged")]
    Damaged,
    /// Nobody asked for it, or not yet.
    #[error("a message came out of turn")]
    Turn,
    /// More than was granted, or longer than is legal.
    #[error("a message is larger than is allowed")]
    Size,
}

/// Everything but [`Tokens`], which carry borrowed bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Who I am. The link exchanges these, and hands the peer's to the core.
    Hello(Hello),
    /// How far I am with everybody, me included. The first on a connection says all (`whole` on
    /// its last part), later ones what has changed and is news: new origins, new lives, diverged
    /// logs.
    Have {
        /// At most [`ORIGINS_MAX`].
        places: Vec<Place>,
        /// The vector is complete with this.
        whole: bool,
    },
    /// Send me what you get of this origin, from my place on; `None` if I have nothing of it, and
    /// then from wherever you like.
    Want {
        /// Whose.
        origin: Origin,
        /// Running number of the connection's direction, so that an answer to a want that was
        /// taken back is not mistaken for that to a later one.
        ask: u64,
        /// From where.
        at: Option<Place>,
    },
    /// Send no more of this origin.
    Unwant {
        /// Whose.
        origin: Origin,
    },
    /// Answer to a want: what follows the place comes on this connection.
    From {
        /// From the want.
        ask: u64,
        /// The place from the want.
        at: Place,
    },
    /// Answer to a want: what follows the place is gone.
    Gap(Gap),
    /// Answer to a want, or news: the origin has begun another life.
    NewInc {
        /// Whose.
        origin: Origin,
        /// The new one.
        incarnation: Incarnation,
        /// Who it was before, and its domains.
        birth: Birth,
    },
    /// Answer to a want: your place is ahead of the origin itself, or has another hash. It stands
    /// alone: nothing follows.
    Diverged {
        /// The place from the want.
        at: Place,
    },
    /// How far I am with what you send. At most one for each log.
    Ack(Vec<Ack>),
    /// You may send this many bytes of tokens more. Between links; the core never sees it.
    Credit {
        /// Bytes.
        bytes: u64,
    },
    /// Prove something.
    Ping {
        /// Running number of the connection's direction.
        n: u64,
    },
    /// What is proved.
    Beat(Beat),
    /// All that I know of who is a member. News, or an answer to [`Message::Who`].
    Members(Members),
    /// Say who is a member: an operator's removal reads a majority first (R9).
    Who {
        /// Comes back with [`Message::Knows`].
        ask: u64,
    },
    /// Answer to [`Message::Who`].
    Knows {
        /// From the question.
        ask: u64,
        /// All that the sender knows.
        members: Members,
    },
    /// A node asks its peer to sponsor it.
    Join {
        /// What it is going to write.
        domains: Vec<DomainId>,
    },
    /// A majority knows of you: you may write after the lease's time.
    Welcome {
        /// Of your membership.
        term: u64,
        /// All that the sponsor knows.
        members: Members,
    },
    /// I stop on purpose. A leave, where it was one, is in my log.
    Bye,
    /// And why; the connection ends.
    Refused(Refusal),
}
