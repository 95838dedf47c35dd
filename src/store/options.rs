//! How a store is opened.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Repair, Retain, Store, View};
use crate::actor::{Actor, DeadLetter, Persistence, Recovery, RuntimeOptions};
use crate::disk::{Disk, RealDisk};
use crate::error::Error;
use crate::sync::node::NodeConfig;
use crate::time::Clock;
use crate::types::Durability;

/// What can be set before a [`Store`] is opened. Every value has a default that suits a store
/// of any size on a local disk.
///
/// ```
/// use annals::{Durability, Store};
///
/// let dir = tempfile::tempdir()?;
/// let store = Store::options().durability(Durability::Process).open(dir.path())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `open`"]
pub struct StoreOptions {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Clock,
    pub(crate) runtime: RuntimeOptions,
    /// What was set of `runtime` by its name.
    pub(crate) named: Vec<Named>,
    pub(crate) ring_bytes: usize,
    pub(crate) segment_bytes_first: u64,
    pub(crate) segment_bytes_max: u64,
    pub(crate) frame_bytes_max: usize,
    pub(crate) snapshot_bytes_max: usize,
    pub(crate) flush_interval: Duration,
    pub(crate) flush_bytes: u64,
    pub(crate) threads: bool,
    pub(crate) catalogue: bool,
    pub(crate) scrub: u64,
    pub(crate) retain: Retain,
    pub(crate) compaction: Option<bool>,
    pub(crate) run_bytes_max: u64,
    pub(crate) node: Option<NodeConfig>,
}

/// One setting of the runtime, to be set again over what [`StoreOptions::runtime`] brings.
#[derive(Clone)]
pub(crate) struct Named(Arc<dyn Fn(&mut RuntimeOptions) + Send + Sync>);

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Named")
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            disk: Arc::new(RealDisk),
            clock: Clock::System,
            runtime: RuntimeOptions::default(),
            named: Vec::new(),
            ring_bytes: 8 << 20,
            segment_bytes_first: 1 << 20,
            segment_bytes_max: 64 << 20,
            frame_bytes_max: 2 << 20,
            snapshot_bytes_max: 4 << 20,
            flush_interval: Duration::from_secs(1),
            flush_bytes: 8 << 20,
            threads: true,
            catalogue: true,
            scrub: 0,
            retain: Retain::All,
            compaction: None,
            run_bytes_max: 1 << 30,
            node: None,
        }
    }
}

impl StoreOptions {
    /// Sets something of the runtime by its name.
    fn named(mut self, set: impl Fn(&mut RuntimeOptions) + Send + Sync + 'static) -> Self {
        set(&mut self.runtime);
        self.named.push(Named(Arc::new(set)));
        self
    }

    /// What an acknowledgement survives, unless a kind of actor or a turn says otherwise.
    /// Default: [`Durability::Power`].
    pub fn durability(self, durability: Durability) -> Self {
        self.named(move |runtime| runtime.durability = durability)
    }

    /// Worker threads for commands that were told or had to queue. Default: one a processor.
    pub fn workers(self, workers: NonZeroUsize) -> Self {
        self.named(move |runtime| runtime.workers = workers)
    }

    /// Makes a kind of actor known from the start: what a crash has interrupted (messages, timers,
    /// steps) is taken up by itself only for kinds that are known, and for others once somebody
    /// asks for an address of that kind. What waits for that is told loudly (`owed unclaimed`, with
    /// the feature `tracing`), and stands in [`Recovery::unknown`] and [`Recovery::unknown_kinds`].
    pub fn actor<A: Actor>(self) -> Self {
        self.named(RuntimeOptions::know::<A>)
    }

    /// When turns are appended, unless an actor or its kind says otherwise. Default: each turn by
    /// itself.
    pub fn persistence(self, persistence: Persistence) -> Self {
        self.named(move |runtime| runtime.persistence = persistence)
    }

