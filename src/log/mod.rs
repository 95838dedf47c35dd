//! The log: frames in segments, appended through a ring, committed in groups.
//!
//! A [`Log`] is one total order of frames. Three marks run through it, each at or below the one
//! before, and each half-open:
//!
//! - **written**: in the ring, so it survives whatever leaves the kernel running;
//! - **stored**: in its segment, so it can be read;
//! - **durable**: on disk, so it survives power loss. A prefix of the log, always.
//!
//! See `docs/format.md` for the bytes and `docs/recovery.md` for what happens at open.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::disk::{Disk, RingSource};
use crate::error::{AppendError, DiskError, ReadError, SyncError};
use crate::time::Clock;
use crate::types::{Life, Lsn, Seq, StreamId};

mod bell;
mod chain;
mod checkpoint;
mod commit;
pub mod compact;
mod copy;
pub mod finding;
mod follow;
pub mod frame;
mod index;
mod links;
mod look;
pub mod mark;
pub(crate) mod mend;
mod merge;
pub mod name;
mod open;
mod part;
mod prepare;
mod primitives;
mod read;
mod recent;
pub mod recover;
pub mod rule;
pub mod run;
mod run_file;
mod scan;
pub mod segment;
mod sift;
pub mod slots;
mod spot;
mod survey;
mod sync;
mod tail;
mod testify;
#[cfg(test)]
mod tests;
pub(crate) mod verify;
mod view;
mod watch;
mod write;

use bell::Bell;
use chain::Chain;
use commit::{CommitQueue, Turn};
use frame::{Batch, Frame};
use prepare::Preparer;
use recent::Recent;
use sync::Syncing;
use tail::Tails;
use watch::Watch;
use write::Appender;

pub(crate) use checkpoint::checkpoint_is_valid;
pub use checkpoint::{Testimony, Totals, Witness};
pub use compact::{Compacted, Keep, Plan};
pub(crate) use copy::{Copied, CopyRequest};
pub(crate) use follow::Follow;
pub use open::Opening;
pub use read::{Frames, Limit, StreamEnd};
pub use recover::{Ending, Evidence, RecoveryReport, Start};
pub(crate) use tail::Advanced;
pub use tail::Tail;
pub use verify::LogVerification;
pub use view::{Cursor, LogView, Seen, SegmentInfo};
pub use write::Appended;

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Where its segments are.
    pub dir: PathBuf,
    /// The ring's file; `None` keeps the ring in plain memory: then a frame survives the process
    /// once it is stored, and who appends sees to that.
    pub ring: Option<PathBuf>,
    /// The mark file, if there is one.
    pub mark: Option<PathBuf>,
    /// The folder of checkpoints, if there are any.
    pub checkpoints: Option<PathBuf>,
    /// Size of the ring in bytes; a multiple of 4 KiB.
    pub ring_bytes: usize,
    /// Size of a life's first segment; they double from there.
    pub segment_bytes_first: u64,
    /// Size of the largest segments.
    pub segment_bytes_max: u64,
    /// The largest frame; less than half of the ring, at most a quarter of the largest segment.
    pub frame_bytes_max: usize,
    /// What is written becomes durable within this time, whether anybody waits or not.
    pub flush_interval: Duration,
    /// And before more than this many bytes are not.
    pub flush_bytes: u64,
    /// Background threads: a committer, a drain, a keeper. Without them everything happens in
    /// the calls, which is slower and can be replayed.
    pub threads: bool,
    /// Damage is answered by going on behind it in a new life, rather than by refusing to open:
    /// for logs whose loss costs time only.
    pub rebuildable: bool,
    /// Time of frames.
    pub clock: Clock,
}

