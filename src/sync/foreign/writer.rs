//! What writes the folder of foreign tokens: one at a time, a thread where there is one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::error::{AppendError, DiskError, ReadError};
use crate::log::frame::{Batch, RecordKind};
use crate::log::{Keep, Plan};
use crate::sync::fact::Birth;
use crate::sync::message::{Mark, Place};
use crate::sync::origin::{Lane, TokenLog};
use crate::types::{HybridTime, Seq, StreamId};

use super::recover::{Note, OF_TOKENS, OF_VECTOR, stream, vector_stream};
use super::vector::{Records, Vector};
use super::{QUEUE, QUEUE_BYTES, Shared};

/// Version of the record of tokens.
const VERSION: u16 = 1;
/// A vector is written after so many bytes of tokens, so that an open reads no more than that.
const VECTOR_BYTES: u64 = 8 << 20;
/// A position is remembered for every so many bytes, for retention.
const INDEXED_BYTES: u64 = 256 << 10;

/// What is in the folder.
pub(super) struct Writer {
    pub vector: Vector,
    /// The number of the last vector.
    pub number: Seq,
    pub batch: Batch,
    pub dirty: BTreeSet<TokenLog>,
    /// The vector says something that is not in the folder yet.
    pub unsaid: bool,
    pub since_vector: u64,
    pub index: BTreeMap<TokenLog, VecDeque<Spot>>,
    pub synced: Duration,
    pub failed: Option<Arc<str>>,
}

#[derive(Copy, Clone)]
pub(super) struct Spot {
    /// Up to here may go when this is passed.
    mark: Mark,
    lsn: u64,
    at: Duration,
}

pub(super) enum Job {
    Keep { log: TokenLog, first: u64, before: u64, bytes: Vec<u8> },
    Adopt { to: Place, visible: u64, birth: Option<Birth> },
    Visible { log: TokenLog, upto: u64 },
    Diverged { at: Place },
    Floor { log: TokenLog, floor: Mark },
    Members(Vec<u8>),
    Sync(Sender<Result<(), Arc<str>>>),
}

/// Why something is not in the folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwritten {
    #[error(transparent)]
    Disk(DiskError),
    #[error("{0}")]
    Other(String),
}

impl From<AppendError> for Unwritten {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::DiskFull(error)
            | AppendError::Poisoned(error)
            | AppendError::Disk(error) => Self::Disk(error),
            error => Self::Other(error.to_string()),
        }
    }
}

impl From<ReadError> for Unwritten {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Disk(error) => Self::Disk(error),
            error => Self::Other(error.to_string()),
        }
    }
}

