//! The log as an end of pipelines: an inbox, an outbox, and what a crash leaves of both.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use annals::edge::{
    self, Fault, Flow, Give, Keep as _, Kept, Last, Level, Mark, Pos, Resume, Sink as _, Source,
    Why,
};
use annals::error::{Error, StreamError};
use annals::testkit::{Machine, every_crash};
use annals::{Begin, Durability, Filter, Retain, Store};
use parking_lot::Mutex;

use crate::support::disk;

const COUNT: u64 = 12;
const NOW: Duration = Duration::ZERO;

/// A source that ends when it has nothing more.
struct UntilIdle<S>(S);

impl<S: Source> Source for UntilIdle<S> {
    type Item = S::Item;

    fn seek(&mut self, at: Option<Mark>) -> Result<Resume, Fault> {
        self.0.seek(at)
    }

    fn pull(
        &mut self,
        max: usize,
        _: Duration,
        out: &mut dyn Give<S::Item>,
    ) -> Result<Flow, Fault> {
        Ok(match self.0.pull(max, NOW, out)? {
            Flow::Idle => Flow::End,
            flow => flow,
        })
    }

    fn done(&mut self, at: Pos) -> Result<(), Fault> {
        self.0.done(at)
    }
}

fn texts() -> Vec<String> {
    (1..=COUNT).map(|n| format!("record {n}")).collect()
}

/// What is in the inbox.
fn inbox(store: &Store, id: &str) -> Vec<String> {
    let mut events = store.subscribe_written(Filter::inbox(id), Begin::First).unwrap();
    let mut found = Vec::new();
    while let Some(event) = events.next(NOW).unwrap() {
        found.push(String::from_utf8(event.bytes.to_vec()).unwrap());
    }
    found
}

/// From the numbers into the inbox, and from there, without every third, in pairs, to whoever
/// stands outside and remembers what it got.
fn flow(store: &Store, outside: &Arc<Mutex<Vec<Vec<String>>>>) -> Result<(), String> {
    let said = |error: Error| error.to_string();
    let down = |why: Why| why.to_string();
    let into = store.inbox("numbers", Durability::Power).map_err(said)?;
    let pipeline = edge::from(edge::iter(texts())).into(into);
    pipeline.set(|options| options.pull_max = 5).run_to_end("in").map_err(down)?;
    let outside = Arc::clone(outside);
    let outbox = UntilIdle(store.outbox("pairs", Filter::inbox("numbers")).map_err(said)?);
    edge::from(outbox)
        .map(|event| String::from_utf8(event.bytes).unwrap())
        .filter(|text| !text.ends_with('3'))
        .batch(2, Duration::from_secs(9))
        .into(edge::call(move |_, pair: &Vec<String>| {
            outside.lock().push(pair.clone());
            Ok(())
        }))
        .set(|options| options.pull_max = 3)
        .run_to_end("out")
        .map_err(down)
}

/// The machine dies in each call that changes its disk, in each way. In the next life the inbox has
/// each record once; whoever stands outside has got each, in order, and after the crash at most a
/// suffix again.
#[test]
fn between_inbox_and_outbox_nothing_is_lost_whichever_call_was_the_last() {
    let crashes = every_crash(
        7,
        |machine, outside: &mut Vec<Vec<String>>| {
            let Ok(store) = machine.open() else { return };
            let got = Arc::new(Mutex::new(Vec::new()));
            // It may have been the last call of all.
            flow(&store, &got).unwrap_or_default();
            *outside = got.lock().clone();
        },
        |machine: &Machine, _, before: &Vec<Vec<String>>| {
            let store = machine.open().unwrap();
            let got = Arc::new(Mutex::new(Vec::new()));
            flow(&store, &got).unwrap();
            assert_eq!(inbox(&store, "numbers"), texts(), "each once, in order");
            let first: Vec<String> = before.concat();
            let again: Vec<String> = got.lock().concat();
            let expected: Vec<String> =
                texts().into_iter().filter(|text| !text.ends_with('3')).collect();
            assert!(expected.starts_with(&first), "{first:?}");
            assert!(expected.ends_with(&again), "{again:?}");
            let all: BTreeSet<_> = first.iter().chain(&again).collect();
            assert_eq!(all.len(), expected.len(), "{first:?} and then {again:?}");
            // And then there is nothing new, and nothing again.
            let got = Arc::new(Mutex::new(Vec::new()));
            flow(&store, &got).unwrap();
            assert_eq!(inbox(&store, "numbers").len(), texts().len());
            assert!(got.lock().is_empty(), "{:?}", got.lock());
        },
    );
    assert!(crashes.points > 10, "{crashes:?}");
}

