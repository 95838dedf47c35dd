//! Messages, timers, steps, command ids and deferred turns, over lives that end well or not.

use super::*;
use crate::actor::ticket::Deadline;
use crate::actor::{
    CommandId, Decision, Durable, Missed, Outcome, Persistence, RecoveryPhase, Step, StepContext,
    StepPolicy, Stepped,
};
use crate::types::HybridTime;
use rkyv::{Archive, Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Writes down what it is told, and does whatever a test wants.
#[derive(Default, Debug)]
struct Diary {
    lines: Vec<String>,
}

impl Actor for Diary {
    type Event = String;
    const KIND: &'static str = "diary";

    fn apply(&mut self, event: &String) {
        self.lines.push(event.clone());
    }

    fn options() -> ActorOptions<Self> {
        ActorOptions::new()
            .command::<Write>()
            .command::<Fail>()
            .step::<Work>()
            .step::<Loose>()
            .commit_when(|_, event: &String| {
                if event.starts_with("now") { Decision::Commit } else { Decision::Inherit }
            })
    }
}

/// A durable command.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct Write(String);
impl Durable for Write {
    const NAME: &'static str = "write";
}
impl Handle<Write> for Diary {
    type Reply = u64;
    fn handle(Write(line): Write, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(line);
        turn.lines.len() as u64
    }
}

/// Panics so often as the switch says.
#[derive(Archive, Serialize, Deserialize)]
struct Fail(usize);
static FAILURES: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
impl Durable for Fail {
    const NAME: &'static str = "fail";
}
impl Handle<Fail> for Diary {
    type Reply = ();
    fn handle(Fail(switch): Fail, turn: &mut Turn<'_, Self>) {
        turn.emit("tried".to_owned());
        let left = FAILURES[switch]
            .try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "as the switch says");
        turn.emit("done".to_owned());
    }
}

/// A step that waits for its gate.
#[derive(Archive, Serialize, Deserialize)]
struct Work(u64);
static GATES: [AtomicBool; 8] = [const { AtomicBool::new(false) }; 8];
impl Durable for Work {
    const NAME: &'static str = "work";
}
impl Step for Work {
    type Output = u64;
    fn run(&self, context: &StepContext) -> u64 {
        assert_ne!(self.0, 99, "a step that panics");
        while !GATES[usize::try_from(self.0).unwrap()].load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        assert!(context.id().ends_with('1') || !context.key().is_empty());
        self.0 * 2
    }
}
impl Handle<Stepped<Work>> for Diary {
    type Reply = ();
    fn handle(stepped: Stepped<Work>, turn: &mut Turn<'_, Self>) {
        let line = match stepped.outcome {
            Outcome::Done(number) => format!("{} done {number}", stepped.key),
            Outcome::Panicked(_) => format!("{} panicked", stepped.key),
            Outcome::InDoubt => format!("{} in doubt {}", stepped.key, stepped.step.0),
        };
        turn.emit(line);
    }
}

/// A step of which nothing is committed before it has run.
#[derive(Archive, Serialize, Deserialize)]
struct Loose;
impl Durable for Loose {
    const NAME: &'static str = "loose";
}
impl Step for Loose {
    type Output = ();
    const POLICY: StepPolicy = StepPolicy::After;
    fn run(&self, _: &StepContext) {}
}
impl Handle<Stepped<Loose>> for Diary {
    type Reply = ();
    fn handle(_: Stepped<Loose>, turn: &mut Turn<'_, Self>) {
        turn.emit("loose".to_owned());
    }
}

