//! What a provider of storage must do, whoever wrote it.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::machine::{Calls, Machine, Trouble};
use crate::actor::memory::{Call, Memory};
use crate::actor::provider::{Appended, EventStore, NewSnapshot, SnapshotStore};
use crate::error::{AppendError, ReadError, SyncError};
use crate::log::frame::{Batch, RecordKind};
use crate::log::name;
use crate::store::Store;
use crate::types::{Lsn, Seq, StreamId};

/// Storage that the suite is run over.
pub trait Provider {
    /// Its events.
    fn events(&self) -> Arc<dyn EventStore>;

    /// Its snapshots.
    fn snapshots(&self) -> Arc<dyn SnapshotStore>;

    /// The next attempt to make something durable fails. `false` if that cannot be had: then what
    /// a failure leaves is not looked at.
    fn fail_next_sync(&self) -> bool {
        false
    }

    /// Does an append with a number that is not the next one answer
    /// [`AppendError::Conflict`]? A store with one writer may leave that to its caller.
    fn refuses_conflicts(&self) -> bool {
        false
    }
}

/// Checks that a provider does what an actor's runtime relies on; `make` makes an empty one each
/// time.
///
/// ```
/// use annals::actor::memory::Memory;
/// use annals::actor::provider::{EventStore, SnapshotStore};
/// use annals::testkit::{Machine, Provider, provider_suite};
/// use std::sync::Arc;
///
/// /// Somebody's own provider.
/// struct Own(Arc<Memory>);
/// impl Provider for Own {
///     fn events(&self) -> Arc<dyn EventStore> {
///         self.0.clone()
///     }
///     fn snapshots(&self) -> Arc<dyn SnapshotStore> {
///         self.0.clone()
///     }
/// }
///
/// provider_suite(|| Own(Memory::new()));
///
/// // Those that come with Annals pass too.
/// provider_suite(Memory::new);
/// provider_suite(|| {
///     let machine = Machine::new(1);
///     let store = machine.open().unwrap();
///     (machine, store)
/// });
/// ```
///
/// # Panics
/// It does something else; the message names the rule.
pub fn provider_suite<P: Provider>(make: impl Fn() -> P) {
    let rules: [Rule<P>; 14] = [
        ("an empty store holds nothing", empty),
        ("what was appended is replayed, and the end is told", replayed),
        ("a replay begins after a number, and ends when told", replayed_in_part),
        ("streams do not mix", streams),
        ("a number that is taken is refused", conflict),
        ("positions and times rise, and frames do not overlap", order),
        ("a scan shows all frames, from a position on", scanned),
        ("a frame is found by its position, and no other position is one", found),
        ("a stream is named by its first frame", named),
        ("waiting makes durable, and durability is a prefix", durable),
        ("a waker is woken, once what it waits for is durable", woken),
        ("after a failed sync nothing is acknowledged or accepted", poisoned),
        ("snapshots are visited newest first, whole, and of one stream", snapshots),
        ("nothing was dropped that was not", not_dropped),
    ];
    for (rule, check) in rules {
        let provider = make();
        let held = catch_unwind(AssertUnwindSafe(|| check(&provider)));
        assert!(held.is_ok(), "the provider breaks the rule: {rule}");
    }
}

/// A store on a machine: the log and the snapshots that come with Annals.
impl Provider for (Machine, Store) {
    fn events(&self) -> Arc<dyn EventStore> {
        self.1.providers().0
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        self.1.providers().1
    }

    fn fail_next_sync(&self) -> bool {
        self.0.fail_for_ever(Calls::Syncs, Trouble::Error);
        true
    }
}

/// The memory that comes with Annals.
impl Provider for Arc<Memory> {
    fn events(&self) -> Arc<dyn EventStore> {
        Self::clone(self)
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Self::clone(self)
    }

    fn fail_next_sync(&self) -> bool {
        self.fail_next(Call::Sync);
        true
    }

    fn refuses_conflicts(&self) -> bool {
        true
    }
}

/// What must hold, and what finds out whether it does.
type Rule<P> = (&'static str, fn(&P));

fn stream(name: &str) -> StreamId {
    StreamId::of("suite", name)
}

fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap_or(Seq::MAX)
}

/// The payload of an event: all lengths, all bytes.
fn payload(name: &str, number: u64) -> Vec<u8> {
    let length = usize::try_from(number % 61).unwrap_or(0);
    let bytes = name.bytes().cycle().zip(number.to_le_bytes().into_iter().cycle());
    bytes.map(|(letter, byte)| letter ^ byte).take(length).collect()
}

