//! How much, published: what the store counts anyway and what its parts have measured, handed to
//! the recorder of the crate `metrics` by a thread of its own, once a second.
//!
//! Something new that is counted is a row in one of the tables here. See [`crate::metrics`] for
//! what is measured each time.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ::metrics::{Key, Label, Level, Metadata, Recorder, SharedString, Unit, with_recorder};
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use super::{Store, StoreStats, retain, scrub};
use crate::actor::KnownKinds;
use crate::error::{DiskError, OpenError};
use crate::log::{Log, LogStats};
use crate::metrics::{Measure, Meter, float};
use crate::snapshot::Snapshots;

/// How often it is published.
const PERIOD: Duration = Duration::from_secs(1);

/// A number that only rises, or one that goes up and down.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Shape {
    Counter,
    Gauge,
}

use Shape::{Counter, Gauge};

/// One number: name, shape, unit, meaning, and where it comes from.
type Row<T> = (&'static str, Shape, Unit, &'static str, fn(&T) -> u64);

/// What is known of one log.
#[derive(Copy, Clone, Debug)]
struct LogNow {
    stats: LogStats,
    written: u64,
    stored: u64,
    durable: u64,
    poisoned: bool,
}

impl LogNow {
    fn of(log: &Log) -> Self {
        // The durable mark first: marks rise meanwhile, and none shall seem to be negative.
        let (durable, stored) = (log.durable(), log.stored());
        let poisoned = log.poisoned().is_some();
        Self { stats: log.stats(), written: log.written(), stored, durable, poisoned }
    }
}

/// What is known of the rest.
#[derive(Copy, Clone, Debug)]
struct StoreNow {
    stats: StoreStats,
    names: usize,
    ready: usize,
    lost: u64,
}

const LOG: &[Row<LogNow>] = &[
    (
        "annals_log_frames_total",
        Counter,
        Unit::Count,
        "frames appended, system frames included",
        |it| it.stats.frames,
    ),
    ("annals_log_events_total", Counter, Unit::Count, "events appended", |it| it.stats.events),
    ("annals_log_bytes_total", Counter, Unit::Bytes, "bytes that the frames take", |it| {
        it.stats.bytes
    }),
    (
        "annals_log_commits_total",
        Counter,
        Unit::Count,
        "commits that made something durable",
        |it| it.stats.commits,
    ),
    ("annals_log_drains_total", Counter, Unit::Count, "writes from the ring into segments", |it| {
        it.stats.drains
    }),
    (
        "annals_log_drained_bytes_total",
        Counter,
        Unit::Bytes,
        "bytes of those writes, whole pages",
        |it| it.stats.drained_bytes,
    ),
    (
        "annals_log_ring_full_total",
        Counter,
        Unit::Count,
        "appends that found the ring full and stored it",
        |it| it.stats.ring_full,
    ),
    (
        "annals_log_lag_waits_total",
        Counter,
        Unit::Count,
        "appends that found too much not durable and synced it",
        |it| it.stats.lag_waits,
    ),
    (
        "annals_log_segment_waits_total",
        Counter,
        Unit::Count,
        "appends that waited for a segment to be made",
        |it| it.stats.segment_waits,
    ),
    (
        "annals_log_segments_recycled_total",
        Counter,
        Unit::Count,
        "segments made of files that had been others",
        |it| it.stats.segments_recycled,
    ),
    ("annals_log_seals_total", Counter, Unit::Count, "segments sealed", |it| it.stats.seals),
    ("annals_log_segments", Gauge, Unit::Count, "segments that hold frames", |it| {
        it.stats.segments
    }),
    (
        "annals_log_mark_failures_total",
        Counter,
        Unit::Count,
        "mark files that could not be written",
        |it| it.stats.mark_failures,
    ),
    ("annals_log_checkpoints_total", Counter, Unit::Count, "checkpoints written", |it| {
        it.stats.checkpoints
    }),
    (
        "annals_log_checkpoint_failures_total",
        Counter,
        Unit::Count,
        "checkpoints that could not be written",
        |it| it.stats.checkpoint_failures,
    ),
    (
        "annals_log_index_failures_total",
        Counter,
        Unit::Count,
        "index files that could not be written",
        |it| it.stats.index_failures,
    ),
    ("annals_log_runs", Gauge, Unit::Count, "runs that the log begins with", |it| it.stats.runs),
    ("annals_log_compactions_total", Counter, Unit::Count, "runs made", |it| it.stats.compactions),
    (
        "annals_log_dropped_frames_total",
        Counter,
        Unit::Count,
        "frames that retention has dropped",
        |it| it.stats.dropped,
    ),
    (
        "annals_log_reclaimed_bytes_total",
        Counter,
        Unit::Bytes,
        "bytes by which compaction made the files smaller",
        |it| it.stats.reclaimed_bytes,
    ),
    ("annals_log_end_bytes", Gauge, Unit::Bytes, "the position at which the log ends", |it| {
        it.written
    }),
    (
        "annals_log_unstored_bytes",
        Gauge,
        Unit::Bytes,
        "bytes that are in the ring and in no segment",
        |it| it.written.saturating_sub(it.stored),
    ),
    (
        "annals_log_unsynced_bytes",
        Gauge,
        Unit::Bytes,
        "bytes that power loss would take: the lag",
        |it| it.written.saturating_sub(it.durable),
    ),
    (
        "annals_log_poisoned",
        Gauge,
        Unit::Count,
        "1 once a sync has failed and nothing is accepted",
        |it| u64::from(it.poisoned),
    ),
];

