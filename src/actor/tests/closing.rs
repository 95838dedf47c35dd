//! What becomes of what was accepted.

use std::thread;

use super::*;
use crate::actor::{Refused, Why};

/// Passes a number on, down to zero.
struct Pass(u64);
impl Handle<Pass> for List {
    type Reply = ();
    fn handle(Pass(number): Pass, turn: &mut Turn<'_, Self>) {
        turn.emit(number);
        if let Some(less) = number.checked_sub(1) {
            let next = turn.actor::<Self>(&less.to_string()).unwrap();
            turn.tell(&next, Pass(less)).unwrap();
        }
    }
}

#[test]
fn a_close_runs_what_was_accepted_and_what_that_sends_on() {
    let memory = Memory::new();
    let before = runtime(&memory);
    list(&before, "20").tell(Pass(20)).unwrap();
    for number in 0..500 {
        list(&before, "many").tell(Add(number)).unwrap();
    }
    let ticket = list(&before, "many").post(Get).unwrap();
    let report = before.close(LONG);
    assert_eq!((report.dead_letters, report.threads_left), (0, 0));
    assert_eq!(ticket.wait().unwrap().len(), 500);
    let after = runtime(&memory);
    assert_eq!(list(&after, "0").ask(Get).unwrap(), [0]);
}

#[test]
fn after_a_close_nothing_is_accepted() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    list.ask(Add(1)).unwrap();
    assert_eq!(runtime.close(LONG), super::super::CloseReport::default());
    assert!(matches!(list.ask(Get), Err(ActorError::Closed)));
    assert!(matches!(list.ask_for(Get, LONG), Err(ActorError::Closed)));
    assert!(matches!(list.tell(Add(1)), Err(Refused { why: Why::Closed, command: Add(1) })));
    assert!(matches!(list.post(Add(1)), Err(Refused { why: Why::Closed, .. })));
    assert!(matches!(list.peek(|_| ()), Err(ActorError::Closed)));
    assert!(matches!(runtime.actor::<List>("b"), Err(ActorError::Closed)));
    assert_eq!((runtime.residents(), runtime.names()), (0, 0));
}

#[test]
fn at_the_deadline_who_waits_gets_an_error_and_tells_are_counted() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let narrow = runtime.actor::<Narrow>("a").unwrap();
    let busy = Busy::keep(&narrow);
    let ticket = narrow.post(Get).unwrap();
    narrow.tell(Add(1)).unwrap();
    narrow.tell(Add(2)).unwrap();
    let waits_for_room = thread::spawn({
        let narrow = narrow.clone();
        move || narrow.ask(Get)
    });
    while narrow.cell().waiting() < 1 {
        thread::yield_now();
    }
    let report = runtime.close(Duration::from_millis(20));
    assert_eq!((report.dead_letters, report.threads_left), (2, 1));
    assert!(matches!(ticket.wait(), Err(ActorError::Closed)));
    assert!(matches!(waits_for_room.join().unwrap(), Err(ActorError::Closed)));
    drop(busy);
}

#[test]
fn a_close_from_inside_a_turn_waits_for_nobody() {
    let memory = Memory::new();
    let runtime = Arc::new(runtime(&memory));
    let list = list(&runtime, "a");
    let closer = Arc::clone(&runtime);
    let report = list.ask(Do(move |turn: &mut Turn<'_, List>| {
        turn.emit(1);
        closer.close(LONG)
    }));
    assert_eq!(report.unwrap().dead_letters, 0);
    assert!(matches!(list.ask(Get), Err(ActorError::Closed)));
}

#[test]
fn closing_lets_go_of_everything() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    list(&runtime, "a").ask(Add(1)).unwrap();
    drop(runtime);
    assert_eq!(Arc::strong_count(&memory), 1);
}
