//! The pipe: what a node needs of a connection, whatever it runs over.

use std::fmt::Debug;

use crate::sync::message::{Hello, Message, Refusal, Tokens};
use crate::sync::replica::Link;

/// The way out of a connection. Nothing here waits for the peer.
pub(crate) trait Pipe: Debug + Send + Sync {
    /// Sends a message behind all that was sent before. It is small, and their number is bounded
    /// by what the peer itself asks for.
    fn send(&self, message: &Message);

    /// Sends tokens behind all that was sent before; `false` if the peer takes no more now. Then
    /// [`Rim::writable`] is called when it does.
    fn tokens(&self, tokens: &Tokens<'_>) -> bool;

    /// Sends what was said, and ends the connection.
    fn close(&self, refusal: Option<&Refusal>);
}

/// The way in: what a connection tells its node. Called by one thread at a time for each link.
pub(crate) trait Rim: Debug + Send + Sync {
    /// What this node says first.
    fn hello(&self) -> Hello;

    /// A connection stands: both sides are who they say. Answers its number.
    fn up(&self, hello: &Hello, pipe: std::sync::Arc<dyn Pipe>) -> Link;

    /// The peer says something.
    fn message(&self, link: Link, message: &Message);

    /// The peer ships tokens. When this returns they are taken in, and may be granted anew.
    fn tokens(&self, link: Link, tokens: &Tokens<'_>);

    /// There is room again, after an answer that there was none.
    fn writable(&self, link: Link);

    /// It is gone.
    fn down(&self, link: Link);
}
