//! Cases 55 to 103: turns, replies, and what fails in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals::actor::memory::{Call, Memory};
use annals::actor::{ActorError, Why};
use annals::error::AppendError;
use annals::testkit::{Calls, End, Kit, Machine, Trouble, every_crash};
use annals::types::StreamId;
use annals::{Actor, Handle, Store, Turn};

use crate::cases::{Add, Busy, Do, Get, List, found, list, runtime};

/// Cases 55, 56, 65: all events of a command are applied, in order, before the next command.
#[test]
fn the_events_of_a_command_are_applied_in_order_and_before_the_next_command() {
    Kit::<List>::given([1])
        .when(Add(vec![2, 3, 4]))
        .expect_reply(4)
        .expect_events([2, 3, 4])
        .when(Add(vec![5]))
        .expect_reply(5)
        .when(Get)
        .expect_reply(vec![1, 2, 3, 4, 5])
        .expect_events([])
        .when_archived(&Add(vec![6]))
        .expect_reply(6);
}

/// Cases 57, 162: a crash in any operation leaves all of a command's events or none, and those
/// that were acknowledged.
#[test]
fn a_crash_anywhere_leaves_all_events_of_a_command_or_none() {
    let crashes = every_crash(
        2,
        |machine, acknowledged: &mut usize| {
            let Ok(store) = machine.open() else { return };
            let Ok(list) = store.actor::<List>("a") else { return };
            for number in 0..2 {
                // Over the border of a page.
                let numbers = vec![number; 100];
                let Some(count) = machine.heard(list.ask(Add(numbers))) else { return };
                *acknowledged = count;
            }
        },
        |machine, _, acknowledged| {
            let store = machine.open().unwrap();
            let numbers = store.actor::<List>("a").unwrap().ask(Get).unwrap();
            assert!(numbers.len() >= *acknowledged, "{acknowledged} were acknowledged");
            assert!(numbers.len().is_multiple_of(100), "a part of a command: {}", numbers.len());
        },
    );
    assert!(crashes.points > 15, "{crashes:?}");
}

/// Cases 60, 61: without events nothing is stored, and all else is done.
#[test]
fn a_command_without_events_answers_and_tells_and_stores_nothing() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let other = list(&runtime, "other");
    let target = other.clone();
    let reply = list(&runtime, "a").ask(Do(move |turn: &mut Turn<'_, List>| {
        assert!(turn.tell(&target, Add(Vec::new())).is_ok());
        assert!(turn.tell(&target, Add(vec![1])).is_ok());
        7
    }));
    assert_eq!(reply.unwrap(), 7);
    assert_eq!(other.ask(Get).unwrap(), [1]);
    assert_eq!(memory.frames(), 1, "the other one's");
}

/// Case 66.
#[test]
fn a_rejected_command_is_answered_with_its_error_and_changes_nothing() {
    struct Take(u64);
    impl Handle<Take> for List {
        type Reply = Result<(), u64>;
        fn handle(Take(number): Take, turn: &mut Turn<'_, Self>) -> Self::Reply {
            if turn.numbers.contains(&number) {
                return Err(number);
            }
            turn.emit(number);
            Ok(())
        }
    }
    Kit::<List>::given([5])
        .when(Take(5))
        .expect_reply(Err(5))
        .expect_events([])
        .expect_state(|list| assert_eq!(list.numbers, [5]))
        .when(Take(6))
        .expect_reply(Ok(()))
        .expect_events([6]);
}

/// Case 70: no field, no byte; and numbers as they are.
#[test]
fn an_actor_may_have_no_state_and_its_events_no_content() {
    #[derive(Default, PartialEq)]
    struct Nothing;
    impl Actor for Nothing {
        type Event = ();
        const KIND: &'static str = "nothing";
        fn apply(&mut self, (): &()) {}
    }
    struct Happen;
    impl Handle<Happen> for Nothing {
        type Reply = u64;
        fn handle(_: Happen, turn: &mut Turn<'_, Self>) -> u64 {
            turn.emit(());
            turn.seq().get()
        }
    }
    Kit::<Nothing>::given([(), ()]).when(Happen).expect_reply(3).expect_events([()]);
}

/// Case 75.
#[test]
fn all_names_that_ever_had_an_event_are_listed_and_no_others() {
    let machine = Machine::new(1);
    for _ in 0..2 {
        let store = machine.open().unwrap();
        for number in 0..30 {
            store.actor::<List>(&number.to_string()).unwrap().ask(Add(vec![1])).unwrap();
            let silent = format!("silent {number}");
            store.actor::<List>(&silent).unwrap().ask(Get).unwrap();
        }
        let names: Vec<String> = store.names::<List>().unwrap().into_iter().collect();
        let mut expected: Vec<String> = (0..30).map(|number| number.to_string()).collect();
        expected.sort();
        assert_eq!(names, expected);
    }
}

