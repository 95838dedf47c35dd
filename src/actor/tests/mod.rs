//! Behaviour of actors, over the provider in memory. Nothing sleeps: threads meet at channels.

mod basics;
mod closing;
mod failing;
mod full;
mod later;
mod ledger;
mod loads;
mod mailboxes;
mod owed;
mod passivation;
mod patience;
mod replies;
mod rewinds;
mod saving;
mod services;
mod snapshots;
mod stash;
mod stress;
mod supervision;
mod values;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::memory::Memory;
use super::{Actor, ActorError, ActorOptions, Addr, Handle, Runtime, RuntimeOptions, Turn};
use crate::time::{Clock, ManualClock};
use crate::types::Durability;

/// Longer than anything takes; a wait for something that must happen.
const LONG: Duration = Duration::from_secs(30);

/// An event that `List` cannot apply.
const BAD: u64 = u64::MAX;

/// A list of numbers, in the order in which they were added.
#[derive(Default, Debug)]
struct List {
    numbers: Vec<u64>,
}

impl Actor for List {
    type Event = u64;
    const KIND: &'static str = "list";

    fn apply(&mut self, event: &u64) {
        assert_ne!(*event, BAD, "an event that cannot be applied");
        self.numbers.push(*event);
    }
}

struct Add(u64);
impl Handle<Add> for List {
    type Reply = usize;
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> usize {
        turn.emit(number);
        turn.numbers.len()
    }
}

/// Reads, and emits nothing.
struct Get;
impl Handle<Get> for List {
    type Reply = Vec<u64>;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Vec<u64> {
        turn.numbers.clone()
    }
}

/// Does whatever a test wants within a turn.
struct Do<F>(F);
impl<F, R> Handle<Do<F>> for List
where
    F: FnOnce(&mut Turn<'_, Self>) -> R + Send + 'static,
    R: Send + 'static,
{
    type Reply = R;
    fn handle(Do(run): Do<F>, turn: &mut Turn<'_, Self>) -> R {
        run(turn)
    }
}

/// Says that its turn has begun, and ends when told.
struct Block {
    begun: Sender<()>,
    go_on: Receiver<()>,
}
impl Handle<Block> for List {
    type Reply = ();
    fn handle(block: Block, _: &mut Turn<'_, Self>) {
        block.begun.send(()).unwrap();
        block.go_on.recv_timeout(LONG).unwrap();
    }
}

fn block() -> (Block, Receiver<()>, Sender<()>) {
    let (begun, has_begun) = bounded(1);
    let (end, go_on) = bounded(1);
    (Block { begun, go_on }, has_begun, end)
}

fn runtime(memory: &Arc<Memory>) -> Runtime {
    runtime_with(memory, RuntimeOptions::default())
}

fn runtime_with(memory: &Arc<Memory>, options: RuntimeOptions) -> Runtime {
    let (events, snapshots) = (Arc::clone(memory), Arc::clone(memory));
    Runtime::start(events, snapshots, Clock::System, options).unwrap()
}

fn with_clock(memory: &Arc<Memory>, clock: &Arc<ManualClock>, options: RuntimeOptions) -> Runtime {
    let (events, snapshots) = (Arc::clone(memory), Arc::clone(memory));
    Runtime::start(events, snapshots, Clock::Manual(Arc::clone(clock)), options).unwrap()
}

fn list(runtime: &Runtime, name: &str) -> Addr<List> {
    runtime.actor(name).unwrap()
}

/// Counts, and nothing waits for the disk.
#[derive(Default)]
struct Fast(u64);
impl Actor for Fast {
    type Event = u64;
    const KIND: &'static str = "fast";
    fn apply(&mut self, event: &u64) {
        self.0 += event;
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().durability(Durability::Process)
    }
}
impl Handle<Add> for Fast {
    type Reply = u64;
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(number);
        turn.0
    }
}

impl Handle<Get> for Fast {
    type Reply = u64;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> u64 {
        turn.0
    }
}

/// Three commands find room.
#[derive(Default)]
struct Narrow(Vec<u64>);
impl Actor for Narrow {
    type Event = u64;
    const KIND: &'static str = "narrow";
    fn apply(&mut self, event: &u64) {
        self.0.push(*event);
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().mailbox(3)
    }
}
impl Handle<Add> for Narrow {
    type Reply = ();
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) {
        turn.emit(number);
    }
}
impl Handle<Get> for Narrow {
    type Reply = Vec<u64>;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Vec<u64> {
        turn.0.clone()
    }
}
impl Handle<Block> for Narrow {
    type Reply = ();
    fn handle(block: Block, _: &mut Turn<'_, Self>) {
        block.begun.send(()).unwrap();
        block.go_on.recv_timeout(LONG).unwrap();
    }
}

/// Keeps an actor busy until it is dropped; what is sent meanwhile is queued.
struct Busy {
    end: Sender<()>,
}

impl Busy {
    fn keep<A: Handle<Block>>(addr: &Addr<A>) -> Self {
        let (block, has_begun, end) = block();
        addr.tell(block).unwrap();
        has_begun.recv_timeout(LONG).unwrap();
        Self { end }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.end.send(()).unwrap();
    }
}
