//! A simulated disk: deterministic by seed, failing on demand, and able to lose power.
//!
//! What is modelled:
//! - **Live and durable bytes.** Reads and maps see the live bytes. Of each 512-byte sector every
//!   version written since the last sync is remembered (up to 16), and of each file every size: a
//!   [power cut](SimDisk::power_cut) keeps any one of them, or what was durable, sector by sector.
//! - **Live and durable names.** Each change of a name is kept or lost by itself, but a kept
//!   change means that all earlier ones of the same name are kept too. A rename is atomic. A
//!   directory is a name in its parent, and all of it is lost with that name.
//! - **A failed sync** leaves every dirty sector durable, dirty, or *clean and lost*: still seen,
//!   never written by a later sync unless it is written again.
//!   [`drop_caches`](SimDisk::drop_caches) then shows what is on the disk.
//! - **Ends of a life.** [`kill`](SimDisk::kill) keeps what is live, `power_cut` what is durable
//!   and some of the rest. Either answers a new disk: the handles, maps, rings and locks of the
//!   old one go on to exist and reach nothing, as threads of a dead process would.
//! - **One file, mapped and written.** A map sees what `write_at` wrote, and a ring's file *is*
//!   the ring's memory: a kill keeps it as far as it was written, a power cut keeps any of its
//!   sectors, as they are or as they were when the kernel last looked at them.
//! - **Room.** [`set_capacity`](SimDisk::set_capacity) bounds the sum of the sizes of all files
//!   that have a name or are open.
//!
//! What is checked, because on a real disk it would be a bug that shows later or never: writing
//! other bytes below what a map has published (panics); maps beyond the end of a file, a second
//! ring over one, writes into it past the ring, other sizes for a mapped file (`InvalidInput`).
//!
//! What is not modelled: time (no call blocks), a map that cannot be read (`SIGBUS`), permissions,
//! links, removal of directories, a rename of a directory that is seen and not durable, the bytes
//! that a name or a directory takes, a sector torn within itself, order between files (there is
//! none: any combination can come out of a power cut), and write-back of ring pages at moments
//! other than those at which the ring is drained.
//!
//! ```
//! # #[cfg(feature = "internals")] {
//! use annals::disk::{Access, Disk as _, sim::SimDisk, write_full};
//! use std::path::Path;
//!
//! let disk = SimDisk::new(7);
//! let file = disk.open(Path::new("/mark"), Access::Create)?;
//! write_full(&*file, b"first", 0)?;
//! file.sync_data()?;
//! disk.sync_dir(Path::new("/"))?;
//! write_full(&*file, b"later", 0)?;
//!
//! // Whatever the seed: one of the two, and nothing else.
//! for seed in 0..100 {
//!     let disk = disk.fork().power_cut(seed);
//!     let found = disk.copy_bytes(Path::new("/mark"))?;
//!     assert!(found == b"first" || found == b"later");
//! }
//! # }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Where it is: [`SimDisk`] and its lives here; a file's sectors in `content`, a directory's names
//! in `names`, both put together in `state`; `fault` says what goes wrong, `choice` what is kept,
//! `damage` what a test does by hand.
//!
//! Locks: one mutex per life guards everything, and is held for the length of one call.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Access, Disk, Entry, File, LockGuard};
use crate::types::to_usize;
use choice::{Choose, Odometer, Oldest, Seeded};
use fault::{Ask, Of, Plan, Verdict};
use file::SimFile;
use names::FileId;
use state::State;

mod choice;
mod content;
mod damage;
mod fault;
mod file;
mod names;
mod path;
mod state;
#[cfg(test)]
mod tests;

pub use choice::Random;
pub use fault::{Call, Failure, Fault, Op, Outcome};

/// A simulated disk in one life. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    life: Arc<Mutex<Life>>,
}

/// One life of the process that uses the disk.
#[derive(Debug)]
struct Life {
    /// `None` once it has ended: the state is the next life's.
    state: Option<State>,
    plan: Plan,
    /// What a crash in each mutating call so far would have left, while somebody wants to know.
    crashes: Option<Vec<State>>,
}