impl Shared {
    pub(super) fn run(&self, queue: &Receiver<Job>) {
        let interval = self.options.sync_interval;
        loop {
            match queue.recv_timeout(interval) {
                Ok(job) => {
                    let mut writer = self.writer.lock();
                    self.write(&mut writer, job);
                    for job in queue.try_iter().take(QUEUE) {
                        self.write(&mut writer, job);
                    }
                    self.stored_now(&mut writer);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let mut writer = self.writer.lock();
            let now = self.options.clock.monotonic_coarse();
            if (!writer.dirty.is_empty() || writer.unsaid)
                && now.saturating_sub(writer.synced) >= interval
            {
                // Told of in `failed`; there is nobody here to tell.
                self.sync(&mut writer).unwrap_or_default();
                self.retain(&mut writer);
            }
        }
    }

    pub(super) fn write(&self, writer: &mut Writer, job: Job) {
        if let Job::Keep { bytes, .. } = &job {
            let before = self.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
            if before > QUEUE_BYTES {
                let _crowd = self.crowd.lock();
                self.room.notify_all();
            }
        }
        if writer.failed.is_some() {
            if let Job::Sync(done) = job {
                let why = writer.failed.clone().unwrap_or_else(|| "it failed".into());
                drop(done.send(Err(why)));
            }
            return;
        }
        if let Err(error) = self.try_write(writer, job) {
            writer.failed = Some(error.to_string().into());
        }
    }

    fn try_write(&self, writer: &mut Writer, job: Job) -> Result<(), Unwritten> {
        match job {
            Job::Keep { log, first, before, bytes } => {
                let records = Records { log, first, before, bytes: &bytes };
                if writer.vector.keep(&records, self.life) {
                    self.write_tokens(writer, &records)?;
                }
                Ok(())
            }
            Job::Visible { log, upto } => {
                if let Some(known) = writer.vector.origins.get_mut(&log.origin)
                    && known.incarnation == log.incarnation
                    && known.visible < upto
                {
                    known.visible = upto;
                }
                Ok(())
            }
            Job::Adopt { to, visible, birth } => {
                writer.vector.adopt(&to, visible, birth.as_ref(), self.life);
                writer.index.retain(|log, _| log.origin != to.origin);
                self.write_vector(writer)
            }
            Job::Diverged { at } => {
                if let Some(known) = writer.vector.origins.get_mut(&at.origin) {
                    known.diverged |= known.incarnation == at.incarnation;
                }
                self.write_vector(writer)
            }
            Job::Floor { log, floor } => {
                if let Some(kept) = writer.vector.get_mut(&log) {
                    kept.floor = floor;
                }
                self.write_vector(writer)
            }
            Job::Members(members) => {
                writer.vector.members = members;
                self.write_vector(writer)
            }
            Job::Sync(done) => {
                let synced = self.sync(writer);
                // Whoever asked may have gone.
                drop(done.send(synced));
                Ok(())
            }
        }
    }

    fn write_tokens(&self, writer: &mut Writer, records: &Records<'_>) -> Result<(), Unwritten> {
        let Some(kept) = writer.vector.get(&records.log) else { return Ok(()) };
        let (head, since) = (kept.head, kept.since);
        let Records { log, first, before, .. } = *records;
        let note = Note { log, since, first, before };
        writer.batch.clear();
        let full = |_reject| Unwritten::Other("the frame takes no more".to_owned());
        writer.batch.push(RecordKind::Note, OF_TOKENS, &note.encode()).map_err(full)?;
        writer.batch.push(RecordKind::Token, VERSION, records.bytes).map_err(full)?;
        let seq = Seq::new(head.seq).unwrap_or(Seq::MAX);
        let at = self.log.append(&mut writer.batch, stream(&records.log, since), seq)?;
        writer.dirty.insert(records.log);
        writer.since_vector += records.bytes.len() as u64;
        let index = writer.index.entry(records.log).or_default();
        let lsn = at.lsn.get();
        if index.back().is_none_or(|last| lsn >= last.lsn + INDEXED_BYTES) {
            let mark = Mark { seq: records.first - 1, hash: records.before };
            index.push_back(Spot { mark, lsn, at: self.options.clock.monotonic_coarse() });
        }
        if writer.since_vector > VECTOR_BYTES {
            self.write_vector(writer)?;
        }
        Ok(())
    }

    pub(super) fn write_vector(&self, writer: &mut Writer) -> Result<(), Unwritten> {
        writer.batch.clear();
        let encoded = writer.vector.encode();
        writer
            .batch
            .push(RecordKind::Note, OF_VECTOR, &encoded)
            .map_err(|_reject| Unwritten::Other("the vector is too large".to_owned()))?;
        let next = writer.number.checked_add(1).unwrap_or(Seq::MAX);
        self.log.append(&mut writer.batch, vector_stream(), next)?;
        writer.number = next;
        (writer.since_vector, writer.unsaid) = (0, false);
        Ok(())
    }

    /// What was written survives the process.
    pub(super) fn stored_now(&self, writer: &mut Writer) {
        if writer.failed.is_none()
            && let Err(error) = self.log.store()
        {
            writer.failed = Some(error.to_string().into());
        }
    }

    pub(super) fn sync(&self, writer: &mut Writer) -> Result<(), Arc<str>> {
        if let Some(failed) = &writer.failed {
            return Err(Arc::clone(failed));
        }
        let synced = (|| -> Result<(), Unwritten> {
            if writer.unsaid {
                self.write_vector(writer)?;
            }
            self.log.sync().map_err(|error| Unwritten::Other(error.to_string()))
        })();
        if let Err(error) = synced {
            let failed: Arc<str> = error.to_string().into();
            writer.failed = Some(Arc::clone(&failed));
            return Err(failed);
        }
        self.log.keep();
        writer.synced = self.options.clock.monotonic_coarse();
        let marks: Vec<_> = std::mem::take(&mut writer.dirty)
            .into_iter()
            .filter_map(|log| Some((log, writer.vector.get(&log)?.head)))
            .collect();
        self.durable.lock().extend(marks.iter().copied());
        let stored: Vec<_> = marks.iter().map(|(log, mark)| (*log, mark.seq)).collect();
        let told = self.stored.lock().clone();
        if let Some(told) = told.filter(|_| !stored.is_empty()) {
            told(&stored);
        }
        Ok(())
    }

    /// Lets go what is too old or too much.
    fn retain(&self, writer: &mut Writer) {
        let below = self.log.written().saturating_sub(self.options.bytes_max);
        let oldest = self.options.clock.monotonic_coarse().saturating_sub(self.options.age_max);
        let mut raised = Vec::new();
        for (log, index) in &mut writer.index {
            // Whoever begins here must hear of the intents that are open.
            let open = writer.vector.get(log).and_then(|kept| kept.intents.values().min());
            let held = open.copied().unwrap_or(u64::MAX);
            let mut floor = None;
            while let Some(next) = index.get(1).copied()
                && (next.lsn < below || next.at < oldest)
                && next.mark.seq < held
            {
                index.pop_front();
                floor = Some(next.mark);
            }
            raised.extend(floor.map(|floor| (*log, floor)));
        }
        if raised.is_empty() {
            return;
        }
        {
            let mut table = self.table.lock();
            for (log, floor) in &raised {
                for vector in [&mut table.vector, &mut writer.vector] {
                    if let Some(kept) = vector.get_mut(log)
                        && kept.floor.seq < floor.seq
                    {
                        kept.floor = *floor;
                    }
                }
            }
        }
        writer.unsaid = true;
        // The floors are durable before anything below them goes.
        if self.sync(writer).is_err() {
            return;
        }
        let mut keep = BTreeMap::new();
        for known in &writer.vector.origins {
            for lane in [Lane::Tokens, Lane::Values] {
                let log = TokenLog { origin: *known.0, incarnation: known.1.incarnation, lane };
                let kept = known.1.lane(lane);
                keep.insert(stream(&log, kept.since).get(), kept.floor.seq);
            }
        }
        let vectors = writer.number.get().saturating_sub(1);
        let keep = |of: StreamId| {
            let upto =
                if of == vector_stream() { Some(vectors) } else { keep.get(&of.get()).copied() };
            // Streams that are not known any more go as a whole.
            let upto = upto.map_or(Some(Seq::MAX), Seq::new).unwrap_or(Seq::MAX);
            Ok(Keep { upto, first: false, superseded: true })
        };
        let plan = Plan {
            run_bytes_max: 1 << 30,
            keep: &keep,
            pinned: u64::MAX,
            unnamed: u64::MAX,
            below: u64::MAX,
            before: HybridTime::from_bits(u64::MAX),
            renew: true,
            thorough: false,
        };
        // A failure leaves the log as it was; the next pass tries again.
        while let Ok(Some(_)) = self.log.compact(&plan) {}
    }
}
