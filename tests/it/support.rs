//! The oracle: what was appended, what was promised about it, and what is found of it.
//!
//! It stands outside of the log: it knows what the calls answered and nothing else. A [`Track`]
//! is one log with its oracle over all its lives.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::OnceLock;

use annals::disk::Disk as _;
use annals::disk::sim::{Random, SimDisk};
use annals::error::{AppendError, OpenError, ReadError, SyncError};
use annals::log::frame::{Batch, Frame, RecordKind};
use annals::log::{
    Compacted, Evidence, Keep, Limit, Log, LogOptions, Opening, Plan, RecoveryReport, Start,
};
use annals::time::{Clock, ManualClock};
use annals::types::{HybridTime, Life, Lsn, Seq, StreamId};

/// Streams that a log is filled with.
pub(crate) const STREAMS: u64 = 4;

/// Prints how to replay when the test fails under it.
#[derive(Debug)]
pub(crate) struct Replay(pub u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with ANNALS_SEED={}", self.0);
        }
    }
}

/// The seeds to try: the one that is asked for, or as many as [`scaled`] says.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    match number("ANNALS_SEED") {
        Some(seed) => vec![seed],
        None => (0..scaled(count)).collect(),
    }
}

/// Crash states that a whole run aims at, unless `ANNALS_STATES` says another number.
const STATES: u64 = 100_000;

/// `count` in a run of 100,000 crash states; more or fewer in a longer or shorter one.
pub(crate) fn scaled(count: u64) -> u64 {
    (count * number("ANNALS_STATES").unwrap_or(STATES) / STATES).max(1)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// A log of tiny files, so that little work crosses many borders.
pub(crate) fn tiny(ring: bool) -> LogOptions {
    LogOptions {
        ring: ring.then(|| "/store/ring".into()),
        mark: ring.then(|| "/store/mark".into()),
        checkpoints: ring.then(|| "/store".into()),
        ring_bytes: 16 << 10,
        segment_bytes_first: 8 << 10,
        segment_bytes_max: 16 << 10,
        frame_bytes_max: 4 << 10,
        threads: false,
        rebuildable: !ring,
        clock: Clock::Manual(ManualClock::at_millis(1_000_000)),
        ..LogOptions::new(if ring { "/store/log" } else { "/store/snapshots" })
    }
}

pub(crate) fn stream(number: u64) -> StreamId {
    static KNOWN: OnceLock<Vec<StreamId>> = OnceLock::new();
    let of = |number: u64| StreamId::of("test", &number.to_string());
    let known = KNOWN.get_or_init(|| (0..STREAMS).map(of).collect());
    usize::try_from(number).ok().and_then(|at| known.get(at).copied()).unwrap_or_else(|| of(number))
}

/// A disk with the store's folder on it.
pub(crate) fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    // Who looks at the calls says so.
    disk.record(false);
    disk.create_dir("/store".as_ref()).unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    disk
}

/// What a frame held.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub lsn: u64,
    pub end: u64,
    pub stream: u64,
    pub seq: u64,
    /// Names the content; no two frames have the same.
    pub number: u64,
    pub bytes: usize,
}

/// The payload that `number` stands for.
pub(crate) fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = vec![0; bytes.max(8)];
    for (word, target) in words(number).zip(payload.chunks_mut(8)) {
        target.copy_from_slice(&word.to_le_bytes()[..target.len()]);
    }
    payload
}

/// Is it the payload that `number` stands for?
fn is_payload(number: u64, bytes: &[u8]) -> bool {
    let same = |(word, bytes): (u64, &[u8])| bytes == &word.to_le_bytes()[..bytes.len()];
    words(number).zip(bytes.chunks(8)).all(same)
}

fn words(number: u64) -> impl Iterator<Item = u64> {
    let mut random = Random::new(number);
    std::iter::once(number).chain(std::iter::repeat_with(move || random.bits()))
}

/// How a life ended, as far as promises go.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Kill,
    PowerCut,
}