/// Appends a frame of events numbered from `first` on; the first one of all has the name.
fn try_append(
    events: &dyn EventStore,
    name: &str,
    first: u64,
    count: u64,
) -> Result<Appended, AppendError> {
    let mut batch = Batch::new();
    let mut push = |kind, payload: &[u8]| {
        if let Err(error) = batch.push(kind, 1, payload) {
            panic!("a small batch: {error}");
        }
    };
    if first == 1 {
        push(RecordKind::Name, &name::encode("suite", name).unwrap_or_default());
    }
    for number in first..first + count {
        push(RecordKind::Event, &payload(name, number));
    }
    events.append(&mut batch, stream(name), seq(first))
}

fn append(events: &dyn EventStore, name: &str, first: u64, count: u64) -> Appended {
    match try_append(events, name, first, count) {
        Ok(appended) => appended,
        Err(error) => panic!("appending events {first} and on of {name}: {error}"),
    }
}

fn good<T, E: std::fmt::Display>(answer: Result<T, E>) -> T {
    answer.unwrap_or_else(|error| panic!("{error}"))
}

/// Numbers and payloads after `after`, and what the replay says of the stream's end.
fn replay(events: &dyn EventStore, name: &str, after: u64) -> (Vec<(u64, Vec<u8>)>, u64, u64) {
    let mut found = Vec::new();
    let replayed = events.replay(stream(name), seq(after), &mut |frame| {
        assert_eq!(frame.stream(), stream(name), "a frame of another stream");
        let mut number = frame.seq().get();
        for record in frame.records() {
            let record = good(record);
            if record.kind == RecordKind::Event {
                found.push((number, record.payload.to_vec()));
                number += 1;
            }
        }
        ControlFlow::Continue(())
    });
    let replayed = good(replayed);
    found.retain(|(number, _)| *number > after);
    (found, replayed.last.get(), replayed.end.map_or(0, Lsn::get))
}

fn expected(name: &str, numbers: std::ops::RangeInclusive<u64>) -> Vec<(u64, Vec<u8>)> {
    numbers.map(|number| (number, payload(name, number))).collect()
}

/// Positions and first numbers of all frames from `from` on.
fn scan(events: &dyn EventStore, from: u64) -> Vec<(StreamId, u64, u64)> {
    let mut found = Vec::new();
    good(events.scan(from, &mut |frame| {
        found.push((frame.stream(), frame.lsn().get(), frame.seq().get()));
        ControlFlow::Continue(())
    }));
    found
}

fn empty(provider: &impl Provider) {
    let events = provider.events();
    assert_eq!(replay(&*events, "a", 0), (Vec::new(), 0, 0));
    assert_eq!(scan(&*events, 0), []);
    assert_eq!(good(events.name_of(stream("a"))), None);
    assert!(events.poisoned().is_none());
    assert!(events.durable() <= events.written());
    let mut visits = 0;
    good(provider.snapshots().load(stream("a"), &mut |_| {
        visits += 1;
        ControlFlow::Continue(())
    }));
    assert_eq!(visits, 0, "snapshots");
}

fn replayed(provider: &impl Provider) {
    let events = provider.events();
    let mut first = 1;
    for count in [1, 3, 1, 1, 7] {
        let appended = append(&*events, "a", first, count);
        first += count;
        let (found, last, end) = replay(&*events, "a", 0);
        assert_eq!(found, expected("a", 1..=first - 1));
        assert_eq!(last, first - 1, "the last number");
        assert_eq!(end, appended.end.get(), "the end of the last frame");
    }
}

