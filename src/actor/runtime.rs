//! The runtime: what all actors of a store share.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex, RwLock};

use super::book::Open;
use super::cell::drop_quietly;
use super::close::{CloseReport, Threads};
use super::counts::{ActorStats, Counts, OwedStats};
use super::departures::Departures;
use super::error::Why;
use super::full::FullDisk;
use super::going_back::GoingBack;
use super::kind::{AnyKind, Kind};
use super::ledger::Ledger;
use super::load::{self, Source};
use super::loads::Loads;
use super::note::{Note, Oid};
use super::options::{DeadLetter, RuntimeOptions};
use super::past::{self, At, Past, RawEvent, Span};
use super::provider::{EventStore, Pins, SnapshotRef, SnapshotStore};
use super::ready::Ready;
use super::resume::{self, Recovery, RecoveryPhase};
use super::steps::Steps;
use super::ticket::Deadline;
use super::turn::{in_turn, within_turn};
use super::weight::Weights;
use super::worker::Job;
use super::{Actor, ActorError, Addr, sweep};
use crate::log::name::SYSTEM;
use crate::metrics::{Measure, Meter};
use crate::snapshot::KEPT;
use crate::time::Clock;
use crate::trace;
use crate::types::{Seq, StreamId};

/// Runs actors over a store of events and a store of snapshots.
///
/// ```
/// use annals::actor::memory::Memory;
/// use annals::actor::{Runtime, RuntimeOptions};
/// use annals::time::Clock;
///
/// let memory = Memory::new();
/// let runtime =
///     Runtime::start(memory.clone(), memory, Clock::System, RuntimeOptions::default())?;
/// assert_eq!(runtime.residents(), 0);
/// # Ok::<(), annals::actor::ActorError>(())
/// ```
///
/// Dropping it closes it with [`RuntimeOptions::close_deadline`].
pub struct Runtime {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

impl Runtime {
    /// Starts the threads: `annals-worker-0` and on, and `annals-keeper` which looks for idle
    /// actors. No actor is loaded before its first command.
    ///
    /// The runtime must be the only one that appends to streams of actors in `events`.
    ///
    /// # Errors
    /// [`ActorError::Thread`]; nothing is left running.
    pub fn start(
        events: Arc<dyn EventStore>,
        snapshots: Arc<dyn SnapshotStore>,
        clock: Clock,
        options: RuntimeOptions,
    ) -> Result<Self, ActorError> {
        let (ready, to_do) = Ready::new();
        let (keeper, calls) = crossbeam_channel::bounded(1);
        let ledger = Ledger::new(&events);
        let shared = Arc::new(Shared {
            events,
            snapshots,
            started: clock.monotonic_coarse(),
            clock,
            ready,
            keeper,
            gate: AtomicU8::new(Gate::Open.code()),
            tick: AtomicU32::new(1),
            residents: AtomicUsize::new(0),
            dead_letters: AtomicU64::new(0),
            activity: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            full: FullDisk::default(),
            loads: Loads::new(options.loads_max),
            weights: Weights::new(options.resident_bytes_max),
            options,
            ended: Mutex::new(0),
            changed: Condvar::new(),
            meter: Meter::default(),
            kinds: RwLock::default(),
            ledger,
            steps: Steps::new(),
            going_back: Arc::default(),
            departures: Departures::default(),
            remembered: Mutex::default(),
            recovery: Mutex::default(),
            recovered: Condvar::new(),
            quarantined: Mutex::default(),
            counts: Counts::default(),
        });
        shared.events.heed(Arc::<Ledger>::clone(&shared.ledger));
        for registrar in &shared.options.kinds {
            registrar.register(&shared)?;
        }
        if let Clock::Manual(clock) = &shared.clock {
            let ledger = Arc::downgrade(&shared.ledger);
            clock.watch(Box::new(move || match ledger.upgrade() {
                Some(ledger) => {
                    ledger.look();
                    true
                }
                None => false,
            }));
        }
        let threads = Threads::start(&shared, &to_do, calls)?;
        Ok(Self { shared, threads: Mutex::new(Some(threads)) })
    }

