//! When states are stored, rule by rule. Case numbers are those of `docs/cases.md`.

use std::marker::PhantomData;

use rkyv::{Archive, Deserialize, Serialize};

use super::*;
use crate::actor::{SnapshotPolicy, Value as _};
use crate::time::ManualClock;
use crate::types::{Seq, StreamId};

/// What differs between kinds.
trait Policy: Send + Sized + 'static {
    fn options() -> ActorOptions<Sum<Self>>;
}

/// The sum of its events.
#[derive(Archive, Serialize, Deserialize)]
struct Sum<P>(u64, #[rkyv(with = rkyv::with::Skip)] PhantomData<fn() -> P>);

impl<P> Default for Sum<P> {
    fn default() -> Self {
        Self(0, PhantomData)
    }
}

impl<P: Policy> Actor for Sum<P> {
    type Event = u64;
    const KIND: &'static str = "sum";
    fn apply(&mut self, event: &u64) {
        self.0 += event;
    }
    fn options() -> ActorOptions<Self> {
        P::options()
    }
}

/// One turn with these events.
struct Turned(Vec<u64>);
impl<P: Policy> Handle<Turned> for Sum<P> {
    type Reply = u64;
    fn handle(Turned(events): Turned, turn: &mut Turn<'_, Self>) -> u64 {
        for event in events {
            turn.emit(event);
        }
        turn.0
    }
}

struct Suspend;
impl<P: Policy> Handle<Suspend> for Sum<P> {
    type Reply = ();
    fn handle(_: Suspend, turn: &mut Turn<'_, Self>) {
        turn.suspend();
    }
}

macro_rules! policy {
    ($name:ident, $policy:expr) => {
        struct $name;
        impl Policy for $name {
            fn options() -> ActorOptions<Sum<Self>> {
                ActorOptions::new().snapshots(1, $policy)
            }
        }
    };
}

policy!(Never, SnapshotPolicy::manual());
policy!(One, SnapshotPolicy::every(1));
policy!(Two, SnapshotPolicy::every(2));
policy!(Three, SnapshotPolicy::every(3));
policy!(Five, SnapshotPolicy::every(5));
policy!(TenSeconds, SnapshotPolicy::interval(Duration::from_secs(10)));
policy!(Sevens, SnapshotPolicy::when(|_, event| *event == 7));
policy!(Always, SnapshotPolicy::when(|_, _| true));
policy!(Bursts, SnapshotPolicy::suspension());
policy!(
    SevensOrFours,
    SnapshotPolicy::any([SnapshotPolicy::when(|_, event| *event == 7), SnapshotPolicy::every(4)])
);
policy!(
    SevensOfThree,
    SnapshotPolicy::all([
        SnapshotPolicy::when(|_, _| false),
        SnapshotPolicy::any([
            SnapshotPolicy::when(|_, event| *event == 7),
            SnapshotPolicy::since(100),
        ]),
    ])
);
policy!(
    ThreeSevens,
    SnapshotPolicy::all([
        SnapshotPolicy::since(3),
        SnapshotPolicy::when(|state: &Sum<ThreeSevens>, event| *event == 7 && state.0 > 0),
    ])
);
policy!(
    LeavesAfterThree,
    SnapshotPolicy::all([SnapshotPolicy::since(3), SnapshotPolicy::passivation()])
);

struct World {
    memory: Arc<Memory>,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::at_millis(0);
        let memory = Memory::with_clock(Clock::Manual(Arc::clone(&clock)));
        Self { memory, clock }
    }

    fn runtime(&self) -> Runtime {
        let options = RuntimeOptions { workers: 1.try_into().unwrap(), ..Default::default() };
        let (events, snapshots) = (Arc::clone(&self.memory), Arc::clone(&self.memory));
        let clock = Clock::Manual(Arc::clone(&self.clock));
        Runtime::start(events, snapshots, clock, options).unwrap()
    }

    fn saved(&self) -> Vec<u64> {
        self.memory.snapshots(StreamId::of("sum", "a")).into_iter().map(Seq::get).collect()
    }

    /// Takes turns, and waits for what they ask for.
    fn turns<P: Policy>(&self, turns: &[&[u64]]) -> Vec<u64> {
        let runtime = self.runtime();
        let sum = runtime.actor::<Sum<P>>("a").unwrap();
        for turn in turns {
            sum.ask(Turned(turn.to_vec())).unwrap();
            drop(Busy::keep(&list(&runtime, "settle")));
        }
        self.saved()
    }

    fn total(&self) -> u64 {
        self.runtime().actor::<Sum<Never>>("a").unwrap().peek(|sum| sum.0).unwrap().value
    }
}

/// Case 4, 104, 107, 108: exactly at the multiples, counted from 1.
#[test]
fn every_so_many_events_means_at_the_multiples() {
    let each: [&[u64]; 10] = [&[1]; 10];
    assert_eq!(World::new().turns::<One>(&each), (1..=10).collect::<Vec<_>>());
    assert_eq!(World::new().turns::<Two>(&each), [2, 4, 6, 8, 10]);
    assert_eq!(World::new().turns::<Five>(&each), [5, 10]);
    assert_eq!(World::new().turns::<Never>(&each), [0; 0]);
    // A turn that passes several takes one, at its end.
    assert_eq!(World::new().turns::<Two>(&[&[1], &[1, 1, 1, 1], &[1]]), [5, 6]);
}

