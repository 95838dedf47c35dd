//! Going back, against a model that knows nothing of stretches.

use rkyv::{Archive, Deserialize, Serialize};

use super::*;
use crate::actor::past::{At, Happened, Past, Span};
use crate::actor::{SnapshotPolicy, StopReason};
use crate::error::ReadError;
use crate::types::Seq;

/// All events that count, in order.
#[derive(Default, Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
struct Tape(Vec<u64>);

impl Actor for Tape {
    type Event = u64;
    const KIND: &'static str = "tape";
    fn apply(&mut self, event: &u64) {
        assert_ne!(*event, BAD, "an event that cannot be applied");
        self.0.push(*event);
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::manual())
    }
}

impl<F, R> Handle<Do<F>> for Tape
where
    F: FnOnce(&mut Turn<'_, Self>) -> R + Send + 'static,
    R: Send + 'static,
{
    type Reply = R;
    fn handle(Do(run): Do<F>, turn: &mut Turn<'_, Self>) -> R {
        run(turn)
    }
}

fn seq(number: usize) -> Seq {
    Seq::new(number as u64).unwrap()
}

/// What has happened, and what the state was after each.
#[derive(Default)]
struct Model {
    happened: Vec<Happened<u64>>,
}

impl Model {
    /// As it is defined: of the last rewind, the state it went to, and the events behind it.
    fn state(&self, at: usize) -> Vec<u64> {
        let Some(last) = at.checked_sub(1) else { return Vec::new() };
        match &self.happened[last] {
            Happened::Rewound { to } => self.state(usize::try_from(to.get()).unwrap()),
            Happened::Event(event) => {
                let mut state = self.state(last);
                state.push(*event);
                state
            }
        }
    }

    fn len(&self) -> usize {
        self.happened.len()
    }
}

/// Numbers that look random, the same for a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

fn state_at(runtime: &Runtime, at: usize) -> Vec<u64> {
    let (state, found) = runtime.state_at::<Tape>("a", At::Seq(seq(at))).unwrap();
    assert_eq!(found, seq(at));
    state.0
}

fn history(runtime: &Runtime, span: Span) -> Vec<Past<u64>> {
    let mut history = Vec::new();
    let visited = runtime.visit_history::<Tape>("a", span, &mut |past| {
        history.push(past);
        std::ops::ControlFlow::Continue(())
    });
    visited.unwrap();
    history
}

/// Some events, or a rewind and some events, as one turn.
fn random_turn(tape: &Addr<Tape>, model: &mut Model, random: &mut Random) {
    let mut emitted = Vec::new();
    let mut back = None;
    if model.len() > 0 && random.below(3) == 0 {
        // Near and far.
        let depth = if random.below(2) == 0 { 4 } else { model.len() };
        let to = model.len() - random.below(depth.min(model.len()) + 1);
        model.happened.push(Happened::Rewound { to: seq(to) });
        back = Some(seq(to));
    }
    let least = usize::from(back.is_none());
    for _ in 0..least + random.below(3) {
        let event = model.len() as u64 + 1000;
        model.happened.push(Happened::Event(event));
        emitted.push(event);
    }
    let save = random.below(5) == 0;
    let turn = move |turn: &mut Turn<'_, Tape>| {
        if let Some(to) = back {
            turn.rewind(to).unwrap();
        }
        for event in emitted {
            turn.emit(event);
        }
        if save {
            turn.snapshot();
        }
        turn.seq()
    };
    assert_eq!(tape.ask(Do(turn)).unwrap(), seq(model.len()));
}

/// Random turns with snapshots in random places; each state that ever was is asked for, live and
/// loaded again, with the snapshots and without.
#[test]
fn random_rewinds_lead_where_the_definition_says() {
    for start in 1..=60 {
        let seed = start * 0x9e37_79b9;
        let mut random = Random(seed);
        let memory = Memory::new();
        let mut model = Model::default();
        let one = RuntimeOptions { workers: 1.try_into().unwrap(), ..Default::default() };
        let runtime = runtime_with(&memory, one);
        let tape = runtime.actor::<Tape>("a").unwrap();
        for turn in 0..40 {
            random_turn(&tape, &mut model, &mut random);
            let live = tape.peek(Tape::clone).unwrap().value.0;
            assert_eq!(live, model.state(model.len()), "seed {seed}, live, turn {turn}");
            if random.below(4) == 0 {
                drop(Busy::keep(&list(&runtime, "settle")));
                tape.passivate().unwrap();
                let loaded = tape.peek(Tape::clone).unwrap().value.0;
                assert_eq!(loaded, model.state(model.len()), "seed {seed}, loaded, turn {turn}");
            }
        }
        for at in 0..=model.len() {
            assert_eq!(state_at(&runtime, at), model.state(at), "seed {seed}, state at {at}");
        }
        let happened: Vec<_> =
            history(&runtime, Span::all()).into_iter().map(|past| past.what).collect();
        assert_eq!(happened, model.happened, "seed {seed}");
        memory.forget_snapshots();
        for at in 0..=model.len() {
            assert_eq!(state_at(&runtime, at), model.state(at), "seed {seed}, bare, at {at}");
        }
    }
}

