//! Opening a log, its background threads, and closing it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::bell::{Bell, Rung};
use super::chain::Chain;
use super::checkpoint::Totals;
use super::commit::{CommitQueue, Work};
use super::frame::{Batch, FrameKind, Salt};
use super::mark::{self, Mark};
use super::prepare::{self, Preparer};
use super::recent::Recent;
use super::recover::{Decision, Evidence, RecoveryReport};
use super::rule::{Rule, holds};
use super::run_file::Run;
use super::segment::{Previous, Segment};
use super::slots::Slots;
use super::survey::{Survey, survey};
use super::sync::Syncing;
use super::tail::Tails;
use super::watch::Watch;
use super::write::{AppendCounts, Appender};
use super::{Closing, Counts, Line, Log, LogOptions, Shared};
use crate::disk::{Access, Disk, Fill, PAGE_U64, RingSource, RingWriter, map::heap_ring};
use crate::error::{AppendError, DiskError, OpenError, ReadError, SyncError};
use crate::types::{Life, Seq, StreamId};

/// How long the committer waits before it syncs a mark file that was written.
const MARK_IDLE: Duration = Duration::from_millis(50);

/// A log that has been looked through and made sound, and not begun a life yet.
#[derive(Debug)]
pub struct Opening {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    id: u64,
    survey: Survey,
}

impl Opening {
    /// Reads what is there, decides, and makes what is kept durable. `evidence` is what is known
    /// from elsewhere: a position that had been durable, and whether the machine ran on.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage changes nothing; after another error the next try begins anew.
    pub fn new(
        disk: &Arc<dyn Disk>,
        options: LogOptions,
        id: u64,
        evidence: impl Into<Evidence>,
    ) -> Result<Self, OpenError> {
        if let Some(contradiction) = options.contradiction() {
            return Err(OpenError::Options(contradiction));
        }
        let mut survey = survey(disk, &options, id, evidence.into())?;
        survey.rescue(&**disk, &options)?;
        Ok(Self { disk: Arc::clone(disk), options, id, survey })
    }

    /// What was found.
    pub fn report(&self) -> &RecoveryReport {
        &self.survey.report
    }

    /// The next life begins in a new segment, although it could go on in the last.
    pub(crate) fn leave_segment(&mut self) {
        if self.survey.decision == Decision::GoOn {
            self.survey.decision = Decision::StartAnew;
        }
    }

    /// Has retention dropped frames of this log? Then what covers them is no longer a thing that
    /// can be done without.
    pub fn has_dropped(&self) -> bool {
        self.survey.runs.iter().any(|run| run.dropped > 0)
    }