/// What was appended to one log, and what was promised.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    /// All frames that are there, as far as anybody knows, in order.
    pub entries: Vec<Entry>,
    /// So many of them survive the process.
    pub process: usize,
    /// So many of them survive power loss.
    pub power: usize,
    /// So many of the last entries may be there, and their positions were given to nobody yet.
    pub in_flight: usize,
    /// Every position that was ever given out, and to what.
    issued: BTreeMap<u64, u64>,
    /// Positions that were reported lost.
    lost: Vec<Entry>,
    /// What a compaction was allowed to drop: each may be there or not.
    may_go: BTreeSet<u64>,
    /// What was found to be dropped.
    pub dropped: Vec<Entry>,
    numbers: u64,
}

impl Oracle {
    fn appended(&mut self, entry: Entry) {
        let last = self.issued.last_key_value().map_or(0, |(lsn, _)| *lsn);
        assert!(entry.lsn > last, "{entry:?} is not above {last}, which was given out before");
        let end = self.entries.last().map_or(0, |before| before.end);
        assert!(entry.lsn >= end, "{entry:?} overlaps the frame before, which ends at {end}");
        self.issued.insert(entry.lsn, entry.number);
        self.entries.push(entry);
    }

    /// The life is over. Of several ends without an open that succeeded the worst counts: what
    /// survives the process is then what must be found.
    pub(crate) fn ended(&mut self, end: End) {
        match end {
            End::Kill => {}
            End::PowerCut => self.process = self.power,
        }
    }

    /// What is not in `found`, and was allowed to go, has gone.
    fn drop_missing(&mut self, found: &[Entry]) {
        let there: BTreeSet<u64> = found.iter().map(|entry| entry.lsn).collect();
        let gone = |entry: &Entry| self.may_go.contains(&entry.lsn) && !there.contains(&entry.lsn);
        let (gone, kept): (Vec<Entry>, Vec<Entry>) = self.entries.iter().partition(|it| gone(it));
        // Nothing goes that is not durable.
        for promised in [&mut self.process, &mut self.power] {
            let below = self.entries.get(..*promised).unwrap_or(&self.entries);
            *promised -= below.iter().filter(|entry| gone.contains(entry)).count();
        }
        self.entries = kept;
        self.dropped.extend(gone);
        // It does not come back.
        self.may_go.clear();
    }

    /// `found` is what is there after an open: is it what was promised?
    pub(crate) fn check(&self, found: &[Entry]) -> Result<(), String> {
        for (place, (found, appended)) in found.iter().zip(&self.entries).enumerate() {
            if found != appended {
                return Err(format!("frame {place} is {found:?}, was {appended:?}"));
            }
        }
        if found.len() > self.entries.len() {
            return Err(format!("a phantom: {:?}", found[self.entries.len()]));
        }
        if found.len() < self.process {
            let (count, promised) = (found.len(), self.process);
            return Err(format!("{count} of {promised} frames: no {:?}", self.entries[count]));
        }
        Ok(())
    }

    /// And it stays.
    fn recovered(&mut self, found: &[Entry]) -> Result<(), String> {
        self.drop_missing(found);
        self.check(found)?;
        self.lost.extend(self.entries.drain(found.len()..));
        self.process = found.len();
        self.power = found.len();
        Ok(())
    }

    /// An oracle that knows what was found, and what was not of that which had been appended.
    /// What it appends has numbers of its own.
    pub(crate) fn after(&self, found: &[Entry]) -> Self {
        let given = self.entries.len() - self.in_flight;
        let lost = self.entries.get(found.len()..given).unwrap_or_default().to_vec();
        Self { entries: found.to_vec(), lost, numbers: 1 << 32, ..Self::default() }
    }

    fn next_seq(&self, stream: u64) -> u64 {
        self.last_seq(stream) + 1
    }