/// One snapshot, at each place in turn: none is in the way, wherever it lies.
#[test]
fn a_snapshot_in_any_place_among_rewinds_changes_nothing() {
    let build = |save_at: Option<usize>| {
        let memory = Memory::new();
        let one = RuntimeOptions { workers: 1.try_into().unwrap(), ..Default::default() };
        let runtime = runtime_with(&memory, one);
        let tape = runtime.actor::<Tape>("a").unwrap();
        let steps: [Option<u64>; 16] = [
            None,
            None,
            None,
            None,
            None,
            Some(3),
            None,
            None,
            Some(7),
            None,
            Some(5),
            None,
            Some(9),
            Some(0),
            None,
            Some(12),
        ];
        let mut model = Model::default();
        for (number, step) in (1..).zip(steps) {
            let save = save_at == Some(number);
            model.happened.push(match step {
                Some(to) => Happened::Rewound { to: Seq::new(to).unwrap() },
                None => Happened::Event(number as u64),
            });
            let turn = move |turn: &mut Turn<'_, Tape>| {
                match step {
                    Some(to) => turn.rewind(Seq::new(to).unwrap()).unwrap(),
                    None => turn.emit(number as u64),
                }
                if save {
                    turn.snapshot();
                }
            };
            tape.ask(Do(turn)).unwrap();
        }
        drop(Busy::keep(&list(&runtime, "settle")));
        tape.passivate().unwrap();
        assert_eq!(tape.peek(Tape::clone).unwrap().value.0, model.state(16), "{save_at:?}");
        for at in 0..=16 {
            assert_eq!(state_at(&runtime, at), model.state(at), "{save_at:?}, at {at}");
        }
    };
    build(None);
    (1..=16).for_each(|at| build(Some(at)));
}