/// The error of every call once the process is dead.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Dead;

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated process is dead")
    }
}

impl std::error::Error for Dead {}

impl Dead {
    fn error() -> io::Error {
        io::Error::other(Self)
    }

    /// Is this the answer to a call that came too late?
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().and_then(|source| source.downcast_ref()) == Some(&Self)
    }
}

/// How a life ends, and how a disk looks from outside.
impl SimDisk {
    /// An empty disk: a durable directory `/`, and nothing in it. Relative paths begin there too.
    ///
    /// The seed decides how much a short transfer transfers and what a failing call leaves
    /// behind.
    pub fn new(seed: u64) -> Self {
        Self::of(State::new(seed))
    }

    fn of(state: State) -> Self {
        Self {
            life: Arc::new(Mutex::new(Life {
                state: Some(state),
                plan: Plan::default(),
                crashes: None,
            })),
        }
    }

    /// For what takes an `Arc<dyn Disk>`.
    pub fn handle(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// The process is killed: what was written is seen by the next life, durable or not.
    ///
    /// # Panics
    /// This life has ended before.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut state = self.end();
        state.after_kill();
        Self::of(state)
    }

    /// The power goes: what was synced is there, and of the rest what the seed decides.
    ///
    /// # Panics
    /// This life has ended before.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        self.power_cut_by(&mut Seeded::new(seed))
    }

    /// The power goes, and what was not synced goes with it, all of it.
    ///
    /// # Panics
    /// This life has ended before.
    #[must_use]
    pub fn power_cut_losing_all(&self) -> Self {
        self.power_cut_by(&mut Oldest)
    }

    fn power_cut_by(&self, choose: &mut dyn Choose) -> Self {
        let mut state = self.end();
        state.after_kill();
        Self::of(state.after_power_cut(choose))
    }

    /// The process has ended and the machine is restarted in good order: everything was written
    /// back before.
    ///
    /// # Panics
    /// This life has ended before.
    #[must_use]
    pub fn restarted(&self) -> Self {
        let mut state = self.end();
        state.after_kill();
        state.boot += 1;
        Self::of(state)
    }

    /// All disks that a power cut at this moment could leave, one after the other, but `most` of
    /// them at most. This life goes on. For few unsynced sectors only: each one doubles their
    /// number.
    ///
    /// # Panics
    /// This life has ended.
    pub fn power_cuts(&self, most: usize) -> impl Iterator<Item = Self> + use<> {
        let base = self.copy();
        base.sum_up();
        let mut odometer = Odometer::default();
        let mut more = true;
        let next = move || {
            let cut = more.then(|| Self::of(base.after_power_cut(&mut odometer)));
            more = more && odometer.advance();
            cut
        };
        std::iter::from_fn(next).take(most)
    }

    /// Disks that a power cut at this moment could leave, one for each seed. This life goes on.
    ///
    /// # Panics
    /// This life has ended.
    pub fn power_cuts_by(
        &self,
        seeds: impl Iterator<Item = u64>,
    ) -> impl Iterator<Item = (u64, Self)> {
        let base = self.copy();
        base.sum_up();
        seeds.map(move |seed| (seed, Self::of(base.after_power_cut(&mut Seeded::new(seed)))))
    }

    /// Another disk in the same state, without open files, maps, locks and faults. This life
    /// goes on. Cheap: bytes are shared until one of the two writes them.
    ///
    /// # Panics
    /// This life has ended.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::of(self.copy())
    }

    #[expect(clippy::expect_used, reason = "a mistake in the test that holds the disk")]
    fn copy(&self) -> State {
        self.life.lock().state.as_mut().expect("this life has ended").fork()
    }

    #[expect(clippy::expect_used, reason = "a mistake in the test that holds the disk")]
    fn end(&self) -> State {
        self.life.lock().state.take().expect("this life has ended")
    }

    /// Another disk with what is seen here, all of it durable: where a test begins.
    ///
    /// # Panics
    /// This life has ended.
    #[must_use]
    pub fn settled(&self) -> Self {
        let mut state = self.copy();
        state.settle();
        Self::of(state)
    }

    /// The process dies here and now, as in [`crash_at`](Self::crash_at): every call from now on
    /// answers [`Dead`].
    pub fn crash(&self) {
        let mut life = self.life.lock();
        if let Some(state) = &mut life.state {
            state.after_kill();
        }
        life.plan.crashed = true;
    }

    /// From now on what a crash in each mutating call would leave is kept, for
    /// [`take_crashes`](Self::take_crashes): all of them in one run, where
    /// [`crash_at`](Self::crash_at) takes one run for each.
    pub fn watch(&self) {
        self.life.lock().crashes.get_or_insert_default();
    }

    /// The disks that a crash in the calls since the last question would have left: before each
    /// mutating call, and in the middle of those that can be done in part. None has ended: the
    /// test says how each does.
    pub fn take_crashes(&self) -> Vec<Self> {
        let taken = self.life.lock().crashes.as_mut().map(std::mem::take);
        taken.into_iter().flatten().map(Self::of).collect()
    }

    /// Names and bytes as they are seen, in 64 bits. What looks the same is the same to a life
    /// that begins here.
    ///
    /// # Panics
    /// This life has ended.
    pub fn fingerprint(&self) -> u64 {
        self.with(|state| state.fingerprint())
    }

    /// The cache forgets what is clean, as it may at any time: after a failed sync and a kill,
    /// what was lost comes to light. Mapped files stay as they are.
    ///
    /// # Panics
    /// This life has ended.
    pub fn drop_caches(&self) {
        self.with(State::drop_caches);
    }

    #[expect(clippy::expect_used, reason = "a mistake in the test that holds the disk")]
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(self.life.lock().state.as_mut().expect("this life has ended"))
    }
}

