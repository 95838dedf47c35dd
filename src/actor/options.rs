//! What can be set for a kind of actor, and for the runtime.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use super::durable::{Durable, Durables, Step, Stepped};
use super::policy::{Decision, Persistence};
use super::resume::{OnRecovery, Registrar};
use super::saving::{SnapshotPolicy, Snapshots};
use super::service::Services;
use super::side::AnswersKept;
use super::stash::STASH_COMMANDS;
use super::supervise::Supervision;
use super::{Actor, ActorError, Handle, Value};
pub use crate::snapshot::KEPT as SNAPSHOTS_KEPT;
use crate::types::Durability;

/// Commands that a mailbox holds by default.
pub const MAILBOX_COMMANDS: u32 = 1024;

/// What [`Actor::options`] answers: how actors of a kind are kept.
///
/// ```
/// use annals::actor::{ActorOptions, SnapshotPolicy};
/// # use annals::actor::Actor;
/// # #[derive(Default, annals::rkyv::Archive, annals::rkyv::Serialize, annals::rkyv::Deserialize)]
/// # #[rkyv(crate = annals::rkyv)]
/// # struct Account;
/// # impl Actor for Account {
/// #     type Event = u8;
/// #     const KIND: &'static str = "account";
/// #     fn apply(&mut self, _: &u8) {}
/// # }
/// use annals::types::Durability;
///
/// let options: ActorOptions<Account> = ActorOptions::new()
///     .durability(Durability::Process)
///     .snapshots(1, SnapshotPolicy::every(1_000).on_passivate());
/// ```
pub struct ActorOptions<A: Actor> {
    pub(crate) durability: Option<Durability>,
    pub(crate) mailbox: u32,
    pub(crate) idle: Option<Duration>,
    pub(crate) snapshots: Option<Snapshots<A>>,
    pub(crate) stash: u32,
    pub(crate) supervision: Option<Supervision>,
    pub(crate) weigh: Option<fn(&A) -> usize>,
    pub(crate) persistence: Option<Persistence>,
    pub(crate) commit_when: Option<fn(&A, &A::Event) -> Decision>,
    pub(crate) answers: AnswersKept,
    pub(crate) durables: Durables<A>,
    /// How states of other versions are read.
    older: Vec<(u16, ReadState<A>)>,
    /// Snapshots that are kept of each actor.
    pub(crate) kept: usize,
}

/// Reads an archived state.
type ReadState<A> = fn(&[u8]) -> Option<A>;

impl<A: Actor> ActorOptions<A> {
    /// The runtime's durability and idle time, a mailbox of [`MAILBOX_COMMANDS`], a stash of
    /// [`STASH_COMMANDS`], no snapshots, no rest after a failure.
    #[must_use]
    pub fn new() -> Self {
        Self {
            durability: None,
            mailbox: MAILBOX_COMMANDS,
            idle: None,
            snapshots: None,
            stash: STASH_COMMANDS,
            supervision: None,
            weigh: None,
            persistence: None,
            commit_when: None,
            answers: AnswersKept { count: 1_000, age_ms: 24 * 60 * 60 * 1_000 },
            durables: Durables::new(),
            older: Vec::new(),
            kept: SNAPSHOTS_KEPT,
        }
    }

    /// How hard a turn must be stored before its reply leaves, instead of the runtime's default.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// When turns are appended, instead of the store's default.
    #[must_use]
    pub fn persistence(mut self, persistence: Persistence) -> Self {
        self.persistence = Some(persistence);
        self
    }

    /// Asks for each event, with the state before it, whether its turn must be appended at once,
    /// may wait, or neither. A panic in it is [`Decision::Commit`].
    #[must_use]
    pub fn commit_when(mut self, decide: fn(&A, &A::Event) -> Decision) -> Self {
        self.commit_when = Some(decide);
        self
    }

    /// How many answers to commands with an id an actor keeps, and for how long: the last 1,000 of
    /// the last 24 hours by default. Older ones go when a newer one comes.
    #[must_use]
    pub fn answers(mut self, count: usize, age: Duration) -> Self {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.answers = AnswersKept { count, age_ms };
        self
    }

    /// A command that can be stored: sent with [`Turn::send`](super::Turn::send), or for later with
    /// [`Turn::wake_at`](super::Turn::wake_at).
    #[must_use]
    pub fn command<C>(mut self) -> Self
    where
        A: Handle<C>,
        C: Durable,
    {
        self.durables.command::<C>();
        self
    }

