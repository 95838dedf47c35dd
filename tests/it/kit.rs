//! The test kit: what it lets pass, and what it finds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals::actor::memory::{Call, Memory};
use annals::actor::provider::{
    Appended, EventStore, NewSnapshot, Replayed, SnapshotRef, SnapshotStore, Testimony, Witness,
};
use annals::actor::{Old, Unreadable};
use annals::error::{AppendError, DiskError, ReadError, SyncError};
use annals::log::frame::{Batch, Frame};
use annals::rkyv::with::{AtomicLoad, Relaxed, Skip};
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::testkit::{
    Calls, End, Kit, Machine, Provider, Trouble, every_crash, golden, provider_suite,
};
use annals::types::{Lsn, Seq, StreamId};
use annals::{Actor, ActorOptions, Handle, SnapshotPolicy, Turn};

#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(crate = annals::rkyv)]
enum Event {
    Added(u64),
    Named(String),
}

/// Snapshots after each event, so that each load is one from a snapshot.
#[derive(Archive, Serialize, Deserialize, Debug, Default, PartialEq)]
#[rkyv(crate = annals::rkyv)]
struct Tally {
    sum: u64,
    name: String,
}

impl Actor for Tally {
    type Event = Event;
    const KIND: &'static str = "tally";
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Added(number) => self.sum += number,
            Event::Named(name) => self.name.clone_from(name),
        }
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::every(1).on_passivate())
    }
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Add(u64);
impl Handle<Add> for Tally {
    type Reply = Result<u64, String>;
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> Self::Reply {
        assert!(number < 1_000, "far too much");
        if number > 100 {
            return Err("too much".to_owned());
        }
        turn.emit(Event::Added(number));
        if turn.sum > 10 {
            turn.emit(Event::Named("large".to_owned()));
        }
        Ok(turn.sum)
    }
}

/// Tells another one, and itself.
struct Spread;
impl Handle<Spread> for Tally {
    type Reply = ();
    fn handle(_: Spread, turn: &mut Turn<'_, Self>) {
        let (me, other) = (turn.me(), turn.actor::<Self>("other").unwrap());
        turn.tell(&other, Add(1)).unwrap();
        turn.tell(&me, Add(2)).unwrap();
    }
}

/// Case 161.
#[test]
fn a_command_shows_its_events_its_state_and_its_reply() {
    Kit::<Tally>::given([Event::Added(5), Event::Named("small".to_owned())])
        .when(Add(4))
        .expect_reply(Ok(9))
        .expect_events([Event::Added(4)])
        .when_archived(&Add(2))
        .expect_reply(Ok(11))
        .expect_events([Event::Added(2), Event::Named("large".to_owned())])
        .expect_state(|tally| assert_eq!((tally.sum, &*tally.name), (11, "large")))
        .when(Add(101))
        .expect_reply(Err("too much".to_owned()))
        .expect_events([])
        .when(Add(1_000))
        .expect_error("far too much")
        .expect_events([])
        .expect_state(|tally| assert_eq!(tally.sum, 11));
    let then = Kit::<Tally>::given_archived([]).when(Spread).settled();
    assert_eq!(then.events(), [Event::Added(2)]);
    assert_eq!(then.kit().events_of::<Tally>("other"), [Event::Added(1)]);
    assert_eq!(then.kit().seq().get(), 1);
}

/// What each of these is for: an expectation that is not met.
#[test]
fn whatever_is_expected_in_vain_is_a_panic() {
    let fails = |act: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(act)).is_err());
    let given = || Kit::<Tally>::given([]);
    fails(&|| drop(given().when(Add(1)).expect_events([])));
    fails(&|| drop(given().when(Add(1)).expect_events([Event::Added(2)])));
    fails(&|| drop(given().when(Add(1)).expect_reply(Ok(2))));
    fails(&|| drop(given().when(Add(1_000)).expect_reply(Ok(2))));
    fails(&|| drop(given().when(Add(1)).expect_error("much")));
    fails(&|| drop(given().when(Add(1_000)).expect_error("little")));
    fails(&|| drop(given().when(Add(1)).expect_state(|tally| assert_eq!(tally.sum, 2))));
}

