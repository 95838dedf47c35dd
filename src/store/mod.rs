//! The store: one folder, opened by one process, and everything in it.
//!
//! ```text
//! <path>/LOCK        held while the store is open; the owner's process number
//!        identity    who the store is, and its newest life (two slots)
//!        mark        how far the event log had been durable (two slots)
//!        ring        what was appended last; never synced
//!        log/        segments of events and their indexes
//!        snapshots/  segments of archived states
//!        ckpt-<pos>  what was counted and owed, and the segments' headers; the last two
//!        catalogue/  derived: names; delete it at will
//! ```
//!
//! Opening goes: lock, identity, look through both logs and make sound what is kept, write the
//! new life, begin it. Nothing is answered before all of that is durable.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::actor::{Actor, ActorStats, Addr, CloseReport, OwedStats, Recovery, Runtime};
use crate::catalogue::{Catalogue, CatalogueState, names_from};
use crate::disk::{Disk, LockGuard};
use crate::error::{DiskError, Error, OpenError};
use crate::log::{Evidence, Log, LogOptions, LogStats, Opening, RecoveryReport, Totals};
use crate::metrics::Phases;
use crate::snapshot::{SnapshotStats, Snapshots};
use crate::sync::node::{Lives, Node, NodeError, NodeStats, Place};
use crate::trace::{self, Work};
use crate::types::Life;

mod backup;
mod cursor;
mod edge;
mod history;
mod identity;
mod noted;
mod options;
mod owed;
mod providers;
#[cfg(feature = "metrics")]
mod publish;
mod publishing;
mod repair;
mod retain;
mod scrub;
mod stream;
#[cfg(test)]
mod tests;
mod told;
mod verify;
mod view;

pub use backup::{Backup, BackupOptions};
use cursor::Cursors;
pub use cursor::{Cursor, CursorInfo, CursorStats};
use edge::Leases;
pub use edge::{Api, Inbox, Keeper, Occurrence, Outbox};
use identity::{Identity, IdentityFile};
pub use noted::{Noted, StepEnd, Stored};
pub use options::StoreOptions;
pub use owed::{Debt, Owed};
use publishing::Publishing;
pub use repair::{Plan, Repair, RepairStep, Repaired};
use retain::Retention;
pub use retain::{Retain, RetentionStats};
use scrub::Scrub;
pub use scrub::ScrubStats;
use stream::Readers;
pub use stream::{
    Begin, Change, Delivery, Fact, Feed, Filter, Happening, Position, Subscription,
    SubscriptionStats, Told,
};
pub use verify::{Progress, Verification};
pub use view::{ActorName, LastLife, SnapshotInfo, View};

/// Told apart from the event log's id, so that no frame of one is ever taken for the other's.
const SNAPSHOTS_ID: u64 = 0x536e_6170_7368_6f74;

/// An open store.
///
/// ```
/// use annals::{Actor, Handle, Store, Turn};
/// use annals::rkyv::{Archive, Deserialize, Serialize};
///
/// #[derive(Default)]
/// struct Counter(u64);
///
/// #[derive(Archive, Serialize, Deserialize)]
/// #[rkyv(crate = annals::rkyv)]
/// struct Added(u64);
///
/// impl Actor for Counter {
///     type Event = Added;
///     const KIND: &'static str = "counter";
///     fn apply(&mut self, event: &Added) {
///         self.0 += event.0;
///     }
/// }
///
/// struct Add(u64);
/// impl Handle<Add> for Counter {
///     type Reply = u64;
///     fn handle(command: Add, turn: &mut Turn<'_, Self>) -> u64 {
///         turn.emit(Added(command.0));
///         turn.0
///     }
/// }
///
/// let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path())?;
/// assert_eq!(store.actor::<Counter>("visits")?.ask(Add(2))?, 2);
/// drop(store);
///
/// let store = Store::open(dir.path())?;
/// assert_eq!(store.actor::<Counter>("visits")?.ask(Add(3))?, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Dropping it closes it; see [`Store::close`].
#[derive(Debug)]
pub struct Store {
    // In the order in which they end: no actor without a log, no log without the lock.
    scrub: Option<Scrub>,
    retention: Retention,
    runtime: Runtime,
    catalogue: Option<Arc<Catalogue>>,
    snapshots: Arc<Snapshots>,
    cursors: Arc<Cursors>,
    node: Option<Arc<Node>>,
    readers: Arc<Readers>,
    leases: Leases,
    events: Arc<Log>,
    report: OpenReport,
    close_deadline: Duration,
    path: PathBuf,
    options: StoreOptions,
    #[cfg(feature = "metrics")]
    publisher: publish::Publisher,
    /// It was told that it closes.
    ended: AtomicBool,
    _lock: Box<dyn LockGuard>,
}

