//! What each part does, on threads as it is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use parking_lot::Mutex;

use crate::edge::{
    self, Dead, Emit, Fault, Flow, Gap, Give, Handle, Health, Keep, Kept, Last, Level, Mark, Pos,
    Resume, Sink, Source, Stage, Swap, Why,
};

const LONG: Duration = Duration::from_secs(20);

/// A sink that forwards to a channel without a bound.
fn seen<T>() -> (impl Sink<Item = T> + Send + use<T>, Receiver<T>)
where
    T: Clone + Send + 'static,
{
    let (sender, receiver) = unbounded();
    let sink = edge::call(move |_, item: &T| {
        sender.send(item.clone()).map_err(|error| Fault::fatal(error.to_string()))
    });
    (sink, receiver)
}

/// Waits for a health.
fn wait_for(handle: &Handle, is: impl Fn(&Health) -> bool) {
    let clock = crate::time::Clock::System;
    let from = clock.monotonic();
    while !is(&handle.health()) {
        assert!(clock.monotonic() < from + LONG, "it is {}", handle.health());
        std::thread::yield_now();
    }
}

#[test]
fn a_panic_anywhere_is_seen_in_the_health_and_by_who_joins() {
    let (sink, _seen) = seen::<u32>();
    let stage = edge::from(edge::iter(0..9)).map(|n: u32| {
        assert!(n < 5, "no more than five");
        n
    });
    let why = stage.into(sink).spawn("stage").unwrap().join().unwrap_err();
    assert!(matches!(&why, Why::Panicked(said) if said.contains("five")), "{why}");

    let sink = edge::call(|_, _: &u32| panic!("the sink"));
    let pipeline = edge::from(edge::iter(0..9)).into(sink).spawn("sink").unwrap();
    wait_for(&pipeline, |health| matches!(health, Health::Down(Why::Panicked(_))));

    let (sink, _seen) = seen::<u32>();
    let source = edge::buffered(edge::iter((0..).inspect(|n| assert!(*n < 3, "source"))), 4);
    let why = edge::from(source).into(sink).spawn("source").unwrap().join().unwrap_err();
    assert!(why.to_string().contains("thread"), "{why}");
}

#[test]
fn what_fails_for_a_while_is_tried_again_and_nothing_overtakes_it() {
    let tries = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&tries);
    let stage_tries = Arc::new(AtomicU64::new(0));
    let stage_counted = Arc::clone(&stage_tries);
    let got = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&got);
    let sink = edge::call(move |_, n: &u32| {
        if *n % 7 == 3 && counted.fetch_add(1, Ordering::Relaxed) % 4 != 3 {
            return Err(Fault::retry("the sink's moment"));
        }
        into.lock().push(*n);
        Ok(())
    });
    let pipeline = edge::from(edge::iter(0..100_u32))
        .try_map(move |_, n| {
            if n % 11 == 5 && stage_counted.fetch_add(1, Ordering::Relaxed) % 3 != 2 {
                return Err(Fault::retry("the stage's moment"));
            }
            Ok(*n)
        })
        .into(sink)
        .set(|options| options.backoff_min = Duration::from_micros(50))
        .set(|options| options.backoff_max = Duration::from_micros(200))
        .spawn("again")
        .unwrap();
    let gauges = Arc::clone(pipeline.gauges());
    pipeline.join().unwrap();
    assert_eq!(*got.lock(), (0..100).collect::<Vec<_>>());
    assert!(gauges.read().retries >= 14 * 3, "{:?}", gauges.read());
    assert_eq!(gauges.read().settled, 100);
}

#[test]
fn what_never_works_is_given_up_after_as_many_tries_as_allowed() {
    let sink = edge::call(|_, _: &u32| Err(Fault::retry("never")));
    let pipeline = edge::from(edge::iter(0..9)).into(sink);
    let pipeline = pipeline.set(|options| {
        options.backoff_min = Duration::from_micros(10);
        options.tries_max = Some(3);
    });
    let why = pipeline.spawn("never").unwrap().join().unwrap_err();
    assert!(matches!(why, Why::GivenUp { tries: 4, .. }), "{why}");
}

