//! A machine with one store on a simulated disk.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use super::crashes::End;
use crate::disk::Disk as _;
use crate::disk::sim::{Failure, Fault, Op, SimDisk};
use crate::error::Error;
use crate::store::{Store, StoreOptions};
use crate::time::{Clock, ManualClock};

/// Where the store is, on the machine's own disk.
const STORE: &str = "/store";
/// When a machine's clock begins: some moment in 2023.
const BEGINNING_MS: u64 = 1_700_000_000_000;

/// A simulated machine: a disk that keeps what is written apart from what is synced, a clock that
/// stands, and the [`Store`] that a test opens on it.
///
/// What a store does here is decided by the seed: the same seed, the same calls, the same end. The
/// log has no threads, so everything happens in the calls that the test makes; but what is *told*
/// is handled by a worker, which comes when it comes.
///
/// ```
/// use annals::testkit::{Calls, End, Machine, Trouble};
/// # use annals::{Actor, Handle, Turn};
/// # #[derive(Default)]
/// # struct Counter(u64);
/// # impl Actor for Counter {
/// #     type Event = u64;
/// #     const KIND: &'static str = "counter";
/// #     fn apply(&mut self, event: &u64) { self.0 += event; }
/// # }
/// # struct Add(u64);
/// # impl Handle<Add> for Counter {
/// #     type Reply = u64;
/// #     fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> u64 {
/// #         turn.emit(number);
/// #         turn.0
/// #     }
/// # }
///
/// let machine = Machine::new(7);
/// let store = machine.open()?;
/// let counter = store.actor::<Counter>("a")?;
/// assert_eq!(counter.ask(Add(1))?, 1);
///
/// // The next sync fails: what was asked is in doubt, and nothing more is accepted.
/// machine.fail(Calls::Syncs, Trouble::Error, 0);
/// assert!(counter.ask(Add(1)).is_err());
/// assert!(counter.ask(Add(1)).is_err());
///
/// // The power goes, while the store is open.
/// let machine = machine.after(End::PowerCut);
/// drop((counter, store));
/// let counter = machine.open()?.actor::<Counter>("a")?.peek(|counter| counter.0)?;
/// assert!((1..=2).contains(&counter.value));
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Debug)]
pub struct Machine {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    seed: u64,
}

/// Which calls to the disk are to fail.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Any.
    All,
    /// Reads of files.
    Reads,
    /// Writes to files.
    Writes,
    /// Syncs of files.
    Syncs,
    /// Whatever takes room: new files, and making them larger.
    Room,
}

/// What a failing call answers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// An I/O error. What was asked for may have been done in part; after a failed sync some of
    /// what was written may never reach the disk, though it is still seen.
    Error,
    /// No room on the disk.
    Full,
    /// It was interrupted: nothing was done. No caller may notice.
    Interrupted,
    /// Less was transferred than was asked for. No caller may notice.
    Short,
}

