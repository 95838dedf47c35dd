//! Appends that survive the process: how many, and how long each.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use annals::log::Log;
use parking_lot::Mutex;

use crate::support::histogram::Histogram;
use crate::support::scale::Scale;
use crate::support::table::{Row, Unit};
use crate::support::{Bench, Pair};
use crate::writer::{PlainRing, WarmLog, Writer, plain_frame};

/// Appends on 1 thread and on 4, against checksum and copy.
pub(crate) fn rates(bench: &mut Bench) {
    if !bench.wants("append") {
        return;
    }
    let mut log = WarmLog::new(&bench.home, bench.scale == Scale::Once);
    let ring = Mutex::new(PlainRing::new(&bench.home));
    bench.compare(("append", "1 thread"), Unit::Time, 1, &mut |times| {
        let (log, writers) = log.get(1);
        let began = Instant::now();
        writers[0].append_many(log, times);
        let ours = began.elapsed();
        Pair { ours, limit: plain(&mut ring.lock(), times) }
    });
    bench.compare(("append", "4 threads"), Unit::PerSecond, 4, &mut |times| {
        let (log, writers) = log.get(4);
        let ours = together(writers.iter_mut().map(|writer| || writer.append_many(log, times)));
        let limit = together((0..4).map(|_| || plain_locked(&ring, times)));
        Pair { ours, limit }
    });
}

fn plain(ring: &mut PlainRing, times: u64) -> Duration {
    let mut frame = plain_frame();
    let began = Instant::now();
    for _ in 0..times {
        let body = PlainRing::body(&frame);
        ring.put(&mut frame, body);
    }
    began.elapsed()
}

fn plain_locked(ring: &Mutex<PlainRing>, times: u64) {
    let mut frame = plain_frame();
    for _ in 0..times {
        let body = PlainRing::body(&frame);
        ring.lock().put(&mut frame, body);
    }
}

/// Runs each on a thread of its own; from when all stand ready until the last has ended.
pub(crate) fn together<F: FnOnce() + Send>(works: impl ExactSizeIterator<Item = F>) -> Duration {
    let ready = Barrier::new(works.len() + 1);
    std::thread::scope(|scope| {
        for work in works {
            let ready = &ready;
            scope.spawn(move || {
                ready.wait();
                work();
                ready.wait();
            });
        }
        ready.wait();
        let began = Instant::now();
        ready.wait();
        began.elapsed()
    })
}

/// How long single appends take, those included that find a segment full or a ring.
pub(crate) fn latency(bench: &mut Bench) {
    if !bench.wants("latency") {
        return;
    }
    let times = bench.scale.pick(1_000, 2_000_000, 5_000_000);
    let mut warm = WarmLog::new(&bench.home, bench.scale == Scale::Once);
    let (log, writers) = warm.get(1);
    let before = log.stats();
    let ours = Histogram::of_each(times, &mut || {
        writers[0].append(log);
    });
    let after = log.stats();
    println!(
        "latency: {times} appends; {} found the ring full, {} waited for a segment",
        after.ring_full - before.ring_full,
        after.segment_waits - before.segment_waits
    );
    let mut ring = PlainRing::new(&bench.home);
    let mut frame = plain_frame();
    let limit = Histogram::of_each(times, &mut || {
        let body = PlainRing::body(&frame);
        ring.put(&mut frame, body);
    });
    let mut ticks = 0_u64;
    let clock = Histogram::of_each(times, &mut || ticks = std::hint::black_box(ticks + 1));
    for (name, parts) in [("p50", 500), ("p99", 990), ("p99.9", 999)] {
        let figures = (ours.per_mille(parts), Some(limit.per_mille(parts)));
        bench.table.add(Row::measured(format!("latency: append {name}"), Unit::Time, figures));
    }
    bench.table.distribution(format!("append, {times} times"), ours);
    bench.table.distribution("its limit: CRC and copy", limit);
    bench.table.distribution("reading the clock, which is in both", clock);
}

/// Appends and waits for the disk, so often; notes each time.
pub(crate) fn append_durably(
    log: &Log,
    writer: &mut Writer,
    times: u64,
    each: &mut Histogram,
) -> Duration {
    let began = Instant::now();
    let mut last = began;
    for _ in 0..times {
        let appended = writer.append(log);
        log.wait_durable(appended.end, None).expect("a commit");
        let now = Instant::now();
        each.record(now - last);
        last = now;
    }
    last - began
}