    /// Begins `life`, which must be durable as the newest already.
    ///
    /// # Errors
    /// See [`OpenError`]; the next try begins anew.
    pub fn start(self, life: Life) -> Result<(Log, RecoveryReport), OpenError> {
        let Self { disk, options, id, survey } = self;
        let began = options.clock.monotonic();
        let dir = options.dir.clone();
        let going_on = survey.decision == Decision::GoOn;
        clear(&*disk, &options, &survey)?;
        let (ring_writer, ring) = open_ring(&*disk, &options)?;
        let mark = open_mark(&*disk, &options, (id, &survey))?;
        let segments = segments(&disk, &dir, &survey);
        let runs: Vec<_> =
            survey.runs.iter().map(|header| Run::existing(&disk, &dir, *header)).collect();
        let last = segments.last().cloned();
        let end = survey.facts.end;
        // Where the new life's frames begin, as far as that is known.
        let first = if going_on { end.next_multiple_of(PAGE_U64) } else { end };
        let writing = if going_on { last.clone() } else { None };
        if let Some(segment) = &writing {
            segment.reopen()?;
            segment.unfinish();
        }
        let ahead = IndexAhead::begin(&disk, last.as_ref().filter(|_| options.threads), end);
        let previous = last
            .as_ref()
            .map(|last| Previous { base: last.header.base, end: (!going_on).then_some(end) });
        let start =
            prepare::Start { base: above(&survey), bytes: options.segment_bytes_first, previous };
        let appender = Appender {
            ring: ring_writer,
            offset: writing.as_ref().map_or(0, |segment| first - segment.header.base),
            salt: Salt { log: id, life, base: last.as_ref().map_or(0, |last| last.header.base) },
            segment: writing,
            room: 0,
            begun: false,
            time: survey.time,
            life,
            closing: Closing::Open,
            counts: AppendCounts::default(),
        };
        let recent = Recent::new();
        recent.fill();
        *recent.indexed() = last.map_or(0, |last| last.header.base);
        let watch = Arc::new(Watch::new(dir.clone(), options.clock.clone()));
        let preparer = Preparer::new(
            (&disk, &watch),
            dir.clone(),
            (id, life),
            start,
            options.segment_bytes_max,
        );
        let shared = Arc::new(Shared {
            disk,
            id,
            append: Line(Mutex::new(appender)),
            written: Line(AtomicU64::new(first)),
            stored: Line(AtomicU64::new(first)),
            durable: Line(AtomicU64::new(first)),
            ring,
            drain: Mutex::new(first),
            chain: RwLock::new(Chain::new(runs, segments)),
            preparer,
            commits: CommitQueue::new(),
            syncing: Mutex::new(Syncing::new(mark, first, life)),
            poison: OnceLock::new(),
            recent,
            tails: Tails::default(),
            drain_bell: Bell::new(),
            keeper_bell: Bell::new(),
            watch,
            sealed_bell: Bell::new(),
            counts: Counts::default(),
            first,
            counted: survey.counted,
            before: OnceLock::new(),
            due: Mutex::new(None),
            witness: Mutex::new(None),
            checkpointing: Mutex::new(()),
            leftovers: Mutex::new(Vec::new()),
            compacting: Mutex::new(None),
            options,
        });
        let anew = survey.decision == Decision::StartAnew;
        let mut report = survey.report;
        if shared.options.mark.is_some() || anew {
            begin(&shared)?;
        }
        if anew {
            let first = shared.append.lock().salt.base;
            report.lost = end..first;
            // Only now: the files that are to go keep positions from being given out twice. Large
            // ones take their time, and where there is a thread for it nothing waits for that.
            if shared.options.threads {
                *shared.leftovers.lock() = survey.spares;
            } else {
                remove(&*shared.disk, &dir, &survey.spares)?;
            }
        }
        let mut threads = if shared.options.threads { spawn(&shared)? } else { Vec::new() };
        threads.extend(ahead.into_thread());
        report.took += shared.options.clock.monotonic().saturating_sub(began);
        Ok((Log { shared, threads: Mutex::new(threads) }, report))
    }
}

/// Makes the folder ready for a life.
fn clear(disk: &dyn Disk, options: &LogOptions, survey: &Survey) -> Result<(), OpenError> {
    let dir = &options.dir;
    if survey.chain.is_empty() {
        disk.create_dir(dir).map_err(DiskError::at("creating", dir))?;
        sync_parent(disk, dir)?;
    }
    if survey.decision != Decision::StartAnew || !holds(Rule::RemoveLast) {
        remove(disk, dir, &survey.spares)?;
    }
    if let Some(dir) = &options.checkpoints {
        // Once the log has grown past them they would be believed.
        remove(disk, dir, &survey.strangers)?;
    }
    Ok(())
}

fn open_mark(
    disk: &dyn Disk,
    options: &LogOptions,
    (id, survey): (u64, &Survey),
) -> Result<Option<Slots>, OpenError> {
    let Some(path) = &options.mark else { return Ok(None) };
    let slots = Slots::open(disk, path, mark::MAGIC, &survey.mark)?;
    // A valid slot is of a life that got past this line.
    if Mark::highest(&survey.mark, id).is_none() {
        sync_parent(disk, path)?;
    }
    Ok(Some(slots))
}

/// Less than this of a segment is quickly indexed by who reads first.
const WORTH_AHEAD: u64 = 1 << 20;

