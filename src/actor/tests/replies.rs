//! When replies leave: the causal mark, and what it is measured against.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use super::*;
use crate::actor::cell::{Body, Cell};
use crate::actor::mailbox::{Arrival, Envelope, Mark};
use crate::actor::provider::EventStore as _;
use crate::actor::ticket::{Replier, Slot, Ticket};
use crate::actor::turn::take_turn;

#[test]
fn a_reply_at_power_leaves_only_when_its_event_is_durable() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    memory.hold();
    let mut ticket = list.post(Add(1)).unwrap();
    assert!(ticket.try_take().is_none());
    assert!(matches!(ticket.wait_for(Duration::from_millis(1)), Err(ActorError::Timeout)));
    let peek = list.peek(|list| list.numbers.clone()).unwrap();
    assert_eq!((peek.value, peek.durable), (vec![1], false));
    memory.advance(memory.end());
    assert_eq!(ticket.try_take().unwrap().unwrap(), 1);
    assert!(list.peek(|_| ()).unwrap().durable);
    assert!(matches!(ticket.try_take(), Some(Err(ActorError::Taken))));
}

#[test]
fn a_waiting_asker_commits_on_its_own_thread() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let before = memory.durable();
    list(&runtime, "a").ask(Add(1)).unwrap();
    assert!(memory.durable() > before);
}

#[test]
fn at_process_no_reply_waits() {
    let memory = Memory::new();
    memory.hold();
    let runtime = runtime(&memory);
    let fast = runtime.actor::<Fast>("a").unwrap();
    assert_eq!(fast.ask(Add(1)).unwrap(), 1);
    assert_eq!(fast.post(Add(1)).unwrap().try_take().unwrap().unwrap(), 2);
}

#[test]
fn a_turn_chooses_its_own_durability() {
    let memory = Memory::new();
    memory.hold();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let reply = list.ask(Do(|turn: &mut Turn<'_, List>| {
        turn.emit(1);
        turn.durability(Durability::Process);
        turn.seq().get()
    }));
    assert_eq!(reply.unwrap(), 1);
    // The state is dirty all the same: who reads it at `Power` waits.
    let mut read = list.post(Get).unwrap();
    assert!(read.try_take().is_none());
    memory.release();
    assert_eq!(read.wait().unwrap(), [1]);
}

#[test]
fn a_clean_read_never_waits() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    list(&runtime, "a").ask(Add(1)).unwrap();
    memory.hold();
    list(&runtime, "b").tell(Add(1)).unwrap();
    assert_eq!(list(&runtime, "a").ask(Get).unwrap(), [1]);
}

