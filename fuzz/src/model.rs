//! Open, work, fail, end, open again: against a plain model.
//!
//! The input is a program: which calls are made on a store's two logs, which calls of the disk
//! fail and how, when the process dies or the power goes. The oracle of `tests/it` stands beside
//! it and knows only what the calls answered. **What was promised is there after each open, and
//! nothing else; no state that a crash can leave is refused; no error comes without a cause.**

use std::ops::ControlFlow;
use std::time::Duration;

use annals::disk::sim::{Failure, Fault, Op, Random, SimDisk};
use annals::error::{AppendError, DiskError, OpenError, ReadError, SyncError};
use annals::log::frame::{Batch, RecordKind};
use annals::log::{Limit, Log, LogOptions};
use annals::types::{Lsn, Seq, StreamId};

use crate::damage::Input;
use crate::support::{End, Entry, STREAMS, Track, disk, life, payload, read_until, stream, tiny};

/// Calls of one input. Reads compare everything, so that work grows with the square.
const STEPS_MAX: usize = 200;
const LIVES_MAX: u64 = 8;

/// One input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut world = World::new(&mut input);
    world.open(&mut input);
    for _ in 0..STEPS_MAX {
        let Some(what) = input.byte() else { break };
        if world.lives > LIVES_MAX {
            break;
        }
        world.step(what, &mut input);
    }
    // Whatever there was: a clean life at the end finds what it should, and works.
    world.end(&mut input);
    world.open(&mut Input(&[]));
    for track in [0, 1] {
        let disk = world.disk.clone();
        world.tracks[track].append(&disk, 0, 100).expect("a disk that works");
        world.tracks[track].sync(&disk).expect("a disk that works");
        world.check_live(track);
        world.tracks[track].close(&disk).expect("a disk that works");
    }
}