/// Indexes the segment that the life before wrote last, while the open goes on: it is the one
/// that has no index file, and whoever reads first needs it.
struct IndexAhead(Option<JoinHandle<()>>);

impl IndexAhead {
    /// Where there can be no thread, whoever reads first does it.
    fn begin(disk: &Arc<dyn Disk>, last: Option<&Arc<Segment>>, end: u64) -> Self {
        let worth = |last: &&Arc<Segment>| end.saturating_sub(last.header.base) >= WORTH_AHEAD;
        let Some(last) = last.filter(worth) else { return Self(None) };
        let (disk, last) = (Arc::clone(disk), Arc::clone(last));
        let index = move || {
            // Who reads meets the same damage, and says so.
            let _indexed_or_damaged = last.catch_up(&*disk, &mut last.index.lock());
        };
        Self(std::thread::Builder::new().name("annals-index".into()).spawn(index).ok())
    }

    fn into_thread(mut self) -> Option<JoinHandle<()>> {
        self.0.take()
    }
}

impl Drop for IndexAhead {
    fn drop(&mut self) {
        // The open has failed: nobody is to have files of the log open after that.
        if let Some(thread) = self.0.take() {
            // A panic has been told of, and is not to meet another.
            thread.join().unwrap_or_default();
        }
    }
}

/// The base of the next segment.
fn above(survey: &Survey) -> u64 {
    if holds(Rule::AboveEverything) {
        survey.above
    } else {
        survey.chain.last().map_or(0, |last| last.header.limit())
    }
}

/// Begins the life now, and writes the mark file for good.
fn begin(shared: &Shared) -> Result<(), OpenError> {
    let begun = shared.begin_life(&mut shared.append.lock());
    begun.map_err(|error| match error {
        AppendError::DiskFull(error) | AppendError::Poisoned(error) | AppendError::Disk(error) => {
            OpenError::Disk(error)
        }
        // None of these comes of a `Life` frame.
        AppendError::GroupTooLarge { .. }
        | AppendError::Conflict { .. }
        | AppendError::Closed
        | AppendError::NoNode
        | AppendError::Fenced
        | AppendError::Domain(_)
        | AppendError::Read(_) => OpenError::Options("frame_bytes_max is too small"),
    })?;
    let mut syncing = shared.syncing.lock();
    syncing.note(shared.id, shared.durable.load(Ordering::Acquire))?;
    syncing.settle()?;
    Ok(())
}

/// The segments that hold frames; the last one ends where the walk did.
fn segments(disk: &Arc<dyn Disk>, dir: &Path, survey: &Survey) -> Vec<Arc<Segment>> {
    let last = survey.chain.len().saturating_sub(1);
    survey
        .chain
        .iter()
        .enumerate()
        .map(|(number, link)| {
            // Sealed ones end at their Seal frame, which is found when it is read.
            let end = if number == last {
                survey.facts.end
            } else {
                link.end.unwrap_or(link.header.limit())
            };
            Segment::existing(disk, dir, link.header, Some(end))
        })
        .collect()
}

/// Removes the files that hold nothing, and sees to it that they do not come back.
fn remove(disk: &dyn Disk, dir: &Path, spares: &[PathBuf]) -> Result<(), DiskError> {
    if spares.is_empty() {
        return Ok(());
    }
    let indexes = spares.iter().filter(|path| path.extension() == Some("seg".as_ref()));
    let indexes: Vec<_> = indexes.map(|path| path.with_extension("idx")).collect();
    for path in spares.iter().chain(&indexes) {
        match disk.remove(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(DiskError::at("removing", path)(error)),
        }
    }
    disk.sync_dir(dir).map_err(DiskError::at("syncing", dir))
}

fn sync_parent(disk: &dyn Disk, path: &Path) -> Result<(), DiskError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    disk.sync_dir(parent).map_err(DiskError::at("syncing", parent))
}