    /// The address of the actor of that name, whether it exists yet or not. Nothing is loaded.
    ///
    /// The first call for a type registers it.
    ///
    /// # Errors
    /// [`ActorError::BadName`], [`ActorError::KindTaken`], [`ActorError::Collision`],
    /// [`ActorError::Closed`].
    pub fn actor<A: Actor>(&self, name: &str) -> Result<Addr<A>, ActorError> {
        self.shared.gate().outside()?;
        self.shared.actor(name)
    }

    /// States in memory.
    pub fn residents(&self) -> usize {
        self.shared.residents()
    }

    /// Bytes that the states in memory take, about: 0 where
    /// [`RuntimeOptions::resident_bytes_max`] sets no limit, since nobody counts then.
    pub fn resident_bytes(&self) -> u64 {
        self.shared.weights.bytes()
    }

    /// Names that are known to somebody, or whose state is in memory.
    pub fn names(&self) -> usize {
        self.shared.each_kind().iter().map(|kind| kind.names()).sum()
    }

    /// Accepted commands so far that had no effect, and got nobody an error.
    pub fn dead_letters(&self) -> u64 {
        self.shared.dead_letters.load(Ordering::Relaxed)
    }

    /// The kinds that have been asked for so far, by their names.
    pub(crate) fn kinds(&self) -> KnownKinds {
        KnownKinds(Arc::clone(&self.shared))
    }

    /// Visits what happened to `A`/`name`; see
    /// [`Store::visit_history`](crate::Store::visit_history).
    ///
    /// # Errors
    /// [`ActorError::Read`], [`ActorError::Stopped`], [`ActorError::Collision`]; what came before
    /// was visited.
    pub fn visit_history<A: Actor>(
        &self,
        name: &str,
        span: impl Into<Span>,
        visit: &mut dyn FnMut(Past<A::Event>) -> ControlFlow<()>,
    ) -> Result<(), ActorError> {
        past::visit::<A>(&*self.shared.events, name, &span.into(), visit)
    }

