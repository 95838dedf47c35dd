//! States that are stored, and found again.

use std::sync::atomic::{AtomicU64, Ordering};

use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::*;
use crate::actor::provider::{NewSnapshot, SnapshotStore as _};
use crate::actor::{SnapshotPolicy, Value as _};
use crate::types::{Lsn, Seq, StreamId};

/// Knows how many events were applied to it since it was in memory.
#[derive(Default, Archive, Serialize, Deserialize)]
struct Sum {
    total: u64,
    #[rkyv(with = rkyv::with::Skip)]
    applied: u64,
}

impl Actor for Sum {
    type Event = u64;
    const KIND: &'static str = "sum";
    fn apply(&mut self, event: &u64) {
        self.total += event;
        self.applied += 1;
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(3, SnapshotPolicy::every(10))
    }
}
impl Handle<Add> for Sum {
    type Reply = u64;
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(number);
        turn.total
    }
}
/// Total, and events applied since the load.
impl Handle<Get> for Sum {
    type Reply = (u64, u64);
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> (u64, u64) {
        (turn.total, turn.applied)
    }
}
impl Handle<Save> for Sum {
    type Reply = ();
    fn handle(_: Save, turn: &mut Turn<'_, Self>) {
        turn.snapshot();
    }
}
struct Save;

fn stream() -> StreamId {
    StreamId::of("sum", "a")
}

fn saved(memory: &Memory) -> Vec<u64> {
    memory.snapshots(stream()).into_iter().map(Seq::get).collect()
}

fn add(sum: &Addr<Sum>, count: u64) {
    for _ in 0..count {
        sum.ask(Add(1)).unwrap();
    }
}

/// Commands handled by the one worker, after what it was given before.
fn settle(runtime: &Runtime) {
    let list = list(runtime, "settle");
    let busy = Busy::keep(&list);
    drop(busy);
}

fn one_worker(memory: &Arc<Memory>) -> Runtime {
    let options = RuntimeOptions { workers: 1.try_into().unwrap(), ..Default::default() };
    runtime_with(memory, options)
}

#[test]
fn every_so_many_events_the_state_is_stored_and_a_load_begins_there() {
    let memory = Memory::new();
    let runtime = one_worker(&memory);
    let sum = runtime.actor::<Sum>("a").unwrap();
    add(&sum, 9);
    settle(&runtime);
    assert!(saved(&memory).is_empty());
    add(&sum, 1);
    settle(&runtime);
    assert_eq!(saved(&memory), [10]);
    add(&sum, 4);
    sum.passivate().unwrap();
    assert_eq!(sum.ask(Get).unwrap(), (14, 4));
    add(&sum, 6);
    settle(&runtime);
    assert_eq!(saved(&memory), [10, 20]);
}

#[test]
fn one_that_is_not_taken_is_tried_again_when_the_next_is_due() {
    let memory = Memory::new();
    memory.refuse_snapshots(true);
    let runtime = one_worker(&memory);
    let sum = runtime.actor::<Sum>("a").unwrap();
    add(&sum, 10);
    settle(&runtime);
    memory.refuse_snapshots(false);
    add(&sum, 9);
    settle(&runtime);
    assert!(saved(&memory).is_empty());
    add(&sum, 1);
    settle(&runtime);
    assert_eq!(saved(&memory), [20]);
}

#[test]
fn a_turn_asks_for_one_and_a_state_without_news_is_not_stored_again() {
    let memory = Memory::new();
    let runtime = one_worker(&memory);
    let sum = runtime.actor::<Sum>("a").unwrap();
    add(&sum, 2);
    for _ in 0..3 {
        sum.ask(Save).unwrap();
        settle(&runtime);
    }
    assert_eq!(saved(&memory), [2]);
}

fn snapshot(seq: u64, version: u16, state: AlignedVec<16>) -> NewSnapshot {
    NewSnapshot {
        stream: stream(),
        kind: "sum",
        name: "a".into(),
        seq: Seq::new(seq).unwrap(),
        covers: Lsn::new(4096).unwrap(),
        version,
        state,
        side: Vec::new(),
    }
}

fn state(total: u64) -> AlignedVec<16> {
    let mut bytes = AlignedVec::new();
    Sum { total, applied: 0 }.encode(&mut bytes).unwrap();
    bytes
}

#[test]
fn snapshots_that_cannot_be_used_fall_back_to_the_one_before_and_then_to_the_events() {
    let memory = Memory::new();
    let first = runtime(&memory);
    add(&first.actor::<Sum>("a").unwrap(), 5);
    drop(first);
    let load = || {
        let runtime = runtime(&memory);
        runtime.actor::<Sum>("a").unwrap().ask(Get).unwrap()
    };
    assert!(memory.save(snapshot(1, 2, state(1)))); // another version
    assert_eq!(load(), (5, 5));
    assert!(memory.save(snapshot(2, 3, state(2))));
    assert_eq!(load(), (5, 3));
    let mut bytes = AlignedVec::new();
    bytes.extend_from_slice(b"abc");
    assert!(memory.save(snapshot(3, 3, bytes))); // no archive
    assert_eq!(load(), (5, 3));
    assert!(memory.save(snapshot(9, 3, state(9)))); // ahead of the events
    assert!(memory.save(snapshot(8, 3, state(8))));
    assert_eq!(load(), (5, 3));
    assert!(memory.save(snapshot(4, 3, state(4))));
    assert_eq!(load(), (5, 1));
}

#[test]
fn a_snapshot_of_another_name_is_a_collision() {
    let memory = Memory::new();
    assert!(memory.save(NewSnapshot { name: "b".into(), ..snapshot(1, 3, state(1)) }));
    let runtime = runtime(&memory);
    let reply = runtime.actor::<Sum>("a").unwrap().ask(Get);
    assert!(matches!(reply, Err(ActorError::Collision(_))), "{reply:?}");
}

/// Stored when it leaves memory, and only then.
#[derive(Default, Archive, Serialize, Deserialize)]
struct Kept(u64);
impl Actor for Kept {
    type Event = u64;
    const KIND: &'static str = "sum";
    fn apply(&mut self, event: &u64) {
        APPLIED.fetch_add(1, Ordering::Relaxed);
        self.0 += event;
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::manual().on_passivate())
    }
}
impl Handle<Add> for Kept {
    type Reply = u64;
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(number);
        turn.0
    }
}
static APPLIED: AtomicU64 = AtomicU64::new(0);

#[test]
fn a_state_that_leaves_memory_is_stored_if_there_was_an_event() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let kept = runtime.actor::<Kept>("a").unwrap();
    kept.ask(Add(1)).unwrap();
    kept.ask(Add(1)).unwrap();
    kept.passivate().unwrap();
    assert_eq!(saved(&memory), [2]);
    assert_eq!(kept.peek(|kept| kept.0).unwrap().value, 2);
    assert_eq!(APPLIED.load(Ordering::Relaxed), 2, "not applied again");
    kept.passivate().unwrap();
    assert_eq!(saved(&memory), [2]);
    // Without an event behind it the mark is that of the snapshot's frame.
    memory.hold();
    assert!(kept.peek(|_| ()).unwrap().durable);
}
