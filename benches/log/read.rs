//! Reads: the whole log, and one stream among many.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use annals::log::{Keep, Limit, Log, Plan};
use annals::types::{HybridTime, Seq};
use crc32fast::Hasher;
use memmap2::Mmap;

use crate::support::table::{Row, Unit};
use crate::support::{Bench, FRAME_BYTES, Pair};
use crate::writer::{Writer, fresh, stream_of};

const PAGE: usize = 4_096;
/// Of each stream that is replayed.
const EVENTS: u64 = 200;

/// The whole log from its beginning, checksums on, against a map of the same files.
pub(crate) fn scan(bench: &mut Bench) {
    if !bench.wants("scan") {
        return;
    }
    let events = bench.scale.pick(2_000, 500_000, 2_000_000);
    let dir = bench.home.fresh("scan");
    let log = fresh(&dir);
    Writer::new(0, 1_000).append_many(&log, events);
    log.sync().expect("a commit");
    let maps = maps_of(&dir.join("log"));
    bench.compare(("scan", "all events"), Unit::PerSecond, events, &mut |times| {
        let mut pair = Pair { ours: Duration::ZERO, limit: Duration::ZERO };
        for _ in 0..times {
            let began = Instant::now();
            assert!(scan_once(&log) >= events, "the log holds all of them");
            pair.ours += began.elapsed();
            let began = Instant::now();
            for map in &maps {
                // Segments that were prepared and not begun have nothing behind their header.
                let frames = map.get(PAGE..).unwrap_or_default().chunks_exact(FRAME_BYTES);
                frames.take_while(|frame| frame[0..4] != [0; 4]).for_each(sum);
            }
            pair.limit += began.elapsed();
        }
        pair
    });
}

fn scan_once(log: &Log) -> u64 {
    let mut frames = log.frames(0, Limit::Written).expect("from the beginning");
    let mut found = 0;
    while let Some(frame) = frames.next().expect("a sound log") {
        found += u64::from(frame.header().seq > Seq::ZERO);
    }
    found
}

/// What every reader must do with a frame, whatever its format: sum it.
fn sum(frame: &[u8]) {
    let mut sum = Hasher::new();
    sum.update(frame);
    std::hint::black_box(sum.finalize());
}

/// The segments, oldest first.
fn maps_of(dir: &Path) -> Vec<Mmap> {
    let entries = fs::read_dir(dir).expect("the segments' folder");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let file = fs::File::open(path).expect("a segment");
            #[expect(unsafe_code, reason = "the limit is a plain map of the file")]
            // SAFETY: Nobody appends to this log while the map is read, nobody cuts the file.
            let map = unsafe { Mmap::map(&file) };
            map.expect("a map")
        })
        .collect()
}

/// One stream at a time, of many that lie interleaved. The limit knows where the frames are, and
/// sums each where it lies.
pub(crate) fn replay(bench: &mut Bench) {
    if !bench.wants("replay") {
        return;
    }
    let streams: usize = bench.scale.pick(20, 2_000, 10_000);
    let log = fresh(&bench.home.fresh("replay"));
    let events = streams as u64 * EVENTS;
    Writer::new(0, streams).append_many(&log, events);
    log.sync().expect("a commit");
    let began = Instant::now();
    read_stream(&log, 0, EVENTS);
    let took = began.elapsed().as_nanos() as f64 / events as f64;
    let row = Row::measured("replay: indexing, per event", Unit::Time, (took, None));
    bench.table.add(row);
    compare_replays(bench, &log, streams, "streams of 200 events");
    let began = Instant::now();
    let bytes = compact(&log, log.written());
    let took = began.elapsed().as_nanos() as f64 / bytes as f64 * 1_000.0;
    bench.table.add(Row::measured("replay: compacting, per 1,000 bytes", Unit::Time, (took, None)));
    compare_replays(bench, &log, streams, "the same, compacted");
}

/// Reads one stream after the other. The limit knows where the frames are.
fn compare_replays(bench: &mut Bench, log: &Log, streams: usize, what: &'static str) {
    let frames = vec![0x5a_u8; streams * FRAME_BYTES * 200];
    let mut next = 0;
    // No two neighbours in a row: 7,919 is prime.
    let mut step = move || {
        next = (next + 7_919) % streams;
        next
    };
    bench.compare(("replay", what), Unit::PerSecond, 1, &mut |times| {
        let order: Vec<_> = (0..times).map(|_| step()).collect();
        let began = Instant::now();
        for stream in &order {
            read_stream(log, *stream, EVENTS);
        }
        let ours = began.elapsed();
        let began = Instant::now();
        for stream in &order {
            frames.chunks_exact(FRAME_BYTES).skip(*stream).step_by(streams).for_each(sum);
        }
        Pair { ours, limit: began.elapsed() }
    });
}

/// Makes runs of everything below `position`, which takes some more to be written behind it;
/// answers how many bytes were compacted.
fn compact(log: &Log, position: u64) -> u64 {
    let plan = Plan {
        run_bytes_max: 1 << 30,
        keep: &|_| Ok(Keep::ALL),
        pinned: 0,
        unnamed: u64::MAX,
        below: 0,
        before: HybridTime::default(),
        renew: false,
        thorough: true,
    };
    let mut filler = Writer::new(1, 1);
    let mut bytes = 0;
    loop {
        while let Some(done) = log.compact(&plan).expect("a compaction") {
            bytes += done.bytes_before;
            if done.range.end >= position {
                return bytes;
            }
        }
        filler.append_many(log, 20_000);
        log.sync().expect("a commit");
    }
}

fn read_stream(log: &Log, stream: usize, events: u64) {
    let mut seen = 0;
    log.stream(stream_of(0, stream), Seq::ZERO, &mut |frame| {
        std::hint::black_box(frame.body());
        seen += 1;
        ControlFlow::Continue(())
    })
    .expect("a sound stream");
    assert_eq!(seen, events, "each stream has as many");
}
