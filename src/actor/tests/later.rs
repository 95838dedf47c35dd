//! Replies that another turn gives.

use super::*;
use crate::actor::Ticket;

/// Asks for a reply under `key`.
fn promise(list: &Addr<List>, key: u64) -> Ticket<u64> {
    list.ask(Do(move |turn: &mut Turn<'_, List>| turn.later::<u64>(key))).unwrap()
}

fn give(list: &Addr<List>, key: u64, value: u64) -> bool {
    list.ask(Do(move |turn: &mut Turn<'_, List>| turn.reply(key, value))).unwrap()
}

fn count(list: &Addr<List>) -> usize {
    list.cell().aside(|aside| aside.promises.len())
}

/// Case 64.
#[test]
fn a_reply_is_given_by_a_later_turn_in_the_order_of_the_promises() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let (mut first, second) = (promise(&list, 1), promise(&list, 1));
    let by_text: Ticket<String> =
        list.ask(Do(|turn: &mut Turn<'_, List>| turn.later("1"))).unwrap();
    assert!(first.try_take().is_none());
    assert!(!give(&list, 2, 0), "another key");
    let wrong_type = list.ask(Do(|turn: &mut Turn<'_, List>| turn.reply(1, "text")));
    assert!(!wrong_type.unwrap());
    assert!(give(&list, 1, 10) && give(&list, 1, 11) && !give(&list, 1, 12));
    assert_eq!((first.wait().unwrap(), second.wait().unwrap()), (10, 11));
    let given = list.ask(Do(|turn: &mut Turn<'_, List>| turn.reply("1", "text".to_owned())));
    assert!(given.unwrap());
    assert_eq!(by_text.wait().unwrap(), "text");
    assert_eq!(count(&list), 0);
}

#[test]
fn one_turn_promises_and_gives() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let ticket = list.ask(Do(|turn: &mut Turn<'_, List>| {
        let ticket = turn.later::<u64>(1);
        assert!(turn.reply(1, 7_u64));
        ticket
    }));
    assert_eq!(ticket.unwrap().wait().unwrap(), 7);
}

#[test]
fn a_failed_turn_makes_no_promise_and_gives_no_reply() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let (mut first, mut second) = (promise(&list, 1), promise(&list, 1));
    let reply = list.ask(Do(|turn: &mut Turn<'_, List>| {
        let mut tickets = vec![turn.later::<u64>(1), turn.later::<u64>(2)];
        assert!(turn.reply(1, 10_u64) && turn.reply(1, 11_u64) && turn.reply(1, 12_u64));
        tickets.push(turn.later::<u64>(1));
        assert!(turn.reply(1, 13_u64));
        panic!("after all, with {} tickets", tickets.len());
    }));
    let reply: Result<(), _> = reply;
    assert!(matches!(reply, Err(ActorError::Panicked { .. })), "{reply:?}");
    assert_eq!(count(&list), 2, "those of before");
    assert!(first.try_take().is_none() && second.try_take().is_none());
    assert!(give(&list, 1, 20) && give(&list, 1, 21) && !give(&list, 1, 22));
    assert_eq!((first.wait().unwrap(), second.wait().unwrap()), (20, 21), "in their order");
}

#[test]
fn a_promised_reply_leaves_when_what_it_depends_on_is_durable() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let mut ticket = promise(&list, 1);
    memory.hold();
    list.tell(Do(|turn: &mut Turn<'_, List>| {
        turn.emit(1);
        assert!(turn.reply(1, 10_u64));
    }))
    .unwrap();
    while memory.frames() == 0 || count(&list) > 0 {
        std::thread::yield_now();
    }
    let early = ticket.wait_for(Duration::from_millis(1));
    assert!(matches!(early, Err(ActorError::Timeout)), "{early:?}");
    assert!(ticket.try_take().is_none());
    memory.release();
    assert_eq!(ticket.wait().unwrap(), 10);
}

#[test]
fn promises_outlive_a_passivation_and_a_panic_of_others() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    let ticket = promise(&list(&runtime, "a"), 1);
    clock.advance(Duration::from_hours(1));
    runtime.sweep();
    assert_eq!((runtime.residents(), runtime.names()), (0, 1), "the state goes, the name stays");
    let reply = list(&runtime, "a").ask(Add(BAD));
    assert!(matches!(reply, Err(ActorError::Panicked { .. })), "{reply:?}");
    assert!(give(&list(&runtime, "a"), 1, 10));
    assert_eq!(ticket.wait().unwrap(), 10);
    clock.advance(Duration::from_hours(1));
    runtime.sweep();
    assert_eq!(runtime.names(), 0);
}

#[test]
fn at_close_promised_replies_are_lost() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let ticket = promise(&list(&runtime, "a"), 1);
    let report = runtime.close(LONG);
    assert_eq!(report.dead_letters, 0);
    assert!(matches!(ticket.wait(), Err(ActorError::Lost)));
}

#[test]
fn promises_for_which_nobody_waits_do_not_pile_up() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let wanted = promise(&list, 0);
    for number in 0..10_000 {
        drop(promise(&list, number % 7));
    }
    assert!(count(&list) <= 64, "{}", count(&list));
    assert!(give(&list, 0, 5));
    assert_eq!(wanted.wait().unwrap(), 5);
    assert!(!give(&list, 0, 5), "the others of that key are not wanted");
}