const STORE: &[Row<StoreNow>] = &[
    ("annals_snapshots_total", Counter, Unit::Count, "snapshots stored", |it| {
        it.stats.snapshots.saved
    }),
    ("annals_snapshots_bytes_total", Counter, Unit::Bytes, "bytes of their states", |it| {
        it.stats.snapshots.bytes
    }),
    (
        "annals_snapshots_refused_total",
        Counter,
        Unit::Count,
        "snapshots not taken: too many under way, or too large",
        |it| it.stats.snapshots.refused,
    ),
    (
        "annals_snapshots_failed_total",
        Counter,
        Unit::Count,
        "snapshots taken that could not be stored",
        |it| it.stats.snapshots.failed,
    ),
    (
        "annals_snapshots_skipped_total",
        Counter,
        Unit::Count,
        "snapshots found on loading that could not be used",
        |it| it.stats.snapshots.skipped,
    ),
    ("annals_actors_resident", Gauge, Unit::Count, "states in memory", |it| {
        it.stats.residents as u64
    }),
    (
        "annals_actors_named",
        Gauge,
        Unit::Count,
        "names that somebody holds, or whose state is in memory",
        |it| it.names as u64,
    ),
    (
        "annals_actors_ready",
        Gauge,
        Unit::Count,
        "visits and snapshots that wait for a worker",
        |it| it.ready as u64,
    ),
    (
        "annals_dead_letters_total",
        Counter,
        Unit::Count,
        "commands that were accepted and had no effect",
        |it| it.stats.dead_letters,
    ),
    ("annals_retention_compactions_total", Counter, Unit::Count, "runs made, of both logs", |it| {
        it.stats.retention.compactions
    }),
    (
        "annals_retention_events_dropped_total",
        Counter,
        Unit::Count,
        "frames of events dropped",
        |it| it.stats.retention.events_dropped,
    ),
    ("annals_retention_snapshots_dropped_total", Counter, Unit::Count, "snapshots dropped", |it| {
        it.stats.retention.snapshots_dropped
    }),
    (
        "annals_retention_reclaimed_bytes_total",
        Counter,
        Unit::Bytes,
        "bytes by which the files of both logs became smaller",
        |it| it.stats.retention.reclaimed_bytes,
    ),
    (
        "annals_retention_laggards_total",
        Counter,
        Unit::Count,
        "actors that were asked for a snapshot",
        |it| it.stats.retention.laggards_asked,
    ),
    ("annals_retention_failures_total", Counter, Unit::Count, "passes that failed", |it| {
        it.stats.retention.failures
    }),
    (
        "annals_scrub_passes_total",
        Counter,
        Unit::Count,
        "passes over all sealed segments that ended",
        |it| it.stats.scrub.passes,
    ),
    ("annals_scrub_bytes_total", Counter, Unit::Bytes, "bytes read", |it| it.stats.scrub.bytes),
    ("annals_scrub_findings", Gauge, Unit::Count, "places found wrong", |it| {
        it.stats.scrub.findings
    }),
    (
        "annals_scrub_failures_total",
        Counter,
        Unit::Count,
        "passes that could not be made or ended",
        |it| it.stats.scrub.failures,
    ),
    (
        "annals_samples_lost_total",
        Counter,
        Unit::Count,
        "values of the histograms that came too fast to be kept",
        |it| it.lost,
    ),
];