    /// The last event of a stream, dropped or not.
    pub(crate) fn last_seq(&self, stream: u64) -> u64 {
        let all = self.entries.iter().chain(&self.dropped);
        all.filter(|entry| entry.stream == stream).map(|entry| entry.seq).max().unwrap_or(0)
    }
}

/// One log over its lives, and its oracle.
#[derive(Debug)]
pub(crate) struct Track {
    pub options: LogOptions,
    pub id: u64,
    pub oracle: Oracle,
    pub log: Option<Log>,
    /// As the identity file keeps it.
    evidence: Evidence,
    /// The newest life, and the machine's boot when it began.
    begun: Option<(Life, u64)>,
}

impl Clone for Track {
    /// Without the open log.
    fn clone(&self) -> Self {
        Self {
            options: self.options.clone(),
            id: self.id,
            oracle: self.oracle.clone(),
            log: None,
            evidence: self.evidence,
            begun: self.begun,
        }
    }
}

impl Track {
    pub(crate) fn new(options: LogOptions, id: u64) -> Self {
        Self {
            options,
            id,
            oracle: Oracle::default(),
            log: None,
            evidence: Evidence::default(),
            begun: None,
        }
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("the log is open")
    }

    /// Opens the log. A crash on the way answers an error; damage is nothing that a crash makes.
    pub(crate) fn open(&mut self, disk: &SimDisk, life: Life) -> Result<RecoveryReport, OpenError> {
        let handle = disk.handle();
        let boot = disk.boot();
        self.evidence.killed = self.begun.filter(|(_, then)| *then == boot).map(|(life, _)| life);
        let opening = Opening::new(&handle, self.options.clone(), self.id, self.evidence)?;
        if !disk.has_crashed() {
            self.evidence.durable = opening.report().end;
            self.begun = Some((life, boot));
        }
        let (log, report) = opening.start(life)?;
        self.log = Some(log);
        Ok(report)
    }

    /// Opens the log after a crash, and compares what is there with what was promised.
    pub(crate) fn reopen(&mut self, disk: &SimDisk, life: Life) -> RecoveryReport {
        let report = self.open(disk, life).unwrap_or_else(|error| panic!("refused: {error}"));
        self.check_recovered(&report);
        report
    }

    pub(crate) fn check_recovered(&mut self, report: &RecoveryReport) {
        assert_eq!(report.damage, None, "no crash makes damage");
        assert!(report.start != Start::SetAside);
        self.compare().unwrap_or_else(|broken| panic!("{broken}\n{report:?}"));
    }

    /// What is there against what was promised; `Err` says which promise is broken.
    pub(crate) fn compare(&mut self) -> Result<(), String> {
        let found = read_all(self.log()).map_err(|error| error.to_string())?;
        self.oracle.recovered(&found)?;
        self.check_found();
        Ok(())
    }

    /// Streams, lost positions and counts are those of the entries.
    pub(crate) fn check_found(&self) {
        self.check_streams();
        self.check_lost();
        self.check_totals();
    }

    /// Counted by checkpoints, or by reading: the same.
    fn check_totals(&self) {
        let totals = self.log().totals().unwrap();
        let entries = &self.oracle.entries;
        let events = entries.len() + self.oracle.dropped.len();
        assert_eq!(totals.events, events as u64, "events, by {totals:?}");
        let begun = entries.iter().filter(|entry| entry.seq == 1).count();
        assert_eq!(totals.streams, begun as u64, "streams, by {totals:?}");
    }

    /// Everything that was appended is read, in the middle of a life.
    pub(crate) fn check_live(&self) -> Result<(), ReadError> {
        let found = read_all(self.log())?;
        assert_eq!(found, self.oracle.entries, "read back at once");
        self.check_streams();
        Ok(())
    }

    fn check_streams(&self) {
        for number in 0..STREAMS {
            let expected: Vec<Entry> =
                self.oracle.entries.iter().filter(|it| it.stream == number).copied().collect();
            let found = read_stream(self.log(), number).unwrap();
            assert_eq!(found, expected, "stream {number}");
            let last = self.log().last_seq(stream(number)).unwrap();
            assert_eq!(last.get(), self.oracle.last_seq(number), "the end of stream {number}");
        }
    }

