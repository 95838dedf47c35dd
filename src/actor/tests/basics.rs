//! Commands, replies, and what is left after a turn that fails.

use super::*;

#[test]
fn a_reply_tells_what_the_events_did_and_a_new_runtime_finds_it_again() {
    let memory = Memory::new();
    let first = runtime(&memory);
    assert_eq!(list(&first, "a").ask(Add(1)).unwrap(), 1);
    assert_eq!(list(&first, "a").ask(Add(2)).unwrap(), 2);
    drop(first);
    let second = runtime(&memory);
    assert_eq!(list(&second, "a").ask(Get).unwrap(), [1, 2]);
    assert!(list(&second, "b").ask(Get).unwrap().is_empty());
}

#[test]
fn what_one_thread_sends_by_whatever_way_is_handled_in_order() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let mut tickets = Vec::new();
    for round in 0..200 {
        list.tell(Add(round * 3)).unwrap();
        tickets.push(list.post(Add(round * 3 + 1)).unwrap());
        list.ask(Add(round * 3 + 2)).unwrap();
    }
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!(list.ask(Get).unwrap(), (0..600).collect::<Vec<_>>());
}

#[test]
fn a_panic_gives_its_asker_the_message_and_leaves_the_state_of_before() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    list.ask(Add(1)).unwrap();
    let reply = list.ask(Do(|turn: &mut Turn<'_, List>| {
        turn.emit(2);
        assert_eq!(turn.numbers, [1, 2]);
        panic!("on {}", "purpose");
    }));
    let Err(ActorError::Panicked { message }) = reply else { panic!("{reply:?}") };
    assert_eq!(&*message, "on purpose");
    assert_eq!(list.ask(Get).unwrap(), [1]);
    assert_eq!(list.ask(Add(3)).unwrap(), 2);
}

#[test]
fn addresses_and_tickets_cross_threads_whatever_the_state_is() {
    /// `Send`, and not `Sync`: what an actor must be.
    #[derive(Default)]
    struct Local(std::cell::Cell<u64>);
    impl Actor for Local {
        type Event = u64;
        const KIND: &'static str = "local";
        fn apply(&mut self, event: &u64) {
            self.0.set(self.0.get() + event);
        }
    }
    fn crosses<T: Send + Sync + Unpin>() {}
    crosses::<Addr<Local>>();
    crosses::<Runtime>();
    crosses::<crate::actor::Ticket<u64>>();
    crosses::<ActorError>();
}