impl Machine {
    /// A machine with an empty disk. The seed decides what a power cut keeps, and how much of a
    /// failing call is done.
    ///
    /// # Panics
    /// Never, unless the simulation is broken.
    pub fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        disk.record(false);
        let made = disk.create_dir(Path::new(STORE)).and_then(|()| disk.sync_dir(Path::new("/")));
        if let Err(error) = made {
            panic!("a new simulated disk: {error}");
        }
        Self { disk, clock: ManualClock::at_millis(BEGINNING_MS), seed }
    }

    /// Options for a store here: the machine's disk and clock, one worker, files of a few KiB, so
    /// that little work crosses many borders. A turn may have 4 KiB. What is set in them is kept
    /// by [`open_with`](Self::open_with).
    pub fn options(&self) -> StoreOptions {
        self.placed(
            StoreOptions::default()
                .ring_bytes(16 << 10)
                .segment_bytes(8 << 10, 16 << 10)
                .frame_bytes_max(4 << 10)
                .snapshot_bytes_max(4 << 10)
                .workers(NonZeroUsize::MIN),
        )
    }

    /// On this disk, with this clock, without threads.
    fn placed(&self, mut options: StoreOptions) -> StoreOptions {
        options.disk = self.disk.handle();
        options.clock = Clock::Manual(Arc::clone(&self.clock));
        options.catalogue = false;
        options.threads = false;
        options
    }

    /// Opens the machine's store.
    ///
    /// # Errors
    /// As [`Store::open`]; after a crash every call fails.
    pub fn open(&self) -> Result<Store, Error> {
        self.options().open(STORE)
    }

    /// Opens the machine's store otherwise than with [`options`](Self::options). Disk, clock and
    /// threads are the machine's all the same.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(&self, options: StoreOptions) -> Result<Store, Error> {
        self.placed(options).open(STORE)
    }

    /// The time: it stands until it is moved.
    pub fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    /// What decides.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Operations in this life that change the disk: as many points at which it can crash.
    pub fn operations(&self) -> u64 {
        self.disk.mutations()
    }

    /// The process dies in the `operation`-th operation from now on, counted from 0: a write may
    /// have been done in part. From then on every call fails. Say with [`after`](Self::after) how
    /// it ended.
    pub fn crash_at(&self, operation: u64) {
        self.disk.crash_at(operation);
    }

    /// The process dies here and now.
    pub fn crash(&self) {
        self.disk.crash();
    }

    /// Is the process dead?
    pub fn has_crashed(&self) -> bool {
        self.disk.has_crashed()
    }

    /// What was answered, unless nobody could hear it any more: a thread of a dead process goes
    /// on here, and what it says was never said. **Only what was heard was promised.**
    pub fn heard<T, E>(&self, answer: Result<T, E>) -> Option<T> {
        answer.ok().filter(|_| !self.has_crashed())
    }

    /// One of these calls fails, after `skip` of them that do not.
    pub fn fail(&self, calls: Calls, trouble: Trouble, skip: u64) {
        self.disk.fail(Fault::new(trouble.failure()).on_any(calls.ops()).after(skip));
    }

    /// From now on all of these calls fail.
    pub fn fail_for_ever(&self, calls: Calls, trouble: Trouble) {
        self.disk.fail(Fault::new(trouble.failure()).on_any(calls.ops()).for_ever());
    }

    /// Takes back what was ordered by [`fail`](Self::fail), [`crash_at`](Self::crash_at) and their
    /// like.
    pub fn heal(&self) {
        self.disk.clear_faults();
    }

    /// Room on the disk for so many bytes in all, or for any number.
    ///
    /// # Panics
    /// This life has ended.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.disk.set_capacity(bytes);
    }

    /// Bytes that are taken.
    ///
    /// # Panics
    /// This life has ended.
    pub fn used(&self) -> u64 {
        self.disk.used()
    }

    /// The files, by path, with their sizes.
    ///
    /// # Panics
    /// This life has ended.
    pub fn files(&self) -> Vec<(std::path::PathBuf, u64)> {
        self.disk.list_all()
    }

    /// Flips a bit of a file, in what is seen and on the disk.
    ///
    /// # Errors
    /// There is no such file, or it is mapped by an open store.
    ///
    /// # Panics
    /// This life has ended.
    pub fn flip_bit(&self, path: impl AsRef<Path>, byte: u64, bit: u8) -> std::io::Result<()> {
        self.disk.flip_bit(path.as_ref(), byte, bit)
    }

    /// Takes a file away, durably.
    ///
    /// # Errors
    /// There is no such file.
    ///
    /// # Panics
    /// This life has ended.
    pub fn delete(&self, path: impl AsRef<Path>) -> std::io::Result<()> {
        self.disk.delete(path.as_ref())
    }

    /// This life ends so; the machine of the next one. A store that is still open reaches nothing
    /// any more. The clock goes on.
    ///
    /// # Panics
    /// This life has ended before.
    #[must_use]
    pub fn after(&self, end: End) -> Self {
        self.with(self.ended(&self.disk, end))
    }

    /// The same machine in another world, where this life ends so. Here it goes on.
    ///
    /// # Panics
    /// This life has ended.
    #[must_use]
    pub fn if_it_ended(&self, end: End) -> Self {
        self.with(self.ended(&self.disk.fork(), end))
    }

    fn ended(&self, disk: &SimDisk, end: End) -> SimDisk {
        match end {
            End::Kill => disk.kill(),
            End::PowerCut => disk.power_cut(self.seed),
            End::PowerCutLosingAll => disk.power_cut_losing_all(),
        }
    }

    fn with(&self, disk: SimDisk) -> Self {
        Self { disk, clock: Arc::clone(&self.clock), seed: self.seed }
    }
}

impl Calls {
    /// The kinds of calls; none for all of them.
    const fn ops(self) -> &'static [Op] {
        match self {
            Self::All => &[],
            Self::Reads => &[Op::Read],
            // Through the ring or not: what a store writes of its log goes one way.
            Self::Writes => &[Op::Write, Op::WriteRing],
            Self::Syncs => &[Op::SyncData],
            Self::Room => &[Op::Create, Op::Allocate],
        }
    }
}

impl Trouble {
    const fn failure(self) -> Failure {
        match self {
            Self::Error => Failure::Io,
            Self::Full => Failure::NoSpace,
            Self::Interrupted => Failure::Interrupted,
            Self::Short => Failure::Short,
        }
    }
}