    /// What was lost is lost, and says so.
    fn check_lost(&self) {
        let log = self.log();
        for entry in self.oracle.lost.iter().rev().take(50) {
            let lsn = Lsn::new(entry.lsn).unwrap();
            assert!(!log.holds(lsn), "{entry:?} was lost, and is held");
            match log.frames(entry.lsn, Limit::Written) {
                Err(ReadError::PositionLost { .. }) => {}
                // As a mark it may stand at the end of what was kept: reading goes on behind.
                Ok(mut frames) => {
                    let next = frames.next().unwrap().map(|frame| frame.lsn().get());
                    assert_ne!(next, Some(entry.lsn), "{entry:?} is back");
                }
                Err(error) => panic!("{entry:?}: {error}"),
            }
        }
        for entry in self.oracle.entries.iter().chain(&self.oracle.dropped) {
            assert!(log.holds(Lsn::new(entry.lsn).unwrap()), "{entry:?} is not held");
        }
    }

    /// Appends a frame. Nothing that happens after the crash of a life counts.
    pub(crate) fn append(
        &mut self,
        disk: &SimDisk,
        stream_number: u64,
        bytes: usize,
    ) -> Result<Entry, AppendError> {
        self.oracle.numbers += 1;
        let number = self.oracle.numbers << 8 | self.id & 0xff;
        let seq = self.oracle.next_seq(stream_number);
        let payload = payload(number, bytes);
        let mut batch = Batch::new();
        batch.push(RecordKind::Event, 1, &payload).unwrap();
        let first = Seq::new(seq).unwrap();
        let appended = self.log().append(&mut batch, stream(stream_number), first)?;
        let entry = Entry {
            lsn: appended.lsn.get(),
            end: appended.end.get(),
            stream: stream_number,
            seq,
            number,
            bytes: payload.len(),
        };
        if !disk.has_crashed() {
            self.oracle.appended(entry);
            if self.options.ring.is_some() {
                self.oracle.process = self.oracle.entries.len();
            }
        }
        Ok(entry)
    }

    /// Stores what is written: without a ring it survives the process from here on.
    pub(crate) fn store(&mut self, disk: &SimDisk) -> Result<(), ReadError> {
        self.log().store()?;
        if !disk.has_crashed() {
            self.oracle.process = self.oracle.entries.len();
        }
        Ok(())
    }

    /// Waits for the `number`-th frame.
    pub(crate) fn wait(&mut self, disk: &SimDisk, number: usize) -> Result<(), SyncError> {
        let Some(entry) = self.oracle.entries.get(number) else { return Ok(()) };
        self.log().wait_durable(Lsn::new(entry.end).unwrap(), None)?;
        if !disk.has_crashed() {
            self.oracle.power = self.oracle.power.max(number + 1);
            self.oracle.process = self.oracle.process.max(number + 1);
        }
        Ok(())
    }

    pub(crate) fn wait_last(&mut self, disk: &SimDisk) -> Result<(), SyncError> {
        match self.oracle.entries.len().checked_sub(1) {
            Some(last) => self.wait(disk, last),
            None => Ok(()),
        }
    }

    pub(crate) fn sync(&mut self, disk: &SimDisk) -> Result<(), SyncError> {
        self.log().sync()?;
        self.promised_all(disk);
        Ok(())
    }

