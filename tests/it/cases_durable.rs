//! Cases 59, 79, 82, 102, 156 to 158: what outlives a crash besides events.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use annals::actor::memory::Memory;
use annals::actor::{CommandId, Durable, Runtime};
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::testkit::{Kit, Machine, every_crash};
use annals::time::{Clock, ManualClock};
use annals::{Actor, ActorOptions, Addr, Handle, RuntimeOptions, Store, Turn};

use crate::cases::LONG;

/// Numbers; and it sends, is woken, and fails when told.
#[derive(Default, Debug, PartialEq)]
struct Post {
    numbers: Vec<u64>,
}

impl Actor for Post {
    type Event = u64;
    const KIND: &'static str = "post";
    fn apply(&mut self, event: &u64) {
        self.numbers.push(*event);
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().command::<Take>().command::<Fail>()
    }
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Take(u64);
impl Durable for Take {
    const NAME: &'static str = "take";
}
impl Handle<Take> for Post {
    type Reply = u64;
    fn handle(Take(number): Take, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(number);
        turn.numbers.len() as u64
    }
}

/// Never succeeds.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Fail(u64);
impl Durable for Fail {
    const NAME: &'static str = "fail";
}
impl Handle<Fail> for Post {
    type Reply = ();
    fn handle(_: Fail, turn: &mut Turn<'_, Self>) {
        turn.emit(0);
        panic!("on purpose");
    }
}

/// Notes a number and sends it on.
struct SendOn(u64);
impl Handle<SendOn> for Post {
    type Reply = u64;
    fn handle(SendOn(number): SendOn, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(number);
        let to = turn.actor::<Self>("to").unwrap();
        assert!(turn.send(&to, Take(number)).is_ok());
        turn.numbers.len() as u64
    }
}

struct Get;
impl Handle<Get> for Post {
    type Reply = Vec<u64>;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Vec<u64> {
        turn.numbers.clone()
    }
}

struct Do<F>(F);
impl<F, R> Handle<Do<F>> for Post
where
    F: FnOnce(&mut Turn<'_, Self>) -> R + Send + 'static,
    R: Send + 'static,
{
    type Reply = R;
    fn handle(Do(act): Do<F>, turn: &mut Turn<'_, Self>) -> R {
        act(turn)
    }
}

fn options() -> RuntimeOptions {
    let workers = std::num::NonZeroUsize::MIN;
    RuntimeOptions { workers, ..RuntimeOptions::default() }.actor::<Post>()
}

fn runtime(memory: &Arc<Memory>, clock: &Arc<ManualClock>) -> Runtime {
    let (events, snapshots) = (Arc::clone(memory), Arc::clone(memory));
    Runtime::start(events, snapshots, Clock::Manual(Arc::clone(clock)), options()).unwrap()
}

fn post(runtime: &Runtime, name: &str) -> Addr<Post> {
    runtime.actor(name).unwrap()
}

/// Waits for a condition that must come true.
fn until(mut holds: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a bound on a wait, in real time")]
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "it does not come true");
        std::thread::yield_now();
    }
}

fn open(machine: &Machine) -> Result<Store, annals::Error> {
    machine.open_with(machine.options().runtime(options()))
}

/// Cases 79, 82: a command with an id is handled once, however often it comes and whatever ended
/// the lives between; each time it is given the same answer.
#[test]
fn a_command_with_an_id_is_handled_once_and_answered_the_same_each_time() {
    let id = |number: u64| CommandId::of(&format!("command {number}"));
    let crashes = every_crash(
        4,
        |machine, answered: &mut Vec<u64>| {
            let Ok(store) = open(machine) else { return };
            let Ok(list) = store.actor::<Post>("a") else { return };
            // Each number twice, as from somebody who did not hear the first answer.
            for number in [0, 0, 1, 1] {
                let Some(answer) = machine.heard(list.ask_once(id(number), Take(number))) else {
                    return;
                };
                assert_eq!(answer, number + 1);
                answered.push(answer);
            }
        },
        |machine, _, _| {
            let store = open(machine).unwrap();
            let list = store.actor::<Post>("a").unwrap();
            for number in [0, 1, 2, 1, 0] {
                assert_eq!(list.ask_once(id(number), Take(number)).unwrap(), number + 1);
            }
            assert_eq!(list.ask(Get).unwrap(), [0, 1, 2]);
        },
    );
    assert!(crashes.points > 15, "{crashes:?}");
}

/// Cases 156, 157: what was sent for good arrives once and in order, whatever crash comes
/// between; and
/// nothing arrives that was not sent.
#[test]
fn a_message_sent_for_good_is_handled_once_whatever_crash_comes_between() {
    let crashes = every_crash(
        6,
        |machine, sent: &mut u64| {
            let Ok(store) = open(machine) else { return };
            let Ok(from) = store.actor::<Post>("from") else { return };
            for number in 1..=2 {
                let Some(count) = machine.heard(from.ask(SendOn(number))) else { return };
                *sent = count;
            }
        },
        |machine, _, sent| {
            let store = open(machine).unwrap();
            let recovery = store.runtime().wait_recovered(LONG);
            assert!(recovery.quarantined.is_empty(), "{recovery:?}");
            until(|| store.runtime().owed() == 0);
            let numbers = |name| store.actor::<Post>(name).unwrap().ask(Get).unwrap();
            assert!(numbers("from").len() as u64 >= *sent);
            assert_eq!(numbers("to"), numbers("from"));
        },
    );
    assert!(crashes.points > 15, "{crashes:?}");
}

