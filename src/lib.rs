//! Annals: actors that survive a crash, inside your process.
//!
//! An actor is a state that changes by events alone. Its events are appended to one checksummed
//! log on the local disk, and a reply leaves when they are as safe as was asked for: from
//! `kill -9` ([`Durability::Process`]) or from power loss as well ([`Durability::Power`]). The
//! next life of the process finds each actor as its events left it: its last snapshot, and the
//! events after it. Threads and files; no server, no async runtime.
//!
//! ```text
//!  command --> actor --> events --> one log --> the reply leaves
//!                ^                     |
//!                |                     +--> snapshots, now and then
//!                +---- read back <-----+
//! ```
//!
//! ```
//! use annals::rkyv::{Archive, Deserialize, Serialize};
//! use annals::{Actor, Handle, Store, Turn};
//!
//! #[derive(Archive, Serialize, Deserialize)]
//! #[rkyv(crate = annals::rkyv)]
//! enum Event {
//!     Deposited { cents: u64 },
//!     Withdrawn { cents: u64 },
//! }
//!
//! #[derive(Default)]
//! struct Account {
//!     cents: u64,
//! }
//!
//! impl Actor for Account {
//!     type Event = Event;
//!     const KIND: &'static str = "account";
//!
//!     // The only place where the state changes: live, and when events are read back.
//!     fn apply(&mut self, event: &Event) {
//!         match event {
//!             Event::Deposited { cents } => self.cents += cents,
//!             Event::Withdrawn { cents } => self.cents -= cents,
//!         }
//!     }
//! }
//!
//! struct Deposit(u64);
//! impl Handle<Deposit> for Account {
//!     type Reply = u64;
//!
//!     fn handle(Deposit(cents): Deposit, turn: &mut Turn<'_, Self>) -> u64 {
//!         turn.emit(Event::Deposited { cents });
//!         turn.cents
//!     }
//! }
//!
//! struct Withdraw(u64);
//! impl Handle<Withdraw> for Account {
//!     type Reply = Result<u64, &'static str>;
//!
//!     fn handle(Withdraw(cents): Withdraw, turn: &mut Turn<'_, Self>) -> Self::Reply {
//!         if turn.cents < cents {
//!             return Err("not enough"); // no event: nothing has happened
//!         }
//!         turn.emit(Event::Withdrawn { cents });
//!         Ok(turn.cents)
//!     }
//! }
//!
//! let dir = tempfile::tempdir()?;
//! let store = Store::open(dir.path())?;
//! let alice = store.actor::<Account>("alice")?; // a name: nothing is spawned
//! assert_eq!(alice.ask(Deposit(500))?, 500); // on disk
//! assert_eq!(alice.ask(Withdraw(700))?, Err("not enough"));
//! alice.tell(Deposit(300))?; // waits for nothing
//! drop((alice, store));
//!
//! let store = Store::open(dir.path())?;
//! let alice = store.actor::<Account>("alice")?;
//! assert_eq!(alice.ask(Withdraw(700))?, Ok(100));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to go on
//!
//! - [`Store`] is opened and closed; [`StoreOptions`] says how. One process has it at a time.
//! - [`actor`] has the rules: turns, replies, messages, what a panic does. [`Actor`] and
//!   [`Handle`] are what you write, [`Addr`] is what you call, [`Ticket`] is a reply for later
//!   and a `Future`.
//! - [`error`] says of each failure what state it leaves.
//! - With the feature `testkit`, `testkit` helps to test one's own actors: given, when, then; every
//!   crash at every operation.
//! - [`log`] is the log itself, for those who follow all events; [`Store::history`] reads one
//!   actor's.
//!
//! In the repository: `docs/guarantees.md` has what survives what, each row with its test;
//! `docs/observe.md` what `tracing` and `metrics` are told with the features of these names;
//! `docs/format.md` the bytes; `docs/recovery.md` what an open does after a crash;
//! `docs/why.md` the reasons; `ARCHITECTURE.md` the map of the code.
//!
//! Linux 5.14 or later, 64 bits, a local file system.
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
pub mod edge;
pub mod error;
pub mod log;
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "nobody publishes"))]
mod metrics;
mod op;
pub mod snapshot;
mod store;
pub mod sync;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod time;
#[cfg(all(feature = "tracing", any(test, feature = "internals")))]
pub mod trace;
#[cfg(not(all(feature = "tracing", any(test, feature = "internals"))))]
mod trace;
pub mod types;

pub use actor::past::{At, Happened, Labels, Past, RawEvent, Span};
pub use actor::{
    Actor, ActorError, ActorOptions, ActorStats, Addr, CommandId, DeadLetter, Decision, Durable,
    Handle, Missed, Oid, Outcome, OwedStats, Peek, Persistence, Recovery, RecoveryPhase, Refused,
    RuntimeOptions, SnapshotPolicy, Step, StepContext, StepPolicy, Stepped, Supervision, Ticket,
    Turn, Value,
};
pub use error::{Error, OpenError};

pub use log::finding::{Affected, Finding, Severity, What};
pub use op::{Op, OpKind, Ops};
pub use rkyv;
pub use store::{
    ActorName, Api, Backup, BackupOptions, Begin, Change, Cursor, CursorInfo, CursorStats, Debt,
    Delivery, Fact, Feed, Filter, Happening, Inbox, Keeper, LastLife, Noted, Occurrence,
    OpenReport, Outbox, Owed, Plan, Position, Progress, Repair, RepairStep, Repaired, Retain,
    RetentionStats, ScrubStats, SnapshotInfo, StepEnd, Store, StoreOptions, StoreStats, Stored,
    Subscription, SubscriptionStats, Told, Verification, View,
};
pub use sync::node::{Node, NodeConfig, NodeError};
pub use types::{DomainId, Durability, HybridTime, Lsn, Seq, StreamId};

/// The README's example runs as a test too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
