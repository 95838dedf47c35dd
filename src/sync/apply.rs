//! What happens to tokens here: the one who applies them, and what he asks of the node.
//!
//! A node has exactly one [`Applier`] (the cache manager). The node hands it every token of every
//! log, its own among them, in the order of each log, and then counts it as applied. Applying is
//! *generation up, then remove*, and idempotent: a token that is applied again after a crash costs
//! a reload at most.
//!
//! The other way the manager knows the node by two narrow traits: [`Publisher`], to say that
//! something was written, and [`History`], to ask whether an entry that was kept over a restart is
//! still what the logs say.

use std::fmt;
use std::sync::Arc;

use crate::sync::domain::DomainId;
use crate::sync::origin::{Cursor, TokenLog};
use crate::sync::token::{Token, TokenKind};
use crate::types::HybridTime;

/// Takes in what is told of things that are remembered here.
///
/// None of these waits for anything, and none fails: what cannot be understood is taken for a
/// reason to forget. May be called by several threads, but for one log by one at a time.
pub trait Applier: Send + Sync + fmt::Debug {
    /// The next token of `log`. When this returns, nothing that it speaks of is remembered, no
    /// load that began before will be, and if its change may not be visible yet, none at all until
    /// [`visible`](Self::visible) says so.
    ///
    /// Birth, joins, leaves and probes may be handed in too; they say nothing here.
    fn apply(&self, log: &TokenLog, token: &Token<'_>);

    /// Whatever the tokens of `log` up to `upto` tell of can be read by everybody. It may be said
    /// before those tokens are applied: then they are visible from the start, so a catch-up is told
    /// first how far it will be visible.
    ///
    /// Of its own tokens a node says `u64::MAX` once, when it begins: its own readers see a change
    /// as soon as it is made.
    fn visible(&self, log: &TokenLog, upto: u64);

    /// No token can say what has changed: everything of these domains may have.
    fn flush(&self, flush: &Flush);

    /// `log` is over: its origin has a later incarnation, or is no writer any more. What was not
    /// visible of it never will be (a new incarnation has flushed), and its marks may be forgotten.
    fn ended(&self, log: &TokenLog);
}

/// Everything of some domains is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Of which; empty: of all there are.
    pub domains: Vec<DomainId>,
    /// Why no token says so.
    pub reason: FlushReason,
    /// The newest time of what was skipped, as far as that is known: a value that was published
    /// no later acts as an invalidation from now on.
    pub floor: HybridTime,
}

/// Why everything was to be forgotten.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FlushReason {
    /// Tokens were dropped before this node had them.
    Gap,
    /// A node began a new life, and nobody knows whether the old one said everything.
    Incarnation,
    /// Two copies of one log do not agree.
    Diverged,
    /// This node's own last life ended without a word, and may have changed what lies outside.
    Unclean,
    /// This node took over how far another one is.
    Adopted,
    /// A node was removed from the writers by hand.
    Removed,
    /// This node was copied, or put back to an earlier state.
    RolledBack,
    /// Somebody asked for it.
    Asked,
}

impl FlushReason {
    /// As in metrics and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Incarnation => "incarnation",
            Self::Diverged => "diverged",
            Self::Unclean => "unclean",
            Self::Adopted => "adopted",
            Self::Removed => "removed",
            Self::RolledBack => "rolled back",
            Self::Asked => "asked",
        }
    }
}

impl fmt::Display for FlushReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Says on all nodes that something was written here.
pub trait Publisher: Send + Sync + fmt::Debug {
    /// Appends a token of `domain`. Before this returns, the applier was handed that token exactly
    /// once; the network is not waited for, nor the disk.
    ///
    /// # Errors
    /// See [`PublishError`]. Nothing was said, and the applier was handed nothing.
    fn publish(
        &self,
        domain: DomainId,
        kind: TokenKind,
        body: &[u8],
    ) -> Result<Published, PublishError>;
}

/// Which token it has become.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// In which log.
    pub log: TokenLog,
    /// Its number there.
    pub seq: u64,
    /// And its time.
    pub time: HybridTime,
}

/// Why nothing was said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// A later life of this node, or a copy of it, is at work.
    #[error("this node is fenced: another life of it is at work")]
    Fenced,
    /// The domain was not declared when the node was opened.
    #[error("the domain {0:?} was not declared")]
    Domain(DomainId),
    /// The body is longer than a token holds.
    #[error("{0} bytes are more than a token holds")]
    TooLarge(usize),
    /// The log does not take it.
    #[error("the log does not take the token: {0}")]
    Log(String),
    /// The node is closed.
    #[error("the node is closed")]
    Closed,
}

/// What the logs of this node say of entries that outlived a restart.
pub trait History: Send + Sync + fmt::Debug {
    /// How far every log is both durable and applied here. May lag behind, never run ahead: who
    /// reads a source after this call sees everything that these tokens tell of.
    fn marks(&self) -> Arc<[Cursor]>;

    /// Does `cursor` stand on a log that is kept here, at or above its floor, at or below its
    /// head, and with the log's own hash?
    fn stands(&self, cursor: &Cursor) -> bool;

    /// The logs that are kept here, each with its floor: the cursor before its first token.
    fn floors(&self) -> Vec<Cursor>;

    /// Hands every token of `from.log` after `from`, up to its head, to `each`, in order.
    ///
    /// # Errors
    /// [`Gone`] if they are not all there; some may have been handed out.
    fn after(&self, from: &Cursor, each: &mut dyn FnMut(&Token<'_>)) -> Result<(), Gone>;
}

/// Tokens that were asked for are not kept any more, or cannot be read.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tokens that were asked for are not kept any more")]
pub struct Gone;
