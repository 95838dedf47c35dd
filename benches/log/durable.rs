//! Appends that survive power loss: alone, by many threads, many in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use annals::log::Log;
use annals::types::Lsn;
use parking_lot::Mutex;

use crate::append::{append_durably, together};
use crate::device::{Device, bytes_on_disk};
use crate::support::flush::Flush;
use crate::support::histogram::Histogram;
use crate::support::table::{Row, Unit};
use crate::support::{Bench, FRAME_BYTES, PAYLOAD_BYTES, Pair};
use crate::writer::{Writer, fresh};

/// One thread, one event, one flush.
pub(crate) fn lone(bench: &mut Bench) {
    if !bench.wants("durable") {
        return;
    }
    let log = settled(bench);
    let mut writer = Writer::new(0, 1_000);
    let mut flush = Flush::new(&bench.home.fresh("flush"), 1);
    let mut ours = Histogram::new();
    let mut limit = Histogram::new();
    bench.compare(("durable", "1 thread"), Unit::PerSecond, 1, &mut |times| Pair {
        ours: append_durably(&log, &mut writer, times, &mut ours),
        limit: flush.run(times, &mut limit),
    });
    if !ours.is_empty() {
        for (name, figures) in
            [("p50", (ours.p50(), limit.p50())), ("p99", (ours.p99(), limit.p99()))]
        {
            let figures = (figures.0, Some(figures.1));
            bench.table.add(Row::measured(format!("durable: lone {name}"), Unit::Time, figures));
        }
    }
    bench.table.distribution("durable append, alone", ours);
    bench.table.distribution("its limit: pwrite and fdatasync", limit);
}

/// Threads that each wait for their own event. The limit wakes nobody.
pub(crate) fn threads(bench: &mut Bench) {
    if !bench.wants("durable") {
        return;
    }
    for threads in [8, 64] {
        let log = settled(bench);
        let mut writers: Vec<_> = (0..threads).map(|number| Writer::new(number, 16)).collect();
        let mut flush = Flush::new(&bench.home.fresh("flush"), threads);
        let name = format!("{threads} threads");
        let each = Mutex::new(Histogram::new());
        let mut limit = Histogram::new();
        bench.compare(("durable", &name), Unit::PerSecond, threads as u64, &mut |times| {
            let ours = together(writers.iter_mut().map(|writer| {
                || {
                    let mut mine = Histogram::new();
                    append_durably(&log, writer, times, &mut mine);
                    each.lock().merge(&mine);
                }
            }));
            Pair { ours, limit: flush.run(times, &mut limit) }
        });
        bench.table.distribution(format!("durable append, {name}"), each.into_inner());
        bench.table.distribution(format!("its limit: {threads} events a flush"), limit);
    }
}

/// 1,024 events on their way at any time, by one thread that waits for all, and by two that each
/// wait for the oldest of their 512.
pub(crate) fn in_flight(bench: &mut Bench) {
    const IN_FLIGHT: usize = 1_024;
    if !bench.wants("durable") {
        return;
    }
    let log = settled(bench);
    let mut flush = Flush::new(&bench.home.fresh("flush"), IN_FLIGHT);
    let mut writers = [Writer::new(0, 1_000), Writer::new(1, 1_000)];
    let elements = IN_FLIGHT as u64;
    let one = ("durable", "1,024 in flight, 1 thread");
    bench.compare(one, Unit::PerSecond, elements, &mut |times| {
        let began = Instant::now();
        for _ in 0..times {
            let mut last = None;
            for _ in 0..IN_FLIGHT {
                last = Some(writers[0].append(&log).end);
            }
            wait(&log, last);
        }
        let ours = began.elapsed();
        Pair { ours, limit: flush.run(times, &mut Histogram::new()) }
    });
    let two = ("durable", "1,024 in flight, 2 threads");
    bench.compare(two, Unit::PerSecond, elements, &mut |times| {
        let log = &log;
        let ours = together(
            writers.iter_mut().map(|writer| move || windowed(log, writer, IN_FLIGHT / 2, times)),
        );
        Pair { ours, limit: flush.run(times, &mut Histogram::new()) }
    });
}

/// Appends `window` events, `times` times, with no more than that many not durable.
fn windowed(log: &Log, writer: &mut Writer, window: usize, times: u64) {
    let mut flying = VecDeque::with_capacity(window);
    for _ in 0..times * window as u64 {
        if flying.len() == window {
            wait(log, flying.front().copied());
            let durable = log.durable();
            while flying.front().is_some_and(|end: &Lsn| end.get() <= durable) {
                flying.pop_front();
            }
        }
        flying.push_back(writer.append(log).end);
    }
    wait(log, flying.back().copied());
}

fn wait(log: &Log, mark: Option<Lsn>) {
    if let Some(mark) = mark {
        log.wait_durable(mark, None).expect("a commit");
    }
}

/// What lone commits write to the device, and what events take on disk.
pub(crate) fn device(bench: &mut Bench) {
    if !bench.wants("device") {
        return;
    }
    let commits = bench.scale.pick(5, 500, 2_000);
    if let Some(device) = Device::of(&bench.home.dir) {
        let log = settled(bench);
        let mut writer = Writer::new(0, 1_000);
        let mut flush = Flush::new(&bench.home.fresh("flush"), 1);
        rustix::fs::sync();
        let per_commit = |work: &mut dyn FnMut()| {
            let before = device.bytes_written();
            work();
            (device.bytes_written() - before) as f64 / commits as f64
        };
        let ours = per_commit(&mut || {
            append_durably(&log, &mut writer, commits, &mut Histogram::new());
        });
        let limit = per_commit(&mut || {
            flush.run(commits, &mut Histogram::new());
        });
        let row = Row::measured("device: bytes per commit", Unit::Bytes, (ours, Some(limit)));
        bench.table.add(row);
    }

    let events = bench.scale.pick(1_000, 500_000, 2_000_000);
    let dir = bench.home.fresh("disk");
    let log = fresh(&dir);
    Writer::new(0, 1_000).append_many(&log, events);
    let stats = log.stats();
    drop(log);
    let mut row = |work: &str, bytes: u64| {
        let figures = (bytes as f64 / events as f64, Some(PAYLOAD_BYTES as f64));
        bench.table.add(Row::measured(work, Unit::Bytes, figures));
    };
    row("device: an event's bytes in the log", stats.bytes);
    let segments = bytes_on_disk(&dir, "seg");
    row("device: blocks of segments per event, closed", segments);
    let indexes = bytes_on_disk(&dir, "idx");
    row("device: with the indexes", segments + indexes);
}

/// A log that prepares its segments for commits, and has done so.
fn settled(bench: &Bench) -> Log {
    let log = fresh(&bench.home.fresh("durable"));
    let mut writer = Writer::new(99, 1);
    // Segments are filled with zeros once somebody has waited; past those that were not.
    let pass = bench.scale.pick(10, (8 << 20) / FRAME_BYTES, (8 << 20) / FRAME_BYTES);
    for _ in 0..4 {
        let end = writer.append(&log).end;
        wait(&log, Some(end));
        writer.append_many(&log, pass as u64 / 4);
    }
    log.sync().expect("a commit");
    let pause = bench.scale.pick(0, 300, 1_000);
    std::thread::sleep(Duration::from_millis(pause));
    log
}
