//! Cases 104 to 129 and 159 to 166: snapshots, faults on demand, and what an open costs.

use std::path::Path;

use annals::actor::memory::{Call, Memory};
use annals::disk::sim::{Op, SimDisk};
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::testkit::{End, Kit, Machine};
use annals::types::{Seq, StreamId};
use annals::{Actor, ActorOptions, Handle, SnapshotPolicy, Store, Turn};

use crate::cases::{Add, Do, Get, List, found, list, runtime, settle};

/// A sum that is stored every `N` events.
#[derive(Archive, Serialize, Deserialize, Default, Debug, PartialEq)]
#[rkyv(crate = annals::rkyv)]
struct Every<const N: u64>(u64);
impl<const N: u64> Actor for Every<N> {
    type Event = u64;
    const KIND: &'static str = "every";
    fn apply(&mut self, event: &u64) {
        self.0 = if *event == 0 { self.0 * 2 } else { self.0 + event };
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::every(N))
    }
}
impl<const N: u64> Handle<Add> for Every<N> {
    type Reply = u64;
    fn handle(Add(numbers): Add, turn: &mut Turn<'_, Self>) -> u64 {
        for number in numbers {
            turn.emit(number);
        }
        turn.0
    }
}

fn saved(memory: &Memory, kind: &str) -> Vec<u64> {
    memory.snapshots(StreamId::of(kind, "a")).into_iter().map(Seq::get).collect()
}

fn multiples<const N: u64>() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let every = runtime.actor::<Every<N>>("a").unwrap();
    for number in 1..=11 {
        every.ask(Add(vec![1])).unwrap();
        settle(&runtime);
        let expected: Vec<u64> = (1..=number).filter(|it| it % N == 0).collect();
        assert_eq!(saved(&memory, "every"), expected, "every {N}, after event {number}");
    }
}

/// Cases 104, 108.
#[test]
fn a_snapshot_is_taken_exactly_at_the_multiples_counted_from_one() {
    multiples::<1>();
    multiples::<2>();
    multiples::<5>();
}

/// Cases 107, 110: one at the end of the turn, with the state after the whole of it.
#[test]
fn a_snapshot_that_falls_into_a_turn_is_taken_once_at_its_end() {
    let memory = Memory::new();
    let first = runtime(&memory);
    let every = first.actor::<Every<1>>("a").unwrap();
    // Two, doubled twice: each is a turn with a snapshot of its own.
    for (numbers, sum) in [(vec![2], 2), (vec![0], 4), (vec![0], 8), (vec![1, 1, 1], 11)] {
        assert_eq!(every.ask(Add(numbers)).unwrap(), sum);
        settle(&first);
    }
    assert_eq!(saved(&memory, "every"), [1, 2, 3, 6]);
    drop((every, first));
    memory.fail_next(Call::Read);
    let again = runtime(&memory);
    let every = again.actor::<Every<1>>("a").unwrap();
    assert!(every.ask(Add(vec![])).is_err());
    assert_eq!(every.ask(Add(vec![])).unwrap(), 11);
}

/// Cases 120, 128: a snapshot that is not taken, or of a kind that has none, is no failure.
#[test]
fn a_snapshot_that_fails_stops_nothing_and_nobody() {
    #[derive(Default)]
    struct Without(u64);
    impl Actor for Without {
        type Event = u64;
        const KIND: &'static str = "without";
        fn apply(&mut self, event: &u64) {
            self.0 += event;
        }
    }
    impl Handle<Add> for Without {
        type Reply = u64;
        fn handle(Add(numbers): Add, turn: &mut Turn<'_, Self>) -> u64 {
            for number in numbers {
                turn.emit(number);
            }
            turn.snapshot();
            turn.0
        }
    }
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let (list, without) = (list(&runtime, "a"), runtime.actor::<Without>("a").unwrap());
    let ask = || {
        let command = Do(|turn: &mut Turn<'_, List>| {
            turn.emit(1);
            turn.snapshot();
        });
        list.ask(command).unwrap();
        settle(&runtime);
    };
    memory.fail_next_of(Call::Save, StreamId::of("list", "a"));
    ask();
    assert_eq!((saved(&memory, "list"), memory.failures_left()), (vec![], 0));
    ask();
    assert_eq!(saved(&memory, "list"), [2]);
    assert_eq!(without.ask(Add(vec![1, 2])).unwrap(), 3);
    settle(&runtime);
    assert!(saved(&memory, "without").is_empty());
    assert_eq!(runtime.dead_letters(), 0);
}