#[test]
fn errors_and_panics_wait_like_any_other_reply() {
    let memory = Memory::new();
    memory.hold();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let _add = list.post(Add(1)).unwrap();
    let mut error = list.post(Do(|turn: &mut Turn<'_, List>| Err::<(), u64>(turn.numbers[0])));
    let error = error.as_mut().unwrap();
    let mut panic = list.post(Do(|turn: &mut Turn<'_, List>| panic!("{:?}", turn.numbers)));
    let panic = panic.as_mut().unwrap();
    assert!(error.try_take().is_none());
    assert!(panic.try_take().is_none());
    memory.release();
    assert_eq!(error.try_take().unwrap().unwrap(), Err(1));
    let reply: Result<(), _> = panic.try_take().unwrap();
    assert!(matches!(reply, Err(ActorError::Panicked { message }) if &*message == "[1]"));
}

/// A `Get` that depends on something.
struct After {
    mark: Mark,
    replier: Replier<Vec<u64>>,
}

impl Envelope<List> for After {
    fn run(self: Box<Self>, cell: &Arc<Cell<List>>, body: &mut Body<List>) {
        let arrival = Arrival::of(self.mark, true);
        let mut parked = None;
        take_turn(cell, body, &arrival, Get, &mut parked);
        self.replier.put(parked.unwrap());
    }

    fn admits(&self, _: &crate::actor::cell::Live<List>) -> bool {
        true
    }

    fn refuse(self: Box<Self>, _: &Cell<List>, why: ActorError) {
        self.replier.refuse(why);
    }
}

#[test]
fn a_clean_actor_does_not_answer_before_what_its_message_depends_on_is_durable() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    memory.hold();
    let _dirty = list(&runtime, "dirty").post(Add(1)).unwrap();
    let clean = list(&runtime, "clean");
    let (slot, replier) = Slot::new();
    clean.cell().reserve().unwrap();
    clean.cell().deliver(Box::new(After { mark: Some(memory.end()), replier }));
    let mut told = Ticket::waiting(clean.cell().resident(), slot);
    // Behind it in the mailbox, and not told anything: it does not wait.
    assert!(clean.ask(Get).unwrap().is_empty());
    assert!(told.try_take().is_none());
    memory.release();
    assert!(told.wait().unwrap().is_empty());
}

#[test]
fn what_a_turn_tells_carries_the_mark_of_the_turn() {
    let memory = Memory::new();
    memory.hold();
    let runtime = runtime(&memory);
    let (from, to) = (list(&runtime, "from"), list(&runtime, "to"));
    let busy = Busy::keep(&to);
    let target = to.clone();
    let _ticket = from.post(Do(move |turn: &mut Turn<'_, List>| {
        turn.emit(1);
        turn.tell(&target, Add(2)).unwrap();
    }));
    assert_eq!(to.cell().queued_marks(), [Some(memory.end())]);
    drop(busy);
}

#[test]
fn a_mark_released_step_by_step_releases_replies_in_causal_order() {
    let memory = Memory::new();
    memory.hold();
    let runtime = runtime(&memory);
    let mut tickets = Vec::new();
    for number in 0..6 {
        let name = ["a", "b", "c"][number % 3];
        tickets.push((list(&runtime, name).post(Add(1)).unwrap(), memory.end()));
    }
    for released in 0..6 {
        memory.advance(tickets[released].1);
        for (number, (ticket, _)) in tickets.iter_mut().enumerate() {
            if number > released {
                assert!(ticket.try_take().is_none(), "{number} left with {released}");
            } else if number == released {
                assert_eq!(ticket.try_take().unwrap().unwrap(), number / 3 + 1);
            }
        }
    }
}

#[test]
fn a_reloaded_actor_is_as_dirty_as_before() {
    let memory = Memory::new();
    memory.hold();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let _add = list.post(Add(1)).unwrap();
    list.passivate().unwrap();
    assert_eq!(runtime.residents(), 0);
    let mut read = list.post(Get).unwrap();
    assert!(read.try_take().is_none());
    memory.release();
    assert_eq!(read.wait().unwrap(), [1]);
}

#[test]
fn a_failed_sync_leaves_dirty_replies_in_doubt_and_clean_ones_alone() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    list(&runtime, "clean").ask(Add(1)).unwrap();
    memory.hold();
    let dirty = list(&runtime, "dirty");
    let mut polled = dirty.post(Add(1)).unwrap();
    let mut taken = dirty.post(Add(2)).unwrap();
    let asker = thread::spawn({
        let dirty = dirty.clone();
        move || dirty.ask(Get)
    });
    memory.poison();
    assert!(matches!(asker.join().unwrap(), Err(ActorError::InDoubt { .. })));
    assert!(matches!(taken.try_take(), Some(Err(ActorError::InDoubt { .. }))));
    let reply = Pin::new(&mut polled).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(reply, Poll::Ready(Err(ActorError::InDoubt { .. }))));
    assert_eq!(list(&runtime, "clean").ask(Get).unwrap(), [1]);
    let refused = list(&runtime, "clean").ask(Add(2));
    assert!(matches!(refused, Err(ActorError::Append(_))), "{refused:?}");
    assert_eq!(list(&runtime, "clean").ask(Get).unwrap(), [1]);
}

struct Count(AtomicUsize);
impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_ticket_is_a_future_that_is_woken_once_it_is_ready() {
    let memory = Memory::new();
    memory.hold();
    let runtime = runtime(&memory);
    let list = list(&runtime, "a");
    let busy = Busy::keep(&list);
    let mut ticket = list.post(Add(1)).unwrap();
    let wakes = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut ticket).poll(&mut context).is_pending());
    drop(busy);
    // In order behind it, so that it has been handled when this has.
    let _behind = list.ask(Do(|turn: &mut Turn<'_, List>| turn.durability(Durability::Process)));
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1, "woken for the reply");
    assert!(Pin::new(&mut ticket).poll(&mut context).is_pending());
    assert!(Pin::new(&mut ticket).poll(&mut context).is_pending());
    memory.release();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 2, "woken for the mark");
    assert!(matches!(Pin::new(&mut ticket).poll(&mut context), Poll::Ready(Ok(1))));
}

#[test]
fn power_loss_takes_no_reply_back() {
    let memory = Memory::new();
    let before = runtime(&memory);
    let told = list(&before, "a").ask(Add(1)).unwrap();
    memory.hold();
    let mut untold = list(&before, "a").post(Add(2)).unwrap();
    assert!(untold.try_take().is_none());
    drop(before);
    memory.cut_power();
    let after = runtime(&memory);
    assert_eq!(list(&after, "a").ask(Get).unwrap().len(), told);
    assert_eq!(list(&after, "a").ask(Add(3)).unwrap(), 2);
}

#[test]
fn after_a_failed_sync_nothing_that_is_not_on_disk_is_told_at_process_either() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let (clean, dirty) =
        (runtime.actor::<Fast>("clean").unwrap(), runtime.actor::<Fast>("dirty").unwrap());
    clean.ask(Add(1)).unwrap();
    memory.advance(memory.end());
    memory.hold();
    dirty.ask(Add(1)).unwrap();
    memory.poison();
    assert!(matches!(clean.ask(Add(1)), Err(ActorError::Append(_))));
    assert_eq!(clean.ask(Get).unwrap(), 1);
    assert!(matches!(dirty.ask(Get), Err(ActorError::InDoubt { .. })));
}