/// What an open found and did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenReport {
    /// The store's random id.
    pub store: u64,
    /// The life that began.
    pub life: Life,
    /// The event log.
    pub events: RecoveryReport,
    /// The snapshot log.
    pub snapshots: RecoveryReport,
    /// From the call to the store.
    pub took: Duration,
}

/// Numbers since the store was opened.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// The event log's.
    pub log: LogStats,
    /// The snapshot store's.
    pub snapshots: SnapshotStats,
    /// Actors in memory.
    pub residents: usize,
    /// Commands that were accepted and had no effect.
    pub dead_letters: u64,
    /// The scrub's.
    pub scrub: ScrubStats,
    /// What became of old files.
    pub retention: RetentionStats,
    /// What actors owe, and what became of that.
    pub owed: OwedStats,
    /// What few turns do.
    pub actors: ActorStats,
    /// What there is of cursors.
    pub cursors: CursorStats,
    /// Those who follow what happens.
    pub subscriptions: SubscriptionStats,
    /// The node's, if the store is one.
    pub node: NodeStats,
}

impl Store {
    /// Opens the store at `path` with the defaults, or makes it.
    ///
    /// # Errors
    /// [`OpenError`]: `Locked` where another process has it open, `Damage` where promised bytes
    /// are gone (nothing is changed then), `Disk`, `Version`, `Layout`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        StoreOptions::default().open(path)
    }

    /// Looks at the store at `path` without owning it: takes no lock, writes nothing, and works
    /// whoever has it open and whatever is wrong with it. What is wrong is in
    /// [`View::findings`].
    ///
    /// # Errors
    /// [`OpenError::NoStore`], `Version`, `Layout`, `Disk`.
    pub fn read_only(path: impl AsRef<Path>) -> Result<View, Error> {
        StoreOptions::default().read_only(path)
    }

    /// Finds out what is wrong with the store at `path`, which nobody may have open, and what a
    /// repair would do. Changes nothing until [`Repair::carry_out`] is called.
    ///
    /// # Errors
    /// [`OpenError::Locked`], and as for [`read_only`](Self::read_only).
    pub fn repair(path: impl AsRef<Path>) -> Result<Repair, Error> {
        StoreOptions::default().repair(path)
    }

    /// Drops catalogue, indexes and checkpoints of the store at `path`, which nobody may have
    /// open, and makes them again.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn rebuild(path: impl AsRef<Path>) -> Result<(), Error> {
        StoreOptions::default().rebuild(path)
    }

    /// What can be set before opening.
    pub fn options() -> StoreOptions {
        StoreOptions::default()
    }

    /// The store's part in a cluster.
    ///
    /// # Errors
    /// [`NodeError::NoNode`] where it was opened without [`StoreOptions::node`].
    pub fn node(&self) -> Result<&Arc<Node>, Error> {
        self.node.as_ref().ok_or_else(|| NodeError::NoNode.into())
    }

    pub(crate) fn open_with(path: &Path, options: StoreOptions) -> Result<Self, Error> {
        let _span = trace::within(Work::Open, path);
        let opened = Self::open_parts(path, options);
        told::opened(path, &opened);
        opened
    }

    #[expect(clippy::too_many_lines, reason = "one order of steps, each once")]
    fn open_parts(path: &Path, options: StoreOptions) -> Result<Self, Error> {
        let began = options.clock.monotonic();
        let mut phases = Phases::new(&options.clock);
        let kept = options.clone();
        let disk = Arc::clone(&options.disk);
        let lock = take(&*disk, path)?;
        let (event_options, mut snapshot_options) = log_options(path, &options);
        let begun = has_files(&*disk, &event_options.dir)?;
        let identity_file = IdentityFile::read(&*disk, &path.join("identity"), begun)?;
        let known = identity_file.identity;
        let store = known.map_or_else(random, |identity| Ok(identity.store))?;
        let boot = disk.boot();
        let evidence = known.map_or(Evidence::default(), |identity| Evidence {
            durable: identity.durable,
            killed: (boot != 0 && identity.boot == boot).then_some(identity.life),
        });

        phases.ended("lock");
        let events = Opening::new(&disk, event_options, store, evidence)?;
        phases.ended("events");
        // Once events have been dropped, their snapshots are all there is of them.
        snapshot_options.rebuildable = !events.has_dropped();
        let snapshots = Opening::new(&disk, snapshot_options, store ^ SNAPSHOTS_ID, 0)?;
        phases.ended("snapshots");
        let life = Life {
            number: known.map_or(0, |identity| identity.life.number).saturating_add(1),
            bits: random()?,
        };
        let identity = Identity {
            store,
            node: known.map_or_else(random, |identity| Ok(identity.node))?,
            life,
            durable: events.report().end,
            boot,
        };
        // After what the old life left was made sound, before the first frame of the new one.
        identity_file.write(&*disk, path, &identity)?;
        let (events, event_report) = events.start(life)?;
        let (snapshots, snapshot_report) = snapshots.start(life)?;
        phases.ended("begin");
        let events = Arc::new(events);
        let thread = (options.threads, options.flush_interval);
        let snapshots =
            Snapshots::start(snapshots, Arc::clone(&events), thread, options.snapshot_bytes_max)?;
        let snapshots = Arc::new(snapshots);
        let catalogue = options
            .catalogue
            .then(|| Catalogue::start(path.join("catalogue"), Arc::clone(&events)))
            .transpose()?
            .map(Arc::new);
        let close_deadline = options.runtime.close_deadline;
        let publishing = Publishing::new(&events);
        // Before anything else of this life: token 1 is the node's birth.
        let node = match kept.node.clone() {
            None => None,
            Some(config) => {
                let lives = Lives {
                    life,
                    before: known.map_or(0, |identity| identity.life.number),
                    whole: evidence.killed.is_some() && event_report.damage.is_none(),
                    end: event_report.end,
                };
                let place = Place {
                    disk: Arc::clone(&disk),
                    dir: path.to_owned(),
                    store,
                    lives,
                    log: Arc::clone(&events),
                    clock: options.clock.clone(),
                    durability: options.runtime.durability,
                    threads: options.threads,
                };
                let node = Arc::new(Node::start(config, place)?);
                publishing.begin(Arc::clone(&node));
                Some(node)
            }
        };
        let runtime = Runtime::start(
            Arc::clone(&publishing) as Arc<dyn crate::actor::provider::EventStore>,
            Arc::clone(&snapshots) as Arc<dyn crate::actor::provider::SnapshotStore>,
            options.clock.clone(),
            options.runtime,
        )?;
        let cursors = Cursors::new(&events);
        let pinned = cursor::Pinned {
            owed: runtime.pins(),
            cursors: Arc::clone(&cursors),
            node: node.clone(),
        };
        let readers = Arc::<Readers>::default();
        let retention = Retention::start(
            (&events, &snapshots),
            (runtime.kinds(), Arc::new(pinned), catalogue.clone()),
            retain::Policy::of(
                &options.retain,
                options.compaction.or(node.is_some().then_some(true)),
                options.run_bytes_max,
            ),
            (options.clock.clone(), options.threads),
        )?;
        let report = OpenReport {
            store,
            life,
            events: event_report,
            snapshots: snapshot_report,
            took: options.clock.monotonic().saturating_sub(began),
        };
        let path = path.to_owned();
        let scrub = (kept.scrub > 0)
            .then(|| Scrub::start(path.clone(), kept.clone(), kept.scrub))
            .transpose()?;
        phases.ended("start");
        #[cfg(feature = "metrics")]
        let publisher = {
            let sources = publish::Sources {
                events: Arc::clone(&events),
                snapshots: Arc::clone(&snapshots),
                kinds: runtime.kinds(),
                retention: retention.counted(),
                scrub: scrub.as_ref().map(Scrub::counted),
                cursors: Arc::clone(&cursors),
                readers: Arc::clone(&readers),
                node: node.clone(),
            };
            let publisher = publish::Publisher::start(&path, sources, kept.threads)?;
            publisher.opened(&phases.took);
            publisher
        };
        Ok(Self {
            scrub,
            retention,
            runtime,
            catalogue,
            snapshots,
            cursors,
            node,
            readers,
            leases: Leases::default(),
            events,
            report,
            close_deadline,
            path,
            options: kept,
            #[cfg(feature = "metrics")]
            publisher,
            ended: AtomicBool::new(false),
            _lock: lock,
        })
    }

    /// The address of an actor: a name, not a spawn. It is loaded at its first command.
    ///
    /// # Errors
    /// [`crate::actor::ActorError`]: `BadName`, `KindTaken`, `Collision`, `Closed`.
    pub fn actor<A: Actor>(&self, name: &str) -> Result<Addr<A>, Error> {
        Ok(self.runtime.actor(name)?)
    }

    /// The names of all actors of a kind that have events.
    ///
    /// # Errors
    /// See [`crate::error::ReadError`].
    pub fn names<A: Actor>(&self) -> Result<BTreeSet<String>, Error> {
        Ok(match &self.catalogue {
            Some(catalogue) => catalogue.names(A::KIND)?,
            None => names_from(&self.events, 0, A::KIND)?,
        })
    }

    /// Waits until the catalogue has all names.
    fn catalogue_ready(&self) -> Result<(), Error> {
        if let Some(catalogue) = &self.catalogue {
            catalogue.names("")?;
        }
        Ok(())
    }

    /// Makes everything that was acknowledged so far survive power loss.
    ///
    /// # Errors
    /// [`crate::error::SyncError::InDoubt`]; the store is poisoned.
    pub fn sync(&self) -> Result<(), Error> {
        self.events.sync()?;
        Ok(())
    }

    /// Compacts what is old enough now, thoroughly: segments that no recovery would look at become
    /// runs, runs are merged, and what [`Retain`] lets go is dropped. Answers what it did.
    ///
    /// # Errors
    /// See [`crate::error::ReadError`]: damage in what was to be copied, or the file system's.
    /// Nothing was changed by the step that failed.
    pub fn compact(&self) -> Result<RetentionStats, Error> {
        Ok(self.retention.by_hand()?)
    }

    /// What was appended over the store's whole past. The first call reads what no checkpoint
    /// covers.
    ///
    /// # Errors
    /// See [`crate::error::ReadError`].
    pub fn totals(&self) -> Result<Totals, Error> {
        Ok(self.events.totals()?)
    }

    /// What the open found and did.
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    /// What became of the catalogue; `None` while that is not known, or where there is none.
    pub fn catalogue_state(&self) -> Option<CatalogueState> {
        self.catalogue.as_ref().and_then(|catalogue| catalogue.state())
    }

    /// What the [scrub](StoreOptions::scrub) has found wrong since the store was opened.
    pub fn findings(&self) -> Vec<crate::log::finding::Finding> {
        self.scrub.as_ref().map(Scrub::findings).unwrap_or_default()
    }

    /// Numbers since the store was opened.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            log: self.events.stats(),
            snapshots: self.snapshots.stats(),
            residents: self.runtime.residents(),
            dead_letters: self.runtime.dead_letters(),
            scrub: self.scrub.as_ref().map(Scrub::stats).unwrap_or_default(),
            retention: self.retention.stats(),
            owed: self.runtime.owed_stats(),
            actors: self.runtime.actor_stats(),
            cursors: self.cursors.stats(),
            subscriptions: self.readers.stats(&self.events),
            node: self.node.as_ref().map(|node| node.stats()).unwrap_or_default(),
        }
    }

    /// The event log, for those who read it as a whole.
    pub fn log(&self) -> &Arc<Log> {
        &self.events
    }

    /// How far the taking up of what was interrupted has come.
    pub fn recovery(&self) -> Recovery {
        self.runtime.recovery()
    }

    /// Waits until what was interrupted is taken up, at most that long. Nobody has to: commands are
    /// handled meanwhile.
    pub fn wait_recovered(&self, limit: Duration) -> Recovery {
        self.runtime.wait_recovered(limit)
    }

    /// The actors' runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes no more commands, handles those accepted until `deadline`, makes everything durable
    /// and closes the files. The next open goes on without a recovery.
    ///
    /// # Errors
    /// [`crate::error::SyncError::InDoubt`] where the store is or becomes poisoned: the next
    /// open recovers what had been acknowledged.
    pub fn close(self, deadline: Duration) -> Result<CloseReport, Error> {
        self.end(deadline)
    }

    fn end(&self, deadline: Duration) -> Result<CloseReport, Error> {
        if self.ended.swap(true, Ordering::Relaxed) {
            return self.end_parts(deadline);
        }
        let _span = trace::within(Work::Close, &self.path);
        trace::CloseBegun { path: &self.path }.tell();
        let began = self.options.clock.monotonic();
        let closed = self.end_parts(deadline);
        let took = self.options.clock.monotonic().saturating_sub(began);
        told::closed(&self.path, &closed, took);
        #[cfg(feature = "metrics")]
        self.publisher.close();
        closed
    }

    fn end_parts(&self, deadline: Duration) -> Result<CloseReport, Error> {
        self.retention.close();
        let report = self.runtime.close(deadline);
        if let Some(catalogue) = &self.catalogue {
            self.events.sync()?;
            catalogue.close();
        }
        // Its last word is in the events, and says that they are all there.
        let node = self.node.as_ref().map_or(Ok(()), |node| node.close());
        // The events first: snapshots cover nothing that is not there.
        self.events.close()?;
        self.snapshots.close()?;
        node?;
        Ok(report)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`.
        drop(self.end(self.close_deadline));
    }
}

/// Makes the folder and takes the lock.
fn take(disk: &dyn Disk, path: &Path) -> Result<Box<dyn LockGuard>, OpenError> {
    disk.create_dir(path).map_err(DiskError::at("creating", path))?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        disk.sync_dir(parent).map_err(DiskError::at("syncing", parent))?;
    }
    disk.lock(&path.join("LOCK")).map_err(|error| {
        if error.kind() == std::io::ErrorKind::WouldBlock {
            OpenError::Locked { path: path.to_owned(), owner: error.to_string() }
        } else {
            DiskError::at("locking", path)(error).into()
        }
    })
}

/// Is anything in the folder of the event log?
fn has_files(disk: &dyn Disk, dir: &Path) -> Result<bool, DiskError> {
    match disk.list(dir) {
        Ok(entries) => Ok(entries
            .iter()
            .any(|entry| [".seg", ".run"].iter().any(|part| entry.name.contains(part)))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DiskError::at("listing", dir)(error)),
    }
}

fn log_options(path: &Path, options: &StoreOptions) -> (LogOptions, LogOptions) {
    let events = LogOptions {
        dir: path.join("log"),
        ring: Some(path.join("ring")),
        mark: Some(path.join("mark")),
        checkpoints: Some(path.to_owned()),
        ring_bytes: options.ring_bytes,
        segment_bytes_first: options.segment_bytes_first,
        segment_bytes_max: options.segment_bytes_max,
        frame_bytes_max: options.frame_bytes_max,
        flush_interval: options.flush_interval,
        flush_bytes: options.flush_bytes,
        threads: options.threads,
        rebuildable: false,
        clock: options.clock.clone(),
    };
    // A frame holds the state, its name and headers.
    let frame = (options.snapshot_bytes_max + (128 << 10)).next_multiple_of(4096);
    let snapshots = LogOptions {
        dir: path.join("snapshots"),
        ring: None,
        mark: None,
        checkpoints: None,
        ring_bytes: frame * 2 + (8 << 10),
        segment_bytes_max: options.segment_bytes_max.max(frame as u64 * 4),
        frame_bytes_max: frame,
        threads: false,
        rebuildable: true,
        ..events.clone()
    };
    (events, snapshots)
}

/// 64 random bits from the kernel.
fn random() -> Result<u64, OpenError> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    let error = match filled {
        Ok(8) => return Ok(u64::from_le_bytes(bytes)),
        Ok(_) => std::io::ErrorKind::UnexpectedEof.into(),
        Err(error) => std::io::Error::from(error),
    };
    Err(DiskError::at("reading", "random bits".as_ref())(error).into())
}
