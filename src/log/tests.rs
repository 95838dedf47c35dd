//! The log as its users see it, on a real disk. Crashes are in `tests/it`, on a simulated one.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::frame::{Batch, RecordKind};
use super::*;
use crate::disk::RealDisk;

struct Home {
    dir: tempfile::TempDir,
    disk: Arc<dyn Disk>,
    life: u64,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), disk: Arc::new(RealDisk), life: 0 }
    }

    fn options(&self) -> LogOptions {
        LogOptions {
            ring: Some(self.dir.path().join("ring")),
            mark: Some(self.dir.path().join("mark")),
            checkpoints: Some(self.dir.path().to_owned()),
            ring_bytes: 64 << 10,
            segment_bytes_first: 32 << 10,
            segment_bytes_max: 64 << 10,
            frame_bytes_max: 8 << 10,
            ..LogOptions::new(self.dir.path().join("log"))
        }
    }

    fn open(&mut self) -> (Log, RecoveryReport) {
        self.open_with(self.options())
    }

    fn open_with(&mut self, options: LogOptions) -> (Log, RecoveryReport) {
        self.life += 1;
        let life = Life { number: self.life, bits: self.life * 7919 };
        Opening::new(&self.disk, options, 42, 0).unwrap().start(life).unwrap()
    }
}

/// A waker that tells.
struct Woken(crossbeam_channel::Sender<()>);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.send(()).unwrap();
    }
}

fn event(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.push(RecordKind::Event, 1, &number.to_le_bytes().repeat(12)).unwrap();
    batch
}

fn number_of(frame: &Frame<'_>) -> u64 {
    let record = frame.records().next().unwrap().unwrap();
    u64::from_le_bytes(record.payload[..8].try_into().unwrap())
}

fn stream(number: u64) -> StreamId {
    StreamId::of("test", &number.to_string())
}

fn all(log: &Log) -> Vec<u64> {
    let mut frames = log.frames(0, Limit::Written).unwrap();
    let mut found = Vec::new();
    while let Some(frame) = frames.next().unwrap() {
        if frame.header().stream != StreamId::SYSTEM {
            found.push(number_of(&frame));
        }
    }
    found
}

/// Found by fuzzing the catalogue's stamp: who had read up to a `Seal` frame and went on from
/// there in another life was told that the log was damaged.
#[test]
fn whatever_frame_a_reader_stopped_at_it_goes_on_behind_it_in_every_life() {
    let mut home = Home::new();
    let mut positions = Vec::new();
    for life in 0..3 {
        let (log, _) = home.open();
        for number in 0..500 {
            let number = life * 500 + number;
            log.append(&mut event(number), stream(0), Seq::new(number + 1).unwrap()).unwrap();
        }
        let mut frames = log.frames(0, Limit::Written).unwrap();
        let (mut seals, mut next) = (0, 0);
        positions.clear();
        while let Some(frame) = frames.next().unwrap() {
            seals += u64::from(frame.header().kind == frame::FrameKind::Seal);
            if frame.header().stream != StreamId::SYSTEM {
                next = number_of(&frame) + 1;
            }
            positions.push((frames.position(), next));
        }
        assert!(seals > 0);
        log.close().unwrap();
        drop(log);
        let (log, _) = home.open();
        for (position, next) in &positions {
            let mut frames = log.frames(*position, Limit::Written).unwrap();
            let mut found = None;
            while let Some(frame) = frames.next().unwrap() {
                if frame.header().stream != StreamId::SYSTEM {
                    found = Some(number_of(&frame));
                    break;
                }
            }
            assert_eq!(found, (*next < (life + 1) * 500).then_some(*next), "from {position}");
        }
    }
}

