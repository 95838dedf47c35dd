//! Tokens: facts that say "what you remember of this is no longer so", and how they reach every
//! node however it was cut off.
//!
//! A token has an *origin* (the node that published it), an *incarnation* (the life of that node)
//! and a number that is dense within both. Every node keeps the tokens of all others and a cursor
//! for each, so it can ask for exactly what it lacks, and anybody who has it may answer. What
//! cannot be had any more is answered as a gap, and a gap clears: nothing stale is served because
//! something was missed.

pub mod apply;
pub mod cache;
pub mod domain;
pub mod fact;
pub(crate) mod foreign;
pub mod freshness;
pub mod link;
pub mod members;
pub mod message;
pub mod node;
pub mod origin;
pub(crate) mod own;
pub mod replica;
#[cfg(test)]
mod sim;
pub mod token;
pub mod wire;
