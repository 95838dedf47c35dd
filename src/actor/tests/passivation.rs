//! States that leave memory, and names that nobody holds.

use super::*;

#[test]
fn an_actor_leaves_memory_after_its_idle_time_and_nobody_notices() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let idle = Duration::from_mins(1);
    let runtime = with_clock(&memory, &clock, RuntimeOptions { idle, ..Default::default() });
    let (a, b) = (list(&runtime, "a"), list(&runtime, "b"));
    a.ask(Add(1)).unwrap();
    b.ask(Add(1)).unwrap();
    clock.advance(Duration::from_secs(40));
    runtime.sweep();
    a.ask(Add(2)).unwrap();
    clock.advance(Duration::from_secs(40));
    runtime.sweep();
    assert_eq!(runtime.residents(), 1);
    clock.advance(Duration::from_secs(40));
    runtime.sweep();
    assert_eq!(runtime.residents(), 0);
    assert_eq!(a.ask(Get).unwrap(), [1, 2]);
    assert_eq!(b.ask(Add(3)).unwrap(), 2);
}

#[test]
fn names_that_nobody_holds_are_forgotten_with_their_state() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    let held = list(&runtime, "held");
    held.ask(Add(1)).unwrap();
    for number in 0..100_u64 {
        list(&runtime, &number.to_string()).ask(Add(number)).unwrap();
    }
    let _never_used = list(&runtime, "never used");
    runtime.sweep();
    assert_eq!(runtime.names(), 102);
    clock.advance(Duration::from_hours(1));
    runtime.sweep();
    assert_eq!((runtime.names(), runtime.residents()), (2, 0));
    assert_eq!(list(&runtime, "7").ask(Get).unwrap(), [7]);
    assert_eq!(held.ask(Get).unwrap(), [1]);
}

#[test]
fn above_the_cap_those_unused_for_longest_leave() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let options = RuntimeOptions { residents_max: 32, ..RuntimeOptions::default() };
    let runtime = with_clock(&memory, &clock, options);
    let lists: Vec<_> = (0..32).map(|number: u64| list(&runtime, &number.to_string())).collect();
    for list in &lists {
        list.ask(Add(1)).unwrap();
        clock.advance(Duration::from_secs(1));
        runtime.sweep();
    }
    list(&runtime, "one too many").ask(Add(1)).unwrap();
    // The runtime's own thread was called too, and may be at it: together they let three go, or
    // one or two more.
    while runtime.residents() > 30 {
        runtime.sweep();
        std::thread::yield_now();
    }
    let in_memory: Vec<_> = lists.iter().map(|list| list.cell().used() > 0).collect();
    let gone = in_memory.iter().take_while(|it| !**it).count();
    assert!((3..=5).contains(&gone), "{in_memory:?}");
    assert!(in_memory[gone..].iter().all(|it| *it), "{in_memory:?}");
    assert!(lists.iter().all(|list| list.ask(Get).unwrap() == [1]));
}

#[test]
fn a_turn_lets_its_own_state_go_once_it_has_ended() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let seen = list.ask(Do(|turn: &mut Turn<'_, List>| {
        turn.emit(1);
        turn.passivate();
        turn.numbers.len()
    }));
    assert_eq!(seen.unwrap(), 1);
    while runtime.residents() > 0 {
        std::thread::yield_now();
    }
    assert_eq!(list.ask(Get).unwrap(), [1]);
}

#[test]
fn a_busy_actor_stays() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    let list = list(&runtime, "a");
    list.ask(Add(1)).unwrap();
    let busy = Busy::keep(&list);
    clock.advance(Duration::from_hours(1));
    runtime.sweep();
    assert_eq!(runtime.residents(), 1);
    drop(busy);
}
