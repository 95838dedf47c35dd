//! Cases 21 to 25, 105 to 110, 125, 140, 151: the past, and snapshots by policy.

use std::sync::Arc;
use std::time::Duration;

use annals::actor::Runtime;
use annals::actor::memory::Memory;
use annals::actor::provider::{NewSnapshot, SnapshotStore};
use annals::rkyv::util::AlignedVec;
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::testkit::Kit;
use annals::time::{Clock, ManualClock};
use annals::types::StreamId;
use annals::{
    Actor, ActorOptions, At, Handle, RuntimeOptions, Seq, SnapshotPolicy, Span, Turn, Value as _,
};

use crate::cases::{Add, Do, Get, List, list, position, runtime, save, settle};

fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

/// Cases 21, 22, 23, 25, 125: for each set of snapshots and each number, the state as of it begins
/// with the newest snapshot at or before it; those say something else than the events would, so
/// that it is seen which was used.
#[test]
fn the_state_as_of_a_number_begins_with_the_newest_snapshot_that_is_not_after_it() {
    for set in 0..1_u64 << 5 {
        let memory = Memory::new();
        let runtime = runtime(&memory);
        for number in 1..=5 {
            list(&runtime, "a").ask(Add(vec![number])).unwrap();
        }
        let held = || (1..=5_u64).filter(|number| set & 1 << (number - 1) != 0);
        for number in held() {
            save(&memory, "a", number, position(&memory, "a", number), &[100 + number]);
        }
        for at in 0..=5 {
            let newest = held().filter(|number| *number <= at).max();
            let mut expected: Vec<u64> = newest.map(|number| 100 + number).into_iter().collect();
            expected.extend(newest.unwrap_or(0) + 1..=at);
            let (state, found) = runtime.state_at::<List>("a", At::Seq(seq(at))).unwrap();
            assert_eq!((state.numbers, found), (expected, seq(at)), "at {at}, snapshots {set:b}");
        }
        assert!(runtime.state_at::<List>("a", At::Seq(seq(6))).is_err(), "it has not happened");
    }
}

#[derive(Archive, Serialize, Deserialize, Default, Debug, PartialEq)]
#[rkyv(crate = annals::rkyv)]
struct Timed(u64);
impl Actor for Timed {
    type Event = u64;
    const KIND: &'static str = "timed";
    fn apply(&mut self, event: &u64) {
        self.0 += event;
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::interval(Duration::from_secs(10)))
    }
}
#[derive(Archive, Serialize, Deserialize, Default, Debug, PartialEq)]
#[rkyv(crate = annals::rkyv)]
struct Picky(u64);
impl Actor for Picky {
    type Event = u64;
    const KIND: &'static str = "picky";
    fn apply(&mut self, event: &u64) {
        self.0 += event;
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::when(|_, event| *event == 7))
    }
}
impl Handle<Add> for Timed {
    type Reply = u64;
    fn handle(Add(numbers): Add, turn: &mut Turn<'_, Self>) -> u64 {
        for number in numbers {
            turn.emit(number);
        }
        turn.0
    }
}
impl Handle<Add> for Picky {
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

/// Case 105: not at 0 and 5 seconds, but at 10; not at 15, but at 20; and
/// only if there was an event.
#[test]
fn a_snapshot_after_so_much_time_is_taken_with_the_event_that_comes_then() {
    let clock = ManualClock::at_millis(1_000_000);
    let memory = Memory::with_clock(Clock::Manual(Arc::clone(&clock)));
    let (events, snapshots) = (Arc::clone(&memory), Arc::clone(&memory));
    let options =
        RuntimeOptions { workers: std::num::NonZeroUsize::MIN, ..RuntimeOptions::default() };
    let runtime =
        Runtime::start(events, snapshots, Clock::Manual(Arc::clone(&clock)), options).unwrap();
    let timed = runtime.actor::<Timed>("a").unwrap();
    for (number, expected) in (1..).zip([vec![], vec![], vec![3], vec![3], vec![3, 5]]) {
        timed.ask(Add(vec![1])).unwrap();
        settle(&runtime);
        assert_eq!(saved(&memory, "timed"), expected, "after event {number}");
        clock.advance(Duration::from_secs(5));
    }
    // Without an event since the last one there is nothing to store.
    clock.advance(Duration::from_secs(10));
    timed.ask(Add(Vec::new())).unwrap();
    settle(&runtime);
    assert_eq!(saved(&memory, "timed"), [3, 5]);
}

/// Cases 106, 110: after the turn in which the event was, in whatever place; after no other.
#[test]
fn a_snapshot_after_an_event_that_is_asked_for_is_taken_at_the_end_of_its_turn() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let picky = runtime.actor::<Picky>("a").unwrap();
    for (numbers, expected) in [
        (vec![1], vec![]),
        (vec![7], vec![2]),
        (vec![1, 1], vec![2]),
        (vec![1, 7, 1], vec![2, 7]),
        (vec![7, 7], vec![2, 7, 9]),
        (vec![1], vec![2, 7, 9]),
    ] {
        picky.ask(Add(numbers)).unwrap();
        settle(&runtime);
        assert_eq!(saved(&memory, "picky"), expected);
    }
}