/// Its state changes beside its events, or is not all archived.
#[derive(Archive, Serialize, Deserialize, Debug, Default)]
#[rkyv(crate = annals::rkyv)]
struct Sly {
    #[rkyv(with = AtomicLoad<Relaxed>)]
    hidden: AtomicU64,
    #[rkyv(with = Skip)]
    forgotten: u64,
}
impl PartialEq for Sly {
    fn eq(&self, other: &Self) -> bool {
        let hidden = |sly: &Self| sly.hidden.load(Ordering::Relaxed);
        hidden(self) == hidden(other) && self.forgotten == other.forgotten
    }
}
impl Actor for Sly {
    type Event = u64;
    const KIND: &'static str = "sly";
    fn apply(&mut self, event: &u64) {
        self.forgotten = *event;
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::manual())
    }
}
impl Handle<Add> for Sly {
    type Reply = ();
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) {
        turn.hidden.store(number, Ordering::Relaxed);
    }
}
struct Forget(u64);
impl Handle<Forget> for Sly {
    type Reply = ();
    fn handle(Forget(number): Forget, turn: &mut Turn<'_, Self>) {
        turn.emit(number);
    }
}

/// Case 161: the state is what its events make, and survives its archive.
#[test]
fn a_state_that_its_events_do_not_make_or_that_its_archive_loses_is_found() {
    let hidden = catch_unwind(|| drop(Kit::<Sly>::given([]).when(Add(1))));
    let hidden_archived = catch_unwind(|| drop(Kit::<Sly>::given_archived([]).when(Add(1))));
    let lost = catch_unwind(|| drop(Kit::<Sly>::given([]).when(Forget(1))));
    for (found, part) in [
        (hidden, "another than its events make"),
        (hidden_archived, "another than its events make"),
        (lost, "another one after its archive"),
    ] {
        let message = *found.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains(part), "{message}");
    }
    Kit::<Sly>::given([]).when(Forget(0));
}

/// Version 2 of `Tally`'s events, which knows version 1.
#[derive(Default)]
struct Tally2;
#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
#[rkyv(crate = annals::rkyv)]
struct Added2 {
    number: i64,
}
impl Actor for Tally2 {
    type Event = Added2;
    const KIND: &'static str = "tally";
    const VERSION: u16 = 2;
    fn apply(&mut self, _: &Added2) {}
    fn upcast(old: Old<'_>, out: &mut Vec<Added2>) -> Result<(), Unreadable> {
        if old.version() != 1 {
            return Err(Unreadable);
        }
        if let Event::Added(number) = old.read::<Event>()? {
            out.push(Added2 { number: number.cast_signed() });
        }
        Ok(())
    }
}

fn panics(act: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(act)).unwrap_err();
    *payload.downcast::<String>().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "files beside a test, not those of a store")]
#[test]
fn bytes_that_are_pinned_are_held_to_and_old_ones_must_be_read() {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let events = || [Event::Added(1), Event::Named("a name of some length".to_owned())];
    golden::<Tally>(here, &events());
    golden::<Tally2>(here, &[Added2 { number: -2 }]);
    if std::env::var_os("ANNALS_GOLDEN").is_some() {
        return;
    }
    // What must not pass.
    let other = panics(|| golden::<Tally>(here, &[Event::Added(2), Event::Added(2)]));
    assert!(other.contains("event 0 of tally 1 has other bytes"), "{other}");
    let fewer = panics(|| golden::<Tally>(here, &[Event::Added(1)]));
    assert!(fewer.contains("2 events, and 1 were given"), "{fewer}");
    let dir = tempfile::tempdir().unwrap();
    let none = panics(|| golden::<Tally>(dir.path(), &events()));
    assert!(none.contains("ANNALS_GOLDEN=write"), "{none}");
    let old = "# annals golden 1\nffff\n";
    std::fs::copy(format!("{here}/tally.2.golden"), dir.path().join("tally.2.golden")).unwrap();
    std::fs::File::create(dir.path().join("tally.1.golden")).unwrap();
    let empty = panics(|| golden::<Tally2>(dir.path(), &[Added2 { number: -2 }]));
    assert!(empty.contains("is no golden file"), "{empty}");
    std::fs::write(dir.path().join("tally.1.golden"), old).unwrap();
    let unread = panics(|| golden::<Tally2>(dir.path(), &[Added2 { number: -2 }]));
    assert!(unread.contains("event 1: an event of an unknown version"), "{unread}");
}

/// A sum without snapshots: whatever is done to the disk is done by who asks.
#[derive(Default)]
struct Plain(u64);
impl Actor for Plain {
    type Event = u64;
    const KIND: &'static str = "plain";
    fn apply(&mut self, event: &u64) {
        self.0 += event;
    }
}
impl Handle<Add> for Plain {
    type Reply = u64;
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(number);
        turn.0
    }
}

