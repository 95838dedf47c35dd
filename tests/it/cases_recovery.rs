//! Cases 1 to 54: what an actor is when it comes back.

use std::sync::Arc;

use annals::actor::memory::{Call, Memory};
use annals::actor::provider::{NewSnapshot, SnapshotStore};
use annals::actor::{ActorError, Runtime, RuntimeOptions};
use annals::rkyv::util::AlignedVec;
use annals::testkit::{End, Machine};
use annals::time::Clock;
use annals::types::StreamId;
use annals::{Actor, Handle, Turn};

use crate::cases::{Add, Busy, Do, Get, List, found, list, position, runtime, save};

/// Case 1.
#[test]
fn an_actor_without_a_past_begins_empty_and_answers() {
    let memory = Memory::new();
    assert!(found(&memory, "a").is_empty());
    assert_eq!(memory.frames(), 0, "and nothing was stored for it");
}

/// Cases 2, 3, 8, 10, 12, 19, 33: each number of events, with each set of snapshots; those that
/// are there say something else than the events would, so that it is seen which was used.
#[test]
fn the_newest_snapshot_and_the_events_after_it_are_the_state_whatever_snapshots_there_are() {
    for events in 1..=5_u64 {
        for set in 0..1_u64 << events {
            let memory = Memory::new();
            let first = runtime(&memory);
            (1..=events).for_each(|number| {
                list(&first, "a").ask(Add(vec![number])).unwrap();
            });
            drop(first);
            let held = (1..=events).filter(|seq| set & 1 << (seq - 1) != 0);
            for seq in held.clone() {
                save(&memory, "a", seq, position(&memory, "a", seq), &[100 + seq]);
            }
            let newest = held.max();
            let mut expected: Vec<u64> = newest.map(|seq| 100 + seq).into_iter().collect();
            expected.extend(newest.unwrap_or(0) + 1..=events);
            assert_eq!(found(&memory, "a"), expected, "{events} events, snapshots {set:b}");
            // One more, in this life and in the next.
            let second = runtime(&memory);
            list(&second, "a").ask(Add(vec![9])).unwrap();
            expected.push(9);
            assert_eq!(list(&second, "a").ask(Get).unwrap(), expected);
            drop(second);
            assert_eq!(found(&memory, "a"), expected);
        }
    }
}

/// Cases 7, 34: decided otherwise. What the log does not hold is of no past.
#[test]
fn a_snapshot_beyond_the_last_event_is_not_used() {
    let memory = Memory::new();
    let first = runtime(&memory);
    list(&first, "a").ask(Add(vec![1, 2])).unwrap();
    let at = position(&memory, "a", 1);
    drop(first);
    save(&memory, "a", 3, at, &[10]);
    save(&memory, "b", 1, at, &[10]);
    assert_eq!(found(&memory, "a"), [1, 2]);
    assert!(found(&memory, "b").is_empty());
}

/// Case 6.
#[test]
fn a_state_that_is_a_product_of_its_events_is_that_product_again() {
    #[derive(Default)]
    struct Product(Option<u64>);
    impl Actor for Product {
        type Event = u64;
        const KIND: &'static str = "product";
        fn apply(&mut self, event: &u64) {
            self.0 = Some(self.0.unwrap_or(1) * event);
        }
    }
    struct Multiply(u64);
    impl Handle<Multiply> for Product {
        type Reply = Option<u64>;
        fn handle(Multiply(by): Multiply, turn: &mut Turn<'_, Self>) -> Option<u64> {
            turn.emit(by);
            turn.0
        }
    }
    let memory = Memory::new();
    for expected in [2, 4, 8] {
        let product = runtime(&memory).actor::<Product>("a").unwrap().ask(Multiply(2)).unwrap();
        assert_eq!(product, Some(expected));
    }
}

/// Cases 13, 14, 15, 68: an event has the next number; a snapshot, a read and a panic take none.
#[test]
fn numbers_go_on_by_one_an_event_and_by_nothing_else() {
    let memory = Memory::new();
    let mut last = 0;
    for life in 0..3 {
        let runtime = runtime(&memory);
        let list = list(&runtime, "a");
        let seq = || list.ask(Do(|turn: &mut Turn<'_, List>| turn.seq().get())).unwrap();
        assert_eq!(seq(), last, "life {life}");
        for count in 0..3 {
            let seen = list.ask(Do(move |turn: &mut Turn<'_, List>| {
                let mut seen = vec![turn.seq().get()];
                for number in 0..count {
                    turn.emit(number);
                    seen.push(turn.seq().get());
                }
                turn.snapshot();
                seen
            }));
            assert_eq!(seen.unwrap(), (last..=last + count).collect::<Vec<_>>());
            last += count;
            let failed = list.ask(Do(|turn: &mut Turn<'_, List>| {
                turn.emit(1);
                panic!("on purpose");
            }));
            let failed: Result<(), ActorError> = failed;
            assert!(matches!(failed, Err(ActorError::Panicked { .. })));
            list.passivate().unwrap();
            assert_eq!(seq(), last);
        }
    }
    assert_eq!(last, 9);
}