    /// Visits what is stored of `kind`/`name`; see
    /// [`Store::raw_history`](crate::Store::raw_history).
    ///
    /// # Errors
    /// [`ActorError::Read`], [`ActorError::Collision`]; what came before was visited.
    pub fn raw_history(
        &self,
        actor: (&str, &str),
        span: impl Into<Span>,
        visit: &mut dyn FnMut(RawEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(), ActorError> {
        past::visit_raw(&*self.shared.events, actor, &span.into(), visit)
    }

    /// The state of `A`/`name` as it is or once was; see
    /// [`Store::state_at`](crate::Store::state_at).
    ///
    /// # Errors
    /// [`ActorError::Read`], [`ActorError::NoEvent`], [`ActorError::Stopped`],
    /// [`ActorError::Collision`].
    pub fn state_at<A: Actor>(&self, name: &str, at: At) -> Result<(A, Seq), ActorError> {
        let shared = &*self.shared;
        let known = shared.kinds.read().get::<A>().cloned();
        let fresh = known.is_none().then(A::options);
        let fresh = fresh.unwrap_or_default();
        let source = Source {
            name,
            stream: StreamId::of(A::KIND, name),
            events: &*shared.events,
            snapshots: &*shared.snapshots,
            options: known.as_ref().map_or(&fresh, |kind| &kind.options),
        };
        past::state_at(&source, at)
    }

    /// What must stay of the events.
    pub(crate) fn pins(&self) -> Arc<dyn Pins> {
        Arc::<Ledger>::clone(&self.shared.ledger)
    }

    /// How far the taking up of what was interrupted has come.
    pub fn recovery(&self) -> Recovery {
        self.shared.recovery.lock().clone()
    }

    /// Waits until everything was taken up that can be, at most that long. Answers how far it has
    /// come.
    pub fn wait_recovered(&self, limit: Duration) -> Recovery {
        let deadline = Deadline::after(limit);
        let mut recovery = self.shared.recovery.lock();
        while matches!(recovery.phase, RecoveryPhase::Reading | RecoveryPhase::Resuming)
            && !deadline.is_over()
        {
            self.shared.recovered.wait_for(&mut recovery, deadline.left());
        }
        recovery.clone()
    }

    /// Messages that were not handled, timers that are armed and steps that have not ended, of all
    /// actors; as far as the [recovery](Self::recovery) has read what earlier lives have left.
    pub fn owed(&self) -> usize {
        self.shared.ledger.open()
    }

    /// What is owed for longest.
    pub(crate) fn oldest_owed(&self, max: usize) -> Vec<(Oid, Open, u32)> {
        self.shared.ledger.oldest(max)
    }

    /// What is owed now, and what has become of it.
    pub fn owed_stats(&self) -> OwedStats {
        self.shared.owed_stats()
    }

    /// What few turns do.
    pub fn actor_stats(&self) -> ActorStats {
        self.shared.counts.stats()
    }

    /// Takes up what was set aside ([`Recovery::quarantined`], [`Recovery::in_doubt`]) after all.
    /// `false` if it is not open, or was not set aside.
    ///
    /// # Errors
    /// That it is released could not be stored; it stays as it is.
    pub fn release(&self, oid: Oid) -> Result<bool, ActorError> {
        if !self.shared.quarantined.lock().remove(&oid) {
            return Ok(false);
        }
        let Some(open) = self.shared.ledger.get(oid) else { return Ok(false) };
        if let Err(error) = self.shared.remember(&[Note::Freed { oid }]) {
            self.shared.quarantine(oid);
            return Err(error.into());
        }
        let path = self.shared.events.path();
        trace::OwedReleased { path, owed: &oid, lsn: open.lsn.get() }.tell();
        resume::deliver(&self.shared, oid, open, None);
        Ok(true)
    }

    /// Looks for idle actors now, instead of when it is time. For tests with a clock of their
    /// own.
    pub fn sweep(&self) {
        sweep::sweep(&self.shared);
    }

    /// Accepts no more commands, and returns when those accepted have been handled, or at the
    /// deadline. Messages that they send to other actors are handled too.
    ///
    /// At the deadline (a fifth of a second later if a turn does not end) whoever still waits
    /// gets [`ActorError::Closed`], and commands that were told are counted as dead letters. What
    /// was appended is appended; nothing is synced here, and no snapshots are taken.
    /// Inside a turn it waits for nobody. A second call does nothing.
    pub fn close(&self, deadline: Duration) -> CloseReport {
        let Some(threads) = self.threads.lock().take() else { return CloseReport::default() };
        let deadline = if in_turn() { Duration::ZERO } else { deadline };
        threads.close(&self.shared, deadline)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let deadline = self.shared.options.close_deadline;
        let _report: CloseReport = self.close(deadline);
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("options", &self.shared.options)
            .field("residents", &self.residents())
            .field("dead_letters", &self.dead_letters())
            .finish_non_exhaustive()
    }
}

/// The kinds of actors that a runtime knows, as retention sees them.
#[derive(Clone)]
pub(crate) struct KnownKinds(Arc<Shared>);

impl KnownKinds {
    pub(super) fn of(shared: &Shared, kind: &str) -> Option<Arc<dyn AnyKind>> {
        let kinds = shared.kinds.read();
        let id = kinds.by_name.get(kind)?;
        Some(Arc::clone(&kinds.by_type.get(id)?.any))
    }

    fn get(&self, kind: &str) -> Option<Arc<dyn AnyKind>> {
        let kinds = self.0.kinds.read();
        let id = kinds.by_name.get(kind)?;
        Some(Arc::clone(&kinds.by_type.get(id)?.any))
    }

    /// Snapshots that are kept of each actor of a kind.
    pub(crate) fn keeps(&self, kind: &str) -> usize {
        self.get(kind).map_or(KEPT, |kind| kind.keeps())
    }

    /// May retention drop what lies below event `upto`, as far as rewinds are concerned? Until
    /// [`dropped`](Self::dropped) is called none goes back below it.
    pub(crate) fn drop_below(&self, stream: StreamId, upto: Seq) -> bool {
        let going_back = &self.0.going_back;
        if !going_back.drop_below(stream, upto) {
            return false;
        }
        let goes_below = load::goes_below(&*self.0.events, stream, upto);
        if goes_below {
            going_back.keep(stream);
        }
        !goes_below
    }

    /// What retention was to drop is gone, or stays.
    pub(crate) fn dropped(&self) {
        self.0.going_back.dropped();
    }

    /// Can an actor of this process begin with it? `None` where its kind is not known.
    pub(crate) fn reads(&self, snapshot: &SnapshotRef<'_>) -> Option<bool> {
        Some(self.get(snapshot.kind)?.reads(snapshot))
    }

    /// Stores the state of an actor; see [`AnyKind::store_state`].
    pub(crate) fn store_state(&self, kind: &str, name: &str) -> bool {
        self.get(kind).is_some_and(|kind| kind.store_state(name))
    }
}

impl fmt::Debug for KnownKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownKinds").finish_non_exhaustive()
    }
}

/// What is published of them.
#[cfg(feature = "metrics")]
impl KnownKinds {
    pub(crate) fn residents(&self) -> usize {
        self.0.residents()
    }