fn open_ring(disk: &dyn Disk, options: &LogOptions) -> Result<(RingWriter, RingSource), DiskError> {
    let Some(path) = &options.ring else {
        return heap_ring(options.ring_bytes)
            .map_err(DiskError::at("allocating the ring of", &options.dir));
    };
    let bytes = options.ring_bytes as u64;
    let existing = disk
        .open(path, Access::Write)
        .ok()
        .filter(|file| file.len().is_ok_and(|length| length == bytes));
    let file = if let Some(file) = existing {
        file
    } else {
        let file = disk.open(path, Access::Create).map_err(DiskError::at("creating", path))?;
        // All of it before it is mapped: a page fault cannot answer "disk full".
        file.allocate(bytes, Fill::Reserve).map_err(DiskError::at("allocating", path))?;
        file
    };
    file.map_ring(options.ring_bytes).map_err(DiskError::at("mapping", path))
}

/// A thread's name, and what it does.
type Task = (&'static str, fn(&Shared));

/// The threads of a log: committer, drain, keeper.
fn spawn(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, DiskError> {
    shared.preparer.keep();
    let tasks: [Task; 3] =
        [("annals-commit", committer), ("annals-drain", drainer), ("annals-segments", keeper)];
    let mut threads = Vec::new();
    for (name, task) in tasks {
        let shared_here = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || task(&shared_here))
            .map_err(DiskError::at("starting a thread for", &shared.options.dir));
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                stop(shared, &mut threads);
                return Err(error);
            }
        }
    }
    shared.keeper_bell.ring();
    Ok(threads)
}