/// Case 16.
#[test]
fn events_and_snapshots_may_be_kept_in_two_places_and_each_holds_its_own() {
    let (events, snapshots) = (Memory::new(), Memory::new());
    let start = || {
        let parts = (Arc::clone(&events), Arc::clone(&snapshots));
        Runtime::start(parts.0, parts.1, Clock::System, RuntimeOptions::default()).unwrap()
    };
    list(&start(), "a").ask(Add(vec![1])).unwrap();
    let stream = StreamId::of("list", "a");
    assert_eq!((events.frames(), snapshots.frames()), (1, 0));
    save(&snapshots, "a", 1, position(&events, "a", 1), &[7]);
    assert_eq!((events.snapshots(stream).len(), snapshots.snapshots(stream).len()), (0, 1));
    assert_eq!(list(&start(), "a").ask(Get).unwrap(), [7]);
}

/// Cases 18, 35: the next life goes on where the last one ended, whatever ended it.
#[test]
fn the_next_life_of_a_store_goes_on_where_the_last_one_ended() {
    let mut machine = Machine::new(5);
    let mut expected = Vec::new();
    for number in 0..9 {
        let store = machine.open().unwrap();
        let list = store.actor::<List>("a").unwrap();
        assert_eq!(list.ask(Get).unwrap(), expected);
        list.ask(Add(vec![number])).unwrap();
        expected.push(number);
        machine = machine.after(End::ALL[usize::try_from(number % 3).unwrap()]);
        drop((list, store));
    }
}

/// Case 29: what came while the events were still to be read is handled after them, in order.
#[test]
fn commands_that_come_before_the_state_is_there_are_handled_after_it_and_in_order() {
    let memory = Memory::new();
    list(&runtime(&memory), "a").ask(Add(vec![1, 2, 3])).unwrap();
    let runtime = runtime(&memory);
    let busy = Busy::keep(&list(&runtime, "the one worker"));
    for number in 4..20 {
        assert!(list(&runtime, "a").tell(Add(vec![number])).is_ok());
    }
    assert_eq!(runtime.residents(), 1, "it is not loaded yet");
    busy.end();
    assert_eq!(list(&runtime, "a").ask(Get).unwrap(), (1..20).collect::<Vec<_>>());
}

/// Cases 36, 40, 54: each command that cannot read its actor says so, and the next one tries again.
#[test]
fn an_actor_whose_events_fail_to_be_read_five_times_is_there_after_that() {
    let memory = Memory::new();
    {
        let first = runtime(&memory);
        list(&first, "a").ask(Add(vec![1])).unwrap();
        list(&first, "b").ask(Add(vec![2])).unwrap();
    }
    let runtime = runtime(&memory);
    (0..5).for_each(|_| memory.fail_next_of(Call::Read, StreamId::of("list", "a")));
    // A load may read more than once.
    let mut errors = 0;
    while memory.failures_left() > 1 {
        let read = list(&runtime, "a").ask(Get);
        assert!(matches!(read, Err(ActorError::Read(_))), "{read:?}");
        errors += 1;
        assert_eq!(list(&runtime, "b").ask(Get).unwrap(), [2], "others are not concerned");
    }
    assert!((2..=4).contains(&errors), "{errors}");
    while memory.failures_left() > 0 {
        drop(list(&runtime, "a").ask(Get));
    }
    assert_eq!(list(&runtime, "a").ask(Get).unwrap(), [1]);
}

/// Cases 50, 51, 52: however many snapshots cannot be used, the events make the state.
#[test]
fn any_number_of_unreadable_snapshots_costs_a_replay_and_nothing_else() {
    for bad in 0..5_u64 {
        let memory = Memory::new();
        {
            let first = runtime(&memory);
            (1..=6).for_each(|number| {
                list(&first, "a").ask(Add(vec![number])).unwrap();
            });
        }
        save(&memory, "a", 1, position(&memory, "a", 1), &[100]);
        for seq in 2..2 + bad {
            let at = position(&memory, "a", seq);
            // No archive of a list.
            assert!(SnapshotStore::save(
                &*memory,
                NewSnapshot {
                    stream: StreamId::of("list", "a"),
                    kind: "list",
                    name: "a".into(),
                    seq: annals::Seq::new(seq).unwrap(),
                    covers: at,
                    version: 1,
                    state: AlignedVec::new(),
                    side: Vec::new(),
                }
            ));
        }
        assert_eq!(found(&memory, "a"), [100, 2, 3, 4, 5, 6], "{bad} bad ones");
        memory.fail_next(Call::Load);
        assert_eq!(found(&memory, "a"), [1, 2, 3, 4, 5, 6], "none can be read");
    }
}
