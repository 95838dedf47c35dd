//! Actors that fail, rest, and are given up.

use super::*;
use crate::actor::Supervision;
use crate::error::{Damage, DamageReason, ReadError};

/// Rests after a failure; the third in a row is the last.
#[derive(Default)]
struct Frail(Vec<u64>);
impl Actor for Frail {
    type Event = u64;
    const KIND: &'static str = "frail";
    fn apply(&mut self, event: &u64) {
        assert_ne!(*event, BAD, "an event that cannot be applied");
        self.0.push(*event);
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().supervise(SUPERVISION)
    }
}

const SUPERVISION: Supervision = Supervision {
    failures_max: std::num::NonZeroU32::new(3),
    backoff_min: Duration::from_millis(100),
    backoff_max: Duration::from_millis(150),
    seed: 1,
};

impl Handle<Add> for Frail {
    type Reply = usize;
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> usize {
        turn.emit(number);
        turn.0.len()
    }
}
impl Handle<Get> for Frail {
    type Reply = Vec<u64>;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Vec<u64> {
        turn.0.clone()
    }
}
impl Handle<Block> for Frail {
    type Reply = ();
    fn handle(block: Block, _: &mut Turn<'_, Self>) {
        block.begun.send(()).unwrap();
        block.go_on.recv_timeout(LONG).unwrap();
    }
}

fn frail(runtime: &Runtime) -> Addr<Frail> {
    runtime.actor("a").unwrap()
}

fn rest_of<T: std::fmt::Debug>(reply: Result<T, ActorError>) -> Duration {
    match reply {
        Err(ActorError::Resting { left }) => left,
        other => panic!("{other:?}"),
    }
}

fn unreadable() -> ReadError {
    let reason = DamageReason::Missing;
    ReadError::Damage(Damage { file: "memory".into(), offset: 0, lsns: 0..16, reason })
}

/// Cases 86 and 87.
#[test]
fn after_a_panic_an_actor_rests_and_then_works_again() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    let frail = frail(&runtime);
    frail.ask(Add(1)).unwrap();
    assert!(matches!(frail.ask(Add(BAD)), Err(ActorError::Panicked { .. })));
    let left = rest_of(frail.ask(Get));
    assert!((Duration::from_millis(50)..=Duration::from_millis(100)).contains(&left), "{left:?}");
    assert_eq!(rest_of(frail.peek(|_| ())), left);
    frail.tell(Add(2)).unwrap();
    while runtime.dead_letters() == 0 {
        std::thread::yield_now();
    }
    clock.advance(left.checked_sub(Duration::from_nanos(1)).unwrap());
    assert_eq!(rest_of(frail.ask(Get)), Duration::from_nanos(1));
    clock.advance(Duration::from_nanos(1));
    assert_eq!(frail.ask(Add(3)).unwrap(), 2);
    assert_eq!(frail.ask(Get).unwrap(), [1, 3]);
}

/// What was queued behind the failure is answered, not forgotten.
#[test]
fn commands_queued_behind_a_failure_are_answered_at_once() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    let frail = frail(&runtime);
    let busy = Busy::keep(&frail);
    let tickets = [Add(1), Add(BAD), Add(2)].map(|add| frail.post(add).unwrap());
    frail.tell(Add(3)).unwrap();
    drop(busy);
    let [first, bad, second] = tickets;
    assert_eq!(first.wait().unwrap(), 1);
    assert!(matches!(bad.wait(), Err(ActorError::Panicked { .. })));
    let _left = rest_of(second.wait());
    while runtime.dead_letters() == 0 {
        std::thread::yield_now();
    }
}