    pub(crate) fn names(&self) -> usize {
        self.0.each_kind().iter().map(|kind| kind.names()).sum()
    }

    /// Jobs that wait for a worker.
    pub(crate) fn ready(&self) -> usize {
        self.0.ready.len()
    }

    pub(crate) fn dead_letters(&self) -> u64 {
        self.0.dead_letters()
    }

    pub(crate) fn owed_stats(&self) -> OwedStats {
        self.0.owed_stats()
    }

    pub(crate) fn actor_stats(&self) -> ActorStats {
        self.0.counts.stats()
    }

    pub(crate) fn recovery(&self) -> Recovery {
        self.0.recovery.lock().clone()
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.0.meter
    }
}

/// Who may still send commands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// What was accepted is handled; only turns may send on.
    Closing,
    Closed,
}

impl Gate {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Closing => 1,
            Self::Closed => 2,
        }
    }

    /// May a caller come in?
    pub(crate) const fn outside(self) -> Result<(), Why> {
        match self {
            Self::Open => Ok(()),
            Self::Closing | Self::Closed => Err(Why::Closed),
        }
    }

    /// May a turn send?
    pub(crate) const fn inside(self) -> Result<(), Why> {
        match self {
            Self::Open | Self::Closing => Ok(()),
            Self::Closed => Err(Why::Closed),
        }
    }

    /// May this thread?
    pub(crate) fn here(self) -> Result<(), Why> {
        if in_turn() { self.inside() } else { self.outside() }
    }
}

