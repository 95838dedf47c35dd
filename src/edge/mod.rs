//! Edges: events into the process and out of it, none lost on the way.
//!
//! ```text
//!  Source --> Stage --> Stage --> Sink
//!    ^          held                | settled
//!    +-------- done(frontier) ------+
//! ```
//!
//! Three small traits and one position. A [`Source`] gives records, each at a [`Pos`]; a
//! [`Stage`] makes others of them, or none; a [`Sink`] takes what is left and says up to which
//! position it is as safe as its [`Level`] says. A pipeline is a loop on one thread that carries
//! records one way and the *frontier* the other: the highest position up to which every record is
//! settled, was sent to the dead letters and settled there, or was dropped by a stage that said
//! so, and no stage holds any. Only the frontier is what a source may forget up to, and where the
//! next life begins.
//!
//! What is promised, and under which condition, is in `docs/guarantees.md`; `docs/edges.md` is
//! the guide.

#![forbid(unsafe_code)]

pub mod batch;
mod buffered;
mod callback;
pub mod channel;
pub mod dead;
pub mod dedup;
mod drive;
pub mod fault;
pub mod gauge;
mod handle;
pub mod keep;
pub mod lines;
mod merge;
mod options;
mod pipe;
pub mod pos;
pub mod rate;
mod run;
pub mod sink;
pub mod source;
pub mod stage;
pub mod stages;
pub mod tcp;
mod tee;
#[cfg(test)]
mod tests;
pub mod then;

pub use batch::batch;
pub use buffered::{Buffered, buffered};
pub use callback::{Call, Iter, call, iter};
pub use dead::Dead;
pub use dedup::dedup;
pub use drive::{Branch, OnPoison, branch};
pub use fault::{Fault, Why};
pub use gauge::{Gauges, Numbers};
pub use handle::{Handle, Health};
pub use keep::{Keep, Kept};
pub use lines::{JsonLines, json_lines};
pub use merge::{Lane, merge};
pub use options::{OnDiverged, OnGap, Options};
pub use pipe::{Pipe, Pipeline, from};
pub use pos::{Gap, Mark, Pos};
pub use rate::rate;
pub use sink::{Last, Level, Sink};
pub use source::{Flow, Give, Resume, Source};
pub use stage::{Emit, Stage, Swap};
pub use stages::{bad, filter, flat_map, from_fn, map, try_map};
pub use tee::{Tee, tee};
pub use then::{Boxed, Named, Pass, Then, all};
