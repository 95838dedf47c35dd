//! Logs to measure, who appends to them, and what an append costs in plain code.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals::disk::{Access, Disk, Fill, RealDisk, RingWriter};
use annals::log::frame::{Batch, RecordKind};
use annals::log::{Appended, Evidence, Log, LogOptions, Opening};
use annals::types::{Life, Seq, StreamId};
use crc32fast::Hasher;

use crate::support::home::{Home, remove};
use crate::support::{FRAME_BYTES, PAYLOAD_BYTES};

const LOG_ID: u64 = 42;
/// A frame's header; the payload is behind it.
const HEADER: usize = FRAME_BYTES - PAYLOAD_BYTES;
/// Of that, what is known only in the lock.
const HEAD: usize = 16;
/// So that neither the disk nor the page cache fills up.
const LOG_BYTES_MAX: u64 = 1 << 30;
/// A log that has come to its largest segments, and been through its ring many times.
const WARM_EVENTS: u64 = 800_000;

/// A log as a store keeps it.
pub(crate) fn options(dir: &Path) -> LogOptions {
    LogOptions {
        ring: Some(dir.join("ring")),
        mark: Some(dir.join("mark")),
        checkpoints: Some(dir.to_owned()),
        ..LogOptions::new(dir.join("log"))
    }
}

/// Looks through what is there, and makes it sound.
pub(crate) fn look(options: LogOptions) -> Opening {
    look_with(options, Evidence::default())
}

/// The same after a kill of the `number`-th life, with the machine running on.
pub(crate) fn look_after_kill(options: LogOptions, number: u64) -> Opening {
    look_with(options, Evidence { durable: 0, killed: Some(life(number)) })
}

fn look_with(options: LogOptions, evidence: Evidence) -> Opening {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    Opening::new(&disk, options, LOG_ID, evidence).expect("the log is sound")
}

pub(crate) fn start(opening: Opening, number: u64) -> Log {
    opening.start(life(number)).expect("the log opens").0
}

fn life(number: u64) -> Life {
    Life { number, bits: number * 0x9e37_79b9 }
}

/// A fresh log in `dir`, which is made.
pub(crate) fn fresh(dir: &Path) -> Log {
    std::fs::create_dir_all(dir).expect("the log's folder");
    start(look(options(dir)), 1)
}

/// Bytes that compress badly and are the same in every run.
pub(crate) fn payload() -> [u8; PAYLOAD_BYTES] {
    let mut state = 1_u8;
    std::array::from_fn(|_| {
        state = state.wrapping_mul(29).wrapping_add(77);
        state
    })
}

/// Appends events of 128 bytes to its streams in turn.
pub(crate) struct Writer {
    batch: Batch,
    payload: [u8; PAYLOAD_BYTES],
    streams: Vec<StreamId>,
    next: usize,
    seq: u64,
}

impl Writer {
    /// Streams that no other writer of another `number` has.
    pub(crate) fn new(number: usize, streams: usize) -> Self {
        let streams = (0..streams).map(|stream| stream_of(number, stream)).collect();
        Self { batch: Batch::new(), payload: payload(), streams, next: 0, seq: 1 }
    }

    pub(crate) fn append(&mut self, log: &Log) -> Appended {
        self.batch.clear();
        self.batch.push(RecordKind::Event, 1, &self.payload).expect("one record fits");
        let first = Seq::new(self.seq).expect("48 bits last");
        let appended =
            log.append(&mut self.batch, self.streams[self.next], first).expect("an append");
        self.next += 1;
        if self.next == self.streams.len() {
            self.next = 0;
            self.seq += 1;
        }
        appended
    }

    pub(crate) fn append_many(&mut self, log: &Log, times: u64) {
        for _ in 0..times {
            self.append(log);
        }
    }
}

pub(crate) fn stream_of(writer: usize, stream: usize) -> StreamId {
    StreamId::of("bench", &format!("{writer}/{stream}"))
}

/// A warm log and its writers, made anew once it has grown large.
pub(crate) struct WarmLog {
    dir: PathBuf,
    warm: u64,
    open: Option<(Log, Vec<Writer>)>,
}

impl WarmLog {
    pub(crate) fn new(home: &Home, once: bool) -> Self {
        let warm = if once { 100 } else { WARM_EVENTS };
        Self { dir: home.fresh("append"), warm, open: None }
    }

    /// With at least `writers` writers, of 1,000 streams each.
    pub(crate) fn get(&mut self, writers: usize) -> (&Log, &mut [Writer]) {
        let full = |(log, _): &mut (Log, Vec<Writer>)| log.stats().bytes > LOG_BYTES_MAX;
        if self.open.as_mut().is_some_and(full) {
            self.open = None;
            remove(&self.dir);
        }
        let (log, known) = self.open.get_or_insert_with(|| {
            let log = fresh(&self.dir);
            let mut writer = Writer::new(0, 1_000);
            writer.append_many(&log, self.warm);
            (log, vec![writer])
        });
        while known.len() < writers {
            known.push(Writer::new(known.len(), 1_000));
        }
        (log, &mut known[..writers])
    }
}

impl Drop for WarmLog {
    fn drop(&mut self) {
        self.open = None;
        remove(&self.dir);
    }
}

/// The limit of an append: checksum and copy into a resident ring, and nothing else.
pub(crate) struct PlainRing {
    ring: RingWriter,
    position: u64,
}

impl PlainRing {
    pub(crate) fn new(home: &Home) -> Self {
        let path = home.fresh("plain-ring");
        let bytes = 8 << 20;
        let file = RealDisk.open(&path, Access::Create).expect("a ring's file");
        file.allocate(bytes as u64, Fill::Reserve).expect("room for the ring");
        let (ring, _) = file.map_ring(bytes).expect("a ring");
        Self { ring, position: 0 }
    }

    /// What may happen outside of a lock.
    pub(crate) fn body(frame: &[u8; FRAME_BYTES]) -> Hasher {
        let mut body = Hasher::new();
        body.update(&frame[HEAD..]);
        body
    }

    /// What belongs inside: a checksum of the 16 bytes that hold the place, and the copy.
    pub(crate) fn put(&mut self, frame: &mut [u8; FRAME_BYTES], mut body: Hasher) {
        frame[8..HEAD].copy_from_slice(&self.position.to_le_bytes());
        body.update(&frame[..HEAD]);
        frame[..4].copy_from_slice(&body.finalize().to_le_bytes());
        self.ring.copy_in(self.position, frame);
        self.position += FRAME_BYTES as u64;
    }
}

/// A frame of that payload, its header empty.
pub(crate) fn plain_frame() -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[HEADER..].copy_from_slice(&payload());
    frame
}