/// Whom it is asked of.
pub(super) struct Sources {
    pub(super) events: Arc<Log>,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) kinds: KnownKinds,
    pub(super) retention: retain::Counted,
    pub(super) scrub: Option<scrub::Counted>,
}

impl Sources {
    fn now(&self, own: &Meter) -> StoreNow {
        let stats = StoreStats {
            log: self.events.stats(),
            snapshots: self.snapshots.stats(),
            residents: self.kinds.residents(),
            dead_letters: self.kinds.dead_letters(),
            scrub: self.scrub.as_ref().map(scrub::Counted::stats).unwrap_or_default(),
            retention: self.retention.stats(),
        };
        let lost = self.meters(own).iter().map(|(_, meter)| meter.lost()).sum();
        StoreNow { stats, names: self.kinds.names(), ready: self.kinds.ready(), lost }
    }

    /// All meters, and the log that each is of.
    fn meters<'a>(&'a self, own: &'a Meter) -> [(&'static str, &'a Meter); 5] {
        [
            (EVENTS, self.events.meter()),
            (SNAPSHOTS, self.snapshots.log().meter()),
            ("", self.snapshots.meter()),
            ("", self.kinds.meter()),
            ("", own),
        ]
    }
}

const EVENTS: &str = "events";
const SNAPSHOTS: &str = "snapshots";

/// Hands it all over.
pub(super) struct Publisher {
    shared: Arc<Shared>,
    stop: Mutex<Option<Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    sources: Sources,
    /// What the store itself measures.
    own: Meter,
    state: Mutex<State>,
    store: SharedString,
}

/// What was published before.
#[derive(Default)]
struct State {
    /// The last value of each counter, by name and log.
    last: BTreeMap<(&'static str, &'static str), u64>,
    /// The recorder to which the names were described.
    described: usize,
}

