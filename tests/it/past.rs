//! Reading an actor's past, and going back to it, in a store. Case numbers are those of
//! `docs/cases.md`.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use annals::actor::{ActorError, StopReason};
use annals::disk::sim::SimDisk;
use annals::error::Error;
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::time::{Clock, ManualClock};
use annals::types::{HybridTime, Seq};
use annals::{
    Actor, ActorOptions, At, Handle, Happened, Past, Retain, SnapshotPolicy, Span, Store,
    StoreOptions, Turn,
};

use crate::support::disk;

/// All notes that count, in order.
#[derive(Default, Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Book(Vec<u64>);

#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Noted {
    note: u64,
    padding: Vec<u8>,
}

impl Actor for Book {
    type Event = Noted;
    const KIND: &'static str = "book";
    fn apply(&mut self, event: &Noted) {
        self.0.push(event.note);
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::every(3))
    }
}

struct Note(u64);
impl Handle<Note> for Book {
    type Reply = Vec<u64>;
    fn handle(Note(note): Note, turn: &mut Turn<'_, Self>) -> Vec<u64> {
        turn.emit(Noted { note, padding: vec![7; 2_000] });
        turn.0.clone()
    }
}

struct Back(u64);
impl Handle<Back> for Book {
    type Reply = Result<Vec<u64>, (ActorError, Vec<u64>)>;
    fn handle(Back(to): Back, turn: &mut Turn<'_, Self>) -> Self::Reply {
        match turn.rewind(seq(to)) {
            Ok(()) => Ok(turn.0.clone()),
            Err(error) => Err((error, turn.0.clone())),
        }
    }
}

/// Two events, by somebody and for a reason.
struct Said;
impl Handle<Said> for Book {
    type Reply = ();
    fn handle(_: Said, turn: &mut Turn<'_, Self>) {
        turn.note("by", "alice");
        turn.tag("odd");
        turn.emit(Noted { note: 1, padding: Vec::new() });
        turn.emit(Noted { note: 2, padding: Vec::new() });
        turn.note("why", "");
    }
}

/// Says something of nothing.
struct SaidOfNothing;
impl Handle<SaidOfNothing> for Book {
    type Reply = ();
    fn handle(_: SaidOfNothing, turn: &mut Turn<'_, Self>) {
        turn.note("by", "nobody");
        turn.tag("none");
    }
}

fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

fn options(disk: &SimDisk) -> StoreOptions {
    Store::options()
        .disk(disk.handle())
        .threads(false)
        .ring_bytes(16 << 10)
        .segment_bytes(8 << 10, 16 << 10)
        .frame_bytes_max(4 << 10)
        .snapshot_bytes_max(4 << 10)
        .run_bytes_max(200 << 10)
        .workers(NonZeroUsize::MIN)
}

/// One turn in a life of its own, so that snapshots are there when it ends.
fn told<C>(open: &dyn Fn() -> Store, command: C) -> <Book as Handle<C>>::Reply
where
    Book: Handle<C>,
    C: Send + 'static,
{
    let store = open();
    let reply = store.actor::<Book>("a").unwrap().ask(command).unwrap();
    store.close(Duration::from_secs(10)).unwrap();
    reply
}

fn seqs(store: &Store, span: Span) -> Vec<u64> {
    let history = store.history::<Book>("a", span).unwrap();
    history.iter().map(|past| past.seq.get()).collect()
}

/// Case 17, 78, 130, 132, 133: any window, both ends inclusive; a limit; nothing of nobody.
#[test]
fn a_span_shows_what_it_says_in_order_and_no_more() {
    let disk = disk(1);
    let open = || options(&disk).open("/store").unwrap();
    (1..=5).for_each(|note| drop(told(&open, Note(note))));
    let store = open();
    for after in 0..=6 {
        for upto in 0..=6 {
            for limit in 0..=6 {
                let span = Span::all().after(seq(after)).upto(seq(upto)).limit(limit);
                let window: Vec<_> = (1..=5).filter(|it| *it > after && *it <= upto).collect();
                let first: Vec<_> = window.iter().copied().take(limit).collect();
                assert_eq!(seqs(&store, span), first, "{span:?}");
                let last: Vec<_> = window.iter().rev().copied().take(limit).collect();
                assert_eq!(seqs(&store, span.newest_first()), last, "{span:?}");
                let mut raw = Vec::new();
                let each = |event: annals::RawEvent<'_>| {
                    raw.push(event.seq.get());
                    ControlFlow::Continue(())
                };
                store.raw_history("book", "a", span, each).unwrap();
                assert_eq!(raw, first, "{span:?}");
            }
        }
    }
    assert_eq!(store.history::<Book>("nobody", Span::all()).unwrap(), []);
    assert_eq!(store.state_at::<Book>("nobody", At::Now).unwrap(), (Book::default(), Seq::ZERO));
    let mut shown = 0;
    let twice = |_: Past<Noted>| {
        shown += 1;
        if shown == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.visit_history::<Book>("a", Span::all(), twice).unwrap();
    assert_eq!(shown, 2, "a visit ends when it is told to");
    assert_eq!(store.runtime().residents(), 0, "nobody was loaded for it");
}