/// Case 76: what is in memory shows at once and says that it is not on the disk; replies come when
/// it is.
#[test]
fn a_look_sees_what_is_not_durable_and_says_so_while_replies_wait() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    memory.hold();
    let mut tickets: Vec<_> = (0..20).map(|number| list.post(Add(vec![number])).unwrap()).collect();
    let peek = list.peek(|list| list.numbers.len()).unwrap();
    assert_eq!((peek.value, peek.durable), (20, false));
    assert!(tickets.iter_mut().all(|ticket| ticket.try_take().is_none()));
    memory.release();
    for (ticket, count) in tickets.into_iter().zip(1..) {
        assert_eq!(ticket.wait().unwrap(), count);
    }
    assert!(list.peek(|_| ()).unwrap().durable);
}

/// Case 81.
#[test]
fn a_thousand_actors_with_twenty_turns_each_from_many_threads_are_all_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let names = (0..250).map(|number| format!("{thread}-{number}"));
                let lists: Vec<_> = names.map(|name| store.actor::<List>(&name).unwrap()).collect();
                for turn in 0..20 {
                    let tickets: Vec<_> =
                        lists.iter().map(|list| list.post(Add(vec![turn])).unwrap()).collect();
                    for ticket in tickets {
                        assert_eq!(ticket.wait().unwrap() as u64, turn + 1);
                    }
                }
            });
        }
    });
    let totals = store.totals().unwrap();
    assert_eq!((totals.streams, totals.events), (1_000, 20_000));
}

/// Cases 80, 86, 92: each failing append is told to its asker, nothing is tried again for it, and
/// the next one works.
#[test]
fn two_appends_that_fail_are_told_to_their_askers_and_the_third_works() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let (list, other) = (list(&runtime, "a"), list(&runtime, "b"));
    list.ask(Add(vec![1])).unwrap();
    (0..2).for_each(|_| memory.fail_next_of(Call::Append, StreamId::of("list", "a")));
    for _ in 0..2 {
        let failed = list.ask(Add(vec![2]));
        let Err(ActorError::Append(error)) = failed else { panic!("{failed:?}") };
        assert!(matches!(*error, AppendError::Disk(_)));
        other.ask(Add(vec![2])).unwrap();
    }
    assert_eq!(list.ask(Add(vec![3])).unwrap(), 2);
    assert_eq!(list.ask(Get).unwrap(), [1, 3]);
    assert_eq!(found(&memory, "a"), [1, 3]);
}

/// Case 90: what a turn changed beside its events goes with the turn, if that had begun to change
/// the state at all.
#[test]
fn what_a_failed_turn_hid_in_the_state_is_gone() {
    #[derive(Default)]
    struct Sly(Arc<AtomicU64>);
    impl Actor for Sly {
        type Event = u64;
        const KIND: &'static str = "sly";
        fn apply(&mut self, _: &u64) {}
    }
    struct Hide;
    impl Handle<Hide> for Sly {
        type Reply = ();
        fn handle(_: Hide, turn: &mut Turn<'_, Self>) {
            turn.0.store(1, Ordering::Relaxed);
            turn.emit(1);
            panic!("on purpose");
        }
    }
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let sly = runtime.actor::<Sly>("a").unwrap();
    assert!(sly.ask(Hide).is_err());
    let seen = sly.peek(|sly| sly.0.load(Ordering::Relaxed)).unwrap();
    assert_eq!(seen.value, 0);
}

/// Cases 96, 97: a failed append takes the commands that wait neither away nor out of their order.
#[test]
fn commands_that_wait_survive_the_failed_turn_before_them() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let busy = Busy::keep(&list);
    memory.fail_next(Call::Append);
    let failed = list.post(Add(vec![1])).unwrap();
    let tickets: Vec<_> = (2..10).map(|number| list.post(Add(vec![number])).unwrap()).collect();
    busy.end();
    assert!(matches!(failed.wait(), Err(ActorError::Append(_))));
    for (ticket, count) in tickets.into_iter().zip(1..) {
        assert_eq!(ticket.wait().unwrap(), count);
    }
    assert_eq!(list.ask(Get).unwrap(), (2..10).collect::<Vec<_>>());
}