/// What is to go wrong, and what has happened. All of it belongs to one life and starts empty.
impl SimDisk {
    /// Adds a fault. Of several that fit, the one added first strikes.
    pub fn fail(&self, fault: Fault) {
        self.life.lock().plan.add(fault);
    }

    /// The process dies in the `mutation`-th [mutating call](Op::is_mutation) from now on,
    /// counted from 0. A write may have been done in part; of other calls nothing is. From then
    /// on every call answers [`Dead`], and what was written into a ring later is not kept. The
    /// test then says whether it was a [`kill`](Self::kill) or a [`power_cut`](Self::power_cut).
    pub fn crash_at(&self, mutation: u64) {
        self.life.lock().plan.crash_at(mutation);
    }

    /// Takes back what [`fail`](Self::fail) and [`crash_at`](Self::crash_at) have ordered.
    pub fn clear_faults(&self) {
        self.life.lock().plan.clear();
    }

    /// Has the crash happened that [`crash_at`](Self::crash_at) ordered?
    pub fn has_crashed(&self) -> bool {
        self.life.lock().plan.crashed
    }

    /// Room for this many bytes of files, or for any number. What is there stays.
    ///
    /// # Panics
    /// This life has ended.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.with(|state| state.capacity = bytes.map(to_usize));
    }

    /// Bytes that all files take that have a name or are open.
    ///
    /// # Panics
    /// This life has ended.
    pub fn used(&self) -> u64 {
        self.with(|state| state.used() as u64)
    }

    /// Calls made in this life.
    pub fn operations(&self) -> u64 {
        self.life.lock().plan.operations
    }

    /// [Mutating calls](Op::is_mutation) made in this life: as many crash points.
    pub fn mutations(&self) -> u64 {
        self.life.lock().plan.mutations
    }

    /// Are calls kept in a log, in this life and in those after it? They are unless told.
    ///
    /// # Panics
    /// This life has ended.
    pub fn record(&self, recording: bool) {
        self.with(|state| state.recording = recording);
    }

    /// The calls made in this life, in order; also after it has ended.
    pub fn log(&self) -> Vec<Call> {
        self.life.lock().plan.log.clone()
    }

    /// Empties the log of calls; the counters go on.
    pub fn clear_log(&self) {
        self.life.lock().plan.log.clear();
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(&Ask::path(Op::CreateDir, dir), |state| state.create_dir(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.run(&Ask::path(Op::List, dir), |state| state.list(dir))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let op = if access == Access::Create { Op::Create } else { Op::Open };
        let file = self.run(&Ask::path(op, path), |state| state.open(path, access))?;
        Ok(Arc::new(SimFile::new(self.clone(), file, access)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ask = Ask { to: Some(to), ..Ask::path(Op::Rename, from) };
        self.run(&ask, |state| state.rename(from, to))
    }

    fn owner(&self, path: &Path) -> io::Result<Option<String>> {
        self.run(&Ask::path(Op::Open, path), |state| state.owner(path))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(&Ask::path(Op::Remove, path), |state| state.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.run_parts(&Ask::path(Op::SyncDir, dir), |state, _, part| match part {
            Part::Whole | Part::Short => state.sync_dir(dir),
            Part::Failing => state.sync_dir_failed(dir),
            Part::Nothing | Part::Crashing => Ok(()),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        let file = self.run(&Ask::path(Op::Lock, path), |state| state.lock(path))?;
        Ok(Box::new(SimLock { disk: self.clone(), file }))
    }

    fn boot(&self) -> u64 {
        self.life.lock().state.as_ref().map_or(0, |state| state.boot)
    }
}

/// How much of a call is done.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Short,
    /// Nothing, which is called a success.
    Nothing,
    /// Some of it, and then it fails.
    Failing,
    /// Some of it, and then nobody is there to hear of it.
    Crashing,
}

impl SimDisk {
    /// A call that is done wholly or not at all.
    fn run<T>(
        &self,
        ask: &Ask<'_>,
        mut act: impl FnMut(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        self.run_parts(ask, |state, _, part| match part {
            Part::Whole | Part::Short => act(state),
            Part::Nothing | Part::Failing | Part::Crashing => Err(Dead::error()),
        })
    }

    /// A call that can be done in part. What `act` answers counts only for what was not to fail.
    fn run_parts<T>(
        &self,
        ask: &Ask<'_>,
        mut act: impl FnMut(&mut State, &mut Range<u64>, Part) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut life = self.life.lock();
        let Life { state, plan, crashes } = &mut *life;
        let Some(state) = state.as_mut().filter(|_| !plan.crashed) else {
            return Err(Dead::error());
        };
        let range = &mut ask.range.clone();
        if let Some(crashes) = crashes
            && ask.op.is_mutation()
        {
            crashes.push(state.fork());
            if ask.op.is_done_in_parts() {
                let mut part = state.fork();
                // What a dying process is answered is told to nobody.
                drop(act(&mut part, &mut ask.range.clone(), Part::Crashing));
                part.after_kill();
                crashes.push(part);
            }
        }
        let result = match plan.judge(ask, state) {
            Verdict::Whole => act(state, range, Part::Whole),
            Verdict::Short => act(state, range, Part::Short),
            Verdict::Lie => act(state, range, Part::Nothing),
            Verdict::Nothing(error) => Err(error),
            // What becomes of the part is told to nobody.
            Verdict::Partly(error) => match act(state, range, Part::Failing) {
                Ok(_) | Err(_) => Err(error),
            },
            Verdict::Crash => match act(state, range, Part::Crashing) {
                Ok(_) | Err(_) => {
                    state.after_kill();
                    plan.crashed = true;
                    Err(Dead::error())
                }
            },
        };
        if state.recording {
            let outcome = match &result {
                Ok(_) => Outcome::Done,
                Err(_) if plan.crashed => Outcome::Crashed,
                Err(error) => Outcome::Failed(error.kind()),
            };
            let range = if result.is_ok() { range.clone() } else { ask.range.clone() };
            plan.record(ask, state, range, outcome);
        }
        result
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    file: FileId,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        // Not in a life that has ended: it may be another's lock by now.
        if let Some(state) = &mut self.disk.life.lock().state {
            state.unlock(self.file);
        }
    }
}