/// What was pushed when the call returned is there after every way to die in every call, and
/// nothing is there twice.
#[test]
fn what_was_pushed_is_in_the_inbox_after_any_crash() {
    let crashes = every_crash(
        3,
        |machine, pushed: &mut u64| {
            let Ok(store) = machine.open() else { return };
            let Some(api) = machine.heard(store.api("orders", Durability::Power)) else { return };
            for n in 1..=6_u64 {
                if machine.heard(api.push(format!("order {n}").as_bytes())).is_none() {
                    return;
                }
                *pushed = n;
            }
        },
        |machine, _, pushed| {
            let store = machine.open().unwrap();
            let found = inbox(&store, "orders");
            let expected: Vec<_> = (1..=6).map(|n| format!("order {n}")).collect();
            assert!(found.len() as u64 >= *pushed, "{pushed} were pushed: {found:?}");
            assert!(expected.starts_with(&found), "{found:?}");
        },
    );
    assert!(crashes.points > 6, "{crashes:?}");
}

#[test]
fn a_name_has_one_owner_at_a_time() {
    let disk = disk(1);
    let store = crate::stream::options(&disk).open("/store").unwrap();
    let leased = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Stream(StreamError::Leased(_)))), "{result:?}");
    };
    let inbox = store.inbox::<String>("a", Durability::Power).unwrap();
    leased(store.inbox::<String>("a", Durability::Power).map(drop));
    leased(store.api("a", Durability::Power).map(drop));
    let _other = store.inbox::<String>("b", Durability::Power).unwrap();
    drop(inbox);
    let api = store.api("a", Durability::Power).unwrap();
    let clone = api.clone();
    drop(api);
    leased(store.inbox::<String>("a", Durability::Power).map(drop));
    drop(clone);
    store.inbox::<String>("a", Durability::Power).map(drop).unwrap();
    let outbox = store.outbox("a", Filter::all()).unwrap();
    leased(store.outbox("a", Filter::all()).map(drop));
    drop(outbox);
    let keeper = store.keeper("a").unwrap();
    leased(store.keeper("a").map(drop));
    drop(keeper);
    for bad in ["", &"x".repeat(70_000)] {
        let error = store.keeper(bad).map(drop).unwrap_err();
        assert!(matches!(error, Error::Stream(StreamError::BadName)), "{error}");
    }
}

/// Several records of one input are in one frame with its position, or not there; so are the
/// position of skips alone, and a hash.
#[test]
fn an_inbox_remembers_the_last_whole_input_and_its_hash() {
    let disk = disk(1);
    let store = crate::stream::options(&disk).open("/store").unwrap();
    let mut sink = store.inbox("a", Durability::Power).unwrap();
    assert_eq!((sink.last().unwrap(), sink.level()), (Last::Never, Level::Power));
    let at = |seq| Pos::new(1, seq);
    sink.put(at(1), "one", true).unwrap();
    sink.put(at(2), "two, half", false).unwrap();
    assert_eq!(sink.settle(Duration::from_secs(9)).unwrap(), Some(at(1)));
    drop(sink);
    let mut sink = store.inbox("a", Durability::Process).unwrap();
    assert_eq!(sink.last().unwrap(), Last::At(at(1).into()));
    let frames = store.stats().log.frames;
    sink.put(at(2), "two, half", false).unwrap();
    let mark = Mark { pos: at(2), hash: Some(22) };
    sink.hashed(mark);
    sink.put(at(2), "two, whole", true).unwrap();
    assert_eq!(sink.settle(NOW).unwrap(), Some(at(2)));
    assert_eq!(store.stats().log.frames, frames + 1, "one frame");
    drop(sink);
    let mut sink = store.inbox::<&str>("a", Durability::Process).unwrap();
    assert_eq!(sink.last().unwrap(), Last::At(mark));
    let skipped = Mark { pos: at(9), hash: None };
    assert!(sink.passed(skipped).unwrap());
    drop(sink);
    let mut sink = store.inbox::<String>("a", Durability::Process).unwrap();
    assert_eq!(sink.last().unwrap(), Last::At(skipped));
    let error = sink.put(at(10), "x".repeat(1 << 20), true).unwrap_err();
    assert!(matches!(error, Fault::Poison { .. }), "{error}");
    sink.put(at(11), "y".repeat(100), true).unwrap();
    assert_eq!(sink.settle(NOW).unwrap(), Some(at(11)));
    assert_eq!(inbox(&store, "a"), ["one", "two, half", "two, whole", &"y".repeat(100)]);
    // Subscribers to everything see no inbox.
    let mut all = store.subscribe_written(Filter::all(), Begin::First).unwrap();
    assert!(all.next(NOW).unwrap().is_none());
}

