//! What goes into the core: what has happened, when, and the logs as they stand.

use std::time::Duration;

use crate::sync::domain::{Domain, DomainId};
use crate::sync::fact::{Birth, Clean, Members};
use crate::sync::message::{Hello, Mark, Marks, Message, Place, Tokens};
use crate::sync::origin::{ClusterId, Incarnation, Lane, Origin, TokenLog};

/// A connection, numbered by the rim, which never gives a number twice in a life.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(pub u64);

/// The two clocks of the machine, read together just before the step.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME`: goes on while the machine sleeps. All durations are of it.
    pub boot: Duration,
    /// The wall clock, since the Unix epoch: compared with `boot` to notice that time was lost,
    /// and with peers' in their hello.
    pub wall: Duration,
}

/// The logs, as the core may ask for them in the middle of a step.
///
/// `head` and `visible` are read without a lock: **the head must have moved before anybody can
/// read the change** that the token is of.
pub trait Logs {
    /// How far this life's own log can be shipped: written, in [`Lane::Tokens`]; durable, in
    /// [`Lane::Values`].
    fn head(&self, lane: Lane) -> Mark;
    /// Own changes of [`Lane::Tokens`] up to here may be read by others: they are durable.
    fn visible(&self) -> u64;
    /// Before what the log is gone: what follows this mark can be had. Own and foreign logs.
    /// `None` for a log that is not kept at all.
    fn floor(&self, log: &TokenLog) -> Option<Mark>;
    /// The running hash at a number from the floor to the head, both included; else `None`.
    fn hash_at(&self, log: &TokenLog, seq: u64) -> Option<u64>;
    /// The number of the oldest intent of the log that is neither done nor resolved.
    fn oldest_intent(&self, log: &TokenLog) -> Option<u64>;
    /// The highest time of a token up to `seq`, or a later one; for [`Gap`].
    ///
    /// [`Gap`]: crate::sync::message::Gap
    fn time_at(&self, log: &TokenLog, seq: u64) -> crate::types::HybridTime;
}

/// What does not change in a life.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of the cluster; others are refused.
    pub cluster: ClusterId,
    /// What this node writes or caches, with the schemas that peers must share.
    pub domains: Vec<Domain>,
    /// L: an answer from a cache is as of at most this long ago, or is not called fresh.
    pub lease: Duration,
    /// Between two pings on a link: at most a quarter of the lease, less in a deep tree.
    pub beat: Duration,
    /// How far clocks may be apart, and how far this machine's two may drift between two steps.
    pub skew_max: Duration,
}

impl Config {
    /// Is a lease possible over this many hops, with this round trip on each? Every hop adds at
    /// most a beat and a round trip to the age of a proof, and half of the lease is for that.
    ///
    /// ```
    /// use std::time::Duration;
    /// use annals::sync::{origin::ClusterId, replica::Config};
    ///
    /// let second = Duration::from_secs(1);
    /// let config = Config {
    ///     cluster: ClusterId::from_u128(1),
    ///     domains: Vec::new(),
    ///     lease: second,
    ///     beat: second / 4,
    ///     skew_max: second / 2,
    /// };
    /// assert!(config.reaches(1, second / 100));
    /// assert!(!config.reaches(3, second / 100), "three hops need a shorter beat");
    /// ```
    pub fn reaches(&self, hops: u32, round_trip: Duration) -> bool {
        (self.beat + round_trip).saturating_mul(hops) <= self.lease / 2
    }
}

/// How the life before ended, as the node's folder says it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Which life.
    pub incarnation: Incarnation,
    /// Where its logs end.
    pub heads: Marks,
    /// How it ended.
    pub clean: Clean,
}

/// What was kept of another origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// How far the logs go that survived.
    pub place: Place,
    /// The visible mark that was known. The rim treats as provisional what is above, and as open
    /// the intents that are, before it lets anybody read.
    pub visible: u64,
    /// Of its life, as it was adopted with, or token 1 of the log.
    pub birth: Option<Birth>,
}

/// How a life begins. **The incarnation is on the disk, synced, before this is made.**
#[derive(Clone, Debug)]
pub struct Start {
    /// Who.
    pub origin: Origin,
    /// In which life: later than any before it.
    pub incarnation: Incarnation,
    /// The life before; `None` in a new folder.
    pub previous: Option<Previous>,
    /// What was kept of others.
    pub kept: Vec<Kept>,
    /// Who is a member, as it was persisted last; that of the foundation in a new folder, or
    /// nobody for a node that is going to join.
    pub members: Members,
    /// The term in which this node may write, persisted with them: 1 for a founder, 0 if it has
    /// to join. (That others count it as a member is not enough: it may have been waiting.)
    pub term: u64,
    /// When, by the wall clock, this node last had to take a new life because something named it
    /// that it did not know (R13).
    pub reborn: Option<Duration>,
    /// 64 random bits, so that nodes do not do everything at the same moment.
    pub random: u64,
}

/// What an operator, or the program, asks of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Become a member that writes these domains, through the peer of this connection.
    Join {
        /// Of the sponsor.
        link: Link,
        /// What it is going to write, besides what it does.
        domains: Vec<DomainId>,
    },
    /// Write no more, and say so.
    Leave,
    /// Take out a member that is known to write no more.
    Remove {
        /// Who.
        origin: Origin,
    },
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A connection stands, both sides are who they say, and this is what the peer said.
    Up {
        /// The connection.
        link: Link,
        /// What the peer said. (What this node says: [`Replica::hello`](super::Replica::hello).)
        hello: &'a Hello,
    },
    /// It is gone. Nothing of it comes any more.
    Down {
        /// The connection.
        link: Link,
    },
    /// The peer says something.
    Message {
        /// On which connection.
        link: Link,
        /// What.
        message: &'a Message,
    },
    /// The peer ships tokens.
    Tokens {
        /// On which connection.
        link: Link,
        /// Which.
        tokens: Tokens<'a>,
    },
    /// A foreign log is durable up to here.
    Stored {
        /// Which.
        log: TokenLog,
        /// The last durable token.
        seq: u64,
    },
    /// Up to here was given to the connection: what is sent on it now comes after.
    Shipped {
        /// On which.
        link: Link,
        /// Of which log.
        log: TokenLog,
        /// The last token.
        seq: u64,
    },
    /// What was to be shipped next of this origin is gone from the log: the reader is too far
    /// behind. Nothing more of it is sent.
    Behind {
        /// On which connection.
        link: Link,
        /// Whose log.
        origin: Origin,
    },
    /// What [`Action::Publish`](super::Action::Publish) asked for is in the own log.
    Published {
        /// From the action.
        ticket: u64,
        /// Where.
        seq: u64,
    },
    /// Somebody asks for something.
    Order(Order),
    /// Time has passed: at [`Action::Arm`](super::Action::Arm) at the latest.
    Tick,
}