#[test]
fn what_was_appended_is_read_in_order_over_many_segments_and_lives() {
    let mut home = Home::new();
    let mut expected = Vec::new();
    for life in 0..4 {
        let (log, report) = home.open();
        assert_eq!(report.start, if life == 0 { Start::Fresh } else { Start::Continued });
        for number in 0..2_000 {
            let number = life * 2_000 + number;
            let seq = Seq::new(number / 10 + 1).unwrap();
            log.append(&mut event(number), stream(number % 10), seq).unwrap();
            expected.push(number);
        }
        assert_eq!(all(&log), expected);
        assert!(log.stats().seals > 2);
        let totals = log.totals().unwrap();
        assert_eq!((totals.events, totals.streams), (expected.len() as u64, 10));
        for name in 0..10 {
            let mut seen = Vec::new();
            let end = log
                .stream(stream(name), Seq::ZERO, &mut |frame| {
                    seen.push(number_of(&frame));
                    ControlFlow::Continue(())
                })
                .unwrap();
            let expected: Vec<u64> = expected.iter().copied().filter(|n| n % 10 == name).collect();
            assert_eq!(seen, expected);
            assert_eq!(end.last.get(), expected.len() as u64);
        }
        log.close().unwrap();
        if life == 2 {
            // They only save time.
            for entry in home.disk.list(home.dir.path()).unwrap() {
                if entry.name.starts_with("ckpt-") {
                    home.disk.remove(&home.dir.path().join(entry.name)).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_stream_is_read_from_any_event_on() {
    let mut home = Home::new();
    let (log, _) = home.open();
    for number in 0..1_000 {
        log.append(&mut event(number), stream(number % 2), Seq::new(number / 2 + 1).unwrap())
            .unwrap();
    }
    for after in 0..=500 {
        let mut seen = Vec::new();
        log.stream(stream(1), Seq::new(after).unwrap(), &mut |frame| {
            seen.push(frame.header().seq.get());
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(seen, (after + 1..=500).collect::<Vec<_>>());
    }
}

#[test]
fn a_log_that_was_not_closed_is_recovered_with_everything_written() {
    let mut home = Home::new();
    for count in [0, 1, 7, 300, 1_500] {
        // No thread renames a file while it is copied.
        let (log, _) = home.open_with(LogOptions { threads: false, ..home.options() });
        let before = all(&log);
        for number in 0..count {
            log.append(&mut event(number), stream(number), Seq::new(1).unwrap()).unwrap();
        }
        // As after `kill -9`: no close, no drain, the files as the kernel has them.
        let copy = tempfile::tempdir().unwrap();
        let copied = std::process::Command::new("cp")
            .args(["-a"])
            .arg(home.dir.path().join("."))
            .arg(copy.path())
            .status()
            .unwrap();
        assert!(copied.success());
        let options = LogOptions {
            ring: Some(copy.path().join("ring")),
            mark: Some(copy.path().join("mark")),
            checkpoints: Some(copy.path().to_owned()),
            dir: copy.path().join("log"),
            ..home.options()
        };
        let life = Life { number: 99, bits: 99 };
        let opening = Opening::new(&home.disk, options, 42, 0).unwrap();
        let (copied, report) = opening.start(life).unwrap();
        assert_eq!(report.start, Start::Recovered);
        let expected: Vec<u64> = before.into_iter().chain(0..count).collect();
        assert_eq!(all(&copied), expected);
        assert_eq!(copied.lost().last(), Some(&report.lost));
        let lost = report.lost.start;
        assert!(matches!(
            copied.frames(lost + 16, Limit::Written),
            Err(ReadError::PositionLost { .. })
        ));
    }
}

/// The index of the segment that was written last is made while the open goes on, by several
/// threads if it is long.
#[test]
#[expect(clippy::disallowed_methods, reason = "it is the test that cuts")]
fn who_reads_first_after_a_crash_finds_what_is_below_the_cut_wherever_that_is() {
    const STREAMS: u64 = 30;
    let mut home = Home::new();
    // Nothing is durable, so any cut is one that a power loss may leave.
    let options = |home: &Home| LogOptions {
        segment_bytes_first: 8 << 20,
        segment_bytes_max: 8 << 20,
        flush_interval: Duration::from_hours(1),
        flush_bytes: 1 << 30,
        ..LogOptions::new(home.dir.path().join("log"))
    };
    let (log, _) = home.open_with(options(&home));
    for number in 0..45_000 {
        let first = Seq::new(number / STREAMS + 1).unwrap();
        log.append(&mut event(number), stream(number % STREAMS), first).unwrap();
    }
    log.store().unwrap();
    let mut ends = Vec::new();
    let mut frames = log.frames(0, Limit::Written).unwrap();
    while let Some(frame) = frames.next().unwrap() {
        if frame.stream() != StreamId::SYSTEM {
            ends.push(frame.end());
        }
    }
    let file = home.dir.path().join("log/00000000000000000000.seg");
    let whole = std::fs::read(&file).unwrap();
    let last = *ends.last().unwrap();
    assert!(last > 6 << 20, "several threads' work");
    let cuts = (1..=12).map(|part| last / 12 * part - part * 13).chain([1 << 20, last, last - 1]);
    for cut in cuts {
        let mut home = Home { life: 1, ..Home::new() };
        let dir = home.dir.path().join("log");
        std::fs::create_dir(&dir).unwrap();
        let mut bytes = whole.clone();
        bytes[usize::try_from(cut).unwrap()..].fill(0);
        std::fs::write(dir.join(file.file_name().unwrap()), bytes).unwrap();
        let (log, report) = home.open_with(options(&home));
        // A cut that took nothing but zeros is none.
        let is_whole = |end: &u64| {
            let end = usize::try_from(*end).unwrap();
            whole[..end].iter().skip(usize::try_from(cut).unwrap()).all(|byte| *byte == 0)
        };
        let kept = ends.partition_point(is_whole) as u64;
        assert_eq!(report.start, Start::Recovered);
        for number in 0..STREAMS {
            let mut found = Vec::new();
            log.stream(stream(number), Seq::ZERO, &mut |frame| {
                found.push(number_of(&frame));
                ControlFlow::Continue(())
            })
            .unwrap();
            let expected: Vec<u64> = (number..kept).step_by(30).collect();
            assert_eq!(found, expected, "stream {number}, cut at {cut}");
        }
    }
}

#[test]
fn a_tail_catches_up_and_goes_on_live_without_gap_or_duplicate() {
    let mut home = Home::new();
    let (log, _) = home.open();
    let log = Arc::new(log);
    let follow = Arc::clone(&log);
    for number in 0..500 {
        log.append(&mut event(number), stream(number), Seq::new(1).unwrap()).unwrap();
    }
    let follower = std::thread::spawn(move || {
        let mut tail = follow.tail(0, Limit::Written).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 2_000 {
            let frame = tail.next(Duration::from_secs(10)).unwrap().expect("a frame in time");
            if frame.header().stream != StreamId::SYSTEM {
                seen.push(number_of(&frame));
            }
        }
        seen
    });
    for number in 500..2_000 {
        log.append(&mut event(number), stream(number), Seq::new(1).unwrap()).unwrap();
    }
    assert_eq!(follower.join().unwrap(), (0..2_000).collect::<Vec<_>>());
}

#[test]
fn threads_that_wait_for_the_disk_all_get_what_they_waited_for() {
    let mut home = Home::new();
    let (log, _) = home.open();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let log = &log;
            scope.spawn(move || {
                for number in 0..50 {
                    let appended = log
                        .append(&mut event(number), stream(thread), Seq::new(number + 1).unwrap())
                        .unwrap();
                    log.wait_durable(appended.end, None).unwrap();
                    assert!(log.durable() >= appended.end.get());
                }
            });
        }
    });
    let commits = log.stats().commits;
    assert!(commits <= 400, "{commits} commits for 400 frames");
}

#[test]
fn a_conflict_names_where_the_stream_is() {
    let mut home = Home::new();
    let (log, _) = home.open();
    log.append_expecting(&mut event(1), stream(1), Seq::ZERO).unwrap();
    let error = log.append_expecting(&mut event(2), stream(1), Seq::ZERO).unwrap_err();
    assert!(matches!(error, AppendError::Conflict { actual, .. } if actual.get() == 1), "{error}");
    log.append_expecting(&mut event(2), stream(1), Seq::new(1).unwrap()).unwrap();
}

#[test]
fn a_frame_over_the_limit_is_refused_and_the_log_goes_on() {
    let mut home = Home::new();
    let (log, _) = home.open();
    let mut large = Batch::new();
    large.push(RecordKind::Event, 1, &[0; 9 << 10]).unwrap();
    let error = log.append(&mut large, stream(1), Seq::new(1).unwrap()).unwrap_err();
    assert!(matches!(error, AppendError::GroupTooLarge { .. }));
    log.append(&mut event(1), stream(1), Seq::new(1).unwrap()).unwrap();
    assert_eq!(all(&log), [1]);
}

#[test]
fn without_background_threads_those_who_wait_commit_for_each_other() {
    let mut home = Home::new();
    let (log, _) = home.open_with(LogOptions { threads: false, ..home.options() });
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let log = &log;
            scope.spawn(move || {
                for number in 0..50 {
                    let seq = Seq::new(number + 1).unwrap();
                    let appended = log.append(&mut event(number), stream(thread), seq).unwrap();
                    log.wait_durable(appended.end, Some(Duration::from_secs(20))).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_wait_is_over_when_its_time_is_and_the_commit_may_still_happen() {
    let mut home = Home::new();
    let (log, _) = home.open();
    let appended = log.append(&mut event(1), stream(1), Seq::new(1).unwrap()).unwrap();
    let waited = log.wait_durable(appended.end, Some(Duration::ZERO));
    assert!(matches!(waited, Err(SyncError::Timeout)));
    log.sync().unwrap();
    assert!(log.durable() >= appended.end.get());
}

#[test]
fn a_future_is_woken_when_its_mark_is_durable() {
    let mut home = Home::new();
    let (log, _) = home.open();
    for number in 0..20 {
        let seq = Seq::new(number + 1).unwrap();
        let appended = log.append(&mut event(number), stream(1), seq).unwrap();
        let (sender, woken) = crossbeam_channel::bounded(4);
        log.wake_when_durable(appended.end, &Arc::new(Woken(sender)).into());
        woken.recv_timeout(Duration::from_secs(20)).expect("woken in time");
        assert!(log.durable() >= appended.end.get());
    }
}

#[test]
fn a_waker_that_panics_does_not_end_the_thread_that_commits() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker of somebody's own");
        }
    }
    let mut home = Home::new();
    let (log, _) = home.open();
    let append = |number| {
        let seq = Seq::new(number).unwrap();
        log.append(&mut event(number), stream(1), seq).unwrap().end
    };
    let mark = append(1);
    let waker = Arc::new(Panics).into();
    log.shared.commits.register(mark.get(), &waker);
    log.shared.commits.request();
    log.wait_durable(mark, Some(Duration::from_secs(20))).unwrap();
    // The committer still serves those who do not commit themselves.
    let (sender, woken) = crossbeam_channel::bounded(1);
    log.wake_when_durable(append(2), &Arc::new(Woken(sender)).into());
    woken.recv_timeout(Duration::from_secs(20)).expect("woken in time");
}
