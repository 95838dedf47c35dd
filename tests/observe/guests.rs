//! Subscribers and recorders that do more than listen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::{
    Actor, ActorError, ActorOptions, Durability, Handle, Retain, SnapshotPolicy, Store, Turn,
};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;

use crate::actors::{Count, Fall, Leave, Note, Noted, Save, kind, small, until};
use crate::hear::{Heard, invite, listen};

kind!(
    Busy,
    "busy",
    1,
    ActorOptions::new().durability(Durability::Process).snapshots(1, SnapshotPolicy::every(5))
);
kind!(Diary, "diary", 1, ActorOptions::new());

/// One guest at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Runs a busy store with all of its threads, while somebody is told of everything.
fn busy(store: &Store, notes: usize) {
    let busy = store.actor::<Busy>("a").unwrap();
    for number in 0..notes {
        busy.ask(Note(2_000)).unwrap();
        match number % 16 {
            3 => drop(busy.ask(Fall)),
            7 => busy.ask(Leave).unwrap(),
            9 => drop(busy.tell(Fall)),
            11 => busy.ask(Save).unwrap(),
            _ => {}
        }
    }
    store.compact().unwrap();
}

/// On whatever thread of ours it is told of an event, a subscriber may use the store: it appends
/// and waits for the disk, reads, lists names, asks for numbers. Nobody waits for ever.
#[test]
fn a_subscriber_that_uses_the_store_at_every_event_stops_nothing() {
    let _one = ONE.lock();
    listen();
    let folder = tempfile::tempdir().unwrap();
    let store = small().retain(Retain::UntilSnapshot).open(folder.path()).unwrap();
    let store = Arc::new(store);
    let (weak, visits) = (Arc::downgrade(&store), Arc::new(AtomicU64::new(0)));
    let begun = Arc::new(AtomicU64::new(0));
    let counted_begun = Arc::clone(&begun);
    let (place, counted) = (folder.path().display().to_string(), Arc::clone(&visits));
    invite(Some(Arc::new(move |it: &Heard| {
        // Not to be the last who has the store: it would be closed here.
        if it.is_of(&place) || it.is_of("busy") {
            counted_begun.fetch_add(1, Ordering::Relaxed);
            use_it(&weak, it);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    })));
    busy(&store, 200);
    until("news are told", || visits.load(Ordering::Relaxed) > 100);
    invite(None);
    let notes = store.actor::<Diary>("a").unwrap().ask(Count).unwrap();
    assert_eq!(store.actor::<Busy>("a").unwrap().ask(Count).unwrap(), 200);
    println!("{} visits, {notes} notes, {:?}", visits.load(Ordering::Relaxed), store.stats());
    assert!(notes > 50, "{notes}");
    // One that has panicked never does.
    until("all visits end", || begun.load(Ordering::Relaxed) == visits.load(Ordering::Relaxed));
    until("nobody else has it", || Arc::strong_count(&store) == 1);
    Arc::into_inner(store).unwrap().close(Duration::from_secs(10)).unwrap();
}

fn use_it(store: &Weak<Store>, it: &Heard) {
    let Some(store) = store.upgrade() else { return };
    let diary = store.actor::<Diary>("a").unwrap();
    match diary.ask(Note(1_500)) {
        // In a turn it is refused, as it would be to the handler.
        Ok(_) | Err(ActorError::InTurn) => {}
        Err(error) => panic!("{it:?}: {error}"),
    }
    if it.name == "dead letter" {
        // This thread is with that very actor: to wait for it would be for ever.
        let again = store.actor::<Busy>("a").unwrap().ask(Count);
        assert!(matches!(again, Err(ActorError::InTurn)), "{again:?}");
    }
    store.sync().unwrap();
    store.publish_metrics();
    assert!(store.stats().log.frames > 0);
    assert!(store.names::<Busy>().unwrap().len() <= 1);
}

/// A recorder that panics at everything.
struct Fallen;

#[expect(unused_variables, reason = "it looks at nothing")]
impl Recorder for Fallen {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {}
    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {}
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {}
    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        panic!("a recorder fell");
    }
    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        panic!("a recorder fell");
    }
    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        panic!("a recorder fell");
    }
}

#[test]
fn a_subscriber_and_a_recorder_that_panic_cost_nothing_else() {
    let _one = ONE.lock();
    listen();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let falls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&falls);
    invite(Some(Arc::new(move |it: &Heard| {
        if it.is_of(&place) || it.is_of("busy") {
            counted.fetch_add(1, Ordering::Relaxed);
            panic!("a subscriber fell");
        }
    })));
    let store = small().retain(Retain::UntilSnapshot).open(folder.path()).unwrap();
    busy(&store, 100);
    metrics::with_local_recorder(&Fallen, || store.publish_metrics());
    store.close(Duration::from_secs(10)).unwrap();
    let store = small().open(folder.path()).unwrap();
    assert_eq!(store.actor::<Busy>("a").unwrap().ask(Count).unwrap(), 100);
    drop(store);
    invite(None);
    assert!(falls.load(Ordering::Relaxed) > 20);
}