/// A store's two logs on one disk.
struct World {
    disk: SimDisk,
    /// The events, and the snapshots, which have no ring file.
    tracks: [Track; 2],
    lives: u64,
    /// Something was told to fail in this life: errors have a cause.
    excused: bool,
    /// A sync was told to fail, and caches may show what is not on the disk.
    unsure: bool,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let seed = u64::from(input.byte().unwrap_or(0));
        let tracks = [true, false].map(|ring| {
            let shape = input.below(16);
            let pick = |bit: usize, small: usize, large: usize| {
                if shape >> bit & 1 == 0 { small } else { large }
            };
            Track::new(
                LogOptions {
                    ring_bytes: pick(0, 16 << 10, 32 << 10),
                    segment_bytes_first: pick(1, 8 << 10, 16 << 10) as u64,
                    segment_bytes_max: pick(2, 16 << 10, 32 << 10) as u64,
                    frame_bytes_max: pick(3, 4 << 10, 1 << 10),
                    ..tiny(ring)
                },
                if ring { 42 } else { 43 },
            )
        });
        Self { disk: disk(seed), tracks, lives: 0, excused: false, unsure: false }
    }

    /// Opens both logs, perhaps crashing or failing on the way and trying again; at last nothing
    /// is in the way.
    fn open(&mut self, input: &mut Input<'_>) {
        for attempt in 0.. {
            self.lives += 1;
            (self.excused, self.unsure) = (false, false);
            if attempt < 3 {
                match input.below(8) {
                    1 => self.crash(input),
                    2 => self.fail(input),
                    _ => {}
                }
            }
            if self.open_once() {
                return;
            }
            assert!(attempt < 4, "refused although nothing failed");
            self.end(input);
        }
    }

    fn open_once(&mut self) -> bool {
        for track in 0..2 {
            match self.tracks[track].open(&self.disk, life(self.lives)) {
                Ok(report) if !self.disk.has_crashed() => {
                    assert_eq!(report.damage, None, "no crash makes damage");
                }
                Err(OpenError::Disk(_)) if self.excused => return false,
                answer => {
                    assert!(self.disk.has_crashed(), "an open answers {answer:?}");
                    return false;
                }
            }
            // What was ordered to fail later must not stand in the way of the comparison.
            let disk = self.disk.clone();
            if !self.excused {
                let compared = self.tracks[track].compare();
                compared.unwrap_or_else(|broken| panic!("{broken}"));
            } else if !disk.has_crashed() {
                self.compare_with_faults(track);
            }
            if self.disk.has_crashed() {
                return false;
            }
        }
        true
    }

    /// The recovered log is compared in a copy of the disk, on which nothing fails, as the next
    /// life would find it; this one then knows no more than before.
    fn compare_with_faults(&mut self, track: usize) {
        let disk = self.disk.fork().kill();
        let mut copy = self.tracks[track].clone();
        copy.ended(End::Kill);
        copy.reopen(&disk, life(self.lives + 1_000));
        // Opened: what is there is on the disk, and what is not is lost.
        let left = copy.oracle.entries.len();
        assert!(left >= self.tracks[track].oracle.process, "less than was promised");
        self.tracks[track].oracle = copy.oracle;
    }

    /// One call of the program.
    fn step(&mut self, what: u8, input: &mut Input<'_>) {
        let track = usize::from(what >> 7);
        match what % 24 {
            0..6 => self.append(track, input),
            6 => self.append_expecting(track, input),
            7 => self.wait(track, input),
            8 => {
                let disk = self.disk.clone();
                let done = self.tracks[track].sync(&disk);
                self.synced(track, done);
            }
            9 => {
                let disk = self.disk.clone();
                let done = self.tracks[track].store(&disk);
                self.read(done);
            }
            10 => {
                let log = self.log(track);
                log.prepare_ahead();
                log.keep();
            }
            11 => self.check_live(track),
            12 => self.tail(track, input),
            13 => self.stream(track, input),
            14 => self.frames(track, input),
            15 => {
                let totals = self.log(track).totals();
                if let Some(totals) = self.read(totals) {
                    let entries = self.tracks[track].oracle.entries.len() as u64;
                    let poisoned = self.log(track).poisoned().is_some();
                    assert!(totals.events == entries || poisoned || self.disk.has_crashed());
                }
            }
            16 => self.crash(input),
            17 => self.fail(input),
            18 => self.disk.clear_faults(),
            19 => {
                let room = input.byte().unwrap_or(0);
                // Not in a life that is over, as far as the disk goes.
                let room = (room != 0).then(|| self.disk.used() + (u64::from(room) << 9));
                self.disk.set_capacity(room);
                self.excused = true;
            }
            20 => self.close(input),
            _ => {
                self.end(input);
                self.open(input);
            }
        }
    }

    fn log(&self, track: usize) -> &Log {
        self.tracks[track].log.as_ref().expect("open between steps")
    }

    fn crash(&mut self, input: &mut Input<'_>) {
        self.disk.crash_at(u64::from(input.byte().unwrap_or(0)));
        self.excused = true;
    }

    fn fail(&mut self, input: &mut Input<'_>) {
        let shape = input.byte().unwrap_or(0);
        let failure = [Failure::Io, Failure::NoSpace, Failure::Interrupted, Failure::Short];
        let op = Op::ALL[input.below(Op::ALL.len())];
        let fault = Fault::new(failure[usize::from(shape % 4)])
            .on(op)
            .after(u64::from(input.byte().unwrap_or(0) % 32));
        let for_ever = shape & 4 != 0;
        let named = [".seg", "ring", "mark", ".idx", "ckpt", "log", "snapshots", ""];
        let fault = fault.at_path(named[usize::from(shape >> 4 & 7)]);
        // An interruption that never ends is waited for, and that would be for ever.
        let for_ever = for_ever && failure[usize::from(shape % 4)] != Failure::Interrupted;
        self.disk.fail(if for_ever { fault.for_ever() } else { fault });
        self.excused = true;
        self.unsure |= op == Op::SyncData;
    }

    fn append(&mut self, track: usize, input: &mut Input<'_>) {
        let number = input.below(usize::try_from(STREAMS).expect("small")) as u64;
        let max = self.tracks[track].options.frame_bytes_max;
        let size = usize::from(input.byte().unwrap_or(0));
        // Small ones mostly; the largest fit exactly, or are too large by a little.
        let bytes = if size < 192 { size * 4 } else { max - 48 - 64 + (size - 192) * 2 };
        let poisoned = self.log(track).poisoned().is_some();
        let written = self.log(track).written();
        let disk = self.disk.clone();
        let answer = self.tracks[track].append(&disk, number, bytes);
        assert!(
            !poisoned
                || matches!(
                    answer,
                    Err(AppendError::Poisoned(_) | AppendError::GroupTooLarge { .. })
                ),
            "a poisoned log answers {answer:?}"
        );
        match answer {
            Ok(_) => {}
            Err(AppendError::GroupTooLarge { bytes, max: limit }) => {
                assert!(bytes > limit && limit == max, "{bytes} of {max}");
                assert_eq!(self.log(track).written(), written);
            }
            Err(AppendError::DiskFull(error)) => {
                assert!(self.excused && error.is_full(), "{error}");
                assert_eq!(self.log(track).written(), written, "no position was given out");
            }
            Err(AppendError::Poisoned(error) | AppendError::Disk(error)) => self.excuse(&error),
            Err(other) => panic!("an append answers {other:?}"),
        }
        if track == 1 {
            // As the snapshot store does: what is stored survives the process.
            let done = self.tracks[track].store(&disk);
            self.read(done);
        }
    }

    fn excuse(&self, error: &DiskError) {
        assert!(self.excused || self.disk.has_crashed(), "{error}, and nothing was to fail");
    }

    /// What reading answered; `None` where it could not be had, for a reason.
    fn read<T>(&self, answer: Result<T, ReadError>) -> Option<T> {
        match answer {
            Ok(read) => Some(read),
            Err(ReadError::Disk(error)) => {
                self.excuse(&error);
                None
            }
            Err(other) => {
                // After its life a log's own memory may disagree with the files.
                assert!(self.disk.has_crashed(), "a read answers {other}");
                None
            }
        }
    }

    fn synced(&self, track: usize, answer: Result<(), SyncError>) {
        match answer {
            Ok(()) => {}
            Err(SyncError::InDoubt { cause, .. }) => {
                self.excuse(&cause);
                assert!(self.tracks[track].log.as_ref().is_none_or(|it| it.poisoned().is_some()));
            }
            Err(other) => panic!("a sync answers {other:?}"),
        }
    }

    /// With the number that the stream is at it appends, with another it does not.
    fn append_expecting(&mut self, track: usize, input: &mut Input<'_>) {
        let number = input.below(usize::try_from(STREAMS).expect("small")) as u64;
        let entries = self.tracks[track].oracle.entries.iter();
        let actual = entries.filter(|entry| entry.stream == number).count() as u64;
        let wrong = actual + 1 + input.below(3) as u64;
        let mut batch = Batch::new();
        batch.push(RecordKind::Event, 1, b"never").expect("small");
        let expected = Seq::new(wrong).expect("small");
        match self.log(track).append_expecting(&mut batch, stream(number), expected) {
            Err(AppendError::Conflict { actual: found, .. }) => {
                let poisoned = self.log(track).poisoned().is_some();
                assert!(found.get() == actual || poisoned || self.disk.has_crashed());
            }
            Err(AppendError::Read(error)) => drop(self.read::<()>(Err(error))),
            other => assert!(self.disk.has_crashed(), "{other:?}, at {actual} of {wrong}"),
        }
    }

    fn wait(&mut self, track: usize, input: &mut Input<'_>) {
        let entries = self.tracks[track].oracle.entries.len();
        let Some(number) = entries.checked_sub(1 + input.below(8)) else { return };
        let end = self.tracks[track].oracle.entries[number].end;
        let (poisoned, durable) = (self.log(track).poisoned().is_some(), self.log(track).durable());
        let disk = self.disk.clone();
        let answer = self.tracks[track].wait(&disk, number);
        assert!(!poisoned || durable >= end || answer.is_err(), "promised by a poisoned log");
        assert!(answer.is_ok() || self.log(track).durable() == durable, "a failed sync counts");
        self.synced(track, answer);
    }

    /// What this life sees is what was appended; of a poisoned log, what is durable.
    fn check_live(&self, track: usize) {
        if self.disk.has_crashed() {
            return;
        }
        let log = self.log(track);
        let (found, error) = read_until(log);
        self.check_seen(track, &found, error.is_some());
        if let Some(error) = error {
            self.read::<()>(Err(error));
        }
    }

    /// `found` is the log's beginning: all of it where it is sound, and it was not `cut` short.
    fn check_seen(&self, track: usize, found: &[Entry], cut: bool) {
        let log = self.log(track);
        let entries = &self.tracks[track].oracle.entries;
        assert!(entries.starts_with(found), "{found:?} of {entries:?}");
        let poisoned = log.poisoned().is_some();
        let due = if poisoned {
            entries.iter().filter(|entry| entry.end <= log.durable()).count()
        } else {
            entries.len()
        };
        assert!(cut || found.len() == due, "{} of {due} entries", found.len());
    }

    /// Follows the log from its beginning, or from a frame, to its end.
    fn tail(&self, track: usize, input: &mut Input<'_>) {
        let entries = &self.tracks[track].oracle.entries;
        let skip = input.below(entries.len() + 1);
        let from = entries.get(skip).map_or(0, |entry| entry.lsn);
        if self.disk.has_crashed() || self.log(track).poisoned().is_some() {
            return;
        }
        let Some(mut tail) = self.read(self.log(track).tail(from, Limit::Written)) else { return };
        let expected = if from == 0 { &entries[..] } else { &entries[skip..] };
        let mut expected = expected.iter();
        loop {
            match tail.next(Duration::ZERO) {
                Ok(Some(frame)) if frame.header().stream == StreamId::SYSTEM => {}
                Ok(Some(frame)) => {
                    let next = expected.next().map(|entry| entry.lsn);
                    assert_eq!(Some(frame.lsn().get()), next, "the tail from {from}");
                }
                Ok(None) => {
                    assert_eq!(expected.next(), None, "the tail from {from} ends");
                    return;
                }
                Err(error) => {
                    self.read::<()>(Err(error));
                    return;
                }
            }
        }
    }

    /// Reads a part of one stream.
    fn stream(&self, track: usize, input: &mut Input<'_>) {
        let number = input.below(usize::try_from(STREAMS).expect("small")) as u64;
        let entries = self.tracks[track].oracle.entries.iter();
        let of_stream: Vec<&Entry> = entries.filter(|entry| entry.stream == number).collect();
        let after = input.below(of_stream.len() + 2);
        if self.disk.has_crashed() || self.log(track).poisoned().is_some() {
            return;
        }
        let mut expected = of_stream.iter().skip(after);
        let after = Seq::new(after as u64).expect("small");
        let read = self.log(track).stream(stream(number), after, &mut |frame| {
            let entry = expected.next().expect("no more frames than appended");
            assert_eq!((frame.lsn().get(), frame.header().seq.get()), (entry.lsn, entry.seq));
            let record = frame.records().next().expect("a record").expect("a sound record");
            assert!(record.payload == payload(entry.number, entry.bytes), "another content");
            ControlFlow::Continue(())
        });
        if let Some(end) = self.read(read) {
            assert_eq!(end.last.get(), of_stream.len() as u64);
            assert_eq!(expected.next(), None, "stream {number} ends");
        }
    }

    /// Begins to read at any position: at a frame that is there, or with a refusal.
    fn frames(&self, track: usize, input: &mut Input<'_>) {
        let entries = &self.tracks[track].oracle.entries;
        let from = u64::from(input.word()) * 16;
        let Some(lsn) = Lsn::new(from) else { return };
        if self.disk.has_crashed() {
            return;
        }
        let held = self.log(track).holds(lsn);
        let known = entries.iter().any(|entry| entry.lsn == from);
        assert!(held || !known, "{from} is not held");
        match self.log(track).frames(from, Limit::Written) {
            Err(ReadError::PositionLost { .. }) => assert!(!known, "{from} is there"),
            Err(error) => drop(self.read::<()>(Err(error))),
            // In the middle of a frame nothing validates; never is something else handed out.
            Ok(mut frames) => {
                if let Ok(Some(frame)) = frames.next() {
                    let lsn = frame.lsn().get();
                    let system = frame.header().stream == StreamId::SYSTEM;
                    assert!(system || entries.iter().any(|entry| entry.lsn == lsn), "{lsn}");
                }
            }
        }
    }

    /// Closes the logs; then the life ends, or the same process opens them again.
    fn close(&mut self, input: &mut Input<'_>) {
        let disk = self.disk.clone();
        for track in 0..2 {
            let poisoned = self.log(track).poisoned().is_some();
            let settled = self.tracks[track].oracle.entries.iter().map(|it| it.end).max();
            let settled = settled.is_none_or(|end| end <= self.log(track).durable());
            let answer = self.tracks[track].close(&disk);
            assert!(!poisoned || settled || answer.is_err(), "closed in spite of poison");
            self.synced(track, answer);
        }
        if input.below(2) == 1 && !self.excused {
            self.lives += 1;
            assert!(self.open_once(), "a log that was closed");
        } else {
            self.end(input);
            self.open(input);
        }
    }

    /// The life is over, in one way or the other.
    fn end(&mut self, input: &mut Input<'_>) {
        self.disk.clear_faults();
        if !self.disk.has_crashed() {
            self.disk.set_capacity(None);
        }
        let (next, end) = match input.below(6) {
            0 | 1 => (self.disk.kill(), End::Kill),
            2 if self.disk.has_crashed() => (self.disk.kill(), End::Kill),
            // The caches forget: after a sync that failed, this shows what they had hidden.
            2 => {
                let forgetful = self.disk.fork();
                // As the process' end does: nothing of it reaches the disk any more.
                drop(self.disk.kill());
                forgetful.drop_caches();
                (forgetful.kill(), if self.unsure { End::PowerCut } else { End::Kill })
            }
            3 => (self.disk.power_cut_losing_all(), End::PowerCut),
            _ => {
                let seed = Random::new(u64::from(input.word())).bits();
                (self.disk.power_cut(seed), End::PowerCut)
            }
        };
        for track in &mut self.tracks {
            track.ended(end);
        }
        self.disk = next;
        self.disk.set_capacity(None);
    }
}
