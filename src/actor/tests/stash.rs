//! Commands that come before their time.

use std::thread;

use super::*;
use crate::actor::{Refused, Why};

/// Notes numbers while it is open. Even numbers need it to be wide open.
#[derive(Default, Debug)]
struct Gate {
    open: u64,
    numbers: Vec<u64>,
}

/// Below this a number is noted, from here on it says how far the gate is open.
const OPEN: u64 = 1 << 32;

impl Actor for Gate {
    type Event = u64;
    const KIND: &'static str = "gate";
    fn apply(&mut self, event: &u64) {
        if *event >= OPEN {
            self.open = event - OPEN;
        } else {
            self.numbers.push(*event);
        }
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().stash(500)
    }
}

impl Handle<Add> for Gate {
    type Reply = usize;
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> usize {
        turn.emit(number);
        turn.numbers.len()
    }
    fn admits(Add(number): &Add, gate: &Self) -> bool {
        assert_ne!(*number, BAD, "a number that nobody can look at");
        gate.open > number % 2
    }
}

/// Opens it so far, and says how many events there were then.
struct Open(u64);
impl Handle<Open> for Gate {
    type Reply = u64;
    fn handle(Open(far): Open, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(OPEN + far);
        turn.unstash();
        turn.seq().get()
    }
}

impl Handle<Get> for Gate {
    type Reply = Vec<u64>;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Vec<u64> {
        turn.numbers.clone()
    }
}

impl<F, R> Handle<Do<F>> for Gate
where
    F: FnOnce(&mut Turn<'_, Self>) -> R + Send + 'static,
    R: Send + 'static,
{
    type Reply = R;
    fn handle(Do(run): Do<F>, turn: &mut Turn<'_, Self>) -> R {
        run(turn)
    }
}

impl Handle<Block> for Gate {
    type Reply = ();
    fn handle(block: Block, _: &mut Turn<'_, Self>) {
        block.begun.send(()).unwrap();
        block.go_on.recv_timeout(LONG).unwrap();
    }
}

fn gate(runtime: &Runtime) -> Addr<Gate> {
    runtime.actor("a").unwrap()
}

/// Commands that are put aside.
fn stashed(gate: &Addr<Gate>) -> usize {
    gate.cell().aside(|aside| aside.stash.len())
}

fn await_stashed(gate: &Addr<Gate>, count: usize) {
    while stashed(gate) != count {
        thread::yield_now();
    }
}

/// Case 94, and 69: the numbers of events are those of the order of handling.
#[test]
fn stashed_commands_run_in_the_order_of_arrival_before_newer_ones() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let gate = gate(&runtime);
    for number in 0..200 {
        gate.tell(Add(number)).unwrap();
    }
    await_stashed(&gate, 200);
    let busy = Busy::keep(&gate);
    let opened = gate.post(Open(2)).unwrap();
    for number in 200..300 {
        gate.tell(Add(number)).unwrap();
    }
    drop(busy);
    assert_eq!(opened.wait().unwrap(), 1);
    let last = gate.ask(Add(300)).unwrap();
    assert_eq!(last, 301);
    assert_eq!(gate.ask(Get).unwrap(), (0..=300).collect::<Vec<_>>());
    assert_eq!(stashed(&gate), 0);
}

/// Case 95.
#[test]
fn those_still_not_admitted_go_back_in_order_and_all_run_once() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let gate = gate(&runtime);
    let early: Vec<_> = (0..100).map(|number| gate.post(Add(number)).unwrap()).collect();
    await_stashed(&gate, 100);
    gate.ask(Open(1)).unwrap();
    for number in 100..120 {
        gate.tell(Add(number)).unwrap();
    }
    await_stashed(&gate, 60);
    gate.ask(Open(2)).unwrap();
    for (index, ticket) in early.into_iter().enumerate() {
        let place = if index % 2 == 0 { index / 2 } else { 60 + index / 2 };
        assert_eq!(ticket.wait().unwrap(), place + 1, "command {index}");
    }
    let numbers = gate.ask(Get).unwrap();
    let expected: Vec<_> = (0..120).step_by(2).chain((1..120).step_by(2)).collect();
    assert_eq!(numbers, expected);
}

/// An idle actor's turn is taken on the caller's thread: there, too, a command may be too early.
#[test]
fn an_ask_of_an_idle_actor_waits_in_the_stash_for_its_time() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let gate = gate(&runtime);
    thread::scope(|scope| {
        let asker = scope.spawn(|| gate.ask(Add(1)));
        await_stashed(&gate, 1);
        let reply = gate.ask_for(Add(3), Duration::from_millis(1));
        assert!(matches!(reply, Err(ActorError::Timeout)), "{reply:?}");
        gate.ask(Open(2)).unwrap();
        assert_eq!(asker.join().unwrap().unwrap(), 1);
    });
    while gate.ask(Get).unwrap() != [1, 3] {
        thread::yield_now();
    }
}

