//! Opening a log that crashed, and one that was closed.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use annals::disk::{Access, Disk as _, Fill, RealDisk, read_full};
use annals::log::LogOptions;
use annals::log::compact::{Keep, Plan};
use annals::log::frame::{Batch, Frame, RecordKind};
use annals::types::{HybridTime, Seq, StreamId};

use crate::support::home::{Home, remove};
use crate::support::table::{Row, Unit, median};
use crate::support::{Bench, PAYLOAD_BYTES};
use crate::writer::{Writer, look, look_after_kill, options, start};

/// Appended after the last flush of a life that crashes.
const TAIL_EVENTS: u64 = 4_000;
/// The segment that a life after a crash begins with.
const SEGMENT_BYTES: u64 = 1 << 20;

/// The first read of one stream after an open, where most of the log is one run: of as many streams
/// as there are, four frames each. The limit reads another one after that.
pub(crate) fn first_read(bench: &mut Bench) {
    if !bench.wants("first_read") {
        return;
    }
    let streams: u64 = bench.scale.pick(1_000, 200_000, 1_000_000);
    let rounds = bench.scale.pick(1, 5, 11);
    let dir = bench.home.fresh("first-read");
    fs::create_dir_all(&dir).expect("the log's folder");
    let run = || LogOptions { segment_bytes_max: 64 << 20, ..options(&dir) };
    let id = |number: u64| StreamId::of("bench", &number.to_string());
    let log = start(look(run()), 1);
    for (seq, number) in (1..=4).flat_map(|seq| (0..streams).map(move |number| (seq, number))) {
        let mut batch = Batch::new();
        batch.push(RecordKind::Event, 1, &[7; PAYLOAD_BYTES]).expect("a batch");
        let first = Seq::new(seq).expect("a number");
        log.append(&mut batch, id(number), first).expect("an append");
    }
    log.close().expect("a close");
    drop(log);
    let log = start(look(run()), 2);
    let plan = Plan {
        run_bytes_max: 16 << 30,
        keep: &|_| Ok(Keep::ALL),
        pinned: u64::MAX,
        unnamed: u64::MAX,
        below: u64::MAX,
        before: HybridTime::from_bits(u64::MAX),
        renew: false,
        thorough: true,
    };
    while log.compact(&plan).expect("a compaction").is_some() {}
    log.close().expect("a close");
    drop(log);
    let (mut firsts, mut others) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let log = start(look(run()), 3 + round);
        // The segment that was written last is indexed in the background: that is another matter.
        std::thread::sleep(Duration::from_millis(bench.scale.pick(0, 500, 500)));
        for (number, times) in [(round * 7 % streams, &mut firsts), (streams / 2, &mut others)] {
            let mut frames = 0;
            let visit = &mut |_: Frame<'_>| {
                frames += 1;
                ControlFlow::Continue(())
            };
            let began = Instant::now();
            log.stream(id(number), Seq::ZERO, visit).expect("a sound log");
            times.push(began.elapsed().as_nanos() as f64);
            assert_eq!(frames, 4);
        }
        log.close().expect("a close");
    }
    if let Some(took) = median(&firsts) {
        let work = format!("first read: one of {streams} streams in a run");
        bench.table.add(Row::measured(work, Unit::Time, (took, median(&others))));
    }
}