#[test]
fn poison_goes_to_the_dead_letters_as_it_came_or_ends_the_pipeline() {
    let parse = |pos, text: &&str| text.parse::<u32>().map_err(|e| edge::bad(pos, e.to_string()));
    let texts = ["1", "x", "2", "y", "3"];
    let ((sink, good), (dead, letters)) = (seen(), seen::<Dead<&str>>());
    let pipeline = edge::from(edge::iter(texts)).try_map(parse).into(sink).dead_letters(dead);
    let pipeline = pipeline.spawn("dead").unwrap();
    let gauges = Arc::clone(pipeline.gauges());
    pipeline.join().unwrap();
    assert_eq!(good.try_iter().collect::<Vec<u32>>(), [1, 2, 3]);
    let letters: Vec<_> = letters.try_iter().map(|it| (it.pos.seq, it.item)).collect();
    assert_eq!(letters, [(2, Some("x")), (4, Some("y"))]);
    assert_eq!((gauges.read().dead, gauges.read().settled), (2, 5));

    let (sink, good) = seen::<u32>();
    let pipeline = edge::from(edge::iter(texts)).try_map(parse).into(sink);
    let why = pipeline.spawn("no letters").unwrap().join().unwrap_err();
    assert!(matches!(why, Why::Poison { pos: Pos { seq: 2, .. }, .. }), "{why}");
    assert_eq!(good.try_iter().collect::<Vec<_>>(), [1]);
}

/// A batch that the sink refuses is dead as a whole, and what a filter dropped is no part of it.
#[test]
fn a_batch_that_is_refused_is_dead_record_by_record_without_what_was_dropped() {
    let (dead, letters) = seen::<Dead<u32>>();
    let sink =
        edge::call(
            |pos, batch: &Vec<u32>| {
                if batch.contains(&7) { Err(Fault::poison(pos, "seven")) } else { Ok(()) }
            },
        );
    let pipeline = edge::from(edge::iter(1..=20)).filter(|n| n % 3 != 0).batch(3, LONG);
    pipeline.into(sink).dead_letters(dead).run_to_end("batches").unwrap();
    // 1 2 4 | 5 7 8 | 10 11 13 | ...
    let letters: Vec<_> = letters.try_iter().map(|letter| letter.item.unwrap()).collect();
    assert_eq!(letters, [5, 7, 8]);
}

/// Gives numbers for as long as it is asked, but only so many at a time as it is allowed.
struct Endless(Arc<AtomicU64>, u64);

impl Source for Endless {
    type Item = u64;

    fn seek(&mut self, _at: Option<Mark>) -> Result<Resume, Fault> {
        Ok(Resume::Exact)
    }

    fn pull(&mut self, max: usize, _: Duration, out: &mut dyn Give<u64>) -> Result<Flow, Fault> {
        for _ in 0..max.min(50) {
            self.1 += 1;
            self.0.fetch_add(1, Ordering::Relaxed);
            out.give(Pos::new(0, self.1), self.1);
        }
        Ok(Flow::More)
    }
}

#[test]
fn a_sink_that_stands_still_stops_the_source_after_its_window() {
    let pulled = Arc::new(AtomicU64::new(0));
    let (sink, receiver) = edge::channel::bounded(100);
    let source = Endless(Arc::clone(&pulled), 0);
    let pipeline = edge::from(source).into(sink).spawn("still").unwrap();
    assert_eq!(receiver.recv_timeout(LONG).unwrap().1, 1);
    // Nobody receives any more. It is asked again and again, and pulls no more.
    let settle = pipeline.settle(Duration::from_millis(200));
    let now = pulled.load(Ordering::Relaxed);
    assert!(now <= 1 + 100 + 50, "{now} pulled, settled: {settle}");
    pipeline.pause();
    wait_for(&pipeline, |health| matches!(health, Health::Paused));
    let paused = pulled.load(Ordering::Relaxed);
    while receiver.try_recv().is_ok() {}
    assert!(pipeline.settle(LONG), "what was under way is settled while it pauses");
    assert_eq!(pulled.load(Ordering::Relaxed), paused);
    while receiver.try_recv().is_ok() {}
    pipeline.resume();
    assert!(receiver.recv_timeout(LONG).is_ok());
    drop(receiver);
    let why = pipeline.join().unwrap_err();
    assert!(why.to_string().contains("receiver is gone"), "{why}");
}

