//! How much, published: what the store counts anyway and what its parts have measured, handed to
//! the recorder of the crate `metrics` by a thread of its own, once a second.
//!
//! Something new that is counted is a row in one of the tables in `rows`. See [`crate::metrics`]
//! for what is measured each time.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ::metrics::{Key, Label, Level, Metadata, Recorder, SharedString, Unit, with_recorder};
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use super::cursor::Cursors;
use super::stream::Readers;
use super::{Store, StoreStats, retain, scrub};
use crate::actor::KnownKinds;
use crate::error::{DiskError, OpenError};
use crate::log::Log;
use crate::metrics::{Measure, Meter, float};
use crate::snapshot::Snapshots;
use crate::sync::node::Node;

mod rows;

use rows::Shape::{Counter, Gauge};
use rows::{LOG, LogNow, Row, STORE, StoreNow};

/// How often it is published.
const PERIOD: Duration = Duration::from_secs(1);
/// How far each cursor is behind. The one number with a label that users make up.
const CURSOR_LAG: &str = "annals_cursor_lag_bytes";
const CURSOR_LAG_MEANING: &str = "bytes of the log that are before a cursor; 0 once it is deleted";

/// Whom it is asked of.
pub(super) struct Sources {
    pub(super) events: Arc<Log>,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) kinds: KnownKinds,
    pub(super) retention: retain::Counted,
    pub(super) scrub: Option<scrub::Counted>,
    pub(super) cursors: Arc<Cursors>,
    pub(super) readers: Arc<Readers>,
    pub(super) node: Option<Arc<Node>>,
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
            owed: self.kinds.owed_stats(),
            actors: self.kinds.actor_stats(),
            cursors: self.cursors.stats(),
            subscriptions: self.readers.stats(&self.events),
            node: self.node.as_ref().map(|node| node.stats()).unwrap_or_default(),
        };
        let recovery = (&self.kinds.recovery()).into();
        let lost = self.meters(own).iter().map(|(_, meter)| meter.lost()).sum();
        let (names, ready) = (self.kinds.names(), self.kinds.ready());
        StoreNow { stats, names, ready, lost, recovery }
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
    /// Cursors of which it was said how far they are.
    cursors: BTreeSet<String>,
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
        // First of all: this is the first to ask for them, perhaps.
        self.publish_cursors(recorder, state);
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

    fn publish_cursors(&self, recorder: &dyn Recorder, state: &mut State) {
        // The next second may have more luck.
        let Ok(cursors) = self.sources.cursors.all() else { return };
        let set = |name: &str, bytes: u64| {
            let labels = vec![
                Label::new("store", self.store.clone()),
                Label::new("cursor", SharedString::from_owned(name.to_owned())),
            ];
            let key = Key::from_parts(CURSOR_LAG, labels);
            recorder.register_gauge(&key, &METADATA).set(float(bytes));
        };
        let end = self.sources.events.written();
        for (name, position) in &cursors {
            set(name, end.saturating_sub(position.lsn()));
        }
        let names: BTreeSet<_> = cursors.into_keys().collect();
        for gone in state.cursors.difference(&names) {
            set(gone, 0);
        }
        state.cursors = names;
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
    recorder.describe_gauge(CURSOR_LAG.into(), Some(Unit::Bytes), CURSOR_LAG_MEANING.into());
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