/// The caller's own command comes after what the one before it has taken out of the stash,
/// however much that is.
#[test]
fn what_is_taken_out_of_the_stash_is_before_the_caller_who_is_behind_it() {
    let memory = Memory::new();
    let options = RuntimeOptions { workers: 1.try_into().unwrap(), ..RuntimeOptions::default() };
    let runtime = runtime_with(&memory, options);
    let gate = gate(&runtime);
    for few in [10, 100] {
        let before = gate.ask(Get).unwrap().len() as u64;
        gate.ask(Open(0)).unwrap();
        for number in 0..few {
            gate.tell(Add(before + number)).unwrap();
        }
        await_stashed(&gate, usize::try_from(few).unwrap());
        // The worker is busy elsewhere: the next caller runs what is queued.
        let busy = Busy::keep(&list(&runtime, "elsewhere"));
        gate.tell(Open(2)).unwrap();
        let ticket = gate.post(Add(before + few)).unwrap();
        drop(busy);
        assert_eq!(ticket.wait().unwrap() as u64, before + few + 1);
    }
    let numbers = gate.ask(Get).unwrap();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
}

/// Case 98: the newest is refused, and whoever sent it knows. The rest still run.
#[test]
fn a_full_stash_is_an_answer_to_who_asks_and_a_dead_letter_of_who_tells() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let gate = gate(&runtime);
    for number in 0..500 {
        gate.tell(Add(number)).unwrap();
    }
    await_stashed(&gate, 500);
    assert!(matches!(gate.ask(Add(500)), Err(ActorError::Full)));
    gate.tell(Add(501)).unwrap();
    while runtime.dead_letters() == 0 {
        thread::yield_now();
    }
    gate.ask(Open(2)).unwrap();
    gate.ask(Add(7)).unwrap();
    assert_eq!(gate.ask(Get).unwrap(), (0..500).chain([7]).collect::<Vec<_>>());
    assert_eq!(runtime.dead_letters(), 1);
}

/// Cases 96 and 97: what is put aside is no part of the state.
#[test]
fn stashed_commands_outlive_panics_failed_writes_and_a_passivation() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    let early: Vec<_> = (0..10).map(|number| gate(&runtime).post(Add(number)).unwrap()).collect();
    await_stashed(&gate(&runtime), 10);
    let reply: Result<(), _> = gate(&runtime).ask(Do(|turn: &mut Turn<'_, Gate>| {
        turn.emit(OPEN + 2);
        turn.unstash();
        panic!("after all");
    }));
    assert!(matches!(reply, Err(ActorError::Panicked { .. })), "{reply:?}");
    memory.fail_appends(Some(failing::disk_full()));
    assert!(matches!(gate(&runtime).ask(Open(2)), Err(ActorError::Append(_))));
    memory.fail_appends(None);
    assert_eq!(stashed(&gate(&runtime)), 10, "those turns have not happened");
    clock.advance(Duration::from_hours(1));
    runtime.sweep();
    assert_eq!((runtime.residents(), runtime.names()), (0, 1));
    gate(&runtime).ask(Open(2)).unwrap();
    for (number, ticket) in early.into_iter().enumerate() {
        assert_eq!(ticket.wait().unwrap(), number + 1);
    }
}

#[test]
fn what_is_still_put_aside_at_close_is_answered_and_counted() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let gate = gate(&runtime);
    gate.tell(Add(1)).unwrap();
    let ticket = gate.post(Add(2)).unwrap();
    await_stashed(&gate, 2);
    let report = runtime.close(LONG);
    assert_eq!(report.dead_letters, 1);
    assert!(matches!(ticket.wait(), Err(ActorError::Closed)));
}

#[test]
fn a_command_that_cannot_be_looked_at_fails_alone() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let gate = gate(&runtime);
    assert!(matches!(gate.ask(Add(BAD)), Err(ActorError::Panicked { .. })));
    let busy = Busy::keep(&gate);
    let bad = gate.post(Add(BAD)).unwrap();
    let good = gate.post(Open(2)).unwrap();
    drop(busy);
    assert!(matches!(bad.wait(), Err(ActorError::Panicked { .. })));
    assert_eq!(good.wait().unwrap(), 1);
}

/// Case 100: more than there is room for while the actor does not come to its commands.
#[test]
fn twice_the_capacity_handles_at_least_one_capacitys_worth_and_refuses_the_rest() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let gate = gate(&runtime);
    let capacity = u64::from(crate::actor::MAILBOX_COMMANDS);
    let busy = Busy::keep(&gate);
    let refused = (0..2 * capacity)
        .filter(|number| matches!(gate.tell(Add(*number)), Err(Refused { why: Why::Full, .. })));
    assert_eq!(refused.count() as u64, capacity);
    drop(busy);
    await_stashed(&gate, 500);
    while runtime.dead_letters() + 500 < capacity {
        thread::yield_now();
    }
    gate.ask(Open(2)).unwrap();
    gate.ask(Add(1)).unwrap();
    assert_eq!(gate.ask(Get).unwrap().len(), 501);
}
