//! Who published a token, in which life, and how far somebody is with that.

use std::fmt;

use crate::types::Life;

/// Names a cluster: random when it is founded, the same for all its nodes.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(u128);

impl ClusterId {
    /// From its number.
    pub const fn from_u128(id: u128) -> Self {
        Self(id)
    }

    /// The number.
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Names a node: random, made with its folder, never that of another.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(u64);

impl Origin {
    /// From its number.
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A node's life, as others know it. Every start takes a new one; of two, that with the higher
/// counter is the later. Two with one counter and other nonces are a copied or a rolled back node.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation {
    /// 1 at the first start, and more at each.
    pub counter: u64,
    /// 64 random bits.
    pub nonce: u64,
}

impl From<Life> for Incarnation {
    fn from(life: Life) -> Self {
        Self { counter: life.number, nonce: life.bits }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}", self.counter, self.nonce >> 32)
    }
}

/// Which of an origin's two logs: values may wait for the disk, invalidations never wait for them.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Invalidations, intents, births: shipped as soon as they are written.
    #[default]
    Tokens,
    /// Values, joins and leaves: shipped once they are durable.
    Values,
}

/// One log of tokens: of one node's one life.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenLog {
    /// Whose.
    pub origin: Origin,
    /// In which life.
    pub incarnation: Incarnation,
    /// Which of its two.
    pub lane: Lane,
}

impl fmt::Display for TokenLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lane = match self.lane {
            Lane::Tokens => "",
            Lane::Values => "/values",
        };
        write!(f, "{}@{}{lane}", self.origin, self.incarnation)
    }
}

/// How far somebody is with a [`TokenLog`]: everything up to `seq`, and `hash` is the running hash
/// of it. Number 0 is before the first, with hash 0.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// With what.
    pub log: TokenLog,
    /// The last token that is in.
    pub seq: u64,
    /// Of all up to there; see [`crate::sync::token::chain`].
    pub hash: u64,
}

impl Cursor {
    /// Before the first token of `log`.
    pub const fn start(log: TokenLog) -> Self {
        Self { log, seq: 0, hash: 0 }
    }
}
