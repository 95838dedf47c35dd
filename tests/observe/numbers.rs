//! The table of numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::types::HybridTime;
use annals::{Actor, ActorOptions, Durable, Handle, Position, Retain, SnapshotPolicy, Store, Turn};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit, with_local_recorder,
};

use parking_lot::Mutex;

use crate::actors::{Count, Fall, Leave, Note, Noted, Save, disk, kind, on, small, until};
use crate::table::{list, rows};

kind!(
    Counted,
    "counted",
    1,
    ActorOptions::new().snapshots(1, SnapshotPolicy::every(4)).command::<Dated>()
);

/// What a timer brings.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Dated(u64);

impl Durable for Dated {
    const NAME: &'static str = "dated";
}

impl Handle<Dated> for Counted {
    type Reply = ();
    fn handle(_: Dated, _: &mut Turn<'_, Self>) {}
}

/// Arms a timer that is due.
struct Arm;

impl Handle<Arm> for Counted {
    type Reply = ();
    fn handle(_: Arm, turn: &mut Turn<'_, Self>) {
        turn.wake_at("alarm", HybridTime::from_millis(1), &Dated(1));
    }
}

/// What one number is, and was told.
#[derive(Debug, Default)]
struct Number {
    shape: &'static str,
    /// Of a counter, and of a gauge in its bits.
    value: AtomicU64,
    samples: Mutex<Vec<f64>>,
}

impl CounterFn for Number {
    fn increment(&self, value: u64) {
        self.value.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, _value: u64) {
        panic!("what a store counts begins anew with each open");
    }
}

impl GaugeFn for Number {
    fn increment(&self, _value: f64) {
        panic!("gauges are set");
    }

    fn decrement(&self, _value: f64) {
        panic!("gauges are set");
    }

    fn set(&self, value: f64) {
        self.value.store(value.to_bits(), Ordering::Relaxed);
    }
}

impl HistogramFn for Number {
    fn record(&self, value: f64) {
        self.samples.lock().push(value);
    }
}

type Labels = Vec<(String, String)>;

/// A recorder that keeps everything.
#[derive(Debug, Default)]
pub(crate) struct Book {
    described: Mutex<BTreeMap<String, (&'static str, String, String)>>,
    numbers: Mutex<BTreeMap<(String, Labels), Arc<Number>>>,
}

impl Book {
    fn describe(&self, shape: &'static str, key: &KeyName, unit: Option<Unit>, text: &str) {
        let unit = unit.expect("a unit").as_str().to_owned();
        let row = (shape, unit, text.to_owned());
        self.described.lock().insert(key.as_str().to_owned(), row);
    }

    fn number(&self, shape: &'static str, key: &Key) -> Arc<Number> {
        let label = |label: &metrics::Label| (label.key().to_owned(), label.value().to_owned());
        let labels = key.labels().map(label).collect();
        let mut numbers = self.numbers.lock();
        let number = numbers
            .entry((key.name().to_owned(), labels))
            .or_insert_with(|| Arc::new(Number { shape, ..Number::default() }));
        assert_eq!(number.shape, shape, "{key}");
        Arc::clone(number)
    }

    /// The numbers of that name which have all of these labels.
    #[track_caller]
    fn of(&self, name: &str, labels: &[(&str, &str)]) -> Vec<Arc<Number>> {
        let numbers = self.numbers.lock();
        let fits = |has: &Labels| {
            labels.iter().all(|(key, value)| has.iter().any(|it| it.0 == *key && it.1 == *value))
        };
        let found = numbers.iter().filter(|((its, has), _)| its == name && fits(has));
        let found: Vec<_> = found.map(|(_, number)| Arc::clone(number)).collect();
        assert!(!found.is_empty(), "{name} {labels:?}");
        found
    }

    #[track_caller]
    pub(crate) fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.of(name, labels).iter().map(|it| it.value.load(Ordering::Relaxed)).sum()
    }