impl LogOptions {
    /// The defaults for a log in `dir`: 8 MiB ring in memory, segments of 1 to 64 MiB, frames of
    /// at most 2 MiB.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            ring: None,
            mark: None,
            checkpoints: None,
            ring_bytes: 8 << 20,
            segment_bytes_first: 1 << 20,
            segment_bytes_max: 64 << 20,
            frame_bytes_max: 2 << 20,
            flush_interval: Duration::from_secs(1),
            flush_bytes: 8 << 20,
            threads: true,
            rebuildable: false,
            clock: Clock::System,
        }
    }

    /// What contradicts itself in these options.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let page = crate::disk::PAGE;
        let frame = self.frame_bytes_max as u64;
        if !self.ring_bytes.is_multiple_of(page) || self.ring_bytes < 4 * page {
            Some("ring_bytes must be a multiple of 4096, at least 16384")
        } else if self.frame_bytes_max > frame::FRAME_BYTES_LIMIT
            || frame * 2 + 2 * page as u64 > self.ring_bytes as u64
        {
            Some("frame_bytes_max must be less than half of ring_bytes, by a page")
        } else if frame * 4 > self.segment_bytes_max || self.segment_bytes_max > 1 << 35 {
            Some("segment_bytes_max must be at least four times frame_bytes_max, at most 32 GiB")
        } else if self.flush_bytes > 1 << 34 || self.ring_bytes as u64 > 1 << 34 {
            // A frame says in 36 bits how far the durable mark was below it.
            Some("flush_bytes and ring_bytes must be at most 16 GiB each")
        } else if self.segment_bytes_first < 2 * page as u64
            || self.segment_bytes_first > self.segment_bytes_max
            || !self.segment_bytes_first.is_multiple_of(page as u64)
            || !self.segment_bytes_max.is_multiple_of(page as u64)
        {
            Some("segment sizes must be multiples of 4096, first at most max, at least 8192")
        } else {
            None
        }
    }
}

/// Does the log take frames?
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Closing {
    Open,
    /// Nothing but the `Close` frame.
    LastFrame,
    Closed,
}

/// Counted outside the append lock.
#[derive(Debug, Default)]
struct Counts {
    drains: AtomicU64,
    drained_bytes: AtomicU64,
    mark_failures: AtomicU64,
    checkpoints: AtomicU64,
    checkpoint_failures: AtomicU64,
    index_failures: AtomicU64,
    compactions: AtomicU64,
    dropped: AtomicU64,
    reclaimed_bytes: AtomicU64,
}

/// Numbers since the log was opened.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Frames appended, system frames included.
    pub frames: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes that they take in the log.
    pub bytes: u64,
    /// Syncs that raised the durable mark.
    pub commits: u64,
    /// Writes from the ring into segments.
    pub drains: u64,
    /// Bytes of those, whole pages.
    pub drained_bytes: u64,
    /// Appends that found the ring full and stored it themselves.
    pub ring_full: u64,
    /// Appends that found too much not durable and made it so themselves.
    pub lag_waits: u64,
    /// Appends that waited for a segment to be prepared.
    pub segment_waits: u64,
    /// Segments made of files that had been others'.
    pub segments_recycled: u64,
    /// Segments sealed.
    pub seals: u64,
    /// Segments that hold frames.
    pub segments: u64,
    /// Mark files that could not be written: less evidence for the next recovery.
    pub mark_failures: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Checkpoints that could not be written: the next open reads more.
    pub checkpoint_failures: u64,
    /// Index files that could not be written: they are built again when needed.
    pub index_failures: u64,
    /// Runs that the log begins with.
    pub runs: u64,
    /// Runs made.
    pub compactions: u64,
    /// Frames that retention has dropped.
    pub dropped: u64,
    /// Bytes by which the files have become smaller.
    pub reclaimed_bytes: u64,
}

/// On cache lines of its own (two, because processors fetch them in pairs): threads that write
/// what is beside it do not take it away from those that read it.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

impl<T> Deref for Line<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What all threads of a log share.
#[derive(Debug)]
struct Shared {
    options: LogOptions,
    disk: Arc<dyn Disk>,
    id: u64,
    append: Line<Mutex<Appender>>,
    written: Line<AtomicU64>,
    stored: Line<AtomicU64>,
    durable: Line<AtomicU64>,
    ring: RingSource,
    /// The stored mark as its owner knows it.
    drain: Mutex<u64>,
    chain: RwLock<Chain>,
    preparer: Preparer,
    commits: CommitQueue,
    /// One sync at a time.
    syncing: Mutex<Syncing>,
    poison: OnceLock<DiskError>,
    recent: Recent,
    tails: Tails,
    drain_bell: Bell,
    keeper_bell: Bell,
    watch: Arc<Watch>,
    /// Rung when a segment is sealed and stored, for whoever looks after the old ones.
    sealed_bell: Bell,
    counts: Counts,
    /// Where this life's frames begin; what is below was there before.
    first: u64,
    /// What was counted up to a position of earlier lives, and where to count on.
    counted: (Totals, u64),
    /// What there was before this life, once somebody asked.
    before: OnceLock<Totals>,
    /// The checkpoint that is to be written.
    due: Mutex<Option<(u64, Totals)>>,
    /// Who says what the checkpoints hold besides.
    witness: Mutex<Option<Weak<dyn Witness>>>,
    /// One writes a checkpoint at a time: keeper or close.
    checkpointing: Mutex<()>,
    /// Files of earlier lives that hold nothing and are to go.
    leftovers: Mutex<Vec<PathBuf>>,
    /// One compaction at a time; and the failure after which there is none any more.
    compacting: Mutex<Option<DiskError>>,
}