/// Retention drops what it may, and an inbox's events and position stay; of a pipeline's keeper
/// only the newest does.
#[test]
fn retention_leaves_an_inbox_alone_and_the_newest_of_a_keeper() {
    let home = tempfile::tempdir().unwrap();
    let open = || {
        let options = Store::options().retain(Retain::UntilSnapshot).compaction(true);
        options
            .segment_bytes(64 << 10, 64 << 10)
            .frame_bytes_max(8 << 10)
            .open(home.path())
            .unwrap()
    };
    let store = open();
    let kept = |seq| Kept { mark: Pos::new(0, seq).into(), put: None, state: Some(vec![7; 7_000]) };
    let mut keeper = store.keeper("p").unwrap();
    let mut sink = store.inbox("a", Durability::Process).unwrap();
    for seq in 1..=900 {
        keeper.save(&kept(seq)).unwrap();
        sink.put(Pos::new(0, seq), format!("{seq:0100}"), true).unwrap();
        sink.settle(NOW).unwrap();
    }
    drop((keeper, sink));
    let done = store.compact().unwrap();
    assert!(done.events_dropped > 100, "{done:?}");
    drop(store);
    let store = open();
    assert_eq!(store.keeper("p").unwrap().load().unwrap(), Some(kept(900)));
    let mut sink = store.inbox::<String>("a", Durability::Process).unwrap();
    assert_eq!(sink.last().unwrap(), Last::At(Pos::new(0, 900).into()));
    assert_eq!(inbox(&store, "a").len(), 900);
}

/// A pipeline with a state that is killed in the midst goes on as if nothing had happened.
#[test]
fn what_a_stage_knows_is_kept_with_the_position_and_found_again() {
    let disk = disk(1);
    let store = crate::stream::options(&disk).open("/store").unwrap();
    let got = Arc::new(Mutex::new(Vec::new()));
    let life = |end: u64| {
        let into = Arc::clone(&got);
        edge::from(edge::iter((1..=end).map(|n| n % 10)))
            .dedup(100, |n| *n)
            .into(edge::call(move |_, n: &u64| {
                into.lock().push(*n);
                Ok(())
            }))
            .keep(store.keeper("p").unwrap())
            .run_to_end("p")
            .unwrap();
    };
    life(7);
    life(40);
    assert_eq!(*got.lock(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
}

/// The store was put back to an older state, and went on otherwise: what a sink has of it is of
/// another past.
#[test]
fn an_outbox_that_has_other_records_than_those_that_were_handled_has_diverged() {
    let disk = disk(1);
    let store = crate::stream::options(&disk).open("/store").unwrap();
    let api = store.api("a", Durability::Power).unwrap();
    for n in 0..3 {
        api.push(format!("old {n}").as_bytes()).unwrap();
    }
    struct Marks(Vec<Mark>);
    impl Give<annals::Occurrence> for Marks {
        fn give(&mut self, _: Pos, _: annals::Occurrence) {
            panic!("without a hash");
        }
        fn give_hashed(&mut self, pos: Pos, hash: u64, _: annals::Occurrence) {
            self.0.push(Mark { pos, hash: Some(hash) });
        }
    }
    let mut outbox = store.outbox("o", Filter::inbox("a")).unwrap();
    let mut marks = Marks(Vec::new());
    assert_eq!(outbox.seek(None).unwrap(), Resume::Exact);
    assert_eq!(outbox.pull(9, NOW, &mut marks).unwrap(), Flow::Idle);
    let marks = marks.0;
    assert_eq!(marks.len(), 3);
    assert_eq!(outbox.seek(Some(marks[1])).unwrap(), Resume::Exact);
    let other = Mark { hash: marks[0].hash, ..marks[1] };
    assert_eq!(outbox.seek(Some(other)).unwrap(), Resume::Diverged, "another hash");
    let behind = Mark { pos: Pos::new(0, 1 << 40), ..marks[1] };
    assert_eq!(outbox.seek(Some(behind)).unwrap(), Resume::Diverged, "behind the end");
    let between = Mark { pos: Pos { seq: marks[1].pos.seq + 16, ..marks[1].pos }, ..marks[1] };
    assert_eq!(outbox.seek(Some(between)).unwrap(), Resume::Diverged, "no record");
}