/// `Opening::new` and `start`, at several sizes. The limit reads the last MiB and makes one
/// segment: no open after a crash can do less.
pub(crate) fn reopen(bench: &mut Bench) {
    if !bench.wants("reopen") {
        return;
    }
    let sizes: &[u64] =
        bench.scale.pick(&[2_000], &[100_000, 1_000_000], &[100_000, 1_000_000, 2_000_000]);
    let rounds = bench.scale.pick(1, 3, 9);
    for events in sizes {
        let (mut looks, mut crashed, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        let (mut killed_looks, mut killed) = (Vec::new(), Vec::new());
        let mut limit = Vec::new();
        let (dir, image) = crash(&bench.home, *events);
        for round in 0..rounds {
            let copy = bench.home.fresh("reopen-copy");
            copy_all(&image, &copy);
            rustix::fs::sync();
            let (opening, looked) = time(|| look(options(&copy)));
            let (log, started) = time(|| start(opening, 2));
            looks.push(looked);
            crashed.push(looked + started);
            if round == 0 {
                let totals = log.totals().expect("a sound log");
                assert_eq!(totals.events, *events, "a kill loses nothing");
            }
            drop(log);
            let (log, took) = time(|| start(look(options(&copy)), 3));
            closed.push(took);
            drop(log);
            remove(&copy);
            copy_all(&image, &copy);
            rustix::fs::sync();
            let (opening, looked) = time(|| look_after_kill(options(&copy), 1));
            let (log, started) = time(|| start(opening, 2));
            killed_looks.push(looked);
            killed.push(looked + started);
            drop(log);
            limit.push(time(|| least(&bench.home, &copy.join("log"))).1);
            remove(&copy);
        }
        remove(&dir);
        remove(&image);
        let least = median(&limit);
        for (how, times, limit) in [
            ("after a kill", killed, least),
            ("of that before the new life", killed_looks, None),
            ("after a power loss", crashed, least),
            ("of that before the new life", looks, None),
            ("after a close", closed, least),
        ] {
            if let Some(took) = median(&times) {
                let work = format!("reopen: {how}, {events} events");
                bench.table.add(Row::measured(work, Unit::Time, (took, limit)));
            }
        }
    }
}

/// A log of so many events, and the image of its files as a kill would have left them.
fn crash(home: &Home, events: u64) -> (PathBuf, PathBuf) {
    let dir = home.fresh("reopen");
    let image = home.fresh("reopen-image");
    fs::create_dir_all(&dir).expect("the log's folder");
    let mut options = options(&dir);
    // So that what is behind the last flush is the same each time.
    options.flush_interval = Duration::from_hours(1);
    let log = start(look(options), 1);
    let mut writer = Writer::new(0, 1_000);
    writer.append_many(&log, events.saturating_sub(TAIL_EVENTS));
    log.sync().expect("a commit");
    writer.append_many(&log, TAIL_EVENTS.min(events));
    // The map of the ring is of its file: a copy of that has what a kill would leave there.
    copy_all(&dir, &image);
    drop(log);
    (dir, image)
}

fn time<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let began = Instant::now();
    let done = work();
    (done, began.elapsed().as_nanos() as f64)
}

fn least(home: &Home, dir: &Path) {
    let entries = RealDisk.list(dir).expect("the segments' folder");
    let is_segment = |name: &str| Path::new(name).extension().is_some_and(|it| it == "seg");
    let segments = entries.iter().filter(|entry| is_segment(&entry.name));
    let last = segments.max_by_key(|entry| &entry.name).expect("a segment");
    let file = RealDisk.open(&dir.join(&last.name), Access::Read).expect("the last segment");
    let mut bytes = vec![0; 1 << 20];
    let from = last.bytes.saturating_sub(bytes.len() as u64);
    let read = read_full(&*file, &mut bytes, from).expect("the end of a segment");
    std::hint::black_box(crc32fast::hash(&bytes[..read]));
    let (temporary, path) = (home.dir.join("least.tmp"), home.dir.join("least"));
    let made = RealDisk.open(&temporary, Access::Create).expect("a file");
    made.allocate(SEGMENT_BYTES, Fill::Zero).expect("room for a file");
    made.sync_data().expect("a sync");
    RealDisk.rename(&temporary, &path).expect("a rename");
    RealDisk.sync_dir(&home.dir).expect("a sync of the folder");
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the copy's folder");
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else if let Err(error) = fs::copy(entry.path(), &target) {
            // A segment that is being prepared may get its name meanwhile.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}", target.display());
        }
    }
}