/// Case 21, 22: the state after any event, from whatever snapshot is before it.
#[test]
fn the_state_after_any_event_is_what_it_was_and_the_live_actor_is_not_touched() {
    let disk = disk(1);
    let open = || options(&disk).open("/store").unwrap();
    (1..=10).for_each(|note| drop(told(&open, Note(note))));
    let store = open();
    assert!(store.stats().snapshots.skipped == 0);
    for at in 0..=10 {
        let (state, found) = store.state_at::<Book>("a", At::Seq(seq(at))).unwrap();
        assert_eq!((state.0, found), ((1..=at).collect(), seq(at)));
    }
    let ahead = store.state_at::<Book>("a", At::Seq(seq(11)));
    assert!(matches!(ahead, Err(Error::Actor(ActorError::NoEvent { .. }))), "{ahead:?}");
    assert_eq!(store.state_at::<Book>("a", At::Now).unwrap().1, seq(10));
    assert_eq!(store.runtime().residents(), 0);
}

#[test]
fn the_state_at_a_time_is_that_before_the_first_later_turn() {
    let disk = disk(1);
    let clock = ManualClock::at_millis(1_000);
    let manual = Clock::Manual(Arc::clone(&clock));
    let open = || options(&disk).clock(manual.clone()).open("/store").unwrap();
    for note in 1..=7 {
        told(&open, Note(note));
        clock.advance(Duration::from_secs(1));
    }
    let store = open();
    for (past, next) in (0..=7).map(|turn| (turn, turn * 1_000 + 999)) {
        let at = At::Time(HybridTime::from_millis(next));
        let (state, found) = store.state_at::<Book>("a", at).unwrap();
        assert_eq!((state.0, found), ((1..=past).collect(), seq(past)), "at {next}");
    }
    let span = Span::all();
    let span = span.since(HybridTime::from_millis(3_000)).before(HybridTime::from_millis(5_000));
    assert_eq!(seqs(&store, span), [3, 4]);
}

/// Case 140: what was said of events comes back with them; of a turn without events nothing is
/// stored.
#[test]
fn what_is_said_of_a_turn_is_said_of_all_its_events_and_of_no_others() {
    let disk = disk(1);
    let open = || options(&disk).open("/store").unwrap();
    told(&open, Note(9));
    told(&open, SaidOfNothing);
    told(&open, Said);
    told(&open, Note(9));
    let store = open();
    let history = store.history::<Book>("a", Seq::ZERO).unwrap();
    assert_eq!(history.len(), 4);
    for past in &history {
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        if [2, 3].contains(&past.seq.get()) {
            assert_eq!(*past.meta, [("by", "alice"), ("why", "")].map(own));
            assert_eq!(*past.tags, ["odd".to_owned()]);
        } else {
            assert!(past.meta.is_empty() && past.tags.is_empty(), "{past:?}");
        }
    }
    let mut raw = Vec::new();
    let each = |event: annals::RawEvent<'_>| {
        let said: Vec<_> = event.labels.meta().map(|(_, value)| value.to_owned()).collect();
        raw.push((said, event.labels.tags().count()));
        ControlFlow::Continue(())
    };
    store.raw_history("book", "a", seq(2), each).unwrap();
    let said = vec!["alice".to_owned(), String::new()];
    assert_eq!(raw, [(said, 1), (Vec::new(), 0)]);
}