    /// A step that actors of this kind begin with [`Turn::step`](super::Turn::step).
    #[must_use]
    pub fn step<S>(mut self) -> Self
    where
        A: Handle<Stepped<S>>,
        S: Step,
    {
        self.durables.step::<S>();
        self
    }

    /// How many commands may wait for one actor. At least 1; default [`MAILBOX_COMMANDS`].
    #[must_use]
    pub fn mailbox(mut self, commands: u32) -> Self {
        self.mailbox = commands.max(1);
        self
    }

    /// After how long without a command the state leaves memory, instead of the runtime's
    /// default. Invisible but for the time that the next command takes.
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = Some(idle);
        self
    }

    /// How many commands may be put aside until it is time for them
    /// ([`Handle::admits`](super::Handle::admits)). Default [`STASH_COMMANDS`].
    #[must_use]
    pub fn stash(mut self, commands: u32) -> Self {
        self.stash = commands;
        self
    }

    /// What happens after a turn that panicked, or a state that could not be read just now.
    /// Without this nothing does: the next command finds the actor as if it had not been.
    #[must_use]
    pub fn supervise(mut self, supervision: Supervision) -> Self {
        self.supervision = Some(supervision);
        self
    }

    /// How many bytes a state takes beside its own size, about: what it points to. It is asked
    /// after each turn with events, so it should count, not walk. See
    /// [`RuntimeOptions::resident_bytes_max`].
    #[must_use]
    pub fn weigh(mut self, weigh: fn(&A) -> usize) -> Self {
        self.weigh = Some(weigh);
        self
    }

    /// Stores the state now and then, so that a replay does not begin at the first event.
    ///
    /// `version` is that of the state's type: raise it with every change of its fields. A
    /// snapshot of another version is not used, unless
    /// [`snapshots_from`](Self::snapshots_from) can read it; the events are replayed instead.
    #[must_use]
    pub fn snapshots(mut self, version: u16, policy: SnapshotPolicy<A>) -> Self
    where
        A: Value,
    {
        self.snapshots = Some(Snapshots { version, policy, encode: A::encode, decode: A::decode });
        self
    }

    /// Reads the states that are stored with an older `version`, so that a change of the state's
    /// type costs no replay. `None` where it cannot: then the snapshot before is tried, and at
    /// last the events.
    ///
    /// Where retention has dropped the events below such snapshots, this is the only way to the
    /// actor: keep it as long as there are any.
    #[must_use]
    pub fn snapshots_from(mut self, version: u16, read: fn(&[u8]) -> Option<A>) -> Self {
        self.older.push((version, read));
        self
    }

    /// How many snapshots of an actor that can be used are kept at least; the older ones go when
    /// files are compacted. At least 1; default [`SNAPSHOTS_KEPT`].
    ///
    /// With [`Retain`](crate::Retain), the oldest of these says which events may go.
    #[must_use]
    pub fn keep_snapshots(mut self, count: u32) -> Self {
        self.kept = usize::try_from(count.max(1)).unwrap_or(usize::MAX);
        self
    }

    /// Can states of this version be read?
    pub(crate) fn knows_state(&self, version: u16) -> bool {
        self.snapshots.as_ref().is_some_and(|it| it.version == version)
            || self.older.iter().any(|(known, _)| *known == version)
    }

    /// Reads an archived state. Runs users' code.
    pub(crate) fn read_state(&self, version: u16, bytes: &[u8]) -> Option<A> {
        match &self.snapshots {
            Some(snapshots) if snapshots.version == version => (snapshots.decode)(bytes).ok(),
            Some(_) | None => self.older.iter().find(|(known, _)| *known == version)?.1(bytes),
        }
    }
}

impl<A: Actor> Default for ActorOptions<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Actor> fmt::Debug for ActorOptions<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorOptions")
            .field("durability", &self.durability)
            .field("mailbox", &self.mailbox)
            .field("idle", &self.idle)
            .field("stash", &self.stash)
            .field("supervision", &self.supervision)
            .field("snapshots", &self.snapshots.as_ref().map(|it| (it.version, &it.policy)))
            .field("keep_snapshots", &self.kept)
            .finish_non_exhaustive()
    }
}