/// Cases 121, 127: large ones, of an actor with a long name, on the disk.
#[test]
fn a_large_snapshot_of_a_long_name_comes_back() {
    let machine = Machine::new(1);
    let options = || {
        let options = machine.options().segment_bytes(256 << 10, 512 << 10).ring_bytes(256 << 10);
        options.frame_bytes_max(64 << 10).snapshot_bytes_max(64 << 10)
    };
    let name = "n".repeat(1_000);
    let numbers: Vec<u64> = (0..1_500).collect();
    let store = machine.open_with(options()).unwrap();
    let ask = numbers.clone();
    store
        .actor::<List>(&name)
        .unwrap()
        .ask(Do(move |turn: &mut Turn<'_, List>| {
            for number in ask {
                turn.emit(number);
            }
            turn.snapshot();
        }))
        .unwrap();
    let _report = store.close(crate::cases::LONG).unwrap();
    let store = machine.open_with(options()).unwrap();
    let list = store.actor::<List>(&name).unwrap();
    assert_eq!(list.ask(Get).unwrap(), numbers);
    assert_eq!(store.stats().snapshots.skipped, 0);
    drop((list, store));
    // And without them it is the same.
    for (path, _) in machine.files() {
        if path.starts_with("/store/snapshots") {
            machine.delete(&path).unwrap();
        }
    }
    let store = machine.open_with(options()).unwrap();
    assert_eq!(store.actor::<List>(&name).unwrap().ask(Get).unwrap(), numbers);
}

/// Case 159: each call, for any actor or one, once.
#[test]
fn each_call_of_the_memory_fails_once_for_any_actor_or_for_one() {
    let a = StreamId::of("list", "a");
    for of_one in [true, false] {
        let memory = Memory::new();
        {
            let runtime = runtime(&memory);
            for name in ["a", "b"] {
                list(&runtime, name).ask(Add(vec![1])).unwrap();
            }
        }
        let fail =
            |call| if of_one { memory.fail_next_of(call, a) } else { memory.fail_next(call) };
        let first = if of_one { "a" } else { "b" };
        fail(Call::Read);
        let runtime = runtime(&memory);
        if of_one {
            assert!(list(&runtime, "b").ask(Get).is_ok());
        }
        assert!(list(&runtime, first).ask(Get).is_err());
        assert!(list(&runtime, first).ask(Get).is_ok());
        fail(Call::Append);
        if of_one {
            assert!(list(&runtime, "b").ask(Add(vec![2])).is_ok());
        }
        assert!(list(&runtime, first).ask(Add(vec![2])).is_err());
        assert!(list(&runtime, first).ask(Add(vec![2])).is_ok());
        memory.fail_next(Call::Sync);
        assert!(list(&runtime, first).ask(Add(vec![3])).is_err());
        assert!(list(&runtime, first).ask(Add(vec![3])).is_err(), "poisoned");
        assert_eq!(memory.failures_left(), 0);
    }
}

/// Case 160: what was stored, in order, by whom; and nothing, where nothing was.
#[test]
fn what_each_actor_stored_is_asked_of_the_kit() {
    let spread = Do(|turn: &mut Turn<'_, List>| {
        turn.emit(1);
        let other = turn.actor::<List>("other").unwrap();
        assert!(turn.tell(&other, Add(vec![2, 3])).is_ok());
    });
    let then = Kit::<List>::given([]).when(spread).settled().expect_events([1]);
    assert_eq!(then.kit().events_of::<List>("other"), [2, 3]);
    assert!(then.kit().events_of::<List>("nobody").is_empty());
    assert_eq!(then.kit().memory().frames(), 2);
    then.when(Get).expect_reply(vec![1]).expect_events([]);
}

/// Case 164: from within; `tests/crash.rs` has it with a real kill.
#[test]
fn a_reply_that_was_heard_outlives_a_kill_at_once() {
    let machine = Machine::new(1);
    let store = machine.open().unwrap();
    let list = store.actor::<List>("a").unwrap();
    for number in 0..50 {
        let heard = list.ask(Add(vec![number])).unwrap();
        for end in End::ALL {
            let store = machine.if_it_ended(end).open().unwrap();
            assert_eq!(store.actor::<List>("a").unwrap().ask(Get).unwrap().len(), heard);
        }
    }
}

/// Case 166: what an open reads depends on the log's files, not on how many actors are in them;
/// none
/// is loaded before it is asked. (Six times as many: a million would be the same, and long.)
#[test]
fn an_open_reads_no_more_where_there_are_more_actors() {
    let reads = |actors: u64| {
        let disk = SimDisk::new(1);
        let open = || {
            Store::options()
                .disk(disk.handle())
                .threads(false)
                .workers(std::num::NonZeroUsize::MIN)
                .open(Path::new("/store"))
                .unwrap()
        };
        let store = open();
        for number in 0..actors {
            let list = store.actor::<List>(&number.to_string()).unwrap();
            assert!(list.post(Add(vec![1])).is_ok());
        }
        let _report = store.close(crate::cases::LONG).unwrap();
        disk.clear_log();
        let store = open();
        assert_eq!((store.runtime().residents(), store.runtime().names()), (0, 0));
        let bytes = |op| {
            let calls = disk.log().into_iter().filter(|call| call.op == op);
            calls.map(|call| call.range.end - call.range.start).sum::<u64>()
        };
        let read = bytes(Op::Read);
        assert_eq!(store.actor::<List>("7").unwrap().ask(Get).unwrap(), [1]);
        assert_eq!(store.runtime().residents(), 1);
        read
    };
    let (few, many) = (reads(500), reads(3_000));
    assert!(many <= few + (1 << 20), "{few} bytes with 500 actors, {many} with 3,000");
    let memory = Memory::new();
    assert!(found(&memory, "nobody").is_empty());
}