/// Snapshots at 3, 6 and 9; back to 2 at 11. What leads there stays, whatever else goes, until
/// there are snapshots behind the rewind.
#[test]
fn retention_keeps_what_a_rewind_relies_on() {
    let disk = disk(1);
    let open = || options(&disk).retain(Retain::UntilSnapshot).open("/store").unwrap();
    (1..=10).for_each(|note| drop(told(&open, Note(note))));
    assert_eq!(told(&open, Back(2)).unwrap(), [1, 2]);
    // So that what came before lies in files that can go.
    for note in 1..=30 {
        let store = open();
        store.actor::<Book>("filler").unwrap().ask(Note(note)).unwrap();
        store.close(Duration::from_secs(10)).unwrap();
    }
    let store = open();
    store.actor::<Book>("a").unwrap();
    let stats = store.compact().unwrap();
    assert!(stats.events_dropped > 0, "of the other: {stats:?}");
    drop(store);
    assert_eq!(told(&open, Note(50)), [1, 2, 50]);
    // Two snapshots behind it, and all that is below may go.
    (51..=58).for_each(|note| drop(told(&open, Note(note))));
    let store = open();
    store.actor::<Book>("a").unwrap();
    store.compact().unwrap();
    assert!(!seqs(&store, Span::all()).contains(&11), "the rewind itself is covered");
    drop(store);
    let store = open();
    let state = store.state_at::<Book>("a", At::Now).unwrap().0;
    let expected: Vec<u64> = [1, 2].into_iter().chain(50..=58).collect();
    assert_eq!(state.0, expected);
    drop(store);
    assert_eq!(told(&open, Note(59)).len(), expected.len() + 1);
}

/// Case 136: what is gone cannot be gone back to; the turn says so and goes on.
#[test]
fn nobody_goes_back_to_what_retention_has_dropped() {
    let disk = disk(1);
    let open = || options(&disk).retain(Retain::UntilSnapshot).open("/store").unwrap();
    (1..=20).for_each(|note| drop(told(&open, Note(note))));
    let store = open();
    let actor = store.actor::<Book>("a").unwrap();
    assert!(store.compact().unwrap().events_dropped > 0);
    let (error, state) = actor.ask(Back(7)).unwrap().unwrap_err();
    let ActorError::Stopped(stopped) = error else { panic!("{error}") };
    assert_eq!(stopped.why, StopReason::Dropped);
    assert_eq!(state.len(), 20);
    let gone = store.state_at::<Book>("a", At::Seq(seq(7))).map(|(_, seq)| seq);
    let Err(Error::Actor(ActorError::Stopped(stopped))) = gone else { panic!("{gone:?}") };
    assert_eq!(stopped.why, StopReason::Dropped);
    // What is there can be.
    assert_eq!(actor.ask(Back(17)).unwrap().unwrap(), (1..=17).collect::<Vec<_>>());
    assert_eq!(actor.ask(Back(0)).unwrap().unwrap(), [0_u64; 0]);
    drop((actor, store));
    let store = open();
    assert_eq!(store.state_at::<Book>("a", At::Now).unwrap().0.0, [0_u64; 0]);
    let last = store.history::<Book>("a", Span::all().newest_first().limit(1)).unwrap();
    assert_eq!(last.first().unwrap().what, Happened::Rewound { to: Seq::ZERO });
}

/// As `Book`, but four of its snapshots are kept.
#[derive(Default, Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Careful(Vec<u64>);

impl Actor for Careful {
    type Event = Noted;
    const KIND: &'static str = "careful";
    fn apply(&mut self, event: &Noted) {
        self.0.push(event.note);
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().snapshots(1, SnapshotPolicy::every(3)).keep_snapshots(4)
    }
}

impl Handle<Note> for Careful {
    type Reply = ();
    fn handle(Note(note): Note, turn: &mut Turn<'_, Self>) {
        turn.emit(Noted { note, padding: vec![7; 2_000] });
    }
}

/// Case 111, 118: of the snapshots at 3, 6, ... 18 the last four stay, and what is above the
/// oldest of these.
#[test]
fn a_kind_says_how_many_snapshots_of_its_actors_are_kept() {
    let disk = disk(1);
    let open = || options(&disk).retain(Retain::UntilSnapshot).open("/store").unwrap();
    for note in 1..=20 {
        let store = open();
        store.actor::<Careful>("a").unwrap().ask(Note(note)).unwrap();
        store.close(Duration::from_secs(10)).unwrap();
    }
    let store = open();
    store.actor::<Careful>("a").unwrap();
    store.compact().unwrap();
    let left = store.history::<Careful>("a", Seq::ZERO).unwrap();
    let left: Vec<_> = left.iter().map(|past| past.seq.get()).collect();
    assert_eq!(left, [vec![1], (10..=20).collect()].concat());
    let oldest = store.state_at::<Careful>("a", At::Seq(seq(9))).unwrap();
    assert_eq!(oldest.0.0, (1..=9).collect::<Vec<_>>());
}
