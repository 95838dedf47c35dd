//! Retention: what becomes of old events and snapshots.
//!
//! One thread, woken by seals, compacts what is old in both logs. Of events, those at or below a
//! snapshot that an actor would be loaded from may go, if [`Retain`] says so; of snapshots, all
//! but the newest [`KEPT`](crate::snapshot::KEPT) that can be used. Whatever is relied on is
//! durable and was read before anything goes. An actor without a snapshot that can be used keeps
//! its events, and holds nothing up: they are copied on. It is asked for a snapshot.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::actor::KnownKinds;
use crate::actor::provider::Pins;
use crate::catalogue::Catalogue;
use crate::error::{DiskError, OpenError, ReadError};
use crate::log::frame::RecordKind;
use crate::log::{Compacted, Keep, Log, Plan, name};
use crate::snapshot::{SnapshotRef, Snapshots};
use crate::time::Clock;
use crate::trace;
use crate::types::{HybridTime, Seq, StreamId};

/// How often it is looked without a seal: ages rise by themselves.
const PERIOD: Duration = Duration::from_mins(1);
/// Actors that are asked for a snapshot at a time.
const ASKED_MAX: usize = 256;
/// Passes of one call by hand: the first asks for snapshots, the next can use them.
const PASSES_MAX: usize = 3;
/// A call by hand waits so long for what is owed to be known; until then nothing goes.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// Which events a store keeps.
///
/// Whatever it says, of an actor's events only those may go that a snapshot covers which is durable
/// and which this program can read: the older of the last two of that kind, or the only one. The
/// actor's first turn always stays, since it holds the name. Kinds of actors without snapshots,
/// and kinds that this program has not asked for yet, keep all of their events.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retain {
    /// All of them: history is a feature.
    #[default]
    All,
    /// Those that no snapshot covers.
    UntilSnapshot,
    /// Those of this last time, and those that no snapshot covers.
    Age(Duration),
    /// Those in this many last bytes of the log, and those that no snapshot covers.
    Bytes(u64),
}

/// What was done about old files since the store was opened (or in one call).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionStats {
    /// Compacted files made, of events and of snapshots.
    pub compactions: u64,
    /// Frames of events dropped.
    pub events_dropped: u64,
    /// Snapshots dropped.
    pub snapshots_dropped: u64,
    /// Bytes by which the files have become smaller.
    pub reclaimed_bytes: u64,
    /// Actors that were asked for a snapshot.
    pub laggards_asked: u64,
    /// Attempts that failed. What they were about is as it was, and tried again.
    pub failures: u64,
}

/// What is to be done, and how far.
#[derive(Copy, Clone, Debug)]
pub(super) struct Policy {
    retain: Retain,
    compaction: bool,
    run_bytes_max: u64,
}

impl Policy {
    pub(super) fn of(retain: &Retain, compaction: Option<bool>, run_bytes_max: u64) -> Self {
        let compaction = compaction.unwrap_or(*retain != Retain::All);
        Self { retain: *retain, compaction, run_bytes_max }
    }
}

/// Looks after old files.
#[derive(Debug)]
pub(super) struct Retention {
    worker: Arc<Worker>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Worker {
    events: Arc<Log>,
    snapshots: Arc<Snapshots>,
    kinds: KnownKinds,
    pins: Arc<dyn Pins>,
    /// Knows which streams are cursors'; without it they are kept like others.
    catalogue: Option<Arc<Catalogue>>,
    policy: Policy,
    clock: Clock,
    /// One pass at a time.
    passing: Mutex<Passing>,
    stopped: AtomicBool,
    counts: Counts,
}

/// What was done, for who publishes it.
#[cfg(feature = "metrics")]
#[derive(Debug)]
pub(super) struct Counted(Arc<Worker>);

#[cfg(feature = "metrics")]
impl Counted {
    pub(super) fn stats(&self) -> RetentionStats {
        self.0.counts.stats()
    }
}

/// What one pass leaves to the next.
#[derive(Debug)]
struct Passing {
    /// Bytes that were compacted since the runs were looked at.
    since: u64,
    /// The last stream that was asked for a snapshot: the next ones have their turn.
    asked: StreamId,
}

#[derive(Debug, Default)]
struct Counts {
    compactions: AtomicU64,
    events_dropped: AtomicU64,
    snapshots_dropped: AtomicU64,
    reclaimed_bytes: AtomicU64,
    laggards_asked: AtomicU64,
    failures: AtomicU64,
}

impl Counts {
    fn stats(&self) -> RetentionStats {
        // Relaxed, here and below: counters.
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RetentionStats {
            compactions: of(&self.compactions),
            events_dropped: of(&self.events_dropped),
            snapshots_dropped: of(&self.snapshots_dropped),
            reclaimed_bytes: of(&self.reclaimed_bytes),
            laggards_asked: of(&self.laggards_asked),
            failures: of(&self.failures),
        }
    }