    #[track_caller]
    pub(crate) fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let bits = |it: &Arc<Number>| it.value.load(Ordering::Relaxed);
        self.of(name, labels).iter().map(|it| f64::from_bits(bits(it))).sum()
    }

    #[track_caller]
    pub(crate) fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        self.of(name, labels).iter().flat_map(|it| it.samples.lock().clone()).collect()
    }
}

impl Recorder for Book {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("counter", &key, unit, &text);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("gauge", &key, unit, &text);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("histogram", &key, unit, &text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.number("counter", key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.number("gauge", key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.number("histogram", key))
    }
}

pub(crate) fn publish(store: &Store, book: &Book) {
    with_local_recorder(book, || store.publish_metrics());
}

/// A store that has done everything which is measured.
fn used(disk: &annals::disk::sim::SimDisk) -> Store {
    let open = || on(disk).retain(Retain::UntilSnapshot).open("/numbers").unwrap();
    // Lives of their own, because what is new is not compacted.
    for number in 1..=12 {
        let store = open();
        for _ in 0..2 {
            store.actor::<Counted>("a").unwrap().ask(Note(3_000)).unwrap();
        }
        until("a snapshot", || number % 2 > 0 || store.stats().snapshots.saved == 1);
        store.close(Duration::from_secs(10)).unwrap();
    }
    let store = open();
    let actor = store.actor::<Counted>("a").unwrap();
    for number in 1..=9 {
        actor.ask(Note(2_000)).unwrap();
        until("a snapshot", || store.stats().snapshots.saved == number / 4);
    }
    actor.ask(Leave).unwrap();
    until("it leaves", || store.stats().residents == 0);
    actor.ask(Count).unwrap();
    store.compact().unwrap();
    for _ in 0..3 {
        actor.ask(Note(2_000)).unwrap();
    }
    until("the last snapshot", || store.stats().snapshots.saved == 3);
    store.cursor("c").unwrap().save(Position::BEGINNING).unwrap();
    let other = store.actor::<Counted>("b").unwrap();
    other.ask(Arm).unwrap();
    until("it rings", || store.stats().owed.fired == 1);
    store.sync().unwrap();
    store
}

/// Names, types, units, labels and meanings: those that are described, those that are published,
/// and those of the table are the same; and each histogram has a value.
#[test]
fn every_number_is_published_as_the_table_says() {
    let rows = rows("Numbers");
    let (disk, book) = (disk(20), Book::default());
    let store = used(&disk);
    publish(&store, &book);
    let described = book.described.lock().clone();
    let in_table: BTreeSet<_> = rows.keys().collect();
    assert_eq!(described.keys().collect::<BTreeSet<_>>(), in_table);
    for (name, (shape, unit, meaning)) in &described {
        let [its_shape, its_unit, _, its_meaning] = &rows[name][..] else { panic!("{name}") };
        let said = (&**its_shape, its_unit, its_meaning);
        assert_eq!((*shape, unit, meaning), said, "{name}");
    }
    let numbers = book.numbers.lock();
    let published: BTreeSet<_> = numbers.keys().map(|(name, _)| name).collect();
    assert_eq!(published, in_table, "each has a value after a small workload");
    for ((name, labels), number) in numbers.iter() {
        assert_eq!(number.shape, rows[name][0], "{name}");
        let keys: Vec<_> = labels.iter().map(|(key, _)| &**key).collect();
        assert_eq!(keys, list(&rows[name][2]), "{name}");
        assert_eq!(labels[0], ("store".to_owned(), "/numbers".to_owned()));
    }
}

/// They are the numbers that the store answers itself, whenever it is asked; and what was measured
/// is published once.
#[test]
fn what_is_published_is_what_the_store_counts() {
    let (disk, book) = (disk(21), Book::default());
    let store = used(&disk);
    publish(&store, &book);
    let (events, snapshots) = ([("log", "events")], [("log", "snapshots")]);
    let check = |store: &Store| {
        let stats = store.stats();
        assert_eq!(book.counter("annals_log_frames_total", &events), stats.log.frames);
        assert_eq!(book.counter("annals_log_bytes_total", &events), stats.log.bytes);
        assert_eq!(book.counter("annals_log_commits_total", &events), stats.log.commits);
        assert_eq!(book.counter("annals_snapshots_total", &[]), stats.snapshots.saved);
        let dropped = book.counter("annals_retention_events_dropped_total", &[]);
        assert_eq!(dropped, stats.retention.events_dropped);
        assert!(dropped > 0);
        let end = book.gauge("annals_log_end_bytes", &events);
        assert!((end - exact(store.log().written())).abs() < 0.5);
        assert!(book.gauge("annals_log_unsynced_bytes", &events) < 0.5, "all is durable");
        assert!((book.gauge("annals_actors_resident", &[]) - 2.0).abs() < 0.5);
    };
    check(&store);
    let stats = store.stats();
    let commits = book.samples("annals_commit_bytes", &events);
    assert!(commits.len() as u64 >= stats.log.commits);
    let total: f64 = commits.iter().sum();
    assert!(total > 9.0 * 2_000.0 && total <= exact(store.log().durable()), "{total}");
    let frames: f64 = book.samples("annals_commit_frames", &events).iter().sum();
    assert!(frames > 9.0 && frames <= exact(stats.log.frames), "{frames}");
    let loads = book.samples("annals_load_events", &[("kind", "counted")]);
    assert_eq!(loads, [0.0, 1.0, 0.0], "from a snapshot, from one and an event, from nothing");
    assert_eq!(book.samples("annals_snapshot_bytes", &[]).len() as u64, stats.snapshots.saved);
    assert!(!book.samples("annals_compaction_seconds", &snapshots).is_empty());
    assert!(!book.samples("annals_segment_seconds", &[("how", "recycled")]).is_empty());
    let phases = ["lock", "events", "snapshots", "begin", "start"];
    for phase in phases {
        assert_eq!(book.samples("annals_open_seconds", &[("phase", phase)]).len(), 1, "{phase}");
    }

    // Again: numbers that go on, and no value twice.
    publish(&store, &book);
    check(&store);
    assert_eq!(book.samples("annals_commit_bytes", &events), commits);

    // In the next life the store counts from 0, and the counter goes on.
    let frames = book.counter("annals_log_frames_total", &events);
    with_local_recorder(&book, || store.close(Duration::from_secs(10)).unwrap());
    let closed = book.counter("annals_log_frames_total", &events);
    assert_eq!(closed, frames + 1, "a close publishes the frame that it appends");
    let store = on(&disk).open("/numbers").unwrap();
    store.actor::<Counted>("a").unwrap().ask(Note(10)).unwrap();
    publish(&store, &book);
    let now = book.counter("annals_log_frames_total", &events);
    assert_eq!(now, closed + store.stats().log.frames);
    drop(store);
}

/// Good to 2^53.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn exact(number: u64) -> f64 {
    number as f64
}

/// By itself, on a thread of its own, within a second or so.
#[test]
fn an_open_store_publishes_without_being_asked() {
    let book: &'static Book = Box::leak(Box::default());
    metrics::set_global_recorder(book).expect("nobody else records");
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let store = small().open(folder.path()).unwrap();
    store.actor::<Counted>("a").unwrap().ask(Note(10)).unwrap();
    let labels = [("store", &*place), ("log", "events")];
    let is_it = |(name, its): &(String, Labels)| {
        name == "annals_sync_seconds" && its.iter().any(|it| it.1 == place)
    };
    until("it is published", || book.numbers.lock().keys().any(is_it));
    until("all of it", || book.counter("annals_log_events_total", &labels) == 1);
    store.close(Duration::from_secs(10)).unwrap();
    assert!(book.gauge("annals_actors_resident", &[("store", &*place)]) < 0.5);
    assert!(!book.samples("annals_sync_seconds", &labels).is_empty());
    assert_eq!(book.counter("annals_log_events_total", &labels), 1);
}