    /// Compacts once, where frames up to `upto` of each stream may go.
    pub(crate) fn compact(
        &mut self,
        upto: &[u64],
        thorough: bool,
    ) -> Result<Option<Compacted>, ReadError> {
        let of = |number: u64| upto.get(usize::try_from(number).unwrap()).copied().unwrap_or(0);
        // What could still be taken back is not dropped.
        let durable = self.log().durable();
        let goes = |it: &&Entry| it.seq > 1 && it.seq <= of(it.stream) && it.lsn < durable;
        let going: Vec<u64> = self.oracle.entries.iter().filter(goes).map(|it| it.lsn).collect();
        self.oracle.may_go.extend(going);
        let keep = |id: StreamId| {
            let number = (0..STREAMS).find(|number| stream(*number) == id).expect("a stream");
            Ok(Keep { upto: Seq::new(of(number)).unwrap(), ..Keep::ALL })
        };
        let plan = Plan {
            run_bytes_max: 40 << 10,
            keep: &keep,
            pinned: u64::MAX,
            unnamed: u64::MAX,
            below: u64::MAX,
            before: HybridTime::from_bits(u64::MAX),
            renew: true,
            thorough,
        };
        self.log().compact(&plan)
    }

    /// Everything that was appended and not dropped is read.
    pub(crate) fn check_dropped(&mut self) -> Result<(), ReadError> {
        let found = read_all(self.log())?;
        self.oracle.drop_missing(&found);
        self.check_live()?;
        self.check_lost();
        self.check_totals();
        Ok(())
    }

    /// Closes the log and lets go of it.
    pub(crate) fn close(&mut self, disk: &SimDisk) -> Result<(), SyncError> {
        let Some(log) = self.log.take() else { return Ok(()) };
        log.close()?;
        self.promised_all(disk);
        Ok(())
    }

    fn promised_all(&mut self, disk: &SimDisk) {
        if !disk.has_crashed() {
            self.oracle.power = self.oracle.entries.len();
            self.oracle.process = self.oracle.entries.len();
        }
    }

    /// The life is over; what is left of the log is dropped, as threads of a dead process are.
    /// Its disk has ended before: else dropping the log would close it.
    pub(crate) fn ended(&mut self, end: End) {
        self.oracle.ended(end);
        self.log = None;
    }
}

/// What a user's frame holds.
fn entry_of(frame: &Frame<'_>) -> Entry {
    let record = frame.records().next().expect("a record").expect("a sound record");
    let number = u64::from_le_bytes(*record.payload.first_chunk().expect("a number"));
    let bytes = record.payload.len();
    assert!(is_payload(number, record.payload), "the content of {number} is another's");
    let id = frame.header().stream;
    let stream = (0..STREAMS).find(|number| stream(*number) == id).expect("a known stream");
    let (lsn, seq) = (frame.lsn().get(), frame.header().seq.get());
    Entry { lsn, end: frame.end(), stream, seq, number, bytes }
}

/// All users' frames, in order.
pub(crate) fn read_all(log: &Log) -> Result<Vec<Entry>, ReadError> {
    let (found, error) = read_until(log);
    error.map_or(Ok(found), Err)
}

/// The users' frames up to the first error.
pub(crate) fn read_until(log: &Log) -> (Vec<Entry>, Option<ReadError>) {
    let mut found = Vec::new();
    let mut read = || -> Result<(), ReadError> {
        let mut frames = log.frames(0, Limit::Written)?;
        while let Some(frame) = frames.next()? {
            if frame.header().stream != StreamId::SYSTEM {
                found.push(entry_of(&frame));
            }
        }
        Ok(())
    };
    let error = read().err();
    (found, error)
}

pub(crate) fn read_stream(log: &Log, number: u64) -> Result<Vec<Entry>, ReadError> {
    let mut found = Vec::new();
    log.stream(stream(number), Seq::ZERO, &mut |frame| {
        found.push(entry_of(&frame));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// The `number`-th life of a world.
pub(crate) fn life(number: u64) -> Life {
    Life { number, bits: Random::new(number).bits() }
}

/// Every file with its content. Of a store with threads some may go meanwhile.
pub(crate) fn snapshot(disk: &SimDisk) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let read = |(path, _): (std::path::PathBuf, u64)| {
        let bytes = disk.copy_bytes(&path).ok()?;
        Some((path, bytes))
    };
    disk.list_all().into_iter().filter_map(read).collect()
}
