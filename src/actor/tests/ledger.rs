//! A testimony is exact: whenever it is asked for, it tells of every frame below its position.

use std::fmt;
use std::ops::ControlFlow;
use std::task::Waker;

use crossbeam_channel::unbounded;
use parking_lot::Mutex;
use rkyv::{Archive, Deserialize, Serialize};

use super::*;
use crate::actor::Durable;
use crate::actor::book::Book;
use crate::actor::note::Note;
use crate::actor::provider::{Appended, EventStore, Replayed, Testimony, Witness};
use crate::error::{AppendError, DiskError, ReadError, SyncError};
use crate::log::frame::{Batch, Frame, RecordKind};
use crate::types::{Lsn, Seq, StreamId};

/// Long enough for a thread that need not wait to come to its end. One that must wait makes this
/// the time that a frame takes, and is heard later.
const MOMENT: Duration = Duration::from_millis(20);

/// Asks the witness from another thread as soon as a frame stands, before its appender knows.
struct Asking {
    memory: Arc<Memory>,
    witness: Mutex<Option<Arc<dyn Witness>>>,
    said: Sender<Testimony>,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asking")
    }
}

impl EventStore for Asking {
    fn append(
        &self,
        batch: &mut Batch,
        stream: StreamId,
        first: Seq,
    ) -> Result<Appended, AppendError> {
        let appended = self.memory.append(batch, stream, first)?;
        if let Some(witness) = self.witness.lock().clone() {
            let (end, ended) = bounded::<()>(1);
            let said = self.said.clone();
            std::thread::spawn(move || {
                if let Some(testimony) = witness.testify() {
                    said.send(testimony).unwrap();
                }
                drop(end);
            });
            // Nothing is sent: it ends when the thread has dropped its side, or after a moment.
            assert!(ended.recv_timeout(MOMENT).is_err());
        }
        Ok(appended)
    }
    fn replay(
        &self,
        stream: StreamId,
        after: Seq,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Replayed, ReadError> {
        self.memory.replay(stream, after, visit)
    }
    fn durable(&self) -> u64 {
        self.memory.durable()
    }
    fn wait_durable(&self, mark: Lsn, limit: Option<Duration>) -> Result<(), SyncError> {
        self.memory.wait_durable(mark, limit)
    }
    fn wake_when_durable(&self, mark: Lsn, waker: &Waker) {
        self.memory.wake_when_durable(mark, waker);
    }
    fn poisoned(&self) -> Option<DiskError> {
        self.memory.poisoned()
    }
    fn written(&self) -> u64 {
        self.memory.written()
    }
    fn scan(
        &self,
        from: u64,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.memory.scan(from, visit)
    }
    fn frame(&self, lsn: Lsn, visit: &mut dyn FnMut(Frame<'_>)) -> Result<(), ReadError> {
        self.memory.frame(lsn, visit)
    }
    fn heed(&self, witness: Arc<dyn Witness>) {
        *self.witness.lock() = Some(witness);
    }
    fn testimony(&self) -> Option<Testimony> {
        None
    }
    fn has_dropped(&self) -> bool {
        false
    }
}

/// Owes itself something with each command, and settles what it got.
#[derive(Default)]
struct Debtor(u64);
impl Actor for Debtor {
    type Event = u64;
    const KIND: &'static str = "debtor";
    fn apply(&mut self, event: &u64) {
        self.0 += event;
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().command::<Pay>()
    }
}
#[derive(Archive, Serialize, Deserialize)]
struct Pay(u64);
impl Durable for Pay {
    const NAME: &'static str = "pay";
}
impl Handle<Pay> for Debtor {
    type Reply = ();
    fn handle(Pay(cents): Pay, turn: &mut Turn<'_, Self>) {
        turn.emit(cents);
    }
}
struct Owe(u64);
impl Handle<Owe> for Debtor {
    type Reply = ();
    fn handle(Owe(cents): Owe, turn: &mut Turn<'_, Self>) {
        let me = turn.me();
        turn.send(&me, Pay(cents)).unwrap();
    }
}

/// What the frames below `position` say.
fn read(memory: &Memory, position: u64) -> Book {
    let mut book = Book::default();
    memory
        .scan(0, &mut |frame| {
            if frame.lsn().get() >= position {
                return ControlFlow::Break(());
            }
            for record in frame.records().flatten().filter(|it| it.kind == RecordKind::Note) {
                let note = Note::decode(record.version, record.payload).unwrap();
                book.apply(frame.stream(), frame.lsn(), frame.seq(), &note);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    book
}

#[test]
fn a_testimony_tells_of_every_frame_below_its_position_even_while_one_is_being_appended() {
    let memory = Memory::new();
    let (said, hear) = unbounded();
    let asking = Arc::new(Asking { memory: Arc::clone(&memory), witness: Mutex::default(), said });
    let snapshots = Arc::clone(&memory);
    let options = RuntimeOptions::default().actor::<Debtor>();
    let runtime = Runtime::start(asking, snapshots, Clock::System, options).unwrap();
    runtime.wait_recovered(LONG);
    for round in 0..8 {
        let debtor = runtime.actor::<Debtor>(&format!("debtor {}", round % 3)).unwrap();
        debtor.ask(Owe(round)).unwrap();
    }
    drop(runtime);
    let mut owing = 0;
    let mut heard = 0;
    for testimony in hear.try_iter() {
        let told = Book::decode(&testimony.bytes).unwrap();
        let is = read(&memory, testimony.position);
        let sorted = |book: &Book| {
            let mut all: Vec<_> = book.iter().map(|(oid, open)| (oid, open.lsn)).collect();
            all.sort();
            all
        };
        assert_eq!(sorted(&told), sorted(&is), "below {}", testimony.position);
        owing += usize::from(is.len() > 0);
        heard += 1;
    }
    assert!(heard >= 16 && owing > 0, "{heard} testimonies, {owing} with something owed");
}
