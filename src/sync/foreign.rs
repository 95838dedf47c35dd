//! Others' tokens: the folder `foreign/`, a log of its own.
//!
//! A frame holds tokens of one log, back to back as they came, with a note of whose they are, from
//! which number on, and the running hash before and after. Its stream is that log's, its number
//! the *last* token's. Now and then, and whenever something other than tokens changes, a frame has
//! the whole [vector](vector): how far each log goes, from where on it can be read, what is open
//! in it, and who is a member. An open reads the newest vector and the frames behind it.
//!
//! **What cannot be read is never passed over in silence.** A torn tail leaves smaller cursors.
//! Behind damage nothing is believed: each log ends where it is known to go on without a hole, and
//! can be read from there on only, which whoever asks for less is told as a gap.
//!
//! One thread writes, in batches, and syncs at an interval or when it is asked to; what was
//! received a moment ago is served from memory. Without that thread everything happens in the
//! calls.
//!
//! Lock order: `table`, then the queue; `writer`, then the log's. `table` is never held over I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use parking_lot::{Condvar, Mutex};

use crate::disk::Disk;
use crate::error::{DiskError, OpenError};
use crate::log::frame::Batch;
use crate::log::{Log, LogOptions, Opening, Start};
use crate::sync::fact::Birth;
use crate::sync::message::{Mark, Place};
use crate::sync::origin::{Lane, TokenLog};
use crate::sync::own::{Unread, window::Window};
use crate::sync::replica;
use crate::sync::token::{chain, split};
use crate::time::Clock;
use crate::types::{HybridTime, Life, Seq, StreamId};

use recover::{note_of, recover, stream, vector_stream};
use vector::{Kept, Records, Vector};
use writer::{Job, Unwritten, Writer};

mod recover;
mod vector;
mod writer;

/// What is remembered of each log besides what is in the folder, in bytes.
const WINDOW_BYTES: usize = 1 << 20;
/// What may wait for the thread; who brings more waits for it.
const QUEUE_BYTES: usize = 512 << 10;
const QUEUE: usize = 4096;
/// Told apart from other logs' ids, so that no frame of one is ever taken for the other's.
const FOREIGN_ID: u64 = 0x666f_7265_6967_6e21;

/// How others' tokens are kept.
#[derive(Clone, Debug)]
pub(crate) struct ForeignOptions {
    pub dir: PathBuf,
    /// What is received is durable within this time.
    pub sync_interval: Duration,
    /// What is kept for others, at most, in bytes of the log.
    pub bytes_max: u64,
    /// And no longer than this.
    pub age_max: Duration,
    pub threads: bool,
    pub clock: Clock,
}

/// Who is told how far logs are durable.
pub(crate) type Stored = Box<dyn Fn(&[(TokenLog, u64)]) + Send + Sync>;

/// Others' tokens, kept.
pub(crate) struct Foreign {
    shared: Arc<Shared>,
    queue: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foreign").finish_non_exhaustive()
    }
}

struct Shared {
    log: Log,
    life: u64,
    table: Mutex<Table>,
    writer: Mutex<Writer>,
    stored: Mutex<Option<Arc<Stored>>>,
    durable: Mutex<BTreeMap<TokenLog, Mark>>,
    queued: AtomicUsize,
    /// Guards nothing but the sleep of who brings too much.
    crowd: Mutex<()>,
    room: Condvar,
    options: ForeignOptions,
}

/// What was received.
struct Table {
    vector: Vector,
    near: BTreeMap<TokenLog, Near>,
}

/// What was received of one log a moment ago.
struct Near {
    window: Window,
    /// Hashes at the ends of batches that are in the window.
    marks: VecDeque<Mark>,
}