/// What cells, workers and tickets share.
pub(crate) struct Shared {
    pub(crate) events: Arc<dyn EventStore>,
    pub(crate) snapshots: Arc<dyn SnapshotStore>,
    pub(crate) clock: Clock,
    pub(crate) options: RuntimeOptions,
    /// What ticks count from.
    started: Duration,
    /// Unbounded, but with at most one visit per actor in it.
    pub(crate) ready: Ready,
    /// A call wakes the keeper, a second one before that is not needed; `Stop` ends it.
    keeper: Sender<sweep::Call>,
    gate: AtomicU8,
    tick: AtomicU32,
    residents: AtomicUsize,
    dead_letters: AtomicU64,
    /// Visits ended since the gate began to close.
    activity: AtomicU64,
    poisoned: AtomicBool,
    pub(crate) full: FullDisk,
    pub(crate) loads: Loads,
    pub(crate) weights: Weights,
    /// Threads that have ended.
    pub(crate) ended: Mutex<usize>,
    /// Of `ended` or `activity`.
    pub(crate) changed: Condvar,
    pub(crate) meter: Meter,
    kinds: RwLock<Kinds>,
    /// What is owed, and when it is due.
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) steps: Steps,
    pub(crate) going_back: Arc<GoingBack>,
    pub(crate) departures: Departures,
    /// The last number of the stream that remembers what was taken up, once it is known.
    pub(crate) remembered: Mutex<Option<Seq>>,
    recovery: Mutex<Recovery>,
    recovered: Condvar,
    /// What is not taken up by itself.
    quarantined: Mutex<HashSet<Oid>>,
    pub(crate) counts: Counts,
}

#[derive(Default)]
struct Kinds {
    by_type: HashMap<TypeId, KindEntry>,
    by_name: HashMap<&'static str, TypeId>,
}

struct KindEntry {
    /// An `Arc<Kind<A>>`.
    typed: Box<dyn Any + Send + Sync>,
    any: Arc<dyn AnyKind>,
}

impl Shared {
    pub(crate) fn actor<A: Actor>(self: &Arc<Self>, name: &str) -> Result<Addr<A>, ActorError> {
        if let Some(kind) = self.kinds.read().get::<A>() {
            return kind.addr(name);
        }
        let kind = self.register::<A>()?;
        kind.addr(name)
    }

    pub(crate) fn register<A: Actor>(self: &Arc<Self>) -> Result<Arc<Kind<A>>, ActorError> {
        // Before the lock, since `options` is a user's code.
        let kind = Arc::new(Kind::<A>::new(Arc::clone(self)));
        let mut kinds = self.kinds.write();
        self.gate().here()?;
        if let Some(known) = kinds.get::<A>() {
            return Ok(Arc::clone(known));
        }
        let good = !A::KIND.is_empty()
            && u16::try_from(A::KIND.len()).is_ok()
            && !A::KIND.starts_with(SYSTEM);
        if !good || kinds.by_name.contains_key(A::KIND) {
            return Err(ActorError::KindTaken { kind: A::KIND });
        }
        let any: Arc<dyn AnyKind> = Arc::<Kind<A>>::clone(&kind);
        let entry = KindEntry { typed: Box::new(Arc::clone(&kind)), any };
        kinds.by_name.insert(A::KIND, TypeId::of::<A>());
        kinds.by_type.insert(TypeId::of::<A>(), entry);
        drop(kinds);
        self.ledger.unpark(A::KIND, self.clock.wall_ms());
        Ok(kind)
    }

    /// Has everything been taken up that can be?
    pub(crate) fn is_recovered(&self) -> bool {
        self.recovery.lock().phase == RecoveryPhase::Done
    }

    pub(crate) fn tell_recovery(&self, recovery: &Recovery) {
        recovery.clone_into(&mut self.recovery.lock());
        self.recovered.notify_all();
        if let Some(observer) = &self.options.on_recovery
            && let Err(payload) = catch_unwind(AssertUnwindSafe(|| observer(recovery)))
        {
            drop_quietly(payload);
        }
    }

    fn owed_stats(&self) -> OwedStats {
        let mut stats = self.ledger.stats();
        let set_aside = self.quarantined.lock().clone();
        stats.set_aside = self.ledger.open_of(&set_aside);
        self.counts.add_to(&mut stats);
        stats
    }

    pub(crate) fn quarantine(&self, oid: Oid) {
        self.quarantined.lock().insert(oid);
    }

    pub(crate) fn each_kind(&self) -> Vec<Arc<dyn AnyKind>> {
        self.kinds.read().by_type.values().map(|entry| Arc::clone(&entry.any)).collect()
    }

