//! Readers on a real disk, with all threads, while compaction swaps pieces under them.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::disk::{Disk, RealDisk};
use annals::log::frame::{Batch, RecordKind};
use annals::log::{Keep, Limit, Log, LogOptions, Opening, Plan};
use annals::types::{HybridTime, Seq, StreamId};

use crate::support::{STREAMS, life, payload, stream};

const EVENTS: u64 = 12_000;

fn open(home: &Path, number: u64) -> Log {
    let options = LogOptions {
        ring: Some(home.join("ring")),
        mark: Some(home.join("mark")),
        checkpoints: Some(home.to_owned()),
        ring_bytes: 64 << 10,
        segment_bytes_first: 32 << 10,
        segment_bytes_max: 128 << 10,
        frame_bytes_max: 8 << 10,
        flush_bytes: 128 << 10,
        ..LogOptions::new(home.join("log"))
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    Opening::new(&disk, options, 7, 0).unwrap().start(life(number)).unwrap().0
}

/// Event number `n` goes to stream `n` modulo their number.
fn append(log: &Log, done: &AtomicBool) {
    let mut batch = Batch::new();
    for number in 0..EVENTS {
        batch.clear();
        batch.push(RecordKind::Event, 1, &payload(number, 400)).unwrap();
        let first = Seq::new(number / STREAMS + 1).unwrap();
        log.append(&mut batch, stream(number % STREAMS), first).unwrap();
    }
    log.sync().unwrap();
    done.store(true, Ordering::Release);
}

/// Compacts until there is nothing more, now and then thoroughly.
fn compact(log: &Log, done: &AtomicBool) {
    let keep = |_| Ok(Keep::ALL);
    let (mut thorough, mut last) = (false, false);
    loop {
        let plan = Plan {
            run_bytes_max: 512 << 10,
            keep: &keep,
            pinned: u64::MAX,
            unnamed: u64::MAX,
            below: 0,
            before: HybridTime::default(),
            renew: false,
            thorough,
        };
        if log.compact(&plan).unwrap().is_none() {
            if last {
                return;
            }
            last = done.load(Ordering::Acquire);
        }
        thorough = !thorough;
    }
}

/// Over and over all of it, as far as it is.
fn scan(log: &Log, done: &AtomicBool) {
    let mut last = false;
    while !last {
        last = done.load(Ordering::Acquire);
        let mut frames = log.frames(0, Limit::Written).unwrap();
        let mut next = 0;
        while let Some(frame) = frames.next().unwrap() {
            if frame.header().stream != StreamId::SYSTEM {
                assert_eq!(frame.header().stream, stream(next % STREAMS));
                assert_eq!(frame.header().seq.get(), next / STREAMS + 1);
                next += 1;
            }
        }
        assert!(!last || next == EVENTS, "{next} of all");
    }
}

/// Over and over, one stream at a time.
fn replay(log: &Log, done: &AtomicBool) {
    let mut last = false;
    while !last {
        last = done.load(Ordering::Acquire);
        for number in 0..STREAMS {
            let mut next = 0;
            let visited = log.stream(stream(number), Seq::ZERO, &mut |frame| {
                next += 1;
                assert_eq!(frame.header().seq.get(), next);
                ControlFlow::Continue(())
            });
            // What comes in between is seen the next time.
            assert!(visited.unwrap().last.get() >= next);
            assert!(!last || next == EVENTS / STREAMS);
        }
    }
}

/// Never begins again.
fn follow(log: &Log) {
    let mut tail = log.tail(0, Limit::Durable).unwrap();
    let mut next = 0;
    while next < EVENTS {
        let frame = tail.next(Duration::from_mins(1)).unwrap().expect("in time");
        if frame.header().stream != StreamId::SYSTEM {
            assert_eq!(frame.header().seq.get(), next / STREAMS + 1);
            next += 1;
        }
    }
}

#[test]
fn readers_on_a_real_disk_miss_nothing_while_pieces_are_swapped_under_them() {
    let home = tempfile::tempdir().unwrap();
    let log = open(home.path(), 1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (log, done) = (&log, &done);
        scope.spawn(move || scan(log, done));
        scope.spawn(move || replay(log, done));
        scope.spawn(move || follow(log));
        scope.spawn(move || compact(log, done));
        scope.spawn(move || append(log, done));
    });
    let stats = log.stats();
    assert!(stats.runs > 3 && stats.compactions > 3, "little was compacted: {stats:?}");
    log.close().unwrap();
    drop(log);
    let log = open(home.path(), 2);
    assert_eq!(log.totals().unwrap().events, EVENTS);
    for number in 0..STREAMS {
        assert_eq!(log.last_seq(stream(number)).unwrap().get(), EVENTS / STREAMS);
    }
}
