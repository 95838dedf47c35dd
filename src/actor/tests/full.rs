//! A full disk: turned away at the door, without losing the state over it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::failing::disk_full;
use super::*;
use crate::error::AppendError;

fn is_full<T>(reply: &Result<T, ActorError>) -> bool {
    matches!(reply, Err(ActorError::Append(why)) if matches!(**why, AppendError::DiskFull(_)))
}

/// Counts how often a state is made from nothing.
struct Reread(u64);
static REREAD: AtomicUsize = AtomicUsize::new(0);

impl Default for Reread {
    fn default() -> Self {
        REREAD.fetch_add(1, Ordering::Relaxed);
        Self(0)
    }
}
impl Actor for Reread {
    type Event = u64;
    const KIND: &'static str = "reread";
    fn apply(&mut self, event: &u64) {
        self.0 += event;
    }
}
impl Handle<Add> for Reread {
    type Reply = u64;
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(number);
        turn.emit(number);
        turn.0
    }
}
impl Handle<Get> for Reread {
    type Reply = (u64, u64);
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Self::Reply {
        (turn.0, turn.seq().get())
    }
}

#[test]
fn a_full_disk_costs_the_state_once_however_many_turns_are_refused() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    let actor = runtime.actor::<Reread>("a").unwrap();
    assert_eq!(actor.ask(Add(1)).unwrap(), 2);
    assert_eq!(REREAD.load(Ordering::Relaxed), 1);
    memory.fail_appends(Some(disk_full()));
    for _ in 0..10 {
        for _ in 0..10 {
            assert!(is_full(&actor.ask(Add(1))));
            assert_eq!(actor.ask(Get).unwrap(), (2, 2), "what only reads is served");
        }
        // Each tenth of a second it is tried whether there is room; that does not cost it either.
        clock.advance(Duration::from_millis(100));
    }
    assert_eq!(REREAD.load(Ordering::Relaxed), 2, "the first refusal came after the fact");
    memory.fail_appends(None);
    assert_eq!(actor.ask(Add(1)).unwrap(), 4);
    assert_eq!(REREAD.load(Ordering::Relaxed), 2);
    assert_eq!(actor.ask(Get).unwrap(), (4, 4));
}

#[test]
fn room_is_looked_for_ten_times_a_second_at_most() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    let (a, b) = (list(&runtime, "a"), list(&runtime, "b"));
    memory.fail_appends(Some(disk_full()));
    assert!(is_full(&a.ask(Add(1))));
    memory.fail_appends(None);
    clock.advance(Duration::from_millis(99));
    assert!(is_full(&b.ask(Add(1))), "the door is that of the store, not of an actor");
    clock.advance(Duration::from_millis(1));
    assert_eq!(b.ask(Add(1)).unwrap(), 1);
    assert_eq!(a.ask(Add(1)).unwrap(), 1);
}

/// The handler goes on after an event that cannot be stored; what it emits then is not applied.
#[test]
fn a_turn_that_is_known_to_fail_applies_nothing_more() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    let list = list(&runtime, "a");
    list.ask(Add(1)).unwrap();
    memory.fail_appends(Some(disk_full()));
    assert!(is_full(&list.ask(Add(2))));
    let (tell, told) = bounded(1);
    let reply = list.ask(Do(move |turn: &mut Turn<'_, List>| {
        turn.emit(3);
        turn.emit(BAD);
        tell.send((turn.numbers.clone(), turn.seq().get())).unwrap();
    }));
    assert!(is_full(&reply), "and not a panic of `apply`: {reply:?}");
    assert_eq!(told.recv().unwrap(), (vec![1], 1));
}
