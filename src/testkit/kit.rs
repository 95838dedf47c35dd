//! Given events, when a command, then events, state and reply.

use std::fmt;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::past;
use crate::actor::memory::Memory;
use crate::actor::{Actor, ActorError, Addr, Handle, NotArchive, Runtime, RuntimeOptions, Value};
use crate::time::{Clock, ManualClock};
use crate::types::{Seq, StreamId};

/// When a kit's clock begins: some moment in 2023.
const BEGINNING_MS: u64 = 1_700_000_000_000;
/// Longer than what was accepted takes to be handled.
const LONG: Duration = Duration::from_mins(1);
/// The name of the actor that is looked at.
const NAME: &str = "kit";

/// One actor over a memory, and a past that the test gives it.
///
/// After each command it is checked that
/// - the state is the one that the events alone make, from the first one on: so nothing but
///   `apply` has changed it, and no event has lost anything in its archive;
/// - the state that a load makes, from a snapshot where there is one, is the same;
/// - a state that can be archived comes back from its archive.
///
/// Two states are the same if they are equal ([`given`](Self::given)), or if their archives are
/// ([`given_archived`](Self::given_archived); a `HashMap` may have several, a `BTreeMap` has one).
///
/// ```
/// use annals::rkyv::{Archive, Deserialize, Serialize};
/// use annals::testkit::Kit;
/// use annals::{Actor, Handle, Turn};
///
/// #[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
/// #[rkyv(crate = annals::rkyv)]
/// enum Event {
///     Deposited(u64),
///     Withdrawn(u64),
/// }
///
/// #[derive(Default, PartialEq)]
/// struct Account {
///     cents: u64,
/// }
///
/// impl Actor for Account {
///     type Event = Event;
///     const KIND: &'static str = "account";
///     fn apply(&mut self, event: &Event) {
///         match event {
///             Event::Deposited(cents) => self.cents += cents,
///             Event::Withdrawn(cents) => self.cents -= cents,
///         }
///     }
/// }
///
/// struct Withdraw(u64);
/// impl Handle<Withdraw> for Account {
///     type Reply = Result<u64, String>;
///     fn handle(Withdraw(cents): Withdraw, turn: &mut Turn<'_, Self>) -> Self::Reply {
///         if turn.cents < cents {
///             return Err(format!("only {} there", turn.cents));
///         }
///         turn.emit(Event::Withdrawn(cents));
///         Ok(turn.cents)
///     }
/// }
///
/// Kit::<Account>::given([Event::Deposited(500)])
///     .when(Withdraw(200))
///     .expect_reply(Ok(300))
///     .expect_events([Event::Withdrawn(200)])
///     .expect_state(|account| assert_eq!(account.cents, 300))
///     .when(Withdraw(400))
///     .expect_reply(Err("only 300 there".to_owned()))
///     .expect_events([]);
/// ```
///
/// What does not change by events is found out:
///
/// ```should_panic
/// # use annals::testkit::Kit;
/// # use annals::{Actor, Handle, Turn};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// #[derive(Default)]
/// struct Sly(AtomicU64);
/// impl PartialEq for Sly {
///     fn eq(&self, other: &Self) -> bool {
///         self.0.load(Ordering::Relaxed) == other.0.load(Ordering::Relaxed)
///     }
/// }
/// impl Actor for Sly {
///     type Event = u64;
///     const KIND: &'static str = "sly";
///     fn apply(&mut self, _: &u64) {}
/// }
/// struct Count;
/// impl Handle<Count> for Sly {
///     type Reply = ();
///     fn handle(_: Count, turn: &mut Turn<'_, Self>) {
///         turn.0.fetch_add(1, Ordering::Relaxed); // and no event
///     }
/// }
/// drop(Kit::<Sly>::given([]).when(Count));
/// ```
pub struct Kit<A: Actor> {
    memory: Arc<Memory>,
    clock: Arc<ManualClock>,
    runtime: Runtime,
    same: fn(&A, &A) -> bool,
    archive: Option<Archiving<A>>,
}

/// How a state is archived and read back.
struct Archiving<A> {
    encode: fn(&A, &mut AlignedVec<16>) -> Result<(), NotArchive>,
    decode: fn(&[u8]) -> Result<A, NotArchive>,
}

impl<A: Actor> Kit<A> {
    /// An actor to which these events have happened, one a turn. States are compared with `==`.
    ///
    /// # Panics
    /// An event cannot be archived, or applied.
    pub fn given(events: impl IntoIterator<Item = A::Event>) -> Self
    where
        A: PartialEq,
    {
        let snapshots = A::options().snapshots;
        let archive = snapshots.map(|it| Archiving { encode: it.encode, decode: it.decode });
        Self::begin(events, A::eq, archive)
    }