    fn compacted(&self, done: &Compacted, dropped: &AtomicU64) {
        self.compactions.fetch_add(1, Ordering::Relaxed);
        dropped.fetch_add(done.dropped, Ordering::Relaxed);
        let reclaimed = done.bytes_before.saturating_sub(done.bytes_after);
        self.reclaimed_bytes.fetch_add(reclaimed, Ordering::Relaxed);
    }
}

impl Retention {
    /// With a thread, if `threads` and there is anything to do.
    pub(super) fn start(
        (events, snapshots): (&Arc<Log>, &Arc<Snapshots>),
        (kinds, pins, catalogue): (KnownKinds, Arc<dyn Pins>, Option<Arc<Catalogue>>),
        policy: Policy,
        (clock, threads): (Clock, bool),
    ) -> Result<Self, OpenError> {
        let worker = Arc::new(Worker {
            events: Arc::clone(events),
            snapshots: Arc::clone(snapshots),
            kinds,
            pins,
            catalogue,
            policy,
            clock,
            passing: Mutex::new(Passing { since: u64::MAX, asked: StreamId::SYSTEM }),
            stopped: AtomicBool::new(false),
            counts: Counts::default(),
        });
        let mut thread = None;
        if threads && policy.compaction {
            let worker = Arc::clone(&worker);
            let spawned = std::thread::Builder::new()
                .name("annals-retain".to_owned())
                .spawn(move || worker.run())
                .map_err(DiskError::at("starting a thread for", "retention".as_ref()))?;
            thread = Some(spawned);
        }
        Ok(Self { worker, thread: Mutex::new(thread) })
    }

    /// Everything that can be done now.
    pub(super) fn by_hand(&self) -> Result<RetentionStats, ReadError> {
        let before = self.stats();
        self.worker.pins.wait_known(KNOWN_WITHIN);
        // Else those that there are have their say.
        self.worker.events.testify_now().unwrap_or_default();
        for _ in 0..PASSES_MAX {
            let asked = self.stats().laggards_asked;
            self.worker.pass(true)?;
            if self.stats().laggards_asked == asked {
                break;
            }
        }
        let after = self.stats();
        Ok(RetentionStats {
            compactions: after.compactions - before.compactions,
            events_dropped: after.events_dropped - before.events_dropped,
            snapshots_dropped: after.snapshots_dropped - before.snapshots_dropped,
            reclaimed_bytes: after.reclaimed_bytes - before.reclaimed_bytes,
            laggards_asked: after.laggards_asked - before.laggards_asked,
            failures: after.failures - before.failures,
        })
    }

    pub(super) fn stats(&self) -> RetentionStats {
        self.worker.counts.stats()
    }

    /// The numbers alone.
    #[cfg(feature = "metrics")]
    pub(super) fn counted(&self) -> Counted {
        Counted(Arc::clone(&self.worker))
    }

