//! The domain: a part of what is cached that is invalidated, cleared and vouched for on its own.

pub use crate::types::DomainId;

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
