//! The actors that are measured: 48 bytes of state, events of 128.

use std::path::Path;
use std::time::Duration;

use annals::actor::{ActorOptions, Persistence, SnapshotPolicy};
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::{Actor, Addr, Durability, Handle, Store, StoreOptions, Turn};

/// More than any bench has waiting for one actor.
const NO_BOUND: u32 = 1 << 20;

/// What happened: 128 bytes in its archive.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
pub(crate) struct Deposited {
    cents: u64,
    memo: [u64; 15],
}

const _: () = assert!(size_of::<Deposited>() == crate::support::PAYLOAD_BYTES);

/// Read, and change nothing.
pub(crate) struct Get;
/// Change by one event.
pub(crate) struct Deposit;

/// Kinds that differ in how they are kept.
macro_rules! account {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $options:expr) => {
        $(#[$doc])*
        #[derive(Default, Archive, Serialize, Deserialize)]
        #[rkyv(crate = annals::rkyv)]
        pub(crate) struct $name {
            cents: u64,
            deposits: u64,
            rest: [u64; 4],
        }

        impl Actor for $name {
            type Event = Deposited;
            const KIND: &'static str = $kind;

            fn apply(&mut self, event: &Deposited) {
                self.cents += event.cents;
                self.deposits += 1;
                self.rest[0] ^= event.memo[0];
            }

            fn options() -> ActorOptions<Self> {
                $options
            }
        }

        impl Handle<Get> for $name {
            type Reply = u64;

            fn handle(_: Get, turn: &mut Turn<'_, Self>) -> u64 {
                turn.cents
            }
        }

        impl Handle<Deposit> for $name {
            type Reply = u64;

            fn handle(_: Deposit, turn: &mut Turn<'_, Self>) -> u64 {
                turn.emit(Deposited { cents: 1, memo: [0x5a5a; 15] });
                turn.cents
            }
        }
    };
}

account!(
    /// Takes any number of messages, and is replayed from its events.
    Account,
    "account",
    ActorOptions::new().mailbox(NO_BOUND)
);
account!(
    /// Its mailbox holds 1,024.
    Bounded,
    "bounded",
    ActorOptions::new()
);
account!(
    /// Stored whole when it leaves memory.
    Kept,
    "kept",
    ActorOptions::new().snapshots(1, SnapshotPolicy::manual().on_passivate())
);

account!(
    /// Ten turns are one frame.
    Counted,
    "counted",
    ActorOptions::new().mailbox(NO_BOUND).persistence(Persistence::Every(10))
);
account!(
    /// Turns wait for a barrier.
    Gathered,
    "gathered",
    ActorOptions::new().mailbox(NO_BOUND).persistence(Persistence::Deferred)
);

const _: () = assert!(size_of::<Account>() == 48);

pub(crate) fn options(durability: Durability) -> StoreOptions {
    Store::options().durability(durability).idle(Duration::from_hours(1))
}

pub(crate) fn open(path: &Path, durability: Durability) -> Store {
    options(durability).open(path).expect("a store")
}

/// The addresses of so many actors, which are made.
pub(crate) fn addresses<A: Actor>(store: &Store, actors: usize) -> Vec<Addr<A>> {
    let address = |number: usize| store.actor(&number.to_string()).expect("an address");
    (0..actors).map(address).collect()
}