    /// The same, where states are compared by their archives.
    ///
    /// # Panics
    /// As [`given`](Self::given).
    pub fn given_archived(events: impl IntoIterator<Item = A::Event>) -> Self
    where
        A: Value,
    {
        let archive = Archiving { encode: A::encode, decode: A::decode };
        let same = |one: &A, other: &A| {
            let (mut left, mut right) = (AlignedVec::new(), AlignedVec::new());
            let encoded = one.encode(&mut left).and_then(|()| other.encode(&mut right));
            encoded.is_ok() && left.as_slice() == right.as_slice()
        };
        Self::begin(events, same, Some(archive))
    }

    fn begin(
        events: impl IntoIterator<Item = A::Event>,
        same: fn(&A, &A) -> bool,
        archive: Option<Archiving<A>>,
    ) -> Self {
        let clock = ManualClock::at_millis(BEGINNING_MS);
        let memory = Memory::with_clock(Clock::Manual(Arc::clone(&clock)));
        for (number, event) in (1..).zip(events) {
            if let Err(why) = past::append::<A>(&*memory, NAME, number, &event) {
                panic!("given event {number}: {why}");
            }
        }
        let runtime = start(&memory, &clock);
        let kit = Self { memory, clock, runtime, same, archive };
        kit.check("given these events");
        kit
    }

    /// The actor takes a turn with `command`.
    ///
    /// # Panics
    /// The state is not what its events make: see above.
    pub fn when<C>(self, command: C) -> Then<A, A::Reply>
    where
        A: Handle<C>,
        C: Send + 'static,
    {
        let before = self.seq();
        let reply = self.addr().ask(command);
        if !matches!(reply, Err(ActorError::Stopped(_) | ActorError::Read(_))) {
            self.check("after the command");
        }
        Then { before, reply, kit: self }
    }

    /// The same with what is left of `command` after it was archived and read back, as for one
    /// that waits in the log.
    ///
    /// # Panics
    /// As [`when`](Self::when); the command cannot be archived and read back.
    pub fn when_archived<C>(self, command: &C) -> Then<A, A::Reply>
    where
        A: Handle<C>,
        C: Value,
    {
        let mut bytes = AlignedVec::new();
        let archived = command.encode(&mut bytes).and_then(|()| C::decode(&bytes));
        match archived {
            Ok(command) => self.when(command),
            Err(error) => panic!("the command does not come back from its archive: {error}"),
        }
    }

    /// Returns when all that was told so far has been handled, by whichever actor; then nothing
    /// is in memory any more, and the next command finds its state in the log.
    #[must_use]
    pub fn settled(mut self) -> Self {
        let _report = self.runtime.close(LONG);
        self.runtime = start(&self.memory, &self.clock);
        self
    }

    /// The actor's address.
    ///
    /// # Panics
    /// Its kind is no kind.
    pub fn addr(&self) -> Addr<A> {
        match self.runtime.actor(NAME) {
            Ok(addr) => addr,
            Err(error) => panic!("{}/{NAME}: {error}", A::KIND),
        }
    }

    /// The address of another actor beside it.
    ///
    /// # Errors
    /// See [`Runtime::actor`].
    pub fn actor<B: Actor>(&self, name: &str) -> Result<Addr<B>, ActorError> {
        self.runtime.actor(name)
    }

    /// The events of another actor: what the commands made of those that it told.
    ///
    /// # Panics
    /// They cannot be read.
    pub fn events_of<B: Actor>(&self, name: &str) -> Vec<B::Event> {
        read_events::<B>(&self.memory, name, Seq::ZERO)
    }

    /// Where events and snapshots are, and where calls can be made to fail.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The time: it stands until it is moved.
    pub fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    /// The last event's number.
    ///
    /// # Panics
    /// The events cannot be read.
    pub fn seq(&self) -> Seq {
        match past::last(&*self.memory, StreamId::of(A::KIND, NAME)) {
            Ok(seq) => seq,
            Err(error) => panic!("{}/{NAME}: {error}", A::KIND),
        }
    }

    /// The state, live, replayed and loaded, is one.
    fn check(&self, when: &str) {
        let addr = self.addr();
        // Between two turns, so that nothing is appended meanwhile.
        let live = addr.peek(|live| {
            let replayed = past::replay::<A>(&*self.memory, NAME);
            let replayed = replayed.unwrap_or_else(|why| panic!("{when}: {why}"));
            assert!(
                (self.same)(live, &replayed),
                "{when}: the state is another than its events make"
            );
            if let Some(archive) = &self.archive {
                let mut bytes = AlignedVec::new();
                let back = (archive.encode)(live, &mut bytes);
                match back.and_then(|()| (archive.decode)(&bytes)) {
                    Ok(back) => assert!(
                        (self.same)(live, &back),
                        "{when}: the state is another one after its archive"
                    ),
                    Err(error) => panic!("{when}: the state's archive: {error}"),
                }
            }
            replayed
        });
        let replayed = live.unwrap_or_else(|error| panic!("{when}: {error}")).value;
        let loaded = addr
            .passivate()
            .and_then(|()| addr.peek(|loaded| (self.same)(loaded, &replayed)))
            .unwrap_or_else(|error| panic!("{when}: {error}"));
        assert!(loaded.value, "{when}: the state is another one after a load");
    }
}