impl Shared {
    /// From now on nothing is accepted, and everybody who waits is told.
    pub(super) fn poison(&self, error: DiskError) -> DiskError {
        let error = self.poison.get_or_init(|| {
            self.watch.poisoned(self.durable.load(Ordering::Acquire), &error);
            error
        });
        let error = error.clone();
        self.ring_for_news();
        self.tails.ring();
        // Futures are woken at the end of a commit, by a thread that holds none of our locks:
        // a waker may run anything.
        self.commits.request();
        if let Some(mut syncing) = self.syncing.try_lock() {
            self.note_poison(&mut syncing);
        }
        error
    }

    /// The same for the one who syncs, who has that lock.
    pub(super) fn poison_with(&self, error: DiskError, syncing: &mut Syncing) -> DiskError {
        let error = self.poison(error);
        self.note_poison(syncing);
        error
    }

    fn note_poison(&self, syncing: &mut Syncing) {
        let durable = self.durable.load(Ordering::Acquire);
        if let Err(error) = syncing.note_poison(self.id, durable) {
            // Then the next open may take for damage what the failure has cost.
            self.mark_failed(error);
        }
    }

    /// Less evidence for the next recovery, and nothing else.
    pub(super) fn mark_failed(&self, error: DiskError) {
        let before = self.counts.mark_failures.fetch_add(1, Ordering::Relaxed);
        self.watch.mark_failed(error, before + 1);
    }

    /// Calls the drain thread to tell the news, if there are any. It is the one of our threads that
    /// nobody ever waits for: a subscriber may append, commit and read there.
    pub(super) fn ring_for_news(&self) {
        if self.watch.news.is_some() {
            self.drain_bell.ring();
        }
    }

    /// At the end of a call: a log without threads has nobody else to tell the news.
    #[inline]
    fn tell(&self) {
        if crate::trace::ON && !self.options.threads {
            self.watch.news.tell();
        }
    }
}

