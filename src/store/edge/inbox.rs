//! The log as a sink.
//!
//! Records of a source are events of the stream `annals.inbox`/id. What is put between two looks of
//! the pipeline goes into one frame, whole inputs only, with a note that is the position of the
//! last: `0 | mark` (see [`Mark::to_bytes`]). So a crash leaves all of a frame or nothing, and the
//! newest note says where the source has to go on. Progress that is made of nothing else than
//! skips is a frame with a note alone.
//!
//! Retention drops nothing of these streams: no snapshot covers them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::super::cursor::notes;
use super::{INBOX, Lease, append_fault, wait_safe};
use crate::edge::{Fault, Last, Level, Mark, Pos, Sink, Why};
use crate::error::ReadError;
use crate::log::frame::{Batch, RecordKind};
use crate::log::{Log, name as name_record};
use crate::types::{Durability, Lsn, Seq, StreamId};

/// Version of events and notes.
const VERSION: u16 = 1;
/// What an event takes besides its bytes, at most, and a frame besides its events.
const EVENT_BYTES: usize = 16;
const FRAME_BYTES: usize = 1_024;
/// No frame is larger than that if its inputs are not.
const GATHER_BYTES: usize = 256 << 10;
const EVENTS_MAX: usize = 16 << 10;
/// What is put and not settled, at most.
const OPEN_MAX: usize = 64 << 10;
const OPEN_BYTES_MAX: u64 = 8 << 20;

/// A sink that is the log. See [`Store::inbox`](crate::Store::inbox).
#[derive(Debug)]
pub struct Inbox<T> {
    log: Arc<Log>,
    id: Box<str>,
    stream: StreamId,
    durability: Durability,
    frame_bytes_max: usize,
    /// The stream's last number.
    seq: Seq,
    /// What an open has found.
    last: Last,
    /// Records of an input that is not whole yet, and a hash of that.
    open: Vec<T>,
    hashed: Option<Mark>,
    /// Whole inputs that wait, because what is ready could not be appended.
    waiting: VecDeque<(Vec<T>, Mark)>,
    /// The next frame.
    batch: Batch,
    ready: Option<Ready>,
    /// Appended, and not settled: the last position, the mark that covers it, and how many.
    appended: VecDeque<(Pos, Lsn, usize)>,
    appended_count: usize,
    settled: Option<Pos>,
    bytes: u64,
    bytes_settled: u64,
    _lease: Lease,
}

/// What is in the next frame.
#[derive(Copy, Clone, Debug)]
struct Ready {
    /// The last position.
    mark: Mark,
    /// Events, and what they take.
    count: usize,
    bytes: usize,
    /// It has its note, and takes no more.
    sealed: bool,
}

impl<T> Inbox<T> {
    pub(super) fn open(
        log: &Arc<Log>,
        id: &str,
        (durability, frame_bytes_max): (Durability, usize),
        lease: Lease,
    ) -> Result<Self, ReadError> {
        let stream = StreamId::of(INBOX, id);
        let seq = log.last_seq(stream)?;
        let before = Seq::new(seq.get().saturating_sub(1)).unwrap_or_default();
        let mut last = Last::Never;
        notes(log, stream, before, &mut |payload| {
            let mark = payload.split_first().filter(|(zero, _)| **zero == 0);
            if let Some(mark) = mark.and_then(|(_, mark)| Mark::from_bytes(mark)) {
                last = Last::At(mark);
            }
        })?;
        Ok(Self {
            log: Arc::clone(log),
            id: id.into(),
            stream,
            durability,
            frame_bytes_max,
            seq,
            last,
            open: Vec::new(),
            hashed: None,
            waiting: VecDeque::new(),
            batch: Batch::new(),
            ready: None,
            appended: VecDeque::new(),
            appended_count: 0,
            settled: None,
            bytes: 0,
            bytes_settled: 0,
            _lease: lease,
        })
    }

    fn push(&mut self, kind: RecordKind, payload: &[u8]) -> Result<(), Fault> {
        self.batch.push(kind, VERSION, payload).map_err(|error| Fault::fatal(error.to_string()))
    }

    /// Begins a frame.
    fn begin(&mut self) -> Result<(), Fault> {
        if self.batch.is_empty() && self.seq == Seq::ZERO {
            let name = name_record::encode(INBOX, &self.id).unwrap_or_default();
            self.push(RecordKind::Name, &name)?;
        }
        Ok(())
    }

