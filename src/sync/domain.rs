//! The domain: a part of what is cached that is invalidated, cleared and vouched for on its own.

use std::fmt;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

/// Names a domain on the wire and in tokens: a hash of its name. Two names with one hash are
/// refused where they are declared.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(u64);

impl DomainId {
    /// Of facts that belong to no domain, such as the birth of a node.
    pub const NONE: Self = Self(0);

    /// SipHash-2-4 with a zero key over the name.
    pub fn of(name: &str) -> Self {
        let mut hasher = SipHasher24::new();
        hasher.write(name.as_bytes());
        Self(hasher.finish().max(1))
    }

    /// From its number.
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DomainId({:016x})", self.0)
    }
}

/// A domain as its nodes declare it. One name with two schemas does not meet: such a peer is
/// refused by name when it connects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain {
    /// What it is called: 1 to 255 bytes of UTF-8.
    pub name: String,
    /// What its values and keys mean; the user's number, more with each change that others could
    /// not read.
    pub schema: u64,
    /// Are its changes made outside of Annals (a SQL commit), so that a life which ended without
    /// a word may have made some that nobody was told of?
    pub outside: bool,
}

impl Domain {
    /// A domain whose changes are all in the node's own log.
    pub fn new(name: impl Into<String>, schema: u64) -> Self {
        Self { name: name.into(), schema, outside: false }
    }

    /// Of its name.
    pub fn id(&self) -> DomainId {
        DomainId::of(&self.name)
    }
}
