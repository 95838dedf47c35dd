//! Room, order, and what is not allowed inside a turn.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::thread;

use super::*;
use crate::actor::{Refused, Why};

fn narrow(runtime: &Runtime) -> Addr<Narrow> {
    runtime.actor("a").unwrap()
}

#[test]
fn a_full_mailbox_gives_the_command_back() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let narrow = narrow(&runtime);
    let busy = Busy::keep(&narrow);
    for number in 0..3 {
        narrow.tell(Add(number)).unwrap();
    }
    let Err(Refused { command: Add(7), why: Why::Full }) = narrow.tell(Add(7)) else { panic!() };
    let Err(Refused { command: Add(8), why: Why::Full }) = narrow.post(Add(8)) else { panic!() };
    let reply = narrow.ask_for(Add(9), Duration::from_millis(1));
    assert!(matches!(reply, Err(ActorError::Timeout)), "{reply:?}");
    drop(busy);
    assert_eq!(narrow.ask(Get).unwrap(), [0, 1, 2]);
}

#[test]
fn refusals_become_errors_by_the_question_mark() {
    fn told(narrow: &Addr<Narrow>) -> Result<(), crate::error::Error> {
        Ok(narrow.tell(Add(1))?)
    }
    fn told_to_actor(narrow: &Addr<Narrow>) -> Result<(), ActorError> {
        Ok(narrow.tell(Add(1))?)
    }
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let narrow = narrow(&runtime);
    let _report = runtime.close(LONG);
    assert_eq!(told(&narrow).unwrap_err().to_string(), "the runtime is closed");
    assert!(matches!(told_to_actor(&narrow), Err(ActorError::Closed)));
}

#[test]
fn an_asker_waits_for_room_and_keeps_its_place() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let narrow = narrow(&runtime);
    let busy = Busy::keep(&narrow);
    for number in 0..3 {
        narrow.tell(Add(number)).unwrap();
    }
    let askers: Vec<_> = (3..8)
        .map(|number| {
            let narrow = narrow.clone();
            thread::spawn(move || narrow.ask(Add(number)))
        })
        .collect();
    while narrow.cell().waiting() < 5 {
        thread::yield_now();
    }
    drop(busy);
    for asker in askers {
        asker.join().unwrap().unwrap();
    }
    let mut numbers = narrow.ask(Get).unwrap();
    assert_eq!(numbers[..3], [0, 1, 2]);
    numbers.sort_unstable();
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
}

#[test]
fn a_command_that_timed_out_in_the_queue_is_handled_all_the_same() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let narrow = narrow(&runtime);
    let busy = Busy::keep(&narrow);
    let reply = narrow.ask_for(Add(1), Duration::from_millis(1));
    assert!(matches!(reply, Err(ActorError::Timeout)), "{reply:?}");
    drop(busy);
    assert_eq!(narrow.ask(Get).unwrap(), [1]);
}

#[test]
fn a_full_mailbox_is_an_answer_in_the_handler_and_the_turn_goes_on() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let narrow = narrow(&runtime);
    let busy = Busy::keep(&narrow);
    let target = narrow.clone();
    let refused = list(&runtime, "from").ask(Do(move |turn: &mut Turn<'_, List>| {
        turn.emit(1);
        (0..5).filter(|number| turn.tell(&target, Add(*number)).is_err()).collect::<Vec<_>>()
    }));
    assert_eq!(refused.unwrap(), [3, 4]);
    assert!(matches!(narrow.tell(Add(9)), Err(Refused { why: Why::Full, .. })));
    drop(busy);
    assert_eq!(narrow.ask(Get).unwrap(), [0, 1, 2]);
}

#[test]
fn an_actor_tells_itself_for_after_the_turn() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    list.ask(Do(|turn: &mut Turn<'_, List>| {
        let me = turn.me();
        turn.tell(&me, Add(2)).unwrap();
        turn.emit(1);
    }))
    .unwrap();
    assert_eq!(list.ask(Get).unwrap(), [1, 2]);
}

#[test]
fn inside_a_turn_whatever_could_wait_answers_at_once() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let other = list(&runtime, "other");
    let busy = Busy::keep(&other);
    let mut queued = other.post(Add(1)).unwrap();
    let given_up = other.post(Add(2)).unwrap();
    let target = other.clone();
    let answers = list(&runtime, "a").ask(Do(move |_: &mut Turn<'_, List>| {
        let in_turn = |answer: &Result<(), ActorError>| matches!(answer, Err(ActorError::InTurn));
        let mut answers = vec![
            target.ask(Get).map(drop),
            target.ask_for(Get, LONG).map(drop),
            target.tell(Add(1)).map_err(Into::into),
            target.post(Add(1)).map(drop).map_err(Into::into),
            target.peek(|_| ()).map(drop),
            target.passivate(),
            queued.wait_for(LONG).map(drop),
            given_up.wait().map(drop),
        ];
        let polled = Pin::new(&mut queued).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(polled) = polled else { panic!("it is ready at once") };
        answers.push(polled.map(drop));
        (answers.iter().all(in_turn), queued)
    }));
    let (all_in_turn, queued) = answers.unwrap();
    assert!(all_in_turn);
    drop(busy);
    assert_eq!(queued.wait().unwrap(), 1, "a ticket that was not consumed is good outside");
    assert_eq!(other.ask(Get).unwrap(), [1, 2]);
}

#[test]
fn looking_at_a_state_is_no_place_to_wait_either() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let answer = list.peek(|_| list.ask(Get)).unwrap().value;
    assert!(matches!(answer, Err(ActorError::InTurn)));
}

#[test]
fn a_caller_does_not_run_more_than_a_few_commands_of_others() {
    let memory = Memory::new();
    let options = RuntimeOptions { workers: 1.try_into().unwrap(), ..RuntimeOptions::default() };
    let runtime = runtime_with(&memory, options);
    // The one worker is busy elsewhere: what is told stays queued.
    let busy = Busy::keep(&list(&runtime, "elsewhere"));
    let (few, many) = (list(&runtime, "few"), list(&runtime, "many"));
    for number in 0..32 {
        few.tell(Add(number)).unwrap();
        many.tell(Add(number)).unwrap();
    }
    many.tell(Add(32)).unwrap();
    assert_eq!(few.ask(Get).unwrap().len(), 32);
    let mut ticket = many.post(Get).unwrap();
    assert!(ticket.try_take().is_none(), "queued for the worker");
    drop(busy);
    assert_eq!(ticket.wait().unwrap().len(), 33);
}