fn replayed_in_part(provider: &impl Provider) {
    let events = provider.events();
    for (first, count) in [(1, 2), (3, 2), (5, 2)] {
        append(&*events, "a", first, count);
    }
    for after in 0..=6 {
        let (found, last, _) = replay(&*events, "a", after);
        assert_eq!(found, expected("a", after + 1..=6), "after {after}");
        assert_eq!(last, 6, "the end is told wherever the replay begins");
    }
    for frames in 1..=3 {
        let mut visits = 0;
        good(events.replay(stream("a"), Seq::ZERO, &mut |_| {
            visits += 1;
            if visits == frames { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }));
        assert_eq!(visits, frames, "visits until a break");
    }
}

fn streams(provider: &impl Provider) {
    let events = provider.events();
    for number in 1..=20 {
        append(&*events, "a", number, 1);
        append(&*events, "b", 2 * number - 1, 2);
    }
    assert_eq!(replay(&*events, "a", 0).0, expected("a", 1..=20));
    assert_eq!(replay(&*events, "b", 0).0, expected("b", 1..=40));
    assert_eq!(replay(&*events, "c", 0).0, []);
}

fn conflict(provider: &impl Provider) {
    let events = provider.events();
    append(&*events, "a", 1, 3);
    if !provider.refuses_conflicts() {
        return;
    }
    for first in [1, 2, 3, 5, 9] {
        match try_append(&*events, "a", first, 1) {
            Err(AppendError::Conflict { stream: of, expected, actual }) => {
                assert_eq!((of, expected.get(), actual.get()), (stream("a"), first - 1, 3));
            }
            other => panic!("number {first} after 3: {other:?}"),
        }
    }
    append(&*events, "a", 4, 1);
    assert_eq!(replay(&*events, "a", 0).0, expected("a", 1..=4));
}

fn order(provider: &impl Provider) {
    let events = provider.events();
    let mut before: Option<Appended> = None;
    for number in 1..=15 {
        for name in ["a", "b"] {
            let appended = append(&*events, name, number, 1);
            assert!(appended.lsn < appended.end, "a frame takes room");
            assert_eq!(events.written(), appended.end.get(), "what is written");
            if let Some(before) = before {
                assert!(before.end <= appended.lsn, "frames overlap");
                assert!(before.time < appended.time, "times rise");
            }
            before = Some(appended);
        }
    }
}

fn scanned(provider: &impl Provider) {
    let events = provider.events();
    let mut all = Vec::new();
    for number in 1..=10 {
        for name in ["a", "b", "c"] {
            all.push((stream(name), append(&*events, name, number, 1).lsn.get(), number));
        }
    }
    for (at, (_, from, _)) in all.iter().enumerate() {
        let found = scan(&*events, *from);
        assert_eq!(found, all.get(at..).unwrap_or_default(), "from the {at}th frame on");
    }
    assert_eq!(scan(&*events, 0), all);
    assert_eq!(scan(&*events, events.written()), [], "at the end");
    let mut visits = 0;
    good(events.scan(0, &mut |_| {
        visits += 1;
        // What is appended meanwhile is not shown, so that this ends.
        append(&*events, "a", 10 + visits, 1);
        if visits == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }));
    assert_eq!(visits, 7, "visits until a break");
}

fn found(provider: &impl Provider) {
    let events = provider.events();
    let appended: Vec<Appended> = (1..=20).map(|number| append(&*events, "a", number, 1)).collect();
    for (it, number) in appended.iter().zip(1..) {
        let mut seen = None;
        good(events.frame(it.lsn, &mut |frame| {
            seen = Some((frame.lsn(), frame.end(), frame.seq().get()));
        }));
        assert_eq!(seen, Some((it.lsn, it.end.get(), number)));
    }
    // At the end there is none yet, and within one there is none.
    let within = appended.first().and_then(|it| Lsn::new(it.lsn.get() + 16));
    for at in [Lsn::new(events.written()), within].into_iter().flatten() {
        let visited = events.frame(at, &mut |frame| panic!("a frame at {}", frame.lsn()));
        assert!(visited.is_err(), "a position without a frame");
    }
    let beyond = Lsn::new(events.written() + (1 << 30));
    if let Some(beyond) = beyond {
        let lost = events.frame(beyond, &mut |_| {});
        assert!(matches!(lost, Err(ReadError::PositionLost { .. })), "{lost:?}");
    }
}

fn named(provider: &impl Provider) {
    let events = provider.events();
    append(&*events, "a", 1, 1);
    append(&*events, "a", 2, 1);
    append(&*events, "b", 1, 2);
    for name in ["a", "b"] {
        let found = good(events.name_of(stream(name)));
        assert_eq!(found, Some(("suite".to_owned(), name.to_owned())));
    }
}

fn durable(provider: &impl Provider) {
    let events = provider.events();
    let appended: Vec<Appended> = (1..=10).map(|number| append(&*events, "a", number, 1)).collect();
    let mut durable = events.durable();
    for it in &appended {
        good(events.wait_durable(it.end, None));
        assert!(events.durable() >= it.end.get(), "what was waited for");
        assert!(events.durable() >= durable, "the mark does not fall");
        durable = events.durable();
        good(events.wait_durable(it.end, Some(Duration::ZERO)));
    }
    assert!(events.durable() <= events.written(), "more is durable than is written");
    assert_eq!(replay(&*events, "a", 0).0, expected("a", 1..=10));
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    fn wait(&self) {
        // Whoever commits has threads of its own.
        for _ in 0..1_000_000 {
            if self.0.load(Ordering::SeqCst) > 0 {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("nobody was woken");
    }
}

fn woken(provider: &impl Provider) {
    let events = provider.events();
    let appended = append(&*events, "a", 1, 1);
    let wakes = Arc::new(Wakes::default());
    events.wake_when_durable(appended.end, &Waker::from(Arc::clone(&wakes)));
    wakes.wait();
    assert!(events.durable() >= appended.end.get(), "woken, and not durable");
    let at_once = Arc::new(Wakes::default());
    events.wake_when_durable(appended.end, &Waker::from(Arc::clone(&at_once)));
    assert!(at_once.0.load(Ordering::SeqCst) > 0, "durable already: woken at once");
}

fn poisoned(provider: &impl Provider) {
    let events = provider.events();
    let kept = append(&*events, "a", 1, 1);
    good(events.wait_durable(kept.end, None));
    let durable = events.durable();
    if !provider.fail_next_sync() {
        return;
    }
    // The failure may come as early as here: then nothing was appended.
    if let Ok(appended) = try_append(&*events, "a", 2, 1) {
        match events.wait_durable(appended.end, None) {
            Err(SyncError::InDoubt { lsn, .. }) => assert_eq!(lsn, appended.end),
            other => panic!("a failed sync was answered with {other:?}"),
        }
        let wakes = Arc::new(Wakes::default());
        events.wake_when_durable(appended.end, &Waker::from(Arc::clone(&wakes)));
        wakes.wait();
        let again = events.wait_durable(appended.end, None);
        assert!(matches!(again, Err(SyncError::InDoubt { .. })), "tried again: {again:?}");
    }
    assert!(events.poisoned().is_some(), "nobody says so");
    assert!(events.durable() >= durable, "the mark fell");
    let refused = try_append(&*events, "b", 1, 1);
    assert!(matches!(refused, Err(AppendError::Poisoned(_))), "accepted: {refused:?}");
    good(events.wait_durable(kept.end, None));
    let (found, _, _) = replay(&*events, "a", 0);
    assert!(found.starts_with(&expected("a", 1..=1)), "what was durable is not read");
}

fn snapshot(name: &str, number: u64, covers: Lsn) -> NewSnapshot {
    let mut state = AlignedVec::new();
    state.extend_from_slice(&payload(name, number));
    NewSnapshot {
        stream: stream(name),
        kind: "suite",
        name: name.into(),
        seq: seq(number),
        covers,
        version: u16::try_from(number).unwrap_or(u16::MAX),
        state,
        side: payload("side", number),
    }
}

fn snapshots(provider: &impl Provider) {
    let (events, store) = (provider.events(), provider.snapshots());
    let mut covers = Vec::new();
    for number in 1..=40 {
        for name in ["a", "b"] {
            let appended = append(&*events, name, number, 1);
            if number % 10 == 0 {
                good(events.wait_durable(appended.end, None));
                assert!(store.save(snapshot(name, number, appended.lsn)), "a small one is taken");
                covers.push((name, number, appended.lsn));
            }
        }
    }
    let load = |name: &'static str, most: usize| {
        let mut found = Vec::new();
        good(store.load(stream(name), &mut |it| {
            let number = it.seq.get();
            assert_eq!((it.kind, it.name), ("suite", name));
            assert_eq!(it.state, payload(name, number), "the state");
            assert_eq!(it.side, payload("side", number), "what belongs to it");
            assert_eq!(u64::from(it.version), number, "the version");
            found.push((name, number, it.covers));
            if found.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }));
        found
    };
    for name in ["a", "b"] {
        let mut newest = covers.clone();
        newest.retain(|(of, _, _)| *of == name);
        newest.reverse();
        // Whoever stores them may have a thread for it.
        for _ in 0..10_000 {
            if load(name, usize::MAX).len() == newest.len() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        assert_eq!(load(name, usize::MAX), newest, "newest first");
        assert_eq!(load(name, 1), newest.get(..1).unwrap_or_default(), "until a break");
    }
    assert_eq!(load("c", usize::MAX), []);
}

fn not_dropped(provider: &impl Provider) {
    let events = provider.events();
    for number in 1..=10 {
        append(&*events, "a", number, 1);
    }
    assert!(!events.has_dropped(), "frames were dropped, and nobody had said so");
}