/// How a [`Runtime`](super::Runtime) works.
///
/// ```
/// use annals::actor::RuntimeOptions;
///
/// let options = RuntimeOptions { residents_max: 10_000, ..RuntimeOptions::default() };
/// ```
#[derive(Clone)]
pub struct RuntimeOptions {
    /// Threads that run what was told; default one per processor.
    pub workers: NonZeroUsize,
    /// How hard a turn must be stored before its reply leaves.
    ///
    /// Once a failed sync has been noticed, replies at [`Durability::Process`] leave as if they
    /// were at [`Durability::Power`]: what is not on disk is in doubt.
    pub durability: Durability,
    /// How many states may be in memory, about; those unused for longest leave first.
    pub residents_max: usize,
    /// How many bytes the states in memory may take, about; those unused for longest leave first.
    /// What each takes says [`ActorOptions::weigh`], else the size of its type. Default: no limit.
    pub resident_bytes_max: usize,
    /// How many states may be read from storage at the same time; who wants another one waits,
    /// first come, first served. Fewer than there are workers keep the others free for actors
    /// that are in memory. At least 1; default: no limit but that of threads.
    pub loads_max: usize,
    /// After how long without a command a state leaves memory, give or take an eighth, and not
    /// more precisely than some 100 ms.
    pub idle: Duration,
    /// Commands that one actor handles before others have their turn.
    pub visit_commands: NonZeroU32,
    /// How long a drop of the runtime waits for accepted commands.
    pub close_deadline: Duration,
    /// Told about each accepted command that got nobody an error and had no effect, on the
    /// thread that found out. It must not block; panics are ignored.
    pub on_dead_letter: Option<OnDeadLetter>,
    /// When turns are appended, unless an actor or its kind says otherwise.
    pub persistence: Persistence,
    /// Steps that run at the same time, each on a thread of its own.
    pub steps_max: usize,
    /// Actors that are taken up at the same time after a crash.
    pub resume_max: usize,
    /// So often something is taken up that was under way when the process ended, before it is set
    /// aside for [`Runtime::release`](super::Runtime::release).
    pub resume_tries: u32,
    /// So often a message, timer or step that came back is offered to a handler that panics.
    pub attempts_max: u32,
    /// Told how far the recovery has come, from its thread, some times a second and at its end.
    pub on_recovery: Option<OnRecovery>,
    /// Kinds that are known from the start: see [`Self::actor`].
    pub kinds: Vec<Registrar>,
    /// What handlers find by [`Turn::service`](super::Turn::service).
    pub services: Services,
}

impl RuntimeOptions {
    /// Makes a kind of actor known before its first address is asked for: what a crash has
    /// interrupted can be taken up only where its kind is known.
    #[must_use]
    pub fn actor<A: Actor>(mut self) -> Self {
        self.know::<A>();
        self
    }

    pub(crate) fn know<A: Actor>(&mut self) {
        self.kinds.push(Registrar::of::<A>());
    }
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            workers,
            durability: Durability::default(),
            residents_max: 1_000_000,
            resident_bytes_max: usize::MAX,
            loads_max: usize::MAX,
            idle: Duration::from_mins(10),
            visit_commands: NonZeroU32::new(256).unwrap_or(NonZeroU32::MIN),
            close_deadline: Duration::from_secs(10),
            on_dead_letter: None,
            persistence: Persistence::EachTurn,
            steps_max: 64,
            resume_max: 64,
            resume_tries: 3,
            attempts_max: 5,
            on_recovery: None,
            kinds: Vec::new(),
            services: Services::default(),
        }
    }
}

impl fmt::Debug for RuntimeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeOptions")
            .field("workers", &self.workers)
            .field("durability", &self.durability)
            .field("residents_max", &self.residents_max)
            .field("resident_bytes_max", &self.resident_bytes_max)
            .field("loads_max", &self.loads_max)
            .field("idle", &self.idle)
            .field("visit_commands", &self.visit_commands)
            .field("close_deadline", &self.close_deadline)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

/// Who is told about dead letters.
pub type OnDeadLetter = Arc<dyn Fn(&DeadLetter) + Send + Sync>;

/// A command that was told, accepted, and had no effect.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The kind of the actor that it was for.
    pub kind: &'static str,
    /// The name of the actor that it was for.
    pub name: Arc<str>,
    /// The Rust name of the command's type.
    pub command: &'static str,
    /// What happened.
    pub why: ActorError,
}