impl Publisher {
    /// Watches all meters; with `thread` it publishes by itself.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(super) fn start(path: &Path, sources: Sources, thread: bool) -> Result<Self, OpenError> {
        let store = SharedString::from_shared(path.display().to_string().into());
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { sources, own: Meter::default(), state, store });
        for (_, meter) in shared.sources.meters(&shared.own) {
            meter.watch();
        }
        let (mut stop, mut handle) = (None, None);
        if thread {
            let (sender, stopped) = bounded::<()>(0);
            let shared = Arc::clone(&shared);
            let spawned = std::thread::Builder::new()
                .name("annals-metrics".to_owned())
                .spawn(move || {
                    while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                        shared.publish();
                    }
                })
                .map_err(DiskError::at("starting a thread for", "metrics".as_ref()))?;
            (stop, handle) = (Some(sender), Some(spawned));
        }
        Ok(Self { shared, stop: Mutex::new(stop), thread: Mutex::new(handle) })
    }

    /// How long each part of the open took.
    pub(super) fn opened(&self, phases: &[(&'static str, Duration)]) {
        for (phase, took) in phases {
            self.shared.own.add_time(Measure::Open, phase, *took);
        }
    }

    pub(super) fn publish(&self) {
        self.shared.publish();
    }

    /// Ends the thread, and publishes what there is now.
    pub(super) fn close(&self) {
        self.stop.lock().take();
        // The thread catches what recorders throw.
        drop(self.thread.lock().take().map(JoinHandle::join));
        self.publish();
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.lock().take();
        drop(self.thread.lock().take().map(JoinHandle::join));
    }
}

impl Shared {
    /// Nothing where it is being done already: a recorder may ask for it.
    fn publish(&self) {
        let Some(mut state) = self.state.try_lock() else { return };
        let publish = || with_recorder(|recorder| self.publish_to(recorder, &mut state));
        if let Err(payload) = catch_unwind(AssertUnwindSafe(publish)) {
            // A recorder's panic is its own business; that of its payload, too.
            let _dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        }
    }

    fn publish_to(&self, recorder: &dyn Recorder, state: &mut State) {
        let address = std::ptr::from_ref(recorder).addr();
        if state.described != address {
            describe(recorder);
            state.described = address;
        }
        for (name, log) in
            [(EVENTS, &*self.sources.events), (SNAPSHOTS, self.sources.snapshots.log())]
        {
            let now = LogNow::of(log);
            for row in LOG {
                self.publish_row(recorder, state, (row, name), &now);
            }
        }
        let now = self.sources.now(&self.own);
        for row in STORE {
            self.publish_row(recorder, state, (row, ""), &now);
        }
        for (log, meter) in self.sources.meters(&self.own) {
            let mut last = None;
            for sample in meter.take() {
                let described = sample.measure.described();
                let of = (described.name, sample.label);
                // Most are of the same few: those of a kind of actor, or of a log.
                let histogram = match &last {
                    Some((known, histogram)) if *known == of => histogram,
                    _ => {
                        let key = self.key(described.name, log, (described.label, sample.label));
                        let histogram = recorder.register_histogram(&key, &METADATA);
                        &last.insert((of, histogram)).1
                    }
                };
                histogram.record(sample.value);
            }
        }
    }

    fn publish_row<T>(
        &self,
        recorder: &dyn Recorder,
        state: &mut State,
        ((name, shape, _, _, value), log): (&Row<T>, &'static str),
        now: &T,
    ) {
        let key = self.key(name, log, ("", ""));
        let value = value(now);
        match shape {
            // Not as it is: the numbers of a store begin anew with each open, and a counter goes
            // on rising.
            Counter => {
                let last = state.last.entry((name, log)).or_default();
                recorder.register_counter(&key, &METADATA).increment(value.saturating_sub(*last));
                *last = value;
            }
            Gauge => recorder.register_gauge(&key, &METADATA).set(float(value)),
        }
    }

    fn key(
        &self,
        name: &'static str,
        log: &'static str,
        more: (&'static str, &'static str),
    ) -> Key {
        let mut labels = vec![Label::new("store", self.store.clone())];
        if !log.is_empty() {
            labels.push(Label::from_static_parts("log", log));
        }
        if !more.0.is_empty() {
            labels.push(Label::from_static_parts(more.0, more.1));
        }
        Key::from_parts(name, labels)
    }
}

static METADATA: Metadata<'static> = Metadata::new("annals", Level::INFO, Some("annals"));

fn describe(recorder: &dyn Recorder) {
    fn rows<T>(recorder: &dyn Recorder, rows: &[Row<T>]) {
        for (name, shape, unit, meaning, _) in rows {
            let (name, unit) = ((*name).into(), Some(*unit));
            match shape {
                Counter => recorder.describe_counter(name, unit, (*meaning).into()),
                Gauge => recorder.describe_gauge(name, unit, (*meaning).into()),
            }
        }
    }
    rows(recorder, LOG);
    rows(recorder, STORE);
    for measure in Measure::ALL {
        let described = measure.described();
        let (name, unit) = (described.name.into(), Some(described.unit));
        recorder.describe_histogram(name, unit, described.meaning.into());
    }
}

impl Store {
    /// Hands everything that [docs/observe.md] names to the recorder of the crate `metrics` now,
    /// rather than within the next second: for one that is about to be asked for its numbers.
    ///
    /// Where it is being done already, on this thread or another, it does nothing.
    ///
    /// [docs/observe.md]: https://docs.rs/crate/annals/latest/source/docs/observe.md
    pub fn publish_metrics(&self) {
        self.publisher.publish();
    }
}
