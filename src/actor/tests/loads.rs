//! How many states are read at once, and how much there may be of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;

/// Reads slowly: each event is applied when the test lets it, and it is counted who is at it.
#[derive(Default)]
struct Slow(u64);

static HELD: parking_lot::RwLock<()> = parking_lot::RwLock::new(());
static READING: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
/// Tests that use `Slow`: one at a time.
static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

impl Actor for Slow {
    type Event = u64;
    const KIND: &'static str = "slow";
    fn apply(&mut self, event: &u64) {
        let reading = READING.fetch_add(1, Ordering::SeqCst) + 1;
        MOST.fetch_max(reading, Ordering::SeqCst);
        drop(HELD.read());
        READING.fetch_sub(1, Ordering::SeqCst);
        self.0 += event;
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().durability(Durability::Process)
    }
}
impl Handle<Add> for Slow {
    type Reply = u64;
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(number);
        turn.0
    }
}
impl Handle<Get> for Slow {
    type Reply = u64;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> u64 {
        turn.0
    }
}

fn slow(runtime: &Runtime, number: usize) -> Addr<Slow> {
    runtime.actor(&number.to_string()).unwrap()
}

/// So many actors with one event each, none of them in memory.
fn asleep(memory: &Arc<Memory>, count: usize) {
    let runtime = runtime(memory);
    (0..count).for_each(|number| assert_eq!(slow(&runtime, number).ask(Add(1)).unwrap(), 1));
    MOST.store(0, Ordering::SeqCst);
}

fn limited(memory: &Arc<Memory>, workers: usize, loads_max: usize) -> Runtime {
    let workers = workers.try_into().unwrap();
    runtime_with(memory, RuntimeOptions { workers, loads_max, ..RuntimeOptions::default() })
}

fn await_reading(count: usize) {
    while READING.load(Ordering::SeqCst) < count {
        thread::yield_now();
    }
}

/// Case 46: callers' threads and workers stand in the same line.
#[test]
fn no_more_states_are_read_at_once_than_may_be_and_all_are_in_the_end() {
    let _alone = ALONE.lock();
    let memory = Memory::new();
    asleep(&memory, 60);
    let runtime = limited(&memory, 4, 3);
    let held = HELD.write();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..20)
            .map(|number| {
                let slow = slow(&runtime, number);
                scope.spawn(move || slow.ask(Get).unwrap())
            })
            .collect();
        let tickets: Vec<_> = (10..60)
            .filter_map(|number| slow(&runtime, number).tell(Get).ok().map(|()| number))
            .collect();
        await_reading(3);
        drop(held);
        assert!(callers.into_iter().all(|caller| caller.join().unwrap() == 1));
        for number in tickets {
            assert_eq!(slow(&runtime, number).ask(Get).unwrap(), 1);
        }
    });
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
    assert_eq!(runtime.dead_letters(), 0);
}

/// Cases 48 and 29: hundreds of actors that are to be read do not keep the one worker that is left
/// from those in memory; and what they are sent meanwhile is handled after, in order.
#[test]
fn actors_in_memory_are_served_while_hundreds_wait_to_be_read() {
    let _alone = ALONE.lock();
    let memory = Memory::new();
    asleep(&memory, 300);
    let runtime = limited(&memory, 2, 1);
    let awake = list(&runtime, "awake");
    awake.ask(Add(1)).unwrap();
    let held = HELD.write();
    for number in 0..300 {
        slow(&runtime, number).tell(Add(1)).unwrap();
    }
    await_reading(1);
    for number in 0..100 {
        awake.tell(Add(number)).unwrap();
    }
    while awake.peek(|list| list.numbers.len()).unwrap().value < 101 {
        thread::yield_now();
    }
    let tickets: Vec<_> =
        (0..300).map(|number| slow(&runtime, number).cell().queued_marks().len()).collect();
    assert_eq!(tickets.iter().sum::<usize>(), 299, "one is being read, the others wait");
    drop(held);
    for number in 0..300 {
        assert_eq!(slow(&runtime, number).ask(Get).unwrap(), 2);
    }
    assert_eq!(runtime.dead_letters(), 0);
}