/// Case 140: what a turn says of its events comes back with each of them, and with no others.
#[test]
fn what_is_said_beside_events_comes_back_with_them() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    list.ask(Add(vec![1])).unwrap();
    list.ask(Do(|turn: &mut Turn<'_, List>| {
        turn.emit(2);
        turn.note("who", "me");
        turn.note("why", "");
        turn.tag("even");
        turn.emit(3);
    }))
    .unwrap();
    let mut found = Vec::new();
    runtime
        .visit_history::<List>("a", Span::all(), &mut |past| {
            let meta: Vec<_> = past.meta.iter().cloned().collect();
            found.push((past.event().copied(), meta, past.tags.to_vec()));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let meta = vec![("who".to_owned(), "me".to_owned()), ("why".to_owned(), String::new())];
    let tags = vec!["even".to_owned()];
    assert_eq!(
        found,
        [(Some(1), vec![], vec![]), (Some(2), meta.clone(), tags.clone()), (Some(3), meta, tags),]
    );
}

/// The state of another version: one number instead of many.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Before(u64);
#[derive(Archive, Serialize, Deserialize, Default, PartialEq)]
#[rkyv(crate = annals::rkyv)]
struct Now {
    sum: u64,
}
impl Actor for Now {
    type Event = u64;
    const KIND: &'static str = "list";
    fn apply(&mut self, event: &u64) {
        self.sum += event;
    }
    fn options() -> ActorOptions<Self> {
        let old = |bytes: &[u8]| Before::decode(bytes).ok().map(|it| Self { sum: it.0 });
        ActorOptions::new().snapshots(2, SnapshotPolicy::manual()).snapshots_from(1, old)
    }
}

/// Case 151.
#[test]
fn a_snapshot_of_an_older_form_is_read_where_the_kind_knows_how() {
    let memory = Memory::new();
    list(&runtime(&memory), "a").ask(Add(vec![1, 2])).unwrap();
    let mut state = AlignedVec::new();
    Before(50).encode(&mut state).unwrap();
    let snapshot = NewSnapshot {
        stream: StreamId::of("list", "a"),
        kind: "list",
        name: "a".into(),
        seq: seq(2),
        covers: position(&memory, "a", 2),
        version: 1,
        state,
        side: Vec::new(),
    };
    assert!(SnapshotStore::save(&*memory, snapshot));
    let runtime = runtime(&memory);
    let now = runtime.actor::<Now>("a").unwrap();
    assert_eq!(now.peek(|now| now.sum).unwrap().value, 50);
}

/// A kit works out rewinds by itself, from the definition: its state and the actor's are compared.
#[test]
fn an_actor_that_goes_back_and_on_is_the_one_that_its_kit_works_out() {
    let mut kit = Kit::<List>::given([1, 2, 3]);
    let mut random = annals::disk::sim::Random::new(7);
    for number in 10..60 {
        let last = kit.seq().get();
        let to = seq(random.bits() % last);
        let emits = random.below(3);
        kit = kit
            .when(Do(move |turn: &mut Turn<'_, List>| {
                if random.once_in(2) {
                    turn.rewind(to).unwrap();
                }
                for _ in 0..emits {
                    turn.emit(number);
                }
                turn.numbers.clone()
            }))
            .into_kit();
        random = annals::disk::sim::Random::new(number);
    }
    let numbers = kit.addr().ask(Get).unwrap();
    assert!(!numbers.is_empty());
    kit.settled().when(Get).expect_reply(numbers);
}