fn stop(shared: &Shared, threads: &mut Vec<JoinHandle<()>>) {
    shared.commits.stop();
    shared.drain_bell.stop();
    shared.keeper_bell.stop();
    for thread in threads.drain(..) {
        // The witness's last owner can be the keeper, for a moment, and the log's with it.
        if thread.thread().id() == std::thread::current().id() {
            continue;
        }
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Commits while somebody waits, and once in a while although nobody does.
fn committer(shared: &Shared) {
    let interval = shared.options.flush_interval;
    let clock = &shared.options.clock;
    let mut last = clock.monotonic();
    let mut dirty = false;
    loop {
        let idle = if dirty { MARK_IDLE.min(interval) } else { interval / 2 };
        match shared.commits.work(idle, || shared.written.load(Ordering::Acquire)) {
            Work::Stop => return,
            Work::Commit(begun) => {
                shared.commit(&begun);
                last = clock.monotonic();
                dirty = true;
            }
            Work::Idle => {
                let unsynced =
                    shared.written.load(Ordering::Acquire) > shared.durable.load(Ordering::Acquire);
                if unsynced && clock.monotonic().saturating_sub(last) >= interval / 2 {
                    shared.commits.request();
                } else {
                    let mut syncing = shared.syncing.lock();
                    if let Err(error) = syncing.settle() {
                        shared.mark_failed(error);
                    }
                    dirty = syncing.dirty();
                }
            }
        }
    }
}

/// Stores what is in the ring before it is full, and tells the news.
fn drainer(shared: &Shared) {
    while shared.drain_bell.wait(Duration::from_mins(1)) != Rung::Stopped {
        shared.watch.news.tell();
        // An error has poisoned the log; there is nobody else to tell.
        let Ok(stored) = shared.drain(shared.written.load(Ordering::Acquire)) else { continue };
        let unsynced = stored.saturating_sub(shared.durable.load(Ordering::Acquire));
        if unsynced > shared.options.flush_bytes {
            shared.commits.request();
        }
    }
}

/// Prepares segments ahead, and gives sealed ones their index files.
fn keeper(shared: &Shared) {
    loop {
        while shared.preparer.make_ahead() {}
        let leftovers = std::mem::take(&mut *shared.leftovers.lock());
        // What stays is found and removed by the next open.
        remove(&*shared.disk, &shared.options.dir, &leftovers).unwrap_or_default();
        shared.index_sealed();
        shared.checkpoint();
        shared.ring_for_news();
        if shared.keeper_bell.wait(Duration::from_mins(1)) == Rung::Stopped {
            return;
        }
    }
}

impl Shared {
    /// What was appended before this life.
    pub(super) fn totals_before(&self) -> Result<Totals, ReadError> {
        if let Some(totals) = self.before.get() {
            return Ok(*totals);
        }
        let (totals, from) = self.counted;
        let totals = totals.plus(self.count(from)?);
        Ok(*self.before.get_or_init(|| totals))
    }

    /// Writes the index files that are due.
    pub(super) fn index_sealed(&self) {
        let stored = self.stored.load(Ordering::Acquire);
        let segments = self.chain.read().segments().to_vec();
        for segment in segments {
            let due = segment.end().is_some_and(|end| end <= stored)
                && !segment.indexed.load(Ordering::Relaxed);
            if !due {
                continue;
            }
            // Tried once: a segment whose index cannot be written is indexed in memory.
            segment.indexed.store(true, Ordering::Relaxed);
            if let Err(error) = segment.store_index(&self.disk) {
                self.counts.index_failures.fetch_add(1, Ordering::Relaxed);
                self.watch.index_failed(&segment, error);
            }
            if self.options.threads {
                // Preparing goes before indexing.
                while self.preparer.make_ahead() {}
            }
        }
    }

    /// Opens the life with its frame, if that has not been done.
    pub(super) fn begin_life(&self, appender: &mut Appender) -> Result<(), AppendError> {
        if appender.begun {
            return Ok(());
        }
        let going_on = appender.segment.is_some();
        if !going_on {
            self.roll_over(appender)?;
        }
        let mut body = Vec::new();
        let wall = self.options.clock.wall_ms();
        for number in [appender.life.number, appender.life.bits, wall, 0] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        self.put_system(appender, FrameKind::Life, &body)?;
        appender.begun = true;
        if going_on && holds(Rule::LifeFirst) {
            // Before any other position of this life is given out: if this frame could be lost,
            // the next life would go on at the same place.
            self.sync_written(self.syncing.lock()).map_err(AppendError::Poisoned)?;
        }
        Ok(())
    }
}

impl Log {
    /// Takes no more frames, makes everything durable and ends the background threads. A log
    /// that was closed is continued by the next life without a recovery.
    ///
    /// # Errors
    /// [`SyncError::InDoubt`] where the log is or becomes poisoned: the next open recovers.
    pub fn close(&self) -> Result<(), SyncError> {
        let shared = &*self.shared;
        {
            let mut appender = shared.append.lock();
            if appender.closing != Closing::Open {
                return Ok(());
            }
            appender.closing = Closing::LastFrame;
            appender.room = 0;
        }
        let begun = shared.append.lock().begun;
        let closed = match (begun, self.poisoned()) {
            (false, _) => Ok(()),
            (true, None) => self.close_frame(),
            // Says what is in doubt, if anything is.
            (true, Some(_)) => self.sync(),
        };
        shared.append.lock().closing = Closing::Closed;
        shared.tails.ring();
        stop(shared, &mut self.threads.lock());
        *shared.witness.lock() = None;
        if closed.is_ok() && self.poisoned().is_none() {
            shared.preparer.discard();
        }
        shared.watch.news.tell();
        closed
    }

    fn close_frame(&self) -> Result<(), SyncError> {
        let shared = &*self.shared;
        let mut batch = Batch::new();
        // The one append that a closing log takes. If there is no room for it the next open is a
        // recovery, and loses nothing.
        let appended =
            shared.append(&mut batch, Some(FrameKind::Close), StreamId::SYSTEM, Seq::ZERO);
        self.sync()?;
        if let (Ok(appended), Some(_)) = (appended, &shared.options.checkpoints) {
            let counts = shared.append.lock().counts;
            *shared.due.lock() = Some((appended.end.get(), counts.totals()));
            shared.checkpoint();
        }
        let settled = shared.syncing.lock().settle();
        if let Err(error) = settled {
            shared.mark_failed(error);
        }
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`.
        self.close().unwrap_or_default();
    }
}