    /// Appends what is ready, as one frame.
    fn append(&mut self) -> Result<(), Fault> {
        let Some(ready) = self.ready else { return Ok(()) };
        if !ready.sealed {
            // Once: the frame stays as it is until it is appended.
            self.push(RecordKind::Note, &[&[0][..], &ready.mark.to_bytes()].concat())?;
            self.ready = Some(Ready { sealed: true, ..ready });
        }
        // What is no event takes a number too, where there is nothing else.
        let numbers = u64::try_from(ready.count.max(1)).unwrap_or(1);
        let first = Seq::new(self.seq.get() + 1);
        let Some((first, last)) = first.zip(Seq::new(self.seq.get() + numbers)) else {
            return Err(Fault::fatal("a stream's numbers are used up"));
        };
        let end = self.log.append(&mut self.batch, self.stream, first).map_err(append_fault)?.end;
        self.batch.clear();
        self.seq = last;
        self.ready = None;
        self.appended.push_back((ready.mark.pos, end, ready.count));
        self.appended_count += ready.count;
        Ok(())
    }

    fn look(&mut self, limit: Duration) -> Result<(), Fault> {
        if let Some((_, end, _)) = self.appended.back()
            && !limit.is_zero()
        {
            wait_safe(&self.log, *end, self.durability, Some(limit))
                .map_err(|error| Fault::fatal(Why::error(error)))?;
        }
        let durable = match self.durability {
            Durability::Process => u64::MAX,
            Durability::Power => self.log.durable(),
        };
        while let Some((pos, end, count)) = self.appended.front()
            && end.get() <= durable
        {
            self.settled = Some(*pos);
            self.appended_count -= count;
            self.appended.pop_front();
        }
        if self.appended.is_empty() && self.ready.is_none() {
            self.bytes_settled = self.bytes;
        }
        Ok(())
    }
}

impl<T: AsRef<[u8]>> Inbox<T> {
    /// Puts an input that is whole to those that are to be appended.
    fn gather(&mut self, (events, mark): (Vec<T>, Mark)) -> Result<(), Fault> {
        let count = events.len();
        let bytes: usize = events.iter().map(|event| event.as_ref().len() + EVENT_BYTES).sum();
        let alone = self.frame_bytes_max.saturating_sub(FRAME_BYTES);
        if bytes > alone || count > EVENTS_MAX {
            let why = format!("{bytes} bytes of one input, where a frame takes {alone}");
            return Err(Fault::poison(mark.pos, why));
        }
        let full = self.ready.is_some_and(|ready| {
            let bytes = ready.bytes + bytes;
            ready.sealed || ready.count + count > EVENTS_MAX || bytes > alone.min(GATHER_BYTES)
        });
        if full && let Err(fault) = self.append() {
            self.waiting.push_front((events, mark));
            return Err(fault);
        }
        self.begin()?;
        for event in &events {
            let event = event.as_ref();
            self.bytes += event.len() as u64;
            self.push(RecordKind::Event, event)?;
        }
        let before = self.ready.map_or((0, 0), |ready| (ready.count, ready.bytes));
        let (count, bytes) = (before.0 + count, before.1 + bytes);
        self.ready = Some(Ready { mark, count, bytes, sealed: false });
        Ok(())
    }
}

impl<T: AsRef<[u8]>> Sink for Inbox<T> {
    type Item = T;

    fn put(&mut self, pos: Pos, item: T, last: bool) -> Result<(), Fault> {
        self.open.push(item);
        if !last {
            return Ok(());
        }
        let mark = self.hashed.take().filter(|mark| mark.pos == pos).unwrap_or(pos.into());
        let input = (std::mem::take(&mut self.open), mark);
        if self.waiting.is_empty() {
            return self.gather(input);
        }
        self.waiting.push_back(input);
        Ok(())
    }

    fn settle(&mut self, limit: Duration) -> Result<Option<Pos>, Fault> {
        self.append()?;
        while let Some(input) = self.waiting.pop_front() {
            self.gather(input)?;
        }
        self.append()?;
        self.look(limit)?;
        Ok(self.settled)
    }

    fn room(&self) -> usize {
        if self.bytes - self.bytes_settled > OPEN_BYTES_MAX {
            return 0;
        }
        let ready = self.ready.map_or(0, |ready| ready.count);
        OPEN_MAX.saturating_sub(ready + self.open.len() + self.appended_count)
    }

    fn last(&mut self) -> Result<Last, Fault> {
        Ok(self.last)
    }

    fn level(&self) -> Level {
        match self.durability {
            Durability::Process => Level::Process,
            Durability::Power => Level::Power,
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn hashed(&mut self, mark: Mark) {
        self.hashed = Some(mark);
    }

    fn passed(&mut self, pos: Mark) -> Result<bool, Fault> {
        if self.ready.is_none() {
            self.begin()?;
            self.push(RecordKind::Turn, &[])?;
            self.ready = Some(Ready { mark: pos, count: 0, bytes: 0, sealed: false });
        }
        self.append()?;
        let Some((_, end, _)) = self.appended.back().copied() else { return Ok(false) };
        let safe = wait_safe(&self.log, end, self.durability, None);
        safe.map_err(|error| Fault::fatal(Why::error(error)))
    }
}