/// Case 105: not at 0 or 5 seconds, at 10, not at 15, at 20; asked when an event is stored.
#[test]
fn an_interval_is_looked_at_when_there_is_an_event() {
    let world = World::new();
    let runtime = world.runtime();
    let sum = runtime.actor::<Sum<TenSeconds>>("a").unwrap();
    let mut saved = Vec::new();
    for second in 0..=45 {
        if [0, 5, 10, 15, 20, 45].contains(&second) {
            sum.ask(Turned(vec![1])).unwrap();
        } else {
            sum.ask(Turned(Vec::new())).unwrap(); // reads, and that changes nothing
        }
        drop(Busy::keep(&list(&runtime, "settle")));
        if world.saved().len() > saved.len() {
            saved.push(second);
        }
        world.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(saved, [10, 20, 45]);
    drop((sum, runtime));
    // After a load it counts from the first event that is in no snapshot.
    world.turns::<Never>(&[&[1]]);
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(world.turns::<TenSeconds>(&[&[1]]).last(), Some(&8));
}

/// Case 106, 110: for an event of a sort, once, at the end of its turn; always is once a turn.
#[test]
fn a_predicate_takes_one_at_the_end_of_the_turn_that_meets_it() {
    let turns: [&[u64]; 3] = [&[1], &[1, 7, 1], &[2, 2]];
    assert_eq!(World::new().turns::<Sevens>(&turns), [4]);
    assert_eq!(World::new().turns::<Always>(&turns), [1, 4, 6]);
}

#[test]
fn rules_combine_and_each_predicate_stands_for_itself() {
    let turns: [&[u64]; 7] = [&[7], &[1], &[1], &[1], &[7], &[7], &[7]];
    assert_eq!(World::new().turns::<SevensOrFours>(&turns), [1, 4, 5, 6, 7]);
    assert_eq!(World::new().turns::<ThreeSevens>(&turns), [5]);
    assert_eq!(World::new().turns::<SevensOfThree>(&turns), [0; 0]);
}

#[test]
fn a_burst_that_ends_and_a_state_that_leaves_are_moments_too() {
    let world = World::new();
    let runtime = world.runtime();
    let sum = runtime.actor::<Sum<Bursts>>("a").unwrap();
    for _ in 0..2 {
        sum.ask(Turned(vec![1, 1])).unwrap();
        sum.ask(Suspend).unwrap();
        sum.ask(Suspend).unwrap(); // no event since
        drop(Busy::keep(&list(&runtime, "settle")));
    }
    assert_eq!(world.saved(), [2, 4]);

    let world = World::new();
    let runtime = world.runtime();
    let sum = runtime.actor::<Sum<LeavesAfterThree>>("a").unwrap();
    for _ in 0..5 {
        sum.ask(Turned(vec![1])).unwrap();
        sum.passivate().unwrap();
    }
    assert_eq!(world.saved(), [3]);
}

/// Case 115: five events without snapshots; the next life wants one at each fifth and finds it
/// missing. The life after that does not.
#[test]
fn one_that_should_be_there_is_made_up_for_after_a_load() {
    let world = World::new();
    assert_eq!(world.turns::<Never>(&[&[1_u64][..]; 5]), [0; 0]);
    assert_eq!(world.turns::<Five>(&[&[]]), [5]);
    assert_eq!(world.turns::<Five>(&[&[]]), [5]);
}

/// Case 15: a snapshot takes no number. Case 120: one that is refused is missed by nobody.
#[test]
fn snapshots_neither_number_nor_stop_anything() {
    let world = World::new();
    world.memory.refuse_snapshots(true);
    assert_eq!(world.turns::<One>(&[&[1_u64][..]; 3]), [0; 0]);
    world.memory.refuse_snapshots(false);
    // That at 3 is made up for.
    assert_eq!(world.turns::<Three>(&[&[1_u64][..]; 3]), [4, 6]);
    assert_eq!(world.total(), 6);
}

/// The state as it was before it had a second field.
struct Older;
impl Policy for Older {
    fn options() -> ActorOptions<Sum<Self>> {
        ActorOptions::new().snapshots(2, SnapshotPolicy::manual()).snapshots_from(1, |bytes| {
            let old = Sum::<Self>::decode(bytes).ok()?;
            // Tells that it came this way.
            Some(Sum(old.0 + 1_000, PhantomData))
        })
    }
}

/// Reads none of the older ones.
struct Refusing;
impl Policy for Refusing {
    fn options() -> ActorOptions<Sum<Self>> {
        ActorOptions::new().snapshots(2, SnapshotPolicy::manual()).snapshots_from(1, |_| None)
    }
}

/// Case 151: states of an older version are read where there is a way; else the events are.
#[test]
fn states_of_an_older_version_are_read_by_who_knows_how() {
    let world = World::new();
    assert_eq!(world.turns::<Three>(&[&[1_u64][..]; 4]), [3]);
    let runtime = world.runtime();
    let older = runtime.actor::<Sum<Older>>("a").unwrap();
    assert_eq!(older.peek(|sum| sum.0).unwrap().value, 1_004);
    drop((older, runtime));
    let runtime = world.runtime();
    let refusing = runtime.actor::<Sum<Refusing>>("a").unwrap();
    assert_eq!(refusing.peek(|sum| sum.0).unwrap().value, 4);
}