    pub(crate) fn forget_kinds(&self) {
        let kinds = std::mem::take(&mut *self.kinds.write());
        drop(kinds);
    }

    pub(crate) fn gate(&self) -> Gate {
        // Acquire: pairs with the Release in `shut`.
        match self.gate.load(Ordering::Acquire) {
            0 => Gate::Open,
            1 => Gate::Closing,
            _ => Gate::Closed,
        }
    }

    pub(crate) fn shut(&self, gate: Gate) {
        // Release: pairs with the Acquire in `gate`. That every sender sees it is the doing of
        // the lane locks, each of which a close takes once after this.
        self.gate.store(gate.code(), Ordering::Release);
    }

    pub(crate) fn send(&self, job: Job) {
        self.ready.send(job);
    }

    pub(crate) fn call_keeper(&self, call: sweep::Call) {
        // A call that finds no room is not needed: the keeper has been called already. It looks
        // at the gate before it waits again.
        let _called: Result<(), _> = self.keeper.try_send(call);
    }

    /// Coarse time in units of [`sweep::TICK_MS`], from 1; good for comparing ages.
    pub(crate) fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Brings the tick up to date.
    pub(crate) fn advance_tick(&self) -> u32 {
        let elapsed = self.clock.monotonic_coarse().saturating_sub(self.started).as_millis();
        let ticks = u32::try_from(elapsed / u128::from(sweep::TICK_MS)).unwrap_or(u32::MAX - 1);
        self.tick.store(ticks + 1, Ordering::Relaxed);
        ticks + 1
    }

    pub(crate) fn residents(&self) -> usize {
        self.residents.load(Ordering::Relaxed)
    }

    pub(crate) fn resident_added(&self) {
        let before = self.residents.fetch_add(1, Ordering::Relaxed);
        if before >= self.options.residents_max {
            self.call_keeper(sweep::Call::Crowded);
        }
    }

    pub(crate) fn resident_removed(&self) {
        self.residents.fetch_sub(1, Ordering::Relaxed);
    }

    /// An actor was read, from a snapshot at `from` or from its first event.
    pub(crate) fn loaded<A: Actor>(
        &self,
        name: &str,
        (from, seq): (Seq, Seq),
        began: Option<Duration>,
    ) {
        let (from, seq) = (from.get(), seq.get());
        trace::ActorLoaded { kind: A::KIND, name, seq, snapshot: from }.tell();
        if began.is_some() {
            self.meter.took((Measure::Load, A::KIND), &self.clock, began);
            self.meter.add(Measure::LoadEvents, A::KIND, seq.saturating_sub(from));
        }
    }

    /// A failed sync has come to notice.
    pub(crate) fn note_poisoned(&self) {
        self.poisoned.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        // Relaxed: it orders nothing; the store itself says what is durable.
        self.poisoned.load(Ordering::Relaxed)
    }

    pub(crate) fn note_activity(&self) {
        self.activity.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_all();
    }

    pub(crate) fn activity(&self) -> u64 {
        self.activity.load(Ordering::SeqCst)
    }

    pub(crate) fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Relaxed)
    }

    pub(crate) fn dead_letter(&self, letter: &DeadLetter) {
        self.dead_letters.fetch_add(1, Ordering::Relaxed);
        let DeadLetter { kind, name, command, why } = letter;
        within_turn(|| trace::DeadLetter { kind, name, command, error: why }.tell());
        if let Some(observer) = &self.options.on_dead_letter
            && let Err(payload) = catch_unwind(AssertUnwindSafe(|| observer(letter)))
        {
            drop_quietly(payload);
        }
    }
}

impl Kinds {
    fn get<A: Actor>(&self) -> Option<&Arc<Kind<A>>> {
        self.by_type.get(&TypeId::of::<A>())?.typed.downcast_ref()
    }
}