/// An open log. Dropping it closes it.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    /// Appends `batch` as one frame; when this returns it survives the process (given a ring
    /// file). `first` is the number of its first event, and the caller answers for it.
    ///
    /// # Errors
    /// See [`AppendError`]; the log is as it was.
    pub fn append(
        &self,
        batch: &mut Batch,
        stream: StreamId,
        first: Seq,
    ) -> Result<Appended, AppendError> {
        let appended = self.shared.append(batch, None, stream, first);
        self.shared.tell();
        appended
    }

    /// Appends `batch` if `stream` is at `expected`, its last event's number.
    ///
    /// # Errors
    /// [`AppendError::Conflict`] with the actual number; else as for [`append`](Self::append).
    /// Two callers that race for one stream must not use this beside `append`.
    pub fn append_expecting(
        &self,
        batch: &mut Batch,
        stream: StreamId,
        expected: Seq,
    ) -> Result<Appended, AppendError> {
        let checked = self.shared.recent.checking();
        let actual = self.last_seq(stream)?;
        let first = expected.checked_add(1);
        let appended = match first {
            Some(first) if actual == expected => self.shared.append(batch, None, stream, first),
            _ => Err(AppendError::Conflict { stream, expected, actual }),
        };
        drop(checked);
        self.shared.tell();
        appended
    }

    /// Everything below is in the ring.
    pub fn written(&self) -> u64 {
        // Acquire: pairs with the Release in `append`.
        self.shared.written.load(Ordering::Acquire)
    }

    /// Everything below is in its segment.
    pub fn stored(&self) -> u64 {
        self.shared.stored.load(Ordering::Acquire)
    }

    /// Everything below is on disk.
    pub fn durable(&self) -> u64 {
        // Acquire: pairs with the Release in `sync_written`.
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Makes everything that is written durable.
    ///
    /// # Errors
    /// [`SyncError::InDoubt`]; the log is poisoned.
    pub fn sync(&self) -> Result<(), SyncError> {
        match Lsn::new(self.written()) {
            Some(mark) => self.wait_durable(mark, None),
            None => Ok(()),
        }
    }

    /// Blocks until `mark` is durable, committing on this thread if nobody else is.
    ///
    /// # Errors
    /// [`SyncError::InDoubt`] where the log is poisoned, [`SyncError::Timeout`] after `limit`.
    pub fn wait_durable(&self, mark: Lsn, limit: Option<Duration>) -> Result<(), SyncError> {
        let waited = self.wait(mark, limit);
        self.shared.tell();
        waited
    }

    fn wait(&self, mark: Lsn, limit: Option<Duration>) -> Result<(), SyncError> {
        let shared = &*self.shared;
        let position = mark.get();
        if self.durable() >= position {
            return Ok(());
        }
        shared.preparer.expect_commits();
        let clock = &shared.options.clock;
        let deadline = limit.map(|limit| clock.monotonic().saturating_add(limit));
        loop {
            if self.durable() >= position {
                return Ok(());
            }
            if let Some(cause) = shared.poison.get() {
                return Err(SyncError::InDoubt { lsn: mark, cause: cause.clone() });
            }
            let left = deadline.map(|deadline| deadline.saturating_sub(clock.monotonic()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(SyncError::Timeout);
            }
            let settled = || self.durable() >= position || shared.poison.get().is_some();
            match shared.commits.turn(position, settled, || self.written()) {
                None => {}
                Some(Turn::Commit(begun)) => shared.commit(&begun),
                Some(Turn::Sleep(generation)) => shared.commits.sleep(generation, left),
            }
        }
    }

    /// Sees to it that `mark` becomes durable soon; wakes `waker` then, or when the log is
    /// poisoned, or at once if either is so already.
    pub fn wake_when_durable(&self, mark: Lsn, waker: &Waker) {
        let shared = &*self.shared;
        shared.preparer.expect_commits();
        shared.commits.register(mark.get(), waker);
        if self.durable() >= mark.get() || shared.poison.get().is_some() {
            waker.wake_by_ref();
        } else {
            shared.commits.request();
            if !shared.options.threads {
                // Nobody else would.
                self.sync().unwrap_or_default();
            }
        }
    }

    /// The failure since which nothing is accepted.
    pub fn poisoned(&self) -> Option<DiskError> {
        self.shared.poison.get().cloned()
    }

    /// Stores what is written, so that it can be read.
    ///
    /// # Errors
    /// The file system's; the log is poisoned.
    pub fn store(&self) -> Result<(), ReadError> {
        let stored = self.shared.drain(self.written());
        self.shared.tell();
        stored?;
        Ok(())
    }

    /// The log's random id.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// The life that this is.
    pub fn life(&self) -> Life {
        self.shared.append.lock().life
    }

    /// What crashes took back, oldest first: no frame is or will ever be there.
    pub fn lost(&self) -> Vec<std::ops::Range<u64>> {
        let chain = self.shared.chain.read();
        let (runs, mut lost) = (chain.runs().to_vec(), Vec::new());
        let behind = chain.lost();
        drop(chain);
        for run in runs {
            // One that cannot be read says so to whoever reads frames of it.
            let table = run.part().and_then(|part| part.with_origins());
            lost.extend(table.iter().flat_map(run::RunTable::lost));
        }
        lost.extend(behind);
        lost
    }

    /// What was appended over all lives. The first call reads what no checkpoint covers.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn totals(&self) -> Result<Totals, ReadError> {
        let counts = self.shared.append.lock().counts;
        Ok(self.shared.totals_before()?.plus(counts.totals()))
    }

    /// Was a frame given `lsn`, and is it still part of this log, or was until retention dropped
    /// it? Where it cannot be known that no frame was there, this says yes.
    pub fn holds(&self, lsn: Lsn) -> bool {
        let position = lsn.get();
        match self.shared.locate(position) {
            Ok(chain::Piece::Run(run)) => matches!(run.lost_at(position), Ok(None)),
            Ok(chain::Piece::Segment(_)) => true,
            Err(_lost) => false,
        }
    }

    /// From now on checkpoints hold what `witness` says, for as long as somebody else holds it: the
    /// log does not keep it alive, and forgets it when it is closed. The one at the end of
    /// [`close`](Self::close) is asked for before that. Where nobody testifies, the newest
    /// testimony is carried on.
    #[expect(clippy::needless_pass_by_value, reason = "who gives it thinks of who keeps it")]
    pub fn heed(&self, witness: Arc<dyn Witness>) {
        *self.shared.witness.lock() = Some(Arc::downgrade(&witness));
    }

    /// What the newest checkpoint holds that is of this past: its position is no higher than the
    /// log, and no crash has taken back what was there. It is read from the disk.
    pub fn testimony(&self) -> Option<Testimony> {
        self.shared.testimony()
    }

    /// Writes checkpoints now, so that all that are kept hold what the witness says now.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(crate) fn testify_now(&self) -> Result<(), ReadError> {
        let written = self.shared.testify_now();
        self.shared.tell();
        written
    }

    /// What is below has gone into the testimony of each checkpoint that is kept.
    pub(crate) fn told_by_all(&self) -> u64 {
        self.shared.told_by_all()
    }

    /// Were frames dropped by retention?
    pub fn has_dropped(&self) -> bool {
        self.shared.chain.read().runs().iter().any(|run| run.header.dropped > 0)
    }

    /// What the keeper thread does, for logs that have none: index files of sealed segments.
    pub fn keep(&self) {
        self.shared.index_sealed();
        self.shared.tell();
    }

    /// Tells what has happened, for who holds no lock and has done something to the log.
    pub(crate) fn tell_news(&self) {
        self.shared.watch.news.tell();
    }

    /// Has something told that happened on a thread that others wait for.
    pub(crate) fn tell_later(&self, tell: impl FnOnce() + Send + 'static) {
        self.shared.watch.news.add(tell);
        self.shared.ring_for_news();
    }

    /// What is measured.
    #[cfg(feature = "metrics")]
    pub(crate) fn meter(&self) -> &crate::metrics::Meter {
        &self.shared.watch.meter
    }

    /// Where its times come from.
    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.options.clock
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.shared.options.dir
    }

    /// Is there room on the disk for the next segment? Tries to make it if it is not there.
    pub(crate) fn has_room(&self) -> bool {
        self.shared.preparer.has_room(|| self.shared.keeper_bell.ring())
    }

    /// What the keeper thread does besides, for tests that do without it: segments made ahead,
    /// and a checkpoint if one is due.
    #[cfg(any(test, feature = "internals"))]
    pub fn prepare_ahead(&self) {
        while self.shared.preparer.make_ahead() {}
        self.shared.checkpoint();
    }

    /// Waits until a segment is sealed, or for `limit`; `false` once
    /// [`wait_sealed_no_more`](Self::wait_sealed_no_more) was called.
    pub(crate) fn wait_sealed(&self, limit: Duration) -> bool {
        self.shared.sealed_bell.wait(limit) != bell::Rung::Stopped
    }

    /// Ends the wait for seals.
    pub(crate) fn wait_sealed_no_more(&self) {
        self.shared.sealed_bell.stop();
    }

    /// Numbers since it was opened.
    pub fn stats(&self) -> LogStats {
        let shared = &*self.shared;
        let counts = shared.append.lock().counts;
        // Relaxed: counters.
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            frames: counts.frames,
            events: counts.events,
            bytes: counts.bytes,
            commits: of(&shared.commits.commits),
            drains: of(&shared.counts.drains),
            drained_bytes: of(&shared.counts.drained_bytes),
            ring_full: counts.ring_full,
            lag_waits: counts.lag_waits,
            segment_waits: of(&shared.preparer.waits),
            segments_recycled: of(&shared.preparer.recycled),
            seals: counts.seals,
            segments: shared.chain.read().segments().len() as u64,
            mark_failures: of(&shared.counts.mark_failures),
            checkpoints: of(&shared.counts.checkpoints),
            checkpoint_failures: of(&shared.counts.checkpoint_failures),
            index_failures: of(&shared.counts.index_failures),
            runs: shared.chain.read().runs().len() as u64,
            compactions: of(&shared.counts.compactions),
            dropped: of(&shared.counts.dropped),
            reclaimed_bytes: of(&shared.counts.reclaimed_bytes),
        }
    }

    /// The last event's number of `stream`, [`Seq::ZERO`] if it has none.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn last_seq(&self, stream: StreamId) -> Result<Seq, ReadError> {
        let visit = &mut |_: Frame<'_>| std::ops::ControlFlow::Break(());
        Ok(self.stream(stream, Seq::MAX, visit)?.last)
    }
}