impl<A: Actor> Debug for Kit<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit")
            .field("kind", &A::KIND)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

/// What a command has done.
pub struct Then<A: Actor, R> {
    kit: Kit<A>,
    before: Seq,
    reply: Result<R, ActorError>,
}

#[expect(clippy::return_self_not_must_use, reason = "the last expectation of a test")]
impl<A: Actor, R> Then<A, R> {
    /// The events of the command are these, in this order, as they come back from the log.
    ///
    /// # Panics
    /// They are others.
    pub fn expect_events(self, events: impl IntoIterator<Item = A::Event>) -> Self
    where
        A::Event: PartialEq + Debug,
    {
        let expected: Vec<A::Event> = events.into_iter().collect();
        assert_eq!(self.events(), expected, "the events of the command, and what was expected");
        self
    }

    /// `look` at the state; it asserts what it expects.
    ///
    /// # Panics
    /// The state cannot be had, or `look` panics.
    pub fn expect_state(self, look: impl FnOnce(&A)) -> Self {
        if let Err(error) = self.kit.addr().peek(look) {
            panic!("the state: {error}");
        }
        self
    }

    /// The reply is this.
    ///
    /// # Panics
    /// It is another, or there is none.
    #[expect(clippy::needless_pass_by_value, reason = "as it is written in a test")]
    pub fn expect_reply(self, expected: R) -> Self
    where
        R: PartialEq + Debug,
    {
        match &self.reply {
            Ok(reply) => assert_eq!(*reply, expected, "the reply, and what was expected"),
            Err(error) => panic!("no reply, but: {error}"),
        }
        self
    }

    /// There is no reply but an error, such as a panic, that says `part` somewhere.
    ///
    /// # Panics
    /// There is a reply, or an error that does not say so.
    pub fn expect_error(self, part: &str) -> Self {
        match &self.reply {
            Ok(_) => panic!("a reply, and no error"),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(part), "the error `{text}` does not say `{part}`");
            }
        }
        self
    }

    /// The events of the command, as they come back from the log; after
    /// [`settled`](Self::settled), those of what it told its own actor too.
    ///
    /// # Panics
    /// They cannot be read.
    pub fn events(&self) -> Vec<A::Event> {
        read_events::<A>(&self.kit.memory, NAME, self.before)
    }

    /// The reply, or why there is none.
    ///
    /// # Errors
    /// What the actor answered.
    pub fn reply(&self) -> Result<&R, &ActorError> {
        self.reply.as_ref()
    }

    /// All that was told has been handled: see [`Kit::settled`].
    pub fn settled(mut self) -> Self {
        self.kit = self.kit.settled();
        self
    }

    /// The next command: see [`Kit::when`].
    ///
    /// # Panics
    /// As there.
    pub fn when<C>(self, command: C) -> Then<A, A::Reply>
    where
        A: Handle<C>,
        C: Send + 'static,
    {
        self.kit.when(command)
    }

    /// The next command, through its archive: see [`Kit::when_archived`].
    ///
    /// # Panics
    /// As there.
    pub fn when_archived<C>(self, command: &C) -> Then<A, A::Reply>
    where
        A: Handle<C>,
        C: Value,
    {
        self.kit.when_archived(command)
    }

    /// The kit, for what else is to be looked at.
    pub fn kit(&self) -> &Kit<A> {
        &self.kit
    }

    /// The kit, to go on with.
    pub fn into_kit(self) -> Kit<A> {
        self.kit
    }
}

impl<A: Actor, R: Debug> Debug for Then<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Then")
            .field("kit", &self.kit)
            .field("reply", &self.reply)
            .finish_non_exhaustive()
    }
}

fn start(memory: &Arc<Memory>, clock: &Arc<ManualClock>) -> Runtime {
    let (events, snapshots) = (Arc::clone(memory), Arc::clone(memory));
    let options =
        RuntimeOptions { workers: std::num::NonZeroUsize::MIN, ..RuntimeOptions::default() };
    let started = Runtime::start(events, snapshots, Clock::Manual(Arc::clone(clock)), options);
    started.unwrap_or_else(|error| panic!("the runtime of a kit: {error}"))
}

fn read_events<A: Actor>(memory: &Memory, name: &str, after: Seq) -> Vec<A::Event> {
    past::events::<A>(memory, name, after).unwrap_or_else(|why| panic!("{why}"))
}
