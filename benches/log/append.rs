//! Appends that survive the process: how many, and how long each.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use annals::log::{Keep, Log, Plan};
use annals::types::{HybridTime, Seq};
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

/// How many events are appended at a time where the disk is to have no part in it: 1.8 MB.
const BURST: u64 = 10_000;

/// Appends on 1 thread and on 4 in bursts, with a pause behind each in which all is stored and
/// synced: what an append costs who does not write more than the disk can take. And with segments
/// made of the files of others.
pub(crate) fn bursts(bench: &mut Bench) {
    if !bench.wants("burst") {
        return;
    }
    let mut warm = WarmLog::new(&bench.home, bench.scale == Scale::Once);
    let ring = Mutex::new(PlainRing::new(&bench.home));
    bench.compare(("burst", "append, 1 thread"), Unit::Time, BURST, &mut |times| {
        let (log, writers) = warm.get(1);
        let mut pair = Pair { ours: Duration::ZERO, limit: Duration::ZERO };
        for _ in 0..times {
            let began = Instant::now();
            writers[0].append_many(log, BURST);
            pair.ours += began.elapsed();
            log.sync().expect("a commit");
            pair.limit += plain(&mut ring.lock(), BURST);
        }
        pair
    });
    bench.compare(("burst", "append, 4 threads"), Unit::PerSecond, BURST, &mut |times| {
        let (log, writers) = warm.get(4);
        let mut pair = Pair { ours: Duration::ZERO, limit: Duration::ZERO };
        for _ in 0..times {
            let quarter = BURST / 4;
            let four = writers.iter_mut();
            pair.ours += together(four.map(|writer| || writer.append_many(log, quarter)));
            log.sync().expect("a commit");
            pair.limit += together((0..4).map(|_| || plain_locked(&ring, quarter)));
        }
        pair
    });
}

/// Appends on 1 thread without a pause, while another lets go of what is old: segments are made of
/// the files of those before.
pub(crate) fn recycled(bench: &mut Bench) {
    if !bench.wants("recycled") {
        return;
    }
    let mut warm = WarmLog::new(&bench.home, bench.scale == Scale::Once);
    let mut ring = PlainRing::new(&bench.home);
    let before = warm.get(1).0.stats();
    bench.compare(("recycled", "append, 1 thread"), Unit::Time, 1, &mut |times| {
        let (log, writers) = warm.get(1);
        let done = AtomicBool::new(false);
        let ours = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if log.compact(&forget_all()).expect("a floor").is_none() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
            let began = Instant::now();
            writers[0].append_many(log, times);
            let ours = began.elapsed();
            done.store(true, Ordering::Relaxed);
            ours
        });
        Pair { ours, limit: plain(&mut ring, times) }
    });
    let after = warm.get(1).0.stats();
    println!(
        "recycled: {} of {} segments; {} appends waited for the disk",
        after.segments_recycled - before.segments_recycled,
        after.seals - before.seals,
        after.lag_waits - before.lag_waits
    );
}

/// All that is old goes.
fn forget_all() -> Plan<'static> {
    Plan {
        run_bytes_max: 1 << 30,
        keep: &|_| Ok(Keep { upto: Seq::MAX, first: false, superseded: false }),
        pinned: u64::MAX,
        unnamed: u64::MAX,
        below: u64::MAX,
        before: HybridTime::from_bits(u64::MAX),
        renew: false,
        thorough: false,
    }
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