/// Rests double up to the longest, and differ among actors; the same seed gives the same.
#[test]
fn rests_grow_and_differ_and_can_be_replayed() {
    let rests = || {
        let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
        let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
        let names = ["a", "b", "c", "d"];
        let frail = names.map(|name| runtime.actor::<Frail>(name).unwrap());
        let mut rests = Vec::new();
        for _ in 0..2 {
            for frail in &frail {
                frail.ask(Add(BAD)).unwrap_err();
                rests.push(rest_of(frail.ask(Get)));
            }
            clock.advance(Duration::from_millis(150));
        }
        rests
    };
    let first = rests();
    for (number, rest) in first.iter().enumerate() {
        let longest = Duration::from_millis(if number < 4 { 100 } else { 150 });
        assert!((longest / 2..=longest).contains(rest), "{first:?}");
    }
    let mut different = first.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), first.len());
    assert_eq!(rests(), first);
}

#[test]
fn after_too_many_failures_in_a_row_an_actor_is_given_up_until_a_restart() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    let fail = |times| {
        for _ in 0..times {
            clock.advance(Duration::from_secs(1));
            let failed = frail(&runtime).ask(Add(BAD));
            assert!(matches!(failed, Err(ActorError::Panicked { .. })), "{failed:?}");
        }
        clock.advance(Duration::from_secs(1));
    };
    fail(2);
    assert_eq!(frail(&runtime).ask(Add(1)).unwrap(), 1, "which begins the count anew");
    fail(3);
    clock.advance(Duration::from_hours(24));
    runtime.sweep();
    let given_up = frail(&runtime).ask(Get);
    assert!(matches!(given_up, Err(ActorError::GivenUp { failures: 3 })), "{given_up:?}");
    let error = given_up.unwrap_err().to_string();
    assert_eq!(error, "the actor has failed 3 times in a row and waits for a restart");
    frail(&runtime).restart().unwrap();
    assert_eq!(frail(&runtime).ask(Get).unwrap(), [1]);
    fail(2);
    assert_eq!(frail(&runtime).ask(Get).unwrap(), [1]);
}

/// Case 40, and 36: the cause is told.
#[test]
fn a_failed_load_rests_too_and_the_next_one_succeeds() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    {
        let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
        frail(&runtime).ask(Add(1)).unwrap();
    }
    for loads_max in [usize::MAX, 1] {
        let options = RuntimeOptions { loads_max, ..RuntimeOptions::default() };
        let runtime = with_clock(&memory, &clock, options);
        memory.fail_reads(Some(unreadable()));
        assert!(matches!(frail(&runtime).ask(Get), Err(ActorError::Read(_))));
        memory.fail_reads(None);
        clock.advance(rest_of(frail(&runtime).ask(Get)));
        assert_eq!(frail(&runtime).ask(Get).unwrap(), [1]);
    }
}

/// Cases 38 and 39: no endless loop of reading the same.
#[test]
fn a_stopped_actor_does_not_rest_and_reads_its_events_again_when_restarted() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    failing::append_named(
        &memory,
        crate::types::StreamId::of("frail", "a"),
        ("frail", "a"),
        1,
        &[(1, 1), (1, BAD)],
    );
    for _ in 0..5 {
        assert!(matches!(frail(&runtime).ask(Get), Err(ActorError::Stopped(_))));
    }
    frail(&runtime).restart().unwrap();
    assert!(matches!(frail(&runtime).ask(Get), Err(ActorError::Stopped(_))));
}

#[test]
fn an_actor_nobody_supervises_does_not_rest() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    for number in 0..100 {
        assert!(matches!(list.ask(Add(BAD)), Err(ActorError::Panicked { .. })));
        assert_eq!(list.ask(Add(1)).unwrap(), number + 1);
    }
}

#[test]
fn a_name_nobody_holds_is_forgotten_once_its_trouble_is_over() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    frail(&runtime).ask(Add(BAD)).unwrap_err();
    runtime.sweep();
    assert_eq!(runtime.names(), 1, "it rests");
    clock.advance(Duration::from_secs(1));
    runtime.sweep();
    assert_eq!(runtime.names(), 0);
}