#[test]
fn a_stage_is_swapped_at_a_boundary_and_the_new_one_knows_what_the_old_one_knew() {
    let (numbers, source) = crossbeam_channel::bounded::<u32>(8);
    let (sink, got) = seen::<u32>();
    let pipeline = edge::from(edge::channel::receiver(source))
        .named("once", edge::dedup(100, |n: &u32| *n))
        .named("times", edge::map(|n: u32| n * 10))
        .into(sink)
        .spawn("swap")
        .unwrap();
    let next = || got.recv_timeout(LONG).unwrap();
    numbers.send(1).unwrap();
    assert_eq!(next(), 10);
    assert_eq!(pipeline.swap("times", edge::map(|n: u32| n + 1)), Some(Swap::Done));
    numbers.send(2).unwrap();
    assert_eq!(next(), 3);
    assert_eq!(pipeline.swap("once", edge::dedup(5, |n: &u32| *n)), Some(Swap::Done));
    numbers.send(1).unwrap();
    numbers.send(2).unwrap();
    numbers.send(3).unwrap();
    assert_eq!(next(), 4, "1 and 2 are known to the new one");
    assert_eq!(pipeline.swap("nobody", edge::map(|n: u32| n)), Some(Swap::Unknown));
    assert_eq!(pipeline.swap("times", edge::map(|n: u64| n)), Some(Swap::OtherType));
    numbers.send(4).unwrap();
    assert_eq!(next(), 5);
    assert_eq!(pipeline.numbers().skipped.get("repeated"), Some(&2));
    drop(numbers);
    pipeline.join().unwrap();
}

#[test]
fn a_batch_goes_when_it_is_full_or_its_time_has_come_and_inputs_are_not_torn() {
    let (numbers, source) = crossbeam_channel::bounded::<u32>(16);
    let (sink, got) = seen::<Vec<u32>>();
    let pipeline = edge::from(edge::channel::receiver(source))
        .flat_map(|n| vec![n; n as usize])
        .batch(3, Duration::from_millis(20))
        .into(sink)
        .spawn("batch")
        .unwrap();
    for n in [1, 4] {
        numbers.send(n).unwrap();
    }
    assert_eq!(got.recv_timeout(LONG).unwrap(), [1, 4, 4, 4, 4]);
    numbers.send(2).unwrap();
    assert_eq!(got.recv_timeout(LONG).unwrap(), [2, 2], "its time has come");
    drop((numbers, pipeline));
}

#[test]
fn a_rate_is_kept_and_nothing_is_lost_by_it() {
    let clock = crate::time::Clock::System;
    let began = clock.monotonic();
    let (sink, got) = seen::<u32>();
    edge::from(edge::iter(0..30)).rate(1_000, 5).into(sink).run_to_end("rate").unwrap();
    // The last burst goes with the end of the source.
    let took = clock.monotonic().saturating_sub(began);
    assert!(took >= Duration::from_millis(19), "{took:?}");
    assert_eq!(got.try_iter().collect::<Vec<_>>(), (0..30).collect::<Vec<_>>());
}

/// Remembers by itself, in a list that outlives it.
struct Remembers(Arc<Mutex<Vec<Pos>>>, Arc<AtomicBool>);

impl Sink for Remembers {
    type Item = u64;

    fn put(&mut self, pos: Pos, _: u64, _: bool) -> Result<(), Fault> {
        if self.1.load(Ordering::Relaxed) {
            return Err(Fault::fatal("cut"));
        }
        self.0.lock().push(pos);
        Ok(())
    }

    fn settle(&mut self, _: Duration) -> Result<Option<Pos>, Fault> {
        Ok(self.0.lock().last().copied())
    }

    fn last(&mut self) -> Result<Last, Fault> {
        Ok(self.0.lock().last().map_or(Last::Never, |pos| Last::At((*pos).into())))
    }

    fn level(&self) -> Level {
        Level::Process
    }
}