impl Foreign {
    /// Opens the folder, or makes it. `life` is that of the store, and durable.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage is none: it costs what cannot be read.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        store: u64,
        life: Life,
        options: ForeignOptions,
    ) -> Result<Self, OpenError> {
        let opening = Opening::new(disk, log_options(&options), store ^ FOREIGN_ID, 0)?;
        let damaged = opening.report().start == Start::SetAside;
        let (log, report) = opening.start(life)?;
        let damaged = damaged || report.start == Start::SetAside;
        let (vector, anew) = recover(&log, life.number, damaged)?;
        let number = log.last_seq(vector_stream()).unwrap_or_default();
        let writer = Writer {
            vector: vector.clone(),
            number,
            batch: Batch::new(),
            dirty: BTreeSet::new(),
            unsaid: anew,
            since_vector: 0,
            index: BTreeMap::new(),
            synced: options.clock.monotonic_coarse(),
            failed: None,
        };
        let shared = Arc::new(Shared {
            log,
            life: life.number,
            table: Mutex::new(Table { vector, near: BTreeMap::new() }),
            writer: Mutex::new(writer),
            stored: Mutex::new(None),
            durable: Mutex::default(),
            queued: AtomicUsize::new(0),
            crowd: Mutex::new(()),
            room: Condvar::new(),
            options,
        });
        if anew {
            // Before any frame that counts on it.
            let mut writer = shared.writer.lock();
            shared.write_vector(&mut writer).map_err(|error| match error {
                Unwritten::Disk(error) => OpenError::Disk(error),
                Unwritten::Other(_) => OpenError::Options("the foreign log takes no frame"),
            })?;
        }
        let (mut queue, mut thread) = (None, None);
        if shared.options.threads {
            let (sender, receiver) = bounded(QUEUE);
            let worker = Arc::clone(&shared);
            let spawned = std::thread::Builder::new()
                .name("annals-foreign".to_owned())
                .spawn(move || worker.run(&receiver))
                .map_err(DiskError::at("starting a thread for", "foreign tokens".as_ref()))?;
            (queue, thread) = (Some(sender), Some(spawned));
        }
        let foreign = Self { shared, queue: Mutex::new(queue), thread: Mutex::new(thread) };
        // What an open finds it has made durable.
        let found = foreign.logs().into_iter().map(|(log, _, head)| (log, head));
        foreign.shared.durable.lock().extend(found);
        Ok(foreign)
    }

    /// How far everything goes, as it was found or received.
    pub(crate) fn found(&self) -> Vec<replica::Kept> {
        let table = self.shared.table.lock();
        let origins = table.vector.origins.iter();
        origins
            .map(|(origin, known)| replica::Kept {
                place: Place {
                    origin: *origin,
                    incarnation: known.incarnation,
                    marks: known.marks(),
                    diverged: known.diverged,
                },
                visible: known.visible,
                birth: known.birth.clone(),
            })
            .collect()
    }

    /// Who is a member, as it was persisted last; empty if nobody ever said.
    pub(crate) fn members(&self) -> Vec<u8> {
        self.shared.table.lock().vector.members.clone()
    }

    /// `told` hears how far logs are durable, from the thread that writes.
    pub(crate) fn on_stored(&self, told: Option<Stored>) {
        *self.shared.stored.lock() = told.map(Arc::new);
    }

    /// Keeps records that were checked, and follow what is there.
    pub(crate) fn keep(&self, log: TokenLog, first: u64, before: u64, bytes: &[u8]) {
        let shared = &*self.shared;
        {
            let mut table = shared.table.lock();
            let Table { vector, near } = &mut *table;
            if !vector.keep(&Records { log, first, before, bytes }, shared.life) {
                return;
            }
            let near = near.entry(log).or_insert_with(Near::new);
            near.window.push(first, bytes);
            if let Some(kept) = vector.get(&log) {
                near.note(kept.head);
            }
        }
        self.send(Job::Keep { log, first, before, bytes: bytes.to_vec() }, bytes.len());
        self.wait_for_room();
    }

    /// The logs of an origin begin behind `to`.
    pub(crate) fn adopt(&self, to: Place, visible: u64, birth: Option<Birth>) {
        {
            let mut table = self.shared.table.lock();
            table.vector.adopt(&to, visible, birth.as_ref(), self.shared.life);
            let Table { vector, near } = &mut *table;
            near.retain(|log, near| {
                log.origin != to.origin
                    || vector.get(log).is_some_and(|kept| near.marks.back() == Some(&kept.head))
            });
        }
        self.send(Job::Adopt { to, visible, birth }, 0);
    }

    /// Changes up to there may be read.
    pub(crate) fn visible(&self, log: TokenLog, upto: u64) {
        {
            let mut table = self.shared.table.lock();
            let known = table.vector.origins.get_mut(&log.origin);
            let known = known.filter(|it| it.incarnation == log.incarnation && it.visible < upto);
            let Some(known) = known else { return };
            known.visible = upto;
        }
        self.send(Job::Visible { log, upto }, 0);
    }

    /// There are two logs of one name.
    pub(crate) fn diverged(&self, at: Place) {
        {
            let mut table = self.shared.table.lock();
            if let Some(known) = table.vector.origins.get_mut(&at.origin) {
                known.diverged |= known.incarnation == at.incarnation;
            }
        }
        self.send(Job::Diverged { at }, 0);
    }

    /// Remembers who is a member, durably.
    ///
    /// # Errors
    /// What the disk said; it is remembered in memory alone then.
    pub(crate) fn persist(&self, members: Vec<u8>) -> Result<(), Arc<str>> {
        self.shared.table.lock().vector.members.clone_from(&members);
        self.send(Job::Members(members), 0);
        self.sync()
    }

    /// Makes everything durable that was received so far.
    ///
    /// # Errors
    /// What the disk said.
    pub(crate) fn sync(&self) -> Result<(), Arc<str>> {
        let (done, answer) = bounded(1);
        self.send(Job::Sync(done), 0);
        answer.recv().unwrap_or_else(|_gone| Err("the foreign log is closed".into()))
    }

    /// Before what the log is gone, if it is kept.
    pub(crate) fn floor(&self, log: &TokenLog) -> Option<Mark> {
        self.kept(log, |kept| kept.floor)
    }

    /// How far each log is durable.
    pub(crate) fn durable(&self) -> Vec<(TokenLog, Mark)> {
        let durable = self.shared.durable.lock();
        let table = self.shared.table.lock();
        let still = |(log, _): &(&TokenLog, &Mark)| table.vector.get(log).is_some();
        durable.iter().filter(still).map(|(log, mark)| (*log, *mark)).collect()
    }

    /// How far it goes.
    pub(crate) fn head(&self, log: &TokenLog) -> Option<Mark> {
        self.kept(log, |kept| kept.head)
    }

    /// Up to where its changes may be read.
    pub(crate) fn visible_of(&self, log: &TokenLog) -> u64 {
        let table = self.shared.table.lock();
        let known = table.vector.origins.get(&log.origin);
        known.filter(|it| it.incarnation == log.incarnation).map_or(0, |known| known.visible)
    }

    /// The newest time of a token of it.
    pub(crate) fn time(&self, log: &TokenLog) -> HybridTime {
        self.kept(log, |kept| kept.time).unwrap_or_default()
    }

    /// Where the oldest intent is that is open.
    pub(crate) fn oldest_intent(&self, log: &TokenLog) -> Option<u64> {
        self.kept(log, |kept| kept.intents.values().min().copied()).flatten()
    }

    /// The logs that are kept, each with where it begins and ends.
    pub(crate) fn logs(&self) -> Vec<(TokenLog, Mark, Mark)> {
        let table = self.shared.table.lock();
        let mut logs = Vec::new();
        for (origin, known) in &table.vector.origins {
            for lane in [Lane::Tokens, Lane::Values] {
                let kept = known.lane(lane);
                if kept.since != 0 {
                    let incarnation = known.incarnation;
                    let log = TokenLog { origin: *origin, incarnation, lane };
                    logs.push((log, kept.floor, kept.head));
                }
            }
        }
        logs
    }

    fn kept<T>(&self, log: &TokenLog, of: impl FnOnce(&Kept) -> T) -> Option<T> {
        self.shared.table.lock().vector.get(log).filter(|kept| kept.since != 0).map(of)
    }

    /// The running hash at a number from the floor to the head.
    pub(crate) fn hash_at(&self, log: &TokenLog, seq: u64) -> Option<u64> {
        let (mut from, upto) = {
            let table = self.shared.table.lock();
            let kept = table.vector.get(log).filter(|kept| kept.since != 0)?;
            if seq < kept.floor.seq || seq > kept.head.seq {
                return None;
            }
            if seq == kept.head.seq {
                return Some(kept.head.hash);
            }
            let marks = table.near.get(log).map(|near| &near.marks);
            let mark = marks.and_then(|marks| marks.iter().rev().find(|mark| mark.seq <= seq));
            (mark.copied().unwrap_or(kept.floor), seq)
        };
        if from.seq == upto {
            return Some(from.hash);
        }
        if let Some(nearer) = self.before(log, seq).filter(|nearer| nearer.seq > from.seq) {
            from = nearer;
        }
        let mut out = Vec::new();
        while from.seq < upto {
            out.clear();
            self.read(log, from.seq + 1, 64 << 10, &mut out).ok()??;
            let mut rest = &*out;
            while let Ok((record, after)) = split(rest)
                && from.seq < upto
            {
                from = Mark { seq: from.seq + 1, hash: chain(from.hash, record) };
                rest = after;
            }
        }
        Some(from.hash)
    }

    /// The mark before the frame of the folder that holds a token.
    fn before(&self, log: &TokenLog, seq: u64) -> Option<Mark> {
        let since = self.kept(log, |kept| kept.since)?;
        let mut found = None;
        let after = Seq::new(seq.saturating_sub(1))?;
        let visited = self.shared.log.stream(stream(log, since), after, &mut |frame| {
            let note = note_of(&frame).map(|(_, note)| note).filter(|note| note.first <= seq);
            found = note.map(|note| Mark { seq: note.first - 1, hash: note.before });
            ControlFlow::Break(())
        });
        visited.ok()?;
        found
    }

    /// Adds the records from number `from` on to `out`, as many as fit `bytes_max`, but one at
    /// least; answers the number of the last; `None` if there is none yet.
    ///
    /// # Errors
    /// See [`Unread`]. What could not be read is gone from then on.
    pub(crate) fn read(
        &self,
        log: &TokenLog,
        from: u64,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<u64>, Unread> {
        let (since, head) = {
            let table = self.shared.table.lock();
            let kept = table.vector.get(log).filter(|it| it.since != 0).ok_or(Unread::Gone)?;
            if from > kept.head.seq {
                return Ok(None);
            }
            if from <= kept.floor.seq {
                return Err(Unread::Gone);
            }
            let near = table.near.get(log);
            if let Some(last) = near.and_then(|near| near.window.read(from, bytes_max, out)) {
                return Ok(Some(last));
            }
            (kept.since, kept.head)
        };
        let start = out.len();
        match self.read_log(stream(log, since), from, bytes_max, out) {
            Ok(Some(last)) => Ok(Some(last)),
            unread => {
                out.truncate(start);
                // It is not there although it should be: nothing up to here can be had any more.
                let raised = {
                    let mut table = self.shared.table.lock();
                    let kept = table.vector.get_mut(log).filter(|it| it.since == since);
                    kept.map(|kept| kept.floor = head).is_some()
                };
                if raised {
                    self.send(Job::Floor { log: *log, floor: head }, 0);
                }
                unread.and(Err(Unread::Gone))
            }
        }
    }

    fn read_log(
        &self,
        stream: StreamId,
        from: u64,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<u64>, Unread> {
        let after = Seq::new(from.saturating_sub(1)).unwrap_or(Seq::MAX);
        let start = out.len();
        let (mut next, mut last) = (from, None);
        self.shared.log.stream(stream, after, &mut |frame| {
            let Some((_, note)) = note_of(&frame) else { return ControlFlow::Break(()) };
            let mut seq = note.first;
            let mut rest = note.bytes;
            while let Ok((record, behind)) = split(rest) {
                rest = behind;
                if seq == next {
                    if out.len() - start + record.len() > bytes_max && last.is_some() {
                        return ControlFlow::Break(());
                    }
                    out.extend_from_slice(record);
                    last = Some(seq);
                    next += 1;
                } else if seq > next {
                    // A hole: what follows is not what was asked for.
                    return ControlFlow::Break(());
                }
                seq += 1;
            }
            ControlFlow::Continue(())
        })?;
        Ok(last)
    }

    fn send(&self, job: Job, bytes: usize) {
        // Relaxed: a bound.
        self.shared.queued.fetch_add(bytes, Ordering::Relaxed);
        let queue = self.queue.lock().clone();
        if let Some(queue) = queue {
            // The thread ends after the queue is dropped.
            queue.send(job).unwrap_or_default();
        } else {
            let mut writer = self.shared.writer.lock();
            self.shared.write(&mut writer, job);
            self.shared.stored_now(&mut writer);
        }
    }

    /// Waits while too much is on its way to the disk: so the sender is not asked for more.
    fn wait_for_room(&self) {
        let shared = &*self.shared;
        if shared.queued.load(Ordering::Relaxed) <= QUEUE_BYTES || !shared.options.threads {
            return;
        }
        let mut crowd = shared.crowd.lock();
        while shared.queued.load(Ordering::Relaxed) > QUEUE_BYTES {
            shared.room.wait_for(&mut crowd, Duration::from_millis(100));
        }
    }

    /// Why nothing more is kept, if so.
    pub(crate) fn failed(&self) -> Option<Arc<str>> {
        self.shared.writer.lock().failed.clone()
    }

    /// Writes what was received, makes it durable and ends the thread.
    ///
    /// # Errors
    /// What the disk said.
    pub(crate) fn close(&self) -> Result<(), Arc<str>> {
        self.queue.lock().take();
        if let Some(Err(panic)) = self.thread.lock().take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        let synced = {
            let mut writer = self.shared.writer.lock();
            writer.unsaid = true;
            self.shared.sync(&mut writer)
        };
        self.shared.log.close().map_err(|error| error.to_string())?;
        synced
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`.
        self.close().unwrap_or_default();
    }
}

impl Near {
    fn new() -> Self {
        Self { window: Window::of(WINDOW_BYTES), marks: VecDeque::new() }
    }

    fn note(&mut self, mark: Mark) {
        self.marks.push_back(mark);
        let first = self.window.first();
        while self.marks.get(1).is_some_and(|second| second.seq < first) || self.marks.len() > 4096
        {
            self.marks.pop_front();
        }
    }
}

fn log_options(options: &ForeignOptions) -> LogOptions {
    LogOptions {
        ring_bytes: 8 << 20,
        flush_interval: options.sync_interval,
        threads: false,
        rebuildable: true,
        clock: options.clock.clone(),
        ..LogOptions::new(&options.dir)
    }
}

#[cfg(test)]
mod tests;