/// Case 158: what fails is tried again, so often and no more; then it is a dead letter, and what
/// comes
/// after it is handled.
#[test]
fn a_message_that_always_fails_is_tried_so_often_and_then_a_dead_letter() {
    let (tell, told) = mpsc::channel();
    let letters = Arc::new(move |letter: &annals::actor::DeadLetter| {
        tell.send(letter.command).unwrap();
    });
    let clock = ManualClock::at_millis(1_000_000);
    let memory = Memory::with_clock(Clock::Manual(Arc::clone(&clock)));
    let (events, snapshots) = (Arc::clone(&memory), Arc::clone(&memory));
    let given = RuntimeOptions { attempts_max: 3, on_dead_letter: Some(letters), ..options() };
    let runtime =
        Runtime::start(events, snapshots, Clock::Manual(Arc::clone(&clock)), given).unwrap();
    let target = post(&runtime, "to");
    let sent = post(&runtime, "from").ask(Do(move |turn: &mut Turn<'_, Post>| {
        turn.send(&target, Fail(1)).is_ok() && turn.send(&target, Take(2)).is_ok()
    }));
    assert!(sent.unwrap());
    let mut letter = None;
    until(|| {
        clock.advance(Duration::from_secs(1));
        letter = letter.or(told.try_recv().ok());
        letter.is_some()
    });
    assert!(letter.unwrap().ends_with("Fail"), "{letter:?}");
    until(|| runtime.owed() == 0);
    assert_eq!(post(&runtime, "to").ask(Get).unwrap(), [2]);
    assert_eq!(runtime.dead_letters(), 1);
}

/// Case 102: a timer that comes due while its actor is busy, or while nobody is there, is handled
/// after, and once.
#[test]
fn a_timer_that_is_due_while_its_actor_is_busy_or_away_is_handled_after_and_once() {
    let clock = ManualClock::at_millis(1_000_000);
    let memory = Memory::with_clock(Clock::Manual(Arc::clone(&clock)));
    let first = runtime(&memory, &clock);
    let minute = Duration::from_mins(1);
    post(&first, "a")
        .ask(Do(move |turn: &mut Turn<'_, Post>| {
            turn.wake_after("soon", minute, &Take(1));
            turn.wake_after("later", 2 * minute, &Take(2));
            turn.wake_after("never", minute, &Take(9));
            turn.wake_after("replaced", minute, &Take(9));
        }))
        .unwrap();
    post(&first, "a")
        .ask(Do(move |turn: &mut Turn<'_, Post>| {
            assert!(turn.cancel("never"));
            assert!(!turn.cancel("unknown"));
            turn.wake_after("replaced", 3 * minute, &Take(3));
        }))
        .unwrap();
    // Due while a turn is under way.
    let moved = Arc::clone(&clock);
    post(&first, "a")
        .ask(Do(move |turn: &mut Turn<'_, Post>| {
            moved.advance(minute);
            turn.emit(0);
        }))
        .unwrap();
    until(|| post(&first, "a").ask(Get).unwrap().len() == 2);
    assert_eq!(post(&first, "a").ask(Get).unwrap(), [0, 1]);
    assert_eq!(first.owed(), 2);
    drop(first);
    // Due while there is no process.
    clock.advance(minute);
    let second = runtime(&memory, &clock);
    until(|| post(&second, "a").ask(Get).unwrap() == [0, 1, 2]);
    clock.advance(10 * minute);
    until(|| post(&second, "a").ask(Get).unwrap() == [0, 1, 2, 3]);
    assert_eq!(second.owed(), 0);
    clock.advance(10 * minute);
    drop(second);
    let third = runtime(&memory, &clock);
    let _recovery = third.wait_recovered(LONG);
    assert_eq!(post(&third, "a").ask(Get).unwrap(), [0, 1, 2, 3]);
}

/// Cases 59, 60, 61: what is to run after the turn runs once, in order, when the turn is stored;
/// with
/// events or without, and never after a turn that failed.
#[test]
fn what_is_to_run_after_a_turn_runs_once_and_in_order_when_it_is_stored() {
    let clock = ManualClock::at_millis(1_000_000);
    let memory = Memory::with_clock(Clock::Manual(Arc::clone(&clock)));
    let runtime = runtime(&memory, &clock);
    let (tell, told) = mpsc::channel();
    let turn = |numbers: Vec<u64>, fails: bool| {
        let tell = tell.clone();
        Do(move |turn: &mut Turn<'_, Post>| {
            for number in numbers {
                if number > 10 {
                    turn.emit(number);
                }
                let tell = tell.clone();
                turn.after(move || tell.send(number).unwrap());
            }
            assert!(!fails, "on purpose");
        })
    };
    let a = post(&runtime, "a");
    assert!(a.ask(turn(vec![90, 91], true)).is_err());
    memory.hold();
    let ticket = a.post(turn(vec![11, 12, 3], false)).unwrap();
    assert!(told.try_recv().is_err(), "not stored yet");
    memory.release();
    ticket.wait().unwrap();
    let ran: Vec<u64> = (0..3).map(|_| told.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(ran, [11, 12, 3]);
    // Nothing to store: it runs all the same.
    a.ask(turn(vec![1, 2], false)).unwrap();
    let ran: Vec<u64> = (0..2).map(|_| told.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(ran, [1, 2]);
    assert!(told.try_recv().is_err());
}

/// A kit moves its clock, and what it armed rings.
#[test]
fn a_timer_rings_in_a_kit_when_its_clock_is_moved() {
    let hour = Duration::from_hours(1);
    let then = Kit::<Post>::given([1]).when(Do(move |turn: &mut Turn<'_, Post>| {
        turn.wake_after("alarm", hour, &Take(7));
    }));
    assert!(then.events().is_empty());
    then.kit().clock().advance(hour);
    until(|| then.events() == [7]);
    then.when(Get).expect_reply(vec![1, 7]);
}