#[test]
fn an_undo_can_be_undone_and_both_stand_in_the_history() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let tape = runtime.actor::<Tape>("a").unwrap();
    let go =
        |to: usize| tape.ask(Do(move |turn: &mut Turn<'_, Tape>| turn.rewind(seq(to)))).unwrap();
    for event in [1, 2, 3] {
        tape.ask(Do(move |turn: &mut Turn<'_, Tape>| turn.emit(event))).unwrap();
    }
    go(1).unwrap();
    assert_eq!(tape.peek(Tape::clone).unwrap().value.0, [1]);
    go(3).unwrap(); // before the first rewind
    assert_eq!(tape.peek(Tape::clone).unwrap().value.0, [1, 2, 3]);
    let back: Vec<_> =
        history(&runtime, seq(3).into()).into_iter().map(|past| (past.seq, past.what)).collect();
    let rewound = |to| Happened::Rewound { to: seq(to) };
    assert_eq!(back, [(seq(4), rewound(1)), (seq(5), rewound(3))]);
}

#[test]
fn a_rewind_that_is_refused_changes_nothing_and_the_turn_goes_on() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let tape = runtime.actor::<Tape>("a").unwrap();
    // Nothing has happened yet: it is there.
    tape.ask(Do(|turn: &mut Turn<'_, Tape>| turn.rewind(Seq::ZERO).unwrap())).unwrap();
    assert_eq!(memory.frames(), 0);
    for event in [1, 2] {
        tape.ask(Do(move |turn: &mut Turn<'_, Tape>| turn.emit(event))).unwrap();
    }
    let refused = tape.ask(Do(|turn: &mut Turn<'_, Tape>| {
        let ahead = turn.rewind(seq(3));
        turn.emit(3);
        (ahead, turn.rewind(seq(1)), turn.0.clone())
    }));
    let (ahead, late, state) = refused.unwrap();
    assert!(matches!(ahead, Err(ActorError::NoEvent { .. })), "{ahead:?}");
    assert!(matches!(late, Err(ActorError::RewindNotFirst)), "{late:?}");
    assert_eq!(state, [1, 2, 3]);
    memory.fail_reads(Some(ReadError::PositionLost { lsn: 0, lost: 0..0 }));
    let unread = tape.ask(Do(|turn: &mut Turn<'_, Tape>| turn.rewind(seq(1)))).unwrap();
    assert!(matches!(unread, Err(ActorError::Read(_))), "{unread:?}");
    memory.fail_reads(None);
    assert_eq!(tape.peek(Tape::clone).unwrap().value.0, [1, 2, 3]);
    assert_eq!(history(&runtime, Span::all()).len(), 3);
}

#[test]
fn a_turn_that_fails_after_its_rewind_has_not_gone_back() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let tape = runtime.actor::<Tape>("a").unwrap();
    for event in [1, 2] {
        tape.ask(Do(move |turn: &mut Turn<'_, Tape>| turn.emit(event))).unwrap();
    }
    let failed = tape.ask(Do(|turn: &mut Turn<'_, Tape>| {
        turn.rewind(seq(1)).unwrap();
        turn.emit(BAD);
    }));
    assert!(matches!(failed, Err(ActorError::Panicked { .. })), "{failed:?}");
    assert_eq!(tape.peek(Tape::clone).unwrap().value.0, [1, 2]);
    assert_eq!(memory.frames(), 2);
}

/// What went wrong and was gone back behind does not stop the actor. (An event that cannot be
/// applied is refused when it is emitted; here it is one that this build cannot apply any more.)
#[test]
fn an_event_that_does_not_count_need_not_be_applied() {
    let memory = Memory::new();
    let first = runtime(&memory);
    let list = list(&first, "a");
    for event in [1, 2] {
        list.ask(Add(event)).unwrap();
    }
    list.ask(Do(|turn: &mut Turn<'_, List>| turn.rewind(seq(1)).unwrap())).unwrap();
    drop((list, first));
    later_build::check(&memory);
}

mod later_build {
    use super::*;

    /// A later build of `List` that cannot apply 2.
    #[derive(Default)]
    struct NoTwo(Vec<u64>);
    impl Actor for NoTwo {
        type Event = u64;
        const KIND: &'static str = "list";
        fn apply(&mut self, event: &u64) {
            assert_ne!(*event, 2);
            self.0.push(*event);
        }
    }

    pub(super) fn check(memory: &Arc<Memory>) {
        let runtime = runtime(memory);
        let list = runtime.actor::<NoTwo>("a").unwrap();
        assert_eq!(list.peek(|list| list.0.clone()).unwrap().value, [1]);
        let at_two = runtime.state_at::<NoTwo>("a", At::Seq(seq(2))).map(|(_, seq)| seq);
        let Err(ActorError::Stopped(stopped)) = at_two else { panic!("{at_two:?}") };
        assert!(matches!(stopped.why, StopReason::Panicked(_)), "{stopped}");
    }
}

/// Thousands of times back and forth: each event is read a few times, not once for each rewind.
#[test]
fn many_nested_rewinds_are_loaded_in_one_go() {
    let memory = Memory::new();
    let runtime = runtime(&memory);
    let tape = runtime.actor::<Tape>("a").unwrap();
    tape.ask(Do(|turn: &mut Turn<'_, Tape>| turn.emit(0))).unwrap();
    for round in 1..=2_000 {
        // Half of them one step back, which leads ever deeper.
        let turn = move |turn: &mut Turn<'_, Tape>| {
            if round % 2 == 0 {
                let to = turn.seq().get().saturating_sub(1);
                turn.rewind(Seq::new(to).unwrap()).unwrap();
            }
            turn.emit(round);
            if round % 100 == 0 {
                turn.snapshot();
            }
        };
        tape.ask(Do(turn)).unwrap();
    }
    let live = tape.peek(Tape::clone).unwrap().value;
    memory.forget_snapshots();
    tape.passivate().unwrap();
    memory.count_visits();
    assert_eq!(tape.peek(Tape::clone).unwrap().value, live);
    let (visits, frames) = (memory.count_visits(), memory.frames());
    assert!(visits <= 3 * frames, "{visits} of {frames}");
}