#[test]
fn of_a_tee_each_side_gets_what_it_has_not_and_the_slower_one_counts() {
    let (one, other) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (up, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let life = |end: u64, cut: &Arc<AtomicBool>| {
        let first = Remembers(Arc::clone(&one), Arc::clone(&up));
        let second = Remembers(Arc::clone(&other), Arc::clone(cut));
        let second = edge::branch(edge::filter(|n: &u64| n.is_multiple_of(2)), second);
        edge::from(edge::iter(1..=end)).into(edge::tee(first, second)).run_to_end("tee")
    };
    assert!(life(9, &cut).is_err(), "the second side is cut");
    assert_eq!(other.lock().len(), 0);
    let before = one.lock().len();
    assert!(before >= 2, "{before}");
    life(9, &up).unwrap();
    let seqs = |list: &Mutex<Vec<Pos>>| list.lock().iter().map(|pos| pos.seq).collect::<Vec<_>>();
    assert_eq!(seqs(&one), (1..=9).collect::<Vec<_>>(), "none twice");
    assert_eq!(seqs(&other), [2, 4, 6, 8]);
}

#[test]
fn pipelines_that_share_a_sink_have_each_a_frontier_and_dead_letters_of_their_own() {
    let (sender, got) = unbounded();
    let sink = edge::call(move |_, n: &u64| {
        if n % 10 == 7 {
            return Err(Fault::poison(Pos::default(), "seven"));
        }
        sender.send(*n).map_err(|error| Fault::fatal(error.to_string()))
    });
    let mut letters = Vec::new();
    let mut pipelines = Vec::new();
    for (lane, base) in edge::merge(sink, 3).into_iter().zip([0_u64, 1_000, 2_000]) {
        let (dead, buried) = seen::<Dead<u64>>();
        let source = edge::iter(base..base + 100);
        let pipeline = edge::from(source).into(lane).dead_letters(dead).spawn("lane").unwrap();
        letters.push(buried);
        pipelines.push(pipeline);
    }
    for pipeline in pipelines {
        let gauges = Arc::clone(pipeline.gauges());
        pipeline.join().unwrap();
        assert_eq!((gauges.read().settled, gauges.read().dead), (100, 10));
    }
    let all: Vec<u64> = got.try_iter().collect();
    for (base, letters) in [0, 1_000, 2_000].into_iter().zip(letters) {
        let own: Vec<_> = all.iter().copied().filter(|n| n / 1_000 * 1_000 == base).collect();
        assert_eq!(own, (base..base + 100).filter(|n| n % 10 != 7).collect::<Vec<_>>());
        let dead: Vec<_> = letters.try_iter().map(|it| it.item.unwrap() - base).collect();
        assert_eq!(dead, (0..10).map(|n| n * 10 + 7).collect::<Vec<_>>());
    }
}

#[test]
fn a_buffered_source_runs_ahead_no_further_than_its_channel_and_ends_as_it_does() {
    let pulled = Arc::new(AtomicU64::new(0));
    let (sink, receiver) = edge::channel::bounded(1);
    let source = edge::buffered(Endless(Arc::clone(&pulled), 0), 10);
    let pipeline = edge::from(source).into(sink).spawn("ahead").unwrap();
    for expected in 1..=500 {
        assert_eq!(receiver.recv_timeout(LONG).unwrap().1, expected);
        let ahead = pulled.load(Ordering::Relaxed) - expected;
        assert!(ahead <= 10 + 50 + 4, "{ahead} ahead");
    }
    drop(receiver);
    assert!(pipeline.join().is_err());
    let (sink, got) = seen::<u32>();
    let source = edge::buffered(edge::iter(0..1_000), 7);
    edge::from(source).into(sink).run_to_end("ends").unwrap();
    assert_eq!(got.try_iter().collect::<Vec<_>>(), (0..1_000).collect::<Vec<_>>());
}

/// Says what it is told to.
struct Says(Vec<Result<Flow, Fault>>, Resume, u64);

impl Source for Says {
    type Item = u64;

    fn seek(&mut self, at: Option<Mark>) -> Result<Resume, Fault> {
        Ok(if at.is_some() { self.1 } else { Resume::Exact })
    }

    fn pull(&mut self, _: usize, _: Duration, out: &mut dyn Give<u64>) -> Result<Flow, Fault> {
        self.2 += 10;
        out.give(Pos::new(0, self.2), self.2);
        if self.0.is_empty() { Ok(Flow::End) } else { self.0.remove(0) }
    }
}

/// Notes where it was told of gaps.
struct Notes(Arc<Mutex<Vec<u64>>>, u64);

impl Stage for Notes {
    type In = u64;
    type Out = u64;

    fn step(&mut self, pos: Pos, item: u64, out: &mut dyn Emit<u64>) -> Result<(), Fault> {
        self.1 = pos.seq;
        out.emit(pos, item);
        Ok(())
    }

    fn gap(&mut self, _: &Gap) {
        self.0.lock().push(self.1);
    }
}

#[test]
fn a_gap_is_counted_told_to_stages_in_its_place_and_ends_the_pipeline_only_if_asked() {
    let gap = Gap { after: Some(Pos::new(0, 10)), before: None, lost: Some(9) };
    let said = || vec![Ok(Flow::Gap(gap)), Ok(Flow::More), Ok(Flow::Gap(gap))];
    let notes = Arc::new(Mutex::new(Vec::new()));
    let (sink, got) = seen::<u64>();
    let source = Says(said(), Resume::Exact, 0);
    let stage = Notes(Arc::clone(&notes), 0);
    let pipeline = edge::from(source).then(stage).into(sink).spawn("gaps").unwrap();
    let gauges = Arc::clone(pipeline.gauges());
    pipeline.join().unwrap();
    assert_eq!(*notes.lock(), [10, 30], "behind what came before each");
    assert_eq!((gauges.read().gaps, gauges.read().lost), (2, 18));
    assert_eq!(got.try_iter().count(), 4);

    let (sink, _got) = seen::<u64>();
    let pipeline = edge::from(Says(said(), Resume::Exact, 0)).into(sink);
    let pipeline = pipeline.set(|options| options.on_gap = edge::OnGap::End);
    let why = pipeline.spawn("ends").unwrap().join().unwrap_err();
    assert!(matches!(why, Why::Gap(_)), "{why}");
}

#[derive(Clone, Default)]
struct Kept1(Arc<Mutex<Option<Kept>>>);

impl Keep for Kept1 {
    fn load(&mut self) -> Result<Option<Kept>, Fault> {
        Ok(self.0.lock().clone())
    }

    fn save(&mut self, kept: &Kept) -> Result<(), Fault> {
        *self.0.lock() = Some(kept.clone());
        Ok(())
    }
}

#[test]
fn a_source_that_is_not_the_one_that_it_was_ends_the_pipeline_or_is_read_from_its_beginning() {
    let kept = Kept { mark: Pos::new(0, 10).into(), put: None, state: None };
    let keep = Kept1(Arc::new(Mutex::new(Some(kept))));
    let life = |on| {
        let (sink, got) = seen::<u64>();
        let pipeline = edge::from(Says(Vec::new(), Resume::Diverged, 0)).into(sink);
        let pipeline = pipeline.keep(keep.clone()).set(|options| options.on_diverged = on);
        (pipeline.run_to_end("other"), got)
    };
    let (ended, got) = life(edge::OnDiverged::End);
    assert!(matches!(ended, Err(Why::Diverged(_))), "{ended:?}");
    assert_eq!(got.try_iter().count(), 0);
    let (ended, got) = life(edge::OnDiverged::Restart);
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(got.try_iter().collect::<Vec<_>>(), [10]);
}

/// Gives the same position again and again.
struct Twice(u64);

impl Source for Twice {
    type Item = u64;

    fn seek(&mut self, _: Option<Mark>) -> Result<Resume, Fault> {
        Ok(Resume::Exact)
    }

    fn pull(&mut self, _: usize, _: Duration, out: &mut dyn Give<u64>) -> Result<Flow, Fault> {
        out.give(Pos::new(0, 1), self.0);
        Ok(Flow::More)
    }
}

/// A source whose positions go back would have records left out by whoever knows positions.
#[test]
fn a_source_or_a_stage_that_breaks_the_order_ends_the_pipeline() {
    let (sink, _got) = seen::<u64>();
    let ended = edge::from(Twice(0)).into(sink).run_to_end("order");
    assert!(ended.is_err_and(|why| why.to_string().contains("source")));

    let (sink, _got) = seen::<u64>();
    let back = edge::from_fn(|pos: Pos, n: u64, out: &mut dyn Emit<u64>| {
        out.emit(Pos::new(0, 100 - pos.seq), n);
        Ok(())
    });
    let ended = edge::from(edge::iter(0..9)).then(back).into(sink).run_to_end("stage");
    assert!(matches!(ended, Err(Why::Order { .. })), "{ended:?}");
}

#[test]
fn a_stage_that_drops_in_silence_is_counted_all_the_same() {
    let (sink, got) = seen::<u64>();
    let silent = edge::from_fn(|pos: Pos, n: u64, out: &mut dyn Emit<u64>| {
        if n.is_multiple_of(2) {
            out.emit(pos, n);
        }
        Ok(())
    });
    let pipeline = edge::from(edge::iter(0..10)).then(silent).into(sink).spawn("silent").unwrap();
    let gauges = Arc::clone(pipeline.gauges());
    pipeline.join().unwrap();
    assert_eq!(gauges.read().skipped.get("unsaid"), Some(&5));
    assert_eq!((gauges.read().settled, got.try_iter().count()), (10, 5));
}
