//! What the tests of the cases in `docs/cases.md` share: actors, and a runtime over memory.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use annals::actor::memory::Memory;
use annals::actor::provider::{EventStore as _, NewSnapshot, SnapshotStore as _};
use annals::rkyv::util::AlignedVec;
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::time::Clock;
use annals::types::{Lsn, Seq, StreamId};
use annals::{
    Actor, ActorOptions, Addr, Handle, RuntimeOptions, SnapshotPolicy, Turn, Value as _,
    actor::Runtime,
};

/// Longer than anything takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Numbers in the order in which they came. Its snapshots are taken when a turn asks for one.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[rkyv(crate = annals::rkyv)]
pub(crate) struct List {
    pub numbers: Vec<u64>,
}

impl Actor for List {
    type Event = u64;
    const KIND: &'static str = "list";
    fn apply(&mut self, event: &u64) {
        self.numbers.push(*event);
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::manual())
    }
}

/// Emits all of them in one turn.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
pub(crate) struct Add(pub Vec<u64>);
impl Handle<Add> for List {
    type Reply = usize;
    fn handle(Add(numbers): Add, turn: &mut Turn<'_, Self>) -> usize {
        for number in numbers {
            turn.emit(number);
        }
        turn.numbers.len()
    }
}

pub(crate) struct Get;
impl Handle<Get> for List {
    type Reply = Vec<u64>;
    fn handle(_: Get, turn: &mut Turn<'_, Self>) -> Vec<u64> {
        turn.numbers.clone()
    }
}

/// Whatever a test wants within a turn.
pub(crate) struct Do<F>(pub F);
impl<F, R> Handle<Do<F>> for List
where
    F: FnOnce(&mut Turn<'_, Self>) -> R + Send + 'static,
    R: Send + 'static,
{
    type Reply = R;
    fn handle(Do(act): Do<F>, turn: &mut Turn<'_, Self>) -> R {
        act(turn)
    }
}

/// With one worker, so that what it was given first is done first.
pub(crate) fn runtime(memory: &Arc<Memory>) -> Runtime {
    let (events, snapshots) = (Arc::clone(memory), Arc::clone(memory));
    let options =
        RuntimeOptions { workers: std::num::NonZeroUsize::MIN, ..RuntimeOptions::default() };
    Runtime::start(events, snapshots, Clock::System, options).unwrap()
}

pub(crate) fn list(runtime: &Runtime, name: &str) -> Addr<List> {
    runtime.actor(name).unwrap()
}

/// The numbers of an actor, as the next life finds them.
pub(crate) fn found(memory: &Arc<Memory>, name: &str) -> Vec<u64> {
    list(&runtime(memory), name).ask(Get).unwrap()
}

/// The one worker has done what it was given before.
pub(crate) fn settle(runtime: &Runtime) {
    let (done, is_done) = mpsc::channel();
    let told = list(runtime, "settle").tell(Do(move |_: &mut Turn<'_, List>| done.send(())));
    assert!(told.is_ok());
    is_done.recv_timeout(LONG).unwrap();
}

/// What it was given waits until this is dropped.
pub(crate) struct Busy(mpsc::Sender<()>);

impl Busy {
    pub(crate) fn keep(addr: &Addr<List>) -> Self {
        let (begun, has_begun) = mpsc::channel();
        let (end, has_ended) = mpsc::channel::<()>();
        let told = addr.tell(Do(move |_: &mut Turn<'_, List>| {
            begun.send(()).unwrap();
            assert!(has_ended.recv_timeout(LONG).is_err(), "the other end is dropped");
        }));
        assert!(told.is_ok());
        has_begun.recv_timeout(LONG).unwrap();
        Self(end)
    }

    pub(crate) fn end(self) {
        drop(self.0);
    }
}

/// The position of the frame that holds an event.
pub(crate) fn position(memory: &Memory, name: &str, seq: u64) -> Lsn {
    let mut found = None;
    let stream = StreamId::of("list", name);
    memory
        .replay(stream, Seq::new(seq - 1).unwrap(), &mut |frame| {
            found = Some(frame.lsn());
            std::ops::ControlFlow::Break(())
        })
        .unwrap();
    found.expect("the event is there")
}

/// A snapshot of that state, said to be after event `seq`.
pub(crate) fn save(memory: &Memory, name: &str, seq: u64, covers: Lsn, numbers: &[u64]) {
    let mut state = AlignedVec::new();
    List { numbers: numbers.to_vec() }.encode(&mut state).unwrap();
    assert!(memory.save(NewSnapshot {
        stream: StreamId::of("list", name),
        kind: "list",
        name: name.into(),
        seq: Seq::new(seq).unwrap(),
        covers,
        version: 1,
        state,
        side: Vec::new(),
    }));
}
