//! The protocol's state machine: without I/O, clock or randomness.
//!
//! It knows how far this node is with everybody, what is proved of whom and since when, who is a
//! member, and what each connection is in the middle of. It never holds a token: those are in
//! the logs, which the rim has. Each [`Event`] is one [`Replica::step`], which leaves [`Action`]s
//! that the rim does in order before the next.
//!
//! ```text
//! Replica::new(config, start, now, &mut actions) -> Replica    do the actions: the birth is among
//!                                                               them; publish open intents again;
//!                                                               only then connect to anybody
//! replica.hello(now) -> Hello                                   for the link, on each connection
//! replica.step(now, &logs, event, &mut actions)
//! ```

mod action;
mod event;

pub use action::{Action, Fence, Notice, Which, Why};
pub use event::{Config, Event, Kept, Link, Logs, Now, Order, Previous, Start};