impl<F, R> Handle<Do<F>> for Diary
where
    F: FnOnce(&mut Turn<'_, Self>) -> R + Send + 'static,
    R: Send + 'static,
{
    type Reply = R;
    fn handle(Do(run): Do<F>, turn: &mut Turn<'_, Self>) -> R {
        run(turn)
    }
}

fn options() -> RuntimeOptions {
    RuntimeOptions::default().actor::<Diary>()
}

fn diary(runtime: &Runtime, name: &str) -> Addr<Diary> {
    runtime.actor(name).unwrap()
}

fn lines(addr: &Addr<Diary>) -> Vec<String> {
    addr.ask(Do(|turn: &mut Turn<'_, Diary>| turn.lines.clone())).unwrap()
}

/// Waits until the diary holds so many lines.
fn wait_lines(addr: &Addr<Diary>, count: usize) -> Vec<String> {
    let deadline = Deadline::after(LONG);
    loop {
        let lines = lines(addr);
        if lines.len() >= count {
            return lines;
        }
        assert!(!deadline.is_over(), "only {lines:?}");
        std::thread::yield_now();
    }
}

fn send(to: &Addr<Diary>, from: &Addr<Diary>, line: &str) {
    let (to, line) = (to.clone(), Write(line.to_owned()));
    from.ask(Do(move |turn: &mut Turn<'_, Diary>| turn.send(&to, line).unwrap())).unwrap();
}

#[test]
fn a_sent_command_is_handled_once_and_is_owed_until_then() {
    let memory = Memory::new();
    let runtime = runtime_with(&memory, options());
    runtime.wait_recovered(LONG);
    let (a, b) = (diary(&runtime, "a"), diary(&runtime, "b"));
    let busy = Busy::keep(&list(&runtime, "other"));
    send(&b, &a, "hello");
    assert_eq!(wait_lines(&b, 1), ["hello"]);
    assert_eq!(runtime.owed(), 0);
    drop(busy);
}

/// The life ends at every moment of a conversation; what was sent is handled once all the same.
#[test]
fn whenever_the_power_goes_what_was_sent_is_handled_exactly_once() {
    let mut handled_before = 0;
    for cut in 0..24_u64 {
        let memory = Memory::new();
        memory.hold();
        let runtime =
            runtime_with(&memory, RuntimeOptions { durability: Durability::Process, ..options() });
        let (a, b) = (diary(&runtime, "a"), diary(&runtime, "b"));
        for number in 0..4 {
            send(&b, &a, &format!("m{number}"));
        }
        wait_lines(&b, 4);
        let frames = memory.frames();
        // Some of the frames are on the disk when the power goes.
        let ends = memory.frame_ends();
        let durable = usize::try_from(cut).unwrap().min(frames);
        if durable > 0 {
            memory.advance(ends[durable - 1]);
        }
        drop(runtime);
        memory.cut_power();
        let runtime = runtime_with(&memory, options());
        assert_eq!(runtime.wait_recovered(LONG).phase, RecoveryPhase::Done);
        let (a, b) = (diary(&runtime, "a"), diary(&runtime, "b"));
        let sent = a.ask(Do(|turn: &mut Turn<'_, Diary>| turn.seq().get())).unwrap();
        let found = wait_lines(&b, usize::try_from(sent).unwrap());
        let expected: Vec<_> = (0..sent).map(|number| format!("m{number}")).collect();
        assert_eq!(found, expected, "cut after {durable} frames");
        assert_eq!(runtime.owed(), 0);
        handled_before += sent;
    }
    assert!(handled_before > 24, "most lives had sent something");
}

#[test]
fn a_message_whose_handler_fails_is_tried_again_and_then_given_up() {
    let memory = Memory::new();
    let clock = ManualClock::at_millis(1_000);
    let letters = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&letters);
    let count = move |_: &super::super::DeadLetter| {
        counted.fetch_add(1, Ordering::SeqCst);
    };
    let options = RuntimeOptions { on_dead_letter: Some(Arc::new(count)), ..options() };
    let runtime = with_clock(&memory, &clock, options);
    runtime.wait_recovered(LONG);
    let (a, b) = (diary(&runtime, "a"), diary(&runtime, "b"));
    FAILURES[0].store(2, Ordering::SeqCst);
    let to = b.clone();
    a.ask(Do(move |turn: &mut Turn<'_, Diary>| turn.send(&to, Fail(0)).unwrap())).unwrap();
    // Each failure is followed by a pause.
    let deadline = Deadline::after(LONG);
    while runtime.owed() > 0 {
        clock.advance(Duration::from_mins(1));
        assert!(!deadline.is_over());
        std::thread::yield_now();
    }
    assert_eq!(lines(&b), ["tried", "done"], "failed turns leave nothing");
    assert_eq!(letters.load(Ordering::SeqCst), 0);

    FAILURES[1].store(usize::MAX, Ordering::SeqCst);
    let to = b.clone();
    a.ask(Do(move |turn: &mut Turn<'_, Diary>| turn.send(&to, Fail(1)).unwrap())).unwrap();
    while runtime.owed() > 0 {
        clock.advance(Duration::from_mins(1));
        assert!(!deadline.is_over());
        std::thread::yield_now();
    }
    assert_eq!(lines(&b).len(), 2);
    assert_eq!(letters.load(Ordering::SeqCst), 1, "that it was given up is told");
    assert_eq!(usize::MAX - FAILURES[1].load(Ordering::SeqCst), 5);
}

#[test]
fn a_turn_that_fails_sends_nothing_and_arms_nothing() {
    let memory = Memory::new();
    let runtime = runtime_with(&memory, options());
    runtime.wait_recovered(LONG);
    let (a, b) = (diary(&runtime, "a"), diary(&runtime, "b"));
    let to = b.clone();
    let failed = a.ask(Do(move |turn: &mut Turn<'_, Diary>| {
        turn.send(&to, Write("never".into())).unwrap();
        turn.wake_after("t", Duration::ZERO, &Write("never".into()));
        panic!("after all");
    }));
    assert!(matches!(failed, Err(ActorError::Panicked { .. })));
    assert_eq!((runtime.owed(), memory.frames()), (0, 0));
    assert!(lines(&b).is_empty());
}

/// In no kind's options.
#[derive(Archive, Serialize, Deserialize)]
struct Stranger;
impl Durable for Stranger {
    const NAME: &'static str = "stranger";
}
impl Handle<Stranger> for Diary {
    type Reply = ();
    fn handle(_: Stranger, _: &mut Turn<'_, Self>) {}
}

#[test]
fn a_command_that_no_option_names_cannot_be_sent() {
    let memory = Memory::new();
    let runtime = runtime_with(&memory, options());
    let (a, b) = (diary(&runtime, "a"), diary(&runtime, "b"));
    let failed = a.ask(Do(move |turn: &mut Turn<'_, Diary>| turn.send(&b, Stranger).is_ok()));
    assert!(matches!(failed, Err(ActorError::Panicked { message }) if message.contains("options")));
}

#[test]
fn a_timer_fires_when_its_time_has_come_also_in_a_later_life() {
    let memory = Memory::new();
    let clock = ManualClock::at_millis(10_000);
    let runtime = with_clock(&memory, &clock, options());
    runtime.wait_recovered(LONG);
    let a = diary(&runtime, "a");
    a.ask(Do(|turn: &mut Turn<'_, Diary>| {
        turn.wake_after("soon", Duration::from_secs(5), &Write("soon".into()));
        turn.wake_after("late", Duration::from_mins(1), &Write("late".into()));
        turn.wake_after("never", Duration::from_secs(1), &Write("never".into()));
        assert!(turn.cancel("never"));
        assert!(!turn.cancel("never"));
        turn.wake_after("soon", Duration::from_secs(6), &Write("replaced".into()));
    }))
    .unwrap();
    assert_eq!(runtime.owed(), 2);
    clock.advance(Duration::from_secs(5));
    assert!(lines(&a).is_empty());
    clock.advance(Duration::from_secs(1));
    assert_eq!(wait_lines(&a, 1), ["replaced"]);
    drop((a, runtime));

    // Overdue in a life that did not arm it.
    clock.advance(Duration::from_mins(2));
    let runtime = with_clock(&memory, &clock, options());
    let recovery = runtime.wait_recovered(LONG);
    assert_eq!((recovery.phase, recovery.interrupted), (RecoveryPhase::Done, 1));
    let a = diary(&runtime, "a");
    assert_eq!(wait_lines(&a, 2), ["replaced", "late"]);
    assert_eq!(runtime.owed(), 0);
    drop((a, runtime));
    let runtime = with_clock(&memory, &clock, options());
    assert_eq!(runtime.wait_recovered(LONG).interrupted, 0, "a timer fires once");
    assert_eq!(lines(&diary(&runtime, "a")).len(), 2);
}

#[test]
fn a_reminder_fires_on_its_grid_and_missed_periods_are_handled_as_asked() {
    for (missed, overdue) in [(Missed::FireOnce, 1), (Missed::FireEach, 5), (Missed::Skip, 0)] {
        let memory = Memory::new();
        let clock = ManualClock::at_millis(1_000_000);
        let runtime = with_clock(&memory, &clock, options());
        runtime.wait_recovered(LONG);
        let a = diary(&runtime, "a");
        let every = Duration::from_secs(10);
        a.ask(Do(move |turn: &mut Turn<'_, Diary>| {
            let first = HybridTime::from_millis(1_010_000);
            turn.remind("tick", (first, every), missed, &Write("tick".into()));
        }))
        .unwrap();
        clock.advance(every);
        assert_eq!(wait_lines(&a, 1).len(), 1);
        drop((a, runtime));
        // Due at 20, 30, 40, 50 and 60 s; it is 64 s now.
        clock.advance(Duration::from_secs(54));
        let runtime = with_clock(&memory, &clock, options());
        let a = diary(&runtime, "a");
        runtime.wait_recovered(LONG);
        let found = wait_lines(&a, 1 + overdue);
        let due = a.ask(Do(|turn: &mut Turn<'_, Diary>| turn.timer("tick").unwrap().millis()));
        let deadline = Deadline::after(LONG);
        while a.ask(Do(|turn: &mut Turn<'_, Diary>| turn.timer("tick").unwrap().millis())).unwrap()
            != 1_070_000
        {
            assert!(!deadline.is_over(), "due {due:?} with {missed:?}");
            std::thread::yield_now();
        }
        assert_eq!(lines(&a).len(), 1 + overdue, "{missed:?}: {found:?}");
        clock.advance(Duration::from_secs(6));
        assert_eq!(wait_lines(&a, 2 + overdue).len(), 2 + overdue, "{missed:?}");
        assert_eq!(runtime.owed(), 1, "it goes on");
        a.ask(Do(|turn: &mut Turn<'_, Diary>| turn.finish())).unwrap();
        assert_eq!(runtime.owed(), 0, "until the actor comes to its end");
    }
}

#[test]
fn a_step_brings_its_result_back_and_a_panic_too() {
    let memory = Memory::new();
    let runtime = runtime_with(&memory, options());
    runtime.wait_recovered(LONG);
    let a = diary(&runtime, "a");
    a.ask(Do(|turn: &mut Turn<'_, Diary>| turn.step("x", Work(3)))).unwrap();
    assert_eq!(runtime.owed(), 1);
    GATES[3].store(true, Ordering::SeqCst);
    assert_eq!(wait_lines(&a, 1), ["x done 6"]);
    a.ask(Do(|turn: &mut Turn<'_, Diary>| turn.step("y", Work(99)))).unwrap();
    assert_eq!(wait_lines(&a, 2), ["x done 6", "y panicked"]);
    assert_eq!(runtime.owed(), 0);
}

#[test]
fn a_step_waits_for_its_beginning_to_be_durable() {
    let memory = Memory::new();
    memory.hold();
    let runtime = runtime_with(&memory, options());
    let a = diary(&runtime, "a");
    GATES[4].store(true, Ordering::SeqCst);
    let ticket = a.post(Do(|turn: &mut Turn<'_, Diary>| turn.step("x", Work(4)))).unwrap();
    // A turn of another actor has been taken since, by a worker, and no result is there.
    list(&runtime, "other").tell(Add(1)).unwrap();
    while memory.frames() < 2 {
        std::thread::yield_now();
    }
    assert_eq!(a.peek(|diary| diary.lines.len()).unwrap().value, 0);
    memory.release();
    ticket.wait().unwrap();
    assert_eq!(wait_lines(&a, 1), ["x done 8"]);
}

#[test]
fn a_step_that_a_crash_interrupts_comes_back_in_doubt_and_not_twice() {
    let memory = Memory::new();
    let runtime = runtime_with(&memory, options());
    let a = diary(&runtime, "a");
    a.ask(Do(|turn: &mut Turn<'_, Diary>| turn.step("pay", Work(5)))).unwrap();
    // The process ends while it runs: a close that does not wait for it.
    let report = runtime.close(Duration::ZERO);
    assert_eq!(report.dead_letters, 0);
    let next = runtime_with(&memory, options());
    let recovery = next.wait_recovered(LONG);
    assert_eq!((recovery.interrupted, recovery.actors), (1, 1));
    let b = diary(&next, "a");
    assert_eq!(wait_lines(&b, 1), ["pay in doubt 5"]);
    GATES[5].store(true, Ordering::SeqCst);
    drop((b, next));
    let last = runtime_with(&memory, options());
    assert_eq!(last.wait_recovered(LONG).interrupted, 0);
    assert_eq!(lines(&diary(&last, "a")), ["pay in doubt 5"]);
}

#[test]
fn what_was_interrupted_waits_for_a_kind_that_is_not_known_yet() {
    let memory = Memory::new();
    let clock = ManualClock::at_millis(1_000);
    let runtime = with_clock(&memory, &clock, options());
    diary(&runtime, "a")
        .ask(Do(|turn: &mut Turn<'_, Diary>| {
            turn.wake_after("t", Duration::from_secs(1), &Write("late".into()));
        }))
        .unwrap();
    drop(runtime);
    clock.advance(Duration::from_secs(10));
    let runtime = with_clock(&memory, &clock, RuntimeOptions::default());
    let recovery = runtime.wait_recovered(LONG);
    assert_eq!((recovery.interrupted, recovery.unknown), (1, 1));
    assert_eq!(wait_lines(&diary(&runtime, "a"), 1), ["late"]);
}

#[test]
fn who_ends_the_process_again_and_again_is_set_aside_and_can_be_released() {
    let memory = Memory::new();
    let clock = ManualClock::at_millis(1_000);
    let begin = || with_clock(&memory, &clock, options());
    let runtime = begin();
    for name in ["innocent", "guilty"] {
        diary(&runtime, name)
            .ask(Do(|turn: &mut Turn<'_, Diary>| turn.step("s", Work(6))))
            .unwrap();
    }
    runtime.close(Duration::ZERO);
    // Every life ends before anybody has had a turn: as a process does that is killed by what it
    // takes up.
    memory.fail_reads(None);
    let mut quarantined = Vec::new();
    for life in 1..=5 {
        memory.fail_appends_after(1);
        let runtime = begin();
        let recovery = loop {
            let recovery = runtime.recovery();
            if recovery.phase == RecoveryPhase::Done || recovery.resumed > 0 {
                break recovery;
            }
            std::thread::yield_now();
        };
        runtime.close(Duration::ZERO);
        memory.fail_appends(None);
        quarantined = recovery.quarantined;
        if life <= 3 {
            assert!(quarantined.is_empty(), "life {life}");
        }
    }
    assert!(!quarantined.is_empty(), "after some lives nobody tries it any more");
    let runtime = begin();
    let recovery = runtime.wait_recovered(LONG);
    for oid in recovery.quarantined {
        assert!(runtime.release(oid).unwrap());
        assert!(!runtime.release(oid).unwrap(), "once is enough");
    }
    for name in ["innocent", "guilty"] {
        assert_eq!(wait_lines(&diary(&runtime, name), 1), ["s in doubt 6"]);
    }
    GATES[6].store(true, Ordering::SeqCst);
}

/// Cases 79 and 82.
#[test]
fn a_command_with_an_id_is_handled_once_and_its_first_answer_is_given_again() {
    let memory = Memory::new();
    let runtime = runtime_with(&memory, options());
    let a = diary(&runtime, "a");
    let (first, second) = (CommandId::of("first"), CommandId::of("second"));
    assert_eq!(a.ask_once(first, Write("one".into())).unwrap(), 1);
    assert_eq!(a.ask_once(second, Write("two".into())).unwrap(), 2);
    assert_eq!(a.ask_once(first, Write("another".into())).unwrap(), 1);
    assert_eq!(a.post_once(second, Write("another".into())).unwrap().wait().unwrap(), 2);
    assert_eq!(lines(&a), ["one", "two"]);
    drop((a, runtime));
    let runtime = runtime_with(&memory, options());
    let a = diary(&runtime, "a");
    assert_eq!(a.ask_once(first, Write("another".into())).unwrap(), 1, "in a later life too");
    assert_eq!(lines(&a), ["one", "two"]);
}

#[test]
fn deferred_turns_are_appended_together_at_a_barrier_and_lost_together_without() {
    let memory = Memory::new();
    let runtime =
        runtime_with(&memory, RuntimeOptions { persistence: Persistence::Deferred, ..options() });
    let a = diary(&runtime, "a");
    for number in 0..5 {
        a.tell(Write(format!("l{number}"))).unwrap();
    }
    while a.peek(|diary| diary.lines.len()).unwrap().value < 5 {
        std::thread::yield_now();
    }
    assert_eq!(memory.frames(), 0);
    assert!(!a.peek(|_| ()).unwrap().durable);
    // A reply is a barrier, also one that only reads.
    assert_eq!(lines(&a).len(), 5);
    assert_eq!(memory.frames(), 1, "one frame for all");
    for line in ["a", "now b", "c"] {
        a.tell(Write(line.into())).unwrap();
    }
    while a.peek(|diary| diary.lines.len()).unwrap().value < 8 {
        std::thread::yield_now();
    }
    assert_eq!(memory.frames(), 2, "an event that must be committed takes along what is before it");
    // A panic does not take with it what was handled before.
    let panicked = a.ask(Do(|turn: &mut Turn<'_, Diary>| {
        turn.emit("gone".into());
        panic!("now");
    }));
    assert!(matches!(panicked, Err(ActorError::Panicked { .. })));
    assert_eq!(memory.frames(), 3);
    assert_eq!(lines(&a).len(), 8);
    a.tell(Write("kept by passivation".into())).unwrap();
    while a.peek(|diary| diary.lines.len()).unwrap().value < 9 {
        std::thread::yield_now();
    }
    a.passivate().unwrap();
    assert_eq!(memory.frames(), 4);
    a.tell(Write("kept by close".into())).unwrap();
    runtime.close(LONG);
    assert_eq!(memory.frames(), 5);
    let runtime = runtime_with(&memory, options());
    assert_eq!(lines(&diary(&runtime, "a")).len(), 10);
}

#[test]
fn each_policy_appends_when_it_says() {
    let memory = Memory::new();
    let clock = ManualClock::at_millis(1_000);
    let runtime = with_clock(&memory, &clock, options());
    let a = diary(&runtime, "a");
    let set = |policy| {
        a.ask(Do(move |turn: &mut Turn<'_, Diary>| turn.persistence(policy))).unwrap();
        memory.frames()
    };
    let tell = |count: usize| {
        let before = a.peek(|diary| diary.lines.len()).unwrap().value;
        (0..count).for_each(|_| a.tell(Write("x".into())).unwrap());
        while a.peek(|diary| diary.lines.len()).unwrap().value < before + count {
            std::thread::yield_now();
        }
        memory.frames()
    };
    let frames = set(Persistence::Every(3));
    assert_eq!(tell(2), frames);
    assert_eq!(tell(1), frames + 1);
    assert_eq!(tell(4), frames + 2);
    let frames = set(Persistence::Interval(Duration::from_secs(5)));
    assert_eq!(tell(3), frames);
    clock.advance(Duration::from_secs(4));
    assert_eq!(tell(1), frames);
    clock.advance(Duration::from_secs(1));
    while memory.frames() == frames {
        std::thread::yield_now();
    }
    assert_eq!(memory.frames(), frames + 1);
    let frames = set(Persistence::EachTurn);
    assert_eq!(tell(2), frames + 2);
    set(Persistence::Deferred);
    drop((a, runtime));
    // What an actor was told stays with it.
    let runtime = with_clock(&memory, &clock, options());
    let a = diary(&runtime, "a");
    let frames = memory.frames();
    a.tell(Write("x".into())).unwrap();
    while a.peek(|diary| diary.lines.len()).unwrap().value < 11 {
        std::thread::yield_now();
    }
    assert_eq!(memory.frames(), frames);
}

#[test]
fn what_runs_after_a_turn_runs_when_it_is_durable_and_not_if_it_fails() {
    let memory = Memory::new();
    memory.hold();
    let runtime = runtime_with(&memory, options());
    let a = diary(&runtime, "a");
    let (said, heard) = bounded(2);
    let say = said.clone();
    let ticket = a
        .post(Do(move |turn: &mut Turn<'_, Diary>| {
            turn.emit("x".into());
            turn.after(move || say.send(1).unwrap());
        }))
        .unwrap();
    let failed = a.post(Do(move |turn: &mut Turn<'_, Diary>| {
        turn.after(move || said.send(2).unwrap());
        panic!("so not");
    }));
    assert!(heard.try_recv().is_err());
    memory.release();
    ticket.wait().unwrap();
    assert_eq!(heard.recv_timeout(LONG), Ok(1));
    assert!(failed.unwrap().wait().is_err());
    assert!(heard.recv().is_err(), "the sender is gone without a word");
}

#[test]
fn a_snapshot_holds_what_its_actor_owes() {
    #[derive(Default, Archive, Serialize, Deserialize)]
    struct Clockwork {
        ticks: u64,
    }
    impl Actor for Clockwork {
        type Event = u64;
        const KIND: &'static str = "clockwork";
        fn apply(&mut self, event: &u64) {
            self.ticks += event;
        }
        fn options() -> ActorOptions<Self> {
            ActorOptions::new()
                .command::<Write>()
                .snapshots(1, super::super::SnapshotPolicy::manual())
        }
    }
    impl Handle<Write> for Clockwork {
        type Reply = u64;
        fn handle(Write(line): Write, turn: &mut Turn<'_, Self>) -> u64 {
            turn.emit(1);
            if line == "arm" {
                turn.wake_after("t", Duration::from_secs(9), &Write("tick".into()));
                turn.snapshot();
            }
            turn.ticks
        }
    }
    let memory = Memory::new();
    let clock = ManualClock::at_millis(1_000);
    let begin = || with_clock(&memory, &clock, RuntimeOptions::default().actor::<Clockwork>());
    let runtime = begin();
    let a = runtime.actor::<Clockwork>("a").unwrap();
    let id = CommandId::of("armed");
    a.ask_once(id, Write("arm".into())).unwrap();
    while memory.snapshots(a.id()).is_empty() {
        std::thread::yield_now();
    }
    drop((a, runtime));
    let runtime = begin();
    let a = runtime.actor::<Clockwork>("a").unwrap();
    assert_eq!(a.ask_once(id, Write("arm".into())).unwrap(), 1, "from the snapshot");
    clock.advance(Duration::from_secs(10));
    while a.peek(|it| it.ticks).unwrap().value < 2 {
        std::thread::yield_now();
    }
}

/// The first message of a life meets a handler that fails before what earlier lives have left is
/// read: what was to be tried again was forgotten, since the book did not have it yet.
#[test]
fn what_is_to_be_tried_again_is_not_forgotten_while_the_book_is_being_read() {
    let memory = Memory::new();
    let clock = ManualClock::at_millis(1_000);
    let events: Arc<dyn crate::actor::provider::EventStore> = Arc::<Memory>::clone(&memory);
    let ledger = crate::actor::ledger::Ledger::new(&events);
    let oid = crate::actor::Oid { stream: crate::types::StreamId::of("diary", "a"), number: 1 };
    ledger.again(oid, 1_500);
    let mut desk = crate::actor::desk::Desk::take();
    let packed = crate::actor::note::Packed { name: "write", version: 1, archive: b"" };
    let sent =
        crate::actor::note::Note::Sent { number: 1, kind: "diary", name: "b", command: packed };
    desk.batch.push(crate::log::frame::RecordKind::Turn, 1, &[]).unwrap();
    desk.note(&sent).unwrap();
    let first = crate::types::Seq::new(1).unwrap();
    ledger.append(&*events, &mut desk, oid.stream, first).unwrap();
    clock.advance(Duration::from_secs(1));
    assert!(ledger.install(crate::actor::book::Book::default(), 2_000).is_empty());
    let due = ledger.wait(&Clock::Manual(clock));
    assert!(matches!(due, crate::actor::ledger::Due::Alarms(due) if due[0].0 == oid));
}
