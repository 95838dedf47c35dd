//! Many threads at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::actor::Why;

/// What was sent, by sender.
fn check_order(numbers: &[u64], senders: u64, each: u64) {
    let mut next: HashMap<u64, u64> = HashMap::new();
    for number in numbers {
        let (sender, index) = (number / 1_000_000, number % 1_000_000);
        let expected = next.entry(sender).or_default();
        assert_eq!(index, *expected, "sender {sender}");
        *expected += 1;
    }
    assert_eq!(next.len() as u64, senders);
    assert!(next.values().all(|count| *count == each), "{next:?}");
}

fn send(list: &Addr<List>, number: u64) {
    match number % 7 {
        0 => drop(list.ask(Add(number)).unwrap()),
        1 | 2 => loop {
            match list.post(Add(number)) {
                Ok(ticket) => return drop(ticket),
                Err(refused) => assert_eq!(refused.why, Why::Full),
            }
            thread::yield_now();
        },
        _ => loop {
            match list.tell(Add(number)) {
                Ok(()) => return,
                Err(refused) => assert_eq!(refused.why, Why::Full),
            }
            thread::yield_now();
        },
    }
}

#[test]
fn each_sender_sees_its_commands_handled_once_and_in_order() {
    const EACH: u64 = 3_000;
    let memory = Memory::new();
    let runtime = runtime(&memory);
    thread::scope(|scope| {
        for sender in 0..8 {
            let runtime = &runtime;
            scope.spawn(move || {
                for index in 0..EACH {
                    for name in ["a", "b", "c"] {
                        send(&list(runtime, name), sender * 1_000_000 + index);
                    }
                }
            });
        }
    });
    for name in ["a", "b", "c"] {
        let numbers = list(&runtime, name).ask(Get).unwrap();
        check_order(&numbers, 8, EACH);
    }
    assert_eq!(runtime.dead_letters(), 0);
}

/// The provider refuses an append with a number that was taken: a second incarnation of an actor
/// would be found out by its first event.
#[test]
fn passivation_at_any_moment_loses_no_command_and_makes_no_second_incarnation() {
    const EACH: u64 = 1_000;
    let memory = Memory::new();
    let options = RuntimeOptions { idle: Duration::ZERO, ..RuntimeOptions::default() };
    let runtime = runtime_with(&memory, options);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                runtime.sweep();
            }
        });
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let runtime = &runtime;
                scope.spawn(move || {
                    for index in 0..EACH {
                        // Not kept: a name is forgotten and made again all the time.
                        send(&list(runtime, "a"), sender * 1_000_000 + index);
                        send(&list(runtime, "b"), sender * 1_000_000 + index);
                        if index % 64 == 0 {
                            list(runtime, "a").passivate().unwrap();
                        }
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        sweeper.join().unwrap();
    });
    for name in ["a", "b"] {
        check_order(&list(&runtime, name).ask(Get).unwrap(), 4, EACH);
    }
    assert_eq!(runtime.dead_letters(), 0);
}

/// A ring of actors that tell each other, while callers ask them: nobody waits for anybody.
#[test]
fn actors_in_a_circle_do_not_block_each_other() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    thread::scope(|scope| {
        for start in 0..4_u64 {
            let runtime = &runtime;
            scope.spawn(move || {
                for round in 0..200_u64 {
                    let target = ((start + round) % 5).to_string();
                    list(runtime, &start.to_string())
                        .ask(Do(move |turn: &mut Turn<'_, List>| {
                            let next = turn.actor::<List>(&target).unwrap();
                            turn.emit(round);
                            if turn.tell(&next, Add(round)).is_err() {
                                turn.emit(0);
                            }
                        }))
                        .unwrap();
                }
            });
        }
    });
    let report = runtime.close(LONG);
    assert_eq!((report.dead_letters, report.threads_left), (0, 0));
}

#[test]
fn a_close_in_the_middle_loses_nothing_that_was_accepted() {
    let memory = Memory::new();
    let before = runtime(&memory);
    let accepted: Vec<u64> = thread::scope(|scope| {
        let senders: Vec<_> = (0..4_u64)
            .map(|sender| {
                let list = list(&before, &sender.to_string());
                scope.spawn(move || {
                    let mut accepted = 0;
                    loop {
                        match list.tell(Add(accepted)) {
                            Ok(()) => accepted += 1,
                            Err(refused) if refused.why == Why::Full => thread::yield_now(),
                            Err(_) => return accepted,
                        }
                    }
                })
            })
            .collect();
        while memory.frames() < 500 {
            thread::yield_now();
        }
        let report = before.close(LONG);
        assert_eq!((report.dead_letters, report.threads_left), (0, 0));
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    let after = runtime(&memory);
    for (sender, accepted) in accepted.into_iter().enumerate() {
        let numbers = list(&after, &sender.to_string()).ask(Get).unwrap();
        assert_eq!(numbers, (0..accepted).collect::<Vec<_>>());
    }
}