/// Cases 98, 99, 100: twice as many as find room: the mailbox's fill is handled, each of the others
/// was given back.
#[test]
fn twice_what_a_mailbox_holds_is_handled_or_given_back_each_command_of_it() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let busy = Busy::keep(&list);
    let room = u64::from(annals::actor::MAILBOX_COMMANDS);
    let mut refused = 0;
    for number in 0..2 * room {
        if let Err(back) = list.tell(Add(vec![number])) {
            assert_eq!((back.why, back.command.0), (Why::Full, vec![number]));
            refused += 1;
        }
    }
    assert_eq!(refused, room);
    busy.end();
    assert_eq!(list.ask(Get).unwrap(), (0..room).collect::<Vec<_>>());
    assert_eq!(runtime.dead_letters(), 0);
}

/// Case 139: an event that refuses to be archived takes its own turn with it and no other.
#[test]
fn an_event_that_cannot_be_archived_fails_its_turn_and_no_other() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use annals::rkyv::with::AsString;
    use annals::rkyv::{Archive, Deserialize, Serialize};

    #[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
    #[rkyv(crate = annals::rkyv)]
    struct Opened(#[rkyv(with = AsString)] std::path::PathBuf);
    #[derive(Default, PartialEq)]
    struct Files(Vec<std::path::PathBuf>);
    impl Actor for Files {
        type Event = Opened;
        const KIND: &'static str = "files";
        fn apply(&mut self, event: &Opened) {
            self.0.push(event.0.clone());
        }
    }
    struct Open(Vec<u8>);
    impl Handle<Open> for Files {
        type Reply = usize;
        fn handle(Open(name): Open, turn: &mut Turn<'_, Self>) -> usize {
            turn.emit(Opened("good".into()));
            turn.emit(Opened(OsString::from_vec(name).into()));
            turn.0.len()
        }
    }
    let good = || Opened("good".into());
    Kit::<Files>::given([])
        .when(Open(b"a".to_vec()))
        .expect_reply(2)
        .when(Open(vec![0xff, 0xfe]))
        .expect_error("not appended")
        .expect_events([])
        .when(Open(b"b".to_vec()))
        .expect_reply(4)
        .expect_events([good(), Opened("b".into())]);
}

/// Case 142.
#[test]
fn two_kinds_with_one_name_do_not_mix() {
    #[derive(Default)]
    struct Other(u64);
    impl Actor for Other {
        type Event = u64;
        const KIND: &'static str = "other";
        fn apply(&mut self, event: &u64) {
            self.0 += event;
        }
    }
    impl Handle<Add> for Other {
        type Reply = u64;
        fn handle(Add(numbers): Add, turn: &mut Turn<'_, Self>) -> u64 {
            for number in numbers {
                turn.emit(number);
            }
            turn.0
        }
    }
    let memory = Memory::new();
    for round in 1..4 {
        let runtime = runtime(&memory);
        assert_eq!(list(&runtime, "a").ask(Add(vec![1])).unwrap() as u64, round);
        assert_eq!(runtime.actor::<Other>("a").unwrap().ask(Add(vec![5])).unwrap(), 5 * round);
    }
}

/// Cases 83, 163: a commit of 64 actors fails. Nobody is told yes, nobody's new state is shown;
/// after
/// a reopen each of them is wholly there or absent.
#[test]
fn of_a_commit_that_fails_nothing_is_acknowledged_or_shown() {
    let machine = Machine::new(8);
    let store = machine.open().unwrap();
    let lists: Vec<_> =
        (0..64).map(|number| store.actor::<List>(&number.to_string()).unwrap()).collect();
    for list in &lists {
        list.ask(Add(vec![1])).unwrap();
    }
    let tickets: Vec<_> = lists.iter().map(|list| list.post(Add(vec![2, 3])).unwrap()).collect();
    machine.fail(Calls::Syncs, Trouble::Error, 0);
    for ticket in tickets {
        let answer = ticket.wait();
        assert!(matches!(answer, Err(ActorError::InDoubt { .. })), "{answer:?}");
    }
    for list in &lists {
        let shown = list.ask(Get);
        assert!(matches!(shown, Err(ActorError::InDoubt { .. })), "{shown:?}");
        assert!(list.ask(Add(vec![4])).is_err());
    }
    for end in End::ALL {
        let store = machine.if_it_ended(end).open().unwrap();
        for number in 0..64 {
            let list = store.actor::<List>(&number.to_string()).unwrap();
            let numbers = list.ask(Get).unwrap();
            assert!(numbers == [1] || numbers == [1, 2, 3], "{end:?}, {number}: {numbers:?}");
        }
    }
    drop((lists, store));
}
