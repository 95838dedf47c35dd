//! KV-cache events of inference engines: what vLLM tells of the blocks that it holds.
pub mod follow;
mod msgpack;
mod told;
mod wire;
pub use told::{Cut, Told, Why};
pub use wire::{Batch, BlockHash, EngineEvent, EngineStored, Medium, Reject, Schema};