/// Threads that wait for their turn to read are let go by a close, and what is queued is settled.
#[test]
fn a_close_lets_those_go_that_wait_to_be_read() {
    let _alone = ALONE.lock();
    let memory = Memory::new();
    asleep(&memory, 10);
    let runtime = limited(&memory, 2, 1);
    let held = HELD.write();
    slow(&runtime, 0).tell(Get).unwrap();
    await_reading(1);
    thread::scope(|scope| {
        let slow = slow(&runtime, 1);
        let asker = scope.spawn(move || slow.ask(Get));
        for number in 2..10 {
            self::slow(&runtime, number).tell(Get).unwrap();
        }
        let report = runtime.close(Duration::ZERO);
        let reply = asker.join().unwrap();
        assert!(matches!(reply, Err(ActorError::Closed)), "{reply:?}");
        assert_eq!((report.dead_letters, report.threads_left), (8, 1));
        drop(held);
    });
}

/// A state and what it points to.
#[derive(Default)]
struct Heavy(Vec<u8>);
impl Actor for Heavy {
    type Event = u32;
    const KIND: &'static str = "heavy";
    fn apply(&mut self, event: &u32) {
        self.0 = vec![0; usize::try_from(*event).unwrap()];
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().durability(Durability::Process).weigh(|heavy| {
            assert_ne!(heavy.0.len(), 13, "a state that nobody can weigh");
            heavy.0.capacity()
        })
    }
}
impl Handle<Add> for Heavy {
    type Reply = ();
    fn handle(Add(bytes): Add, turn: &mut Turn<'_, Self>) {
        turn.emit(u32::try_from(bytes).unwrap());
    }
}

#[test]
fn above_the_cap_in_bytes_those_unused_for_longest_leave() {
    let (memory, clock) = (Memory::new(), ManualClock::at_millis(0));
    let options = RuntimeOptions { resident_bytes_max: 1 << 20, ..RuntimeOptions::default() };
    let runtime = with_clock(&memory, &clock, options);
    let heavy = |name: &str| runtime.actor::<Heavy>(name).unwrap();
    for name in ["a", "b", "c"] {
        heavy(name).ask(Add(300 << 10)).unwrap();
        clock.advance(Duration::from_secs(1));
        runtime.sweep();
    }
    assert_eq!(runtime.residents(), 3);
    let bytes = runtime.resident_bytes();
    assert!((900 << 10..910 << 10).contains(&bytes), "{bytes}");
    // It grows in memory: that counts as much as coming into it.
    heavy("b").ask(Add(500 << 10)).unwrap();
    while runtime.residents() > 2 {
        runtime.sweep();
        thread::yield_now();
    }
    assert_eq!(heavy("a").cell().used(), 0, "unused for longest");
    assert!(heavy("b").cell().used() > 0 && heavy("c").cell().used() > 0);
    heavy("b").ask(Add(1)).unwrap();
    heavy("c").ask(Add(13)).unwrap();
    assert!(runtime.resident_bytes() < 10 << 10, "what cannot be weighed counts little");
    heavy("b").passivate().unwrap();
    heavy("c").passivate().unwrap();
    assert_eq!(runtime.resident_bytes(), 0);
}

/// What few actors have costs the others a pointer, and limits that are not set a few bytes where
/// the layout has room for them. A million idle actors pay each byte of it a million times.
#[test]
fn a_cell_without_anything_aside_pays_a_pointer() {
    use crate::actor::aside::{Aside, Flags};
    assert_eq!(size_of::<Option<Box<Aside<List>>>>(), 8);
    assert_eq!(size_of::<Flags>(), 4);
    let cell = size_of::<crate::actor::cell::Cell<List>>();
    let body = size_of::<crate::actor::cell::Body<List>>();
    let state = size_of::<List>();
    assert!(cell <= body + 112, "{cell} bytes, {body} of them the body");
    assert!(body <= state + 56, "{body} bytes, {state} of them the state");
}
