//! KV-cache events of inference engines: what vLLM tells of the blocks that it holds.
//!
//! ```text
//!  engine --> follow --> Told --> Normalise --> Holders --> Gather --> Number --> sink
//!             epochs     bytes    KvEvent       changes     fewer       1, 2, 3
//! ```
//!
//! Who routes requests wants to know which engine holds which blocks. Engines publish that over
//! ZeroMQ and keep little of it; what is lost there is silently wrong from then on. Here it is
//! followed exactly ([`follow`], the source is `edge::zmq`), and where something is missing that
//! is said, and what was known is cleared, rather than being wrong.
//!
//! Each stage does one thing, and none has I/O: [`Normalise`] reads both generations of vLLM's
//! format, [`Holders`] lets only changes of what is held go on, [`Gather`] puts adjacent events
//! together, [`Number`] gives them the publisher's own numbers. [`KvEvent::to_json`] writes them
//! as NVIDIA Dynamo's routers read them.

mod event;
pub mod follow;
mod gather;
mod holders;
mod msgpack;
mod normalise;
mod number;
#[cfg(test)]
mod tests;
mod told;
mod wire;

pub use event::{Block, Change, KvEvent};
pub use gather::Gather;
pub use holders::Holders;
pub use normalise::Normalise;
pub use number::Number;
pub use told::{Cut, Told, Why};
pub use wire::{Batch, BlockHash, EngineEvent, EngineStored, Medium, Reject, Schema};