/// Three turns, and what was heard of them.
fn three_turns(machine: &Machine, promised: &mut u64) {
    let Ok(store) = machine.open() else { return };
    for _ in 0..3 {
        let Ok(plain) = store.actor::<Plain>("a") else { return };
        let Some(sum) = machine.heard(plain.ask(Add(1))) else { return };
        *promised = sum;
    }
}

fn sum(machine: &Machine) -> u64 {
    machine.open().unwrap().actor::<Plain>("a").unwrap().peek(|plain| plain.0).unwrap().value
}

#[test]
fn a_crash_in_every_operation_of_a_scenario_takes_no_promise_back() {
    let crashes = every_crash(1, three_turns, |machine, _, promised: &u64| {
        let sum = sum(machine);
        assert!((*promised..=promised + 1).contains(&sum), "{sum}, and {promised} were promised");
    });
    assert!(crashes.points > 20, "{crashes:?}");
    assert_eq!(crashes.checked, crashes.points * 6);
}

#[test]
fn a_promise_that_is_not_kept_is_found_by_the_crashes_and_can_be_replayed() {
    // It takes what is not durable for promised.
    let wrong = |machine: &Machine, promised: &mut u64| {
        let Ok(store) = machine.open() else { return };
        let plain = store.actor::<Plain>("a").unwrap();
        for number in 1..=3 {
            if plain.post(Add(1)).is_err() || machine.has_crashed() {
                return;
            }
            *promised = number;
        }
    };
    let message = panics(|| {
        every_crash(1, wrong, |machine, _, promised: &u64| assert!(sum(machine) >= *promised));
    });
    assert!(message.contains("run it alone with ANNALS_SEED=1 ANNALS_CRASH="), "{message}");
}

#[test]
fn each_trouble_of_a_machine_is_an_error_or_unnoticed_and_keeps_what_was_promised() {
    for (calls, trouble, noticed) in [
        (Calls::Syncs, Trouble::Error, true),
        (Calls::Writes, Trouble::Error, true),
        (Calls::Writes, Trouble::Full, true),
        (Calls::All, Trouble::Interrupted, false),
        (Calls::Writes, Trouble::Short, false),
        (Calls::Reads, Trouble::Short, false),
    ] {
        let machine = Machine::new(3);
        let mut promised = 0;
        three_turns(&machine, &mut promised);
        assert_eq!(promised, 3);
        let store = machine.open().unwrap();
        machine.fail(calls, trouble, 0);
        let answer = store.actor::<Plain>("a").unwrap().ask(Add(1));
        assert_eq!(answer.is_err(), noticed, "{calls:?} {trouble:?}: {answer:?}");
        for end in End::ALL {
            let sum = sum(&machine.if_it_ended(end));
            assert!(sum == 4 || noticed && sum == 3, "{calls:?} {trouble:?}, {end:?}: {sum}");
        }
    }
}

/// The clock stands until it is moved, and goes on over the lives.
#[test]
fn a_machines_clock_stands_and_a_full_disk_is_an_answer() {
    struct When;
    impl Handle<When> for Tally {
        type Reply = u64;
        fn handle(_: When, turn: &mut Turn<'_, Self>) -> u64 {
            turn.now().millis()
        }
    }
    let machine = Machine::new(1);
    let now = |machine: &Machine| {
        let store = machine.open().unwrap();
        store.actor::<Tally>("a").unwrap().ask(When).unwrap()
    };
    let before = now(&machine);
    assert_eq!(now(&machine), before);
    machine.clock().advance(Duration::from_secs(1));
    let machine = machine.after(End::Kill);
    assert_eq!(now(&machine), before + 1_000);
    machine.set_room(Some(machine.used()));
    let full = machine.open().is_err();
    machine.set_room(None);
    assert!(full || machine.open().is_ok());
    let path = machine.files().into_iter().find(|(path, _)| path.ends_with("identity")).unwrap().0;
    for byte in (0..8192).step_by(4096) {
        machine.flip_bit(&path, byte, 1).unwrap();
    }
    assert!(machine.open().is_err(), "both slots of the identity are damaged");
}

/// Over the memory, and over the log and the snapshots of a store.
#[test]
fn both_providers_pass_the_suite() {
    provider_suite(Memory::new);
    provider_suite(|| {
        let machine = Machine::new(1);
        let store = machine.open().unwrap();
        (machine, store)
    });
}