    /// Told how the taking up of what was interrupted comes along, from a thread of its own.
    pub fn on_recovery(self, tell: impl Fn(&Recovery) + Send + Sync + 'static) -> Self {
        let tell: Arc<dyn Fn(&Recovery) + Send + Sync> = Arc::new(tell);
        self.named(move |runtime| runtime.on_recovery = Some(Arc::clone(&tell)))
    }

    /// Told about each accepted command that got nobody an error and had no effect, on the thread
    /// that found out. It must not block; its panics are ignored.
    ///
    /// ```
    /// use annals::Store;
    ///
    /// let dir = tempfile::tempdir()?;
    /// let options = Store::options().on_dead_letter(|letter| {
    ///     eprintln!("{}/{}: {}: {}", letter.kind, letter.name, letter.command, letter.why);
    /// });
    /// let store = options.open(dir.path())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_dead_letter(self, tell: impl Fn(&DeadLetter) + Send + Sync + 'static) -> Self {
        let tell: Arc<dyn Fn(&DeadLetter) + Send + Sync> = Arc::new(tell);
        self.named(move |runtime| runtime.on_dead_letter = Some(Arc::clone(&tell)))
    }

    /// Steps that run at the same time, each on a thread of its own; at least 1. Default: 64.
    pub fn steps_max(self, steps: usize) -> Self {
        self.named(move |runtime| runtime.steps_max = steps)
    }

    /// So often a message, a timer or a step that came back is offered to a handler that panics,
    /// before it is given up. Default: 5.
    pub fn attempts_max(self, attempts: u32) -> Self {
        self.named(move |runtime| runtime.attempts_max = attempts)
    }

    /// Everything that the actors' runtime takes, where these options have no name for it.
    ///
    /// What is set here by a name of its own counts, whether that came before this or comes after:
    /// services and known kinds are added to those in `runtime`, the others take the place of what
    /// is there.
    ///
    /// ```
    /// use annals::{RuntimeOptions, Store};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let runtime = RuntimeOptions { loads_max: 4, ..RuntimeOptions::default() };
    /// let options = Store::options().residents_max(1_000).runtime(runtime);
    /// let store = options.open(dir.path())?; // with 1,000 residents at most, and 4 loads
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn runtime(mut self, runtime: RuntimeOptions) -> Self {
        self.runtime = runtime;
        for Named(set) in &self.named {
            set(&mut self.runtime);
        }
        self
    }

    /// Adds a value that handlers find by its type, with [`Turn::service`](crate::Turn::service);
    /// another one of the same type is replaced.
    ///
    /// ```
    /// use annals::Store;
    ///
    /// struct Greeting(String);
    ///
    /// let dir = tempfile::tempdir()?;
    /// let store = Store::options().service(Greeting("hello".into())).open(dir.path())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn service<T: Send + Sync + 'static>(self, service: T) -> Self {
        let service = Arc::new(service);
        self.named(move |runtime| runtime.services.share(&service))
    }

    /// About how many actors may be in memory. Default: a million.
    pub fn residents_max(self, actors: usize) -> Self {
        self.named(move |runtime| runtime.residents_max = actors)
    }

    /// After how long without a command an actor's state leaves memory. Default: ten minutes.
    pub fn idle(self, idle: Duration) -> Self {
        self.named(move |runtime| runtime.idle = idle)
    }

    /// Size of the ring, in bytes: what is appended and not yet in its segment. A multiple of
    /// 4096, more than twice `frame_bytes_max`. Default: 8 MiB.
    pub fn ring_bytes(mut self, bytes: usize) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// Sizes of segment files, in bytes: each life of a store begins with one of `first`, and
    /// they double up to `max`. Multiples of 4096; `max` at least four times `frame_bytes_max`.
    /// Default: 1 MiB to 64 MiB.
    pub fn segment_bytes(mut self, first: u64, max: u64) -> Self {
        self.segment_bytes_first = first;
        self.segment_bytes_max = max;
        self
    }

    /// The largest frame, in bytes: what one turn may emit. Default: 2 MiB.
    pub fn frame_bytes_max(mut self, bytes: usize) -> Self {
        self.frame_bytes_max = bytes;
        self
    }

    /// The largest archived state that is stored as a snapshot, in bytes. Actors with larger
    /// ones are replayed. Twice this is kept as a buffer. Default: 4 MiB.
    pub fn snapshot_bytes_max(mut self, bytes: usize) -> Self {
        self.snapshot_bytes_max = bytes;
        self
    }

    /// What is written becomes durable within this time although nobody waits for it: what power
    /// loss can take from a store that acknowledges at [`Durability::Process`]. Default: 1 s.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }

    /// The clock that gives frames their time and idle actors theirs.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The disk that everything goes to: the machine's, or a simulated one.
    #[cfg(any(test, feature = "internals"))]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self.catalogue = false;
        self
    }

    /// Background threads of the log. Without them everything happens in the calls.
    #[cfg(any(test, feature = "internals"))]
    pub fn threads(mut self, threads: bool) -> Self {
        self.threads = threads;
        self
    }

    /// Keeps a catalogue of names and snapshots, in `catalogue/`. Without it, listings read the
    /// log. Default: yes.
    pub fn catalogue(mut self, catalogue: bool) -> Self {
        self.catalogue = catalogue;
        self
    }

    /// Which events are kept. Default: [`Retain::All`].
    pub fn retain(mut self, retain: Retain) -> Self {
        self.retain = retain;
        self
    }

    /// Old segments are compacted in the background: their frames are clustered by actor, which
    /// makes an actor that was not used for long cheap to load, and what need not be kept goes.
    /// Default: only where [`retain`](Self::retain) lets anything go.
    pub fn compaction(mut self, compaction: bool) -> Self {
        self.compaction = Some(compaction);
        self
    }

    /// Makes the store a node of a cluster: it can publish what has changed, and hears what has
    /// changed elsewhere. See [`Store::node`].
    ///
    /// Compaction is on then, unless [`compaction`](Self::compaction) says otherwise: that is what
    /// lets go of tokens that all members have.
    pub fn node(mut self, config: NodeConfig) -> Self {
        self.node = Some(config);
        self
    }

    /// How large compacted files may become, in bytes. Default: 1 GiB.
    pub fn run_bytes_max(mut self, bytes: u64) -> Self {
        self.run_bytes_max = bytes;
        self
    }

    /// Reads all sealed segments again and again in the background, so many bytes a second, and
    /// lists what is wrong in [`Store::findings`]; an hour lies between two passes. 0 is never.
    ///
    /// Default: never, because it is I/O that nobody asked for, and how much of it a disk can
    /// spare is known to nobody here. 8 MiB a second reads 700 GB a day, and most disks do not
    /// notice. The kernel is asked to forget what was read, so that the disk itself is asked the
    /// next time; pages that the store has mapped and touched stay, and of those the memory is
    /// checked rather than the disk.
    pub fn scrub(mut self, bytes_per_second: u64) -> Self {
        self.scrub = bytes_per_second;
        self
    }

    /// Looks at the store at `path` without owning it: see [`Store::read_only`].
    ///
    /// # Errors
    /// As for [`Store::read_only`].
    pub fn read_only(&self, path: impl AsRef<Path>) -> Result<View, Error> {
        View::open(path.as_ref(), self)
    }

    /// Finds out what a repair of the store at `path` would do: see [`Store::repair`].
    ///
    /// # Errors
    /// As for [`Store::repair`].
    pub fn repair(&self, path: impl AsRef<Path>) -> Result<Repair, Error> {
        Repair::plan_for(path.as_ref(), self)
    }

    /// Makes again what is derived: see [`Store::rebuild`].
    ///
    /// # Errors
    /// As for [`Store::rebuild`].
    pub fn rebuild(self, path: impl AsRef<Path>) -> Result<(), Error> {
        super::repair::rebuild(path.as_ref(), self)
    }

    /// Opens the store at `path`, or makes it.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store, Error> {
        Store::open_with(path.as_ref(), self)
    }
}
