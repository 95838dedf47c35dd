//! Annals: actors that survive a crash, inside your process.
#![warn(missing_docs, clippy::missing_errors_doc)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]
#![cfg_attr(not(test), warn(clippy::expect_used, clippy::string_slice))]

pub mod actor;
pub mod catalogue;
#[cfg(any(test, feature = "internals"))]
pub mod disk;
#[cfg(not(any(test, feature = "internals")))]
#[expect(unreachable_pub, reason = "public for tests and fuzz targets")]
mod disk;
pub mod error;
pub mod log;
pub mod snapshot;
mod store;
pub mod time;
pub mod types;

pub use actor::{
    Actor, ActorError, ActorOptions, Addr, Handle, Peek, Refused, RuntimeOptions, SnapshotPolicy,
    Ticket, Turn, Value,
};
pub use error::{Error, OpenError};

pub use rkyv;
pub use store::{OpenReport, Past, Store, StoreOptions, StoreStats};
pub use types::{Durability, HybridTime, Lsn, Seq, StreamId};