/// A provider that is wrong in one way.
#[derive(Debug)]
struct Wrong {
    memory: Arc<Memory>,
    how: How,
}

#[derive(Copy, Clone, Debug, PartialEq)]
enum How {
    AllAfter,
    OneFrameOnly,
    DurableTooEarly,
    ScansAll,
    LosesSnapshots,
    Dropped,
    NoConflict,
    FindsAny,
    SyncsAgain,
}

impl EventStore for Wrong {
    fn append(
        &self,
        batch: &mut Batch,
        stream: StreamId,
        first: Seq,
    ) -> Result<Appended, AppendError> {
        match self.memory.append(batch, stream, first) {
            Err(AppendError::Conflict { stream, actual, .. }) if self.how == How::NoConflict => {
                self.memory.append(batch, stream, actual.checked_add(1).unwrap())
            }
            other => other,
        }
    }
    fn replay(
        &self,
        stream: StreamId,
        after: Seq,
        visit: &mut dyn FnMut(Frame<'_>) -> std::ops::ControlFlow<()>,
    ) -> Result<Replayed, ReadError> {
        let mut seen = 0;
        let one = self.how == How::OneFrameOnly;
        self.memory.replay(stream, after, &mut |frame| {
            seen += 1;
            if one && seen == 2 {
                return std::ops::ControlFlow::Break(());
            }
            visit(frame)
        })
    }
    fn durable(&self) -> u64 {
        if self.how == How::DurableTooEarly { u64::MAX } else { self.memory.durable() }
    }
    fn wait_durable(&self, mark: Lsn, limit: Option<Duration>) -> Result<(), SyncError> {
        match self.memory.wait_durable(mark, limit) {
            Err(_) if self.how == How::SyncsAgain => Ok(()),
            other => other,
        }
    }
    fn wake_when_durable(&self, mark: Lsn, waker: &std::task::Waker) {
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
        visit: &mut dyn FnMut(Frame<'_>) -> std::ops::ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.memory.scan(if self.how == How::ScansAll { 0 } else { from }, visit)
    }
    fn frame(&self, lsn: Lsn, visit: &mut dyn FnMut(Frame<'_>)) -> Result<(), ReadError> {
        match self.memory.frame(lsn, visit) {
            Err(_) if self.how == How::FindsAny => Ok(()),
            other => other,
        }
    }
    fn heed(&self, witness: Arc<dyn Witness>) {
        self.memory.heed(witness);
    }
    fn testimony(&self) -> Option<Testimony> {
        self.memory.testimony()
    }
    fn has_dropped(&self) -> bool {
        self.how == How::Dropped
    }
}

impl SnapshotStore for Wrong {
    fn save(&self, snapshot: NewSnapshot) -> bool {
        self.how == How::LosesSnapshots || self.memory.save(snapshot)
    }
    fn load(
        &self,
        stream: StreamId,
        visit: &mut dyn FnMut(SnapshotRef<'_>) -> std::ops::ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.memory.load(stream, visit)
    }
}

struct Given(Arc<Wrong>);
impl Provider for Given {
    fn events(&self) -> Arc<dyn EventStore> {
        Arc::<Wrong>::clone(&self.0)
    }
    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::<Wrong>::clone(&self.0)
    }
    fn fail_next_sync(&self) -> bool {
        self.0.memory.fail_next(Call::Sync);
        true
    }
    fn refuses_conflicts(&self) -> bool {
        true
    }
}

#[test]
fn a_provider_that_breaks_a_rule_is_told_which() {
    for (how, rule) in [
        (How::AllAfter, ""),
        (How::OneFrameOnly, "what was appended is replayed"),
        (How::DurableTooEarly, "an empty store"),
        (How::ScansAll, "a scan shows all frames"),
        (How::LosesSnapshots, "snapshots are visited"),
        (How::Dropped, "nothing was dropped"),
        (How::NoConflict, "a number that is taken"),
        (How::FindsAny, "a frame is found"),
        (How::SyncsAgain, "after a failed sync"),
    ] {
        let make = || Given(Arc::new(Wrong { memory: Memory::new(), how }));
        if rule.is_empty() {
            provider_suite(make);
            continue;
        }
        let message = panics(|| provider_suite(make));
        assert!(message.contains(rule), "{how:?}: {message}");
    }
}
