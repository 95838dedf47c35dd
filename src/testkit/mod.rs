//! Help for tests of one's own actors. With the feature `testkit`.
//!
//! - [`Kit`]: given these events, when this command comes, then these events, this state, this
//!   reply. After each command the state is compared with what its events alone make.
//! - [`golden`]: the bytes of a version's events stay what they were.
//! - [`Machine`]: a whole [`Store`](crate::Store) on a simulated disk, that fails, is killed or
//!   loses power at the operation that a test names, with a clock that stands until it is moved.
//! - [`every_crash`]: a scenario, with a crash in every operation of it.
//! - [`Memory`](crate::actor::memory::Memory) keeps events and snapshots in memory, for a
//!   [`Runtime`](crate::actor::Runtime) without files; its calls
//!   [fail on demand](crate::actor::memory::Memory::fail_next), for any actor or for one.
//! - [`provider_suite`]: what a provider of storage must do, for those who write one.
//!
//! Whatever is wrong is a panic that says what: all of this is for `#[test]` functions.
//!
//! ```toml
//! [dev-dependencies]
//! annals = { version = "0.1", features = ["testkit"] }
//! ```

mod crashes;
mod golden;
mod kit;
mod machine;
mod past;
mod suite;

pub use crashes::{Crashes, End, every_crash};
pub use golden::golden;
pub use kit::{Kit, Then};
pub use machine::{Calls, Machine, Trouble};
pub use suite::{Provider, provider_suite};