    /// Ends the thread, after the step that it is at.
    pub(super) fn close(&self) {
        // Relaxed: a request to end soon.
        self.worker.stopped.store(true, Ordering::Relaxed);
        self.worker.events.wait_sealed_no_more();
        if let Some(Err(panic)) = self.thread.lock().take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        self.close();
    }
}

impl Worker {
    fn run(&self) {
        while self.events.wait_sealed(PERIOD) {
            // What a close has interrupted is no failure.
            if self.pass(false).is_err() && !self.is_stopped() {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Ends a compaction between two streams: a close does not wait for a large one.
    fn going_on(&self) -> Result<(), ReadError> {
        if self.is_stopped() {
            let interrupted = std::io::ErrorKind::Interrupted.into();
            return Err(DiskError::at("compacting", "the store".as_ref())(interrupted).into());
        }
        Ok(())
    }

    /// Compacts both logs, then asks laggards.
    fn pass(&self, thorough: bool) -> Result<(), ReadError> {
        let before = self.counts.stats();
        let passed = self.pass_alone(thorough);
        // Only now: while the pass is under way a subscriber could not ask for another.
        self.kinds.dropped();
        self.events.tell_news();
        self.snapshots.log().tell_news();
        if trace::ON {
            self.tell(&before, &passed);
        }
        passed
    }

    fn tell(&self, before: &RetentionStats, passed: &Result<(), ReadError>) {
        let (dir, after) = (self.events.dir(), self.counts.stats());
        let asked = after.laggards_asked - before.laggards_asked;
        if asked > 0 {
            trace::LaggardsAsked { dir, asked }.tell();
        }
        if after.compactions > before.compactions {
            trace::RetentionDone {
                dir,
                events_dropped: after.events_dropped - before.events_dropped,
                snapshots_dropped: after.snapshots_dropped - before.snapshots_dropped,
                reclaimed_bytes: after.reclaimed_bytes - before.reclaimed_bytes,
            }
            .tell();
        }
        // What a close has interrupted is no failure.
        if let (Err(error), false) = (passed, self.is_stopped()) {
            trace::RetentionFailed { dir, error }.tell();
        }
    }

    fn pass_alone(&self, thorough: bool) -> Result<(), ReadError> {
        let mut passing = self.passing.lock();
        let laggards = RefCell::new(BTreeSet::new());
        let held_up = RefCell::new(BTreeSet::new());
        let events = self.pass_events(&mut passing, thorough, (&laggards, &held_up));
        for stream in held_up.into_inner() {
            self.pins.is_held_up(stream);
        }
        let laggards = laggards.into_inner();
        let after = laggards.range((Bound::Excluded(passing.asked), Bound::Unbounded));
        let mut asked = 0;
        for stream in after.take(ASKED_MAX) {
            if self.is_stopped() {
                return Ok(());
            }
            self.ask(*stream)?;
            passing.asked = *stream;
            asked += 1;
        }
        if asked < ASKED_MAX {
            passing.asked = StreamId::SYSTEM;
        }
        events?;
        self.pass_snapshots(thorough)
    }

    fn pass_events(
        &self,
        passing: &mut Passing,
        thorough: bool,
        (laggards, held_up): (&RefCell<BTreeSet<StreamId>>, &RefCell<BTreeSet<StreamId>>),
    ) -> Result<(), ReadError> {
        let (_, runs) = self.events.compactable();
        // The runs are looked at again when there is a quarter more.
        let renew = self.policy.retain != Retain::All && passing.since >= runs / 4;
        // What is relied on is on the disk before anything goes. If that cannot be had, nothing
        // goes, and all is copied.
        let dropping = self.policy.retain != Retain::All && self.snapshots.sync().is_ok();
        let asked = passing.asked;
        let keeps = |kind: &str| self.kinds.keeps(kind);
        let cursors = self.cursors()?;
        let keep = |stream| {
            self.going_on()?;
            if let Some(upto) = self.pins.goes_upto(stream) {
                return Ok(Keep { upto, first: true, superseded: true });
            }
            if cursors.contains(&stream) || self.pins.is_superseding(stream) {
                // All but the newest.
                let upto = self.events.last_seq(stream)?.get().saturating_sub(1);
                let upto = Seq::new(upto).unwrap_or(Seq::ZERO);
                return Ok(Keep { upto, first: true, superseded: true });
            }
            if !dropping {
                return Ok(Keep::ALL);
            }
            let known = |snapshot: &SnapshotRef<'_>| self.kinds.reads(snapshot) == Some(true);
            let floor = self.snapshots.floor(stream, &known, &keeps)?;
            if let Some(upto) = floor.filter(|upto| self.kinds.drop_below(stream, *upto)) {
                let Some(owed) = self.pins.owed_from(stream).filter(|owed| *owed <= upto) else {
                    return Ok(Keep { upto, ..Keep::ALL });
                };
                let mut held_up = held_up.borrow_mut();
                if held_up.len() < ASKED_MAX {
                    held_up.insert(stream);
                }
                let upto = Seq::new(owed.get().saturating_sub(1)).unwrap_or(Seq::ZERO);
                return Ok(Keep { upto, ..Keep::ALL });
            }
            // Bounded: of those behind the last that was asked the first, and of the rest some.
            let mut laggards = laggards.borrow_mut();
            laggards.insert(stream);
            if laggards.len() > 2 * ASKED_MAX {
                if laggards.first().is_some_and(|first| *first <= asked) {
                    laggards.pop_first();
                } else {
                    laggards.pop_last();
                }
            }
            Ok(Keep::ALL)
        };
        let (below, before) = self.limits();
        // What no checkpoint tells of must be there to be read after a crash: else a message could
        // be there without the word of its receiver that it was handled.
        let told = self.events.told_by_all();
        let plan = Plan {
            run_bytes_max: self.policy.run_bytes_max,
            keep: &keep,
            pinned: told.min(self.pins.cursor_floor().unwrap_or(u64::MAX)),
            unnamed: self.pins.node_floor().unwrap_or(u64::MAX),
            below,
            before,
            renew,
            thorough,
        };
        while !self.is_stopped()
            && let Some(done) = self.events.compact(&plan)?
        {
            self.counts.compacted(&done, &self.counts.events_dropped);
            passing.since = passing.since.saturating_add(done.bytes_before);
        }
        if renew {
            passing.since = 0;
        }
        Ok(())
    }

    /// The streams of durable cursors.
    fn cursors(&self) -> Result<BTreeSet<StreamId>, ReadError> {
        let Some(catalogue) = &self.catalogue else { return Ok(BTreeSet::new()) };
        let mut streams = BTreeSet::new();
        // Of cursors and of pipelines each frame takes the place of the one before.
        for kind in [name::CURSOR, super::edge::KEEPER] {
            let names = catalogue.names(kind)?;
            streams.extend(names.iter().map(|name| StreamId::of(kind, name)));
        }
        Ok(streams)
    }

    /// Nothing goes at or above this position, and nothing of this time or later.
    fn limits(&self) -> (u64, HybridTime) {
        let always = HybridTime::from_bits(u64::MAX);
        match self.policy.retain {
            Retain::All => (0, HybridTime::default()),
            Retain::UntilSnapshot => (u64::MAX, always),
            Retain::Bytes(bytes) => (self.events.written().saturating_sub(bytes), always),
            Retain::Age(age) => {
                let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                let oldest = self.clock.wall_ms().saturating_sub(age);
                (u64::MAX, HybridTime::from_millis(oldest))
            }
        }
    }

    /// Asks the actor of a stream for a snapshot.
    fn ask(&self, stream: StreamId) -> Result<(), ReadError> {
        let mut found = None;
        self.events.stream(stream, Seq::ZERO, &mut |frame| {
            let record = frame.records().next().and_then(Result::ok);
            let named = record.filter(|record| record.kind == RecordKind::Name);
            found = named
                .and_then(|record| name::decode(record.payload))
                .map(|(kind, name)| (kind.to_owned(), name.to_owned()));
            ControlFlow::Break(())
        })?;
        if let Some((kind, name)) = found
            && self.kinds.store_state(&kind, &name)
        {
            self.counts.laggards_asked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Collects old snapshots, once there is about as much behind the runs as in them: of what
    /// comes later most takes the place of something there.
    fn pass_snapshots(&self, thorough: bool) -> Result<(), ReadError> {
        let log = self.snapshots.log();
        let (segments, runs) = log.compactable();
        let due = segments > 0 && segments >= runs;
        if !(due || thorough) || self.snapshots.sync().is_err() {
            return Ok(());
        }
        let keeps = |kind: &str| self.kinds.keeps(kind);
        let keep = |stream| {
            self.going_on()?;
            // Of kinds that this program does not know, any that is whole counts.
            let usable = |snapshot: &SnapshotRef<'_>| self.kinds.reads(snapshot) != Some(false);
            let floor = self.snapshots.floor(stream, &usable, &keeps)?;
            // Where events were dropped, going back may rely on a snapshot.
            let drops = self.events.has_dropped();
            let floor = floor.filter(|floor| !drops || self.kinds.drop_below(stream, *floor));
            let upto = floor.and_then(|floor| Seq::new(floor.get().saturating_sub(1)));
            let upto = upto.unwrap_or(Seq::ZERO);
            Ok(Keep { upto, first: false, superseded: false })
        };
        let plan = Plan {
            run_bytes_max: self.policy.run_bytes_max,
            keep: &keep,
            pinned: u64::MAX,
            unnamed: u64::MAX,
            below: u64::MAX,
            before: HybridTime::from_bits(u64::MAX),
            renew: due,
            thorough,
        };
        while !self.is_stopped()
            && let Some(done) = log.compact(&plan)?
        {
            self.counts.compacted(&done, &self.counts.snapshots_dropped);
        }
        Ok(())
    }
}
